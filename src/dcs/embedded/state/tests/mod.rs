//! The state machine by itself: stories here, random ones against a naive model in `model`.

use std::time::Duration;

use etcd_client::proto::{
    PbCompactionRequest, PbCompare, PbDeleteRequest, PbLeaseGrantRequest, PbLeaseTimeToLiveRequest, PbPutRequest,
    PbRangeRequest, PbTargetUnion, PbTxnOpRequest, PbTxnOpResponse, PbTxnRequest, PbTxnRequestOp,
};
use tokio::time::Instant;

use super::super::refusal::Refusal;
use super::{Changes, Contents, Identity, State};

mod model;

fn empty() -> State {
    let identity = Identity { cluster_id: 1, member_id: 2, term: 3 };
    State::restore(Contents { identity, revision: 1, ..Contents::default() }, Instant::now()).unwrap()
}

fn put(key: &str, value: &str) -> PbPutRequest {
    PbPutRequest { key: key.into(), value: value.into(), ..PbPutRequest::default() }
}

fn get(key: &str) -> PbRangeRequest {
    PbRangeRequest { key: key.into(), ..PbRangeRequest::default() }
}

fn all() -> PbRangeRequest {
    PbRangeRequest { key: vec![0], range_end: vec![0], ..PbRangeRequest::default() }
}

fn op(request: PbTxnOpRequest) -> PbTxnRequestOp {
    PbTxnRequestOp { request: Some(request) }
}

fn put_op(key: &str, value: &str) -> PbTxnRequestOp {
    op(PbTxnOpRequest::RequestPut(put(key, value)))
}

fn grant(state: &mut State, id: i64, ttl: i64) -> Result<i64, Refusal> {
    state.grant(&PbLeaseGrantRequest { id, ttl }, Instant::now(), || 77).map(|granted| granted.id)
}

fn values(state: &State, request: &PbRangeRequest) -> Vec<String> {
    let found = state.range(request).unwrap().kvs;
    found.into_iter().map(|kv| String::from_utf8(kv.value).unwrap()).collect()
}

#[test]
fn a_key_counts_its_changes_until_it_is_deleted() {
    let mut state = empty();
    assert_eq!(state.put(put("k", "1")).unwrap().header.unwrap().revision, 2);
    state.put(put("other", "x")).unwrap();
    state.put(put("k", "2")).unwrap();
    let kv = state.range(&get("k")).unwrap().kvs.remove(0);
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (2, 4, 2));

    let deletion = PbDeleteRequest { key: b"k".to_vec(), prev_kv: true, ..PbDeleteRequest::default() };
    let deleted = state.delete(&deletion).unwrap();
    assert_eq!((deleted.deleted, deleted.prev_kvs.len(), deleted.header.unwrap().revision), (1, 1, 5));
    let grave = state.history().since(5).next().unwrap().events[0].to_message(false).kv.unwrap();
    assert_eq!((grave.key.as_slice(), grave.mod_revision, grave.version, grave.create_revision), (&b"k"[..], 5, 0, 0));

    assert_eq!(state.delete(&deletion).unwrap().header.unwrap().revision, 5, "nothing deleted, no revision");
    state.put(put("k", "3")).unwrap();
    let kv = state.range(&get("k")).unwrap().kvs.remove(0);
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (6, 6, 1));
}

#[test]
fn the_past_can_be_read_until_it_is_compacted() {
    let mut state = empty();
    for value in ["1", "2", "3"] {
        state.put(put("k", value)).unwrap();
    }
    let at = |revision| PbRangeRequest { revision, ..get("k") };
    assert_eq!(values(&state, &at(2)), ["1"]);
    assert_eq!(values(&state, &at(3)), ["2"]);
    assert_eq!(state.range(&at(5)).unwrap_err(), Refusal::FutureRevision);

    let compact =
        |state: &mut State, revision| state.compact(&PbCompactionRequest { revision, physical: false }).map(|_| ());
    compact(&mut state, 3).unwrap();
    assert_eq!(state.range(&at(2)).unwrap_err(), Refusal::Compacted);
    assert_eq!(values(&state, &at(3)), ["2"]);
    assert_eq!(compact(&mut state, 3).unwrap_err(), Refusal::Compacted);
    assert_eq!(compact(&mut state, 9).unwrap_err(), Refusal::FutureRevision);
}

#[test]
fn a_transaction_is_one_revision_and_sees_its_own_writes() {
    let mut state = empty();
    state.put(put("k", "old")).unwrap();
    let before = PbRangeRequest { revision: 2, ..get("k") };
    let request = PbTxnRequest {
        compare: vec![PbCompare {
            key: b"k".to_vec(),
            target: 3,
            target_union: Some(PbTargetUnion::Value(b"old".to_vec())),
            ..PbCompare::default()
        }],
        success: vec![
            put_op("k", "new"),
            op(PbTxnOpRequest::RequestRange(get("k"))),
            op(PbTxnOpRequest::RequestRange(before)),
            put_op("l", "x"),
        ],
        failure: vec![],
    };
    let mut response = state.txn(request.clone()).unwrap();
    assert!(response.succeeded);
    assert_eq!(response.header.unwrap().revision, 3);
    let Some(PbTxnOpResponse::ResponseRange(seen)) = response.responses.remove(1).response else { panic!() };
    assert_eq!((seen.kvs[0].value.as_slice(), seen.header.unwrap().revision), (&b"new"[..], 3));
    let Some(PbTxnOpResponse::ResponseRange(seen)) = response.responses.remove(1).response else { panic!() };
    assert_eq!(seen.kvs[0].value, b"old");
    assert_eq!(state.history().since(3).next().unwrap().events.len(), 2);

    let again = state.txn(request).unwrap();
    assert!(!again.succeeded);
    assert_eq!(again.header.unwrap().revision, 3, "nothing written, no revision");
}

