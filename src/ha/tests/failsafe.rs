//! Failsafe mode: who leads on without the DCS, and what its promise is to the member that gave it.

use std::collections::BTreeMap;

use super::*;
use crate::cluster::SlotState;

/// What `a` told us, and when.
pub(super) fn told(at_ms: u64) -> FailsafeLeader {
    FailsafeLeader {
        name: "a".into(),
        conn_url: "postgres://10.0.0.1:5432/postgres".into(),
        api_url: "http://10.0.0.1:8008/patroni".into(),
        slots: Some(BTreeMap::from([("a".to_owned(), Lsn(990)), ("kept".to_owned(), Lsn(950))])),
        ttl_ms: None,
        at_ms,
    }
}

/// A replica that `a` told so five seconds ago.
fn promised(seen: &mut Observation) {
    seen.settings.failsafe_mode = true;
    seen.failsafe_ping = Some(told(95_000));
}

fn without_dcs(seen: &mut Observation) {
    seen.view = Snapshot::Unreachable("refused".into());
}

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

/// The primary `a` in failsafe mode, accepted by everybody.
fn accepted() -> Scene {
    let lost = |seen: &mut Observation| {
        without_dcs(seen);
        seen.settings.failsafe_mode = true;
        seen.failsafe = topology(&["a", "b", "c"]);
        seen.done.failsafe = Some([("b".into(), None), ("c".into(), None)].into());
    };
    scene("a", cluster().build()).running(true).with(lost)
}

#[test]
fn a_primary_without_dcs_moves_what_it_keeps_for_members_that_stream_from_others() {
    let at = |name: &str| SlotState { name: name.into(), restart_lsn: Some(Lsn(900)), ..SlotState::default() };
    let told = |seen: &mut Observation| {
        seen.done.failsafe_positions = [("b".into(), Lsn(980)), ("c".into(), Lsn(977))].into();
        seen.instance.monitor.as_mut().unwrap().slots = vec![at("b"), at("c"), at("kept")];
    };
    let known = |from: serde_json::Value| {
        let view = cluster().member_field("c", "tags", json!({"replicatefrom": from})).build();
        move |memory: &mut Memory| {
            memory.known_members = view.members.iter().map(|m| (m.name.clone(), m.clone())).collect();
        }
    };
    let decision = accepted().with(told).remembering(known(json!("b"))).decide();
    let [Step::LeadByFailsafe, Step::SyncSlots(sync)] = &decision.steps[..] else { panic!("{:?}", decision.steps) };
    let moved: Vec<_> = sync.wanted.iter().map(|slot| (slot.name.as_str(), slot.advance_to)).collect();
    assert_eq!((moved, sync.may_drop), (vec![("c", Some(Lsn(977)))], false));
    // Who should be streaming from here looks after its slot itself, also when it is away for a moment.
    for from in [json!("a"), json!(null)] {
        assert_eq!(accepted().with(told).remembering(known(from)).decide().steps, [Step::LeadByFailsafe]);
    }
    let off = |seen: &mut Observation| seen.settings.use_slots = false;
    let decision = accepted().with(told).with(off).remembering(known(json!("b"))).decide();
    assert_eq!(decision.steps, [Step::LeadByFailsafe]);
}

#[test]
fn a_watchdog_that_an_earlier_agent_has_armed_is_fed_on() {
    let idle = |seen: &mut Observation| seen.watchdog = Watchdog::Idle;
    let decision = accepted().with(idle).decide();
    assert!(decision.again && decision.steps == [Step::ActivateWatchdog], "{:?}", decision.steps);
    let decision = accepted().with(idle).with(|seen| seen.done.watchdog = Some(true)).decide();
    assert_eq!(decision.steps, [Step::LeadByFailsafe]);
    let decision = accepted().with(idle).with(|seen| seen.done.watchdog = Some(false)).decide();
    assert!(matches!(task_of(&decision), Some(Task::Stop { .. })), "{:?}", decision.steps);
}

#[test]
fn a_promise_to_a_primary_without_dcs_is_kept_even_when_the_key_was_just_taken() {
    let promised = |seen: &mut Observation| {
        seen.settings.failsafe_mode = true;
        seen.failsafe_ping = Some(told(95_000));
        seen.done.acquire = Some(LockOutcome::Kept);
    };
    let decision = scene("b", cluster().unlocked().build()).running(false).with(promised).play(&[follows]);
    assert!(decision.steps.contains(&Step::ReleaseLeader(None)), "{:?}", decision.steps);
    assert!(!matches!(task_of(&decision), Some(Task::Promote { .. })));
}

