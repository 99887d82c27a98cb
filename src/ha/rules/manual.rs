//! An operator's switchover or failover, as the leader handles it.

use crate::cluster::{FailoverKey, Timeline};
use crate::ha::context::{Context, Flow};
use crate::ha::decision::Step;
use crate::ha::eligibility::{action_name, failover_possible};
use crate::ha::memory::DemoteMode;
use crate::ha::reason::Reason;
use crate::ha::requests::{Due, due};

/// How soon a request is looked at again that has to wait for the history of a new timeline.
const LOOK_AGAIN_MS: u64 = 50;

/// Answers when a demotion begins; a request that cannot be met is taken back.
pub(in crate::ha) fn on_the_leader(cx: &mut Context<'_>) -> Option<Flow> {
    let request = cx.view()?.failover_request()?.clone();
    if cx.is_paused() && !cx.is_primary() {
        return None;
    }
    if !is_due(cx, &request) {
        return None;
    }
    if is_new_timeline(cx) {
        cx.wake_within(LOOK_AGAIN_MS);
        return None;
    }
    let action = action_name(Some(&request));
    let bare = action.trim_start_matches("manual ");
    let me = cx.me().clone();
    let refusal = if let Some(leader) = request.leader.as_ref().filter(|leader| !leader.is_empty() && **leader != me) {
        Some(format!("{action}: leader name does not match: {leader} != {me}"))
    } else if request.candidate.as_ref() == Some(&me) {
        Some(format!("{action}: I am already the leader, no need to {bare}"))
    } else if request.candidate.is_none() && cx.is_paused() {
        let title = if request.is_switchover() { "Switchover" } else { "Manual failover" };
        Some(format!("{title} is possible only to a specific candidate in a paused state"))
    } else {
        match failover_possible(cx, None, false) {
            None => return Flow::ask("the members whether one could take over"),
            Some(true) => {
                cx.demote(DemoteMode::Graceful, &format!("{action}: demote"));
                return Flow::end(Reason::DemotingMyself { action: action.to_owned() });
            }
            Some(false) => Some(format!("{action}: no healthy members found, {bare} is not possible")),
        }
    };
    if let Some(why) = refusal {
        cx.warn(why);
        clean_up(cx, &request);
    }
    None
}

/// Just promoted: whoever comes next has to know the number of this timeline, or may begin another one of the same.
fn is_new_timeline(cx: &Context<'_>) -> bool {
    let noted = cx.view().and_then(|view| view.timeline()).unwrap_or(Timeline(1));
    let own = cx.monitor().and_then(|monitor| monitor.timeline);
    cx.is_primary() && !cx.in_standby_cluster() && !cx.memory.is_checkpoint_done && own.is_some_and(|own| own > noted)
}

/// Without a schedule a request is due at once; one that is long past or unreadable is taken back.
fn is_due(cx: &mut Context<'_>, request: &FailoverKey) -> bool {
    let Some(text) = request.scheduled_at.clone() else { return true };
    let Ok(moment) = text.parse::<jiff::Timestamp>() else {
        cx.warn(format!("Incorrect value of scheduled_at: {text}"));
        clean_up(cx, request);
        return false;
    };
    let what = action_name(Some(request)).trim_start_matches("manual ");
    let due = due(cx, what, moment.as_millisecond(), &text);
    if due == Due::Stale {
        clean_up(cx, request);
    }
    due == Due::Now
}

fn clean_up(cx: &mut Context<'_>, request: &FailoverKey) {
    cx.info("Cleaning up failover key");
    cx.step(Step::BlankFailover(Some(request.version)));
}
