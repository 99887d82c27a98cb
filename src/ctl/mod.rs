//! `pgherdctl`, the operator's CLI.
//!
//! One program, two personalities ([`Personality`]): called as `patronictl` it prints and exits as patronictl does;
//! called by any other name it has true exit codes, errors that name the next step, and one JSON document per call.
//! The command words and options are the same.
//!
//! A command is one file in [`commands`] with one shape: arguments, then gather, then one pure function from the
//! cluster's snapshot to what is to be shown or done, then rendering. Only [`ui`] touches the terminal; only
//! [`report`] words an error; [`render`] turns views into text and does no I/O.
//!
//! To add a command: copy a file in `commands/`, add its `mod` line, its variant and its arm in `commands/mod.rs`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

pub mod advice;
pub mod colour;
pub mod commands;
pub mod complete;
pub mod context;
mod contexts;
pub mod delivery;
pub mod desk;
pub mod documents;
pub mod error;
pub mod exit;
pub mod handover;
pub mod health;
pub mod known;
pub mod libpq;
pub mod outcome;
pub mod own;
pub mod pager;
pub mod plan;
pub mod render;
pub mod report;
pub mod restarting;
pub mod schedule;
pub mod settings;
pub mod sql;
pub mod targets;
pub mod ui;
pub mod underway;
pub mod usage;
pub mod without_dcs;

pub use context::{Context, Outside};
pub use error::{CtlError, ErrorKind};
pub use exit::Exit;
pub use ui::Ui;

/// How the program presents itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Personality {
    /// Ours.
    Pgherdctl,
    /// Byte for byte what scripts written for patronictl expect.
    Patronictl,
}

impl Personality {
    /// Names a personality over the program's own name; anything else in it counts for nothing.
    const CHOICE: &str = "PGHERDCTL_PERSONA";

    /// By `PGHERDCTL_PERSONA`, else by the name the program was called with.
    pub fn of(program: Option<&OsString>, environment: &BTreeMap<String, String>) -> Self {
        let called = program.map(Path::new).and_then(Path::file_stem).and_then(OsStr::to_str);
        let names = [environment.get(Self::CHOICE).map(String::as_str), called];
        let known = |name: &str| [Self::Pgherdctl, Self::Patronictl].into_iter().find(|one| one.program() == name);
        names.into_iter().flatten().find_map(known).unwrap_or(Self::Pgherdctl)
    }

    /// The program's name in help and usage.
    pub fn program(self) -> &'static str {
        match self {
            Self::Pgherdctl => "pgherdctl",
            Self::Patronictl => "patronictl",
        }
    }

    /// Whether patronictl's bytes and exit codes are wanted.
    pub fn is_patronictl(self) -> bool {
        self == Self::Patronictl
    }
}

/// Options before the command word.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct GlobalArgs {
    /// Configuration file, or a directory of *.yml files [env: PATRONICTL_CONFIG_FILE]
    #[arg(short = 'c', long, value_name = "TEXT")]
    pub config_file: Option<String>,
    /// Where the DCS is, instead of what the configuration says.
    #[arg(help = "Where the DCS is: [SCHEME://]HOST[:PORT][/NAMESPACE] [env: DCS_URL]")]
    #[arg(short = 'd', long, visible_alias = "dcs", value_name = "TEXT")]
    pub dcs_url: Option<String>,
    /// Do not verify the certificate of the REST API
    #[arg(short = 'k', long)]
    pub insecure: bool,
    /// What only we understand.
    #[arg(skip)]
    pub own: own::Own,
}

/// See and steer PostgreSQL clusters run by pgherd or Patroni.
#[derive(Debug, clap::Parser)]
#[command(name = "pgherdctl")]
pub struct Cli {
    /// Options before the command word.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: commands::Command,
}

impl Cli {
    /// The command line as a personality knows it. Options may be repeated (the last one counts), and `-h`,
    /// `--version` and `help` exist only where patronictl does not refuse them.
    pub fn clap(personality: Personality) -> clap::Command {
        let ours = !personality.is_patronictl();
        let help = move || {
            let arg = clap::Arg::new("help").long("help").action(clap::ArgAction::Help);
            let arg = arg.help(if ours { "Print help" } else { "Show this message and exit." });
            if ours { arg.short('h') } else { arg }
        };
        let root = Self::command().name(personality.program()).bin_name(personality.program());
        let root = root.disable_help_flag(true).disable_help_subcommand(true).disable_version_flag(true);
        let root = root.args_override_self(true).arg(help());
        let root = if ours {
            let version = clap::Arg::new("version").long("version").action(clap::ArgAction::Version);
            root.version(crate::VERSION).arg(version.help("Print version")).after_help(exit::help())
        } else {
            root
        };
        let root = root.mut_subcommands(|sub| sub.disable_help_flag(true).args_override_self(true).arg(help()));
        if ours { own::Own::add(root) } else { root.mut_subcommands(|sub| sub.mut_args(takes_anything)) }
    }

