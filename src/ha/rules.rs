//! The ordered table of rules. Numbers are stable: they stand in logs, journals and tests, and are never reused.

use super::context::{Context, Flow};
use super::requests::requests;

mod crashed;
mod dcs_lost;
pub(super) mod demotion;
pub(super) mod empty_data_dir;
mod following;
pub(super) mod holding_lock;
mod identity;
mod leaving;
mod manual;
mod new_cluster;
mod race;
mod recovering;
mod rewinding;
mod starting;
mod task_running;
pub(super) mod unfinished;

/// One row: the situation, in an operator's words, and what decides in it.
pub struct Rule {
    /// Stable number.
    pub number: u16,
    /// The situation.
    pub sentence: &'static str,
    /// Answers, or passes on to the next row.
    pub(super) decide: fn(&mut Context<'_>) -> Option<Flow>,
}

/// The rule that answers when the DCS cannot be reached; nothing is published then.
pub(super) const DCS_LOST: u16 = 100;

/// Top to bottom; the first row that answers decides.
pub const TABLE: &[Rule] = &[
    Rule { number: DCS_LOST, sentence: "the DCS cannot be reached", decide: dcs_lost::dcs_lost },
    Rule { number: 110, sentence: "an operator asks something of this node", decide: requests },
    Rule { number: 115, sentence: "the agent is told to end", decide: leaving::leaving },
    Rule { number: 120, sentence: "a demotion is under way", decide: demotion::demotion },
    Rule { number: 130, sentence: "a long task runs", decide: task_running::task_running },
    Rule { number: 200, sentence: "the server is starting and we hold the lock", decide: starting::starting },
    Rule { number: 205, sentence: "an agent died while it filled the data directory", decide: unfinished::unfinished },
    Rule { number: 210, sentence: "this node creates the cluster", decide: new_cluster::new_cluster },
    Rule { number: 220, sentence: "a start has just been tried", decide: recovering::recovering },
    Rule { number: 300, sentence: "there is no data directory", decide: empty_data_dir::empty_data_dir },
    Rule { number: 310, sentence: "the data directory has no system identifier", decide: identity::no_system_id },
    Rule { number: 320, sentence: "the data directory belongs to another cluster", decide: identity::mismatch },
    Rule { number: 330, sentence: "the DCS does not know the cluster", decide: identity::unknown_cluster },
    Rule { number: 400, sentence: "the server is down in maintenance mode", decide: crashed::down_while_paused },
    Rule { number: 410, sentence: "the server is down", decide: crashed::down },
    Rule { number: 500, sentence: "nobody holds the lock", decide: race::unlocked },
    Rule { number: 600, sentence: "this node holds the lock", decide: holding_lock::holding_lock },
    Rule { number: 610, sentence: "another node holds the lock", decide: following::locked_by_other },
];

/// The table as text, for documentation and review: one line a rule.
pub fn table_text() -> String {
    TABLE.iter().map(|rule| format!("{} {}\n", rule.number, rule.sentence)).collect()
}
