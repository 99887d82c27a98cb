//! Does this data directory belong to this cluster?

use crate::ha::context::{Context, Flow};
use crate::ha::decision::{Level, Step};
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

/// `initialize` is missing and nobody leads: a primary's data (or stopped data) may introduce the cluster to the
/// DCS; a running replica must not, for it would promote itself out of somebody else's mishap.
pub(in crate::ha) fn unknown_cluster(cx: &mut Context<'_>) -> Option<Flow> {
    let view = cx.view()?;
    if view.system_id().is_some() {
        return None;
    }
    if view.has_lock(cx.me()) {
        let own = cx.instance().system_id.clone()?;
        cx.step(Step::SetInitialize(own.to_string()));
        return None;
    }
    if !view.is_unlocked() || cx.is_paused() {
        return None;
    }
    if cx.is_alive() && !cx.is_primary() {
        if cx.memory.has_seen_cluster {
            cx.warn(
                "The DCS was emptied while this cluster runs. The running primary restores it; if there is none, \
                 stop this replica's server and start the agent of the most advanced member first",
            );
            return Flow::end(Line::NotRacingWipedDcs);
        }
        let message = "No initialize key in DCS and PostgreSQL is running as replica, aborting start. \
                       Please first start the agent on the node running as primary"
            .to_owned();
        cx.note(Level::Error, message.clone());
        cx.step(Step::Exit { keep_server: true, message: message.clone() });
        return Flow::end(Reason::Leaving { message });
    }
    match cx.done().initialize {
        None if view.initialize.is_none() => {
            let own = cx.instance().system_id.clone()?;
            cx.step(Step::RaceInitialize(own.to_string()));
            Flow::ask("the DCS for the initialize lock")
        }
        _ => None,
    }
}
