//! Recorded runs of Patroni's tool, done again by ours under its name: the same bytes, the same exit code.
//!
//! The state of the cluster comes out of the table that a run shows at its beginning; the members' answers come out
//! of what it says afterwards. What is then compared is everything the program says. The requests that are made on the
//! way are a snapshot beside this file.
//!
//! Left out, because they cannot be the same twice or are not about these commands (each with its reason in
//! [`left_out`]): runs interrupted by Ctrl-C, a choice at random, stack traces, and runs that never end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pgherd::ctl::Personality;
use regex_lite::Regex;
use serde_json::json;

use crate::fake_member::Script;
use crate::stage::{Said, Stage, edit};
use crate::transcript::{Run, runs, tables};

const COMMANDS: [&str; 10] = [
    "switchover",
    "failover",
    "restart",
    "reinit",
    "reload",
    "pause",
    "resume",
    "flush",
    "demote-cluster",
    "promote-cluster",
];

const FILES: [(&str, &str); 17] = [
    ("demote_promote_cluster", include_str!("../fixtures/transcripts/demote_promote_cluster.txt")),
    ("switchover", include_str!("../fixtures/changes/switchover.txt")),
    ("switchover_scheduled", include_str!("../fixtures/changes/switchover_scheduled.txt")),
    ("failover", include_str!("../fixtures/changes/failover.txt")),
    ("flush", include_str!("../fixtures/changes/flush.txt")),
    ("restart", include_str!("../fixtures/changes/restart.txt")),
    ("restart_pending", include_str!("../fixtures/changes/restart_pending.txt")),
    ("restart_scheduled", include_str!("../fixtures/transcripts/restart_scheduled.txt")),
    ("reinit", include_str!("../fixtures/changes/reinit.txt")),
    ("reinit_wait", include_str!("../fixtures/changes/reinit_wait.txt")),
    ("reload", include_str!("../fixtures/changes/reload.txt")),
    ("pause_resume", include_str!("../fixtures/transcripts/pause_resume.txt")),
    ("no_leader", include_str!("../fixtures/transcripts/no_leader.txt")),
    ("nofailover", include_str!("../fixtures/transcripts/nofailover.txt")),
    ("rest_auth", include_str!("../fixtures/changes/rest_auth.txt")),
    ("list_sync", include_str!("../fixtures/transcripts/list_sync.txt")),
    ("list_unknown", include_str!("../fixtures/transcripts/list_unknown.txt")),
];

/// Why a run is not done again.
fn left_out(run: &Run) -> Option<&'static str> {
    if run.keys.iter().flatten().any(|key| key == "\u{3}") {
        return Some("Ctrl-C is a signal, which a captured terminal does not have");
    }
    if run.args.iter().any(|arg| arg == "--any") {
        return Some("which member it is, is left to chance");
    }
    if run.args.iter().any(|arg| arg == "--group") {
        return Some("the other groups of a Citus cluster");
    }
    (run.config == "ctlwrong.yml" || run.config == "ctlauth.yml").then_some("the file's contents were not recorded")
}

