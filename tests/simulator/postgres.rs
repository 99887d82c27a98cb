//! A PostgreSQL that is only its rules: WAL positions, timelines, who may stream from whom. Operations take time on
//! tokio's paused clock. What is on its "disk" survives the agent that drives it.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use pgherd::cluster::{
    ControlData, DataDir, HistoryLine, InstanceState, Lsn, MemberName, Monitor, Recovery, Role, Started, State,
    StopMode, StopProgress, SystemId, Timeline, Upstream, WalReceiver, WalSender,
};
use pgherd::config::PostgresConfig;
use pgherd::ha::sync::StandbyNames;
use pgherd::postgres::{
    Callback, ClonePlan, Divergence, FollowChange, Look, PgError, Postgres, Rewound, StartPlan, StopPlan, WantedSlot,
};
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub(crate) const SYSTEM_ID: &str = "7710267184385916675";

/// One member's data directory and server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Server {
    pub(crate) has_data: bool,
    /// Timelines this data has been on: each with the position at which it began. The last is the current one.
    pub(crate) history: Vec<(u32, u64)>,
    pub(crate) lsn: u64,
    pub(crate) is_running: bool,
    pub(crate) in_recovery: bool,
    pub(crate) is_clean: bool,
    pub(crate) was_in_recovery: bool,
    pub(crate) is_stopping: bool,
    pub(crate) has_standby_signal: bool,
    pub(crate) upstream: Option<MemberName>,
    pub(crate) is_streaming: bool,
    pub(crate) crashed: bool,
    pub(crate) checkpointed: bool,
    pub(crate) operation: Option<State>,
    /// `synchronous_standby_names`.
    pub(crate) sync_names: String,
    /// Writes this server has accepted, by number; carried along when it is cloned or streams.
    pub(crate) rows: Vec<u64>,
}

impl Server {
    pub(crate) fn timeline(&self) -> u32 {
        self.history.last().map_or(0, |(timeline, _)| *timeline)
    }

    /// Acknowledges writes now.
    pub(crate) fn is_writable(&self) -> bool {
        self.is_running && !self.in_recovery && !self.is_stopping
    }

    /// Whether a server with this data could stream from one with that history and position.
    pub(crate) fn is_prefix_of(&self, other: &Self) -> bool {
        let Some(at) = other.history.iter().position(|(timeline, _)| *timeline == self.timeline()) else {
            return false;
        };
        let same_road = self.history.iter().zip(&other.history).all(|(mine, theirs)| mine == theirs);
        match other.history.get(at + 1) {
            Some((_, fork)) => same_road && self.lsn <= *fork,
            None => same_road && self.lsn <= other.lsn,
        }
    }
}

/// All servers of a world; index is the member.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    pub(crate) names: Vec<MemberName>,
    servers: Mutex<Vec<Server>>,
    /// `cut[a][b]`: a cannot reach b.
    cut: Mutex<Vec<Vec<bool>>>,
    pub(crate) notify: Vec<Arc<Notify>>,
}

impl Fleet {
    pub(crate) fn new(names: &[&str]) -> Arc<Self> {
        let n = names.len();
        Arc::new(Self {
            names: names.iter().map(|name| MemberName::from(*name)).collect(),
            servers: Mutex::new(vec![Server::default(); n]),
            cut: Mutex::new(vec![vec![false; n]; n]),
            notify: (0..n).map(|_| Arc::new(Notify::new())).collect(),
        })
    }

