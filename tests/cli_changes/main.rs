//! The commands that change a cluster, against the model of the DCS and members whose answers are scripted.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod binary;
mod completions;
mod fake_member;
mod ours;
mod outcomes;
mod recorded;
mod stage;
mod terminal;
mod transcript;
mod unreachable;
mod without_dcs;

#[path = "../support/etcd.rs"]
mod etcd;
#[path = "../support/ground.rs"]
mod ground;
#[path = "../support/schemas.rs"]
mod schemas;
