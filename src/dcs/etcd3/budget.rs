//! How the time of one operation is shared out. Pure.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// No try is given less than this when there is time for several.
pub(super) const SHORTEST: Duration = Duration::from_secs(1);

/// Nothing whose outcome matters is begun with less left. The smallest budget of an operation is a second.
pub(super) const LEAST: Duration = Duration::from_millis(300);

/// One pass over the endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Round {
    /// How many endpoints are asked.
    pub(super) endpoints: usize,
    /// How often each is asked if no connection can be made. What was sent is not sent again to the same one.
    pub(super) tries: u32,
    /// The time of one try.
    pub(super) per_try: Duration,
}

/// Shares `remaining` out over so many endpoints that each try gets a second, as Patroni does: three tries on a lone
/// endpoint, two on each of two, one on each of more.
pub(super) fn round(remaining: Duration, endpoints: usize) -> Round {
    let seconds = usize::try_from(remaining.as_secs()).unwrap_or(usize::MAX);
    let endpoints = endpoints.min(seconds).max(1);
    let share = remaining / u32::try_from(endpoints).unwrap_or(u32::MAX);
    let wanted = match endpoints {
        1 => 3,
        2 => 2,
        _ => 1,
    };
    let tries = (1..=wanted).rev().find(|tries| share / *tries >= SHORTEST).unwrap_or(1);
    Round { endpoints, tries, per_try: share / tries }
}

/// The pause before the next round: doubled each time up to a second, plus up to 0.8 s by chance so that agents that
/// lost the same endpoint do not come back together.
pub(super) fn pause(rounds_done: u32) -> Duration {
    let base = Duration::from_millis(100) * 2u32.saturating_pow(rounds_done.saturating_sub(1).min(4));
    // The standard library's hash keys are random; nothing here needs better chance than that.
    let chance = RandomState::new().build_hasher().finish() % 800;
    base.min(Duration::from_secs(1)) + Duration::from_millis(chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(seconds: u64, endpoints: usize) -> (usize, u32, u128) {
        let round = round(Duration::from_secs(seconds), endpoints);
        (round.endpoints, round.tries, round.per_try.as_millis())
    }

    #[test]
    fn every_try_gets_a_second_or_there_are_fewer() {
        assert_eq!(rounds(10, 1), (1, 3, 3333));
        assert_eq!(rounds(10, 2), (2, 2, 2500));
        assert_eq!(rounds(10, 3), (3, 1, 3333));
        assert_eq!(rounds(3, 5), (3, 1, 1000));
        assert_eq!(rounds(3, 2), (2, 1, 1500));
        assert_eq!(rounds(2, 1), (1, 2, 1000));
        assert_eq!(rounds(0, 0), (1, 1, 0));
    }

    #[test]
    fn pauses_grow_to_a_limit() {
        assert!(pause(1) < Duration::from_millis(900));
        assert!(pause(40) >= Duration::from_secs(1) && pause(40) < Duration::from_millis(1800));
    }
}
