//! The whole life of an agent: settings, log, ports, loop, signals, end.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::api::{self, Client};
use crate::cluster::{ClusterView, DataDir};
use crate::config::{CtlConfig, Dynamic, LocalConfig, PostgresConfig};
use crate::dcs::{self, Dcs, DcsError, Identity, Timing};
use crate::io::clock::{SystemClock, since_boot};
use crate::io::tls;
use crate::postgres::process::{stop_at_once, ticks};
use crate::postgres::site::Site;
use crate::postgres::{Postgres, Server, data_dir};

use super::board::Board;
use super::configuration::Files;
use super::gauge::Gauge;
use super::guard;
use super::lead::FailsafeLead;
use super::logging::{self, Log};
use super::node::AgentNode;
use super::notify::{self, Notify};
use super::peers::RestPeers;
use super::ports::{Configure, Ports};
use super::reload::Reloading;
use super::run::{Ended, Runner};
use super::task::chain;
use super::watchdog::Watchdog;

/// Between two attempts to read the DCS at the start.
const DCS_RETRY: Duration = Duration::from_secs(5);

/// The DCS is given no longer where others wait for this agent.
const HURRY: Duration = Duration::from_secs(1);

/// A peer's status is awaited no longer.
const PEER_LIMIT: Duration = Duration::from_secs(2);

/// The answer of a namesake is awaited no longer.
const NAMESAKE_LIMIT: Duration = Duration::from_secs(3);

/// The last lines of the log are given this long to be written.
const LOG_LIMIT: Duration = Duration::from_secs(2);

/// The last callback is given this long to begin.
const CALLBACK_LIMIT: Duration = Duration::from_secs(2);

/// A server that was told to quit because the lease was not renewed is killed after this.
const QUIT_GRACE: Duration = Duration::from_millis(500);

/// Why an agent could not start, in words with the next step.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

/// Runs an agent from its start to its end. The loop, and whatever it needs in every cycle, lives where this is called;
/// `helpers` do what takes longer, and serve the REST API.
pub async fn live(path: Option<&Path>, helpers: &Handle) -> Result<ExitCode, StartError> {
    refuse_root()?;
    tls::install_provider();
    let environment: BTreeMap<String, String> = std::env::vars().collect();
    let systemd = notify::named(&environment);
    let files = Arc::new(Files::read(path, environment).map_err(StartError)?);
    let log = logging::init(&files.local().log).map_err(|error| {
        StartError(format!("logging cannot be started: {}", files.origins().locate("log.dir", &error.to_string())))
    })?;
    info!("pgherd {} (compatible with Patroni {})", crate::VERSION, crate::COMPATIBLE_VERSION);
    let notify = Arc::new(Notify::new(systemd.as_deref()));
    files.tell_warnings();
    let outcome = lead(&files, &log, &notify, helpers).await;
    notify.stopping();
    if let (Err(error), true) = (&outcome, log.is_in_file()) {
        error!("{error}");
    }
    log.flush(LOG_LIMIT);
    outcome
}

/// Everything between the first and the last line of the log.
async fn lead(files: &Arc<Files>, log: &Log, notify: &Arc<Notify>, helpers: &Handle) -> Result<ExitCode, StartError> {
    let local = files.local();
    let leave = CancellationToken::new();
    let signals = listen_to_signals(leave.clone(), Arc::clone(notify))?;
    let dcs = connect(&local, files).await?;
    let Some(first) = first_look(dcs.as_ref(), files, &leave).await? else { return Ok(ExitCode::SUCCESS) };
    let peers = Arc::new(RestPeers::new(peer_client(&local).map_err(|error| StartError(chain(&error)))?));
    let dynamic = match &first {
        First::Seen(view) => {
            refuse_namesake(&local, view).await?;
            view.config_document().cloned().unwrap_or_else(|| files.last_known_dynamic())
        }
        First::Without { .. } => files.last_known_dynamic(),
    };
    let config = PostgresConfig::build(&local, &dynamic);
    let config = config.map_err(|error| StartError(chain(&error.located(&files.origins()))))?.0;
    let server = {
        let _among = helpers.enter();
        Arc::new(Server::new(Arc::new(config), local.bootstrap.clone()))
    };
    let link = greet_guard(&server, helpers).await;
    let configure = Reloading {
        files: Arc::clone(files),
        log: log.clone(),
        notify: Arc::clone(notify),
        peers: Arc::clone(&peers),
        dcs: Arc::clone(&dcs),
    };
    let ports = Ports {
        dcs,
        postgres: Arc::clone(&server) as Arc<dyn Postgres>,
        peers,
        configure: Arc::new(configure) as Arc<dyn Configure>,
        clock: Arc::new(SystemClock),
        helpers: helpers.clone(),
    };
    let watched = Arc::clone(files);
    let mut runner = Runner::new(ports.clone(), &dynamic);
    if let First::Without { why, lead } = first {
        runner = runner.without_dcs(why, lead);
    }
    let runner = runner.watched_by(Watchdog::new(move || watched.local().watchdog.clone()));
    let board = runner.board();
    let rest = CancellationToken::new();
    let gauge = Gauge::new(Arc::clone(&ports.postgres));
    let (scope, log) = (local.scope.clone(), log.clone());
    let node = AgentNode { board: Arc::clone(&board), ports, gauge, scope, log };
    let serving = super::rest::serve(Arc::clone(files), Arc::new(node), rest.clone());
    let api = helpers.spawn(serving).await.unwrap_or_else(|died| resume_unwind(died.into_panic()));
    let api = api.map_err(StartError)?;
    let deadline = watch_deadline(&runner, Arc::clone(&server))?;
    let guard = keep_guard(&runner, &server, files, link)?;
    let hooks = tokio::spawn(serve_signals(signals, Arc::clone(&board)));
    notify.ready();

    let ended = runner.run(leave).await;

    notify.stopping();
    server.settle_callbacks(CALLBACK_LIMIT).await;
    rest.cancel();
    hooks.abort();
    let _ = api.await;
    let _ = deadline.join();
    let _ = guard.join();
    Ok(match ended {
        Ended::Asked => ExitCode::SUCCESS,
        Ended::Fatal { message, .. } => {
            error!("{message}");
            ExitCode::FAILURE
        }
    })
}

