//! Options that only `pgherdctl` has, on every command that can use them. patronictl's personality does not know them,
//! so they are not part of the commands' own arguments.

use std::ffi::OsString;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, ValueEnum, value_parser};

use super::colour::ColorChoice;
use super::render::Format;
use super::targets::RoleFilter;

/// Heading of these options in the help.
const HEADING: &str = "Common options";

/// What was said with these options.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Own {
    /// `--timeout`: the longest wait for one answer.
    pub timeout: Option<Duration>,
    /// `--color`.
    pub color: ColorChoice,
    /// `--no-pager`.
    pub no_pager: bool,
    /// `--yes`: questions are answered with yes, or with their defaults.
    pub yes: bool,
    /// `--context`.
    pub context: Option<String>,
    /// `-f`, of whichever command, if it was given.
    pub format: Option<Format>,
    /// `--member-url`: members to ask when the DCS does not answer.
    pub member_urls: Vec<String>,
    /// `list --role`: only members with this role are shown.
    pub role: Option<RoleFilter>,
    /// `list --member`: only these members are shown.
    pub members: Vec<String>,
    /// `list --check`: clusters that are not as they should be are a failure.
    pub check: bool,
    /// `--dry-run`: nothing is asked of anybody, only said.
    pub dry_run: bool,
    /// `--wait` of commands that are theirs without it: until the cluster is whole again.
    pub wait: bool,
}

/// Commands whose work is done by requests that can be shown instead of made.
const REHEARSED: [&str; 10] = [
    "demote-cluster",
    "failover",
    "flush",
    "pause",
    "promote-cluster",
    "reinit",
    "reload",
    "restart",
    "resume",
    "switchover",
];

/// Commands after which the servers take a while to be what they were, or somebody else.
const WAITING: [&str; 3] = ["failover", "restart", "switchover"];

impl Own {
    /// Adds the options to a command line.
    pub fn add(root: Command) -> Command {
        root.args(everywhere()).mut_subcommands(|sub| {
            let has_timeout = sub.get_arguments().any(|arg| arg.get_long() == Some("timeout"));
            let is_list = matches!(sub.get_name(), "list" | "topology");
            // `restart --timeout` is another thing, and patronictl's.
            let sub = sub.args(everywhere().into_iter().filter(|arg| !has_timeout || arg.get_id() != "own_timeout"));
            // `remove` wants the name once more instead.
            let asks = sub.get_name() != "remove" && sub.get_arguments().any(|arg| arg.get_long() == Some("force"));
            let sub = if asks { with_yes(sub) } else { sub };
            let has_format = sub.get_arguments().any(|arg| arg.get_long() == Some("format"));
            let sub = match (has_format, sub.get_name()) {
                (false, _) => sub.arg(with_formats(Arg::new("own_format").short('f').long("format"))),
                // There `-f` is a file.
                (true, "query") => {
                    sub.mut_arg("format", |arg| arg.value_parser(PossibleValuesParser::new(Format::words())))
                }
                (true, _) => sub.mut_arg("format", with_formats),
            };
            let sub = if REHEARSED.contains(&sub.get_name()) { sub.arg(dry_run()) } else { sub };
            let sub = if WAITING.contains(&sub.get_name()) { sub.arg(wait()) } else { sub };
            if is_list { sub.args(of_list()) } else { sub }
        })
    }

    /// What was said, after the command word or before it.
    pub fn of(matches: &ArgMatches) -> Self {
        let after = matches.subcommand().map(|(_, sub)| sub);
        Self {
            timeout: value(matches, after, "own_timeout"),
            color: value(matches, after, "own_color").unwrap_or_default(),
            no_pager: is_set(Some(matches), "own_no_pager") || is_set(after, "own_no_pager"),
            yes: is_set(after, "own_yes"),
            context: value(matches, after, "own_context"),
            format: after.and_then(format),
            member_urls: values(after, "own_member_url"),
            role: after.and_then(|sub| sub.try_get_one("own_role").ok().flatten().copied()),
            members: values(after, "own_member"),
            check: is_set(after, "own_check"),
            dry_run: is_set(after, "own_dry_run"),
            wait: is_set(after, "own_wait"),
        }
    }
}

fn is_set(after: Option<&ArgMatches>, id: &str) -> bool {
    after.is_some_and(|sub| matches!(sub.try_get_one::<bool>(id), Ok(Some(true))))
}

