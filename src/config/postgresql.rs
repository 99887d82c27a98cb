//! The effective `postgresql` section: defaults, then the dynamic configuration, then the local file.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::cluster::MemberName;
use crate::cluster::tags::is_truthy;

use super::address::{join_host_port, split_host_port};
use super::dynamic::StandbyCluster;
use super::finding::{ConfigError, Finding};
use super::local::LocalConfig;
use super::parameters::{self, canonical_name, is_controlled, is_recovery_parameter};
use super::reader::{Findings, Section};
use super::secret::Secret;

/// Everything the server's adapter needs to know. Built from local and dynamic configuration together; a change of
/// either makes a new one.
#[derive(Clone, Debug, PartialEq)]
pub struct PostgresConfig {
    /// The member's name: `application_name` and slot.
    pub name: MemberName,
    /// The cluster's name: `cluster_name`.
    pub scope: String,
    /// `listen`: addresses.
    pub listen_addresses: String,
    /// `listen`: port.
    pub port: u16,
    /// `host:port` published for others; falls back to the local TCP address.
    pub connect_address: String,
    /// `proxy_address`.
    pub proxy_address: Option<String>,
    /// Data directory.
    pub data_dir: String,
    /// Directory of the configuration files; the data directory by default.
    pub config_dir: String,
    /// Base name of the configuration files.
    pub config_base_name: String,
    /// Directory of the programs; empty means PATH, then the system's versioned directories.
    pub bin_dir: String,
    /// Other names of programs.
    pub bin_name: BTreeMap<String, String>,
    /// Database of our own connections.
    pub database: String,
    /// Path of the pgpass file we write.
    pub pgpass: Option<String>,
    /// Superuser.
    pub superuser: Credentials,
    /// Replication user.
    pub replication: Credentials,
    /// Rewind user; the superuser when absent.
    pub rewind: Option<Credentials>,
    /// Wanted parameters: dynamic and local merged, controlled ones validated and present. Text as it goes into the
    /// file.
    pub parameters: BTreeMap<String, String>,
    /// Lines of `pg_hba.conf`, if managed.
    pub pg_hba: Option<Vec<String>>,
    /// Lines of `pg_ident.conf`, if managed.
    pub pg_ident: Option<Vec<String>>,
    /// Included instead of the base configuration file.
    pub custom_conf: Option<String>,
    /// Recovery parameters.
    pub recovery_conf: BTreeMap<String, String>,
    /// Replica creation methods in order.
    pub create_replica_methods: Vec<String>,
    /// The same of the standby cluster that this node is a member of, if it is of one.
    pub standby_methods: Option<Vec<String>>,
    /// Sections of custom methods.
    pub methods: BTreeMap<String, Map<String, Value>>,
    /// Options of `pg_basebackup`, list or map.
    pub basebackup: Value,
    /// Options of `pg_rewind`, list or map.
    pub rewind_options: Value,
    /// Scripts by event name (`on_start`, …).
    pub callbacks: BTreeMap<String, String>,
    /// Run before a promotion.
    pub pre_promote: Option<String>,
    /// Run before a stop.
    pub before_stop: Option<String>,
    /// Rewind a diverged former leader.
    pub use_pg_rewind: bool,
    /// Re-clone when rewind failed.
    pub remove_data_directory_on_rewind_failure: bool,
    /// Re-clone instead of rewinding.
    pub remove_data_directory_on_diverged_timelines: bool,
    /// Our own connections use the socket.
    pub use_unix_socket: bool,
    /// Replication connections use the socket.
    pub use_unix_socket_repl: bool,
    /// How long a start may take before it counts as slow.
    pub pg_ctl_timeout: Duration,
    /// Kerberos service name.
    pub krbsrvname: Option<String>,
    /// Member slots are used.
    pub use_slots: bool,
}

/// One user's way in, as libpq keywords.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Credentials {
    /// User name.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// The rest (`sslmode`, `sslcert`, …), by libpq keyword.
    pub options: BTreeMap<String, String>,
}

