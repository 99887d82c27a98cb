//! Bodies of the write endpoints: what is taken, what is refused and with which words. Pure.

use hyper::StatusCode;
use serde_json::{Map, Value};

use crate::cluster::tags::as_boolish;
use crate::cluster::{FailoverKey, MemberName, ReinitRequest, RestartRequest, ScheduledRestart};
use crate::config::merge;
use crate::config::parameters::units;

use super::moment::{Moment, NotAMoment};
use super::wire::Answer;

/// A JSON object out of a body. The error page of a bad one is the same for all endpoints.
pub fn parse_body(bytes: &[u8]) -> Result<Map<String, Value>, Answer> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(body)) => Ok(body),
        _ => Err(Answer::error_page(StatusCode::BAD_REQUEST)),
    }
}

fn bad_request(message: impl Into<String>) -> Answer {
    Answer::text(StatusCode::BAD_REQUEST, message)
}

/// A moment to come, for `what` (`restart` or `switchover`).
fn parse_schedule(value: &Value, what: &str, now_ms: i64) -> Result<Moment, Answer> {
    let parsed = value.as_str().ok_or(NotAMoment::Unreadable).and_then(Moment::parse);
    match parsed {
        Ok(moment) if moment.epoch_ms() < now_ms => {
            Err(Answer::text(StatusCode::UNPROCESSABLE_ENTITY, format!("Cannot schedule {what} in the past")))
        }
        Ok(moment) => Ok(moment),
        Err(NotAMoment::NoOffset) => {
            Err(bad_request(format!("Timezone information is mandatory for the scheduled {what}")))
        }
        Err(NotAMoment::Unreadable) => Err(Answer::text(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601",
        )),
    }
}

/// What `POST /restart` asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum RestartOrder {
    /// At once.
    Now(RestartRequest),
    /// Later.
    Later(ScheduledRestart),
}

/// Reads `POST /restart`. Keys are checked in the order in which they stand; the first wrong one decides.
pub fn parse_restart(body: &Map<String, Value>, now_ms: i64) -> Result<RestartOrder, Answer> {
    let mut request = RestartRequest::default();
    let mut moment = None;
    let mut published = body.clone();
    for (key, value) in body {
        match key.as_str() {
            "schedule" => {
                let at = parse_schedule(value, "restart", now_ms)?;
                published.insert(key.clone(), at.iso().into());
                moment = Some(at);
            }
            "role" => match value.as_str() {
                Some(role @ ("primary" | "standby_leader" | "replica")) => request.role = Some(role.to_owned()),
                _ => {
                    return Err(bad_request("PostgreSQL role should be either primary, standby_leader, or replica"));
                }
            },
            "postgres_version" => request.postgres_version = Some(parse_version(value)?),
            "timeout" => {
                let seconds = parse_timeout(value)
                    .ok_or_else(|| bad_request("Timeout should be a positive number of seconds"))?;
                published.insert(key.clone(), seconds.into());
                request.timeout_seconds = Some(seconds);
            }
            "restart_pending" => request.restart_pending = Some(value.clone()),
            other => return Err(bad_request(format!("Unknown filter for the scheduled restart: {other}"))),
        }
    }
    Ok(match moment {
        None => RestartOrder::Now(request),
        Some(moment) => RestartOrder::Later(ScheduledRestart {
            at_ms: moment.epoch_ms(),
            schedule: moment.iso(),
            request,
            postmaster_start_time: None,
            published,
        }),
    })
}

fn parse_version(value: &Value) -> Result<String, Answer> {
    let text = merge::text(value);
    let invalid = || bad_request(format!("Invalid PostgreSQL version: {text}"));
    let Value::String(version) = value else { return Err(invalid()) };
    let parts: Result<Vec<u32>, _> = version.split('.').map(|part| part.trim().parse::<u32>()).collect();
    match parts.map_err(|_| invalid())?[..] {
        [major, _] if major >= 10 => Ok(version.clone()),
        [_, _, _] => Ok(version.clone()),
        _ => Err(bad_request(format!("Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: {version}"))),
    }
}

fn parse_timeout(value: &Value) -> Option<u64> {
    let seconds = match value {
        Value::Number(_) | Value::String(_) => units::integer(&merge::text(value), Some("s"))?,
        _ => return None,
    };
    u64::try_from(seconds).ok().filter(|seconds| *seconds > 0)
}

/// Reads `POST /reinitialize`.
pub fn parse_reinitialize(body: &Map<String, Value>) -> ReinitRequest {
    let flag = |key: &str| body.get(key).and_then(as_boolish).unwrap_or(false);
    ReinitRequest { force: flag("force"), from_leader: flag("from_leader") }
}

/// Whether leadership moves from a living leader or is given to a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handover {
    /// From a leader.
    Switchover,
    /// To a candidate.
    Failover,
}

impl Handover {
    /// `switchover` or `failover`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Switchover => "switchover",
            Self::Failover => "failover",
        }
    }

    /// The same with a capital.
    pub fn title(self) -> &'static str {
        match self {
            Self::Switchover => "Switchover",
            Self::Failover => "Failover",
        }
    }

    /// `switched over` or `failed over`.
    pub fn done(self) -> &'static str {
        match self {
            Self::Switchover => "switched over",
            Self::Failover => "failed over",
        }
    }
}

/// Reads `POST /switchover` and `POST /failover`. A failover that names a leader goes on as a switchover.
pub fn parse_handover(
    asked: Handover,
    body: &Map<String, Value>,
    is_paused: bool,
    now_ms: i64,
) -> Result<(Handover, FailoverKey), Answer> {
    let name = |key: &str| name_of(body.get(key)?);
    let (leader, candidate) = (name("leader"), name("candidate").or_else(|| name("member")));
    let scheduled_at = body.get("scheduled_at").filter(|value| crate::cluster::tags::is_truthy(value));
    match asked {
        Handover::Failover if candidate.is_none() => {
            return Err(bad_request("Failover could be performed only to a specific candidate"));
        }
        Handover::Switchover if leader.is_none() => {
            return Err(bad_request("Switchover could be performed only from a specific leader"));
        }
        _ => {}
    }
    let scheduled_at = match scheduled_at {
        None => None,
        Some(_) if asked == Handover::Failover => return Err(bad_request("Failover can't be scheduled")),
        Some(_) if is_paused => return Err(bad_request("Can't schedule switchover in the paused state")),
        Some(value) => Some(parse_schedule(value, "switchover", now_ms)?.iso()),
    };
    if is_paused && candidate.is_none() {
        return Err(bad_request("Switchover is possible only to a specific candidate in a paused state"));
    }
    if leader.is_some() && leader == candidate {
        return Err(bad_request("Switchover target and source are the same"));
    }
    let kind = if leader.is_some() { Handover::Switchover } else { asked };
    Ok((kind, FailoverKey { leader, candidate, scheduled_at, ..FailoverKey::default() }))
}

fn name_of(value: &Value) -> Option<MemberName> {
    crate::cluster::tags::is_truthy(value).then(|| MemberName::new(merge::text(value)))
}

#[cfg(test)]
#[path = "requests/tests.rs"]
mod tests;
