//! A turn of the loop takes longer than the whole story: whatever comes about in it was told by an event. So does the
//! pause that servers make between two attempts to stream.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Cluster, Kind, Store, as_user, pg_bin, stderr};
use crate::synchronous::wait_synchronous;

/// Much shorter than a turn of the loop.
const SOON: Duration = Duration::from_secs(60);

fn settings() -> Value {
    json!({
        "ttl": 320, "loop_wait": 300, "retry_timeout": 5, "synchronous_mode": true,
        "postgresql": {"use_pg_rewind": true, "parameters": {
            "wal_keep_size": "64MB", "wal_retrieve_retry_interval": "1h", "wal_level": "logical"
        }}
    })
}

async fn shown(cluster: &Cluster, i: usize, parameter: &str) -> Option<String> {
    cluster.sql(i, &format!("SHOW {parameter}")).await.ok()?.first()?[0].clone()
}

/// `/sync`, as it stands in etcd.
fn sync(cluster: &Cluster) -> Value {
    let text = cluster.etcdctl(&["get", &cluster.key("sync"), "--print-value-only"]);
    serde_json::from_str(&text).unwrap_or_default()
}

/// The standbys that `/sync` names, as members.
fn synchronous(cluster: &Cluster) -> Vec<usize> {
    let sync = sync(cluster);
    let names: Vec<&str> = sync["sync_standby"].as_str().unwrap_or_default().split(',').collect();
    (0..cluster.members.len()).filter(|i| names.contains(&cluster.members[*i].name.as_str())).collect()
}

/// The standby that commits wait for, once all is well.
async fn chosen(cluster: &Cluster) -> usize {
    cluster.wait_healthy(SOON).await;
    wait_synchronous(cluster).await;
    let mut first = None;
    let is_named = async || {
        first = synchronous(cluster).first().copied();
        first.is_some()
    };
    cluster.until("/sync names somebody", SOON, is_named).await;
    first.unwrap()
}

async fn patch(cluster: &Cluster, change: &Value) {
    let leader = cluster.wait_leader(SOON, |_| true).await;
    assert_eq!(cluster.request("PATCH", leader, "/config", change).await.map(|(code, _)| code), Some(200));
}

async fn tag(cluster: &Cluster, i: usize, tags: Value) {
    cluster.reconfigure(i, |document| document["tags"] = tags);
    cluster.request("POST", i, "/reload", &json!({})).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_waits_for_the_next_turn_of_the_loop() {
    let mut cluster = Cluster::new(Store::Etcd, &[Kind::Pgherd; 3], settings());
    (0..3).for_each(|i| cluster.start(i));
    servers_die(&cluster).await;
    settings_change(&cluster).await;
    slots_come_and_go(&cluster).await;
    a_server_is_started_by_hand(&cluster).await;
    members_change(&mut cluster).await;
}

/// Crashes, of a standby that commits wait for and of the primary, and a leader that changes at the hour.
async fn servers_die(cluster: &Cluster) {
    cluster.kill_postmaster(chosen(cluster).await);
    chosen(cluster).await;
    let leader = cluster.leader().await.unwrap();
    cluster.kill_postmaster(leader);
    let next = chosen(cluster).await;
    let at = jiff::Timestamp::now() + Duration::from_secs(1);
    let (leader, candidate) = (cluster.leader().await.unwrap(), &cluster.members[next].name);
    let request =
        json!({"leader": cluster.members[leader].name, "candidate": candidate, "scheduled_at": at.to_string()});
    cluster.request("POST", leader, "/switchover", &request).await.unwrap();
    cluster.wait_leader(SOON, |now| now == next).await;
    chosen(cluster).await;
}

async fn settings_change(cluster: &Cluster) {
    let leader = cluster.leader().await.unwrap();
    patch(cluster, &json!({"synchronous_mode": "quorum"})).await;
    cluster.until("both vote", SOON, async || synchronous(cluster).len() == 2).await;
    patch(cluster, &json!({"synchronous_node_count": 2})).await;
    let waits = "ANY 2 (";
    let is_raised = async || {
        let names = shown(cluster, leader, "synchronous_standby_names").await;
        names.is_some_and(|names| names.starts_with(waits)) && sync(cluster)["quorum"] == 0
    };
    cluster.until("two are waited for", SOON, is_raised).await;
    let feed = json!({"type": "logical", "database": "postgres", "plugin": "test_decoding"});
    patch(cluster, &json!({"synchronous_mode": true, "synchronous_node_count": 1, "slots": {"feed": feed}})).await;
    wait_synchronous(cluster).await;
}

/// Slots that are to be copied, and dropped again.
async fn slots_come_and_go(cluster: &Cluster) {
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'feed'";
    let has_slot = async |i: usize| cluster.sql(i, slots).await.is_ok_and(|rows| rows[0][0].as_deref() == Some("1"));
    for i in 0..3 {
        cluster.until(&format!("n{i} has the slot"), SOON, async || has_slot(i).await).await;
    }
    patch(cluster, &json!({"slots": null})).await;
    for i in 0..3 {
        cluster.until(&format!("n{i} has the slot no more"), SOON, async || !has_slot(i).await).await;
    }
}

/// In maintenance mode an operator stops a standby and starts it again.
async fn a_server_is_started_by_hand(cluster: &Cluster) {
    let standby = chosen(cluster).await;
    patch(cluster, &json!({"pause": true})).await;
    cluster.wait_log(standby, "PAUSE: no action", SOON).await;
    let name = &cluster.members[standby].name;
    let key = cluster.key(&format!("members/{name}"));
    for (action, is_up) in [("stop", false), ("start", true)] {
        let done = as_user(&pg_bin().join("pg_ctl"))
            .args([action, "-w", "-D"])
            .arg(cluster.path(&format!("data-{name}")))
            .arg("-l")
            .arg(cluster.path("by-hand.log"))
            .output()
            .unwrap();
        assert!(done.status.success(), "{}\n{}", stderr(&done), cluster.dump());
        let says_so = async || {
            let member: Value =
                serde_json::from_str(&cluster.etcdctl(&["get", &key, "--print-value-only"])).unwrap_or_default();
            (member["state"] == "running") == is_up
        };
        cluster.until(&format!("{name} says what came of `{action}`"), SOON, says_so).await;
    }
    patch(cluster, &json!({"pause": null})).await;
}

/// Tags that are reloaded, an upstream that goes, a leader that leaves.
async fn members_change(cluster: &mut Cluster) {
    let before = chosen(cluster).await;
    let leader = cluster.leader().await.unwrap();
    let other = (0..3).find(|i| *i != leader && *i != before).unwrap();
    let upstream = json!({"nosync": true, "replicatefrom": cluster.members[other].name});
    tag(cluster, before, upstream).await;
    cluster.until("the other one is waited for", SOON, async || synchronous(cluster) == [other]).await;
    cluster.terminate_agent(leader, SOON);
    cluster.wait_leader(SOON, |now| now == other).await;
    cluster.start(leader);
    tag(cluster, before, json!({})).await;
    let standby = chosen(cluster).await;
    // Agent and server die without a word: only the primary's own WAL sender tells that nobody confirms any more.
    cluster.kill_agent(standby);
    cluster.kill_postmaster(standby);
    let is_replaced = async || matches!(synchronous(cluster)[..], [other] if other != standby);
    cluster.until("another one is waited for", SOON, is_replaced).await;
    cluster.sql(other, "CREATE TABLE acknowledged ()").await.unwrap();
}
