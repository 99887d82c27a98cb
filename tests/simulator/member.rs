//! One member's processes besides PostgreSQL: its agent, the deadline inside the agent, the guard outside.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use pgherd::agent::{Board, Configure, Configured, Ended, FailsafeLead, Lease, Peers, Ports, Rules, Runner, Stated};
use pgherd::api::FailsafePing;
use pgherd::cluster::{Lsn, MemberName, PeerAnswer, Role, State};
use pgherd::config::Dynamic;
use pgherd::ha::{Decision, Memory, Node, Observation, Step};
use pgherd::io::clock::Clock;
use serde_json::{Map, Value};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::fleet::Fleet;
use crate::port::{Life, SimPostgres, peer_answer};
use crate::sabotage::Sabotage;
use crate::store::SimDcs;

/// The simulated time of day, with what is wrong with it.
struct SimClock {
    began: Instant,
    off_by_ms: Arc<Mutex<i64>>,
}

impl Clock for SimClock {
    fn since_epoch(&self) -> Duration {
        let off = *self.off_by_ms.lock().unwrap();
        let since = Duration::from_secs(1_800_000_000) + self.began.elapsed();
        since.saturating_add_signed(off)
    }
}

trait AddSigned {
    fn saturating_add_signed(self, ms: i64) -> Self;
}

impl AddSigned for Duration {
    fn saturating_add_signed(self, ms: i64) -> Self {
        let by = Self::from_millis(ms.unsigned_abs());
        if ms < 0 { self.saturating_sub(by) } else { self + by }
    }
}

/// Answers for members out of their servers, if the network and their agents let them.
struct SimPeers {
    fleet: Arc<Fleet>,
    me: usize,
    lives: Arc<Mutex<Vec<Arc<Life>>>>,
}

#[async_trait]
impl Peers for SimPeers {
    async fn tell_failsafe(
        &self,
        members: &BTreeMap<MemberName, String>,
        ping: &FailsafePing,
        limit: Duration,
    ) -> BTreeMap<MemberName, Result<Option<Lsn>, String>> {
        let told = members.keys().map(|name| async move {
            for _ in 0..2 {
                if let Ok(answer) = timeout(limit / 2, self.tell(name, ping)).await {
                    return (name.clone(), answer);
                }
            }
            (name.clone(), Err("timed out".to_owned()))
        });
        futures::future::join_all(told).await.into_iter().collect()
    }

    async fn ask(&self, members: &BTreeMap<MemberName, String>) -> BTreeMap<MemberName, PeerAnswer> {
        let delay = {
            let mut moving = self.fleet.moving();
            let most = moving.delay_ms;
            1 + moving.chance.below(most + 1) + moving.chance.below(most + 1)
        };
        sleep(Duration::from_millis(delay)).await;
        let mut answers = BTreeMap::new();
        let mut is_slow = false;
        for name in members.keys() {
            let other = self.fleet.index(name).unwrap();
            let life = Arc::clone(&self.lives.lock().unwrap()[other]);
            let is_reachable = self.fleet.moving().can_connect(self.me, other);
            let answer = if !is_reachable || life.is_frozen() {
                is_slow = true;
                PeerAnswer::Unreachable("timed out".into())
            } else if life.is_over() {
                PeerAnswer::Unreachable("connection refused".into())
            } else {
                peer_answer(&self.fleet, other)
            };
            answers.insert(name.clone(), answer);
        }
        if is_slow {
            sleep(Duration::from_secs(2)).await;
        }
        answers
    }
}

