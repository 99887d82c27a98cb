//! The real program, for what only a process has: its exit code and its way to the DCS.

use std::path::Path;
use std::time::{Duration, Instant};

use assert_cmd::Command;

use crate::stage::config_file;

fn program(config: &Path, args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("pgherdctl").unwrap();
    command.arg("-c").arg(config).args(args).env_clear();
    command.timeout(Duration::from_secs(20));
    command
}

#[test]
fn without_the_dcs_a_change_fails_in_time() {
    #[allow(clippy::disallowed_methods, reason = "a process runs on the real clock")]
    let now = Instant::now;
    // Nobody listens on the port of the DCS in it.
    let file = config_file("demo", "");
    for command in [
        &["switchover", "--force"][..],
        &["failover", "--candidate", "pg2", "--force"],
        &["restart", "demo", "--force"],
        &["reload", "demo", "--force"],
        &["reinit", "demo", "pg2", "--force"],
        &["pause"],
        &["resume"],
    ] {
        let start = now();
        let output = program(file.path(), command).assert().code(7).get_output().clone();
        assert!(start.elapsed() < Duration::from_secs(5), "{command:?} took {:?}", start.elapsed());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("cluster demo"), "{command:?}: {stderr}");
    }
}

#[test]
fn wrong_usage_exits_2() {
    let program = |args: &[&str]| program(Path::new("nosuch.yml"), args);
    program(&["restart"]).assert().code(2);
    program(&["switchover", "--frobnicate"]).assert().code(2);
    program(&["reload", "demo", "--role", "king"]).assert().code(2);
}
