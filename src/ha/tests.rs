//! The rules, case by case: a scene states what is special about it, `decide` answers.

use std::collections::BTreeMap;

use serde_json::{Map, json};

use super::*;
use crate::cluster::builder::ClusterBuilder;
use crate::cluster::{
    ClusterView, ControlData, DataDir, FollowChange, InstanceState, Lsn, MemberName, Monitor, PeerAnswer, Recovery,
    RestartRequest, Role, State, StopMode, StopProgress, SyncState, SystemId, Tags, Timeline,
};
use crate::config::Dynamic;

mod failsafe;
mod following;
mod pause;
mod race;
mod slots;
mod standby;
mod starting;
mod unfinished;
mod waits;
mod wiped;

const SYSTEM_ID: &str = "7710267184385916675";

pub(super) struct Scene {
    pub(super) seen: Observation,
    pub(super) memory: Memory,
}

pub(super) fn scene(me: &str, view: ClusterView) -> Scene {
    let (settings, _) = Dynamic::from_document(&Map::new());
    let node = Node {
        name: me.into(),
        conn_url: format!("postgres://{me}:5432/postgres"),
        api_url: format!("http://{me}:8008/patroni"),
        may_bootstrap: true,
        ..Node::default()
    };
    let seen = Observation {
        now_ms: 100_000,
        wall_ms: 1_800_000_000_000,
        node,
        view: Snapshot::Read(Box::new(view)),
        settings,
        instance: InstanceState::default(),
        leads_until_ms: None,
        task: None,
        ended: None,
        requests: Vec::new(),
        failsafe: std::collections::BTreeMap::new(),
        failsafe_ping: None,
        watchdog: Watchdog::default(),
        is_leaving: false,
        done: Done::default(),
    };
    Scene { seen, memory: Memory { is_attached: true, ..Memory::default() } }
}

impl Scene {
    fn with(mut self, change: impl FnOnce(&mut Observation)) -> Self {
        change(&mut self.seen);
        self
    }

    fn remembering(mut self, change: impl FnOnce(&mut Memory)) -> Self {
        change(&mut self.memory);
        self
    }

    pub(super) fn running(mut self, primary: bool) -> Self {
        self.seen.instance = InstanceState {
            data_dir: DataDir::Present,
            state: Some(State::Running),
            is_postmaster_alive: true,
            accepts_connections: true,
            postmaster_start_time: Some("2026-01-01 00:00:00+00:00".into()),
            monitor: Some(Monitor {
                in_recovery: !primary,
                timeline: Some(Timeline(1)),
                control_timeline: Some(Timeline(1)),
                flush_lsn: Lsn(if primary { 1000 } else { 0 }),
                replay_lsn: Lsn(1000),
                receive_lsn: Lsn(1000),
                ..Monitor::default()
            }),
            system_id: SystemId::parse(SYSTEM_ID),
            server_version: Some(150_018),
            can_rewind: true,
            ..InstanceState::default()
        };
        self.memory.role = Some(if primary { Role::Primary } else { Role::Replica });
        self
    }

    fn stopped(mut self, cluster_state: &str) -> Self {
        self.seen.instance = InstanceState {
            data_dir: DataDir::Present,
            state: Some(State::Crashed),
            control: Some(ControlData { cluster_state: cluster_state.into(), ..ControlData::default() }),
            system_id: SystemId::parse(SYSTEM_ID),
            can_rewind: true,
            ..InstanceState::default()
        };
        self
    }

    pub(super) fn decide(&self) -> Decision {
        let decision = decide(&self.seen, &self.memory);
        assert_eq!(check(&self.seen, &decision), Vec::new());
        // Whatever happens in the field must replay from one line of JSON.
        let line = serde_json::to_string(&(&self.seen, &self.memory, &decision)).unwrap();
        let (seen, memory, again): (Observation, Memory, Decision) = serde_json::from_str(&line).unwrap();
        assert_eq!((&seen, &memory, &again), (&self.seen, &self.memory, &decision));
        decision
    }

