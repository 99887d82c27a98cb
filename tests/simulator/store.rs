//! The way of one member's requests to the DCS and back: delays, losses, and a lease whose time runs differently.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pgherd::cluster::{ClusterView, FailoverKey, LeaderKey, MemberName, Status, SyncState, Version};
use pgherd::dcs::memory::MemoryHandle;
use pgherd::dcs::{Dcs, DcsError, Timing};
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::fleet::Fleet;

/// The port of one member.
pub(crate) struct SimDcs {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) me: usize,
    pub(crate) handle: Arc<MemoryHandle>,
    /// By how much the DCS's clock is faster than the member's, in thousandths: the lease ends that much earlier.
    pub(crate) drift: i64,
    pub(crate) changes: watch::Sender<u64>,
    pub(crate) patience: std::sync::Mutex<Duration>,
    /// A deliberate fault: the key is taken whatever `/sync` says by now.
    pub(crate) ignores_sync: bool,
}

/// What the network does with one request.
struct Fate {
    out: Duration,
    back: Duration,
    is_lost: bool,
    is_answer_lost: bool,
    is_on_its_way: bool,
}

impl SimDcs {
    /// Wires a member, and lets it hear of changes as the network lets it.
    pub(crate) fn new(
        fleet: &Arc<Fleet>,
        me: usize,
        handle: Arc<MemoryHandle>,
        drift: i64,
        ignores_sync: bool,
    ) -> Arc<Self> {
        let mut source = handle.changes();
        let changes = watch::Sender::new(0);
        let (sink, here) = (changes.clone(), Arc::clone(fleet));
        tokio::spawn(async move {
            while source.changed().await.is_ok() {
                let delay = {
                    let mut moving = here.moving();
                    let most = moving.delay_ms;
                    let dcs = here.names.len();
                    moving.can_connect(me, dcs).then(|| Duration::from_millis(moving.chance.below(most + 1)))
                };
                if let Some(delay) = delay {
                    sleep(delay).await;
                    sink.send_modify(|count| *count += 1);
                }
            }
        });
        let patience = std::sync::Mutex::new(Duration::from_secs(10));
        Arc::new(Self { fleet: Arc::clone(fleet), me, handle, drift, changes, patience, ignores_sync })
    }

    fn fate(&self) -> Fate {
        let mut moving = self.fleet.moving();
        let dcs = self.fleet.names.len();
        let (most, loss) = (moving.delay_ms, moving.loss_percent);
        Fate {
            out: Duration::from_millis(moving.chance.below(most + 1)),
            back: Duration::from_millis(moving.chance.below(most + 1)),
            is_lost: moving.cut[self.me][dcs] || moving.chance.percent(loss),
            is_answer_lost: moving.cut[dcs][self.me] || moving.chance.percent(loss),
            is_on_its_way: moving.chance.percent(50),
        }
    }

    async fn send<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<T, DcsError>> + Send + 'static,
    ) -> Result<T, DcsError> {
        let patience = *self.patience.lock().unwrap();
        let fate = self.fate();
        let lost = || Err(DcsError::unavailable("no answer in time"));
        if self.fleet.moving().is_dcs_stopped {
            sleep(Duration::from_millis(1)).await;
            return Err(DcsError::unavailable("connection refused"));
        }
        if fate.is_lost {
            sleep(patience).await;
            return lost();
        }
        let request = async move {
            sleep(fate.out).await;
            call.await
        };
        let answer = async {
            // A process that is suspended now has sent its request already, or not yet.
            let answer =
                if fate.is_on_its_way { tokio::spawn(request).await.unwrap_or_else(|_| lost()) } else { request.await };
            if fate.is_answer_lost {
                std::future::pending::<()>().await;
            }
            sleep(fate.back).await;
            answer
        };
        timeout(patience, answer).await.unwrap_or_else(|_| lost())
    }
}

