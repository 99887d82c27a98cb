//! The real server behind the port [`Postgres`]: one data directory on this machine.
//!
//! `Inner` holds what is known between calls; the work is in the files below, one concern each. While a job (a
//! start, a stop, a clone) runs, the job owns the state word; otherwise a look does.

mod arrivals;
mod copies;
mod files;
mod follow;
mod look;
mod promote;
mod ready;
mod restored;
mod settings;
mod start;
mod stop;
mod streams;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures::future::BoxFuture;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::cluster::{
    ControlData, HistoryLine, InstanceState, PendingValue, Role, SlotTending, State, Timeline, Unfinished, Upstream,
};
use crate::config::{BootstrapConfig, PostgresConfig};

use super::callbacks::Callbacks;
use super::connection::{self, CONNECT_LIMIT, Failure, Session, Sessions};
use super::process::{self, Postmaster};
use super::site::Site;
use super::slots::keeper::Keeper;
use super::{
    Callback, ClonePlan, Divergence, FollowChange, Look, PgError, Postgres, Recovery, Rewound, SlotSync, StartPlan,
    Started, StopPlan, StopProgress, WantedSlot, archive, blocking, bootstrap, clone, crash_recovery, query, removal,
    rewind, slots, unfinished,
};

/// One question to our own server, unless a look has less time for it.
const ASK_LIMIT: Duration = Duration::from_secs(5);

/// A checkpoint may have all of shared memory to write.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(600);

/// The server on this machine.
pub struct Server {
    inner: Arc<Inner>,
    _watcher: AbortOnDropHandle<()>,
}

/// What is known between calls.
struct Inner {
    site: Site,
    bootstrap: Option<BootstrapConfig>,
    events: Arc<Notify>,
    sessions: Sessions,
    keeper: Keeper,
    callbacks: Callbacks,
    known: Mutex<Known>,
    /// Held while files are written and the server is told: two writers would undo each other's work.
    rewriting: tokio::sync::Mutex<()>,
    /// Held by whoever reads the files of the data directory for a look.
    looks: Arc<Semaphore>,
    /// How many jobs own the state word.
    jobs: AtomicUsize,
    /// Wakes the watcher when there is another postmaster, or one to wait for.
    watcher: Notify,
    awaits_ready: AtomicBool,
    streams: streams::Streams,
    /// A server was taken over and has not been compared with our settings yet.
    awaits_settings: AtomicBool,
}

/// Facts that outlive a call.
#[derive(Default)]
struct Known {
    /// The role last told to us, for callbacks.
    role: Option<Role>,
    /// The postmaster that the facts below are about.
    postmaster: Option<Postmaster>,
    /// Its settings were taken over, or are ours from the start.
    is_joined: bool,
    start_time: Option<String>,
    version: Option<u32>,
    is_rewindable: Option<bool>,
    pending: BTreeMap<String, PendingValue>,
    /// The parameters last wanted.
    wanted: BTreeMap<String, String>,
    /// The recovery settings last written; `None` when the file has to be asked.
    recovery: Option<BTreeMap<String, String>>,
    /// Whether `hot_standby_feedback` is forced; `None`: it was not said yet.
    feedback: Option<bool>,
    /// The synchronous standbys, when they are ours to set.
    managed: Option<String>,
    /// Control data with the time and size of the file it was read from.
    control: Option<((SystemTime, u64), ControlData)>,
    has_rewind_program: Option<(PathBuf, bool)>,
    /// The new cluster was made by the operator's own method, and its recovery has not been finished yet.
    restored: Option<restored::Restored>,
    /// The files as last seen.
    files: Option<look::Files>,
}

/// While it lives, a job owns the state word.
struct Job<'a>(&'a AtomicUsize);

