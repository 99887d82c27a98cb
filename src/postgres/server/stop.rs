//! Stopping: the signal, what the control file says on the way, and harder means when it takes too long.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cluster::State;
use crate::postgres::control_data::{ClusterState, glance};
use crate::postgres::process::{self, Named, Postmaster};
use crate::postgres::programs::Program;
use crate::postgres::{PgError, StopMode, StopPlan, StopProgress, process_tree, waldump};

use super::{CHECKPOINT_LIMIT, Inner, blocking};

/// How often the control file is read.
const TICK: Duration = Duration::from_millis(10);

/// How often the order is repeated. A shell starts the server with SIGINT and SIGQUIT ignored, and until the server has
/// set its own handlers an order is lost. One that it has heard already changes nothing.
const REPEAT: Duration = Duration::from_millis(200);

/// An immediate stop gives nobody time: PostgreSQL itself kills its processes after five seconds. A server that still
/// stands is deaf, for example while it waits for a file in its start.
const IMMEDIATE_LIMIT: Duration = Duration::from_secs(6);

/// How long an immediate stop waits for the script before it: another member may lead already.
const BEFORE_IMMEDIATE_LIMIT: Duration = Duration::from_secs(1);

/// After SIGKILL only the kernel can still hold a process.
const KILLED_LIMIT: Duration = Duration::from_secs(10);

/// The files of a stopped server may be on a disk that does not answer.
const FILES_LIMIT: Duration = Duration::from_secs(5);

/// How long processes of a dead postmaster get to notice its death.
const ORPHANS_LIMIT: Duration = Duration::from_millis(500);

pub(super) async fn stop(
    inner: &Arc<Inner>,
    plan: &StopPlan,
    progress: Option<mpsc::Sender<StopProgress>>,
    cancel: &CancellationToken,
) -> Result<(), PgError> {
    let _job = inner.job();
    let named = named_in_time(inner).await;
    let was_running = matches!(named, Named::Postmaster(_));
    if was_running && !(plan.checkpoint && plan.mode == StopMode::Fast) {
        inner.site.set_state(State::Stopping);
    }
    let result = stop_named(inner, named, plan, progress, cancel).await;
    match &result {
        Ok(()) if was_running => inner.site.set_state(State::Stopped),
        Ok(()) | Err(PgError::Cancelled) => {}
        Err(error) => {
            tracing::warn!("pg_ctl stop failed: {error}");
            inner.site.set_state(State::StopFailed);
        }
    }
    result
}

/// Stops. The state word is the caller's, except that it says `stopping` from the signal on unless a restart is on.
pub(super) async fn stop_keeping_state(
    inner: &Arc<Inner>,
    plan: &StopPlan,
    progress: Option<mpsc::Sender<StopProgress>>,
    cancel: &CancellationToken,
) -> Result<(), PgError> {
    let named = named_in_time(inner).await;
    stop_named(inner, named, plan, progress, cancel).await
}

/// Whom the pid file names, the one remembered before it.
pub(super) async fn named(inner: &Arc<Inner>) -> Result<Named, PgError> {
    if let Some(postmaster) = inner.site.postmaster.living() {
        return Ok(Named::Postmaster(postmaster));
    }
    let here = Arc::clone(inner);
    blocking(move || Ok(here.site.named())).await
}

/// A disk that does not answer names nobody: a server that was seen before it hung is remembered.
async fn named_in_time(inner: &Arc<Inner>) -> Named {
    match tokio::time::timeout(FILES_LIMIT, named(inner)).await {
        Ok(Ok(named)) => named,
        Ok(Err(_)) | Err(_) => {
            tracing::warn!("the pid file could not be read within {FILES_LIMIT:?}; no server is known to run");
            Named::Nobody
        }
    }
}

