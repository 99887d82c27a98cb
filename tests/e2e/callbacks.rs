//! The operator's event scripts on a live cluster: which are called, in what order, with what arguments.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Cluster, Kind, Store, stderr, stdout};

const LONG: Duration = Duration::from_secs(60);

/// Notes its arguments but the first, which names the file.
const RECORD: &str = r#"to="$1"; shift; echo "$*" >> "$to""#;

/// As `RECORD`; then it fails while a file tells it to.
const BEFORE_PROMOTION: &str = r#"echo pre_promote >> "$1"
if [ -e "hang-promotion-$1" ]; then echo $$ > "promotes-$1"; fi
while [ -e "hang-promotion-$1" ]; do sleep 0.1; done
[ ! -e "refuse-$1" ]"#;

/// As `RECORD`; then it hangs while a file tells it to.
const BEFORE_STOP: &str = r#"echo before_stop >> "$1"
if [ -e "hang-stop-$1" ]; then echo $$ > "stops-$1"; fi
while [ -e "hang-stop-$1" ]; do sleep 0.1; done"#;

/// Goes on until somebody ends it.
const LONG_RUN: &str = r#"to="$1"; shift; echo "$* begins $$" >> "$to"; exec sleep 600"#;

struct Stage {
    cluster: Cluster,
    /// How many lines of each member's record were looked at.
    read: [usize; 2],
}

impl Stage {
    fn new() -> Self {
        let settings = json!({"ttl": 10, "loop_wait": 1, "retry_timeout": 3, "postgresql": {"use_pg_rewind": true}});
        let cluster = Cluster::new(Store::Etcd, &[Kind::Pgherd; 2], settings);
        let scripts = [("record", RECORD), ("pre", BEFORE_PROMOTION), ("stop", BEFORE_STOP), ("long", LONG_RUN)];
        cluster.write_scripts(&scripts);
        for i in 0..2 {
            cluster.reconfigure(i, |document| {
                let events = ["on_start", "on_stop", "on_restart", "on_reload", "on_role_change"];
                let call = |what: &str| format!("sh record events-n{i} {what}");
                document["postgresql"]["callbacks"] =
                    events.iter().map(|event| ((*event).to_owned(), json!(call("'a b'")))).collect();
                document["postgresql"]["before_stop"] = format!("sh stop events-n{i}").into();
                document["postgresql"]["pre_promote"] = format!("sh pre events-n{i}").into();
            });
        }
        Self { cluster, read: [0, 0] }
    }

    fn all_lines(&self, i: usize) -> Vec<String> {
        let text = fs::read_to_string(self.cluster.path(&format!("events-n{i}"))).unwrap_or_default();
        text.lines().map(|line| line.strip_prefix("a b ").unwrap_or(line).to_owned()).collect()
    }

    /// Everything but reloads: those have scripts of their own, and a standby is reloaded whenever it follows another.
    fn lines(&self, i: usize) -> Vec<String> {
        let lines = self.all_lines(i).into_iter().filter(|line| !line.starts_with("on_reload"));
        // A stop that was over before the key was given away says so by the role.
        lines.map(|line| line.replace("on_stop primary", "on_stop demoted")).collect()
    }

    /// What a member's scripts said since the last call is exactly this.
    async fn expect(&mut self, i: usize, events: &[&str]) {
        let wanted = self.read[i] + events.len();
        let what = format!("{events:?} on n{i}");
        self.cluster.until(&what, LONG, async || self.lines(i).len() >= wanted).await;
        let lines = self.lines(i);
        assert_eq!(lines[self.read[i]..wanted], *events, "n{i}\n{}", self.cluster.dump());
        self.read[i] = wanted;
    }

    fn reloads(&self, i: usize, role: &str) -> usize {
        self.all_lines(i).iter().filter(|line| **line == format!("on_reload {role} e2e")).count()
    }