    /// Reads the arguments.
    pub fn read(args: &[OsString], personality: Personality) -> Result<Self, clap::Error> {
        let matches = Self::clap(personality).try_get_matches_from(args)?;
        let mut cli = Self::from_arg_matches(&matches)?;
        cli.global.own = own::Own::of(&matches);
        Ok(cli)
    }
}

/// There, whatever follows an option with a value is that value, `-1` and `--force` included.
fn takes_anything(arg: clap::Arg) -> clap::Arg {
    let takes_value = arg.get_action().takes_values() && !arg.is_positional();
    if takes_value { arg.allow_hyphen_values(true) } else { arg }
}

/// What the process was started with.
#[derive(Clone, Debug, Default)]
pub struct Invocation {
    /// The arguments, program name first.
    pub args: Vec<OsString>,
    /// The environment.
    pub environment: BTreeMap<String, String>,
}

/// The program: builds the runtime, runs the command, and stops at Ctrl-C.
pub fn main(args: Vec<OsString>, environment: BTreeMap<String, String>) -> ExitCode {
    if let Some(shell) = environment.get(complete::SHELL).cloned() {
        return complete::main(&shell, &args, environment);
    }
    let ui = Ui::terminal(Personality::of(args.first(), &environment));
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return ExitCode::from(report::report(&ui, &CtlError::new("no runtime").because(error))),
    };
    let invocation = Invocation { args, environment };
    let code = runtime.block_on(async {
        tokio::select! {
            biased;
            code = run(&invocation, &ui, Outside::real()) => code,
            Ok(()) = tokio::signal::ctrl_c() => report::report(&ui, &ui.interrupted()),
        }
    });
    // A question that was being asked still waits for its line in a thread; nobody needs the answer any more.
    runtime.shutdown_background();
    ExitCode::from(code)
}

/// Runs one command line and returns the exit code. Everything that is said goes through `ui`.
pub async fn run(invocation: &Invocation, ui: &Ui, outside: Outside) -> u8 {
    let personality = ui.personality();
    ui.choose_color(own::scan_color(&invocation.args).unwrap_or_default(), &invocation.environment);
    let cli = match usage::read(&invocation.args, personality) {
        Ok(cli) => cli,
        Err(said) => return usage::refuse(ui, &invocation.args, said),
    };
    ui.choose_color(cli.global.own.color, &invocation.environment);
    let result = match Context::new(ui, &cli.global, &invocation.environment, outside) {
        Ok(context) => carry_out(context, &cli).await,
        Err(error) => refuse(ui, &cli, error),
    };
    match result {
        // What was shown counts as success there, a refusal included.
        Ok(_) if personality.is_patronictl() => Exit::Done.code(),
        Ok(end) => end.code(),
        Err(error) => report::report(ui, &error),
    }
}

async fn carry_out(mut context: Context<'_>, cli: &Cli) -> Result<Exit, CtlError> {
    if context.personality().is_patronictl() {
        return commands::run(&context, &cli.command).await;
    }
    let result = ours(&mut context, &cli.command).await;
    outcome::tell(context.ui, cli, context.settings.scope.as_deref(), &context.record, &result)?;
    result
}

/// What only our personality does around a command.
async fn ours(context: &mut Context<'_>, command: &commands::Command) -> Result<Exit, CtlError> {
    if context.settings.scope.is_none() && command.lacks_cluster() {
        context.choose_scope().await?;
    }
    let (_, named) = command.subject();
    let is_change = command.reports() || matches!(command, commands::Command::Remove(_));
    if is_change {
        context.ui.changes(named.or(context.settings.scope.as_deref()).unwrap_or_default());
    }
    let result = tokio::select! {
        biased;
        result = commands::run(context, command) => result,
        // What is left behind belongs into the document, where one is wanted.
        () = context.ui.interruption(), if is_change => Err(context.ui.interrupted()),
    };
    match result {
        Err(error) if error.unknown_cluster().is_some() => Err(context.with_suggestion(error).await),
        result => result,
    }
}

/// The end before the beginning: the configuration cannot be used.
fn refuse(ui: &Ui, cli: &Cli, error: CtlError) -> Result<Exit, CtlError> {
    let result = Err(error);
    if !ui.personality().is_patronictl() {
        outcome::tell(ui, cli, None, &outcome::Record::default(), &result)?;
    }
    result
}
