//! Which request is answered how: the table of endpoints and their handlers over [`Node`].

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::cluster::{ClusterView, Role, State};
use crate::config::{Dynamic, merge};
use crate::dcs::DcsError;

use super::handover;
use super::health::{self, Query};
use super::metrics;
use super::node::{Command, FailsafePing, Live, Node, NodeFacts, Reply, RunningAsLeader};
use super::requests::{Handover, RestartOrder, parse_body, parse_reinitialize, parse_restart};
use super::status::{Picture, can_be_asked, cluster_answer};
use super::wire::Answer;

/// A restart is over when PostgreSQL accepts connections again, and a shutdown checkpoint alone may take long.
const RESTART_DEADLINE: Duration = Duration::from_secs(3600);

/// Everything that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Health,
    Liveness,
    Readiness,
    Status,
    Cluster,
    History,
    Config,
    Failsafe,
    Metrics,
    Journal,
    PatchConfig,
    PutConfig,
    Reload,
    Restart,
    CancelRestart,
    Reinitialize,
    Handover(Handover),
    CancelSwitchover,
    FailsafePing,
    Sigterm,
    Mpp,
}

/// Finds the endpoint by method and first path segment. What has no handler of its own is a health check where the
/// method allows one; `None` is a method that the server does not support there.
pub(super) fn route(method: &Method, path: &str) -> Option<Endpoint> {
    let segment = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    Some(match (method.as_str(), segment) {
        ("GET", "patroni") => Endpoint::Status,
        ("GET", "cluster") => Endpoint::Cluster,
        ("GET", "history") => Endpoint::History,
        ("GET", "config") => Endpoint::Config,
        ("GET", "failsafe") => Endpoint::Failsafe,
        ("GET", "metrics") => Endpoint::Metrics,
        ("GET", "journal") => Endpoint::Journal,
        ("GET", "liveness") => Endpoint::Liveness,
        ("GET", "readiness") => Endpoint::Readiness,
        ("GET" | "HEAD" | "OPTIONS", _) => Endpoint::Health,
        ("PATCH", "config") => Endpoint::PatchConfig,
        ("PUT", "config") => Endpoint::PutConfig,
        ("POST", "reload") => Endpoint::Reload,
        ("POST", "restart") => Endpoint::Restart,
        ("DELETE", "restart") => Endpoint::CancelRestart,
        ("POST", "reinitialize") => Endpoint::Reinitialize,
        ("POST", "switchover") => Endpoint::Handover(Handover::Switchover),
        ("POST", "failover") => Endpoint::Handover(Handover::Failover),
        ("DELETE", "switchover") => Endpoint::CancelSwitchover,
        ("POST", "failsafe") => Endpoint::FailsafePing,
        ("POST", "sigterm") => Endpoint::Sigterm,
        ("POST", "citus" | "mpp") => Endpoint::Mpp,
        _ => return None,
    })
}

impl Endpoint {
    /// Whether the access checks apply: to everything that is not read only.
    pub(super) fn is_guarded(self) -> bool {
        !matches!(
            self,
            Self::Health
                | Self::Liveness
                | Self::Readiness
                | Self::Status
                | Self::Cluster
                | Self::History
                | Self::Config
                | Self::Failsafe
                | Self::Metrics
                | Self::Journal
        )
    }

    /// Whether it works without a body too. A chunked one is not read, and must not count as none.
    pub(super) fn has_optional_body(self) -> bool {
        matches!(self, Self::Restart | Self::Reinitialize)
    }

    /// An answer is given by then, whatever happens.
    pub(super) fn deadline(self, dynamic: &Dynamic) -> Duration {
        let spare = 2 * dynamic.retry_timeout + Duration::from_secs(10);
        match self {
            Self::Restart => RESTART_DEADLINE,
            Self::Handover(_) => 2 * dynamic.loop_wait.max(Duration::from_secs(10)) + 2 * spare,
            // The answer comes out of the loop, which a cancelled task may hold for a moment.
            Self::Reinitialize | Self::CancelRestart => 2 * dynamic.loop_wait + 2 * spare,
            _ => spare,
        }
    }
}

/// A request's body as far as it was read: `None` when the client announced none.
#[derive(Clone, Debug, Default)]
pub(super) struct Body(pub(super) Option<Bytes>);

impl Body {
    fn required(&self) -> Result<Map<String, Value>, Answer> {
        let bytes = self.0.as_ref().ok_or_else(|| Answer::error_page(StatusCode::LENGTH_REQUIRED))?;
        let body = parse_body(bytes)?;
        if body.is_empty() { Err(Answer::error_page(StatusCode::BAD_REQUEST)) } else { Ok(body) }
    }

    fn optional(&self) -> Result<Map<String, Value>, Answer> {
        match &self.0 {
            Some(bytes) if !bytes.is_empty() => parse_body(bytes),
            _ => Ok(Map::new()),
        }
    }
}

/// A request, taken apart.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) endpoint: Endpoint,
    pub(super) is_get: bool,
    pub(super) path: String,
    pub(super) query: Query,
    pub(super) body: Body,
    /// Milliseconds since the epoch.
    pub(super) now_ms: i64,
}

