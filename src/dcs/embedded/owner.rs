//! The one task that changes the store.
//!
//! A turn: end the leases whose time has come, apply the commands that wait, commit, tell the watchers, answer. All
//! commands of a turn share one fsync.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::proto::{
    PbCompactionRequest, PbCompactionResponse, PbDeleteRequest, PbDeleteResponse, PbLeaseGrantRequest,
    PbLeaseGrantResponse, PbLeaseKeepAliveResponse, PbLeaseLeasesResponse, PbLeaseRevokeResponse,
    PbLeaseTimeToLiveRequest, PbLeaseTimeToLiveResponse, PbPutRequest, PbPutResponse, PbRangeRequest, PbRangeResponse,
    PbResponseHeader, PbTxnRequest, PbTxnResponse, PbWatchRequestUnion,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tonic::Status;

use super::disk::{Disk, random_number};
use super::refusal::Refusal;
use super::state::{Changes, State};
use super::watchers::{Outgoing, Watchers, stopped};
use super::{Stop, StoreError};

/// Commands that may wait.
const INBOX: usize = 256;
/// Commands that share a commit.
const TURN: usize = 256;
/// How long a caller waits for its turn; etcd's own limit at default settings.
const CALL_LIMIT: Duration = Duration::from_secs(7);
/// How often quiet watches that asked for it are told so; etcd's period.
const PROGRESS_PERIOD: Duration = Duration::from_secs(600);

/// Where an answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// What the owner can be asked.
pub(super) enum Command {
    Range(PbRangeRequest, Reply<PbRangeResponse>),
    Put(PbPutRequest, Reply<PbPutResponse>),
    Delete(PbDeleteRequest, Reply<PbDeleteResponse>),
    Txn(PbTxnRequest, Reply<PbTxnResponse>),
    Compact(PbCompactionRequest, Reply<PbCompactionResponse>),
    Grant(PbLeaseGrantRequest, Reply<PbLeaseGrantResponse>),
    Revoke(i64, Reply<PbLeaseRevokeResponse>),
    KeepAlive(i64, Reply<PbLeaseKeepAliveResponse>),
    TimeToLive(PbLeaseTimeToLiveRequest, Reply<PbLeaseTimeToLiveResponse>),
    Leases(Reply<PbLeaseLeasesResponse>),
    /// The header, and how many bytes are in use.
    Status(Reply<(PbResponseHeader, usize)>),
    OpenWatches(Reply<(u64, mpsc::Receiver<Outgoing>)>),
    Watch(u64, PbWatchRequestUnion),
}

/// How the services reach the owner.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    inbox: mpsc::Sender<Command>,
}

impl Handle {
    /// Asks and waits for the answer.
    pub(super) async fn call<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Status> {
        let (reply, answer) = oneshot::channel();
        let exchange = async {
            self.inbox.send(command(reply)).await.map_err(|_| stopped())?;
            // A dropped reply means the store ended before it knew.
            answer.await.map_err(|_| stopped())?.map_err(Status::from)
        };
        let late = |_| Status::unavailable("etcdserver: request timed out");
        timeout(CALL_LIMIT, exchange).await.map_err(late)?
    }

    /// Passes on what a client says on its stream of watches; the answer goes to the stream's queue.
    pub(super) async fn watch(&self, stream_id: u64, request: PbWatchRequestUnion) -> Result<(), Status> {
        self.inbox.send(Command::Watch(stream_id, request)).await.map_err(|_| stopped())
    }
}

/// What remains to do for a command once the disk has what it changed.
enum Deferred {
    Answer(Box<dyn FnOnce() + Send>),
    OpenWatches(Reply<(u64, mpsc::Receiver<Outgoing>)>),
    Watch(u64, PbWatchRequestUnion),
}

/// The state, and everything that must keep in step with it.
pub(super) struct Owner {
    state: State,
    disk: Arc<Disk>,
    watchers: Watchers,
    inbox: mpsc::Receiver<Command>,
}

impl Owner {
    /// An owner that is not running yet, and the way to reach it.
    pub(super) fn new(state: State, disk: Disk) -> (Self, Handle) {
        let (sender, inbox) = mpsc::channel(INBOX);
        let owner = Self { state, disk: Arc::new(disk), watchers: Watchers::default(), inbox };
        (owner, Handle { inbox: sender })
    }

