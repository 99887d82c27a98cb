//! The guard's own process: one thread, no runtime, nothing that could wait for anybody.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use crate::io::alarm::Alarm;
use crate::io::clock::{local_now, since_boot};
use crate::postgres::process::{Postmaster, has_left_nothing, stop_at_once, ticks};

use super::keeper::ourselves;
use super::{MAX_LINE, Order, address, peer, take_line};

/// How often the server is looked at when its agent is gone or the deadline has passed.
const LOOK: Duration = Duration::from_millis(100);

/// With nothing to watch and nobody connected, only the end is to be noticed.
const REST: Duration = Duration::from_secs(1);

/// The server's own immediate shutdown gets this long before everything is killed, counted from the deadline: who was
/// suspended beyond it with the server has no time to give away, for another member may lead by now.
const GRACE: Duration = Duration::from_millis(500);

/// A server that was being started when the deadline passed may show itself a little later.
const AFTERMATH: Duration = Duration::from_secs(5);

/// With nothing to watch and nobody connected, the guard ends after this, in which its agent may still be on its way.
const IDLE: Duration = Duration::from_secs(3);

/// So many looks in a row must find nothing of the server before the leader key is given back: one that was being
/// started when its agent died may show itself a little later.
const LOOKS: u32 = 3;

/// Giving the leader key back may take this long; whoever greets us meanwhile waits.
pub(super) const RELEASE_LIMIT: Duration = Duration::from_secs(5);

/// More connections than that are not ours.
const MAX_PEERS: usize = 8;

/// Runs the guard of a data directory until nobody needs it. Another one that is there already is fine.
pub fn run(data_dir: &Path, config: Option<&Path>) -> io::Result<ExitCode> {
    // Out of the agent's session: no key press and no closed terminal ends us. Fails only if we lead a group already.
    let _ = nix::unistd::setsid();
    hurry();
    let listener = match UnixListener::bind_addr(&address(data_dir)?) {
        Ok(listener) => listener,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Ok(ExitCode::SUCCESS),
        Err(error) => return Err(error),
    };
    listener.set_nonblocking(true)?;
    let alarm = Alarm::new()?;
    serve(&listener, &alarm, &Place { data_dir: data_dir.to_owned(), config: config.map(Path::to_owned) });
    Ok(ExitCode::SUCCESS)
}

/// Between the moment at which a suspended machine goes on and the end of a server that must not, there is only this
/// process's turn to come: it asks to be the first. Refused to most users (it takes `CAP_SYS_NICE`, or `LimitNICE=-20`
/// where systemd starts the agent), and no matter then: it hardly ever runs, so its turn is soon.
fn hurry() {
    let _ = rustix::process::setpriority_process(None, -20);
}

/// What the guard was started for.
struct Place {
    data_dir: PathBuf,
    config: Option<PathBuf>,
}

fn serve(listener: &UnixListener, alarm: &Alarm, place: &Place) {
    let mut duty = Duty::new(since_boot());
    let mut peers: Vec<Peer> = Vec::new();
    loop {
        // The alarm counts on while the machine is suspended, so nothing needs to be looked at before its time.
        let mut fds: Vec<BorrowedFd<'_>> = vec![listener.as_fd()];
        fds.extend(peers.iter().map(|peer| peer.stream.as_fd()));
        alarm.wait_or(duty.next_look(since_boot(), !peers.is_empty()), &fds);
        accept(listener, &mut peers);
        // Everything that was said counts before the deadline does: we may have been suspended ourselves, and the
        // agent not. The newest connection has the last word.
        for peer in &mut peers {
            peer.hear(&mut duty);
        }
        peers.retain(|peer| peer.is_open);
        let now = since_boot();
        if let Some(stop) = duty.due(now) {
            fire(&place.data_dir, &stop);
        }
        let is_gone = |server: Option<Postmaster>| has_left_nothing(&place.data_dir, server);
        if duty.is_orphaned(now, !peers.is_empty(), is_gone) {
            give_back(place);
        }
        if duty.is_over(now, !peers.is_empty()) {
            return;
        }
    }
}

fn accept(listener: &UnixListener, peers: &mut Vec<Peer>) {
    while let Ok((stream, _)) = listener.accept() {
        if peer(&stream).is_none() || stream.set_nonblocking(true).is_err() {
            continue;
        }
        if peers.len() >= MAX_PEERS {
            peers.remove(0);
        }
        peers.push(Peer { stream, received: Vec::new(), is_open: true });
    }
}

/// One connection.
struct Peer {
    stream: UnixStream,
    received: Vec<u8>,
    is_open: bool,
}

impl Peer {
    /// Reads what is there, obeys and answers.
    fn hear(&mut self, duty: &mut Duty) {
        let mut chunk = [0; MAX_LINE];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => self.is_open = false,
                Ok(n) => self.received.extend_from_slice(&chunk[..n]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => self.is_open = false,
            }
            while let Some(line) = take_line(&mut self.received) {
                let answer = match line.parse() {
                    Ok(order) => {
                        duty.take(order, since_boot());
                        format!("ok {line}\n")
                    }
                    Err(error) => format!("error {error}\n"),
                };
                // Whoever hangs up before the answer has been heard all the same.
                let answered = self.stream.write_all(answer.as_bytes());
                self.is_open &= answered.is_ok();
            }
            self.is_open &= self.received.len() < MAX_LINE;
            if !self.is_open {
                return;
            }
        }
    }
}

