//! `--generate-sample-config` and `--generate-config`: a configuration for this host.

mod running;

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;

use serde_json::{Map, Value};

use crate::config::ConfigError;
use crate::config::generate::{Host, complete_sample, layout, template};
use crate::config::overlay::{self, Environment};

use super::cli::Cli;
use super::machine;
use super::task::chain;

/// Why no configuration was made, in words with the next step.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct GenerateError(String);

/// Writes the wanted configuration to the file on the command line, or to stdout.
pub async fn generate(cli: &Cli) -> Result<(), GenerateError> {
    let environment: Environment = std::env::vars().collect();
    let document = if cli.generate_config {
        match start(&environment) {
            Ok(template) => running::document(template, &environment, cli.dsn.as_deref()).await,
            Err(error) => Err(error),
        }
    } else {
        sample(&environment)
    };
    write(&layout(&document.map_err(GenerateError)?), cli.config.as_deref())
}

/// The template with what the environment says. `PATRONI_CONFIGURATION` stands for all other variables.
fn start(environment: &Environment) -> Result<Map<String, Value>, String> {
    match overlay::assemble(&[], environment) {
        Ok(whole) => Ok(template(&this_host(), &whole.document)),
        Err(ConfigError::Empty) => Ok(template(&this_host(), &Map::new())),
        Err(error) => Err(chain(&error)),
    }
}

fn sample(environment: &Environment) -> Result<Map<String, Value>, String> {
    let mut document = start(environment)?;
    let section = document.get("postgresql");
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let dir = text(section.and_then(|section| section.get("bin_dir")));
    let name = text(section.and_then(|section| section.get("bin_name")?.get("postgres")));
    let version = machine::server_version(name.as_deref().unwrap_or("postgres"), dir.as_deref())?;
    complete_sample(&mut document, version);
    Ok(document)
}

/// The host's name and its first address, IPv4 before IPv6.
fn this_host() -> Host {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let found = name.and_then(|name| {
        let mut addresses: Vec<SocketAddr> = (name.as_str(), 0).to_socket_addrs().ok()?.collect();
        addresses.sort_by_key(SocketAddr::is_ipv6);
        Some(Host { address: addresses.first()?.ip().to_string(), name })
    });
    found.unwrap_or_else(Host::unknown)
}

fn write(text: &str, path: Option<&Path>) -> Result<(), GenerateError> {
    let Some(path) = path else {
        let mut out = std::io::stdout().lock();
        // A reader that has seen enough is no failure.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        return Ok(());
    };
    let failed = |error: std::io::Error| GenerateError(format!("{} cannot be written: {error}", path.display()));
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        fs::create_dir_all(dir).map_err(failed)?;
    }
    fs::write(path, text).map_err(failed)
}
