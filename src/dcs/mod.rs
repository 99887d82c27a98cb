//! The distributed configuration store behind one trait.
//!
//! The verbs are those of the documents in it, not of raw keys: Kubernetes has no keys. Every backend keeps the same
//! contract, which one test suite holds them to:
//!
//! * a snapshot is complete or an error, and an error drops whatever was cached before;
//! * the leader key is only ever created when absent, re-attached by its holder, or taken at the end of bootstrap;
//! * a lease is renewed by a call that its owner makes, never in the background: an agent whose loop hangs must lose
//!   the lock;
//! * a conditional write says `false` when somebody else was faster, and an error when the outcome is unknown;
//! * no call waits longer than `retry_timeout`.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::cluster::{ClusterView, FailoverKey, LeaderKey, MemberName, Status, SyncState, Version};
use crate::config::DcsConfig;

pub mod connect;
pub mod embedded;
pub mod error;
mod etcd3;
pub mod layout;
pub mod memory;
pub mod wakes;

pub use connect::{Identity, connect};
pub use error::DcsError;

/// The three numbers that time everything, already adjusted to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Life of the lease behind leader and member keys.
    pub ttl: Duration,
    /// Period of the loop.
    pub loop_wait: Duration,
    /// Budget of one operation with its retries.
    pub retry_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(30),
            loop_wait: Duration::from_secs(10),
            retry_timeout: Duration::from_secs(10),
        }
    }
}

/// A setting of the connection that is used from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// Which, by its path.
    pub key: &'static str,
    /// The setting is the old one, but this file that it names was replaced.
    pub file: Option<String>,
}

/// One cluster's documents in a DCS, as seen by one agent (which has a name and a lease) or by the CLI (which has
/// neither and must not call the verbs that need them).
#[async_trait]
pub trait Dcs: Send + Sync {
    /// Reads everything at one moment.
    async fn load(&self) -> Result<ClusterView, DcsError>;

    /// Counts changes that should wake the agent's loop: leader, config, failover, sync, initialize, a member that
    /// came, went or changed its state, role or tags, and (when another member leads) the holder's status. Own
    /// writes may or may not count.
    fn changes(&self) -> watch::Receiver<u64>;

    /// New timing; a changed `ttl` lets the next write use a new lease.
    fn set_timing(&self, timing: Timing);

    /// Takes what is new in the configuration of the connection, for the next request on; leases and watches go on.
    /// What was new. An error changes nothing.
    fn reconfigure(&self, _config: &DcsConfig) -> Result<Vec<Renewed>, DcsError> {
        Ok(Vec::new())
    }

    /// Publishes the own member value under the own lease, refreshing the lease. Nothing is put when value and
    /// lease are unchanged.
    async fn touch_member(&self, value: &Map<String, Value>) -> Result<(), DcsError>;

    /// Creates the leader key if it is absent, and, where `sync` is given, only while that key is still the one that was
    /// read: whoever decided by an older one might lead without commits that were acknowledged since. `false`: somebody
    /// else holds it, or `sync` has changed.
    async fn acquire_leader(&self, sync: Option<&SyncState>) -> Result<bool, DcsError>;

    /// Renews the lease; when `seen` hangs on another lease than ours, re-attaches the key (value still ours, or
    /// absent). `false`: the key is not ours any more.
    async fn renew_leader(&self, seen: &LeaderKey) -> Result<bool, DcsError>;

    /// Writes the leader key unconditionally. Only at the end of bootstrap.
    async fn take_leader(&self) -> Result<(), DcsError>;

    /// Writes `status` first, if given, then deletes the leader key if it is ours. `false`: it was not.
    async fn release_leader(&self, status: Option<&Status>) -> Result<bool, DcsError>;

    /// Creates `initialize` with this text (empty: bootstrap begins) if it is absent.
    async fn race_initialize(&self, text: &str) -> Result<bool, DcsError>;

    /// Writes `initialize` whatever is there.
    async fn set_initialize(&self, text: &str) -> Result<(), DcsError>;

    /// Deletes `initialize` after a failed bootstrap.
    async fn cancel_initialize(&self) -> Result<(), DcsError>;

    /// Writes `config`; with a version only if it is still that one.
    async fn write_config(&self, document: &Map<String, Value>, expected: Option<Version>) -> Result<bool, DcsError>;

    /// Writes `failover` (a blank request as `{}`); with a version only if it is still that one.
    async fn write_failover(&self, request: &FailoverKey, expected: Option<Version>) -> Result<bool, DcsError>;

    /// Writes `sync`; with a version only if it is still that one. The new version, or `None` when somebody else
    /// was faster.
    async fn write_sync(&self, state: &SyncState, expected: Option<Version>) -> Result<Option<Version>, DcsError>;

    /// Deletes `sync` under the same condition.
    async fn delete_sync(&self, expected: Option<Version>) -> Result<bool, DcsError>;

    /// Writes `status`.
    async fn write_status(&self, status: &Status) -> Result<(), DcsError>;

    /// Writes `history`, an array of arrays.
    async fn write_history(&self, history: &Value) -> Result<(), DcsError>;

    /// Writes `failsafe`.
    async fn write_failsafe(&self, topology: &BTreeMap<MemberName, String>) -> Result<(), DcsError>;

    /// The first parts of all keys below the prefix, each once and sorted: of a connection whose scope is empty, the
    /// clusters of the namespace. Only the CLI needs it.
    async fn names(&self) -> Result<Vec<String>, DcsError> {
        Err(DcsError::Refused { what: "reading the names of the clusters".to_owned(), source: None })
    }

    /// Reads every cluster at one moment, by name, each with the keys of this Citus group: of a connection whose scope
    /// is empty. Only the CLI needs it, to show many clusters without asking for each.
    async fn load_all(&self, _group: Option<u32>) -> Result<BTreeMap<String, ClusterView>, DcsError> {
        Err(DcsError::Refused { what: "reading all clusters".to_owned(), source: None })
    }

    /// Deletes everything below the cluster's prefix.
    async fn delete_cluster(&self) -> Result<(), DcsError>;
}
