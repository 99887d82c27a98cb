//! Taking a data directory out of the way: removing it, or renaming it for a later look.
//!
//! Symbolic links are followed out of the directory in two places only, because PostgreSQL itself puts data there: the
//! WAL directory and user-defined tablespaces. Everything removed is named in the log.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::PgError;

/// Suffix of what is renamed.
const FAILED: &str = ".failed";

/// A link in the data directory and the directory it leads to.
struct Outside {
    link: PathBuf,
    target: PathBuf,
    is_wal: bool,
}

/// Removes the data directory, the target of a linked WAL directory and those of tablespaces. A data directory that is
/// itself a link is only unlinked. What cannot be removed is renamed instead. The server must be stopped.
pub fn remove_data_dir(data_dir: &Path) -> Result<(), PgError> {
    tracing::info!("Removing data directory: {}", data_dir.display());
    match remove(data_dir) {
        Ok(()) => Ok(()),
        Err(error) => {
            tracing::error!(%error, "Could not remove data directory {}", data_dir.display());
            move_data_dir_away(data_dir)
        }
    }
}

/// Takes a data directory that cannot be used any more out of the way, with a way back: it is renamed, and removed only
/// where it cannot be renamed (a mount point, for example). The server must be stopped.
pub fn set_aside(data_dir: &Path) -> Result<(), PgError> {
    match move_data_dir_away(data_dir) {
        Ok(()) => {
            tracing::warn!(
                "what was in {0} is kept in {0}{FAILED}; delete that when nothing in it is missed, the next data \
                 directory to be set aside replaces it",
                data_dir.display()
            );
            Ok(())
        }
        Err(error) => {
            tracing::error!(%error, "Could not rename data directory {}", data_dir.display());
            remove_data_dir(data_dir)
        }
    }
}

fn remove(data_dir: &Path) -> io::Result<()> {
    let kind = match fs::symlink_metadata(data_dir) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !kind.is_dir() {
        return fs::remove_file(data_dir);
    }
    for outside in outside(data_dir)? {
        if outside.is_wal {
            tracing::info!("Removing WAL directory: {}", outside.target.display());
            fs::remove_dir_all(&outside.target)?;
        } else {
            tracing::info!("Removing user defined tablespace directory: {}", outside.target.display());
            // Often a mount point, which can be emptied but not removed.
            if let Err(error) = fs::remove_dir_all(&outside.target) {
                tracing::warn!("Unable to remove {}: {error}", outside.target.display());
            }
        }
    }
    match fs::remove_dir_all(data_dir) {
        // A mount point, emptied.
        Err(_) if fs::read_dir(data_dir).is_ok_and(|mut entries| entries.next().is_none()) => Ok(()),
        result => result,
    }
}

/// Renames the data directory and the directories it links to, with `.failed` appended; what an earlier failure left
/// under those names is removed. The server must be stopped.
pub fn move_data_dir_away(data_dir: &Path) -> Result<(), PgError> {
    let failed = |path: &Path, source| PgError::Io { path: path.display().to_string(), source };
    if !data_dir.is_dir() {
        return Ok(());
    }
    for outside in outside(data_dir).map_err(|error| failed(data_dir, error))? {
        let what = if outside.is_wal { "WAL directory" } else { "user defined tablespace directory" };
        tracing::info!("renaming {what} and updating symlink: {}", outside.target.display());
        let renamed = rename(&outside.target).map_err(|error| failed(&outside.target, error))?;
        fs::remove_file(&outside.link).map_err(|error| failed(&outside.link, error))?;
        std::os::unix::fs::symlink(&renamed, &outside.link).map_err(|error| failed(&outside.link, error))?;
    }
    tracing::info!("renaming data directory to {}{FAILED}", data_dir.display());
    rename(data_dir).map_err(|error| failed(data_dir, error))?;
    Ok(())
}

fn rename(path: &Path) -> io::Result<PathBuf> {
    // Without a slash at its end, which would lead into the directory.
    let mut name = path.components().collect::<PathBuf>().into_os_string();
    name.push(FAILED);
    let name = PathBuf::from(name);
    match fs::symlink_metadata(&name) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&name)?,
        Ok(_) => fs::remove_file(&name)?,
        Err(_) => {}
    }
    fs::rename(path, &name)?;
    Ok(name)
}