async fn stop_named(
    inner: &Arc<Inner>,
    named: Named,
    plan: &StopPlan,
    progress: Option<mpsc::Sender<StopProgress>>,
    cancel: &CancellationToken,
) -> Result<(), PgError> {
    let postmaster = match named {
        Named::Postmaster(postmaster) => postmaster,
        Named::SingleUser(pid) => {
            tracing::warn!("Cannot stop server; single-user server is running (PID: {pid})");
            return Err(PgError::Refused(format!("a server in single-user mode (pid {pid}) takes no orders")));
        }
        Named::Nobody | Named::Stranger(_) => {
            end_orphans(inner).await;
            return Ok(());
        }
    };
    if plan.checkpoint && plan.mode == StopMode::Fast && !inner.site.state().0.is_starting() {
        checkpoint_before(inner, plan, postmaster, cancel).await?;
    }
    if inner.site.state().0 != State::Restarting {
        inner.site.set_state(State::Stopping);
    }
    before_stop(inner, plan.mode, postmaster, cancel).await?;
    inner.keeper.end();
    if inner.sessions.clear() {
        tracing::info!("closed patroni connections to postgres");
    }
    let mut stopping = Stopping {
        inner,
        postmaster,
        // A server that is still starting may say `shut down` from before.
        may_tell: state_word(inner) == Some(ClusterState::Production) && plan.mode == StopMode::Fast,
        progress,
    };
    stopping.signal(if plan.mode == StopMode::Fast { Signal::SIGINT } else { Signal::SIGQUIT })?;
    stopping.wait(plan, cancel).await?;
    stopping.tell().await;
    end_orphans(inner).await;
    Ok(())
}

fn state_word(inner: &Inner) -> Option<ClusterState> {
    glance(&inner.site.data_dir()).map(|glance| glance.state)
}

/// A checkpoint while everybody still works makes the one at the shutdown short.
async fn checkpoint_before(
    inner: &Inner,
    plan: &StopPlan,
    postmaster: Postmaster,
    cancel: &CancellationToken,
) -> Result<(), PgError> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(PgError::Cancelled),
        () = postmaster.ended() => {}
        result = inner.checkpoint(plan.timeout.unwrap_or(CHECKPOINT_LIMIT)) => {
            if let Err(error) = result {
                tracing::warn!("the checkpoint before the stop failed: {error}");
            }
        }
    }
    Ok(())
}

/// The operator's script. Its result is only logged. It is given the time it takes, but never more than the server has:
/// that may be told to quit meanwhile because the lease has run out, and an immediate stop has no time to give.
async fn before_stop(
    inner: &Inner,
    mode: StopMode,
    postmaster: Postmaster,
    cancel: &CancellationToken,
) -> Result<(), PgError> {
    let config = inner.site.config();
    let Some(command) = config.before_stop.as_deref().filter(|command| !command.trim().is_empty()) else {
        return Ok(());
    };
    let program = match Program::script(command) {
        Ok(program) => program,
        Err(error) => {
            tracing::error!(%error, "before_stop script `{command}` failed");
            return Ok(());
        }
    };
    let overdue = async {
        match mode {
            StopMode::Immediate => tokio::time::sleep(BEFORE_IMMEDIATE_LIMIT).await,
            _ => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        ran = program.run(cancel) => match ran {
            Ok(finished) => tracing::info!("before_stop script `{command}` exited with {}", finished.code_text()),
            Err(PgError::Cancelled) => return Err(PgError::Cancelled),
            Err(error) => tracing::error!(%error, "before_stop script `{command}` failed"),
        },
        () = postmaster.ended() => tracing::warn!("before_stop script `{command}` was killed: the server is gone"),
        () = overdue => tracing::warn!("before_stop script `{command}` was killed: an immediate stop cannot wait for it"),
    }
    Ok(())
}

/// A postmaster that was told to stop.
struct Stopping<'a> {
    inner: &'a Arc<Inner>,
    postmaster: Postmaster,
    may_tell: bool,
    progress: Option<mpsc::Sender<StopProgress>>,
}

