//! How long clients cannot write: pgherd beside Patroni in the same run, the same PostgreSQL, the same etcd.
//!
//! `make bench` prints a table of medians. `HERD_ROUNDS` sets the rounds (default 3), `HERD_ONLY` picks the tables
//! whose title contains it.

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

use std::time::{Duration, Instant};

use harness::{Cluster, Kind, Store, stdout};
use serde_json::json;
use writer::Writer;

const LONG: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug)]
enum Event {
    Switchover,
    AgentTerminated,
    PostmasterKilled,
    BothKilled,
}

/// Patroni goes no lower than a ttl of 20.
const BELOW: &str = "ttl 5, loop_wait 1";

const EVENTS: [Event; 4] = [Event::Switchover, Event::AgentTerminated, Event::PostmasterKilled, Event::BothKilled];

fn main() {
    let rounds: usize = std::env::var("HERD_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let only = std::env::var("HERD_ONLY").unwrap_or_default();
    let tables = [
        (
            "ttl 20, loop_wait 5",
            json!({"ttl": 20, "loop_wait": 5, "retry_timeout": 5, "postgresql": {"use_pg_rewind": true}}),
        ),
        ("ttl 30, loop_wait 10 (defaults)", json!({"postgresql": {"use_pg_rewind": true}})),
        (BELOW, json!({"ttl": 5, "loop_wait": 1, "retry_timeout": 1, "postgresql": {"use_pg_rewind": true}})),
    ];
    for (title, dynamic) in tables.into_iter().filter(|(title, _)| title.contains(&only)) {
        println!("\n{title}, medians of {rounds}, longest time without an acknowledged write (20 ms steps)");
        println!("{:<18} {:>10} {:>10} {:>8}", "event", "pgherd", "Patroni", "ratio");
        let ours = runtime.block_on(measure(Kind::Pgherd, rounds, &dynamic));
        if title == BELOW {
            for (i, event) in EVENTS.iter().enumerate() {
                println!("{:<18} {:>9.2}s {:>10} {:>8}", format!("{event:?}"), median(&ours[i]), "-", "-");
            }
            continue;
        }
        let theirs = runtime.block_on(measure(Kind::Patroni, rounds, &dynamic));
        for (i, event) in EVENTS.iter().enumerate() {
            let (a, b) = (median(&ours[i]), median(&theirs[i]));
            println!("{:<18} {:>9.2}s {:>9.2}s {:>8.2}", format!("{event:?}"), a, b, a / b);
        }
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// For each event the gaps of every round.
async fn measure(kind: Kind, rounds: usize, dynamic: &serde_json::Value) -> Vec<Vec<f64>> {
    let mut cluster = Cluster::healthy(Store::Etcd, &[kind; 3], dynamic.clone()).await;
    let writer = Writer::start(&cluster).await;
    let mut gaps = vec![Vec::new(); EVENTS.len()];
    for _ in 0..rounds {
        for (i, event) in EVENTS.into_iter().enumerate() {
            let gap = play(&mut cluster, &writer, event).await;
            eprintln!("{kind:?} {event:?} {gap:.2?}");
            gaps[i].push(gap.as_secs_f64());
        }
    }
    writer.finish().await;
    gaps
}

async fn play(cluster: &mut Cluster, writer: &Writer, event: Event) -> Duration {
    cluster.wait_healthy(LONG).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let leader = cluster.leader().await.expect("a healthy cluster has a leader");
    let began = Instant::now();
    match event {
        Event::Switchover => {
            let from = cluster.members[leader].name.clone();
            let output = cluster.patronictl(&["switchover", "e2e", "--leader", &from, "--force"]);
            assert!(stdout(&output).contains("Successfully"), "{}", stdout(&output));
        }
        Event::AgentTerminated => cluster.terminate_agent(leader, LONG),
        Event::PostmasterKilled => cluster.kill_postmaster(leader),
        Event::BothKilled => {
            cluster.kill_agent(leader);
            cluster.kill_postmaster(leader);
        }
    }
    writer.wait_acknowledged_after(Instant::now() + Duration::from_millis(200), LONG).await;
    if matches!(event, Event::AgentTerminated | Event::BothKilled) {
        cluster.start(leader);
    }
    cluster.wait_healthy(LONG).await;
    writer.wait_acknowledged_after(Instant::now(), LONG).await;
    writer.longest_gap_since(began)
}
