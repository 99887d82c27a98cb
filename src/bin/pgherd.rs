//! The agent, the embedded store and the demo.
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a program reports its own failure")]

use std::error::Error;
use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use pgherd::agent::cli::{Cli, Command};
use pgherd::agent::validate::{self, Verdict};
use pgherd::agent::{generate, guard, init, life, store};
use pgherd::demo;
use tokio::runtime::Builder;

/// Threads for what an agent does beside its loop. One more than the least, so that one that is held up (by a disk that
/// hangs) does not stop the other.
const HELPERS: usize = 2;

/// Files are read on a thread of their own, in every cycle: it is kept from one to the next.
const FILE_THREAD_KEPT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    match run(Cli::read()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("pgherd: {error}");
            let mut cause = error.source();
            while let Some(inner) = cause {
                eprintln!("  caused by: {inner}");
                cause = inner.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, Box<dyn Error>> {
    if let Some(Command::Guard(args)) = &cli.command
        && !args.release
    {
        return Ok(guard::process::run(&args.data_dir, args.config.as_deref())?);
    }
    if cli.validate_config {
        return Ok(report(&validate::validate_for(&cli), cli.print));
    }
    let is_generating = cli.generate_config || cli.generate_sample_config;
    if cli.command.is_none() && !is_generating && init::is_needed() {
        return Ok(init::run()?);
    }
    init::accept_signals();
    let runtime = || Builder::new_multi_thread().enable_all().build();
    if is_generating {
        runtime()?.block_on(generate::generate(&cli))?;
        return Ok(ExitCode::SUCCESS);
    }
    match cli.command {
        Some(Command::Dcs(args)) => {
            let colour = std::io::stderr().is_terminal();
            tracing_subscriber::fmt().with_ansi(colour).with_writer(std::io::stderr).init();
            runtime()?.block_on(store::run(&args))?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Demo(args)) => Ok(runtime()?.block_on(demo::run(&args))?),
        Some(Command::Guard(args)) => Ok(runtime()?.block_on(life::release(args.config.as_deref()))?),
        None => agent(cli.config.as_deref()),
    }
}

/// An agent waits for most of its life. Its loop has this thread for itself, with all that a cycle at rest needs: who
/// hands nothing over to other threads wakes none. Whatever may take longer, and whoever asks for something, is served
/// by the helpers, which sleep meanwhile; a thread for each of many processors would only take memory.
fn agent(config: Option<&Path>) -> Result<ExitCode, Box<dyn Error>> {
    let helpers =
        Builder::new_multi_thread().worker_threads(HELPERS).thread_keep_alive(FILE_THREAD_KEPT).enable_all().build()?;
    let own = Builder::new_current_thread().thread_keep_alive(FILE_THREAD_KEPT).enable_all().build()?;
    Ok(own.block_on(life::live(config, helpers.handle()))?)
}

/// What `--validate-config` says: problems and warnings on stderr, the merged configuration on stdout.
fn report(verdict: &Verdict, print: bool) -> ExitCode {
    verdict.errors.iter().for_each(|line| eprintln!("{line}"));
    if !verdict.errors.is_empty() {
        return ExitCode::FAILURE;
    }
    verdict.warnings.iter().for_each(|line| eprintln!("warning: {line}"));
    if print {
        print!("{}", verdict.merged);
    }
    ExitCode::SUCCESS
}
