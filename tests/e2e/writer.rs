//! A client that writes one row every 20 ms to whoever accepts it, and remembers what was acknowledged and when.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_postgres::NoTls;

use crate::harness::{Cluster, PASSWORD};

const STEP: Duration = Duration::from_millis(20);

pub struct Writer {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<(u64, Instant)>>>,
    interruptions: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Writer {
    /// Creates the table and begins.
    pub async fn start(cluster: &Cluster) -> Self {
        let leader = cluster.leader().await.expect("there is a leader");
        cluster.sql(leader, "CREATE TABLE IF NOT EXISTS written (id bigint PRIMARY KEY)").await.unwrap();
        let ports = cluster.members.iter().map(|member| member.pg_port.to_string()).collect::<Vec<_>>().join(",");
        let hosts = vec!["127.0.0.1"; cluster.members.len()].join(",");
        let dsn = format!(
            "host={hosts} port={ports} user=postgres password={PASSWORD} dbname=postgres connect_timeout=1 \
             target_session_attrs=read-write"
        );
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let interruptions = Arc::new(AtomicUsize::new(0));
        let write = write(dsn, Arc::clone(&stop), Arc::clone(&acknowledged), Arc::clone(&interruptions));
        Self { stop, acknowledged, interruptions, task: tokio::spawn(write) }
    }

    /// Waits until a row was acknowledged after this moment.
    pub async fn wait_acknowledged_after(&self, moment: Instant, limit: Duration) -> Instant {
        loop {
            let last = self.acknowledged.lock().unwrap().iter().map(|(_, at)| *at).find(|at| *at > moment);
            if let Some(at) = last {
                return at;
            }
            assert!(moment.elapsed() < limit, "no write was acknowledged within {limit:?}");
            tokio::time::sleep(STEP).await;
        }
    }

    /// The longest time without an acknowledged write since a moment, up to the last acknowledged one.
    pub fn longest_gap_since(&self, moment: Instant) -> Duration {
        let acknowledged = self.acknowledged.lock().unwrap();
        let first = acknowledged.partition_point(|(_, at)| *at < moment).saturating_sub(1);
        let times: Vec<Instant> = acknowledged[first..].iter().map(|(_, at)| *at).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// How often a connection that took writes was lost.
    pub fn interruptions(&self) -> usize {
        self.interruptions.load(Ordering::SeqCst)
    }

    /// What was acknowledged so far.
    pub fn acknowledged(&self) -> Vec<u64> {
        self.acknowledged.lock().unwrap().iter().map(|(id, _)| *id).collect()
    }

    /// Ends and returns the acknowledged rows.
    pub async fn finish(self) -> Vec<u64> {
        self.stop.store(true, Ordering::SeqCst);
        let acknowledged = Arc::clone(&self.acknowledged);
        self.task.await.unwrap();
        acknowledged.lock().unwrap().iter().map(|(id, _)| *id).collect()
    }
}

/// Which of the acknowledged rows the present leader does not have.
pub async fn lost(cluster: &Cluster, acknowledged: Vec<u64>) -> Vec<u64> {
    let leader = cluster.wait_leader(Duration::from_secs(60), |_| true).await;
    let rows = cluster.sql(leader, "SELECT id FROM written").await.unwrap();
    let present: BTreeSet<u64> = rows.iter().map(|row| row[0].as_deref().unwrap().parse().unwrap()).collect();
    acknowledged.into_iter().filter(|id| !present.contains(id)).collect()
}

/// Every acknowledged row is on the present leader.
pub async fn assert_nothing_lost(cluster: &Cluster, acknowledged: Vec<u64>) {
    let lost = lost(cluster, acknowledged).await;
    assert!(lost.is_empty(), "acknowledged rows are gone: {lost:?}\n{}", cluster.dump());
}

async fn write(
    dsn: String,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<(u64, Instant)>>>,
    interruptions: Arc<AtomicUsize>,
) {
    let mut id = 0;
    let mut client = None;
    while !stop.load(Ordering::SeqCst) {
        if client.is_none() {
            let connect = tokio::time::timeout(Duration::from_secs(2), tokio_postgres::connect(&dsn, NoTls)).await;
            if let Ok(Ok((fresh, connection))) = connect {
                tokio::spawn(connection);
                client = Some(fresh);
            }
        }
        if let Some(connected) = &client {
            id += 1;
            let query = format!("INSERT INTO written VALUES ({id})");
            match tokio::time::timeout(Duration::from_secs(2), connected.batch_execute(&query)).await {
                Ok(Ok(())) => acknowledged.lock().unwrap().push((id, Instant::now())),
                _ => {
                    interruptions.fetch_add(1, Ordering::SeqCst);
                    client = None;
                }
            }
        }
        tokio::time::sleep(STEP).await;
    }
}
