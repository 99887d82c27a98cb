//! The real loop for three members in a simulated world: crashes, partitions, switchovers. After every moment the
//! world checks that at most one server accepts writes; after the faults one leader must be back with everybody
//! streaming.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod chance;
mod fleet;
mod lot;
mod member;
mod port;
mod remote;
mod sabotage;
mod seeds;
mod server;
mod store;
mod wiped;
mod world;

use std::time::Duration;

use chance::Chance;
use serde_json::json;
use world::{FAILOVER, Plan, World, plain, settings};

const MINUTE: Duration = Duration::from_secs(60);

async fn healthy_world() -> World {
    let plan = Plan { locals: plain(3), drift: vec![0; 3], config: settings(), sabotage: None };
    let mut world = World::new(plan, &mut Chance::new(1));
    world.until("bootstrap", MINUTE, World::is_healthy).await.unwrap();
    world.pass(Duration::from_secs(5)).await.unwrap();
    world
}

#[tokio::test(start_paused = true)]
async fn a_cluster_comes_up_by_itself() {
    let world = healthy_world().await;
    assert_eq!(world.store.get("/service/sim/initialize").as_deref(), Some(port::SYSTEM_ID));
}

#[tokio::test(start_paused = true)]
async fn a_crashed_postmaster_is_back_within_a_second() {
    let mut world = healthy_world().await;
    let leader = world.leader().unwrap();
    world.fleet.kill(leader);
    let took = world.until("restart", MINUTE, |world| world.writable().is_some()).await.unwrap();
    assert!(took < Duration::from_secs(1), "writable again after {took:?}");
    assert_eq!(world.leader(), Some(leader));
}

