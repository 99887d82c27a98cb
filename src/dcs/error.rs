//! What can go wrong with the DCS, by what the caller can do about it.

/// A failed DCS operation. A compare that did not hold is not an error: it is an answer.
#[derive(Debug, thiserror::Error)]
pub enum DcsError {
    /// No usable answer within the deadline: connection failures, timeouts, lost quorum. Whether a write happened
    /// is unknown. A leader that cannot renew because of this demotes or enters failsafe mode.
    #[error("DCS is not accessible: {what}")]
    Unavailable {
        /// Endpoint and operation, for people.
        what: String,
        /// The client's error.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The server answered with a definite no (quota, permission, …): the write did not happen.
    #[error("the DCS refused {what}")]
    Refused {
        /// Operation and key, for people.
        what: String,
        /// The server's words.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The configuration does not describe a usable DCS; names the section and the way out.
    #[error("{0}")]
    Config(String),
}

impl DcsError {
    /// An unavailable DCS without an underlying error.
    pub fn unavailable(what: impl Into<String>) -> Self {
        Self::Unavailable { what: what.into(), source: None }
    }
}