/// What is to be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stop {
    /// Only what was started before it: a server that an agent starts later is none of our business.
    deadline: Duration,
    postmaster: Option<Postmaster>,
    /// The deadline passed earlier; this is another look.
    is_again: bool,
}

/// What the guard has to do, without the doing.
#[derive(Debug)]
struct Duty {
    armed: Option<Stop>,
    /// The deadline passed; until then stragglers are stopped too.
    aftermath: Option<(Stop, Duration)>,
    needed_at: Duration,
    /// The last word was that nothing is to be watched: whoever said that and went does not need us.
    is_released: bool,
    /// The server that ran under the leader key, until the key has been given back.
    leads: Option<Option<Postmaster>>,
    /// Looks in a row that found neither an agent nor a server.
    looks: u32,
}

impl Duty {
    fn new(now: Duration) -> Self {
        Self { armed: None, aftermath: None, needed_at: now, is_released: false, leads: None, looks: 0 }
    }

    fn take(&mut self, order: Order, now: Duration) {
        self.needed_at = now;
        self.aftermath = None;
        self.is_released = order == Order::Disarm;
        match order {
            Order::Arm { deadline_ms, postmaster } => {
                let deadline = Duration::from_millis(deadline_ms);
                self.armed = Some(Stop { deadline, postmaster, is_again: false });
                self.leads = Some(postmaster);
            }
            Order::Disarm => (self.armed, self.leads) = (None, None),
            Order::Greet => {}
        }
    }

    /// Agent and server died with the leader key in their hands: time to give it back, which is said once. What shows
    /// itself of the server after that is stopped.
    fn is_orphaned(
        &mut self,
        now: Duration,
        is_connected: bool,
        is_gone: impl FnOnce(Option<Postmaster>) -> bool,
    ) -> bool {
        let alone = self.leads.filter(|_| !is_connected);
        self.looks = if alone.is_some_and(is_gone) { self.looks + 1 } else { 0 };
        if self.looks < LOOKS {
            return false;
        }
        let stop = Stop { deadline: now, postmaster: self.leads.flatten(), is_again: true };
        (self.armed, self.leads, self.aftermath) = (None, None, Some((stop, now + AFTERMATH)));
        true
    }

    /// What is to be stopped now.
    fn due(&mut self, now: Duration) -> Option<Stop> {
        if let Some(stop) = self.armed.take_if(|stop| now >= stop.deadline) {
            self.aftermath = Some((Stop { is_again: true, ..stop }, now + AFTERMATH));
            return Some(stop);
        }
        self.aftermath.take_if(|(_, until)| now >= *until);
        self.aftermath.map(|(stop, _)| stop)
    }

    /// When there is something to do again, if nobody says anything. An agent that is connected is heard of when it
    /// ends, so only the deadline counts then.
    fn next_look(&self, now: Duration, is_connected: bool) -> Option<Duration> {
        match (self.armed, self.aftermath) {
            (Some(stop), _) if is_connected => Some(stop.deadline),
            (Some(stop), _) => Some(stop.deadline.min(now + LOOK)),
            (None, Some(_)) => Some(now + LOOK),
            (None, None) => (!is_connected).then(|| now + REST),
        }
    }

    /// Nobody needs us, and has not for a while.
    fn is_over(&mut self, now: Duration, is_connected: bool) -> bool {
        if is_connected || self.armed.is_some() || self.aftermath.is_some() {
            self.needed_at = now;
        }
        let is_idle = !is_connected && self.armed.is_none() && self.aftermath.is_none();
        is_idle && (self.is_released || now.saturating_sub(self.needed_at) >= IDLE)
    }
}

fn fire(data_dir: &Path, stop: &Stop) {
    let late = since_boot().saturating_sub(stop.deadline);
    let grace = GRACE.saturating_sub(late);
    let (told, killed) = stop_at_once(data_dir, stop.postmaster, ticks(stop.deadline), grace);
    if stop.is_again && told + killed == 0 {
        return;
    }
    let what = match (told, killed) {
        (0, 0) => "PostgreSQL was not running any more".to_owned(),
        (_, 0) => "PostgreSQL was stopped at once".to_owned(),
        _ => format!("PostgreSQL was stopped at once ({killed} of its processes by SIGKILL)"),
    };
    say(data_dir, &format!("the agent did not renew the leader lease in time: {what}"));
}

fn say(data_dir: &Path, what: &str) {
    let now = local_now().strftime("%Y-%m-%d %H:%M:%S").to_string();
    // Where our words go is no reason to end.
    let _ = writeln!(io::stderr(), "{now} ERROR: guard of {}: {what}", data_dir.display());
}

