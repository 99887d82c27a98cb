//! `synchronous_standby_names` as text, and the two stores under everything that can happen to them: whoever could be
//! elected at any moment has every acknowledged commit.

use proptest::prelude::*;

use super::*;
use crate::cluster::builder::ClusterBuilder;
use crate::ha::decide;
use crate::ha::decision::{Step, Task};
use crate::ha::memory::Memory;
use crate::ha::observation::{LockOutcome, Snapshot};
use crate::ha::tests::{Scene, scene};

#[test]
fn standby_names_round_trip() {
    for text in ["a", "\"a-b\"", "2 (a,b)", "ANY 1 (\"a.x\",b)", PLACEHOLDER] {
        assert_eq!(StandbyNames::parse(text).write().as_deref(), Some(text));
    }
    assert_eq!(StandbyNames::parse("FIRST 2 (a, B)"), StandbyNames::parse("2 (a,b)"));
    assert_eq!(StandbyNames::parse("").write(), None);
    assert!(StandbyNames::parse("*").blocks);
    assert_eq!(StandbyNames::parse("ANY x (a)"), StandbyNames::default());
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Four servers, the two stores, and clients that remember how far they were acknowledged.
#[derive(Clone, Debug)]
struct World {
    now: u64,
    view: ClusterView,
    mode: SynchronousMode,
    strict: bool,
    count: usize,
    primary: usize,
    memory: Memory,
    /// What each server is configured to wait for.
    names: [String; 4],
    /// Rules of the primary that some of its processes may still go by, and until when.
    fading: Vec<(String, u64)>,
    /// How far each server has flushed, on the present primary's timeline.
    flushed: [u64; 4],
    streams: [bool; 4],
    acknowledged: u64,
    /// What each member is tagged with.
    tags: [serde_json::Map<String, serde_json::Value>; 4],
    /// Standbys further behind are not waited for.
    lag_limit: Option<u64>,
}

impl World {
    fn new(mode: SynchronousMode, count: usize, strict: bool) -> Self {
        let view = ClusterBuilder::new(&NAMES)
            .with(|view| {
                view.sync =
                    SyncState { leader: Some("a".into()), version: Some(Default::default()), ..SyncState::default() };
            })
            .build();
        let memory = restarted();
        let names: [String; 4] = Default::default();
        Self {
            now: 100_000,
            view,
            mode,
            strict,
            count,
            primary: 0,
            memory,
            names,
            fading: Vec::new(),
            flushed: [1000; 4],
            streams: [false, true, true, true],
            acknowledged: 1000,
            tags: Default::default(),
            lag_limit: None,
        }
    }

    /// The cluster as the agents read it.
    fn read(&self) -> ClusterView {
        let mut view = self.view.clone();
        for member in &mut view.members {
            let tags = &self.tags[NAMES.iter().position(|name| member.name == **name).unwrap()];
            member.data.insert("tags".into(), tags.clone().into());
        }
        view
    }

    fn senders(&self) -> Vec<WalSender> {
        let rule = StandbyNames::parse(&self.names[self.primary]);
        let waited = if rule.is_quorum { "quorum" } else { "sync" };
        (0..4)
            .filter(|i| self.streams[*i] && *i != self.primary)
            .map(|i| WalSender {
                application_name: NAMES[i].into(),
                sync_state: if rule.names.contains(NAMES[i]) { waited.into() } else { "async".into() },
                write_lsn: Some(Lsn(self.flushed[i])),
                flush_lsn: Some(Lsn(self.flushed[i])),
                replay_lsn: Some(Lsn(self.flushed[i])),
            })
            .collect()
    }

    fn scene(&self, is_primary: bool) -> Scene {
        let mut scene = scene(NAMES[self.primary], self.read()).running(is_primary);
        scene.memory = self.memory.clone();
        let seen = &mut scene.seen;
        seen.now_ms = self.now;
        seen.leads_until_ms = Some(self.now + 20_000);
        seen.done.renewal = Some(LockOutcome::Kept);
        seen.settings.synchronous_mode = self.mode;
        seen.settings.synchronous_mode_strict = self.strict;
        seen.settings.synchronous_node_count = self.count;
        seen.settings.maximum_lag_on_syncnode_bytes = self.lag_limit;
        let monitor = seen.instance.monitor.as_mut().unwrap();
        monitor.flush_lsn = Lsn(self.flushed[self.primary]);
        monitor.synchronous_standby_names = self.names[self.primary].clone();
        if is_primary {
            monitor.senders = self.senders();
        }
        scene
    }

    /// One cycle of the primary's agent, cut off after so many changes of the stores.
    fn cycle(&mut self, mut budget: usize) {
        let mut scene = self.scene(true);
        for _ in 0..12 {
            let decision = decide(&scene.seen, &scene.memory);
            scene.memory = decision.memory.clone();
            self.memory = decision.memory.clone();
            for step in &decision.steps {
                if matches!(step, Step::WriteSync { .. } | Step::DeleteSync(_) | Step::SetSyncNames(_)) {
                    if budget == 0 {
                        self.memory = restarted();
                        return;
                    }
                    budget -= 1;
                }
                self.apply(step);
                self.check(step);
            }
            scene.seen.view = Snapshot::Read(Box::new(self.read()));
            if !decision.again {
                return;
            }
        }
        panic!("a cycle without an end: {self:?}");
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::WriteSync { state, .. } => {
                self.view.sync = SyncState { version: Some(Default::default()), ..state.clone() };
            }
            Step::DeleteSync(_) => self.view.sync = SyncState::default(),
            Step::SetSyncNames(text) => {
                let before = std::mem::replace(&mut self.names[self.primary], text.clone().unwrap_or_default());
                self.fading.push((before, self.now + SETTLE_MS - 1));
            }
            _ => {}
        }
        self.acknowledge();
    }

    /// How far commits are acknowledged by one rule.
    fn reach(&self, rule: &str) -> u64 {
        let rule = StandbyNames::parse(rule);
        if rule == StandbyNames::default() {
            return self.flushed[self.primary];
        }
        let mut who: Vec<u64> = (0..4)
            .filter(|i| *i != self.primary && self.streams[*i] && rule.names.contains(NAMES[*i]))
            .map(|i| self.flushed[i])
            .collect();
        who.sort_unstable_by_key(|lsn| std::cmp::Reverse(*lsn));
        who.get(rule.number.max(1) - 1).copied().unwrap_or(0)
    }

    fn acknowledge(&mut self) {
        let now = self.now;
        self.fading.retain(|(_, until)| now <= *until);
        let rules = self.fading.iter().map(|(rule, _)| rule.as_str()).chain([self.names[self.primary].as_str()]);
        let reached = rules.map(|rule| self.reach(rule)).max().unwrap_or(0);
        self.acknowledged = self.acknowledged.max(reached);
    }

    /// The sets of servers, without the primary, that could elect one of them.
    fn electors(&self) -> Vec<Vec<usize>> {
        let sync = &self.view.sync;
        if sync.is_empty() {
            // Nothing is promised.
            return Vec::new();
        }
        let by_votes = self.mode == SynchronousMode::Quorum || sync.quorum > 0;
        let size = if by_votes { sync.quorum as usize + 1 } else { 1 };
        let may: Vec<usize> = (0..4).filter(|i| *i != self.primary && sync.matches(NAMES[*i])).collect();
        (1_u32..16)
            .map(|bits| (0..4).filter(|i| bits & (1 << i) != 0).collect::<Vec<usize>>())
            .filter(|set| set.len() == size && set.iter().all(|i| may.contains(i)))
            .collect()
    }

    fn check(&self, after: &dyn std::fmt::Debug) {
        for set in self.electors() {
            let best = set.iter().map(|i| self.flushed[*i]).max().unwrap();
            assert!(
                best >= self.acknowledged,
                "{set:?} could elect without {}: after {after:?}\n{self:?}",
                self.acknowledged
            );
        }
    }

    /// The primary dies; some set of electors that is left chooses its best.
    fn fail_over(&mut self, pick: usize) {
        let sets = self.electors();
        let winner = if self.view.sync.is_empty() {
            // Anybody, and what was acknowledged is what is there.
            let winner = (self.primary + 1 + pick % 3) % 4;
            self.acknowledged = self.flushed[winner];
            winner
        } else {
            let Some(set) = sets.get(pick % sets.len().max(1)) else { return };
            *set.iter().max_by_key(|i| self.flushed[**i]).unwrap()
        };
        self.primary = winner;
        self.view =
            ClusterBuilder::new(&NAMES).leader(NAMES[winner]).with(|view| view.sync = self.view.sync.clone()).build();
        self.memory = restarted();
        self.fading.clear();
        let mut scene = self.scene(false);
        scene.memory.role = Some(crate::cluster::Role::Replica);
        for _ in 0..12 {
            let decision = decide(&scene.seen, &scene.memory);
            scene.memory = decision.memory.clone();
            for step in &decision.steps {
                match step {
                    Step::WriteSync { state, .. } => {
                        self.view.sync = SyncState { version: Some(Default::default()), ..state.clone() };
                    }
                    Step::DeleteSync(_) => self.view.sync = SyncState::default(),
                    Step::SetSyncNames(text) => self.names[winner] = text.clone().unwrap_or_default(),
                    Step::Begin(Task::Promote { .. }) => {
                        self.memory = Memory { role: Some(crate::cluster::Role::Primary), ..decision.memory.clone() };
                        let end = self.flushed[winner];
                        self.flushed.iter_mut().for_each(|lsn| *lsn = (*lsn).min(end));
                        self.streams = [false; 4];
                        self.acknowledge();
                        self.check(&"the promotion");
                        return;
                    }
                    _ => {}
                }
            }
            scene.seen.view = Snapshot::Read(Box::new(self.read()));
        }
        panic!("no promotion: {self:?}");
    }

    fn happen(&mut self, kind: u8, value: usize) {
        let who = value % 4;
        match kind {
            0..=2 => self.flushed[self.primary] += 1 + value as u64,
            3..=5 if self.streams[who] && who != self.primary => {
                let missing = self.flushed[self.primary] - self.flushed[who];
                self.flushed[who] += if value >= 128 { missing } else { missing / 2 };
            }
            6 => self.streams[who] = false,
            7 => self.streams[who] = who != self.primary,
            8 | 9 => self.cycle(12),
            10 => self.cycle(value % 3),
            11 => self.now += 100 + value as u64 * 8,
            12 => self.now += 3_000,
            13 => self.fail_over(value),
            14 => self.count = 1 + value % 3,
            15 if value.is_multiple_of(4) => self.strict = !self.strict,
            15 => {
                let modes = [SynchronousMode::Off, SynchronousMode::Priority, SynchronousMode::Quorum];
                self.mode = modes[value % 3];
            }
            16 => self.tag(who, value / 4),
            17 => self.lag_limit = [None, Some(10), Some(300)][value % 3],
            _ => self.memory = restarted(),
        }
        self.acknowledge();
        self.check(&(kind, value));
    }

    fn tag(&mut self, who: usize, value: usize) {
        let tag = |name: &str, value: serde_json::Value| serde_json::Map::from_iter([(name.to_owned(), value)]);
        self.tags[who] = match value % 6 {
            0 => tag("nosync", true.into()),
            1 => tag("nofailover", true.into()),
            2 => tag("sync_priority", 2.into()),
            3 => tag("replicatefrom", NAMES[(who + 1) % 4].into()),
            _ => serde_json::Map::new(),
        };
    }

    /// Whoever streams now goes on, the others stay away, and time passes: commits do not wait for those.
    fn degrade(&mut self) {
        self.tags = Default::default();
        self.lag_limit = None;
        for _ in 0..12 {
            self.catch_up();
            self.now += SETTLE_MS;
            self.cycle(12);
        }
        let is_alone = !self.streams.contains(&true);
        if self.mode == SynchronousMode::Off || !(self.strict && is_alone) {
            self.flushed[self.primary] += 1;
            self.catch_up();
            assert_eq!(self.acknowledged, self.flushed[self.primary], "commits wait for nobody there: {self:?}");
        }
    }

    fn catch_up(&mut self) {
        let end = self.flushed[self.primary];
        (0..4).filter(|i| self.streams[*i]).for_each(|i| self.flushed[i] = end);
        self.acknowledge();
    }

    /// Everybody streams and has everything, and time passes.
    fn calm(&mut self) {
        self.tags = Default::default();
        self.lag_limit = None;
        for _ in 0..12 {
            self.streams = [true; 4];
            self.streams[self.primary] = false;
            self.flushed = [self.flushed[self.primary]; 4];
            self.now += SETTLE_MS;
            self.cycle(12);
        }
        let rule = StandbyNames::parse(&self.names[self.primary]);
        if self.mode == SynchronousMode::Off {
            return assert!(rule == StandbyNames::default() && self.view.sync.is_empty(), "{self:?}");
        }
        let wanted = self.count.min(3);
        assert_eq!(rule.number, wanted, "{self:?}");
        assert!(self.view.sync.is_leader(NAMES[self.primary]));
        let voters = self.view.sync.voters.len();
        let (electable, quorum) = if self.mode == SynchronousMode::Quorum { (3, 3 - wanted) } else { (wanted, 0) };
        assert_eq!((voters, self.view.sync.quorum as usize), (electable, quorum), "{self:?}");
    }
}

