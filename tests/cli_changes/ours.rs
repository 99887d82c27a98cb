//! What is ours: true exit codes, reasons with a next step, nothing repeated that was accepted, and nothing that hangs.

use std::sync::Arc;
use std::time::Duration;

use pgherd::ctl::{Invocation, Outside, Personality, Ui};
use pgherd::dcs::Dcs;
use pgherd::dcs::memory::{MemoryStore, Reach};
use serde_json::json;
use tokio::time::Instant;

use crate::fake_member::Script;
use crate::stage::{Said, Stage, config_file, edit};

const OURS: Personality = Personality::Pgherdctl;

fn say(status: u16, body: &str) -> Script {
    Script::Say(status, body.to_owned())
}

async fn run(stage: &Stage, args: &str) -> Said {
    run_with(stage, args, "").await
}

async fn run_with(stage: &Stage, args: &str, input: &str) -> Said {
    stage.run(OURS, &args.split(' ').collect::<Vec<_>>(), input).await
}

/// The agent of `pg1` is gone: nobody listens at its address.
fn without_agent(stage: &Stage, name: &str) {
    stage.edit(&format!("members/{name}"), "api_url", "http://127.0.0.1:1/patroni".into());
}

/// Stands in for the members: waits for a request in the `failover` key, then does `what`.
fn when_requested(
    store: &MemoryStore,
    what: impl FnOnce(&MemoryStore) + Send + 'static,
) -> tokio::task::JoinHandle<()> {
    let store = store.clone();
    tokio::spawn(async move {
        while store.get("/service/demo/failover").is_none_or(|key| key.len() <= 2) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        what(&store);
    })
}

#[tokio::test]
async fn a_refusal_exits_1_and_says_what_to_do() {
    let stage = Stage::healthy().await;
    stage
        .member("pg1")
        .will("POST /switchover", say(412, "switchover is not possible: no good candidates have been found"));
    let said = run(&stage, "switchover demo --force").await;
    assert_eq!((said.exit, said.stdout.as_str()), (1, ""));
    assert!(said.stderr.contains("error: Switchover failed, details: 412, switchover is not possible"), "{said:?}");
    assert!(said.stderr.contains("\nnext: see in `list` which members are running"), "{said:?}");

    stage.member("pg1").will("POST /switchover", say(503, "Switchover status unknown"));
    let said = run(&stage, "switchover demo --force").await;
    assert!(said.exit == 8 && said.stderr.contains("Switchover result unknown, details: 503"), "{said:?}");

    stage.member("pg1").will("POST /failover", say(401, "no auth header received"));
    let said = run(&stage, "failover demo --candidate pg2 --force").await;
    assert!(said.exit == 4 && said.stderr.contains("next: set ctl.authentication"), "{said:?}");
}

#[tokio::test]
async fn success_goes_to_stdout_and_exits_0() {
    let stage = Stage::healthy().await;
    stage.member("pg1").will("POST /switchover", say(200, "Successfully switched over to \"pg2\""));
    let said = run(&stage, "switchover demo --candidate pg2 --force").await;
    assert!(said.exit == 0 && said.stdout.ends_with("Successfully switched over to \"pg2\"\n"), "{said:?}");
    assert!(said.stderr.starts_with("Current cluster topology\n"), "{said:?}");
    let body = json!({"candidate": "pg2", "leader": "pg1"});
    assert_eq!(stage.requests(), [format!("pg1: POST /switchover {body}")]);
}

#[tokio::test]
async fn somebody_else_than_asked_for_is_not_success() {
    let stage = Stage::healthy().await;
    stage.member("pg1").will("POST /switchover", say(200, "Switched over to \"pg3\" instead of \"pg2\""));
    assert_eq!(run(&stage, "switchover demo --candidate pg2 --force").await.exit, 1);
}

#[tokio::test]
async fn a_cluster_that_nothing_is_known_of_is_said_to_be_that() {
    let stage = Stage::healthy().await;
    for command in ["switchover nosuch --force", "restart nosuch --force", "pause nosuch", "reinit nosuch pg2 --force"]
    {
        let said = run(&stage, command).await;
        assert!(said.exit == 3 && said.stderr.contains("nothing is known of cluster nosuch"), "{said:?}");
    }
}

