//! Synchronous and quorum commit: what was acknowledged survives every way in which a leader can go.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Cluster, Kind, Store, stderr, stdout};
use crate::writer::{Writer, assert_nothing_lost};

const OURS: [Kind; 3] = [Kind::Pgherd; 3];
const LONG: Duration = Duration::from_secs(60);

/// How often the leader changes in each mode.
const CHANGES: usize = 10;

fn settings(mode: &Value) -> Value {
    json!({
        "ttl": 20, "loop_wait": 2, "retry_timeout": 5, "synchronous_mode": mode, "primary_start_timeout": 0,
        "maximum_lag_on_failover": 104_857_600,
        "postgresql": {"use_pg_rewind": true, "parameters": {"wal_keep_size": "64MB", "wal_retrieve_retry_interval": "200ms"}}
    })
}

/// Waits until a standby may be elected without losing what was acknowledged: it is listed and commits wait for it, in
/// several looks, for right after a restart both may be left from before.
pub async fn wait_synchronous(cluster: &Cluster) {
    let give_up = Instant::now() + LONG;
    let mut good = 0;
    while good < 4 {
        let leader = cluster.wait_leader(LONG, |_| true).await;
        let view = cluster.get(leader, "/cluster").await.map(|(_, body)| body).unwrap_or_default();
        let waits = "SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')";
        let waits = cluster.sql(leader, waits).await.is_ok_and(|rows| rows[0][0].as_deref() != Some("0"));
        let is_listed = view.contains("sync_standby") || view.contains("quorum_standby");
        good = if waits && is_listed { good + 1 } else { 0 };
        assert!(Instant::now() < give_up, "no synchronous standby\n{}", cluster.dump());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn by_hand(cluster: &Cluster, args: &[&str]) {
    let output = cluster.ctl(args);
    assert!(output.status.success(), "{}\n{}\n{}", stdout(&output), stderr(&output), cluster.dump());
}

/// The leader goes, in one of five ways.
async fn change_leader(cluster: &mut Cluster, leader: usize, way: usize) {
    match way {
        0 => {
            cluster.kill_agent(leader);
            cluster.kill_postmaster(leader);
            cluster.expire_leader_key();
        }
        1 => by_hand(cluster, &["switchover", "e2e", "--leader", &cluster.members[leader].name, "--force"]),
        2 => cluster.kill_postmaster(leader),
        3 => cluster.terminate_agent(leader, LONG),
        _ => by_hand(cluster, &["failover", "e2e", "--candidate", &cluster.members[(leader + 1) % 3].name, "--force"]),
    }
    cluster.wait_leader(LONG, |now| now != leader).await;
    if matches!(way, 0 | 3) {
        cluster.start(leader);
    }
}

/// A new agent takes over what the server waits for; it never waits for less meanwhile.
async fn agent_is_replaced(cluster: &mut Cluster) {
    let leader = cluster.leader().await.unwrap();
    let names = cluster.sql(leader, "SHOW synchronous_standby_names").await.unwrap();
    assert_ne!(names[0][0].as_deref(), Some(""));
    cluster.kill_agent(leader);
    cluster.start(leader);
    let give_up = Instant::now() + LONG;
    while !cluster.is_healthy().await {
        assert!(Instant::now() < give_up, "{}", cluster.dump());
        assert_eq!(cluster.sql(leader, "SHOW synchronous_standby_names").await, Ok(names.clone()));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(cluster.leader().await, Some(leader));
    assert_eq!(cluster.sql(leader, "SHOW synchronous_standby_names").await, Ok(names));
}

async fn acknowledged_rows_survive(mode: Value) {
    let mut cluster = Cluster::healthy(Store::Etcd, &OURS, settings(&mode)).await;
    wait_synchronous(&cluster).await;
    let writer = Writer::start(&cluster).await;
    for change in 0..CHANGES {
        writer.wait_acknowledged_after(Instant::now(), LONG).await;
        let leader = cluster.leader().await.unwrap();
        change_leader(&mut cluster, leader, change % 5).await;
        writer.wait_acknowledged_after(Instant::now(), LONG).await;
        cluster.wait_healthy(LONG).await;
        wait_synchronous(&cluster).await;
    }
    agent_is_replaced(&mut cluster).await;
    assert_nothing_lost(&cluster, writer.finish().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn synchronous_mode_loses_no_acknowledged_row() {
    acknowledged_rows_survive(json!(true)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quorum_commit_loses_no_acknowledged_row() {
    acknowledged_rows_survive(json!("quorum")).await;
}