    /// Decides once more, with one outcome; the cycle need not end.
    fn play_until(&mut self, outcome: fn(&mut Done)) -> Decision {
        self.memory = self.decide().memory;
        outcome(&mut self.seen.done);
        self.decide()
    }

    /// Decides, feeding outcomes until the cycle ends.
    fn play(&mut self, outcomes: &[fn(&mut Done)]) -> Decision {
        let mut decision = self.decide();
        for outcome in outcomes {
            assert!(decision.again, "wanted to ask again, but: {}", decision.reason);
            self.memory = decision.memory.clone();
            self.seen.ended = None;
            // Questions take their time.
            self.seen.now_ms += 7;
            outcome(&mut self.seen.done);
            decision = self.decide();
        }
        assert!(!decision.again, "still asking: {}", decision.reason);
        decision
    }
}

fn kept(done: &mut Done) {
    done.renewal = Some(LockOutcome::Kept);
}

fn acquired(done: &mut Done) {
    done.acquire = Some(LockOutcome::Kept);
}

fn follows(done: &mut Done) {
    done.follow = Some(FollowChange::None);
}

fn answer(position: u64) -> PeerAnswer {
    PeerAnswer::Answered {
        in_recovery: true,
        position: Lsn(position),
        timeline: Some(Timeline(1)),
        tags: Tags::new(),
        watchdog_failed: false,
    }
}

fn level_peers(done: &mut Done) {
    let names = ["a", "b", "c"].map(MemberName::from);
    done.peers = Some(names.into_iter().map(|name| (name, answer(1000))).collect());
}

fn dead_leader(done: &mut Done) {
    let gone = PeerAnswer::Unreachable("connection refused".into());
    done.peers = Some(BTreeMap::from([("a".into(), gone), ("b".into(), answer(1000)), ("c".into(), answer(1000))]));
}

fn task_of(decision: &Decision) -> Option<&Task> {
    decision.steps.iter().find_map(|step| match step {
        Step::Begin(task) => Some(task),
        _ => None,
    })
}

fn cluster() -> ClusterBuilder {
    ClusterBuilder::new(&["a", "b", "c"])
}

#[test]
fn the_leader_renews_then_publishes() {
    let mut scene = scene("a", cluster().build()).running(true);
    let decision = scene.play(&[kept]);
    assert_eq!(
        (decision.rule, decision.reason.to_string().as_str()),
        (600, "no action. I am (a), the leader with the lock")
    );
    assert!(matches!(decision.steps.last(), Some(Step::Publish(_))));
    assert!(decision.steps.iter().any(|step| matches!(step, Step::WriteStatus(_))));
}

#[test]
fn a_replica_follows() {
    let mut scene = scene("b", cluster().build()).running(false);
    let decision = scene.play(&[follows]);
    assert_eq!(decision.reason.to_string(), "no action. I am (b), a secondary, and following a leader (a)");
}

#[test]
fn a_lost_compare_and_set_stops_the_primary_at_once() {
    let mut scene = scene("a", cluster().build()).running(true);
    let decision = scene.play(&[|done| done.renewal = Some(LockOutcome::Lost)]);
    assert_eq!(decision.reason.to_string(), "demoted self because failed to update leader lock in DCS");
    assert!(matches!(task_of(&decision), Some(Task::Stop { mode: StopMode::Immediate, .. })));
    assert!(!decision.steps.iter().any(|step| matches!(step, Step::ReleaseLeader(_))));
}

#[test]
fn a_primary_without_the_lock_stops_at_once() {
    let decision = scene("b", cluster().build()).running(true).decide();
    assert_eq!(decision.reason.to_string(), "demoting self because I do not have the lock and I was a leader");
    assert!(matches!(task_of(&decision), Some(Task::Stop { mode: StopMode::Immediate, .. })));
}

