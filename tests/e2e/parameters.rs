//! A parameter that standbys must not have lower than the primary, raised and lowered on a live cluster.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Cluster, Kind, Store, stderr, stdout};

const LONG: Duration = Duration::from_secs(60);

fn ctl(cluster: &Cluster, args: &[&str]) -> String {
    let output = cluster.ctl(args);
    assert!(output.status.success(), "{args:?}\n{}{}\n{}", stdout(&output), stderr(&output), cluster.dump());
    stdout(&output)
}

async fn set(cluster: &Cluster, value: u32) {
    let change = json!({"postgresql": {"parameters": {"max_connections": value}}});
    assert_eq!(cluster.request("PATCH", 0, "/config", &change).await.unwrap().0, 200);
}

/// What waits for a restart on a member: the present value and the one to come.
async fn pending(cluster: &Cluster, i: usize) -> Option<(String, String)> {
    let status = cluster.status(i).await?;
    if status["pending_restart"] != true {
        return None;
    }
    let reason = &status["pending_restart_reason"]["max_connections"];
    let text = |name: &str| reason[name].as_str().map(str::to_owned);
    Some((text("old_value")?, text("new_value")?))
}

async fn wait_pending(cluster: &Cluster, i: usize, wanted: Option<(&str, &str)>) {
    let what = format!("{wanted:?} waits for a restart of n{i}");
    let wanted = wanted.map(|(old, new)| (old.to_owned(), new.to_owned()));
    cluster.until(&what, LONG, async || pending(cluster, i).await == wanted).await;
}

async fn value(cluster: &Cluster, i: usize) -> String {
    let rows = cluster.sql(i, "SHOW max_connections").await;
    rows.ok().and_then(|rows| rows[0][0].clone()).unwrap_or_default()
}

async fn started_at(cluster: &Cluster, i: usize) -> Value {
    cluster.status(i).await.unwrap()["postmaster_start_time"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn max_connections_goes_up_and_down() {
    let settings = json!({
        "ttl": 10, "loop_wait": 1, "retry_timeout": 3,
        "postgresql": {"use_pg_rewind": true, "parameters": {"max_connections": 50}}
    });
    let mut cluster = Cluster::new(Store::Etcd, &[Kind::Pgherd; 3], settings);
    cluster.start(0);
    cluster.wait_leader(LONG, |_| true).await;
    cluster.start(1);
    cluster.start(2);
    cluster.wait_healthy(LONG).await;

    // Up. Everybody waits for a restart and says why.
    set(&cluster, 70).await;
    for i in 0..3 {
        wait_pending(&cluster, i, Some(("50", "70"))).await;
    }
    assert_eq!(ctl(&cluster, &["list", "e2e"]).matches("max_connections: 50->70").count(), 3);
    ctl(&cluster, &["restart", "e2e", "n1", "--pending", "--force"]);
    wait_pending(&cluster, 1, None).await;
    assert_eq!(value(&cluster, 1).await, "70");

    // The others at a moment to come; whom nothing waits for is left alone.
    let before = started_at(&cluster, 1).await;
    let at = jiff::Timestamp::now() + Duration::from_secs(4);
    ctl(&cluster, &["restart", "e2e", "--pending", "--scheduled", &at.to_string(), "--force"]);
    for i in [2, 0] {
        wait_pending(&cluster, i, None).await;
        cluster.until("the new value", LONG, async || value(&cluster, i).await == "70").await;
    }
    cluster.wait_healthy(LONG).await;
    assert_eq!(cluster.leader().await, Some(0));
    assert_eq!(started_at(&cluster, 1).await, before, "nothing was waiting for a restart of n1");

    // Down. A standby that comes first keeps what the primary's WAL asks for.
    set(&cluster, 60).await;
    for i in 0..3 {
        wait_pending(&cluster, i, Some(("70", "60"))).await;
    }
    ctl(&cluster, &["restart", "e2e", "n1", "--pending", "--force"]);
    cluster.wait_healthy(LONG).await;
    assert_eq!(value(&cluster, 1).await, "70");
    wait_pending(&cluster, 1, Some(("70", "60"))).await;
    cluster.wait_log(1, "max_connections value in pg_controldata: 70, in the global configuration: 60", LONG).await;
    assert!(ctl(&cluster, &["list", "e2e"]).contains("max_connections: 70->60"));
    // A reload of something else does not make it forget.
    let change = json!({"postgresql": {"parameters": {"work_mem": "5MB"}}});
    assert_eq!(cluster.request("PATCH", 0, "/config", &change).await.unwrap().0, 200);
    let reloaded =
        async || cluster.sql(1, "SHOW work_mem").await.is_ok_and(|rows| rows[0][0].as_deref() == Some("5MB"));
    cluster.until("the reload", LONG, reloaded).await;
    wait_pending(&cluster, 1, Some(("70", "60"))).await;
    // The primary, then the standbys.
    ctl(&cluster, &["restart", "e2e", "n0", "--pending", "--force"]);
    cluster.wait_healthy(LONG).await;
    cluster.sql(0, "CREATE TABLE after_restart (id int)").await.unwrap();
    for i in 1..3 {
        let replayed = async || cluster.sql(i, "SELECT * FROM after_restart").await.is_ok();
        cluster.until("the primary's new values replayed", LONG, replayed).await;
    }
    ctl(&cluster, &["restart", "e2e", "--pending", "--force"]);
    for i in 0..3 {
        wait_pending(&cluster, i, None).await;
        cluster.until("the new value", LONG, async || value(&cluster, i).await == "60").await;
    }
    cluster.wait_healthy(LONG).await;
    assert_eq!(cluster.leader().await, Some(0));
}
