//! The requests we send: one trait for all of them, and the transactions in one place.

use etcd_client::proto::{
    PbAuthenticateRequest, PbAuthenticateResponse, PbCompare, PbDeleteRequest, PbDeleteResponse, PbLeaseGrantRequest,
    PbLeaseGrantResponse, PbLeaseKeepAliveRequest, PbLeaseKeepAliveResponse, PbMemberListRequest, PbMemberListResponse,
    PbPutRequest, PbPutResponse, PbRangeRequest, PbRangeResponse, PbResponseHeader, PbTargetUnion, PbTxnOpRequest,
    PbTxnOpResponse, PbTxnRequest, PbTxnRequestOp, PbTxnResponse,
};
use tonic_prost::prost::Message;

use crate::cluster::Version;
use crate::dcs::layout::{KeyValue, range_end};

/// One question with its one answer.
pub(super) trait Request: Message + Clone + 'static {
    /// What comes back.
    type Answer: Message + Default + 'static;
    /// The method's path.
    const PATH: &'static str;
    /// The method is a stream, of which one message each way is used.
    const IS_STREAM: bool = false;
    /// It changes something: when its answer is lost, the outcome is unknown.
    const IS_WRITE: bool = true;
    /// The answer's header.
    fn header(answer: &Self::Answer) -> Option<&PbResponseHeader>;
    /// What it did to the keys.
    fn effect(_answer: &Self::Answer) -> Effect {
        Effect::None
    }
}

/// What a request did to the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing, nor was it meant to.
    None,
    /// It changed some, which made this revision.
    Wrote(i64),
    /// Nothing, because they were not as expected.
    Conflict,
}

macro_rules! request {
    ($request:ty, $answer:ty, $path:literal $(, $name:ident = $value:literal)* $(; $effect:expr)?) => {
        impl Request for $request {
            type Answer = $answer;
            const PATH: &'static str = $path;
            $(const $name: bool = $value;)*
            fn header(answer: &Self::Answer) -> Option<&PbResponseHeader> {
                answer.header.as_ref()
            }
            $(fn effect(answer: &Self::Answer) -> Effect {
                $effect(answer)
            })?
        }
    };
}

request!(PbRangeRequest, PbRangeResponse, "/etcdserverpb.KV/Range", IS_WRITE = false);
request!(PbPutRequest, PbPutResponse, "/etcdserverpb.KV/Put"; put_effect);
request!(PbDeleteRequest, PbDeleteResponse, "/etcdserverpb.KV/DeleteRange"; delete_effect);
request!(PbTxnRequest, PbTxnResponse, "/etcdserverpb.KV/Txn"; txn_effect);
request!(PbLeaseGrantRequest, PbLeaseGrantResponse, "/etcdserverpb.Lease/LeaseGrant");
request!(PbLeaseKeepAliveRequest, PbLeaseKeepAliveResponse, "/etcdserverpb.Lease/LeaseKeepAlive", IS_STREAM = true);
request!(PbMemberListRequest, PbMemberListResponse, "/etcdserverpb.Cluster/MemberList", IS_WRITE = false);
request!(PbAuthenticateRequest, PbAuthenticateResponse, "/etcdserverpb.Auth/Authenticate", IS_WRITE = false);

fn put_effect(answer: &PbPutResponse) -> Effect {
    Effect::Wrote(revision(answer.header.as_ref()))
}

/// Deleting what is not there makes no revision.
fn delete_effect(answer: &PbDeleteResponse) -> Effect {
    if answer.deleted > 0 { Effect::Wrote(revision(answer.header.as_ref())) } else { Effect::None }
}

fn txn_effect(answer: &PbTxnResponse) -> Effect {
    match (has_written(answer), answer.succeeded) {
        (true, _) => Effect::Wrote(revision(answer.header.as_ref())),
        (false, true) => Effect::None,
        (false, false) => Effect::Conflict,
    }
}

fn has_written(answer: &PbTxnResponse) -> bool {
    answer.responses.iter().any(|op| match &op.response {
        Some(PbTxnOpResponse::ResponsePut(_)) => true,
        Some(PbTxnOpResponse::ResponseDeleteRange(answer)) => answer.deleted > 0,
        Some(PbTxnOpResponse::ResponseTxn(inner)) => has_written(inner),
        _ => false,
    })
}

/// Everything below a prefix. Serializable reads are answered by the member asked, also without quorum.
pub(super) fn read_prefix(prefix: &str, serializable: bool) -> PbRangeRequest {
    PbRangeRequest { key: prefix.into(), range_end: range_end(prefix), serializable, ..PbRangeRequest::default() }
}

/// The keys below a prefix without their values.
pub(super) fn read_names(prefix: &str) -> PbRangeRequest {
    PbRangeRequest { keys_only: true, ..read_prefix(prefix, false) }
}

/// One key, as the majority has it.
pub(super) fn read(key: &str) -> PbRangeRequest {
    PbRangeRequest { key: key.into(), ..PbRangeRequest::default() }
}

