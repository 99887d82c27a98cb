//! `pgherdctl` in-process, against recorded clusters: patronictl's bytes, and snapshots of our own.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod bench;
mod binary;
mod ours;
mod patronictl;
mod program;
mod transcript;
mod version;
mod watch;
