//! A demotion, stage by stage: stop the server, give the key away as soon as that is safe, stand back a moment.

use crate::cluster::{Recovery, Role, StopMode, StopProgress};
use crate::ha::context::{Context, Flow};
use crate::ha::decision::{Step, Task};
use crate::ha::eligibility::failover_possible;
use crate::ha::memory::{DemoteMode, DemotionStage};
use crate::ha::observation::LockOutcome;
use crate::ha::reason::Reason;

/// How long a released key is left to the others before this node starts again.
const STAND_BACK_MS: u64 = 2_000;

/// An immediate stop kills what does not end, so it is over much sooner. A server that neither ends nor dies must not
/// keep the key from the others; the lease's deadline, the guard and the watchdog see to it from then on.
const IMMEDIATE_STOP_MS: u64 = 30_000;

/// How soon a candidate is asked again whether it has received the shutdown checkpoint.
const ASK_AGAIN_MS: u64 = 100;

/// See the module.
pub(in crate::ha) fn demotion(cx: &mut Context<'_>) -> Option<Flow> {
    let stage = cx.memory.demotion.as_ref()?.stage;
    match stage {
        DemotionStage::Ordered => {
            order_stop(cx);
            in_progress(cx)
        }
        DemotionStage::Stopping => stopping(cx),
        DemotionStage::Stopped => stopped(cx),
        DemotionStage::StandingBack { until_ms } => standing_back(cx, until_ms),
    }
}

fn in_progress(cx: &Context<'_>) -> Option<Flow> {
    let action = cx.memory.demotion.as_ref()?.action.clone();
    Flow::end(Reason::InProgress { action })
}

/// Orders the stop if the task slot is free; else the next decision does. An immediate stop does not wait for the
/// slot: the signal goes out at once.
pub(in crate::ha) fn order_stop(cx: &mut Context<'_>) {
    let Some(demotion) = cx.memory.demotion.clone() else { return };
    let mode = match demotion.mode {
        DemoteMode::Offline | DemoteMode::Graceful | DemoteMode::Cluster | DemoteMode::ClusterArchiving => {
            StopMode::Fast
        }
        DemoteMode::Immediate | DemoteMode::ImmediateNolock => StopMode::Immediate,
    };
    if cx.seen.task.is_some() {
        if mode == StopMode::Immediate {
            cx.step(Step::QuitNow);
        }
        return;
    }
    cx.begin(Task::Stop {
        action: demotion.action,
        mode,
        checkpoint: demotion.mode == DemoteMode::Graceful,
        timeout_ms: stop_timeout(cx),
    });
    if let Some(demotion) = &mut cx.memory.demotion {
        demotion.stage = DemotionStage::Stopping;
    }
}

fn stop_timeout(cx: &Context<'_>) -> Option<u64> {
    let limit = cx.settings().primary_stop_timeout;
    let counts = !limit.is_zero() && cx.is_sync_mode();
    counts.then(|| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX))
}

fn stopping(cx: &mut Context<'_>) -> Option<Flow> {
    let demotion = cx.memory.demotion.clone()?;
    if cx.seen.task.is_none() {
        // The stop has not begun yet, or its end is still on its way.
        return in_progress(cx);
    }
    if !cx.has_lock() || demotion.is_released {
        return in_progress(cx);
    }
    if demotion.mode == DemoteMode::Offline {
        return in_progress(cx);
    }
    if demotion.mode == DemoteMode::Immediate && cx.now().saturating_sub(demotion.began_ms) > IMMEDIATE_STOP_MS {
        cx.warn("the server neither ends nor dies; the leader key is left to expire");
        cx.step(Step::QuitNow);
        return in_progress(cx);
    }
    match cx.renewal() {
        None => return Flow::ask("the DCS to renew the lease"),
        Some(LockOutcome::Kept) => {}
        Some(LockOutcome::Lost | LockOutcome::Unreachable(_)) => {
            // Somebody else may lead by now; a fast stop that still serves sessions must not go on.
            cx.step(Step::QuitNow);
            return in_progress(cx);
        }
    }
    let progress = cx.seen.task.as_ref().and_then(|task| task.progress);
    if let (true, Some(StopProgress::ShutDown { checkpoint, previous })) = (demotion.mode.releases(), progress) {
        match failover_possible(cx, Some(checkpoint), false) {
            None => return Flow::ask("the members whether they have the last checkpoint"),
            Some(true) => {
                cx.memory.role = Some(Role::Demoted);
                // Somebody who follows the other cluster has to have the checkpoint itself.
                let is_cluster = demotion.mode == DemoteMode::Cluster;
                cx.release(Some(if is_cluster { checkpoint } else { previous }));
                if let Some(demotion) = &mut cx.memory.demotion {
                    demotion.is_released = true;
                }
                return in_progress(cx);
            }
            Some(false) => cx.wake_within(ASK_AGAIN_MS),
        }
    }
    Flow::end(Reason::LockKeptDuring { action: demotion.action })
}

/// The server is down.
fn stopped(cx: &mut Context<'_>) -> Option<Flow> {
    let demotion = cx.memory.demotion.clone()?;
    cx.memory.role = Some(Role::Demoted);
    match demotion.mode {
        DemoteMode::Offline => {
            cx.memory.demotion = None;
            if cx.seen.is_leaving {
                return None;
            }
            cx.memory.is_recovering = true;
            cx.begin(Task::Start {
                action: "starting after demotion".into(),
                recovery: Recovery::Standby(None),
                role: Role::Replica,
                timeout_ms: None,
            });
            Flow::end(Reason::InProgress { action: demotion.action })
        }
        DemoteMode::ImmediateNolock => {
            cx.memory.demotion = None;
            None
        }
        DemoteMode::ClusterArchiving => {
            cx.memory.demotion = None;
            cx.begin(Task::ArchiveLast);
            Flow::end(Reason::InProgress { action: demotion.action })
        }
        DemoteMode::Graceful | DemoteMode::Immediate | DemoteMode::Cluster => {
            if !demotion.is_released && cx.has_lock() {
                let position = if demotion.mode == DemoteMode::Graceful { demotion.shutdown_lsn } else { None };
                cx.release(position);
            }
            cx.memory.has_made_way = demotion.mode == DemoteMode::Graceful;
            let until_ms = cx.now().saturating_add(STAND_BACK_MS);
            if let Some(demotion) = &mut cx.memory.demotion {
                demotion.is_released = true;
                demotion.stage = DemotionStage::StandingBack { until_ms };
            }
            cx.wake_within(STAND_BACK_MS);
            in_progress(cx)
        }
    }
}

/// The key is free: the others have the first go. A new leader ends the wait at once.
fn standing_back(cx: &mut Context<'_>, until_ms: u64) -> Option<Flow> {
    let me = cx.me();
    let has_new_leader = cx.view().and_then(|view| view.leader_name()).is_some_and(|leader| leader != me);
    if has_new_leader || cx.seen.is_leaving || cx.now() >= until_ms {
        cx.memory.demotion = None;
        cx.mark_check();
        return None;
    }
    cx.wake_within(until_ms.saturating_sub(cx.now()));
    in_progress(cx)
}
