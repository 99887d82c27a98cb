//! `list` when the store is frozen: made from what the members say, and marked as such.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::etcd::Server;
use crate::fake_member::{FakeMember, Script};

/// A store with one cluster, two members that can be asked and one that cannot, and a home for the cache.
struct Scene {
    store: Server,
    home: tempfile::TempDir,
    members: [FakeMember; 2],
}

impl Scene {
    async fn new() -> Self {
        let store = Server::embedded(env!("CARGO_BIN_EXE_pgherd"));
        let members = [FakeMember::start().await, FakeMember::start().await];
        let mut client = etcd_client::Client::connect([store.address()], None).await.unwrap();
        let urls = [members[0].api_url(), members[1].api_url(), "http://127.0.0.1:1/patroni".to_owned()];
        for (number, url) in (1..).zip(&urls) {
            let (role, state) = if number == 1 { ("primary", "running") } else { ("replica", "streaming") };
            let data = json!({
                "conn_url": format!("postgres://10.0.0.{number}:5432/postgres"), "api_url": url, "role": role,
                "state": "running", "replication_state": state, "timeline": 1, "xlog_location": 100
            });
            client.put(format!("/service/demo/members/pg{number}"), data.to_string(), None).await.unwrap();
        }
        client.put("/service/demo/leader", "pg1", None).await.unwrap();
        client.put("/service/demo/initialize", "42", None).await.unwrap();
        Self { store, home: tempfile::tempdir().unwrap(), members }
    }

    /// What the two say of themselves, once; they cannot tell of the cluster.
    fn members_will_answer(&self) {
        for (index, (role, wal)) in
            [("primary", json!({"location": 100})), ("replica", json!({"received_location": 90}))].iter().enumerate()
        {
            let status = json!({
                "state": "running", "role": role, "timeline": 1, "xlog": wal, "database_system_identifier": "42",
                "patroni": {"name": format!("pg{}", index + 1), "scope": "demo"}
            });
            self.members[index].will("GET /patroni", Script::Say(200, status.to_string()));
            self.members[index].will("GET /cluster", Script::Hang);
        }
    }

    async fn run(&self, args: &[&str]) -> Said {
        run(self.home.path(), &self.store.address(), args).await
    }
}

#[derive(Debug)]
struct Said {
    stdout: String,
    stderr: String,
    exit: Option<i32>,
}

async fn run(home: &Path, dcs: &str, args: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgherdctl"));
    command.args(["-d", &format!("etcd3://{dcs}")]).args(args).env_clear().env("HOME", home).stdin(Stdio::null());
    let output: Output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { stdout: text(output.stdout), stderr: text(output.stderr), exit: output.status.code() }
}

#[tokio::test]
async fn a_frozen_store_is_answered_for_by_the_members() {
    let scene = Scene::new().await;
    let said = scene.run(&["list", "demo", "-f", "json"]).await;
    assert_eq!(said.exit, Some(0), "{said:?}");
    let document: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(document["clusters"][0]["source"], "dcs");
    assert_eq!(document["clusters"][0]["members"].as_array().unwrap().len(), 3);

    scene.store.freeze();
    scene.members_will_answer();
    let said = scene.run(&["list", "demo", "-f", "json"]).await;
    assert_eq!(said.exit, Some(0), "{said:?}");
    assert!(said.stderr.contains("warning: the DCS does not answer"), "{said:?}");
    assert!(said.stderr.contains("2 of 3 answered"), "{said:?}");
    let document: Value = serde_json::from_str(&said.stdout).unwrap();
    let cluster = &document["clusters"][0];
    assert_eq!((&cluster["source"], &cluster["leader"]), (&json!("members"), &json!("pg1")));
    let states: Vec<&str> = (0..3).map(|i| cluster["members"][i]["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["running", "running", "no answer"]);
    let second = &cluster["members"][1];
    assert_eq!((&second["receive_lsn"], &second["receive_lag_bytes"]), (&json!("0/5A"), &json!(10)));
    assert_eq!(cluster["members"][2]["host"], "10.0.0.3", "known from the list before");

    // The table says so as well, and the tree.
    scene.members_will_answer();
    let said = scene.run(&["topology", "demo"]).await;
    assert!(
        said.exit == Some(0) && said.stdout.starts_with("Cluster demo (system 42), as its members say"),
        "{said:?}"
    );

    // Once the store goes on, nothing is said of it.
    scene.store.thaw();
    let said = scene.run(&["list", "demo"]).await;
    assert!(said.exit == Some(0) && said.stderr.is_empty(), "{said:?}");
}

#[tokio::test]
async fn without_a_cache_a_member_is_named() {
    let scene = Scene::new().await;
    scene.store.freeze();
    let said = scene.run(&["list", "demo", "--timeout", "0.5"]).await;
    assert!(said.exit == Some(7) && said.stderr.contains("--member-url"), "{said:?}");

    let cluster = json!({"scope": "demo", "members": [
        {"name": "pg1", "role": "leader", "state": "running", "host": "10.0.0.1", "port": 5432, "timeline": 1}
    ]});
    scene.members[1].will("GET /cluster", Script::Say(200, cluster.to_string()));
    let url = format!("127.0.0.1:{}", scene.members[1].port);
    let said = scene.run(&["list", "demo", "--member-url", &url]).await;
    assert!(said.exit == Some(0) && said.stdout.contains("10.0.0.1"), "{said:?}");
    assert!(said.stderr.contains("sees it"), "{said:?}");

    // Nobody at all: the code for it, and who was asked in vain.
    let said = scene.run(&["list", "demo", "--timeout", "0.9", "--member-url", "127.0.0.1:1"]).await;
    assert!(said.exit == Some(7) && said.stdout.is_empty(), "{said:?}");
    assert!(said.stderr.contains("its members do not answer either (http://127.0.0.1:1/patroni"), "{said:?}");
    // And a cluster of another name is not shown for this one.
    let stranger = json!({"scope": "other", "members": []});
    scene.members[1].will("GET /cluster", Script::Say(200, stranger.to_string()));
    let said = scene.run(&["list", "demo", "--timeout", "0.9", "--member-url", &url]).await;
    assert_eq!(said.exit, Some(7), "{said:?}");
}
