//! One bounded look at everything. What cannot be seen in time is left out, never guessed.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::cluster::{ControlData, DataDir, InstanceState, State, SystemId, Timeline, Unfinished};
use crate::postgres::connection::Failure;
use crate::postgres::process::{Named, PidFile, Postmaster};
use crate::postgres::query::{self, Answer, Include};
use crate::postgres::replication::{Replication, Target};
use crate::postgres::{Look, control_data, data_dir, unfinished, version};

use super::{Inner, settings};

/// What the files and the process table say.
#[derive(Clone)]
pub(super) struct Files {
    data_dir: DataDir,
    is_recovery_configured: bool,
    has_backup_label: bool,
    postmaster: Option<Postmaster>,
    pid_file: Option<PidFile>,
    system_id: Option<SystemId>,
    major: Option<u32>,
    unfinished: Option<Unfinished>,
    control_stamp: Option<(SystemTime, u64)>,
}

/// What was seen of the server as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// No postmaster.
    Gone,
    /// It answers.
    Answers,
    /// It turns everybody away.
    NotReady,
    /// It does not answer, or was not asked.
    Silent,
}

/// The next state word, as long as no job owns it.
fn next_state(present: State, seen: Seen) -> State {
    match (seen, present) {
        (Seen::Gone, State::Running) => State::Crashed,
        (Seen::Gone, State::Starting | State::BootstrapStarting) => State::StartFailed,
        (Seen::Gone, State::Stopping | State::StopFailed | State::Restarting) => State::Stopped,
        (Seen::Gone, other) => other,
        (Seen::Answers, _) => State::Running,
        (Seen::NotReady, State::BootstrapStarting | State::Stopping) => present,
        (Seen::NotReady, _) => State::Starting,
        (Seen::Silent, State::Running | State::Stopping | State::StopFailed | State::BootstrapStarting) => present,
        // Somebody has started it.
        (Seen::Silent, _) => State::Starting,
    }
}

pub(super) async fn look(inner: &Arc<Inner>, ask: &Look) -> InstanceState {
    let deadline = Instant::now() + ask.budget;
    let mut found = InstanceState::default();
    // Half of the time, so that a disk that hangs does not keep us from asking the server.
    let Some(files) = look_at_files(inner, ask.budget / 2).await else {
        found.data_dir = DataDir::Inaccessible("no answer from the file system".to_owned());
        found.is_postmaster_alive = inner.site.postmaster.living().is_some();
        found.state = Some(inner.site.state().0);
        return found;
    };
    notice(inner, &files);
    let answer = ask_server(inner, ask, &files, deadline).await;
    settle(inner, &files, &answer);
    found.state = Some(inner.site.state().0);
    found.is_postmaster_alive = files.postmaster.is_some();
    found.accepts_connections = matches!(answer, Some(Ok(_) | Err(Failure::Refused(_))));
    found.server_version = files.major;
    match answer {
        Some(Ok(answer)) => server_facts(inner, ask, answer, &mut found, deadline).await,
        Some(Err(failure)) => tracing::debug!("the server was not observed: {failure:?}"),
        None => {}
    }
    if files.postmaster.is_none() && files.data_dir == DataDir::Present {
        found.control = control(inner, files.control_stamp, deadline).await;
    }
    found.can_rewind = can_rewind(inner, found.control.as_ref(), files.data_dir == DataDir::Present, deadline).await;
    let known = inner.known();
    if files.postmaster.is_some() {
        found.postmaster_start_time.clone_from(&known.start_time);
        found.server_version = known.version.or(files.major);
    }
    found.pending_restart.clone_from(&known.pending);
    drop(known);
    found.data_dir = files.data_dir;
    found.unfinished = files.unfinished;
    found.is_recovery_configured = files.is_recovery_configured;
    found.has_backup_label = files.has_backup_label;
    found.system_id = files.system_id;
    found
}

