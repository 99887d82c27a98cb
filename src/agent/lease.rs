//! Our own belief that we lead, and the deadline that acts alone.
//!
//! *Leading* is a fact of this process's clock: a renewal counts from before it was sent, so the belief ends no later
//! than the lease at the DCS. The *deadline* comes earlier still. If the lease was not renewed by then, whatever the
//! loop is doing (or if it hangs), the server is told to quit: writes stop before anybody else can have been elected.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::io::clock::since_boot;

/// The state both sides share.
#[derive(Debug, Default)]
pub struct Lease {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    leads_until: Option<Instant>,
    deadline: Option<Instant>,
    /// The deadline on the clock that counts on while the machine is suspended.
    boot_deadline: Option<Duration>,
    stated: Stated,
    is_closed: bool,
}

/// The moment before a renewal is sent, on both clocks: an answer may be read after the machine was suspended.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    at: Instant,
    since_boot: Duration,
}

impl Sent {
    /// This moment.
    pub fn now() -> Self {
        Self { at: Instant::now(), since_boot: since_boot() }
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
fn margin(ttl: Duration) -> Duration {
    (ttl / 6).max(Duration::from_secs(1))
}

impl Lease {
    /// Not leading.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A renewal or acquisition sent at `sent` succeeded.
    pub fn renewed(&self, sent: Sent, ttl: Duration, armed: bool) {
        let left = ttl.saturating_sub(margin(ttl));
        let mut state = self.state();
        state.leads_until = Some(sent.at + ttl);
        state.deadline = armed.then(|| sent.at + left);
        state.boot_deadline = armed.then(|| sent.since_boot + left);
        state.stated = state.boot_deadline.map_or(Stated::Disarmed, Stated::Armed);
        self.changed.notify_all();
    }

    /// The key is somebody else's or was given away: we lead no more. The deadline stays, for the server may still
    /// be a primary.
    pub fn lost(&self) {
        self.state().leads_until = None;
    }

    /// The server is no primary, or maintenance mode holds: nothing needs to be stopped.
    pub fn disarm(&self) {
        let mut state = self.state();
        state.deadline = None;
        state.boot_deadline = None;
        state.stated = Stated::Disarmed;
        self.changed.notify_all();
    }

    /// Waits until something else than `known` was said of the deadline, at most `limit`. The second value: the lease
    /// is closed, and nothing more will be said.
    pub(super) fn statement(&self, known: Stated, limit: Duration) -> (Stated, bool) {
        let state = self.state();
        let news = |state: &mut State| state.stated == known && !state.is_closed;
        let (state, _) = self.changed.wait_timeout_while(state, limit, news).unwrap_or_else(PoisonError::into_inner);
        (state.stated, state.is_closed)
    }

    /// What was last said of the deadline.
    pub fn stated(&self) -> Stated {
        self.state().stated
    }

    /// Until when we surely lead.
    pub fn leads_until(&self) -> Option<Instant> {
        self.state().leads_until
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
        self.state().is_closed = true;
        self.changed.notify_all();
    }

    /// Watches the deadline on a thread of its own, which no hanging task can hold up, until the lease is closed.
    /// `fire` is called once per missed deadline.
    pub fn watch(self: &Arc<Self>, fire: impl Fn() + Send + 'static) -> std::io::Result<std::thread::JoinHandle<()>> {
        let lease = Arc::clone(self);
        std::thread::Builder::new().name("lease-deadline".into()).spawn(move || lease.watch_until_closed(&fire))
    }

    fn watch_until_closed(&self, fire: &dyn Fn()) {
        // The machine may have been suspended, during which no wait on the monotonic clock ends; a look each second on
        // the clock that went on keeps the error small.
        let mut state = self.state();
        while !state.is_closed {
            let now = since_boot();
            match state.boot_deadline {
                Some(deadline) if now >= deadline => {
                    state.deadline = None;
                    state.boot_deadline = None;
                    state.leads_until = None;
                    drop(state);
                    fire();
                    state = self.state();
                }
                deadline => {
                    let left = deadline.map_or(Duration::from_secs(1), |at| at.saturating_sub(now));
                    let wait = left.min(Duration::from_secs(1));
                    state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
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

    #[test]
    fn the_deadline_fires_once_and_without_any_runtime() {
        let lease = Lease::new();
        let fired = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&fired);
        let thread = lease
            .watch(move || {
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
