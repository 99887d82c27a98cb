//! Copies of the primary's logical slots on a standby: to be made, to be moved forward, to be told safe or not.

use std::collections::BTreeMap;

use crate::cluster::{ClusterView, Member, SlotAdvance, SlotState, SlotTending, Upstream, WantedSlot};
use crate::ha::context::Context;
use crate::ha::decision::{Step, Task};
use crate::ha::failsafe;
use crate::ha::reason::Reason;

use super::wanted;

/// The oldest server on which slots can be moved forward.
const CAN_ADVANCE: u32 = 110_000;

/// Sees to it that the primary keeps the catalog rows that copied slots still need. Before the server is started, and
/// before it is reloaded for another reason: a standby that says once that it needs nothing has said so for good.
pub(super) fn feedback(cx: &mut Context<'_>, view: &ClusterView) {
    let needed = needs_feedback(cx, view);
    if cx.memory.is_feedback_forced != Some(needed) {
        cx.memory.is_feedback_forced = Some(needed);
        cx.steps.insert(0, Step::ForceFeedback(needed));
    }
}

/// We keep logical slots, or pass on the word of somebody who does.
fn needs_feedback(cx: &Context<'_>, view: &ClusterView) -> bool {
    let is_old = cx.instance().server_version.is_some_and(|version| version < CAN_ADVANCE);
    if cx.in_standby_cluster() || is_old || !cx.settings().use_slots || !wanted::are_logical_configured(cx) {
        return false;
    }
    wanted::has_logical(cx, view) || (!cx.seen.node.tags.nostream() && relays(cx, view))
}

/// Somebody below us in the cascade keeps logical slots.
fn relays(cx: &Context<'_>, view: &ClusterView) -> bool {
    let comes_through_us = |member: &&Member| {
        let mut below = *member;
        for _ in 0..view.members.len() {
            let tags = below.tags();
            if tags.nostream() {
                return false;
            }
            match view.cascade_source(&below.name, &tags) {
                Some(source) if source.name == *cx.me() => return true,
                Some(source) => below = source,
                None => return false,
            }
        }
        false
    };
    view.members.iter().filter(|member| !member.tags().nofailover()).any(|member| comes_through_us(&member))
}

/// Orders what a standby does for its copies. A copy to be made is a task, and the cycle's reason.
pub(super) fn order(cx: &mut Context<'_>, view: &ClusterView, wanted: &[WantedSlot]) -> Option<Reason> {
    let monitor = cx.monitor()?;
    let leader = view.leader_member().filter(|leader| leader.name != *cx.me())?;
    let primary = cx.member_upstream(leader)?;
    if !monitor.in_recovery || cx.has_lock() || cx.memory.rewind.is_open() {
        return None;
    }
    let carrier = wanted::top_of_cascade(cx, view).unwrap_or_else(|| cx.me().clone()).slot_name();
    let (tending, missing) = tend(cx, wanted, primary.clone(), carrier)?;
    if !tending.advance.is_empty() || !tending.unready.is_empty() {
        cx.step(Step::TendSlots(tending));
    }
    // A primary that has lost the DCS and goes on with our consent is not asked for more.
    if failsafe::promised(cx).is_some() { None } else { copy(cx, missing, primary) }
}

/// What is to be done for the copies that are here, and those that are not here. `None`: nothing can be done for any.
pub(super) fn tend(
    cx: &Context<'_>,
    wanted: &[WantedSlot],
    primary: Upstream,
    carrier: String,
) -> Option<(SlotTending, Vec<WantedSlot>)> {
    let monitor = cx.monitor().filter(|monitor| monitor.in_recovery)?;
    if cx.instance().server_version.is_some_and(|version| version < CAN_ADVANCE) {
        return None;
    }
    let have: BTreeMap<&str, &SlotState> = monitor.slots.iter().map(|slot| (slot.name.as_str(), slot)).collect();
    let (mut missing, mut advance, mut unready) = (Vec::new(), Vec::new(), Vec::new());
    for slot in wanted.iter().filter(|slot| !slot.is_ignored) {
        let (Some((database, plugin)), Some(published)) = (&slot.logical, slot.advance_to) else { continue };
        let same = |have: &&&SlotState| {
            have.database.as_ref() == Some(database) && have.plugin.as_ref() == Some(plugin) && !have.is_lost()
        };
        match have.get(slot.name.as_str()).filter(same) {
            Some(have) if !have.is_our_logical() => {}
            Some(_) if cx.instance().broken_slots.contains(&slot.name) => missing.push(slot.clone()),
            Some(have) => {
                let to = published.min(monitor.replay_lsn);
                if have.confirmed_flush_lsn.is_none_or(|at| at < to) {
                    advance.push(SlotAdvance { name: slot.name.clone(), database: database.clone(), to });
                }
                if cx.instance().unready_slots.contains(&slot.name) {
                    unready.push(slot.name.clone());
                }
            }
            None => missing.push(slot.clone()),
        }
    }
    Some((SlotTending { advance, unready, primary, carrier }, missing))
}

fn copy(cx: &mut Context<'_>, missing: Vec<WantedSlot>, leader: Upstream) -> Option<Reason> {
    if missing.is_empty() {
        return None;
    }
    if let Some(until) = cx.memory.slot_copy_hold_ms.filter(|until| cx.now() < *until) {
        cx.wake_within(until.saturating_sub(cx.now()));
        return None;
    }
    let names = missing.iter().map(|slot| slot.name.clone()).collect();
    cx.begin(Task::CopySlots { leader, slots: missing });
    Some(Reason::CopyingSlots { names })
}
