//! The command line of `pgherd`.
//!
//! Without a subcommand it is the agent, started as Patroni is: one configuration file, or none and only `PATRONI_*`
//! variables.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Run one member of a PostgreSQL high-availability cluster.
#[derive(Debug, Parser)]
#[command(name = "pgherd", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// The agent's configuration: a YAML file as Patroni reads it, or a directory of them; without it only PATRONI_*
    /// variables count. With --generate-config or --generate-sample-config, the file to write
    pub config: Option<PathBuf>,
    /// Check the configuration and exit: 0 if it can be used, 1 with a line per problem if not
    #[arg(long, group = "instead")]
    pub validate_config: bool,
    /// Write a sample configuration for this host and exit
    #[arg(long, group = "instead")]
    pub generate_sample_config: bool,
    /// Write a configuration made from a running PostgreSQL server and exit
    #[arg(long, group = "instead")]
    pub generate_config: bool,
    /// Which server --generate-config asks, as a superuser; the PG* variables without it
    #[arg(long, value_name = "DSN")]
    pub dsn: Option<String>,
    /// With --validate-config, ports to listen on may be in use
    #[arg(long, short)]
    pub ignore_listen_port: bool,
    /// With --validate-config, print the configuration with the variables merged in
    #[arg(long, short)]
    pub print: bool,
    /// Another program than the agent.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What `pgherd` can be besides the agent.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the embedded store: one process that speaks etcd's v3 API
    Dcs(DcsArgs),
    /// Start the embedded store and a three-member cluster on this machine
    Demo(DemoArgs),
    /// Stop PostgreSQL when the agent does not renew its lease in time; the agent starts this by itself
    #[command(hide = true)]
    Guard(GuardArgs),
}

/// Stop PostgreSQL when the agent does not renew its lease in time; the agent starts this by itself
#[derive(Clone, Debug, Args)]
pub struct GuardArgs {
    /// The server's data directory
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// The agent's configuration
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Give the leader key back and end: agent and server are dead
    #[arg(long)]
    pub release: bool,
}

/// Serve the embedded store: one process that speaks etcd's v3 API
///
/// It keeps what the agents need from etcd (keys, transactions, leases, watches) in one durable file. One process is
/// one point of failure: use it to try things, and etcd itself in production.
#[derive(Clone, Debug, Args)]
pub struct DcsArgs {
    /// Address to listen on; port 0 takes a free one and logs it
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:2379")]
    pub listen: SocketAddr,
    /// Directory of the store, created if missing
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
}

/// Start the embedded store and a three-member cluster on this machine
///
/// Run again, it resumes the cluster it left behind. Ctrl-C stops everything it started.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Directory for the store, the members and their logs
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Remove the cluster of an earlier run and start anew
    #[arg(long)]
    pub fresh: bool,
    /// Run a self-checking tour and end; exits non-zero if a step fails
    #[arg(long)]
    pub script: bool,
    /// User to run PostgreSQL as when started as root
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// Directory of PostgreSQL's programs; found on PATH or in the system's versioned directories without it
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_bare_argument_is_the_configuration() {
        let cli = Cli::try_parse_from(["pgherd", "node1.yml"]).unwrap();
        assert_eq!(cli.config, Some(PathBuf::from("node1.yml")));
        assert!(cli.command.is_none());
    }

    #[test]
    fn one_thing_instead_of_the_agent_at_a_time() {
        let cli = Cli::try_parse_from(["pgherd", "--validate-config", "-i", "-p", "n.yml"]).unwrap();
        assert!(cli.validate_config && cli.ignore_listen_port && cli.print && cli.config.is_some());
        assert!(Cli::try_parse_from(["pgherd", "--validate-config", "--generate-config"]).is_err());
        let cli = Cli::try_parse_from(["pgherd", "--generate-config", "--dsn", "host=h"]).unwrap();
        assert_eq!(cli.dsn.as_deref(), Some("host=h"));
    }

    #[test]
    fn the_store_wants_a_directory() {
        assert!(Cli::try_parse_from(["pgherd", "dcs"]).is_err());
        let cli = Cli::try_parse_from(["pgherd", "dcs", "--listen", "127.0.0.1:0", "--data-dir", "/d"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Dcs(args)) if args.listen.port() == 0));
    }
}
