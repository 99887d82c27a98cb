//! `-f` on every command of our personality. Documents are held to their schemas wherever a test runs a command.

use serde_json::{Value, json};

use crate::bench::{Bench, Said};

async fn run(bench: &Bench, command: &str) -> Said {
    let words: Vec<String> = format!("pgherdctl -c ctl.yml {command}").split(' ').map(str::to_owned).collect();
    bench.run(&words, &[], "").await
}

async fn document(bench: &Bench, command: &str) -> Value {
    let said = run(bench, command).await;
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{command}: {error}: {said:?}"))
}

#[tokio::test]
async fn whatever_shows_something_shows_it_in_every_format() {
    let bench = Bench::new();
    bench.import("history");
    for command in ["list", "topology", "history", "show-config", "dsn", "version"] {
        for format in ["pretty", "tsv", "json", "yaml", "name"] {
            let said = run(&bench, &format!("{command} -f {format}")).await;
            assert!(said.exit == 0 && !said.stdout.trim().is_empty(), "{command} {format}: {said:?}");
        }
    }
    assert_eq!(run(&bench, "list -f name").await.stdout, "pg1\npg2\npg3\n");
    assert_eq!(run(&bench, "history -f name").await.stdout, "demo\n");
    assert_eq!(run(&bench, "show-config -f name").await.stdout, "demo\n");
    assert_eq!(run(&bench, "dsn -m pg2 -f name").await.stdout, "pg2\n");
    assert_eq!(run(&bench, "version -f name").await.stdout, "pgherdctl\n");
    bench.import("syn_gl");
    let both = run(&bench, "list demo gl -f name").await.stdout;
    assert!(both.lines().all(|line| line.starts_with("demo/") || line.starts_with("gl/")), "{both}");
    let settings = run(&bench, "show-config -f tsv").await.stdout;
    assert!(settings.contains("\npostgresql.use_slots\ttrue\n"), "{settings}");
    let dsn = document(&bench, "dsn -r leader -f json").await;
    assert_eq!((&dsn["role"], &dsn["host"]), (&json!("leader"), &json!("127.0.0.1")), "{dsn}");
}

#[tokio::test]
async fn names_are_those_of_the_members_that_did_it() {
    let bench = Bench::new();
    bench.import("syn_gl");
    let changed = run(&bench, "edit-config gl -s ttl=31 --force -f name").await;
    assert_eq!((changed.stdout.as_str(), changed.exit), ("gl\n", 0), "{changed:?}");
    let failed = run(&bench, "history nosuch -f name").await;
    assert!(failed.stdout.is_empty() && failed.stderr.contains("nothing is known"), "{failed:?}");
    let failed = run(&bench, "history nosuch -f tsv").await;
    assert!(failed.stdout.is_empty() && failed.stderr.contains("nothing is known"), "{failed:?}");
    let failed = run(&bench, "edit-config gl -s =5 --force -f name").await;
    assert!(failed.stdout.is_empty() && failed.exit == 2, "{failed:?}");
}

#[tokio::test]
async fn what_is_wrong_with_a_command_line_is_a_document_too() {
    let bench = Bench::new();
    for (command, word, next) in [
        ("list --nosuch -f json", json!("list"), "see `pgherdctl list --help`"),
        ("lst -f json", Value::Null, "'list'"),
        ("-f json", Value::Null, "see `pgherdctl --help`"),
        ("restart -f json", json!("restart"), "see `pgherdctl restart --help`"),
        ("switchover demo --schedule now -f json", json!("switchover"), "--scheduled"),
        ("list --color=alway -f json", json!("list"), "always"),
        ("query --format json --nosuch", json!("query"), "see `pgherdctl query --help`"),
    ] {
        let said = run(&bench, command).await;
        let seen: Value = serde_json::from_str(&said.stdout).unwrap_or_else(|e| panic!("{command}: {e}: {said:?}"));
        let head = json!([seen["kind"], seen["command"], seen["result"], seen["exit"]]);
        assert_eq!((said.exit, head), (2, json!(["Error", word, "usage", 2])), "{command}: {said:?}");
        assert!(seen["next"].as_str().unwrap().contains(next), "{command}: {seen}");
        assert!(!seen["message"].as_str().unwrap().contains("Usage:"), "{command}: {seen}");
        assert!(said.stderr.contains("error: ") || said.stderr.contains("Usage:"), "{command}: {said:?}");
    }
    let said = run(&bench, "list --nosuch -f tsv").await;
    assert!(said.stdout.is_empty() && said.exit == 2, "{said:?}");
    let help = run(&bench, "list --help -f json").await;
    assert!(help.exit == 0 && help.stdout.contains("Usage:"), "{help:?}");
}

