//! Worlds whose cluster is a standby of another one: the remote primary goes on writing, fails over, dies and comes
//! back; an operator promotes the cluster and makes it a standby again; faults as everywhere.

use std::time::Duration;

use pgherd::cluster::Tags;

use super::{Lot, drift};
use crate::chance::Chance;
use crate::fleet::Local;
use crate::remote::{SECTION, section};
use crate::sabotage::Sabotage;
use crate::seeds::in_paused_time;
use crate::world::{Failure, Outcome, Plan, World};

/// How many such worlds are played.
const WORLDS: u64 = 150;

/// Which of them have found something.
const KNOWN: &[u64] = &[
    203, 620,
    940, // a leader that goes back to the timeline of the remote primary, and replicas that do not hear of it
    1_692, 1_734, // an agent that is started on a standby leader with WAL that the remote primary never had
];

async fn play(seed: u64, sabotage: Option<Sabotage>) -> Outcome<String> {
    let mut chance = Chance::new(seed ^ (u64::MAX / 11));
    let count = 3 + chance.index(2);
    let mut config = super::config(&mut chance);
    config[SECTION] = section();
    let plan = Plan {
        locals: locals(&mut chance, count),
        drift: (0..count).map(|_| drift(&mut chance, sabotage)).collect(),
        config: config.clone(),
        sabotage,
    };
    let mut world = World::beside_remote(plan, &mut chance);
    world.say(format!("world {seed}: {count} members, {config}"));
    world.until("birth", Duration::from_secs(120), World::is_healthy).await?;
    world.pass(Duration::from_secs(5)).await?;
    let (outages, votes, whims) = (chance.fork(), chance.fork(), chance.fork());
    let mut lot = Lot { chance, config, is_paused: false, outages, votes, whims, is_disk_lost: false };
    for _ in 0..4 + lot.chance.below(8) {
        if lot.chance.percent(45) {
            lot.site(&mut world);
        } else {
            lot.event(&mut world).await?;
        }
        let most = if lot.chance.percent(50) { 2_000 } else { 25_000 };
        world.pass(Duration::from_millis(20 + lot.chance.below(most))).await?;
    }
    lot.calm(&mut world).await?;
    // In good order, once each way.
    for _ in 0..2 {
        lot.turn(&mut world);
        lot.calm(&mut world).await?;
    }
    Ok(world.fleet.moving().log.join("\n"))
}

/// Everybody can be rewound: a standby cluster never throws diverged data away by itself.
fn locals(chance: &mut Chance, count: usize) -> Vec<Local> {
    let mut locals = super::locals(chance, count);
    for local in &mut locals {
        (local.can_rewind, local.rewind_fails) = (true, false);
        (local.remove_on_divergence, local.remove_on_rewind_failure) = (false, false);
    }
    if chance.percent(70) {
        locals.iter_mut().for_each(|local| local.tags = Tags::new());
    }
    locals
}

impl Lot {
    /// Something about the remote primary, or about what this cluster is.
    fn site(&mut self, world: &mut World) {
        let remote = world.fleet.remote();
        let who = world.leader().filter(|_| self.chance.percent(60)).unwrap_or_else(|| self.chance.index(world.len()));
        match self.chance.below(12) {
            0 | 1 => {
                world.say("the remote primary dies");
                world.fleet.moving().servers[remote].end(false);
            }
            2 | 3 => bring_back(world),
            4 | 5 => self.fail_over(world),
            6 => {
                world.say(format!("{} and the remote primary are cut off from each other", world.name(who)));
                world.cut(who, remote, true);
                world.cut(remote, who, true);
            }
            7 => {
                world.say(format!("power off {}", world.name(who)));
                world.members[who].power_off();
                self.fail_over(world);
            }
            8 => {
                world.say("the remote primary is suspended");
                world.fleet.moving().servers[remote].is_frozen = true;
            }
            _ if self.is_paused => {}
            _ => self.turn(world),
        }
    }

    fn fail_over(&mut self, world: &World) {
        let lost = if self.chance.percent(50) { 0 } else { self.chance.below(80) };
        world.fleet.fail_over_remote(lost);
    }

