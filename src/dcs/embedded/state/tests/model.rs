//! Random requests against a model that keeps a whole copy of the keys for every revision and looks everything up the
//! slow way.

use std::collections::BTreeMap;

use etcd_client::proto::{
    PbCompactionRequest, PbCompare, PbDeleteRequest, PbKeyValue, PbLeaseGrantRequest, PbLeaseTimeToLiveRequest,
    PbPutRequest, PbRangeRequest, PbTargetUnion, PbTxnOpRequest, PbTxnOpResponse, PbTxnRequest, PbTxnRequestOp,
    PbTxnResponse,
};
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::time::Instant;

use super::super::super::refusal::Refusal;
use super::super::{Contents, Identity, State};
use super::empty;

type Keys = BTreeMap<Vec<u8>, PbKeyValue>;

#[derive(Clone, Debug)]
enum Request {
    Put(PbPutRequest),
    Delete(PbDeleteRequest),
    Txn(PbTxnRequest),
    Grant(i64),
    Revoke(i64),
    /// Both as distance from the present, so that most of them hit something.
    Compact(i64),
    Range(PbRangeRequest, i64),
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![Just(b"a".to_vec()), Just(b"ab".to_vec()), Just(b"b".to_vec()), Just(b"c".to_vec())]
}

fn range_end() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![3 => Just(vec![]), 1 => Just(vec![0]), 2 => key()]
}

fn put() -> impl Strategy<Value = PbPutRequest> {
    (key(), 0u8..3, 0i64..4, any::<bool>(), prop::bool::weighted(0.2), prop::bool::weighted(0.2)).prop_map(
        |(key, value, lease, prev_kv, ignore_value, ignore_lease)| PbPutRequest {
            key,
            value: if ignore_value { vec![] } else { vec![b'0' + value] },
            lease: if ignore_lease || lease == 3 { 0 } else { lease },
            prev_kv,
            ignore_value,
            ignore_lease,
        },
    )
}

fn delete() -> impl Strategy<Value = PbDeleteRequest> {
    (key(), range_end(), any::<bool>()).prop_map(|(key, range_end, prev_kv)| PbDeleteRequest {
        key,
        range_end,
        prev_kv,
    })
}

fn range() -> impl Strategy<Value = PbRangeRequest> {
    let order = (0i32..3, 0i32..5, 0i64..3);
    (key(), range_end(), order, any::<bool>(), prop::bool::weighted(0.1), 0i64..6, 0i64..6).prop_map(
        |(key, range_end, (sort_order, sort_target, limit), keys_only, count_only, min, max)| PbRangeRequest {
            key,
            range_end,
            limit,
            sort_order,
            sort_target,
            keys_only,
            count_only,
            min_mod_revision: min,
            max_create_revision: if max < 3 { 0 } else { max },
            ..PbRangeRequest::default()
        },
    )
}

fn compare() -> impl Strategy<Value = PbCompare> {
    (key(), range_end(), 0i32..4, 0i32..5, 0i64..4).prop_map(|(key, range_end, result, target, n)| PbCompare {
        result,
        target,
        key,
        range_end,
        target_union: Some(match target {
            0 => PbTargetUnion::Version(n),
            1 => PbTargetUnion::CreateRevision(n),
            2 => PbTargetUnion::ModRevision(n),
            3 => PbTargetUnion::Value(n.to_string().into_bytes()),
            _ => PbTargetUnion::Lease(n),
        }),
    })
}

