//! Who streams from whom: a tree of members, and what becomes of it when something dies.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Cluster, Kind, Store, stdout};

const LONG: Duration = Duration::from_secs(60);

/// The member that `i` streams from.
async fn source(cluster: &Cluster, i: usize) -> Option<usize> {
    let answer =
        cluster.sql(i, "SELECT sender_port FROM pg_stat_wal_receiver WHERE status = 'streaming'").await.ok()?;
    let port: u16 = answer.first()?[0].as_deref()?.parse().ok()?;
    cluster.members.iter().position(|member| member.pg_port == port)
}

async fn wait_source(cluster: &Cluster, i: usize, wanted: usize) {
    cluster
        .until(&format!("n{i} streams from n{wanted}"), LONG, async || source(cluster, i).await == Some(wanted))
        .await;
}

async fn wait_rows(cluster: &Cluster, i: usize, count: &str) {
    cluster
        .until(&format!("{count} rows on n{i}"), LONG, async || {
            let answer = cluster.sql(i, "SELECT count(*) FROM t").await;
            answer.is_ok_and(|rows| rows[0][0].as_deref() == Some(count))
        })
        .await;
}

/// n0 leads, n1 follows it, n2 follows n1, and n3 lives on the archive.
async fn tree() -> Cluster {
    let settings = json!({
        "ttl": 20, "loop_wait": 5, "retry_timeout": 5,
        "postgresql": {"use_pg_rewind": true, "parameters": {"wal_keep_size": "64MB"}}
    });
    let mut cluster = Cluster::new(Store::Etcd, &[Kind::Pgherd; 4], settings);
    cluster.make_dir("archive");
    let archive = cluster.path("archive").display().to_string();
    let tags = [json!({}), json!({}), json!({"replicatefrom": "n1", "nofailover": true}), json!({"nostream": true})];
    for (i, tags) in tags.into_iter().enumerate() {
        cluster.reconfigure(i, |document| {
            document["postgresql"]["parameters"]["archive_mode"] = "on".into();
            document["postgresql"]["parameters"]["archive_command"] = format!("cp %p {archive}/%f").into();
            document["postgresql"]["recovery_conf"] = json!({"restore_command": format!("cp {archive}/%f %p")});
            document["tags"] = tags;
        });
    }
    cluster.start(0);
    cluster.wait_leader(LONG, |_| true).await;
    for i in 1..4 {
        cluster.start(i);
    }
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_of_members_grows_round_what_dies() {
    let mut cluster = tree().await;
    cluster.sql(0, "CREATE TABLE t ()").await.unwrap();
    cluster.sql(0, "INSERT INTO t SELECT FROM generate_series(1, 10)").await.unwrap();
    wait_source(&cluster, 1, 0).await;
    wait_source(&cluster, 2, 1).await;
    wait_rows(&cluster, 2, "10").await;
    let postmaster = cluster.postmaster(2);

    // n3 streams from nobody, has no slot anywhere, and gets what is archived.
    cluster.sql(0, "SELECT pg_switch_wal()").await.unwrap();
    wait_rows(&cluster, 3, "10").await;
    assert_eq!(cluster.status(3).await.unwrap()["replication_state"], "in archive recovery");
    assert_eq!(source(&cluster, 3).await, None);
    let slots = "SELECT slot_name FROM pg_replication_slots WHERE slot_name = 'n3'";
    assert_eq!(cluster.sql(0, slots).await.unwrap(), Vec::<Vec<Option<String>>>::new());

    // The server of n1 goes, its agent stays: n2 hears of it. Then it comes back, and so does n2.
    cluster.sql(0, "INSERT INTO t SELECT FROM generate_series(1, 10)").await.unwrap();
    cluster.terminate_agent(1, LONG);
    wait_source(&cluster, 2, 0).await;
    wait_rows(&cluster, 2, "20").await;
    cluster.start(1);
    wait_source(&cluster, 1, 0).await;
    wait_source(&cluster, 2, 1).await;

    // n1 dies without a word.
    cluster.kill_agent(1);
    cluster.kill_postmaster(1);
    cluster.sql(0, "INSERT INTO t SELECT FROM generate_series(1, 10)").await.unwrap();
    wait_source(&cluster, 2, 0).await;
    wait_rows(&cluster, 2, "30").await;
    cluster.start(1);
    wait_source(&cluster, 2, 1).await;
    wait_rows(&cluster, 1, "30").await;

    // The leader changes: n2 stays with n1, whose child n0 becomes.
    let body = json!({"leader": "n0", "candidate": "n1"});
    cluster.request("POST", 0, "/switchover", &body).await;
    cluster.wait_leader(LONG, |now| now == 1).await;
    wait_source(&cluster, 0, 1).await;
    wait_source(&cluster, 2, 1).await;
    cluster.sql(1, "INSERT INTO t SELECT FROM generate_series(1, 10)").await.unwrap();
    cluster.sql(1, "SELECT pg_switch_wal()").await.unwrap();
    for i in [0, 2, 3] {
        wait_rows(&cluster, i, "40").await;
    }
    assert_eq!(cluster.postmaster(2), postmaster, "no change of the upstream took a restart");
    assert!(stdout(&cluster.ctl(&["topology"])).contains("+ n2"), "{}", cluster.dump());
    cluster.assert_journals_replay().await;
}
