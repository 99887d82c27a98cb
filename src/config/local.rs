//! One node's own configuration: the YAML file(s) with `PATRONI_*` variables merged in.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::cluster::tags::{as_integer, is_truthy};
use crate::cluster::{MemberName, Tags};

use super::address::split_host_port;
use super::ciphers;
use super::dcs::DcsConfig;
use super::finding::{ConfigError, Finding, Missing};
use super::merge::text;
use super::origin::Origins;
use super::overlay::{self, AUTHENTICATION_KEYS, Assembled};
use super::reader::{Findings, Section};
use super::secret::Secret;
use super::yaml;

/// A node's configuration, read and checked. `document` is the merged whole; the fields are its typed parts.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalConfig {
    /// Cluster name.
    pub scope: String,
    /// This member's name.
    pub name: MemberName,
    /// Key prefix in the DCS, default `service`.
    pub namespace: String,
    /// Logging.
    pub log: LogConfig,
    /// The REST server.
    pub restapi: RestApiConfig,
    /// How requests to other members are made.
    pub ctl: CtlConfig,
    /// The one DCS.
    pub dcs: DcsConfig,
    /// Presence allows this node to start a new cluster.
    pub bootstrap: Option<BootstrapConfig>,
    /// Watchdog.
    pub watchdog: WatchdogConfig,
    /// Tags as configured, in order.
    pub tags: Tags,
    /// `citus.group` and `citus.database`, when both are valid.
    pub citus: Option<(u32, String)>,
    /// The merged document.
    pub document: Map<String, Value>,
}

/// `log`.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// `json` instead of `plain`.
    pub is_json: bool,
    /// `DEBUG`, `INFO`, `WARNING`, `ERROR`, `CRITICAL`.
    pub level: String,
    /// Errors come with a trace only where debug lines are shown.
    pub is_traced_in_debug: bool,
    /// Plain: a printf-like text. JSON: a list of fields or `{field: new name}`.
    pub format: Value,
    /// `strftime` format of `asctime`.
    pub dateformat: Option<String>,
    /// Fields added to each JSON line.
    pub static_fields: Map<String, Value>,
    /// Directory of `patroni.log`; stderr when absent.
    pub dir: Option<String>,
    /// Permission bits of the file.
    pub mode: Option<u32>,
    /// Rotation size in bytes.
    pub file_size: u64,
    /// Number of rotated files.
    pub file_num: u32,
    /// Level per logger name.
    pub loggers: BTreeMap<String, String>,
    /// How many lines may wait to be written; 0 is any number.
    pub max_queue_size: usize,
    /// Drop a heartbeat line equal to the one before.
    pub deduplicate_heartbeat_logs: bool,
}

/// `restapi`.
#[derive(Clone, Debug, PartialEq)]
pub struct RestApiConfig {
    /// `host:port` to bind; host empty or `*` is all addresses.
    pub listen: String,
    /// `host:port` published.
    pub connect_address: String,
    /// User and password that guarded endpoints ask for.
    pub authentication: Option<(String, Secret)>,
    /// Certificate; its presence turns TLS on.
    pub certfile: Option<String>,
    /// Key; may be inside the certificate file.
    pub keyfile: Option<String>,
    /// Password of the key.
    pub keyfile_password: Option<Secret>,
    /// CA for client certificates.
    pub cafile: Option<String>,
    /// Cipher list.
    pub ciphers: Option<String>,
    /// Client certificates.
    pub verify_client: VerifyClient,
    /// IPs, networks or host names that may call guarded endpoints; empty is all.
    pub allowlist: Vec<String>,
    /// Members' addresses are allowed too.
    pub allowlist_include_members: bool,
    /// Headers added to full answers.
    pub http_extra_headers: BTreeMap<String, String>,
    /// Merged over them under TLS.
    pub https_extra_headers: BTreeMap<String, String>,
    /// Listen backlog.
    pub request_queue_size: u32,
    /// `original`, `productonly`, `minimal`.
    pub server_tokens: String,
}

impl RestApiConfig {
    /// The address published in the member key.
    pub fn api_url(&self) -> String {
        let scheme = if self.certfile.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/patroni", self.connect_address)
    }
}

/// `restapi.verify_client`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VerifyClient {
    /// Not asked for.
    #[default]
    None,
    /// Asked for, must verify when sent, demanded for guarded endpoints.
    Optional,
    /// Demanded for every request.
    Required,
}