impl Stopping<'_> {
    fn signal(&self, signal: Signal) -> Result<(), PgError> {
        if !self.postmaster.signal(signal) && self.postmaster.is_alive() {
            let pid = self.postmaster.pid;
            return Err(PgError::Refused(format!("the server (pid {pid}) is not ours to stop: {signal} was refused")));
        }
        if signal == Signal::SIGQUIT {
            // A suspended process would keep the order for later.
            process_tree::signal(self.postmaster.pid, Signal::SIGCONT);
        }
        Ok(())
    }

    /// Waits for the end, with harder means each time the limit passes.
    async fn wait(&mut self, plan: &StopPlan, cancel: &CancellationToken) -> Result<(), PgError> {
        let ended = self.postmaster.ended();
        tokio::pin!(ended);
        let (mut given, mut next) = match plan.mode {
            StopMode::Fast => (Signal::SIGINT, Signal::SIGQUIT),
            StopMode::Immediate => (Signal::SIGQUIT, Signal::SIGKILL),
        };
        let mut repeat = Instant::now() + REPEAT;
        let limit = plan.timeout.or((plan.mode == StopMode::Immediate).then_some(IMMEDIATE_LIMIT));
        let mut until = limit.map(|limit| Instant::now() + limit);
        loop {
            let overdue = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = &mut ended => return Ok(()),
                () = cancel.cancelled() => return Err(PgError::Cancelled),
                () = overdue => {
                    if next == Signal::SIGKILL {
                        return self.kill().await;
                    }
                    tracing::warn!("Timeout during postmaster stop, aborting Postgres.");
                    self.signal(next)?;
                    (given, next) = (next, Signal::SIGKILL);
                    until = limit.map(|limit| Instant::now() + limit);
                }
                () = tokio::time::sleep(TICK) => {
                    if Instant::now() >= repeat {
                        self.signal(given)?;
                        repeat = Instant::now() + REPEAT;
                    }
                    if self.may_tell && state_word(self.inner) == Some(ClusterState::ShutDown) {
                        self.tell().await;
                    }
                }
            }
        }
    }

    async fn kill(&self) -> Result<(), PgError> {
        tracing::warn!("Sending SIGKILL to Postmaster and its children");
        let postmaster = self.postmaster;
        blocking(move || {
            if postmaster.is_alive() {
                process_tree::kill_tree(postmaster.pid);
            }
            Ok(())
        })
        .await?;
        if tokio::time::timeout(KILLED_LIMIT, postmaster.ended()).await.is_ok() {
            return Ok(());
        }
        if process_tree::is_killed(postmaster.pid) {
            // It will not do anything any more, whenever the kernel lets go of it.
            tracing::warn!("process {} is killed, but the kernel holds it: does its disk answer?", postmaster.pid);
            return Ok(());
        }
        Err(PgError::Timeout(KILLED_LIMIT, format!("end of process {} after SIGKILL", postmaster.pid)))
    }

    /// Says once that no more WAL will be written, and how far it goes. The program has the last word on that.
    async fn tell(&mut self) {
        if !std::mem::take(&mut self.may_tell) {
            return;
        }
        let Some(progress) = &self.progress else { return };
        match self.inner.site.control_data().await {
            Ok(control) => {
                if let Some((checkpoint, previous)) = waldump::shutdown_lsns(&self.inner.site, &control).await {
                    // Whoever does not listen any more does not need it.
                    let _ = progress.try_send(StopProgress::ShutDown { checkpoint, previous });
                }
            }
            Err(error) => tracing::warn!("{error}"),
        }
    }
}

/// Ends what a dead postmaster left behind: its children notice its death, but not all at once, and while one of them
/// lives it may still write, and no new server can start.
pub(super) async fn end_orphans(inner: &Inner) {
    if tokio::time::timeout(FILES_LIMIT, end_known_orphans(inner.site.data_dir())).await.is_err() {
        tracing::warn!("whether a dead postmaster left processes behind could not be seen within {FILES_LIMIT:?}");
    }
}

async fn end_known_orphans(directory: PathBuf) {
    let until = Instant::now() + ORPHANS_LIMIT;
    loop {
        let (here, is_late) = (directory.clone(), Instant::now() > until);
        let left = blocking(move || match process::has_orphans(&here) {
            true if is_late => Ok(Some(process::kill_orphans(&here))),
            true => Ok(Some(0)),
            false => Ok(None),
        });
        match left.await {
            Ok(Some(killed)) if is_late => {
                tracing::warn!("killed {killed} processes that a dead postmaster left behind");
                return;
            }
            Ok(Some(_)) => tokio::time::sleep(TICK).await,
            _ => return,
        }
    }
}
