//! A leader whose server does not come up: how long it keeps the key.

use super::*;
use crate::cluster::Upstream;

const NOW: u64 = 50_000_000;

/// The leader `a` with a task that has run for so long, and no server.
fn leader_in(task: Task, seconds: u64) -> Scene {
    let running = RunningTask { task, since_ms: NOW - seconds * 1000, progress: None };
    scene("a", cluster().build())
        .stopped("in production")
        .with(|seen| {
            seen.now_ms = NOW;
            seen.task = Some(running);
        })
        .remembering(|memory| memory.role = Some(Role::Primary))
}

fn start(timeout_ms: Option<u64>) -> Task {
    let action = "starting primary after failure".into();
    Task::Start { action, recovery: Recovery::None, role: Role::Primary, timeout_ms }
}

fn restart(timeout_ms: u64) -> Task {
    let (action, timeout_ms) = ("restart".into(), Some(timeout_ms));
    Task::Restart { action, recovery: Recovery::Keep, role: Role::Primary, timeout_ms }
}

fn gives_up(decision: &Decision) -> bool {
    let demotes = decision.memory.demotion.as_ref().is_some_and(|d| d.mode == DemoteMode::Immediate);
    assert_eq!(demotes, decision.steps.contains(&Step::CancelTask), "{:?}", decision.steps);
    assert!(!decision.steps.iter().any(|step| matches!(step, Step::ReleaseLeader(_))), "not before it is stopped");
    demotes
}

fn nobody(done: &mut Done) {
    let gone = PeerAnswer::Unreachable("connection refused".into());
    done.peers = Some(["b", "c"].map(|name| (MemberName::from(name), gone.clone())).into_iter().collect());
}

#[test]
fn a_start_without_a_process_is_given_up_for_another_member() {
    for task in [start(Some(300_000)), start(None), Task::CrashRecovery] {
        let early = leader_in(task.clone(), 299).play(&[kept]);
        assert!(!gives_up(&early));
        assert_eq!(early.wake_after_ms.map(|ms| ms / 1000), Some(0), "not a turn of the loop later");
        let late = leader_in(task.clone(), 300).play(&[kept, level_peers]);
        assert!(gives_up(&late) && late.steps.contains(&Step::QuitNow), "{}", late.reason);
        assert!(late.reason.to_string().ends_with("because of startup timeout"), "{}", late.reason);
        let alone = leader_in(task, 300).play(&[kept, nobody]);
        assert!(!gives_up(&alone), "{}", alone.reason);
    }
    let line = leader_in(start(None), 300).play(&[kept, nobody]).reason.to_string();
    assert_eq!(line, "primary start has timed out, but continuing to wait because failover is not possible");
}

#[test]
fn the_only_member_goes_on_waiting() {
    let mut scene = leader_in(start(None), 9_000).with(|seen| {
        seen.view = Snapshot::Read(Box::new(ClusterBuilder::new(&["a"]).build()));
    });
    assert!(!gives_up(&scene.play(&[kept])));
}

#[test]
fn maintenance_mode_gives_nothing_up() {
    let paused = |seen: &mut Observation| seen.settings.pause = true;
    for task in [start(None), restart(1), Task::CrashRecovery] {
        let mut scene = leader_in(task, 9_000).with(paused).remembering(|memory| memory.starting_since_ms = Some(1));
        let decision = scene.play(&[kept]);
        assert!(decision.reason.to_string().starts_with("updated leader lock during"), "{}", decision.reason);
        assert_eq!(decision.memory.demotion, None);
    }
}

#[test]
fn with_a_limit_of_zero_a_start_gets_one_turn_of_the_loop() {
    let zero = |seen: &mut Observation| seen.settings.primary_start_timeout = std::time::Duration::ZERO;
    assert!(!gives_up(&leader_in(start(None), 9).with(zero).play(&[kept])));
    assert!(gives_up(&leader_in(start(None), 10).with(zero).play(&[kept, level_peers])));
    assert!(gives_up(&leader_in(Task::CrashRecovery, 0).with(zero).play(&[kept, level_peers])));
}

