//! Stories on real processes: etcd (or the embedded store), PostgreSQL, our agents, and Patroni as a peer.

mod commands;
mod harness;
mod peers;
mod stories;
mod writer;