    pub(crate) fn servers(&self) -> MutexGuard<'_, Vec<Server>> {
        self.servers.lock().unwrap()
    }

    pub(crate) fn index(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| *known == *name)
    }

    pub(crate) fn isolate(&self, who: usize, cut: bool) {
        let mut table = self.cut.lock().unwrap();
        for other in 0..table.len() {
            table[who][other] = cut && who != other;
            table[other][who] = cut && who != other;
        }
    }

    pub(crate) fn can_reach(&self, from: usize, to: usize) -> bool {
        !self.cut.lock().unwrap()[from][to]
    }

    /// Kills a server the hard way.
    pub(crate) fn kill(&self, who: usize) {
        {
            let mut servers = self.servers();
            let server = &mut servers[who];
            server.was_in_recovery = server.in_recovery;
            server.crashed = server.is_running;
            server.is_running = false;
            server.is_streaming = false;
            server.is_clean = false;
            server.is_stopping = false;
        }
        self.notify[who].notify_one();
    }

    /// A client writes one row to a server, if it accepts it.
    pub(crate) fn write(&self, who: usize, row: u64) -> bool {
        let mut servers = self.servers();
        let server = &mut servers[who];
        if !server.is_writable() {
            return false;
        }
        server.lsn += 10;
        server.rows.push(row);
        true
    }

    /// Whether this server would tell its client that the row is committed: enough of the standbys it waits for
    /// stream from it and have the row.
    pub(crate) fn is_acknowledged(&self, who: usize, row: u64) -> bool {
        let servers = self.servers();
        let server = &servers[who];
        if !server.is_running || server.in_recovery {
            return false;
        }
        let wanted = StandbyNames::parse(&server.sync_names);
        let has = |i: &usize| {
            let standby = &servers[*i];
            let named = wanted.names.contains(&self.names[*i].to_lowercase());
            named
                && standby.is_streaming
                && standby.upstream.as_ref() == Some(&self.names[who])
                && standby.rows.binary_search(&row).is_ok()
        };
        server.rows.binary_search(&row).is_ok() && (0..servers.len()).filter(has).count() >= wanted.number
    }

    /// One moment of streaming everywhere; a standby for which `lags` holds receives nothing in it.
    pub(crate) fn replicate(&self, mut lags: impl FnMut(usize) -> bool) {
        let mut servers = self.servers();
        for i in 0..servers.len() {
            if lags(i) {
                continue;
            }
            let follows = servers[i].is_running && servers[i].in_recovery;
            let upstream = servers[i].upstream.as_ref().and_then(|name| self.index(name)).filter(|up| *up != i);
            let mut streams = false;
            if let Some(up) = upstream.filter(|up| follows && self.can_reach(i, *up)) {
                let Ok([me, source]) = servers.get_disjoint_mut([i, up]) else { continue };
                if source.is_running && me.is_prefix_of(source) {
                    streams = true;
                    me.lsn = source.lsn;
                    me.history.clone_from(&source.history);
                    me.rows.extend_from_slice(&source.rows[me.rows.len()..]);
                }
            }
            servers[i].is_streaming = streams;
        }
    }
}

/// The port, as one agent holds it.
pub(crate) struct SimPostgres {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) me: usize,
}

impl SimPostgres {
    fn edit<T>(&self, change: impl FnOnce(&mut Server) -> T) -> T {
        change(&mut self.fleet.servers()[self.me])
    }

    /// Everything but the rows, which are many.
    fn get(&self) -> Server {
        self.edit(|server| {
            let rows = std::mem::take(&mut server.rows);
            let copy = server.clone();
            server.rows = rows;
            copy
        })
    }

    /// Who streams from this server, with the state PostgreSQL would show for it.
    fn senders(&self, server: &Server) -> Vec<WalSender> {
        let wanted = StandbyNames::parse(&server.sync_names);
        let servers = self.fleet.servers();
        let follows =
            |i: &usize| servers[*i].is_streaming && servers[*i].upstream.as_ref() == Some(&self.fleet.names[self.me]);
        let mut synchronous = 0;
        let mut senders = Vec::new();
        for i in (0..servers.len()).filter(follows) {
            let name = &self.fleet.names[i];
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
            let lsn = Some(Lsn(servers[i].lsn));
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

    fn source(&self, upstream: &Upstream) -> Option<Server> {
        let index = self.fleet.index(upstream.member.as_ref()?)?;
        let server = self.fleet.servers()[index].clone();
        (server.is_running && self.fleet.can_reach(self.me, index)).then_some(server)
    }
}

async fn take(time: Duration, cancel: &CancellationToken) -> Result<(), PgError> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(PgError::Cancelled),
        () = sleep(time) => Ok(()),
    }
}

fn refused(why: &str) -> PgError {
    PgError::Refused(why.to_owned())
}

#[async_trait]
impl Postgres for SimPostgres {
    async fn look(&self, _ask: &Look) -> InstanceState {
        let server = self.get();
        let state = server.operation.unwrap_or(match (server.is_running, server.crashed) {
            (true, _) => State::Running,
            (false, true) => State::Crashed,
            (false, false) => State::Stopped,
        });
        let timeline = (server.timeline() > 0).then(|| Timeline(server.timeline()));
        let cluster_state = match (server.is_clean, server.was_in_recovery) {
            (true, false) => "shut down",
            (true, true) => "shut down in recovery",
            (false, false) => "in production",
            (false, true) => "in archive recovery",
        };
        let monitor = server.is_running.then(|| Monitor {
            in_recovery: server.in_recovery,
            timeline,
            control_timeline: if server.checkpointed { timeline } else { Some(Timeline(1)) },
            flush_lsn: Lsn(server.lsn),
            replay_lsn: Lsn(server.lsn),
            receive_lsn: Lsn(server.lsn),
            senders: self.senders(&server),
            synchronous_standby_names: server.sync_names.clone(),
            synchronous_commit: "on".into(),
            receiver: server.is_streaming.then(|| WalReceiver {
                status: Some("streaming".into()),
                timeline,
                ..WalReceiver::default()
            }),
            ..Monitor::default()
        });
        InstanceState {
            data_dir: if server.has_data { DataDir::Present } else { DataDir::Empty },
            state: Some(state),
            is_postmaster_alive: server.is_running,
            accepts_connections: server.is_running,
            postmaster_start_time: None,
            monitor,
            control: (!server.is_running && server.has_data).then(|| ControlData {
                cluster_state: cluster_state.into(),
                system_id: SystemId::parse(SYSTEM_ID),
                checkpoint: Lsn(server.lsn),
                checkpoint_timeline: timeline,
                rewindable: true,
                ..ControlData::default()
            }),
            system_id: SystemId::parse(SYSTEM_ID).filter(|_| server.has_data),
            is_recovery_configured: server.has_standby_signal,
            server_version: Some(150_018),
            can_rewind: true,
            ..InstanceState::default()
        }
    }

