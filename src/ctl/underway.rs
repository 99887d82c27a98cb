//! How far a command has got, for whoever interrupts it.
//!
//! A request that a member has taken goes on whatever becomes of the command that made it. Ctrl-C ends the waiting, so
//! it must say what it leaves behind.

use super::CtlError;
use super::exit::Exit;

/// The state of a command that changes something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Underway {
    /// Whether the command changes anything at all.
    pub is_change: bool,
    /// What has been requested and is not known to be over.
    now: Option<String>,
    /// What is over.
    done: Vec<String>,
    /// Members that were to come after this one.
    rest: Vec<String>,
    cluster: String,
}

impl Underway {
    /// Of a command that changes a cluster.
    pub fn change(cluster: &str) -> Self {
        Self { is_change: true, cluster: cluster.to_owned(), ..Self::default() }
    }

    /// Something is requested now.
    pub fn begin(&mut self, what: &str) {
        self.now = Some(what.to_owned());
    }

    /// It is over, whether it worked or not: that has been said.
    pub fn end(&mut self, is_done: bool) {
        let now = self.now.take();
        self.done.extend(now.filter(|_| is_done));
    }

    /// Something that was waited for beside other things is over. That it was begun is no news then.
    pub fn ended(&mut self, what: &str) {
        self.done.retain(|done| !done.ends_with(what));
        self.done.push(what.to_owned());
    }

    /// Who comes after this one.
    pub fn before(&mut self, rest: Vec<String>) {
        self.rest = rest;
    }

    /// What an interruption at this moment means.
    pub fn interrupted(&self) -> CtlError {
        if !self.is_change {
            return CtlError::interrupted();
        }
        let done = if self.done.is_empty() { String::new() } else { format!("; done: {}", self.done.join(", ")) };
        let rest =
            if self.rest.is_empty() { String::new() } else { format!("; not asked yet: {}", self.rest.join(", ")) };
        let look = format!("`list {}` shows how it goes on", self.cluster);
        match &self.now {
            Some(now) => {
                let text = format!("interrupted: {now} has been requested, and goes on without this command");
                CtlError::new(format!("{text}{done}{rest}")).ending(Exit::Unknown).next(look)
            }
            None if self.done.is_empty() => CtlError::interrupted().in_better_words("interrupted: nothing was changed"),
            None => {
                let error = CtlError::new(format!("interrupted{done}{rest}")).ending(Exit::Partly);
                error.next(format!("`list {}` shows how it is now", self.cluster))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_behind() {
        let mut underway = Underway::change("demo");
        let said = |underway: &Underway| {
            let error = underway.interrupted();
            (error.better.clone().unwrap_or_else(|| error.to_string()), error.end())
        };
        assert_eq!(said(&underway), ("interrupted: nothing was changed".to_owned(), Exit::Failed));
        underway.before(vec!["pg2".to_owned(), "pg3".to_owned()]);
        underway.begin("restart of pg1");
        let (text, end) = said(&underway);
        assert_eq!(end, Exit::Unknown);
        assert!(
            text.contains("restart of pg1 has been requested") && text.contains("not asked yet: pg2, pg3"),
            "{text}"
        );
        underway.end(true);
        let (text, end) = said(&underway);
        assert_eq!((text.as_str(), end), ("interrupted; done: restart of pg1; not asked yet: pg2, pg3", Exit::Partly));
        underway.begin("start of the copy of pg2");
        underway.end(true);
        underway.begin("copy of pg2, pg3");
        underway.ended("copy of pg2");
        let (text, end) = said(&underway);
        assert_eq!(end, Exit::Unknown);
        assert!(text.contains("copy of pg2, pg3 has been requested"), "{text}");
        assert!(text.contains("; done: restart of pg1, copy of pg2; not asked yet"), "{text}");
        assert_eq!(said(&Underway::default()).0, "interrupted");
    }
}
