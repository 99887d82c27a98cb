//! What comes out of a decision: a rule, a reason, and steps with every detail filled in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::cluster::{
    Callback, LeaderKey, MemberName, Recovery, Role, SlotSync, SlotTending, Status, StopMode, SyncState, Timeline,
    Upstream, Version, WantedSlot,
};

use super::memory::Memory;
use super::reason::Reason;

/// The answer of [`super::decide`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[must_use = "a decision that is not carried out is a bug"]
pub struct Decision {
    /// Number of the rule that decided.
    pub rule: u16,
    /// Why, in words with details; its `Display` is the status line.
    pub reason: Reason,
    /// Further lines for the log, in order.
    pub notes: Vec<Note>,
    /// The members considered for leadership, and why each was passed over.
    pub weighed: Vec<Verdict>,
    /// What to do, in order. The first failure of a step that must succeed ends the list.
    pub steps: Vec<Step>,
    /// Decide again in this cycle, with the outcomes of the steps.
    pub again: bool,
    /// Decide again after this long at the latest, in milliseconds; shorter than `loop_wait` when something is due.
    pub wake_after_ms: Option<u64>,
    /// To be handed to the next decision.
    pub memory: Memory,
}

/// A line for the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// How loud.
    pub level: Level,
    /// The sentence.
    pub text: String,
}

/// How loud a note is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Something changed.
    Info,
    /// Someone should look.
    Warning,
    /// We failed at our duty.
    Error,
    /// We cannot go on.
    Critical,
}

/// A member and what was thought of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Who.
    pub member: MemberName,
    /// `None`: may lead. Else why not.
    pub passed_over: Option<String>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Renew the lease behind the leader key as it was seen; outcome in `done.renewal`.
    RenewLeader(LeaderKey),
    /// Create the leader key; outcome in `done.acquire`.
    AcquireLeader,
    /// Write the leader key unconditionally (end of bootstrap).
    TakeLeader,
    /// Give the leader key away, with the last position if it is known.
    ReleaseLeader(Option<Status>),
    /// Arm the watchdog; outcome in `done.watchdog`.
    ActivateWatchdog,
    /// Write `status`.
    WriteStatus(Status),
    /// Create `initialize`; outcome in `done.initialize`.
    RaceInitialize(String),
    /// Write `initialize`.
    SetInitialize(String),
    /// Delete `initialize`.
    CancelInitialize,
    /// Write `config` unconditionally.
    WriteConfig(Map<String, Value>),
    /// Blank `failover`; with a version only if it is still that one.
    BlankFailover(Option<Version>),
    /// Take the old leader out of the failover request, keeping the candidate (in maintenance mode).
    KeepFailoverCandidate {
        /// The candidate to keep.
        candidate: MemberName,
        /// The schedule to keep.
        scheduled_at: Option<String>,
        /// The version it was read at.
        expected: Version,
    },
    /// Write `history`.
    WriteHistory(Value),
    /// Write `failsafe`.
    WriteFailsafe(BTreeMap<MemberName, String>),
    /// Write `sync`; with a version only if it is still that one.
    WriteSync {
        /// The document.
        state: SyncState,
        /// The version it was read at.
        expected: Option<Version>,
    },
    /// Delete `sync` under the same condition.
    DeleteSync(Option<Version>),
    /// Set or remove the managed `synchronous_standby_names`.
    SetSyncNames(Option<String>),
    /// Publish the own member value.
    Publish(Map<String, Value>),
    /// Ask these members over REST; outcome in `done.peers`.
    AskPeers(BTreeMap<MemberName, String>),
    /// Tell these members (not ourselves) that we lead on without the DCS; outcome in `done.failsafe`.
    AskFailsafe(BTreeMap<MemberName, String>),
    /// All of them have accepted: lead on for one ttl, counted from before they were asked.
    LeadByFailsafe,
    /// Begin the long task.
    Begin(Task),
    /// Cancel the long task.
    CancelTask,
    /// Send SIGQUIT to the postmaster now.
    QuitNow,
    /// Compare the recovery configuration with that for this upstream; outcome in `done.follow`.
    CompareFollow(Option<Upstream>),
    /// Rewrite the recovery configuration and reload.
    Follow(Option<Upstream>),
    /// Have the standby that does not stream ask for WAL now.
    RetryStream,
    /// Compare histories with this leader; outcome in `done.divergence`.
    CheckDivergence(Upstream),
    /// Read the history file of a timeline; outcome in `done.history`.
    ReadHistory(crate::cluster::Timeline),
    /// Resume paused WAL replay.
    ResumeReplay,
    /// Make the slots as wanted.
    SyncSlots(SlotSync),
    /// Move copies of logical slots forward, and find out whether they are safe; beside everything else.
    TendSlots(SlotTending),
    /// Tell the primary what our queries and copied slots still need, whatever is configured; or no longer.
    ForceFeedback(bool),
    /// Run a checkpoint beside everything else; its end wakes the loop.
    Checkpoint,
    /// Call the operator's script.
    Callback {
        /// For this event.
        event: Callback,
        /// With this role.
        role: Role,
    },
    /// Remove the data directory, as configured after a failed rewind.
    RemoveDataDir,
    /// Stop the server and move the data directory of a failed bootstrap away.
    AbandonBootstrap,
    /// Stop the server and take what an agent that died has left of a new cluster, or of a copy, out of the way.
    DiscardUnfinished,
    /// The data directory is complete.
    ForgetUnfinished,
    /// Answer an operator's request.
    Reply {
        /// Which.
        id: u64,
        /// What.
        reply: Reply,
    },
    /// Leave, stopping the server unless told otherwise.
    Exit {
        /// Leave the server alone.
        keep_server: bool,
        /// The last word.
        message: String,
    },
}

