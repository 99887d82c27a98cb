//! `GET /patroni` and `GET /cluster`: facts in, documents out.

use serde_json::{Map, Value, json};

use crate::COMPATIBLE_VERSION;
use crate::cluster::{ClusterView, Lag, Lsn, Member, Role, State};
use crate::config::{Dynamic, SynchronousMode};

use super::moment::Moment;
use super::node::{Live, NodeFacts};

/// Everything that a status, a health check or a metric is made of, taken at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a> {
    /// The agent's facts.
    pub facts: &'a NodeFacts,
    /// PostgreSQL's own word, when it runs and answered.
    pub live: Option<&'a Live>,
    /// The cached snapshot.
    pub view: Option<&'a ClusterView>,
    /// The snapshot's settings when it has valid ones, else those in force.
    pub dynamic: &'a Dynamic,
}

/// Whether PostgreSQL is in a state in which it can be asked.
pub fn can_be_asked(facts: &NodeFacts) -> bool {
    matches!(facts.state, Some(State::Running | State::Restarting | State::Starting))
}

impl Picture<'_> {
    /// The state shown: a server that should run but did not answer is `unknown`.
    pub fn state(&self) -> &'static str {
        match self.facts.state {
            Some(State::Running) if self.live.is_none() => "unknown",
            Some(state) => state.as_str(),
            None => "unknown",
        }
    }

    /// The role shown: what PostgreSQL says, except that the agent tells a standby leader from other standbys.
    pub fn role(&self) -> Role {
        match self.live {
            Some(live) if !live.in_recovery => Role::Primary,
            Some(_) if self.dynamic.standby_cluster.is_none() => Role::Replica,
            _ => self.facts.role,
        }
    }

    /// Shown as a synchronous standby, in the mode given.
    pub fn is_synchronous(&self, mode: SynchronousMode) -> bool {
        self.live.is_some()
            && self.role() == Role::Replica
            && synchronous_mode(self.dynamic) == mode
            && self.view.is_some_and(|view| view.sync.is_voter(&self.facts.name))
    }

    /// The standby's word on where its WAL comes from.
    pub fn replication_state(&self) -> Option<&str> {
        self.live?.replication_state.as_deref().filter(|text| !text.is_empty())
    }

    /// No leader that we know of.
    pub fn is_unlocked(&self) -> bool {
        self.view.is_none_or(ClusterView::is_unlocked)
    }

    /// The furthest position of the leader that we have heard of.
    pub fn leader_lsn(&self) -> Lsn {
        let published = self.view.map_or(Lsn::ZERO, ClusterView::last_lsn);
        let received = self.live.and_then(|live| live.latest_end_lsn).unwrap_or(Lsn::ZERO);
        published.max(received)
    }

    /// The node status document.
    pub fn document(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
        put("state", self.state().into());
        if let Some(live) = self.live {
            put("postmaster_start_time", live.postmaster_start_time.clone().into());
        }
        put("role", self.role().as_str().into());
        if let Some(live) = self.live {
            put("server_version", live.server_version.into());
            put("xlog", xlog(live));
            for (key, mode) in
                [("sync_standby", SynchronousMode::Priority), ("quorum_standby", SynchronousMode::Quorum)]
            {
                if self.is_synchronous(mode) {
                    put(key, true.into());
                }
            }
            put("timeline", live.timeline.map(|timeline| timeline.0).into());
            if let Some(state) = self.replication_state().filter(|_| live.in_recovery) {
                put("replication_state", state.into());
            }
            if !live.replication.is_empty() {
                put("replication", live.replication.clone().into());
            }
        }
        self.agent_fields(&mut fields);
        fields
    }

    fn agent_fields(&self, fields: &mut Map<String, Value>) {
        let facts = self.facts;
        let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
        let mut flag = |key: &str, is_set: bool| is_set.then(|| put(key, true.into()));
        flag("pause", self.dynamic.pause);
        flag("cluster_unlocked", self.is_unlocked());
        flag("failsafe_mode_is_active", facts.is_failsafe_active);
        put("dcs_last_seen", facts.dcs_last_seen.into());
        if !facts.tags.is_empty() {
            put("tags", facts.tags.0.clone().into());
        }
        if let Some(id) = &facts.system_id {
            put("database_system_identifier", id.as_str().into());
        }
        if !facts.pending_restart.is_empty() {
            put("pending_restart", true.into());
            put("pending_restart_reason", json!(facts.pending_restart));
        }
        put("patroni", json!({"version": COMPATIBLE_VERSION, "scope": facts.scope, "name": facts.name}));
        if let Some(restart) = &facts.scheduled_restart {
            put("scheduled_restart", restart.published.clone().into());
        }
        if facts.watchdog_failed {
            put("watchdog_failed", true.into());
        }
        let (waiting, lost) = facts.log_queue;
        if waiting > USUAL_LINES {
            put("logger_queue_size", waiting.into());
            if lost > 0 {
                put("logger_records_lost", lost.into());
            }
        }
        if let Some(advice) = &facts.advice {
            put("advice", advice.as_str().into());
        }
    }
}

