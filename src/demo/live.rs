//! The view of a terminal: the topology as it changes, what happened to the processes, and what to try next.

use std::time::Duration;

use console::Term;
use jiff::{Timestamp, tz::TimeZone};
use tokio::time::{Instant, sleep};

use crate::cluster::ClusterView;
use crate::io::clock::{Clock as _, SystemClock};

use super::error::DemoError;
use super::files::{shell_word, uri};
use super::herd::Herd;
use super::look::topology;
use super::progress;
use super::voice;

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(500);

/// A program that ended is started again after this long, as a service manager would; longer than the ttl, so that a
/// killed leader is replaced before it comes back.
const AGAIN: Duration = Duration::from_secs(30);

/// How many events are kept on the screen.
const NOTES: usize = 4;

/// Starts the cluster and shows it until it is dropped.
pub(super) async fn run(herd: &mut Herd, is_resumed: bool) -> Result<(), DemoError> {
    let dir = herd.place.dir().display();
    let word = if is_resumed { "resuming" } else { "creating" };
    voice::note(&format!("{word} the cluster in {dir}"));
    progress::bring_up(herd).await?;
    let mut screen = Screen::new();
    let mut events = Events::default();
    loop {
        events.follow(herd);
        let width = screen.term.size_checked().map(|(_, columns)| columns);
        let middle = match herd.eyes.view().await {
            Ok(view) => topology(&view, width, console::colors_enabled()) + "\n\n" + &advice(herd, &view),
            Err(why) => format!("the store cannot be read: {why}"),
        };
        screen.show(&format!("{middle}\n{}", events.text()));
        sleep(PERIOD).await;
    }
}

/// The commands to try.
fn advice(herd: &Herd, view: &ClusterView) -> String {
    let word = |path: &std::path::Path| shell_word(&path.display().to_string());
    let ctl = format!("{} -c {}", word(&herd.ctl), word(&herd.place.ctl()));
    let psql = if is_on_path("psql") { "psql".to_owned() } else { word(&herd.plan.bin_dir.join("psql")) };
    let mut lines = vec![
        "Try in another terminal:".to_owned(),
        format!("  {ctl} switchover"),
        format!("  {ctl} edit-config"),
        format!("  {psql} {}", shell_word(&uri(&herd.place, &herd.plan))),
    ];
    let leader = herd.plan.members.iter().position(|member| view.has_lock(&member.name));
    if let Some((i, pid)) = leader.and_then(|i| Some((i, herd.postmaster(i)?))) {
        let name = &herd.plan.members[i].name;
        lines.push(format!("  kill -9 {pid}    # the leader's PostgreSQL: {name} is back in a moment"));
        if let Some(agent) = herd.agent(i).pid() {
            lines.push(format!("  kill -9 {agent} {pid}    # with its agent: another member takes over"));
        }
    }
    let logs = herd.place.logs();
    lines.push(format!("Logs and configuration: {}, {}", word(&logs), word(&herd.place.dir().join("herd1.yml"))));
    lines.push("Ctrl-C stops the cluster; the same command resumes it.".to_owned());
    lines.join("\n")
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).exists())
}

/// What happened to the programs, and what is to be started again when.
#[derive(Default)]
struct Events {
    lines: Vec<String>,
    due: Vec<(Instant, usize)>,
}

impl Events {
    fn follow(&mut self, herd: &mut Herd) {
        for (i, words) in herd.ended() {
            let log = if i == 0 { herd.place.log("store") } else { herd.place.log(&herd.plan.members[i - 1].name) };
            let seconds = AGAIN.as_secs();
            self.add(&format!("{words}; it is started again in {seconds} s (log: {})", log.display()));
            self.due.push((Instant::now() + AGAIN, i));
        }
        let (due, later): (Vec<_>, Vec<_>) = self.due.drain(..).partition(|(at, _)| *at <= Instant::now());
        self.due = later;
        for (_, i) in due {
            let name = if i == 0 { "the store" } else { &herd.plan.members[i - 1].name };
            let name = name.to_owned();
            match herd.start_again(i) {
                Ok(()) => self.add(&format!("{name} is started again")),
                Err(error) => self.add(&super::error::chain(&error)),
            }
        }
    }

    fn add(&mut self, words: &str) {
        let since = SystemClock.since_epoch();
        let stamp = Timestamp::UNIX_EPOCH.checked_add(since).unwrap_or(Timestamp::UNIX_EPOCH);
        let time = stamp.to_zoned(TimeZone::system()).strftime("%H:%M:%S").to_string();
        self.lines.push(format!("{time} {words}"));
        let excess = self.lines.len().saturating_sub(NOTES);
        self.lines.drain(..excess);
    }

    fn text(&self) -> String {
        self.lines.iter().map(|line| format!("\n{line}")).collect()
    }
}

/// A text that is replaced in place, and stays on the terminal when the demo ends.
struct Screen {
    term: Term,
    shown: String,
}

impl Screen {
    fn new() -> Self {
        Self { term: Term::stdout(), shown: String::new() }
    }

    /// Shows the text if it is another one. Errors are dropped: a terminal that went away ends the demo by SIGHUP.
    fn show(&mut self, text: &str) {
        let (rows, columns) = self.term.size();
        let text = cut(text.trim_end(), usize::from(rows).saturating_sub(1), usize::from(columns));
        if text == self.shown {
            return;
        }
        let old: usize = self.shown.lines().map(|line| height(line, usize::from(columns))).sum();
        let _ = self.term.clear_last_lines(old);
        let _ = self.term.write_line(&text);
        self.shown = text;
    }
}

/// How many rows a line takes.
fn height(line: &str, columns: usize) -> usize {
    console::measure_text_width(line).div_ceil(columns.max(1)).max(1)
}

/// As many lines as fit: what has scrolled away cannot be replaced.
fn cut(text: &str, rows: usize, columns: usize) -> String {
    let mut left = rows;
    let fits = |line: &&str| {
        let height = height(line, columns);
        let fits = height <= left;
        left = left.saturating_sub(height);
        fits
    };
    text.lines().take_while(fits).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_cut_to_the_screen() {
        assert_eq!(cut("a\nb\nc", 2, 80), "a\nb");
        assert_eq!(cut("a\n123456789012\nc", 3, 10), "a\n123456789012");
        assert_eq!(cut("a\n123456789012\nc", 2, 10), "a");
        assert_eq!(height("", 10), 1);
        assert_eq!(height("1234567890", 10), 1);
        assert_eq!(height("\x1b[31m1234567890\x1b[0m!", 10), 2);
    }
}
