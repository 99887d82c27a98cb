//! What a test stands on: installed programs and free ports. A program that is missing skips the test aloud on a
//! developer's machine, and fails it where nothing may be skipped (`make test`).

#![allow(dead_code, unreachable_pub, reason = "every test binary takes what it needs")]
#![allow(clippy::print_stderr, reason = "a skipped test must be seen")]

use std::fs::File;
use std::net::TcpListener;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Set by `make test`: a test that would be skipped because a program is missing fails instead.
pub const NO_SKIP: &str = "PGHERD_TEST_NO_SKIP";

/// Whether tests that need this can run.
pub fn is_there<T>(found: Option<T>, what: &str, package: &str) -> Option<T> {
    if found.is_none() {
        assert!(std::env::var_os(NO_SKIP).is_none(), "{what} is missing (apt-get install {package}); {NO_SKIP} is set");
        eprintln!("SKIPPED: {what} is missing (apt-get install {package})");
    }
    found
}

/// The path of a program, looked for on `PATH`.
pub fn program(name: &str, package: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    is_there(std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file()), name, package)
}

/// The directory of the newest PostgreSQL of Debian's packages.
pub fn postgres_programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let number = |dir: &Path| dir.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions
        .map(|entry| entry.path())
        .filter(|dir| dir.join("bin/postgres").exists())
        .max_by_key(|dir| number(dir))
        .map(|dir| dir.join("bin"));
    is_there(newest, "PostgreSQL", "postgresql")
}

/// Below those that the system lends to outgoing connections, which would take one in the moment before its server does.
const PORTS: RangeInclusive<u16> = 20_000..=31_999;

/// A free port, this process's own until it ends: tests that run beside each other hold a lock for each of theirs.
pub fn free_port() -> u16 {
    static HELD: Mutex<Vec<File>> = Mutex::new(Vec::new());
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    let locks = std::env::temp_dir().join(format!("pgherd-test-ports-{}", nix::unistd::geteuid()));
    std::fs::create_dir_all(&locks).expect("the directory for temporary files can be written");
    // Neighbours begin at different places, so that they need not try each other's.
    let (from, count) = (std::process::id() as usize * 97, PORTS.len());
    for port in PORTS.cycle().skip(from % count).take(count) {
        let lock = File::create(locks.join(port.to_string())).expect("a lock file can be made");
        if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            held.push(lock);
            return port;
        }
    }
    panic!("no port of {PORTS:?} is free");
}
