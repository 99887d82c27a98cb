//! The operator's event scripts (`postgresql.callbacks`).
//!
//! A script is started and never waited for. Two of them never run at once: a new event ends the script of the one
//! before, because its news is newer; of several that wait only the newest runs. `on_reload` has a lane of its own,
//! so that a change of settings never cuts off a script that moves an address.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::process::Child;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::cluster::Role;

use super::Callback;
use super::process_tree;
use super::programs::Program;

/// A script that outlasts SIGKILL for this long is given up on, so that the next event is not lost.
const KILL_LIMIT: Duration = Duration::from_secs(10);

impl Callback {
    /// The name in the configuration and the script's first argument.
    pub fn name(self) -> &'static str {
        match self {
            Self::OnStart => "on_start",
            Self::OnStop => "on_stop",
            Self::OnRestart => "on_restart",
            Self::OnReload => "on_reload",
            Self::OnRoleChange => "on_role_change",
        }
    }
}

/// The newest call of a lane, with a number by which it is known to have been taken up.
#[derive(Clone, Debug, Default)]
struct Call {
    number: u64,
    program: Option<Program>,
}

/// Runs the scripts. Dropping it leaves a running script alone.
#[derive(Debug)]
pub struct Callbacks {
    ordinary: Lane,
    reload: Lane,
}

#[derive(Debug)]
struct Lane {
    newest: watch::Sender<Call>,
    taken: watch::Receiver<u64>,
    _task: AbortOnDropHandle<()>,
}

impl Callbacks {
    /// Starts the two lanes; needs a runtime.
    pub fn new() -> Self {
        Self { ordinary: Lane::start(false), reload: Lane::start(true) }
    }

    /// Calls `command EVENT ROLE SCOPE`. Returns at once.
    pub fn call(&self, command: &str, event: Callback, role: Role, scope: &str) {
        let program = match Program::script(command) {
            Ok(program) => program.arg(event.name()).arg(role.for_callback()).arg(scope),
            Err(error) => {
                tracing::error!(%error, "callback {command} {} {role} {scope} failed", event.name());
                return;
            }
        };
        let lane = if event == Callback::OnReload { &self.reload } else { &self.ordinary };
        lane.newest.send_modify(|call| *call = Call { number: call.number + 1, program: Some(program) });
    }

    /// Waits until every call made so far was taken up, at most `limit`: for the last moment before we end.
    pub async fn settle(&self, limit: Duration) {
        for lane in [&self.ordinary, &self.reload] {
            let number = lane.newest.borrow().number;
            let mut taken = lane.taken.clone();
            let _ = tokio::time::timeout(limit, taken.wait_for(|taken| *taken >= number)).await;
        }
    }
}

impl Default for Callbacks {
    fn default() -> Self {
        Self::new()
    }
}

impl Lane {
    fn start(is_reload: bool) -> Self {
        let (newest, calls) = watch::channel(Call::default());
        let (done, taken) = watch::channel(0);
        Self { newest, taken, _task: AbortOnDropHandle::new(tokio::spawn(run(calls, done, is_reload))) }
    }
}

async fn run(mut calls: watch::Receiver<Call>, taken: watch::Sender<u64>, is_reload: bool) {
    let mut running: Option<(Child, String)> = None;
    loop {
        // Collects the script that runs meanwhile, so that it does not stay behind as a zombie.
        let changed = match &mut running {
            Some((child, line)) => tokio::select! {
                biased;
                status = child.wait() => {
                    if let Ok(status) = status && !status.success() {
                        tracing::warn!("callback {line} ended with {status}");
                    }
                    running = None;
                    continue;
                }
                changed = calls.changed() => changed,
            },
            None => calls.changed().await,
        };
        if changed.is_err() {
            return;
        }
        if let Some((child, line)) = running.take() {
            end(child, &line, is_reload).await;
        }
        // Read only now: what arrived while the old script was being ended replaces what woke us.
        let call = calls.borrow_and_update().clone();
        if let Some(program) = call.program {
            running = start(&program);
        }
        taken.send_replace(call.number);
    }
}

fn start(program: &Program) -> Option<(Child, String)> {
    let line = program.command_line();
    match program.command().spawn() {
        Ok(child) => Some((child, line)),
        Err(error) => {
            tracing::error!(%error, "callback {line} failed");
            None
        }
    }
}

