//! Which slots exist where, and what a standby does for its copies.

use super::*;
use crate::cluster::{SlotState, SlotSync, SlotTending, WantedSlot};

fn configured(document: serde_json::Value) -> impl FnOnce(&mut Observation) {
    move |seen| seen.settings = Dynamic::from_document(document.as_object().unwrap()).0
}

fn with_feed() -> impl FnOnce(&mut Observation) {
    configured(json!({"slots": {"feed": {"database": "app", "plugin": "pgoutput"}, "keep": null}}))
}

pub(super) fn physical(name: &str) -> SlotState {
    SlotState { name: name.into(), restart_lsn: Some(Lsn(900)), ..SlotState::default() }
}

fn feed(at: u64) -> SlotState {
    SlotState {
        plugin: Some("pgoutput".into()),
        database: Some("app".into()),
        confirmed_flush_lsn: Some(Lsn(at)),
        ..physical("feed")
    }
}

/// The leader says where its slots are.
fn published(builder: ClusterBuilder, at: u64) -> ClusterBuilder {
    builder.with(|view| {
        let slots = [("a", 900), ("b", 900), ("c", 900), ("feed", at), ("keep", 900)];
        view.status.slots = Some(slots.into_iter().map(|(name, at)| (name.to_owned(), Lsn(at))).collect());
    })
}

fn replica(view: ClusterView, slots: &[SlotState]) -> Scene {
    let mut scene = scene("b", view).running(false).with(with_feed());
    scene.seen.instance.monitor.as_mut().unwrap().slots = slots.to_vec();
    scene
}

fn sync_of(decision: &Decision) -> Option<&SlotSync> {
    decision.steps.iter().find_map(|step| match step {
        Step::SyncSlots(sync) => Some(sync),
        _ => None,
    })
}

fn tending_of(decision: &Decision) -> Option<&SlotTending> {
    decision.steps.iter().find_map(|step| match step {
        Step::TendSlots(tending) => Some(tending),
        _ => None,
    })
}

fn names(sync: Option<&SlotSync>) -> Vec<&str> {
    sync.into_iter().flat_map(|sync| &sync.wanted).map(|slot| slot.name.as_str()).collect()
}

#[test]
fn the_leader_creates_all_slots_and_publishes_them_soon() {
    let mut scene = scene("a", cluster().build()).running(true).with(with_feed());
    let decision = scene.play(&[kept]);
    assert_eq!(names(sync_of(&decision)), ["b", "c", "feed", "keep"]);
    assert!(!sync_of(&decision).unwrap().is_led);
    assert_eq!(decision.wake_after_ms, Some(100));
    // What could not be created is tried again, with less haste.
    scene.memory = decision.memory;
    let decision = scene.play(&[]);
    assert_eq!((names(sync_of(&decision)).len(), decision.wake_after_ms), (4, Some(1_000)));
}

#[test]
fn a_standby_copies_a_logical_slot_that_the_leader_has() {
    let others = [physical("a"), physical("c"), physical("keep")];
    let mut scene = replica(cluster().build(), &others);
    let decision = scene.play(&[follows]);
    assert_eq!(task_of(&decision), None, "where it stands is not known yet: {:?}", decision.steps);
    let mut scene = replica(published(cluster(), 950).build(), &others);
    let decision = scene.play(&[follows]);
    let Some(Task::CopySlots { leader, slots }) = task_of(&decision) else { panic!("{:?}", decision.steps) };
    assert_eq!((leader.member.as_deref(), slots.len()), (Some("a"), 1));
    assert_eq!(decision.reason.to_string(), "Copying logical slots ['feed'] from the primary");
    // Once tried, it waits for a turn of the loop.
    scene.memory = decision.memory.clone();
    let task = Task::CopySlots { leader: leader.clone(), slots: slots.clone() };
    scene.seen.ended = Some(EndedTask { task, outcome: TaskOutcome::Done, progress: None });
    let receiver = crate::cluster::WalReceiver { status: Some("streaming".into()), ..Default::default() };
    scene.seen.instance.monitor.as_mut().unwrap().receiver = Some(receiver);
    let decision = scene.decide();
    assert_eq!((task_of(&decision), decision.wake_after_ms), (None, Some(10_000)));
    scene.seen.ended = None;
    scene.memory = decision.memory;
    scene.seen.now_ms += 10_000;
    assert!(matches!(task_of(&scene.decide()), Some(Task::CopySlots { .. })));
}

