//! The parameters that a cluster sets, not a member: a standby with lower values than its primary would not start, so
//! they come from the dynamic configuration only and stand on the server's command line.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::config::finding::Finding;
use crate::config::merge::text;

use super::units;

/// A parameter under the cluster's control.
#[derive(Clone, Copy, Debug)]
pub struct Controlled {
    /// Its name.
    pub name: &'static str,
    /// The value when nothing, or nothing valid, is configured; `None` for those a node's own settings give.
    pub default: Option<&'static str>,
    /// First server version that knows it, as in `server_version_num`.
    pub since: u32,
    /// Whether it stands on the command line; the others are in the file.
    pub on_command_line: bool,
    accepted: Accepted,
}

#[derive(Clone, Copy, Debug)]
enum Accepted {
    /// Made from the node's own settings, never configurable.
    Never,
    WalLevel,
    True,
    Boolean,
    AtLeast(i64, Option<&'static str>),
}

/// All of them, in the order of the command line.
pub const CONTROLLED: [Controlled; 15] = [
    entry("listen_addresses", None, 0, Accepted::Never),
    entry("port", None, 0, Accepted::Never),
    entry("cluster_name", None, 90_500, Accepted::Never),
    entry("wal_level", Some("replica"), 0, Accepted::WalLevel),
    entry("hot_standby", Some("on"), 0, Accepted::True),
    entry("max_connections", Some("100"), 0, Accepted::AtLeast(25, None)),
    entry("max_wal_senders", Some("10"), 0, Accepted::AtLeast(3, None)),
    in_file(entry("wal_keep_segments", Some("8"), 0, Accepted::AtLeast(1, None))),
    in_file(entry("wal_keep_size", Some("128MB"), 130_000, Accepted::AtLeast(16, Some("MB")))),
    entry("max_prepared_transactions", Some("0"), 0, Accepted::AtLeast(0, None)),
    entry("max_locks_per_transaction", Some("64"), 0, Accepted::AtLeast(32, None)),
    entry("track_commit_timestamp", Some("off"), 90_500, Accepted::Boolean),
    entry("max_replication_slots", Some("10"), 90_400, Accepted::AtLeast(4, None)),
    entry("max_worker_processes", Some("8"), 90_400, Accepted::AtLeast(2, None)),
    entry("wal_log_hints", Some("on"), 90_400, Accepted::Boolean),
];

const fn entry(name: &'static str, default: Option<&'static str>, since: u32, accepted: Accepted) -> Controlled {
    Controlled { name, default, since, on_command_line: true, accepted }
}

const fn in_file(entry: Controlled) -> Controlled {
    Controlled { on_command_line: false, ..entry }
}

/// The entry of a parameter, in any case.
pub fn controlled(name: &str) -> Option<&'static Controlled> {
    CONTROLLED.iter().find(|entry| entry.name.eq_ignore_ascii_case(name))
}

/// Whether a parameter is set by the cluster and ignored in a member's own file.
pub fn is_controlled(name: &str) -> bool {
    controlled(name).is_some()
}

impl Controlled {
    /// The configured value as it goes to the server, or `None` when it is not acceptable.
    fn accept(&self, value: &Value) -> Option<String> {
        let text = parameter_text(value)?;
        match self.accepted {
            Accepted::Never => None,
            Accepted::WalLevel => {
                let level = text.to_lowercase();
                ["hot_standby", "replica", "logical"].contains(&level.as_str()).then_some(level)
            }
            Accepted::True => (units::boolean(&text) == Some(true)).then_some(text),
            Accepted::Boolean => units::boolean(&text).map(|_| text),
            Accepted::AtLeast(minimum, unit) => {
                let number = units::integer(&text, unit).filter(|number| *number >= minimum)?;
                // Without a unit the plain number is the normal form; `128MB` stays what was written.
                Some(units::integer(&text, None).map_or(text, |_| number.to_string()))
            }
        }
    }
}

/// The text of a parameter's value: booleans as PostgreSQL shows them; `None` for null, lists and mappings.
pub(in crate::config) fn parameter_text(value: &Value) -> Option<String> {
    match value {
        Value::Null | Value::Array(_) | Value::Object(_) => None,
        Value::Bool(true) => Some("on".to_owned()),
        Value::Bool(false) => Some("off".to_owned()),
        other => Some(text(other)),
    }
}

