//! Values as Python prints them.

use serde_json::{Map, Value};

use crate::config::merge::text;

/// Keys whose values are not shown.
const SECRETS: [&str; 7] =
    ["password", "keyfile_password", "key_password", "sslpassword", "token", "auth_data", "PGPASSWORD"];

/// The value at `path` as `print` shows it, passwords as stars.
pub(super) fn shown(path: &str, value: &Value) -> String {
    if path.rsplit('.').next().is_some_and(is_secret) {
        return "***".to_owned();
    }
    // A text in the place of a user may be anything, also `user:password`.
    let is_user = path.split('.').rev().nth(1) == Some("authentication") || path.ends_with("authentication");
    match value {
        Value::String(_) if is_user => "***".to_owned(),
        Value::Array(_) | Value::Object(_) => repr(value),
        value => text(value),
    }
}

fn is_secret(key: &str) -> bool {
    SECRETS.contains(&key)
}

fn repr(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(items) => format!("[{}]", items.iter().map(repr).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => repr_map(map),
        value => text(value),
    }
}

fn repr_map(map: &Map<String, Value>) -> String {
    let pair = |(key, value): (&String, &Value)| {
        let value = if is_secret(key) { "***".to_owned() } else { repr(value) };
        format!("{}: {value}", quoted(key))
    };
    format!("{{{}}}", map.iter().map(pair).collect::<Vec<_>>().join(", "))
}

fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_as_python_prints_them() {
        assert_eq!(shown("a", &json!("it's")), "it's");
        assert_eq!(shown("a", &json!(true)), "True");
        assert_eq!(shown("a", &json!(null)), "None");
        assert_eq!(shown("a", &json!(["x", 1, 1.0, null, {"k": "it's"}])), "['x', 1, 1.0, None, {'k': \"it's\"}]");
        assert_eq!(shown("a", &json!(["\n\u{1}é"])), "['\\n\\x01é']");
    }

    #[test]
    fn passwords_are_stars() {
        assert_eq!(shown("etcd3.password", &json!(5)), "***");
        assert_eq!(shown("restapi.authentication", &json!("u:p")), "***");
        assert_eq!(shown("postgresql.authentication.superuser", &json!("u:p")), "***");
        assert_eq!(shown("postgresql.authentication", &json!({"a": {"password": 1}})), "{'a': {'password': ***}}");
    }
}
