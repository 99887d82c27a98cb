//! A real Patroni as a peer: our CLI on its cluster, its CLI on ours.

use serde_json::json;

use crate::harness::{Cluster, Kind, Store, stdout};
use crate::side_by_side;

fn settings() -> serde_json::Value {
    json!({
        "ttl": 20, "loop_wait": 2, "retry_timeout": 5,
        "postgresql": {"use_pg_rewind": true, "parameters": {"wal_keep_size": "64MB"}}
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn our_cli_runs_a_patroni_cluster() {
    let cluster = Cluster::healthy(Store::Etcd, &[Kind::Patroni, Kind::Patroni], settings()).await;
    prints_the_same(&cluster);
    side_by_side::steer(&cluster).await;
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
    let list = stdout(&cluster.patronictl(&["list"]));
    assert!(list.contains("Leader") && list.contains("streaming"), "{list}");
    prints_the_same(&cluster);
    side_by_side::steer(&cluster).await;
    side_by_side::demote_and_promote(&cluster).await;
    prints_the_same(&cluster);
}
