//! Why a demo could not be started or did not go well.

use std::error::Error;

/// A sentence for the person at the keyboard, with the cause and the next step in it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct DemoError {
    message: String,
    #[source]
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl DemoError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }

    pub(super) fn because(self, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: Some(error.into()), ..self }
    }
}

/// An error with its causes, on one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
