//! Faults by lot on real processes: agents, postmasters and etcd are killed and frozen under a writer.
//!
//! `make campaign` prints a line per fault and a table. What it does is set by the environment:
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `HERD_KIND` | `pgherd` or `patroni` | `pgherd` |
//! | `HERD_MODE` | `off`, `on`, `quorum`: `synchronous_mode` | `on` |
//! | `HERD_FAULTS` | how many | 200 |
//! | `HERD_SEED` | the lot; the same faults for both kinds | 1 |
//! | `HERD_TTL` | seconds | 20 |

#![allow(clippy::unwrap_used, unreachable_pub, reason = "a failed step is a failed run; the harness is one world")]
#![allow(clippy::disallowed_methods, reason = "processes live by the real clock")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its table and its progress")]

#[path = "../support/dice.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod dice;
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

use dice::Dice;
use harness::{Cluster, Kind, Store, signal};
use serde_json::{Value, json};
use writer::{Writer, lost};

/// A cluster must be well again this long after its fault ended.
const HEALED: Duration = Duration::from_secs(60);
/// One that is not is waited for, so that the run tells how long it took; then a human would step in.
const PATIENCE: Duration = Duration::from_secs(180);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    AgentKilled,
    AgentFrozen,
    PostmasterKilled,
    PostmasterFrozen,
    BothKilled,
    BothFrozen,
    StoreKilled,
    StoreFrozen,
}

const FAULTS: [Fault; 8] = [
    Fault::AgentKilled,
    Fault::AgentFrozen,
    Fault::PostmasterKilled,
    Fault::PostmasterFrozen,
    Fault::BothKilled,
    Fault::BothFrozen,
    Fault::StoreKilled,
    Fault::StoreFrozen,
];

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn number(name: &str, default: u64) -> u64 {
    setting(name, &default.to_string()).parse().unwrap_or_else(|_| panic!("{name} is a number"))
}

/// What the run has seen.
#[derive(Default)]
struct Account {
    faults: BTreeMap<Fault, usize>,
    lost: Vec<u64>,
    healed: Vec<Duration>,
    gaps: Vec<Duration>,
    /// How often a member had to be made anew by hand.
    humans: usize,
}

fn main() {
    let kind = match setting("HERD_KIND", "pgherd").as_str() {
        "pgherd" => Kind::Pgherd,
        "patroni" => Kind::Patroni,
        other => panic!("HERD_KIND is pgherd or patroni, not {other}"),
    };
    let mode = match setting("HERD_MODE", "on").as_str() {
        "on" => json!(true),
        "off" => json!(false),
        "quorum" => json!("quorum"),
        other => panic!("HERD_MODE is on, off or quorum, not {other}"),
    };
    let (faults, seed, ttl) = (number("HERD_FAULTS", 200), number("HERD_SEED", 1), number("HERD_TTL", 20));
    tokio::runtime::Runtime::new().expect("a runtime starts").block_on(run(kind, &mode, faults, seed, ttl));
}

async fn run(kind: Kind, mode: &Value, faults: u64, seed: u64, ttl: u64) {
    let dynamic = json!({
        "ttl": ttl, "loop_wait": (ttl / 4).max(1), "retry_timeout": (ttl / 4).max(1), "synchronous_mode": mode,
        "maximum_lag_on_failover": 1_048_576,
        "postgresql": {"use_pg_rewind": true, "parameters": {"wal_keep_size": "256MB"}},
    });
    let mut cluster = Cluster::healthy(Store::Etcd, &[kind; 3], dynamic).await;
    let writer = Writer::start(&cluster).await;
    let mut dice = Dice::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut account = Account::default();
    for round in 1..=faults {
        let fault = *dice.pick(&FAULTS);
        let on_leader = dice.roll(3) > 0;
        let length = Duration::from_millis(200 + dice.roll(ttl * 1_500));
        let Some(leader) = cluster.leader().await else { panic!("a healthy cluster has a leader") };
        let victim = if on_leader { leader } else { (leader + 1 + usize::from(dice.one_in(2))) % 3 };
        let began = Instant::now();
        strike(&mut cluster, fault, victim, length).await;
        let ended = Instant::now();
        let healed = wait_well(&cluster, &writer, mode, ended, &mut account.humans).await;
        let gap = writer.longest_gap_since(began);
        let gone = lost(&cluster, writer.acknowledged()).await;
        let fresh = gone.len().saturating_sub(account.lost.len());
        println!(
            "{round:>4} {fault:?} {} of {} for {length:.1?}: well after {healed:.1?}, longest gap {gap:.1?}, lost {fresh}",
            if fault >= Fault::StoreKilled { "etcd" } else { &cluster.members[victim].name },
            if victim == leader { "the leader" } else { "a replica" },
        );
        if fresh > 0 {
            eprintln!("{}", cluster.dump());
        }
        *account.faults.entry(fault).or_default() += 1;
        account.lost = gone;
        account.healed.push(healed);
        account.gaps.push(gap);
    }
    let acknowledged = writer.finish().await.len();
    report(kind, mode, &account, acknowledged);
}