/// While the disk does not answer, the files are what they were when it last did; the process table is in memory.
async fn look_at_files(inner: &Arc<Inner>, limit: Duration) -> Option<Files> {
    let here = Arc::clone(inner);
    let look = move || {
        let directory = here.site.data_dir();
        let control_stamp = std::fs::metadata(directory.join("global/pg_control"))
            .ok()
            .and_then(|metadata| Some((metadata.modified().ok()?, metadata.ino())));
        let present = data_dir::look(&directory);
        let is_present = present == DataDir::Present;
        Files {
            is_recovery_configured: is_present && data_dir::is_recovery_configured(&directory),
            has_backup_label: is_present && directory.join("backup_label").exists(),
            postmaster: match here.site.named() {
                Named::Postmaster(postmaster) => Some(postmaster),
                _ => None,
            },
            pid_file: PidFile::read(&directory),
            system_id: control_data::glance(&directory).and_then(|glance| glance.system_id),
            major: version::of_data_dir(&directory),
            unfinished: unfinished::read(&directory),
            data_dir: present,
            control_stamp,
        }
    };
    // One at a time: while the disk does not answer, each of them would take a thread and not give it back.
    let looked = async {
        let permit = Arc::clone(&inner.looks).acquire_owned().await.ok()?;
        let looked = tokio::task::spawn_blocking(move || {
            let files = look();
            drop(permit);
            files
        });
        looked.await.ok()
    };
    if let Ok(Some(files)) = timeout(limit, looked).await {
        return Some(files);
    }
    tracing::warn!("the file system of the data directory did not answer within {limit:?}");
    let last = inner.known().files.clone()?;
    Some(Files { postmaster: inner.site.postmaster.living(), pid_file: None, ..last })
}

/// A postmaster not seen before: what was known of the one before is forgotten, and the watcher takes it on.
fn notice(inner: &Inner, files: &Files) {
    let mut known = inner.known();
    known.files = Some(files.clone());
    if files.postmaster.is_none() || files.postmaster == known.postmaster {
        return;
    }
    known.postmaster = files.postmaster;
    known.is_joined = false;
    known.start_time = None;
    known.version = None;
    known.is_rewindable = None;
    drop(known);
    inner.sessions.clear();
    inner.site.fix_address(files.pid_file.as_ref().and_then(|file| file.port));
    inner.watcher.notify_one();
}

async fn ask_server(inner: &Inner, ask: &Look, files: &Files, deadline: Instant) -> Option<Result<Answer, Failure>> {
    files.postmaster?;
    let state = inner.site.state().0;
    if inner.is_job_running() && matches!(state, State::Stopping | State::Restarting) {
        return None;
    }
    let status = files.pid_file.as_ref().and_then(|file| file.status.as_deref());
    if state.is_starting() && status == Some("starting") {
        // It says so itself; asking would only leave a line in its log.
        return Some(Err(Failure::NotReady("starting".to_owned())));
    }
    let include = Include { slots: ask.slots, senders: ask.senders };
    let left = deadline.saturating_duration_since(Instant::now());
    Some(inner.ask(left, |client| Box::pin(query::monitor(client, include))).await)
}

fn settle(inner: &Inner, files: &Files, answer: &Option<Result<Answer, Failure>>) {
    let seen = match (files.postmaster, answer) {
        (None, _) => Seen::Gone,
        (_, Some(Ok(_) | Err(Failure::Refused(_)))) => Seen::Answers,
        (_, Some(Err(Failure::NotReady(_)))) => Seen::NotReady,
        _ => Seen::Silent,
    };
    if let Some(Err(Failure::Refused(why))) = answer {
        tracing::warn!("the server is up, but could not be observed: {why}");
    }
    if inner.is_job_running() {
        return;
    }
    let present = inner.site.state().0;
    let next = next_state(present, seen);
    if next != present {
        tracing::info!("PostgreSQL is {next} (was {present})");
        inner.site.set_state(next);
    }
    if seen == Seen::NotReady || (seen == Seen::Silent && next.is_starting()) {
        inner.awaits_ready.store(true, Ordering::Release);
        inner.watcher.notify_one();
    } else if seen == Seen::Answers && inner.awaits_ready.swap(false, Ordering::AcqRel) {
        // It may be the REST interface that looks, and the loop waits to hear of it.
        inner.events.notify_one();
    }
}

async fn server_facts(inner: &Arc<Inner>, ask: &Look, answer: Answer, found: &mut InstanceState, deadline: Instant) {
    let is_joined = {
        let mut known = inner.known();
        known.start_time = Some(answer.start_time);
        known.version = Some(answer.version);
        known.is_joined
    };
    if !is_joined && !inner.is_job_running() {
        let left = deadline.saturating_duration_since(Instant::now());
        match timeout(left, settings::join(inner)).await {
            Ok(Ok(())) => {
                // What was changed while nobody looked after the server is applied beside the loop.
                inner.awaits_settings.store(true, Ordering::Release);
                inner.watcher.notify_one();
            }
            Ok(Err(error)) => tracing::warn!("the settings of the running server were not taken over yet: {error}"),
            Err(_) => tracing::warn!("the settings of the running server were not taken over in time"),
        }
    }
    inner.streams.watch(&answer.streams, ask.senders, &inner.events);
    let mut monitor = answer.monitor;
    if monitor.in_recovery && monitor.timeline.is_none() && ask.standby_timeline {
        let left = deadline.saturating_duration_since(Instant::now());
        monitor.timeline = timeout(left, standby_timeline(inner, left)).await.ok().flatten();
    }
    if monitor.in_recovery && !is_streaming(&monitor) {
        let next = monitor.timeline.map(|timeline| format!("{:08X}.history", timeline.0.saturating_add(1)));
        monitor.has_next_history = next.is_some_and(|name| inner.site.wal_dir().join(name).exists());
    }
    let of = inner.known().postmaster;
    (found.unready_slots, found.broken_slots) = inner.keeper.judge(of, &monitor);
    found.monitor = Some(monitor);
}

