//! The server starts while we hold the lock: renew, watch the timeout, and let an operator move the leader away.

use crate::ha::context::{Context, Flow};
use crate::ha::eligibility::failover_possible;
use crate::ha::memory::DemoteMode;
use crate::ha::observation::LockOutcome;
use crate::ha::reason::{Line, Reason};

/// See the module.
pub(in crate::ha) fn starting(cx: &mut Context<'_>) -> Option<Flow> {
    if cx.is_paused() || !cx.is_starting() {
        return None;
    }
    if !cx.has_lock() {
        cx.info("Still starting up as a standby.");
        return None;
    }
    match cx.renewal() {
        None => return Flow::ask("the DCS to renew the lease"),
        Some(LockOutcome::Kept) => {}
        Some(_) => {
            cx.info("Lost lock while starting up. Demoting self.");
            cx.demote(DemoteMode::ImmediateNolock, "demotion");
            return Flow::end(Line::StoppedLostKeyWhileStarting);
        }
    }
    let configured = u64::try_from(cx.settings().primary_start_timeout.as_millis()).unwrap_or(u64::MAX);
    let timeout_ms = cx.memory.start_timeout_ms.unwrap_or(configured);
    let since = cx.memory.starting_since_ms.unwrap_or(cx.now());
    let left_ms = timeout_ms.saturating_sub(cx.now().saturating_sub(since));
    if left_ms > 0 {
        if let Some(flow) = super::manual::on_the_leader(cx) {
            return Some(flow);
        }
        cx.wake_within(left_ms);
        return Flow::end(Reason::StillStarting { seconds_left: (left_ms + 500) / 1000 });
    }
    match failover_possible(cx, None, false) {
        None => Flow::ask("the members whether one could take over"),
        Some(true) => {
            cx.info("Demoting self because primary startup is taking too long");
            cx.demote(DemoteMode::Immediate, "demotion");
            Flow::end(Line::StoppedStartupTimeout)
        }
        Some(false) => Flow::end(Line::StartTimedOutButWaiting),
    }
}
