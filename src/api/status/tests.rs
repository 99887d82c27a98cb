use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::fake::{dynamic, leader_facts, object, recorded_answers, recorded_view};
use crate::api::wire::to_text;
use crate::cluster::{RestartRequest, ScheduledRestart, SystemId, Tags, Timeline};

use super::*;

const RECORDED: [&str; 15] = [
    "healthy",
    "after_switchover",
    "history",
    "lag",
    "member_gone",
    "no_leader",
    "nofailover",
    "paused",
    "pending_restart",
    "pending_restart_some",
    "quorum",
    "scheduled_restart",
    "scheduled_switchover",
    "scheduled_switchover_any",
    "sync",
];

fn settings(view: &ClusterView) -> Dynamic {
    dynamic(view.config_document().cloned().unwrap_or_default().into())
}

#[test]
fn cluster_answers_are_those_recorded() {
    for name in RECORDED.into_iter().chain(["standby_cluster", "stopped_member"]) {
        let view = recorded_view(name);
        let ours = to_text(&cluster_answer(&view, &settings(&view), "demo"));
        let recorded = recorded_answers(name);
        let theirs: Vec<String> =
            recorded.values().filter_map(|paths| Some(to_text(&paths.get("/cluster")?["body"]))).collect();
        assert!(theirs.contains(&ours), "{name}:\n{ours}\n{}", theirs.join("\n"));
    }
}

/// Takes a recorded status apart into the facts it was made of.
fn facts_of(status: &Map<String, Value>, settings: &Dynamic) -> (NodeFacts, Option<Live>) {
    let text = |key: &str| status.get(key).and_then(Value::as_str);
    let scheduled = status.get("scheduled_restart").map(|published| ScheduledRestart {
        at_ms: 0,
        schedule: String::new(),
        request: RestartRequest::default(),
        postmaster_start_time: None,
        published: object(published.clone()),
    });
    let facts = NodeFacts {
        name: status["patroni"]["name"].as_str().unwrap().into(),
        role: Role::parse(text("role").unwrap()).unwrap(),
        state: State::parse(text("state").unwrap()),
        dynamic: Arc::new(settings.clone()),
        tags: Tags(status.get("tags").cloned().map(object).unwrap_or_default()),
        scheduled_restart: scheduled,
        pending_restart: status
            .get("pending_restart_reason")
            .map_or_else(BTreeMap::new, |reason| serde_json::from_value(reason.clone()).unwrap()),
        dcs_last_seen: status["dcs_last_seen"].as_i64().unwrap(),
        system_id: text("database_system_identifier").and_then(SystemId::parse),
        ..leader_facts()
    };
    let live = status.get("xlog").map(|xlog| {
        let lsn = |key: &str| Lsn(xlog.get(key).and_then(Value::as_u64).unwrap_or(0));
        Live {
            in_recovery: xlog.get("location").is_none(),
            server_version: u32::try_from(status["server_version"].as_u64().unwrap()).unwrap(),
            postmaster_start_time: text("postmaster_start_time").map(str::to_owned),
            location: lsn("location"),
            received: lsn("received_location"),
            replayed: lsn("replayed_location"),
            replayed_timestamp: xlog.get("replayed_timestamp").and_then(Value::as_str).map(str::to_owned),
            is_replay_paused: xlog.get("paused") == Some(&Value::Bool(true)),
            timeline: status["timeline"].as_u64().map(|number| Timeline(u32::try_from(number).unwrap())),
            replication_state: text("replication_state").map(str::to_owned),
            latest_end_lsn: None,
            replication: status.get("replication").and_then(Value::as_array).cloned().unwrap_or_default(),
        }
    });
    (facts, live)
}

