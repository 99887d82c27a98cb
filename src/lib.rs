//! PostgreSQL high availability, wire-compatible with Patroni.
//!
//! # The house
//!
//! Imports go down only; neighbours on one floor do not import each other. `tests/architecture.rs` holds this.
//!
//! ```text
//! bin      pgherdctl · pgherd                 arguments, runtime, exit code
//! top      ctl · agent · demo                 wiring: gather, decide, carry out, show
//! middle   ha · api · postgres · dcs          one concern each (ha is pure)
//! plumbing io                                 clock, TLS; used by top and by api/postgres/dcs, never by ha
//! ground   cluster · config                   pure data: no async, files, sockets, clock, randomness, or logging
//! ```
//!
//! # How a cycle goes
//!
//! The agent fills an `Observation`, calls [`ha`]'s `decide`, and carries out the steps of the `Decision`. The agent
//! has no choices; the decision has no I/O. A decision stops at the first step whose outcome matters (take the lock,
//! ask the peers); the agent does it, adds the outcome to the observation and decides again, a bounded number of
//! times per cycle.
//!
//! # What must hold
//!
//! * Only the holder of the leader key promotes, and it created that key itself by compare-and-set.
//! * A lease is renewed by the loop and by nothing else; when it was not renewed in time, a deadline outside the loop
//!   stops the server.
//! * An observation may be stale. Safety rests on compare-and-set, the lease and the deadline, never on freshness.
//! * No data directory is removed without a rule that says so and a log line that names it.

pub mod agent;
pub mod api;
pub mod cluster;
pub mod config;
pub mod ctl;
pub mod dcs;
pub mod demo;
pub mod generated;
pub mod ha;
pub mod io;
pub mod postgres;

/// The version members publish: the Patroni release whose behaviour this one is compatible with. Members that publish
/// less than 4.0.0 make Patroni fall back to old formats.
pub const COMPATIBLE_VERSION: &str = "4.1.5";

/// The version of this software.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
