//! A cluster as its members tell it, for when the DCS does not answer.
//!
//! The DCS is given a head start; then the members are asked as well, and whoever answers first is shown. A member
//! that still reaches the DCS tells the whole cluster (`GET /cluster`). Members that do not reach it either tell at
//! least how they are themselves (`GET /patroni`), and those that say nothing are shown as such.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Map, Value};

use crate::api::{Client, NodeStatus};
use crate::cluster::tags::is_truthy;
use crate::cluster::{Lag, Lsn};

use super::commands::list::{MembersView, Mode, Part, Position, Row, ShownRole, Switchover};
use super::commands::list::{lag_limit, pending_reasons, scheduled_restart};
use super::context::Groups;
use super::known::{Known, KnownMember};
use super::{Context, CtlError, ErrorKind, Exit};

/// How long the DCS may take before the members are asked too.
const HEAD_START: Duration = Duration::from_secs(1);

/// How long a member may take to say how it is.
const STATUS_LIMIT: Duration = Duration::from_millis(1500);

/// How long a member may take to tell of the cluster, for which it has to ask the DCS.
const CLUSTER_LIMIT: Duration = Duration::from_secs(1);

/// The state of a member that was asked in vain.
pub const NO_ANSWER: &str = "no answer";

/// Who says what is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The DCS.
    Dcs,
    /// Members, because the DCS did not answer.
    Members {
        /// Why not the DCS.
        why: String,
        /// How many members were asked.
        asked: usize,
        /// How many answered.
        answered: usize,
        /// The member that told the whole cluster, if one could.
        teller: Option<String>,
    },
}

impl Source {
    /// The word in our documents.
    pub fn word(&self) -> &'static str {
        if self.is_dcs() { "dcs" } else { "members" }
    }

    /// The usual one.
    pub fn is_dcs(&self) -> bool {
        *self == Self::Dcs
    }

    /// What to say beside a view that is not the DCS's.
    pub fn remark(&self, cluster: &str) -> Option<String> {
        let Self::Members { why, asked, answered, teller } = self else { return None };
        Some(match teller {
            Some(teller) => format!("the DCS does not answer ({why}): cluster {cluster} is shown as {teller} sees it"),
            None => format!(
                "the DCS does not answer ({why}): cluster {cluster} is shown as its members tell it, of which \
                 {answered} of {asked} answered"
            ),
        })
    }
}

/// What is wanted: the cluster's name, which part, and whether with all columns.
type What<'a> = (&'a str, Groups, bool);

/// The DCS's view (`read`), or the members' where there is none in time. Members are those known from earlier and those
/// named on the command line; without either the DCS is waited for as usual.
pub async fn or_from_members(
    context: &Context<'_>,
    known: &Known,
    what: What<'_>,
    read: impl Future<Output = Result<MembersView, CtlError>>,
) -> Result<MembersView, CtlError> {
    let targets = targets(context, known, what.1);
    let mut read = std::pin::pin!(read);
    if targets.is_empty() {
        return read.await.map_err(|error| or_ask_a_member(error, what.0));
    }
    let patience = context.own.timeout.unwrap_or(Duration::MAX);
    let head_start = tokio::time::timeout(HEAD_START.min(patience / 3), &mut read).await;
    let mut asking = std::pin::pin!(ask(context, &targets, patience));
    let error = match head_start {
        Ok(Err(error)) if is_away(&error, context) => error,
        Ok(done) => return done,
        Err(_) => tokio::select! {
            biased;
            read = &mut read => match read {
                Err(error) if is_away(&error, context) => error,
                read => return read,
            },
            answers = &mut asking => {
                let answers = answers?;
                return match assemble(what, &answers, "it takes too long") {
                    Some(view) => Ok(view),
                    None => read.await.map_err(|error| nor_the_members(error, &answers)),
                };
            }
        },
    };
    let answers = asking.await?;
    let why = Some(error.causes().join(": ")).filter(|causes| !causes.is_empty()).unwrap_or_else(|| error.to_string());
    assemble(what, &answers, &why).ok_or_else(|| nor_the_members(error, &answers))
}

