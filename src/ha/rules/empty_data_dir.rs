//! There is no data: create the cluster, or clone somebody.

use crate::cluster::{DataDir, Member, Role, StopMode, Upstream};
use crate::ha::context::{Context, Flow};
use crate::ha::decision::{Step, Task};
use crate::ha::memory::BootstrapStage;
use crate::ha::reason::{Line, Reason};

/// See the module.
pub(in crate::ha) fn empty_data_dir(cx: &mut Context<'_>) -> Option<Flow> {
    let problem = match &cx.instance().data_dir {
        DataDir::Present => return None,
        DataDir::Empty => None,
        DataDir::Inaccessible(error) => Some(error.clone()),
    };
    cx.memory.role = Some(Role::Uninitialized);
    if cx.has_lock() {
        cx.release(None);
        let line = if problem.is_some() { Line::ReleasedDataDirInaccessible } else { Line::ReleasedDataDirEmpty };
        return Flow::end(line);
    }
    if cx.is_alive() {
        // A server without its data must not be left running.
        let limit = u64::try_from(cx.settings().retry_timeout.as_millis()).unwrap_or(u64::MAX);
        cx.begin(Task::Stop {
            action: "stopping".into(),
            mode: StopMode::Immediate,
            checkpoint: false,
            timeout_ms: Some(limit),
        });
        return Flow::end(Line::StoppingWithoutData);
    }
    if let Some(error) = problem {
        return Flow::end(Reason::DataDirInaccessible { error });
    }
    if cx.is_paused() {
        return Flow::end(Line::RunningWithEmptyDataDir);
    }
    fill(cx)
}

fn fill(cx: &mut Context<'_>) -> Option<Flow> {
    let view = cx.view()?;
    let node = &cx.seen.node;
    let is_uninitialized = view.initialize.is_none() || cx.done().initialize.is_some();
    let may_bootstrap = node.may_bootstrap && !node.tags.nofailover();
    if view.is_unlocked() && is_uninitialized && may_bootstrap && !is_there_data(cx) {
        return match cx.done().initialize {
            None => {
                cx.step(Step::RaceInitialize(String::new()));
                Flow::ask("the DCS for the initialize lock")
            }
            Some(false) => Flow::end(Line::FailedInitializeLock),
            Some(true) => {
                cx.memory.bootstrap = Some(BootstrapStage::Creating);
                if let Some(remote) = cx.remote_upstream() {
                    return standby_leader(cx, remote);
                }
                cx.begin(Task::Bootstrap);
                Flow::end(Line::TryingToBootstrap)
            }
        };
    }
    if let Some(until) = cx.memory.hold_until_ms.filter(|until| cx.now() < *until) {
        cx.wake_within(until.saturating_sub(cx.now()));
        return Flow::end(Line::WaitingForLeaderToBootstrap);
    }
    if !view.is_unlocked()
        && let Some((source, from)) = clone_source(cx, false)
    {
        return clone(cx, Some(source), from);
    }
    if node.has_leaderless_method && view.initialize.as_deref() != Some("") {
        return clone(cx, None, "(without leader)".to_owned());
    }
    Flow::end(if cx.in_standby_cluster() {
        Line::WaitingForStandbyLeaderToBootstrap
    } else {
        Line::WaitingForLeaderToBootstrap
    })
}

/// Another member has data: the cluster is there, and the DCS has only lost its keys. A second one under the same name
/// would make every member of the first leave.
fn is_there_data(cx: &Context<'_>) -> bool {
    let has_data = |member: &Member| {
        member.name != *cx.me() && member.is_running() && member.role().is_some_and(|role| role != Role::Uninitialized)
    };
    cx.view().is_some_and(|view| view.members.iter().any(has_data))
}

fn standby_leader(cx: &mut Context<'_>, remote: Upstream) -> Option<Flow> {
    let from = format!("from remote member {}", remote.host.as_deref().unwrap_or("(archive)"));
    cx.begin(Task::Clone { source: Some(remote), from, basebackup_only: false, instead: None });
    Flow::end(Line::TryingToBootstrapStandbyLeader)
}

fn clone(cx: &mut Context<'_>, source: Option<Upstream>, from: String) -> Option<Flow> {
    cx.begin(Task::Clone { source, from: from.clone(), basebackup_only: false, instead: None });
    Flow::end(Reason::TryingToClone { from })
}

/// Where to clone from, and its name in status lines: a running member that offers itself by `clonefrom`, else the
/// leader. Of several the choice depends on our name, so that several new replicas spread over them.
pub(in crate::ha) fn clone_source(cx: &Context<'_>, from_leader: bool) -> Option<(Upstream, String)> {
    let view = cx.view()?;
    let me = cx.me();
    // Whom `/sync` names may be elected as soon as it runs again: what it starts from must have every acknowledged
    // commit.
    let from_leader = from_leader || (cx.is_sync_active() && view.sync.is_voter(me));
    let offers = |member: &&Member| {
        member.name != *me
            && !view.has_lock(&member.name)
            && member.tags().clonefrom()
            && member.conn_url().is_some()
            && member.is_running()
    };
    let offering: Vec<&Member> = view.members.iter().filter(offers).collect();
    if !from_leader && !offering.is_empty() {
        let spread = me.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let member = offering[spread % offering.len()];
        return Some((cx.member_upstream(member)?, format!("from replica '{}'", member.name)));
    }
    let leader = view.leader_member().filter(|leader| leader.name != *me)?;
    Some((cx.member_upstream(leader)?, format!("from leader '{}'", leader.name)))
}
