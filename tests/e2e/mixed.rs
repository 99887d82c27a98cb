//! Clusters with members of both kinds: leaders change in both directions, and a cluster migrates one member at a time.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Cluster, Kind, Store, stderr};
use crate::writer::{Writer, assert_nothing_lost};

const LONG: Duration = Duration::from_secs(90);

fn settings() -> Value {
    json!({
        "ttl": 20, "loop_wait": 2, "retry_timeout": 5,
        "postgresql": {"use_pg_rewind": true, "parameters": {"wal_keep_size": "64MB"}}
    })
}

/// The leader and its server die, and its lease with them; the other member takes over. Returns the rows that may have
/// died too if nothing was waited for: those that were acknowledged after a moment of which the other member has all.
async fn kill(cluster: &mut Cluster, leader: usize, writer: &Writer) -> Vec<u64> {
    let safe = writer.acknowledged();
    let last = format!("SELECT FROM written WHERE id = {}", safe.last().unwrap());
    let has_last = async || cluster.sql(1 - leader, &last).await.is_ok_and(|rows| !rows.is_empty());
    cluster.until("the last row at the other member", LONG, has_last).await;
    let interruptions = writer.interruptions();
    cluster.kill_agent(leader);
    cluster.kill_postmaster(leader);
    // From here on nothing is acknowledged until somebody else leads.
    cluster.until("the end of the sessions", LONG, async || writer.interruptions() > interruptions).await;
    let all = writer.acknowledged();
    cluster.expire_leader_key();
    cluster.wait_leader(LONG, |now| now != leader).await;
    cluster.start(leader);
    cluster.wait_healthy(LONG).await;
    all[safe.len()..].to_vec()
}

/// The leader's view of the cluster has a member of this role.
async fn is_listed(cluster: &Cluster, role: &str) -> bool {
    let Some(leader) = cluster.leader().await else { return false };
    cluster.get(leader, "/cluster").await.is_some_and(|(_, view)| view.contains(role))
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_change_in_both_directions_in_every_mode() {
    let mut cluster = Cluster::healthy(Store::Etcd, &[Kind::Pgherd, Kind::Patroni], settings()).await;
    let writer = Writer::start(&cluster).await;
    let mut excused = BTreeSet::new();
    for (mode, standby) in
        [(json!(false), "replica"), (json!(true), "sync_standby"), (json!("quorum"), "quorum_standby")]
    {
        cluster.request("PATCH", 0, "/config", &json!({"synchronous_mode": mode})).await.unwrap();
        for _ in 0..2 {
            cluster.until(standby, LONG, async || is_listed(&cluster, standby).await).await;
            writer.wait_acknowledged_after(Instant::now(), LONG).await;
            let leader = cluster.leader().await.unwrap();
            // In asynchronous mode rows of the last moment may die with a leader that was killed.
            let may_die = kill(&mut cluster, leader, &writer).await;
            if mode == json!(false) {
                excused.extend(may_die);
            }
        }
        for _ in 0..2 {
            cluster.until(standby, LONG, async || is_listed(&cluster, standby).await).await;
            writer.wait_acknowledged_after(Instant::now(), LONG).await;
            let leader = cluster.leader().await.unwrap();
            cluster.switch_to(1 - leader, LONG).await;
        }
    }
    writer.wait_acknowledged_after(Instant::now(), LONG).await;
    let mut acknowledged = writer.finish().await;
    acknowledged.retain(|id| !excused.contains(id));
    assert_nothing_lost(&cluster, acknowledged).await;
    maintenance_holds_for_both(&mut cluster).await;
}

/// In maintenance mode a server that dies stays down whoever leads, each kind makes way for the other by hand only, and
/// the slots on the primary are the other member's.
async fn maintenance_holds_for_both(cluster: &mut Cluster) {
    let run = |cluster: &Cluster, args: &[&str]| {
        let output = cluster.ctl(args);
        assert!(output.status.success(), "{args:?}\n{}\n{}", stderr(&output), cluster.dump());
    };
    for leader in [0, 1] {
        let other = 1 - leader;
        let (leads, follows) = (cluster.members[leader].name.clone(), cluster.members[other].name.clone());
        cluster.switch_to(leader, LONG).await;
        let slots = async || cluster.sql(leader, "SELECT slot_name FROM pg_replication_slots WHERE active").await;
        let is_fed = async || slots().await.is_ok_and(|rows| rows.len() == 1 && rows[0][0].as_ref() == Some(&follows));
        cluster.until("the slot of the member that follows", LONG, is_fed).await;
        run(cluster, &["pause", "--wait"]);
        cluster.kill_postmaster(leader);
        cluster.until("no leader", LONG, async || cluster.key_in_etcd("leader").is_none()).await;
        let turns = cluster.count_in_log(other, "PAUSE: no action");
        let has_turned = async || cluster.count_in_log(other, "PAUSE: no action") > turns + 2;
        cluster.until("nobody takes over", LONG, has_turned).await;
        assert_eq!((cluster.leader().await, cluster.key_in_etcd("leader")), (None, None), "{}", cluster.dump());
        run(cluster, &["failover", &cluster.scope, "--candidate", &follows, "--force"]);
        assert_eq!(cluster.wait_leader(LONG, |_| true).await, other);
        assert!(cluster.sql(leader, "SELECT 1").await.is_err(), "{leads} came back by itself\n{}", cluster.dump());
        run(cluster, &["resume", "--wait"]);
        cluster.wait_healthy(LONG).await;
    }
}

/// Hands a member that does not lead to the other program: its agent ends, the other starts with the same file.
async fn hand_over(cluster: &mut Cluster, i: usize, kind: Kind) {
    cluster.terminate_agent(i, LONG);
    cluster.set_kind(i, kind);
    cluster.start(i);
    cluster.wait_healthy(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_migrates_member_by_member_and_back() {
    let mut cluster = Cluster::healthy(Store::Etcd, &[Kind::Patroni; 3], settings()).await;
    let writer = Writer::start(&cluster).await;
    let mut leader_changes = 0;
    for kind in [Kind::Pgherd, Kind::Patroni] {
        let leader = cluster.leader().await.unwrap();
        for i in (0..3).filter(|i| *i != leader) {
            hand_over(&mut cluster, i, kind).await;
        }
        cluster.switch_to((leader + 1) % 3, LONG).await;
        leader_changes += 1;
        hand_over(&mut cluster, leader, kind).await;
        writer.wait_acknowledged_after(Instant::now(), LONG).await;
    }
    // One interruption of the writer per leader change, none for a member that is handed over.
    assert_eq!(writer.interruptions(), leader_changes);
    assert_nothing_lost(&cluster, writer.finish().await).await;
}
