//! The gRPC side: each call becomes one command for the owner.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use etcd_client::proto::{PbClusterServer, PbKvServer, PbLeaseServer, PbMaintenanceServer, PbWatchServer};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Router;

use super::MAX_MESSAGE_BYTES;
use super::owner::Handle;

mod cluster;
mod kv;
mod lease;
mod rest;
mod watch;

/// Calls of one connection at once; an agent needs three, a watch and a lease's stream included.
const CALLS_PER_CONNECTION: u32 = 1024;
/// A peer that vanished without a word is noticed within the sum of both.
const PING_PERIOD: Duration = Duration::from_secs(20);
const PING_LIMIT: Duration = Duration::from_secs(10);

/// All services, ready to be served.
pub(super) fn router(handle: Handle, draining: CancellationToken, address: SocketAddr, file: PathBuf) -> Router {
    macro_rules! sized {
        ($server:expr) => {
            $server.max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES)
        };
    }
    let routes = Routes::new(sized!(PbKvServer::new(kv::Kv(handle.clone()))))
        .add_service(sized!(PbLeaseServer::new(lease::Lease { handle: handle.clone(), draining })))
        .add_service(sized!(PbWatchServer::new(watch::Watch(handle.clone()))))
        .add_service(sized!(PbClusterServer::new(cluster::Cluster { handle: handle.clone(), address })))
        .add_service(sized!(PbMaintenanceServer::new(cluster::Maintenance { handle, file })));
    let routes = Routes::from(routes.into_axum_router().fallback(rest::answer));
    Server::builder()
        .max_concurrent_streams(CALLS_PER_CONNECTION)
        .http2_keepalive_interval(Some(PING_PERIOD))
        .http2_keepalive_timeout(Some(PING_LIMIT))
        .add_routes(routes)
}

/// The answer to a call we do not cover: its name, so that nobody has to guess.
fn not_covered(method: &str) -> Status {
    Status::unimplemented(format!("{method} is not covered by pgherd's embedded store; it needs a real etcd"))
}