#[test]
fn no_copy_is_made_where_none_is_wanted() {
    let others = [physical("a"), physical("c"), physical("keep")];
    let view = || published(cluster(), 950).build();
    let changes: [fn(&mut Observation); 4] = [
        |seen| seen.node.tags = serde_json::from_value(json!({"nofailover": true})).unwrap(),
        |seen| seen.node.tags = serde_json::from_value(json!({"nostream": true})).unwrap(),
        |seen| seen.settings.use_slots = false,
        |seen| {
            seen.settings.failsafe_mode = true;
            seen.failsafe_ping = Some(super::failsafe::told(seen.now_ms - 1));
        },
    ];
    for (i, change) in changes.into_iter().enumerate() {
        let decision = replica(view(), &others).with(change).play(&[follows]);
        assert_eq!(task_of(&decision), None, "{i}: {:?}", decision.steps);
    }
}

#[test]
fn a_copy_is_moved_forward_as_far_as_was_replayed_and_asked_about() {
    let slots = [physical("a"), physical("c"), physical("keep"), feed(800)];
    let mut scene = replica(published(cluster(), 5000).build(), &slots);
    scene.seen.instance.unready_slots.insert("feed".into());
    let decision = scene.play(&[follows]);
    let tending = tending_of(&decision).unwrap();
    assert_eq!((tending.advance[0].to, tending.advance[0].database.as_str()), (Lsn(1000), "app"));
    assert_eq!((tending.unready.as_slice(), tending.carrier.as_str()), (&["feed".to_owned()][..], "b"));
    assert_eq!(sync_of(&decision), None);
    // Level and safe: nothing to do.
    let slots = [physical("a"), physical("c"), physical("keep"), feed(1000)];
    let decision = replica(published(cluster(), 5000).build(), &slots).play(&[follows]);
    assert_eq!(tending_of(&decision), None);
    // It cannot be moved forward any more: another copy.
    let mut scene = replica(published(cluster(), 5000).build(), &slots);
    scene.seen.instance.broken_slots.insert("feed".into());
    assert!(matches!(task_of(&scene.play(&[follows])), Some(Task::CopySlots { .. })));
}

#[test]
fn a_cascade_is_carried_by_its_topmost_member() {
    let view = published(cluster().member_field("c", "tags", json!({})), 950).build();
    let slots = [physical("a"), physical("c"), physical("keep"), feed(800)];
    let mut scene = replica(view, &slots);
    scene.seen.node.tags = serde_json::from_value(json!({"replicatefrom": "c"})).unwrap();
    scene.seen.instance.unready_slots.insert("feed".into());
    assert_eq!(tending_of(&scene.play(&[follows])).unwrap().carrier, "c");
    // Who stands above somebody that does not stream has no logical slots.
    let view = published(cluster().member_field("c", "tags", json!({"nostream": true})), 950).build();
    let mut scene = replica(view, &slots);
    scene.seen.node.tags = serde_json::from_value(json!({"replicatefrom": "c"})).unwrap();
    let decision = scene.play(&[follows]);
    assert!(!names(sync_of(&decision)).contains(&"feed"), "{:?}", decision.steps);
}

fn feedback(decision: &Decision) -> Option<bool> {
    decision.steps.iter().find_map(|step| match step {
        Step::ForceFeedback(on) => Some(*on),
        _ => None,
    })
}

#[test]
fn feedback_is_forced_where_logical_slots_are_kept_or_passed_on() {
    let mut scene = replica(published(cluster(), 950).build(), &[]);
    let decision = scene.play(&[follows]);
    assert_eq!((feedback(&decision), &decision.steps[0]), (Some(true), &Step::ForceFeedback(true)));
    scene.memory = decision.memory;
    assert_eq!(feedback(&scene.decide()), None, "once is enough");
    scene.seen.settings.slots.clear();
    assert_eq!(feedback(&scene.decide()), Some(false));
    let with_tags = |tags: serde_json::Value, view: ClusterBuilder| {
        let mut scene = replica(published(view, 950).build(), &[]);
        scene.seen.node.tags = serde_json::from_value(tags).unwrap();
        feedback(&scene.play(&[follows]))
    };
    assert_eq!(with_tags(json!({"nofailover": true}), cluster()), Some(false));
    let below = cluster().member_field("c", "tags", json!({"replicatefrom": "b"}));
    assert_eq!(with_tags(json!({"nofailover": true}), below), Some(true), "c's word goes through us");
    // Before a start as well: the first word of a standby counts.
    let mut down = super::scene("b", cluster().build()).stopped("shut down in recovery").with(with_feed());
    let decision = down.play(&[|done| done.divergence = Some(crate::cluster::Divergence::Consistent)]);
    assert!(matches!(task_of(&decision), Some(Task::Start { .. })), "{:?}", decision.steps);
    assert_eq!(decision.steps.first(), Some(&Step::ForceFeedback(true)), "{:?}", decision.steps);
}

