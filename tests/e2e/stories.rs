//! What an operator lives through, on real etcd and real PostgreSQL.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Cluster, Kind, Store};
use crate::writer::{Writer, assert_nothing_lost};

const OURS: [Kind; 3] = [Kind::Pgherd; 3];
const LONG: Duration = Duration::from_secs(60);

fn settings() -> serde_json::Value {
    json!({
        "ttl": 20, "loop_wait": 5, "retry_timeout": 5, "maximum_lag_on_failover": 1_048_576,
        "postgresql": {"use_pg_rewind": true, "parameters": {"max_wal_size": "256MB", "wal_keep_size": "64MB"}}
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_born_and_says_so() {
    let cluster = Cluster::healthy(Store::Etcd, &OURS, settings()).await;
    let leader = cluster.leader().await.unwrap();
    let replica = (leader + 1) % 3;
    assert_eq!(cluster.get(leader, "/primary").await.unwrap().0, 200);
    assert_eq!(cluster.get(replica, "/primary").await.unwrap().0, 503);
    assert_eq!(cluster.get(replica, "/replica").await.unwrap().0, 200);
    assert_eq!(cluster.get(replica, "/readiness").await.unwrap().0, 200);
    assert_eq!(cluster.get(leader, "/liveness").await.unwrap().0, 200);
    let (_, body) = cluster.get(leader, "/cluster").await.unwrap();
    let view: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(view["members"].as_array().unwrap().len(), 3);
    assert_eq!(view["scope"], "e2e");
    let (code, config) = cluster.get(leader, "/config").await.unwrap();
    assert_eq!(code, 200);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&config).unwrap()["loop_wait"], 5);
    // Every replica streams through a slot of its own.
    let slots = cluster.sql(leader, "SELECT count(*) FROM pg_replication_slots WHERE active").await.unwrap();
    assert_eq!(slots[0][0].as_deref(), Some("2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switchover_loses_nothing_and_the_old_leader_follows() {
    let cluster = Cluster::healthy(Store::Etcd, &OURS, settings()).await;
    let leader = cluster.leader().await.unwrap();
    let candidate = (leader + 1) % 3;
    let writer = Writer::start(&cluster).await;
    let began = Instant::now();
    writer.wait_acknowledged_after(began, LONG).await;
    let body = json!({"leader": cluster.members[leader].name, "candidate": cluster.members[candidate].name});
    let answer = crate::harness::http_within(
        LONG,
        "POST",
        cluster.members[leader].api_port,
        "/switchover",
        Some(body.to_string()),
    )
    .await;
    let words = format!("Successfully switched over to \"{}\"", cluster.members[candidate].name);
    assert_eq!(answer, Some((200, words)), "{}", cluster.dump());
    assert_eq!(cluster.wait_leader(LONG, |_| true).await, candidate);
    cluster.wait_healthy(LONG).await;
    writer.wait_acknowledged_after(Instant::now(), LONG).await;
    assert_nothing_lost(&cluster, writer.finish().await).await;
    let (_, history) = cluster.get(candidate, "/history").await.unwrap();
    let history: serde_json::Value = serde_json::from_str(&history).unwrap();
    assert_eq!(history[0][4], cluster.members[candidate].name.as_str(), "{history}");
    cluster.assert_journals_replay().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_postmaster_comes_back_under_the_same_leader() {
    let cluster = Cluster::healthy(Store::Etcd, &OURS, settings()).await;
    let leader = cluster.leader().await.unwrap();
    let writer = Writer::start(&cluster).await;
    writer.wait_acknowledged_after(Instant::now(), LONG).await;
    let killed = Instant::now();
    cluster.kill_postmaster(leader);
    writer.wait_acknowledged_after(killed + Duration::from_millis(200), LONG).await;
    cluster.wait_healthy(LONG).await;
    assert_eq!(cluster.leader().await, Some(leader));
    assert_nothing_lost(&cluster, writer.finish().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_leader_is_replaced_and_rejoins() {
    let mut cluster = Cluster::healthy(Store::Etcd, &OURS, settings()).await;
    let leader = cluster.leader().await.unwrap();
    cluster.kill_agent(leader);
    cluster.kill_postmaster(leader);
    let new = cluster.wait_leader(LONG, |now| now != leader).await;
    cluster.sql(new, "CREATE TABLE after_failover (id int)").await.unwrap();
    cluster.start(leader);
    cluster.wait_healthy(LONG).await;
    assert_eq!(cluster.leader().await, Some(new));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_agent_hands_over() {
    let mut cluster = Cluster::healthy(Store::Etcd, &OURS, settings()).await;
    let leader = cluster.leader().await.unwrap();
    let writer = Writer::start(&cluster).await;
    writer.wait_acknowledged_after(Instant::now(), LONG).await;
    cluster.terminate_agent(leader, LONG);
    assert_eq!(cluster.postmaster(leader), None, "the server ends with its agent");
    cluster.wait_leader(LONG, |now| now != leader).await;
    writer.wait_acknowledged_after(Instant::now(), LONG).await;
    assert_nothing_lost(&cluster, writer.finish().await).await;
    cluster.start(leader);
    cluster.wait_healthy(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_dcs_makes_the_primary_read_only_until_it_is_back() {
    let mut cluster = Cluster::healthy(Store::Etcd, &OURS, settings()).await;
    let leader = cluster.leader().await.unwrap();
    cluster.stop_store();
    let give_up = Instant::now() + LONG;
    loop {
        let answer = cluster.sql(leader, "SELECT pg_is_in_recovery()").await;
        if answer.is_ok_and(|rows| rows[0][0].as_deref() == Some("t")) {
            break;
        }
        assert!(Instant::now() < give_up, "the primary went on writing without a DCS\n{}", cluster.dump());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    cluster.start_store();
    cluster.wait_healthy(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_died_finds_its_server_running() {
    let mut cluster = Cluster::healthy(Store::Etcd, &OURS, settings()).await;
    let leader = cluster.leader().await.unwrap();
    let before = cluster.postmaster(leader).unwrap();
    cluster.kill_agent(leader);
    cluster.start(leader);
    cluster.wait_healthy(LONG).await;
    assert_eq!(cluster.postmaster(leader), Some(before), "the server was not restarted");
    assert_eq!(cluster.leader().await, Some(leader));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_member_is_cloned_and_a_deleted_replica_is_cloned_again() {
    let mut cluster = Cluster::healthy(Store::Embedded, &[Kind::Pgherd, Kind::Pgherd], settings()).await;
    let leader = cluster.leader().await.unwrap();
    let replica = 1 - leader;
    cluster.terminate_agent(replica, LONG);
    std::fs::remove_dir_all(cluster.path(&format!("data-{}", cluster.members[replica].name))).unwrap();
    cluster.start(replica);
    cluster.wait_healthy(LONG).await;
}
