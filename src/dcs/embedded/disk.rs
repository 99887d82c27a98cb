//! What survives: one redb file in a locked directory.
//!
//! redb writes copy-on-write with checksums and fsyncs once per commit, so a file that was written to when the process
//! died opens as of the last commit. Only a half-made *new* file would not open; therefore a store is made under
//! another name and renamed when it is complete.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use etcd_client::proto::PbKeyValue;
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError, TableDefinition,
};

use super::StoreError;
use super::state::history::FIRST_REVISION;
use super::state::{Changes, Contents, Identity};

/// Locked while a process serves the directory; holds its id, for people.
const LOCK: &str = "LOCK";
/// The store.
const FILE: &str = "store.redb";
/// A store that is being made.
const NEW_FILE: &str = "store.redb.new";

/// Version of what we write into the tables.
const FORMAT: u64 = 1;
/// Everything is in memory anyway; redb needs little more than what a commit touches.
const CACHE_BYTES: usize = 8 << 20;

/// Create revision, mod revision, version, lease, value.
type Record<'a> = (i64, i64, i64, i64, &'a [u8]);

/// What is kept of each key.
const KEYS: TableDefinition<'_, &[u8], Record<'static>> = TableDefinition::new("keys");
/// Lease id → granted life in seconds.
const LEASES: TableDefinition<'_, i64, i64> = TableDefinition::new("leases");
/// Single numbers by name.
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");

/// The open file, and the lock that makes it ours.
#[derive(Debug)]
pub(super) struct Disk {
    database: Database,
    file: PathBuf,
    _lock: File,
}

/// Where the store of a directory is.
pub(super) fn file_in(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

impl Disk {
    /// Opens the store of `dir`, making both if they are missing. Blocks.
    pub(super) fn open(dir: &Path) -> Result<(Self, Contents), StoreError> {
        let io = |source| StoreError::Io { path: dir.into(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
        let file = file_in(dir);
        if !file.try_exists().map_err(io)? {
            refuse_foreign(dir)?;
        }
        let lock = lock(dir)?;
        // Asked again under the lock: somebody may have been making it.
        if !file.try_exists().map_err(io)? {
            create(dir)?;
        }
        let mut database = open_database(dir, &file)?;
        let damaged = |source: redb::Error| StoreError::Damaged { path: file.clone(), source: Box::new(source) };
        if !database.check_integrity().map_err(|error| damaged(error.into()))? {
            tracing::info!(file = %file.display(), "the store was not closed properly; nothing acknowledged is lost");
        }
        let mut contents = read(&database).map_err(&damaged)?;
        contents.identity.term += 1;
        let disk = Self { database, file: file.clone(), _lock: lock };
        disk.write_term(contents.identity.term).map_err(|error| disk.write_failed(error))?;
        Ok((disk, contents))
    }

    /// The file, for people and for its size.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Makes changes durable: all or none. Blocks until they are on disk.
    pub(super) fn commit(&self, changes: &Changes) -> Result<(), StoreError> {
        self.write(changes).map_err(|error| self.write_failed(error))
    }

    fn write(&self, changes: &Changes) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut keys = transaction.open_table(KEYS)?;
            for (key, kv) in &changes.keys {
                match kv {
                    Some(kv) => keys.insert(
                        key.as_slice(),
                        (kv.create_revision, kv.mod_revision, kv.version, kv.lease, kv.value.as_slice()),
                    )?,
                    None => keys.remove(key.as_slice())?,
                };
            }
            let mut leases = transaction.open_table(LEASES)?;
            for (id, ttl_seconds) in &changes.leases {
                match ttl_seconds {
                    Some(ttl_seconds) => leases.insert(id, ttl_seconds)?,
                    None => leases.remove(id)?,
                };
            }
            transaction.open_table(NUMBERS)?.insert("revision", changes.revision.unsigned_abs())?;
        }
        Ok(transaction.commit()?)
    }

    fn write_term(&self, term: u64) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        transaction.open_table(NUMBERS)?.insert("term", term)?;
        Ok(transaction.commit()?)
    }

    fn write_failed(&self, source: redb::Error) -> StoreError {
        StoreError::Write { path: self.file.clone(), source: Box::new(source) }
    }
}

