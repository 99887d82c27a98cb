//! Reading keys, at present or as of an older revision.

use std::collections::BTreeMap;
use std::sync::Arc;

use etcd_client::proto::{PbKeyValue, PbRangeRequest, PbRangeResponse};

use super::super::refusal::Refusal;
use super::key_range::KeyRange;
use super::{State, check};

// The numbers of the protocol's enums, whose types are not public.
const DESCENDING: i32 = 2;
const BY_KEY: i32 = 0;
const BY_VERSION: i32 = 1;
const BY_CREATE_REVISION: i32 = 2;
const BY_MOD_REVISION: i32 = 3;

impl State {
    /// Reads keys.
    pub(in super::super) fn range(&self, request: &PbRangeRequest) -> Result<PbRangeResponse, Refusal> {
        check::range(request)?;
        self.can_read(request)?;
        Ok(PbRangeResponse { header: Some(self.header()), ..self.read(request) })
    }

    /// Whether the revision asked for is one we can still, or already, show.
    pub(super) fn can_read(&self, request: &PbRangeRequest) -> Result<(), Refusal> {
        if request.revision > self.revision {
            return Err(Refusal::FutureRevision);
        }
        if request.revision > 0 && request.revision < self.history.compacted() {
            return Err(Refusal::Compacted);
        }
        Ok(())
    }

    /// Carries out a checked read; the answer has no header. Within a transaction it sees what was just written.
    pub(super) fn read(&self, request: &PbRangeRequest) -> PbRangeResponse {
        let range = KeyRange::new(&request.key, &request.range_end);
        let mut found = if request.revision > 0 && request.revision <= self.revision {
            self.keys_at(request.revision, &range)
        } else {
            self.keys_in(&range).cloned().collect()
        };
        let mut response = PbRangeResponse { count: length(&found), ..PbRangeResponse::default() };
        if request.count_only {
            return response;
        }
        found.retain(|kv| is_wanted(request, kv));
        sort(request, &mut found);
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        response.more = found.len() > limit;
        response.kvs = found.iter().take(limit).map(|kv| PbKeyValue::clone(kv)).collect();
        if request.keys_only {
            response.kvs.iter_mut().for_each(|kv| kv.value.clear());
        }
        response
    }

    /// The keys in `range` as they are now.
    pub(super) fn keys_in(&self, range: &KeyRange) -> impl Iterator<Item = &Arc<PbKeyValue>> {
        range.bounds().into_iter().flat_map(|bounds| self.keys.range::<[u8], _>(bounds)).map(|(_, kv)| kv)
    }

    /// The keys in `range` as they were: today's, with everything since undone, newest first.
    fn keys_at(&self, revision: i64, range: &KeyRange) -> Vec<Arc<PbKeyValue>> {
        let mut keys: BTreeMap<&[u8], &Arc<PbKeyValue>> =
            self.keys_in(range).map(|kv| (kv.key.as_slice(), kv)).collect();
        let unsealed = self.open.iter().rev().filter(|event| range.contains(&event.kv.key));
        for event in unsealed.chain(self.history.undo(revision, range)) {
            match &event.previous {
                Some(previous) => keys.insert(&previous.key, previous),
                None => keys.remove(event.kv.key.as_slice()),
            };
        }
        keys.into_values().cloned().collect()
    }
}

fn length(found: &[Arc<PbKeyValue>]) -> i64 {
    i64::try_from(found.len()).unwrap_or(i64::MAX)
}

/// The bounds on revisions; 0 is no bound.
fn is_wanted(request: &PbRangeRequest, kv: &PbKeyValue) -> bool {
    let within = |value: i64, min: i64, max: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
    within(kv.mod_revision, request.min_mod_revision, request.max_mod_revision)
        && within(kv.create_revision, request.min_create_revision, request.max_create_revision)
}

/// Orders what comes in the order of its keys. Another target than the key without a direction means ascending. Equals
/// stay in the order of their keys in both directions, as they do in etcd.
fn sort(request: &PbRangeRequest, found: &mut [Arc<PbKeyValue>]) {
    let compare = |a: &PbKeyValue, b: &PbKeyValue| match request.sort_target {
        BY_KEY => a.key.cmp(&b.key),
        BY_VERSION => a.version.cmp(&b.version),
        BY_CREATE_REVISION => a.create_revision.cmp(&b.create_revision),
        BY_MOD_REVISION => a.mod_revision.cmp(&b.mod_revision),
        _ => a.value.cmp(&b.value),
    };
    match request.sort_order {
        DESCENDING => found.sort_by(|a, b| compare(b, a)),
        _ => found.sort_by(|a, b| compare(a, b)),
    }
}
