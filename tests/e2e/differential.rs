//! Clusters of random contents in a real etcd, read by Patroni's tool and by ours under its name: the same output in
//! every format. Patroni's takes half a second to start, so each of its calls shows many clusters.

use std::process::Output;

use etcd_client::Client;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use regex_lite::Regex;
use serde_json::{Map, Value, json};

use crate::harness::{Cluster, Store, stderr, stdout};

/// How many clusters there are.
const CLUSTERS: usize = 120;
/// How many of them are asked for one by one, for commands that show one cluster.
const ALONE: usize = 8;

const NAMES: [&str; 10] = ["n0", "n1", "n10", "n2", "B", "a", "ünï", "京", "a-member-with-a-rather-long-name", "x y"];
const STATES: [&str; 8] =
    ["running", "stopped", "starting", "creating replica", "start failed", "crashed", "initializing new cluster", ""];
const BOOLS: [&str; 8] = ["true", "false", "\"on\"", "\"off\"", "\"quorum\"", "null", "0", "1"];

fn one_of(texts: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    proptest::sample::select(texts)
}

/// A value, seldom or often.
fn maybe(often: f64, value: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Option<Value>> {
    proptest::option::weighted(often, value).boxed()
}

fn json_text(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn position() -> impl Strategy<Value = Value> {
    prop_oneof![
        1 => Just(json!(0)),
        6 => (50_000_000u64..60_000_000).prop_map(|lsn| json!(lsn)),
        2 => (1u64..1 << 40).prop_map(|lsn| json!(lsn)),
        1 => (0u64..6, 0u64..3).prop_map(|(halves, more)| json!(60_000_000 - halves * 524_288 - more)),
    ]
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::from),
        (-5i64..200).prop_map(Value::from),
        one_of(&["yes", "pg2", "1.5", "", " x", "a: b", "#no", "null", "10:30", "ü", "two\nlines", "it's", "n0"])
            .prop_map(Value::from),
        Just(Value::Null),
        (0i64..100).prop_map(|tenths| json!(tenths as f64 / 10.0)),
    ]
}