/// The fault, its length, and its end: what was killed is started again, what was frozen goes on.
async fn strike(cluster: &mut Cluster, fault: Fault, victim: usize, length: Duration) {
    let server = cluster.server_processes(victim);
    let freeze_server = |name: &str| server.iter().for_each(|pid| signal(*pid, name));
    match fault {
        Fault::AgentKilled => cluster.kill_agent(victim),
        Fault::AgentFrozen => cluster.signal_agent(victim, "STOP"),
        Fault::PostmasterKilled => cluster.kill_postmaster(victim),
        Fault::PostmasterFrozen => freeze_server("STOP"),
        Fault::BothKilled => {
            cluster.kill_agent(victim);
            cluster.kill_postmaster(victim);
        }
        Fault::BothFrozen => {
            cluster.signal_agent(victim, "STOP");
            freeze_server("STOP");
        }
        Fault::StoreKilled => cluster.stop_store(),
        Fault::StoreFrozen => cluster.freeze_store(true),
    }
    tokio::time::sleep(length).await;
    match fault {
        Fault::AgentKilled | Fault::BothKilled => cluster.start(victim),
        Fault::AgentFrozen => cluster.signal_agent(victim, "CONT"),
        Fault::PostmasterKilled => {}
        Fault::PostmasterFrozen => freeze_server("CONT"),
        Fault::BothFrozen => {
            freeze_server("CONT");
            cluster.signal_agent(victim, "CONT");
        }
        Fault::StoreKilled => cluster.start_store(),
        Fault::StoreFrozen => cluster.freeze_store(false),
    }
}

/// Waits until a leader takes writes, all others stream and, in a synchronous mode, one of them may be elected;
/// returns how long after the end of the fault that was. Members that do not find their way are made anew.
async fn wait_well(cluster: &Cluster, writer: &Writer, mode: &Value, ended: Instant, humans: &mut usize) -> Duration {
    let mut help_at = ended + PATIENCE;
    loop {
        if cluster.is_healthy().await && (mode == &json!(false) || cluster.has_synchronous().await) {
            writer.wait_acknowledged_after(Instant::now(), PATIENCE).await;
            return ended.elapsed();
        }
        if Instant::now() > help_at {
            help_at = Instant::now() + PATIENCE;
            *humans += 1;
            eprintln!("{}", cluster.dump());
            for i in 0..cluster.members.len() {
                let status = cluster.status(i).await.unwrap_or_default();
                if status["role"] != "primary" && status["replication_state"] != "streaming" {
                    cluster.ctl(&["reinit", "e2e", &cluster.members[i].name, "--force"]);
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn report(kind: Kind, mode: &Value, account: &Account, acknowledged: usize) {
    let middle = |values: &[Duration]| {
        let mut values = values.to_vec();
        values.sort();
        values[values.len() / 2]
    };
    let late = account.healed.iter().filter(|healed| **healed > HEALED).count();
    println!("\n{:?}, synchronous_mode {mode}: {} faults {:?}", kind, account.healed.len(), account.faults);
    println!("rows acknowledged {acknowledged}, lost {}", account.lost.len());
    println!("members made anew by hand: {}", account.humans);
    println!(
        "well again after (median, worst) {:.1?}, {:.1?}; later than {HEALED:?}: {late}",
        middle(&account.healed),
        account.healed.iter().max().unwrap()
    );
    println!(
        "longest write gap of a fault (median, worst) {:.1?}, {:.1?}",
        middle(&account.gaps),
        account.gaps.iter().max().unwrap()
    );
}
