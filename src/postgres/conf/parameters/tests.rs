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
        ("hba_file", "my_hba.conf"),
        ("Recovery_Target", "immediate"),
        ("port", "1"),
    ]);
    let expected = map(&[
        ("cluster_name", "demo"),
        ("hba_file", "/etc/pg/my_hba.conf"),
        ("listen_addresses", "127.0.0.1"),
        ("port", "5432"),
        ("wal_keep_size", "160MB"),
        ("wal_level", "replica"),
    ]);
    assert_eq!(effective(&config, 150_000, None), expected);
    let old = effective(&config, 120_000, None);
    assert_eq!((old["wal_keep_segments"].as_str(), old.get("wal_keep_size")), ("10", None));
}

#[test]
fn how_much_wal_is_kept_is_translated_both_ways() {
    assert_eq!(effective(&config(&[]), 150_000, None)["wal_keep_size"], "128MB");
    assert_eq!(effective(&config(&[("wal_keep_size", "1GB")]), 150_000, None)["wal_keep_size"], "1GB");
    assert_eq!(effective(&config(&[("wal_keep_size", "1GB")]), 120_000, None)["wal_keep_segments"], "64");
}

#[test]
fn managed_standbys_win() {
    let config = config(&[(SYNCHRONOUS, "*")]);
    assert_eq!(effective(&config, 150_000, Some("\"a\""))[SYNCHRONOUS], "\"a\"");
    assert_eq!(effective(&config, 150_000, None)[SYNCHRONOUS], "*");
}

#[test]
fn a_standby_has_at_least_what_its_data_needs() {
    let report = Report::parse(
        "max_connections setting: 200\nmax_worker_processes setting: 8\nmax_wal_senders setting: 10\n\
         max_prepared_xacts setting: 0\n",
    );
    let config = config(&[("max_connections", "100"), ("max_worker_processes", "16"), ("max_wal_senders", "10")]);
    let mut wanted = effective(&config, 150_000, None);
    let pending = raise_for_standby(&mut wanted, &report);
    assert_eq!((wanted["max_connections"].as_str(), wanted["max_worker_processes"].as_str()), ("200", "16"));
    let value = PendingValue { old_value: "200".to_owned(), new_value: "100".to_owned() };
    assert_eq!(pending, [("max_connections".to_owned(), value)].into());
}

#[test]
fn the_command_line_keeps_its_order() {
    let config = config(&[("max_connections", "100"), ("wal_log_hints", "on"), ("work_mem", "4MB")]);
    let wanted = effective(&config, 150_000, None);
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
