//! Worlds whose DCS loses all its keys, together with something else, at any moment.

use std::time::Duration;

use serde_json::{Value, json};

use crate::chance::Chance;
use crate::seeds::in_paused_time;
use crate::world::{Outcome, Plan, World, plain};

/// How many such worlds are played.
const WORLDS: u64 = 40;

const INITIALIZE: &str = "/service/sim/initialize";

/// What happens at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    Nothing,
    LeaderServer,
    LeaderAgent,
    Leader,
    LeaderPower,
    Everybody,
    ReplicaAgent,
    ReplicaPower,
}

const BLOWS: [Blow; 8] = [
    Blow::Nothing,
    Blow::LeaderServer,
    Blow::LeaderAgent,
    Blow::Leader,
    Blow::LeaderPower,
    Blow::Everybody,
    Blow::ReplicaAgent,
    Blow::ReplicaPower,
];

impl Blow {
    fn strike(self, world: &mut World, leader: usize, replica: usize) {
        match self {
            Self::Nothing => {}
            Self::LeaderServer => world.fleet.kill(leader),
            Self::LeaderAgent => world.kill_agent(leader),
            Self::Leader => {
                world.kill_agent(leader);
                world.fleet.kill(leader);
            }
            Self::LeaderPower => world.members[leader].power_off(),
            Self::Everybody => (0..world.len()).for_each(|who| world.members[who].power_off()),
            Self::ReplicaAgent => world.kill_agent(replica),
            Self::ReplicaPower => world.members[replica].power_off(),
        }
    }
}

async fn play(seed: u64) -> Outcome {
    let mut chance = Chance::new(seed);
    let count = 3 + chance.index(2);
    let mode = [json!(true), json!("quorum"), json!(true), json!(false)][chance.index(4)].clone();
    let config = json!({
        "ttl": 20, "loop_wait": 1 + chance.below(8), "retry_timeout": 5, "synchronous_mode": mode,
        "synchronous_mode_strict": chance.percent(25),
    });
    let drift = vec![0; count];
    let plan = Plan { locals: plain(count), drift, config: config.clone(), sabotage: None };
    let mut world = World::new(plan, &mut chance);
    world.say(format!("{count} members, {config}"));
    world.until("birth", Duration::from_secs(120), World::is_settled).await?;
    for _ in 0..2 {
        world.pass(Duration::from_millis(chance.below(20_000))).await?;
        wiped(&mut world, &mut chance).await?;
        world.until("peace", Duration::from_secs(150), World::is_settled).await?;
        world.nothing_lost()?;
    }
    Ok(())
}

/// One wipe, and what an operator does about it.
async fn wiped(world: &mut World, chance: &mut Chance) -> Outcome {
    let Some(leader) = world.leader() else { return Err(world.failure("nobody leads")) };
    let replica = (leader + 1 + chance.index(world.len() - 1)) % world.len();
    let blow = BLOWS[chance.index(BLOWS.len())];
    let is_before = chance.percent(50);
    world.say(format!("all keys are removed, and {blow:?} is struck, leader {}", world.name(leader)));
    if is_before {
        blow.strike(world, leader, replica);
    }
    world.wipe();
    if chance.percent(50) {
        world.pass(Duration::from_millis(chance.below(400))).await?;
    }
    if !is_before {
        blow.strike(world, leader, replica);
    }
    let is_left = matches!(blow, Blow::Nothing | Blow::ReplicaAgent | Blow::ReplicaPower);
    if is_left {
        let restored = |world: &World| world.store.get(INITIALIZE).is_some() && world.writable() == Some(leader);
        world.until("the primary's restoring", Duration::from_secs(15), restored).await?;
    }
    world.pass(Duration::from_millis(chance.below(40_000))).await?;
    for who in 0..world.len() {
        // Whoever led comes back later, or when all is settled.
        if who != leader || chance.percent(50) {
            world.ensure_agent(who);
        }
    }
    world.pass(Duration::from_secs(45)).await?;
    if world.leader().is_none() && send(world) {
        world.until("a manual failover", Duration::from_secs(60), |world| world.writable().is_some()).await?;
    }
    for who in 0..world.len() {
        world.ensure_agent(who);
    }
    Ok(())
}

/// Nobody leads: an operator names a standby that has everything. If there is none, for the old leader has gone on
/// alone, it is waited for.
fn send(world: &mut World) -> bool {
    let fits = |who: &usize| {
        let moving = world.fleet.moving();
        moving.servers[*who].is_up() && moving.missing(*who).is_none() && world.members[*who].runs()
    };
    let Some(who) = (0..world.len()).filter(fits).max_by_key(|who| world.fleet.moving().servers[*who].wal.len()) else {
        world.say("no standby has everything");
        return false;
    };
    let request: Value = json!({ "member": world.name(who) });
    world.say(format!("hand over {request}"));
    world.hand_over(&request);
    true
}

/// `WORLDS=120` plays more of them.
fn worlds() -> std::ops::Range<u64> {
    0..std::env::var("WORLDS").ok().and_then(|count| count.parse().ok()).unwrap_or(WORLDS)
}

#[test]
fn a_wiped_dcs_costs_no_acknowledged_row() {
    let failed: Vec<_> = worlds().filter_map(|seed| Some((seed, in_paused_time(play(seed)).err()?))).collect();
    let all: Vec<String> = failed.iter().map(|(seed, failure)| format!("{seed}: {}", failure.what)).collect();
    assert!(failed.is_empty(), "{:?}\nworld {}\n{}", failed[0].1, failed[0].0, all.join("\n"));
}
