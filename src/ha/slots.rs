//! Which replication slots should exist here, what a standby does for its copies of logical slots, and what the holder
//! publishes of them.

mod copies;
mod status;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::slots::{Situation, SlotStep, plan};
use crate::cluster::{ClusterView, Lsn, SlotState, SlotSync, Upstream, WantedSlot};

pub use status::positions;
pub(super) use status::status;

use super::context::Context;
use super::decision::{Level, Step};
use super::memory::Wait;
use super::reason::Reason;
use super::waits;

/// A slot that was just created is published this soon, so that standbys can copy it.
const PUBLISH_WITHIN_MS: u64 = 100;

/// Orders what concerns slots at the end of a cycle. A task that begins by it is the cycle's reason.
pub(super) fn order(cx: &mut Context<'_>) -> Option<Reason> {
    let view = cx.view()?;
    view.config_document()?;
    if !cx.has_lock() {
        // Whoever leads counts the absence of members anew.
        cx.memory.slots_last_seen_ms.clear();
    }
    copies::feedback(cx, view);
    let begins = cx.steps.iter().any(|step| matches!(step, Step::Begin(_) | Step::Exit { .. }));
    let settled = cx.seen.task.is_none() && !begins && cx.memory.demotion.is_none() && cx.memory.bootstrap.is_none();
    let monitor = cx.monitor().filter(|_| settled && cx.instance().accepts_connections)?;
    let wanted = wanted::wanted(cx, view);
    let situation = Situation {
        version: cx.instance().server_version.unwrap_or(u32::MAX),
        is_primary: cx.is_primary(),
        is_led: is_led(cx, view),
        may_drop: !cx.is_paused(),
    };
    let steps = plan(&monitor.slots, &wanted, situation);
    wake_for_new(cx, &steps);
    await_settled(cx, &steps);
    if !steps.is_empty() {
        let sync = SlotSync { wanted: wanted.clone(), may_drop: situation.may_drop, is_led: situation.is_led };
        cx.step(Step::SyncSlots(sync));
    }
    copies::order(cx, view, &wanted)
}

/// Without the DCS: moves what is here forward to where the slots of `primary` are. Nothing is created or dropped.
pub(super) fn advance(cx: &mut Context<'_>, told: &BTreeMap<String, Lsn>, primary: Option<Upstream>) {
    let Some(wanted) = move_physical(cx, told) else { return };
    let carrier = cx.me().slot_name();
    let tending = primary.and_then(|primary| copies::tend(cx, &wanted, primary, carrier));
    if let Some((mut tending, _)) = tending.filter(|(tending, _)| !tending.advance.is_empty()) {
        // Whether they are safe is asked when the primary has the DCS back.
        tending.unready.clear();
        cx.step(Step::TendSlots(tending));
    }
}

/// Moves physical slots that are here forward to where they were `told` to be. What was told of those that are here.
pub(super) fn move_physical(cx: &mut Context<'_>, told: &BTreeMap<String, Lsn>) -> Option<Vec<WantedSlot>> {
    let monitor = cx.monitor().filter(|_| cx.settings().use_slots)?;
    // A slot that keeps no WAL has nothing to be moved.
    let is_ours = |slot: &&SlotState| slot.position().is_some() && !wanted::is_ignored(cx, slot);
    let wanted = |slot: &SlotState| {
        let logical = slot.database.clone().zip(slot.plugin.clone());
        let to = *told.get(&slot.name)?;
        Some(WantedSlot { name: slot.name.clone(), logical, advance_to: Some(to), ..WantedSlot::default() })
    };
    let wanted: Vec<WantedSlot> = monitor.slots.iter().filter(is_ours).filter_map(wanted).collect();
    let version = cx.instance().server_version.unwrap_or(u32::MAX);
    let situation = Situation { version, is_primary: cx.is_primary(), is_led: !cx.is_primary(), may_drop: false };
    let has_to_move = |step: &SlotStep| matches!(step, SlotStep::Advance { .. });
    if plan(&monitor.slots, &wanted, situation).iter().any(has_to_move) {
        let sync = SlotSync { wanted: wanted.clone(), may_drop: false, is_led: situation.is_led };
        cx.step(Step::SyncSlots(sync));
    }
    Some(wanted)
}

/// Another node leads.
fn is_led(cx: &Context<'_>, view: &ClusterView) -> bool {
    !cx.has_lock() && !view.is_unlocked()
}

/// A holder that creates a slot publishes it soon, not at the next turn of the loop. What could not be created is not
/// hurried again.
fn wake_for_new(cx: &mut Context<'_>, steps: &[SlotStep]) {
    let name = |step: &SlotStep| match step {
        SlotStep::CreatePhysical(name) | SlotStep::CreateLogical { name, .. } => Some(name.clone()),
        _ => None,
    };
    let ordered: BTreeSet<String> = steps.iter().filter_map(name).collect();
    if cx.has_lock() && !ordered.is_subset(&cx.memory.slots_ordered) {
        cx.wake_within(PUBLISH_WITHIN_MS);
    }
    cx.memory.slots_ordered = ordered;
}

/// What could not be made or dropped is tried again: nobody says when a slot is not in use any more.
fn await_settled(cx: &mut Context<'_>, steps: &[SlotStep]) {
    let name = |step: &SlotStep| match step {
        SlotStep::Drop { name, .. } | SlotStep::CreatePhysical(name) | SlotStep::CreateLogical { name, .. } => {
            Some(name.clone())
        }
        SlotStep::Advance { .. } => None,
    };
    let names: Vec<String> = steps.iter().filter_map(name).collect();
    if names.is_empty() {
        waits::is_over(cx, Wait::Slots);
    } else {
        waits::look_again(cx, Wait::Slots, &names.join(","));
    }
}

/// Says before a promotion which logical slots may have lost rows they need.
pub(super) fn warn_unready(cx: &mut Context<'_>) {
    let unready = &cx.instance().unready_slots;
    if unready.is_empty() {
        return;
    }
    let names: Vec<String> = unready.iter().map(|name| format!("'{name}'")).collect();
    let names = names.join(", ");
    cx.note(
        Level::Warning,
        format!("Logical replication slots that might be unsafe to use after promote: {{{names}}}"),
    );
}
