//! The configuration files of an agent: read here, combined with the dynamic configuration, read again on demand.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::config::overlay::is_consumed;
use crate::config::{Dynamic, Finding, LocalConfig, Origins, PostgresConfig};
use crate::ha::Node;

use super::lead::FailsafeLead;
use super::ports::{Configure, Configured};
use super::task::chain;

/// The copy of the dynamic configuration beside the data. The name is Patroni's, so that either finds the other's.
const CACHE_FILE: &str = "patroni.dynamic.json";

/// The files as given on the command line, and what was last read of them.
pub(super) struct Files {
    path: Option<PathBuf>,
    environment: BTreeMap<String, String>,
    current: watch::Sender<Arc<LocalConfig>>,
    /// Where each setting of `current` stands.
    origins: Mutex<Arc<Origins>>,
    /// The last server's configuration that could be made.
    postgres: Mutex<Option<Arc<PostgresConfig>>>,
    /// What was found at the first reading.
    warnings: Vec<String>,
}

impl Files {
    /// Reads everything for the first time. The error names file, cause and next step.
    pub(super) fn read(path: Option<&Path>, environment: BTreeMap<String, String>) -> Result<Self, String> {
        let (local, warnings, origins) = build(path, &environment)?;
        let files = Self {
            // What led nowhere at the start is not looked for again.
            path: path.filter(|path| path.exists()).map(Path::to_owned),
            environment,
            current: watch::Sender::new(Arc::new(local)),
            origins: Mutex::new(Arc::new(origins)),
            postgres: Mutex::new(None),
            warnings,
        };
        Ok(files)
    }

    /// Says what was found at the first reading: then there was no log yet.
    pub(super) fn tell_warnings(&self) {
        self.warnings.iter().for_each(|warning| warn!("{warning}"));
    }

    /// The file or directory, if there is one beside the environment.
    pub(super) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// What was last read.
    pub(super) fn local(&self) -> Arc<LocalConfig> {
        Arc::clone(&self.current.borrow())
    }

    /// Where each setting stands that was last read.
    pub(super) fn origins(&self) -> Arc<Origins> {
        Arc::clone(&self.origins.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Follows what is read.
    pub(super) fn follow(&self) -> watch::Receiver<Arc<LocalConfig>> {
        self.current.subscribe()
    }

    /// The best known dynamic configuration before the DCS was read: the copy beside the data, else what a new cluster
    /// would be given.
    pub(super) fn last_known_dynamic(&self) -> Map<String, Value> {
        let local = self.local();
        let kept = cache_path(&local).and_then(|path| Some((fs::read_to_string(&path).ok()?, path)));
        let parsed = kept.and_then(|(text, path)| {
            let document = serde_json::from_str(&text);
            document.inspect_err(|error| warn!("{} is not used: {error}", path.display())).ok()
        });
        parsed.or_else(|| local.bootstrap.as_ref().map(|bootstrap| bootstrap.dcs.clone())).unwrap_or_default()
    }

    /// On what the agent before this one has led without the DCS, if that counts still.
    pub(super) fn kept_lead(&self) -> Option<FailsafeLead> {
        let local = self.local();
        FailsafeLead::read(data_dir(&local)?, &local.name)
    }
}

fn data_dir(local: &LocalConfig) -> Option<&Path> {
    local.document.get("postgresql")?.get("data_dir")?.as_str().map(Path::new)
}

fn cache_path(local: &LocalConfig) -> Option<PathBuf> {
    data_dir(local).map(|dir| dir.join(CACHE_FILE))
}

type Built = (LocalConfig, Vec<String>, Origins);

fn build(path: Option<&Path>, environment: &BTreeMap<String, String>) -> Result<Built, String> {
    let files = texts(path, environment)?;
    let (local, findings, origins) = LocalConfig::located(&files, environment).map_err(|error| chain(&error))?;
    Ok((local, findings.iter().map(ToString::to_string).collect(), origins))
}

/// The file, or every `*.yml` and `*.yaml` of the directory in name order. A path that leads nowhere counts as not
/// given, as with Patroni, if there are variables in its place.
pub(super) fn texts(
    path: Option<&Path>,
    environment: &BTreeMap<String, String>,
) -> Result<Vec<(String, String)>, String> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let failed = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let read = |path: &Path| {
        let text = fs::read_to_string(path).map_err(|error| failed(path, &error))?;
        Ok((path.display().to_string(), text))
    };
    let has_variables = environment.keys().any(|name| is_consumed(name));
    if !path.exists() && has_variables {
        return Ok(Vec::new());
    }
    if !path.is_dir() {
        return Ok(vec![read(path)?]);
    }
    let entries = fs::read_dir(path).map_err(|error| failed(path, &error))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.is_file() && path.extension().is_some_and(|e| e == "yml" || e == "yaml"));
    paths.sort();
    if paths.is_empty() && !has_variables {
        return Err(failed(path, &"no *.yml or *.yaml file in this directory"));
    }
    paths.iter().map(|path| read(path)).collect()
}

