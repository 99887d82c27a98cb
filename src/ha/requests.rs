//! What operators ask of this node: restart, a restart to come, reinitialise.

use crate::cluster::{ClusterView, Recovery, ReinitRequest, RestartRequest, Role, ScheduledRestart};

use super::context::{Context, Flow};
use super::decision::{Level, Reply, Step, Task};
use super::observation::RequestKind;
use super::reason::{Line, Reason};
use super::sync;

/// Answers every pending request; a restart or reinitialisation that begins ends the decision.
pub(super) fn requests(cx: &mut Context<'_>) -> Option<Flow> {
    keep_yielding_while_needed(cx);
    if let Some(restart) = cx.memory.held_restart.clone()
        && busy(cx).is_none()
        && !would_lead_unasked(cx)
        && !sync::holds_for_release(cx)
    {
        cx.memory.held_restart = None;
        begin_restart(cx, &restart);
        return Some(Flow::Ask(Line::RestartInitiated.into()));
    }
    let pending = cx.seen.requests.clone();
    for request in pending {
        let begun = match request.kind {
            RequestKind::Restart(restart) => ask_restart(cx, request.id, &restart),
            RequestKind::ScheduleRestart(restart) => {
                schedule(cx, request.id, restart);
                false
            }
            RequestKind::CancelRestart => {
                let reply = match cx.memory.scheduled_restart.take() {
                    Some(_) => Reply::Ok("scheduled restart deleted".into()),
                    None => Reply::Refused("no restarts are scheduled".into()),
                };
                cx.step(Step::Reply { id: request.id, reply });
                false
            }
            RequestKind::Reinitialize(reinit) => reinitialize(cx, request.id, reinit),
        };
        if begun {
            return Some(Flow::Ask(Line::RestartInitiated.into()));
        }
    }
    None
}

/// This standby asks not to be waited for until what it asked that for is over.
fn keep_yielding_while_needed(cx: &mut Context<'_>) {
    let restarts = cx.memory.held_restart.is_some()
        || cx.seen.requests.iter().any(|request| matches!(request.kind, RequestKind::Restart(_)))
        || cx.seen.task.as_ref().is_some_and(|task| matches!(task.task, Task::Restart { .. }));
    if !restarts && !cx.seen.is_leaving {
        cx.memory.yields_sync_since_ms = None;
    }
}

fn refuse(cx: &mut Context<'_>, id: u64, why: impl Into<String>) -> bool {
    cx.step(Step::Reply { id, reply: Reply::Refused(why.into()) });
    false
}

/// The name of the running task or demotion, if one is in the way.
fn busy(cx: &Context<'_>) -> Option<String> {
    let demotion = cx.memory.demotion.as_ref().map(|demotion| demotion.action.clone());
    cx.seen.task.as_ref().map(|task| task.task.action()).or(demotion)
}

fn ask_restart(cx: &mut Context<'_>, id: u64, request: &RestartRequest) -> bool {
    if let Some(why) = mismatch(cx, request) {
        cx.info(format!("not proceeding with the restart: {why}"));
        return refuse(cx, id, "restart conditions are not satisfied");
    }
    if let Some(action) = busy(cx) {
        return refuse(cx, id, format!("{action} already in progress"));
    }
    if would_lead_unasked(cx) {
        return refuse(cx, id, "it would start as a primary, and this node does not hold the leader lock");
    }
    if sync::holds_for_release(cx) {
        // The request stays pending: it is taken up when nobody waits for this standby any more.
        return false;
    }
    cx.memory.restart_reply = Some(id);
    begin_restart(cx, request);
    true
}

/// A restart leaves the recovery configuration as it is. What is not a standby comes up as a primary, which only the
/// holder of the lock may.
fn would_lead_unasked(cx: &Context<'_>) -> bool {
    !cx.is_paused() && !cx.seen.leads() && !cx.instance().is_recovery_configured
}

fn begin_restart(cx: &mut Context<'_>, request: &RestartRequest) {
    cx.memory.is_recovering = true;
    cx.memory.start_timeout_ms = request.timeout_seconds.map(|seconds| seconds.saturating_mul(1000));
    let start_timeout_ms = u64::try_from(cx.settings().primary_start_timeout.as_millis()).unwrap_or(u64::MAX);
    let timeout_ms = cx.memory.start_timeout_ms.unwrap_or(start_timeout_ms);
    let role = cx.role().unwrap_or(Role::Replica);
    cx.begin(Task::Restart { action: "restart".into(), recovery: Recovery::Keep, role, timeout_ms: Some(timeout_ms) });
}

