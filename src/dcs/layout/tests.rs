use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::cluster::{FailoverKey, Lsn, Role, State, Status, SyncState, Timeline};

fn fixture(name: &str) -> ClusterView {
    let (prefix, keys) = fixture_keys(name);
    view_from_keys(&prefix, &keys)
}

fn fixture_keys(name: &str) -> (String, Vec<KeyValue>) {
    let path = format!("{}/tests/fixtures/{name}.etcd.json", env!("CARGO_MANIFEST_DIR"));
    keys_from_dump(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

fn map(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

const V: Version = Version(7);

#[test]
fn keys_have_one_slash_between_parts() {
    let layout = Layout::new("/service/", "demo", None);
    assert_eq!(layout.key("leader"), "/service/demo/leader");
    assert_eq!(layout.member("pg 1"), "/service/demo/members/pg 1");
    assert_eq!(Layout::new("a//b", "demo", None).prefix(), "/a/b/demo/");
    assert_eq!(Layout::new("", "demo", None).prefix(), "/demo/");
    assert_eq!(range_end("/service/demo/"), b"/service/demo0");
}

#[test]
fn a_citus_group_has_its_own_level_and_the_coordinator_reads_all() {
    let worker = Layout::new("service", "cit", Some(2));
    assert_eq!((worker.prefix(), worker.read_prefix()), ("/service/cit/2/".into(), "/service/cit/2/".into()));
    let coordinator = Layout::new("service", "cit", Some(0));
    assert_eq!(coordinator.key("sync"), "/service/cit/0/sync");
    assert_eq!(coordinator.read_prefix(), "/service/cit/");
}

#[test]
fn a_healthy_cluster_reads_completely() {
    let view = fixture("healthy");
    assert_eq!(view.leader_name().unwrap(), &"pg1");
    assert_eq!(view.leader.as_ref().unwrap().version, Version(9));
    assert_eq!(view.leader.as_ref().unwrap().session, Some(Session("2228896958324238343".into())));
    assert_eq!(view.members.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["pg1", "pg2", "pg3"]);
    assert_eq!(view.leader_member().unwrap().role(), Some(Role::Primary));
    assert_eq!(view.members[0].session, view.leader.as_ref().unwrap().session);
    assert_eq!(view.members[1].state(), Some(State::Running));
    assert_eq!(view.config_document().unwrap()["ttl"], 20);
    assert!(view.system_id().is_some());
    assert!(view.sync.is_empty() && view.sync.version.is_none());
    assert!(view.last_lsn() > Lsn::ZERO);
}

#[test]
fn recorded_documents_are_written_back_byte_by_byte() {
    let directory = format!("{}/tests/fixtures", env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        // Those written by hand keep to no order.
        let Some(name) = name.strip_suffix(".etcd.json").filter(|name| !name.starts_with("syn_")) else { continue };
        let (prefix, keys) = fixture_keys(name);
        for kv in keys {
            let value = kv.value.as_slice();
            let written = match kv.key.strip_prefix(&prefix).unwrap() {
                "config" => write::object(&read::config(value, V).document.unwrap()),
                "failover" => write::failover(&read::failover(value, V)),
                "sync" => write::sync(&read::sync(value, V)),
                "history" => write::history(&read::history(value).raw),
                member if member.starts_with("members/") => write::object(&read::member(value)),
                // The order of slots and of names is the writer's own.
                "status" => {
                    let again = read::status(&write::status(&read::status(value)));
                    assert_eq!(again, read::status(value), "{name} {}", kv.key);
                    continue;
                }
                _ => continue,
            };
            assert_eq!(text(written), kv.text(), "{name} {}", kv.key);
            seen += 1;
        }
    }
    assert!(seen > 50, "only {seen} documents");
}

#[test]
fn old_and_odd_clusters_are_read() {
    let old = fixture("syn_optime");
    assert_eq!(old.leader_member().unwrap().role(), Some(Role::Primary));
    assert!(old.last_lsn() > Lsn::ZERO);
    assert!(fixture("syn_samehost").last_lsn() > Lsn::ZERO);
    let bad = fixture("syn_badconf");
    assert!(bad.config.is_some() && bad.config_document().is_none());
    assert_eq!(fixture("syn_initializing").initialize.as_deref(), Some(""));
    assert!(fixture("no_leader").is_unlocked());
    let unicode = fixture("syn_unicode");
    assert_eq!(unicode.leader_name().unwrap(), &"数据库1");
    assert_eq!(unicode.member("pg-é").unwrap().tags().get("zone").unwrap(), "東京");
    let history = fixture("syn_hist").history.unwrap();
    assert!(history.lines().len() > 1 && history.cluster_timeline() > Some(Timeline(1)));
    assert!(fixture("syn_a_very_long_cluster_name").members.is_empty());
    assert_eq!(fixture("syn_quorum").sync.quorum, 1);
    assert!(!fixture("sync").sync.voters.is_empty());
    assert!(fixture("scheduled_switchover").failover_request().unwrap().scheduled_at.is_some());
}

#[test]
fn citus_groups_become_workers_of_group_zero() {
    let (prefix, mut keys) = fixture_keys("syn_cit");
    keys.push(KeyValue::new(format!("{prefix}01/leader"), "x"));
    keys.push(KeyValue::new(format!("{prefix}+3/leader"), "x"));
    keys.push(KeyValue::new(format!("{prefix}99999999999/leader"), "x"));
    let view = Layout::new("service", "cit", Some(0)).view(&keys);
    assert_eq!(view.workers.keys().copied().collect::<Vec<_>>(), [1, 2]);
    assert!(view.leader_name().is_some());
    assert!(view.workers.values().all(|worker| worker.leader_name().is_some() && worker.workers.is_empty()));
    let worker = Layout::new("service", "cit", Some(1)).view(&keys);
    assert_eq!(Some(&worker), view.workers.get(&1));
}

#[test]
fn member_keys_have_exactly_one_level() {
    let keys = ["/s/d/members/a", "/s/d/members/b/c", "/s/d/members/", "/s/d/memberss/x", "/s/dd/members/y"];
    let view = view_from_keys("/s/d/", &keys.map(|key| KeyValue::new(key, "{}")));
    assert_eq!(view.members.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["a"]);
}

#[test]
fn members_that_are_no_object_have_no_data() {
    for value in ["", "null", "[1]", "{", "\u{7f}"] {
        assert_eq!(read::member(value.as_bytes()), Map::new());
    }
    let old = "postgres://u@h:5433/db?application_name=http%3A%2F%2Fh%3A8008%2Fpatroni&x=1";
    assert_eq!(
        Value::Object(read::member(old.as_bytes())),
        json!({"conn_url": "postgres://u@h:5433/db", "api_url": "http://h:8008/patroni"})
    );
}

#[test]
fn status_in_all_its_forms() {
    let optime = |value: &str| read::status(value.as_bytes()).optime;
    assert_eq!(optime("67394040"), Some(Lsn(67394040)));
    assert_eq!(optime(r#"{"optime":"12"}"#), Some(Lsn(12)));
    assert_eq!(optime(r#"{"optime":-1}"#), None);
    assert_eq!(optime(r#"{"optime":null}"#), None);
    assert_eq!(optime("[]"), None);
    assert_eq!(optime("x"), None);
    let packed = r#"{"optime":1,"slots":"{\"a\":5}","retain_slots":"[\"a\",\"b\"]"}"#;
    let expected = Status {
        optime: Some(Lsn(1)),
        slots: Some(BTreeMap::from([("a".to_owned(), Lsn(5))])),
        retain_slots: Some(vec!["a".to_owned(), "b".to_owned()]),
    };
    assert_eq!(read::status(packed.as_bytes()), expected);
    assert_eq!(text(write::status(&expected)), r#"{"optime":1,"slots":{"a":5},"retain_slots":["a","b"]}"#);
    assert_eq!(read::status(br#"{"optime":1,"slots":7,"retain_slots":"x"}"#).slots, None);
}

#[test]
fn status_wins_over_the_old_key() {
    let mut keys = vec![KeyValue::new("/s/d/optime/leader", "9")];
    assert_eq!(view_from_keys("/s/d/", &keys).last_lsn(), Lsn(9));
    keys.push(KeyValue::new("/s/d/status", "{}"));
    assert_eq!(view_from_keys("/s/d/", &keys).last_lsn(), Lsn::ZERO);
}

#[test]
fn failover_in_all_its_forms() {
    let read = |value: &str| read::failover(value.as_bytes(), V);
    for blank in ["", "{}", "null", "[]", "5", r#"{"scheduled_at":"2035-01-01T00:00:00Z"}"#, r#"{"leader":null}"#] {
        assert!(read(blank).is_blank(), "{blank}");
        assert_eq!(read(blank).version, V);
    }
    let legacy = read(" a : b ");
    assert_eq!((legacy.leader, legacy.candidate), (Some("a".into()), Some("b".into())));
    assert_eq!(read("a").leader, Some("a".into()));
    let full = r#"{"leader":"node0","member":"node1","scheduled_at":"2035-01-01T00:00:00+02:00"}"#;
    assert_eq!(text(write::failover(&read(full))), full);
    let only_time = FailoverKey { scheduled_at: Some("2035-01-01".into()), ..FailoverKey::default() };
    assert_eq!(text(write::failover(&only_time)), "{}");
}

#[test]
fn a_time_nobody_can_parse_blanks_the_request() {
    let at = |time: Value| {
        let value = json!({"leader": "a", "member": "b", "scheduled_at": time});
        read::failover(value.to_string().as_bytes(), V)
    };
    for bad in [json!("soon"), json!("2035-13-01T00:00:00Z"), json!(5), json!(["x"]), json!(true)] {
        assert!(at(bad.clone()).is_blank(), "{bad}");
    }
    for good in ["2035-01-01T00:00:00", "2035-01-01 10:00+02", "2035-01-01T10:00:00.123456Z"] {
        assert_eq!(at(json!(good)).scheduled_at.as_deref(), Some(good));
    }
    assert!(!at(json!("")).is_blank() && !at(Value::Null).is_blank());
}

#[test]
fn sync_in_all_its_forms() {
    let read = |value: &str| read::sync(value.as_bytes(), V);
    for empty in ["", "null", "{}", r#"{"leader":"","quorum":3}"#, r#"{"leader":"a","quorum":"x"}"#] {
        assert!(read(empty).is_empty(), "{empty}");
        assert_eq!((read(empty).quorum, read(empty).version), (0, Some(V)));
    }
    let state = read(r#"{"leader":"a","quorum":"2","sync_standby":" c ,,b"}"#);
    assert_eq!((state.quorum, state.voters.as_slice()), (2, &["b".into(), "c".into()][..]));
    assert_eq!(text(write::sync(&state)), r#"{"leader":"a","quorum":2,"sync_standby":"b,c"}"#);
    let first = SyncState { leader: Some("me".into()), ..SyncState::default() };
    assert_eq!(text(write::sync(&first)), r#"{"leader":"me","quorum":0,"sync_standby":null}"#);
    assert_eq!(read(r#"{"leader":"a","quorum":null,"sync_standby":null}"#).quorum, 0);
}

#[test]
fn json_is_written_as_ascii_without_spaces() {
    let document = map(json!({"é": "数\u{1f600}\u{7f}\n\"\\\u{1}", "n": 1, "f": false}));
    let expected = r#"{"\u00e9":"\u6570\ud83d\ude00\u007f\n\"\\\u0001","n":1,"f":false}"#;
    assert_eq!(text(write::object(&document)), expected);
    let failsafe = BTreeMap::from([(MemberName::from("b"), "http://b".to_owned())]);
    assert_eq!(read::failsafe(&write::failsafe(&failsafe)), Some(failsafe));
}

#[test]
fn sameness_is_by_text_and_ignores_order() {
    let same = |a: Value, b: Value| write::is_same(&map(a), &map(b));
    assert!(same(json!({"a": 1, "b": {"c": "2"}}), json!({"b": {"c": 2}, "a": "1"})));
    assert!(!same(json!({"a": 1}), json!({"a": 1, "b": null})));
    assert!(!same(json!({"a": true}), json!({"a": "true"})));
    assert!(!same(json!({"a": [1]}), json!({"a": ["1"]})));
    assert!(!same(json!({"a": {"b": 1}}), json!({"a": {"b": 2}})));
}

fn name() -> impl Strategy<Value = MemberName> {
    "[a-zA-Z0-9é][a-z0-9é._-]{0,8}".prop_map(MemberName::from)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic(value in prop_oneof![
        prop::collection::vec(any::<u8>(), 0..60),
        r#"[\[\]{}":,0-9a-z+T-]{0,60}"#.prop_map(String::into_bytes),
        r#"\{"(leader|member|scheduled_at|optime|slots|quorum)":("[^"]{0,12}"|-?[0-9.]{1,25}|\{\}|null)\}"#
            .prop_map(String::into_bytes),
    ], key in "[a-z/0-9]{0,20}") {
        let known = ["initialize", "config", "leader", "status", "optime/leader", "failover", "sync", "history",
            "failsafe", "members/a", key.as_str()];
        let keys: Vec<_> = known.iter().map(|k| KeyValue::new(format!("/s/d/{k}"), value.clone())).collect();
        let view = Layout::new("s", "d", None).view(&keys);
        let _ = (view.timeline(), view.last_lsn(), view.members.iter().map(Member::address).collect::<Vec<_>>());
        let _ = Layout::new("s", "d", Some(0)).view(&keys);
    }

    #[test]
    fn failover_round_trips(leader in prop::option::of(name()), candidate in prop::option::of(name()), dated: bool) {
        let mut request = FailoverKey { version: V, leader, candidate, scheduled_at: None };
        if dated && !request.is_blank() {
            request.scheduled_at = Some("2035-01-01T00:00:00+00:00".to_owned());
        }
        prop_assert_eq!(read::failover(&write::failover(&request), V), request);
    }

    #[test]
    fn sync_round_trips(leader in name(), quorum: u32, voters in prop::collection::btree_set(name(), 0..4)) {
        let voters = voters.into_iter().collect();
        let state = SyncState { version: Some(V), leader: Some(leader), quorum, voters };
        prop_assert_eq!(read::sync(&write::sync(&state), V), state);
    }

    #[test]
    fn status_round_trips(
        optime: u64,
        slots in prop::option::of(prop::collection::btree_map("[a-z_]{1,5}", any::<u64>().prop_map(Lsn), 1..4)),
        retain_slots in prop::option::of(prop::collection::vec("[a-z_]{1,5}", 1..4)),
    ) {
        let status = Status { optime: Some(Lsn(optime)), slots, retain_slots };
        prop_assert_eq!(read::status(&write::status(&status)), status);
    }

    #[test]
    fn any_text_round_trips_as_a_member_value(key in ".{0,8}", value in ".{0,20}") {
        let mut data = Map::new();
        data.insert(key, value.into());
        let written = write::object(&data);
        prop_assert!(written.is_ascii());
        prop_assert_eq!(read::member(&written), data);
    }
}
