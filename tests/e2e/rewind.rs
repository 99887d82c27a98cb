//! A former leader with WAL that nobody else has: rewound, cloned anew, or left alone, as configured, and never tried
//! again and again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Cluster, Kind, Store, as_user, pg_bin, signal, stderr, stdout};

const LONG: Duration = Duration::from_secs(60);

/// Rewinding fails as long as this file is there.
const SABOTAGE: &str = "sabotage";

/// The member that may throw its data away; the other one may not.
const MAY_REMOVE: usize = 1;

fn settings() -> Value {
    json!({
        "ttl": 20, "loop_wait": 2, "retry_timeout": 5, "primary_start_timeout": 0,
        "maximum_lag_on_failover": 1_073_741_824,
        "postgresql": {"use_pg_rewind": true, "parameters": {
            "archive_mode": "on", "wal_keep_size": "64MB", "wal_retrieve_retry_interval": "200ms"
        }}
    })
}

/// Two members with an archive in common, and a `pg_rewind` that can be made to fail.
async fn archiving() -> Cluster {
    let mut cluster = Cluster::new(Store::Etcd, &[Kind::Pgherd; 2], settings());
    let archive = cluster.path("archive");
    assert!(as_user("/usr/bin/mkdir".as_ref()).arg(&archive).status().unwrap().success());
    let (flag, real) = (cluster.path(SABOTAGE), pg_bin().join("pg_rewind"));
    cluster.write(
        "pg_rewind",
        &format!(
            "#!/bin/sh\n[ \"$1\" = --help ] || [ ! -e {} ] || {{ echo 'made to fail' >&2; exit 1; }}\nexec {} \"$@\"\n",
            flag.display(),
            real.display()
        ),
    );
    fs::set_permissions(cluster.path("pg_rewind"), fs::Permissions::from_mode(0o755)).unwrap();
    for i in 0..2 {
        let program = cluster.path("pg_rewind");
        cluster.reconfigure(i, |document| {
            let postgresql = &mut document["postgresql"];
            postgresql["bin_name"] = json!({"pg_rewind": program});
            postgresql["parameters"]["archive_command"] =
                json!(format!("test -f {0}/%f || cp %p {0}/%f", archive.display()));
            postgresql["recovery_conf"] = json!({"restore_command": format!("cp {}/%f %p", archive.display())});
            postgresql["remove_data_directory_on_rewind_failure"] = json!(i == MAY_REMOVE);
            postgresql["remove_data_directory_on_diverged_timelines"] = json!(i == MAY_REMOVE);
        });
        cluster.start(i);
    }
    cluster.wait_healthy(LONG).await;
    cluster
}