/// A directory without a store may hold only what an interrupted start leaves behind.
fn refuse_foreign(dir: &Path) -> Result<(), StoreError> {
    let io = |source| StoreError::Io { path: dir.into(), source };
    for entry in fs::read_dir(dir).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        // A file system's own directory is there from the start when a whole one is mounted.
        if name != LOCK && name != NEW_FILE && name != FILE && name != "lost+found" {
            return Err(StoreError::Foreign { dir: dir.into(), entry: name.to_string_lossy().into_owned() });
        }
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join(LOCK);
    let io = |source| StoreError::Io { path: path.clone(), source };
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).clone();
    let mut file = options.open(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(locked(dir, &mut file)),
        Err(TryLockError::Error(source)) => return Err(io(source)),
    }
    file.set_len(0).map_err(io)?;
    writeln!(file, "{}", std::process::id()).map_err(io)?;
    Ok(file)
}

fn locked(dir: &Path, file: &mut File) -> StoreError {
    let mut text = String::new();
    // The id is a courtesy; a holder that has not written it yet is still a holder.
    let _ = file.take(32).read_to_string(&mut text);
    let holder = match text.trim() {
        "" => "another process".to_owned(),
        id => format!("process {id}"),
    };
    StoreError::Locked { dir: dir.into(), holder }
}

fn create(dir: &Path) -> Result<(), StoreError> {
    let new = dir.join(NEW_FILE);
    let io = |source| StoreError::Io { path: new.clone(), source };
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&new).map_err(io)?;
    let fill = || -> Result<(), redb::Error> {
        let database = Builder::new().set_cache_size(CACHE_BYTES).create_file(file)?;
        let transaction = database.begin_write()?;
        {
            transaction.open_table(KEYS)?;
            transaction.open_table(LEASES)?;
            let mut numbers = transaction.open_table(NUMBERS)?;
            numbers.insert("format", FORMAT)?;
            numbers.insert("cluster_id", random_number())?;
            numbers.insert("member_id", random_number())?;
            numbers.insert("revision", FIRST_REVISION.unsigned_abs())?;
            numbers.insert("term", 0)?;
        }
        Ok(transaction.commit()?)
    };
    fill().map_err(|error| StoreError::Write { path: new.clone(), source: Box::new(error) })?;
    fs::rename(&new, file_in(dir)).map_err(io)?;
    // The new name itself must survive a power cut.
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io)
}

fn open_database(dir: &Path, file: &Path) -> Result<Database, StoreError> {
    Builder::new().set_cache_size(CACHE_BYTES).open(file).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => {
            StoreError::Locked { dir: dir.into(), holder: "another process".to_owned() }
        }
        DatabaseError::Storage(StorageError::Io(source)) if source.kind() != io::ErrorKind::InvalidData => {
            StoreError::Io { path: file.into(), source }
        }
        other => StoreError::Damaged { path: file.into(), source: Box::new(other) },
    })
}

fn read(database: &Database) -> Result<Contents, redb::Error> {
    let transaction = database.begin_read()?;
    let numbers = transaction.open_table(NUMBERS)?;
    let number = |name: &str| -> Result<u64, redb::Error> {
        let found = numbers.get(name)?.map(|value| value.value());
        found.ok_or_else(|| redb::Error::Corrupted(format!("the number {name:?} is missing")))
    };
    let format = number("format")?;
    if format != FORMAT {
        return Err(redb::Error::Corrupted(format!("format {format} is not known here, only {FORMAT}")));
    }
    let identity =
        Identity { cluster_id: number("cluster_id")?, member_id: number("member_id")?, term: number("term")? };
    let too_large = |_| redb::Error::Corrupted("the revision is too large".to_owned());
    let revision = i64::try_from(number("revision")?).map_err(too_large)?;
    let mut contents = Contents { identity, revision, keys: Vec::new(), leases: Vec::new() };
    for entry in transaction.open_table(KEYS)?.iter()? {
        let (key, value) = entry?;
        let (create_revision, mod_revision, version, lease, value) = value.value();
        let key = key.value().to_vec();
        contents.keys.push(PbKeyValue { key, create_revision, mod_revision, version, value: value.to_vec(), lease });
    }
    for entry in transaction.open_table(LEASES)?.iter()? {
        let (id, ttl_seconds) = entry?;
        contents.leases.push((id.value(), ttl_seconds.value()));
    }
    Ok(contents)
}

/// A number that two stores are unlikely to share. The standard hasher's keys are random, which is all we need.
pub(super) fn random_number() -> u64 {
    RandomState::new().hash_one(std::process::id()).max(1)
}

#[cfg(test)]
mod tests;
