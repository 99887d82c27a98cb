//! The PostgreSQL port as one life of an agent holds it. What an agent began ends with it; what a server began does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use pgherd::cluster::{
    ControlData, DataDir, HistoryLine, InstanceState, Lsn, Monitor, PeerAnswer, Recovery, Role, SlotSync, Started,
    State, StopMode, StopProgress, SystemId, Timeline, Upstream, WalReceiver, WalSender,
};
use pgherd::config::PostgresConfig;
use pgherd::ha::sync::StandbyNames;
use pgherd::postgres::rewind::{Comparison, LocalPosition, after_shutdown, compare, is_same_branch};
use pgherd::postgres::{
    Callback, ClonePlan, Divergence, FollowChange, Look, PgError, Postgres, Rewound, StartPlan, StopPlan,
};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::fleet::{Fleet, Moving};
use crate::server::{Phase, Server, Waiting};

pub(crate) const SYSTEM_ID: &str = "7710267184385916675";

/// How often a job looks how far the server is.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Within this time an agent has taken over its changed configuration, however bad the network is.
const HEARD: Duration = Duration::from_secs(90);

/// One life of an agent's process: it may be suspended, and it ends.
#[derive(Default)]
pub(crate) struct Life {
    /// What its REST API works from.
    pub(crate) board: std::sync::OnceLock<Arc<pgherd::agent::Board>>,
    is_over: AtomicBool,
    is_frozen: AtomicBool,
    /// How often the server was told to quit, whether there was one or not: a start under way heeds it.
    pub(crate) quits: std::sync::atomic::AtomicU64,
    sleepers: std::sync::Mutex<Vec<Waker>>,
}

impl Life {
    pub(crate) fn is_frozen(&self) -> bool {
        self.is_frozen.load(Ordering::Relaxed)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    pub(crate) fn freeze(&self, frozen: bool) {
        self.is_frozen.store(frozen, Ordering::Relaxed);
        if !frozen {
            self.sleepers.lock().unwrap().drain(..).for_each(Waker::wake);
        }
    }

    /// Runs a future as a part of this process: it stands still while the process does, and never ends after it.
    pub(crate) async fn run<F: Future>(&self, future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|context| {
            if self.is_frozen() || self.is_over() {
                self.sleepers.lock().unwrap().push(context.waker().clone());
                return Poll::Pending;
            }
            future.as_mut().poll(context)
        })
        .await
    }
}

/// The port.
pub(crate) struct SimPostgres {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) me: usize,
    pub(crate) life: Arc<Life>,
}

fn refused(why: &str) -> PgError {
    PgError::Refused(why.to_owned())
}

impl SimPostgres {
    fn edit<T>(&self, change: impl FnOnce(&mut Server) -> T) -> T {
        change(&mut self.fleet.moving().servers[self.me])
    }

    fn name(&self) -> &str {
        &self.fleet.names[self.me]
    }

