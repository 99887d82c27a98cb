//! Changing a configuration document. Pure.

use serde_json::{Map, Value};

use crate::config::parameters::{self, Checked};
use crate::config::{Dynamic, Limits};
use crate::ctl::render::difflib::close_match;

/// Names below it may have dots.
const PARAMETERS: &str = "postgresql.parameters.";

/// Sets one value by its path. PostgreSQL parameters may have dots in their names. Null removes, and so goes an
/// object that is empty then.
pub(super) fn with_setting(document: Map<String, Value>, path: &str, value: Value) -> Map<String, Value> {
    let parts: Vec<&str> = match path.strip_prefix(PARAMETERS) {
        Some(parameter) => vec!["postgresql", "parameters", parameter],
        None => path.split('.').collect(),
    };
    set(document, &parts, value)
}

fn set(mut document: Map<String, Value>, path: &[&str], value: Value) -> Map<String, Value> {
    let Some((first, rest)) = path.split_first() else { return document };
    if rest.is_empty() {
        if value.is_null() {
            document.shift_remove(*first);
        } else {
            document.insert((*first).to_owned(), value);
        }
        return document;
    }
    let inner = match document.get_mut(*first) {
        Some(Value::Object(inner)) => std::mem::take(inner),
        _ => Map::new(),
    };
    let inner = set(inner, rest, value);
    if inner.is_empty() {
        document.shift_remove(*first);
    } else {
        document.insert((*first).to_owned(), Value::Object(inner));
    }
    document
}

/// The settings that Patroni or we read, at the top of the document. Anything else is stored and has no effect.
const KNOWN: [&str; 24] = [
    "check_timeline",
    "failsafe_mode",
    "ignore_slots",
    "loop_wait",
    "master_start_timeout",
    "master_stop_timeout",
    "max_timelines_history",
    "maximum_lag_on_failover",
    "maximum_lag_on_syncnode",
    "member_slots_ttl",
    "pause",
    "permanent_replication_slots",
    "permanent_slots",
    "postgresql",
    "primary_race_backoff",
    "primary_start_timeout",
    "primary_stop_timeout",
    "retry_timeout",
    "slots",
    "standby_cluster",
    "synchronous_mode",
    "synchronous_mode_strict",
    "synchronous_node_count",
    "ttl",
];

/// The settings that somebody reads.
pub(in crate::ctl) fn known_settings() -> &'static [&'static str] {
    &KNOWN
}

/// The same inside two sections. The first may have sections of any name, for ways to make a replica, so that only what
/// looks like a misspelt name is told there.
const KNOWN_INSIDE: [(&str, bool, &[&str]); 2] = [
    (
        "postgresql",
        false,
        &[
            "authentication",
            "basebackup",
            "bin_dir",
            "bin_name",
            "callbacks",
            "config_dir",
            "connect_address",
            "create_replica_methods",
            "custom_conf",
            "data_dir",
            "database",
            "listen",
            "parameters",
            "pg_ctl_timeout",
            "pg_hba",
            "pg_ident",
            "pgpass",
            "pre_promote",
            "proxy_address",
            "recovery_conf",
            "remove_data_directory_on_diverged_timelines",
            "remove_data_directory_on_rewind_failure",
            "use_pg_rewind",
            "use_slots",
            "use_unix_socket",
            "use_unix_socket_repl",
        ],
    ),
    (
        "standby_cluster",
        true,
        &[
            "archive_cleanup_command",
            "create_replica_methods",
            "host",
            "port",
            "primary_slot_name",
            "recovery_min_apply_delay",
            "restore_command",
        ],
    ),
];

/// New names that nobody reads, as paths, each with the known name it looks like.
pub(super) fn unknown_settings(before: &Value, after: &Value) -> Vec<(String, Option<String>)> {
    let mut unknown = unknown_in("", before, after, &KNOWN, true);
    for (section, is_complete, known) in KNOWN_INSIDE {
        let (before, after) = (before.get(section).unwrap_or(&Value::Null), after.get(section).unwrap_or(&Value::Null));
        unknown.extend(unknown_in(&format!("{section}."), before, after, known, is_complete));
    }
    unknown
}