#[test]
fn an_unreachable_dcs_demotes_the_primary_and_leaves_the_key() {
    let lost = |seen: &mut Observation| seen.view = Snapshot::Unreachable("refused".into());
    let decision = scene("a", cluster().build()).running(true).with(lost).decide();
    assert_eq!(decision.reason.to_string(), "demoted self because DCS is not accessible and I was a leader");
    assert!(matches!(task_of(&decision), Some(Task::Stop { mode: StopMode::Fast, checkpoint: false, .. })));
    assert!(!decision.steps.iter().any(|step| matches!(step, Step::Publish(_) | Step::ReleaseLeader(_))));

    let decision = scene("b", cluster().build()).running(false).with(lost).decide();
    assert_eq!(decision.reason.to_string(), "DCS is not accessible");
    assert_eq!(decision.steps, Vec::new());

    let paused = |seen: &mut Observation| {
        lost(seen);
        seen.settings.pause = true;
    };
    let decision = scene("a", cluster().build()).running(true).with(paused).decide();
    assert_eq!(task_of(&decision), None);
}

#[test]
fn a_renewal_without_an_answer_is_a_lost_dcs_not_a_lost_lock() {
    let mut scene = scene("a", cluster().build()).running(true);
    let decision = scene.play(&[|done| done.renewal = Some(LockOutcome::Unreachable("timeout".into()))]);
    assert_eq!(decision.rule, 100);
    assert!(matches!(task_of(&decision), Some(Task::Stop { mode: StopMode::Fast, .. })));
}

#[test]
fn the_race_asks_then_takes_the_key_then_promotes() {
    let mut scene = scene("b", cluster().unlocked().build()).running(false);
    let decision = scene.play(&[dead_leader, acquired]);
    assert_eq!(decision.reason.to_string(), "promoted self to leader by acquiring session lock");
    assert!(matches!(task_of(&decision), Some(Task::Promote { .. })));
}

#[test]
fn the_watchdog_is_armed_before_a_promotion_and_has_a_say() {
    let idle = |seen: &mut Observation| seen.watchdog = Watchdog::Idle;
    let armed = |done: &mut Done| done.watchdog = Some(true);
    let refused = |done: &mut Done| done.watchdog = Some(false);
    let mut wins = scene("b", cluster().unlocked().build()).running(false).with(idle);
    dead_leader(&mut wins.seen.done);
    acquired(&mut wins.seen.done);
    let asked = wins.decide();
    assert!(asked.again && asked.steps.contains(&Step::ActivateWatchdog));
    assert!(matches!(task_of(&wins.play(&[armed])), Some(Task::Promote { .. })));

    let mut loses = scene("b", cluster().unlocked().build()).running(false).with(idle);
    let decision = loses.play(&[dead_leader, acquired, refused]);
    assert_eq!(decision.reason.to_string(), "Not promoting self because watchdog could not be activated");
    assert!(decision.steps.iter().any(|step| matches!(step, Step::ReleaseLeader(_))));
    assert_eq!(task_of(&decision), None);

    let mut leads = scene("a", cluster().build()).running(true).with(idle);
    let decision = leads.play(&[kept, refused]);
    assert_eq!(decision.reason.to_string(), "Demoting self because watchdog could not be activated");
    assert!(matches!(task_of(&decision), Some(Task::Stop { mode: StopMode::Immediate, .. })));

    let mut paused = scene("a", cluster().build()).running(true).with(idle).with(|seen| seen.settings.pause = true);
    assert!(!paused.play(&[kept]).steps.contains(&Step::ActivateWatchdog), "never in maintenance mode");

    let unusable = |seen: &mut Observation| seen.watchdog = Watchdog::Unusable;
    let decision = scene("b", cluster().unlocked().build()).running(false).with(unusable).play(&[follows]);
    assert!(decision.notes.iter().any(|note| note.text == "Watchdog device is not usable"));
    assert!(!decision.steps.contains(&Step::AcquireLeader));
}

