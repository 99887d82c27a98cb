//! Files on disk, read, changed, broken and read again.

use super::*;
use crate::config::DcsConfig;

const NODE: &str = "
scope: demo
name: n1
restapi: {listen: 127.0.0.1:8008}
etcd3: {host: 127.0.0.1:2379}
tags: {nosync: true}
postgresql:
  listen: 127.0.0.1:5432
  data_dir: /nowhere/data
  authentication: {superuser: {username: s}, replication: {username: r}}
";

fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.yml");
    fs::write(&path, text).unwrap();
    (dir, path)
}

fn read(path: &Path) -> Files {
    Files::read(Some(path), BTreeMap::new()).unwrap()
}

#[test]
fn a_broken_file_leaves_everything_as_it_was() {
    let (_dir, path) = written(NODE);
    let files = read(&path);
    let before = files.local();
    let settings = Dynamic::default();
    let node_before = files.configure(&Map::new(), &settings).node;
    let broken = [
        (NODE.replace("scope: demo", "scope: [demo"), "node.yml: line "),
        (NODE.replace("name: n1", ""), "name is not defined"),
        (NODE.replace("listen: 127.0.0.1:5432", "listen: 127.0.0.1:many"), "postgresql.listen: '127.0.0.1:many'"),
        (NODE.replace("127.0.0.1:5432", "127.0.0.1:5433\n  connect_address: a:b"), "node.yml line 9)"),
        ("- scope".to_owned(), "does not contain a dict"),
        (String::new(), "does not contain a dict"),
    ];
    for (text, expected) in broken {
        fs::write(&path, text.replace("nosync: true", "nosync: false")).unwrap();
        let error = files.reload().unwrap_err();
        assert!(error.contains(expected), "{error}");
        assert_eq!(*files.local(), *before, "{text}");
        assert_eq!(files.configure(&Map::new(), &settings).node, node_before);
    }
    fs::remove_file(&path).unwrap();
    assert!(files.reload().unwrap_err().contains("node.yml"));
    fs::write(&path, NODE.replace("nosync: true", "nosync: false")).unwrap();
    assert_eq!(files.reload(), Ok(true));
    assert_eq!(files.reload(), Ok(false));
    assert_ne!(files.local().tags, before.tags);
}

#[test]
fn a_dynamic_document_that_makes_no_server_keeps_the_addresses_told_to_others() {
    let (_dir, path) = written(NODE);
    let files = read(&path);
    let good = files.configure(&Map::new(), &Dynamic::default());
    let Value::Object(bad) = serde_json::json!({"postgresql": {"parameters": [1]}}) else { panic!("a map") };
    let configured = files.configure(&bad, &Dynamic::default());
    assert!(configured.postgres.is_none() && !configured.warnings.is_empty());
    assert_eq!(configured.node.conn_url, good.node.conn_url);
    assert!(!good.node.conn_url.is_empty());
}

#[test]
fn what_needs_a_new_start_waits_for_it() {
    let (_dir, path) = written(NODE);
    let files = read(&path);
    let changed = NODE.replace("demo", "other").replace("n1", "n2").replace("/nowhere/data", "/elsewhere");
    fs::write(&path, changed.replace("nosync: true", "nosync: false").replace("etcd3: {host", "consul: {host"))
        .unwrap();
    assert_eq!(files.reload(), Ok(true));
    let local = files.local();
    assert_eq!((local.scope.as_str(), local.name.as_str()), ("demo", "n1"));
    let DcsConfig::Etcd3(etcd) = &local.dcs else { panic!("etcd3") };
    assert_eq!(etcd.hosts, ["127.0.0.1:2379"]);
    let configured = files.configure(&Map::new(), &Dynamic::default());
    assert_eq!(configured.postgres.unwrap().data_dir, "/nowhere/data");
}

#[test]
fn another_way_to_the_same_kind_of_store_is_taken_at_once() {
    let (_dir, path) = written(NODE);
    let files = read(&path);
    fs::write(&path, NODE.replace("host: 127.0.0.1:2379", "hosts: 'a:1,b:2', username: u, password: p")).unwrap();
    assert_eq!(files.reload(), Ok(true));
    let DcsConfig::Etcd3(etcd) = &files.local().dcs else { panic!("etcd3") };
    assert_eq!((etcd.hosts.join(","), etcd.username.as_deref()), ("a:1,b:2".to_owned(), Some("u")));
}

#[test]
fn a_reload_of_the_same_settings_is_told_for_the_sake_of_the_files_they_name() {
    let (_dir, path) = written(NODE);
    let files = read(&path);
    let mut followed = files.follow();
    assert!(!followed.has_changed().unwrap());
    assert_eq!(files.reload(), Ok(false));
    assert!(followed.has_changed().unwrap());
    followed.mark_unchanged();
    fs::write(&path, "scope: [").unwrap();
    assert!(files.reload().is_err());
    assert!(!followed.has_changed().unwrap(), "nothing of what cannot be read is taken over");
}

#[test]
fn a_path_that_leads_nowhere_counts_only_without_variables() {
    let missing = Path::new("/no/such/node.yml");
    let error = texts(Some(missing), &BTreeMap::new()).unwrap_err();
    assert!(error.contains("/no/such/node.yml"), "{error}");
    let variables = BTreeMap::from([("PATRONI_SCOPE".to_owned(), "demo".to_owned())]);
    assert_eq!(texts(Some(missing), &variables), Ok(Vec::new()));
}

#[test]
fn a_directory_is_read_in_name_order() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [("b.yaml", "scope: b"), ("a.yml", "scope: a"), ("c.txt", "scope: c"), (".d.yml", "scope: d")] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let texts = |dir: &Path| texts(Some(dir), &BTreeMap::new());
    let found: Vec<String> = texts(dir.path()).unwrap().into_iter().map(|(_, text)| text).collect();
    assert_eq!(found, ["scope: d", "scope: a", "scope: b"]);
    let empty = tempfile::tempdir().unwrap();
    assert!(texts(empty.path()).unwrap_err().contains("no *.yml"));
}

#[test]
fn the_copy_beside_the_data_is_written_and_read() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    let path = dir.path().join("node.yml");
    fs::write(&path, NODE.replace("/nowhere/data", &data.display().to_string())).unwrap();
    let files = read(&path);
    let Value::Object(document) = serde_json::json!({"ttl": 20}) else { panic!("a map") };
    files.keep(&document);
    assert_eq!(fs::read_dir(&data).unwrap().count(), 0, "an empty directory stays empty");
    fs::write(data.join("PG_VERSION"), "15\n").unwrap();
    files.keep(&document);
    assert_eq!(files.last_known_dynamic(), document);
    assert_eq!(fs::read_dir(&data).unwrap().count(), 2, "no temporary file is left");
    fs::write(data.join(CACHE_FILE), "{\"ttl\": ").unwrap();
    assert_eq!(files.last_known_dynamic(), Map::new());
}
