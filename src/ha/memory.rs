//! What must survive from one decision to the next. It is returned by every decision and handed to the next one;
//! nothing is remembered anywhere else.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::cluster::{Callback, Lsn, Member, MemberName, RestartRequest, Role, ScheduledRestart, Timeline};

/// The agent's memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// The first look has been taken.
    pub is_attached: bool,
    /// When the race for the leader key began that this node is in: what was read before is as old.
    #[serde(default)]
    pub race_since_ms: Option<u64>,
    /// The leader key is ours by a race of this agent's, not of one before it that may have known other things.
    #[serde(default)]
    pub has_won: bool,
    /// The role of the local server as we know it.
    pub role: Option<Role>,
    /// Members that count in a race: those of the last locked snapshot and all seen since.
    pub known_members: BTreeMap<MemberName, Member>,
    /// The leader of the last locked snapshot.
    pub former_leader: Option<MemberName>,
    /// The timeline the present leader published, when it is another member.
    pub leader_timeline: Option<Timeline>,
    /// The timeline of our own WAL, and who was first seen to lead on it. A timeline has one maker: whoever leads on
    /// the same one under another name has made it a second time, with other WAL in it.
    pub timeline_maker: Option<(Timeline, MemberName)>,
    /// The DCS does not know the cluster, and what was found stopped here is a primary's data, not a standby's: this
    /// node may introduce the cluster.
    #[serde(default)]
    pub brings_cluster: bool,
    /// Stopped to make way for another leader: comes back as its standby, also in maintenance mode.
    #[serde(default)]
    pub has_made_way: bool,
    /// The last cycle was in maintenance mode.
    pub was_paused: bool,
    /// This node creates the cluster.
    pub bootstrap: Option<BootstrapStage>,
    /// A start after crash, demotion or restart was ordered; look at its result when the task is over.
    pub is_recovering: bool,
    /// The data directory was just cloned and never started.
    pub is_fresh_clone: bool,
    /// Where we stand with divergence from the leader.
    pub rewind: RewindState,
    /// A demotion under way.
    pub demotion: Option<Demotion>,
    /// When single-user crash recovery was last tried since the last successful start.
    pub crash_recovery_tried_ms: Option<u64>,
    /// Since when the server is starting.
    pub starting_since_ms: Option<u64>,
    /// The start timeout an operator's restart asked for, in milliseconds.
    pub start_timeout_ms: Option<u64>,
    /// Failed starts and clones are not repeated before this moment.
    pub hold_until_ms: Option<u64>,
    /// When the promotion was called off because `pre_promote` failed.
    pub pre_promote_failed_ms: Option<u64>,
    /// It failed for the lock that this node holds now: the lock is to be given away.
    #[serde(default)]
    pub is_promotion_refused: bool,
    /// The checkpoint after the promotion was ordered.
    pub is_checkpoint_ordered: bool,
    /// The checkpoint after the promotion is done: others may rewind from us.
    pub is_checkpoint_done: bool,
    /// The event to call the operator's script for once the server accepts connections.
    pub pending_callback: Option<Callback>,
    /// A callback was due at least once.
    pub was_callback_called: bool,
    /// The managed list of synchronous standbys was taken back since synchronous mode was last on.
    pub is_sync_released: bool,
    /// `synchronous_standby_names` as last seen.
    pub sync_names_seen: Option<String>,
    /// When that value was first seen, monotonic.
    pub sync_names_since_ms: u64,
    /// That value counts as taken over by the whole server.
    #[serde(default)]
    pub is_sync_settled: bool,
    /// Our position when that value was taken over: standbys that have it are confirmed.
    pub sync_confirmed_from: Lsn,
    /// Standbys, in lower case, that the server waits for and that have confirmed.
    pub sync_ready: BTreeSet<String>,
    /// This standby's `synchronous_standby_names` is set for the case that it is elected.
    #[serde(default)]
    pub is_sync_prepared: bool,
    /// Since when a standby that commits wait for does not stream.
    #[serde(default)]
    pub sync_missing_since_ms: Option<u64>,
    /// That commits block for want of standbys was said.
    #[serde(default)]
    pub is_strict_warned: bool,
    /// What no event tells of and is looked for again, ever more rarely.
    #[serde(default)]
    pub waits: BTreeMap<Wait, Waited>,
    /// Since when this standby asks not to be waited for, because it is about to stop.
    #[serde(default)]
    pub yields_sync_since_ms: Option<u64>,
    /// A scheduled restart whose time has come, held until nobody waits for this standby.
    #[serde(default)]
    pub held_restart: Option<RestartRequest>,
    /// The restart to come.
    pub scheduled_restart: Option<ScheduledRestart>,
    /// The request a running restart answers.
    pub restart_reply: Option<u64>,
    /// Slots of absent members: when each was last seen in use, monotonic.
    pub slots_last_seen_ms: BTreeMap<String, u64>,
    /// Slots ordered here that did not exist at the last look: what is ordered for the first time is looked after soon.
    #[serde(default)]
    pub slots_ordered: BTreeSet<String>,
    /// Logical slots are not copied before this moment.
    #[serde(default)]
    pub slot_copy_hold_ms: Option<u64>,
    /// Whether `hot_standby_feedback` was last forced; `None`: nothing was ordered yet.
    #[serde(default)]
    pub is_feedback_forced: Option<bool>,
    /// The configuration of the follower was compared for this leader already.
    pub previous_position: Option<Lsn>,
    /// When the race back-off began.
    pub backoff_since_ms: Option<u64>,
}

