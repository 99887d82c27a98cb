//! Which replication slots should exist here, and what the holder publishes of them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::cluster::{ClusterView, Lsn, Member, Role, Status, WantedSlot};

use super::context::Context;
use super::decision::{Level, Step};

/// Orders the slots at the end of a cycle, when the server runs and no task does.
pub(super) fn order(cx: &mut Context<'_>) {
    let begins = cx.steps.iter().any(|step| matches!(step, Step::Begin(_) | Step::Exit { .. }));
    let settled = cx.seen.task.is_none() && !begins && cx.memory.demotion.is_none() && cx.memory.bootstrap.is_none();
    let ready = cx.instance().accepts_connections && cx.monitor().is_some();
    if !settled || !ready || cx.view().and_then(ClusterView::config_document).is_none() {
        return;
    }
    let wanted = wanted(cx);
    let may_drop = !cx.is_paused();
    if differs(cx, &wanted, may_drop) {
        cx.step(Step::SyncSlots { wanted, may_drop });
    }
}

fn differs(cx: &Context<'_>, wanted: &[WantedSlot], may_drop: bool) -> bool {
    let Some(monitor) = cx.monitor() else { return false };
    let have: BTreeMap<&str, _> = monitor.slots.iter().map(|slot| (slot.name.as_str(), slot)).collect();
    let missing_or_behind = wanted.iter().any(|slot| match have.get(slot.name.as_str()) {
        None => true,
        Some(state) => {
            let behind = matches!((slot.advance_to, state.restart_lsn), (Some(to), Some(at)) if to > at);
            behind && slot.expected_active != Some(true) && !state.is_active
        }
    });
    let names: BTreeSet<&str> = wanted.iter().map(|slot| slot.name.as_str()).collect();
    let unwanted = |name: &str| !names.contains(name) && !is_ignored(cx, name);
    missing_or_behind || (may_drop && have.keys().any(|name| unwanted(name)))
}

/// The slots that should exist on this node.
fn wanted(cx: &mut Context<'_>) -> Vec<WantedSlot> {
    let Some(view) = cx.view() else { return Vec::new() };
    if !cx.settings().use_slots {
        return Vec::new();
    }
    let mut slots: BTreeMap<String, WantedSlot> = BTreeMap::new();
    member_slots(cx, view, &mut slots);
    retained(cx, view, &mut slots);
    permanent(cx, view, &mut slots);
    ignored(cx, &mut slots);
    slots.into_values().collect()
}

fn is_upstream_role(cx: &Context<'_>) -> bool {
    matches!(cx.role(), Some(Role::Primary | Role::StandbyLeader))
}

fn member_slots(cx: &mut Context<'_>, view: &ClusterView, slots: &mut BTreeMap<String, WantedSlot>) {
    let me = cx.me().clone();
    let keeps_all = !cx.settings().member_slots_ttl.is_zero();
    let nofailover = cx.seen.node.tags.nofailover();
    let mut owners: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for member in view.members.iter().filter(|member| member.name != me) {
        let tags = member.tags();
        if tags.nostream() {
            continue;
        }
        let active = expected_active(cx, view, member);
        let wanted = if keeps_all { !nofailover || active } else { active };
        if !wanted {
            continue;
        }
        let name = member.name.slot_name();
        owners.entry(name.clone()).or_default().push(member.name.to_string());
        let published = view.status.slots.as_ref().and_then(|slots| slots.get(&name)).copied();
        let advance_to = if tags.replicatefrom().is_some() { published.max(member.xlog_location()) } else { published };
        slots.insert(name.clone(), WantedSlot { name, logical: None, advance_to, expected_active: Some(active) });
    }
    for (slot, owners) in owners.iter().filter(|(_, owners)| owners.len() > 1) {
        let who = owners.join(", ");
        cx.note(Level::Error, format!("Following cluster members share a replication slot name: {who} map to {slot}"));
    }
}

/// Whether that member should be streaming from this node now.
fn expected_active(cx: &Context<'_>, view: &ClusterView, member: &Member) -> bool {
    let from = view.cascade_source(&member.name, &member.tags());
    if is_upstream_role(cx) {
        return from.is_none_or(|source| source.name == *cx.me());
    }
    from.is_some_and(|source| source.name == *cx.me()) && !view.has_lock(&member.name)
}

fn retained(cx: &Context<'_>, view: &ClusterView, slots: &mut BTreeMap<String, WantedSlot>) {
    if cx.seen.node.tags.nofailover() {
        return;
    }
    let own = cx.me().slot_name();
    for name in view.status.retain_slots.iter().flatten().filter(|name| **name != own) {
        slots.entry(name.clone()).or_insert_with(|| WantedSlot {
            name: name.clone(),
            logical: None,
            advance_to: None,
            expected_active: None,
        });
    }
}

