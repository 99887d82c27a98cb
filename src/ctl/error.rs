//! A command that did not do what it was asked, as data. [`super::report`] words it.

use std::error::Error;

use super::exit::Exit;
use crate::dcs::DcsError;

/// What kind of end it is; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The work did not end as asked.
    End(Exit),
    /// A question got no answer.
    Aborted,
    /// Ctrl-C.
    Interrupted,
    /// Nobody reads our output any more: quiet, and no failure.
    ClosedPipe,
}

/// What an error is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// A cluster that nothing is known of: perhaps its name is misspelt.
    UnknownCluster(String),
    /// One member, where a command has several.
    Member(String),
}

/// Why a command stopped.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct CtlError {
    /// What kind of end it is.
    pub kind: ErrorKind,
    /// What failed; for patronictl's personality exactly its text.
    pub message: String,
    /// Better words for ours, when patronictl's are poor.
    pub better: Option<String>,
    /// What to do next.
    pub hint: Option<String>,
    /// What it is about, where somebody goes on with that.
    pub about: Option<Box<About>>,
    /// patronictl keeps the causes to itself.
    is_quiet: bool,
    #[source]
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl CtlError {
    fn of(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), better: None, hint: None, about: None, is_quiet: false, source: None }
    }

    /// A failure or a refusal. The message is what follows `Error: ` in patronictl, where it has one.
    pub fn new(message: impl Into<String>) -> Self {
        Self::of(ErrorKind::End(Exit::Failed), message)
    }

    /// Wrong usage found after parsing.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(message).ending(Exit::Usage)
    }

    /// How the command ends.
    pub fn end(&self) -> Exit {
        match self.kind {
            ErrorKind::End(end) => end,
            _ => Exit::Failed,
        }
    }

    /// With another end than a plain failure.
    pub fn ending(mut self, end: Exit) -> Self {
        self.kind = ErrorKind::End(end);
        self
    }

    /// After other work of the same command: done for some, not for others.
    pub fn after(self, earlier: Option<Exit>) -> Self {
        match (self.kind, earlier) {
            (ErrorKind::End(end), Some(earlier)) => self.ending(earlier.and(end)),
            _ => self,
        }
    }

    /// Input ended at a question.
    pub fn aborted() -> Self {
        Self::of(ErrorKind::Aborted, "the input ended before the question was answered")
            .next("answer it, or use --force where the command has it")
    }

    /// A question, and nobody who could answer it.
    pub fn nobody_to_ask(question: &str, flag: &str) -> Self {
        let question = question.trim().trim_end_matches(':').trim_end_matches("[y/N]").trim();
        Self::usage(format!("nobody can be asked \"{question}\": the standard input is not a terminal"))
            .next(format!("answer it with {flag}"))
    }

    /// Ctrl-C.
    pub fn interrupted() -> Self {
        Self::of(ErrorKind::Interrupted, "interrupted")
    }

    /// Writing to stdout or stderr failed.
    pub fn output(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::of(ErrorKind::ClosedPipe, "closed pipe");
        }
        Self::new("could not write the output").because(error)
    }

    /// The DCS did not do what `what` says.
    pub fn dcs(what: impl Into<String>, error: DcsError) -> Self {
        let hint = match &error {
            DcsError::Unavailable { .. } => {
                "check that the endpoints are right (-d, or the DCS section of the configuration file) and answer"
            }
            DcsError::Refused { .. } => "check the DCS user's permissions and the DCS's own log",
            DcsError::Config(_) => "correct the DCS section of the configuration file, or use -d",
        };
        let end = match &error {
            DcsError::Unavailable { .. } => Exit::Unreachable,
            DcsError::Refused { source, .. } => {
                let why = source.as_ref().map(ToString::to_string).unwrap_or_default();
                if ["permission denied", "auth", "user"].iter().any(|word| why.contains(word)) {
                    Exit::Denied
                } else {
                    Exit::Failed
                }
            }
            DcsError::Config(_) => Exit::Usage,
        };
        Self::new(what).because(error).next(hint).ending(end)
    }

    /// Other words for our own personality.
    pub fn in_better_words(mut self, text: impl Into<String>) -> Self {
        self.better = Some(text.into());
        self
    }

    /// What to do next.
    pub fn next(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What it is about.
    pub fn about(mut self, about: About) -> Self {
        self.about = Some(Box::new(about));
        self
    }

    /// A cluster that nothing is known of.
    pub fn unknown_cluster(&self) -> Option<&str> {
        if let Some(About::UnknownCluster(name)) = self.about.as_deref() { Some(name) } else { None }
    }

    /// The member that it is about.
    pub fn member(&self) -> Option<&str> {
        if let Some(About::Member(name)) = self.about.as_deref() { Some(name) } else { None }
    }

    /// The cause.
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Lets patronictl's personality say the message and nothing more.
    pub fn quiet_for_patronictl(mut self) -> Self {
        self.is_quiet = true;
        self
    }

    /// What patronictl's personality says after `Error: `.
    pub fn as_patronictl(&self) -> String {
        let causes = if self.is_quiet { Vec::new() } else { self.causes() };
        std::iter::once(self.message.clone()).chain(causes).collect::<Vec<_>>().join(": ")
    }

    /// The causes, outermost first.
    pub fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut next = Error::source(self);
        while let Some(error) = next {
            let text = error.to_string();
            // Some libraries repeat their source in their own text.
            if causes.last().is_none_or(|last: &String| !last.ends_with(&text)) {
                causes.push(text);
            }
            next = error.source();
        }
        causes
    }
}
