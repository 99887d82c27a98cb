//! The same story on every major version of PostgreSQL: a cluster is made, its leader dies with WAL that nobody else
//! has and comes back by rewinding, a replica is cloned anew; logical slots are carried over, by us or by the server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pgherd::config::parameters::{self, Checked};
use serde_json::{Value, json};

use crate::ground::is_there;
use crate::harness::{Cluster, Kind, Store, signal, stderr, stdout};

const LONG: Duration = Duration::from_secs(60);

/// The first version whose server keeps slots on standbys in step by itself.
const FAILOVER_SLOTS: u32 = 17;

/// The first version in which a logical slot can be made on a standby.
const SLOTS_ON_STANDBYS: u32 = 16;

/// Where the programs of a version are: from Debian's packages, or where `.ci/setup test` has put them.
fn programs(major: u32) -> Option<PathBuf> {
    let cache = if nix::unistd::geteuid().is_root() {
        PathBuf::from("/var/cache")
    } else {
        let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
        std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from)
    };
    let places = [Path::new("/usr/lib/postgresql").to_owned(), cache.join("pgherd/postgresql")];
    let found = places.iter().map(|place| place.join(major.to_string()).join("bin"));
    let found = found.into_iter().find(|bin| bin.join("pg_rewind").is_file());
    is_there(found, &format!("PostgreSQL {major}"), "postgresql-15; for others run .ci/setup test")
}

fn settings(major: u32) -> Value {
    let mut settings = json!({
        "ttl": 20, "loop_wait": 1, "retry_timeout": 5,
        "maximum_lag_on_failover": 1_073_741_824,
        "slots": {"feed": {"type": "logical", "database": "postgres", "plugin": "pgoutput"}},
        "ignore_slots": [{"name": "mine", "plugin": "pgoutput"}],
        "postgresql": {"use_pg_rewind": true, "parameters": {
            "wal_level": "logical", "wal_keep_size": "64MB", "wal_retrieve_retry_interval": "200ms"
        }}
    });
    if major >= FAILOVER_SLOTS {
        settings["postgresql"]["parameters"]["sync_replication_slots"] = json!(true);
    }
    settings
}

struct Story {
    cluster: Cluster,
    rows: usize,
}

impl Story {
    async fn begin(major: u32) -> Option<Self> {
        let programs = programs(major)?;
        let mut cluster = Cluster::new(Store::Etcd, &[Kind::Pgherd; 2], settings(major));
        for i in 0..2 {
            cluster.reconfigure(i, |document| document["postgresql"]["bin_dir"] = json!(programs));
            cluster.start(i);
        }
        cluster.wait_healthy(LONG).await;
        for i in 0..2 {
            let version = cluster.status(i).await.unwrap()["server_version"].as_u64().unwrap();
            assert_eq!(version / 10_000, u64::from(major));
        }
        let mut story = Self { cluster, rows: 0 };
        let leader = story.cluster.settled_leader(LONG).await;
        story.run(leader, "CREATE TABLE kept (id int)").await;
        story.run(leader, "CREATE PUBLICATION every FOR ALL TABLES").await;
        story.insert(leader, 1000).await;
        Some(story)
    }

    async fn run(&self, i: usize, statement: &str) {
        let answer = self.cluster.sql(i, statement).await;
        assert!(answer.is_ok(), "{statement}: {answer:?}\n{}", self.cluster.dump());
    }

    async fn insert(&mut self, i: usize, rows: usize) {
        self.run(i, &format!("INSERT INTO kept SELECT generate_series(1, {rows})")).await;
        self.rows += rows;
    }

    /// Waits until a query on a member answers with `t`.
    async fn wait(&self, i: usize, query: &str) {
        let holds = async || {
            let answer = self.cluster.sql(i, query).await;
            answer.is_ok_and(|rows| rows.first().is_some_and(|row| row[0].as_deref() == Some("t")))
        };
        self.cluster.until(query, LONG, holds).await;
    }

    /// Both members have exactly the rows that were confirmed.
    async fn wait_rows(&self) {
        for i in 0..2 {
            self.wait(i, &format!("SELECT count(*) = {} FROM kept", self.rows)).await;
        }
    }

    async fn wait_slot(&self, i: usize, name: &str, condition: &str) {
        let query = format!(
            "SELECT count(*) = 1 FROM pg_replication_slots WHERE slot_name = '{name}' AND confirmed_flush_lsn IS NOT \
             NULL AND NOT temporary AND {condition}"
        );
        self.wait(i, &query).await;
    }

    fn has_logged(&self, i: usize, words: &str) {
        let file = self.cluster.path(&format!("{}.log", self.cluster.members[i].name));
        let log = std::fs::read_to_string(file).unwrap();
        assert!(log.contains(words), "{words}\n{}", self.cluster.dump());
    }