fn value<T: Clone + Send + Sync + 'static>(before: &ArgMatches, after: Option<&ArgMatches>, id: &str) -> Option<T> {
    let said = |matches: &ArgMatches| matches.try_get_one::<T>(id).ok().flatten().cloned();
    after.and_then(said).or_else(|| said(before))
}

fn values(after: Option<&ArgMatches>, id: &str) -> Vec<String> {
    let said = after.and_then(|matches| matches.try_get_many::<String>(id).ok().flatten());
    said.map(|urls| urls.cloned().collect()).unwrap_or_default()
}

fn with_yes(sub: Command) -> Command {
    let yes = Arg::new("own_yes").short('y').long("yes").action(ArgAction::SetTrue).help_heading(HEADING);
    let help = "Answer all questions with yes or their defaults; checks still stop the command";
    sub.arg(yes.help(help)).mut_arg("force", |force| force.help("Ask nothing, and override safety checks"))
}

fn everywhere() -> [Arg; 4] {
    let timeout = Arg::new("own_timeout").long("timeout").value_name("SECONDS").value_parser(seconds);
    let color = Arg::new("own_color").long("color").value_name("WHEN").value_parser(value_parser!(ColorChoice));
    let pager = Arg::new("own_no_pager").long("no-pager").action(ArgAction::SetTrue).help_heading(HEADING);
    let context = Arg::new("own_context").long("context").value_name("NAME");
    [
        context.help("Context of the configuration file [env: PGHERDCTL_CONTEXT]").help_heading(HEADING),
        timeout.help("Longest wait for one answer of the DCS or a member [default: 5]").help_heading(HEADING),
        pager.help("Show long output without a pager [env: PGHERDCTL_PAGER, PAGER]"),
        color.hide_possible_values(true).help("Colour: auto, always or never [default: auto]").help_heading(HEADING),
    ]
}

/// Every format that we have, also where patronictl has fewer.
fn with_formats(arg: Arg) -> Arg {
    let words = PossibleValuesParser::new(Format::words());
    // Only words of the list get so far.
    let arg = arg.value_parser(words.map(|word| Format::of(&word).unwrap_or_default()));
    arg.value_name("FORMAT").help("Output format").help_heading(HEADING)
}

/// The format by its word: not every command has the same choice.
fn format(sub: &ArgMatches) -> Option<Format> {
    if let Ok(Some(format)) = sub.try_get_one::<Format>("own_format") {
        return Some(*format);
    }
    let word = sub.try_get_raw("format").ok().flatten()?.next()?.to_str()?;
    let is_said = sub.value_source("format") == Some(ValueSource::CommandLine);
    Format::of(word).filter(|_| is_said)
}

fn dry_run() -> Arg {
    let arg = Arg::new("own_dry_run").long("dry-run").action(ArgAction::SetTrue).help_heading(HEADING);
    arg.help("Check everything, ask nothing, and only say what would be requested of whom")
}

fn wait() -> Arg {
    let arg = Arg::new("own_wait").long("wait").action(ArgAction::SetTrue).help_heading(HEADING);
    arg.help("Wait until every member runs and replicates again, and show them")
}

fn of_list() -> [Arg; 4] {
    let url = Arg::new("own_member_url").long("member-url").value_name("URL").action(ArgAction::Append);
    let role = Arg::new("own_role").short('r').long("role").value_name("ROLE").value_parser(value_parser!(RoleFilter));
    let member = Arg::new("own_member").short('m').long("member").value_name("NAME").action(ArgAction::Append);
    let check = Arg::new("own_check").long("check").action(ArgAction::SetTrue);
    [
        role.help("Only members with this role"),
        member.help("Only this member; may be given several times"),
        check.help("Fail if a cluster is not as it should be, and say why"),
        url.help("Ask this member's REST API when the DCS does not answer; may be given several times")
            .help_heading(HEADING),
    ]
}

