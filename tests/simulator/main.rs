//! The real loop for three members in a simulated world: crashes, partitions, switchovers. After every moment the
//! world checks that at most one server accepts writes; after the faults one leader must be back with everybody
//! streaming.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod lot;
mod postgres;
mod world;

use std::time::Duration;

use serde_json::json;
use world::{World, settings};

const MINUTE: Duration = Duration::from_secs(60);

async fn healthy_world() -> World {
    let mut world = World::new(&["a", "b", "c"], settings());
    world.until("bootstrap", MINUTE, World::is_healthy).await;
    world.pass(Duration::from_secs(5)).await;
    world
}

#[tokio::test(start_paused = true)]
async fn a_cluster_comes_up_by_itself() {
    let world = healthy_world().await;
    assert_eq!(world.store.get("/service/sim/initialize").as_deref(), Some(postgres::SYSTEM_ID));
}

#[tokio::test(start_paused = true)]
async fn a_crashed_postmaster_is_back_within_a_second() {
    let mut world = healthy_world().await;
    let leader = world.leader().unwrap();
    world.fleet.kill(leader);
    let took = world.until("restart", MINUTE, |world| world.writable().is_some()).await;
    assert!(took < Duration::from_secs(1), "writable again after {took:?}");
    assert_eq!(world.leader(), Some(leader));
}

#[tokio::test(start_paused = true)]
async fn a_dead_leader_is_replaced_within_the_ttl() {
    let mut world = healthy_world().await;
    let leader = world.leader().unwrap();
    world.kill_agent(leader);
    world.fleet.kill(leader);
    let took = world.until("failover", MINUTE, |world| world.writable().is_some()).await;
    assert!(took < Duration::from_secs(32), "writable again after {took:?}");
    assert_ne!(world.leader(), Some(leader));
    world.start_agent(leader);
    world.until("rejoin", MINUTE, World::is_healthy).await;
}

#[tokio::test(start_paused = true)]
async fn a_partitioned_leader_stops_before_another_is_elected() {
    let mut world = healthy_world().await;
    let leader = world.leader().unwrap();
    world.isolate(leader, true);
    world.until("failover", MINUTE, |world| world.leader().is_some_and(|new| new != leader)).await;
    world.until("writable", MINUTE, |world| world.writable().is_some_and(|now| now != leader)).await;
    world.pass(MINUTE).await;
    world.isolate(leader, false);
    world.until("heal", MINUTE, World::is_healthy).await;
}

#[tokio::test(start_paused = true)]
async fn a_switchover_interrupts_writes_for_less_than_a_second() {
    let mut world = healthy_world().await;
    let leader = world.leader().unwrap();
    let target = (leader + 1) % 3;
    let request = json!({"leader": world.fleet.names[leader], "member": world.fleet.names[target]});
    world.store.put("/service/sim/failover", request.to_string());
    world.until("demotion", MINUTE, |world| world.writable().is_none()).await;
    let took = world.until("switchover", MINUTE, |world| world.writable().is_some()).await;
    assert_eq!(world.leader(), Some(target));
    assert!(took < Duration::from_secs(1), "writes were interrupted for {took:?}");
    world.until("rejoin", Duration::from_secs(10), World::is_healthy).await;
    assert_eq!(world.store.get("/service/sim/failover").as_deref(), Some("{}"));
}

#[tokio::test(start_paused = true)]
async fn a_terminated_agent_hands_over_at_once() {
    let mut world = healthy_world().await;
    let leader = world.leader().unwrap();
    world.terminate_agent(leader);
    world.until("stop", MINUTE, |world| world.writable().is_none()).await;
    let took = world.until("handover", MINUTE, |world| world.writable().is_some()).await;
    assert!(took < Duration::from_secs(1), "writes were interrupted for {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lost_dcs_makes_the_primary_read_only_and_its_return_heals() {
    let mut world = healthy_world().await;
    for who in 0..3 {
        world.dcs_reachable(who, false);
    }
    world.until("demotion", MINUTE, |world| world.writable().is_none()).await;
    world.pass(MINUTE).await;
    for who in 0..3 {
        world.dcs_reachable(who, true);
    }
    world.until("recovery", MINUTE, World::is_healthy).await;
}

#[tokio::test(start_paused = true)]
async fn maintenance_mode_leaves_a_killed_leader_down() {
    let mut world = healthy_world().await;
    world.store.put("/service/sim/config", json!({"ttl": 30, "pause": true}).to_string());
    world.pass(Duration::from_secs(15)).await;
    let leader = world.leader().unwrap();
    world.fleet.kill(leader);
    world.pass(Duration::from_secs(120)).await;
    assert_eq!(world.writable(), None);
    world.store.put("/service/sim/config", json!({"ttl": 30}).to_string());
    world.until("resume", MINUTE, World::is_healthy).await;
}
