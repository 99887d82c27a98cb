//! The agent's side: a thread that keeps a guard and tells it what the lease says. The loop only leaves its words with
//! the lease, so nothing that happens here can hold it up.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::agent::lease::{Lease, Stated};
use crate::postgres::process_tree;

use super::process::RELEASE_LIMIT;
use super::{Guarded, MAX_LINE, Order, address, peer, take_line};

/// How often the guard is looked after when there is nothing to tell it, and nothing is heard of it. Longer than a
/// leader's usual period, in which it is told of the new deadline.
const PERIOD: Duration = Duration::from_secs(15);

/// How soon another attempt to find or start one follows.
const RETRY: Duration = Duration::from_secs(1);

/// A guard that is well answers much sooner.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// A guard that is giving the leader key back answers when that is done or given up, see [`RELEASE_LIMIT`].
const GREETING_LIMIT: Duration = RELEASE_LIMIT.saturating_add(Duration::from_secs(2));

/// A guard that was just started listens much sooner.
const START_LIMIT: Duration = Duration::from_secs(2);

/// A guard that left so many orders in a row unanswered is replaced.
const MAX_MISSES: u32 = 3;

/// Greets the guard that an earlier agent of this data directory may have left, and waits until it answers: it may be
/// giving the leader key back. Nobody must use the key before. Blocks.
pub(in crate::agent) fn greet(data_dir: &std::path::Path) -> Option<Link> {
    let mut link = Link::connect(data_dir).ok()?;
    debug!("the guard (process {}) of an earlier agent is taken over", link.pid);
    match link.tell_within(Order::Greet, GREETING_LIMIT) {
        Ok(()) => Some(link),
        Err(error) => {
            warn!("the guard of an earlier agent (process {}) does not answer ({error}); it is ended", link.pid);
            process_tree::signal(link.pid, Signal::SIGKILL);
            None
        }
    }
}

/// Starts the thread; `link` is what [`greet`] returned. It ends when the lease is closed, after the last word was
/// passed on.
pub(in crate::agent) fn keep(lease: Arc<Lease>, guarded: Guarded, link: Option<Link>) -> io::Result<JoinHandle<()>> {
    lease.keep_news()?;
    let keeper = Keeper { guarded, had_guard: link.is_some(), link, child: None, is_complained: false };
    std::thread::Builder::new().name("guard-keeper".into()).spawn(move || keeper.run(&lease))
}

struct Keeper {
    guarded: Guarded,
    link: Option<Link>,
    child: Option<Child>,
    had_guard: bool,
    is_complained: bool,
}

impl Keeper {
    fn run(mut self, lease: &Lease) {
        let (mut stated, mut is_closed) = lease.news(Stated::Nothing, Duration::ZERO, None);
        loop {
            let is_on = (self.guarded.is_on)();
            if is_on {
                let order = match stated {
                    Stated::Nothing => None,
                    Stated::Disarmed => Some(Order::Disarm),
                    Stated::Armed(deadline) => Some(Order::arm(deadline, (self.guarded.postmaster)())),
                };
                self.pass_on(order, is_closed);
            } else {
                self.let_go();
            }
            if is_closed {
                return;
            }
            // A guard that dies hangs up, which ends the wait.
            let is_settled = self.link.as_ref().map_or(!is_on, |link| link.misses == 0);
            let limit = if is_settled { PERIOD } else { RETRY };
            (stated, is_closed) = lease.news(stated, limit, self.link.as_ref().map(|link| link.stream.as_fd()));
        }
    }

    /// Sees to it that there is a guard and that it knows.
    fn pass_on(&mut self, order: Option<Order>, is_last: bool) {
        if let Some(link) = &mut self.link
            && let Err(error) = link.receive(Duration::ZERO)
        {
            self.lost(&error);
        }
        if self.link.is_none() && is_last && order == Some(Order::Disarm) {
            // No need to start one in order to tell it that it is not needed.
            self.link = Link::connect(&self.guarded.data_dir).ok();
        } else if self.link.is_none() {
            match self.find_or_start() {
                Ok(link) => {
                    self.link = Some(link);
                    self.had_guard = true;
                    if std::mem::take(&mut self.is_complained) {
                        info!("the lease's guard watches again");
                    }
                }
                Err(error) => return self.complain(&error),
            }
        }
        let (Some(link), Some(order)) = (&mut self.link, order) else { return };
        if let Err(error) = link.tell(order) {
            if link.misses >= MAX_MISSES {
                // A suspended one would fire on what it last heard, and its name is taken while it lives.
                process_tree::signal(link.pid, Signal::SIGKILL);
            } else if link.misses > 0 {
                return self.complain(&error);
            }
            self.lost(&error);
        }
    }

