//! The postmaster as a process: finding it, starting it outside of our own family, and seeing it end.
//!
//! A process is known by number and start time together. The number is remembered in atomics, so that the lease's
//! deadline can stop the server whatever the rest of this program is doing.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::unix::AsyncFd;
use tokio::process::Command;

use super::PgError;
use super::process_tree;

/// How far the start time in the pid file may be from the process's own: the file is written a little later.
const START_TOLERANCE_SECONDS: i64 = 3;

/// The intermediate shell only forks and reports; it is stuck if it takes longer.
const SPAWN_LIMIT: Duration = Duration::from_secs(10);

/// An order to quit is repeated after this long. The grace is a multiple of it.
const REPEAT: Duration = Duration::from_millis(50);

/// How often a process is looked at where the kernel cannot tell us of its end.
const POLL: Duration = Duration::from_millis(50);

/// One postmaster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Postmaster {
    /// Its number.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub start_ticks: u64,
}

impl Postmaster {
    /// The living process of that number. One that has ended and is not collected yet does not live.
    pub fn of(pid: i32) -> Option<Self> {
        let process = process_tree::process(pid).filter(|process| pid > 1 && !process.is_zombie)?;
        Some(Self { pid, start_ticks: process.start_ticks })
    }

    /// It still lives.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends a signal. `false`: it was not there, or is not ours to signal.
    pub fn signal(self, signal: Signal) -> bool {
        self.is_alive() && process_tree::signal(self.pid, signal)
    }

    /// SIGQUIT. The process is woken as well: a suspended one would keep the order for later. A server that has just
    /// been started may not hear it (it begins with the signal ignored), so whoever must be sure repeats it.
    pub fn quit(self) {
        if self.signal(Signal::SIGQUIT) {
            process_tree::signal(self.pid, Signal::SIGCONT);
        }
    }

    /// Returns when it has ended. Safe to drop at any time.
    pub async fn ended(self) {
        if let Some(fd) = pidfd(self.pid)
            && self.is_alive()
            && let Some(fd) = readable(fd)
        {
            let _ = fd.readable().await;
            return;
        }
        while self.is_alive() {
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Waits until this process has ended. `false`: it cannot be waited for, or was gone already.
pub(super) async fn process_ended(pid: i32) -> bool {
    let Some(fd) = pidfd(pid).and_then(readable) else { return false };
    fd.readable().await.is_ok()
}

/// An owned descriptor cannot be closed under the reactor, which is what the deprecation is about.
#[allow(deprecated, reason = "its replacement is unsafe; an owned descriptor needs no promise from the caller")]
pub(super) fn readable(fd: OwnedFd) -> Option<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, tokio::io::Interest::READABLE).ok()
}

fn pidfd(pid: i32) -> Option<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid)?;
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

/// The postmaster last seen, readable without waiting for anybody.
#[derive(Debug, Default)]
pub struct Remembered {
    pid: AtomicI32,
    start_ticks: AtomicU64,
    /// Counts the orders to quit, so that a start under way can see that it came too late.
    quits: AtomicU64,
}

impl Remembered {
    /// The one remembered, living or not.
    pub fn get(&self) -> Option<Postmaster> {
        let pid = self.pid.load(Ordering::Acquire);
        (pid > 1).then(|| Postmaster { pid, start_ticks: self.start_ticks.load(Ordering::Acquire) })
    }

    /// The one remembered, if it still lives.
    pub fn living(&self) -> Option<Postmaster> {
        self.get().filter(|postmaster| postmaster.is_alive())
    }

    /// Remembers another one; whether it is another one.
    pub fn set(&self, postmaster: Postmaster) -> bool {
        let is_new = self.get() != Some(postmaster);
        // Never a new number with an old time: whoever reads in between finds a process that does not match.
        self.pid.store(0, Ordering::Release);
        self.start_ticks.store(postmaster.start_ticks, Ordering::Release);
        self.pid.store(postmaster.pid, Ordering::Release);
        is_new
    }

