//! Fifty ways to break a configuration. Each is told in one line that names file, line, key, value and what would be
//! right.

use std::collections::BTreeMap;

use pgherd::config::LocalConfig;

use crate::stage::{self, Stage};

const GOOD: &str = "\
scope: demo
name: n1
restapi:
  listen: 127.0.0.1:8008
  connect_address: 10.0.0.1:8008
etcd3:
  hosts: [@ETCD@]
bootstrap:
  dcs: {ttl: 30}
postgresql:
  listen: 127.0.0.1:5999
  connect_address: 10.0.0.1:5999
  data_dir: @DIR@/data
  bin_dir: @BIN@
  authentication:
    superuser: {username: postgres, password: p}
    replication: {username: rep}
";

/// What is replaced, what by, the parts of the one line that must be there.
type Broken = (&'static str, &'static str, &'static [&'static str]);

const BROKEN: [Broken; 54] = [
    // Syntax: the line and column where reading stopped.
    ("scope: demo", "scope: [demo", &["broken.yml", "line 2"]),
    ("scope: demo", "scope: {demo", &["broken.yml", "line 3"]),
    ("scope: demo", "scope: 'demo", &["broken.yml", "line"]),
    ("  listen: 127.0.0.1:8008", " \tlisten: x", &["broken.yml", "line 4"]),
    ("  connect_address: 10.0.0.1:8008", "   connect_address: x", &["broken.yml", "line 5"]),
    ("name: n1", "name n1", &["broken.yml", "line 2"]),
    ("name: n1", "name: *nobody", &["broken.yml", "line 2"]),
    ("name: n1", "name: !!python/object:os.system n1", &["broken.yml", "line 2", "tag"]),
    ("name: n1", "name: n1\n---\nname: n2", &["broken.yml", "line 3", "second document"]),
    ("name: n1", "name: \u{1}", &["broken.yml", "line 2", "control character"]),
    ("name: n1", "[a, b]: n1", &["broken.yml", "line 2", "key"]),
    ("name: n1", "<<: n1", &["broken.yml", "line 2", "<<"]),
    // Shape.
    (GOOD, "- scope\n- name\n", &["broken.yml", "does not contain a dict"]),
    (GOOD, "", &["broken.yml", "does not contain a dict"]),
    (GOOD, "just text", &["broken.yml", "does not contain a dict"]),
    // Missing keys: the section's line, or the file.
    ("scope: demo\n", "", &["scope  is not defined. ", "a text", "broken.yml"]),
    ("  listen: 127.0.0.1:8008\n", "", &["restapi.listen  is not defined. ", "host:port", "broken.yml line 3"]),
    ("  data_dir: @DIR@/data\n", "", &["postgresql.data_dir  is not defined.", "broken.yml line 10"]),
    (
        " {username: rep}",
        " {password: x}",
        &["postgresql.authentication.replication.username  is not defined.", "line 17"],
    ),
    ("  dcs: {ttl: 30}", "  method: x", &["bootstrap.dcs  is not defined.", "line 8"]),
    // Types.
    ("name: n1", "name: 5", &["name 5 is not a string", "broken.yml line 2", "quote"]),
    ("name: n1", "name: on", &["name True is not a string", "broken.yml line 2", "quote"]),
    ("scope: demo", "scope: [demo]", &["scope ['demo'] is not a string", "broken.yml line 1"]),
    ("restapi:\n", "restapi: 5\nx:\n", &["restapi 5 is not a dictionary", "broken.yml line 3"]),
    ("{ttl: 30}", "[ttl]", &["bootstrap.dcs ['ttl'] is not a dictionary", "broken.yml line 9"]),
    (
        "superuser: {username: postgres, password: p}",
        "superuser: postgres:p",
        &["postgresql.authentication.superuser *** is not a dictionary", "broken.yml line 16"],
    ),
    ("password: p}", "password: 5}", &["superuser.password *** is not a string", "broken.yml line 16"]),
    (
        "{ttl: 30}",
        "{postgresql: {use_slots: 'maybe'}}",
        &["use_slots maybe is not a boolean", "line 9", "true or false"],
    ),
    ("scope: demo", "scope: demo\ntags: {clonefrom: 'yes'}", &["tags.clonefrom yes is not a boolean", "line 2"]),
    ("scope: demo", "scope: demo\nlog: {file_num: many}", &["log.file_num many is not an integer", "line 2"]),
    ("scope: demo", "scope: demo\nlog: {loggers: [a]}", &["log.loggers ['a'] is not a dictionary", "line 2"]),
    (
        "bin_dir: @BIN@",
        "bin_dir: @BIN@\n  pg_hba: local all all trust",
        &["postgresql.pg_hba", "is not a list", "line 15"],
    ),
    (
        "bin_dir: @BIN@",
        "bin_dir: @BIN@\n  pg_hba:\n  - local all all trust\n  - {a: b}",
        &["pg_hba.1 {'a': 'b'} is not a string", "line 17"],
    ),
    // Bounds.
    ("{ttl: 30}", "{ttl: 4}", &["bootstrap.dcs.ttl 4 ", "at least 5", "broken.yml line 9"]),
    ("{ttl: 30}", "{ttl: soon}", &["bootstrap.dcs.ttl soon ", "at least 5", "broken.yml line 9"]),
    ("{ttl: 30}", "{loop_wait: 0}", &["bootstrap.dcs.loop_wait 0 ", "at least 1", "broken.yml line 9"]),
    ("{ttl: 30}", "{retry_timeout: -3}", &["bootstrap.dcs.retry_timeout -3 ", "at least 1", "broken.yml line 9"]),
    (
        "{ttl: 30}",
        "{postgresql: {parameters: {max_connections: 300000}}}",
        &["bootstrap.dcs.postgresql.parameters.max_connections 300000 ", "from 1 to 262143", "broken.yml line 9"],
    ),
    ("{ttl: 30}", "{synchronous_mode: quorom}", &["synchronous_mode quorom ", "true, false or quorum", "line 9"]),
    ("{ttl: 30}", "{member_slots_ttl: 30 parsecs}", &["member_slots_ttl 30 parsecs ", "at least 0", "line 9"]),
    ("{ttl: 30}", "{standby_cluster: {port: 65536}}", &["standby_cluster.port 65536 ", "at most 65535", "line 9"]),
    ("scope: demo", "scope: demo\nlog: {level: loud}", &["log.level loud ", "one of DEBUG, INFO,", "line 2"]),
    ("scope: demo", "scope: demo\nlog: {mode: 07777}", &["log.mode 4095 ", "from 0 to 511", "line 2"]),
    ("scope: demo", "scope: demo\nlog: {format: []}", &["log.format [] ", "at least one item", "line 2"]),
    (
        "scope: demo",
        "scope: demo\nwatchdog: {mode: perhaps}",
        &["watchdog.mode perhaps ", "one of off, automatic, required", "line 2"],
    ),
    (
        "scope: demo",
        "scope: demo\ntags: {failover_priority: -1}",
        &["tags.failover_priority -1 ", "at least 0", "line 2"],
    ),
    (
        "scope: demo",
        "scope: demo\ntags: {nosync: true, sync_priority: 1}",
        &["tags  Multiple of ('nosync', 'sync_priority')", "line 2"],
    ),
    (
        "  listen: 127.0.0.1:8008",
        "  listen: 127.0.0.1:8008\n  request_queue_size: 5000",
        &["request_queue_size 5000 ", "from 0 to 4096", "line 5"],
    ),
    // Addresses, directories, programs.
    (
        "  listen: 127.0.0.1:8008",
        "  listen: 127.0.0.1:99999",
        &["restapi.listen 127.0.0.1:99999 ", "0 to 65535", "line 4"],
    ),
    ("10.0.0.1:5999", "localhost:5999", &["connect_address localhost:5999 ", "must not contain", "line 12"]),
    ("[@ETCD@]", "[@ETCD@, 127.0.0.1:1]", &["etcd3.hosts.1 127.0.0.1:1 ", "is not reachable", "line 7"]),
    (
        "bin_dir: @BIN@",
        "bin_dir: /no/such/dir",
        &["bin_dir  Directory '/no/such/dir' does not exist.", "pg_ctl", "line 14"],
    ),
    ("data_dir: @DIR@/data", "data_dir: @DIR@", &["data_dir ", "doesn't look like a valid data directory", "line 13"]),
    // What Patroni does not ask for, and this agent cannot do without.
    ("name: n1", "name: a/b", &["name: 'a/b'", "slash", "broken.yml line 2"]),
];

