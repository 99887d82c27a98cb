//! Rules with a deliberate fault each. The world must find every one of them out, or it proves nothing.
//!
//! The faults live here and not in the rules: what the rules see is bent before they decide, or what they decided
//! afterwards. So the core stays free of switches.

use pgherd::cluster::{Divergence, Lsn, MemberName, PeerAnswer, Recovery, Role, SyncState};
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
    /// Elections do not count votes.
    IgnoreVotes,
    /// Elections do not compare positions.
    IgnorePositions,
    /// The tag `nofailover` is not looked at.
    IgnoreNofailover,
    /// Maintenance mode is not looked at.
    IgnorePause,
    /// A diverged member follows without being rewound.
    SkipRewind,
    /// A standby stands in `/sync` before the server waits for it.
    SyncBeforeNames,
    /// The server stops waiting for a standby before it is taken out of `/sync`.
    NamesBeforeSync,
    /// `/sync` is written although the server's processes may not have heard of the change yet, and without asking
    /// whether the standby has everything.
    UnconfirmedStandby,
    /// Neither `/sync` nor the server is told before a promotion.
    UnpreparedPromotion,
    /// The key is given away before the server is stopped.
    ReleaseEarly,
    /// A crashed primary is started as a primary whoever leads.
    StartAsPrimary,
    /// A server that does not start loses its data.
    RemoveOnFailedStart,
    /// The stop of a demotion is never ordered.
    NoDemotion,
}

/// By how much the DCS's clock is faster than a slow member's, in thousandths.
pub(crate) const TOO_SLOW: i64 = 300;

impl Sabotage {
    /// Decides with this fault.
    pub(crate) fn decide(self, seen: &Observation, memory: &Memory) -> Decision {
        let (mut seen, mut memory) = (seen.clone(), memory.clone());
        self.bend_sight(&mut seen, &mut memory);
        let decision = decide(&seen, &memory);
        self.bend_deeds(&seen, decision)
    }

    fn bend_sight(self, seen: &mut Observation, memory: &mut Memory) {
        match self {
            Self::IgnoreNofailover => drop(seen.node.tags.0.shift_remove("nofailover")),
            Self::IgnorePause => seen.settings.pause = false,
            Self::SkipRewind if seen.done.divergence == Some(Divergence::Diverged) => {
                seen.done.divergence = Some(Divergence::Consistent);
            }
            Self::IgnorePositions => {
                for answer in seen.done.peers.iter_mut().flat_map(|peers| peers.values_mut()) {
                    if let PeerAnswer::Answered { in_recovery: true, position, .. } = answer {
                        *position = Lsn(1);
                    }
                }
            }
            Self::UnconfirmedStandby => {
                memory.is_sync_settled = true;
                memory.sync_names_since_ms = 0;
                memory.sync_confirmed_from = Lsn::ZERO;
                let names = memory.known_members.keys().map(|name| name.to_lowercase());
                memory.sync_ready = names.collect();
            }
            Self::IgnoreSync | Self::IgnoreVotes => {
                if let Snapshot::Read(view) = &mut seen.view
                    && view.leader.is_none()
                {
                    if self == Self::IgnoreSync {
                        view.sync = SyncState::default();
                    } else {
                        view.sync.quorum = 0;
                    }
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
            Self::SyncBeforeNames => sync_before_names(seen, &mut decision),
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

fn members(names: &StandbyNames) -> Vec<MemberName> {
    names.names.iter().map(|name| name.as_str().into()).collect()
}

fn sync_before_names(seen: &Observation, decision: &mut Decision) {
    let Some(view) = seen.view().filter(|_| seen.instance.is_primary() == Some(true)) else { return };
    let set = decision.steps.iter().enumerate().find_map(|(at, step)| match step {
        Step::SetSyncNames(Some(text)) => Some((at, StandbyNames::parse(text))),
        _ => None,
    });
    if let Some((at, wanted)) = set.filter(|_| view.sync.is_leader(&seen.node.name)) {
        let quorum = if wanted.is_quorum { wanted.names.len() - wanted.number.min(wanted.names.len()) } else { 0 };
        let state = SyncState {
            leader: Some(seen.node.name.clone()),
            voters: members(&wanted),
            quorum: u32::try_from(quorum).unwrap(),
            version: None,
        };
        decision.steps.insert(at, Step::WriteSync { state, expected: view.sync.version });
    }
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
