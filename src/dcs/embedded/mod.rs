//! The embedded store: one process that speaks the part of etcd's v3 gRPC API that we use.
//!
//! It exists so that a cluster can be tried without installing etcd; the agents reach it through the same backend as
//! a real etcd. One process is one point of failure, so production wants etcd itself.
//!
//! ```text
//! service   gRPC in and out; holds no state                     (tonic's tasks)
//! owner     applies commands in order, commits, then answers    (one task)
//! state     keys, leases, recent history: pure, synchronous
//! disk      one redb file: what must survive                    (the owner's blocking calls)
//! watchers  who gets which events, through bounded queues       (called by the owner)
//! ```
//!
//! What holds:
//!
//! * A write is answered only after it was fsynced. Commands that queue up meanwhile share the next fsync.
//! * A read is answered in the same order as the writes around it, so it never shows what a crash could take back.
//! * A write that cannot be made durable ends the store: memory would be ahead of the disk, and an answer a guess.
//! * Leases survive a restart with their full life ahead, as they survive a change of leader in etcd: nobody loses a
//!   lock because the store was restarted.
//! * History (old revisions, events for a watch that resumes) is kept in memory only. After a restart everything
//!   before it counts as compacted.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;

use disk::Disk;
use owner::Owner;
use state::State;

mod disk;
mod owner;
mod refusal;
mod service;
mod state;
mod watchers;

/// Largest message in either direction.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// How long open calls may take to end once the store was told to stop.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// Why the store did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory or a file in it cannot be made, read or written.
    #[error("cannot use {path} for the store")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// Another process serves this directory.
    #[error(
        "the store in {dir} is in use by {holder}; stop the `pgherd dcs` that already runs on this directory, or \
         choose another --data-dir"
    )]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// Who holds it, as far as known.
        holder: String,
    },
    /// The directory belongs to something else.
    #[error("{dir} holds no store but has {entry} in it; choose an empty or a new directory as --data-dir")]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// The first thing in it that is not ours.
        entry: String,
    },
    /// The file is there but cannot be understood.
    #[error(
        "the store's file {path} is damaged or was not written by this program; restore it from a copy, or move it \
         away to start with an empty store"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A commit failed. What was not acknowledged may or may not be there after a restart.
    #[error("cannot write to {path}, the store stops; free space or mend the disk, then start it again")]
    Write {
        /// The file.
        path: PathBuf,
        /// The library's words.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The network side failed.
    #[error("cannot serve on {address}")]
    Serve {
        /// Where it listened.
        address: SocketAddr,
        /// The server's words.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// How the tasks learn that the end is near.
#[derive(Clone, Debug, Default)]
struct Stop {
    /// Streams end, no new calls.
    drain: CancellationToken,
    /// The owner finishes what it has and leaves.
    halt: CancellationToken,
}

/// Serves the store in `data_dir` on `listener` until `shutdown` completes.
///
/// The directory is created if it is missing and locked while it is served. Ends by itself only when the disk or the
/// network fails.
pub async fn serve(
    listener: TcpListener,
    data_dir: &Path,
    shutdown: impl Future<Output = ()>,
) -> Result<(), StoreError> {
    let address = listener.local_addr().map_err(|source| StoreError::Io { path: data_dir.into(), source })?;
    let (disk, state) = open(data_dir).await?;
    tracing::info!(listen = %address, data_dir = %data_dir.display(), revision = state.revision(),
        keys = state.key_count(), leases = state.lease_count(), "store ready");

    let stop = Stop::default();
    let _stop_if_dropped = stop.clone().halt.drop_guard();
    let file = disk.file().to_path_buf();
    let (owner, handle) = Owner::new(state, disk);
    let mut owner = tokio::spawn(owner.run(stop.clone()));
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = service::router(handle, stop.drain.clone(), address, file)
        .serve_with_incoming_shutdown(incoming, stop.drain.clone().cancelled_owned());
    let mut server = pin!(server);
    let failed = |source: tonic::transport::Error| StoreError::Serve { address, source: Box::new(source) };

    tokio::select! {
        biased;
        () = shutdown => tracing::info!("store stopping"),
        end = &mut owner => return owner_result(end),
        end = &mut server => {
            end.map_err(failed)?;
        }
    }
    stop.drain.cancel();
    if timeout(DRAIN_LIMIT, &mut server).await.is_err() {
        tracing::warn!("some clients did not end their calls; leaving without them");
    }
    stop.halt.cancel();
    finish(owner).await
}

async fn open(data_dir: &Path) -> Result<(Disk, State), StoreError> {
    let dir = data_dir.to_path_buf();
    let now = Instant::now();
    let opened = tokio::task::spawn_blocking(move || {
        let (disk, contents) = Disk::open(&dir)?;
        let path = disk.file().to_path_buf();
        let state = State::restore(contents, now).map_err(|what| StoreError::Damaged { path, source: what.into() })?;
        Ok((disk, state))
    });
    // The library may panic on a file that is damaged in a way it does not foresee.
    let damaged = |source| StoreError::Damaged { path: disk::file_in(data_dir), source: Box::new(source) };
    opened.await.map_err(damaged)?
}

async fn finish(owner: JoinHandle<Result<(), StoreError>>) -> Result<(), StoreError> {
    owner_result(owner.await)
}

fn owner_result(end: Result<Result<(), StoreError>, tokio::task::JoinError>) -> Result<(), StoreError> {
    match end {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}
