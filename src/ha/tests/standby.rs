//! Clusters that follow another cluster.

use super::*;
use crate::cluster::{Callback, Divergence, StopMode, Upstream, UpstreamSlot};

fn standby_of(document: serde_json::Value) -> impl FnOnce(&mut Observation) {
    move |seen| {
        let mut settings = Map::new();
        settings.insert("standby_cluster".into(), document);
        seen.settings = Dynamic::from_document(&settings).0;
    }
}

fn remote() -> serde_json::Value {
    json!({"host": "far", "port": 6432, "primary_slot_name": "here"})
}

fn remote_of(upstream: Option<&Upstream>) -> Option<(&str, &UpstreamSlot)> {
    upstream.filter(|upstream| upstream.member.is_none()).and_then(|u| Some((u.host.as_deref()?, &u.slot)))
}

fn stopped_by_demotion(mode: DemoteMode) -> Scene {
    let ended = EndedTask {
        task: Task::Stop { action: "x".into(), mode: StopMode::Fast, checkpoint: false, timeout_ms: None },
        outcome: TaskOutcome::Done,
        progress: Some(StopProgress::ShutDown { checkpoint: Lsn(1200), previous: Lsn(1100) }),
    };
    let demotion = Demotion {
        mode,
        action: "demoting to a standby cluster".into(),
        stage: DemotionStage::Stopping,
        is_released: false,
        shutdown_lsn: None,
        began_ms: 0,
    };
    scene("a", cluster().build())
        .stopped("shut down")
        .with(standby_of(remote()))
        .with(|seen| {
            seen.instance.state = Some(State::Stopped);
            seen.ended = Some(ended);
        })
        .remembering(|memory| {
            memory.role = Some(Role::Primary);
            memory.demotion = Some(demotion);
        })
}

#[test]
fn a_primary_of_a_cluster_that_becomes_a_standby_stops_cleanly() {
    for (is_archiving, mode) in [(false, DemoteMode::Cluster), (true, DemoteMode::ClusterArchiving)] {
        let mut scene = scene("a", cluster().build()).running(true).with(standby_of(remote()));
        scene.seen.instance.monitor.as_mut().unwrap().is_archiving = is_archiving;
        let decision = scene.play(&[kept]);
        assert_eq!(decision.reason.to_string(), "cannot be a real primary in standby cluster");
        assert_eq!(decision.memory.demotion.as_ref().map(|demotion| demotion.mode), Some(mode));
        let stop = Task::Stop {
            action: "demoting to a standby cluster".into(),
            mode: StopMode::Fast,
            checkpoint: false,
            timeout_ms: None,
        };
        assert_eq!(task_of(&decision), Some(&stop));
    }
    // Whoever has no lock does not take its time.
    let other = cluster().leader("b").build();
    let decision = scene("a", other).running(true).with(standby_of(remote())).decide();
    assert_eq!(decision.memory.demotion.map(|demotion| demotion.mode), Some(DemoteMode::ImmediateNolock));
}

#[test]
fn without_an_archive_the_key_goes_to_a_member_that_has_the_checkpoint() {
    let demotion = stopped_by_demotion(DemoteMode::Cluster).memory.demotion;
    let mut scene = scene("a", cluster().build()).running(true).with(standby_of(remote())).remembering(|memory| {
        memory.demotion = demotion;
        memory.known_members = cluster().build().members.into_iter().map(|m| (m.name.clone(), m)).collect();
    });
    scene.seen.task = Some(RunningTask {
        task: Task::Stop { action: "x".into(), mode: StopMode::Fast, checkpoint: false, timeout_ms: None },
        since_ms: 0,
        progress: Some(StopProgress::ShutDown { checkpoint: Lsn(1200), previous: Lsn(1100) }),
    });
    let behind: fn(&mut Done) = |done| done.peers = Some([("b".into(), answer(1100))].into());
    let caught_up: fn(&mut Done) = |done| done.peers = Some([("b".into(), answer(1200))].into());
    let released = |decision: &Decision| {
        decision.steps.iter().find_map(|step| match step {
            Step::ReleaseLeader(status) => Some(status.as_ref().and_then(|status| status.optime)),
            _ => None,
        })
    };
    let mut waits = Scene { seen: scene.seen.clone(), memory: scene.memory.clone() };
    assert_eq!(released(&waits.play(&[kept, behind])), None);
    assert_eq!(released(&scene.play(&[kept, caught_up])), Some(Some(Lsn(1200))));

    // Nobody had it in time: the key is given away without a position.
    let decision = stopped_by_demotion(DemoteMode::Cluster).decide();
    assert_eq!(released(&decision), Some(None));
}

