//! The wall clock, as a port. Monotonic time is tokio's, which a test can pause.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

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

/// How long the machine was suspended since it started: by so much the monotonic clock, which tokio's is made of, is
/// behind [`since_boot`]. Told in whole hundredths of a second, so that two readings without a suspension between them
/// are the same.
pub fn suspended() -> Duration {
    let monotonic =
        || nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    let mut behind = Duration::MAX;
    for _ in 0..READINGS {
        let before = monotonic();
        let boot = since_boot();
        behind = behind.min(boot.saturating_sub(before));
        if monotonic().saturating_sub(before) < Duration::from_millis(1) {
            // Nobody else was given the processor between the two readings.
            break;
        }
    }
    Duration::from_millis(u64::try_from(behind.as_millis() / 10 * 10).unwrap_or(u64::MAX))
}

/// The wall clock in the machine's time zone, for what people read.
pub fn local_now() -> Zoned {
    Timestamp::now().to_zoned(local_zone())
}

/// The machine's time zone. What `/etc/localtime` holds is all of it; to learn its name as well, the whole directory
/// of zones would be read and kept in memory.
pub fn local_zone() -> TimeZone {
    static ZONE: OnceLock<TimeZone> = OnceLock::new();
    let zone = || {
        let plain = std::env::var_os("TZ").is_none().then(|| std::fs::read("/etc/localtime").ok()).flatten();
        plain.and_then(|data| TimeZone::tzif("local", &data).ok()).unwrap_or_else(TimeZone::system)
    };
    ZONE.get_or_init(zone).clone()
}

/// How often two clocks are read until nothing came in between.
const READINGS: usize = 5;

/// The machine's own clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn since_epoch(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zone_is_the_systems() {
        for seconds in [0, 1_700_000_000, 1_720_000_000, 4_000_000_000] {
            let at = Timestamp::from_second(seconds).unwrap();
            assert_eq!(local_zone().to_offset(at), TimeZone::system().to_offset(at));
        }
    }
}
