//! From the configuration to a connection.

use std::sync::Arc;

use super::etcd3::{Access, Etcd3, Source, Srv};
use super::layout::Layout;
use super::{Dcs, DcsError, Timing};
use crate::cluster::MemberName;
use crate::config::{DcsConfig, Etcd3Config};
use crate::io::tls;

/// Who connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A member: it has a lease, and reads from whichever server answers.
    Agent {
        /// Its name.
        name: MemberName,
    },
    /// A command: it has no lease, and reads what the majority of the servers agree on.
    Operator,
}

/// A connection to one cluster in the configured DCS. Nothing is sent yet: an error here is one of the configuration
/// or of the files it names. A Citus cluster has a group; group 0 sees the other groups too, also for an operator.
pub async fn connect(
    config: &DcsConfig,
    namespace: &str,
    scope: &str,
    citus_group: Option<u32>,
    identity: Identity,
    timing: Timing,
) -> Result<Arc<dyn Dcs>, DcsError> {
    let config = match config {
        DcsConfig::Etcd3(config) => config,
        DcsConfig::Unsupported(section) => {
            return Err(DcsError::Config(format!(
                "section `{section}` is not supported in this version; etcd by its v3 API (section `etcd3`) is"
            )));
        }
        DcsConfig::Missing => {
            return Err(DcsError::Config(
                "the configuration has no section that says where the cluster state is kept; add a section `etcd3`, \
                 for example with `hosts: 127.0.0.1:2379`"
                    .to_owned(),
            ));
        }
    };
    let me = match identity {
        Identity::Agent { name } => Some(name),
        Identity::Operator => None,
    };
    let layout = Layout::new(namespace, scope, citus_group);
    Ok(Arc::new(Etcd3::new(access(config)?, layout, me, timing)))
}

/// What a connection needs, or what is wrong with it.
pub(super) fn access(config: &Etcd3Config) -> Result<Access, DcsError> {
    let urls = urls(config)?;
    // Before they are used: what changes in between counts as a change.
    let source = Source::of(config);
    let is_tls = config.is_https || urls.iter().any(|url| url.starts_with("https://")) || config.cacert.is_some();
    let srv = config.srv.clone().filter(|_| config.hosts.is_empty()).map(|domain| Srv {
        domain,
        suffix: config.srv_suffix.clone(),
        name_servers: Vec::new(),
    });
    // What is found by DNS may want TLS.
    let is_tls = is_tls || srv.is_some();
    let tls = if is_tls { Some(Arc::new(client_tls(config)?)) } else { None };
    let credentials = match (&config.username, &config.password) {
        (Some(name), Some(password)) => Some((name.clone(), password.clone())),
        (None, None) => None,
        _ => {
            return Err(DcsError::Config(
                "section `etcd3` needs both `username` and `password`, or neither".to_owned(),
            ));
        }
    };
    Ok(Access { urls, srv, is_discovering: !config.use_proxies, tls, credentials, source })
}

fn urls(config: &Etcd3Config) -> Result<Vec<String>, DcsError> {
    if config.hosts.is_empty() && config.srv.is_none() {
        return Err(DcsError::Config(
            "section `etcd3` names no server; add `hosts`, for example `hosts: 127.0.0.1:2379`".to_owned(),
        ));
    }
    let scheme = if config.is_https { "https" } else { "http" };
    let url = |host: &String| match host.contains("://") {
        true => host.trim_end_matches('/').to_owned(),
        false => format!("{scheme}://{host}"),
    };
    Ok(config.hosts.iter().map(url).collect())
}

fn client_tls(config: &Etcd3Config) -> Result<rustls::ClientConfig, DcsError> {
    let trust = config.cacert.as_deref().map_or(tls::Trust::System, tls::Trust::File);
    let identity =
        config.cert.as_deref().map(|cert| tls::Identity { cert, key: config.key.as_deref(), password: None });
    let mut tls =
        tls::client_config(trust, identity).map_err(|error| DcsError::Config(format!("section `etcd3`: {error}")))?;
    // etcd speaks HTTP/2 only to clients that ask for it.
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(tls)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refusal(config: DcsConfig) -> String {
        let answer = connect(&config, "service", "demo", None, Identity::Operator, Timing::default()).await;
        match answer.err() {
            Some(DcsError::Config(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn what_cannot_be_used_is_named() {
        assert!(refusal(DcsConfig::Missing).await.contains("etcd3"));
        assert!(refusal(DcsConfig::Unsupported("consul".into())).await.contains("`consul`"));
        assert!(refusal(DcsConfig::Etcd3(Etcd3Config::default())).await.contains("hosts"));
        let hosts = vec!["127.0.0.1:1".to_owned()];
        let half = Etcd3Config { hosts: hosts.clone(), username: Some("root".into()), ..Etcd3Config::default() };
        assert!(refusal(DcsConfig::Etcd3(half)).await.contains("password"));
        let no_file = Etcd3Config { hosts, cacert: Some("/nowhere/ca.pem".into()), ..Etcd3Config::default() };
        assert!(refusal(DcsConfig::Etcd3(no_file)).await.contains("/nowhere/ca.pem"));
    }

    #[test]
    fn hosts_get_the_scheme_of_the_section_unless_they_have_one() {
        let config = Etcd3Config {
            hosts: vec!["a:2379".into(), "http://b:1/".into()],
            is_https: true,
            ..Etcd3Config::default()
        };
        assert_eq!(urls(&config).unwrap(), ["https://a:2379", "http://b:1"]);
    }
}
