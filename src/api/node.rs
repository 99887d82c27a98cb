//! What the server needs of the agent.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::cluster::{
    ClusterView, FailoverKey, Lsn, MemberName, PeerAnswer, PendingValue, ReinitRequest, RestartRequest, Role,
    ScheduledRestart, State, SystemId, Tags, Timeline, Version,
};
use crate::config::Dynamic;
use crate::dcs::DcsError;

/// The agent as the server sees it. It supplies facts and accepts commands; rules of the interface are not its
/// business.
///
/// Any of the futures may be dropped halfway, because a client hung up or a deadline passed: what was begun must then
/// go on or be undone by the agent, not hang.
#[async_trait]
pub trait Node: Send + Sync + 'static {
    /// What the agent knows at this moment. Must not block.
    fn facts(&self) -> NodeFacts;

    /// What the running PostgreSQL says now, within a bounded time; `None` when it does not answer. With `retry`, a
    /// query that failed for reasons of the connection is repeated for a second. Without, the wait is a few
    /// milliseconds, and a server that is slow is taken for what it was two seconds ago.
    async fn live(&self, retry: bool) -> Option<Arc<Live>>;

    /// The cached snapshot: the last one loaded, while younger than `ttl` and while no load has failed since.
    fn snapshot(&self) -> Option<Arc<ClusterView>>;

    /// Loads the cluster now. Success renews the cached snapshot, failure drops it. At most `retry_timeout`.
    async fn load(&self) -> Result<Arc<ClusterView>, DcsError>;

    /// Writes the dynamic configuration; with a version only if it is still that one (`false`: it is not).
    async fn write_config(&self, document: &Map<String, Value>, expected: Option<Version>) -> Result<bool, DcsError>;

    /// Writes the failover key (a blank request as `{}`) on the same terms.
    async fn write_failover(&self, request: &FailoverKey, expected: Option<Version>) -> Result<bool, DcsError>;

    /// The last decisions with what they were made of, as JSON lines without secrets, oldest first.
    fn journal(&self) -> Vec<String>;

    /// Runs the loop at once.
    fn wake(&self);

    /// Re-reads the configuration file before the next cycle.
    fn reload(&self);

    /// Hands a command to the loop and waits for its answer; an immediate restart is answered when it is over.
    async fn command(&self, command: Command) -> Reply;

    /// Asks other members (by name and `api_url`) how they are, in parallel, at most 2 s.
    async fn ask_peers(&self, peers: &BTreeMap<MemberName, String>) -> BTreeMap<MemberName, PeerAnswer>;

    /// A primary without DCS says that it still leads. Called only when this node is not a running primary itself.
    /// The last known WAL position (the higher of received and replayed) goes back. Once this has returned, the node
    /// does not become a primary for a `ttl`.
    fn failsafe_ping(&self, ping: FailsafePing) -> Result<Option<Lsn>, RunningAsLeader>;
}

/// What the agent knows without asking anybody.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    /// The member's name.
    pub name: MemberName,
    /// The cluster's name.
    pub scope: String,
    /// The agent's idea of its server's role.
    pub role: Role,
    /// What the server is doing; `None` is shown as `unknown`.
    pub state: Option<State>,
    /// The agent holds the leader lock by its own clock (it renewed it in time), whatever a snapshot says.
    pub holds_lock: bool,
    /// The dynamic configuration in force; maintenance mode and failsafe mode are read from it.
    pub dynamic: Arc<Dynamic>,
    /// Tags as published.
    pub tags: Tags,
    /// When the next cycle is due. Liveness is judged by it, so it must not move while the loop hangs.
    pub next_cycle: Instant,
    /// The restart to come.
    pub scheduled_restart: Option<ScheduledRestart>,
    /// Parameters that wait for a restart.
    pub pending_restart: BTreeMap<String, PendingValue>,
    /// The watchdog is required and does not work.
    pub watchdog_failed: bool,
    /// Lines of the log that wait to be written, and how many more found no place.
    pub log_queue: (usize, usize),
    /// What an operator has to do before anything goes on, where that is so.
    pub advice: Option<String>,
    /// Time of the last successful load, seconds since the epoch; 0 for never.
    pub dcs_last_seen: i64,
    /// A failsafe ping or check succeeded within the last `ttl`.
    pub is_failsafe_active: bool,
    /// The `failsafe` key as last read; empty before the first load, `None` when there is none.
    pub failsafe: Option<BTreeMap<MemberName, String>>,
    /// The system identifier, when known.
    pub system_id: Option<SystemId>,
}

/// What a running PostgreSQL says of itself when asked for a status.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Live {
    /// `pg_is_in_recovery()`.
    pub in_recovery: bool,
    /// Version as PostgreSQL numbers it (150018).
    pub server_version: u32,
    /// When it was started: `YYYY-MM-DD HH:MM:SS.ffffff+HH:MM`.
    pub postmaster_start_time: Option<String>,
    /// Flushed position of a primary.
    pub location: Lsn,
    /// Standby: the position written by the WAL receiver, else the last received, else the replayed one, whichever is
    /// the first that is not zero.
    pub received: Lsn,
    /// Standby: the replayed position.
    pub replayed: Lsn,
    /// Standby: commit time of the last replayed transaction, written as `postmaster_start_time`.
    pub replayed_timestamp: Option<String>,
    /// Standby: replay is paused.
    pub is_replay_paused: bool,
    /// The timeline, as in the member key.
    pub timeline: Option<Timeline>,
    /// `streaming` or `in archive recovery`.
    pub replication_state: Option<String>,
    /// The upstream's end of WAL, as the WAL receiver last heard.
    pub latest_end_lsn: Option<Lsn>,
    /// One object per WAL sender: `usename`, `application_name`, `client_addr`, `state`, `sync_state`,
    /// `sync_priority`.
    pub replication: Vec<Value>,
}

/// What operators ask of one node through its loop.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Restart now.
    Restart(RestartRequest),
    /// Restart later.
    ScheduleRestart(ScheduledRestart),
    /// Forget the scheduled restart.
    CancelRestart,
    /// Throw the data directory away and clone.
    Reinitialize(ReinitRequest),
}

/// The loop's answer to a [`Command`], in the words that the client gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Done or begun.
    Ok(String),
    /// Not done.
    Refused(String),
}

/// This node holds the leader key, or leads already: another primary must not lead on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunningAsLeader;

/// The body of `POST /failsafe`: a primary that cannot reach the DCS names itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailsafePing {
    /// The primary.
    pub name: MemberName,
    /// Its PostgreSQL.
    pub conn_url: String,
    /// Its REST address.
    pub api_url: String,
    /// Its slots with their positions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<BTreeMap<String, Lsn>>,
    /// How long it counts on an acceptance, in seconds: its `ttl`. Patroni does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u64>,
}
