//! The task that follows the cluster's keys: it says when something happened, and keeps the cache.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::proto::PbWatchResponse;
use futures::channel::mpsc::unbounded;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::cache::Cache;
use super::pool::{Plan, Pool, WATCH_PAUSE};
use super::request::{key_value, read_prefix, revision};
use crate::cluster::{ClusterView, MemberName};
use crate::dcs::layout::{KeyValue, Layout};
use crate::dcs::{Timing, wakes};

/// How many `ttl` pass between two looks at the servers' addresses.
const DISCOVERY_TTLS: u32 = 10;

pub(super) struct Watcher {
    pool: Arc<Pool>,
    layout: Layout,
    me: Option<MemberName>,
    timing: watch::Receiver<Timing>,
    changes: watch::Sender<u64>,
    cache: Arc<Cache>,
    /// In the order of their names.
    keys: Vec<KeyValue>,
    view: Option<Arc<ClusterView>>,
    next_discovery: Instant,
}

impl Watcher {
    pub(super) fn new(
        pool: Arc<Pool>,
        layout: Layout,
        me: Option<MemberName>,
        timing: watch::Receiver<Timing>,
        changes: watch::Sender<u64>,
        cache: Arc<Cache>,
    ) -> Self {
        let (keys, view, next_discovery) = (Vec::new(), None, Instant::now());
        Self { pool, layout, me, timing, changes, cache, keys, view, next_discovery }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        loop {
            let has_learned = self.follow().await;
            self.cache.closed();
            if !has_learned {
                sleep(WATCH_PAUSE).await;
            }
        }
    }

    fn timing(&self) -> Timing {
        *self.timing.borrow()
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.timing().retry_timeout
    }

    /// Reads everything, then follows the events until the watch ends. `false`: nothing was learned, so wait before
    /// the next try.
    async fn follow(&mut self) -> bool {
        let (mut moved, mut restarts) = (self.pool.moved(), self.cache.restarts());
        let prefix = self.layout.read_prefix();
        let plan = Plan::new("reading the cluster", self.timing().retry_timeout, false);
        let range = match self.pool.ask(&read_prefix(&prefix, true), &plan).await {
            Ok(answered) => answered.answer,
            Err(failed) => {
                tracing::debug!(?failed, "the watch has nothing to begin with");
                return false;
            }
        };
        let revision = revision(range.header.as_ref());
        self.keys = range.kvs.into_iter().filter_map(key_value).collect();
        self.keys.sort_by(|a, b| a.key.cmp(&b.key));
        let view = self.compare();
        self.cache.begun(view, revision);
        self.discover_if_due().await;
        moved.mark_unchanged();
        let (line, questions) = unbounded();
        let mut events = match self.pool.watch(&prefix, revision + 1, questions, self.deadline()).await {
            Ok(stream) => stream,
            Err(failure) => {
                tracing::debug!(%failure, "the watch could not be opened");
                return false;
            }
        };
        self.cache.opened(line);
        let mut has_heard = false;
        loop {
            let message = tokio::select! {
                biased;
                _ = moved.changed() => {
                    // Something failed, and what stands by should be what there is.
                    self.next_discovery = Instant::now();
                    return true;
                }
                _ = restarts.changed() => return true,
                message = events.message() => message,
                () = sleep_until(self.next_discovery) => {
                    self.discover_if_due().await;
                    continue;
                }
            };
            match message {
                Ok(Some(message)) if is_usable(&self.pool, &message) => {
                    has_heard |= !message.events.is_empty();
                    if !message.events.is_empty() {
                        self.apply(message);
                    } else if !message.created {
                        self.cache.answered();
                    }
                }
                Ok(ended) => {
                    let reason = ended.map(|message| message.cancel_reason).unwrap_or_default();
                    tracing::debug!(reason, "the watch ended");
                    return has_heard;
                }
                Err(status) => {
                    tracing::debug!(%status, "the watch broke off");
                    return has_heard;
                }
            }
        }
    }

    async fn discover_if_due(&mut self) {
        if self.next_discovery <= Instant::now() {
            let period = (self.timing().ttl * DISCOVERY_TTLS).max(Duration::from_secs(1));
            self.next_discovery = Instant::now() + period;
            self.pool.discover(self.deadline()).await;
        }
    }

    fn apply(&mut self, message: PbWatchResponse) {
        let mut revision = 0;
        for event in message.events {
            let is_deleted = event.r#type == 1;
            let Some(kv) = event.kv.and_then(key_value) else { continue };
            revision = revision.max(kv.mod_revision);
            match (self.keys.binary_search_by(|known| known.key.cmp(&kv.key)), is_deleted) {
                (Ok(at), _) if self.keys[at].mod_revision >= kv.mod_revision => {}
                (Ok(at), true) => drop(self.keys.remove(at)),
                (Ok(at), false) => self.keys[at] = kv,
                (Err(_), true) => {}
                (Err(at), false) => self.keys.insert(at, kv),
            }
        }
        let view = self.compare();
        self.cache.learned(view, revision);
    }

    /// Tells of what is different now, also after a break in the watch.
    fn compare(&mut self) -> Arc<ClusterView> {
        let view = Arc::new(self.layout.view(&self.keys));
        let me = self.me.as_ref().map(MemberName::as_str);
        if self.view.as_ref().is_some_and(|before| wakes::significant(before, &view, me)) {
            self.changes.send_modify(|count| *count += 1);
        }
        self.view = Some(Arc::clone(&view));
        view
    }
}

fn is_usable(pool: &Pool, message: &PbWatchResponse) -> bool {
    !message.canceled && pool.accepts(message.header.as_ref())
}
