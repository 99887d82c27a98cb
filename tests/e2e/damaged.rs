//! Keys that nobody of us would have written: the agents go on, and the primary is not bothered.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use etcd_client::Client;
use serde_json::{Value, json};

use crate::harness::{Cluster, Kind, Store};

const LONG: Duration = Duration::from_secs(60);

/// Every key of a cluster but `/leader`, which says who may write.
const KEYS: [&str; 10] = [
    "config",
    "members/n0",
    "members/n1",
    "members/stranger",
    "status",
    "sync",
    "history",
    "failover",
    "failsafe",
    "initialize",
];

/// What fits none of them.
fn nonsense() -> Vec<(&'static str, Vec<u8>)> {
    let huge = json!({"conn_url": "x".repeat(1 << 20), "leader": null, "optime": null, "y": "z"});
    vec![
        ("nothing", Vec::new()),
        ("half a document", b"{\"ttl\": 30, \"tags\": {".to_vec()),
        ("a number", b"7e999".to_vec()),
        ("a list", b"[[], {}, [null, 1]]".to_vec()),
        ("null", b"null".to_vec()),
        ("an empty map", b"{}".to_vec()),
        ("not text", vec![0, 0xff, 0xfe, b'{', 0xc3, 0x28, b'}', 0]),
        ("a deep document", "[".repeat(100_000).into_bytes()),
        ("a huge document", huge.to_string().into_bytes()),
    ]
}

/// Where there should be another type, or something is missing.
fn wrong_types(key: &str) -> Vec<u8> {
    let value = match key {
        "config" => json!({"ttl": "x", "loop_wait": [], "retry_timeout": {}, "maximum_lag_on_failover": "far",
            "member_slots_ttl": [], "slots": [1], "ignore_slots": {"name": 7}, "standby_cluster": "no",
            "postgresql": {"parameters": {"max_connections": {}, "work_mem": [1]}, "pg_hba": 7}}),
        "status" => json!({"optime": "far", "slots": [1], "retain_slots": {"a": "b"}}),
        "sync" => json!({"leader": 7, "sync_standby": {"a": 1}, "quorum": "many"}),
        "history" => json!([[1], ["x", {}, 7, []], 5, null, [1, 2, "3", "4", "5", "6", "7"]]),
        "failover" => json!({"leader": 7, "member": [], "candidate": {"a": 1}, "scheduled_at": "yesterday"}),
        "failsafe" => json!({"n0": 7, "stranger": [null]}),
        "initialize" => json!({"system": -1}),
        _ => json!({"conn_url": 7, "api_url": [], "state": {}, "role": 1.5, "xlog_location": "far", "timeline": "x",
            "tags": "none", "version": {}, "pending_restart": "maybe", "scheduled_restart": 7}),
    };
    value.to_string().into_bytes()
}

/// Waits until both have read the store after this moment.
async fn wait_read(cluster: &Cluster) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    for i in 0..2 {
        cluster
            .until("a look at the store", LONG, async || {
                let status = cluster.status(i).await;
                status.and_then(|status| status["dcs_last_seen"].as_u64()).is_some_and(|seen| seen > since)
            })
            .await;
    }
}

async fn wait_config(cluster: &Cluster, wanted: i64) {
    let config = async |i| -> Option<i64> {
        let (_, body) = cluster.get(i, "/config").await?;
        serde_json::from_str::<Value>(&body).ok()?["maximum_lag_on_failover"].as_i64()
    };
    cluster.until("the configuration", LONG, async || config(0).await == Some(wanted)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_keys_bother_nobody() {
    let dynamic = json!({"ttl": 20, "loop_wait": 1, "retry_timeout": 5, "maximum_lag_on_failover": 1_048_576});
    let mut cluster = Cluster::new(Store::Etcd, &[Kind::Pgherd; 2], dynamic.clone());
    cluster.start(0);
    cluster.wait_leader(LONG, |_| true).await;
    cluster.start(1);
    cluster.wait_healthy(LONG).await;
    let (postmasters, agents) = ([0, 1].map(|i| cluster.postmaster(i)), [0, 1].map(|i| cluster.agent(i)));
    let mut store = Client::connect([format!("127.0.0.1:{}", cluster.store_port)], None).await.unwrap();

    let mut rounds = nonsense();
    rounds.push(("other types", Vec::new()));
    for (what, value) in rounds {
        for key in KEYS {
            let value = if what == "other types" { wrong_types(key) } else { value.clone() };
            store.put(cluster.key(key), value, None).await.unwrap_or_else(|error| panic!("{what} at {key}: {error}"));
        }
        wait_read(&cluster).await;
        assert_eq!(cluster.leader().await, Some(0), "after {what}\n{}", cluster.dump());
        for path in ["/cluster", "/history", "/metrics", "/liveness", "/config", "/failsafe"] {
            let answer = cluster.get(1, path).await;
            assert!(answer.is_some(), "{path} after {what}\n{}", cluster.dump());
        }
        let listed = cluster.ctl(&["list"]);
        assert_ne!(listed.status.code(), Some(101), "{what}: {}", crate::harness::stderr(&listed));
    }

    // Whatever can be put right by its owner is right again; the rest is the operator's.
    let mut right = dynamic;
    right["maximum_lag_on_failover"] = json!(1_048_577);
    store.put(cluster.key("config"), right.to_string(), None).await.unwrap();
    for key in ["failover", "failsafe", "members/stranger"] {
        store.delete(cluster.key(key), None).await.unwrap();
    }
    wait_config(&cluster, 1_048_577).await;
    cluster.wait_healthy(LONG).await;
    let known = cluster.status(0).await.unwrap()["database_system_identifier"].as_str().unwrap().to_owned();
    let is_back = |name: &str, field: &str| {
        let value = cluster.keys().into_iter().find(|(key, _)| *key == cluster.key(name)).map(|(_, value)| value);
        let document: Option<Value> = value.and_then(|value| serde_json::from_str(&value).ok());
        document.is_some_and(|document| !document[field].is_null())
    };
    for (name, field) in [("members/n0", "conn_url"), ("members/n1", "conn_url"), ("status", "optime")] {
        cluster.until(name, LONG, async || is_back(name, field)).await;
    }
    let initialize = cluster.key("initialize");
    cluster.until("initialize", LONG, async || cluster.keys().contains(&(initialize.clone(), known.clone()))).await;
    assert_eq!(cluster.status(0).await.unwrap()["timeline"], 1);
    assert_eq!([0, 1].map(|i| cluster.postmaster(i)), postmasters, "no server was started anew\n{}", cluster.dump());
    cluster.sql(0, "CREATE TABLE written (id int)").await.unwrap();

    // Whose name stands in the leader key, be it nobody's, leads: the primary steps down. When it is gone, one of both
    // takes over.
    store.put(cluster.key("leader"), vec![0xff, 0, b'x'], None).await.unwrap();
    cluster.until("nobody leads", LONG, async || cluster.leader().await.is_none()).await;
    wait_read(&cluster).await;
    store.delete(cluster.key("leader"), None).await.unwrap();
    cluster.wait_healthy(LONG).await;
    for (i, agent) in agents.into_iter().enumerate() {
        assert!(!cluster.agent_has_ended(i) && cluster.agent(i) == agent, "{}", cluster.dump());
        assert!(!cluster.log(i).contains("panicked"), "{}", cluster.log(i));
    }
    cluster.assert_journals_replay().await;
}
