//! The effective `postgresql` section: defaults, then the dynamic configuration, then the local file.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::cluster::MemberName;

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
