//! What no event tells of is looked for again, soon at first.

use super::*;
use crate::cluster::{Divergence, PendingValue, SlotState, WalReceiver, WalSender};
use crate::config::SynchronousMode;

fn tagged(tags: serde_json::Value) -> Scene {
    let mut scene = standby("c", cluster());
    scene.seen.node.tags = serde_json::from_value(tags).unwrap();
    scene
}

/// Slots are not what it waits for.
fn standby(me: &str, view: ClusterBuilder) -> Scene {
    scene(me, view.build()).running(false).with(|seen| seen.settings.use_slots = false)
}

fn stream(scene: &mut Scene, streams: bool) {
    let receiver = WalReceiver { status: Some("streaming".into()), ..Default::default() };
    scene.seen.instance.monitor.as_mut().unwrap().receiver = streams.then_some(receiver);
}

/// Plays one cycle that begins at this moment: when the next one is due.
fn cycle(scene: &mut Scene, at_ms: u64, outcomes: &[fn(&mut Done)]) -> Option<u64> {
    scene.seen.now_ms = at_ms;
    scene.seen.done = Done::default();
    let decision = scene.play(outcomes);
    scene.memory = decision.memory;
    decision.wake_after_ms
}

#[test]
fn a_standby_that_does_not_stream_yet_is_looked_at_again_ever_more_rarely() {
    let mut scene = tagged(json!({}));
    let (mut at, mut looks) = (100_000, Vec::new());
    while at < 160_000 {
        let next = cycle(&mut scene, at, &[follows]).unwrap();
        looks.push(next);
        at += next;
    }
    assert!(looks.is_sorted() && looks[0] == 100 && looks.len() < 20, "{looks:?}");
    stream(&mut scene, true);
    assert_eq!(cycle(&mut scene, at, &[follows]), None);
    assert_eq!(cycle(&mut tagged(json!({"nostream": true})), 100_000, &[follows]), None);
}

#[test]
fn a_standby_that_does_not_stream_is_told_to_ask_at_each_look() {
    let waiting = BTreeMap::from([(
        "max_connections".to_owned(),
        PendingValue { old_value: "30".into(), new_value: "40".into() },
    )]);
    let is_told = |status: Option<&str>, change: FollowChange, pending: &BTreeMap<String, PendingValue>| {
        let mut scene = tagged(json!({}));
        scene.seen.instance.pending_restart = pending.clone();
        let receiver = |status: &str| WalReceiver { status: Some(status.into()), ..Default::default() };
        scene.seen.instance.monitor.as_mut().unwrap().receiver = status.map(receiver);
        scene.seen.done.follow = Some(change);
        scene.play(&[]).steps.contains(&Step::RetryStream)
    };
    let none = BTreeMap::new();
    assert!(is_told(None, FollowChange::None, &none));
    assert!(!is_told(Some("starting"), FollowChange::None, &none), "it is asking");
    assert!(!is_told(Some("streaming"), FollowChange::None, &none));
    assert!(!is_told(None, FollowChange::Reload, &none), "whom it asks is about to change");
    assert!(!is_told(None, FollowChange::None, &waiting), "the primary's WAL may end it");
}

#[test]
fn who_streams_for_a_moment_only_begins_no_new_wait() {
    let mut scene = tagged(json!({}));
    let mut at = 100_000;
    let mut last = 0;
    // Every half second it streams, and does not.
    for round in 0..120 {
        stream(&mut scene, round % 2 == 1);
        last = cycle(&mut scene, at, &[follows]).unwrap_or(last);
        at += 500;
    }
    assert!(last > 25_000, "{last}");
    // It has streamed for a while, and stops to: soon at first again.
    stream(&mut scene, true);
    cycle(&mut scene, at, &[follows]);
    stream(&mut scene, false);
    assert_eq!(cycle(&mut scene, at + 10_000, &[follows]), Some(100));
    // A server that does not answer says nothing of it.
    scene.seen.instance.monitor = None;
    let before = scene.memory.waits.clone();
    cycle(&mut scene, at + 20_000, &[follows]);
    assert_eq!(scene.memory.waits, before);
}

/// Whoever waited for the same in an earlier life does not go on where it was.
#[test]
fn a_wait_that_was_left_begins_anew() {
    let mut scene = tagged(json!({}));
    cycle(&mut scene, 100_000, &[follows]);
    assert!(cycle(&mut scene, 150_000, &[follows]).unwrap() > 20_000);
    assert_eq!(cycle(&mut scene, 300_000, &[follows]), Some(100));
}