fn unknown_in(
    prefix: &str,
    before: &Value,
    after: &Value,
    known: &[&str],
    is_complete: bool,
) -> Vec<(String, Option<String>)> {
    let Some(after) = after.as_object() else { return Vec::new() };
    let names: Vec<String> = known.iter().map(|name| (*name).to_owned()).collect();
    let is_new = |name: &str| before.get(name).is_none() && !known.contains(&name);
    let like = |name: &str| close_match(name, &names).map(|like| format!("{prefix}{like}"));
    let new = after.iter().filter(|(name, _)| is_new(name)).map(|(name, value)| (name, value.is_object(), like(name)));
    let told = new.filter(|(_, is_section, like)| is_complete || (!is_section && like.is_some()));
    told.map(|(name, _, like)| (format!("{prefix}{name}"), like)).collect()
}

/// The versions of PostgreSQL that a parameter may be meant for.
const VERSIONS: std::ops::RangeInclusive<u32> = 12..=18;

/// New values that would not take effect as they stand, each with what the members would make of it.
pub(super) fn unusable_settings(before: &Value, after: &Value, limits: Limits) -> Vec<String> {
    let found = |document: &Value| {
        let document = document.as_object().cloned().unwrap_or_default();
        Dynamic { limits, ..Dynamic::default() }.after(&document).1
    };
    let old = found(before);
    let new = found(after).into_iter().filter(|finding| !old.contains(finding)).map(|finding| {
        // What Patroni logs of such a value names it already.
        let message = finding.message.trim_start_matches("Exception when setting dynamic_configuration: ");
        message.trim_end_matches(", adjusting...").to_owned()
    });
    let parameters = |document: &Value| {
        let found = document.pointer("/postgresql/parameters").and_then(Value::as_object);
        found.cloned().unwrap_or_default()
    };
    let old = parameters(before);
    let changed = parameters(after).into_iter().filter(|(name, value)| old.get(name) != Some(value));
    new.chain(changed.filter_map(|(name, value)| unusable_parameter(&name, &value))).collect()
}

