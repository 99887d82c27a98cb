//! Our own belief that we lead, and the deadline that acts alone.
//!
//! *Leading* is a fact of this process's clock: a renewal counts from before it was sent, so the belief ends no later
//! than the lease at the DCS. The *deadline* comes earlier still. If the lease was not renewed by then, whatever the
//! loop is doing (or if it hangs), the server is told to quit: writes stop before anybody else can have been elected.
//!
//! Both are counted with the time during which the machine was suspended: the DCS counted on.
//!
//! Whoever has another good reason to lead for a while (failsafe mode) says so with [`Lease::renewed`], too: belief,
//! deadline, guard and watchdog follow from it, whatever the reason was.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::io::alarm::Alarm;
use crate::io::clock::{since_boot, suspended};

/// The state both sides share.
#[derive(Debug, Default)]
pub struct Lease {
    state: Mutex<State>,
    /// Of the thread that watches the deadline.
    alarm: OnceLock<Alarm>,
    /// Of the thread that tells the guard.
    news: OnceLock<Alarm>,
}

#[derive(Debug, Default)]
struct State {
    /// Until when we lead, and how long the machine had been suspended when that was reckoned.
    leads_until: Option<(Instant, Duration)>,
    deadline: Option<Instant>,
    /// The deadline on the clock that counts on while the machine is suspended.
    boot_deadline: Option<Duration>,
    /// Until when the thread that watches the deadline sleeps at the longest, as far as it knows of one.
    sleeps_until: Option<Duration>,
    stated: Stated,
    is_closed: bool,
}

/// The moment before a renewal is sent, on both clocks: an answer may be read after the machine was suspended.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    at: Instant,
    since_boot: Duration,
    suspended: Duration,
}

impl Sent {
    /// This moment.
    pub fn now() -> Self {
        Self { at: Instant::now(), since_boot: since_boot(), suspended: suspended() }
    }

    /// A moment of this machine's life that another process has noted. `None`: it has not come yet.
    pub(super) fn back_then(moment: Duration) -> Option<Self> {
        let now = Self::now();
        // What the machine has slept through since then is counted already.
        let at = now.at.checked_sub(now.since_boot.checked_sub(moment)?)?;
        Some(Self { at, since_boot: moment, ..now })
    }

    /// On the clock that stands still while the machine is suspended.
    pub(super) fn at(&self) -> Instant {
        self.at
    }

    /// On the clock that counts on while the machine is suspended.
    pub(super) fn since_boot(&self) -> Duration {
        self.since_boot
    }
}

/// What was last said of the deadline, for the guard. Unlike the deadline itself it is not consumed when it fires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stated {
    /// Nothing yet: whatever an agent before us left stays in force.
    #[default]
    Nothing,
    /// The server needs not be stopped.
    Disarmed,
    /// The server must not run beyond this time since boot.
    Armed(Duration),
}

/// How long before the end of the lease the server is told to quit: a sixth of it, at least a second.
pub(super) fn margin(ttl: Duration) -> Duration {
    (ttl / 6).max(Duration::from_secs(1))
}

/// That moment of the monotonic clock, which stood still while the machine was suspended for so long.
fn less(until: Instant, slept: Duration) -> Instant {
    if slept.is_zero() { until } else { until.checked_sub(slept).unwrap_or_else(Instant::now) }
}

