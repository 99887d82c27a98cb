//! A cluster to run commands against: the model of the DCS, and one scripted REST member per name.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::Arc;

use pgherd::ctl::{Invocation, Outside, Personality, Ui};
use pgherd::dcs::Dcs;
use pgherd::dcs::memory::MemoryStore;
use serde_json::Value;

use crate::fake_member::FakeMember;
use crate::transcript;

/// The cluster.
pub(crate) struct Stage {
    pub(crate) store: MemoryStore,
    pub(crate) scope: String,
    pub(crate) members: BTreeMap<String, FakeMember>,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) exit: u8,
}

impl Stage {
    /// Members that can be asked, and nothing in the DCS.
    pub(crate) async fn empty(scope: &str, names: &[&str]) -> Self {
        let mut members = BTreeMap::new();
        for name in names {
            members.insert((*name).to_owned(), FakeMember::start().await);
        }
        Self { store: MemoryStore::new(), scope: scope.to_owned(), members }
    }

    /// A cluster as a member table shows it.
    pub(crate) async fn of_table(scope: &str, table: &[&str]) -> Self {
        let stage = Self::empty(scope, &["pg1", "pg2", "pg3"]).await;
        stage.show(table);
        stage
    }

    /// Three healthy members: pg1 leads, pg2 and pg3 stream.
    pub(crate) async fn healthy() -> Self {
        Self::of_table("demo", &HEALTHY).await
    }

    /// Makes the DCS hold what a table shows.
    pub(crate) fn show(&self, table: &[&str]) {
        transcript::fill(&self.store, &self.scope, table, |name| self.member(name).api_url());
    }

    pub(crate) fn member(&self, name: &str) -> &FakeMember {
        &self.members[name]
    }

    /// The text of a key below the cluster's prefix.
    pub(crate) fn key(&self, name: &str) -> Option<String> {
        self.store.get(&format!("/service/{}/{name}", self.scope))
    }

    /// Changes one field of a JSON key.
    pub(crate) fn edit(&self, key: &str, field: &str, value: Value) {
        edit(&self.store, &format!("/service/{}/{key}", self.scope), field, value);
    }

    /// Every member's requests, by name.
    pub(crate) fn requests(&self) -> Vec<String> {
        let of = |(name, member): (&String, &FakeMember)| {
            member.log().into_iter().map(|line| format!("{name}: {line}")).collect::<Vec<_>>()
        };
        self.members.iter().flat_map(of).collect()
    }

    /// Runs a command line (without the program's name).
    pub(crate) async fn run(&self, personality: Personality, args: &[&str], input: &str) -> Said {
        self.run_with(personality, args, input, "").await
    }

    /// The same with more in the configuration file.
    pub(crate) async fn run_with(&self, personality: Personality, args: &[&str], input: &str, more: &str) -> Said {
        let store = self.store.clone();
        let outside = Outside::with_dcs(Arc::new(move |_, scope, _| Ok(store.handle(scope, None) as Arc<dyn Dcs>)));
        let (ui, captured) = Ui::captured(personality, input);
        // The recordings were made where local time is UTC.
        let ui = ui.with_zone(jiff::tz::TimeZone::UTC);
        let file = config_file(&self.scope, more);
        let own = [personality.program(), "-c", file.path().to_str().unwrap()];
        let words = own.iter().chain(args).map(OsString::from);
        let invocation = Invocation { args: words.collect(), environment: BTreeMap::new() };
        let exit = pgherd::ctl::run(&invocation, &ui, outside).await;
        crate::schemas::check(&[&[personality.program()], args].concat(), &captured.stdout());
        Said { stdout: captured.stdout(), stderr: captured.stderr(), exit }
    }
}

/// A configuration file with this scope, a DCS that nobody is to reach, and more.
pub(crate) fn config_file(scope: &str, more: &str) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".yml").tempfile().unwrap();
    let text = format!("scope: {scope}\netcd3: {{host: '127.0.0.1:1'}}\n{more}");
    std::fs::write(file.path(), text).unwrap();
    file
}

/// Changes one field of a JSON key.
pub(crate) fn edit(store: &MemoryStore, key: &str, field: &str, value: Value) {
    let text = store.get(key).unwrap_or_else(|| "{}".to_owned());
    let mut document: Value = serde_json::from_str(&text).unwrap();
    document[field] = value;
    store.put(key, document.to_string());
}

const HEALTHY: [&str; 8] = [
    "+ Cluster: demo (7710266681384700900) -----------+----+-------------+-----+------------+-----+",
    "| Member | Host            | Role    | State     | TL | Receive LSN | Lag | Replay LSN | Lag |",
    "+--------+-----------------+---------+-----------+----+-------------+-----+------------+-----+",
    "| pg1    | 127.0.0.1:22432 | Leader  | running   |  1 |             |     |            |     |",
    "| pg2    | 127.0.0.1:22433 | Replica | streaming |  1 |   0/4066020 |   0 |  0/4066020 |   0 |",
    "| pg3    | 127.0.0.1:22434 | Replica | streaming |  1 |   0/4066020 |   0 |  0/4066020 |   0 |",
    "+--------+-----------------+---------+-----------+----+-------------+-----+------------+-----+",
    "",
];
