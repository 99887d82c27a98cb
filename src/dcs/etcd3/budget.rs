//! How the time of one operation is shared out. Pure.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// No try needs more than this.
pub(super) const SHORTEST: Duration = Duration::from_secs(1);

/// No try of an operation that may take so long is given less than this, and nothing whose outcome matters is begun
/// with less left: a second, as with Patroni, or less where it would have no time for a second try.
pub(super) fn least(whole: Duration) -> Duration {
    SHORTEST.min(whole / 3)
}

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

/// Shares `remaining` out over so many endpoints that each try gets the least, as Patroni does: three tries on a lone
/// endpoint, two on each of two, one on each of more.
pub(super) fn round(remaining: Duration, endpoints: usize, least: Duration) -> Round {
    let most = remaining.as_nanos() / least.as_nanos().max(1);
    let endpoints = endpoints.min(usize::try_from(most).unwrap_or(usize::MAX)).max(1);
    let share = remaining / u32::try_from(endpoints).unwrap_or(u32::MAX);
    let wanted = match endpoints {
        1 => 3,
        2 => 2,
        _ => 1,
    };
    let tries = (1..=wanted).rev().find(|tries| share / *tries >= least).unwrap_or(1);
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
        let round = round(Duration::from_secs(seconds), endpoints, SHORTEST);
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
    fn a_short_operation_has_shorter_tries() {
        assert_eq!(least(Duration::from_secs(3)), SHORTEST);
        let short = least(Duration::from_secs(1));
        assert_eq!(short.as_millis(), 333);
        let a_little_later = Duration::from_millis(990);
        assert!(a_little_later > short, "the second request of an operation is begun");
        let shared = round(a_little_later, 3, short);
        assert_eq!((shared.endpoints, shared.tries, shared.per_try.as_millis()), (2, 1, 495));
    }

    #[test]
    fn pauses_grow_to_a_limit() {
        assert!(pause(1) < Duration::from_millis(900));
        assert!(pause(40) >= Duration::from_secs(1) && pause(40) < Duration::from_millis(1800));
    }
}
