//! Process number one of a container: the agent runs as a child, and this process does what an init does. It passes
//! signals on, collects children that lost their parent (a postmaster is nobody's child by intention), and ends when
//! the agent ends.

use std::io::{self, Write};
use std::process::{Command, ExitCode};

use jiff::Zoned;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// What the agent is told when we are.
const PASSED_ON: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGINT,
    Signal::SIGABRT,
    Signal::SIGTERM,
];

/// Whether this process is the first of its system or container.
pub fn is_needed() -> bool {
    std::process::id() == 1
}

/// Lets signals through that whoever started us has blocked. To be called while there is one thread only.
pub fn accept_signals() {
    let mut signals: SigSet = PASSED_ON.into_iter().collect();
    signals.add(Signal::SIGCHLD);
    // It cannot fail with signals that exist; and if it did, SIGKILL is still heard.
    let _ = signals.thread_unblock();
}

/// Starts this program again with the same arguments and looks after it. Ends with its exit code; 128 and the signal's
/// number when it was killed.
pub fn run() -> io::Result<ExitCode> {
    let mut signals: SigSet = PASSED_ON.into_iter().collect();
    signals.add(Signal::SIGCHLD);
    // Blocked before the child is there, so that none is lost. The child inherits that, see `accept_signals`.
    signals.thread_block()?;
    let child = Command::new("/proc/self/exe").args(std::env::args_os().skip(1)).spawn()?;
    let agent = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    // Children that this process had before it became this program announce themselves no more.
    if let Some(code) = reap(agent) {
        return Ok(ExitCode::from(code));
    }
    loop {
        match signals.wait()? {
            Signal::SIGCHLD => {
                if let Some(code) = reap(agent) {
                    return Ok(ExitCode::from(code));
                }
            }
            signal => {
                // It may have ended just now, which the next signal tells.
                let _ = kill(agent, signal);
            }
        }
    }
}

/// Collects every child that has ended. The agent's exit code, if it is among them.
fn reap(agent: Pid) -> Option<u8> {
    let mut code = None;
    loop {
        // One signal may stand for several children.
        let (pid, status, as_exit_code) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) => (pid, status << 8, status),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, signal as i32, 128 + signal as i32),
            Ok(WaitStatus::StillAlive) => return code,
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(_) => return code,
        };
        if pid == agent {
            code = Some(u8::try_from(as_exit_code).unwrap_or(u8::MAX));
        } else {
            let now = Zoned::now().strftime("%Y-%m-%d %H:%M:%S,%3f").to_string();
            let _ = writeln!(io::stderr(), "{now} INFO: Reaped pid={pid}, exit status={status}");
        }
    }
}
