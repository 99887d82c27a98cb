//! The primary of another cluster, which a standby cluster follows: one address, whatever happens behind it. And what
//! must hold of the cluster that does.

use std::time::Duration;

use pgherd::cluster::Role;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::chance::Chance;
use crate::fleet::Fleet;
use crate::server::{Phase, Server};
use crate::world::{Outcome, Plan, World};

/// The section of the dynamic configuration.
pub(crate) const SECTION: &str = "standby_cluster";

/// What stands in it.
pub(crate) fn section() -> Value {
    json!({"host": "far", "port": 6432})
}

/// What is watched in a world with a remote primary.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// From then on nobody may take writes.
    read_only_from: Option<Instant>,
    /// Since when a member streams from the remote primary that has no business there, and whose agent could know.
    strays: Vec<Option<Instant>>,
}

impl Fleet {
    /// This world has a remote primary.
    pub(crate) fn has_remote(&self) -> bool {
        self.moving().servers.len() > self.remote()
    }

    fn add_remote(&self) {
        let mut moving = self.moving();
        let number = moving.number();
        moving.servers.push(Server::default());
        moving.servers.push(Server {
            has_data: true,
            history: vec![(1, 0)],
            wal: vec![number],
            phase: Phase::Up,
            checkpointed: true,
            led: Some(1),
            ..Server::default()
        });
    }

    /// Its clients go on writing.
    fn tick_remote(&self) {
        let mut moving = self.moving();
        if moving.servers[self.remote()].is_writable() {
            let number = moving.number();
            moving.servers[self.remote()].wal.push(number);
        }
    }

    /// A standby over there is promoted, and has not received the last rows.
    pub(crate) fn fail_over_remote(&self, lost: u64) {
        let mut moving = self.moving();
        let (next, number) = (moving.servers.iter().map(Server::timeline).max().unwrap_or(0) + 1, moving.number());
        let remote = &mut moving.servers[self.remote()];
        let began = remote.history.last().map_or(0, |(_, lsn)| *lsn);
        for _ in 0..lost {
            if remote.wal.len() > 1 && remote.last_record() > began {
                remote.wal.pop();
            }
        }
        let lsn = remote.lsn();
        remote.history.push((next, lsn));
        remote.wal.push(number);
        (remote.phase, remote.led) = (Phase::Up, Some(next));
        moving.say(self.began, &format!("the remote primary is another one, on timeline {next} from {lsn} on"));
    }

    /// It is made anew of a member's data, and leads on a timeline of its own.
    pub(crate) fn rebuild_remote(&self, from: usize) {
        {
            let mut moving = self.moving();
            let source = moving.servers[from].clone();
            let remote = &mut moving.servers[self.remote()];
            remote.copy(&source);
            (remote.in_recovery, remote.has_standby_signal) = (false, false);
        }
        self.fail_over_remote(0);
    }
}

impl World {
    /// A standby cluster, and the primary that it follows.
    pub(crate) fn beside_remote(plan: Plan, chance: &mut Chance) -> Self {
        let mut world = Self::new(plan, chance);
        world.fleet.add_remote();
        world.watch = Watch { read_only_from: Some(Instant::now()), strays: vec![None; world.len()] };
        world
    }

    /// It is configured to be one.
    pub(crate) fn is_standby_cluster(&self) -> bool {
        self.config.contains_key(SECTION)
    }

    /// Until when whoever leads must have heard of a changed configuration, or has lost the key.
    fn heard_by(&self) -> Instant {
        let seconds = |name: &str| self.config[name].as_u64().unwrap_or(10);
        let most = seconds("ttl") * 6 / 5 + seconds("loop_wait") + 4 * seconds("retry_timeout") + 10;
        Instant::now() + Duration::from_secs(most)
    }

    /// The dynamic configuration has just changed from this one.
    pub(crate) fn configured(&mut self, before: &Map<String, Value>) {
        match (before.contains_key(SECTION), self.is_standby_cluster()) {
            (false, true) => self.watch.read_only_from = Some(self.heard_by()),
            (true, false) => self.watch.read_only_from = None,
            _ => {}
        }
    }

    pub(crate) fn tick_remote(&mut self) {
        if self.watch.strays.is_empty() {
            return;
        }
        self.fleet.tick_remote();
        if self.watch.read_only_from.is_some_and(|from| Instant::now() >= from)
            && let Some(who) = self.writable().filter(|who| !self.fleet.moving().is_just_thawed(*who))
        {
            let text = format!("{} takes writes in a standby cluster", self.name(who));
            self.fleet.moving().violate(text);
        }
        for who in 0..self.len() {
            let since = self.watch.strays[who];
            self.watch.strays[who] = self.is_stray(who).then(|| since.unwrap_or_else(Instant::now));
            let limit = self.heard_by() - Instant::now();
            if since.is_some_and(|since| since.elapsed() > limit) {
                let text = format!("{} goes on streaming from the remote primary", self.name(who));
                self.fleet.moving().violate(text);
            }
        }
    }

    /// It streams from the remote primary although another member leads or the cluster is none of standbys any more, and
    /// its agent can know.
    fn is_stray(&self, who: usize) -> bool {
        let leads = self.leader().is_none_or(|leader| leader == who);
        let moving = self.fleet.moving();
        let server = &moving.servers[who];
        // Nobody can tell anything to a server that is suspended.
        let streams = !server.is_frozen && server.receiver.is_some_and(|receiver| receiver.from == self.fleet.remote());
        let hears = moving.can_connect(who, self.len()) && !moving.is_dcs_stopped && moving.loss_percent == 0;
        let is_paused = moving.paused_since.is_some();
        drop(moving);
        streams && !(leads && self.is_standby_cluster()) && hears && !is_paused && self.members[who].is_awake()
    }

    /// The leader streams from the remote primary, everybody else from members, and nobody takes writes.
    pub(crate) fn follows_remote(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let moving = self.fleet.moving();
        let remote = self.fleet.remote();
        let follows = |who: usize| {
            let server = &moving.servers[who];
            let from = server.receiver.filter(|_| server.is_streaming()).map(|receiver| receiver.from);
            from.is_some_and(|from| if who == leader { from == remote } else { from < self.len() })
        };
        let everybody = (0..self.len()).all(follows);
        drop(moving);
        let has_role = |who: usize| {
            let wanted = if who == leader { Role::StandbyLeader } else { Role::Replica };
            self.board(who).is_some_and(|board| board.state().role == wanted)
        };
        everybody && (0..self.len()).all(has_role)
    }

    /// What is written over there comes to everybody.
    pub(crate) async fn receives(&mut self) -> Outcome {
        let last = self.fleet.moving().servers[self.fleet.remote()].wal.last().copied();
        let has = move |world: &Self| {
            let moving = world.fleet.moving();
            let row = last.unwrap_or_default();
            (0..world.len()).all(|who| moving.servers[who].wal.binary_search(&row).is_ok())
        };
        self.until("a row of the remote primary", Duration::from_secs(30), has).await?;
        Ok(())
    }
}
