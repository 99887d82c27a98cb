//! Whether the local data directory can follow a leader, and `pg_rewind` when it cannot.
//!
//! The comparison of histories is pure ([`compare`], [`after_shutdown`]); asking and running is around it.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::cluster::{ControlData, Divergence, HistoryLine, Lsn, Rewound, Timeline, Upstream};

use super::PgError;
use super::archive::archive_ready;
use super::configured;
use super::pgpass::ConnParams;
use super::programs::{Program, options};
use super::replication::{Replication, Target, parse_history};
use super::site::{Site, describe};
use super::waldump;

mod missing;

/// Each question to a server, ours or the leader's.
const LIMIT: Duration = Duration::from_secs(5);

/// A checkpoint on the leader of another cluster may have much to write.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(300);

/// Options of `pg_rewind` that are ours to set, or make no sense here.
const FORBIDDEN: [&str; 10] = [
    "target-pgdata",
    "source-pgdata",
    "source-server",
    "write-recovery-conf",
    "dry-run",
    "restore-target-wal",
    "config-file",
    "no-ensure-shutdown",
    "version",
    "help",
];

/// Where the local server stands in its own history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalPosition {
    /// A standby: the position is the last one replayed. A stopped primary: its shutdown checkpoint.
    pub in_recovery: bool,
    /// Its timeline.
    pub timeline: Timeline,
    /// Its position there.
    pub lsn: Lsn,
}

/// What the histories say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The leader's history does not contain our position.
    Diverged,
    /// It does.
    Consistent,
    /// We were a primary and stopped before the leader's timeline forked off; it depends on whether our shutdown
    /// checkpoint ends exactly there.
    ForkedAt(Lsn),
}

/// The position of a stopped server out of its control data; `None` when it was not shut down cleanly.
pub fn stopped_position(control: &ControlData) -> Option<LocalPosition> {
    let as_primary = || {
        let timeline = control.checkpoint_timeline?;
        Some(LocalPosition { in_recovery: false, timeline, lsn: control.checkpoint })
    };
    match control.cluster_state.as_str() {
        "shut down" => as_primary(),
        "shut down in recovery" | "in archive recovery" => match control.min_recovery_timeline {
            Some(timeline) if control.min_recovery != Lsn::ZERO => {
                Some(LocalPosition { in_recovery: true, timeline, lsn: control.min_recovery })
            }
            // A standby that never replayed anything beyond its checkpoint.
            _ => as_primary(),
        },
        _ => None,
    }
}

/// Compares our position with a leader on `leader`, whose history is `history` (needed only when we are on an older
/// timeline).
pub fn compare(local: &LocalPosition, leader: Timeline, history: &[HistoryLine]) -> Comparison {
    match local.timeline.cmp(&leader) {
        std::cmp::Ordering::Greater => return Comparison::Diverged,
        std::cmp::Ordering::Equal => return Comparison::Consistent,
        std::cmp::Ordering::Less => {}
    }
    // History is written in ascending order; a later timeline first means that ours is no ancestor.
    match history.iter().find(|line| line.timeline >= local.timeline) {
        Some(line) if line.timeline == local.timeline => {
            if local.in_recovery {
                if local.lsn > line.switch { Comparison::Diverged } else { Comparison::Consistent }
            } else if local.lsn >= line.switch {
                Comparison::Diverged
            } else {
                Comparison::ForkedAt(line.switch)
            }
        }
        _ => Comparison::Diverged,
    }
}

/// Whether our timelines are the leader's, and not others with the same numbers: a member that had not heard of a
/// timeline may have chosen its number again. Every fork of ours must be one of the leader's.
pub fn is_same_branch(ours: &[HistoryLine], leaders: &[HistoryLine]) -> bool {
    let place = |line: &HistoryLine| (line.timeline, line.switch);
    ours.len() <= leaders.len() && ours.iter().zip(leaders).all(|(own, theirs)| place(own) == place(theirs))
}