#[test]
fn statuses_are_written_as_recorded() {
    let mut compared = 0;
    for name in RECORDED.into_iter().chain(["standby_cluster", "stopped_member"]) {
        let view = recorded_view(name);
        let settings = settings(&view);
        for (member, paths) in recorded_answers(name) {
            let Some(status) = paths.get("/patroni").and_then(|answer| answer["body"].as_object()) else { continue };
            let (facts, live) = facts_of(status, &settings);
            let dynamic = &facts.dynamic;
            let picture = Picture { facts: &facts, live: live.as_ref(), view: Some(&view), dynamic };
            assert_eq!(to_text(&picture.document()), to_text(status), "{name} {member}");
            compared += 1;
        }
    }
    assert!(compared > 40, "{compared}");
}

#[test]
fn a_server_that_does_not_answer_is_unknown() {
    let facts = leader_facts();
    let picture = Picture { facts: &facts, live: None, view: None, dynamic: &facts.dynamic };
    let status = picture.document();
    assert_eq!(status["state"], "unknown");
    assert_eq!(status["cluster_unlocked"], true);
    assert!(!status.contains_key("xlog") && !status.contains_key("server_version"));
}

#[test]
fn a_log_that_nobody_takes_is_told() {
    for (queue, waiting, lost) in [((2, 0), None, None), ((3, 0), Some(3), None), ((1000, 7), Some(1000), Some(7))] {
        let facts = NodeFacts { log_queue: queue, ..leader_facts() };
        let status = Picture { facts: &facts, live: None, view: None, dynamic: &facts.dynamic }.document();
        let number = |key: &str| status.get(key).and_then(Value::as_u64);
        assert_eq!((number("logger_queue_size"), number("logger_records_lost")), (waiting, lost), "{queue:?}");
    }
}

/// Every series, in the order of the page.
const SERIES: [&str; 26] = [
    "version",
    "postgres_running",
    "postmaster_start_time",
    "primary",
    "xlog_location",
    "standby_leader",
    "replica",
    "sync_standby",
    "quorum_standby",
    "xlog_received_location",
    "xlog_replayed_location",
    "xlog_replayed_timestamp",
    "xlog_paused",
    "postgres_streaming",
    "postgres_in_archive_recovery",
    "postgres_server_version",
    "cluster_unlocked",
    "failsafe_mode_is_active",
    "failsafe_mode_enabled",
    "failsafe_member",
    "postgres_timeline",
    "dcs_last_seen",
    "pending_restart",
    "is_paused",
    "postgres_state",
    "failover_priority",
];

#[test]
fn metrics_follow_the_status() {
    let view = recorded_view("healthy");
    let settings = settings(&view);
    let recorded = recorded_answers("healthy");
    let (facts, live) = facts_of(recorded["pg1"]["/patroni"]["body"].as_object().unwrap(), &settings);
    let picture = Picture { facts: &facts, live: live.as_ref(), view: Some(&view), dynamic: &settings };
    let page = crate::api::metrics::render(&picture);
    let labels = "{scope=\"demo\",name=\"pg1\"}";
    for sample in [
        "version 040105",
        "postgres_running 1",
        "postmaster_start_time 1795186355.160912",
        "primary 1",
        "xlog_location 67515464",
        "replica 0",
        "xlog_replayed_timestamp 0",
        "postgres_streaming 0",
        "postgres_server_version 150018",
        "cluster_unlocked 0",
        "postgres_timeline 1",
        "dcs_last_seen 1795186805",
        "postgres_state 5",
        "failover_priority 1",
    ] {
        let (name, value) = sample.split_once(' ').unwrap();
        let line = format!("\npatroni_{name}{labels} {value}\n");
        assert!(page.contains(&line), "{line}{page}");
    }
    let names: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("# TYPE patroni_")).collect();
    let names: Vec<&str> = names.into_iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names, SERIES);
    assert!(page.ends_with('\n') && !page.contains("\n\n"));
    let stopped = Picture { live: None, ..picture };
    let page = crate::api::metrics::render(&stopped);
    assert!(!page.contains("postgres_streaming"));
    assert!(page.contains(&format!("patroni_postgres_state{labels} -1\n")));
}
