use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::config::Credentials;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A configuration with nothing special in it.
pub(crate) fn config(parameters: &[(&str, &str)]) -> PostgresConfig {
    let user = |name: &str| Credentials { username: Some(name.to_owned()), ..Credentials::default() };
    PostgresConfig {
        name: "n0".into(),
        scope: "demo".to_owned(),
        listen_addresses: "127.0.0.1".to_owned(),
        port: 5432,
        connect_address: "127.0.0.1:5432".to_owned(),
        proxy_address: None,
        data_dir: "/data".to_owned(),
        config_dir: "/etc/pg".to_owned(),
        config_base_name: "postgresql".to_owned(),
        bin_dir: String::new(),
        bin_name: BTreeMap::new(),
        database: "postgres".to_owned(),
        pgpass: Some("/tmp/pgpass".to_owned()),
        superuser: user("postgres"),
        replication: user("replicator"),
        rewind: None,
        parameters: map(parameters),
        pg_hba: None,
        pg_ident: None,
        custom_conf: None,
        recovery_conf: BTreeMap::new(),
        create_replica_methods: Vec::new(),
        standby_methods: None,
        methods: BTreeMap::new(),
        basebackup: Value::Null,
        rewind_options: Value::Null,
        callbacks: BTreeMap::new(),
        pre_promote: None,
        before_stop: None,
        use_pg_rewind: false,
        remove_data_directory_on_rewind_failure: false,
        remove_data_directory_on_diverged_timelines: false,
        use_unix_socket: false,
        use_unix_socket_repl: false,
        pg_ctl_timeout: Duration::from_secs(60),
        krbsrvname: None,
        use_slots: true,
    }
}

#[test]
fn fitted_to_the_version() {
    let config = config(&[
        ("wal_keep_segments", "10"),
        ("wal_level", "hot_standby"),
        ("Recovery_Target", "immediate"),
        ("port", "1"),
        ("work_mem", "1kB"),
        ("autovacuum", "perhaps"),
        ("pg_stat_statements.max", "5"),
        ("no_such_thing", "1"),
        ("a_new_thing", "1"),
    ]);
    let mut fitted = effective(&config, 150_018, None);
    fitted.keep_known(&["a_new_thing".to_owned()].into());
    let expected = map(&[
        ("a_new_thing", "1"),
        ("cluster_name", "demo"),
        ("listen_addresses", "127.0.0.1"),
        ("pg_stat_statements.max", "5"),
        ("port", "5432"),
        ("wal_keep_size", "160MB"),
        ("wal_level", "replica"),
        ("work_mem", "64"),
    ]);
    assert_eq!(fitted.parameters, expected);
    let warnings = [
        "Removing bool parameter=autovacuum from the config due to the invalid value=perhaps",
        "Value=1kB of parameter=work_mem is too low, increasing to 64kB",
        "Removing unexpected parameter=no_such_thing value=1 from the config",
    ];
    assert_eq!(fitted.warnings, warnings);
}

#[test]
fn managed_standbys_win() {
    let config = config(&[(SYNCHRONOUS, "*")]);
    assert_eq!(effective(&config, 150_000, Some("\"a\"")).parameters[SYNCHRONOUS], "\"a\"");
    assert_eq!(effective(&config, 150_000, None).parameters[SYNCHRONOUS], "*");
}

#[test]
fn a_standby_has_at_least_what_its_data_needs() {
    let report = Report::parse(
        "max_connections setting: 200\nmax_worker_processes setting: 8\nmax_wal_senders setting: 10\n\
         max_prepared_xacts setting: 0\n",
    );
    let config = config(&[("max_connections", "100"), ("max_worker_processes", "16"), ("max_wal_senders", "10")]);
    let mut wanted = effective(&config, 150_000, None).parameters;
    let pending = raise_for_standby(&mut wanted, &report);
    assert_eq!((wanted["max_connections"].as_str(), wanted["max_worker_processes"].as_str()), ("200", "16"));
    let value = PendingValue { old_value: "200".to_owned(), new_value: "100".to_owned() };
    assert_eq!(pending, [("max_connections".to_owned(), value)].into());
}

#[test]
fn the_command_line_keeps_its_order() {
    let config = config(&[("max_connections", "100"), ("wal_log_hints", "on"), ("work_mem", "4MB")]);
    let wanted = effective(&config, 150_000, None).parameters;
    let args = command_line(&config, Path::new("/etc/pg/postgresql.conf"), &wanted);
    let expected = [
        "-D",
        "/data",
        "--config-file=/etc/pg/postgresql.conf",
        "--listen_addresses=127.0.0.1",
        "--port=5432",
        "--cluster_name=demo",
        "--max_connections=100",
        "--wal_log_hints=on",
    ];
    assert_eq!(args, expected);
}
