//! Plumbing that users on two floors share.

pub mod alarm;
pub mod clock;
pub mod private_key;
pub mod tls;
