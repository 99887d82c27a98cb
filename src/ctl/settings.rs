//! The CLI's own configuration: files, then environment, then command line. Files are found and read here; what they
//! mean is `config`'s.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::config::{ConfigError, CtlConfig, DcsConfig, Etcd3Config, overlay};

use super::GlobalArgs;
use super::error::CtlError;

type Environment = BTreeMap<String, String>;

/// Where the configuration file is named in the environment.
const FILE_VARIABLE: &str = "PATRONICTL_CONFIG_FILE";

/// pgherdctl's own configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Default cluster name.
    pub scope: Option<String>,
    /// Key prefix.
    pub namespace: String,
    /// The DCS.
    pub dcs: DcsConfig,
    /// How the REST API is called.
    pub ctl: CtlConfig,
    /// `citus.group`, when the section is valid.
    pub citus_group: Option<u32>,
}

/// Reads everything that is to be read. The file at the default place may be missing; one that was named may not.
pub fn read(global: &GlobalArgs, environment: &Environment) -> Result<Settings, CtlError> {
    let files = files(global, environment)?;
    let document = match overlay::assemble(&files, environment) {
        Ok((document, _)) => document,
        Err(ConfigError::Empty) => Map::new(),
        Err(error) => {
            return Err(CtlError::new("the configuration cannot be used").because(error).next("correct the file"));
        }
    };
    let url = global.dcs_url.as_ref().or_else(|| environment.get("DCS_URL")).filter(|url| !url.is_empty());
    interim(&Value::Object(document), url.map(String::as_str))
}

/// The configuration files: name and text.
fn files(global: &GlobalArgs, environment: &Environment) -> Result<Vec<(String, String)>, CtlError> {
    let default = default_path(environment);
    let named = global.config_file.as_ref().or_else(|| environment.get(FILE_VARIABLE)).filter(|path| !path.is_empty());
    let path = match (named, &default) {
        (Some(named), _) => PathBuf::from(named),
        (None, Some(default)) => default.clone(),
        (None, None) => return Ok(Vec::new()),
    };
    match texts(&path) {
        Ok(texts) => Ok(texts),
        Err(_) if Some(&path) == default.as_ref() => Ok(Vec::new()),
        Err(error) => {
            let path = path.display();
            let message = format!(
                "Provided config file {path} not existing or no read rights. Check the -c/--config-file parameter"
            );
            // patronictl does not name the cause.
            let error = CtlError::new(message).because(error);
            Err(error.in_better_words(format!("cannot read the configuration file {path}")).quiet_for_patronictl())
        }
    }
}

/// One file, or all `*.yml` and `*.yaml` of a directory by name.
fn texts(path: &Path) -> std::io::Result<Vec<(String, String)>> {
    let read = |path: &Path| Ok((path.display().to_string(), fs::read_to_string(path)?));
    if !path.is_dir() {
        return Ok(vec![read(path)?]);
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let is_yaml = path.extension().is_some_and(|extension| extension == "yml" || extension == "yaml");
        if is_yaml && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

/// `patroni/patronictl.yaml` in the user's configuration directory.
fn default_path(environment: &Environment) -> Option<PathBuf> {
    let directory = |name: &str| environment.get(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let home = directory("HOME");
    let base = if cfg!(target_os = "macos") {
        home.map(|home| home.join("Library/Application Support"))
    } else {
        directory("XDG_CONFIG_HOME").or_else(|| home.map(|home| home.join(".config")))
    };
    base.map(|base| base.join("patroni/patronictl.yaml"))
}

fn interim(document: &Value, dcs_url: Option<&str>) -> Result<Settings, CtlError> {
    let hosts = match document.pointer("/etcd3/hosts").or(document.pointer("/etcd3/host")) {
        Some(Value::Array(hosts)) => hosts.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(Value::String(hosts)) => hosts.split(',').map(|host| host.trim().to_owned()).collect(),
        _ => Vec::new(),
    };
    let text = |key: &str| document.get(key).and_then(Value::as_str).map(str::to_owned);
    let mut namespace = text("namespace").unwrap_or_else(|| "service".to_owned());
    let mut hosts: Vec<String> = hosts;
    if let Some(url) = dcs_url {
        let (scheme, rest) = url.split_once("://").unwrap_or(("etcd3", url));
        if scheme != "etcd3" {
            return Err(CtlError::new(format!("Unknown dcs scheme: {scheme}")));
        }
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        hosts = vec![host.to_owned()];
        if !path.is_empty() {
            namespace = path.to_owned();
        }
    }
    let dcs = match hosts.is_empty() {
        true => DcsConfig::Missing,
        false => DcsConfig::Etcd3(Etcd3Config { hosts, ..Etcd3Config::default() }),
    };
    let citus_group = document.pointer("/citus/group").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
    Ok(Settings { scope: text("scope"), namespace, dcs, ctl: CtlConfig::default(), citus_group })
}
