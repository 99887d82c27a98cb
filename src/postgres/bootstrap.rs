//! A new cluster: `initdb` or the operator's own method, then users and the operator's script.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use postgres_protocol::escape::{escape_identifier, escape_literal};
use serde_json::{Map, Value};
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::cluster::State;
use crate::cluster::tags::is_truthy;
use crate::config::{BootstrapConfig, Credentials, Secret};

use super::programs::{Program, options};
use super::site::{Site, describe};
use super::{PgError, unfinished};

/// Options of `initdb` that are ours to set, or make no sense here.
const INITDB_FORBIDDEN: [&str; 5] = ["pgdata", "nosync", "pwfile", "sync-only", "version"];

/// Keys of a custom method's section that are not arguments for its command.
const RESERVED: [&str; 6] =
    ["command", "no_params", "keep_existing_recovery_conf", "recovery_conf", "scope", "datadir"];

/// One statement about users; they wait for nothing but a disk.
const LIMIT: Duration = Duration::from_secs(10);

/// What the rewind user may call, so that it need not be a superuser.
const REWIND_FUNCTIONS: [&str; 4] = [
    "pg_ls_dir(text, boolean, boolean)",
    "pg_stat_file(text, boolean)",
    "pg_read_binary_file(text)",
    "pg_read_binary_file(text, bigint, bigint, boolean)",
];

/// How the data of a new cluster came to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// By `initdb`.
    New,
    /// By the operator's own method, with these settings for the recovery that finishes its work.
    Restored(Recovering),
}

/// What brings restored data to the point where the new cluster begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovering {
    /// Nothing: the command has left a complete cluster.
    No,
    /// Settings that the command has written itself.
    ByCommand,
    /// These settings.
    By(BTreeMap<String, String>),
}

/// Fills the empty data directory; the caller starts the server. `Err` leaves whatever is there.
pub async fn create(site: &Site, bootstrap: &BootstrapConfig, cancel: &CancellationToken) -> Result<Made, PgError> {
    let made = match custom_method(bootstrap) {
        Some((section, command)) => Made::Restored(custom(site, section, command, cancel).await?),
        None => {
            initdb(site, bootstrap, cancel).await?;
            Made::New
        }
    };
    append_hba(site, &bootstrap.pg_hba)?;
    Ok(made)
}

/// The section of the configured method, when it is not `initdb` and has a command.
fn custom_method(bootstrap: &BootstrapConfig) -> Option<(&Map<String, Value>, &str)> {
    if bootstrap.method.is_empty() || bootstrap.method == "initdb" {
        return None;
    }
    let section = bootstrap.section.get(&bootstrap.method)?.as_object()?;
    let command = section.get("command").and_then(Value::as_str).filter(|command| !command.is_empty())?;
    Some((section, command))
}

async fn initdb(site: &Site, bootstrap: &BootstrapConfig, cancel: &CancellationToken) -> Result<(), PgError> {
    site.set_state(State::Initdb);
    let result = run_initdb(site, bootstrap, cancel).await;
    if result.is_err() {
        site.set_state(State::InitdbFailed);
    }
    result
}

async fn run_initdb(site: &Site, bootstrap: &BootstrapConfig, cancel: &CancellationToken) -> Result<(), PgError> {
    let (args, refused) = options("initdb", &bootstrap.initdb, &INITDB_FORBIDDEN);
    if let Some(why) = refused.first() {
        return Err(PgError::Refused(format!("bootstrap.initdb: {why}")));
    }
    let superuser = &site.config().superuser;
    let mut program = unfinished::marked(site.tool("initdb").args(args), &site.data_dir());
    if let Some(name) = filled(superuser.username.as_deref()) {
        program = program.arg(format!("--username={name}"));
    }
    // Lives until the run is over; removed on every way out.
    let password_file = match &superuser.password {
        Some(password) if !password.reveal().is_empty() => Some(password_file(password)?),
        _ => None,
    };
    if let Some(file) = &password_file {
        program = program.arg(format!("--pwfile={}", file.path().display()));
    }
    program.arg(site.data_dir().display().to_string()).run_ok(cancel).await.map(drop)
}

