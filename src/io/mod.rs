//! Plumbing that users on two floors share.

pub mod clock;
pub mod tls;