impl Drop for Job<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Server {
    /// A server with these settings; `bootstrap` is what a new cluster is made from. Needs a runtime. Nothing is
    /// started or changed: the first look finds what runs.
    pub fn new(config: Arc<PostgresConfig>, bootstrap: Option<BootstrapConfig>) -> Self {
        let inner = Arc::new(Inner {
            site: Site::new(config),
            bootstrap,
            events: Arc::new(Notify::new()),
            sessions: Sessions::default(),
            keeper: Keeper::default(),
            callbacks: Callbacks::new(),
            known: Mutex::default(),
            rewriting: tokio::sync::Mutex::new(()),
            looks: Arc::new(Semaphore::new(1)),
            jobs: AtomicUsize::new(0),
            watcher: Notify::new(),
            awaits_ready: AtomicBool::new(false),
            streams: streams::Streams::default(),
            awaits_settings: AtomicBool::new(false),
        });
        let watcher = AbortOnDropHandle::new(tokio::spawn(ready::watch(Arc::clone(&inner))));
        Self { inner, _watcher: watcher }
    }

    /// Where the server lives.
    pub fn site(&self) -> &Site {
        &self.inner.site
    }

    /// The postmaster last seen or started, living or not. Waits for nobody.
    pub fn postmaster(&self) -> Option<Postmaster> {
        self.inner.site.postmaster.get()
    }

    /// Waits until every callback so far was taken up, at most `limit`: for the last moment before we end.
    pub async fn settle_callbacks(&self, limit: Duration) {
        self.inner.callbacks.settle(limit).await;
    }
}

impl Inner {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn job(&self) -> Job<'_> {
        self.jobs.fetch_add(1, Ordering::AcqRel);
        Job(&self.jobs)
    }

    fn is_job_running(&self) -> bool {
        self.jobs.load(Ordering::Acquire) > 0
    }

    /// Asks our own server on a kept connection, or on a new one if there is none that works.
    async fn ask<T, Q>(&self, limit: Duration, question: Q) -> Result<T, Failure>
    where
        Q: for<'a> Fn(&'a Client) -> BoxFuture<'a, Result<T, tokio_postgres::Error>> + Send + Sync,
        T: Send,
    {
        let asked = async {
            if let Some(session) = self.sessions.take() {
                match question(&session).await {
                    Ok(answer) => {
                        self.sessions.give(session);
                        return Ok(answer);
                    }
                    Err(error) => {
                        let failure = Failure::of(&error);
                        if matches!(failure, Failure::Refused(_)) {
                            self.sessions.give(session);
                            return Err(failure);
                        }
                    }
                }
            }
            tracing::debug!("establishing a new heartbeat connection to postgres");
            let params = self.site.superuser_params();
            let session = connection::open(&params, "Patroni heartbeat", limit.min(CONNECT_LIMIT)).await?;
            let answer = question(&session).await.map_err(|error| Failure::of(&error))?;
            self.sessions.give(session);
            Ok(answer)
        };
        match timeout(limit, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::Silent(format!("no answer within {limit:?}"))),
        }
    }

    /// A kept connection, for more than one question, or a new one. One that still works is to be given back.
    async fn session(&self) -> Result<Session, PgError> {
        match self.sessions.take() {
            Some(session) => Ok(session),
            None => self.site.connect(&self.site.superuser_params()).await,
        }
    }

    fn callback(&self, event: Callback, role: Role) {
        let config = self.site.config();
        if let Some(command) = config.callbacks.get(event.name()).filter(|command| !command.trim().is_empty()) {
            self.callbacks.call(command, event, role, &config.scope);
        }
    }

    /// Runs CHECKPOINT on a connection of its own, which may take its time.
    async fn checkpoint(&self, limit: Duration) -> Result<(), PgError> {
        let session = self.site.connect(&self.site.superuser_params()).await?;
        let run = async {
            session.batch_execute("SET statement_timeout = 0").await?;
            session.batch_execute("CHECKPOINT").await
        };
        match timeout(limit, run).await {
            Ok(result) => result.map_err(|error| PgError::Query(connection::describe(&error))),
            Err(_) => Err(PgError::Timeout(limit, "CHECKPOINT".to_owned())),
        }
    }

    /// Another data directory is to come: what was known of the old one is forgotten.
    fn forget_data(&self) {
        let mut known = self.known();
        let (role, managed, feedback) = (known.role, known.managed.clone(), known.feedback);
        *known = Known { role, managed, feedback, ..Known::default() };
    }

    async fn remove(&self, how: fn(&std::path::Path) -> Result<(), PgError>) -> Result<(), PgError> {
        let _job = self.job();
        if self.site.is_running() {
            return Err(PgError::Refused("the data directory is in use: stop the server first".to_owned()));
        }
        self.forget_data();
        let data_dir = self.site.data_dir();
        blocking(move || {
            how(&data_dir)?;
            unfinished::forget(&data_dir)
        })
        .await
    }
}

