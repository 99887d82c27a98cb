//! Somebody else leads: follow, and never be a primary beside them.

use crate::cluster::{FollowChange, Recovery, Role};
use crate::ha::context::{Context, Flow};
use crate::ha::decision::{Step, Task};
use crate::ha::memory::{DemoteMode, RewindState, Wait};
use crate::ha::reason::{Line, Reason};
use crate::ha::{requests, sync, waits};

/// How soon a leader that is being promoted is looked at again.
const LOOK_AGAIN_MS: u64 = 300;

/// The last row of the table.
pub(in crate::ha) fn locked_by_other(cx: &mut Context<'_>) -> Option<Flow> {
    let leader = cx.view().and_then(|view| view.leader_name()).map(ToString::to_string).unwrap_or_default();
    let me = cx.me().to_string();
    let in_standby_cluster = cx.in_standby_cluster();
    let demote = if in_standby_cluster { Line::CannotBePrimaryInStandbyCluster } else { Line::DemotingWithoutLock };
    let stay = Reason::Following { me, leader, is_standby_leader: in_standby_cluster };
    match follow(cx, demote.into(), stay) {
        Some(Flow::End(reason)) if !cx.steps.iter().any(|step| matches!(step, Step::Begin(_))) => {
            sync::prepare(cx);
            Some(Flow::End(requests::scheduled_restart(cx, reason)))
        }
        other => other,
    }
}

/// Makes the local server a standby of the right upstream: `demote` is the line for a primary, `stay` for a standby.
pub(in crate::ha) fn follow(cx: &mut Context<'_>, demote: Reason, stay: Reason) -> Option<Flow> {
    let view = cx.view()?;
    if cx.is_paused() {
        if cx.is_primary() {
            // Whatever its history is: nobody but the operator stops it now.
            cx.memory.role = Some(Role::Primary);
            return Flow::end(Line::ContinueAsPrimaryWithoutLock);
        }
        let may_repair = cx.instance().can_rewind || cx.seen.node.remove_on_divergence;
        let repairs = !view.is_unlocked() && cx.memory.rewind.is_open() && may_repair;
        if !repairs && cx.node_to_follow().is_none() {
            return Flow::end(Reason::Alone { me: cx.me().to_string() });
        }
    } else if cx.is_primary() && cx.in_standby_cluster() && cx.has_lock() {
        let archives = cx.monitor().is_some_and(|monitor| monitor.is_archiving);
        let mode = if archives { DemoteMode::ClusterArchiving } else { DemoteMode::Cluster };
        cx.demote(mode, "demoting to a standby cluster");
        return Flow::end(demote);
    } else if cx.is_primary() {
        cx.demote(DemoteMode::ImmediateNolock, "demotion");
        return Flow::end(demote);
    }
    notice_promotion_above(cx);
    if let Some(flow) = super::rewinding::rewinding(cx) {
        return Some(flow);
    }
    if !cx.is_paused() && cx.monitor().is_some_and(|monitor| monitor.replay_paused) {
        cx.info("Resuming paused WAL replay for PostgreSQL 14+");
        cx.step(Step::ResumeReplay);
    }
    point_at_upstream(cx, stay)
}

fn point_at_upstream(cx: &mut Context<'_>, stay: Reason) -> Option<Flow> {
    let leads_standby_cluster = cx.in_standby_cluster() && cx.has_lock();
    let role = if leads_standby_cluster { Role::StandbyLeader } else { Role::Replica };
    let upstream = cx.node_to_follow();
    if cx.in_standby_cluster() && role == Role::Replica && upstream.is_none() {
        return Flow::end(Line::ContinueFollowingOldStandbyLeader);
    }
    if cx.may_be_on_a_twin() {
        // Nobody else tells when it has.
        cx.wake_within(LOOK_AGAIN_MS);
    }
    if !cx.instance().accepts_connections {
        return Flow::end(stay);
    }
    let source = upstream.as_ref().and_then(|upstream| {
        let port = upstream.port.map(|port| port.to_string()).unwrap_or_default();
        Some(format!("{}:{port}", upstream.host.as_ref()?))
    });
    let Some(change) = cx.done().follow else {
        cx.step(Step::CompareFollow(upstream));
        return Flow::ask("the server what it follows");
    };
    await_stream(cx, source, change);
    match change {
        FollowChange::Restart => {
            if cx.memory.rewind != RewindState::NotNeed {
                cx.mark_check();
            }
            cx.memory.is_recovering = true;
            cx.begin(Task::Restart {
                action: "changing primary_conninfo and restarting".into(),
                recovery: Recovery::Standby(upstream),
                role,
                timeout_ms: None,
            });
        }
        FollowChange::Reload => {
            cx.mark_check();
            cx.step(Step::Follow(upstream));
            set_role(cx, role);
            // The histories are compared at once, not at the next turn of the loop.
            cx.wake_within(1);
        }
        FollowChange::None => {
            set_role(cx, role);
            notice_other_timeline(cx);
            if leads_standby_cluster {
                notice_silence(cx);
            }
        }
    }
    Flow::end(stay)
}

