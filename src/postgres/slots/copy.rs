//! Copying a logical slot: PostgreSQL makes none on a standby at the position that the primary's has, so its state file
//! is carried over while the standby is down.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use tokio_postgres::Client;

use crate::cluster::{Lsn, WantedSlot};
use crate::postgres::PgError;

use super::bounded;

/// A slot as it stands on the primary's disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Original {
    /// Its name.
    pub name: String,
    /// Database and plugin.
    pub logical: (String, String),
    /// The oldest WAL it needs.
    pub restart_lsn: Option<Lsn>,
    /// The state file.
    pub state: Vec<u8>,
}

/// Reads these slots on a primary; the user needs `pg_read_binary_file`. A server in recovery has no originals, and
/// slots for failover are carried over by PostgreSQL itself.
pub async fn fetch(primary: &Client, version: u32, names: &[String]) -> Result<Vec<Original>, PgError> {
    let ours = if version >= 170_000 { "AND NOT failover" } else { "" };
    let query = format!(
        "SELECT slot_name::text, database::text, plugin::text, restart_lsn::text, \
         pg_catalog.pg_read_binary_file('pg_replslot/' || slot_name || '/state') \
         FROM pg_catalog.pg_replication_slots \
         WHERE NOT pg_catalog.pg_is_in_recovery() AND slot_type = 'logical' AND NOT temporary {ours} \
         AND slot_name::text = ANY ($1)"
    );
    let rows = bounded("the primary's logical slots", primary.query(query.as_str(), &[&names])).await?;
    let read = |row: &tokio_postgres::Row| {
        Ok(Original {
            name: row.try_get(0)?,
            logical: (row.try_get(1)?, row.try_get(2)?),
            restart_lsn: row.try_get::<_, Option<String>>(3)?.and_then(|text| text.parse().ok()),
            state: row.try_get(4)?,
        })
    };
    rows.iter()
        .map(read)
        .collect::<Result<_, tokio_postgres::Error>>()
        .map_err(|error| PgError::Query(error.to_string()))
}

/// Keeps what can be used here: as configured, and with its WAL from `oldest` on. The rest is said why not.
pub fn usable(originals: Vec<Original>, wanted: &[WantedSlot], oldest: Option<Lsn>) -> Vec<Original> {
    let configured: BTreeMap<&str, _> =
        wanted.iter().filter_map(|slot| Some((slot.name.as_str(), slot.logical.as_ref()?))).collect();
    let is_usable = |original: &Original| {
        let name = &original.name;
        let Some((database, plugin)) = configured.get(name.as_str()) else { return false };
        let (their_database, their_plugin) = &original.logical;
        if (database, plugin) != (their_database, their_plugin) {
            tracing::warn!(
                "Will not copy the logical slot \"{name}\" due to the configuration mismatch: configuration={database} \
                 {plugin}, slot on the primary={their_database} {their_plugin}"
            );
            return false;
        }
        match (original.restart_lsn, oldest) {
            (None, _) => {
                tracing::warn!("Will not copy the logical slot \"{name}\": the WAL it needs is gone on the primary");
                false
            }
            (Some(needed), Some(oldest)) if needed < oldest => {
                tracing::warn!(
                    "Will not copy the logical slot \"{name}\": it needs WAL from {needed} on, and here there is none \
                     before {oldest}; it is copied once its consumer has got that far"
                );
                false
            }
            _ => true,
        }
    };
    originals.into_iter().filter(is_usable).collect()
}

/// The oldest position of the WAL in this directory.
pub fn oldest_wal(wal_dir: &Path, segment_size: u64) -> Option<Lsn> {
    let names = fs::read_dir(wal_dir).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| segment_start(&name, segment_size)).min()
}

/// Where a segment begins, by its name: timeline, then the number in two parts.
fn segment_start(name: &str, segment_size: u64) -> Option<Lsn> {
    if name.len() != 24 || !name.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let high = u64::from_str_radix(name.get(8..16)?, 16).ok()?;
    let low = u64::from_str_radix(name.get(16..24)?, 16).ok()?;
    Some(Lsn((high << 32).checked_add(low.checked_mul(segment_size)?)?))
}

/// Puts the state files in place, below the `pg_replslot` directory of a server that is down. Each is complete on disk
/// before it gets its name.
pub fn write(directory: &Path, originals: &[Original]) -> Result<(), PgError> {
    originals.iter().try_for_each(|original| {
        write_one(directory, original)
            .map_err(|source| PgError::Io { path: directory.join(&original.name).display().to_string(), source })
    })
}

fn write_one(directory: &Path, original: &Original) -> std::io::Result<()> {
    let (place, aside) = (directory.join(&original.name), directory.join(format!("{}.tmp", original.name)));
    if aside.exists() {
        fs::remove_dir_all(&aside)?;
    }
    fs::create_dir(&aside)?;
    let mut file = fs::File::create(aside.join("state"))?;
    file.write_all(&original.state)?;
    file.sync_all()?;
    fs::File::open(&aside)?.sync_all()?;
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    fs::rename(&aside, &place)?;
    fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn original(name: &str, restart: u64) -> Original {
        let logical = ("app".to_owned(), "pgoutput".to_owned());
        Original { name: name.to_owned(), logical, restart_lsn: Some(Lsn(restart)), state: vec![1, 2, 3] }
    }

    fn wanted(name: &str, plugin: &str) -> WantedSlot {
        let logical = Some(("app".to_owned(), plugin.to_owned()));
        WantedSlot { name: name.to_owned(), logical, ..WantedSlot::default() }
    }

    #[test]
    fn only_what_fits_and_has_its_wal_is_copied() {
        let originals = vec![original("a", 500), original("b", 500), original("c", 10), original("d", 500)];
        let configured = [wanted("a", "pgoutput"), wanted("b", "wal2json"), wanted("c", "pgoutput")];
        let names = |found: &[Original]| found.iter().map(|slot| slot.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&usable(originals.clone(), &configured, Some(Lsn(100)))), ["a"]);
        assert_eq!(names(&usable(originals, &configured, None)), ["a", "c"]);
        let lost = Original { restart_lsn: None, ..original("a", 0) };
        assert_eq!(usable(vec![lost], &configured, None), []);
    }

    #[test]
    fn segments_tell_where_they_begin() {
        let size = 16 << 20;
        assert_eq!(segment_start("000000030000000200000005", size), Some(Lsn((2 << 32) + 5 * size)));
        assert_eq!(segment_start("00000003.history", size), None);
        assert_eq!(segment_start("000000030000000200000005.partial", size), None);
        let root = tempfile::tempdir().unwrap();
        assert_eq!(oldest_wal(root.path(), size), None);
        for name in ["000000020000000000000004", "000000010000000000000007", "archive_status", "00000002.history"] {
            fs::write(root.path().join(name), "").unwrap();
        }
        assert_eq!(oldest_wal(root.path(), size), Some(Lsn(4 * size)));
    }

    #[test]
    fn a_copy_replaces_what_is_there() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a")).unwrap();
        fs::write(root.path().join("a/state"), "old").unwrap();
        fs::create_dir_all(root.path().join("b.tmp")).unwrap();
        write(root.path(), &[original("a", 1), original("b", 1)]).unwrap();
        for name in ["a", "b"] {
            assert_eq!(fs::read(root.path().join(name).join("state")).unwrap(), [1, 2, 3]);
            assert!(!root.path().join(format!("{name}.tmp")).exists());
        }
        let error = write(&root.path().join("none"), &[original("a", 1)]).unwrap_err();
        assert!(error.to_string().contains("none/a"), "{error}");
    }
}
