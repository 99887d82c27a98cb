//! The wall clock, as a port. Monotonic time is tokio's, which a test can pause.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time of day, for what is shown or scheduled; never for leases.
pub trait Clock: Send + Sync {
    /// Time since the epoch.
    fn since_epoch(&self) -> Duration;
}

/// Time since the machine started, with the time it was suspended. The same for every process of the machine, and
/// never set.
pub fn since_boot() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// The machine's own clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn since_epoch(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}
