use super::*;
use proptest::prelude::*;

fn line(timeline: u32, switch: u64) -> HistoryLine {
    HistoryLine {
        timeline: Timeline(timeline),
        switch: Lsn(switch),
        reason: "no recovery target specified".to_owned(),
        timestamp: None,
        new_leader: None,
    }
}

fn standby(timeline: u32, lsn: u64) -> LocalPosition {
    LocalPosition { in_recovery: true, timeline: Timeline(timeline), lsn: Lsn(lsn) }
}

fn primary(timeline: u32, lsn: u64) -> LocalPosition {
    LocalPosition { in_recovery: false, ..standby(timeline, lsn) }
}

#[test]
fn the_same_timeline_is_followed_and_a_newer_one_is_not() {
    assert_eq!(compare(&standby(3, 900), Timeline(3), &[]), Comparison::Consistent);
    assert_eq!(compare(&primary(3, 900), Timeline(3), &[]), Comparison::Consistent);
    assert_eq!(compare(&standby(4, 100), Timeline(3), &[]), Comparison::Diverged);
}

#[test]
fn a_number_that_was_chosen_twice_is_another_timeline() {
    let ours = [line(1, 100), line(2, 200)];
    assert!(is_same_branch(&ours, &[line(1, 100), line(2, 200), line(3, 300)]));
    assert!(is_same_branch(&[], &ours));
    assert!(!is_same_branch(&ours, &[line(1, 100), line(2, 250)]));
    assert!(!is_same_branch(&ours, &[line(1, 100)]));
}

#[test]
fn a_standby_may_reach_the_fork_but_not_pass_it() {
    let history = [line(1, 100), line(2, 200)];
    assert_eq!(compare(&standby(2, 200), Timeline(3), &history), Comparison::Consistent);
    assert_eq!(compare(&standby(2, 201), Timeline(3), &history), Comparison::Diverged);
    assert_eq!(compare(&standby(1, 100), Timeline(3), &history), Comparison::Consistent);
    assert_eq!(compare(&standby(1, 150), Timeline(3), &history), Comparison::Diverged);
}

#[test]
fn a_former_primary_is_consistent_only_if_the_fork_follows_its_shutdown() {
    let history = [line(1, 100)];
    assert_eq!(compare(&primary(1, 100), Timeline(2), &history), Comparison::Diverged);
    assert_eq!(compare(&primary(1, 90), Timeline(2), &history), Comparison::ForkedAt(Lsn(100)));
    assert_eq!(after_shutdown(Lsn(100), Some(Lsn(100))), Comparison::Consistent);
    assert_eq!(after_shutdown(Lsn(100), Some(Lsn(120))), Comparison::Diverged);
    assert_eq!(after_shutdown(Lsn(100), None), Comparison::Diverged);
}

#[test]
fn a_timeline_that_is_no_ancestor_diverged() {
    // The leader went from 1 to 3; ours is 2.
    assert_eq!(compare(&standby(2, 10), Timeline(3), &[line(1, 100)]), Comparison::Diverged);
    assert_eq!(compare(&standby(2, 10), Timeline(4), &[line(1, 100), line(3, 200)]), Comparison::Diverged);
    assert_eq!(compare(&standby(2, 10), Timeline(3), &[]), Comparison::Diverged);
}

#[test]
fn positions_out_of_control_data() {
    let control = |state: &str| ControlData {
        cluster_state: state.to_owned(),
        checkpoint: Lsn(50),
        checkpoint_timeline: Some(Timeline(2)),
        min_recovery: Lsn(70),
        min_recovery_timeline: Some(Timeline(3)),
        ..ControlData::default()
    };
    assert_eq!(stopped_position(&control("shut down")), Some(primary(2, 50)));
    assert_eq!(stopped_position(&control("shut down in recovery")), Some(standby(3, 70)));
    assert_eq!(stopped_position(&control("in archive recovery")), Some(standby(3, 70)));
    assert_eq!(stopped_position(&control("in production")), None);
    let fresh = ControlData { min_recovery: Lsn::ZERO, min_recovery_timeline: None, ..control("in archive recovery") };
    assert_eq!(stopped_position(&fresh), Some(primary(2, 50)));
}

#[test]
fn the_log_shows_the_lines_around_ours() {
    let history: Vec<HistoryLine> = (1..=9).map(|timeline| line(timeline, u64::from(timeline) * 16)).collect();
    let shown = excerpt(&history, Timeline(5));
    let numbers: Vec<&str> = shown.lines().map(|line| line.split('\t').next().unwrap()).collect();
    assert_eq!(numbers, ["...", "2", "3", "4", "5", "6", "...", "9"]);
    assert_eq!(excerpt(&history[..1], Timeline(1)).lines().count(), 1);
    assert_eq!(excerpt(&[], Timeline(1)), "");
}

/// A server that followed the leader's own path up to some point, and perhaps left it there.
#[derive(Clone, Debug)]
struct Story {
    history: Vec<HistoryLine>,
    leader: Timeline,
    on: usize,
    lsn: u64,
}

fn stories() -> impl Strategy<Value = Story> {
    (prop::collection::vec((1u32..3, 1u64..1000), 1..6), any::<prop::sample::Index>(), 0u64..6000).prop_map(
        |(steps, on, lsn)| {
            let (mut timeline, mut switch) = (0, 0);
            let mut history = Vec::new();
            for (up, bytes) in steps {
                timeline += up;
                switch += bytes;
                history.push(line(timeline, switch));
            }
            Story { on: on.index(history.len()), leader: Timeline(timeline + 1), history, lsn }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nobody_follows_with_wal_that_the_leader_does_not_have(story in stories(), in_recovery in any::<bool>()) {
        let line = &story.history[story.on];
        let local = LocalPosition { in_recovery, timeline: line.timeline, lsn: Lsn(story.lsn) };
        let beyond = if in_recovery { local.lsn > line.switch } else { local.lsn >= line.switch };
        let verdict = compare(&local, story.leader, &story.history);
        prop_assert_eq!(verdict == Comparison::Diverged, beyond);
        if !in_recovery && !beyond {
            prop_assert_eq!(verdict, Comparison::ForkedAt(line.switch));
        }
    }

    #[test]
    fn an_unknown_ancestor_always_diverged(story in stories(), timeline in 1u32..12, lsn in 0u64..6000) {
        let known = story.history.iter().any(|line| line.timeline == Timeline(timeline));
        prop_assume!(!known && Timeline(timeline) != story.leader);
        prop_assert_eq!(compare(&standby(timeline, lsn), story.leader, &story.history), Comparison::Diverged);
    }
}