/// `ctl`, with the fallbacks to `restapi` applied.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CtlConfig {
    /// Basic authentication sent.
    pub authentication: Option<(String, Secret)>,
    /// Do not verify the server certificate.
    pub insecure: bool,
    /// CA file.
    pub cacert: Option<String>,
    /// Client certificate.
    pub certfile: Option<String>,
    /// Its key.
    pub keyfile: Option<String>,
    /// Password of the key.
    pub keyfile_password: Option<Secret>,
}

/// `bootstrap`, read only when a cluster is created.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BootstrapConfig {
    /// The first dynamic configuration.
    pub dcs: Map<String, Value>,
    /// `initdb` or the name of a custom method.
    pub method: String,
    /// Options of `initdb`, list or map.
    pub initdb: Value,
    /// Lines appended to `pg_hba.conf`.
    pub pg_hba: Vec<String>,
    /// `post_bootstrap` (or `post_init`) command.
    pub post_bootstrap: Option<String>,
    /// The whole section, for the custom method's own.
    pub section: Map<String, Value>,
}

/// `watchdog`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchdogConfig {
    /// Off, automatic or required.
    pub mode: WatchdogMode,
    /// Device path.
    pub device: String,
    /// Seconds between the device's timeout and the ttl; -1 is half the ttl.
    pub safety_margin: i64,
    /// `default` or `testing`.
    pub driver: String,
    /// A process of its own stops the server when the agent does not renew its lease in time. Ours; Patroni has none.
    /// On unless switched off.
    pub guard: bool,
}

/// `watchdog.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchdogMode {
    /// Never.
    Off,
    /// When there is one.
    Automatic,
    /// Do not lead without.
    Required,
}

/// The format of a log line unless another is configured.
const LOG_FORMAT: &str = "%(asctime)s %(levelname)s: %(message)s";
/// A name that strict synchronous mode puts into `synchronous_standby_names` when there is no standby.
const PLACEHOLDER_NAME: &str = "__patroni_strict_sync_replica_placeholder__";

/// What must be there, and what to write.
const REQUIRED: [(&str, &str); 5] = [
    ("scope", "add `scope: <name of the cluster>`, the same on every member"),
    ("name", "add `name: <name of this member>`, different on every member"),
    ("restapi.listen", "add the address of the REST interface, for example `listen: 0.0.0.0:8008`"),
    ("postgresql.listen", "add the address of the server, for example `listen: 0.0.0.0:5432`"),
    ("postgresql.data_dir", "add the path of the data directory, for example `data_dir: /var/lib/postgresql/data`"),
];

impl LocalConfig {
    /// Merges files (name for messages, text; later ones win) and `PATRONI_*` variables, and reads the result.
    pub fn build(
        files: &[(String, String)],
        environment: &BTreeMap<String, String>,
    ) -> Result<(Self, Vec<Finding>), ConfigError> {
        let (config, findings, _) = Self::located(files, environment)?;
        Ok((config, findings))
    }

