//! Where one server lives and how it is reached: paths, programs, users, the state word. Every job gets a [`Site`];
//! none keeps facts of its own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cluster::{ControlData, State, Upstream};
use crate::config::{self, Credentials, PostgresConfig};

use super::PgError;
use super::connection::{self, CONNECT_LIMIT};
pub use super::connection::{Session, describe};
use super::control_data::Report;
use super::pgpass::ConnParams;
use super::process::{self, Named, Remembered};
use super::programs::Program;
use super::version;

/// Tools that only look at files.
const LOOK_LIMIT: Duration = Duration::from_secs(10);

/// Where distributions keep the programs when they are not on PATH: a directory per major version.
const VERSIONED: &str = "/usr/lib/postgresql";

/// A file at one of its states.
type Stamped = (PathBuf, Option<SystemTime>);

/// One server on this machine.
pub struct Site {
    config: RwLock<Arc<PostgresConfig>>,
    state: Mutex<(State, Instant)>,
    /// The server process last seen.
    pub(super) postmaster: Remembered,
    /// Where the running server listens; a change of the settings moves it only at its next start.
    address: RwLock<Option<Arc<PostgresConfig>>>,
    found_bin_dir: Mutex<Option<(Option<u32>, PathBuf)>>,
    program_version: Mutex<Option<(Stamped, u32)>>,
}

impl Site {
    /// A server that is taken to be stopped until somebody looks.
    pub fn new(config: Arc<PostgresConfig>) -> Self {
        Self {
            config: RwLock::new(config),
            state: Mutex::new((State::Stopped, Instant::now())),
            postmaster: Remembered::default(),
            address: RwLock::new(None),
            found_bin_dir: Mutex::new(None),
            program_version: Mutex::new(None),
        }
    }

    /// The settings in force.
    pub fn config(&self) -> Arc<PostgresConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes over new settings.
    pub fn set_config(&self, config: Arc<PostgresConfig>) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// The server listens by the settings that are in force now, on `port` if that is known better, until the next
    /// call.
    pub fn fix_address(&self, port: Option<u16>) {
        let config = self.config();
        let address = match port {
            Some(port) if port != config.port => Arc::new(PostgresConfig { port, ..PostgresConfig::clone(&config) }),
            _ => config,
        };
        *self.address.write().unwrap_or_else(PoisonError::into_inner) = Some(address);
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

    fn program_name(&self, tool: &str) -> String {
        self.config().bin_name.get(tool).cloned().unwrap_or_else(|| tool.to_owned())
    }

    /// Where a program is: in `bin_dir`; else beside the server's program, wherever that is found; else on PATH.
    pub fn program_path(&self, tool: &str) -> PathBuf {
        let name = self.program_name(tool);
        let config = self.config();
        if !config.bin_dir.is_empty() {
            return Path::new(&config.bin_dir).join(name);
        }
        let beside = self.bin_dir().map(|directory| directory.join(&name)).filter(|path| path.is_file());
        beside.or_else(|| on_path(&name).next()).unwrap_or_else(|| PathBuf::from(name))
    }

    /// The directory of the programs when none is configured. Found once for each major version of the data directory.
    fn bin_dir(&self) -> Option<PathBuf> {
        let major = version::of_data_dir(&self.data_dir());
        let mut found = self.found_bin_dir.lock().unwrap_or_else(PoisonError::into_inner);
        match &*found {
            Some((for_major, directory)) if *for_major == major && directory.is_dir() => Some(directory.clone()),
            _ => {
                let directory = find_bin_dir(&self.program_name("postgres"), major, Path::new(VERSIONED))?;
                *found = Some((major, directory.clone()));
                Some(directory)
            }
        }
    }

    /// One of PostgreSQL's programs, ready to be given arguments.
    pub fn tool(&self, name: &str) -> Program {
        Program::new(self.program_path(name))
    }

    /// The version of the programs as `postgres --version` says it, minor part included. Asked once for each program
    /// file.
    pub async fn programs_version(&self) -> Result<u32, PgError> {
        let path = self.program_path("postgres");
        let stamp = std::fs::metadata(&path).and_then(|metadata| metadata.modified()).ok();
        if let Some((of, version)) = &*self.program_version.lock().unwrap_or_else(PoisonError::into_inner)
            && *of == (path.clone(), stamp)
        {
            return Ok(*version);
        }
        let program = Program::new(&path).arg("--version").limit(LOOK_LIMIT);
        let said = program.run_ok(&CancellationToken::new()).await?;
        let unreadable = || PgError::Refused(format!("`postgres --version` said `{}`", said.stdout.trim()));
        let version = version::parse(&said.stdout).ok_or_else(unreadable)?;
        *self.program_version.lock().unwrap_or_else(PoisonError::into_inner) = Some(((path, stamp), version));
        Ok(version)
    }

    /// The parameters that the server's program knows, in lower case.
    pub async fn described_parameters(&self) -> Result<BTreeSet<String>, PgError> {
        let program = self.tool("postgres").arg("--describe-config").limit(LOOK_LIMIT);
        let said = program.run_ok(&CancellationToken::new()).await?;
        let names = said.stdout.lines().filter_map(|line| line.split('\t').next());
        Ok(names.map(str::to_lowercase).collect())
    }

    /// The major version of the programs (90600 for 9.6, 150000 for 15).
    pub async fn tools_version(&self) -> Result<u32, PgError> {
        Ok(version::major(self.programs_version().await?))
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
        let address = self.address.read().unwrap_or_else(PoisonError::into_inner).clone();
        let config = address.unwrap_or_else(|| self.config());
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
        Ok(connection::open(params, "Patroni", CONNECT_LIMIT).await?)
    }

    /// Whom the pid file names, the one remembered before it: a server whose files were removed under it still runs.
    pub fn named(&self) -> Named {
        if let Some(postmaster) = self.postmaster.living() {
            return Named::Postmaster(postmaster);
        }
        let named = process::named(&self.data_dir(), &self.program_name("postgres"));
        if let Named::Postmaster(postmaster) = named {
            self.postmaster.set(postmaster);
        }
        named
    }

    /// A server process of this data directory exists.
    pub fn is_running(&self) -> bool {
        matches!(self.named(), Named::Postmaster(_))
    }

    /// What `pg_controldata` says, all of it.
    pub async fn report(&self) -> Result<Report, PgError> {
        let program = self.tool("pg_controldata").in_c_locale().arg(self.data_dir().display().to_string());
        let said = program.limit(LOOK_LIMIT).run_ok(&CancellationToken::new()).await?;
        Ok(Report::parse(&said.stdout))
    }

    /// What `pg_controldata` says, as far as decisions need it.
    pub async fn control_data(&self) -> Result<ControlData, PgError> {
        Ok(self.report().await?.facts())
    }
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
    config::postgresql::local_host(&config.listen_addresses).to_owned()
}

/// Where a program of the server is when there is neither `bin_dir` nor data to match: on PATH, else in the newest of
/// the system's versioned directories.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let newest = || versioned_directories(Path::new(VERSIONED), name).pop().map(|(_, directory)| directory.join(name));
    on_path(name).next().or_else(newest)
}

