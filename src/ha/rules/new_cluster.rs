//! This node won the initialize race: see the new cluster through, or leave no half of it behind.

use crate::cluster::{Callback, MemberName, Recovery, Role};
use crate::ha::context::{Context, Flow};
use crate::ha::decision::{Level, Step, Task};
use crate::ha::memory::{BootstrapStage, Wait};
use crate::ha::reason::{Line, Reason};
use crate::ha::rules::holding_lock::{Asked, may_lead_by_watchdog};
use crate::ha::waits;

/// See the module.
pub(in crate::ha) fn new_cluster(cx: &mut Context<'_>) -> Option<Flow> {
    let stage = cx.memory.bootstrap?;
    if other_leader(cx).is_some() {
        return give_up(cx);
    }
    if cx.in_standby_cluster() && stage != BootstrapStage::Failed {
        return standby_cluster(cx, stage);
    }
    if stage == BootstrapStage::Failed || !cx.is_alive() {
        return abandon(cx);
    }
    match stage {
        BootstrapStage::Ready => ready(cx, Role::Primary),
        _ if cx.monitor().is_none() => Flow::end(Line::WaitingForEndOfRecovery),
        _ if !cx.is_primary() => {
            waits::look_again(cx, Wait::Recovery, "");
            Flow::end(Line::WaitingForEndOfRecovery)
        }
        _ => {
            cx.memory.role = Some(Role::Primary);
            cx.memory.bootstrap = Some(BootstrapStage::PostBootstrap);
            cx.begin(Task::PostBootstrap);
            Flow::end(Line::RunningPostBootstrap)
        }
    }
}

/// The first member of a standby cluster: a clone of the remote primary, started as its standby.
fn standby_cluster(cx: &mut Context<'_>, stage: BootstrapStage) -> Option<Flow> {
    if stage == BootstrapStage::Creating && cx.memory.is_fresh_clone && !cx.is_alive() {
        cx.memory.bootstrap = Some(BootstrapStage::Ready);
        cx.memory.role = Some(Role::StandbyLeader);
        cx.begin(Task::Start {
            action: "starting as a standby leader".into(),
            recovery: Recovery::Standby(cx.remote_upstream()),
            role: Role::StandbyLeader,
            timeout_ms: None,
        });
        return Flow::end(Line::TryingToBootstrapStandbyLeader);
    }
    if !cx.is_alive() {
        return abandon(cx);
    }
    if cx.monitor().is_none() {
        return Flow::end(Line::WaitingForEndOfRecovery);
    }
    ready(cx, Role::StandbyLeader)
}

fn ready(cx: &mut Context<'_>, role: Role) -> Option<Flow> {
    let Some(system_id) = cx.instance().system_id.clone() else {
        return Flow::end(Line::DataDirWithoutSystemId);
    };
    match may_lead_by_watchdog(cx) {
        None => {}
        Some(Asked::Pending) => return Flow::ask("the watchdog to be armed"),
        Some(Asked::Refused) => {
            cx.note(Level::Error, "Cancelling bootstrap because watchdog activation failed");
            return abandon(cx);
        }
    }
    cx.step(Step::SetInitialize(system_id.to_string()));
    cx.step(Step::WriteConfig(cx.seen.node.initial_config.clone()));
    cx.step(Step::TakeLeader);
    cx.step(Step::ForgetUnfinished);
    cx.memory.bootstrap = None;
    cx.memory.role = Some(role);
    cx.memory.pending_callback = None;
    cx.callback(Callback::OnStart, role);
    cx.wake_within(1);
    Flow::end(Line::InitializedNewCluster)
}

fn other_leader<'a>(cx: &Context<'a>) -> Option<&'a MemberName> {
    let me = cx.me();
    cx.view().and_then(|view| view.leader_name()).filter(|leader| *leader != me)
}

/// The new cluster is not seen through: its data are set aside, and others are not kept from making one.
pub(super) fn give_up(cx: &mut Context<'_>) -> Option<Flow> {
    match other_leader(cx) {
        Some(leader) => make_way(cx, leader),
        None => abandon(cx),
    }
}

/// A primary was there after all: the DCS had only lost its keys.
fn make_way(cx: &mut Context<'_>, leader: &MemberName) -> Option<Flow> {
    cx.step(Step::AbandonBootstrap);
    let message = format!(
        "Failed to bootstrap cluster: {leader} leads it already and has restored the keys that the DCS had lost; start \
         the agent again to clone from it"
    );
    cx.step(Step::Exit { keep_server: false, message: message.clone() });
    Flow::end(Reason::Leaving { message })
}

fn abandon(cx: &mut Context<'_>) -> Option<Flow> {
    cx.info("removing initialize key after failed attempt to bootstrap the cluster");
    cx.step(Step::CancelInitialize);
    cx.step(Step::AbandonBootstrap);
    let message = "Failed to bootstrap cluster".to_owned();
    cx.step(Step::Exit { keep_server: false, message: message.clone() });
    Flow::end(Reason::Leaving { message })
}
