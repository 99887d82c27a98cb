//! The server is down and nobody ordered it: bring it back in the role the cluster has for it.

use crate::cluster::{Recovery, Role, State};
use crate::ha::context::{Context, Flow};
use crate::ha::decision::Task;
use crate::ha::eligibility::failover_possible;
use crate::ha::memory::{DemoteMode, RewindState};
use crate::ha::observation::LockOutcome;
use crate::ha::reason::Line;

/// In maintenance mode a server that is down stays down; its lock is given away.
pub(in crate::ha) fn down_while_paused(cx: &mut Context<'_>) -> Option<Flow> {
    if cx.is_alive() || !cx.is_paused() {
        return None;
    }
    if cx.has_lock() {
        cx.release(None);
        return Flow::end(Line::RemovedLockNotRunning);
    }
    let rewind = cx.memory.rewind;
    let can_repair = cx.instance().can_rewind || cx.seen.node.remove_on_divergence;
    let has_leader = cx.view().is_some_and(|view| !view.is_unlocked());
    // A former leader that was switched away from while paused may come back as a standby, and so may what an operator
    // has just had cloned.
    let has_made_way = (cx.memory.has_made_way || (rewind.is_open() && can_repair)) && has_leader;
    let may_return = rewind == RewindState::Success || cx.memory.is_fresh_clone || has_made_way;
    if !may_return {
        return Flow::end(Line::PostgresNotRunning);
    }
    None
}

/// See the module.
pub(in crate::ha) fn down(cx: &mut Context<'_>) -> Option<Flow> {
    if cx.is_alive() {
        return None;
    }
    if !is_expected(cx) {
        cx.warn("Postgresql is not running.");
    }
    if let Some(until) = cx.memory.hold_until_ms.filter(|until| cx.now() < *until) {
        cx.wake_within(until.saturating_sub(cx.now()));
        return Flow::end(Line::FailedToStart);
    }
    let mut leads = false;
    if cx.has_lock() {
        match cx.renewal() {
            None => return Flow::ask("the DCS to renew the lease"),
            Some(outcome) => leads = *outcome == LockOutcome::Kept,
        }
    }
    if leads && let Some(flow) = crashed_leader(cx) {
        return Some(flow);
    }
    if let Some(flow) = needs_crash_recovery(cx) {
        return Some(flow);
    }
    bring_back(cx)
}

/// A former leader that has just been stopped to make way, and a clone that never ran, are no failures.
fn is_expected(cx: &Context<'_>) -> bool {
    cx.memory.is_fresh_clone || cx.role() == Some(Role::Demoted)
}

/// A primary that crashed under its own lock: start it again, or fail over at once if so configured.
fn crashed_leader(cx: &mut Context<'_>) -> Option<Flow> {
    let timeout = cx.settings().primary_start_timeout;
    if cx.in_standby_cluster() && cx.role() == Some(Role::Demoted) {
        // Stopped by us, to follow the other cluster from now on.
        return None;
    }
    if timeout.is_zero() {
        return match failover_possible(cx, None, false) {
            None => Flow::ask("the members whether one could take over"),
            Some(true) => {
                cx.info("Primary crashed. Failing over.");
                cx.demote(DemoteMode::Immediate, "demotion");
                Flow::end(Line::StoppedToFailOver)
            }
            Some(false) => None,
        };
    }
    let state = cx.instance().control.as_ref().map(|control| control.cluster_state.as_str());
    let was_primary = matches!(state, Some("in production" | "in crash recovery" | "shutting down" | "shut down"));
    let crashed = cx.instance().state == Some(State::Crashed) && cx.role() == Some(Role::Primary);
    if !was_primary || !crashed || cx.instance().is_recovery_configured {
        return None;
    }
    cx.memory.is_recovering = true;
    cx.begin(Task::Start {
        action: "starting primary after failure".into(),
        recovery: Recovery::None,
        role: Role::Primary,
        timeout_ms: Some(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
    });
    Flow::end(Line::StartingPrimaryAfterFailure)
}

/// A data directory that was not shut down cleanly goes through single-user recovery once, so that its end of WAL is
/// known before it is compared with the leader's.
fn needs_crash_recovery(cx: &mut Context<'_>) -> Option<Flow> {
    let instance = cx.instance();
    let state = instance.control.as_ref().map(|control| control.cluster_state.as_str());
    let unclean = matches!(state, Some("in production" | "shutting down" | "in crash recovery"));
    if !unclean || cx.memory.is_fresh_clone {
        return None;
    }
    if instance.has_backup_label {
        cx.info(
            "Skipping single-user crash recovery because backup_label exists; PostgreSQL will handle it during normal \
             startup",
        );
        return None;
    }
    let unlocked = cx.view().is_some_and(|view| view.is_unlocked());
    if cx.memory.crash_recovery_tried_ms.is_some() || !(unlocked || instance.can_rewind) {
        return None;
    }
    cx.memory.crash_recovery_tried_ms = Some(cx.now());
    cx.begin(Task::CrashRecovery);
    Flow::end(Line::CrashRecovery)
}

fn bring_back(cx: &mut Context<'_>) -> Option<Flow> {
    let in_standby_cluster = cx.in_standby_cluster();
    if cx.has_lock() && !in_standby_cluster {
        cx.memory.rewind = RewindState::Initial;
        start(cx, None, Role::Replica);
        return Flow::end(Line::StartingAsReadonly);
    }
    if !cx.memory.rewind.was_executed() && !cx.memory.is_fresh_clone {
        cx.mark_check();
    }
    if let Some(flow) = super::rewinding::rewinding(cx) {
        return Some(flow);
    }
    let upstream = cx.node_to_follow();
    let (role, line) = if cx.has_lock() {
        (Role::StandbyLeader, Line::StartingAsStandbyLeader)
    } else if in_standby_cluster && cx.view().is_some_and(|view| view.is_unlocked()) {
        (Role::Replica, Line::TryingRemoteMember)
    } else {
        (Role::Replica, Line::StartingAsSecondary)
    };
    start(cx, upstream, role);
    Flow::end(line)
}

fn start(cx: &mut Context<'_>, upstream: Option<crate::cluster::Upstream>, role: Role) {
    let action = if is_expected(cx) { "starting as a secondary" } else { "restarting after failure" };
    cx.memory.is_recovering = true;
    cx.begin(Task::Start { action: action.into(), recovery: Recovery::Standby(upstream), role, timeout_ms: None });
}
