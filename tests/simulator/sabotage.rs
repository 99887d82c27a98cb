//! Rules with a deliberate fault each. The world must find every one of them out, or it proves nothing.
//!
//! The faults live here and not in the rules: what the rules see is bent before they decide, or what they decided
//! afterwards. So the core stays free of switches.

use pgherd::cluster::{Divergence, Lsn, PeerAnswer, Recovery, Role, SyncState, Upstream};
use pgherd::ha::sync::StandbyNames;
use pgherd::ha::{Decision, LockOutcome, Memory, Observation, Snapshot, Step, Task, TaskOutcome, decide};

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// Neither the agent nor its guard acts when the lease was not renewed in time.
    NoDeadline,
    /// The guard does not act; the agent's own deadline does.
    NoGuard,
    /// The members' clocks are slower than the margin of the lease allows.
    SlowClocks,
    /// The lease is believed to be renewed without being renewed.
    NoRenewal,
    /// A promotion begins before the key was won.
    PromoteBeforeSwap,
    /// Elections do not look at `/sync`.
    IgnoreSync,
    /// Elections do not count the votes that `/sync` asks for in quorum mode.
    IgnoreVotes,
    /// Elections do not compare positions.
    IgnorePositions,
    /// The tag `nofailover` is not looked at.
    IgnoreNofailover,
    /// Maintenance mode is not looked at.
    IgnorePause,
    /// A diverged member follows without being rewound.
    SkipRewind,
    /// The server stops waiting for a standby before it is taken out of `/sync`.
    NamesBeforeSync,
    /// Neither `/sync` nor the server is told before a promotion.
    UnpreparedPromotion,
    /// The key is given away before the server is stopped.
    ReleaseEarly,
    /// A crashed primary is started as a primary whoever leads.
    StartAsPrimary,
    /// A server that does not start loses its data.
    RemoveOnFailedStart,
    /// A primary without the DCS leads on although a member did not accept it.
    LeadUnaccepted,
    /// A member does not keep what it promised to a primary without the DCS.
    ForgetPromise,
    /// A restarted agent does not ask whom it may have promised.
    SureAfterRestart,
    /// The stop of a demotion is never ordered.
    NoDemotion,
    /// The leader of a standby cluster does not know that it is one.
    PromoteStandby,
    /// A primary does not hear that its cluster is to follow another one.
    IgnoreStandby,
    /// A race goes on by what was known before the member was suspended.
    SleptThrough,
    /// Replicas of a standby cluster follow the remote primary and not its leader.
    FollowRemote,
}

/// By how much the DCS's clock is faster than a slow member's, in thousandths.
pub(crate) const TOO_SLOW: i64 = 300;

impl Sabotage {
    /// Decides with this fault.
    pub(crate) fn decide(self, seen: &Observation, memory: &Memory) -> Decision {
        let (mut seen, mut memory) = (seen.clone(), memory.clone());
        self.bend_sight(&mut seen);
        if self == Self::SleptThrough {
            memory.race_since_ms = None;
        }
        let decision = decide(&seen, &memory);
        self.bend_deeds(&seen, decision)
    }

    fn bend_sight(self, seen: &mut Observation) {
        match self {
            Self::IgnoreNofailover => drop(seen.node.tags.0.shift_remove("nofailover")),
            Self::IgnorePause => seen.settings.pause = false,
            Self::PromoteStandby if seen.view().is_some_and(|view| view.has_lock(&seen.node.name)) => {
                seen.settings.standby_cluster = None;
            }
            Self::IgnoreStandby if seen.instance.is_primary() == Some(true) => seen.settings.standby_cluster = None,
            Self::SkipRewind if seen.done.divergence == Some(Divergence::Diverged) => {
                seen.done.divergence = Some(Divergence::Consistent);
            }
            Self::LeadUnaccepted => {
                seen.done.failsafe.iter_mut().flatten().for_each(|(_, refusal)| *refusal = None);
            }
            Self::ForgetPromise => seen.failsafe_ping = None,
            Self::SureAfterRestart => {
                if let Snapshot::Read(view) = &mut seen.view
                    && view.leader.is_none()
                {
                    view.failsafe = None;
                }
            }
            Self::IgnorePositions => {
                for answer in seen.done.peers.iter_mut().flat_map(|peers| peers.values_mut()) {
                    if let PeerAnswer::Answered { in_recovery: true, position, .. } = answer {
                        *position = Lsn(1);
                    }
                }
            }
            Self::IgnoreVotes => {
                if let Snapshot::Read(view) = &mut seen.view
                    && view.leader.is_none()
                {
                    view.sync.quorum = 0;
                }
            }
            Self::IgnoreSync => {
                if let Snapshot::Read(view) = &mut seen.view
                    && view.leader.is_none()
                {
                    view.sync = SyncState::default();
                }
            }
            _ => {}
        }
    }

