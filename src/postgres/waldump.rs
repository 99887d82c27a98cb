//! Reading single WAL records with `pg_waldump`.

use std::time::Duration;

use regex_lite::Regex;
use tokio_util::sync::CancellationToken;

use crate::cluster::{ControlData, Lsn, Timeline};

use super::PgError;
use super::programs::Finished;
use super::site::Site;

/// Reading one or two records is a matter of milliseconds, unless the disk hangs.
const LIMIT: Duration = Duration::from_secs(10);

/// One WAL record, as far as we care.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    manager: String,
    lsn: Lsn,
    previous: Lsn,
    description: String,
}

async fn dump(site: &Site, timeline: Timeline, from: Lsn, count: u32) -> Result<Finished, PgError> {
    let program = site.tool("pg_waldump").in_c_locale().env("PGDATA", site.data_dir().display().to_string());
    let program = program.args(["-t", &timeline.to_string(), "-s", &from.to_string(), "-n", &count.to_string()]);
    program.limit(LIMIT).run(&CancellationToken::new()).await
}

async fn record(site: &Site, timeline: Timeline, lsn: Lsn) -> Option<Record> {
    let finished = dump(site, timeline, lsn, 1).await.ok()?;
    finished.stdout.lines().find_map(parse)
}

/// Reads one line of output, for example
/// `rmgr: XLOG  len (rec/tot): 114/ 114, tx: 0, lsn: 0/01500028, prev 0/014F3A10, desc: CHECKPOINT_SHUTDOWN …`.
fn parse(line: &str) -> Option<Record> {
    let pattern =
        r"^rmgr:\s+(\S+)\s+len .*?lsn: ([0-9A-Fa-f]+/[0-9A-Fa-f]+), prev ([0-9A-Fa-f]+/[0-9A-Fa-f]+), .*?desc: (.+)$";
    let fields = Regex::new(pattern).ok()?.captures(line)?;
    Some(Record {
        manager: fields[1].to_owned(),
        lsn: fields[2].parse().ok()?,
        previous: fields[3].parse().ok()?,
        description: fields[4].trim().to_lowercase(),
    })
}

/// The shutdown checkpoint of a server that was shut down as a primary, and the position others need to have: that of
/// the record before when it is a WAL switch, else the checkpoint itself. With archiving, the checkpoint is alone in a
/// fresh segment that standbys need not have received. `None`: the control data does not say `shut down`.
pub async fn shutdown_lsns(site: &Site, control: &ControlData) -> Option<(Lsn, Lsn)> {
    if control.cluster_state != "shut down" {
        return None;
    }
    let checkpoint = control.checkpoint;
    let previous = switch_before(site, control.checkpoint_timeline?, checkpoint).await;
    Some((checkpoint, previous.unwrap_or(checkpoint)))
}

async fn switch_before(site: &Site, timeline: Timeline, checkpoint: Lsn) -> Option<Lsn> {
    let last = record(site, timeline, checkpoint).await?;
    let is_shutdown = last.description.starts_with("checkpoint") && last.description.ends_with("shutdown");
    if last.manager != "XLOG" || last.lsn != checkpoint || !is_shutdown {
        return None;
    }
    let before = record(site, timeline, last.previous).await?;
    let is_switch = matches!(before.description.as_str(), "switch" | "xlog switch");
    (before.lsn == last.previous && is_switch).then_some(before.lsn)
}

/// Where the record of a shutdown checkpoint ends: nothing follows it, so the complaint about the next record names
/// the place. `None` when there is no such complaint.
pub async fn checkpoint_end(site: &Site, timeline: Timeline, checkpoint: Lsn) -> Option<Lsn> {
    let finished = dump(site, timeline, checkpoint, 2).await.ok()?;
    let end = end_in(&finished.stderr);
    if end.is_none() {
        tracing::error!("Failed to parse pg_waldump output: {}", finished.detail());
    }
    end
}

fn end_in(complaint: &str) -> Option<Lsn> {
    let fields = Regex::new(r"invalid record length at ([0-9A-Fa-f]+/[0-9A-Fa-f]+)").ok()?.captures(complaint)?;
    fields[1].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_pg_waldump_are_read() {
        let line = "rmgr: XLOG        len (rec/tot):    114/   114, tx:          0, lsn: 0/01500028, \
                    prev 0/014F3A10, desc: CHECKPOINT_SHUTDOWN redo 0/1500028; tli 1; oldest running xid 0; shutdown";
        let record = parse(line).unwrap();
        assert_eq!((record.manager.as_str(), record.lsn, record.previous), ("XLOG", Lsn(0x150_0028), Lsn(0x14F_3A10)));
        assert!(record.description.ends_with("shutdown"));
        let switch = "rmgr: XLOG        len (rec/tot):     24/    24, tx:          0, lsn: 0/03000148, \
                      prev 0/03000110, desc: SWITCH ";
        assert_eq!(parse(switch).unwrap().description, "switch");
        assert!(parse("pg_waldump: error").is_none());
    }

    #[test]
    fn the_end_is_read_out_of_the_complaint() {
        let complaint = "pg_waldump: error: error in WAL record at 0/15000A0: invalid record length at 0/1500110: \
                         wanted 24, got 0";
        assert_eq!(end_in(complaint), Some(Lsn(0x150_0110)));
        assert_eq!(end_in("pg_waldump: error: could not find file"), None);
    }
}
