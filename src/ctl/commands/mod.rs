//! One file per command. This one only lists them.

use super::Outcome;
use super::context::Context;
use super::error::CtlError;

pub mod version;

/// The commands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show the version of this program, or of a cluster's members
    Version(version::VersionArgs),
}

/// Runs a command.
pub async fn run(context: &Context<'_>, command: &Command) -> Result<Outcome, CtlError> {
    match command {
        Command::Version(args) => version::run(context, args).await,
    }
}