impl SimPeers {
    /// `POST /failsafe` to one member. No answer may come, also of a promise that was given.
    async fn tell(&self, name: &MemberName, ping: &FailsafePing) -> Result<Option<Lsn>, String> {
        let way = || {
            let mut moving = self.fleet.moving();
            let most = moving.delay_ms;
            sleep(Duration::from_millis(moving.chance.below(most + 1)))
        };
        let other = self.fleet.index(name).unwrap();
        way().await;
        let life = Arc::clone(&self.lives.lock().unwrap()[other]);
        if self.fleet.moving().cut[self.me][other] || life.is_frozen() {
            std::future::pending::<()>().await;
        }
        let answer = accepts(&life, ping);
        way().await;
        if self.fleet.moving().cut[other][self.me] {
            std::future::pending::<()>().await;
        }
        answer
    }
}

/// What a member's REST API says to a primary that wants to lead on.
fn accepts(life: &Life, ping: &FailsafePing) -> Result<Option<Lsn>, String> {
    let Some(board) = life.board.get().filter(|_| !life.is_over()) else { return Err("connection refused".into()) };
    let state = board.state();
    if !state.settings.failsafe_mode {
        return Err("not in failsafe mode".into());
    }
    let is_primary = state.role == Role::Primary && state.instance.state == Some(State::Running);
    let refused = "running as a leader";
    if is_primary { Err(refused.into()) } else { board.promise(ping.clone()).map_err(|_| refused.into()) }
}

struct SimConfigure {
    fleet: Arc<Fleet>,
    me: usize,
    kept: KeptLead,
    document: KeptDocument,
}

impl Configure for SimConfigure {
    fn configure(&self, dynamic: &Map<String, Value>, before: &Dynamic) -> Configured {
        let (settings, _) = before.after(dynamic);
        let (name, local) = (&self.fleet.names[self.me], &self.fleet.locals[self.me]);
        let node = Node {
            name: name.clone(),
            scope: "sim".into(),
            tags: self.fleet.moving().tags[self.me].clone(),
            conn_url: format!("postgres://{name}:5432/postgres"),
            api_url: format!("http://{name}:8008/patroni"),
            may_bootstrap: true,
            initial_config: dynamic.clone(),
            remove_on_divergence: local.remove_on_divergence,
            remove_on_rewind_failure: local.remove_on_rewind_failure,
            ..Node::default()
        };
        Configured { settings, postgres: None, node, warnings: Vec::new() }
    }

    fn reload(&self) -> Result<bool, String> {
        Ok(true)
    }

    fn keep(&self, dynamic: &Map<String, Value>) {
        *self.document.lock().unwrap() = Some(dynamic.clone());
    }

    fn keep_lead(&self, lead: Option<&FailsafeLead>) {
        *self.kept.lock().unwrap() = lead.cloned();
    }
}

/// What an agent has left for the next one.
type KeptLead = Arc<Mutex<Option<FailsafeLead>>>;

/// The dynamic configuration as an agent last heard of it.
type KeptDocument = Arc<Mutex<Option<Map<String, Value>>>>;

/// The agent's process.
struct Agent {
    task: JoinHandle<Ended>,
    leave: CancellationToken,
    lease: Arc<Lease>,
    board: Arc<Board>,
    /// The last deadline that was acted upon.
    fired: Option<Instant>,
}

/// The guard's process: it outlives the agent.
#[derive(Default)]
struct Guard {
    deadline: Option<Instant>,
    fired: Option<Instant>,
    frozen_until: Option<Instant>,
}

/// See the module.
pub(crate) struct Member {
    fleet: Arc<Fleet>,
    me: usize,
    lives: Arc<Mutex<Vec<Arc<Life>>>>,
    agent: Option<Agent>,
    guard: Guard,
    drift: i64,
    off_by_ms: Arc<Mutex<i64>>,
    sabotage: Option<Sabotage>,
    kept: KeptLead,
    document: KeptDocument,
    /// When the agent that ended by itself is started again.
    again_at: Option<Instant>,
    is_machine_frozen: bool,
}

