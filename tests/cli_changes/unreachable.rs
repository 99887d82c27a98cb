//! Every command there is, under both names, with a DCS that does not answer in one way or another: it ends by itself,
//! soon, says why on stderr, and fails.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use pgherd::ctl::{Cli, Personality};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::etcd::Server;
use crate::ground::free_port;

/// The arguments that bring a command to the DCS, for us and for patronictl. A command without a line here fails the
/// test.
const COMMANDS: [(&str, &str, &str); 19] = [
    ("demote-cluster", "demo --host h --force", "demo --host h --force"),
    ("dsn", "demo", "demo"),
    ("edit-config", "demo -s ttl=31 --force", "demo -s ttl=31 --force"),
    ("failover", "demo --candidate pg2 --force", "demo --candidate pg2 --force"),
    ("flush", "demo switchover", "demo switchover"),
    ("history", "demo", "demo"),
    ("list", "demo", "demo"),
    ("pause", "demo --wait", "demo --wait"),
    ("promote-cluster", "demo --force", "demo --force"),
    ("query", "demo -c SELECT", "demo -c SELECT"),
    ("reinit", "demo pg2 --force", "demo pg2 --force"),
    ("reload", "demo --force", "demo --force"),
    ("remove", "demo --confirm=demo", "demo"),
    ("restart", "demo --force", "demo --force"),
    ("resume", "demo --wait", "demo --wait"),
    ("show-config", "demo", "demo"),
    ("switchover", "demo --force", "demo --force"),
    ("topology", "demo", "demo"),
    ("version", "demo", "demo"),
];

/// So many at once: each of them only waits.
const AT_ONCE: usize = 12;

/// The programs promise five seconds; the machine may be slow to start them.
const BY_ITSELF: Duration = Duration::from_secs(15);

async fn every_command_fails(what: &str, address: &str) {
    let home = tempfile::tempdir().unwrap();
    let theirs = home.path().join("patronictl");
    symlink(env!("CARGO_BIN_EXE_pgherdctl"), &theirs).unwrap();
    let ours = Path::new(env!("CARGO_BIN_EXE_pgherdctl"));
    let (slots, mut runs) = (Arc::new(Semaphore::new(AT_ONCE)), tokio::task::JoinSet::new());
    for (personality, program) in [(Personality::Pgherdctl, ours), (Personality::Patronictl, &theirs)] {
        for sub in Cli::clap(personality).get_subcommands().filter(|sub| !sub.is_hide_set()) {
            let name = sub.get_name();
            let line = COMMANDS.iter().find(|(command, _, _)| *command == name);
            let (_, own, other) = line.unwrap_or_else(|| panic!("{name} is new: what are its arguments?"));
            let args = if personality.is_patronictl() { other } else { own };
            let mut command = Command::new(program);
            command.args(["-d", &format!("etcd3://{address}"), name]).args(args.split(' '));
            command.env_clear().env("HOME", home.path()).stdin(Stdio::null()).kill_on_drop(true);
            let (slots, label) = (slots.clone(), format!("{} {name} {args}", personality.program()));
            runs.spawn(async move {
                let _slot = slots.acquire_owned().await.unwrap();
                let began = Instant::now();
                let output = tokio::time::timeout(Duration::from_secs(90), command.output()).await;
                (label, output.map(Result::unwrap), began.elapsed())
            });
        }
    }
    let mut count = 0;
    for (label, output, took) in runs.join_all().await {
        let output = output.unwrap_or_else(|_| panic!("{label} does not end, {what}"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(took < BY_ITSELF, "{label} took {took:?}, {what}");
        let code = if label.starts_with("patronictl") { 1 } else { 7 };
        assert_eq!(output.status.code(), Some(code), "{label}, {what}: {said}");
        assert!(said.contains("could not read") && said.contains("demo"), "{label}, {what}: {said}");
        count += 1;
    }
    assert_eq!(count, 2 * COMMANDS.len());
}

#[test]
fn every_line_is_a_command() {
    let command = Cli::clap(Personality::Pgherdctl);
    let known: BTreeSet<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    assert!(COMMANDS.iter().all(|(name, _, _)| known.contains(name)));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_listens() {
    every_command_fails("connections are refused", &format!("127.0.0.1:{}", free_port())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_frozen() {
    let store = Server::embedded(env!("CARGO_BIN_EXE_pgherd"));
    store.freeze();
    every_command_fails("the server is frozen", &store.address()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_listens_and_says_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mute = tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            held.push(listener.accept().await.unwrap());
        }
    });
    every_command_fails("connections are taken and nothing is said", &address).await;
    mute.abort();
}
