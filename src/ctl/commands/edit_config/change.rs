//! Changing a configuration document. Pure.

use serde_json::{Map, Value};

use crate::ctl::render::difflib::close_match;

/// Sets one value by its path. PostgreSQL parameters may have dots in their names. Null removes, and so goes an
/// object that is empty then.
pub(super) fn with_setting(document: Map<String, Value>, path: &str, value: Value) -> Map<String, Value> {
    const PARAMETERS: &str = "postgresql.parameters.";
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

/// New names at the top that nobody reads, each with the known name it looks like.
pub(super) fn unknown_settings(before: &Value, after: &Value) -> Vec<(String, Option<&'static str>)> {
    let Some(after) = after.as_object() else { return Vec::new() };
    let known = KNOWN.map(str::to_owned);
    let like = |name: &str| close_match(name, &known).and_then(|best| KNOWN.into_iter().find(|known| *known == best));
    let is_new = |name: &&String| before.get(name.as_str()).is_none() && !KNOWN.contains(&name.as_str());
    after.keys().filter(is_new).map(|name| (name.clone(), like(name))).collect()
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
        assert_eq!(found, [("lop_wait".to_owned(), Some("loop_wait")), ("zz".to_owned(), None)]);
    }
}
