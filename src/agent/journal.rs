//! The last decisions with what they were made of, as JSON lines: a bug report that is a test case.

use std::collections::VecDeque;

use serde_json::{Value, json};

use crate::ha::{Decision, Memory, Observation, Step};

/// How many decisions are kept.
const KEPT: usize = 200;

/// How much text is kept, in bytes: a large cluster with a large configuration must not make the agent large.
const KEPT_BYTES: usize = 1 << 19;

/// What stands in the place of a secret.
const HIDDEN: &str = "***";

/// How many decisions of one cycle are kept back until it is known how it ends.
const OPEN: usize = 16;

/// A ring of JSON lines `{"seen": …, "memory": …, "decision": …}`: from the first two follows the third.
#[derive(Debug, Default)]
pub(super) struct Journal {
    lines: VecDeque<String>,
    bytes: usize,
    /// What was decided on the way to the last word of a cycle.
    open: Vec<(Observation, Memory, Decision)>,
}

impl Journal {
    /// Adds a decision; the oldest go when the ring is full. Heartbeats are not worth a line each, nor is what was
    /// decided on the way to one: writing down why nothing happens would cost more than everything else in a cycle,
    /// and push out of the ring why something did.
    pub(super) fn record(&mut self, seen: &Observation, memory: &Memory, decision: &Decision) {
        if decision.again && self.open.len() < OPEN {
            self.open.push((seen.clone(), memory.clone(), decision.clone()));
            return;
        }
        let open = std::mem::take(&mut self.open);
        let mut all = open.iter().map(|(_, _, earlier)| earlier).chain([decision]);
        if !decision.again && decision.reason.is_heartbeat() && all.all(is_routine) {
            return;
        }
        open.iter().for_each(|(seen, memory, decision)| self.add(line(seen, memory, decision)));
        self.add(line(seen, memory, decision));
    }

    fn add(&mut self, line: String) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.lines.len() > KEPT || (self.bytes > KEPT_BYTES && self.lines.len() > 1) {
            self.bytes -= self.lines.pop_front().map_or(0, |oldest| oldest.len());
        }
    }

    /// The lines, oldest first.
    pub(super) fn lines(&self) -> Vec<String> {
        let open = self.open.iter().map(|(seen, memory, decision)| line(seen, memory, decision));
        self.lines.iter().cloned().chain(open).collect()
    }
}

/// It says nothing, and does what is done in every cycle.
fn is_routine(decision: &Decision) -> bool {
    let is_daily = |step: &Step| {
        matches!(
            step,
            Step::RenewLeader(_)
                | Step::WriteStatus(_)
                | Step::CompareFollow(_)
                | Step::SyncSlots(_)
                | Step::TendSlots(_)
                | Step::Publish(_)
        )
    };
    decision.notes.is_empty() && decision.steps.iter().all(is_daily)
}

fn line(seen: &Observation, memory: &Memory, decision: &Decision) -> String {
    let mut line = json!({"seen": seen, "memory": memory, "decision": decision});
    hide_secrets(&mut line);
    let mut line = line.to_string();
    // It was written into room for twice as much.
    line.shrink_to_fit();
    line
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
            if let Some(hidden) = without_secrets(text) {
                *text = hidden;
            }
        }
        _ => {}
    }
}

/// The text with what follows `password =`, and the password in an address, hidden; `None` if there is neither. Read by
/// hand: a compiled pattern for it would hold more memory than the journal.
fn without_secrets(text: &str) -> Option<String> {
    if !text.contains(['=', '@']) {
        return None;
    }
    let (mut hidden, mut copied, mut at) = (String::new(), 0, 0);
    while at < text.len() {
        match text.is_char_boundary(at).then(|| secret_at(text, at)).flatten() {
            Some((from, to)) => {
                hidden += &text[copied..from];
                hidden += HIDDEN;
                (copied, at) = (to, to);
            }
            None => at += 1,
        }
    }
    (copied > 0).then(|| hidden + &text[copied..])
}

/// Where the secret begins and ends that the words at this place announce.
fn secret_at(text: &str, at: usize) -> Option<(usize, usize)> {
    let rest = &text[at..];
    if let Some(address) = rest.strip_prefix("://") {
        let user = address.find(|c: char| matches!(c, '/' | ':' | '@') || c.is_whitespace())?;
        let password = address[user..].strip_prefix(':')?;
        let length = password.find(|c: char| matches!(c, '/' | '@') || c.is_whitespace())?;
        let from = text.len() - password.len();
        return (length > 0 && password[length..].starts_with('@')).then_some((from, from + length));
    }
    let is_word = |word: &&str| rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    let word = ["password", "passwd", "passphrase"].into_iter().find(is_word)?;
    let value = rest[word.len()..].trim_start().strip_prefix('=')?.trim_start();
    let from = text.len() - value.len();
    let length = match value.strip_prefix('\'') {
        Some(quoted) => 1 + closing_quote(quoted),
        None => value.find(|c: char| matches!(c, '\'' | '&') || c.is_whitespace()).unwrap_or(value.len()),
    };
    (length > 0).then_some((from, from + length))
}

