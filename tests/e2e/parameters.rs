//! A parameter that standbys must not have lower than the primary, raised and lowered on a live cluster; what else is
//! restarted or handed over, under which conditions, at which moment.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Cluster, Kind, Store, http_within, stderr, stdout};

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

    // With room for a machine that is late by some seconds.
    let change = json!({"loop_wait": 4});
    assert_eq!(cluster.request("PATCH", 0, "/config", &change).await.unwrap().0, 200);
    restarts_with_filters(&cluster).await;
    switchovers_to_come(&cluster).await;
}

/// `POST /restart` and its like, with time to restart in.
async fn ask(cluster: &Cluster, method: &str, i: usize, path: &str, body: &Value) -> (u16, String) {
    http_within(LONG, method, cluster.members[i].api_port, path, Some(body.to_string())).await.expect("an answer")
}

fn in_a_moment() -> (jiff::Timestamp, String) {
    let at = jiff::Timestamp::now() + Duration::from_secs(3);
    (at, at.to_string())
}

async fn scheduled_restart(cluster: &Cluster, i: usize) -> Value {
    cluster.status(i).await.unwrap()["scheduled_restart"].clone()
}

/// Every filter of a restart, at once and at a moment to come.
async fn restarts_with_filters(cluster: &Cluster) {
    let refused = (503, "restart conditions are not satisfied".to_owned());
    let before = started_at(cluster, 1).await;
    for filter in [
        json!({"role": "primary"}),
        json!({"role": "standby_leader"}),
        json!({"role": "replica", "postgres_version": "15.0"}),
        json!({"postgres_version": "9.6.24"}),
        json!({"restart_pending": true}),
        json!({"restart_pending": false}),
    ] {
        assert_eq!(ask(cluster, "POST", 1, "/restart", &filter).await, refused, "{filter}");
    }
    assert_eq!(started_at(cluster, 1).await, before);
    let fits = json!({"role": "replica", "postgres_version": "4294967295.1", "timeout": "1min"});
    assert_eq!(ask(cluster, "POST", 1, "/restart", &fits).await, (200, "restarted successfully".to_owned()));
    assert_ne!(started_at(cluster, 1).await, before);
    cluster.wait_healthy(LONG).await;

    // To come: what does not fit then is dropped, what fits is done.
    let before = [started_at(cluster, 0).await, started_at(cluster, 1).await, started_at(cluster, 2).await];
    let (_, at) = in_a_moment();
    let wrong = json!({"schedule": at, "role": "primary"});
    assert_eq!(ask(cluster, "POST", 1, "/restart", &wrong).await, (202, "Restart scheduled".to_owned()));
    let fits = json!({"timeout": "30s", "schedule": at, "role": "replica", "postgres_version": "99.1"});
    assert_eq!(ask(cluster, "POST", 2, "/restart", &fits).await, (202, "Restart scheduled".to_owned()));
    let another = (409, "Another restart is already scheduled".to_owned());
    assert_eq!(ask(cluster, "POST", 2, "/restart", &wrong).await, another);
    let shown = scheduled_restart(cluster, 2).await;
    assert_eq!(
        (&shown["timeout"], &shown["role"], &shown["postgres_version"]),
        (&json!(30), &json!("replica"), &json!("99.1"))
    );
    let published = async || {
        let (_, text) = cluster.get(0, "/cluster").await.unwrap();
        let list: Value = serde_json::from_str(&text).unwrap();
        let restart = &list["members"][2]["scheduled_restart"];
        restart["timeout"] == 30 && restart["postmaster_start_time"] == before[2]
    };
    cluster.until("the restart to come is published", LONG, published).await;
    cluster.wait_log(1, "Scheduled restart: restart conditions are not satisfied", LONG).await;
    cluster.until("the restart", LONG, async || started_at(cluster, 2).await != before[2]).await;
    cluster.wait_healthy(LONG).await;
    for i in [1, 2] {
        cluster.until("nothing is to come", LONG, async || scheduled_restart(cluster, i).await.is_null()).await;
    }
    assert_eq!(started_at(cluster, 1).await, before[1], "the role did not fit");

    // Taken back; and one that another restart has made needless.
    let later = json!({"schedule": "2099-01-01T00:00:00+02:00"});
    assert_eq!(ask(cluster, "DELETE", 1, "/restart", &json!({})).await, (404, "no restarts are scheduled".to_owned()));
    for i in [0, 1] {
        assert_eq!(ask(cluster, "POST", i, "/restart", &later).await.0, 202);
    }
    assert_eq!(ask(cluster, "DELETE", 1, "/restart", &json!({})).await, (200, "scheduled restart deleted".to_owned()));
    assert!(scheduled_restart(cluster, 1).await.is_null());
    assert_eq!(ask(cluster, "POST", 0, "/restart", &json!({"role": "primary"})).await.0, 200);
    cluster.wait_log(0, "Cancelling scheduled restart: postgres restart has already happened at", LONG).await;
    assert!(scheduled_restart(cluster, 0).await.is_null());
    cluster.wait_healthy(LONG).await;
    assert_eq!(cluster.leader().await, Some(0));
}

