//! Configurations that we make, beside those that Patroni makes.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use pgherd::config::yaml;
use serde_json::Value;

use crate::stage::{self, Stage};

fn variables() -> BTreeMap<String, String> {
    let pairs = [
        ("PATRONI_SCOPE", "demo"),
        ("PATRONI_ETCD3_HOST", "127.0.0.1:2379"),
        ("PATRONI_REPLICATION_USERNAME", "rep"),
        ("PATRONI_SUPERUSER_PASSWORD", "secret"),
        ("PATRONI_REWIND_USERNAME", "rew"),
    ];
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn patroni(stage: &Stage, args: &[&str], environment: &BTreeMap<String, String>) -> Option<Value> {
    let mut command = Command::new(stage::venv("patroni")?);
    command.args(args).env_clear().envs(environment);
    let path = format!("{}:/usr/bin:/bin", stage.bin.display());
    let output = command.env("PATH", path).env("LC_ALL", "C.UTF-8").output().unwrap();
    assert!(output.status.success(), "{}", stage::stderr(&output));
    Some(yaml::read(&stage::stdout(&output)).unwrap())
}

#[test]
fn the_sample_is_patronis() {
    let Some(stage) = Stage::new() else { return };
    for environment in [BTreeMap::new(), variables()] {
        let Some(theirs) = patroni(&stage, &["--generate-sample-config"], &environment) else { return };
        let output = stage.pgherd(&["--generate-sample-config"], &environment);
        assert!(output.status.success(), "{}", stage::stderr(&output));
        let text = stage::stdout(&output);
        assert_eq!(yaml::read(&text).unwrap(), theirs);
        assert!(!text.ends_with('\n'));

        let path = stage.path("new/dir/sample.yml");
        let output = stage.pgherd(&["--generate-sample-config", path.to_str().unwrap()], &environment);
        assert!(output.status.success() && output.stdout.is_empty(), "{}", stage::stderr(&output));
        assert_eq!(std::fs::read_to_string(path).unwrap(), text);
    }
}

#[test]
fn without_a_server_program_there_is_no_sample() {
    let Some(stage) = Stage::new() else { return };
    let environment = BTreeMap::from([("PATRONI_POSTGRESQL_BIN_DIR".to_owned(), "/no/such".to_owned())]);
    let output = stage.pgherd(&["--generate-sample-config"], &environment);
    let said = stage::stderr(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("Failed to get postgres version") && said.contains("/no/such"), "{said}");
}

/// A server of our own, stopped when it goes out of scope. The tests may run as root, the server may not.
struct Server<'a> {
    stage: &'a Stage,
    port: u16,
}

impl<'a> Server<'a> {
    fn start(stage: &'a Stage) -> Self {
        let server = Self { stage, port: crate::ground::free_port() };
        std::fs::set_permissions(stage.dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        std::fs::write(stage.path("password"), "secret").unwrap();
        std::fs::set_permissions(stage.path("password"), std::fs::Permissions::from_mode(0o644)).unwrap();
        let password = stage.path("password").display().to_string();
        server.run("initdb", &["-D", &server.data(), "-U", "boss", "--pwfile", &password, "-A", "scram-sha-256", "-N"]);
        let more = format!(
            "cluster_name = found\nport = {}\nunix_socket_directories = '{}'\nwork_mem = 5MB\narchive_mode = on\n\
             archive_command = 'true'\nmax_connections = 33\nfsync = off\nlisten_addresses = '127.0.0.1'\n",
            server.port,
            stage.dir.path().display()
        );
        server.run("sh", &["-c", &format!("cat >> {}/postgresql.conf <<'END'\n{more}END", server.data())]);
        server.run("sh", &["-c", &format!("echo 'm root boss' >> {}/pg_ident.conf", server.data())]);
        server.run("pg_ctl", &["start", "-w", "-D", &server.data(), "-l", &format!("{}.log", server.data())]);
        server
    }

    fn data(&self) -> String {
        self.stage.path("server").display().to_string()
    }

    fn run(&self, program: &str, args: &[&str]) {
        let own = self.stage.bin.join(program);
        let program = if own.exists() { own } else { program.into() };
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups", "--"]).arg(&program);
        if !nix::unistd::geteuid().is_root() {
            command = Command::new(&program);
        }
        let output = command.args(args).current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", stage::stderr(&output));
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        self.run("pg_ctl", &["stop", "-w", "-m", "immediate", "-D", &self.data()]);
    }
}

#[test]
fn a_running_server_is_described_as_patroni_does() {
    let Some(stage) = Stage::new() else { return };
    let server = Server::start(&stage);
    let dsn = format!("host=127.0.0.1 port={} user=boss password=secret dbname=postgres", server.port);
    let args = ["--generate-config", "--dsn", &dsn];
    let Some(theirs) = patroni(&stage, &args, &BTreeMap::new()) else { return };
    let output = stage.pgherd(&args, &BTreeMap::new());
    assert!(output.status.success(), "{}", stage::stderr(&output));
    let ours = yaml::read(&stage::stdout(&output)).unwrap();
    assert_eq!(ours, theirs);
    assert_eq!(
        (&ours["scope"], &ours["postgresql"]["pg_ident"]),
        (&Value::from("found"), &serde_json::json!(["m root boss"]))
    );

    // The same by libpq's variables; and what can go wrong.
    let variables = [("PGHOST", "127.0.0.1"), ("PGUSER", "boss"), ("PGPASSWORD", "secret"), ("PGDATABASE", "postgres")];
    let mut environment: BTreeMap<String, String> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    environment.insert("PGPORT".to_owned(), server.port.to_string());
    let output = stage.pgherd(&["--generate-config"], &environment);
    let again = yaml::read(&stage::stdout(&output)).unwrap();
    assert_eq!(again["bootstrap"], ours["bootstrap"], "{}", stage::stderr(&output));
    let superuser = serde_json::json!({"password": "secret", "username": "boss"});
    assert_eq!(again["postgresql"]["authentication"]["superuser"], superuser);
    let dsn = |text: &str| stage::stderr(&stage.pgherd(&["--generate-config", "--dsn", text], &environment));
    assert!(dsn("nonsense").contains("Failed to parse DSN string"));
    let wrong = dsn("password=wrong");
    assert!(
        wrong.contains("Failed to establish PostgreSQL connection: ") && wrong.contains("authentication"),
        "{wrong}"
    );
    assert!(dsn("port=1").contains("Failed to establish PostgreSQL connection: "));
}
