//! Files as operators write them.

use super::*;
use proptest::prelude::*;
use serde_json::json;

const NODE: &str = "
scope: demo
name: n1
restapi:
  listen: 127.0.0.1:8008
etcd3:
  hosts: 127.0.0.1:2379
postgresql:
  listen: 127.0.0.1:5432
  data_dir: /data
";

fn build(more: &str) -> (LocalConfig, Vec<String>) {
    let files = [("node.yml".to_owned(), NODE.to_owned()), ("more.yml".to_owned(), more.to_owned())];
    let (config, findings) = LocalConfig::build(&files, &BTreeMap::new()).unwrap();
    (config, findings.into_iter().map(|finding| finding.message).collect())
}

#[test]
fn a_small_file_gets_the_defaults() {
    let (config, findings) = build("tags: {}");
    assert_eq!(findings, Vec::<String>::new());
    assert_eq!((config.scope.as_str(), config.name.as_str(), config.namespace.as_str()), ("demo", "n1", "service"));
    assert_eq!(config.restapi.connect_address, "127.0.0.1:8008");
    assert_eq!(config.restapi.api_url(), "http://127.0.0.1:8008/patroni");
    assert_eq!(config.log.level, "INFO");
    assert_eq!(config.log.format, json!("%(asctime)s %(levelname)s: %(message)s"));
    assert_eq!((config.log.file_size, config.log.file_num, config.log.mode), (25_000_000, 4, None));
    assert_eq!(config.watchdog.mode, WatchdogMode::Automatic);
    assert_eq!(config.bootstrap, None);
    assert!(matches!(config.dcs, DcsConfig::Etcd3(_)));
}

#[test]
fn everything_that_is_missing_is_named_at_once() {
    let files = [("node.yml".to_owned(), "scope: demo\npostgresql: {listen: x}\n".to_owned())];
    let error = LocalConfig::build(&files, &BTreeMap::new()).unwrap_err().to_string();
    let lines: Vec<_> = error.lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(lines, ["name is not defined", "restapi.listen is not defined", "postgresql.data_dir is not defined"]);
    assert!(error.contains("add the path of the data directory"), "{error}");
}

#[test]
fn names_that_would_break_things_are_refused() {
    for name in ["__patroni_strict_sync_replica_placeholder__", "a/b"] {
        let files = [("node.yml".to_owned(), format!("{NODE}\nname: {name}\n"))];
        let error = LocalConfig::build(&files, &BTreeMap::new()).unwrap_err().to_string();
        assert!(error.starts_with("name: '"), "{error}");
    }
}

#[test]
fn the_guard_is_on_unless_switched_off() {
    let guard = |text: &str| build(&format!("watchdog: {text}")).0.watchdog.guard;
    assert!(guard("{}") && guard("{mode: off}") && guard("{guard: on}"));
    assert!(!guard("{guard: off}") && !guard("{guard: false}"));
}

#[test]
fn watchdog_modes() {
    let mode = |text: &str| {
        let (config, findings) = build(&format!("watchdog: {{mode: {text}}}"));
        (config.watchdog.mode, findings)
    };
    assert_eq!(mode("off"), (WatchdogMode::Off, vec![]));
    assert_eq!(mode("required"), (WatchdogMode::Required, vec![]));
    assert_eq!(mode("Auto"), (WatchdogMode::Automatic, vec![]));
    assert_eq!(
        mode("sometimes"),
        (
            WatchdogMode::Off,
            vec!["Watchdog mode sometimes not recognized, disabling watchdog (more.yml line 1)".to_owned()]
        )
    );
}

#[test]
fn contradicting_tags_are_told() {
    let (config, findings) = build("tags: {nofailover: true, failover_priority: 2, nosync: false, sync_priority: 0}");
    assert_eq!(
        findings,
        [
            "Conflicting configuration between nofailover: True and failover_priority: 2. Defaulting to nofailover: True (more.yml line 1)",
            "Conflicting configuration between nosync: False and sync_priority: 0. Defaulting to nosync: False (more.yml line 1)",
        ]
    );
    assert!(config.tags.nofailover());
    let (_, findings) = build("tags: {nofailover: true, failover_priority: 0, nosync: false}");
    assert!(findings.is_empty());
}

#[test]
fn ctl_falls_back_to_the_rest_interface() {
    let (config, _) = build("restapi: {cafile: ca, authentication: {username: u, password: p}}\nctl: {keyfile: k}");
    assert_eq!(config.ctl.cacert.as_deref(), Some("ca"));
    assert_eq!(config.ctl.authentication, Some(("u".to_owned(), Secret::new("p"))));
    assert_eq!(config.ctl.keyfile, None, "a key without a certificate is not looked at");
    let (config, findings) = build("restapi: {authentication: {username: u}}");
    assert_eq!(config.restapi.authentication, None);
    assert_eq!(findings, ["restapi.authentication needs both username and password; it is ignored (more.yml line 1)"]);
    let (_, findings) = build("restapi: {ciphers: 'HIGH:!RC4'}");
    assert!(findings.is_empty(), "{findings:?}");
    let (_, findings) = build("restapi: {ciphers: RC4}");
    let [found] = &findings[..] else { panic!("{findings:?}") };
    assert!(found.starts_with("restapi.ciphers 'RC4' leaves none") && found.contains("line 1"), "{found}");
}

