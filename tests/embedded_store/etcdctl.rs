//! Through etcdctl.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use tempfile::tempdir;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::ground::{free_port, program};
use crate::support::{Program, connect, within};

struct Tool {
    endpoint: String,
}

impl Tool {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.endpoint, "--command-timeout=10s"]).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// What a call that must work prints.
    fn ok(&self, arguments: &[&str]) -> String {
        self.ok_with(arguments, "")
    }

    fn ok_with(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run(arguments, input);
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success(), "{arguments:?}: {out}{err}");
        out
    }

    /// What a call that must fail complains about.
    fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments, "");
        assert!(!output.status.success(), "{arguments:?} works");
        String::from_utf8(output.stderr).unwrap()
    }
}

async fn start(dir: &std::path::Path) -> Option<(Program, Tool)> {
    program("etcdctl", "etcd-client")?;
    let store = Program::store(dir, free_port());
    connect(store.address).await;
    let tool = Tool { endpoint: store.address.to_string() };
    Some((store, tool))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_covered_calls_work() {
    let dir = tempdir().unwrap();
    let Some((_store, tool)) = start(dir.path()).await else { return };
    assert_eq!(tool.ok(&["put", "/a/1", "x"]), "OK\n");
    tool.ok(&["put", "/a/2", "y"]);
    assert_eq!(tool.ok(&["get", "--prefix", "/a/"]), "/a/1\nx\n/a/2\ny\n");
    assert_eq!(tool.ok(&["get", "/a/1", "--rev", "2", "--print-value-only"]), "x\n");
    assert_eq!(tool.ok(&["put", "--prev-kv", "/a/1", "z"]), "OK\n/a/1\nx\n");
    assert_eq!(tool.ok(&["del", "--prefix", "/a/"]), "2\n");
    let txn = "create(\"/t\") = \"0\"\n\nput /t 1\nget /t\n\nget /t\n\n";
    assert_eq!(tool.ok_with(&["txn"], txn), "SUCCESS\n\nOK\n\n/t\n1\n");
    assert_eq!(tool.ok_with(&["txn"], txn), "FAILURE\n\n/t\n1\n");
    assert!(tool.ok(&["compaction", "4"]).contains("compacted revision 4"));

    let granted = tool.ok(&["lease", "grant", "60"]);
    let lease = granted.split_whitespace().nth(1).unwrap();
    assert_eq!(lease.len(), 16, "{granted}");
    tool.ok(&["put", "/l", "v", "--lease", lease]);
    assert!(tool.ok(&["lease", "keep-alive", "--once", lease]).contains("keepalived with TTL(60)"));
    let left = tool.ok(&["lease", "timetolive", lease, "--keys"]);
    assert!(left.contains("granted with TTL(60s)") && left.contains("/l"), "{left}");
    assert!(tool.ok(&["lease", "list"]).contains(lease));
    tool.ok(&["lease", "revoke", lease]);
    assert_eq!(tool.ok(&["get", "/l"]), "");

    assert!(tool.ok(&["endpoint", "status", "-w", "json"]).contains("\"leader\""));
    assert!(tool.run(&["endpoint", "health"], "").status.success());
    assert!(tool.ok(&["member", "list"]).contains(&format!("http://{}", tool.endpoint)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_prints_what_happens() {
    let dir = tempdir().unwrap();
    let Some((_store, tool)) = start(dir.path()).await else { return };
    tool.ok(&["put", "/w/1", "before"]);
    let mut command = tokio::process::Command::from(tool.command(&["watch", "--prefix", "/w/", "--rev", "2"]));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || within(lines.next_line()).await.unwrap().unwrap();
    assert_eq!([next().await, next().await, next().await], ["PUT", "/w/1", "before"]);
    tool.ok(&["put", "/w/1", "after"]);
    tool.ok(&["del", "/w/1"]);
    assert_eq!([next().await, next().await, next().await], ["PUT", "/w/1", "after"]);
    assert_eq!([next().await, next().await], ["DELETE", "/w/1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_not_covered_fail_by_name() {
    let dir = tempdir().unwrap();
    let Some((_store, tool)) = start(dir.path()).await else { return };
    let file = dir.path().join("snapshot.db").display().to_string();
    for (arguments, method) in [
        (&["auth", "enable"][..], "Auth/AuthEnable"),
        (&["alarm", "list"], "Maintenance/Alarm"),
        (&["snapshot", "save", &file], "Maintenance/Snapshot"),
        (&["user", "list"], "Auth/UserList"),
        (&["defrag"], "Maintenance/Defragment"),
        (&["member", "add", "n2", "--peer-urls", "http://127.0.0.1:1"], "Cluster/MemberAdd"),
    ] {
        let complaint = tool.fails(arguments);
        assert!(complaint.contains("Unimplemented") && complaint.contains(method), "{arguments:?}: {complaint}");
    }
    // As with an etcd without users, the tool takes this answer as leave to go on without.
    tool.ok(&["--user", "root:secret", "get", "k"]);
}
