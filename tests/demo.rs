//! `pgherd demo` as `make demo` runs it without a terminal: the whole tour on real servers, then once more on what is
//! there.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "this is all test, of real processes")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A directory that the demo's user can be given, removed at the end together with what may still run in it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("pgherd-tour-").tempdir_in("/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for (pid, _) in processes_of(self.path()) {
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        }
    }
}

/// Every process whose command line or working directory names this directory.
fn processes_of(dir: &Path) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if pid == std::process::id() {
            continue;
        }
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let is_there = fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
        if is_there || line.contains(&*dir.to_string_lossy()) {
            found.push((pid, line));
        }
    }
    found
}

fn demo(dir: &Path, extra: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgherd"));
    command.arg("demo").arg("--dir").arg(dir).args(extra).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The lines without durations, pauses and member names, which differ from run to run.
fn steps(output: &Output) -> Vec<String> {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let steps = stdout.lines().filter(|line| line.starts_with("ok ") || line.starts_with("FAIL "));
    steps.map(|line| line.split("  ").last().unwrap().split(':').next().unwrap().to_owned()).collect()
}

#[test]
fn the_tour_passes_resumes_and_leaves_nothing_running() {
    let place = Place::new();
    let began = Instant::now();
    let first = demo(place.path(), &["--script"]).output().unwrap();
    assert!(first.status.success(), "{}", text(&first));
    println!("{}", text(&first));
    let expected = [
        "start",
        "write rows",
        "switchover",
        "kill -9 postmaster",
        "kill -9 agent and postmaster",
        "rejoin",
        "count rows",
    ];
    assert_eq!(steps(&first), expected, "{}", text(&first));
    assert!(began.elapsed() < Duration::from_secs(240), "the tour took {:?}", began.elapsed());
    assert_eq!(processes_of(place.path()), []);

    resumes_and_stops_when_told(place.path());
    assert_eq!(processes_of(place.path()), []);
}

/// Started again without `--fresh`, the cluster is there with its rows; SIGTERM in the middle stops everything.
fn resumes_and_stops_when_told(dir: &Path) {
    let mut again = demo(dir, &["--script"]).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(again.stdout.take().unwrap()));
    let resumed = lines.by_ref().map_while(Result::ok).find(|line| line.contains("(and 1000 of earlier tours)"));
    let pid = again.id().to_string();
    Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    let ended = again.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(resumed.is_some(), "{rest:?}\n{said}");
    assert!(!ended.status.success() && said.contains("interrupted"), "{said}");
}

#[test]
fn a_directory_with_other_things_in_it_is_refused() {
    let place = Place::new();
    fs::write(place.path().join("thesis.tex"), "years of work").unwrap();
    let output = demo(place.path(), &["--script", "--fresh"]).output().unwrap();
    assert!(!output.status.success());
    assert!(text(&output).contains("thesis.tex"), "{}", text(&output));
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
}
