//! The CLI's own configuration: files, then environment, then command line. Files are found and read here; what they
//! mean is `config`'s.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::config::{ConfigError, Finding, OperatorConfig};

use super::contexts;
use super::error::CtlError;
use super::{GlobalArgs, Personality};

type Environment = BTreeMap<String, String>;

/// Where the configuration file is named in the environment.
const FILE_VARIABLE: &str = "PATRONICTL_CONFIG_FILE";

/// Below the user's configuration directory: patronictl's file, and ours, which comes first.
const FILE: &str = "patroni/patronictl.yaml";
const OWN_FILE: &str = "pgherd/pgherdctl.yaml";

/// Reads everything that is to be read, with remarks on what could not be used. The file at the default place may be
/// missing; one that was named may not.
pub fn read(
    global: &GlobalArgs,
    environment: &Environment,
    personality: Personality,
) -> Result<(OperatorConfig, Vec<Finding>), CtlError> {
    let files = files(global, environment, personality)?;
    let files = if personality.is_patronictl() { files } else { contexts::choose(files, global, environment)? };
    let url = global.dcs_url.as_ref().or_else(|| environment.get("DCS_URL")).filter(|url| !url.is_empty());
    let url = url.map(|url| meant(url, personality));
    let (mut config, findings) =
        OperatorConfig::build(&files, environment, url.as_deref()).map_err(|error| match error {
            ConfigError::UnknownDcsScheme(_) => CtlError::usage(error.to_string()).next("use -d etcd3://HOST:PORT"),
            error => CtlError::usage("the configuration cannot be used").because(error).next("correct it"),
        })?;
    config.ctl.insecure |= global.insecure;
    Ok((config, findings))
}

/// The contexts that can be chosen.
pub(super) fn contexts(global: &GlobalArgs, environment: &Environment) -> Result<Vec<String>, CtlError> {
    Ok(contexts::names(&files(global, environment, Personality::Pgherdctl)?))
}

/// Without a scheme, patronictl takes port 2379 (or none) for etcd's old protocol, which we do not speak: an operator
/// of ours means etcd3.
fn meant(url: &str, personality: Personality) -> String {
    let is_plain = !url.contains("://") && ![":2181", ":8181", ":8500"].iter().any(|port| url.contains(port));
    if is_plain && !personality.is_patronictl() { format!("etcd3://{url}") } else { url.to_owned() }
}

/// The configuration files: name and text.
fn files(
    global: &GlobalArgs,
    environment: &Environment,
    personality: Personality,
) -> Result<Vec<(String, String)>, CtlError> {
    let own = default_path(environment, OWN_FILE).filter(|path| !personality.is_patronictl() && path.exists());
    let default = own.or_else(|| default_path(environment, FILE));
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
            let error = CtlError::usage(message).because(error);
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

/// A file in the user's configuration directory.
fn default_path(environment: &Environment, file: &str) -> Option<PathBuf> {
    let directory = |name: &str| environment.get(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let home = directory("HOME");
    let base = if cfg!(target_os = "macos") {
        home.map(|home| home.join("Library/Application Support"))
    } else {
        directory("XDG_CONFIG_HOME").or_else(|| home.map(|home| home.join(".config")))
    };
    base.map(|base| base.join(file))
}
