//! Where a cluster may come from other than `initdb`: a backup brought to a point in time, and a server that runs
//! already.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::harness::{Cluster, Kind, PASSWORD, Store, as_user, pg_bin, stderr, stdout};

const LONG: Duration = Duration::from_secs(60);

fn settings() -> serde_json::Value {
    json!({
        "ttl": 10, "loop_wait": 1, "retry_timeout": 3,
        "postgresql": {"use_pg_rewind": true, "parameters": {"wal_keep_size": "64MB"}}
    })
}

/// A server that no agent has made.
struct Plain<'a> {
    cluster: &'a Cluster,
    directory: PathBuf,
    port: u16,
}

impl<'a> Plain<'a> {
    fn start(cluster: &'a Cluster, name: &str, port: u16, password: &str, parameters: &[&str]) -> Self {
        let plain = Self { cluster, directory: cluster.path(name), port };
        cluster.write("password", password);
        let directory = plain.directory.display().to_string();
        let file = format!("--pwfile={}", cluster.path("password").display());
        let auth = ["--auth-local=trust", "--auth-host=scram-sha-256"];
        plain.run("initdb", &["-N", "-k", "-U", "postgres", auth[0], auth[1], &file, "-D", &directory]);
        let socket = cluster.path("").display().to_string();
        let mut text = fs::read_to_string(plain.directory.join("postgresql.conf")).unwrap();
        text += &format!("port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{socket}'\n");
        text += "shared_buffers = 16MB\nfsync = off\n";
        text += &parameters.join("\n");
        cluster.write(&format!("{name}/postgresql.conf"), &text);
        let log = cluster.path(&format!("{name}-server.log")).display().to_string();
        plain.run("pg_ctl", &["start", "-w", "-D", &directory, "-l", &log]);
        plain
    }

    fn run(&self, program: &str, args: &[&str]) {
        let mut command: Command = as_user(&pg_bin().join(program));
        let out = fs::File::create(self.cluster.path("plain.log")).unwrap();
        command.args(args).current_dir(self.cluster.path("")).stdin(Stdio::null());
        let status = command.stdout(out.try_clone().unwrap()).stderr(out).status().unwrap();
        assert!(status.success(), "{program} {args:?}\n{}", self.cluster.log_of("plain"));
    }

    fn sql(&self, statements: &[&str]) {
        let (socket, port) = (self.cluster.path("").display().to_string(), self.port.to_string());
        let mut args = vec!["-X", "-v", "ON_ERROR_STOP=1", "-h", &socket, "-p", &port, "-U", "postgres"];
        statements.iter().for_each(|statement| args.extend(["-c", statement]));
        self.run("psql", &args);
    }
}

fn key(cluster: &Cluster, name: &str) -> String {
    let mut command = Command::new("/usr/bin/etcdctl");
    command.env("ETCDCTL_API", "3").arg(format!("--endpoints=127.0.0.1:{}", cluster.store_port));
    let output = command.args(["get", "--print-value-only", &format!("/service/e2e/{name}")]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output).trim().to_owned()
}

