//! What only happens at a terminal, or to a process: the pager, and Ctrl-C.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::etcd::Server;
use crate::fake_member::{FakeMember, Script};

const PROGRAM: &str = env!("CARGO_BIN_EXE_pgherdctl");

/// A store with a cluster of two members.
struct Scene {
    store: Server,
    members: [FakeMember; 2],
    home: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let store = Server::embedded(env!("CARGO_BIN_EXE_pgherd"));
        let members = [FakeMember::start().await, FakeMember::start().await];
        let mut client = etcd_client::Client::connect([store.address()], None).await.unwrap();
        for (number, member) in (1..).zip(&members) {
            let data = json!({"api_url": member.api_url(), "role": "replica", "state": "running"});
            client.put(format!("/service/demo/members/pg{number}"), data.to_string(), None).await.unwrap();
        }
        client.put("/service/demo/leader", "pg1", None).await.unwrap();
        let parameters: serde_json::Map<_, _> = (0..20).map(|n| (format!("my.value{n}"), json!(n))).collect();
        // So long that no wait for the members ends by itself.
        let config = json!({"ttl": 300, "loop_wait": 120, "postgresql": {"parameters": parameters}});
        client.put("/service/demo/config", config.to_string(), None).await.unwrap();
        client.put("/service/tiny/config", r#"{"ttl": 30}"#, None).await.unwrap();
        Self { store, members, home: tempfile::tempdir().unwrap() }
    }

    /// Runs a line of the shell on a terminal of ten rows; `@ctl` is the program.
    fn on_a_terminal(&self, line: &str, environment: &[(&str, &str)]) -> Output {
        let program = self.home.path().join(if line.contains("@patronictl") { "patronictl" } else { "pgherdctl" });
        let _ = std::os::unix::fs::symlink(PROGRAM, &program);
        let program = format!("{} -d etcd3://{}", program.display(), self.store.address());
        let line = line.replace("@patronictl", &program).replace("@ctl", &program);
        let mut command = Command::new("timeout");
        command.args(["60", "script", "-qec"]).arg(format!("stty rows 10 cols 80; {line}")).arg("/dev/null");
        command.env_clear().env("HOME", self.home.path()).env("TERM", "xterm").env("PATH", "/usr/bin:/bin");
        // `script` would end with an empty input.
        command.envs(environment.iter().copied()).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take();
        let output = child.wait_with_output().unwrap();
        drop(input);
        output
    }

    fn seen(&self, line: &str, environment: &[(&str, &str)]) -> String {
        let output = self.on_a_terminal(line, environment);
        let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        assert!(output.status.success(), "{line}: {text}");
        text
    }
}

/// Marks what went through it.
const MARK: (&str, &str) = ("PGHERDCTL_PAGER", "sed s/^/|/");

