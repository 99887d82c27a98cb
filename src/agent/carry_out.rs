//! One exhaustive match over the steps of a decision. The outcome of a step goes into the observation, from which
//! the next decision is made; nothing is decided here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::api::FailsafePing;
use crate::cluster::{ClusterView, ConfigKey, FailoverKey, History, LeaderKey, MemberName, Status, SyncState, Version};
use crate::dcs::DcsError;
use crate::ha::{LockOutcome, Observation, Snapshot, Step};
use crate::postgres::{PgError, StopPlan};

use super::lease::Sent;
use super::run::{Ended, Runner};
use super::task::{Running, chain};

/// Between a checkpoint that failed and the next try.
const CHECKPOINT_PAUSE: Duration = Duration::from_secs(1);

/// A step on the local server that is carried out inside the cycle takes no longer.
const INLINE_LIMIT: Duration = Duration::from_secs(5);

/// Carries out the steps in order. `true`: a write that must succeed did not; the rest was left undone, and the
/// observation says so.
pub(super) async fn carry_out(runner: &mut Runner, seen: &mut Observation, steps: &[Step]) -> bool {
    for step in steps {
        let outcome = match dcs_step(runner, seen, step).await {
            Some(outcome) => outcome,
            None => {
                local_step(runner, seen, step).await;
                Ok(())
            }
        };
        if let Err(error) = outcome {
            let text = chain(&error);
            warn!("{text}");
            seen.done.lost_write = Some(text);
            return true;
        }
    }
    false
}

/// The steps that concern the DCS. `None`: it is not one of them. An error only where the write must succeed.
async fn dcs_step(runner: &mut Runner, seen: &mut Observation, step: &Step) -> Option<Result<(), DcsError>> {
    let dcs = Arc::clone(&runner.ports.dcs);
    let result = match step {
        Step::RenewLeader(key) => {
            seen.done.renewal = Some(renew(runner, key).await);
            Ok(())
        }
        Step::AcquireLeader => {
            seen.done.acquire = Some(acquire(runner, seen).await);
            Ok(())
        }
        Step::TakeLeader => {
            let sent = Sent::now();
            let result = dcs.take_leader().await;
            if result.is_ok() {
                runner.entitled(sent);
            }
            result
        }
        Step::ReleaseLeader(status) => {
            release(runner, seen, status.as_ref()).await;
            Ok(())
        }
        Step::RaceInitialize(text) => match dcs.race_initialize(text).await {
            Ok(won) => {
                seen.done.initialize = Some(won);
                change(seen, |view| view.initialize = won.then(|| text.clone()).or(view.initialize.take()));
                Ok(())
            }
            Err(error) => Err(error),
        },
        Step::SetInitialize(text) => dcs.set_initialize(text).await,
        Step::WriteConfig(document) => dcs.write_config(document, None).await.map(|_| {
            change(seen, |view| {
                view.config = Some(ConfigKey { version: Default::default(), document: Some(document.clone()) });
            });
        }),
        other => return secondary_write(runner, seen, other).await,
    };
    Some(result)
}

/// Writes whose failure is logged and mended by the next cycle, which comes soon then. Once the DCS has not answered
/// one of them, the others of this cycle are left out: each would wait as long, and what is to be done without the DCS
/// would come too late.
async fn secondary_write(runner: &mut Runner, seen: &mut Observation, step: &Step) -> Option<Result<(), DcsError>> {
    if runner.is_dcs_silent && is_put_off(step) {
        runner.retry.failed();
        left_out(seen, step);
        return Some(Ok(()));
    }
    let Ok(outcome) = tokio::time::timeout(runner.patience(), write(runner, seen, step)).await else {
        warn!("the DCS did not answer in time; the rest is left to the next turn of the loop");
        runner.is_dcs_silent = true;
        runner.retry.failed();
        left_out(seen, step);
        return Some(Ok(()));
    };
    outcome
}

/// The next cycle orders it again.
fn is_put_off(step: &Step) -> bool {
    matches!(
        step,
        Step::WriteStatus(_)
            | Step::BlankFailover(_)
            | Step::WriteHistory(_)
            | Step::WriteFailsafe(_)
            | Step::WriteSync { .. }
            | Step::DeleteSync(_)
            | Step::Publish(_)
    )
}

