//! `PATRONI_*` variables as a document, and the whole made of files and variables.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::cluster::tags::as_boolish;

use super::finding::{ConfigError, Finding};
use super::merge;
use super::origin::Origins;
use super::parameters::units;
use super::yaml::{self, Places};

/// The environment, as a map.
pub type Environment = BTreeMap<String, String>;

const PREFIX: &str = "PATRONI_";
/// A whole YAML document in one variable.
const WHOLE: &str = "PATRONI_CONFIGURATION";

/// How a variable's text is read.
#[derive(Clone, Copy)]
enum As {
    Text,
    Flag,
    Integer,
    List,
    Map,
}

/// Variables with a place of their own: name without the prefix, path in the document, type.
const VARIABLES: &[(&str, &str, As)] = &[
    ("SCOPE", "scope", As::Text),
    ("NAME", "name", As::Text),
    ("NAMESPACE", "namespace", As::Text),
    ("THREAD_POOL_SIZE", "thread_pool_size", As::Integer),
    ("THREAD_STACK_SIZE", "thread_stack_size", As::Text),
    // The old names first, so that the new ones win.
    ("LOGLEVEL", "log.level", As::Text),
    ("LOGFORMAT", "log.format", As::Text),
    ("LOG_DATEFMT", "log.dateformat", As::Text),
    ("LOG_TYPE", "log.type", As::Text),
    ("LOG_LEVEL", "log.level", As::Text),
    ("LOG_TRACEBACK_LEVEL", "log.traceback_level", As::Text),
    ("LOG_FORMAT", "log.format", As::Text),
    ("LOG_DATEFORMAT", "log.dateformat", As::Text),
    ("LOG_STATIC_FIELDS", "log.static_fields", As::Map),
    ("LOG_MAX_QUEUE_SIZE", "log.max_queue_size", As::Integer),
    ("LOG_DIR", "log.dir", As::Text),
    ("LOG_MODE", "log.mode", As::Integer),
    ("LOG_FILE_SIZE", "log.file_size", As::Integer),
    ("LOG_FILE_NUM", "log.file_num", As::Integer),
    ("LOG_LOGGERS", "log.loggers", As::Map),
    ("LOG_DEDUPLICATE_HEARTBEAT_LOGS", "log.deduplicate_heartbeat_logs", As::Flag),
    ("RESTAPI_LISTEN", "restapi.listen", As::Text),
    ("RESTAPI_CONNECT_ADDRESS", "restapi.connect_address", As::Text),
    ("RESTAPI_USERNAME", "restapi.authentication.username", As::Text),
    ("RESTAPI_PASSWORD", "restapi.authentication.password", As::Text),
    ("RESTAPI_CERTFILE", "restapi.certfile", As::Text),
    ("RESTAPI_KEYFILE", "restapi.keyfile", As::Text),
    ("RESTAPI_KEYFILE_PASSWORD", "restapi.keyfile_password", As::Text),
    ("RESTAPI_CAFILE", "restapi.cafile", As::Text),
    ("RESTAPI_CIPHERS", "restapi.ciphers", As::Text),
    ("RESTAPI_VERIFY_CLIENT", "restapi.verify_client", As::Text),
    ("RESTAPI_ALLOWLIST", "restapi.allowlist", As::List),
    ("RESTAPI_ALLOWLIST_INCLUDE_MEMBERS", "restapi.allowlist_include_members", As::Flag),
    ("RESTAPI_HTTP_EXTRA_HEADERS", "restapi.http_extra_headers", As::Map),
    ("RESTAPI_HTTPS_EXTRA_HEADERS", "restapi.https_extra_headers", As::Map),
    ("RESTAPI_REQUEST_QUEUE_SIZE", "restapi.request_queue_size", As::Integer),
    ("RESTAPI_SERVER_TOKENS", "restapi.server_tokens", As::Text),
    ("CTL_USERNAME", "ctl.authentication.username", As::Text),
    ("CTL_PASSWORD", "ctl.authentication.password", As::Text),
    ("CTL_INSECURE", "ctl.insecure", As::Flag),
    ("CTL_CACERT", "ctl.cacert", As::Text),
    ("CTL_CERTFILE", "ctl.certfile", As::Text),
    ("CTL_KEYFILE", "ctl.keyfile", As::Text),
    ("CTL_KEYFILE_PASSWORD", "ctl.keyfile_password", As::Text),
    ("POSTGRESQL_LISTEN", "postgresql.listen", As::Text),
    ("POSTGRESQL_CONNECT_ADDRESS", "postgresql.connect_address", As::Text),
    ("POSTGRESQL_PROXY_ADDRESS", "postgresql.proxy_address", As::Text),
    ("POSTGRESQL_DATA_DIR", "postgresql.data_dir", As::Text),
    ("POSTGRESQL_CONFIG_DIR", "postgresql.config_dir", As::Text),
    ("POSTGRESQL_PGPASS", "postgresql.pgpass", As::Text),
    ("POSTGRESQL_BIN_DIR", "postgresql.bin_dir", As::Text),
    ("RAFT_SELF_ADDR", "raft.self_addr", As::Text),
    ("RAFT_BIND_ADDR", "raft.bind_addr", As::Text),
    ("RAFT_PARTNER_ADDRS", "raft.partner_addrs", As::List),
    ("RAFT_DATA_DIR", "raft.data_dir", As::Text),
    ("RAFT_PASSWORD", "raft.password", As::Text),
    ("CITUS_GROUP", "citus.group", As::Integer),
    ("CITUS_DATABASE", "citus.database", As::Text),
];