    /// How often it was told to quit.
    pub fn quits(&self) -> u64 {
        self.quits.load(Ordering::Acquire)
    }

    /// SIGQUIT, at once.
    pub fn quit(&self) {
        self.quits.fetch_add(1, Ordering::AcqRel);
        if let Some(postmaster) = self.get() {
            postmaster.quit();
        }
    }
}

/// What `postmaster.pid` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PidFile {
    /// The process; negative for a single-user server.
    pub pid: i32,
    /// When it was started, in seconds since the epoch.
    pub started: Option<i64>,
    /// The port it listens on.
    pub port: Option<u16>,
    /// `starting`, `ready`, `standby`, `stopping` (PostgreSQL 10 and later).
    pub status: Option<String>,
}

impl PidFile {
    /// Reads the file's text. The lines are written one by one, so later ones may be missing.
    pub fn parse(text: &str) -> Option<Self> {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        Some(Self {
            pid: lines.first()?.parse().ok()?,
            started: lines.get(2).and_then(|line| line.parse().ok()),
            port: lines.get(3).and_then(|line| line.parse().ok()),
            status: lines.get(7).filter(|line| !line.is_empty()).map(|line| (*line).to_owned()),
        })
    }

    /// Reads the file of a data directory.
    pub fn read(data_dir: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(data_dir.join("postmaster.pid")).ok()?)
    }
}

/// Whom the pid file names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// Nobody who lives.
    Nobody,
    /// The postmaster of this data directory.
    Postmaster(Postmaster),
    /// A server in single-user mode, which takes no orders.
    SingleUser(i32),
    /// A living process that is no postmaster: the number was given to somebody else.
    Stranger(i32),
}

/// Judges the process that the pid file names. `program` is the server's own file name.
pub fn named(data_dir: &Path, program: &str) -> Named {
    let Some(file) = PidFile::read(data_dir) else { return Named::Nobody };
    if file.pid < 0 {
        let pid = file.pid.saturating_neg();
        return if Postmaster::of(pid).is_some() { Named::SingleUser(pid) } else { Named::Nobody };
    }
    let Some(found) = Postmaster::of(file.pid) else {
        // PostgreSQL asks only whether the number is taken, and a process not collected yet has it still.
        return match process_tree::process(file.pid) {
            Some(_) if file.pid > 1 => Named::Stranger(file.pid),
            _ => Named::Nobody,
        };
    };
    if is_family(found.pid) || !looks_like_postmaster(found, &file, data_dir, program) {
        return Named::Stranger(found.pid);
    }
    Named::Postmaster(found)
}

/// We, our parent and our children are no postmaster: it is always started outside of our family. In containers the
/// numbers after a restart are often the same as before it.
fn is_family(pid: i32) -> bool {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let parent = process_tree::process(own).map_or(0, |own| own.parent);
    pid == own || pid == parent || process_tree::process(pid).is_some_and(|process| process.parent == own)
}

fn looks_like_postmaster(found: Postmaster, file: &PidFile, data_dir: &Path, program: &str) -> bool {
    let started = started_seconds(found.start_ticks);
    if let (Some(own), Some(noted)) = (started, file.started)
        && (own - noted).abs() <= START_TOLERANCE_SECONDS
    {
        return true;
    }
    // Clocks may have been set since. What the process runs, and where, tells as well.
    let link = |name: &str| fs::read_link(format!("/proc/{}/{name}", found.pid)).ok();
    let Some(executable) = link("exe").and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned())) else {
        return false;
    };
    // An upgrade of the package replaces the file under a running server.
    let executable = executable.strip_suffix(" (deleted)").unwrap_or(&executable);
    if executable != program && executable != "postgres" && executable != "postmaster" {
        return false;
    }
    let own = fs::canonicalize(data_dir).ok();
    match link("cwd") {
        Some(cwd) => Some(cwd) == own,
        None => {
            tracing::warn!("cannot tell the working directory of process {}, taken for our postmaster", found.pid);
            true
        }
    }
}