#[test]
fn a_restart_is_measured_from_the_end_of_the_old_server() {
    let stopping = |timeout| leader_in(restart(timeout), 9_000);
    let mut first = stopping(5_000);
    let decision = first.play(&[kept]);
    assert!(!gives_up(&decision), "the stop took all the time");
    assert_eq!(decision.memory.starting_since_ms, Some(NOW));
    let since = |ms: u64| move |memory: &mut Memory| memory.starting_since_ms = Some(NOW - ms);
    assert!(!gives_up(&stopping(5_000).remembering(since(4_900)).play(&[kept])));
    assert!(gives_up(&stopping(5_000).remembering(since(5_000)).play(&[kept, level_peers])));
    assert!(!gives_up(&stopping(0).remembering(since(59_000)).play(&[kept])), "an operator asked for it");
    assert!(gives_up(&stopping(0).remembering(since(60_000)).play(&[kept, level_peers])));
    // While the old one still serves its clients nothing is measured, and what was asked for is not forgotten.
    let serves = |seen: &mut Observation| seen.instance.is_postmaster_alive = true;
    let asked = |memory: &mut Memory| memory.start_timeout_ms = Some(5_000);
    let decision = stopping(5_000).with(serves).remembering(asked).play(&[kept]);
    assert_eq!((decision.memory.starting_since_ms, decision.memory.start_timeout_ms), (None, Some(5_000)));
}

#[test]
fn other_tasks_take_their_time() {
    let leader = Upstream::default();
    for task in [Task::ArchiveLast, Task::Promote { limit_ms: 1, taken: Vec::new() }, Task::Rewind { leader }] {
        assert_eq!(leader_in(task, 9_000).play(&[kept]).memory.demotion, None);
    }
}

#[test]
fn a_server_that_does_not_even_die_does_not_keep_the_key() {
    let stopping = |seconds: u64| {
        let (action, mode) = ("demotion".to_owned(), StopMode::Immediate);
        let task = Task::Stop { action: action.clone(), mode, checkpoint: false, timeout_ms: None };
        leader_in(task, 1).remembering(|memory| {
            memory.demotion = Some(Demotion {
                mode: DemoteMode::Immediate,
                action,
                stage: DemotionStage::Stopping,
                began_ms: NOW - seconds * 1000,
                is_released: false,
                shutdown_lsn: None,
            });
        })
    };
    assert_eq!(stopping(29).play(&[kept]).reason.to_string(), "updated leader lock during demotion");
    let decision = stopping(31).decide();
    assert!(!decision.again && decision.steps.contains(&Step::QuitNow), "{:?}", decision.steps);
    assert!(!decision.steps.iter().any(|step| matches!(step, Step::RenewLeader(_) | Step::ReleaseLeader(_))));
}

#[test]
fn without_the_dcs_no_start_makes_a_primary_once_the_lease_is_over() {
    let alone = |task: Task, lease: Option<u64>| {
        let decision = leader_in(task, 10)
            .with(|seen| {
                seen.view = Snapshot::Unreachable("refused".into());
                seen.leads_until_ms = lease;
            })
            .decide();
        assert_eq!(decision.rule, 100);
        let is_called_off = decision.steps.contains(&Step::CancelTask);
        assert_eq!(decision.steps.contains(&Step::QuitNow), is_called_off);
        is_called_off
    };
    assert!(!alone(start(None), Some(NOW + 1)), "failsafe mode may let it lead on");
    assert!(alone(start(None), Some(NOW)) && alone(start(None), None) && alone(restart(1), None));
    let as_standby = |mut task: Task| {
        if let Task::Start { recovery, .. } | Task::Restart { recovery, .. } = &mut task {
            *recovery = Recovery::Standby(None);
        }
        task
    };
    assert!(!alone(as_standby(start(None)), None), "it serves readers");
    assert!(!alone(as_standby(restart(1)), None), "a former primary is to follow");
    let promotion = || Task::Promote { limit_ms: 60_000, taken: Vec::new() };
    assert!(!alone(promotion(), Some(NOW + 1)) && alone(promotion(), Some(NOW)), "pre_promote may take for ever");
}
