//! Somebody removes all of a cluster's keys while it runs.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Cluster, Kind, Store, stderr, stdout};
use crate::synchronous::wait_synchronous;
use crate::writer::{Writer, assert_nothing_lost};

const OURS: [Kind; 3] = [Kind::Pgherd; 3];
const LONG: Duration = Duration::from_secs(60);
const UNKNOWN: &str = "the DCS does not know this cluster";
const WAY_OUT: &str = "pgherdctl failover e2e --candidate";

async fn until(cluster: &Cluster, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let give_up = Instant::now() + LONG;
    while !holds().await {
        assert!(Instant::now() < give_up, "{what} did not come\n{}", cluster.dump());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn wipe(cluster: &Cluster) {
    cluster.etcdctl(&["del", "--prefix", &cluster.key("")]);
}

async fn is_standby(cluster: &Cluster, i: usize) -> bool {
    let rows = cluster.sql(i, "SELECT pg_is_in_recovery()").await;
    rows.is_ok_and(|rows| rows[0][0].as_deref() == Some("t"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_primary_restores_the_keys_and_no_replica_promotes_itself() {
    let settings = json!({
        "ttl": 10, "loop_wait": 2, "retry_timeout": 3, "synchronous_mode": true,
        "postgresql": {"use_pg_rewind": true, "parameters": {"wal_keep_size": "64MB", "wal_retrieve_retry_interval": "200ms"}}
    });
    let mut cluster = Cluster::healthy(Store::Etcd, &OURS, settings).await;
    wait_synchronous(&cluster).await;
    let writer = Writer::start(&cluster).await;
    let leader = cluster.leader().await.unwrap();
    let answer = cluster.request("PATCH", leader, "/config", &json!({"primary_start_timeout": 111})).await;
    assert_eq!(answer.map(|(code, _)| code), Some(200));
    writer.wait_acknowledged_after(Instant::now(), LONG).await;
    primary_goes_on(&cluster, &writer, leader).await;
    let candidate = nobody_is_left(&mut cluster, leader).await;

    let (name, path) = (cluster.members[candidate].name.clone(), ["failover", "e2e", "--candidate"]);
    let output = cluster.ctl(&[path[0], path[1], path[2], &name, "--force"]);
    assert!(output.status.success(), "{}\n{}\n{}", stdout(&output), stderr(&output), cluster.dump());
    assert_eq!(cluster.wait_leader(LONG, |_| true).await, candidate);
    assert_eq!(cluster.count_in_log(candidate, "because a manual failover asked for it"), 1, "{}", cluster.dump());
    cluster.start(leader);
    cluster.wait_healthy(LONG).await;
    wait_synchronous(&cluster).await;
    writer.wait_acknowledged_after(Instant::now(), LONG).await;
    assert_eq!(cluster.leader().await, Some(candidate));
    assert!(cluster.key_in_etcd("initialize").is_some());
    assert_nothing_lost(&cluster, writer.finish().await).await;
    cluster.assert_journals_replay().await;
}

/// Nothing but the keys is gone: they come back in an order in which no moment is dangerous.
async fn primary_goes_on(cluster: &Cluster, writer: &Writer, leader: usize) {
    let timeline = cluster.status(leader).await.unwrap()["timeline"].clone();
    let waited_for = cluster.sql(leader, "SHOW synchronous_standby_names").await;
    let before = cluster.key_in_etcd("leader").unwrap()["create_revision"].as_i64().unwrap();
    wipe(cluster);
    let wiped = Instant::now();
    let made = |name: &str| cluster.key_in_etcd(name).and_then(|key| key["create_revision"].as_i64());
    until(cluster, "the last key", async || made("initialize").is_some_and(|at| at > before)).await;
    let [first, sync, config, last] = ["leader", "sync", "config", "initialize"].map(|name| made(name).unwrap());
    assert!(before < first && first < sync && first < config && sync < last && config < last, "{}", cluster.dump());
    // Commits go on waiting for the same standby.
    let names = "synchronous_standby_names";
    assert_eq!(cluster.sql(leader, &format!("SHOW {names}")).await, waited_for, "{}", cluster.dump());
    assert_eq!(cluster.count_in_log(leader, &format!("Assigning {names} to ''")), 0, "{}", cluster.dump());
    writer.wait_acknowledged_after(wiped + Duration::from_millis(100), LONG).await;
    cluster.wait_healthy(LONG).await;
    wait_synchronous(cluster).await;
    assert_eq!((cluster.leader().await, writer.interruptions()), (Some(leader), 0), "{}", cluster.dump());
    assert_eq!(cluster.status(leader).await.unwrap()["timeline"], timeline);
    let (_, config) = cluster.get(leader, "/config").await.unwrap();
    assert!(config.contains("111"), "what was changed since the cluster was made came back, too: {config}");
}

/// The keys and the primary go at once. The others wait, also those that are started anew, and say what for. The
/// synchronous standby.
async fn nobody_is_left(cluster: &mut Cluster, leader: usize) -> usize {
    let (_, view) = cluster.get(leader, "/cluster").await.unwrap();
    let view: Value = serde_json::from_str(&view).unwrap();
    let members = view["members"].as_array().unwrap();
    let synchronous = members.iter().find(|member| member["role"] == "sync_standby").expect("a synchronous standby");
    let name = synchronous["name"].as_str().unwrap();
    let candidate = cluster.members.iter().position(|member| member.name == name).unwrap();
    let other = (0..3).find(|i| *i != leader && *i != candidate).unwrap();
    cluster.kill_agent(leader);
    cluster.kill_postmaster(leader);
    wipe(cluster);
    for who in [candidate, other] {
        cluster.wait_log(who, UNKNOWN, LONG).await;
        let advice = async || cluster.status(who).await.is_some_and(|s| s["advice"].to_string().contains(WAY_OUT));
        until(cluster, "the way out in /patroni", advice).await;
    }
    // An agent that is started beside a running standby, and one that starts a stopped standby itself.
    for with_server in [false, true] {
        let said = cluster.count_in_log(other, UNKNOWN);
        cluster.kill_agent(other);
        if with_server {
            cluster.kill_postmaster(other);
        }
        cluster.start(other);
        // Several turns of the loop.
        until(cluster, "the words", async || cluster.count_in_log(other, UNKNOWN) >= said + 3).await;
        assert!(is_standby(cluster, other).await && !cluster.agent_has_ended(other), "{}", cluster.dump());
    }
    let list = stdout(&cluster.ctl(&["list"]));
    assert!(list.contains("There is no leader.") && list.contains(WAY_OUT), "{list}");
    assert!(is_standby(cluster, candidate).await && cluster.key_in_etcd("leader").is_none(), "{}", cluster.dump());
    assert!(cluster.key_in_etcd("initialize").is_none(), "{}", cluster.dump());
    candidate
}