const PROGRAMS: [&str; 7] =
    ["pg_ctl", "initdb", "pg_controldata", "pg_basebackup", "postgres", "pg_isready", "pg_rewind"];
const USERS: [&str; 3] = ["superuser", "replication", "rewind"];

/// The keys below `postgresql.authentication.<user>`; others are dropped.
pub(super) const AUTHENTICATION_KEYS: [&str; 12] = [
    "username",
    "password",
    "sslmode",
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslrootcert",
    "sslcrl",
    "sslcrldir",
    "gssencmode",
    "channel_binding",
    "sslnegotiation",
];

/// What may follow `PATRONI_<SECTION>_`, whatever the section. PATRONI_RETRIABLE_HTTP_CODES without a section is
/// documented for Patroni but does not work there either.
const DCS_SUFFIXES: &[(&str, As)] = &[
    ("HOST", As::Text),
    ("HOSTS", As::List),
    ("PORT", As::Integer),
    ("USE_PROXIES", As::Flag),
    ("PROTOCOL", As::Text),
    ("SRV", As::Text),
    ("SRV_SUFFIX", As::Text),
    ("URL", As::Text),
    ("PROXY", As::Text),
    ("CACERT", As::Text),
    ("CERT", As::Text),
    ("KEY", As::Text),
    ("VERIFY", As::Flag),
    ("TOKEN", As::Text),
    ("CHECKS", As::List),
    ("DC", As::Text),
    ("CONSISTENCY", As::Text),
    ("REGISTER_SERVICE", As::Flag),
    ("SERVICE_CHECK_INTERVAL", As::Text),
    ("SERVICE_CHECK_TLS_SERVER_NAME", As::Text),
    ("SERVICE_TAGS", As::List),
    ("NAMESPACE", As::Text),
    ("CONTEXT", As::Text),
    ("USE_ENDPOINTS", As::Flag),
    ("SCOPE_LABEL", As::Text),
    ("ROLE_LABEL", As::Text),
    ("POD_IP", As::Text),
    ("PORTS", As::List),
    ("LABELS", As::Map),
    ("BYPASS_API_SERVICE", As::Flag),
    ("RETRIABLE_HTTP_CODES", As::List),
    ("KEY_PASSWORD", As::Text),
    ("USE_SSL", As::Text),
    ("SET_ACLS", As::Map),
    ("LEADER_LABEL_VALUE", As::Text),
    ("FOLLOWER_LABEL_VALUE", As::Text),
    ("STANDBY_LEADER_LABEL_VALUE", As::Text),
    ("TMP_ROLE_LABEL", As::Text),
    ("AUTH_DATA", As::Map),
    ("BOOTSTRAP_LABELS", As::Map),
];

