//! What the store holds, and what requests do to it. Pure and synchronous: time and chance are handed in, nothing here
//! touches disk or network.
//!
//! A request is first checked whole, then carried out whole: nothing can fail halfway, so nothing is ever rolled
//! back. What was changed is noted down for [`State::take_changes`], because memory runs ahead of the disk until the
//! owner has committed that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use etcd_client::proto::{
    PbCompactionRequest, PbCompactionResponse, PbDeleteRequest, PbDeleteResponse, PbKeyValue, PbLeaseGrantRequest,
    PbLeaseGrantResponse, PbLeaseLeasesResponse, PbLeaseRevokeResponse, PbLeaseStatus, PbLeaseTimeToLiveRequest,
    PbLeaseTimeToLiveResponse, PbPutRequest, PbPutResponse, PbResponseHeader,
};
use tokio::time::Instant;

use super::refusal::Refusal;
use history::History;
use key_range::KeyRange;
use lease::Leases;

mod check;
pub(super) mod history;
pub(super) mod key_range;
mod lease;
mod range;
#[cfg(test)]
mod tests;
mod txn;

pub(super) use history::Event;

/// Bytes of all keys, values and leases together; a cluster's documents need a few hundred thousandths of it.
const MAX_BYTES: usize = 256 << 20;
/// What a key or a lease costs beside its content.
const ENTRY_BYTES: usize = 128;

/// Who answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    /// Drawn when the directory was made.
    pub(super) cluster_id: u64,
    /// Drawn when the directory was made.
    pub(super) member_id: u64,
    /// Counts starts, as etcd counts elections.
    pub(super) term: u64,
}

/// Everything that survives a restart.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Contents {
    pub(super) identity: Identity,
    pub(super) revision: i64,
    pub(super) keys: Vec<PbKeyValue>,
    /// Ids with their granted lives in seconds.
    pub(super) leases: Vec<(i64, i64)>,
}

/// What must reach the disk before the answers go out. `None` means gone.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Changes {
    pub(super) revision: i64,
    pub(super) keys: Vec<(Vec<u8>, Option<Arc<PbKeyValue>>)>,
    pub(super) leases: Vec<(i64, Option<i64>)>,
}

/// The store in memory.
#[derive(Debug)]
pub(super) struct State {
    identity: Identity,
    revision: i64,
    keys: BTreeMap<Vec<u8>, Arc<PbKeyValue>>,
    bytes: usize,
    leases: Leases,
    history: History,
    /// Changes of the revision that is being made; empty between requests.
    open: Vec<Event>,
    dirty_keys: BTreeSet<Vec<u8>>,
    dirty_leases: BTreeSet<i64>,
}

impl State {
    /// Takes up what the disk kept. Every lease starts its life anew. The error says what cannot be.
    pub(super) fn restore(contents: Contents, now: Instant) -> Result<Self, String> {
        let Contents { identity, revision, keys, leases } = contents;
        let mut state = Self {
            identity,
            revision,
            keys: BTreeMap::new(),
            bytes: 0,
            leases: Leases::default(),
            history: History::starting_at(revision),
            open: Vec::new(),
            dirty_keys: BTreeSet::new(),
            dirty_leases: BTreeSet::new(),
        };
        for (id, ttl_seconds) in leases {
            let granted = state.leases.grant(id, ttl_seconds, now);
            if id == 0 || granted != Ok(ttl_seconds) {
                return Err(format!("lease {id:016x} has the impossible life of {ttl_seconds} seconds"));
            }
            state.bytes += ENTRY_BYTES;
        }
        for kv in keys {
            let ordered = 0 < kv.create_revision
                && kv.create_revision <= kv.mod_revision
                && kv.mod_revision <= revision
                && kv.version >= 1;
            if kv.key.is_empty() || !ordered || (kv.lease != 0 && !state.leases.contains(kv.lease)) {
                return Err(format!("key {:?} contradicts the rest", String::from_utf8_lossy(&kv.key)));
            }
            state.leases.move_key(&kv.key, 0, kv.lease);
            state.bytes += weight(&kv);
            state.keys.insert(kv.key.clone(), Arc::new(kv));
        }
        Ok(state)
    }

    /// The current revision.
    pub(super) fn revision(&self) -> i64 {
        self.revision
    }

    /// Bytes of all keys, values and leases.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many keys there are.
    pub(super) fn key_count(&self) -> usize {
        self.keys.len()
    }

    /// How many leases there are.
    pub(super) fn lease_count(&self) -> usize {
        self.leases.len()
    }