    fn lot(&self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.fleet.moving().chance.between(from, to))
    }

    /// Something that takes the agent so long.
    async fn take(&self, time: Duration, cancel: &CancellationToken) -> Result<(), PgError> {
        let waited = async {
            tokio::select! {
                biased;
                () = cancel.cancelled() => Err(PgError::Cancelled),
                () = sleep(time) => Ok(()),
            }
        };
        self.life.run(waited).await
    }

    /// Waits for the disk, which answers at once or not at all.
    async fn disk(&self, cancel: &CancellationToken) -> Result<(), PgError> {
        while self.fleet.moving().hanging[self.me] {
            self.take(LOOK_EVERY, cancel).await?;
        }
        Ok(())
    }

    async fn takes(&self, from: u64, to: u64) {
        let time = self.lot(from, to);
        self.life.run(sleep(time)).await;
    }

    /// An upstream's data, if it can be reached and answers.
    fn source<T>(&self, upstream: &Upstream, read: impl FnOnce(&Server) -> T) -> Option<T> {
        let index = match &upstream.member {
            Some(member) => self.fleet.index(member)?,
            None => self.fleet.remote(),
        };
        let moving = self.fleet.moving();
        let server = moving.servers.get(index)?;
        (server.is_up() && !server.is_frozen && moving.can_connect(self.me, index)).then(|| read(server))
    }

    /// Who streams from this server, with the state PostgreSQL would show for it.
    fn senders(&self, moving: &Moving) -> Vec<WalSender> {
        let wanted = &moving.servers[self.me].waiting.now;
        let mut synchronous = 0;
        let mut senders = Vec::new();
        for (name, server) in self.fleet.names.iter().zip(&moving.servers) {
            let Some(receiver) = server.receiver.filter(|receiver| receiver.from == self.me) else { continue };
            let named = wanted.names.contains(&name.to_lowercase());
            let sync_state = match (named, wanted.is_quorum) {
                (false, _) => "async",
                (true, true) => "quorum",
                (true, false) if synchronous < wanted.number => {
                    synchronous += 1;
                    "sync"
                }
                (true, false) => "potential",
            };
            let lsn = Some(Lsn(1000 + 10 * receiver.told as u64));
            senders.push(WalSender {
                application_name: name.to_string(),
                sync_state: sync_state.into(),
                write_lsn: lsn,
                flush_lsn: lsn,
                replay_lsn: lsn,
            });
        }
        senders
    }

    fn monitor(&self, moving: &Moving) -> Option<Monitor> {
        let server = &moving.servers[self.me];
        if !server.is_up() || server.is_frozen {
            return None;
        }
        let timeline = Some(Timeline(server.timeline()));
        let standby = Lsn(if server.in_recovery { server.lsn() } else { 0 });
        Some(Monitor {
            in_recovery: server.in_recovery,
            timeline,
            control_timeline: if server.checkpointed { timeline } else { Some(Timeline(0)) },
            flush_lsn: Lsn(if server.in_recovery { 0 } else { server.lsn() }),
            replay_lsn: standby,
            receive_lsn: standby,
            senders: self.senders(moving),
            synchronous_standby_names: server.waiting.text.clone(),
            synchronous_commit: "on".into(),
            has_next_history: server.next_history,
            receiver: server.is_streaming().then(|| WalReceiver {
                status: Some("streaming".into()),
                timeline,
                ..WalReceiver::default()
            }),
            ..Monitor::default()
        })
    }

    fn instance(&self) -> InstanceState {
        let moving = self.fleet.moving();
        let server = &moving.servers[self.me];
        let by_phase = match server.phase {
            Phase::Up => State::Running,
            Phase::Starting { .. } => State::Starting,
            Phase::Stopping { .. } => State::Stopping,
            Phase::Down if server.start_failed => State::StartFailed,
            Phase::Down if server.crashed => State::Crashed,
            Phase::Down => State::Stopped,
        };
        let timeline = (server.timeline() > 0).then(|| Timeline(server.timeline()));
        let cluster_state = match (server.is_clean, server.was_in_recovery) {
            (true, false) => "shut down",
            (true, true) => "shut down in recovery",
            (false, false) => "in production",
            (false, true) => "in archive recovery",
        };
        let is_down = !server.is_alive();
        InstanceState {
            data_dir: if server.has_data { DataDir::Present } else { DataDir::Empty },
            state: Some(server.operation.unwrap_or(by_phase)),
            is_postmaster_alive: !is_down,
            accepts_connections: server.is_up() && !server.is_frozen,
            postmaster_start_time: None,
            monitor: self.monitor(&moving),
            control: (is_down && server.has_data).then(|| ControlData {
                cluster_state: cluster_state.into(),
                system_id: SystemId::parse(SYSTEM_ID),
                checkpoint: Lsn(server.last_record()),
                checkpoint_timeline: timeline,
                min_recovery: Lsn(if server.was_in_recovery { server.lsn() } else { 0 }),
                min_recovery_timeline: timeline,
                rewindable: true,
            }),
            system_id: SystemId::parse(SYSTEM_ID).filter(|_| server.has_data),
            is_recovery_configured: server.has_standby_signal,
            server_version: Some(150_018),
            can_rewind: self.fleet.locals[self.me].can_rewind,
            ..InstanceState::default()
        }
    }

    /// Nobody may throw data away that an operator has not given up.
    fn give_up_data(&self, what: &str) {
        let local = &self.fleet.locals[self.me];
        let mut moving = self.fleet.moving();
        let allowed = local.remove_on_divergence || local.remove_on_rewind_failure || moving.reinit_asked[self.me];
        if moving.servers[self.me].has_data && !allowed {
            let text = format!("{}: data was thrown away unasked ({what})", self.name());
            moving.violate(text);
        }
        moving.reinit_asked[self.me] = false;
    }

    /// A promotion is about to be ordered.
    fn check_promotion(&self, moving: &mut Moving) {
        let name = self.name();
        let is_barred_for_good = self.fleet.locals[self.me].tags.nofailover() && moving.tags[self.me].nofailover();
        // Whoever is tagged now may hear of it a little later.
        if moving.barred_since[self.me].is_some_and(|since| since.elapsed() >= HEARD) || is_barred_for_good {
            moving.violate(format!("{name} promotes although it is tagged nofailover"));
        }
        let by_hand = moving.by_hand[self.me].is_some_and(|at| at.elapsed() < Duration::from_secs(120));
        if moving.is_paused() && !by_hand {
            moving.violate(format!("{name} promotes in maintenance mode"));
        }
    }

    /// Waits for what the server makes of an order.
    async fn until<T>(
        &self,
        cancel: &CancellationToken,
        limit: Option<Duration>,
        mut look: impl FnMut(&mut Server) -> Option<T>,
    ) -> Result<Option<T>, PgError> {
        let end = limit.map(|limit| Instant::now() + limit);
        loop {
            self.take(LOOK_EVERY, cancel).await?;
            if let Some(seen) = self.edit(&mut look) {
                return Ok(Some(seen));
            }
            if end.is_some_and(|end| Instant::now() >= end) {
                return Ok(None);
            }
        }
    }
}

