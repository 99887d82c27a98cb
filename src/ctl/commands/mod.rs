//! One file per command. This one only lists them.

use super::Exit;
use super::context::Context;
use super::error::CtlError;

pub mod demote_cluster;
pub mod dsn;
pub mod edit_config;
pub mod failover;
pub mod flush;
pub mod history;
pub mod list;
pub mod pause;
pub mod promote_cluster;
pub mod query;
pub mod reinit;
pub mod reload;
pub mod remove;
pub mod restart;
pub mod resume;
pub mod show_config;
pub mod switchover;
pub mod topology;
pub mod version;

/// The commands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Let the cluster follow another one, from a host or an archive
    DemoteCluster(demote_cluster::DemoteClusterArgs),
    /// Say where to connect to, for the leader or another member
    Dsn(dsn::DsnArgs),
    /// Edit the cluster's dynamic configuration
    EditConfig(edit_config::EditConfigArgs),
    /// Make a named member the leader, with or without one before
    Failover(failover::FailoverArgs),
    /// Take back scheduled restarts or a scheduled switchover
    Flush(flush::FlushArgs),
    /// Show when the cluster changed its timeline and its leader
    History(history::HistoryArgs),
    /// Show the members of a cluster
    List(list::ListArgs),
    /// Maintenance mode: the members leave PostgreSQL alone
    Pause(pause::PauseArgs),
    /// Let a cluster that follows another one stand on its own
    PromoteCluster(promote_cluster::PromoteClusterArgs),
    /// Run SQL on a member
    Query(query::QueryArgs),
    /// Throw a replica's data away and clone it anew
    Reinit(reinit::ReinitArgs),
    /// Let members read their configuration file again
    Reload(reload::ReloadArgs),
    /// Forget a cluster: remove all its keys from the DCS
    Remove(remove::RemoveArgs),
    /// Restart PostgreSQL of some members, now or later
    Restart(restart::RestartArgs),
    /// End maintenance mode
    Resume(pause::PauseArgs),
    /// Show the cluster's dynamic configuration
    ShowConfig(show_config::ShowConfigArgs),
    /// Hand the leadership over to another member, now or later
    Switchover(switchover::SwitchoverArgs),
    /// Show the members of a cluster as a tree
    Topology(topology::TopologyArgs),
    /// Show the version of this program, or of a cluster's members
    Version(version::VersionArgs),
}

impl Command {
    /// Whether the cluster may be left out and was.
    pub fn lacks_cluster(&self) -> bool {
        match self {
            Self::DemoteCluster(args) => args.cluster.is_none(),
            Self::Dsn(args) => args.cluster.is_none(),
            Self::EditConfig(args) => args.cluster.is_none(),
            Self::Failover(args) => args.cluster.is_none(),
            Self::History(args) => args.cluster.is_none(),
            Self::Pause(args) | Self::Resume(args) => args.cluster.is_none(),
            Self::PromoteCluster(args) => args.cluster.is_none(),
            Self::Query(args) => args.cluster.is_none(),
            Self::ShowConfig(args) => args.cluster.is_none(),
            Self::Switchover(args) => args.cluster.is_none(),
            // These show all clusters then.
            Self::List(_) | Self::Topology(_) => false,
            Self::Flush(_) | Self::Reinit(_) | Self::Reload(_) | Self::Remove(_) | Self::Restart(_) => false,
            Self::Version(_) => false,
        }
    }

    /// The command's word, and the cluster as it was named.
    pub fn subject(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::DemoteCluster(args) => ("demote-cluster", args.cluster.as_deref()),
            Self::Dsn(args) => ("dsn", args.cluster.as_deref()),
            Self::EditConfig(args) => ("edit-config", args.cluster.as_deref()),
            Self::Failover(args) => ("failover", args.cluster.as_deref()),
            Self::Flush(args) => ("flush", Some(&args.cluster)),
            Self::History(args) => ("history", args.cluster.as_deref()),
            Self::List(args) => ("list", only(&args.clusters)),
            Self::Pause(args) => ("pause", args.cluster.as_deref()),
            Self::PromoteCluster(args) => ("promote-cluster", args.cluster.as_deref()),
            Self::Query(args) => ("query", args.cluster.as_deref()),
            Self::Reinit(args) => ("reinit", Some(&args.cluster)),
            Self::Reload(args) => ("reload", Some(&args.cluster)),
            Self::Remove(args) => ("remove", Some(&args.cluster)),
            Self::Restart(args) => ("restart", Some(&args.cluster)),
            Self::Resume(args) => ("resume", args.cluster.as_deref()),
            Self::ShowConfig(args) => ("show-config", args.cluster.as_deref()),
            Self::Switchover(args) => ("switchover", args.cluster.as_deref()),
            Self::Topology(args) => ("topology", only(&args.clusters)),
            Self::Version(args) => ("version", args.cluster.as_deref()),
        }
    }

    /// Whether it changes something, and so ends with what became of it rather than with data.
    pub fn reports(&self) -> bool {
        match self {
            Self::Dsn(_) | Self::History(_) | Self::List(_) | Self::Query(_) => false,
            Self::ShowConfig(_) | Self::Topology(_) | Self::Version(_) => false,
            Self::DemoteCluster(_) | Self::EditConfig(_) | Self::Failover(_) | Self::Flush(_) | Self::Pause(_) => true,
            Self::PromoteCluster(_) | Self::Reinit(_) | Self::Reload(_) | Self::Restart(_) | Self::Resume(_) => true,
            Self::Remove(_) | Self::Switchover(_) => true,
        }
    }

    /// What is wrong with the arguments beyond what the parser sees, as patronictl says it.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Flush(args) => args.check(),
            Self::Query(args) => args.check(),
            _ => Ok(()),
        }
    }
}

/// The name, if there is just one.
fn only(names: &[String]) -> Option<&str> {
    if let [only] = names { Some(only) } else { None }
}

/// Runs a command.
pub async fn run(context: &Context<'_>, command: &Command) -> Result<Exit, CtlError> {
    match command {
        Command::DemoteCluster(args) => demote_cluster::run(context, args).await,
        Command::Dsn(args) => dsn::run(context, args).await,
        Command::EditConfig(args) => edit_config::run(context, args).await,
        Command::Failover(args) => failover::run(context, args).await,
        Command::Flush(args) => flush::run(context, args).await,
        Command::History(args) => history::run(context, args).await,
        Command::List(args) => list::run(context, args).await,
        Command::Pause(args) => pause::run(context, args).await,
        Command::PromoteCluster(args) => promote_cluster::run(context, args).await,
        Command::Query(args) => query::run(context, args).await,
        Command::Reinit(args) => reinit::run(context, args).await,
        Command::Reload(args) => reload::run(context, args).await,
        Command::Remove(args) => remove::run(context, args).await,
        Command::Restart(args) => restart::run(context, args).await,
        Command::Resume(args) => resume::run(context, args).await,
        Command::ShowConfig(args) => show_config::run(context, args).await,
        Command::Switchover(args) => switchover::run(context, args).await,
        Command::Topology(args) => topology::run(context, args).await,
        Command::Version(args) => version::run(context, args).await,
    }
}
