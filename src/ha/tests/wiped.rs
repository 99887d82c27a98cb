//! All keys are gone while members run: the primary restores them, nobody else promotes itself.

use super::*;
use crate::cluster::Recovery;

/// The members are there again, nothing else is.
fn wiped() -> ClusterBuilder {
    cluster().unlocked().with(forget)
}

fn forget(view: &mut ClusterView) {
    view.initialize = None;
    view.config = None;
    view.sync = SyncState::default();
    view.history = None;
    view.status = crate::cluster::Status::default();
}

fn synchronous(seen: &mut Observation) {
    seen.settings.synchronous_mode = crate::config::SynchronousMode::Priority;
}

fn has(decision: &Decision, wanted: impl Fn(&Step) -> bool) -> bool {
    decision.steps.iter().any(wanted)
}

fn introduces(decision: &Decision) -> bool {
    has(decision, |step| matches!(step, Step::SetInitialize(_) | Step::RaceInitialize(_)))
}

fn races(decision: &Decision) -> bool {
    has(decision, |step| matches!(step, Step::AcquireLeader))
}

fn answers(positions: &[(&str, u64, u32)]) -> Option<BTreeMap<MemberName, PeerAnswer>> {
    let answer = |(name, at, on): &(&str, u64, u32)| {
        let mut answer = answer(*at);
        if let PeerAnswer::Answered { timeline, .. } = &mut answer {
            *timeline = Some(Timeline(*on));
        }
        (MemberName::from(*name), answer)
    };
    Some(positions.iter().map(answer).collect())
}

#[test]
fn the_primary_takes_the_key_first_and_makes_the_cluster_known_last() {
    let mut first = scene("a", wiped().build()).running(true).with(synchronous);
    let asks = first.decide();
    assert!(races(&asks) && !introduces(&asks), "{:?}", asks.steps);
    let noted: fn(&mut Done) = acquired;
    let mut decision = first.decide();
    first.memory = decision.memory.clone();
    noted(&mut first.seen.done);
    decision = first.decide();
    // `/sync` is written before anything says that there is a cluster.
    assert!(has(&decision, |step| matches!(step, Step::WriteSync { .. })) && !introduces(&decision));

    // The leader key and `/sync` are back; the configuration and `initialize` come in this order.
    let led = || cluster().with(forget);
    let mut second = scene("a", led().build()).running(true).with(synchronous);
    let decision = second.play(&[kept, |done| done.sync_conflict = true]);
    assert!(!introduces(&decision), "an empty /sync: {:?}", decision.steps);
    let noted = led().with(|view| view.sync.leader = Some("a".into()));
    let decision = scene("a", noted.build()).running(true).with(synchronous).play(&[kept]);
    let place = |wanted: fn(&Step) -> bool| decision.steps.iter().position(wanted);
    let config = place(|step| matches!(step, Step::WriteConfig(_))).unwrap();
    assert!(config < place(|step| matches!(step, Step::SetInitialize(_))).unwrap(), "{:?}", decision.steps);
    // Without synchronous replication there is nothing to be said in `/sync`.
    assert!(introduces(&scene("a", led().build()).running(true).play(&[kept])));
}

