//! Our own belief that we lead, and the deadline that acts alone.
//!
//! *Leading* is a fact of this process's clock: a renewal counts from before it was sent, so the belief ends no later
//! than the lease at the DCS. The *deadline* comes earlier still. If the lease was not renewed by then, whatever the
//! loop is doing (or if it hangs), the server is told to quit: writes stop before anybody else can have been elected.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

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
    is_closed: bool,
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
    pub fn renewed(&self, sent: Instant, ttl: Duration, armed: bool) {
        let mut state = self.state();
        state.leads_until = Some(sent + ttl);
        state.deadline = armed.then(|| sent + ttl.saturating_sub(margin(ttl)));
        self.changed.notify_all();
    }

    /// The key is somebody else's or was given away: we lead no more. The deadline stays, for the server may still
    /// be a primary.
    pub fn lost(&self) {
        self.state().leads_until = None;
    }

    /// The server is no primary, or maintenance mode holds: nothing needs to be stopped.
    pub fn disarm(&self) {
        self.state().deadline = None;
        self.changed.notify_all();
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
        // The machine may have been suspended, which the monotonic clock does not count; a look each second on the
        // clock that does keeps the error small.
        let mut state = self.state();
        let mut suspended = Suspension::start();
        while !state.is_closed {
            let slept = suspended.since_last_look();
            let now = Instant::now() + slept;
            match state.deadline {
                Some(deadline) if now >= deadline => {
                    state.deadline = None;
                    state.leads_until = None;
                    drop(state);
                    fire();
                    state = self.state();
                }
                deadline => {
                    let left = deadline.map_or(Duration::from_secs(1), |at| at.saturating_duration_since(now));
                    let wait = left.min(Duration::from_secs(1));
                    state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }
}

/// Time that passed while the machine slept, which the monotonic clock leaves out.
struct Suspension {
    offset: Duration,
}

impl Suspension {
    fn start() -> Self {
        Self { offset: Self::offset() }
    }

    /// Sleep not yet accounted for.
    fn since_last_look(&mut self) -> Duration {
        Self::offset().saturating_sub(self.offset)
    }

    fn offset() -> Duration {
        use nix::time::{ClockId, clock_gettime};
        let read = |clock| clock_gettime(clock).map(Duration::from).unwrap_or_default();
        read(ClockId::CLOCK_BOOTTIME).saturating_sub(read(ClockId::CLOCK_MONOTONIC))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test(start_paused = true)]
    async fn leading_counts_from_before_the_renewal_was_sent() {
        let lease = Lease::new();
        let sent = Instant::now();
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
        lease.renewed(Instant::now(), Duration::from_millis(1_050), true);
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
        lease.renewed(Instant::now(), Duration::from_secs(30), true);
        assert!(lease.deadline().is_some());
        lease.disarm();
        assert!(lease.deadline().is_none());
        assert!(lease.leads(), "maintenance mode keeps the lead");
        lease.renewed(Instant::now(), Duration::from_secs(30), false);
        assert!(lease.deadline().is_none());
    }
}
