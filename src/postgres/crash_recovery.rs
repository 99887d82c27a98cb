//! Bringing a crashed data directory to a clean stop: PostgreSQL runs once in single-user mode, replays what it has
//! and shuts down. Only then can it be rewound or followed on from.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::PgError;
use super::archive;
use super::process_tree;
use super::site::Site;

/// Runs crash recovery. Finished segments are archived before, because nothing will be archived from this data
/// directory's own history afterwards.
pub async fn crash_recovery(site: &Site, cancel: &CancellationToken) -> Result<(), PgError> {
    if let Err(PgError::Cancelled) = archive::archive_ready(site, cancel).await {
        return Err(PgError::Cancelled);
    }
    forget_archived(site);
    let opts = fs::read_to_string(site.data_dir().join("postmaster.opts")).unwrap_or_else(|error| {
        tracing::error!(%error, "Error when reading postmaster.opts");
        String::new()
    });
    site.remove_recovery_conf()?;
    let mut program = site.tool("postgres").arg("--single").arg("-D").arg(site.data_dir().display().to_string());
    for (name, value) in single_user_options(&opts) {
        program = program.arg("-c").arg(format!("{name}={value}"));
    }
    if let Some(pid) = stale_lock_holder(&site.data_dir()) {
        // PostgreSQL takes any process of that number for a running server; this variable tells it otherwise.
        tracing::info!("Telling postgres that it is safe to ignore postmaster.pid for process {pid}");
        program = program.env("PG_GRANDPARENT_PID", pid.to_string());
    }
    // Recovery of much WAL takes long and must not be cut short: only the caller knows when it has been too long.
    let finished = program.arg("template1").run(cancel).await?;
    if finished.is_success() {
        return Ok(());
    }
    tracing::error!("Crash recovery finished with code={}", finished.code_text());
    tracing::info!(" stdout={}", finished.stdout.trim());
    tracing::info!(" stderr={}", finished.stderr.trim());
    Err(PgError::Program { program: "postgres --single".to_owned(), detail: finished.detail() })
}

/// The process that `postmaster.pid` names, when it exists but is no server: one that has ended and is not collected by
/// its parent yet, or another program that got the number.
fn stale_lock_holder(data_dir: &Path) -> Option<i32> {
    let text = fs::read_to_string(data_dir.join("postmaster.pid")).ok()?;
    let pid = text.lines().next()?.trim().parse().ok()?;
    let process = process_tree::process(pid)?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let is_server = matches!(name.trim(), "postgres" | "postmaster");
    (process.is_zombie || !is_server).then_some(pid)
}

/// The options the server last ran with, so that recovery finds the settings it needs; archiving stays on (its state
/// files are kept) but archives nothing.
fn single_user_options(opts: &str) -> BTreeMap<String, String> {
    let mut options: BTreeMap<String, String> = opts
        .trim_end()
        .split("\" \"")
        .filter_map(|part| part.trim_matches('"').strip_prefix("--")?.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    options.insert("archive_mode".to_owned(), "on".to_owned());
    options.insert("archive_command".to_owned(), "false".to_owned());
    options
}

/// Forgets which segments were archived: those would be recycled at the end of recovery, and `pg_rewind` needs the WAL
/// back to where the histories part. Marks of segments that still wait stay.
fn forget_archived(site: &Site) {
    let directory = site.wal_dir().join("archive_status");
    for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
        let is_done = entry.path().extension().is_some_and(|extension| extension == "done");
        if is_done && let Err(error) = fs::remove_file(entry.path()) {
            tracing::warn!("Unable to remove {}: {error}", entry.path().display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_held_by_another_program_is_stale() {
        let root = tempfile::tempdir().unwrap();
        let holder = |pid: u32| {
            fs::write(root.path().join("postmaster.pid"), format!("{pid}\n/data\n")).unwrap();
            stale_lock_holder(root.path())
        };
        let me = std::process::id();
        assert_eq!(holder(me), i32::try_from(me).ok());
        assert_eq!(holder(u32::MAX), None);
        fs::remove_file(root.path().join("postmaster.pid")).unwrap();
        assert_eq!(stale_lock_holder(root.path()), None);
    }

    #[test]
    fn options_come_from_the_last_start() {
        let opts = "/usr/lib/postgresql/15/bin/postgres \"-D\" \"/data\" \"--config-file=/data/postgresql.conf\" \
                    \"--max_connections=100\" \"--cluster_name=a b\"\n";
        let options = single_user_options(opts);
        assert_eq!(options["max_connections"], "100");
        assert_eq!(options["cluster_name"], "a b");
        assert_eq!(options["config-file"], "/data/postgresql.conf");
        assert_eq!((options["archive_mode"].as_str(), options["archive_command"].as_str()), ("on", "false"));
        assert_eq!(options.len(), 5);
        assert_eq!(single_user_options("").len(), 2);
    }
}