/// A write without an answer is not ordered again in this cycle. What goes by `/sync` ends here.
fn left_out(seen: &mut Observation, step: &Step) {
    match step {
        Step::WriteSync { .. } | Step::DeleteSync(_) => seen.done.sync_conflict = true,
        Step::BlankFailover(_) => change(seen, |view| view.failover = None),
        Step::WriteFailsafe(topology) => change(seen, |view| view.failsafe = Some(topology.clone())),
        _ => {}
    }
}

async fn write(runner: &mut Runner, seen: &mut Observation, step: &Step) -> Option<Result<(), DcsError>> {
    let dcs = Arc::clone(&runner.ports.dcs);
    let result = match step {
        Step::CancelInitialize => dcs.cancel_initialize().await,
        Step::WriteStatus(status) => {
            let result = dcs.write_status(status).await;
            if result.is_ok() {
                change(seen, |view| view.status = status.clone());
            }
            result
        }
        Step::BlankFailover(expected) => {
            let blank = FailoverKey::default();
            let result = dcs.write_failover(&blank, *expected).await;
            change(seen, |view| view.failover = None);
            result.map(|_| ())
        }
        Step::KeepFailoverCandidate { candidate, scheduled_at, expected } => {
            let request = FailoverKey {
                version: *expected,
                leader: None,
                candidate: Some(candidate.clone()),
                scheduled_at: scheduled_at.clone(),
            };
            dcs.write_failover(&request, Some(*expected)).await.map(|_| ())
        }
        Step::WriteHistory(history) => {
            let result = dcs.write_history(history).await;
            if result.is_ok() {
                change(seen, |view| view.history = Some(History { raw: history.clone() }));
            }
            result
        }
        Step::WriteFailsafe(topology) => write_failsafe(runner, seen, topology).await,
        Step::WriteSync { state, expected } => write_sync(runner, seen, state, *expected).await,
        Step::DeleteSync(expected) => match dcs.delete_sync(*expected).await {
            Ok(deleted) => {
                seen.done.sync_conflict |= !deleted;
                change(seen, |view| view.sync = SyncState::default());
                Ok(())
            }
            Err(error) => {
                seen.done.sync_conflict = true;
                Err(error)
            }
        },
        Step::Publish(value) => {
            let result = dcs.touch_member(value).await;
            if result.is_ok() {
                runner.board.update(|state| state.published = value.clone());
            }
            result
        }
        _ => return None,
    };
    if let Err(error) = result {
        warn!("{}", chain(&error));
        runner.is_dcs_silent |= matches!(error, DcsError::Unavailable { .. });
        runner.retry.failed();
    }
    Some(Ok(()))
}

/// Until it is answered, members of the list before and of this one are asked who is to lead.
async fn write_failsafe(
    runner: &mut Runner,
    seen: &mut Observation,
    topology: &BTreeMap<MemberName, String>,
) -> Result<(), DcsError> {
    runner.unsure.extend(topology.clone());
    seen.failsafe = runner.counted();
    let result = runner.ports.dcs.write_failsafe(topology).await;
    if result.is_ok() {
        runner.unsure.clear();
        runner.board.update(|state| state.failsafe = Some(topology.clone()));
        seen.failsafe.clone_from(topology);
    }
    change(seen, |view| view.failsafe = Some(topology.clone()));
    result
}

