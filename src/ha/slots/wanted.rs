//! The slots that should exist on this node.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::cluster::tags::is_truthy;
use crate::cluster::{ClusterView, Member, MemberName, Role, SlotState, WantedSlot};
use crate::ha::context::Context;
use crate::ha::decision::Level;

/// Members from this version on publish where every slot stands; older ones only where they are themselves.
const PUBLISHES_SLOTS: [u32; 3] = [4, 0, 0];

/// All of them.
pub(super) fn wanted(cx: &mut Context<'_>, view: &ClusterView) -> Vec<WantedSlot> {
    let mut slots = BTreeMap::new();
    if cx.settings().use_slots {
        member_slots(cx, view, &mut slots);
        retained(cx, view, &mut slots);
        permanent(cx, view, &mut slots);
    }
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
    let leader_version = view.leader_member().and_then(Member::agent_version);
    let is_old_leader = leader_version.is_some_and(|version| version.as_slice() < PUBLISHES_SLOTS.as_slice());
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
        let own_word = tags.replicatefrom().is_some() || is_old_leader;
        let advance_to = if own_word { published.max(member.xlog_location()) } else { published };
        let slot =
            WantedSlot { name: name.clone(), advance_to, expected_active: Some(active), ..WantedSlot::default() };
        slots.insert(name, slot);
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
        slots.entry(name.clone()).or_insert_with(|| WantedSlot { name: name.clone(), ..WantedSlot::default() });
    }
}

/// What an entry of the permanent slots asks for.
enum Kind {
    Physical,
    Logical { database: String, plugin: String },
    Nonsense,
}

fn kind(value: &Value) -> Kind {
    if !is_truthy(value) {
        return Kind::Physical;
    }
    let Some(map) = value.as_object() else { return Kind::Nonsense };
    let text = |key: &str| map.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    match (map.get("type").and_then(Value::as_str), text("database").zip(text("plugin"))) {
        (Some("logical") | None, Some((database, plugin))) => Kind::Logical { database, plugin },
        (Some("physical") | None, _) => Kind::Physical,
        _ => Kind::Nonsense,
    }
}

/// The permanent slots are physical ones only, because nothing logical can get here from the primary.
fn takes_physical_only(cx: &Context<'_>, view: &ClusterView) -> bool {
    cx.in_standby_cluster() || !(cx.has_lock() || top_of_cascade(cx, view).is_some())
}

/// The member directly below the primary through which this node gets its WAL, itself if there is none between;
/// `None`: somebody on the way does not stream.
pub(super) fn top_of_cascade(cx: &Context<'_>, view: &ClusterView) -> Option<MemberName> {
    let (mut name, mut tags) = (cx.me().clone(), cx.seen.node.tags.clone());
    for _ in 0..=view.members.len() {
        if tags.nostream() {
            return None;
        }
        match view.cascade_source(&name, &tags).filter(|source| !view.has_lock(&source.name)) {
            Some(source) => (name, tags) = (source.name.clone(), source.tags()),
            None => return Some(name),
        }
    }
    None
}

/// Whether an entry is meant for the other kind of cluster. That is asked only where physical slots alone count.
fn is_for_others(cx: &Context<'_>, value: &Value) -> bool {
    let wanted = value.get("cluster_type").and_then(Value::as_str);
    wanted.is_some_and(|wanted| wanted != if cx.in_standby_cluster() { "standby" } else { "primary" })
}

/// Whether a slot of this name stays for as long as it is configured, so that nothing else needs to keep it.
pub(super) fn is_permanent(cx: &Context<'_>, name: &str) -> bool {
    cx.settings().slots.get(name).is_some_and(|value| !is_for_others(cx, value))
}

/// Whether permanent logical slots should be kept on this node.
pub(super) fn has_logical(cx: &Context<'_>, view: &ClusterView) -> bool {
    cx.settings().use_slots
        && !cx.seen.node.tags.nofailover()
        && !takes_physical_only(cx, view)
        && are_logical_configured(cx)
}

/// Whether there are permanent logical slots at all.
pub(super) fn are_logical_configured(cx: &Context<'_>) -> bool {
    cx.settings().slots.values().any(|value| matches!(kind(value), Kind::Logical { .. }))
}

fn permanent(cx: &mut Context<'_>, view: &ClusterView, slots: &mut BTreeMap<String, WantedSlot>) {
    if cx.seen.node.tags.nofailover() {
        return;
    }
    let physical_only = takes_physical_only(cx, view);
    for (name, value) in &cx.settings().slots {
        if !is_valid(name) {
            cx.note(Level::Error, format!("Invalid permanent replication slot name '{name}'"));
            cx.note(Level::Error, "Slot name may only contain lower case letters, numbers, and the underscore chars");
            continue;
        }
        match kind(value) {
            Kind::Physical if physical_only && is_for_others(cx, value) => {}
            Kind::Physical if *name == cx.me().slot_name() => {}
            Kind::Physical => {
                let slot = permanent_physical(cx, view, name);
                slots.entry(name.clone()).or_insert(slot);
            }
            Kind::Logical { .. } if physical_only => {}
            Kind::Logical { .. } if slots.contains_key(name) => {
                let text = format!(
                    "Permanent logical replication slot {{'{name}': {value}}} is conflicting with physical replication \
                     slot for cluster member"
                );
                cx.note(Level::Error, text);
            }
            Kind::Logical { database, plugin } => {
                let advance_to = published(view, name);
                let logical = Some((database, plugin));
                slots.insert(
                    name.clone(),
                    WantedSlot { name: name.clone(), logical, advance_to, ..WantedSlot::default() },
                );
            }
            Kind::Nonsense => {
                cx.note(Level::Error, format!("Bad value for slot '{name}' in permanent_slots: {value}"));
            }
        }
    }
}

fn permanent_physical(cx: &Context<'_>, view: &ClusterView, name: &str) -> WantedSlot {
    let cascading =
        view.members.iter().find(|member| member.name.slot_name() == name && member.tags().replicatefrom().is_some());
    let advance_to = published(view, name).max(cascading.and_then(Member::xlog_location));
    let expected_active = Some(cx.has_lock() && cascading.is_none());
    WantedSlot { name: name.to_owned(), advance_to, expected_active, ..WantedSlot::default() }
}

fn published(view: &ClusterView, name: &str) -> Option<crate::cluster::Lsn> {
    view.status.slots.as_ref().and_then(|slots| slots.get(name)).copied()
}

fn is_valid(name: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    !name.is_empty() && name.len() <= 63 && name.bytes().all(is_plain)
}

/// Slots that match `ignore_slots` are nobody's business: they count as wanted, exactly as they are.
fn ignored(cx: &Context<'_>, slots: &mut BTreeMap<String, WantedSlot>) {
    for slot in cx.monitor().map(|monitor| monitor.slots.as_slice()).unwrap_or_default() {
        if is_ignored(cx, slot) {
            let logical = slot.database.clone().zip(slot.plugin.clone());
            let name = slot.name.clone();
            let left = WantedSlot { name: name.clone(), logical, is_ignored: true, ..WantedSlot::default() };
            slots.entry(name).or_insert(left);
        }
    }
}

pub(super) fn is_ignored(cx: &Context<'_>, slot: &SlotState) -> bool {
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