/// Nothing was heard of the DCS, or the configuration does not name one and members were named instead.
fn is_away(error: &CtlError, context: &Context<'_>) -> bool {
    let is_missing = context.settings.dcs == crate::config::DcsConfig::Missing && !context.own.member_urls.is_empty();
    error.kind == ErrorKind::End(Exit::Unreachable) || is_missing
}

fn or_ask_a_member(error: CtlError, cluster: &str) -> CtlError {
    if error.kind != ErrorKind::End(Exit::Unreachable) {
        return error;
    }
    let hint = error.hint.clone().unwrap_or_default();
    error.next(format!("{hint}; no member of {cluster} is known from earlier, name one with --member-url"))
}

fn nor_the_members(error: CtlError, answers: &[Answer]) -> CtlError {
    let why = |answer: &Answer| {
        let why = answer.status.as_ref().err().map(String::as_str).unwrap_or_default();
        format!("{}: {why}", answer.target.label())
    };
    let whys: Vec<String> = answers.iter().map(why).collect();
    let hint = error.hint.clone().unwrap_or_default();
    error.next(format!("{hint}; its members do not answer either ({})", whys.join("; ")))
}

/// Somebody to ask.
#[derive(Clone, Debug)]
struct Target {
    /// As far as it is known.
    name: Option<String>,
    group: i64,
    api_url: String,
    address: Option<(String, u16)>,
}

impl Target {
    fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.api_url)
    }
}

fn targets(context: &Context<'_>, known: &Known, groups: Groups) -> Vec<Target> {
    let own = if let Groups::One(group) = groups { group } else { 0 };
    let is_wanted = |member: &KnownMember| groups == Groups::All || member.group == own;
    let of_known = |member: KnownMember| Target {
        name: Some(member.name),
        group: member.group,
        api_url: member.api_url,
        address: member.address,
    };
    let mut targets: Vec<Target> = known.recall().into_iter().filter(is_wanted).map(of_known).collect();
    for url in &context.own.member_urls {
        let api_url = with_path(url);
        if targets.iter().all(|target| target.api_url != api_url) {
            targets.push(Target { name: None, group: own, api_url, address: None });
        }
    }
    targets
}

/// `host:8008` and `http://host:8008` are short for what members publish.
fn with_path(url: &str) -> String {
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let has_path = url.split_once("://").is_some_and(|(_, rest)| rest.trim_end_matches('/').contains('/'));
    if has_path { url } else { format!("{}/patroni", url.trim_end_matches('/')) }
}

/// What a member said.
struct Answer {
    target: Target,
    status: Result<NodeStatus, String>,
    cluster: Option<Value>,
}

impl Answer {
    fn name(&self) -> Option<String> {
        let said = self.status.as_ref().ok().and_then(|status| status.data.get("patroni")?.get("name")?.as_str());
        said.map(str::to_owned).or_else(|| self.target.name.clone())
    }

    fn data(&self) -> Option<&Map<String, Value>> {
        self.status.as_ref().ok().map(|status| &status.data)
    }

    fn number(&self, key: &str) -> Option<Lsn> {
        let data = self.data()?;
        let wal = data.get("xlog").or_else(|| data.get("wal"))?;
        wal.get(key)?.as_u64().filter(|lsn| *lsn > 0).map(Lsn)
    }
}

async fn ask(context: &Context<'_>, targets: &[Target], patience: Duration) -> Result<Vec<Answer>, CtlError> {
    let client = context.api(STATUS_LIMIT)?;
    let status = client.with_timeout(STATUS_LIMIT.min(patience));
    let cluster = client.with_timeout(CLUSTER_LIMIT.min(patience));
    let asked = targets.iter().map(|target| async {
        let (status, cluster) = tokio::join!(status.node_status(&target.api_url), cluster_of(&cluster, target));
        Answer { target: target.clone(), status: status.map_err(|error| error.to_string()), cluster }
    });
    Ok(join_all(asked).await)
}

