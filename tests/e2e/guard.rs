//! A primary without its agent: stopped before anybody else can be promoted, unless the agent is back in time. The
//! timing is below what Patroni allows, which every member here understands.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pgherd::postgres::process_tree;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::harness::{Cluster, Kind, Store, signal, stderr, stdout};

const OURS: [Kind; 2] = [Kind::Pgherd; 2];
const LONG: Duration = Duration::from_secs(60);

fn settings(ttl: u64) -> serde_json::Value {
    json!({
        "ttl": ttl, "loop_wait": 1, "retry_timeout": (ttl - 1) / 2, "maximum_lag_on_failover": 1_048_576,
        "postgresql": {"use_pg_rewind": true, "parameters": {"max_wal_size": "256MB", "wal_keep_size": "64MB"}}
    })
}

/// A client that knows only one server and writes to it as long as it lets it.
struct Loyal {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<Instant>>>,
    task: JoinHandle<()>,
}

impl Loyal {
    async fn start(cluster: &Cluster, i: usize) -> Self {
        cluster.sql(i, "CREATE TABLE IF NOT EXISTS loyal (at timestamptz)").await.unwrap();
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

    fn last(&self) -> Instant {
        *self.acknowledged.lock().unwrap().last().unwrap()
    }

    /// Waits for a write to be acknowledged after that moment.
    async fn is_acknowledged_after(&self, moment: Instant, cluster: &Cluster) {
        let give_up = Instant::now() + LONG;
        while self.last() < moment {
            assert!(Instant::now() < give_up, "nothing was acknowledged any more\n{}", cluster.dump());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends it: the last acknowledged write came before that moment.
    async fn was_refused_from(self, moment: Instant, cluster: &Cluster) {
        self.end().await;
        let last = *self.acknowledged.lock().unwrap().last().unwrap();
        assert!(last < moment, "acknowledged {:?} after the promotion\n{}", last - moment, cluster.dump());
    }

    async fn end(&self) {
        self.stop.store(true, Ordering::SeqCst);
        let give_up = Instant::now() + LONG;
        while !self.task.is_finished() {
            assert!(Instant::now() < give_up, "the client does not come to an end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
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

/// The postmaster and all its processes.
fn family(postmaster: u32) -> Vec<u32> {
    let children = process_tree::descendants(postmaster.cast_signed());
    std::iter::once(postmaster).chain(children.iter().map(|child| child.pid.cast_unsigned())).collect()
}

fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[tokio::test(flavor = "multi_thread")]
async fn guard_stops_a_primary_before_another_one_is_promoted() {
    let mut cluster = Cluster::healthy(Store::Etcd, &OURS, settings(5)).await;

    // The agent is suspended.
    let leader = cluster.settled_leader(LONG).await;
    let loyal = Loyal::start(&cluster, leader).await;
    cluster.signal_agent(leader, "STOP");
    let moment = promoted(&cluster, 1 - leader).await;
    assert_refuses(&cluster, leader).await;
    assert!(cluster.log(leader).contains("did not renew the leader lease in time"), "{}", cluster.dump());
    cluster.signal_agent(leader, "CONT");
    loyal.was_refused_from(moment, &cluster).await;

    // The agent dies and nobody starts it again.
    let leader = cluster.settled_leader(LONG).await;
    let loyal = Loyal::start(&cluster, leader).await;
    cluster.kill_agent(leader);
    let moment = promoted(&cluster, 1 - leader).await;
    assert_refuses(&cluster, leader).await;
    loyal.was_refused_from(moment, &cluster).await;
    cluster.start(leader);

    // The agent and the server are suspended; the server goes on when another one leads.
    let leader = cluster.settled_leader(LONG).await;
    let loyal = Loyal::start(&cluster, leader).await;
    let family = family(cluster.postmaster(leader).unwrap());
    family.iter().for_each(|pid| signal(*pid, "STOP"));
    cluster.signal_agent(leader, "STOP");
    let moment = promoted(&cluster, 1 - leader).await;
    // They were killed as they stood still: whatever happens now, nothing can be acknowledged any more.
    assert!(!family.iter().any(|pid| lives(*pid)), "{}", cluster.dump());
    family.iter().for_each(|pid| signal(*pid, "CONT"));
    assert_refuses(&cluster, leader).await;
    cluster.signal_agent(leader, "CONT");
    loyal.was_refused_from(moment, &cluster).await;
}

/// What is suspended together with its guard goes on together with it: so long it may acknowledge rows.
const RESUMED: Duration = Duration::from_millis(200);

/// How late the machine lets those go on who are due: the longest that a thread slept beyond its millisecond.
struct Lateness {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Duration>,
}

impl Lateness {
    fn start() -> Self {
        let (stop, pause) = (Arc::new(AtomicBool::new(false)), Duration::from_millis(1));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut worst = Duration::ZERO;
            while !stopped.load(Ordering::SeqCst) {
                let before = Instant::now();
                std::thread::sleep(pause);
                worst = worst.max(before.elapsed().saturating_sub(pause));
            }
            worst
        });
        Self { stop, thread }
    }

    fn end(self) -> Duration {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

/// All at once, as a machine goes on: not by a program for each of them.
fn go_on(pids: &[u32]) {
    for pid in pids {
        let _ =
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::Signal::SIGCONT);
    }
}

/// Suspends everything of the leader until another one leads, then lets it go on, the guard last. The time between that
/// and the last row that it acknowledged (zero if there was none), and how late the machine was meanwhile.
async fn resumed(cluster: &Cluster) -> (Duration, Duration) {
    let leader = cluster.settled_leader(LONG).await;
    let loyal = Loyal::start(cluster, leader).await;
    let mut all = family(cluster.postmaster(leader).unwrap());
    all.push(cluster.guard(leader).expect("the leader has a guard"));
    all.iter().for_each(|pid| signal(*pid, "STOP"));
    cluster.signal_agent(leader, "STOP");
    promoted(cluster, 1 - leader).await;
    let lateness = Lateness::start();
    let resumed = Instant::now();
    go_on(&all);
    let give_up = Instant::now() + LONG;
    while all[..all.len() - 1].iter().any(|pid| lives(*pid)) {
        assert!(Instant::now() < give_up, "the guard does not act\n{}", cluster.dump());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let lateness = lateness.end();
    assert_refuses(cluster, leader).await;
    cluster.signal_agent(leader, "CONT");
    loyal.end().await;
    (loyal.last().saturating_duration_since(resumed), lateness)
}

/// `ROUNDS=20 cargo test --test e2e guard_that_was_suspended -- --nocapture` measures.
#[allow(clippy::print_stderr, reason = "who measures wants the figures")]
async fn measure(cluster: &Cluster) {
    let rounds = std::env::var("ROUNDS").map_or(1, |rounds| rounds.parse().expect("ROUNDS is a number"));
    let mut found = Vec::new();
    for _ in 0..rounds {
        let (late, lateness) = resumed(cluster).await;
        eprintln!("acknowledged until {late:?} after it went on; threads were up to {lateness:?} late");
        // The guard has to be woken, and so has the client that notes when it heard.
        let limit = RESUMED + 2 * lateness;
        assert!(late < limit, "acknowledged {late:?} after it went on, {limit:?} allowed\n{}", cluster.dump());
        found.push(late);
    }
    found.sort();
    eprintln!("{rounds} rounds: median {:?}, worst {:?}", found[rounds / 2], found[rounds - 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn guard_that_was_suspended_too_ends_the_server_as_soon_as_it_goes_on() {
    let cluster = Cluster::healthy(Store::Etcd, &OURS, settings(5)).await;
    measure(&cluster).await;

    // Without its guard a primary that lost its agent writes on beside the new one: what is above can fail.
    let leader = cluster.settled_leader(LONG).await;
    for i in 0..OURS.len() {
        cluster.reconfigure(i, |document| document["watchdog"] = json!({"guard": false}));
        cluster.signal_agent(i, "HUP");
    }
    cluster.wait_log(leader, "the lease has no guard any more", LONG).await;
    let loyal = Loyal::start(&cluster, leader).await;
    cluster.signal_agent(leader, "STOP");
    let moment = promoted(&cluster, 1 - leader).await;
    loyal.is_acknowledged_after(moment, &cluster).await;
    cluster.signal_agent(leader, "CONT");
    cluster.settled_leader(LONG).await;
    loyal.end().await;
    patroni_keeps_its_limits(&cluster).await;
}

/// While a member is Patroni's, everybody counts by a timing that it can follow too.
async fn patroni_keeps_its_limits(cluster: &Cluster) {
    let member = format!("/service/{}/members/px", cluster.scope);
    etcdctl(cluster, &["put", &member, r#"{"version": "4.1.5", "state": "running", "role": "replica"}"#]);
    let give_up = Instant::now() + LONG;
    while leader_ttl(cluster) != 20 {
        assert!(Instant::now() < give_up, "{}", cluster.dump());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for i in 0..OURS.len() {
        cluster.wait_log(i, "held to Patroni's limits", LONG).await;
    }
    etcdctl(cluster, &["del", &member]);
    while leader_ttl(cluster) != 5 {
        assert!(Instant::now() < give_up, "{}", cluster.dump());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for i in 0..OURS.len() {
        cluster.wait_log(i, "every member is run by pgherd", LONG).await;
        let log = std::fs::read_to_string(cluster.path(&format!("{}.log", cluster.members[i].name))).unwrap();
        assert_eq!(log.matches("held to Patroni's limits").count(), 1, "said once");
    }
}

fn etcdctl(cluster: &Cluster, args: &[&str]) -> serde_json::Value {
    let mut command = std::process::Command::new("/usr/bin/etcdctl");
    command.env("ETCDCTL_API", "3").arg(format!("--endpoints=127.0.0.1:{}", cluster.store_port)).args(args);
    let output = command.args(["-w", "json"]).output().unwrap();
    assert!(output.status.success(), "etcdctl {args:?}: {}", stderr(&output));
    serde_json::from_str(&stdout(&output)).unwrap()
}

/// The life that was asked for the lease behind the leader key; 0 when there is none.
fn leader_ttl(cluster: &Cluster) -> u64 {
    let answer = etcdctl(cluster, &["get", &format!("/service/{}/leader", cluster.scope)]);
    let Some(lease) = answer["kvs"][0]["lease"].as_i64() else { return 0 };
    etcdctl(cluster, &["lease", "timetolive", &format!("{lease:x}")])["granted-ttl"].as_u64().unwrap_or(0)
}

/// The lease lives for longer than anything here waits.
#[tokio::test(flavor = "multi_thread")]
async fn guard_gives_the_key_back_when_neither_agent_nor_server_is_left() {
    let mut cluster = Cluster::healthy(Store::Etcd, &OURS, settings(120)).await;
    for _ in 0..2 {
        let leader = cluster.settled_leader(LONG).await;
        cluster.kill_agent(leader);
        cluster.kill_postmaster(leader);
        promoted(&cluster, 1 - leader).await;
        assert!(cluster.log(leader).contains("the leader key is given back"), "{}", cluster.dump());
        cluster.start(leader);
    }
    cluster.settled_leader(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guard_is_handed_over_to_an_agent_that_is_back_in_time_and_leaves_a_paused_server_alone() {
    const TTL: u64 = 12;
    let mut cluster = Cluster::healthy(Store::Etcd, &OURS, settings(TTL)).await;
    let leader = cluster.settled_leader(LONG).await;
    let before = cluster.postmaster(leader);
    cluster.kill_agent(leader);
    cluster.start(leader);
    // Nothing tells when something does not happen.
    tokio::time::sleep(Duration::from_secs(TTL + 1)).await;
    assert_eq!(cluster.postmaster(leader), before, "the server was left alone\n{}", cluster.dump());
    cluster.wait_healthy(LONG).await;
    assert_eq!(cluster.leader().await, Some(leader));

    let answer = cluster.request("PATCH", leader, "/config", &json!({"pause": true})).await;
    assert_eq!(answer.map(|(code, _)| code), Some(200));
    cluster.wait_log(leader, "PAUSE: ", LONG).await;
    cluster.kill_agent(leader);
    tokio::time::sleep(Duration::from_secs(TTL + 1)).await;
    assert_eq!(cluster.postmaster(leader), before, "the server was left alone\n{}", cluster.dump());
    cluster.sql(leader, "CREATE TABLE still_writes (id int)").await.unwrap();

    cluster.start(leader);
    let answer = cluster.request("PATCH", 1 - leader, "/config", &json!({"pause": null})).await;
    assert_eq!(answer.map(|(code, _)| code), Some(200));
    cluster.settled_leader(LONG).await;
    // What a clean end leaves is not watched any more.
    cluster.terminate_agent(leader, LONG);
    assert!(!cluster.log(leader).contains("did not renew"), "{}", cluster.dump());
}
