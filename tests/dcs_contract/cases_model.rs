//! The model against the real thing: the same long row of calls, drawn by lot, must have the same outcomes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pgherd::cluster::{ClusterView, FailoverKey, Lsn, MemberName, Session, Status, SyncState, Version};
use pgherd::dcs::{Dcs, Timing};
use serde_json::json;

use crate::backend::{Backend, MemoryBackend, TIMING, World, object};

const STEPS: u32 = 400;

pub(crate) async fn a_long_row_of_calls_ends_as_in_the_model(world: &World) {
    for seed in 1..=3 {
        let scope = format!("{}{seed}", world.scope);
        let mut real = Side::new(world.backend.clone(), &scope).await;
        let mut model = Side::new(Arc::new(MemoryBackend::default()), &scope).await;
        let mut lot = Lot(seed);
        for step in 0..STEPS {
            let (who, what, number) = (lot.draw(2) as usize, lot.draw(18), lot.draw(3));
            let wanted = model.call(who, what, number).await;
            let got = real.call(who, what, number).await;
            assert_eq!(got, wanted, "seed {seed}, step {step}: agent {who} did {what} with {number}");
        }
    }
}

/// A generator of the simplest kind, so that a seed is all there is to know.
struct Lot(u64);

impl Lot {
    fn draw(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Two agents on one store, and what each saw last.
struct Side {
    world: World,
    agents: Vec<Arc<dyn Dcs>>,
    seen: Vec<ClusterView>,
}

impl Side {
    async fn new(backend: Arc<dyn Backend>, scope: &str) -> Self {
        let world = World::new(backend, scope);
        let mut agents = Vec::new();
        for name in ["a", "b"] {
            let agent = world.agent(name).await;
            // No lease ends by itself here: that would be a matter of luck.
            agent.set_timing(Timing { ttl: Duration::from_secs(600), ..TIMING });
            agents.push(agent);
        }
        Self { world, agents, seen: vec![ClusterView::default(); 2] }
    }

    async fn call(&mut self, who: usize, what: u64, number: u64) -> String {
        let dcs = self.agents[who].clone();
        let seen = self.seen[who].clone();
        let status = Status { optime: Some(Lsn(number)), ..Status::default() };
        let request = FailoverKey { candidate: (number > 0).then(|| "b".into()), ..FailoverKey::default() };
        let sync = SyncState { leader: Some("a".into()), quorum: number as u32, ..SyncState::default() };
        // Without a condition, with the version seen (which may be old by now), or with a wrong one.
        let expected = |version: Option<Version>| match number {
            0 => None,
            1 => Some(version.unwrap_or(Version(7))),
            _ => Some(Version(i64::MAX)),
        };
        match what {
            0 => format!("{:?}", dcs.touch_member(&object(json!({"state": "running", "n": number}))).await),
            1 => format!("{:?}", dcs.acquire_leader(None).await),
            2 => {
                let read = SyncState { version: expected(seen.sync.version), ..SyncState::default() };
                format!("{:?}", dcs.acquire_leader(Some(&read)).await)
            }
            3 | 4 => match &seen.leader {
                Some(leader) => format!("{:?}", dcs.renew_leader(leader).await),
                None => String::new(),
            },
            5 => format!("{:?}", dcs.release_leader((number > 0).then_some(&status)).await),
            6 if number == 0 => format!("{:?}", dcs.take_leader().await),
            7 => format!("{:?}", dcs.race_initialize(["", "1", "2"][number as usize]).await),
            8 => format!("{:?}", dcs.cancel_initialize().await),
            9 => {
                let expected = expected(seen.config.map(|key| key.version));
                format!("{:?}", dcs.write_config(&object(json!({ "n": number })), expected).await)
            }
            10 => {
                let expected = expected(seen.failover.map(|key| key.version));
                format!("{:?}", dcs.write_failover(&request, expected).await)
            }
            11 => {
                let version = dcs.write_sync(&sync, expected(seen.sync.version)).await;
                format!("{:?}", version.map(|version| version.is_some()))
            }
            12 => format!("{:?}", dcs.delete_sync(expected(seen.sync.version)).await),
            13 => self.strange_hand(&seen, number).await,
            14 => {
                let topology = BTreeMap::from([(MemberName::from("a"), number.to_string())]);
                format!("{:?}", dcs.write_failsafe(&topology).await)
            }
            _ => {
                let view = dcs.load().await.unwrap();
                self.seen[who] = view.clone();
                comparable(view)
            }
        }
    }

    /// What somebody else may do at any time.
    async fn strange_hand(&self, seen: &ClusterView, number: u64) -> String {
        let lease = seen.members.first().and_then(|member| member.session.clone());
        match (number, lease) {
            (0, _) => self.world.backend.delete(&self.world.key("leader")).await,
            (1, _) => self.world.put("leader", "c").await,
            (_, Some(Session(lease))) => self.world.backend.revoke(lease.parse().unwrap()).await,
            _ => {}
        }
        String::new()
    }
}

/// The view with versions taken out and leases numbered in order of appearance.
fn comparable(mut view: ClusterView) -> String {
    let mut leases: Vec<Session> = Vec::new();
    let mut number = |session: &mut Option<Session>| {
        let Some(lease) = session.take() else { return };
        if !leases.contains(&lease) {
            leases.push(lease.clone());
        }
        let position = leases.iter().position(|known| *known == lease).unwrap();
        *session = Some(Session(position.to_string()));
    };
    if let Some(leader) = &mut view.leader {
        leader.version = Version(0);
        number(&mut leader.session);
    }
    for member in &mut view.members {
        member.version = Version(0);
        number(&mut member.session);
    }
    view.config.iter_mut().for_each(|key| key.version = Version(0));
    view.failover.iter_mut().for_each(|key| key.version = Version(0));
    view.sync.version = view.sync.version.map(|_| Version(0));
    format!("{view:#?}")
}