    /// The leader dies with rows that it could send to nobody, comes back, and gives them up.
    async fn failover_and_rewind(&mut self) {
        let former = self.cluster.settled_leader(LONG).await;
        self.wait_slot(1 - former, "feed", "true").await;
        self.wait_rows().await;
        let senders = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walsender'";
        let senders = self.cluster.sql(former, senders).await.unwrap();
        let senders: Vec<u32> = senders.iter().map(|row| row[0].as_deref().unwrap().parse().unwrap()).collect();
        assert!(!senders.is_empty());
        senders.iter().for_each(|pid| signal(*pid, "STOP"));
        self.run(former, "INSERT INTO kept SELECT generate_series(1, 5000)").await;
        self.cluster.kill_agent(former);
        self.cluster.kill_postmaster(former);
        senders.iter().for_each(|pid| signal(*pid, "KILL"));
        self.cluster.expire_leader_key();
        let leader = self.cluster.wait_leader(LONG, |now| now != former).await;
        // The consumer's place is there, and can be read from.
        self.wait_slot(leader, "feed", "true").await;
        self.insert(leader, 10).await;
        let changes = "SELECT count(*) > 10 FROM pg_logical_slot_peek_binary_changes('feed', NULL, NULL, \
                       'proto_version', '1', 'publication_names', 'every')";
        self.wait(leader, changes).await;
        self.cluster.start(former);
        self.cluster.wait_healthy(LONG).await;
        self.wait_rows().await;
        self.has_logged(former, "pg_rewind exit code=0");
    }

    async fn reinit(&mut self) {
        let leader = self.cluster.settled_leader(LONG).await;
        let replica = 1 - leader;
        let before = self.cluster.postmaster(replica);
        let (scope, name) = (&self.cluster.scope, &self.cluster.members[replica].name);
        let output = self.cluster.ctl(&["reinit", scope, name, "--force", "--wait"]);
        assert!(output.status.success(), "{}\n{}\n{}", stdout(&output), stderr(&output), self.cluster.dump());
        self.cluster.wait_healthy(LONG).await;
        assert_ne!(self.cluster.postmaster(replica), before);
        self.insert(leader, 10).await;
        self.wait_rows().await;
    }

    /// Slots that somebody has made on the standby itself. One that is to be ignored is neither dropped nor moved, and
    /// its reader goes on when the standby leads; one that nobody knows goes, as it would on the primary.
    async fn slots_made_on_the_standby(&mut self) {
        let leader = self.cluster.settled_leader(LONG).await;
        let standby = 1 - leader;
        self.make_slot(standby, "mine").await;
        let position = "SELECT restart_lsn, confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'mine'";
        let made_at = self.cluster.sql(standby, position).await.unwrap();
        self.make_slot(standby, "stray").await;
        self.insert(leader, 50).await;
        self.wait(standby, "SELECT count(*) = 0 FROM pg_replication_slots WHERE slot_name = 'stray'").await;
        self.has_logged(standby, "Dropped replication slot 'stray'");
        // The server is restarted to get another slot.
        self.wait_in_step(leader, "feed", "true").await;
        self.cluster.wait_healthy(LONG).await;
        assert_eq!(self.cluster.sql(standby, position).await.unwrap(), made_at, "{}", self.cluster.dump());
        let changes = "SELECT count(*) >= 50 FROM pg_logical_slot_peek_binary_changes('mine', NULL, NULL, \
                       'proto_version', '1', 'publication_names', 'every')";
        self.wait(standby, changes).await;
        self.cluster.switch_to(standby, LONG).await;
        self.wait(standby, changes).await;
        self.has_not_logged("replication slot 'mine'");
        self.run(standby, "SELECT pg_drop_replication_slot('mine')").await;
    }

    /// Makes a logical slot on a standby, which waits for the primary to say which transactions run.
    async fn make_slot(&self, standby: usize, name: &str) {
        let create = format!("SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')");
        let tell = async {
            loop {
                let _ = self.cluster.sql(1 - standby, "SELECT pg_log_standby_snapshot()").await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            () = self.run(standby, &create) => {}
            () = tell => {}
        }
    }

    fn has_not_logged(&self, words: &str) {
        for i in 0..2 {
            assert_eq!(self.cluster.count_in_log(i, words), 0, "{words}\n{}", self.cluster.dump());
        }
    }

    /// A slot that its maker has marked for failover: the server keeps it on the standby, we leave it alone, and it is
    /// there after a switchover with all that was not read before. It comes to the former leader again, too.
    async fn failover_slot(&mut self) {
        let former = self.cluster.settled_leader(LONG).await;
        self.run(former, "SELECT pg_create_logical_replication_slot('theirs', 'pgoutput', false, false, true)").await;
        self.wait_synced(former).await;
        self.insert(former, 100).await;
        self.cluster.switch_to(1 - former, LONG).await;
        let leader = self.cluster.settled_leader(LONG).await;
        assert_eq!(leader, 1 - former);
        let changes = "SELECT count(*) >= 100 FROM pg_logical_slot_peek_binary_changes('theirs', NULL, NULL, \
                       'proto_version', '1', 'publication_names', 'every')";
        self.wait(leader, changes).await;
        self.wait_synced(leader).await;
        self.wait_rows().await;
    }

    /// The standby has the failover slot in step.
    async fn wait_synced(&self, leader: usize) {
        self.wait_in_step(leader, "theirs", "failover AND synced AND invalidation_reason IS NULL").await;
    }

    /// The standby has a slot, and in this state. Its consumer has to move for that, and so do transactions.
    async fn wait_in_step(&self, leader: usize, slot: &str, state: &str) {
        let there = format!(
            "SELECT count(*) = 1 FROM pg_replication_slots WHERE slot_name = '{slot}' AND NOT temporary AND \
             confirmed_flush_lsn IS NOT NULL AND {state}"
        );
        let holds = async || {
            self.run(leader, "SELECT pg_log_standby_snapshot()").await;
            self.run(leader, &format!("SELECT pg_replication_slot_advance('{slot}', pg_current_wal_lsn())")).await;
            let answer = self.cluster.sql(1 - leader, &there).await;
            answer.is_ok_and(|rows| rows[0][0].as_deref() == Some("t"))
        };
        self.cluster.until(slot, LONG, holds).await;
    }
}

/// What a server says of one of its parameters.
struct Parameter {
    name: String,
    vartype: String,
    boot: Option<String>,
    minimum: Option<String>,
    maximum: Option<String>,
    words: Vec<String>,
}

impl Parameter {
    fn of(row: Vec<Option<String>>) -> Self {
        let [name, vartype, boot, minimum, maximum, words] = <[_; 6]>::try_from(row).unwrap();
        let words = words.unwrap_or_default().split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        Self { name: name.unwrap(), vartype: vartype.unwrap(), boot, minimum, maximum, words }
    }