/// Gives the leader key back for an agent of this configuration that is dead, as is its server. Only its guard can know.
pub async fn release(path: Option<&Path>) -> Result<ExitCode, StartError> {
    tls::install_provider();
    let files = Files::read(path, std::env::vars().collect()).map_err(StartError)?;
    let dcs = connect(&files.local(), &files).await?;
    dcs.release_leader(None).await.map_err(|error| StartError(chain(&error)))?;
    Ok(ExitCode::SUCCESS)
}

/// PostgreSQL refuses to run as root, and so would everything after it.
fn refuse_root() -> Result<(), StartError> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(StartError(
        "the agent must not run as root, because PostgreSQL does not; run it as the server's user, for example: \
         setpriv --reuid=postgres --regid=postgres --init-groups pgherd CONFIG.yml"
            .to_owned(),
    ))
}

async fn connect(local: &LocalConfig, files: &Files) -> Result<Arc<dyn Dcs>, StartError> {
    let (settings, _) = Dynamic::from_document(&files.last_known_dynamic());
    let timing = Timing { ttl: settings.ttl, loop_wait: settings.loop_wait, retry_timeout: settings.retry_timeout };
    let identity = Identity::Agent { name: local.name.clone() };
    let group = local.citus.as_ref().map(|(group, _)| *group);
    dcs::connect(&local.dcs, &local.namespace, &local.scope, group, identity, timing)
        .await
        .map_err(|error| StartError(chain(&error)))
}

/// What an agent begins with.
enum First {
    /// The cluster.
    Seen(Box<ClusterView>),
    /// Nothing from the DCS, and that is no reason to wait.
    Without {
        /// Why.
        why: String,
        /// On what our predecessor led.
        lead: Option<FailsafeLead>,
    },
}

/// The first snapshot, waited for as long as it takes, except where the cluster depends on this agent without the DCS.
/// `None`: told to end meanwhile.
async fn first_look(dcs: &dyn Dcs, files: &Files, leave: &CancellationToken) -> Result<Option<First>, StartError> {
    loop {
        let needed = needed_without_dcs(files);
        let loaded = match &needed {
            Some(lead) => {
                let limit = lead.as_ref().and_then(FailsafeLead::left).map_or(HURRY, |left| HURRY.min(left / 4));
                let loaded = tokio::time::timeout(limit, dcs.load()).await;
                loaded.unwrap_or_else(|_| Err(DcsError::unavailable(format!("no answer within {limit:?}"))))
            }
            None => dcs.load().await,
        };
        match loaded {
            Ok(view) => return Ok(Some(First::Seen(Box::new(view)))),
            Err(error @ DcsError::Config(_)) => return Err(StartError(chain(&error))),
            Err(error) => {
                let why = chain(&error);
                warn!("Can not get cluster from dcs: {why}");
                if let Some(lead) = needed {
                    let part = if lead.is_some() { "leads on as the agent before it did" } else { "keeps its part" };
                    info!("failsafe mode: this member {part} without the DCS");
                    return Ok(Some(First::Without { why, lead }));
                }
            }
        }
        tokio::select! {
            () = leave.cancelled() => return Ok(None),
            () = tokio::time::sleep(DCS_RETRY) => {}
        }
    }
}

