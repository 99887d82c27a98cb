//! Maintenance mode: servers are the operator's.

use super::*;
use crate::cluster::{Divergence, ReinitRequest};

fn paused(seen: &mut Observation) {
    seen.settings.pause = true;
}

fn has(decision: &Decision, wanted: impl Fn(&Step) -> bool) -> bool {
    decision.steps.iter().any(wanted)
}

fn releases(decision: &Decision) -> bool {
    has(decision, |step| matches!(step, Step::ReleaseLeader(_)))
}

/// Somebody else leads, as a primary.
fn led_by_b() -> ClusterView {
    cluster().leader("b").member_field("b", "role", json!("primary")).build()
}

#[test]
fn what_is_down_stays_down_and_gives_the_key_away() {
    for rewind in [RewindState::Initial, RewindState::NotNeed, RewindState::Failed] {
        let decision = scene("b", cluster().build())
            .stopped("shut down")
            .with(paused)
            .remembering(|memory| memory.rewind = rewind)
            .decide();
        assert_eq!((decision.reason.to_string().as_str(), task_of(&decision)), ("postgres is not running", None));
    }
    let decision = scene("a", cluster().build()).stopped("in production").with(paused).decide();
    assert_eq!(decision.reason.to_string(), "removed leader lock because postgres is not running");
    assert!(releases(&decision) && task_of(&decision).is_none());
    // Nobody takes over.
    let decision = scene("b", cluster().unlocked().build()).running(false).with(paused).play(&[]);
    assert_eq!((decision.reason.to_string().as_str(), task_of(&decision)), ("no action. I am (b)", None));
}

#[test]
fn an_agent_that_is_started_beside_a_stopped_server_does_not_start_it() {
    for (state, view) in [("shut down", cluster().build()), ("in production", led_by_b()), ("shut down", led_by_b())] {
        let found =
            scene("c", view).stopped(state).with(paused).remembering(|memory| *memory = Memory::default()).decide();
        assert_eq!((found.reason.to_string().as_str(), task_of(&found)), ("postgres is not running", None));
        // Afterwards its history is compared before it streams, as after any other start.
        let mut resumed = scene("c", led_by_b()).stopped("shut down").remembering(|memory| *memory = found.memory);
        let decision = resumed.play(&[|done| done.divergence = Some(Divergence::Consistent)]);
        assert!(matches!(task_of(&decision), Some(Task::Start { .. })), "{}", decision.reason);
    }
}

#[test]
fn a_running_primary_is_left_alone_whoever_leads() {
    for rewind in [RewindState::Initial, RewindState::Check, RewindState::Need] {
        for view in [led_by_b(), cluster().leader("b").build()] {
            let decision = scene("a", view)
                .running(true)
                .with(paused)
                .with(|seen| seen.node.remove_on_divergence = true)
                .remembering(|memory| memory.rewind = rewind)
                .play(&[]);
            assert_eq!(decision.reason.to_string(), "continue to run as primary without lock");
            assert_eq!(task_of(&decision), None);
        }
    }
    let lost: fn(&mut Done) = |done| done.renewal = Some(LockOutcome::Lost);
    let decision = scene("a", cluster().build()).running(true).with(paused).play(&[lost]);
    assert_eq!(decision.reason.to_string(), "continue to run as primary after failing to update leader lock in DCS");
    assert_eq!(task_of(&decision), None);
}

#[test]
fn a_running_primary_takes_a_free_key_unless_it_is_another_clusters() {
    let take = |scene: Scene| {
        let decision = scene.running(true).with(paused).decide();
        has(&decision, |step| matches!(step, Step::AcquireLeader))
    };
    assert!(take(scene("a", cluster().unlocked().build())));
    let foreign = cluster().unlocked().with(|view| view.initialize = Some("9999999999999999".into())).build();
    assert!(!take(scene("a", foreign.clone())));

    let led = cluster().with(|view| view.initialize = Some("9999999999999999".into())).build();
    let decision = scene("a", led).running(true).with(paused).decide();
    assert_eq!(decision.reason.to_string(), "released leader key voluntarily due to the system ID mismatch");
    assert!(releases(&decision) && !has(&decision, |step| matches!(step, Step::Exit { .. })));
    let resumed = scene("a", foreign).running(true).remembering(|memory| memory.was_paused = true).decide();
    assert!(has(&resumed, |step| matches!(step, Step::Exit { keep_server: false, .. })));
}

#[test]
fn a_leader_that_is_no_primary_any_more_gives_the_key_away() {
    let decision = scene("a", cluster().build()).running(false).with(paused).decide();
    assert_eq!(decision.reason.to_string(), "removed leader lock because postgres is not running as primary");
    assert!(releases(&decision));
    // Unless it is about to become one.
    let asked = cluster().failover(None, Some("a")).build();
    let decision = scene("a", asked).running(false).with(paused).decide();
    assert_eq!(decision.reason.to_string(), "waiting to become primary after promote...");
    assert!(!releases(&decision));
}