#[async_trait]
impl Postgres for SimPostgres {
    async fn look(&self, _ask: &Look) -> InstanceState {
        let is_frozen = self.edit(|server| server.is_frozen);
        if is_frozen {
            self.life.run(sleep(Duration::from_secs(2))).await;
        } else {
            self.takes(1, 8).await;
        }
        self.instance()
    }

    fn events(&self) -> Arc<Notify> {
        Arc::clone(&self.fleet.notify[self.me])
    }

    async fn start(&self, plan: &StartPlan, cancel: &CancellationToken) -> Result<Started, PgError> {
        let quits = self.life.quits.load(Ordering::Relaxed);
        self.takes(10, 80).await;
        self.disk(cancel).await?;
        if cancel.is_cancelled() || self.life.quits.load(Ordering::Relaxed) != quits {
            return Err(PgError::Cancelled);
        }
        {
            let mut moving = self.fleet.moving();
            let unclean = u64::from(!moving.servers[self.me].is_clean) * 400;
            let time = Duration::from_millis(moving.chance.between(50, 600) + unclean) + moving.slow_start[self.me];
            let fails = moving.failing_starts[self.me] > 0;
            moving.failing_starts[self.me] = moving.failing_starts[self.me].saturating_sub(1);
            if moving.is_paused() && plan.recovery == Recovery::None {
                moving.violate(format!("{}: a primary is started in maintenance mode", self.name()));
            }
            let server = &mut moving.servers[self.me];
            if server.is_alive() {
                return Ok(Started::StillStarting);
            }
            if !server.has_data {
                return Err(refused("there is no data"));
            }
            match &plan.recovery {
                Recovery::None => server.has_standby_signal = false,
                Recovery::Keep => {}
                Recovery::Standby(upstream) => {
                    server.has_standby_signal = true;
                    server.point_at(upstream.as_ref());
                }
            }
            server.in_recovery = server.has_standby_signal;
            server.phase = Phase::Starting { ready: Instant::now() + time, fails };
            server.crashed = false;
            server.start_failed = false;
            server.waiting.before = None;
        }
        let limit = plan.timeout.filter(|limit| !limit.is_zero()).unwrap_or(Duration::from_secs(60));
        let started = self.until(cancel, Some(limit), |server| match server.phase {
            Phase::Up => Some(Ok(Started::Running)),
            Phase::Starting { .. } => None,
            _ => Some(Err(refused("the server ended; see its log"))),
        });
        started.await?.unwrap_or(Ok(Started::StillStarting))
    }

