//! Where one server lives and how it is reached: paths, programs, users, the state word. Every job gets a [`Site`];
//! none keeps facts of its own.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_postgres::Client;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::cluster::{ControlData, Lsn, State, SystemId, Timeline, Upstream};
use crate::config::{Credentials, PostgresConfig};

use super::PgError;
use super::pgpass::ConnParams;
use super::process_tree;
use super::programs::Program;
use super::tls::Tls;

/// How long a connection may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// Tools that only look at files.
const LOOK_LIMIT: Duration = Duration::from_secs(10);

/// Where distributions keep the programs when they are not on PATH: a directory per major version.
const VERSIONED: &str = "/usr/lib/postgresql";

/// One server on this machine.
pub struct Site {
    config: RwLock<Arc<PostgresConfig>>,
    state: Mutex<(State, Instant)>,
}

/// A connection with the task that serves it; both end together.
pub struct Session {
    client: Client,
    _task: AbortOnDropHandle<()>,
}

impl Deref for Session {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Site {
    /// A server that is taken to be stopped until somebody looks.
    pub fn new(config: Arc<PostgresConfig>) -> Self {
        Self { config: RwLock::new(config), state: Mutex::new((State::Stopped, Instant::now())) }
    }

    /// The settings in force.
    pub fn config(&self) -> Arc<PostgresConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes over new settings.
    pub fn set_config(&self, config: Arc<PostgresConfig>) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// What the server is doing, and since when.
    pub fn state(&self) -> (State, Instant) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what the server is doing; the time of entry is that of the first of equal notes.
    pub fn set_state(&self, state: State) {
        let mut held = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if held.0 != state {
            *held = (state, Instant::now());
        }
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        PathBuf::from(&self.config().data_dir)
    }

    /// The directory of the WAL; old versions spell it otherwise.
    pub fn wal_dir(&self) -> PathBuf {
        let old = self.data_dir().join("pg_xlog");
        if old.is_dir() { old } else { self.data_dir().join("pg_wal") }
    }

    /// The main configuration file.
    pub fn config_file(&self) -> PathBuf {
        let config = self.config();
        Path::new(&config.config_dir).join(format!("{}.conf", config.config_base_name))
    }

