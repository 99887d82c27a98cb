//! A real Patroni as a peer: our CLI on its cluster, its CLI on ours.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Cluster, Kind, Store, stderr, stdout};

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
    let from = cluster.members[leader].name.clone();
    prints_the_same(&cluster);
    cluster.switch_to(1 - leader, LONG).await;
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