#[test]
fn a_member_that_is_behind_or_not_allowed_stands_back() {
    let ahead = |done: &mut Done| done.peers = Some(BTreeMap::from([("c".into(), answer(2000))]));
    let mut behind = scene("b", cluster().unlocked().build()).running(false);
    let decision = behind.play(&[ahead, follows]);
    assert_eq!(decision.reason.to_string(), "following a different leader because i am not the healthiest node");

    let mut barred = scene("b", cluster().unlocked().build())
        .running(false)
        .with(|seen| seen.node.tags = [("nofailover".to_owned(), json!(true))].into_iter().collect());
    let decision = barred.play(&[follows]);
    assert_eq!(decision.reason.to_string(), "following a different leader because I am not allowed to promote");

    let lagging = cluster().unlocked().with(|view| view.status.optime = Some(Lsn(9_000_000))).build();
    let decision = scene("b", lagging).running(false).play(&[follows]);
    assert!(decision.notes.iter().any(|note| note.text == "My wal position exceeds maximum replication lag"));
}

#[test]
fn a_timeline_that_was_begun_elsewhere_is_left_out() {
    let history = json!([[1, 900, "no recovery target specified"], [2, 950, "no recovery target specified"]]);
    let view = cluster().unlocked().with(|view| view.history = Some(crate::cluster::History { raw: history })).build();
    let decision = scene("b", view).running(false).play(&[dead_leader, acquired]);
    let Some(Task::Promote { taken, .. }) = task_of(&decision) else { panic!("no promotion: {}", decision.reason) };
    assert_eq!(taken, &[Timeline(2), Timeline(3)]);
}

#[test]
fn a_living_primary_stops_the_race() {
    let alive = |done: &mut Done| {
        let primary = PeerAnswer::Answered {
            in_recovery: false,
            position: Lsn::ZERO,
            timeline: Some(Timeline(1)),
            tags: Tags::new(),
            watchdog_failed: false,
        };
        done.peers = Some(BTreeMap::from([("a".into(), primary)]));
    };
    let mut scene = scene("b", cluster().unlocked().build()).running(false);
    let decision = scene.play(&[alive, follows]);
    assert!(decision.notes.iter().any(|note| note.text == "Primary (a) is still alive"));
}

#[test]
fn the_higher_priority_wins_a_tie() {
    let preferred = |done: &mut Done| {
        let tags: Tags = [("failover_priority".to_owned(), json!(2))].into_iter().collect();
        let mut peer = answer(1000);
        if let PeerAnswer::Answered { tags: theirs, .. } = &mut peer {
            *theirs = tags;
        }
        done.peers = Some(BTreeMap::from([("c".into(), peer)]));
    };
    let mut scene = scene("b", cluster().unlocked().build()).running(false);
    let decision = scene.play(&[preferred, follows]);
    let line = "c has equally tolerable WAL position and priority 2, while this node has priority 1";
    assert!(decision.notes.iter().any(|note| note.text == line));
}

#[test]
fn synchronous_mode_keeps_outsiders_from_racing() {
    let view = cluster()
        .unlocked()
        .with(|view| {
            view.sync.leader = Some("a".into());
            view.sync.voters = vec!["c".into()];
        })
        .build();
    let sync = |seen: &mut Observation| seen.settings.synchronous_mode = crate::config::SynchronousMode::Priority;
    let decision = scene("b", view.clone()).running(false).with(sync).play(&[follows]);
    assert_eq!(decision.reason.to_string(), "following a different leader because i am not the healthiest node");
    // A standby of /sync may; it makes itself the document's leader before it promotes.
    let mut standby = scene("c", view).running(false).with(sync);
    dead_leader(&mut standby.seen.done);
    acquired(&mut standby.seen.done);
    let decision = standby.decide();
    let written = decision.steps.iter().find_map(|step| match step {
        Step::WriteSync { state, .. } => Some(state.clone()),
        _ => None,
    });
    assert_eq!(written.map(|state| (state.leader, state.voters)), Some((Some("c".into()), Vec::new())));
    assert!(decision.again && task_of(&decision).is_none());
}

