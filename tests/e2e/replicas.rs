//! How a replica gets its data: the configured methods, their order, their options, and where they copy from.

use std::fs;
use std::time::Duration;

use serde_json::json;

use crate::harness::{Cluster, Kind, PASSWORD, Store, stderr, stdout};

const LONG: Duration = Duration::from_secs(60);

/// Notes its arguments and what is in the data directory, then fails with half of a cluster in place.
const BROKEN: &str = r#"echo "broken $*" >> calls
for a in "$@"; do case "$a" in --datadir=*) d="${a#--datadir=}";; esac; done
mkdir -p "$d/global"; echo 15 > "$d/PG_VERSION"; touch "$d/half"
exit 3
"#;

/// Makes the replica by hand. Fails the first time, like `BROKEN`.
const COPY: &str = r#"for a in "$@"; do case "$a" in
  --datadir=*) d="${a#--datadir=}";; --connstring=*) c="${a#--connstring=}";; esac; done
echo "copy $* there=$(ls "$d" 2>/dev/null | grep -c .) half=$(ls "$d/half" 2>/dev/null | grep -c .)" >> calls
if [ ! -e copied ]; then
  touch copied; mkdir -p "$d/global"; echo 15 > "$d/PG_VERSION"; touch "$d/half"; exit 4
fi
rm -rf "$d"
BIN/pg_basebackup -D "$d" -X stream -c fast -d "$c" || exit 5
rm -rf backup; cp -r "$d" backup
"#;

/// `pg_basebackup` that says how it was called.
const WRAPPED: &str = r#"#!/bin/sh
echo "basebackup $*" >> calls
exec BIN/pg_basebackup "$@"
"#;

const RESTORE: &str = r#"echo "restore $*" >> calls
for d in "$@"; do case "$d" in --to=*) d="${d#--to=}"; break;; esac; done
mkdir -p -m 700 "$d" && cp -r backup/. "$d" && touch "$d/restored"
"#;

struct Stage {
    cluster: Cluster,
}

impl Stage {
    fn new() -> Self {
        let settings = json!({
            "ttl": 10, "loop_wait": 1, "retry_timeout": 3,
            // A member that is restored from an older copy may lead.
            "maximum_lag_on_failover": 1_073_741_824,
            "postgresql": {"use_pg_rewind": true, "parameters": {"wal_keep_size": "64MB"}}
        });
        let stage = Self { cluster: Cluster::new(Store::Etcd, &[Kind::Pgherd; 3], settings) };
        let scripts = [("broken", BROKEN), ("copy", COPY), ("wrapped", WRAPPED), ("restore", RESTORE)];
        stage.cluster.write_scripts(&scripts);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(stage.cluster.path("wrapped"), mode).unwrap();
        stage
    }

    fn calls(&self, of: &str) -> Vec<String> {
        let text = fs::read_to_string(self.cluster.path("calls")).unwrap_or_default();
        text.lines().filter_map(|line| line.strip_prefix(of)).map(|line| line.trim().to_owned()).collect()
    }

    fn data_dir(&self, i: usize) -> std::path::PathBuf {
        self.cluster.path(&format!("data-n{i}"))
    }

    fn port(&self, i: usize) -> String {
        format!("port={}", self.cluster.members[i].pg_port)
    }

    async fn wait_streaming(&self, i: usize) {
        let what = format!("n{i} streams");
        let streams = async || {
            self.cluster
                .status(i)
                .await
                .is_some_and(|status| status["replication_state"] == "streaming" && status["state"] == "running")
        };
        self.cluster.until(&what, LONG, streams).await;
    }

    /// The first method fails, so that the next has its turn; its options reach the program.
    async fn a_failing_method_falls_to_the_next(&mut self) {
        let wrapped = self.cluster.path("wrapped").display().to_string();
        self.cluster.reconfigure(1, |document| {
            document["tags"] = json!({"clonefrom": true});
            let postgresql = document["postgresql"].as_object_mut().unwrap();
            postgresql.insert("create_replica_methods".into(), json!(["broken", "basebackup"]));
            postgresql.insert("broken".into(), json!({"command": "sh broken", "level": 7, "quiet": true}));
            postgresql.insert(
                "basebackup".into(),
                json!([{"checkpoint": "fast"}, {"max-rate": "200M"}, "no-verify-checksums", {"pgdata": "/elsewhere"}]),
            );
            postgresql.insert("bin_name".into(), json!({"pg_basebackup": wrapped}));
        });
        self.cluster.start(1);
        self.wait_streaming(1).await;
        let broken = self.calls("broken");
        assert_eq!(broken.len(), 1, "{broken:?}");
        let expected = "--level=7 --quiet=True --scope=e2e --role=replica --datadir=";
        assert!(broken[0].starts_with(expected), "{broken:?}");
        assert!(broken[0].contains(&self.port(0)) && !broken[0].contains("rep-pass"), "{broken:?}");
        let basebackup = self.calls("basebackup");
        assert_eq!(basebackup.len(), 1, "{basebackup:?}");
        let options = "--checkpoint=fast --max-rate=200M --no-verify-checksums";
        assert!(basebackup[0].ends_with(options), "{basebackup:?}");
        assert!(!self.data_dir(1).join("half").exists(), "the failed method's files were removed");
        let log = self.cluster.log(1);
        for line in [
            "Error creating replica using method broken: sh broken exited with code=3",
            "pgdata option for basebackup is not allowed",
            "replica has been created using basebackup",
            "bootstrapped from leader 'n0'",
        ] {
            assert!(log.contains(line), "{line}\n{log}");
        }
    }

