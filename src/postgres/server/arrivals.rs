//! A server that somebody else starts: in maintenance mode operators do. No process tells of it, but its pid file does.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

use crate::postgres::process::{PidFile, Postmaster, readable};

use super::{Inner, blocking};

/// The file that a postmaster writes, line by line, when it starts.
const PID_FILE: &str = "postmaster.pid";

/// A data directory that cannot be watched, because there is none, say, is tried again after this.
const AGAIN: Duration = Duration::from_secs(10);

/// Tells of every change of the pid file, unless it is we who start a server. Never returns; safe to drop at any time.
pub(super) async fn tell(inner: &Inner) {
    loop {
        if let Some(watch) = Watch::begin(inner.site.data_dir()).await {
            // Whoever came while we were about to watch has written it already.
            let is_there = PidFile::read(&watch.data_dir).is_some_and(|file| Postmaster::of(file.pid).is_some());
            let mut is_written = is_there || watch.written().await;
            while is_written {
                if !inner.is_job_running() {
                    inner.events.notify_one();
                }
                is_written = watch.written().await;
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// A data directory whose pid file is watched.
struct Watch {
    data_dir: PathBuf,
    inotify: Inotify,
    /// The same once more, to be waited for.
    readable: AsyncFd<OwnedFd>,
}

impl Watch {
    /// `None`: it cannot be watched.
    async fn begin(data_dir: PathBuf) -> Option<Self> {
        let watched = data_dir.clone();
        // The disk may not answer.
        let begun = blocking(move || {
            let begin = || {
                let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
                let is_gone = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF;
                inotify.add_watch(&watched, AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_ONLYDIR | is_gone)?;
                nix::Result::Ok(inotify)
            };
            Ok(begin().ok())
        });
        let inotify = begun.await.ok()??;
        let readable = readable(inotify.as_fd().try_clone_to_owned().ok()?)?;
        Some(Self { data_dir, inotify, readable })
    }

    /// Waits until the pid file is written. `false`: the directory is not there any more.
    async fn written(&self) -> bool {
        loop {
            let Ok(mut ready) = self.readable.readable().await else { return false };
            let Ok(read) = ready.try_io(|_| self.inotify.read_events().map_err(std::io::Error::from)) else { continue };
            let Ok(events) = read else { return false };
            let is_gone = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_IGNORED;
            if events.iter().any(|event| event.mask.intersects(is_gone)) {
                return false;
            }
            if events.iter().any(|event| event.name.as_deref() == Some(OsStr::new(PID_FILE))) {
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_pid_file_that_is_written_is_told_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("data");
        assert!(Watch::begin(data_dir.clone()).await.is_none());
        std::fs::create_dir(&data_dir).unwrap();
        let watch = Watch::begin(data_dir.clone()).await.unwrap();
        std::fs::write(data_dir.join("postmaster.opts"), "postgres").unwrap();
        assert!(tokio::time::timeout(Duration::ZERO, watch.written()).await.is_err());
        std::fs::write(data_dir.join(PID_FILE), "1\n").unwrap();
        assert!(tokio::time::timeout(LONG, watch.written()).await.unwrap());
        std::fs::remove_dir_all(&data_dir).unwrap();
        assert!(!tokio::time::timeout(LONG, watch.written()).await.unwrap());
    }
}