    async fn expect_reload(&self, i: usize, role: &str, before: usize) {
        self.cluster.until(&format!("a reload of n{i}"), LONG, async || self.reloads(i, role) > before).await;
    }

    fn ctl(&self, args: &[&str]) -> String {
        let output = self.cluster.ctl(args);
        format!("{}{}", stdout(&output), stderr(&output))
    }

    async fn birth_and_reload(&mut self) {
        self.cluster.start(0);
        self.expect(0, &["on_start primary e2e"]).await;
        self.cluster.start(1);
        self.expect(1, &["on_start replica e2e"]).await;
        self.cluster.wait_healthy(LONG).await;
        let change = json!({"postgresql": {"parameters": {"work_mem": "5MB"}}});
        assert_eq!(self.cluster.request("PATCH", 0, "/config", &change).await.unwrap().0, 200);
        self.expect_reload(0, "primary", 0).await;
        self.expect_reload(1, "replica", 0).await;
    }

    async fn restarts(&mut self) {
        for (i, role) in [(1, "replica"), (0, "primary")] {
            let said = self.ctl(&["restart", "e2e", &format!("n{i}"), "--force"]);
            assert!(said.contains("Success"), "{said}");
            self.expect(i, &["before_stop", &format!("on_restart {role} e2e")]).await;
        }
        self.cluster.wait_healthy(LONG).await;
    }

    async fn a_switchover(&mut self) {
        self.cluster.switch_to(1, LONG).await;
        self.expect(1, &["pre_promote", "on_role_change primary e2e"]).await;
        self.expect(0, &["before_stop", "on_stop demoted e2e", "on_role_change replica e2e"]).await;
    }

    /// The script before the promotion says no: the candidate gives the key back, and the old leader leads again.
    async fn a_refused_promotion(&mut self) {
        self.cluster.write("refuse-events-n0", "");
        self.ctl(&["switchover", "e2e", "--leader", "n1", "--candidate", "n0", "--force"]);
        self.expect(0, &["pre_promote"]).await;
        self.cluster.wait_log(0, "because the pre-promote script failed", LONG).await;
        let events = ["before_stop", "on_stop demoted e2e", "on_role_change replica e2e"];
        self.expect(1, &events).await;
        self.expect(1, &["pre_promote", "on_role_change primary e2e"]).await;
        assert_eq!(self.cluster.settled_leader(LONG).await, 1);
    }

    /// A file that a hanging script writes its number to.
    async fn wait_hanging(&self, file: &str) -> u32 {
        let path = self.cluster.path(file);
        let read = || fs::read_to_string(&path).unwrap_or_default().trim().parse().ok();
        self.cluster.until(file, LONG, async || read().is_some()).await;
        read().unwrap()
    }

    /// The seconds that the leader key has left.
    fn left_of_the_key(&self) -> u64 {
        let lease =
            self.cluster.key_in_etcd("leader").and_then(|key| key["lease"].as_i64()).expect("there is a leader");
        let left = self.cluster.etcdctl(&["lease", "timetolive", &format!("{lease:x}"), "-w", "json"]);
        serde_json::from_str::<Value>(&left).unwrap()["ttl"].as_u64().expect("the lease lives")
    }

