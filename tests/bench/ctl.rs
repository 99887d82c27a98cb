//! What a look at a cluster costs: `pgherdctl` beside Patroni's `patronictl`, in turn in one run, on the same keys in the
//! same etcd. Wall time (median), peak memory, range reads of etcd.
//!
//! `make bench-ctl` prints the table. `HERD_ROUNDS` sets how often each command runs (default 15).

#![allow(clippy::unwrap_used, unreachable_pub, reason = "a failed step is a failed run; the harness is one world")]
#![allow(clippy::disallowed_methods, reason = "processes live by the real clock")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its table and its progress")]

#[path = "../support/ground.rs"]
mod ground;
#[path = "../e2e/harness.rs"]
#[allow(dead_code, reason = "shared with the stories")]
mod harness;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use etcd_client::Client;
use harness::{Cluster, Store};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};

const MEMBERS: usize = 500;
const CLUSTERS: usize = 1_000;
/// Where the many clusters are, apart from the others.
const CROWD: &str = "crowd";
/// The word that makes this program run another one and say what it took.
const MEASURE: &str = "--measure";

/// What one run took.
struct Taken {
    wall: Duration,
    peak_kb: u64,
    lines: u64,
}

/// What many runs took.
struct Figures {
    wall: Duration,
    peak_kb: u64,
    reads: f64,
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|word| word == MEASURE) {
        return measured(&args[2..]);
    }
    let rounds = std::env::var("HERD_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(15);
    tokio::runtime::Runtime::new().expect("a runtime starts").block_on(compare(rounds));
}

/// Runs a program in a process of its own that is small: what a child has at most in memory begins with what its parent
/// has.
fn measured(args: &[String]) {
    let began = Instant::now();
    let output = Command::new(&args[0]).args(&args[1..]).stdin(Stdio::null()).output().expect("the program runs");
    let wall = began.elapsed();
    let peak_kb = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the kernel counts").max_rss();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    let lines = output.stdout.iter().filter(|byte| **byte == b'\n').count();
    println!("{}", json!({ "micros": wall.as_micros() as u64, "peak_kb": peak_kb, "lines": lines }));
}

fn measure(program: &Path, args: &[String]) -> Taken {
    let own = std::env::current_exe().unwrap();
    let output = Command::new(own).arg(MEASURE).arg(program).args(args).output().expect("this program runs");
    assert!(output.status.success(), "{}", harness::stderr(&output));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let number = |key: &str| said[key].as_u64().unwrap();
    Taken { wall: Duration::from_micros(number("micros")), peak_kb: number("peak_kb"), lines: number("lines") }
}

