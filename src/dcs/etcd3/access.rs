//! How to get at the servers, and what is different when that changes under a running connection.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustls::ClientConfig;

use super::srv::Srv;
use crate::config::{Etcd3Config, Secret};
use crate::dcs::Renewed;

/// How to get at the servers.
#[derive(Default)]
pub(in crate::dcs) struct Access {
    /// Endpoints as configured, with scheme.
    pub(in crate::dcs) urls: Vec<String>,
    /// Where more endpoints are to be found, or all of them.
    pub(in crate::dcs) srv: Option<Srv>,
    /// Ask the servers for more endpoints.
    pub(in crate::dcs) is_discovering: bool,
    /// For endpoints with `https`.
    pub(in crate::dcs) tls: Option<Arc<ClientConfig>>,
    /// User and password.
    pub(in crate::dcs) credentials: Option<(String, Secret)>,
    /// What all this was made of.
    pub(in crate::dcs) source: Source,
}

/// The section, and what was in the files that it names.
#[derive(Clone, Default, PartialEq)]
pub(in crate::dcs) struct Source {
    config: Etcd3Config,
    cacert: Option<u64>,
    cert: Option<u64>,
    key: Option<u64>,
}

impl Source {
    /// Reads the files only to know them again.
    pub(in crate::dcs) fn of(config: &Etcd3Config) -> Self {
        let print = |path: &Option<String>| {
            let mut hasher = DefaultHasher::new();
            fs::read(path.as_deref()?).ok()?.hash(&mut hasher);
            Some(hasher.finish())
        };
        let (cacert, cert, key) = (print(&config.cacert), print(&config.cert), print(&config.key));
        Self { config: config.clone(), cacert, cert, key }
    }

    /// What is different in `new`.
    pub(super) fn renewed(&self, new: &Self) -> Vec<Renewed> {
        let (a, b) = (&self.config, &new.config);
        let settings = [
            ("etcd3.hosts", a.hosts != b.hosts),
            ("etcd3.srv", a.srv != b.srv),
            ("etcd3.srv_suffix", a.srv_suffix != b.srv_suffix),
            ("etcd3.use_proxies", a.use_proxies != b.use_proxies),
            ("etcd3.protocol", a.is_https != b.is_https),
            ("etcd3.username", a.username != b.username),
            ("etcd3.password", a.password != b.password),
            ("etcd3.cacert", a.cacert != b.cacert),
            ("etcd3.cert", a.cert != b.cert),
            ("etcd3.key", a.key != b.key),
        ];
        let files = [
            ("etcd3.cacert", &a.cacert, &b.cacert, self.cacert != new.cacert),
            ("etcd3.cert", &a.cert, &b.cert, self.cert != new.cert),
            ("etcd3.key", &a.key, &b.key, self.key != new.key),
        ];
        let settings = settings.into_iter().filter(|(_, is_new)| *is_new).map(|(key, _)| Renewed { key, file: None });
        // Another file has other contents, which is nothing to be told twice.
        let files = files.into_iter().filter(|(_, old, new, is_new)| old == new && *is_new);
        settings.chain(files.map(|(key, _, path, _)| Renewed { key, file: path.clone() })).collect()
    }

    /// Whether connections that exist were made with other means.
    pub(super) fn connects_differently(&self, new: &Self) -> bool {
        let means = |source: &Self| {
            let Etcd3Config { is_https, cacert, cert, key, .. } = source.config.clone();
            (is_https, cacert, cert, key, source.cacert, source.cert, source.key)
        };
        means(self) != means(new)
    }

    /// Whether other servers are named, or found in another way.
    pub(super) fn names_others(&self, new: &Self) -> bool {
        let named = |source: &Self| {
            let Etcd3Config { hosts, srv, srv_suffix, use_proxies, is_https, .. } = source.config.clone();
            (hosts, srv, srv_suffix, use_proxies, is_https)
        };
        named(self) != named(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(found: &[Renewed]) -> Vec<(&str, bool)> {
        found.iter().map(|renewed| (renewed.key, renewed.file.is_some())).collect()
    }

    #[test]
    fn settings_and_replaced_files_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| Some(dir.path().join(name).display().to_string());
        for name in ["ca", "cert", "other"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let config = Etcd3Config { cacert: path("ca"), cert: path("cert"), ..Etcd3Config::default() };
        let before = Source::of(&config);
        assert!(before.renewed(&Source::of(&config)).is_empty());
        fs::write(dir.path().join("cert"), "new").unwrap();
        let after = Source::of(&config);
        assert_eq!(keys(&before.renewed(&after)), [("etcd3.cert", true)]);
        assert!(before.connects_differently(&after) && !before.names_others(&after));
        let other = Etcd3Config { cacert: path("other"), username: Some("u".into()), ..config.clone() };
        assert_eq!(keys(&after.renewed(&Source::of(&other))), [("etcd3.username", false), ("etcd3.cacert", false)]);
        let user = Etcd3Config { username: Some("u".into()), ..config.clone() };
        assert!(!after.connects_differently(&Source::of(&user)) && !after.names_others(&Source::of(&user)));
        let hosts = Etcd3Config { hosts: vec!["a:1".into()], ..config };
        assert!(after.names_others(&Source::of(&hosts)));
    }
}