/// The links that lead PostgreSQL's own data out of the directory. Targets that hold the data directory itself, or
/// lie in it, are none of them: following those would remove something else.
fn outside(data_dir: &Path) -> io::Result<Vec<Outside>> {
    let own = fs::canonicalize(data_dir)?;
    let mut found = Vec::new();
    let mut look_at = |link: PathBuf, is_wal: bool| {
        let is_link = fs::symlink_metadata(&link).is_ok_and(|metadata| metadata.is_symlink());
        let Some(target) = fs::canonicalize(&link).ok().filter(|target| is_link && target.is_dir()) else { return };
        if own.starts_with(&target) || target.starts_with(&own) {
            tracing::warn!("{} leads to {}, which is left alone", link.display(), target.display());
        } else {
            found.push(Outside { link, target, is_wal });
        }
    };
    for name in ["pg_wal", "pg_xlog"] {
        look_at(data_dir.join(name), true);
    }
    for entry in fs::read_dir(data_dir.join("pg_tblspc")).into_iter().flatten().flatten() {
        // PostgreSQL names these links by number.
        if entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
            look_at(entry.path(), false);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Rig {
        root: tempfile::TempDir,
    }

    impl Rig {
        /// A data directory with linked WAL and one tablespace, a stray link and an unrelated directory beside it.
        fn new() -> Self {
            let rig = Self { root: tempfile::tempdir().unwrap() };
            for directory in ["data/pg_tblspc", "wal", "space/PG_15", "precious"] {
                fs::create_dir_all(rig.path(directory)).unwrap();
            }
            for file in ["data/PG_VERSION", "wal/segment", "space/PG_15/table", "precious/file"] {
                fs::write(rig.path(file), "x").unwrap();
            }
            symlink(rig.path("wal"), rig.path("data/pg_wal")).unwrap();
            symlink(rig.path("space"), rig.path("data/pg_tblspc/16385")).unwrap();
            symlink(rig.path("precious"), rig.path("data/stray")).unwrap();
            symlink(rig.path("precious"), rig.path("data/pg_tblspc/notes")).unwrap();
            symlink(rig.root.path(), rig.path("data/pg_tblspc/16386")).unwrap();
            rig
        }

        fn path(&self, name: &str) -> PathBuf {
            self.root.path().join(name)
        }

        fn has(&self, name: &str) -> bool {
            fs::symlink_metadata(self.path(name)).is_ok()
        }
    }

    #[test]
    fn removal_takes_wal_and_tablespaces_and_nothing_else() {
        let rig = Rig::new();
        remove_data_dir(&rig.path("data")).unwrap();
        assert!(!rig.has("data") && !rig.has("wal") && !rig.has("space"));
        assert!(rig.has("precious/file"));
        remove_data_dir(&rig.path("data")).unwrap();
    }

    #[test]
    fn a_linked_data_directory_is_only_unlinked() {
        let rig = Rig::new();
        symlink(rig.path("data"), rig.path("link")).unwrap();
        remove_data_dir(&rig.path("link")).unwrap();
        assert!(!rig.has("link") && rig.has("data/PG_VERSION") && rig.has("wal/segment"));
    }

    #[test]
    fn what_is_set_aside_can_be_had_back() {
        let rig = Rig::new();
        set_aside(&rig.path("data")).unwrap();
        assert!(!rig.has("data") && rig.path("data.failed/pg_wal/segment").is_file());
        set_aside(&rig.path("data")).unwrap();
        assert!(rig.has("data.failed/PG_VERSION"), "nothing to set aside replaces nothing");
    }

    #[test]
    fn renaming_keeps_everything_and_repoints_the_links() {
        let rig = Rig::new();
        fs::create_dir_all(rig.path("data.failed/old")).unwrap();
        move_data_dir_away(&rig.path("data")).unwrap();
        assert!(!rig.has("data") && !rig.has("wal") && !rig.has("space") && !rig.has("data.failed/old"));
        assert!(rig.path("data.failed/pg_wal/segment").is_file());
        assert!(rig.path("data.failed/pg_tblspc/16385/PG_15/table").is_file());
        assert_eq!(fs::read_link(rig.path("data.failed/pg_wal")).unwrap(), rig.path("wal.failed"));
        assert!(rig.has("precious/file") && rig.path("data.failed/stray/file").is_file());
    }
}
