//! What can come next on a command line, for a shell that asks.
//!
//! The scripts in `completions/` know nothing but this program: they run it with [`SHELL`] in the environment and the
//! line up to the cursor as its only argument after `--`, and take one candidate per line. So they can never be older
//! than the program, and names of clusters and members come from the DCS as they are now. An operator who presses TAB
//! waits, so there is one hard limit for everything, and whatever goes wrong is silence.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use clap::Command;
use clap_complete::CompletionCandidate;
use clap_complete::engine::{ArgValueCompleter, complete};

use super::ui::Ui;
use super::{Cli, Personality};

mod line;
mod script;
mod values;

pub use script::script;

use line::Line;
use values::{Live, Source};

/// The shell that asks: `bash`, `zsh` or `fish`.
pub const SHELL: &str = "PGHERDCTL_COMPLETE";

/// The characters at which bash breaks words: it replaces only what follows the last of them.
const BREAKS: &str = "PGHERDCTL_COMPLETE_BREAKS";

/// For those whose DCS is far away: how many seconds a TAB may take.
const PATIENCE: &str = "PGHERDCTL_COMPLETE_TIMEOUT";

/// How long a TAB may take.
const LIMIT: Duration = Duration::from_millis(190);

/// Names of files are wanted; the shell knows them best.
const FILES: u8 = 10;

/// Stands for names of files among candidates.
const FILES_CANDIDATE: &str = "\u{0}files";

/// What there is to say.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Files,
    /// What to insert, and a few words about it.
    Candidates(Vec<(String, String)>),
}