#[tokio::test]
async fn one_refusal_among_many_is_seen_in_the_exit_code() {
    let stage = Stage::healthy().await;
    stage.member("pg2").will("POST /restart", say(503, "restart failed"));
    let said = run(&stage, "restart demo --force").await;
    assert_eq!(said.exit, 9);
    assert_eq!(said.stdout, "Success: restart on member pg1\nSuccess: restart on member pg3\n");
    assert!(
        said.stderr.contains("Failed: restart for member pg2, status code=503, (restart failed)\nnext: "),
        "{said:?}"
    );
}

#[tokio::test]
async fn a_dead_agent_ends_the_restart_and_the_rest_is_named() {
    let stage = Stage::healthy().await;
    without_agent(&stage, "pg2");
    let said = run(&stage, "restart demo --force").await;
    assert_eq!((said.exit, said.stdout.as_str()), (9, "Success: restart on member pg1\n"));
    assert!(said.stderr.contains("member pg2") && said.stderr.contains("not asked: pg3"), "{said:?}");
    assert_eq!(stage.member("pg3").log(), [""; 0]);
}

#[tokio::test]
async fn a_dead_agent_does_not_keep_the_others_from_reloading() {
    let stage = Stage::healthy().await;
    without_agent(&stage, "pg1");
    for name in ["pg2", "pg3"] {
        stage.member(name).will("POST /reload", say(202, "reload scheduled"));
    }
    let said = run(&stage, "reload demo --force").await;
    assert!(said.exit == 9 && said.stderr.contains("Failed: reload of member pg1 was not requested: "), "{said:?}");
    assert_eq!(said.stdout.lines().count(), 2, "{said:?}");
}

#[tokio::test]
async fn a_frozen_agent_is_found_out_before_anything_is_asked_of_it() {
    let stage = Stage::healthy().await;
    stage.member("pg3").freeze();
    for command in ["restart demo pg3 --force", "reload demo pg3 --force", "reinit demo pg3 --force"] {
        let start = Instant::now();
        let said = run(&stage, command).await;
        assert!(start.elapsed() < Duration::from_secs(5), "{command} took {:?}", start.elapsed());
        assert!(said.exit == 7 && said.stderr.contains("pg3") && said.stderr.contains("no answer"), "{said:?}");
    }
    assert_eq!(stage.member("pg3").log(), [""; 0]);
}

#[tokio::test]
async fn typing_errors_are_not_guessed_around() {
    let stage = Stage::healthy().await;
    for (command, exit, reason) in [
        ("restart demo pg2 nosuch --force", 3, "No such member to restart in cluster demo: nosuch"),
        ("reload demo pg2 nosuch --force", 3, "No such member to reload in cluster demo: nosuch"),
        ("reinit demo --force", 2, "No member to reinitialize was named"),
        ("switchover demo --force --scheduled 30", 1, "it names only the day 30 of this month"),
        ("restart demo --force --scheduled 2040-01-01T03:00_EST", 1, "the time zone \"EST\" is not known"),
    ] {
        let args: Vec<String> = command.split(' ').map(|word| word.replace('_', " ")).collect();
        let said = stage.run(OURS, &args.iter().map(String::as_str).collect::<Vec<_>>(), "").await;
        assert!(said.exit == exit && said.stderr.contains(reason), "{command}: {said:?}");
    }
    assert_eq!(stage.requests(), [""; 0]);
}

#[tokio::test]
async fn who_cannot_be_a_candidate_is_said() {
    let stage = Stage::healthy().await;
    stage.edit("members/pg2", "tags", json!({"nofailover": true}));
    stage.edit("members/pg3", "tags", json!({"failover_priority": 0}));
    let said = run(&stage, "switchover demo --force").await;
    assert!(said.stderr.contains("error: No candidates found to switchover to"), "{said:?}");
    let next = "next: pg2 has the tag nofailover: true; pg3 has the tag failover_priority: 0";
    assert!(said.stderr.contains(next), "{said:?}");
}