/// The forks behind our timeline, as far as the data directory still knows them.
fn own_history(site: &Site, timeline: Timeline) -> Vec<HistoryLine> {
    let path = site.wal_dir().join(format!("{:08X}.history", timeline.0));
    std::fs::read_to_string(path).map(|text| parse_history(&text)).unwrap_or_default()
}

/// Settles [`Comparison::ForkedAt`]: a former primary is consistent only if the leader has all its WAL, the shutdown
/// checkpoint included, and forked off right behind it. An unknown end counts as diverged.
pub fn after_shutdown(switch: Lsn, checkpoint_end: Option<Lsn>) -> Comparison {
    if checkpoint_end == Some(switch) { Comparison::Consistent } else { Comparison::Diverged }
}

/// Compares the local history with the leader's. Every doubt is [`Divergence::Unknown`]: it is asked again.
pub async fn check_divergence(site: &Site, leader: &Upstream) -> Divergence {
    match settle(site, leader).await {
        Ok(Comparison::Consistent) => Divergence::Consistent,
        Ok(_) => Divergence::Diverged,
        Err(error) => {
            tracing::info!("divergence from the leader is not known yet: {error}");
            Divergence::Unknown(error.to_string())
        }
    }
}

async fn settle(site: &Site, leader: &Upstream) -> Result<Comparison, PgError> {
    let local = local_position(site).await?;
    tracing::info!("Local timeline={} lsn={}", local.timeline, local.lsn);
    refuse_standby(site, leader).await?;
    let mut connection = Replication::connect(&Target::new(&site.replication_params(leader))?, LIMIT).await?;
    let identity = connection.identify_system().await?;
    tracing::info!("primary_timeline={}", identity.timeline);
    let history = if local.timeline <= identity.timeline && identity.timeline > Timeline(1) {
        connection.timeline_history(identity.timeline).await?
    } else {
        Vec::new()
    };
    if !history.is_empty() {
        tracing::info!("primary: history={}", excerpt(&history, local.timeline));
    }
    if local.timeline <= identity.timeline && !is_same_branch(&own_history(site, local.timeline), &history) {
        tracing::warn!(
            "the leader's timelines up to {} are not ours, although they have the same numbers",
            local.timeline
        );
        return Ok(Comparison::Diverged);
    }
    Ok(match compare(&local, identity.timeline, &history) {
        Comparison::ForkedAt(switch) => {
            let end = waldump::checkpoint_end(site, local.timeline, local.lsn).await;
            after_shutdown(switch, end)
        }
        settled => settled,
    })
}

/// Where we stand: a running standby is asked, a stopped server's control data says it.
async fn local_position(site: &Site) -> Result<LocalPosition, PgError> {
    if site.is_running() {
        match running_position(site).await {
            Ok(position) => return Ok(position),
            // Control data lags behind a server that replays: only one that cannot be asked yet is judged by it.
            Err(_) if site.state().0.is_starting() => {
                tracing::info!("PostgreSQL is still starting up, will use pg_controldata as a fallback");
            }
            Err(error) => return Err(error),
        }
    }
    let control = site.control_data().await?;
    stopped_position(&control).ok_or_else(|| {
        PgError::Refused(format!("the local position is not known while the server is `{}`", control.cluster_state))
    })
}

async fn running_position(site: &Site) -> Result<LocalPosition, PgError> {
    let client = site.connect(&site.superuser_params()).await?;
    let query = "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.pg_last_wal_replay_lsn()::text";
    let row = bounded(client.query_one(query, &[])).await?;
    let lsn: Option<String> = row.get(1);
    let lsn = lsn.and_then(|lsn| lsn.parse().ok()).filter(|lsn| *lsn != Lsn::ZERO);
    let lsn = lsn.filter(|_| row.get(0)).ok_or_else(|| PgError::Query("no replayed position".to_owned()))?;
    let mut connection = Replication::connect(&Target::new(&site.local_replication_params())?, LIMIT).await?;
    let timeline = connection.identify_system().await?.timeline;
    Ok(LocalPosition { in_recovery: true, timeline, lsn })
}

