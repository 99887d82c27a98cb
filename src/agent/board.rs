//! What the loop shows to the REST API, and how the API speaks to the loop.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use crate::api::{FailsafePing, RunningAsLeader};
use crate::cluster::{ClusterView, InstanceState, Lsn, MemberName, Role, ScheduledRestart};
use crate::config::Dynamic;
use crate::ha::{Decision, Memory, Node, Observation, Reply, RequestKind};

use super::journal::Journal;
use super::lease::Lease;

/// A request with the way back for its reply.
pub(super) type Asked = (RequestKind, oneshot::Sender<Reply>);

/// The loop's shop window. Everything is a copy; no lock is held over an await.
pub struct Board {
    state: Mutex<State>,
    pub(super) lease: Arc<Lease>,
    /// Wakes the loop.
    pub(super) wake: Arc<Notify>,
    requests: mpsc::Sender<Asked>,
    journal: Mutex<Journal>,
}

/// What the last cycle left.
#[derive(Clone, Debug)]
pub struct State {
    /// Who we are.
    pub node: Node,
    /// The settings in force.
    pub settings: Arc<Dynamic>,
    /// The role of the local server.
    pub role: Role,
    /// The last look at the server.
    pub instance: InstanceState,
    /// The last snapshot.
    pub snapshot: Option<(Arc<ClusterView>, Instant)>,
    /// The failsafe topology as last read, kept while the DCS is away; empty before the first load.
    pub failsafe: Option<BTreeMap<MemberName, String>>,
    /// When a snapshot was last read, epoch seconds.
    pub dcs_last_seen: u64,
    /// When the next cycle is due at the latest.
    pub next_cycle: Instant,
    /// The restart to come.
    pub scheduled_restart: Option<ScheduledRestart>,
    /// Our member value as last published.
    pub published: Map<String, Value>,
    /// When the members last accepted us as the leader without the DCS; none since the DCS answered again.
    pub failsafe_since: Option<Instant>,
    /// The primary that last told us that it leads without the DCS, and when.
    pub failsafe_ping: Option<(FailsafePing, Instant)>,
    /// SIGHUP or `POST /reload` came.
    pub reload: bool,
    /// The watchdog is required and cannot be used.
    pub is_watchdog_unusable: bool,
    /// The last decision: rule and status line.
    pub last_decision: (u16, String),
    /// What an operator has to do before anything goes on.
    pub advice: Option<String>,
}

impl Board {
    /// A board and the loop's end of its request queue.
    pub(super) fn new(node: Node, settings: Dynamic, lease: Arc<Lease>) -> (Arc<Self>, mpsc::Receiver<Asked>) {
        let (requests, receiver) = mpsc::channel(16);
        let state = State {
            node,
            settings: Arc::new(settings),
            role: Role::Uninitialized,
            instance: InstanceState::default(),
            snapshot: None,
            failsafe: Some(BTreeMap::new()),
            dcs_last_seen: 0,
            next_cycle: Instant::now(),
            scheduled_restart: None,
            published: Map::new(),
            failsafe_since: None,
            failsafe_ping: None,
            reload: false,
            is_watchdog_unusable: false,
            last_decision: (0, String::new()),
            advice: None,
        };
        let board = Self {
            state: Mutex::new(state),
            lease,
            wake: Arc::new(Notify::new()),
            requests,
            journal: Mutex::default(),
        };
        (Arc::new(board), receiver)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of everything.
    pub fn state(&self) -> State {
        self.lock().clone()
    }

    /// Takes what is needed out of it.
    pub(super) fn read<T>(&self, take: impl FnOnce(&State) -> T) -> T {
        take(&self.lock())
    }

    /// Changes something.
    pub(super) fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
    }

    /// A load succeeded at this wall time.
    pub(super) fn loaded(&self, view: &Arc<ClusterView>, since_epoch: Duration) {
        let mut state = self.lock();
        state.failsafe.clone_from(&view.failsafe);
        state.failsafe_since = None;
        state.snapshot = Some((Arc::clone(view), Instant::now()));
        state.dcs_last_seen = since_epoch.as_secs();
    }

    /// A load failed: whatever was cached must not be trusted any more.
    pub(super) fn load_failed(&self) {
        self.lock().snapshot = None;
    }

    /// The last snapshot, while it is younger than the ttl and no load has failed since.
    pub fn snapshot(&self) -> Option<Arc<ClusterView>> {
        let state = self.lock();
        let (view, at) = state.snapshot.as_ref()?;
        (at.elapsed() < state.settings.ttl).then(|| Arc::clone(view))
    }

    /// Whether this agent surely leads now.
    pub fn leads(&self) -> bool {
        self.lease.leads()
    }

    /// A primary without the DCS asks whether it may lead on: for one ttl this member will not race then. Our WAL
    /// position goes with the promise.
    pub fn promise(&self, primary: FailsafePing) -> Result<Option<Lsn>, RunningAsLeader> {
        // First the promise, then the look: the loop takes the key first and looks at promises then, so that one of
        // the two sees the other.
        self.update(|state| state.failsafe_ping = Some((primary, Instant::now())));
        if self.leads() {
            self.update(|state| state.failsafe_ping = None);
            return Err(RunningAsLeader);
        }
        // What it says of itself and its slots is news; the DCS may not be there to tell.
        self.wake_loop();
        Ok(self.read(|state| state.instance.monitor.as_ref().map(|monitor| monitor.position())))
    }

    /// Keeps a decision for bug reports.
    pub(super) fn record(&self, seen: &Observation, memory: &Memory, decision: &Decision) {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).record(seen, memory, decision);
    }

    /// The last decisions with what they were made of, as JSON lines, oldest first.
    pub fn journal(&self) -> Vec<String> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).lines()
    }

    /// Wakes the loop.
    pub fn wake_loop(&self) {
        self.wake.notify_one();
    }

    /// The loop reads the local configuration again before its next cycle.
    pub fn order_reload(&self) {
        self.lock().reload = true;
        self.wake_loop();
    }

    /// Puts a request to the loop and waits for its reply.
    pub async fn ask(&self, request: RequestKind) -> Reply {
        let (sender, receiver) = oneshot::channel();
        let gone = || Reply::Refused("the agent is shutting down".to_owned());
        if self.requests.send((request, sender)).await.is_err() {
            return gone();
        }
        receiver.await.unwrap_or_else(|_| gone())
    }
}
