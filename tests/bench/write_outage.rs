//! How long clients cannot write: pgherd beside Patroni in the same run, the same PostgreSQL, the same etcd.
//!
//! `make bench` prints a table of medians. `HERD_ROUNDS` sets the rounds (default 5), `HERD_ONLY` picks the tables
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

use harness::{Cluster, Kind, Store, signal, stdout};
use serde_json::json;
use writer::Writer;

const LONG: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug)]
enum Event {
    Switchover,
    AgentTerminated,
    PostmasterKilled,
    BothKilled,
    /// Whatever runs beside the server, too: nobody is left to give the leader key back.
    HostLost,
}

/// Patroni goes no lower than a ttl of 20.
const BELOW: &str = "ttl 5, loop_wait 1";

const EVENTS: [Event; 5] =
    [Event::Switchover, Event::AgentTerminated, Event::PostmasterKilled, Event::BothKilled, Event::HostLost];

/// What a round measures: first how long two replicas take to stream from a new primary.
fn rows() -> Vec<String> {
    std::iter::once("ReplicasStreaming".to_owned()).chain(EVENTS.iter().map(|event| format!("{event:?}"))).collect()
}

fn main() {
    let rounds: usize = std::env::var("HERD_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let only = std::env::var("HERD_ONLY").unwrap_or_default();
    let tables = [
        (
            "ttl 20, loop_wait 5",
            json!({"ttl": 20, "loop_wait": 5, "retry_timeout": 5, "postgresql": {"use_pg_rewind": true}}),
        ),
        (
            "synchronous mode, ttl 20, loop_wait 5",
            json!({"ttl": 20, "loop_wait": 5, "retry_timeout": 5, "synchronous_mode": true,
                   "postgresql": {"use_pg_rewind": true}}),
        ),
        ("ttl 30, loop_wait 10 (defaults)", json!({"postgresql": {"use_pg_rewind": true}})),
        (BELOW, json!({"ttl": 5, "loop_wait": 1, "retry_timeout": 1, "postgresql": {"use_pg_rewind": true}})),
    ];
    for (title, dynamic) in tables.into_iter().filter(|(title, _)| title.contains(&only)) {
        println!("\n{title}, medians of {rounds}, longest time without an acknowledged write (20 ms steps)");
        println!("{:<18} {:>10} {:>10} {:>8}", "event", "pgherd", "Patroni", "ratio");
        let ours = runtime.block_on(measure(Kind::Pgherd, rounds, &dynamic));
        if title == BELOW {
            for (i, row) in rows().iter().enumerate() {
                println!("{row:<18} {:>9.2}s {:>10} {:>8}", median(&ours[i]), "-", "-");
            }
            continue;
        }
        let theirs = runtime.block_on(measure(Kind::Patroni, rounds, &dynamic));
        for (i, row) in rows().iter().enumerate() {
            let (a, b) = (median(&ours[i]), median(&theirs[i]));
            println!("{row:<18} {a:>9.2}s {b:>9.2}s {:>8.2}", a / b);
        }
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// For each row the seconds of every round. A round has a cluster of its own.
async fn measure(kind: Kind, rounds: usize, dynamic: &serde_json::Value) -> Vec<Vec<f64>> {
    let mut seconds = vec![Vec::new(); rows().len()];
    for round in 0..rounds {
        let mut cluster = Cluster::new(Store::Etcd, &[kind; 3], dynamic.clone());
        (0..3).for_each(|i| cluster.start(i));
        cluster.wait_leader(LONG, |_| true).await;
        let began = Instant::now();
        cluster.wait_healthy(LONG).await;
        seconds[0].push(began.elapsed().as_secs_f64());
        let writer = Writer::start(&cluster).await;
        for (i, event) in EVENTS.into_iter().enumerate() {
            // Not always in the same phase of the loop.
            cluster.wait_healthy(LONG).await;
            if dynamic["synchronous_mode"] == true {
                cluster.until("a synchronous standby", LONG, async || cluster.has_synchronous().await).await;
            }
            tokio::time::sleep(Duration::from_secs(2 + round as u64)).await;
            let gap = play(&mut cluster, &writer, event).await;
            eprintln!("{kind:?} {event:?} {gap:.2?}");
            seconds[1 + i].push(gap.as_secs_f64());
        }
        writer.finish().await;
    }
    seconds
}

async fn play(cluster: &mut Cluster, writer: &Writer, event: Event) -> Duration {
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
        Event::BothKilled | Event::HostLost => {
            if let Some(guard) = cluster.guard(leader).filter(|_| matches!(event, Event::HostLost)) {
                signal(guard, "KILL");
            }
            cluster.kill_agent(leader);
            cluster.kill_postmaster(leader);
        }
    }
    writer.wait_acknowledged_after(Instant::now() + Duration::from_millis(200), LONG).await;
    if matches!(event, Event::AgentTerminated | Event::BothKilled | Event::HostLost) {
        cluster.start(leader);
    }
    cluster.wait_healthy(LONG).await;
    writer.wait_acknowledged_after(Instant::now(), LONG).await;
    writer.longest_gap_since(began)
}
