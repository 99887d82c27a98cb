//! Key names and documents: what a cluster looks like in a key-value store.
//!
//! Pure: keys in, a view out, and back. Every backend that has keys uses this, so that two kinds of agents on the
//! same cluster can never disagree on a spelling. Reading forgives what members of any age have written; writing
//! keeps to the one form that Patroni members write.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::cluster::{ClusterView, LeaderKey, Member, MemberName, Session, Version};

pub mod read;
pub mod write;

#[cfg(test)]
mod tests;

/// One key with what the store knows of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyValue {
    /// The whole key.
    pub key: String,
    /// The value's bytes.
    pub value: Vec<u8>,
    /// Revision of the last change.
    pub mod_revision: i64,
    /// The lease it hangs on; 0 is none.
    pub lease: i64,
}

impl KeyValue {
    /// A key for tests and models.
    pub fn new(key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), value: value.into(), mod_revision: 1, lease: 0 }
    }

    /// The value as text, broken UTF-8 replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.value).into_owned()
    }

    fn version(&self) -> Version {
        Version(self.mod_revision)
    }

    fn session(&self) -> Option<Session> {
        (self.lease != 0).then(|| session(self.lease))
    }
}

/// How a lease id stands in a [`Session`].
pub fn session(lease: i64) -> Session {
    Session(lease.to_string())
}

/// Where one cluster's keys are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Layout {
    scope_prefix: String,
    group: Option<u32>,
}

impl Layout {
    /// The keys of `scope` in `namespace`. A Citus group has a level of its own below the scope.
    pub fn new(namespace: &str, scope: &str, group: Option<u32>) -> Self {
        let path = [namespace, scope].join("/");
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        Self { scope_prefix: format!("/{}/", parts.join("/")), group }
    }

    /// What every own key starts with; ends in a slash.
    pub fn prefix(&self) -> String {
        match self.group {
            Some(group) => format!("{}{group}/", self.scope_prefix),
            None => self.scope_prefix.clone(),
        }
    }

    /// What a snapshot reads: the own keys; for a Citus coordinator those of the workers as well.
    pub fn read_prefix(&self) -> String {
        if self.is_coordinator() { self.scope_prefix.clone() } else { self.prefix() }
    }

    /// The first parts of keys below the prefix, each once and sorted.
    pub fn names<'a>(&self, keys: impl Iterator<Item = &'a str>) -> Vec<String> {
        let prefix = self.prefix();
        let first = |key: &'a str| key.strip_prefix(&prefix)?.split_once('/').map(|(first, _)| first);
        let names: std::collections::BTreeSet<&str> = keys.filter_map(first).collect();
        names.into_iter().filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    /// The views of all clusters whose keys, in their order, stand below the prefix of a layout without a scope: by
    /// name, each as a layout with this Citus group would see it.
    pub fn views(&self, keys: &[KeyValue], group: Option<u32>) -> BTreeMap<String, ClusterView> {
        let prefix = self.prefix();
        let name = |kv: &KeyValue| Some(kv.key.strip_prefix(&prefix)?.split_once('/')?.0.to_owned());
        let of_one = |keys: &[KeyValue]| {
            let name = keys.first().and_then(name).filter(|name| !name.is_empty())?;
            let layout = Self { scope_prefix: format!("{prefix}{name}/"), group };
            Some((name, layout.view(keys)))
        };
        keys.chunk_by(|one, next| name(one) == name(next)).filter_map(of_one).collect()
    }

    /// Whether the other groups of a Citus cluster are part of the view.
    pub fn is_coordinator(&self) -> bool {
        self.group == Some(0)
    }

    /// The whole name of an own key: `leader`, `config`, ….
    pub fn key(&self, relative: &str) -> String {
        format!("{}{relative}", self.prefix())
    }

    /// The key of a member.
    pub fn member(&self, name: &str) -> String {
        format!("{}members/{name}", self.prefix())
    }

    /// The view that these keys, read at [`Layout::read_prefix`], make.
    pub fn view(&self, keys: &[KeyValue]) -> ClusterView {
        if self.is_coordinator() {
            coordinator_view_from_keys(&self.scope_prefix, keys)
        } else {
            view_from_keys(&self.prefix(), keys)
        }
    }
}

