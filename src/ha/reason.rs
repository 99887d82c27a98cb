//! Why a cycle ended as it did. `Display` is the status line that operators and monitoring know.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The reason of a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", content = "details", rename_all = "snake_case")]
pub enum Reason {
    /// Nothing to do: we lead.
    Leading {
        /// Us.
        me: String,
        /// A standby cluster's leader.
        is_standby_leader: bool,
    },
    /// Nothing to do: we follow.
    Following {
        /// Us.
        me: String,
        /// The leader.
        leader: String,
        /// It is a standby cluster's leader.
        is_standby_leader: bool,
    },
    /// Nothing to do and nobody to follow.
    Alone {
        /// Us.
        me: String,
    },
    /// A sentence without details; the commonest kind.
    Plain(Line),
    /// A long task goes on.
    InProgress {
        /// Its name.
        action: String,
    },
    /// The lease was renewed while it goes on.
    LockKeptDuring {
        /// Its name.
        action: String,
    },
    /// A primary lost the lock while it went on.
    LockLostDuring {
        /// Its name.
        action: String,
    },
    /// A switchover or failover begins.
    DemotingMyself {
        /// `switchover`, `failover` or `manual failover`.
        action: String,
    },
    /// The leader's server takes its time.
    StillStarting {
        /// Until the timeout.
        seconds_left: u64,
    },
    /// A clone begins.
    TryingToClone {
        /// `from leader 'a'`, `from replica 'b'` or `(without leader)`.
        from: String,
    },
    /// The data directory cannot be looked at.
    DataDirInaccessible {
        /// The operating system's words.
        error: String,
    },
    /// A standby copies slots.
    CopyingSlots {
        /// Their names.
        names: Vec<String>,
    },
    /// A rewind begins.
    Rewinding {
        /// From this leader.
        leader: String,
    },
    /// A rewind has to wait.
    WaitingForCheckpoint {
        /// On this leader.
        leader: String,
    },
    /// The receiver still moves; the race can wait.
    RaceBackoff {
        /// Us.
        me: String,
        /// Until the race.
        seconds_left: u64,
    },
    /// The DCS has lost its keys, or is not the one this cluster uses; a replica does not make it a new one.
    NotRacingUnknownCluster {
        /// The cluster's name.
        scope: String,
    },
    /// Outcomes are needed before anything can be decided.
    Asking {
        /// What for.
        what: String,
    },
    /// We have to leave.
    Leaving {
        /// Why.
        message: String,
    },
}

