//! The way to a running cluster, shown while it is gone.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::{Instant, sleep};

use crate::cluster::ClusterView;

use super::error::DemoError;
use super::herd::Herd;

/// `initdb` and two clones on a slow machine, or the lease of a leader that was killed with an earlier demo.
const LIMIT: Duration = Duration::from_secs(120);

/// Between two looks.
const STEP: Duration = Duration::from_millis(100);

/// Starts everything and waits until one member leads and the others stream from it; gives the leader.
pub(super) async fn bring_up(herd: &mut Herd) -> Result<usize, DemoError> {
    let board = Board::new(herd);
    board.set(0, "starting");
    herd.start_store().await?;
    board.done(0, &format!("answers on 127.0.0.1:{}", herd.plan.store_port));
    herd.start_agents()?;
    let give_up = Instant::now() + LIMIT;
    let everyone: Vec<usize> = (0..herd.plan.members.len()).collect();
    loop {
        herd.check()?;
        let why = match herd.eyes.leader_of(&everyone).await {
            Ok(leader) => {
                herd.plan.mark_as_run(&herd.place)?;
                return Ok(leader);
            }
            Err(why) => why,
        };
        if let Ok(view) = herd.eyes.view().await {
            for (i, member) in herd.plan.members.iter().enumerate() {
                board.set(i + 1, &words(&view, &member.name));
            }
        }
        if Instant::now() > give_up {
            let limit = LIMIT.as_secs();
            return Err(DemoError::new(format!("not ready after {limit} s: {why}\n{}", herd.tails(10))));
        }
        sleep(STEP).await;
    }
}

/// What a member is doing, in a few words.
fn words(view: &ClusterView, name: &str) -> String {
    let Some(member) = view.member(name) else { return "the agent starts".to_owned() };
    let state = member.replication_state().unwrap_or(member.state_text());
    if view.has_lock(name) { format!("{state}, leads") } else { state.to_owned() }
}

/// One spinner for the store and each member; nothing where stderr is no terminal.
struct Board {
    bars: Vec<ProgressBar>,
    _all: MultiProgress,
}

impl Board {
    fn new(herd: &Herd) -> Self {
        let all = MultiProgress::new();
        let style = ProgressStyle::with_template("{spinner} {prefix:<6} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let names = ["store"].into_iter().chain(herd.plan.members.iter().map(|member| member.name.as_str()));
        let bar = |name: &str| {
            let bar = all.add(ProgressBar::new_spinner().with_style(style.clone()).with_prefix(name.to_owned()));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        };
        Self { bars: names.map(bar).collect(), _all: all }
    }

    fn set(&self, i: usize, words: &str) {
        self.bars[i].set_message(words.to_owned());
    }

    fn done(&self, i: usize, words: &str) {
        self.bars[i].finish_with_message(words.to_owned());
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.bars.iter().for_each(ProgressBar::finish_and_clear);
    }
}