async fn text(client: &tokio_postgres::Client, query: &str) -> String {
    client.query_one(query, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_server_is_adopted_under_its_client() {
    let mut cluster = Cluster::new(Store::Etcd, &[Kind::Pgherd; 2], settings());
    let plain = Plain::start(&cluster, "data-n0", cluster.members[0].pg_port, PASSWORD, &[]);
    plain.sql(&[
        "CREATE ROLE replicator REPLICATION LOGIN PASSWORD 'rep-pass'",
        "CREATE ROLE rewinder LOGIN PASSWORD 'rewind-pass'",
        "CREATE TABLE t AS SELECT generate_series(1, 10) AS id",
    ]);
    let postmaster = cluster.postmaster(0).unwrap();
    let (client, connection) = tokio_postgres::connect(&cluster.dsn(0), tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    client
        .batch_execute("CREATE TEMP TABLE mine AS SELECT 'kept' AS word; BEGIN; INSERT INTO t VALUES (11)")
        .await
        .unwrap();
    let backend = text(&client, "SELECT pg_backend_pid()::text").await;

    cluster.start(0);
    assert_eq!(cluster.wait_leader(LONG, |_| true).await, 0);
    let system_id = text(&client, "SELECT system_identifier::text FROM pg_control_system()").await;
    assert_eq!(key(&cluster, "initialize"), system_id);
    assert!(key(&cluster, "config").contains("\"loop_wait\":1"));
    // What only a restart can change waits for one; nobody restarts on his own account.
    let waits = async || cluster.status(0).await.is_some_and(|status| status["pending_restart"] == true);
    cluster.until("a pending restart", LONG, waits).await;
    cluster.start(1);
    cluster.wait_healthy(LONG).await;

    client.batch_execute("COMMIT").await.unwrap();
    assert_eq!(text(&client, "SELECT word FROM mine").await, "kept");
    assert_eq!(text(&client, "SELECT pg_backend_pid()::text").await, backend);
    assert_eq!(cluster.postmaster(0), Some(postmaster));
    assert!(!connection.is_finished());
    let copied = async || {
        let rows = cluster.sql(1, "SELECT count(*) FROM t").await;
        rows.is_ok_and(|rows| rows[0][0].as_deref() == Some("11"))
    };
    cluster.until("the row on the replica", LONG, copied).await;
    assert!(!cluster.log(0).contains("postmaster pid="), "the agent started a server\n{}", cluster.log(0));
}

/// Copies the backup. Told where to, it also says itself how far to recover.
const RESTORE: &str = r#"echo "restore $*" >> calls
for a in "$@"; do case "$a" in
  --to=*) d="${a#--to=}"; own=1;; --datadir=*) d="${a#--datadir=}";; esac; done
mkdir -p -m 700 "$d" && cp -r base/. "$d" || exit 1
if [ -n "$own" ]; then
  echo "restore_command = 'cp $PWD/archive/%f %p'" >> "$d/postgresql.auto.conf"
  echo "recovery_target_name = 'here'" >> "$d/postgresql.auto.conf"
  echo "recovery_target_action = 'promote'" >> "$d/postgresql.auto.conf"
  touch "$d/recovery.signal"
fi
"#;

/// Notes what it was given, uses it, and fails when it is told to.
const POST: &str = r#"echo "post $*" >> calls
psql -X -d "$2" -v ON_ERROR_STOP=1 -c 'CREATE ROLE app' || exit 9
[ "$1" = fine ]
"#;

/// A base backup, and an archive that goes on after the point where the new cluster is to begin.
fn backup(cluster: &Cluster) {
    for name in ["archive", "base"] {
        cluster.make_dir(name);
    }
    let archive = cluster.path("archive").display().to_string();
    let command = format!("archive_command = 'cp %p {archive}/%f'");
    // More connections than the new cluster wants: its recovery must not trip over that.
    let parameters = ["archive_mode = on", &command, "max_connections = 120"];
    let port = crate::harness::free_port();
    let plain = Plain::start(cluster, "source", port, "another password", &parameters);
    plain.sql(&["CREATE TABLE t AS SELECT 'base' AS word"]);
    let (base, socket, port) =
        (cluster.path("base").display().to_string(), cluster.path("").display().to_string(), port.to_string());
    plain
        .run("pg_basebackup", &["-D", &base, "-X", "none", "-c", "fast", "-h", &socket, "-p", &port, "-U", "postgres"]);
    plain.sql(&[
        "INSERT INTO t VALUES ('before')",
        "SELECT pg_create_restore_point('here')",
        "INSERT INTO t VALUES ('after')",
        "SELECT pg_switch_wal()",
    ]);
    plain.run("pg_ctl", &["stop", "-w", "-m", "fast", "-D", &plain.directory.display().to_string()]);
}

fn calls(cluster: &Cluster) -> Vec<String> {
    let text = fs::read_to_string(cluster.path("calls")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The script after the bootstrap fails: no half of a cluster is left, neither here nor in the DCS.
async fn a_failing_script_undoes_the_bootstrap(cluster: &mut Cluster, data_dir: &Path) {
    let to = data_dir.display().to_string();
    cluster.reconfigure(0, |document| {
        document["bootstrap"]["method"] = "pitr".into();
        document["bootstrap"]["pitr"] =
            json!({"command": "sh restore", "no_params": true, "keep_existing_recovery_conf": true, "to": to});
        document["bootstrap"]["post_bootstrap"] = "sh post refused".into();
    });
    cluster.start(0);
    cluster.wait_log(0, "Failed to bootstrap cluster", LONG).await;
    cluster.wait_agent_ended(0, LONG).await;
    let said = calls(cluster);
    assert_eq!(said[0], format!("restore --to={to}"));
    assert!(said[1].starts_with("post refused dbname=postgres user=postgres host="), "{said:?}");
    assert!(!said[1].contains(PASSWORD), "{said:?}");
    let log = cluster.log(0);
    for line in [
        "Running custom bootstrap script: sh restore",
        "post_init script sh post refused returned non-zero code 1",
        "removing initialize key after failed attempt to bootstrap the cluster",
    ] {
        assert!(log.contains(line), "{line}\n{log}");
    }
    assert_eq!(key(cluster, "initialize"), "");
    assert!(!data_dir.exists() && cluster.path("data-n0.failed").join("PG_VERSION").exists(), "{log}");
    assert!(!cluster.path("data-n0.failed/postmaster.pid").exists(), "the server was left running");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_begins_at_a_point_in_time() {
    let mut cluster = Cluster::new(Store::Etcd, &[Kind::Pgherd; 2], settings());
    cluster.write("restore", RESTORE);
    cluster.write("post", POST);
    backup(&cluster);
    let data_dir = cluster.path("data-n0");
    a_failing_script_undoes_the_bootstrap(&mut cluster, &data_dir).await;

    let archive = cluster.path("archive").display().to_string();
    cluster.reconfigure(0, |document| {
        document["bootstrap"]["pitr"] = json!({
            "command": "sh restore", "from": "x y",
            "recovery_conf": {
                "recovery_target_name": "here", "recovery_target_action": "promote",
                "recovery_target_timeline": "latest", "restore_command": format!("cp {archive}/%f %p"),
            },
        });
        document["bootstrap"]["post_bootstrap"] = "sh post fine".into();
        // The file of the backup is in force then.
        document["postgresql"].as_object_mut().unwrap().remove("pg_hba");
        document["bootstrap"]["pg_hba"] = json!(["host all all 127.9.9.9/32 reject"]);
        document["postgresql"]["callbacks"] =
            json!({"on_start": "sh record", "on_reload": "sh record", "on_restart": "sh record"});
    });
    cluster.write("record", "echo \"$*\" >> events\n");
    cluster.start(0);
    assert_eq!(cluster.wait_leader(LONG, |_| true).await, 0);
    let said = calls(&cluster);
    assert_eq!(said[2], format!("restore --scope=e2e --datadir={} --from=x y", data_dir.display()));
    let rows = cluster.sql(0, "SELECT word FROM t ORDER BY word").await.unwrap();
    assert_eq!(rows, [[Some("base".to_owned())], [Some("before".to_owned())]]);
    let rows = cluster.sql(0, "SELECT rolname FROM pg_roles WHERE rolname IN ('app', 'replicator')").await.unwrap();
    assert_eq!(rows.len(), 2);
    let settings = "SELECT current_setting('max_connections'), current_setting('hot_standby'), \
                    current_setting('recovery_target_name')";
    let rows = cluster.sql(0, settings).await.unwrap();
    assert_eq!(rows, [["100", "on", ""].map(|value| Some(value.to_owned()))]);

    // Nothing is left of the way here.
    let hba = fs::read_to_string(data_dir.join("pg_hba.conf")).unwrap();
    assert!(hba.contains("PostgreSQL Client Authentication") && hba.contains("127.9.9.9/32 reject"), "{hba}");
    assert!(!hba.contains("samehost trust"), "{hba}");
    assert!(!data_dir.join("recovery.signal").exists());
    let conf = fs::read_to_string(data_dir.join("postgresql.conf")).unwrap();
    assert!(!conf.contains("recovery_target_name"), "{conf}");

    cluster.start(1);
    cluster.wait_healthy(LONG).await;
    cluster.sql(0, "INSERT INTO t VALUES ('new')").await.unwrap();
    let copied = async || {
        let rows = cluster.sql(1, "SELECT count(*) FROM t").await;
        rows.is_ok_and(|rows| rows[0][0].as_deref() == Some("3"))
    };
    cluster.until("the rows on the replica", LONG, copied).await;
    let status = cluster.status(0).await.unwrap();
    // The attempt before may have left the history of its timeline in the archive.
    assert!(status["timeline"].as_u64().unwrap() > 1, "{status}");
    assert!(status["pending_restart"].is_null(), "{status}");
    assert_eq!(fs::read_to_string(cluster.path("events")).unwrap(), "on_start primary e2e\n");
}
