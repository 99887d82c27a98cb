//! Health checks: facts in, a status code out. Load balancers and Kubernetes live by these.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::StatusCode;
use serde_json::Value;
use tokio::time::Instant;

use crate::cluster::{Lsn, Role, State};
use crate::config::SynchronousMode;
use crate::config::parameters::units;

use super::node::NodeFacts;
use super::status::Picture;

/// The parameters of a request, decoded; of a repeated one the first counts, empty ones are not there.
pub type Query = BTreeMap<String, String>;

/// Splits and decodes what follows the `?`.
pub fn parse_query(text: &str) -> Query {
    let mut query = Query::new();
    for pair in text.split('&') {
        let Some((name, value)) = pair.split_once('=') else { continue };
        let value = percent_decode(value);
        if !value.is_empty() {
            query.entry(percent_decode(name)).or_insert(value);
        }
    }
    query
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        let escaped = hex.filter(|_| byte == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escaped {
            Some(value) => {
                decoded.push(value);
                at += 3;
            }
            None => {
                decoded.push(if byte == b'+' { b' ' } else { byte });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// What the paths are composed of.
#[derive(Clone, Copy, Debug)]
struct Verdicts {
    leader: bool,
    primary: bool,
    standby_leader: bool,
    replica: bool,
}

fn verdicts(picture: &Picture<'_>, query: &Query) -> Verdicts {
    let role = picture.role();
    let replica = !picture.facts.tags.noloadbalance()
        && role == Role::Replica
        && picture.state() == State::Running.as_str()
        && !is_lagging(picture, query)
        && query.get("replication_state").is_none_or(|wanted| picture.replication_state() == Some(wanted));
    // Without a snapshot the lock cannot be judged, and in maintenance mode nobody gives up being primary for it.
    if picture.view.is_none() && picture.dynamic.pause {
        let (primary, standby_leader) = (role == Role::Primary, role == Role::StandbyLeader);
        return Verdicts { leader: primary || standby_leader, primary, standby_leader, replica };
    }
    if !picture.facts.holds_lock {
        return Verdicts { leader: false, primary: false, standby_leader: false, replica };
    }
    if picture.dynamic.standby_cluster.is_some() {
        let standby_leader = matches!(role, Role::Replica | Role::StandbyLeader);
        return Verdicts { leader: true, primary: false, standby_leader, replica: false };
    }
    Verdicts { leader: true, primary: true, standby_leader: false, replica }
}

/// `lag=`: bytes, or a size with a unit. What is not a size is as if it were not there.
fn lag_limit(query: &Query) -> Option<i128> {
    units::integer(query.get("lag")?, Some("B")).map(i128::from)
}

fn is_lagging(picture: &Picture<'_>, query: &Query) -> bool {
    let Some(limit) = lag_limit(query) else { return false };
    let leader = i128::from(picture.leader_lsn().0);
    let replayed = picture.live.map_or(0, |live| live.replayed.0);
    leader > 0 && leader > i128::from(replayed) + limit
}

/// The code of a health check; the path is the whole one, without the query.
pub fn check(picture: &Picture<'_>, path: &str, query: &Query) -> StatusCode {
    let path = if path == "/" { "/primary" } else { path };
    let (is_good, takes_tags) = judge(picture, path, query);
    let is_good = is_good && (!takes_tags || tags_match(picture.facts, query));
    if is_good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// The verdict, and whether tag filters apply to it. The first rows are matched anywhere in the path.
fn judge(picture: &Picture<'_>, path: &str, query: &Query) -> (bool, bool) {
    let is = verdicts(picture, query);
    let leads = is.primary || is.standby_leader;
    let has = |word: &str| path.contains(word);
    if has("standby_leader") || has("standby-leader") {
        return (is.standby_leader, false);
    }
    if has("leader") {
        return (is.leader, false);
    }
    if has("master") || has("primary") || has("read-write") {
        return (is.primary, false);
    }
    if has("replica") {
        return (is.replica, true);
    }
    if has("read-only") && !has("sync") && !has("quorum") {
        return (leads || is.replica, true);
    }
    if has("health") {
        return (picture.state() == State::Running.as_str(), true);
    }
    if picture.view.is_none() {
        return (false, true);
    }
    let sync = picture.is_synchronous(SynchronousMode::Priority);
    let quorum = picture.is_synchronous(SynchronousMode::Quorum);
    let is_good = match path {
        "/sync" | "/synchronous" => sync && is.replica,
        "/quorum" => quorum && is.replica,
        "/async" | "/asynchronous" => !sync && !quorum && is.replica,
        "/read-only-sync" | "/read-only-synchronous" => leads || sync && is.replica,
        "/read-only-quorum" => leads || quorum && is.replica,
        _ => false,
    };
    (is_good, true)
}

/// Each `tag_NAME=VALUE` names a tag of this member; values that are not text are compared in lower case.
fn tags_match(facts: &NodeFacts, query: &Query) -> bool {
    query.iter().filter_map(|(key, wanted)| Some((key.strip_prefix("tag_")?, wanted))).all(|(name, wanted)| {
        facts.tags.get(name).is_some_and(|value| match value {
            Value::String(text) => text == wanted,
            other => other.to_string().to_lowercase() == *wanted,
        })
    })
}

/// `GET /liveness`: whether the loop turns. In maintenance mode a restart by an orchestrator would do only harm.
pub fn liveness(facts: &NodeFacts, now: Instant) -> StatusCode {
    let is_running_primary = facts.role == Role::Primary && facts.state == Some(State::Running);
    let ttl: Duration = facts.dynamic.ttl;
    let patience = if is_running_primary { ttl } else { ttl * 2 };
    if facts.dynamic.pause || facts.next_cycle + patience > now {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

/// `GET /readiness`: leads, or streams and is not too far behind. The error says what is missing, for the log.
pub fn readiness(picture: &Picture<'_>, query: &Query) -> Result<(), String> {
    if picture.facts.holds_lock {
        return Ok(());
    }
    if picture.state() != State::Running.as_str() {
        return Err(format!("PostgreSQL is {}", picture.state()));
    }
    if picture.replication_state() != Some("streaming") {
        return Err("PostgreSQL does not stream".to_owned());
    }
    let live = picture.live.ok_or("PostgreSQL did not answer")?;
    if picture.view.is_none() && live.latest_end_lsn.is_none() {
        if picture.facts.is_failsafe_active {
            return Ok(());
        }
        return Err("the leader's position is not known".to_owned());
    }
    let position: Lsn =
        if query.get("mode").is_some_and(|mode| mode == "write") { live.received } else { live.replayed };
    let default = i128::from(picture.facts.dynamic.maximum_lag_on_failover_bytes);
    let limit = lag_limit(query).unwrap_or(default);
    let lag = i128::from(picture.leader_lsn().0) - i128::from(position.0);
    if lag > limit { Err(format!("{lag} bytes behind the leader, more than {limit}")) } else { Ok(()) }
}

#[cfg(test)]
#[path = "health/tests.rs"]
mod tests;
