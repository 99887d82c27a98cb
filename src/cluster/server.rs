//! What may be asked of the local server, and what comes back: the words that the decision and the adapter share.

use serde::{Deserialize, Serialize};

use super::lsn::Lsn;
use super::upstream::Upstream;

/// How to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopMode {
    /// SIGINT: roll back, checkpoint, let standbys catch up.
    Fast,
    /// SIGQUIT: die now, recover at the next start.
    Immediate,
}

/// Said while a stop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopProgress {
    /// Control data says `shut down` while the postmaster still exists: no more WAL will be written.
    ShutDown {
        /// The shutdown checkpoint; candidates are measured against it.
        checkpoint: Lsn,
        /// The record before it when that is a WAL switch, else the checkpoint itself; published as `optime`.
        previous: Lsn,
    },
}

/// What recovery configuration a start or a change of upstream writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recovery {
    /// As a primary: no recovery configuration is written or left.
    None,
    /// Leave whatever is there.
    Keep,
    /// As a standby of this upstream, or of nobody.
    Standby(Option<Upstream>),
}

/// How far a start came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Started {
    /// Accepts connections.
    Running,
    /// The postmaster lives but does not accept connections yet.
    StillStarting,
}

/// Whether the recovery configuration of a running standby must change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FollowChange {
    /// It follows as wanted.
    None,
    /// A rewritten file and a reload do.
    Reload,
    /// A restart is needed.
    Restart,
}

/// Whether the local server has WAL that the leader's history does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Divergence {
    /// It has: rewind or re-clone before following.
    Diverged,
    /// It can follow.
    Consistent,
    /// Not known yet, and why; ask again.
    Unknown(String),
}

/// How a `pg_rewind` ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rewound {
    /// The data directory can follow the leader.
    Done,
    /// The leader became unreachable; the data directory may still be rewindable.
    SourceLost(String),
    /// It failed against a healthy leader.
    Failed(String),
}

/// The events that call an operator's script (`postgresql.callbacks`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Callback {
    /// Ready after a start.
    OnStart,
    /// Stopped by us.
    OnStop,
    /// Ready after a restart.
    OnRestart,
    /// Configuration reloaded.
    OnReload,
    /// Promoted, or follows after having led.
    OnRoleChange,
}

/// A physical or logical slot that should exist here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedSlot {
    /// Its name.
    pub name: String,
    /// Database and plugin of a logical slot.
    pub logical: Option<(String, String)>,
    /// Where an unused physical slot should be advanced to.
    pub advance_to: Option<Lsn>,
    /// Somebody is expected to stream from it; unknown when `None`.
    pub expected_active: Option<bool>,
    /// Not ours to touch: it stays exactly as it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_ignored: bool,
}

/// An order to bring the slots here to what is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotSync {
    /// What should exist.
    pub wanted: Vec<WantedSlot>,
    /// Whether others may be dropped.
    pub may_drop: bool,
    /// Another node leads.
    pub is_led: bool,
}
