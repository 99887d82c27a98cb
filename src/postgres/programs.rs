//! Running external programs: PostgreSQL's tools and the operator's scripts.
//!
//! Every run has an end: its own exit, a cancellation, or a deadline. A program that must go is asked by SIGTERM; when
//! it is still there after [`GRACE`], it and everything it started is killed. Nothing here knows what the programs do.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::cluster::tags::is_truthy;

use super::PgError;
use super::process_tree;

/// How long a program may take to follow SIGTERM.
pub const GRACE: Duration = Duration::from_secs(10);

/// How long output may still come after the program itself has ended. A script may leave a background process behind
/// that holds the pipe open for ever.
const DRAIN: Duration = Duration::from_millis(500);

/// How many bytes of each output stream are kept; the end is what explains a failure, so the beginning is dropped.
const KEEP: usize = 1 << 20;

/// Longest part of the output that goes into an error message.
const DETAIL: usize = 2000;

/// One run of a program, described.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    is_script: bool,
    limit: Option<Duration>,
}

/// How a program ended, with what it said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finished {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The end of its standard output; empty for scripts, which share ours.
    pub stdout: String,
    /// The end of its standard error; empty for scripts.
    pub stderr: String,
}

impl Finished {
    /// Exit code zero.
    pub fn is_success(&self) -> bool {
        self.code == Some(0)
    }

    /// `1`, or `-9` when a signal ended it: one number for log lines, as shells and Patroni print it.
    pub fn code_text(&self) -> String {
        match (self.code, self.signal) {
            (Some(code), _) => code.to_string(),
            (None, Some(signal)) => format!("-{signal}"),
            (None, None) => "unknown".to_owned(),
        }
    }

    /// The end and the last words, for an error message.
    pub fn detail(&self) -> String {
        let ended = match (self.code, self.signal) {
            (None, Some(signal)) => format!("ended by signal {signal}"),
            _ => format!("exited with code {}", self.code_text()),
        };
        let said = if self.stderr.trim().is_empty() { self.stdout.trim() } else { self.stderr.trim() };
        if said.is_empty() { ended } else { format!("{ended}: {}", last_part(said, DETAIL)) }
    }
}

