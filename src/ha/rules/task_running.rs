//! A long task runs: the lease is renewed beside it, and a primary that lost the lock does not wait for its end.

use crate::cluster::Role;
use crate::ha::context::{Context, Flow};
use crate::ha::decision::{Step, Task};
use crate::ha::eligibility::failover_possible;
use crate::ha::memory::DemoteMode;
use crate::ha::observation::LockOutcome;
use crate::ha::reason::{Line, Reason};

/// See the module.
pub(in crate::ha) fn task_running(cx: &mut Context<'_>) -> Option<Flow> {
    let running = cx.seen.task.clone()?;
    let action = running.task.action();
    if cx.has_lock() {
        match cx.renewal() {
            None => return Flow::ask("the DCS to renew the lease"),
            Some(LockOutcome::Kept) => return kept(cx, &running.task, running.since_ms, action),
            Some(_) => {}
        }
    }
    if cx.memory.bootstrap.is_none() && !cx.is_paused() {
        if matches!(running.task, Task::Promote { .. }) {
            cx.step(Step::CancelTask);
            return Flow::end(Line::LostLeaderBeforePromote);
        }
        if cx.role() == Some(Role::Primary) && (cx.is_alive() || !works_on_stopped(&running.task)) {
            cx.info(format!("Demoting primary during {action}"));
            cx.step(Step::CancelTask);
            cx.demote(DemoteMode::ImmediateNolock, &action);
            return Flow::end(Reason::LockLostDuring { action });
        }
    }
    if cx.view().is_some_and(|view| view.is_unlocked()) {
        cx.info("not healthy enough for leader race");
    }
    Flow::end(Reason::InProgress { action })
}

/// These serve no client, and half of one is worth less than none: the data of a `pg_rewind` that was cut short may not
/// even be fit for another one.
fn works_on_stopped(task: &Task) -> bool {
    matches!(task, Task::Rewind { .. } | Task::CrashRecovery | Task::Clone { .. })
}

/// What a restart gets that an operator asked for, where a crash would get no time at all: its server is to come back.
const PATIENCE_MS: u64 = 60_000;

fn kept(cx: &mut Context<'_>, task: &Task, since_ms: u64, action: String) -> Option<Flow> {
    let Some(since_ms) = down_since(cx, task, since_ms).filter(|_| !cx.is_paused() && cx.memory.bootstrap.is_none())
    else {
        return Flow::end(Reason::LockKeptDuring { action });
    };
    let (limit_ms, spent_ms) = (limit_ms(cx, task), cx.now().saturating_sub(since_ms));
    if spent_ms < limit_ms {
        cx.wake_within(limit_ms - spent_ms);
        return Flow::end(Reason::LockKeptDuring { action });
    }
    let (note, line) = match task {
        Task::CrashRecovery => {
            ("Demoting self because crash recovery is taking too long", Line::TerminatedCrashRecovery)
        }
        _ => ("Demoting self because primary startup is taking too long", Line::StoppedStartupTimeout),
    };
    match failover_possible(cx, None, false) {
        None => Flow::ask("the members whether one could take over"),
        Some(true) => {
            cx.info(note);
            cx.step(Step::CancelTask);
            cx.demote(DemoteMode::Immediate, "demotion");
            Flow::end(line)
        }
        Some(false) if *task == Task::CrashRecovery => Flow::end(Reason::LockKeptDuring { action }),
        Some(false) => Flow::end(Line::StartTimedOutButWaiting),
    }
}

/// Since when there has been no server, for a task that is to bring it up. Whether a process exists already says
/// little: one whose disk does not answer may hang before it, in it, or without end.
fn down_since(cx: &Context<'_>, task: &Task, since_ms: u64) -> Option<u64> {
    match task {
        Task::CrashRecovery | Task::Start { .. } => Some(since_ms),
        // Its first half is a stop, which takes as long as the clients do.
        Task::Restart { .. } => cx.memory.starting_since_ms,
        _ => None,
    }
}

fn limit_ms(cx: &Context<'_>, task: &Task) -> u64 {
    let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let configured = ms(cx.settings().primary_start_timeout);
    match task {
        Task::CrashRecovery => configured,
        Task::Restart { timeout_ms, .. } => timeout_ms.filter(|limit| *limit > 0).unwrap_or(PATIENCE_MS),
        // With a limit of zero a start is only ever begun when nobody could take over, or after a stop of our own: one
        // that is about to end well is not called off.
        Task::Start { timeout_ms, .. } => match timeout_ms.unwrap_or(configured) {
            0 => ms(cx.settings().loop_wait),
            limit => limit,
        },
        _ => u64::MAX,
    }
}
