//! WAL that `pg_rewind` needs and the data directory does not have any more: fetched from the archive.
//!
//! `pg_rewind` does so itself where it can read `restore_command` out of the server's configuration. It cannot before
//! version 13, before 15 when the configuration is kept elsewhere, and for a former primary, whose configuration has no
//! recovery settings. So what it complains of is fetched, and it is run again.

use std::collections::BTreeSet;
use std::time::Duration;

use regex_lite::Regex;
use tokio_util::sync::CancellationToken;

use crate::cluster::Upstream;
use crate::postgres::PgError;
use crate::postgres::archive::fill_in;
use crate::postgres::configured;
use crate::postgres::programs::Program;
use crate::postgres::site::Site;

/// One segment should not take longer than this.
const SEGMENT_LIMIT: Duration = Duration::from_secs(300);

/// The command that fetches a segment: what the server would use now, what it would use as a standby, or what the
/// leader to be followed says.
pub(super) async fn restore_command(
    site: &Site,
    leader: &Upstream,
    cancel: &CancellationToken,
) -> Result<Option<String>, PgError> {
    let is_set = |command: &String| !command.trim().is_empty();
    if let Some(command) = configured::value(site, "restore_command", cancel).await?.filter(is_set) {
        return Ok(Some(command));
    }
    let own = site.config().recovery_conf.get("restore_command").cloned();
    Ok(leader.restore_command.clone().or(own).filter(is_set))
}

/// Fetches what one run of `pg_rewind` complained of. `true`: it is there now, and another run may go further. Nothing
/// is fetched twice.
pub(super) async fn fetch(
    site: &Site,
    complaint: &str,
    command: &str,
    fetched: &mut BTreeSet<String>,
    cancel: &CancellationToken,
) -> Result<bool, PgError> {
    let Some(segment) = missing_segment(complaint).filter(|segment| fetched.insert(segment.clone())) else {
        return Ok(false);
    };
    let target = site.wal_dir().join(&segment);
    let line = fill_in(command, &target.display().to_string(), &segment);
    tracing::info!("Trying to fetch the missing wal: {line}");
    let program = Program::new("/bin/sh").arg("-c").arg(&line).limit(SEGMENT_LIMIT);
    let why = match program.run(cancel).await {
        Ok(finished) if finished.is_success() && target.is_file() => return Ok(true),
        Ok(finished) if finished.is_success() => "the command succeeded and left no file".to_owned(),
        Ok(finished) => finished.detail(),
        Err(PgError::Cancelled) => return Err(PgError::Cancelled),
        Err(error) => error.to_string(),
    };
    tracing::error!("Failed to fetch WAL segment {segment} required for pg_rewind: {why}");
    Ok(false)
}

/// The segment that could not be opened.
fn missing_segment(complaint: &str) -> Option<String> {
    let pattern = r#"could not open file "[^"]*/pg_(?:wal|xlog)/([0-9A-F]{24})""#;
    Some(Regex::new(pattern).ok()?.captures(complaint)?[1].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_missing_segment_is_named_by_the_complaint() {
        let complaint = "pg_rewind: servers diverged at WAL location 0/4000000 on timeline 1\npg_rewind: error: could \
                         not open file \"/data/pg_wal/000000010000000000000003\": No such file or directory\n\
                         pg_rewind: error: could not find previous WAL record at 0/3018B68\n";
        assert_eq!(missing_segment(complaint).as_deref(), Some("000000010000000000000003"));
        assert_eq!(missing_segment("could not open file \"/data/base/1/12\": Permission denied"), None);
    }
}
