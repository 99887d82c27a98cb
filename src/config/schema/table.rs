//! The table: every key that is checked, in the order in which problems are told.

/// One line of a section.
pub(super) enum Entry {
    /// The key must be there.
    Must(&'static str, Rule),
    /// The key may be there.
    May(&'static str, Rule),
    /// Checked even when absent, as an empty text.
    OrEmpty(&'static str, Rule),
    /// At least one of these.
    AnyOf(&'static [(&'static str, Rule)]),
    /// One of these two at most.
    OneAtMost(&'static [(&'static str, Rule); 2]),
}

/// What a value must be.
pub(super) enum Rule {
    Text,
    Flag,
    /// An integer as such, not as text.
    Number,
    /// Any mapping.
    Mapping,
    Integer(Integer),
    /// One of these words; `any_case` otherwise as they are.
    OneOf {
        words: &'static [&'static str],
        any_case: bool,
    },
    Section(&'static [Entry]),
    List(&'static Rule),
    /// A text, or a mapping.
    TextOrMapping,
    /// An integer, or a list of integers.
    NumberOrList,
    LogFormat,
    WatchdogMode,
    SynchronousMode,
    /// `host:port` that others can use.
    ConnectAddress,
    /// `host:port` to listen on.
    Listen,
    /// `host,host:port` to listen on.
    ListenOnSeveral,
    /// `host:port` that answers.
    Reachable,
    /// A list of them.
    ReachableList,
    /// A list of them, or a text with commas.
    ReachableHosts,
    DataDirectory,
    Program,
    Programs,
    IpAddress,
}

/// Bounds of an integer.
#[derive(Clone, Copy)]
pub(super) struct Integer {
    pub(super) min: Option<i64>,
    pub(super) max: Option<i64>,
    pub(super) unit: Option<&'static str>,
    /// A number must be written as one; otherwise a text with digits will do.
    pub(super) is_strict: bool,
    pub(super) multiple_of: i64,
}

use Entry::{AnyOf, May, Must, OneAtMost, OrEmpty};
use Rule::{Flag, List, Mapping, Number, Section, Text};

const ANY: Integer = Integer { min: None, max: None, unit: None, is_strict: false, multiple_of: 1 };
const STRICT: Integer = Integer { is_strict: true, ..ANY };

const fn from(min: i64) -> Rule {
    Rule::Integer(Integer { min: Some(min), ..ANY })
}

const fn within(min: i64, max: i64) -> Rule {
    Rule::Integer(Integer { min: Some(min), max: Some(max), ..ANY })
}

const fn strictly_from(min: i64) -> Rule {
    Rule::Integer(Integer { min: Some(min), ..STRICT })
}

const fn strictly_within(min: i64, max: i64) -> Rule {
    Rule::Integer(Integer { min: Some(min), max: Some(max), ..STRICT })
}

const fn words(words: &'static [&'static str]) -> Rule {
    Rule::OneOf { words, any_case: false }
}

const PORT: Rule = Rule::Integer(Integer { max: Some(65535), ..STRICT });
const STACK_SIZE: Rule =
    Rule::Integer(Integer { min: Some(65536), unit: Some("B"), multiple_of: 65536, is_strict: true, ..ANY });
const SECONDS: Rule = Rule::Integer(Integer { min: Some(0), unit: Some("s"), ..ANY });
const USER: Rule = Section(&[Must("username", Text), May("password", Text)]);

pub(super) const TOP: &[Entry] = &[
    Must("name", Text),
    Must("scope", Text),
    May("thread_pool_size", strictly_from(5)),
    May("thread_stack_size", STACK_SIZE),
    May("log", Section(LOG)),
    May("ctl", Section(CTL)),
    Must("restapi", Section(RESTAPI)),
    May("bootstrap", Section(BOOTSTRAP)),
    AnyOf(DCS),
    May("citus", Section(&[Must("database", Text), Must("group", strictly_from(0))])),
    Must("postgresql", Section(POSTGRESQL)),
    May("watchdog", Section(WATCHDOG)),
    May("tags", Section(TAGS)),
];

const LOG: &[Entry] = &[
    May("type", words(&["plain", "json"])),
    May("level", words(&["DEBUG", "INFO", "WARN", "WARNING", "ERROR", "FATAL", "CRITICAL"])),
    May("traceback_level", Rule::OneOf { words: &["DEBUG", "ERROR"], any_case: true }),
    May("format", Rule::LogFormat),
    May("dateformat", Text),
    May("static_fields", Mapping),
    May("max_queue_size", Number),
    May("dir", Text),
    May("file_num", Number),
    May("file_size", Number),
    May("mode", strictly_within(0, 511)),
    May("loggers", Mapping),
    May("deduplicate_heartbeat_logs", Flag),
];

const CTL: &[Entry] = &[
    May("insecure", Flag),
    May("cacert", Text),
    May("certfile", Text),
    May("keyfile", Text),
    May("keyfile_password", Text),
];

