//! Maintenance mode from its beginning to its end: the servers are the operator's.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Cluster, Kind, Store, as_user, pg_bin, stderr, stdout};

const LONG: Duration = Duration::from_secs(60);
const DOWN: &str = "PAUSE: postgres is not running";

async fn until(cluster: &Cluster, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let give_up = Instant::now() + LONG;
    while !holds().await {
        assert!(Instant::now() < give_up, "{what} did not come\n{}", cluster.dump());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn run(cluster: &Cluster, args: &[&str]) -> String {
    let output = cluster.ctl(args);
    assert!(output.status.success(), "{args:?}\n{}\n{}\n{}", stdout(&output), stderr(&output), cluster.dump());
    stdout(&output)
}

fn runs(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

async fn writes(cluster: &Cluster, i: usize) -> bool {
    cluster.sql(i, "CREATE TABLE IF NOT EXISTS here (i int); INSERT INTO here VALUES (1)").await.is_ok()
}

/// A new agent of a member whose server is down, until it has said so in several turns of the loop.
async fn finds_it_down(cluster: &mut Cluster, i: usize) {
    let said = cluster.count_in_log(i, DOWN);
    cluster.kill_agent(i);
    cluster.start(i);
    until(cluster, "the words", async || cluster.count_in_log(i, DOWN) >= said + 3).await;
    assert!(cluster.sql(i, "SELECT 1").await.is_err(), "{}", cluster.dump());
    assert_eq!(cluster.status(i).await.unwrap()["pause"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_mode_leaves_the_servers_to_the_operator() {
    let settings = json!({
        "ttl": 8, "loop_wait": 1, "retry_timeout": 3,
        "postgresql": {"use_pg_rewind": true, "parameters": {"wal_keep_size": "64MB", "wal_retrieve_retry_interval": "200ms"}}
    });
    let mut cluster = Cluster::healthy(Store::Etcd, &[Kind::Pgherd; 2], settings).await;
    let a = cluster.leader().await.unwrap();
    let b = 1 - a;
    run(&cluster, &["pause", "--wait"]);
    killed_leader_stays_down(&mut cluster, a, b).await;
    operator_moves_the_leader(&mut cluster, a, b).await;
    agent_goes_and_comes_back(&mut cluster, a, b).await;
    operator_works_on_the_servers(&cluster, a, b).await;
    nothing_else_touches_the_primary(&mut cluster, a).await;
    let before = cluster.postmaster(a);
    run(&cluster, &["resume", "--wait"]);
    cluster.wait_healthy(LONG).await;
    assert_eq!((cluster.leader().await, cluster.postmaster(a)), (Some(a), before), "{}", cluster.dump());
    assert!(!run(&cluster, &["list"]).contains("Maintenance mode"));
    cluster.assert_journals_replay().await;
}

/// Nobody starts it, nobody takes over; a new agent does neither.
async fn killed_leader_stays_down(cluster: &mut Cluster, a: usize, b: usize) {
    cluster.kill_postmaster(a);
    cluster.wait_log(a, "PAUSE: removed leader lock because postgres is not running", LONG).await;
    let alone = format!("PAUSE: no action. I am ({})", cluster.members[b].name);
    let said = cluster.count_in_log(b, &alone);
    finds_it_down(cluster, a).await;
    until(cluster, "nothing to do", async || cluster.count_in_log(b, &alone) > said + 1).await;
    assert!(cluster.leader().await.is_none() && !writes(cluster, b).await, "{}", cluster.dump());
    assert!(run(cluster, &["list"]).contains("Maintenance mode is on"));
}

/// By hand, to a named member, and back. Who has made way comes back as a standby; what was killed does not.
async fn operator_moves_the_leader(cluster: &mut Cluster, a: usize, b: usize) {
    let (old, new) = (cluster.members[a].name.clone(), cluster.members[b].name.clone());
    run(cluster, &["failover", "e2e", "--candidate", &new, "--force"]);
    assert_eq!(cluster.wait_leader(LONG, |_| true).await, b);
    finds_it_down(cluster, a).await;
    run(cluster, &["reinit", "e2e", &old, "--force", "--wait"]);
    cluster.wait_healthy(LONG).await;
    let refused = cluster.ctl(&["switchover", "e2e", "--leader", &new, "--force"]);
    assert!(!refused.status.success(), "{}", stdout(&refused));
    run(cluster, &["switchover", "e2e", "--leader", &new, "--candidate", &old, "--force"]);
    cluster.wait_healthy(LONG).await;
    assert_eq!(cluster.leader().await, Some(a), "{}", cluster.dump());
}

/// The agent leaves server and key as they are. The key ends with its lease; nobody else takes it, and neither lease
/// nor guard stops the primary.
async fn agent_goes_and_comes_back(cluster: &mut Cluster, a: usize, b: usize) {
    let postmaster = cluster.postmaster(a).unwrap();
    let timeline = cluster.status(b).await.unwrap()["timeline"].clone();
    cluster.terminate_agent(a, LONG);
    assert!(cluster.key_in_etcd("leader").is_some() && runs(postmaster), "{}", cluster.dump());
    until(cluster, "the end of the lease", async || cluster.key_in_etcd("leader").is_none()).await;
    let alone = format!("PAUSE: no action. I am ({})", cluster.members[b].name);
    let said = cluster.count_in_log(b, &alone);
    until(cluster, "nothing to do", async || cluster.count_in_log(b, &alone) > said + 1).await;
    assert!(writes(cluster, a).await && !writes(cluster, b).await, "{}", cluster.dump());
    assert!(cluster.key_in_etcd("leader").is_none());
    cluster.start(a);
    cluster.wait_healthy(LONG).await;
    assert_eq!((cluster.leader().await, cluster.postmaster(a)), (Some(a), Some(postmaster)), "{}", cluster.dump());
    assert_eq!(cluster.status(b).await.unwrap()["timeline"], timeline);
}

/// What is done by hand stays as it is. What is asked of the agents they do, and what is theirs they look after.
async fn operator_works_on_the_servers(cluster: &Cluster, a: usize, b: usize) {
    // Slots: nobody's stay, missing ones are made.
    let (old, new) = (cluster.members[a].name.clone(), cluster.members[b].name.clone());
    cluster.sql(a, "SELECT pg_create_physical_replication_slot('stray', true)").await.unwrap();
    cluster.sql(b, &format!("SELECT pg_drop_replication_slot('{old}')")).await.unwrap();
    let has = async |i: usize, name: &str| {
        let query = format!("SELECT FROM pg_replication_slots WHERE slot_name = '{name}'");
        cluster.sql(i, &query).await.is_ok_and(|rows| rows.len() == 1)
    };
    until(cluster, "the slot is back", async || has(b, &old).await).await;
    // The configuration is taken over, and who is to be restarted is restarted.
    let patch = json!({"postgresql": {"parameters": {"work_mem": "5MB"}}});
    assert_eq!(cluster.request("PATCH", b, "/config", &patch).await.map(|(code, _)| code), Some(200));
    for i in [a, b] {
        let is_set = async || cluster.sql(i, "SHOW work_mem").await.is_ok_and(|r| r[0][0].as_deref() == Some("5MB"));
        until(cluster, "the new value", is_set).await;
    }
    let before = cluster.postmaster(b);
    run(cluster, &["restart", "e2e", &new, "--force"]);
    cluster.wait_healthy(LONG).await;
    assert_ne!(cluster.postmaster(b), before);

    // A primary that is made a standby gives the key away, and nobody is promoted in its place but who is by hand.
    cluster.write(&format!("data-{old}/standby.signal"), "");
    let restart = as_user(&pg_bin().join("pg_ctl"))
        .args(["restart", "-w", "-m", "fast", "-D"])
        .arg(cluster.path(&format!("data-{old}")))
        .arg("-l")
        .arg(cluster.path("by-hand.log"))
        .output()
        .unwrap();
    assert!(restart.status.success(), "{}\n{}", stderr(&restart), cluster.dump());
    until(cluster, "a free key", async || cluster.key_in_etcd("leader").is_none()).await;
    let alone = format!("PAUSE: no action. I am ({old})");
    let said = cluster.count_in_log(a, &alone);
    until(cluster, "nothing to do", async || cluster.count_in_log(a, &alone) > said + 1).await;
    assert!(cluster.leader().await.is_none() && !writes(cluster, b).await, "{}", cluster.dump());
    cluster.sql(a, "SELECT pg_promote()").await.unwrap();
    assert_eq!(cluster.wait_leader(LONG, |_| true).await, a);
    cluster.wait_healthy(LONG).await;
    assert!(has(a, "stray").await, "{}", cluster.dump());
    cluster.sql(a, "SELECT pg_drop_replication_slot('stray')").await.unwrap();
}

/// Neither another cluster's identifier nor a lost DCS.
async fn nothing_else_touches_the_primary(cluster: &mut Cluster, a: usize) {
    let postmaster = cluster.postmaster(a);
    let id = cluster.etcdctl(&["get", &cluster.key("initialize"), "--print-value-only"]).trim().to_owned();
    cluster.etcdctl(&["put", &cluster.key("initialize"), "9999999999999999999"]);
    let words = "PAUSE: released leader key voluntarily due to the system ID mismatch";
    cluster.wait_log(a, words, LONG).await;
    cluster.wait_log(a, "PAUSE: continue to run as primary without lock", LONG).await;
    assert!(writes(cluster, a).await && cluster.key_in_etcd("leader").is_none(), "{}", cluster.dump());
    cluster.etcdctl(&["put", &cluster.key("initialize"), &id]);
    assert_eq!(cluster.wait_leader(LONG, |_| true).await, a);
    cluster.stop_store();
    cluster.wait_log(a, "PAUSE: DCS is not accessible", LONG).await;
    assert!(writes(cluster, a).await, "{}", cluster.dump());
    cluster.start_store();
    cluster.wait_healthy(LONG).await;
    assert_eq!((cluster.leader().await, cluster.postmaster(a)), (Some(a), postmaster), "{}", cluster.dump());
}
