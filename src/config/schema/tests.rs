//! Documents against the table, in a world of paper.

use super::*;
use proptest::prelude::*;
use serde_json::json;

/// Nothing listens, nothing answers but `up`, every program is there.
struct Paper;

impl Surroundings for Paper {
    fn is_taken(&self, hosts: &[&str], port: u16) -> Result<bool, String> {
        if hosts.contains(&"unknown") { Err("no such host".to_owned()) } else { Ok(port == 1111) }
    }

    fn is_reachable(&self, host: &str, _port: u16) -> Result<bool, String> {
        Ok(host == "up")
    }

    fn look(&self, path: &str) -> Found {
        match path {
            "/data" | "/data/pg_wal" | "/bin" => Found::Directory,
            "/foreign" | "/torn" | "/old" => Found::Directory,
            "/file" => Found::File,
            "/empty" => Found::EmptyDirectory,
            _ => Found::Nothing,
        }
    }

    fn read(&self, path: &str) -> Option<String> {
        match path {
            "/data/PG_VERSION" | "/torn/PG_VERSION" => Some("14\n".to_owned()),
            _ => None,
        }
    }

    fn has_program(&self, name: &str, dir: Option<&str>) -> bool {
        dir.is_none() || name != "initdb"
    }

    fn server_version(&self, _program: &str, _dir: Option<&str>) -> Option<String> {
        Some("15".to_owned())
    }
}

fn valid() -> Value {
    json!({
        "name": "n1",
        "scope": "demo",
        "restapi": {"listen": "0.0.0.0:8008", "connect_address": "10.0.0.1:8008"},
        "etcd3": {"hosts": ["up:2379"]},
        "postgresql": {
            "listen": "0.0.0.0:5432",
            "connect_address": "10.0.0.1:5432",
            "authentication": {"replication": {"username": "r"}, "superuser": {"username": "s", "password": "p"}},
            "data_dir": "/empty",
        },
    })
}

/// The problems of the valid document after a patch.
fn problems(patch: Value) -> Vec<String> {
    let (Value::Object(mut document), Value::Object(patch)) = (valid(), patch) else { panic!("maps wanted") };
    crate::config::merge::patch(&mut document, &patch);
    check(&document, &Paper, Strictness::default()).iter().map(ToString::to_string).collect()
}

#[test]
fn a_valid_document_has_no_problems() {
    assert_eq!(problems(json!({"unknown": {"key": 1}, "log": {"mode": 0o600}})), Vec::<String>::new());
}

