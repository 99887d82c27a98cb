//! What pgherdctl reads: its own file, or any agent's, with variables and the command line over it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::address::{Url, join_host_port};
use super::dcs::DcsConfig;
use super::finding::{ConfigError, Finding};
use super::local::{self, CtlConfig};
use super::overlay;
use super::reader::{Findings, Section};

/// The operator's configuration. Nothing in it is required: what a command lacks it says itself.
#[derive(Clone, Debug, PartialEq)]
pub struct OperatorConfig {
    /// The cluster meant when none is named.
    pub scope: Option<String>,
    /// Key prefix, default `service`.
    pub namespace: String,
    /// The DCS.
    pub dcs: DcsConfig,
    /// How the members' REST interfaces are called.
    pub ctl: CtlConfig,
    /// `citus.group` and `citus.database`, when both are valid.
    pub citus: Option<(u32, String)>,
    /// The merged document.
    pub document: Map<String, Value>,
}

impl OperatorConfig {
    /// Merges files (name for messages, text), variables and `--dcs-url`. No file and no variable is fine too.
    pub fn build(
        files: &[(String, String)],
        environment: &BTreeMap<String, String>,
        dcs_url: Option<&str>,
    ) -> Result<(Self, Vec<Finding>), ConfigError> {
        let (mut document, mut findings) = match overlay::assemble(files, environment) {
            Err(ConfigError::Empty) => (Map::new(), Vec::new()),
            other => other.map(|whole| (whole.document, whole.findings))?,
        };
        if let Some(url) = dcs_url {
            take_dcs_url(&mut document, url)?;
        }
        let (config, more) = Self::from_document(document);
        findings.extend(more);
        Ok((config, findings))
    }

    /// Reads a merged document.
    pub fn from_document(document: Map<String, Value>) -> (Self, Vec<Finding>) {
        let findings = Findings::default();
        let top = Section::top(&document, &findings);
        let restapi = top.section("restapi");
        let config = Self {
            scope: top.text("scope"),
            namespace: local::namespace(&top),
            dcs: DcsConfig::read(&top),
            ctl: CtlConfig::read(&top.section("ctl"), &restapi),
            citus: local::citus(&top),
            document: document.clone(),
        };
        (config, findings.into_vec())
    }
}

/// The kinds of DCS that a URL may name, with their ports. For a URL without a scheme the first with its port counts.
const URL_SCHEMES: [(&str, u16); 5] =
    [("zookeeper", 2181), ("exhibitor", 8181), ("consul", 8500), ("etcd", 2379), ("etcd3", 2379)];

/// `[SCHEME://]HOST[:PORT][/NAMESPACE]` replaces every DCS section; user names and certificates of the file's section
/// are lost with it.
fn take_dcs_url(document: &mut Map<String, Value>, text: &str) -> Result<(), ConfigError> {
    let invalid =
        |message: &str| ConfigError::Invalid { path: format!("--dcs-url {text}"), message: message.to_owned() };
    let url = Url::parse(text).ok_or_else(|| invalid("the port is not a number up to 65535"))?;
    let scheme = match url.scheme.as_str() {
        "" => URL_SCHEMES.iter().find(|(_, port)| url.port == Some(*port)).map_or("etcd", |(scheme, _)| scheme),
        scheme => scheme,
    };
    let Some((scheme, default_port)) = URL_SCHEMES.iter().find(|(known, _)| *known == scheme) else {
        return Err(ConfigError::UnknownDcsScheme(scheme.to_owned()));
    };
    for (section, _) in URL_SCHEMES {
        document.shift_remove(section);
    }
    let host = if url.host.is_empty() { "localhost" } else { &url.host };
    let port = url.port.unwrap_or(*default_port);
    let section = match *scheme {
        "zookeeper" => json!({"hosts": [join_host_port(host, port)]}),
        "exhibitor" => json!({"hosts": [host], "port": port}),
        _ => json!({"host": join_host_port(host, port)}),
    };
    document.insert((*scheme).to_owned(), section);
    let path = url.path.trim();
    if !path.is_empty() && path != "/" {
        document.insert("namespace".to_owned(), Value::from(path));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_url(url: &str) -> Result<OperatorConfig, ConfigError> {
        let file = ("ctl.yml".to_owned(), "etcd3: {host: h, username: u}\nscope: demo\n".to_owned());
        Ok(OperatorConfig::build(&[file], &BTreeMap::new(), Some(url))?.0)
    }

    fn hosts(config: &OperatorConfig) -> &[String] {
        match &config.dcs {
            DcsConfig::Etcd3(etcd3) => &etcd3.hosts,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_url_replaces_the_section() {
        let config = with_url("etcd3://h2:2380/db").unwrap();
        assert_eq!(hosts(&config), ["h2:2380"]);
        assert!(matches!(&config.dcs, DcsConfig::Etcd3(etcd3) if etcd3.username.is_none()));
        assert_eq!(config.namespace, "/db");
        assert_eq!(config.scope.as_deref(), Some("demo"));
        assert_eq!(hosts(&with_url("etcd3://").unwrap()), ["localhost:2379"]);
        assert_eq!(hosts(&with_url("etcd3://[::1]").unwrap()), ["[::1]:2379"]);
    }

    #[test]
    fn the_scheme_may_follow_from_the_port() {
        let kind = |url: &str| with_url(url).map(|config| config.dcs);
        assert_eq!(kind("h:2379"), Ok(DcsConfig::Unsupported("etcd".into())));
        assert_eq!(kind("h"), Ok(DcsConfig::Unsupported("etcd".into())));
        assert_eq!(kind("h:8500"), Ok(DcsConfig::Unsupported("consul".into())));
        assert_eq!(kind("h:2181"), Ok(DcsConfig::Unsupported("zookeeper".into())));
        assert_eq!(kind("redis://h").unwrap_err().to_string(), "Unknown dcs scheme: redis");
        assert!(kind("etcd3://h:123456").unwrap_err().to_string().contains("--dcs-url etcd3://h:123456"));
    }

    #[test]
    fn nothing_at_all_is_no_error() {
        let (config, findings) = OperatorConfig::build(&[], &BTreeMap::new(), None).unwrap();
        assert_eq!((config.scope, config.namespace.as_str(), config.dcs), (None, "service", DcsConfig::Missing));
        assert!(findings.is_empty());
    }

    #[test]
    fn an_agents_file_will_do() {
        let text = "scope: demo\nname: n1\nnamespace: /db/\nrestapi: {listen: 'a:1', cafile: ca, authentication: {username: u, password: p}}\n\
                    etcd3: {hosts: 'a:1,b:2'}\npostgresql: {data_dir: x}\nciti: 1\ncitus: {group: 0, database: c}\n";
        let files = [("n1.yml".to_owned(), text.to_owned())];
        let variables = [("PATRONI_CTL_INSECURE", "on"), ("PATRONI_SCOPE", "other")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let (config, findings) = OperatorConfig::build(&files, &variables, None).unwrap();
        assert_eq!(findings, []);
        assert_eq!((config.scope.as_deref(), config.namespace.as_str()), (Some("other"), "/db/"));
        assert!(config.ctl.insecure);
        assert_eq!(config.ctl.cacert.as_deref(), Some("ca"));
        assert_eq!(config.ctl.authentication.as_ref().map(|(user, _)| user.as_str()), Some("u"));
        assert_eq!(config.citus, Some((0, "c".to_owned())));
    }
}