/// Suspends the WAL senders: nobody receives what is written from here on.
async fn silence(cluster: &Cluster, leader: usize) -> Vec<u32> {
    let rows = cluster.sql(leader, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walsender'").await.unwrap();
    let pids: Vec<u32> = rows.iter().map(|row| row[0].as_deref().unwrap().parse().unwrap()).collect();
    assert!(!pids.is_empty());
    pids.iter().for_each(|pid| signal(*pid, "STOP"));
    pids
}

/// The server crashes; the other member leads.
async fn crash(cluster: &Cluster, leader: usize, silenced: &[u32]) {
    cluster.kill_postmaster(leader);
    silenced.iter().for_each(|pid| signal(*pid, "KILL"));
    cluster.wait_leader(LONG, |now| now != leader).await;
}

/// The leader crashes with WAL that nobody else has (rows of the table `extra`), and another member leads.
pub async fn crash_with_extra_wal(cluster: &Cluster) -> usize {
    let leader = cluster.leader().await.unwrap();
    let silenced = silence(cluster, leader).await;
    cluster.sql(leader, "INSERT INTO extra SELECT generate_series(1, 1000)").await.unwrap();
    crash(cluster, leader, &silenced).await;
    leader
}

/// How many lines of a member's log say this.
pub fn count(cluster: &Cluster, i: usize, words: &str) -> usize {
    let log = fs::read_to_string(cluster.path(&format!("{}.log", cluster.members[i].name))).unwrap();
    log.lines().filter(|line| line.contains(words)).count()
}

/// How often rewinding failed so far on the present leader.
async fn failures(cluster: &Cluster) -> usize {
    count(cluster, cluster.leader().await.unwrap(), "pg_rewind exit code=1")
}

async fn value(cluster: &Cluster, i: usize, query: &str) -> String {
    cluster.sql(i, query).await.unwrap()[0][0].clone().unwrap()
}

/// Nothing of what only the former leader had is left.
async fn rejoined(cluster: &Cluster, i: usize) {
    cluster.wait_healthy(LONG).await;
    assert_ne!(cluster.leader().await, Some(i));
    assert_eq!(value(cluster, i, "SELECT count(*) FROM extra").await, "0", "{}", cluster.dump());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diverged_leader_ends_as_configured() {
    let cluster = archiving().await;
    cluster.sql(cluster.leader().await.unwrap(), "CREATE TABLE extra (id int)").await.unwrap();
    missing_wal_comes_from_the_archive(&cluster).await;
    fs::write(cluster.path(SABOTAGE), "").unwrap();
    for _ in 0..2 {
        if cluster.leader().await == Some(MAY_REMOVE) {
            failed_rewind_makes_way_for_a_clone(&cluster).await;
        } else {
            failed_rewind_stays_down(&cluster).await;
        }
    }
    cluster.switch_to(MAY_REMOVE, LONG).await;
    divergence_without_rewind_makes_way_for_a_clone(&cluster).await;
}

/// What `pg_rewind` has to read is not on the former leader any more, but in the archive.
async fn missing_wal_comes_from_the_archive(cluster: &Cluster) {
    let leader = cluster.leader().await.unwrap();
    let silenced = silence(cluster, leader).await;
    let last = value(cluster, leader, "SELECT pg_walfile_name(pg_switch_wal())").await;
    cluster.sql(leader, "CHECKPOINT").await.unwrap();
    let give_up = Instant::now() + LONG;
    while !cluster.path(&format!("archive/{last}")).exists() {
        assert!(Instant::now() < give_up, "{last} was not archived\n{}", cluster.dump());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cluster.sql(leader, "INSERT INTO extra SELECT generate_series(1, 1000)").await.unwrap();
    let needed = value(cluster, leader, "SELECT pg_walfile_name(redo_lsn) FROM pg_control_checkpoint()").await;
    let directory = cluster.path(&format!("data-{}/pg_wal", cluster.members[leader].name));
    let old: Vec<_> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file() && path.file_name().is_some_and(|name| *name.to_string_lossy() < *needed))
        .collect();
    assert!(!old.is_empty(), "{needed}");
    old.iter().for_each(|path| fs::remove_file(path).unwrap());
    crash(cluster, leader, &silenced).await;
    rejoined(cluster, leader).await;
    assert!(count(cluster, leader, "pg_rewind exit code=0") > 0, "{}", cluster.dump());
}

/// Without leave to remove anything the server stays down and says what to do; a new clone is one way.
async fn failed_rewind_stays_down(cluster: &Cluster) {
    let failures = failures(cluster).await;
    let former = crash_with_extra_wal(cluster).await;
    let words = "postgres stays down because pg_rewind failed: reinitialize this member";
    cluster.wait_log(former, words, LONG).await;
    // Said again: turns of the loop have passed, and no second try was made.
    let give_up = Instant::now() + LONG;
    while count(cluster, former, words) < 2 {
        assert!(Instant::now() < give_up, "{}", cluster.dump());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(count(cluster, former, "pg_rewind exit code=1"), failures + 1, "{}", cluster.dump());
    assert_eq!(count(cluster, former, "removing..."), 0);
    let output = cluster.ctl(&["reinit", "e2e", &cluster.members[former].name, "--force"]);
    assert!(output.status.success(), "{}\n{}", stdout(&output), stderr(&output));
    rejoined(cluster, former).await;
}

/// With leave to do so the data make way for a new clone, and are kept aside.
async fn failed_rewind_makes_way_for_a_clone(cluster: &Cluster) {
    let failures = failures(cluster).await;
    let former = crash_with_extra_wal(cluster).await;
    cluster.wait_log(former, "remove_data_directory_on_rewind_failure is set. removing...", LONG).await;
    rejoined(cluster, former).await;
    assert_eq!(count(cluster, former, "pg_rewind exit code=1"), failures + 1, "{}", cluster.dump());
    assert!(cluster.path(&format!("data-{}.failed/PG_VERSION", cluster.members[former].name)).exists());
}

/// Rewinding is off, removing is allowed.
async fn divergence_without_rewind_makes_way_for_a_clone(cluster: &Cluster) {
    let leader = cluster.leader().await.unwrap();
    let off = json!({"postgresql": {"use_pg_rewind": false}});
    assert_eq!(cluster.request("PATCH", leader, "/config", &off).await.map(|(code, _)| code), Some(200));
    let rewinds = count(cluster, leader, "running pg_rewind");
    let former = crash_with_extra_wal(cluster).await;
    cluster.wait_log(former, "remove_data_directory_on_diverged_timelines is set. removing...", LONG).await;
    rejoined(cluster, former).await;
    assert_eq!(count(cluster, former, "running pg_rewind"), rewinds, "{}", cluster.dump());
}
