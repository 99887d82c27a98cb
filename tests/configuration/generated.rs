//! Configurations that we make, beside those that Patroni makes.

use std::collections::BTreeMap;
use std::process::Command;

use pgherd::config::yaml;
use serde_json::Value;

use crate::stage::{self, Stage};

fn variables() -> BTreeMap<String, String> {
    let pairs = [
        ("PATRONI_SCOPE", "demo"),
        ("PATRONI_ETCD3_HOST", "127.0.0.1:2379"),
        ("PATRONI_REPLICATION_USERNAME", "rep"),
        ("PATRONI_SUPERUSER_PASSWORD", "secret"),
        ("PATRONI_REWIND_USERNAME", "rew"),
    ];
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn patroni(stage: &Stage, args: &[&str], environment: &BTreeMap<String, String>) -> Option<Value> {
    let mut command = Command::new(stage::venv("patroni")?);
    command.args(args).env_clear().envs(environment);
    let path = format!("{}:/usr/bin:/bin", stage.bin.display());
    let output = command.env("PATH", path).env("LC_ALL", "C.UTF-8").output().unwrap();
    assert!(output.status.success(), "{}", stage::stderr(&output));
    Some(yaml::read(&stage::stdout(&output)).unwrap())
}

#[test]
fn the_sample_is_patronis() {
    let Some(stage) = Stage::new() else { return };
    for environment in [BTreeMap::new(), variables()] {
        let Some(theirs) = patroni(&stage, &["--generate-sample-config"], &environment) else { return };
        let output = stage.pgherd(&["--generate-sample-config"], &environment);
        assert!(output.status.success(), "{}", stage::stderr(&output));
        let text = stage::stdout(&output);
        assert_eq!(yaml::read(&text).unwrap(), theirs);
        assert!(!text.ends_with('\n'));

        let path = stage.path("new/dir/sample.yml");
        let output = stage.pgherd(&["--generate-sample-config", path.to_str().unwrap()], &environment);
        assert!(output.status.success() && output.stdout.is_empty(), "{}", stage::stderr(&output));
        assert_eq!(std::fs::read_to_string(path).unwrap(), text);
    }
}

#[test]
fn without_a_server_program_there_is_no_sample() {
    let Some(stage) = Stage::new() else { return };
    let environment = BTreeMap::from([("PATRONI_POSTGRESQL_BIN_DIR".to_owned(), "/no/such".to_owned())]);
    let output = stage.pgherd(&["--generate-sample-config"], &environment);
    let said = stage::stderr(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("Failed to get postgres version") && said.contains("/no/such"), "{said}");
}
