//! The watchdog device beside a real primary: a FIFO stands for it, and the test for the hardware that counts down.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Cluster, Kind, Store, stdout};

const LONG: Duration = Duration::from_secs(60);

/// What a device heard, byte for byte.
struct Device {
    heard: Arc<Mutex<Vec<(Instant, u8)>>>,
    is_over: Arc<AtomicBool>,
}

impl Drop for Device {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
    }
}

impl Device {
    /// Makes a FIFO that the members' user may write to, and listens to it.
    fn new(cluster: &Cluster, name: &str) -> Self {
        let path = cluster.path(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let owner = std::fs::metadata(path.parent().unwrap()).unwrap();
        let (uid, gid) = { (std::os::unix::fs::MetadataExt::uid(&owner), std::os::unix::fs::MetadataExt::gid(&owner)) };
        chown(&path, Some(uid), Some(gid)).unwrap();
        let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
        let mut file: File = OpenOptions::new().read(true).custom_flags(flags).open(&path).unwrap();
        let device = Self { heard: Arc::default(), is_over: Arc::default() };
        let (heard, is_over) = (Arc::clone(&device.heard), Arc::clone(&device.is_over));
        std::thread::spawn(move || {
            let mut chunk = [0; 256];
            while !is_over.load(Ordering::SeqCst) {
                let n = file.read(&mut chunk).unwrap_or(0);
                let now = Instant::now();
                heard.lock().unwrap().extend(chunk[..n].iter().map(|byte| (now, *byte)));
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        device
    }

    fn text(&self) -> String {
        self.heard.lock().unwrap().iter().map(|(_, byte)| char::from(*byte)).collect()
    }

    /// Waits until what was heard since `from` contains this; the length of all that was heard then.
    async fn hears(&self, from: usize, needle: &str, cluster: &Cluster) -> usize {
        let give_up = Instant::now() + LONG;
        loop {
            let text = self.text();
            if text[from..].contains(needle) {
                return text.len();
            }
            assert!(Instant::now() < give_up, "no {needle:?} in {:?}\n{}", &text[from..], cluster.dump());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// When the hardware would reset the machine, if nothing more came: by the last timeout it was given, from the
    /// last sign of life on. `None`: it was disarmed.
    fn fires_at(&self) -> Option<Instant> {
        let text = self.text();
        let (last, byte) = *self.heard.lock().unwrap().last()?;
        let timeout = text.rsplit_once("Ctimeout=").unwrap().1.split('\n').next().unwrap().parse().unwrap();
        (byte != b'V').then(|| last + Duration::from_secs(timeout))
    }
}

async fn configure(cluster: &Cluster, i: usize, change: serde_json::Value) {
    let code = cluster.request("PATCH", i, "/config", &change).await.map(|(code, _)| code);
    assert_eq!(code, Some(200), "{}", cluster.dump());
}

#[tokio::test(flavor = "multi_thread")]
async fn watchdog_counts_down_beside_a_primary_and_fires_before_another_one_is_promoted() {
    let dynamic = json!({"ttl": 6, "loop_wait": 1, "retry_timeout": 2, "postgresql": {"use_pg_rewind": true}});
    let mut cluster = Cluster::new(Store::Etcd, &[Kind::Pgherd; 2], dynamic);
    let devices: Vec<Device> = (0..2).map(|i| Device::new(&cluster, &format!("watchdog-{i}"))).collect();
    for i in 0..2 {
        let path = cluster.path(&format!("watchdog-{i}"));
        cluster.reconfigure(i, |document| {
            document["watchdog"] =
                json!({"mode": "required", "driver": "testing", "device": path, "safety_margin": -1});
        });
        cluster.start(i);
    }

    // Armed before it leads, by a timeout below the ttl; fed then. A replica has nothing to arm.
    let leader = cluster.settled_leader(LONG).await;
    let device = &devices[leader];
    let at = device.hears(0, "11", &cluster).await;
    assert!(device.text().starts_with("Ctimeout=3\n1"), "{:?}", device.text());
    assert_eq!(devices[1 - leader].text(), "", "nothing is armed beside a standby");

    // A changed ttl reaches it; maintenance mode disarms it; the end of that arms it again.
    configure(&cluster, leader, json!({"ttl": 8})).await;
    let at = device.hears(at, "Ctimeout=4\n", &cluster).await;
    configure(&cluster, leader, json!({"pause": true})).await;
    let at = device.hears(at, "V", &cluster).await;
    configure(&cluster, leader, json!({"pause": null, "ttl": 6})).await;
    device.hears(at, "Ctimeout=3\n1", &cluster).await;

    // A member whose device is gone must not lead, and says so.
    let file = cluster.path(&format!("watchdog-{}", 1 - leader));
    std::fs::rename(&file, file.with_extension("away")).unwrap();
    let give_up = Instant::now() + LONG;
    while cluster.status(1 - leader).await.is_none_or(|status| status["watchdog_failed"] != true) {
        assert!(Instant::now() < give_up, "{}", cluster.dump());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let refused = cluster.ctl(&["switchover", "e2e", "--force"]);
    assert!(!refused.status.success() && cluster.leader().await == Some(leader), "{}", stdout(&refused));
    std::fs::rename(file.with_extension("away"), &file).unwrap();
    let give_up = Instant::now() + LONG;
    while cluster.status(1 - leader).await.is_none_or(|status| !status["watchdog_failed"].is_null()) {
        assert!(Instant::now() < give_up, "{}", cluster.dump());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // A primary that steps down disarms it as soon as it serves nobody.
    let at = device.text().len();
    let done = cluster.ctl(&["switchover", "e2e", "--force"]);
    assert!(done.status.success(), "{}\n{}", stdout(&done), cluster.dump());
    device.hears(at, "V", &cluster).await;
    let (old, leader) = (leader, cluster.settled_leader(LONG).await);
    assert_eq!(leader, 1 - old);
    let device = &devices[leader];
    device.hears(0, "1", &cluster).await;

    // An agent that stands still feeds nobody.
    cluster.signal_agent(leader, "STOP");
    let promoted = cluster.wait_leader(LONG, |i| i == old).await;
    let now = Instant::now();
    let fired = device.fires_at().expect("a suspended agent disarms nothing");
    assert!(fired < now, "n{promoted} was promoted {:?} before the device fires\n{}", fired - now, cluster.dump());
    cluster.signal_agent(leader, "CONT");
    device.hears(0, "V", &cluster).await;

    // The end of an agent is the end of its server, and of its watchdog.
    let leader = cluster.settled_leader(LONG).await;
    let at = devices[leader].text().len();
    cluster.terminate_agent(leader, LONG);
    devices[leader].hears(at, "V", &cluster).await;
    assert_eq!(devices[leader].fires_at(), None);
}