    /// The recent past.
    pub(super) fn history(&self) -> &History {
        &self.history
    }

    /// Forgets what exceeds the history's limits; for after the watchers were served.
    pub(super) fn trim_history(&mut self) {
        self.history.trim();
    }

    /// What stands on top of every answer.
    pub(super) fn header(&self) -> PbResponseHeader {
        let Identity { cluster_id, member_id, term } = self.identity;
        PbResponseHeader { cluster_id, member_id, revision: self.revision, raft_term: term }
    }

    /// Sets one key.
    pub(super) fn put(&mut self, request: PbPutRequest) -> Result<PbPutResponse, Refusal> {
        check::put(&request)?;
        self.can_put(&request)?;
        self.has_room(weight_of_put(&request))?;
        let response = self.write_key(request);
        self.seal();
        Ok(PbPutResponse { header: Some(self.header()), ..response })
    }

    /// Deletes keys.
    pub(super) fn delete(&mut self, request: &PbDeleteRequest) -> Result<PbDeleteResponse, Refusal> {
        check::delete(request)?;
        let response = self.delete_keys(request);
        self.seal();
        Ok(PbDeleteResponse { header: Some(self.header()), ..response })
    }

    /// Forgets the past before a revision.
    pub(super) fn compact(&mut self, request: &PbCompactionRequest) -> Result<PbCompactionResponse, Refusal> {
        if request.revision <= self.history.compacted() {
            return Err(Refusal::Compacted);
        }
        if request.revision > self.revision {
            return Err(Refusal::FutureRevision);
        }
        self.history.compact(request.revision);
        Ok(PbCompactionResponse { header: Some(self.header()) })
    }

    /// Grants a lease. `draw` gives random ids for a request that leaves the choice to us.
    pub(super) fn grant(
        &mut self,
        request: &PbLeaseGrantRequest,
        now: Instant,
        mut draw: impl FnMut() -> i64,
    ) -> Result<PbLeaseGrantResponse, Refusal> {
        self.has_room(ENTRY_BYTES)?;
        let mut id = request.id;
        while id == 0 || (request.id == 0 && self.leases.contains(id)) {
            id = draw();
        }
        let ttl = self.leases.grant(id, request.ttl, now)?;
        self.bytes += ENTRY_BYTES;
        self.dirty_leases.insert(id);
        Ok(PbLeaseGrantResponse { header: Some(self.header()), id, ttl, error: String::new() })
    }

    /// Ends a lease and its keys.
    pub(super) fn revoke(&mut self, id: i64) -> Result<PbLeaseRevokeResponse, Refusal> {
        let lease = self.leases.remove(id).ok_or(Refusal::LeaseNotFound)?;
        self.bytes -= ENTRY_BYTES;
        self.dirty_leases.insert(id);
        for key in &lease.keys {
            self.delete_key(key);
        }
        self.seal();
        Ok(PbLeaseRevokeResponse { header: Some(self.header()) })
    }

    /// Starts a lease's life anew and gives its length, 0 if there is no such lease: etcd's streams say it so.
    pub(super) fn keep_alive(&mut self, id: i64, now: Instant) -> i64 {
        self.leases.renew(id, now).unwrap_or(0)
    }

    /// What is left of a lease; -1 seconds if there is no such lease.
    pub(super) fn time_to_live(&self, request: &PbLeaseTimeToLiveRequest, now: Instant) -> PbLeaseTimeToLiveResponse {
        let header = Some(self.header());
        let Some(lease) = self.leases.get(request.id) else {
            return PbLeaseTimeToLiveResponse { header, id: request.id, ttl: -1, granted_ttl: 0, keys: Vec::new() };
        };
        PbLeaseTimeToLiveResponse {
            header,
            id: request.id,
            ttl: lease.remaining_seconds(now),
            granted_ttl: lease.ttl_seconds,
            keys: if request.keys { lease.keys.iter().cloned().collect() } else { Vec::new() },
        }
    }

    /// All leases.
    pub(super) fn leases(&self) -> PbLeaseLeasesResponse {
        let leases = self.leases.by_deadline().into_iter().map(|id| PbLeaseStatus { id }).collect();
        PbLeaseLeasesResponse { header: Some(self.header()), leases }
    }

