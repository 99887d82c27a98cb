//! Promotion, the script before it, and the history it leaves.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cluster::{HistoryLine, Lsn, Role, Timeline};
use crate::io::clock::local_zone;
use crate::postgres::PgError;
use crate::postgres::control_data::{ClusterState, glance};
use crate::postgres::process::{Named, Postmaster};
use crate::postgres::programs::Program;

use super::Inner;

/// How often the control file is read.
const TICK: Duration = Duration::from_millis(10);

/// `pg_ctl promote -W` only leaves a file and a signal.
const ISSUE_LIMIT: Duration = Duration::from_secs(30);

pub(super) async fn pre_promote(inner: &Inner, cancel: &CancellationToken) -> bool {
    let config = inner.site.config();
    let Some(command) = config.pre_promote.as_deref().filter(|command| !command.trim().is_empty()) else { return true };
    let ran = match Program::script(command) {
        Ok(program) => program.run(cancel).await,
        Err(error) => Err(error),
    };
    match ran {
        Ok(finished) => {
            tracing::info!("pre_promote script `{command}` exited with {}", finished.code_text());
            finished.is_success()
        }
        Err(error) => {
            tracing::error!(%error, "pre_promote script `{command}` failed");
            false
        }
    }
}

/// PostgreSQL takes the next number that has no history file. One without a line is no branch of any timeline, so that
/// nothing is ever recovered along it.
pub(super) fn leave_out(wal_dir: &Path, taken: &[Timeline]) -> Result<(), PgError> {
    for timeline in taken {
        let path = wal_dir.join(format!("{:08X}.history", timeline.0));
        let failed = |source| PgError::Io { path: path.display().to_string(), source };
        match std::fs::File::options().write(true).create_new(true).open(&path) {
            Ok(mut file) => {
                tracing::info!("timeline {timeline} was begun elsewhere: its number is left out");
                std::io::Write::write_all(&mut file, b"# begun on another member\n").map_err(failed)?;
                file.sync_all().map_err(failed)?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}

pub(super) async fn promote(inner: &Arc<Inner>, limit: Duration, cancel: &CancellationToken) -> Result<bool, PgError> {
    let Named::Postmaster(postmaster) = inner.site.named() else {
        return Err(PgError::Refused("there is no running server to promote".to_owned()));
    };
    if cancel.is_cancelled() {
        tracing::info!("PostgreSQL promote cancelled.");
        return Err(PgError::Cancelled);
    }
    inner.keeper.end();
    if !in_production(inner).await {
        let directory = inner.site.data_dir().display().to_string();
        let program = inner.site.tool("pg_ctl").args(["promote", "-D", &directory, "-W"]).limit(ISSUE_LIMIT);
        // Not cancelled half-way: once the order may have been given, only its outcome counts.
        program.run_ok(&CancellationToken::new()).await?;
    }
    inner.known().role = Some(Role::Promoted);
    let is_done = wait(inner, postmaster, limit).await?;
    if is_done {
        let mut known = inner.known();
        known.role = Some(Role::Primary);
        known.recovery = None;
    }
    inner.events.notify_one();
    Ok(is_done)
}

async fn wait(inner: &Inner, postmaster: Postmaster, limit: Duration) -> Result<bool, PgError> {
    let until = Instant::now() + limit;
    let ended = postmaster.ended();
    tokio::pin!(ended);
    loop {
        if in_production(inner).await {
            return Ok(true);
        }
        tokio::select! {
            biased;
            () = &mut ended => {
                return Err(PgError::Refused("the server ended during its promotion; see its log".to_owned()));
            }
            () = tokio::time::sleep_until(until) => return Ok(false),
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

/// The file's own word first, the program's to confirm it.
async fn in_production(inner: &Inner) -> bool {
    let seen = glance(&inner.site.data_dir()).map(|glance| glance.state);
    seen == Some(ClusterState::Production)
        && inner.site.control_data().await.is_ok_and(|control| control.cluster_state == "in production")
}

/// Reads a history file. The first timeline has none.
pub(super) fn history(path: &Path, timeline: Timeline) -> Result<(Vec<HistoryLine>, Option<String>), PgError> {
    if timeline == Timeline(1) {
        return Ok((Vec::new(), None));
    }
    let failed = |source| PgError::Io { path: path.display().to_string(), source };
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let written = std::fs::metadata(path).and_then(|metadata| metadata.modified()).map_err(failed)?;
    Ok((history_lines(&text), Timestamp::try_from(written).ok().map(local)))
}

fn local(at: Timestamp) -> String {
    at.to_zoned(local_zone()).strftime("%Y-%m-%dT%H:%M:%S%.6f%:z").to_string()
}

fn history_lines(text: &str) -> Vec<HistoryLine> {
    let line = |line: &str| {
        let mut fields = line.splitn(3, '\t');
        let timeline = fields.next()?.trim().parse().ok()?;
        let switch: Lsn = fields.next()?.trim().parse().ok()?;
        let reason = fields.next().unwrap_or_default().trim_end().to_owned();
        Some(HistoryLine { timeline: Timeline(timeline), switch, reason, timestamp: None, new_leader: None })
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histories_are_read() {
        let text = "1\t0/3000148\tno recovery target specified\n\n2\t0/50000A0\tbefore 2026\n# x\n";
        let lines = history_lines(text);
        assert_eq!(lines.len(), 2);
        assert_eq!((lines[0].timeline, lines[0].switch), (Timeline(1), Lsn(0x300_0148)));
        assert_eq!(lines[1].reason, "before 2026");
    }

    #[test]
    fn the_time_is_that_of_the_file() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("00000002.history");
        assert!(history(&path, Timeline(2)).unwrap_err().to_string().contains("00000002.history"));
        assert_eq!(history(&path, Timeline(1)).unwrap(), (Vec::new(), None));
        std::fs::write(&path, "1\t0/3000148\tx\n").unwrap();
        let (lines, at) = history(&path, Timeline(2)).unwrap();
        assert_eq!(lines.len(), 1);
        assert!(at.unwrap().parse::<Timestamp>().is_ok());
    }
}
