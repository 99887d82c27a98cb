//! Writes that failed: no event tells when they would succeed, so the loop tries again soon, and ever more rarely.

use std::time::Duration;

use tokio::time::Instant;

/// The first pause.
const FIRST: Duration = Duration::from_millis(500);

/// How long until writes are tried again: half of the time for which they have failed.
#[derive(Debug, Default)]
pub(super) struct Retry {
    since: Option<Instant>,
    has_failed: bool,
}

impl Retry {
    /// A cycle begins.
    pub(super) fn begin(&mut self) {
        if !std::mem::take(&mut self.has_failed) {
            self.since = None;
        }
    }

    /// A write of this cycle has failed, or was left out because another one had.
    pub(super) fn failed(&mut self) {
        self.has_failed = true;
        self.since.get_or_insert_with(Instant::now);
    }

    /// How soon the next cycle is to come, if for this reason at all.
    pub(super) fn pause(&self) -> Option<Duration> {
        let since = self.since.filter(|_| self.has_failed)?;
        Some((since.elapsed() / 2).max(FIRST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_goes_on_failing_is_tried_ever_more_rarely() {
        let mut retry = Retry::default();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            retry.begin();
            retry.failed();
            retry.failed();
            let pause = retry.pause().unwrap();
            pauses.push(pause);
            tokio::time::sleep(pause).await;
        }
        assert!(pauses.is_sorted() && pauses[0] == FIRST && pauses[11] > FIRST * 20, "{pauses:?}");
        // One cycle in which all went well ends it.
        retry.begin();
        assert_eq!(retry.pause(), None);
        retry.begin();
        retry.failed();
        assert_eq!(retry.pause(), Some(FIRST));
    }
}
