//! etcd by its v3 API over gRPC, request by request what Patroni's members send through the JSON gateway, so that
//! both kinds can share a cluster.
//!
//! The library's client is not used, only its messages: it balances over endpoints, repeats requests and keeps
//! leases alive in ways that a lock must not have.
//!
//! ```text
//! etcd3.rs   the verbs: documents to requests, answers to documents; the lease
//! access     how to get at the servers, as configured
//! pool       endpoints, failover, deadlines, the stale-server guard
//! login      users, and what happens to new ones that are of no use
//! wire       one connection; what a failure means
//! request    messages and transactions            budget   how a deadline is shared out
//! watcher    the task behind `changes()`           cache    what it knows, for the loop
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use async_trait::async_trait;
use etcd_client::proto::{PbLeaseGrantRequest, PbLeaseKeepAliveRequest, PbPutResponse, PbTxnRequest, PbTxnResponse};
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::layout::{KeyValue, Layout, session, write};
use super::{Dcs, DcsError, Renewed, Timing, connect};
use crate::cluster::{ClusterView, FailoverKey, LeaderKey, MemberName, Status, SyncState, Version};
use crate::config::DcsConfig;
use cache::{Answer, Cache};
use pool::{Answered, Failed, Plan, Pool};
use request::{Effect, Request};
use watcher::Watcher;

mod access;
mod budget;
mod cache;
mod login;
mod pool;
mod request;
mod srv;
mod watcher;
mod wire;

pub(super) use access::{Access, Source};
pub(super) use srv::Srv;

/// How often a lease that goes away under our hands is replaced within one operation.
const LEASE_TRIES: usize = 3;

/// How many `ttl` a server that says nothing on its watches is not asked there again.
const SILENT_TTLS: u32 = 10;

/// Implements [`Dcs`] on etcd.
pub(super) struct Etcd3 {
    pool: Arc<Pool>,
    layout: Layout,
    me: Option<MemberName>,
    timing: watch::Sender<Timing>,
    own: Mutex<Own>,
    changes: watch::Sender<u64>,
    /// Begins with the first interest in changes: a command that reads once needs no watch.
    watcher: OnceLock<AbortOnDropHandle<()>>,
    cache: Arc<Cache>,
}

#[derive(Default)]
struct Own {
    lease: Option<i64>,
    /// When the last answer to a refresh was asked for.
    refreshed: Option<Instant>,
    /// The own member key as last read or written: its lease and value.
    member: Option<(i64, Map<String, Value>)>,
}

