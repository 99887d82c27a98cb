//! Called as `patronictl`: every recorded run of the commands we have, byte for byte.

use std::collections::BTreeMap;

use regex_lite::Regex;

use crate::bench::{Said, fixtures};
use crate::program::Program;
use crate::transcript::{Run, read};

/// Which recorded keys belong to a section of a transcript. `syn_*` files have the fixture of their own name.
const STATES: [(&str, usize, &str); 24] = [
    ("demote_promote_cluster", 0, "healthy"),
    ("demote_promote_cluster", 1, "standby_cluster"),
    ("dsn", 0, "healthy"),
    ("edit_config", 0, "healthy"),
    ("edit_config", 4, "healthy"),
    ("global_options", 0, "healthy"),
    ("history", 0, "history"),
    ("history_empty", 0, "healthy"),
    ("list_healthy", 0, "healthy"),
    ("list_lag", 0, "lag"),
    ("list_pending_restart", 0, "pending_restart"),
    ("list_quorum", 0, "quorum"),
    ("list_stopped", 0, "stopped_member"),
    ("list_stopped", 1, "member_gone"),
    ("list_sync", 0, "sync"),
    ("list_unknown", 0, "healthy"),
    ("no_leader", 0, "no_leader"),
    ("nofailover", 0, "nofailover"),
    ("pause_resume", 1, "paused"),
    ("query", 0, "healthy"),
    ("rest_hangs", 0, "healthy"),
    ("restart_scheduled", 1, "scheduled_restart"),
    ("show_config", 0, "healthy"),
    ("topology_healthy", 0, "healthy"),
];

const ANOTHER_MOMENT: &str = "no recorded keys of that moment";
const OTHER_COMMANDS: &str = "follows commands that change things through members which are not there";
const MEMBERS: &str = "asks members that are not there; `version.rs` asks some that are";
const SERVER: &str = "asks a PostgreSQL that is not there; `e2e` compares the answers of one that is";
const HELP: &str = "the words of help pages are ours";
const NOBODY: &str = "an address that belongs to nobody, where something else answered";
const NULL: &str = "stores `null` as the whole configuration, which we refuse";

/// Runs that are not compared, with the reason: file, part of the command or `@section N`.
const LEFT_OUT: [(&str, &str, &str); 32] = [
    ("dcs_down", " list", "never ends there; here it does, with an error"),
    ("help", "", HELP),
    ("global_options", "@line 99", HELP),
    ("query", "-c 'select 1 as a, null", SERVER),
    ("query", "-U postgres -d postgres -c", SERVER),
    ("query", "-U postgres -d postgres -r replica", SERVER),
    ("query", "-U postgres -d postgres -r any", SERVER),
    ("query", "-U postgres -d postgres -r primary", SERVER),
    ("demote_promote_cluster", "-r standby-leader -c", SERVER),
    ("query", "-U postgres -d nosuchdb -c", SERVER),
    ("query", "-f q.sql", SERVER),
    ("query", "-m pg3 -c", SERVER),
    ("query", "--password", SERVER),
    ("demote_promote_cluster", "@line 25", ANOTHER_MOMENT),
    ("demote_promote_cluster", "@section 2", ANOTHER_MOMENT),
    ("edit_config", "--apply missing.yml", "the bench cannot name a file that is not there"),
    ("global_options", "-d 127.0.0.1:22379", "the v2 protocol"),
    ("list_lag", "@section 1", ANOTHER_MOMENT),
    ("list_stopped", "@section 2", ANOTHER_MOMENT),
    ("list_stopped", "@section 3", ANOTHER_MOMENT),
    ("list_stopped", "version demo", MEMBERS),
    ("option_forms", "@section 4", NULL),
    ("option_forms", "x=2030-01-01", "a date fails there; we store its text"),
    ("option_forms", "list gl/", "a slash after the name hides the cluster there"),
    ("restart_scheduled", "@line 2", ANOTHER_MOMENT),
    ("restart_scheduled", "@line 148", OTHER_COMMANDS),
    ("restart_scheduled", "@line 183", OTHER_COMMANDS),
    ("syn_cit", "query -c \"select 1\" --group 2", NOBODY),
    ("syn_cit", "version cit", MEMBERS),
    ("syn_noconn", "version noconn", MEMBERS),
    ("syn_restdown", "version restdown", MEMBERS),
    ("version", "version demo", MEMBERS),
];

/// Commands that go to members.
const CHANGES: [&str; 9] =
    ["switchover", "failover", "restart", "reinit", "reload", "pause", "resume", "demote-cluster", "promote-cluster"];

/// Why a run is not done again here.
fn left_out(run: &Run) -> Option<&'static str> {
    let Some(word) = run.words().map(|_| run.word().unwrap_or_default()) else { return Some("a pipe of a shell") };
    let (section, line) = (format!("@section {}", run.section), format!("@line {}", run.line));
    let listed = LEFT_OUT
        .iter()
        .find(|(file, part, _)| *file == run.file && (run.command.contains(part) || section == *part || line == *part));
    if run.was_interrupted || run.exit.is_none() || run.keys.iter().any(|key| key == "\u{3}") {
        Some("runs until it is stopped")
    } else if let Some((_, _, why)) = listed {
        Some(why)
    } else if run.on_terminal && (run.stdout.contains("\\e[?1h") || run.keys.is_empty()) {
        Some("what a pager draws on a terminal")
    } else if CHANGES.contains(&word.as_str())
        && !run.command.contains("--help")
        && run.file != "syn_restdown"
        && is_answered(run)
    {
        Some("members answer it; `cli_changes` has some that do")
    } else {
        None
    }
}

