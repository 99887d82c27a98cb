//! Completion in the shells that are there, with a store that answers and with one that does not.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::etcd::Server;
use crate::ground::program;

const PROGRAM: &str = env!("CARGO_BIN_EXE_pgherdctl");

fn completions(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("completions").join(file)
}

/// A store with two clusters, and a configuration file with contexts.
struct Scene {
    store: Server,
    home: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let store = Server::embedded(env!("CARGO_BIN_EXE_pgherd"));
        let mut client = etcd_client::Client::connect([store.address()], None).await.unwrap();
        let members = [
            ("pg1", json!({"role": "primary", "state": "running"})),
            ("pg2", json!({"role": "replica", "state": "running"})),
            ("pg3", json!({"role": "replica", "state": "running", "tags": {"nofailover": true}})),
            ("odd name", json!({"role": "replica", "state": "stopped"})),
        ];
        for (name, data) in members {
            client.put(format!("/service/demo/members/{name}"), data.to_string(), None).await.unwrap();
        }
        client.put("/service/demo/leader", "pg1", None).await.unwrap();
        client.put("/service/demo/config", r#"{"ttl": 30, "my": {"own": 1}}"#, None).await.unwrap();
        client.put("/service/other/members/x1", "{}", None).await.unwrap();
        client.put("/service/other/leader", "x1", None).await.unwrap();
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join(".config/pgherd/pgherdctl.yaml");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let text = format!(
            "current-context: main\netcd3: {{host: '{}'}}\ncontexts:\n  main: {{}}\n  second: {{scope: other}}\n",
            store.address()
        );
        std::fs::write(file, text).unwrap();
        Self { store, home }
    }

    /// A shell where a TAB may take as long as a busy machine needs.
    fn shell(&self, shell: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("timeout");
        command.arg("100").arg(shell).env_clear().env("HOME", self.home.path()).env("TERM", "dumb");
        let programs = Path::new(PROGRAM).parent().unwrap().display();
        command.env("PATH", format!("{programs}:/usr/bin:/bin")).env("PGHERDCTL_COMPLETE_TIMEOUT", "60");
        command.stdin(Stdio::null()).current_dir(self.home.path());
        command
    }

    fn bash_command(&self, line: &str) -> Command {
        let name = line.split([' ', '/']).find(|word| word.ends_with("ctl")).unwrap();
        let script = "source \"$1\"; COMP_LINE=$2; COMP_POINT=${#2}; COMP_WORDBREAKS=$' \\t\\n\"\\'><=;|&(:'; \
            \"_$3\" \"${2%% *}\"; printf '%s\\n' \"${COMPREPLY[@]}\"";
        let mut command = self.shell("bash");
        let file = completions(&format!("{name}.bash"));
        command.args(["--norc", "--noprofile", "-c", script, "bash"]).arg(file).args([line, name]);
        command
    }

    /// What bash would offer, sorted.
    fn bash(&self, line: &str) -> String {
        words(&self.bash_command(line).output().unwrap())
    }
}

