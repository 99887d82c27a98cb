//! Replication slots: the steps between what exists and what should, and when a copy of a logical slot is good.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::instance::SlotState;
use super::lsn::Lsn;
use super::server::WantedSlot;
use super::upstream::Upstream;

/// What decides besides the two lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    /// Version as PostgreSQL numbers it.
    pub version: u32,
    /// The server is out of recovery.
    pub is_primary: bool,
    /// Another node leads.
    pub is_led: bool,
    /// Slots that nobody wants may go (not while paused).
    pub may_drop: bool,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotStep {
    /// Drops a slot; the text is what the log says before.
    Drop {
        /// Which.
        name: String,
        /// Why, as a whole log line.
        why: String,
        /// Worth a warning.
        is_warning: bool,
    },
    /// Creates a physical slot that reserves WAL at once.
    CreatePhysical(String),
    /// Creates a logical slot.
    CreateLogical {
        /// Its name.
        name: String,
        /// In this database.
        database: String,
        /// With this output plugin.
        plugin: String,
    },
    /// Moves an unused physical slot forward, so that it does not keep WAL for nothing.
    Advance {
        /// Which.
        name: String,
        /// Where to.
        to: Lsn,
    },
}

/// The steps from what exists to what is wanted: drops first, so that a slot of the wrong kind can be replaced.
pub fn plan(existing: &[SlotState], wanted: &[WantedSlot], situation: Situation) -> Vec<SlotStep> {
    // What the server keeps in step with the primary's by itself is its own business.
    let ours = || existing.iter().filter(|slot| !slot.is_synced);
    let mut left: BTreeMap<&str, &SlotState> = ours().map(|slot| (slot.name.as_str(), slot)).collect();
    let by_name: BTreeMap<&str, &WantedSlot> = wanted.iter().map(|slot| (slot.name.as_str(), slot)).collect();
    let mut steps = Vec::new();
    for slot in ours() {
        if let Some((why, is_warning)) = reason_to_drop(slot, by_name.get(slot.name.as_str()).copied(), situation) {
            left.remove(slot.name.as_str());
            steps.push(SlotStep::Drop { name: slot.name.clone(), why, is_warning });
        }
    }
    let synced: BTreeSet<&str> = existing.iter().filter(|slot| slot.is_synced).map(|slot| slot.name.as_str()).collect();
    for slot in wanted.iter().filter(|slot| !synced.contains(slot.name.as_str())) {
        match (left.get(slot.name.as_str()), &slot.logical) {
            (None, None) => steps.push(SlotStep::CreatePhysical(slot.name.clone())),
            (None, Some((database, plugin))) if situation.is_primary => steps.push(SlotStep::CreateLogical {
                name: slot.name.clone(),
                database: database.clone(),
                plugin: plugin.clone(),
            }),
            (Some(have), None) => steps.extend(advance(have, slot, situation)),
            _ => {}
        }
    }
    steps
}

/// Why a slot has to go, as a log line, and whether that is worth a warning.
fn reason_to_drop(slot: &SlotState, wanted: Option<&WantedSlot>, situation: Situation) -> Option<(String, bool)> {
    let name = &slot.name;
    if wanted.is_some_and(|wanted| wanted.is_ignored) {
        return None;
    }
    if slot.is_failover && slot.is_logical() {
        return reason_to_drop_failover(slot, situation);
    }
    let Some(wanted) = wanted else {
        return situation.may_drop.then(|| (format!("Trying to drop unknown replication slot '{name}'"), false));
    };
    let has = slot.database.as_deref().zip(slot.plugin.as_deref());
    let wants = wanted.logical.as_ref().map(|(database, plugin)| (database.as_str(), plugin.as_str()));
    if has != wants {
        let (has, wants) = (kind(has), kind(wants));
        let why = format!("Trying to drop replication slot '{name}' because value is changing from {has} to {wants}");
        return Some((why, false));
    }
    if situation.may_drop && slot.is_lost() {
        return Some((format!("Trying to drop replication slot '{name}' with wal_status=lost"), false));
    }
    if wants.is_some() || situation.version < 110_000 || wanted.expected_active == Some(true) || slot.is_active {
        return None;
    }
    if let Some(xmin) = &slot.xmin {
        // It holds back vacuum here on behalf of a standby that does not stream from here.
        return (wanted.expected_active == Some(false) && (situation.is_led || situation.is_primary))
            .then(|| (format!("Dropping physical replication slot {name} because of its xmin value {xmin}"), true));
    }
    slot.restart_lsn.is_none().then(|| {
        let why = format!(
            "Dropping physical replication slot {name} because it has no restart_lsn. This slot was probably not \
             created by Patroni, but by an external agent."
        );
        (why, true)
    })
}

