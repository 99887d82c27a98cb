//! Worlds by lot: random faults from one seed, then peace; a failing seed prints its log and replays exactly.
//!
//! `SEED=123 cargo test --test simulator lot` plays one seed; `SEEDS=0..2000` a range.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{Chance, World};

const PEACE: Duration = Duration::from_secs(180);

fn mode(chance: &mut Chance) -> Value {
    match chance.below(4) {
        0 => json!(true),
        1 => json!("quorum"),
        _ => json!(false),
    }
}

/// Plays one seed from birth to peace.
async fn play(seed: u64) {
    let mut chance = Chance::new(seed + 1);
    let synchronous = mode(&mut chance);
    let config = json!({
        "ttl": 20 + chance.below(3) * 5, "loop_wait": 2 + chance.below(9), "retry_timeout": 3 + chance.below(5),
        "synchronous_mode": synchronous, "primary_start_timeout": if chance.below(4) == 0 { 0 } else { 300 },
    });
    let mut world = World::new(&["a", "b", "c"], config.clone());
    world.say(format!("seed {seed}, {config}"));
    world.lag_percent = chance.below(30);
    world.until("birth", Duration::from_secs(60), World::is_healthy).await;
    world.pass(Duration::from_secs(10)).await;
    for _ in 0..4 + chance.below(6) {
        fault(&mut world, &mut chance, &config).await;
        world.pass(Duration::from_millis(50 + chance.below(25_000))).await;
    }
    resume(&mut world, &config).await;
    world.say("peace");
    world.until("peace", PEACE, World::is_healthy).await;
    if synchronous != json!(false) {
        world.assert_nothing_lost();
    }
}

async fn fault(world: &mut World, chance: &mut Chance, config: &Value) {
    let who = usize::try_from(chance.below(3)).unwrap();
    let name = world.fleet.names[who].clone();
    match chance.below(10) {
        0 => {
            world.say(format!("kill agent {name}, which is started again"));
            world.kill_agent(who);
            world.start_agent(who);
        }
        1 => {
            world.say(format!("kill server {name}"));
            world.fleet.kill(who);
        }
        2 => {
            world.say(format!("kill agent and server {name}"));
            world.kill_agent(who);
            world.fleet.kill(who);
        }
        3 => {
            world.say(format!("isolate {name}"));
            world.isolate(who, true);
        }
        4 => {
            world.say(format!("no DCS for {name}"));
            world.dcs_reachable(who, false);
        }
        5 => {
            world.say("the network heals");
            for who in 0..3 {
                world.isolate(who, false);
            }
        }
        6 => {
            let Some(leader) = world.leader() else { return };
            let request = json!({"leader": world.fleet.names[leader], "member": name});
            world.say(format!("switchover {request}"));
            world.store.put("/service/sim/failover", request.to_string());
        }
        7 => {
            world.say(format!("terminate agent {name}"));
            world.terminate_agent(who);
        }
        8 => {
            if chance.below(2) == 0 {
                let mut document = config.clone();
                document["pause"] = json!(true);
                world.say("pause");
                world.store.put("/service/sim/config", document.to_string());
            } else {
                resume(world, config).await;
            }
        }
        _ => {
            world.say(format!("agent {name} is there again"));
            world.ensure_agent(who);
        }
    }
}

/// Maintenance mode leaves servers to the operator: whoever ends it must have every agent and the DCS in reach first,
/// or a primary that does not hear of the end runs on beside an elected one.
async fn resume(world: &mut World, config: &Value) {
    for who in 0..3 {
        world.isolate(who, false);
        world.ensure_agent(who);
    }
    world.pass(Duration::from_secs(12)).await;
    world.say("resume");
    world.store.put("/service/sim/config", config.to_string());
}

fn seeds() -> std::ops::Range<u64> {
    let number = |text: &str| text.trim().parse::<u64>().unwrap();
    if let Ok(seed) = std::env::var("SEED") {
        return number(&seed)..number(&seed) + 1;
    }
    match std::env::var("SEEDS") {
        Ok(range) => {
            let (from, to) = range.split_once("..").unwrap();
            number(from)..number(to)
        }
        Err(_) => 0..150,
    }
}

fn play_in(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(play(seed))));
        assert!(result.is_ok(), "seed {seed} failed; replay it with SEED={seed}");
    }
}

/// Half of the seeds; the other half is the next test, so that two cores share them.
#[test]
fn first_half() {
    let all = seeds();
    let middle = all.start + (all.end - all.start).div_ceil(2);
    play_in(all.start..middle);
}

#[test]
fn second_half() {
    let all = seeds();
    let middle = all.start + (all.end - all.start).div_ceil(2);
    play_in(middle..all.end);
}
