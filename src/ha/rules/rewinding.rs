//! WAL that the leader does not have: find out, then rewind or clone anew. Shared by the rules for a standby that
//! follows and for a server that is down.

use crate::cluster::StopMode;
use crate::ha::context::{Context, Flow};
use crate::ha::decision::{Step, Task};
use crate::ha::memory::RewindState;
use crate::ha::reason::{Line, Reason};

/// Answers when something has to be done before this server may stream.
pub(in crate::ha) fn rewinding(cx: &mut Context<'_>) -> Option<Flow> {
    if cx.memory.rewind == RewindState::Failed {
        return after_failure(cx);
    }
    if is_on_a_twin(cx) {
        return leave_the_twin(cx);
    }
    let (upstream, name) = leader(cx)?;
    if cx.memory.rewind == RewindState::Check && cx.done().divergence.is_none() && is_comparable(cx) {
        cx.step(Step::CheckDivergence(upstream));
        return Flow::ask("the leader for its timeline");
    }
    if cx.memory.rewind != RewindState::Need {
        return None;
    }
    if cx.instance().can_rewind {
        return rewind(cx, upstream, name);
    }
    if !cx.seen.node.remove_on_divergence || cx.in_standby_cluster() {
        return None;
    }
    let (source, from) = super::empty_data_dir::clone_source(cx, false)?;
    if !cx.is_paused() {
        if !cx.is_alive() {
            return make_way(cx, "remove_data_directory_on_diverged_timelines");
        }
        let action = Line::ReinitializingDiverged.as_str().to_owned();
        cx.begin(Task::Stop { action, mode: StopMode::Immediate, checkpoint: false, timeout_ms: None });
        return Flow::end(Line::ReinitializingDiverged);
    }
    // Nothing would be cloned into an empty directory before maintenance mode ends: both in one task.
    cx.begin(Task::Clone {
        source: Some(source),
        from,
        basebackup_only: false,
        instead: Some(Line::ReinitializingDiverged.as_str().to_owned()),
    });
    Flow::end(Line::ReinitializingDiverged)
}

fn rewind(cx: &mut Context<'_>, upstream: crate::cluster::Upstream, name: String) -> Option<Flow> {
    if let Some(until) = cx.memory.hold_until_ms.filter(|until| cx.now() < *until) {
        cx.wake_within(until.saturating_sub(cx.now()));
        return Flow::end(Reason::WaitingForCheckpoint { leader: name });
    }
    let ready = cx.in_standby_cluster()
        || cx.view().and_then(|view| view.leader_member()).is_some_and(|leader| leader.is_ready_for_rewind());
    if !ready {
        cx.info(format!("Waiting for checkpoint on {name} before rewind"));
        return Flow::end(Reason::WaitingForCheckpoint { leader: name });
    }
    let in_archive_recovery = !cx.is_alive()
        && cx.instance().control.as_ref().is_some_and(|control| control.cluster_state == "in archive recovery");
    if in_archive_recovery && cx.memory.crash_recovery_tried_ms.is_none() {
        cx.memory.crash_recovery_tried_ms = Some(cx.now());
        cx.begin(Task::CrashRecovery);
        return Flow::end(Line::CrashRecovery);
    }
    cx.begin(Task::Rewind { leader: upstream });
    Flow::end(Reason::Rewinding { leader: name })
}

/// The leader leads on a timeline of our number that is not ours. No comparison of positions shows that, and
/// `pg_rewind` takes both for the same.
fn is_on_a_twin(cx: &Context<'_>) -> bool {
    use crate::cluster::Role;
    let Some((timeline, maker)) = &cx.memory.timeline_maker else { return false };
    let leader = cx.view().and_then(|view| view.leader_member()).filter(|leader| leader.name != *cx.me());
    leader.is_some_and(|leader| {
        leader.name != *maker && leader.role() == Some(Role::Primary) && leader.timeline() == Some(*timeline)
    })
}

/// Only a new clone helps. Without leave to remove the data, the server stays down rather than mix both.
fn leave_the_twin(cx: &mut Context<'_>) -> Option<Flow> {
    let node = &cx.seen.node;
    if cx.is_alive() {
        if cx.is_paused() {
            return Flow::end(Line::TimelineMadeTwice);
        }
        cx.begin(Task::Stop {
            action: "stopping".into(),
            mode: crate::cluster::StopMode::Fast,
            checkpoint: false,
            timeout_ms: None,
        });
        return Flow::end(Line::TimelineMadeTwice);
    }
    let option = match (node.remove_on_divergence, node.remove_on_rewind_failure) {
        (true, _) => "remove_data_directory_on_diverged_timelines",
        (_, true) => "remove_data_directory_on_rewind_failure",
        _ => return Flow::end(Line::TimelineMadeTwice),
    };
    if super::empty_data_dir::clone_source(cx, false).is_none() {
        return Flow::end(Line::TimelineMadeTwice);
    }
    make_way(cx, option)
}

/// A failed rewind ends in the configured way: a new clone, if there is somebody to clone; else the server stays down,
/// for its data may be half rewound, and a second try would end like the first.
fn after_failure(cx: &mut Context<'_>) -> Option<Flow> {
    let node = &cx.seen.node;
    let option = match (node.remove_on_rewind_failure, node.remove_on_divergence) {
        (true, _) => "remove_data_directory_on_rewind_failure",
        (_, true) => "remove_data_directory_on_diverged_timelines",
        _ => "",
    };
    if cx.is_alive() {
        return None;
    }
    if option.is_empty() || (super::empty_data_dir::clone_source(cx, false).is_none() && !cx.in_standby_cluster()) {
        return Flow::end(Line::RewindFailed);
    }
    make_way(cx, option)
}

/// Makes way for a new clone, which the next turn of the loop begins.
fn make_way(cx: &mut Context<'_>, option: &str) -> Option<Flow> {
    cx.warn(format!("{option} is set. removing..."));
    cx.step(Step::RemoveDataDir);
    cx.memory.rewind = RewindState::Initial;
    cx.memory.timeline_maker = None;
    cx.memory.hold_until_ms = None;
    cx.wake_within(1);
    Flow::end(Line::ReinitializingDiverged)
}

/// The leader as a source, and its name.
fn leader(cx: &Context<'_>) -> Option<(crate::cluster::Upstream, String)> {
    if cx.in_standby_cluster() {
        // A cluster that lives on an archive has nobody to ask.
        let remote = cx.remote_upstream().filter(|remote| remote.host.is_some())?;
        return Some((remote, "the remote primary".to_owned()));
    }
    let leader = cx.view()?.leader_member().filter(|leader| leader.name != *cx.me())?;
    Some((cx.member_upstream(leader)?, leader.name.to_string()))
}

/// An ordinary leader tells the truth about its timeline only once it is a primary.
fn is_comparable(cx: &Context<'_>) -> bool {
    use crate::cluster::Role;
    cx.in_standby_cluster()
        || cx.view().and_then(|view| view.leader_member()).is_some_and(|leader| leader.role() == Some(Role::Primary))
}