fn xlog(live: &Live) -> Value {
    if !live.in_recovery {
        return json!({"location": live.location});
    }
    json!({
        "received_location": live.received,
        "replayed_location": live.replayed,
        "replayed_timestamp": live.replayed_timestamp,
        "paused": live.is_replay_paused,
    })
}

/// So many lines may wait to be written without anybody having to know.
const USUAL_LINES: usize = 2;

/// The mode in force; a standby cluster never counts as synchronous.
pub fn synchronous_mode(dynamic: &Dynamic) -> SynchronousMode {
    if dynamic.standby_cluster.is_some() { SynchronousMode::Off } else { dynamic.synchronous_mode }
}

/// `GET /cluster`, which is also what `pgherdctl list` shows.
pub fn cluster_answer(view: &ClusterView, dynamic: &Dynamic, scope: &str) -> Value {
    let mut members: Vec<&Member> = view.members.iter().collect();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    let members: Vec<Value> = members.into_iter().map(|member| member_answer(view, dynamic, member)).collect();
    let mut fields = Map::new();
    fields.insert("members".to_owned(), members.into());
    if dynamic.pause {
        fields.insert("pause".to_owned(), true.into());
    }
    if let Some(request) = view.failover_request()
        && let Some(at) = request.scheduled_at.as_deref().filter(|at| !at.is_empty())
    {
        let at = Moment::parse(at).map_or_else(|_| at.to_owned(), |moment| moment.iso());
        let mut planned = Map::new();
        planned.insert("at".to_owned(), at.into());
        for (key, name) in [("from", &request.leader), ("to", &request.candidate)] {
            if let Some(name) = name.as_ref().filter(|name| !name.is_empty()) {
                planned.insert(key.to_owned(), name.as_str().into());
            }
        }
        fields.insert("scheduled_switchover".to_owned(), planned.into());
    }
    fields.insert("scope".to_owned(), scope.into());
    fields.into()
}

/// The word for a member's place in the cluster.
pub fn member_role(view: &ClusterView, dynamic: &Dynamic, member: &Member) -> &'static str {
    if view.has_lock(&member.name) {
        return if dynamic.standby_cluster.is_some() { "standby_leader" } else { "leader" };
    }
    match synchronous_mode(dynamic) {
        SynchronousMode::Priority if view.sync.is_voter(&member.name) => "sync_standby",
        SynchronousMode::Quorum if view.sync.is_voter(&member.name) => "quorum_standby",
        _ => "replica",
    }
}

fn member_answer(view: &ClusterView, dynamic: &Dynamic, member: &Member) -> Value {
    let role = member_role(view, dynamic, member);
    let replication_state = member.replication_state().filter(|_| role != "leader");
    let state = replication_state.or_else(|| member.data.get("state")?.as_str()).unwrap_or_default();
    let mut fields = Map::new();
    let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
    put("name", member.name.as_str().into());
    put("role", role.into());
    put("state", state.into());
    put("api_url", member.api_url().into());
    if let Some((host, port)) = member.address() {
        put("host", host.into());
        put("port", port.into());
    }
    for key in ["timeline", "pending_restart", "pending_restart_reason", "scheduled_restart", "tags"] {
        if let Some(value) = member.data.get(key) {
            put(key, value.clone());
        }
    }
    if !view.has_lock(&member.name) {
        let positions = [
            ("receive_lag", "receive_lsn", member.receive_lsn()),
            ("replay_lag", "replay_lsn", member.replay_lsn()),
            ("lag", "lsn", member.xlog_location()),
        ];
        for (lag_key, lsn_key, position) in positions {
            match (Lag::between(view.last_lsn(), position), position) {
                (Lag::Bytes(bytes), Some(lsn)) => {
                    put(lag_key, bytes.into());
                    put(lsn_key, lsn.to_string().into());
                }
                // The order of the two is the other way round here; that is how members write it.
                _ => {
                    put(lsn_key, "unknown".into());
                    put(lag_key, "unknown".into());
                }
            }
        }
    }
    fields.into()
}

#[cfg(test)]
#[path = "status/tests.rs"]
mod tests;
