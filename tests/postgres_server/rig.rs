//! Servers in temporary directories, and conditions waited for with a deadline.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pgherd::cluster::{InstanceState, Monitor, Role, Upstream};
use pgherd::config::{BootstrapConfig, Credentials, PostgresConfig, Secret};
use pgherd::postgres::server::Server;
use pgherd::postgres::site::Session;
use pgherd::postgres::{ClonePlan, Look, Postgres, Recovery, StartPlan, Started, process_tree};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ground::free_port;

/// Whatever a test waits for comes within this time.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) fn never() -> CancellationToken {
    CancellationToken::new()
}

pub(crate) fn everything() -> Look {
    Look { slots: true, senders: true, standby_timeline: true, budget: Duration::from_secs(5) }
}

/// One server. Everything it started is killed with it.
pub(crate) struct Node {
    pub(crate) server: Server,
    pub(crate) config: PostgresConfig,
    root: Arc<tempfile::TempDir>,
    is_owner: bool,
}

fn user(name: &str) -> Credentials {
    Credentials { username: Some(name.to_owned()), password: Some(Secret::new("p'a w:d")), options: Default::default() }
}

fn parameters() -> Vec<(&'static str, &'static str)> {
    vec![
        ("max_connections", "30"),
        ("max_wal_senders", "5"),
        ("max_worker_processes", "8"),
        ("max_locks_per_transaction", "64"),
        ("max_prepared_transactions", "0"),
        ("max_replication_slots", "10"),
        ("track_commit_timestamp", "off"),
        ("wal_level", "replica"),
        ("wal_log_hints", "on"),
        ("hot_standby", "on"),
        ("wal_keep_size", "128MB"),
        ("shared_buffers", "16MB"),
        ("fsync", "off"),
    ]
}

fn config(name: &str, root: &std::path::Path) -> PostgresConfig {
    let port = free_port();
    let data_dir = root.join("data").display().to_string();
    let mut parameters: std::collections::BTreeMap<String, String> =
        parameters().into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    parameters.insert("unix_socket_directories".to_owned(), root.display().to_string());
    PostgresConfig {
        name: name.into(),
        scope: "demo".to_owned(),
        listen_addresses: "127.0.0.1".to_owned(),
        port,
        connect_address: format!("127.0.0.1:{port}"),
        proxy_address: None,
        config_dir: data_dir.clone(),
        data_dir,
        config_base_name: "postgresql".to_owned(),
        bin_dir: String::new(),
        bin_name: Default::default(),
        database: "postgres".to_owned(),
        pgpass: Some(root.join("pgpass").display().to_string()),
        superuser: user("admin"),
        replication: user("replicator"),
        rewind: None,
        parameters,
        pg_hba: Some(vec![
            "local all all scram-sha-256".to_owned(),
            "host all all 127.0.0.1/32 scram-sha-256".to_owned(),
            "host replication all 127.0.0.1/32 scram-sha-256".to_owned(),
        ]),
        pg_ident: None,
        custom_conf: None,
        recovery_conf: Default::default(),
        create_replica_methods: Vec::new(),
        standby_methods: None,
        methods: Default::default(),
        basebackup: json!([{"checkpoint": "fast"}]),
        rewind_options: json!(null),
        callbacks: Default::default(),
        pre_promote: None,
        before_stop: None,
        use_pg_rewind: true,
        remove_data_directory_on_rewind_failure: false,
        remove_data_directory_on_diverged_timelines: false,
        use_unix_socket: true,
        use_unix_socket_repl: false,
        pg_ctl_timeout: Duration::from_secs(60),
        krbsrvname: None,
        use_slots: true,
    }
}

fn bootstrap_config() -> BootstrapConfig {
    BootstrapConfig {
        method: "initdb".to_owned(),
        initdb: json!(["no-sync", {"encoding": "UTF8"}, {"auth": "scram-sha-256"}]),
        ..BootstrapConfig::default()
    }
}