    async fn stop(
        &self,
        plan: &StopPlan,
        progress: Option<mpsc::Sender<StopProgress>>,
        cancel: &CancellationToken,
    ) -> Result<(), PgError> {
        if !self.edit(|server| server.is_alive()) {
            return Ok(());
        }
        if plan.checkpoint && plan.mode == StopMode::Fast {
            self.take(self.lot(20, 400), cancel).await?;
        }
        {
            let (mut moving, now) = (self.fleet.moving(), Instant::now());
            let shut = now + Duration::from_millis(moving.chance.between(20, 500)) + moving.slow_stop[self.me];
            let exit = shut + Duration::from_millis(moving.chance.between(20, 300));
            if moving.is_paused() && moving.servers[self.me].is_writable() {
                moving.violate(format!("{}: a primary is stopped in maintenance mode", self.name()));
            }
            let server = &mut moving.servers[self.me];
            let is_stopping = matches!(server.phase, Phase::Stopping { .. });
            match plan.mode {
                StopMode::Immediate if server.is_alive() => server.end(false),
                StopMode::Fast if server.is_alive() && !is_stopping => {
                    server.phase = Phase::Stopping { shut, exit, is_shut: false };
                }
                _ => {}
            }
        }
        let mut told = false;
        let stopped = self.until(cancel, plan.timeout, |server| {
            let is_shut = match server.phase {
                Phase::Stopping { is_shut, .. } => is_shut,
                Phase::Down => server.is_clean,
                _ => false,
            };
            if is_shut && !server.in_recovery && !told {
                told = true;
                let lsn = Lsn(server.last_record());
                if let Some(progress) = &progress {
                    let _ = progress.try_send(StopProgress::ShutDown { checkpoint: lsn, previous: lsn });
                }
            }
            (!server.is_alive()).then(|| server.crashed = false)
        });
        if stopped.await?.is_none() {
            self.edit(|server| server.end(false));
        }
        Ok(())
    }

    async fn restart(&self, plan: &StartPlan, cancel: &CancellationToken) -> Result<Started, PgError> {
        self.edit(|server| server.operation = Some(State::Restarting));
        let stop = StopPlan { mode: StopMode::Fast, checkpoint: true, timeout: None };
        let stopped = self.stop(&stop, None, cancel).await;
        self.edit(|server| server.operation = None);
        stopped?;
        self.start(plan, cancel).await
    }

    fn quit_now(&self) {
        self.life.quits.fetch_add(1, Ordering::Relaxed);
        self.fleet.kill(self.me);
    }

    async fn pre_promote(&self, cancel: &CancellationToken) -> bool {
        let fails = {
            let left = &mut self.fleet.moving().failing_pre_promotes[self.me];
            let fails = *left > 0;
            *left = left.saturating_sub(1);
            fails
        };
        !fails || self.take(self.lot(10, 800), cancel).await.is_err()
    }

    async fn leave_out_timelines(&self, taken: &[Timeline]) -> Result<(), PgError> {
        self.edit(|server| server.left_out = taken.iter().map(|timeline| timeline.0).max().unwrap_or(0));
        Ok(())
    }

