//! The whole world: members, one DCS, a network, clients; on tokio's paused clock.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pgherd::agent::Board;
use pgherd::dcs::memory::MemoryStore;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use crate::chance::Chance;
use crate::fleet::{Fleet, Local, SyncNote};
use crate::member::Member;
use crate::port::Life;
use crate::remote::Watch;
use crate::sabotage::Sabotage;
use crate::server::Server;

pub(crate) const CONFIG: &str = "/service/sim/config";
pub(crate) const FAILOVER: &str = "/service/sim/failover";
pub(crate) const SYNC: &str = "/service/sim/sync";

/// The world moves in steps of this length.
const MOMENT: Duration = Duration::from_millis(20);

/// How a world is made.
pub(crate) struct Plan {
    pub(crate) locals: Vec<Local>,
    /// Per member, in thousandths: how much faster the DCS's clock runs than the member's.
    pub(crate) drift: Vec<i64>,
    pub(crate) config: Value,
    pub(crate) sabotage: Option<Sabotage>,
}

/// What went wrong, with everything that happened before.
pub(crate) struct Failure {
    pub(crate) what: String,
    log: String,
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}\n{}", self.what, self.log, self.what)
    }
}

pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// See the module.
pub(crate) struct World {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) store: MemoryStore,
    pub(crate) members: Vec<Member>,
    pub(crate) config: Map<String, Value>,
    /// A manual failover to anybody may lose rows; until it is settled no row is held to be safe.
    loses_by_hand: bool,
    /// When every agent must have heard of the end or beginning of maintenance mode.
    pause_known_at: Option<Instant>,
    sync_note: SyncNote,
    /// Members that have not come yet.
    is_awaited: Vec<bool>,
    /// Where the cluster is a standby of another one, or was.
    pub(crate) watch: Watch,
}

impl World {
    /// All members up, in one cluster that is just being created.
    pub(crate) fn new(plan: Plan, chance: &mut Chance) -> Self {
        Self::without(plan, chance, None)
    }

