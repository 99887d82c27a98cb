//! The REST interface of a member, both ends.
//!
//! The [`Server`] owns routing, access checks, JSON, status codes and message texts, and the requests that are
//! more than one step (a switchover is checked, written and waited for). What it needs of the agent is the port
//! [`Node`]: facts to show, commands to carry out. The [`Client`] asks other members and is what the CLI uses.
//!
//! Everything with a rule in it is a pure function over plain data: [`health`] turns facts into a status code,
//! [`status`] into documents, [`metrics`] into text; [`requests`] reads bodies.

pub mod access;
pub mod client;
#[cfg(test)]
mod fake;
mod handover;
pub mod health;
pub mod metrics;
pub mod moment;
pub mod node;
pub mod requests;
mod routes;
pub mod server;
pub mod status;
pub mod wire;

pub use access::Settings;
pub use client::{Client, ClientError, HttpAnswer, NodeStatus};
pub use node::{Command, FailsafePing, Live, Node, NodeFacts, Reply, RunningAsLeader};
pub use server::{Limits, Server, bind, serve};
pub use status::{can_be_asked, cluster_answer};
