//! A primary without its agent: stopped before anybody else can be promoted, unless the agent is back in time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pgherd::postgres::process_tree;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::harness::{Cluster, Kind, Store, signal};

const OURS: [Kind; 2] = [Kind::Pgherd; 2];
const LONG: Duration = Duration::from_secs(60);
const TTL: Duration = Duration::from_secs(20);

fn settings() -> serde_json::Value {
    json!({
        "ttl": TTL.as_secs(), "loop_wait": 5, "retry_timeout": 5, "maximum_lag_on_failover": 1_048_576,
        "postgresql": {"use_pg_rewind": true, "parameters": {"max_wal_size": "256MB", "wal_keep_size": "64MB"}}
    })
}

/// A healthy cluster whose members have their guard on.
async fn guarded() -> Cluster {
    let mut cluster = Cluster::new(Store::Etcd, &OURS, settings());
    for i in 0..OURS.len() {
        cluster.reconfigure(i, |document| document["watchdog"] = json!({"mode": "off", "guard": true}));
        cluster.start(i);
    }
    cluster.wait_healthy(LONG).await;
    cluster
}

/// A client that knows only one server and writes to it as long as it lets it.
struct Loyal {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<Instant>>>,
    task: JoinHandle<()>,
}

impl Loyal {
    async fn start(cluster: &Cluster, i: usize) -> Self {
        cluster.sql(i, "CREATE TABLE loyal (at timestamptz)").await.unwrap();
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (stopped, noted, dsn) = (Arc::clone(&stop), Arc::clone(&acknowledged), cluster.dsn(i));
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::SeqCst) {
                if let Ok((client, connection)) = tokio_postgres::connect(&dsn, tokio_postgres::NoTls).await {
                    tokio::spawn(connection);
                    // Without a limit: an answer that comes late counts.
                    while client.batch_execute("INSERT INTO loyal VALUES (now())").await.is_ok() {
                        noted.lock().unwrap().push(Instant::now());
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        if stopped.load(Ordering::SeqCst) {
                            return;
                        }
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let loyal = Self { stop, acknowledged, task };
        let give_up = Instant::now() + LONG;
        while loyal.acknowledged.lock().unwrap().len() < 10 {
            assert!(Instant::now() < give_up, "nothing was acknowledged\n{}", cluster.dump());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        loyal
    }

    /// Ends it: the last acknowledged write came before that moment, and there were any since the other one.
    async fn was_refused_from(self, moment: Instant, cluster: &Cluster) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = tokio::time::timeout(LONG, self.task).await;
        let last = *self.acknowledged.lock().unwrap().last().unwrap();
        assert!(last < moment, "acknowledged {:?} after the promotion\n{}", last - moment, cluster.dump());
    }
}

/// The first moment at which this member is seen to be a primary.
async fn promoted(cluster: &Cluster, i: usize) -> Instant {
    let give_up = Instant::now() + LONG;
    loop {
        let answer = cluster.sql(i, "SELECT pg_is_in_recovery()").await;
        if answer.is_ok_and(|rows| rows[0][0].as_deref() == Some("f")) {
            return Instant::now();
        }
        assert!(Instant::now() < give_up, "no promotion\n{}", cluster.dump());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn assert_refuses(cluster: &Cluster, i: usize) {
    let answer = cluster.sql(i, "INSERT INTO loyal VALUES (now())").await;
    assert!(answer.is_err(), "the old primary still writes\n{}", cluster.dump());
}

async fn waits_out_the_ttl() {
    tokio::time::sleep(TTL + Duration::from_secs(3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guard_stops_the_server_of_a_suspended_agent() {
    let cluster = guarded().await;
    let leader = cluster.leader().await.unwrap();
    let loyal = Loyal::start(&cluster, leader).await;
    cluster.signal_agent(leader, "STOP");
    let moment = promoted(&cluster, 1 - leader).await;
    assert_refuses(&cluster, leader).await;
    assert!(cluster.log(leader).contains("did not renew the leader lease in time"), "{}", cluster.dump());
    cluster.signal_agent(leader, "CONT");
    cluster.wait_healthy(LONG).await;
    assert_eq!(cluster.leader().await, Some(1 - leader));
    loyal.was_refused_from(moment, &cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guard_stops_the_server_of_a_dead_agent() {
    let mut cluster = guarded().await;
    let leader = cluster.leader().await.unwrap();
    let loyal = Loyal::start(&cluster, leader).await;
    cluster.kill_agent(leader);
    let moment = promoted(&cluster, 1 - leader).await;
    assert_refuses(&cluster, leader).await;
    loyal.was_refused_from(moment, &cluster).await;
    cluster.start(leader);
    cluster.wait_healthy(LONG).await;
    assert_eq!(cluster.leader().await, Some(1 - leader));
}

#[tokio::test(flavor = "multi_thread")]
async fn guard_is_handed_over_to_an_agent_that_is_back_in_time() {
    let mut cluster = guarded().await;
    let leader = cluster.leader().await.unwrap();
    let before = cluster.postmaster(leader);
    cluster.kill_agent(leader);
    cluster.start(leader);
    waits_out_the_ttl().await;
    assert_eq!(cluster.postmaster(leader), before, "the server was left alone\n{}", cluster.dump());
    cluster.wait_healthy(LONG).await;
    assert_eq!(cluster.leader().await, Some(leader));
    // What a clean end leaves is not watched any more.
    cluster.terminate_agent(leader, LONG);
    assert!(!cluster.log(leader).contains("did not renew"), "{}", cluster.dump());
}

#[tokio::test(flavor = "multi_thread")]
async fn guard_ends_a_server_that_was_suspended_with_its_agent() {
    let cluster = guarded().await;
    let leader = cluster.leader().await.unwrap();
    let loyal = Loyal::start(&cluster, leader).await;
    let postmaster = cluster.postmaster(leader).unwrap();
    let mut family: Vec<u32> = vec![postmaster];
    signal(postmaster, "STOP");
    family.extend(process_tree::descendants(postmaster.cast_signed()).iter().map(|child| child.pid.cast_unsigned()));
    family.iter().for_each(|pid| signal(*pid, "STOP"));
    cluster.signal_agent(leader, "STOP");
    let moment = promoted(&cluster, 1 - leader).await;
    family.iter().for_each(|pid| signal(*pid, "CONT"));
    assert_refuses(&cluster, leader).await;
    cluster.signal_agent(leader, "CONT");
    cluster.wait_healthy(LONG).await;
    loyal.was_refused_from(moment, &cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guard_leaves_a_paused_server_alone() {
    let mut cluster = guarded().await;
    let leader = cluster.leader().await.unwrap();
    let before = cluster.postmaster(leader);
    let answer = cluster.request("PATCH", leader, "/config", &json!({"pause": true})).await;
    assert_eq!(answer.map(|(code, _)| code), Some(200));
    cluster.wait_log(leader, "PAUSE: ", LONG).await;
    cluster.kill_agent(leader);
    waits_out_the_ttl().await;
    assert_eq!(cluster.postmaster(leader), before, "the server was left alone\n{}", cluster.dump());
    cluster.sql(leader, "CREATE TABLE still_writes (id int)").await.unwrap();
}
