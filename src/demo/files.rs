//! The text of the configuration files. Pure. They are made to be read: each is a small example of its kind.

use std::path::{Path, PathBuf};

use super::place::Place;
use super::plan::{MemberPlan, Plan};

/// The cluster's name.
pub(super) const SCOPE: &str = "demo";

/// The life of the leader's lease: a dead leader is replaced after this long. Shorter than the usual 30 s, because
/// somebody is watching.
pub(super) const TTL_SECONDS: u64 = 20;

/// Every file with its permission bits; those with passwords are for the owner only.
pub(super) fn all(place: &Place, plan: &Plan) -> Vec<(PathBuf, String, u32)> {
    let member = |member: &MemberPlan| (place.config(&member.name), member_file(place, plan, member), 0o600);
    let mut files: Vec<_> = plan.members.iter().map(member).collect();
    files.push((place.ctl(), ctl_file(plan), 0o644));
    files.push((place.pgpass(), pgpass_file(plan), 0o600));
    files
}

fn member_file(place: &Place, plan: &Plan, member: &MemberPlan) -> String {
    let MemberPlan { name, port, api_port } = member;
    let store_port = plan.store_port;
    let (own, ctl) = (place.config(name), place.ctl());
    let (own, ctl) = (own.display(), ctl.display());
    let data_dir = quoted(&place.data(name));
    let bin_dir = quoted(&plan.bin_dir);
    let pgpass = quoted(&place.member(name).join("pgpass"));
    let sockets = place.sockets().map_or_else(|| "\"\"".to_owned(), |dir| quoted(&dir));
    let logs = quoted(&place.logs());
    let (superuser, replication) = (&plan.superuser_password, &plan.replication_password);
    format!(
        r#"# Member {name} of the demo cluster; its agent is `pgherd {own}`.
# Change what you like, then: pgherdctl -c {ctl} reload {SCOPE} {name}
scope: {SCOPE}
name: {name}

restapi:
  listen: 127.0.0.1:{api_port}
  connect_address: 127.0.0.1:{api_port}

# The embedded store speaks etcd's v3 API. In production this is a real etcd of three members.
etcd3:
  host: 127.0.0.1:{store_port}

# Read once, by the member that creates the cluster. What stands under `dcs` is in the store afterwards and changed
# by: pgherdctl -c {ctl} edit-config
bootstrap:
  dcs:
    ttl: {TTL_SECONDS}
    loop_wait: 5
    retry_timeout: 5
    maximum_lag_on_failover: 1048576
    postgresql:
      use_pg_rewind: true
      use_slots: true
      pg_hba:
        - local all all scram-sha-256
        - host all all 127.0.0.1/32 scram-sha-256
        - host replication replicator 127.0.0.1/32 scram-sha-256
      parameters:
        max_connections: 50
        shared_buffers: 32MB
        wal_keep_size: 64MB
        max_wal_size: 256MB
  initdb:
    - encoding: UTF8
    - locale: C
    - data-checksums

postgresql:
  listen: 127.0.0.1:{port}
  connect_address: 127.0.0.1:{port}
  data_dir: {data_dir}
  bin_dir: {bin_dir}
  pgpass: {pgpass}
  authentication:
    superuser:
      username: postgres
      password: "{superuser}"
    replication:
      username: replicator
      password: "{replication}"
  parameters:
    unix_socket_directories: {sockets}
    logging_collector: on
    log_directory: {logs}
    log_filename: {name}.postgresql.log
"#
    )
}

fn ctl_file(plan: &Plan) -> String {
    let port = plan.store_port;
    format!("# For pgherdctl -c THIS_FILE\nscope: {SCOPE}\netcd3:\n  host: 127.0.0.1:{port}\n")
}

fn pgpass_file(plan: &Plan) -> String {
    let line = |member: &MemberPlan| format!("127.0.0.1:{}:*:postgres:{}\n", member.port, plan.superuser_password);
    plan.members.iter().map(line).collect()
}

/// A connection URI that finds the leader among the members, whoever it is.
pub(super) fn uri(place: &Place, plan: &Plan) -> String {
    let hosts: Vec<String> = plan.members.iter().map(|member| format!("127.0.0.1:{}", member.port)).collect();
    let hosts = hosts.join(",");
    let pgpass = encoded(&place.pgpass());
    format!("postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write&passfile={pgpass}")
}

/// A path as a double-quoted YAML scalar, whose escapes are those of JSON.
fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.display().to_string()).to_string()
}

/// A path inside a URI.
fn encoded(path: &Path) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    path.display().to_string().bytes().map(encode).collect()
}

/// A word for a shell.
pub(super) fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/-_.,:=@%+".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DcsConfig, Dynamic, LocalConfig, PostgresConfig};

    fn plan() -> Plan {
        let member = |i: u16| MemberPlan { name: format!("herd{i}"), port: 7400 + i, api_port: 7410 + i };
        Plan {
            bin_dir: "/usr/lib/postgresql/15/bin".into(),
            store_port: 7400,
            members: (1..=3).map(member).collect(),
            superuser_password: "aa".to_owned(),
            replication_password: "bb".to_owned(),
            has_run: false,
        }
    }

    /// The agent's own reader understands every line, in a directory with an awkward name.
    #[test]
    fn the_agent_reads_what_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::claim(&dir.path().join("a \"b\" #c: 'd'")).unwrap();
        let text = member_file(&place, &plan(), &plan().members[1]);
        let built = LocalConfig::build(&[("herd2.yml".to_owned(), text)], &Default::default()).unwrap();
        let (local, findings) = built;
        assert!(findings.is_empty(), "{findings:?}");
        assert_eq!((local.scope.as_str(), local.name.as_str()), ("demo", "herd2"));
        let DcsConfig::Etcd3(etcd) = &local.dcs else { panic!("{:?}", local.dcs) };
        assert_eq!(etcd.hosts, ["127.0.0.1:7400"]);
        let bootstrap = local.bootstrap.clone().unwrap();
        let (dynamic, findings) = Dynamic::from_document(&bootstrap.dcs);
        assert!(findings.is_empty(), "{findings:?}");
        assert_eq!(dynamic.ttl.as_secs(), TTL_SECONDS);
        let (postgres, findings) = PostgresConfig::build(&local, &bootstrap.dcs).unwrap();
        assert!(findings.is_empty(), "{findings:?}");
        assert!(postgres.use_pg_rewind);
        assert_eq!((postgres.listen_addresses.as_str(), postgres.port), ("127.0.0.1", 7402));
        assert_eq!(Path::new(&postgres.data_dir), place.data("herd2"));
        assert_eq!(postgres.parameters["shared_buffers"], "32MB");
        assert_eq!(Path::new(&postgres.parameters["log_directory"]), place.logs());
    }

    #[test]
    fn passwords_are_for_the_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::claim(dir.path()).unwrap();
        for (path, text, mode) in all(&place, &plan()) {
            let has_password = text.contains("aa\"") || text.contains(":aa");
            assert_eq!(mode, if has_password { 0o600 } else { 0o644 }, "{}", path.display());
        }
    }

    #[test]
    fn words_for_shells_and_uris() {
        assert_eq!(shell_word("/var/lib/pgherd-demo"), "/var/lib/pgherd-demo");
        assert_eq!(shell_word("it's"), r"'it'\''s'");
        assert_eq!(shell_word("a&b"), "'a&b'");
        assert_eq!(encoded(Path::new("/a b/ü")), "/a%20b/%C3%BC");
    }
}