#[test]
fn no_key_stands_twice() {
    let mut found = Vec::new();
    walk::repeated_keys(table::TOP, &mut found);
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn an_empty_document_lacks_everything() {
    let found: Vec<_> = check(&Map::new(), &Paper, Strictness::default()).iter().map(ToString::to_string).collect();
    let expected = [
        "name",
        "scope",
        "restapi",
        "consul",
        "etcd",
        "etcd3",
        "exhibitor",
        "kubernetes",
        "raft",
        "zookeeper",
        "postgresql",
    ];
    assert_eq!(found, expected.map(|key| format!("{key}  is not defined.")));
}

#[test]
fn types_and_bounds() {
    let table = [
        (json!({"name": 5}), "name 5 is not a string"),
        (json!({"thread_pool_size": 3}), "thread_pool_size 3 didn't pass validation: Wrong value"),
        (json!({"thread_pool_size": "5"}), "thread_pool_size 5 is not an integer"),
        (json!({"thread_stack_size": 65537}), "thread_stack_size 65537 didn't pass validation: Wrong value"),
        (json!({"log": {"level": "info"}}), "log.level info didn't pass validation: Wrong value"),
        (json!({"log": {"format": []}}), "log.format [] didn't pass validation: should contain at least one item"),
        (json!({"log": {"format": 5}}), "log.format 5 didn't pass validation: Should be a string or a list"),
        (json!({"log": {"mode": 512}}), "log.mode 512 didn't pass validation: Wrong value"),
        (json!({"ctl": {"insecure": "on"}}), "ctl.insecure on is not a boolean"),
        (json!({"restapi": {"allowlist": []}}), "restapi.allowlist [] is an empty list"),
        (json!({"restapi": {"allowlist": [5]}}), "restapi.allowlist.0 5 is not a string"),
        (
            json!({"restapi": {"listen": "h:1111"}}),
            "restapi.listen h:1111 didn't pass validation: Port 1111 is already in use.",
        ),
        (json!({"restapi": {"listen": "unknown:1"}}), "restapi.listen unknown:1 didn't pass validation: no such host"),
        (
            json!({"restapi": {"connect_address": "localhost:1"}}),
            "restapi.connect_address localhost:1 didn't pass validation: must not contain \"127.0.0.1\", \"0.0.0.0\", \
             \"*\", \"::1\", \"localhost\"",
        ),
        (json!({"bootstrap": {}}), "bootstrap.dcs  is not defined."),
        (json!({"bootstrap": {"dcs": {"ttl": 4}}}), "bootstrap.dcs.ttl 4 didn't pass validation: Wrong value"),
        (
            json!({"bootstrap": {"dcs": {"synchronous_mode": "maybe"}}}),
            "bootstrap.dcs.synchronous_mode maybe didn't pass validation: invalid value for synchronous_mode",
        ),
        (
            json!({"etcd3": {"hosts": ["up", "down:1"]}}),
            "etcd3.hosts.1 down:1 didn't pass validation: down:1 is not reachable",
        ),
        (json!({"etcd3": {"hosts": "up, down"}}), "etcd3.hosts up, down didn't pass validation: down is not reachable"),
        (
            json!({"postgresql": {"listen": "*,a:1"}}),
            "postgresql.listen *,a:1 didn't pass validation: expecting '*' alone",
        ),
        (json!({"postgresql": {"data_dir": ""}}), "postgresql.data_dir  didn't pass validation: is an empty string"),
        (
            json!({"postgresql": {"data_dir": "/file"}}),
            "postgresql.data_dir /file didn't pass validation: is not a directory",
        ),
        (json!({"postgresql": {"bin_dir": "/none"}}), "postgresql.bin_dir  Directory '/none' does not exist."),
        (json!({"postgresql": {"bin_dir": "/bin"}}), "postgresql.bin_dir  does not contain 'initdb' in '/bin'"),
        (json!({"watchdog": {"mode": true}}), "watchdog.mode True didn't pass validation: Wrong value"),
        (json!({"watchdog": {"mode": 5}}), "watchdog.mode 5 didn't pass validation: expected type is not a string"),
        (
            json!({"tags": {"nosync": false, "sync_priority": 1}}),
            "tags  Multiple of ('nosync', 'sync_priority') provided",
        ),
        (json!({"citus": {"group": -1, "database": "c"}}), "citus.group -1 didn't pass validation: Wrong value"),
    ];
    for (patch, expected) in table {
        assert_eq!(problems(patch.clone()), [expected], "{patch}");
    }
}

#[test]
fn data_directories() {
    let of = |dir: &str| problems(json!({"postgresql": {"data_dir": dir}})).join("\n");
    assert_eq!(of("/new"), "");
    assert!(of("/foreign").ends_with("doesn't look like a valid data directory"));
    assert!(of("/torn").ends_with("doesn't contain \"pg_wal\" directory"));
    assert!(of("/data").ends_with("version (14) doesn't match with 'postgres --version' output (15)"));
}

#[test]
fn alternatives_name_what_both_want() {
    assert_eq!(
        problems(json!({"etcd3": {"hosts": 5}})),
        ["etcd3.hosts 5 is not a string", "etcd3.hosts 5 is not a list"]
    );
    let expected = ["bootstrap.initdb.0 5 is not a string", "bootstrap.initdb.0 5 is not a dictionary"];
    assert_eq!(problems(json!({"bootstrap": {"dcs": {}, "initdb": [5]}})), expected);
    let kubernetes = json!({"kubernetes": {"labels": {}, "pod_ip": "x", "ports": [{"name": "p", "port": "1"}]}});
    assert_eq!(
        problems(kubernetes),
        [
            "kubernetes.pod_ip x didn't pass validation: Is not a valid ipv4 address",
            "kubernetes.pod_ip x didn't pass validation: Is not a valid ipv6 address",
            "kubernetes.ports.0.port {'name': 'p', 'port': '1'} is not an integer",
        ]
    );
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z0-9:,.*\\[\\]]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let key = prop_oneof![Just("listen"), Just("hosts"), Just("dcs"), Just("data_dir"), Just("ttl")];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..3)
                .prop_map(|pairs| pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_document_panics(section in "restapi|postgresql|bootstrap|etcd3|log|tags", value in any_value()) {
        let (Value::Object(mut document), key) = (valid(), section) else { panic!("a map") };
        document.insert(key, value);
        let _ = check(&document, &Paper, Strictness::default());
    }
}