/// Slots for failover belong to PostgreSQL, and whoever made them. Only one that was left by a primary which now
/// follows has to go: under its name the server would refuse to keep the new primary's slot in step.
fn reason_to_drop_failover(slot: &SlotState, situation: Situation) -> Option<(String, bool)> {
    let is_leftover = !situation.is_primary && situation.is_led && situation.may_drop && !slot.is_active;
    let name = &slot.name;
    is_leftover.then(|| {
        (format!("Trying to drop logical replication slot '{name}' with failover=true and synced=false"), false)
    })
}

fn kind(logical: Option<(&str, &str)>) -> String {
    match logical {
        Some((database, plugin)) => format!("logical ({database}, {plugin})"),
        None => "physical".to_owned(),
    }
}

fn advance(have: &SlotState, wanted: &WantedSlot, situation: Situation) -> Option<SlotStep> {
    let to = wanted.advance_to?;
    let is_idle = wanted.expected_active != Some(true) && !have.is_active && have.xmin.is_none();
    let is_behind = have.restart_lsn.is_some_and(|at| to > at);
    (situation.version >= 110_000 && is_idle && is_behind).then(|| SlotStep::Advance { name: wanted.name.clone(), to })
}

/// A logical slot on a standby that lags behind the primary's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotAdvance {
    /// Which.
    pub name: String,
    /// The database it belongs to.
    pub database: String,
    /// Where to.
    pub to: Lsn,
}

/// What a standby does for its copies of the primary's logical slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotTending {
    /// Those to be moved forward.
    pub advance: Vec<SlotAdvance>,
    /// Those of which it is not known whether they are safe to be used after a failover.
    pub unready: Vec<String>,
    /// The server whose slots they are copies of.
    pub primary: Upstream,
    /// The slot there that holds back vacuum for us: our own, or that of the topmost standby we stream through.
    pub carrier: String,
}

/// Whether a copy of a logical slot can take over. `remembered` is the catalog horizon that the original had when the
/// primary began to hold rows back for us (`carrier`, now at this horizon): from there on nothing that our copy (now at
/// `copy`) needs was removed.
pub fn is_safe(remembered: u32, carrier: u32, copy: u32) -> bool {
    !precedes(carrier, remembered) && !precedes(copy, carrier)
}

