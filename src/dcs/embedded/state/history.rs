//! The recent past: which key changed how at which revision.
//!
//! It answers two questions: what a resuming watch missed, and how the keys looked at an older revision. Both reach
//! back only so far; the answer beyond is "compacted", which every client of etcd must be able to hear.

use std::collections::VecDeque;
use std::sync::Arc;

use etcd_client::proto::{PbEvent, PbKeyValue};

use super::key_range::KeyRange;

/// The revision of a store into which nothing was ever written, as in etcd.
pub(crate) const FIRST_REVISION: i64 = 1;
/// Revisions kept.
const MAX_REVISIONS: usize = 10_000;
/// Bytes of keys and values kept, so that large values do not make the past larger than the present.
const MAX_BYTES: usize = 64 << 20;
/// What an event costs beside its key and value.
const EVENT_BYTES: usize = 128;

/// One change of one key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    /// The key afterwards; of a deleted key only its name and the revision of the deletion.
    pub(crate) kv: Arc<PbKeyValue>,
    /// The key before, if it was there.
    pub(crate) previous: Option<Arc<PbKeyValue>>,
    /// Whether the key was deleted.
    pub(crate) is_delete: bool,
}

impl Event {
    /// Bytes of key and value.
    pub(crate) fn size(&self) -> usize {
        self.kv.key.len() + self.kv.value.len() + EVENT_BYTES
    }

    /// The message for a watcher.
    pub(crate) fn to_message(&self, with_previous: bool) -> PbEvent {
        PbEvent {
            r#type: i32::from(self.is_delete),
            kv: Some(PbKeyValue::clone(&self.kv)),
            prev_kv: self.previous.as_deref().filter(|_| with_previous).cloned(),
        }
    }
}

/// All changes of one revision.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Revision {
    /// Its number.
    pub(crate) number: i64,
    /// Its changes, in the order they were made; never empty.
    pub(crate) events: Vec<Event>,
}

/// The recent revisions without gaps, oldest first.
#[derive(Debug)]
pub(crate) struct History {
    revisions: VecDeque<Revision>,
    bytes: usize,
    /// A watch may start here or later.
    floor: i64,
    /// Keys may be read as of this revision or later.
    compacted: i64,
}

impl History {
    /// No past: the store starts at `revision`. In a new store nothing happened before, so nothing is missing.
    pub(crate) fn starting_at(revision: i64) -> Self {
        let (floor, compacted) = if revision <= FIRST_REVISION { (0, -1) } else { (revision + 1, revision) };
        Self { revisions: VecDeque::new(), bytes: 0, floor, compacted }
    }

    /// Lowest revision a watch may start at.
    pub(crate) fn floor(&self) -> i64 {
        self.floor
    }

    /// Lowest revision keys may be read at.
    pub(crate) fn compacted(&self) -> i64 {
        self.compacted
    }

    pub(crate) fn push(&mut self, number: i64, events: Vec<Event>) {
        debug_assert!(self.revisions.back().is_none_or(|last| last.number + 1 == number), "no gaps");
        self.bytes += events.iter().map(Event::size).sum::<usize>();
        self.revisions.push_back(Revision { number, events });
    }

    /// Revisions from `number` on, oldest first.
    pub(crate) fn since(&self, number: i64) -> impl DoubleEndedIterator<Item = &Revision> {
        let first = self.revisions.partition_point(|revision| revision.number < number);
        self.revisions.range(first..)
    }

    /// Changes of keys in `range` after `number`, newest first: what to undo to see the keys as of `number`.
    pub(crate) fn undo<'a>(&'a self, number: i64, range: &'a KeyRange) -> impl Iterator<Item = &'a Event> {
        let newest_first = self.since(number + 1).rev().flat_map(|revision| revision.events.iter().rev());
        newest_first.filter(|event| range.contains(&event.kv.key))
    }

    /// Forgets what a client no longer wants. A watch may still start at `number` itself.
    pub(crate) fn compact(&mut self, number: i64) {
        self.compacted = self.compacted.max(number);
        self.floor = self.floor.max(number);
        while self.revisions.front().is_some_and(|oldest| oldest.number < number) {
            self.forget_oldest();
        }
    }

    /// Keeps within the limits. Called once watchers have seen what is here.
    pub(crate) fn trim(&mut self) {
        while self.revisions.len() > MAX_REVISIONS || (self.bytes > MAX_BYTES && self.revisions.len() > 1) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.revisions.pop_front() else { return };
        self.bytes -= oldest.events.iter().map(Event::size).sum::<usize>();
        self.floor = self.floor.max(oldest.number + 1);
        self.compacted = self.compacted.max(oldest.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(revision: i64, bytes: usize) -> Vec<Event> {
        let kv = PbKeyValue { key: b"k".to_vec(), value: vec![0; bytes], mod_revision: revision, ..Default::default() };
        vec![Event { kv: Arc::new(kv), previous: None, is_delete: false }]
    }

    #[test]
    fn the_oldest_revisions_go_first_and_count_as_compacted() {
        let mut history = History::starting_at(1);
        for revision in 2..=10_011 {
            history.push(revision, put(revision, 1));
            history.trim();
        }
        assert_eq!(history.revisions.len(), MAX_REVISIONS);
        assert_eq!((history.floor(), history.compacted()), (12, 11));
        assert_eq!(history.since(0).next().unwrap().number, 12);
    }

    #[test]
    fn large_values_shorten_the_past() {
        let mut history = History::starting_at(1);
        for revision in 2..=11 {
            history.push(revision, put(revision, 16 << 20));
            history.trim();
        }
        assert_eq!(history.floor(), 9, "three of sixteen megabytes and their overhead fit into sixty-four");
    }

    #[test]
    fn compaction_leaves_its_own_revision_to_watchers() {
        let mut history = History::starting_at(1);
        for revision in 2..=9 {
            history.push(revision, put(revision, 1));
        }
        history.compact(5);
        assert_eq!((history.floor(), history.compacted()), (5, 5));
        assert_eq!(history.since(0).next().unwrap().number, 5);
    }
}