    async fn promote(&self, limit: Duration, cancel: &CancellationToken) -> Result<bool, PgError> {
        if cancel.is_cancelled() {
            return Err(PgError::Cancelled);
        }
        self.takes(5, 60).await;
        {
            let mut moving = self.fleet.moving();
            let slow = if moving.chance.percent(5) { 4_000 } else { 0 };
            let at = Instant::now() + Duration::from_millis(moving.chance.between(20, 300) + slow);
            self.check_promotion(&mut moving);
            let server = &mut moving.servers[self.me];
            if !server.is_up() {
                return Err(refused("there is no running server to promote"));
            }
            server.promotes_at.get_or_insert(at);
        }
        let never = CancellationToken::new();
        let promoted = self.until(&never, Some(limit), |server| match server.phase {
            Phase::Up if !server.in_recovery => Some(Ok(true)),
            Phase::Up => None,
            _ => Some(Err(refused("the server ended during its promotion"))),
        });
        let promoted = promoted.await?.unwrap_or(Ok(false));
        self.fleet.notify[self.me].notify_one();
        promoted
    }

    async fn follow_change(&self, upstream: Option<&Upstream>) -> FollowChange {
        self.takes(1, 5).await;
        self.edit(|server| match server.has_standby_signal {
            false => FollowChange::Restart,
            true if server.points_at(upstream) => FollowChange::None,
            true => FollowChange::Reload,
        })
    }

    async fn follow(&self, upstream: Option<&Upstream>) -> Result<(), PgError> {
        self.edit(|server| server.point_at(upstream));
        Ok(())
    }

    async fn resume_replay(&self) -> Result<(), PgError> {
        Ok(())
    }

    async fn configure(&self, _config: Arc<PostgresConfig>, _force: bool) -> Result<(), PgError> {
        Ok(())
    }

    async fn set_synchronous_standby_names(&self, value: Option<&str>) -> Result<(), PgError> {
        let settles = Instant::now() + self.lot(0, 1_800);
        let text = value.unwrap_or_default().to_owned();
        self.edit(|server| {
            if server.waiting.text != text {
                let now = StandbyNames::parse(&text);
                let before = std::mem::replace(&mut server.waiting.now, now.clone());
                // Before anybody could write there is nothing to take a change over late.
                let before = server.is_writable().then_some((before, settles));
                server.waiting = Waiting { text, now, before };
            }
        });
        Ok(())
    }

    async fn bootstrap(&self, cancel: &CancellationToken) -> Result<(), PgError> {
        self.edit(|server| server.operation = Some(State::Initdb));
        let slept = self.take(self.lot(500, 1_500), cancel).await;
        let mut moving = self.fleet.moving();
        let number = moving.number();
        let server = &mut moving.servers[self.me];
        server.operation = None;
        slept?;
        *server = Server {
            has_data: true,
            history: vec![(1, 0)],
            wal: vec![number],
            phase: Phase::Up,
            checkpointed: true,
            led: Some(1),
            life: server.life + 1,
            ..Server::default()
        };
        Ok(())
    }

    async fn post_bootstrap(&self, _cancel: &CancellationToken) -> Result<(), PgError> {
        Ok(())
    }

    async fn clone_from(&self, plan: &ClonePlan, cancel: &CancellationToken) -> Result<(), PgError> {
        self.give_up_data("a clone");
        self.edit(|server| {
            server.end(false);
            (server.has_data, server.crashed, server.start_failed) = (false, false, false);
            server.wal.clear();
            server.history.clear();
            server.operation = Some(State::CreatingReplica);
        });
        let slept = self.take(self.lot(800, 3_000), cancel).await;
        let source = plan.source.as_ref().and_then(|source| self.source(source, Server::clone));
        self.edit(|server| {
            server.operation = None;
            slept?;
            server.copy(&source.ok_or_else(|| refused("the source is not reachable"))?);
            Ok(())
        })
    }

