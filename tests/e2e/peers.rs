//! A real Patroni as a peer: our CLI on its cluster, its CLI on ours, and mixed clusters.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Cluster, Kind, Store, stderr, stdout};
use crate::writer::Writer;

const LONG: Duration = Duration::from_secs(90);

fn settings() -> serde_json::Value {
    json!({
        "ttl": 20, "loop_wait": 2, "retry_timeout": 5,
        "postgresql": {"use_pg_rewind": true, "parameters": {"wal_keep_size": "64MB"}}
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn our_cli_runs_a_patroni_cluster() {
    let cluster = Cluster::healthy(Store::Etcd, &[Kind::Patroni, Kind::Patroni], settings()).await;
    let leader = cluster.leader().await.unwrap();
    let (from, to) = (cluster.members[leader].name.clone(), cluster.members[1 - leader].name.clone());
    prints_the_same(&cluster);
    let output = cluster.ctl(&["switchover", "e2e", "--leader", &from, "--candidate", &to, "--force"]);
    assert!(output.status.success(), "{}\n{}\n{}", stdout(&output), stderr(&output), cluster.dump());
    cluster.wait_healthy(LONG).await;
    assert_eq!(cluster.leader().await, Some(1 - leader));
    let output = cluster.ctl(&["restart", "e2e", &from, "--force"]);
    assert!(output.status.success(), "{}\n{}", stdout(&output), stderr(&output));
    cluster.wait_healthy(LONG).await;
    prints_the_same(&cluster);
}

/// Two looks at one cluster, byte for byte. The members may publish something between them, so a few are allowed.
fn prints_the_same(cluster: &Cluster) {
    for args in [
        &["list"] as &[&str],
        &["list", "-e"],
        &["list", "-f", "tsv"],
        &["list", "-f", "json"],
        &["list", "-f", "yaml"],
        &["topology"],
        &["history"],
        &["history", "-f", "json"],
        &["show-config"],
        &["version", "e2e"],
    ] {
        let looks = || (stdout(&cluster.as_patronictl(args)), stdout(&cluster.patronictl(args)));
        let same = (0..5).any(|_| {
            let (ours, theirs) = looks();
            ours == theirs && !ours.is_empty()
        });
        assert!(same, "{args:?}\n{:?}", looks());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn patronictl_runs_our_cluster() {
    let cluster = Cluster::healthy(Store::Etcd, &[Kind::Pgherd, Kind::Pgherd], settings()).await;
    let leader = cluster.leader().await.unwrap();
    let (from, to) = (cluster.members[leader].name.clone(), cluster.members[1 - leader].name.clone());
    let list = stdout(&cluster.patronictl(&["list"]));
    assert!(list.contains(&from) && list.contains("streaming"), "{list}");
    prints_the_same(&cluster);
    let output = cluster.patronictl(&["switchover", "e2e", "--leader", &from, "--candidate", &to, "--force"]);
    assert!(stdout(&output).contains("Successfully switched over"), "{}\n{}", stdout(&output), stderr(&output));
    cluster.wait_healthy(LONG).await;
    assert_eq!(cluster.leader().await, Some(1 - leader));
    let output = cluster.patronictl(&["restart", "e2e", &from, "--force"]);
    assert!(stdout(&output).contains("Success: restart on member"), "{}", stdout(&output));
    let output = cluster.patronictl(&["pause", "e2e", "--wait"]);
    assert!(output.status.success(), "{}\n{}", stdout(&output), stderr(&output));
    let output = cluster.patronictl(&["resume", "e2e", "--wait"]);
    assert!(output.status.success(), "{}\n{}", stdout(&output), stderr(&output));
    cluster.wait_healthy(LONG).await;
    prints_the_same(&cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mixed_cluster_fails_over_in_both_directions() {
    let kinds = [Kind::Patroni, Kind::Patroni, Kind::Pgherd];
    let mut cluster = Cluster::healthy(Store::Etcd, &kinds, settings()).await;
    let writer = Writer::start(&cluster).await;
    // To ours.
    let leader = cluster.leader().await.unwrap();
    if leader != 2 {
        move_to(&cluster, 2).await;
    }
    // Ours dies, a Patroni member takes over.
    cluster.kill_agent(2);
    cluster.kill_postmaster(2);
    let second = cluster.wait_leader(LONG, |now| now != 2).await;
    cluster.start(2);
    cluster.wait_healthy(LONG).await;
    // Both Patroni members may lead; the one that does dies, and ours takes over because the other stands back.
    let other = 1 - second;
    cluster.terminate_agent(other, LONG);
    writer.wait_acknowledged_after(Instant::now(), LONG).await;
    cluster.kill_agent(second);
    cluster.kill_postmaster(second);
    cluster.wait_leader(LONG, |now| now == 2).await;
    cluster.start(second);
    cluster.start(other);
    cluster.wait_healthy(LONG).await;
    writer.wait_acknowledged_after(Instant::now(), LONG).await;
    writer.finish().await;
}

async fn move_to(cluster: &Cluster, target: usize) {
    let leader = cluster.leader().await.unwrap();
    let (from, to) = (cluster.members[leader].name.clone(), cluster.members[target].name.clone());
    let output = cluster.ctl(&["switchover", "e2e", "--leader", &from, "--candidate", &to, "--force"]);
    assert!(output.status.success(), "{}\n{}\n{}", stdout(&output), stderr(&output), cluster.dump());
    cluster.wait_healthy(LONG).await;
    assert_eq!(cluster.leader().await, Some(target));
}