    fn lost(&mut self, error: &io::Error) {
        self.link = None;
        warn!("the lease's guard is gone ({error}); another one is started");
    }

    /// Once until it is well again.
    fn complain(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.is_complained, true) {
            warn!(
                "the lease has no guard: {error}; if this agent is suspended or dies, its server goes on without it \
                 (set `watchdog.guard: off` if that is meant)"
            );
        }
    }

    /// Switched off: one that an earlier configuration left must not fire.
    fn let_go(&mut self) {
        if std::mem::take(&mut self.had_guard) {
            info!("the lease has no guard any more, as configured");
        }
        let link = match self.link.take() {
            Some(link) => Ok(link),
            None => Link::connect(&self.guarded.data_dir),
        };
        if let Ok(mut link) = link
            && let Err(error) = link.tell(Order::Disarm)
        {
            debug!("the lease's guard was not disarmed: {error}");
        }
    }

    fn find_or_start(&mut self) -> io::Result<Link> {
        let give_up = Instant::now() + START_LIMIT;
        if let Ok(link) = Link::connect(&self.guarded.data_dir) {
            return Ok(link);
        }
        if let Some(mut child) = self.child.take()
            && child.try_wait()?.is_none()
        {
            // On its way out, or it has not begun yet.
            self.child = Some(child);
        } else {
            self.child = Some(start(&self.guarded)?);
        }
        loop {
            match Link::connect(&self.guarded.data_dir) {
                Err(_) if Instant::now() < give_up => std::thread::sleep(Duration::from_millis(10)),
                outcome => return outcome,
            }
        }
    }
}

/// Starts the guard where we are and with our environment: it must find what we find to give the leader key back.
fn start(guarded: &Guarded) -> io::Result<Child> {
    let mut command = ourselves();
    command.arg("guard").arg("--data-dir").arg(&guarded.data_dir);
    if let Some(config) = &guarded.config {
        command.arg("--config").arg(config);
    }
    // Whoever waits for the agent does not wait for its guard.
    command.env_remove("NOTIFY_SOCKET");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
    command.spawn()
}

/// The same program as we are, also when its file was replaced meanwhile.
pub(super) fn ourselves() -> Command {
    let program = std::env::current_exe().ok().filter(|path| path.exists());
    let mut command = Command::new(program.unwrap_or_else(|| PathBuf::from("/proc/self/exe")));
    command.arg0("pgherd");
    command
}

/// A connection to a guard.
pub(in crate::agent) struct Link {
    stream: UnixStream,
    /// The guard's process.
    pid: i32,
    received: Vec<u8>,
    /// What it last answered.
    acknowledged: Option<Order>,
    /// Orders in a row without an answer.
    misses: u32,
}

impl Link {
    fn connect(data_dir: &std::path::Path) -> io::Result<Self> {
        let stream = UnixStream::connect_addr(&address(data_dir)?)?;
        let foreign = || io::Error::other("its address is held by another user's process");
        let pid = peer(&stream).ok_or_else(foreign)?.pid();
        stream.set_nonblocking(true)?;
        Ok(Self { stream, pid, received: Vec::new(), acknowledged: None, misses: 0 })
    }

    /// Tells an order unless it is known, and waits for the answer.
    fn tell(&mut self, order: Order) -> io::Result<()> {
        self.tell_within(order, ANSWER_LIMIT)
    }

    fn tell_within(&mut self, order: Order, limit: Duration) -> io::Result<()> {
        if self.acknowledged == Some(order) {
            return Ok(());
        }
        let line = order.to_string();
        self.stream.write_all(format!("{line}\n").as_bytes())?;
        let (wanted, give_up) = (format!("ok {line}"), Instant::now() + limit);
        loop {
            while let Some(line) = take_line(&mut self.received) {
                if line == wanted {
                    (self.acknowledged, self.misses) = (Some(order), 0);
                    return Ok(());
                }
            }
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.misses += 1;
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
            }
            self.receive(left)?;
        }
    }

    /// Waits for more; an error when there is nobody any more.
    fn receive(&mut self, limit: Duration) -> io::Result<()> {
        let limit = u16::try_from(limit.as_millis()).unwrap_or(u16::MAX);
        poll(&mut [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)], PollTimeout::from(limit))?;
        let mut chunk = [0; MAX_LINE];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up")),
            Ok(n) => {
                self.received.extend_from_slice(&chunk[..n]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }
}
