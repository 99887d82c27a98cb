//! What happens when the server does not: against a real etcd and the embedded store, as processes.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::Client;
use pgherd::cluster::{LeaderKey, Status, Version};
use pgherd::config::{DcsConfig, Etcd3Config};
use pgherd::dcs::{Dcs, DcsError, Identity, Timing, connect};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use crate::backend::{config, object};
use crate::cases_wakes::Sleeper;
use crate::etcd::{Server, is_etcd_installed};
use crate::ground::free_port;
use crate::proxy::{Mode, Proxy};

const TIMING: Timing =
    Timing { ttl: Duration::from_secs(20), loop_wait: Duration::from_secs(1), retry_timeout: Duration::from_secs(3) };

/// What a busy machine may take on top of a deadline.
const SLACK: Duration = Duration::from_secs(1);

/// Runs a story on the embedded store and on a real etcd, side by side.
async fn on_each(story: impl AsyncFn(Server)) {
    let embedded = story(Server::embedded(env!("CARGO_BIN_EXE_pgherd")));
    if is_etcd_installed() {
        tokio::join!(embedded, story(Server::etcd(&[])));
    } else {
        embedded.await;
    }
}

async fn agent(config: &DcsConfig, name: &str) -> Arc<dyn Dcs> {
    let identity = Identity::Agent { name: name.into() };
    connect(config, "service", "demo", None, identity, TIMING).await.unwrap()
}

async fn agent_at(address: &str, name: &str) -> Arc<dyn Dcs> {
    agent(&config(address), name).await
}

