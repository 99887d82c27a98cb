//! The loop: wait for an event, look, decide, carry out; again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::cluster::{ClusterView, InstanceState, MemberName, Version};
use crate::config::{Dynamic, Limits, PostgresConfig};
use crate::dcs::{DcsError, Timing};
use crate::ha::{
    self, Decision, Done, EndedTask, FailsafeLeader, Level, Memory, Node, Note, Observation, Reply, Request,
    RunningTask, Snapshot,
};
use crate::postgres::{Look, PgError, StopMode, StopPlan};

use super::board::{Asked, Board};
use super::lead::FailsafeLead;
use super::lease::{Lease, Sent};
use super::ports::Ports;
use super::retry::Retry;
use super::task::{Running, chain, field};
use super::watchdog::Watchdog;

/// How often one cycle may decide again.
const MAX_DECISIONS: usize = 12;

/// Two cycles are at least this far apart, so that no pair of events can make the loop spin.
const MIN_PERIOD: Duration = Duration::from_millis(20);

/// Which part of its period a follower runs behind the holder.
const BEHIND: u32 = 20;

/// A look at the local server takes no longer.
const LOOK_BUDGET: Duration = Duration::from_secs(2);

/// How often a server that is being stopped is looked at for clients, and for how long: an agent that is still there
/// looks after its watchdog itself then.
const SAFEPOINT_PERIOD: Duration = Duration::from_millis(100);
const SAFEPOINT_LIMIT: Duration = Duration::from_secs(3600);

/// Members answer a primary that cannot reach the DCS within this time, a second try included.
const FAILSAFE_LIMIT: Duration = Duration::from_secs(4);

/// In failsafe mode the DCS is given up this long before the members have to be asked, but not sooner than an answer can
/// be had.
const ASKING_MARGIN: Duration = Duration::from_millis(500);
const LEAST_PATIENCE: Duration = Duration::from_millis(500);

/// What decides: [`ha::decide`], unless a test puts rules with a deliberate fault in its place.
pub type Rules = Arc<dyn Fn(&Observation, &Memory) -> Decision + Send + Sync>;

/// Why the loop ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As it was told to.
    Asked,
    /// A rule says that this agent cannot go on.
    Fatal {
        /// Its last word.
        message: String,
        /// The server is left alone.
        keep_server: bool,
    },
}

/// The loop and everything it remembers between cycles.
pub struct Runner {
    pub(super) ports: Ports,
    pub(super) board: Arc<Board>,
    pub(super) lease: Arc<Lease>,
    pub(super) settings: Dynamic,
    pub(super) node: Node,
    pub(super) memory: Memory,
    pub(super) task: Option<Running>,
    pub(super) checkpoint: Option<JoinHandle<Result<(), PgError>>>,
    pub(super) replies: BTreeMap<u64, oneshot::Sender<Reply>>,
    pub(super) ended: Option<Ended>,
    pub(super) is_leaving: bool,
    /// The moment before the members were last asked whether we may lead on without the DCS.
    pub(super) failsafe_asked: Option<Sent>,
    /// Why the DCS could not be reached before the first cycle: that one does not wait for it again.
    unreachable: Option<String>,
    /// An agent that is started now may find on what this one, or the one before it, led without the DCS.
    has_kept_lead: bool,
    /// The DCS has not answered a write of this cycle.
    pub(super) is_dcs_silent: bool,
    /// Members of failsafe lists whose writing was not answered.
    pub(super) unsure: BTreeMap<MemberName, String>,
    /// Another member leads, and nothing is to be done here.
    follows: bool,
    reconfigure: Option<JoinHandle<Result<(), PgError>>>,
    config_version: Option<Version>,
    pending: Vec<Request>,
    next_request: u64,
    requests: mpsc::Receiver<Asked>,
    began: Instant,
    last_line: String,
    said_at: Instant,
    /// What this cycle has said already: it may decide several times.
    said: Vec<Note>,
    /// What could not be written, and is tried again.
    pub(super) retry: Retry,
    rules: Option<Rules>,
    pub(super) watchdog: Arc<Watchdog>,
}

