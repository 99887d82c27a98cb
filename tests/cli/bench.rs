//! A place to run the CLI in: recorded keys in a store, files in a directory, a captured terminal.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pgherd::config::OperatorConfig;
use pgherd::ctl::context::Groups;
use pgherd::ctl::{Invocation, Outside, Personality, Ui};
use pgherd::dcs::layout::{Layout, keys_from_dump};
use pgherd::dcs::memory::{MemoryStore, Reach};

/// The files that commands name.
const FILES: [(&str, &str); 22] = [
    ("cit0.yml", "scope: cit\netcd3: {host: '127.0.0.1:2379'}\n"),
    ("ctl.yml", "scope: demo\netcd3: {host: '127.0.0.1:2379'}\n"),
    ("citus.yml", "scope: cit\netcd3: {host: '127.0.0.1:2379'}\ncitus: {group: 0, database: citus}\n"),
    ("nodcs.yml", "scope: demo\n"),
    ("down.yml", "scope: demo\netcd3: {host: '127.0.0.1:1'}\n"),
    ("bad.yml", "scope: [a\n"),
    ("empty.yml", ""),
    ("list.yml", "- a\n- b\n"),
    ("apply.yml", "ttl: 25\npostgresql:\n  parameters:\n    work_mem: 8MB\n"),
    ("applynull.yml", "ttl: 20\npostgresql:\n  parameters:\n    work_mem: null\n"),
    ("full.yml", FULL),
    ("full2.yml", FULL2),
    ("ed_fail", "#!/bin/sh\nexit 3\n"),
    ("ed_bad", "#!/bin/sh\nprintf 'a: [b\\n' > \"$1\"\n"),
    ("ed_empty", "#!/bin/sh\n: > \"$1\"\n"),
    ("ed_ttl", "#!/bin/sh\nsed -i 's/^ttl: 20/ttl: 27/' \"$1\"\n"),
    ("ed_race", RACE),
    ("q.sql", "select 1 as a, 2 as b\n"),
    ("confd/10-a.yml", "scope: nosuch\netcd3: {host: '127.0.0.1:2379'}\n"),
    ("confd/20-b.yaml", "scope: gl\n"),
    ("confd/30-c.txt", "scope: other\n"),
    ("xdg/patroni/patronictl.yaml", "scope: gl\netcd3: {host: '127.0.0.1:2379'}\n"),
];

/// Somebody else changes the configuration while the editor is open.
const RACE: &str = "#!/bin/sh
sed -i 's/^ttl: 20/ttl: 28/' \"$1\"
test -z \"$ETCDCTL_ENDPOINTS\" || ETCDCTL_API=3 etcdctl put /service/demo/config '{\"ttl\": 99}' >/dev/null
";

const FULL: &str = "loop_wait: 2
maximum_lag_on_failover: 1048576
postgresql:
  parameters:
    max_connections: 50
    shared_buffers: 16MB
  pg_hba:
  - local all all trust
  - host all all 127.0.0.1/32 trust
  - host replication all 127.0.0.1/32 trust
  use_pg_rewind: true
  use_slots: true
retry_timeout: 3
ttl: 20
";

const FULL2: &str = "loop_wait: 2
maximum_lag_on_failover: 1048576
postgresql:
  parameters:
    max_connections: 50
    shared_buffers: 16MB
  pg_hba:
  - local all all trust
  - host all all 127.0.0.1/32 trust
  - host replication all 127.0.0.1/32 trust
  use_pg_rewind: true
retry_timeout: 3
ttl: 24
";

/// What a run said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) exit: u8,
}

