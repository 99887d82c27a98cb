//! The program on a terminal: colour, and what moves while something is waited for.

use tokio::net::TcpListener;

use crate::program::Program;

async fn program() -> Program {
    let mut program = Program::new().await;
    program.import("healthy").await;
    program
}

const COLOUR: &str = "\u{1b}[";

#[tokio::test(flavor = "multi_thread")]
async fn colour_is_decided_for_each_stream() {
    let program = program().await;
    let xterm = ("TERM", "xterm");
    for (command, environment, is_coloured) in [
        ("list", vec![xterm], true),
        ("list", vec![xterm, ("NO_COLOR", "1")], false),
        ("list", vec![("TERM", "dumb")], false),
        ("list --color never", vec![xterm], false),
        ("list --color always", vec![xterm, ("NO_COLOR", "1")], true),
        // What is a terminal here is the other stream.
        ("list > out; cat out", vec![xterm], false),
        ("list > out; cat out", vec![xterm, ("CLICOLOR_FORCE", "1")], true),
        ("list --color always > out; cat out", vec![xterm], true),
        ("history nosuch > out", vec![xterm], true),
        ("history nosuch 2> out; cat out", vec![xterm], false),
        ("lst", vec![xterm], true),
        ("lst --color never", vec![xterm], false),
        ("lst 2> out; cat out", vec![xterm], false),
        ("edit-config -s ttl=31 --dry-run", vec![xterm], true),
        ("edit-config -s ttl=31 --dry-run --color never", vec![xterm], false),
        ("edit-config -s ttl=31 --dry-run > out; cat out", vec![xterm], false),
    ] {
        let seen = program.on_terminal(command, &environment).await;
        assert_eq!(seen.contains(COLOUR), is_coloured, "{command} {environment:?}: {seen:?}");
        assert!(
            seen.contains("pg1") || seen.contains("nosuch") || seen.contains("lst") || seen.contains("ttl"),
            "{seen:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_long_says_so_on_a_terminal_only() {
    let mut program = program().await;
    // It takes connections and says nothing.
    let silent = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = silent.local_addr().unwrap();
    let member = format!(r#"{{"api_url": "http://{address}/patroni", "state": "running", "role": "replica"}}"#);
    program.put("/service/demo/members/pg2", &member).await;
    let xterm = [("TERM", "xterm")];
    let seen = program.on_terminal("version demo pg2", &xterm).await;
    assert!(seen.contains("asking 1 member") && seen.contains("pg2: no answer"), "{seen:?}");
    for (command, environment) in
        [("version demo pg2 2> out; cat out", xterm), ("version demo pg2", [("TERM", "dumb")])]
    {
        let seen = program.on_terminal(command, &environment).await;
        assert!(!seen.contains("asking") && seen.contains("pg2: no answer"), "{command}: {seen:?}");
    }
}
