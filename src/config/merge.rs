//! How one document is laid over another, and when two values count as the same.
//!
//! Both rules are Patroni's and visible to operators: `PATCH /config` with `"20"` over `20` changes nothing, `null`
//! removes a key.

use serde_json::{Map, Value};

use super::yaml::float_text;

/// Lays `patch` over `target` and says whether anything changed.
///
/// Per key: `null` removes; a map onto a map is patched in turn; anything else replaces what is there unless its text
/// is the same; a key that is not there yet is stored as it is, nulls inside it included (so `{"slots": {"a": null}}`
/// onto a document without `slots` makes the physical slot `a`).
pub fn patch(target: &mut Map<String, Value>, patch: &Map<String, Value>) -> bool {
    let mut has_changed = false;
    for (name, value) in patch {
        has_changed |= match (target.get_mut(name), value) {
            (None, Value::Null) => false,
            (None, value) => {
                target.insert(name.clone(), value.clone());
                true
            }
            // Not `swap_remove`: the order of the other keys is part of the document.
            (Some(_), Value::Null) => target.shift_remove(name).is_some_and(|old| !old.is_null()),
            (Some(Value::Object(old)), Value::Object(new)) => self::patch(old, new),
            (Some(old), new) if new.is_object() || text(old) != text(new) => {
                *old = new.clone();
                true
            }
            _ => false,
        };
    }
    has_changed
}

/// Whether two values are the same for the question "did it change": maps by their keys, recursively; everything else
/// by its text, so `1` equals `"1"`.
pub fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => same_maps(one, other),
        (Value::Object(_), _) | (_, Value::Object(_)) => false,
        _ => text(one) == text(other),
    }
}

/// [`same`] for two documents.
pub fn same_maps(one: &Map<String, Value>, other: &Map<String, Value>) -> bool {
    one.len() == other.len()
        && one.iter().all(|(key, value)| other.get(key).is_some_and(|counterpart| same(value, counterpart)))
}

/// Whether two values are equal as Python compares them: numbers by value (`20` equals `20.0`, `true` equals `1`), maps
/// in any order, text only with text.
pub fn equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, value)| other.get(key).is_some_and(|counterpart| equal(value, counterpart)))
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(a, b)| equal(a, b))
        }
        _ => one == other || number(one).is_some_and(|a| number(other) == Some(a)),
    }
}

/// The text of a value as Python's `str` gives it for everything but lists and maps: `True`, `None`, `1.0`. It decides
/// equality here, and it is how values stand in log lines that are Patroni's.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => float_text(float),
            _ => number.to_string(),
        },
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
        // Two integers too large for a float have been compared exactly before.
        Value::Number(number) if number.is_f64() => number.as_f64(),
        Value::Number(number) => number.as_f64().filter(|float| float.abs() < 9e15),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml::tests::value;
    use proptest::prelude::*;
    use serde_json::json;

    fn patched(target: Value, with: Value) -> (Value, bool) {
        let (Value::Object(mut target), Value::Object(with)) = (target, with) else { panic!("maps wanted") };
        let has_changed = patch(&mut target, &with);
        (Value::Object(target), has_changed)
    }

    #[test]
    fn null_removes_and_maps_are_patched_in_turn() {
        let before = json!({"a": 1, "b": {"c": 2, "d": 3}, "e": 4});
        let (after, has_changed) = patched(before, json!({"a": null, "b": {"c": null, "x": 5}, "y": null}));
        assert!(has_changed);
        assert_eq!(after.to_string(), r#"{"b":{"d":3,"x":5},"e":4}"#);
    }

    #[test]
    fn the_same_text_is_no_change() {
        let before = json!({"ttl": 20, "on": true, "list": [1, "a"]});
        assert_eq!(
            patched(before.clone(), json!({"ttl": "20", "on": "True", "list": [1, "a"]})),
            (before.clone(), false)
        );
        assert_eq!(patched(before.clone(), json!({"gone": null})), (before.clone(), false));
        assert!(patched(before.clone(), json!({"ttl": 20.0})).1, "20.0 has another text");
        assert!(patched(before, json!({"on": "true"})).1);
    }

    #[test]
    fn a_new_key_keeps_the_nulls_inside() {
        assert_eq!(patched(json!({}), json!({"slots": {"a": null}})), (json!({"slots": {"a": null}}), true));
        assert_eq!(patched(json!({"slots": {}}), json!({"slots": {"a": null}})), (json!({"slots": {}}), false));
        assert_eq!(patched(json!({"a": 1}), json!({"a": {"b": null}})), (json!({"a": {"b": null}}), true));
        assert_eq!(patched(json!({"a": {"b": 1}}), json!({"a": 1})), (json!({"a": 1}), true));
    }

    #[test]
    fn sameness_is_by_text_and_key_sets() {
        assert!(same(&json!({"a": 1, "b": {"c": "x"}}), &json!({"b": {"c": "x"}, "a": "1"})));
        assert!(!same(&json!({"a": 1}), &json!({"a": 1, "b": null})));
        assert!(!same(&json!({"a": {}}), &json!({"a": "{}"})));
        assert!(!same(&json!([1]), &json!(["1"])));
        assert!(!same(&json!(null), &json!("null")));
    }

    #[test]
    fn equality_is_by_number() {
        assert!(equal(&json!({"ttl": 20, "l": [true]}), &json!({"l": [1.0], "ttl": 20.0})));
        assert!(!equal(&json!(20), &json!("20")));
        assert!(!equal(&json!(u64::MAX), &json!(u64::MAX - 1)));
    }

    fn document() -> impl Strategy<Value = Map<String, Value>> {
        prop::collection::btree_map("[a-c]", value(), 0..4).prop_map(Map::from_iter)
    }

    fn without_nulls(value: &Value) -> bool {
        match value {
            Value::Null => false,
            Value::Array(_) => true,
            Value::Object(map) => map.values().all(without_nulls),
            _ => true,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn patching_settles(target in document(), with in document()) {
            let mut once = target.clone();
            patch(&mut once, &with);
            let mut twice = once.clone();
            let changed_again = patch(&mut twice, &with);
            if with.values().all(|value| value.is_null() || without_nulls(value)) {
                prop_assert!(!changed_again);
                prop_assert_eq!(&once, &twice);
            }
            // A null inside a new key is stored by the first patch and removed by the second; then nothing is left.
            let mut thrice = twice.clone();
            prop_assert!(!patch(&mut thrice, &with));
            prop_assert_eq!(&twice, &thrice);
        }

        #[test]
        fn a_patch_that_changes_nothing_leaves_the_same(target in document(), with in document()) {
            let mut after = target.clone();
            if !patch(&mut after, &with) {
                let had_nulls = target.values().any(|value| !without_nulls(value));
                prop_assert!(had_nulls || same_maps(&target, &after));
            }
        }

        #[test]
        fn sameness_is_reflexive_and_symmetric(one in value(), other in value()) {
            prop_assert!(same(&one, &one) && equal(&one, &one));
            prop_assert_eq!(same(&one, &other), same(&other, &one));
            prop_assert_eq!(equal(&one, &other), equal(&other, &one));
        }
    }
}
