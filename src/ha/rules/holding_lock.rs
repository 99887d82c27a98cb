//! We hold the lock: renew it, and be the primary it promises.

use serde_json::{Value, json};

use crate::cluster::{Member, Role, Timeline};
use crate::ha::context::{Context, Flow};
use crate::ha::decision::{Level, Step, Task};
use crate::ha::eligibility::is_outside_sync;
use crate::ha::memory::DemoteMode;
use crate::ha::observation::{LockOutcome, Watchdog};
use crate::ha::reason::{Line, Reason};
use crate::ha::{requests, slots, sync};

/// How many timelines may have been begun without a member that is promoted now.
const MAX_TAKEN: u32 = 1_000;

/// See the module.
pub(in crate::ha) fn holding_lock(cx: &mut Context<'_>) -> Option<Flow> {
    if !cx.has_lock() {
        return None;
    }
    let in_standby_cluster = cx.in_standby_cluster();
    if cx.is_paused() && !cx.is_primary() {
        let request = cx.view().and_then(|view| view.failover_request());
        if request.is_some_and(|request| request.candidate.as_ref() == Some(cx.me())) {
            return Flow::end(Line::WaitingToBecomePrimary);
        }
        if !in_standby_cluster {
            cx.release(None);
            return Flow::end(Line::RemovedLockNotPrimary);
        }
    }
    match cx.renewal() {
        None => Flow::ask("the DCS to renew the lease"),
        Some(LockOutcome::Kept) => kept(cx),
        Some(_) => lost(cx),
    }
}

fn kept(cx: &mut Context<'_>) -> Option<Flow> {
    if let Some(status) = slots::status(cx) {
        cx.step(Step::WriteStatus(status));
    }
    failsafe_topology(cx);
    let view = cx.view()?;
    if view.config_document().is_none_or(|document| document.is_empty()) {
        cx.step(Step::WriteConfig(cx.seen.node.initial_config.clone()));
    }
    if let Some(flow) = super::manual::on_the_leader(cx) {
        return Some(flow);
    }
    checkpoint_after_promotion(cx);
    let me = cx.me().to_string();
    let flow = if cx.in_standby_cluster() {
        forget_sync(cx);
        let reason = if cx.role() == Some(Role::StandbyLeader) {
            Reason::Leading { me, is_standby_leader: true }
        } else {
            Line::StandbyLeaderHadLock.into()
        };
        super::following::follow(cx, Line::CannotLeadStandbyClusterAsPrimary.into(), reason)
    } else {
        enforce_primary(cx, Reason::Leading { me, is_standby_leader: false }, Line::PromotedHadLock.into())
    };
    if matches!(flow, Some(Flow::End(_))) {
        introduce(cx);
    }
    match flow {
        Some(Flow::End(reason)) if !cx.steps.iter().any(|step| matches!(step, Step::Begin(_))) => {
            Some(Flow::End(requests::scheduled_restart(cx, reason)))
        }
        other => other,
    }
}

/// What `/sync` says is of the time before the cluster became a standby of another one, which has none of the commits
/// that were acknowledged then. It would count for nothing but votes, and bar members from leading when the cluster is
/// promoted.
fn forget_sync(cx: &mut Context<'_>) {
    let Some(view) = cx.view().filter(|view| view.sync.version.is_some() && !view.sync.is_empty()) else { return };
    if cx.role() == Some(Role::StandbyLeader) {
        cx.step(Step::DeleteSync(view.sync.version));
    }
}

/// Makes a cluster known that the DCS has forgotten: last of all, after leader, configuration and `/sync`. From then on
/// members race for a free leader key, and must find who may.
fn introduce(cx: &mut Context<'_>) {
    let Some(view) = cx.view().filter(|view| view.system_id().is_none()) else { return };
    let leads = if cx.in_standby_cluster() { cx.role() == Some(Role::StandbyLeader) } else { cx.is_primary() };
    let is_guarded = !cx.is_sync_mode() || view.sync.is_leader(cx.me());
    if let (true, true, Some(id)) = (leads && cx.memory.demotion.is_none(), is_guarded, &cx.instance().system_id) {
        cx.step(Step::SetInitialize(id.to_string()));
    }
}

