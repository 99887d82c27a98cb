//! The DCS did not answer: a primary must stop before its lease can have expired there, unless every other member says
//! that it may lead on.

use crate::ha::context::{Context, Flow};
use crate::ha::decision::{Level, Step, Task};
use crate::ha::failsafe;
use crate::ha::memory::DemoteMode;
use crate::ha::observation::LockOutcome;
use crate::ha::reason::Line;

/// See the module.
pub(in crate::ha) fn dcs_lost(cx: &mut Context<'_>) -> Option<Flow> {
    let why = lost(cx)?;
    cx.note(Level::Error, format!("Error communicating with DCS: {why}"));
    if cx.seen.is_leaving {
        return super::leaving::leaving(cx);
    }
    if let Some(flow) = super::demotion::demotion(cx) {
        return Some(flow);
    }
    call_off_a_primary(cx);
    if cx.is_paused() || !cx.is_alive() || !cx.is_primary() {
        if let Some(flow) = failsafe::stand_by(cx) {
            return Some(flow);
        }
        return Flow::end(Line::DcsNotAccessible);
    }
    if let Some(flow) = failsafe::lead_on(cx) {
        return Some(flow);
    }
    if let Some(running) = &cx.seen.task
        && !matches!(running.task, Task::Stop { .. })
    {
        // The slot must be free for the stop.
        cx.step(Step::CancelTask);
    }
    cx.info("demoting self because DCS is not accessible and I was a leader");
    cx.demote(DemoteMode::Offline, "demotion");
    Flow::end(Line::DemotedDcsNotAccessible)
}

/// A start or promotion that hangs may go on at any time. When our lease is over somebody else may lead, so it must not
/// make a primary any more.
fn call_off_a_primary(cx: &mut Context<'_>) {
    let is_standby = cx.instance().is_recovery_configured;
    let makes_one = cx.seen.task.as_ref().is_some_and(|running| running.task.makes_a_primary(is_standby));
    if makes_one && !cx.seen.leads() && !cx.is_paused() && cx.memory.bootstrap.is_none() {
        cx.info("a primary in the making is called off: its lease is over and the DCS is not accessible");
        cx.step(Step::CancelTask);
        cx.step(Step::QuitNow);
    }
}

/// What could not be reached, if anything.
fn lost(cx: &Context<'_>) -> Option<String> {
    use crate::ha::observation::Snapshot;
    let lock = |outcome: &Option<LockOutcome>| match outcome {
        Some(LockOutcome::Unreachable(why)) => Some(why.clone()),
        _ => None,
    };
    if let Snapshot::Unreachable(why) = &cx.seen.view {
        return Some(why.clone());
    }
    let done = cx.done();
    lock(&done.renewal).or_else(|| lock(&done.acquire)).or_else(|| done.lost_write.clone())
}