    /// Works until it is told to stop, nobody can ask any more, or the disk fails.
    pub(super) async fn run(mut self, stop: Stop) -> Result<(), StoreError> {
        let mut progress = interval_at(Instant::now() + PROGRESS_PERIOD, PROGRESS_PERIOD);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut draining, mut halting) = (false, false);
        let mut commands = Vec::with_capacity(TURN);
        loop {
            let deadline = self.state.next_deadline();
            tokio::select! {
                biased;
                () = stop.halt.cancelled(), if !halting => {
                    halting = true;
                    self.inbox.close();
                    self.watchers.close();
                }
                () = stop.drain.cancelled(), if !draining => {
                    draining = true;
                    self.watchers.close();
                }
                count = self.inbox.recv_many(&mut commands, TURN) => {
                    if count == 0 {
                        return Ok(());
                    }
                }
                () = until(deadline) => {}
                _ = progress.tick() => self.watchers.announce_progress(&self.state),
            }
            self.turn(&mut commands).await?;
        }
    }

    async fn turn(&mut self, commands: &mut Vec<Command>) -> Result<(), StoreError> {
        let now = Instant::now();
        for id in self.state.expire(now) {
            tracing::info!(lease = format_args!("{id:016x}"), "lease expired");
        }
        let deferred: Vec<Deferred> = commands.drain(..).map(|command| self.apply(command, now)).collect();
        if let Some(changes) = self.state.take_changes() {
            self.commit(changes).await?;
            self.watchers.publish(&self.state);
            self.state.trim_history();
        }
        for rest in deferred {
            match rest {
                Deferred::Answer(answer) => answer(),
                // Watches join after the commit, so they never see a revision that is not durable.
                Deferred::OpenWatches(reply) => drop(reply.send(self.watchers.open())),
                Deferred::Watch(stream_id, request) => self.watchers.request(stream_id, request, &self.state),
            }
        }
        Ok(())
    }

    fn apply(&mut self, command: Command, now: Instant) -> Deferred {
        let state = &mut self.state;
        match command {
            Command::Range(request, reply) => answer(reply, state.range(&request)),
            Command::Put(request, reply) => answer(reply, state.put(request)),
            Command::Delete(request, reply) => answer(reply, state.delete(&request)),
            Command::Txn(request, reply) => answer(reply, state.txn(request)),
            Command::Compact(request, reply) => answer(reply, state.compact(&request)),
            Command::Grant(request, reply) => answer(reply, state.grant(&request, now, random_lease_id)),
            Command::Revoke(id, reply) => answer(reply, state.revoke(id)),
            Command::KeepAlive(id, reply) => {
                let ttl = state.keep_alive(id, now);
                answer(reply, Ok(PbLeaseKeepAliveResponse { header: Some(state.header()), id, ttl }))
            }
            Command::TimeToLive(request, reply) => answer(reply, Ok(state.time_to_live(&request, now))),
            Command::Leases(reply) => answer(reply, Ok(state.leases())),
            Command::Status(reply) => answer(reply, Ok((state.header(), state.bytes()))),
            Command::OpenWatches(reply) => Deferred::OpenWatches(reply),
            Command::Watch(stream_id, request) => Deferred::Watch(stream_id, request),
        }
    }

    async fn commit(&self, changes: Changes) -> Result<(), StoreError> {
        let disk = self.disk.clone();
        let result = match tokio::task::spawn_blocking(move || disk.commit(&changes)).await {
            Ok(result) => result,
            Err(panic) => Err(StoreError::Write { path: self.disk.file().to_path_buf(), source: Box::new(panic) }),
        };
        if let Err(error) = &result {
            tracing::error!(%error, "a commit failed");
        }
        result
    }
}

/// An answer that waits for the commit. A caller that has left is no concern: its request was carried out.
fn answer<T: Send + 'static>(reply: Reply<T>, result: Result<T, Refusal>) -> Deferred {
    Deferred::Answer(Box::new(move || drop(reply.send(result))))
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Positive, as etcd's are: tools print them as hexadecimal numbers of sixteen digits.
fn random_lease_id() -> i64 {
    i64::try_from(random_number() >> 1).unwrap_or(i64::MAX)
}
