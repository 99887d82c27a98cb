//! The processes of the demo, together: started, watched, stopped.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep, timeout_at};

use super::child::{Child, how};
use super::error::DemoError;
use super::leftovers::{self, send};
use super::look::Eyes;
use super::place::Place;
use super::plan::Plan;
use super::scan;
use super::stop::Stop;

/// The store listens after this long at the latest.
const STORE_LIMIT: Duration = Duration::from_secs(20);

/// The replicas have ended after this long, or are killed; then the leader has as long again.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// The store has ended after this long, or is killed.
const STORE_STOP_LIMIT: Duration = Duration::from_secs(5);

/// The store and the agents.
pub(super) struct Herd {
    /// Where.
    pub place: Arc<Place>,
    /// With which ports.
    pub plan: Arc<Plan>,
    /// How the cluster is looked at.
    pub eyes: Eyes,
    /// `pgherdctl`, beside the own program.
    pub ctl: PathBuf,
    store: Child,
    agents: Vec<Child>,
}

impl Herd {
    /// Nothing is started yet.
    pub(super) async fn new(place: Arc<Place>, plan: Arc<Plan>) -> Result<Self, DemoError> {
        let own =
            std::env::current_exe().map_err(|error| DemoError::new("cannot find the own program").because(error))?;
        let listen = format!("127.0.0.1:{}", plan.store_port);
        let args = vec!["dcs".into(), "--listen".into(), listen.into(), "--data-dir".into(), place.store().into()];
        let store = Child::new("store", own.clone(), args, place.log("store"));
        let agent = |name: &str| Child::new(name, own.clone(), vec![place.config(name).into()], place.log(name));
        let agents = plan.members.iter().map(|member| agent(&member.name)).collect();
        let ctl = own.with_file_name("pgherdctl");
        Ok(Self { eyes: Eyes::open(&plan).await?, ctl, store, agents, place, plan })
    }

    /// Starts the store and waits until it answers.
    pub(super) async fn start_store(&mut self) -> Result<(), DemoError> {
        self.store.start()?;
        let give_up = Instant::now() + STORE_LIMIT;
        loop {
            if let Some(status) = self.store.ended() {
                return Err(failure(&self.store, &format!("the store {}", how(status))));
            }
            let Err(why) = self.eyes.view().await else { return Ok(()) };
            if Instant::now() > give_up {
                return Err(failure(
                    &self.store,
                    &format!("the store is not ready after {} s: {why}", STORE_LIMIT.as_secs()),
                ));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Starts a member's agent.
    pub(super) fn start_agent(&mut self, i: usize) -> Result<(), DemoError> {
        self.agents[i].start()
    }

    /// Starts every agent.
    pub(super) fn start_agents(&mut self) -> Result<(), DemoError> {
        self.agents.iter_mut().try_for_each(Child::start)
    }

    /// A member's agent.
    pub(super) fn agent(&self, i: usize) -> &Child {
        &self.agents[i]
    }

    /// A member's postmaster, if it is alive.
    pub(super) fn postmaster(&self, i: usize) -> Option<i32> {
        scan::postmaster(&self.place, &self.plan.members[i].name)
    }

    /// Kills an agent and its postmaster as the loss of the machine would.
    pub(super) async fn kill_member(&mut self, i: usize) {
        let postmaster = self.postmaster(i);
        self.agents[i].signal(Signal::SIGKILL);
        if let Some(pid) = postmaster {
            send(pid, Signal::SIGKILL);
        }
        self.agents[i].wait().await;
    }

    /// Which programs ended since the last question: 0 is the store, then the members.
    pub(super) fn ended(&mut self) -> Vec<(usize, String)> {
        let children = [&mut self.store].into_iter().chain(&mut self.agents).enumerate();
        let tell = |child: &Child, status: ExitStatus| match child.name.as_str() {
            "store" => format!("the store {}", how(status)),
            name => format!("{name}'s agent {}", how(status)),
        };
        children.filter_map(|(i, child)| child.ended().map(|status| (i, tell(child, status)))).collect()
    }

    /// An error with the log's tail if a program ended that nobody asked to.
    pub(super) fn check(&mut self) -> Result<(), DemoError> {
        match self.ended().first() {
            None => Ok(()),
            Some((0, words)) => Err(failure(&self.store, words)),
            Some((i, words)) => Err(failure(&self.agents[i - 1], words)),
        }
    }

    /// Starts the program that `ended` gave this number.
    pub(super) fn start_again(&mut self, i: usize) -> Result<(), DemoError> {
        if i == 0 { self.store.start() } else { self.agents[i - 1].start() }
    }

    /// The tails of all logs, for a failure that is nobody's in particular.
    pub(super) fn tails(&self, lines: usize) -> String {
        let all = self.agents.iter().chain([&self.store]);
        all.map(|child| tail(child, lines)).collect::<Vec<_>>().join("\n")
    }

    /// Stops everything, and says what did not go smoothly. The replicas go first: while one is there, a leader that
    /// ends hands over to it, and the cluster would change its leader on every stop.
    pub(super) async fn stop(&mut self, stop: &Stop) -> Vec<String> {
        let mut remarks = Vec::new();
        let leader = self.leader_now().await;
        let is_leader = |child: &Child| leader.as_deref() == Some(&child.name);
        let (leaders, replicas): (Vec<_>, Vec<_>) = self.agents.iter_mut().partition(|child| is_leader(child));
        for group in [replicas, leaders] {
            end(group, Instant::now() + STOP_LIMIT, stop, &mut remarks).await;
        }
        remarks.extend(leftovers::end_servers(&self.place, stop).await);
        end(vec![&mut self.store], Instant::now() + STORE_STOP_LIMIT, stop, &mut remarks).await;
        remarks.extend(leftovers::end_all(&self.place, stop).await);
        remarks
    }

    async fn leader_now(&self) -> Option<String> {
        self.store.pid()?;
        let view = timeout_at(Instant::now() + Duration::from_secs(1), self.eyes.view()).await.ok()?.ok()?;
        view.leader_name().map(ToString::to_string)
    }
}

async fn end(mut children: Vec<&mut Child>, limit: Instant, stop: &Stop, remarks: &mut Vec<String>) {
    children.iter().for_each(|child| child.signal(Signal::SIGTERM));
    for child in &mut children {
        if child.pid().is_none() {
            continue;
        }
        let is_over = tokio::select! {
            biased;
            ended = timeout_at(limit, child.wait()) => ended.is_err(),
            () = stop.hurried() => true,
        };
        if is_over {
            remarks.push(format!("{} did not end in time and was killed", child.name));
            child.signal(Signal::SIGKILL);
            child.wait().await;
        }
    }
}

fn failure(child: &Child, words: &str) -> DemoError {
    DemoError::new(format!("{words}\n{}", tail(child, 20)))
}

fn tail(child: &Child, lines: usize) -> String {
    let text = child.tail(lines);
    let text = if text.is_empty() { "(empty)".to_owned() } else { text };
    let indented: Vec<String> = text.lines().map(|line| format!("    {line}")).collect();
    format!("  the end of {}:\n{}", child.log.display(), indented.join("\n"))
}

impl Drop for Herd {
    /// The way out when something panicked: agents and store are killed by their handles, the servers here.
    fn drop(&mut self) {
        for seen in scan::scan(&self.place) {
            let signal = if seen.kind == scan::Kind::Postmaster { Signal::SIGQUIT } else { Signal::SIGKILL };
            send(seen.pid, signal);
        }
    }
}
