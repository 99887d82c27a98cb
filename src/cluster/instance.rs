//! What a node knows of its own PostgreSQL.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::lsn::Lsn;
use super::names::SystemId;
use super::role::State;
use super::timeline::Timeline;

/// The data directory at a glance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataDir {
    /// Missing, or nothing in it but dot files and `lost+found`.
    #[default]
    Empty,
    /// There is a cluster in it.
    Present,
    /// It cannot be looked at; the operating system's words.
    Inaccessible(String),
}

/// What an agent was filling the data directory by, when there is a note of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unfinished {
    /// The making of a new cluster.
    Bootstrap,
    /// The copying of another member.
    Clone,
}

/// Facts out of `pg_controldata`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlData {
    /// `Database cluster state`, in PostgreSQL's words: `in production`, `shut down`, `in archive recovery`, ….
    pub cluster_state: String,
    /// `Database system identifier`.
    pub system_id: Option<SystemId>,
    /// `Latest checkpoint location`.
    pub checkpoint: Lsn,
    /// `Latest checkpoint's TimeLineID`.
    pub checkpoint_timeline: Option<Timeline>,
    /// `Minimum recovery ending location`.
    pub min_recovery: Lsn,
    /// `Min recovery ending loc's timeline`.
    pub min_recovery_timeline: Option<Timeline>,
    /// `wal_log_hints setting` is on, or data checksums are: what `pg_rewind` needs.
    pub rewindable: bool,
}

/// The WAL receiver of a standby.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalReceiver {
    /// `streaming` when it is; other words of PostgreSQL's otherwise.
    pub status: Option<String>,
    /// The timeline it receives.
    pub timeline: Option<Timeline>,
    /// The slot in use.
    pub slot_name: Option<String>,
    /// The connection string in use, passwords masked by PostgreSQL.
    pub conninfo: Option<String>,
    /// The upstream's end of WAL as last reported.
    pub latest_end_lsn: Option<Lsn>,
}

/// One replication slot on this server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotState {
    /// Name of the slot.
    pub name: String,
    /// Logical slots have a plugin and a database.
    pub plugin: Option<String>,
    /// Database of a logical slot.
    pub database: Option<String>,
    /// Restart LSN.
    pub restart_lsn: Option<Lsn>,
    /// Confirmed flush LSN of a logical slot.
    pub confirmed_flush_lsn: Option<Lsn>,
    /// `xmin`, as text.
    pub xmin: Option<String>,
    /// `catalog_xmin`, as text.
    pub catalog_xmin: Option<String>,
    /// `lost` and the like (PostgreSQL 13+).
    pub wal_status: Option<String>,
    /// Somebody streams from it.
    pub is_active: bool,
    /// A logical slot that standbys keep in step by themselves (PostgreSQL 17+).
    #[serde(default)]
    pub is_failover: bool,
    /// Such a slot on a standby that does.
    #[serde(default)]
    pub is_synced: bool,
}

impl SlotState {
    /// Logical rather than physical.
    pub fn is_logical(&self) -> bool {
        self.plugin.is_some()
    }

    /// A logical slot that is ours to look after, not PostgreSQL's own.
    pub fn is_our_logical(&self) -> bool {
        self.is_logical() && !self.is_failover && !self.is_synced
    }

    /// The WAL it needs is gone.
    pub fn is_lost(&self) -> bool {
        self.wal_status.as_deref() == Some("lost")
    }

    /// The position that `/status` publishes.
    pub fn position(&self) -> Option<Lsn> {
        if self.is_logical() { self.confirmed_flush_lsn } else { self.restart_lsn }
    }
}

/// A standby that streams from this server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalSender {
    /// The standby's `application_name`: a member's name.
    pub application_name: String,
    /// `sync`, `potential`, `quorum` or `async`.
    pub sync_state: String,
    /// Positions reported by the standby.
    pub write_lsn: Option<Lsn>,
    /// Flushed.
    pub flush_lsn: Option<Lsn>,
    /// Replayed.
    pub replay_lsn: Option<Lsn>,
}

