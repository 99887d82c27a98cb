use serde_json::json;

use super::*;
use crate::api::fake::{Done, FakeNode, lead, object, view};
use crate::cluster::SyncState;

const NOW_MS: i64 = 1_795_132_800_000;

async fn ask(node: &FakeNode, kind: Handover, body: Value) -> (u16, String) {
    let view = node.view.lock().unwrap().clone().unwrap();
    let settings = node.facts.lock().unwrap().dynamic.clone();
    let answer = hand_over(node, (kind, &object(body)), &view, &settings, NOW_MS).await;
    (answer.status.as_u16(), answer.content().unwrap().1)
}

fn then(node: FakeNode, change: impl FnMut(&mut ClusterView) + Send + 'static) -> FakeNode {
    *node.after_failover.lock().unwrap() = Some(Box::new(change));
    node
}

fn moved_to(name: &'static str) -> impl FnMut(&mut ClusterView) + Send + 'static {
    move |view| {
        lead(view, name);
        view.failover = Some(FailoverKey::default());
    }
}

fn answers(code: u16, text: &str) -> (u16, String) {
    (code, text.to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_switchover_ends_with_the_new_leader() {
    let node = then(FakeNode::leader().with_peer("pg2", json!({})), moved_to("pg2"));
    let answer = ask(&node, Handover::Switchover, json!({"leader": "pg1", "candidate": "pg2"})).await;
    assert_eq!(answer, answers(200, "Successfully switched over to \"pg2\""));
    let done = node.done();
    assert!(matches!(&done[..], [Done::Failover(key, None), Done::Wake] if key.candidate == Some("pg2".into())));
}

#[tokio::test(start_paused = true)]
async fn other_endings() {
    let pg2 = json!({"candidate": "pg2"});
    let fresh = || FakeNode::leader().with_peer("pg2", json!({})).with_peer("pg3", json!({}));
    let node = then(fresh(), moved_to("pg3"));
    let answer = ask(&node, Handover::Failover, pg2.clone()).await;
    assert_eq!(answer, answers(200, "Failed over to \"pg3\" instead of \"pg2\""));
    let node = then(fresh(), moved_to("pg2"));
    assert_eq!(ask(&node, Handover::Failover, pg2.clone()).await.1, "Successfully failed over to \"pg2\"");
    let node = then(fresh(), |view| view.failover = Some(FailoverKey::default()));
    assert_eq!(ask(&node, Handover::Failover, pg2.clone()).await, answers(503, "Failover failed"));
    let node = then(fresh(), |_| ());
    let begun = Instant::now();
    let message = "Failover status unknown after 20 seconds; operation may still be in progress";
    assert_eq!(ask(&node, Handover::Failover, pg2.clone()).await, answers(503, message));
    assert!(begun.elapsed() >= Duration::from_secs(20));
    let node = fresh();
    *node.accepts_writes.lock().unwrap() = false;
    assert_eq!(ask(&node, Handover::Failover, pg2).await, answers(503, "failed to write failover key into DCS"));
}

#[tokio::test(start_paused = true)]
async fn a_blank_key_counts_only_after_a_while() {
    let node = FakeNode::leader().with_peer("pg2", json!({}));
    *node.after_failover.lock().unwrap() = Some(Box::new(|view| view.failover = None));
    let begun = Instant::now();
    assert_eq!(ask(&node, Handover::Failover, json!({"candidate": "pg2"})).await.0, 503);
    assert!(begun.elapsed() >= BLANK_COUNTS_AFTER);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_feasible() {
    let node = || FakeNode::leader().with_peer("pg2", json!({"nofailover": true}));
    let no_good = "switchover is not possible: no good candidates have been found";
    for (kind, body, message) in [
        (Handover::Switchover, json!({"leader": "pg2"}), "leader name does not match"),
        (Handover::Failover, json!({"candidate": "nobody"}), "candidate does not exists"),
        (Handover::Switchover, json!({"leader": "pg1"}), no_good),
        (Handover::Failover, json!({"leader": "pg1", "candidate": "pg3"}), no_good),
    ] {
        let node = node();
        assert_eq!(ask(&node, kind, body.clone()).await, answers(412, message), "{body}");
        assert!(node.done().is_empty());
    }
    let alone = FakeNode::leader();
    alone.view.lock().unwrap().as_mut().unwrap().members.truncate(1);
    let message = "switchover is not possible: cluster does not have members except leader";
    assert_eq!(ask(&alone, Handover::Switchover, json!({"leader": "pg1"})).await, answers(412, message));
}

#[tokio::test(start_paused = true)]
async fn synchronous_mode_narrows_the_choice() {
    let node = |voters: &[&str]| {
        let node = FakeNode::leader().settings(json!({"synchronous_mode": true})).with_peer("pg3", json!({}));
        node.view.lock().unwrap().as_mut().unwrap().sync = SyncState {
            leader: Some("pg1".into()),
            voters: voters.iter().map(|name| (*name).into()).collect(),
            ..SyncState::default()
        };
        then(node, moved_to("pg3"))
    };
    let from = json!({"leader": "pg1"});
    let to_pg2 = json!({"leader": "pg1", "candidate": "pg2"});
    let not_sync = "candidate name does not match with sync_standby";
    assert_eq!(ask(&node(&["pg3"]), Handover::Switchover, to_pg2).await, answers(412, not_sync));
    let none = "switchover is not possible: can not find sync_standby";
    assert_eq!(ask(&node(&[]), Handover::Switchover, from.clone()).await, answers(412, none));
    assert_eq!(ask(&node(&["pg2"]), Handover::Switchover, from.clone()).await.0, 412, "pg2 is silent");
    assert_eq!(ask(&node(&["pg3"]), Handover::Switchover, from).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn a_scheduled_switchover_is_only_written() {
    let node = FakeNode::leader();
    let body = json!({"leader": "other", "scheduled_at": "2035-01-01T00:00+02:00"});
    assert_eq!(ask(&node, Handover::Switchover, body).await, answers(202, "Switchover scheduled"));
    assert!(matches!(&node.done()[..], [Done::Failover(..), Done::Wake]));
}

#[tokio::test]
async fn cancelling() {
    let node = FakeNode::leader();
    let mut view = view();
    let said = |answer: Answer| (answer.status.as_u16(), answer.content().unwrap().1);
    assert_eq!(said(cancel(&node, &view).await), answers(404, "no switchover is scheduled"));
    let version = crate::cluster::Version(9);
    let scheduled_at = Some("2035-01-01T00:00:00+00:00".to_owned());
    view.failover = Some(FailoverKey { version, leader: Some("pg1".into()), candidate: None, scheduled_at });
    assert_eq!(said(cancel(&node, &view).await), answers(200, "scheduled switchover deleted"));
    assert_eq!(node.done(), [Done::Failover(FailoverKey::default(), Some(version))]);
    *node.accepts_writes.lock().unwrap() = false;
    assert_eq!(said(cancel(&node, &view).await).0, 409);
}
