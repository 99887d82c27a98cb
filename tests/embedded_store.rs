//! The embedded store from outside: by the client library the agents use, by etcdctl, beside a real etcd, and under
//! `kill -9`.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may fail by panic, and says what it skips")]

#[path = "embedded_store/client.rs"]
mod client;
#[path = "support/dice.rs"]
mod dice;
#[path = "embedded_store/durability.rs"]
mod durability;
#[path = "support/etcd.rs"]
mod etcd;
#[path = "embedded_store/etcdctl.rs"]
mod etcdctl;
#[path = "support/ground.rs"]
mod ground;
#[path = "embedded_store/same_as_etcd.rs"]
mod same_as_etcd;
#[path = "embedded_store/support.rs"]
mod support;
