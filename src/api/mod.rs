//! The REST interface of a member, both ends.
//!
//! The server owns routing, access checks, JSON, status codes and message texts, and the requests that are
//! more than one step (a switchover is checked, written and waited for). What it needs of the agent is the port
//! [`Node`]: facts to show, commands to carry out. The [`Client`] asks other members and is what the CLI uses.
//!
//! Everything with a rule in it is a pure function over plain data.

pub mod client;
pub mod node;

pub use client::{Client, ClientError, HttpAnswer, NodeStatus};
pub use node::{Command, FailsafePing, Live, Node, NodeFacts, Reply};
