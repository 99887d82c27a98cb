//! One file per command. This one only lists them.

use super::Outcome;
use super::context::Context;
use super::error::CtlError;

pub mod edit_config;
pub mod history;
pub mod list;
pub mod show_config;
pub mod topology;
pub mod version;

/// The commands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Edit the cluster's dynamic configuration
    EditConfig(edit_config::EditConfigArgs),
    /// Show when the cluster changed its timeline and its leader
    History(history::HistoryArgs),
    /// Show the members of a cluster
    List(list::ListArgs),
    /// Show the cluster's dynamic configuration
    ShowConfig(show_config::ShowConfigArgs),
    /// Show the members of a cluster as a tree
    Topology(topology::TopologyArgs),
    /// Show the version of this program, or of a cluster's members
    Version(version::VersionArgs),
}

/// Runs a command.
pub async fn run(context: &Context<'_>, command: &Command) -> Result<Outcome, CtlError> {
    match command {
        Command::EditConfig(args) => edit_config::run(context, args).await,
        Command::History(args) => history::run(context, args).await,
        Command::List(args) => list::run(context, args).await,
        Command::ShowConfig(args) => show_config::run(context, args).await,
        Command::Topology(args) => topology::run(context, args).await,
        Command::Version(args) => version::run(context, args).await,
    }
}
