//! What reading a configuration has to say: findings that do not stop it, and errors that do.

use std::fmt;

use super::origin::Origins;
use super::yaml::YamlError;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth a line in the log.
    Info,
    /// Someone should look: a value was replaced or left out.
    Warning,
    /// A part of the document could not be used at all.
    Error,
}

/// One remark about a document. Findings are returned, not logged: whoever read the document knows where to say them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Where in the document, keys joined by dots.
    pub path: String,
    /// The sentence for the log; complete without the path where it is Patroni's.
    pub message: String,
}

impl Finding {
    /// Someone should look.
    pub fn warning(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, path: path.into(), message: message.into() }
    }

    /// A part of the document is not used.
    pub fn error(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, path: path.into(), message: message.into() }
    }

    /// The same, saying where the setting stands. One about no setting in particular stays as it is.
    #[must_use]
    pub fn located(self, origins: &Origins) -> Self {
        if self.path.is_empty() {
            return self;
        }
        Self { message: origins.locate(&self.path, &self.message), ..self }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Why there is no configuration. Each text says what to do.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A file (or the variable that stands for one) is not YAML.
    #[error("invalid config file {name}: {cause}")]
    Yaml {
        /// File or variable.
        name: String,
        /// Where and why.
        cause: YamlError,
    },
    /// The top of a file is not a mapping.
    #[error("invalid config file {name}: {name} does not contain a dict; its top level must be `key: value` lines")]
    NotAMap {
        /// File or variable.
        name: String,
    },
    /// Neither files nor variables.
    #[error("Config is empty. Name a configuration file, or set PATRONI_* variables")]
    Empty,
    /// Required keys are missing.
    #[error("{}", missing_text(.0))]
    Missing(Vec<Missing>),
    /// A value that cannot be used.
    #[error("{path}: {message}")]
    Invalid {
        /// Where in the document.
        path: String,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// `--dcs-url` with another scheme than those of the DCS kinds.
    #[error("Unknown dcs scheme: {0}")]
    UnknownDcsScheme(String),
}

/// A required key that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Keys joined by dots.
    pub path: &'static str,
    /// What to write there.
    pub advice: &'static str,
    /// The file, or the place of its section.
    pub place: Option<String>,
}

fn missing_text(missing: &[Missing]) -> String {
    let line = |key: &Missing| {
        let place = key.place.as_ref().map(|place| format!(" ({place})")).unwrap_or_default();
        format!("{} is not defined: {}{place}", key.path, key.advice)
    };
    missing.iter().map(line).collect::<Vec<_>>().join("\n")
}

impl ConfigError {
    /// The same, saying where the setting stands.
    #[must_use]
    pub fn located(self, origins: &Origins) -> Self {
        match self {
            Self::Invalid { path, message } => {
                let message = origins.locate(&path, &message);
                Self::Invalid { path, message }
            }
            Self::Missing(missing) => {
                let place = |key: Missing| Missing { place: origins.of(key.path), ..key };
                Self::Missing(missing.into_iter().map(place).collect())
            }
            other => other,
        }
    }
}