#[test]
fn standbys_are_pointed_at_a_new_leader_and_replay_stays_paused() {
    let changed: fn(&mut Done) = |done| done.follow = Some(FollowChange::Reload);
    let decision = scene("c", led_by_b())
        .running(false)
        .with(paused)
        .with(|seen| seen.instance.monitor.as_mut().unwrap().replay_paused = true)
        .play(&[changed]);
    assert!(has(&decision, |step| matches!(step, Step::Follow(_))), "{:?}", decision.steps);
    assert!(!has(&decision, |step| matches!(step, Step::ResumeReplay)));
}

#[test]
fn a_handover_needs_a_candidate_and_goes_to_nobody_else() {
    let switchover = |candidate| cluster().failover(Some("a"), candidate).build();
    let decision = scene("a", switchover(None)).running(true).with(paused).play(&[kept]);
    assert!(
        decision.notes.iter().any(|note| note.text.contains("only to a specific candidate in a paused state")),
        "{:?}",
        decision.notes
    );
    assert!(has(&decision, |step| matches!(step, Step::BlankFailover(_))) && task_of(&decision).is_none());
    let mut leads = scene("a", switchover(Some("b"))).running(true).with(paused);
    let decision = leads.play(&[kept, level_peers]);
    assert_eq!(decision.reason.to_string(), "switchover: demoting myself");

    // The key is free: only the candidate goes for it, and it takes the old leader out of the request.
    let free =
        |name| scene(name, cluster().unlocked().failover(Some("a"), Some("b")).build()).running(false).with(paused);
    let decision = free("c").play(&[]);
    assert!(!has(&decision, |step| matches!(step, Step::AcquireLeader)), "{}", decision.reason);
    let decision = free("b").play(&[acquired]);
    assert!(matches!(task_of(&decision), Some(Task::Promote { .. })));
    assert!(has(&decision, |step| matches!(step, Step::KeepFailoverCandidate { .. })), "{:?}", decision.steps);
    // A leader that was killed: a failover to a named standby is the way to go on.
    let asked = cluster().unlocked().failover(None, Some("b")).build();
    let decision = scene("b", asked.clone()).running(false).with(paused).play(&[acquired]);
    assert!(matches!(task_of(&decision), Some(Task::Promote { .. })));
    assert!(has(&decision, |step| matches!(step, Step::BlankFailover(_))), "{:?}", decision.steps);
    // A primary that runs does not step in for the candidate, but takes a request for nobody back and leads.
    let decision = scene("a", asked).running(true).with(paused).play(&[]);
    assert_eq!(decision.reason.to_string(), "continue to run as primary without lock");
    let nobody = cluster().unlocked().failover(None, Some("gone")).build();
    let decision = scene("a", nobody).running(true).with(paused).decide();
    assert!(has(&decision, |step| matches!(step, Step::BlankFailover(_))), "{:?}", decision.steps);
    assert!(has(&decision, |step| matches!(step, Step::AcquireLeader)), "{}", decision.reason);
}

#[test]
fn who_was_switched_away_from_comes_back_also_where_nothing_can_be_rewound() {
    let stopped = |memory: Option<Memory>| {
        let mut scene = scene("a", led_by_b()).stopped("shut down").with(paused);
        scene.seen.instance.can_rewind = false;
        scene.memory.role = Some(Role::Demoted);
        scene.memory = memory.unwrap_or(scene.memory);
        scene
    };
    assert_eq!(task_of(&stopped(None).decide()), None);
    let over = stopped(None)
        .remembering(|memory| {
            memory.demotion = Some(Demotion {
                mode: DemoteMode::Graceful,
                action: "switchover: demote".into(),
                stage: DemotionStage::Stopped,
                is_released: true,
                shutdown_lsn: None,
                began_ms: 0,
            });
        })
        .decide();
    assert!(over.memory.has_made_way);
    let back = stopped(Some(over.memory)).decide();
    assert!(
        matches!(task_of(&back), Some(Task::Start { recovery: Recovery::Standby(Some(_)), .. })),
        "{}",
        back.reason
    );
    // Once it serves, the operator may stop it.
    let serves = scene("a", led_by_b()).running(false).with(paused).remembering(|memory| *memory = back.memory);
    let again = serves.with(|seen| seen.instance.can_rewind = false).play(&[follows]).memory;
    assert!(!again.has_made_way);
    assert_eq!(task_of(&stopped(Some(again)).decide()), None);
}

