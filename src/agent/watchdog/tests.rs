//! A FIFO in the device's place.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;

use super::*;

struct World {
    _dir: tempfile::TempDir,
    reader: Option<File>,
    config: Arc<Mutex<WatchdogConfig>>,
    settings: Dynamic,
    watchdog: Watchdog,
}

fn world(mode: WatchdogMode) -> World {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("watchdog");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let reader = OpenOptions::new().read(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits()).open(&path).unwrap();
    let config = Arc::new(Mutex::new(WatchdogConfig {
        mode,
        device: path.display().to_string(),
        safety_margin: 5,
        driver: "testing".into(),
        guard: true,
    }));
    let asked = Arc::clone(&config);
    let watchdog = Watchdog::new(move || asked.lock().unwrap().clone());
    let mut settings = Dynamic::default();
    (settings.ttl, settings.loop_wait) = (Duration::from_secs(21), Duration::from_secs(10));
    World { _dir: dir, reader: Some(reader), config, settings, watchdog }
}

impl World {
    /// What was written since it was last asked.
    fn heard(&mut self) -> String {
        let mut bytes = Vec::new();
        // Without a writer it ends, with one it would block.
        let _ = self.reader.as_mut().unwrap().read_to_end(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    fn configure(&self, change: impl FnOnce(&mut WatchdogConfig)) {
        change(&mut self.config.lock().unwrap());
    }

    fn standing(&self) -> ha::Watchdog {
        self.watchdog.standing(&self.settings)
    }

    fn activate(&self) -> bool {
        self.watchdog.activate(&self.settings)
    }
}

#[test]
fn it_is_armed_fed_adjusted_and_disarmed() {
    let mut world = world(WatchdogMode::Automatic);
    assert_eq!(world.standing(), ha::Watchdog::Idle);
    world.watchdog.keep_alive(&world.settings);
    assert_eq!(world.heard(), "", "nobody feeds what is not armed");
    assert!(world.activate() && world.activate());
    assert_eq!((world.standing(), world.heard().as_str()), (ha::Watchdog::Settled, "Ctimeout=16\n"));
    world.watchdog.keep_alive(&world.settings);
    assert_eq!(world.heard(), "1");
    world.settings.ttl = Duration::from_secs(20);
    world.watchdog.keep_alive(&world.settings);
    assert_eq!(world.heard(), "1Ctimeout=15\n");
    world.configure(|config| config.safety_margin = -1);
    world.watchdog.keep_alive(&world.settings);
    assert_eq!(world.heard(), "1Ctimeout=10\n");
    world.watchdog.disarm();
    world.watchdog.disarm();
    assert_eq!((world.heard().as_str(), world.watchdog.runs()), ("V", false));
    assert!(world.activate());
    assert_eq!(world.heard(), "Ctimeout=10\n");
}

#[test]
fn turning_it_off_does_not_wait_for_the_next_confirmation() {
    let mut world = world(WatchdogMode::Required);
    assert!(world.activate());
    world.configure(|config| config.mode = WatchdogMode::Off);
    assert_eq!(world.standing(), ha::Watchdog::Settled);
    assert!(world.heard().ends_with('V'));
    assert!(world.activate() && !world.watchdog.runs());
}

#[test]
fn another_device_is_opened_at_the_next_confirmation() {
    let mut world = world(WatchdogMode::Required);
    assert!(world.activate());
    let before = world.config.lock().unwrap().device.clone();
    let other = format!("{before}2");
    nix::unistd::mkfifo(other.as_str(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut reader =
        OpenOptions::new().read(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits()).open(&other).unwrap();
    world.configure(|config| config.device = other);
    world.watchdog.keep_alive(&world.settings);
    assert_eq!(world.heard(), "Ctimeout=16\n1V");
    let mut bytes = [0; 64];
    let n = reader.read(&mut bytes).unwrap();
    assert_eq!(&bytes[..n], b"Ctimeout=16\n");
}

#[test]
fn what_is_required_and_cannot_be_had_refuses() {
    let mut world = world(WatchdogMode::Required);
    let path = world.config.lock().unwrap().device.clone();
    world.configure(|config| config.device = "/nowhere/watchdog".into());
    assert_eq!((world.standing(), world.activate()), (ha::Watchdog::Unusable, false));
    world.configure(|config| config.mode = WatchdogMode::Automatic);
    assert_eq!(world.standing(), ha::Watchdog::Idle);
    assert!(world.activate());
    assert_eq!(world.standing(), ha::Watchdog::Settled, "it was tried");
    // A file is no device: it takes no orders.
    let file = format!("{path}.txt");
    std::fs::write(&file, "").unwrap();
    world.configure(|config| (config.device, config.driver) = (file, "default".into()));
    assert!(world.activate() && !world.watchdog.runs());
    world.configure(|config| config.mode = WatchdogMode::Required);
    assert!(!world.activate() && !world.activate());
    // A changed configuration is a new chance.
    world.configure(|config| (config.device, config.driver) = (path, "testing".into()));
    assert!(world.activate() && world.watchdog.runs());
    assert_eq!(world.heard(), "Ctimeout=16\n");
}

#[test]
fn a_loop_slower_than_the_timeout_is_not_watched() {
    let mut world = world(WatchdogMode::Required);
    world.settings.ttl = Duration::from_secs(14);
    assert_eq!((world.standing(), world.activate()), (ha::Watchdog::Unusable, false));
    world.configure(|config| config.mode = WatchdogMode::Automatic);
    assert!(world.activate() && !world.watchdog.runs());
    assert_eq!(world.heard(), "");
    world.settings.ttl = Duration::from_secs(15);
    assert!(world.activate() && world.watchdog.runs());
}

#[test]
fn a_reader_that_is_late_is_waited_for() {
    let mut world = world(WatchdogMode::Required);
    world.reader = None;
    assert!(!world.activate());
    let path = world.config.lock().unwrap().device.clone();
    world.reader =
        Some(OpenOptions::new().read(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits()).open(path).unwrap());
    assert!(world.activate());
    assert_eq!(world.heard(), "Ctimeout=16\n");
}
