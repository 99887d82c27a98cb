//! Nobody holds the lock: go for it, or stand back.

use crate::cluster::Lsn;
use crate::ha::context::{Context, Flow};
use crate::ha::decision::Step;
use crate::ha::eligibility::{Race, has_promised, race};
use crate::ha::memory::Wait;
use crate::ha::observation::LockOutcome;
use crate::ha::reason::{Line, Reason};
use crate::ha::waits;

/// How soon the DCS is read again after a lost race.
const LOOK_AGAIN_MS: u64 = 500;

/// See the module.
pub(in crate::ha) fn unlocked(cx: &mut Context<'_>) -> Option<Flow> {
    let view = cx.view()?;
    if !view.is_unlocked() && cx.done().acquire.is_none() {
        return None;
    }
    if !view.is_unlocked() && cx.done().acquire == Some(LockOutcome::Kept) {
        // The snapshot was read again after the acquisition: this cycle goes on as the holder.
        return None;
    }
    if cx.done().acquire.is_none() && cx.done().peers.is_none() {
        cx.memory.race_since_ms = Some(cx.now());
        cx.memory.has_won = false;
    }
    match &cx.done().acquire {
        Some(LockOutcome::Kept) if has_promised(cx) || is_outdated(cx) => {
            cx.step(Step::ReleaseLeader(None));
            return stand_back(cx);
        }
        Some(LockOutcome::Kept) => return won(cx),
        Some(_) => {
            if cx.is_sync_active() {
                // Nobody need have won: `/sync` may have changed, and then nothing else will tell.
                cx.wake_within(LOOK_AGAIN_MS);
            }
            return super::following::follow(
                cx,
                Line::DemotedAfterFailedAcquire.into(),
                Line::FollowingAfterFailedAcquire.into(),
            );
        }
        None => {}
    }
    if let Some(flow) = backoff(cx) {
        return Some(flow);
    }
    match race(cx) {
        Race::Asking => Flow::ask("the members for their positions"),
        Race::Run => {
            cx.step(Step::AcquireLeader);
            Flow::ask("the DCS for the leader key")
        }
        Race::StandBack => {
            if !cx.is_paused() {
                // The others may have been asked a moment too early, or they stand back for us.
                waits::look_again(cx, Wait::Leader, "");
            }
            stand_back(cx)
        }
    }
}

/// The members' answers are too old: this node was suspended meanwhile. Whoever else leads changes `/sync`, which the
/// DCS looks at, but for the very leader that `/sync` names; and that one's lease lives for longer than this.
pub(in crate::ha) fn is_outdated(cx: &mut Context<'_>) -> bool {
    let limit = u64::try_from(cx.settings().ttl.as_millis()).unwrap_or(u64::MAX) / 2;
    let is_old = cx.memory.race_since_ms.is_some_and(|since| cx.now().saturating_sub(since) > limit);
    if is_old {
        cx.warn("Releasing the leader key: what this node knew of the others when it went for it is out of date");
        cx.wake_within(1);
    }
    is_old
}

fn won(cx: &mut Context<'_>) -> Option<Flow> {
    let view = cx.view()?;
    let is_unknown = view.system_id().is_none();
    if is_unknown {
        // The rest of the keys, and at last the one that makes the cluster known.
        cx.wake_within(1);
    }
    cx.memory.slots_last_seen_ms.clear();
    cx.memory.has_won = true;
    if let Some(request) = view.failover_request().cloned() {
        match request.candidate.filter(|_| cx.is_paused() && request.leader.is_some()) {
            Some(candidate) => {
                cx.info("Updating failover key after acquiring leader lock...");
                cx.step(Step::KeepFailoverCandidate {
                    candidate,
                    scheduled_at: request.scheduled_at,
                    expected: request.version,
                });
            }
            None => {
                cx.info("Cleaning up failover key after acquiring leader lock...");
                cx.step(Step::BlankFailover(None));
            }
        }
    }
    if cx.in_standby_cluster() {
        let reason: Reason = Line::StandbyLeaderAcquired.into();
        return super::following::follow(cx, Line::CannotLeadStandbyClusterAsPrimary.into(), reason);
    }
    // A replica gets here only by an operator's request.
    let is_sent = is_unknown && !cx.memory.brings_cluster;
    let promotes = if is_sent { Line::LeadingUnknownCluster } else { Line::PromotedAcquired };
    super::holding_lock::enforce_primary(cx, Line::AcquiredAsLeader.into(), promotes.into())
}

fn stand_back(cx: &mut Context<'_>) -> Option<Flow> {
    let nofailover = cx.seen.node.tags.nofailover();
    let candidate_named =
        cx.view().and_then(|view| view.failover_request()).is_some_and(|request| request.candidate.is_some());
    if candidate_named || (nofailover && !cx.is_paused()) {
        cx.mark_check();
    }
    let (demote, stay) = if nofailover {
        (Line::DemotingNotAllowed, Line::FollowingNotAllowed)
    } else {
        (Line::DemotingNotHealthiest, Line::FollowingNotHealthiest)
    };
    super::following::follow(cx, demote.into(), stay.into())
}

/// While the receiver still gets WAL the leader is alive somewhere; a configured back-off lets it come back.
fn backoff(cx: &mut Context<'_>) -> Option<Flow> {
    let backoff_ms = u64::try_from(cx.settings().primary_race_backoff.as_millis()).unwrap_or(u64::MAX);
    let named = cx.view()?.failover_request().is_some_and(|request| request.candidate.is_some());
    if backoff_ms == 0 || cx.is_paused() || cx.in_standby_cluster() || named || cx.is_primary() {
        return None;
    }
    let previous = cx.memory.previous_position?;
    let now = cx.now();
    let since = *cx.memory.backoff_since_ms.get_or_insert(now);
    let left_ms = (since + backoff_ms).saturating_sub(now);
    let moved = cx.position().unwrap_or(Lsn::ZERO) > previous
        && cx.monitor().and_then(|monitor| monitor.replication_state()) == Some("streaming");
    let loop_ms = u64::try_from(cx.settings().loop_wait.as_millis()).unwrap_or(u64::MAX);
    if left_ms == 0 || !(moved || left_ms > backoff_ms.saturating_sub(loop_ms)) {
        return None;
    }
    cx.wake_within(left_ms);
    Flow::end(Reason::RaceBackoff { me: cx.me().to_string(), seconds_left: (left_ms + 500) / 1000 })
}
