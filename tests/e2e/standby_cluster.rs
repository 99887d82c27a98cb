//! Two clusters, of which one follows the other: replication, the way over and the way back, rows counted throughout.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Cluster, Kind, Store, stderr, stdout};

const LONG: Duration = Duration::from_secs(60);

fn settings(more: Value) -> Value {
    let mut settings = json!({
        "ttl": 20, "loop_wait": 2, "retry_timeout": 3,
        "postgresql": {"use_pg_rewind": true, "parameters": {"wal_keep_size": "64MB"}}
    });
    for (name, value) in more.as_object().unwrap() {
        settings[name] = value.clone();
    }
    settings
}

/// Waits for a condition; says what was waited for and shows the logs when it does not come.
async fn until<F: Future<Output = bool>>(clusters: &[&Cluster], what: &str, mut holds: impl FnMut() -> F) {
    let give_up = Instant::now() + LONG;
    while !holds().await {
        if Instant::now() > give_up {
            let dumps: Vec<String> = clusters.iter().map(|cluster| cluster.dump()).collect();
            panic!("{what}: not within {LONG:?}\n{}", dumps.join("\n######## the other cluster\n"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The member that leads a standby cluster and says so everywhere.
async fn standby_leader(cluster: &Cluster) -> Option<usize> {
    for i in 0..cluster.members.len() {
        let is_it = cluster.get(i, "/standby-leader").await.is_some_and(|(code, _)| code == 200);
        if is_it && cluster.status(i).await.is_some_and(|s| s["role"] == "standby_leader" && s["state"] == "running") {
            return Some(i);
        }
    }
    None
}

async fn wait_standby_leader(clusters: &[&Cluster]) -> usize {
    until(clusters, "a standby leader", || async { standby_leader(clusters[0]).await.is_some() }).await;
    standby_leader(clusters[0]).await.unwrap()
}

/// Rows on one member; nothing when it cannot be asked.
async fn rows(cluster: &Cluster, i: usize) -> Option<u64> {
    let answer = cluster.sql(i, "SELECT count(*) FROM t").await.ok()?;
    answer[0][0].as_deref()?.parse().ok()
}

async fn insert(cluster: &Cluster, i: usize, count: u64) {
    cluster.sql(i, &format!("INSERT INTO t SELECT FROM generate_series(1, {count})")).await.unwrap();
}

/// Every member of every cluster has that many.
async fn wait_rows(clusters: &[&Cluster], count: u64) {
    for cluster in clusters {
        for i in 0..cluster.members.len() {
            let what = format!("{count} rows on {} of {}", cluster.members[i].name, cluster.scope);
            until(clusters, &what, || async { rows(cluster, i).await == Some(count) }).await;
        }
    }
}

/// The slots on a member, by name.
async fn slots(cluster: &Cluster, i: usize) -> Vec<String> {
    let rows = cluster.sql(i, "SELECT slot_name FROM pg_replication_slots ORDER BY 1").await.unwrap_or_default();
    rows.into_iter().filter_map(|mut row| row.remove(0)).collect()
}

/// Where a standby streams from.
async fn sender_port(cluster: &Cluster, i: usize) -> Option<u16> {
    let answer =
        cluster.sql(i, "SELECT sender_port FROM pg_stat_wal_receiver WHERE status = 'streaming'").await.ok()?;
    answer.first()?[0].as_deref()?.parse().ok()
}

fn run(cluster: &Cluster, args: &[&str]) -> String {
    let output = cluster.ctl(args);
    let (out, err) = (stdout(&output), stderr(&output));
    assert!(output.status.success(), "{args:?}: {}\n{out}\n{err}\n{}", output.status, cluster.dump());
    out
}

/// Hands over from one cluster to the other without losing a row: first nobody writes, then the other one may.
async fn cross(from: &Cluster, to: &Cluster, slot: &str) -> (usize, usize) {
    let leader = wait_standby_leader(&[to, from]).await;
    let port = to.members[leader].pg_port.to_string();
    let remote = ["--host", "127.0.0.1", "--port", &port, "--primary-slot-name", slot, "--force"];
    let out = run(from, &[&["demote-cluster"], &remote[..]].concat());
    assert!(out.contains("cluster is successfully demoted"), "{out}");
    let out = run(to, &["promote-cluster", "--force"]);
    assert!(out.contains("cluster is successfully promoted"), "{out}");
    (to.wait_leader(LONG, |_| true).await, wait_standby_leader(&[from, to]).await)
}

async fn health_checks_say(there: &Cluster, leader: usize, replica: usize) {
    let codes = [("/primary", 503, 503), ("/leader", 200, 503), ("/replica", 503, 200), ("/standby_leader", 200, 503)];
    for (path, of_leader, of_replica) in codes {
        for (i, expected) in [(leader, of_leader), (replica, of_replica)] {
            let what = format!("{path} of {} says {expected}", there.members[i].name);
            let says = || async { there.get(i, path).await.is_some_and(|(code, _)| code == expected) };
            until(&[there], &what, says).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_follows_another_takes_over_and_hands_back() {
    let here = settings(json!({"slots": {"there": {"type": "physical"}}}));
    let here = Cluster::healthy(Store::Etcd, &[Kind::Pgherd; 2], here).await;
    let leader = here.leader().await.unwrap();
    here.sql(leader, "CREATE TABLE t ()").await.unwrap();
    insert(&here, leader, 10).await;

    let port = here.members[leader].pg_port;
    let there = settings(json!({
        "slots": {
            "here": {"type": "physical"},
            "for_standby": {"type": "physical", "cluster_type": "standby"},
            "for_primary": {"type": "physical", "cluster_type": "primary"},
        },
        "standby_cluster": {"host": "127.0.0.1", "port": port, "primary_slot_name": "there"},
    }));
    let mut there = Cluster::new(Store::Embedded, &[Kind::Pgherd; 2], there);
    for i in 0..2 {
        there.start(i);
    }
    let first = wait_standby_leader(&[&there, &here]).await;
    assert_eq!(sender_port(&there, first).await, Some(port));
    let slot = here.sql(leader, "SELECT active FROM pg_replication_slots WHERE slot_name = 'there'").await.unwrap();
    assert_eq!(slot[0][0].as_deref(), Some("t"), "the leader over there streams through its slot");
    wait_rows(&[&there, &here], 10).await;
    // The others cascade; the table and the health checks say who is what.
    let (second, its_port) = (1 - first, there.members[first].pg_port);
    until(&[&there, &here], "a cascade", || async { sender_port(&there, second).await == Some(its_port) }).await;
    health_checks_say(&there, first, second).await;
    assert!(stdout(&there.as_patronictl(&["list"])).contains("| Standby Leader |"));
    let refused = there.sql(first, "INSERT INTO t SELECT").await;
    assert!(refused.is_err(), "a standby cluster takes no rows");

    // Another member leads over there, still without a promotion.
    let body = json!({"leader": there.members[first].name, "candidate": there.members[second].name});
    let answer = there.request("POST", first, "/switchover", &body).await;
    until(&[&there, &here], &format!("the other standby leader after {answer:?}"), || async {
        standby_leader(&there).await == Some(second) && sender_port(&there, second).await == Some(port)
    })
    .await;
    insert(&here, leader, 10).await;
    wait_rows(&[&there, &here], 20).await;

    // It dies, and the first one leads again.
    there.kill_agent(second);
    there.kill_postmaster(second);
    there.expire_leader_key();
    until(&[&there, &here], "the standby leader after a failover", || async {
        standby_leader(&there).await == Some(first) && sender_port(&there, first).await == Some(port)
    })
    .await;
    there.start(second);
    until(&[&there, &here], "a cascade again", || async { sender_port(&there, second).await == Some(its_port) }).await;
    assert_eq!(slots(&there, first).await, ["for_standby", "here", &there.members[second].name]);

    // There and back again.
    let (over_there, _) = cross(&here, &there, "here").await;
    let all = ["for_primary", "for_standby", "here", &there.members[1 - over_there].name].map(str::to_owned);
    until(&[&there, &here], "the slots of a primary", || async { slots(&there, over_there).await == all }).await;
    assert_eq!(rows(&there, over_there).await, Some(20), "every row had arrived before anybody could write");
    insert(&there, over_there, 10).await;
    wait_rows(&[&here, &there], 30).await;
    let (back, follower) = cross(&there, &here, "there").await;
    assert_eq!(rows(&here, back).await, Some(30));
    insert(&here, back, 10).await;
    wait_rows(&[&there, &here], 40).await;

    // The site here is thought lost, and was not: what it wrote since is taken back.
    run(&there, &["promote-cluster", "--force"]);
    let alone = there.wait_leader(LONG, |_| true).await;
    assert_eq!(alone, follower);
    insert(&here, back, 7).await;
    insert(&there, alone, 1).await;
    let port = there.members[alone].pg_port.to_string();
    run(&here, &["demote-cluster", "--host", "127.0.0.1", "--port", &port, "--primary-slot-name", "here", "--force"]);
    wait_rows(&[&here, &there], 41).await;
    assert!((0..2).any(|i| here.log(i).contains("running pg_rewind from")), "{}", here.dump());
    here.assert_journals_replay().await;
    there.assert_journals_replay().await;
}

/// No connection between the sites: a base backup and the archive are all there is.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_lives_on_an_archive_until_it_takes_over() {
    let here = Cluster::new(Store::Embedded, &[Kind::Pgherd], settings(json!({})));
    let mut here = here;
    let archive = here.path("archive");
    here.make_dir("archive");
    let archive_command = format!("cp %p {}/%f", archive.display());
    here.reconfigure(0, |document| {
        document["postgresql"]["parameters"]["archive_mode"] = "on".into();
        document["postgresql"]["parameters"]["archive_command"] = archive_command.into();
    });
    here.start(0);
    here.wait_healthy(LONG).await;
    here.sql(0, "CREATE TABLE t ()").await.unwrap();
    insert(&here, 0, 10).await;
    let backup = here.path("backup");
    let connection = format!("host=127.0.0.1 port={} user=replicator password=rep-pass", here.members[0].pg_port);
    let taken = crate::harness::as_user(&crate::harness::pg_bin().join("pg_basebackup"))
        .args(["-X", "none", "-c", "fast", "-d", &connection, "-D"])
        .arg(&backup)
        .output()
        .unwrap();
    assert!(taken.status.success(), "{}", stderr(&taken));

    let restore = format!("cp {}/%f %p", archive.display());
    let standby = json!({"restore_command": restore, "create_replica_methods": ["copy"]});
    let mut there = Cluster::new(Store::Embedded, &[Kind::Pgherd], settings(json!({"standby_cluster": standby})));
    there.reconfigure(0, |document| {
        let command =
            format!("sh -c 'cp -a {}/. {}'", backup.display(), document["postgresql"]["data_dir"].as_str().unwrap());
        document["postgresql"]["copy"] = json!({"command": command, "no_params": true});
    });
    there.start(0);
    let leader = wait_standby_leader(&[&there, &here]).await;
    assert_eq!(there.status(leader).await.unwrap()["replication_state"], "in archive recovery");

    // The end of the WAL is archived as well, and only then has the cluster here become a standby.
    insert(&here, 0, 10).await;
    let out = run(&here, &["demote-cluster", "--restore-command", "/bin/false", "--force"]);
    assert!(out.contains("cluster is successfully demoted"), "{out}");
    assert!(here.log(0).contains("Demoting self (demote-cluster)"), "{}", here.log(0));
    wait_rows(&[&there, &here], 20).await;
    run(&there, &["promote-cluster", "--force"]);
    let leader = there.wait_leader(LONG, |_| true).await;
    assert_eq!(rows(&there, leader).await, Some(20));
    insert(&there, leader, 1).await;
}