#[test]
fn with_an_archive_the_leader_keeps_the_key_and_archives_the_end() {
    let mut scene = stopped_by_demotion(DemoteMode::ClusterArchiving);
    let decision = scene.decide();
    assert_eq!(task_of(&decision), Some(&Task::ArchiveLast));
    assert!(!decision.steps.iter().any(|step| matches!(step, Step::ReleaseLeader(_))));
    scene.memory = decision.memory;
    scene.seen.ended = Some(EndedTask { task: Task::ArchiveLast, outcome: TaskOutcome::Done, progress: None });
    scene.seen.settings.primary_start_timeout = std::time::Duration::ZERO;
    let unknown: fn(&mut Done) = |done| done.divergence = Some(Divergence::Unknown("in recovery".into()));
    let decision = scene.play(&[kept, unknown]);
    assert_eq!(decision.reason.to_string(), "starting as a standby leader because i had the session lock");
    let Some(Task::Start { recovery: Recovery::Standby(upstream), role, .. }) = task_of(&decision) else {
        panic!("{decision:?}")
    };
    assert_eq!(*role, Role::StandbyLeader);
    assert_eq!(remote_of(upstream.as_ref()), Some(("far", &UpstreamSlot::Named("here".into()))));
}

#[test]
fn the_standby_leader_follows_the_remote_and_the_others_follow_it() {
    let mut leader = scene("a", cluster().build()).running(false).with(standby_of(remote()));
    leader.memory.rewind = RewindState::NotNeed;
    let mut first = leader.play(&[kept, follows]);
    assert_eq!(first.reason.to_string(), "promoted self to a standby leader because i had the session lock");
    assert_eq!(first.memory.role, Some(Role::StandbyLeader));
    let event = Step::Callback { event: Callback::OnRoleChange, role: Role::StandbyLeader };
    assert!(first.steps.contains(&event), "{:?}", first.steps);
    leader.memory = std::mem::take(&mut first.memory);
    leader.seen.done = Done::default();
    let again = leader.play(&[kept, follows]);
    assert_eq!(again.reason.to_string(), "no action. I am (a), the standby leader with the lock");
    let compared = |decision: &Decision| {
        decision.steps.iter().find_map(|step| match step {
            Step::CompareFollow(upstream) => Some(upstream.clone()),
            _ => None,
        })
    };
    let mut asks = scene("a", cluster().build()).running(false).with(standby_of(remote()));
    asks.seen.done.renewal = Some(LockOutcome::Kept);
    assert_eq!(remote_of(compared(&asks.decide()).flatten().as_ref()).map(|(host, _)| host), Some("far"));

    let mut replica = scene("b", cluster().build()).running(false).with(standby_of(remote()));
    let upstream = compared(&replica.decide()).flatten().unwrap();
    assert_eq!((upstream.member, upstream.slot), (Some("a".into()), UpstreamSlot::Own));
    let decision = replica.play(&[follows]);
    assert_eq!(decision.reason.to_string(), "no action. I am (b), a secondary, and following a standby leader (a)");
}

#[test]
fn the_race_of_a_standby_cluster_ends_without_a_promotion() {
    let mut scene = scene("b", cluster().unlocked().build()).running(false).with(standby_of(remote()));
    let decision = scene.play(&[level_peers, acquired, follows]);
    assert_eq!(decision.reason.to_string(), "promoted self to a standby leader by acquiring session lock");
    assert_eq!((decision.memory.role, task_of(&decision)), (Some(Role::StandbyLeader), None));
}

#[test]
fn without_the_section_the_standby_leader_promotes() {
    let mut scene =
        scene("a", cluster().build()).running(false).remembering(|memory| memory.role = Some(Role::StandbyLeader));
    let decision = scene.play(&[kept]);
    assert!(matches!(task_of(&decision), Some(Task::Promote { .. })), "{decision:?}");
}

#[test]
fn the_first_member_is_a_clone_of_the_remote() {
    let empty = ClusterView::default();
    let won: fn(&mut Done) = |done| done.initialize = Some(true);
    let mut scene = scene("a", empty).with(standby_of(remote()));
    let decision = scene.play(&[won]);
    assert_eq!(decision.reason.to_string(), "trying to bootstrap a new standby leader");
    let Some(task @ Task::Clone { source, .. }) = task_of(&decision) else { panic!("{decision:?}") };
    assert_eq!(remote_of(source.as_ref()).map(|(host, _)| host), Some("far"));

    let ended = |outcome| Some(EndedTask { task: task.clone(), outcome, progress: None });
    let mut failed = super::scene("a", ClusterView::default()).stopped("in production").with(standby_of(remote()));
    failed.memory = decision.memory.clone();
    failed.seen.ended = ended(TaskOutcome::Failed("no".into()));
    assert!(failed.decide().steps.contains(&Step::CancelInitialize), "half a cluster is not left behind");

    let mut cloned = super::scene("a", ClusterView::default()).stopped("in production").with(standby_of(remote()));
    cloned.memory = decision.memory.clone();
    cloned.seen.ended = ended(TaskOutcome::Done);
    let starts = cloned.decide();
    assert!(matches!(task_of(&starts), Some(Task::Start { role: Role::StandbyLeader, .. })), "{starts:?}");
    let mut up = super::scene("a", ClusterView::default()).running(false).with(standby_of(remote()));
    up.memory = starts.memory.clone();
    let done = up.decide();
    assert!(done.steps.contains(&Step::SetInitialize(SYSTEM_ID.into())) && done.steps.contains(&Step::TakeLeader));
    assert_eq!((done.memory.role, done.memory.bootstrap), (Some(Role::StandbyLeader), None));
}