fn password_file(password: &Secret) -> Result<tempfile::NamedTempFile, PgError> {
    let failed = |source| PgError::Io { path: "temporary password file".to_owned(), source };
    // Created readable by us alone.
    let mut file = tempfile::NamedTempFile::new().map_err(failed)?;
    file.write_all(password.reveal().as_bytes()).and_then(|()| file.flush()).map_err(failed)?;
    Ok(file)
}

async fn custom(
    site: &Site,
    section: &Map<String, Value>,
    command: &str,
    cancel: &CancellationToken,
) -> Result<Recovering, PgError> {
    site.set_state(State::CustomBootstrap);
    tracing::info!("Running custom bootstrap script: {command}");
    let result = match custom_program(site, section, command) {
        Ok(program) => program.run_ok(cancel).await.map(drop),
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        site.set_state(State::CustomBootstrapFailed);
        return Err(error);
    }
    super::clone::restore_configuration(site)?;
    if let Some(settings) = section.get("recovery_conf").and_then(Value::as_object).filter(|map| !map.is_empty()) {
        let settings = settings.iter().map(|(name, value)| (name.to_lowercase(), script_text(value)));
        return Ok(Recovering::By(settings.collect()));
    }
    if section.get("keep_existing_recovery_conf").is_some_and(is_truthy) {
        return Ok(Recovering::ByCommand);
    }
    site.remove_recovery_conf()?;
    Ok(Recovering::No)
}

fn custom_program(site: &Site, section: &Map<String, Value>, command: &str) -> Result<Program, PgError> {
    let mut program = unfinished::marked(Program::script(command)?, &site.data_dir());
    if !section.get("no_params").is_some_and(is_truthy) {
        program = program.arg(format!("--scope={}", site.config().scope));
        program = program.arg(format!("--datadir={}", site.data_dir().display()));
    }
    let others = section.iter().filter(|(name, _)| !RESERVED.contains(&name.as_str()));
    Ok(program.args(others.map(|(name, value)| format!("--{name}={}", script_text(value)))))
}