#[test]
fn a_switchover_demotes_only_when_somebody_can_take_over() {
    let view = cluster().failover(Some("a"), Some("b")).build();
    let mut good = scene("a", view.clone()).running(true);
    let decision = good.play(&[kept, level_peers]);
    assert_eq!(decision.reason.to_string(), "switchover: demoting myself");
    assert!(matches!(task_of(&decision), Some(Task::Stop { checkpoint: true, mode: StopMode::Fast, .. })));
    assert!(!decision.steps.iter().any(|step| matches!(step, Step::BlankFailover(_))), "the winner clears the key");

    let nobody = |done: &mut Done| done.peers = Some(BTreeMap::new());
    let decision = scene("a", view).running(true).play(&[kept, nobody]);
    assert!(decision.steps.iter().any(|step| matches!(step, Step::BlankFailover(Some(_)))));
    assert_eq!(task_of(&decision), None);
}

#[test]
fn nobody_waits_for_a_candidate_that_synchronous_mode_bars() {
    use crate::config::SynchronousMode;
    let view = cluster().unlocked().failover(Some("a"), Some("c")).with(|view| {
        view.sync.leader = Some("a".into());
        view.sync.voters = vec!["b".into()];
    });
    let view = view.build();
    for mode in [SynchronousMode::Priority, SynchronousMode::Quorum] {
        let mut voter = scene("b", view.clone()).running(false).with(|seen| seen.settings.synchronous_mode = mode);
        dead_leader(&mut voter.seen.done);
        let decision = voter.decide();
        assert!(decision.steps.contains(&Step::AcquireLeader), "{mode:?}: {}", decision.reason);
    }
}

#[test]
fn a_switchover_in_quorum_mode_keeps_to_the_votes() {
    let view = cluster().unlocked().failover(Some("a"), Some("b")).with(|view| {
        view.sync =
            SyncState { leader: Some("a".into()), quorum: 1, voters: vec!["b".into(), "c".into()], version: None };
    });
    let view = view.build();
    let quorum = |seen: &mut Observation| seen.settings.synchronous_mode = crate::config::SynchronousMode::Quorum;
    let answers = |c: PeerAnswer| {
        let gone = || PeerAnswer::Unreachable("connection refused".into());
        Some(BTreeMap::from([("a".into(), gone()), ("b".into(), answer(1000)), ("c".into(), c)]))
    };
    let mut candidate = scene("b", view.clone()).running(false).with(quorum);
    candidate.seen.done.peers = answers(answer(1000));
    assert!(candidate.decide().steps.contains(&Step::AcquireLeader), "with the vote of c");
    for c in [PeerAnswer::Unreachable("timed out".into()), answer(2000)] {
        candidate.seen.done.peers = answers(c);
        let decision = candidate.decide();
        assert!(
            !decision.steps.contains(&Step::AcquireLeader),
            "c may have what was acknowledged: {}",
            decision.reason
        );
    }
    // The one that is ahead does not wait for the candidate, which must not lead.
    let mut ahead = scene("c", view).running(false).with(quorum);
    ahead.seen.done.peers = answers(answer(1000));
    ahead.seen.done.peers.as_mut().unwrap().insert("b".into(), answer(500));
    assert!(ahead.decide().steps.contains(&Step::AcquireLeader));
}

#[test]
fn a_former_primary_that_is_being_rewound_is_left_to_it() {
    let during = |task: Task| {
        let running = RunningTask { task, since_ms: 99_000, progress: None };
        scene("b", cluster().build())
            .with(|seen| seen.task = Some(running))
            .remembering(|memory| memory.role = Some(Role::Primary))
            .decide()
    };
    for task in [Task::Rewind { leader: crate::cluster::Upstream::default() }, Task::CrashRecovery] {
        let decision = during(task);
        assert!(!decision.steps.contains(&Step::CancelTask), "{:?}", decision.steps);
        assert_eq!(decision.memory.demotion, None);
    }
    let start = Task::Start {
        action: "starting after an error".into(),
        recovery: Recovery::None,
        role: Role::Primary,
        timeout_ms: None,
    };
    assert!(during(start).steps.contains(&Step::CancelTask), "it would come up as a second primary");
}