fn txn() -> impl Strategy<Value = PbTxnRequest> {
    let single = prop_oneof![
        3 => put().prop_map(PbTxnOpRequest::RequestPut),
        1 => delete().prop_map(PbTxnOpRequest::RequestDeleteRange),
        1 => range().prop_map(PbTxnOpRequest::RequestRange),
    ];
    let operation = single.prop_recursive(2, 6, 2, |inner| {
        let branch = || vec(inner.clone().prop_map(|request| PbTxnRequestOp { request: Some(request) }), 0..3);
        (vec(compare(), 0..2), branch(), branch()).prop_map(|(compare, success, failure)| {
            PbTxnOpRequest::RequestTxn(PbTxnRequest { compare, success, failure })
        })
    });
    let branch = || vec(operation.clone().prop_map(|request| PbTxnRequestOp { request: Some(request) }), 0..3);
    (vec(compare(), 0..2), branch(), branch()).prop_map(|(compare, success, failure)| PbTxnRequest {
        compare,
        success,
        failure,
    })
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        6 => put().prop_map(Request::Put),
        3 => delete().prop_map(Request::Delete),
        6 => txn().prop_map(Request::Txn),
        3 => (1i64..3).prop_map(Request::Grant),
        1 => (1i64..3).prop_map(Request::Revoke),
        1 => (-1i64..4).prop_map(Request::Compact),
        5 => (range(), -1i64..8).prop_map(|(range, back)| Request::Range(range, back)),
    ]
}

/// `past[r]` are the keys at revision `r`; what is known of the time before the first is nothing.
struct Model {
    past: Vec<Keys>,
    leases: Vec<i64>,
    compacted: i64,
}

fn in_range(key: &[u8], start: &[u8], end: &[u8]) -> bool {
    match end {
        [] => key == start,
        [0] => key >= start,
        end => key >= start && key < end,
    }
}

impl Model {
    fn new() -> Self {
        Self { past: vec![Keys::new(), Keys::new()], leases: Vec::new(), compacted: -1 }
    }

    fn revision(&self) -> i64 {
        self.past.len() as i64 - 1
    }

    fn now(&self) -> &Keys {
        self.past.last().unwrap()
    }

    fn advance(&mut self, keys: Keys, wrote: bool) {
        if wrote {
            self.past.push(keys);
        }
    }

    fn may_put(&self, put: &PbPutRequest) -> Result<(), Refusal> {
        if put.lease != 0 && !self.leases.contains(&put.lease) {
            return Err(Refusal::LeaseNotFound);
        }
        if (put.ignore_lease || put.ignore_value) && !self.now().contains_key(&put.key) {
            return Err(Refusal::KeyNotFound);
        }
        Ok(())
    }

    fn do_put(&self, keys: &mut Keys, put: &PbPutRequest) -> Option<PbKeyValue> {
        let revision = self.revision() + 1;
        let old = keys.get(&put.key).cloned();
        let new = PbKeyValue {
            key: put.key.clone(),
            create_revision: old.as_ref().map_or(revision, |kv| kv.create_revision),
            mod_revision: revision,
            version: old.as_ref().map_or(0, |kv| kv.version) + 1,
            value: if put.ignore_value { old.as_ref().unwrap().value.clone() } else { put.value.clone() },
            lease: if put.ignore_lease { old.as_ref().unwrap().lease } else { put.lease },
        };
        keys.insert(put.key.clone(), new);
        if put.prev_kv { old } else { None }
    }

    fn do_delete(keys: &mut Keys, delete: &PbDeleteRequest) -> Vec<PbKeyValue> {
        let (gone, kept) =
            std::mem::take(keys).into_iter().partition(|(key, _)| in_range(key, &delete.key, &delete.range_end));
        *keys = kept;
        let gone: Keys = gone;
        gone.into_values().collect()
    }

    fn do_range(keys: &Keys, range: &PbRangeRequest) -> (i64, bool, Vec<PbKeyValue>) {
        let mut found: Vec<_> =
            keys.values().filter(|kv| in_range(&kv.key, &range.key, &range.range_end)).cloned().collect();
        let count = found.len() as i64;
        if range.count_only {
            return (count, false, vec![]);
        }
        found.retain(|kv| range.min_mod_revision == 0 || kv.mod_revision >= range.min_mod_revision);
        found.retain(|kv| range.max_create_revision == 0 || kv.create_revision <= range.max_create_revision);
        let number = |kv: &PbKeyValue| match range.sort_target {
            1 => kv.version,
            2 => kv.create_revision,
            3 => kv.mod_revision,
            _ => 0,
        };
        let by_target = |a: &PbKeyValue, b: &PbKeyValue| match range.sort_target {
            0 => a.key.cmp(&b.key),
            4 => a.value.cmp(&b.value),
            _ => number(a).cmp(&number(b)),
        };
        found.sort_by(|a, b| {
            let order = by_target(a, b);
            if range.sort_order == 2 { order.reverse() } else { order }.then(a.key.cmp(&b.key))
        });
        let more = range.limit > 0 && found.len() as i64 > range.limit;
        if more {
            found.truncate(range.limit as usize);
        }
        if range.keys_only {
            found.iter_mut().for_each(|kv| kv.value = vec![]);
        }
        (count, more, found)
    }

