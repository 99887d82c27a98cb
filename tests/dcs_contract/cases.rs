//! What every backend promises, the wakes apart.

use std::collections::BTreeMap;
use std::time::Duration;

use pgherd::cluster::{ClusterView, FailoverKey, LeaderKey, Lsn, MemberName, Status, SyncState, Version};
use pgherd::dcs::{Dcs, DcsError, Identity};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use crate::backend::{TIMING, World, object};

async fn leader(dcs: &dyn Dcs) -> LeaderKey {
    dcs.load().await.unwrap().leader.expect("a leader key")
}

async fn until(dcs: &dyn Dcs, condition: impl Fn(&ClusterView) -> bool) -> ClusterView {
    let deadline = Instant::now() + 6 * TIMING.ttl;
    loop {
        let view = dcs.load().await.unwrap();
        if condition(&view) {
            return view;
        }
        assert!(Instant::now() < deadline, "it did not come to this: {view:#?}");
        sleep(Duration::from_millis(50)).await;
    }
}

fn lease(key: &LeaderKey) -> i64 {
    key.session.as_ref().expect("a lease").0.parse().unwrap()
}

pub(crate) async fn an_absent_cluster_is_an_empty_view(world: &World) {
    assert_eq!(world.agent("a").await.load().await.unwrap(), ClusterView::default());
    assert_eq!(world.operator().await.load().await.unwrap(), ClusterView::default());
}

