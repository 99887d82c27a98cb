//! The decision: pure and synchronous.
//!
//! [`decide`] reads an [`Observation`] and the [`Memory`] of the last decision, walks the ordered rule table
//! ([`rules::TABLE`]) and returns the first rule's answer. It takes no time, asks nobody and rolls no dice: the same
//! input gives the same answer, so every decision of the field can be replayed from one line of JSON.
//!
//! How a cycle thinks:
//!
//! 1. *Absorb*: what changed since the last decision goes into the memory (a task ended, the cluster was paused, the
//!    leader changed).
//! 2. *The table*, top to bottom: the DCS is lost; an operator asks for something; a demotion is under way; a task
//!    runs; the server is starting; a cluster is being created; a start has just been tried; there is no data; the
//!    data belongs elsewhere; the server is down; nobody leads; somebody leads.
//! 3. *Finish*: slots are ordered, the member value is published.
//!
//! A rule that needs an outcome (did the renewal succeed, what do the peers say) orders the step and asks to be
//! called again; the outcome is in the next observation's `done`.

pub mod decision;
pub mod memory;
pub mod observation;
pub mod reason;
pub mod rules;

mod absorb;
mod context;
mod eligibility;
mod failsafe;
mod invariants;
mod publish;
pub mod quorum;
mod requests;
mod slots;
pub mod sync;
mod waits;

#[cfg(test)]
mod tests;

pub use decision::{Decision, Level, Note, Reply, Step, Task, Verdict};
pub use invariants::{Finding, check};
pub use memory::{BootstrapStage, DemoteMode, Demotion, DemotionStage, Memory, RewindState, Wait, Waited};
pub use observation::{
    Done, EndedTask, FailsafeLeader, LockOutcome, Node, Observation, Request, RequestKind, RunningTask, Snapshot,
    TaskOutcome, Watchdog,
};
pub use reason::{Line, Reason};
pub use slots::positions as slot_positions;

use context::{Context, Flow};

/// Decides what to do now. See the module's own words for how.
pub fn decide(seen: &Observation, memory: &Memory) -> Decision {
    let led;
    let mut cx = Context::new(seen, memory);
    absorb::absorb(&mut cx);
    // Only now: the memory keeps what the DCS says.
    led = failsafe::stand_in(&cx);
    if let Some(led) = &led {
        cx.seen = led;
        failsafe::wake_at_the_end(&mut cx);
    }
    for rule in rules::TABLE {
        if let Some(flow) = (rule.decide)(&mut cx) {
            return cx.finish(rule.number, flow);
        }
    }
    // The last rule of the table always answers; should it ever not, doing nothing is the safe choice.
    cx.finish(0, Flow::End(Reason::Alone { me: seen.node.name.to_string() }))
}