#[test]
fn every_fault_is_told_in_one_line_with_its_place() {
    let Some(stage) = Stage::new() else { return };
    let path = stage.write("broken.yml", GOOD);
    let args = ["--validate-config", "-i", path.to_str().unwrap()];
    let output = stage.pgherd(&args, &BTreeMap::new());
    assert!(output.status.success() && output.stderr.is_empty(), "{}", stage::stderr(&output));
    let mut wrong = Vec::new();
    for (from, to, parts) in BROKEN {
        assert!(GOOD.contains(from), "{from}");
        let text = GOOD.replacen(from, to, 1);
        stage.write("broken.yml", &text);
        let output = stage.pgherd(&args, &BTreeMap::new());
        let said = stage::stderr(&output);
        let is_told = output.status.code() == Some(1) && said.lines().count() == 1 && output.stdout.is_empty();
        if !is_told || !parts.iter().all(|part| said.contains(part)) {
            wrong.push(format!("{to:?} wants {parts:?}\n{:?}: {said}", output.status.code()));
        }
        // What is read without the check must not fall over it either.
        let _ = LocalConfig::build(&[("broken.yml".to_owned(), stage.fill(&text))], &BTreeMap::new());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let Some(stage) = Stage::new() else { return };
    std::fs::write(stage.path("binary.yml"), b"scope: \xff\xfe").unwrap();
    for (name, part) in [("none.yml", "No such file"), ("binary.yml", "UTF-8"), ("", "no *.yml or *.yaml")] {
        let dir = stage.path("inner");
        std::fs::create_dir_all(&dir).unwrap();
        let path = if name.is_empty() { dir } else { stage.path(name) };
        let output = stage.pgherd(&["--validate-config", path.to_str().unwrap()], &BTreeMap::new());
        let said = stage::stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(path.to_str().unwrap()) && said.contains(part) && said.lines().count() == 1, "{said}");
    }
}
