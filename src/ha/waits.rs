//! What no event tells of: it is looked for again soon at first, and ever more rarely the longer it does not come, so that
//! what never comes costs next to nothing.

use super::context::Context;
use super::memory::{Wait, Waited};

/// What came and went within this time did not come: who begins to wait for it anew goes on where it was.
const SETTLED_MS: u64 = 10_000;

/// Who has not asked for so long, and for two turns of the loop, was busy with something else, as another role is: it
/// begins anew.
const FORGOTTEN_MS: u64 = 60_000;

impl Wait {
    /// How soon the first look is.
    fn first_ms(self) -> u64 {
        match self {
            Self::Names => 1,
            Self::Stream | Self::Sender | Self::Confirmation => 100,
            Self::Leader | Self::Divergence | Self::Timeline | Self::Recovery | Self::Lag | Self::Slots => 1_000,
        }
    }
}

/// It is not there yet: the next look comes after half of the time that has passed. `of`: waiting for something else of
/// the same kind begins anew.
pub(super) fn look_again(cx: &mut Context<'_>, what: Wait, of: &str) {
    let now = cx.now();
    let turns_ms = u64::try_from(cx.settings().loop_wait.as_millis()).unwrap_or(u64::MAX).saturating_mul(2);
    let waited = cx.memory.waits.entry(what).or_default();
    let is_forgotten = now.saturating_sub(waited.missed_ms) > turns_ms.max(FORGOTTEN_MS);
    let has_settled = waited.over_since_ms.take().is_some_and(|over| now.saturating_sub(over) >= SETTLED_MS);
    if waited.of.as_deref() != Some(of) || has_settled || is_forgotten {
        *waited = Waited { of: Some(of.to_owned()), since_ms: now, ..Waited::default() };
    }
    waited.missed_ms = now;
    let passed = now.saturating_sub(waited.since_ms);
    cx.wake_within((passed / 2).max(what.first_ms()));
}

/// It is there, or is not waited for.
pub(super) fn is_over(cx: &mut Context<'_>, what: Wait) {
    let now = cx.now();
    if let Some(waited) = cx.memory.waits.get_mut(&what) {
        waited.over_since_ms.get_or_insert(now);
    }
}
