//! The `/sync` document: who may be elected while commits are synchronous.

use serde::{Deserialize, Serialize};

use super::names::MemberName;
use super::view::Version;

/// The state in `/sync`. Names are compared without regard to case.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SyncState {
    /// Version of the key; `None` when the key is absent.
    pub version: Option<Version>,
    /// The primary that wrote it; `None` means the whole document counts as empty.
    pub leader: Option<MemberName>,
    /// Votes a candidate needs in quorum mode; 0 otherwise.
    pub quorum: u32,
    /// The standbys, sorted, without the leader.
    pub voters: Vec<MemberName>,
}

impl SyncState {
    /// Nothing in it.
    pub fn is_empty(&self) -> bool {
        self.leader.is_none()
    }

    /// Whether `name` is one of the standbys.
    pub fn is_voter(&self, name: &str) -> bool {
        self.voters.iter().any(|voter| voter.matches(name))
    }

    /// Whether `name` is the leader of this document.
    pub fn is_leader(&self, name: &str) -> bool {
        self.leader.as_ref().is_some_and(|leader| leader.matches(name))
    }

    /// Whether `name` is the leader or one of the standbys.
    pub fn matches(&self, name: &str) -> bool {
        self.is_leader(name) || self.is_voter(name)
    }
}
