//! The working state of one decision: what is seen, the memory being rewritten, the steps collected so far.

use std::collections::BTreeMap;

use crate::cluster::{Callback, Lsn};
use crate::cluster::{ClusterView, InstanceState, Member, MemberName, Monitor, PeerAnswer, Role, Status, Upstream};
use crate::config::Dynamic;

use super::decision::{Decision, Level, Note, Step, Task, Verdict};
use super::memory::{DemoteMode, Demotion, DemotionStage, Memory, RewindState};
use super::observation::{Done, LockOutcome, Observation};
use super::reason::Reason;
use super::{publish, slots};

/// What a rule answers.
#[derive(Debug)]
pub(super) enum Flow {
    /// The cycle is over.
    End(Reason),
    /// Carry out the steps and decide again with their outcomes.
    Ask(Reason),
}

impl Flow {
    /// Ends with a reason.
    pub(super) fn end(reason: impl Into<Reason>) -> Option<Self> {
        Some(Self::End(reason.into()))
    }

    /// Asks for outcomes.
    pub(super) fn ask(what: &str) -> Option<Self> {
        Some(Self::Ask(Reason::Asking { what: what.to_owned() }))
    }
}

/// See the module.
pub(super) struct Context<'a> {
    pub(super) seen: &'a Observation,
    pub(super) memory: Memory,
    pub(super) steps: Vec<Step>,
    pub(super) notes: Vec<Note>,
    pub(super) weighed: Vec<Verdict>,
    pub(super) wake_after_ms: Option<u64>,
}

impl<'a> Context<'a> {
    pub(super) fn new(seen: &'a Observation, memory: &Memory) -> Self {
        Self {
            seen,
            memory: memory.clone(),
            steps: Vec::new(),
            notes: Vec::new(),
            weighed: Vec::new(),
            wake_after_ms: None,
        }
    }

    // ---- what is seen ----

