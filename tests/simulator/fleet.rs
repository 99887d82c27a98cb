//! All servers of a world, the network between them, and what must hold of them at every moment.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use pgherd::cluster::{MemberName, Tags};
use pgherd::dcs::memory::MemoryStore;
use pgherd::ha::sync::StandbyNames;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::chance::Chance;
use crate::server::{Phase, Receiver, Server};

pub(crate) const LEADER: &str = "/service/sim/leader";

/// A walsender and a walreceiver that hear nothing of each other give up.
const STREAM_TIMEOUT: Duration = Duration::from_secs(10);

/// The guard of a machine that was suspended acts within this time after it goes on.
const THAW: Duration = Duration::from_millis(200);

/// What an operator has allowed of a member's own configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct Local {
    pub(crate) tags: Tags,
    pub(crate) can_rewind: bool,
    pub(crate) remove_on_divergence: bool,
    pub(crate) remove_on_rewind_failure: bool,
    /// `pg_rewind` fails here, for instance because WAL is missing.
    pub(crate) rewind_fails: bool,
}

/// An agent, or its whole machine, dies between two steps of a decision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interrupt {
    /// So many deeds are done before.
    pub(crate) deeds: usize,
    /// The server dies with the agent.
    pub(crate) takes_server: bool,
    /// The agent is started again after this time; never by itself if the machine is gone.
    pub(crate) back_after: Duration,
}

/// The part that moves.
#[derive(Debug)]
pub(crate) struct Moving {
    /// Behind the members', where there is one: nothing in the place of the DCS, then the remote primary.
    pub(crate) servers: Vec<Server>,
    /// `cut[a][b]`: nothing gets from a to b. The last index but one is the DCS, the last a remote primary.
    pub(crate) cut: Vec<Vec<bool>>,
    pub(crate) chance: Chance,
    pub(crate) log: Vec<String>,
    pub(crate) violation: Option<String>,
    /// Standbys receive nothing in this share of the moments, in percent.
    pub(crate) lag_percent: u64,
    /// Upper limit of a message's way through the network, in milliseconds.
    pub(crate) delay_ms: u64,
    /// Share of the messages to and from the DCS that get lost, in percent.
    pub(crate) loss_percent: u64,
    /// The DCS is stopped: connections to it are refused.
    pub(crate) is_dcs_stopped: bool,
    /// The DCS hangs for a member as soon as it has renewed its lease.
    pub(crate) hangs_when_renewed: Vec<bool>,
    /// The next starts of a member fail, or take this long.
    pub(crate) failing_starts: Vec<u32>,
    pub(crate) slow_start: Vec<Duration>,
    /// Stops of a member take so much longer.
    pub(crate) slow_stop: Vec<Duration>,
    /// The next `pre_promote` scripts of a member say no.
    pub(crate) failing_pre_promotes: Vec<u32>,
    /// What members are tagged with at present, and since when they have been barred from being elected.
    pub(crate) tags: Vec<Tags>,
    pub(crate) barred_since: Vec<Option<Instant>>,
    /// Members whose agent is killed between two steps of a decision.
    pub(crate) interrupts: Vec<Option<Interrupt>>,
    /// The disk of a member does not answer: what needs it waits, a start before it has made a process.
    pub(crate) hanging: Vec<bool>,
    /// When a suspended machine went on.
    pub(crate) thawed: Vec<Option<Instant>>,
    /// Members an operator has asked to throw their data away, and members that are allowed to promote by hand.
    pub(crate) reinit_asked: Vec<bool>,
    pub(crate) by_hand: Vec<Option<Instant>>,
    /// Maintenance mode is known to every agent since then.
    pub(crate) paused_since: Option<Instant>,
    /// Something may be done about servers in maintenance mode until then.
    pub(crate) touched_until: Option<Instant>,
    /// Acknowledged rows that must never be lost.
    pub(crate) acknowledged: Vec<u64>,
    /// Rows written, with server, its life, place in the WAL and number.
    pub(crate) open: Vec<(usize, u64, usize, u64)>,
    pub(crate) acknowledged_ever: u64,
    /// Servers share a WAL archive: a promotion takes a number that no timeline has. Without one two members that are
    /// cut off from each other may take the same.
    pub(crate) has_archive: bool,
    next: u64,
}

/// See the module.
pub(crate) struct Fleet {
    pub(crate) names: Vec<MemberName>,
    pub(crate) locals: Vec<Local>,
    pub(crate) store: MemoryStore,
    pub(crate) notify: Vec<Arc<Notify>>,
    pub(crate) began: Instant,
    moving: Mutex<Moving>,
}