/// The answer to an operator's request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Done or begun; the words.
    Ok(String),
    /// Not done; the words.
    Refused(String),
}

/// The long task: one at a time, beside the loop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Create a new cluster and start it.
    Bootstrap,
    /// Set up its users, run its script.
    PostBootstrap,
    /// Fill the data directory.
    Clone {
        /// Where from.
        source: Option<Upstream>,
        /// `from leader 'a'`, `from replica 'b'`, `(without leader)`.
        from: String,
        /// A base backup whatever methods are configured.
        basebackup_only: bool,
        /// Stop the server and throw the old data away first; the action's name then.
        instead: Option<String>,
    },
    /// Start the server.
    Start {
        /// The action's name.
        action: String,
        /// Recovery configuration to write.
        recovery: Recovery,
        /// The role it will have.
        role: Role,
        /// How long it may take, in milliseconds.
        timeout_ms: Option<u64>,
    },
    /// Restart the server.
    Restart {
        /// The action's name.
        action: String,
        /// Recovery configuration to write.
        recovery: Recovery,
        /// The role it will have.
        role: Role,
        /// How long the start may take, in milliseconds.
        timeout_ms: Option<u64>,
    },
    /// Stop the server.
    Stop {
        /// The action's name.
        action: String,
        /// How.
        mode: StopMode,
        /// Checkpoint first.
        checkpoint: bool,
        /// Limit in milliseconds; none: as long as it takes.
        timeout_ms: Option<u64>,
    },
    /// Run `pre_promote`, then promote.
    Promote {
        /// How long to wait for production, in milliseconds.
        limit_ms: u64,
        /// Timelines above ours that the cluster has seen: their numbers must not be given again.
        #[serde(default)]
        taken: Vec<Timeline>,
    },
    /// Stop the server if it runs and rewind it.
    Rewind {
        /// From this leader.
        leader: Upstream,
    },
    /// Recover in single-user mode.
    CrashRecovery,
    /// Copy logical slots, which takes a restart.
    CopySlots {
        /// From this leader.
        leader: Upstream,
        /// These.
        slots: Vec<WantedSlot>,
    },
    /// Put the segment with the shutdown checkpoint of the stopped server into the archive.
    ArchiveLast,
}

impl Task {
    /// There may be a primary when it ends well. `is_standby`: the data directory is set up for recovery.
    pub fn makes_a_primary(&self, is_standby: bool) -> bool {
        match self {
            Self::Start { recovery, .. } | Self::Restart { recovery, .. } => match recovery {
                Recovery::None => true,
                Recovery::Keep => !is_standby,
                Recovery::Standby(_) => false,
            },
            Self::Bootstrap | Self::PostBootstrap | Self::Promote { .. } => true,
            _ => false,
        }
    }

    /// The action's name in status lines and refusals.
    pub fn action(&self) -> String {
        match self {
            Self::Bootstrap => "bootstrap".into(),
            Self::PostBootstrap => "post_bootstrap".into(),
            Self::Clone { instead: Some(action), .. } => action.clone(),
            Self::Clone { from, .. } => format!("bootstrap {from}"),
            Self::Start { action, .. } | Self::Restart { action, .. } | Self::Stop { action, .. } => action.clone(),
            Self::Promote { .. } => "promote".into(),
            Self::Rewind { leader } => {
                let name = leader.member.as_ref().map_or("the remote primary", |name| name.as_str());
                format!("running pg_rewind from {name}")
            }
            Self::CopySlots { .. } => "copy_logical_slots".into(),
            Self::CrashRecovery => "doing crash recovery in a single user mode".into(),
            Self::ArchiveLast => "archiving the last WAL segment".into(),
        }
    }
}
