//! Timelines and the `/history` document.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::lsn::Lsn;

/// A PostgreSQL timeline, from 1. Zero is never stored; "unknown" is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timeline(pub u32);

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One line of a timeline history: `timeline` ended at `switch` for `reason`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryLine {
    /// The timeline that ended.
    pub timeline: Timeline,
    /// Where the next timeline forked off.
    pub switch: Lsn,
    /// PostgreSQL's words, most often `no recovery target specified`.
    pub reason: String,
    /// When the next timeline began, ISO 8601; absent in documents of old members.
    pub timestamp: Option<String>,
    /// Who became leader then; absent in documents of old members.
    pub new_leader: Option<String>,
}

/// The `/history` document: valid lines, or the fact that it could not be read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// The document as it stands, so that nothing is lost when it is shown or rewritten. An array when valid.
    pub raw: Value,
}

impl History {
    /// The lines that have at least timeline, LSN and reason; others are left out.
    pub fn lines(&self) -> Vec<HistoryLine> {
        let lines = self.raw.as_array().map(Vec::as_slice).unwrap_or_default();
        lines.iter().filter_map(line).collect()
    }

    /// The timeline of the cluster for readers: the last line's timeline + 1; 1 for an empty list; `None` when the
    /// document is absent or cannot be read.
    pub fn cluster_timeline(&self) -> Option<Timeline> {
        let lines = self.raw.as_array()?;
        let Some(last) = lines.last() else { return Some(Timeline(1)) };
        let number = last.as_array()?.first()?.as_u64()?;
        u32::try_from(number).ok()?.checked_add(1).map(Timeline)
    }
}

fn line(value: &Value) -> Option<HistoryLine> {
    let fields = value.as_array()?;
    let text = |i: usize| fields.get(i).and_then(Value::as_str).map(str::to_owned);
    Some(HistoryLine {
        timeline: Timeline(u32::try_from(fields.first()?.as_u64()?).ok()?),
        switch: Lsn(fields.get(1)?.as_u64()?),
        reason: text(2)?,
        timestamp: text(3),
        new_leader: text(4),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cluster_timeline_follows_the_last_line() {
        let history = |raw| History { raw };
        assert_eq!(history(json!([])).cluster_timeline(), Some(Timeline(1)));
        assert_eq!(history(json!([[1, 2, "x"], [2, 3, "y"]])).cluster_timeline(), Some(Timeline(3)));
        assert_eq!(history(json!("garbage")).cluster_timeline(), None);
        assert_eq!(history(json!([["a"]])).cluster_timeline(), None);
    }
}