#[test]
fn a_primary_that_was_promised_stands_in_where_the_dcs_knows_no_leader() {
    let unlocked = || cluster().unlocked().member_field("a", "conn_url", json!("postgres://old:1/postgres"));
    let first = scene("b", unlocked().build()).running(false).with(promised).decide();
    let [Step::CompareFollow(Some(upstream))] = &first.steps[..] else { panic!("{:?}", first.steps) };
    assert_eq!(upstream.host.as_deref(), Some("10.0.0.1"), "its word counts, not what it published before");
    let decision = scene("b", unlocked().build()).running(false).with(promised).play(&[follows]);
    let following = "no action. I am (b), a secondary, and following a leader (a)";
    assert_eq!((decision.rule, decision.reason.to_string().as_str()), (610, following));
    // Its member key need not be there any more.
    let gone = unlocked().with(|view| view.members.retain(|member| *member.name != *"a"));
    let first = scene("b", gone.build()).running(false).with(promised).decide();
    assert!(matches!(&first.steps[..], [Step::CompareFollow(Some(upstream))] if upstream.port == Some(5432)));
    // The memory keeps what the DCS says.
    let stranger = cluster().unlocked().build();
    let decision = scene("b", stranger).running(false).with(promised).play(&[follows]);
    assert_eq!(decision.memory.former_leader, None);
}

#[test]
fn nobody_stands_in_for_longer_than_it_was_promised_nor_beside_a_leader() {
    let old = |seen: &mut Observation| seen.failsafe_ping = Some(told(70_000));
    let seen = scene("b", cluster().unlocked().build()).running(false).with(promised).with(old);
    assert!(matches!(seen.decide().steps[..], [Step::AskPeers(_)]), "{:?}", seen.decide().steps);
    let lost = scene("b", cluster().build()).running(false).with(promised).with(old).with(without_dcs);
    assert_eq!(lost.decide().steps, []);
    let locked = scene("b", cluster().leader("c").build()).running(false).with(promised).play(&[follows]);
    assert!(locked.reason.to_string().ends_with("following a leader (c)"), "{}", locked.reason);
    // A primary has promised nothing.
    let primary = scene("b", cluster().unlocked().build()).running(true).with(promised).decide();
    assert!(primary.steps.contains(&Step::AcquireLeader), "{:?}", primary.steps);
}

/// The primary that cannot reach the DCS counts on what it was told, and by the `ttl` that it knows.
#[test]
fn a_promise_outlives_a_change_of_the_settings_that_its_primary_cannot_know_of() {
    let off = |seen: &mut Observation| seen.settings.failsafe_mode = false;
    let short = |seen: &mut Observation| {
        seen.settings.ttl = std::time::Duration::from_secs(4);
        seen.failsafe_ping.as_mut().unwrap().ttl_ms = Some(30_000);
    };
    for change in [off as fn(&mut Observation), short] {
        let decision = scene("b", cluster().unlocked().build()).running(false).with(promised).with(change).decide();
        let races = |step: &Step| matches!(step, Step::AskPeers(_) | Step::AcquireLeader);
        assert!(!decision.steps.iter().any(races), "{:?}", decision.steps);
    }
    // What counts by the shorter time for itself is over here only after ours.
    let long = |seen: &mut Observation| seen.failsafe_ping.as_mut().unwrap().ttl_ms = Some(1_000);
    let decision = scene("b", cluster().unlocked().build()).running(false).with(promised).with(long).decide();
    assert!(!decision.steps.iter().any(|step| matches!(step, Step::AskPeers(_))), "{:?}", decision.steps);
}

#[test]
fn a_standby_without_dcs_follows_whom_it_has_promised_to_if_it_follows_nobody() {
    let alone = || scene("b", cluster().build()).running(false).with(promised).with(without_dcs);
    let changed = |done: &mut Done| done.follow = Some(FollowChange::Reload);
    let decision = alone().play(&[changed]);
    let [Step::Follow(Some(upstream))] = &decision.steps[..] else { panic!("{:?}", decision.steps) };
    assert_eq!(
        (upstream.host.as_deref(), decision.reason.to_string().as_str()),
        (Some("10.0.0.1"), "DCS is not accessible")
    );
    assert_eq!(decision.memory.rewind, RewindState::Check, "as soon as the DCS knows a leader");
    assert_eq!(alone().play(&[follows]).steps, []);
    assert_eq!(alone().play(&[|done| done.follow = Some(FollowChange::Restart)]).steps, [], "it is not restarted");

    let streams = |seen: &mut Observation| {
        let receiver = crate::cluster::WalReceiver { status: Some("streaming".into()), ..Default::default() };
        seen.instance.monitor.as_mut().unwrap().receiver = Some(receiver);
    };
    let changes: [fn(&mut Observation); 4] = [
        streams,
        |seen| seen.node.tags = serde_json::from_value(json!({"nostream": true})).unwrap(),
        |seen| seen.node.tags = serde_json::from_value(json!({"replicatefrom": "c"})).unwrap(),
        |seen| seen.settings.pause = true,
    ];
    for (i, change) in changes.into_iter().enumerate() {
        assert_eq!(alone().with(change).decide().steps, [], "{i}");
    }
    // The DCS has last named another, and what is to be compared with the leader comes first.
    let another = alone().remembering(|memory| memory.former_leader = Some("c".into()));
    assert_eq!(another.decide().steps, []);
    let open = alone().remembering(|memory| memory.rewind = RewindState::Check);
    assert_eq!(open.decide().steps, []);
}

