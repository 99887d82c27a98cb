//! A cluster of real processes: etcd or the embedded store, agents (ours or Patroni's), PostgreSQL. Everything it
//! starts dies with it, also when a test panics.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use pgherd::ha::{Decision, Memory, Observation, decide};
use pgherd::postgres::process_tree;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The unprivileged user that PostgreSQL runs as when the tests run as root.
const USER: &str = "postgres";

pub const PASSWORD: &str = "secret";

/// What drives a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Pgherd,
    Patroni,
}

/// Where the keys are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    Etcd,
    Embedded,
    /// The story runs the servers itself and tells the members about them.
    Elsewhere,
}

pub struct Member {
    pub name: String,
    pub kind: Kind,
    pub api_port: u16,
    pub pg_port: u16,
    agent: Option<Child>,
}

pub struct Cluster {
    pub members: Vec<Member>,
    pub scope: String,
    pub store_port: u16,
    /// Asks the REST interfaces when they speak TLS.
    pub over_tls: Option<reqwest::Client>,
    /// SQL goes through the socket in the cluster's directory instead of TCP.
    pub through_socket: bool,
    store: Option<Child>,
    kind: Store,
    dir: TempDir,
    dynamic: Value,
}

pub use crate::ground::free_port;

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A command that runs as the unprivileged user.
pub fn as_user(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", USER, "--regid", USER, "--init-groups", "--"]).arg(program);
    command
}

fn give(path: &Path) {
    if is_root() {
        let user = nix::unistd::User::from_name(USER).unwrap().expect("user postgres exists");
        chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    }
}

pub fn venv(program: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin").join(program);
    assert!(path.exists(), "{} is missing: run .ci/setup test", path.display());
    path
}

pub fn pg_bin() -> PathBuf {
    crate::ground::postgres_programs().expect("PostgreSQL is installed: run .ci/setup test")
}

impl Cluster {
    /// A store and configured members; no agent runs yet.
    pub fn new(store: Store, kinds: &[Kind], dynamic: Value) -> Self {
        let dir = tempfile::Builder::new().prefix("herd").tempdir_in("/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        give(dir.path());
        let mut cluster = Self {
            members: Vec::new(),
            scope: "e2e".into(),
            store_port: free_port(),
            over_tls: None,
            through_socket: false,
            store: None,
            kind: store,
            dir,
            dynamic,
        };
        // The unprivileged user may not be able to read the checkout.
        for program in ["pgherd", "pgherdctl"] {
            let to = cluster.path(program);
            fs::copy(built(program), &to).unwrap();
            fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).unwrap();
        }
        std::os::unix::fs::symlink("pgherdctl", cluster.path("patronictl")).unwrap();
        cluster.start_store();
        for (i, kind) in kinds.iter().enumerate() {
            cluster.configure(&format!("n{i}"), *kind);
        }
        cluster
            .write("ctl.yml", &format!("scope: {}\netcd3:\n  host: 127.0.0.1:{}\n", cluster.scope, cluster.store_port));
        cluster
    }

    /// A running, healthy cluster.
    pub async fn healthy(store: Store, kinds: &[Kind], dynamic: Value) -> Self {
        let mut cluster = Self::new(store, kinds, dynamic);
        for i in 0..kinds.len() {
            cluster.start(i);
        }
        cluster.wait_healthy(Duration::from_secs(90)).await;
        cluster
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        give(&path);
    }

    /// Scripts for the members; `BIN` in them is where PostgreSQL's programs are.
    pub fn write_scripts(&self, scripts: &[(&str, &str)]) {
        let bin = pg_bin().display().to_string();
        scripts.iter().for_each(|(name, text)| self.write(name, &text.replace("BIN", &bin)));
    }

    /// A directory that the members may write.
    pub fn make_dir(&self, name: &str) {
        fs::create_dir_all(self.path(name)).unwrap();
        give(&self.path(name));
    }

