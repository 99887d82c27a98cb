//! Whom a member follows, and how it changes its mind.

use super::*;

fn source(scene: &Scene) -> Option<Option<MemberName>> {
    scene.decide().steps.iter().find_map(|step| match step {
        Step::CompareFollow(upstream) => Some(upstream.as_ref().and_then(|upstream| upstream.member.clone())),
        _ => None,
    })
}

fn tagged(tags: serde_json::Value, view: ClusterView) -> Scene {
    scene("c", view).running(false).with(|seen| seen.node.tags = serde_json::from_value(tags).unwrap())
}

#[test]
fn a_cascade_goes_round_a_source_that_is_down() {
    let tags = || json!({"replicatefrom": "b"});
    let view = |state: &str| cluster().member_field("b", "state", json!(state)).build();
    assert_eq!(source(&tagged(tags(), view("running"))), Some(Some("b".into())));
    assert_eq!(source(&tagged(tags(), view("stopped"))), Some(Some("a".into())));
    let gone = cluster().with(|view| view.members.retain(|member| member.name != "b")).build();
    assert_eq!(source(&tagged(tags(), gone)), Some(Some("a".into())));
    // The source is the new leader: nothing changes for us.
    assert_eq!(source(&tagged(tags(), cluster().leader("b").build())), Some(Some("b".into())));
}

#[test]
fn who_does_not_stream_follows_nobody() {
    let scene = tagged(json!({"nostream": true, "replicatefrom": "b"}), cluster().build());
    assert_eq!(source(&scene), Some(None));
}

#[test]
fn a_refused_promotion_gives_the_lock_away() {
    let refused = |seen: &mut Observation| {
        let task = Task::Promote { limit_ms: 1_000, taken: Vec::new() };
        seen.ended = Some(EndedTask { task, outcome: TaskOutcome::PrePromoteFailed, progress: None });
    };
    let mut scene = scene("b", cluster().leader("b").build()).running(false).with(refused);
    let decision = scene.play(&[kept]);
    assert_eq!(decision.reason, Line::PromotionCancelled.into());
    assert!(decision.steps.iter().any(|step| matches!(step, Step::ReleaseLeader(_))));
    assert!(!decision.memory.is_promotion_refused && task_of(&decision).is_none());
    // What was said of a lock that is lost meanwhile does not count for the next.
    scene.seen.view = Snapshot::Read(Box::new(cluster().leader("a").build()));
    scene.memory = Memory { is_promotion_refused: true, ..scene.memory };
    assert!(!scene.decide().memory.is_promotion_refused);
}

#[test]
fn an_upstream_is_changed_by_a_reload_and_the_histories_are_compared() {
    let mut scene = scene("c", cluster().leader("b").build()).running(false);
    let reload: fn(&mut Done) = |done| done.follow = Some(FollowChange::Reload);
    let decision = scene.play(&[reload]);
    assert!(decision.steps.iter().any(|step| matches!(step, Step::Follow(Some(_)))));
    assert_eq!((task_of(&decision), decision.memory.rewind), (None, RewindState::Check));
    let restart: fn(&mut Done) = |done| done.follow = Some(FollowChange::Restart);
    scene.seen.done = Done::default();
    let decision = scene.play(&[restart]);
    assert!(matches!(task_of(&decision), Some(Task::Restart { .. })));
}

/// A leader that went on writing after its standbys were promoted is further in numbers than they are.
#[test]
fn a_voter_on_a_later_timeline_has_no_vote_for_whoever_is_further() {
    let sync = SyncState { leader: Some("c".into()), ..SyncState::default() };
    let view = cluster().unlocked().with(|view| view.sync = sync).build();
    let quorum = |seen: &mut Observation| seen.settings.synchronous_mode = crate::config::SynchronousMode::Quorum;
    let races = |of_c: u32| {
        let mut scene = scene("b", view.clone()).running(false).with(quorum);
        scene.memory.known_members = view.members.iter().map(|m| (m.name.clone(), m.clone())).collect();
        let mut of = answer(900);
        if let PeerAnswer::Answered { timeline, .. } = &mut of {
            *timeline = Some(Timeline(of_c));
        }
        scene.seen.done.peers = Some(BTreeMap::from([("a".into(), answer(900)), ("c".into(), of)]));
        scene.decide().steps.contains(&Step::AcquireLeader)
    };
    assert!(races(1));
    assert!(!races(2));
}

/// It was frozen while another one was promoted, served, and left before it wrote its timeline down.
#[test]
fn a_primary_that_sync_names_no_more_does_not_take_the_key_again() {
    let named = |leader: &str, voters: &[&str]| {
        let sync = SyncState {
            leader: Some(leader.into()),
            voters: voters.iter().map(|name| (*name).into()).collect(),
            ..SyncState::default()
        };
        let view = cluster().unlocked().with(|view| view.sync = sync).build();
        let mode = |seen: &mut Observation| {
            seen.settings.synchronous_mode = crate::config::SynchronousMode::Priority;
        };
        scene("a", view).running(true).with(mode).decide().steps
    };
    assert!(!named("c", &[]).contains(&Step::AcquireLeader));
    assert!(named("a", &["c"]).contains(&Step::AcquireLeader));
    assert!(named("c", &["a"]).contains(&Step::AcquireLeader));
}