/// The document that the variables make. Empty values count as unset; a value that cannot be read is left out with a
/// finding.
pub fn from_environment(environment: &Environment) -> (Map<String, Value>, Vec<Finding>) {
    let overlay = Overlay::read(environment);
    (overlay.document, overlay.findings)
}

/// A node's own configuration, merged, with the place of every setting.
#[derive(Clone, Debug, Default)]
pub struct Assembled {
    /// The merged document.
    pub document: Map<String, Value>,
    /// Where its settings stand.
    pub origins: Origins,
    /// What could not be used.
    pub findings: Vec<Finding>,
}

/// Makes one document of files (name for messages, text; later ones win) and variables. Without files the variable
/// PATRONI_CONFIGURATION stands for one, and then no other variable counts.
pub fn assemble(files: &[(String, String)], environment: &Environment) -> Result<Assembled, ConfigError> {
    let mut whole = Assembled::default();
    let instead = environment.get(WHOLE).filter(|text| files.is_empty() && !text.trim().is_empty());
    if let Some(text) = instead {
        whole.lay_over(WHOLE, text)?;
    } else {
        for (name, text) in files {
            whole.lay_over(name, text)?;
        }
        let overlay = Overlay::read(environment);
        merge::patch(&mut whole.document, &overlay.document);
        overlay.origins.iter().for_each(|(path, name)| whole.origins.add_variable(path, name));
        whole.findings.extend(overlay.findings);
    }
    if whole.document.is_empty() { Err(ConfigError::Empty) } else { Ok(whole) }
}

impl Assembled {
    fn lay_over(&mut self, name: &str, text: &str) -> Result<(), ConfigError> {
        let (map, places) = parse(name, text)?;
        merge::patch(&mut self.document, &map);
        for (path, first, last) in places.repeated {
            let message =
                format!("{path} stands more than once in {name}, in lines {first} and {last}; the last one counts");
            self.findings.push(Finding::warning("", message));
        }
        self.origins.add_file(name, places.lines);
        Ok(())
    }
}

/// The variables that [`assemble`] reads, and so keeps from the processes that an agent starts.
pub fn is_consumed(name: &str) -> bool {
    name.starts_with(PREFIX)
}

fn parse(name: &str, text: &str) -> Result<(Map<String, Value>, Places), ConfigError> {
    match yaml::read_with_places(text) {
        Ok((Value::Object(map), places)) => Ok((map, places)),
        Ok(_) => Err(ConfigError::NotAMap { name: name.to_owned() }),
        Err(cause) => Err(ConfigError::Yaml { name: name.to_owned(), cause }),
    }
}

struct Overlay<'a> {
    environment: &'a Environment,
    document: Map<String, Value>,
    findings: Vec<Finding>,
    /// Path and variable of each setting.
    origins: Vec<(String, String)>,
}

impl<'a> Overlay<'a> {
    fn read(environment: &'a Environment) -> Self {
        let mut overlay = Self { environment, document: Map::new(), findings: Vec::new(), origins: Vec::new() };
        for (name, path, kind) in VARIABLES {
            overlay.take(name, path, *kind);
        }
        for program in PROGRAMS {
            let name = format!("POSTGRESQL_BIN_{}", program.to_uppercase());
            overlay.take(&name, &format!("postgresql.bin_name.{program}"), As::Text);
        }
        for user in USERS {
            for key in AUTHENTICATION_KEYS {
                let name = format!("{}_{}", user.to_uppercase(), key.to_uppercase());
                overlay.take(&name, &format!("postgresql.authentication.{user}.{key}"), As::Text);
            }
        }
        overlay.take_dcs();
        overlay
    }

