use super::*;
use proptest::prelude::*;
use serde_json::json;
use std::path::Path;

fn shell(script: &str) -> Program {
    Program::new("/bin/sh").arg("-c").arg(script)
}

/// Waits until no process of that number runs any more.
async fn gone(pid: i32) -> bool {
    for _ in 0..200 {
        if process_tree::process(pid).is_none_or(|process| process.is_zombie) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    false
}

/// Waits for a number that a script writes into a file.
async fn number_in(path: &Path) -> i32 {
    for _ in 0..200 {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if let Some(number) = text.strip_suffix('\n').and_then(|text| text.parse().ok()) {
            return number;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{} never held a number", path.display());
}

#[test]
fn commands_are_split_like_a_shell_does() {
    let cases = [
        ("a b  c", vec!["a", "b", "c"]),
        ("a 'b c' \"d e\"", vec!["a", "b c", "d e"]),
        (r#"a\ b "x\"y" "n\n" 'q\'"#, vec!["a b", "x\"y", "n\\n", "q\\"]),
        ("--x='1 2'3 ''", vec!["--x=1 23", ""]),
        ("a # b", vec!["a", "#", "b"]),
        ("", vec![]),
    ];
    for (line, words) in cases {
        assert_eq!(split(line).unwrap(), words, "{line}");
    }
    assert!(split("a 'b").is_err());
    assert!(split("a \"b").is_err());
    assert!(split("a \\").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_quoted_word_comes_back(word in "[^']{0,20}") {
        prop_assert_eq!(split(&format!("'{word}'")).unwrap(), vec![word]);
    }

    #[test]
    fn no_line_panics(line in ".{0,40}") {
        let _ = split(&line);
    }
}

#[test]
fn option_lists() {
    let list = json!(["data-checksums", {"encoding": "UTF8"}, {"locale": "'C'"}, {"wal-segsize": 16}]);
    let (args, refused) = options("initdb", &list, &["pgdata"]);
    assert_eq!(args, ["--data-checksums", "--encoding=UTF8", "--locale=C", "--wal-segsize=16"]);
    assert!(refused.is_empty());

    let map = json!({"max-rate": "100M", "checkpoint": "fast", "verbose": false, "label": "", "no-sync": true});
    let (args, _) = options("basebackup", &map, &[]);
    assert_eq!(args, ["--max-rate=100M", "--checkpoint=fast", "--no-sync"]);

    let bad = json!([{"pgdata": "/x"}, "pgdata=/x", {"a": "1", "b": "2"}, 7]);
    let (args, refused) = options("initdb", &bad, &["pgdata"]);
    assert!(args.is_empty(), "{args:?}");
    assert_eq!(refused.len(), 4, "{refused:?}");
    assert_eq!(refused[0], "pgdata option for initdb is not allowed");
}

#[tokio::test]
async fn output_and_code_come_back() {
    let cancel = CancellationToken::new();
    let finished = shell("echo out; echo err >&2; exit 3").run(&cancel).await.unwrap();
    assert_eq!((finished.code, finished.stdout.as_str(), finished.stderr.as_str()), (Some(3), "out\n", "err\n"));
    assert_eq!(finished.detail(), "exited with code 3: err");
    let error = shell("echo why >&2; exit 1").run_ok(&cancel).await.unwrap_err();
    assert_eq!(error.to_string(), "sh failed: exited with code 1: why");
}

#[tokio::test]
async fn the_end_of_a_long_output_is_kept() {
    let finished =
        shell("yes 0123456789 | head -c 5000000; echo; echo end").run(&CancellationToken::new()).await.unwrap();
    assert!(finished.stdout.len() <= KEEP);
    assert!(finished.stdout.ends_with("\nend\n"));
}

#[tokio::test]
async fn a_missing_program_is_named() {
    let error = Program::new("/nonexistent/tool").run(&CancellationToken::new()).await.unwrap_err();
    assert!(error.to_string().starts_with("/nonexistent/tool failed: cannot be run: "), "{error}");
    assert!(Program::script("  ").is_err());
    assert!(Program::script("x 'y").is_err());
}

#[tokio::test]
async fn a_deadline_ends_a_program_and_its_children() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pid");
    let program = shell(&format!("sleep 600 & echo $! > {}; wait", file.display())).limit(Duration::from_millis(800));
    let error = program.run(&CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, PgError::Timeout(..)), "{error}");
    assert!(gone(number_in(&file).await).await);
}

#[tokio::test]
async fn cancelling_ends_a_child_that_moved_to_its_own_session() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pid");
    let program = shell(&format!("setsid sleep 600 & echo $! > {}; wait", file.display()));
    let cancel = CancellationToken::new();
    let (result, pid) = tokio::join!(program.run(&cancel), async {
        let pid = number_in(&file).await;
        cancel.cancel();
        pid
    });
    assert!(matches!(result, Err(PgError::Cancelled)));
    assert!(gone(pid).await);
    assert!(matches!(program.run(&cancel).await, Err(PgError::Cancelled)));
}

#[tokio::test]
async fn a_program_that_ignores_sigterm_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pid");
    let mut child = shell(&format!("trap '' TERM; echo $$ > {}; while :; do sleep 1; done", file.display()))
        .command()
        .spawn()
        .unwrap();
    let pid = number_in(&file).await;
    Family { leader: Some(pid) }.end(&mut child, Duration::from_millis(200)).await;
    assert!(gone(pid).await);
}

#[tokio::test]
async fn a_dropped_run_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pid");
    let program = shell(&format!("echo $$ > {}; sleep 600", file.display()));
    let cancel = CancellationToken::new();
    let pid = tokio::select! {
        pid = number_in(&file) => pid,
        result = program.run(&cancel) => panic!("ended early: {result:?}"),
    };
    assert!(gone(pid).await);
}

#[tokio::test]
async fn a_background_process_does_not_hold_the_run_up() {
    let started = tokio::time::Instant::now();
    let finished = shell("sleep 20 & echo $!").run(&CancellationToken::new()).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(10));
    process_tree::signal(finished.stdout.trim().parse().unwrap(), Signal::SIGKILL);
}
