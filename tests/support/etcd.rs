//! Stores as processes: a real etcd, or `pgherd dcs`. Each lives in a temporary directory on free ports and is killed
//! when it goes out of scope, also by a panic.

#![allow(dead_code, unreachable_pub, reason = "every test binary takes what it needs")]

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::ground::{free_port, program};

/// Whether tests that need etcd can run; says so loudly when they cannot.
pub fn is_etcd_installed() -> bool {
    find_etcd().is_some()
}

fn find_etcd() -> Option<PathBuf> {
    program("etcd", "etcd-server")
}

/// A store process.
pub struct Server {
    child: Option<Child>,
    command: Box<dyn Fn() -> Command + Send + Sync>,
    port: u16,
    _dir: TempDir,
}

impl Server {
    /// A lone etcd member. `extra` goes to its command line.
    pub fn etcd(extra: &[&str]) -> Self {
        let (port, peer) = (free_port(), free_port());
        let peers = format!("m=http://127.0.0.1:{peer}");
        Self::etcd_member("m", port, peer, &peers, extra)
    }

    /// Three members of one cluster.
    pub fn etcd_cluster() -> [Self; 3] {
        let ports = [(); 3].map(|()| (free_port(), free_port()));
        let peers = (0..3).map(|i| format!("m{i}=http://127.0.0.1:{}", ports[i].1)).collect::<Vec<_>>().join(",");
        let mut members = [0, 1, 2].map(|i| Self::etcd_unready(&format!("m{i}"), ports[i].0, ports[i].1, &peers, &[]));
        members.iter_mut().for_each(Self::wait);
        members
    }

    fn etcd_member(name: &str, port: u16, peer: u16, peers: &str, extra: &[&str]) -> Self {
        let mut server = Self::etcd_unready(name, port, peer, peers, extra);
        server.wait();
        server
    }

    fn etcd_unready(name: &str, port: u16, peer: u16, peers: &str, extra: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let data = dir.path().join("data");
        let scheme = if extra.contains(&"--cert-file") { "https" } else { "http" };
        let [client, peer] = [format!("{scheme}://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}")];
        let mut args: Vec<String> = [
            ["--name", name],
            ["--listen-client-urls", &client],
            ["--advertise-client-urls", &client],
            ["--listen-peer-urls", &peer],
            ["--initial-advertise-peer-urls", &peer],
            ["--initial-cluster", peers],
            // Leases of a second need quick elections.
            ["--heartbeat-interval", "50"],
            ["--election-timeout", "500"],
        ]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect();
        args.extend(extra.iter().map(|arg| (*arg).to_owned()));
        let program = find_etcd().expect("asked before");
        let command = move || {
            let mut command = Command::new(&program);
            command.args(&args).arg("--data-dir").arg(&data);
            command
        };
        Self::start_unready(Box::new(command), port, dir)
    }

    /// The embedded store, as its own process. `program` is the path of `pgherd`.
    pub fn embedded(program: &str) -> Self {
        let port = free_port();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (data, program) = (dir.path().join("store"), program.to_owned());
        let command = move || {
            let mut command = Command::new(&program);
            command.args(["dcs", "--listen", &format!("127.0.0.1:{port}"), "--data-dir"]).arg(&data);
            command
        };
        let mut server = Self::start_unready(Box::new(command), port, dir);
        server.wait();
        server
    }

    fn start_unready(command: Box<dyn Fn() -> Command + Send + Sync>, port: u16, dir: TempDir) -> Self {
        let mut server = Self { child: None, command, port, _dir: dir };
        server.spawn();
        server
    }

    fn spawn(&mut self) {
        let mut command = (self.command)();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")));
    }

    fn wait(&mut self) {
        let deadline = now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let child = self.child.as_mut().expect("it was started");
            if let Ok(Some(status)) = child.try_wait() {
                panic!("{:?} ended: {status}", (self.command)());
            }
            assert!(now() < deadline, "{:?} does not listen", (self.command)());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// `127.0.0.1:PORT` of its clients.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        let child = self.child.as_ref().expect("it runs");
        Pid::from_raw(i32::try_from(child.id()).expect("process ids fit"))
    }

    /// Stops it in its tracks: connections stay, nothing is answered.
    pub fn freeze(&self) {
        kill(self.pid(), Signal::SIGSTOP).expect("our own child");
        // An order only: a thread that waits for a processor has not obeyed yet, and would answer once more.
        let give_up = now() + Duration::from_secs(10);
        while !self.is_frozen() {
            assert!(now() < give_up, "the server does not stop");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn is_frozen(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("our own child");
        threads.flatten().all(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit(')').next().is_none_or(|rest| rest.trim_start().starts_with('T'))
        })
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        kill(self.pid(), Signal::SIGCONT).expect("our own child");
    }

    /// Kills it with -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again on the same data.
    pub fn restart(&mut self) {
        self.kill();
        self.spawn();
        self.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

#[allow(clippy::disallowed_methods, reason = "processes do not follow a paused clock")]
fn now() -> Instant {
    Instant::now()
}
