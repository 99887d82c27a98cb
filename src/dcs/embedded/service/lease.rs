//! Leases.

use std::pin::Pin;

use etcd_client::proto::{
    PbLeaseGrantRequest, PbLeaseGrantResponse, PbLeaseKeepAliveRequest, PbLeaseKeepAliveResponse, PbLeaseLeasesRequest,
    PbLeaseLeasesResponse, PbLeaseRevokeRequest, PbLeaseRevokeResponse, PbLeaseService, PbLeaseTimeToLiveRequest,
    PbLeaseTimeToLiveResponse,
};
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::super::owner::{Command, Handle};

pub(super) struct Lease {
    pub(super) handle: Handle,
    /// Ends the streams, which would otherwise last as long as their clients.
    pub(super) draining: CancellationToken,
}

#[tonic::async_trait]
impl PbLeaseService for Lease {
    type LeaseKeepAliveStream = Pin<Box<dyn Stream<Item = Result<PbLeaseKeepAliveResponse, Status>> + Send>>;

    async fn lease_grant(
        &self,
        request: Request<PbLeaseGrantRequest>,
    ) -> Result<Response<PbLeaseGrantResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.handle.call(|reply| Command::Grant(request, reply)).await?))
    }

    async fn lease_revoke(
        &self,
        request: Request<PbLeaseRevokeRequest>,
    ) -> Result<Response<PbLeaseRevokeResponse>, Status> {
        let id = request.into_inner().id;
        Ok(Response::new(self.handle.call(|reply| Command::Revoke(id, reply)).await?))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<PbLeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let handle = self.handle.clone();
        let renewals = request.into_inner().and_then(move |PbLeaseKeepAliveRequest { id }| {
            let handle = handle.clone();
            async move { handle.call(|reply| Command::KeepAlive(id, reply)).await }
        });
        let until_stop = renewals.take_until(self.draining.clone().cancelled_owned());
        Ok(Response::new(Box::pin(until_stop)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<PbLeaseTimeToLiveRequest>,
    ) -> Result<Response<PbLeaseTimeToLiveResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.handle.call(|reply| Command::TimeToLive(request, reply)).await?))
    }

    async fn lease_leases(&self, _: Request<PbLeaseLeasesRequest>) -> Result<Response<PbLeaseLeasesResponse>, Status> {
        Ok(Response::new(self.handle.call(Command::Leases).await?))
    }
}