#[tokio::test]
async fn a_scheduled_switchover_is_not_replaced_without_a_word() {
    let stage = Stage::healthy().await;
    let key = json!({"leader": "pg1", "member": "pg2", "scheduled_at": "2040-01-01T03:00:00+00:00"});
    stage.store.put("/service/demo/failover", key.to_string());
    stage.member("pg1").will("POST /switchover", say(202, "Switchover scheduled"));
    let said = run(&stage, "switchover demo --force --scheduled 2040-02-01T03:00Z").await;
    let warning = "This replaces the switchover to pg2 that was scheduled for 2040-01-01T03:00:00+00:00";
    assert!(said.exit == 0 && said.stderr.contains(warning), "{said:?}");

    // Whoever can be asked is asked.
    let before = stage.requests();
    let later = "switchover demo --leader pg1 --candidate pg3 --scheduled 2040-02-01T03:00Z";
    let said = run_with(&stage, later, "n\n").await;
    assert!(said.exit == 1 && said.stderr.contains(&format!("{warning}. Shall it be replaced?")), "{said:?}");
    assert_eq!(stage.requests(), before);
    stage.member("pg1").will("POST /switchover", say(202, "Switchover scheduled"));
    let said = run_with(&stage, later, "y\ny\n").await;
    assert_eq!(said.exit, 0, "{said:?}");
}

