//! The demo's directory: what it holds, who may use it.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::error::DemoError;

/// The members.
pub(super) const NAMES: [&str; 3] = ["herd1", "herd2", "herd3"];

/// Its presence says that the directory is a demo's.
const PLAN: &str = "demo.json";

/// Held while a demo runs.
const LOCK: &str = "lock";

/// Copies of our own programs, for a user who cannot read the originals.
pub(super) const PROGRAMS: &str = "bin";

/// A directory that is ours alone as long as this lives.
#[derive(Debug)]
pub(super) struct Place {
    dir: PathBuf,
    _lock: File,
}

impl Place {
    /// Creates the directory or takes it over, and locks it.
    pub(super) fn claim(dir: &Path) -> Result<Self, DemoError> {
        let shown = dir.display();
        let failed = |what: &str, error: std::io::Error| {
            DemoError::new(format!("{what} {shown}; choose another directory with --dir")).because(error)
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(dir)
            .map_err(|error| failed("cannot create", error))?;
        if dir.to_str().is_none_or(|path| path.contains(['\n', '\r'])) {
            return Err(DemoError::new(format!(
                "{shown} cannot be written into configuration files; choose another --dir"
            )));
        }
        // Processes are recognised by the real path they work in.
        let dir = &fs::canonicalize(dir).map_err(|error| failed("cannot enter", error))?;
        refuse_foreign(dir).map_err(|error| failed("cannot read", error))??;
        let path = dir.join(LOCK);
        let open = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let mut lock = open.map_err(|error| failed("cannot write to", error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _ = lock.read_to_string(&mut pid);
                let pid = pid.trim();
                return Err(DemoError::new(format!(
                    "a demo already runs in {shown} (pid {pid}); stop it with Ctrl-C or `kill {pid}`, or choose another --dir"
                )));
            }
            Err(TryLockError::Error(error)) => return Err(failed("cannot lock", error)),
        }
        let write =
            lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id()));
        write.map_err(|error| failed("cannot write to", error))?;
        Ok(Self { dir: dir.to_owned(), _lock: lock })
    }

    /// The directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Ports and passwords of the cluster.
    pub(super) fn plan(&self) -> PathBuf {
        self.dir.join(PLAN)
    }

    /// Directory of the store.
    pub(super) fn store(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// A member's configuration.
    pub(super) fn config(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.yml"))
    }

    /// What a member keeps.
    pub(super) fn member(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A member's data directory.
    pub(super) fn data(&self, name: &str) -> PathBuf {
        self.member(name).join("data")
    }

    /// The configuration of `pgherdctl`.
    pub(super) fn ctl(&self) -> PathBuf {
        self.dir.join("ctl.yml")
    }

    /// The password file for libpq.
    pub(super) fn pgpass(&self) -> PathBuf {
        self.dir.join("pgpass")
    }

    /// Directory of the logs.
    pub(super) fn logs(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// The log of the store or of an agent.
    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.logs().join(format!("{name}.log"))
    }

    /// Directory of the Unix sockets. A socket's path has room for 107 bytes, the name of the socket included; in a
    /// longer place there are none, and everybody uses TCP as the agents do anyway.
    pub(super) fn sockets(&self) -> Option<PathBuf> {
        const LONGEST: usize = 107 - "/.s.PGSQL.65535".len();
        Some(self.dir.join("run")).filter(|path| path.as_os_str().len() <= LONGEST)
    }

    /// Creates the directories below.
    pub(super) fn furnish(&self) -> Result<(), DemoError> {
        let dirs = NAMES.iter().map(|name| self.member(name)).chain([self.logs()]).chain(self.sockets());
        for dir in dirs {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
            made.map_err(|error| DemoError::new(format!("cannot create {}", dir.display())).because(error))?;
        }
        Ok(())
    }

    /// Removes the cluster: exactly what a demo makes, and nothing else that may lie here.
    pub(super) fn clear(&self) -> Result<(), DemoError> {
        self.clear_data()?;
        for dir in [self.logs()].into_iter().chain(self.sockets()) {
            absent(&dir, fs::remove_dir_all(&dir))?;
        }
        let files = NAMES.iter().map(|name| self.config(name)).chain([self.ctl(), self.pgpass(), self.plan()]);
        for file in files {
            absent(&file, fs::remove_file(&file))?;
        }
        Ok(())
    }

    /// Removes what the store and the members keep.
    pub(super) fn clear_data(&self) -> Result<(), DemoError> {
        for dir in NAMES.iter().map(|name| self.member(name)).chain([self.store()]) {
            absent(&dir, fs::remove_dir_all(&dir))?;
        }
        Ok(())
    }

    /// Replaces a file by a rename, so that a reader sees the old or the new text.
    pub(super) fn write(&self, path: &Path, text: &str, mode: u32) -> Result<(), DemoError> {
        let attempt = || -> std::io::Result<()> {
            let mut file = tempfile::Builder::new().prefix(".new").tempfile_in(&self.dir)?;
            file.write_all(text.as_bytes())?;
            file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
            file.as_file().sync_all()?;
            file.persist(path)?;
            Ok(())
        };
        attempt().map_err(|error| DemoError::new(format!("cannot write {}", path.display())).because(error))
    }
}

/// What a removal came to; what was not there needs none.
fn absent(path: &Path, removed: std::io::Result<()>) -> Result<(), DemoError> {
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(DemoError::new(format!("cannot remove {}", path.display())).because(error))
        }
        _ => Ok(()),
    }
}

