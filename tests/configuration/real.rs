//! Configurations that users have, read as Patroni reads them: the merged document, the problems that
//! `--validate-config` tells, and the effective settings.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use pgherd::config::schema::Strictness;
use pgherd::config::{Credentials, Dynamic, LocalConfig, PostgresConfig, overlay};
use serde_json::{Map, Value, json};

use crate::stage::{self, Stage};

const FILES: [&str; 10] = [
    "debian.yml",
    "quoted.yml",
    "anchors.yml",
    "octal.yml",
    "duplicates.yml",
    "old_layout.yml",
    "odd_scalars.yml",
    "nulls.yml",
    "large.yml",
    "json.yml",
];

struct Case {
    name: String,
    path: Option<PathBuf>,
    environment: BTreeMap<String, String>,
}

fn variables(stage: &Stage) -> BTreeMap<String, String> {
    let text = stage.fill(&fs::read_to_string(stage::fixture("environment.env")).unwrap());
    text.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn cases(stage: &Stage) -> Vec<Case> {
    let case = |name: &str, path: Option<PathBuf>, environment: BTreeMap<String, String>| Case {
        name: name.to_owned(),
        path,
        environment,
    };
    let mut cases: Vec<Case> =
        FILES.iter().map(|name| case(name, Some(stage.write_fixture(name)), BTreeMap::new())).collect();
    for name in ["00-base.yml", "10-node.yaml", "20-last.yml", "README.txt"] {
        stage.write_fixture(&format!("directory/{name}"));
    }
    let directory = stage.path("directory");
    cases.push(case("a directory", Some(directory.clone()), BTreeMap::new()));
    cases.push(case("variables alone", None, variables(stage)));
    cases.push(case("a directory with variables over it", Some(directory), variables(stage)));
    cases.push(case("a path that leads nowhere", Some("/no/such/file.yml".into()), variables(stage)));
    let whole = fs::read_to_string(stage.path("quoted.yml")).unwrap();
    let mut environment = variables(stage);
    environment.insert("PATRONI_CONFIGURATION".to_owned(), whole);
    cases.push(case("a document in a variable", None, environment));
    cases
}

#[test]
fn files_are_read_as_patroni_reads_them() {
    let Some(stage) = Stage::new() else { return };
    let cases = cases(&stage);
    let input: Vec<Value> =
        cases.iter().map(|case| json!({"path": case.path, "environment": case.environment})).collect();
    let Some(answers) = stage::ask_python(&stage::fixture("as_patroni.py"), &json!(input), &stage.bin) else { return };
    let mut differences = Vec::new();
    for (case, theirs) in cases.iter().zip(answers.as_array().unwrap()) {
        let files: Vec<(String, String)> = texts(case);
        let whole = overlay::assemble(&files, &case.environment).unwrap();
        let mut compare = |what: &str, ours: Value, theirs: Value| {
            if ours != theirs {
                differences.push(format!("{}: {what}\n  ours:   {ours}\n  theirs: {theirs}", case.name));
            }
        };
        compare("document", Value::Object(whole.document), theirs["local"].clone());
        let strictness = Strictness { ignore_listen_ports: true };
        let verdict = pgherd::agent::validate::validate(case.path.as_deref(), &case.environment, strictness);
        compare("problems", json!(patronis_part(&verdict.errors)), without_secrets(&theirs["problems"]));
        let ours = effective(&files, &case.environment);
        for (key, ours) in &ours {
            compare(key, ours.clone(), their_setting(&theirs["effective"], key));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

fn texts(case: &Case) -> Vec<(String, String)> {
    let Some(path) = case.path.as_ref().filter(|path| path.exists()) else { return Vec::new() };
    let mut paths = vec![path.clone()];
    if path.is_dir() {
        paths = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|e| e != "txt"));
        paths.sort();
    }
    paths.iter().map(|path| (path.display().to_string(), fs::read_to_string(path).unwrap())).collect()
}

/// Without what ours say besides.
fn patronis_part(lines: &[String]) -> Vec<String> {
    lines
        .iter()
        .map(|line| line.rsplit_once(" [expected ").map_or(line.as_str(), |(line, _)| line).to_owned())
        .collect()
}

/// Ours never show a password.
fn without_secrets(problems: &Value) -> Value {
    let hide = |line: &Value| {
        let words: Vec<&str> = line.as_str().unwrap().splitn(3, ' ').collect();
        if words[0].ends_with("password") { json!(format!("{} *** {}", words[0], words[2])) } else { line.clone() }
    };
    problems.as_array().unwrap().iter().map(hide).collect()
}

/// The settings that an agent acts by, by a path in Patroni's effective configuration.
fn effective(files: &[(String, String)], environment: &BTreeMap<String, String>) -> BTreeMap<&'static str, Value> {
    let (local, _) = LocalConfig::build(files, environment).unwrap();
    let dynamic = local.bootstrap.as_ref().map(|bootstrap| bootstrap.dcs.clone()).unwrap_or_default();
    let (settings, _) = Dynamic::from_document(&dynamic);
    let (server, _) = PostgresConfig::build(&local, &dynamic).unwrap();
    let auth = |user: &Option<(String, pgherd::config::Secret)>| {
        user.as_ref().map(|(name, password)| format!("{name}:{}", password.reveal()))
    };
    let parameters: BTreeMap<String, &String> =
        server.parameters.iter().map(|(name, value)| (name.to_lowercase(), value)).collect();
    let settings = [
        ("name", json!(local.name.as_str())),
        ("scope", json!(local.scope)),
        ("namespace", json!(local.namespace)),
        ("ttl", json!(settings.ttl.as_secs())),
        ("loop_wait", json!(settings.loop_wait.as_secs())),
        ("retry_timeout", json!(settings.retry_timeout.as_secs())),
        ("restapi.listen", json!(local.restapi.listen)),
        ("restapi.connect_address", json!(local.restapi.connect_address)),
        ("restapi.auth", json!(auth(&local.restapi.authentication))),
        ("restapi.certfile", json!(local.restapi.certfile)),
        ("restapi.allowlist", json!(local.restapi.allowlist)),
        ("ctl.auth", json!(auth(&local.ctl.authentication))),
        ("tags", Value::Object(local.tags.0.clone())),
        ("postgresql.listen", json!(format!("{}:{}", server.listen_addresses, server.port))),
        ("postgresql.connect_address", json!(server.connect_address)),
        ("postgresql.proxy_address", json!(server.proxy_address)),
        ("postgresql.data_dir", json!(server.data_dir)),
        ("postgresql.config_dir", json!(server.config_dir)),
        ("postgresql.bin_dir", json!(server.bin_dir)),
        ("postgresql.bin_name", json!(server.bin_name)),
        ("postgresql.pgpass", json!(server.pgpass)),
        ("postgresql.authentication.superuser", user(Some(&server.superuser))),
        ("postgresql.authentication.replication", user(Some(&server.replication))),
        ("postgresql.authentication.rewind", user(server.rewind.as_ref())),
        ("postgresql.use_pg_rewind", json!(server.use_pg_rewind)),
        ("postgresql.use_slots", json!(server.use_slots)),
        ("postgresql.use_unix_socket", json!(server.use_unix_socket)),
        ("postgresql.pg_hba", json!(server.pg_hba)),
        ("postgresql.pg_ident", json!(server.pg_ident)),
        ("postgresql.create_replica_methods", json!(server.create_replica_methods)),
        ("postgresql.callbacks", json!(server.callbacks)),
        ("postgresql.recovery_conf", json!(server.recovery_conf)),
        ("postgresql.parameters", without_own(json!(parameters))),
    ];
    settings.into_iter().collect()
}

fn user(credentials: Option<&Credentials>) -> Value {
    let Some(credentials) = credentials else { return Value::Null };
    let mut all = credentials.options.clone();
    all.extend(credentials.username.iter().map(|name| ("username".to_owned(), name.clone())));
    all.extend(credentials.password.iter().map(|word| ("password".to_owned(), word.reveal().to_owned())));
    json!(all)
}

/// Without the parameters that an agent gives itself.
fn without_own(parameters: Value) -> Value {
    let Value::Object(mut map) = parameters else { return parameters };
    // Two names of one level since PostgreSQL 9.6; Patroni's default is the old one.
    if map.get("wal_level") == Some(&json!("hot_standby")) {
        map.insert("wal_level".to_owned(), json!("replica"));
    }
    map.retain(|name, _| !["listen_addresses", "port", "cluster_name"].contains(&name.as_str()));
    Value::Object(map)
}

/// The same setting as Patroni has it, in the form in which it acts on it.
fn their_setting(effective: &Value, path: &str) -> Value {
    let get =
        |path: &str| path.split('.').try_fold(effective, |value, key| value.get(key)).cloned().unwrap_or_default();
    let found = get(path);
    let is_empty = found.is_null() || found == json!({}) || found == json!("") || found == json!([]);
    match path {
        "namespace" if is_empty => json!("service"),
        "restapi.allowlist" if is_empty => json!([]),
        "ctl.auth" if is_empty => get("restapi.auth"),
        "postgresql.config_dir" if is_empty => get("postgresql.data_dir"),
        "postgresql.bin_dir" => found,
        "postgresql.create_replica_methods" if is_empty => match get("postgresql.create_replica_method") {
            Value::Null => json!(["basebackup"]),
            old => old,
        },
        "postgresql.bin_name" | "postgresql.callbacks" | "postgresql.recovery_conf" | "tags" if is_empty => json!({}),
        "postgresql.use_pg_rewind" | "postgresql.use_unix_socket" | "postgresql.use_slots" => {
            json!(["true", "on", "yes", "1"].contains(&text(&found).to_lowercase().as_str()))
        }
        path if path.starts_with("postgresql.authentication.") && !is_empty => {
            let Value::Object(map) = &found else { return found };
            let given = map.iter().filter(|(_, value)| !value.is_null() && **value != json!(""));
            given.map(|(key, value)| (key.clone(), json!(text(value)))).collect::<Map<_, _>>().into()
        }
        "postgresql.parameters" => {
            let lower = found.as_object().unwrap().iter().map(|(name, value)| (name.to_lowercase(), value.clone()));
            without_own(lower.collect::<BTreeMap<_, _>>().into_iter().collect::<Map<_, _>>().into())
        }
        _ if is_empty => Value::Null,
        _ => found,
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[test]
fn the_program_says_what_the_library_says() {
    let Some(stage) = Stage::new() else { return };
    let path = stage.write_fixture("anchors.yml");
    let args = ["--validate-config", "-i", "--print", path.to_str().unwrap()];
    let output = stage.pgherd(&args, &BTreeMap::from([("PATRONI_SCOPE".to_owned(), "other".to_owned())]));
    assert!(output.status.success(), "{}", stage::stderr(&output));
    assert_eq!(stage::stderr(&output), "");
    let printed = pgherd::config::yaml::read(&stage::stdout(&output)).unwrap();
    assert_eq!((&printed["scope"], &printed["tags"]["cluster"]), (&json!("other"), &json!("demo")));

    let output = stage.pgherd(&args[..2], &BTreeMap::new());
    assert_eq!(output.status.code(), Some(1));
    assert!(stage::stderr(&output).starts_with("Config is empty."), "{}", stage::stderr(&output));
}
