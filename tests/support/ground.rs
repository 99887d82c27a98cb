//! What a test stands on: installed programs and free ports. A program that is missing skips the test aloud on a
//! developer's machine, and fails it where nothing may be skipped (`make test`).

#![allow(dead_code, unreachable_pub, reason = "every test binary takes what it needs")]
#![allow(clippy::print_stderr, reason = "a skipped test must be seen")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};

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

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}