fn mismatch(cx: &Context<'_>, request: &RestartRequest) -> Option<&'static str> {
    let role = cx.role().map(Role::as_str);
    if request.restart_pending.is_some() && cx.instance().pending_restart.is_empty() {
        return Some("pending restart flag is not set");
    }
    let running = cx.instance().server_version;
    if let (Some(wanted), Some(running)) = (request.postgres_version.as_deref().and_then(version_number), running)
        && wanted <= running
    {
        return Some("postgres version mismatch");
    }
    (request.role.is_some() && request.role.as_deref() != role).then_some("host role mismatch")
}

/// `15.2` is 150002, `9.6.24` is 90624.
fn version_number(text: &str) -> Option<u32> {
    let parts: Vec<u32> = text.split('.').map(|part| part.trim().parse().ok()).collect::<Option<_>>()?;
    let (major, rest) = match parts[..] {
        [major, minor] if major >= 10 => (major, minor),
        [major, minor, patch] => (major, minor.saturating_mul(100).saturating_add(patch)),
        _ => return None,
    };
    Some(major.saturating_mul(10_000).saturating_add(rest))
}

fn schedule(cx: &mut Context<'_>, id: u64, mut restart: ScheduledRestart) {
    if cx.memory.scheduled_restart.is_some() {
        refuse(cx, id, "Another restart is already scheduled");
        return;
    }
    restart.postmaster_start_time = cx.instance().postmaster_start_time.clone();
    cx.memory.scheduled_restart = Some(restart);
    cx.step(Step::Reply { id, reply: Reply::Ok("Restart scheduled".into()) });
}

/// The scheduled restart, once a cycle has settled that nothing else is to be done. Its line replaces the status.
pub(super) fn scheduled_restart(cx: &mut Context<'_>, status: Reason) -> Reason {
    let Some(restart) = cx.memory.scheduled_restart.clone() else { return status };
    let now = cx.instance().postmaster_start_time.clone();
    if now.is_some() && restart.postmaster_start_time.is_some() && now != restart.postmaster_start_time {
        let at = now.unwrap_or_default();
        cx.info(format!("Cancelling scheduled restart: postgres restart has already happened at {at}"));
        cx.memory.scheduled_restart = None;
        return status;
    }
    match due(cx, "restart", restart.at_ms, &restart.schedule) {
        Due::NotYet => return status,
        Due::Stale => {
            cx.memory.scheduled_restart = None;
            return status;
        }
        Due::Now => cx.memory.scheduled_restart = None,
    }
    if let Some(why) = mismatch(cx, &restart.request) {
        cx.info(format!("not proceeding with the restart: {why}"));
        cx.warn("Scheduled restart: restart conditions are not satisfied");
        return status;
    }
    if sync::holds_for_release(cx) {
        cx.memory.held_restart = Some(restart.request);
        return Line::WaitingForSyncRelease.into();
    }
    begin_restart(cx, &restart.request);
    Line::RestartInitiated.into()
}

/// Whether a scheduled moment has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Later, or maintenance mode holds it.
    NotYet,
    /// Now.
    Now,
    /// Long past: to be dropped.
    Stale,
}

/// Compares a scheduled moment with the wall clock; what is near wakes the loop exactly then.
pub(super) fn due(cx: &mut Context<'_>, what: &str, at_ms: i64, shown: &str) -> Due {
    if cx.is_paused() {
        return Due::NotYet;
    }
    let delta_ms = at_ms.saturating_sub(cx.seen.wall_ms);
    let loop_ms = i64::try_from(cx.settings().loop_wait.as_millis()).unwrap_or(i64::MAX);
    if delta_ms > 0 {
        if delta_ms > loop_ms {
            cx.info(format!("Awaiting {what} at {shown} (in {} seconds)", delta_ms / 1000));
        }
        cx.wake_within(u64::try_from(delta_ms).unwrap_or(u64::MAX));
        return Due::NotYet;
    }
    if delta_ms < -(loop_ms + loop_ms / 2) {
        cx.warn(format!("Found a stale {what} value, cleaning up: {shown}"));
        return Due::Stale;
    }
    cx.info(format!("Manual scheduled {what} at {shown}"));
    Due::Now
}

fn reinitialize(cx: &mut Context<'_>, id: u64, request: ReinitRequest) -> bool {
    if cx.view().is_none_or(ClusterView::is_unlocked) {
        return refuse(cx, id, "Cluster has no leader, can not reinitialize");
    }
    if cx.has_lock() {
        return refuse(cx, id, "I am the leader, can not reinitialize");
    }
    if let Some(action) = busy(cx) {
        if !request.force {
            return refuse(cx, id, format!("{action} already in progress"));
        }
        cx.note(Level::Warning, format!("Cancelling long running task {action}"));
        // The request stays pending: it is answered when the cancelled task has ended.
        cx.step(Step::CancelTask);
        return false;
    }
    let Some((source, from)) = super::rules::empty_data_dir::clone_source(cx, request.from_leader) else {
        return refuse(cx, id, "the leader does not publish an address to clone from, can not reinitialize");
    };
    cx.step(Step::Reply { id, reply: Reply::Ok("reinitialize started".into()) });
    cx.begin(Task::Clone {
        source: Some(source),
        from,
        basebackup_only: request.from_leader,
        instead: Some("reinitialize".into()),
    });
    true
}

#[cfg(test)]
mod tests {
    use super::version_number;

    #[test]
    fn versions_as_numbers() {
        for (text, number) in [
            ("15.2", Some(150_002)),
            ("9.6.24", Some(90_624)),
            (" 15. 2 ", Some(150_002)),
            ("9.6", None),
            ("15", None),
            ("15.x", None),
            ("4294967295.1", Some(u32::MAX)),
            ("10.4294967295.4294967295", Some(u32::MAX)),
        ] {
            assert_eq!(version_number(text), number, "{text}");
        }
    }
}