/// The end of the range of keys that start with `prefix`: the prefix with its last byte raised by one. Bytes that
/// cannot be raised are dropped; nothing left means "to the end of the store", spelt as one zero byte.
pub fn range_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

/// The view of the cluster whose keys are below `prefix` (which ends in a slash). Keys elsewhere and keys that no
/// rule names are ignored.
pub fn view_from_keys(prefix: &str, keys: &[KeyValue]) -> ClusterView {
    let mut view = ClusterView::default();
    let (mut status, mut optime) = (None, None);
    for kv in keys {
        let Some(relative) = kv.key.strip_prefix(prefix) else { continue };
        let value = kv.value.as_slice();
        match relative {
            "initialize" => view.initialize = Some(kv.text()),
            "config" => view.config = Some(read::config(value, kv.version())),
            "leader" => view.leader = Some(leader(kv)),
            "status" => status = Some(read::status(value)),
            "optime/leader" => optime = Some(read::legacy_optime(value)),
            "failover" => view.failover = Some(read::failover(value, kv.version())),
            "sync" => view.sync = read::sync(value, kv.version()),
            "history" => view.history = Some(read::history(value)),
            "failsafe" => view.failsafe = read::failsafe(value),
            other => view.members.extend(member(other, kv)),
        }
    }
    view.status = status.or(optime).unwrap_or_default();
    view.members.sort_by(|a, b| a.name.cmp(&b.name));
    view
}

/// The view of a Citus cluster whose groups are below `scope_prefix`: group 0, with the others as its workers. Path
/// components that are not a plain decimal number are no group.
pub fn coordinator_view_from_keys(scope_prefix: &str, keys: &[KeyValue]) -> ClusterView {
    let group_of = |kv: &KeyValue| group_number(kv.key.strip_prefix(scope_prefix)?.split_once('/')?.0);
    let mut groups: Vec<u32> = keys.iter().filter_map(group_of).collect();
    groups.sort_unstable();
    groups.dedup();
    let view = |group: u32| view_from_keys(&format!("{scope_prefix}{group}/"), keys);
    let workers = groups.into_iter().filter(|group| *group != 0).map(|group| (group, view(group))).collect();
    ClusterView { workers, ..view(0) }
}

fn group_number(text: &str) -> Option<u32> {
    let is_plain = text == "0" || (!text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()));
    is_plain.then(|| text.parse().ok()).flatten()
}

fn leader(kv: &KeyValue) -> LeaderKey {
    LeaderKey { name: MemberName::from(kv.text()), version: kv.version(), session: kv.session() }
}

fn member(relative: &str, kv: &KeyValue) -> Option<Member> {
    let name = relative.strip_prefix("members/")?;
    if name.is_empty() || name.contains('/') {
        return None;
    }
    let data = read::member(&kv.value);
    Some(Member { name: name.into(), version: kv.version(), session: kv.session(), data })
}

/// The keys in a dump of the form `{"prefix": …, "kvs": [{"key", "value", "mod_revision", "lease"}, …]}`, with the
/// prefix. Recorded clusters are kept in this form.
#[doc(hidden)]
pub fn keys_from_dump(text: &str) -> Result<(String, Vec<KeyValue>), serde_json::Error> {
    #[derive(Deserialize)]
    struct Dump {
        prefix: String,
        kvs: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        key: String,
        value: String,
        mod_revision: i64,
        lease: i64,
    }
    let dump: Dump = serde_json::from_str(text)?;
    let key =
        |e: Entry| KeyValue { key: e.key, value: e.value.into_bytes(), mod_revision: e.mod_revision, lease: e.lease };
    Ok((dump.prefix, dump.kvs.into_iter().map(key).collect()))
}
