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

fn kept(cx: &mut Context<'_>, task: &Task, since_ms: u64, action: String) -> Option<Flow> {
    let limit_ms = u64::try_from(cx.settings().primary_start_timeout.as_millis()).unwrap_or(u64::MAX);
    let overdue = *task == Task::CrashRecovery && cx.now().saturating_sub(since_ms) > limit_ms;
    if overdue {
        match failover_possible(cx, None, false) {
            None => return Flow::ask("the members whether one could take over"),
            Some(true) => {
                cx.info("Demoting self because crash recovery is taking too long");
                cx.step(Step::CancelTask);
                cx.demote(DemoteMode::Immediate, "demotion");
                return Flow::end(Line::TerminatedCrashRecovery);
            }
            Some(false) => {}
        }
    }
    Flow::end(Reason::LockKeptDuring { action })
}
