//! Reading the command line, and what is said when that fails or help is asked for.
//!
//! Ours is clap's own text. patronictl's has another shape (`Usage: … / Try … / Error: …`) and other words, and
//! knows fewer options: the table `EXTRAS` names what only we understand.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command};

use super::Personality;
use super::render::{difflib, python};
use super::ui::Ui;
use super::{Cli, CtlError, outcome, own, report};

/// Options that patronictl refuses, by command and argument.
const EXTRAS: [(&str, &str); 6] = [
    ("edit-config", "dry_run"),
    ("remove", "confirm"),
    ("remove", "force"),
    ("topology", "extended"),
    ("topology", "format"),
    ("version", "format"),
];

/// Whether only we know this argument of a command.
pub(super) fn is_extra(command: &str, argument: &str) -> bool {
    EXTRAS.contains(&(command, argument))
}

/// What is to be said instead of running a command.
#[derive(Debug)]
pub enum Said {
    /// clap's own page or error.
    Clap(clap::Error),
    /// A text in patronictl's manner.
    Plain {
        /// The text, without the last newline.
        text: String,
        /// Help that was asked for goes to stdout.
        on_stdout: bool,
        /// Exit code.
        code: u8,
    },
}

impl Said {
    /// Says it and returns the exit code.
    pub fn show(self, ui: &Ui) -> u8 {
        let (text, on_stdout, code) = match self {
            Self::Plain { text, on_stdout, code } => (text, on_stdout, code),
            Self::Clap(error) => {
                let styled = if ui.colours_messages() { error.render().ansi().to_string() } else { error.to_string() };
                let code = u8::try_from(error.exit_code()).unwrap_or(2);
                (styled.trim_end().to_owned(), !error.use_stderr(), code)
            }
        };
        let said = if on_stdout { ui.data(&text) } else { ui.complain(&text) };
        match said {
            Ok(()) => code,
            Err(error) => report::report(ui, &error),
        }
    }
}

/// Says what is wrong with a command line, as a document too where one was asked for; returns the exit code.
pub fn refuse(ui: &Ui, args: &[OsString], said: Said) -> u8 {
    let told = match &said {
        Said::Clap(error) if error.use_stderr() => tell(ui, args, error),
        _ => Ok(()),
    };
    match told {
        Ok(()) => said.show(ui),
        Err(error) => report::report(ui, &error),
    }
}

fn tell(ui: &Ui, args: &[OsString], error: &clap::Error) -> Result<(), CtlError> {
    let clap = Cli::clap(ui.personality());
    let word = command_word(args).filter(|word| clap.find_subcommand(word).is_some());
    let text = error.to_string();
    let mut paragraphs = text.split("\n\n").map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
    let message = match error.kind() {
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            "no command was given".to_owned()
        }
        _ => paragraphs.next().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    };
    // How to pass something that looks like an option as a value is seldom what was wanted.
    let is_useful = |tip: &String| !tip.starts_with("to pass ");
    let tip = paragraphs.find_map(|part| part.strip_prefix("tip: ").map(str::to_owned).filter(is_useful));
    let help = || format!("see `{}`", ["pgherdctl", word.unwrap_or_default(), "--help"].join(" ").replace("  ", " "));
    let error = CtlError::usage(message).next(tip.unwrap_or_else(help));
    outcome::tell_early(ui, own::scan_format(args), word, &error)
}

/// Reads the arguments as the personality knows them.
pub fn read(args: &[OsString], personality: Personality) -> Result<Cli, Said> {
    if !personality.is_patronictl() {
        let cli = Cli::read(args, personality).map_err(Said::Clap)?;
        let wrong = |text| Cli::clap(personality).error(ErrorKind::ValueValidation, text);
        return cli.command.check().map_err(|text| Said::Clap(wrong(text))).map(|()| cli);
    }
    let mut clap = Cli::clap(personality);
    let page = Page::new(&mut clap, args);
    if args.len() <= 1 {
        return Err(Said::Plain { text: page.help(), on_stdout: false, code: 2 });
    }
    if let Some(option) = page.foreign_option(args) {
        return Err(page.error(&no_such_option(&option, &page.known_options())));
    }
    let cli = Cli::read(args, personality).map_err(|error| {
        let Some(before) = options_before_unknown(args, &error) else { return page.said(&error) };
        Page::new(&mut Cli::clap(personality), before).said(&error)
    })?;
    cli.command.check().map_err(|text| page.error(&text)).map(|()| cli)
}

/// The arguments up to an unknown option that stands before the command word: then the error belongs to the program.
fn options_before_unknown<'a>(args: &'a [OsString], error: &clap::Error) -> Option<&'a [OsString]> {
    let Some(ContextValue::String(unknown)) = error.get(ContextKind::InvalidArg) else { return None };
    let is_it = |arg: &OsString| arg.to_str().is_some_and(|arg| arg.starts_with(unknown.as_str()));
    let at = args.iter().position(is_it).filter(|_| error.kind() == ErrorKind::UnknownArgument)?;
    command_word(&args[..at]).is_none().then(|| &args[..at])
}

