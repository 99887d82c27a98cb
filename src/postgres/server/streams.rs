//! The processes that carry WAL to this server or from it: no server says when one of them ends, but the system does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::postgres::process::process_ended;

/// Ends that follow one another are told at a distance that begins with the first of these and doubles up to the
/// second, until there was none for as long as the third: a standby that comes and goes all the time must not keep the
/// loop busy.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
const CALM: Duration = Duration::from_secs(30);

/// Those seen at the last look, each with what waits for its end.
#[derive(Default)]
pub(super) struct Streams {
    watched: Mutex<BTreeMap<i32, AbortOnDropHandle<()>>>,
    pace: Arc<Mutex<Pace>>,
}

impl Streams {
    /// From now on the end of each of these is an event. Who cannot be waited for is left alone until the next look. A
    /// number whose owner has ended belongs to another process by now. `is_all`: the others have gone; who asks for less,
    /// as the REST interface does at any time, says nothing of them.
    pub(super) fn watch(&self, seen: &[i32], is_all: bool, events: &Arc<Notify>) {
        let mut watched = locked(&self.watched);
        watched.retain(|pid, waits| (!is_all || seen.contains(pid)) && !waits.is_finished());
        for pid in seen {
            watched.entry(*pid).or_insert_with(|| {
                let (pid, events, pace) = (*pid, Arc::clone(events), Arc::clone(&self.pace));
                AbortOnDropHandle::new(tokio::spawn(async move {
                    if process_ended(pid).await {
                        let at = locked(&pace).next(Instant::now());
                        tokio::time::sleep_until(at).await;
                        events.notify_one();
                    }
                }))
            });
        }
    }
}

/// When an end is told.
#[derive(Debug, Default)]
struct Pace {
    last: Option<Instant>,
    pause: Duration,
}

impl Pace {
    /// Of an end that is seen now. One that is about to be told tells of this one, too.
    fn next(&mut self, now: Instant) -> Instant {
        let Some(last) = self.last.filter(|last| now < *last + CALM) else {
            *self = Self { last: Some(now), pause: Duration::ZERO };
            return now;
        };
        if now < last {
            return last;
        }
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        let at = now.max(last + self.pause);
        self.last = Some(at);
        at
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    struct Killed(Child);

    impl Killed {
        fn sleeper() -> Self {
            Self(Command::new("/bin/sleep").arg("600").spawn().unwrap())
        }

        fn pid(&self) -> i32 {
            i32::try_from(self.0.id()).unwrap()
        }
    }

    impl Drop for Killed {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[tokio::test]
    async fn the_end_of_a_process_is_an_event_and_one_that_is_gone_is_none() {
        let (streams, events) = (Streams::default(), Arc::new(Notify::new()));
        let mut child = Killed::sleeper();
        let pid = child.pid();
        streams.watch(&[pid], true, &events);
        streams.watch(&[pid], true, &events);
        child.0.kill().unwrap();
        tokio::time::timeout(LONG, events.notified()).await.unwrap();
        child.0.wait().unwrap();
        // Seen once more, for it has just gone: that is no event, or the next look would be the next event.
        streams.watch(&[pid], true, &events);
        let until_tried = async {
            while !locked(&streams.watched)[&pid].is_finished() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, until_tried).await.unwrap();
        let told = tokio::time::timeout(Duration::ZERO, events.notified());
        assert!(told.await.is_err());
    }

    /// How many descriptors of ours stand for that process.
    fn descriptors(pid: i32) -> usize {
        let opened = std::fs::read_dir("/proc/self/fdinfo").unwrap().filter_map(Result::ok);
        let texts = opened.filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
        texts.filter(|text| text.lines().any(|line| line == format!("Pid:\t{pid}"))).count()
    }

    #[tokio::test]
    async fn who_is_seen_no_more_is_watched_no_more() {
        let (streams, events) = (Streams::default(), Arc::new(Notify::new()));
        let child = Killed::sleeper();
        let open = async |wanted: usize| {
            let until_open = async {
                while descriptors(child.pid()) != wanted {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(LONG, until_open).await.unwrap();
        };
        for _ in 0..3 {
            streams.watch(&[child.pid()], true, &events);
            open(1).await;
        }
        streams.watch(&[], false, &events);
        open(1).await;
        streams.watch(&[], true, &events);
        open(0).await;
    }

    #[test]
    fn who_comes_and_goes_is_told_of_ever_more_rarely() {
        let begin = Instant::now();
        let seconds = |at: Instant| (at - begin).as_secs_f64();
        let mut pace = Pace::default();
        // Ten ends a second for two minutes.
        let mut told: Vec<f64> = Vec::new();
        for tenth in 0..1_200 {
            let at = seconds(pace.next(begin + Duration::from_millis(100 * tenth)));
            if told.last() != Some(&at) {
                told.push(at);
            }
        }
        assert_eq!(told[0], 0.0);
        assert!(told[1] <= 0.5 && told.len() < 20, "{told:?}");
        assert!(told.windows(2).skip(6).all(|pair| pair[1] - pair[0] >= 10.0), "{told:?}");
        // Calm again, and told at once.
        let later = begin + Duration::from_secs(300);
        assert_eq!(pace.next(later), later);
        // Two at once are one.
        let mut pace = Pace::default();
        pace.next(begin);
        let second = pace.next(begin + Duration::from_millis(1));
        assert_eq!(pace.next(begin + Duration::from_millis(2)), second);
    }
}