fn is_streaming(monitor: &crate::cluster::Monitor) -> bool {
    monitor.replication_state() == Some("streaming")
}

/// The timeline a standby replays, which only the replication protocol tells.
async fn standby_timeline(inner: &Inner, limit: Duration) -> Option<Timeline> {
    let asked = async {
        let target = Target::new(&inner.site.local_replication_params())?;
        Replication::connect(&target, limit).await?.identify_system().await
    };
    match asked.await {
        Ok(identity) => Some(identity.timeline),
        Err(error) => {
            tracing::debug!("the local timeline is not known: {error}");
            None
        }
    }
}

/// Control data of a stopped server; read again only when the file has changed.
async fn control(inner: &Inner, stamp: Option<(SystemTime, u64)>, deadline: Instant) -> Option<ControlData> {
    if inner.site.state().0 == State::CreatingReplica {
        return None;
    }
    let stamp = stamp?;
    if let Some((of, control)) = &inner.known().control
        && *of == stamp
    {
        return Some(control.clone());
    }
    match timeout_at(deadline, inner.site.control_data()).await {
        Ok(Ok(control)) => {
            inner.known().control = Some((stamp, control.clone()));
            Some(control)
        }
        Ok(Err(error)) => {
            tracing::warn!("{error}");
            None
        }
        Err(_) => None,
    }
}

/// `pg_rewind` is wanted, works, and the data directory allows it.
async fn can_rewind(inner: &Inner, control: Option<&ControlData>, is_present: bool, deadline: Instant) -> bool {
    if !inner.site.config().use_pg_rewind || !is_present || inner.site.state().0 == State::CreatingReplica {
        return false;
    }
    let is_rewindable = match (control, inner.known().is_rewindable) {
        (Some(control), _) => Some(control.rewindable),
        (None, known) => known,
    };
    let is_rewindable = match is_rewindable {
        Some(known) => known,
        None => match timeout_at(deadline, inner.site.control_data()).await {
            Ok(Ok(control)) => control.rewindable,
            _ => return false,
        },
    };
    inner.known().is_rewindable = Some(is_rewindable);
    is_rewindable && has_rewind_program(inner, deadline).await
}

async fn has_rewind_program(inner: &Inner, deadline: Instant) -> bool {
    let path = inner.site.program_path("pg_rewind");
    if let Some((of, works)) = &inner.known().has_rewind_program
        && *of == path
    {
        return *works;
    }
    let program = inner.site.tool("pg_rewind").arg("--help");
    let works = match timeout_at(deadline, program.run(&CancellationToken::new())).await {
        Ok(Ok(finished)) => finished.is_success(),
        Ok(Err(_)) => false,
        Err(_) => return false,
    };
    inner.known().has_rewind_program = Some((path, works));
    works
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_moves_the_state_word_only_where_it_knows_better() {
        let cases = [
            (State::Running, Seen::Gone, State::Crashed),
            (State::Starting, Seen::Gone, State::StartFailed),
            (State::Stopping, Seen::Gone, State::Stopped),
            (State::Crashed, Seen::Gone, State::Crashed),
            (State::CreatingReplica, Seen::Gone, State::CreatingReplica),
            (State::Stopped, Seen::Answers, State::Running),
            (State::Starting, Seen::Answers, State::Running),
            (State::Running, Seen::NotReady, State::Starting),
            (State::Stopping, Seen::NotReady, State::Stopping),
            (State::BootstrapStarting, Seen::NotReady, State::BootstrapStarting),
            (State::Running, Seen::Silent, State::Running),
            (State::Stopped, Seen::Silent, State::Starting),
            (State::StartFailed, Seen::NotReady, State::Starting),
        ];
        for (present, seen, expected) in cases {
            assert_eq!(next_state(present, seen), expected, "{present} {seen:?}");
        }
    }
}