/// The lines that were said, and nothing beside them.
fn words(output: &Output) -> String {
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "a completion is silent");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    let mut words: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    words.sort_unstable();
    words.join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn bash_offers_what_there_is() {
    let scene = Scene::new().await;
    for (line, expected) in [
        ("pgherdctl sho", "show-config"),
        ("pgherdctl list ", "demo other"),
        ("pgherdctl list demo ", "other"),
        ("pgherdctl remove demo --confirm ", "demo other"),
        ("pgherdctl restart demo ", "odd\\ name pg1 pg2 pg3"),
        ("pgherdctl restart demo pg1 pg", "pg2 pg3"),
        ("pgherdctl restart demo -r leader ", "pg1"),
        ("pgherdctl reinit demo pg", "pg2 pg3"),
        ("pgherdctl reload demo 'od", "odd name"),
        ("pgherdctl flush demo pg1 pg3 p", "pg2"),
        ("pgherdctl flush demo pg1 re", "restart"),
        ("pgherdctl switchover demo --leader ", "pg1"),
        ("pgherdctl switchover demo --primary=", "pg1"),
        ("pgherdctl switchover demo --candidate ", "odd\\ name pg2"),
        ("pgherdctl switchover demo --candidate=pg", "pg2"),
        ("pgherdctl failover demo --force --candidate p", "pg2"),
        // Several clusters, and none is named.
        ("pgherdctl switchover --candidate ", ""),
        ("pgherdctl --context second dsn -m ", "x1"),
        ("pgherdctl query --context=second --member=", "x1"),
        ("pgherdctl --context ", "main second"),
        ("pgherdctl edit-config demo -s tt", "ttl="),
        ("pgherdctl edit-config demo -s my", "my.own="),
        ("pgherdctl list nosuch ", "demo other"),
        ("pgherdctl restart nosuch ", ""),
        ("patronictl restart demo pg", "pg1 pg2 pg3"),
        ("patronictl switchover demo --candidate ", "odd\\ name pg2"),
    ] {
        // The own file is not patronictl's.
        let line = line.replace("patronictl ", &format!("patronictl -d etcd3://{} ", scene.store.address()));
        assert_eq!(scene.bash(&line), expected, "{line}");
    }
    // What the line says of the DCS counts, and a file is the shell's business.
    let elsewhere = format!("{PROGRAM} -d etcd3://127.0.0.1:1 list ");
    assert_eq!(scene.bash(&elsewhere), "");
    assert_eq!(scene.bash("pgherdctl -c nosuch.yml list "), "");
    assert_eq!(scene.bash("pgherdctl edit-config --apply "), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn zsh_and_fish_offer_it_too() {
    let scene = Scene::new().await;
    if let Some(fish) = program("fish", "fish") {
        let offered = |line: &str| {
            let script = "source $argv[1]; complete -C $argv[2]";
            let name = line.split(' ').next().unwrap();
            let file = completions(&format!("{name}.fish"));
            words(&scene.shell(&fish).args(["--no-config", "-c", script]).arg(file).arg(line).output().unwrap())
        };
        assert_eq!(
            offered("pgherdctl restart demo pg"),
            "pg1\tleader, running pg2\treplica, running pg3\treplica, running"
        );
        assert_eq!(offered("pgherdctl switchover demo --candidate=p"), "--candidate=pg2\treplica, running");
        assert_eq!(offered("pgherdctl --context second dsn -m "), "x1\tleader, unknown");
        let file = offered("pgherdctl -c .config/pgherd/");
        assert!(file.starts_with(".config/pgherd/pgherdctl.yaml"), "{file}");
        let theirs = format!("patronictl -d etcd3://{} list o", scene.store.address());
        assert_eq!(offered(&theirs), "other");
    }
    if let Some(zsh) = program("zsh", "zsh") {
        // A terminal of its own: what TAB makes of the line stands there.
        let script = r#"
            zmodload zsh/zpty
            zpty z "$ZSH_PROGRAM -f -i"
            zpty -w z "autoload -Uz compinit; compinit -D -u; source $1; bindkey '^I' complete-word; PS1='ready''> '"
            zpty -r -m z seen '*ready> *'
            zpty -w -n z "$2"$'\t'
            zpty -r -m z seen "*$3*" && print -r -- typed
            zpty -d z
        "#;
        for (line, becomes) in [
            ("pgherdctl switchover demo --cand", "--candidate"),
            ("pgherdctl switchover demo --candidate p", "--candidate pg2"),
            ("pgherdctl switchover demo --candidate=p", "--candidate=pg2"),
            ("pgherdctl reload demo od", "reload demo odd\\\\ name"),
            ("pgherdctl -c .config/pgherd/", ".config/pgherd/pgherdctl.yaml"),
            ("pgherdctl edit-config demo -s my", "my.own="),
            ("patronictl -d etcd3://ADDRESS list o", "list other"),
        ] {
            let line = line.replace("ADDRESS", &scene.store.address());
            let name = line.split(' ').next().unwrap();
            let mut command = scene.shell(&zsh);
            command.env("ZSH_PROGRAM", &zsh).args(["-f", "-c", script, "zsh"]);
            command.arg(completions(&format!("_{name}"))).args([line.as_str(), becomes]);
            assert_eq!(words(&command.output().unwrap()), "typed", "{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_hangs_is_not_waited_for() {
    let scene = Scene::new().await;
    scene.store.freeze();
    for line in ["pgherdctl list ", "pgherdctl restart demo ", "pgherdctl switchover --candidate "] {
        #[allow(clippy::disallowed_methods, reason = "a process runs on the real clock")]
        let start = Instant::now();
        let output = scene.bash_command(line).env_remove("PGHERDCTL_COMPLETE_TIMEOUT").output().unwrap();
        assert_eq!(words(&output), "", "{line}");
        assert!(start.elapsed() < Duration::from_secs(10), "{line}: {:?}", start.elapsed());
    }
    let output = scene.bash_command("pgherdctl li").env_remove("PGHERDCTL_COMPLETE_TIMEOUT").output().unwrap();
    assert!(["list", ""].contains(&words(&output).as_str()), "what needs no store comes, or nothing");
}
