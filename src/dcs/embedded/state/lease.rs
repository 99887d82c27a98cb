//! Leases: keys that vanish unless somebody keeps them alive.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::super::refusal::Refusal;

/// Shortest life in seconds; etcd raises shorter ones to the same value at its default election timeout.
pub(crate) const MIN_TTL_SECONDS: i64 = 2;
/// Longest life in seconds, as in etcd.
pub(crate) const MAX_TTL_SECONDS: i64 = 9_000_000_000;

/// One lease.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    /// Life after each renewal, in seconds.
    pub(crate) ttl_seconds: i64,
    /// When it ends unless renewed.
    pub(crate) deadline: Instant,
    /// The keys that end with it.
    pub(crate) keys: BTreeSet<Vec<u8>>,
}

impl Lease {
    fn new(ttl_seconds: i64, now: Instant) -> Self {
        Self { ttl_seconds, deadline: deadline(ttl_seconds, now), keys: BTreeSet::new() }
    }

    /// Whole seconds left.
    pub(crate) fn remaining_seconds(&self, now: Instant) -> i64 {
        i64::try_from(self.deadline.saturating_duration_since(now).as_secs()).unwrap_or(i64::MAX)
    }
}

fn deadline(ttl_seconds: i64, now: Instant) -> Instant {
    // The longest life, 285 years, fits into a monotonic clock; the fallback only spares us a panic.
    now.checked_add(Duration::from_secs(ttl_seconds.unsigned_abs())).unwrap_or(now)
}

/// All leases by their id.
#[derive(Debug, Default)]
pub(crate) struct Leases(BTreeMap<i64, Lease>);

impl Leases {
    /// Adds a lease; its life is raised to the minimum. Gives the life granted.
    pub(crate) fn grant(&mut self, id: i64, ttl_seconds: i64, now: Instant) -> Result<i64, Refusal> {
        if ttl_seconds > MAX_TTL_SECONDS {
            return Err(Refusal::LeaseTtlTooLarge);
        }
        if self.0.contains_key(&id) {
            return Err(Refusal::LeaseExists);
        }
        let granted = ttl_seconds.max(MIN_TTL_SECONDS);
        self.0.insert(id, Lease::new(granted, now));
        Ok(granted)
    }

    /// Starts the life anew. Gives its length.
    pub(crate) fn renew(&mut self, id: i64, now: Instant) -> Option<i64> {
        let lease = self.0.get_mut(&id)?;
        lease.deadline = deadline(lease.ttl_seconds, now);
        Some(lease.ttl_seconds)
    }

    pub(crate) fn get(&self, id: i64) -> Option<&Lease> {
        self.0.get(&id)
    }

    pub(crate) fn contains(&self, id: i64) -> bool {
        self.0.contains_key(&id)
    }

    pub(crate) fn remove(&mut self, id: i64) -> Option<Lease> {
        self.0.remove(&id)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Moves a key from one lease to another; 0 is none.
    pub(crate) fn move_key(&mut self, key: &[u8], from: i64, to: i64) {
        if from == to {
            return;
        }
        if let Some(lease) = self.0.get_mut(&from) {
            lease.keys.remove(key);
        }
        if let Some(lease) = self.0.get_mut(&to) {
            lease.keys.insert(key.to_vec());
        }
    }

    /// When the first of them ends.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.0.values().map(|lease| lease.deadline).min()
    }

    /// Those that have ended.
    pub(crate) fn expired(&self, now: Instant) -> Vec<i64> {
        self.0.iter().filter(|(_, lease)| lease.deadline <= now).map(|(id, _)| *id).collect()
    }

    /// All ids, the one that ends first in front.
    pub(crate) fn by_deadline(&self) -> Vec<i64> {
        let mut all: Vec<_> = self.0.iter().map(|(id, lease)| (lease.deadline, *id)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, id)| id).collect()
    }
}
