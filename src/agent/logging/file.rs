//! Where lines go.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::config::LogConfig;

/// The file's name below `log.dir`; the name is Patroni's, because other programs watch it.
const FILE: &str = "patroni.log";

pub(super) enum Sink {
    Stderr,
    File(Rotating),
}

impl Sink {
    pub(super) fn open(config: &LogConfig) -> io::Result<Self> {
        let Some(dir) = &config.dir else { return Ok(Self::Stderr) };
        let path = Path::new(dir).join(FILE);
        let file = Rotating::open(path.clone(), config.file_size, config.file_num, config.mode);
        let advice = "the directory of log.dir must exist, and the agent's user must be allowed to write there";
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}; {advice}", path.display()));
        file.map(Self::File).map_err(failed)
    }

    /// Goes on as configured. Errs and stays when the new file cannot be opened.
    pub(super) fn change(&mut self, config: &LogConfig) -> io::Result<()> {
        *self = Self::open(config)?;
        Ok(())
    }

    pub(super) fn write_line(&mut self, line: &str) -> io::Result<()> {
        match self {
            // In one piece: a line that is written in two may be torn apart by somebody else's.
            Self::Stderr => io::stderr().lock().write_all(format!("{line}\n").as_bytes()),
            Self::File(file) => file.write_line(line),
        }
    }
}

/// A file that is renamed to `.1`, `.2`, … when it has grown to its size.
pub(super) struct Rotating {
    path: PathBuf,
    file: File,
    written: u64,
    limit: u64,
    keep: u32,
    mode: Option<u32>,
}

impl Rotating {
    fn open(path: PathBuf, limit: u64, keep: u32, mode: Option<u32>) -> io::Result<Self> {
        let file = append(&path, mode)?;
        let written = file.metadata()?.len();
        Ok(Self { path, file, written, limit, keep, mode })
    }

    fn write_line(&mut self, line: &str) -> io::Result<()> {
        let length = line.len() as u64 + 1;
        // With nothing to be kept there would be nothing left of the file, so it grows, as with Patroni.
        let is_full = self.limit > 0 && self.keep > 0 && self.written > 0 && self.written + length > self.limit;
        if is_full && self.rotate().is_err() {
            // The old file is still open: better too long than lost.
            self.written = 0;
        }
        self.file.write_all(format!("{line}\n").as_bytes())?;
        self.written += length;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |n: u32| PathBuf::from(format!("{}.{n}", self.path.display()));
        for n in (1..self.keep).rev() {
            if numbered(n).exists() {
                std::fs::rename(numbered(n), numbered(n + 1))?;
            }
        }
        std::fs::rename(&self.path, numbered(1))?;
        self.file = append(&self.path, self.mode)?;
        self.written = 0;
        Ok(())
    }
}

/// Opens for appending. A mode holds exactly, whatever the umask; without one the umask decides.
fn append(path: &Path, mode: Option<u32>) -> io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    if let Some(mode) = mode {
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_rotate_by_size_and_keep_their_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let mut file = Rotating::open(path.clone(), 20, 2, Some(0o604)).unwrap();
        for line in ["first line here", "second line", "third line here", "fourth line"] {
            file.write_line(line).unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read("patroni.log"), "fourth line\n");
        assert_eq!(read("patroni.log.1"), "third line here\n");
        assert_eq!(read("patroni.log.2"), "second line\n");
        assert!(!dir.path().join("patroni.log.3").exists());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o604);
    }

    #[test]
    fn a_file_that_keeps_nothing_grows() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = Rotating::open(dir.path().join(FILE), 5, 0, None).unwrap();
        file.write_line("first").unwrap();
        file.write_line("second").unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join(FILE)).unwrap(), "first\nsecond\n");
    }
}
