//! Changing a configuration document. Pure.

use serde_json::{Map, Value};

/// Merges a patch: null removes, objects merge, anything else replaces when it reads differently. What did not exist
/// is copied as it is, nulls inside it included.
pub(super) fn with_patch(mut document: Map<String, Value>, patch: Map<String, Value>) -> Map<String, Value> {
    for (name, value) in patch {
        let old = document.get_mut(&name);
        match (value, old) {
            (Value::Null, _) => {
                document.shift_remove(&name);
            }
            (Value::Object(inner), Some(Value::Object(old))) => *old = with_patch(std::mem::take(old), inner),
            (value, Some(old)) => {
                if value.is_object() || as_text(old) != as_text(&value) {
                    *old = value;
                }
            }
            (value, None) => {
                document.insert(name, value);
            }
        }
    }
    document
}

/// `20` and `"20"` read the same.
fn as_text(value: &Value) -> String {
    crate::ctl::render::cell_text(&Some(value.clone()))
}

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

/// Equal as Python sees it: `20` is `20.0`, and `true` is `1`.
pub(super) fn is_same(a: &Value, b: &Value) -> bool {
    let number = |value: &Value| match value {
        Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
        Value::Number(number) => number.as_f64(),
        _ => None,
    };
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| is_same(value, other)))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b)),
        _ => match (number(a), number(b)) {
            (Some(a), Some(b)) => a == b,
            _ => a == b,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn a_patch_removes_merges_and_copies() {
        let old = map(json!({ "a": 1, "b": { "x": 1, "y": 2 }, "c": "20" }));
        let patch = map(json!({ "a": null, "b": { "x": null, "z": 3 }, "c": 20, "new": { "n": null }, "gone": null }));
        let expected = json!({ "b": { "y": 2, "z": 3 }, "c": "20", "new": { "n": null } });
        assert_eq!(Value::Object(with_patch(old, patch)), expected);
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
    fn sameness_is_pythons() {
        assert!(is_same(&json!({ "a": [20, 1] }), &json!({ "a": [20.0, true] })));
        assert!(!is_same(&json!({ "a": "20" }), &json!({ "a": 20 })));
    }
}
