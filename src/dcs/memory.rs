//! The model: a store inside the process, exact to the contract and free of chance.
//!
//! Several handles share one store, as agents share a DCS. Leases run on tokio's clock, which a test can pause; they
//! expire by themselves and watchers hear of it. Each handle can be cut off, slowed down, or made to lose answers,
//! without touching the others. What a real backend does beyond this (endpoints, authentication, retries) is its own
//! affair; what a caller can observe must be the same, which the contract tests hold all backends to.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::layout::{KeyValue, Layout};
use super::wakes;
use crate::cluster::{ClusterView, MemberName};

mod handle;

#[cfg(test)]
mod tests;

pub use handle::{MemoryHandle, Reach};

/// The shared store. Clones are the same store.
#[derive(Clone, Default)]
pub struct MemoryStore {
    inner: Arc<Inner>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// A connection of member `name` (or of an operator) to cluster `scope` in the namespace `service`.
    pub fn handle(&self, scope: &str, name: Option<&str>) -> Arc<MemoryHandle> {
        self.handle_at(Layout::new("service", scope, None), name)
    }

    /// A connection to the cluster at any place.
    pub fn handle_at(&self, layout: Layout, name: Option<&str>) -> Arc<MemoryHandle> {
        let watcher = Arc::new(Watcher {
            layout,
            me: name.map(MemberName::from),
            changes: watch::Sender::new(0),
            is_deaf: AtomicBool::new(false),
        });
        self.inner.change(|state| {
            state.watchers.push(Arc::downgrade(&watcher));
            state.told = None;
        });
        Arc::new(MemoryHandle::new(self.inner.clone(), watcher))
    }

    /// All keys, in order.
    pub fn keys(&self) -> Vec<KeyValue> {
        self.inner.change(|state| state.keys.values().cloned().collect())
    }

    /// The value of a key as text.
    pub fn get(&self, key: &str) -> Option<String> {
        self.inner.change(|state| state.keys.get(key).map(KeyValue::text))
    }

    /// Writes a key, as a stranger would.
    pub fn put(&self, key: &str, value: impl Into<Vec<u8>>) {
        self.inner.change(|state| state.put(key, value.into(), 0));
    }

    /// Deletes a key, as a stranger would.
    pub fn delete(&self, key: &str) {
        self.inner.change(|state| state.delete(key));
    }

    /// Puts recorded keys in as they are: revisions and leases included. The leases belong to nobody and never
    /// expire.
    pub fn import(&self, keys: Vec<KeyValue>) {
        self.inner.change(|state| {
            for kv in keys {
                state.revision = state.revision.max(kv.mod_revision) + 1;
                state.keys.insert(kv.key.clone(), kv);
            }
        });
    }

    /// Ends a lease now, as an operator of the store could.
    pub fn revoke(&self, lease: i64) {
        self.inner.change(|state| state.revoke(lease));
    }

    /// Ends every lease now, as an operator of the store could.
    pub fn revoke_all_leases(&self) {
        self.inner.change(|state| {
            let ids: Vec<i64> = state.leases.keys().copied().collect();
            ids.into_iter().for_each(|id| state.revoke(id));
        });
    }
}

struct Inner {
    state: Mutex<State>,
    /// A lease was granted that may end before the one that the reaper sleeps for.
    granted: Arc<Notify>,
}

impl Default for Inner {
    fn default() -> Self {
        let state = State { next_lease: 1000, ..State::default() };
        Self { state: Mutex::new(state), granted: Arc::default() }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.granted.notify_one();
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one way in: what has expired goes first, and what changed is told afterwards.
    fn change<T>(&self, action: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        state.expire();
        let answer = action(&mut state);
        state.announce();
        answer
    }

    /// Starts the task that ends leases on time, once there is a lease.
    fn start_reaper(self: &Arc<Self>) {
        let mut state = self.lock();
        if !state.has_reaper && !state.leases.is_empty() {
            state.has_reaper = true;
            tokio::spawn(reap(Arc::downgrade(self), self.granted.clone()));
        }
    }
}

/// Ends when the store is gone: it holds no more than a weak reference, and the store's end wakes it.
async fn reap(inner: Weak<Inner>, granted: Arc<Notify>) {
    while let Some(next) = inner.upgrade().map(|inner| inner.change(|state| state.next_deadline())) {
        let expiry = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = granted.notified() => {}
            () = expiry => {}
        }
    }
}

