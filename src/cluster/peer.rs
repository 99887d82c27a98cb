//! What another member said when it was asked how it is.

use serde::{Deserialize, Serialize};

use super::lsn::Lsn;
use super::tags::Tags;
use super::timeline::Timeline;

/// The part of a member's `GET /patroni` answer that elections read, or why there is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerAnswer {
    /// It answered with a status that names a WAL position object.
    Answered {
        /// Not a primary: no `location`, and no primary role.
        in_recovery: bool,
        /// The higher of received and replayed; zero for a primary.
        position: Lsn,
        /// The timeline it is on.
        timeline: Option<Timeline>,
        /// Its tags, as of now (the member key may be older).
        tags: Tags,
        /// It must not lead because its watchdog does not work.
        watchdog_failed: bool,
    },
    /// No usable answer, and why.
    Unreachable(String),
}