impl Fleet {
    pub(crate) fn new(names: &[&str], locals: Vec<Local>, store: MemoryStore, chance: Chance) -> Arc<Self> {
        let n = names.len();
        let tags: Vec<Tags> = locals.iter().map(|local| local.tags.clone()).collect();
        let barred_since = tags.iter().map(|tags| tags.nofailover().then(Instant::now)).collect();
        Arc::new(Self {
            names: names.iter().map(|name| MemberName::from(*name)).collect(),
            locals,
            store,
            notify: (0..n).map(|_| Arc::new(Notify::new())).collect(),
            began: Instant::now(),
            moving: Mutex::new(Moving {
                servers: vec![Server::default(); n],
                cut: vec![vec![false; n + 2]; n + 2],
                chance,
                log: Vec::new(),
                violation: None,
                lag_percent: 0,
                delay_ms: 2,
                loss_percent: 0,
                is_dcs_stopped: false,
                hangs_when_renewed: vec![false; n],
                failing_starts: vec![0; n],
                slow_start: vec![Duration::ZERO; n],
                slow_stop: vec![Duration::ZERO; n],
                failing_pre_promotes: vec![0; n],
                tags,
                barred_since,
                interrupts: vec![None; n],
                hanging: vec![false; n],
                thawed: vec![None; n],
                reinit_asked: vec![false; n],
                by_hand: vec![None; n],
                paused_since: None,
                touched_until: None,
                acknowledged: Vec::new(),
                open: Vec::new(),
                acknowledged_ever: 0,
                has_archive: true,
                next: 0,
            }),
        })
    }

    pub(crate) fn moving(&self) -> MutexGuard<'_, Moving> {
        self.moving.lock().unwrap()
    }

    pub(crate) fn index(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| *known == *name)
    }

    /// The place of the remote primary that a standby cluster follows, if there is one.
    pub(crate) fn remote(&self) -> usize {
        self.names.len() + 1
    }

    pub(crate) fn leader(&self) -> Option<usize> {
        self.index(&self.store.get(LEADER)?)
    }

    pub(crate) fn say(&self, text: impl AsRef<str>) {
        self.moving().say(self.began, text.as_ref());
    }

    /// Kills a server the hard way, suspended or not.
    pub(crate) fn kill(&self, who: usize) {
        {
            let server = &mut self.moving().servers[who];
            if !server.is_alive() {
                return;
            }
            server.crashed = server.is_up();
            server.end(false);
        }
        self.notify[who].notify_one();
    }

    /// A disk is lost, and with it what was written nowhere else.
    pub(crate) fn lose_disk(&self, who: usize) {
        self.kill(who);
        let mut moving = self.moving();
        let life = moving.servers[who].life + 1;
        moving.servers[who] = Server { life, ..Server::default() };
        let Moving { servers, acknowledged, .. } = &mut *moving;
        acknowledged.retain(|row| servers.iter().any(|server| server.wal.binary_search(row).is_ok()));
        drop(moving);
        self.notify[who].notify_one();
    }

    /// Other tags in a member's own configuration.
    pub(crate) fn tag(&self, who: usize, tags: Tags) {
        let mut moving = self.moving();
        let before = moving.barred_since[who];
        moving.barred_since[who] = tags.nofailover().then(|| before.unwrap_or_else(Instant::now));
        moving.tags[who] = tags;
    }

    /// One moment of everything that servers do by themselves.
    pub(crate) fn tick(&self) {
        let leader = self.leader();
        let mut moving = self.moving();
        for who in 0..self.names.len() {
            if !moving.servers[who].is_frozen && moving.step(who, self.began, &self.names[who], leader) {
                self.notify[who].notify_one();
            }
        }
        for who in 0..self.names.len() {
            moving.replicate(who, self);
        }
        moving.check(self.began, &self.names);
    }

    /// Clients write one row to every server that takes it, and hear of earlier ones.
    pub(crate) fn clients(&self, is_protected: bool) {
        let mut moving = self.moving();
        for who in 0..self.names.len() {
            if moving.servers[who].is_writable() {
                let row = moving.number();
                let server = &mut moving.servers[who];
                server.wal.push(row);
                let entry = (who, server.life, server.wal.len(), row);
                moving.open.push(entry);
            }
        }
        if !is_protected {
            moving.acknowledged.clear();
        }
        moving.acknowledge(&self.names, is_protected);
    }
}

impl Moving {
    pub(crate) fn say(&mut self, began: Instant, text: &str) {
        self.log.push(format!("{:>8.2}s {text}", began.elapsed().as_secs_f64()));
    }

