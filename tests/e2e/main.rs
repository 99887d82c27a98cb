//! Stories on real processes: etcd (or the embedded store), PostgreSQL, our agents, and Patroni as a peer.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "a failed step is a failed test; the harness is one world")]
#![allow(clippy::disallowed_methods, reason = "processes live by the real clock")]

mod bootstrap;
mod callbacks;
mod commands;
mod crash;
mod damaged;
mod differential;
mod etcd_cluster;
mod etcd_nodes;
mod events;
mod failsafe;
mod following;
#[path = "../support/ground.rs"]
mod ground;
mod guard;
mod hanging;
#[allow(dead_code, reason = "shared with the benchmark; a story takes what it needs")]
mod harness;
mod mixed;
mod parameters;
mod pause;
mod peers;
mod process;
#[allow(dead_code, reason = "shared with the contract of the stores")]
#[path = "../dcs_contract/proxy.rs"]
mod proxy;
mod replicas;
mod rewind;
mod side_by_side;
mod slots;
mod standby_cluster;
mod stories;
mod synchronous;
mod tls;
mod unfinished;
mod versions;
mod watchdog;
mod wiped;
#[allow(dead_code, reason = "shared with the benchmark")]
mod writer;