const RESTAPI: &[Entry] = &[
    May("thread_pool_size", strictly_from(5)),
    Must("listen", Rule::Listen),
    Must("connect_address", Rule::ConnectAddress),
    May("authentication", Section(&[Must("username", Text), Must("password", Text)])),
    May("certfile", Text),
    May("keyfile", Text),
    May("keyfile_password", Text),
    May("cafile", Text),
    May("ciphers", Text),
    May("verify_client", words(&["none", "optional", "required"])),
    May("allowlist", List(&Text)),
    May("allowlist_include_members", Flag),
    May("http_extra_headers", Mapping),
    May("https_extra_headers", Mapping),
    May("request_queue_size", strictly_within(0, 4096)),
    May("server_tokens", Rule::OneOf { words: &["minimal", "productonly", "original"], any_case: true }),
];

const BOOTSTRAP: &[Entry] =
    &[Must("dcs", Section(DYNAMIC)), May("initdb", List(&Rule::TextOrMapping)), May("method", Text)];

/// The timing has the bounds of a cluster in which every member is ours; what Patroni makes of it is told as a warning.
const DYNAMIC: &[Entry] = &[
    May("ttl", from(5)),
    May("loop_wait", from(1)),
    May("retry_timeout", from(1)),
    May("maximum_lag_on_failover", from(0)),
    May("maximum_lag_on_syncnode", from(-1)),
    May("member_slots_ttl", SECONDS),
    May("postgresql", Section(SHARED_POSTGRESQL)),
    May("primary_start_timeout", from(0)),
    May("primary_stop_timeout", from(0)),
    May("standby_cluster", Section(STANDBY_CLUSTER)),
    May("synchronous_mode", Rule::SynchronousMode),
    May("synchronous_mode_strict", Flag),
    May("synchronous_node_count", from(1)),
];

const SHARED_POSTGRESQL: &[Entry] = &[
    May("parameters", Section(SHARED_PARAMETERS)),
    May("use_pg_rewind", Flag),
    May("pg_hba", List(&Text)),
    May("pg_ident", List(&Text)),
    May("pg_ctl_timeout", from(0)),
    May("use_slots", Flag),
];

const SHARED_PARAMETERS: &[Entry] = &[
    May("max_connections", within(1, 262_143)),
    May("max_locks_per_transaction", within(10, 2_147_483_647)),
    May("max_prepared_transactions", within(0, 262_143)),
    May("max_replication_slots", within(0, 262_143)),
    May("max_wal_senders", within(0, 262_143)),
    May("max_worker_processes", within(0, 262_143)),
];

const STANDBY_CLUSTER: &[Entry] = &[
    AnyOf(&[("host", Text), ("port", PORT), ("restore_command", Text)]),
    May("primary_slot_name", Text),
    May("create_replica_methods", List(&Text)),
    May("archive_cleanup_command", Text),
    May("recovery_min_apply_delay", Text),
];

const DCS: &[(&str, Rule)] = &[
    ("consul", Section(CONSUL)),
    ("etcd", Section(ETCD)),
    ("etcd3", Section(ETCD)),
    ("exhibitor", Section(EXHIBITOR)),
    ("kubernetes", Section(KUBERNETES)),
    ("raft", Section(RAFT)),
    ("zookeeper", Section(ZOOKEEPER)),
];

/// The sections that name a DCS, in order.
pub fn known_dcs() -> impl Iterator<Item = &'static str> {
    DCS.iter().map(|(name, _)| *name)
}

const CONSUL: &[Entry] = &[
    AnyOf(&[("host", Rule::Reachable), ("url", Text)]),
    May("port", PORT),
    May("scheme", Text),
    May("token", Text),
    May("verify", Flag),
    May("cacert", Text),
    May("cert", Text),
    May("key", Text),
    May("dc", Text),
    May("checks", List(&Text)),
    May("register_service", Flag),
    May("service_tags", List(&Text)),
    May("service_check_interval", Text),
    May("service_check_tls_server_name", Text),
    May("consistency", words(&["default", "consistent", "stale"])),
];

const ETCD: &[Entry] = &[
    AnyOf(&[
        ("host", Rule::Reachable),
        ("hosts", Rule::ReachableHosts),
        ("srv", Text),
        ("srv_suffix", Text),
        ("url", Text),
        ("proxy", Text),
    ]),
    May("protocol", Text),
    May("username", Text),
    May("password", Text),
    May("cacert", Text),
    May("cert", Text),
    May("key", Text),
];

const EXHIBITOR: &[Entry] = &[Must("hosts", List(&Text)), Must("port", PORT), May("poll_interval", strictly_from(1))];

const RAFT: &[Entry] = &[
    Must("self_addr", Rule::ConnectAddress),
    May("bind_addr", Rule::Listen),
    Must("partner_addrs", Rule::ReachableList),
    May("data_dir", Text),
    May("password", Text),
];

const ZOOKEEPER: &[Entry] = &[
    Must("hosts", Rule::ReachableHosts),
    May("use_ssl", Flag),
    May("cacert", Text),
    May("cert", Text),
    May("key", Text),
    May("key_password", Text),
    May("verify", Flag),
    May("set_acls", Mapping),
    May("auth_data", Mapping),
];