/// Answers a request that has passed the access checks.
pub(super) async fn answer(node: &dyn Node, asked: &Asked) -> Answer {
    let answered = match asked.endpoint {
        Endpoint::Health => Ok(health_check(node, asked).await),
        Endpoint::Liveness => Ok(Answer::status_only(health::liveness(&node.facts(), Instant::now()))),
        Endpoint::Readiness => Ok(readiness(node, asked).await),
        Endpoint::Status => {
            Ok(with_picture(node, true, |picture| Answer::json(StatusCode::OK, &picture.document())).await)
        }
        Endpoint::Metrics => Ok(with_picture(node, true, |picture| {
            Answer::full(StatusCode::OK, metrics::CONTENT_TYPE, metrics::render(picture))
        })
        .await),
        Endpoint::Journal => Ok(journal(node)),
        Endpoint::Cluster => cluster(node).await,
        Endpoint::History => history(node).await,
        Endpoint::Config => config(node).await,
        Endpoint::Failsafe => Ok(failsafe(&node.facts())),
        Endpoint::PatchConfig => patch_config(node, &asked.body).await,
        Endpoint::PutConfig => put_config(node, &asked.body).await,
        Endpoint::Reload => Ok(reload(node)),
        Endpoint::Restart => restart(node, asked).await,
        Endpoint::CancelRestart => Ok(replied(node, Command::CancelRestart, 200, 404).await),
        Endpoint::Reinitialize => reinitialize(node, &asked.body).await,
        Endpoint::Handover(kind) => hand_over(node, kind, asked).await,
        Endpoint::CancelSwitchover => cancel_switchover(node).await,
        Endpoint::FailsafePing => failsafe_ping(node, &asked.body),
        Endpoint::Sigterm => Ok(Answer::text(StatusCode::ACCEPTED, "shutdown scheduled")),
        Endpoint::Mpp => asked.body.required().map(|_| Answer::text(StatusCode::OK, "OK")),
    };
    answered.unwrap_or_else(|answer| answer)
}

/// The settings that a snapshot goes with: its own when it has valid ones, else those in force.
fn settings(facts: &NodeFacts, view: Option<&ClusterView>) -> Arc<Dynamic> {
    match view.and_then(ClusterView::config_document) {
        // Mostly the loop has taken them over already, and nothing needs to be read again.
        Some(document) if *document != facts.dynamic.document => Arc::new(facts.dynamic.after(document).0),
        _ => Arc::clone(&facts.dynamic),
    }
}