#[tokio::test(flavor = "multi_thread")]
async fn a_pager_for_what_is_longer_than_the_screen() {
    let scene = Scene::new().await;
    let long = "@ctl show-config demo";
    let paged = scene.seen(long, &[MARK]);
    assert!(paged.lines().all(|line| line.starts_with('|')) && paged.contains("|    my.value19: 19"), "{paged}");
    assert!(scene.seen(long, &[("PAGER", MARK.1)]).contains("|    my.value19"), "everybody's pager");
    let edit = "@ctl edit-config demo --replace /dev/null --apply new.yml --dry-run --force";
    let new = format!("cd {}; echo 'ttl: 31' > new.yml; echo '{{}}' > empty.yml;", scene.home.path().display());
    let edit = format!("{new} {}", edit.replace("/dev/null", "empty.yml"));
    assert!(scene.seen(&edit, &[MARK]).contains("|"), "a difference too");

    for (line, environment) in [
        ("@ctl show-config tiny", vec![MARK]),
        (long, vec![("PGHERDCTL_PAGER", ""), ("PAGER", MARK.1)]),
        (long, vec![("PGHERDCTL_PAGER", "cat"), ("PAGER", MARK.1)]),
        (long, vec![("PGHERDCTL_PAGER", "/nosuch/pager")]),
        // No pager and no less either.
        (long, vec![("PATH", "/nosuch")]),
        ("@ctl --no-pager show-config demo", vec![MARK]),
        ("@ctl show-config demo --no-pager", vec![MARK]),
        ("@ctl show-config demo | cat", vec![MARK]),
        ("@patronictl show-config demo", vec![MARK, ("PAGER", MARK.1)]),
    ] {
        // The shell itself needs none of the path.
        let line = if environment[0].0 == "PATH" { format!("PATH=/nosuch; {line}") } else { line.to_owned() };
        let environment: Vec<_> = environment.into_iter().filter(|(name, _)| *name != "PATH").collect();
        let seen = scene.seen(&line, &environment);
        assert!(!seen.contains('|') && !seen.trim().is_empty(), "{line} {environment:?}: {seen}");
    }
    // Nobody reads on: no complaint, no failure.
    let seen = scene.seen("@ctl show-config demo | head -1", &[]);
    assert!(seen.starts_with("loop_wait: 120\n"), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn patronictl_pages_differences_only() {
    let scene = Scene::new().await;
    let edit = "yes | @patronictl edit-config tiny -s ttl=31";
    let paged = scene.seen(edit, &[("PAGER", "cat")]);
    assert!(paged.contains("+ttl: ") && paged.contains("Configuration changed"), "{paged}");
    let output = scene.on_a_terminal("PATH=/nosuch; @patronictl edit-config tiny -s ttl=32 --force", &[]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("Error: No pager could be found.") && !output.status.success(), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interruption_says_what_goes_on() {
    let scene = Scene::new().await;
    scene.members[0].will("POST /restart", Script::Hang);
    scene.members[0].will("POST /switchover", Script::Hang);
    for (format, words) in [
        ("pretty", "restart demo --force"),
        ("json", "restart demo --force"),
        ("pretty", "switchover demo --candidate pg2 --force"),
    ] {
        let asked = scene.members[0].asked().len();
        let mut command = Command::new(PROGRAM);
        command.args(["-d", &format!("etcd3://{}", scene.store.address())]).args(words.split(' '));
        command.args(["-f", format]).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let deadline = now() + Duration::from_secs(60);
        while scene.members[0].asked().len() == asked {
            assert!(now() < deadline, "{words}: no request came");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(8), "{words}: {stderr}");
        let what = if words.starts_with("restart") { "restart of pg1" } else { "switchover of cluster demo" };
        let said = format!("interrupted: {what} has been requested, and goes on without this command");
        assert!(stderr.contains(&said), "{stderr}");
        assert!(!words.starts_with("restart") || stderr.contains("not asked yet: pg2"), "{stderr}");
        if format == "json" {
            let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert!(document.to_string().contains("has been requested"), "{document}");
        }
        scene.members[0].will("POST /restart", Script::Hang);
    }
}

/// What was asked for is being done; only its end is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_wait_says_what_goes_on() {
    let scene = Scene::new().await;
    let copying = json!({"state": "creating replica", "role": "replica"}).to_string();
    for _ in 0..120 {
        scene.members[1].will("GET /patroni", Script::Say(200, copying.clone()));
    }
    for (words, waits, what) in [
        ("reinit demo pg2 --force --wait", "Waiting for reinitialize to complete on: pg2", "reinitialization of pg2"),
        ("pause demo --wait", "waiting until it is recognized by all nodes", "pause of cluster demo"),
    ] {
        for program in ["pgherdctl", "patronictl"] {
            let program = scene.home.path().join(program);
            let _ = std::os::unix::fs::symlink(PROGRAM, &program);
            let mut command = Command::new(&program);
            command.args(["-d", &format!("etcd3://{}", scene.store.address())]).args(words.split(' '));
            command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let is_ours = program.ends_with("pgherdctl");
            let mut child = command.spawn().unwrap();
            let stream: Box<dyn Read + Send> =
                if is_ours { Box::new(child.stderr.take().unwrap()) } else { Box::new(child.stdout.take().unwrap()) };
            let mut lines = BufReader::new(stream).lines();
            assert!(lines.by_ref().any(|line| line.unwrap().contains(waits)), "{words}: it does not wait");
            kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
            let rest: Vec<String> = lines.map(Result::unwrap).collect();
            let output = child.wait_with_output().unwrap();
            let said = format!("{}\n{}", rest.join("\n"), String::from_utf8(output.stderr).unwrap());
            assert_eq!(output.status.code(), Some(if is_ours { 8 } else { 1 }), "{words}: {said}");
            let goes_on = format!("interrupted: {what} has been requested, and goes on without this command");
            assert_eq!(said.contains(&goes_on), is_ours, "{words}: {said}");
            assert!(!said.contains(&format!("done: {what}")), "{said}");
            assert!(said.contains(if is_ours { "`list demo` shows how it goes on" } else { "Aborted!" }), "{said}");
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "a process runs on the real clock")]
fn now() -> Instant {
    Instant::now()
}