macro_rules! lines {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        /// The status lines that carry no details.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Line {
            $($(#[$doc])* #[doc = $text] $name,)*
        }

        impl Line {
            /// Every line.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The words.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

lines! {
    AcquiredAsLeader => "acquired session lock as a leader",
    CannotBePrimaryInStandbyCluster => "cannot be a real primary in a standby cluster",
    CannotLeadStandbyClusterAsPrimary => "cannot be a real primary in standby cluster",
    ContinueFollowingOldStandbyLeader => "continue following the old known standby leader",
    ContinueInFailsafe => "continue to run as a leader because failsafe mode is enabled and all members are accessible",
    ContinueAsPrimaryAfterFailedUpdate => "continue to run as primary after failing to update leader lock in DCS",
    ContinueAsPrimaryWithoutLock => "continue to run as primary without lock",
    DataDirWithoutSystemId => "data dir for the cluster is not empty, but system ID is invalid; consider doing reinitialize",
    DcsNotAccessible => "DCS is not accessible",
    DemotedAfterFailedAcquire => "demoted self after trying and failing to obtain lock",
    DiscardingUnfinished => "setting aside what an agent that died has left in the data directory",
    UnfinishedWhilePaused => "the data directory was left unfinished by an agent that died; it is set aside when maintenance mode ends",
    DemotedDcsNotAccessible => "demoted self because DCS is not accessible and I was a leader",
    DemotedFailedUpdate => "demoted self because failed to update leader lock in DCS",
    DemotingNotAllowed => "demoting self because I am not allowed to become primary",
    DemotingNotHealthiest => "demoting self because i am not the healthiest node",
    DemotingWithoutWatchdog => "Demoting self because watchdog could not be activated",
    DemotingWithoutLock => "demoting self because I do not have the lock and I was a leader",
    CrashRecovery => "doing crash recovery in a single user mode",
    FailedInitializeLock => "failed to acquire initialize lock",
    FailedToStart => "failed to start postgres",
    FollowingNotAllowed => "following a different leader because I am not allowed to promote",
    FollowingNotHealthiest => "following a different leader because i am not the healthiest node",
    FollowingAfterFailedAcquire => "following new leader after trying and failing to obtain lock",
    InitializedNewCluster => "initialized a new cluster",
    LostLeaderBeforePromote => "lost leader before promote",
    NotPromotingFailedUpdate => "not promoting because failed to update leader lock in DCS",
    NotPromotingWithoutWatchdog => "Not promoting self because watchdog could not be activated",
    PostgresNotRunning => "postgres is not running",
    StartTimedOutButWaiting => "primary start has timed out, but continuing to wait because failover is not possible",
    StandbyLeaderHadLock => "promoted self to a standby leader because i had the session lock",
    StandbyLeaderAcquired => "promoted self to a standby leader by acquiring session lock",
    PromotedHadLock => "promoted self to leader because I had the session lock",
    PromotedAcquired => "promoted self to leader by acquiring session lock",
    PromotionPostponed => "Postponing promotion because synchronous replication state was updated by somebody else",
    PromotionCancelled => "Promotion cancelled because the pre-promote script failed",
    ReinitializingDiverged => "reinitializing due to diverged timelines",
    ReleasedDataDirEmpty => "released leader key voluntarily as data dir empty and currently leader",
    ReleasedDataDirInaccessible => "released leader key voluntarily as data dir not accessible and currently leader",
    ReleasedSystemIdMismatch => "released leader key voluntarily due to the system ID mismatch",
    RemovedKeyFailedStart => "removed leader key after trying and failing to start postgres",
    RemovedLockNotRunning => "removed leader lock because postgres is not running",
    RemovedLockNotPrimary => "removed leader lock because postgres is not running as primary",
    RestartInitiated => "restart initiated",
    RunningPostBootstrap => "running post_bootstrap",
    RunningWithEmptyDataDir => "running with empty data directory",
    StartingAsSecondary => "starting as a secondary",
    StartingAsStandbyLeader => "starting as a standby leader because i had the session lock",
    StartingAsReadonly => "starting as readonly because i had the session lock",
    StartingPrimaryAfterFailure => "starting primary after failure",
    StoppedStartupTimeout => "stopped PostgreSQL because of startup timeout",
    StoppedToFailOver => "stopped PostgreSQL to fail over after a crash",
    StoppedLostKeyWhileStarting => "stopped PostgreSQL while starting up because leader key was lost",
    TerminatedCrashRecovery => "terminated crash recovery because of startup timeout",
    TryingToBootstrap => "trying to bootstrap a new cluster",
    TryingToBootstrapStandbyLeader => "trying to bootstrap a new standby leader",
    TryingRemoteMember => "trying to follow a remote member because standby cluster is unhealthy",
    WaitingForEndOfRecovery => "waiting for end of recovery after bootstrap",
    WaitingForSyncRelease => "waiting for the primary to release us from synchronous standby",
    TimelineMadeTwice => "postgres stays down because two leaders have made the same timeline, with different WAL in it: reinitialize this member (pgherdctl reinit)",
    RewindFailed => "postgres stays down because pg_rewind failed: reinitialize this member (pgherdctl reinit), or mend what pg_rewind complained of and restart the agent",
    WaitingForLeaderToBootstrap => "waiting for leader to bootstrap",
    WaitingForStandbyLeaderToBootstrap => "waiting for standby_leader to bootstrap",
    WaitingToBecomePrimary => "waiting to become primary after promote...",
    LeadingUnknownCluster => "promoted self to leader of a cluster that the DCS does not know, because a manual failover asked for it",
    WaitingForIntroduction => "waiting for the leader to make the cluster known to the DCS",
    StoppingWithoutData => "stopping PostgreSQL because its data directory is gone",
}

impl From<Line> for Reason {
    fn from(line: Line) -> Self {
        Self::Plain(line)
    }
}

impl Reason {
    /// What an operator has to do before anything goes on, where that is so.
    pub fn advice(&self) -> Option<String> {
        matches!(self, Self::NotRacingUnknownCluster { .. }).then(|| self.to_string())
    }

    /// Lines that only say that all is well; logs may drop repetitions of them.
    pub fn is_heartbeat(&self) -> bool {
        matches!(self, Self::Leading { .. } | Self::Following { .. } | Self::Alone { .. })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leading { me, is_standby_leader: false } => {
                write!(f, "no action. I am ({me}), the leader with the lock")
            }
            Self::Leading { me, is_standby_leader: true } => {
                write!(f, "no action. I am ({me}), the standby leader with the lock")
            }
            Self::Following { me, leader, is_standby_leader } => {
                let kind = if *is_standby_leader { "standby leader" } else { "leader" };
                write!(f, "no action. I am ({me}), a secondary, and following a {kind} ({leader})")
            }
            Self::Alone { me } => write!(f, "no action. I am ({me})"),
            Self::Plain(line) => f.write_str(line.as_str()),
            Self::InProgress { action } => write!(f, "{action} in progress"),
            Self::LockKeptDuring { action } => write!(f, "updated leader lock during {action}"),
            Self::LockLostDuring { action } => write!(f, "lost leader lock during {action}"),
            Self::DemotingMyself { action } => write!(f, "{action}: demoting myself"),
            Self::StillStarting { seconds_left } => {
                write!(f, "PostgreSQL is still starting up, {seconds_left} seconds until timeout")
            }
            Self::TryingToClone { from } => write!(f, "trying to bootstrap {from}"),
            Self::DataDirInaccessible { error } => write!(f, "data directory is not accessible: {error}"),
            Self::CopyingSlots { names } => {
                let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
                write!(f, "Copying logical slots [{}] from the primary", quoted.join(", "))
            }
            Self::Rewinding { leader } => write!(f, "running pg_rewind from {leader}"),
            Self::WaitingForCheckpoint { leader } => write!(f, "waiting for checkpoint on {leader} before rewind"),
            Self::RaceBackoff { me, seconds_left } => write!(
                f,
                "My ({me}) wal position moved since last heart beat loop, {seconds_left} seconds until leader race"
            ),
            Self::NotRacingUnknownCluster { scope } => write!(
                f,
                "not racing for the leader key because the DCS does not know this cluster: its keys were removed, or \
                 this is another DCS than before. A running primary restores the keys. If none is left, choose the \
                 member that is furthest in `pgherdctl list` and run: pgherdctl failover {scope} --candidate MEMBER"
            ),
            Self::Asking { what } => write!(f, "asking {what}"),
            Self::Leaving { message } => f.write_str(message),
        }
    }
}