/// A leader still in recovery has no history of its own to compare with.
async fn refuse_standby(site: &Site, leader: &Upstream) -> Result<(), PgError> {
    let client = site.connect(&rewind_params(site, leader)).await?;
    let row = bounded(client.query_one("SELECT pg_catalog.pg_is_in_recovery()", &[])).await?;
    if row.get(0) {
        tracing::info!("Leader is still in_recovery and therefore can't be used for rewind");
        return Err(PgError::Refused("the leader is still in recovery".to_owned()));
    }
    Ok(())
}

fn rewind_params(site: &Site, leader: &Upstream) -> ConnParams {
    let mut params = site.rewind_params(leader);
    params.extra.push(("target_session_attrs".to_owned(), "read-write".to_owned()));
    params
}

async fn bounded<T>(statement: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, PgError> {
    match timeout(LIMIT, statement).await {
        Ok(result) => result.map_err(|error| PgError::Query(describe(&error))),
        Err(_) => Err(PgError::Timeout(LIMIT, "question before a rewind".to_owned())),
    }
}

/// The lines around our own timeline, for the log.
fn excerpt(history: &[HistoryLine], ours: Timeline) -> String {
    let at = history.iter().position(|line| line.timeline >= ours).unwrap_or(history.len().saturating_sub(1));
    let show = |line: &HistoryLine| format!("{}\t{}\t{}", line.timeline, line.switch, line.reason);
    let (first, last) = (at.saturating_sub(3), (at + 2).min(history.len()));
    let mut lines: Vec<String> = history[first..last].iter().map(show).collect();
    if first > 0 {
        lines.insert(0, "...".to_owned());
    }
    if last + 1 < history.len() {
        lines.push("...".to_owned());
    }
    if last < history.len() {
        lines.extend(history.last().map(show));
    }
    lines.join("\n")
}

/// Runs `pg_rewind` on the stopped data directory. The leader has been compared with before; what is known of it now
/// is asked again, so that a failure can be told from a leader that went away.
pub async fn rewind(site: &Site, leader: &Upstream, cancel: &CancellationToken) -> Rewound {
    let name = leader.member.as_ref().map_or("the remote primary", |member| member.as_str());
    if let Err(error) = prepare(site, leader, cancel).await {
        tracing::warn!("Can not use {name} for rewind: {error}");
        return Rewound::SourceLost(error.to_string());
    }
    if let Ok(timeline) = shared_number(site, leader).await {
        let why = format!(
            "timeline {timeline} is another one here and on {name}; pg_rewind takes them for the same and would do \
             nothing: reinitialize this member"
        );
        tracing::error!("Failed to rewind from healthy primary: {name}: {why}");
        return Rewound::Failed(why);
    }
    let failure = match run(site, leader, cancel).await {
        Ok(()) => return Rewound::Done,
        Err(PgError::Cancelled) => return Rewound::SourceLost("cancelled".to_owned()),
        Err(error) => error.to_string(),
    };
    if refuse_standby(site, leader).await.is_err() {
        tracing::warn!("Failed to rewind because primary {name} become unreachable");
        return Rewound::SourceLost(failure);
    }
    tracing::error!("Failed to rewind from healthy primary: {name}");
    Rewound::Failed(failure)
}

/// The timeline whose number stands for two branches, if the leader is on it and we are, too.
async fn shared_number(site: &Site, leader: &Upstream) -> Result<Timeline, PgError> {
    let local = local_position(site).await?;
    let mut connection = Replication::connect(&Target::new(&site.replication_params(leader))?, LIMIT).await?;
    let theirs = connection.identify_system().await?.timeline;
    let unlike = theirs == local.timeline
        && theirs > Timeline(1)
        && !is_same_branch(&own_history(site, local.timeline), &connection.timeline_history(theirs).await?);
    if unlike { Ok(theirs) } else { Err(PgError::Refused("the timelines have different numbers".to_owned())) }
}

async fn prepare(site: &Site, leader: &Upstream, cancel: &CancellationToken) -> Result<(), PgError> {
    archive_ready(site, cancel).await?;
    refuse_standby(site, leader).await?;
    // Members publish that they have run one; a server outside of the cluster has to be told. Until then its control
    // file shows the timeline before its promotion, and pg_rewind would find nothing to do.
    if leader.member.is_none() {
        let client = site.connect(&rewind_params(site, leader)).await?;
        bounded(client.batch_execute("SET statement_timeout = 0")).await?;
        let checkpoint = client.batch_execute("CHECKPOINT");
        let done = timeout(CHECKPOINT_LIMIT, checkpoint).await;
        let done = done.map_err(|_| PgError::Timeout(CHECKPOINT_LIMIT, "CHECKPOINT on the leader".to_owned()))?;
        if let Err(error) = done {
            // An ordinary user may not run one, but sees whether there was one.
            tracing::info!("no CHECKPOINT on the leader: {}", describe(&error));
            had_checkpoint(&client).await?;
        }
    }
    Ok(())
}

/// The control file of that server knows the timeline that it writes.
async fn had_checkpoint(client: &tokio_postgres::Client) -> Result<(), PgError> {
    let query = "SELECT timeline_id = ('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(\
                 pg_catalog.pg_current_wal_lsn()), 1, 8))::bit(32)::int4 FROM pg_catalog.pg_control_checkpoint()";
    if bounded(client.query_one(query, &[])).await?.get(0) {
        return Ok(());
    }
    Err(PgError::Refused("the leader has not run a checkpoint since its promotion yet".to_owned()))
}

async fn run(site: &Site, leader: &Upstream, cancel: &CancellationToken) -> Result<(), PgError> {
    let params = rewind_params(site, leader);
    let program = command(site, &params, cancel).await?;
    let restore = missing::restore_command(site, leader, cancel).await?;
    let mut fetched = BTreeSet::new();
    loop {
        tracing::info!("running pg_rewind from {}", params.text());
        let finished = program.run(cancel).await?;
        tracing::info!("pg_rewind exit code={}", finished.code_text());
        tracing::info!(" stdout={}", finished.stdout.trim());
        tracing::info!(" stderr={}", finished.stderr.trim());
        if finished.is_success() {
            return Ok(());
        }
        let more = match &restore {
            Some(command) => missing::fetch(site, &finished.stderr, command, &mut fetched, cancel).await?,
            None => false,
        };
        if !more {
            return Err(PgError::Program { program: "pg_rewind".to_owned(), detail: finished.detail() });
        }
    }
}

async fn command(site: &Site, params: &ConnParams, cancel: &CancellationToken) -> Result<Program, PgError> {
    let config = site.config();
    let mut program = site.tool("pg_rewind").in_c_locale().env("PGOPTIONS", "-c statement_timeout=0");
    if let Some(passfile) = params.write_pgpass(&site.pgpass())? {
        program = program.env("PGPASSFILE", passfile);
    }
    let is_config_elsewhere = site.data_dir() != std::path::Path::new(&config.config_dir);
    let major = site.tools_version().await? / 10_000;
    // Older ones look for restore_command in the data directory only.
    if major >= 15 || (major >= 13 && !is_config_elsewhere) {
        let restore = configured::value(site, "restore_command", cancel).await?;
        if restore.is_some_and(|command| !command.is_empty()) {
            program = program.arg("--restore-target-wal");
            if is_config_elsewhere {
                program = program.arg(format!("--config-file={}", site.config_file().display()));
            }
        }
    }
    let (args, refused) = options("pg_rewind", &config.rewind_options, &FORBIDDEN);
    for why in refused {
        tracing::error!("{why}");
    }
    let program = program.arg("-D").arg(site.data_dir().display().to_string());
    Ok(program.arg("--source-server").arg(params.text()).args(args))
}

#[cfg(test)]
#[path = "rewind/tests.rs"]
mod tests;