#[test]
fn what_an_operator_asks_of_a_node_is_done_but_nothing_scheduled() {
    let asks = |kind: RequestKind| vec![Request { id: 1, kind }];
    let restart = scene("b", cluster().build())
        .running(false)
        .with(paused)
        .with(|seen| seen.requests = asks(RequestKind::Restart(RestartRequest::default())))
        .decide();
    assert!(matches!(task_of(&restart), Some(Task::Restart { .. })));
    let reinit = scene("b", cluster().build())
        .running(false)
        .with(paused)
        .with(|seen| seen.requests = asks(RequestKind::Reinitialize(ReinitRequest::default())))
        .decide();
    let Some(task @ Task::Clone { .. }) = task_of(&reinit).cloned() else { panic!("{}", reinit.reason) };
    // The clone is started, too.
    let mut cloned = scene("b", cluster().build()).stopped("in production").with(paused).with(|seen| {
        seen.instance.state = Some(State::Stopped);
        seen.ended = Some(EndedTask { task, outcome: TaskOutcome::Done, progress: None });
    });
    cloned.memory = reinit.memory;
    let decision = cloned.decide();
    assert!(matches!(task_of(&decision), Some(Task::Start { .. })), "{}", decision.reason);

    let scheduled = crate::cluster::ScheduledRestart {
        at_ms: 1_800_000_000_000,
        schedule: "2027-01-15T08:00:00+00:00".into(),
        request: RestartRequest::default(),
        published: Map::new(),
        postmaster_start_time: None,
    };
    let later = cluster().failover(Some("a"), Some("b")).with(|view| {
        view.failover.as_mut().unwrap().scheduled_at = Some("2027-01-15T08:00:00+00:00".into());
    });
    let decision = scene("a", later.build())
        .running(true)
        .with(paused)
        .remembering(|memory| memory.scheduled_restart = Some(scheduled))
        .play(&[kept]);
    assert!(task_of(&decision).is_none() && decision.memory.scheduled_restart.is_some(), "{}", decision.reason);
    assert!(!has(&decision, |step| matches!(step, Step::BlankFailover(_))));
}

#[test]
fn an_empty_directory_stays_empty() {
    let decision = scene("d", cluster().build()).with(paused).decide();
    assert_eq!((decision.reason.to_string().as_str(), task_of(&decision)), ("running with empty data directory", None));
}

#[test]
fn neither_a_lost_dcs_nor_the_agents_end_touches_the_server_or_the_key() {
    let lost = |seen: &mut Observation| seen.view = Snapshot::Unreachable("refused".into());
    let decision = scene("a", cluster().build()).running(true).with(paused).with(lost).decide();
    assert_eq!((decision.steps.len(), decision.memory.demotion), (0, None));
    for primary in [true, false] {
        let name = if primary { "a" } else { "b" };
        let ends = scene(name, cluster().build()).running(primary).with(paused).with(|seen| seen.is_leaving = true);
        let decision = ends.decide();
        assert!(has(&decision, |step| matches!(step, Step::Exit { keep_server: true, .. })));
        assert!(!releases(&decision) && task_of(&decision).is_none());
    }
}

#[test]
fn synchronous_replication_goes_on_and_slots_are_kept() {
    let mut scene = scene("a", cluster().build()).running(true).with(paused).with(|seen| {
        seen.settings.synchronous_mode = crate::config::SynchronousMode::Priority;
    });
    let asks = scene.play_until(kept);
    assert!(has(&asks, |step| matches!(step, Step::WriteSync { .. })), "{:?}", asks.steps);
    let mut slots = super::scene("a", cluster().build()).running(true).with(paused);
    let decision = slots.play(&[kept]);
    let sync = decision.steps.iter().find_map(|step| match step {
        Step::SyncSlots(sync) => Some(sync),
        _ => None,
    });
    assert!(sync.is_some_and(|sync| !sync.may_drop && !sync.wanted.is_empty()));
    let published = decision.steps.iter().find_map(|step| match step {
        Step::Publish(value) => Some(value),
        _ => None,
    });
    assert_eq!(published.and_then(|value| value.get("pause")), Some(&json!(true)));
}

#[test]
fn resuming_starts_from_a_clean_sheet() {
    let left = |memory: &mut Memory| {
        memory.was_paused = true;
        memory.rewind = RewindState::Failed;
        memory.hold_until_ms = Some(u64::MAX);
        memory.has_made_way = true;
    };
    let mut stopped = scene("a", led_by_b()).stopped("shut down").remembering(left);
    let decision = stopped.play(&[|done| done.divergence = Some(Divergence::Consistent)]);
    assert!(matches!(task_of(&decision), Some(Task::Start { .. })), "{}", decision.reason);
    assert!(!decision.memory.was_paused && !decision.memory.has_made_way);
    // A primary that the operator left running beside the leader is stopped now.
    let decision = scene("a", led_by_b()).running(true).remembering(left).decide();
    assert!(matches!(task_of(&decision), Some(Task::Stop { mode: StopMode::Immediate, .. })));
    // A killed leader whose key is still free races again.
    let decision = scene("a", cluster().unlocked().build()).running(true).remembering(left).decide();
    assert!(has(&decision, |step| matches!(step, Step::AcquireLeader)));
}
