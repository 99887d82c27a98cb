//! Replication slots as an operator sees them: a logical consumer that goes on over a switchover and a failover, copies
//! on replicas of both kinds, slots that are nobody's business, and slots that were lost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Cluster, Kind, Store};
use crate::writer::Writer;

const LONG: Duration = Duration::from_secs(90);

fn settings() -> Value {
    json!({
        "ttl": 20, "loop_wait": 1, "retry_timeout": 5,
        "slots": {
            "feed": {"type": "logical", "database": "postgres", "plugin": "test_decoding"},
            "keep": {"type": "physical"},
        },
        "ignore_slots": [{"name": "mine", "type": "physical"}],
        "postgresql": {
            "use_pg_rewind": true,
            "parameters": {"wal_level": "logical", "wal_keep_size": "64MB"},
        },
    })
}

fn lsn(text: &str) -> u64 {
    text.parse::<pgherd::cluster::Lsn>().unwrap().0
}

/// One text out of one row, or nothing: no row, a null, or no answer.
async fn ask(cluster: &Cluster, i: usize, query: &str) -> Option<String> {
    cluster.sql(i, query).await.ok()?.into_iter().next()?.into_iter().next()?
}

/// Waits until a query on a member answers with `t`.
pub async fn wait_true(cluster: &Cluster, i: usize, query: &str) {
    let give_up = Instant::now() + LONG;
    loop {
        let answer = cluster.sql(i, query).await;
        if answer.as_ref().is_ok_and(|rows| rows.first().is_some_and(|row| row[0].as_deref() == Some("t"))) {
            return;
        }
        assert!(Instant::now() < give_up, "{}: {query}: {answer:?}\n{}", cluster.members[i].name, cluster.dump());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Where the consumer's slot stands on a member.
pub async fn confirmed(cluster: &Cluster, i: usize) -> Option<u64> {
    let query = "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'feed'";
    ask(cluster, i, query).await.map(|text| lsn(&text))
}

/// Reads the slot as a consumer that must not lose anything does: what it has read it confirms afterwards. It throws
/// away what it has had already.
#[derive(Default)]
pub struct Consumer {
    /// How often each key came.
    came: BTreeMap<u64, usize>,
    /// Of keys that came more than once, where they stood.
    pub again: Vec<u64>,
}

impl Consumer {
    /// Reads and confirms what there is on this member. `None`: it could not be read there now.
    pub async fn step(&mut self, cluster: &Cluster, i: usize) -> Option<()> {
        let query = "SELECT lsn, data FROM pg_logical_slot_peek_changes('feed', NULL, 500, 'include-xids', '0')";
        let rows = cluster.sql(i, query).await.ok()?;
        let mut end = None;
        for row in &rows {
            let (at, data) = (row[0].as_deref()?, row[1].as_deref()?);
            if let Some(key) = data.strip_prefix("table public.written: INSERT: id[bigint]:") {
                let count = self.came.entry(key.parse().unwrap()).or_default();
                *count += 1;
                if *count > 1 {
                    self.again.push(lsn(at));
                }
            } else if data.starts_with("COMMIT") {
                end = Some(at.to_owned());
            }
        }
        let Some(end) = end else { return Some(()) };
        cluster.sql(i, &format!("SELECT pg_replication_slot_advance('feed', '{end}')")).await.ok().map(drop)
    }

    /// Goes on reading wherever there is a leader, until so many more keys have come.
    pub async fn read_more(&mut self, cluster: &Cluster, more: usize) {
        let wanted = self.came.len() + more;
        let give_up = Instant::now() + LONG;
        while self.came.len() < wanted {
            assert!(Instant::now() < give_up, "the consumer does not get on\n{}", cluster.dump());
            if let Some(leader) = cluster.leader().await {
                self.step(cluster, leader).await;
            }
        }
    }

    /// Nothing that the leader has is missing, and what came again stood beyond where the slot took over.
    pub async fn assert_complete(&self, cluster: &Cluster, leader: usize, took_over: u64) {
        let rows = cluster.sql(leader, "SELECT id FROM written ORDER BY id").await.unwrap();
        // What was written last may not have been read yet.
        let newest = self.came.keys().max().copied().unwrap_or_default();
        let written: BTreeSet<u64> = rows.iter().map(|row| row[0].as_deref().unwrap().parse().unwrap()).collect();
        let missing: Vec<_> = written.iter().filter(|id| **id < newest && !self.came.contains_key(id)).collect();
        assert!(missing.is_empty(), "never came: {missing:?}\n{}", cluster.dump());
        let early: Vec<_> = self.again.iter().filter(|at| **at <= took_over).collect();
        assert!(early.is_empty(), "confirmed before {took_over}, and came again: {early:?}\n{}", cluster.dump());
    }
}

/// Where the slot stands on the member that leads from now on, before anything is read there.
async fn take_over(cluster: &Cluster, not: usize) -> (usize, u64) {
    let leader = cluster.wait_leader(LONG, |now| now != not).await;
    let at = confirmed(cluster, leader).await;
    (leader, at.unwrap_or_else(|| panic!("the slot is not there\n{}", cluster.dump())))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logical_consumer_goes_on_over_a_switchover_and_a_failover() {
    let mut cluster = Cluster::new(Store::Etcd, &[Kind::Pgherd, Kind::Pgherd, Kind::Patroni], settings());
    cluster.start(0);
    cluster.wait_leader(LONG, |now| now == 0).await;
    cluster.start(1);
    cluster.start(2);
    cluster.wait_healthy(LONG).await;
    let writer = Writer::start(&cluster).await;
    let mut consumer = Consumer::default();
    consumer.read_more(&cluster, 20).await;
    copies_follow(&cluster).await;
    strangers_go_and_the_ignored_stay(&cluster).await;

    // A switchover, while rows are written and read.
    let body = json!({"leader": "n0", "candidate": "n1"});
    let port = cluster.members[0].api_port;
    let asked = crate::harness::http_within(LONG, "POST", port, "/switchover", Some(body.to_string()));
    let (answer, ()) = tokio::join!(asked, consumer.read_more(&cluster, 20));
    assert_eq!(answer.map(|(code, _)| code), Some(200), "{}", cluster.dump());
    consumer.again.clear();
    let (leader, _) = take_over(&cluster, 0).await;
    assert_eq!(leader, 1);
    consumer.read_more(&cluster, 20).await;
    consumer.assert_complete(&cluster, leader, 0).await;
    cluster.wait_healthy(LONG).await;
    copies_follow_from(&cluster, 1).await;

    // A failover: nobody says goodbye.
    consumer.again.clear();
    cluster.kill_agent(1);
    cluster.kill_postmaster(1);
    cluster.expire_leader_key();
    let (leader, at) = take_over(&cluster, 1).await;
    consumer.read_more(&cluster, 20).await;
    consumer.assert_complete(&cluster, leader, at).await;
    // The absent member's slot waits for it.
    let kept = "SELECT count(*) = 1 FROM pg_replication_slots WHERE slot_name = 'n1'";
    wait_true(&cluster, leader, kept).await;
    cluster.start(1);
    cluster.wait_healthy(LONG).await;
    copies_follow_from(&cluster, leader).await;
    consumer.read_more(&cluster, 20).await;
    consumer.assert_complete(&cluster, leader, at).await;
    writer.finish().await;
    a_lost_slot_is_made_anew(&cluster).await;
    slots_of_the_absent_expire(&mut cluster).await;
}

/// A member that does not come back has its slots, everywhere, for as long as is configured.
async fn slots_of_the_absent_expire(cluster: &mut Cluster) {
    cluster.switch_to(0, LONG).await;
    cluster.request("PATCH", 0, "/config", &json!({"member_slots_ttl": 3})).await.unwrap();
    cluster.terminate_agent(1, LONG);
    cluster.etcdctl(&["del", &cluster.key("members/n1")]);
    let expired = "Replication slot 'n1' for absent cluster member is expired after 3 sec.";
    cluster.wait_log(0, expired, LONG).await;
    for i in [0, 2] {
        wait_true(cluster, i, "SELECT count(*) = 0 FROM pg_replication_slots WHERE slot_name = 'n1'").await;
    }
}

/// The copies of the consumer's slot on the replicas, ours and Patroni's, get to where the original is now.
pub async fn copies_follow_from(cluster: &Cluster, leader: usize) -> u64 {
    let at = confirmed(cluster, leader).await.unwrap();
    let at = pgherd::cluster::Lsn(at);
    for i in (0..3).filter(|i| *i != leader) {
        let query = format!(
            "SELECT confirmed_flush_lsn >= '{at}' FROM pg_replication_slots WHERE slot_name = 'feed' AND plugin = \
             'test_decoding'"
        );
        wait_true(cluster, i, &query).await;
    }
    at.0
}

async fn copies_follow(cluster: &Cluster) {
    copies_follow_from(cluster, 0).await;
    for i in [1, 2] {
        cluster.wait_log(i, "Logical slot feed is safe to be used after a failover", LONG).await;
        wait_true(cluster, i, "SELECT setting = 'on' FROM pg_settings WHERE name = 'hot_standby_feedback'").await;
        // The slots that this member would need as a leader, too.
        let others = format!("'keep', 'n{}'", 3 - i);
        let query = format!("SELECT count(*) = 2 FROM pg_replication_slots WHERE slot_name IN ({others})");
        wait_true(cluster, i, &query).await;
    }
    assert!(cluster.log(1).contains("Copying logical slots ['feed'] from the primary"), "{}", cluster.log(1));
}

async fn strangers_go_and_the_ignored_stay(cluster: &Cluster) {
    for name in ["mine", "stray"] {
        let query = format!("SELECT pg_create_physical_replication_slot('{name}', true)");
        cluster.sql(0, &query).await.unwrap();
    }
    wait_true(cluster, 0, "SELECT count(*) = 0 FROM pg_replication_slots WHERE slot_name = 'stray'").await;
    wait_true(cluster, 0, "SELECT count(*) = 1 FROM pg_replication_slots WHERE slot_name = 'mine'").await;
}

/// The server gives up an idle slot that keeps too much WAL; it comes back, keeping WAL from now on.
async fn a_lost_slot_is_made_anew(cluster: &Cluster) {
    let limit = json!({"postgresql": {"parameters": {"max_slot_wal_keep_size": "1MB", "wal_keep_size": "16MB"}}});
    cluster.request("PATCH", 0, "/config", &limit).await.unwrap();
    let leader = cluster.wait_leader(LONG, |_| true).await;
    wait_true(cluster, leader, "SELECT setting = '1' FROM pg_settings WHERE name = 'max_slot_wal_keep_size'").await;
    let position = "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'keep'";
    let before = lsn(&ask(cluster, leader, position).await.unwrap());
    for _ in 0..4 {
        for query in ["SELECT txid_current()", "SELECT pg_switch_wal()", "CHECKPOINT"] {
            cluster.sql(leader, query).await.unwrap();
        }
    }
    let give_up = Instant::now() + LONG;
    while ask(cluster, leader, position).await.is_none_or(|at| lsn(&at) <= before) {
        assert!(Instant::now() < give_up, "{}", cluster.dump());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // So does the consumer's, from now on, and so do our copies of it.
    let anew = format!(
        "SELECT wal_status <> 'lost' AND confirmed_flush_lsn > '{}' FROM pg_replication_slots WHERE slot_name = 'feed'",
        pgherd::cluster::Lsn(before)
    );
    wait_true(cluster, leader, &anew).await;
    for i in (0..2).filter(|i| *i != leader) {
        wait_true(cluster, i, &anew).await;
    }
}
