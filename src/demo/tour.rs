//! The tour without a terminal: what the cluster is for, done and checked, one line a step.

use std::fmt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use super::error::{DemoError, chain};
use super::files::{SCOPE, TTL_SECONDS};
use super::herd::Herd;
use super::leftovers::send;
use super::look::topology;
use super::programs::Programs;
use super::progress;
use super::pulse::{self, Pulse};
use super::scan;
use super::voice::say;

/// Rows written by each tour.
const ROWS: u64 = 1000;

/// The row that only a doomed leader has.
const LOST: &str = "reached no standby";

/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

const EVERYONE: [usize; 3] = [0, 1, 2];

/// The steps, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Start,
    Write,
    Switchover,
    KillPostmaster,
    KillMember,
    Rejoin,
    Count,
}

const STEPS: [Step; 7] =
    [Step::Start, Step::Write, Step::Switchover, Step::KillPostmaster, Step::KillMember, Step::Rejoin, Step::Count];

impl Step {
    /// What is done.
    fn title(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Write => "write rows",
            Self::Switchover => "switchover",
            Self::KillPostmaster => "kill -9 postmaster",
            Self::KillMember => "kill -9 agent and postmaster",
            Self::Rejoin => "rejoin",
            Self::Count => "count rows",
        }
    }

    /// After this long it has failed. The start has a limit of its own, which says more.
    fn limit(self) -> Duration {
        Duration::from_secs(match self {
            Self::Start => 180,
            Self::Write | Self::Count => 30,
            Self::Switchover | Self::KillPostmaster | Self::Rejoin => 60,
            Self::KillMember => TTL_SECONDS + 60,
        })
    }
}

/// Why a step failed.
enum Failure {
    /// In one sentence; the logs may say more.
    Words(String),
    /// With everything there is to say.
    Whole(DemoError),
}

impl From<String> for Failure {
    fn from(words: String) -> Self {
        Self::Words(words)
    }
}

impl From<DemoError> for Failure {
    fn from(error: DemoError) -> Self {
        Self::Whole(error)
    }
}

struct Tour<'a> {
    herd: &'a mut Herd,
    is_resumed: bool,
    /// The leader, as of the last step.
    leader: usize,
    /// The member that was killed.
    killed: usize,
    /// How many rows there must be.
    rows: u64,
    /// What is waited for, should the step not end in time.
    awaited: String,
}

/// Runs all steps. An error names the step and shows the logs.
pub(super) async fn run(herd: &mut Herd, programs: &Programs, is_resumed: bool) -> Result<(), DemoError> {
    if !herd.ctl.exists() {
        return Err(DemoError::new(format!(
            "{} is missing; build both programs: cargo build --bins",
            herd.ctl.display()
        )));
    }
    let dir = herd.place.dir().display().to_string();
    say(&format!("pgherd demo: three members of PostgreSQL {} in {dir}\n", programs.version));
    let began = Instant::now();
    let mut tour = Tour { herd, is_resumed, leader: 0, killed: 0, rows: 0, awaited: String::new() };
    for step in STEPS {
        tour.step(step).await?;
    }
    if let Ok(view) = tour.herd.eyes.view().await {
        say(&format!("\n{}\n", topology(&view, None, false)));
    }
    say(&format!("all {} steps passed in {}", STEPS.len(), Seconds(began.elapsed())));
    Ok(())
}

