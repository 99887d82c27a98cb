//! A note beside the data directory while it is being filled: whoever finds it knows that what lies there is half of
//! something, although PostgreSQL might well start on it.
//!
//! An agent that is killed cannot clean up, and what it ran goes on without it. A directory into which a backup was
//! copied by half may have a control file already; taken for a cluster it would be started, and made known to the DCS.
//! The note cannot lie in the data directory, for `initdb`, `pg_basebackup` and most restore programs want it empty.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use crate::cluster::Unfinished;

use super::programs::Program;
use super::{PgError, process_tree, removal};

/// Suffix of the note.
const SUFFIX: &str = ".unfinished";

/// By this variable those are found that fill a data directory; its value is the directory.
const MARK: &str = "PGHERD_FILLS";

/// Notes that this data directory is being filled from now on. Where nothing can be written beside it there is no note,
/// which is no reason not to fill it.
pub(super) fn note(data_dir: &Path, what: Unfinished) {
    let path = path(data_dir);
    let text = format!(
        "{}\nThe agent has begun to fill {}. As long as this file is there, what is in that directory is taken for half \
         of something and set aside by the next start of the agent; remove this file to have it taken as it is.\n",
        word(what),
        data_dir.display()
    );
    let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| write_through(&path, &text));
    if let Err(error) = written {
        tracing::warn!(
            "{}: {error}; if the agent is killed before {} is complete, the next one cannot know that",
            path.display(),
            data_dir.display()
        );
    }
}

fn write_through(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    let mut file = fs::File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// What the note says, if there is one.
pub(super) fn read(data_dir: &Path) -> Option<Unfinished> {
    let text = match fs::read_to_string(path(data_dir)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!("{}: {error}", path(data_dir).display());
            return None;
        }
    };
    // A note cut short is one all the same, and of the kind that is handled with more care.
    Some(if text.starts_with(word(Unfinished::Clone)) { Unfinished::Clone } else { Unfinished::Bootstrap })
}

/// Removes the note: the data directory is complete, or gone.
pub(super) fn forget(data_dir: &Path) -> Result<(), PgError> {
    let path = path(data_dir);
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(PgError::Io { path: path.display().to_string(), source })
        }
        _ => Ok(()),
    }
}

/// Marks a program as one of those that fill this directory.
pub(super) fn marked(program: Program, data_dir: &Path) -> Program {
    program.env(MARK, mark(data_dir))
}

/// Ends what still fills the directory and takes that out of the way. Half of a new cluster may be all that there is
/// of it; half of a copy is worth nothing.
pub(super) fn discard(data_dir: &Path) -> Result<(), PgError> {
    for pid in left_over(data_dir) {
        tracing::warn!("killing process {pid}, which an agent that died has left filling {}", data_dir.display());
        process_tree::kill_tree(pid);
    }
    let is_copy = read(data_dir) == Some(Unfinished::Clone);
    if is_copy && !data_dir.join("global/pg_control").exists() {
        removal::remove_data_dir(data_dir)?;
    } else if data_dir.exists() {
        removal::set_aside(data_dir)?;
    }
    forget(data_dir)
}

/// The processes that fill this directory, stopped: they start no others any more.
fn left_over(data_dir: &Path) -> Vec<i32> {
    filling(data_dir).into_iter().filter(|pid| process_tree::signal(*pid, Signal::SIGSTOP)).collect()
}

/// The processes that fill this directory.
fn filling(data_dir: &Path) -> Vec<i32> {
    let wanted = format!("{MARK}={}", mark(data_dir));
    let fills = |pid: i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    };
    let living = process_tree::processes().into_iter().filter(|process| !process.is_zombie);
    living.map(|process| process.pid).filter(|pid| fills(*pid)).collect()
}

fn word(what: Unfinished) -> &'static str {
    match what {
        Unfinished::Bootstrap => "bootstrap",
        Unfinished::Clone => "clone",
    }
}

fn mark(data_dir: &Path) -> String {
    std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned()).display().to_string()
}

fn path(data_dir: &Path) -> PathBuf {
    // Without a slash at its end, which would lead into the directory.
    let mut name = data_dir.components().collect::<PathBuf>().into_os_string();
    name.push(SUFFIX);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_util::sync::CancellationToken;

    #[test]
    fn a_note_lies_beside_the_directory_and_says_what_was_begun() {
        let root = tempfile::tempdir().unwrap();
        for (name, what) in [("a", Unfinished::Bootstrap), ("b/", Unfinished::Clone), ("c/d", Unfinished::Clone)] {
            let data_dir = root.path().join(name);
            assert_eq!(read(&data_dir), None);
            note(&data_dir, what);
            assert_eq!(read(&data_dir), Some(what), "{name}");
            assert!(!data_dir.exists(), "{name}");
            forget(&data_dir).unwrap();
            assert_eq!(read(&data_dir), None);
            forget(&data_dir).unwrap();
        }
        fs::write(root.path().join("a.unfinished"), "").unwrap();
        assert_eq!(read(&root.path().join("a")), Some(Unfinished::Bootstrap));
    }

    #[test]
    fn half_of_a_copy_is_removed_and_everything_else_kept() {
        for (what, has_control, is_kept) in [
            (Unfinished::Bootstrap, false, true),
            (Unfinished::Bootstrap, true, true),
            (Unfinished::Clone, true, true),
            (Unfinished::Clone, false, false),
        ] {
            let root = tempfile::tempdir().unwrap();
            let data_dir = root.path().join("data");
            fs::create_dir_all(data_dir.join("global")).unwrap();
            if has_control {
                fs::write(data_dir.join("global/pg_control"), "x").unwrap();
            }
            note(&data_dir, what);
            discard(&data_dir).unwrap();
            assert!(!data_dir.exists() && read(&data_dir).is_none());
            assert_eq!(root.path().join("data.failed/global").exists(), is_kept, "{what:?} {has_control}");
            // Killed after that: there is nothing left to be done.
            note(&data_dir, what);
            discard(&data_dir).unwrap();
            assert_eq!(root.path().join("data.failed/global").exists(), is_kept, "{what:?} {has_control}");
        }
    }

    async fn until(holds: impl Fn() -> bool) {
        let give_up = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
        while !holds() {
            assert!(tokio::time::Instant::now() < give_up, "not within a minute");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn who_fills_a_directory_is_found_with_its_children() {
        let root = tempfile::tempdir().unwrap();
        let data_dir = root.path().join("data");
        let script = |program: Program| tokio::spawn(async move { program.run(&CancellationToken::new()).await });
        let program = Program::script("sh -c 'sleep 600 & wait'").unwrap();
        let other_dir = root.path().join("data2");
        let (ours, other) = (marked(program.clone(), &data_dir), marked(program, &other_dir));
        let (ours, other) = (script(ours), script(other));
        until(|| filling(&data_dir).len() == 2 && filling(&other_dir).len() == 2).await;
        discard(&data_dir).unwrap();
        until(|| filling(&data_dir).is_empty()).await;
        assert_eq!(filling(&other_dir).len(), 2);
        let ended = ours.await.unwrap().unwrap();
        assert_eq!(ended.signal, Some(9), "{ended:?}");
        other.abort();
        let _ = other.await;
    }
}