/// Writes a key.
pub(super) fn put(key: &str, value: &[u8], lease: i64) -> PbPutRequest {
    PbPutRequest { key: key.into(), value: value.to_vec(), lease, ..PbPutRequest::default() }
}

/// Deletes a key.
pub(super) fn delete(key: &str) -> PbDeleteRequest {
    PbDeleteRequest { key: key.into(), ..PbDeleteRequest::default() }
}

/// Deletes everything below a prefix.
pub(super) fn delete_prefix(prefix: &str) -> PbDeleteRequest {
    PbDeleteRequest { key: prefix.into(), range_end: range_end(prefix), ..PbDeleteRequest::default() }
}

/// Writes a key if it is absent.
pub(super) fn create(key: &str, value: &[u8], lease: i64) -> PbTxnRequest {
    txn(is_absent(key), put_op(key, value, lease), None)
}

/// The same, but only while another key has this version, or is absent.
pub(super) fn while_unchanged(mut request: PbTxnRequest, key: &str, version: Option<Version>) -> PbTxnRequest {
    request.compare.push(version.map_or_else(|| is_absent(key), |version| is_version(key, version)));
    request
}

/// Writes a key if its version is still this one.
pub(super) fn compare_and_put(key: &str, value: &[u8], expected: Version) -> PbTxnRequest {
    txn(is_version(key, expected), put_op(key, value, 0), None)
}

/// Deletes a key if its version is still this one.
pub(super) fn compare_and_delete(key: &str, expected: Version) -> PbTxnRequest {
    txn(is_version(key, expected), op(PbTxnOpRequest::RequestDeleteRange(delete(key))), None)
}

/// Deletes a key if it has this value.
pub(super) fn delete_if_value(key: &str, value: &[u8]) -> PbTxnRequest {
    txn(is_value(key, value), op(PbTxnOpRequest::RequestDeleteRange(delete(key))), None)
}

/// Puts a key on a new lease if it still has this value, or writes it if it is absent. See [`is_reattached`].
pub(super) fn reattach(key: &str, value: &[u8], lease: i64) -> PbTxnRequest {
    let otherwise = op(PbTxnOpRequest::RequestTxn(create(key, value, lease)));
    txn(is_value(key, value), put_op(key, value, lease), Some(otherwise))
}

/// Does nothing, but only for whoever may read everything below `prefix` and write `key`: servers look at what a
/// transaction might do before they look at its condition, which here never holds.
pub(super) fn rights(prefix: &str, key: &str) -> PbTxnRequest {
    let never = compare(key, 0, PbTargetUnion::Version(-1));
    let read = op(PbTxnOpRequest::RequestRange(read_prefix(prefix, false)));
    PbTxnRequest { compare: vec![never], success: vec![read, put_op(key, b"", 0)], failure: Vec::new() }
}

/// Whether one of the two branches of [`reattach`] wrote the key.
pub(super) fn is_reattached(answer: &PbTxnResponse) -> bool {
    let inner = answer.responses.first().and_then(|op| op.response.as_ref());
    answer.succeeded || matches!(inner, Some(PbTxnOpResponse::ResponseTxn(inner)) if inner.succeeded)
}

fn txn(compare: PbCompare, then: PbTxnRequestOp, otherwise: Option<PbTxnRequestOp>) -> PbTxnRequest {
    PbTxnRequest { compare: vec![compare], success: vec![then], failure: otherwise.into_iter().collect() }
}

fn op(request: PbTxnOpRequest) -> PbTxnRequestOp {
    PbTxnRequestOp { request: Some(request) }
}

fn put_op(key: &str, value: &[u8], lease: i64) -> PbTxnRequestOp {
    op(PbTxnOpRequest::RequestPut(put(key, value, lease)))
}

/// The numbers are etcd's: result 0 is "equal"; targets are 0 version, 1 create revision, 2 mod revision, 3 value.
fn compare(key: &str, target: i32, value: PbTargetUnion) -> PbCompare {
    PbCompare { result: 0, target, key: key.into(), range_end: Vec::new(), target_union: Some(value) }
}

fn is_absent(key: &str) -> PbCompare {
    compare(key, 1, PbTargetUnion::CreateRevision(0))
}

fn is_version(key: &str, expected: Version) -> PbCompare {
    compare(key, 2, PbTargetUnion::ModRevision(expected.0))
}

fn is_value(key: &str, value: &[u8]) -> PbCompare {
    compare(key, 3, PbTargetUnion::Value(value.to_vec()))
}

/// The revision of the store when it answered; for a write the version it gave the key.
pub(super) fn revision(header: Option<&PbResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

/// A key as the layout knows it; keys that are not text are nobody's.
pub(super) fn key_value(kv: etcd_client::proto::PbKeyValue) -> Option<KeyValue> {
    let key = String::from_utf8(kv.key).ok()?;
    Some(KeyValue { key, value: kv.value, mod_revision: kv.mod_revision, lease: kv.lease })
}
