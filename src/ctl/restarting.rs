//! Which members are restarted, when, and under which conditions. Pure; `ctl/commands/restart.rs` carries it out.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::cluster::MemberName;

use super::plan::{Answers, Pace, Refusal, Scene, Stop};
use super::schedule::Schedule;
use super::targets::{self, Choice, RoleFilter, listed};

/// What was asked for on the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Names of members.
    pub names: Vec<String>,
    /// `--role`.
    pub role: RoleFilter,
    /// `--any`: only one of them; the number picks it (modulo how many there are).
    pub any: Option<u64>,
    /// `--scheduled`.
    pub scheduled: Option<String>,
    /// `--pg-version`.
    pub pg_version: Option<String>,
    /// `--pending`.
    pub is_pending: bool,
    /// `--timeout`, as typed: the member judges it.
    pub timeout: Option<String>,
}

/// One request, for each of some members in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restart {
    /// Who, in order.
    pub members: Vec<MemberName>,
    /// When; at once without.
    pub scheduled: Option<Schedule>,
    /// The body of the request, `schedule` included.
    pub body: Map<String, Value>,
    /// Members whose earlier scheduled restart is taken back first: only one can be scheduled.
    pub replaced: Vec<MemberName>,
}

/// Chooses, asks and checks in the order in which operators are used to it. The member table has been shown by then.
pub fn plan(scene: &Scene<'_>, asked: &Asked, answers: &mut Answers<'_>) -> Result<Restart, Stop> {
    let wanted = targets::Wanted {
        cluster: scene.cluster,
        action: "restart",
        names: &asked.names,
        role: asked.role,
        must_name: false,
        is_strict: scene.is_strict,
    };
    let mut members = match targets::choose(scene.view, &wanted, None).map_err(|no| no.refusal(scene.view))? {
        Choice::Members(members) | Choice::AskWhich(members) => members,
    };
    let scheduled = pick_moment(scene, asked, answers)?;
    if asked.is_pending && scheduled.is_none() {
        let is_pending =
            |name: &MemberName| targets::find(scene.view, name).is_some_and(|member| member.pending_restart());
        members.retain(is_pending);
    }
    if let Some(number) = asked.any.filter(|_| !members.is_empty()) {
        let index = usize::try_from(number % members.len() as u64).unwrap_or(0);
        members = vec![members.swap_remove(index)];
    }
    if !scene.is_forced {
        confirm(asked.is_pending, scheduled.as_ref(), &members, answers)?;
    }
    let version = match &asked.pg_version {
        Some(version) => version.as_str(),
        None if scene.is_forced => "",
        None => answers.text("Restart if the PostgreSQL version is less than provided (e.g. 9.5.2) ", "")?,
    };
    check_version(version)?;
    if scheduled.is_some() && scene.mode.is_paused {
        let refusal = Refusal::new("Can't schedule restart in the paused state");
        return Err(refusal.advise("resume the cluster first, or restart at once").into());
    }
    let has_schedule = |name: &&MemberName| {
        targets::find(scene.view, name)
            .is_some_and(|member| member.data.get("scheduled_restart").is_some_and(Value::is_object))
    };
    let replaces = scheduled.is_some() && scene.overrides;
    let replaced = members.iter().filter(|name| replaces && has_schedule(name)).cloned().collect();
    Ok(Restart { body: body(asked, version, scheduled.as_ref()), members, scheduled, replaced })
}

fn pick_moment(scene: &Scene<'_>, asked: &Asked, answers: &mut Answers<'_>) -> Result<Option<Schedule>, Stop> {
    let text = match &asked.scheduled {
        Some(text) => text.as_str(),
        None if scene.is_forced => "",
        None => {
            let example = scene.example_moment();
            answers.text(format!("When should the restart take place (e.g. {example}) "), "now")?
        }
    };
    Ok(scene.moment(text)?)
}

fn confirm(
    is_pending: bool,
    scheduled: Option<&Schedule>,
    members: &[MemberName],
    answers: &mut Answers<'_>,
) -> Result<(), Stop> {
    let names = listed(members);
    match scheduled {
        None => answers.confirm(format!("Are you sure you want to restart members {names}?"), "Aborted restart"),
        Some(_) if is_pending => answers.confirm(
            "The nodes needing a restart will be identified at the scheduled time, and might be different from the \
             ones showing pending restart right now. Is this fine?",
            "Aborted scheduled restart",
        ),
        Some(at) => answers.confirm(
            format!("Are you sure you want to schedule restart of members {names} at {}?", at.spaced()),
            "Aborted scheduled restart",
        ),
    }
}

/// PostgreSQL's `X.Y` since version 10, `X.Y.Z` before. Empty means no condition.
fn check_version(version: &str) -> Result<(), Refusal> {
    if version.is_empty() {
        return Ok(());
    }
    let parts: Result<Vec<u32>, _> = version.split('.').map(|part| part.trim().parse::<u32>()).collect();
    let parts = parts.map_err(|_| Refusal::new(format!("Invalid PostgreSQL version: {version}")))?;
    match parts.as_slice() {
        [major, _] if *major >= 10 => Ok(()),
        [_, _, _] => Ok(()),
        _ => {
            let reason = format!("Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: {version}");
            Err(Refusal::new(reason))
        }
    }
}

