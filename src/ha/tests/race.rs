//! Races that were decided by what is no longer so.

use super::*;
use crate::config::SynchronousMode;

fn synchronous(seen: &mut Observation) {
    seen.settings.synchronous_mode = SynchronousMode::Quorum;
}

fn named(leader: &str, quorum: u32, voters: &[&str]) -> SyncState {
    let voters = voters.iter().map(|name| (*name).into()).collect();
    SyncState { leader: Some(leader.into()), quorum, voters, version: None }
}

fn releases(decision: &Decision) -> bool {
    decision.steps.iter().any(|step| matches!(step, Step::ReleaseLeader(_)))
}

/// Others may have led since it heard of them.
#[test]
fn whoever_was_suspended_in_a_race_gives_the_key_back() {
    for (asleep_ms, leads) in [(2_000, true), (60_000, false)] {
        let mut scene = scene("b", cluster().unlocked().build()).running(false);
        scene.memory = scene.decide().memory;
        dead_leader(&mut scene.seen.done);
        scene.seen.now_ms += asleep_ms;
        let decision = if leads { scene.play(&[acquired]) } else { scene.play(&[acquired, follows]) };
        assert_eq!(matches!(task_of(&decision), Some(Task::Promote { .. })), leads, "{asleep_ms}: {}", decision.reason);
        assert_eq!(releases(&decision), !leads);
        assert!(leads || decision.wake_after_ms == Some(1));
    }
}

/// The agent before it has won the key, by what it knew.
#[test]
fn a_holder_that_sync_does_not_name_promotes_only_by_its_own_race() {
    let view = cluster().with(|view| view.sync = named("c", 0, &[])).build();
    for has_won in [true, false] {
        let mut scene = scene("a", view.clone()).running(false).with(synchronous);
        scene.memory.has_won = has_won;
        let decision = scene.play(&[kept]);
        assert_eq!(matches!(task_of(&decision), Some(Task::Promote { .. })), has_won, "{}", decision.reason);
        assert_eq!(releases(&decision), !has_won);
    }
    let inside = cluster().with(|view| view.sync = named("c", 0, &["a"])).build();
    let decision = scene("a", inside).running(false).with(synchronous).play(&[kept]);
    assert!(matches!(task_of(&decision), Some(Task::Promote { .. })), "{}", decision.reason);
}

/// It led before, and is further in numbers; it cannot lead, for others are on a later timeline.
#[test]
fn a_voter_on_an_earlier_timeline_keeps_nobody_back() {
    let view = cluster().unlocked().with(|view| view.sync = named("b", 1, &["a", "c"])).build();
    let races = |me: &str, own: u32, a: PeerAnswer| {
        let mut scene = scene(me, view.clone()).running(false).with(synchronous);
        scene.memory.known_members = view.members.iter().map(|m| (m.name.clone(), m.clone())).collect();
        scene.seen.instance.monitor.as_mut().unwrap().timeline = Some(Timeline(own));
        let gone = PeerAnswer::Unreachable("connection refused".into());
        scene.seen.done.peers = Some(BTreeMap::from([("a".into(), a), ("c".into(), gone.clone()), ("b".into(), gone)]));
        scene.decide().steps.contains(&Step::AcquireLeader)
    };
    assert!(races("b", 2, answer(9_000)), "it has nothing that b lacks, and votes");
    assert!(!races("b", 1, answer(9_000)));
    assert!(races("b", 1, answer(900)));
}

#[test]
fn a_lost_race_among_synchronous_standbys_is_looked_at_again_soon() {
    let view = cluster().unlocked().with(|view| view.sync = named("a", 0, &["b"])).build();
    let lost: fn(&mut Done) = |done| done.acquire = Some(LockOutcome::Lost);
    let decision = scene("b", view).running(false).with(synchronous).play(&[dead_leader, lost, follows]);
    assert!(decision.wake_after_ms.is_some_and(|ms| ms <= 500), "{:?}", decision.wake_after_ms);
}

/// Another number would tell both apart; this one does not.
#[test]
fn a_former_primary_follows_nobody_before_the_next_one_has_its_timeline() {
    let compared = |role: &str| {
        let view = cluster().leader("b").member_field("b", "role", json!(role));
        let view = view.member_field("b", "timeline", json!(2)).build();
        let mut scene = scene("a", view).running(false);
        scene.memory.timeline_maker = Some((Timeline(1), "a".into()));
        let decision = scene.decide();
        let upstream = decision.steps.iter().find_map(|step| match step {
            Step::CompareFollow(upstream) => Some(upstream.as_ref().and_then(|upstream| upstream.member.clone())),
            _ => None,
        });
        (upstream, scene.play(&[follows]).wake_after_ms)
    };
    assert_eq!(compared("replica"), (Some(None), Some(300)));
    assert_eq!(compared("primary").0, Some(Some("b".into())));
}

/// The next leader leaves out the number of a timeline that it knows of.
#[test]
fn a_timeline_is_noted_before_it_is_handed_over() {
    let request = || cluster().failover(Some("a"), Some("b"));
    let mut scene = scene("a", request().build()).running(true);
    if let Some(monitor) = &mut scene.seen.instance.monitor {
        (monitor.timeline, monitor.control_timeline) = (Some(Timeline(2)), Some(Timeline(1)));
    }
    let lines = |done: &mut Done| done.history = Some((Vec::new(), None));
    let decision = scene.play(&[kept, lines]);
    assert_eq!((decision.memory.demotion.clone(), decision.wake_after_ms), (None, Some(50)), "{}", decision.reason);
    let history = json!([[1, 900, "no recovery target specified"]]);
    let noted = request().with(|view| view.history = Some(crate::cluster::History { raw: history })).build();
    let mut later = Scene { seen: scene.seen.clone(), memory: scene.memory.clone() };
    (later.seen.view, later.seen.done) = (Snapshot::Read(Box::new(noted)), Done::default());
    let decision = later.play(&[kept, level_peers]);
    assert!(decision.memory.demotion.is_some(), "{}", decision.reason);
}
