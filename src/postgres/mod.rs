//! One PostgreSQL server on this machine.
//!
//! [`Postgres`] is the port the agent drives. It carries out and reports; it never decides. Its long operations are
//! run by the agent as the one long task, beside the loop; [`Postgres::look`] is bounded and never fails as a whole.

pub mod archive;
pub mod bootstrap;
pub mod callbacks;
pub mod clone;
pub mod conf;
pub mod configured;
pub mod connection;
pub mod control_data;
pub mod crash_recovery;
pub mod data_dir;
pub mod dsn;
pub mod pgpass;
pub mod process;
pub mod process_tree;
pub mod programs;
pub mod query;
pub mod removal;
pub mod replication;
pub mod rewind;
pub mod server;
pub mod site;
pub mod slots;
pub mod tls;
mod unfinished;
pub mod version;
pub mod waldump;
pub mod wire;

pub use server::Server;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

pub use crate::cluster::server::{
    Callback, Divergence, FollowChange, Recovery, Rewound, SlotSync, Started, StopMode, StopProgress, WantedSlot,
};
use crate::cluster::{HistoryLine, InstanceState, Role, SlotTending, Timeline, Upstream};
use crate::config::PostgresConfig;

/// A failed operation on the server, in words an operator can act on.
#[derive(Debug, thiserror::Error)]
pub enum PgError {
    /// A program could not be run or ended badly.
    #[error("{program} failed: {detail}")]
    Program {
        /// Which program.
        program: String,
        /// Exit code and the last lines of its output.
        detail: String,
    },
    /// The server could not be asked.
    #[error("PostgreSQL did not answer: {0}")]
    Query(String),
    /// A file or directory.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The operation was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// It did not happen within its limit.
    #[error("timed out after {0:?}: {1}")]
    Timeout(Duration, String),
    /// The operation makes no sense in the present state.
    #[error("{0}")]
    Refused(String),
}

/// What a look should include.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Ask for slots.
    pub slots: bool,
    /// Ask for the standbys and the synchronous settings.
    pub senders: bool,
    /// Ask for the local timeline of a standby over a replication connection when its receiver does not know it.
    pub standby_timeline: bool,
    /// The whole look is over by then; what is not known is left out.
    pub budget: Duration,
}

/// A stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopPlan {
    /// How.
    pub mode: StopMode,
    /// Run a CHECKPOINT before the signal, so that the shutdown's own is short.
    pub checkpoint: bool,
    /// After this, immediate, then SIGKILL. `None`: as long as it takes.
    pub timeout: Option<Duration>,
}

/// A start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartPlan {
    /// Recovery configuration to write before.
    pub recovery: Recovery,
    /// The role the server will have, for parameters and callbacks.
    pub role: Role,
    /// How long to wait for connections. `None`: `pg_ctl_timeout` for the port, then leave it starting.
    pub timeout: Option<Duration>,
}

/// A base backup or custom replica creation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClonePlan {
    /// Where from; `None` only for methods that need no leader.
    pub source: Option<Upstream>,
    /// `pg_basebackup` whatever methods are configured.
    pub basebackup_only: bool,
}

/// The server, as the agent drives it. Operations with a [`CancellationToken`] are long; when cancelled they stop
/// their programs (SIGTERM, after 10 s SIGKILL for the group) and return [`PgError::Cancelled`].
#[async_trait]
pub trait Postgres: Send + Sync {
    /// One bounded look at everything.
    async fn look(&self, ask: &Look) -> InstanceState;

    /// Notified when the postmaster exits or a starting server becomes ready.
    fn events(&self) -> Arc<Notify>;

    /// Starts and waits. `Err` when the postmaster died or could not be spawned.
    async fn start(&self, plan: &StartPlan, cancel: &CancellationToken) -> Result<Started, PgError>;

    /// Stops; `Ok` also when nothing ran. Progress is reported as it is seen.
    async fn stop(
        &self,
        plan: &StopPlan,
        progress: Option<mpsc::Sender<StopProgress>>,
        cancel: &CancellationToken,
    ) -> Result<(), PgError>;

    /// Stops and starts as it was.
    async fn restart(&self, plan: &StartPlan, cancel: &CancellationToken) -> Result<Started, PgError>;

    /// Sends the postmaster SIGQUIT now, without waiting. For the lease deadline; must not block or allocate much.
    fn quit_now(&self);

    /// Whether a process of the server may still answer a client: also one that its postmaster left behind.
    async fn serves_clients(&self) -> bool {
        false
    }

    /// Runs `pre_promote`, if configured. `false`: it failed.
    async fn pre_promote(&self, cancel: &CancellationToken) -> bool;

    /// Sees to it that the next promotion begins none of these timelines.
    async fn leave_out_timelines(&self, taken: &[Timeline]) -> Result<(), PgError>;

