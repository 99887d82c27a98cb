//! What an agent costs when nothing happens, and how many REST requests it answers: pgherd beside Patroni in the same
//! run, the same PostgreSQL, the same etcd, default timings, under a writer.
//!
//! `make bench-at-rest` prints the table. `HERD_SECONDS` sets how long the cluster is watched (default 60).

#![allow(clippy::unwrap_used, unreachable_pub, reason = "a failed step is a failed run; the harness is one world")]
#![allow(clippy::disallowed_methods, reason = "processes live by the real clock")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its table and its progress")]

#[path = "../support/ground.rs"]
mod ground;
#[path = "../e2e/harness.rs"]
#[allow(dead_code, reason = "shared with the stories")]
mod harness;
#[path = "../e2e/writer.rs"]
#[allow(dead_code, reason = "shared with the stories")]
mod writer;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use harness::{Cluster, Kind, Store};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use writer::Writer;

const CONNECTIONS: usize = 16;
const BURST: Duration = Duration::from_secs(4);
const PATHS: [&str; 3] = ["/primary", "/patroni", "/metrics"];

/// While something hangs, health is asked for this long: less than a lease lives, so that nobody takes over meanwhile.
const HANG: Duration = Duration::from_secs(8);
/// An answer that takes longer counts as one that took this long.
const PATIENCE: Duration = Duration::from_secs(2);

/// What one process holds, in bytes.
#[derive(Clone, Copy, Default)]
struct Held {
    /// All of it, with what it shares with others.
    resident: u64,
    /// With its share of what it shares.
    proportional: u64,
    /// Only its own.
    anonymous: u64,
}

/// What was measured of one kind of agent.
struct Figures {
    /// Of the leader's agent, of a replica's, and of the leader's guard.
    held: [Held; 3],
    /// Of the same, milliseconds of processor time per `loop_wait`.
    cpu: [f64; 3],
    /// Requests to etcd per member and `loop_wait`, by method.
    dcs: BTreeMap<String, f64>,
    /// Answers per second on the leader, by path.
    rest: Vec<f64>,
    /// Median, 99th percentile and longest answer while something hangs, in milliseconds, by what hangs and path.
    hanging: Vec<(String, [f64; 3])>,
}