#[test]
fn old_layouts_are_understood() {
    let (config, _) =
        build("postgresql:\n  replication: {username: r, network: x}\n  pg_rewind: {username: s, password: p}\n");
    let postgresql = &config.document["postgresql"];
    assert_eq!(
        postgresql["authentication"],
        json!({"replication": {"username": "r"}, "superuser": {"username": "s", "password": "p"}})
    );
    assert_eq!(postgresql["use_pg_rewind"], json!(true));
}

#[test]
fn log_settings() {
    let (config, findings) = build(
        "log: {type: json, level: warn, mode: 0644, format: 'asctime, [levelname], message', loggers: {patroni.ha: DEBUG}}",
    );
    assert!(findings.is_empty(), "{findings:?}");
    assert!(config.log.is_json);
    assert_eq!((config.log.level.as_str(), config.log.mode), ("WARNING", Some(0o644)));
    assert_eq!(config.log.loggers["patroni.ha"], "DEBUG");
    let (config, _) = build("log: {format: '[message, {asctime: time}]'}");
    assert_eq!(config.log.format, json!(["message", {"asctime": "time"}]));
}

#[test]
fn values_of_the_wrong_type_are_told_and_replaced() {
    let (config, findings) = build("log: 5\nrestapi: {allowlist: {a: b}, request_queue_size: many}\n");
    assert_eq!(config.restapi.request_queue_size, 5);
    assert_eq!(
        findings,
        [
            "restapi.request_queue_size 'many' is not an integer; the default is used (more.yml line 2)",
            "restapi.allowlist is not a list and is ignored (more.yml line 2)",
            "log '5' is not a mapping and is ignored (more.yml line 1)",
        ]
    );
}

#[test]
fn values_out_of_bounds_are_told_and_brought_inside() {
    let (config, findings) = build(
        "log: {mode: 4755, file_num: -1}\nrestapi: {request_queue_size: 5000}\n\
         watchdog: {safety_margin: -7, guard: maybe}\n",
    );
    assert_eq!((config.log.mode, config.log.file_num), (None, 0));
    assert_eq!((config.restapi.request_queue_size, config.watchdog.safety_margin), (4096, -1));
    assert_eq!(
        findings,
        [
            "restapi.request_queue_size '5000' is not from 0 to 4096; 4096 is used (more.yml line 2)",
            "log.mode '4755' is not from 0 to 511; the default is used (more.yml line 1)",
            "log.file_num '-1' is less than 0; 0 is used (more.yml line 1)",
            "watchdog.safety_margin '-7' is less than -1; -1 is used (more.yml line 3)",
            "watchdog.guard 'maybe' is not a boolean (true or false); true is used (more.yml line 3)",
        ]
    );
}

#[test]
fn the_order_of_findings_does_not_repeat_one() {
    let (_, findings) = build("log: {level: loud}\nlog: {level: loud}\n");
    assert_eq!(
        findings,
        [
            "log stands more than once in more.yml, in lines 1 and 2; the last one counts",
            "log.level stands more than once in more.yml, in lines 1 and 2; the last one counts",
            "log.level LOUD is unknown; INFO is used (more.yml line 2)",
        ]
    );
}

#[test]
fn bootstrap_needs_only_to_be_there() {
    let (config, _) = build("bootstrap:\n");
    assert_eq!(config.bootstrap, None, "null removes, as in every merge");
    let (config, findings) =
        build("bootstrap: {dcs: {ttl: 20}, post_init: x, initdb: [data-checksums], users: {a: {}}}");
    let bootstrap = config.bootstrap.unwrap();
    assert_eq!((bootstrap.method.as_str(), bootstrap.post_bootstrap.as_deref()), ("initdb", Some("x")));
    assert_eq!(bootstrap.dcs["ttl"], json!(20));
    assert!(findings[0].starts_with("bootstrap.users"), "{findings:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_document_panics(
        section in prop::sample::select(vec!["log", "restapi", "ctl", "tags", "watchdog", "bootstrap", "etcd3", "citus", "postgresql"]),
        key in prop::sample::select(vec!["level", "listen", "mode", "hosts", "url", "allowlist", "authentication", "dcs", "group", "format"]),
        value in crate::config::yaml::tests::value()
    ) {
        let Value::Object(mut document) = yaml::read(NODE).unwrap() else { unreachable!() };
        document.insert(section.to_owned(), json!({key: value.clone()}));
        let _ = LocalConfig::from_document(document.clone());
        document.insert(section.to_owned(), value);
        let _ = LocalConfig::from_document(document);
    }
}