/// Everything is checked and nothing requested.
#[tokio::test]
async fn a_rehearsal_changes_nothing() {
    let stage = Stage::healthy().await;
    let at = json!({"leader": "pg1", "scheduled_at": "2040-01-01T03:00:00+00:00"});
    for (args, wanted) in [
        ("switchover demo", r#"Would ask pg1: POST /switchover {"candidate":null,"leader":"pg1"}"#),
        ("failover demo --candidate pg2", r#"Would ask pg1: POST /failover {"candidate":"pg2"}"#),
        ("restart demo -r replica", "Would ask pg2: POST /restart {}\nWould ask pg3: POST /restart {}"),
        ("restart demo --pending", "Nobody would be asked for anything"),
        ("reload demo pg3", "Would ask pg3: POST /reload"),
        ("reinit demo pg2", r#"Would ask pg2: POST /reinitialize {"force":false,"from_leader":false}"#),
        ("flush demo restart", "Nobody would be asked for anything"),
        ("flush demo switchover", "Would ask pg1: DELETE /switchover"),
        ("pause demo", r#"Would ask pg1: PATCH /config {"pause":true}"#),
        ("demote-cluster demo --host h", r#"Would ask pg1: PATCH /config {"standby_cluster":{"host":"h"}}"#),
    ] {
        if args.starts_with("flush demo s") {
            stage.store.put("/service/demo/failover", at.to_string());
        }
        let before = stage.store.keys();
        let said = run(&stage, &format!("{args} --dry-run")).await;
        assert_eq!((said.exit, said.stdout.trim_end()), (0, wanted), "{args}: {said:?}");
        assert_eq!(stage.store.keys(), before);
    }
    // What would be refused is refused.
    assert_eq!(run(&stage, "switchover demo --candidate pg9 --dry-run").await.exit, 3);
    assert_eq!(run(&stage, "resume demo --dry-run").await.exit, 1);
    assert!(stage.requests().is_empty(), "{:?}", stage.requests());
    let args = ["switchover", "demo", "--force", "--dry-run"];
    assert_eq!(stage.run(Personality::Patronictl, &args, "").await.exit, 2);
}

/// The end is when everybody is whole again.
#[tokio::test]
async fn the_members_are_waited_for() {
    let stage = Stage::healthy().await;
    stage.edit("members/pg2", "replication_state", "".into());
    let store = stage.store.clone();
    stage.member("pg1").will("POST /switchover", say(200, "Successfully switched over to \"pg3\""));
    let (said, ()) = tokio::join!(run(&stage, "switchover demo --candidate pg3 --force --wait"), async {
        let asked = async {
            while stage.member("pg1").log().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), asked).await.expect("pg1 is asked");
        edit(&store, "/service/demo/members/pg2", "replication_state", "streaming".into());
    });
    assert_eq!(said.exit, 0, "{said:?}");
    let last = said.stderr.rsplit("Cluster demo").next().unwrap();
    assert_eq!(last.matches("streaming").count(), 2, "{said:?}");
}

#[tokio::test]
async fn very_old_agents_are_asked_the_other_way() {
    let stage = Stage::healthy().await;
    stage.member("pg1").will("POST /switchover", say(501, "Server does not support this operation"));
    stage.member("pg1").will("POST /failover", say(200, "Successfully switched over to \"pg2\""));
    assert_eq!(run(&stage, "switchover demo --candidate pg2 --force").await.exit, 0);
    let body = json!({"candidate": "pg2", "leader": "pg1"});
    assert_eq!(stage.member("pg1").log(), [format!("POST /switchover {body}"), format!("POST /failover {body}")]);
}

#[tokio::test]
async fn without_rest_the_request_goes_into_the_dcs_and_its_outcome_is_awaited() {
    let stage = Stage::healthy().await;
    without_agent(&stage, "pg1");
    let members = when_requested(&stage.store, |store| {
        store.put("/service/demo/leader", "pg2");
        store.put("/service/demo/failover", "{}");
    });
    let said = run(&stage, "switchover demo --candidate pg2 --force").await;
    members.await.unwrap();
    assert!(said.exit == 0 && said.stdout.ends_with("The leader is now \"pg2\"\n"), "{said:?}");
    assert!(said.stderr.contains("Could not switchover using Patroni api, falling back to DCS"), "{said:?}");

    stage.store.put("/service/demo/leader", "pg1");
    let members = when_requested(&stage.store, |store| store.put("/service/demo/failover", "{}"));
    let said = run(&stage, "failover demo --candidate pg2 --force").await;
    members.await.unwrap();
    assert!(said.exit == 1 && said.stderr.contains("took the request for the failover away"), "{said:?}");
}

#[tokio::test]
async fn the_dcs_is_not_written_to_without_a_question() {
    let stage = Stage::healthy().await;
    without_agent(&stage, "pg1");
    let said = run_with(&stage, "failover demo --candidate pg2", "y\nn\n").await;
    assert!(said.exit == 1 && said.stderr.contains("Write the request for the failover into the DCS instead?"));
    assert_eq!(stage.key("failover"), None);
    let said = run(&stage, "switchover demo --force --scheduled 2040-02-01T03:00Z").await;
    assert!(said.exit == 0 && said.stdout.ends_with("The request is in the DCS\n"), "{said:?}");
    let key = json!({"leader": "pg1", "scheduled_at": "2040-02-01T03:00:00+00:00"});
    assert_eq!(stage.key("failover"), Some(key.to_string()));
}

#[tokio::test]
async fn a_request_that_was_taken_is_not_made_again() {
    for personality in [OURS, Personality::Patronictl] {
        let stage = Stage::healthy().await;
        let store = stage.store.clone();
        let key = json!({"leader": "pg1", "member": "pg2"}).to_string();
        let written = key.clone();
        stage.member("pg1").before_answer(move |_| store.put("/service/demo/failover", written.clone()));
        stage.member("pg1").will("POST /switchover", Script::Close);
        let before = stage.store.keys().len();
        let said = stage.run(personality, &["switchover", "demo", "--candidate", "pg2", "--force"], "").await;
        assert!(said.stderr.contains("took the request, but its answer did not arrive"), "{said:?}");
        assert_eq!(said.exit, if personality == OURS { 8 } else { 0 }, "nobody knows yet how it ends");
        let version = stage.store.keys().into_iter().find(|kv| kv.key.ends_with("/failover")).unwrap().mod_revision;
        let newest = stage.store.keys().into_iter().map(|kv| kv.mod_revision).max().unwrap();
        assert_eq!((version, stage.key("failover"), stage.store.keys().len()), (newest, Some(key), before + 1));
        assert_eq!(stage.member("pg1").log().len(), 1);
    }
}

#[tokio::test]
async fn pause_asks_the_next_member_when_the_leader_is_silent() {
    let stage = Stage::healthy().await;
    without_agent(&stage, "pg1");
    let said = run(&stage, "pause demo").await;
    assert_eq!((said.exit, said.stdout.as_str()), (0, "Success: cluster management is paused\n"));
    assert!(said.stderr.contains("Member pg1 is not accessible"), "{said:?}");
    assert_eq!(stage.requests(), ["pg2: PATCH /config {\"pause\":true}"]);
}

#[tokio::test]
async fn pause_names_who_has_not_noticed() {
    let stage = Stage::healthy().await;
    stage.edit("config", "loop_wait", 0.into());
    let store = stage.store.clone();
    stage.member("pg1").before_answer(move |_| {
        for name in ["pg1", "pg2"] {
            edit(&store, &format!("/service/demo/members/{name}"), "pause", true.into());
        }
    });
    let said = run(&stage, "pause demo --wait").await;
    assert_eq!(said.exit, 9);
    assert!(said.stderr.contains("pg3 members didn't recognized pause state after 0 seconds"), "{said:?}");
    // Patroni's tool does not count a member that has written nothing since.
    let said = stage.run(Personality::Patronictl, &["pause", "demo", "--wait"], "").await;
    assert!(said.exit == 0 && said.stdout.ends_with("Success: cluster management is paused\n"), "{said:?}");
}

#[tokio::test]
async fn reinit_waits_for_a_running_server_that_is_not_the_old_one() {
    let stage = Stage::healthy().await;
    let member = stage.member("pg2");
    for (state, start) in
        [("running", "1"), ("running", "1"), ("creating replica", ""), ("starting", "2"), ("running", "2")]
    {
        member.will("GET /patroni", say(200, &json!({"state": state, "postmaster_start_time": start}).to_string()));
    }
    let said = run(&stage, "reinit demo pg2 --force --wait").await;
    assert_eq!(said.exit, 0);
    assert_eq!(said.stdout, "Success: reinitialize for member pg2\nReinitialize is completed on: pg2\n");
    assert_eq!(member.log().iter().filter(|line| line.starts_with("GET")).count(), 5);
}

#[tokio::test]
async fn credentials_are_sent() {
    let stage = Stage::healthy().await;
    let more = "restapi: {authentication: {username: api, password: pw}}\n";
    let said = stage.run_with(OURS, &["reload", "demo", "pg2", "--force"], "", more).await;
    assert_eq!(said.exit, 0, "{said:?}");
    assert_eq!(stage.member("pg2").asked()[0].authorization.as_deref(), Some("Basic YXBpOnB3"));
}

#[tokio::test(start_paused = true)]
async fn without_the_dcs_every_command_ends_in_time() {
    for reach in [Reach::Silent, Reach::Refused] {
        for command in ["switchover", "failover", "restart demo", "reload demo", "reinit demo", "pause", "resume"] {
            for personality in [OURS, Personality::Patronictl] {
                let (ui, captured) = Ui::captured(personality, "");
                let outside = Outside::with_dcs(Arc::new(move |_, scope, _| {
                    let handle = MemoryStore::new().handle(scope, None);
                    handle.set_reach(reach);
                    Ok(handle as Arc<dyn Dcs>)
                }));
                let file = config_file("demo", "");
                let own = [personality.program(), "-c", file.path().to_str().unwrap()];
                let args = own.into_iter().chain(command.split(' ')).map(Into::into).collect();
                let invocation = Invocation { args, ..Invocation::default() };
                let start = Instant::now();
                let exit = pgherd::ctl::run(&invocation, &ui, outside).await;
                assert!(start.elapsed() < Duration::from_secs(5), "{command}: {:?}", start.elapsed());
                assert_eq!(exit, if personality == OURS { 7 } else { 1 }, "{command}");
                assert!(captured.stderr().contains("could not read cluster demo"), "{}", captured.stderr());
            }
        }
    }
}
