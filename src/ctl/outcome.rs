//! What became of a command, as one document: for whoever asked for `-f json`, `yaml` or `tsv`.
//!
//! A command that changes something tells its results as it goes. When a document is wanted they are kept instead, and
//! written at the end; prompts, progress and complaints stay on stderr as ever. An error is a document as well.

use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Cli;
use super::commands::Command;
use super::error::{CtlError, ErrorKind};
use super::exit::Exit;
use super::render::{Format, ours, yaml};
use super::ui::Ui;

/// What became of one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberOutcome {
    /// Its name.
    pub name: String,
    /// A word for the exit code that this alone would have.
    pub result: &'static str,
    /// What was said of it.
    pub reason: String,
    /// What to do next, if there is something.
    pub next: Option<String>,
}

/// What is known so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Notes {
    messages: Vec<String>,
    members: Vec<MemberOutcome>,
    leader_before: Option<String>,
    leader: Option<String>,
    has_looked: bool,
}

/// Takes notes while a command runs.
#[derive(Debug, Default)]
pub struct Record(Mutex<Notes>);

impl Record {
    fn note(&self, note: impl FnOnce(&mut Notes)) {
        note(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Something that was achieved, or not.
    pub fn message(&self, text: &str) {
        self.note(|notes| notes.messages.push(text.to_owned()));
    }

    /// What became of a member; what comes later about the same member replaces it.
    pub fn member(&self, name: &str, end: Exit, reason: &str, next: Option<&str>) {
        let (name, reason, next) = (name.to_owned(), reason.to_owned(), next.map(str::to_owned));
        self.note(|notes| {
            notes.members.retain(|member| member.name != name);
            notes.members.push(MemberOutcome { name, result: end.word(), reason, next });
        });
    }

    /// Who leads, whenever it is looked at.
    pub fn leader(&self, name: Option<&str>) {
        self.note(|notes| {
            notes.leader = name.map(str::to_owned);
            if !notes.has_looked {
                notes.has_looked = true;
                notes.leader_before.clone_from(&notes.leader);
            }
        });
    }
}

/// Writes the document of a command that has ended, if one was asked for. `scope` is the cluster where none was named.
pub fn tell(
    ui: &Ui,
    cli: &Cli,
    scope: Option<&str>,
    record: &Record,
    result: &Result<Exit, CtlError>,
) -> Result<(), CtlError> {
    let command = &cli.command;
    let Some(format) = cli.global.own.format.filter(|format| *format != Format::Pretty) else { return Ok(()) };
    let notes = record.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let document = match result {
        Ok(_) if !command.reports() => return Ok(()),
        Ok(end) => outcome(head(command, scope, *end), &notes),
        Err(error) if error.kind == ErrorKind::ClosedPipe => return Ok(()),
        Err(error) => failure(head(command, scope, error.end()), notes, error),
    };
    match format {
        Format::Json => ui.data(&ours::json(&document)),
        Format::Yaml | Format::Yml => ui.data(&yaml::ours(&document)),
        // A table of other things has no place for an error.
        _ if !command.reports() => Ok(()),
        _ => ui.data(&tsv(&document)),
    }
}

fn outcome(mut body: Map<String, Value>, notes: &Notes) -> Value {
    let rest = json!({
        "leader_before": notes.leader_before,
        "leader": notes.leader,
        "messages": notes.messages,
        "members": notes.members,
    });
    body.extend(rest.as_object().cloned().unwrap_or_default());
    ours::document("Outcome", Value::Object(body))
}

fn failure(mut body: Map<String, Value>, mut notes: Notes, error: &CtlError) -> Value {
    let end = error.end();
    if let Some(name) = error.member().map(str::to_owned) {
        let reason = error.causes().join(": ");
        notes.members.push(MemberOutcome { name, result: end.word(), reason, next: error.hint.clone() });
    }
    let rest = json!({
        "message": error.better.as_ref().unwrap_or(&error.message),
        "causes": error.causes(),
        "next": error.hint,
        "members": notes.members,
    });
    body.extend(rest.as_object().cloned().unwrap_or_default());
    ours::document("Error", Value::Object(body))
}

fn head(command: &Command, scope: Option<&str>, end: Exit) -> Map<String, Value> {
    let (word, cluster) = command.subject();
    let head = json!({ "command": word, "cluster": cluster.or(scope), "result": end.word(), "exit": end.code() });
    head.as_object().cloned().unwrap_or_default()
}

/// One line per member, or one for the whole.
fn tsv(document: &Value) -> String {
    let text = |value: &Value, key: &str| match value.get(key) {
        Some(Value::String(text)) => text.replace(['\t', '\n'], " "),
        _ => String::new(),
    };
    let (command, cluster) = (text(document, "command"), text(document, "cluster"));
    let mut lines = vec!["command\tcluster\tmember\tresult\tmessage".to_owned()];
    let members = document["members"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of_member = |member: &Value| {
        let (name, result, reason) = (text(member, "name"), text(member, "result"), text(member, "reason"));
        format!("{command}\t{cluster}\t{name}\t{result}\t{reason}")
    };
    lines.extend(members.iter().map(of_member));
    if members.is_empty() {
        let messages: Vec<&str> =
            document["messages"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let said = if messages.is_empty() { text(document, "message") } else { messages.join("; ").replace('\t', " ") };
        lines.push(format!("{command}\t{cluster}\t\t{}\t{said}", text(document, "result")));
    }
    lines.join("\n")
}