/// Clock ticks since boot as seconds since the epoch.
fn started_seconds(ticks: u64) -> Option<i64> {
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let boot: i64 = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + i64::try_from(ticks).ok()? / per_second)
}

/// The shared memory segment that `postmaster.pid` names is still in use, though its postmaster is gone.
pub fn has_orphans(data_dir: &Path) -> bool {
    let Ok(text) = fs::read_to_string(data_dir.join("postmaster.pid")) else { return false };
    let pid = text.lines().next().and_then(|line| line.trim().parse::<i32>().ok());
    if pid.is_none_or(|pid| pid < 0 || Postmaster::of(pid).is_some()) {
        return false;
    }
    let segment = text.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)?.parse::<i64>().ok());
    let segments = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    segment.is_some_and(|segment| attached(&segments, segment) > 0)
}

/// How many processes use a segment, out of the kernel's list: `key shmid perms size cpid lpid nattch …`.
fn attached(segments: &str, id: i64) -> u64 {
    let fields = segments.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut found = fields.filter(|fields| fields.get(1).and_then(|text| text.parse().ok()) == Some(id));
    found.next().and_then(|fields| fields.get(6)?.parse().ok()).unwrap_or(0)
}

/// The server processes that work in this directory, whoever their parent is.
pub fn servers_in(data_dir: &Path) -> Vec<process_tree::Process> {
    let Ok(own) = fs::canonicalize(data_dir) else { return Vec::new() };
    let works_here = |pid: i32| {
        let link = |name: &str| fs::read_link(format!("/proc/{pid}/{name}")).ok();
        let executable = link("exe").and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        let executable = executable.unwrap_or_default();
        executable.trim_end_matches(" (deleted)") == "postgres" && link("cwd").as_deref() == Some(own.as_path())
    };
    process_tree::processes().into_iter().filter(|process| works_here(process.pid)).collect()
}

/// Titles of the server's own processes, after `postgres: ` and the cluster's name, when nothing follows them.
const OWN_ALONE: [&str; 12] = [
    "autovacuum launcher",
    "background writer",
    "writer",
    "checkpointer",
    "logger",
    "syslogger",
    "stats collector",
    "logical replication launcher",
    "slotsync worker",
    "walsummarizer",
    "walwriter",
    "wal writer",
];

/// The same, when something follows.
const OWN_WITH_MORE: [&str; 13] = [
    "archiver",
    "startup",
    "autovacuum worker",
    "walreceiver",
    "wal receiver",
    "walsender",
    "wal sender process",
    "logical replication ",
    "bgworker:",
    "io worker",
    "slotsync worker",
    "walsummarizer",
    "datachecksums",
];

/// Whether a process with this title works for a client. One that has no title yet may.
fn is_client_backend(title: &str) -> bool {
    let Some(title) = title.trim_end().strip_prefix("postgres: ") else { return true };
    let named = title.split_once(": ").map(|(_, rest)| rest);
    let is_own =
        |title: &str| OWN_ALONE.contains(&title.trim_end()) || OWN_WITH_MORE.iter().any(|own| title.starts_with(own));
    !is_own(title) && !named.is_some_and(is_own)
}

/// How many processes of a server work for clients: children of its postmaster, or what is left of them.
pub fn client_backends(data_dir: &Path, postmaster: Option<Postmaster>) -> usize {
    let processes = match postmaster.filter(|postmaster| postmaster.is_alive()) {
        Some(postmaster) => process_tree::processes().into_iter().filter(|p| p.parent == postmaster.pid).collect(),
        None => servers_in(data_dir),
    };
    let title = |pid: i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    };
    let living = processes.into_iter().filter(|process| !process.is_zombie);
    living.filter_map(|process| title(process.pid)).filter(|title| is_client_backend(title)).count()
}