/// Every kind of call fails as unavailable within the deadline.
async fn all_calls_end_in_time(dcs: &dyn Dcs) {
    let seen = LeaderKey { name: "a".into(), version: Version(1), session: None };
    let empty = object(json!({}));
    let status = Status::default();
    let (load, touch, acquire, renew, release, config, initialize) = {
        let clock = |call| timeout(TIMING.retry_timeout + SLACK, call);
        tokio::join!(
            clock(Box::pin(async { dcs.load().await.map(drop) }) as std::pin::Pin<Box<dyn Future<Output = _> + Send>>),
            clock(Box::pin(async { dcs.touch_member(&empty).await })),
            clock(Box::pin(async { dcs.acquire_leader(None).await.map(drop) })),
            clock(Box::pin(async { dcs.renew_leader(&seen).await.map(drop) })),
            clock(Box::pin(async { dcs.release_leader(Some(&status)).await.map(drop) })),
            clock(Box::pin(async { dcs.write_config(&empty, None).await.map(drop) })),
            clock(Box::pin(async { dcs.race_initialize("").await.map(drop) })),
        )
    };
    for (name, outcome) in [
        ("load", load),
        ("touch", touch),
        ("acquire", acquire),
        ("renew", renew),
        ("release", release),
        ("config", config),
        ("initialize", initialize),
    ] {
        let answer: Result<(), DcsError> = outcome.unwrap_or_else(|_| panic!("{name} hangs"));
        assert!(matches!(answer, Err(DcsError::Unavailable { .. })), "{name}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_never_there_costs_no_more_than_the_deadline() {
    let dcs = agent_at(&format!("127.0.0.1:{}", free_port()), "a").await;
    let _changes = dcs.changes();
    all_calls_end_in_time(&*dcs).await;
    let text = format!("{:?}", dcs.load().await.unwrap_err());
    assert!(text.contains("refused"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_costs_no_more_than_the_deadline_and_is_used_again() {
    on_each(async |server| {
        let dcs = agent_at(&server.address(), "a").await;
        let bell = agent_at(&server.address(), "b").await;
        let mut sleeper = Sleeper::new(dcs.clone(), bell.clone()).await;
        assert!(dcs.acquire_leader(None).await.unwrap());
        let seen = dcs.load().await.unwrap().leader.unwrap();
        server.freeze();
        all_calls_end_in_time(&*dcs).await;
        // Connecting works on a frozen server, the kernel does it.
        all_calls_end_in_time(&*agent_at(&server.address(), "fresh").await).await;
        server.thaw();
        let deadline = Instant::now() + 2 * TIMING.retry_timeout;
        while !matches!(dcs.renew_leader(&seen).await, Ok(true)) {
            assert!(Instant::now() < deadline, "it is not used again");
        }
        bell.set_initialize("something new").await.unwrap();
        sleeper.hears("news after the frost").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_and_started_again_is_used_again_with_everything_in_it() {
    on_each(async |mut server| {
        let dcs = agent_at(&server.address(), "a").await;
        let bell = agent_at(&server.address(), "b").await;
        let mut sleeper = Sleeper::new(dcs.clone(), bell.clone()).await;
        assert!(dcs.acquire_leader(None).await.unwrap());
        let seen = dcs.load().await.unwrap().leader.unwrap();
        server.kill();
        all_calls_end_in_time(&*dcs).await;
        // By now everybody has noticed.
        dcs.load().await.unwrap_err();
        server.restart();
        sleeper.hears("that it is back").await;
        let deadline = Instant::now() + 2 * TIMING.retry_timeout;
        while !matches!(dcs.renew_leader(&seen).await, Ok(true)) {
            assert!(Instant::now() < deadline, "it is not used again");
        }
        assert_eq!(dcs.load().await.unwrap().leader, Some(seen));
        while bell.set_initialize("something new").await.is_err() {
            assert!(Instant::now() < deadline, "it is not used again");
        }
        sleeper.hears("news after the restart").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_answer_was_lost_is_an_error_and_winning_it_is_found_out() {
    on_each(async |server| {
        let proxy = Proxy::new(server.address()).await;
        let fixed = Etcd3Config { hosts: vec![proxy.address()], use_proxies: true, ..Etcd3Config::default() };
        let dcs = agent(&DcsConfig::Etcd3(fixed), "a").await;
        let direct = agent_at(&server.address(), "b").await;
        dcs.touch_member(&object(json!({}))).await.unwrap();

        proxy.set(Mode::MuteAnswers);
        let value = object(json!({"ttl": 40}));
        assert!(matches!(dcs.write_config(&value, None).await, Err(DcsError::Unavailable { .. })));
        assert_eq!(direct.load().await.unwrap().config_document(), Some(&value), "it happened all the same");
        assert!(matches!(dcs.race_initialize("").await, Err(DcsError::Unavailable { .. })));

        // Mute for the first tries, open before the deadline.
        let racing = tokio::spawn({
            let dcs = dcs.clone();
            async move { dcs.acquire_leader(None).await }
        });
        proxy.set(Mode::Open);
        assert!(racing.await.unwrap().unwrap());
        assert!(direct.load().await.unwrap().has_lock("a"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_to_the_race_is_read_back() {
    on_each(async |server| {
        let proxy = Proxy::new(server.address()).await;
        let fixed = Etcd3Config { hosts: vec![proxy.address()], use_proxies: true, ..Etcd3Config::default() };
        let dcs = agent(&DcsConfig::Etcd3(fixed), "a").await;
        // Long enough for a second round after a lost one.
        dcs.set_timing(Timing { retry_timeout: 2 * TIMING.retry_timeout, ..TIMING });
        let direct = agent_at(&server.address(), "b").await;
        // The lease is refreshed first; mute the wire as soon as the key itself may be on its way. Whatever is lost,
        // the answer must agree with the store.
        for delay in [0, 1, 3, 6] {
            let racing = tokio::spawn({
                let dcs = dcs.clone();
                async move { dcs.acquire_leader(None).await }
            });
            sleep(Duration::from_millis(delay)).await;
            proxy.set(Mode::MuteAnswers);
            sleep(Duration::from_millis(200)).await;
            proxy.set(Mode::Open);
            let won = racing.await.unwrap().unwrap();
            assert!(won && direct.load().await.unwrap().has_lock("a"), "delay {delay}");
            assert!(dcs.release_leader(None).await.unwrap());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_during_a_break_are_told_even_after_compaction() {
    on_each(async |server| {
        let proxy = Proxy::new(server.address()).await;
        let fixed = Etcd3Config { hosts: vec![proxy.address()], use_proxies: true, ..Etcd3Config::default() };
        let dcs = agent(&DcsConfig::Etcd3(fixed), "a").await;
        let direct = agent_at(&server.address(), "b").await;
        let mut sleeper = Sleeper::new(dcs.clone(), direct.clone()).await;
        proxy.set(Mode::Closed);
        direct.set_initialize("while nobody looked").await.unwrap();
        let mut client = Client::connect([server.address()], None).await.unwrap();
        let revision = client.get("x", None).await.unwrap().header().unwrap().revision();
        // The embedded store may not offer compaction; the break itself is what matters then.
        let _ = client.compact(revision, None).await;
        proxy.set(Mode::Open);
        sleeper.hears("what happened during the break").await;
        direct.set_initialize("while it looks again").await.unwrap();
        sleeper.hears("what happened after the break").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_endpoints_a_live_one_is_found_and_kept() {
    on_each(async |server| {
        let dead = format!("127.0.0.1:{}", free_port());
        let both = Etcd3Config { hosts: vec![dead, server.address()], use_proxies: true, ..Etcd3Config::default() };
        let dcs = agent(&DcsConfig::Etcd3(both), "a").await;
        assert!(dcs.acquire_leader(None).await.unwrap());
        let begin = Instant::now();
        dcs.load().await.unwrap();
        assert!(begin.elapsed() < Duration::from_millis(500));
        let mut sleeper = Sleeper::new(dcs.clone(), dcs.clone()).await;
        let other = agent_at(&server.address(), "b").await;
        other.set_initialize("x").await.unwrap();
        sleeper.hears("news on the live endpoint").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_members_of_an_etcd_cluster_stand_in_for_each_other_although_only_one_was_configured() {
    if !is_etcd_installed() {
        return;
    }
    let mut members = Server::etcd_cluster();
    let dcs = agent_at(&members[0].address(), "a").await;
    let witness = agent_at(&members[1].address(), "b").await;
    let deadline = Instant::now() + Duration::from_secs(30);
    while witness.set_initialize("x").await.is_err() {
        assert!(Instant::now() < deadline, "the members found no leader");
    }
    let mut sleeper = Sleeper::new(dcs.clone(), witness.clone()).await;
    assert!(dcs.acquire_leader(None).await.unwrap());
    let seen = dcs.load().await.unwrap().leader.unwrap();
    // Told by the server, which the watch asks once it stands.
    members[0].kill();
    let deadline = Instant::now() + Duration::from_secs(15);
    while !matches!(dcs.renew_leader(&seen).await, Ok(true)) {
        assert!(Instant::now() < deadline, "no other member was found");
    }
    while witness.set_initialize("news").await.is_err() {
        assert!(Instant::now() < deadline, "the other two have no quorum");
    }
    sleeper.hears("news through another member").await;
    assert_eq!(dcs.load().await.unwrap().leader, Some(seen));
}

#[tokio::test(flavor = "multi_thread")]
async fn large_clusters_come_in_one_piece() {
    on_each(async |server| {
        let dcs = agent_at(&server.address(), "a").await;
        for i in 0..8 {
            let filler = "x".repeat(900 * 1024);
            Client::connect([server.address()], None)
                .await
                .unwrap()
                .put(format!("/service/demo/members/m{i}"), json!({"state": filler}).to_string(), None)
                .await
                .unwrap();
        }
        assert_eq!(dcs.load().await.unwrap().members.len(), 8);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_connection_leaves_no_watch_behind() {
    on_each(async |server| {
        let dcs = agent_at(&server.address(), "a").await;
        let bell = agent_at(&server.address(), "b").await;
        let changes = dcs.changes();
        drop(Sleeper::new(dcs.clone(), bell).await);
        drop(dcs);
        // The counter's last sender goes with the task.
        let deadline = Instant::now() + Duration::from_secs(5);
        while changes.has_changed().is_ok() {
            assert!(Instant::now() < deadline, "the watch goes on");
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
