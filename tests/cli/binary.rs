//! The program itself: only the wiring, everything else is tested in-process.

use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_pgherdctl");

#[test]
fn the_name_decides_the_personality() {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("patronictl");
    symlink(PROGRAM, &link).unwrap();
    let theirs = Command::new(&link).arg("version").env_clear().output().unwrap();
    assert_eq!(String::from_utf8_lossy(&theirs.stdout), "patronictl version 4.1.5\n");
    let ours = Command::new(PROGRAM).arg("version").env_clear().output().unwrap();
    assert!(ours.stdout.starts_with(b"pgherdctl "), "{ours:?}");
    for (program, persona, says) in [
        (Path::new(PROGRAM), "patronictl", "patronictl version 4.1.5\n"),
        (link.as_path(), "pgherdctl", "pgherdctl "),
        (link.as_path(), "somebody", "patronictl version"),
    ] {
        let chosen =
            Command::new(program).arg("version").env_clear().env("PGHERDCTL_PERSONA", persona).output().unwrap();
        assert!(String::from_utf8_lossy(&chosen.stdout).starts_with(says), "{persona}: {chosen:?}");
    }
    let wrong = Command::new(&link).arg("nosuch").env_clear().output().unwrap();
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
}

#[test]
fn a_closed_pipe_is_a_quiet_end() {
    let mut child =
        Command::new(PROGRAM).arg("version").env_clear().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let status = child.wait().unwrap();
    assert_eq!((said.as_str(), status.code()), ("", Some(0)));
}
