//! Configurations made for an operator: what is known goes in, the rest is marked to be filled in. Layout and values
//! are those of Patroni's generator, so that tools that post-process its output work on ours.

use serde_json::{Map, Value, json};

use super::merge;
use super::parameters::CONTROLLED;
use super::yaml;

/// Stands where only the operator knows the value.
pub const FILL_IN: &str = "#FIXME";

/// Top-level sections before `bootstrap`, in order.
const BEFORE: [&str; 14] = [
    "scope",
    "namespace",
    "name",
    "log",
    "restapi",
    "ctl",
    "citus",
    "consul",
    "etcd",
    "etcd3",
    "exhibitor",
    "kubernetes",
    "raft",
    "zookeeper",
];
/// And after it.
const AFTER: [&str; 3] = ["postgresql", "watchdog", "tags"];

const ABOUT_BOOTSTRAP: &str = "
# Read only when this member creates the cluster. Once there is one, changes below `bootstrap` have no effect.
bootstrap:";
const ABOUT_DCS: &str =
    "  # Becomes the configuration of the whole cluster, kept in the DCS under /<namespace>/<scope>/config.
  # Later changes are made there, with `pgherdctl edit-config`, and reach every member.
  dcs:";

/// The host's name and the address that others reach it at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// An address.
    pub address: String,
}

impl Host {
    /// Nothing is known.
    pub fn unknown() -> Self {
        Self { name: FILL_IN.to_owned(), address: FILL_IN.to_owned() }
    }
}

/// What every generated configuration starts from, with the variables' document laid over it.
pub fn template(host: &Host, variables: &Map<String, Value>) -> Map<String, Value> {
    let address = |port: u16| format!("{}:{port}", host.address);
    let Value::Object(mut document) = json!({
        "scope": FILL_IN,
        "name": host.name,
        "restapi": {"connect_address": address(8008), "listen": address(8008)},
        "log": {
            "type": "plain",
            "level": "INFO",
            "traceback_level": "ERROR",
            "format": "%(asctime)s %(levelname)s: %(message)s",
            "max_queue_size": 1000,
        },
        "postgresql": {
            "data_dir": FILL_IN,
            "connect_address": address(5432),
            "listen": address(5432),
            "bin_dir": "",
            "authentication": {
                "superuser": {"username": "postgres", "password": FILL_IN},
                "replication": {"username": "replicator", "password": FILL_IN},
            },
        },
        "tags": {
            "failover_priority": 1,
            "sync_priority": 1,
            "noloadbalance": false,
            "clonefrom": true,
            "nosync": false,
            "nostream": false,
        },
        "bootstrap": {
            "dcs": {
                "ttl": 30,
                "loop_wait": 10,
                "retry_timeout": 10,
                "postgresql": {"use_slots": true, "parameters": shared_parameters()},
            },
        },
    }) else {
        return Map::new();
    };
    merge::patch(&mut document, variables);
    document
}

/// The controlled parameters with their defaults. How much WAL is kept differs by version and comes later.
fn shared_parameters() -> Map<String, Value> {
    let known = CONTROLLED.iter().filter(|parameter| !parameter.name.starts_with("wal_keep_"));
    let pair = |name: &str, default: &str| {
        let value = default.parse::<i64>().map_or_else(|_| Value::from(default), Value::from);
        (name.to_owned(), value)
    };
    known.filter_map(|parameter| Some(pair(parameter.name, parameter.default?))).collect()
}