/// What an agent remembers that has just been started beside its server.
fn restarted() -> Memory {
    Memory {
        is_attached: true,
        is_checkpoint_done: true,
        role: Some(crate::cluster::Role::Primary),
        ..Memory::default()
    }
}

fn modes() -> impl Strategy<Value = SynchronousMode> {
    prop_oneof![Just(SynchronousMode::Off), Just(SynchronousMode::Priority), Just(SynchronousMode::Quorum)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whoever_could_be_elected_has_every_acknowledged_commit(
        mode in modes(),
        count in 1..4_usize,
        strict in any::<bool>(),
        events in proptest::collection::vec((0..19_u8, 0..256_usize), 1..60),
    ) {
        let mut world = World::new(mode, count, strict);
        for (kind, value) in events {
            world.happen(kind, value);
        }
        world.degrade();
        world.calm();
    }
}

/// After a failover two are waited for, one of which has gone before it has confirmed, and the former leader is dead.
#[test]
fn commits_do_not_wait_for_who_has_gone_before_it_had_everything() {
    let voters = ["a", "b", "c"].map(MemberName::from).to_vec();
    let sync = SyncState { leader: Some("d".into()), quorum: 1, voters, version: None };
    let view = ClusterBuilder::new(&NAMES).leader("d").with(|view| view.sync = sync).build();
    let mut world = World { primary: 3, view, ..World::new(SynchronousMode::Quorum, 2, false) };
    world.names[3] = "ANY 2 (b,c)".into();
    world.streams = [false, false, true, false];
    world.flushed[3] = 1_001;
    world.degrade();
    world.calm();
}

#[test]
fn a_standby_that_may_be_elected_is_prepared_for_it() {
    let view = |voters: &[&str]| {
        let voters = voters.iter().map(|name| (*name).into()).collect();
        let sync = SyncState { leader: Some("a".into()), quorum: 1, voters, version: None };
        ClusterBuilder::new(&["a", "b", "c"]).with(|view| view.sync = sync).build()
    };
    let names = |view: ClusterView, mode: SynchronousMode, present: &str, prepared: bool| {
        let mut scene = scene("b", view).running(false);
        scene.seen.settings.synchronous_mode = mode;
        scene.seen.instance.monitor.as_mut().unwrap().synchronous_standby_names = present.into();
        scene.seen.done.follow = Some(crate::cluster::FollowChange::None);
        scene.memory.is_sync_prepared = prepared;
        let decision = scene.decide();
        decision.steps.into_iter().find_map(|step| match step {
            Step::SetSyncNames(names) => Some(names),
            _ => None,
        })
    };
    let quorum = SynchronousMode::Quorum;
    assert_eq!(names(view(&["b", "c"]), quorum, "", false), Some(Some("ANY 1 (a,c)".into())));
    assert_eq!(names(view(&["b", "c"]), quorum, "ANY 1 (a,c)", true), None);
    assert_eq!(names(view(&["c"]), quorum, "ANY 1 (a,c)", true), Some(None));
    assert_eq!(names(view(&["b", "c"]), SynchronousMode::Off, "mine", false), None, "the operator's own");
}

/// The mode has just been switched off, and will be on again before anybody has taken `/sync` back.
#[test]
fn a_document_left_from_synchronous_mode_is_the_new_primarys_alone() {
    let sync = SyncState { leader: Some("a".into()), quorum: 1, voters: vec!["b".into(), "c".into()], version: None };
    let view = ClusterBuilder::new(&["a", "b", "c"]).leader("b").with(|view| view.sync = sync).build();
    let mut scene = scene("b", view).running(false);
    scene.memory.role = Some(crate::cluster::Role::Replica);
    scene.seen.done.renewal = Some(LockOutcome::Kept);
    let decision = scene.decide();
    let alone = SyncState { leader: Some("b".into()), ..SyncState::default() };
    assert_eq!(decision.steps.last(), Some(&Step::WriteSync { state: alone.clone(), expected: None }));
    assert!(!decision.steps.iter().any(|step| matches!(step, Step::Begin(_))), "{decision:?}");
    let Snapshot::Read(view) = &mut scene.seen.view else { panic!() };
    view.sync = alone;
    let decision = scene.decide();
    assert!(decision.steps.iter().any(|step| matches!(step, Step::Begin(Task::Promote { .. }))), "{decision:?}");
}

#[test]
fn a_synchronous_standby_is_released_before_it_stops() {
    let view = |voter: &str| {
        let sync = SyncState { leader: Some("a".into()), voters: vec![voter.into()], ..SyncState::default() };
        ClusterBuilder::new(&["a", "b", "c"]).with(|view| view.sync = sync).build()
    };
    let mut scene = scene("b", view("b")).running(false);
    scene.seen.settings.synchronous_mode = SynchronousMode::Priority;
    scene.seen.is_leaving = true;
    let stops = |steps: &[Step]| steps.iter().any(|step| matches!(step, Step::Begin(Task::Stop { .. })));
    let decision = scene.decide();
    assert_eq!(decision.reason.to_string(), "waiting for the primary to release us from synchronous standby");
    assert!(!stops(&decision.steps));
    let Some(Step::Publish(value)) = decision.steps.last() else { panic!("nothing published") };
    assert_eq!(value["tags"], serde_json::json!({"nosync": true, "sync_priority": 0}));

    // The primary did its part.
    scene.memory = decision.memory.clone();
    scene.seen.view = Snapshot::Read(Box::new(view("c")));
    assert!(stops(&scene.decide().steps));
    // It did not, in two turns of the loop.
    scene.seen.view = Snapshot::Read(Box::new(view("b")));
    scene.seen.now_ms += 20_000;
    assert!(stops(&scene.decide().steps));
}
