//! A client that writes a row every few milliseconds, to whoever takes it: it feels how long nobody did.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Config;
use tokio_util::task::AbortOnDropHandle;

use super::look::Session;

/// From one row to the next.
const BEAT: Duration = Duration::from_millis(20);

/// A connection or a row that takes longer is given up: the server may be gone without a word.
const PATIENCE: Duration = Duration::from_millis(1000);

/// The table it writes to.
pub(super) const TABLE: &str = "tour_pulse";

/// Beats until it is dropped.
pub(super) struct Pulse {
    acknowledged: Arc<Mutex<Vec<Instant>>>,
    _task: AbortOnDropHandle<()>,
}

impl Pulse {
    /// Starts to write.
    pub(super) fn start(target: Config) -> Self {
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&acknowledged);
        let task = tokio::spawn(async move {
            let mut session: Option<Session> = None;
            let insert = format!("INSERT INTO {TABLE} DEFAULT VALUES");
            loop {
                if session.is_none() {
                    session = timeout(PATIENCE, Session::open(&target)).await.ok().and_then(Result::ok);
                }
                if let Some(open) = &session {
                    match timeout(PATIENCE, open.run(&insert)).await {
                        Ok(Ok(_)) => record.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now()),
                        _ => session = None,
                    }
                }
                sleep(BEAT).await;
            }
        });
        Self { acknowledged, _task: AbortOnDropHandle::new(task) }
    }

    /// Whether a row was acknowledged after this moment.
    pub(super) fn has_beaten_since(&self, moment: Instant) -> bool {
        self.times().last().is_some_and(|last| *last > moment)
    }

    /// The longest time without an acknowledged row, from `start` to now.
    pub(super) fn longest_pause(&self, start: Instant) -> Duration {
        longest_pause(&self.times(), start)
    }

    fn times(&self) -> Vec<Instant> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn longest_pause(times: &[Instant], start: Instant) -> Duration {
    let mut longest = Duration::ZERO;
    let mut last = start;
    for time in times.iter().filter(|time| **time > start) {
        longest = longest.max(*time - last);
        last = *time;
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_pause_counts_from_the_start() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        assert_eq!(longest_pause(&[at(300), at(320), at(900)], start), Duration::from_millis(580));
        assert_eq!(longest_pause(&[at(300), at(320), at(900)], at(310)), Duration::from_millis(580));
        assert_eq!(longest_pause(&[at(700), at(720)], start), Duration::from_millis(700));
        assert_eq!(longest_pause(&[], start), Duration::ZERO);
    }
}
