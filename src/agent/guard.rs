//! The guard: a process beside the agent that holds the lease's deadline when the agent no longer can.
//!
//! The deadline thread in the agent stops the server when the loop hangs, but not when the whole agent is suspended or
//! dead; the server would then go on acknowledging writes while another member is promoted. The guard is told the same
//! deadline after every renewal, on the clock that also counts while the machine is suspended. If no later one reaches
//! it in time, it stops PostgreSQL itself, at once.
//!
//! The invariant: **the guard's deadline lies before the earliest moment at which the lease can expire at the DCS**.
//! It is counted from before the renewal was sent, and the DCS counts from after it received it; it is earlier than
//! the ttl by a margin in which the server is told to quit, given half a second, and killed. So no row is acknowledged
//! by the old primary after another member was promoted. A message that is late or lost leaves the guard with an
//! earlier deadline, never with a later one.
//!
//! The guard keeps its deadline when the agent's connection breaks: that is what it is for. An agent that starts in
//! time finds it by the name of its socket and extends the deadline; until it has something to say of it, what its
//! predecessor said stays in force. The name and the words must stay the same in every release, for a new agent finds
//! the guard of the old one.
//!
//! When agent and server are both gone, nobody is left to hand the leader key on, and the others would wait for the
//! lease to expire. The guard knows that nothing of the server runs any more, so it has the key given back at once.
//! An agent that starts therefore greets the guard before it does anything with the key: while the key is being given
//! back it gets no answer, and once it has been answered the key is its own again.

pub mod keeper;
pub mod process;

use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use nix::sys::socket::{UnixCredentials, getsockopt, sockopt};

use crate::postgres::process::Postmaster;

/// The longest line that either side says.
const MAX_LINE: usize = 256;

/// What the guard needs to know of the agent.
pub struct Guarded {
    /// The server's data directory.
    pub data_dir: PathBuf,
    /// The agent's configuration file or directory, with which the leader key is given back.
    pub config: Option<PathBuf>,
    /// The postmaster as last seen.
    pub postmaster: Box<dyn Fn() -> Option<Postmaster> + Send>,
    /// `watchdog.guard`, read anew each time.
    pub is_on: Box<dyn Fn() -> bool + Send>,
}

/// What the agent tells the guard, one line each. The answer is `ok`, a blank, and the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Stop the server unless another order comes in time.
    Arm {
        /// Milliseconds since boot.
        deadline_ms: u64,
        /// The server to stop, beside the one that the pid file names.
        postmaster: Option<Postmaster>,
    },
    /// Nothing needs to be stopped.
    Disarm,
    /// An agent has started and has nothing to say yet: what its predecessor said stays in force.
    Greet,
}

impl Order {
    /// Stop this server at this time since boot.
    pub fn arm(deadline: Duration, postmaster: Option<Postmaster>) -> Self {
        Self::Arm { deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX), postmaster }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arm { deadline_ms, postmaster } => {
                let (pid, ticks) = postmaster.map_or((0, 0), |postmaster| (postmaster.pid, postmaster.start_ticks));
                write!(f, "arm {deadline_ms} {pid} {ticks}")
            }
            Self::Disarm => f.write_str("disarm"),
            Self::Greet => f.write_str("greet"),
        }
    }
}

/// A line that is no order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither `arm DEADLINE PID START` nor `disarm` nor `greet`")]
pub struct NoOrder;

impl FromStr for Order {
    type Err = NoOrder;

    fn from_str(line: &str) -> Result<Self, NoOrder> {
        let words: Vec<&str> = line.split(' ').collect();
        match *words.as_slice() {
            ["disarm"] => Ok(Self::Disarm),
            ["greet"] => Ok(Self::Greet),
            ["arm", deadline, pid, ticks] => {
                let pid: i32 = pid.parse().map_err(|_| NoOrder)?;
                let start_ticks = ticks.parse().map_err(|_| NoOrder)?;
                let postmaster = (pid > 1).then_some(Postmaster { pid, start_ticks });
                Ok(Self::Arm { deadline_ms: deadline.parse().map_err(|_| NoOrder)?, postmaster })
            }
            _ => Err(NoOrder),
        }
    }
}

/// Where the guard of a data directory listens: an abstract address, which vanishes with the process. Process numbers
/// mean something only within their namespace, so two containers that share a network have guards of their own. The
/// directory itself may be removed and made anew, so only its parent is resolved.
pub fn address(data_dir: &Path) -> io::Result<SocketAddr> {
    let data_dir = std::path::absolute(data_dir)?;
    let parent = data_dir.parent().and_then(|parent| std::fs::canonicalize(parent).ok());
    let resolved = match (parent, data_dir.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => data_dir,
    };
    let namespace = std::fs::metadata("/proc/self/ns/pid").map_or(0, |metadata| metadata.ino());
    let uid = nix::unistd::geteuid();
    // The path may be longer than an address can be.
    let digest = fnv(resolved.as_os_str().as_bytes());
    SocketAddr::from_abstract_name(format!("pgherd-guard-{uid}-{namespace}-{digest:016x}"))
}

/// FNV-1a: the same in every release, which the standard library's hashers do not promise.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Who is at the other end, if it is one of ours: anybody may connect to an abstract address, or take one.
fn peer(stream: &UnixStream) -> Option<UnixCredentials> {
    let credentials = getsockopt(stream, sockopt::PeerCredentials).ok()?;
    (credentials.uid() == nix::unistd::geteuid().as_raw()).then_some(credentials)
}

/// The next whole line of what was received.
fn take_line(received: &mut Vec<u8>) -> Option<String> {
    let end = received.iter().position(|byte| *byte == b'\n')?;
    let line: Vec<u8> = received.drain(..=end).collect();
    Some(String::from_utf8_lossy(&line[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_survive_the_line() {
        let known = Order::arm(Duration::from_millis(1234), Some(Postmaster { pid: 42, start_ticks: 7 }));
        assert_eq!(known.to_string(), "arm 1234 42 7");
        for order in [known, Order::arm(Duration::from_secs(5), None), Order::Disarm, Order::Greet] {
            assert_eq!(order.to_string().parse(), Ok(order));
        }
        for line in ["", "arm", "arm 1 2", "arm x 2 3", "arm 1 2 3 4", "disarm now", "arm -1 2 3"] {
            assert_eq!(line.parse::<Order>(), Err(NoOrder), "{line}");
        }
    }

    #[test]
    fn lines_are_taken_whole() {
        let mut received = b"disarm\narm 1".to_vec();
        assert_eq!(take_line(&mut received).as_deref(), Some("disarm"));
        assert_eq!(take_line(&mut received), None);
        assert_eq!(received, b"arm 1");
    }

    #[test]
    fn the_address_is_the_same_before_and_after_the_directory_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let name = |path: &Path| address(path).unwrap().as_abstract_name().unwrap().to_owned();
        let before = name(&data);
        std::fs::create_dir(&data).unwrap();
        assert_eq!(name(&data), before);
        assert_eq!(name(&dir.path().join("./data")), before);
        assert_ne!(name(&dir.path().join("data2")), before);
        assert_eq!(fnv(b"a"), 0xaf63_dc4c_8601_ec8c, "the digest is part of the protocol");
    }
}
