//! Patroni's own tool and ours under its name, given the same words on the same cluster: the same output and exit code.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use regex::Regex;
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