    /// When the next lease ends.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.leases.next_deadline()
    }

    /// Ends the leases whose time has come, each with its keys in one revision. Gives their ids.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<i64> {
        let expired = self.leases.expired(now);
        for id in &expired {
            let revoked = self.revoke(*id);
            debug_assert!(revoked.is_ok(), "an expired lease is still there");
        }
        expired
    }

    /// What must be made durable since the last call; `None` if nothing.
    pub(super) fn take_changes(&mut self) -> Option<Changes> {
        debug_assert!(self.open.is_empty(), "requests are carried out whole");
        if self.dirty_keys.is_empty() && self.dirty_leases.is_empty() {
            return None;
        }
        let keys = std::mem::take(&mut self.dirty_keys);
        let leases = std::mem::take(&mut self.dirty_leases);
        Some(Changes {
            revision: self.revision,
            keys: keys.into_iter().map(|key| (key.clone(), self.keys.get(&key).cloned())).collect(),
            leases: leases.into_iter().map(|id| (id, self.leases.get(id).map(|lease| lease.ttl_seconds))).collect(),
        })
    }

    /// The revision that writes get now.
    fn next_revision(&self) -> i64 {
        self.revision + 1
    }

    fn has_room(&self, more: usize) -> Result<(), Refusal> {
        if self.bytes.saturating_add(more) > MAX_BYTES { Err(Refusal::NoSpace) } else { Ok(()) }
    }

    fn can_put(&self, request: &PbPutRequest) -> Result<(), Refusal> {
        if request.lease != 0 && !self.leases.contains(request.lease) {
            return Err(Refusal::LeaseNotFound);
        }
        if (request.ignore_value || request.ignore_lease) && !self.keys.contains_key(&request.key) {
            return Err(Refusal::KeyNotFound);
        }
        Ok(())
    }

    /// Carries out a checked put within the open revision; the answer has no header.
    fn write_key(&mut self, request: PbPutRequest) -> PbPutResponse {
        let revision = self.next_revision();
        let previous = self.keys.get(&request.key).cloned();
        let mut kv = PbKeyValue {
            key: request.key,
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            value: request.value,
            lease: request.lease,
        };
        if let Some(old) = &previous {
            kv.create_revision = old.create_revision;
            kv.version = old.version + 1;
            if request.ignore_value {
                kv.value.clone_from(&old.value);
            }
            if request.ignore_lease {
                kv.lease = old.lease;
            }
            self.bytes -= weight(old);
        }
        self.bytes += weight(&kv);
        self.leases.move_key(&kv.key, previous.as_ref().map_or(0, |old| old.lease), kv.lease);
        let kv = Arc::new(kv);
        self.keys.insert(kv.key.clone(), kv.clone());
        self.dirty_keys.insert(kv.key.clone());
        let prev_kv = previous.as_deref().filter(|_| request.prev_kv).cloned();
        self.open.push(Event { kv, previous, is_delete: false });
        PbPutResponse { header: None, prev_kv }
    }

    /// Carries out a checked deletion within the open revision; the answer has no header.
    fn delete_keys(&mut self, request: &PbDeleteRequest) -> PbDeleteResponse {
        let range = KeyRange::new(&request.key, &request.range_end);
        let doomed: Vec<Vec<u8>> = match range.bounds() {
            Some(bounds) => self.keys.range::<[u8], _>(bounds).map(|(key, _)| key.clone()).collect(),
            None => Vec::new(),
        };
        let mut response = PbDeleteResponse::default();
        for key in &doomed {
            let Some(previous) = self.delete_key(key) else { continue };
            response.deleted += 1;
            if request.prev_kv {
                response.prev_kvs.push(PbKeyValue::clone(&previous));
            }
        }
        response
    }

    fn delete_key(&mut self, key: &[u8]) -> Option<Arc<PbKeyValue>> {
        let previous = self.keys.remove(key)?;
        self.bytes -= weight(&previous);
        self.leases.move_key(key, previous.lease, 0);
        self.dirty_keys.insert(key.to_vec());
        let grave = PbKeyValue { key: key.to_vec(), mod_revision: self.next_revision(), ..PbKeyValue::default() };
        self.open.push(Event { kv: Arc::new(grave), previous: Some(previous.clone()), is_delete: true });
        Some(previous)
    }

    /// Closes the open revision, if anything was written.
    fn seal(&mut self) {
        if self.open.is_empty() {
            return;
        }
        self.revision += 1;
        self.history.push(self.revision, std::mem::take(&mut self.open));
    }
}

fn weight(kv: &PbKeyValue) -> usize {
    kv.key.len() + kv.value.len() + ENTRY_BYTES
}

fn weight_of_put(request: &PbPutRequest) -> usize {
    request.key.len() + request.value.len() + ENTRY_BYTES
}