impl Tour<'_> {
    async fn step(&mut self, step: Step) -> Result<(), DemoError> {
        let began = Instant::now();
        self.awaited.clear();
        let outcome = match timeout(step.limit(), self.carry_out(step)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::Words(format!("not done after {} s: {}", step.limit().as_secs(), self.awaited))),
        };
        let line = |mark: &str, words: &str| {
            say(&format!("{mark:<4} {:>7}  {}: {words}", Seconds(began.elapsed()).to_string(), step.title()));
        };
        let (why, logs) = match outcome {
            Ok(words) => {
                line("ok", &words);
                return Ok(());
            }
            Err(Failure::Words(words)) => (words, self.herd.tails(15)),
            Err(Failure::Whole(error)) => (chain(&error), String::new()),
        };
        line("FAIL", why.lines().next().unwrap_or_default());
        let dir = self.herd.place.logs();
        let title = step.title();
        let text = format!("the step \"{title}\" failed: {why}\n{logs}\n  all logs are in {}", dir.display());
        Err(DemoError::new(text))
    }

    async fn carry_out(&mut self, step: Step) -> Result<String, Failure> {
        match step {
            Step::Start => self.start().await,
            Step::Write => self.write().await,
            Step::Switchover => self.switchover().await,
            Step::KillPostmaster => self.kill_postmaster().await,
            Step::KillMember => self.kill_member().await,
            Step::Rejoin => self.rejoin().await,
            Step::Count => self.count().await,
        }
    }

    async fn start(&mut self) -> Result<String, Failure> {
        self.leader = progress::bring_up(self.herd).await?;
        let (leader, others) = (self.name(self.leader), self.others());
        let word = if self.is_resumed { "resumed" } else { "bootstrapped" };
        Ok(format!("{word}; {leader} leads, {others} stream from it"))
    }

    async fn write(&mut self) -> Result<String, Failure> {
        let make = format!(
            "CREATE TABLE IF NOT EXISTS tour (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text NOT NULL);
             CREATE TABLE IF NOT EXISTS {} (at timestamptz NOT NULL DEFAULT clock_timestamp());
             INSERT INTO tour (note) SELECT 'row ' || n FROM generate_series(1, {ROWS}) n",
            pulse::TABLE
        );
        self.herd.eyes.sql(self.leader, &make).await?;
        self.rows = self.herd.eyes.number(self.leader, "SELECT count(*) FROM tour").await?;
        self.wait_for_rows(&EVERYONE).await?;
        let before = self.rows - ROWS;
        let kept = if before > 0 { format!(" (and {before} of earlier tours)") } else { String::new() };
        Ok(format!("{ROWS} rows on {}{kept}, read back from {}", self.name(self.leader), self.others()))
    }

    async fn switchover(&mut self) -> Result<String, Failure> {
        let (from, to) = (self.leader, (self.leader + 1) % EVERYONE.len());
        let pulse = Pulse::start(self.herd.eyes.target(&EVERYONE));
        let began = self.wait_for_beat(&pulse, Instant::now()).await?;
        let args = ["switchover", SCOPE, "--leader", &self.name(from), "--candidate", &self.name(to), "--force"];
        self.ctl(&args).await?;
        let leader = self.wait_until_well(&EVERYONE).await?;
        if leader != to {
            return Err(Failure::Words(format!("{} leads instead of {}", self.name(leader), self.name(to))));
        }
        self.leader = leader;
        self.wait_for_beat(&pulse, Instant::now()).await?;
        let pause = Seconds(pulse.longest_pause(began));
        Ok(format!("{} hands over to {}; writes paused for {pause}", self.name(from), self.name(to)))
    }

    async fn kill_postmaster(&mut self) -> Result<String, Failure> {
        let name = self.name(self.leader);
        let pid = self.herd.postmaster(self.leader).ok_or(format!("{name} has no postmaster"))?;
        let pulse = Pulse::start(self.herd.eyes.target(&EVERYONE));
        let began = self.wait_for_beat(&pulse, Instant::now()).await?;
        send(pid, Signal::SIGKILL);
        self.awaited = "the killed postmaster to be gone".to_owned();
        while scan::state(pid).is_some_and(|state| state != 'Z') {
            sleep(LOOK).await;
        }
        self.wait_for_beat(&pulse, Instant::now()).await?;
        let pause = Seconds(pulse.longest_pause(began));
        self.leader = self.wait_until_well(&EVERYONE).await?;
        let leader = self.name(self.leader);
        Ok(format!("{name}'s server dies; {leader} writes again after {pause}"))
    }

    /// The doomed leader gets a row that no standby has: what it was told to send is held back before it is killed.
    async fn kill_member(&mut self) -> Result<String, Failure> {
        let (doomed, eyes) = (self.leader, self.herd.eyes.clone());
        let name = self.name(doomed);
        self.wait_for_rows(&EVERYONE).await?;
        let senders = eyes.sql(doomed, "SELECT pid FROM pg_stat_replication").await?;
        let senders: Vec<i32> = senders.iter().flatten().filter_map(|pid| pid.parse().ok()).collect();
        for pid in &senders {
            send(*pid, Signal::SIGSTOP);
        }
        self.awaited = "the WAL senders to stand still".to_owned();
        while senders.iter().any(|pid| scan::state(*pid).is_some_and(|state| state != 'T')) {
            sleep(LOOK).await;
        }
        eyes.sql(doomed, &format!("INSERT INTO tour (note) VALUES ('{LOST}')")).await?;
        let killed_at = Instant::now();
        self.herd.kill_member(doomed).await;
        for pid in senders {
            send(pid, Signal::SIGKILL);
        }
        self.killed = doomed;
        let survivors: Vec<usize> = EVERYONE.into_iter().filter(|i| *i != doomed).collect();
        let pulse = Pulse::start(eyes.target(&EVERYONE));
        self.wait_for_beat(&pulse, killed_at).await?;
        let pause = Seconds(pulse.longest_pause(killed_at));
        self.leader = self.wait_until_well(&survivors).await?;
        let leader = self.name(self.leader);
        Ok(format!("{name} is gone; {leader} writes after {pause} (ttl {TTL_SECONDS} s)"))
    }

    async fn rejoin(&mut self) -> Result<String, Failure> {
        let (eyes, killed) = (self.herd.eyes.clone(), self.killed);
        let name = self.name(killed);
        let before = self.herd.agent(killed).log_end();
        self.herd.start_agent(killed)?;
        let leader = self.wait_until_well(&EVERYONE).await?;
        if leader != self.leader {
            return Err(Failure::Words(format!("{} took the lead from {}", self.name(leader), self.name(self.leader))));
        }
        let log = self.herd.agent(killed).log_from(before);
        if !log.contains("running pg_rewind from") || !log.contains("pg_rewind exit code=0") {
            return Err(Failure::Words(format!("{name} streams again, but not by pg_rewind, says its log")));
        }
        let lost = eyes.number(killed, &format!("SELECT count(*) FROM tour WHERE note = '{LOST}'")).await?;
        if lost != 0 {
            return Err(Failure::Words(format!("{name} still has the row that nobody else has")));
        }
        Ok(format!("{name} had a row that reached no standby; pg_rewind, and it streams from {}", self.name(leader)))
    }

    async fn count(&mut self) -> Result<String, Failure> {
        self.herd.eyes.sql(self.leader, &format!("DROP TABLE {}", pulse::TABLE)).await?;
        self.wait_for_rows(&EVERYONE).await?;
        let names = EVERYONE.map(|i| self.name(i)).join(", ");
        Ok(format!("{} of {} on each of {names}", self.rows, self.rows))
    }

    /// Waits until these members have exactly the rows there must be.
    async fn wait_for_rows(&mut self, members: &[usize]) -> Result<(), Failure> {
        for i in members {
            loop {
                self.herd.check()?;
                let found = self.herd.eyes.number(*i, "SELECT count(*) FROM tour").await;
                match found {
                    Ok(count) if count == self.rows => break,
                    Ok(count) => self.awaited = format!("{} has {count} rows of {}", self.name(*i), self.rows),
                    Err(why) => self.awaited = why,
                }
                sleep(LOOK).await;
            }
        }
        Ok(())
    }

    /// Waits until one of these members leads and the others stream from it.
    async fn wait_until_well(&mut self, members: &[usize]) -> Result<usize, Failure> {
        loop {
            self.herd.check()?;
            match self.herd.eyes.leader_of(members).await {
                Ok(leader) => return Ok(leader),
                Err(why) => self.awaited = why,
            }
            sleep(LOOK).await;
        }
    }

    /// Waits for a row after that moment; gives the moment of the look.
    async fn wait_for_beat(&mut self, pulse: &Pulse, moment: Instant) -> Result<Instant, Failure> {
        self.awaited = "no member takes writes".to_owned();
        while !pulse.has_beaten_since(moment) {
            self.herd.check()?;
            sleep(Duration::from_millis(10)).await;
        }
        Ok(Instant::now())
    }

    /// Runs `pgherdctl`, as a person would.
    async fn ctl(&mut self, args: &[&str]) -> Result<(), Failure> {
        let shown = format!("pgherdctl {}", args.join(" "));
        self.awaited = format!("{shown} has not ended");
        let mut command = Command::new(&self.herd.ctl);
        let config: PathBuf = self.herd.place.ctl();
        command.arg("-c").arg(config).args(args).stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await.map_err(|error| format!("cannot run {shown}: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        Err(Failure::Words(format!("{shown} failed:\n{}", String::from_utf8_lossy(&said).trim_end())))
    }

    fn name(&self, i: usize) -> String {
        self.herd.eyes.name(i).to_owned()
    }

    /// Everyone but the leader.
    fn others(&self) -> String {
        let names = EVERYONE.into_iter().filter(|i| *i != self.leader).map(|i| self.name(i));
        names.collect::<Vec<_>>().join(" and ")
    }
}

/// `2.1 s`.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.0.as_secs_f32())
    }
}