    /// Promotes and waits until the control file says `in production`, at most `limit`. `false`: promotion was
    /// issued but is not finished.
    async fn promote(&self, limit: Duration, cancel: &CancellationToken) -> Result<bool, PgError>;

    /// Compares the present recovery configuration with that for `upstream`.
    async fn follow_change(&self, upstream: Option<&Upstream>) -> FollowChange;

    /// Writes the recovery configuration for `upstream` and reloads.
    async fn follow(&self, upstream: Option<&Upstream>) -> Result<(), PgError>;

    /// Has a standby that does not stream ask its upstream for WAL now, not when `wal_retrieve_retry_interval` is over.
    async fn retry_stream(&self) -> Result<(), PgError> {
        Ok(())
    }

    /// Resumes paused WAL replay.
    async fn resume_replay(&self) -> Result<(), PgError>;

    /// Takes over new settings: rewrites files and reloads when something changed or `force` is set. Parameters that
    /// need a restart show up in [`InstanceState::pending_restart`].
    async fn configure(&self, config: Arc<PostgresConfig>, force: bool) -> Result<(), PgError>;

    /// Sets (or removes) the managed `synchronous_standby_names` and reloads.
    async fn set_synchronous_standby_names(&self, value: Option<&str>) -> Result<(), PgError>;

    /// Creates a new cluster by `initdb` or the configured method and starts it.
    async fn bootstrap(&self, cancel: &CancellationToken) -> Result<(), PgError>;

    /// Users and `post_bootstrap`, once the new cluster is a primary.
    async fn post_bootstrap(&self, cancel: &CancellationToken) -> Result<(), PgError>;

    /// Fills an empty (or emptied) data directory; does not start it.
    async fn clone_from(&self, plan: &ClonePlan, cancel: &CancellationToken) -> Result<(), PgError>;

    /// Compares the local history with the leader's.
    async fn check_divergence(&self, leader: &Upstream) -> Divergence;

    /// Runs `pg_rewind` on a stopped server.
    async fn rewind(&self, leader: &Upstream, cancel: &CancellationToken) -> Rewound;

    /// Runs the server in single-user mode once, so that a crashed data directory is shut down cleanly.
    async fn crash_recovery(&self, cancel: &CancellationToken) -> Result<(), PgError>;

    /// Archives the segment that holds the shutdown checkpoint of the stopped server, so that whoever lives on the
    /// archive alone gets to the very end. Does nothing where archiving is off.
    async fn archive_last_segment(&self, cancel: &CancellationToken) -> Result<(), PgError> {
        let _ = cancel;
        Ok(())
    }

    /// Runs CHECKPOINT.
    async fn checkpoint(&self) -> Result<(), PgError>;

    /// Takes the data directory, with its WAL and tablespace directories, out of the way of a new clone. What it holds
    /// may be wanted back: it is renamed to `….failed`, and removed only when that cannot be done.
    async fn remove_data_dir(&self) -> Result<(), PgError>;

    /// Renames the data directory to `….failed`.
    async fn move_data_dir_away(&self) -> Result<(), PgError>;

    /// Ends what an agent that died has left filling the data directory, and takes what is there out of the way.
    async fn discard_unfinished(&self) -> Result<(), PgError> {
        Ok(())
    }

    /// Says that the data directory is complete.
    async fn forget_unfinished(&self) -> Result<(), PgError> {
        Ok(())
    }

    /// Creates missing slots and drops unwanted ones.
    async fn sync_slots(&self, sync: &SlotSync) -> Result<(), PgError>;

    /// Moves copies of logical slots forward and asks whether they are safe. Never waited for: what came of it is in
    /// the next look. While one such round goes on, further ones are not begun.
    fn tend_slots(&self, tending: &SlotTending) {
        let _ = tending;
    }

    /// Copies logical slots of the leader and restarts with them. `None`: there was nothing to copy, and no restart.
    async fn copy_slots(
        &self,
        leader: &Upstream,
        slots: &[WantedSlot],
        cancel: &CancellationToken,
    ) -> Result<Option<Started>, PgError> {
        let _ = (leader, slots, cancel);
        Ok(None)
    }

    /// Sets `hot_standby_feedback` whatever is configured, or leaves it to the configuration again.
    async fn force_hot_standby_feedback(&self, on: bool) -> Result<(), PgError> {
        let _ = on;
        Ok(())
    }

    /// The history file of a timeline: its lines and when it was written (ISO 8601, local zone).
    async fn timeline_history(&self, timeline: Timeline) -> Result<(Vec<HistoryLine>, Option<String>), PgError>;

    /// Calls the operator's script for an event, never waiting for it.
    fn callback(&self, event: Callback, role: Role);

    /// What `GET /patroni` shows beyond a look: the standbys that stream from here.
    async fn replication(&self) -> Vec<serde_json::Value>;
}

/// Work on files that may take a while, off the runtime's own threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, PgError> + Send + 'static) -> Result<T, PgError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(PgError::Refused(format!("work on files broke off: {error}"))))
}