const DEFAULT_PORT: u16 = 5432;

/// Keys that only a node's own file may set.
const LOCAL_ONLY: [&str; 7] =
    ["connect_address", "proxy_address", "listen", "config_dir", "data_dir", "pgpass", "authentication"];

/// Sections that are not replica creation methods.
const NOT_METHODS: [&str; 8] =
    ["parameters", "authentication", "callbacks", "bin_name", "recovery_conf", "basebackup", "rewind", "pg_rewind"];

impl PostgresConfig {
    /// The connection URL that others are told, without credentials.
    pub fn conn_url(&self) -> String {
        format!("postgres://{}/{}", self.connect_address, self.database)
    }

    /// The same through the proxy, if there is one.
    pub fn proxy_url(&self) -> Option<String> {
        Some(format!("postgres://{}/{}", self.proxy_address.as_ref()?, self.database))
    }

    /// The methods that make a replica without a leader to copy from, in order.
    pub fn leaderless_methods(&self) -> Vec<String> {
        let needs_none = |method: &&String| {
            let section = self.methods.get(*method).filter(|_| *method != "basebackup");
            section.and_then(|section| section.get("no_leader")).is_some_and(is_truthy)
        };
        let configured = self.standby_methods.as_ref().unwrap_or(&self.create_replica_methods);
        configured.iter().filter(needs_none).cloned().collect()
    }

    /// Makes the effective configuration of the server: defaults, then the dynamic document, then the node's own file.
    ///
    /// Parameters are merged one by one, every other key of the file replaces the dynamic one. Parameters under the
    /// cluster's control come from the dynamic document alone; `use_slots` too. Errs when the dynamic `postgresql`
    /// section has no usable shape (then the configuration from before stays in force) or an address is none.
    pub fn build(local: &LocalConfig, dynamic: &Map<String, Value>) -> Result<(Self, Vec<Finding>), ConfigError> {
        let own = section_of(&local.document, "the configuration file")?;
        let shared = section_of(dynamic, "the dynamic configuration")?;
        let shared_parameters = parameters_of(shared)?;
        let own_parameters = parameters_of(own)?;
        let effective = effective(shared, own);
        let findings = Findings::default();
        let top = Section::top(&effective, &findings);
        let section = top.section("postgresql");
        let mut config = Self::read(local, &section)?;

        let mut found = Vec::new();
        // Whoever reads the settings of the cluster has said what is wrong with them.
        let said = Findings::default();
        let top = Section::top(dynamic, &said);
        config.standby_methods =
            StandbyCluster::read(&top.section("standby_cluster")).map(|standby| standby.create_replica_methods);
        config.parameters = parameters::with_defaults(shared_parameters, &mut found);
        found.into_iter().for_each(|finding| findings.add(finding));
        for map in [shared_parameters, own_parameters] {
            add_parameters(&mut config.parameters, map, &section.section("parameters"));
        }
        config.settle();
        Ok((config, findings.into_vec()))
    }