/// A directory with other things in it is not ours to fill, and certainly not to clear.
pub(super) fn refuse_foreign(dir: &Path) -> std::io::Result<Result<(), DemoError>> {
    if dir.join(PLAN).exists() {
        return Ok(Ok(()));
    }
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if name != LOCK && name != PROGRAMS {
            return Ok(Err(DemoError::new(format!(
                "{} is not empty and not a demo's directory (it holds {}); choose an empty or new one with --dir",
                dir.display(),
                name.display()
            ))));
        }
    }
    Ok(Ok(()))
}

/// The usual directory of a user who is not root.
pub(super) fn default_below(state_home: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let given = |value: Option<OsString>| value.map(PathBuf::from).filter(|path| path.is_absolute());
    let state = given(state_home).or_else(|| given(home).map(|home| home.join(".local/state")))?;
    Some(state.join("pgherd/demo"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_directory_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "years of work").unwrap();
        let error = Place::claim(dir.path()).unwrap_err().to_string();
        assert!(error.contains("thesis.tex") && error.contains("--dir"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn two_demos_do_not_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = Place::claim(dir.path()).unwrap();
        let error = Place::claim(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("kill {}", std::process::id())), "{error}");
        drop(first);
        assert!(Place::claim(dir.path()).is_ok());
    }

    #[test]
    fn clearing_removes_what_the_demo_made_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::claim(dir.path()).unwrap();
        place.furnish().unwrap();
        place.write(&place.plan(), "{}", 0o600).unwrap();
        fs::write(dir.path().join("notes.txt"), "kept").unwrap();
        place.clear().unwrap();
        let mut left: Vec<String> =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, ["lock", "notes.txt"]);
    }

    #[test]
    fn long_places_have_no_sockets() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Place::claim(dir.path()).unwrap().sockets().is_some());
        assert!(Place::claim(&dir.path().join("x".repeat(90))).unwrap().sockets().is_none());
    }

    #[test]
    fn the_state_directory_counts_before_home() {
        let of = |state: Option<&str>, home: Option<&str>| default_below(state.map(Into::into), home.map(Into::into));
        assert_eq!(of(Some("/s"), Some("/h")), Some("/s/pgherd/demo".into()));
        assert_eq!(of(Some("relative"), Some("/h")), Some("/h/.local/state/pgherd/demo".into()));
        assert_eq!(of(None, None), None);
    }
}
