//! The one long task: what the loop starts and never waits for.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Rewound, StopMode, StopProgress, Timeline};
use crate::ha::{Task, TaskOutcome};
use crate::postgres::{ClonePlan, PgError, Postgres, StartPlan, StopPlan};

/// A running task.
pub(super) struct Running {
    pub(super) task: Task,
    pub(super) since: Instant,
    pub(super) cancel: CancellationToken,
    progress: Arc<Mutex<Option<StopProgress>>>,
    has_ended: Arc<AtomicBool>,
    handle: JoinHandle<TaskOutcome>,
}

impl Running {
    /// Begins a task among the helpers; `wake` is called at progress and at the end.
    pub(super) fn begin(
        task: Task,
        postgres: Arc<dyn Postgres>,
        helpers: &Handle,
        wake: Arc<tokio::sync::Notify>,
    ) -> Self {
        let cancel = CancellationToken::new();
        let progress = Arc::new(Mutex::new(None));
        let has_ended = Arc::new(AtomicBool::new(false));
        let handle = {
            let (task, cancel, progress) = (task.clone(), cancel.clone(), Arc::clone(&progress));
            let has_ended = Arc::clone(&has_ended);
            helpers.spawn(async move {
                let outcome = with_progress(&task, postgres.as_ref(), &cancel, &progress, &wake).await;
                // Before the call: whoever is woken looks at once, and nobody calls again.
                has_ended.store(true, Ordering::Release);
                wake.notify_one();
                outcome
            })
        };
        Self { task, since: Instant::now(), cancel, progress, has_ended, handle }
    }

    /// How far a stop has come.
    pub(super) fn progress(&self) -> Option<StopProgress> {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it has ended.
    pub(super) fn is_finished(&self) -> bool {
        self.has_ended.load(Ordering::Acquire) || self.handle.is_finished()
    }

    /// Its outcome; waits for the end.
    pub(super) async fn outcome(self) -> TaskOutcome {
        match self.handle.await {
            Ok(outcome) => outcome,
            Err(error) => TaskOutcome::Failed(format!("the task ended abnormally: {error}")),
        }
    }
}

async fn with_progress(
    task: &Task,
    postgres: &dyn Postgres,
    cancel: &CancellationToken,
    progress: &Mutex<Option<StopProgress>>,
    wake: &tokio::sync::Notify,
) -> TaskOutcome {
    let (sender, mut receiver) = mpsc::channel(4);
    let work = execute(task, postgres, cancel, sender);
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            Some(step) = receiver.recv() => {
                *progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(step);
                wake.notify_one();
            }
            outcome = &mut work => {
                // What was said last must not be lost.
                while let Ok(step) = receiver.try_recv() {
                    *progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(step);
                }
                return outcome;
            }
        }
    }
}

/// One exhaustive match: every task is one call of the port, or two in a row.
async fn execute(
    task: &Task,
    postgres: &dyn Postgres,
    cancel: &CancellationToken,
    progress: mpsc::Sender<StopProgress>,
) -> TaskOutcome {
    match task {
        Task::Bootstrap => done(postgres.bootstrap(cancel).await),
        Task::PostBootstrap => done(postgres.post_bootstrap(cancel).await),
        Task::Clone { source, basebackup_only, instead, .. } => {
            if instead.is_some()
                && let Err(error) = postgres.stop(&quick_stop(StopMode::Immediate), None, cancel).await
            {
                return failed(error);
            }
            let plan = ClonePlan { source: source.clone(), basebackup_only: *basebackup_only };
            done(postgres.clone_from(&plan, cancel).await)
        }
        Task::Start { recovery, role, timeout_ms, .. } => {
            started(postgres.start(&start_plan(recovery, *role, *timeout_ms), cancel).await)
        }
        Task::Restart { recovery, role, timeout_ms, .. } => {
            started(postgres.restart(&start_plan(recovery, *role, *timeout_ms), cancel).await)
        }
        Task::Stop { mode, checkpoint, timeout_ms, .. } => {
            let plan =
                StopPlan { mode: *mode, checkpoint: *checkpoint, timeout: timeout_ms.map(Duration::from_millis) };
            done(postgres.stop(&plan, Some(progress), cancel).await)
        }
        Task::Promote { limit_ms, taken } => promote(postgres, Duration::from_millis(*limit_ms), taken, cancel).await,
        Task::Rewind { leader } => {
            if let Err(error) = postgres.stop(&quick_stop(StopMode::Fast), None, cancel).await {
                return TaskOutcome::Rewound(Rewound::SourceLost(format!("the local server did not stop: {error}")));
            }
            TaskOutcome::Rewound(postgres.rewind(leader, cancel).await)
        }
        Task::CopySlots { leader, slots } => copied(postgres.copy_slots(leader, slots, cancel).await),
        Task::CrashRecovery => done(postgres.crash_recovery(cancel).await),
        Task::ArchiveLast => done(postgres.archive_last_segment(cancel).await),
    }
}