async fn cluster_of(client: &Client, target: &Target) -> Option<Value> {
    let answer = client.get(&target.api_url, Some("/cluster")).await.ok()?;
    answer.json().filter(|json| answer.status == 200 && json.get("members").is_some_and(Value::is_array))
}

/// The view that the answers add up to; `None` when there is none. Pure.
fn assemble((cluster, groups, is_extended): What<'_>, answers: &[Answer], why: &str) -> Option<MembersView> {
    let scope_of = |answer: &Answer| match (&answer.cluster, answer.data()) {
        (_, Some(data)) => data.get("patroni").and_then(|patroni| patroni.get("scope")?.as_str().map(str::to_owned)),
        (Some(cluster), None) => cluster.get("scope").and_then(Value::as_str).map(str::to_owned),
        (None, None) => None,
    };
    // An address may belong to another cluster by now.
    let own: Vec<&Answer> =
        answers.iter().filter(|answer| scope_of(answer).is_none_or(|scope| scope == cluster)).collect();
    let answered = own.iter().filter(|answer| answer.status.is_ok() || answer.cluster.is_some()).count();
    if answered == 0 {
        return None;
    }
    let mut numbers: Vec<i64> = own.iter().map(|answer| answer.target.group).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let parts = numbers.iter().map(|group| {
        let of_group: Vec<&Answer> = own.iter().filter(|answer| answer.target.group == *group).copied().collect();
        part(*group, &of_group)
    });
    let parts: Vec<Part> = parts.collect();
    let teller = own.iter().find(|answer| answer.cluster.is_some()).map(|answer| {
        let name = answer.name();
        name.unwrap_or_else(|| answer.target.api_url.clone())
    });
    let source = Source::Members { why: why.to_owned(), asked: answers.len(), answered, teller };
    Some(MembersView { cluster: cluster.to_owned(), groups, is_extended, is_unknown: false, source, parts })
}

fn part(group: i64, answers: &[&Answer]) -> Part {
    let told = answers.iter().find_map(|answer| answer.cluster.as_ref());
    let mut rows: Vec<Row> = match told {
        Some(cluster) => array(cluster, "members").iter().filter_map(Value::as_object).map(row_told).collect(),
        None => rows_of_statuses(answers),
    };
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    let says =
        |key: &str| answers.iter().filter_map(|answer| answer.data()).any(|data| data.get(key).is_some_and(is_truthy));
    let is_paused = told.map_or_else(|| says("pause"), |cluster| cluster.get("pause").is_some_and(is_truthy));
    let has = |role| rows.iter().any(|row: &Row| row.role == role);
    let mode = Mode {
        is_paused,
        is_synchronous: has(ShownRole::SyncStandby) || has(ShownRole::QuorumStandby),
        is_quorum: has(ShownRole::QuorumStandby),
        is_standby_cluster: has(ShownRole::StandbyLeader),
    };
    let leaders: Vec<&Row> = rows.iter().filter(|row| row.role.is_leader()).collect();
    let leader = if let [leader] = leaders.as_slice() { Some(leader.name.clone()) } else { None };
    let system = answers.iter().find_map(|answer| answer.data()?.get("database_system_identifier")?.as_str());
    let switchover = told.and_then(|cluster| {
        let planned = cluster.get("scheduled_switchover")?;
        let text = |key: &str| planned.get(key).and_then(Value::as_str).map(str::to_owned);
        Some(Switchover { at: text("at")?, from: text("from"), to: text("to") })
    });
    let initialize = system.map(str::to_owned);
    // Only the DCS knows another one.
    let lag_limit = lag_limit(None);
    Part { group, initialize, mode, leader, switchover, lag_limit, sync: None, rows, missing: Vec::new() }
}