#[test]
fn a_refused_transaction_leaves_nothing_behind() {
    let mut state = empty();
    let leased = op(PbTxnOpRequest::RequestPut(PbPutRequest { lease: 9, ..put("b", "") }));
    let request = PbTxnRequest { success: vec![put_op("a", ""), leased], ..PbTxnRequest::default() };
    assert_eq!(state.txn(request).unwrap_err(), Refusal::LeaseNotFound);
    let twice = PbTxnRequest { failure: vec![put_op("a", ""), put_op("a", "")], ..PbTxnRequest::default() };
    assert_eq!(state.txn(twice).unwrap_err(), Refusal::DuplicateKey, "though that branch would not run");
    let many = PbTxnRequest { success: vec![put_op("a", ""); 129], ..PbTxnRequest::default() };
    assert_eq!(state.txn(many).unwrap_err(), Refusal::TooManyOperations);
    assert_eq!((state.revision(), state.key_count()), (1, 0));
    assert_eq!(state.take_changes(), None);
}

#[test]
fn deleting_to_the_end_conflicts_with_a_put_behind_it() {
    let mut state = empty();
    let everything = PbDeleteRequest { key: b"a".to_vec(), range_end: vec![0], prev_kv: false };
    let nested = PbTxnRequest { success: vec![put_op("z", "")], ..PbTxnRequest::default() };
    let request = PbTxnRequest {
        success: vec![op(PbTxnOpRequest::RequestTxn(nested)), op(PbTxnOpRequest::RequestDeleteRange(everything))],
        ..PbTxnRequest::default()
    };
    assert_eq!(state.txn(request).unwrap_err(), Refusal::DuplicateKey);
}

#[test]
fn bad_requests_are_refused_in_etcds_words() {
    let mut state = empty();
    assert_eq!(state.put(put("", "x")).unwrap_err(), Refusal::EmptyKey);
    assert_eq!(state.range(&get("")).unwrap_err(), Refusal::EmptyKey);
    assert_eq!(state.delete(&PbDeleteRequest::default()).unwrap_err(), Refusal::EmptyKey);
    let keep = |value: &str| PbPutRequest { ignore_value: true, ..put("k", value) };
    assert_eq!(state.put(keep("x")).unwrap_err(), Refusal::ValueProvided);
    assert_eq!(state.put(keep("")).unwrap_err(), Refusal::KeyNotFound);
    let keep_lease = PbPutRequest { ignore_lease: true, lease: 1, ..put("k", "") };
    assert_eq!(state.put(keep_lease).unwrap_err(), Refusal::LeaseProvided);
    let nameless = PbTxnRequest { success: vec![PbTxnRequestOp { request: None }], ..PbTxnRequest::default() };
    assert_eq!(state.txn(nameless).unwrap_err(), Refusal::KeyNotFound);
    let odd = PbRangeRequest { sort_target: 9, ..get("k") };
    assert_eq!(state.range(&odd).unwrap_err(), Refusal::SortOption);
}

#[test]
fn a_lease_takes_its_keys_with_it_in_one_revision() {
    let mut state = empty();
    grant(&mut state, 5, 10).unwrap();
    for key in ["b", "a", "moved", "freed"] {
        state.put(PbPutRequest { lease: 5, ..put(key, "x") }).unwrap();
    }
    grant(&mut state, 6, 100).unwrap();
    state.put(PbPutRequest { lease: 6, ..put("moved", "x") }).unwrap();
    state.put(put("freed", "x")).unwrap();
    state.put(PbPutRequest { ignore_lease: true, ..put("a", "y") }).unwrap();
    let before = state.revision();

    let ask = PbLeaseTimeToLiveRequest { id: 5, keys: true };
    assert_eq!(state.time_to_live(&ask, Instant::now()).keys, [b"a", b"b"]);
    assert!(state.expire(Instant::now() + Duration::from_secs(9)).is_empty());
    assert_eq!(state.expire(Instant::now() + Duration::from_secs(11)), [5]);
    assert_eq!(state.revision(), before + 1);
    assert_eq!(state.key_count(), 2);
    let events = &state.history().since(before + 1).next().unwrap().events;
    assert_eq!(events.iter().map(|event| event.kv.key[0]).collect::<Vec<_>>(), b"ab");
    assert_eq!(state.time_to_live(&ask, Instant::now()).ttl, -1);
    assert_eq!(state.keep_alive(5, Instant::now()), 0);
    assert_eq!(state.revoke(5).unwrap_err(), Refusal::LeaseNotFound);
}