/// Nothing is said of what any version takes: which one the members run is not known here.
fn unusable_parameter(name: &str, value: &Value) -> Option<String> {
    let text = match value {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let judged = VERSIONS.rev().map(|major| parameters::check(name, &text, major * 10_000));
    let mut warning = None;
    for checked in judged {
        match checked {
            Checked::Accepted => return None,
            Checked::Adjusted { warning: said, .. } | Checked::Removed { warning: said } => {
                warning.get_or_insert(said);
            }
            Checked::Unknown if parameters::is_recovery_parameter(name) => return None,
            Checked::Unknown => {}
        }
    }
    let newest = VERSIONS.end() * 10_000;
    let unknown = || {
        let names: Vec<String> = parameters::known(newest).map(str::to_owned).collect();
        let meant = close_match(name, &names).map(|like| format!("; did you mean `{like}`?")).unwrap_or_default();
        format!("`postgresql.parameters.{name}` is no parameter that is known{meant}")
    };
    Some(warning.unwrap_or_else(unknown))
}

/// What is said of a setting that is to be removed and is not there: what may have been meant, if anything.
pub(super) fn absent(document: &Map<String, Value>, path: &str) -> Option<String> {
    let (mut section, mut walked) = (document, String::new());
    let parts: Vec<&str> = match path.strip_prefix(PARAMETERS) {
        Some(parameter) => vec!["postgresql", "parameters", parameter],
        None => path.split('.').collect(),
    };
    for part in parts {
        let Some(value) = section.get(part) else {
            let names: Vec<String> = section.keys().cloned().collect();
            let like = close_match(part, &names).map(|like| format!("; did you mean `{walked}{like}`?"));
            return Some(format!("`{path}` is not set, so it cannot be removed{}", like.unwrap_or_default()));
        };
        walked.push_str(&format!("{part}."));
        match value {
            Value::Object(inner) => section = inner,
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn settings_make_and_unmake_objects() {
        let document = with_setting(Map::new(), "a.b.c", json!(1));
        assert_eq!(Value::Object(document.clone()), json!({ "a": { "b": { "c": 1 } } }));
        assert_eq!(Value::Object(with_setting(document, "a.b.c", Value::Null)), json!({}));
        let document = with_setting(Map::new(), "postgresql.parameters.my.guc", json!("x"));
        assert_eq!(Value::Object(document), json!({ "postgresql": { "parameters": { "my.guc": "x" } } }));
        assert_eq!(Value::Object(with_setting(map(json!({ "a": 1 })), "a.b", json!(2))), json!({ "a": { "b": 2 } }));
    }

    #[test]
    fn a_typo_is_found() {
        let found = unknown_settings(&json!({ "old": 1 }), &json!({ "old": 1, "ttl": 1, "lop_wait": 2, "zz": 3 }));
        assert_eq!(found, [("lop_wait".to_owned(), Some("loop_wait".to_owned())), ("zz".to_owned(), None)]);
        let after = json!({"postgresql": {"use_slot": true, "pgbackrest": {"command": "x"}, "wal": 5}});
        let meant = Some("postgresql.use_slots".to_owned());
        assert_eq!(unknown_settings(&json!({}), &after), [("postgresql.use_slot".to_owned(), meant)]);
        let found = unknown_settings(&json!({}), &json!({"standby_cluster": {"host": "h", "zz": 1}}));
        assert_eq!(found, [("standby_cluster.zz".to_owned(), None)]);
    }

    #[test]
    fn what_would_not_take_effect_is_told() {
        let said = |after: Value, limits| unusable_settings(&json!({"loop_wait": "x"}), &after, limits);
        let ours = |after| said(after, Limits::Ours);
        for (after, words) in [
            (json!({"ttl": "abc"}), "ttl='abc' is not an integer"),
            (json!({"ttl": 30, "loop_wait": 0}), "loop_wait=0 can't be smaller than 1"),
            (json!({"ttl": 20, "retry_timeout": 15}), "Violated the rule"),
            (json!({"maximum_lag_on_failover": "much"}), "maximum_lag_on_failover"),
            (json!({"postgresql": 5}), "postgresql is not a mapping"),
            (json!({"postgresql": {"parameters": {"work_mem": "a lot"}}}), "work_mem"),
            (json!({"postgresql": {"parameters": {"max_connections": 0}}}), "max_connections"),
            (json!({"postgresql": {"parameters": {"work_men": "1MB"}}}), "did you mean `work_mem`?"),
        ] {
            let found = ours(after.clone());
            assert!(found.len() == 1 && found[0].contains(words), "{after}: {found:?}");
        }
        for fine in [
            json!({"ttl": 6, "retry_timeout": 1, "loop_wait": 1}),
            json!({"loop_wait": "x"}),
            json!({"postgresql": {"parameters": {"work_mem": "8MB", "my.guc": 1, "wal_keep_segments": 8, "log_statement": null}}}),
            json!({"postgresql": {"parameters": {"restore_command": "cp %f %p", "hot_standby": "on"}}}),
        ] {
            assert_eq!(ours(fine.clone()), [""; 0], "{fine}");
        }
        let theirs = said(json!({"ttl": 6, "retry_timeout": 1, "loop_wait": 1}), Limits::Patroni);
        assert!(theirs.iter().any(|said| said.contains("ttl=6 can't be smaller than 20")), "{theirs:?}");
    }

    #[test]
    fn what_is_not_there_cannot_be_removed() {
        let document = map(json!({"ttl": 1, "postgresql": {"parameters": {"work_mem": 1, "my.guc": 2}}}));
        assert_eq!(absent(&document, "ttl"), None);
        assert_eq!(absent(&document, "postgresql.parameters.my.guc"), None);
        assert!(absent(&document, "tll").unwrap().ends_with("did you mean `ttl`?"));
        let said = absent(&document, "postgresql.parameters.work_men").unwrap();
        assert!(said.ends_with("did you mean `postgresql.parameters.work_mem`?"), "{said}");
        assert!(absent(&document, "zz.y").unwrap().ends_with("cannot be removed"));
    }
}
