//! The server's configuration files. Text in, text out: only [`mod@write`] touches the disk.

pub mod hba;
pub mod parameters;
pub mod postgresql;
pub mod recovery;
pub mod reload;
pub mod write;
