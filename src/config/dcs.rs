//! Which DCS and how to reach it.

use super::address::{Url, join_host_port, split_host_port};
use super::reader::Section;
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

/// The sections that name a DCS, in the order in which Patroni looks for them.
pub const DCS_SECTIONS: [&str; 7] = ["consul", "etcd", "etcd3", "exhibitor", "kubernetes", "raft", "zookeeper"];

const ETCD_PORT: u16 = 2379;

impl DcsConfig {
    /// The first section of `top` that can be used; without one, the first that could be with another build.
    pub(super) fn read(top: &Section<'_>) -> Self {
        let mut present = DCS_SECTIONS.into_iter().filter(|name| top.value(name).is_some());
        if top.value("etcd3").is_some() {
            return Self::Etcd3(Etcd3Config::read(&top.section("etcd3")));
        }
        present.next().map_or(Self::Missing, |name| Self::Unsupported(name.to_owned()))
    }
}

impl Etcd3Config {
    fn read(section: &Section<'_>) -> Self {
        let mut config = Self {
            srv: section.text("srv").or_else(|| section.text("discovery_srv")).or_else(|| section.text("srv_domain")),
            srv_suffix: section.text("srv_suffix"),
            use_proxies: section.flag("use_proxies", false),
            is_https: section.text("protocol").is_some_and(|protocol| protocol.eq_ignore_ascii_case("https")),
            username: section.text("username"),
            password: section.secret("password"),
            cacert: section.text("cacert"),
            cert: section.text("cert"),
            key: section.text("key"),
            ..Self::default()
        };
        let default_port = section.integer("port", None).and_then(|port| u16::try_from(port).ok()).unwrap_or(ETCD_PORT);
        let proxy = section.text("proxy");
        config.use_proxies |= proxy.is_some();
        if let Some(url) = proxy.or_else(|| section.text("url")) {
            config.take_url(&url, section);
        } else if let Some(hosts) = section.texts("hosts") {
            let hosts = hosts.iter().flat_map(|host| host.split(','));
            config.hosts = hosts.filter_map(|host| endpoint("hosts", host, default_port, section)).collect();
        } else if let Some(host) = section.text("host") {
            config.hosts = endpoint("host", &host, default_port, section).into_iter().collect();
        }
        config
    }

    /// Credentials in the URL win; without any those of the section stay, where Patroni forgets them.
    fn take_url(&mut self, text: &str, section: &Section<'_>) {
        let Some(url) = Url::parse(text).filter(|url| !url.host.is_empty()) else {
            section.warn("url", format!("{} '{text}' names no server", section.path_of("url")));
            return;
        };
        self.is_https = if url.scheme.is_empty() { self.is_https } else { url.scheme == "https" };
        self.hosts = vec![join_host_port(&url.host, url.port.unwrap_or(ETCD_PORT))];
        if url.username.is_some() {
            self.username = url.username;
            self.password = url.password.map(Secret::new);
        }
    }
}

fn endpoint(key: &str, text: &str, default_port: u16, section: &Section<'_>) -> Option<String> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    if text.contains("://") {
        // Not documented, but understood by the connection, and better than a host named `http`.
        return Some(text.to_owned());
    }
    let split = split_host_port(text, default_port);
    if split.is_none() {
        section.warn(key, format!("{}: '{text}' is not host:port and is ignored", section.path_of(key)));
    }
    split.map(|(host, port)| join_host_port(&host, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::reader::Findings;
    use serde_json::{Value, json};

    fn read(document: Value) -> DcsConfig {
        let findings = Findings::default();
        DcsConfig::read(&Section::top(document.as_object().unwrap(), &findings))
    }

    fn etcd3(section: Value) -> Etcd3Config {
        match read(json!({"etcd3": section})) {
            DcsConfig::Etcd3(config) => config,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_usable_section_is_taken() {
        assert_eq!(read(json!({})), DcsConfig::Missing);
        assert_eq!(read(json!({"zookeeper": {}, "consul": {}})), DcsConfig::Unsupported("consul".into()));
        assert!(matches!(read(json!({"consul": {}, "etcd3": {"host": "a"}})), DcsConfig::Etcd3(_)));
    }

    #[test]
    fn hosts_in_every_spelling() {
        assert_eq!(etcd3(json!({"hosts": "a:1, b"})).hosts, ["a:1", "b:2379"]);
        assert_eq!(etcd3(json!({"hosts": ["a:1", "[::1]:2"]})).hosts, ["a:1", "[::1]:2"]);
        assert_eq!(etcd3(json!({"hosts": ["a", "b"], "port": 7})).hosts, ["a:7", "b:7"]);
        assert_eq!(etcd3(json!({"host": "a"})).hosts, ["a:2379"]);
        assert_eq!(etcd3(json!({"host": "a:b"})).hosts, Vec::<String>::new());
    }

    #[test]
    fn urls_bring_scheme_and_credentials() {
        let config = etcd3(json!({"url": "https://u:p@a", "username": "x", "password": "y"}));
        assert_eq!(config.hosts, ["a:2379"]);
        assert!(config.is_https && !config.use_proxies);
        assert_eq!((config.username.as_deref(), config.password), (Some("u"), Some(Secret::new("p"))));
        let config = etcd3(json!({"proxy": "http://a:1", "username": "x", "protocol": "https"}));
        assert!(config.use_proxies && !config.is_https);
        assert_eq!(config.username.as_deref(), Some("x"));
    }
}
