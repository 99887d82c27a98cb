//! Tests with real servers. PostgreSQL refuses to run as root, and CI is root: such a test runs itself again as the
//! user `postgres`, the whole test process with it, so that every program it starts and every file is that user's.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::ground::postgres_programs;

/// The user that tests become.
const USER: &str = "postgres";

/// No test takes longer.
const LIMIT: Duration = Duration::from_secs(180);

/// Runs the test `name` of this test binary: here, or as the unprivileged user if we are root. A machine without
/// PostgreSQL skips it loudly.
pub(crate) fn run(name: &str, test: impl Future<Output = ()>) {
    if postgres_programs().is_none() {
        return;
    }
    if nix::unistd::geteuid().is_root() {
        return again(name);
    }
    let _ = tracing_subscriber::fmt().with_writer(std::io::stderr).without_time().try_init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(LIMIT, test).await.expect("the test did not end in time") });
}

fn again(name: &str) {
    let home = tempfile::tempdir().unwrap();
    let user = nix::unistd::User::from_name(USER).unwrap().expect("there is a user postgres");
    nix::unistd::chown(home.path(), Some(user.uid), Some(user.gid)).unwrap();
    let (_copy, program) = reachable_program(&std::env::current_exe().unwrap());
    let status = as_user()
        .arg(&program)
        .args([name, "--exact", "--nocapture"])
        .current_dir(home.path())
        .env("HOME", home.path())
        .env("TMPDIR", home.path())
        .status()
        .unwrap();
    assert!(status.success(), "{name} failed as user {USER}");
}

fn as_user() -> Command {
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={USER}"), &format!("--regid={USER}"), "--init-groups"]);
    command
}

/// The test program, copied if it lies below a directory that the user may not enter.
fn reachable_program(program: &Path) -> (Option<tempfile::TempDir>, PathBuf) {
    if as_user().arg("test").arg("-x").arg(program).status().is_ok_and(|status| status.success()) {
        return (None, program.to_owned());
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = directory.path().join("test");
    std::fs::copy(program, &copy).unwrap();
    (Some(directory), copy)
}