/// What the monitoring query said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Monitor {
    /// `pg_is_in_recovery()`.
    pub in_recovery: bool,
    /// The current timeline of a primary; on a standby that of its receiver, or as the local server says over a
    /// replication connection.
    pub timeline: Option<Timeline>,
    /// Flushed position of a primary.
    pub flush_lsn: Lsn,
    /// Replayed position of a standby.
    pub replay_lsn: Lsn,
    /// Received position of a standby: the higher of received and written.
    pub receive_lsn: Lsn,
    /// Commit time of the last transaction a standby replayed, `YYYY-MM-DD HH:MM:SS.ffffff+HH:MM`.
    pub replayed_timestamp: Option<String>,
    /// Replay was paused.
    pub replay_paused: bool,
    /// The timeline of the last checkpoint in the control file.
    pub control_timeline: Option<Timeline>,
    /// The WAL receiver, if one runs.
    pub receiver: Option<WalReceiver>,
    /// A `restore_command` is set.
    pub has_restore_command: bool,
    /// Finished WAL is archived by a command.
    #[serde(default)]
    pub is_archiving: bool,
    /// The history of the timeline after ours has arrived: somewhere above us there was a promotion.
    #[serde(default)]
    pub has_next_history: bool,
    /// Non-temporary slots.
    pub slots: Vec<SlotState>,
    /// Standbys in state `streaming`.
    pub senders: Vec<WalSender>,
    /// The server's `synchronous_commit`.
    pub synchronous_commit: String,
    /// The server's `synchronous_standby_names`.
    pub synchronous_standby_names: String,
}

impl Monitor {
    /// The position that stands for this server: flushed on a primary, the higher of received and replayed on a
    /// standby.
    pub fn position(&self) -> Lsn {
        if self.in_recovery { self.receive_lsn.max(self.replay_lsn) } else { self.flush_lsn }
    }

    /// `streaming`, `in archive recovery`, or nothing to say.
    pub fn replication_state(&self) -> Option<&'static str> {
        let streaming = self.receiver.as_ref().and_then(|r| r.status.as_deref()) == Some("streaming");
        match (self.in_recovery, streaming, self.has_restore_command) {
            (false, ..) => None,
            (true, true, _) => Some("streaming"),
            (true, false, true) => Some("in archive recovery"),
            (true, false, false) => None,
        }
    }
}

/// A parameter that waits for a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingValue {
    /// What the server runs with.
    pub old_value: String,
    /// What it will run with.
    pub new_value: String,
}

/// One look at the local PostgreSQL. Missing facts are `None`: a look never fails as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InstanceState {
    /// The data directory.
    pub data_dir: DataDir,
    /// It is being filled, or was when an agent died.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfinished: Option<Unfinished>,
    /// What the server is doing.
    pub state: Option<State>,
    /// A postmaster of this data directory exists.
    pub is_postmaster_alive: bool,
    /// It accepts connections.
    pub accepts_connections: bool,
    /// When it was started, `YYYY-MM-DD HH:MM:SS.ffffff+HH:MM`.
    pub postmaster_start_time: Option<String>,
    /// The monitoring query's answer; `None` when the server is down, starting, or did not answer in time.
    pub monitor: Option<Monitor>,
    /// Control data; read while the server is down.
    pub control: Option<ControlData>,
    /// The system identifier, cached from control data.
    pub system_id: Option<SystemId>,
    /// `standby.signal` or `recovery.signal` (or `recovery.conf`) is there.
    pub is_recovery_configured: bool,
    /// A `backup_label` file is there.
    pub has_backup_label: bool,
    /// Version as PostgreSQL numbers it (150018); of the data directory's major when the server is down.
    pub server_version: Option<u32>,
    /// Parameters that wait for a restart.
    pub pending_restart: BTreeMap<String, PendingValue>,
    /// `use_pg_rewind` is on, the program works, and the data directory allows it.
    pub can_rewind: bool,
    /// Logical slots of a standby that are not known to be safe after a failover.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unready_slots: BTreeSet<String>,
    /// Logical slots of a standby that could not be moved forward and have to be copied again.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub broken_slots: BTreeSet<String>,
}

impl InstanceState {
    /// Running and out of recovery, as far as the query knows.
    pub fn is_primary(&self) -> Option<bool> {
        self.monitor.as_ref().map(|monitor| !monitor.in_recovery)
    }
}
