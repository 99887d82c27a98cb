//! Lines on their way to the writer.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(super) struct Queue {
    inner: Mutex<Inner>,
    /// There is something to write.
    filled: Condvar,
    /// Everything is written.
    idle: Condvar,
}

struct Inner {
    lines: VecDeque<String>,
    /// 0 is no limit.
    limit: usize,
    lost: usize,
    is_writing: bool,
}

impl Queue {
    pub(super) fn new(limit: usize) -> Self {
        let inner = Inner { lines: VecDeque::new(), limit, lost: 0, is_writing: false };
        Self { inner: Mutex::new(inner), filled: Condvar::new(), idle: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_limit(&self, limit: usize) {
        self.lock().limit = limit;
    }

    /// Puts a line in its place, or loses it when the queue is full. Behind the first one that fits again comes the
    /// line that `confess` makes of the number of those that were lost.
    pub(super) fn put(&self, line: String, confess: impl FnOnce(usize) -> String) {
        let mut inner = self.lock();
        if inner.limit > 0 && inner.lines.len() >= inner.limit {
            inner.lost += 1;
            return;
        }
        inner.lines.push_back(line);
        let lost = std::mem::take(&mut inner.lost);
        if lost > 0 {
            inner.lines.push_back(confess(lost));
        }
        drop(inner);
        self.filled.notify_one();
    }

    /// How many lines wait, and how many were lost since that was last told.
    pub(super) fn waiting(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.lines.len(), inner.lost)
    }

    /// Waits for lines and takes them all. [`Queue::written`] must follow.
    pub(super) fn take(&self) -> Option<VecDeque<String>> {
        let mut inner = self.lock();
        while inner.lines.is_empty() {
            inner = self.filled.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.is_writing = true;
        Some(std::mem::take(&mut inner.lines))
    }

    pub(super) fn written(&self) {
        self.lock().is_writing = false;
        self.idle.notify_all();
    }

    /// Waits until all is written, or until the limit.
    pub(super) fn flush(&self, limit: Duration) {
        let busy = |inner: &mut Inner| inner.is_writing || !inner.lines.is_empty();
        drop(self.idle.wait_timeout_while(self.lock(), limit, busy).unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_counted_and_told_once() {
        let queue = Queue::new(2);
        let put = |text: &str| queue.put(text.to_owned(), |lost| format!("lost {lost}"));
        ["a", "b", "c", "d"].iter().for_each(|text| put(text));
        assert_eq!(queue.waiting(), (2, 2));
        assert_eq!(queue.take().unwrap(), ["a", "b"]);
        assert_eq!(queue.waiting(), (0, 2));
        queue.written();
        put("e");
        put("f");
        queue.set_limit(0);
        put("g");
        assert_eq!(queue.take().unwrap(), ["e", "lost 2", "g", "lost 1"]);
    }

    #[test]
    fn flushing_ends_when_all_is_written_or_at_the_limit() {
        let queue = Queue::new(0);
        queue.flush(Duration::from_secs(60));
        queue.put("a".to_owned(), |_| String::new());
        queue.flush(Duration::from_millis(1));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                queue.take();
                queue.written();
            });
            queue.flush(Duration::from_secs(60));
        });
    }
}