    /// The same, but one of them comes later, with an empty data directory.
    pub(crate) fn without(plan: Plan, chance: &mut Chance, late: Option<usize>) -> Self {
        let names = &["a", "b", "c", "d", "e"][..plan.locals.len()];
        let store = MemoryStore::new();
        let fleet = Fleet::new(names, plan.locals, store.clone(), chance.fork());
        let lives: Vec<Arc<Life>> = names.iter().map(|_| Arc::default()).collect();
        let lives = Arc::new(Mutex::new(lives));
        let member = |me: usize| Member::new(&fleet, me, &lives, plan.drift[me], plan.sabotage);
        let mut world = Self {
            members: (0..names.len()).map(member).collect(),
            fleet,
            store,
            config: plan.config.as_object().cloned().unwrap_or_default(),
            loses_by_hand: false,
            pause_known_at: None,
            sync_note: SyncNote::default(),
            is_awaited: vec![false; names.len()],
            watch: Watch::default(),
        };
        for who in 0..names.len() {
            if late == Some(who) {
                world.is_awaited[who] = true;
            } else {
                world.start_agent(who);
            }
        }
        world
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn name(&self, who: usize) -> String {
        self.fleet.names[who].to_string()
    }

    pub(crate) fn say(&self, text: impl AsRef<str>) {
        self.fleet.say(text.as_ref());
    }

    pub(crate) fn start_agent(&mut self, who: usize) {
        if std::mem::take(&mut self.is_awaited[who]) {
            self.say(format!("{} comes, with nothing", self.name(who)));
        }
        self.members[who].start(&self.config);
    }

    pub(crate) fn kill_agent(&mut self, who: usize) {
        self.members[who].kill();
    }

    /// Starts the agent unless it runs.
    pub(crate) fn ensure_agent(&mut self, who: usize) {
        if !self.members[who].runs() {
            self.kill_agent(who);
            self.start_agent(who);
        }
    }

    pub(crate) fn board(&self, who: usize) -> Option<Arc<Board>> {
        self.members[who].board()
    }

    /// Nobody can be reached from here, nor the DCS, or again they can.
    pub(crate) fn isolate(&self, who: usize, cut: bool) {
        for other in 0..=self.fleet.remote() {
            self.cut(who, other, cut);
            self.cut(other, who, cut);
        }
    }

    /// One direction only.
    pub(crate) fn cut(&self, from: usize, to: usize, cut: bool) {
        self.fleet.moving().cut[from][to] = cut && from != to;
    }

    pub(crate) fn dcs_reachable(&self, who: usize, reachable: bool) {
        let dcs = self.len();
        self.cut(who, dcs, !reachable);
        self.cut(dcs, who, !reachable);
    }

    /// Writes the dynamic configuration.
    pub(crate) fn configure(&mut self, config: Value) {
        let paused = |config: &Map<String, Value>| config.get("pause") == Some(&json!(true));
        let before = paused(&self.config);
        let old = std::mem::replace(&mut self.config, config.as_object().cloned().unwrap_or_default());
        self.configured(&old);
        if paused(&self.config) != before {
            self.fleet.moving().paused_since = None;
            self.pause_known_at = None;
        }
        self.store.put(CONFIG, config.to_string());
    }

    /// From now on every agent is held to maintenance mode, when each of them has heard of it.
    pub(crate) fn hold_to_pause(&mut self) {
        self.fleet.moving().paused_since = Some(Instant::now());
    }

    /// An operator asks for something that touches servers also in maintenance mode.
    pub(crate) fn touch(&self) {
        self.fleet.moving().touched_until = Some(Instant::now() + Duration::from_secs(60));
    }

    /// Removes every key.
    pub(crate) fn wipe(&self) {
        for key in self.store.keys() {
            self.store.delete(&key.key);
        }
    }

    /// A switchover (with a leader) or manual failover.
    pub(crate) fn hand_over(&mut self, request: &Value) {
        self.touch();
        if let Some(candidate) = request["member"].as_str().and_then(|name| self.fleet.index(name)) {
            self.fleet.moving().by_hand[candidate] = Some(Instant::now());
        }
        self.loses_by_hand |= request["leader"].is_null();
        self.store.put(FAILOVER, request.to_string());
    }

    pub(crate) fn leader(&self) -> Option<usize> {
        self.fleet.leader()
    }

    /// The member that takes writes.
    pub(crate) fn writable(&self) -> Option<usize> {
        let moving = self.fleet.moving();
        (0..self.len()).find(|i| moving.servers[*i].is_writable())
    }

    /// Lets time pass in small moments: servers, agents, clients, the checks.
    pub(crate) async fn pass(&mut self, time: Duration) -> Outcome {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.moment().await?;
        }
        Ok(())
    }

    async fn moment(&mut self) -> Outcome {
        sleep(MOMENT).await;
        self.fleet.tick();
        for member in &mut self.members {
            member.tick(&self.config);
        }
        if self.loses_by_hand {
            let is_settled = self.store.get(FAILOVER).is_none_or(|text| !text.contains("member"));
            self.loses_by_hand = !is_settled;
        }
        let is_synchronous = self.config.get("synchronous_mode").is_some_and(|mode| *mode != json!(false));
        let is_noted = self.sync_note.is_there(&self.store) && !self.is_standby_cluster();
        self.fleet.clients(is_synchronous && !self.loses_by_hand && is_noted);
        self.tick_remote();
        let violation = self.fleet.moving().violation.clone();
        violation.map_or(Ok(()), |what| Err(self.failure(what)))
    }

    pub(crate) fn failure(&self, what: impl Into<String>) -> Failure {
        let dump = self.dump();
        Failure { what: what.into(), log: format!("{}\n{dump}", self.fleet.moving().log.join("\n")) }
    }

    /// No row that a client was told is committed is missing on the leader.
    pub(crate) fn nothing_lost(&self) -> Outcome {
        let Some(leader) = self.leader() else { return Err(self.failure("nobody leads")) };
        let missing = self.fleet.moving().missing(leader);
        missing.map_or(Ok(()), |lost| Err(self.failure(format!("acknowledged rows are lost: {lost}"))))
    }