    pub fn start_store(&mut self) {
        if self.kind == Store::Elsewhere {
            return;
        }
        let data = self.path("store");
        fs::create_dir_all(&data).unwrap();
        give(&data);
        let log = fs::File::options().create(true).append(true).open(self.path("store.log")).unwrap();
        let mut command = match self.kind {
            Store::Embedded => {
                let mut command = as_user(&self.path("pgherd"));
                command.args(["dcs", "--listen", &format!("127.0.0.1:{}", self.store_port)]);
                command.arg("--data-dir").arg(&data);
                command
            }
            _ => {
                let mut command = as_user(Path::new("/usr/bin/etcd"));
                let client = format!("http://127.0.0.1:{}", self.store_port);
                let peer = format!("http://127.0.0.1:{}", free_port());
                command.arg("--data-dir").arg(&data).args(["--listen-client-urls", &client]);
                command.args(["--advertise-client-urls", &client, "--listen-peer-urls", &peer]);
                command.args(["--initial-advertise-peer-urls", &peer, "--initial-cluster", &format!("default={peer}")]);
                command.arg("--unsafe-no-fsync").env_remove("ETCD_UNSUPPORTED_ARCH");
                command
            }
        };
        if self.kind == Store::Etcd && !supports_unsafe_no_fsync() {
            command = without_last_arg(&command);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.store = Some(command.spawn().expect("the store starts"));
        let give_up = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", self.store_port)).is_err() {
            assert!(Instant::now() < give_up, "the store did not come up:\n{}", self.log_of("store"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn stop_store(&mut self) {
        if let Some(mut store) = self.store.take() {
            let _ = store.kill();
            let _ = store.wait();
        }
    }

    pub fn freeze_store(&self, frozen: bool) {
        let store = self.store.as_ref().unwrap();
        signal(store.id(), if frozen { "STOP" } else { "CONT" });
    }

    /// etcd's own tool.
    pub fn etcdctl(&self, args: &[&str]) -> String {
        let mut command = Command::new("/usr/bin/etcdctl");
        command.env("ETCDCTL_API", "3").arg(format!("--endpoints=127.0.0.1:{}", self.store_port)).args(args);
        let output = command.output().expect("etcdctl runs");
        assert!(output.status.success(), "etcdctl {args:?}: {}", stderr(&output));
        stdout(&output)
    }

    /// The path of one of the cluster's keys in etcd.
    pub fn key(&self, name: &str) -> String {
        format!("/service/{}/{name}", self.scope)
    }

    /// A key in etcd with its revisions and its lease, if it is there.
    pub fn key_in_etcd(&self, name: &str) -> Option<Value> {
        let answer = self.etcdctl(&["get", &self.key(name), "-w", "json"]);
        let mut answer: Value = serde_json::from_str(&answer).expect("etcdctl prints JSON");
        Some(answer["kvs"].get_mut(0)?.take())
    }

    /// All keys of the cluster.
    pub fn keys(&self) -> Vec<(String, String)> {
        let text = self.etcdctl(&["get", "--prefix", &format!("/service/{}/", self.scope)]);
        let lines: Vec<&str> = text.lines().collect();
        lines.chunks(2).map(|pair| (pair[0].to_owned(), pair.get(1).copied().unwrap_or_default().to_owned())).collect()
    }

    /// Writes a key, which belongs to no lease then.
    pub fn put_key(&self, key: &str, value: &str) {
        self.etcdctl(&["put", key, "--", value]);
    }

    /// Revokes the lease of the leader key in etcd, as if its time to live had passed.
    pub fn expire_leader_key(&self) {
        if let Some(lease) = self.key_in_etcd("leader").and_then(|key| key["lease"].as_i64()) {
            self.etcdctl(&["lease", "revoke", &format!("{lease:x}")]);
        }
    }

    fn configure(&mut self, name: &str, kind: Kind) {
        let member = Member { name: name.into(), kind, api_port: free_port(), pg_port: free_port(), agent: None };
        let data_dir = self.path(&format!("data-{name}"));
        let text = json!({
            "scope": self.scope,
            "name": name,
            "restapi": {
                "listen": format!("127.0.0.1:{}", member.api_port),
                "connect_address": format!("127.0.0.1:{}", member.api_port),
            },
            "etcd3": {"host": format!("127.0.0.1:{}", self.store_port)},
            "bootstrap": {
                "dcs": self.dynamic,
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, "data-checksums", {"auth-local": "trust"}, {"auth-host": "scram-sha-256"}],
            },
            "postgresql": {
                "listen": format!("127.0.0.1:{}", member.pg_port),
                "connect_address": format!("127.0.0.1:{}", member.pg_port),
                "data_dir": data_dir,
                "bin_dir": pg_bin(),
                "pgpass": self.path(&format!("pgpass-{name}")),
                "authentication": {
                    "superuser": {"username": "postgres", "password": PASSWORD},
                    "replication": {"username": "replicator", "password": "rep-pass"},
                    "rewind": {"username": "rewinder", "password": "rewind-pass"},
                },
                "parameters": {
                    "unix_socket_directories": self.dir.path(),
                    "shared_buffers": "16MB",
                    "max_connections": 30,
                },
                "pg_hba": [
                    "local all all trust",
                    "host all all 127.0.0.1/32 scram-sha-256",
                    "host replication replicator 127.0.0.1/32 scram-sha-256",
                ],
            },
        });
        self.write(&format!("{name}.yml"), &serde_json::to_string_pretty(&text).unwrap());
        self.members.push(member);
    }

    /// Changes a member's configuration file.
    pub fn reconfigure(&self, i: usize, change: impl FnOnce(&mut Value)) {
        let file = format!("{}.yml", self.members[i].name);
        let mut document: Value = serde_json::from_str(&fs::read_to_string(self.path(&file)).unwrap()).unwrap();
        change(&mut document);
        self.write(&file, &serde_json::to_string_pretty(&document).unwrap());
    }

    pub fn start(&mut self, i: usize) {
        self.start_with(i, &[]);
    }

    /// Starts an agent with more variables.
    pub fn start_with(&mut self, i: usize, environment: &[(&str, &str)]) {
        let (name, kind) = (self.members[i].name.clone(), self.members[i].kind);
        let program = match kind {
            Kind::Pgherd => self.path("pgherd"),
            Kind::Patroni => venv("patroni"),
        };
        let log = fs::File::options().create(true).append(true).open(self.path(&format!("{name}.log"))).unwrap();
        let mut command = as_user(&program);
        command.arg(self.path(&format!("{name}.yml"))).current_dir(self.dir.path()).env("HOME", self.dir.path());
        command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command.envs(environment.iter().copied());
        self.members[i].agent = Some(command.spawn().expect("the agent starts"));
    }

    /// Replaces what drives a member that is not running.
    pub fn set_kind(&mut self, i: usize, kind: Kind) {
        self.members[i].kind = kind;
    }

    /// The process of a running agent.
    pub fn agent(&self, i: usize) -> u32 {
        self.members[i].agent.as_ref().expect("the agent runs").id()
    }

    /// Signals the agent (`TERM`, `KILL`, `STOP`, `CONT`, `HUP`).
    pub fn signal_agent(&self, i: usize, name: &str) {
        signal(self.agent(i), name);
    }

    pub fn kill_agent(&mut self, i: usize) {
        if let Some(mut agent) = self.members[i].agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }

    /// Tells the agent to end and waits for it.
    pub fn terminate_agent(&mut self, i: usize, limit: Duration) {
        if let Some(mut agent) = self.members[i].agent.take() {
            signal(agent.id(), "TERM");
            let give_up = Instant::now() + limit;
            while agent.try_wait().unwrap().is_none() {
                if Instant::now() > give_up {
                    let _ = agent.kill();
                    panic!("{} did not end within {limit:?}:\n{}", self.members[i].name, self.log(i));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    pub fn agent_has_ended(&mut self, i: usize) -> bool {
        self.members[i].agent.as_mut().is_none_or(|agent| agent.try_wait().unwrap().is_some())
    }

    /// The process beside one of our agents that outlives it, by its command line.
    pub fn guard(&self, i: usize) -> Option<u32> {
        let data_dir = self.path(&format!("data-{}", self.members[i].name));
        let is_guard = |pid: i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let args: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
            args.iter().any(|arg| arg == "guard") && args.iter().any(|arg| **arg == *data_dir.to_string_lossy())
        };
        let found = process_tree::processes().into_iter().find(|process| is_guard(process.pid));
        found.map(|process| process.pid.cast_unsigned())
    }

    pub fn postmaster(&self, i: usize) -> Option<u32> {
        let file = self.path(&format!("data-{}/postmaster.pid", self.members[i].name));
        fs::read_to_string(file).ok()?.lines().next()?.trim().parse().ok()
    }

    /// The postmaster and all that it has started.
    pub fn server_processes(&self, i: usize) -> Vec<u32> {
        let Some(postmaster) = self.postmaster(i) else { return Vec::new() };
        let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children"));
        let children = children.unwrap_or_default();
        std::iter::once(postmaster).chain(children.split_whitespace().filter_map(|pid| pid.parse().ok())).collect()
    }

    pub fn kill_postmaster(&self, i: usize) {
        signal(self.postmaster(i).expect("a postmaster runs"), "KILL");
    }

    pub fn log(&self, i: usize) -> String {
        self.log_of(&self.members[i].name)
    }

    pub fn log_of(&self, name: &str) -> String {
        let text = self.whole_log_of(name);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(200)..].join("\n")
    }

    fn whole_log_of(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default()
    }

    /// Everything an investigation needs.
    pub fn dump(&self) -> String {
        let mut text = String::new();
        for i in 0..self.members.len() {
            text += &format!("==== {} ====\n{}\n", self.members[i].name, self.log(i));
        }
        text + &format!("==== list ====\n{}", stdout(&self.ctl(&["list", "-e"])))
    }

    // ---- asking ----

    /// GET from a member's REST API: status and body.
    pub async fn get(&self, i: usize, path: &str) -> Option<(u16, String)> {
        self.ask("GET", i, path, None).await
    }

    /// Another request to a member's REST API.
    pub async fn request(&self, method: &str, i: usize, path: &str, body: &Value) -> Option<(u16, String)> {
        self.ask(method, i, path, Some(body.to_string())).await
    }

    async fn ask(&self, method: &str, i: usize, path: &str, body: Option<String>) -> Option<(u16, String)> {
        let port = self.members[i].api_port;
        let Some(client) = &self.over_tls else { return http(method, port, path, body).await };
        let request = client.request(method.parse().unwrap(), format!("https://127.0.0.1:{port}{path}"));
        let answer = request.timeout(Duration::from_secs(3)).body(body.unwrap_or_default()).send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    pub async fn status(&self, i: usize) -> Option<Value> {
        serde_json::from_str(&self.get(i, "/patroni").await?.1).ok()
    }

    /// The index of the member whose `/primary` is 200 and whose server is a primary.
    pub async fn leader(&self) -> Option<usize> {
        for i in 0..self.members.len() {
            if self.get(i, "/primary").await.is_some_and(|(code, _)| code == 200)
                && self
                    .status(i)
                    .await
                    .is_some_and(|status| status["role"] == "primary" && status["state"] == "running")
            {
                return Some(i);
            }
        }
        None
    }

    /// One leader; every other member streams on its timeline.
    pub async fn is_healthy(&self) -> bool {
        let Some(leader) = self.leader().await else { return false };
        let Some(timeline) = self.status(leader).await.map(|status| status["timeline"].clone()) else { return false };
        for i in (0..self.members.len()).filter(|i| *i != leader) {
            let Some(status) = self.status(i).await else { return false };
            let streams = status["replication_state"] == "streaming" && status["state"] == "running";
            if !streams || status["timeline"] != timeline {
                return false;
            }
        }
        true
    }

    /// Whether a standby may be elected without losing what was acknowledged in a synchronous mode.
    pub async fn has_synchronous(&self) -> bool {
        let Some(leader) = self.leader().await else { return false };
        let view = self.get(leader, "/cluster").await;
        view.is_some_and(|(_, view)| view.contains("sync_standby") || view.contains("quorum_standby"))
    }

    pub async fn wait_healthy(&self, limit: Duration) {
        self.until("a healthy cluster", limit, async || self.is_healthy().await).await;
    }

    /// How many lines of a member's log contain these words.
    pub fn count_in_log(&self, i: usize, words: &str) -> usize {
        self.whole_log_of(&self.members[i].name).lines().filter(|line| line.contains(words)).count()
    }

    /// Waits for a member's log to contain a line.
    pub async fn wait_log(&self, i: usize, needle: &str, limit: Duration) {
        let name = &self.members[i].name;
        self.until(needle, limit, async || self.whole_log_of(name).contains(needle)).await;
    }

    /// Waits for an agent to end by itself.
    pub async fn wait_agent_ended(&mut self, i: usize, limit: Duration) {
        let give_up = Instant::now() + limit;
        while !self.agent_has_ended(i) {
            assert!(Instant::now() < give_up, "{} did not end within {limit:?}\n{}", self.members[i].name, self.dump());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits for a process to end, whether its parent has noticed or not.
    pub async fn wait_process_ended(&self, pid: u32, limit: Duration) {
        let ended = async || process_tree::process(pid.cast_signed()).is_none_or(|process| process.is_zombie);
        self.until(&format!("the end of process {pid}"), limit, ended).await;
    }

    pub async fn wait_leader(&self, limit: Duration, wanted: impl Fn(usize) -> bool) -> usize {
        let give_up = Instant::now() + limit;
        loop {
            if let Some(leader) = self.leader().await.filter(|leader| wanted(*leader)) {
                return leader;
            }
            assert!(Instant::now() < give_up, "no such leader within {limit:?}\n{}", self.dump());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until something holds.
    pub async fn until(&self, what: &str, limit: Duration, mut holds: impl AsyncFnMut() -> bool) {
        let give_up = Instant::now() + limit;
        while !holds().await {
            assert!(Instant::now() < give_up, "{what}: not within {limit:?}\n{}", self.dump());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The leader of a cluster that has settled.
    pub async fn settled_leader(&self, limit: Duration) -> usize {
        self.wait_healthy(limit).await;
        self.wait_leader(limit, |_| true).await
    }

    /// An operator makes a member the leader of a healthy cluster, unless it is.
    pub async fn switch_to(&self, target: usize, limit: Duration) {
        let leader = self.wait_leader(limit, |_| true).await;
        if leader != target {
            let (from, to) = (&self.members[leader].name, &self.members[target].name);
            let output = self.ctl(&["switchover", &self.scope, "--leader", from, "--candidate", to, "--force"]);
            // 8: it takes longer than the member that was asked has waited.
            let is_requested = matches!(output.status.code(), Some(0 | 8));
            assert!(is_requested, "{}\n{}\n{}", stdout(&output), stderr(&output), self.dump());
            self.wait_leader(limit, |now| now == target).await;
            self.wait_healthy(limit).await;
            assert_eq!(self.leader().await, Some(target), "{}", self.dump());
        }
    }

    /// Every decision in the members' journals follows from what stands beside it.
    pub async fn assert_journals_replay(&self) {
        for i in (0..self.members.len()).filter(|i| self.members[*i].kind == Kind::Pgherd) {
            let (code, text) = self.get(i, "/journal").await.unwrap();
            assert!(code == 200 && text.lines().count() > 2, "{code} {text}");
            for line in text.lines() {
                let mut line: Value = serde_json::from_str(line).unwrap();
                let mut take = |part: &str| line[part].take();
                let seen: Observation = serde_json::from_value(take("seen")).unwrap();
                let memory: Memory = serde_json::from_value(take("memory")).unwrap();
                let decision: Decision = serde_json::from_value(take("decision")).unwrap();
                assert_eq!(decide(&seen, &memory), decision);
            }
        }
    }

    // ---- commands ----

    fn tool(&self, mut command: Command, args: &[&str]) -> Output {
        command.arg("-c").arg(self.path("ctl.yml")).args(args).env("COLUMNS", "200").stdin(Stdio::null());
        command.env("XDG_CACHE_HOME", self.path("cache"));
        command.output().expect("the command runs")
    }

    /// `pgherdctl`.
    pub fn ctl(&self, args: &[&str]) -> Output {
        self.tool(Command::new(self.path("pgherdctl")), args)
    }

    /// Our CLI under the name `patronictl`.
    pub fn as_patronictl(&self, args: &[&str]) -> Output {
        self.tool(Command::new(self.path("patronictl")), args)
    }

    /// Patroni's own CLI.
    pub fn patronictl(&self, args: &[&str]) -> Output {
        self.tool(Command::new(venv("patronictl")), args)
    }

    // ---- SQL ----

    pub fn dsn(&self, i: usize) -> String {
        let host = if self.through_socket { self.dir.path().to_str().unwrap() } else { "127.0.0.1" };
        format!(
            "host={host} port={} user=postgres password={PASSWORD} dbname=postgres connect_timeout=2",
            self.members[i].pg_port
        )
    }

    pub async fn sql(&self, i: usize, query: &str) -> Result<Vec<Vec<Option<String>>>, String> {
        let work = async {
            let (client, connection) =
                tokio_postgres::connect(&self.dsn(i), tokio_postgres::NoTls).await.map_err(|e| e.to_string())?;
            tokio::spawn(connection);
            let messages = client.simple_query(query).await.map_err(|e| e.to_string())?;
            Ok(messages
                .into_iter()
                .filter_map(|message| match message {
                    tokio_postgres::SimpleQueryMessage::Row(row) => {
                        Some((0..row.len()).map(|c| row.get(c).map(str::to_owned)).collect())
                    }
                    _ => None,
                })
                .collect())
        };
        tokio::time::timeout(Duration::from_secs(10), work).await.unwrap_or_else(|_| Err("timed out".into()))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("HERD_KEEP").is_some() {
            let _ = Command::new("cp").arg("-r").arg(self.dir.path()).arg("/tmp/herd-kept").status();
        }
        for member in &mut self.members {
            if let Some(mut agent) = member.agent.take() {
                signal(agent.id(), "CONT");
                let _ = agent.kill();
                let _ = agent.wait();
            }
        }
        for i in 0..self.members.len() {
            if let Some(pid) = self.postmaster(i) {
                signal(pid, "CONT");
                signal(pid, "QUIT");
            }
        }
        if let Some(store) = &self.store {
            signal(store.id(), "CONT");
        }
        self.stop_store();
        // Whatever still holds our directory (a base backup under way, an orphaned backend) goes too.
        let dir = self.dir.path().to_string_lossy().into_owned();
        let _ = Command::new("pkill").args(["-KILL", "-f", &dir]).status();
    }
}

fn built(program: &str) -> &'static str {
    match program {
        "pgherd" => env!("CARGO_BIN_EXE_pgherd"),
        _ => env!("CARGO_BIN_EXE_pgherdctl"),
    }
}

fn supports_unsafe_no_fsync() -> bool {
    Command::new("/usr/bin/etcd")
        .arg("--help")
        .output()
        .is_ok_and(|out| String::from_utf8_lossy(&out.stdout).contains("unsafe-no-fsync"))
}

fn without_last_arg(command: &Command) -> Command {
    let args: Vec<_> = command.get_args().collect();
    let mut again = Command::new(command.get_program());
    again.args(&args[..args.len() - 1]);
    again
}

pub fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).stderr(Stdio::null()).status();
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A minimal HTTP exchange; `None` when there is no answer within three seconds.
pub async fn http(method: &str, port: u16, path: &str, body: Option<String>) -> Option<(u16, String)> {
    http_within(Duration::from_secs(3), method, port, path, body).await
}

/// As `http`, with another limit.
pub async fn http_within(
    limit: Duration,
    method: &str,
    port: u16,
    path: &str,
    body: Option<String>,
) -> Option<(u16, String)> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let work = async {
        let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        let body = body.unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.ok()?;
        let text = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let code = head.split(' ').nth(1)?.parse().ok()?;
        Some((code, body.to_owned()))
    };
    tokio::time::timeout(limit, work).await.ok()?
}