/// Kills the server processes that work in this directory. Only for when their postmaster is dead: nothing that they
/// do is worth waiting for then, and recovery comes next anyway.
pub fn kill_orphans(data_dir: &Path) -> usize {
    let orphans = servers_in(data_dir).into_iter();
    orphans.filter(|process| process_tree::signal(process.pid, Signal::SIGKILL)).count()
}

/// Stops at once whatever of this server was started before a moment (in clock ticks since boot): the postmaster that
/// is known, the one that the pid file names, and their processes. First the server's own immediate shutdown, which is
/// given `grace`; then SIGKILL, which also ends what is suspended. Returns how many postmasters were told, and how
/// many processes had to be killed. Blocks.
pub fn stop_at_once(
    data_dir: &Path,
    known: Option<Postmaster>,
    started_before: u64,
    grace: Duration,
) -> (usize, usize) {
    let mut postmasters: Vec<Postmaster> = known.into_iter().collect();
    let mut killed = 0;
    if grace.is_zero() {
        // Too late already: another member may lead. Whoever still answers clients must not wait for the look around.
        let late = postmasters.iter().filter(|postmaster| postmaster.start_ticks < started_before);
        let late = late.filter(|postmaster| postmaster.is_alive());
        killed += late.map(|postmaster| process_tree::kill_with_children(postmaster.pid)).sum::<usize>();
    }
    let told = usize::from(killed > 0);
    if let Named::Postmaster(postmaster) = named(data_dir, "postgres") {
        postmasters.push(postmaster);
    }
    postmasters.dedup();
    postmasters.retain(|postmaster| postmaster.start_ticks < started_before && postmaster.is_alive());
    let mut left = grace;
    while postmasters.iter().any(|postmaster| postmaster.is_alive()) && !left.is_zero() {
        if left.as_millis().is_multiple_of(REPEAT.as_millis()) {
            postmasters.iter().for_each(|postmaster| postmaster.quit());
        }
        let pause = left.min(Duration::from_millis(5));
        std::thread::sleep(pause);
        left -= pause;
    }
    for postmaster in postmasters.iter().filter(|postmaster| postmaster.is_alive()) {
        killed += usize::from(process_tree::kill_tree(postmaster.pid));
    }
    let rest = servers_in(data_dir).into_iter().filter(|process| process.start_ticks < started_before);
    killed += rest.filter(|p| !p.is_zombie && process_tree::signal(p.pid, Signal::SIGKILL)).count();
    (postmasters.len().max(told), killed)
}

/// Nothing of this server runs: neither the postmaster that was known, nor one that the pid file names, nor a process
/// that outlived its postmaster and may still answer a client.
pub fn has_left_nothing(data_dir: &Path, known: Option<Postmaster>) -> bool {
    !known.is_some_and(Postmaster::is_alive)
        && matches!(named(data_dir, "postgres"), Named::Nobody | Named::Stranger(_))
        && servers_in(data_dir).iter().all(|process| process.is_zombie)
}

/// Time since boot in the clock ticks that processes' start times are told in.
pub fn ticks(since_boot: Duration) -> u64 {
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten();
    let per_second = per_second.and_then(|ticks| u128::try_from(ticks).ok()).unwrap_or(100);
    u64::try_from(since_boot.as_millis() * per_second / 1000).unwrap_or(u64::MAX)
}

/// A server to start.
#[derive(Clone, Debug)]
pub struct Spawn {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables on top of ours.
    pub env: BTreeMap<String, String>,
}

/// The shell starts the server in the background, tells its number and ends; the server's parent is then init, and
/// with `setsid` it has a session of its own, so that no signal meant for us reaches it.
const SCRIPT: &str = r#"if command -v setsid >/dev/null 2>&1; then
  setsid "$@" </dev/null >&2 &
else
  "$@" </dev/null >&2 &