    fn read(local: &LocalConfig, section: &Section<'_>) -> Result<Self, ConfigError> {
        let (listen_addresses, port) = listen(section)?;
        let data_dir = required(section, "data_dir")?;
        let authentication = section.section("authentication");
        let connect_address = match address(section, "connect_address")? {
            Some(address) => address,
            None => join_host_port(local_host(&listen_addresses), port),
        };
        let methods = section.map().into_iter().flatten().filter_map(|(name, value)| {
            let method = value.as_object().filter(|_| !NOT_METHODS.contains(&name.as_str()))?;
            Some((name.clone(), method.clone()))
        });
        Ok(Self {
            name: local.name.clone(),
            scope: local.scope.clone(),
            listen_addresses,
            port,
            connect_address,
            proxy_address: address(section, "proxy_address")?,
            config_dir: section.text("config_dir").unwrap_or_else(|| data_dir.clone()),
            data_dir,
            config_base_name: section.text("config_base_name").unwrap_or_else(|| "postgresql".to_owned()),
            bin_dir: section.text("bin_dir").unwrap_or_default(),
            bin_name: section.text_map("bin_name"),
            database: section.text("database").unwrap_or_else(|| "postgres".to_owned()),
            pgpass: section.text("pgpass"),
            superuser: Credentials::required(&authentication, "superuser"),
            replication: Credentials::required(&authentication, "replication"),
            rewind: Credentials::read(&authentication.section("rewind")),
            parameters: BTreeMap::new(),
            pg_hba: section.texts("pg_hba").filter(|lines| !lines.is_empty()),
            pg_ident: section.texts("pg_ident").filter(|lines| !lines.is_empty()),
            custom_conf: section.text("custom_conf"),
            recovery_conf: recovery_conf(section),
            standby_methods: None,
            create_replica_methods: section
                .texts("create_replica_methods")
                .or_else(|| section.texts("create_replica_method"))
                .filter(|methods| !methods.is_empty())
                .unwrap_or_else(|| vec!["basebackup".to_owned()]),
            methods: methods.collect(),
            basebackup: section.value("basebackup").cloned().unwrap_or_default(),
            rewind_options: section.value("rewind").cloned().unwrap_or_default(),
            callbacks: section.text_map("callbacks"),
            pre_promote: section.text("pre_promote"),
            before_stop: section.text("before_stop"),
            use_pg_rewind: section.flag("use_pg_rewind", false),
            remove_data_directory_on_rewind_failure: section.flag("remove_data_directory_on_rewind_failure", false),
            remove_data_directory_on_diverged_timelines: section
                .flag("remove_data_directory_on_diverged_timelines", false),
            use_unix_socket: section.flag("use_unix_socket", false),
            use_unix_socket_repl: section.flag("use_unix_socket_repl", false),
            pg_ctl_timeout: Duration::from_secs(
                section.integer("pg_ctl_timeout", Some("s")).and_then(|s| u64::try_from(s).ok()).unwrap_or(60),
            ),
            krbsrvname: section.text("krbsrvname"),
            use_slots: section.value("use_slots").is_none_or(is_truthy),
        })
    }

    /// What follows from other settings: the parameters that the node itself gives, paths below the configuration
    /// directory, and recovery parameters among the others, which take the place of `recovery_conf` as a whole.
    fn settle(&mut self) {
        self.parameters.insert("listen_addresses".to_owned(), self.listen_addresses.clone());
        self.parameters.insert("port".to_owned(), self.port.to_string());
        self.parameters.insert("cluster_name".to_owned(), self.scope.clone());
        for name in ["hba_file", "ident_file"] {
            if let Some(path) = self.parameters.get_mut(name).filter(|path| !path.starts_with('/')) {
                *path = format!("{}/{path}", self.config_dir.trim_end_matches('/'));
            }
        }
        let all = std::mem::take(&mut self.parameters).into_iter();
        let (recovery, others): (BTreeMap<_, _>, _) = all.partition(|(name, _)| is_recovery_parameter(name));
        self.parameters = others;
        if !recovery.is_empty() {
            self.recovery_conf = recovery;
        }
    }
}

impl Credentials {
    fn read(section: &Section<'_>) -> Option<Self> {
        section.map().filter(|map| !map.is_empty())?;
        let mut options = section.text_keys();
        options.retain(|key, _| !["username", "password"].contains(&key.as_str()));
        Some(Self { username: section.text("username"), password: section.secret("password"), options })
    }

    fn required(authentication: &Section<'_>, user: &str) -> Self {
        let credentials = Self::read(&authentication.section(user)).unwrap_or_default();
        if credentials.username.is_none() {
            let path = authentication.path_of(user);
            let message =
                format!("{path}.username is not defined; connections are made as the operating system's user");
            authentication.warn(user, message);
        }
        credentials
    }
}

static EMPTY: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

