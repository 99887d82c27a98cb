//! The control file: what `pg_controldata` prints, and two numbers read straight out of the file.
//!
//! The program is the authority. Running it takes some milliseconds and a fork, which is too much for something that
//! is watched every few milliseconds; [`glance`] reads the two fields whose place has been the same since 8.3, and
//! whoever acts on them asks the program first.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use crate::cluster::{ControlData, Lsn, SystemId, Timeline};

/// The output of `pg_controldata`, by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    lines: Vec<(String, String)>,
}

/// What the file's first bytes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glance {
    /// The system identifier.
    pub system_id: Option<SystemId>,
    /// What the cluster is doing.
    pub state: ClusterState,
}

/// `Database cluster state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterState {
    /// `starting up`, which no server leaves behind.
    Startup,
    /// `shut down`.
    ShutDown,
    /// `shut down in recovery`.
    ShutDownInRecovery,
    /// `shutting down`.
    ShuttingDown,
    /// `in crash recovery`.
    CrashRecovery,
    /// `in archive recovery`.
    ArchiveRecovery,
    /// `in production`.
    Production,
}

impl ClusterState {
    const ALL: [Self; 7] = [
        Self::Startup,
        Self::ShutDown,
        Self::ShutDownInRecovery,
        Self::ShuttingDown,
        Self::CrashRecovery,
        Self::ArchiveRecovery,
        Self::Production,
    ];
}

/// Reads identifier and state from `global/pg_control`; `None` when the file is not there or looks different.
pub fn glance(data_dir: &Path) -> Option<Glance> {
    let mut head = [0; 20];
    std::fs::File::open(data_dir.join("global/pg_control")).ok()?.read_exact(&mut head).ok()?;
    parse_head(&head)
}

fn parse_head(head: &[u8; 20]) -> Option<Glance> {
    let system_id = u64::from_ne_bytes(head[..8].try_into().ok()?);
    let state = u32::from_ne_bytes(head[16..].try_into().ok()?);
    let state = *ClusterState::ALL.get(usize::try_from(state).ok()?)?;
    Some(Glance { system_id: SystemId::parse(&system_id.to_string()), state })
}

impl Report {
    /// Reads the program's output. Old versions begin some keys with `Current `.
    pub fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let (key, value) = line.split_once(':')?;
            let key = key.trim();
            Some((key.strip_prefix("Current ").unwrap_or(key).to_owned(), value.trim().to_owned()))
        };
        Self { lines: text.lines().filter_map(line).collect() }
    }

    /// A value by its key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.lines.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// All lines in order, for the log.
    pub fn lines(&self) -> impl Iterator<Item = (&str, &str)> {
        self.lines.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The facts that decisions are made from.
    pub fn facts(&self) -> ControlData {
        let lsn = |key: &str| self.get(key).and_then(|value| value.parse().ok()).unwrap_or(Lsn::ZERO);
        let timeline = |key: &str| self.get(key)?.parse().ok().filter(|number| *number > 0).map(Timeline);
        let has_checksums = self.get("Data page checksum version").is_some_and(|version| version != "0");
        ControlData {
            cluster_state: self.get("Database cluster state").unwrap_or_default().to_owned(),
            system_id: self.get("Database system identifier").and_then(SystemId::parse),
            checkpoint: lsn("Latest checkpoint location"),
            checkpoint_timeline: timeline("Latest checkpoint's TimeLineID"),
            min_recovery: lsn("Minimum recovery ending location"),
            min_recovery_timeline: timeline("Min recovery ending loc's timeline"),
            rewindable: has_checksums || self.get("wal_log_hints setting") == Some("on"),
        }
    }

    /// The settings of the server that last wrote here, by parameter name: a standby must not have less. A line that
    /// is missing is left out.
    pub fn settings(&self) -> BTreeMap<&'static str, u32> {
        SETTINGS.iter().filter_map(|(name, key)| Some((*name, self.get(key)?.parse().ok()?))).collect()
    }
}

/// Parameters that a standby needs at least as high as its primary had them, and their lines.
pub const SETTINGS: [(&str, &str); 5] = [
    ("max_connections", "max_connections setting"),
    ("max_prepared_transactions", "max_prepared_xacts setting"),
    ("max_locks_per_transaction", "max_locks_per_xact setting"),
    ("max_worker_processes", "max_worker_processes setting"),
    ("max_wal_senders", "max_wal_senders setting"),
];

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Database cluster state:               shut down\n\
        Database system identifier:           7710267184385916675\n\
        pg_control last modified:             Sat 21 Nov 2026 02:00:00 AM UTC\n\
        Latest checkpoint location:           0/3000028\n\
        Current Latest checkpoint's TimeLineID:       2\n\
        Minimum recovery ending location:     0/0\n\
        Min recovery ending loc's timeline:   0\n\
        wal_log_hints setting:                on\n\
        max_connections setting:              150\n\
        Data page checksum version:           0\n";

    #[test]
    fn facts_are_read() {
        let report = Report::parse(TEXT);
        let facts = report.facts();
        assert_eq!(facts.cluster_state, "shut down");
        assert_eq!((facts.checkpoint, facts.checkpoint_timeline), (Lsn(0x300_0028), Some(Timeline(2))));
        assert_eq!((facts.min_recovery, facts.min_recovery_timeline), (Lsn::ZERO, None));
        assert!(facts.rewindable && facts.system_id.is_some());
        assert_eq!(report.settings().into_iter().collect::<Vec<_>>(), [("max_connections", 150)]);
        assert_eq!(report.get("pg_control last modified"), Some("Sat 21 Nov 2026 02:00:00 AM UTC"));
        assert_eq!(Report::parse("").facts(), ControlData::default());
    }

    #[test]
    fn the_head_of_the_file_is_read_or_refused() {
        let mut head = [0; 20];
        head[..8].copy_from_slice(&7_710_267_184_385_916_675_u64.to_ne_bytes());
        head[16..].copy_from_slice(&6_u32.to_ne_bytes());
        let seen = parse_head(&head).unwrap();
        assert_eq!(seen.state, ClusterState::Production);
        assert_eq!(seen.system_id.unwrap().as_str(), "7710267184385916675");
        head[16..].copy_from_slice(&7_u32.to_ne_bytes());
        assert_eq!(parse_head(&head), None);
    }
}
