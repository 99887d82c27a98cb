//! What PostgreSQL says of itself, asked once for everybody who wants to know.
//!
//! However many REST requests come, one query is under way; a server that hangs costs each of them a bounded wait, and
//! a health check hardly any.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::api::Live;
use crate::cluster::Lsn;
use crate::postgres::{Look, Postgres};

/// A query takes no longer.
const BUDGET: Duration = Duration::from_secs(2);

/// An answer this young is as good as a new one.
const FRESH: Duration = Duration::from_millis(20);

/// The last answer of PostgreSQL.
#[derive(Clone, Debug)]
struct Answer {
    at: Instant,
    /// Nothing: it did not answer.
    live: Option<Arc<Live>>,
}

#[derive(Debug, Default)]
struct State {
    /// Since when a query is under way.
    asking: Option<Instant>,
    last: Option<Answer>,
}

/// The shared query.
pub(super) struct Gauge {
    postgres: Arc<dyn Postgres>,
    state: Mutex<State>,
    answered: watch::Sender<()>,
}

impl Gauge {
    pub(super) fn new(postgres: Arc<dyn Postgres>) -> Arc<Self> {
        Arc::new(Self { postgres, state: Mutex::default(), answered: watch::channel(()).0 })
    }

    /// What PostgreSQL says now; nothing if it does not answer. A caller that cannot wait gets what it said last,
    /// while that is not older than a query may take: a server under load is not a server that is gone. A query that
    /// others have waited for is waited for no longer than they did: of a server that hangs, only the first learns it.
    pub(super) async fn read(self: &Arc<Self>, patience: Duration) -> Option<Arc<Live>> {
        let give_up = Instant::now() + patience;
        let mut answered = self.answered.subscribe();
        loop {
            let asked = match self.fresh_or_ask() {
                Ok(answer) => return answer.live,
                Err(asked) => asked,
            };
            if timeout_at(give_up.min(asked + patience), answered.changed()).await.is_err() {
                let last = self.state().last.clone()?;
                return last.live.filter(|_| last.at.elapsed() < BUDGET);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An answer that is fresh; else the moment at which the query was begun that is under way when this returns.
    fn fresh_or_ask(self: &Arc<Self>) -> Result<Answer, Instant> {
        let mut state = self.state();
        if let Some(last) = state.last.as_ref().filter(|last| last.at.elapsed() < FRESH) {
            return Ok(last.clone());
        }
        let under_way = state.asking;
        let asked = *state.asking.get_or_insert_with(Instant::now);
        if under_way.is_none() {
            let this = Arc::clone(self);
            tokio::spawn(async move {
                // A query that panics must not leave the others waiting for it.
                let asking = tokio::spawn(ask(Arc::clone(&this.postgres)));
                let live = asking.await.unwrap_or_default().map(Arc::new);
                let mut state = this.state();
                state.asking = None;
                state.last = Some(Answer { at: Instant::now(), live });
                drop(state);
                this.answered.send_replace(());
            });
        }
        Err(asked)
    }
}

async fn ask(postgres: Arc<dyn Postgres>) -> Option<Live> {
    let look = Look { slots: false, senders: false, standby_timeline: true, budget: BUDGET };
    let state = postgres.look(&look).await;
    let monitor = state.monitor?;
    let receiver = monitor.receiver.as_ref();
    let received = if monitor.receive_lsn == Lsn::ZERO { monitor.replay_lsn } else { monitor.receive_lsn };
    Some(Live {
        in_recovery: monitor.in_recovery,
        server_version: state.server_version.unwrap_or_default(),
        postmaster_start_time: state.postmaster_start_time,
        location: monitor.flush_lsn,
        received,
        replayed: monitor.replay_lsn,
        replayed_timestamp: monitor.replayed_timestamp.clone(),
        is_replay_paused: monitor.replay_paused,
        timeline: monitor.timeline,
        replication_state: monitor.replication_state().map(str::to_owned),
        latest_end_lsn: receiver.and_then(|receiver| receiver.latest_end_lsn),
        replication: postgres.replication().await,
    })
}