    /// Where a program is: in `bin_dir`; else on PATH; else in the newest versioned directory of the system that has it.
    pub fn program_path(&self, name: &str) -> PathBuf {
        let config = self.config();
        let name = config.bin_name.get(name).map_or(name, String::as_str);
        if !config.bin_dir.is_empty() {
            return Path::new(&config.bin_dir).join(name);
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let on_path = std::env::split_paths(&path).map(|directory| directory.join(name)).find(|path| path.is_file());
        on_path.or_else(|| versioned(Path::new(VERSIONED), name)).unwrap_or_else(|| PathBuf::from(name))
    }

    /// One of PostgreSQL's programs, ready to be given arguments.
    pub fn tool(&self, name: &str) -> Program {
        Program::new(self.program_path(name))
    }

    /// The major version of the programs (90600 for 9.6, 150000 for 15).
    pub async fn tools_version(&self) -> Result<u32, PgError> {
        let said = self.tool("postgres").arg("--version").limit(LOOK_LIMIT).run_ok(&CancellationToken::new()).await?;
        let unreadable = || PgError::Refused(format!("`postgres --version` said `{}`", said.stdout.trim()));
        major_version(&said.stdout).ok_or_else(unreadable)
    }

    /// The password file.
    pub fn pgpass(&self) -> PathBuf {
        match &self.config().pgpass {
            Some(path) => PathBuf::from(path),
            None => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join("pgpass"),
        }
    }

    /// No recovery at the next start.
    pub fn remove_recovery_conf(&self) -> Result<(), PgError> {
        for name in ["recovery.conf", "recovery.signal", "standby.signal"] {
            let path = self.data_dir().join(name);
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(PgError::Io { path: path.display().to_string(), source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn local(&self, credentials: &Credentials, on_socket: bool) -> ConnParams {
        let config = self.config();
        ConnParams {
            host: Some(local_host(&config, on_socket)),
            port: Some(config.port),
            dbname: Some(config.database.clone()),
            credentials: credentials.clone(),
            extra: Vec::new(),
        }
    }

    /// The superuser on this server.
    pub fn superuser_params(&self) -> ConnParams {
        let config = self.config();
        self.local(&config.superuser, config.use_unix_socket)
    }

    /// The replication user on this server.
    pub fn local_replication_params(&self) -> ConnParams {
        let config = self.config();
        self.local(&config.replication, config.use_unix_socket_repl)
    }

    /// The replication user on another server.
    pub fn replication_params(&self, upstream: &Upstream) -> ConnParams {
        let config = self.config();
        ConnParams::to(upstream, &config.replication, &config.database)
    }

    /// The rewind user (else the superuser) on another server.
    pub fn rewind_params(&self, upstream: &Upstream) -> ConnParams {
        let config = self.config();
        ConnParams::to(upstream, config.rewind.as_ref().unwrap_or(&config.superuser), &config.database)
    }

    /// Opens a connection, with short limits on both sides.
    pub async fn connect(&self, params: &ConnParams) -> Result<Session, PgError> {
        let tls = Tls::from_options(&params.credentials.options)?;
        let config = client_config(params, &tls);
        let place = format!("{}:{}", params.host.as_deref().unwrap_or_default(), params.port.unwrap_or(5432));
        let connected = timeout(CONNECT_LIMIT, config.connect(tls)).await;
        let connected = connected.map_err(|_| PgError::Timeout(CONNECT_LIMIT, format!("connection to {place}")))?;
        let (client, connection) =
            connected.map_err(|error| PgError::Query(format!("connection to {place}: {}", describe(&error))))?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("connection lost: {error}");
            }
        });
        Ok(Session { client, _task: AbortOnDropHandle::new(task) })
    }

    /// A server process of this data directory exists.
    pub fn is_running(&self) -> bool {
        let text = std::fs::read_to_string(self.data_dir().join("postmaster.pid")).unwrap_or_default();
        let pid = text.lines().next().and_then(|line| line.trim().parse::<i32>().ok());
        let Some(process) = pid.and_then(process_tree::process).filter(|process| !process.is_zombie) else {
            return false;
        };
        let cwd = std::fs::read_link(format!("/proc/{}/cwd", process.pid)).ok();
        let own = std::fs::canonicalize(self.data_dir()).ok();
        cwd.is_none() || cwd == own
    }

    /// What `pg_controldata` says.
    pub async fn control_data(&self) -> Result<ControlData, PgError> {
        let program = self.tool("pg_controldata").in_c_locale().arg(self.data_dir().display().to_string());
        let said = program.limit(LOOK_LIMIT).run_ok(&CancellationToken::new()).await?;
        Ok(control_data(&said.stdout))
    }
}

/// The words of an error of the client library, without its prefixes.
pub fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{}: {}", db.severity(), db.message()),
        None => {
            let source = std::error::Error::source(error);
            source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
        }
    }
}

fn client_config(params: &ConnParams, tls: &Tls) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    for host in params.host.as_deref().unwrap_or_default().split(',').filter(|host| !host.is_empty()) {
        config.host(host).port(params.port.unwrap_or(5432));
    }
    config.dbname(params.dbname.as_deref().unwrap_or("postgres"));
    config.user(params.credentials.username.as_deref().unwrap_or_default());
    if let Some(password) = &params.credentials.password {
        config.password(password.reveal());
    }
    if params.extra.iter().any(|(name, value)| name == "target_session_attrs" && value == "read-write") {
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    config.application_name("Patroni").connect_timeout(CONNECT_LIMIT).ssl_mode(tls.ssl_mode());
    config.options("-c statement_timeout=2000 -c search_path=pg_catalog");
    config
}

/// The first address that we listen on, as seen from here; the first socket directory when that is wanted and there is
/// one.
fn local_host(config: &PostgresConfig, on_socket: bool) -> String {
    if on_socket {
        let directories = config.parameters.get("unix_socket_directories").map(String::as_str);
        let directories = directories.unwrap_or("/var/run/postgresql").split(',').map(str::trim);
        if let Some(directory) = directories.into_iter().find(|directory| directory.starts_with('/')) {
            return directory.to_owned();
        }
    }
    let mut addresses = config.listen_addresses.split(',').map(str::trim);
    let is_local = |address: &str| matches!(address, "*" | "localhost" | "0.0.0.0" | "127.0.0.1");
    match addresses.clone().find(|address| is_local(address)) {
        Some(_) => "localhost".to_owned(),
        None => addresses.next().filter(|address| !address.is_empty()).unwrap_or("localhost").to_owned(),
    }
}

fn versioned(root: &Path, name: &str) -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin").join(name))))
        .filter(|(_, path)| path.is_file())
        .collect();
    found.sort();
    found.pop().map(|(_, path)| path)
}