fn section_of<'a>(document: &'a Map<String, Value>, whose: &str) -> Result<&'a Map<String, Value>, ConfigError> {
    as_map(document.get("postgresql"), "postgresql", whose)
}

fn parameters_of(section: &Map<String, Value>) -> Result<&Map<String, Value>, ConfigError> {
    as_map(section.get("parameters"), "postgresql.parameters", "the configuration")
}

/// A mapping; what is empty in any way is an empty one.
fn as_map<'a>(value: Option<&'a Value>, path: &str, whose: &str) -> Result<&'a Map<String, Value>, ConfigError> {
    match value {
        Some(Value::Object(map)) => Ok(map),
        Some(other) if is_truthy(other) => {
            let message = format!("is not a mapping in {whose}; write `name: value` lines below it");
            Err(ConfigError::Invalid { path: path.to_owned(), message })
        }
        _ => Ok(&EMPTY),
    }
}

fn effective(shared: &Map<String, Value>, own: &Map<String, Value>) -> Map<String, Value> {
    let mut section = shared.clone();
    section.retain(|key, _| !LOCAL_ONLY.contains(&key.as_str()));
    let own = own.iter().filter(|(key, _)| *key != "use_slots");
    section.extend(own.map(|(key, value)| (key.clone(), value.clone())));
    Map::from_iter([("postgresql".to_owned(), Value::Object(section))])
}

/// Adds the parameters that a member may set. A name replaces the same name in other case.
fn add_parameters(parameters: &mut BTreeMap<String, String>, map: &Map<String, Value>, section: &Section<'_>) {
    for (name, value) in map.iter().filter(|(name, _)| !is_controlled(name)) {
        let name = canonical_name(name);
        parameters.retain(|known, _| !known.eq_ignore_ascii_case(name));
        match parameters::parameter_text(value) {
            Some(text) => {
                parameters.insert(name.to_owned(), text);
            }
            None if value.is_null() => {}
            None => section.warn(name, format!("{} is not a single value and is ignored", section.path_of(name))),
        }
    }
}

fn required(section: &Section<'_>, key: &str) -> Result<String, ConfigError> {
    section.text(key).ok_or_else(|| ConfigError::Invalid {
        path: section.path_of(key),
        message: "is not defined; add it to the node's configuration file".to_owned(),
    })
}

fn not_an_address(section: &Section<'_>, key: &str, text: &str) -> ConfigError {
    let message = format!("'{text}' is not host:port; write for example 10.0.0.1:{DEFAULT_PORT}");
    ConfigError::Invalid { path: section.path_of(key), message }
}

fn listen(section: &Section<'_>) -> Result<(String, u16), ConfigError> {
    let text = required(section, "listen")?;
    split_host_port(&text, DEFAULT_PORT).ok_or_else(|| not_an_address(section, "listen", &text))
}

fn address(section: &Section<'_>, key: &str) -> Result<Option<String>, ConfigError> {
    let Some(text) = section.text(key) else { return Ok(None) };
    let (host, port) = split_host_port(&text, DEFAULT_PORT).ok_or_else(|| not_an_address(section, key, &text))?;
    Ok(Some(join_host_port(&host, port)))
}

/// Where the server can be reached from this machine: `localhost` if it listens there, else its first address.
pub fn local_host(listen_addresses: &str) -> &str {
    let mut addresses = listen_addresses.split(',').map(str::trim);
    let first = addresses.clone().next().unwrap_or("localhost");
    let is_local = |address: &str| ["*", "localhost", "0.0.0.0", "127.0.0.1"].contains(&address);
    if addresses.any(is_local) { "localhost" } else { first }
}

fn recovery_conf(section: &Section<'_>) -> BTreeMap<String, String> {
    let recovery = section.section("recovery_conf");
    let pairs = recovery.map().into_iter().flatten();
    pairs.filter_map(|(name, value)| Some((name.clone(), parameters::parameter_text(value)?))).collect()
}

#[cfg(test)]
mod tests;
