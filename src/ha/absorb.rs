//! The first part of a decision: what changed since the last one goes into the memory.

use crate::cluster::{Callback, DataDir, Divergence, Member, Rewound, Role, Started, StopProgress};

use super::context::Context;
use super::decision::{Level, Reply, Step, Task};
use super::memory::{BootstrapStage, DemotionStage, RewindState, Wait};
use super::observation::{EndedTask, TaskOutcome};
use super::rules::unfinished;
use super::waits;

/// See the module.
pub(super) fn absorb(cx: &mut Context<'_>) {
    attach(cx);
    cluster(cx);
    pause(cx);
    if let Some(ended) = cx.seen.ended.clone() {
        task_ended(cx, &ended);
    }
    server(cx);
    timeline_maker(cx);
    if let Some(divergence) = &cx.seen.done.divergence {
        match divergence {
            Divergence::Diverged => cx.memory.rewind = RewindState::Need,
            Divergence::Consistent => cx.memory.rewind = RewindState::NotNeed,
            Divergence::Unknown(why) => cx.info(format!("Could not compare timelines with the leader: {why}")),
        }
        match divergence {
            Divergence::Unknown(_) => waits::look_again(cx, Wait::Divergence, ""),
            _ => waits::is_over(cx, Wait::Divergence),
        }
    }
}

/// The first look: what runs already is taken over.
fn attach(cx: &mut Context<'_>) {
    if cx.memory.is_attached {
        return;
    }
    cx.memory.is_attached = true;
    let instance = cx.instance();
    cx.memory.role = Some(match (&instance.data_dir, instance.is_postmaster_alive) {
        (DataDir::Empty, _) => Role::Uninitialized,
        _ if instance.is_recovery_configured => Role::Replica,
        (_, true) => Role::Primary,
        (_, false) => Role::Demoted,
    });
    let is_half = instance.unfinished.is_some_and(|what| !unfinished::is_whole(cx, what));
    if is_half {
        // Scripts hear of a cluster only when there is one.
    } else if instance.is_postmaster_alive {
        cx.memory.pending_callback = Some(Callback::OnStart);
    } else if instance.data_dir == DataDir::Present && !cx.is_paused() {
        // Whatever stopped before us may have WAL that the cluster does not.
        cx.mark_check();
    }
}

fn cluster(cx: &mut Context<'_>) {
    let Some(view) = cx.view() else { return };
    // Said of another term.
    cx.memory.is_promotion_refused &= view.has_lock(cx.me());
    if view.system_id().is_some() || !view.is_unlocked() {
        cx.memory.brings_cluster = false;
    }
    if view.leader_name().is_some_and(|leader| leader != cx.me()) {
        cx.memory.has_won = false;
        cx.memory.race_since_ms = None;
    }
    if let Some(leader) = view.leader_name() {
        cx.memory.known_members = view.members.iter().map(|m| (m.name.clone(), m.clone())).collect();
        cx.memory.former_leader = Some(leader.clone());
        cx.memory.backoff_since_ms = None;
        waits::is_over(cx, Wait::Leader);
    } else {
        cx.memory.known_members.extend(view.members.iter().map(|m| (m.name.clone(), m.clone())));
    }
    cx.memory.leader_timeline = match view.leader_member() {
        Some(leader) if leader.name != *cx.me() => leader.timeline(),
        _ => None,
    };
}

/// Maintenance mode suspends what was going on; leaving it starts from a clean sheet.
fn pause(cx: &mut Context<'_>) {
    if cx.memory.was_paused && !cx.is_paused() {
        cx.memory.has_made_way = false;
        cx.memory.rewind = RewindState::Initial;
        if !cx.is_alive() {
            cx.mark_check();
        }
        cx.memory.hold_until_ms = None;
    }
}

/// The server's own changes: a role it took, a start that got through.
fn server(cx: &mut Context<'_>) {
    let instance = cx.instance();
    if instance.data_dir == DataDir::Empty && cx.seen.task.is_none() {
        cx.memory.role = Some(Role::Uninitialized);
    }
    let is_restarting = matches!(cx.seen.task.as_ref().map(|running| &running.task), Some(Task::Restart { .. }));
    if cx.is_starting() || (is_restarting && !instance.is_postmaster_alive) {
        cx.memory.starting_since_ms.get_or_insert(cx.seen.now_ms);
    } else {
        cx.memory.starting_since_ms = None;
        // Asked for with a restart, it is for the start that comes after the stop.
        cx.memory.start_timeout_ms = cx.memory.start_timeout_ms.filter(|_| is_restarting);
    }
    if !instance.accepts_connections {
        return;
    }
    let stops = cx.memory.demotion.is_some();
    cx.memory.has_made_way &= stops;
    if let Some(event) = cx.memory.pending_callback.take()
        && cx.memory.bootstrap.is_none()
    {
        let role = cx.memory.role.unwrap_or(Role::Replica);
        cx.callback(event, role);
    }
    let is_settled = cx.seen.task.is_none() && cx.memory.demotion.is_none();
    if let (Some(is_primary), true) = (instance.is_primary(), is_settled) {
        cx.memory.role = match (is_primary, cx.memory.role) {
            (true, _) => Some(Role::Primary),
            (false, Some(Role::StandbyLeader)) => Some(Role::StandbyLeader),
            (false, _) => Some(Role::Replica),
        };
    }
}