/// The command whose page is shown.
struct Page<'a> {
    path: String,
    word: Option<&'a str>,
    command: &'a Command,
}

impl<'a> Page<'a> {
    fn new(clap: &'a mut Command, args: &'a [OsString]) -> Self {
        clap.build();
        let word = command_word(args);
        let sub = word.and_then(|word| clap.find_subcommand(word));
        match (sub, word) {
            (Some(command), Some(word)) => Self { path: format!("patronictl {word}"), word: Some(word), command },
            _ => Self { path: "patronictl".to_owned(), word: None, command: clap },
        }
    }

    /// One of our own options in its command, which patronictl does not have.
    fn foreign_option(&self, args: &[OsString]) -> Option<String> {
        let word = self.word?;
        let names: Vec<&Arg> =
            self.command.get_arguments().filter(|a| EXTRAS.contains(&(word, a.get_id().as_str()))).collect();
        let given = args.iter().filter_map(|arg| arg.to_str()).take_while(|arg| *arg != "--");
        given.skip_while(|arg| *arg != word).find_map(|given| {
            let option = given.split('=').next().unwrap_or(given);
            let is = |arg: &&&Arg| {
                let short =
                    arg.get_short().is_some_and(|c| !option.starts_with("--") && option.starts_with(&format!("-{c}")));
                short || arg.get_long().is_some_and(|long| option == format!("--{long}"))
            };
            let arg = names.iter().find(is)?;
            if option.starts_with("--") { Some(option.to_owned()) } else { arg.get_short().map(|c| format!("-{c}")) }
        })
    }

    /// The long options that patronictl has here too.
    fn known_options(&self) -> Vec<String> {
        let word = self.word.unwrap_or_default();
        let known = self.command.get_arguments().filter(|a| !EXTRAS.contains(&(word, a.get_id().as_str())));
        known.filter_map(|a| a.get_long().map(|long| format!("--{long}"))).collect()
    }

    fn said(&self, error: &clap::Error) -> Said {
        let text = |kind| match error.get(kind) {
            Some(ContextValue::String(text)) => text.clone(),
            Some(ContextValue::Strings(texts)) => texts.join(" "),
            _ => String::new(),
        };
        let (arg, value) = (text(ContextKind::InvalidArg), text(ContextKind::InvalidValue));
        let message = match error.kind() {
            ErrorKind::DisplayHelp => return Said::Plain { text: self.help(), on_stdout: true, code: 0 },
            ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                "Missing command.".to_owned()
            }
            ErrorKind::InvalidSubcommand => {
                let names: Vec<String> = self.command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
                let word = text(ContextKind::InvalidSubcommand);
                format!("No such command '{word}'.{}", did_you_mean(&word, &names))
            }
            ErrorKind::UnknownArgument if self.word.is_none() && !arg.starts_with('-') => {
                let names: Vec<String> = self.command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
                format!("No such command '{arg}'.{}", did_you_mean(&arg, &names))
            }
            ErrorKind::UnknownArgument if arg.starts_with('-') => no_such_option(&arg, &self.known_options()),
            ErrorKind::UnknownArgument | ErrorKind::TooManyValues => format!("Got unexpected extra argument ({arg})"),
            ErrorKind::MissingRequiredArgument => {
                let name = arg.split_whitespace().next().unwrap_or(&arg);
                format!("Missing argument '{}'.", name.trim_matches(['<', '>', '.', '[', ']']))
            }
            ErrorKind::InvalidValue if value.is_empty() => {
                format!("Option '{}' requires an argument.", arg.split([' ', '=']).next().unwrap_or(&arg))
            }
            ErrorKind::InvalidValue | ErrorKind::ValueValidation => self.bad_value(&arg, &value, error),
            _ => error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(),
        };
        self.error(&message)
    }

    fn bad_value(&self, arg: &str, value: &str, error: &clap::Error) -> String {
        let option = arg.split_whitespace().next().unwrap_or(arg);
        let found =
            self.command.get_arguments().find(|a| a.get_long().is_some_and(|long| option == format!("--{long}")));
        let name = found.map_or_else(|| format!("'{option}'"), shown_name);
        let why = match error.get(ContextKind::ValidValue) {
            Some(ContextValue::Strings(valid)) if !valid.is_empty() => {
                let valid: Vec<String> = valid.iter().map(|v| format!("'{v}'")).collect();
                format!("is not one of {}.", valid.join(", "))
            }
            _ => format!("is not a valid {}.", found.map_or("value", kind_word)),
        };
        format!("Invalid value for {name}: '{value}' {why}")
    }

    fn error(&self, message: &str) -> Said {
        let text = format!("{}\nTry '{} --help' for help.\n\nError: {message}", self.usage(), self.path);
        Said::Plain { text, on_stdout: false, code: 2 }
    }

    fn usage(&self) -> String {
        let mut words = vec!["[OPTIONS]".to_owned()];
        if self.word.is_none() {
            words.push("COMMAND".to_owned());
            words.push("[ARGS]...".to_owned());
        }
        for arg in self.command.get_positionals() {
            let name = positional_name(arg);
            let many = matches!(arg.get_action(), ArgAction::Append)
                || arg.get_num_args().is_some_and(|range| range.max_values() > 1);
            let name = if arg.is_required_set() { name } else { format!("[{name}]") };
            words.push(if many { format!("{name}...") } else { name });
        }
        if self.word == Some("flush") {
            words.push("{restart|switchover}".to_owned());
        }
        let head = format!("Usage: {} ", self.path);
        python::wrap(&words.join(" "), 78, &head, &" ".repeat(head.len()))
    }

    fn help(&self) -> String {
        let about = self.command.get_about().map(ToString::to_string).unwrap_or_default();
        let mut text = format!("{}\n\n{}\n\nOptions:\n", self.usage(), python::wrap(&about, 78, "  ", "  "));
        let options = self.command.get_arguments().filter(|arg| !arg.is_positional());
        let ours = |arg: &&Arg| self.word.is_none_or(|word| !EXTRAS.contains(&(word, arg.get_id().as_str())));
        let rows = options
            .filter(ours)
            .map(|arg| (option_head(arg), arg.get_help().map(ToString::to_string).unwrap_or_default()));
        text.push_str(&python::definition_list(&rows.collect::<Vec<_>>()));
        let mut commands: Vec<(String, String)> = self
            .command
            .get_subcommands()
            .map(|sub| (sub.get_name().to_owned(), sub.get_about().map(ToString::to_string).unwrap_or_default()))
            .collect();
        if !commands.is_empty() {
            commands.sort();
            text.push_str("\n\nCommands:\n");
            text.push_str(&python::definition_list(&commands));
        }
        text
    }
}