    /// The script before a promotion takes its time: the key is kept beside it, and an agent that is to end does not
    /// wait for it.
    async fn a_hanging_promotion(&mut self) {
        self.cluster.start(0);
        self.cluster.wait_healthy(LONG).await;
        fs::remove_file(self.cluster.path("refuse-events-n0")).unwrap();
        self.cluster.write("hang-promotion-events-n0", "");
        self.cluster.kill_agent(1);
        self.cluster.kill_postmaster(1);
        self.cluster.expire_leader_key();
        let script = self.wait_hanging("promotes-events-n0").await;
        self.cluster.terminate_agent(0, LONG);
        self.cluster.wait_process_ended(script, LONG).await;
        fs::remove_file(self.cluster.path("promotes-events-n0")).unwrap();
        self.cluster.start(0);
        let script = self.wait_hanging("promotes-events-n0").await;
        let mut least = u64::MAX;
        let renewed = async || {
            let left = self.left_of_the_key();
            let is_more = left > least;
            least = least.min(left);
            is_more
        };
        self.cluster.until("the key is given more time", LONG, renewed).await;
        let holder = self.cluster.keys().into_iter().find(|(key, _)| *key == self.cluster.key("leader"));
        assert_eq!(holder.map(|(_, name)| name).as_deref(), Some("n0"));
        fs::remove_file(self.cluster.path("hang-promotion-events-n0")).unwrap();
        assert_eq!(self.cluster.wait_leader(LONG, |_| true).await, 0);
        self.cluster.wait_process_ended(script, LONG).await;
        self.cluster.start(1);
        self.cluster.wait_healthy(LONG).await;
    }

    /// The script before a stop hangs while the key is lost: the server does not wait for it.
    async fn a_hanging_stop(&mut self) {
        self.cluster.write("hang-stop-events-n0", "");
        self.cluster.freeze_store(true);
        let script = self.wait_hanging("stops-events-n0").await;
        self.cluster.wait_process_ended(script, LONG).await;
        let primary = self.cluster.sql(0, "SELECT pg_is_in_recovery()").await;
        assert!(!primary.is_ok_and(|rows| rows[0][0].as_deref() == Some("f")), "{}", self.cluster.dump());
        assert!(self.cluster.path("hang-stop-events-n0").exists());
        fs::remove_file(self.cluster.path("hang-stop-events-n0")).unwrap();
        self.cluster.freeze_store(false);
        self.cluster.wait_healthy(LONG).await;
    }

    /// A script that still runs is ended by the next event; a reload leaves it alone.
    async fn overlaps(&mut self) {
        self.cluster.reconfigure(0, |document| {
            document["postgresql"]["callbacks"]["on_restart"] = "sh long events-n0".into();
            document["postgresql"]["parameters"]["work_mem"] = "6MB".into();
        });
        self.cluster.signal_agent(0, "HUP");
        self.cluster.wait_log(0, "Changed work_mem from '5MB' to '6MB'", LONG).await;
        let said = self.ctl(&["restart", "e2e", "n0", "--force"]);
        assert!(said.contains("Success"), "{said}");
        self.cluster.until("two more lines", LONG, async || self.lines(0).len() == self.read[0] + 2).await;
        let line = self.lines(0).pop().unwrap();
        let (event, pid) = line.rsplit_once(' ').unwrap();
        assert_eq!(event, "on_restart replica e2e begins");
        let process = std::path::PathBuf::from(format!("/proc/{pid}"));
        self.read[0] += 2;
        let before = [self.reloads(0, "replica"), self.reloads(1, "primary")];
        let change = json!({"postgresql": {"parameters": {"maintenance_work_mem": "65MB"}}});
        assert_eq!(self.cluster.request("PATCH", 1, "/config", &change).await.unwrap().0, 200);
        self.expect_reload(0, "replica", before[0]).await;
        self.expect_reload(1, "primary", before[1]).await;
        assert!(process.exists(), "the reload ended another event's script");
        self.cluster.terminate_agent(0, LONG);
        self.expect(0, &["before_stop", "on_stop replica e2e"]).await;
        self.cluster.wait_process_ended(pid.parse().unwrap(), LONG).await;
        assert!(self.cluster.log(0).contains("because it was still running"), "{}", self.cluster.log(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_hear_of_every_event() {
    let mut stage = Stage::new();
    stage.birth_and_reload().await;
    stage.restarts().await;
    stage.a_switchover().await;
    stage.a_refused_promotion().await;
    stage.overlaps().await;
    assert_eq!(stage.read, [stage.lines(0).len(), stage.lines(1).len()], "events that nobody asked for");
    stage.a_hanging_promotion().await;
    stage.a_hanging_stop().await;
}
