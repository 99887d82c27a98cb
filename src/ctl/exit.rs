//! Exit codes: scripts and pagers live by them. patronictl's personality knows only 0, 1 and 2.

/// How a command ended, for the process that called it; in our documents one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Exit {
    /// As asked.
    Done = 0,
    /// Refused, or failed for a reason that has no code of its own.
    Failed = 1,
    /// The command line or the configuration cannot mean anything.
    Usage = 2,
    /// No such cluster or member.
    NotFound = 3,
    /// The DCS or a member did not let us in.
    Denied = 4,
    /// The DCS or a member could not be asked; nothing has happened.
    Unreachable = 7,
    /// The request was made, and how it went is not known.
    Unknown = 8,
    /// Some members did it and some did not.
    Partly = 9,
}

impl Exit {
    /// Every code with its meaning, as help, man pages and README show them.
    pub const TABLE: [(Self, &'static str); 8] = [
        (Self::Done, "done"),
        (Self::Failed, "refused or failed"),
        (Self::Usage, "wrong usage or configuration"),
        (Self::NotFound, "no such cluster or member"),
        (Self::Denied, "access denied"),
        (Self::Unreachable, "DCS or member unreachable; nothing was done"),
        (Self::Unknown, "requested, outcome unknown"),
        (Self::Partly, "partly done: some members did it, some did not"),
    ];

    /// The number.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// One word for it, as our documents have it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::NotFound => "not_found",
            Self::Denied => "denied",
            Self::Unreachable => "unreachable",
            Self::Unknown => "unknown",
            Self::Partly => "partly",
        }
    }

    /// What a member's refusal means.
    pub fn of_status(status: u16) -> Self {
        if matches!(status, 401 | 403) { Self::Denied } else { Self::Failed }
    }

    /// The end of two pieces of work that were asked for together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (one, other) if one == other => one,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Done | Self::Partly, _) | (_, Self::Done | Self::Partly) => Self::Partly,
            _ => Self::Failed,
        }
    }

    /// The end of pieces of work that were asked for together; of none, done.
    pub fn of_all(ends: impl IntoIterator<Item = Self>) -> Self {
        ends.into_iter().reduce(Self::and).unwrap_or(Self::Done)
    }
}

/// The table as the help shows it.
pub fn help() -> String {
    let line = |(end, meaning): &(Exit, &str)| format!("  {}  {meaning}", end.code());
    let lines: Vec<String> = Exit::TABLE.iter().map(line).collect();
    format!("Exit codes:\n{}", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_members_did() {
        use Exit::*;
        assert_eq!(Exit::of_all([]), Done);
        assert_eq!(Exit::of_all([Done, Done]), Done);
        assert_eq!(Exit::of_all([Denied, Denied]), Denied);
        assert_eq!(Exit::of_all([Denied, Failed]), Failed);
        assert_eq!(Exit::of_all([Done, Failed, Done]), Partly);
        assert_eq!(Exit::of_all([Failed, Unreachable, Done]), Partly);
        assert_eq!(Exit::of_all([Done, Unknown, Failed]), Unknown);
    }
}
