//! The agent was told to end: settle the server, hand the lock over at once, leave.

use crate::cluster::{DataDir, StopMode};
use crate::ha::context::{Context, Flow};
use crate::ha::decision::{Step, Task};
use crate::ha::memory::DemoteMode;
use crate::ha::reason::{Line, Reason};
use crate::ha::sync;

/// See the module.
pub(in crate::ha) fn leaving(cx: &mut Context<'_>) -> Option<Flow> {
    if !cx.seen.is_leaving {
        return None;
    }
    if cx.is_paused() {
        return exit(cx, true, "Leader key is not deleted and Postgresql is not stopped due paused state");
    }
    if cx.memory.demotion.is_some() {
        // The demotion goes its way; its end comes back here.
        if let Some(flow) = super::demotion::demotion(cx) {
            return Some(flow);
        }
    }
    if let Some(running) = &cx.seen.task {
        let action = running.task.action();
        if !matches!(running.task, Task::Stop { .. }) {
            cx.warn(format!("Cancelling long running task {action}"));
            cx.step(Step::CancelTask);
        }
        return Flow::end(Reason::InProgress { action });
    }
    if cx.memory.bootstrap.is_some() {
        // Another member may begin anew at once.
        return super::new_cluster::give_up(cx);
    }
    if !cx.is_alive() || cx.instance().data_dir == DataDir::Empty {
        if cx.has_lock() {
            cx.release(None);
        }
        return exit(cx, false, "stopped");
    }
    if cx.has_lock() || cx.is_primary() {
        cx.demote(DemoteMode::Graceful, "shutdown");
    } else if sync::holds_for_release(cx) {
        return Flow::end(Line::WaitingForSyncRelease);
    } else {
        cx.begin(Task::Stop { action: "shutdown".into(), mode: StopMode::Fast, checkpoint: false, timeout_ms: None });
    }
    Flow::end(Reason::InProgress { action: "shutdown".into() })
}

fn exit(cx: &mut Context<'_>, keep_server: bool, message: &str) -> Option<Flow> {
    cx.step(Step::Exit { keep_server, message: message.to_owned() });
    Flow::end(Reason::Leaving { message: message.to_owned() })
}
