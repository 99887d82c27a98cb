//! Starting: files, the process, and the wait until it takes connections.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cluster::{PendingValue, State};
use crate::postgres::conf::{parameters, recovery};
use crate::postgres::process::{self, Named, Postmaster, Spawn};
use crate::postgres::{PgError, Recovery, StartPlan, Started, StopMode, StopPlan, data_dir, process_tree, version};

use super::files::{Files, Signal, recovery_on_disk};
use super::ready::{self, Probe, TICK};
use super::{Inner, blocking, settings, stop};

/// A server that says it is ready and does not answer is believed after this long.
const BELIEVE_AFTER: Duration = Duration::from_secs(3);

/// A server that turns us away although it says it is ready is asked again after this.
const AGAIN: Duration = Duration::from_millis(100);

/// A server told to quit while it was being started is told again after this long, and so often before it is killed.
const QUIT_PAUSE: Duration = Duration::from_millis(100);
const QUIT_TRIES: usize = 5;

pub(super) async fn restart(
    inner: &Arc<Inner>,
    plan: &StartPlan,
    cancel: &CancellationToken,
) -> Result<Started, PgError> {
    restart_after(inner, plan, cancel, std::future::ready(())).await
}

/// Restarts, with some work while the server is down.
pub(super) async fn restart_after(
    inner: &Arc<Inner>,
    plan: &StartPlan,
    cancel: &CancellationToken,
    between: impl Future<Output = ()> + Send,
) -> Result<Started, PgError> {
    let _job = inner.job();
    inner.site.set_state(State::Restarting);
    let stop_plan = StopPlan { mode: StopMode::Fast, checkpoint: true, timeout: None };
    let result = match stop::stop_keeping_state(inner, &stop_plan, None, cancel).await {
        Ok(()) => {
            between.await;
            start(inner, plan, State::Starting, cancel).await
        }
        Err(error) => Err(error),
    };
    if result.is_err() && !inner.site.state().0.is_starting() {
        tracing::warn!("restart failed ({})", inner.site.state().0);
        inner.site.set_state(State::RestartFailed);
    }
    result
}

pub(super) async fn start(
    inner: &Arc<Inner>,
    plan: &StartPlan,
    state: State,
    cancel: &CancellationToken,
) -> Result<Started, PgError> {
    let _job = inner.job();
    let quits = inner.site.postmaster.quits();
    if cancel.is_cancelled() {
        return Err(PgError::Cancelled);
    }
    let mut stranger = None;
    let named = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(PgError::Cancelled),
        named = stop::named(inner) => named?,
    };
    match named {
        Named::Postmaster(_) => {
            tracing::error!("Cannot start PostgreSQL because one is already running.");
            inner.site.set_state(State::Starting);
            wait_in_background(inner);
            return Ok(Started::StillStarting);
        }
        Named::SingleUser(pid) => {
            return Err(PgError::Refused(format!(
                "a server in single-user mode (pid {pid}) uses the data directory; wait for its end"
            )));
        }
        Named::Stranger(pid) => stranger = Some(pid),
        Named::Nobody => {}
    }
    inner.site.set_state(state);
    let started = start_now(inner, plan, stranger, quits, cancel).await;
    if let Err(error) = &started {
        // A postmaster that lives on after a cancelled wait is still starting.
        if inner.site.postmaster.living().is_none() {
            inner.site.set_state(State::StartFailed);
        }
        tracing::debug!("start failed: {error}");
    }
    started
}

