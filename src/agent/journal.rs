//! The last decisions with what they were made of, as JSON lines: a bug report that is a test case.

use std::collections::VecDeque;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Value, json};

use crate::ha::{Decision, Memory, Observation};

/// How many decisions are kept.
const KEPT: usize = 200;

/// How much text is kept, in bytes: a large cluster with a large configuration must not make the agent large.
const KEPT_BYTES: usize = 1 << 20;

/// What stands in the place of a secret.
const HIDDEN: &str = "***";

/// A ring of JSON lines `{"seen": …, "memory": …, "decision": …}`: from the first two follows the third.
#[derive(Debug, Default)]
pub(super) struct Journal {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Journal {
    /// Adds a decision; the oldest go when the ring is full. Heartbeats are not worth a line each.
    pub(super) fn record(&mut self, seen: &Observation, memory: &Memory, decision: &Decision) {
        if decision.reason.is_heartbeat() && decision.notes.is_empty() {
            return;
        }
        let mut line = json!({"seen": seen, "memory": memory, "decision": decision});
        hide_secrets(&mut line);
        let line = line.to_string();
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.lines.len() > KEPT || (self.bytes > KEPT_BYTES && self.lines.len() > 1) {
            self.bytes -= self.lines.pop_front().map_or(0, |oldest| oldest.len());
        }
    }

    /// The lines, oldest first.
    pub(super) fn lines(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }
}

/// Configurations and connection strings may hold passwords; decisions do not depend on them.
fn hide_secrets(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let key = key.to_lowercase();
                if ["password", "passwd", "passphrase", "secret", "token"].iter().any(|word| key.contains(word)) {
                    if !value.is_null() {
                        *value = HIDDEN.into();
                    }
                } else {
                    hide_secrets(value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(hide_secrets),
        Value::String(text) => {
            static SECRET: LazyLock<Regex> = LazyLock::new(|| {
                Regex::new(r"(?i)((?:password|passwd|passphrase)\s*=\s*)(?:'(?:[^'\\]|\\.)*'|[^\s'&]+)|(://[^/\s:@]*:)[^/\s@]+@")
                    .expect("the pattern is valid")
            });
            if SECRET.is_match(text) {
                let hidden =
                    SECRET.replace_all(text, |found: &regex::Captures<'_>| match (found.get(1), found.get(2)) {
                        (Some(before), _) => format!("{}{HIDDEN}", before.as_str()),
                        (_, Some(before)) => format!("{}{HIDDEN}@", before.as_str()),
                        _ => HIDDEN.to_owned(),
                    });
                *text = hidden.into_owned();
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_wherever_they_stand() {
        let mut value = json!({
            "authentication": {"superuser": {"username": "postgres", "password": "one"}},
            "primary_conninfo": "host=a password=two user=b passfile=/x",
            "quoted": "password = 'th ree' host=c",
            "url": "postgres://me:four@host:5432/db",
            "token_file": null,
            "list": [{"sslpassword": "five"}, "plain host:5432"],
        });
        hide_secrets(&mut value);
        assert_eq!(
            value,
            json!({
                "authentication": {"superuser": {"username": "postgres", "password": "***"}},
                "primary_conninfo": "host=a password=*** user=b passfile=/x",
                "quoted": "password = *** host=c",
                "url": "postgres://me:***@host:5432/db",
                "token_file": null,
                "list": [{"sslpassword": "***"}, "plain host:5432"],
            })
        );
    }
}
