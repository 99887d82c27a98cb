//! An agent died while it filled the data directory: what it has left is half of something, whatever it looks like.

use crate::cluster::{Member, Role, State, Unfinished};
use crate::ha::context::{Context, Flow};
use crate::ha::decision::Step;
use crate::ha::reason::Line;

/// See the module.
pub(in crate::ha) fn unfinished(cx: &mut Context<'_>) -> Option<Flow> {
    let what = cx.instance().unfinished?;
    if cx.memory.bootstrap.is_some() || cx.view().is_none() {
        return None;
    }
    if is_whole(cx, what) {
        cx.step(Step::ForgetUnfinished);
        return None;
    }
    if cx.is_paused() {
        return Flow::end(Line::UnfinishedWhilePaused);
    }
    cx.warn(match what {
        Unfinished::Bootstrap => {
            "the agent before this one ended before the new cluster was complete: its data directory is set aside"
        }
        Unfinished::Clone => {
            "the agent before this one ended before the copy of the cluster was complete: it is made anew"
        }
    });
    if cx.has_lock() {
        cx.release(None);
    }
    if what == Unfinished::Bootstrap && is_initialize_ours(cx) {
        cx.info("removing initialize key after failed attempt to bootstrap the cluster");
        cx.step(Step::CancelInitialize);
    }
    cx.step(Step::DiscardUnfinished);
    cx.memory.role = Some(Role::Uninitialized);
    cx.memory.pending_callback = None;
    // At the pace of the loop where it does not succeed.
    cx.wake_within(1000);
    Flow::end(Line::DiscardingUnfinished)
}

/// Only the note was left behind: the DCS knows this very cluster, which is the last that is done of a bootstrap; or
/// somebody has started a server on the copy.
pub(in crate::ha) fn is_whole(cx: &Context<'_>, what: Unfinished) -> bool {
    match what {
        Unfinished::Bootstrap => {
            let known = cx.view().and_then(|view| view.system_id());
            known.is_some() && known == cx.instance().system_id
        }
        Unfinished::Clone => cx.is_alive(),
    }
}

/// An empty `initialize` is kept by nobody's lease. It is ours, unless another member is at it: an operator may have
/// removed the key meanwhile.
fn is_initialize_ours(cx: &Context<'_>) -> bool {
    let Some(view) = cx.view() else { return false };
    let is_at_it = |member: &Member| {
        let makes = matches!(
            member.state(),
            Some(State::Initdb | State::CustomBootstrap | State::BootstrapStarting | State::Starting)
        );
        let has = member.is_running() && member.role().is_some_and(|role| role != Role::Uninitialized);
        member.name != *cx.me() && (makes || has)
    };
    view.is_unlocked() && view.initialize.as_deref() == Some("") && !view.members.iter().any(is_at_it)
}