impl Runner {
    /// Wires a loop. `dynamic` is the best known dynamic configuration: the cached copy, or `bootstrap.dcs`.
    pub fn new(ports: Ports, dynamic: &Map<String, Value>) -> Self {
        let configured = ports.configure.configure(dynamic, &Dynamic::default());
        for warning in &configured.warnings {
            warn!("{warning}");
        }
        let lease = Lease::new();
        let (board, requests) = Board::new(configured.node.clone(), configured.settings.clone(), Arc::clone(&lease));
        ports.dcs.set_timing(timing(&configured.settings));
        Self {
            ports,
            board,
            lease,
            settings: configured.settings,
            node: configured.node,
            memory: Memory::default(),
            task: None,
            checkpoint: None,
            replies: BTreeMap::new(),
            ended: None,
            is_leaving: false,
            failsafe_asked: None,
            unreachable: None,
            has_kept_lead: true,
            is_dcs_silent: false,
            unsure: BTreeMap::new(),
            follows: false,
            reconfigure: None,
            config_version: None,
            pending: Vec::new(),
            next_request: 0,
            requests,
            began: Instant::now(),
            last_line: String::new(),
            said_at: Instant::now(),
            said: Vec::new(),
            retry: Retry::default(),
            rules: None,
            watchdog: Arc::new(Watchdog::none()),
        }
    }

    /// Arms this watchdog while it leads.
    #[must_use]
    pub fn watched_by(mut self, watchdog: Watchdog) -> Self {
        self.watchdog = Arc::new(watchdog);
        self
    }

    /// Other rules than [`ha::decide`]. What they decide is not held against [`ha::check`]: who breaks the rules on
    /// purpose wants to know whether the world notices.
    #[must_use]
    pub fn deciding_by(mut self, rules: Rules) -> Self {
        self.rules = Some(rules);
        self
    }

    /// Begins although the DCS could not be reached, for this reason. `lead`: the agent before this one led all the same,
    /// and until that is over nobody else can lead; its deadline is ours.
    #[must_use]
    pub fn without_dcs(mut self, why: String, lead: Option<FailsafeLead>) -> Self {
        if let Some(lead) = lead {
            self.lease.renewed(lead.asked, lead.ttl, !self.settings.pause);
            self.board.update(|state| state.failsafe = Some(lead.members));
        }
        self.unreachable = Some(why);
        self
    }

    /// All members have accepted what they were asked at `sent`.
    pub(super) fn keep_lead(&mut self, seen: &Observation, sent: Sent) {
        let lead = FailsafeLead { members: seen.failsafe.clone(), asked: sent, ttl: self.settings.ttl };
        self.ports.configure.keep_lead(Some(&lead));
        self.has_kept_lead = true;
    }