/// Fills the template in for a server of this version (`server_version_num`).
pub fn complete_sample(document: &mut Map<String, Value>, version: u32) {
    let method = if version >= 100_000 { "scram-sha-256" } else { "md5" };
    let wal_keep = if version < 130_000 { ("wal_keep_segments", json!(8)) } else { ("wal_keep_size", json!("128MB")) };
    let parameters = map_at(document, &["bootstrap", "dcs", "postgresql", "parameters"]);
    parameters.insert(wal_keep.0.to_owned(), wal_keep.1);
    let wal_level = if version < 90_600 { "hot_standby" } else { "replica" };
    parameters.insert("wal_level".to_owned(), json!(wal_level));
    let hints = parameters.get("wal_log_hints").is_some_and(|value| value == "on");
    map_at(document, &["bootstrap", "dcs", "postgresql"]).insert("use_pg_rewind".to_owned(), json!(hints));

    let section = map_at(document, &["postgresql"]);
    let user = section.get("authentication").and_then(|users| users.get("replication")?.get("username"));
    let user = user.and_then(Value::as_str).unwrap_or("replicator").to_owned();
    section.insert("parameters".to_owned(), json!({"password_encryption": method}));
    let lines = [format!("host all all all {method}"), format!("host replication {user} all {method}")];
    section.insert("pg_hba".to_owned(), json!(lines));
    if version >= 110_000 {
        let user = map_at(document, &["postgresql", "authentication", "rewind"]);
        user.entry("username").or_insert_with(|| json!("rewind_user"));
        user.entry("password").or_insert_with(|| json!(FILL_IN));
    }
}

/// The mapping at a path; whatever else stands in the way is replaced.
pub fn map_at<'a>(document: &'a mut Map<String, Value>, path: &[&str]) -> &'a mut Map<String, Value> {
    let mut map = document;
    for step in path {
        let entry = map.entry(*step).or_insert_with(|| json!({}));
        if !entry.is_object() {
            *entry = json!({});
        }
        map = entry.as_object_mut().expect("made a mapping just now");
    }
    map
}

/// The document as text: sections in a fixed order, a blank line before each, keys sorted inside, no newline at the
/// end.
pub fn layout(document: &Map<String, Value>) -> String {
    let mut blocks = Vec::new();
    let add = |blocks: &mut Vec<String>, names: &[&str]| {
        for name in names {
            let Some(value) = document.get(*name) else { continue };
            if value.is_object() {
                blocks.push(String::new());
            }
            blocks.push(block(name, value, ""));
        }
    };
    add(&mut blocks, &BEFORE);
    if let Some(bootstrap) = document.get("bootstrap") {
        blocks.push(ABOUT_BOOTSTRAP.to_owned());
        if let Some(Value::Object(dcs)) = bootstrap.get("dcs") {
            blocks.push(ABOUT_DCS.to_owned());
            let first = ["loop_wait", "retry_timeout", "ttl"];
            let timing = first.into_iter().filter_map(|name| Some((name, dcs.get(name)?)));
            let others =
                dcs.iter().map(|(name, value)| (name.as_str(), value)).filter(|(name, _)| !first.contains(name));
            blocks.extend(timing.chain(others).map(|(name, value)| block(name, value, "    ")));
        }
    }
    add(&mut blocks, &AFTER);
    blocks.join("\n")
}

fn block(name: &str, value: &Value, indent: &str) -> String {
    let text = yaml::write(&json!({name: value}), true);
    let lines: Vec<String> = text.trim_end().lines().map(|line| format!("{indent}{line}")).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(version: u32) -> Map<String, Value> {
        let host = Host { name: "db1".into(), address: "10.0.0.1".into() };
        let Value::Object(variables) = json!({"etcd3": {"host": "e:2379"}, "scope": "demo"}) else { panic!("a map") };
        let mut document = template(&host, &variables);
        complete_sample(&mut document, version);
        document
    }

    #[test]
    fn what_is_written_reads_back() {
        let document = sample(150_000);
        let text = layout(&document);
        assert_eq!(yaml::read(&text).unwrap(), Value::Object(document));
        assert!(text.starts_with("scope: demo\nname: db1\n\nlog:\n  format: "), "{text}");
        assert!(text.contains("\n\netcd3:\n  host: e:2379\n\n# Read only when"), "{text}");
        assert!(
            text.contains("  dcs:\n    loop_wait: 10\n    retry_timeout: 10\n    ttl: 30\n    postgresql:\n"),
            "{text}"
        );
        assert!(text.ends_with("nosync: false\n  sync_priority: 1"), "{text}");
    }

    #[test]
    fn versions_differ() {
        let new = layout(&sample(150_000));
        assert!(new.contains("wal_keep_size: 128MB") && new.contains("scram-sha-256") && new.contains("rewind_user"));
        let old = layout(&sample(90_600));
        assert!(old.contains("wal_keep_segments: 8") && old.contains(" md5") && !old.contains("rewind_user"));
    }
}