    /// The operator promotes the cluster, or makes it a standby again: of the primary as it has gone on meanwhile, or of
    /// one that was made anew of this cluster's.
    fn turn(&mut self, world: &mut World) {
        if world.is_standby_cluster() {
            if self.chance.percent(50) {
                world.say("the remote primary is stopped for good");
                world.fleet.moving().servers[world.fleet.remote()].end(true);
            }
            self.config.as_object_mut().expect("a document").shift_remove(SECTION);
        } else {
            if let Some(who) = world.writable().filter(|_| self.chance.percent(50)) {
                world.fleet.rebuild_remote(who);
            }
            self.config[SECTION] = section();
        }
        self.write_config(world);
    }

    async fn calm(&mut self, world: &mut World) -> Outcome {
        bring_back(world);
        self.peace(world).await
    }
}

fn bring_back(world: &World) {
    world.say("the remote primary is there");
    let remote = world.fleet.remote();
    for who in 0..world.len() {
        world.cut(who, remote, false);
        world.cut(remote, who, false);
    }
    let mut moving = world.fleet.moving();
    let server = &mut moving.servers[remote];
    server.is_frozen = false;
    if !server.is_alive() {
        server.phase = crate::server::Phase::Up;
    }
}

/// `STANDBYS=0..1000` plays other ones, and `STANDBY=7` one, with its log.
fn worlds() -> Vec<u64> {
    let number = |text: &str| text.trim().parse::<u64>().expect("a world is a number");
    if let Ok(one) = std::env::var("STANDBY") {
        return vec![number(&one)];
    }
    match std::env::var("STANDBYS") {
        Ok(range) => {
            let (from, to) = range.split_once("..").expect("STANDBYS is FROM..TO");
            (number(from)..number(to)).collect()
        }
        Err(_) => (0..WORLDS).chain(KNOWN.iter().copied()).collect(),
    }
}

#[allow(clippy::print_stderr, reason = "who replays a world wants to see what happens")]
fn play_part(part: u64, of: u64) {
    let mut failed: Vec<(u64, Failure)> = Vec::new();
    for seed in worlds().into_iter().filter(|seed| seed % of == part) {
        match in_paused_time(play(seed, None)) {
            Ok(log) if std::env::var("STANDBY").is_ok() => eprintln!("{log}"),
            Ok(_) => {}
            Err(failure) => {
                eprintln!("STANDBY={seed}: {}", failure.what);
                failed.push((seed, failure));
            }
        }
    }
    let all: Vec<String> = failed.iter().map(|(seed, failure)| format!("STANDBY={seed}: {}", failure.what)).collect();
    assert!(failed.is_empty(), "replay it with STANDBY={}\n{:?}\n{}", failed[0].0, failed[0].1, all.join("\n"));
}

#[test]
fn a_standby_cluster_follows_and_turns_0() {
    play_part(0, 2);
}

#[test]
fn a_standby_cluster_follows_and_turns_1() {
    play_part(1, 2);
}

/// Every deliberate fault is found.
#[allow(clippy::print_stderr, reason = "who looks closer wants to see what was found")]
fn find(sabotage: Sabotage, what: &str) {
    let found = (0..WORLDS).find_map(|seed| Some((seed, in_paused_time(play(seed, Some(sabotage))).err()?)));
    let Some((seed, failure)) = found else { panic!("no world finds out {sabotage:?}") };
    eprintln!("{sabotage:?}: world {seed}: {}", failure.what);
    assert!(failure.what.contains(what), "{failure:?}");
}

#[test]
fn a_standby_leader_that_promotes_itself_is_found_out() {
    find(Sabotage::PromoteStandby, "takes writes in a standby cluster");
}

#[test]
fn a_primary_that_will_not_be_a_standby_is_found_out() {
    find(Sabotage::IgnoreStandby, "takes writes in a standby cluster");
}

#[test]
fn a_replica_that_follows_the_remote_primary_is_found_out() {
    find(Sabotage::FollowRemote, "");
}

#[test]
fn a_diverged_standby_leader_is_found_out() {
    find(Sabotage::SkipRewind, "");
}