#[test]
fn another_upstream_is_another_wait() {
    let mut scene = tagged(json!({}));
    cycle(&mut scene, 100_000, &[follows]);
    assert!(cycle(&mut scene, 150_000, &[follows]).unwrap() > 20_000);
    scene.seen.view = Snapshot::Read(Box::new(cluster().leader("b").build()));
    assert_eq!(cycle(&mut scene, 150_100, &[follows]), Some(100));
}

fn sender(name: &str, sync_state: &str) -> WalSender {
    WalSender {
        application_name: name.into(),
        sync_state: sync_state.into(),
        write_lsn: Some(Lsn(1000)),
        flush_lsn: Some(Lsn(1000)),
        replay_lsn: Some(Lsn(1000)),
    }
}

/// Its agent says that it streams as soon as it does; the primary counts it when it has caught up.
#[test]
fn a_primary_looks_again_for_a_standby_that_says_it_streams() {
    let woken = |mode: SynchronousMode, says: &[&str], seen: &[&str], tags: serde_json::Value| {
        let mut view = cluster().with(|view| {
            view.sync.leader = Some("a".into());
            view.sync.version = Some(Default::default());
        });
        for name in says {
            view = view.member_field(name, "replication_state", json!("streaming")).member_field(
                name,
                "tags",
                tags.clone(),
            );
        }
        let mut scene = scene("a", view.build()).running(true);
        scene.seen.settings.synchronous_mode = mode;
        let monitor = scene.seen.instance.monitor.as_mut().unwrap();
        monitor.senders = seen.iter().map(|name| sender(name, "async")).collect();
        cycle(&mut scene, 100_000, &[kept]);
        scene.memory.waits.contains_key(&Wait::Sender)
    };
    let priority = SynchronousMode::Priority;
    assert!(woken(priority, &["b"], &[], json!({})));
    assert!(!woken(priority, &[], &[], json!({})), "none says so");
    assert!(!woken(priority, &["b"], &["b"], json!({})), "it is there");
    assert!(!woken(priority, &["b", "c"], &["b"], json!({})), "one is enough");
    assert!(woken(SynchronousMode::Quorum, &["b", "c"], &["b"], json!({})), "all of them vote");
    assert!(!woken(priority, &["b"], &[], json!({"nosync": true})));
}

#[test]
fn nobody_stands_back_for_good() {
    let ahead = |done: &mut Done| done.peers = Some(BTreeMap::from([("c".into(), answer(2000))]));
    let mut behind = standby("b", cluster().unlocked());
    stream(&mut behind, true);
    assert_eq!(cycle(&mut behind, 100_000, &[ahead, follows]), Some(1_000));
    let later = cycle(&mut behind, 130_000, &[ahead, follows]);
    assert!(matches!(later, Some(15_000..15_010)), "{later:?}");
    // Somebody leads, and then nobody does again.
    behind.seen.view = Snapshot::Read(Box::new(cluster().build()));
    assert_eq!(cycle(&mut behind, 131_000, &[follows]), None);
    behind.seen.view = Snapshot::Read(Box::new(cluster().unlocked().build()));
    assert_eq!(cycle(&mut behind, 150_000, &[ahead, follows]), Some(1_000));
    // In maintenance mode there may be no leader for days.
    let mut paused = standby("b", cluster().unlocked()).with(|seen| seen.settings.pause = true);
    stream(&mut paused, true);
    assert_eq!(cycle(&mut paused, 100_000, &[]), None);
}

#[test]
fn a_member_whose_script_refused_wakes_when_it_may_race_again() {
    let refused = |memory: &mut Memory| memory.pre_promote_failed_ms = Some(95_000);
    let mut scene = standby("b", cluster().unlocked()).remembering(refused);
    scene.memory.waits.insert(Wait::Leader, Waited { of: Some(String::new()), missed_ms: 95_000, ..Waited::default() });
    stream(&mut scene, true);
    assert_eq!(cycle(&mut scene, 100_000, &[follows]), Some(24_993), "the questions took their time");
}

#[test]
fn a_promise_that_ends_wakes_who_gave_it() {
    let told = |seen: &mut Observation| seen.failsafe_ping = Some(super::failsafe::told(95_000));
    let mut scene = standby("b", cluster().unlocked()).with(told);
    stream(&mut scene, true);
    assert_eq!(cycle(&mut scene, 100_000, &[follows]), Some(24_993));
}

#[test]
fn a_leader_that_does_not_answer_is_asked_again() {
    let silent = |done: &mut Done| done.divergence = Some(Divergence::Unknown("refused".into()));
    let check = |memory: &mut Memory| memory.rewind = RewindState::Check;
    let mut scene = standby("b", cluster()).remembering(check);
    stream(&mut scene, true);
    let changes: [fn(&mut Done); 2] = [silent, follows];
    assert_eq!(cycle(&mut scene, 100_000, &changes), Some(1_000));
    assert!(cycle(&mut scene, 160_000, &changes).unwrap() > 29_000);
}

