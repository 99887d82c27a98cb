//! The data directory from outside: is there a cluster in it, how is it configured to start, who may read it.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::cluster::DataDir;
use crate::config::PostgresConfig;

use super::PgError;

/// Is there a cluster? Dot files and `lost+found` do not count, but a control file always does.
pub fn look(data_dir: &Path) -> DataDir {
    if data_dir.join("global/pg_control").exists() {
        return DataDir::Present;
    }
    let entries = match fs::read_dir(data_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return DataDir::Empty,
        Err(error) => return DataDir::Inaccessible(format!("{}: {error}", data_dir.display())),
    };
    for entry in entries {
        match entry {
            Ok(entry) if is_ignored(&entry.file_name()) => {}
            Ok(_) => return DataDir::Present,
            Err(error) => return DataDir::Inaccessible(format!("{}: {error}", data_dir.display())),
        }
    }
    DataDir::Empty
}

fn is_ignored(name: &OsStr) -> bool {
    name == "lost+found" || name.as_encoded_bytes().starts_with(b".")
}

/// The next start will be in recovery.
pub fn is_recovery_configured(data_dir: &Path) -> bool {
    ["standby.signal", "recovery.signal", "recovery.conf"].iter().any(|name| data_dir.join(name).exists())
}

/// Modes of files and directories that belong to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modes {
    /// Of a file in the data directory.
    pub file: u32,
    /// Of a directory there.
    pub directory: u32,
}

/// A data directory that its group may read has files that the group may read; else they are ours alone.
pub fn modes(data_dir: &Path) -> Modes {
    match fs::metadata(data_dir) {
        Ok(metadata) if metadata.permissions().mode() & 0o050 == 0o050 => Modes { file: 0o640, directory: 0o750 },
        _ => Modes { file: 0o600, directory: 0o700 },
    }
}

/// Creates (or checks) the directories that the configuration names and that PostgreSQL does not create itself.
pub fn prepare_directories(config: &PostgresConfig, pgpass: &Path) -> Result<(), PgError> {
    let data_dir = Path::new(&config.data_dir);
    let wanted = |name: &str| config.parameters.get(name).map(String::as_str).unwrap_or_default().split(',');
    for directory in wanted("unix_socket_directories").map(str::trim) {
        // An abstract socket has no directory.
        if !directory.is_empty() && !directory.starts_with('@') {
            prepare(data_dir, Path::new(directory), "unix_socket_directories")?;
        }
    }
    for directory in wanted("stats_temp_directory").map(str::trim).filter(|name| !name.is_empty()) {
        prepare(data_dir, Path::new(directory), "stats_temp_directory")?;
    }
    match pgpass.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) if config.krbsrvname.is_none() => prepare(data_dir, parent, "postgresql.pgpass"),
        _ => Ok(()),
    }
}

fn prepare(data_dir: &Path, directory: &Path, setting: &str) -> Result<(), PgError> {
    let path: PathBuf = data_dir.join(directory);
    let refuse = |why: &str| Err(PgError::Refused(format!("'{}' is defined in {setting}, {why}", directory.display())));
    if path.starts_with(data_dir) && look(data_dir) == DataDir::Empty {
        // initdb and a clone want the directory empty; it is created before the start.
        return Ok(());
    }
    match fs::metadata(&path) {
        Ok(metadata) if !metadata.is_dir() => refuse("the path is not a directory"),
        Ok(_) if nix::unistd::access(&path, nix::unistd::AccessFlags::W_OK).is_err() => {
            refuse("the directory is not writable")
        }
        Ok(_) => Ok(()),
        Err(_) => {
            let mode = if path.starts_with(data_dir) { modes(data_dir).directory } else { 0o777 };
            match fs::DirBuilder::new().recursive(true).mode(mode).create(&path) {
                Ok(()) => Ok(()),
                Err(error) => refuse(&format!("couldn't create the directory: {error}")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_as_empty() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("data");
        assert_eq!(look(&dir), DataDir::Empty);
        fs::create_dir_all(dir.join("lost+found")).unwrap();
        fs::write(dir.join(".keep"), "").unwrap();
        assert_eq!(look(&dir), DataDir::Empty);
        fs::write(dir.join("PG_VERSION"), "15\n").unwrap();
        assert_eq!(look(&dir), DataDir::Present);
        assert!(matches!(look(&dir.join("PG_VERSION")), DataDir::Inaccessible(_)));
    }

    #[test]
    fn signal_files_configure_recovery() {
        let root = tempfile::tempdir().unwrap();
        assert!(!is_recovery_configured(root.path()));
        fs::write(root.path().join("standby.signal"), "").unwrap();
        assert!(is_recovery_configured(root.path()));
    }

    #[test]
    fn a_group_readable_directory_has_group_readable_files() {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o750)).unwrap();
        assert_eq!(modes(root.path()), Modes { file: 0o640, directory: 0o750 });
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(modes(root.path()), Modes { file: 0o600, directory: 0o700 });
    }
}