impl Etcd3 {
    /// Nothing is connected yet.
    pub(super) fn new(access: Access, layout: Layout, me: Option<MemberName>, timing: Timing) -> Self {
        let rights = request::rights(&layout.read_prefix(), &layout.key("leader"));
        Self {
            pool: Arc::new(Pool::new(access, rights)),
            layout,
            me,
            timing: watch::Sender::new(timing),
            own: Mutex::default(),
            changes: watch::Sender::new(0),
            watcher: OnceLock::new(),
            cache: Arc::new(Cache::new()),
        }
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn me(&self, what: &str) -> Result<&MemberName, DcsError> {
        let nobody =
            || DcsError::Refused { what: format!("{what}: this connection belongs to no member"), source: None };
        self.me.as_ref().ok_or_else(nobody)
    }

    fn plan(&self, what: &'static str, is_repeatable: bool) -> Plan {
        Plan::new(what, self.timing.borrow().retry_timeout, is_repeatable)
    }

    async fn ask<R: Request>(&self, request: &R, plan: &Plan) -> Result<Answered<R::Answer>, DcsError> {
        self.send(request, plan).await.map_err(|failed| match failed {
            Failed::Dcs(error) => error,
            Failed::LeaseNotFound => lease_gone(plan),
        })
    }

    /// Every request goes this way, so that the cache knows what its events must show.
    async fn send<R: Request>(&self, request: &R, plan: &Plan) -> Result<Answered<R::Answer>, Failed> {
        let answered = self.pool.ask(request, plan).await?;
        match R::effect(&answered.answer) {
            Effect::None => {}
            Effect::Wrote(revision) => self.cache.wrote(revision),
            Effect::Conflict => self.cache.doubt(),
        }
        Ok(answered)
    }

    /// Reads all keys from the server, or takes what the watch knows if the server says that this is the same.
    async fn view(&self, plan: &Plan) -> Result<Arc<ClusterView>, DcsError> {
        let is_watched = self.me.is_some() && self.watcher.get().is_some();
        let cached = if is_watched { self.cache.current(plan.least).await } else { Answer::Nothing };
        let is_silent = matches!(cached, Answer::Silence);
        if let Answer::Current(view) = cached
            && !view.is_unlocked()
        {
            return Ok(view);
        }
        // An agent must see the cluster also through a server without quorum; an operator wants the truth.
        let request = request::read_prefix(&self.layout.read_prefix(), self.me.is_some());
        let answered = self.ask(&request, plan).await?;
        if is_silent {
            self.cache.is_only_silent_here(self.timing.borrow().ttl * SILENT_TTLS);
        }
        let keys: Vec<KeyValue> = answered.answer.kvs.into_iter().filter_map(request::key_value).collect();
        Ok(Arc::new(self.layout.view(&keys)))
    }

    fn forget_lease(&self, lease: i64) {
        let mut own = self.own();
        own.lease = own.lease.filter(|known| *known != lease);
    }

    /// The own lease if it was refreshed a moment ago. For what entitles to nothing: the member key.
    fn recent_lease(&self) -> Option<i64> {
        let enough = self.timing.borrow().loop_wait / 2;
        let own = self.own();
        own.lease.filter(|_| own.refreshed.is_some_and(|at| at.elapsed() < enough))
    }

    /// Makes sure of a lease by a request of this very call: the caller counts its life from before the call.
    async fn refresh(&self, plan: &Plan) -> Result<i64, DcsError> {
        for _ in 0..LEASE_TRIES {
            let (known, begin) = (self.own().lease, Instant::now());
            if let Some(id) = known
                && self.ask(&PbLeaseKeepAliveRequest { id }, plan).await?.answer.ttl > 0
            {
                self.own().refreshed = Some(begin);
                return Ok(id);
            }
            let ttl = i64::try_from(self.timing.borrow().ttl.as_secs()).unwrap_or(i64::MAX).max(1);
            let granted = self.ask(&PbLeaseGrantRequest { ttl, id: 0 }, plan).await?.answer;
            let mut own = self.own();
            // Somebody else was replacing it too: theirs is used, this one left to end.
            if own.lease == known {
                own.lease = Some(granted.id);
                own.refreshed = Some(begin);
                return Ok(granted.id);
            }
        }
        Err(lease_gone(plan))
    }

    /// Sends a request with a fresh lease in it, and once more with a new one if the lease ended in between.
    async fn ask_with_lease<R: Request>(
        &self,
        plan: &Plan,
        request: impl Fn(i64) -> R + Send,
    ) -> Result<(Answered<R::Answer>, i64), DcsError> {
        for _ in 0..2 {
            let lease = self.refresh(plan).await?;
            plan.require_time()?;
            match self.send(&request(lease), plan).await {
                Ok(answered) => return Ok((answered, lease)),
                Err(Failed::Dcs(error)) => return Err(error),
                Err(Failed::LeaseNotFound) => self.forget_lease(lease),
            }
        }
        Err(lease_gone(plan))
    }

    async fn read_back(&self, key: &str, plan: &Plan) -> Result<Option<KeyValue>, DcsError> {
        let answer = self.ask(&request::read(key), plan).await?.answer;
        Ok(answer.kvs.into_iter().next().and_then(request::key_value))
    }

    async fn put(&self, what: &'static str, key: &str, value: &[u8]) -> Result<PbPutResponse, DcsError> {
        let plan = self.plan(what, false);
        Ok(self.ask(&request::put(&self.layout.key(key), value, 0), &plan).await?.answer)
    }

    /// The new version, or `None` when `expected` was given and is not the key's any more.
    async fn compare_and_put(
        &self,
        plan: &Plan,
        key: &str,
        value: &[u8],
        expected: Option<Version>,
    ) -> Result<Option<Version>, DcsError> {
        let key = self.layout.key(key);
        let Some(expected) = expected else {
            let answer = self.ask(&request::put(&key, value, 0), plan).await?.answer;
            return Ok(Some(Version(request::revision(answer.header.as_ref()))));
        };
        let answered = self.ask(&request::compare_and_put(&key, value, expected), plan).await?;
        if answered.answer.succeeded {
            return Ok(Some(Version(request::revision(answered.answer.header.as_ref()))));
        }
        if !answered.is_ambiguous {
            return Ok(None);
        }
        // The compare may have met our own write, whose answer was lost.
        let found = self.read_back(&key, plan).await?.filter(|kv| kv.value == value);
        Ok(found.map(|kv| Version(kv.mod_revision)))
    }

    async fn txn(&self, request: &PbTxnRequest, plan: &Plan) -> Result<Answered<PbTxnResponse>, DcsError> {
        self.ask(request, plan).await
    }
}

fn lease_gone(plan: &Plan) -> DcsError {
    DcsError::Refused { what: plan.what.to_owned(), source: Some("the lease ended meanwhile".into()) }
}

#[async_trait]
impl Dcs for Etcd3 {
    async fn load(&self) -> Result<ClusterView, DcsError> {
        let plan = self.plan("reading the cluster", true);
        let answer = self.view(&plan).await;
        let member = answer.as_ref().ok().and_then(|view| view.member(self.me.as_ref()?)).map(|member| {
            let lease = member.session.as_ref().and_then(|session| session.0.parse().ok()).unwrap_or_default();
            (lease, member.data.clone())
        });
        self.own().member = member;
        answer.map(Arc::unwrap_or_clone)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.watcher.get_or_init(|| {
            let (pool, layout, me) = (self.pool.clone(), self.layout.clone(), self.me.clone());
            let (timing, changes, cache) = (self.timing.subscribe(), self.changes.clone(), self.cache.clone());
            let watcher = Watcher::new(pool, layout, me, timing, changes, cache);
            AbortOnDropHandle::new(tokio::spawn(watcher.run()))
        });
        self.changes.subscribe()
    }

