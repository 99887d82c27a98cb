//! One program that the demo starts: the store, or a member's agent.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::Signal;
use tokio::process::{Child as Process, Command};

use super::error::DemoError;
use super::leftovers::send;

/// A log that has grown beyond this is put aside when its program is started.
const LARGE_LOG: u64 = 16 << 20;

/// The end of a log that is worth reading, in bytes.
const TAIL: u64 = 64 << 10;

/// A program, running or not.
pub(super) struct Child {
    /// `store`, or the member's name.
    pub name: String,
    /// Its output.
    pub log: PathBuf,
    program: PathBuf,
    args: Vec<OsString>,
    process: Option<Process>,
}

impl Child {
    pub(super) fn new(name: &str, program: PathBuf, args: Vec<OsString>, log: PathBuf) -> Self {
        Self { name: name.to_owned(), log, program, args, process: None }
    }

    /// Starts it in a process group of its own: Ctrl-C must reach the demo alone, which then stops things in order.
    pub(super) fn start(&mut self) -> Result<(), DemoError> {
        let cannot_log = |error| DemoError::new(format!("cannot write {}", self.log.display())).because(error);
        if fs::metadata(&self.log).is_ok_and(|log| log.len() > LARGE_LOG) {
            let _ = fs::rename(&self.log, self.log.with_extension("log.old"));
        }
        let log = File::options().create(true).append(true).open(&self.log).map_err(cannot_log)?;
        let errors = log.try_clone().map_err(cannot_log)?;
        let mut command = Command::new(&self.program);
        command.args(&self.args).process_group(0).stdin(Stdio::null()).stdout(log).stderr(errors).kill_on_drop(true);
        // The files in the directory are the whole configuration.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("PATRONI_") || text.starts_with("PG") {
                command.env_remove(&name);
            }
        }
        let process = command.spawn();
        let cannot_run = |error| DemoError::new(format!("cannot run {}", self.program.display())).because(error);
        self.process = Some(process.map_err(cannot_run)?);
        Ok(())
    }

    /// Its number, while it runs.
    pub(super) fn pid(&self) -> Option<i32> {
        self.process.as_ref()?.id().and_then(|pid| i32::try_from(pid).ok())
    }

    /// How it ended, told once; `None` while it runs or when it was not started.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.process.as_mut()?.try_wait().ok()??;
        self.process = None;
        Some(status)
    }

    /// Signals it, if it runs.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            send(pid, signal);
        }
    }

    /// Waits for its end. Cancelling this loses nothing.
    pub(super) async fn wait(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.wait().await;
        }
        self.process = None;
    }

    /// The last lines of its log.
    pub(super) fn tail(&self, lines: usize) -> String {
        let text = self.log_from(self.log_end().saturating_sub(TAIL));
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Where its log ends now.
    pub(super) fn log_end(&self) -> u64 {
        fs::metadata(&self.log).map_or(0, |log| log.len())
    }

    /// Its log from a position on.
    pub(super) fn log_from(&self, position: u64) -> String {
        let mut bytes = Vec::new();
        let read = File::open(&self.log).and_then(|mut file| {
            file.seek(SeekFrom::Start(position))?;
            file.read_to_end(&mut bytes)
        });
        if read.is_err() {
            return String::new();
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// `exited with code 1` or `was killed by SIGKILL`.
pub(super) fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(number)) => match Signal::try_from(number) {
            Ok(signal) => format!("was killed by {signal}"),
            Err(_) => format!("was killed by signal {number}"),
        },
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(dir: &std::path::Path, script: &str) -> Child {
        Child::new("sh", "/bin/sh".into(), vec!["-c".into(), script.into()], dir.join("log"))
    }

    #[tokio::test]
    async fn the_end_is_told_once_and_the_log_has_a_tail() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = shell(dir.path(), "seq 1 100; exit 3");
        child.start().unwrap();
        let status = loop {
            if let Some(status) = child.ended() {
                break status;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(how(status), "exited with code 3");
        assert!(child.ended().is_none());
        assert_eq!(child.tail(2), "99\n100");
        assert_eq!(child.log_from(child.log_end()), "");
    }

    #[tokio::test]
    async fn it_has_a_group_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = shell(dir.path(), "exec sleep 60");
        child.start().unwrap();
        let pid = child.pid().unwrap();
        assert_eq!(nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(pid))).unwrap().as_raw(), pid);
        child.signal(Signal::SIGKILL);
        child.wait().await;
        assert_eq!(child.pid(), None);
    }
}
