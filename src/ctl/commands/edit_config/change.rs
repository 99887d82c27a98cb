//! Changing a configuration document. Pure.

use serde_json::{Map, Value};

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
}
