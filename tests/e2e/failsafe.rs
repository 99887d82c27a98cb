//! The DCS goes away, and the primary leads on because every member says that it may.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Cluster, Kind, Store};
use crate::writer::{Writer, assert_nothing_lost};

const LONG: Duration = Duration::from_secs(90);
const TTL: Duration = Duration::from_secs(20);
const LEADS_ON: &str = "continue to run as a leader because failsafe mode is enabled and all members are accessible";

/// Waits until every member counts.
async fn wait_topology(cluster: &Cluster) {
    let give_up = Instant::now() + LONG;
    loop {
        let leader = cluster.wait_leader(LONG, |_| true).await;
        let (_, text) = cluster.get(leader, "/failsafe").await.unwrap_or_default();
        let known: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        if known.as_object().is_some_and(|known| known.len() == cluster.members.len()) {
            return;
        }
        assert!(Instant::now() < give_up, "the topology stays {text}\n{}", cluster.dump());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_leads_on_without_the_dcs_while_all_members_accept_it() {
    let settings = json!({
        "ttl": TTL.as_secs(), "loop_wait": 2, "retry_timeout": 3, "failsafe_mode": true,
        "postgresql": {"use_pg_rewind": true, "parameters": {"wal_keep_size": "64MB"}}
    });
    let kinds = [Kind::Pgherd, Kind::Pgherd, Kind::Patroni];
    let mut cluster = Cluster::healthy(Store::Etcd, &kinds, settings).await;
    cluster.switch_to(0, LONG).await;
    wait_topology(&cluster).await;
    let writer = Writer::start(&cluster).await;

    // The DCS hangs for longer than the lease lives. Both kinds of replica accept.
    cluster.freeze_store(true);
    let began = Instant::now();
    cluster.wait_log(0, LEADS_ON, LONG).await;
    let (_, status) = cluster.get(0, "/patroni").await.unwrap();
    assert!(status.contains("\"failsafe_mode_is_active\": true"), "{status}");
    writer.wait_acknowledged_after(began + TTL + Duration::from_secs(3), LONG).await;
    assert_eq!(cluster.leader().await, Some(0));
    cluster.freeze_store(false);
    cluster.wait_healthy(LONG).await;
    assert_eq!((cluster.leader().await, writer.interruptions()), (Some(0), 0), "{}", cluster.dump());

    // The DCS is stopped, and one member that counts (again, since its key came back) cannot be asked.
    wait_topology(&cluster).await;
    cluster.signal_agent(1, "STOP");
    cluster.stop_store();
    cluster.wait_log(0, "demoting self because DCS is not accessible and I was a leader", LONG).await;
    cluster.wait_log(0, "n1 does not accept us as the leader", LONG).await;
    cluster.start_store();
    cluster.signal_agent(1, "CONT");
    cluster.wait_healthy(LONG).await;

    // Patroni leads, and ours accept it.
    cluster.switch_to(2, LONG).await;
    wait_topology(&cluster).await;
    writer.wait_acknowledged_after(Instant::now(), LONG).await;
    let interrupted = writer.interruptions();
    cluster.freeze_store(true);
    cluster.wait_log(2, LEADS_ON, LONG).await;
    writer.wait_acknowledged_after(Instant::now(), LONG).await;
    cluster.freeze_store(false);
    cluster.wait_healthy(LONG).await;
    assert_eq!((cluster.leader().await, writer.interruptions()), (Some(2), interrupted), "{}", cluster.dump());
    assert_nothing_lost(&cluster, writer.finish().await).await;
}