const KUBERNETES: &[Entry] = &[
    Must("labels", Mapping),
    May("bypass_api_service", Flag),
    May("namespace", Text),
    May("scope_label", Text),
    May("role_label", Text),
    May("leader_label_value", Text),
    May("follower_label_value", Text),
    May("standby_leader_label_value", Text),
    May("tmp_role_label", Text),
    May("use_endpoints", Flag),
    May("pod_ip", Rule::IpAddress),
    May("ports", List(&Section(&[Must("name", Text), Must("port", PORT)]))),
    May("cacert", Text),
    May("retriable_http_codes", Rule::NumberOrList),
    May("bootstrap_labels", Mapping),
];

const POSTGRESQL: &[Entry] = &[
    Must("listen", Rule::ListenOnSeveral),
    Must("connect_address", Rule::ConnectAddress),
    May("proxy_address", Rule::ConnectAddress),
    Must("authentication", Section(&[Must("replication", USER), Must("superuser", USER), May("rewind", USER)])),
    Must("data_dir", Rule::DataDirectory),
    May("bin_name", Section(BIN_NAME)),
    OrEmpty("bin_dir", Rule::Programs),
    May("parameters", Section(&[May("unix_socket_directories", Text)])),
    May("pg_hba", List(&Text)),
    May("pg_ident", List(&Text)),
    May("pg_ctl_timeout", from(0)),
    May("use_pg_rewind", Flag),
];

const BIN_NAME: &[Entry] = &[
    May("pg_ctl", Rule::Program),
    May("initdb", Rule::Program),
    May("pg_controldata", Rule::Program),
    May("pg_basebackup", Rule::Program),
    May("postgres", Rule::Program),
    May("pg_isready", Rule::Program),
    May("pg_rewind", Rule::Program),
];

/// What must be among the programs; `pg_rewind` is only needed when it is used.
pub(super) const NEEDED_PROGRAMS: [&str; 6] =
    ["pg_ctl", "initdb", "pg_controldata", "pg_basebackup", "postgres", "pg_isready"];

const WATCHDOG: &[Entry] =
    &[May("mode", Rule::WatchdogMode), May("device", Text), May("safety_margin", strictly_from(-1))];

const TAGS: &[Entry] = &[
    OneAtMost(&[("nofailover", Flag), ("failover_priority", strictly_from(0))]),
    May("clonefrom", Flag),
    May("noloadbalance", Flag),
    May("replicatefrom", Text),
    OneAtMost(&[("nosync", Flag), ("sync_priority", strictly_from(0))]),
    May("nostream", Flag),
];

impl Rule {
    /// What would be right, for someone who wrote something else.
    pub(super) fn wanted(&self) -> String {
        match self {
            Self::Text => "a text; quote it if it looks like something else".to_owned(),
            Self::Flag => "true or false, without quotes".to_owned(),
            Self::Number => "an integer, without quotes".to_owned(),
            Self::Mapping | Self::Section(_) => "`key: value` lines".to_owned(),
            Self::Integer(bounds) => bounds.wanted(),
            Self::OneOf { words, .. } => format!("one of {}", words.join(", ")),
            Self::List(item) => format!("a list, each item {}", item.wanted()),
            Self::TextOrMapping => "a text or `key: value`".to_owned(),
            Self::NumberOrList => "an integer or a list of integers".to_owned(),
            Self::LogFormat => "a text, or a list of field names and of `field: new name`".to_owned(),
            Self::WatchdogMode => "one of off, automatic, required".to_owned(),
            Self::SynchronousMode => "true, false or quorum".to_owned(),
            Self::ConnectAddress => "host:port as other members reach it, the port from 0 to 65535".to_owned(),
            Self::Listen => "host:port, the port free and from 0 to 65535".to_owned(),
            Self::ListenOnSeveral => "host:port or host,host:port, the port free and from 0 to 65535".to_owned(),
            Self::Reachable => "host:port of a running server, the port from 0 to 65535".to_owned(),
            Self::ReachableList => "a list of host:port of running servers".to_owned(),
            Self::ReachableHosts => "host:port of running servers, as a list or separated by commas".to_owned(),
            Self::DataDirectory => "the path of a PostgreSQL data directory, or of one to be made".to_owned(),
            Self::Program => "the name of a program in bin_dir".to_owned(),
            Self::Programs => format!("a directory with {}", NEEDED_PROGRAMS.join(", ")),
            Self::IpAddress => "an IP address".to_owned(),
        }
    }
}

impl Integer {
    fn wanted(&self) -> String {
        let range = match (self.min, self.max) {
            (Some(min), Some(max)) => format!("from {min} to {max}"),
            (Some(min), None) => format!("of at least {min}"),
            (None, Some(max)) => format!("of at most {max}"),
            (None, None) => String::new(),
        };
        let multiple =
            if self.multiple_of > 1 { format!(", a multiple of {}", self.multiple_of) } else { String::new() };
        let quotes = if self.is_strict { ", without quotes" } else { "" };
        format!("an integer {range}{multiple}{quotes}")
    }
}