/// Something that no event tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// This standby begins to stream.
    Stream,
    /// A standby that says it streams is seen to do so by the primary.
    Sender,
    /// As many standbys as are waited for have confirmed.
    Confirmation,
    /// The server shows the synchronous standbys that were set.
    Names,
    /// A standby near the limit of its lag crosses it.
    Lag,
    /// A slot is there, or gone, that could not be made or dropped.
    Slots,
    /// Somebody takes the free leader key.
    Leader,
    /// The leader answers what timeline it is on.
    Divergence,
    /// This standby comes to the leader's timeline.
    Timeline,
    /// A new cluster that is made from an archive comes out of recovery.
    Recovery,
}

/// How long it has been waited for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waited {
    /// For what, where there may be several of the kind.
    pub of: Option<String>,
    /// Since when, monotonic.
    pub since_ms: u64,
    /// When it was last found not to be there.
    #[serde(default)]
    pub missed_ms: u64,
    /// Since when it has been there.
    pub over_since_ms: Option<u64>,
}

/// How far the creation of a new cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BootstrapStage {
    /// `initdb` or the custom method runs or has just run.
    Creating,
    /// Users and scripts are being set up.
    PostBootstrap,
    /// All is done; the keys are to be written.
    Ready,
    /// It failed, with the reason for the log.
    Failed,
}

/// Where a member stands with divergence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RewindState {
    /// No reason to doubt.
    #[default]
    Initial,
    /// To be compared with the leader.
    Check,
    /// Has WAL the leader does not have.
    Need,
    /// Compared and fine.
    NotNeed,
    /// Rewound.
    Success,
    /// Rewinding failed.
    Failed,
}

impl RewindState {
    /// Something is to be done before the server may stream.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Check | Self::Need)
    }

    /// A rewind was run.
    pub fn was_executed(self) -> bool {
        matches!(self, Self::Success | Self::Failed)
    }
}

/// How a primary gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DemoteMode {
    /// The DCS is away: fast stop, the key is left to expire, then a read-only start.
    Offline,
    /// Switchover or failover: checkpoint, fast stop, release the key as soon as a candidate has everything.
    Graceful,
    /// Something is wrong here: immediate stop, release the key.
    Immediate,
    /// The key is lost already: immediate stop.
    ImmediateNolock,
    /// The cluster becomes a standby cluster: fast stop, and the key goes to whoever has everything.
    Cluster,
    /// The same where WAL is archived: the key is kept until the last segment is in the archive, too.
    ClusterArchiving,
}

impl DemoteMode {
    /// Whether this mode gives the key away.
    pub fn releases(self) -> bool {
        matches!(self, Self::Graceful | Self::Immediate | Self::Cluster)
    }

    /// The mode's word in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Graceful => "graceful",
            Self::Immediate => "immediate",
            Self::ImmediateNolock => "immediate-nolock",
            Self::Cluster | Self::ClusterArchiving => "demote-cluster",
        }
    }
}

/// A demotion under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Demotion {
    /// How.
    pub mode: DemoteMode,
    /// The action's name in status lines (`switchover: demote`).
    pub action: String,
    /// How far.
    pub stage: DemotionStage,
    /// When it was decided, monotonic.
    #[serde(default)]
    pub began_ms: u64,
    /// The key was given away.
    pub is_released: bool,
    /// The clean shutdown's position to publish with the release.
    pub shutdown_lsn: Option<Lsn>,
}

/// The stages of a demotion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DemotionStage {
    /// The stop is to be ordered as soon as the task slot is free.
    Ordered,
    /// The server stops.
    Stopping,
    /// The server is down; the key is to be released.
    Stopped,
    /// The key is free; somebody else gets the first go until then.
    StandingBack {
        /// Monotonic.
        until_ms: u64,
    },
}