fn permanent(cx: &mut Context<'_>, view: &ClusterView, slots: &mut BTreeMap<String, WantedSlot>) {
    if cx.seen.node.tags.nofailover() {
        return;
    }
    let own = cx.me().slot_name();
    for (name, spec) in &cx.settings().slots {
        if name.is_empty()
            || name.len() > 63
            || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        {
            cx.note(Level::Error, format!("Invalid permanent replication slot name '{name}'"));
            cx.note(Level::Error, "Slot name may only contain lower case letters, numbers, and the underscore chars");
            continue;
        }
        let text = |key: &str| spec.get(key).and_then(Value::as_str).map(str::to_owned);
        let logical = text("database").zip(text("plugin"));
        if *name == own && logical.is_none() {
            continue;
        }
        // Logical slots exist on the primary only; keeping them alive on standbys is not in this version.
        if logical.is_some() && (!cx.is_primary() || cx.in_standby_cluster()) {
            continue;
        }
        let advance_to = view.status.slots.as_ref().and_then(|slots| slots.get(name)).copied();
        let is_logical = logical.is_some();
        let expected_active = (!is_logical).then(|| cx.has_lock());
        let advance_to = advance_to.filter(|_| !is_logical && !cx.has_lock());
        slots.insert(name.clone(), WantedSlot { name: name.clone(), logical, advance_to, expected_active });
    }
}

/// Slots that match `ignore_slots` are nobody's business: they count as wanted, exactly as they are.
fn ignored(cx: &Context<'_>, slots: &mut BTreeMap<String, WantedSlot>) {
    for slot in cx.monitor().map(|monitor| monitor.slots.as_slice()).unwrap_or_default() {
        if is_ignored(cx, &slot.name) {
            let logical = slot.database.clone().zip(slot.plugin.clone());
            let name = slot.name.clone();
            slots.entry(name.clone()).or_insert(WantedSlot { name, logical, advance_to: None, expected_active: None });
        }
    }
}

fn is_ignored(cx: &Context<'_>, name: &str) -> bool {
    let Some(slot) = cx.monitor().and_then(|monitor| monitor.slots.iter().find(|slot| slot.name == name)) else {
        return false;
    };
    cx.settings().ignore_slots.iter().filter_map(Value::as_object).any(|matcher| {
        let field = |key: &str, value: Option<&str>| {
            matcher.get(key).is_none_or(|wanted| wanted.as_str().is_some_and(|wanted| value == Some(wanted)))
        };
        let kind = if slot.is_logical() { "logical" } else { "physical" };
        field("name", Some(&slot.name))
            && field("database", slot.database.as_deref())
            && field("plugin", slot.plugin.as_deref())
            && field("type", Some(kind))
    })
}

/// The status the holder publishes after a renewal, if it differs from what stands in the DCS.
pub(super) fn status(cx: &mut Context<'_>) -> Option<Status> {
    let view = cx.view()?;
    let monitor = cx.monitor()?;
    let position = monitor.position();
    if position == Lsn::ZERO {
        return None;
    }
    let keeps = !cx.settings().member_slots_ttl.is_zero();
    let configured = &cx.settings().slots;
    let mut slots: BTreeMap<String, Lsn> = monitor
        .slots
        .iter()
        .filter(|slot| keeps || configured.contains_key(&slot.name))
        .filter_map(|slot| Some((slot.name.clone(), slot.position()?)))
        .collect();
    let own = cx.me().slot_name();
    slots.insert(own.clone(), position);
    let retain = if keeps { retain(cx, view, &slots) } else { None };
    let status = Status { optime: Some(position), slots: Some(slots), retain_slots: retain };
    (status != view.status).then_some(status)
}

/// Slots of members seen within `member_slots_ttl`, our own included.
fn retain(cx: &mut Context<'_>, view: &ClusterView, present: &BTreeMap<String, Lsn>) -> Option<Vec<String>> {
    let now = cx.now();
    let ttl_ms = u64::try_from(cx.settings().member_slots_ttl.as_millis()).unwrap_or(u64::MAX);
    if cx.memory.slots_last_seen_ms.is_empty() {
        for name in view.status.retain_slots.iter().flatten() {
            cx.memory.slots_last_seen_ms.insert(name.clone(), now);
        }
    }
    let own = cx.me().slot_name();
    let members = view.members.iter().filter(|member| !member.tags().nostream()).map(|member| member.name.slot_name());
    for name in members.chain([own]) {
        if present.contains_key(&name) && !cx.settings().slots.contains_key(&name) {
            cx.memory.slots_last_seen_ms.insert(name, now);
        }
    }
    let expired: Vec<String> = cx
        .memory
        .slots_last_seen_ms
        .iter()
        .filter(|(_, seen)| now.saturating_sub(**seen) > ttl_ms)
        .map(|(name, _)| name.clone())
        .collect();
    for name in expired {
        cx.memory.slots_last_seen_ms.remove(&name);
        let seconds = ttl_ms / 1000;
        cx.info(format!("Replication slot '{name}' for absent cluster member is expired after {seconds} sec."));
    }
    let names: Vec<String> = cx.memory.slots_last_seen_ms.keys().cloned().collect();
    (!names.is_empty()).then_some(names)
}