#[test]
fn slots_are_where_the_promised_primary_says() {
    let at = |name: &str, at: u64| SlotState { name: name.into(), restart_lsn: Some(Lsn(at)), ..SlotState::default() };
    let feed = SlotState {
        plugin: Some("pgoutput".into()),
        database: Some("app".into()),
        confirmed_flush_lsn: Some(Lsn(800)),
        ..at("feed", 700)
    };
    let slots = |seen: &mut Observation| {
        let document = json!({"failsafe_mode": true, "slots": {
            "feed": {"database": "app", "plugin": "pgoutput"}, "kept": null, "more": {"database": "app", "plugin": "x"},
        }, "ignore_slots": [{"name": "theirs"}]});
        seen.settings = Dynamic::from_document(document.as_object().unwrap()).0;
        let told = seen.failsafe_ping.as_mut().unwrap().slots.as_mut().unwrap();
        told.extend([("feed", 5000), ("more", 800), ("theirs", 800)].map(|(name, at)| (name.to_owned(), Lsn(at))));
        let streaming = crate::cluster::WalReceiver { status: Some("streaming".into()), ..Default::default() };
        let monitor = seen.instance.monitor.as_mut().unwrap();
        monitor.slots = vec![at("a", 990), at("c", 1), at("kept", 900), at("theirs", 7), feed.clone()];
        monitor.receiver = Some(streaming);
    };
    let moved = |decision: &Decision, wants: &[(&str, u64)]| {
        let sync = decision.steps.iter().find_map(|step| match step {
            Step::SyncSlots(sync) => Some(sync),
            _ => None,
        });
        let sync = sync.unwrap_or_else(|| panic!("{:?}", decision.steps));
        for (name, to) in wants {
            let slot = sync.wanted.iter().find(|slot| slot.name == *name).unwrap();
            assert_eq!(slot.advance_to, Some(Lsn(*to)), "{name}");
        }
        let tending = decision.steps.iter().find_map(|step| match step {
            Step::TendSlots(tending) => Some(tending),
            _ => None,
        });
        let [advance] = &tending.unwrap().advance[..] else { panic!("{tending:?}") };
        assert_eq!((advance.name.as_str(), advance.to), ("feed", Lsn(1000)), "as far as was replayed");
        assert!(!decision.steps.iter().any(|step| matches!(step, Step::Begin(_))), "nothing is copied");
        sync.clone()
    };
    // The DCS is there, but knows no leader.
    let decision = scene("b", cluster().unlocked().build()).running(false).with(promised).with(slots).play(&[follows]);
    moved(&decision, &[("kept", 950)]);
    // Without the DCS what is here is moved, and nothing else is touched.
    let decision = scene("b", cluster().build()).running(false).with(promised).with(slots).with(without_dcs).decide();
    let sync = moved(&decision, &[("kept", 950)]);
    assert!(!sync.may_drop);
    assert_eq!(sync.wanted.iter().map(|slot| slot.name.as_str()).collect::<Vec<_>>(), ["a", "kept", "feed"]);
    let open = scene("b", cluster().build())
        .remembering(|memory| memory.rewind = RewindState::Check)
        .running(false)
        .with(promised);
    let decision = open.with(slots).with(without_dcs).decide();
    assert!(matches!(decision.steps[..], [Step::SyncSlots(_)]), "{:?}", decision.steps);
    let off = |seen: &mut Observation| seen.settings.use_slots = false;
    let decision =
        scene("b", cluster().build()).running(false).with(promised).with(slots).with(off).with(without_dcs).decide();
    assert_eq!(decision.steps, []);
}

#[test]
fn a_cascading_member_is_where_the_promised_primary_says() {
    let view = cluster().unlocked().member_field("c", "tags", json!({"replicatefrom": "b"}));
    let named = |seen: &mut Observation| {
        promised(seen);
        seen.failsafe_ping.as_mut().unwrap().slots.as_mut().unwrap().insert("c".into(), Lsn(977));
    };
    let decision = scene("b", view.build()).running(false).with(named).play(&[follows]);
    let wanted = decision.steps.iter().find_map(|step| match step {
        Step::SyncSlots(sync) => sync.wanted.iter().find(|slot| slot.name == "c"),
        _ => None,
    });
    assert_eq!(wanted.unwrap().advance_to, Some(Lsn(977)));
}

