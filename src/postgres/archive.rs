//! Archiving what a stopped server has not archived yet, before its WAL is rewound or thrown away.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::PgError;
use super::configured;
use super::programs::Program;
use super::site::Site;

/// One segment should not take longer than this; a hanging archive must not keep a node out of its cluster.
const SEGMENT_LIMIT: Duration = Duration::from_secs(300);

/// Archives every finished segment that waits for it, in order, with the server's own `archive_command`. Does nothing
/// when archiving is not configured; a segment that cannot be archived is logged and stops the rest.
pub async fn archive_ready(site: &Site, cancel: &CancellationToken) -> Result<(), PgError> {
    let wal_dir = site.wal_dir();
    let ready = ready_segments(&wal_dir);
    if ready.is_empty() {
        return Ok(());
    }
    let Some(command) = archive_command(site, cancel).await? else { return Ok(()) };
    for segment in ready {
        if !archive_one(&command, &wal_dir, &segment, cancel).await? {
            return Ok(());
        }
        done(&wal_dir, &segment);
    }
    Ok(())
}

/// Archives the segment in which the shutdown checkpoint of a stopped primary stands, after those that wait: the server
/// itself never archives its last one, and a cluster that lives on the archive needs it to get to the end.
pub async fn archive_last(site: &Site, cancel: &CancellationToken) -> Result<(), PgError> {
    archive_ready(site, cancel).await?;
    let report = site.report().await?;
    let is_shut_down = report.get("Database cluster state") == Some("shut down");
    let Some(segment) = report.get("Latest checkpoint's REDO WAL file").filter(|_| is_shut_down) else {
        tracing::warn!("the last WAL segment is not archived: the server was not shut down as a primary");
        return Ok(());
    };
    let Some(command) = archive_command(site, cancel).await? else {
        tracing::info!("Not archiving latest checkpoint WAL file. Archiving is not configured.");
        return Ok(());
    };
    archive_one(&command, &site.wal_dir(), segment, cancel).await.map(drop)
}

/// Runs the command for one segment. `false`: it failed, which is logged.
async fn archive_one(
    command: &str,
    wal_dir: &Path,
    segment: &str,
    cancel: &CancellationToken,
) -> Result<bool, PgError> {
    let line = fill_in(command, &wal_dir.join(segment).display().to_string(), segment);
    tracing::info!("Trying to archive {segment}: {line}");
    let program = Program::new("/bin/sh").arg("-c").arg(&line).limit(SEGMENT_LIMIT);
    match program.run(cancel).await {
        Ok(finished) if finished.is_success() => return Ok(true),
        Ok(finished) => tracing::warn!("Failed to archive WAL segment {segment}: {}", finished.detail()),
        Err(PgError::Cancelled) => return Err(PgError::Cancelled),
        Err(error) => tracing::warn!("Failed to archive WAL segment {segment}: {error}"),
    }
    Ok(false)
}

/// The server's `archive_command`, when archiving is on.
pub async fn archive_command(site: &Site, cancel: &CancellationToken) -> Result<Option<String>, PgError> {
    let mode = configured::value(site, "archive_mode", cancel).await?;
    if !matches!(mode.as_deref(), Some("on" | "always")) {
        return Ok(None);
    }
    let command = configured::value(site, "archive_command", cancel).await?;
    Ok(command.filter(|command| !command.is_empty() && command != "(disabled)"))
}

/// Segments (and the last partial ones of old timelines) marked ready whose file exists, in order.
fn ready_segments(wal_dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(wal_dir.join("archive_status")).into_iter().flatten().flatten();
    let mut found: Vec<String> = entries
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".ready")?.to_owned()))
        .filter(|name| {
            let segment = name.strip_suffix(".partial").unwrap_or(name);
            segment.len() == 24 && segment.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
        .filter(|name| wal_dir.join(name).is_file())
        .collect();
    found.sort();
    found
}

fn done(wal_dir: &Path, segment: &str) {
    let status = wal_dir.join("archive_status");
    let (from, to) = (status.join(format!("{segment}.ready")), status.join(format!("{segment}.done")));
    if let Err(error) = fs::rename(&from, &to) {
        tracing::warn!("Unable to rename {} to {}: {error}", from.display(), to.display());
    }
}

/// Replaces `%p`, `%f`, `%r` and `%%`; anything else after a percent sign stays, as PostgreSQL does.
pub fn fill_in(command: &str, path: &str, name: &str) -> String {
    let mut line = String::with_capacity(command.len() + path.len() + name.len());
    let mut chars = command.chars().peekable();
    while let Some(c) = chars.next() {
        let value = match (c, chars.peek()) {
            ('%', Some('p')) => path,
            ('%', Some('f')) => name,
            ('%', Some('r')) => "000000010000000000000001",
            ('%', Some('%')) => "%",
            _ => {
                line.push(c);
                continue;
            }
        };
        line.push_str(value);
        chars.next();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders() {
        let filled = fill_in("cp %p /a/%f %r 100%% %x %", "/wal/0001", "0001");
        assert_eq!(filled, "cp /wal/0001 /a/0001 000000010000000000000001 100% %x %");
    }

    #[test]
    fn only_existing_segments_are_ready() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("archive_status")).unwrap();
        let ready = ["000000010000000000000003", "000000010000000000000002", "000000010000000000000004.partial"];
        for name in ready {
            fs::write(root.path().join(name), "").unwrap();
            fs::write(root.path().join("archive_status").join(format!("{name}.ready")), "").unwrap();
        }
        for name in ["000000010000000000000009.ready", "00000002.history.ready", "000000010000000000000001.done"] {
            fs::write(root.path().join("archive_status").join(name), "").unwrap();
        }
        assert_eq!(ready_segments(root.path()), [ready[1], ready[0], ready[2]]);
        done(root.path(), ready[0]);
        assert_eq!(ready_segments(root.path()), [ready[1], ready[2]]);
    }
}
