//! `pgherdctl` in-process, against recorded clusters: patronictl's bytes, and snapshots of our own.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod bench;
mod binary;
mod formats;
mod ours;
mod patronictl;
mod program;
mod terminal;
mod transcript;
mod version;
mod watch;

#[path = "../support/schemas.rs"]
mod schemas;
