//! Rules with a deliberate fault. The world must find each of them out, or it proves nothing.

use pgherd::ha::{Decision, Memory, Observation, decide};

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// Neither the agent nor its guard acts when the lease was not renewed in time.
    NoDeadline,
    /// The guard does not act.
    NoGuard,
}

impl Sabotage {
    /// Every fault there is.
    pub(crate) const ALL: &'static [Self] = &[Self::NoDeadline, Self::NoGuard];

    pub(crate) fn decide(self, seen: &Observation, memory: &Memory) -> Decision {
        decide(seen, memory)
    }
}
