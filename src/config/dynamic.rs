//! The cluster-wide settings out of `/config`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The dynamic configuration, read: every value has its default and bounds applied. `document` is what stands in the
/// DCS; adjusted timing is not written back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dynamic {
    /// Life of the leases.
    pub ttl: Duration,
    /// Period of the loop.
    pub loop_wait: Duration,
    /// Budget of one DCS operation.
    pub retry_timeout: Duration,
    /// A standby further behind than this does not race, in bytes.
    pub maximum_lag_on_failover_bytes: u64,
    /// A standby further behind than this is not picked as synchronous, in bytes; `None` is off.
    pub maximum_lag_on_syncnode_bytes: Option<u64>,
    /// How many lines `/history` keeps; 0 is all.
    pub max_timelines_history: usize,
    /// Compare timelines in the race.
    pub check_timeline: bool,
    /// How long a crashed primary may take to come back; zero: fail over at once.
    pub primary_start_timeout: Duration,
    /// How long a stop may take in synchronous mode; zero is no limit.
    pub primary_stop_timeout: Duration,
    /// Standbys that still receive WAL stand back this long.
    pub primary_race_backoff: Duration,
    /// Synchronous replication.
    pub synchronous_mode: SynchronousMode,
    /// Block commits rather than run without a synchronous standby.
    pub synchronous_mode_strict: bool,
    /// How many synchronous standbys.
    pub synchronous_node_count: usize,
    /// Stay primary while the DCS is away and every member agrees.
    pub failsafe_mode: bool,
    /// Maintenance mode.
    pub pause: bool,
    /// How long the slot of an absent member is kept; zero: not at all.
    pub member_slots_ttl: Duration,
    /// Permanent slots, as configured.
    pub slots: Map<String, Value>,
    /// Matchers of slots that are not ours.
    pub ignore_slots: Vec<Value>,
    /// The standby cluster section, when it names a host, a port or a restore command.
    pub standby_cluster: Option<StandbyCluster>,
    /// Member slots are used (`postgresql.use_slots`).
    pub use_slots: bool,
    /// The document.
    pub document: Map<String, Value>,
}

/// `synchronous_mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SynchronousMode {
    /// Asynchronous.
    #[default]
    Off,
    /// Named standbys, by priority.
    Priority,
    /// Any of several standbys.
    Quorum,
}

/// `standby_cluster`: where this whole cluster replicates from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyCluster {
    /// Remote host or hosts.
    pub host: Option<String>,
    /// Remote port.
    pub port: Option<u16>,
    /// Slot on the remote primary.
    pub primary_slot_name: Option<String>,
    /// How replicas are made.
    pub create_replica_methods: Vec<String>,
    /// Restore command.
    pub restore_command: Option<String>,
    /// Archive cleanup command.
    pub archive_cleanup_command: Option<String>,
    /// Apply delay, as configured.
    pub recovery_min_apply_delay: Option<String>,
}
