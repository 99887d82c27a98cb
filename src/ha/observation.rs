//! Everything a decision may read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::cluster::{
    ClusterView, Divergence, FollowChange, HistoryLine, InstanceState, Lsn, MemberName, PeerAnswer, ReinitRequest,
    RestartRequest, Rewound, ScheduledRestart, Started, StopProgress, Tags,
};
use crate::config::Dynamic;

use super::decision::Task;

/// One moment as this node sees it. Any part may be stale by the time a decision is carried out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// Milliseconds on this process's monotonic clock.
    pub now_ms: u64,
    /// Milliseconds since the epoch, for schedules only.
    pub wall_ms: i64,
    /// Who we are.
    pub node: Node,
    /// The cluster, or why it could not be read.
    pub view: Snapshot,
    /// The cluster-wide settings in force.
    pub settings: Dynamic,
    /// The local server.
    pub instance: InstanceState,
    /// Until when our own lease surely lives, on the monotonic clock: counted from before the last successful
    /// renewal was sent. `None`: we do not lead.
    pub leads_until_ms: Option<u64>,
    /// The one long task, if it runs.
    pub task: Option<RunningTask>,
    /// The task that ended since the last decision.
    pub ended: Option<EndedTask>,
    /// What operators asked this node for, oldest first.
    pub requests: Vec<Request>,
    /// The failsafe topology as last read or written, kept while the DCS is away: members and their REST addresses.
    #[serde(default)]
    pub failsafe: BTreeMap<MemberName, String>,
    /// The primary that last told us, over REST, that it leads although it cannot reach the DCS.
    pub failsafe_ping: Option<FailsafeLeader>,
    /// The watchdog device.
    #[serde(default)]
    pub watchdog: Watchdog,
    /// The agent was told to end.
    pub is_leaving: bool,
    /// Outcomes of steps already carried out in this cycle.
    pub done: Done,
}

/// A primary that leads on without the DCS, as it told us.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailsafeLeader {
    /// Its name.
    pub name: MemberName,
    /// Its connection URL.
    pub conn_url: String,
    /// Its REST address.
    pub api_url: String,
    /// Where its slots are, and under the name of its own slot where it is itself.
    #[serde(default)]
    pub slots: Option<BTreeMap<String, Lsn>>,
    /// For how long it counts on our promise, as it told us.
    #[serde(default)]
    pub ttl_ms: Option<u64>,
    /// When it told us so, monotonic.
    pub at_ms: u64,
}

impl FailsafeLeader {
    /// What it was promised counts still: also when the `ttl` has been changed or failsafe mode been switched off since,
    /// for the primary that cannot reach the DCS knows nothing of that.
    pub fn is_promised(&self, seen: &Observation) -> bool {
        self.promised_ms(seen) > 0
    }

    /// For how long it counts still.
    pub fn promised_ms(&self, seen: &Observation) -> u64 {
        let ttl_ms = u64::try_from(seen.settings.ttl.as_millis()).unwrap_or(u64::MAX);
        let passed = seen.now_ms.saturating_sub(self.at_ms);
        self.ttl_ms.unwrap_or_default().max(ttl_ms).saturating_sub(passed)
    }
}

/// This node's own configuration, as far as decisions read it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Our name.
    pub name: MemberName,
    /// The cluster's name.
    #[serde(default)]
    pub scope: String,
    /// Our tags as configured.
    pub tags: Tags,
    /// Published connection URL.
    pub conn_url: String,
    /// Published REST address.
    pub api_url: String,
    /// Published proxy URL.
    pub proxy_url: Option<String>,
    /// A `bootstrap` section allows us to start a new cluster.
    pub may_bootstrap: bool,
    /// The dynamic configuration a new cluster (or an emptied DCS) is given.
    pub initial_config: Map<String, Value>,
    /// Replica creation methods that need no leader are configured.
    pub has_leaderless_method: bool,
    /// Re-clone a diverged data directory instead of rewinding it.
    pub remove_on_divergence: bool,
    /// Re-clone when rewinding failed.
    pub remove_on_rewind_failure: bool,
}