#[test]
fn commits_wait_for_the_same_standby_although_its_member_key_is_gone() {
    let sender = crate::cluster::WalSender {
        application_name: "b".into(),
        sync_state: "sync".into(),
        flush_lsn: Some(Lsn(1000)),
        ..Default::default()
    };
    let leads = |view: ClusterView| {
        let mut scene = scene("a", view).running(true).with(synchronous);
        let monitor = scene.seen.instance.monitor.as_mut().unwrap();
        (monitor.synchronous_standby_names, monitor.senders) = ("b".into(), vec![sender.clone()]);
        scene.memory.sync_names_seen = Some("b".into());
        scene.memory.is_sync_settled = true;
        scene.memory.sync_ready = ["b".to_owned()].into();
        scene
    };
    let view = || cluster().with(forget).with(|view| view.sync.leader = Some("a".into()));
    let names = |decision: &Decision| has(decision, |step| matches!(step, Step::SetSyncNames(_)));
    let mut gone = leads(view().with(|view| view.members.retain(|member| member.name != "b")).build());
    let decision = gone.play(&[kept]);
    assert!(!names(&decision) && introduces(&decision) && decision.wake_after_ms.is_some(), "{:?}", decision.steps);
    gone.memory = decision.memory;
    gone.seen.now_ms += 5_000;
    assert!(names(&gone.decide()), "it does not come back");
    // The member is there again: it may be elected at once.
    let mut back = leads(view().build());
    let decision = back.play_until(kept);
    let listed = |step: &Step| matches!(step, Step::WriteSync { state, .. } if state.voters == ["b"]);
    assert!(has(&decision, listed) && !names(&decision), "{:?}", decision.steps);
}

#[test]
fn a_replica_stays_and_says_how_to_go_on() {
    for is_new in [false, true] {
        let mut scene = scene("b", wiped().build()).running(false);
        if is_new {
            // The agent has just been started beside it.
            scene.memory = Memory::default();
            scene.seen.instance.is_recovery_configured = true;
        }
        let decision = scene.with(|seen| seen.node.scope = "main".into()).decide();
        assert_eq!(decision.rule, 330);
        let line = decision.reason.to_string();
        assert!(line.contains("pgherdctl failover main --candidate MEMBER"), "{line}");
        assert_eq!(decision.reason.advice().as_deref(), Some(line.as_str()));
        assert!(!races(&decision) && !introduces(&decision) && task_of(&decision).is_none(), "{:?}", decision.steps);
        assert!(!has(&decision, |step| matches!(step, Step::Exit { .. })));
        assert!(matches!(decision.steps.last(), Some(Step::Publish(_))), "the others must find it");
    }
}

#[test]
fn a_replica_leads_when_an_operator_sends_it() {
    let sent = |leader: Option<&str>, candidate: Option<&str>| wiped().failover(leader, candidate).build();
    let mut scene_b = scene("b", sent(None, Some("b"))).running(false);
    let decision = scene_b.play(&[acquired]);
    assert_eq!(
        decision.reason.to_string(),
        "promoted self to leader of a cluster that the DCS does not know, because a manual failover asked for it"
    );
    assert!(matches!(task_of(&decision), Some(Task::Promote { .. })) && !introduces(&decision));
    // Nobody else feels meant, not even when the candidate does not answer.
    for (leader, candidate) in [(None, Some("c")), (None, Some("gone")), (Some("a"), None), (Some("a"), Some("b"))] {
        let decision = scene("b", sent(leader, candidate)).running(false).decide();
        assert!(!races(&decision) && decision.rule == 330, "{leader:?} {candidate:?}: {}", decision.reason);
    }
    // In synchronous mode nobody is in /sync; whoever is sent writes itself there before it promotes.
    let mut guarded = scene("b", sent(None, Some("b"))).running(false).with(synchronous).with(|seen| {
        seen.done.acquire = Some(LockOutcome::Kept);
    });
    let decision = guarded.decide();
    assert!(has(&decision, |step| matches!(step, Step::WriteSync { .. })) && task_of(&decision).is_none());
    guarded.memory = decision.memory;
}

#[test]
fn stopped_data_of_a_standby_are_started_and_introduce_nothing() {
    let standby = |seen: &mut Observation| seen.instance.is_recovery_configured = true;
    let decision = scene("b", wiped().build()).stopped("shut down in recovery").with(standby).decide();
    assert!(!introduces(&decision) && !decision.memory.brings_cluster);
    // So that it can be sent.
    assert!(matches!(task_of(&decision), Some(Task::Start { recovery: Recovery::Standby(None), .. })));
    let started = scene("b", wiped().build()).running(false).remembering(|memory| *memory = decision.memory).decide();
    assert!(!races(&started) && started.rule == 330);
}

