//! `--validate-config`: what is wrong with a configuration, before an agent is started with it.

use std::collections::BTreeMap;
use std::path::Path;

use crate::config::overlay::{self, Assembled};
use crate::config::schema::{self, Problem, Strictness};
use crate::config::{DcsConfig, Dynamic, LocalConfig, Origins, PostgresConfig, yaml};

use super::cli::Cli;
use super::configuration;
use super::machine::Machine;
use super::task::chain;

/// What a check of a configuration found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What is wrong, a line each; without any the configuration can be used.
    pub errors: Vec<String>,
    /// What an agent would say about it and go on.
    pub warnings: Vec<String>,
    /// The merged configuration as YAML.
    pub merged: String,
}

/// Checks the configuration that the command line and the environment name.
pub fn validate_for(cli: &Cli) -> Verdict {
    let environment = std::env::vars().collect();
    validate(cli.config.as_deref(), &environment, Strictness { ignore_listen_ports: cli.ignore_listen_port })
}

/// Checks the configuration at `path`, with the variables laid over it.
pub fn validate(path: Option<&Path>, environment: &BTreeMap<String, String>, strictness: Strictness) -> Verdict {
    let assembled = configuration::texts(path, environment)
        .and_then(|files| overlay::assemble(&files, environment).map_err(|error| chain(&error)));
    match assembled {
        Ok(assembled) => judge(assembled, strictness),
        Err(error) => Verdict { errors: vec![error], warnings: Vec::new(), merged: String::new() },
    }
}

fn judge(assembled: Assembled, strictness: Strictness) -> Verdict {
    let Assembled { document, origins, findings } = assembled;
    let merged = yaml::write(&document.clone().into(), true);
    let problems = schema::check(&document, &Machine, strictness);
    let mut warnings: Vec<String> = findings.iter().map(ToString::to_string).collect();
    let mut errors: Vec<String> = problems.iter().map(|problem| line(problem, &origins)).collect();
    if errors.is_empty() {
        match read_as_agent(document, &origins) {
            Ok(more) => warnings.extend(more),
            Err(error) => errors.push(error),
        }
    }
    Verdict { errors, warnings, merged }
}

/// Patroni's line, and what it does not say: what would be right, and where to write it.
fn line(problem: &Problem, origins: &Origins) -> String {
    let wanted = if problem.wanted.is_empty() { String::new() } else { format!("expected {}; ", problem.wanted) };
    let place = origins.of(&problem.path).unwrap_or_else(|| "no file".to_owned());
    format!("{problem} [{wanted}{place}]")
}

/// What only the agent itself knows: rules of ours, and what this build can do.
fn read_as_agent(
    document: serde_json::Map<String, serde_json::Value>,
    origins: &Origins,
) -> Result<Vec<String>, String> {
    let (local, findings) = LocalConfig::from_document(document).map_err(|error| chain(&error.located(origins)))?;
    if let DcsConfig::Unsupported(kind) = &local.dcs {
        let message = format!("{kind}: this version has no such backend; configure etcd3");
        return Err(origins.locate(kind, &message));
    }
    if let Some(problem) = local.restapi.cipher_problem() {
        return Err(origins.locate("restapi.ciphers", &problem));
    }
    let dynamic = local.bootstrap.as_ref().map(|bootstrap| bootstrap.dcs.clone()).unwrap_or_default();
    let (_, more) = PostgresConfig::build(&local, &dynamic).map_err(|error| chain(&error.located(origins)))?;
    let (_, timing) = Dynamic::from_document(&dynamic);
    let located = findings.into_iter().chain(more).map(|finding| finding.located(origins).to_string());
    let shared =
        timing.into_iter().map(|finding| origins.locate(&format!("bootstrap.dcs.{}", finding.path), &finding.message));
    Ok(located.chain(shared).collect())
}