    /// The first violation is the one that counts.
    pub(crate) fn violate(&mut self, text: impl Into<String>) {
        self.violation.get_or_insert(text.into());
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A connection can be made between two of the world.
    pub(crate) fn can_connect(&self, a: usize, b: usize) -> bool {
        !self.cut[a][b] && !self.cut[b][a]
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused_since.is_some() && self.touched_until.is_none_or(|until| Instant::now() > until)
    }

    /// What it does in this moment is stopped by the guard.
    pub(crate) fn is_just_thawed(&self, who: usize) -> bool {
        self.thawed[who].is_some_and(|at| at.elapsed() < THAW)
    }

    /// A server's own progress. `true`: its agent is told.
    fn step(&mut self, who: usize, began: Instant, name: &MemberName, leader: Option<usize>) -> bool {
        let now = Instant::now();
        match self.servers[who].phase {
            Phase::Starting { ready, fails } if now >= ready => {
                let number = self.number();
                let server = &mut self.servers[who];
                if fails {
                    server.end(false);
                    server.start_failed = true;
                    self.say(began, &format!("{name}: the server does not start"));
                    return true;
                }
                server.phase = Phase::Up;
                if !server.in_recovery {
                    // Recovery ends with a checkpoint.
                    server.wal.push(number);
                    server.checkpointed = true;
                    self.say(began, &format!("{name}: the server takes writes again"));
                }
                return true;
            }
            Phase::Stopping { shut, exit, is_shut } => {
                if !is_shut && now >= shut {
                    let number = self.number();
                    let server = &mut self.servers[who];
                    if !server.in_recovery {
                        server.wal.push(number);
                    }
                    server.phase = Phase::Stopping { shut, exit, is_shut: true };
                }
                let len = self.servers[who].wal.len();
                let waits = |other: &Server| other.receiver.is_some_and(|r| r.from == who && r.told < len);
                let is_sent = now >= exit + Duration::from_secs(10) || !self.servers.iter().any(waits);
                if now >= exit && is_sent {
                    self.servers[who].end(true);
                    return true;
                }
            }
            Phase::Up if self.servers[who].promotes_at.is_some_and(|at| now >= at) => {
                self.promoted(who, began, name, leader);
                return true;
            }
            _ => {}
        }
        false
    }

    fn promoted(&mut self, who: usize, began: Instant, name: &MemberName, leader: Option<usize>) {
        let number = self.number();
        let archived = self.servers.iter().map(Server::timeline).max().filter(|_| self.has_archive);
        let server = &mut self.servers[who];
        server.promotes_at = None;
        let (next, lsn) = (archived.unwrap_or(server.timeline()).max(server.left_out) + 1, server.lsn());
        server.led = Some(next);
        server.history.push((next, lsn));
        server.wal.push(number);
        server.in_recovery = false;
        server.has_standby_signal = false;
        server.receiver = None;
        (server.upstream, server.follows_remote) = (None, false);
        server.checkpointed = false;
        self.say(began, &format!("{name}: the server is a primary on timeline {next}"));
        if self.is_just_thawed(who) {
            // The guard sees to it in a moment.
            return;
        }
        if leader != Some(who) {
            self.violate(format!("{name} became a primary without the lock"));
        }
        if let Some(lost) = self.missing(who) {
            self.violate(format!("acknowledged rows are lost: {name} leads without {lost}"));
        }
    }

    /// Acknowledged rows that this server does not have.
    pub(crate) fn missing(&self, who: usize) -> Option<String> {
        let mut here = self.servers[who].wal.iter().peekable();
        let mut lost = Vec::new();
        for row in &self.acknowledged {
            while here.next_if(|number| *number < row).is_some() {}
            if here.peek() != Some(&row) {
                lost.push(*row);
            }
        }
        (!lost.is_empty()).then(|| format!("{} rows from {} on", lost.len(), lost[0]))
    }

    /// One moment of a standby: its connection, what comes and what goes back.
    fn replicate(&mut self, who: usize, fleet: &Fleet) {
        let me = &self.servers[who];
        let follows = me.is_up() && me.in_recovery && !me.is_frozen;
        if !follows {
            return;
        }
        let member = me.upstream.as_ref().and_then(|name| fleet.index(name)).filter(|up| *up != who);
        let upstream = if me.follows_remote { Some(fleet.remote()) } else { member };
        let now = Instant::now();
        let Some(up) = upstream else {
            self.servers[who].receiver = None;
            return;
        };
        let is_connected = me.receiver.is_some_and(|receiver| receiver.from == up);
        if !is_connected {
            self.servers[who].receiver = None;
            let source = &self.servers[up];
            // It tries again every now and then.
            let connects = source.is_up() && !source.is_frozen && self.can_connect(who, up) && self.chance.percent(8);
            if connects && self.servers[who].may_stream_from(&self.servers[up]) {
                self.servers[who].receiver = Some(Receiver { from: up, told: 0, heard: now });
            } else if connects {
                // Histories come first, whatever becomes of the stream.
                self.servers[who].next_history = self.servers[up].timeline() > self.servers[who].timeline();
            }
        }
        let Some(mut receiver) = self.servers[who].receiver else { return };
        let (down, back) = (!self.cut[up][who], !self.cut[who][up]);
        let is_dead = !self.servers[up].is_alive() && down;
        if is_dead || now > receiver.heard + STREAM_TIMEOUT {
            self.servers[who].receiver = None;
            return;
        }
        let lags = self.lag_percent > 0 && self.chance.below(100) < self.lag_percent;
        if down && self.servers[up].sends() && !lags {
            let Ok([me, source]) = self.servers.get_disjoint_mut([who, up]) else { return };
            if !me.may_stream_from(source) {
                me.receiver = None;
                return;
            }
            if !me.is_part_of(source) {
                if me.is_lost_twin_of(source) {
                    me.receiver = None;
                    return;
                }
                let from = fleet.names.get(up).map_or("the remote primary", |name| name.as_str());
                let text = format!("{} streams from {from} although it has diverged", fleet.names[who]);
                return self.violate(text);
            }
            me.wal.extend_from_slice(&source.wal[me.wal.len()..]);
            me.history.clone_from(&source.history);
            me.next_history = false;
            if back {
                receiver.heard = now;
            }
        }
        if back && !lags {
            receiver.told = self.servers[who].wal.len();
        }
        self.servers[who].receiver = Some(receiver);
    }

    /// Up to which place in its WAL the commits of this server need not wait any longer.
    fn confirmed(&self, who: usize, names: &[MemberName]) -> usize {
        let reached = |wanted: &StandbyNames| {
            if wanted.number == 0 {
                return usize::MAX;
            }
            let told = |(name, server): (&MemberName, &Server)| {
                let receiver = server.receiver.filter(|receiver| receiver.from == who)?;
                wanted.names.contains(&name.to_lowercase()).then_some(receiver.told)
            };
            let mut told: Vec<usize> = names.iter().zip(&self.servers).filter_map(told).collect();
            told.sort_unstable();
            told.len().checked_sub(wanted.number).map_or(0, |at| told[at])
        };
        let waiting = &self.servers[who].waiting;
        let before = waiting.before.as_ref().filter(|(_, until)| Instant::now() < *until);
        reached(&waiting.now).max(before.map_or(0, |(old, _)| reached(old)))
    }

    /// Clients hear of what is committed.
    fn acknowledge(&mut self, names: &[MemberName], is_protected: bool) {
        let confirmed: Vec<usize> = (0..names.len()).map(|who| self.confirmed(who, names)).collect();
        let Self { open, servers, acknowledged, acknowledged_ever, .. } = self;
        let sorted = acknowledged.len().saturating_sub(1);
        open.retain(|(who, life, place, row)| {
            let server = &servers[*who];
            if server.life != *life || !server.is_up() {
                return false;
            }
            if server.is_frozen || *place > confirmed[*who] {
                return true;
            }
            *acknowledged_ever += 1;
            // What a machine acknowledges in the moment between its resuming and the guard is lost in asynchronous
            // mode; in the others it waits for standbys that are no longer there.
            if is_protected {
                acknowledged.push(*row);
            }
            false
        });
        if !acknowledged[sorted..].is_sorted() {
            acknowledged.sort_unstable();
        }
    }

    /// What must hold at every moment.
    fn check(&mut self, began: Instant, names: &[MemberName]) {
        let writable: Vec<usize> = (0..names.len()).filter(|i| self.servers[*i].is_writable()).collect();
        let settled = writable.iter().filter(|who| !self.is_just_thawed(**who)).count();
        if settled > 1 {
            let who: Vec<&str> = writable.iter().map(|who| names[*who].as_str()).collect();
            let text = format!("two primaries take writes: {}", who.join(", "));
            self.say(began, &text);
            self.violate(text);
        }
    }
}

/// Whether `/sync` says that somebody may be elected: from then on no acknowledged row may be lost. Asked every moment,
/// so what the last text means is remembered.
#[derive(Debug, Default)]
pub(crate) struct SyncNote(String, bool);

impl SyncNote {
    pub(crate) fn is_there(&mut self, store: &MemoryStore) -> bool {
        let text = store.get("/service/sim/sync").unwrap_or_default();
        if self.0 != text {
            self.1 = serde_json::from_str::<Value>(&text).is_ok_and(|value| value["leader"].is_string());
            self.0 = text;
        }
        self.1
    }
}
