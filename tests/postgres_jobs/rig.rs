//! Two real servers in temporary directories. Everything here is started by the user `postgres`: PostgreSQL refuses
//! to run as root, so a test that runs as root runs itself again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pgherd::cluster::{MemberName, Upstream};
use pgherd::config::{BootstrapConfig, Credentials, PostgresConfig, Secret};
use pgherd::postgres::process_tree;
use pgherd::postgres::site::{Session, Site};
use pgherd::postgres::{ClonePlan, bootstrap, clone};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::ground::{free_port, postgres_programs};

/// A password with everything that could break quoting.
pub(crate) const PASSWORD: &str = "p'a$$s\\w\"o:rd";

/// One server.
pub(crate) struct Node {
    pub(crate) site: Site,
    pub(crate) root: tempfile::TempDir,
}

pub(crate) fn cancel() -> CancellationToken {
    CancellationToken::new()
}

fn user(name: &str) -> Credentials {
    Credentials {
        username: Some(name.to_owned()),
        password: Some(Secret::new(PASSWORD)),
        options: [("sslmode".to_owned(), "prefer".to_owned())].into(),
    }
}

fn config(name: &str, root: &Path) -> PostgresConfig {
    let port = free_port();
    let data_dir = root.join("data").display().to_string();
    PostgresConfig {
        name: MemberName::from(name),
        scope: "demo".to_owned(),
        listen_addresses: "127.0.0.1".to_owned(),
        port,
        connect_address: format!("127.0.0.1:{port}"),
        proxy_address: None,
        config_dir: data_dir.clone(),
        data_dir,
        config_base_name: "postgresql".to_owned(),
        bin_dir: postgres_programs().unwrap().to_string_lossy().into_owned(),
        bin_name: Default::default(),
        database: "postgres".to_owned(),
        pgpass: Some(root.join("pgpass").display().to_string()),
        superuser: user("admin"),
        replication: user("Repli-cator"),
        rewind: Some(user("rewinder")),
        parameters: Default::default(),
        pg_hba: None,
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
        use_unix_socket: false,
        use_unix_socket_repl: false,
        pg_ctl_timeout: Duration::from_secs(60),
        krbsrvname: None,
        use_slots: true,
    }
}

pub(crate) fn bootstrap_config() -> BootstrapConfig {
    BootstrapConfig {
        method: "initdb".to_owned(),
        initdb: json!(["no-sync", {"encoding": "UTF8"}, {"auth-host": "scram-sha-256"}, {"auth-local": "reject"}]),
        pg_hba: vec!["host replication all 127.0.0.1/32 scram-sha-256".to_owned()],
        ..BootstrapConfig::default()
    }
}

impl Node {
    pub(crate) fn new(name: &str, change: impl FnOnce(&mut PostgresConfig)) -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut config = config(name, root.path());
        change(&mut config);
        Self { site: Site::new(Arc::new(config)), root }
    }

    /// A running primary with its users.
    pub(crate) async fn primary(name: &str, settings: &str) -> Self {
        let node = Self::new(name, |_| {});
        bootstrap::create(&node.site, &bootstrap_config(), &cancel()).await.unwrap();
        node.configure(settings);
        node.start().await;
        let client = node.client().await;
        bootstrap::post_bootstrap(&node.site, &bootstrap_config(), &client, &cancel()).await.unwrap();
        node
    }

    /// A running standby of `source`.
    pub(crate) async fn standby(name: &str, source: &Node) -> Self {
        let node = Self::new(name, |_| {});
        let plan = ClonePlan { source: Some(source.upstream()), basebackup_only: false };
        clone::clone_from(&node.site, &plan, &cancel()).await.unwrap();
        node.follow(source);
        node.start().await;
        node
    }

    pub(crate) fn upstream(&self) -> Upstream {
        Upstream {
            member: Some(self.site.config().name.clone()),
            host: Some("127.0.0.1".to_owned()),
            port: Some(self.site.config().port),
            ..Upstream::default()
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Writes settings into a file of their own that is read last; a second call replaces them.
    pub(crate) fn configure(&self, settings: &str) {
        let port = self.site.config().port;
        let text = format!(
            "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\nfsync = off\n\
             wal_log_hints = on\nwal_keep_size = '256MB'\nshared_buffers = '16MB'\nmax_connections = 30\n\
             log_statement = 'all'\nlog_min_messages = 'info'\n{settings}\n"
        );
        std::fs::write(self.site.data_dir().join("postgresql.auto.conf"), text).unwrap();
    }

    pub(crate) fn follow(&self, source: &Node) {
        let params = self.site.replication_params(&source.upstream());
        params.write_pgpass(&self.path("standby.pgpass")).unwrap();
        let conninfo = format!(
            "{} application_name={} passfile={}",
            params.text(),
            self.site.config().name,
            self.path("standby.pgpass").display()
        );
        self.configure(&format!("primary_conninfo = '{}'\nhot_standby = on", conninfo.replace('\'', "''")));
        std::fs::write(self.site.data_dir().join("standby.signal"), "").unwrap();
    }

    fn pg_ctl(&self, verb: &str) -> pgherd::postgres::programs::Program {
        let data = self.site.data_dir().display().to_string();
        let log = self.path("log").display().to_string();
        self.site.tool("pg_ctl").args([verb, "-D", &data, "-w", "-t", "60", "-l", &log])
    }

    pub(crate) async fn start(&self) {
        let started = self.pg_ctl("start").run_ok(&cancel()).await;
        assert!(started.is_ok(), "{started:?}\n{}", self.log());
    }

    pub(crate) async fn stop(&self) {
        let data = self.site.data_dir().display().to_string();
        self.site.tool("pg_ctl").args(["stop", "-D", &data, "-w", "-m", "fast"]).run_ok(&cancel()).await.unwrap();
    }

    pub(crate) async fn promote(&self) {
        let data = self.site.data_dir().display().to_string();
        self.site.tool("pg_ctl").args(["promote", "-D", &data, "-w"]).run_ok(&cancel()).await.unwrap();
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub(crate) async fn client(&self) -> Session {
        let client = self.site.connect(&self.site.superuser_params()).await.unwrap();
        client.batch_execute("SET search_path = public").await.unwrap();
        client
    }

    pub(crate) async fn execute(&self, statements: &str) {
        self.client().await.batch_execute(statements).await.unwrap();
    }

    pub(crate) async fn number(&self, query: &str) -> i64 {
        self.client().await.query_one(query, &[]).await.unwrap().get(0)
    }

    /// Waits until a query that counts gives this number.
    pub(crate) async fn wait_for(&self, query: &str, number: i64) {
        for _ in 0..300 {
            if let Ok(client) = self.site.connect(&self.site.superuser_params()).await
                && client.batch_execute("SET search_path = public").await.is_ok()
                && let Ok(row) = client.query_one(query, &[]).await
                && row.get::<_, i64>(0) == number
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("`{query}` never gave {number}\n{}", self.log());
    }

    /// Kills the server and all its processes at once, as a crash would.
    pub(crate) fn kill(&self) {
        let pid_file = self.site.data_dir().join("postmaster.pid");
        let text = std::fs::read_to_string(pid_file).unwrap_or_default();
        if let Some(pid) = text.lines().next().and_then(|line| line.parse().ok()) {
            process_tree::kill_tree(pid);
            for _ in 0..200 {
                if process_tree::process(pid).is_none_or(|process| process.is_zombie) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(25));
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