/// The first word that is not an option (or the value of one).
fn command_word(args: &[OsString]) -> Option<&str> {
    let mut words = args.iter().skip(1).filter_map(|arg| arg.to_str());
    while let Some(word) = words.next() {
        match word {
            "--" => return words.next(),
            "--config-file" | "--dcs-url" | "--dcs" => {
                words.next();
            }
            long if long.starts_with("--") => {}
            // In a bundle such as `-kc FILE` the last letter may take the next word.
            short if short.starts_with('-') && short.len() > 1 => {
                let letters = short.trim_start_matches('-').trim_start_matches('k');
                if letters == "c" || letters == "d" {
                    words.next();
                }
            }
            word => return Some(word),
        }
    }
    None
}

fn no_such_option(option: &str, known: &[String]) -> String {
    let option = option.split('=').next().unwrap_or(option);
    let suggestion = if option.starts_with("--") { did_you_mean(option, known) } else { String::new() };
    format!("No such option '{option}'.{suggestion}")
}

fn did_you_mean(word: &str, known: &[String]) -> String {
    difflib::close_match(word, known).map(|best| format!(" Did you mean '{best}'?")).unwrap_or_default()
}

fn positional_name(arg: &Arg) -> String {
    arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string).unwrap_or_default()
}

/// `'--format' / '-f'`; `watch` is declared the other way round.
fn shown_name(arg: &Arg) -> String {
    let long = arg.get_long().map(|long| format!("'--{long}'"));
    let short = arg.get_short().map(|short| format!("'-{short}'"));
    let mut names: Vec<String> = long.into_iter().chain(short).collect();
    if arg.get_id() == "watch" {
        names.reverse();
    }
    names.join(" / ")
}

fn kind_word(arg: &Arg) -> &'static str {
    match arg.get_id().as_str() {
        "group" | "port" => "integer",
        "watch" => "float",
        _ => "value",
    }
}

fn option_head(arg: &Arg) -> String {
    let mut names: Vec<String> = Vec::new();
    names.extend(arg.get_short().map(|short| format!("-{short}")));
    names.extend(arg.get_long().map(|long| format!("--{long}")));
    names.extend(arg.get_visible_aliases().unwrap_or_default().iter().map(|alias| format!("--{alias}")));
    let head = names.join(", ");
    if !arg.get_action().takes_values() {
        return head;
    }
    let choices: Vec<String> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    if !choices.is_empty() {
        return format!("{head} [{}]", choices.join("|"));
    }
    let kind = kind_word(arg);
    format!("{head} {}", if kind == "value" { "TEXT".to_owned() } else { kind.to_uppercase() })
}
