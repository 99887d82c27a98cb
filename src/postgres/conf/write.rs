//! Putting a file in place at once, durably, and only when it changes.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::hba::FOR_NOW;
use crate::postgres::{PgError, data_dir};

/// Replaces a file's text; whether it was another text before. The new file is complete on disk before it gets its
/// name, so that a server that starts after a power failure finds the old one or the new one.
pub fn replace(path: &Path, text: &str, mode: u32) -> Result<bool, PgError> {
    let failed = |source| PgError::Io { path: path.display().to_string(), source };
    // A link is kept: the file that it leads to is the one that is meant.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if fs::read(&path).is_ok_and(|present| present == text.as_bytes()) {
        return Ok(false);
    }
    in_place(&path, text.as_bytes(), mode).map_err(failed)?;
    Ok(true)
}

fn in_place(path: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".pgherd.").tempfile_in(directory)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(text)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    fs::File::open(directory)?.sync_all()
}

/// The mode of a file that we write for the server: that of the data directory inside of it, what our own file
/// creation mask leaves outside.
pub fn mode_for(path: &Path, data_directory: &Path) -> u32 {
    if path.starts_with(data_directory) { data_dir::modes(data_directory).file } else { 0o666 & !umask() }
}

/// Our file creation mask; this is the one place where it can be read without being changed.
fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o077)
}

/// Takes away what a file said only for the time of a bootstrap: its copy from before is put back; without a copy
/// there was no file. Whether there was anything to take away.
pub fn put_back(path: &Path, data_directory: &Path) -> Result<bool, PgError> {
    // Reading from a pipe could wait for ever.
    let is_file = fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    if !is_file || !fs::read_to_string(path).is_ok_and(|text| text.contains(FOR_NOW)) {
        return Ok(false);
    }
    let failed = |path: &Path, source| PgError::Io { path: path.display().to_string(), source };
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let copy = data_directory.join(format!("{name}.backup"));
    match fs::read_to_string(&copy) {
        Ok(text) => replace(path, &text, mode_for(path, data_directory)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::remove_file(path).map(|()| true).map_err(|source| failed(path, source))
        }
        Err(source) => Err(failed(&copy, source)),
    }
}

/// Copies configuration files that may lie outside of the data directory into it, as `NAME.backup`. A clone has the
/// copies, and restores from them what is missing.
pub fn back_up(files: &[PathBuf], data_directory: &Path) {
    for path in files {
        let Some(name) = path.file_name().map(|name| name.to_string_lossy()) else { continue };
        let copy = data_directory.join(format!("{name}.backup"));
        let result = match fs::read_to_string(path) {
            // The copy of what was there before is still needed.
            Ok(text) if text.contains(FOR_NOW) => Ok(()),
            Ok(text) => replace(&copy, &text, data_dir::modes(data_directory).file).map(drop),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(PgError::Io { path: path.display().to_string(), source }),
        };
        if let Err(error) = result {
            tracing::warn!("unable to create backup copies of configuration files: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_only_when_it_changes() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.conf");
        assert!(replace(&path, "x", 0o600).unwrap());
        assert!(!replace(&path, "x", 0o600).unwrap());
        assert!(replace(&path, "y", 0o640).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "no temporary file is left");
        let error = replace(&root.path().join("no/such"), "x", 0o600).unwrap_err().to_string();
        assert!(error.contains("no/such"), "{error}");
    }

    #[test]
    fn links_are_kept() {
        let root = tempfile::tempdir().unwrap();
        let (target, link) = (root.path().join("target"), root.path().join("link"));
        fs::write(&target, "old").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        replace(&link, "new", 0o600).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn copies_are_made_of_what_is_there() {
        let root = tempfile::tempdir().unwrap();
        let (data, conf) = (root.path().join("data"), root.path().join("pg_hba.conf"));
        fs::create_dir(&data).unwrap();
        fs::write(&conf, "x").unwrap();
        back_up(&[conf, root.path().join("missing")], &data);
        assert_eq!(fs::read_to_string(data.join("pg_hba.conf.backup")).unwrap(), "x");
        assert_eq!(fs::read_dir(&data).unwrap().count(), 1);
    }

    #[test]
    fn what_was_said_for_a_bootstrap_is_taken_away_with_the_copy_from_before() {
        let root = tempfile::tempdir().unwrap();
        let hba = root.path().join("pg_hba.conf");
        fs::write(&hba, "original").unwrap();
        assert!(!put_back(&hba, root.path()).unwrap());
        back_up(std::slice::from_ref(&hba), root.path());
        fs::write(&hba, format!("{FOR_NOW}\nlocal all all trust\n")).unwrap();
        back_up(std::slice::from_ref(&hba), root.path());
        assert!(put_back(&hba, root.path()).unwrap());
        assert_eq!(fs::read_to_string(&hba).unwrap(), "original");
        fs::remove_file(root.path().join("pg_hba.conf.backup")).unwrap();
        fs::write(&hba, FOR_NOW).unwrap();
        assert!(put_back(&hba, root.path()).unwrap());
        assert!(!hba.exists());
    }
}
