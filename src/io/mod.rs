//! Plumbing that users on two floors share.

pub mod clock;
