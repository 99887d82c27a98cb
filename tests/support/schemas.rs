//! Whatever the CLI writes as a document is held to the schema of its kind, more strictly than the schema itself: a key
//! that it does not know is an error here, so that a new one is not forgotten in the types.

use std::path::Path;

use boon::{Compiler, Schemas};
use serde_json::Value;

/// Checks what a command wrote if it was asked for JSON or YAML in our personality.
pub(crate) fn check(words: &[&str], stdout: &str) {
    let after: Vec<&str> = words.iter().skip(1).copied().collect();
    let is_query = after.contains(&"query");
    let asks = |word: &str| {
        after.windows(2).any(|pair| pair[1] == word && (pair[0] == "--format" || (pair[0] == "-f" && !is_query)))
    };
    let is_theirs = Path::new(words[0]).file_name().is_some_and(|name| name == "patronictl");
    if is_theirs || after.iter().any(|word| ["-w", "-W", "--help"].contains(word)) {
        return;
    }
    let document = match (asks("json"), asks("yaml")) {
        (true, _) => serde_json::from_str(stdout).unwrap_or_else(|error| panic!("{words:?}: {error}: {stdout}")),
        (_, true) => pgherd::config::yaml::read(stdout).unwrap_or_else(|error| panic!("{words:?}: {error}: {stdout}")),
        _ => return,
    };
    validate(&document).unwrap_or_else(|why| panic!("{words:?}: {why}: {stdout}"));
}

fn validate(document: &Value) -> Result<(), String> {
    let kind = document["kind"].as_str().ok_or("a document without `kind`")?;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/schemas/{kind}.json"));
    let text = std::fs::read_to_string(path).map_err(|error| format!("{kind} has no schema: {error}"))?;
    let mut schema: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    close(&mut schema);
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.add_resource("schema.json", schema).map_err(|error| error.to_string())?;
    let compiled = compiler.compile("schema.json", &mut schemas).map_err(|error| error.to_string())?;
    schemas.validate(document, compiled).map_err(|error| format!("{error:#}"))
}

/// No other keys than those that are named.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.contains_key("properties") {
                map.insert("additionalProperties".to_owned(), false.into());
            }
            map.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

#[test]
fn what_is_wrong_with_a_document_is_seen() {
    let good = serde_json::json!({
        "apiVersion": "pgherd/v1", "kind": "Dsn", "cluster": "demo", "member": "pg1", "role": "leader",
        "host": "h", "port": 5432, "dsn": "host=h port=5432",
    });
    validate(&good).unwrap();
    for (key, value) in [
        ("apiVersion", "pgherd/v2".into()),
        ("kind", "Nothing".into()),
        ("port", "5432".into()),
        ("role", "boss".into()),
        ("another", 1.into()),
        ("host", Value::Null),
    ] {
        let mut bad = good.clone();
        bad[key] = value;
        assert!(validate(&bad).is_err(), "{key}");
    }
    let mut less = good;
    less.as_object_mut().unwrap().remove("dsn");
    assert!(validate(&less).is_err());
}