    fn events(&self) -> Arc<Notify> {
        Arc::clone(&self.fleet.notify[self.me])
    }

    async fn start(&self, plan: &StartPlan, cancel: &CancellationToken) -> Result<Started, PgError> {
        self.edit(|server| server.operation = Some(State::Starting));
        let slept = take(Duration::from_millis(200), cancel).await;
        self.edit(|server| {
            server.operation = None;
            slept?;
            if !server.has_data {
                return Err(refused("no data"));
            }
            match &plan.recovery {
                Recovery::None => server.has_standby_signal = false,
                Recovery::Keep => {}
                Recovery::Standby(upstream) => {
                    server.has_standby_signal = true;
                    server.upstream = upstream.as_ref().and_then(|upstream| upstream.member.clone());
                }
            }
            server.in_recovery = server.has_standby_signal;
            server.is_running = true;
            server.is_clean = false;
            server.crashed = false;
            server.is_stopping = false;
            let _ = plan.role;
            Ok(Started::Running)
        })
    }

    async fn stop(
        &self,
        plan: &StopPlan,
        progress: Option<mpsc::Sender<StopProgress>>,
        cancel: &CancellationToken,
    ) -> Result<(), PgError> {
        if !self.get().is_running {
            return Ok(());
        }
        if plan.mode == StopMode::Fast {
            take(Duration::from_millis(if plan.checkpoint { 300 } else { 100 }), cancel).await?;
            let lsn = self.edit(|server| {
                server.is_stopping = true;
                server.lsn
            });
            take(Duration::from_millis(50), cancel).await?;
            if let Some(progress) = progress {
                let _ = progress.send(StopProgress::ShutDown { checkpoint: Lsn(lsn), previous: Lsn(lsn) }).await;
            }
            take(Duration::from_millis(100), cancel).await?;
        }
        self.edit(|server| {
            server.was_in_recovery = server.in_recovery;
            server.is_clean = plan.mode == StopMode::Fast && server.is_running;
            server.is_running = false;
            server.is_streaming = false;
            server.is_stopping = false;
            server.crashed = false;
        });
        Ok(())
    }

    async fn restart(&self, plan: &StartPlan, cancel: &CancellationToken) -> Result<Started, PgError> {
        self.stop(&StopPlan { mode: StopMode::Fast, checkpoint: true, timeout: None }, None, cancel).await?;
        self.start(plan, cancel).await
    }

    fn quit_now(&self) {
        self.fleet.kill(self.me);
    }

    async fn pre_promote(&self, _cancel: &CancellationToken) -> bool {
        true
    }

    async fn promote(&self, _limit: Duration, cancel: &CancellationToken) -> Result<bool, PgError> {
        take(Duration::from_millis(150), cancel).await?;
        self.edit(|server| {
            if !server.is_running {
                return Err(refused("not running"));
            }
            let next = server.timeline() + 1;
            let lsn = server.lsn;
            server.history.push((next, lsn));
            server.in_recovery = false;
            server.has_standby_signal = false;
            server.upstream = None;
            server.checkpointed = false;
            Ok(true)
        })
    }

    async fn follow_change(&self, upstream: Option<&Upstream>) -> FollowChange {
        let wanted = upstream.and_then(|upstream| upstream.member.clone());
        if self.get().upstream == wanted { FollowChange::None } else { FollowChange::Reload }
    }

    async fn follow(&self, upstream: Option<&Upstream>) -> Result<(), PgError> {
        let wanted = upstream.and_then(|upstream| upstream.member.clone());
        self.edit(|server| server.upstream = wanted);
        Ok(())
    }

    async fn resume_replay(&self) -> Result<(), PgError> {
        Ok(())
    }

    async fn configure(&self, _config: Arc<PostgresConfig>, _force: bool) -> Result<(), PgError> {
        Ok(())
    }