    async fn check_divergence(&self, leader: &Upstream) -> Divergence {
        self.takes(5, 40).await;
        let (local, end, is_known) = self.edit(|server| {
            let in_recovery = if server.is_alive() { server.in_recovery } else { server.was_in_recovery };
            let lsn = if in_recovery { server.lsn() } else { server.last_record() };
            let local = LocalPosition { in_recovery, timeline: Timeline(server.timeline()), lsn: Lsn(lsn) };
            let is_known = if server.is_alive() { server.is_up() } else { server.is_clean || server.was_in_recovery };
            (local, Lsn(server.lsn()), is_known && !server.is_frozen)
        });
        if !is_known {
            return Divergence::Unknown("the local position is not known".into());
        }
        let read = |source: &Server| (source.in_recovery, Timeline(source.timeline()), source.history_lines());
        let Some((in_recovery, timeline, history)) = self.source(leader, read) else {
            return Divergence::Unknown("the leader is not reachable".into());
        };
        if in_recovery {
            return Divergence::Unknown("the leader is in recovery".into());
        }
        let ours = self.edit(|server| server.history_lines());
        if local.timeline <= timeline && !is_same_branch(&ours, &history) {
            return Divergence::Diverged;
        }
        let comparison = match compare(&local, timeline, &history) {
            Comparison::ForkedAt(switch) => after_shutdown(switch, Some(end)),
            settled => settled,
        };
        if comparison == Comparison::Consistent { Divergence::Consistent } else { Divergence::Diverged }
    }

    async fn rewind(&self, leader: &Upstream, cancel: &CancellationToken) -> Rewound {
        if self.take(self.lot(300, 1_500), cancel).await.is_err() {
            return Rewound::SourceLost("cancelled".into());
        }
        let Some(source) = self.source(leader, Server::clone).filter(|source| !source.in_recovery) else {
            return Rewound::SourceLost("not reachable".into());
        };
        if self.fleet.locals[self.me].rewind_fails {
            return Rewound::Failed("could not find previous WAL record".into());
        }
        self.edit(|server| server.copy(&source));
        self.fleet.say(format!("{}: rewound", self.name()));
        Rewound::Done
    }

    async fn crash_recovery(&self, cancel: &CancellationToken) -> Result<(), PgError> {
        self.take(self.lot(100, 800), cancel).await?;
        self.disk(cancel).await?;
        let mut moving = self.fleet.moving();
        let number = moving.number();
        let server = &mut moving.servers[self.me];
        if server.is_alive() {
            return Err(refused("a server uses the data directory"));
        }
        server.wal.push(number);
        (server.is_clean, server.was_in_recovery, server.has_standby_signal) = (true, false, false);
        Ok(())
    }

    async fn checkpoint(&self) -> Result<(), PgError> {
        self.takes(50, 500).await;
        self.edit(|server| {
            server.checkpointed |= server.is_writable();
            if server.is_up() { Ok(()) } else { Err(refused("the server is not running")) }
        })
    }

    async fn remove_data_dir(&self) -> Result<(), PgError> {
        self.give_up_data("removed");
        self.edit(|server| *server = Server { life: server.life + 1, ..Server::default() });
        Ok(())
    }

    async fn move_data_dir_away(&self) -> Result<(), PgError> {
        if self.fleet.store.get("/service/sim/initialize").as_deref() == Some(SYSTEM_ID) {
            self.give_up_data("moved away");
        }
        self.edit(|server| *server = Server { life: server.life + 1, ..Server::default() });
        Ok(())
    }

    async fn sync_slots(&self, _sync: &SlotSync) -> Result<(), PgError> {
        Ok(())
    }

    async fn timeline_history(&self, timeline: Timeline) -> Result<(Vec<HistoryLine>, Option<String>), PgError> {
        let mut lines = self.edit(|server| server.history_lines());
        lines.retain(|line| line.timeline < timeline);
        Ok((lines, Some("2026-01-01T00:00:00+00:00".into())))
    }

    fn callback(&self, _event: Callback, _role: Role) {}

    async fn replication(&self) -> Vec<serde_json::Value> {
        Vec::new()
    }
}

/// What another member would answer over REST about this server.
pub(crate) fn peer_answer(fleet: &Fleet, who: usize) -> PeerAnswer {
    let moving = fleet.moving();
    let server = &moving.servers[who];
    if !server.is_up() || server.is_frozen {
        return PeerAnswer::Unreachable("no WAL position in the answer".into());
    }
    PeerAnswer::Answered {
        in_recovery: server.in_recovery,
        position: if server.in_recovery { Lsn(server.lsn()) } else { Lsn::ZERO },
        timeline: Some(Timeline(server.timeline())),
        tags: moving.tags[who].published(),
        watchdog_failed: false,
    }
}
