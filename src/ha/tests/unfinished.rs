//! An agent was killed while it filled the data directory, and another one is started.

use super::*;
use crate::cluster::{Callback, Unfinished};

/// Somebody has won the race for `initialize`, and nobody leads.
fn begun(others: &[&str]) -> ClusterBuilder {
    ClusterBuilder::new(others).with(|view| {
        (view.leader, view.initialize) = (None, Some(String::new()));
    })
}

fn left(what: Unfinished) -> impl FnOnce(&mut Observation) {
    move |seen| seen.instance.unfinished = Some(what)
}

fn has(decision: &Decision, step: &Step) -> bool {
    decision.steps.contains(step)
}

fn is_quiet(decision: &Decision) -> bool {
    task_of(decision).is_none() && !decision.steps.iter().any(|step| matches!(step, Step::Callback { .. }))
}

#[test]
fn half_of_a_new_cluster_is_set_aside_and_the_race_opened_again() {
    let halves = [
        scene("a", begun(&[]).build()).stopped("shut down"),
        scene("a", begun(&[]).build()).running(true),
        scene("a", begun(&[]).build()),
    ];
    for half in halves {
        let half = half.with(left(Unfinished::Bootstrap)).remembering(|memory| *memory = Memory::default());
        let decision = half.decide();
        assert_eq!(decision.rule, 205);
        assert!(has(&decision, &Step::CancelInitialize) && has(&decision, &Step::DiscardUnfinished));
        assert!(is_quiet(&decision) && decision.wake_after_ms.is_some(), "{:?}", decision.steps);
        assert!(!decision.steps.iter().any(|step| matches!(step, Step::SetInitialize(_) | Step::AcquireLeader)));
        // What comes next is a new bootstrap.
        let next = ClusterBuilder::new(&[]).with(|view| *view = ClusterView::default()).build();
        let mut next = scene("a", next).remembering(|memory| *memory = decision.memory);
        let decision = next.play(&[|done| done.initialize = Some(true)]);
        assert_eq!(task_of(&decision), Some(&Task::Bootstrap));
    }
}

#[test]
fn initialize_is_left_to_who_is_at_it_now() {
    let at_it = |state: &str| begun(&["b"]).member_field("b", "state", json!(state)).build();
    for (state, is_ours) in
        [("running custom bootstrap script", false), ("initializing new cluster", false), ("stopped", true)]
    {
        let half = scene("a", at_it(state)).stopped("shut down").with(left(Unfinished::Bootstrap));
        let decision = half.decide();
        assert_eq!(has(&decision, &Step::CancelInitialize), is_ours, "{state}");
        assert!(has(&decision, &Step::DiscardUnfinished));
    }
    // Another cluster has come to be meanwhile.
    let led = cluster().leader("b").build();
    let foreign = |seen: &mut Observation| seen.instance.system_id = SystemId::parse("9999999999999999");
    let half = scene("a", led).running(true).with(foreign).with(left(Unfinished::Bootstrap));
    let decision = half.decide();
    assert!(has(&decision, &Step::DiscardUnfinished) && !has(&decision, &Step::CancelInitialize));
    assert!(!decision.steps.iter().any(|step| matches!(step, Step::Exit { .. })));
}

#[test]
fn a_note_on_a_whole_cluster_is_forgotten() {
    let whole = scene("a", cluster().build()).running(true).with(left(Unfinished::Bootstrap));
    let decision = whole.decide();
    assert!(has(&decision, &Step::ForgetUnfinished) && !has(&decision, &Step::DiscardUnfinished));
    let started = scene("b", cluster().build()).running(false).with(left(Unfinished::Clone));
    let decision = started.decide();
    assert!(has(&decision, &Step::ForgetUnfinished) && !has(&decision, &Step::DiscardUnfinished));
    // While it goes on the note is our own.
    let ours = scene("a", begun(&[]).build()).running(true).with(left(Unfinished::Bootstrap));
    let ours = ours.remembering(|memory| memory.bootstrap = Some(BootstrapStage::Creating));
    assert_eq!(task_of(&ours.decide()), Some(&Task::PostBootstrap));
}

#[test]
fn half_of_a_copy_is_made_anew_and_maintenance_mode_touches_nothing() {
    let half = || scene("b", cluster().build()).stopped("in production").with(left(Unfinished::Clone));
    let decision = half().decide();
    assert!(has(&decision, &Step::DiscardUnfinished) && !has(&decision, &Step::CancelInitialize));
    assert!(is_quiet(&decision));
    let decision = half().with(|seen| seen.settings.pause = true).decide();
    assert!(!has(&decision, &Step::DiscardUnfinished) && is_quiet(&decision), "{:?}", decision.steps);
    assert!(decision.reason.to_string().contains("when maintenance mode ends"), "{}", decision.reason);
}

#[test]
fn who_is_told_to_end_during_a_bootstrap_leaves_nothing_behind() {
    let leaving = |seen: &mut Observation| seen.is_leaving = true;
    let making = |memory: &mut Memory| memory.bootstrap = Some(BootstrapStage::Creating);
    let decision = scene("a", begun(&[]).build()).stopped("shut down").with(leaving).remembering(making).decide();
    let steps = [Step::CancelInitialize, Step::AbandonBootstrap];
    assert!(steps.iter().all(|step| has(&decision, step)), "{:?}", decision.steps);
    assert!(decision.steps.iter().any(|step| matches!(step, Step::Exit { keep_server: false, .. })));
    // Somebody else's cluster keeps its key.
    let decision = scene("a", cluster().leader("b").build()).running(true).with(leaving).remembering(making).decide();
    assert!(has(&decision, &Step::AbandonBootstrap) && !has(&decision, &Step::CancelInitialize));
}

#[test]
fn scripts_hear_of_a_found_server_unless_it_is_half_of_something() {
    let found = |what: Option<Unfinished>, view: ClusterView| {
        let scene = scene("a", view).running(true).remembering(|memory| *memory = Memory::default());
        let decision = scene.with(|seen| seen.instance.unfinished = what).decide();
        has(&decision, &Step::Callback { event: Callback::OnStart, role: Role::Primary })
    };
    assert!(found(None, cluster().build()));
    assert!(found(Some(Unfinished::Bootstrap), cluster().build()));
    assert!(!found(Some(Unfinished::Bootstrap), begun(&[]).build()));
}