/// Members that may have a say while the DCS is away; Patroni members that are not in it do not race. Nobody has when
/// failsafe mode is off.
fn failsafe_topology(cx: &mut Context<'_>) {
    let Some(view) = cx.view() else { return };
    if !cx.settings().failsafe_mode {
        if view.failsafe.as_ref().is_some_and(|left| !left.is_empty()) {
            cx.step(Step::WriteFailsafe(std::collections::BTreeMap::new()));
        }
        return;
    }
    let members = view.members.iter().filter_map(|member| Some((member.name.clone(), member.api_url()?.to_owned())));
    let mut topology: std::collections::BTreeMap<_, _> = members.collect();
    topology.insert(cx.me().clone(), cx.seen.node.api_url.clone());
    if view.failsafe.as_ref() != Some(&topology) {
        cx.step(Step::WriteFailsafe(topology));
    }
}

fn lost(cx: &mut Context<'_>) -> Option<Flow> {
    cx.note(Level::Error, "failed to update leader lock");
    if !cx.is_primary() {
        return Flow::end(Line::NotPromotingFailedUpdate);
    }
    if cx.is_paused() {
        return Flow::end(Line::ContinueAsPrimaryAfterFailedUpdate);
    }
    cx.demote(DemoteMode::ImmediateNolock, "demotion");
    Flow::end(Line::DemotedFailedUpdate)
}

/// Makes the local server the primary, or says that it is.
pub(in crate::ha) fn enforce_primary(cx: &mut Context<'_>, is_primary: Reason, promotes: Reason) -> Option<Flow> {
    if let Some(flow) = watchdog(cx) {
        return Some(flow);
    }
    if !cx.is_paused() && std::mem::take(&mut cx.memory.is_promotion_refused) {
        cx.warn("Releasing the leader key voluntarily because the pre-promote script failed");
        cx.release(None);
        return Flow::end(Line::PromotionCancelled);
    }
    if cx.is_primary() {
        cx.memory.role = Some(Role::Primary);
        cx.memory.race_since_ms = None;
        if let Some(flow) = sync::pass(cx) {
            return Some(flow);
        }
        return match history(cx) {
            Some(flow) => Some(flow),
            None => Flow::end(is_primary),
        };
    }
    if matches!(cx.role(), Some(Role::Primary | Role::Promoted)) && cx.monitor().is_none() {
        return Flow::end(is_primary);
    }
    if !cx.memory.has_won && cx.role() != Some(Role::StandbyLeader) && is_in_doubt(cx) {
        cx.release(None);
        return Flow::end(Line::FollowingNotHealthiest);
    }
    if let Some(flow) = sync::before_promotion(cx) {
        return Some(flow);
    }
    slots::warn_unready(cx);
    let limit_ms = u64::try_from(cx.settings().loop_wait.as_millis()).unwrap_or(u64::MAX);
    let taken = taken_timelines(cx);
    cx.memory.is_promotion_refused = false;
    cx.begin(Task::Promote { limit_ms, taken });
    Flow::end(promotes)
}

/// The key is ours, but nobody can tell by which race: the agent has been started since, or had no answer from the DCS.
fn is_in_doubt(cx: &mut Context<'_>) -> bool {
    let is_outside = is_outside_sync(cx);
    if is_outside {
        cx.warn("Releasing the leader key: /sync names others, so this node may lack acknowledged commits");
        cx.wake_within(1);
    }
    is_outside || super::race::is_outdated(cx)
}

/// The watchdog counts down before we are a primary. Never in maintenance mode.
fn watchdog(cx: &mut Context<'_>) -> Option<Flow> {
    if cx.is_paused() {
        return None;
    }
    match may_lead_by_watchdog(cx)? {
        Asked::Pending => Flow::ask("the watchdog to be armed"),
        Asked::Refused if cx.is_primary() => {
            cx.demote(DemoteMode::Immediate, "demotion");
            Flow::end(Line::DemotingWithoutWatchdog)
        }
        Asked::Refused => {
            cx.release(None);
            Flow::end(Line::NotPromotingWithoutWatchdog)
        }
    }
}

