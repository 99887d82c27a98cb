//! Does this data directory belong to this cluster?

use crate::cluster::{Member, PeerAnswer, Timeline};
use crate::ha::context::{Context, Flow};
use crate::ha::decision::{Level, Step};
use crate::ha::eligibility::{Race, race};
use crate::ha::reason::{Line, Reason};

/// Data without a readable system identifier.
pub(in crate::ha) fn no_system_id(cx: &mut Context<'_>) -> Option<Flow> {
    if cx.instance().system_id.is_some() {
        return None;
    }
    Flow::end(Line::DataDirWithoutSystemId)
}

/// Another cluster's identifier stands in the DCS.
pub(in crate::ha) fn mismatch(cx: &mut Context<'_>) -> Option<Flow> {
    let expected = cx.view()?.system_id()?;
    let own = cx.instance().system_id.clone()?;
    if expected == own {
        return None;
    }
    if !cx.is_paused() {
        let me = cx.me();
        let message = format!("system ID mismatch, node {me} belongs to a different cluster: {expected} != {own}");
        cx.note(Level::Critical, message.clone());
        cx.step(Step::Exit { keep_server: false, message: message.clone() });
        return Flow::end(Reason::Leaving { message });
    }
    cx.warn(format!(
        "system ID has changed while in paused mode. The agent will exit when resuming unless system ID is reset: \
         {expected} != {own}"
    ));
    if cx.has_lock() {
        cx.release(None);
        return Flow::end(Line::ReleasedSystemIdMismatch);
    }
    None
}

/// The DCS has lost its keys, or never had any. What ran as a primary takes the leader key and makes the cluster known
/// when everything else is back; a replica must not, for it would promote itself out of somebody else's mishap, and
/// may lack what was acknowledged: `/sync`, which would say so, is gone, too. Only an operator can send it.
pub(in crate::ha) fn unknown_cluster(cx: &mut Context<'_>) -> Option<Flow> {
    let view = cx.view()?;
    if view.system_id().is_some() || cx.has_lock() || cx.is_paused() || cx.in_standby_cluster() {
        return None;
    }
    let is_primary = cx.is_alive() && cx.is_primary();
    if !view.is_unlocked() {
        // Nobody can tell yet whether its data are ours; two primaries are one too many all the same.
        return if is_primary { None } else { Flow::end(Line::WaitingForIntroduction) };
    }
    if is_primary {
        return None;
    }
    if !cx.is_alive() {
        cx.memory.brings_cluster = !cx.instance().is_recovery_configured;
        return None;
    }
    if is_sent(cx) {
        cx.warn(
            "The DCS does not know this cluster; going for the leader key because a manual failover names this node",
        );
        return None;
    }
    if cx.memory.brings_cluster && !is_overtaken(cx) {
        match race(cx) {
            Race::Asking => return Flow::ask("the members for their positions"),
            Race::Run => return None,
            Race::StandBack => {}
        }
    }
    Flow::end(Reason::NotRacingUnknownCluster { scope: cx.seen.node.scope.clone() })
}

/// An operator wants this very node to lead, now.
fn is_sent(cx: &Context<'_>) -> bool {
    let request = cx.view().and_then(|view| view.failover_request());
    request.is_some_and(|request| {
        !request.is_switchover() && request.scheduled_at.is_none() && request.candidate.as_ref() == Some(cx.me())
    })
}

/// Another member is, or was last seen, on a later timeline: a primary that is long past has nothing to introduce.
fn is_overtaken(cx: &Context<'_>) -> bool {
    let Some(view) = cx.view() else { return true };
    let own = cx.monitor().and_then(|monitor| monitor.timeline.or(monitor.control_timeline)).unwrap_or(Timeline(0));
    let published = view.members.iter().chain(cx.memory.known_members.values()).filter_map(Member::timeline);
    let told = cx.done().peers.iter().flatten().filter_map(|(_, answer)| match answer {
        PeerAnswer::Answered { timeline, .. } => *timeline,
        PeerAnswer::Unreachable(_) => None,
    });
    published.chain(told).any(|theirs| theirs > own)
}
