//! The agent, the embedded store and the demo.
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a program reports its own failure")]

use std::error::Error;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use pgherd::agent::cli::{Cli, Command};
use pgherd::agent::validate::{self, Verdict};
use pgherd::agent::{generate, guard, init, life, store};
use pgherd::demo;

/// One more than the least, so that one that is held up (by a disk that hangs) does not stop the other.
const AGENT_THREADS: usize = 2;

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
    if cli.command.is_none() && !(cli.generate_config || cli.generate_sample_config) && init::is_needed() {
        return Ok(init::run()?);
    }
    init::accept_signals();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if cli.command.is_none() {
        // An agent waits for most of its life: a thread for each of many processors would only take memory.
        runtime.worker_threads(AGENT_THREADS).thread_keep_alive(FILE_THREAD_KEPT);
    }
    let runtime = runtime.enable_all().build()?;
    if cli.generate_config || cli.generate_sample_config {
        runtime.block_on(generate::generate(&cli))?;
        return Ok(ExitCode::SUCCESS);
    }
    match cli.command {
        Some(Command::Dcs(args)) => {
            let colour = std::io::stderr().is_terminal();
            tracing_subscriber::fmt().with_ansi(colour).with_writer(std::io::stderr).init();
            runtime.block_on(store::run(&args))?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Demo(args)) => Ok(runtime.block_on(demo::run(&args))?),
        Some(Command::Guard(args)) => Ok(runtime.block_on(life::release(args.config.as_deref()))?),
        None => Ok(runtime.block_on(life::live(cli.config.as_deref()))?),
    }
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
