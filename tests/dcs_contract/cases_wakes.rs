//! What wakes a loop, and what must not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pgherd::cluster::{FailoverKey, Lsn, Status, SyncState};
use pgherd::dcs::Dcs;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::backend::{TIMING, World, object};

const SOON: Duration = Duration::from_secs(10);

/// A member that sleeps until something happens, and somebody who rings a bell it surely hears.
pub(crate) struct Sleeper {
    changes: watch::Receiver<u64>,
    _connection: Arc<dyn Dcs>,
    bell: Arc<dyn Dcs>,
}

/// No two strokes are the same, whoever rings.
static STROKES: AtomicU64 = AtomicU64::new(0);

impl Sleeper {
    pub(crate) async fn new(sleeper: Arc<dyn Dcs>, bell: Arc<dyn Dcs>) -> Self {
        let changes = sleeper.changes();
        let mut this = Self { changes, _connection: sleeper, bell };
        // Until the watch is there, the bell is heard by nobody.
        let deadline = Instant::now() + SOON;
        loop {
            this.ring().await;
            match timeout(TIMING.loop_wait, this.changes.changed()).await {
                Ok(changed) => break changed.unwrap(),
                Err(_) => assert!(Instant::now() < deadline, "nothing is heard"),
            }
        }
        this
    }

    async fn ring(&self) {
        let stroke = STROKES.fetch_add(1, Ordering::Relaxed);
        self.bell.write_config(&object(json!({"bell": stroke})), None).await.unwrap();
    }

    pub(crate) async fn hears(&mut self, what: &str) {
        let heard = timeout(SOON, self.changes.changed()).await;
        heard.unwrap_or_else(|_| panic!("{what} woke nobody")).unwrap();
    }

    /// Events come in order: if only the bell is heard after something, that was not.
    async fn hears_nothing_but_the_bell(&mut self, what: &str) {
        let before = *self.changes.borrow();
        self.ring().await;
        self.hears("the bell").await;
        assert_eq!(*self.changes.borrow(), before + 1, "{what} was heard");
    }
}

pub(crate) async fn news_wakes(world: &World) {
    let (a, b) = (world.agent("a").await, world.agent("b").await);
    let mut sleeper = Sleeper::new(a.clone(), b.clone()).await;
    b.touch_member(&object(json!({"state": "running", "role": "replica"}))).await.unwrap();
    sleeper.hears("a member that came").await;
    b.touch_member(&object(json!({"state": "stopped", "role": "replica"}))).await.unwrap();
    sleeper.hears("a member's state").await;
    assert!(b.acquire_leader(None).await.unwrap());
    sleeper.hears("a new leader").await;
    b.set_initialize("7710267184385916675").await.unwrap();
    sleeper.hears("initialize").await;
    let request = FailoverKey { leader: Some("b".into()), ..FailoverKey::default() };
    b.write_failover(&request, None).await.unwrap();
    sleeper.hears("a request").await;
    b.write_sync(&SyncState { leader: Some("b".into()), ..SyncState::default() }, None).await.unwrap();
    sleeper.hears("sync").await;
    assert!(b.release_leader(None).await.unwrap());
    sleeper.hears("a leader that left").await;
    world.backend.delete(&world.key("members/b")).await;
    sleeper.hears("a member that went").await;
}

pub(crate) async fn positions_wake_nobody(world: &World) {
    let (a, b) = (world.agent("a").await, world.agent("b").await);
    let value = |lsn: u64| object(json!({"state": "running", "role": "replica", "xlog_location": lsn, "timeline": 1}));
    b.touch_member(&value(1)).await.unwrap();
    let mut sleeper = Sleeper::new(a, b.clone()).await;
    b.touch_member(&value(2)).await.unwrap();
    b.write_history(&json!([])).await.unwrap();
    b.write_failover(&FailoverKey::default(), None).await.unwrap();
    sleeper.hears_nothing_but_the_bell("a position").await;
}

pub(crate) async fn status_wakes_all_but_the_leader(world: &World) {
    let (a, b, c) = (world.agent("a").await, world.agent("b").await, world.agent("c").await);
    a.set_timing(pgherd::dcs::Timing { ttl: 10 * TIMING.ttl, ..TIMING });
    assert!(a.acquire_leader(None).await.unwrap());
    let mut leader = Sleeper::new(a.clone(), c.clone()).await;
    let mut follower = Sleeper::new(b, c).await;
    // The follower's first bells were heard by the leader too.
    while timeout(Duration::from_millis(300), leader.changes.changed()).await.is_ok() {}
    a.write_status(&Status { optime: Some(Lsn(7)), ..Status::default() }).await.unwrap();
    follower.hears("the holder's status").await;
    leader.hears_nothing_but_the_bell("the own status").await;
}

pub(crate) async fn an_expired_leader_wakes(world: &World) {
    let (a, b, c) = (world.agent("a").await, world.agent("b").await, world.agent("c").await);
    let mut sleeper = Sleeper::new(b, c).await;
    assert!(a.acquire_leader(None).await.unwrap());
    sleeper.hears("a new leader").await;
    sleeper.hears("a leader whose lease ended").await;
}