/// Settings as people nest them.
fn nested() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::vec((one_of(&["a", "b.c", "true", "12", "with space"]), inner), 0..3)
                .prop_map(|pairs| Value::Object(pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

fn address() -> impl Strategy<Value = Value> {
    let host = one_of(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "db1.example.org", "db2.example.org"]);
    let port = prop_oneof![4 => Just(":5432"), 1 => Just(""), 1 => Just(":5433")];
    (host, port).prop_map(|(host, port)| format!("postgres://{host}{port}/postgres").into())
}

fn tags() -> impl Strategy<Value = Value> {
    let name = one_of(&["nofailover", "clonefrom", "replicatefrom", "nosync", "failover_priority", "datacenter"]);
    let value = prop_oneof![2 => scalar(), 1 => one_of(&NAMES).prop_map(Value::from)];
    proptest::collection::vec((name, value), 0..3)
        .prop_map(|pairs| Value::Object(pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()))
}

fn reasons() -> impl Strategy<Value = Value> {
    let name = one_of(&["max_connections", "shared_buffers", "archive_command"]);
    let value = one_of(&["100", "16MB", "a command that is long enough to hide the whole line of it", ""]);
    proptest::collection::vec((name, value, value_of_new()), 1..3).prop_map(|reasons| {
        let reason =
            |(name, old, new): (&str, &str, String)| (name.to_owned(), json!({"old_value": old, "new_value": new}));
        Value::Object(reasons.into_iter().map(reason).collect())
    })
}

fn value_of_new() -> impl Strategy<Value = String> {
    one_of(&["200", "32MB", "x"]).prop_map(str::to_owned)
}

fn member() -> impl Strategy<Value = String> {
    let schedule = one_of(&["2099-01-01T03:00:00+00:00", "2099-06-01T10:00:00+02:00"]);
    let restart = (schedule, proptest::option::of(Just("15.2"))).prop_map(|(at, version)| match version {
        Some(version) => json!({"schedule": at, "postgres_version": version}),
        None => json!({"schedule": at}),
    });
    let fields: Vec<(&str, BoxedStrategy<Option<Value>>)> = vec![
        ("conn_url", maybe(0.95, address())),
        ("api_url", maybe(0.95, Just("http://127.0.0.1:1/patroni".into()))),
        ("state", maybe(0.95, prop_oneof![3 => Just("running"), 2 => one_of(&STATES)].prop_map(Value::from))),
        (
            "role",
            maybe(0.95, one_of(&["replica", "replica", "primary", "master", "standby_leader"]).prop_map(Value::from)),
        ),
        ("version", Just(Some("4.1.5".into())).boxed()),
        ("xlog_location", maybe(0.7, position())),
        ("receive_lsn", maybe(0.6, position())),
        ("replay_lsn", maybe(0.6, position())),
        ("replication_state", maybe(0.5, one_of(&["streaming", "in archive recovery", ""]).prop_map(Value::from))),
        ("timeline", maybe(0.8, (1u32..40).prop_map(Value::from))),
        ("pending_restart", maybe(0.15, any::<bool>().prop_map(Value::from))),
        ("pending_restart_reason", maybe(0.15, reasons())),
        ("scheduled_restart", maybe(0.1, restart)),
        ("tags", maybe(0.3, tags())),
        ("pause", maybe(0.1, any::<bool>().prop_map(Value::from))),
    ];
    let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    let values: Vec<_> = fields.into_iter().map(|(_, values)| values).collect();
    let object = values.prop_map(move |values| {
        let pairs = names.iter().zip(values).filter_map(|(name, value)| Some(((*name).to_owned(), value?)));
        Value::Object(pairs.collect::<Map<_, _>>()).to_string()
    });
    let odd =
        one_of(&["no JSON", "[]", "{}", "postgres://10.0.0.9:5432/postgres?application_name=http://127.0.0.1:1/"]);
    prop_oneof![20 => object, 1 => odd.prop_map(str::to_owned)]
}

fn config() -> impl Strategy<Value = String> {
    let fields: Vec<(&str, BoxedStrategy<Option<Value>>)> = vec![
        ("ttl", Just(Some(json!(30))).boxed()),
        ("pause", maybe(0.3, one_of(&BOOLS).prop_map(json_text))),
        ("synchronous_mode", maybe(0.5, one_of(&BOOLS).prop_map(json_text))),
        (
            "standby_cluster",
            maybe(0.2, one_of(&["{\"host\": \"h\"}", "{}", "{\"port\": 5432}", "null"]).prop_map(json_text)),
        ),
        ("postgresql", maybe(0.6, nested().prop_map(|value| json!({"parameters": {"work_mem": "8MB", "x": value}})))),
        ("more", maybe(0.3, nested())),
    ];
    let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    let values: Vec<_> = fields.into_iter().map(|(_, values)| values).collect();
    values.prop_map(move |values| {
        let pairs = names.iter().zip(values).filter_map(|(name, value)| Some(((*name).to_owned(), value?)));
        Value::Object(pairs.collect::<Map<_, _>>()).to_string()
    })
}

fn history() -> impl Strategy<Value = String> {
    let entry = (1u32..50, 0u64..1 << 40, 2usize..6).prop_map(|(timeline, lsn, length)| {
        let all = [
            json!(timeline),
            json!(lsn),
            json!("no recovery target specified"),
            json!("2026-11-20T15:00:00.123456+00:00"),
            json!("ünï"),
        ];
        all.into_iter().take(length).collect::<Vec<_>>()
    });
    proptest::collection::vec(entry, 0..4).prop_map(|entries| json!(entries).to_string())
}

fn failover() -> impl Strategy<Value = String> {
    one_of(&[
        r#"{"leader":"n0","member":"n1","scheduled_at":"2099-01-01T03:00:00+00:00"}"#,
        r#"{"leader":"n0","scheduled_at":"2099-06-01T10:00:00+02:00"}"#,
        r#"{"member":"n1"}"#,
        "{}",
        "n0:n1",
    ])
    .prop_map(str::to_owned)
}

/// The keys of a cluster below its prefix.
fn cluster() -> impl Strategy<Value = Vec<(String, String)>> {
    let members = proptest::collection::btree_map(one_of(&NAMES), member(), 0..6);
    let optime = prop_oneof![
        3 => Just(60_000_000u64),
        1 => 50_000_000u64..70_000_000,
    ];
    let status = prop_oneof![
        6 => optime.prop_map(|optime| Some(("status", json!({"optime": optime}).to_string()))),
        1 => Just(Some(("optime/leader", "60000000".to_owned()))),
        1 => Just(None),
    ];
    let sync = (one_of(&NAMES), proptest::collection::vec(one_of(&NAMES), 0..3)).prop_map(|(leader, standbys)| {
        json!({"leader": leader, "sync_standby": standbys.join(","), "quorum": 0}).to_string()
    });
    let initialize = prop_oneof![6 => Just("7000000000000000001"), 1 => Just("")];
    (
        members,
        proptest::option::weighted(0.85, any::<proptest::sample::Index>()),
        status,
        proptest::option::weighted(0.9, config()),
        proptest::option::weighted(0.4, sync),
        proptest::option::weighted(0.5, history()),
        proptest::option::weighted(0.25, failover()),
        proptest::option::weighted(0.9, initialize),
    )
        .prop_map(|(members, leader, status, config, sync, history, failover, initialize)| {
            let mut keys: Vec<(String, String)> = Vec::new();
            let mut put = |key: &str, value: Option<String>| keys.extend(value.map(|value| (key.to_owned(), value)));
            // A leader may be named that has no key of its own.
            put(
                "leader",
                leader.map(|index| {
                    let names: Vec<&str> = members.keys().copied().chain(["gone"]).collect();
                    index.get(&names).to_string()
                }),
            );
            put("config", config);
            put("sync", sync);
            put("history", history);
            put("failover", failover);
            put("initialize", initialize.map(str::to_owned));
            if let Some((key, value)) = status {
                put(key, Some(value));
            }
            for (name, value) in members {
                put(&format!("members/{name}"), Some(value));
            }
            keys
        })
}

fn without_times(text: &str) -> String {
    Regex::new(r"(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$").unwrap().replace_all(text, "TIME").into_owned()
}

/// What differs between the two; the first lines of it.
fn difference(args: &[&str], theirs: &Output, ours: &Output) -> Option<String> {
    let (wanted, got) = (without_times(&stdout(theirs)), without_times(&stdout(ours)));
    if wanted == got && theirs.status.code() == ours.status.code() {
        return None;
    }
    let at = wanted.lines().zip(got.lines()).position(|(wanted, got)| wanted != got).unwrap_or(0);
    let around = |text: &str| text.lines().skip(at.saturating_sub(8)).take(16).collect::<Vec<_>>().join("\n");
    let (there, here) = (theirs.status, ours.status);
    let command = args.iter().filter(|arg| !arg.starts_with("c0") && !arg.starts_with("c1")).copied();
    let command = command.collect::<Vec<_>>().join(" ");
    Some(format!(
        "{command}: line {at}, {there}, wanted:\n{}\n{here}, got:\n{}\n{}{}",
        around(&wanted),
        around(&got),
        stderr(theirs).lines().last().unwrap_or_default(),
        stderr(ours)
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn any_contents_look_the_same() {
    let store = Cluster::new(Store::Etcd, &[], json!({}));
    let mut client = Client::connect([format!("127.0.0.1:{}", store.store_port)], None).await.unwrap();
    let mut runner = TestRunner::deterministic();
    let contents = cluster();
    let names: Vec<String> = (0..CLUSTERS).map(|number| format!("c{number:03}")).collect();
    for name in &names {
        for (key, value) in contents.new_tree(&mut runner).unwrap().current() {
            client.put(format!("/service/{name}/{key}"), value, None).await.unwrap();
        }
    }
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut commands: Vec<Vec<&str>> = Vec::new();
    for options in [
        &["list"] as &[&str],
        &["list", "-e", "-t"],
        &["list", "-f", "tsv"],
        &["list", "-e", "-f", "tsv"],
        &["list", "-f", "json"],
        &["list", "-e", "-f", "json"],
        &["list", "-e", "-t", "-f", "yaml"],
        &["topology"],
    ] {
        commands.push(options.iter().chain(&all).copied().collect());
    }
    for name in &all[..ALONE] {
        commands.push(vec!["show-config", name]);
        commands.push(vec!["history", name, "-f", ["pretty", "json", "yaml", "tsv"][commands.len() / 2 % 4]]);
    }
    let mut differences = Vec::new();
    for args in &commands {
        differences.extend(difference(args, &store.patronictl(args), &store.as_patronictl(args)));
    }
    assert!(
        differences.is_empty(),
        "{} of {} differ:\n{}",
        differences.len(),
        commands.len(),
        differences.join("\n\n")
    );
}