#[test]
fn stopped_data_of_a_primary_introduce_the_cluster_unless_others_are_ahead() {
    let found = scene("a", wiped().build()).stopped("shut down").decide();
    assert!(found.memory.brings_cluster && !introduces(&found));
    assert!(matches!(task_of(&found), Some(Task::Start { recovery: Recovery::Standby(None), .. })));
    let back = |memory: &Memory| {
        let mut memory = memory.clone();
        memory.role = Some(Role::Replica);
        memory.is_recovering = false;
        let mut scene = scene("a", wiped().build()).running(false);
        scene.memory = memory;
        scene
    };
    let mut alone = back(&found.memory);
    alone.seen.done.peers = answers(&[]);
    assert!(races(&alone.decide()), "the others do not answer");
    let mut level = back(&found.memory);
    level.seen.done.peers = answers(&[("b", 1000, 1), ("c", 900, 1)]);
    assert!(races(&level.decide()));
    for (position, timeline) in [(2000, 1), (900, 2)] {
        let mut behind = back(&found.memory);
        behind.seen.done.peers = answers(&[("b", position, timeline)]);
        let decision = behind.decide();
        assert!(!races(&decision) && decision.reason.advice().is_some(), "{}", decision.reason);
    }
    // Somebody else has led meanwhile: that is over.
    let led = scene("a", cluster().leader("b").build()).running(false).remembering(|memory| *memory = found.memory);
    assert!(!led.decide().memory.brings_cluster);
}

#[test]
fn until_the_leader_has_said_which_cluster_this_is_the_others_hold_still() {
    let view = || cluster().leader("b").with(forget).build();
    for stopped in [false, true] {
        let scene = scene("a", view());
        let scene = if stopped { scene.stopped("shut down") } else { scene.running(false) };
        let decision = scene.decide();
        assert_eq!(decision.reason.to_string(), "waiting for the leader to make the cluster known to the DCS");
        assert_eq!(task_of(&decision), None);
    }
    // All the same there must not be two primaries.
    assert!(matches!(task_of(&scene("a", view()).running(true).decide()), Some(Task::Stop { .. })));
}

#[test]
fn no_second_cluster_is_created_beside_the_one_that_was_forgotten() {
    let view = |b: &str, state: &str| {
        wiped().member_field("b", "role", json!(b)).member_field("b", "state", json!(state)).build()
    };
    let decision = scene("d", view("replica", "running")).decide();
    assert_eq!(decision.reason.to_string(), "waiting for leader to bootstrap");
    let empty = ["a", "b", "c"].iter().fold(wiped(), |view, name| {
        view.member_field(name, "role", json!("uninitialized")).member_field(name, "state", json!("stopped"))
    });
    assert!(introduces(&scene("d", empty.build()).decide()), "a new cluster");

    // It had begun already when the primary restored the keys.
    let decision = scene("d", cluster().build())
        .running(true)
        .remembering(|memory| memory.bootstrap = Some(BootstrapStage::Creating))
        .decide();
    assert!(has(&decision, |step| matches!(step, Step::AbandonBootstrap)), "{:?}", decision.steps);
    assert!(
        !has(&decision, |step| matches!(step, Step::CancelInitialize | Step::TakeLeader)) && !introduces(&decision)
    );
    assert!(decision.reason.to_string().contains("a leads it already"), "{}", decision.reason);
}

#[test]
fn in_maintenance_mode_the_same_member_restores_the_keys() {
    let paused = |seen: &mut Observation| seen.settings.pause = true;
    assert!(races(&scene("a", wiped().build()).running(true).with(paused).decide()));
    let decision = scene("b", wiped().build()).running(false).with(paused).play(&[]);
    assert!(!races(&decision) && task_of(&decision).is_none(), "{}", decision.reason);
    let down = scene("a", wiped().build()).stopped("in production").with(paused).decide();
    assert!(!introduces(&down) && task_of(&down).is_none(), "{}", down.reason);
}
