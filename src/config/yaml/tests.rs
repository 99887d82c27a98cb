//! Against recordings of PyYAML 6.0: what it read, and what it wrote.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

fn recording(text: &str) -> Vec<Value> {
    match serde_json::from_str(text).unwrap() {
        Value::Array(cases) => cases,
        Value::Object(mut document) => document["cases"].take().as_array().unwrap().clone(),
        other => panic!("not a recording: {other}"),
    }
}

/// Texts that PyYAML refuses and that mean something harmless here (a tab as separation, a recursive list and so on);
/// everything else must be refused too.
const READ_MORE_LENIENTLY: [&str; 5] = ["\ta: 1\n", "a:\t1\n", "a: 1\t# c\n", "a: !!timestamp 2030-01-01\n", "\t"];

#[test]
fn texts_are_read_as_pyyaml_reads_them() {
    let cases = recording(include_str!("../../../tests/fixtures/config/pyyaml_read.json"));
    let mut wrong = Vec::new();
    for case in &cases {
        let text = case["text"].as_str().unwrap();
        match (read(text), case.get("value")) {
            (Ok(value), Some(expected)) if value == *expected => {}
            (Err(_), None) => {}
            (Ok(_), None) if READ_MORE_LENIENTLY.contains(&text) => {}
            (got, expected) => wrong.push(format!("{text:?}: {got:?} instead of {expected:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn values_of_set_options_are_read_and_shown_as_recorded() {
    let cases = recording(include_str!("../../../tests/fixtures/config/yaml_values.json"));
    let mut wrong = Vec::new();
    for case in &cases {
        let text = case["text"].as_str().unwrap();
        let got = read(text);
        if matches!(case["type"].as_str(), Some("date" | "datetime")) || matches!(text, ".inf" | ".nan") {
            assert_eq!(got, Ok(json!(text)), "kept as text");
            continue;
        }
        match (&got, case.get("json")) {
            (Ok(value), Some(expected)) if value == expected => {
                let shown = write(&json!({"k": value}), true);
                if shown != case["shown"] && !text.starts_with("123456789012345678901") {
                    wrong.push(format!("{text:?} is shown as {shown:?} instead of {}", case["shown"]));
                }
            }
            (Err(_), None) => {}
            (Ok(_), None) if READ_MORE_LENIENTLY.contains(&text) => {}
            (_, expected) => wrong.push(format!("{text:?}: {got:?} instead of {expected:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn values_are_written_as_pyyaml_writes_them() {
    for case in recording(include_str!("../../../tests/fixtures/config/pyyaml_written.json")) {
        let value = &case["value"];
        assert_eq!(write(value, true), case["block"].as_str().unwrap(), "block style of {value}");
        assert_eq!(write(value, false), case["unsorted"].as_str().unwrap(), "unsorted block style of {value}");
        assert_eq!(write_flow(value, true), case["flow"].as_str().unwrap(), "flow style of {value}");
    }
}

#[test]
fn stored_configurations_are_shown_as_recorded() {
    for case in recording(include_str!("../../../tests/fixtures/config/show_config.json")) {
        let stored: Value = serde_json::from_str(case["stored"].as_str().unwrap()).unwrap();
        assert_eq!(write(&stored, true), case["shown"].as_str().unwrap());
    }
}

#[test]
fn errors_say_where() {
    let error = read("a: 1\nb: [1, 2\nc: 3\n").unwrap_err();
    assert!(error.line >= 2, "{error}");
    assert!(error.to_string().starts_with("line "), "{error}");
    let error = read("a: ok\nb: *missing\n").unwrap_err();
    assert_eq!(error.line, 2, "{error}");
    let error = read("a: 1\nb: \u{1}\n").unwrap_err();
    assert_eq!((error.line, error.column), (2, 4));
}

#[test]
fn a_small_text_cannot_ask_for_much() {
    let deep = "[".repeat(5000);
    assert!(read(&deep).is_err());
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let list = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{list}]\n"));
    }
    assert_eq!(read(&bomb).unwrap_err().message, "aliases repeat too many values");
}

fn text() -> impl Strategy<Value = String> {
    // Unicode line separators are breaks for YAML 1.1 (PyYAML writes them) and plain characters for YAML 1.2 (our
    // parser reads them), so a text with them does not come back.
    let odd = |c: &char| matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}');
    prop_oneof!["[ -~]{0,12}", "[a-z '\":#\n\t-]{0,300}", ".{0,40}"]
        .prop_filter("unicode breaks", move |text: &String| !text.chars().any(|c| odd(&c)))
}

pub(crate) fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 30, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            prop::collection::vec((text(), inner), 0..5).prop_map(|pairs| Value::Object(Map::from_iter(pairs))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back(value in value()) {
        let block = write(&value, false);
        prop_assert_eq!(&read(&block).map_err(|e| format!("{e}: {block:?}")).unwrap(), &value);
        let flow = write_flow(&value, false);
        prop_assert_eq!(&read(&flow).map_err(|e| format!("{e}: {flow:?}")).unwrap(), &value);
    }

    #[test]
    fn no_text_panics(text in prop_oneof![".{0,80}", "[-?:,\\[\\]{}#&*!|>'\"%@`a<= \n\t0-9_.]{0,40}"]) {
        let _ = read(&text);
    }
}
