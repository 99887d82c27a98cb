//! The DCS goes away, and the primary leads on because every member says that it may.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Cluster, Kind, Store};
use crate::proxy::{Mode, Proxy};
use crate::slots::{Consumer, confirmed, copies_follow_from, wait_true};
use crate::writer::{Writer, assert_nothing_lost};

const LONG: Duration = Duration::from_secs(90);
const TTL: Duration = Duration::from_secs(20);
/// What members of our kind can keep up with.
const SHORT_TTL: Duration = Duration::from_secs(8);
const LEADS_ON: &str = "continue to run as a leader because failsafe mode is enabled and all members are accessible";
const DEMOTES: &str = "demoting self because DCS is not accessible and I was a leader";

/// Waits until so many members count.
async fn wait_topology(cluster: &Cluster, count: usize) {
    let give_up = Instant::now() + LONG;
    loop {
        let leader = cluster.wait_leader(LONG, |_| true).await;
        let (_, text) = cluster.get(leader, "/failsafe").await.unwrap_or_default();
        let known: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        if known.as_object().is_some_and(|known| known.len() == count) {
            return;
        }
        assert!(Instant::now() < give_up, "the topology stays {text}\n{}", cluster.dump());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// One member has led without a break, is told so again by all others, and its writes are acknowledged.
async fn assert_leads_on(cluster: &Cluster, who: usize, writer: &Writer, interrupted: usize) {
    let said = cluster.count_in_log(who, LEADS_ON);
    cluster.until("the members are asked again", LONG, async || cluster.count_in_log(who, LEADS_ON) > said + 1).await;
    writer.wait_acknowledged_after(Instant::now(), LONG).await;
    assert_eq!((cluster.leader().await, writer.interruptions()), (Some(who), interrupted), "{}", cluster.dump());
}

/// A client of the permanent slot needs the WAL no longer, and the members hear of it without the DCS.
async fn assert_slot_follows(cluster: &Cluster, leader: usize) {
    let forward = "SELECT end_lsn FROM pg_replication_slot_advance('kept', pg_current_wal_lsn())";
    let rows = cluster.sql(leader, forward).await.unwrap();
    let to = rows[0][0].clone().unwrap();
    let query = format!("SELECT restart_lsn >= '{to}' FROM pg_replication_slots WHERE slot_name = 'kept'");
    for i in (0..cluster.members.len()).filter(|i| *i != leader) {
        let has_arrived = async || {
            let rows = cluster.sql(i, &query).await.unwrap_or_default();
            rows.first().is_some_and(|row| row[0].as_deref() == Some("t"))
        };
        cluster.until(&format!("n{i} moves its copy of the slot to {to}"), LONG, has_arrived).await;
    }
}

/// The same for the slot of a logical consumer, which reads and confirms what there is. How far that is.
async fn assert_copies_follow(cluster: &Cluster, leader: usize, consumer: &mut Consumer) -> u64 {
    let before = confirmed(cluster, leader).await.unwrap();
    consumer.step(cluster, leader).await.expect("the consumer reads on");
    let at = copies_follow_from(cluster, leader).await;
    assert!(at > before, "nothing was read\n{}", cluster.dump());
    at
}

/// The consumer goes on with a new leader: it has missed nothing, and what it had confirmed when the copies were last
/// moved does not come again.
async fn assert_goes_on(cluster: &Cluster, leader: usize, consumer: &mut Consumer, moved_to: u64) {
    let at = confirmed(cluster, leader).await.expect("the slot is there");
    assert!(at >= moved_to, "{at} < {moved_to}\n{}", cluster.dump());
    consumer.again.clear();
    consumer.read_more(cluster, 20).await;
    consumer.assert_complete(cluster, leader, at).await;
}

/// A new agent in the place of one that is killed.
async fn restart_agent(cluster: &mut Cluster, who: usize, says: &str) {
    let said = cluster.count_in_log(who, says);
    cluster.kill_agent(who);
    cluster.start(who);
    cluster.until("the new agent begins", LONG, async || cluster.count_in_log(who, says) > said).await;
}

/// Neither a new agent of the primary nor one of a replica ends what the members have agreed on. The server runs on.
async fn agents_are_restarted(cluster: &mut Cluster, writer: &Writer) {
    let server = cluster.postmaster(0);
    assert_leads_on(cluster, 0, writer, 0).await;
    restart_agent(cluster, 1, "failsafe mode: this member keeps its part without the DCS").await;
    restart_agent(cluster, 0, "failsafe mode: this member leads on as the agent before it did").await;
    assert_leads_on(cluster, 0, writer, 0).await;
    assert_eq!(cluster.postmaster(0), server, "{}", cluster.dump());
}

/// A primary stops when one member says nothing.
async fn assert_stops_without(cluster: &Cluster, leader: usize, silent: usize) {
    let stopped = cluster.count_in_log(leader, DEMOTES);
    cluster.signal_agent(silent, "STOP");
    cluster.until("it stops", LONG, async || cluster.count_in_log(leader, DEMOTES) > stopped).await;
    cluster.wait_log(leader, &format!("n{silent} does not accept us as the leader"), LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_leads_on_without_the_dcs_while_all_members_accept_it() {
    let settings = json!({
        "ttl": TTL.as_secs(), "loop_wait": 2, "retry_timeout": 3, "failsafe_mode": true,
        "slots": {"kept": null, "feed": {"type": "logical", "database": "postgres", "plugin": "test_decoding"}},
        "postgresql": {"use_pg_rewind": true, "parameters": {"wal_level": "logical", "wal_keep_size": "64MB"}}
    });
    let mut cluster = Cluster::new(Store::Etcd, &[Kind::Pgherd, Kind::Pgherd, Kind::Patroni], settings);
    let way = Proxy::new(format!("127.0.0.1:{}", cluster.store_port)).await;
    // One member's way to the DCS can be cut.
    cluster.reconfigure(0, |document| document["etcd3"] = json!({"host": way.address(), "use_proxies": true}));
    // One member streams from another replica.
    cluster.reconfigure(1, |document| document["tags"] = json!({"replicatefrom": "n2"}));
    for i in 0..3 {
        cluster.start(i);
    }
    cluster.wait_healthy(LONG).await;
    cluster.switch_to(0, LONG).await;
    wait_topology(&cluster, 3).await;
    let writer = Writer::start(&cluster).await;
    let mut consumer = Consumer::default();
    consumer.read_more(&cluster, 20).await;
    copies_follow_from(&cluster, 0).await;

    // The DCS hangs for longer than the lease lives. Both kinds of replica accept.
    cluster.freeze_store(true);
    let began = Instant::now();
    cluster.wait_log(0, LEADS_ON, LONG).await;
    let (_, status) = cluster.get(0, "/patroni").await.unwrap();
    assert!(status.contains("\"failsafe_mode_is_active\": true"), "{status}");
    assert_slot_follows(&cluster, 0).await;
    assert_copies_follow(&cluster, 0, &mut consumer).await;
    // What the primary keeps for the member that streams from another one follows, too.
    let at = cluster.sql(0, "SELECT pg_current_wal_lsn()").await.unwrap()[0][0].clone().unwrap();
    let query = format!("SELECT restart_lsn >= '{at}' AND NOT active FROM pg_replication_slots WHERE slot_name = 'n1'");
    wait_true(&cluster, 0, &query).await;
    writer.wait_acknowledged_after(began + TTL + Duration::from_secs(3), LONG).await;
    assert_leads_on(&cluster, 0, &writer, 0).await;
    cluster.freeze_store(false);
    cluster.wait_healthy(LONG).await;
    // Its key has expired meanwhile, and it takes it again.
    let leader = cluster.wait_leader(LONG, |_| true).await;
    assert_eq!((leader, writer.interruptions()), (0, 0), "{}", cluster.dump());

    // The DCS is stopped, and then one member that counts (again, since its key came back) cannot be asked.
    wait_topology(&cluster, 3).await;
    cluster.stop_store();
    cluster.reconfigure(1, |document| document["tags"] = json!({}));
    agents_are_restarted(&mut cluster, &writer).await;
    let moved_to = assert_copies_follow(&cluster, 0, &mut consumer).await;
    assert_stops_without(&cluster, 0, 1).await;
    cluster.start_store();
    cluster.signal_agent(1, "CONT");
    cluster.wait_healthy(LONG).await;

    // Patroni leads, and ours accept it.
    cluster.switch_to(2, LONG).await;
    wait_topology(&cluster, 3).await;
    assert_goes_on(&cluster, 2, &mut consumer, moved_to).await;
    writer.wait_acknowledged_after(Instant::now(), LONG).await;
    let interrupted = writer.interruptions();
    // Whoever has not yet compared its history with the new leader's does not move its copies without the DCS.
    copies_follow_from(&cluster, 2).await;
    cluster.freeze_store(true);
    cluster.wait_log(2, LEADS_ON, LONG).await;
    assert_slot_follows(&cluster, 2).await;
    let moved_to = assert_copies_follow(&cluster, 2, &mut consumer).await;
    writer.wait_acknowledged_after(Instant::now(), LONG).await;
    cluster.freeze_store(false);
    cluster.wait_healthy(LONG).await;
    let leader = cluster.wait_leader(LONG, |_| true).await;
    assert_eq!((leader, writer.interruptions()), (2, interrupted), "{}", cluster.dump());

    cluster.switch_to(0, LONG).await;
    assert_goes_on(&cluster, 0, &mut consumer, moved_to).await;
    fewer_members(&mut cluster, &way, &writer).await;
    assert_nothing_lost(&cluster, writer.finish().await).await;
}

/// Ends a member, and does not wait until its key has expired.
fn remove(cluster: &mut Cluster, i: usize) {
    cluster.terminate_agent(i, LONG);
    cluster.etcdctl(&["del", &cluster.key(&format!("members/n{i}"))]);
}

/// The same cluster with two members and with one; without Patroni's the lease may be shorter.
async fn fewer_members(cluster: &mut Cluster, way: &Proxy, writer: &Writer) {
    remove(cluster, 2);
    wait_topology(cluster, 2).await;
    let patch = json!({
        "ttl": SHORT_TTL.as_secs(), "loop_wait": 1, "retry_timeout": 2,
        "synchronous_mode": true, "synchronous_mode_strict": true
    });
    let (code, text) = cluster.request("PATCH", 0, "/config", &patch).await.unwrap();
    assert_eq!(code, 200, "{text}");
    let names = async |i: usize| cluster.sql(i, "SHOW synchronous_standby_names").await.unwrap()[0][0].clone().unwrap();
    cluster.until("the other one is synchronous", LONG, async || names(0).await.contains("n1")).await;
    writer.wait_acknowledged_after(Instant::now(), LONG).await;
    let interrupted = writer.interruptions();

    // Two, and the primary alone has lost the DCS: there its lease expires, but the other one keeps its promise, and
    // goes on following, so that commits are acknowledged.
    way.set(Mode::Closed);
    cluster.wait_log(0, LEADS_ON, LONG).await;
    cluster.until("the lease ends", LONG, async || cluster.key_in_etcd("leader").is_none()).await;
    assert_leads_on(cluster, 0, writer, interrupted).await;

    // Then everybody has lost it.
    cluster.stop_store();
    assert_leads_on(cluster, 0, writer, interrupted).await;
    // It hangs, and the other one cannot be asked.
    cluster.start_store();
    cluster.freeze_store(true);
    way.set(Mode::Open);
    assert_stops_without(cluster, 0, 1).await;
    cluster.signal_agent(1, "CONT");
    cluster.freeze_store(false);
    let leader = cluster.wait_leader(LONG, |_| true).await;

    // One: there is nobody to ask.
    let patch = json!({"synchronous_mode": false, "synchronous_mode_strict": false});
    let (code, text) = cluster.request("PATCH", leader, "/config", &patch).await.unwrap();
    assert_eq!(code, 200, "{text}");
    remove(cluster, 1 - leader);
    wait_topology(cluster, 1).await;
    writer.wait_acknowledged_after(Instant::now(), LONG).await;
    let interrupted = writer.interruptions();
    cluster.freeze_store(true);
    let began = Instant::now();
    writer.wait_acknowledged_after(began + SHORT_TTL + Duration::from_secs(2), LONG).await;
    assert_leads_on(cluster, leader, writer, interrupted).await;
    cluster.stop_store();
    assert_leads_on(cluster, leader, writer, interrupted).await;
    cluster.start_store();
    cluster.wait_leader(LONG, |now| now == leader).await;
    assert_eq!(writer.interruptions(), interrupted, "{}", cluster.dump());

    // An agent that is told to end takes its server with it: whether that may lead again is for the DCS to say.
    cluster.stop_store();
    assert_leads_on(cluster, leader, writer, interrupted).await;
    cluster.terminate_agent(leader, LONG);
    cluster.start(leader);
    let waits = "INFO: DCS is not accessible";
    let said = cluster.count_in_log(leader, waits);
    cluster.until("several turns", LONG, async || cluster.count_in_log(leader, waits) > said + 1).await;
    assert!(cluster.sql(leader, "SELECT 1").await.is_err(), "{}", cluster.dump());
    cluster.start_store();
    cluster.wait_leader(LONG, |now| now == leader).await;
}
