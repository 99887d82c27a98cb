//! The snapshot of a cluster that one cycle works from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::lsn::Lsn;
use super::member::Member;
use super::names::{MemberName, SystemId};
use super::requests::FailoverKey;
use super::status::Status;
use super::sync_state::SyncState;
use super::timeline::{History, Timeline};

/// The version of a key, compared for equality only (`mod_revision`, znode version, `ModifyIndex`, …).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub i64);

/// What a leader or member key hangs on (lease or session), opaque.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Session(pub String);

/// The `leader` key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderKey {
    /// Who holds it. An empty name counts as no leader.
    pub name: MemberName,
    /// Version of the key.
    pub version: Version,
    /// The holder's lease or session.
    pub session: Option<Session>,
}

/// The `config` key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfigKey {
    /// Version of the key, for compare-and-set and for "did it change".
    pub version: Version,
    /// The dynamic configuration; `None` when the value is not a JSON object.
    pub document: Option<Map<String, Value>>,
}

/// Everything the DCS knows of one cluster, read at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterView {
    /// `initialize`: absent, empty while somebody bootstraps, else the system identifier.
    pub initialize: Option<String>,
    /// `config`.
    pub config: Option<ConfigKey>,
    /// `leader`.
    pub leader: Option<LeaderKey>,
    /// `members/*`, sorted by name.
    pub members: Vec<Member>,
    /// `failover`, blank requests included (their version is needed).
    pub failover: Option<FailoverKey>,
    /// `sync`; empty when absent.
    pub sync: SyncState,
    /// `status`, or what `optime/leader` says when it is absent.
    pub status: Status,
    /// `history`.
    pub history: Option<History>,
    /// `failsafe`: member name to REST address.
    pub failsafe: Option<BTreeMap<MemberName, String>>,
    /// The other groups of a Citus cluster, seen from the coordinator or the CLI.
    pub workers: BTreeMap<u32, ClusterView>,
}

impl ClusterView {
    /// The name in the leader key, if it is not empty.
    pub fn leader_name(&self) -> Option<&MemberName> {
        self.leader.as_ref().map(|leader| &leader.name).filter(|name| !name.is_empty())
    }

    /// No leader key, or an empty name in it.
    pub fn is_unlocked(&self) -> bool {
        self.leader_name().is_none()
    }

    /// Whether `name` stands in the leader key. This is the snapshot's word; whether the lease still holds is
    /// another matter.
    pub fn has_lock(&self, name: &str) -> bool {
        self.leader_name().is_some_and(|leader| leader == name)
    }

    /// The member of that name.
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    /// The leader's member value; a leader without a member key has none.
    pub fn leader_member(&self) -> Option<&Member> {
        self.member(self.leader_name()?)
    }

    /// The system identifier, if bootstrap has finished.
    pub fn system_id(&self) -> Option<SystemId> {
        SystemId::parse(self.initialize.as_deref()?)
    }

    /// The request in `/failover`, if it asks for anything.
    pub fn failover_request(&self) -> Option<&FailoverKey> {
        self.failover.as_ref().filter(|key| !key.is_blank())
    }

    /// The cluster's timeline by `/history`.
    pub fn timeline(&self) -> Option<Timeline> {
        self.history.as_ref()?.cluster_timeline()
    }

    /// The dynamic configuration document, if it is a valid one.
    pub fn config_document(&self) -> Option<&Map<String, Value>> {
        self.config.as_ref()?.document.as_ref()
    }

    /// The holder's last published position; zero when none.
    pub fn last_lsn(&self) -> Lsn {
        self.status.optime.unwrap_or(Lsn::ZERO)
    }
}