/// Answers a shell within the limit, or not at all.
pub fn main(shell: &str, args: &[OsString], environment: BTreeMap<String, String>) -> ExitCode {
    // A broken completion must not write over the line that is being typed.
    std::panic::set_hook(Box::new(|_| {}));
    let Some(line) = args.iter().skip(1).find(|arg| *arg != "--").and_then(|line| line.to_str()) else {
        return ExitCode::SUCCESS;
    };
    let limit = limit(&environment);
    let (shell, line) = (shell.to_owned(), line.to_owned());
    let (tell, told) = channel();
    // Also reading a file may hang, so all of it happens in a thread that can be left alone.
    std::thread::spawn(move || tell.send(answer(&shell, &line, environment, limit.mul_f64(0.8))));
    match told.recv_timeout(limit) {
        Ok(Answer::Files) => ExitCode::from(FILES),
        Ok(Answer::Candidates(candidates)) => {
            let text: String = candidates.iter().map(shown).collect();
            let _ = Ui::terminal(Personality::Pgherdctl).data_raw(&text);
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::SUCCESS,
    }
}

fn limit(environment: &BTreeMap<String, String>) -> Duration {
    let asked = environment.get(PATIENCE).and_then(|text| text.parse().ok());
    asked.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(LIMIT)
}

fn shown((value, help): &(String, String)) -> String {
    if help.is_empty() { format!("{value}\n") } else { format!("{value}\t{help}\n") }
}

fn answer(shell: &str, text: &str, environment: BTreeMap<String, String>, patience: Duration) -> Answer {
    let line = Line::read(text, &environment);
    let breaks = environment.get(BREAKS).cloned().unwrap_or_default();
    let mut candidates = candidates(&line, environment, patience);
    if candidates.iter().any(|candidate| candidate.get_value().to_string_lossy().ends_with(FILES_CANDIDATE)) {
        return Answer::Files;
    }
    // Whoever wants an option begins it.
    if !line.current().starts_with('-') {
        candidates.retain(|candidate| !candidate.get_value().to_string_lossy().starts_with('-'));
    }
    let is_bash = shell == "bash";
    let kept = if is_bash { line.kept(&breaks) } else { 0 };
    let told = |candidate: CompletionCandidate| {
        let value = candidate.get_value().to_str()?;
        let is_plain = !value.chars().any(char::is_control);
        let value = value.get(kept..).filter(|_| is_plain)?;
        let value = if is_bash { line.quoted(value) } else { value.to_owned() };
        let help = candidate.get_help().map(ToString::to_string).filter(|_| !is_bash).unwrap_or_default();
        Some((value, help.lines().next().unwrap_or_default().to_owned()))
    };
    Answer::Candidates(candidates.into_iter().filter_map(told).collect())
}

fn candidates(line: &Line, environment: BTreeMap<String, String>, patience: Duration) -> Vec<CompletionCandidate> {
    let mut words: Vec<OsString> = line.words().iter().map(OsString::from).collect();
    let personality = Personality::of(words.first(), &environment);
    let before = words[..words.len().saturating_sub(1)].to_vec();
    // The engine does not know other names of an option in `--option=value`, but before a word of its own.
    let mut prefix = String::new();
    if let Some((option, value)) = line.current().split_once('=').filter(|(option, _)| option.starts_with("--")) {
        words.pop();
        words.extend([option, value].map(OsString::from));
        prefix = format!("{option}=");
    }
    let live = Arc::new(Live::new(before, personality, environment, patience));
    let mut command = with_sources(Cli::clap(personality), personality, &live);
    let at = words.len().saturating_sub(1);
    let found = complete(&mut command, words, at, None).unwrap_or_default().into_iter();
    // With a value that has begun, nothing but a value is wanted.
    let found = found.filter(|found| prefix.is_empty() || !found.get_value().to_string_lossy().starts_with('-'));
    found.map(|candidate| candidate.add_prefix(prefix.clone())).collect()
}

/// The command line with an answer at each argument that has one.
fn with_sources(root: Command, personality: Personality, live: &Arc<Live>) -> Command {
    let add = |command: Command, word: &str| {
        let word = word.to_owned();
        command.mut_args(|arg| {
            let id = arg.get_id().to_string();
            let is_theirs = !personality.is_patronictl() || !super::usage::is_extra(&word, &id);
            let arg = if is_theirs { arg } else { arg.hide(true) };
            match values::source(&word, &id) {
                Some(source) => arg.add(completer(source, live)),
                None => arg,
            }
        })
    };
    add(root, "").mut_subcommands(|sub| {
        let word = sub.get_name().to_owned();
        add(sub, &word)
    })
}

fn completer(source: Source, live: &Arc<Live>) -> ArgValueCompleter {
    let live = Arc::clone(live);
    ArgValueCompleter::new(move |current: &OsStr| {
        if source == Source::Files {
            return vec![CompletionCandidate::new(FILES_CANDIDATE)];
        }
        let Some(current) = current.to_str() else { return Vec::new() };
        let values = live.values(source, current).into_iter().filter(|(value, _)| value.starts_with(current));
        let candidate = |(value, help): (String, String)| {
            CompletionCandidate::new(value).help((!help.is_empty()).then(|| help.into()))
        };
        values.map(candidate).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offline(line: &str) -> Answer {
        answer("bash", line, BTreeMap::new(), Duration::from_millis(100))
    }

    fn words(line: &str) -> Vec<String> {
        match offline(line) {
            Answer::Candidates(found) => found.into_iter().map(|(value, _)| value).collect(),
            Answer::Files => vec!["FILES".to_owned()],
        }
    }

    #[test]
    fn what_needs_no_cluster() {
        assert_eq!(words("pgherdctl sw"), ["switchover"]);
        assert!(words("pgherdctl ").contains(&"list".to_owned()));
        assert!(!words("pgherdctl ").iter().any(|word| word.starts_with('-')), "options only where they are begun");
        assert_eq!(words("pgherdctl switchover --cand"), ["--candidate"]);
        assert_eq!(words("pgherdctl restart --role sta"), ["standby-leader", "standby"]);
        assert_eq!(words("pgherdctl edit-config -s synchronous_mode_"), ["synchronous_mode_strict="]);
        assert_eq!(words("pgherdctl edit-config -p max_wal_si"), ["max_wal_size="]);
        assert_eq!(words("pgherdctl -c /tm"), ["FILES"]);
        assert_eq!(words("pgherdctl query --file=/tm"), ["FILES"]);
        assert_eq!(words("pgherdctl flush demo sw"), ["switchover"]);
        assert!(words("pgherdctl switchover --candidate ").is_empty(), "no DCS, no names, no words");
    }

    #[test]
    fn patronictl_is_offered_what_it_knows() {
        assert!(words("/usr/bin/patronictl list --").contains(&"--format".to_owned()));
        for (line, ours) in [("list --", "--member-url"), ("edit-config --", "--dry-run"), ("--", "--context")] {
            assert!(!words(&format!("patronictl {line}")).contains(&ours.to_owned()), "{ours}");
            assert!(words(&format!("pgherdctl {line}")).contains(&ours.to_owned()), "{ours}");
        }
    }

    #[test]
    fn what_the_line_says_is_understood() {
        assert_eq!(words("pgherdctl -d etcd3://h:1 --color=never restart -r 'le"), ["leader"]);
        assert!(words("").is_empty() || words("").contains(&"list".to_owned()));
        for odd in ["pgherdctl '", "pgherdctl \"\\", "pgherdctl \u{1}", "pgherdctl -- -", "pgherdctl list --format="] {
            let _ = words(odd);
        }
    }

    /// Whoever adds an argument says what its values are: a source, a list in the definition, or free text.
    #[test]
    fn every_argument_has_been_thought_of() {
        const FREE: [&str; 18] = [
            "command",
            "dcs_url",
            "dbname",
            "delimiter",
            "host",
            "own_member_url",
            "own_timeout",
            "password_file",
            "pg_version",
            "port",
            "primary_slot_name",
            "restore_command",
            "scheduled",
            "timeout",
            "username",
            "watch",
            "own_expires",
            "reason",
        ];
        let root = Cli::clap(Personality::Pgherdctl);
        let all = std::iter::once(&root).chain(root.get_subcommands());
        for (command, arg) in all.flat_map(|command| command.get_arguments().map(move |arg| (command, arg))) {
            let word = if command.get_name() == root.get_name() { "" } else { command.get_name() };
            let id = arg.get_id().as_str();
            let is_known = !arg.get_action().takes_values()
                || !arg.get_possible_values().is_empty()
                || values::source(word, id).is_some()
                || FREE.contains(&id);
            assert!(is_known, "{word} {id}: name its values in complete/values.rs, or call it free text here");
        }
    }
}
