//! Which parameters the server gets: the wanted ones, fitted to its version and to what a standby must not undercut.

use std::collections::BTreeMap;
use std::path::Path;

use crate::cluster::PendingValue;
use crate::config::PostgresConfig;
use crate::postgres::control_data::{Report, SETTINGS};

use super::recovery::is_recovery_parameter;
use super::values;

/// Parameters that go on the command line, in the order in which `postmaster.opts` shows them. There nothing but a
/// restart with other ones changes them.
const COMMAND_LINE: [&str; 13] = [
    "listen_addresses",
    "port",
    "cluster_name",
    "wal_level",
    "hot_standby",
    "max_connections",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
    "track_commit_timestamp",
    "max_replication_slots",
    "max_worker_processes",
    "wal_log_hints",
];

/// The parameter that names the synchronous standbys.
pub const SYNCHRONOUS: &str = "synchronous_standby_names";

/// The cluster decides this parameter, not the node's own file.
pub fn is_controlled(name: &str) -> bool {
    COMMAND_LINE.contains(&name) || matches!(name, "wal_keep_segments" | "wal_keep_size")
}

/// The parameters for the main part of the file. `managed` is the synchronous standbys in force, when they are ours
/// to set.
pub fn effective(config: &PostgresConfig, version: u32, managed: Option<&str>) -> BTreeMap<String, String> {
    let mut wanted = config.parameters.clone();
    wanted.retain(|name, _| !is_recovery_parameter(&name.to_lowercase()));
    keep_wal(&mut wanted, version);
    if wanted.get("wal_level").is_some_and(|level| level.eq_ignore_ascii_case("hot_standby")) {
        wanted.insert("wal_level".to_owned(), "replica".to_owned());
    }
    for name in ["hba_file", "ident_file"] {
        if let Some(path) = wanted.get_mut(name) {
            *path = Path::new(&config.config_dir).join(&*path).display().to_string();
        }
    }
    wanted.insert("listen_addresses".to_owned(), config.listen_addresses.clone());
    wanted.insert("port".to_owned(), config.port.to_string());
    wanted.insert("cluster_name".to_owned(), config.scope.clone());
    if let Some(value) = managed {
        wanted.insert(SYNCHRONOUS.to_owned(), value.to_owned());
    }
    wanted
}

/// How much WAL is kept has another name and unit from 13 on.
fn keep_wal(wanted: &mut BTreeMap<String, String>, version: u32) {
    let segments = wanted.get("wal_keep_segments").and_then(|text| values::number(text, ""));
    let megabytes = wanted.get("wal_keep_size").and_then(|text| values::number(text, "MB"));
    if version >= 130_000 {
        wanted.remove("wal_keep_segments");
        if megabytes.is_none() {
            wanted.insert("wal_keep_size".to_owned(), format!("{}MB", segments.unwrap_or(8.0) * 16.0));
        }
    } else {
        wanted.remove("wal_keep_size");
        if let (None, Some(megabytes)) = (segments, megabytes) {
            let segments = ((megabytes + 8.0) / 16.0).floor();
            wanted.insert("wal_keep_segments".to_owned(), segments.to_string());
        }
    }
}

/// Raises what a standby must have at least: the values of the server that wrote its data, as the control file keeps
/// them. Returns what is raised and therefore waits for a restart.
pub fn raise_for_standby(wanted: &mut BTreeMap<String, String>, report: &Report) -> BTreeMap<String, PendingValue> {
    let settings = report.settings();
    let mut pending = BTreeMap::new();
    for (name, line) in SETTINGS {
        let Some(at_least) = settings.get(name).copied() else {
            tracing::warn!("{line} is missing from pg_controldata output");
            continue;
        };
        let Some(present) = wanted.get(name).and_then(|text| values::number(text, "")) else { continue };
        if present < f64::from(at_least) {
            tracing::info!(
                "{name} value in pg_controldata: {at_least}, in the global configuration: {present}. pg_controldata \
                 value will be used. Setting 'Pending restart' flag"
            );
            let new_value = wanted.insert(name.to_owned(), at_least.to_string()).unwrap_or_default();
            pending.insert(name.to_owned(), PendingValue { old_value: at_least.to_string(), new_value });
        }
    }
    pending
}

/// The arguments of the server's program.
pub fn command_line(config: &PostgresConfig, config_file: &Path, wanted: &BTreeMap<String, String>) -> Vec<String> {
    let mut args = vec!["-D".to_owned(), config.data_dir.clone(), format!("--config-file={}", config_file.display())];
    for name in COMMAND_LINE {
        if let Some(value) = wanted.get(name) {
            args.push(format!("--{name}={value}"));
        }
    }
    args
}

#[cfg(test)]
#[path = "parameters/tests.rs"]
pub(crate) mod tests;