async fn with_picture<T>(node: &dyn Node, retry: bool, make: impl FnOnce(&Picture<'_>) -> T) -> T {
    let live: Option<Arc<Live>> = if can_be_asked(&node.facts()) { node.live(retry).await } else { None };
    // The query may have taken a while: what the agent knows by now goes with its answer, and over it.
    let facts = node.facts();
    let live = live.filter(|_| can_be_asked(&facts));
    let view = node.snapshot();
    let dynamic = settings(&facts, view.as_deref());
    make(&Picture { facts: &facts, live: live.as_deref(), view: view.as_deref(), dynamic: &dynamic })
}

async fn health_check(node: &dyn Node, asked: &Asked) -> Answer {
    with_picture(node, false, |picture| {
        let status = health::check(picture, &asked.path, &asked.query);
        if asked.is_get { Answer::json(status, &picture.document()) } else { Answer::status_only(status) }
    })
    .await
}

async fn readiness(node: &dyn Node, asked: &Asked) -> Answer {
    let ready = with_picture(node, true, |picture| health::readiness(picture, &asked.query)).await;
    Answer::status_only(match ready {
        Ok(()) => StatusCode::OK,
        Err(why) => {
            tracing::debug!(why, "not ready");
            StatusCode::SERVICE_UNAVAILABLE
        }
    })
}

/// Patroni hangs up when the DCS is away; clients take both for a failure, and this one says why.
fn dcs_away(error: &DcsError) -> Answer {
    Answer::text(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}

async fn load(node: &dyn Node) -> Result<Arc<ClusterView>, Answer> {
    node.load().await.map_err(|error| dcs_away(&error))
}

async fn cached_or_loaded(node: &dyn Node) -> Result<Arc<ClusterView>, Answer> {
    match node.snapshot() {
        Some(view) => Ok(view),
        None => load(node).await,
    }
}

async fn cluster(node: &dyn Node) -> Result<Answer, Answer> {
    let view = load(node).await?;
    let facts = node.facts();
    Ok(Answer::json(StatusCode::OK, &cluster_answer(&view, &settings(&facts, Some(&view)), &facts.scope)))
}

async fn history(node: &dyn Node) -> Result<Answer, Answer> {
    let view = cached_or_loaded(node).await?;
    let lines = view.history.as_ref().map(|history| &history.raw).filter(|raw| raw.is_array());
    Ok(Answer::json(StatusCode::OK, lines.unwrap_or(&Value::Array(Vec::new()))))
}

async fn config(node: &dyn Node) -> Result<Answer, Answer> {
    let view = cached_or_loaded(node).await?;
    match view.config_document() {
        Some(document) => Ok(Answer::json(StatusCode::OK, document)),
        None => Err(Answer::error_page(StatusCode::BAD_GATEWAY)),
    }
}

fn failsafe(facts: &NodeFacts) -> Answer {
    match &facts.failsafe {
        Some(members) => Answer::json(StatusCode::OK, members),
        None => Answer::error_page(StatusCode::BAD_GATEWAY),
    }
}

/// One decision per line.
fn journal(node: &dyn Node) -> Answer {
    let lines = node.journal().into_iter().map(|line| line + "\n").collect();
    Answer::full(StatusCode::OK, "application/x-ndjson", lines)
}

async fn patch_config(node: &dyn Node, body: &Body) -> Result<Answer, Answer> {
    let patch = body.required()?;
    let view = load(node).await?;
    let Some((config, present)) = view.config.as_ref().and_then(|config| Some((config, config.document.as_ref()?)))
    else {
        return Err(Answer::error_page(StatusCode::SERVICE_UNAVAILABLE));
    };
    let mut document = present.clone();
    if merge::patch(&mut document, &patch) {
        match node.write_config(&document, Some(config.version)).await {
            Ok(true) => {}
            Ok(false) | Err(_) => return Err(Answer::error_page(StatusCode::CONFLICT)),
        }
    }
    node.wake();
    Ok(Answer::json(StatusCode::OK, &document))
}

async fn put_config(node: &dyn Node, body: &Body) -> Result<Answer, Answer> {
    let document = body.required()?;
    let view = load(node).await?;
    let is_same = |present: &Map<String, Value>| merge::equal(&present.clone().into(), &document.clone().into());
    if !view.config_document().is_some_and(is_same) {
        match node.write_config(&document, None).await {
            Ok(true) => {}
            Ok(false) | Err(_) => return Err(Answer::error_page(StatusCode::BAD_GATEWAY)),
        }
    }
    node.wake();
    Ok(Answer::json(StatusCode::OK, &document))
}

fn reload(node: &dyn Node) -> Answer {
    node.reload();
    Answer::text(StatusCode::ACCEPTED, "reload scheduled")
}

/// Hands a command to the loop; its words are the body, under the code for done or not done.
async fn replied(node: &dyn Node, command: Command, done: u16, refused: u16) -> Answer {
    let (code, words) = match node.command(command).await {
        Reply::Ok(words) => (done, words),
        Reply::Refused(words) => (refused, words),
    };
    Answer::text(StatusCode::from_u16(code).unwrap_or(StatusCode::SERVICE_UNAVAILABLE), words)
}

async fn restart(node: &dyn Node, asked: &Asked) -> Result<Answer, Answer> {
    let body = asked.body.optional()?;
    if body.contains_key("schedule") {
        let view = load(node).await?;
        if settings(&node.facts(), Some(&view)).pause {
            let message = "Can't schedule restart in the paused state";
            return Err(Answer::text(StatusCode::INTERNAL_SERVER_ERROR, message));
        }
    }
    Ok(match parse_restart(&body, asked.now_ms)? {
        RestartOrder::Now(request) => replied(node, Command::Restart(request), 200, 503).await,
        RestartOrder::Later(restart) => replied(node, Command::ScheduleRestart(restart), 202, 409).await,
    })
}

async fn reinitialize(node: &dyn Node, body: &Body) -> Result<Answer, Answer> {
    let request = parse_reinitialize(&body.optional()?);
    Ok(replied(node, Command::Reinitialize(request), 200, 503).await)
}

async fn hand_over(node: &dyn Node, kind: Handover, asked: &Asked) -> Result<Answer, Answer> {
    let body = asked.body.required()?;
    let view = load(node).await?;
    let dynamic = settings(&node.facts(), Some(&view));
    Ok(handover::hand_over(node, (kind, &body), &view, &dynamic, asked.now_ms).await)
}

async fn cancel_switchover(node: &dyn Node) -> Result<Answer, Answer> {
    let view = load(node).await?;
    Ok(handover::cancel(node, &view).await)
}

fn failsafe_ping(node: &dyn Node, body: &Body) -> Result<Answer, Answer> {
    let facts = node.facts();
    if !facts.dynamic.failsafe_mode {
        return Err(Answer::error_page(StatusCode::BAD_GATEWAY));
    }
    let body = Value::Object(body.required()?);
    let ping: FailsafePing = serde_json::from_value(body).map_err(|_| Answer::error_page(StatusCode::BAD_REQUEST))?;
    let running = Answer::text(StatusCode::INTERNAL_SERVER_ERROR, "Running as a leader");
    if facts.role == Role::Primary && facts.state == Some(State::Running) {
        return Err(running);
    }
    let accepted = Answer::text(StatusCode::OK, "Accepted");
    match node.failsafe_ping(ping) {
        Ok(Some(lsn)) => Ok(accepted.with_header("lsn", lsn.0.to_string())),
        Ok(None) => Ok(accepted),
        Err(RunningAsLeader) => Err(running),
    }
}