async fn start_now(
    inner: &Arc<Inner>,
    plan: &StartPlan,
    stranger: Option<i32>,
    quits: u64,
    cancel: &CancellationToken,
) -> Result<Started, PgError> {
    inner.sessions.clear();
    let mut spawn = prepared(inner, plan, cancel).await?;
    if let Some(pid) = stranger {
        tracing::info!("Telling pg_ctl that it is safe to ignore postmaster.pid for process {pid}");
        spawn.env.insert("PG_GRANDPARENT_PID".to_owned(), pid.to_string());
    }
    stop::end_orphans(inner).await;
    // The last moment at which nothing has happened yet. An order to quit from here on finds the new process or is
    // seen below.
    if cancel.is_cancelled() || inner.site.postmaster.quits() != quits {
        tracing::info!("PostgreSQL start cancelled.");
        return Err(PgError::Cancelled);
    }
    let postmaster = process::spawn(&spawn).await?;
    tracing::info!("postmaster pid={}", postmaster.pid);
    inner.site.postmaster.set(postmaster);
    {
        let mut known = inner.known();
        known.postmaster = Some(postmaster);
        known.is_joined = true;
        known.start_time = None;
        known.version = None;
        known.is_rewindable = None;
    }
    inner.watcher.notify_one();
    if inner.site.postmaster.quits() != quits {
        tracing::warn!("told to quit while the server was being started");
        see_off(postmaster).await;
    }
    wait(inner, postmaster, plan.timeout, cancel).await
}

/// Tells a server that was only just started to quit until it has heard it, and kills it if it does not.
async fn see_off(postmaster: Postmaster) {
    for _ in 0..QUIT_TRIES {
        postmaster.quit();
        if tokio::time::timeout(QUIT_PAUSE, postmaster.ended()).await.is_ok() {
            return;
        }
    }
    let killed = blocking(move || Ok(process_tree::kill_tree(postmaster.pid))).await;
    if killed.unwrap_or(false) {
        tracing::warn!("the server did not quit in time and was killed");
    }
}

/// A disk that does not answer holds the writing up, but not whoever calls the start off: the writing goes on beside,
/// with the writers' lock in its hands, so that all that a later start writes comes after it.
async fn prepared(inner: &Arc<Inner>, plan: &StartPlan, cancel: &CancellationToken) -> Result<Spawn, PgError> {
    let (here, plan) = (Arc::clone(inner), plan.clone());
    let preparing = tokio::spawn(async move { prepare(&here, &plan).await });
    tokio::select! {
        biased;
        () = cancel.cancelled() => {
            tracing::info!("PostgreSQL start cancelled while its files were being written.");
            Err(PgError::Cancelled)
        }
        prepared = preparing => {
            prepared.unwrap_or_else(|error| Err(PgError::Refused(format!("writing the files broke off: {error}"))))
        }
    }
}

/// Writes everything and composes the command line.
async fn prepare(inner: &Arc<Inner>, plan: &StartPlan) -> Result<Spawn, PgError> {
    let _rewriting = inner.rewriting.lock().await;
    let mut config = inner.site.config();
    inner.site.fix_address(None);
    let config_file = inner.site.config_file();
    let (here, planned) = (Arc::clone(inner), plan.clone());
    let (recovery, signal, is_standby) = blocking(move || kind_of_start(&here, &planned)).await?;
    let mut wanted = settings::wanted_parameters(inner).await?;
    let mut pending: BTreeMap<String, PendingValue> = BTreeMap::new();
    if is_standby {
        pending = parameters::raise_for_standby(&mut wanted, &inner.site.report().await?);
    }
    let restored = inner.known().restored;
    if let Some(restored) = restored {
        config = restored.adjusted(&config, &mut wanted);
    }
    let args = parameters::command_line(&config, &config_file, &wanted);
    let files = Files {
        config: Arc::clone(&config),
        config_file,
        parameters: wanted.clone(),
        recovery: recovery.clone(),
        signal,
        keeps_auto_conf: restored.is_some_and(|restored| restored.keeps_auto_conf),
    };
    let pgpass = inner.site.pgpass();
    blocking(move || {
        data_dir::prepare_directories(&files.config, &pgpass)?;
        files.write()
    })
    .await?;
    let mut known = inner.known();
    known.role = Some(plan.role);
    known.wanted = wanted;
    known.recovery = Some(recovery);
    known.pending = pending;
    Ok(Spawn { program: inner.site.program_path("postgres"), args, env: BTreeMap::new() })
}