/// `postgres (PostgreSQL) 15.2 (Debian …)` as 150000, `9.6.24` as 90600.
fn major_version(text: &str) -> Option<u32> {
    let number = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let mut parts = number.split('.').map(|part| {
        let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        part[..digits].parse::<u32>().unwrap_or(0)
    });
    let (first, second) = (parts.next()?, parts.next().unwrap_or(0));
    Some(if first >= 10 { first * 10_000 } else { first * 10_000 + second * 100 })
}

fn control_data(text: &str) -> ControlData {
    let get = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim().trim_start_matches("Current ") == name).then_some(value.trim())
        })
    };
    let lsn = |name: &str| get(name).and_then(|value| value.parse().ok()).unwrap_or(Lsn::ZERO);
    let timeline = |name: &str| get(name).and_then(|value| value.parse().ok()).filter(|n| *n > 0).map(Timeline);
    let has_checksums = get("Data page checksum version").is_some_and(|value| value != "0");
    ControlData {
        cluster_state: get("Database cluster state").unwrap_or_default().to_owned(),
        system_id: get("Database system identifier").and_then(SystemId::parse),
        checkpoint: lsn("Latest checkpoint location"),
        checkpoint_timeline: timeline("Latest checkpoint's TimeLineID"),
        min_recovery: lsn("Minimum recovery ending location"),
        min_recovery_timeline: timeline("Min recovery ending loc's timeline"),
        rewindable: has_checksums || get("wal_log_hints setting") == Some("on"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_programs() {
        assert_eq!(major_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(150_000));
        assert_eq!(major_version("postgres (PostgreSQL) 9.6.24"), Some(90_600));
        assert_eq!(major_version("postgres (PostgreSQL) 19devel"), Some(190_000));
        assert_eq!(major_version("nonsense"), None);
    }

    #[test]
    fn control_data_is_read() {
        let text = "Database cluster state:               shut down\n\
                    Database system identifier:           7710267184385916675\n\
                    Latest checkpoint location:           0/3000028\n\
                    Latest checkpoint's TimeLineID:       2\n\
                    Minimum recovery ending location:     0/0\n\
                    Min recovery ending loc's timeline:   0\n\
                    wal_log_hints setting:                on\n\
                    Data page checksum version:           0\n";
        let control = control_data(text);
        assert_eq!(control.cluster_state, "shut down");
        assert_eq!((control.checkpoint, control.checkpoint_timeline), (Lsn(0x300_0028), Some(Timeline(2))));
        assert_eq!((control.min_recovery, control.min_recovery_timeline), (Lsn::ZERO, None));
        assert!(control.rewindable && control.system_id.is_some());
        assert_eq!(control_data(""), ControlData::default());
    }

    #[test]
    fn the_newest_version_wins() {
        let root = tempfile::tempdir().unwrap();
        for version in ["9.6", "15", "100", "x"] {
            let bin = root.path().join(version).join("bin");
            std::fs::create_dir_all(&bin).unwrap();
            std::fs::write(bin.join("initdb"), "").unwrap();
        }
        assert_eq!(versioned(root.path(), "initdb"), Some(root.path().join("100/bin/initdb")));
        assert_eq!(versioned(root.path(), "postgres"), None);
    }
}