    fn bend_deeds(self, seen: &Observation, mut decision: Decision) -> Decision {
        match self {
            Self::NoRenewal if has(&decision, |step| matches!(step, Step::RenewLeader(_))) => {
                let mut later = seen.clone();
                later.done.renewal = Some(LockOutcome::Kept);
                return decide(&later, &decision.memory);
            }
            Self::PromoteBeforeSwap if decision.steps.contains(&Step::AcquireLeader) => {
                let mut later = seen.clone();
                later.done.acquire = Some(LockOutcome::Kept);
                let mut promotion = decide(&later, &decision.memory);
                promotion.steps.push(Step::AcquireLeader);
                return promotion;
            }
            Self::NamesBeforeSync => names_before_sync(seen, &mut decision),
            Self::UnpreparedPromotion => unprepared(seen, &mut decision),
            Self::ReleaseEarly => {
                if let Some(at) = decision.steps.iter().position(|step| matches!(step, Step::Begin(Task::Stop { .. })))
                    && seen.view().is_some_and(|view| view.has_lock(&seen.node.name))
                {
                    decision.steps.insert(at + 1, Step::ReleaseLeader(None));
                }
            }
            Self::StartAsPrimary => {
                for step in &mut decision.steps {
                    if let Step::Begin(Task::Start { recovery, role, .. }) = step
                        && decision.memory.role == Some(Role::Primary)
                    {
                        (*recovery, *role) = (Recovery::None, Role::Primary);
                    }
                }
            }
            Self::RemoveOnFailedStart => {
                let failed = |task: &Task| matches!(task, Task::Start { .. } | Task::Restart { .. });
                let ended = seen.ended.as_ref();
                if ended.is_some_and(|e| failed(&e.task) && matches!(e.outcome, TaskOutcome::Failed(_))) {
                    decision.steps.insert(0, Step::RemoveDataDir);
                }
            }
            Self::FollowRemote => follow_remote(seen, &mut decision),
            Self::NoDemotion if decision.memory.demotion.is_some() => {
                decision.memory.demotion = None;
                decision.steps.retain(|step| !matches!(step, Step::Begin(Task::Stop { .. }) | Step::QuitNow));
            }
            _ => {}
        }
        decision
    }
}

fn has(decision: &Decision, wanted: impl Fn(&Step) -> bool) -> bool {
    decision.steps.iter().any(wanted)
}

fn names_before_sync(seen: &Observation, decision: &mut Decision) {
    let (Some(view), Some(monitor)) = (seen.view(), seen.instance.monitor.as_ref()) else { return };
    let present = StandbyNames::parse(&monitor.synchronous_standby_names);
    for step in &mut decision.steps {
        let Step::WriteSync { state, .. } = step else { continue };
        let names = state.voters.iter().map(|name| name.to_lowercase()).collect();
        let fewer = StandbyNames { number: present.number.min(state.voters.len()), names, ..present.clone() };
        if state.voters.len() < view.sync.voters.len() && fewer != present && !monitor.in_recovery {
            *step = Step::SetSyncNames(fewer.write());
            decision.again = false;
        }
    }
}

fn follow_remote(seen: &Observation, decision: &mut Decision) {
    let Some(standby) = &seen.settings.standby_cluster else { return };
    let remote = || Some(Upstream { host: standby.host.clone(), port: standby.port, ..Upstream::default() });
    for step in &mut decision.steps {
        match step {
            Step::CompareFollow(upstream) | Step::Follow(upstream) => *upstream = remote(),
            Step::Begin(Task::Start { recovery, .. } | Task::Restart { recovery, .. }) => {
                *recovery = Recovery::Standby(remote());
            }
            _ => {}
        }
    }
}

fn unprepared(seen: &Observation, decision: &mut Decision) {
    if seen.instance.is_primary() == Some(false) && has(decision, |step| matches!(step, Step::WriteSync { .. })) {
        let mut later = seen.clone();
        if let Snapshot::Read(view) = &mut later.view {
            view.sync = SyncState { leader: Some(seen.node.name.clone()), ..SyncState::default() };
        }
        *decision = decide(&later, &decision.memory);
    }
    if has(decision, |step| matches!(step, Step::Begin(Task::Promote { .. }))) {
        decision.steps.retain(|step| !matches!(step, Step::SetSyncNames(_) | Step::WriteSync { .. }));
    }
}
