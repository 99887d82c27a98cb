//! Called as `patronictl`: every recorded run of the commands we have, byte for byte.

use std::collections::BTreeMap;

use regex::Regex;

use crate::bench::{Bench, Said, fixtures};
use crate::transcript::{Run, read};

/// Which recorded keys belong to a section of a transcript. `syn_*` files have the fixture of their own name.
const STATES: [(&str, usize, &str); 19] = [
    ("demote_promote_cluster", 1, "standby_cluster"),
    ("edit_config", 0, "healthy"),
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
    ("restart_scheduled", 1, "scheduled_restart"),
    ("show_config", 0, "healthy"),
    ("topology_healthy", 0, "healthy"),
];

const ANOTHER_MOMENT: &str = "no recorded keys of that moment";
const OTHER_COMMANDS: &str = "follows commands that change things through members which are not there";
const MEMBERS: &str = "asks members that are not there; `version.rs` asks some that are";
const NULL: &str = "stores `null` as the whole configuration, which we refuse";

/// Runs that are not compared, with the reason: file, part of the command or `@section N`.
const LEFT_OUT: [(&str, &str, &str); 17] = [
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
    ("restart_scheduled", "@line 148", OTHER_COMMANDS),
    ("restart_scheduled", "@line 183", OTHER_COMMANDS),
    ("syn_cit", "version cit", MEMBERS),
    ("syn_noconn", "version noconn", MEMBERS),
    ("syn_restdown", "version restdown", MEMBERS),
    ("syn_restdown", "@line 234", OTHER_COMMANDS),
    ("version", "version demo", MEMBERS),
];

fn is_ours(run: &Run) -> bool {
    const WORDS: [&str; 6] = ["list", "topology", "history", "show-config", "edit-config", "version"];
    let Some(words) = run.words() else { return false };
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "-c" | "-d" | "--dcs" => {
                words.next();
            }
            option if option.starts_with('-') => {}
            word => return WORDS.contains(&word),
        }
    }
    false
}

fn left_out(run: &Run) -> Option<&'static str> {
    let (section, line) = (format!("@section {}", run.section), format!("@line {}", run.line));
    let listed = LEFT_OUT
        .iter()
        .find(|(file, part, _)| *file == run.file && (run.command.contains(part) || section == *part || line == *part));
    if run.on_terminal {
        Some("on a terminal")
    } else if run.was_interrupted || run.exit.is_none() {
        Some("runs until it is stopped")
    } else {
        listed.map(|(_, _, why)| *why)
    }
}

fn without_times(text: &str) -> String {
    let time = Regex::new(r"(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(,\d+)?").unwrap();
    time.replace_all(text, "(time)").into_owned()
}

/// What differs, if anything. A stack trace or log lines of patronictl's libraries need only be some error of ours.
fn difference(run: &Run, said: &Said) -> Option<String> {
    let mut parts = Vec::new();
    if without_times(&run.stdout) != without_times(&said.stdout) {
        parts.push(format!("stdout, wanted:\n{}\ngot:\n{}", run.stdout, said.stdout));
    }
    let is_trace = run.stderr.contains("Traceback");
    let is_log = run.stderr.contains(" - WARNING - ") && !run.stderr.contains("Listing members");
    if is_trace && !said.stderr.starts_with("Error: ") {
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

#[tokio::test]
async fn recorded_runs() {
    let mut files: Vec<_> =
        std::fs::read_dir(fixtures().join("transcripts")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut failed = Vec::new();
    let mut skipped: BTreeMap<&str, usize> = BTreeMap::new();
    let mut compared = 0;
    for file in files {
        let mut bench = Bench::new();
        let mut section = None;
        for run in read(&file).iter().filter(|run| is_ours(run)) {
            if section != Some(run.section) {
                section = Some(run.section);
                prepare(&bench, run);
            }
            if let Some(why) = left_out(run) {
                *skipped.entry(why).or_default() += 1;
                continue;
            }
            let is_race = run.environment.iter().any(|(_, value)| value == "./ed_race");
            bench.meddles_at = is_race.then_some(2);
            let words = run.words().unwrap();
            let said = bench.run(&words, &run.environment, run.stdin.as_deref().unwrap_or_default()).await;
            compared += 1;
            failed.extend(difference(run, &said));
        }
    }
    println!("{compared} runs compared; left out: {skipped:#?}");
    assert!(failed.is_empty(), "{} of {compared} runs differ:\n\n{}", failed.len(), failed.join("\n\n"));
    assert!(compared > 250, "only {compared} runs were found");
}

/// Puts the keys of the section into the store; what an earlier section changed by hand stays.
fn prepare(bench: &Bench, run: &Run) {
    let own = format!("{}.etcd.json", run.file);
    if run.section == 0 && fixtures().join(own).exists() {
        bench.import(&run.file);
    }
    match run.file.as_str() {
        "list_scope_with_tags" => ["syn_reasons", "syn_stdport"].iter().for_each(|fixture| bench.import(fixture)),
        "option_forms" if run.section == 0 => bench.import("syn_gl"),
        "option_forms" if run.section == 5 => bench.store.put("/service/gl/config", r#"{"ttl":30}"#),
        _ => {}
    }
    for (_, _, fixture) in STATES.iter().filter(|(file, section, _)| *file == run.file && *section == run.section) {
        bench.import(fixture);
    }
}