fn last_part(text: &str, limit: usize) -> &str {
    let mut start = text.len().saturating_sub(limit);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

impl Program {
    /// A tool: its output is captured, standard input is empty.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), args: Vec::new(), env: Vec::new(), is_script: false, limit: None }
    }

    /// An operator's command, split as a shell would: it shares our output and keeps the cluster manager's variables.
    pub fn script(command: &str) -> Result<Self, PgError> {
        let refuse = |why: &str| PgError::Program { program: command.to_owned(), detail: why.to_owned() };
        let mut words = split(command).map_err(refuse)?.into_iter();
        let path = words.next().ok_or_else(|| refuse("the command is empty; give a program to run"))?;
        Ok(Self { is_script: true, ..Self::new(path).args(words) })
    }

    /// Adds one argument.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Makes the output the same everywhere, for those whose output is read by us.
    pub fn in_c_locale(self) -> Self {
        self.env("LANG", "C").env("LC_ALL", "C")
    }

    /// The run is over after this long, come what may.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// The command line, for log lines.
    pub fn command_line(&self) -> String {
        let mut line = self.path.display().to_string();
        for arg in &self.args {
            line.push(' ');
            line.push_str(arg);
        }
        line
    }

    fn name(&self) -> String {
        self.path.file_name().unwrap_or(self.path.as_os_str()).to_string_lossy().into_owned()
    }

    /// The command as it will be run, in a process group of its own so that the whole family can be stopped.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.args).stdin(Stdio::null()).process_group(0);
        // Our own settings may hold passwords, and a tool that finds them could act on them.
        for (name, _) in std::env::vars_os() {
            let name_text = name.to_string_lossy();
            let is_ours = name_text.starts_with("PATRONI_") || name_text == "NOTIFY_SOCKET";
            if is_ours || (!self.is_script && name_text.starts_with("KUBERNETES_")) {
                command.env_remove(&name);
            }
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if !self.is_script {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        command
    }

    /// Runs it to its end. `Err` when it could not be started, was cancelled or took too long; a bad exit code is an
    /// answer, not an error.
    pub async fn run(&self, cancel: &CancellationToken) -> Result<Finished, PgError> {
        if cancel.is_cancelled() {
            return Err(PgError::Cancelled);
        }
        let mut child = self.command().spawn().map_err(|error| self.cannot_run(&error))?;
        let family = Family { leader: child.id().and_then(|id| i32::try_from(id).ok()) };
        let stdout = child.stdout.take().map(Capture::start);
        let stderr = child.stderr.take().map(Capture::start);
        let overdue = async {
            match self.limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        let status = tokio::select! {
            biased;
            status = child.wait() => status.map_err(|error| self.cannot_run(&error))?,
            () = cancel.cancelled() => {
                family.end(&mut child, GRACE).await;
                return Err(PgError::Cancelled);
            }
            () = overdue => {
                family.end(&mut child, GRACE).await;
                let limit = self.limit.unwrap_or_default();
                return Err(PgError::Timeout(limit, format!("{} was stopped", self.name())));
            }
        };
        // Ended by itself: what it left running in the background is its own affair.
        family.forget();
        let (stdout, stderr) = (finish(stdout).await, finish(stderr).await);
        Ok(finished(status, stdout, stderr))
    }

    /// Runs it and takes a bad exit code as an error.
    pub async fn run_ok(&self, cancel: &CancellationToken) -> Result<Finished, PgError> {
        let finished = self.run(cancel).await?;
        match finished.is_success() {
            true => Ok(finished),
            false => Err(PgError::Program { program: self.name(), detail: finished.detail() }),
        }
    }

    fn cannot_run(&self, error: &std::io::Error) -> PgError {
        PgError::Program { program: self.path.display().to_string(), detail: format!("cannot be run: {error}") }
    }
}

async fn finish(capture: Option<Capture>) -> String {
    match capture {
        Some(capture) => capture.finish().await,
        None => String::new(),
    }
}

fn finished(status: ExitStatus, stdout: String, stderr: String) -> Finished {
    use std::os::unix::process::ExitStatusExt;
    Finished { code: status.code(), signal: status.signal(), stdout, stderr }
}

/// A program and all it started. Dropped while the program runs (the caller went away), it kills them.
struct Family {
    leader: Option<i32>,
}

impl Family {
    async fn end(mut self, child: &mut Child, grace: Duration) {
        let Some(leader) = self.leader.take() else { return };
        // Those that moved to a group of their own are found only while their parent lives.
        let known = process_tree::descendants(leader);
        process_tree::signal_group(leader, Signal::SIGTERM);
        if tokio::time::timeout(grace, child.wait()).await.is_err() {
            tracing::warn!(pid = leader, "program did not end on SIGTERM, killing it and its children");
            process_tree::kill_tree(leader);
        }
        process_tree::kill_rest(leader, &known);
        // Only a process stuck in the kernel outlasts SIGKILL; it is reaped in the background then.
        if tokio::time::timeout(grace, child.wait()).await.is_err() {
            tracing::warn!(pid = leader, "program outlasts SIGKILL, leaving it behind");
        }
    }

    fn forget(mut self) {
        self.leader = None;
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        if let Some(leader) = self.leader {
            process_tree::kill_tree(leader);
        }
    }
}

/// Reads a stream in the background and keeps its end.
struct Capture {
    kept: Arc<Mutex<Vec<u8>>>,
    reader: AbortOnDropHandle<()>,
}

impl Capture {
    fn start(mut stream: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&kept);
        let reader = tokio::spawn(async move {
            let mut chunk = [0; 8192];
            while let Ok(count @ 1..) = stream.read(&mut chunk).await {
                let mut kept = into.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend_from_slice(&chunk[..count]);
                // Twice the size before it is cut, so that the cost of moving stays small.
                if kept.len() > 2 * KEEP {
                    let excess = kept.len() - KEEP;
                    kept.drain(..excess);
                }
            }
        });
        Self { kept, reader: AbortOnDropHandle::new(reader) }
    }

    async fn finish(mut self) -> String {
        let _ = tokio::time::timeout(DRAIN, &mut self.reader).await;
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let start = kept.len().saturating_sub(KEEP);
        String::from_utf8_lossy(&kept[start..]).into_owned()
    }
}

/// Splits a command line as a POSIX shell would, without expanding anything: blanks separate, quotes and backslashes
/// protect. `Err` says what is not closed.
pub fn split(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_ascii_whitespace() => words.extend(word.take()),
            '\'' => loop {
                match chars.next() {
                    Some('\'') => {
                        word.get_or_insert_default();
                        break;
                    }
                    Some(c) => word.get_or_insert_default().push(c),
                    None => return Err("a single quote is not closed"),
                }
            },
            '"' => quoted(&mut chars, word.get_or_insert_default())?,
            '\\' => match chars.next() {
                Some(c) => word.get_or_insert_default().push(c),
                None => return Err("it ends with a backslash"),
            },
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

/// The rest of a double-quoted part: a backslash protects only a quote and itself.
fn quoted(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), &'static str> {
    loop {
        match chars.next() {
            Some('"') => return Ok(()),
            Some('\\') => match chars.next() {
                Some(c @ ('"' | '\\')) => word.push(c),
                Some(c) => word.extend(['\\', c]),
                None => return Err("a double quote is not closed"),
            },
            Some(c) => word.push(c),
            None => return Err("a double quote is not closed"),
        }
    }
}

/// Reads a configured option list (`bootstrap.initdb`, `basebackup`, `rewind`): a map of `name: value`, or a list of
/// names and one-entry maps. Gives the arguments and, apart, what had to be left out and why.
pub fn options(tool: &str, configured: &Value, forbidden: &[&str]) -> (Vec<String>, Vec<String>) {
    let (mut args, mut refused) = (Vec::new(), Vec::new());
    let mut take = |name: &str, value: Option<String>| {
        let bare = name.split('=').next().unwrap_or(name).trim_start_matches('-');
        if forbidden.contains(&bare) {
            return refused.push(format!("{bare} option for {tool} is not allowed"));
        }
        match value {
            Some(value) => args.push(format!("--{name}={}", unquote(&value))),
            None => args.push(format!("--{name}")),
        }
    };
    let mut wrong = Vec::new();
    match configured {
        Value::Null => {}
        Value::Object(map) => {
            for (name, value) in map.iter().filter(|(name, value)| !name.is_empty() && is_truthy(value)) {
                // `data-checksums: true` can only mean the option itself.
                take(name, (*value != Value::Bool(true)).then(|| plain_text(value)));
            }
        }
        Value::Array(items) => {
            for item in items {
                match item {
                    Value::String(name) => take(name, None),
                    Value::Object(map) => match map.iter().next() {
                        Some((name, value @ (Value::String(_) | Value::Number(_)))) if map.len() == 1 => {
                            take(name, Some(plain_text(value)));
                        }
                        _ => wrong.push(format!(
                            "Error when parsing {tool} key-value option {item}: only one key-value is allowed and \
                             value should be a string"
                        )),
                    },
                    _ => wrong.push(format!(
                        "Error when parsing {tool} option {item}: value should be string value or a single \
                         key-value pair"
                    )),
                }
            }
        }
        other => wrong.push(format!("{tool} options must be a list or a dictionary, not {other}")),
    }
    refused.extend(wrong);
    (args, refused)
}

/// Takes shell quotes off a value; a value that is not properly quoted stays as it is.
fn unquote(value: &str) -> String {
    match split(value).ok().as_deref() {
        Some([word]) => word.clone(),
        _ => value.to_owned(),
    }
}

/// A scalar as it was written; text without quotes.
pub fn plain_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
#[path = "programs/tests.rs"]
mod tests;
