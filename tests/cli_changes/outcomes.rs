//! `-f` on the commands that change a cluster, and the two words for not asking.

use pgherd::ctl::Personality;
use serde_json::{Value, json};

use crate::fake_member::Script;
use crate::stage::{Said, Stage};

const OURS: Personality = Personality::Pgherdctl;

async fn run(stage: &Stage, args: &str) -> Said {
    stage.run(OURS, &args.split(' ').collect::<Vec<_>>(), "").await
}

fn document(said: &Said) -> Value {
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

#[tokio::test]
async fn an_outcome_is_one_document() {
    let stage = Stage::healthy().await;
    stage.member("pg1").will("POST /switchover", Script::Say(200, "Successfully switched over to \"pg2\"".to_owned()));
    let said = run(&stage, "switchover demo --candidate pg2 --yes -f json").await;
    let document = document(&said);
    assert_eq!(said.exit, 0, "{said:?}");
    let head = ["apiVersion", "kind", "command", "cluster", "result", "exit", "leader_before"]
        .map(|key| document[key].clone());
    assert_eq!(json!(head), json!(["pgherd/v1", "Outcome", "switchover", "demo", "done", 0, "pg1"]));
    assert!(document["messages"][0].as_str().unwrap().contains("Successfully switched over"), "{document}");
    assert!(said.stderr.contains("Current cluster topology"), "progress stays where it was: {said:?}");
}

#[tokio::test]
async fn each_member_has_its_result() {
    let stage = Stage::healthy().await;
    stage.member("pg2").will("POST /restart", Script::Say(503, "restart failed".to_owned()));
    let said = run(&stage, "restart demo pg1 pg2 --force --format json").await;
    let seen = document(&said);
    let members: Vec<Value> =
        seen["members"].as_array().unwrap().iter().map(|m| json!([m["name"], m["result"]])).collect();
    assert_eq!((said.exit, json!(members)), (9, json!([["pg1", "done"], ["pg2", "failed"]])), "{said:?}");
    assert_eq!((&seen["result"], &seen["exit"]), (&json!("partly"), &json!(9)));
    assert!(seen["members"][1]["reason"].as_str().unwrap().contains("status code=503"), "{seen}");

    let said = run(&stage, "reload demo --yes -f tsv").await;
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert_eq!((said.exit, lines[0]), (0, "command\tcluster\tmember\tresult\tmessage"), "{said:?}");
    assert_eq!(lines.len(), 4, "{said:?}");
    assert!(lines[1].starts_with("reload\tdemo\tpg1\tdone\tNo changes to apply"), "{said:?}");
}

#[tokio::test]
async fn an_error_is_a_document_too() {
    let stage = Stage::healthy().await;
    let said = run(&stage, "switchover demo --candidate pg9 --yes -f json").await;
    let seen = document(&said);
    assert_eq!((said.exit, &seen["kind"], &seen["exit"]), (3, &json!("Error"), &json!(3)), "{said:?}");
    assert_eq!(seen["result"], "not_found");
    assert!(seen["message"].as_str().unwrap().contains("pg9") && seen["next"].as_str().unwrap().contains("pg2, pg3"));
    assert!(said.stderr.contains("error: there is no member pg9 in cluster demo"), "{said:?}");

    // One member did it, the other cannot be asked: both are in the document.
    stage.edit("members/pg2", "api_url", "http://127.0.0.1:1/patroni".into());
    let said = run(&stage, "restart demo pg1 pg2 --force -f yaml").await;
    assert_eq!(said.exit, 9, "{said:?}");
    for line in ["kind: Error", "name: pg1", "name: pg2", "result: done", "result: partly"] {
        assert!(said.stdout.contains(line), "{line}: {said:?}");
    }

    // Of a command that shows data as well; and without -f nothing but the text.
    let said = run(&stage, "history nosuch -f json").await;
    assert_eq!((said.exit, &document(&said)["kind"]), (3, &json!("Error")), "{said:?}");
    assert!(run(&stage, "history nosuch").await.stdout.is_empty());
}

#[tokio::test]
async fn without_a_terminal_the_flag_is_named() {
    let stage = Stage::healthy().await;
    stage.edit("config", "ttl", 30.into());
    for command in ["switchover demo", "restart demo", "reload demo", "reinit demo pg2", "edit-config demo -s ttl=40"] {
        let said = run(&stage, command).await;
        assert_eq!(said.exit, 2, "{command}: {said:?}");
        assert!(said.stderr.contains("not a terminal") && said.stderr.contains("--yes"), "{command}: {said:?}");
    }
    assert!(stage.requests().is_empty(), "{:?}", stage.requests());
}

#[tokio::test]
async fn yes_answers_and_force_overrides() {
    let stage = Stage::healthy().await;
    stage.edit("config", "synchronous_mode", true.into());
    stage.edit("sync", "leader", "pg1".into());
    stage.edit("sync", "sync_standby", "pg2".into());
    let said = run(&stage, "failover demo --candidate pg3 --yes").await;
    assert!(said.exit == 1 && said.stderr.contains("--force"), "{said:?}");
    assert!(stage.requests().is_empty());
    assert_eq!(run(&stage, "failover demo --candidate pg2 -y").await.exit, 0);
    assert_eq!(run(&stage, "failover demo --candidate pg3 --force").await.exit, 0);

    let said = run(&stage, "edit-config demo -s synchronous_mod=on --yes").await;
    assert!(said.exit == 1 && said.stderr.contains("did you mean") && said.stderr.contains("--force"), "{said:?}");
    assert!(!stage.key("config").unwrap().contains("synchronous_mod\""));
    assert_eq!(run(&stage, "edit-config demo -s ttl=40 --yes -q").await.exit, 0);
    assert_eq!(run(&stage, "edit-config demo -s synchronous_mod=on --force -q").await.exit, 0);

    stage.member("pg2").will("POST /reinitialize", Script::Say(503, "restart already in progress".to_owned()));
    let said = run(&stage, "reinit demo pg2 --yes").await;
    assert!(said.exit == 1 && said.stderr.contains("--force"), "{said:?}");
}

#[tokio::test]
async fn names_that_were_nearly_right() {
    let stage = Stage::healthy().await;
    let said = run(&stage, "history dmeo").await;
    assert!(said.exit == 3 && said.stderr.contains("next: did you mean demo?"), "{said:?}");
    let said = run(&stage, "list dem").await;
    assert!(said.exit == 3 && said.stderr.contains("dem: did you mean demo?"), "{said:?}");
    let said = run(&stage, "restart demo pgg2 --yes").await;
    assert!(said.exit == 3 && said.stderr.contains("did you mean pg2?"), "{said:?}");
    let said = run(&stage, "switchover demo --candidate pg33 --yes").await;
    assert!(said.exit == 3 && said.stderr.contains("did you mean pg3?"), "{said:?}");
    let said = run(&stage, "dsn demo -m pg22").await;
    assert!(said.exit == 3 && said.stderr.contains("did you mean pg2?"), "{said:?}");
    let said = run(&stage, "lst demo").await;
    assert!(said.exit == 2 && said.stderr.contains("'list'"), "{said:?}");
}
