//! The walk over a document along the table.

use serde_json::{Map, Value};

use super::checks;
use super::python::shown;
use super::table::{Entry, NEEDED_PROGRAMS, Rule, TOP};
use super::{Problem, Strictness, Surroundings};

pub(super) struct Walk<'a> {
    pub(super) document: &'a Map<String, Value>,
    pub(super) surroundings: &'a dyn Surroundings,
    pub(super) strictness: Strictness,
    problems: Vec<Problem>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        document: &'a Map<String, Value>,
        surroundings: &'a dyn Surroundings,
        strictness: Strictness,
    ) -> Self {
        Self { document, surroundings, strictness, problems: Vec::new() }
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    pub(super) fn top(&mut self) {
        self.section("", self.document, TOP);
    }

    fn section(&mut self, path: &str, map: &Map<String, Value>, entries: &[Entry]) {
        for entry in entries {
            match entry {
                Entry::Must(key, rule) => self.key(path, map, key, rule),
                Entry::May(key, rule) if map.contains_key(*key) => self.key(path, map, key, rule),
                Entry::May(..) => {}
                Entry::OrEmpty(key, rule) => {
                    let empty = Value::from("");
                    self.value(&join(path, key), map.get(*key).unwrap_or(&empty), rule);
                }
                Entry::AnyOf(keys) => {
                    let is_any_there = keys.iter().any(|(key, _)| map.contains_key(*key));
                    for (key, rule) in keys.iter().filter(|(key, _)| !is_any_there || map.contains_key(*key)) {
                        self.key(path, map, key, rule);
                    }
                }
                Entry::OneAtMost(keys) => {
                    if keys.iter().all(|(key, _)| map.contains_key(*key)) {
                        let [(one, _), (other, _)] = keys;
                        let message = format!("Multiple of ('{one}', '{other}') provided");
                        self.problem(path, String::new(), message, "one of them".to_owned());
                        continue;
                    }
                    for (key, rule) in keys.iter().filter(|(key, _)| map.contains_key(*key)) {
                        self.key(path, map, key, rule);
                    }
                }
            }
        }
    }

    fn key(&mut self, path: &str, map: &Map<String, Value>, key: &str, rule: &Rule) {
        let path = join(path, key);
        match map.get(key) {
            Some(value) => self.value(&path, value, rule),
            None => self.problem(&path, String::new(), "is not defined.".to_owned(), rule.wanted()),
        }
    }

    fn value(&mut self, path: &str, value: &Value, rule: &Rule) {
        match rule {
            Rule::Section(entries) => match value {
                Value::Object(map) => self.section(path, map, entries),
                _ => self.wrong_type(path, value, rule, "a dictionary"),
            },
            Rule::List(item) => match value {
                Value::Array(items) => self.items(path, value, items, item),
                _ => self.wrong_type(path, value, rule, "a list"),
            },
            Rule::ReachableHosts => match value {
                Value::Array(items) => self.items(path, value, items, &Rule::Reachable),
                Value::String(_) => self.scalar(path, value, rule),
                _ => {
                    self.wrong_type(path, value, rule, "a string");
                    self.wrong_type(path, value, rule, "a list");
                }
            },
            Rule::NumberOrList => match value {
                Value::Array(items) => self.items(path, value, items, &Rule::Number),
                value if checks::is_integer(value) => {}
                _ => {
                    self.wrong_type(path, value, rule, "an integer");
                    self.wrong_type(path, value, rule, "a list");
                }
            },
            Rule::TextOrMapping if !value.is_string() && !value.is_object() => {
                self.wrong_type(path, value, rule, "a string");
                self.wrong_type(path, value, rule, "a dictionary");
            }
            Rule::Programs => self.programs(path, value),
            rule => self.scalar(path, value, rule),
        }
    }

    /// A list is told as the item that is wrong in it; what is inside an item is told with the whole item.
    fn items(&mut self, path: &str, list: &Value, items: &[Value], rule: &Rule) {
        if items.is_empty() {
            self.problem(path, shown(path, list), "is an empty list".to_owned(), rule.wanted());
        }
        for (index, item) in items.iter().enumerate() {
            let path = join(path, &index.to_string());
            let before = self.problems.len();
            self.value(&path, item, rule);
            for problem in &mut self.problems[before..] {
                problem.value = shown(&path, item);
            }
        }
    }

    fn scalar(&mut self, path: &str, value: &Value, rule: &Rule) {
        for message in checks::scalar(self, value, rule) {
            self.problem(path, shown(path, value), message, rule.wanted());
        }
    }

    fn programs(&mut self, path: &str, value: &Value) {
        let Value::String(dir) = value else { return };
        let messages = checks::directory_of_programs(self, dir, &NEEDED_PROGRAMS);
        for message in messages {
            self.problem(path, String::new(), message, Rule::Programs.wanted());
        }
    }

    fn wrong_type(&mut self, path: &str, value: &Value, rule: &Rule, wanted: &str) {
        self.problem(path, shown(path, value), format!("is not {wanted}"), rule.wanted());
    }

    fn problem(&mut self, path: &str, value: String, message: String, wanted: String) {
        self.problems.push(Problem { path: path.to_owned(), value, message, wanted });
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Used by the tests: no key stands twice in a section, or its second rule would never be read.
#[cfg(test)]
pub(super) fn repeated_keys(entries: &[Entry], found: &mut Vec<String>) {
    let mut seen = std::collections::BTreeSet::new();
    for entry in entries {
        let keys: Vec<(&str, &Rule)> = match entry {
            Entry::Must(key, rule) | Entry::May(key, rule) | Entry::OrEmpty(key, rule) => vec![(*key, rule)],
            Entry::AnyOf(keys) => keys.iter().map(|(key, rule)| (*key, rule)).collect(),
            Entry::OneAtMost(keys) => keys.iter().map(|(key, rule)| (*key, rule)).collect(),
        };
        for (key, rule) in keys {
            if !seen.insert(key) {
                found.push(key.to_owned());
            }
            if let Rule::Section(inner) = rule {
                repeated_keys(inner, found);
            }
        }
    }
}
