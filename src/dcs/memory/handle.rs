//! One participant's connection to the model, and the faults a test can give it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Inner, State, Watcher};
use crate::cluster::{ClusterView, FailoverKey, LeaderKey, MemberName, Status, SyncState, Version};
use crate::dcs::layout::{Layout, session, write};
use crate::dcs::{Dcs, DcsError, Timing};

/// How the store answers one handle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// As it should.
    #[default]
    Up,
    /// Not at all: calls fail when `retry_timeout` has passed, as with a cut cable.
    Silent,
    /// Connections are refused: calls fail at once.
    Refused,
}

/// Implements [`Dcs`] on the model.
pub struct MemoryHandle {
    store: Arc<Inner>,
    watcher: Arc<Watcher>,
    own: Mutex<Own>,
    faults: Mutex<Faults>,
}

#[derive(Default)]
struct Own {
    timing: Timing,
    lease: Option<i64>,
    /// The own member key as last read or written: its lease and value.
    member: Option<(i64, Map<String, Value>)>,
}

#[derive(Clone, Copy, Default)]
struct Faults {
    reach: Reach,
    delay: Duration,
    lost_answers: usize,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryHandle {
    pub(super) fn new(store: Arc<Inner>, watcher: Arc<Watcher>) -> Self {
        Self { store, watcher, own: Mutex::default(), faults: Mutex::default() }
    }

    /// Cuts this handle off (calls then wait `retry_timeout` and fail) or lets it back.
    pub fn set_reachable(&self, is_reachable: bool) {
        self.set_reach(if is_reachable { Reach::Up } else { Reach::Silent });
    }

    /// How the store answers from now on. A handle that is cut off hears of no changes; what it missed wakes nobody
    /// afterwards.
    pub fn set_reach(&self, reach: Reach) {
        locked(&self.faults).reach = reach;
        self.watcher.is_deaf.store(reach != Reach::Up, Ordering::Relaxed);
    }

    /// Every request takes this long to arrive. As long as `retry_timeout` or longer, it never does.
    pub fn set_delay(&self, delay: Duration) {
        locked(&self.faults).delay = delay;
    }

    /// The next `count` writes (lease renewals included) are carried out, but their answers are lost.
    pub fn lose_answers(&self, count: usize) {
        locked(&self.faults).lost_answers = count;
    }

    /// The own lease, if there is one, for looking it up in the store.
    pub fn lease(&self) -> Option<i64> {
        locked(&self.own).lease
    }

    fn layout(&self) -> &Layout {
        &self.watcher.layout
    }

    fn me(&self, what: &str) -> Result<&MemberName, DcsError> {
        self.watcher.me.as_ref().ok_or_else(|| DcsError::Refused {
            what: format!("{what}: this connection belongs to no member"),
            source: None,
        })
    }

    /// Carries the request through the faults: there, applied, and back.
    async fn call<T>(
        &self,
        what: &str,
        is_write: bool,
        action: impl FnOnce(&mut State, &mut Own) -> T,
    ) -> Result<T, DcsError> {
        let deadline = Instant::now() + locked(&self.own).timing.retry_timeout;
        let lost = async || {
            tokio::time::sleep_until(deadline).await;
            Err(DcsError::unavailable(format!("{what}: no answer in time")))
        };
        let arrival = Instant::now() + locked(&self.faults).delay;
        if arrival > Instant::now() {
            tokio::time::sleep_until(arrival.min(deadline)).await;
        }
        let faults = *locked(&self.faults);
        match faults.reach {
            Reach::Up if arrival >= deadline => return lost().await,
            Reach::Up => {}
            Reach::Silent => return lost().await,
            Reach::Refused => return Err(DcsError::unavailable(format!("{what}: connection refused"))),
        }
        let answer = {
            let mut own = locked(&self.own);
            self.store.change(|state| action(state, &mut own))
        };
        self.store.start_reaper();
        if is_write && faults.lost_answers > 0 {
            locked(&self.faults).lost_answers -= 1;
            locked(&self.own).member = None;
            return lost().await;
        }
        Ok(answer)
    }

    /// Renews the lease, or takes a new one when it is gone.
    fn refresh(&self, state: &mut State, own: &mut Own) -> i64 {
        if let Some(id) = own.lease.filter(|id| state.keep_alive(*id)) {
            return id;
        }
        let id = state.grant(own.timing.ttl);
        self.store.granted.notify_one();
        own.lease = Some(id);
        id
    }

    async fn put(&self, key: &str, value: Vec<u8>) -> Result<(), DcsError> {
        let key = self.layout().key(key);
        self.call(&format!("write of {key}"), true, |state, _| state.put(&key, value, 0)).await
    }

    /// The new version, or `None` when `expected` was given and is not the key's.
    async fn compare_and_put(
        &self,
        key: &str,
        value: Vec<u8>,
        expected: Option<Version>,
    ) -> Result<Option<Version>, DcsError> {
        let key = self.layout().key(key);
        self.call(&format!("write of {key}"), true, |state, _| {
            is_version(state, &key, expected).then(|| {
                state.put(&key, value, 0);
                Version(state.revision)
            })
        })
        .await
    }
}

fn is_version(state: &State, key: &str, expected: Option<Version>) -> bool {
    expected.is_none_or(|version| state.keys.get(key).is_some_and(|kv| kv.mod_revision == version.0))
}

#[async_trait]
impl Dcs for MemoryHandle {
    async fn load(&self) -> Result<ClusterView, DcsError> {
        let me = self.watcher.me.as_ref();
        let answer = self.call("reading the cluster", false, |state, _| state.view(self.layout())).await;
        let member = answer.as_ref().ok().and_then(|view| view.member(me?)).map(|member| {
            let lease = member.session.as_ref().and_then(|session| session.0.parse().ok()).unwrap_or_default();
            (lease, member.data.clone())
        });
        locked(&self.own).member = member;
        answer
    }

