//! Families of processes: who descends from whom, and how to end them all.
//!
//! A process is known by number and start time together; a number alone may have been given to somebody else.

use std::fs;
use std::io::Read as _;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// One process, as `/proc` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Its parent.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// When it started, in clock ticks since boot.
    pub start_ticks: u64,
    /// Ended but not collected by its parent yet.
    pub is_zombie: bool,
}

/// Looks one process up. It is done in every cycle: there is room for all of the text at once, which says of itself that
/// it is empty and would be read bit by bit.
pub fn process(pid: i32) -> Option<Process> {
    let mut text = [0; 1024];
    let length = fs::File::open(format!("/proc/{pid}/stat")).ok()?.read(&mut text).ok()?;
    parse(std::str::from_utf8(&text[..length]).ok()?)
}

/// Every process on the machine that can be seen.
pub fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| process(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// Reads `/proc/PID/stat`. The program's name, in parentheses, may hold blanks and parentheses itself.
fn parse(stat: &str) -> Option<Process> {
    let (pid, rest) = stat.split_once(" (")?;
    let mut fields = rest.rsplit_once(')')?.1.split_ascii_whitespace();
    Some(Process {
        pid: pid.parse().ok()?,
        is_zombie: matches!(fields.next()?, "Z" | "X"),
        parent: fields.next()?.parse().ok()?,
        group: fields.next()?.parse().ok()?,
        start_ticks: fields.nth(16)?.parse().ok()?,
    })
}

/// Children, their children and so on.
pub fn descendants(ancestor: i32) -> Vec<Process> {
    let all = processes();
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![ancestor];
    while let Some(parent) = parents.pop() {
        for process in all.iter().filter(|process| process.parent == parent) {
            if process.pid != ancestor && !found.contains(process) {
                found.push(*process);
                parents.push(process.pid);
            }
        }
    }
    found
}

/// Signals one process; whether it was there to take it.
pub fn signal(pid: i32, signal: Signal) -> bool {
    pid > 1 && kill(Pid::from_raw(pid), signal).is_ok()
}

/// It has been killed and does nothing any more, although it is still there: the kernel holds it, as a rule because a
/// disk does not answer.
pub fn is_killed(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    has_pending(&status, Signal::SIGKILL)
}

/// Whether `/proc/PID/status` tells of a signal that is still to be taken.
fn has_pending(status: &str, signal: Signal) -> bool {
    let masks = status.lines().filter_map(|line| line.strip_prefix("SigPnd:").or(line.strip_prefix("ShdPnd:")));
    let bit = 1_u64 << (signal as i32 - 1);
    masks.filter_map(|mask| u64::from_str_radix(mask.trim(), 16).ok()).any(|mask| mask & bit != 0)
}

/// Signals a process group.
pub(super) fn signal_group(leader: i32, signal: Signal) {
    if leader > 1 {
        let _ = killpg(Pid::from_raw(leader), signal);
    }
}

/// Kills a process and its descendants. It is suspended first, so that it cannot start more while they are listed.
/// `false`: it was not ours to kill.
pub fn kill_tree(pid: i32) -> bool {
    let suspended = signal(pid, Signal::SIGSTOP);
    let family = descendants(pid);
    let killed = signal(pid, Signal::SIGKILL);
    for process in &family {
        kill_if_same(process);
    }
    suspended && killed
}

/// Kills a process and its children as fast as can be: nobody else is looked at. What this misses (grandchildren, and
/// whoever is not told of by the kernel) is for [`kill_tree`]. Returns how many there were.
pub fn kill_with_children(pid: i32) -> usize {
    signal(pid, Signal::SIGSTOP);
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());
    // The children first: it is they who answer clients.
    let killed = children.filter(|child| signal(*child, Signal::SIGKILL)).count();
    killed + usize::from(signal(pid, Signal::SIGKILL))
}

/// Kills what is left of a family whose head has ended: members of its group, and those of `known` that still live.
pub(super) fn kill_rest(leader: i32, known: &[Process]) {
    for process in known {
        kill_if_same(process);
    }
    let all = processes();
    // While a group has members, its number is not given to a new process. A living head means that it was.
    if all.iter().any(|process| process.pid == leader && !process.is_zombie) {
        return;
    }
    for process in all.iter().filter(|process| process.group == leader && process.pid != leader) {
        signal(process.pid, Signal::SIGKILL);
    }
}

fn kill_if_same(seen: &Process) {
    if process(seen.pid).is_some_and(|now| now.start_ticks == seen.start_ticks) {
        signal(seen.pid, Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_are_read() {
        let line = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 1 2";
        let expected = Process { pid: 42, parent: 7, group: 42, start_ticks: 12345, is_zombie: false };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse(""), None);
        assert_eq!(parse("1 (x"), None);
    }

    #[test]
    fn a_family_is_killed_while_it_is_suspended() {
        let mut parent = std::process::Command::new("/bin/sh")
            .args(["-c", "sleep 60 & sleep 60 & wait"])
            .stdin(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let pid = i32::try_from(parent.id()).unwrap();
        let give_up = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
        let mut children = descendants(pid);
        while children.len() < 2 && tokio::time::Instant::now() < give_up {
            std::thread::yield_now();
            children = descendants(pid);
        }
        for child in &children {
            signal(child.pid, Signal::SIGSTOP);
        }
        assert_eq!(kill_with_children(pid), 3);
        parent.wait().unwrap();
        let lives = |child: &Process| process(child.pid).is_some_and(|now| now == *child && !now.is_zombie);
        while children.iter().any(lives) {
            assert!(tokio::time::Instant::now() < give_up, "{children:?}");
        }
    }

    #[test]
    fn we_are_among_the_descendants_of_our_parent() {
        let me = process(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(descendants(me.parent).contains(&me));
        assert!(descendants(me.pid).iter().all(|process| process.pid != me.pid));
    }

    #[test]
    fn a_kill_that_is_not_taken_yet_is_seen() {
        let status = "State:\tD (disk sleep)\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n";
        assert!(has_pending(status, Signal::SIGKILL) && !has_pending(status, Signal::SIGTERM));
        assert!(has_pending("ShdPnd:\t0000000000004100\n", Signal::SIGKILL));
        assert!(!has_pending("", Signal::SIGKILL) && !is_killed(1));
    }

    #[test]
    fn init_is_never_signalled() {
        assert!(!signal(0, Signal::SIGCONT));
        assert!(!signal(1, Signal::SIGCONT));
        assert!(!signal(-1, Signal::SIGCONT));
    }
}