/// A value as scripts written for Patroni expect it: Python's spelling of booleans and of nothing.
pub(super) fn script_text(value: &Value) -> String {
    match value {
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Null => "None".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Appends the configured lines to the `pg_hba.conf` of the new cluster, unless that file is managed or elsewhere.
fn append_hba(site: &Site, lines: &[String]) -> Result<(), PgError> {
    let config = site.config();
    if lines.is_empty() || config.pg_hba.is_some() || config.parameters.contains_key("hba_file") {
        return Ok(());
    }
    let path = Path::new(&config.config_dir).join("pg_hba.conf");
    let mut text = String::from("\n");
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    let written = fs::OpenOptions::new().append(true).open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| PgError::Io { path: path.display().to_string(), source })
}

/// Users and the operator's script, once the new cluster is a primary. `client` is a superuser's connection.
pub async fn post_bootstrap(
    site: &Site,
    bootstrap: &BootstrapConfig,
    client: &Client,
    cancel: &CancellationToken,
) -> Result<(), PgError> {
    let config = site.config();
    quiet(client).await?;
    let superuser = &config.superuser;
    if filled(superuser.username.as_deref()).is_some() && superuser.password.is_some() {
        ensure_role(client, superuser, "SUPERUSER LOGIN").await?;
    }
    if let Some(command) = &bootstrap.post_bootstrap {
        run_script(site, command, cancel).await?;
    }
    ensure_role(client, &config.replication, "REPLICATION LOGIN").await?;
    if let Some(rewind) = config.rewind.as_ref().filter(|user| user.username != superuser.username) {
        ensure_role(client, rewind, "LOGIN").await?;
        if let Some(name) = filled(rewind.username.as_deref()) {
            for function in REWIND_FUNCTIONS {
                let grantee = escape_identifier(name);
                let grant = format!("GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {grantee}");
                execute(client, &grant).await?;
            }
        }
    }
    if bootstrap.section.get("users").is_some_and(is_truthy) {
        tracing::error!(
            "User creation is not be supported starting from v4.0.0. Please use \"bootstrap.post_bootstrap\" script to \
             create users."
        );
    }
    Ok(())
}

fn filled(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

/// Statements about users stay out of the server's log, and do not wait for standbys that do not exist yet.
async fn quiet(client: &Client) -> Result<(), PgError> {
    for setting in [
        "synchronous_commit TO 'local'",
        "log_statement TO 'none'",
        "log_min_duration_statement TO -1",
        "log_min_error_statement TO 'panic'",
    ] {
        execute(client, &format!("SET {setting}")).await?;
    }
    for setting in ["pg_stat_statements.track_utility TO 'off'", "pgaudit.log TO 'none'"] {
        // Settings of extensions that may not be loaded.
        let _ = execute(client, &format!("SET {setting}")).await;
    }
    Ok(())
}

/// Creates a role or brings it to these attributes. The password goes to the server as a verifier only, so that it
/// can appear nowhere in clear.
async fn ensure_role(client: &Client, user: &Credentials, attributes: &str) -> Result<(), PgError> {
    let Some(name) = filled(user.username.as_deref()) else { return Ok(()) };
    let password = match user.password.as_ref().map(Secret::reveal).filter(|text| !text.is_empty()) {
        Some(password) => format!(" PASSWORD {}", escape_literal(&verifier(client, name, password).await?)),
        None => String::new(),
    };
    let query = "SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = $1";
    let exists = bounded(client.query_opt(query, &[&name])).await?.is_some();
    let verb = if exists { "ALTER" } else { "CREATE" };
    execute(client, &format!("{verb} ROLE {} WITH {attributes}{password}", escape_identifier(name))).await
}

/// What the server stores of a password, by its own `password_encryption`.
async fn verifier(client: &Client, name: &str, password: &str) -> Result<String, PgError> {
    let is_md5 = password.len() == 35 && password.starts_with("md5");
    if is_md5 || password.starts_with("SCRAM-SHA-256$") {
        return Ok(password.to_owned());
    }
    let row = bounded(client.query_one("SELECT pg_catalog.current_setting('password_encryption')", &[])).await?;
    let method: String = row.get(0);
    Ok(match method.as_str() {
        "scram-sha-256" => postgres_protocol::password::scram_sha_256(password.as_bytes()),
        _ => postgres_protocol::password::md5(password.as_bytes(), name),
    })
}

async fn execute(client: &Client, statement: &str) -> Result<(), PgError> {
    bounded(client.batch_execute(statement)).await
}

/// The error names the server's words, never the statement: it may hold a verifier.
async fn bounded<T>(statement: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, PgError> {
    match timeout(LIMIT, statement).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(PgError::Query(describe(&error))),
        Err(_) => Err(PgError::Timeout(LIMIT, "statement about users".to_owned())),
    }
}

/// Runs the operator's script with a connection string as its one argument. The password is in a file.
async fn run_script(site: &Site, command: &str, cancel: &CancellationToken) -> Result<(), PgError> {
    let params = site.superuser_params();
    let mut program = unfinished::marked(Program::script(command)?, &site.data_dir())
        .arg(params.text())
        .env("PGOPTIONS", "-c synchronous_commit=local -c statement_timeout=0");
    if let Some(file) = params.write_pgpass(&site.pgpass())? {
        program = program.env("PGPASSFILE", file);
    }
    match program.run(cancel).await {
        Ok(finished) if finished.is_success() => Ok(()),
        Ok(finished) => {
            tracing::error!("post_init script {command} returned non-zero code {}", finished.code_text());
            Err(PgError::Program { program: command.to_owned(), detail: finished.detail() })
        }
        Err(error) => {
            tracing::error!(%error, "post_init script {command} failed");
            Err(error)
        }
    }
}