impl Member {
    pub(crate) fn new(
        fleet: &Arc<Fleet>,
        me: usize,
        lives: &Arc<Mutex<Vec<Arc<Life>>>>,
        drift: i64,
        sabotage: Option<Sabotage>,
    ) -> Self {
        Self {
            fleet: Arc::clone(fleet),
            me,
            lives: Arc::clone(lives),
            agent: None,
            guard: Guard::default(),
            drift,
            off_by_ms: Arc::default(),
            sabotage,
            kept: Arc::default(),
            document: Arc::default(),
            again_at: None,
            is_machine_frozen: false,
        }
    }

    pub(crate) fn start(&mut self, config: &Map<String, Value>) {
        let fleet = &self.fleet;
        let name = fleet.names[self.me].clone();
        let life = Arc::new(Life::default());
        let handle = fleet.store.handle("sim", Some(&name));
        let ports = Ports {
            dcs: SimDcs::new(fleet, self.me, handle, self.drift, self.sabotage == Some(Sabotage::SleptThrough)),
            postgres: Arc::new(SimPostgres { fleet: Arc::clone(fleet), me: self.me, life: Arc::clone(&life) }),
            peers: Arc::new(SimPeers { fleet: Arc::clone(fleet), me: self.me, lives: Arc::clone(&self.lives) }),
            configure: Arc::new(SimConfigure {
                fleet: Arc::clone(fleet),
                me: self.me,
                kept: Arc::clone(&self.kept),
                document: Arc::clone(&self.document),
            }),
            clock: Arc::new(SimClock { began: fleet.began, off_by_ms: Arc::clone(&self.off_by_ms) }),
            helpers: tokio::runtime::Handle::current(),
        };
        // In older worlds an agent is never started with an old configuration.
        let kept = self.document.lock().unwrap().clone().filter(|_| fleet.has_remote());
        let config = kept.as_ref().unwrap_or(config);
        let rules = rules(fleet, self.me, self.sabotage, Arc::clone(&life));
        let mut runner = Runner::new(ports, config).deciding_by(rules);
        let left = self.kept.lock().unwrap().clone().filter(|lead| lead.left().is_some());
        if let Some(lead) = left.filter(|_| fleet.moving().servers[self.me].is_writable()) {
            fleet.say(format!("{}: the new agent is left to lead without the DCS", fleet.names[self.me]));
            runner = runner.without_dcs("it is not asked".into(), Some(lead));
        }
        let (lease, board) = (runner.lease(), runner.board());
        assert!(life.board.set(Arc::clone(&board)).is_ok(), "a life has one agent");
        let leave = CancellationToken::new();
        let task = {
            let (life, leave) = (Arc::clone(&life), leave.clone());
            tokio::spawn(async move { life.run(runner.run(leave)).await })
        };
        self.lives.lock().unwrap()[self.me] = life;
        self.again_at = None;
        self.agent = Some(Agent { task, leave, lease, board, fired: None });
    }

    fn life(&self) -> Arc<Life> {
        Arc::clone(&self.lives.lock().unwrap()[self.me])
    }

    /// The agent's process is killed; server and guard live on.
    pub(crate) fn kill(&mut self) {
        self.life().end();
        if let Some(agent) = self.agent.take() {
            agent.task.abort();
        }
        self.again_at = None;
        self.fleet.moving().servers[self.me].operation = None;
    }

    /// The agent runs and is not suspended.
    pub(crate) fn is_awake(&self) -> bool {
        self.runs() && !self.life().is_frozen() && !self.is_machine_frozen
    }

    pub(crate) fn runs(&self) -> bool {
        self.agent.as_ref().is_some_and(|agent| !agent.task.is_finished() && !agent.leave.is_cancelled())
    }

    /// The agent is told to end.
    pub(crate) fn terminate(&self) {
        if let Some(agent) = &self.agent {
            agent.leave.cancel();
        }
    }

    pub(crate) fn board(&self) -> Option<Arc<Board>> {
        self.agent.as_ref().map(|agent| Arc::clone(&agent.board))
    }

    /// SIGSTOP and SIGCONT for the agent.
    pub(crate) fn freeze_agent(&self, frozen: bool) {
        self.life().freeze(frozen);
    }

