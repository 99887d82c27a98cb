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

/// What was measured of one kind of agent.
struct Figures {
    /// Of the leader's agent and of a replica's, bytes.
    resident: (u64, u64),
    /// Of the leader's agent and of a replica's, share of one processor.
    cpu: (f64, f64),
    /// Requests to etcd per member and `loop_wait`, by method.
    dcs: BTreeMap<String, f64>,
    /// Answers per second on the leader, by path.
    rest: Vec<f64>,
    /// The longest of twenty answers while something hangs, in milliseconds, by what hangs and path.
    hanging: Vec<(String, f64)>,
}

fn main() {
    let seconds = std::env::var("HERD_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let ours = runtime.block_on(measure(Kind::Pgherd, Duration::from_secs(seconds)));
    let theirs = runtime.block_on(measure(Kind::Patroni, Duration::from_secs(seconds)));
    println!("{:<34} {:>12} {:>12} {:>8}", "three members, defaults, a writer", "pgherd", "Patroni", "ratio");
    let line = |title: &str, ours: f64, theirs: f64, digits: usize| {
        println!("{title:<34} {ours:>12.digits$} {theirs:>12.digits$} {:>8.2}", ours / theirs);
    };
    let mb = |bytes: u64| bytes as f64 / 1_048_576.0;
    line("RSS of the leader's agent, MiB", mb(ours.resident.0), mb(theirs.resident.0), 1);
    line("RSS of a replica's agent, MiB", mb(ours.resident.1), mb(theirs.resident.1), 1);
    line("CPU of the leader's agent, %", ours.cpu.0 * 100.0, theirs.cpu.0 * 100.0, 2);
    line("CPU of a replica's agent, %", ours.cpu.1 * 100.0, theirs.cpu.1 * 100.0, 2);
    let sum = |figures: &Figures| figures.dcs.values().sum::<f64>();
    line("DCS requests per member and loop", sum(&ours), sum(&theirs), 2);
    for (i, path) in PATHS.iter().enumerate() {
        line(&format!("{path}, answers per second"), ours.rest[i], theirs.rest[i], 0);
    }
    for ((title, ours), (_, theirs)) in ours.hanging.iter().zip(&theirs.hanging) {
        line(title, *ours, *theirs, 1);
    }
    println!("DCS requests by method: pgherd {:.2?}, Patroni {:.2?}", ours.dcs, theirs.dcs);
}

async fn measure(kind: Kind, length: Duration) -> Figures {
    let cluster = Cluster::healthy(Store::Etcd, &[kind; 3], json!({})).await;
    let writer = Writer::start(&cluster).await;
    // What a birth leaves to do is done after two loops.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let leader = cluster.leader().await.expect("a healthy cluster has a leader");
    let agents = [cluster.agent(leader), cluster.agent((leader + 1) % 3)];
    let (cpu, dcs, began) = (agents.map(processor_time), store_requests(&cluster).await, Instant::now());
    tokio::time::sleep(length).await;
    let took = began.elapsed().as_secs_f64();
    let after = store_requests(&cluster).await;
    let share = |i: usize| (processor_time(agents[i]) - cpu[i]) / took;
    let per_loop = |count: f64| count / 3.0 / (took / 10.0);
    let dcs = after.iter().map(|(name, count)| (name.clone(), per_loop(count - dcs.get(name).unwrap_or(&0.0))));
    let mut figures = Figures {
        resident: (resident(agents[0]), resident(agents[1])),
        cpu: (share(0), share(1)),
        dcs: dcs.filter(|(_, count)| *count > 0.0).collect(),
        rest: Vec::new(),
        hanging: Vec::new(),
    };
    for path in PATHS {
        figures.rest.push(answers_per_second(cluster.members[leader].api_port, path).await);
    }
    writer.finish().await;
    figures.hanging = while_hanging(&cluster, leader).await;
    figures
}

/// Health checks while PostgreSQL, then etcd is frozen, and while a replica is cloned.
async fn while_hanging(cluster: &Cluster, leader: usize) -> Vec<(String, f64)> {
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
        for path in ["/liveness", "/primary"] {
            let mut worst = Duration::ZERO;
            for _ in 0..20 {
                let began = Instant::now();
                let port = cluster.members[member].api_port;
                harness::http_within(Duration::from_secs(10), "GET", port, path, None).await;
                worst = worst.max(began.elapsed());
            }
            figures.push((format!("{path}, {what}, ms"), worst.as_secs_f64() * 1_000.0));
        }
        server.iter().for_each(|pid| harness::signal(*pid, "CONT"));
        cluster.freeze_store(false);
        cluster.wait_healthy(Duration::from_secs(120)).await;
    }
    figures
}

/// Bytes of memory that the process holds.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a live process has a size");
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Seconds of processor time that the process has used.
fn processor_time(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // The kernel counts in hundredths of a second.
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
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