    async fn names(&self) -> Result<Vec<String>, DcsError> {
        let read = |state: &mut State, _: &mut Own| {
            let keys = state.range(&self.layout().prefix());
            self.layout().names(keys.iter().map(|kv| kv.key.as_str()))
        };
        self.call("reading the names of the clusters", false, read).await
    }

    async fn load_all(&self, group: Option<u32>) -> Result<BTreeMap<String, ClusterView>, DcsError> {
        let read = |state: &mut State, _: &mut Own| self.layout().views(&state.range(&self.layout().prefix()), group);
        self.call("reading all clusters", false, read).await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.watcher.changes.subscribe()
    }

    fn set_timing(&self, timing: Timing) {
        let mut own = locked(&self.own);
        if own.timing.ttl != timing.ttl {
            own.lease = None;
        }
        own.timing = timing;
    }

    async fn touch_member(&self, value: &Map<String, Value>) -> Result<(), DcsError> {
        let key = self.layout().member(self.me("writing the member key")?);
        self.call(&format!("write of {key}"), true, |state, own| {
            let lease = self.refresh(state, own);
            if own.member.as_ref().is_some_and(|(old, data)| *old == lease && write::is_same(data, value)) {
                return;
            }
            state.put(&key, write::object(value), lease);
            own.member = Some((lease, value.clone()));
        })
        .await
    }

    async fn acquire_leader(&self, sync: Option<&SyncState>) -> Result<bool, DcsError> {
        let me = self.me("taking the leader key")?;
        let (key, sync_key) = (self.layout().key("leader"), self.layout().key("sync"));
        self.call("taking the leader key", true, |state, own| {
            let lease = self.refresh(state, own);
            let present = state.keys.get(&sync_key).map(|kept| Version(kept.mod_revision));
            let is_free = !state.keys.contains_key(&key) && sync.is_none_or(|seen| seen.version == present);
            if is_free {
                state.put(&key, me.as_bytes().to_vec(), lease);
            }
            is_free
        })
        .await
    }

