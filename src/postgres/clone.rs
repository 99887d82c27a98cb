//! Filling an empty data directory from another server: the configured methods in order, until one succeeds.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::cluster::tags::is_truthy;
use crate::cluster::{State, Unfinished};

use super::bootstrap::script_text;
use super::programs::{Program, options};
use super::removal::remove_data_dir;
use super::site::Site;
use super::{ClonePlan, PgError, blocking, unfinished};

/// The method that is always there.
const BASEBACKUP: &str = "basebackup";

/// Options of `pg_basebackup` that are ours to set or would not leave a data directory behind.
const BASEBACKUP_FORBIDDEN: [&str; 11] = [
    "pgdata",
    "format",
    "wal-method",
    "xlog-method",
    "gzip",
    "version",
    "dbname",
    "host",
    "port",
    "username",
    "password",
];

/// How often a base backup is tried, and the pause between.
const TRIES: u32 = 2;
const PAUSE: Duration = Duration::from_secs(5);

/// Fills the data directory; does not start it. When every method has failed nothing of it is left.
pub async fn clone_from(site: &Site, plan: &ClonePlan, cancel: &CancellationToken) -> Result<(), PgError> {
    site.set_state(State::CreatingReplica);
    let result = try_methods(site, plan, cancel).await;
    site.set_state(State::Stopped);
    result?;
    restore_configuration(site)?;
    remove_trigger_file(site);
    Ok(())
}

async fn try_methods(site: &Site, plan: &ClonePlan, cancel: &CancellationToken) -> Result<(), PgError> {
    let source = plan.source.as_ref().map(|upstream| site.replication_params(upstream));
    let (connstring, passfile) = match &source {
        Some(params) => (params.text(), params.write_pgpass(&site.pgpass())?),
        None => (String::new(), None),
    };
    let mut last =
        PgError::Refused("no replica creation method can work without a source; wait for a leader".to_owned());
    let methods = methods(site, plan);
    if !methods.is_empty() {
        let begin = |data_dir: &Path| {
            unfinished::note(data_dir, Unfinished::Clone);
            Ok(())
        };
        on_disk(site, begin).await?;
    }
    for method in &methods {
        if cancel.is_cancelled() {
            last = PgError::Cancelled;
            break;
        }
        let result = match section(site, method) {
            None if method == BASEBACKUP => basebackup(site, &connstring, passfile.as_deref(), cancel).await,
            section => custom(site, method, section.as_ref(), &connstring, passfile.as_deref(), cancel).await,
        };
        match result {
            Ok(()) => {
                tracing::info!("replica has been created using {method}");
                return on_disk(site, unfinished::forget).await;
            }
            Err(error) => last = error,
        }
        if matches!(last, PgError::Cancelled) {
            break;
        }
    }
    if !methods.is_empty() {
        // What a method wanted kept was for another method: half of a cluster must not be started.
        empty(site).await?;
        on_disk(site, unfinished::forget).await?;
    }
    Err(last)
}

/// The methods to try: those of the remote cluster's configuration, else ours, else a base backup; without a source
/// only those that need none.
fn methods(site: &Site, plan: &ClonePlan) -> Vec<String> {
    let config = site.config();
    let configured = match &plan.source {
        None if plan.basebackup_only => return Vec::new(),
        None => return config.leaderless_methods(),
        Some(_) if plan.basebackup_only => Vec::new(),
        Some(remote) if remote.member.is_none() => remote.create_replica_methods.clone(),
        Some(source) if !source.create_replica_methods.is_empty() => source.create_replica_methods.clone(),
        Some(_) => config.create_replica_methods.clone(),
    };
    if configured.is_empty() { vec![BASEBACKUP.to_owned()] } else { configured }
}

/// A custom method's section. `basebackup` is never custom: its section holds options.
fn section(site: &Site, method: &str) -> Option<Map<String, Value>> {
    if method == BASEBACKUP { None } else { site.config().methods.get(method).cloned() }
}

async fn basebackup(
    site: &Site,
    connstring: &str,
    passfile: Option<&str>,
    cancel: &CancellationToken,
) -> Result<(), PgError> {
    let mut program = unfinished::marked(site.tool("pg_basebackup"), &site.data_dir())
        .arg(format!("--pgdata={}", site.data_dir().display()))
        .args(["-X", "stream"])
        .arg(format!("--dbname={connstring}"))
        .args(basebackup_options(&site.config().basebackup, site.tools_version().await? / 10_000));
    if let Some(passfile) = passfile {
        program = program.env("PGPASSFILE", passfile);
    }
    let mut last = PgError::Cancelled;
    for attempt in 1..=TRIES {
        empty(site).await?;
        last = match program.run(cancel).await {
            Ok(finished) if finished.is_success() => return Ok(()),
            Ok(finished) => {
                tracing::error!(
                    "Error when fetching backup: pg_basebackup exited with code={}: {}",
                    finished.code_text(),
                    finished.stderr.trim()
                );
                PgError::Program { program: "pg_basebackup".to_owned(), detail: finished.detail() }
            }
            Err(PgError::Cancelled) => PgError::Cancelled,
            Err(error) => {
                tracing::error!(%error, "Error when fetching backup with pg_basebackup");
                error
            }
        };
        if matches!(last, PgError::Cancelled) {
            break;
        }
        if attempt < TRIES {
            tracing::warn!("Trying again in {} seconds", PAUSE.as_secs());
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = cancel.cancelled() => {
                    last = PgError::Cancelled;
                    break;
                }
            }
        }
    }
    empty(site).await?;
    Err(last)
}