/// How long a quoted value is with its closing quote; without one, everything is of it.
fn closing_quote(quoted: &str) -> usize {
    let mut is_escaped = false;
    for (i, byte) in quoted.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'\'' => return i + 1,
            _ => {}
        }
    }
    quoted.len()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::cluster::InstanceState;
    use crate::config::Dynamic;
    use crate::ha::{Done, Node, Snapshot, Watchdog, decide};

    fn observation(scope: &str) -> Observation {
        Observation {
            now_ms: 1,
            wall_ms: 1,
            node: Node { scope: scope.to_owned(), ..Node::default() },
            view: Snapshot::Read(Box::default()),
            settings: Dynamic::from_document(&serde_json::Map::new()).0,
            instance: InstanceState::default(),
            leads_until_ms: None,
            task: None,
            ended: None,
            requests: Vec::new(),
            failsafe: BTreeMap::new(),
            failsafe_ping: None,
            watchdog: Watchdog::default(),
            is_leaving: false,
            done: Done::default(),
        }
    }

    /// Neither many decisions nor long ones make it large, and the newest is always there, fit to be decided anew.
    #[test]
    fn it_keeps_the_newest_within_bounds() {
        for (scope, least) in
            [("demo".to_owned(), KEPT / 2), ("x".repeat(KEPT_BYTES / 10), 1), ("y".repeat(KEPT_BYTES), 1)]
        {
            let mut journal = Journal::default();
            let mut seen = observation(&scope);
            for now_ms in 1..=2 * u64::try_from(KEPT).unwrap() {
                seen.now_ms = now_ms;
                let memory = Memory::default();
                journal.record(&seen, &memory, &decide(&seen, &memory));
            }
            let lines = journal.lines();
            assert!(lines.len() >= least && lines.len() <= KEPT, "{}", lines.len());
            let bytes: usize = lines.iter().map(String::len).sum();
            assert!(bytes == journal.bytes && (bytes <= KEPT_BYTES || lines.len() == 1), "{bytes}");
            let mut line: Value = serde_json::from_str(lines.last().unwrap()).unwrap();
            let mut take = |part: &str| line[part].take();
            let again: Observation = serde_json::from_value(take("seen")).unwrap();
            let memory: Memory = serde_json::from_value(take("memory")).unwrap();
            let decision: Decision = serde_json::from_value(take("decision")).unwrap();
            assert_eq!(again, seen);
            assert_eq!(decide(&again, &memory), decision);
        }
    }

    fn decided(again: bool, reason: crate::ha::Reason) -> Decision {
        let seen = observation("demo");
        Decision { again, reason, notes: Vec::new(), steps: Vec::new(), ..decide(&seen, &Memory::default()) }
    }

    /// The way to a heartbeat leaves no line, the way to anything else all of its lines, and what is not at its end yet
    /// can be read.
    #[test]
    fn what_leads_to_a_heartbeat_is_no_news() {
        use crate::ha::Reason;
        let (seen, memory, mut journal) = (observation("demo"), Memory::default(), Journal::default());
        let asked = || decided(true, Reason::Alone { me: "a".into() });
        let heartbeat = Reason::Following { me: "a".into(), leader: "b".into(), is_standby_leader: false };
        assert!(heartbeat.is_heartbeat());
        for again in [true, true] {
            journal.record(&seen, &memory, &Decision { again, ..asked() });
        }
        assert_eq!(journal.lines().len(), 2);
        journal.record(&seen, &memory, &decided(false, heartbeat.clone()));
        assert!(journal.lines().is_empty());
        journal.record(&seen, &memory, &asked());
        let note = crate::ha::Note { level: crate::ha::Level::Info, text: "x".into() };
        journal.record(&seen, &memory, &Decision { notes: vec![note], ..asked() });
        journal.record(&seen, &memory, &decided(false, heartbeat.clone()));
        assert_eq!(journal.lines().len(), 3);
        let follow = Decision { steps: vec![Step::Follow(None)], ..decided(false, heartbeat) };
        journal.record(&seen, &memory, &follow);
        assert_eq!(journal.lines().len(), 4, "a heartbeat that does something is news");
        for _ in 0..3 * OPEN {
            journal.record(&seen, &memory, &asked());
            assert!(journal.open.len() <= OPEN);
        }
        assert_eq!(journal.lines().len(), 4 + 3 * OPEN);
    }

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

    #[test]
    fn secrets_are_found_in_the_middle_of_a_text() {
        for (text, hidden) in [
            ("PASSWD=a&x=1 passphrase =  b", Some("PASSWD=***&x=1 passphrase =  ***")),
            (r"password='it\'s' user=me", Some("password=*** user=me")),
            ("password='open end", Some("password=***")),
            ("häns password=ü sslpassword=ß", Some("häns password=*** sslpassword=***")),
            ("http://u:p@h, http://:q@i/x", Some("http://u:***@h, http://:***@i/x")),
            ("password= ", None),
            ("passfile=/x user=y", None),
            ("http://h:80/a@b", None),
            ("://:@", None),
            ("me@host password", None),
        ] {
            assert_eq!(without_secrets(text).as_deref(), hidden, "{text}");
        }
    }
}
