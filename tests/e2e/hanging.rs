//! A leader whose server hangs in its start, before it is a server: another member leads, and what hung never comes up
//! as a second primary, however late it goes on.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinHandle;

use crate::harness::{Cluster, Kind, Store, as_user, pg_bin};

const OURS: [Kind; 2] = [Kind::Pgherd; 2];
const LONG: Duration = Duration::from_secs(60);

const TOO_LONG: &str = "Demoting self because primary startup is taking too long";

/// Asks one server all the time whether it is a primary.
struct Suspicious {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Option<Instant>>,
}

impl Suspicious {
    fn start(cluster: &Cluster, i: usize) -> Self {
        let (stop, dsn) = (Arc::new(AtomicBool::new(false)), cluster.dsn(i));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::SeqCst) {
                if let Ok((client, connection)) = tokio_postgres::connect(&dsn, tokio_postgres::NoTls).await {
                    tokio::spawn(connection);
                    while let Ok(row) = client.query_one("SELECT pg_is_in_recovery()", &[]).await {
                        if !row.get::<_, bool>(0) {
                            return Some(Instant::now());
                        }
                        if stopped.load(Ordering::SeqCst) {
                            break;
                        }
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            None
        });
        Self { stop, task }
    }

    async fn has_seen_no_primary(self, cluster: &Cluster) {
        self.stop.store(true, Ordering::SeqCst);
        let seen = tokio::time::timeout(LONG, self.task).await.expect("the watcher ends").unwrap();
        assert_eq!(seen, None, "a second primary\n{}", cluster.dump());
    }
}

/// A file that nobody can open before somebody else does.
struct Pipe {
    path: PathBuf,
    kept: Option<PathBuf>,
}

impl Pipe {
    /// In the place of the file that is there, if one is.
    fn new(path: PathBuf) -> Self {
        let kept = path.with_extension("kept");
        let kept = fs::rename(&path, &kept).is_ok().then_some(kept);
        assert!(as_user(Path::new("/usr/bin/mkfifo")).arg(&path).status().unwrap().success());
        Self { path, kept }
    }

    /// Whoever waits goes on, and finds an empty file. Everybody after that finds what was there before.
    fn end(self) {
        let other_end = fs::File::options().read(true).write(true).open(&self.path).unwrap();
        match self.kept {
            Some(kept) => fs::rename(kept, &self.path).unwrap(),
            None => fs::remove_file(&self.path).unwrap(),
        }
        drop(other_end);
    }
}

/// Programs of PostgreSQL, of which the server's own stands still as long as there is a pipe beside it. It hears no
/// signal then: whoever starts a server in the background starts it with SIGINT and SIGQUIT ignored.
fn programs_that_hang(cluster: &Cluster, i: usize) -> PathBuf {
    let directory = format!("bin-{}", cluster.members[i].name);
    cluster.make_dir(&directory);
    for entry in fs::read_dir(pg_bin()).unwrap().map(|entry| entry.unwrap()) {
        let name = entry.file_name();
        if name != "postgres" {
            std::os::unix::fs::symlink(entry.path(), cluster.path(&directory).join(name)).unwrap();
        }
    }
    let real = pg_bin().join("postgres");
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = -D ] && [ -p \"$0.pipe\" ]; then read -r _ <\"$0.pipe\"; fi\nexec {} \"$@\"\n",
        real.display()
    );
    cluster.write(&format!("{directory}/postgres"), &script);
    let program = cluster.path(&directory).join("postgres");
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    cluster.path(&directory)
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_start_does_not_keep_the_key_and_never_becomes_a_second_primary() {
    let dynamic = json!({
        "ttl": 20, "loop_wait": 1, "retry_timeout": 5, "primary_start_timeout": 2,
        "maximum_lag_on_failover": 1_048_576,
        "postgresql": {"use_pg_rewind": true, "parameters": {"max_wal_size": "256MB", "wal_keep_size": "64MB"}}
    });
    let mut cluster = Cluster::new(Store::Etcd, &OURS, dynamic);
    for i in 0..OURS.len() {
        let programs = programs_that_hang(&cluster, i);
        cluster.reconfigure(i, |document| document["postgresql"]["bin_dir"] = json!(programs));
        cluster.start(i);
    }

    // Before there is a process: the agent itself waits for a file of the data directory. It goes on when the other one
    // leads, with what it was about to do: start a primary.
    let leader = cluster.settled_leader(LONG).await;
    let name = cluster.members[leader].name.clone();
    let pipe = Pipe::new(cluster.path(&format!("data-{name}/pg_hba.conf")));
    let starts = cluster.count_in_log(leader, "postmaster pid=");
    cluster.kill_postmaster(leader);
    cluster.wait_log(leader, "starting primary after failure", LONG).await;
    let suspicious = Suspicious::start(&cluster, leader);
    cluster.wait_leader(LONG, |now| now != leader).await;
    assert_eq!(cluster.count_in_log(leader, TOO_LONG), 1, "{}", cluster.dump());
    assert_eq!(cluster.count_in_log(leader, "postmaster pid="), starts, "it hung later than meant\n{}", cluster.dump());
    cluster.wait_log(leader, "Leader key released", LONG).await;
    pipe.end();
    assert_ne!(cluster.settled_leader(LONG).await, leader);
    suspicious.has_seen_no_primary(&cluster).await;

    // The server's process exists, and is no server yet.
    let leader = cluster.settled_leader(LONG).await;
    let pipe = Pipe::new(cluster.path(&format!("bin-{}/postgres.pipe", cluster.members[leader].name)));
    cluster.kill_postmaster(leader);
    cluster.wait_log(leader, "starting primary after failure", LONG).await;
    let suspicious = Suspicious::start(&cluster, leader);
    cluster.wait_leader(LONG, |now| now != leader).await;
    assert_eq!(cluster.count_in_log(leader, TOO_LONG), 1, "{}", cluster.dump());
    pipe.end();
    assert_ne!(cluster.settled_leader(LONG).await, leader);
    suspicious.has_seen_no_primary(&cluster).await;
}