    fn set_timing(&self, timing: Timing) {
        if self.timing.borrow().ttl != timing.ttl {
            self.own().lease = None;
        }
        self.timing.send_replace(timing);
    }

    fn reconfigure(&self, config: &DcsConfig) -> Result<Vec<Renewed>, DcsError> {
        let DcsConfig::Etcd3(config) = config else { return Ok(Vec::new()) };
        Ok(self.pool.replace(connect::access(config)?))
    }

    async fn touch_member(&self, value: &Map<String, Value>) -> Result<(), DcsError> {
        let plan = self.plan("writing the member key", false);
        let key = self.layout.member(self.me(plan.what)?);
        // The holder has just refreshed its lease when it renewed the lock.
        let mut recent = self.recent_lease();
        loop {
            let lease = match recent {
                Some(lease) => lease,
                None => self.refresh(&plan).await?,
            };
            let is_current = |(old, data): &(i64, Map<String, Value>)| *old == lease && write::is_same(data, value);
            if self.own().member.as_ref().is_some_and(is_current) {
                return Ok(());
            }
            self.own().member = None;
            let request = request::put(&key, &write::object(value), lease);
            match self.send(&request, &plan).await {
                Ok(_) => {
                    self.own().member = Some((lease, value.clone()));
                    return Ok(());
                }
                Err(Failed::Dcs(error)) => return Err(error),
                Err(Failed::LeaseNotFound) => self.forget_lease(lease),
            }
            if recent.take().is_none() {
                // The next call takes a new one.
                return Err(lease_gone(&plan));
            }
        }
    }

    async fn acquire_leader(&self, sync: Option<&SyncState>) -> Result<bool, DcsError> {
        let plan = self.plan("taking the leader key", true);
        let me = self.me(plan.what)?.as_bytes();
        let key = self.layout.key("leader");
        let sync = sync.map(|seen| (self.layout.key("sync"), seen.version));
        let request = |lease| {
            let create = request::create(&key, me, lease);
            match &sync {
                Some((sync, version)) => request::while_unchanged(create, sync, *version),
                None => create,
            }
        };
        let (answered, lease) = self.ask_with_lease(&plan, request).await?;
        if answered.answer.succeeded || !answered.is_ambiguous {
            return Ok(answered.answer.succeeded);
        }
        // Lost the race, or lost only the answer to having won it.
        let found = self.read_back(&key, &plan).await?;
        Ok(found.is_some_and(|kv| kv.value == me && kv.lease == lease))
    }

    async fn renew_leader(&self, seen: &LeaderKey) -> Result<bool, DcsError> {
        let plan = self.plan("renewing the leader key", true);
        let me = self.me(plan.what)?;
        let lease = self.refresh(&plan).await?;
        if seen.name == *me && seen.session.as_ref() == Some(&session(lease)) {
            return Ok(true);
        }
        let key = self.layout.key("leader");
        let (answered, _) = self.ask_with_lease(&plan, |lease| request::reattach(&key, me.as_bytes(), lease)).await?;
        Ok(request::is_reattached(&answered.answer))
    }

    async fn take_leader(&self) -> Result<(), DcsError> {
        let plan = self.plan("taking the leader key", true);
        let me = self.me(plan.what)?.as_bytes();
        let key = self.layout.key("leader");
        self.ask_with_lease(&plan, |lease| request::put(&key, me, lease)).await?;
        Ok(())
    }