/// The place.
pub(crate) struct Bench {
    pub(crate) store: MemoryStore,
    directory: tempfile::TempDir,
    /// Before the store is opened so many times in one run, somebody else changes the configuration.
    pub(crate) meddles_at: Option<usize>,
    /// How the store answers.
    pub(crate) reach: Reach,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        write_files(directory.path(), "127.0.0.1:2379");
        Self { store: MemoryStore::new(), directory, meddles_at: None, reach: Reach::Up }
    }

    /// Puts a recorded cluster into the store; the same keys are replaced.
    pub(crate) fn import(&self, fixture: &str) {
        let path = fixtures().join(format!("{fixture}.etcd.json"));
        let (prefix, keys) = keys_from_dump(&std::fs::read_to_string(path).unwrap()).unwrap();
        for kv in self.store.keys().into_iter().filter(|kv| kv.key.starts_with(&prefix)) {
            self.store.delete(&kv.key);
        }
        self.store.import(keys);
    }

    fn outside(&self) -> Outside {
        let (store, meddles_at, opened) = (self.store.clone(), self.meddles_at, AtomicUsize::new(0));
        let reach = self.reach;
        Outside::with_dcs(Arc::new(move |settings: &OperatorConfig, cluster: &str, groups| {
            if Some(opened.fetch_add(1, Ordering::SeqCst) + 1) == meddles_at {
                store.put(&format!("/service/{cluster}/config"), r#"{"ttl": 99}"#);
            }
            let handle = store.handle_at(layout(&settings.namespace, cluster, groups), None);
            handle.set_reach(reach);
            Ok(handle)
        }))
    }

    /// A file of the bench by the name that commands use.
    fn real(&self, word: &str) -> String {
        let name = word.trim_start_matches("./");
        let path = self.directory.path().join(name);
        let is_file = !name.is_empty() && (path.exists() || name.starts_with("missing"));
        if is_file { path.display().to_string() } else { word.to_owned() }
    }

    /// Runs a command that does not end by itself for a while.
    pub(crate) async fn run_for(&self, while_: Duration, words: &[String]) -> Said {
        let (ui, captured) =
            Ui::captured(Personality::of(words.first().map(Into::into).as_ref(), &BTreeMap::new()), "");
        let args = words.iter().map(|word| self.real(word).into()).collect();
        let invocation = Invocation { args, environment: BTreeMap::new() };
        let ended = tokio::time::timeout(while_, pgherd::ctl::run(&invocation, &ui, self.outside())).await;
        Said { stdout: captured.stdout(), stderr: captured.stderr(), exit: ended.unwrap_or(255) }
    }

    /// Runs a command line. The directory's name is taken out of what was said.
    pub(crate) async fn run(&self, words: &[String], environment: &[(String, String)], stdin: &str) -> Said {
        let (ui, captured) =
            Ui::captured(Personality::of(words.first().map(Into::into).as_ref(), &BTreeMap::new()), stdin);
        let mut variables: BTreeMap<String, String> =
            environment.iter().map(|(name, value)| (name.clone(), self.real(value))).collect();
        variables.entry("HOME".to_owned()).or_insert_with(|| self.directory.path().display().to_string());
        let args = words.iter().map(|word| self.real(word).into()).collect();
        let invocation = Invocation { args, environment: variables };
        let exit = pgherd::ctl::run(&invocation, &ui, self.outside()).await;
        let here = format!("{}/", self.directory.path().display());
        let plain = |text: String| text.replace(&here, "");
        crate::schemas::check(&words.iter().map(String::as_str).collect::<Vec<_>>(), &captured.stdout());
        Said { stdout: plain(captured.stdout()), stderr: plain(captured.stderr()), exit }
    }
}

fn layout(namespace: &str, cluster: &str, groups: Groups) -> Layout {
    match groups {
        Groups::Plain => Layout::new(namespace, cluster, None),
        Groups::All => Layout::new(namespace, cluster, Some(0)),
        Groups::One(group) => match u32::try_from(group) {
            Ok(group) => Layout::new(namespace, cluster, Some(group)),
            Err(_) => Layout::new(namespace, &format!("{cluster}/{group}"), None),
        },
    }
}

/// Writes the files that commands name; `store` is where the keys are.
pub(crate) fn write_files(directory: &Path, store: &str) {
    for (name, text) in FILES {
        let path = directory.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text.replace("127.0.0.1:2379", store)).unwrap();
        let mode = if text.starts_with("#!") { 0o755 } else { 0o644 };
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    }
}

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}