#[test]
fn a_renewed_lease_lives_on() {
    let mut state = empty();
    let start = Instant::now();
    state.grant(&PbLeaseGrantRequest { id: 5, ttl: 10 }, start, || 77).unwrap();
    let after = |seconds| start + Duration::from_secs(seconds);
    assert_eq!(state.keep_alive(5, after(9)), 10);
    assert_eq!(state.next_deadline(), Some(after(19)));
    assert!(state.expire(after(18)).is_empty());
    assert_eq!(state.expire(after(19)), [5]);
}

#[test]
fn lives_and_ids_of_leases_have_limits() {
    let mut state = empty();
    let short = state.grant(&PbLeaseGrantRequest { id: 0, ttl: 0 }, Instant::now(), || 77).unwrap();
    assert_eq!((short.id, short.ttl), (77, 2));
    assert_eq!(grant(&mut state, 77, 5).unwrap_err(), Refusal::LeaseExists);
    assert_eq!(grant(&mut state, 78, 9_000_000_001).unwrap_err(), Refusal::LeaseTtlTooLarge);
    grant(&mut state, 78, 9_000_000_000).unwrap();
    let mut draws = [77, 0, 79].into_iter();
    let drawn = state.grant(&PbLeaseGrantRequest { id: 0, ttl: 5 }, Instant::now(), || draws.next().unwrap());
    assert_eq!(drawn.unwrap().id, 79, "neither one in use nor zero");
}

#[test]
fn a_full_store_refuses_to_grow_but_lets_go() {
    let mut state = empty();
    let large = "x".repeat(100 << 20);
    state.put(put("a", &large)).unwrap();
    state.put(put("b", &large)).unwrap();
    assert_eq!(state.put(put("c", &large)).unwrap_err(), Refusal::NoSpace);
    let txn = PbTxnRequest { success: vec![put_op("c", &large)], ..PbTxnRequest::default() };
    assert_eq!(state.txn(txn).unwrap_err(), Refusal::NoSpace);
    state.delete(&PbDeleteRequest { key: b"a".to_vec(), ..PbDeleteRequest::default() }).unwrap();
    state.put(put("c", &large)).unwrap();
}

#[test]
fn sorting_and_limits_come_after_the_count() {
    let mut state = empty();
    for (key, value) in [("a", "3"), ("b", "1"), ("c", "2")] {
        state.put(put(key, value)).unwrap();
    }
    let by_value = PbRangeRequest { sort_target: 4, sort_order: 2, limit: 2, ..all() };
    assert_eq!(values(&state, &by_value), ["3", "2"]);
    let response = state.range(&by_value).unwrap();
    assert!(response.more && response.count == 3);
    let counted = state.range(&PbRangeRequest { count_only: true, ..all() }).unwrap();
    assert_eq!((counted.count, counted.kvs.len()), (3, 0));
    let names = state.range(&PbRangeRequest { keys_only: true, min_mod_revision: 3, ..all() }).unwrap();
    assert_eq!(names.kvs.iter().map(|kv| (kv.key[0], kv.value.len())).collect::<Vec<_>>(), [(b'b', 0), (b'c', 0)]);
}

#[test]
fn what_the_disk_kept_is_taken_up_with_full_lives() {
    let mut state = empty();
    grant(&mut state, 5, 10).unwrap();
    state.put(PbPutRequest { lease: 5, ..put("k", "v") }).unwrap();
    state.put(put("gone", "v")).unwrap();
    state.delete(&PbDeleteRequest { key: b"gone".to_vec(), ..PbDeleteRequest::default() }).unwrap();
    let Changes { revision, keys, leases } = state.take_changes().unwrap();
    assert_eq!(keys[0], (b"gone".to_vec(), None));
    let kept = Contents {
        identity: Identity::default(),
        revision,
        keys: keys.into_iter().filter_map(|(_, kv)| kv.map(|kv| (*kv).clone())).collect(),
        leases: leases.into_iter().filter_map(|(id, ttl)| Some((id, ttl?))).collect(),
    };
    let later = Instant::now() + Duration::from_secs(3600);
    let mut restored = State::restore(kept.clone(), later).unwrap();
    assert_eq!((restored.revision(), values(&restored, &all())), (4, vec!["v".to_owned()]));
    assert_eq!(restored.next_deadline(), Some(later + Duration::from_secs(10)));
    assert_eq!(restored.history().floor(), 5);
    restored.revoke(5).unwrap();
    assert_eq!(restored.key_count(), 0);

    for spoil in [
        |kept: &mut Contents| kept.leases.clear(),
        |kept: &mut Contents| kept.revision = 1,
        |kept: &mut Contents| kept.keys[0].version = 0,
        |kept: &mut Contents| kept.keys[0].key.clear(),
        |kept: &mut Contents| kept.leases[0].1 = i64::MAX,
    ] {
        let mut spoilt = kept.clone();
        spoil(&mut spoilt);
        State::restore(spoilt, later).unwrap_err();
    }
}