/// Two members that were cut off from each other may promote to the same number. PostgreSQL tells timelines apart by
/// nothing else, so it is to be remembered whose we are on.
fn timeline_maker(cx: &mut Context<'_>) {
    if cx.in_standby_cluster() {
        cx.memory.timeline_maker = None;
        return;
    }
    let instance = cx.instance();
    if let Some(control) = instance.control.as_ref().filter(|control| control.cluster_state == "shut down")
        && !instance.is_postmaster_alive
        && !instance.is_recovery_configured
        && let Some(own) = control.checkpoint_timeline
    {
        // It was a primary, also when it was another agent's.
        if cx.memory.timeline_maker.as_ref().is_none_or(|(known, _)| *known != own) {
            cx.memory.timeline_maker = Some((own, cx.me().clone()));
        }
        return;
    }
    let (Some(view), Some(monitor)) = (cx.view(), cx.monitor()) else { return };
    let Some(own) = monitor.timeline else { return };
    if cx.memory.timeline_maker.as_ref().is_some_and(|(known, _)| *known == own) {
        return;
    }
    let leads = |leader: &&Member| leader.role() == Some(Role::Primary) && leader.timeline() == Some(own);
    cx.memory.timeline_maker = if !monitor.in_recovery {
        Some((own, cx.me().clone()))
    } else if monitor.replication_state() == Some("streaming") {
        view.leader_member().filter(leads).map(|leader| (own, leader.name.clone()))
    } else {
        None
    };
}

fn task_ended(cx: &mut Context<'_>, ended: &EndedTask) {
    match (&ended.task, &ended.outcome) {
        (task, TaskOutcome::Failed(why)) => cx.note(Level::Error, format!("{} failed: {why}", task.action())),
        (task, TaskOutcome::Cancelled) => cx.info(format!("{} was cancelled", task.action())),
        _ => {}
    }
    match &ended.task {
        Task::Bootstrap => cx.memory.bootstrap = bootstrap_ended(cx, &ended.outcome),
        Task::PostBootstrap => {
            cx.memory.bootstrap = Some(match ended.outcome {
                TaskOutcome::Done => BootstrapStage::Ready,
                _ => BootstrapStage::Failed,
            });
        }
        Task::Clone { from, .. } => clone_ended(cx, from, &ended.outcome),
        Task::Start { role, .. } => start_ended(cx, *role, Callback::OnStart, &ended.outcome),
        Task::Restart { role, .. } => {
            start_ended(cx, *role, Callback::OnRestart, &ended.outcome);
            answer_restart(cx, &ended.outcome);
        }
        Task::Stop { .. } => stop_ended(cx, ended),
        Task::Promote { .. } => promote_ended(cx, &ended.outcome),
        Task::Rewind { .. } => rewind_ended(cx, &ended.outcome),
        Task::CopySlots { .. } => slots_copied(cx, &ended.outcome),
        Task::CrashRecovery | Task::ArchiveLast => {}
    }
}

fn bootstrap_ended(cx: &mut Context<'_>, outcome: &TaskOutcome) -> Option<BootstrapStage> {
    match outcome {
        TaskOutcome::Done => cx.memory.bootstrap,
        _ => Some(BootstrapStage::Failed),
    }
}

fn clone_ended(cx: &mut Context<'_>, from: &str, outcome: &TaskOutcome) {
    if cx.memory.bootstrap.is_some() && *outcome != TaskOutcome::Done {
        cx.memory.bootstrap = Some(BootstrapStage::Failed);
    }
    cx.memory.rewind = RewindState::Initial;
    cx.memory.crash_recovery_tried_ms = None;
    if *outcome == TaskOutcome::Done {
        cx.info(format!("bootstrapped {from}"));
        cx.memory.timeline_maker = None;
        cx.memory.is_fresh_clone = true;
        cx.memory.hold_until_ms = None;
    } else {
        cx.note(Level::Error, format!("failed to bootstrap {from}"));
        hold(cx);
    }
}