/// What an option has for a value in a command line that could not be read, as far as that can be told.
fn scanned<'a>(args: &'a [OsString], names: &[&str]) -> Option<&'a str> {
    let words: Vec<&str> = args.iter().skip(1).map_while(|arg| arg.to_str()).take_while(|arg| *arg != "--").collect();
    let value = |(index, word): (usize, &&'a str)| {
        let name = names.iter().find(|name| word.starts_with(**name))?;
        match (&word[name.len()..], name.starts_with("--")) {
            ("", _) => words.get(index + 1).copied(),
            (rest, true) => rest.strip_prefix('='),
            (rest, false) => Some(rest.strip_prefix('=').unwrap_or(rest)),
        }
    };
    words.iter().enumerate().rev().find_map(value)
}

/// The format that was asked for in a command line that could not be read.
pub fn scan_format(args: &[OsString]) -> Option<Format> {
    let is_query = args.iter().any(|arg| arg == "query");
    let names: &[&str] = if is_query { &["--format"] } else { &["--format", "-f"] };
    scanned(args, names).and_then(Format::of)
}

/// The same for colour.
pub fn scan_color(args: &[OsString]) -> Option<ColorChoice> {
    scanned(args, &["--color"]).and_then(|word| ColorChoice::from_str(word, true).ok())
}

/// A positive number of seconds, fractions included.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: Option<f64> = text.strip_suffix('s').unwrap_or(text).trim().parse().ok();
    let duration = seconds.filter(|seconds| *seconds > 0.0).and_then(|s| Duration::try_from_secs_f64(s).ok());
    duration.ok_or_else(|| "is not a positive number of seconds".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::{Cli, Personality};

    fn own(words: &str) -> Own {
        let args: Vec<std::ffi::OsString> = words.split(' ').map(Into::into).collect();
        Cli::read(&args, Personality::Pgherdctl).unwrap().global.own
    }

    #[test]
    fn before_and_after_the_command_word() {
        assert_eq!(own("pgherdctl --timeout 2 list").timeout, Some(Duration::from_secs(2)));
        assert_eq!(own("pgherdctl --timeout 2 list --timeout 0.5s").timeout, Some(Duration::from_millis(500)));
        assert_eq!(own("pgherdctl --timeout 2 restart demo --timeout 5min").timeout, Some(Duration::from_secs(2)));
        assert_eq!(own("pgherdctl restart demo --timeout 5min").timeout, None);
        assert_eq!(own("pgherdctl history --color never demo").color, ColorChoice::Never);
        assert_eq!(own("pgherdctl list --member-url a --member-url b").member_urls, ["a", "b"]);
    }

    #[test]
    fn what_a_broken_command_line_asked_for() {
        let args = |words: &str| words.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert_eq!(scan_format(&args("pgherdctl list --nosuch -f json")), Some(Format::Json));
        assert_eq!(scan_format(&args("pgherdctl list -fyaml --nosuch")), Some(Format::Yaml));
        assert_eq!(scan_format(&args("pgherdctl --format=tsv lst --format name")), Some(Format::Name));
        assert_eq!(scan_format(&args("pgherdctl query -f json --nosuch")), None);
        assert_eq!(scan_format(&args("pgherdctl list -f")), None);
        assert_eq!(scan_format(&args("pgherdctl list -f xml -- -f json")), None);
        assert_eq!(scan_color(&args("pgherdctl lst --color always")), Some(ColorChoice::Always));
    }

    #[test]
    fn every_command_has_every_format() {
        let clap = Cli::clap(Personality::Pgherdctl);
        for sub in clap.get_subcommands() {
            let format = sub.get_arguments().find(|arg| arg.get_long() == Some("format"));
            let words = format.unwrap_or_else(|| panic!("{}", sub.get_name())).get_possible_values();
            assert_eq!(words.len(), 6, "{}", sub.get_name());
        }
        let theirs = Cli::clap(Personality::Patronictl);
        let list = theirs.get_subcommands().find(|sub| sub.get_name() == "list").unwrap();
        let format = list.get_arguments().find(|arg| arg.get_long() == Some("format")).unwrap();
        assert_eq!(format.get_possible_values().len(), 5);
    }

    #[test]
    fn every_command_line_is_sound_and_theirs_has_none_of_it() {
        Cli::clap(Personality::Pgherdctl).debug_assert();
        Cli::clap(Personality::Patronictl).debug_assert();
        let args: Vec<std::ffi::OsString> = ["patronictl", "list", "--color", "never"].map(Into::into).into();
        assert!(Cli::read(&args, Personality::Patronictl).is_err());
        for wrong in ["0", "-1", "x", "1e400"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