#[derive(Default)]
struct State {
    revision: i64,
    next_lease: i64,
    keys: BTreeMap<String, KeyValue>,
    leases: BTreeMap<i64, Lease>,
    has_reaper: bool,
    watchers: Vec<Weak<Watcher>>,
    /// The view at each place that is watched, as last announced, and the revision of that.
    announced: BTreeMap<Layout, (i64, ClusterView)>,
    /// The revision up to which every watcher was told.
    told: Option<i64>,
}

struct Lease {
    ttl: Duration,
    deadline: Instant,
}

struct Watcher {
    layout: Layout,
    me: Option<MemberName>,
    changes: watch::Sender<u64>,
    is_deaf: AtomicBool,
}

impl State {
    fn put(&mut self, key: &str, value: Vec<u8>, lease: i64) {
        self.revision += 1;
        let kv = KeyValue { key: key.to_owned(), value, mod_revision: self.revision, lease };
        self.keys.insert(key.to_owned(), kv);
    }

    fn delete(&mut self, key: &str) -> bool {
        let existed = self.keys.remove(key).is_some();
        self.revision += i64::from(existed);
        existed
    }

    fn delete_prefix(&mut self, prefix: &str) {
        let before = self.keys.len();
        self.keys.retain(|key, _| !key.starts_with(prefix));
        self.revision += i64::from(self.keys.len() < before);
    }

    fn value(&self, key: &str) -> Option<&[u8]> {
        self.keys.get(key).map(|kv| kv.value.as_slice())
    }

    fn range(&self, prefix: &str) -> Vec<KeyValue> {
        let from = self.keys.range(prefix.to_owned()..);
        from.take_while(|(key, _)| key.starts_with(prefix)).map(|(_, kv)| kv.clone()).collect()
    }

    fn grant(&mut self, ttl: Duration) -> i64 {
        self.next_lease += 1;
        self.leases.insert(self.next_lease, Lease { ttl, deadline: Instant::now() + ttl });
        self.next_lease
    }

    /// `false`: the lease is gone.
    fn keep_alive(&mut self, id: i64) -> bool {
        let lease = self.leases.get_mut(&id);
        lease.map(|lease| lease.deadline = Instant::now() + lease.ttl).is_some()
    }

    fn revoke(&mut self, id: i64) {
        self.leases.remove(&id);
        let before = self.keys.len();
        self.keys.retain(|_, kv| kv.lease != id);
        self.revision += i64::from(self.keys.len() < before);
    }

    fn expire(&mut self) {
        let now = Instant::now();
        let due = self.leases.iter().filter(|(_, lease)| lease.deadline <= now);
        let due: Vec<i64> = due.map(|(id, _)| *id).collect();
        due.into_iter().for_each(|id| self.revoke(id));
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.leases.values().map(|lease| lease.deadline).min()
    }

    fn announce(&mut self) {
        if self.told == Some(self.revision) {
            return;
        }
        let watchers: Vec<Arc<Watcher>> = self.watchers.iter().filter_map(Weak::upgrade).collect();
        self.watchers.retain(|watcher| watcher.strong_count() > 0);
        let layouts: std::collections::BTreeSet<&Layout> = watchers.iter().map(|watcher| &watcher.layout).collect();
        for layout in layouts {
            let old = self.announced.get(layout);
            if old.is_some_and(|(revision, _)| *revision == self.revision) {
                continue;
            }
            let new = layout.view(&self.range(&layout.read_prefix()));
            if let Some((_, old)) = old {
                let here = watchers.iter().filter(|watcher| watcher.layout == *layout);
                here.for_each(|watcher| watcher.hear(old, &new));
            }
            self.announced.insert(layout.clone(), (self.revision, new));
        }
        self.told = Some(self.revision);
    }

    /// What there is to be read now; made once for each revision.
    fn view(&self, layout: &Layout) -> ClusterView {
        match self.announced.get(layout) {
            Some((revision, view)) if *revision == self.revision => view.clone(),
            _ => layout.view(&self.range(&layout.read_prefix())),
        }
    }
}

impl Watcher {
    fn hear(&self, old: &ClusterView, new: &ClusterView) {
        let me = self.me.as_ref().map(MemberName::as_str);
        if !self.is_deaf.load(Ordering::Relaxed) && wakes::significant(old, new, me) {
            self.changes.send_modify(|count| *count += 1);
        }
    }
}