/// Why the watchdog does not let us lead yet.
pub(in crate::ha) enum Asked {
    /// It is being armed.
    Pending,
    /// It is required and could not be armed.
    Refused,
}

/// Arms the watchdog unless it runs. `None`: nothing is in the way.
pub(in crate::ha) fn may_lead_by_watchdog(cx: &mut Context<'_>) -> Option<Asked> {
    match (cx.seen.watchdog, cx.done().watchdog) {
        (Watchdog::Settled, _) | (_, Some(true)) => None,
        (_, Some(false)) => Some(Asked::Refused),
        (Watchdog::Idle | Watchdog::Unusable, None) => {
            cx.step(Step::ActivateWatchdog);
            Some(Asked::Pending)
        }
    }
}

/// A primary that this member has not heard of may have begun a timeline already, and its data directory will come back:
/// a second timeline of that number would be taken for the same one.
fn taken_timelines(cx: &Context<'_>) -> Vec<Timeline> {
    let Some(view) = cx.view() else { return Vec::new() };
    let published = view.members.iter().chain(cx.memory.known_members.values()).filter_map(Member::timeline);
    let highest = published.chain(view.timeline()).max();
    let own = cx.monitor().and_then(|monitor| monitor.timeline);
    match (own, highest) {
        // So many were never begun while we were away: somebody wrote nonsense.
        (Some(own), Some(highest)) if highest.0.saturating_sub(own.0) <= MAX_TAKEN => {
            (own.0 + 1..=highest.0).map(Timeline).collect()
        }
        _ => Vec::new(),
    }
}

/// Others may rewind from us once our timeline is in the control file; a checkpoint puts it there.
fn checkpoint_after_promotion(cx: &mut Context<'_>) {
    if !cx.is_primary() || cx.memory.is_checkpoint_done {
        return;
    }
    let Some(monitor) = cx.monitor() else { return };
    if monitor.timeline.is_some() && monitor.timeline == monitor.control_timeline {
        cx.memory.is_checkpoint_done = true;
    } else if !cx.memory.is_checkpoint_ordered {
        cx.memory.is_checkpoint_ordered = true;
        cx.step(Step::Checkpoint);
    }
}

/// Keeps `/history` in step with the server's timeline.
fn history(cx: &mut Context<'_>) -> Option<Flow> {
    let view = cx.view()?;
    let timeline = cx.monitor()?.timeline?;
    let known: Vec<Value> =
        view.history.as_ref().and_then(|history| history.raw.as_array().cloned()).unwrap_or_default();
    if timeline == Timeline(1) {
        if !known.is_empty() {
            cx.step(Step::WriteHistory(json!([])));
        }
        return None;
    }
    let last = known.last().and_then(Value::as_array);
    let is_current =
        last.is_some_and(|line| line.len() == 5 && line[0].as_u64() == Some(u64::from(timeline.0.saturating_sub(1))));
    if is_current {
        return None;
    }
    let Some((lines, written)) = &cx.done().history else {
        cx.step(Step::ReadHistory(timeline));
        return Flow::ask("the server for its timeline history");
    };
    let keep = match cx.settings().max_timelines_history {
        0 => lines.len(),
        limit => limit,
    };
    let mut document: Vec<Value> = lines
        .iter()
        .skip(lines.len().saturating_sub(keep))
        .map(|line| {
            let fresh = json!([line.timeline, line.switch, line.reason]);
            known.iter().find(|old| old[0] == fresh[0] && old[1] == fresh[1]).cloned().unwrap_or(fresh)
        })
        .collect();
    if let Some(Value::Array(line)) = document.last_mut()
        && line.len() == 3
        && line[0].as_u64() == Some(u64::from(timeline.0.saturating_sub(1)))
        && let Some(written) = written
    {
        line.push(json!(written));
        line.push(json!(cx.me().as_str()));
    }
    if document != known && !document.is_empty() {
        cx.step(Step::WriteHistory(Value::Array(document)));
    }
    None
}