async fn promote(
    postgres: &dyn Postgres,
    limit: Duration,
    taken: &[Timeline],
    cancel: &CancellationToken,
) -> TaskOutcome {
    if !postgres.pre_promote(cancel).await {
        return if cancel.is_cancelled() { TaskOutcome::Cancelled } else { TaskOutcome::PrePromoteFailed };
    }
    if !taken.is_empty()
        && let Err(error) = postgres.leave_out_timelines(taken).await
    {
        return failed(error);
    }
    match postgres.promote(limit, cancel).await {
        Ok(in_production) => TaskOutcome::Promoted(in_production),
        Err(error) => failed(error),
    }
}

fn quick_stop(mode: StopMode) -> StopPlan {
    StopPlan { mode, checkpoint: false, timeout: None }
}

fn start_plan(recovery: &crate::cluster::Recovery, role: crate::cluster::Role, timeout_ms: Option<u64>) -> StartPlan {
    StartPlan { recovery: recovery.clone(), role, timeout: timeout_ms.map(Duration::from_millis) }
}

fn done(result: Result<(), PgError>) -> TaskOutcome {
    match result {
        Ok(()) => TaskOutcome::Done,
        Err(error) => failed(error),
    }
}

fn copied(result: Result<Option<crate::cluster::Started>, PgError>) -> TaskOutcome {
    match result {
        Ok(Some(how)) => TaskOutcome::Started(how),
        Ok(None) => TaskOutcome::Done,
        Err(error) => failed(error),
    }
}

fn started(result: Result<crate::cluster::Started, PgError>) -> TaskOutcome {
    match result {
        Ok(how) => TaskOutcome::Started(how),
        Err(error) => failed(error),
    }
}

fn failed(error: PgError) -> TaskOutcome {
    match error {
        PgError::Cancelled => TaskOutcome::Cancelled,
        other => TaskOutcome::Failed(chain(&other)),
    }
}

/// An error with its causes, on one line.
pub(super) fn chain(error: &dyn Error) -> String {
    causes(error).join(": ")
}

/// An error, what caused it, and so on. What one of them says already in the words of the next is left out.
pub(super) fn causes(error: &dyn Error) -> Vec<String> {
    let mut texts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !texts.last().is_some_and(|last| last.ends_with(&text)) {
            texts.push(text);
        }
        cause = inner.source();
    }
    texts
}

/// An error as a field of a line in the log.
pub(super) fn field(error: &(impl Error + 'static)) -> &(dyn Error + 'static) {
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PostgresConfig;
    use crate::postgres::Server;
    use crate::postgres::conf::parameters::tests::config;

    /// The loop looks once when it is woken; a task that still seemed to run then would be noticed a whole period late.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_task_has_ended_when_it_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().display().to_string();
        let config = PostgresConfig { data_dir, ..config(&[]) };
        let server: Arc<dyn Postgres> = Arc::new(Server::new(Arc::new(config), None));
        for _ in 0..300 {
            let wake = Arc::new(tokio::sync::Notify::new());
            let task = Task::Stop { action: "x".into(), mode: StopMode::Fast, checkpoint: false, timeout_ms: None };
            let running = Running::begin(task, Arc::clone(&server), &Handle::current(), Arc::clone(&wake));
            wake.notified().await;
            assert!(running.is_finished());
            assert_eq!(running.outcome().await, TaskOutcome::Done);
        }
    }
}