    async fn renew_leader(&self, seen: &LeaderKey) -> Result<bool, DcsError> {
        let me = self.me("renewing the leader key")?;
        let key = self.layout().key("leader");
        self.call("renewing the leader key", true, |state, own| {
            let lease = self.refresh(state, own);
            if seen.name == *me && seen.session.as_ref() == Some(&session(lease)) {
                return true;
            }
            let is_mine = state.value(&key).is_none_or(|value| value == me.as_bytes());
            if is_mine {
                state.put(&key, me.as_bytes().to_vec(), lease);
            }
            is_mine
        })
        .await
    }

    async fn take_leader(&self) -> Result<(), DcsError> {
        let me = self.me("taking the leader key")?;
        let key = self.layout().key("leader");
        self.call("taking the leader key", true, |state, own| {
            let lease = self.refresh(state, own);
            state.put(&key, me.as_bytes().to_vec(), lease);
        })
        .await
    }

    async fn release_leader(&self, status: Option<&Status>) -> Result<bool, DcsError> {
        let me = self.me("releasing the leader key")?;
        let key = self.layout().key("leader");
        self.call("releasing the leader key", true, |state, _| {
            if let Some(status) = status {
                state.put(&self.layout().key("status"), write::status(status), 0);
            }
            state.value(&key) == Some(me.as_bytes()) && state.delete(&key)
        })
        .await
    }

    async fn race_initialize(&self, text: &str) -> Result<bool, DcsError> {
        let key = self.layout().key("initialize");
        self.call("creating the initialize key", true, |state, _| {
            let is_free = !state.keys.contains_key(&key);
            if is_free {
                state.put(&key, text.as_bytes().to_vec(), 0);
            }
            is_free
        })
        .await
    }

    async fn set_initialize(&self, text: &str) -> Result<(), DcsError> {
        self.put("initialize", text.as_bytes().to_vec()).await
    }

    async fn cancel_initialize(&self) -> Result<(), DcsError> {
        let key = self.layout().key("initialize");
        self.call("deleting the initialize key", true, |state, _| {
            state.delete(&key);
        })
        .await
    }

    async fn write_config(&self, document: &Map<String, Value>, expected: Option<Version>) -> Result<bool, DcsError> {
        Ok(self.compare_and_put("config", write::object(document), expected).await?.is_some())
    }

    async fn write_failover(&self, request: &FailoverKey, expected: Option<Version>) -> Result<bool, DcsError> {
        Ok(self.compare_and_put("failover", write::failover(request), expected).await?.is_some())
    }

    async fn write_sync(&self, state: &SyncState, expected: Option<Version>) -> Result<Option<Version>, DcsError> {
        self.compare_and_put("sync", write::sync(state), expected).await
    }

    async fn delete_sync(&self, expected: Option<Version>) -> Result<bool, DcsError> {
        let key = self.layout().key("sync");
        self.call("deleting the sync key", true, |state, _| {
            let holds = is_version(state, &key, expected);
            if holds {
                state.delete(&key);
            }
            holds
        })
        .await
    }

    async fn write_status(&self, status: &Status) -> Result<(), DcsError> {
        self.put("status", write::status(status)).await
    }

    async fn write_history(&self, history: &Value) -> Result<(), DcsError> {
        self.put("history", write::history(history)).await
    }

    async fn write_failsafe(&self, topology: &BTreeMap<MemberName, String>) -> Result<(), DcsError> {
        self.put("failsafe", write::failsafe(topology)).await
    }

    async fn delete_cluster(&self) -> Result<(), DcsError> {
        let prefix = self.layout().prefix();
        self.call("deleting the cluster", true, |state, _| state.delete_prefix(&prefix)).await
    }
}
