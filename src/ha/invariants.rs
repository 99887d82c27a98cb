//! Statements about an observation and the decision made of it that must always hold, checked from outside the
//! rules: by the tests, the simulator, and the agent in debug builds.

use super::decision::{Decision, Step, Task};
use super::observation::{LockOutcome, Observation};

/// A broken statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding(pub String);

/// Checks one decision.
pub fn check(seen: &Observation, decision: &Decision) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut must = |holds: bool, statement: &str| {
        if !holds {
            findings.push(Finding(format!("rule {}: {statement}", decision.rule)));
        }
    };
    let has = |wanted: &dyn Fn(&Step) -> bool| decision.steps.iter().any(wanted);
    let tasks = decision.steps.iter().filter(|step| matches!(step, Step::Begin(_))).count();
    must(tasks <= 1, "at most one task begins");
    must(tasks == 0 || seen.task.is_none(), "no task begins while one runs");
    let promotes = has(&|step| matches!(step, Step::Begin(Task::Promote { .. })));
    if promotes {
        let lock = [&seen.done.acquire, &seen.done.renewal].into_iter().flatten();
        must(lock.clone().any(|outcome| *outcome == LockOutcome::Kept), "only a holder that just proved it promotes");
        must(seen.settings.standby_cluster.is_none(), "a standby cluster never promotes");
        must(seen.instance.is_primary() != Some(true), "a primary is not promoted again");
    }
    let acquires = has(&|step| matches!(step, Step::AcquireLeader));
    if acquires {
        must(seen.view().is_some_and(|view| view.is_unlocked()), "nobody races for a held lock");
        let runs = seen.instance.is_postmaster_alive;
        must(runs, "only a running server races");
        let promised = seen.failsafe_ping.as_ref().is_some_and(|leader| leader.is_promised(seen));
        must(!promised || seen.instance.is_primary() == Some(true), "what was promised to another primary is kept");
        let by_hand = seen.view().is_some_and(|view| view.failover_request().is_some());
        let is_primary = seen.instance.is_primary() == Some(true);
        must(!seen.node.tags.nofailover() || by_hand || is_primary, "nofailover is never elected");
    }
    let removes = has(&|step| matches!(step, Step::RemoveDataDir));
    must(
        !removes || seen.node.remove_on_rewind_failure || seen.node.remove_on_divergence,
        "no data directory is removed unasked",
    );
    let stops = has(&|step| matches!(step, Step::Begin(Task::Stop { .. }) | Step::QuitNow));
    must(!(promotes && stops), "nothing is promoted and stopped at once");
    findings
}