/// Whether the cluster depends on this agent although the DCS may be away. In failsafe mode a primary leads on as long
/// as every member says that it may, so that members must be there to be asked; and a primary whose agent was started
/// anew may ask them, if it is known who they are and since when they have accepted it. A primary of which that is not
/// known is left to its guard: there may be another one.
fn needed_without_dcs(files: &Files) -> Option<Option<FailsafeLead>> {
    let dynamic = files.last_known_dynamic();
    let (settings, _) = Dynamic::from_document(&dynamic);
    if !settings.failsafe_mode || settings.pause {
        return None;
    }
    let site = Site::new(Arc::new(PostgresConfig::build(&files.local(), &dynamic).ok()?.0));
    let dir = site.data_dir();
    if data_dir::look(&dir) != DataDir::Present {
        return None;
    }
    let is_primary = !data_dir::is_recovery_configured(&dir) && site.is_running();
    if is_primary { files.kept_lead().map(Some) } else { Some(None) }
}

/// How other members are asked.
pub(super) fn peer_client(local: &LocalConfig) -> Result<Client, api::ClientError> {
    // Patroni checks members' certificates only when it has one of its own to show, and never their names; members
    // must agree on this.
    Client::new(&CtlConfig { insecure: true, ..local.ctl.clone() }, PEER_LIMIT)
}

/// Two agents under one name would fight over one member key.
async fn refuse_namesake(local: &LocalConfig, view: &ClusterView) -> Result<(), StartError> {
    let Some(url) = view.member(&local.name).and_then(|member| member.api_url()) else { return Ok(()) };
    let client = peer_client(local).map_err(|error| StartError(chain(&error)))?.with_timeout(NAMESAKE_LIMIT);
    if client.get(url, Some("/liveness")).await.is_err() {
        return Ok(());
    }
    let name = &local.name;
    Err(StartError(format!("Can't start; there is already a node named '{name}' running (it answers at {url})")))
}

/// The thread that stops the server when the lease was not renewed in time. It does not leave it at one order, which
/// is lost on a server that has just been started: whoever does not quit is killed.
fn watch_deadline(runner: &Runner, server: Arc<Server>) -> Result<std::thread::JoinHandle<()>, StartError> {
    runner
        .lease()
        .watch(move |deadline| {
            // First what needs no file: the disk may hang.
            server.quit_now();
            error!("the leader lease was not renewed in time: PostgreSQL was told to quit");
            let data_dir = server.site().data_dir();
            // Whoever was suspended beyond the deadline has no time to give away: another member may lead by now.
            let grace = QUIT_GRACE.saturating_sub(since_boot().saturating_sub(deadline));
            let (_, killed) = stop_at_once(&data_dir, server.postmaster(), ticks(deadline), grace);
            if killed > 0 {
                error!("PostgreSQL did not quit in time: {killed} of its processes were killed");
            }
        })
        .map_err(|error| StartError(format!("the lease deadline cannot be watched: {error}")))
}

/// See [`guard::keeper::greet`].
async fn greet_guard(server: &Server, helpers: &Handle) -> Option<guard::keeper::Link> {
    let data_dir = server.site().data_dir();
    let greeted = helpers.spawn_blocking(move || guard::keeper::greet(&data_dir)).await;
    greeted.unwrap_or_else(|died| resume_unwind(died.into_panic()))
}

/// The thread that tells the guard the lease's deadline.
fn keep_guard(
    runner: &Runner,
    server: &Arc<Server>,
    files: &Arc<Files>,
    link: Option<guard::keeper::Link>,
) -> Result<std::thread::JoinHandle<()>, StartError> {
    let (asked, local) = (Arc::clone(server), Arc::clone(files));
    let guarded = guard::Guarded {
        data_dir: server.site().data_dir(),
        config: files.path().map(Path::to_owned),
        postmaster: Box::new(move || asked.postmaster()),
        is_on: Box::new(move || local.local().watchdog.guard),
    };
    guard::keeper::keep(runner.lease(), guarded, link)
        .map_err(|error| StartError(format!("the guard cannot be kept informed: {error}")))
}

struct Signals {
    reload: tokio::signal::unix::Signal,
    journal: tokio::signal::unix::Signal,
}

/// SIGTERM and SIGINT end the agent; further ones change nothing.
fn listen_to_signals(leave: CancellationToken, notify: Arc<Notify>) -> Result<Signals, StartError> {
    let open = |kind| signal(kind).map_err(|error| StartError(format!("signals cannot be handled: {error}")));
    let (mut terminate, mut interrupt) = (open(SignalKind::terminate())?, open(SignalKind::interrupt())?);
    let signals = Signals { reload: open(SignalKind::hangup())?, journal: open(SignalKind::user_defined1())? };
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        notify.stopping();
        leave.cancel();
    });
    Ok(signals)
}

/// SIGHUP reloads; SIGUSR1 writes the last decisions to the log.
async fn serve_signals(mut signals: Signals, board: Arc<Board>) {
    loop {
        tokio::select! {
            Some(()) = signals.reload.recv() => board.order_reload(),
            Some(()) = signals.journal.recv() => {
                for line in board.journal() {
                    info!("journal: {line}");
                }
            }
            else => return,
        }
    }
}