    /// Whether our table takes all that the server takes, and nothing beyond its bounds. `None`: it is not in the table.
    fn is_in_agreement(&self, version: u32) -> Option<bool> {
        let check = |value: &str| match parameters::is_recovery_parameter(&self.name) {
            true => parameters::check_recovery(&self.name, value, version),
            false => parameters::check(&self.name, value, version),
        };
        if check(self.boot.as_deref().unwrap_or("")) == Checked::Unknown {
            return None;
        }
        let mut good: Vec<&str> = self.words.iter().map(String::as_str).collect();
        good.extend([&self.boot, &self.minimum, &self.maximum].into_iter().filter_map(Option::as_deref));
        let takes_good = good.into_iter().all(|value| check(value) == Checked::Accepted);
        let beyond = |bound: &Option<String>, step: i64| Some(bound.as_ref()?.parse::<i64>().ok()? + step);
        let bad: Vec<String> = match self.vartype.as_str() {
            "integer" => [beyond(&self.minimum, -1), beyond(&self.maximum, 1)]
                .into_iter()
                .flatten()
                .map(|n| n.to_string())
                .collect(),
            "enum" | "bool" => vec!["no such word".to_owned()],
            _ => Vec::new(),
        };
        Some(takes_good && bad.iter().all(|value| check(value) != Checked::Accepted))
    }
}

/// The table of parameters says of this version what the server itself says. What only Debian's servers have is not in
/// it: the server is asked.
async fn parameters_agree(story: &Story) {
    let leader = story.cluster.settled_leader(LONG).await;
    let number = story.cluster.sql(leader, "SHOW server_version_num").await.unwrap()[0][0].clone().unwrap();
    let version = number.parse().unwrap();
    let query = "SELECT name, vartype, boot_val, min_val, max_val, array_to_string(enumvals, ',') FROM pg_settings \
                 WHERE context <> 'internal' AND name NOT LIKE '%.%' AND name <> \
                 'extension_destdir'";
    let rows = story.cluster.sql(leader, query).await.unwrap();
    assert!(rows.len() > 200);
    let (mut wrong, mut unknown) = (Vec::new(), Vec::new());
    for parameter in rows.into_iter().map(Parameter::of) {
        match parameter.is_in_agreement(version) {
            Some(true) => {}
            Some(false) => wrong.push(parameter.name),
            None => unknown.push(parameter.name),
        }
    }
    // A parameter that the server does not have would keep it from starting.
    let ours: Vec<_> = parameters::known(version).map(|name| format!("('{name}')")).collect();
    let query = format!(
        "SELECT name FROM (VALUES {}) AS ours (name) WHERE current_setting(name, true) IS NULL",
        ours.join(", ")
    );
    let absent: Vec<_> = story.cluster.sql(leader, &query).await.unwrap().into_iter().flatten().flatten().collect();
    assert!(absent.is_empty(), "{number}: not there: {absent:?}");
    assert!(wrong.is_empty() && unknown.is_empty(), "{number}: wrong {wrong:?}, unknown {unknown:?}");
}

async fn story(major: u32) {
    let Some(mut story) = Story::begin(major).await else { return };
    parameters_agree(&story).await;
    story.failover_and_rewind().await;
    story.reinit().await;
    if major >= SLOTS_ON_STANDBYS {
        story.slots_made_on_the_standby().await;
    }
    if major >= FAILOVER_SLOTS {
        story.failover_slot().await;
    }
    story.cluster.assert_journals_replay().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_13() {
    story(13).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_14() {
    story(14).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_15() {
    story(15).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_16() {
    story(16).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_17() {
    story(17).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_18() {
    story(18).await;
}