fn array<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// A row of `GET /cluster`.
fn row_told(member: &Map<String, Value>) -> Row {
    let text = |key: &str| member.get(key).and_then(Value::as_str);
    let role = match text("role").unwrap_or_default() {
        "leader" => ShownRole::Leader,
        "standby_leader" => ShownRole::StandbyLeader,
        "sync_standby" => ShownRole::SyncStandby,
        "quorum_standby" => ShownRole::QuorumStandby,
        _ => ShownRole::Replica,
    };
    let position = |kind: &str| Position {
        lsn: text(&format!("{kind}_lsn")).and_then(|lsn| lsn.parse().ok()),
        lag: member.get(&format!("{kind}_lag")).and_then(Value::as_u64).map_or(Lag::Unknown, Lag::Bytes),
    };
    let port = member.get("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
    Row {
        address: text("host").map(|host| (host.to_owned(), port.unwrap_or(5432))),
        api_url: text("api_url").map(str::to_owned),
        positions: (!role.is_leader()).then(|| (position("receive"), position("replay"))),
        ..row(text("name").unwrap_or_default(), role, text("state").unwrap_or_default(), member)
    }
}

/// One row per member that was asked, by what each says of itself.
fn rows_of_statuses(answers: &[&Answer]) -> Vec<Row> {
    let leader = answers.iter().filter_map(|answer| answer.number("location")).max();
    let mut rows: Vec<Row> = Vec::new();
    for answer in answers {
        let name = answer.name().unwrap_or_else(|| answer.target.api_url.clone());
        let mut row = match answer.data() {
            Some(data) => row_of_status(&name, data, answer, leader),
            None => row(&name, ShownRole::Replica, NO_ANSWER, &Map::new()),
        };
        row.address = answer.target.address.clone();
        row.api_url = Some(answer.target.api_url.clone());
        // The same member may have been named by another address as well.
        match rows.iter().position(|other| other.name == name) {
            Some(index) if rows[index].state == NO_ANSWER => rows[index] = row,
            Some(_) => {}
            None => rows.push(row),
        }
    }
    rows
}

fn row_of_status(name: &str, data: &Map<String, Value>, answer: &Answer, leader: Option<Lsn>) -> Row {
    let text = |key: &str| data.get(key).and_then(Value::as_str);
    let is = |key: &str| data.get(key).is_some_and(is_truthy);
    let role = match text("role").unwrap_or_default() {
        "primary" | "master" => ShownRole::Leader,
        "standby_leader" => ShownRole::StandbyLeader,
        _ if is("sync_standby") => ShownRole::SyncStandby,
        _ if is("quorum_standby") => ShownRole::QuorumStandby,
        _ => ShownRole::Replica,
    };
    let own = text("state").unwrap_or_default();
    let state = if role == ShownRole::Leader { own } else { text("replication_state").unwrap_or(own) };
    let position = |key: &str| {
        let lsn = answer.number(key);
        Position { lsn, lag: leader.map_or(Lag::Unknown, |leader| Lag::between(leader, lsn)) }
    };
    let positions = (!role.is_leader()).then(|| (position("received_location"), position("replayed_location")));
    Row { positions, ..row(name, role, state, data) }
}

/// What is the same in both documents.
fn row(name: &str, role: ShownRole, state: &str, data: &Map<String, Value>) -> Row {
    Row {
        name: name.to_owned(),
        is_shown: true,
        address: None,
        api_url: None,
        role,
        state: state.to_owned(),
        timeline: data.get("timeline").filter(|value| !value.is_null()).cloned(),
        positions: None,
        is_pending_restart: data.get("pending_restart").is_some_and(is_truthy),
        pending_reasons: pending_reasons(data),
        scheduled_restart: scheduled_restart(data),
        tags: data.get("tags").and_then(Value::as_object).cloned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(name: &str, status: Option<Value>, cluster: Option<Value>) -> Answer {
        let api_url = format!("http://{name}:8008/patroni");
        let address = Some((name.to_owned(), 5432));
        let target = Target { name: Some(name.to_owned()), group: 0, api_url, address };
        let status = status.and_then(|status| NodeStatus::parse(&status.to_string()));
        Answer { target, status: status.ok_or_else(|| "no answer in time".to_owned()), cluster }
    }

    fn primary(name: &str, scope: &str) -> Answer {
        let status = json!({
            "state": "running", "role": "primary", "timeline": 3, "xlog": {"location": 100},
            "database_system_identifier": "42", "patroni": {"name": name, "scope": scope}
        });
        answer(name, Some(status), None)
    }

    fn standby(name: &str) -> Answer {
        let status = json!({
            "state": "running", "role": "replica", "replication_state": "streaming", "timeline": 3,
            "xlog": {"received_location": 90, "replayed_location": 80}, "sync_standby": true,
            "patroni": {"name": name, "scope": "demo"}
        });
        answer(name, Some(status), None)
    }

    fn seen(answers: &[Answer]) -> Option<MembersView> {
        assemble(("demo", Groups::Plain, false), answers, "frozen")
    }

    #[test]
    fn members_that_tell_of_themselves_add_up() {
        let view = seen(&[primary("pg1", "demo"), standby("pg2"), answer("pg3", None, None)]).unwrap();
        let part = &view.parts[0];
        assert_eq!((part.leader.as_deref(), part.initialize.as_deref()), (Some("pg1"), Some("42")));
        let rows: Vec<(&str, &str, &str)> =
            part.rows.iter().map(|row| (row.name.as_str(), row.role.word(), row.state.as_str())).collect();
        let expected =
            [("pg1", "leader", "running"), ("pg2", "sync_standby", "streaming"), ("pg3", "replica", NO_ANSWER)];
        assert_eq!(rows, expected);
        let (receive, replay) = part.rows[1].positions.unwrap();
        assert_eq!((receive.lag, replay.lag), (Lag::Bytes(10), Lag::Bytes(20)));
        let remark = view.source.remark("demo").unwrap();
        assert!(remark.contains("(frozen)") && remark.contains("2 of 3 answered"), "{remark}");
    }

    #[test]
    fn a_member_that_sees_the_dcs_tells_of_all() {
        let cluster = json!({"scope": "demo", "pause": true, "members": [
            {"name": "pg2", "role": "replica", "state": "streaming", "host": "h2", "port": 6432,
             "receive_lsn": "0/64", "receive_lag": 5, "replay_lsn": "unknown", "replay_lag": "unknown"},
            {"name": "pg1", "role": "leader", "state": "running", "host": "h1", "port": 5432},
        ]});
        let view = seen(&[answer("pg1", None, Some(cluster)), answer("pg9", None, None)]).unwrap();
        let part = &view.parts[0];
        assert!(part.mode.is_paused && part.leader.as_deref() == Some("pg1") && part.rows.len() == 2);
        assert_eq!(part.rows[1].address, Some(("h2".to_owned(), 6432)));
        let (receive, replay) = part.rows[1].positions.unwrap();
        assert_eq!((receive.lsn, receive.lag, replay.lag), (Some(Lsn(100)), Lag::Bytes(5), Lag::Unknown));
        assert!(view.source.remark("demo").unwrap().contains("as pg1 sees it"));
    }

    #[test]
    fn two_primaries_are_two_and_neither_is_the_leader() {
        let part = seen(&[primary("pg1", "demo"), primary("pg2", "demo")]).unwrap().parts.remove(0);
        assert!(part.leader.is_none() && part.rows.iter().all(|row| row.role.is_leader()));
    }

    #[test]
    fn nobody_and_strangers_are_no_answer() {
        assert!(seen(&[answer("pg1", None, None)]).is_none());
        assert!(seen(&[primary("pg1", "other")]).is_none());
    }

    #[test]
    fn short_addresses() {
        assert_eq!(with_path("h:8008"), "http://h:8008/patroni");
        assert_eq!(with_path("https://h:8008/"), "https://h:8008/patroni");
        assert_eq!(with_path("http://h:1/patroni"), "http://h:1/patroni");
    }
}
