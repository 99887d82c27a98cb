//! Ending what runs in the directory and is not ours to wait for: what a killed demo left, or a postmaster that lost
//! its agent.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use super::place::Place;
use super::scan::{Kind, Seen, scan};
use super::stop::Stop;

/// Between two looks.
const STEP: Duration = Duration::from_millis(50);

/// After SIGKILL only the kernel can keep a process.
const AFTER_KILL: Duration = Duration::from_secs(5);

/// Kinds of processes that end together, by which signal, and after how long they are killed.
type Group = (&'static [Kind], Signal, Duration);

/// In the order they are ended: agents first, or they would start their servers again; the store last, because an
/// agent that ends says so there.
const ORDER: [Group; 5] = [
    (&[Kind::Agent, Kind::Tool], Signal::SIGTERM, Duration::from_secs(20)),
    (&[Kind::Postmaster], Signal::SIGINT, Duration::from_secs(15)),
    (&[Kind::Backend], Signal::SIGTERM, Duration::from_secs(3)),
    (&[Kind::Guard], Signal::SIGTERM, Duration::from_secs(3)),
    (&[Kind::Store], Signal::SIGTERM, Duration::from_secs(5)),
];

/// Ends everything, and says what was there. Nothing, as a rule.
pub(super) async fn end_all(place: &Place, stop: &Stop) -> Vec<String> {
    end_these(place, stop, &ORDER).await
}

/// Ends everything but the store.
pub(super) async fn end_servers(place: &Place, stop: &Stop) -> Vec<String> {
    end_these(place, stop, &ORDER[..ORDER.len() - 1]).await
}

async fn end_these(place: &Place, stop: &Stop, order: &[Group]) -> Vec<String> {
    let kinds: Vec<Kind> = order.iter().flat_map(|(kinds, ..)| *kinds).copied().collect();
    let found = of(place, &kinds);
    let named: Vec<String> = found.iter().filter(|seen| seen.is_main()).map(Seen::words).collect();
    let mut remarks = Vec::new();
    if !named.is_empty() {
        remarks.push(format!("still running in {}, and stopped now: {}", place.dir().display(), named.join(", ")));
    }
    for (kinds, signal, limit) in order {
        if !end(place, stop, kinds, *signal, *limit).await {
            let left: Vec<String> = of(place, kinds).iter().map(Seen::words).collect();
            remarks.push(format!("cannot be ended, not even by SIGKILL: {}", left.join(", ")));
        }
    }
    remarks
}

/// Ends the processes of these kinds, by `signal` within `limit`, else by SIGKILL.
async fn end(place: &Place, stop: &Stop, kinds: &[Kind], signal: Signal, limit: Duration) -> bool {
    for (signal, limit) in [(signal, limit), (Signal::SIGKILL, AFTER_KILL)] {
        let give_up = Instant::now() + limit;
        let found = of(place, kinds);
        for seen in &found {
            send(seen.pid, signal);
            // A stopped process gets nothing but SIGKILL until it goes on.
            send(seen.pid, Signal::SIGCONT);
        }
        while !of(place, kinds).is_empty() {
            let is_over = Instant::now() > give_up || (stop.is_hurried() && signal != Signal::SIGKILL);
            if is_over {
                break;
            }
            sleep(STEP).await;
        }
    }
    of(place, kinds).is_empty()
}

fn of(place: &Place, kinds: &[Kind]) -> Vec<Seen> {
    scan(place).into_iter().filter(|seen| kinds.contains(&seen.kind)).collect()
}

/// Signals one process; whether it was there to take it.
pub(super) fn send(pid: i32, signal: Signal) -> bool {
    pid > 1 && kill(Pid::from_raw(pid), signal).is_ok()
}
