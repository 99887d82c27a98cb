use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::*;
use crate::dcs::{Dcs, DcsError, Timing};

fn member(state: &str) -> Map<String, Value> {
    json!({ "state": state }).as_object().unwrap().clone()
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_lease_ends_by_itself_takes_its_keys_along_and_watchers_hear_of_it() {
    let store = MemoryStore::new();
    let (a, b) = (store.handle("demo", Some("a")), store.handle("demo", Some("b")));
    a.touch_member(&member("running")).await.unwrap();
    assert!(a.acquire_leader(None).await.unwrap());
    let mut changes = b.changes();
    let begin = Instant::now();
    changes.changed().await.unwrap();
    assert_eq!(begin.elapsed().as_secs(), 30);
    let view = b.load().await.unwrap();
    assert!(view.is_unlocked() && view.members.is_empty());
    assert!(b.acquire_leader(None).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn renewing_keeps_the_leader_and_a_lost_lease_is_replaced() {
    let store = MemoryStore::new();
    let a = store.handle("demo", Some("a"));
    assert!(a.acquire_leader(None).await.unwrap());
    let seen = a.load().await.unwrap().leader.unwrap();
    for _ in 0..5 {
        tokio::time::sleep(20 * SECOND).await;
        assert!(a.renew_leader(&seen).await.unwrap());
    }
    assert_eq!(a.load().await.unwrap().leader.unwrap(), seen);
    store.revoke_all_leases();
    assert!(a.renew_leader(&seen).await.unwrap());
    assert_ne!(a.load().await.unwrap().leader.unwrap().session, seen.session);
}

#[tokio::test(start_paused = true)]
async fn a_handle_cut_off_fails_after_retry_timeout_or_at_once_and_the_others_do_not() {
    let store = MemoryStore::new();
    let (a, b) = (store.handle("demo", Some("a")), store.handle("demo", Some("b")));
    a.set_timing(Timing { retry_timeout: 3 * SECOND, ..Timing::default() });
    a.set_reachable(false);
    let begin = Instant::now();
    assert!(matches!(a.load().await, Err(DcsError::Unavailable { .. })));
    assert_eq!(begin.elapsed(), 3 * SECOND);
    a.set_reach(Reach::Refused);
    assert!(a.acquire_leader(None).await.is_err());
    assert_eq!(begin.elapsed(), 3 * SECOND);
    assert!(b.acquire_leader(None).await.unwrap());
    assert!(!a.changes().has_changed().unwrap());
    a.set_reachable(true);
    assert!(!a.acquire_leader(None).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_leaves_the_write_done() {
    let store = MemoryStore::new();
    let a = store.handle("demo", Some("a"));
    a.lose_answers(1);
    assert!(a.acquire_leader(None).await.is_err());
    assert_eq!(store.get("/service/demo/leader").as_deref(), Some("a"));
    assert!(!a.acquire_leader(None).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_waited_and_too_long_a_one_arrives_nowhere() {
    let store = MemoryStore::new();
    let a = store.handle("demo", Some("a"));
    let begin = Instant::now();
    a.set_delay(SECOND);
    a.load().await.unwrap();
    assert_eq!(begin.elapsed(), SECOND);
    a.set_delay(20 * SECOND);
    assert!(a.acquire_leader(None).await.is_err());
    assert_eq!(begin.elapsed(), 11 * SECOND);
    assert_eq!(store.keys(), []);
}

#[tokio::test(start_paused = true)]
async fn an_operator_has_no_lease_and_may_not_take_anything() {
    let store = MemoryStore::new();
    let ctl = store.handle("demo", None);
    assert!(matches!(ctl.acquire_leader(None).await, Err(DcsError::Refused { .. })));
    assert!(matches!(ctl.touch_member(&Map::new()).await, Err(DcsError::Refused { .. })));
}

#[tokio::test(start_paused = true)]
async fn the_reaper_ends_with_the_store() {
    let store = MemoryStore::new();
    let a = store.handle("demo", Some("a"));
    a.acquire_leader(None).await.unwrap();
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert_eq!(alive(), 1);
    drop((a, store));
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(alive(), 0);
}