    /// What the REST API reads and speaks to.
    pub fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }

    /// The lease, for its deadline to be watched.
    pub fn lease(&self) -> Arc<Lease> {
        Arc::clone(&self.lease)
    }

    /// Runs until `leave` is cancelled and the server is settled, or until a rule ends it.
    pub async fn run(mut self, leave: CancellationToken) -> Ended {
        let mut changes = self.ports.dcs.changes();
        let postgres_events = self.ports.postgres.events();
        let mut wake_at = Instant::now();
        let mut left = false;
        loop {
            self.board.update(|state| state.next_cycle = wake_at);
            let wake = Arc::clone(&self.board.wake);
            tokio::select! {
                biased;
                () = leave.cancelled(), if !left => left = true,
                Some(asked) = self.requests.recv() => self.queue(asked),
                () = wake.notified() => {}
                () = postgres_events.notified() => {}
                Ok(()) = changes.changed() => {}
                () = tokio::time::sleep_until(wake_at) => {}
            }
            changes.mark_unchanged();
            let began = Instant::now();
            let wake_after = self.cycle(leave.is_cancelled()).await;
            if let Some(ended) = self.ended.take() {
                return self.leave(ended).await;
            }
            let period = [wake_after, self.retry.pause()].into_iter().flatten().fold(self.period(), Duration::min);
            wake_at = Instant::now() + period.max(MIN_PERIOD);
            let earliest = began + MIN_PERIOD;
            if Instant::now() < earliest {
                tokio::time::sleep_until(earliest).await;
            }
        }
    }

    /// How long until the next cycle if nothing happens. The holder's status wakes whoever follows it; its own time is
    /// a little later, so that it does not run twice.
    fn period(&self) -> Duration {
        let loop_wait = self.settings.loop_wait;
        if self.follows { loop_wait + loop_wait / BEHIND } else { loop_wait }
    }

    /// The last steps: a server that must not outlive its agent is stopped, the deadline thread ends.
    async fn leave(&mut self, ended: Ended) -> Ended {
        if let Ended::Fatal { keep_server: false, .. } = ended {
            let plan = StopPlan { mode: StopMode::Fast, checkpoint: false, timeout: None };
            if let Err(error) = self.ports.postgres.stop(&plan, None, &CancellationToken::new()).await {
                let watchdog = if self.watchdog.runs() { " Leaving watchdog running." } else { "" };
                error!(error = field(&error), "PostgreSQL shutdown failed, leader key not removed.{watchdog}");
                // It may still run, so the guard keeps its deadline.
                self.lease.close();
                return ended;
            }
        }
        self.lease.disarm();
        self.watchdog.disarm();
        self.lease.close();
        ended
    }

    /// What was asked at `sent` came back as a yes: we may lead for one `ttl` from then on. To be called after the DCS
    /// confirmed the leader key, and in failsafe mode after every member did (`sent` taken before the first was asked);
    /// not calling it is what ends a leader. Lease, deadline, guard and watchdog are extended by it.
    pub(super) fn entitled(&self, sent: Sent) {
        self.lease.renewed(sent, self.settings.ttl, !self.settings.pause);
        // An answer that was read too late, because we were suspended meanwhile, is no sign of life.
        if self.lease.leads() {
            self.watchdog.keep_alive(&self.settings);
        }
    }

    /// The server is being stopped: the watchdog counts on until its last client is gone, for so long something may
    /// still be acknowledged.
    pub(super) fn disarm_when_nobody_is_served(&self) {
        if !self.watchdog.runs() {
            return;
        }
        let (watchdog, postgres) = (Arc::clone(&self.watchdog), Arc::clone(&self.ports.postgres));
        self.ports.helpers.spawn(async move {
            let give_up = Instant::now() + SAFEPOINT_LIMIT;
            while watchdog.runs() && Instant::now() < give_up {
                if !postgres.serves_clients().await {
                    watchdog.disarm();
                }
                tokio::time::sleep(SAFEPOINT_PERIOD).await;
            }
        });
    }

    /// There is nothing to be stopped here any more, or maintenance mode holds.
    async fn disarm(&self, seen: &Observation) {
        self.lease.disarm();
        if self.watchdog.runs()
            && (self.settings.pause
                || seen.instance.is_primary() == Some(false)
                || !self.ports.postgres.serves_clients().await)
        {
            self.watchdog.disarm();
        }
    }

    fn queue(&mut self, (kind, reply): Asked) {
        self.next_request += 1;
        self.replies.insert(self.next_request, reply);
        self.pending.push(Request { id: self.next_request, kind });
        while let Ok((kind, reply)) = self.requests.try_recv() {
            self.next_request += 1;
            self.replies.insert(self.next_request, reply);
            self.pending.push(Request { id: self.next_request, kind });
        }
    }

    /// One cycle. Returns how soon the next one is due at the latest, if sooner than usual.
    async fn cycle(&mut self, is_leaving: bool) -> Option<Duration> {
        self.is_leaving = is_leaving;
        self.said.clear();
        self.retry.begin();
        if self.board.read(|state| state.reload) {
            self.board.update(|state| state.reload = false);
            self.reload();
        }
        // Before the look: what a task did must not be judged by a look that is older than its end.
        let ended = self.collect_task().await;
        let (view, instance) = self.observe().await;
        if let Snapshot::Read(view) = &view {
            self.take_limits(view);
            self.take_config(view);
        }
        let mut seen = Observation {
            now_ms: 0,
            wall_ms: i64::try_from(self.ports.clock.since_epoch().as_millis()).unwrap_or(i64::MAX),
            node: self.node.clone(),
            view,
            settings: self.settings.clone(),
            instance,
            leads_until_ms: None,
            task: None,
            ended,
            requests: self.pending.clone(),
            failsafe: self.counted(),
            failsafe_ping: None,
            watchdog: self.watchdog.standing(&self.settings),
            is_leaving,
            done: Done::default(),
        };
        let mut decision = self.decide(&mut seen);
        let mut rounds = 1;
        loop {
            let failed = super::carry_out::carry_out(self, &mut seen, &decision.steps).await;
            seen.ended = None;
            self.forget_answered(&mut seen);
            if !(decision.again || failed) || rounds >= MAX_DECISIONS || self.ended.is_some() {
                break;
            }
            rounds += 1;
            decision = self.decide(&mut seen);
        }
        if rounds >= MAX_DECISIONS {
            error!(rule = decision.rule, "a cycle did not come to an end; please report it as a BUG");
        }
        self.settle(&seen, &decision).await;
        decision.wake_after_ms.map(Duration::from_millis)
    }

    /// Reads the DCS and looks at the server, side by side.
    async fn observe(&mut self) -> (Snapshot, InstanceState) {
        self.is_dcs_silent = false;
        let patience = self.patience();
        let look =
            Look { slots: true, senders: self.settings.is_synchronous(), standby_timeline: true, budget: LOOK_BUDGET };
        let unreachable = self.unreachable.take();
        let load = async {
            if let Some(why) = unreachable {
                return Err(DcsError::unavailable(why));
            }
            let loaded = tokio::time::timeout(patience, self.ports.dcs.load()).await;
            loaded.unwrap_or_else(|_| Err(DcsError::unavailable(format!("no answer within {patience:?}"))))
        };
        let (loaded, instance) = tokio::join!(load, self.ports.postgres.look(&look));
        let view = match loaded {
            Ok(view) => {
                let has_lock = view.has_lock(&self.node.name);
                if !has_lock {
                    self.lease.lost();
                }
                if !has_lock || view.failsafe.as_ref() == Some(&self.unsure) {
                    self.unsure.clear();
                }
                // Before anything is written there: other members may count from now on.
                if std::mem::take(&mut self.has_kept_lead) {
                    self.ports.configure.keep_lead(None);
                }
                let view = Arc::new(view);
                self.board.loaded(&view, self.ports.clock.since_epoch());
                Snapshot::Read(Box::new(ClusterView::clone(&view)))
            }
            Err(error) => {
                self.board.load_failed();
                Snapshot::Unreachable(chain(&error))
            }
        };
        (view, instance)
    }

    /// Who has a say while the DCS is away: whoever is in the list there. One whose writing was not answered may have
    /// taken its place; where there is none, everybody has a say, also members that we do not know.
    pub(super) fn counted(&self) -> BTreeMap<MemberName, String> {
        let mut counted = self.board.read(|state| state.failsafe.clone()).unwrap_or_default();
        if !counted.is_empty() {
            counted.extend(self.unsure.clone());
        }
        counted
    }

    /// How long an answer of the DCS is waited for. In failsafe mode the members must be asked before the lease's
    /// deadline, or the server is stopped although all of them would have agreed.
    pub(super) fn patience(&self) -> Duration {
        let budget = self.settings.retry_timeout;
        let Some(deadline) = self.lease.deadline().filter(|_| self.settings.failsafe_mode) else { return budget };
        let asking = self.asking_limit() + ASKING_MARGIN;
        let left = deadline.saturating_duration_since(Instant::now()).saturating_sub(asking);
        budget.min(left.max(LEAST_PATIENCE))
    }

    /// How long the members have to answer a primary without the DCS, which has taken its time already when they are
    /// asked: the deadline of the lease comes nearer.
    pub(super) fn asking_limit(&self) -> Duration {
        (self.settings.ttl / 6).min(FAILSAFE_LIMIT)
    }

    /// The outcome of the task, if it has ended.
    async fn collect_task(&mut self) -> Option<EndedTask> {
        if self.checkpoint.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(handle) = self.checkpoint.take()
            && let Ok(Err(error)) = handle.await
        {
            warn!("checkpoint after the promotion failed: {}", chain(&error));
            self.memory.is_checkpoint_ordered = false;
        }
        let running = self.task.take_if(|running| running.is_finished())?;
        let (task, progress) = (running.task.clone(), running.progress());
        Some(EndedTask { task, outcome: running.outcome().await, progress })
    }

    /// One decision, with the moving parts of the observation brought up to date.
    fn decide(&mut self, seen: &mut Observation) -> Decision {
        seen.now_ms = self.ms(Instant::now());
        seen.failsafe_ping = self.board.read(|state| state.failsafe_ping.clone()).map(|(ping, at)| FailsafeLeader {
            name: ping.name,
            conn_url: ping.conn_url,
            api_url: ping.api_url,
            slots: ping.slots,
            ttl_ms: ping.ttl.map(|seconds| seconds.saturating_mul(1000)),
            at_ms: self.ms(at),
        });
        seen.leads_until_ms = self.lease.leads_until().map(|until| self.ms(until));
        seen.task = self.task.as_ref().map(|running| RunningTask {
            task: running.task.clone(),
            since_ms: self.ms(running.since),
            progress: running.progress(),
        });
        let mut decision = match &self.rules {
            Some(rules) => rules(seen, &self.memory),
            None => ha::decide(seen, &self.memory),
        };
        // Whoever brings other rules keeps a log of its own.
        if self.rules.is_none() {
            self.board.record(seen, &self.memory, &decision);
        }
        self.say(seen, &decision);
        let findings = if self.rules.is_none() { ha::check(seen, &decision) } else { Vec::new() };
        for finding in findings {
            error!("{}; please report it as a BUG", finding.0);
            debug_assert!(false, "{}", finding.0);
        }
        self.memory = std::mem::take(&mut decision.memory);
        // Whoever is answered now may look at once.
        self.board.update(|state| state.scheduled_restart.clone_from(&self.memory.scheduled_restart));
        decision
    }

    fn ms(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }

    /// Notes as they come; the status line once a cycle, quietly when it repeats.
    fn say(&mut self, seen: &Observation, decision: &Decision) {
        for note in &decision.notes {
            if self.said.contains(note) {
                continue;
            }
            self.said.push(note.clone());
            match note.level {
                Level::Info => info!(rule = decision.rule, "{}", note.text),
                Level::Warning => warn!(rule = decision.rule, "{}", note.text),
                Level::Error | Level::Critical => error!(rule = decision.rule, "{}", note.text),
            }
        }
        for verdict in &decision.weighed {
            let why = verdict.passed_over.as_deref().unwrap_or("may lead");
            debug!(rule = decision.rule, member = %verdict.member, "{why}");
        }
        if decision.again {
            return;
        }
        let prefix = if self.settings.pause { "PAUSE: " } else { "" };
        let line = format!("{prefix}{}", decision.reason);
        let is_heartbeat = decision.reason.is_heartbeat();
        if self.last_line != line {
            if let (false, Some(view)) = (is_heartbeat, seen.view()) {
                let owner = view.leader_name().map_or("None", |name| name.as_str());
                info!(rule = decision.rule, "Lock owner: {owner}; I am {}", seen.node.name);
            }
            info!(rule = decision.rule, "{line}");
            self.said_at = Instant::now();
        } else if self.said_at.elapsed() >= self.settings.loop_wait.mul_f32(0.9) {
            // Events wake the loop more often than its period; all is well needs saying once a period.
            info!(rule = decision.rule, "{line}");
            self.said_at = Instant::now();
        } else {
            debug!(rule = decision.rule, "{line}");
        }
        self.last_line = line;
    }

    /// Requests that were answered are no longer pending.
    fn forget_answered(&mut self, seen: &mut Observation) {
        let begun = self.memory.restart_reply;
        self.pending.retain(|request| self.replies.contains_key(&request.id) && Some(request.id) != begun);
        seen.requests = self.pending.clone();
    }

    /// What the cycle leaves: the board, the deadline, the cached configuration.
    async fn settle(&mut self, seen: &Observation, decision: &Decision) {
        let role = self.memory.role.unwrap_or(crate::cluster::Role::Uninitialized);
        let line = (decision.rule, self.last_line.clone());
        let leader = seen.view().and_then(ClusterView::leader_name);
        self.follows = self.task.is_none() && leader.is_some_and(|leader| *leader != self.node.name);
        self.board.update(|state| {
            state.node = self.node.clone();
            if *state.settings != self.settings {
                state.settings = Arc::new(self.settings.clone());
            }
            state.instance = seen.instance.clone();
            state.role = role;
            state.last_decision = line;
            state.advice = decision.reason.advice();
            state.is_watchdog_unusable = seen.watchdog == ha::Watchdog::Unusable;
        });
        if self.settings.pause || !self.may_lead(seen) {
            self.disarm(seen).await;
        }
    }

    /// Whether the local server is a primary or may become one before the next cycle. A standby that is only being
    /// started, or serves readers while the DCS is away, need not be stopped when the lease ends.
    fn may_lead(&self, seen: &Observation) -> bool {
        use crate::cluster::Role;
        let is_standby = seen.instance.is_recovery_configured;
        let may_become = self.task.as_ref().is_some_and(|running| running.task.makes_a_primary(is_standby));
        let was = matches!(self.memory.role, Some(Role::Primary | Role::Promoted));
        let instance = &seen.instance;
        let unknown = instance.is_postmaster_alive && (was || !instance.is_recovery_configured);
        may_become || instance.is_primary().unwrap_or(unknown)
    }

    /// How far down the timing may go depends on who is there.
    fn take_limits(&mut self, view: &ClusterView) {
        let is_theirs = |member: &&crate::cluster::Member| member.name != self.node.name && !member.is_ours();
        let theirs: Vec<&str> = view.members.iter().filter(is_theirs).map(|member| member.name.as_str()).collect();
        let limits = if theirs.is_empty() { Limits::Ours } else { Limits::Patroni };
        if self.settings.limits == limits {
            return;
        }
        self.settings.limits = limits;
        if !self.settings.is_timing_limited() {
            return;
        }
        match limits {
            Limits::Ours => info!("every member is run by pgherd: the timing holds as it is configured"),
            Limits::Patroni => warn!(
                "ttl, loop_wait and retry_timeout are held to Patroni's limits (20, 1 and 3 seconds) as long as it \
                 runs a member: {}",
                theirs.join(", ")
            ),
        }
        let document = self.settings.document.clone();
        self.apply(&document, false);
    }

    /// Takes a changed dynamic configuration over.
    fn take_config(&mut self, view: &ClusterView) {
        let Some(config) = &view.config else { return };
        if self.config_version == Some(config.version) {
            return;
        }
        self.config_version = Some(config.version);
        let Some(document) = &config.document else {
            error!("the dynamic configuration in the DCS is not a JSON object; the last good one stays in force");
            return;
        };
        if *document != self.settings.document {
            self.apply(document, false);
        }
        self.ports.configure.keep(document);
    }

    fn reload(&mut self) {
        match self.ports.configure.reload() {
            Ok(changed) => {
                // The guard may have been switched on or off.
                self.lease.remind();
                if !changed {
                    info!("No local configuration items changed.");
                }
                let document = self.settings.document.clone();
                self.apply(&document, true);
            }
            Err(error) => error!(%error, "the local configuration was not reloaded, the old one stays in force"),
        }
    }

    /// Combines both configurations anew and hands them to whom they concern. The server takes its part beside the
    /// loop.
    fn apply(&mut self, document: &Map<String, Value>, force: bool) {
        let configured = self.ports.configure.configure(document, &self.settings);
        for warning in &configured.warnings {
            warn!("{warning}");
        }
        self.settings = configured.settings;
        self.node = configured.node;
        self.ports.dcs.set_timing(timing(&self.settings));
        if let Some(config) = configured.postgres {
            self.reconfigure(config, force);
        }
    }

    fn reconfigure(&mut self, config: Arc<PostgresConfig>, force: bool) {
        let postgres = Arc::clone(&self.ports.postgres);
        let wake = Arc::clone(&self.board.wake);
        let earlier = self.reconfigure.take();
        self.reconfigure = Some(self.ports.helpers.spawn(async move {
            if let Some(earlier) = earlier {
                let _ = earlier.await;
            }
            let result = postgres.configure(config, force).await;
            if let Err(error) = &result {
                error!(error = field(error), "the PostgreSQL configuration was not applied");
            }
            wake.notify_one();
            result
        }));
    }
}

fn timing(settings: &Dynamic) -> Timing {
    Timing { ttl: settings.ttl, loop_wait: settings.loop_wait, retry_timeout: settings.retry_timeout }
}