#[async_trait]
impl Postgres for Server {
    async fn look(&self, ask: &Look) -> InstanceState {
        look::look(&self.inner, ask).await
    }

    fn events(&self) -> Arc<Notify> {
        Arc::clone(&self.inner.events)
    }

    async fn start(&self, plan: &StartPlan, cancel: &CancellationToken) -> Result<Started, PgError> {
        start::start(&self.inner, plan, State::Starting, cancel).await
    }

    async fn stop(
        &self,
        plan: &StopPlan,
        progress: Option<mpsc::Sender<StopProgress>>,
        cancel: &CancellationToken,
    ) -> Result<(), PgError> {
        stop::stop(&self.inner, plan, progress, cancel).await
    }

    async fn restart(&self, plan: &StartPlan, cancel: &CancellationToken) -> Result<Started, PgError> {
        start::restart(&self.inner, plan, cancel).await
    }

    fn quit_now(&self) {
        self.inner.site.postmaster.quit();
    }

    async fn serves_clients(&self) -> bool {
        let (data_dir, postmaster) = (self.inner.site.data_dir(), self.postmaster());
        let found = blocking(move || Ok(process::client_backends(&data_dir, postmaster))).await;
        // Whoever cannot tell must assume so.
        found.map_or(true, |found| found > 0)
    }

    async fn pre_promote(&self, cancel: &CancellationToken) -> bool {
        promote::pre_promote(&self.inner, cancel).await
    }

    async fn leave_out_timelines(&self, taken: &[Timeline]) -> Result<(), PgError> {
        let (wal_dir, taken) = (self.inner.site.wal_dir(), taken.to_vec());
        blocking(move || promote::leave_out(&wal_dir, &taken)).await
    }

    async fn promote(&self, limit: Duration, cancel: &CancellationToken) -> Result<bool, PgError> {
        promote::promote(&self.inner, limit, cancel).await
    }

    async fn follow_change(&self, upstream: Option<&Upstream>) -> FollowChange {
        follow::change(&self.inner, upstream).await
    }

    async fn follow(&self, upstream: Option<&Upstream>) -> Result<(), PgError> {
        follow::follow(&self.inner, upstream).await
    }

    async fn retry_stream(&self) -> Result<(), PgError> {
        follow::retry_stream(&self.inner).await
    }

    async fn resume_replay(&self) -> Result<(), PgError> {
        Ok(self.inner.ask(ASK_LIMIT, |client| Box::pin(query::resume_replay(client))).await?)
    }

    async fn configure(&self, config: Arc<PostgresConfig>, force: bool) -> Result<(), PgError> {
        settings::configure(&self.inner, config, force).await
    }

    async fn set_synchronous_standby_names(&self, value: Option<&str>) -> Result<(), PgError> {
        settings::set_synchronous(&self.inner, value).await
    }

    async fn bootstrap(&self, cancel: &CancellationToken) -> Result<(), PgError> {
        let Some(config) = &self.inner.bootstrap else {
            return Err(PgError::Refused("no `bootstrap` section: this node must not create a cluster".to_owned()));
        };
        let _job = self.inner.job();
        self.inner.forget_data();
        let data_dir = self.inner.site.data_dir();
        blocking(move || {
            unfinished::note(&data_dir, Unfinished::Bootstrap);
            Ok(())
        })
        .await?;
        let state = match bootstrap::create(&self.inner.site, config, cancel).await? {
            bootstrap::Made::New => State::Starting,
            bootstrap::Made::Restored(recovering) => {
                restored::begin(&self.inner, &recovering).await?;
                State::BootstrapStarting
            }
        };
        let plan = StartPlan { recovery: Recovery::Keep, role: Role::Primary, timeout: None };
        start::start(&self.inner, &plan, state, cancel).await.map(drop)
    }