#[tokio::test]
async fn members_that_should_be_there_are_missed() {
    let bench = Bench::new();
    bench.import("quorum");
    let before = document(&bench, "list -f json").await;
    let cluster = &before["clusters"][0];
    assert_eq!((&cluster["missing_members"], &cluster["synchronous_mode"]), (&json!([]), &json!("quorum")));
    assert!(!cluster["sync"]["standbys"].as_array().unwrap().is_empty(), "{cluster}");
    let gone = cluster["sync"]["standbys"][0].as_str().unwrap().to_owned();
    bench.store.delete(&format!("/service/demo/members/{gone}"));
    let after = document(&bench, "list -f json").await;
    let missing = &after["clusters"][0]["missing_members"];
    assert_eq!(json!([missing[0]["name"], missing[0]["known_from"], missing[1]]), json!([gone, "sync", null]));

    // Without synchronous replication the leader keeps a slot for it, and in the end only an earlier list knows of it.
    bench.import("healthy");
    assert_eq!(document(&bench, "list -f json").await["clusters"][0]["missing_members"], json!([]));
    bench.store.delete("/service/demo/members/pg3");
    let after = document(&bench, "list -f json").await;
    let missing = &after["clusters"][0]["missing_members"];
    assert_eq!(json!([missing[0]["name"], missing[0]["known_from"], missing[1]]), json!(["pg3", "slot", null]));
    bench.store.put("/service/demo/status", r#"{"optime": 67509320}"#);
    for _ in 0..2 {
        let after = document(&bench, "list -f json").await;
        let missing = &after["clusters"][0]["missing_members"][0];
        assert_eq!((&missing["name"], &missing["known_from"]), (&json!("pg3"), &json!("earlier_list")), "{after}");
        assert!(missing["since"].as_str().unwrap().ends_with('Z'), "{after}");
    }
    let pretty = run(&bench, "list").await.stdout;
    assert!(pretty.contains("Missing: pg3 (not there since"), "{pretty}");
    bench.import("healthy");
    assert!(!run(&bench, "list").await.stdout.contains("Missing"));
}

#[tokio::test]
async fn removing_ends_with_one_document() {
    let bench = Bench::new();
    bench.import("syn_gone");
    let refused = document(&bench, "remove gone --confirm=gnoe -f json").await;
    assert_eq!(json!([refused["kind"], refused["exit"]]), json!(["Error", 2]), "{refused}");
    let removed = document(&bench, "remove gone --confirm=gone --force -f json").await;
    let head = json!([removed["kind"], removed["command"], removed["cluster"], removed["result"]]);
    assert_eq!(head, json!(["Outcome", "remove", "gone", "done"]), "{removed}");
}

#[tokio::test]
async fn names_that_were_nearly_right() {
    let bench = Bench::new();
    bench.import("healthy");
    for (command, exit, hint) in [
        ("query -c select -m pgg2", 3, "did you mean pg2?"),
        ("query -c select --format jsn", 2, "'json'"),
        ("dsn -m pgg2", 3, "did you mean pg2?"),
        ("dsn -r replca", 2, "'replica'"),
        ("edit-config -s postgresql.use_slot=off --dry-run", 0, "did you mean `postgresql.use_slots`?"),
        ("edit-config -s tll= --dry-run", 0, "did you mean `ttl`?"),
        ("list -f jsno", 2, "'json'"),
    ] {
        let said = run(&bench, command).await;
        assert!(said.exit == exit && said.stderr.contains(hint), "{command}: {said:?}");
    }
}