impl Configure for Files {
    fn configure(&self, dynamic: &Map<String, Value>, before: &Dynamic) -> Configured {
        let local = self.local();
        let (settings, findings) = before.after(dynamic);
        let mut warnings: Vec<String> = findings.iter().map(ToString::to_string).collect();
        let origins = self.origins();
        let mut last = self.postgres.lock().unwrap_or_else(PoisonError::into_inner);
        let postgres = match PostgresConfig::build(&local, dynamic) {
            Ok((config, findings)) => {
                // A parameter may as well come from the dynamic configuration, which has no lines.
                let is_local = |finding: &Finding| is_in(&local.document, &finding.path);
                let located = |f: Finding| if is_local(&f) { f.located(&origins) } else { f };
                warnings.extend(findings.into_iter().map(|finding| located(finding).to_string()));
                let config = Arc::new(config);
                *last = Some(Arc::clone(&config));
                Some(config)
            }
            Err(error) => {
                warnings.push(format!("the PostgreSQL settings stay as they are: {}", chain(&error)));
                None
            }
        };
        // Who we are for others stays with the settings that are in force.
        let node = node(&local, last.as_deref(), dynamic);
        Configured { settings, postgres, node, warnings }
    }

    fn reload(&self) -> Result<bool, String> {
        let Some(path) = &self.path else {
            self.current.send_modify(|_| {});
            return Ok(false);
        };
        let (mut local, mut warnings, origins) = build(Some(path), &self.environment)?;
        // What would be refused later must not be taken over by half.
        PostgresConfig::build(&local, &Map::new()).map_err(|error| chain(&error.located(&origins)))?;
        warnings.extend(keep_until_restart(&self.local(), &mut local).iter().map(|key| {
            let place = origins.of(key).unwrap_or_default();
            format!("{key} was changed ({place}); that takes effect when the agent is started anew")
        }));
        for warning in warnings {
            warn!("{warning}");
        }
        *self.origins.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(origins);
        // Whoever follows is told in any case: the files that settings name (certificates) may be new.
        let before = self.current.send_replace(Arc::new(local));
        Ok(*before != *self.local())
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

    fn keep_lead(&self, lead: Option<&FailsafeLead>) {
        let local = self.local();
        let Some(dir) = data_dir(&local) else { return };
        let done = lead.map_or_else(|| FailsafeLead::remove(dir), |lead| lead.write(dir, &local.name));
        if let Err(error) = done {
            warn!("failsafe mode: what a new agent would need in {} is not up to date: {error}", dir.display());
        }
    }
}

/// Whether a document has a setting.
fn is_in(document: &Map<String, Value>, path: &str) -> bool {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    match (document.get(first), rest) {
        (Some(Value::Object(inner)), Some(rest)) => is_in(inner, rest),
        (found, rest) => found.is_some() && rest.is_none(),
    }
}

/// What cannot change while an agent runs keeps its value in `new`. The keys that were to change.
fn keep_until_restart(old: &LocalConfig, new: &mut LocalConfig) -> Vec<&'static str> {
    let mut kept = Vec::new();
    if new.name != old.name {
        new.name.clone_from(&old.name);
        kept.push("name");
    }
    if new.scope != old.scope {
        new.scope.clone_from(&old.scope);
        kept.push("scope");
    }
    if new.namespace != old.namespace {
        new.namespace.clone_from(&old.namespace);
        kept.push("namespace");
    }
    // Another connection to the same kind of store is made while we run; another kind is another agent.
    if mem::discriminant(&new.dcs) != mem::discriminant(&old.dcs) {
        new.dcs = old.dcs.clone();
        kept.push("etcd3");
    }
    for (key, path) in [("data_dir", "postgresql.data_dir"), ("config_dir", "postgresql.config_dir")] {
        let before = old.document.get("postgresql").and_then(|section| section.get(key)).cloned();
        let Some(Value::Object(section)) = new.document.get_mut("postgresql") else { continue };
        if section.get(key) == before.as_ref() {
            continue;
        }
        match before {
            Some(value) => section.insert(key.to_owned(), value),
            None => section.shift_remove(key),
        };
        kept.push(path);
    }
    kept
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
        scope: local.scope.clone(),
        tags: local.tags.clone(),
        conn_url: postgres.map(PostgresConfig::conn_url).unwrap_or_default(),
        api_url: local.restapi.api_url(),
        proxy_url: postgres.and_then(PostgresConfig::proxy_url),
        may_bootstrap: local.bootstrap.is_some(),
        initial_config: if dynamic.is_empty() { initial.unwrap_or_default() } else { dynamic.clone() },
        has_leaderless_method: postgres.is_some_and(|config| !config.leaderless_methods().is_empty()),
        remove_on_divergence: postgres.is_some_and(|config| config.remove_data_directory_on_diverged_timelines),
        remove_on_rewind_failure: postgres.is_some_and(|config| config.remove_data_directory_on_rewind_failure),
    }
}

#[cfg(test)]
mod tests;
