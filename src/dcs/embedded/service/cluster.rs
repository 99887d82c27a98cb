//! Who is there and how it fares: a cluster of one.

use std::net::SocketAddr;
use std::path::PathBuf;

use etcd_client::proto::{
    PbAlarmRequest, PbAlarmResponse, PbClusterService, PbDefragmentRequest, PbDefragmentResponse, PbDowngradeRequest,
    PbDowngradeResponse, PbHashKvRequest, PbHashKvResponse, PbHashRequest, PbHashResponse, PbMaintenanceService,
    PbMember, PbMemberAddRequest, PbMemberAddResponse, PbMemberListRequest, PbMemberListResponse,
    PbMemberPromoteRequest, PbMemberPromoteResponse, PbMemberRemoveRequest, PbMemberRemoveResponse,
    PbMemberUpdateRequest, PbMemberUpdateResponse, PbMoveLeaderRequest, PbMoveLeaderResponse, PbSnapshotRequest,
    PbSnapshotResponse, PbStatusRequest, PbStatusResponse,
};
use futures::stream::Empty;
use tonic::{Request, Response, Status};

use super::super::owner::{Command, Handle};
use super::not_covered;

/// The protocol we speak, as etcd's version; the rest says that it is not etcd.
const VERSION: &str = concat!("3.4.0+pgherd.", env!("CARGO_PKG_VERSION"));

pub(super) struct Cluster {
    pub(super) handle: Handle,
    /// Where we listen.
    pub(super) address: SocketAddr,
}

#[tonic::async_trait]
impl PbClusterService for Cluster {
    async fn member_list(
        &self,
        request: Request<PbMemberListRequest>,
    ) -> Result<Response<PbMemberListResponse>, Status> {
        // When we listen everywhere, the address by which this client reached us is the one that is true for it.
        let address = match request.local_addr() {
            Some(local) if self.address.ip().is_unspecified() => local,
            _ => self.address,
        };
        let (header, _) = self.handle.call(Command::Status).await?;
        let member = PbMember {
            id: header.member_id,
            name: "pgherd-dcs".to_owned(),
            peer_ur_ls: Vec::new(),
            client_ur_ls: vec![format!("http://{address}")],
            is_learner: false,
        };
        Ok(Response::new(PbMemberListResponse { header: Some(header), members: vec![member] }))
    }

    async fn member_add(&self, _: Request<PbMemberAddRequest>) -> Result<Response<PbMemberAddResponse>, Status> {
        Err(not_covered("etcdserverpb.Cluster/MemberAdd"))
    }

    async fn member_remove(
        &self,
        _: Request<PbMemberRemoveRequest>,
    ) -> Result<Response<PbMemberRemoveResponse>, Status> {
        Err(not_covered("etcdserverpb.Cluster/MemberRemove"))
    }

    async fn member_update(
        &self,
        _: Request<PbMemberUpdateRequest>,
    ) -> Result<Response<PbMemberUpdateResponse>, Status> {
        Err(not_covered("etcdserverpb.Cluster/MemberUpdate"))
    }

    async fn member_promote(
        &self,
        _: Request<PbMemberPromoteRequest>,
    ) -> Result<Response<PbMemberPromoteResponse>, Status> {
        Err(not_covered("etcdserverpb.Cluster/MemberPromote"))
    }
}

pub(super) struct Maintenance {
    pub(super) handle: Handle,
    /// Whose size is the store's size.
    pub(super) file: PathBuf,
}

#[tonic::async_trait]
impl PbMaintenanceService for Maintenance {
    type SnapshotStream = Empty<Result<PbSnapshotResponse, Status>>;

    async fn status(&self, _: Request<PbStatusRequest>) -> Result<Response<PbStatusResponse>, Status> {
        let (header, bytes) = self.handle.call(Command::Status).await?;
        // Unknown is 0 in this protocol.
        let file_bytes = tokio::fs::metadata(&self.file).await.map_or(0, |metadata| metadata.len());
        // There is no log of proposals; the revision grows in the same way.
        let index = header.revision.unsigned_abs();
        Ok(Response::new(PbStatusResponse {
            header: Some(header),
            version: VERSION.to_owned(),
            db_size: i64::try_from(file_bytes).unwrap_or(i64::MAX),
            db_size_in_use: i64::try_from(bytes).unwrap_or(i64::MAX),
            leader: header.member_id,
            raft_term: header.raft_term,
            raft_index: index,
            raft_applied_index: index,
            ..PbStatusResponse::default()
        }))
    }

    async fn alarm(&self, _: Request<PbAlarmRequest>) -> Result<Response<PbAlarmResponse>, Status> {
        Err(not_covered("etcdserverpb.Maintenance/Alarm"))
    }

    async fn defragment(&self, _: Request<PbDefragmentRequest>) -> Result<Response<PbDefragmentResponse>, Status> {
        Err(not_covered("etcdserverpb.Maintenance/Defragment"))
    }

    async fn hash(&self, _: Request<PbHashRequest>) -> Result<Response<PbHashResponse>, Status> {
        Err(not_covered("etcdserverpb.Maintenance/Hash"))
    }

    async fn hash_kv(&self, _: Request<PbHashKvRequest>) -> Result<Response<PbHashKvResponse>, Status> {
        Err(not_covered("etcdserverpb.Maintenance/HashKV"))
    }

    async fn snapshot(&self, _: Request<PbSnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        Err(not_covered("etcdserverpb.Maintenance/Snapshot"))
    }

    async fn move_leader(&self, _: Request<PbMoveLeaderRequest>) -> Result<Response<PbMoveLeaderResponse>, Status> {
        Err(not_covered("etcdserverpb.Maintenance/MoveLeader"))
    }

    async fn downgrade(&self, _: Request<PbDowngradeRequest>) -> Result<Response<PbDowngradeResponse>, Status> {
        Err(not_covered("etcdserverpb.Maintenance/Downgrade"))
    }
}