impl Lease {
    /// Not leading.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known of the deadline. Only those are woken whom it concerns: who waits for an earlier deadline
    /// finds by then that there is a later one.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        let before = state.stated;
        change(&mut state);
        let is_sooner = |at| state.sleeps_until.is_none_or(|until| at < until);
        let is_deadline_news = state.is_closed || state.boot_deadline.is_some_and(is_sooner);
        let is_guard_news = state.is_closed || state.stated != before;
        drop(state);
        if let (true, Some(alarm)) = (is_deadline_news, self.alarm.get()) {
            alarm.ring();
        }
        if is_guard_news {
            self.remind();
        }
    }

    /// Has the thread that keeps the guard look after it at once.
    pub(super) fn remind(&self) {
        if let Some(news) = self.news.get() {
            news.ring();
        }
    }

    /// What was sent at `sent` entitles us to lead for `ttl` from then on: the DCS renewed the lease, or (in failsafe
    /// mode) every member that could take over answered that it will not before that time is over. `armed`: the server
    /// is stopped unless this is called again in time; not so in maintenance mode.
    ///
    /// `sent` must be taken **before** the question is sent, and `ttl` be what the other side counts by.
    pub fn renewed(&self, sent: Sent, ttl: Duration, armed: bool) {
        let left = ttl.saturating_sub(margin(ttl));
        self.change(|state| {
            state.leads_until = Some((sent.at + ttl, sent.suspended));
            state.deadline = armed.then(|| sent.at + left);
            state.boot_deadline = armed.then(|| sent.since_boot + left);
            state.stated = state.boot_deadline.map_or(Stated::Disarmed, Stated::Armed);
        });
    }

    /// The key is somebody else's or was given away: we lead no more. The deadline stays, for the server may still
    /// be a primary.
    pub fn lost(&self) {
        self.state().leads_until = None;
    }

    /// The server is no primary, or maintenance mode holds: nothing needs to be stopped.
    pub fn disarm(&self) {
        self.change(|state| {
            state.deadline = None;
            state.boot_deadline = None;
            state.stated = Stated::Disarmed;
        });
    }

    /// Makes [`Lease::news`] possible.
    pub(super) fn keep_news(&self) -> std::io::Result<()> {
        let _ = self.news.set(Alarm::new()?);
        Ok(())
    }

    /// What was last said of the deadline. The second value: the lease is closed, and nothing more will be said. If
    /// that is what is known already, waits until it may have changed, for about `limit`, or until `other` can be read
    /// or is hung up. For one thread.
    pub(super) fn news(&self, known: Stated, limit: Duration, other: Option<BorrowedFd<'_>>) -> (Stated, bool) {
        let last = || {
            let state = self.state();
            (state.stated, state.is_closed)
        };
        if let (Some(news), (stated, false)) = (self.news.get(), last())
            && stated == known
        {
            news.wait_or(Some(since_boot() + limit), other.as_slice());
        }
        last()
    }

    /// What was last said of the deadline.
    pub fn stated(&self) -> Stated {
        self.state().stated
    }

    /// Until when we surely lead, if the machine is not suspended before.
    pub fn leads_until(&self) -> Option<Instant> {
        let (until, suspended_then) = self.state().leads_until?;
        Some(less(until, suspended().saturating_sub(suspended_then)))
    }

    /// We surely lead now.
    pub fn leads(&self) -> bool {
        self.leads_until().is_some_and(|until| Instant::now() < until)
    }

    /// The moment at which the server is told to quit, while armed.
    pub fn deadline(&self) -> Option<Instant> {
        self.state().deadline
    }

    /// Ends the watching thread.
    pub fn close(&self) {
        self.change(|state| state.is_closed = true);
    }

    /// Watches the deadline on a thread of its own, which no hanging task can hold up, until the lease is closed.
    /// `fire` is called once per missed deadline, with the time since boot at which it was; it may take its time to see
    /// the server off.
    pub fn watch(
        self: &Arc<Self>,
        fire: impl Fn(Duration) + Send + 'static,
    ) -> std::io::Result<std::thread::JoinHandle<()>> {
        let lease = Arc::clone(self);
        let _ = lease.alarm.set(Alarm::new()?);
        std::thread::Builder::new().name("lease-deadline".into()).spawn(move || lease.watch_until_closed(&fire))
    }

    fn watch_until_closed(&self, fire: &dyn Fn(Duration)) {
        let Some(alarm) = self.alarm.get() else { return };
        loop {
            let mut state = self.state();
            if state.is_closed {
                return;
            }
            match state.boot_deadline {
                Some(deadline) if since_boot() >= deadline => {
                    state.deadline = None;
                    state.boot_deadline = None;
                    state.leads_until = None;
                    drop(state);
                    fire(deadline);
                }
                deadline => {
                    state.sleeps_until = deadline;
                    drop(state);
                    alarm.wait(deadline);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test(start_paused = true)]
    async fn leading_counts_from_before_the_renewal_was_sent() {
        let lease = Lease::new();
        let sent = Sent::now();
        tokio::time::advance(Duration::from_secs(5)).await;
        lease.renewed(sent, Duration::from_secs(30), true);
        tokio::time::advance(Duration::from_secs(24)).await;
        assert!(lease.leads());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(!lease.leads());
    }

    #[tokio::test(start_paused = true)]
    async fn time_that_the_machine_slept_through_counts() {
        let now = Instant::now();
        let until = now + Duration::from_secs(30);
        assert_eq!(less(until, Duration::ZERO), until);
        assert_eq!(less(until, Duration::from_secs(29)), now + Duration::from_secs(1));
        assert!(less(until, Duration::from_secs(31)) <= Instant::now(), "over");
        assert!(less(until, Duration::from_secs(1 << 40)) <= Instant::now(), "longer than the clock can say");
    }

    #[test]
    fn the_deadline_fires_once_and_without_any_runtime() {
        let lease = Lease::new();
        let fired = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&fired);
        let thread = lease
            .watch(move |_| {
                count.fetch_add(1, Ordering::SeqCst);
            })
            .unwrap();
        lease.renewed(Sent::now(), Duration::from_millis(1_050), true);
        let give_up = Instant::now() + Duration::from_secs(10);
        while fired.load(Ordering::SeqCst) == 0 && Instant::now() < give_up {
            std::thread::yield_now();
        }
        assert_eq!(fired.load(Ordering::SeqCst), 1);
        assert!(!lease.leads());
        lease.close();
        thread.join().unwrap();
        assert_eq!(fired.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_disarmed_deadline_stays_quiet() {
        let lease = Lease::new();
        lease.renewed(Sent::now(), Duration::from_secs(30), true);
        assert!(lease.deadline().is_some());
        lease.disarm();
        assert!(lease.deadline().is_none());
        assert!(lease.leads(), "maintenance mode keeps the lead");
        lease.renewed(Sent::now(), Duration::from_secs(30), false);
        assert!(lease.deadline().is_none());
    }
}
