//! Where the members of a cluster were when they were last listed, so that they can be asked when the DCS cannot.
//!
//! One file per cluster below `$XDG_CACHE_HOME/pgherd` (or `~/.cache/pgherd`). Its name depends on the DCS and the
//! namespace as well: a cluster of the same name elsewhere is another one. A cache must never be in the way, so
//! nothing that goes wrong here is told.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::cluster::MemberName;
use crate::config::{DcsConfig, OperatorConfig};

use super::commands::list::{MembersView, Part, Row};
use super::documents::{KnownFrom, MissingMember};

/// A member and where it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownMember {
    /// Its name.
    pub name: String,
    /// Citus group; 0 for an ordinary cluster.
    pub group: i64,
    /// Its REST API.
    pub api_url: String,
    /// Host and port of its PostgreSQL.
    pub address: Option<(String, u16)>,
    /// The system identifier of the cluster that it belonged to.
    #[serde(default)]
    pub system_id: Option<String>,
    /// When it was first not there any more.
    #[serde(default)]
    pub missing_since: Option<Timestamp>,
}

/// A member that has not been there for so long has been taken away.
const FORGOTTEN_AFTER: SignedDuration = SignedDuration::from_hours(24);

#[derive(Default, Serialize, Deserialize)]
struct Document {
    namespace: String,
    cluster: String,
    members: Vec<KnownMember>,
}

/// One cluster's file.
pub struct Known {
    path: Option<PathBuf>,
    namespace: String,
    cluster: String,
}

impl Known {
    /// Nothing is read yet. Without a home nothing is remembered.
    pub fn new(environment: &BTreeMap<String, String>, settings: &OperatorConfig, cluster: &str) -> Self {
        let directory = |name: &str| environment.get(name).filter(|path| path.starts_with('/')).map(PathBuf::from);
        let cache = directory("XDG_CACHE_HOME").or_else(|| directory("HOME").map(|home| home.join(".cache")));
        let namespace = settings.namespace.trim_matches('/').to_owned();
        let mut hosts = match &settings.dcs {
            DcsConfig::Etcd3(etcd) => etcd.hosts.clone(),
            other => vec![format!("{other:?}")],
        };
        hosts.sort();
        let mut hasher = DefaultHasher::new();
        (hosts, &namespace, cluster).hash(&mut hasher);
        let is_plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let readable: String = cluster.chars().filter(is_plain).take(40).collect();
        let file = format!("members-{readable}-{:016x}.json", hasher.finish());
        let path = cache.map(|cache| cache.join("pgherd").join(file));
        Self { path, namespace, cluster: cluster.to_owned() }
    }

    /// The members as they were.
    pub fn recall(&self) -> Vec<KnownMember> {
        let text = self.path.as_ref().and_then(|path| std::fs::read(path).ok());
        let document: Document = text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        let is_it = document.namespace == self.namespace && document.cluster == self.cluster;
        if is_it { document.members } else { Vec::new() }
    }

    /// Of a cluster that was removed nobody is missed.
    pub fn forget(&self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }

    /// Says which members were here earlier and are not any more, and keeps where the others are now.
    pub fn compare(&self, view: &mut MembersView, now: Timestamp) {
        let earlier = self.recall();
        let mut members: Vec<KnownMember> = view.parts.iter().flat_map(known_of).collect();
        for mut member in earlier.iter().cloned() {
            let Some(part) = view.parts.iter_mut().find(|part| part.group == member.group) else {
                // Of a group that was not asked for.
                members.push(member);
                continue;
            };
            let is_there = part.rows.iter().any(|row| row.name == member.name);
            let since = *member.missing_since.get_or_insert(now);
            // Another system is another cluster that has the same name.
            let is_same = part.initialize.is_some() && part.initialize == member.system_id;
            if is_there || !is_same || now.duration_since(since) > FORGOTTEN_AFTER {
                continue;
            }
            let (name, since) = (member.name.clone(), Some(since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()));
            let slot = MemberName::from(name.as_str()).slot_name();
            let is_it = |missing: &&mut MissingMember| {
                missing.name == name || (missing.known_from == KnownFrom::Slot && missing.name == slot)
            };
            match part.missing.iter_mut().find(is_it) {
                // Only here the slot's name can be told from the member's.
                Some(missing) => (missing.name, missing.since) = (name, since),
                None => part.missing.push(MissingMember { name, known_from: KnownFrom::EarlierList, since }),
            }
            members.push(member);
        }
        let Some(path) = self.path.as_ref().filter(|_| !members.is_empty() && members != earlier) else { return };
        let (namespace, cluster) = (self.namespace.clone(), self.cluster.clone());
        let _ = write(path, &Document { namespace, cluster, members });
    }
}

fn known_of(part: &Part) -> impl Iterator<Item = KnownMember> + '_ {
    let known = move |row: &Row| {
        Some(KnownMember {
            name: row.name.clone(),
            group: part.group,
            api_url: row.api_url.clone()?,
            address: row.address.clone(),
            system_id: part.initialize.clone(),
            missing_since: None,
        })
    };
    part.rows.iter().filter_map(known)
}

/// Whole or not at all: another list may read it at the same moment.
fn write(path: &Path, document: &Document) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(&serde_json::to_vec_pretty(document)?)?;
    file.persist(path).map(drop).map_err(|error| error.error)
}
