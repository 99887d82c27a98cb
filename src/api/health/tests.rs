use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::api::fake::{dynamic, leader_facts, object, primary_live, replica_facts, standby_live, view};
use crate::api::node::Live;
use crate::cluster::{ClusterView, SyncState, Tags};

/// One node as a health check sees it; cases change what they are about.
struct Scene {
    facts: NodeFacts,
    live: Option<Live>,
    view: Option<ClusterView>,
}

impl Scene {
    fn leader() -> Self {
        Self { facts: leader_facts(), live: Some(primary_live()), view: Some(view()) }
    }

    fn replica() -> Self {
        Self { facts: replica_facts(), live: Some(standby_live()), view: Some(view()) }
    }

    fn settings(mut self, document: Value) -> Self {
        self.facts.dynamic = Arc::new(dynamic(document));
        self
    }

    fn voters(mut self, names: &[&str]) -> Self {
        let sync = SyncState {
            leader: Some("pg1".into()),
            voters: names.iter().map(|name| (*name).into()).collect(),
            ..SyncState::default()
        };
        self.view.as_mut().unwrap().sync = sync;
        self
    }

    fn tags(mut self, tags: Value) -> Self {
        self.facts.tags = Tags(object(tags));
        self
    }

    fn picture<T>(&self, look: impl FnOnce(&Picture<'_>) -> T) -> T {
        look(&Picture {
            facts: &self.facts,
            live: self.live.as_ref(),
            view: self.view.as_ref(),
            dynamic: &self.facts.dynamic,
        })
    }

    fn code(&self, target: &str) -> u16 {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        self.picture(|picture| check(picture, path, &parse_query(query)).as_u16())
    }

    fn is_ready(&self, query: &str) -> bool {
        self.picture(|picture| readiness(picture, &parse_query(query)).is_ok())
    }
}

/// Rows of codes for: leader, asynchronous replica, sync standby, other replica in sync mode, quorum voter, leader and
/// replica of a standby cluster.
#[test]
fn the_table() {
    let sync = || json!({"synchronous_mode": true});
    let standby = || json!({"standby_cluster": {"host": "h"}});
    let mut standby_leader = Scene::leader().settings(standby());
    standby_leader.facts.role = Role::StandbyLeader;
    standby_leader.live = Some(standby_live());
    let scenes = [
        Scene::leader(),
        Scene::replica(),
        Scene::replica().settings(sync()).voters(&["pg2"]),
        Scene::replica().settings(sync()).voters(&["pg3"]),
        Scene::replica().settings(json!({"synchronous_mode": "quorum"})).voters(&["pg2", "pg3"]),
        standby_leader,
        Scene::replica().settings(standby()),
    ];
    let (ok, no) = (200, 503);
    for (paths, codes) in [
        ("/ /primary /master /read-write /foo/primary/x", [ok, no, no, no, no, no, no]),
        ("/leader", [ok, no, no, no, no, ok, no]),
        ("/standby-leader /standby_leader", [no, no, no, no, no, ok, no]),
        ("/replica", [no, ok, ok, ok, ok, no, ok]),
        ("/read-only", [ok, ok, ok, ok, ok, ok, ok]),
        ("/sync /synchronous", [no, no, ok, no, no, no, no]),
        ("/quorum", [no, no, no, no, ok, no, no]),
        ("/async /asynchronous", [no, ok, no, ok, no, no, ok]),
        ("/read-only-sync /read-only-synchronous", [ok, no, ok, no, no, ok, no]),
        ("/read-only-quorum", [ok, no, no, no, ok, ok, no]),
        ("/health", [ok; 7]),
        ("/REPLICA /foo /sync/x /switchover", [no; 7]),
    ] {
        for path in paths.split(' ') {
            let found: Vec<u16> = scenes.iter().map(|scene| scene.code(path)).collect();
            assert_eq!(found, codes, "{path}");
        }
    }
}

#[test]
fn without_the_dcs_the_first_table_stands_and_the_second_falls() {
    let mut leader = Scene::leader();
    let mut replica = Scene::replica();
    leader.view = None;
    replica.view = None;
    for (path, on_leader, on_replica) in [
        ("/primary", 200, 503),
        ("/replica", 503, 200),
        ("/read-only", 200, 200),
        ("/health", 200, 200),
        ("/async", 503, 503),
        ("/read-only-sync", 503, 503),
    ] {
        assert_eq!((leader.code(path), replica.code(path)), (on_leader, on_replica), "{path}");
    }
}

#[test]
fn in_maintenance_without_a_snapshot_postgresql_decides() {
    let mut scene = Scene::leader().settings(json!({"pause": true}));
    scene.facts.holds_lock = false;
    assert_eq!(scene.code("/primary"), 503);
    scene.view = None;
    assert_eq!(scene.code("/primary"), 200);
    assert_eq!(scene.code("/leader"), 200);
    assert_eq!(scene.code("/standby-leader"), 503);
}

#[test]
fn the_lock_is_enough_for_the_leader_and_not_for_a_replica() {
    let mut scene = Scene::leader();
    scene.facts.state = Some(State::Stopped);
    scene.live = None;
    assert_eq!(scene.code("/primary"), 200);
    assert_eq!(scene.code("/health"), 503);
    let mut scene = Scene::replica();
    scene.live = None;
    assert_eq!(scene.code("/replica"), 503);
    assert_eq!(scene.code("/health"), 503);
}

#[test]
fn lag_counts_what_is_not_replayed() {
    let mut scene = Scene::replica();
    let live = scene.live.as_mut().unwrap();
    live.replayed = Lsn(1_000);
    live.latest_end_lsn = Some(Lsn(3_048));
    for (target, code) in [
        ("/replica", 200),
        ("/replica?lag=2048", 200),
        ("/replica?lag=2047", 503),
        ("/replica?lag=2kB", 200),
        ("/replica?lag=1.9kB", 503),
        ("/replica?lag=nonsense", 200),
        ("/replica?lag=", 200),
        ("/replica?lag=-1", 503),
        ("/read-only?lag=1", 503),
        ("/replica?lag=2048&lag=1", 200),
    ] {
        assert_eq!(scene.code(target), code, "{target}");
    }
    scene.view.as_mut().unwrap().status.optime = Some(Lsn(4_000));
    assert_eq!(scene.code("/replica?lag=2048"), 503);
    assert_eq!(Scene::leader().code("/read-only?lag=1"), 200);
}

#[test]
fn tags_and_replication_state() {
    let scene = Scene::replica().tags(json!({"zone": "a b", "n": 10, "on": true}));
    for (target, code) in [
        ("/replica?tag_zone=a%20b", 200),
        ("/replica?tag_zone=a+b&tag_n=10&tag_on=true", 200),
        ("/replica?tag_zone=b", 503),
        ("/replica?tag_on=True", 503),
        ("/replica?tag_none=x", 503),
        ("/replica?tag_none=", 200),
        ("/health?tag_zone=b", 503),
        ("/async?tag_zone=b", 503),
        ("/replica?replication_state=streaming", 200),
        ("/replica?replication_state=in%20archive%20recovery", 503),
        ("/replica?other=1", 200),
    ] {
        assert_eq!(scene.code(target), code, "{target}");
    }
    let leader = Scene::leader().tags(json!({"zone": "a"}));
    assert_eq!((leader.code("/primary?tag_zone=b"), leader.code("/read-only?tag_zone=b")), (200, 503));
    assert_eq!(Scene::replica().tags(json!({"noloadbalance": true})).code("/replica"), 503);
    assert_eq!(Scene::replica().tags(json!({"noloadbalance": true})).code("/health"), 200);
}

#[tokio::test(start_paused = true)]
async fn liveness_is_a_turning_loop() {
    let now = Instant::now();
    let mut facts = leader_facts();
    let code = |facts: &NodeFacts, after: u64| liveness(facts, now + Duration::from_secs(after)).as_u16();
    facts.next_cycle = now;
    assert_eq!((code(&facts, 29), code(&facts, 30)), (200, 503));
    facts.role = Role::Replica;
    assert_eq!((code(&facts, 59), code(&facts, 60)), (200, 503));
    facts.dynamic = Arc::new(dynamic(json!({"pause": true})));
    assert_eq!(code(&facts, 1000), 200);
}

#[test]
fn readiness_of_leaders_and_followers() {
    assert!(Scene::leader().is_ready(""));
    let mut primary_without_lock = Scene::leader();
    primary_without_lock.facts.holds_lock = false;
    assert!(!primary_without_lock.is_ready(""));

    let mut scene = Scene::replica();
    assert!(scene.is_ready(""));
    scene.view.as_mut().unwrap().status.optime = Some(Lsn(1000 + 1_048_577));
    assert!(!scene.is_ready(""), "over maximum_lag_on_failover");
    assert!(scene.is_ready("lag=2MB"));
    assert!(!scene.is_ready("lag=1kB"));
    scene.live.as_mut().unwrap().received = Lsn(1000 + 1_048_577);
    assert!(scene.is_ready("mode=write&lag=0"));
    assert!(!scene.is_ready("mode=apply&lag=0"));
    scene.live.as_mut().unwrap().replication_state = Some("in archive recovery".to_owned());
    assert!(!scene.is_ready(""));
}

#[test]
fn readiness_without_any_known_leader_position() {
    let mut scene = Scene::replica();
    scene.view = None;
    assert!(scene.is_ready(""), "the receiver knows it");
    scene.live.as_mut().unwrap().latest_end_lsn = None;
    assert!(!scene.is_ready(""));
    scene.facts.is_failsafe_active = true;
    assert!(scene.is_ready(""));
}

#[test]
fn queries_are_decoded() {
    let query = parse_query("a=1&a=2&b=%41%zz+&c=&d&=e&%C3%A4=1");
    let pairs: Vec<(&str, &str)> = query.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(pairs, [("", "e"), ("a", "1"), ("b", "A%zz "), ("ä", "1")]);
}
