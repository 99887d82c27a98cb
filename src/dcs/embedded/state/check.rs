//! What can be refused by looking at a request alone.

use std::collections::BTreeSet;

use etcd_client::proto::{
    PbCompare, PbDeleteRequest, PbPutRequest, PbRangeRequest, PbTxnOpRequest, PbTxnRequest, PbTxnRequestOp,
};

use super::super::refusal::Refusal;
use super::key_range::KeyRange;

/// Most compares, and most operations per branch, nested ones included; etcd's default.
const MAX_TXN_OPERATIONS: usize = 128;
const SORT_ORDERS: std::ops::RangeInclusive<i32> = 0..=2;
const SORT_TARGETS: std::ops::RangeInclusive<i32> = 0..=4;

pub(super) fn range(request: &PbRangeRequest) -> Result<(), Refusal> {
    has_key(&request.key)?;
    if !SORT_ORDERS.contains(&request.sort_order) || !SORT_TARGETS.contains(&request.sort_target) {
        return Err(Refusal::SortOption);
    }
    Ok(())
}

pub(super) fn put(request: &PbPutRequest) -> Result<(), Refusal> {
    has_key(&request.key)?;
    if request.ignore_value && !request.value.is_empty() {
        return Err(Refusal::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Refusal::LeaseProvided);
    }
    Ok(())
}

pub(super) fn delete(request: &PbDeleteRequest) -> Result<(), Refusal> {
    has_key(&request.key)
}

pub(super) fn txn(request: &PbTxnRequest) -> Result<(), Refusal> {
    shape(request, MAX_TXN_OPERATIONS)?;
    Footprint::of(&request.success)?;
    Footprint::of(&request.failure)?;
    Ok(())
}

fn has_key(key: &[u8]) -> Result<(), Refusal> {
    if key.is_empty() { Err(Refusal::EmptyKey) } else { Ok(()) }
}

fn shape(request: &PbTxnRequest, budget: usize) -> Result<(), Refusal> {
    let used = request.compare.len().max(request.success.len()).max(request.failure.len());
    let left = budget.checked_sub(used).ok_or(Refusal::TooManyOperations)?;
    for PbCompare { key, .. } in &request.compare {
        has_key(key)?;
    }
    for operation in request.success.iter().chain(&request.failure) {
        match &operation.request {
            Some(PbTxnOpRequest::RequestRange(inner)) => range(inner)?,
            Some(PbTxnOpRequest::RequestPut(inner)) => put(inner)?,
            Some(PbTxnOpRequest::RequestDeleteRange(inner)) => delete(inner)?,
            // The operation that holds it was counted, so the recursion ends.
            Some(PbTxnOpRequest::RequestTxn(inner)) => shape(inner, left)?,
            None => return Err(Refusal::KeyNotFound),
        }
    }
    Ok(())
}

/// What operations that run together write. One transaction is one revision, and at one revision a key has one
/// value: it may not be put twice, nor put and deleted. (etcd overlooks one case: a key put by one nested transaction
/// and deleted by the next.)
#[derive(Default)]
struct Footprint<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Vec<KeyRange>,
}

impl<'a> Footprint<'a> {
    fn of(operations: &'a [PbTxnRequestOp]) -> Result<Self, Refusal> {
        let mut all = Self::default();
        for operation in operations {
            match &operation.request {
                Some(PbTxnOpRequest::RequestPut(put)) => {
                    all.join(Self { puts: BTreeSet::from([put.key.as_slice()]), deletes: Vec::new() })?;
                }
                Some(PbTxnOpRequest::RequestDeleteRange(delete)) => {
                    let range = KeyRange::new(&delete.key, &delete.range_end);
                    all.join(Self { puts: BTreeSet::new(), deletes: vec![range] })?;
                }
                Some(PbTxnOpRequest::RequestTxn(inner)) => {
                    // Only one branch runs, so the two may meet each other, but neither may meet its surroundings.
                    let mut either = Self::of(&inner.success)?;
                    let other = Self::of(&inner.failure)?;
                    either.puts.extend(other.puts);
                    either.deletes.extend(other.deletes);
                    all.join(either)?;
                }
                Some(PbTxnOpRequest::RequestRange(_)) | None => {}
            }
        }
        Ok(all)
    }

    fn join(&mut self, other: Self) -> Result<(), Refusal> {
        let deleted = |ranges: &[KeyRange], puts: &BTreeSet<&[u8]>| {
            puts.iter().any(|key| ranges.iter().any(|range| range.contains(key)))
        };
        let twice = other.puts.iter().any(|key| self.puts.contains(key));
        if twice || deleted(&self.deletes, &other.puts) || deleted(&other.deletes, &self.puts) {
            return Err(Refusal::DuplicateKey);
        }
        self.puts.extend(other.puts);
        self.deletes.extend(other.deletes);
        Ok(())
    }
}
