//! A PostgreSQL that is only its rules: WAL, timelines, phases of its process, who may stream, what acknowledges a
//! commit. What is on its "disk" survives the agent that drives it.
//!
//! The WAL is a list of records. Each has a number that was given out once in the whole world, in ascending order, so
//! that two lists with the same number at the same place are the same up to there: the truth about divergence, which
//! the servers themselves can only guess from their timelines.

use pgherd::cluster::{HistoryLine, Lsn, MemberName, State, Timeline, Upstream};
use pgherd::ha::sync::StandbyNames;
use tokio::time::Instant;

/// The position before the first record, and the length of each.
const FIRST: u64 = 1000;
const LENGTH: u64 = 10;

/// The postmaster.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Phase {
    #[default]
    Down,
    /// It recovers, and takes connections from then on; or it fails.
    Starting {
        ready: Instant,
        fails: bool,
    },
    Up,
    /// Told to stop: no client is served any more, the shutdown checkpoint is written at `shut`, the process ends when
    /// its standbys have everything.
    Stopping {
        shut: Instant,
        exit: Instant,
        is_shut: bool,
    },
}

/// A standby's connection to its upstream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receiver {
    pub(crate) from: usize,
    /// How many records the upstream knows to be here.
    pub(crate) told: usize,
    /// When both sides last heard of each other.
    pub(crate) heard: Instant,
}

/// What a commit waits for. A changed setting reaches the processes of a server one by one: for a while a commit may be
/// acknowledged by either.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waiting {
    pub(crate) text: String,
    pub(crate) now: StandbyNames,
    pub(crate) before: Option<(StandbyNames, Instant)>,
}

/// One member's data directory and server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Server {
    pub(crate) has_data: bool,
    /// Timelines this data has been on, each with the position at which it began. The last is the current one.
    pub(crate) history: Vec<(u32, u64)>,
    pub(crate) wal: Vec<u64>,
    pub(crate) phase: Phase,
    /// Processes of this server are suspended.
    pub(crate) is_frozen: bool,
    pub(crate) in_recovery: bool,
    pub(crate) is_clean: bool,
    pub(crate) was_in_recovery: bool,
    pub(crate) has_standby_signal: bool,
    pub(crate) crashed: bool,
    pub(crate) start_failed: bool,
    pub(crate) upstream: Option<MemberName>,
    /// Its upstream is the remote primary, which is no member.
    pub(crate) follows_remote: bool,
    /// The history of a timeline that comes after its own has arrived from the upstream.
    pub(crate) next_history: bool,
    pub(crate) receiver: Option<Receiver>,
    pub(crate) checkpointed: bool,
    pub(crate) promotes_at: Option<Instant>,
    /// Timelines up to this one are not begun here.
    pub(crate) left_out: u32,
    /// What the agent's job makes of the state word.
    pub(crate) operation: Option<State>,
    pub(crate) waiting: Waiting,
    /// The timeline that this data was made a primary on.
    pub(crate) led: Option<u32>,
    /// Counts the lives of the process: a client's connection does not outlive one.
    pub(crate) life: u64,
}

impl Server {
    pub(crate) fn timeline(&self) -> u32 {
        self.history.last().map_or(0, |(timeline, _)| *timeline)
    }

    pub(crate) fn lsn(&self) -> u64 {
        FIRST + LENGTH * self.wal.len() as u64
    }

    /// Where the last record begins.
    pub(crate) fn last_record(&self) -> u64 {
        self.lsn() - if self.wal.is_empty() { 0 } else { LENGTH }
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.phase != Phase::Down
    }

    pub(crate) fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }

    /// Takes writes now.
    pub(crate) fn is_writable(&self) -> bool {
        self.is_up() && !self.in_recovery && !self.is_frozen
    }

    pub(crate) fn is_streaming(&self) -> bool {
        self.is_up() && self.in_recovery && self.receiver.is_some()
    }

    /// Still sends WAL, if only the last of it.
    pub(crate) fn sends(&self) -> bool {
        matches!(self.phase, Phase::Up | Phase::Stopping { .. }) && !self.is_frozen
    }

    /// The truth: everything here is there, too.
    pub(crate) fn is_part_of(&self, other: &Self) -> bool {
        match self.wal.len() {
            0 => true,
            len => other.wal.get(len - 1) == self.wal.last(),
        }
    }

    /// Two leaders have made the same timeline, and this server followed the one that was given up. The rules know a
    /// leader's own server in this place, and a standby that they have seen following; one that was cut off from the
    /// DCS all the while is known to nobody.
    pub(crate) fn is_lost_twin_of(&self, other: &Self) -> bool {
        self.timeline() == other.timeline() && self.led != Some(self.timeline()) && !self.is_part_of(other)
    }

    /// What an upstream's walsender can tell by timelines and positions.
    pub(crate) fn may_stream_from(&self, other: &Self) -> bool {
        let Some(at) = other.history.iter().position(|(timeline, _)| *timeline == self.timeline()) else {
            return false;
        };
        match other.history.get(at + 1) {
            Some((_, fork)) => self.lsn() <= *fork,
            None => self.lsn() <= other.lsn(),
        }
    }

    /// Takes over whom it is told to follow.
    pub(crate) fn point_at(&mut self, upstream: Option<&Upstream>) {
        self.upstream = upstream.and_then(|upstream| upstream.member.clone());
        self.follows_remote = is_remote(upstream);
    }

    /// It is told to follow this one already.
    pub(crate) fn points_at(&self, upstream: Option<&Upstream>) -> bool {
        self.upstream == upstream.and_then(|upstream| upstream.member.clone())
            && self.follows_remote == is_remote(upstream)
    }

    /// The history file of the current timeline.
    pub(crate) fn history_lines(&self) -> Vec<HistoryLine> {
        let line = |pair: &[(u32, u64)]| HistoryLine {
            timeline: Timeline(pair[0].0),
            switch: Lsn(pair[1].1),
            reason: "no recovery target specified".into(),
            timestamp: None,
            new_leader: None,
        };
        self.history.windows(2).map(line).collect()
    }

    /// The process is gone, however.
    pub(crate) fn end(&mut self, is_clean: bool) {
        self.was_in_recovery = self.in_recovery;
        self.is_clean = is_clean;
        self.phase = Phase::Down;
        self.receiver = None;
        self.promotes_at = None;
        self.is_frozen = false;
        self.life += 1;
    }

    /// Takes over everything that is in another's data directory.
    pub(crate) fn copy(&mut self, source: &Self) {
        self.has_data = true;
        self.history.clone_from(&source.history);
        self.wal.clone_from(&source.wal);
        self.is_clean = true;
        self.was_in_recovery = true;
        self.has_standby_signal = true;
        self.crashed = false;
        self.next_history = false;
        self.led = None;
    }
}

/// The remote primary of a standby cluster, and no member.
fn is_remote(upstream: Option<&Upstream>) -> bool {
    upstream.is_some_and(|upstream| upstream.member.is_none() && upstream.host.is_some())
}
