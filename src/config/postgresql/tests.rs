//! The effective configuration out of both documents.

use super::*;
use proptest::prelude::*;
use serde_json::json;

const NODE: &str = "
scope: demo
name: n1
restapi: {listen: '127.0.0.1:8008'}
etcd3: {hosts: '127.0.0.1:2379'}
postgresql:
  listen: 0.0.0.0:5433
  data_dir: /data
  authentication:
    superuser: {username: postgres, password: secret}
    replication: {username: replicator, sslmode: require}
";

fn local(more: &str) -> LocalConfig {
    let files = [("node.yml".to_owned(), NODE.to_owned()), ("more.yml".to_owned(), more.to_owned())];
    LocalConfig::build(&files, &BTreeMap::new()).unwrap().0
}

fn build(more: &str, dynamic: Value) -> (PostgresConfig, Vec<String>) {
    let (config, findings) = PostgresConfig::build(&local(more), dynamic.as_object().unwrap()).unwrap();
    (config, findings.into_iter().map(|finding| finding.message).collect())
}

#[test]
fn defaults() {
    let (config, findings) = build("{x: y}", json!({}));
    assert_eq!(findings, Vec::<String>::new());
    assert_eq!((config.listen_addresses.as_str(), config.port), ("0.0.0.0", 5433));
    assert_eq!(config.connect_address, "localhost:5433");
    assert_eq!((config.config_dir.as_str(), config.config_base_name.as_str()), ("/data", "postgresql"));
    assert_eq!(config.create_replica_methods, ["basebackup"]);
    assert_eq!(config.pg_ctl_timeout.as_secs(), 60);
    assert!(config.use_slots && !config.use_pg_rewind);
    assert_eq!(config.superuser.password, Some(Secret::new("secret")));
    assert_eq!(config.replication.options["sslmode"], "require");
    assert_eq!(config.rewind, None);
    assert_eq!(config.parameters["port"], "5433");
    assert_eq!(config.parameters["cluster_name"], "demo");
    assert_eq!(config.parameters["max_connections"], "100");
}

#[test]
fn the_file_wins_key_by_key_in_parameters_and_as_a_whole_elsewhere() {
    let (config, findings) = build(
        "postgresql: {parameters: {work_mem: 8MB, max_connections: 500, LOG_checkpoints: off}, pg_hba: [a], \
         use_slots: false, callbacks: {on_start: x}, pg_ctl_timeout: 5min}",
        json!({"postgresql": {
            "parameters": {"work_mem": "4MB", "max_connections": 200, "maintenance_work_mem": "64MB", "log_checkpoints": true},
            "pg_hba": ["b", "c"], "callbacks": {"on_stop": "y"}, "use_pg_rewind": true, "data_dir": "/elsewhere",
            "listen": "x:1", "authentication": {"superuser": {"username": "evil"}},
        }}),
    );
    assert_eq!(findings, Vec::<String>::new());
    assert_eq!(config.parameters["work_mem"], "8MB");
    assert_eq!(config.parameters["max_connections"], "200");
    assert_eq!(config.parameters["maintenance_work_mem"], "64MB");
    assert_eq!(config.parameters["log_checkpoints"], "off");
    assert!(!config.parameters.contains_key("LOG_checkpoints"));
    assert_eq!(config.pg_hba.as_deref(), Some(&["a".to_owned()][..]));
    assert_eq!(config.callbacks, BTreeMap::from([("on_start".to_owned(), "x".to_owned())]));
    assert!(config.use_slots && config.use_pg_rewind);
    assert_eq!((config.data_dir.as_str(), config.port), ("/data", 5433));
    assert_eq!(config.superuser.username.as_deref(), Some("postgres"));
    assert_eq!(config.pg_ctl_timeout.as_secs(), 300);
}

#[test]
fn recovery_parameters_move_to_their_own_place() {
    let both = "postgresql: {recovery_conf: {restore_command: a, recovery_target_inclusive: false}}";
    let (config, _) = build(both, json!({}));
    assert_eq!(config.recovery_conf["recovery_target_inclusive"], "off");
    let (config, _) = build(both, json!({"postgresql": {"parameters": {"restore_command": "b"}}}));
    assert_eq!(config.recovery_conf, BTreeMap::from([("restore_command".to_owned(), "b".to_owned())]));
    assert!(!config.parameters.contains_key("restore_command"));
}

