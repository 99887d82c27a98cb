//! The `/status` document: the holder's WAL position and its slots.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::lsn::Lsn;

/// What the holder last said of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The holder's last WAL position; `None` when never written or unreadable.
    pub optime: Option<Lsn>,
    /// Slot name to position (restart LSN of physical, confirmed flush LSN of logical slots).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<BTreeMap<String, Lsn>>,
    /// Slots of members that are kept although the member is away, sorted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain_slots: Option<Vec<String>>,
}