    /// The whole machine is suspended, or goes on.
    pub(crate) fn freeze_machine(&mut self, frozen: bool) {
        self.freeze_agent(frozen);
        let mut moving = self.fleet.moving();
        if moving.servers[self.me].is_alive() {
            moving.servers[self.me].is_frozen = frozen;
        }
        if self.is_machine_frozen && !frozen {
            moving.thawed[self.me] = Some(Instant::now());
            let wait = moving.chance.below(100);
            self.guard.frozen_until = Some(Instant::now() + Duration::from_millis(wait));
        }
        self.is_machine_frozen = frozen;
    }

    /// The machine loses power: nothing of it lives on.
    pub(crate) fn power_off(&mut self) {
        self.freeze_machine(false);
        self.kill();
        self.guard = Guard::default();
        *self.kept.lock().unwrap() = None;
        self.fleet.kill(self.me);
    }

    /// The wall clock is set.
    pub(crate) fn set_clock(&self, off_by_ms: i64) {
        *self.off_by_ms.lock().unwrap() = off_by_ms;
    }

    /// What the deadline thread, the guard and the service manager do by themselves.
    pub(crate) fn tick(&mut self, config: &Map<String, Value>) {
        self.interrupt();
        self.deadline();
        self.guard();
        let Some(agent) = &mut self.agent else {
            if self.again_at.is_some_and(|at| Instant::now() >= at) {
                self.start(config);
            }
            return;
        };
        if !agent.task.is_finished() || agent.leave.is_cancelled() {
            return;
        }
        match self.again_at {
            None => {
                let end = futures::FutureExt::now_or_never(&mut agent.task);
                let name = &self.fleet.names[self.me];
                let mut moving = self.fleet.moving();
                match end {
                    Some(Ok(ended)) => moving.say(self.fleet.began, &format!("{name}: the agent ended: {ended:?}")),
                    other => moving.violate(format!("{name}: the agent panicked: {other:?}")),
                }
                self.again_at = Some(Instant::now() + Duration::from_secs(1));
            }
            Some(at) if Instant::now() >= at => {
                self.life().end();
                self.start(config);
            }
            Some(_) => {}
        }
    }

    /// An agent has just died between two steps.
    fn interrupt(&mut self) {
        if self.agent.is_none() || !self.life().is_over() {
            return;
        }
        let Some(interrupt) = self.fleet.moving().interrupts[self.me].take() else { return };
        if interrupt.takes_server {
            self.power_off();
        } else {
            self.kill();
        }
        self.again_at = Some(Instant::now() + interrupt.back_after);
    }

    fn deadline(&mut self) {
        let is_frozen = self.life().is_frozen();
        let Some(agent) = self.agent.as_mut().filter(|_| !is_frozen) else { return };
        if self.sabotage == Some(Sabotage::NoDeadline) {
            return;
        }
        let due = agent.lease.deadline().filter(|at| Instant::now() >= *at && agent.fired != Some(*at));
        if let Some(at) = due {
            agent.fired = Some(at);
            agent.lease.lost();
            self.fleet.say(format!("{}: the deadline of the lease fires", self.fleet.names[self.me]));
            self.life().quits.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            self.fleet.kill(self.me);
        }
    }

    fn guard(&mut self) {
        if self.is_machine_frozen || self.guard.frozen_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        let is_frozen = self.life().is_frozen();
        if let Some(agent) = self.agent.as_ref().filter(|_| !is_frozen) {
            match agent.lease.stated() {
                Stated::Nothing => {}
                Stated::Disarmed => self.guard.deadline = None,
                Stated::Armed(_) => {
                    if let Some(at) = agent.lease.deadline() {
                        self.guard.deadline = Some(at);
                    }
                }
            }
        }
        if matches!(self.sabotage, Some(Sabotage::NoDeadline | Sabotage::NoGuard)) {
            return;
        }
        let due = self.guard.deadline.filter(|at| Instant::now() >= *at && self.guard.fired != Some(*at));
        if let Some(at) = due {
            self.guard.fired = Some(at);
            self.fleet.say(format!("{}: the guard fires", self.fleet.names[self.me]));
            self.fleet.kill(self.me);
        }
    }
}