#[test]
fn the_key_is_released_when_a_candidate_has_the_shutdown_checkpoint() {
    let task =
        Task::Stop { action: "switchover: demote".into(), mode: StopMode::Fast, checkpoint: true, timeout_ms: None };
    let stopping = |checkpoint| {
        let progress = Some(StopProgress::ShutDown { checkpoint: Lsn(checkpoint), previous: Lsn(990) });
        let running = RunningTask { task: task.clone(), since_ms: 99_000, progress };
        scene("a", cluster().failover(Some("a"), Some("b")).build())
            .running(true)
            .with(|seen| seen.task = Some(running))
            .remembering(|memory| {
                memory.demotion = Some(Demotion {
                    mode: DemoteMode::Graceful,
                    action: "switchover: demote".into(),
                    stage: DemotionStage::Stopping,
                    is_released: false,
                    shutdown_lsn: None,
                    began_ms: 0,
                });
            })
    };
    let decision = stopping(1000).play(&[kept, level_peers]);
    let released = decision.steps.iter().find_map(|step| match step {
        Step::ReleaseLeader(status) => Some(status.clone()),
        _ => None,
    });
    assert_eq!(released.unwrap().unwrap().optime, Some(Lsn(990)));
    assert_eq!(decision.memory.role, Some(Role::Demoted));

    let decision = stopping(5000).play(&[kept, level_peers]);
    assert!(!decision.steps.iter().any(|step| matches!(step, Step::ReleaseLeader(_))));
    assert_eq!(decision.wake_after_ms, Some(100), "asked again soon");
}

#[test]
fn a_crashed_leader_is_started_in_place() {
    let mut scene =
        scene("a", cluster().build()).stopped("in production").remembering(|memory| memory.role = Some(Role::Primary));
    let decision = scene.play(&[kept]);
    assert_eq!(decision.reason.to_string(), "starting primary after failure");
    assert!(matches!(task_of(&decision), Some(Task::Start { recovery: Recovery::None, role: Role::Primary, .. })));
}

#[test]
fn a_leader_that_cannot_start_gives_the_key_away() {
    let failed = EndedTask {
        task: Task::Start {
            action: "starting primary after failure".into(),
            recovery: Recovery::None,
            role: Role::Primary,
            timeout_ms: None,
        },
        outcome: TaskOutcome::Failed("exit code 1".into()),
        progress: None,
    };
    let scene = scene("a", cluster().build())
        .stopped("in production")
        .with(|seen| seen.ended = Some(failed))
        .remembering(|memory| {
            memory.role = Some(Role::Primary);
            memory.is_recovering = true;
        });
    let decision = scene.decide();
    assert_eq!(decision.reason.to_string(), "removed leader key after trying and failing to start postgres");
    assert!(decision.steps.iter().any(|step| matches!(step, Step::ReleaseLeader(None))));
}

#[test]
fn a_crashed_former_leader_is_recovered_then_compared_before_it_streams() {
    let view = cluster().leader("b").member_field("b", "role", json!("primary")).build();
    let first = scene("a", view.clone()).stopped("in production");
    assert_eq!(first.decide().reason.to_string(), "doing crash recovery in a single user mode");
    let diverged: fn(&mut Done) = |done| done.divergence = Some(crate::cluster::Divergence::Diverged);
    let mut second = scene("a", view).stopped("shut down");
    let decision = second.play(&[diverged]);
    assert_eq!(decision.reason.to_string(), "running pg_rewind from b");
    assert!(matches!(task_of(&decision), Some(Task::Rewind { .. })));
}

