//! The programs behind `pgherd`: the agent, the embedded store and the demo.

pub mod board;
pub mod cli;
pub mod generate;
pub mod guard;
pub mod init;
pub mod lead;
pub mod lease;
pub mod life;
pub mod ports;
pub mod run;
pub mod store;
pub mod validate;
pub mod watchdog;

mod carry_out;
mod configuration;
mod gauge;
mod journal;
mod logging;
mod machine;
mod node;
mod notify;
mod peers;
mod reload;
mod rest;
mod retry;
mod task;

pub use board::Board;
pub use lead::FailsafeLead;
pub use lease::{Lease, Stated};
pub use ports::{Configure, Configured, Peers, Ports};
pub use run::{Ended, Rules, Runner};