    pub(super) fn me(&self) -> &'a MemberName {
        &self.seen.node.name
    }

    pub(super) fn view(&self) -> Option<&'a ClusterView> {
        self.seen.view()
    }

    pub(super) fn settings(&self) -> &'a Dynamic {
        &self.seen.settings
    }

    pub(super) fn instance(&self) -> &'a InstanceState {
        &self.seen.instance
    }

    pub(super) fn monitor(&self) -> Option<&'a Monitor> {
        self.seen.instance.monitor.as_ref()
    }

    pub(super) fn done(&self) -> &'a Done {
        &self.seen.done
    }

    pub(super) fn is_paused(&self) -> bool {
        self.settings().pause
    }

    pub(super) fn in_standby_cluster(&self) -> bool {
        self.settings().standby_cluster.is_some()
    }

    pub(super) fn now(&self) -> u64 {
        self.seen.now_ms
    }

    pub(super) fn role(&self) -> Option<Role> {
        self.memory.role
    }

    /// The snapshot names us, or we created the key a moment ago in this very cycle.
    pub(super) fn has_lock(&self) -> bool {
        self.done().acquire == Some(LockOutcome::Kept) || self.view().is_some_and(|view| view.has_lock(self.me()))
    }

    /// Synchronous replication is on; never so in a standby cluster.
    pub(super) fn is_sync_mode(&self) -> bool {
        self.settings().synchronous_mode != crate::config::SynchronousMode::Off && !self.in_standby_cluster()
    }

    /// `/sync` says who may be elected. As long as it does it matters not that the mode has just been switched off: what
    /// was acknowledged before must survive until a primary has taken the document back.
    pub(super) fn is_sync_active(&self) -> bool {
        !self.in_standby_cluster() && self.view().is_some_and(|view| !view.sync.is_empty())
    }

    /// Elections count votes: by the mode, or by what `/sync` still asks for.
    pub(super) fn is_quorum_active(&self) -> bool {
        let is_configured = self.settings().synchronous_mode == crate::config::SynchronousMode::Quorum;
        self.view().is_some_and(|view| {
            !view.sync.is_empty() && (is_configured || (!self.in_standby_cluster() && view.sync.quorum > 0))
        })
    }

    /// The local server is out of recovery. When it does not answer, the postmaster's life and our memory count.
    pub(super) fn is_primary(&self) -> bool {
        match self.instance().is_primary() {
            Some(is_primary) => is_primary,
            None => self.instance().is_postmaster_alive && self.role() == Some(Role::Primary),
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        self.instance().is_postmaster_alive
    }

    /// A postmaster lives that does not accept connections yet.
    pub(super) fn is_starting(&self) -> bool {
        self.is_alive()
            && !self.instance().accepts_connections
            && self.instance().state.is_some_and(|state| state.is_starting())
    }

    /// Our WAL position, if the server said it.
    pub(super) fn position(&self) -> Option<Lsn> {
        self.monitor().map(Monitor::position)
    }

    // ---- saying ----

    pub(super) fn note(&mut self, level: Level, text: impl Into<String>) {
        let note = Note { level, text: text.into() };
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    pub(super) fn info(&mut self, text: impl Into<String>) {
        self.note(Level::Info, text);
    }

    pub(super) fn warn(&mut self, text: impl Into<String>) {
        self.note(Level::Warning, text);
    }

    pub(super) fn pass_over(&mut self, member: &MemberName, why: impl Into<String>) {
        self.weighed.push(Verdict { member: member.clone(), passed_over: Some(why.into()) });
    }

    pub(super) fn consider(&mut self, member: &MemberName) {
        self.weighed.push(Verdict { member: member.clone(), passed_over: None });
    }

    pub(super) fn wake_within(&mut self, ms: u64) {
        self.wake_after_ms = Some(self.wake_after_ms.map_or(ms, |earlier| earlier.min(ms)));
    }

    // ---- doing ----

    pub(super) fn step(&mut self, step: Step) {
        self.steps.push(step);
    }

    pub(super) fn begin(&mut self, task: Task) {
        self.step(Step::Begin(task));
    }

    pub(super) fn callback(&mut self, event: Callback, role: Role) {
        self.memory.was_callback_called = true;
        self.step(Step::Callback { event, role });
    }

    /// Renewal of the lock: the outcome if it is known, else the step is ordered and `None` is returned. Call only
    /// with the lock.
    pub(super) fn renewal(&mut self) -> Option<&'a LockOutcome> {
        // A key that was created in this cycle is as good as renewed.
        if self.done().acquire == Some(LockOutcome::Kept) {
            return self.done().acquire.as_ref();
        }
        if let Some(outcome) = &self.done().renewal {
            return Some(outcome);
        }
        let leader = self.view().and_then(|view| view.leader.clone())?;
        self.step(Step::RenewLeader(leader));
        None
    }

    /// The peers' answers if they are known, else the step is ordered.
    pub(super) fn ask(&mut self, peers: BTreeMap<MemberName, String>) -> Option<&'a BTreeMap<MemberName, PeerAnswer>> {
        if let Some(answers) = &self.done().peers {
            return Some(answers);
        }
        self.step(Step::AskPeers(peers));
        None
    }

    /// Gives the lock away. With a position the status is written first, keeping its slots.
    pub(super) fn release(&mut self, optime: Option<Lsn>) {
        let status = optime.map(|lsn| {
            let kept = self.view().map(|view| view.status.clone()).unwrap_or_default();
            Status { optime: Some(lsn), ..kept }
        });
        self.step(Step::ReleaseLeader(status));
    }

    /// Begins a demotion. The stop itself is ordered as soon as the task slot is free.
    pub(super) fn demote(&mut self, mode: DemoteMode, action: &str) {
        self.info(format!("Demoting self ({})", mode.as_str()));
        self.mark_check();
        self.memory.demotion = Some(Demotion {
            mode,
            action: action.to_owned(),
            stage: DemotionStage::Ordered,
            began_ms: self.now(),
            is_released: false,
            shutdown_lsn: None,
        });
        super::rules::demotion::order_stop(self);
    }

    /// Histories must be compared before the server may stream, if anything can be done about the result.
    pub(super) fn mark_check(&mut self) {
        self.memory.is_checkpoint_ordered = false;
        self.memory.is_checkpoint_done = false;
        let allowed = self.instance().can_rewind || self.seen.node.remove_on_divergence;
        if allowed && self.memory.rewind != RewindState::Need {
            self.memory.rewind = RewindState::Check;
        }
    }

    // ---- whom to follow ----

    /// The upstream this node should stream from; `None`: nobody.
    pub(super) fn node_to_follow(&self) -> Option<Upstream> {
        let node = &self.seen.node;
        let view = self.view()?;
        if node.tags.nostream() {
            return None;
        }
        if self.in_standby_cluster() && (self.has_lock() || (view.is_unlocked() && !self.is_paused())) {
            return self.remote_upstream();
        }
        let target = match view.cascade_source(&node.name, &node.tags) {
            Some(member) => member,
            None => view.leader_member()?,
        };
        if target.name == node.name || self.may_be_on_a_twin() {
            return None;
        }
        self.member_upstream(target)
    }

    /// It was this node that began its timeline, and whoever leads now has not begun its own yet: by chance of the same
    /// number, which no server can tell from ours. Until then nothing of it must get here.
    pub(super) fn may_be_on_a_twin(&self) -> bool {
        let is_own = self.memory.timeline_maker.as_ref().is_some_and(|(_, maker)| maker == self.me());
        let leader = self.view().and_then(|view| view.leader_member());
        is_own && !self.in_standby_cluster() && leader.is_some_and(|leader| leader.role() != Some(Role::Primary))
    }

    /// A member as an upstream, with the standby cluster's archive settings where there is one.
    pub(super) fn member_upstream(&self, member: &Member) -> Option<Upstream> {
        let (host, port) = member.address()?;
        let mut upstream = Upstream {
            member: Some(member.name.clone()),
            host: Some(host),
            port: Some(port),
            database: member.database(),
            ..Upstream::default()
        };
        if let Some(standby) = &self.settings().standby_cluster {
            upstream.restore_command = standby.restore_command.clone();
            upstream.archive_cleanup_command = standby.archive_cleanup_command.clone();
            upstream.create_replica_methods = standby.create_replica_methods.clone();
        }
        Some(upstream)
    }

    /// The remote primary of a standby cluster.
    pub(super) fn remote_upstream(&self) -> Option<Upstream> {
        use crate::cluster::UpstreamSlot;
        let standby = self.settings().standby_cluster.as_ref()?;
        Some(Upstream {
            member: None,
            host: standby.host.clone(),
            port: standby.port,
            database: None,
            slot: standby.primary_slot_name.clone().map_or(UpstreamSlot::None, UpstreamSlot::Named),
            restore_command: standby.restore_command.clone(),
            archive_cleanup_command: standby.archive_cleanup_command.clone(),
            recovery_min_apply_delay: standby.recovery_min_apply_delay.clone(),
            create_replica_methods: standby.create_replica_methods.clone(),
        })
    }

    // ---- the end ----

    /// Adds what every cycle ends with and closes the decision.
    pub(super) fn finish(mut self, rule: u16, flow: Flow) -> Decision {
        let (mut reason, again) = match flow {
            Flow::End(reason) => (reason, false),
            Flow::Ask(reason) => (reason, true),
        };
        let is_dcs_lost = self.view().is_none() || rule == super::rules::DCS_LOST;
        if !again && !is_dcs_lost {
            if let Some(copying) = slots::order(&mut self) {
                reason = copying;
            }
            self.memory.previous_position = self.position();
            self.memory.was_paused = self.is_paused();
            let value = publish::member_value(self.seen, &self.memory);
            self.step(Step::Publish(value));
        }
        Decision {
            rule,
            reason,
            notes: self.notes,
            weighed: self.weighed,
            steps: self.steps,
            again,
            wake_after_ms: self.wake_after_ms,
            memory: self.memory,
        }
    }
}