    fn holds(&self, compare: &PbCompare) -> bool {
        let mut found: Vec<_> =
            self.now().values().filter(|kv| in_range(&kv.key, &compare.key, &compare.range_end)).cloned().collect();
        if found.is_empty() {
            if compare.target == 3 {
                return false;
            }
            found.push(PbKeyValue::default());
        }
        found.iter().all(|kv| {
            let order = match compare.target_union.as_ref().unwrap() {
                PbTargetUnion::Version(n) => kv.version.cmp(n),
                PbTargetUnion::CreateRevision(n) => kv.create_revision.cmp(n),
                PbTargetUnion::ModRevision(n) => kv.mod_revision.cmp(n),
                PbTargetUnion::Value(v) => kv.value.cmp(v),
                PbTargetUnion::Lease(n) => kv.lease.cmp(n),
            };
            match compare.result {
                0 => order.is_eq(),
                1 => order.is_gt(),
                2 => order.is_lt(),
                _ => order.is_ne(),
            }
        })
    }

    /// Every list of single operations that the request could run, whatever its compares say.
    fn all_paths(operations: &[PbTxnRequestOp]) -> Vec<Vec<PbTxnOpRequest>> {
        let mut paths = vec![vec![]];
        for operation in operations {
            let tails = match operation.request.clone().unwrap() {
                PbTxnOpRequest::RequestTxn(inner) => {
                    let mut tails = Self::all_paths(&inner.success);
                    tails.extend(Self::all_paths(&inner.failure));
                    tails
                }
                single => vec![vec![single]],
            };
            paths = paths
                .iter()
                .flat_map(|path| tails.iter().map(move |tail| [path.as_slice(), tail.as_slice()].concat()))
                .collect();
        }
        paths
    }

    fn writes_a_key_twice(path: &[PbTxnOpRequest]) -> bool {
        path.iter().enumerate().any(|(i, one)| {
            path.iter().enumerate().any(|(j, other)| match (one, other) {
                (PbTxnOpRequest::RequestPut(one), PbTxnOpRequest::RequestPut(other)) => i != j && one.key == other.key,
                (PbTxnOpRequest::RequestPut(put), PbTxnOpRequest::RequestDeleteRange(delete)) => {
                    in_range(&put.key, &delete.key, &delete.range_end)
                }
                _ => false,
            })
        })
    }