/// Another process asks the DCS: this one has nothing that could wait. If it fails, the lease expires as it would have.
fn give_back(place: &Place) {
    say(&place.data_dir, "the agent is gone, and nothing of PostgreSQL runs: the leader key is given back");
    let mut command = ourselves();
    command.arg("guard").arg("--data-dir").arg(&place.data_dir).arg("--release");
    if let Some(config) = &place.config {
        command.arg("--config").arg(config);
    }
    let Ok(mut child) = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn() else {
        return say(&place.data_dir, "the leader key stays until its lease expires: no process could be started");
    };
    let give_up = since_boot() + RELEASE_LIMIT;
    while matches!(child.try_wait(), Ok(None)) {
        if since_boot() >= give_up {
            say(&place.data_dir, "the leader key stays until its lease expires: the DCS did not answer in time");
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Duration = Duration::from_secs(1000);

    fn at(ms: u64) -> Duration {
        T0 + Duration::from_millis(ms)
    }

    #[test]
    fn the_deadline_fires_once_and_leaves_an_aftermath() {
        let mut duty = Duty::new(T0);
        duty.take(Order::arm(at(300), None), T0);
        assert_eq!((duty.due(at(299)), duty.next_look(at(250), false)), (None, Some(at(300))));
        assert_eq!(duty.next_look(T0, false), Some(T0 + LOOK), "whether the server is gone as well");
        assert_eq!(duty.next_look(T0, true), Some(at(300)), "not before its time");
        assert!(duty.due(at(300)).is_some_and(|stop| !stop.is_again && stop.deadline == at(300)));
        assert!(duty.due(at(500)).is_some_and(|stop| stop.is_again && stop.deadline == at(300)));
        assert_eq!(duty.next_look(at(400), true), Some(at(400) + LOOK), "stragglers");
        assert_eq!(duty.due(at(300) + AFTERMATH), None);
        assert_eq!(duty.next_look(at(9_000), true), None);
        assert_eq!(duty.next_look(at(9_000), false), Some(at(9_000) + REST));
    }

    #[test]
    fn a_later_order_in_time_replaces_the_deadline() {
        let mut duty = Duty::new(T0);
        duty.take(Order::arm(at(300), None), T0);
        duty.take(Order::arm(at(900), None), at(200));
        assert_eq!(duty.due(at(800)), None);
        duty.take(Order::Disarm, at(850));
        assert_eq!(duty.due(at(9_000)), None);
        duty.take(Order::arm(at(10_000), None), at(9_500));
        assert!(duty.due(at(10_000)).is_some());
        duty.take(Order::Disarm, at(10_100));
        assert_eq!(duty.due(at(10_200)), None, "an agent that speaks looks after its server itself");
    }

    #[test]
    fn the_key_is_given_back_once_when_neither_agent_nor_server_is_left() {
        let (gone, runs) = (|_| true, |_| false);
        let mut duty = Duty::new(T0);
        assert!((0..9).all(|_| !duty.is_orphaned(T0, false, gone)), "nobody led");
        duty.take(Order::arm(at(9_000), None), T0);
        assert!((0..9).all(|_| !duty.is_orphaned(T0, true, gone)), "the agent starts it again");
        assert!((0..9).all(|_| !duty.is_orphaned(T0, false, runs)), "another agent may be in time");
        for looks in [[true, true, false], [false, true, false]] {
            assert!(looks.iter().all(|is_gone| !duty.is_orphaned(T0, false, |_| *is_gone)));
        }
        duty.take(Order::Greet, T0);
        assert!(duty.due(at(9_000)).is_some(), "a greeting changes nothing");
        assert_eq!([0; 3].map(|_| duty.is_orphaned(at(9_100), false, gone)), [false, false, true]);
        assert!((0..9).all(|_| !duty.is_orphaned(at(9_200), false, gone)), "once");
        assert!(duty.due(at(9_300)).is_some_and(|stop| stop.is_again), "stragglers are stopped");
        duty.take(Order::arm(at(20_000), None), at(10_000));
        duty.take(Order::Disarm, at(10_000));
        assert!((0..9).all(|_| !duty.is_orphaned(at(10_000), false, gone)), "a replica, or maintenance mode");
    }

    #[test]
    fn it_ends_only_when_nobody_needs_it() {
        let mut duty = Duty::new(T0);
        assert!(!duty.is_over(T0 + IDLE / 2, false));
        assert!(!duty.is_over(T0 + IDLE, true), "somebody is connected");
        assert!(duty.is_over(T0 + IDLE * 2, false));
        duty.take(Order::arm(T0 + IDLE * 9, None), T0);
        assert!(!duty.is_over(T0 + IDLE * 8, false), "the deadline is kept without a connection");
        assert!(duty.due(T0 + IDLE * 9).is_some());
        assert!(!duty.is_over(T0 + IDLE * 9, false));
        assert_eq!(duty.due(T0 + IDLE * 11), None);
        assert!(duty.is_over(T0 + IDLE * 12, false));
        duty.take(Order::Disarm, T0 + IDLE * 13);
        assert!(!duty.is_over(T0 + IDLE * 13, true));
        assert!(duty.is_over(T0 + IDLE * 13, false), "whoever disarmed it and went does not need it");
    }
}
