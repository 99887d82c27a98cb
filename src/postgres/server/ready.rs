//! Watching the postmaster beside everything else: its end, and the moment a starting one takes connections.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::cluster::State;
use crate::postgres::conf::write;
use crate::postgres::connection::Failure;
use crate::postgres::process::{PidFile, Postmaster};
use crate::postgres::query;

use super::{Inner, arrivals, blocking, settings};

/// How often the pid file of a starting server is read.
pub(super) const TICK: Duration = Duration::from_millis(20);

/// A server that said it is ready and still turns us away is asked again after this; each time costs a line in its log.
const AGAIN: Duration = Duration::from_millis(200);

/// One question whether the server takes connections.
const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// What a server says to a newcomer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// It takes connections, or has another reason than its state not to take ours.
    Ready,
    /// Not yet, or no more.
    NotReady,
    /// No answer.
    Silent(String),
}

/// The state that a server writes into its own pid file; it costs nothing to look, and is missing for a moment only.
/// Looks after this pause. The disk may not answer, so the caller waits for other things as well.
pub(super) async fn says_ready(inner: &Inner, postmaster: Postmaster, pause: Duration) -> bool {
    tokio::time::sleep(pause).await;
    let directory = inner.site.data_dir();
    let read = blocking(move || Ok(PidFile::read(&directory))).await;
    let file = read.ok().flatten().filter(|file| file.pid == postmaster.pid);
    file.and_then(|file| file.status).as_deref() == Some("ready")
}

/// Asks for a connection.
pub(super) async fn probe(inner: &Inner) -> Probe {
    match inner.ask(PROBE_LIMIT, |client| Box::pin(query::ping(client))).await {
        Ok(()) => Probe::Ready,
        Err(Failure::NotReady(_)) => Probe::NotReady,
        Err(Failure::Refused(why)) => {
            tracing::warn!("the server is up, but our own connection failed: {why}");
            Probe::Ready
        }
        Err(Failure::Silent(why)) => Probe::Silent(why),
    }
}

/// The server takes connections now: whoever waits is told, and configuration files that work are copied.
pub(super) async fn became_ready(inner: &Arc<Inner>) {
    inner.site.set_state(State::Running);
    inner.awaits_ready.store(false, Ordering::Release);
    inner.events.notify_one();
    if inner.known().restored.is_none() {
        back_up(inner).await;
    }
}

/// Copies the configuration files that work.
pub(super) async fn back_up(inner: &Inner) {
    let (config, data_dir) = (inner.site.config(), inner.site.data_dir());
    let copied = blocking(move || {
        let directory = std::path::Path::new(&config.config_dir);
        let base = &config.config_base_name;
        let mut files = vec![directory.join(format!("{base}.conf"))];
        if config.custom_conf.is_none() {
            files.push(directory.join(format!("{base}.base.conf")));
        }
        for (parameter, file) in [("hba_file", "pg_hba.conf"), ("ident_file", "pg_ident.conf")] {
            if !config.parameters.contains_key(parameter) {
                files.push(directory.join(file));
            }
        }
        write::back_up(&files, &data_dir);
        Ok(())
    });
    if let Err(error) = copied.await {
        tracing::warn!("unable to create backup copies of configuration files: {error}");
    }
}

/// Runs as long as the server's owner lives.
pub(super) async fn watch(inner: Arc<Inner>) {
    loop {
        match inner.site.postmaster.living() {
            Some(postmaster) => watch_one(&inner, postmaster).await,
            None => tokio::select! {
                () = inner.watcher.notified() => {}
                () = arrivals::tell(&inner) => {}
            },
        }
    }
}

async fn watch_one(inner: &Arc<Inner>, postmaster: Postmaster) {
    let ended = postmaster.ended();
    tokio::pin!(ended);
    let mut pause = TICK;
    loop {
        if inner.awaits_settings.swap(false, Ordering::AcqRel) {
            if let Err(error) = settings::apply(inner, false).await {
                tracing::warn!("our settings were not applied to the running server: {error}");
            }
            inner.events.notify_one();
        }
        let waits = inner.awaits_ready.load(Ordering::Acquire);
        tokio::select! {
            biased;
            () = &mut ended => {
                tracing::debug!(pid = postmaster.pid, "the postmaster has ended");
                inner.sessions.clear();
                inner.events.notify_one();
                return;
            }
            () = inner.watcher.notified() => {
                if inner.site.postmaster.get() != Some(postmaster) {
                    return;
                }
                pause = TICK;
            }
            says_ready = says_ready(inner, postmaster, pause), if waits => {
                if !says_ready {
                    continue;
                }
                pause = match probe(inner).await {
                    Probe::Ready if inner.awaits_ready.load(Ordering::Acquire) => {
                        became_ready(inner).await;
                        TICK
                    }
                    _ => AGAIN,
                };
            }
        }
    }
}
