//! What became of a command, as one document: for whoever asked for `-f json`, `yaml` or `tsv`.
//!
//! A command that changes something tells its results as it goes. When a document is wanted they are kept instead, and
//! written at the end; prompts, progress and complaints stay on stderr as ever. An error is a document as well.

use std::sync::{Mutex, PoisonError};

use super::Cli;
use super::documents::{Failure, MemberOutcome, Outcome};
use super::error::{CtlError, ErrorKind};
use super::exit::Exit;
use super::render::{Format, ours};
use super::ui::Ui;

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
            notes.members.push(MemberOutcome { name, result: end, reason, next });
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
    let (word, cluster) = command.subject();
    let head = Head { command: Some(word), cluster: cluster.or(scope) };
    match result {
        Ok(_) if !command.reports() => Ok(()),
        Err(error) if error.kind == ErrorKind::ClosedPipe => Ok(()),
        Ok(end) if format.is_document() => ui.data(&ours::document(&outcome(head, *end, notes), format)),
        Err(error) if format.is_document() => ui.data(&ours::document(&failure(head, notes, error), format)),
        // A table of other things has no place for an error: it stands on stderr.
        _ if !command.reports() => Ok(()),
        _ if format == Format::Name => names(ui, head, result, &notes),
        Ok(end) => ui.data(&tsv(head, *end, &notes, &notes.messages.join("; "))),
        Err(error) => {
            let failure = failure(head, notes.clone(), error);
            let notes = Notes { members: failure.members, ..notes };
            ui.data(&tsv(head, error.end(), &notes, &failure.message))
        }
    }
}

/// The document of a command line that could not even be read.
pub fn tell_early(ui: &Ui, format: Option<Format>, word: Option<&str>, error: &CtlError) -> Result<(), CtlError> {
    let head = Head { command: word, cluster: None };
    match format.filter(|format| format.is_document()) {
        Some(format) => ui.data(&ours::document(&failure(head, Notes::default(), error), format)),
        None => Ok(()),
    }
}

/// What a document is about.
#[derive(Clone, Copy)]
struct Head<'a> {
    command: Option<&'a str>,
    cluster: Option<&'a str>,
}

fn outcome(head: Head<'_>, end: Exit, notes: Notes) -> Outcome {
    Outcome {
        command: head.command.unwrap_or_default().to_owned(),
        cluster: head.cluster.map(str::to_owned),
        result: end,
        exit: end.code(),
        leader_before: notes.leader_before,
        leader: notes.leader,
        messages: notes.messages,
        members: notes.members,
    }
}

fn failure(head: Head<'_>, mut notes: Notes, error: &CtlError) -> Failure {
    let end = error.end();
    if let Some(name) = error.member().map(str::to_owned) {
        let reason = error.causes().join(": ");
        notes.members.push(MemberOutcome { name, result: end, reason, next: error.hint.clone() });
    }
    Failure {
        command: head.command.map(str::to_owned),
        cluster: head.cluster.map(str::to_owned),
        result: end,
        exit: end.code(),
        message: error.better.as_ref().unwrap_or(&error.message).clone(),
        causes: error.causes(),
        next: error.hint.clone(),
        messages: notes.messages,
        members: notes.members,
    }
}

/// The members that did it; for a command that does something to the cluster as a whole, the cluster.
fn names(ui: &Ui, head: Head<'_>, result: &Result<Exit, CtlError>, notes: &Notes) -> Result<(), CtlError> {
    let done = notes.members.iter().filter(|member| member.result == Exit::Done).map(|member| member.name.as_str());
    let done: Vec<&str> = match result {
        Ok(Exit::Done) if notes.members.is_empty() => head.cluster.into_iter().collect(),
        _ => done.collect(),
    };
    if done.is_empty() { Ok(()) } else { ui.data(&done.join("\n")) }
}

/// One line per member, or one for the whole.
fn tsv(head: Head<'_>, end: Exit, notes: &Notes, message: &str) -> String {
    let (command, cluster) = (head.command.unwrap_or_default(), ours::field(head.cluster.unwrap_or_default()));
    let mut lines = vec!["command\tcluster\tmember\tresult\tmessage".to_owned()];
    let line = |member: &str, result: Exit, message: &str| {
        format!("{command}\t{cluster}\t{}\t{}\t{}", ours::field(member), result.word(), ours::field(message))
    };
    lines.extend(notes.members.iter().map(|member| line(&member.name, member.result, &member.reason)));
    if notes.members.is_empty() {
        lines.push(line("", end, message));
    }
    lines.join("\n")
}