fn on_path(name: &str) -> impl Iterator<Item = PathBuf> + use<> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let name = name.to_owned();
    let candidates: Vec<PathBuf> = std::env::split_paths(&path).map(|directory| directory.join(&name)).collect();
    candidates.into_iter().filter(|path| path.is_file())
}

/// The directory of the server's program: the one on PATH if it is a real program of the wanted major version; else
/// the system's directory for that version; else the one on PATH or the newest. Wrapper scripts are passed over: they
/// choose a version by rules of their own.
fn find_bin_dir(name: &str, major: Option<u32>, versioned: &Path) -> Option<PathBuf> {
    let real = |path: &PathBuf| std::fs::canonicalize(path).ok().filter(|path| is_program(path));
    let first = on_path(name).find_map(|path| {
        let path = real(&path)?;
        Some((program_major(&path)?, path.parent()?.to_owned()))
    });
    let directories = versioned_directories(versioned, name);
    let fits = |found: &u32| major.is_none_or(|major| major == *found);
    match (first, major) {
        (Some((found, directory)), _) if fits(&found) => Some(directory),
        (first, Some(major)) => {
            let matching = directories.iter().find(|(found, _)| *found == major).map(|(_, path)| path.clone());
            matching.or(first.map(|(_, path)| path)).or(directories.into_iter().next_back().map(|(_, path)| path))
        }
        (_, None) => directories.into_iter().next_back().map(|(_, path)| path),
    }
}

/// A compiled program, not a script.
fn is_program(path: &Path) -> bool {
    let mut head = [0; 4];
    let read = std::fs::File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut head));
    read.is_ok() && head == *b"\x7fELF"
}

/// Asks a program for its major version. It is a compiled server, which answers at once.
fn program_major(path: &Path) -> Option<u32> {
    let said = std::process::Command::new(path).arg("--version").stdin(std::process::Stdio::null()).output().ok()?;
    version::parse(&String::from_utf8_lossy(&said.stdout)).map(version::major)
}

/// The system's directories that have the program, oldest version first.
fn versioned_directories(root: &Path, name: &str) -> Vec<(u32, PathBuf)> {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((version::parse(entry.file_name().to_str()?)?, entry.path().join("bin"))))
        .filter(|(_, directory)| directory.join(name).is_file())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_the_data_directory_is_preferred_to_the_newest() {
        let root = tempfile::tempdir().unwrap();
        let bin = |version: &str| root.path().join(version).join("bin");
        for version in ["9.6", "15", "100", "x"] {
            std::fs::create_dir_all(bin(version)).unwrap();
            std::fs::write(bin(version).join("no-such-server"), "").unwrap();
        }
        let find = |major| find_bin_dir("no-such-server", major, root.path());
        assert_eq!(find(None), Some(bin("100")));
        assert_eq!(find(Some(150_000)), Some(bin("15")));
        assert_eq!(find(Some(90_600)), Some(bin("9.6")));
        assert_eq!(find(Some(140_000)), Some(bin("100")));
        assert_eq!(find_bin_dir("neither", None, root.path()), None);
        assert!(!is_program(&bin("15").join("no-such-server")));
        assert!(is_program(&std::env::current_exe().unwrap()));
    }
}
