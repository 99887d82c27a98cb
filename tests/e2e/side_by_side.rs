//! Patroni's own tool and ours under its name, given the same words on the same cluster: the same output and exit code.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use regex_lite::Regex;
use serde_json::{Value, json};

use crate::harness::{Cluster, PASSWORD, stderr, stdout, venv};

const LONG: Duration = Duration::from_secs(60);

/// Types as they are written in every format; then some that only text can show.
const SHOWN_EVERYWHERE: &str = "SELECT 1::int2 AS a, 9223372036854775807 b, 0.1::float8 c, 1e300::float8 d, \
    true e, NULL::text f, 'ünï 漢字' g, ARRAY[1,NULL,3] h, '{\"k\": [1, 2.50, null]}'::jsonb i, \
    '{\"a b\",NULL}'::text[] j, 'yes' k, ' x: y' l, 'NaN'::float8 m";
const NOT_IN_JSON: &str = "SELECT 1.50::numeric AS a, date '2026-11-20' b, timestamptz '2026-11-20 01:02:03.4+02' c, \
    '\\x00ff41'::bytea d, interval '1 day 02:03:04.5' e, '10.1.2.3/8'::inet f, int4range(1,5) g, row(1,'x') h, \
    '6ba7b810-9dad-11d1-80b4-00c04fd430c8'::uuid i, E'two\nlines\tand a tab' j";

/// A command for either tool.
struct Given<'a> {
    args: Vec<&'a str>,
    environment: Vec<(&'a str, String)>,
    input: &'a str,
}

