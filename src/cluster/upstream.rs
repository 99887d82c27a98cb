//! Whom a standby follows.

use serde::{Deserialize, Serialize};

use super::names::MemberName;

/// A server to stream from, clone from or rewind from. Credentials are never part of it: they come from the
/// follower's own configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// The member it is; `None` for the remote primary of a standby cluster.
    pub member: Option<MemberName>,
    /// Host or hosts (comma separated for a remote primary); `None` when only archive settings are given.
    pub host: Option<String>,
    /// Port; 5432 when absent.
    pub port: Option<u16>,
    /// Database of the connection URL.
    pub database: Option<String>,
    /// Whether and which slot to stream from.
    pub slot: UpstreamSlot,
    /// `restore_command` of a standby cluster.
    pub restore_command: Option<String>,
    /// `archive_cleanup_command` of a standby cluster.
    pub archive_cleanup_command: Option<String>,
    /// `recovery_min_apply_delay` of a standby cluster, as configured.
    pub recovery_min_apply_delay: Option<String>,
    /// `create_replica_methods` of a standby cluster; empty means the ordinary list.
    pub create_replica_methods: Vec<String>,
}

/// The slot a follower uses on its upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamSlot {
    /// The one named after the follower, if `use_slots` is on.
    #[default]
    Own,
    /// This one (remote primary of a standby cluster).
    Named(String),
    /// None (remote primary without `primary_slot_name`).
    None,
}
