//! `pgherdctl` in-process, against recorded clusters: patronictl's bytes, and snapshots of our own.

mod bench;
mod ours;
mod patronictl;
mod transcript;
mod version;
