//! Settings of a running server: taking them over, writing changed ones, and telling it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal as UnixSignal;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cluster::{PendingValue, Role, State};
use crate::config::PostgresConfig;
use crate::config::parameters::is_recovery_parameter;
use crate::postgres::conf::parameters;
use crate::postgres::conf::reload::{self, Live};
use crate::postgres::{Callback, PgError, configured, data_dir, query, version};

use super::files::{Files, Signal, Written, recovery_on_disk};
use super::{ASK_LIMIT, Inner, blocking};

/// How long the server may take to read its files after the signal.
const RELOAD_LIMIT: Duration = Duration::from_secs(1);

/// How often it is asked whether it has.
const RELOAD_TICK: Duration = Duration::from_millis(20);

/// By this a standby tells the primary what it still needs.
const FEEDBACK: &str = "hot_standby_feedback";

/// Takes over a server that was running before us: what it was given is what was wanted so far. Nothing is changed by
/// that; the caller sees to it that our own settings are compared with it soon.
pub(super) async fn join(inner: &Inner) -> Result<(), PgError> {
    let _rewriting = inner.rewriting.lock().await;
    join_locked(inner).await
}

async fn join_locked(inner: &Inner) -> Result<(), PgError> {
    if inner.known().is_joined {
        return Ok(());
    }
    let live = inner.ask(ASK_LIMIT, |client| Box::pin(query::settings(client))).await?;
    let config_file = inner.site.config_file();
    let taken = reload::taken_over(&live, &config_file.display().to_string());
    let is_operators = inner.site.config().parameters.contains_key(parameters::SYNCHRONOUS);
    let recovery = recovery_on_disk(&config_file);
    {
        let mut known = inner.known();
        if known.managed.is_none() && !is_operators {
            // Somebody waits for these standbys with each commit; forgetting them would be silent.
            known.managed = taken.get(parameters::SYNCHRONOUS).filter(|names| !names.is_empty()).cloned();
        }
        if known.feedback.is_none() {
            // To take it back before anybody said so would let the primary remove what copied slots need.
            known.feedback = Some(taken.get(FEEDBACK).is_some_and(|value| value == "on"));
        }
        known.wanted = taken;
        known.recovery = Some(recovery);
        known.is_joined = true;
    }
    let pending = pending(inner, &live).await;
    inner.known().pending = pending;
    tracing::info!("took over the running server");
    Ok(())
}

pub(super) async fn configure(inner: &Arc<Inner>, config: Arc<PostgresConfig>, force: bool) -> Result<(), PgError> {
    inner.site.set_config(config);
    apply(inner, force).await
}

pub(super) async fn set_synchronous(inner: &Arc<Inner>, value: Option<&str>) -> Result<(), PgError> {
    inner.known().managed = value.map(str::to_owned);
    apply(inner, false).await
}

/// Writes what is wanted, if the running server has it otherwise, and tells the server. Without a running server
/// nothing is done: the next start writes everything.
pub(super) async fn apply(inner: &Arc<Inner>, force: bool) -> Result<(), PgError> {
    if inner.site.state().0 != State::Running || !inner.site.is_running() {
        return Ok(());
    }
    if inner.known().restored.is_some() {
        tracing::info!("Skipping PostgreSQL configuration update while in custom bootstrap.");
        return Ok(());
    }
    let rewriting = inner.rewriting.lock().await;
    // Before the parameters are written, or what only the server knows would be lost.
    let (live, is_let_in) = match ask_settings(inner).await {
        Ok(live) => (live, false),
        Err(error) => (let_in(inner, error).await?, true),
    };
    let before = inner.known().wanted.clone();
    let kept = recovery_in_force(inner);
    let files = files(inner, kept.clone(), Signal::Keep).await?;
    let changes = reload::changes(&files.parameters, &before, &live);
    for line in &changes.lines {
        tracing::info!("{line}");
    }
    let must_write = force || changes.is_any;
    let written = match must_write {
        true => write(inner, kept, Signal::Keep).await?,
        false => Written { main: false, access: blocking(move || files.write_access_only()).await? },
    };
    if !must_write && !written.access && !is_let_in {
        tracing::info!("No PostgreSQL configuration items changed, nothing to reload.");
        return Ok(());
    }
    if must_write {
        inner.known().pending.extend(changes.pending);
    }
    reload(inner).await?;
    drop(rewriting);
    Ok(())
}

async fn ask_settings(inner: &Inner) -> Result<Vec<Live>, PgError> {
    join_locked(inner).await?;
    Ok(inner.ask(ASK_LIMIT, |client| Box::pin(query::settings(client))).await?)
}

/// What the server has, after it refused to say. That may be for its access rules: those that are wanted now need
/// nothing of it, and are tried first. Otherwise whoever has locked the agent out could not let it in again.
async fn let_in(inner: &Inner, error: PgError) -> Result<Vec<Live>, PgError> {
    let files = files(inner, BTreeMap::new(), Signal::Keep).await?;
    let Some(postmaster) = inner.site.postmaster.living() else { return Err(error) };
    if !blocking(move || files.write_access_only()).await? || !postmaster.signal(UnixSignal::SIGHUP) {
        return Err(error);
    }
    tracing::warn!("the server could not be asked for its settings ({error}); its access rules were written first");
    let until = Instant::now() + RELOAD_LIMIT;
    loop {
        tokio::time::sleep(RELOAD_TICK).await;
        match ask_settings(inner).await {
            Err(error) if Instant::now() >= until => return Err(error),
            Err(_) => {}
            answer => return answer,
        }
    }
}

