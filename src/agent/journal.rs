//! The last decisions with what they were made of, as JSON lines: a bug report that is a test case.

use std::collections::VecDeque;

use serde_json::json;

use crate::ha::{Decision, Observation};

/// How many decisions are kept.
const KEPT: usize = 200;

/// A ring of JSON lines.
#[derive(Debug, Default)]
pub(super) struct Journal {
    lines: VecDeque<String>,
}

impl Journal {
    /// Adds one pair; the oldest goes when the ring is full. Consecutive heartbeats are not worth a line each.
    pub(super) fn record(&mut self, seen: &Observation, decision: &Decision) {
        if decision.reason.is_heartbeat() && decision.notes.is_empty() {
            return;
        }
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(json!({ "seen": seen, "decision": decision }).to_string());
    }

    /// The lines, oldest first.
    pub(super) fn lines(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }
}