#[test]
fn a_cluster_made_from_an_archive_is_looked_at_until_it_is_out_of_recovery() {
    let made = |memory: &mut Memory| memory.bootstrap = Some(BootstrapStage::Creating);
    let mut scene = scene("a", cluster().unlocked().build()).running(false).remembering(made);
    assert_eq!(cycle(&mut scene, 100_000, &[]), Some(1_000));
}

/// Both are to be waited for from now on; one has yet to hear of it.
#[test]
fn fewer_votes_will_do_as_soon_as_everybody_has_confirmed() {
    let view = cluster().with(|view| {
        let voters = vec!["b".into(), "c".into()];
        view.sync = SyncState { leader: Some("a".into()), voters, quorum: 1, version: Some(Default::default()) };
    });
    let quorum = |seen: &mut Observation| {
        seen.settings.synchronous_mode = SynchronousMode::Quorum;
        seen.settings.synchronous_node_count = 2;
        seen.settings.use_slots = false;
        let monitor = seen.instance.monitor.as_mut().unwrap();
        monitor.synchronous_standby_names = "ANY 2 (b,c)".into();
        monitor.senders = vec![sender("b", "quorum"), sender("c", "async")];
    };
    let mut scene = scene("a", view.build()).running(true).with(quorum);
    let first = cycle(&mut scene, 100_000, &[kept]);
    assert!(matches!(first, Some(1_900..=2_000)), "until the whole server has heard of it: {first:?}");
    assert_eq!(cycle(&mut scene, 102_000, &[kept]), Some(100));
    scene.seen.instance.monitor.as_mut().unwrap().senders[1].sync_state = "quorum".into();
    scene.seen.now_ms = 102_100;
    scene.seen.done = Done { renewal: Some(LockOutcome::Kept), ..Done::default() };
    let decision = scene.decide();
    let eased = |step: &Step| matches!(step, Step::WriteSync { state, .. } if state.quorum == 0);
    assert!(decision.steps.iter().any(eased), "{:?}", decision.steps);
}

/// Once everything is as it should be nobody is woken before the next turn of the loop.
#[test]
fn a_healthy_cluster_rests() {
    for mode in [SynchronousMode::Off, SynchronousMode::Priority, SynchronousMode::Quorum] {
        let view = cluster().member_field("b", "replication_state", json!("streaming"));
        let view = view.member_field("c", "replication_state", json!("streaming")).with(|view| {
            view.sync = match mode {
                SynchronousMode::Off => SyncState::default(),
                _ => SyncState {
                    leader: Some("a".into()),
                    voters: if mode == SynchronousMode::Quorum {
                        vec!["b".into(), "c".into()]
                    } else {
                        vec!["b".into()]
                    },
                    quorum: u32::from(mode == SynchronousMode::Quorum),
                    version: Some(Default::default()),
                },
            };
        });
        let view = view.build();
        let states = match mode {
            SynchronousMode::Off => ["async", "async"],
            SynchronousMode::Priority => ["sync", "async"],
            SynchronousMode::Quorum => ["quorum", "quorum"],
        };
        let names = match mode {
            SynchronousMode::Off => "",
            SynchronousMode::Priority => "b",
            SynchronousMode::Quorum => "ANY 1 (b,c)",
        };
        let mut leader = scene("a", view.clone()).running(true).with(|seen| {
            seen.settings.synchronous_mode = mode;
            seen.settings.maximum_lag_on_syncnode_bytes = Some(1_000_000);
            let monitor = seen.instance.monitor.as_mut().unwrap();
            monitor.synchronous_standby_names = names.into();
            monitor.senders = vec![sender("b", states[0]), sender("c", states[1])];
            let slot =
                |name: &str| SlotState { restart_lsn: Some(Lsn(1000)), is_active: true, ..slots::physical(name) };
            monitor.slots = vec![slot("b"), slot("c")];
        });
        // The first ones may have to look again: what has just been set takes a moment.
        cycle(&mut leader, 100_000, &[kept]);
        cycle(&mut leader, 105_000, &[kept]);
        assert_eq!(cycle(&mut leader, 110_000, &[kept]), None, "the leader, {mode:?}");
        assert_eq!(cycle(&mut leader, 120_000, &[kept]), None, "the leader, {mode:?}");
        let mut standby = scene("b", view).running(false).with(|seen| seen.settings.synchronous_mode = mode);
        let kept_for = |name: &str| SlotState { restart_lsn: Some(Lsn(1000)), ..slots::physical(name) };
        standby.seen.instance.monitor.as_mut().unwrap().slots = vec![kept_for("a"), kept_for("c")];
        stream(&mut standby, true);
        cycle(&mut standby, 100_000, &[follows]);
        assert_eq!(cycle(&mut standby, 110_000, &[follows]), None, "a standby, {mode:?}");
    }
}

