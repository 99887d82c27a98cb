//! A node for tests: facts are set, commands are recorded.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::cluster::{
    ClusterView, ConfigKey, FailoverKey, Lsn, Member, MemberName, PeerAnswer, Role, State, SystemId, Tags, Timeline,
    Version,
};
use crate::config::Dynamic;
use crate::dcs::DcsError;
use crate::dcs::layout::{keys_from_dump, view_from_keys};

use super::node::{Command, FailsafePing, Live, Node, NodeFacts, Reply, RunningAsLeader};

pub(super) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => panic!("{other} is not an object"),
    }
}

/// Settings out of a document.
pub(super) fn dynamic(document: Value) -> Dynamic {
    Dynamic::from_document(&object(document)).0
}

/// A running primary that leads.
pub(super) fn leader_facts() -> NodeFacts {
    NodeFacts {
        name: "pg1".into(),
        scope: "demo".to_owned(),
        role: Role::Primary,
        state: Some(State::Running),
        holds_lock: true,
        dynamic: Arc::new(dynamic(json!({}))),
        tags: Tags::new(),
        next_cycle: Instant::now() + Duration::from_secs(10),
        scheduled_restart: None,
        pending_restart: BTreeMap::new(),
        watchdog_failed: false,
        log_queue: (0, 0),
        advice: None,
        dcs_last_seen: 1_795_186_805,
        is_failsafe_active: false,
        failsafe: Some(BTreeMap::new()),
        system_id: SystemId::parse("7710266681384700900"),
    }
}

/// A running replica.
pub(super) fn replica_facts() -> NodeFacts {
    NodeFacts { name: "pg2".into(), role: Role::Replica, holds_lock: false, ..leader_facts() }
}

pub(super) fn primary_live() -> Live {
    Live {
        server_version: 150_018,
        postmaster_start_time: Some("2026-11-20 14:52:35.160912+00:00".to_owned()),
        location: Lsn(1000),
        timeline: Some(Timeline(1)),
        ..Live::default()
    }
}

pub(super) fn standby_live() -> Live {
    Live {
        in_recovery: true,
        location: Lsn::ZERO,
        received: Lsn(1000),
        replayed: Lsn(1000),
        replication_state: Some("streaming".to_owned()),
        latest_end_lsn: Some(Lsn(1000)),
        ..primary_live()
    }
}

