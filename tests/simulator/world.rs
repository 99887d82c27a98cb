//! Three members, one DCS, a network, clients: the real loop on simulated ports, on tokio's paused clock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use pgherd::agent::{Configure, Configured, Ended, Peers, Ports, Runner};
use pgherd::cluster::{MemberName, PeerAnswer};
use pgherd::config::Dynamic;
use pgherd::dcs::memory::{MemoryHandle, MemoryStore};
use pgherd::ha::Node;
use pgherd::io::clock::Clock;
use serde_json::{Map, Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::postgres::{Fleet, SimPostgres, peer_answer};

/// The simulated time of day.
struct SimClock {
    began: Instant,
}

impl Clock for SimClock {
    fn since_epoch(&self) -> Duration {
        Duration::from_secs(1_800_000_000) + self.began.elapsed()
    }
}

/// Answers for members out of their servers, if the network and their agents let them.
struct SimPeers {
    fleet: Arc<Fleet>,
    me: usize,
    alive: Arc<Mutex<Vec<bool>>>,
}

#[async_trait]
impl Peers for SimPeers {
    async fn ask(&self, members: &BTreeMap<MemberName, String>) -> BTreeMap<MemberName, PeerAnswer> {
        sleep(Duration::from_millis(5)).await;
        let mut answers = BTreeMap::new();
        let mut is_slow = false;
        for name in members.keys() {
            let other = self.fleet.index(name).unwrap();
            let alive = self.alive.lock().unwrap()[other];
            let answer = if !self.fleet.can_reach(self.me, other) {
                is_slow = true;
                PeerAnswer::Unreachable("timed out".into())
            } else if alive {
                peer_answer(&self.fleet.servers()[other])
            } else {
                PeerAnswer::Unreachable("connection refused".into())
            };
            answers.insert(name.clone(), answer);
        }
        if is_slow {
            sleep(Duration::from_secs(2)).await;
        }
        answers
    }
}

struct SimConfigure {
    name: MemberName,
}

impl Configure for SimConfigure {
    fn configure(&self, dynamic: &Map<String, Value>, before: &Dynamic) -> Configured {
        let (settings, _) = before.after(dynamic);
        let name = &self.name;
        let node = Node {
            name: name.clone(),
            conn_url: format!("postgres://{name}:5432/postgres"),
            api_url: format!("http://{name}:8008/patroni"),
            may_bootstrap: true,
            initial_config: dynamic.clone(),
            ..Node::default()
        };
        Configured { settings, postgres: None, node, warnings: Vec::new() }
    }

    fn reload(&self) -> Result<bool, String> {
        Ok(false)
    }

    fn keep(&self, _dynamic: &Map<String, Value>) {}
}

/// A member's agent.
struct Agent {
    task: JoinHandle<Ended>,
    leave: CancellationToken,
    deadline: JoinHandle<()>,
}

/// The world.
pub(crate) struct World {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) store: MemoryStore,
    handles: Vec<Arc<MemoryHandle>>,
    agents: Vec<Option<Agent>>,
    alive: Arc<Mutex<Vec<bool>>>,
    config: Map<String, Value>,
    pub(crate) log: Vec<String>,
    row: u64,
    /// Rows written and not acknowledged yet, with the server that has them.
    waiting: Vec<(usize, u64)>,
    /// Rows a client was told are committed.
    pub(crate) acknowledged: Vec<u64>,
    /// Standbys receive nothing in this share of the moments, in percent.
    pub(crate) lag_percent: u64,
    chance: Chance,
    began: Instant,
}

/// Reproducible chance (xorshift).
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

impl World {
    /// All members up, in one cluster that is just being created.
    pub(crate) fn new(names: &[&str], config: Value) -> Self {
        let fleet = Fleet::new(names);
        let store = MemoryStore::new();
        let handles = names.iter().map(|name| store.handle("sim", Some(name))).collect();
        let mut world = Self {
            alive: Arc::new(Mutex::new(vec![false; names.len()])),
            agents: names.iter().map(|_| None).collect(),
            handles,
            fleet,
            store,
            config: config.as_object().cloned().unwrap_or_default(),
            log: Vec::new(),
            row: 0,
            waiting: Vec::new(),
            acknowledged: Vec::new(),
            lag_percent: 0,
            chance: Chance::new(1),
            began: Instant::now(),
        };
        for who in 0..names.len() {
            world.start_agent(who);
        }
        world
    }

    pub(crate) fn say(&mut self, text: impl Into<String>) {
        let line = format!("{:>8.2}s {}", self.began.elapsed().as_secs_f64(), text.into());
        self.log.push(line);
    }

    pub(crate) fn start_agent(&mut self, who: usize) {
        let name = self.fleet.names[who].clone();
        let ports = Ports {
            dcs: self.handles[who].clone(),
            postgres: Arc::new(SimPostgres { fleet: Arc::clone(&self.fleet), me: who }),
            peers: Arc::new(SimPeers { fleet: Arc::clone(&self.fleet), me: who, alive: Arc::clone(&self.alive) }),
            configure: Arc::new(SimConfigure { name }),
            clock: Arc::new(SimClock { began: Instant::now() }),
        };
        let runner = Runner::new(ports, &self.config);
        let lease = runner.lease();
        let fleet = Arc::clone(&self.fleet);
        // The deadline thread of a real agent, on the simulated clock.
        let deadline = tokio::spawn(async move {
            loop {
                sleep(Duration::from_millis(50)).await;
                if lease.deadline().is_some_and(|at| Instant::now() >= at) {
                    lease.disarm();
                    fleet.kill(who);
                }
            }
        });
        let leave = CancellationToken::new();
        let task = tokio::spawn(runner.run(leave.clone()));
        self.alive.lock().unwrap()[who] = true;
        self.agents[who] = Some(Agent { task, leave, deadline });
    }