#[tokio::test(start_paused = true)]
async fn a_dead_leader_is_replaced_within_the_ttl() {
    let mut world = healthy_world().await;
    let leader = world.leader().unwrap();
    world.kill_agent(leader);
    world.fleet.kill(leader);
    let took = world.until("failover", MINUTE, |world| world.writable().is_some()).await.unwrap();
    assert!(took < Duration::from_secs(32), "writable again after {took:?}");
    assert_ne!(world.leader(), Some(leader));
    world.start_agent(leader);
    world.until("rejoin", MINUTE, World::is_healthy).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_partitioned_leader_stops_before_another_is_elected() {
    let mut world = healthy_world().await;
    let leader = world.leader().unwrap();
    world.isolate(leader, true);
    world.until("failover", MINUTE, |world| world.leader().is_some_and(|new| new != leader)).await.unwrap();
    world.until("writable", MINUTE, |world| world.writable().is_some_and(|now| now != leader)).await.unwrap();
    world.pass(MINUTE).await.unwrap();
    world.isolate(leader, false);
    world.until("heal", MINUTE, World::is_healthy).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_switchover_interrupts_writes_for_less_than_a_second() {
    let mut world = healthy_world().await;
    let leader = world.leader().unwrap();
    let target = (leader + 1) % 3;
    let request = json!({"leader": world.name(leader), "member": world.name(target)});
    world.hand_over(&request);
    world.until("demotion", MINUTE, |world| world.writable().is_none()).await.unwrap();
    let took = world.until("switchover", MINUTE, |world| world.writable().is_some()).await.unwrap();
    assert_eq!(world.leader(), Some(target));
    assert!(took < Duration::from_secs(1), "writes were interrupted for {took:?}");
    world.until("rejoin", Duration::from_secs(10), World::is_healthy).await.unwrap();
    assert_eq!(world.store.get(FAILOVER).as_deref(), Some("{}"));
}

#[tokio::test(start_paused = true)]
async fn a_terminated_agent_hands_over_at_once() {
    let mut world = healthy_world().await;
    let leader = world.leader().unwrap();
    world.members[leader].terminate();
    world.until("stop", MINUTE, |world| world.writable().is_none()).await.unwrap();
    let took = world.until("handover", MINUTE, |world| world.writable().is_some()).await.unwrap();
    assert!(took < Duration::from_secs(1), "writes were interrupted for {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lost_dcs_makes_the_primary_read_only_and_its_return_heals() {
    let mut world = healthy_world().await;
    for who in 0..3 {
        world.dcs_reachable(who, false);
    }
    let leader = world.leader().unwrap();
    world.until("demotion", MINUTE, |world| world.writable().is_none()).await.unwrap();
    let serves = |world: &World| world.fleet.moving().servers[leader].is_up();
    world.until("a read-only start", MINUTE, serves).await.unwrap();
    let life = world.fleet.moving().servers[leader].life;
    world.pass(MINUTE).await.unwrap();
    assert!(serves(&world), "readers are served while the DCS is away");
    assert_eq!(world.fleet.moving().servers[leader].life, life, "the end of the lease is no reason to stop a standby");
    for who in 0..3 {
        world.dcs_reachable(who, true);
    }
    world.until("recovery", MINUTE, World::is_healthy).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn maintenance_mode_leaves_a_killed_leader_down() {
    let mut world = healthy_world().await;
    world.configure(json!({"ttl": 30, "pause": true}));
    world.pass(Duration::from_secs(15)).await.unwrap();
    let leader = world.leader().unwrap();
    world.fleet.kill(leader);
    world.pass(Duration::from_secs(120)).await.unwrap();
    assert_eq!(world.writable(), None);
    world.configure(json!({"ttl": 30}));
    world.until("resume", MINUTE, World::is_healthy).await.unwrap();
}

/// With a turn of the loop a minute long, whatever is done within seconds was told by an event.
#[tokio::test(start_paused = true)]
async fn nothing_waits_for_the_next_turn_of_the_loop() {
    let seconds = Duration::from_secs;
    let config = json!({"ttl": 180, "loop_wait": 60, "retry_timeout": 10, "synchronous_mode": true});
    let plan = Plan { locals: plain(4), drift: vec![0; 4], config, sabotage: None };
    let mut world = World::new(plan, &mut Chance::new(2));
    world.until("birth with a synchronous standby", seconds(20), World::is_settled).await.unwrap();
    world.pass(seconds(90)).await.unwrap();
    let leader = world.leader().unwrap();
    for who in [leader, (leader + 1) % 4] {
        world.fleet.kill(who);
        world.until("the server is back", seconds(5), World::is_healthy).await.unwrap();
        world.until("protected again", seconds(10), World::is_settled).await.unwrap();
    }
    let standbys = world.store.get("/service/sim/sync").unwrap();
    let standby = (0..4).find(|who| standbys.contains(&format!("\"sync_standby\":\"{}\"", world.name(*who)))).unwrap();
    world.hand_over(&json!({"leader": world.name(leader), "member": world.name(standby)}));
    world.until("switchover", seconds(5), |world| world.writable() == Some(standby)).await.unwrap();
    world.until("rejoin", seconds(10), World::is_healthy).await.unwrap();
    world.until("protected by another one", seconds(15), World::is_settled).await.unwrap();
    world.members[standby].terminate();
    world.until("handover", seconds(5), |world| world.writable().is_some_and(|now| now != standby)).await.unwrap();
}

/// Failing starts are rare by lot; here one is certain.
#[tokio::test(start_paused = true)]
async fn data_thrown_away_after_a_failed_start_is_found_out() {
    let sabotage = Some(sabotage::Sabotage::RemoveOnFailedStart);
    let plan = Plan { locals: plain(3), drift: vec![0; 3], config: settings(), sabotage };
    let mut world = World::new(plan, &mut Chance::new(1));
    world.until("bootstrap", MINUTE, World::is_healthy).await.unwrap();
    let standby = (world.leader().unwrap() + 1) % 3;
    world.fleet.moving().failing_starts[standby] = 1;
    world.fleet.kill(standby);
    let failure = world.pass(MINUTE).await.unwrap_err();
    assert!(failure.what.contains("thrown away unasked"), "{failure:?}");
}

/// Before it has made a process; and when its disk answers again, another member leads.
#[tokio::test(start_paused = true)]
async fn a_start_that_hangs_does_not_keep_the_key() {
    let config = json!({"ttl": 30, "loop_wait": 10, "retry_timeout": 10, "primary_start_timeout": 15});
    let plan = Plan { locals: plain(3), drift: vec![0; 3], config, sabotage: None };
    let mut world = World::new(plan, &mut Chance::new(3));
    world.until("bootstrap", MINUTE, World::is_healthy).await.unwrap();
    for is_watched in [true, false] {
        let leader = world.leader().unwrap();
        world.fleet.moving().hanging[leader] = true;
        world.fleet.kill(leader);
        if is_watched {
            world.pass(Duration::from_secs(12)).await.unwrap();
            assert_eq!(world.leader(), Some(leader), "it still has time");
        }
        let others = |world: &World| world.writable().is_some_and(|now| now != leader);
        let took = world.until("failover", MINUTE, others).await.unwrap();
        assert!(took < Duration::from_secs(17), "the lease need not expire: {took:?}");
        world.pass(MINUTE).await.unwrap();
        world.fleet.moving().hanging[leader] = false;
        world.until("rejoin", MINUTE, World::is_healthy).await.unwrap();
        assert_ne!(world.leader(), Some(leader));
    }
    // Nobody else could lead: the only one that can goes on waiting.
    let leader = world.leader().unwrap();
    for other in (0..3).filter(|other| *other != leader) {
        world.members[other].power_off();
    }
    world.fleet.moving().hanging[leader] = true;
    world.fleet.kill(leader);
    world.pass(2 * MINUTE).await.unwrap();
    assert_eq!(world.leader(), Some(leader));
    world.fleet.moving().hanging[leader] = false;
    world.until("its disk answers", MINUTE, |world| world.writable() == Some(leader)).await.unwrap();
}

/// The writes after the renewal must not eat up the time in which the members are to be asked.
#[tokio::test(start_paused = true)]
async fn a_dcs_that_hangs_after_the_renewal_costs_no_primary_in_failsafe_mode() {
    let config = json!({"ttl": 20, "loop_wait": 10, "retry_timeout": 5, "failsafe_mode": true});
    let plan = Plan { locals: plain(3), drift: vec![0; 3], config, sabotage: None };
    let mut world = World::new(plan, &mut Chance::new(4));
    world.until("everybody counts", MINUTE, World::is_ready_for_failsafe).await.unwrap();
    let leader = world.leader().unwrap();
    world.fleet.moving().hangs_when_renewed[leader] = true;
    for _ in 0..1_000 {
        world.pass(Duration::from_millis(100)).await.unwrap();
        assert_eq!(world.writable(), Some(leader), "{}", world.dump());
    }
}

/// A member is suspended while it asks the others for their positions; another one leads meanwhile, and dies.
async fn slept_through(sabotage: Option<sabotage::Sabotage>) -> world::Outcome {
    let mut config = settings();
    config["synchronous_mode"] = json!("quorum");
    let plan = Plan { locals: plain(3), drift: vec![0; 3], config, sabotage };
    let mut world = World::new(plan, &mut Chance::new(5));
    world.until("birth", MINUTE, World::is_settled).await?;
    let leader = world.leader().unwrap();
    let (sleeper, next) = ((leader + 1) % 3, (leader + 2) % 3);
    let is_free = |world: &World| world.leader().is_none();
    world.isolate(leader, true);
    world.until("the end of the lease", MINUTE, is_free).await?;
    world.pass(Duration::from_millis(100)).await?;
    world.members[sleeper].freeze_agent(true);
    world.until("failover", MINUTE, move |world| world.writable() == Some(next)).await?;
    world.pass(MINUTE / 2).await?;
    world.members[next].power_off();
    world.until("the end of its lease", MINUTE, is_free).await?;
    world.members[sleeper].freeze_agent(false);
    world.pass(MINUTE / 2).await?;
    world.start_agent(next);
    world.isolate(leader, false);
    world.until("peace", 2 * MINUTE, World::is_settled).await?;
    world.nothing_lost()
}

#[tokio::test(start_paused = true)]
async fn a_race_that_was_slept_through_loses_nothing() {
    slept_through(None).await.unwrap();
    let failure = slept_through(Some(sabotage::Sabotage::SleptThrough)).await.unwrap_err();
    assert!(failure.what.contains("acknowledged rows are lost"), "{failure:?}");
}