async fn planned(cluster: &Cluster) -> Value {
    let (_, text) = cluster.get(2, "/cluster").await.unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["scheduled_switchover"].clone()
}

/// A switchover at a moment to come; one that names the wrong leader; and what maintenance mode lets pass.
async fn switchovers_to_come(cluster: &Cluster) {
    let scheduled = (202, "Switchover scheduled".to_owned());
    let (_, at) = in_a_moment();
    let to_n1 = json!({"leader": "n0", "candidate": "n1", "scheduled_at": at});
    assert_eq!(ask(cluster, "POST", 2, "/switchover", &to_n1).await, scheduled);
    let plan = planned(cluster).await;
    assert_eq!((&plan["from"], &plan["to"]), (&json!("n0"), &json!("n1")));
    cluster.wait_log(0, "Manual scheduled switchover at", LONG).await;
    cluster.wait_leader(LONG, |leader| leader == 1).await;
    cluster.wait_healthy(LONG).await;
    assert!(planned(cluster).await.is_null());

    let (_, at) = in_a_moment();
    let wrong = json!({"leader": "n0", "scheduled_at": at});
    assert_eq!(
        ask(cluster, "POST", 2, "/switchover", &wrong).await,
        scheduled,
        "who leads is looked at when it is due"
    );
    cluster.wait_log(1, "switchover: leader name does not match: n0 != n1", LONG).await;
    cluster.until("it is taken back", LONG, async || planned(cluster).await.is_null()).await;

    let (at, text) = in_a_moment();
    let before = started_at(cluster, 2).await;
    assert_eq!(ask(cluster, "POST", 2, "/switchover", &json!({"leader": "n1", "scheduled_at": text})).await, scheduled);
    assert_eq!(ask(cluster, "POST", 2, "/restart", &json!({"schedule": text})).await.0, 202);
    ctl(cluster, &["pause", "--wait"]);
    let refused = (500, "Can't schedule restart in the paused state".to_owned());
    assert_eq!(ask(cluster, "POST", 0, "/restart", &json!({"schedule": text})).await, refused);
    let late = at + Duration::from_secs(7);
    cluster.until("the moment has long passed", LONG, async || jiff::Timestamp::now() > late).await;
    assert!(planned(cluster).await.is_object() && scheduled_restart(cluster, 2).await.is_object());
    ctl(cluster, &["resume", "--wait"]);
    cluster.wait_log(1, "Found a stale switchover value, cleaning up", LONG).await;
    cluster.wait_log(2, "Found a stale restart value, cleaning up", LONG).await;
    cluster.until("it is taken back", LONG, async || planned(cluster).await.is_null()).await;
    assert_eq!(cluster.leader().await, Some(1), "{}", cluster.dump());
    assert_eq!(started_at(cluster, 2).await, before);
}
