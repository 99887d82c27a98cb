//! Failsafe mode: who leads on without the DCS, and what its promise is to the member that gave it.

use std::collections::BTreeMap;

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

fn topology(names: &[&str]) -> BTreeMap<MemberName, String> {
    names.iter().map(|name| ((*name).into(), format!("http://{name}:8008/patroni"))).collect()
}

#[test]
fn an_agent_that_was_just_started_asks_everybody_it_may_have_promised() {
    let young = |seen: &mut Observation| {
        seen.settings.failsafe_mode = true;
        seen.now_ms = 4_000;
    };
    let unlocked = || cluster().unlocked().with(|view| view.failsafe = Some(topology(&["a", "b", "d"])));
    let forgotten = |decision: &Decision| {
        decision.notes.iter().any(|note| note.text.starts_with("not racing yet: before its start this node"))
    };
    // The key of `d` has expired, but it may lead without the DCS.
    let decision = scene("b", unlocked().build()).running(false).with(young).decide();
    let [Step::AskPeers(asked)] = &decision.steps[..] else { panic!("{:?}", decision.steps) };
    assert_eq!(asked.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["a", "c", "d"]);
    let decision = scene("b", unlocked().build()).running(false).with(young).play(&[level_peers, follows]);
    assert!(forgotten(&decision), "{:?}", decision.notes);
    assert!(matches!(decision.wake_after_ms, Some(25_000..=26_000)), "{:?}", decision.wake_after_ms);

    // A candidate by name is bound by what it may have promised, too.
    let named = scene("b", unlocked().failover(Some("d"), Some("b")).build()).running(false).with(young);
    assert!(forgotten(&{ named }.play(&[level_peers, follows])));

    // Everybody answers, or has stepped down, or the start is long ago, or the mode is off.
    let complete = |done: &mut Done| {
        level_peers(done);
        done.peers.as_mut().unwrap().insert("d".into(), answer(1000));
    };
    let decision =
        scene("b", unlocked().build()).running(false).with(young).with(|seen| complete(&mut seen.done)).decide();
    assert!(decision.steps.contains(&Step::AcquireLeader), "{:?}", decision.steps);
    let demoted = unlocked().with(|view| {
        view.failsafe = Some(topology(&["a", "b"]));
        for member in &mut view.members {
            member.data.insert("role".into(), json!("demoted"));
        }
    });
    let peers = |seen: &mut Observation| dead_leader(&mut seen.done);
    let decision = scene("b", demoted.build()).running(false).with(young).with(peers).decide();
    assert!(decision.steps.contains(&Step::AcquireLeader), "{:?}", decision.steps);
    for change in [(|seen| seen.now_ms = 30_000) as fn(&mut Observation), |seen| seen.settings.failsafe_mode = false] {
        let decision = scene("b", unlocked().build()).running(false).with(young).with(change).with(peers).decide();
        assert!(decision.steps.contains(&Step::AcquireLeader), "{:?}", decision.steps);
    }
}

#[test]
fn a_member_that_the_last_leader_did_not_count_holds_nobody_up() {
    let view = cluster().unlocked().with(|view| view.failsafe = Some(topology(&["b", "c"])));
    let seen = |mode: bool, is_standby: bool| {
        let change = move |seen: &mut Observation| {
            seen.settings.failsafe_mode = mode;
            level_peers(&mut seen.done);
            let mut ahead = answer(9000);
            if let PeerAnswer::Answered { in_recovery, .. } = &mut ahead {
                *in_recovery = is_standby;
            }
            seen.done.peers.as_mut().unwrap().insert("a".into(), ahead);
        };
        let decision = scene("b", view.clone().build()).running(false).with(change).decide();
        decision.steps.contains(&Step::AcquireLeader)
    };
    assert!(seen(true, true), "it is barred from the race itself");
    assert!(!seen(true, false), "a running primary is something else");
    assert!(!seen(false, true), "without failsafe mode it may lead");
}
