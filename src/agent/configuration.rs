//! The configuration files of an agent: read here, combined with the dynamic configuration, read again on demand.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::config::{Dynamic, LocalConfig, PostgresConfig};
use crate::ha::Node;

use super::ports::{Configure, Configured};
use super::task::chain;

/// The copy of the dynamic configuration beside the data. The name is Patroni's, so that either finds the other's.
const CACHE_FILE: &str = "patroni.dynamic.json";

/// The files as given on the command line, and what was last read of them.
pub(super) struct Files {
    path: Option<PathBuf>,
    environment: BTreeMap<String, String>,
    current: watch::Sender<Arc<LocalConfig>>,
}

impl Files {
    /// Reads everything for the first time. The error names file, cause and next step.
    pub(super) fn read(path: Option<&Path>, environment: BTreeMap<String, String>) -> Result<Self, String> {
        let (local, warnings) = build(path, &environment)?;
        let files = Self { path: path.map(Path::to_owned), environment, current: watch::Sender::new(Arc::new(local)) };
        for warning in warnings {
            warn!("{warning}");
        }
        Ok(files)
    }

    /// What was last read.
    pub(super) fn local(&self) -> Arc<LocalConfig> {
        Arc::clone(&self.current.borrow())
    }

    /// Follows what is read.
    pub(super) fn follow(&self) -> watch::Receiver<Arc<LocalConfig>> {
        self.current.subscribe()
    }

    /// The best known dynamic configuration before the DCS was read: the copy beside the data, else what a new cluster
    /// would be given.
    pub(super) fn last_known_dynamic(&self) -> Map<String, Value> {
        let local = self.local();
        let kept = cache_path(&local).and_then(|path| fs::read_to_string(path).ok());
        let parsed = kept.and_then(|text| serde_json::from_str(&text).ok());
        parsed.or_else(|| local.bootstrap.as_ref().map(|bootstrap| bootstrap.dcs.clone())).unwrap_or_default()
    }
}

fn cache_path(local: &LocalConfig) -> Option<PathBuf> {
    let section = local.document.get("postgresql")?;
    Some(Path::new(section.get("data_dir")?.as_str()?).join(CACHE_FILE))
}

fn build(path: Option<&Path>, environment: &BTreeMap<String, String>) -> Result<(LocalConfig, Vec<String>), String> {
    let files = match path {
        Some(path) => texts(path)?,
        None => Vec::new(),
    };
    let (local, findings) = LocalConfig::build(&files, environment).map_err(|error| chain(&error))?;
    Ok((local, findings.iter().map(ToString::to_string).collect()))
}

/// The file, or every `*.yml` and `*.yaml` of the directory in name order.
fn texts(path: &Path) -> Result<Vec<(String, String)>, String> {
    let read = |path: &Path| {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok((path.display().to_string(), text))
    };
    if !path.is_dir() {
        return Ok(vec![read(path)?]);
    }
    let entries = fs::read_dir(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.is_file() && path.extension().is_some_and(|e| e == "yml" || e == "yaml"));
    paths.sort();
    if paths.is_empty() {
        return Err(format!("{}: no *.yml or *.yaml file in this directory", path.display()));
    }
    paths.iter().map(|path| read(path)).collect()
}

impl Configure for Files {
    fn configure(&self, dynamic: &Map<String, Value>, before: &Dynamic) -> Configured {
        let local = self.local();
        let (settings, findings) = before.after(dynamic);
        let mut warnings: Vec<String> = findings.iter().map(ToString::to_string).collect();
        let built = PostgresConfig::build(&local, dynamic);
        let postgres = match built {
            Ok((config, findings)) => {
                warnings.extend(findings.iter().map(ToString::to_string));
                Some(Arc::new(config))
            }
            Err(error) => {
                warnings.push(format!("the PostgreSQL settings stay as they are: {}", chain(&error)));
                None
            }
        };
        let node = node(&local, postgres.as_deref(), dynamic);
        Configured { settings, postgres, node, warnings }
    }

    fn reload(&self) -> Result<bool, String> {
        let Some(path) = &self.path else { return Ok(false) };
        let (local, warnings) = build(Some(path), &self.environment)?;
        for warning in warnings {
            warn!("{warning}");
        }
        Ok(self.current.send_if_modified(|current| {
            let changed = **current != local;
            *current = Arc::new(local);
            changed
        }))
    }

    fn keep(&self, dynamic: &Map<String, Value>) {
        let Some(path) = cache_path(&self.local()) else { return };
        // Only beside data: an otherwise empty directory must stay empty, for initdb and clones.
        if !path.with_file_name("PG_VERSION").exists() {
            return;
        }
        if let Err(error) = replace(&path, &Value::Object(dynamic.clone()).to_string()) {
            debug!("{} was not written: {error}", path.display());
        }
    }
}

/// Replaces a file by a rename, so that a reader sees the old or the new text.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(CACHE_FILE).tempfile_in(dir)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

fn node(local: &LocalConfig, postgres: Option<&PostgresConfig>, dynamic: &Map<String, Value>) -> Node {
    let initial = local.bootstrap.as_ref().map(|bootstrap| bootstrap.dcs.clone());
    Node {
        name: local.name.clone(),
        tags: local.tags.clone(),
        conn_url: postgres.map(PostgresConfig::conn_url).unwrap_or_default(),
        api_url: local.restapi.api_url(),
        proxy_url: postgres.and_then(PostgresConfig::proxy_url),
        may_bootstrap: local.bootstrap.is_some(),
        initial_config: if dynamic.is_empty() { initial.unwrap_or_default() } else { dynamic.clone() },
        has_leaderless_method: postgres.is_some_and(PostgresConfig::has_leaderless_method),
        remove_on_divergence: postgres.is_some_and(|config| config.remove_data_directory_on_diverged_timelines),
        remove_on_rewind_failure: postgres.is_some_and(|config| config.remove_data_directory_on_rewind_failure),
    }
}