fi
echo $!"#;

/// Starts a server that will outlive us. Its output goes where our standard error goes.
pub async fn spawn(spawn: &Spawn) -> Result<Postmaster, PgError> {
    let failed = |detail: String| PgError::Program { program: spawn.program.display().to_string(), detail };
    let mut command = Command::new("/bin/sh");
    command.args(["-c", SCRIPT, "sh"]).arg(&spawn.program).args(&spawn.args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).process_group(0).kill_on_drop(true);
    for (name, value) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text == "PG_MALLOC_ARENA_MAX" {
            command.env("MALLOC_ARENA_MAX", value).env_remove(&name);
        } else if text.starts_with("PATRONI_") || text.starts_with("KUBERNETES_") || text == "NOTIFY_SOCKET" {
            command.env_remove(&name);
        }
    }
    command.envs(&spawn.env);
    // Not `output()`: it would take standard error as well, and wait until the server closes it.
    let child = command.spawn().map_err(|error| failed(format!("cannot be run: {error}")))?;
    let shell = child.id().map_or(0, u32::cast_signed);
    let output = child.wait_with_output();
    tokio::pin!(output);
    let output = tokio::time::timeout(SPAWN_LIMIT, &mut output)
        .await
        .map_err(|_| {
            // With all that it has begun, while it can still be told that it was this shell.
            process_tree::kill_tree(shell);
            PgError::Timeout(SPAWN_LIMIT, "the shell that starts the server".to_owned())
        })?
        .map_err(|error| failed(format!("cannot be run: {error}")))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let pid = said.trim().parse().map_err(|_| failed(format!("the shell said `{}`", said.trim())))?;
    Postmaster::of(pid).ok_or_else(|| failed("ended at once; its own words are in the log".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(seconds: &str) -> Spawn {
        Spawn { program: "/bin/sleep".into(), args: vec![seconds.to_owned()], env: BTreeMap::new() }
    }

    struct Killed(Postmaster);
    impl Drop for Killed {
        fn drop(&mut self) {
            self.0.signal(Signal::SIGKILL);
        }
    }

    #[tokio::test]
    async fn a_spawned_process_is_no_child_of_ours_and_its_end_is_seen() {
        let spawned = spawn(&sleeper("60")).await.unwrap();
        let _guard = Killed(spawned);
        let own = i32::try_from(std::process::id()).unwrap();
        let process = process_tree::process(spawned.pid).unwrap();
        assert_ne!(process.parent, own);
        let ended = spawned.ended();
        tokio::pin!(ended);
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut ended).await.is_err());
        spawned.signal(Signal::SIGTERM);
        tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap();
    }

    #[tokio::test]
    async fn the_one_remembered_quits_even_when_it_is_suspended() {
        let mut child = Command::new("/bin/sleep").arg("60").kill_on_drop(true).spawn().unwrap();
        let sleeper = Postmaster::of(child.id().unwrap().cast_signed()).unwrap();
        let remembered = Remembered::default();
        assert!(remembered.set(sleeper) && !remembered.set(sleeper));
        assert_eq!(remembered.living(), Some(sleeper));
        sleeper.signal(Signal::SIGSTOP);
        remembered.quit();
        tokio::time::timeout(Duration::from_secs(10), sleeper.ended()).await.unwrap();
        assert_eq!((remembered.living(), remembered.quits()), (None, 1));
        child.wait().await.unwrap();
    }

    #[tokio::test]
    async fn a_missing_program_is_an_error() {
        let spawned = spawn(&Spawn { program: "/nonexistent/postgres".into(), ..sleeper("1") }).await;
        // The shell's child may live for a moment before it finds out.
        if let Ok(postmaster) = spawned {
            tokio::time::timeout(Duration::from_secs(10), postmaster.ended()).await.unwrap();
        }
    }

    #[test]
    fn processes_of_clients_are_told_by_their_titles() {
        for own in [
            "postgres: checkpointer ",
            "postgres: e2e: checkpointer",
            "postgres: my: walwriter ",
            "postgres: demo: walreceiver streaming 0/3000148",
            "postgres: startup recovering 000000010000000000000003",
            "postgres: walsender replicator 127.0.0.1(5) streaming 0/3",
            "postgres: x: logical replication worker for subscription 16394 ",
            "postgres: io worker 3",
        ] {
            assert!(!is_client_backend(own), "{own}");
        }
        for client in [
            "postgres: postgres postgres 127.0.0.1(4242) idle",
            "postgres: e2e: app app [local] INSERT",
            "postgres: checkpointer app [local] idle",
            "postgres: parallel worker for PID 42",
            "/usr/lib/postgresql/15/bin/postgres -D /data",
        ] {
            assert!(is_client_backend(client), "{client}");
        }
    }

    #[test]
    fn a_number_given_to_another_process_is_not_signalled() {
        let remembered = Remembered::default();
        let me = i32::try_from(std::process::id()).unwrap();
        remembered.set(Postmaster { pid: me, start_ticks: 1 });
        remembered.quit();
        assert_eq!(remembered.living(), None);
    }

    #[test]
    fn pid_files_are_read_as_far_as_written() {
        let text = "4711\n/data\n1763690000\n5432\n/run\n*\n  123  456\nready   \n";
        let file = PidFile::parse(text).unwrap();
        assert_eq!((file.pid, file.started, file.port), (4711, Some(1_763_690_000), Some(5432)));
        assert_eq!(file.status.as_deref(), Some("ready"));
        assert_eq!(PidFile::parse("-12\n"), Some(PidFile { pid: -12, ..PidFile::default() }));
        assert_eq!(PidFile::parse(""), None);
        assert_eq!(PidFile::parse("x\n"), None);
    }

    #[test]
    fn users_of_a_segment_are_counted() {
        let list = "       key      shmid perms                  size  cpid  lpid nattch   uid\n\
                    \u{20}  5432001         42   600                    56    10    11      3   101\n\
                    \u{20}  5432002         43   600                    56    10    11      0   101\n";
        assert_eq!((attached(list, 42), attached(list, 43), attached(list, 44), attached("", 1)), (3, 0, 0, 0));
        let root = tempfile::tempdir().unwrap();
        assert!(!has_orphans(root.path()));
        fs::write(root.path().join("postmaster.pid"), "x\n").unwrap();
        assert!(!has_orphans(root.path()));
        assert_eq!(kill_orphans(root.path()), 0);
    }

    #[tokio::test]
    async fn who_is_named_by_the_pid_file() {
        let root = tempfile::tempdir().unwrap();
        let write = |text: String| fs::write(root.path().join("postmaster.pid"), text).unwrap();
        assert_eq!(named(root.path(), "postgres"), Named::Nobody);
        let me = std::process::id();
        write(format!("{me}\n"));
        assert_eq!(named(root.path(), "postgres"), Named::Stranger(i32::try_from(me).unwrap()));
        write(format!("-{me}\n"));
        assert_eq!(named(root.path(), "postgres"), Named::SingleUser(i32::try_from(me).unwrap()));
        write(format!("{}\n", i32::MAX));
        assert_eq!(named(root.path(), "postgres"), Named::Nobody);

        let sleeper = spawn(&sleeper("60")).await.unwrap();
        let _guard = Killed(sleeper);
        let started = started_seconds(sleeper.start_ticks).unwrap();
        write(format!("{}\n{}\n{started}\n", sleeper.pid, root.path().display()));
        assert_eq!(named(root.path(), "postgres"), Named::Postmaster(sleeper));
        write(format!("{}\n{}\n{}\n", sleeper.pid, root.path().display(), started - 1000));
        assert_eq!(named(root.path(), "postgres"), Named::Stranger(sleeper.pid));
    }
}