/// The steps that concern this machine and the other members.
async fn local_step(runner: &mut Runner, seen: &mut Observation, step: &Step) {
    let postgres = Arc::clone(&runner.ports.postgres);
    match step {
        Step::AskFailsafe(members) => ask_failsafe(runner, seen, members).await,
        Step::LeadByFailsafe => {
            if let Some(sent) = runner.failsafe_asked.take() {
                runner.entitled(sent);
                runner.board.update(|state| state.failsafe_since = Some(Instant::now()));
                runner.keep_lead(seen, sent);
            }
        }
        Step::AskPeers(members) => seen.done.peers = Some(runner.ports.peers.ask(members).await),
        Step::Begin(task) => {
            if runner.task.is_some() {
                warn!("{} was not begun: another long task runs; please report it as a BUG", task.action());
            } else {
                if !seen.instance.is_postmaster_alive && runner.lease.leads_until().is_none() {
                    // What an earlier agent said of its server must not end what is started now.
                    runner.lease.disarm();
                }
                if matches!(task, crate::ha::Task::Stop { .. }) {
                    runner.disarm_when_nobody_is_served();
                }
                let wake = Arc::clone(&runner.board.wake);
                runner.task = Some(Running::begin(task.clone(), postgres, &runner.ports.helpers, wake));
            }
        }
        Step::CancelTask => {
            if let Some(running) = &runner.task {
                running.cancel.cancel();
            }
        }
        Step::QuitNow => postgres.quit_now(),
        Step::CompareFollow(upstream) => {
            let asked = tokio::time::timeout(INLINE_LIMIT, postgres.follow_change(upstream.as_ref())).await;
            seen.done.follow = Some(asked.unwrap_or(crate::cluster::FollowChange::None));
        }
        Step::Follow(upstream) => limited("follow", postgres.follow(upstream.as_ref())).await,
        Step::RetryStream => limited("asking for WAL", postgres.retry_stream()).await,
        Step::CheckDivergence(leader) => {
            let asked = tokio::time::timeout(INLINE_LIMIT, postgres.check_divergence(leader)).await;
            let late = || crate::cluster::Divergence::Unknown(format!("no answer within {INLINE_LIMIT:?}"));
            seen.done.divergence = Some(asked.unwrap_or_else(|_| late()));
        }
        Step::ReadHistory(timeline) => {
            let history = match postgres.timeline_history(*timeline).await {
                Ok(history) => history,
                Err(error) => {
                    warn!("the history of timeline {timeline} could not be read: {}", chain(&error));
                    (Vec::new(), None)
                }
            };
            seen.done.history = Some(history);
        }
        Step::SetSyncNames(names) => {
            limited("synchronous_standby_names", postgres.set_synchronous_standby_names(names.as_deref())).await;
        }
        Step::ResumeReplay => limited("resuming WAL replay", postgres.resume_replay()).await,
        Step::SyncSlots(sync) => limited("slots", postgres.sync_slots(sync)).await,
        Step::TendSlots(tending) => postgres.tend_slots(tending),
        Step::ForceFeedback(on) => {
            limited("hot_standby_feedback", postgres.force_hot_standby_feedback(*on)).await;
        }
        other => rare_step(runner, seen, other).await,
    }
}

/// The answers count from before the first was asked for.
async fn ask_failsafe(runner: &mut Runner, seen: &mut Observation, members: &BTreeMap<MemberName, String>) {
    let ping = FailsafePing {
        name: runner.node.name.clone(),
        conn_url: runner.node.conn_url.clone(),
        api_url: runner.node.api_url.clone(),
        slots: crate::ha::slot_positions(seen),
        ttl: Some(runner.settings.ttl.as_secs()),
    };
    let limit = runner.asking_limit();
    runner.failsafe_asked = Some(Sent::now());
    let answers = runner.ports.peers.tell_failsafe(members, &ping, limit).await;
    seen.done.failsafe_positions =
        answers.iter().filter_map(|(name, answer)| Some((name.clone(), answer.as_ref().ok().copied()??))).collect();
    seen.done.failsafe = Some(answers.into_iter().map(|(name, answer)| (name, answer.err())).collect());
}

async fn rare_step(runner: &mut Runner, seen: &mut Observation, step: &Step) {
    let postgres = Arc::clone(&runner.ports.postgres);
    match step {
        Step::ActivateWatchdog => seen.done.watchdog = Some(runner.watchdog.activate(&runner.settings)),
        Step::Checkpoint => {
            let wake = Arc::clone(&runner.board.wake);
            runner.checkpoint = Some(runner.ports.helpers.spawn(async move {
                let result = postgres.checkpoint().await;
                if result.is_err() {
                    // The loop orders it anew as soon as it hears of that.
                    tokio::time::sleep(CHECKPOINT_PAUSE).await;
                }
                wake.notify_one();
                result
            }));
        }
        Step::Callback { event, role } => postgres.callback(*event, *role),
        Step::RemoveDataDir => tell(postgres.remove_data_dir().await),
        Step::AbandonBootstrap => tell(give_up(runner, postgres.move_data_dir_away()).await),
        Step::DiscardUnfinished => tell(give_up(runner, postgres.discard_unfinished()).await),
        Step::ForgetUnfinished => tell(postgres.forget_unfinished().await),
        Step::Reply { id, reply } => {
            if let Some(sender) = runner.replies.remove(id) {
                // Whoever asked may have given up meanwhile.
                let _ = sender.send(reply.clone());
            }
        }
        Step::Exit { message, keep_server } => {
            runner.ended = Some(if runner.is_leaving {
                Ended::Asked
            } else {
                Ended::Fatal { message: message.clone(), keep_server: *keep_server }
            });
        }
        _ => {}
    }
}