    /// The agent's process is killed; its server lives on.
    pub(crate) fn kill_agent(&mut self, who: usize) {
        self.alive.lock().unwrap()[who] = false;
        if let Some(agent) = self.agents[who].take() {
            agent.task.abort();
            agent.deadline.abort();
        }
    }

    /// Starts the agent unless it runs.
    pub(crate) fn ensure_agent(&mut self, who: usize) {
        let stays = |agent: &Agent| !agent.task.is_finished() && !agent.leave.is_cancelled();
        let runs = self.agents[who].as_ref().is_some_and(stays);
        if !runs {
            self.kill_agent(who);
            self.start_agent(who);
        }
    }

    /// The agent is told to end.
    pub(crate) fn terminate_agent(&mut self, who: usize) {
        if let Some(agent) = &self.agents[who] {
            agent.leave.cancel();
        }
    }

    /// Neither members nor DCS can be reached from here, or again they can.
    pub(crate) fn isolate(&mut self, who: usize, cut: bool) {
        self.fleet.isolate(who, cut);
        self.handles[who].set_reachable(!cut);
    }

    pub(crate) fn dcs_reachable(&mut self, who: usize, reachable: bool) {
        self.handles[who].set_reachable(reachable);
    }

    pub(crate) fn leader(&self) -> Option<usize> {
        self.fleet.index(&self.store.get("/service/sim/leader")?)
    }

    /// The member that accepts writes, checking that there is at most one.
    pub(crate) fn writable(&self) -> Option<usize> {
        let servers = self.fleet.servers();
        let writable: Vec<usize> = (0..servers.len()).filter(|i| servers[*i].is_writable()).collect();
        assert!(writable.len() <= 1, "two writable primaries: {writable:?}\n{}", self.log.join("\n"));
        writable.first().copied()
    }

    /// Lets time pass in small moments: streaming, a client's write, the checks.
    pub(crate) async fn pass(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.moment().await;
        }
    }

    async fn moment(&mut self) {
        sleep(Duration::from_millis(10)).await;
        let (chance, percent) = (&mut self.chance, self.lag_percent);
        self.fleet.replicate(|_| percent > 0 && chance.below(100) < percent);
        if let Some(primary) = self.writable() {
            self.row += 1;
            if self.fleet.write(primary, self.row) {
                self.waiting.push((primary, self.row));
            }
        }
        let fleet = Arc::clone(&self.fleet);
        let acknowledged = &mut self.acknowledged;
        self.waiting.retain(|(server, row)| {
            let lives = fleet.servers()[*server].is_running;
            let done = fleet.is_acknowledged(*server, *row);
            if done {
                acknowledged.push(*row);
            }
            lives && !done
        });
    }

    /// No row that a client was told is committed is missing on the leader.
    pub(crate) fn assert_nothing_lost(&self) {
        let leader = self.leader().expect("a healthy cluster has a leader");
        let rows: std::collections::BTreeSet<u64> = self.fleet.servers()[leader].rows.iter().copied().collect();
        let lost: Vec<u64> = self.acknowledged.iter().copied().filter(|row| !rows.contains(row)).collect();
        assert!(lost.is_empty(), "acknowledged rows are lost: {lost:?}\n{}\n{}", self.log.join("\n"), self.dump());
    }

    /// Lets time pass until a condition holds; panics with the log when it does not in time.
    pub(crate) async fn until(&mut self, what: &str, limit: Duration, condition: impl Fn(&Self) -> bool) -> Duration {
        let began = Instant::now();
        while !condition(self) {
            assert!(began.elapsed() < limit, "{what}: not within {limit:?}\n{}\n{}", self.log.join("\n"), self.dump());
            self.moment().await;
        }
        began.elapsed()
    }

    /// One leader that accepts writes, everybody else streaming from it.
    pub(crate) fn is_healthy(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let servers = self.fleet.servers();
        servers[leader].is_writable()
            && (0..servers.len()).filter(|i| *i != leader).all(|i| servers[i].is_streaming && servers[i].in_recovery)
    }

    pub(crate) fn dump(&self) -> String {
        let mut text = String::new();
        for (name, server) in self.fleet.names.iter().zip(self.fleet.servers().iter()) {
            let rows = server.rows.len();
            text +=
                &format!("{name}: {:?} rows={rows}\n", crate::postgres::Server { rows: Vec::new(), ..server.clone() });
        }
        for key in self.store.keys() {
            text += &format!("{} = {}\n", key.key, key.text());
        }
        text
    }
}

/// Settings of most worlds.
pub(crate) fn settings() -> Value {
    json!({"ttl": 30, "loop_wait": 10, "retry_timeout": 10})
}