#[test]
fn a_timeline_that_two_leaders_made_is_never_mixed() {
    let twin = |view: ClusterBuilder| {
        view.leader("b").member_field("b", "role", json!("primary")).member_field("b", "timeline", json!(2)).build()
    };
    let was_ours = |memory: &mut Memory| memory.timeline_maker = Some((Timeline(2), "a".into()));
    // Served as a standby since: the positions look alike, and PostgreSQL would stream.
    let on_two = |seen: &mut Observation| seen.instance.monitor.as_mut().unwrap().timeline = Some(Timeline(2));
    let alive = scene("a", twin(cluster())).running(false).with(on_two).remembering(was_ours);
    let decision = alive.decide();
    assert!(matches!(task_of(&decision), Some(Task::Stop { .. })), "{}", decision.reason);
    let down = scene("a", twin(cluster())).stopped("shut down").remembering(was_ours);
    let decision = down.decide();
    assert!(decision.reason.to_string().contains("same timeline"), "{}", decision.reason);
    assert_eq!(task_of(&decision), None);
    let removes = down.with(|seen| seen.node.remove_on_divergence = true).decide();
    assert!(removes.steps.contains(&Step::RemoveDataDir));
    // The one who made it goes on leading on it.
    let maker = |memory: &mut Memory| memory.timeline_maker = Some((Timeline(2), "b".into()));
    let same = scene("a", twin(cluster())).running(false).with(on_two).remembering(maker).play(&[follows]);
    assert_eq!(task_of(&same), None);
}

#[test]
fn a_server_stopped_on_purpose_is_no_failure() {
    let view = cluster().leader("b").member_field("b", "role", json!("primary")).build();
    let same: fn(&mut Done) = |done| done.divergence = Some(crate::cluster::Divergence::Consistent);
    for (role, word, warns) in
        [(Role::Demoted, "starting as a secondary", false), (Role::Replica, "restarting after failure", true)]
    {
        let mut scene = scene("a", view.clone()).stopped("shut down").remembering(|memory| memory.role = Some(role));
        let first = scene.decide();
        assert_eq!(first.notes.iter().any(|note| note.level == Level::Warning), warns, "{:?}", first.notes);
        let decision = scene.play(&[same]);
        assert_eq!(decision.reason.to_string(), "starting as a secondary");
        assert_eq!(task_of(&decision).map(Task::action).as_deref(), Some(word));
    }
}

#[test]
fn rewinding_waits_for_the_new_leaders_checkpoint() {
    let view = cluster()
        .leader("b")
        .member_field("b", "role", json!("primary"))
        .member_field("b", "checkpoint_after_promote", json!(false))
        .build();
    let diverged: fn(&mut Done) = |done| done.divergence = Some(crate::cluster::Divergence::Diverged);
    let decision = scene("a", view).stopped("shut down").play(&[diverged]);
    assert_eq!(decision.reason.to_string(), "waiting for checkpoint on b before rewind");
    assert_eq!(task_of(&decision), None);
}

#[test]
fn an_empty_data_directory_is_bootstrapped_or_cloned() {
    let empty = ClusterBuilder::new(&[]).with(|view| *view = ClusterView::default()).build();
    let won: fn(&mut Done) = |done| done.initialize = Some(true);
    let decision = scene("a", empty.clone()).play(&[won]);
    assert_eq!(task_of(&decision), Some(&Task::Bootstrap));
    let lost: fn(&mut Done) = |done| done.initialize = Some(false);
    let decision = scene("a", empty).play(&[lost]);
    assert_eq!(decision.reason.to_string(), "failed to acquire initialize lock");

    let may_not: fn(&mut Observation) = |seen| seen.node.may_bootstrap = false;
    let must_not: fn(&mut Observation) =
        |seen| seen.node.tags = [("nofailover".to_owned(), json!(true))].into_iter().collect();
    for change in [may_not, must_not] {
        let decision = scene("a", ClusterView::default()).with(change).decide();
        assert_eq!(decision.reason.to_string(), "waiting for leader to bootstrap");
    }
    // Somebody else bootstraps: a method that needs no leader waits for what comes of it.
    for (initialize, line) in
        [("", "waiting for leader to bootstrap"), (SYSTEM_ID, "trying to bootstrap (without leader)")]
    {
        let view = ClusterView { initialize: Some(initialize.into()), ..ClusterView::default() };
        let decision = scene("a", view).with(|seen| seen.node.has_leaderless_method = true).decide();
        assert_eq!(decision.reason.to_string(), line);
    }

    let decision = scene("d", cluster().build()).decide();
    assert_eq!(decision.reason.to_string(), "trying to bootstrap from leader 'a'");
    let view = cluster().member_field("c", "tags", json!({"clonefrom": true})).build();
    let decision = scene("d", view.clone()).decide();
    assert_eq!(decision.reason.to_string(), "trying to bootstrap from replica 'c'");
    // Whoever may be elected as soon as it is back must not begin with less than what was acknowledged.
    let mut named = view;
    named.sync = SyncState { leader: Some("a".into()), voters: vec!["d".into()], ..SyncState::default() };
    let decision = scene("d", named).decide();
    assert_eq!(decision.reason.to_string(), "trying to bootstrap from leader 'a'");
}