/// Ends a script that still runs. A reload script is asked first, without waiting for its answer.
async fn end(mut child: Child, line: &str, is_reload: bool) {
    let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) else { return };
    if matches!(child.try_wait(), Ok(Some(_))) {
        return;
    }
    // Listed first: once it follows SIGTERM its children can no longer be told from others.
    let known = process_tree::descendants(pid);
    if is_reload {
        process_tree::signal(pid, Signal::SIGTERM);
    }
    let killed = process_tree::kill_tree(pid);
    process_tree::kill_rest(pid, &known);
    if killed {
        tracing::warn!("Killed {line} because it was still running");
        let _ = tokio::time::timeout(KILL_LIMIT, child.wait()).await;
    } else {
        // Not ours to kill (a set-user-ID program): the next one has to wait.
        let _ = child.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    struct Rig {
        root: tempfile::TempDir,
        callbacks: Callbacks,
    }

    impl Rig {
        fn new() -> Self {
            Self { root: tempfile::tempdir().unwrap(), callbacks: Callbacks::new() }
        }

        fn log(&self) -> PathBuf {
            self.root.path().join("log")
        }

        /// A script that notes its arguments and number, then goes on for `seconds`.
        fn script(&self, seconds: u32) -> String {
            let path = self.root.path().join(format!("script{seconds}"));
            let text = format!("#!/bin/sh\nsleep {seconds} &\necho \"$* $!\" >> {}\nwait\n", self.log().display());
            std::fs::write(&path, text).unwrap();
            format!("/bin/sh '{}'", path.display())
        }

        async fn lines(&self, count: usize) -> Vec<String> {
            lines(&self.log(), count).await
        }
    }

    async fn lines(path: &Path, count: usize) -> Vec<String> {
        for _ in 0..400 {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            if lines.len() >= count {
                return lines;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{} never had {count} lines", path.display());
    }

    fn sleeper(line: &str) -> i32 {
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    async fn gone(pid: i32) -> bool {
        for _ in 0..200 {
            if process_tree::process(pid).is_none_or(|process| process.is_zombie) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        false
    }

    #[tokio::test]
    async fn a_new_event_ends_the_script_before_and_its_children() {
        let rig = Rig::new();
        let (long, short) = (rig.script(600), rig.script(0));
        rig.callbacks.call(&long, Callback::OnStart, Role::Promoted, "demo");
        let first = rig.lines(1).await.remove(0);
        assert!(first.starts_with("on_start primary demo "), "{first}");
        rig.callbacks.call(&short, Callback::OnRoleChange, Role::Replica, "demo");
        let second = rig.lines(2).await.remove(1);
        assert!(second.starts_with("on_role_change replica demo "), "{second}");
        assert!(gone(sleeper(&first)).await);
    }

    #[tokio::test]
    async fn a_reload_leaves_other_scripts_alone() {
        let rig = Rig::new();
        let long = rig.script(600);
        rig.callbacks.call(&long, Callback::OnStart, Role::Replica, "demo");
        let first = rig.lines(1).await.remove(0);
        rig.callbacks.call(&long, Callback::OnReload, Role::Replica, "demo");
        let reload = rig.lines(2).await.remove(1);
        rig.callbacks.call(&rig.script(0), Callback::OnReload, Role::Replica, "demo");
        rig.lines(3).await;
        assert!(gone(sleeper(&reload)).await);
        assert!(process_tree::process(sleeper(&first)).is_some());
        rig.callbacks.call(&rig.script(0), Callback::OnStop, Role::Replica, "demo");
        rig.lines(4).await;
        assert!(gone(sleeper(&first)).await);
    }

    #[tokio::test]
    async fn the_last_call_is_taken_up_before_we_go() {
        let rig = Rig::new();
        rig.callbacks.call(&rig.script(0), Callback::OnStart, Role::Primary, "demo");
        rig.callbacks.call(&rig.script(0), Callback::OnStop, Role::Primary, "demo");
        rig.callbacks.settle(Duration::from_secs(5)).await;
        let log = rig.log();
        drop(rig.callbacks);
        let lines = lines(&log, 1).await;
        assert!(lines.last().unwrap().starts_with("on_stop primary demo "), "{lines:?}");
    }

    #[tokio::test]
    async fn a_bad_command_is_only_logged() {
        let rig = Rig::new();
        rig.callbacks.call("/nonexistent/script", Callback::OnStart, Role::Primary, "demo");
        rig.callbacks.call("a 'b", Callback::OnStart, Role::Primary, "demo");
        rig.callbacks.settle(Duration::from_secs(5)).await;
    }
}
