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
        Value::String(text) => repr_text(text),
        Value::Array(items) => format!("[{}]", items.iter().map(repr).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => repr_map(map),
        value => text(value),
    }
}

fn repr_map(map: &Map<String, Value>) -> String {
    let pair = |(key, value): (&String, &Value)| {
        let value = if is_secret(key) { "***".to_owned() } else { repr(value) };
        format!("{}: {value}", repr_text(key))
    };
    format!("{{{}}}", map.iter().map(pair).collect::<Vec<_>>().join(", "))
}

/// `repr` of a text.
pub fn repr_text(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut quoted = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c == quote => quoted.extend(['\\', c]),
            c if is_printable(c) => quoted.push(c),
            c if u32::from(c) < 0x100 => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if u32::from(c) < 0x1_0000 => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    quoted.push(quote);
    quoted
}

/// What Python shows as it is: neither control nor format characters, private ones, or blanks other than the usual.
fn is_printable(c: char) -> bool {
    let is_blank = c.is_whitespace() && c != ' ';
    let is_format = matches!(u32::from(c), 0xad | 0x600..=0x605 | 0x61c | 0x200b..=0x200f | 0x202a..=0x202e
        | 0x2060..=0x206f | 0xfeff | 0xfff9..=0xfffb | 0xe0001..=0xe007f);
    let is_private = matches!(u32::from(c), 0xe000..=0xf8ff | 0xf_0000..=0x10_ffff);
    !(c.is_control() || is_blank || is_format || is_private)
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
