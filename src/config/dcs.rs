//! Which DCS and how to reach it.

use super::secret::Secret;

/// The one DCS section that is used.
#[derive(Clone, Debug, PartialEq)]
pub enum DcsConfig {
    /// `etcd3`.
    Etcd3(Etcd3Config),
    /// A section that this build has no backend for; its name, for the error message.
    Unsupported(String),
    /// No section at all.
    Missing,
}

/// `etcd3`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Etcd3Config {
    /// `host:port` of each configured endpoint, in order.
    pub hosts: Vec<String>,
    /// Domain for SRV discovery.
    pub srv: Option<String>,
    /// Suffix of the SRV label.
    pub srv_suffix: Option<String>,
    /// Use `hosts` as they are instead of the member list the servers report.
    pub use_proxies: bool,
    /// TLS instead of plain text.
    pub is_https: bool,
    /// User of etcd's own authentication.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// CA file.
    pub cacert: Option<String>,
    /// Client certificate.
    pub cert: Option<String>,
    /// Its key; may be inside `cert`.
    pub key: Option<String>,
}
