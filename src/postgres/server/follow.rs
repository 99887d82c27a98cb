//! Following a server: does the recovery configuration of a running standby fit, and changing it without a restart.

use std::collections::BTreeMap;
use std::sync::Arc;

use nix::sys::signal::Signal::SIGHUP;

use crate::cluster::{FollowChange, Upstream};
use crate::postgres::conf::recovery::{self, Current, Setting};
use crate::postgres::{PgError, process_tree, query, version};

use super::files::Signal;
use super::{ASK_LIMIT, Inner, blocking, settings};

/// The recovery settings for an upstream, and the version they are for.
fn wanted(inner: &Inner, upstream: Option<&Upstream>) -> Result<(BTreeMap<String, String>, u32), PgError> {
    let directory = inner.site.data_dir();
    let major = version::of_data_dir(&directory)
        .ok_or_else(|| PgError::Refused(format!("{}: no PG_VERSION to be read", directory.display())))?;
    let passfile = inner.site.pgpass().display().to_string();
    Ok((recovery::wanted(&inner.site.config(), upstream, major, &passfile), major))
}

pub(super) async fn change(inner: &Inner, upstream: Option<&Upstream>) -> FollowChange {
    if !inner.site.data_dir().join("standby.signal").exists() {
        return FollowChange::Restart;
    }
    let Ok((wanted, major)) = wanted(inner, upstream) else { return FollowChange::None };
    let is_passfile_current = upstream.is_none_or(|upstream| has_password_lines(inner, upstream));
    if !inner.site.is_running() || inner.site.state().0.is_starting() {
        // Nobody to ask; what was written last is what it starts with.
        let Some(written) = inner.known().recovery.clone() else { return FollowChange::None };
        let setting = |value| Setting { value, ..Setting::default() };
        let settings = written.into_iter().map(|(name, value)| (name, setting(value))).collect();
        let change = recovery::compare(&wanted, &Current { settings, receiver: None, is_passfile_current }, major);
        return if change == FollowChange::None { change } else { FollowChange::Restart };
    }
    match current(inner, major).await {
        Ok((settings, receiver)) => {
            recovery::compare(&wanted, &Current { settings, receiver, is_passfile_current }, major)
        }
        Err(error) => {
            // It will answer, or be found dead, at the next cycle; a restart now would only make it worse.
            tracing::warn!("the recovery settings of the running server could not be asked: {error}");
            FollowChange::None
        }
    }
}

type Answer = (BTreeMap<String, Setting>, Option<crate::cluster::WalReceiver>);

async fn current(inner: &Inner, major: u32) -> Result<Answer, PgError> {
    let names = Arc::new(recovery::names(major));
    let file = Arc::new(inner.site.config_file().display().to_string());
    let asked = inner.ask(ASK_LIMIT, |client| {
        let (names, file) = (Arc::clone(&names), Arc::clone(&file));
        Box::pin(async move { query::following(client, &names, &file).await })
    });
    Ok(asked.await?)
}

/// The password file has what we would write for this upstream.
fn has_password_lines(inner: &Inner, upstream: &Upstream) -> bool {
    let lines = inner.site.replication_params(upstream).password_lines();
    lines.is_empty() || std::fs::read_to_string(inner.site.pgpass()).is_ok_and(|text| text == lines)
}

pub(super) async fn follow(inner: &Arc<Inner>, upstream: Option<&Upstream>) -> Result<(), PgError> {
    let rewriting = inner.rewriting.lock().await;
    let (recovery, _) = wanted(inner, upstream)?;
    if let Some(upstream) = upstream {
        let (params, path) = (inner.site.replication_params(upstream), inner.site.pgpass());
        blocking(move || params.write_pgpass(&path)).await?;
    }
    settings::write(inner, recovery, Signal::Standby).await?;
    settings::reload(inner).await?;
    drop(rewriting);
    Ok(())
}

/// Who is told to read its files has waited long enough: of all signals to the process that replays WAL, this is the one
/// that changes nothing else. The rest of the server does not hear of it.
pub(super) async fn retry_stream(inner: &Arc<Inner>) -> Result<(), PgError> {
    let asked = inner.ask(ASK_LIMIT, |client| Box::pin(query::startup_process(client))).await?;
    if let Some(pid) = asked {
        process_tree::signal(pid, SIGHUP);
    }
    Ok(())
}