    async fn release_leader(&self, status: Option<&Status>) -> Result<bool, DcsError> {
        let plan = self.plan("releasing the leader key", false);
        let me = self.me(plan.what)?;
        if let Some(status) = status {
            let request = request::put(&self.layout.key("status"), &write::status(status), 0);
            if let Err(error) = self.ask(&request, &plan).await {
                tracing::warn!(%error, "the last position could not be published");
            }
        }
        let request = request::delete_if_value(&self.layout.key("leader"), me.as_bytes());
        Ok(self.txn(&request, &plan).await?.answer.succeeded)
    }

    async fn race_initialize(&self, text: &str) -> Result<bool, DcsError> {
        let plan = self.plan("creating the initialize key", true);
        let request = request::create(&self.layout.key("initialize"), text.as_bytes(), 0);
        let answered = self.txn(&request, &plan).await?;
        if !answered.answer.succeeded && answered.is_ambiguous {
            // The value does not say whose it is, and two winners would make two clusters.
            return Err(DcsError::unavailable(format!("{}: it exists now, perhaps by our own doing", plan.what)));
        }
        Ok(answered.answer.succeeded)
    }

    async fn set_initialize(&self, text: &str) -> Result<(), DcsError> {
        let plan = self.plan("writing the initialize key", true);
        self.compare_and_put(&plan, "initialize", text.as_bytes(), None).await?;
        Ok(())
    }

    async fn cancel_initialize(&self) -> Result<(), DcsError> {
        let plan = self.plan("deleting the initialize key", true);
        self.ask(&request::delete(&self.layout.key("initialize")), &plan).await?;
        Ok(())
    }

    async fn write_config(&self, document: &Map<String, Value>, expected: Option<Version>) -> Result<bool, DcsError> {
        let plan = self.plan("writing the config key", false);
        Ok(self.compare_and_put(&plan, "config", &write::object(document), expected).await?.is_some())
    }

    async fn write_failover(&self, request: &FailoverKey, expected: Option<Version>) -> Result<bool, DcsError> {
        let plan = self.plan("writing the failover key", false);
        Ok(self.compare_and_put(&plan, "failover", &write::failover(request), expected).await?.is_some())
    }

    async fn write_sync(&self, state: &SyncState, expected: Option<Version>) -> Result<Option<Version>, DcsError> {
        let plan = self.plan("writing the sync key", true);
        self.compare_and_put(&plan, "sync", &write::sync(state), expected).await
    }

    async fn delete_sync(&self, expected: Option<Version>) -> Result<bool, DcsError> {
        let plan = self.plan("deleting the sync key", true);
        let key = self.layout.key("sync");
        let Some(expected) = expected else {
            self.ask(&request::delete(&key), &plan).await?;
            return Ok(true);
        };
        let answered = self.txn(&request::compare_and_delete(&key, expected), &plan).await?;
        if answered.answer.succeeded || !answered.is_ambiguous {
            return Ok(answered.answer.succeeded);
        }
        Ok(self.read_back(&key, &plan).await?.is_none())
    }

    async fn write_status(&self, status: &Status) -> Result<(), DcsError> {
        self.put("writing the status key", "status", &write::status(status)).await.map(drop)
    }

    async fn write_history(&self, history: &Value) -> Result<(), DcsError> {
        self.put("writing the history key", "history", &write::history(history)).await.map(drop)
    }

    async fn write_failsafe(&self, topology: &BTreeMap<MemberName, String>) -> Result<(), DcsError> {
        self.put("writing the failsafe key", "failsafe", &write::failsafe(topology)).await.map(drop)
    }

    async fn names(&self) -> Result<Vec<String>, DcsError> {
        let plan = self.plan("reading the names of the clusters", true);
        let answered = self.ask(&request::read_names(&self.layout.prefix()), &plan).await?;
        let keys: Vec<&str> = answered.answer.kvs.iter().filter_map(|kv| std::str::from_utf8(&kv.key).ok()).collect();
        Ok(self.layout.names(keys.into_iter()))
    }

    async fn load_all(&self, group: Option<u32>) -> Result<BTreeMap<String, ClusterView>, DcsError> {
        let plan = self.plan("reading all clusters", true);
        let answered = self.ask(&request::read_prefix(&self.layout.prefix(), false), &plan).await?;
        let keys: Vec<KeyValue> = answered.answer.kvs.into_iter().filter_map(request::key_value).collect();
        Ok(self.layout.views(&keys, group))
    }

    async fn delete_cluster(&self) -> Result<(), DcsError> {
        let plan = self.plan("deleting the cluster", true);
        self.ask(&request::delete_prefix(&self.layout.prefix()), &plan).await?;
        Ok(())
    }
}
