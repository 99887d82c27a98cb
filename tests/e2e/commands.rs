//! `pgherdctl` against our agents: what operators type.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Cluster, Kind, Store, stderr, stdout};
use crate::side_by_side;

const LONG: Duration = Duration::from_secs(60);

async fn cluster() -> Cluster {
    let settings = json!({
        "ttl": 20, "loop_wait": 2, "retry_timeout": 5,
        "postgresql": {"use_pg_rewind": true, "parameters": {"max_connections": 30}}
    });
    Cluster::healthy(Store::Etcd, &[Kind::Pgherd; 3], settings).await
}

/// Runs a command that must succeed.
fn run(cluster: &Cluster, args: &[&str]) -> String {
    let output = cluster.ctl(args);
    let (out, err) = (stdout(&output), stderr(&output));
    assert!(output.status.success(), "{args:?}: {}\n{out}\n{err}\n{}", output.status, cluster.dump());
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_day() {
    let mut cluster = cluster().await;
    let leader = cluster.leader().await.unwrap();
    let replica = (leader + 1) % 3;
    let (leader_name, replica_name) = (cluster.members[leader].name.clone(), cluster.members[replica].name.clone());

    // Look.
    let list: Value = serde_json::from_str(&run(&cluster, &["list", "-f", "json"])).unwrap();
    assert!(list.to_string().contains(&leader_name));
    assert!(run(&cluster, &["topology"]).contains(&format!("+ {replica_name}")));
    assert!(run(&cluster, &["show-config"]).contains("loop_wait: 2"));
    run(&cluster, &["version"]);

    // Change a parameter that needs a restart, restart what waits for it.
    run(&cluster, &["edit-config", "-p", "max_connections=40", "--force"]);
    wait(&cluster, "pending restart", |list| list.matches('*').count() >= 3 || list.contains("max_connections")).await;
    run(&cluster, &["restart", "e2e", "--pending", "--force"]);
    cluster.wait_healthy(LONG).await;
    let rows = cluster.sql(leader, "SHOW max_connections").await.unwrap();
    assert_eq!(rows[0][0].as_deref(), Some("40"));

    // Reinitialise a replica.
    run(&cluster, &["reinit", "e2e", &replica_name, "--force", "--wait"]);
    cluster.wait_healthy(LONG).await;

    // Maintenance mode: a killed leader stays down until it is over.
    run(&cluster, &["pause", "--wait"]);
    cluster.kill_postmaster(leader);
    cluster.wait_log(leader, "PAUSE: removed leader lock because postgres is not running", LONG).await;
    assert_eq!(cluster.leader().await, None);
    run(&cluster, &["resume", "--wait"]);
    cluster.wait_healthy(LONG).await;

    // Move the leader by hand, both ways.
    let now = cluster.leader().await.unwrap();
    let target = (now + 1) % 3;
    let (from, to) = (cluster.members[now].name.clone(), cluster.members[target].name.clone());
    run(&cluster, &["switchover", "e2e", "--leader", &from, "--candidate", &to, "--force"]);
    cluster.wait_healthy(LONG).await;
    assert_eq!(cluster.leader().await, Some(target));
    let back = (target + 1) % 3;
    let name = cluster.members[back].name.clone();
    run(&cluster, &["failover", "e2e", "--candidate", &name, "--force"]);
    cluster.wait_healthy(LONG).await;
    assert_eq!(cluster.leader().await, Some(back));
    assert!(run(&cluster, &["history"]).contains("no recovery target specified"));

    // A refusal is a failure.
    let output = cluster.ctl(&["switchover", "e2e", "--leader", "nobody", "--force"]);
    assert!(!output.status.success());

    // Reload takes a changed file over.
    cluster.reconfigure(replica, |document| document["tags"] = json!({"nofailover": true}));
    run(&cluster, &["reload", "e2e", "--force"]);
    wait(&cluster, "the tag", |list| list.contains("nofailover")).await;

    // Patroni's tool, side by side with ours.
    side_by_side::sql(&cluster);
    side_by_side::flush(&cluster).await;

    dead_dcs(&mut cluster);
    cluster.start_store();
    cluster.wait_healthy(LONG).await;

    // Nothing is left.
    let keys = cluster.keys();
    for i in 0..3 {
        cluster.terminate_agent(i, LONG);
    }
    side_by_side::remove(&cluster, &keys);
}

async fn wait(cluster: &Cluster, what: &str, holds: impl Fn(&str) -> bool) {
    let give_up = Instant::now() + LONG;
    loop {
        let list = stdout(&cluster.ctl(&["list", "-e"]));
        if holds(&list) {
            return;
        }
        assert!(Instant::now() < give_up, "{what} did not show up:\n{list}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// With the DCS silent or gone every command ends soon, says why on stderr, and fails.
fn dead_dcs(cluster: &mut Cluster) {
    run(cluster, &["list"]);
    cluster.freeze_store(true);
    members_tell(cluster);
    commands_fail(cluster);
    cluster.freeze_store(false);
    cluster.stop_store();
    members_tell(cluster);
    commands_fail(cluster);
}

/// The cluster can be looked at all the same: every agent says how its server is.
fn members_tell(cluster: &Cluster) {
    let give_up = Instant::now() + Duration::from_secs(60);
    let (out, err) = loop {
        let output = cluster.ctl(&["list", "-f", "json"]);
        let (out, err) = (stdout(&output), stderr(&output));
        if output.status.success() {
            break (out, err);
        }
        assert!(Instant::now() < give_up, "{out}\n{err}");
    };
    assert!(err.contains("the DCS does not answer"), "{err}");
    let list: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(list["clusters"][0]["source"], "members", "{out}");
    assert!(list["clusters"][0]["members"].as_array().unwrap().len() == 3, "{out}");
}

fn commands_fail(cluster: &Cluster) {
    for args in [
        &["history"] as &[&str],
        &["show-config"],
        &["edit-config", "-s", "ttl=30", "--force"],
        &["switchover", "--force"],
        &["failover", "--candidate", "n0", "--force"],
        &["restart", "e2e", "--force"],
        &["reinit", "e2e", "n0", "--force"],
        &["reload", "e2e", "--force"],
        &["pause"],
        &["resume"],
        &["version", "e2e"],
    ] {
        let began = Instant::now();
        let output = cluster.ctl(args);
        // Five seconds by its own clock; the machine may be busy.
        let took = began.elapsed();
        assert!(took < Duration::from_secs(15), "{args:?} took {took:?}");
        assert!(!output.status.success(), "{args:?} succeeded without a DCS");
        let said = stderr(&output);
        assert!(said.contains("DCS is not accessible"), "{args:?} does not say what is wrong: {said}");
    }
}
