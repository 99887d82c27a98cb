//! What operators ask for: switchover, failover, restart, reinitialise.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::names::MemberName;
use super::view::Version;

/// The `/failover` document. `{}` means no request and is what the key is blanked with; it is never deleted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FailoverKey {
    /// Version of the key, also of a blank one.
    pub version: Version,
    /// The leader to move away from; present in a switchover.
    pub leader: Option<MemberName>,
    /// The member to move to.
    pub candidate: Option<MemberName>,
    /// When, as it was written: ISO 8601 with offset. Whoever needs the moment parses it.
    pub scheduled_at: Option<String>,
}

impl FailoverKey {
    /// Asks for nothing: neither leader nor candidate is named, whatever else it says.
    pub fn is_blank(&self) -> bool {
        let empty = |name: &Option<MemberName>| name.as_ref().is_none_or(|n| n.is_empty());
        empty(&self.leader) && empty(&self.candidate)
    }

    /// A named leader makes it a switchover; without one it is a manual failover.
    pub fn is_switchover(&self) -> bool {
        self.leader.as_ref().is_some_and(|name| !name.is_empty())
    }
}

/// Who should not be restarted after all, and how long a restart may take. The keys of `POST /restart`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RestartRequest {
    /// Only when the agent's role is this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Only when the running server is older than this version (`15.2`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres_version: Option<String>,
    /// Only when a restart is pending; the presence of the key is the condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_pending: Option<Value>,
    /// Replaces `primary_start_timeout` for this start, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u64>,
}

/// A restart to come, kept by the member and published in its key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScheduledRestart {
    /// The moment, milliseconds since the epoch.
    pub at_ms: i64,
    /// The moment as it was asked for: ISO 8601 with offset.
    pub schedule: String,
    /// What must hold when the moment comes.
    pub request: RestartRequest,
    /// The postmaster's start time when the request came; another one later means the restart has happened.
    pub postmaster_start_time: Option<String>,
    /// The request's keys in their order, as they are published (`schedule` among them, `timeout` in seconds).
    pub published: Map<String, Value>,
}

/// A request to throw the data directory away and clone anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReinitRequest {
    /// Cancel whatever long action runs.
    pub force: bool,
    /// Clone from the leader whatever `clonefrom` tags say.
    pub from_leader: bool,
}
