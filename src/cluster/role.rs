//! What a PostgreSQL server is in the cluster and what it is doing, with the spellings used on the wire.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The role of a member's PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Not in recovery. Old members write `master`, which is read as this and never written.
    #[serde(alias = "master")]
    Primary,
    /// `pg_ctl promote` was issued and the server is not yet seen in production.
    Promoted,
    /// A standby of another member.
    Replica,
    /// The leader of a standby cluster.
    StandbyLeader,
    /// Was a primary and has been stopped; what it will follow is not settled yet.
    Demoted,
    /// No data directory.
    Uninitialized,
}

impl Role {
    /// The spelling in the DCS and in REST answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Promoted => "promoted",
            Self::Replica => "replica",
            Self::StandbyLeader => "standby_leader",
            Self::Demoted => "demoted",
            Self::Uninitialized => "uninitialized",
        }
    }

    /// Reads the wire spelling; `master` is `primary`.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "primary" | "master" => Self::Primary,
            "promoted" => Self::Promoted,
            "replica" => Self::Replica,
            "standby_leader" => Self::StandbyLeader,
            "demoted" => Self::Demoted,
            "uninitialized" => Self::Uninitialized,
            _ => return None,
        })
    }

    /// The word that callbacks are given: a promotion under way is already `primary`.
    pub fn for_callback(self) -> &'static str {
        if self == Self::Promoted { "primary" } else { self.as_str() }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a member's PostgreSQL is doing. The order is that of the metric `patroni_postgres_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum State {
    /// `initdb` runs.
    #[serde(rename = "initializing new cluster")]
    Initdb,
    /// `initdb` failed.
    #[serde(rename = "initdb failed")]
    InitdbFailed,
    /// A custom bootstrap method runs.
    #[serde(rename = "running custom bootstrap script")]
    CustomBootstrap,
    /// A custom bootstrap method failed.
    #[serde(rename = "custom bootstrap failed")]
    CustomBootstrapFailed,
    /// A base backup is being taken.
    #[serde(rename = "creating replica")]
    CreatingReplica,
    /// Accepts connections.
    #[serde(rename = "running")]
    Running,
    /// A postmaster exists but does not accept connections yet.
    #[serde(rename = "starting")]
    Starting,
    /// As `Starting`, after a custom bootstrap.
    #[serde(rename = "starting after custom bootstrap")]
    BootstrapStarting,
    /// The postmaster died during the start.
    #[serde(rename = "start failed")]
    StartFailed,
    /// A restart is in progress.
    #[serde(rename = "restarting")]
    Restarting,
    /// A restart failed.
    #[serde(rename = "restart failed")]
    RestartFailed,
    /// A stop is in progress.
    #[serde(rename = "stopping")]
    Stopping,
    /// Not running.
    #[serde(rename = "stopped")]
    Stopped,
    /// A stop failed.
    #[serde(rename = "stop failed")]
    StopFailed,
    /// Was running and is gone without our doing.
    #[serde(rename = "crashed")]
    Crashed,
}

impl State {
    /// Every state in metric order.
    pub const ALL: [Self; 15] = [
        Self::Initdb,
        Self::InitdbFailed,
        Self::CustomBootstrap,
        Self::CustomBootstrapFailed,
        Self::CreatingReplica,
        Self::Running,
        Self::Starting,
        Self::BootstrapStarting,
        Self::StartFailed,
        Self::Restarting,
        Self::RestartFailed,
        Self::Stopping,
        Self::Stopped,
        Self::StopFailed,
        Self::Crashed,
    ];

    /// The spelling in the DCS and in REST answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Initdb => "initializing new cluster",
            Self::InitdbFailed => "initdb failed",
            Self::CustomBootstrap => "running custom bootstrap script",
            Self::CustomBootstrapFailed => "custom bootstrap failed",
            Self::CreatingReplica => "creating replica",
            Self::Running => "running",
            Self::Starting => "starting",
            Self::BootstrapStarting => "starting after custom bootstrap",
            Self::StartFailed => "start failed",
            Self::Restarting => "restarting",
            Self::RestartFailed => "restart failed",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::StopFailed => "stop failed",
            Self::Crashed => "crashed",
        }
    }

    /// Reads the wire spelling.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// The number in the metric `patroni_postgres_state`.
    pub fn number(self) -> usize {
        self as usize
    }

    /// Starting, by whichever road.
    pub fn is_starting(self) -> bool {
        matches!(self, Self::Starting | Self::BootstrapStarting)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_numbered_and_spelt_as_on_the_wire() {
        for (number, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(state.number(), number);
            assert_eq!(State::parse(state.as_str()), Some(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
    }

    #[test]
    fn master_is_read_as_primary_and_never_written() {
        assert_eq!(Role::parse("master"), Some(Role::Primary));
        assert_eq!(serde_json::from_str::<Role>("\"master\"").unwrap(), Role::Primary);
        assert_eq!(serde_json::to_value(Role::Primary).unwrap(), "primary");
    }
}
