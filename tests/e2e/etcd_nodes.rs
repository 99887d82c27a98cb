//! Several etcd servers that are one store.

use std::fs;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{free_port, signal, stderr, stdout};

const LIMIT: Duration = Duration::from_secs(60);

struct Node {
    client: u16,
    peer: u16,
    process: Option<Child>,
}

/// The servers; killed with their directory when it goes out of scope.
pub struct EtcdNodes {
    nodes: Vec<Node>,
    more_args: Vec<String>,
    /// Certificate, key and CA of all sides, where there is TLS.
    files: Option<[String; 3]>,
    /// Who `etcdctl` says it is, once that matters.
    pub user: Option<String>,
    dir: TempDir,
}

impl EtcdNodes {
    /// So many servers, ready.
    pub fn start(count: usize, more_args: &[&str]) -> Self {
        Self::start_with(count, more_args, None)
    }

    /// The same, perhaps with TLS: certificate, key and CA of servers and clients.
    pub fn start_with(count: usize, more_args: &[&str], files: Option<[String; 3]>) -> Self {
        let node = |_| Node { client: free_port(), peer: free_port(), process: None };
        let mut nodes = Self {
            nodes: (0..count).map(node).collect(),
            more_args: more_args.iter().map(|arg| (*arg).to_owned()).collect(),
            files,
            user: None,
            dir: tempfile::Builder::new().prefix("herd-etcd").tempdir_in("/tmp").unwrap(),
        };
        for i in 0..count {
            nodes.revive(i);
        }
        nodes.wait_leader();
        nodes
    }

    /// `host:port` of one server.
    pub fn address(&self, i: usize) -> String {
        format!("127.0.0.1:{}", self.nodes[i].client)
    }

    /// `host:port` of all servers.
    pub fn addresses(&self) -> Vec<String> {
        (0..self.nodes.len()).map(|i| self.address(i)).collect()
    }

    /// Starts a server that is not running.
    pub fn revive(&mut self, i: usize) {
        let initial: Vec<String> =
            self.nodes.iter().enumerate().map(|(i, node)| format!("e{i}=http://127.0.0.1:{}", node.peer)).collect();
        let node = &mut self.nodes[i];
        let scheme = if self.files.is_some() { "https" } else { "http" };
        let client = format!("{scheme}://127.0.0.1:{}", node.client);
        let peer = format!("http://127.0.0.1:{}", node.peer);
        let log = self.dir.path().join(format!("e{i}.log"));
        let log = fs::File::options().create(true).append(true).open(log).unwrap();
        let mut command = Command::new("/usr/bin/etcd");
        command.args(["--name", &format!("e{i}")]).arg("--data-dir").arg(self.dir.path().join(format!("e{i}")));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &initial.join(",")]).args(&self.more_args);
        if let Some([cert, key, ca]) = &self.files {
            command.args(["--cert-file", cert, "--key-file", key, "--trusted-ca-file", ca, "--client-cert-auth"]);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        node.process = Some(command.spawn().expect("etcd starts"));
    }

    /// Kills a server.
    pub fn kill(&mut self, i: usize) {
        if let Some(mut process) = self.nodes[i].process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Stops a server's clock, or lets it go on.
    pub fn freeze(&self, i: usize, frozen: bool) {
        signal(self.nodes[i].process.as_ref().unwrap().id(), if frozen { "STOP" } else { "CONT" });
    }

    /// `etcdctl` on the servers that run.
    pub fn try_ctl(&self, args: &[&str]) -> Result<String, String> {
        let running = (0..self.nodes.len()).filter(|i| self.nodes[*i].process.is_some());
        let endpoints: Vec<String> = running.map(|i| self.address(i)).collect();
        let mut command = Command::new("/usr/bin/etcdctl");
        command.env("ETCDCTL_API", "3").arg(format!("--endpoints={}", endpoints.join(",")));
        command.args(self.user.iter().map(|user| format!("--user={user}"))).args(args);
        if let Some([cert, key, ca]) = &self.files {
            command.env("ETCDCTL_CERT", cert).env("ETCDCTL_KEY", key).env("ETCDCTL_CACERT", ca);
        }
        let output = command.stdin(Stdio::null()).output().expect("etcdctl runs");
        if output.status.success() { Ok(stdout(&output)) } else { Err(stderr(&output)) }
    }

    /// The same, again until it succeeds: a leader may just be being elected.
    pub fn ctl(&self, args: &[&str]) -> String {
        let give_up = Instant::now() + LIMIT;
        loop {
            match self.try_ctl(args) {
                Ok(answer) => return answer,
                Err(problem) => assert!(Instant::now() < give_up, "etcdctl {args:?}: {problem}\n{}", self.logs()),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Gives a user of the store another password.
    pub fn set_password(&self, user: &str, password: &str) {
        let endpoints = self.addresses().join(",");
        let mut command = Command::new("/usr/bin/etcdctl");
        command.env("ETCDCTL_API", "3").arg(format!("--endpoints={endpoints}"));
        command.args(self.user.iter().map(|user| format!("--user={user}")));
        command.args(["user", "passwd", user, "--interactive=false"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("etcdctl runs");
        let mut input = child.stdin.take().expect("it is piped");
        writeln!(input, "{password}").expect("it reads");
        drop(input);
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", stderr(&output));
    }

    fn members(&self) -> Option<Vec<(String, u64, u64)>> {
        let statuses: Value = serde_json::from_str(&self.try_ctl(&["endpoint", "status", "-w", "json"]).ok()?).ok()?;
        let read = |status: &Value| {
            let number = |at: &str| status.pointer(at)?.as_u64();
            let address = status["Endpoint"].as_str()?.to_owned();
            Some((address, number("/Status/header/member_id")?, number("/Status/leader").filter(|id| *id != 0)?))
        };
        statuses.as_array()?.iter().map(read).collect()
    }

    /// The server that leads, as all that run see it.
    pub fn leader(&self) -> Option<usize> {
        let members = self.members()?;
        let (_, _, leader) = *members.first()?;
        if members.iter().any(|(_, _, other)| *other != leader) {
            return None;
        }
        let (address, ..) = members.iter().find(|(_, id, _)| *id == leader)?;
        self.addresses().iter().position(|known| known == address)
    }

    /// Waits for a leader.
    pub fn wait_leader(&self) -> usize {
        let give_up = Instant::now() + LIMIT;
        loop {
            if let Some(leader) = self.leader() {
                return leader;
            }
            assert!(Instant::now() < give_up, "etcd has no leader\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Makes another server the leader.
    pub fn move_leader(&self, to: usize) {
        let id = self.members().and_then(|members| {
            members.into_iter().find(|(address, ..)| *address == self.address(to)).map(|(_, id, _)| id)
        });
        self.ctl(&["move-leader", &format!("{:x}", id.expect("the server answers"))]);
        assert_eq!(self.wait_leader(), to);
    }

    fn logs(&self) -> String {
        let log = |i| fs::read_to_string(self.dir.path().join(format!("e{i}.log"))).unwrap_or_default();
        (0..self.nodes.len()).map(|i| format!("==== e{i} ====\n{}\n", log(i))).collect()
    }
}

impl Drop for EtcdNodes {
    fn drop(&mut self) {
        for i in 0..self.nodes.len() {
            self.kill(i);
        }
    }
}
