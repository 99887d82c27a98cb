//! The command line of `pgherd`.
//!
//! Without a subcommand it is the agent, started as Patroni is: one configuration file, or none and only `PATRONI_*`
//! variables.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

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

impl Cli {
    /// Reads the command line, or says what is wrong with it and ends.
    pub fn read() -> Self {
        let args: Vec<OsString> = std::env::args_os().skip(1).collect();
        Self::plain(&args).unwrap_or_else(Self::parse)
    }

    /// How agents and guards are started every day is read without the whole parser, which would stay in memory for as
    /// long as they live.
    fn plain(args: &[OsString]) -> Option<Self> {
        let (config, command) = match args {
            [config] if Path::new(config).is_absolute() || Path::new(config).extension().is_some() => {
                let is_option = config.as_encoded_bytes().starts_with(b"-");
                ((!is_option).then(|| PathBuf::from(config))?.into(), None)
            }
            [guard, data_dir_option, data_dir, rest @ ..] if guard == "guard" && data_dir_option == "--data-dir" => {
                let config = match rest {
                    [] => None,
                    [option, config] if option == "--config" => Some(PathBuf::from(config)),
                    _ => return None,
                };
                let args = GuardArgs { data_dir: PathBuf::from(data_dir), config, release: false };
                (None, Some(Command::Guard(args)))
            }
            _ => return None,
        };
        Some(Self {
            config,
            validate_config: false,
            generate_sample_config: false,
            generate_config: false,
            dsn: None,
            ignore_listen_port: false,
            print: false,
            command,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_short_way_says_what_the_parser_says() {
        let is_plain = |line: &str| {
            let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            let plain = Cli::plain(&args);
            if let Some(plain) = &plain {
                let parsed = Cli::try_parse_from(std::iter::once(OsString::from("pgherd")).chain(args)).unwrap();
                assert_eq!(format!("{plain:?}"), format!("{parsed:?}"), "{line}");
            }
            plain.is_some()
        };
        for line in ["/etc/n1.yml", "n1.yml", "/etc/patroni", "guard --data-dir /d", "guard --data-dir /d --config c"] {
            assert!(is_plain(line), "{line}");
        }
        for line in ["", "demo", "dcs", "help", "--version", "-i.x", "n1.yml -p", "guard --data-dir /d --release"] {
            assert!(!is_plain(line), "{line}");
        }
    }

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
