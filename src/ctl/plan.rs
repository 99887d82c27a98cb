//! What the plans of all changing commands have in common: what they may look at, how they ask, how they refuse.
//!
//! A plan is a pure function that reads as one straight line: it takes each answer from [`Answers`] where it needs
//! it. When the answer is not there yet the plan stops with the question ([`Stop::Ask`]); the caller asks it, adds
//! the answer, and plans anew. Each answer is therefore judged as soon as it is given, before the next question, and
//! a test states answers as a list.

use std::time::Duration;

use jiff::Zoned;

use crate::cluster::ClusterView;
use crate::cluster::tags::as_integer;

use super::commands::list::Mode;
use super::exit::Exit;
use super::schedule::{NotAMoment, Schedule};

/// Everything that a plan may look at besides the command's arguments.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// The cluster's name as given.
    pub cluster: &'a str,
    /// The snapshot.
    pub view: &'a ClusterView,
    /// What its dynamic configuration switches on.
    pub mode: Mode,
    /// The present moment, in the local time zone.
    pub now: &'a Zoned,
    /// No questions (`--force`, or `--yes`).
    pub is_forced: bool,
    /// Nor checks (`--force`).
    pub overrides: bool,
    /// Refuse what is most likely a typing error, where Patroni's tool guesses or leaves it out.
    pub is_strict: bool,
}

impl Scene<'_> {
    /// The holder of the leader key.
    pub fn leader(&self) -> Option<&str> {
        self.view.leader_name().map(|name| name.as_str())
    }

    /// Reads `--scheduled`, or the answer to the question for it.
    pub fn moment(&self, text: &str) -> Result<Option<Schedule>, Refusal> {
        let at = Schedule::parse(text, self.now)?;
        match at.as_ref().and_then(|at| at.guesses.first()).filter(|_| self.is_strict) {
            Some(guess) => Err(Refusal::from(NotAMoment { text: text.to_owned() }).advise(guess.to_string())),
            None => Ok(at),
        }
    }

    /// An example of a moment for the question: an hour from now.
    pub fn example_moment(&self) -> String {
        let hour = jiff::SignedDuration::from_hours(1);
        self.now.saturating_add(hour).strftime("%Y-%m-%dT%H:%M").to_string()
    }
}

/// The durations of a cluster's dynamic configuration that limit how long its members may take to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Life of the leader's lease.
    pub ttl: Duration,
    /// Period of the members' loop.
    pub loop_wait: Duration,
    /// Budget of one DCS operation.
    pub retry_timeout: Duration,
    /// How long a server may take to start.
    pub start_timeout: Duration,
}

impl Pace {
    /// Reads them; what is missing or not a number has its default.
    pub fn of(view: &ClusterView) -> Self {
        let seconds = |key: &str, default| {
            let value = view.config_document().and_then(|document| as_integer(document.get(key)?));
            Duration::from_secs(value.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(default))
        };
        Self {
            ttl: seconds("ttl", 30),
            loop_wait: seconds("loop_wait", 10),
            retry_timeout: seconds("retry_timeout", 10),
            start_timeout: seconds("primary_start_timeout", 300),
        }
    }
}

/// What to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// A line of text; an empty answer takes the default.
    Text {
        /// The words, without the default and the colon.
        text: String,
        /// Taken for an empty answer.
        default: String,
    },
    /// Yes or no, no by default.
    Confirm {
        /// The words.
        text: String,
    },
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A line, the default already filled in.
    Text(String),
    /// Yes or no.
    Confirm(bool),
}

/// The answer to a command that cannot be done as asked. Nothing has been changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why, in one sentence.
    pub reason: String,
    /// The same in our own words, where Patroni's are poor.
    pub better: Option<String>,
    /// What to do instead, if there is something to say.
    pub advice: Option<String>,
    /// How that ends the command.
    pub end: Exit,
}

impl Refusal {
    /// A refusal that speaks for itself.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), better: None, advice: None, end: Exit::Failed }
    }

    /// The same with something to do next.
    pub fn advise(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }

    /// The same with words of our own.
    pub fn in_better_words(self, text: impl Into<String>) -> Self {
        Self { better: Some(text.into()), ..self }
    }

    /// With another end than a plain refusal.
    pub fn ending(self, end: Exit) -> Self {
        Self { end, ..self }
    }
}

impl From<NotAMoment> for Refusal {
    fn from(error: NotAMoment) -> Self {
        let better = format!("`{}` is no moment that can be understood", error.text);
        Self::new(error.to_string()).in_better_words(better).advise("write it like 2030-01-31T04:00+01:00, or now")
    }
}

/// Why a plan is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// This must be answered first.
    Ask(Question),
    /// It cannot be done.
    Refuse(Refusal),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

/// The answers so far, in the order of the questions.
#[derive(Debug)]
pub struct Answers<'a> {
    given: &'a [Answer],
    at: usize,
}

impl<'a> Answers<'a> {
    /// Starts at the first answer.
    pub fn new(given: &'a [Answer]) -> Self {
        Self { given, at: 0 }
    }

    /// The answer to a free-text question.
    pub fn text(&mut self, text: impl Into<String>, default: impl Into<String>) -> Result<&'a str, Stop> {
        match self.next() {
            Some(Answer::Text(answer)) => Ok(answer),
            Some(Answer::Confirm(_)) | None => {
                Err(Stop::Ask(Question::Text { text: text.into(), default: default.into() }))
            }
        }
    }

    /// Goes on after a yes; a no is the refusal `aborted`.
    pub fn confirm(&mut self, text: impl Into<String>, aborted: &str) -> Result<(), Stop> {
        match self.next() {
            Some(Answer::Confirm(true)) => Ok(()),
            Some(Answer::Confirm(false)) => Err(Refusal::new(aborted).into()),
            Some(Answer::Text(_)) | None => Err(Stop::Ask(Question::Confirm { text: text.into() })),
        }
    }

    fn next(&mut self) -> Option<&'a Answer> {
        let answer = self.given.get(self.at);
        self.at += 1;
        answer
    }
}
