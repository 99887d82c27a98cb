//! Which seeds are played, and how.
//!
//! `SEED=123 cargo test --test simulator seeds` plays one seed and prints its log; `SEEDS=0..2000` a range.

use std::ops::Range;

use crate::lot::play;
use crate::sabotage::Sabotage;
use crate::world::Failure;

/// Every seed of this range is played by `make test`.
const SEEDS: Range<u64> = 0..2_000;

/// Seeds that have found something once, whatever the range is. Their worlds stay what they were then: what is newer (the
/// DCS away in failsafe mode, whims, hanging disks, members that come late) does not happen there.
pub(crate) const KNOWN: &[u64] = &[
    62, 250, 271, 622, 833, 1391, // a timeline made twice
    144, 862, 863, 1616, // a switchover that nobody took, or somebody without the votes
    540, 1987, // a restart asked of a server that was no standby, without the lock
    308, 369, // a rewind that waited for a checkpoint in vain
];

/// Seeds beyond the range that have found something with all that is newer.
const FOUND: &[u64] = &[
    2_503, 2_604,  // a member that was suspended in a race goes on with it when others have led meanwhile
    3_422,  // a former leader that is further in numbers keeps everybody back, and cannot lead itself
    5_022,  // led for a moment: the next leader does not know the timeline and begins another one of its number
    7_777,  // a former leader that is further in numbers, and has missed what a later timeline acknowledged
    12_600, // the DCS hangs just after a renewal
];

fn number(text: &str) -> u64 {
    text.trim().parse().expect("a seed is a number")
}

fn seeds() -> Vec<u64> {
    if let Ok(seed) = std::env::var("SEED") {
        return vec![number(&seed)];
    }
    match std::env::var("SEEDS") {
        Ok(range) => {
            let (from, to) = range.split_once("..").expect("SEEDS is FROM..TO");
            (number(from)..number(to)).collect()
        }
        Err(_) => SEEDS.collect(),
    }
}

/// One seed in a runtime of its own.
pub(crate) fn play_one(seed: u64, sabotage: Option<Sabotage>) -> Result<String, Failure> {
    in_paused_time(play(seed, sabotage))
}

/// A runtime of its own, whose time passes as fast as nobody has anything to do.
pub(crate) fn in_paused_time<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(work)
}

/// Every seed whose remainder is `part`. All failures are counted, the first is told.
#[allow(clippy::print_stderr, reason = "who replays a seed wants to see what happens")]
fn play_part(part: u64, of: u64) {
    let mut failed: Vec<(u64, Failure)> = Vec::new();
    for seed in seeds().into_iter().filter(|seed| seed % of == part) {
        match play_one(seed, None) {
            Ok(log) if std::env::var("SEED").is_ok() => eprintln!("{log}"),
            Ok(_) => {}
            Err(failure) => {
                eprintln!("SEED={seed}: {}", failure.what);
                failed.push((seed, failure));
            }
        }
    }
    let summary: Vec<String> = failed.iter().map(|(seed, failure)| format!("SEED={seed}: {}", failure.what)).collect();
    if let Some((seed, failure)) = failed.first() {
        panic!("seed {seed} failed; replay it with SEED={seed}\n{failure:?}\n\nall of them:\n{}", summary.join("\n"));
    }
}

macro_rules! parts {
    ($($name:ident $part:literal),*) => {
        $(#[test]
        fn $name() {
            play_part($part, 8);
        })*
    };
}

parts!(part_0 0, part_1 1, part_2 2, part_3 3, part_4 4, part_5 5, part_6 6, part_7 7);

#[test]
fn known() {
    for seed in KNOWN.iter().chain(FOUND) {
        play_one(*seed, None).unwrap_or_else(|failure| panic!("seed {seed} failed again\n{failure:?}"));
    }
}

/// Plays seeds until the world finds the fault: first the ones that found it before, then all.
#[allow(clippy::print_stderr, reason = "who looks closer wants to see what was found")]
fn find(sabotage: Sabotage, hints: &[u64]) {
    let all = hints.iter().copied().chain(SEEDS);
    let found = all.into_iter().find_map(|seed| Some((seed, play_one(seed, Some(sabotage)).err()?)));
    let Some((seed, failure)) = found else { panic!("no seed finds out {sabotage:?}") };
    let what = failure.what;
    eprintln!("{sabotage:?}: seed {seed}: {what}");
}

macro_rules! faults {
    ($($name:ident $sabotage:ident $hints:expr;)*) => {
        $(#[test]
        fn $name() {
            find(Sabotage::$sabotage, &$hints);
        })*
    };
}

mod faults {
    use super::*;

    faults! {
        no_deadline NoDeadline [43];
        no_guard NoGuard [43];
        slow_clocks SlowClocks [34];
        no_renewal NoRenewal [25];
        promote_before_swap PromoteBeforeSwap [2];
        ignore_sync IgnoreSync [4];
        ignore_votes IgnoreVotes [12];
        ignore_positions IgnorePositions [2];
        ignore_nofailover IgnoreNofailover [43];
        ignore_pause IgnorePause [8];
        skip_rewind SkipRewind [8];
        names_before_sync NamesBeforeSync [436];
        unprepared_promotion UnpreparedPromotion [522];
        release_early ReleaseEarly [46];
        start_as_primary StartAsPrimary [91];
        no_demotion NoDemotion [42];
        lead_unaccepted LeadUnaccepted [65];
        forget_promise ForgetPromise [65];
        sure_after_restart SureAfterRestart [10];
    }
}
