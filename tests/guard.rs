//! The guard as a process: what it does at its deadline, whose orders it keeps, and when it ends.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![allow(clippy::disallowed_methods, reason = "processes live by the real clock")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pgherd::agent::guard::{Order, address};
use pgherd::io::clock::since_boot;
use pgherd::postgres::process::Postmaster;
use pgherd::postgres::process_tree;

const LONG: Duration = Duration::from_secs(10);

/// A process that dies with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        process_tree::kill_tree(self.0.id().cast_signed());
        let _ = self.0.wait();
    }
}

impl Process {
    fn start(program: &str, args: &[&str]) -> Self {
        Self(Command::new(program).args(args).stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn guard(data_dir: &Path) -> Self {
        Self::start(env!("CARGO_BIN_EXE_pgherd"), &["guard", "--data-dir", data_dir.to_str().unwrap()])
    }

    fn known(&self) -> Postmaster {
        Postmaster::of(self.0.id().cast_signed()).unwrap()
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let give_up = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < give_up, "not within {LONG:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn connect(data_dir: &Path) -> UnixStream {
    let address = address(data_dir).unwrap();
    let mut found = None;
    wait("the guard listens", || {
        found = UnixStream::connect_addr(&address).ok();
        found.is_some()
    });
    found.unwrap()
}

fn say(stream: &UnixStream, line: &str) -> String {
    (&*stream).write_all(format!("{line}\n").as_bytes()).unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    answer.trim_end().to_owned()
}

fn arm(stream: &UnixStream, after: Duration, process: &Process) {
    let order = Order::arm(since_boot() + after, Some(process.known()));
    assert_eq!(say(stream, &order.to_string()), format!("ok {order}"));
}

#[test]
fn a_broken_connection_leaves_the_deadline_and_suspended_families_die() {
    let dir = tempfile::tempdir().unwrap();
    let mut guard = Process::guard(dir.path());
    // Deaf to the server's own way of stopping, with a child, and both suspended.
    let stubborn = Process::start("/bin/sh", &["-c", "trap '' QUIT; sleep 61; :"]);
    let head = stubborn.known();
    wait("the child runs", || !process_tree::descendants(head.pid).is_empty());
    let child = Postmaster::of(process_tree::descendants(head.pid)[0].pid).unwrap();
    for process in [head, child] {
        process.signal(Signal::SIGSTOP);
    }
    let stream = connect(dir.path());
    arm(&stream, Duration::from_millis(300), &stubborn);
    drop(stream);
    assert!(head.is_alive() && child.is_alive());
    wait("the family is dead", || !head.is_alive() && !child.is_alive());
    wait("the guard ends when nobody needs it", || guard.has_ended());
}

#[test]
fn orders_in_time_keep_the_server_whoever_gives_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut guard = Process::guard(dir.path());
    let server = Process::start("/bin/sleep", &["62"]);
    let first = connect(dir.path());
    arm(&first, Duration::from_millis(400), &server);
    drop(first);
    let second = connect(dir.path());
    arm(&second, Duration::from_millis(900), &server);
    // Another guard of the same directory has nothing to do.
    let mut another = Process::guard(dir.path());
    wait("the second guard ends", || another.has_ended());
    std::thread::sleep(Duration::from_millis(500));
    assert!(server.known().is_alive(), "the first deadline was replaced");
    assert_eq!(say(&second, "disarm"), "ok disarm");
    assert!(say(&second, "nonsense").starts_with("error"));
    std::thread::sleep(Duration::from_millis(600));
    assert!(server.known().is_alive(), "nothing was to be stopped");
    assert!(!guard.has_ended(), "somebody is connected");
}

#[test]
fn a_suspended_guard_hears_before_it_acts() {
    let dir = tempfile::tempdir().unwrap();
    let guard = Process::guard(dir.path());
    let server = Process::start("/bin/sleep", &["63"]);
    let stream = connect(dir.path());
    arm(&stream, Duration::from_millis(300), &server);
    guard.known().signal(Signal::SIGSTOP);
    let order = Order::arm(since_boot() + LONG, Some(server.known()));
    (&stream).write_all(format!("{order}\n").as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    guard.known().signal(Signal::SIGCONT);
    assert_eq!(say(&stream, "disarm"), format!("ok {order}"));
    assert!(server.known().is_alive());
}

#[test]
fn what_was_started_after_the_deadline_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let _guard = Process::guard(dir.path());
    let stream = connect(dir.path());
    let deadline = since_boot();
    std::thread::sleep(Duration::from_millis(50));
    let server = Process::start("/bin/sleep", &["64"]);
    let order = Order::arm(deadline, Some(server.known()));
    assert_eq!(say(&stream, &order.to_string()), format!("ok {order}"));
    std::thread::sleep(Duration::from_millis(300));
    assert!(server.known().is_alive());
}
