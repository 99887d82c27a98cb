//! Where PostgreSQL's programs are.

use std::ffi::OsStr;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::DemoError;

/// What the agents call. A directory without one of them is of no use; Debian's /usr/bin is such a one.
const NEEDED: [&str; 6] = ["postgres", "initdb", "pg_ctl", "pg_basebackup", "pg_rewind", "pg_controldata"];

/// Directories with one subdirectory per major version, and what stands before and after the number.
const VERSIONED: [(&str, &str, &str); 2] = [("/usr/lib/postgresql", "", "bin"), ("/usr", "pgsql-", "bin")];

/// One installation of PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Programs {
    /// The directory that holds all of them.
    pub bin_dir: PathBuf,
    /// `15.13`.
    pub version: String,
}

impl Programs {
    /// Takes the given directory, else the first on PATH that has all of the programs, else the newest of the
    /// system's versioned directories.
    pub(super) fn find(given: Option<&Path>, path: Option<&OsStr>) -> Result<Self, DemoError> {
        if let Some(dir) = given {
            let missing = missing_in(dir);
            if !missing.is_empty() {
                let (dir, missing) = (dir.display(), missing.join(", "));
                return Err(DemoError::new(format!(
                    "--bin-dir {dir} does not hold {missing}; name the directory of postgres"
                )));
            }
            return Self::in_dir(dir);
        }
        let on_path = path.map(std::env::split_paths).into_iter().flatten();
        let dir = on_path.filter(|dir| dir.is_absolute()).chain(versioned()).find(|dir| missing_in(dir).is_empty());
        let dir = dir.ok_or_else(|| {
            DemoError::new(
                "PostgreSQL's server programs are neither on PATH nor in /usr/lib/postgresql/VERSION/bin; install them \
                 (Debian, Ubuntu: apt-get install postgresql) or name their directory with --bin-dir",
            )
        })?;
        Self::in_dir(&dir)
    }

    fn in_dir(dir: &Path) -> Result<Self, DemoError> {
        let bin_dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
        let program = bin_dir.join("postgres");
        let failed = |why: String| DemoError::new(format!("{} --version failed: {why}", program.display()));
        let output = Command::new(&program).arg("--version").output().map_err(|error| failed(error.to_string()))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = said.split_whitespace().nth(2).map(str::to_owned);
        match version.filter(|_| output.status.success()) {
            Some(version) => Ok(Self { bin_dir, version }),
            None => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        }
    }
}

/// The programs that a directory lacks. Scripts do not count: wrappers pick a version, or a user, of their own.
fn missing_in(dir: &Path) -> Vec<&'static str> {
    NEEDED.into_iter().filter(|name| !is_program(&dir.join(name))).collect()
}

fn is_program(path: &Path) -> bool {
    let mut start = [0; 2];
    fs::File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && &start != b"#!"
}

/// The versioned directories there are, newest first.
fn versioned() -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for (parent, before, below) in VERSIONED {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(before)).and_then(|rest| rest.parse().ok());
            found.extend(number.map(|number| (number, entry.path().join(below))));
        }
    }
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, dir)| dir).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_wrappers_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        for name in NEEDED {
            fs::write(dir.path().join(name), "#!/bin/sh\nexit 1\n").unwrap();
        }
        assert_eq!(missing_in(dir.path()), NEEDED);
        for name in NEEDED {
            fs::write(dir.path().join(name), "\x7fELF").unwrap();
        }
        assert!(missing_in(dir.path()).is_empty());
        fs::remove_file(dir.path().join("pg_rewind")).unwrap();
        assert_eq!(missing_in(dir.path()), ["pg_rewind"]);
    }

    #[test]
    fn a_wrong_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = Programs::find(Some(dir.path()), None).unwrap_err().to_string();
        assert!(error.contains(&dir.path().display().to_string()) && error.contains("pg_controldata"), "{error}");
    }
}