/// The configured options; what is not allowed is logged and left out. Compression only makes sense where the server
/// does it: the other kinds leave an archive instead of a data directory.
fn basebackup_options(configured: &Value, major: u32) -> Vec<String> {
    let (mut args, refused) = options("basebackup", configured, &BASEBACKUP_FORBIDDEN);
    for why in refused {
        tracing::error!("{why}");
    }
    args.retain(|arg| {
        let Some(value) = arg.strip_prefix("--compress") else { return true };
        if major < 15 {
            tracing::error!("compress option for basebackup is not allowed");
        } else if !value.trim_start_matches('=').starts_with("server") {
            tracing::error!(
                "compress option for basebackup must use server-side compression (e.g., server-gzip, server-zstd). \
                 Client-side compression is not allowed."
            );
        } else {
            return true;
        }
        false
    });
    args
}

async fn custom(
    site: &Site,
    method: &str,
    section: Option<&Map<String, Value>>,
    connstring: &str,
    passfile: Option<&str>,
    cancel: &CancellationToken,
) -> Result<(), PgError> {
    let keeps_data = section.and_then(|section| section.get("keep_data")).is_some_and(is_truthy);
    if keeps_data {
        tracing::info!("Leaving data directory uncleaned");
    } else {
        empty(site).await?;
    }
    let (command, args) = custom_command(site, method, section, connstring);
    let mut program = unfinished::marked(Program::script(&command)?, &site.data_dir()).args(args);
    if let Some(passfile) = passfile {
        program = program.env("PGPASSFILE", passfile);
    }
    let error = match program.run(cancel).await {
        Ok(finished) if finished.is_success() => return Ok(()),
        Ok(finished) => {
            let code = finished.code_text();
            tracing::error!("Error creating replica using method {method}: {command} exited with code={code}");
            PgError::Program { program: command, detail: finished.detail() }
        }
        Err(error) => {
            tracing::error!(%error, "Error creating replica using method {method}");
            error
        }
    };
    if !keeps_data {
        empty(site).await?;
    }
    Err(error)
}

/// The command of a custom method and its arguments: the section's own keys, and unless it wants none, where to put
/// what.
fn custom_command(
    site: &Site,
    method: &str,
    section: Option<&Map<String, Value>>,
    connstring: &str,
) -> (String, Vec<String>) {
    let mut section = section.cloned().unwrap_or_default();
    let command = section.shift_remove("command").map_or_else(|| method.to_owned(), |command| script_text(&command));
    if section.get("no_params").is_some_and(is_truthy) {
        for name in ["no_params", "no_leader", "keep_data"] {
            section.shift_remove(name);
        }
    } else {
        let ours = [
            ("scope", site.config().scope.clone()),
            ("role", "replica".to_owned()),
            ("datadir", site.data_dir().display().to_string()),
            ("connstring", connstring.to_owned()),
        ];
        section.extend(ours.map(|(name, value)| (name.to_owned(), Value::String(value))));
    }
    (command, section.iter().map(|(name, value)| format!("--{name}={}", script_text(value))).collect())
}

/// Removes what is in the data directory.
async fn empty(site: &Site) -> Result<(), PgError> {
    if fs::read_dir(site.data_dir()).map_or(true, |mut entries| entries.next().is_none()) {
        return Ok(());
    }
    on_disk(site, remove_data_dir).await
}

/// Work on the data directory: there may be much.
async fn on_disk(site: &Site, work: fn(&Path) -> Result<(), PgError>) -> Result<(), PgError> {
    let data_dir = site.data_dir();
    blocking(move || work(&data_dir)).await
}

/// Puts configuration files back that the backup does not contain (when they live outside of the data directory),
/// from the copies that every successful start makes.
pub(super) fn restore_configuration(site: &Site) -> Result<(), PgError> {
    let config = site.config();
    let config_dir = Path::new(&config.config_dir);
    let base = &config.config_base_name;
    let mut files = vec![format!("{base}.conf")];
    if config.custom_conf.is_none() {
        files.push(format!("{base}.base.conf"));
    }
    for (name, parameter) in [("pg_hba.conf", "hba_file"), ("pg_ident.conf", "ident_file")] {
        if !config.parameters.contains_key(parameter) {
            files.push(name.to_owned());
        }
    }
    for name in files {
        let path = config_dir.join(&name);
        let copy = site.data_dir().join(format!("{name}.backup"));
        let restored = match (path.is_file(), copy.is_file()) {
            (true, _) => Ok(()),
            (false, true) => fs::copy(&copy, &path).map(drop),
            (false, false) if name == "pg_ident.conf" => fs::write(&path, ""),
            (false, false) => Ok(()),
        };
        if let Err(source) = restored {
            tracing::error!("unable to restore configuration files from backup: {}: {source}", path.display());
            return Err(PgError::Io { path: path.display().to_string(), source });
        }
    }
    Ok(())
}

/// A trigger file that came with the backup would promote the new standby at once.
fn remove_trigger_file(site: &Site) {
    let config = site.config();
    let configured = ["promote_trigger_file", "trigger_file"].iter().find_map(|name| config.recovery_conf.get(*name));
    let path: PathBuf = site.data_dir().join(configured.map_or("promote", String::as_str));
    if path.is_file()
        && let Err(error) = fs::remove_file(&path)
    {
        tracing::warn!("Unable to remove {}: {error}", path.display());
    }
}