/// One method: own copies of what it was given, then the way there and back.
macro_rules! carry {
    ($self:ident, $method:ident($($given:ident),*)) => {{
        let handle = Arc::clone(&$self.handle);
        $(let $given = $given.clone();)*
        $self.send(async move { handle.$method($(&$given),*).await }).await
    }};
}

#[async_trait]
impl Dcs for SimDcs {
    async fn load(&self) -> Result<ClusterView, DcsError> {
        carry!(self, load())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn set_timing(&self, timing: Timing) {
        *self.patience.lock().unwrap() = timing.retry_timeout;
        let ttl = i64::try_from(timing.ttl.as_millis()).unwrap() * (1000 - self.drift) / 1000;
        self.handle.set_timing(Timing { ttl: Duration::from_millis(ttl.unsigned_abs()), ..timing });
    }

    async fn touch_member(&self, value: &Map<String, Value>) -> Result<(), DcsError> {
        carry!(self, touch_member(value))
    }

    async fn acquire_leader(&self, sync: Option<&SyncState>) -> Result<bool, DcsError> {
        let (handle, sync) = (Arc::clone(&self.handle), sync.filter(|_| !self.ignores_sync).cloned());
        self.send(async move { handle.acquire_leader(sync.as_ref()).await }).await
    }

    async fn renew_leader(&self, seen: &LeaderKey) -> Result<bool, DcsError> {
        let answer = carry!(self, renew_leader(seen));
        let mut moving = self.fleet.moving();
        if moving.hangs_when_renewed[self.me] {
            let dcs = self.fleet.names.len();
            moving.cut[self.me][dcs] = true;
            moving.cut[dcs][self.me] = true;
        }
        answer
    }

    async fn take_leader(&self) -> Result<(), DcsError> {
        carry!(self, take_leader())
    }

    async fn release_leader(&self, status: Option<&Status>) -> Result<bool, DcsError> {
        let (handle, status) = (Arc::clone(&self.handle), status.cloned());
        self.send(async move { handle.release_leader(status.as_ref()).await }).await
    }

    async fn race_initialize(&self, text: &str) -> Result<bool, DcsError> {
        let text = text.to_owned();
        carry!(self, race_initialize(text))
    }

    async fn set_initialize(&self, text: &str) -> Result<(), DcsError> {
        let text = text.to_owned();
        carry!(self, set_initialize(text))
    }

    async fn cancel_initialize(&self) -> Result<(), DcsError> {
        carry!(self, cancel_initialize())
    }

    async fn write_config(&self, document: &Map<String, Value>, expected: Option<Version>) -> Result<bool, DcsError> {
        let (handle, document) = (Arc::clone(&self.handle), document.clone());
        self.send(async move { handle.write_config(&document, expected).await }).await
    }

    async fn write_failover(&self, request: &FailoverKey, expected: Option<Version>) -> Result<bool, DcsError> {
        let (handle, request) = (Arc::clone(&self.handle), request.clone());
        self.send(async move { handle.write_failover(&request, expected).await }).await
    }

    async fn write_sync(&self, state: &SyncState, expected: Option<Version>) -> Result<Option<Version>, DcsError> {
        let (handle, state) = (Arc::clone(&self.handle), state.clone());
        self.send(async move { handle.write_sync(&state, expected).await }).await
    }

    async fn delete_sync(&self, expected: Option<Version>) -> Result<bool, DcsError> {
        let handle = Arc::clone(&self.handle);
        self.send(async move { handle.delete_sync(expected).await }).await
    }

    async fn write_status(&self, status: &Status) -> Result<(), DcsError> {
        carry!(self, write_status(status))
    }

    async fn write_history(&self, history: &Value) -> Result<(), DcsError> {
        carry!(self, write_history(history))
    }

    async fn write_failsafe(&self, topology: &BTreeMap<MemberName, String>) -> Result<(), DcsError> {
        carry!(self, write_failsafe(topology))
    }

    async fn delete_cluster(&self) -> Result<(), DcsError> {
        carry!(self, delete_cluster())
    }
}