/// What is compared: how ours is called, how theirs, and what both must have printed at least.
struct Case {
    title: &'static str,
    ours: Vec<String>,
    /// Nothing: it cannot do that.
    theirs: Vec<String>,
    lines: u64,
    rounds: usize,
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn cases(cluster: &Cluster, rounds: usize) -> Vec<Case> {
    let file = cluster.path("ctl.yml").display().to_string();
    let with = |args: &[&str]| -> Vec<String> { words(&[&["-c", &file], args].concat()) };
    let both =
        |title, args: &[&str], lines, rounds| Case { title, ours: with(args), theirs: with(args), lines, rounds };
    let names: Vec<String> = (0..CLUSTERS).map(name_of).collect();
    let crowd = format!("etcd3://127.0.0.1:{}/{CROWD}", cluster.store_port);
    let all = words(&["-d", &crowd, "list"]);
    let named: Vec<String> = all.iter().chain(&names).cloned().collect();
    vec![
        Case { title: "version", ours: words(&["version"]), theirs: words(&["version"]), lines: 1, rounds },
        both("list, 3 members", &["list", "demo"], 5, rounds),
        both("list, 3 members, JSON", &["list", "demo", "-f", "json"], 1, rounds),
        both("list, 500 members", &["list", "big"], MEMBERS as u64, rounds),
        // Patroni's tool must be told the names, and then takes minutes.
        Case { title: "list, 1,000 clusters", ours: all, theirs: Vec::new(), lines: CLUSTERS as u64 * 3, rounds },
        Case {
            title: "list, 1,000 clusters by name",
            ours: named.clone(),
            theirs: named,
            lines: CLUSTERS as u64 * 3,
            rounds: 1,
        },
    ]
}

async fn compare(rounds: usize) {
    let cluster = Cluster::new(Store::Etcd, &[], json!({}));
    fill(&cluster).await;
    let ours = released();
    let theirs = harness::venv("patronictl");
    println!(
        "{:<30} {:>12} {:>12} {:>8}   peak MiB, range reads",
        "median of a call, ms", "pgherdctl", "patronictl", "times"
    );
    for case in cases(&cluster, rounds) {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let (mut our_reads, mut their_reads) = (0.0, 0.0);
        for _ in 0..case.rounds {
            let before = range_reads(&cluster).await;
            first.push(run(&ours, &case.ours, case.lines));
            let between = range_reads(&cluster).await;
            if !case.theirs.is_empty() {
                second.push(run(&theirs, &case.theirs, case.lines));
            }
            our_reads += between - before;
            their_reads += range_reads(&cluster).await - between;
        }
        println!("{:<30} {}", case.title, row(&figures(&first, our_reads), &figures(&second, their_reads)));
    }
}

fn row(ours: &Figures, theirs: &Figures) -> String {
    let ms = |figures: &Figures| figures.wall.as_secs_f64() * 1_000.0;
    let mb = |figures: &Figures| figures.peak_kb as f64 / 1_024.0;
    if theirs.wall.is_zero() {
        return format!("{:>12.1} {:>12} {:>8}   {:.1}, {:.0}", ms(ours), "", "", mb(ours), ours.reads);
    }
    format!(
        "{:>12.1} {:>12.1} {:>8.1}   {:.1} : {:.1} (1/{:.1}), {:.0} : {:.0}",
        ms(ours),
        ms(theirs),
        ms(theirs) / ms(ours),
        mb(ours),
        mb(theirs),
        mb(theirs) / mb(ours),
        ours.reads,
        theirs.reads
    )
}

fn run(program: &Path, args: &[String], lines: u64) -> Taken {
    let taken = measure(program, args);
    assert!(taken.lines >= lines, "{} {:?}: {} lines", program.display(), &args[..3.min(args.len())], taken.lines);
    taken
}

fn figures(taken: &[Taken], reads: f64) -> Figures {
    let mut walls: Vec<Duration> = taken.iter().map(|taken| taken.wall).collect();
    walls.sort();
    let peak_kb = taken.iter().map(|taken| taken.peak_kb).max().unwrap_or_default();
    let wall = walls.get(walls.len() / 2).copied().unwrap_or_default();
    Figures { wall, peak_kb, reads: reads / taken.len().max(1) as f64 }
}

/// The program as it is shipped: `make bench-ctl` builds it.
fn released() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/release/pgherdctl");
    assert!(path.exists(), "{} is missing: cargo build --release --bin pgherdctl", path.display());
    path
}

fn name_of(number: usize) -> String {
    format!("cluster-{number:04}")
}

/// A recorded cluster, a large one, and many.
async fn fill(cluster: &Cluster) {
    let mut client = Client::connect([format!("127.0.0.1:{}", cluster.store_port)], None).await.unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/healthy.etcd.json");
    let dump: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let text = |key: &Value| key.as_str().unwrap().to_owned();
    let recorded: Vec<(String, String)> =
        dump["kvs"].as_array().unwrap().iter().map(|kv| (text(&kv["key"]), text(&kv["value"]))).collect();
    let prefix = text(&dump["prefix"]);
    let mut keys = recorded.clone();
    for number in 0..CLUSTERS {
        let own = format!("/{CROWD}/{}/", name_of(number));
        keys.extend(recorded.iter().map(|(key, value)| (key.replace(&prefix, &own), value.clone())));
    }
    let is_member = |key: &str| key.contains("/members/");
    for (key, value) in recorded.iter().filter(|(key, _)| !is_member(key)) {
        keys.push((key.replace(&prefix, "/service/big/"), value.clone()));
    }
    let standby = recorded.iter().find(|(key, _)| key.ends_with("/members/pg2")).unwrap();
    for number in 1..=MEMBERS {
        let name = format!("pg{number}");
        let primary = recorded.iter().find(|(key, _)| number == 1 && key.ends_with("/members/pg1"));
        let host = format!("//10.0.{}.{}:5432/", number / 250, number % 250);
        let value = primary.unwrap_or(standby).1.replace("//127.0.0.1:22433/", &host);
        keys.push((format!("/service/big/members/{name}"), value));
    }
    for (key, value) in keys {
        client.put(key, value, None).await.unwrap();
    }
}

/// Range requests that etcd has begun to answer.
async fn range_reads(cluster: &Cluster) -> f64 {
    let (_, text) = harness::http("GET", cluster.store_port, "/metrics", None).await.expect("etcd counts");
    let is_range =
        |line: &&str| line.starts_with("grpc_server_started_total") && line.contains("grpc_method=\"Range\"");
    text.lines().filter(is_range).filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}
