//! The agent ends in the middle of a bootstrap or of a clone, killed or told to: what it has left is never taken for a
//! whole, and the next start goes on as configured. Then what the initial configuration is good for, and a member that
//! talks to its server by the socket alone.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Cluster, Kind, PASSWORD, Store};

const LONG: Duration = Duration::from_secs(60);

/// Makes data on which PostgreSQL would start, and calls them half until a file is there.
const FILL: &str = r#"echo "fill $$" >> calls
if [ ! -e tried ]; then touch tried; exit 3; fi
for a in "$@"; do case "$a" in --datadir=*) d="${a#--datadir=}";; esac; done
BIN/initdb -U postgres -A trust -N -D "$d" > initdb.log 2>&1 || exit 1
touch "$d/half"
while [ ! -e go ]; do sleep 0.1; done
rm "$d/half"
"#;

/// Goes on until a file is there.
const POST: &str = r#"echo "post $$" >> calls
while [ ! -e go-post ]; do sleep 0.1; done
"#;

/// Leaves data of another cluster first.
const COPY: &str = r#"echo "copy $$" >> calls
for a in "$@"; do case "$a" in
  --datadir=*) d="${a#--datadir=}";; --connstring=*) c="${a#--connstring=}";; esac; done
if [ ! -e go-copy ]; then
  BIN/initdb -U postgres -A trust -N -D "$d" > initdb.log 2>&1 || exit 1
  touch "$d/half"
  while [ ! -e go-copy ]; do sleep 0.1; done
fi
exec BIN/pg_basebackup -D "$d" -X stream -c fast -d "$c"
"#;

struct Story {
    cluster: Cluster,
}