/// The watchdog device, which should count down beside a primary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Watchdog {
    /// It runs, or none is wanted, or none can be had and none is required.
    #[default]
    Settled,
    /// It is to be armed before this node leads.
    Idle,
    /// It is required and cannot be used: this node must not lead.
    Unusable,
}

/// The DCS snapshot or its absence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Snapshot {
    /// Read in this cycle.
    Read(Box<ClusterView>),
    /// The DCS could not be reached; the error's words.
    Unreachable(String),
}

/// The long task while it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunningTask {
    /// What it does.
    pub task: Task,
    /// When it began, monotonic.
    pub since_ms: u64,
    /// How far a stop has come.
    pub progress: Option<StopProgress>,
}

/// The long task when it is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndedTask {
    /// What it did.
    pub task: Task,
    /// How it ended.
    pub outcome: TaskOutcome,
    /// The last progress of a stop.
    pub progress: Option<StopProgress>,
}

/// How a long task ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskOutcome {
    /// Done.
    Done,
    /// A start or restart came this far.
    Started(Started),
    /// A promotion: the server is in production (`true`) or not seen there yet.
    Promoted(bool),
    /// `pre_promote` said no.
    PrePromoteFailed,
    /// A rewind ended.
    Rewound(Rewound),
    /// It failed; why, for people.
    Failed(String),
    /// It was cancelled.
    Cancelled,
}

/// An operator's request to this node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// To match the reply with.
    pub id: u64,
    /// What is asked.
    pub kind: RequestKind,
}

/// What operators can ask of one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestKind {
    /// Restart now.
    Restart(RestartRequest),
    /// Restart later; replaces nothing.
    ScheduleRestart(ScheduledRestart),
    /// Forget the scheduled restart.
    CancelRestart,
    /// Throw the data away and clone.
    Reinitialize(ReinitRequest),
}

/// Outcomes within a cycle. A decision that needs one which is not here yet orders the step and is called again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// The leader key was renewed (`Kept`), is somebody else's (`Lost`), or the DCS did not answer.
    pub renewal: Option<LockOutcome>,
    /// The leader key was created (`Kept`), or somebody was faster (`Lost`).
    pub acquire: Option<LockOutcome>,
    /// The watchdog was armed, or is not required; `false`: this node must not lead.
    #[serde(default)]
    pub watchdog: Option<bool>,
    /// The create-only write of `initialize`: won or not.
    pub initialize: Option<bool>,
    /// The peers' answers.
    pub peers: Option<BTreeMap<MemberName, PeerAnswer>>,
    /// What the members of the failsafe topology said to our leading on without the DCS: nothing (accepted), or why
    /// not.
    #[serde(default)]
    pub failsafe: Option<BTreeMap<MemberName, Option<String>>>,
    /// Where those are that accepted it.
    #[serde(default)]
    pub failsafe_positions: BTreeMap<MemberName, Lsn>,
    /// Whether the standby's recovery configuration must change.
    pub follow: Option<FollowChange>,
    /// Whether we have WAL that the leader does not.
    pub divergence: Option<Divergence>,
    /// The local history file of the current timeline and when it was written.
    pub history: Option<(Vec<HistoryLine>, Option<String>)>,
    /// A conditional write of `sync` met somebody else's.
    pub sync_conflict: bool,
    /// A write that must succeed did not reach the DCS; which.
    pub lost_write: Option<String>,
}

/// How an attempt on the leader key ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockOutcome {
    /// It is ours.
    Kept,
    /// It is not.
    Lost,
    /// The DCS did not answer; its words.
    Unreachable(String),
}

impl Observation {
    /// The snapshot, if it was read.
    pub fn view(&self) -> Option<&ClusterView> {
        match &self.view {
            Snapshot::Read(view) => Some(view),
            Snapshot::Unreachable(_) => None,
        }
    }

    /// Our lease surely lives now.
    pub fn leads(&self) -> bool {
        self.leads_until_ms.is_some_and(|until| self.now_ms < until)
    }
}