#[test]
fn values_that_cannot_be_used_are_told() {
    let (config, findings) = build(
        "postgresql: {parameters: {shared_preload_libraries: [a, b], hba_file: my.conf, ident_file: /etc/x}, config_dir: /conf/}",
        json!({"postgresql": {"parameters": {"max_wal_senders": 1, "search_path": null}}}),
    );
    assert_eq!(
        findings,
        [
            "postgresql parameter max_wal_senders=1 failed validation, defaulting to 10",
            "postgresql.parameters.shared_preload_libraries is not a single value and is ignored",
        ]
    );
    assert_eq!(config.parameters["hba_file"], "/conf/my.conf");
    assert_eq!(config.parameters["ident_file"], "/etc/x");
    assert!(!config.parameters.contains_key("search_path"));
}

#[test]
fn methods_are_the_sections_that_are_nothing_else() {
    let (config, _) = build(
        "postgresql: {create_replica_methods: [wal-g, basebackup], wal-g: {command: x}, basebackup: [checkpoint: fast]}",
        json!({"postgresql": {"rewind": ["debug"]}}),
    );
    assert_eq!(config.create_replica_methods, ["wal-g", "basebackup"]);
    assert_eq!(config.methods.keys().collect::<Vec<_>>(), ["wal-g"]);
    assert_eq!(config.basebackup, json!([{"checkpoint": "fast"}]));
    assert_eq!(config.rewind_options, json!(["debug"]));
}

#[test]
fn who_needs_no_leader_is_one_of_the_list_that_counts() {
    let own = "postgresql: {create_replica_methods: [basebackup, far, near, gone], basebackup: {no_leader: true}, \
               far: {no_leader: 1}, near: {no_leader: false}, other: {no_leader: true}}";
    assert_eq!(build(own, json!({})).0.leaderless_methods(), ["far"]);
    let standby = |methods: Value| json!({"standby_cluster": {"host": "x", "create_replica_methods": methods}});
    assert_eq!(build(own, standby(json!(["near", "other"]))).0.leaderless_methods(), ["other"]);
    assert!(build(own, standby(json!([]))).0.leaderless_methods().is_empty());
    // Of no standby cluster: there is nothing to replicate from.
    assert_eq!(build(own, json!({"standby_cluster": {}})).0.leaderless_methods(), ["far"]);
}

#[test]
fn unusable_shapes_are_errors() {
    let error = |more: &str, dynamic: Value| {
        PostgresConfig::build(&local(more), dynamic.as_object().unwrap()).unwrap_err().to_string()
    };
    let text = error("{x: y}", json!({"postgresql": {"parameters": ["a"]}}));
    assert!(text.starts_with("postgresql.parameters: is not a mapping"), "{text}");
    let text = error("postgresql: {listen: 'a:b'}", json!({}));
    assert!(text.starts_with("postgresql.listen: 'a:b' is not host:port"), "{text}");
}

#[test]
fn the_address_from_this_machine() {
    assert_eq!(local_host("10.0.0.1,127.0.0.1"), "localhost");
    assert_eq!(local_host("10.0.0.1,10.0.0.2"), "10.0.0.1");
    assert_eq!(local_host("*"), "localhost");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_document_panics(
        key in prop::sample::select(vec!["parameters", "pg_hba", "callbacks", "basebackup", "recovery_conf", "bin_name",
            "create_replica_methods", "connect_address", "authentication", "pg_ctl_timeout"]),
        value in crate::config::yaml::tests::value()
    ) {
        let section = json!({"postgresql": {key: value}});
        let section = section.as_object().unwrap();
        let mut node = local("{x: y}");
        let _ = PostgresConfig::build(&node, section);
        crate::config::merge::patch(&mut node.document, section);
        let _ = PostgresConfig::build(&node, &Map::new());
    }
}