    /// [`LocalConfig::build`], with the place of every setting; what is found says where.
    pub fn located(
        files: &[(String, String)],
        environment: &BTreeMap<String, String>,
    ) -> Result<(Self, Vec<Finding>, Origins), ConfigError> {
        let Assembled { document, origins, mut findings } = overlay::assemble(files, environment)?;
        let (config, more) = Self::from_document(document).map_err(|error| error.located(&origins))?;
        for finding in more.into_iter().map(|finding| finding.located(&origins)) {
            // A section that is read for two purposes is complained about once.
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
        Ok((config, findings, origins))
    }

    /// Reads a merged document. Errs when something required is missing; all that is missing is named at once.
    pub fn from_document(mut document: Map<String, Value>) -> Result<(Self, Vec<Finding>), ConfigError> {
        accept_old_layouts(&mut document);
        let findings = Findings::default();
        let top = Section::top(&document, &findings);
        check_required(&top)?;
        let name = top.text("name").unwrap_or_default();
        check_name(&name)?;
        let restapi = RestApiConfig::read(&top.section("restapi"));
        let citus = citus(&top);
        if citus.is_some() {
            top.warn(
                "citus",
                "the citus section is not used by this version: the member acts as one of a plain cluster",
            );
        }
        let config = Self {
            scope: top.text("scope").unwrap_or_default(),
            name: MemberName::new(name),
            namespace: namespace(&top),
            log: LogConfig::read(&top.section("log")),
            ctl: CtlConfig::read(&top.section("ctl"), &top.section("restapi")),
            restapi,
            dcs: DcsConfig::read(&top),
            bootstrap: document.contains_key("bootstrap").then(|| BootstrapConfig::read(&top.section("bootstrap"))),
            watchdog: WatchdogConfig::read(&top.section("watchdog")),
            tags: read_tags(&top.section("tags")),
            citus,
            document: document.clone(),
        };
        Ok((config, findings.into_vec()))
    }
}

fn check_required(top: &Section<'_>) -> Result<(), ConfigError> {
    let is_missing = |path: &str| match path.split_once('.') {
        Some((section, key)) => top.section(section).text(key).is_none(),
        None => top.text(path).is_none(),
    };
    let missing = REQUIRED.into_iter().filter(|(path, _)| is_missing(path));
    let missing: Vec<_> = missing.map(|(path, advice)| Missing { path, advice, place: None }).collect();
    if missing.is_empty() { Ok(()) } else { Err(ConfigError::Missing(missing)) }
}

fn check_name(name: &str) -> Result<(), ConfigError> {
    let message = if name.to_lowercase() == PLACEHOLDER_NAME {
        format!("'{name}' has a meaning of its own in synchronous_standby_names; choose another name")
    } else if name.contains('/') {
        format!("'{name}' contains a slash, which separates keys in the DCS; choose a name without")
    } else {
        return Ok(());
    };
    Err(ConfigError::Invalid { path: "name".to_owned(), message })
}

/// Layouts of early Patroni versions: `name` and the users directly inside `postgresql`; keys of users that nobody
/// knows are dropped.
fn accept_old_layouts(document: &mut Map<String, Value>) {
    let has_name = document.contains_key("name");
    let Some(Value::Object(postgresql)) = document.get_mut("postgresql") else { return };
    if !postgresql.contains_key("authentication") {
        let users = ["replication", "superuser"].into_iter();
        let users = users.filter_map(|user| Some((user.to_owned(), postgresql.get(user)?.clone())));
        let users: Map<String, Value> = users.collect();
        let has_rewind_user = postgresql.contains_key("pg_rewind");
        if !users.is_empty() || has_rewind_user {
            postgresql.insert("use_pg_rewind".to_owned(), Value::from(has_rewind_user));
        }
        postgresql.insert("authentication".to_owned(), Value::Object(users));
    }
    let rewind_user = postgresql.get("pg_rewind").filter(|user| user.is_object()).cloned();
    if let Some(Value::Object(users)) = postgresql.get_mut("authentication") {
        if let (Some(user), false) = (rewind_user, users.contains_key("superuser")) {
            users.insert("superuser".to_owned(), user);
        }
        for user in users.values_mut().filter_map(Value::as_object_mut) {
            user.retain(|key, _| AUTHENTICATION_KEYS.contains(&key.as_str()));
        }
    }
    if let (false, Some(name)) = (has_name, postgresql.get("name").cloned()) {
        document.insert("name".to_owned(), name);
    }
}

pub(super) fn namespace(top: &Section<'_>) -> String {
    top.text("namespace").unwrap_or_else(|| "service".to_owned())
}

/// Patroni takes the section only with an integer and a text.
pub(super) fn citus(top: &Section<'_>) -> Option<(u32, String)> {
    let section = top.section("citus");
    let group = section.value("group")?.as_u64().and_then(|group| u32::try_from(group).ok())?;
    Some((group, section.value("database")?.as_str()?.to_owned()))
}

/// User and password of a section; the old key `auth: user:password` is understood too.
fn basic_authentication(section: &Section<'_>) -> Option<(String, Secret)> {
    if section.value("authentication").is_none() {
        let auth = section.text("auth")?;
        let (user, password) = auth.split_once(':')?;
        return Some((user.to_owned(), Secret::new(password)));
    }
    let user = section.section("authentication");
    match (user.text("username"), user.secret("password")) {
        (Some(name), Some(password)) => Some((name, password)),
        (None, None) => None,
        _ => {
            let path = section.path_of("authentication");
            section.warn("authentication", format!("{path} needs both username and password; it is ignored"));
            None
        }
    }
}

impl LogConfig {
    fn read(section: &Section<'_>) -> Self {
        let level = section.text("level").map_or_else(|| "INFO".to_owned(), |level| level.to_uppercase());
        let level = match level.as_str() {
            "DEBUG" | "INFO" | "WARNING" | "ERROR" | "CRITICAL" => level,
            "WARN" => "WARNING".to_owned(),
            "FATAL" => "CRITICAL".to_owned(),
            other => {
                section.warn("level", format!("log.level {other} is unknown; INFO is used"));
                "INFO".to_owned()
            }
        };
        let kind = section.text("type").unwrap_or_else(|| "plain".to_owned()).to_lowercase();
        if !["plain", "json"].contains(&kind.as_str()) {
            section.warn("type", format!("log.type {kind} is unknown; plain is used"));
        }
        let traced_from =
            section.text("traceback_level").map_or_else(|| "ERROR".to_owned(), |level| level.to_uppercase());
        if !["DEBUG", "ERROR"].contains(&traced_from.as_str()) {
            section.warn("traceback_level", format!("log.traceback_level {traced_from} is unknown; ERROR is used"));
        }
        let count = |key: &str, default: i64| section.within(key, 0, i64::MAX).unwrap_or(default).unsigned_abs();
        Self {
            is_json: kind == "json",
            level,
            is_traced_in_debug: traced_from == "DEBUG",
            format: section.value("format").map_or_else(|| Value::from(LOG_FORMAT), log_format),
            dateformat: section.text("dateformat"),
            static_fields: section.section("static_fields").map().cloned().unwrap_or_default(),
            dir: section.text("dir"),
            mode: log_mode(section),
            file_size: count("file_size", 25_000_000),
            file_num: u32::try_from(count("file_num", 4)).unwrap_or(u32::MAX),
            loggers: section.text_map("loggers"),
            max_queue_size: usize::try_from(count("max_queue_size", 1000)).unwrap_or(usize::MAX),
            deduplicate_heartbeat_logs: section.flag("deduplicate_heartbeat_logs", false),
        }
    }
}

/// Permission bits that are none are not brought to the nearest: that could open the file to everybody.
fn log_mode(section: &Section<'_>) -> Option<u32> {
    let mode = section.integer("mode", None)?;
    let bits = u32::try_from(mode).ok().filter(|mode| *mode <= 0o777);
    if bits.is_none() {
        section.warn("mode", format!("log.mode '{mode}' is not from 0 to 511; the default is used"));
    }
    bits
}

/// A text without any `%(field)` is a list written into a variable.
fn log_format(value: &Value) -> Value {
    let listed = value.as_str().filter(|text| !text.contains("%(")).and_then(|text| yaml::read(text).ok());
    listed.filter(Value::is_array).unwrap_or_else(|| value.clone())
}

impl RestApiConfig {
    fn read(section: &Section<'_>) -> Self {
        let listen = section.text("listen").unwrap_or_default();
        let connect_address = section.text("connect_address").unwrap_or_else(|| listen.clone());
        let host = split_host_port(&connect_address, 0).map(|(host, _)| host).unwrap_or_default();
        if ["", "*", "0.0.0.0", "::"].contains(&host.as_str()) {
            let message = format!(
                "other members cannot reach '{connect_address}'; set restapi.connect_address to this node's address"
            );
            section.warn("connect_address", message);
        }
        let verify_client = match section.text("verify_client").map(|mode| mode.to_lowercase()).as_deref() {
            None | Some("none") => VerifyClient::None,
            Some("optional") => VerifyClient::Optional,
            Some("required") => VerifyClient::Required,
            Some(other) => {
                section.warn("verify_client", format!("restapi.verify_client {other} is unknown; none is used"));
                VerifyClient::None
            }
        };
        let tokens = section.text("server_tokens").map_or_else(|| "original".to_owned(), |text| text.to_lowercase());
        let queue = section.within("request_queue_size", 0, 4096).unwrap_or(5);
        if let Some(problem) = section.text("ciphers").and_then(|list| unusable_ciphers(&list)) {
            section.warn("ciphers", format!("{problem}; all safe suites are offered instead"));
        }
        Self {
            listen,
            connect_address,
            authentication: basic_authentication(section),
            certfile: section.text("certfile"),
            keyfile: section.text("keyfile"),
            keyfile_password: section.secret("keyfile_password"),
            cafile: section.text("cafile"),
            ciphers: section.text("ciphers"),
            verify_client,
            allowlist: section.texts("allowlist").unwrap_or_default(),
            allowlist_include_members: section.flag("allowlist_include_members", false),
            http_extra_headers: section.text_map("http_extra_headers"),
            https_extra_headers: section.text_map("https_extra_headers"),
            request_queue_size: u32::try_from(queue).unwrap_or(5),
            server_tokens: if ["minimal", "productonly"].contains(&tokens.as_str()) {
                tokens
            } else {
                "original".into()
            },
        }
    }
}

/// What is wrong with a list of ciphers.
fn unusable_ciphers(list: &str) -> Option<String> {
    let is_empty = ciphers::allowed(list).is_none();
    is_empty.then(|| {
        format!("restapi.ciphers '{list}' leaves none of the suites that can be used; these can: {}", ciphers::known())
    })
}

impl RestApiConfig {
    /// What is wrong with `ciphers`, so that a check of the configuration can refuse it.
    pub fn cipher_problem(&self) -> Option<String> {
        self.ciphers.as_deref().and_then(unusable_ciphers)
    }
}

impl CtlConfig {
    pub(super) fn read(section: &Section<'_>, restapi: &Section<'_>) -> Self {
        let certfile = section.text("certfile");
        let has_certificate = certfile.is_some();
        Self {
            authentication: basic_authentication(section).or_else(|| basic_authentication(restapi)),
            insecure: section.flag("insecure", false),
            cacert: section.text("cacert").or_else(|| restapi.text("cafile")),
            certfile,
            keyfile: section.text("keyfile").filter(|_| has_certificate),
            keyfile_password: section.secret("keyfile_password").filter(|_| has_certificate),
        }
    }
}

impl BootstrapConfig {
    fn read(section: &Section<'_>) -> Self {
        if section.value("users").is_some_and(is_truthy) {
            let message = "bootstrap.users is not supported since Patroni 4.0; create users in a \
                           bootstrap.post_bootstrap script";
            section.warn("users", message);
        }
        Self {
            dcs: section.section("dcs").map().cloned().unwrap_or_default(),
            method: section.text("method").unwrap_or_else(|| "initdb".to_owned()),
            initdb: section.value("initdb").cloned().unwrap_or_default(),
            pg_hba: section.texts("pg_hba").unwrap_or_default(),
            post_bootstrap: section.text("post_bootstrap").or_else(|| section.text("post_init")),
            section: section.map().cloned().unwrap_or_default(),
        }
    }
}

impl WatchdogConfig {
    fn read(section: &Section<'_>) -> Self {
        let mode = match section.value("mode") {
            None => WatchdogMode::Automatic,
            Some(Value::Bool(false)) => WatchdogMode::Off,
            Some(value) => match text(value).to_lowercase().as_str() {
                "automatic" | "auto" => WatchdogMode::Automatic,
                "require" | "required" => WatchdogMode::Required,
                "off" | "disable" | "disabled" => WatchdogMode::Off,
                _ => {
                    let message = format!("Watchdog mode {} not recognized, disabling watchdog", text(value));
                    section.warn("mode", message);
                    WatchdogMode::Off
                }
            },
        };
        Self {
            mode,
            device: section.text("device").unwrap_or_else(|| "/dev/watchdog".to_owned()),
            safety_margin: section.within("safety_margin", -1, i64::MAX).unwrap_or(5),
            driver: section.text("driver").unwrap_or_else(|| "default".to_owned()),
            guard: section.flag("guard", true),
        }
    }
}

/// Tags as configured, with a warning where a switch and its priority say different things.
fn read_tags(section: &Section<'_>) -> Tags {
    for (switch, priority) in [("nofailover", "failover_priority"), ("nosync", "sync_priority")] {
        let (Some(flag), Some(number)) = (section.value(switch), section.value(priority).and_then(as_integer)) else {
            continue;
        };
        if is_truthy(flag) == (number > 0) {
            let flag = text(flag);
            let message = format!(
                "Conflicting configuration between {switch}: {flag} and {priority}: {number}. \
                 Defaulting to {switch}: {flag}"
            );
            section.warn(switch, message);
        }
    }
    Tags(section.map().cloned().unwrap_or_default())
}

#[cfg(test)]
mod tests;
