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

use serde::{Deserialize, Serialize};

use crate::config::{DcsConfig, OperatorConfig};

use super::commands::list::MembersView;

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
}

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

    /// Keeps where the members are now.
    pub fn remember(&self, view: &MembersView) {
        let rows = view.parts.iter().flat_map(|part| part.rows.iter().map(move |row| (part.group, row)));
        let known = |(group, row): (i64, &super::commands::list::Row)| {
            let (name, address) = (row.name.clone(), row.address.clone());
            Some(KnownMember { name, group, api_url: row.api_url.clone()?, address })
        };
        let members: Vec<KnownMember> = rows.filter_map(known).collect();
        let Some(path) = self.path.as_ref().filter(|_| !members.is_empty() && members != self.recall()) else { return };
        let (namespace, cluster) = (self.namespace.clone(), self.cluster.clone());
        let _ = write(path, &Document { namespace, cluster, members });
    }
}

/// Whole or not at all: another list may read it at the same moment.
fn write(path: &Path, document: &Document) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(&serde_json::to_vec_pretty(document)?)?;
    file.persist(path).map(drop).map_err(|error| error.error)
}