#[test]
fn an_archive_is_not_asked_for_its_history() {
    let archive = json!({"restore_command": "cp /a/%f %p"});
    let mut scene = scene("a", cluster().build())
        .running(false)
        .with(standby_of(archive))
        .remembering(|memory| memory.rewind = RewindState::Check);
    scene.seen.instance.monitor.as_mut().unwrap().has_next_history = true;
    let decision = scene.play(&[kept, follows]);
    assert!(!decision.again);
}

#[test]
fn a_promotion_over_there_has_the_histories_compared() {
    let mut scene = scene("a", cluster().build()).running(false).with(standby_of(remote()));
    scene.memory.role = Some(Role::StandbyLeader);
    scene.seen.instance.monitor.as_mut().unwrap().has_next_history = true;
    scene.seen.done.renewal = Some(LockOutcome::Kept);
    let decision = scene.decide();
    assert!(decision.steps.iter().any(|step| matches!(step, Step::CheckDivergence(_))), "{decision:?}");
    let same: fn(&mut Done) = |done| done.divergence = Some(Divergence::Consistent);
    let mut consistent = Scene { seen: scene.seen.clone(), memory: scene.memory.clone() };
    assert_eq!(task_of(&consistent.play(&[same, follows])), None);
    let diverged: fn(&mut Done) = |done| done.divergence = Some(Divergence::Diverged);
    assert!(matches!(task_of(&scene.play(&[diverged])), Some(Task::Rewind { .. })));
}

/// What was acknowledged before is not in the other cluster, and nobody of then need be left when this one is promoted.
#[test]
fn the_standby_leader_forgets_whom_sync_names() {
    use crate::cluster::{SyncState, Version};
    let sync = SyncState { version: Some(Version(7)), leader: Some("c".into()), ..SyncState::default() };
    let view = cluster().with(|view| view.sync = sync).build();
    let mut leader = scene("a", view).running(false).with(standby_of(remote()));
    leader.memory.rewind = RewindState::NotNeed;
    let first = leader.play(&[kept, follows]);
    assert!(!first.steps.contains(&Step::DeleteSync(Some(Version(7)))), "it does not follow yet");
    leader.memory = first.memory;
    leader.seen.done = Done::default();
    assert!(leader.play(&[kept, follows]).steps.contains(&Step::DeleteSync(Some(Version(7)))));
    // The cluster is promoted before it came to that.
    leader.seen.settings.standby_cluster = None;
    leader.seen.settings.synchronous_mode = crate::config::SynchronousMode::Quorum;
    leader.memory.role = Some(Role::StandbyLeader);
    leader.seen.done = Done::default();
    assert!(matches!(task_of(&leader.play(&[kept])), Some(Task::Promote { .. })));
}

/// The leader has gone back to the timeline of the remote primary, and its replicas have nothing else to tell them so.
#[test]
fn replicas_that_are_further_than_their_leader_compare_histories() {
    for (theirs, checks) in [(1, true), (2, false)] {
        let view = cluster().member_field("a", "timeline", json!(theirs)).build();
        let mut scene = scene("b", view).running(false).with(standby_of(remote()));
        scene.seen.instance.monitor.as_mut().unwrap().timeline = Some(Timeline(2));
        let decision = scene.play(&[follows]);
        assert_eq!(decision.memory.rewind == RewindState::Check, checks, "{theirs}");
        assert!(!checks || decision.wake_after_ms.is_some());
    }
}

/// The agent was started anew, and what the one before it had to compare is forgotten.
#[test]
fn a_standby_leader_that_gets_nothing_compares_histories_once() {
    for (known, checks) in [(RewindState::Initial, true), (RewindState::NotNeed, false)] {
        let mut leader = scene("a", cluster().build()).running(false).with(standby_of(remote()));
        leader.memory.rewind = known;
        let decision = leader.play(&[kept, follows]);
        assert_eq!(decision.memory.rewind == RewindState::Check, checks, "{known:?}");
        assert!(!checks || decision.wake_after_ms.is_some_and(|ms| ms <= 1_000));
    }
}