fn main() {
    let seconds = std::env::var("HERD_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let ours = runtime.block_on(measure(Kind::Pgherd, Duration::from_secs(seconds)));
    let theirs = runtime.block_on(measure(Kind::Patroni, Duration::from_secs(seconds)));
    println!("{:<44} {:>12} {:>12} {:>8}", "three members, defaults, a writer", "pgherd", "Patroni", "ratio");
    let line = |title: &str, ours: f64, theirs: f64, digits: usize| {
        println!("{title:<44} {ours:>12.digits$} {theirs:>12.digits$} {:>8.2}", ours / theirs);
    };
    let mb = |bytes: u64| bytes as f64 / 1_048_576.0;
    let roles = ["the leader's agent", "a replica's agent", "the leader's guard"];
    for (i, role) in roles.iter().enumerate() {
        let (ours, theirs) = (ours.held[i], theirs.held[i]);
        line(&format!("RSS of {role}, MiB"), mb(ours.resident), mb(theirs.resident), 1);
        line(&format!("PSS of {role}, MiB"), mb(ours.proportional), mb(theirs.proportional), 1);
        line(&format!("anonymous of {role}, MiB"), mb(ours.anonymous), mb(theirs.anonymous), 1);
    }
    for (i, role) in roles.iter().enumerate() {
        line(&format!("CPU of {role}, ms per loop"), ours.cpu[i], theirs.cpu[i], 2);
    }
    let sum = |figures: &Figures| figures.dcs.values().sum::<f64>();
    line("DCS requests per member and loop", sum(&ours), sum(&theirs), 2);
    for (i, path) in PATHS.iter().enumerate() {
        line(&format!("{path}, answers per second"), ours.rest[i], theirs.rest[i], 0);
    }
    for ((title, ours), (_, theirs)) in ours.hanging.iter().zip(&theirs.hanging) {
        for ((what, ours), theirs) in ["p50", "p99", "max"].iter().zip(ours).zip(theirs) {
            line(&format!("{title}, {what} ms"), *ours, *theirs, 1);
        }
    }
    println!("DCS requests by method: pgherd {:.2?}, Patroni {:.2?}", ours.dcs, theirs.dcs);
}

async fn measure(kind: Kind, length: Duration) -> Figures {
    let cluster = Cluster::healthy(Store::Etcd, &[kind; 3], json!({"postgresql": {"use_pg_rewind": true}})).await;
    let writer = Writer::start(&cluster).await;
    // What a birth leaves to do is done after two loops.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let leader = cluster.leader().await.expect("a healthy cluster has a leader");
    let agents = [Some(cluster.agent(leader)), Some(cluster.agent((leader + 1) % 3)), cluster.guard(leader)];
    let (cpu, dcs, began) = (agents.map(processor_time), store_requests(&cluster).await, Instant::now());
    tokio::time::sleep(length).await;
    let took = began.elapsed().as_secs_f64();
    let after = store_requests(&cluster).await;
    let per_loop_ms = |i: usize| (processor_time(agents[i]) - cpu[i]) * 1_000.0 / (took / 10.0);
    let per_loop = |count: f64| count / 3.0 / (took / 10.0);
    let dcs = after.iter().map(|(name, count)| (name.clone(), per_loop(count - dcs.get(name).unwrap_or(&0.0))));
    let mut figures = Figures {
        held: agents.map(held),
        cpu: [0, 1, 2].map(per_loop_ms),
        dcs: dcs.filter(|(_, count)| *count > 0.0).collect(),
        rest: Vec::new(),
        hanging: Vec::new(),
    };
    for path in PATHS {
        figures.rest.push(answers_per_second(cluster.members[leader].api_port, path).await);
    }
    eprintln!("{kind:?}: CPU {:.2?} ms per loop, answers per second {:.0?}", figures.cpu, figures.rest);
    writer.finish().await;
    figures.hanging = while_hanging(&cluster, leader).await;
    figures
}

/// Health checks while PostgreSQL, then etcd is frozen, and while a replica is cloned.
async fn while_hanging(cluster: &Cluster, leader: usize) -> Vec<(String, [f64; 3])> {
    let replica = (leader + 1) % 3;
    let mut figures = Vec::new();
    let server = cluster.server_processes(leader);
    for (what, member) in [("PostgreSQL frozen", leader), ("etcd frozen", leader), ("a clone running", replica)] {
        match what {
            "PostgreSQL frozen" => server.iter().for_each(|pid| harness::signal(*pid, "STOP")),
            "etcd frozen" => cluster.freeze_store(true),
            _ => {
                let name = cluster.members[replica].name.clone();
                let output = cluster.ctl(&["reinit", "e2e", &name, "--force"]);
                assert!(output.status.success(), "{}", harness::stderr(&output));
            }
        }
        let port = cluster.members[member].api_port;
        let (liveness, primary) = tokio::join!(latencies(port, "/liveness"), latencies(port, "/primary"));
        figures.push((format!("/liveness, {what}"), liveness));
        figures.push((format!("/primary, {what}"), primary));
        server.iter().for_each(|pid| harness::signal(*pid, "CONT"));
        cluster.freeze_store(false);
        // One that does not recover has answered all the same, and the next things to hang do not need a server.
        let give_up = Instant::now() + Duration::from_secs(120);
        while !cluster.is_healthy().await && Instant::now() < give_up {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    figures
}

/// How long health checks take, one after another, each on a connection of its own: median, 99th percentile, maximum
/// in milliseconds.
async fn latencies(port: u16, path: &str) -> [f64; 3] {
    let (mut took, began) = (Vec::new(), Instant::now());
    while began.elapsed() < HANG {
        let asked = Instant::now();
        let answer = harness::http_within(PATIENCE, "GET", port, path, None).await;
        took.push(if answer.is_some() { asked.elapsed() } else { PATIENCE });
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1_000.0;
    [at(0.5), at(0.99), at(1.0)]
}

/// Memory that a process holds.
fn held(pid: Option<u32>) -> Held {
    let Some(pid) = pid else { return Held::default() };
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let bytes = |name: &str| {
        let line = rollup.lines().find(|line| line.starts_with(name)).expect("the kernel tells it");
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    };
    Held { resident: bytes("Rss:"), proportional: bytes("Pss:"), anonymous: bytes("Anonymous:") }
}

/// Seconds of processor time that a process has used, to the nanosecond: what an agent at rest uses in a minute is a
/// few of the ticks in which `/proc` tells it.
fn processor_time(pid: Option<u32>) -> f64 {
    let Some(pid) = pid else { return 0.0 };
    let clock = nix::time::clock_getcpuclockid(nix::unistd::Pid::from_raw(pid.cast_signed())).unwrap();
    Duration::from(nix::time::clock_gettime(clock).unwrap()).as_secs_f64()
}

/// Requests that etcd has begun to answer, by method.
async fn store_requests(cluster: &Cluster) -> BTreeMap<String, f64> {
    let mut socket = TcpStream::connect(("127.0.0.1", cluster.store_port)).await.unwrap();
    // The old protocol version has no chunks.
    socket.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    let mut counts = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("grpc_server_started_total")) {
        let method = line.split("grpc_method=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        let count: f64 = line.rsplit_once(' ').unwrap().1.parse().unwrap();
        *counts.entry(method.to_owned()).or_default() += count;
    }
    counts
}

/// Sixteen connections ask one after another for a while.
async fn answers_per_second(port: u16, path: &'static str) -> f64 {
    let began = Instant::now();
    let clients: Vec<_> = (0..CONNECTIONS).map(|_| tokio::spawn(ask(port, path, began + BURST))).collect();
    let mut answers = 0;
    for client in clients {
        answers += client.await.unwrap();
    }
    answers as f64 / began.elapsed().as_secs_f64()
}

async fn ask(port: u16, path: &str, until: Instant) -> usize {
    let mut answers = 0;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    while Instant::now() < until {
        let mut socket = BufReader::new(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
        while Instant::now() < until {
            if socket.write_all(request.as_bytes()).await.is_err() {
                break;
            }
            let Some(stays) = read_answer(&mut socket).await else { break };
            answers += 1;
            if !stays {
                break;
            }
        }
    }
    answers
}

/// One answer. Whether the connection serves another one; nothing if it broke.
async fn read_answer(socket: &mut BufReader<TcpStream>) -> Option<bool> {
    let (mut length, mut stays, mut line) = (None, true, String::new());
    socket.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
    assert!(line.contains("200"), "{line}");
    let is_old = line.starts_with("HTTP/1.0");
    loop {
        line.clear();
        socket.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
        let header = line.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(text) = header.strip_prefix("content-length: ") {
            length = text.parse::<usize>().ok();
        }
        stays &= header != "connection: close";
    }
    let mut body = Vec::new();
    match length {
        Some(length) => {
            body.resize(length, 0);
            socket.read_exact(&mut body).await.ok()?;
        }
        None => {
            socket.read_to_end(&mut body).await.ok()?;
        }
    }
    Some(stays && !is_old && length.is_some())
}