fn start_ended(cx: &mut Context<'_>, role: Role, event: Callback, outcome: &TaskOutcome) {
    match outcome {
        TaskOutcome::Started(how) => {
            let before = cx.memory.role;
            let changed = match before {
                Some(Role::Primary | Role::Demoted) => role != Role::Primary,
                Some(Role::StandbyLeader) => role == Role::Replica,
                Some(Role::Replica) => role == Role::StandbyLeader,
                _ => false,
            };
            let is_role_change = changed && cx.memory.was_callback_called;
            cx.memory.role = Some(role);
            cx.memory.is_fresh_clone = false;
            cx.memory.pending_callback = Some(if is_role_change { Callback::OnRoleChange } else { event });
            if *how == Started::Running {
                cx.memory.crash_recovery_tried_ms = None;
                cx.memory.hold_until_ms = None;
            }
        }
        TaskOutcome::Cancelled => {}
        _ => hold(cx),
    }
}

/// A failed start or clone is tried again at the pace of the loop, whatever wakes us before.
fn hold(cx: &mut Context<'_>) {
    let pace = u64::try_from(cx.settings().loop_wait.as_millis()).unwrap_or(u64::MAX);
    cx.memory.hold_until_ms = Some(cx.now().saturating_add(pace));
}

fn answer_restart(cx: &mut Context<'_>, outcome: &TaskOutcome) {
    let Some(id) = cx.memory.restart_reply.take() else { return };
    let reply = match outcome {
        TaskOutcome::Started(Started::Running) => Reply::Ok("restarted successfully".into()),
        TaskOutcome::Started(Started::StillStarting) => Reply::Refused("postgres is still starting".into()),
        _ => Reply::Refused("restart failed".into()),
    };
    cx.step(Step::Reply { id, reply });
}

fn stop_ended(cx: &mut Context<'_>, ended: &EndedTask) {
    let stopped = matches!(ended.outcome, TaskOutcome::Done);
    let role = cx.memory.role.unwrap_or(Role::Replica);
    if let Some(demotion) = &mut cx.memory.demotion {
        if let Some(StopProgress::ShutDown { previous, .. }) = ended.progress {
            demotion.shutdown_lsn = Some(previous);
        }
        demotion.stage = if stopped { DemotionStage::Stopped } else { DemotionStage::Ordered };
    }
    if stopped {
        cx.callback(Callback::OnStop, role);
    }
}

fn promote_ended(cx: &mut Context<'_>, outcome: &TaskOutcome) {
    match outcome {
        TaskOutcome::Promoted(in_production) => {
            cx.memory.role = Some(if *in_production { Role::Primary } else { Role::Promoted });
            cx.memory.rewind = RewindState::Initial;
            cx.memory.is_checkpoint_done = false;
            cx.memory.is_checkpoint_ordered = false;
            cx.callback(Callback::OnRoleChange, Role::Primary);
        }
        TaskOutcome::PrePromoteFailed => {
            cx.memory.pre_promote_failed_ms = Some(cx.now());
            cx.memory.is_promotion_refused = true;
        }
        _ => {}
    }
}

/// Copying is not tried again at once, whatever came of it: a slot that could not be copied stays missing.
fn slots_copied(cx: &mut Context<'_>, outcome: &TaskOutcome) {
    let pace = u64::try_from(cx.settings().loop_wait.as_millis()).unwrap_or(u64::MAX);
    cx.memory.slot_copy_hold_ms = Some(cx.now().saturating_add(pace));
    if matches!(outcome, TaskOutcome::Started(_)) {
        cx.memory.pending_callback = Some(Callback::OnRestart);
    }
}

fn rewind_ended(cx: &mut Context<'_>, outcome: &TaskOutcome) {
    match outcome {
        TaskOutcome::Rewound(Rewound::Done) => {
            cx.memory.rewind = RewindState::Success;
            cx.memory.timeline_maker = None;
        }
        TaskOutcome::Rewound(Rewound::SourceLost(why)) => {
            cx.warn(format!("Failed to rewind because the leader became unreachable: {why}"));
            if cx.instance().can_rewind {
                hold(cx);
            } else {
                // Half of it was done: the control file is not good enough for another try.
                cx.memory.rewind = RewindState::Failed;
            }
        }
        TaskOutcome::Rewound(Rewound::Failed(why)) => {
            cx.note(Level::Error, format!("Failed to rewind from a healthy leader: {why}"));
            cx.memory.rewind = RewindState::Failed;
        }
        _ => hold(cx),
    }
}
