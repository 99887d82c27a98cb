//! Typed access to one section of a document, with a finding for every value that cannot be used.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::cluster::tags::as_boolish;

use super::finding::Finding;
use super::merge::text;
use super::parameters::units;
use super::secret::Secret;

/// Findings, collected while several sections are read.
#[derive(Default)]
pub(super) struct Findings(RefCell<Vec<Finding>>);

impl Findings {
    pub(super) fn add(&self, finding: Finding) {
        self.0.borrow_mut().push(finding);
    }

    pub(super) fn into_vec(self) -> Vec<Finding> {
        self.0.into_inner()
    }
}

/// A section; one that is absent reads as empty.
#[derive(Clone)]
pub(super) struct Section<'a> {
    map: Option<&'a Map<String, Value>>,
    path: String,
    findings: &'a Findings,
}

impl<'a> Section<'a> {
    pub(super) fn top(map: &'a Map<String, Value>, findings: &'a Findings) -> Self {
        Self { map: Some(map), path: String::new(), findings }
    }

    /// A section below this one.
    pub(super) fn section(&self, key: &str) -> Section<'a> {
        let map = match self.value(key) {
            Some(Value::Object(map)) => Some(map),
            Some(_) => {
                self.reject_value(key, "is not a mapping and is ignored");
                None
            }
            None => None,
        };
        Section { map, path: self.path_of(key), findings: self.findings }
    }

    pub(super) fn map(&self) -> Option<&'a Map<String, Value>> {
        self.map
    }

    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// A value, null as absent.
    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        self.map?.get(key).filter(|value| !value.is_null())
    }

    /// Text; numbers and booleans by their text, an empty text as absent.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        match self.value(key)? {
            Value::Array(_) | Value::Object(_) => {
                self.reject(key, "is not a text and is ignored");
                None
            }
            value => Some(text(value)).filter(|text| !text.is_empty()),
        }
    }

    /// Text that is not to be shown.
    pub(super) fn secret(&self, key: &str) -> Option<Secret> {
        self.text(key).map(Secret::new)
    }

    /// A boolean in any of its spellings.
    pub(super) fn flag(&self, key: &str, default: bool) -> bool {
        let Some(value) = self.value(key) else { return default };
        as_boolish(value).unwrap_or_else(|| {
            self.reject_value(key, &format!("is not a boolean (true or false); {default} is used"));
            default
        })
    }

    /// An integer, also as text and with a unit when there is a base unit.
    pub(super) fn integer(&self, key: &str, base_unit: Option<&str>) -> Option<i64> {
        let value = self.value(key)?;
        let number = units::integer(&text(value), base_unit);
        if number.is_none() {
            self.reject(key, &format!("'{}' is not an integer; the default is used", text(value)));
        }
        number
    }

    /// An integer, brought between bounds.
    pub(super) fn within(&self, key: &str, min: i64, max: i64) -> Option<i64> {
        let number = self.integer(key, None)?;
        let used = number.clamp(min, max);
        if used != number && max == i64::MAX {
            self.reject_value(key, &format!("is less than {min}; {used} is used"));
        } else if used != number {
            self.reject_value(key, &format!("is not from {min} to {max}; {used} is used"));
        }
        Some(used)
    }

    /// A list of texts; a text alone is a list of one.
    pub(super) fn texts(&self, key: &str) -> Option<Vec<String>> {
        match self.value(key)? {
            Value::Array(items) => {
                let is_scalar = |item: &&Value| !item.is_array() && !item.is_object() && !item.is_null();
                if !items.iter().all(|item| is_scalar(&item)) {
                    self.reject(key, "has items that are not texts; they are ignored");
                }
                Some(items.iter().filter(is_scalar).map(text).collect())
            }
            Value::Object(_) => {
                self.reject(key, "is not a list and is ignored");
                None
            }
            value => Some(vec![text(value)]),
        }
    }

    /// A mapping to texts.
    pub(super) fn text_map(&self, key: &str) -> BTreeMap<String, String> {
        self.section(key).text_keys()
    }

    /// The whole section as a mapping to texts.
    pub(super) fn text_keys(&self) -> BTreeMap<String, String> {
        let names = self.map.into_iter().flat_map(Map::keys);
        names.filter_map(|name| Some((name.clone(), self.text(name)?))).collect()
    }

    pub(super) fn warn(&self, key: &str, message: impl Into<String>) {
        self.findings.add(Finding::warning(self.path_of(key), message));
    }

    /// A remark with the value in it, unless it is a secret or too long to be one word.
    fn reject_value(&self, key: &str, message: &str) {
        let shown = self.value(key).filter(|value| !value.is_object() && !value.is_array()).map(text);
        match shown.filter(|text| text.len() <= 60 && key != "authentication" && !self.path.ends_with("authentication"))
        {
            Some(shown) => self.reject(key, &format!("'{shown}' {message}")),
            None => self.reject(key, message),
        }
    }

    fn reject(&self, key: &str, message: &str) {
        self.warn(key, format!("{} {message}", self.path_of(key)));
    }
}
