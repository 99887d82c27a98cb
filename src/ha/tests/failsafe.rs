//! Failsafe mode: who leads on without the DCS, and who stands back for it.

use super::*;

#[test]
fn in_failsafe_mode_a_primary_without_dcs_leads_on_while_all_members_accept_it() {
    let lost = |seen: &mut Observation| {
        seen.view = Snapshot::Unreachable("refused".into());
        seen.settings.failsafe_mode = true;
        seen.failsafe = ["a", "b", "c"].map(|name| (name.into(), format!("http://{name}"))).into();
    };
    let answers = |b: Option<&str>| {
        let b = b.map(str::to_owned);
        move |done: &mut Done| done.failsafe = Some([("b".into(), b.clone()), ("c".into(), None)].into())
    };
    let all = answers(None);
    let decision = scene("a", cluster().build()).running(true).with(lost).decide();
    let [Step::AskFailsafe(asked)] = &decision.steps[..] else { panic!("{:?}", decision.steps) };
    assert_eq!(asked.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["b", "c"]);

    let decided = |change: &dyn Fn(&mut Done)| {
        let mut seen = scene("a", cluster().build()).running(true).with(lost);
        change(&mut seen.seen.done);
        seen.decide()
    };
    let decision = decided(&all);
    assert_eq!(decision.steps, [Step::LeadByFailsafe]);
    assert!(decision.reason.to_string().starts_with("continue to run as a leader because failsafe mode"));

    let decision = decided(&answers(Some("timed out")));
    assert_eq!(decision.reason.to_string(), "demoted self because DCS is not accessible and I was a leader");
    assert!(decision.notes.iter().any(|note| note.text.contains("b does not accept us as the leader: timed out")));

    // A topology that does not count us, or none.
    for others in [vec!["b"], vec![]] {
        let uncounted = |seen: &mut Observation| {
            lost(seen);
            seen.failsafe = others.iter().map(|name| ((*name).into(), String::new())).collect();
        };
        let decision = scene("a", cluster().build()).running(true).with(uncounted).decide();
        assert!(matches!(task_of(&decision), Some(Task::Stop { .. })));
    }
}

#[test]
fn a_promise_to_a_primary_without_dcs_is_kept_even_when_the_key_was_just_taken() {
    let promised = |seen: &mut Observation| {
        seen.settings.failsafe_mode = true;
        seen.failsafe_ping = Some(("a".into(), 95_000));
        seen.done.acquire = Some(LockOutcome::Kept);
    };
    let decision = scene("b", cluster().unlocked().build()).running(false).with(promised).play(&[follows]);
    assert!(decision.steps.contains(&Step::ReleaseLeader(None)), "{:?}", decision.steps);
    assert!(!matches!(task_of(&decision), Some(Task::Promote { .. })));
}

#[test]
fn failsafe_mode_bars_the_race_while_a_primary_says_it_leads() {
    let failsafe = |seen: &mut Observation| {
        seen.settings.failsafe_mode = true;
        seen.failsafe_ping = Some(("a".into(), 95_000));
    };
    let decision = scene("b", cluster().unlocked().build()).running(false).with(failsafe).play(&[follows]);
    assert!(decision.notes.iter().any(|note| note.text == "not racing: a leads in failsafe mode"));
}

#[test]
fn an_agent_that_has_just_started_may_have_promised_something_to_whoever_does_not_answer() {
    let unlocked = || {
        let mut view = cluster().unlocked().build();
        view.failsafe = Some(["a", "b", "c"].map(|name| (name.into(), format!("http://{name}"))).into());
        view
    };
    let decided = |now_ms: u64, is_primary: bool, answers: &[(&str, PeerAnswer)]| {
        let answers: std::collections::BTreeMap<MemberName, PeerAnswer> =
            answers.iter().map(|(name, answer)| ((*name).into(), answer.clone())).collect();
        let young = |seen: &mut Observation| {
            seen.settings.failsafe_mode = true;
            seen.now_ms = now_ms;
        };
        let decision = scene("b", unlocked()).running(is_primary).with(young).decide();
        let asks = decision.steps.iter().any(|step| matches!(step, Step::AskPeers(_)));
        let told = |seen: &mut Observation| {
            young(seen);
            seen.done.peers = Some(answers.clone());
        };
        let decision = scene("b", unlocked()).running(is_primary).with(told).decide();
        (asks, decision.steps.contains(&Step::AcquireLeader))
    };
    let silent = [("a", PeerAnswer::Unreachable("timed out".into())), ("c", answer(0))];
    let all = [("a", answer(0)), ("c", answer(0))];
    assert_eq!(decided(1_000, false, &silent), (true, false), "a may lead by our promise");
    assert_eq!(decided(1_000, false, &all), (true, true), "both say that they do not lead");
    assert_eq!(decided(31_000, false, &silent), (true, true), "no promise is that old");
    assert_eq!(decided(1_000, true, &silent), (false, true), "a primary has promised nothing");
}