/// Whether a member's answer is part of what was said.
fn is_answered(run: &Run) -> bool {
    const ANSWERS: [&str; 10] = [
        "Success: ",
        "Failed: ",
        " failed, details: ",
        "No changes to apply",
        "Reload request",
        "Successfully ",
        " cluster is successfully ",
        "Switchover scheduled",
        "Traceback",
        "Waiting for",
    ];
    let said = format!("{}{}", run.stdout, run.stderr);
    ANSWERS.iter().any(|words| said.contains(words))
}

fn without_times(text: &str) -> String {
    let time = Regex::new(r"(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d([,.]\d+)?").unwrap();
    let example = Regex::new(r"\(e\.g\. \d{4}-\d\d-\d\dT\d\d:\d\d").unwrap();
    example.replace_all(&time.replace_all(text, "(time)"), "(e.g. (time)").into_owned()
}

/// Off a terminal there are none.
fn without_colours(text: &str) -> String {
    Regex::new(r"\\e\[[0-9;]*m").unwrap().replace_all(text, "").into_owned()
}

/// What differs, if anything. A stack trace or log lines of patronictl's libraries need only be some error of ours.
fn difference(run: &Run, said: &Said) -> Option<String> {
    let mut parts = Vec::new();
    if run.on_terminal {
        let (seen, got) = (without_colours(&run.seen()), format!("{}{}", said.stdout, said.stderr));
        if without_times(&seen) != without_times(&got) {
            parts.push(format!("terminal, wanted:\n{seen}\ngot:\n{got}"));
        }
        if run.exit != Some(said.exit) {
            parts.push(format!("exit {:?}, got {}", run.exit, said.exit));
        }
        return (!parts.is_empty())
            .then(|| format!("{}.txt:{} $ {}\n{}", run.file, run.line, run.command, parts.join("\n")));
    }
    if without_times(&run.stdout) != without_times(&said.stdout) {
        parts.push(format!("stdout, wanted:\n{}\ngot:\n{}", run.stdout, said.stdout));
    }
    let is_trace = run.stderr.contains("Traceback");
    // Where a line says that even warnings are to be left out, there is nothing to compare.
    let is_quiet = run.environment.iter().any(|(name, _)| name == "LOGLEVEL");
    let is_log = is_quiet || run.stderr.contains(" - WARNING - ") && !run.stderr.contains("Listing members");
    if is_trace && run.exit != Some(0) && !said.stderr.contains("Error: ") {
        parts.push(format!("a stack trace became:\n{}", said.stderr));
    }
    if !is_trace && !is_log && without_times(&run.stderr) != without_times(&said.stderr) {
        parts.push(format!("stderr, wanted:\n{}\ngot:\n{}", run.stderr, said.stderr));
    }
    if run.exit != Some(said.exit) {
        parts.push(format!("exit {:?}, got {} ({})", run.exit, said.exit, said.stderr));
    }
    (!parts.is_empty()).then(|| format!("{}.txt:{} $ {}\n{}", run.file, run.line, run.command, parts.join("\n")))
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_runs() {
    let mut files: Vec<_> =
        std::fs::read_dir(fixtures().join("transcripts")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut failed = Vec::new();
    let mut skipped: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut compared, mut all) = (0, 0);
    let mut program = Program::new().await;
    for file in files {
        let mut section = None;
        for run in &read(&file) {
            all += 1;
            if section != Some(run.section) {
                section = Some(run.section);
                prepare(&mut program, run).await;
            }
            if let Some(why) = left_out(run) {
                *skipped.entry(why).or_default() += 1;
                continue;
            }
            let words = run.words().unwrap();
            let stdin = if run.on_terminal { run.keys.concat() } else { run.stdin.clone().unwrap_or_default() };
            let mut environment = run.environment.clone();
            if environment.iter().any(|(_, value)| value == "./ed_race") {
                environment.push(("ETCDCTL_ENDPOINTS".to_owned(), "127.0.0.1:22379".to_owned()));
            }
            let said = program.run(&words, &environment, &stdin).await;
            compared += 1;
            failed.extend(difference(run, &said));
        }
    }
    println!("{all} recorded runs, {compared} done again and equal but for {}; not done: {skipped:#?}", failed.len());
    assert!(failed.is_empty(), "{} of {compared} runs differ:\n\n{}", failed.len(), failed.join("\n\n"));
    assert!(compared >= 425, "only {compared} runs were found");
}

/// Puts the keys of the section into the store; what an earlier section changed by hand stays.
async fn prepare(program: &mut Program, run: &Run) {
    let own = format!("{}.etcd.json", run.file);
    if run.section == 0 && fixtures().join(own).exists() {
        program.import(&run.file).await;
    }
    let file = run.file.as_str();
    let fixtures: &[&str] = match (file, run.section) {
        ("list_scope_with_tags", _) => &["syn_reasons", "syn_stdport"],
        ("option_forms", 0) => &["syn_gl"],
        ("remove", 0 | 1) => &["syn_gone"],
        _ => &[],
    };
    for fixture in fixtures {
        program.import(fixture).await;
    }
    match (file, run.section) {
        ("option_forms", 5) => program.put("/service/gl/config", r#"{"ttl":30}"#).await,
        ("remove", 1) => program.delete("/service/gone/leader").await,
        _ => {}
    }
    for (_, _, fixture) in STATES.iter().filter(|(file, section, _)| *file == run.file && *section == run.section) {
        program.import(fixture).await;
    }
}
