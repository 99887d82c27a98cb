//! What systemd is told: ready, reloading, stopping. Nothing is said unless `NOTIFY_SOCKET` names a socket, and nothing
//! waits for anybody to read it.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use nix::time::{ClockId, clock_gettime};
use tracing::{debug, warn};

use crate::config::overlay::Environment;

/// Where the socket is named. Children must not inherit it: they are not who systemd waits for.
const VARIABLE: &str = "NOTIFY_SOCKET";

/// The name of the socket, if there is one.
pub(super) fn named(environment: &Environment) -> Option<String> {
    environment.get(VARIABLE).filter(|name| !name.is_empty()).cloned()
}

/// The way to whoever started us.
pub(super) struct Notify {
    socket: Option<UnixDatagram>,
}

impl Notify {
    /// Opens the socket, a path or an abstract name (`@name`). The log must be there: this is where it is said that
    /// there is no such socket.
    pub(super) fn new(name: Option<&str>) -> Self {
        let socket = name.and_then(|name| {
            let opened = open(name);
            opened.inspect_err(|error| warn!("systemd is told nothing: {VARIABLE}={name}: {error}")).ok()
        });
        Self { socket }
    }

    /// The agent serves: after the start, and after a reload.
    pub(super) fn ready(&self) {
        self.say(&format!("READY=1\nMAINPID={}\nSTATUS=pgherd {} is running", std::process::id(), crate::VERSION));
    }

    /// A reload begins.
    pub(super) fn reloading(&self) {
        // The time tells systemd that this is the reload that it asked for, and not an earlier one.
        let micros =
            clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| now.tv_sec() * 1_000_000 + now.tv_nsec() / 1000);
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reading the configuration again"));
    }

    /// The end begins.
    pub(super) fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=stopping PostgreSQL");
    }

    fn say(&self, words: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = socket.send(words.as_bytes()) {
            debug!("systemd was not told {words:?}: {error}");
        }
    }
}

fn open(name: &str) -> io::Result<UnixDatagram> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn heard(socket: &UnixDatagram) -> String {
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    fn opened(name: &str) -> Notify {
        Notify::new(named(&Environment::from([(VARIABLE.to_owned(), name.to_owned())])).as_deref())
    }

    #[test]
    fn sockets_with_a_path_and_abstract_ones() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("pgherd-test-{}", std::process::id());
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (notify, socket) in [(opened(&path.display().to_string()), by_path), (opened(&format!("@{name}")), by_name)]
        {
            notify.ready();
            assert!(heard(&socket).starts_with(&format!("READY=1\nMAINPID={}\n", std::process::id())));
            notify.reloading();
            let words = heard(&socket);
            let micros = words.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().lines().next().unwrap();
            assert!(micros.parse::<u64>().unwrap() > 0, "{words}");
            notify.stopping();
            assert!(heard(&socket).starts_with("STOPPING=1\n"));
        }
    }

    #[test]
    fn a_socket_that_nobody_reads_stops_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify").display().to_string();
        opened(&path).ready();
        let socket = UnixDatagram::bind(&path).unwrap();
        let notify = opened(&path);
        (0..10_000).for_each(|_| notify.ready());
        drop(socket);
        notify.stopping();
        Notify::new(None).ready();
        assert_eq!(named(&Environment::from([(VARIABLE.to_owned(), String::new())])), None);
    }
}
