//! `pgherd dcs`: the embedded store as a program.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::agent::cli::DcsArgs;
use crate::dcs::embedded::{self, StoreError};

/// Why the store's program ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}; choose another --listen address")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// No handlers for the stop signals.
    #[error("cannot handle signals")]
    Signals(#[source] io::Error),
    /// The store itself.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Serves until SIGTERM or SIGINT.
pub async fn run(args: &DcsArgs) -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    let listen = |source| RunError::Listen { address: args.listen, source };
    let listener = TcpListener::bind(args.listen).await.map_err(listen)?;
    if !args.listen.ip().is_loopback() {
        tracing::warn!(listen = %args.listen, "the store has no encryption and no passwords: whoever reaches this \
            address can take over the cluster");
    }
    let stop = async move {
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    Ok(embedded::serve(listener, &args.data_dir, stop).await?)
}