    fn take(&mut self, name: &str, path: &str, kind: As) {
        let name = format!("{PREFIX}{name}");
        let Some(text) = self.environment.get(&name).filter(|text| !text.is_empty()) else { return };
        match value(text, kind) {
            Ok(value) => {
                store(&mut self.document, path, value);
                self.origins.push((path.to_owned(), name));
            }
            Err(wanted) => {
                let message = format!("the variable {name} is ignored: it is not {wanted}");
                self.findings.push(Finding::warning("", message));
            }
        }
    }

    fn take_dcs(&mut self) {
        let names: Vec<String> =
            self.environment.keys().filter_map(|name| Some(name.strip_prefix(PREFIX)?.to_owned())).collect();
        for name in names {
            let Some((section, suffix)) = name.split_once('_') else { continue };
            let Some((_, kind)) = DCS_SUFFIXES.iter().find(|(known, _)| *known == suffix) else { continue };
            if section.is_empty() || section == "CITUS" {
                continue;
            }
            self.take(&name, &format!("{}.{}", section.to_lowercase(), suffix.to_lowercase()), *kind);
        }
        for section in ["etcd", "etcd3"] {
            if self.document.contains_key(section) {
                for key in ["username", "password"] {
                    let name = format!("{}_{}", section.to_uppercase(), key.to_uppercase());
                    self.take(&name, &format!("{section}.{key}"), As::Text);
                }
            }
        }
    }
}

fn value(text: &str, kind: As) -> Result<Value, &'static str> {
    match kind {
        As::Text => Ok(Value::from(text)),
        As::Flag => as_boolish(&Value::from(text)).map(Value::from).ok_or("a boolean"),
        As::Integer => units::integer(text, None).map(Value::from).ok_or("an integer"),
        As::List => {
            let is_complete = text.trim().starts_with('-') || text.contains('[');
            let text = if is_complete { text.to_owned() } else { format!("[{text}]") };
            yaml::read(&text).ok().filter(Value::is_array).ok_or("a YAML list")
        }
        As::Map => {
            let text = if text.trim().starts_with('{') { text.to_owned() } else { format!("{{{text}}}") };
            yaml::read(&text).ok().filter(Value::is_object).ok_or("a YAML mapping")
        }
    }
}