/// What differs from run to run: the time of day, and the order of candidates in one question, which is sorted by us.
fn without_chance(text: &str) -> String {
    let text = text.replace("[pg3, pg2]?", "[pg2, pg3]?");
    let times = Regex::new(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{5} ").unwrap();
    let examples = Regex::new(r"\(e\.g\. \d{4}-\d\d-\d\dT\d\d:\d\d").unwrap();
    // How often a change is looked at until it is there depends on how long it takes.
    let rounds = Regex::new(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d cluster is unlocked: .*\n").unwrap();
    let text = rounds.replace_all(&text, "");
    let ends = Regex::new(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d cluster is ").unwrap();
    let text = ends.replace_all(&text, "TIME cluster is ").into_owned();
    examples.replace_all(&times.replace_all(&text, "TIME "), "(e.g. SOON").into_owned()
}

/// The first table; for commands that show none, the healthy cluster of all recordings, paused if that is what the
/// words say.
async fn stage_for(run: &Run) -> Arc<Stage> {
    let tables = tables(&run.stdout);
    let stage = match tables.first() {
        Some(table) => Stage::of_table("demo", table).await,
        None if run.args.get(1).is_some_and(|arg| arg == "nosuch") => Stage::empty("demo", &[]).await,
        None => Stage::healthy().await,
    };
    if run.stdout == "Success: scheduled switchover deleted\n" {
        let request = json!({"leader": "pg1", "scheduled_at": "2030-01-01T03:00:00+00:00"});
        stage.store.put("/service/demo/failover", request.to_string());
    }
    let is_nosuch = run.args.get(1).is_some_and(|arg| arg == "nosuch");
    if tables.is_empty() && !is_nosuch {
        let wants_resumed = run.args[0] == "resume" && !run.stderr.contains("not paused");
        if wants_resumed || run.stderr.contains("already paused") {
            stage.edit("config", "pause", true.into());
        }
    }
    if run.args[0].ends_with("mote-cluster") {
        if run.stderr.contains("Cluster has no leader") {
            stage.store.delete("/service/demo/leader");
        } else if run.stderr.contains("already in the required state") && run.args[0].starts_with("demote") {
            stage.edit("members/pg1", "role", "standby_leader".into());
        }
    }
    Arc::new(stage)
}

/// Lets the members answer as they did.
fn script(stage: &Arc<Stage>, run: &Run) {
    let refusal = Regex::new(r"^Failed: (\w+) for member (\w+), status code=(\d+), \((.*)\)$").unwrap();
    let handover = Regex::new(r"^(Switchover|Failover) failed, details: (\d+), (.*)$").unwrap();
    let pause = Regex::new(r"^Failed: (?:pause|resume) cluster management status code=(\d+), \((.*)\)$").unwrap();
    let config = Regex::new(r"cluster: /config PATCH status code=(\d+), \((.*)\)$").unwrap();
    let leader = stage.key("leader").unwrap_or_default();
    let say = |name: &str, request: &str, status: &str, body: &str| {
        stage.member(name).will(request, Script::Say(status.parse().unwrap(), body.to_owned()));
    };
    let output = without_chance(&run.output());
    for line in output.lines() {
        let line = line.rsplit("]: ").next().unwrap();
        let last_name = stage.members.keys().find(|name| line.ends_with(name.as_str()));
        if let Some(said) = refusal.captures(line) {
            say(&said[2], &format!("POST /{}", &said[1]), &said[3], &said[4]);
        } else if let Some(said) = handover.captures(line) {
            say(&leader, &format!("POST /{}", said[1].to_lowercase()), &said[2], &said[3]);
        } else if let Some(said) = pause.captures(line).or_else(|| config.captures(line)) {
            say(&leader, "PATCH /config", &said[1], &said[2]);
        } else if let Some(body) = line.strip_prefix("TIME ").filter(|body| !body.starts_with("cluster is ")) {
            let status = if body == "Switchover scheduled" { "202" } else { "200" };
            say(&leader, &format!("POST /{}", run.args[0]), status, body);
        } else if let Some(body) = line.strip_prefix("Success: ").filter(|_| run.args.ends_with(&["switchover".into()]))
        {
            say(&leader, "DELETE /switchover", "200", body);
        } else if let (Some(name), true) = (last_name, line.starts_with("Success: restart scheduled")) {
            say(name, "POST /restart", "202", "Restart scheduled");
        } else if let (Some(name), true) = (last_name, line.starts_with("Failed: another restart")) {
            say(name, "POST /restart", "409", "Another restart is already scheduled");
        } else if let Some(rest) = line.strip_prefix("Reload request received for member ") {
            say(rest.split(' ').next().unwrap(), "POST /reload", "202", "reload scheduled");
        } else if let Some(names) = line.strip_prefix("Waiting for reinitialize to complete on: ") {
            for name in names.split(", ") {
                let is_first = output.contains(&format!("completed on: {name}\nWaiting")) || !names.contains(',');
                let state = if is_first { "running" } else { "creating replica" };
                say(name, "GET /patroni", "200", &json!({"state": state}).to_string());
            }
        }
    }
    follow(stage, run, &leader);
}

/// Lets the DCS become what the run shows in the end, when the leader is asked for it.
fn follow(stage: &Arc<Stage>, run: &Run, leader: &str) {
    let Some(member) = stage.members.get(leader) else { return };
    let (weak, store, run) = (Arc::downgrade(stage), stage.store.clone(), run.clone());
    member.before_answer(move |asked| {
        let tables = tables(&run.stdout);
        if let (true, Some(stage)) = (tables.len() > 1, weak.upgrade()) {
            stage.store.delete("/service/demo/failover");
            stage.show(&tables[1]);
        }
        if asked.path == "/config" {
            let Some(pause) = asked.body.as_ref().unwrap().get("pause").cloned() else { return };
            for name in ["pg1", "pg2", "pg3"] {
                edit(&store, &format!("/service/demo/members/{name}"), "pause", pause.clone());
            }
        }
    });
}

async fn again(run: &Run) -> (Said, Vec<String>) {
    let stage = stage_for(run).await;
    script(&stage, run);
    let args: Vec<&str> = run.args.iter().map(String::as_str).collect();
    let input = run.input();
    let said = stage.run(Personality::Patronictl, &args, &input);
    let said = tokio::time::timeout(Duration::from_secs(60), said).await;
    let said = said.unwrap_or_else(|_| panic!("{args:?} does not end"));
    (said, stage.requests())
}

#[tokio::test]
async fn the_recorded_runs_come_out_the_same() {
    let mut requests = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut done = 0;
    for (file, text) in FILES {
        let runs =
            runs(text).into_iter().filter(|run| run.args.first().is_some_and(|word| COMMANDS.contains(&word.as_str())));
        let runs: Vec<Run> = runs.filter(|run| left_out(run).is_none()).collect();
        let outcomes = futures::future::join_all(runs.iter().map(again)).await;
        for (run, (said, asked)) in runs.iter().zip(outcomes) {
            done += 1;
            let (expected, got) =
                (without_chance(&run.output()), without_chance(&format!("{}{}", said.stdout, said.stderr)));
            let streams_differ = run.keys.is_none() && without_chance(&run.stdout) != without_chance(&said.stdout);
            if expected != got || streams_differ || Some(i32::from(said.exit)) != run.exit {
                wrong.push(format!(
                    "{file} #{} {:?}: exit {} instead of {:?}\n--- expected\n{expected}--- got\n{got}",
                    run.number, run.args, said.exit, run.exit
                ));
            }
            if !asked.is_empty() {
                requests.insert(format!("{file} #{:02} {}", run.number, run.args.join(" ")), asked);
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {done} runs differ:\n{}", wrong.len(), wrong.join("\n\n"));
    assert!(done >= 90, "only {done} runs were done again");
    insta::assert_json_snapshot!("requests", requests);
}

/// Every REST call is refused: what is compared is stdout, the exit code, and what ends up in the DCS. stderr is
/// Python's there.
#[tokio::test]
async fn the_recorded_fallbacks_come_out_the_same() {
    let dump = include_str!("../fixtures/changes/syn_restdown.etcd.json");
    let mut done = 0;
    let mut before = None;
    for run in runs(include_str!("../fixtures/transcripts/syn_restdown.txt")) {
        if !run.args.first().is_some_and(|word| COMMANDS.contains(&word.as_str())) {
            continue;
        }
        let stage = Stage::empty("restdown", &[]).await;
        let (_, keys) = pgherd::dcs::layout::keys_from_dump(dump).unwrap();
        stage.store.import(keys);
        // The recorded address belongs to nobody here, but it might to somebody else.
        for name in ["a", "b"] {
            stage.edit(&format!("members/{name}"), "api_url", "http://127.0.0.1:1/patroni".into());
        }
        // What was scheduled before is there to be taken back.
        if run.args[0] == "flush"
            && let Some(request) = before.clone()
        {
            stage.store.put("/service/restdown/failover", request);
        }
        let had = stage.key("failover");
        let args: Vec<&str> = run.args.iter().map(String::as_str).collect();
        let said = stage.run(Personality::Patronictl, &args, "").await;
        let what = format!("#{} {:?}: {said:?}", run.number, run.args);
        assert_eq!(without_chance(&said.stdout), without_chance(&run.stdout), "{what}");
        assert_eq!(Some(i32::from(said.exit)), run.exit, "{what}");
        assert_eq!(stage.key("failover"), run.failover.clone().or(had), "{what}");
        before = run.failover.clone().or(before);
        // Where the recording ends in a stack trace, one line says what is wrong.
        if run.exit == Some(1) {
            assert_eq!(said.stderr.lines().filter(|line| line.starts_with("Error: ")).count(), 1, "{what}");
        }
        done += 1;
    }
    assert_eq!(done, 12);
}