/// The rules of an agent: the real ones with what is wrong with them, noted in the world's log.
fn rules(fleet: &Arc<Fleet>, me: usize, sabotage: Option<Sabotage>, life: Arc<Life>) -> Rules {
    let fleet = Arc::clone(fleet);
    let is_cut = AtomicBool::new(false);
    let last = Mutex::new((0, String::new()));
    Arc::new(move |seen: &Observation, memory: &Memory| {
        if is_cut.load(Ordering::Relaxed) {
            life.end();
            return Decision { again: false, steps: Vec::new(), ..pgherd::ha::decide(seen, memory) };
        }
        let mut decision = match sabotage {
            Some(sabotage) => sabotage.decide(seen, memory),
            None => pgherd::ha::decide(seen, memory),
        };
        let mut moving = fleet.moving();
        if sabotage.is_none()
            && let Some(finding) = pgherd::ha::check(seen, &decision).first()
        {
            moving.violate(format!("{}: {}", fleet.names[me], finding.0));
        }
        let steps = deeds(&decision);
        let line = if decision.again && steps.is_empty() { String::new() } else { decision.reason.to_string() };
        let mut last = last.lock().unwrap();
        if !steps.is_empty() || (!line.is_empty() && last.1 != line) {
            moving.say(fleet.began, &format!("{}: [{}] {line}{steps}", fleet.names[me], decision.rule));
            *last = (decision.rule, line);
        }
        if let Some(interrupt) = &mut moving.interrupts[me]
            && cut(&mut decision, &mut interrupt.deeds)
        {
            let what = if interrupt.takes_server { "the machine" } else { "the agent" };
            let done = decision.steps.len();
            moving.say(fleet.began, &format!("{}: {what} dies after {done} of these steps", fleet.names[me]));
            is_cut.store(true, Ordering::Relaxed);
        }
        decision
    })
}

/// Counts the deeds of a decision down; `true`: it is cut off before the one that is too many.
fn cut(decision: &mut Decision, left: &mut usize) -> bool {
    for at in 0..decision.steps.len() {
        let is_deed = !matches!(
            decision.steps[at],
            Step::Publish(_)
                | Step::RenewLeader(_)
                | Step::WriteStatus(_)
                | Step::SyncSlots(_)
                | Step::TendSlots(_)
                | Step::CompareFollow(_)
                | Step::RetryStream
                | Step::AskPeers(_)
                | Step::Callback { .. }
        );
        if is_deed && *left == 0 {
            decision.steps.truncate(at);
            decision.again = true;
            return true;
        }
        *left -= usize::from(is_deed);
    }
    false
}

/// The steps that change something, in words.
fn deeds(decision: &Decision) -> String {
    let mut text = String::new();
    for step in &decision.steps {
        match step {
            Step::AcquireLeader | Step::TakeLeader | Step::QuitNow | Step::CancelTask | Step::RemoveDataDir => {
                text += &format!(" | {step:?}");
            }
            Step::ReleaseLeader(status) => text += &format!(" | release {:?}", status.as_ref().map(|s| s.optime)),
            Step::WriteSync { state, .. } => {
                text += &format!(" | /sync {:?} {} {:?}", state.leader, state.quorum, state.voters);
            }
            Step::DeleteSync(_) => text += " | no /sync",
            Step::SetSyncNames(names) => text += &format!(" | names {names:?}"),
            Step::Begin(task) => text += &format!(" | begin {}", task.action()),
            Step::Exit { message, .. } => text += &format!(" | exit {message}"),
            _ => {}
        }
    }
    text
}