#[test]
fn an_active_slot_that_nobody_wants_is_tried_again_ever_more_rarely() {
    let mut leader = scene("a", cluster().build()).running(true).with(|seen| {
        let monitor = seen.instance.monitor.as_mut().unwrap();
        let slot = |name: &str| SlotState { restart_lsn: Some(Lsn(1000)), is_active: true, ..slots::physical(name) };
        monitor.slots = vec![slot("b"), slot("c"), slot("stranger")];
    });
    assert_eq!(cycle(&mut leader, 100_000, &[kept]), Some(1_000));
    let later = cycle(&mut leader, 160_000, &[kept]).unwrap();
    assert!(later > 29_000, "{later}");
    leader.seen.instance.monitor.as_mut().unwrap().slots.pop();
    assert_eq!(cycle(&mut leader, 170_000, &[kept]), None);
}

/// Commits wait for `b` as the server has it, and it has not caught up.
#[test]
fn a_standby_that_does_not_confirm_is_looked_at_ever_more_rarely() {
    for (mode, names, state) in
        [(SynchronousMode::Priority, "b", "async"), (SynchronousMode::Quorum, "ANY 1 (b)", "async")]
    {
        let view = cluster().member_field("b", "replication_state", json!("streaming")).with(|view| {
            view.sync =
                SyncState { leader: Some("a".into()), version: Some(Default::default()), ..SyncState::default() };
        });
        let mut leader = scene("a", view.build()).running(true).with(|seen| {
            seen.settings.synchronous_mode = mode;
            seen.settings.use_slots = false;
            let monitor = seen.instance.monitor.as_mut().unwrap();
            monitor.synchronous_standby_names = names.into();
            monitor.senders = vec![sender("b", state)];
        });
        let (mut at, mut looks) = (100_000, Vec::new());
        while at < 160_000 {
            let next = cycle(&mut leader, at, &[kept]).unwrap();
            looks.push(next);
            at += next;
        }
        assert!(looks.len() < 20 && looks.last().unwrap() > &15_000, "{mode:?}: {looks:?}");
        assert!(looks[1] <= 200, "{mode:?}: {looks:?}");
    }
}

/// Another setting comes before ours: the server never shows what was set.
#[test]
fn names_that_are_never_shown_are_set_ever_more_rarely() {
    let view = cluster().member_field("b", "replication_state", json!("streaming")).with(|view| {
        view.sync = SyncState { leader: Some("a".into()), version: Some(Default::default()), ..SyncState::default() };
    });
    let mut leader = scene("a", view.build()).running(true).with(|seen| {
        seen.settings.synchronous_mode = SynchronousMode::Priority;
        seen.instance.monitor.as_mut().unwrap().senders = vec![sender("b", "async")];
    });
    let (mut at, mut turns) = (100_000, 0);
    while at < 160_000 {
        let next = cycle(&mut leader, at, &[kept]).unwrap();
        assert!(turns > 0 || next == 1, "{next}");
        at += next.max(20);
        turns += 1;
    }
    assert!(turns < 30, "{turns}");
}

#[test]
fn a_standby_near_the_limit_of_its_lag_is_looked_at_again() {
    let woken = |lag: u64, limit: Option<u64>| {
        let view = cluster().with(|view| {
            let (leader, voters) = (Some("a".into()), vec!["b".into()]);
            view.sync = SyncState { leader, voters, quorum: 0, version: Some(Default::default()) };
        });
        let mut leader = scene("a", view.build()).running(true).with(|seen| {
            seen.settings.synchronous_mode = SynchronousMode::Priority;
            seen.settings.maximum_lag_on_syncnode_bytes = limit;
            seen.settings.use_slots = false;
            let monitor = seen.instance.monitor.as_mut().unwrap();
            monitor.synchronous_standby_names = "b".into();
            monitor.flush_lsn = Lsn(1000 + lag);
            monitor.senders = vec![sender("b", "sync")];
        });
        cycle(&mut leader, 100_000, &[kept]);
        leader.memory.waits.contains_key(&Wait::Lag)
    };
    assert!(woken(6_000, Some(10_000)), "it may cross it soon");
    assert!(!woken(4_000, Some(10_000)));
    assert!(!woken(6_000, None));
}