/// A view out of a recorded etcd content.
pub(super) fn recorded_view(name: &str) -> ClusterView {
    let path = format!("{}/tests/fixtures/{name}.etcd.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let (prefix, keys) = keys_from_dump(&text).unwrap();
    view_from_keys(&prefix, &keys)
}

/// Recorded REST answers: member name → path → `{status, body}`.
pub(super) fn recorded_answers(name: &str) -> Map<String, Value> {
    let path = format!("{}/tests/fixtures/{name}.rest.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    object(serde_json::from_str(&text).unwrap())
}

/// Members pg1 (leading), pg2 and pg3 with addresses, and a configuration.
pub(super) fn view() -> ClusterView {
    let member = |name: &str| Member {
        data: object(json!({"api_url": format!("http://{name}:8008/patroni"), "state": "running"})),
        ..Member::unknown(name.into())
    };
    let mut view = ClusterView {
        members: ["pg1", "pg2", "pg3"].map(member).into(),
        config: Some(ConfigKey { version: Version(7), document: Some(object(json!({"ttl": 30}))) }),
        ..ClusterView::default()
    };
    lead(&mut view, "pg1");
    view
}

pub(super) fn lead(view: &mut ClusterView, name: &str) {
    view.leader = Some(crate::cluster::LeaderKey { name: name.into(), version: Version(1), session: None });
}

/// What the fake was told to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Done {
    Config(Map<String, Value>, Option<Version>),
    Failover(FailoverKey, Option<Version>),
    Wake,
    Reload,
    Command(Command),
    Ping(MemberName),
}

type Next = Box<dyn FnMut(&mut ClusterView) + Send>;

pub(super) struct FakeNode {
    pub(super) facts: Mutex<NodeFacts>,
    pub(super) live: Mutex<Option<Live>>,
    pub(super) view: Mutex<Option<ClusterView>>,
    pub(super) cached: Mutex<bool>,
    pub(super) peers: Mutex<BTreeMap<MemberName, PeerAnswer>>,
    pub(super) reply: Mutex<Reply>,
    pub(super) accepts_writes: Mutex<bool>,
    pub(super) after_failover: Mutex<Option<Next>>,
    /// How long a command takes.
    pub(super) takes: Mutex<Duration>,
    done: Mutex<Vec<Done>>,
}

impl FakeNode {
    pub(super) fn leader() -> Self {
        Self {
            facts: Mutex::new(leader_facts()),
            live: Mutex::new(Some(primary_live())),
            view: Mutex::new(Some(view())),
            cached: Mutex::new(true),
            peers: Mutex::new(BTreeMap::new()),
            reply: Mutex::new(Reply::Ok("done".to_owned())),
            accepts_writes: Mutex::new(true),
            after_failover: Mutex::new(None),
            takes: Mutex::new(Duration::ZERO),
            done: Mutex::new(Vec::new()),
        }
    }

    pub(super) fn replica() -> Self {
        let node = Self::leader();
        *node.facts.lock().unwrap() = replica_facts();
        *node.live.lock().unwrap() = Some(standby_live());
        node
    }

    pub(super) fn settings(self, document: Value) -> Self {
        self.set(document);
        self
    }

    /// New settings, in force and in the DCS.
    pub(super) fn set(&self, document: Value) {
        self.facts.lock().unwrap().dynamic = Arc::new(dynamic(document.clone()));
        if let Some(config) = self.view.lock().unwrap().as_mut().and_then(|view| view.config.as_mut()) {
            config.document = Some(object(document));
        }
    }

    pub(super) fn done(&self) -> Vec<Done> {
        std::mem::take(&mut *self.done.lock().unwrap())
    }

    fn did(&self, what: Done) {
        self.done.lock().unwrap().push(what);
    }

    pub(super) fn with_peer(self, name: &str, tags: Value) -> Self {
        let answer = PeerAnswer::Answered {
            in_recovery: true,
            position: Lsn(1),
            timeline: None,
            tags: Tags(object(tags)),
            watchdog_failed: false,
        };
        self.peers.lock().unwrap().insert(name.into(), answer);
        self
    }
}

#[async_trait]
impl Node for FakeNode {
    fn facts(&self) -> NodeFacts {
        self.facts.lock().unwrap().clone()
    }

    async fn live(&self, _retry: bool) -> Option<Arc<Live>> {
        self.live.lock().unwrap().clone().map(Arc::new)
    }

    fn snapshot(&self) -> Option<Arc<ClusterView>> {
        if !*self.cached.lock().unwrap() {
            return None;
        }
        self.view.lock().unwrap().clone().map(Arc::new)
    }

    async fn load(&self) -> Result<Arc<ClusterView>, DcsError> {
        let view = self.view.lock().unwrap().clone();
        view.map(Arc::new).ok_or_else(|| DcsError::unavailable("127.0.0.1:2379"))
    }

    async fn write_config(&self, document: &Map<String, Value>, expected: Option<Version>) -> Result<bool, DcsError> {
        self.did(Done::Config(document.clone(), expected));
        Ok(*self.accepts_writes.lock().unwrap())
    }

    async fn write_failover(&self, request: &FailoverKey, expected: Option<Version>) -> Result<bool, DcsError> {
        self.did(Done::Failover(request.clone(), expected));
        if let Some(view) = self.view.lock().unwrap().as_mut() {
            view.failover = Some(request.clone());
            if let Some(next) = self.after_failover.lock().unwrap().as_mut() {
                next(view);
            }
        }
        Ok(*self.accepts_writes.lock().unwrap())
    }

    fn journal(&self) -> Vec<String> {
        vec![r#"{"seen":1}"#.to_owned(), r#"{"seen":2}"#.to_owned()]
    }

    fn wake(&self) {
        self.did(Done::Wake);
    }

    fn reload(&self) {
        self.did(Done::Reload);
    }

    async fn command(&self, command: Command) -> Reply {
        let takes = *self.takes.lock().unwrap();
        tokio::time::sleep(takes).await;
        self.did(Done::Command(command));
        self.reply.lock().unwrap().clone()
    }

    async fn ask_peers(&self, peers: &BTreeMap<MemberName, String>) -> BTreeMap<MemberName, PeerAnswer> {
        let known = self.peers.lock().unwrap();
        let silent = || PeerAnswer::Unreachable("silent".to_owned());
        peers.keys().map(|name| (name.clone(), known.get(name).cloned().unwrap_or_else(silent))).collect()
    }

    fn failsafe_ping(&self, ping: FailsafePing) -> Result<Option<Lsn>, RunningAsLeader> {
        if self.facts().holds_lock {
            return Err(RunningAsLeader);
        }
        self.did(Done::Ping(ping.name));
        Ok(Some(Lsn(77)))
    }
}