    fn chosen<'a>(&self, txn: &'a PbTxnRequest) -> (bool, &'a [PbTxnRequestOp]) {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        (succeeded, if succeeded { &txn.success } else { &txn.failure })
    }

    fn may_run(&self, txn: &PbTxnRequest) -> Result<(), Refusal> {
        for operation in self.chosen(txn).1 {
            match operation.request.as_ref().unwrap() {
                PbTxnOpRequest::RequestPut(put) => self.may_put(put)?,
                PbTxnOpRequest::RequestTxn(inner) => self.may_run(inner)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Runs a transaction and holds each answer against the real one.
    fn run(&self, keys: &mut Keys, wrote: &mut bool, txn: &PbTxnRequest, real: &PbTxnResponse) {
        let (succeeded, operations) = self.chosen(txn);
        assert_eq!(succeeded, real.succeeded);
        assert_eq!(operations.len(), real.responses.len());
        for (operation, answer) in operations.iter().zip(&real.responses) {
            match (operation.request.as_ref().unwrap(), answer.response.as_ref().unwrap()) {
                (PbTxnOpRequest::RequestPut(put), PbTxnOpResponse::ResponsePut(answer)) => {
                    assert_eq!(self.do_put(keys, put), answer.prev_kv);
                    *wrote = true;
                }
                (PbTxnOpRequest::RequestDeleteRange(delete), PbTxnOpResponse::ResponseDeleteRange(answer)) => {
                    let gone = Self::do_delete(keys, delete);
                    assert_eq!(gone.len() as i64, answer.deleted);
                    *wrote |= !gone.is_empty();
                }
                (PbTxnOpRequest::RequestRange(range), PbTxnOpResponse::ResponseRange(answer)) => {
                    assert_eq!(Self::do_range(keys, range), (answer.count, answer.more, answer.kvs.clone()));
                }
                (PbTxnOpRequest::RequestTxn(inner), PbTxnOpResponse::ResponseTxn(answer)) => {
                    self.run(keys, wrote, inner, answer);
                }
                (request, answer) => panic!("{request:?} was answered by {answer:?}"),
            }
            let revision = match answer.response.as_ref().unwrap() {
                PbTxnOpResponse::ResponsePut(answer) => &answer.header,
                PbTxnOpResponse::ResponseDeleteRange(answer) => &answer.header,
                PbTxnOpResponse::ResponseRange(answer) => &answer.header,
                PbTxnOpResponse::ResponseTxn(_) => continue,
            };
            assert_eq!(revision.unwrap().revision, self.revision() + i64::from(*wrote));
        }
    }
}

/// Does one request to both and compares the answers.
fn step(state: &mut State, model: &mut Model, request: Request) {
    let mut keys = model.now().clone();
    match request {
        Request::Put(put) => match state.put(put.clone()) {
            Err(refusal) => assert_eq!(model.may_put(&put), Err(refusal)),
            Ok(answer) => {
                model.may_put(&put).unwrap();
                assert_eq!(model.do_put(&mut keys, &put), answer.prev_kv);
                model.advance(keys, true);
            }
        },
        Request::Delete(delete) => {
            let answer = state.delete(&delete).unwrap();
            let gone = Model::do_delete(&mut keys, &delete);
            assert_eq!(answer.deleted, gone.len() as i64);
            assert_eq!(answer.prev_kvs, if delete.prev_kv { gone.clone() } else { vec![] });
            model.advance(keys, !gone.is_empty());
        }
        Request::Txn(txn) => {
            let mut paths = Model::all_paths(&txn.success);
            paths.extend(Model::all_paths(&txn.failure));
            let twice = paths.iter().any(|path| Model::writes_a_key_twice(path));
            match state.txn(txn.clone()) {
                Err(Refusal::DuplicateKey) => assert!(twice),
                Err(refusal) => assert_eq!((twice, model.may_run(&txn)), (false, Err(refusal))),
                Ok(answer) => {
                    assert!(!twice);
                    model.may_run(&txn).unwrap();
                    let mut wrote = false;
                    model.run(&mut keys, &mut wrote, &txn, &answer);
                    model.advance(keys, wrote);
                    assert_eq!(answer.header.unwrap().revision, model.revision());
                }
            }
        }
        Request::Grant(id) => {
            let granted = state.grant(&PbLeaseGrantRequest { id, ttl: 60 }, Instant::now(), || unreachable!());
            assert_eq!(granted.is_ok(), !model.leases.contains(&id));
            if granted.is_ok() {
                model.leases.push(id);
            }
        }
        Request::Revoke(id) => {
            let revoked = state.revoke(id);
            assert_eq!(revoked.is_ok(), model.leases.contains(&id));
            if revoked.is_ok() {
                model.leases.retain(|lease| *lease != id);
                let before = keys.len();
                keys.retain(|_, kv| kv.lease != id);
                let wrote = keys.len() != before;
                model.advance(keys, wrote);
            }
        }
        Request::Compact(back) => {
            let revision = model.revision() - back;
            let done = state.compact(&PbCompactionRequest { revision, physical: false });
            assert_eq!(done.is_ok(), revision > model.compacted && revision <= model.revision());
            if done.is_ok() {
                model.compacted = revision;
            }
        }
        Request::Range(range, back) => look(state, model, range, back),
    }
}

/// Reads from both, most often in the past.
fn look(state: &State, model: &Model, mut range: PbRangeRequest, back: i64) {
    // Distance 0 asks for the present by its number, 1 for the one before it; 7 does not ask.
    range.revision = if back == 7 { 0 } else { (model.revision() - back).max(1) };
    match state.range(&range) {
        Err(Refusal::FutureRevision) => assert!(range.revision > model.revision()),
        Err(refusal) => assert_eq!((refusal, range.revision < model.compacted), (Refusal::Compacted, true)),
        Ok(answer) => {
            let keys = match range.revision {
                0 => model.now(),
                revision => &model.past[revision as usize],
            };
            assert_eq!(Model::do_range(keys, &range), (answer.count, answer.more, answer.kvs));
        }
    }
}

/// Holds the events of the revisions after `before` against what changed between the model's copies.
fn check_events(state: &State, model: &Model, before: i64) {
    let revisions: Vec<_> = state.history().since(before + 1).collect();
    assert_eq!(revisions.len() as i64, model.revision() - before, "one record per revision");
    for revision in revisions {
        let (old, new) = (&model.past[revision.number as usize - 1], &model.past[revision.number as usize]);
        let mut expected: Vec<_> = new
            .values()
            .filter(|kv| kv.mod_revision == revision.number)
            .map(|kv| (0, kv.clone(), old.get(&kv.key).cloned()))
            .collect();
        for kv in old.values().filter(|kv| !new.contains_key(&kv.key)) {
            let grave = PbKeyValue { key: kv.key.clone(), mod_revision: revision.number, ..PbKeyValue::default() };
            expected.push((1, grave, Some(kv.clone())));
        }
        let mut seen: Vec<_> = revision
            .events
            .iter()
            .map(|event| event.to_message(true))
            .map(|event| (event.r#type, event.kv.unwrap(), event.prev_kv))
            .collect();
        expected.sort_by(|a, b| a.1.key.cmp(&b.1.key));
        seen.sort_by(|a, b| a.1.key.cmp(&b.1.key));
        assert_eq!(seen, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_the_model_does(requests in vec(request(), 1..60)) {
        let (mut state, mut model) = (empty(), Model::new());
        let (mut disk_keys, mut disk_leases) = (Keys::new(), BTreeMap::new());
        for request in requests {
            let before = model.revision();
            step(&mut state, &mut model, request);
            prop_assert_eq!(state.revision(), model.revision());
            check_events(&state, &model, before);
            if let Some(changes) = state.take_changes() {
                prop_assert_eq!(changes.revision, model.revision());
                for (key, kv) in changes.keys {
                    match kv {
                        Some(kv) => disk_keys.insert(key, (*kv).clone()),
                        None => disk_keys.remove(&key),
                    };
                }
                for (id, ttl) in changes.leases {
                    match ttl {
                        Some(ttl) => disk_leases.insert(id, ttl),
                        None => disk_leases.remove(&id),
                    };
                }
            }
            prop_assert_eq!(&disk_keys, model.now());
            for id in 1..3 {
                let ask = PbLeaseTimeToLiveRequest { id, keys: true };
                let attached: Vec<_> =
                    model.now().values().filter(|kv| kv.lease == id).map(|kv| kv.key.clone()).collect();
                prop_assert_eq!(state.time_to_live(&ask, Instant::now()).keys, attached);
            }
        }
        let contents = Contents {
            identity: Identity::default(),
            revision: model.revision(),
            keys: disk_keys.into_values().collect(),
            leases: disk_leases.into_iter().collect(),
        };
        let restored = State::restore(contents, Instant::now()).unwrap();
        prop_assert_eq!(restored.bytes(), state.bytes());
    }
}
