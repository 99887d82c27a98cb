//! Reading while a watch runs: what is served from memory is what the server would say.
//!
//! How many reads reach the server is counted by etcd itself.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::Client;
use pgherd::cluster::{ClusterView, LeaderKey, Status};
use pgherd::config::{DcsConfig, Etcd3Config};
use pgherd::dcs::{Dcs, DcsError, Identity, Timing, connect};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::backend::{config, object};
use crate::cases_wakes::Sleeper;
use crate::etcd::{Server, is_etcd_installed};
use crate::proxy::{Mode, Proxy};

/// Nobody renews the leases here.
const TIMING: Timing =
    Timing { ttl: Duration::from_secs(600), loop_wait: Duration::from_secs(1), retry_timeout: Duration::from_secs(3) };
const SOON: Duration = Duration::from_secs(60);

async fn agent(config: &DcsConfig, name: &str) -> Arc<dyn Dcs> {
    let identity = Identity::Agent { name: name.into() };
    connect(config, "service", "demo", None, identity, TIMING).await.unwrap()
}

/// A member that leads and watches, and another one that does not watch: it always reads for itself.
async fn pair(address: &str, server: &Server) -> (Arc<dyn Dcs>, Arc<dyn Dcs>, Sleeper) {
    let fixed = Etcd3Config { hosts: vec![address.to_owned()], use_proxies: true, ..Etcd3Config::default() };
    let a = agent(&DcsConfig::Etcd3(fixed), "a").await;
    let direct = agent(&config(&server.address()), "b").await;
    assert!(a.acquire_leader(None).await.unwrap());
    let sleeper = Sleeper::new(a.clone(), direct.clone()).await;
    (a, direct, sleeper)
}