pub(crate) async fn documents_come_back_as_they_were_written(world: &World) {
    let dcs = world.operator().await;
    let config = object(json!({"ttl": 30, "postgresql": {"parameters": {"max_connections": 100}}, "x": "é"}));
    let status = Status {
        optime: Some(Lsn(67394040)),
        slots: Some(BTreeMap::from([("a".to_owned(), Lsn(5))])),
        retain_slots: Some(vec!["a".to_owned()]),
    };
    let history = json!([[1, 67393544, "no recovery target specified", "2026-11-20T14:57:03.251258+00:00", "b"]]);
    let failsafe = BTreeMap::from([(MemberName::from("a"), "http://a:8008/patroni".to_owned())]);
    let request = FailoverKey { candidate: Some("b".into()), ..FailoverKey::default() };
    let sync = SyncState { leader: Some("a".into()), voters: vec!["b".into()], ..SyncState::default() };
    dcs.set_initialize("7710267184385916675").await.unwrap();
    assert!(dcs.write_config(&config, None).await.unwrap());
    dcs.write_status(&status).await.unwrap();
    dcs.write_history(&history).await.unwrap();
    dcs.write_failsafe(&failsafe).await.unwrap();
    assert!(dcs.write_failover(&request, None).await.unwrap());
    let version = dcs.write_sync(&sync, None).await.unwrap();
    assert!(version.is_some());

    let view = dcs.load().await.unwrap();
    assert_eq!(view.system_id().unwrap().as_str(), "7710267184385916675");
    assert_eq!(view.config_document(), Some(&config));
    assert_eq!(view.status, status);
    assert_eq!(view.history.unwrap().raw, history);
    assert_eq!(view.failsafe, Some(failsafe));
    assert_eq!(view.failover.unwrap().candidate, request.candidate);
    assert_eq!(view.sync, SyncState { version, ..sync });
    assert_eq!(
        world.get("sync").await.unwrap(),
        r#"{"leader":"a","quorum":0,"sync_standby":"b"}"#,
        "the text that Patroni members read"
    );
    assert!(world.get("config").await.unwrap().contains(r#""x":"\u00e9""#));
}

pub(crate) async fn the_leader_key_is_created_once(world: &World) {
    let (a, b) = (world.agent("a").await, world.agent("b").await);
    a.touch_member(&object(json!({"state": "running"}))).await.unwrap();
    assert!(a.acquire_leader(None).await.unwrap());
    assert!(!b.acquire_leader(None).await.unwrap());
    assert!(!a.acquire_leader(None).await.unwrap(), "the own key is there already");
    let view = b.load().await.unwrap();
    assert!(view.has_lock("a"));
    assert!(view.members[0].session.is_some());
    assert_eq!(view.leader.unwrap().session, view.members[0].session, "both keys hang on one lease");
}

/// Whoever was asleep since it read `/sync` must not lead by it.
pub(crate) async fn the_leader_key_is_refused_by_an_older_sync(world: &World) {
    let (a, b) = (world.agent("a").await, world.agent("b").await);
    let absent = SyncState::default();
    let first = SyncState { leader: Some("a".into()), ..SyncState::default() };
    let version = a.write_sync(&first, None).await.unwrap();
    assert!(!b.acquire_leader(Some(&absent)).await.unwrap(), "it is there now");
    let read = SyncState { version, ..first.clone() };
    a.write_sync(&SyncState { voters: vec!["c".into()], ..first }, version).await.unwrap().unwrap();
    assert!(!b.acquire_leader(Some(&read)).await.unwrap(), "it has changed");
    let view = b.load().await.unwrap();
    assert!(view.is_unlocked());
    assert!(b.acquire_leader(Some(&view.sync)).await.unwrap());
    assert!(b.release_leader(None).await.unwrap());
    assert!(a.delete_sync(view.sync.version).await.unwrap());
    assert!(!b.acquire_leader(Some(&view.sync)).await.unwrap(), "it is gone");
    assert!(b.acquire_leader(Some(&absent)).await.unwrap());
}

pub(crate) async fn of_many_only_one_wins(world: &World) {
    let mut racing = Vec::new();
    for i in 0..8 {
        let dcs = world.agent(&format!("n{i}")).await;
        racing.push(tokio::spawn(async move { dcs.acquire_leader(None).await.unwrap() }));
    }
    let mut winners = 0;
    for race in racing {
        winners += i32::from(race.await.unwrap());
    }
    assert_eq!(winners, 1);
}

pub(crate) async fn an_unchanged_member_is_not_written_but_its_lease_lives(world: &World) {
    let a = world.agent("a").await;
    let value = object(json!({"state": "running", "xlog_location": 5}));
    a.touch_member(&value).await.unwrap();
    let first = a.load().await.unwrap().members[0].version;
    let begin = Instant::now();
    while begin.elapsed() < TIMING.ttl + TIMING.loop_wait {
        a.touch_member(&object(json!({"xlog_location": "5", "state": "running"}))).await.unwrap();
        sleep(TIMING.loop_wait / 2).await;
    }
    assert_eq!(a.load().await.unwrap().members[0].version, first);
    a.touch_member(&object(json!({"state": "stopped"}))).await.unwrap();
    let member = a.load().await.unwrap().members.remove(0);
    assert!(member.version > first && member.state_text() == "stopped");
    world.backend.delete(&world.key("members/a")).await;
    assert!(a.load().await.unwrap().members.is_empty());
    a.touch_member(&object(json!({"state": "stopped"}))).await.unwrap();
    assert_eq!(a.load().await.unwrap().members.len(), 1, "a snapshot without the own key makes it be written again");
}

pub(crate) async fn a_lease_that_nobody_renews_takes_its_keys_along(world: &World) {
    let (a, b) = (world.agent("a").await, world.agent("b").await);
    a.touch_member(&object(json!({"state": "running"}))).await.unwrap();
    let begin = Instant::now();
    assert!(a.acquire_leader(None).await.unwrap());
    let view = until(&*b, |view| view.is_unlocked() && view.members.is_empty()).await;
    assert!(begin.elapsed() >= TIMING.ttl, "gone after {:?}", begin.elapsed());
    assert!(view.leader.is_none());
    assert!(b.acquire_leader(None).await.unwrap());
}

pub(crate) async fn nothing_renews_a_lease_but_a_call(world: &World) {
    let a = world.agent("a").await;
    let mut changes = a.changes();
    assert!(a.acquire_leader(None).await.unwrap());
    // The watch runs and reading goes on; neither is a sign of life of the loop.
    until(&*a, ClusterView::is_unlocked).await;
    timeout(TIMING.ttl, changes.changed()).await.unwrap().unwrap();
}

pub(crate) async fn renewing_leaves_the_leader_key_alone(world: &World) {
    let a = world.agent("a").await;
    assert!(a.acquire_leader(None).await.unwrap());
    let seen = leader(&*a).await;
    let begin = Instant::now();
    while begin.elapsed() < 2 * TIMING.ttl {
        assert!(a.renew_leader(&seen).await.unwrap());
        sleep(TIMING.loop_wait).await;
    }
    assert_eq!(leader(&*a).await, seen);
}

pub(crate) async fn renewing_after_the_lease_is_gone_puts_the_key_on_a_new_one(world: &World) {
    let a = world.agent("a").await;
    assert!(a.acquire_leader(None).await.unwrap());
    let seen = leader(&*a).await;
    world.backend.revoke(lease(&seen)).await;
    assert!(a.load().await.unwrap().is_unlocked());
    assert!(a.renew_leader(&seen).await.unwrap());
    let now = leader(&*a).await;
    assert!(now.name == seen.name && now.session != seen.session && now.session.is_some());
    a.touch_member(&object(json!({}))).await.unwrap();
    assert_eq!(a.load().await.unwrap().members[0].session, now.session);
}

pub(crate) async fn renewing_does_not_take_the_key_from_somebody_else(world: &World) {
    let (a, b) = (world.agent("a").await, world.agent("b").await);
    assert!(a.acquire_leader(None).await.unwrap());
    let seen = leader(&*a).await;
    world.backend.revoke(lease(&seen)).await;
    assert!(b.acquire_leader(None).await.unwrap());
    assert!(!a.renew_leader(&seen).await.unwrap());
    assert!(leader(&*a).await.name == "b");
}

pub(crate) async fn renewing_adopts_the_own_key_from_another_lease(world: &World) {
    let a = world.agent("a").await;
    world.put("leader", "a").await;
    let seen = leader(&*a).await;
    assert_eq!(seen.session, None);
    assert!(a.renew_leader(&seen).await.unwrap());
    assert!(leader(&*a).await.session.is_some());
}

pub(crate) async fn releasing_deletes_only_the_own_key(world: &World) {
    let (a, b) = (world.agent("a").await, world.agent("b").await);
    assert!(!a.release_leader(None).await.unwrap());
    assert!(a.acquire_leader(None).await.unwrap());
    assert!(!b.release_leader(None).await.unwrap());
    assert!(leader(&*b).await.name == "a");
    let status = Status { optime: Some(Lsn(42)), ..Status::default() };
    assert!(a.release_leader(Some(&status)).await.unwrap());
    let view = b.load().await.unwrap();
    assert!(view.leader.is_none() && view.status == status);
    assert!(b.acquire_leader(None).await.unwrap());
}

pub(crate) async fn taking_the_leader_key_asks_nobody(world: &World) {
    let (a, b) = (world.agent("a").await, world.agent("b").await);
    assert!(a.acquire_leader(None).await.unwrap());
    b.take_leader().await.unwrap();
    let key = leader(&*b).await;
    assert!(key.name == "b" && key.session.is_some());
    assert!(b.renew_leader(&key).await.unwrap());
}

pub(crate) async fn initialize_is_raced_for_set_and_cancelled(world: &World) {
    let (a, b) = (world.agent("a").await, world.agent("b").await);
    assert!(a.race_initialize("").await.unwrap());
    assert!(!b.race_initialize("").await.unwrap());
    assert_eq!(b.load().await.unwrap().initialize.as_deref(), Some(""));
    a.cancel_initialize().await.unwrap();
    a.cancel_initialize().await.unwrap();
    assert!(b.race_initialize("7710267184385916675").await.unwrap());
    b.set_initialize("7710267184385916676").await.unwrap();
    assert_eq!(world.get("initialize").await.unwrap(), "7710267184385916676");
}

pub(crate) async fn conditional_writes_need_the_version(world: &World) {
    let (a, b) = (world.agent("a").await, world.operator().await);
    let config = |ttl: u64| object(json!({ "ttl": ttl }));
    assert!(!a.write_config(&config(1), Some(Version(1))).await.unwrap(), "an absent key has no version");
    assert!(a.write_config(&config(1), None).await.unwrap());
    let seen = a.load().await.unwrap().config.unwrap().version;
    assert!(b.write_config(&config(2), Some(seen)).await.unwrap());
    assert!(!a.write_config(&config(3), Some(seen)).await.unwrap());
    assert_eq!(a.load().await.unwrap().config_document(), Some(&config(2)));

    let request = FailoverKey { candidate: Some("b".into()), ..FailoverKey::default() };
    assert!(b.write_failover(&request, None).await.unwrap());
    let seen = a.load().await.unwrap().failover.unwrap();
    assert!(a.write_failover(&FailoverKey::default(), Some(seen.version)).await.unwrap());
    assert!(!a.write_failover(&request, Some(seen.version)).await.unwrap());
    let blank = a.load().await.unwrap().failover.unwrap();
    assert!(blank.is_blank() && blank.version > seen.version);
    assert_eq!(world.get("failover").await.unwrap(), "{}");
}

pub(crate) async fn sync_is_written_and_deleted_by_version(world: &World) {
    let a = world.agent("a").await;
    let state = SyncState { leader: Some("a".into()), ..SyncState::default() };
    let first = a.write_sync(&state, None).await.unwrap().unwrap();
    assert_eq!(a.load().await.unwrap().sync.version, Some(first));
    let second = a.write_sync(&state, Some(first)).await.unwrap().unwrap();
    let third = a.write_sync(&state, Some(second)).await.unwrap().unwrap();
    assert!(a.write_sync(&state, Some(first)).await.unwrap().is_none());
    assert!(!a.delete_sync(Some(second)).await.unwrap());
    assert!(a.delete_sync(Some(third)).await.unwrap());
    assert_eq!(a.load().await.unwrap().sync, SyncState::default());
    assert!(a.delete_sync(None).await.unwrap(), "what is absent may be deleted");
}

pub(crate) async fn a_new_ttl_means_a_new_lease(world: &World) {
    let a = world.agent("a").await;
    let value = object(json!({"state": "running"}));
    a.touch_member(&value).await.unwrap();
    assert!(a.acquire_leader(None).await.unwrap());
    let seen = leader(&*a).await;
    a.set_timing(pgherd::dcs::Timing { ttl: TIMING.ttl * 20, ..TIMING });
    assert!(a.renew_leader(&seen).await.unwrap());
    a.touch_member(&value).await.unwrap();
    let view = a.load().await.unwrap();
    let now = view.leader.unwrap();
    assert_ne!(now.session, seen.session);
    assert_eq!(view.members[0].session, now.session);
    // The new lease is as long as it should be: nothing happens when the old one ends.
    let begin = Instant::now();
    while begin.elapsed() < 2 * TIMING.ttl {
        assert!(a.load().await.unwrap().has_lock("a"));
        sleep(TIMING.ttl / 3).await;
    }
}

pub(crate) async fn an_operator_has_no_lease(world: &World) {
    let ctl = world.operator().await;
    let seen = LeaderKey { name: "a".into(), version: Version(1), session: None };
    assert!(matches!(ctl.acquire_leader(None).await, Err(DcsError::Refused { .. })));
    assert!(matches!(ctl.renew_leader(&seen).await, Err(DcsError::Refused { .. })));
    assert!(matches!(ctl.take_leader().await, Err(DcsError::Refused { .. })));
    assert!(matches!(ctl.release_leader(None).await, Err(DcsError::Refused { .. })));
    assert!(matches!(ctl.touch_member(&object(json!({}))).await, Err(DcsError::Refused { .. })));
}

pub(crate) async fn deleting_a_cluster_leaves_its_neighbours(world: &World) {
    let neighbour = format!("{}2", world.scope);
    let other = world.backend.connect(&neighbour, None, Identity::Operator).await;
    other.set_initialize("x").await.unwrap();
    let dcs = world.operator().await;
    dcs.set_initialize("x").await.unwrap();
    world.put("members/a", "{}").await;
    dcs.delete_cluster().await.unwrap();
    dcs.delete_cluster().await.unwrap();
    assert_eq!(dcs.load().await.unwrap(), ClusterView::default());
    assert!(other.load().await.unwrap().initialize.is_some());
}

pub(crate) async fn citus_groups_share_a_scope(world: &World) {
    let agent = |name: &str| Identity::Agent { name: name.into() };
    let coordinator = world.backend.connect(&world.scope, Some(0), agent("c")).await;
    let worker = world.backend.connect(&world.scope, Some(1), agent("w")).await;
    assert!(coordinator.acquire_leader(None).await.unwrap());
    assert!(worker.acquire_leader(None).await.unwrap());
    assert_eq!(world.get("1/leader").await.as_deref(), Some("w"));
    let view = coordinator.load().await.unwrap();
    assert!(view.has_lock("c") && view.workers[&1].has_lock("w"));
    let own = worker.load().await.unwrap();
    assert!(own.has_lock("w") && own.workers.is_empty());
    worker.delete_cluster().await.unwrap();
    assert!(coordinator.load().await.unwrap().has_lock("c"));
}

pub(crate) async fn values_nobody_can_read_do_not_hurt(world: &World) {
    let a = world.agent("a").await;
    for key in ["config", "members/b", "status", "failover", "sync", "history", "failsafe", "nonsense", "members/x/y"] {
        world.backend.put(&world.key(key), b"\xff{not json").await;
    }
    let view = a.load().await.unwrap();
    assert!(view.config.is_some() && view.config_document().is_none());
    assert_eq!(view.members.len(), 1);
    assert!(view.sync.is_empty() && view.sync.version.is_some() && view.failsafe.is_none());
    assert!(a.write_config(&object(json!({})), view.config.map(|key| key.version)).await.unwrap());
}