fn tell(result: Result<(), PgError>) {
    if let Err(error) = result {
        warn!("{}", chain(&error));
    }
}

/// A bounded step whose failure the next cycle sees for itself.
async fn limited(what: &str, step: impl Future<Output = Result<(), PgError>>) {
    match tokio::time::timeout(INLINE_LIMIT, step).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!("{what}: {}", chain(&error)),
        Err(_) => warn!("{what}: no end within {INLINE_LIMIT:?}, tried again later"),
    }
}

async fn renew(runner: &Runner, key: &LeaderKey) -> LockOutcome {
    let sent = Sent::now();
    let attempt = runner.ports.dcs.renew_leader(key);
    lock_outcome(runner, sent, tokio::time::timeout(runner.patience(), attempt).await)
}

/// An agent may have been suspended since it read who may be elected; the DCS looks once more.
async fn acquire(runner: &Runner, seen: &Observation) -> LockOutcome {
    let sent = Sent::now();
    let attempt = runner.ports.dcs.acquire_leader(seen.view().map(|view| &view.sync));
    lock_outcome(runner, sent, tokio::time::timeout(runner.settings.retry_timeout, attempt).await)
}

/// A definite no is a lost lock; no answer is another matter.
fn lock_outcome(
    runner: &Runner,
    sent: Sent,
    answer: Result<Result<bool, DcsError>, tokio::time::error::Elapsed>,
) -> LockOutcome {
    let outcome = match answer {
        Ok(Ok(true)) => {
            runner.entitled(sent);
            return LockOutcome::Kept;
        }
        Ok(Ok(false)) => LockOutcome::Lost,
        Ok(Err(error @ DcsError::Refused { .. })) => {
            warn!("{}", chain(&error));
            LockOutcome::Lost
        }
        Ok(Err(error)) => LockOutcome::Unreachable(chain(&error)),
        Err(_) => LockOutcome::Unreachable("no answer in time".to_owned()),
    };
    if outcome == LockOutcome::Lost {
        runner.lease.lost();
    }
    outcome
}

/// From here on we do not lead, whatever the DCS answers.
async fn release(runner: &Runner, seen: &mut Observation, status: Option<&Status>) {
    runner.lease.lost();
    match runner.ports.dcs.release_leader(status).await {
        Ok(true) => info!("Leader key released"),
        Ok(false) => info!("the leader key was not ours any more"),
        Err(error) => warn!("the leader key was not released and is left to expire: {}", chain(&error)),
    }
    change(seen, |view| view.leader = None);
    seen.leads_until_ms = None;
}

/// A write of `sync` whose outcome is not a plain yes stops the pass: what stands there is read anew next time.
async fn write_sync(
    runner: &Runner,
    seen: &mut Observation,
    state: &SyncState,
    expected: Option<Version>,
) -> Result<(), DcsError> {
    match runner.ports.dcs.write_sync(state, expected).await {
        Ok(Some(version)) => {
            change(seen, |view| view.sync = SyncState { version: Some(version), ..state.clone() });
            Ok(())
        }
        Ok(None) => {
            seen.done.sync_conflict = true;
            Ok(())
        }
        Err(error) => {
            seen.done.sync_conflict = true;
            Err(error)
        }
    }
}

/// Stops a server whose data are given up, and takes the data out of the way.
async fn give_up(runner: &Runner, removal: impl Future<Output = Result<(), PgError>>) -> Result<(), PgError> {
    let plan = StopPlan {
        mode: crate::cluster::StopMode::Immediate,
        checkpoint: false,
        timeout: Some(runner.settings.retry_timeout),
    };
    runner.ports.postgres.stop(&plan, None, &tokio_util::sync::CancellationToken::new()).await?;
    removal.await
}

/// Keeps the snapshot of this cycle in step with our own writes.
fn change(seen: &mut Observation, change: impl FnOnce(&mut ClusterView)) {
    if let Snapshot::Read(view) = &mut seen.view {
        change(view);
    }
}