#[test]
fn a_primary_tells_where_its_slots_are() {
    let mut scene = scene("n-1", cluster().build()).running(true);
    let slot = |name: &str| SlotState { name: name.into(), restart_lsn: Some(Lsn(900)), ..SlotState::default() };
    let logical = SlotState {
        plugin: Some("pgoutput".into()),
        database: Some("app".into()),
        confirmed_flush_lsn: Some(Lsn(950)),
        ..slot("feed")
    };
    let theirs = SlotState { is_failover: true, ..logical.clone() };
    let theirs = SlotState { name: "theirs".into(), ..theirs };
    scene.seen.instance.monitor.as_mut().unwrap().slots = vec![slot("b"), logical, theirs];
    let told = |seen: &Observation| serde_json::to_value(slot_positions(seen)).unwrap();
    assert_eq!(told(&scene.seen), json!({"b": 900, "feed": 950, "n_1": 1000}));
    scene.seen.settings.member_slots_ttl = std::time::Duration::ZERO;
    scene.seen.settings.slots.insert("feed".into(), json!({}));
    assert_eq!(told(&scene.seen), json!({"feed": 950, "n_1": 1000}), "of members' slots nobody else keeps copies");
    scene.seen.instance.monitor = None;
    assert_eq!(told(&scene.seen), json!(null));
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
    assert_eq!(decision.wake_after_ms, Some(1_000), "asked again");

    // A candidate by name is bound by what it may have promised, too.
    let named = scene("b", unlocked().failover(Some("d"), Some("b")).build()).running(false).with(young);
    assert!(forgotten(&{ named }.play(&[level_peers, follows])));

    // Everybody answers, or has stepped down, or the start is long ago, or the mode is off and no leader's list is left.
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
    let is_off: fn(&mut Observation) = |seen| {
        seen.settings.failsafe_mode = false;
        let Snapshot::Read(view) = &mut seen.view else { panic!() };
        view.failsafe = None;
    };
    for change in [(|seen| seen.now_ms = 30_000) as fn(&mut Observation), is_off] {
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

/// Its agent was just restarted, and failsafe mode is off by now: before, it may have promised `a` that it may lead on.
#[test]
fn what_may_have_been_promised_before_a_restart_counts_also_when_the_mode_is_off_by_now() {
    let listed = |failsafe: &[&str]| {
        let failsafe = failsafe.iter().map(|name| ((*name).into(), format!("http://{name}"))).collect();
        cluster().unlocked().with(|view| view.failsafe = Some(failsafe)).build()
    };
    let young = |seen: &mut Observation| seen.now_ms = 5_000;
    let silent = |seen: &mut Observation| {
        let gone = || PeerAnswer::Unreachable("timed out".into());
        seen.done.peers = Some(["a", "c"].map(|name| (name.into(), gone())).into());
    };
    let races = |view: ClusterView| {
        let decision = scene("b", view).running(false).with(young).with(silent).decide();
        decision.steps.contains(&Step::AcquireLeader)
    };
    assert!(!races(listed(&["a", "b", "c"])));
    assert!(races(listed(&[])));
}

#[test]
fn a_leader_empties_the_list_of_who_counts_when_the_mode_is_off() {
    let kept: fn(&mut Done) = |done| done.renewal = Some(LockOutcome::Kept);
    let writes = |failsafe: &[&str]| {
        let failsafe = failsafe.iter().map(|name| ((*name).into(), format!("http://{name}"))).collect();
        let view = cluster().with(|view| view.failsafe = Some(failsafe)).build();
        scene("a", view).running(true).play(&[kept]).steps.contains(&Step::WriteFailsafe(BTreeMap::new()))
    };
    assert!(writes(&["a", "b"]));
    assert!(!writes(&[]));
}

/// `c` bars itself, for the last leader did not count it: whoever waits for it to take over waits for ever.
#[test]
fn nobody_waits_for_a_member_that_was_not_counted() {
    let counted = |seen: &mut Observation| {
        seen.settings.failsafe_mode = true;
        level_peers(&mut seen.done);
    };
    let view = |candidate: Option<&str>| {
        let failsafe = ["a", "b"].map(|name| (name.into(), format!("http://{name}"))).into();
        let barred = cluster().unlocked().member_field("b", "tags", json!({"nofailover": true}));
        barred.failover(Some("a"), candidate).with(|view| view.failsafe = Some(failsafe)).build()
    };
    for candidate in [None, Some("c")] {
        let mut scene = scene("a", view(candidate)).running(false).with(counted);
        scene.memory.known_members =
            view(None).members.into_iter().map(|member| (member.name.clone(), member)).collect();
        assert!(scene.decide().steps.contains(&Step::AcquireLeader), "{candidate:?}: {:?}", scene.decide());
    }
}