impl<'a> Given<'a> {
    fn new(args: &[&'a str]) -> Self {
        Self { args: args.to_vec(), environment: Vec::new(), input: "" }
    }

    fn typed(args: &[&'a str], input: &'a str) -> Self {
        Self { input, ..Self::new(args) }
    }

    /// With variables instead of the password in `PGPASSWORD`.
    fn with(self, environment: &[(&'a str, &str)]) -> Self {
        let environment = environment.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self { environment, ..self }
    }

    fn run(&self, cluster: &Cluster, tool: PathBuf) -> Output {
        // Patroni's waits without a limit.
        let mut program = Command::new("timeout");
        program.arg("60").arg(tool);
        program.arg("-c").arg(cluster.path("ctl.yml")).args(&self.args).env("COLUMNS", "200");
        program.env("HOME", cluster.path("home"));
        if self.environment.is_empty() && self.args[0] == "query" {
            program.env("PGPASSWORD", PASSWORD);
        }
        program.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let path = cluster.path("typed");
        std::fs::write(&path, self.input).unwrap();
        program.stdin(Stdio::from(std::fs::File::open(path).unwrap()));
        program.output().expect("the tool runs")
    }

    /// Both tools; what our own said.
    fn same(&self, cluster: &Cluster) -> String {
        let theirs = self.run(cluster, venv("patronictl"));
        let ours = self.run(cluster, cluster.path("patronictl"));
        assert_eq!(
            without_times(&stdout(&ours)),
            without_times(&stdout(&theirs)),
            "{:?}: {}",
            self.args,
            stderr(&ours)
        );
        assert_eq!(ours.status.code(), theirs.status.code(), "{:?}: {}{}", self.args, stderr(&ours), stderr(&theirs));
        stdout(&ours)
    }

    /// Our own personality.
    fn ours(&self, cluster: &Cluster) -> Output {
        self.run(cluster, cluster.path("pgherdctl"))
    }
}

fn without_times(text: &str) -> String {
    let text = Regex::new(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{5})?").unwrap().replace_all(text, "TIME");
    let text = Regex::new(r"e\.g\. \d{4}-\d\d-\d\dT\d\d:\d\d").unwrap().replace_all(&text, "e.g. TIME");
    Regex::new(r"\b[0-9A-F]+/[0-9A-F]{6,}\b").unwrap().replace_all(&text, "LSN").into_owned()
}

/// `query` and `dsn`: whom they ask, what they print, and what they say when it fails.
pub fn sql(cluster: &Cluster) {
    std::fs::create_dir_all(cluster.path("home")).unwrap();
    let asked = |more: &[&'static str]| -> Vec<&str> {
        ["query", "-U", "postgres", "-d", "postgres"].into_iter().chain(more.iter().copied()).collect()
    };
    let same = |more: &[&'static str]| Given::new(&asked(more)).same(cluster);
    for format in ["tsv", "pretty", "json", "yaml"] {
        Given::new(&asked(&["--format"]).into_iter().chain([format, "-c", SHOWN_EVERYWHERE]).collect::<Vec<_>>())
            .same(cluster);
    }
    for format in ["tsv", "pretty", "yaml"] {
        Given::new(&asked(&["--format"]).into_iter().chain([format, "-c", NOT_IN_JSON]).collect::<Vec<_>>())
            .same(cluster);
    }
    assert_eq!(same(&["--format", "json", "-c", "SELECT 1.5::numeric"]), "");
    assert!(same(&["-c", "SELECT * FROM nosuch"]).ends_with("ERROR, SQLSTATE: 42P01\n"));
    same(&["-r", "replica", "-c", "SELECT pg_is_in_recovery(); SELECT 2"]);
    same(&["-r", "replica", "-c", "CREATE TABLE nosuch()"]);
    same(&["-m", "nobody", "-c", "SELECT 1"]);
    same(&["-c", "SELECT pg_terminate_backend(pg_backend_pid())"]);
    Given::new(&["query", "-U", "nobody", "-c", "SELECT 1"]).same(cluster);
    Given::new(&["query", "-c", "SELECT 1"]).with(&[("PGSERVICE", "nosuch")]).same(cluster);
    for role in ["leader", "primary", "standby-leader", "replica", "standby", "any"] {
        Given::new(&["dsn", "-r", role]).same(cluster);
    }
    Given::new(&["dsn", "-m", "n1"]).same(cluster);
    sql_as_ourselves(cluster);
}

fn sql_as_ourselves(cluster: &Cluster) {
    let ours = |given: Given<'_>| {
        let output = given.ours(cluster);
        (output.status.code(), stdout(&output), stderr(&output))
    };
    let asked = ["query", "-U", "postgres", "-d", "postgres", "-c"];
    let with = |sql: &'static str| Given::new(&asked.into_iter().chain([sql]).collect::<Vec<_>>());
    let (code, out, err) = ours(with("SELECT * FROM nosuch"));
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains("42P01") && err.contains("relation \"nosuch\" does not exist"), "{err}");
    let (code, out, _) = ours(with("SELECT 1.5::numeric AS n; SET a.b = 1").with(&[("PGPASSWORD", PASSWORD)]));
    assert_eq!((code, out.as_str()), (Some(0), "n\n1.5\n"));
    let json = ["query", "-U", "postgres", "-d", "postgres", "--format", "json", "-c", "SELECT 1.5::numeric AS n"];
    let (code, out, err) = ours(Given::new(&json));
    assert_eq!(code, Some(0), "{err}");
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["results"], json!([{"command": null, "columns": ["n"], "rows": [["1.5"]]}]), "{out}");

    // The password file, a section of the service file; a wrong password is an exit code of its own.
    let none = [("PGAPPNAME", "story")];
    let (code, _, err) = ours(with("SELECT 1").with(&none));
    assert_eq!(code, Some(4), "{err}");
    let (code, _, err) = ours(with("SELECT 1").with(&[("PGPASSWORD", "wrong")]));
    assert!(code == Some(4) && err.contains("28P01"), "{err}");
    let pgpass = cluster.path("home/.pgpass");
    std::fs::write(&pgpass, format!("*:*:postgres:postgres:{PASSWORD}\n")).unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&pgpass, private).unwrap();
    let (code, out, err) = ours(with("SHOW application_name").with(&none));
    assert_eq!((code, out.as_str()), (Some(0), "application_name\nstory\n"), "{err}");
    std::fs::write(
        cluster.path("home/.pg_service.conf"),
        "[story]\nuser=postgres\ndbname=postgres\napplication_name=served\n",
    )
    .unwrap();
    let serviced = Given::new(&["query", "-r", "replica", "-c", "SHOW application_name"]);
    let (code, out, err) = ours(serviced.with(&[("PGSERVICE", "story")]));
    assert_eq!((code, out.as_str()), (Some(0), "application_name\nserved\n"), "{err}");
    std::fs::remove_file(pgpass).unwrap();
    // Nobody answers there.
    let (code, _, err) = ours(with("SELECT 1").with(&[("PGHOSTADDR", "127.0.0.1"), ("PGSSLMODE", "require")]));
    assert!(code == Some(7) && err.contains("SSL was required"), "{err}");
}

/// Table and footer are what the members have written by then, which differs from moment to moment.
fn without_tables(text: &str) -> String {
    let is_table = |line: &str| line.starts_with(['|', ' ']) || line.starts_with("+-") || line.starts_with("+ ");
    let is_word = |line: &&str| !is_table(line) && !line.contains("cluster is unlocked");
    text.lines().filter(is_word).map(|line| format!("{line}\n")).collect()
}

/// A command that changes a cluster of two, by either tool in turn, each time beginning with a healthy cluster. `LEADER`
/// and `REPLICA` stand for whoever that is then. What was said, which is the same.
async fn in_turn(cluster: &Cluster, words: &str, input: &str) -> String {
    let mut said = Vec::new();
    for tool in [venv("patronictl"), cluster.path("patronictl")] {
        let leader = cluster.settled_leader(LONG).await;
        said.push(by(cluster, &tool, leader, words, input));
    }
    cluster.wait_healthy(LONG).await;
    assert_eq!(said[1], said[0], "{words}");
    said.remove(0)
}

fn by(cluster: &Cluster, tool: &Path, leader: usize, words: &str, input: &str) -> String {
    let names = [("LEADER", &cluster.members[leader].name), ("REPLICA", &cluster.members[1 - leader].name)];
    let fill = |text: &str| names.iter().fold(text.to_owned(), |text, (word, name)| text.replace(word, name));
    let (words, input) = (fill(words), fill(input));
    let output = Given::typed(&words.split(' ').collect::<Vec<_>>(), &input).run(cluster, tool.to_owned());
    let text = without_tables(&without_times(&stdout(&output)));
    let text = names.iter().fold(text, |text, (word, name)| text.replace(name.as_str(), word));
    format!("{text}[{}]", output.status.code().unwrap_or(-1))
}

/// Whatever changes a cluster of two members, whoever drives them.
pub async fn steer(cluster: &Cluster) {
    let before = cluster.leader().await;
    let said = in_turn(cluster, "switchover e2e", "\n\nnow\ny\n").await;
    assert!(said.ends_with("TIME Successfully switched over to \"REPLICA\"\n[0]"), "{said}");
    let said = in_turn(cluster, "failover e2e --candidate REPLICA --force", "").await;
    assert_eq!(said, "Current cluster topology\nTIME Successfully failed over to \"REPLICA\"\n[0]");
    assert_eq!(cluster.leader().await, before, "four moves between two members");
    let said = in_turn(cluster, "restart e2e REPLICA --force", "").await;
    assert_eq!(said, "Success: restart on member REPLICA\n[0]");
    let said = in_turn(cluster, "reinit e2e REPLICA --force --wait", "").await;
    assert!(said.ends_with("Reinitialize is completed on: REPLICA\n[0]"), "{said}");
    let said = in_turn(cluster, "reload e2e --force", "").await;
    assert_eq!(said.matches("Reload request received for member").count(), 2, "{said}");
    configuration(cluster);
    refusals(cluster).await;
    maintenance(cluster).await;
}

/// The same change from the same document makes the same document.
fn configuration(cluster: &Cluster) {
    let key = cluster.key("config");
    let config = || cluster.keys().into_iter().find(|(name, _)| *name == key).expect("a cluster has one").1;
    let (old, mut made) = (config(), Vec::new());
    let words = "edit-config e2e -s maximum_lag_on_failover=2097152 -p work_mem=8MB --force";
    for tool in [venv("patronictl"), cluster.path("patronictl")] {
        cluster.put_key(&key, &old);
        made.push((by(cluster, &tool, 0, words, ""), config()));
    }
    assert_eq!(made[0], made[1]);
    assert!(
        made[0].0.contains("+maximum_lag_on_failover: 2097152") && made[0].0.ends_with("Configuration changed\n[0]")
    );
    let ours = Given::new(&["edit-config", "e2e", "-s", "maximum_lag_on_failover=2097152", "--force"]).same(cluster);
    assert_eq!(ours, "Not changed\n");
    let ours = Given::typed(&["edit-config", "e2e", "-s", "ttl=40"], "n\n").same(cluster);
    assert!(ours.contains("+ttl: 40"), "{ours}");
}

/// What the tools, or the members, will not do. Nobody says it in other words.
async fn refusals(cluster: &Cluster) {
    let leader = cluster.settled_leader(LONG).await;
    let [leader, replica] = [leader, 1 - leader].map(|i| cluster.members[i].name.clone());
    let fill = |text: &str| text.replace("LEADER", &leader).replace("REPLICA", &replica);
    for (words, input) in [
        ("switchover e2e --leader REPLICA --force", ""),
        ("switchover e2e --leader LEADER --candidate LEADER --force", ""),
        ("switchover e2e --candidate nosuch --force", ""),
        ("switchover e2e --scheduled 2020-01-01T00:00Z --force", ""),
        ("switchover e2e", "LEADER\nREPLICA\nnow\nn\n"),
        ("failover e2e --force", ""),
        ("failover e2e --candidate LEADER --force", ""),
        ("restart e2e REPLICA --scheduled 2020-01-01T00:00Z --force", ""),
        ("restart e2e REPLICA --timeout -1 --force", ""),
        ("restart e2e -r replica --pg-version 9.5.2 --force", ""),
        ("restart e2e REPLICA --pg-version 15 --force", ""),
        ("restart e2e --pending --force", ""),
        ("restart e2e LEADER -r replica --force", ""),
        ("restart e2e REPLICA", "now\nn\n"),
        ("reinit e2e LEADER --force", ""),
        ("reinit e2e", "nosuch\n"),
        ("reload e2e nosuch --force", ""),
        ("flush e2e switchover", ""),
        ("flush e2e restart --force", ""),
        ("resume e2e", ""),
        ("demote-cluster e2e --force", ""),
        ("promote-cluster e2e --force", ""),
        ("pause nosuch", ""),
    ] {
        let (words, input) = (fill(words), fill(input));
        Given::typed(&words.split(' ').collect::<Vec<_>>(), &input).same(cluster);
    }
}

/// On and off by one tool, then by the other, and what is refused meanwhile.
async fn maintenance(cluster: &Cluster) {
    let mut said = Vec::new();
    for tool in [venv("patronictl"), cluster.path("patronictl")] {
        let paused = by(cluster, &tool, 0, "pause e2e --wait", "");
        for words in [
            "pause e2e",
            "switchover e2e --force",
            "switchover e2e --scheduled 2099-01-01T00:00Z --force",
            "restart e2e --scheduled 2099-01-01T00:00Z --force",
        ] {
            if said.is_empty() {
                Given::new(&words.split(' ').collect::<Vec<_>>()).same(cluster);
            }
        }
        said.push([paused, by(cluster, &tool, 0, "resume e2e --wait", "")]);
    }
    assert_eq!(said[0], said[1]);
    assert!(said[0][1].ends_with("Success: cluster management is resumed\n[0]"), "{said:?}");
    cluster.wait_healthy(LONG).await;
}

/// The whole cluster follows another one, and then stands on its own again.
pub async fn demote_and_promote(cluster: &Cluster) {
    let mut said = Vec::new();
    for tool in [venv("patronictl"), cluster.path("patronictl")] {
        let leader = cluster.settled_leader(LONG).await;
        let words = "demote-cluster e2e --host 127.0.0.1 --port 1 --force";
        said.push([
            by(cluster, &tool, leader, words, ""),
            by(cluster, &tool, leader, "promote-cluster e2e --force", ""),
        ]);
        cluster.wait_healthy(LONG).await;
    }
    assert_eq!(said[0], said[1]);
    assert!(said[0][0].ends_with("TIME cluster is successfully demoted\n[0]"), "{said:?}");
    assert!(said[0][1].ends_with("TIME cluster is successfully promoted\n[0]"), "{said:?}");
}

/// Scheduled events are there, and taken back.
pub async fn flush(cluster: &Cluster) {
    let leader = cluster.leader().await.unwrap();
    let name = cluster.members[leader].name.clone();
    let other = cluster.members[(leader + 1) % 3].name.clone();
    let never = "2099-01-01T00:00:00+00:00";
    for program in [venv("patronictl"), cluster.path("patronictl"), cluster.path("pgherdctl")] {
        let run = |args: &[&str]| {
            let output = Given::new(args).run(cluster, program.clone());
            assert!(output.status.success(), "{args:?}: {}{}", stdout(&output), stderr(&output));
            stdout(&output)
        };
        run(&["restart", "e2e", &other, "--scheduled", never, "--force"]);
        run(&["switchover", "e2e", "--leader", &name, "--scheduled", never, "--force"]);
        wait(cluster, |list| list.contains(never) && list.contains("Switchover scheduled at")).await;
        let said = run(&["flush", "e2e", &other, "restart", "--force"]);
        assert!(said.ends_with(&format!("Success: flush scheduled restart for member {other}\n")), "{said}");
        let said = run(&["flush", "e2e", "switchover"]);
        assert_eq!(said, "Success: scheduled switchover deleted\n");
        wait(cluster, |list| !list.contains(never) && !list.contains("Switchover scheduled at")).await;
    }
    Given::new(&["flush", "e2e", "switchover"]).same(cluster);
    Given::new(&["flush", "e2e", "restart", "--force"]).same(cluster);
    Given::typed(&["flush", "e2e", "n0", "restart"], "n\n").same(cluster);
}

async fn wait(cluster: &Cluster, holds: impl Fn(&str) -> bool) {
    let give_up = Instant::now() + LONG;
    loop {
        let list = stdout(&cluster.as_patronictl(&["list"]));
        if holds(&list) {
            return;
        }
        assert!(Instant::now() < give_up, "the events did not change:\n{list}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// `remove`, with every wrong answer before the right ones. No agent runs any more; its keys stay as they were.
pub fn remove(cluster: &Cluster, keys: &[(String, String)]) {
    let words = ["remove", "e2e"];
    keys.iter().for_each(|(key, value)| cluster.put_key(key, value));
    // With whatever the agents wrote last; a key that is written anew belongs to no lease.
    let keys = cluster.keys();
    let fill = || keys.iter().for_each(|(key, value)| cluster.put_key(key, value));
    fill();
    let leader = keys.iter().find(|(key, _)| key.ends_with("/leader")).map(|(_, name)| name.clone()).unwrap();
    let aware = "Yes I am aware";
    for wrong in ["other\n".to_owned(), "e2e\nyes\n".to_owned(), format!("e2e\n{aware}\nnobody\n"), "e2e\n".to_owned()]
    {
        Given::typed(&words, &wrong).same(cluster);
        assert_eq!(cluster.keys().len(), keys.len(), "a wrong answer removes nothing");
    }
    let right = format!("e2e\n{aware}\n{leader}\n");
    let mut said = Vec::new();
    for program in [venv("patronictl"), cluster.path("patronictl")] {
        fill();
        let output = Given::typed(&words, &right).run(cluster, program);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(cluster.keys(), Vec::new(), "nothing is left");
        said.push(without_times(&stdout(&output)));
    }
    assert_eq!(said[0], said[1]);
    Given::typed(&words, &format!("e2e\n{aware}\n")).same(cluster);

    // Our own: a script says the name twice; a cluster that is led is not removed by mistake.
    fill();
    for (args, code) in [
        (&["remove", "e2e"] as &[&str], 2),
        (&["remove", "e2e", "--confirm=other"], 2),
        (&["remove", "e2e", "--confirm=e2e"], 1),
        (&["remove", "nosuch", "--confirm=nosuch"], 3),
    ] {
        let output = Given::new(args).ours(cluster);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        assert_eq!(cluster.keys().len(), keys.len());
    }
    let output = Given::new(&["remove", "e2e", "--confirm=e2e", "--force"]).ours(cluster);
    assert!(output.status.success() && cluster.keys().is_empty(), "{}", stderr(&output));
}
