//! One node's own configuration: the YAML file(s) with `PATRONI_*` variables merged in.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::cluster::{MemberName, Tags};

use super::dcs::DcsConfig;
use super::secret::Secret;

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