/// The recovery settings that a rewrite must keep; a primary has none.
fn recovery_in_force(inner: &Inner) -> BTreeMap<String, String> {
    if !data_dir::is_recovery_configured(&inner.site.data_dir()) {
        return BTreeMap::new();
    }
    let known = inner.known().recovery.clone();
    known.unwrap_or_else(|| recovery_on_disk(&inner.site.config_file()))
}

async fn files(inner: &Inner, recovery: BTreeMap<String, String>, signal: Signal) -> Result<Files, PgError> {
    let (config, parameters) = (inner.site.config(), wanted_parameters(inner).await?);
    let config_file = inner.site.config_file();
    Ok(Files { config, config_file, parameters, recovery, signal, keeps_auto_conf: false })
}

/// The parameters for the main part of the file, as far as the server takes them.
pub(super) async fn wanted_parameters(inner: &Inner) -> Result<BTreeMap<String, String>, PgError> {
    let directory = inner.site.data_dir();
    let major = version::of_data_dir(&directory)
        .ok_or_else(|| PgError::Refused(format!("{}: no PG_VERSION to be read", directory.display())))?;
    let program = inner.site.programs_version().await?;
    let version = if version::major(program) == major { program } else { major };
    let managed = inner.known().managed.clone();
    let is_feedback_forced = inner.known().feedback == Some(true);
    let mut fitted = parameters::effective(&inner.site.config(), version, managed.as_deref());
    if !fitted.unknown.is_empty() {
        fitted.keep_known(&inner.site.described_parameters().await?);
    }
    for warning in &fitted.warnings {
        tracing::warn!("{warning}");
    }
    if is_feedback_forced {
        fitted.parameters.insert(FEEDBACK.to_owned(), "on".to_owned());
    }
    Ok(fitted.parameters)
}

/// Writes all files with these recovery settings. The caller holds the writers' lock.
pub(super) async fn write(
    inner: &Arc<Inner>,
    recovery: BTreeMap<String, String>,
    signal: Signal,
) -> Result<Written, PgError> {
    let files = files(inner, recovery.clone(), signal).await?;
    let parameters = files.parameters.clone();
    let written = blocking(move || files.write()).await?;
    let mut known = inner.known();
    known.wanted = parameters;
    known.recovery = Some(recovery);
    Ok(written)
}

/// Tells the server to read its files, waits until it has, and notes what waits for a restart.
pub(super) async fn reload(inner: &Arc<Inner>) -> Result<(), PgError> {
    let Some(postmaster) = inner.site.postmaster.living() else { return Ok(()) };
    let before = inner.ask(ASK_LIMIT, |client| Box::pin(query::load_time(client))).await;
    tracing::info!("Reloading PostgreSQL configuration.");
    if !postmaster.signal(UnixSignal::SIGHUP) {
        return Err(PgError::Refused(format!("the server (pid {}) could not be told to reload", postmaster.pid)));
    }
    let (role, is_bootstrap) = {
        let known = inner.known();
        (known.role.unwrap_or(Role::Replica), known.restored.is_some())
    };
    if !is_bootstrap {
        inner.callback(Callback::OnReload, role);
    }
    let Ok(before) = before else { return Ok(()) };
    let until = Instant::now() + RELOAD_LIMIT;
    while Instant::now() < until {
        tokio::time::sleep(RELOAD_TICK).await;
        if inner.ask(RELOAD_LIMIT, |client| Box::pin(query::load_time(client))).await.is_ok_and(|at| at != before) {
            break;
        }
    }
    let live = inner.ask(ASK_LIMIT, |client| Box::pin(query::settings(client))).await?;
    let pending = pending(inner, &live).await;
    if !pending.is_empty() && pending != inner.known().pending {
        let wanted = inner.known().wanted.clone();
        let strange: Vec<&str> =
            pending.keys().map(String::as_str).filter(|name| !wanted.contains_key(*name)).collect();
        if !strange.is_empty() {
            tracing::info!(
                "PostgreSQL configuration parameters requiring restart ({}) seem to be changed bypassing Patroni \
                 config. Setting 'Pending restart' flag",
                strange.join(", ")
            );
        }
    }
    inner.known().pending = pending;
    Ok(())
}

/// What the server itself says waits for a restart, with the values it has and will have.
async fn pending(inner: &Inner, live: &[Live]) -> BTreeMap<String, PendingValue> {
    let mut found = BTreeMap::new();
    let wanted = inner.known().wanted.clone();
    for live in live.iter().filter(|live| live.is_pending) {
        if is_recovery_parameter(&live.name) || live.name == "hot_standby" {
            continue;
        }
        let new_value = match wanted.get(&live.name).filter(|value| **value != live.shown) {
            Some(value) => value.clone(),
            None => match configured::value(&inner.site, &live.name, &CancellationToken::new()).await {
                Ok(Some(value)) => value,
                _ => "?".to_owned(),
            },
        };
        found.insert(live.name.clone(), PendingValue { old_value: live.shown.clone(), new_value });
    }
    found
}