/// No server says when it begins to stream, and others wait to hear of it: commits may have to wait for this standby. Left
/// alone, it lets `wal_retrieve_retry_interval` pass after each attempt, while a primary that crashed is back in a moment.
/// One that waits for a restart is left alone: WAL of a primary with higher parameters would end it.
fn await_stream(cx: &mut Context<'_>, source: Option<String>, change: FollowChange) {
    let Some(monitor) = cx.monitor() else { return };
    let Some(source) = source.filter(|_| monitor.replication_state() != Some("streaming")) else {
        return waits::is_over(cx, Wait::Stream);
    };
    let may_ask = monitor.receiver.is_none() && cx.instance().pending_restart.is_empty();
    if may_ask && change == FollowChange::None {
        cx.step(Step::RetryStream);
    }
    waits::look_again(cx, Wait::Stream, &source);
}

fn set_role(cx: &mut Context<'_>, role: Role) {
    let before = cx.role();
    cx.memory.role = Some(role);
    let is_change = matches!(
        (before, role),
        (Some(Role::Primary | Role::Demoted | Role::StandbyLeader), Role::Replica)
            | (Some(Role::Replica), Role::StandbyLeader)
    );
    if is_change {
        cx.callback(crate::cluster::Callback::OnRoleChange, role);
    }
}

/// The remote cluster has promoted somebody: its new history has arrived, and we do not stream. Either we only have to
/// switch to the new timeline, which PostgreSQL does by itself, or we have WAL that the new primary does not.
fn notice_promotion_above(cx: &mut Context<'_>) {
    let arrived = cx.monitor().is_some_and(|monitor| monitor.has_next_history);
    let open = cx.memory.rewind.is_open() || cx.memory.rewind.was_executed();
    if cx.in_standby_cluster() && arrived && !open && cx.done().divergence.is_none() {
        cx.mark_check();
    }
}

/// An agent that has just been started on the leader of a standby cluster knows nothing of what was compared before it:
/// the cluster may have been promoted meanwhile, and have WAL that the remote primary never had. Once is enough: whoever
/// only waits for the remote primary to come back does not ask for it over and over.
fn notice_silence(cx: &mut Context<'_>) {
    let streams = cx.monitor().and_then(|monitor| monitor.replication_state()) == Some("streaming");
    if !streams && cx.memory.rewind == RewindState::Initial {
        cx.mark_check();
        cx.wake_within(1_000);
    }
}

/// The leader is on another timeline than we are and we do not stream from it: compare histories. On an earlier one it is
/// where the cluster has become a standby, and follows a primary that never had our timeline.
fn notice_other_timeline(cx: &mut Context<'_>) {
    let (Some(theirs), Some(own)) = (cx.memory.leader_timeline, cx.monitor().and_then(|monitor| monitor.timeline))
    else {
        return;
    };
    let streams = cx.monitor().and_then(|monitor| monitor.replication_state()) == Some("streaming");
    if own == theirs || streams {
        waits::is_over(cx, Wait::Timeline);
    } else if cx.memory.rewind != RewindState::Check {
        cx.mark_check();
        waits::look_again(cx, Wait::Timeline, &theirs.to_string());
    }
}