/// Transaction numbers go round in a circle.
fn precedes(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) > u32::MAX / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Situation = Situation { version: 150_002, is_primary: true, is_led: false, may_drop: true };

    fn have(name: &str) -> SlotState {
        SlotState { name: name.to_owned(), restart_lsn: Some(Lsn(100)), ..SlotState::default() }
    }

    fn want(name: &str) -> WantedSlot {
        WantedSlot { name: name.to_owned(), ..WantedSlot::default() }
    }

    fn drops(steps: &[SlotStep]) -> Vec<&str> {
        let drops = steps.iter().filter(|step| matches!(step, SlotStep::Drop { .. }));
        drops.map(drop_name).collect()
    }

    fn drop_name(step: &SlotStep) -> &str {
        match step {
            SlotStep::Drop { name, .. } => name,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn missing_ones_are_created_and_unknown_ones_dropped() {
        let steps = plan(&[have("old"), have("kept")], &[want("kept"), want("new")], NOW);
        assert_eq!(drops(&steps), ["old"]);
        assert_eq!(steps[1..], [SlotStep::CreatePhysical("new".to_owned())]);
        let paused = Situation { may_drop: false, ..NOW };
        assert_eq!(plan(&[have("old")], &[], paused), []);
    }

    #[test]
    fn a_logical_slot_that_somebody_made_on_a_standby_is_unknown_there_too() {
        let mut slot = have("decoded");
        (slot.database, slot.plugin) = (Some("app".to_owned()), Some("pgoutput".to_owned()));
        let standby = Situation { version: 160_000, is_primary: false, is_led: true, may_drop: true };
        assert_eq!(drops(&plan(std::slice::from_ref(&slot), &[], standby)), ["decoded"]);
        let paused = Situation { may_drop: false, ..standby };
        assert_eq!(plan(std::slice::from_ref(&slot), &[], paused), []);
        let ignored = WantedSlot { is_ignored: true, ..want("decoded") };
        assert_eq!(plan(&[slot], &[ignored], standby), []);
    }

    #[test]
    fn a_slot_of_the_wrong_kind_is_replaced_even_while_paused() {
        let logical = Some(("app".to_owned(), "pgoutput".to_owned()));
        let wanted = WantedSlot { logical, ..want("a") };
        let paused = Situation { may_drop: false, ..NOW };
        let steps = plan(&[have("a")], std::slice::from_ref(&wanted), paused);
        assert_eq!(drops(&steps), ["a"]);
        assert!(matches!(&steps[1], SlotStep::CreateLogical { database, .. } if database == "app"));
        // On a standby a logical slot cannot be created.
        let standby = Situation { is_primary: false, ..NOW };
        assert_eq!(plan(&[], &[wanted], standby), []);
    }

    #[test]
    fn idle_slots_are_advanced_and_never_moved_back() {
        let to = |lsn| WantedSlot { advance_to: Some(Lsn(lsn)), expected_active: Some(false), ..want("a") };
        let advanced = SlotStep::Advance { name: "a".to_owned(), to: Lsn(200) };
        assert_eq!(plan(&[have("a")], &[to(200)], NOW), [advanced]);
        assert_eq!(plan(&[have("a")], &[to(100)], NOW), []);
        assert_eq!(plan(&[have("a")], &[WantedSlot { expected_active: Some(true), ..to(200) }], NOW), []);
        let mut active = have("a");
        active.is_active = true;
        assert_eq!(plan(&[active], &[to(200)], NOW), []);
        assert_eq!(plan(&[have("a")], &[to(200)], Situation { version: 100_000, ..NOW }), []);
    }

    #[test]
    fn a_slot_that_holds_back_vacuum_for_nobody_is_made_anew() {
        let mut slot = have("a");
        slot.xmin = Some("777".to_owned());
        let idle = WantedSlot { expected_active: Some(false), ..want("a") };
        let steps = plan(std::slice::from_ref(&slot), &[idle], NOW);
        assert_eq!(drops(&steps), ["a"]);
        assert_eq!(steps[1], SlotStep::CreatePhysical("a".to_owned()));
        assert_eq!(plan(&[slot], &[want("a")], NOW), [], "unknown is not `no`");
    }

    #[test]
    fn lost_slots_are_made_anew_and_failover_slots_left_alone() {
        let mut lost = have("a");
        lost.wal_status = Some("lost".to_owned());
        assert_eq!(drops(&plan(&[lost], &[want("a")], NOW)), ["a"]);
    }

    #[test]
    fn failover_slots_are_left_to_the_server() {
        let mut slot = have("b");
        slot.is_failover = true;
        (slot.database, slot.plugin) = (Some("app".to_owned()), Some("pgoutput".to_owned()));
        assert_eq!(plan(std::slice::from_ref(&slot), &[], NOW), []);
        let follower = Situation { version: 170_000, is_primary: false, is_led: true, may_drop: true };
        assert_eq!(drops(&plan(std::slice::from_ref(&slot), &[], follower)), ["b"], "a leftover is in the way");
        assert_eq!(plan(std::slice::from_ref(&slot), &[], Situation { is_led: false, ..follower }), []);
        slot.is_synced = true;
        assert_eq!(plan(std::slice::from_ref(&slot), &[], follower), []);
        assert_eq!(plan(&[slot], &[want("b")], follower), [], "and not replaced either");
    }

    #[test]
    fn what_is_ignored_stays_as_it_is() {
        let mut slot = have("a");
        slot.restart_lsn = None;
        let ignored = WantedSlot { is_ignored: true, expected_active: Some(false), ..want("a") };
        assert_eq!(plan(&[slot.clone()], &[ignored], NOW), []);
        assert_eq!(drops(&plan(&[slot], &[want("a")], NOW)), ["a"], "made by somebody who reserved nothing");
    }

    #[test]
    fn horizons_go_round() {
        assert!(is_safe(700, 700, 700) && is_safe(700, 710, 720));
        assert!(!is_safe(700, 699, 720), "the primary may have removed what the copy needs");
        assert!(!is_safe(700, 710, 705), "the copy is behind what is held back for it");
        assert!(is_safe(u32::MAX - 1, 5, 9) && !is_safe(5, u32::MAX - 1, 9));
    }
}
