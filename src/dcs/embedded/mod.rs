//! The embedded store.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};

use tokio::net::TcpListener;

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
}

/// Serves the store in `data_dir` on `listener` until `shutdown` completes.
pub async fn serve(
    listener: TcpListener,
    data_dir: &Path,
    shutdown: impl Future<Output = ()>,
) -> Result<(), StoreError> {
    let _ = (listener, data_dir);
    shutdown.await;
    Ok(())
}