    /// Lets time pass until a condition holds.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        limit: Duration,
        condition: impl Fn(&Self) -> bool,
    ) -> Outcome<Duration> {
        let began = Instant::now();
        while !condition(self) {
            if began.elapsed() >= limit {
                return Err(self.failure(format!("{what}: not within {limit:?}")));
            }
            self.moment().await?;
        }
        Ok(began.elapsed())
    }

    /// The member that has not come yet.
    pub(crate) fn awaited(&self) -> Option<usize> {
        self.is_awaited.iter().position(|is_awaited| *is_awaited)
    }

    /// One leader that takes writes, everybody else streaming.
    pub(crate) fn is_healthy(&self) -> bool {
        if self.is_standby_cluster() {
            return self.follows_remote();
        }
        let Some(leader) = self.leader() else { return false };
        let moving = self.fleet.moving();
        let head = &moving.servers[leader];
        head.is_writable()
            && (0..self.len()).filter(|i| *i != leader && !self.is_awaited[*i]).all(|i| {
                let server = &moving.servers[i];
                let is_here = server.receiver.is_some_and(|receiver| receiver.from < self.len());
                (server.is_streaming() && is_here) || self.waits_for_reinit(server, head)
            })
    }

    /// Healthy, everybody counts and answers, and nothing is asked of the leader: it may lead on without the DCS.
    pub(crate) fn is_ready_for_failsafe(&self) -> bool {
        let listed = self.store.get("/service/sim/failsafe").and_then(|text| serde_json::from_str::<Value>(&text).ok());
        let counts = listed.as_ref().and_then(Value::as_object).is_some_and(|listed| listed.len() == self.len());
        let knows = |who: usize| {
            let state = self.board(who).map(|board| board.state());
            state.is_some_and(|state| {
                state.settings.failsafe_mode && state.failsafe.is_some_and(|all| all.len() == self.len())
            })
        };
        let is_asked = self.store.get(FAILOVER).is_some_and(|text| text.len() > 2);
        let everybody = (0..self.len()).all(|who| self.members[who].is_awake() && knows(who));
        counts && everybody && !is_asked && self.is_healthy()
    }

    /// Two leaders have made the same timeline, and this server has WAL of the other one: only an operator can tell it
    /// to throw that away.
    fn waits_for_reinit(&self, server: &Server, leader: &Server) -> bool {
        let is_down = !server.is_alive() && server.timeline() == leader.timeline() && !server.is_part_of(leader);
        is_down || server.is_lost_twin_of(leader)
    }

    /// Healthy, and commits are protected as configured.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_healthy() && (self.is_standby_cluster() || self.protects())
    }

    fn sync(&self) -> Value {
        self.store.get(SYNC).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    /// `/sync` names it as the leader whose commits it is about.
    pub(crate) fn is_sync_leader(&self, who: usize) -> bool {
        self.sync()["leader"].as_str() == Some(self.fleet.names[who].as_str())
    }

    /// The standbys that `/sync` names.
    pub(crate) fn voters(&self) -> Vec<usize> {
        let noted = self.sync();
        let names = noted["sync_standby"].as_str().unwrap_or_default().split(',');
        names.filter_map(|name| self.fleet.index(name)).collect()
    }

    /// `/sync` names the standbys that the configuration asks for.
    fn protects(&self) -> bool {
        let mode = self.config.get("synchronous_mode").cloned().unwrap_or_default();
        let noted = self.sync();
        if mode == json!(false) || mode.is_null() {
            return !noted["leader"].is_string();
        }
        let Some(leader) = self.leader() else { return false };
        let fits = |i: &usize| {
            let moving = self.fleet.moving();
            let tags = &moving.tags[*i];
            let is_there = moving.servers[*i].is_streaming();
            *i != leader && is_there && !tags.nosync() && tags.replicatefrom().is_none()
        };
        let candidates = (0..self.len()).filter(fits).count() as u64;
        let wanted = self.config.get("synchronous_node_count").and_then(Value::as_u64).unwrap_or(1);
        let standbys = noted["sync_standby"].as_str().map_or(0, |list| list.split(',').count() as u64);
        noted["leader"].as_str() == Some(self.fleet.names[leader].as_str()) && standbys >= wanted.min(candidates)
    }

    pub(crate) fn dump(&self) -> String {
        let mut text = String::new();
        for (name, server) in self.fleet.names.iter().zip(self.fleet.moving().servers.iter()) {
            let server = Server { wal: Vec::new(), ..server.clone() };
            text += &format!("{name}: {server:?}\n");
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

/// Members without anything special.
pub(crate) fn plain(count: usize) -> Vec<Local> {
    vec![Local { can_rewind: true, ..Local::default() }; count]
}