impl Node {
    pub(crate) fn new(name: &str, change: impl FnOnce(&mut PostgresConfig)) -> Self {
        let root = Arc::new(tempfile::tempdir().unwrap());
        let mut config = config(name, root.path());
        change(&mut config);
        let server = Server::new(Arc::new(config.clone()), Some(bootstrap_config()));
        Self { server, config, root, is_owner: true }
    }

    /// A running primary with its users.
    pub(crate) async fn primary(name: &str, change: impl FnOnce(&mut PostgresConfig)) -> Self {
        let node = Self::new(name, change);
        node.server.bootstrap(&never()).await.unwrap();
        node.server.post_bootstrap(&never()).await.unwrap();
        node
    }

    /// A running standby of `source`.
    pub(crate) async fn standby(name: &str, source: &Node, change: impl FnOnce(&mut PostgresConfig)) -> Self {
        let node = Self::new(name, change);
        source.execute(&format!("SELECT pg_create_physical_replication_slot('{name}')")).await;
        let plan = ClonePlan { source: Some(source.upstream()), basebackup_only: true };
        node.server.clone_from(&plan, &never()).await.unwrap();
        assert_eq!(node.start(Recovery::Standby(Some(source.upstream()))).await, Started::Running);
        node
    }

    /// Another agent's view of the same server, as after a restart of the agent.
    pub(crate) fn second_agent(&self) -> Self {
        self.second_agent_with(|_| {})
    }

    /// The same with other settings.
    pub(crate) fn second_agent_with(&self, change: impl FnOnce(&mut PostgresConfig)) -> Self {
        let mut config = self.config.clone();
        change(&mut config);
        let server = Server::new(Arc::new(config.clone()), None);
        Self { server, config, root: Arc::clone(&self.root), is_owner: false }
    }

    pub(crate) fn upstream(&self) -> Upstream {
        Upstream {
            member: Some(self.config.name.clone()),
            host: Some("127.0.0.1".to_owned()),
            port: Some(self.config.port),
            ..Upstream::default()
        }
    }

    pub(crate) async fn start(&self, recovery: Recovery) -> Started {
        let role = if recovery == Recovery::None { Role::Primary } else { Role::Replica };
        let plan = StartPlan { recovery, role, timeout: None };
        self.server.start(&plan, &never()).await.unwrap()
    }

    pub(crate) fn data(&self, name: &str) -> PathBuf {
        PathBuf::from(&self.config.data_dir).join(name)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.data(name)).unwrap()
    }

    pub(crate) fn pid(&self) -> i32 {
        self.read("postmaster.pid").lines().next().unwrap().parse().unwrap()
    }

    pub(crate) async fn look(&self) -> InstanceState {
        self.server.look(&everything()).await
    }

    pub(crate) async fn monitor(&self) -> Monitor {
        self.look().await.monitor.expect("the server answers")
    }

    /// Looks until it sees what it should.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&InstanceState) -> bool) -> InstanceState {
        let give_up = Instant::now() + DEADLINE;
        loop {
            let seen = self.look().await;
            if is_so(&seen) {
                return seen;
            }
            assert!(Instant::now() < give_up, "never came: {what}; last seen: {seen:#?}");
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    pub(crate) async fn client(&self) -> Session {
        let site = self.server.site();
        let session = site.connect(&site.superuser_params()).await.unwrap();
        session.batch_execute("SET statement_timeout = 0; SET search_path = public, pg_catalog").await.unwrap();
        session
    }

    pub(crate) async fn execute(&self, statements: &str) {
        self.client().await.batch_execute(statements).await.unwrap();
    }

    pub(crate) async fn text(&self, query: &str) -> String {
        self.client().await.query_one(query, &[]).await.unwrap().get(0)
    }

    /// Changes the settings, as a new dynamic configuration would.
    pub(crate) async fn configure(&mut self, force: bool, change: impl FnOnce(&mut PostgresConfig)) {
        change(&mut self.config);
        self.server.configure(Arc::new(self.config.clone()), force).await.unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let text = std::fs::read_to_string(self.data("postmaster.pid")).unwrap_or_default();
        let pid = text.lines().next().and_then(|line| line.parse().ok()).filter(|_| self.is_owner);
        if let Some(pid) = pid {
            process_tree::kill_tree(pid);
        }
    }
}
