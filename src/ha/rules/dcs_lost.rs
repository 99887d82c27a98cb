//! The DCS did not answer: a primary must stop before its lease can have expired there.

use crate::ha::context::{Context, Flow};
use crate::ha::decision::{Level, Step, Task};
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
    if cx.is_paused() || !cx.is_alive() || !cx.is_primary() {
        return Flow::end(Line::DcsNotAccessible);
    }
    if let Some(flow) = failsafe(cx) {
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

/// In failsafe mode a primary leads on as long as every member that could take over says that it will not. `None`: it
/// must stop.
fn failsafe(cx: &mut Context<'_>) -> Option<Flow> {
    if !cx.settings().failsafe_mode || !cx.seen.failsafe.contains_key(cx.me()) {
        return None;
    }
    let Some(answers) = cx.done().failsafe.clone() else {
        let others = cx.seen.failsafe.iter().filter(|(name, _)| *name != cx.me());
        let others = others.map(|(name, api_url)| (name.clone(), api_url.clone())).collect();
        cx.step(Step::AskFailsafe(others));
        return Flow::ask("the members whether we may lead on");
    };
    let mut refusals = answers.iter().filter_map(|(name, why)| Some((name, why.as_ref()?))).peekable();
    if refusals.peek().is_some() {
        for (name, why) in refusals {
            cx.warn(format!("failsafe mode: {name} does not accept us as the leader: {why}"));
        }
        return None;
    }
    cx.step(Step::LeadByFailsafe);
    Flow::end(Line::ContinueInFailsafe)
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