#[test]
fn a_promotion_says_which_slots_are_in_doubt() {
    let mut scene = scene("b", cluster().leader("b").build()).running(false);
    scene.seen.instance.unready_slots.insert("feed".into());
    let decision = scene.play(&[kept]);
    assert!(matches!(task_of(&decision), Some(Task::Promote { .. })));
    let text = "Logical replication slots that might be unsafe to use after promote: {'feed'}";
    assert!(decision.notes.iter().any(|note| note.text == text), "{:?}", decision.notes);
}

#[test]
fn slots_for_failover_are_neither_published_nor_copied() {
    let mut scene = scene("a", cluster().build()).running(true);
    let slots = vec![physical("b"), SlotState { is_failover: true, ..feed(900) }];
    scene.seen.instance.monitor.as_mut().unwrap().slots = slots;
    let decision = scene.play(&[kept]);
    let status = decision.steps.iter().find_map(|step| match step {
        Step::WriteStatus(status) => status.slots.clone(),
        _ => None,
    });
    assert_eq!(status.unwrap().into_keys().collect::<Vec<_>>(), ["a", "b"]);
    let slots = [physical("a"), physical("c"), physical("keep"), SlotState { is_synced: true, ..feed(800) }];
    let decision = replica(published(cluster(), 950).build(), &slots).play(&[follows]);
    assert_eq!((task_of(&decision), tending_of(&decision), sync_of(&decision)), (None, None, None));
}

#[test]
fn entries_that_mean_nothing_are_named() {
    let slots = json!({"slots": {
        "Wrong": null, "odd": "text", "half": {"type": "logical", "database": "app"},
        "c": {"database": "app", "plugin": "pgoutput"}, "b": null, "far": {"cluster_type": "standby"}
    }});
    let mut scene = scene("a", cluster().build()).running(true).with(configured(slots));
    let decision = scene.play(&[kept]);
    assert_eq!(names(sync_of(&decision)), ["b", "c", "far"]);
    let wanted = &sync_of(&decision).unwrap().wanted;
    assert!(wanted.iter().all(|slot: &WantedSlot| slot.logical.is_none()), "{wanted:?}");
    for text in [
        "Invalid permanent replication slot name 'Wrong'",
        "Bad value for slot 'odd' in permanent_slots: \"text\"",
        "Bad value for slot 'half' in permanent_slots",
        "is conflicting with physical replication slot for cluster member",
    ] {
        assert!(decision.notes.iter().any(|note| note.text.contains(text)), "{text}: {:?}", decision.notes);
    }
}

#[test]
fn a_standby_cluster_keeps_its_own_physical_slots_only() {
    let document = json!({
        "standby_cluster": {"host": "far"},
        "slots": {
            "feed": {"database": "app", "plugin": "pgoutput"}, "here": {"cluster_type": "standby"},
            "there": {"cluster_type": "primary"}, "both": null
        }
    });
    let mut scene = scene("b", cluster().build()).running(false).with(configured(document));
    let decision = scene.play(&[follows]);
    assert_eq!(names(sync_of(&decision)), ["a", "both", "c", "here"]);
    assert_eq!(feedback(&decision), Some(false));
}

#[test]
fn absent_members_are_counted_anew_by_each_leader() {
    let mut view = published(cluster(), 950);
    view = view.with(|view| view.status.retain_slots = Some(vec!["a".into(), "gone".into()]));
    let slots = vec![physical("b"), physical("c"), physical("gone")];
    let mut leader = scene("a", view.clone().build()).running(true);
    leader.seen.instance.monitor.as_mut().unwrap().slots = slots;
    let retained = |decision: &Decision| {
        decision.steps.iter().find_map(|step| match step {
            Step::WriteStatus(status) => status.retain_slots.clone(),
            _ => None,
        })
    };
    let decision = leader.play(&[kept]);
    assert_eq!(retained(&decision).unwrap(), ["a", "b", "c", "gone"]);
    leader.memory = decision.memory;
    leader.seen.now_ms += 1_800_001;
    let decision = leader.decide();
    assert_eq!(retained(&decision).unwrap(), ["a", "b", "c"]);
    let text = "Replication slot 'gone' for absent cluster member is expired after 1800 sec.";
    assert!(decision.notes.iter().any(|note| note.text == text), "{:?}", decision.notes);
    // Somebody else leads for a while: what we remember of absences is not theirs.
    let mut follower = scene("b", view.build()).running(false);
    follower.memory.slots_last_seen_ms.insert("gone".into(), 1);
    assert!(follower.play(&[follows]).memory.slots_last_seen_ms.is_empty());
}
