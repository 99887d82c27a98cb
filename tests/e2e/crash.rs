//! A primary whose server crashes, hangs in its start, cannot start at all, does not stop, or loses its key: each ends
//! as configured, and always with a primary.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Cluster, Kind, Store, as_user, signal, stderr, stdout};
use crate::synchronous::wait_synchronous;

const OURS: [Kind; 2] = [Kind::Pgherd; 2];
const LONG: Duration = Duration::from_secs(60);
const LOOP_WAIT: u64 = 2;

fn settings() -> Value {
    json!({
        "ttl": 20, "loop_wait": LOOP_WAIT, "retry_timeout": 5, "synchronous_mode": true, "primary_stop_timeout": 1,
        "maximum_lag_on_failover": 1_048_576,
        "postgresql": {"use_pg_rewind": true, "parameters": {"wal_keep_size": "64MB", "wal_retrieve_retry_interval": "200ms"}}
    })
}

async fn set(cluster: &Cluster, change: Value) {
    let leader = cluster.leader().await.unwrap();
    let answer = cluster.request("PATCH", leader, "/config", &change).await;
    assert_eq!(answer.map(|(code, _)| code), Some(200));
}

/// A file in a member's data directory.
fn data_file(cluster: &Cluster, i: usize, name: &str) -> PathBuf {
    cluster.path(&format!("data-{}/{name}", cluster.members[i].name))
}

fn count(cluster: &Cluster, i: usize, words: &str) -> usize {
    let log = fs::read_to_string(cluster.path(&format!("{}.log", cluster.members[i].name))).unwrap();
    log.lines().filter(|line| line.contains(words)).count()
}

/// Both stream again and the standby may be elected.
async fn settled(cluster: &Cluster) -> usize {
    cluster.wait_healthy(LONG).await;
    wait_synchronous(cluster).await;
    cluster.leader().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_end_as_configured() {
    let cluster = Cluster::healthy(Store::Etcd, &OURS, settings()).await;
    crash_is_mended_in_place(&cluster).await;
    slow_start_fails_over(&cluster).await;
    crash_fails_over_at_once(&cluster).await;
    server_that_cannot_start_fails_over(&cluster).await;
    hanging_stop_is_cut_short(&cluster).await;
    lost_key_stops_the_primary(&cluster).await;
}

/// The default: there is time to start again.
async fn crash_is_mended_in_place(cluster: &Cluster) {
    let leader = settled(cluster).await;
    let before = cluster.postmaster(leader);
    cluster.kill_postmaster(leader);
    cluster.wait_log(leader, "starting primary after failure", LONG).await;
    assert_eq!(settled(cluster).await, leader, "{}", cluster.dump());
    assert_ne!(cluster.postmaster(leader), before);
}

/// A start that takes longer than `primary_start_timeout`. The server is deaf meanwhile: it waits for a file to be
/// opened, with its signals blocked.
async fn slow_start_fails_over(cluster: &Cluster) {
    let leader = settled(cluster).await;
    set(cluster, json!({"primary_start_timeout": 2})).await;
    let (file, kept) = (data_file(cluster, leader, "pg_ident.conf"), data_file(cluster, leader, "pg_ident.kept"));
    fs::rename(&file, &kept).unwrap();
    assert!(as_user("/usr/bin/mkfifo".as_ref()).arg(&file).status().unwrap().success());
    cluster.kill_postmaster(leader);
    cluster.wait_leader(LONG, |now| now != leader).await;
    assert!(
        count(cluster, leader, "Demoting self because primary startup is taking too long") > 0,
        "{}",
        cluster.dump()
    );
    // Whoever waits for a writer gets one, and the end of the file with its end.
    let writer = fs::File::options().read(true).write(true).open(&file).unwrap();
    fs::rename(&kept, &file).unwrap();
    drop(writer);
    assert_ne!(settled(cluster).await, leader);
}

/// `primary_start_timeout: 0`: no second is spent on a server that crashed.
async fn crash_fails_over_at_once(cluster: &Cluster) {
    let leader = settled(cluster).await;
    set(cluster, json!({"primary_start_timeout": 0})).await;
    let starts = count(cluster, leader, "starting primary after failure");
    cluster.kill_postmaster(leader);
    cluster.wait_leader(LONG, |now| now != leader).await;
    assert!(count(cluster, leader, "Primary crashed. Failing over.") > 0, "{}", cluster.dump());
    assert_eq!(count(cluster, leader, "starting primary after failure"), starts);
    assert_ne!(settled(cluster).await, leader);
}

/// A configuration that PostgreSQL refuses: the other member leads, the log has the reason, and the broken member is
/// tried at the pace of the loop until somebody mends it.
async fn server_that_cannot_start_fails_over(cluster: &Cluster) {
    let leader = settled(cluster).await;
    set(cluster, json!({"primary_start_timeout": null})).await;
    let file = data_file(cluster, leader, "postgresql.auto.conf");
    let good = fs::read(&file).unwrap();
    fs::File::options().append(true).open(&file).unwrap().write_all(b"this is no setting\n").unwrap();
    let before = count(cluster, leader, "postmaster pid=");
    let began = Instant::now();
    cluster.kill_postmaster(leader);
    cluster.wait_leader(LONG, |now| now != leader).await;
    assert!(count(cluster, leader, "removed leader key after trying and failing to start postgres") > 0);
    assert!(count(cluster, leader, "postgresql.auto.conf\" line") > 0, "no reason is given\n{}", cluster.dump());
    let give_up = Instant::now() + LONG;
    while count(cluster, leader, "postmaster pid=") < before + 3 {
        assert!(Instant::now() < give_up, "not tried again\n{}", cluster.dump());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let tries = count(cluster, leader, "postmaster pid=") - before;
    let periods = usize::try_from(began.elapsed().as_secs() / LOOP_WAIT).unwrap();
    assert!(tries <= periods + 2, "{tries} tries in {periods} periods\n{}", cluster.dump());
    fs::write(&file, good).unwrap();
    assert_ne!(settled(cluster).await, leader);
}

/// A session that does not end holds a fast stop up; `primary_stop_timeout` bounds it.
async fn hanging_stop_is_cut_short(cluster: &Cluster) {
    let leader = settled(cluster).await;
    let (client, connection) = tokio_postgres::connect(&cluster.dsn(leader), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    signal(pid.cast_unsigned(), "STOP");
    let (from, to) = (&cluster.members[leader].name, &cluster.members[1 - leader].name);
    let output = cluster.ctl(&["switchover", "e2e", "--leader", from, "--candidate", to, "--force"]);
    assert!(output.status.success(), "{}\n{}\n{}", stdout(&output), stderr(&output), cluster.dump());
    assert!(count(cluster, leader, "Timeout during postmaster stop, aborting Postgres.") > 0, "{}", cluster.dump());
    assert_eq!(settled(cluster).await, 1 - leader);
}

/// Somebody else's name stands in the key: the primary stops at once and leaves the key alone.
async fn lost_key_stops_the_primary(cluster: &Cluster) {
    let leader = settled(cluster).await;
    let key = format!("/service/{}/leader", cluster.scope);
    let put = Command::new("/usr/bin/etcdctl")
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints=127.0.0.1:{}", cluster.store_port))
        .args(["put", &key, &cluster.members[1 - leader].name])
        .output()
        .unwrap();
    assert!(put.status.success(), "{}", stderr(&put));
    cluster.wait_leader(LONG, |now| now != leader).await;
    assert!(count(cluster, leader, "Demoting self (immediate-nolock)") > 0, "{}", cluster.dump());
    assert_eq!(settled(cluster).await, 1 - leader);
}