    async fn post_bootstrap(&self, cancel: &CancellationToken) -> Result<(), PgError> {
        let config = self.inner.bootstrap.clone().unwrap_or_default();
        let session = self.inner.site.connect(&self.inner.site.superuser_params()).await?;
        bootstrap::post_bootstrap(&self.inner.site, &config, &session, cancel).await?;
        restored::end(&self.inner, cancel).await
    }

    async fn clone_from(&self, plan: &ClonePlan, cancel: &CancellationToken) -> Result<(), PgError> {
        let _job = self.inner.job();
        self.inner.forget_data();
        clone::clone_from(&self.inner.site, plan, cancel).await
    }

    async fn check_divergence(&self, leader: &Upstream) -> Divergence {
        rewind::check_divergence(&self.inner.site, leader).await
    }

    async fn rewind(&self, leader: &Upstream, cancel: &CancellationToken) -> Rewound {
        let _job = self.inner.job();
        rewind::rewind(&self.inner.site, leader, cancel).await
    }

    async fn crash_recovery(&self, cancel: &CancellationToken) -> Result<(), PgError> {
        let _job = self.inner.job();
        stop::end_orphans(&self.inner).await;
        crash_recovery::crash_recovery(&self.inner.site, cancel).await
    }

    async fn archive_last_segment(&self, cancel: &CancellationToken) -> Result<(), PgError> {
        let _job = self.inner.job();
        archive::archive_last(&self.inner.site, cancel).await
    }

    async fn checkpoint(&self) -> Result<(), PgError> {
        self.inner.checkpoint(CHECKPOINT_LIMIT).await
    }

    async fn remove_data_dir(&self) -> Result<(), PgError> {
        self.inner.remove(removal::set_aside).await
    }

    async fn move_data_dir_away(&self) -> Result<(), PgError> {
        self.inner.remove(removal::move_data_dir_away).await
    }

    async fn discard_unfinished(&self) -> Result<(), PgError> {
        self.inner.remove(unfinished::discard).await
    }

    async fn forget_unfinished(&self) -> Result<(), PgError> {
        let data_dir = self.inner.site.data_dir();
        blocking(move || unfinished::forget(&data_dir)).await
    }

    async fn sync_slots(&self, sync: &SlotSync) -> Result<(), PgError> {
        let site = &self.inner.site;
        let session = self.inner.session().await?;
        let elsewhere = |database: String| async move {
            let mut params = site.superuser_params();
            params.dbname = Some(database);
            site.connect(&params).await
        };
        slots::sync(&session, sync, elsewhere).await?;
        self.inner.sessions.give(session);
        Ok(())
    }

    fn tend_slots(&self, tending: &SlotTending) {
        copies::tend(&self.inner, tending);
    }

    async fn copy_slots(
        &self,
        leader: &Upstream,
        slots: &[WantedSlot],
        cancel: &CancellationToken,
    ) -> Result<Option<Started>, PgError> {
        copies::copy(&self.inner, leader, slots, cancel).await
    }

    async fn force_hot_standby_feedback(&self, on: bool) -> Result<(), PgError> {
        copies::force_feedback(&self.inner, on).await
    }

    async fn timeline_history(&self, timeline: Timeline) -> Result<(Vec<HistoryLine>, Option<String>), PgError> {
        let path = self.inner.site.wal_dir().join(format!("{:08X}.history", timeline.0));
        blocking(move || promote::history(&path, timeline)).await
    }

    fn callback(&self, event: Callback, role: Role) {
        self.inner.known().role = Some(role);
        self.inner.callback(event, role);
    }

    async fn replication(&self) -> Vec<serde_json::Value> {
        let asked = self.inner.ask(ASK_LIMIT, |client| Box::pin(query::replication(client))).await;
        asked.unwrap_or_default()
    }
}