    async fn set_synchronous_standby_names(&self, value: Option<&str>) -> Result<(), PgError> {
        let value = value.unwrap_or_default().to_owned();
        self.edit(|server| server.sync_names = value);
        Ok(())
    }

    async fn bootstrap(&self, cancel: &CancellationToken) -> Result<(), PgError> {
        self.edit(|server| server.operation = Some(State::Initdb));
        let slept = take(Duration::from_secs(1), cancel).await;
        self.edit(|server| {
            server.operation = None;
            slept?;
            *server = Server {
                has_data: true,
                history: vec![(1, 0)],
                lsn: 1000,
                is_running: true,
                checkpointed: true,
                ..Server::default()
            };
            Ok(())
        })
    }

    async fn post_bootstrap(&self, _cancel: &CancellationToken) -> Result<(), PgError> {
        Ok(())
    }

    async fn clone_from(&self, plan: &ClonePlan, cancel: &CancellationToken) -> Result<(), PgError> {
        self.edit(|server| {
            *server = Server { operation: Some(State::CreatingReplica), ..Server::default() };
        });
        let slept = take(Duration::from_secs(2), cancel).await;
        let source = plan.source.as_ref().and_then(|source| self.source(source));
        self.edit(|server| {
            server.operation = None;
            slept?;
            let source = source.ok_or_else(|| refused("the source is not reachable"))?;
            *server = Server {
                has_data: true,
                history: source.history,
                lsn: source.lsn,
                rows: source.rows,
                has_standby_signal: true,
                was_in_recovery: true,
                is_clean: true,
                ..Server::default()
            };
            Ok(())
        })
    }

    async fn check_divergence(&self, leader: &Upstream) -> Divergence {
        sleep(Duration::from_millis(20)).await;
        match self.source(leader) {
            None => Divergence::Unknown("the leader is not reachable".into()),
            Some(source) if source.in_recovery => Divergence::Unknown("the leader is in recovery".into()),
            Some(source) if self.get().is_prefix_of(&source) => Divergence::Consistent,
            Some(_) => Divergence::Diverged,
        }
    }

    async fn rewind(&self, leader: &Upstream, cancel: &CancellationToken) -> Rewound {
        if take(Duration::from_secs(1), cancel).await.is_err() {
            return Rewound::SourceLost("cancelled".into());
        }
        let Some(source) = self.source(leader) else { return Rewound::SourceLost("not reachable".into()) };
        self.edit(|server| {
            server.history = source.history;
            server.lsn = source.lsn;
            server.rows = source.rows;
            server.is_clean = true;
            server.was_in_recovery = true;
        });
        Rewound::Done
    }

    async fn crash_recovery(&self, cancel: &CancellationToken) -> Result<(), PgError> {
        take(Duration::from_millis(500), cancel).await?;
        self.edit(|server| {
            server.is_clean = true;
            server.was_in_recovery = false;
        });
        Ok(())
    }

    async fn checkpoint(&self) -> Result<(), PgError> {
        sleep(Duration::from_millis(300)).await;
        self.edit(|server| server.checkpointed = true);
        Ok(())
    }

    async fn remove_data_dir(&self) -> Result<(), PgError> {
        self.edit(|server| *server = Server::default());
        Ok(())
    }

    async fn move_data_dir_away(&self) -> Result<(), PgError> {
        self.remove_data_dir().await
    }

    async fn sync_slots(&self, _wanted: &[WantedSlot], _may_drop: bool) -> Result<(), PgError> {
        Ok(())
    }

    async fn timeline_history(&self, timeline: Timeline) -> Result<(Vec<HistoryLine>, Option<String>), PgError> {
        let history = self.get().history;
        let ends = history.windows(2).filter(|pair| pair[0].0 < timeline.0).map(|pair| HistoryLine {
            timeline: Timeline(pair[0].0),
            switch: Lsn(pair[1].1),
            reason: "no recovery target specified".into(),
            timestamp: None,
            new_leader: None,
        });
        Ok((ends.collect(), Some("2026-01-01T00:00:00+00:00".into())))
    }

    fn callback(&self, _event: Callback, _role: Role) {}

    async fn replication(&self) -> Vec<serde_json::Value> {
        Vec::new()
    }
}

/// What another member would answer over REST about this server.
pub(crate) fn peer_answer(server: &Server) -> pgherd::cluster::PeerAnswer {
    use pgherd::cluster::{PeerAnswer, Tags};
    if !server.is_running {
        return PeerAnswer::Unreachable("no WAL position in the answer".into());
    }
    PeerAnswer::Answered {
        in_recovery: server.in_recovery,
        position: if server.in_recovery { Lsn(server.lsn) } else { Lsn::ZERO },
        timeline: Some(Timeline(server.timeline())),
        tags: Tags::new(),
        watchdog_failed: false,
    }
}
