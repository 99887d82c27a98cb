//! The task that follows the cluster's keys: it says when something happened, and keeps the cache.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::proto::PbWatchResponse;
use futures::channel::mpsc::{UnboundedReceiver, unbounded};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tonic::Streaming;

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
    /// How it stood when everything was read.
    read: i64,
    view: Option<Arc<ClusterView>>,
    /// The latest revision of events that the view does not show yet, for nobody had to hear of them.
    behind: Option<i64>,
    /// The last try to read everything failed.
    is_away: bool,
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
        let (read, behind, is_away) = (0, None, false);
        Self { pool, layout, me, timing, changes, cache, keys, read, view, behind, is_away, next_discovery }
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
        if !self.read().await {
            return false;
        }
        self.discover_if_due().await;
        moved.mark_unchanged();
        let (line, questions) = unbounded();
        let Some((mut events, since)) = self.open(questions).await else { return false };
        if self.read < since {
            let is_read = self.read().await;
            if !is_read || self.read < since {
                return false;
            }
        }
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
                    if message.events.is_empty() {
                        self.catch_up();
                        self.cache.answered(revision(message.header.as_ref()));
                    } else {
                        self.apply(message);
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

    /// How everything stands. `false`: nobody said so.
    async fn read(&mut self) -> bool {
        let plan = Plan::new("reading the cluster", self.timing().retry_timeout, false);
        let range = match self.pool.ask(&read_prefix(&self.layout.read_prefix(), true), &plan).await {
            Ok(answered) => answered.answer,
            Err(failed) => {
                tracing::debug!(?failed, "the watch has nothing to begin with");
                self.is_away = true;
                return false;
            }
        };
        self.read = revision(range.header.as_ref());
        self.keys = range.kvs.into_iter().filter_map(key_value).collect();
        self.keys.sort_by(|a, b| a.key.cmp(&b.key));
        self.behind = None;
        let view = self.compare();
        if std::mem::take(&mut self.is_away) {
            // Whoever could not reach it waits for nothing else.
            self.changes.send_modify(|count| *count += 1);
        }
        self.cache.begun(view, self.read);
        true
    }

    /// A watch, and after which revision it begins: with what happens from now on. One that began earlier would be told
    /// the past by and by, while its questions are answered as if it knew it already.
    async fn open(&self, questions: UnboundedReceiver<()>) -> Option<(Streaming<PbWatchResponse>, i64)> {
        let deadline = self.deadline();
        let mut events = match self.pool.watch(&self.layout.read_prefix(), questions, deadline).await {
            Ok(stream) => stream,
            Err(failure) => {
                tracing::debug!(%failure, "the watch could not be opened");
                return None;
            }
        };
        match timeout_at(deadline, events.message()).await {
            Ok(Ok(Some(message))) if is_usable(&self.pool, &message) && message.created => {
                Some((events, revision(message.header.as_ref())))
            }
            answer => {
                tracing::debug!(?answer, "the watch does not begin");
                None
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
        let (mut revision, mut is_quiet) = (self.behind.unwrap_or_default(), true);
        for event in message.events {
            let is_deleted = event.r#type == 1;
            let kv = event.kv.and_then(key_value).filter(|kv| kv.mod_revision > self.read);
            let Some(kv) = kv else { continue };
            revision = revision.max(kv.mod_revision);
            let place = self.keys.binary_search_by(|known| known.key.cmp(&kv.key));
            is_quiet &= !is_deleted && place.is_ok_and(|at| self.is_quiet(&self.keys[at], &kv));
            match (place, is_deleted) {
                (Ok(at), true) => drop(self.keys.remove(at)),
                (Ok(at), false) => self.keys[at] = kv,
                (Err(_), true) => {}
                (Err(at), false) => self.keys.insert(at, kv),
            }
        }
        self.behind = Some(revision);
        // In a cluster at rest every member writes where it is, and nobody wants to know before the next cycle: it
        // asks first, and the answer comes this way.
        if !is_quiet || self.cache.is_awaited() {
            self.catch_up();
        }
    }

    /// Whether this key may be rewritten so without anybody having to hear of it.
    fn is_quiet(&self, before: &KeyValue, after: &KeyValue) -> bool {
        let me = self.me.as_ref().map(MemberName::as_str);
        let leads = me.is_some_and(|me| self.view.as_ref().is_some_and(|view| view.has_lock(me)));
        let relative = after.key.strip_prefix(&self.layout.prefix());
        relative.is_some_and(|relative| wakes::is_quiet(relative, &before.value, &after.value, me, leads))
    }

    /// What has happened is in the view from now on.
    fn catch_up(&mut self) {
        if let Some(revision) = self.behind.take() {
            let view = self.compare();
            self.cache.learned(view, revision);
        }
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
