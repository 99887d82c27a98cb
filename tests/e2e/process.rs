//! The agent as a process: what it tells systemd, what it takes over at a reload, whom it refuses to run beside, and
//! what it does as process number one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Cluster, Kind, Store, as_user, free_port, http, pg_bin, stderr};

const LONG: Duration = Duration::from_secs(60);

/// Stands in for systemd's end of the socket.
struct Systemd(UnixDatagram);

impl Systemd {
    fn new(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        Self(socket)
    }

    /// The next message that starts so; what comes before it must be one of those expected in between.
    fn hears(&self, start: &str) -> String {
        let mut buffer = [0; 1024];
        let length = self.0.recv(&mut buffer).unwrap_or_else(|error| panic!("no {start}: {error}"));
        let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
        assert!(message.starts_with(start), "{start} was due, not {message}");
        message
    }
}

fn micros() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    u64::try_from(now.tv_sec() * 1_000_000 + now.tv_nsec() / 1000).unwrap()
}

fn script(cluster: &Cluster, name: &str, text: &str) -> String {
    cluster.write(name, text);
    fs::set_permissions(cluster.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    cluster.path(name).display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_reloads_and_refusals() {
    let settings = json!({"ttl": 20, "loop_wait": 1, "retry_timeout": 3});
    let mut cluster = Cluster::new(Store::Embedded, &[Kind::Pgherd, Kind::Pgherd], settings);
    let logs = cluster.path("logs");
    fs::create_dir(&logs).unwrap();
    fs::set_permissions(&logs, fs::Permissions::from_mode(0o777)).unwrap();
    let log = || fs::read_to_string(logs.join("patroni.log")).unwrap_or_default();
    let env = script(&cluster, "env.sh", &format!("#!/bin/sh\nenv > {}/environment\n", cluster.path("").display()));
    cluster.reconfigure(0, |document| {
        document["log"] =
            json!({"dir": logs, "type": "json", "mode": 0o640, "format": [{"levelname": "lvl"}, "message"]});
        document["postgresql"]["callbacks"] = json!({"on_start": env});
    });
    let notify = cluster.path("notify");
    let systemd = Systemd::new(&notify);
    let notify = notify.display().to_string();
    cluster.start_with(0, &[("NOTIFY_SOCKET", &notify), ("PATRONI_LOG_MAX_QUEUE_SIZE", "5000")]);
    let ready = systemd.hears("READY=1\n");
    assert!(ready.contains(&format!("MAINPID={}\n", cluster.agent(0))), "{ready}");
    cluster.wait_leader(LONG, |leader| leader == 0).await;

    // The log: a file with the wanted mode, JSON with renamed fields.
    assert_eq!(fs::metadata(logs.join("patroni.log")).unwrap().permissions().mode() & 0o777, 0o640);
    let lines = log();
    let line: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert!(line["lvl"] == "INFO" && line["message"].as_str().unwrap().starts_with("pgherd "), "{line}");

    // Children get neither our variables nor systemd's socket.
    cluster.until("the callback", LONG, async || cluster.path("environment").exists()).await;
    let environment = fs::read_to_string(cluster.path("environment")).unwrap();
    let postmaster = fs::read_to_string(format!("/proc/{}/environ", cluster.postmaster(0).unwrap())).unwrap();
    for text in [environment, postmaster] {
        assert!(text.contains("HOME=") && !text.contains("PATRONI_") && !text.contains("NOTIFY_SOCKET"), "{text}");
    }

    refuses_a_twin(&cluster);
    refuses_a_foreign_server(&mut cluster).await;
    lets_itself_in_again(&mut cluster, &systemd).await;
    takes_over_a_reload(&cluster, &systemd, &log).await;

    cluster.signal_agent(0, "TERM");
    systemd.hears("STOPPING=1\n");
    cluster.wait_agent_ended(0, LONG).await;
}

/// A second agent of the same name.
fn refuses_a_twin(cluster: &Cluster) {
    let mut twin: Value = serde_json::from_str(&fs::read_to_string(cluster.path("n0.yml")).unwrap()).unwrap();
    twin["restapi"] = json!({"listen": format!("127.0.0.1:{}", free_port())});
    twin["postgresql"]["data_dir"] = json!(cluster.path("data-twin"));
    twin.as_object_mut().unwrap().remove("log");
    cluster.write("twin.yml", &twin.to_string());
    let output = as_user(&cluster.path("pgherd")).arg(cluster.path("twin.yml")).output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("Can't start; there is already a node named 'n0' running"), "{said}");
}

/// A member whose data belong to another cluster. What it cannot tell systemd it tells the log.
async fn refuses_a_foreign_server(cluster: &mut Cluster) {
    let data = cluster.path("data-n1");
    let made = as_user(&pg_bin().join("initdb")).arg("-D").arg(&data).args(["-N", "-U", "postgres"]).output().unwrap();
    assert!(made.status.success(), "{}", stderr(&made));
    cluster.start_with(1, &[("NOTIFY_SOCKET", "/nowhere/notify")]);
    cluster.wait_agent_ended(1, LONG).await;
    let said = cluster.log(1);
    assert!(said.contains("systemd is told nothing: NOTIFY_SOCKET=/nowhere/notify: "), "{said}");
    assert!(said.contains("system ID mismatch, node n1 belongs to a different cluster: "), "{said}");
    assert!(data.join("PG_VERSION").exists() && cluster.postmaster(1).is_none());
}

/// Access rules that keep the agent out can be put right by a reload.
async fn lets_itself_in_again(cluster: &mut Cluster, systemd: &Systemd) {
    let is = async |cluster: &Cluster, state: &str| cluster.status(0).await.is_some_and(|now| now["state"] == state);
    let rules = |cluster: &Cluster, lines: Value| {
        cluster.reconfigure(0, |document| document["postgresql"]["pg_hba"] = lines);
        cluster.signal_agent(0, "HUP");
        for message in ["RELOADING=1\n", "READY=1\n"] {
            systemd.hears(message);
        }
    };
    rules(cluster, json!(["local all all trust", "host all all all reject"]));
    let out = async || cluster.sql(0, "SELECT 1").await.is_err();
    cluster.until("nobody is let in", LONG, out).await;
    cluster.through_socket = true;
    let sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    cluster.sql(0, sessions).await.unwrap();
    cluster.until("the agent is out", LONG, async || is(cluster, "unknown").await).await;
    rules(
        cluster,
        json!(["local all all trust", "host all all all scram-sha-256", "host replication all all scram-sha-256"]),
    );
    cluster.through_socket = false;
    cluster.until("the agent is in", LONG, async || is(cluster, "running").await).await;
    cluster.wait_leader(LONG, |leader| leader == 0).await;
}

async fn takes_over_a_reload(cluster: &Cluster, systemd: &Systemd, log: &dyn Fn() -> String) {
    let port = free_port();
    cluster.reconfigure(0, |document| {
        document["log"]["type"] = json!("plain");
        document["log"]["format"] = json!("%(levelname)s <%(name)s> %(message)s");
        document["log"]["level"] = json!("DEBUG");
        document["log"]["loggers"] = json!({"patroni.ha": "INFO"});
        document["log"]["traceback_level"] = json!("DEBUG");
        document["tags"] = json!({"zone": "a"});
        document["restapi"]["listen"] = json!(format!("127.0.0.1:{port}"));
        document["restapi"]["connect_address"] = json!(format!("127.0.0.1:{port}"));
    });
    let before = micros();
    cluster.signal_agent(0, "HUP");
    let reloading = systemd.hears("RELOADING=1\nMONOTONIC_USEC=");
    let at: u64 = reloading.split(['=', '\n']).nth(3).unwrap().parse().unwrap();
    assert!(at >= before, "{at} {before}");
    systemd.hears("READY=1\n");
    let status = async || {
        let (_, body) = http("GET", port, "/patroni", None).await?;
        serde_json::from_str::<Value>(&body).ok()
    };
    cluster.until("the new address", LONG, async || status().await.is_some_and(|s| s["tags"]["zone"] == "a")).await;
    assert!(cluster.get(0, "/patroni").await.is_none(), "the old address is given up");
    cluster.until("plain lines", LONG, async || log().contains("DEBUG <patroni")).await;

    // Broken in one place: nothing of it counts.
    let broken = fs::read_to_string(cluster.path("n0.yml")).unwrap().replace("\"zone\": \"a\"", "\"zone\": \"b");
    cluster.write("n0.yml", &broken);
    cluster.signal_agent(0, "HUP");
    systemd.hears("RELOADING=1\n");
    systemd.hears("READY=1\n");
    cluster.until("the complaint", LONG, async || log().contains("the old one stays in force")).await;
    let text = log();
    let mut said = text.lines().skip_while(|line| !line.contains("stays in force"));
    let complaint = said.next().unwrap();
    assert!(complaint.contains("n0.yml") && complaint.contains("line "), "{complaint}");
    assert!(said.next().is_none_or(|next| !next.starts_with("  at ")), "this logger shows no debug lines");
    assert_eq!(status().await.unwrap()["tags"]["zone"], "a");
    cluster.write("n0.yml", &broken.replace("\"zone\": \"b", "\"zone\": \"a\""));
    cluster.reconfigure(0, |document| document["restapi"]["certfile"] = json!("/nowhere/rest.pem"));
    cluster.signal_agent(0, "HUP");
    let complains = || {
        let text = log();
        let mut said = text.lines().skip_while(|line| !line.contains("restapi: the old settings stay in force"));
        let (line, place) = (said.next()?.to_owned(), said.next()?.to_owned());
        Some((line, place))
    };
    cluster.until("the other complaint", LONG, async || complains().is_some()).await;
    let (line, place) = complains().unwrap();
    assert!(line.contains("/nowhere/rest.pem") && place.starts_with("  at src/agent/rest.rs:"), "{line}\n{place}");
    assert_eq!(status().await.unwrap()["tags"]["zone"], "a");
    for message in ["RELOADING=1\n", "READY=1\n"] {
        systemd.hears(message);
    }
}

/// The agent as the first process of a container: its own process namespace.
#[tokio::test(flavor = "multi_thread")]
async fn process_number_one_reaps_and_passes_signals_on() {
    let new_namespace = || {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child"]).stdin(Stdio::null());
        command
    };
    let can = new_namespace().arg("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if crate::ground::is_there(can.then_some(()), "a process namespace (unshare --pid)", "util-linux").is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (program, config) = (dir.path().join("pgherd"), dir.path().join("n.yml"));
    fs::copy(env!("CARGO_BIN_EXE_pgherd"), &program).unwrap();
    let text = json!({
        "scope": "one", "name": "n", "etcd3": {"host": "127.0.0.1:1"},
        "restapi": {"listen": format!("127.0.0.1:{}", free_port())},
        "postgresql": {"listen": "127.0.0.1:1", "data_dir": dir.path().join("data")},
    });
    fs::write(&config, text.to_string()).unwrap();
    let agent = as_user(&program);
    let words: Vec<_> =
        std::iter::once(agent.get_program()).chain(agent.get_args()).map(|w| w.to_str().unwrap()).collect();
    let log = dir.path().join("log");
    let mut outer = new_namespace()
        .args(["sh", "-c", &format!("(exit 7) & exec {} {}", words.join(" "), config.display())])
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let said = || fs::read_to_string(&log).unwrap();
    let give_up = Instant::now() + LONG;
    while !(said().contains(", exit status=1792") && said().contains("Can not get cluster from dcs")) {
        assert!(Instant::now() < give_up && outer.try_wait().unwrap().is_none(), "{}", said());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", outer.id())).unwrap();
    let first = nix::unistd::Pid::from_raw(children.trim().parse().unwrap());
    nix::sys::signal::kill(first, nix::sys::signal::Signal::SIGTERM).unwrap();
    let status = loop {
        if let Some(status) = outer.try_wait().unwrap() {
            break status;
        }
        if Instant::now() >= give_up {
            let _ = outer.kill();
            panic!("it did not end: {}", said());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(status.success(), "{status}: {}", said());
}