/// The controlled parameters of a dynamic configuration's `postgresql.parameters`, defaults filled in. `wal_keep_*`
/// appear only when configured: [`for_version`] makes the one that the server knows.
pub fn with_defaults(configured: &Map<String, Value>, findings: &mut Vec<Finding>) -> BTreeMap<String, String> {
    let mut parameters = BTreeMap::new();
    for entry in CONTROLLED.iter().filter(|entry| entry.on_command_line) {
        if let Some(default) = entry.default {
            parameters.insert(entry.name.to_owned(), default.to_owned());
        }
    }
    for (name, value) in configured {
        let Some(entry) = controlled(name) else { continue };
        let Some(default) = entry.default else {
            continue;
        };
        match entry.accept(value) {
            Some(accepted) => {
                parameters.insert(entry.name.to_owned(), accepted);
            }
            None => {
                let message =
                    format!("postgresql parameter {name}={} failed validation, defaulting to {default}", text(value));
                findings.push(Finding::warning(format!("postgresql.parameters.{name}"), message));
            }
        }
    }
    parameters
}

/// Fits wanted parameters to a server version (`server_version_num`; its major is enough): controlled ones that it
/// does not know are dropped, `wal_level` and `wal_keep_*` take the form it knows.
pub fn for_version(wanted: &BTreeMap<String, String>, version: u32) -> BTreeMap<String, String> {
    let mut parameters = wanted.clone();
    if let Some(level) = parameters.get_mut("wal_level") {
        match (level.as_str(), version >= 90_600) {
            ("hot_standby", true) => *level = "replica".to_owned(),
            ("replica", false) => *level = "hot_standby".to_owned(),
            _ => {}
        }
    }
    let segments = parameters.get("wal_keep_segments").and_then(|value| units::integer(value, None));
    let megabytes = parameters.get("wal_keep_size").and_then(|value| units::integer(value, Some("MB")));
    if version >= 130_000 {
        parameters.remove("wal_keep_segments");
        if megabytes.is_none() {
            let size = format!("{}MB", segments.unwrap_or(8).saturating_mul(16));
            parameters.insert("wal_keep_size".to_owned(), size);
        }
    } else {
        parameters.remove("wal_keep_size");
        if segments.is_none() {
            let segments = megabytes.map_or(8, |size| size.saturating_add(8) / 16);
            parameters.insert("wal_keep_segments".to_owned(), segments.to_string());
        }
    }
    parameters.retain(|name, _| controlled(name).is_none_or(|entry| version >= entry.since));
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(configured: Value) -> (BTreeMap<String, String>, Vec<String>) {
        let mut findings = Vec::new();
        let parameters = with_defaults(configured.as_object().unwrap(), &mut findings);
        (parameters, findings.into_iter().map(|finding| finding.message).collect())
    }

    #[test]
    fn defaults_without_wal_keep() {
        let (parameters, findings) = read(json!({"work_mem": "4MB"}));
        assert!(findings.is_empty());
        assert_eq!(parameters["max_connections"], "100");
        assert_eq!(parameters["wal_log_hints"], "on");
        assert!(!parameters.contains_key("wal_keep_size") && !parameters.contains_key("work_mem"));
        assert!(!parameters.contains_key("port"));
    }

    #[test]
    fn values_are_validated_and_made_plain() {
        let (parameters, findings) = read(json!({
            "max_connections": "0x64", "max_wal_senders": 2, "wal_level": "LOGICAL", "hot_standby": false,
            "wal_keep_size": "1GB", "track_commit_timestamp": true, "port": 1, "max_worker_processes": null,
        }));
        assert_eq!(parameters["max_connections"], "100");
        assert_eq!(parameters["max_wal_senders"], "10");
        assert_eq!(parameters["wal_level"], "logical");
        assert_eq!(parameters["hot_standby"], "on");
        assert_eq!(parameters["wal_keep_size"], "1GB");
        assert_eq!(parameters["track_commit_timestamp"], "on");
        assert_eq!(
            findings,
            [
                "postgresql parameter max_wal_senders=2 failed validation, defaulting to 10",
                "postgresql parameter hot_standby=False failed validation, defaulting to on",
                "postgresql parameter max_worker_processes=None failed validation, defaulting to 8",
            ]
        );
    }

    #[test]
    fn each_version_gets_what_it_knows() {
        let fitted = |wanted: Value, version| for_version(&read(wanted).0, version);
        assert_eq!(fitted(json!({}), 150_004)["wal_keep_size"], "128MB");
        assert_eq!(fitted(json!({"wal_keep_segments": 10}), 150_004)["wal_keep_size"], "160MB");
        assert!(!fitted(json!({"wal_keep_segments": 10}), 150_004).contains_key("wal_keep_segments"));
        assert_eq!(fitted(json!({"wal_keep_size": "100MB"}), 120_000)["wal_keep_segments"], "6");
        assert_eq!(fitted(json!({}), 90_500)["wal_level"], "hot_standby");
        assert_eq!(fitted(json!({"wal_level": "hot_standby"}), 90_600)["wal_level"], "replica");
        assert!(!fitted(json!({}), 90_400).contains_key("track_commit_timestamp"));
    }
}