/// How many ranges etcd has been asked for.
async fn ranges(server: &Server) -> u64 {
    let mut socket = TcpStream::connect(server.address()).await.unwrap();
    socket.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    let line = text.lines().find(|line| line.starts_with("grpc_server_started_total") && line.contains("\"Range\""));
    line.map_or(0, |line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
}

/// Reads until one read is served from memory, and says so.
async fn until_cached(dcs: &dyn Dcs, server: &Server) -> ClusterView {
    let deadline = Instant::now() + SOON;
    loop {
        let before = ranges(server).await;
        let view = dcs.load().await;
        if let Ok(view) = view
            && ranges(server).await == before
        {
            return view;
        }
        assert!(Instant::now() < deadline, "every read goes to the server");
        sleep(Duration::from_millis(50)).await;
    }
}

/// What a member writes is in its next read.
async fn sees_own_writes(dcs: &dyn Dcs) {
    for optime in 1..200 {
        let status = Status { optime: Some(pgherd::cluster::Lsn(optime)), ..Status::default() };
        dcs.write_status(&status).await.unwrap();
        assert_eq!(dcs.load().await.unwrap().status, status);
    }
    for n in 0..50 {
        let state = object(json!({"state": "running", "xlog_location": n}));
        dcs.touch_member(&state).await.unwrap();
        assert_eq!(dcs.load().await.unwrap().member("a").unwrap().data, state);
        dcs.set_initialize("1").await.unwrap();
        dcs.cancel_initialize().await.unwrap();
        assert_eq!(dcs.load().await.unwrap().initialize, None);
        // There is nothing to delete any more, so no event to wait for.
        dcs.cancel_initialize().await.unwrap();
        assert_eq!(dcs.load().await.unwrap().initialize, None);
    }
}

async fn same_as_direct(dcs: &dyn Dcs, direct: &dyn Dcs) {
    let deadline = Instant::now() + SOON;
    loop {
        let (ours, theirs) = (dcs.load().await.unwrap(), direct.load().await.unwrap());
        if ours == theirs {
            return;
        }
        assert!(Instant::now() < deadline, "{ours:#?} is not {theirs:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_served_from_memory_and_show_every_own_write() {
    let embedded = Server::embedded(env!("CARGO_BIN_EXE_pgherd"));
    let (a, direct, _sleeper) = pair(&embedded.address(), &embedded).await;
    sees_own_writes(&*a).await;
    same_as_direct(&*a, &*direct).await;
    if !is_etcd_installed() {
        return;
    }
    let server = Server::etcd(&[]);
    let (a, direct, _sleeper) = pair(&server.address(), &server).await;
    until_cached(&*a, &server).await;
    let before = ranges(&server).await;
    sees_own_writes(&*a).await;
    assert_eq!(ranges(&server).await, before, "no read went to the server");
    same_as_direct(&*a, &*direct).await;
    // Whoever may race reads for himself.
    assert!(a.release_leader(None).await.unwrap());
    let before = ranges(&server).await;
    assert!(a.load().await.unwrap().is_unlocked());
    assert_eq!(ranges(&server).await, before + 1);
    assert!(a.acquire_leader(None).await.unwrap());
    // A contradiction is a reason to look for oneself.
    until_cached(&*a, &server).await;
    let before = ranges(&server).await;
    let gone = Some(pgherd::cluster::Version(1));
    assert!(!a.write_config(&object(json!({})), gone).await.unwrap());
    a.load().await.unwrap();
    assert!(ranges(&server).await > before);
    until_cached(&*a, &server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_watch_is_read_around_also_when_it_cannot_go_on_where_it_was() {
    if !is_etcd_installed() {
        return;
    }
    let server = Server::etcd(&[]);
    let proxy = Proxy::new(server.address()).await;
    let (a, direct, _sleeper) = pair(&proxy.address(), &server).await;
    until_cached(&*a, &server).await;
    for is_compacted in [false, true] {
        proxy.set(Mode::Closed);
        direct.set_initialize(&format!("while nobody looked, {is_compacted}")).await.unwrap();
        if is_compacted {
            let mut client = Client::connect([server.address()], None).await.unwrap();
            let revision = client.get("x", None).await.unwrap().header().unwrap().revision();
            client.compact(revision, None).await.unwrap();
        }
        proxy.set(Mode::Open);
        assert_eq!(a.load().await.unwrap().initialize, direct.load().await.unwrap().initialize);
        let view = until_cached(&*a, &server).await;
        assert_eq!(view, direct.load().await.unwrap());
    }
    // A wire on which nothing comes back any more, without an end: what the memory holds is worth nothing.
    proxy.set(Mode::MuteAnswers);
    direct.set_initialize("while nothing came back").await.unwrap();
    let answer = a.load().await;
    assert!(matches!(answer, Err(DcsError::Unavailable { .. })), "{answer:?}");
    proxy.set(Mode::Open);
    assert_eq!(until_loaded(&*a).await.initialize.as_deref(), Some("while nothing came back"));
    until_cached(&*a, &server).await;
}

async fn until_loaded(dcs: &dyn Dcs) -> ClusterView {
    let deadline = Instant::now() + SOON;
    loop {
        match dcs.load().await {
            Ok(view) => return view,
            Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
        }
    }
}

/// A signal takes its time to reach every thread.
async fn until_frozen(server: &Server) {
    let deadline = Instant::now() + SOON;
    let is_running = |stat: &str| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'));
    let mut running = true;
    while running {
        assert!(Instant::now() < deadline, "it is not frozen");
        sleep(Duration::from_millis(10)).await;
        let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
        let stat =
            |task: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.unwrap().path().join("stat"));
        running = tasks.map(stat).any(|stat| stat.is_ok_and(|stat| is_running(&stat)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_is_not_answered_for() {
    if !is_etcd_installed() {
        return;
    }
    let server = Server::etcd(&[]);
    let (a, direct, _sleeper) = pair(&server.address(), &server).await;
    let before: LeaderKey = until_cached(&*a, &server).await.leader.unwrap();
    for round in 0..2 {
        server.freeze();
        until_frozen(&server).await;
        let answer = a.load().await;
        assert!(matches!(answer, Err(DcsError::Unavailable { .. })), "{answer:?}");
        server.thaw();
        let word = format!("after the frost {round}");
        let deadline = Instant::now() + SOON;
        while direct.set_initialize(&word).await.is_err() {
            assert!(Instant::now() < deadline, "it is not used again");
        }
        let view = until_loaded(&*a).await;
        assert_eq!((view.initialize, view.leader.as_ref()), (Some(word), Some(&before)));
        until_cached(&*a, &server).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_started_again_is_read_anew() {
    if !is_etcd_installed() {
        return;
    }
    let mut server = Server::etcd(&[]);
    let (a, direct, _sleeper) = pair(&server.address(), &server).await;
    until_cached(&*a, &server).await;
    server.kill();
    let answer = a.load().await;
    assert!(matches!(answer, Err(DcsError::Unavailable { .. })), "{answer:?}");
    server.restart();
    let deadline = Instant::now() + SOON;
    while direct.set_initialize("a new life").await.is_err() {
        assert!(Instant::now() < deadline, "it is not used again");
    }
    assert_eq!(until_loaded(&*a).await.initialize.as_deref(), Some("a new life"));
    let view = until_cached(&*a, &server).await;
    assert_eq!(view, direct.load().await.unwrap());
    sees_own_writes(&*a).await;
}
