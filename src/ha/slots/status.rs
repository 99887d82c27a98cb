//! What the holder publishes of its slots.

use std::collections::BTreeMap;

use crate::cluster::{ClusterView, Lsn, Status};
use crate::ha::context::Context;
use crate::ha::observation::Observation;

/// The status the holder publishes after a renewal, if it differs from what stands in the DCS.
pub(in crate::ha) fn status(cx: &mut Context<'_>) -> Option<Status> {
    let view = cx.view()?;
    let position = cx.position().filter(|position| *position != Lsn::ZERO)?;
    let slots = positions(cx.seen)?;
    let keeps = !cx.settings().member_slots_ttl.is_zero();
    let retain = if keeps { retain(cx, view, &slots) } else { None };
    let status = Status { optime: Some(position), slots: Some(slots), retain_slots: retain };
    (status != view.status).then_some(status)
}

/// Where a primary's slots are, for others to move theirs; under the name of its own slot, where it is itself.
pub fn positions(seen: &Observation) -> Option<BTreeMap<String, Lsn>> {
    let monitor = seen.instance.monitor.as_ref()?;
    let keeps = !seen.settings.member_slots_ttl.is_zero();
    let configured = &seen.settings.slots;
    let mut slots: BTreeMap<String, Lsn> = monitor
        .slots
        .iter()
        .filter(|slot| keeps || configured.contains_key(&slot.name))
        // PostgreSQL itself copies slots for failover; nobody else should.
        .filter(|slot| !slot.is_logical() || slot.is_our_logical())
        .filter_map(|slot| Some((slot.name.clone(), slot.position()?)))
        .collect();
    slots.insert(seen.node.name.slot_name(), monitor.position());
    Some(slots)
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
        if present.contains_key(&name) && !super::wanted::is_permanent(cx, &name) {
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