impl Story {
    fn new() -> Self {
        let settings = json!({
            "ttl": 10, "loop_wait": 1, "retry_timeout": 3, "maximum_lag_on_failover": 7_654_321,
            "postgresql": {"parameters": {"log_connections": "on", "log_line_prefix": "<%h %u> "}},
        });
        let mut cluster = Cluster::new(Store::Etcd, &[Kind::Pgherd; 2], settings);
        cluster.through_socket = true;
        let record = "echo \"$*\" >> events\n";
        cluster.write_scripts(&[("fill", FILL), ("post", POST), ("copy", COPY), ("record", record)]);
        for i in 0..2 {
            cluster.reconfigure(i, |document| {
                document["bootstrap"]["method"] = "slow".into();
                document["bootstrap"]["slow"] = json!({"command": "sh fill"});
                document["bootstrap"]["post_init"] = "sh post".into();
                document["bootstrap"]["users"] = json!({"admin": {"password": "x"}});
                let postgresql = document["postgresql"].as_object_mut().unwrap();
                postgresql.insert("callbacks".into(), json!({"on_start": "sh record", "on_role_change": "sh record"}));
                postgresql.insert("create_replica_methods".into(), json!(["copy"]));
                postgresql.insert("copy".into(), json!({"command": "sh 'copy'"}));
                postgresql.insert("use_unix_socket".into(), true.into());
                postgresql.insert("use_unix_socket_repl".into(), true.into());
                let lines = [
                    "local all all scram-sha-256",
                    "local replication replicator scram-sha-256",
                    "host all postgres all reject",
                    "host all all 127.0.0.1/32 scram-sha-256",
                    "host replication replicator 127.0.0.1/32 scram-sha-256",
                ];
                postgresql.insert("pg_hba".into(), json!(lines));
            });
        }
        Self { cluster }
    }

    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.cluster.path("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits for so many calls; the process of the last one.
    async fn wait_calls(&self, names: &[&str]) -> u32 {
        let what = format!("calls of {names:?}");
        self.cluster.until(&what, LONG, async || self.calls().len() >= names.len()).await;
        let calls = self.calls();
        let said: Vec<_> = calls.iter().map(|line| line.split_once(' ').unwrap().0).collect();
        assert_eq!(said, names, "{}", self.cluster.dump());
        calls.last().unwrap().split_once(' ').unwrap().1.parse().unwrap()
    }

    async fn wait_file(&self, name: &str) {
        self.cluster.until(name, LONG, async || self.cluster.path(name).exists()).await;
    }

    fn initialize(&self) -> Option<String> {
        let key = self.cluster.key("initialize");
        self.cluster.keys().into_iter().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    fn kept(&self, file: &str) -> bool {
        self.cluster.path("data-n0.failed").join(file).exists()
    }

    fn starts(&self) -> usize {
        self.cluster.count_in_log(0, "postmaster pid=")
    }

    /// The method says that it has failed: the agent ends, and the next start may try again.
    async fn a_failing_command(&mut self) {
        self.cluster.start(0);
        self.wait_calls(&["fill"]).await;
        self.cluster.wait_log(0, "Failed to bootstrap cluster", LONG).await;
        self.cluster.wait_agent_ended(0, LONG).await;
        assert_eq!(self.initialize(), None, "{}", self.cluster.dump());
        assert!(self.cluster.log(0).contains("exited with code 3"), "{}", self.cluster.log(0));
        assert!(!self.cluster.path("data-n0.unfinished").exists());
        fs::remove_file(self.cluster.path("calls")).unwrap();
    }

    /// While the method runs: told to end, the agent leaves nothing behind; killed, the next one begins anew.
    async fn in_the_command(&mut self) {
        self.cluster.start(0);
        let script = self.wait_calls(&["fill"]).await;
        self.wait_file("data-n0/half").await;
        assert_eq!(self.initialize().as_deref(), Some(""));
        self.cluster.terminate_agent(0, LONG);
        self.cluster.wait_process_ended(script, LONG).await;
        assert_eq!(self.initialize(), None, "{}", self.cluster.dump());
        assert!(!self.cluster.path("data-n0").exists() && self.kept("half"));
        assert!(!self.cluster.path("data-n0.unfinished").exists());

        self.cluster.start(0);
        let script = self.wait_calls(&["fill", "fill"]).await;
        self.wait_file("data-n0/half").await;
        self.cluster.kill_agent(0);
        fs::remove_dir_all(self.cluster.path("data-n0.failed")).unwrap();
        // It goes on without its agent.
        assert!(fs::read_to_string(format!("/proc/{script}/stat")).is_ok());
        assert_eq!(self.initialize().as_deref(), Some(""));
        assert_eq!(self.starts(), 0);

        self.cluster.start(0);
        self.wait_calls(&["fill", "fill", "fill"]).await;
        self.cluster.wait_process_ended(script, LONG).await;
        assert!(self.kept("half") && self.starts() == 0, "{}", self.cluster.dump());
        self.cluster.wait_log(0, "its data directory is set aside", LONG).await;
    }

    /// While the script after it runs: there is a primary, and it is not a cluster yet.
    async fn in_the_script_after_it(&mut self) {
        self.cluster.write("go", "");
        let script = self.wait_calls(&["fill", "fill", "fill", "post"]).await;
        let postmaster = self.cluster.postmaster(0).unwrap();
        self.cluster.kill_agent(0);
        assert_eq!(self.initialize().as_deref(), Some(""));
        self.cluster.start(0);
        self.wait_calls(&["fill", "fill", "fill", "post", "fill", "post"]).await;
        self.cluster.wait_process_ended(script, LONG).await;
        assert!(self.kept("PG_VERSION") && !self.kept("half"), "{}", self.cluster.dump());
        assert_ne!(self.cluster.postmaster(0), Some(postmaster), "{}", self.cluster.dump());
        assert_eq!(self.starts(), 2);
        assert!(self.cluster.get(0, "/primary").await.is_none_or(|(code, _)| code == 503));

        self.cluster.write("go-post", "");
        assert_eq!(self.cluster.wait_leader(LONG, |_| true).await, 0);
        let known = self.cluster.status(0).await.unwrap()["database_system_identifier"].clone();
        assert_eq!(self.initialize().as_deref(), known.as_str());
        self.cluster.until("the note is gone", LONG, async || !self.cluster.path("data-n0.unfinished").exists()).await;
        self.wait_file("events").await;
        assert_eq!(fs::read_to_string(self.cluster.path("events")).unwrap(), "on_start primary e2e\n");
        let said = "User creation is not be supported starting from v4.0.0.";
        assert_eq!(self.cluster.count_in_log(0, said), 1, "{}", self.cluster.dump());
    }

    /// A copy that was cut short is of no use, although it looks like a cluster.
    async fn in_a_copy(&mut self) {
        self.cluster.reconfigure(1, |document| document["bootstrap"]["dcs"] = other_settings());
        self.cluster.start(1);
        let script = self.wait_copies(1).await;
        self.wait_file("data-n1/half").await;
        self.cluster.kill_agent(1);
        self.cluster.start(1);
        self.wait_copies(2).await;
        self.cluster.wait_process_ended(script, LONG).await;
        self.wait_file("data-n1/half").await;
        assert_eq!(self.cluster.count_in_log(1, "postmaster pid="), 0);
        assert!(!self.cluster.log(1).contains("system ID mismatch"), "{}", self.cluster.log(1));
        self.cluster.kill_agent(1);
        self.cluster.write("go-copy", "");
        self.cluster.start(1);
        self.cluster.wait_healthy(LONG).await;
        assert!(!self.cluster.path("data-n1.unfinished").exists());
    }

    async fn wait_copies(&self, count: usize) -> u32 {
        let copies = || self.calls().into_iter().filter(|line| line.starts_with("copy")).collect::<Vec<_>>();
        self.cluster.until("a copy", LONG, async || copies().len() >= count).await;
        copies().last().unwrap().split_once(' ').unwrap().1.parse().unwrap()
    }

    /// `bootstrap.dcs` was written once; what stands in the file afterwards changes nothing.
    async fn the_initial_configuration_counts_once(&mut self) {
        let written = self.cluster.key_in_etcd("config").unwrap();
        let (_, config) = self.cluster.get(0, "/config").await.unwrap();
        let config: Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["maximum_lag_on_failover"], 7_654_321);
        assert_eq!(config["postgresql"]["parameters"]["log_connections"], "on");
        self.cluster.terminate_agent(0, LONG);
        self.cluster.reconfigure(0, |document| document["bootstrap"]["dcs"] = other_settings());
        self.cluster.start(0);
        self.cluster.wait_healthy(LONG).await;
        self.cluster.signal_agent(0, "HUP");
        self.cluster.wait_log(0, "No local configuration items changed", LONG).await;
        assert_eq!(self.cluster.key_in_etcd("config").unwrap(), written, "{}", self.cluster.dump());
        assert_eq!(self.cluster.sql(0, "SHOW work_mem").await.unwrap()[0][0].as_deref(), Some("4MB"));
    }

    async fn journals_keep_secrets(&self) {
        for i in 0..2 {
            let (_, text) = self.cluster.get(i, "/journal").await.unwrap();
            let told = [PASSWORD, "rep-pass", "rewind-pass"].into_iter().find(|password| text.contains(password));
            assert_eq!(told, None, "in the journal of n{i}");
        }
    }

    /// The server sees its agent come by the socket, also for replication; by TCP the superuser would be turned away.
    async fn by_the_socket_alone(&mut self) {
        for i in 0..2 {
            let query = "SELECT bool_and(client_addr IS NULL AND client_port = -1) FROM pg_stat_activity WHERE \
                         application_name LIKE 'Patroni %'";
            let rows = self.cluster.sql(i, query).await.unwrap();
            assert_eq!(rows[0][0].as_deref(), Some("t"), "{}", self.cluster.dump());
        }
        // Nothing streams to the one that is left: it asks its own server which timeline it is on.
        let leader = self.cluster.settled_leader(LONG).await;
        let rest = 1 - leader;
        self.cluster.kill_agent(leader);
        self.cluster.kill_postmaster(leader);
        let local = "<[local] replicator> LOG:  replication connection authorized";
        self.cluster.wait_log(rest, local, LONG).await;
        self.cluster.wait_leader(LONG, |now| now == rest).await;
        let refused = self.cluster.count_in_log(rest, "<127.0.0.1 postgres>");
        assert_eq!(refused, 0, "{}", self.cluster.dump());
    }
}

/// What nobody asked for.
fn other_settings() -> Value {
    json!({"ttl": 77, "loop_wait": 1, "retry_timeout": 3, "postgresql": {"parameters": {"work_mem": "7MB"}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_short_is_begun_anew() {
    let mut story = Story::new();
    story.a_failing_command().await;
    story.in_the_command().await;
    story.in_the_script_after_it().await;
    story.in_a_copy().await;
    story.the_initial_configuration_counts_once().await;
    story.cluster.assert_journals_replay().await;
    story.journals_keep_secrets().await;
    story.by_the_socket_alone().await;
}