/// The recovery settings of a start, what is to be done to the signal files, and whether it will be a standby.
fn kind_of_start(inner: &Inner, plan: &StartPlan) -> Result<(BTreeMap<String, String>, Signal, bool), PgError> {
    let directory = inner.site.data_dir();
    let major = version::of_data_dir(&directory).ok_or_else(|| {
        PgError::Refused(format!("{}: no PG_VERSION to be read, so there is no cluster to start", directory.display()))
    })?;
    version::check(major)?;
    let (recovery, signal) = recovery_settings(inner, plan, major, &inner.site.config_file())?;
    let is_standby = match signal {
        Signal::Standby => true,
        Signal::Keep => data_dir::is_recovery_configured(&directory),
        Signal::Remove => false,
    };
    Ok((recovery, signal, is_standby))
}

/// The recovery settings of a start. Those of a standby need the password file as well.
fn recovery_settings(
    inner: &Inner,
    plan: &StartPlan,
    major: u32,
    config_file: &Path,
) -> Result<(BTreeMap<String, String>, Signal), PgError> {
    match &plan.recovery {
        Recovery::None => Ok((BTreeMap::new(), Signal::Remove)),
        Recovery::Keep => {
            let kept = inner.known().recovery.clone();
            Ok((kept.unwrap_or_else(|| recovery_on_disk(config_file)), Signal::Keep))
        }
        Recovery::Standby(upstream) => {
            if let Some(upstream) = upstream {
                inner.site.replication_params(upstream).write_pgpass(&inner.site.pgpass())?;
            }
            let passfile = inner.site.pgpass().display().to_string();
            Ok((recovery::wanted(&inner.site.config(), upstream.as_ref(), major, &passfile), Signal::Standby))
        }
    }
}

/// Waits for connections, and no longer than it was given.
async fn wait(
    inner: &Arc<Inner>,
    postmaster: Postmaster,
    limit: Option<Duration>,
    cancel: &CancellationToken,
) -> Result<Started, PgError> {
    let limit = limit.filter(|limit| !limit.is_zero()).unwrap_or(inner.site.config().pg_ctl_timeout);
    let until = Instant::now() + limit;
    let ended = postmaster.ended();
    tokio::pin!(ended);
    let mut pause = TICK;
    let mut silent_since = None;
    loop {
        tokio::select! {
            biased;
            () = &mut ended => {
                tracing::error!("postmaster is not running");
                return Err(PgError::Program {
                    program: "postgres".to_owned(),
                    detail: "ended during its start; its own words are in the server's log".to_owned(),
                });
            }
            () = cancel.cancelled() => {
                wait_in_background(inner);
                return Err(PgError::Cancelled);
            }
            () = tokio::time::sleep_until(until) => {
                tracing::warn!("Timed out waiting for PostgreSQL to start");
                wait_in_background(inner);
                return Ok(Started::StillStarting);
            }
            says_ready = ready::says_ready(inner, postmaster, pause) => {
                if !says_ready {
                    continue;
                }
            }
        }
        match ready::probe(inner).await {
            Probe::Ready => {
                ready::became_ready(inner).await;
                return Ok(Started::Running);
            }
            Probe::NotReady => pause = AGAIN,
            Probe::Silent(why) => {
                pause = AGAIN;
                if silent_since.get_or_insert_with(Instant::now).elapsed() > BELIEVE_AFTER {
                    tracing::warn!("Can't determine PostgreSQL startup status, assuming running: {why}");
                    ready::became_ready(inner).await;
                    return Ok(Started::Running);
                }
            }
        }
    }
}

/// From here on the watcher waits for the server.
fn wait_in_background(inner: &Inner) {
    inner.awaits_ready.store(true, Ordering::Release);
    inner.watcher.notify_one();
}