#[test]
fn a_foreign_data_directory_ends_the_agent() {
    let foreign = |seen: &mut Observation| seen.instance.system_id = SystemId::parse("9999999999999999");
    let decision = scene("b", cluster().build()).running(false).with(foreign).decide();
    assert!(decision.steps.iter().any(|step| matches!(step, Step::Exit { keep_server: false, .. })));
}

#[test]
fn restarts_are_filtered_and_answered() {
    let ask_whom = |leads_until_ms: Option<u64>, request: RestartRequest| {
        scene("a", cluster().build())
            .running(true)
            .with(|seen| seen.requests = vec![Request { id: 9, kind: RequestKind::Restart(request) }])
            .with(|seen| seen.leads_until_ms = leads_until_ms)
            .decide()
    };
    let ask = |request| ask_whom(Some(u64::MAX), request);
    let decision = ask(RestartRequest { role: Some("replica".into()), ..RestartRequest::default() });
    let refused = Reply::Refused("restart conditions are not satisfied".into());
    assert!(decision.steps.contains(&Step::Reply { id: 9, reply: refused }));
    let decision = ask(RestartRequest::default());
    assert!(matches!(task_of(&decision), Some(Task::Restart { .. })));
    assert_eq!(decision.memory.restart_reply, Some(9));
    // What is no standby would come up as a second primary.
    let decision = ask_whom(None, RestartRequest::default());
    assert!(!matches!(task_of(&decision), Some(Task::Restart { .. })));
    assert!(decision.steps.iter().any(|step| matches!(step, Step::Reply { reply: Reply::Refused(_), .. })));
}

#[test]
fn leaving_hands_over_first() {
    let leaving = |seen: &mut Observation| seen.is_leaving = true;
    let decision = scene("a", cluster().build()).running(true).with(leaving).decide();
    assert!(matches!(task_of(&decision), Some(Task::Stop { mode: StopMode::Fast, .. })));
    assert_eq!(decision.memory.demotion.map(|demotion| demotion.mode), Some(DemoteMode::Graceful));
    let paused = |seen: &mut Observation| {
        leaving(seen);
        seen.settings.pause = true;
    };
    let decision = scene("a", cluster().build()).running(true).with(paused).decide();
    assert!(decision.steps.iter().any(|step| matches!(step, Step::Exit { keep_server: true, .. })));
    assert_eq!(task_of(&decision), None);
}

#[test]
fn rule_numbers_are_unique_and_ascending() {
    let numbers: Vec<u16> = rules::TABLE.iter().map(|rule| rule.number).collect();
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(numbers, sorted);
    insta::assert_snapshot!(rules::table_text(), @r"
    100 the DCS cannot be reached
    110 an operator asks something of this node
    115 the agent is told to end
    120 a demotion is under way
    130 a long task runs
    200 the server is starting and we hold the lock
    205 an agent died while it filled the data directory
    210 this node creates the cluster
    220 a start has just been tried
    300 there is no data directory
    310 the data directory has no system identifier
    320 the data directory belongs to another cluster
    330 the DCS does not know the cluster
    400 the server is down in maintenance mode
    410 the server is down
    500 nobody holds the lock
    600 this node holds the lock
    610 another node holds the lock
    ");
}