    /// The only method fails once: nothing is left of it, and it is tried again; the source is who offers itself.
    async fn a_failing_last_method_is_retried(&mut self) {
        self.cluster.reconfigure(2, |document| {
            let postgresql = document["postgresql"].as_object_mut().unwrap();
            postgresql.insert("create_replica_methods".into(), json!(["copy"]));
            postgresql.insert("copy".into(), json!({"command": "sh 'copy'", "keep_data": true}));
        });
        self.cluster.start(2);
        self.cluster.wait_log(2, "failed to bootstrap from replica 'n1'", LONG).await;
        self.wait_streaming(2).await;
        let calls = self.calls("copy");
        assert_eq!(calls.len(), 2, "{calls:?}");
        assert!(calls[1].ends_with("there=0 half=0"), "half of a data directory was left: {calls:?}");
        assert!(calls.iter().all(|call| call.contains(&self.port(1))), "not from the member that offers itself");
        assert!(calls[0].starts_with("--keep_data=True --scope=e2e --role=replica"), "{calls:?}");
        self.cluster.wait_log(2, "bootstrapped from replica 'n1'", LONG).await;
    }

    /// A method that keeps the data finds it there.
    async fn a_method_may_keep_the_data(&mut self) {
        let output = self.cluster.ctl(&["reinit", "e2e", "n2", "--force"]);
        assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
        self.cluster.until("the third copy", LONG, async || self.calls("copy").len() == 3).await;
        self.wait_streaming(2).await;
        assert!(!self.calls("copy")[2].contains("there=0"), "{:?}", self.calls("copy"));
        self.cluster.wait_log(2, "Leaving data directory uncleaned", LONG).await;
    }

    /// Options as a map; and a copy from the leader is a base backup whatever is configured, and whoever offers itself.
    async fn a_copy_from_the_leader(&mut self) {
        self.cluster.reconfigure(2, |document| {
            let postgresql = document["postgresql"].as_object_mut().unwrap();
            let options = json!({"checkpoint": "'fast'", "max-rate": "150M", "no-verify-checksums": true, "label": ""});
            postgresql.insert("basebackup".into(), options);
            let wrapped = self.cluster.path("wrapped").display().to_string();
            postgresql.insert("bin_name".into(), json!({"pg_basebackup": wrapped}));
        });
        let before = self.calls("basebackup").len();
        let reloads = || self.cluster.count_in_log(2, "Reloading PostgreSQL configuration");
        let reloaded = reloads();
        self.cluster.signal_agent(2, "HUP");
        self.cluster.until("a reload", LONG, async || reloads() > reloaded).await;
        let output = self.cluster.ctl(&["reinit", "e2e", "n2", "--force", "--from-leader"]);
        assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
        self.cluster.until("a base backup", LONG, async || self.calls("basebackup").len() > before).await;
        self.wait_streaming(2).await;
        let call = self.calls("basebackup").pop().unwrap();
        assert!(call.ends_with("--checkpoint=fast --max-rate=150M --no-verify-checksums"), "{call}");
        assert!(call.contains(&self.port(0)), "{call}");
        assert_eq!(self.calls("copy").len(), 3);
    }

    /// Nobody leads, and a method needs no leader: it gets only its own parameters.
    async fn without_a_leader(&mut self) {
        for i in [2, 1, 0] {
            self.cluster.terminate_agent(i, LONG);
        }
        fs::remove_dir_all(self.data_dir(2)).unwrap();
        let to = self.data_dir(2).display().to_string();
        self.cluster.reconfigure(2, |document| {
            let postgresql = document["postgresql"].as_object_mut().unwrap();
            postgresql.insert("create_replica_methods".into(), json!(["basebackup", "restore"]));
            postgresql.insert(
                "restore".into(),
                json!({"command": "sh restore", "no_leader": 1, "no_params": true, "keep_data": true, "to": to}),
            );
        });
        self.cluster.start(2);
        self.cluster.wait_log(2, "bootstrapped (without leader)", LONG).await;
        assert_eq!(self.calls("restore"), [format!("--to={to}")]);
        assert_eq!(self.cluster.wait_leader(LONG, |_| true).await, 2);
        let rows = self.cluster.sql(2, "SELECT count(*) FROM t").await.unwrap();
        assert_eq!(rows[0][0].as_deref(), Some("100"));
        assert!(self.data_dir(2).join("restored").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_made_by_the_configured_methods() {
    let mut stage = Stage::new();
    stage.cluster.start(0);
    stage.cluster.wait_leader(LONG, |_| true).await;
    stage.cluster.sql(0, "CREATE TABLE t AS SELECT generate_series(1, 100) AS id").await.unwrap();
    stage.a_failing_method_falls_to_the_next().await;
    stage.a_failing_last_method_is_retried().await;
    stage.a_method_may_keep_the_data().await;
    stage.a_copy_from_the_leader().await;
    stage.without_a_leader().await;
    let passwords = [PASSWORD, "rep-pass", "rewind-pass"];
    for i in 0..3 {
        let log = stage.cluster.log(i);
        assert!(passwords.iter().all(|password| !log.contains(password)), "a password in the log of n{i}");
    }
}
