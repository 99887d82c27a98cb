//! An alarm clock for a thread, on the clock that counts on while the machine is suspended: after a suspension it
//! rings at once if its time has passed meanwhile. So nobody has to look at the clock again and again.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// Should the timer ever fail, the clock is looked at by hand.
const LOOK: Duration = Duration::from_millis(200);

/// Even without anything to wait for, a wait ends after this.
const LONGEST: Duration = Duration::from_secs(30);

/// A moment that one thread waits for, and the bell by which others interrupt it.
#[derive(Debug)]
pub struct Alarm {
    timer: TimerFd,
    bell: EventFd,
}

impl Alarm {
    /// Needs two file descriptors.
    pub fn new() -> io::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { timer, bell })
    }

    /// Ends the wait that is under way, or the next one.
    pub fn ring(&self) {
        // It fails only while it rings already.
        let _ = self.bell.write(1);
    }

    /// Waits until `at`, counted since the machine started, or until the bell rings. It may also end sooner.
    pub fn wait(&self, at: Option<Duration>) {
        self.wait_or(at, &[]);
    }

    /// As [`Alarm::wait`], or until one of these can be read or has been hung up.
    pub fn wait_or(&self, at: Option<Duration>, others: &[BorrowedFd<'_>]) {
        let set = match at {
            Some(at) => {
                let moment = Expiration::OneShot(TimeSpec::from_duration(at.max(Duration::from_nanos(1))));
                self.timer.set(moment, TimerSetTimeFlags::TFD_TIMER_ABSTIME)
            }
            None => self.timer.unset(),
        };
        let limit = if set.is_ok() { LONGEST } else { LOOK };
        let own = [self.timer.as_fd(), self.bell.as_fd()];
        let mut watched: Vec<PollFd<'_>> = own.iter().chain(others).copied().map(readable).collect();
        let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        if poll(&mut watched, limit).is_err() {
            // Interrupted, or out of memory: the pause keeps the latter from spinning.
            std::thread::sleep(Duration::from_millis(1));
        }
        // It fails when nobody rang.
        let _ = self.bell.read();
    }
}

fn readable(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::POLLIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::clock::since_boot;

    #[test]
    fn it_rings_at_its_time_again_and_again_and_when_somebody_rings() {
        let alarm = Alarm::new().unwrap();
        for _ in 0..3 {
            let at = since_boot() + Duration::from_millis(20);
            while since_boot() < at {
                alarm.wait(Some(at));
            }
        }
        // A time that has passed is not waited for.
        alarm.wait(Some(Duration::ZERO));
        alarm.ring();
        alarm.ring();
        alarm.wait(None);
        std::thread::scope(|scope| {
            scope.spawn(|| alarm.ring());
            alarm.wait(None);
        });
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        drop(theirs);
        alarm.wait_or(None, &[ours.as_fd()]);
    }
}