fn body(asked: &Asked, version: &str, scheduled: Option<&Schedule>) -> Map<String, Value> {
    let mut body = Map::new();
    if asked.is_pending {
        body.insert("restart_pending".to_owned(), true.into());
    }
    if !version.is_empty() {
        body.insert("postgres_version".to_owned(), version.into());
    }
    if let Some(at) = scheduled {
        body.insert("schedule".to_owned(), at.iso().into());
    }
    if let Some(timeout) = &asked.timeout {
        body.insert("timeout".to_owned(), timeout.clone().into());
    }
    body
}

/// How long an immediate restart may take in the end. A member answers when its server is up again, which may take
/// `primary_start_timeout` (or what was asked for) after a stop that has no limit of its own; whether the member is
/// still alive meanwhile is watched by asking it, not by this.
pub fn answer_limit(pace: Pace, asked: Option<&str>) -> Duration {
    let start = asked.and_then(seconds).map_or(pace.start_timeout, Duration::from_secs);
    start * 2 + Duration::from_secs(300)
}

/// `30`, `30s`, `5min`, `1h`.
fn seconds(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let factor = match text[end..].trim() {
        "" | "s" => 1,
        "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    text[..end].parse::<u64>().ok()?.checked_mul(factor).filter(|seconds| *seconds <= 7 * 86_400)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{ClusterView, Member};
    use crate::ctl::commands::list::Mode;
    use serde_json::json;

    fn cluster() -> ClusterView {
        let member = |name: &str, data: Value| {
            let data = data.as_object().unwrap().clone();
            Member { data, ..Member::unknown(name.into()) }
        };
        let members = vec![
            member("pg1", json!({"pending_restart": true})),
            member("pg2", json!({"scheduled_restart": {"schedule": "2030-01-01T00:00:00+00:00"}})),
            member("pg3", json!({"pending_restart": true})),
        ];
        ClusterView { members, ..ClusterView::default() }
    }

    fn planned(asked: &Asked, is_paused: bool) -> Result<Restart, String> {
        let now = "2026-11-20T15:08:00+00:00[UTC]".parse().unwrap();
        let mode = Mode { is_paused, ..Mode::default() };
        let view = cluster();
        let (is_forced, overrides, is_strict) = (true, true, false);
        let scene = Scene { cluster: "demo", view: &view, mode, now: &now, is_forced, overrides, is_strict };
        plan(&scene, asked, &mut Answers::new(&[])).map_err(|stop| match stop {
            Stop::Refuse(refusal) => refusal.reason,
            Stop::Ask(question) => panic!("asked {question:?}"),
        })
    }

    fn asked() -> Asked {
        Asked::default()
    }

    #[test]
    fn pending_members_only_unless_it_is_for_later() {
        let now = planned(&Asked { is_pending: true, ..asked() }, false).unwrap();
        assert_eq!(listed(&now.members), "pg1, pg3");
        assert_eq!(Value::Object(now.body), json!({"restart_pending": true}));
        let at = Some("2030-05-05T05:05Z".to_owned());
        let later = planned(&Asked { is_pending: true, scheduled: at, ..asked() }, false).unwrap();
        assert_eq!(listed(&later.members), "pg1, pg2, pg3");
        assert_eq!(listed(&later.replaced), "pg2");
        let body = json!({"restart_pending": true, "schedule": "2030-05-05T05:05:00+00:00"});
        assert_eq!(Value::Object(later.body), body);
    }

    #[test]
    fn any_is_one_of_those_that_are_left() {
        for number in 0..9 {
            let one = planned(&Asked { any: Some(number), is_pending: true, ..asked() }, false).unwrap();
            assert!(["pg1", "pg3"].contains(&listed(&one.members).as_str()));
        }
    }

    #[test]
    fn versions_are_checked_here_and_timeouts_there() {
        let version = |text: &str| planned(&Asked { pg_version: Some(text.to_owned()), ..asked() }, false);
        assert_eq!(Value::Object(version("15.2").unwrap().body), json!({"postgres_version": "15.2"}));
        assert!(version("9.5.2").is_ok());
        assert_eq!(version("9.5").unwrap_err(), "Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: 9.5");
        assert_eq!(version("1.x").unwrap_err(), "Invalid PostgreSQL version: 1.x");
        let timeout = planned(&Asked { timeout: Some("abc".to_owned()), ..asked() }, false).unwrap();
        assert_eq!(Value::Object(timeout.body), json!({"timeout": "abc"}));
    }

    #[test]
    fn nothing_is_scheduled_in_maintenance_mode() {
        let later = Asked { scheduled: Some("2030-05-05T05:05Z".to_owned()), ..asked() };
        assert_eq!(planned(&later, true).unwrap_err(), "Can't schedule restart in the paused state");
        assert!(planned(&asked(), true).is_ok());
    }

    #[test]
    fn limits_follow_the_start_timeout() {
        let pace = Pace::of(&cluster());
        assert_eq!(answer_limit(pace, None), Duration::from_secs(900));
        assert_eq!(answer_limit(pace, Some("5min")), Duration::from_secs(900));
        assert_eq!(answer_limit(pace, Some("30")), Duration::from_secs(360));
        assert_eq!(answer_limit(pace, Some("nonsense")), Duration::from_secs(900));
    }
}