fn store(document: &mut Map<String, Value>, path: &str, value: Value) {
    let (parents, key) = path.rsplit_once('.').unwrap_or(("", path));
    let mut map = document;
    for parent in parents.split('.').filter(|parent| !parent.is_empty()) {
        let entry = map.entry(parent).or_insert_with(|| Value::Object(Map::new()));
        match entry {
            Value::Object(inner) => map = inner,
            // Paths of the tables above never lead through a leaf; a section named by the environment could.
            _ => return,
        }
    }
    map.insert(key.to_owned(), value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn read(pairs: &[(&str, &str)]) -> Value {
        let (document, findings) = from_environment(&environment(pairs));
        assert_eq!(findings, [], "nothing to complain about");
        Value::Object(document)
    }

    #[test]
    fn variables_find_their_places_and_types() {
        let document = read(&[
            ("PATRONI_SCOPE", "demo"),
            ("PATRONI_NAME", ""),
            ("PATRONI_LOGLEVEL", "INFO"),
            ("PATRONI_LOG_LEVEL", "DEBUG"),
            ("PATRONI_LOG_LOGGERS", "patroni.ha: DEBUG"),
            ("PATRONI_RESTAPI_USERNAME", "u"),
            ("PATRONI_RESTAPI_ALLOWLIST", "127.0.0.1,'::1'"),
            ("PATRONI_POSTGRESQL_BIN_PG_CTL", "my_ctl"),
            ("PATRONI_SUPERUSER_USERNAME", "postgres"),
            ("PATRONI_REPLICATION_SSLMODE", "require"),
            ("PATRONI_ETCD3_HOSTS", "'h1:2379','h2:2379'"),
            ("PATRONI_ETCD3_USE_PROXIES", "on"),
            ("PATRONI_ETCD3_PASSWORD", "secret"),
            ("PATRONI_CONSUL_SCHEME", "https"),
            ("PATRONI_KUBERNETES_LABELS", "{app: patroni}"),
            ("PATRONI_CITUS_GROUP", "0"),
            ("PATRONI_CITUS_HOST", "no"),
            ("OTHER_HOST", "no"),
        ]);
        assert_eq!(
            document,
            json!({
                "scope": "demo",
                "log": {"level": "DEBUG", "loggers": {"patroni.ha": "DEBUG"}},
                "restapi": {"authentication": {"username": "u"}, "allowlist": ["127.0.0.1", "::1"]},
                "postgresql": {
                    "bin_name": {"pg_ctl": "my_ctl"},
                    "authentication": {"superuser": {"username": "postgres"}, "replication": {"sslmode": "require"}},
                },
                "etcd3": {"hosts": ["h1:2379", "h2:2379"], "use_proxies": true, "password": "secret"},
                "kubernetes": {"labels": {"app": "patroni"}},
                "citus": {"group": 0},
            })
        );
    }

    #[test]
    fn credentials_alone_make_no_etcd_section() {
        assert_eq!(read(&[("PATRONI_ETCD3_USERNAME", "u")]), json!({}));
    }

    #[test]
    fn what_cannot_be_read_is_left_out_with_a_finding() {
        let (document, findings) =
            from_environment(&environment(&[("PATRONI_LOG_FILE_NUM", "many"), ("PATRONI_CTL_INSECURE", "maybe")]));
        assert!(document.is_empty());
        let messages: Vec<_> = findings.iter().map(|finding| finding.message.as_str()).collect();
        assert_eq!(
            messages,
            [
                "the variable PATRONI_LOG_FILE_NUM is ignored: it is not an integer",
                "the variable PATRONI_CTL_INSECURE is ignored: it is not a boolean"
            ]
        );
    }

    #[test]
    fn files_then_variables() {
        let files = [
            ("a.yml".to_owned(), "scope: a\nrestapi: {listen: x, certfile: y}\n".to_owned()),
            ("b.yml".to_owned(), "scope: b\nrestapi: {certfile: null}\n".to_owned()),
        ];
        let variables = environment(&[("PATRONI_SCOPE", "c"), (WHOLE, "scope: d")]);
        let document = assemble(&files, &variables).unwrap().document;
        assert_eq!(Value::Object(document), json!({"scope": "c", "restapi": {"listen": "x"}}));
        let document = assemble(&[], &variables).unwrap().document;
        assert_eq!(Value::Object(document), json!({"scope": "d"}), "the whole document excludes other variables");
    }

    #[test]
    fn errors_name_the_file() {
        let file = |text: &str| [("node.yml".to_owned(), text.to_owned())];
        let none = Environment::new();
        assert_eq!(assemble(&[], &none).unwrap_err(), ConfigError::Empty);
        assert_eq!(assemble(&file("- a\n"), &none).unwrap_err(), ConfigError::NotAMap { name: "node.yml".to_owned() });
        let error = assemble(&file("a: [\n"), &none).unwrap_err().to_string();
        assert!(error.starts_with("invalid config file node.yml: line "), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_variable_panics(
            variables in prop::collection::btree_map("PATRONI_(ETCD3|LOG|A_B|__|RESTAPI)_[A-Z_]{0,8}(HOSTS|LABELS|PORT)?", ".{0,12}", 0..6)
        ) {
            let _ = from_environment(&variables);
        }
    }
}
