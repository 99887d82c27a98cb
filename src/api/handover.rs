//! Switchover and failover as a request: check that it can be done, write it down, wait for the outcome. The agents'
//! loops do the rest; any member of the cluster may be asked.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::StatusCode;
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::cluster::{ClusterView, FailoverKey, Member, MemberName, PeerAnswer};
use crate::config::{Dynamic, SynchronousMode};

use super::node::Node;
use super::requests::{Handover, parse_handover};
use super::status::synchronous_mode;
use super::wire::Answer;

/// How often the outcome is looked for.
const POLL_EVERY: Duration = Duration::from_millis(250);

/// A blank key right after the request may be older than the request; from then on it means that it was dropped.
const BLANK_COUNTS_AFTER: Duration = Duration::from_secs(1);

fn refused(status: StatusCode, message: impl Into<String>) -> Answer {
    Answer::text(status, message)
}

/// `POST /switchover` and `POST /failover`, from the body to the outcome. `view` is freshly loaded.
pub(super) async fn hand_over(
    node: &dyn Node,
    asked: (Handover, &Map<String, Value>),
    view: &ClusterView,
    dynamic: &Dynamic,
    now_ms: i64,
) -> Answer {
    match try_hand_over(node, asked, view, dynamic, now_ms).await {
        Ok(answer) | Err(answer) => answer,
    }
}

async fn try_hand_over(
    node: &dyn Node,
    (asked, body): (Handover, &Map<String, Value>),
    view: &ClusterView,
    dynamic: &Dynamic,
    now_ms: i64,
) -> Result<Answer, Answer> {
    let (kind, request) = parse_handover(asked, body, dynamic.pause, now_ms)?;
    note(asked, kind, &request);
    if request.scheduled_at.is_none() {
        let asked =
            peers_to_ask(kind, &request, view, dynamic).map_err(|why| refused(StatusCode::PRECONDITION_FAILED, why))?;
        let answers = node.ask_peers(&asked).await;
        if !answers.values().any(is_good) {
            let why = format!("{} is not possible: no good candidates have been found", kind.word());
            return Err(refused(StatusCode::PRECONDITION_FAILED, why));
        }
    }
    match node.write_failover(&request, None).await {
        Ok(true) => {}
        Ok(false) | Err(_) => {
            return Err(refused(StatusCode::SERVICE_UNAVAILABLE, "failed to write failover key into DCS"));
        }
    }
    node.wake();
    if request.scheduled_at.is_some() {
        return Ok(Answer::text(StatusCode::ACCEPTED, "Switchover scheduled"));
    }
    Ok(wait_for_outcome(node, kind, request.candidate.as_ref(), view.leader_name(), dynamic.loop_wait).await)
}

/// For the log: who is to hand over to whom, and when.
fn note(asked: Handover, kind: Handover, request: &FailoverKey) {
    let name = |name: &Option<MemberName>| name.as_ref().map_or("None", |name| name.as_str()).to_owned();
    let at = request.scheduled_at.as_deref().unwrap_or("None");
    let (leader, candidate) = (name(&request.leader), name(&request.candidate));
    let word = asked.word();
    tracing::info!("received {word} request with leader={leader} candidate={candidate} scheduled_at={at}");
    if kind != asked {
        tracing::warn!("the {word} request names a leader, so it is a {}", kind.word());
    }
}

/// Who could take over, by what the cluster says; or why nobody.
fn peers_to_ask(
    kind: Handover,
    request: &FailoverKey,
    view: &ClusterView,
    dynamic: &Dynamic,
) -> Result<BTreeMap<MemberName, String>, String> {
    if request.leader.as_ref().is_some_and(|leader| view.leader_name() != Some(leader)) {
        return Err("leader name does not match".to_owned());
    }
    let is_priority = synchronous_mode(dynamic) == SynchronousMode::Priority;
    let address = |member: &Member| Some((member.name.clone(), member.api_url()?.to_owned()));
    let Some(candidate) = &request.candidate else {
        let mut others = view.members.iter().filter(|member| !view.has_lock(&member.name));
        if !is_priority {
            let peers: BTreeMap<_, _> = others.filter_map(address).collect();
            let none = || format!("{} is not possible: cluster does not have members except leader", kind.word());
            return if peers.is_empty() { Err(none()) } else { Ok(peers) };
        }
        if !others.any(|member| view.sync.is_voter(&member.name)) {
            return Err(format!("{} is not possible: can not find sync_standby", kind.word()));
        }
        return Ok(view.members.iter().filter(|member| view.sync.is_voter(&member.name)).filter_map(address).collect());
    };
    if kind == Handover::Switchover && is_priority && !view.sync.is_voter(candidate) {
        return Err("candidate name does not match with sync_standby".to_owned());
    }
    let member = view.member(candidate).ok_or("candidate does not exists")?;
    Ok(address(member).into_iter().collect())
}

fn is_good(answer: &PeerAnswer) -> bool {
    match answer {
        PeerAnswer::Answered { tags, watchdog_failed, .. } => !tags.nofailover() && !watchdog_failed,
        PeerAnswer::Unreachable(_) => false,
    }
}

async fn wait_for_outcome(
    node: &dyn Node,
    kind: Handover,
    candidate: Option<&MemberName>,
    before: Option<&MemberName>,
    loop_wait: Duration,
) -> Answer {
    let patience = 2 * loop_wait.max(Duration::from_secs(10));
    let begun = Instant::now();
    while begun.elapsed() < patience {
        tokio::time::sleep(POLL_EVERY).await;
        let Ok(view) = node.load().await else { continue };
        if let Some(answer) = outcome(&view, kind, candidate, before) {
            return answer;
        }
        if view.failover_request().is_none() && begun.elapsed() >= BLANK_COUNTS_AFTER {
            return Answer::text(StatusCode::SERVICE_UNAVAILABLE, format!("{} failed", kind.title()));
        }
    }
    let title = kind.title();
    let seconds = patience.as_secs();
    let message = format!("{title} status unknown after {seconds} seconds; operation may still be in progress");
    Answer::text(StatusCode::SERVICE_UNAVAILABLE, message)
}

/// The answer once another member leads.
fn outcome(
    view: &ClusterView,
    kind: Handover,
    candidate: Option<&MemberName>,
    before: Option<&MemberName>,
) -> Option<Answer> {
    let leader = view.leader_name().filter(|leader| Some(*leader) != before)?;
    let message = match candidate {
        Some(wanted) if wanted != leader => {
            let done = match kind {
                Handover::Switchover => "Switched over",
                Handover::Failover => "Failed over",
            };
            format!("{done} to \"{leader}\" instead of \"{wanted}\"")
        }
        _ => format!("Successfully {} to \"{leader}\"", kind.done()),
    };
    Some(Answer::text(StatusCode::OK, message))
}

/// `DELETE /switchover`. `view` is freshly loaded.
pub(super) async fn cancel(node: &dyn Node, view: &ClusterView) -> Answer {
    let Some(key) = view.failover_request().filter(|key| key.scheduled_at.is_some()) else {
        return Answer::text(StatusCode::NOT_FOUND, "no switchover is scheduled");
    };
    match node.write_failover(&FailoverKey::default(), Some(key.version)).await {
        Ok(true) => Answer::text(StatusCode::OK, "scheduled switchover deleted"),
        Ok(false) | Err(_) => Answer::error_page(StatusCode::CONFLICT),
    }
}

#[cfg(test)]
#[path = "handover/tests.rs"]
mod tests;
