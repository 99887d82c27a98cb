//! Worlds by lot: a cluster, faults and an operator from one seed, then peace.

use std::ops::Range;
use std::time::Duration;

use pgherd::cluster::{ReinitRequest, RestartRequest, Tags};
use pgherd::ha::RequestKind;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::chance::Chance;
use crate::fleet::Local;
use crate::sabotage::{Sabotage, TOO_SLOW};
use crate::seeds::KNOWN;
use crate::world::{Outcome, Plan, World};

mod standby;
mod whims;

/// The DCS's clock and a member's differ by at most this, in thousandths. The lease's deadline leaves a sixth.
const DRIFT: u64 = 100;

/// These worlds have no whims: settings and tags stay what they are, and no disk is lost.
const PLAIN: Range<u64> = 700..2_000;

/// Plays one seed from birth to peace. The log of what happened.
pub(crate) async fn play(seed: u64, sabotage: Option<Sabotage>) -> Outcome<String> {
    let mut chance = Chance::new(seed);
    let count = 3 + chance.index(3);
    let mut config = config(&mut chance);
    // A generator of its own: the other seeds stay what they are.
    let mut outages = Chance::new(!seed);
    let failsafe = outages.percent(33) && !KNOWN.contains(&seed);
    if failsafe {
        config["failsafe_mode"] = json!(true);
    }
    let plan = Plan {
        locals: locals(&mut chance, count),
        drift: (0..count).map(|_| drift(&mut chance, sabotage)).collect(),
        config: config.clone(),
        sabotage,
    };
    let mut late = Chance::new(seed ^ (u64::MAX / 9));
    let is_late = late.percent(25) && !KNOWN.contains(&seed) && sabotage.is_none();
    let mut world = World::without(plan, &mut chance, is_late.then(|| late.index(count)));
    world.say(format!("seed {seed}: {count} members, {config}"));
    let tags: Vec<Value> = world.fleet.locals.iter().map(|local| json!(local.tags)).collect();
    world.say(format!("tags {}", json!(tags)));
    world.fleet.moving().has_archive = chance.percent(75);
    world.until("birth", Duration::from_secs(120), World::is_healthy).await?;
    world.pass(Duration::from_secs(5)).await?;
    let votes = Chance::new(seed ^ (u64::MAX / 3));
    let mut whims = Chance::new(seed ^ (u64::MAX / 5));
    // A deliberate fault is looked for in plain worlds: there it is met sooner.
    let has_whims = whims.percent(50) && !PLAIN.contains(&seed) && !KNOWN.contains(&seed) && sabotage.is_none();
    let mut lot = Lot { chance, config, is_paused: false, outages, votes, whims, is_disk_lost: false };
    let mut disks = Chance::new(seed ^ (u64::MAX / 7));
    let has_disks = disks.percent(33) && !KNOWN.contains(&seed) && sabotage.is_none();
    for _ in 0..4 + lot.chance.below(8) {
        if has_whims && lot.whims.percent(50) {
            lot.whim(&mut world).await?;
        }
        if failsafe && lot.outages.percent(20) {
            lot.outage(&mut world).await?;
        }
        if has_disks && disks.percent(25) {
            lot_of_disks(&mut disks, &mut world);
        }
        if let Some(who) = world.awaited().filter(|_| late.percent(25)) {
            world.start_agent(who);
        }
        lot.event(&mut world).await?;
        let most = if lot.chance.percent(50) { 2_000 } else { 25_000 };
        world.pass(Duration::from_millis(20 + lot.chance.below(most))).await?;
    }
    lot.peace(&mut world).await?;
    if lot.votes.percent(40) {
        lot.lone_voter(&mut world).await?;
    }
    Ok(world.fleet.moving().log.join("\n"))
}

/// A disk hangs under a server that is to be started, as a rule the leader's; or all of them answer again.
fn lot_of_disks(disks: &mut Chance, world: &mut World) {
    if disks.percent(40) {
        world.say("all disks answer");
        return world.fleet.moving().hanging.fill(false);
    }
    let leader = world.leader().filter(|_| disks.percent(80));
    let who = leader.unwrap_or_else(|| disks.index(world.len()));
    world.say(format!("the disk of {} hangs, its server is killed", world.name(who)));
    world.fleet.moving().hanging[who] = true;
    world.fleet.kill(who);
}

fn drift(chance: &mut Chance, sabotage: Option<Sabotage>) -> i64 {
    let drift = chance.below(2 * DRIFT + 1).cast_signed() - DRIFT.cast_signed();
    if sabotage == Some(Sabotage::SlowClocks) { TOO_SLOW } else { drift }
}

fn config(chance: &mut Chance) -> Value {
    let ttl = 20 + chance.below(3) * 5;
    let retry_timeout = 3 + chance.below(4);
    let loop_wait = (1 + chance.below(10)).min(ttl - 2 * retry_timeout);
    let mut config = json!({"ttl": ttl, "loop_wait": loop_wait, "retry_timeout": retry_timeout});
    if chance.percent(25) {
        config["primary_start_timeout"] = json!(if chance.percent(50) { 0 } else { 10 });
    }
    if chance.percent(25) {
        config["primary_stop_timeout"] = json!(5);
    }
    if chance.percent(20) {
        config["check_timeline"] = json!(true);
    }
    if chance.percent(15) {
        config["primary_race_backoff"] = json!(5);
    }
    synchronous(chance, &mut config);
    config
}

fn synchronous(chance: &mut Chance, config: &mut Value) {
    config["synchronous_mode"] = match chance.below(4) {
        0 => json!(false),
        1 => json!(true),
        _ => json!("quorum"),
    };
    config["synchronous_mode_strict"] = json!(chance.percent(25));
    config["synchronous_node_count"] = json!(1 + chance.below(2));
    if chance.percent(30) {
        config["maximum_lag_on_syncnode"] = json!(100);
    }
}

fn locals(chance: &mut Chance, count: usize) -> Vec<Local> {
    let mut locals: Vec<Local> = (0..count).map(|_| local(chance)).collect();
    if chance.percent(25) {
        // One is never elected.
        let who = chance.index(count);
        locals[who].tags.0.insert("nofailover".into(), json!(true));
    }
    if chance.percent(20) {
        let who = chance.index(count);
        locals[who].tags.0.insert("nosync".into(), json!(true));
    }
    if count > 3 && chance.percent(25) {
        let names = ["a", "b", "c", "d", "e"];
        let (who, from) = (chance.index(count), chance.index(count));
        if who != from {
            locals[who].tags.0.insert("replicatefrom".into(), json!(names[from]));
        }
    }
    locals
}

fn local(chance: &mut Chance) -> Local {
    let mut tags = Tags::new();
    if chance.percent(15) {
        tags.0.insert("failover_priority".into(), json!(1 + chance.below(3)));
    }
    if chance.percent(10) {
        tags.0.insert("sync_priority".into(), json!(1 + chance.below(3)));
    }
    if chance.percent(15) {
        tags.0.insert("clonefrom".into(), json!(true));
    }
    let can_rewind = chance.percent(80);
    let remove_on_rewind_failure = chance.percent(30);
    Local {
        tags,
        can_rewind,
        remove_on_divergence: !can_rewind || chance.percent(10),
        remove_on_rewind_failure,
        rewind_fails: remove_on_rewind_failure && chance.percent(50),
    }
}

/// The one who draws: faults and the operator.
struct Lot {
    chance: Chance,
    config: Value,
    is_paused: bool,
    /// Draws what happens to the DCS where failsafe mode is on.
    outages: Chance,
    /// Draws whether and how a vote is split at the end.
    votes: Chance,
    /// Draws what happens in every other world only: see its module.
    whims: Chance,
    is_disk_lost: bool,
}

impl Lot {
    async fn event(&mut self, world: &mut World) -> Outcome {
        // Something about the leader is more likely to matter.
        let leader = world.leader().filter(|_| self.chance.percent(40));
        let who = leader.unwrap_or_else(|| self.chance.index(world.len()));
        match self.chance.below(100) {
            0..45 => self.process(world, who),
            45..70 => self.network(world, who),
            _ => return self.operator(world, who).await,
        }
        Ok(())
    }

    fn process(&mut self, world: &mut World, who: usize) {
        let name = world.name(who);
        match self.chance.below(14) {
            0 | 1 => {
                world.say(format!("kill agent {name}"));
                world.kill_agent(who);
                if self.chance.percent(50) {
                    world.start_agent(who);
                }
            }
            2 | 3 => {
                world.say(format!("kill server {name}"));
                world.fleet.kill(who);
            }
            4 => {
                world.say(format!("kill agent and server {name}"));
                world.kill_agent(who);
                world.fleet.kill(who);
            }
            5 => {
                world.say(format!("power off {name}"));
                world.members[who].power_off();
            }
            6 => {
                world.say(format!("terminate agent {name}"));
                world.members[who].terminate();
            }
            7 | 8 => {
                world.say(format!("suspend agent {name}"));
                world.members[who].freeze_agent(true);
            }
            9 => {
                world.say(format!("suspend machine {name}"));
                world.members[who].freeze_machine(true);
            }
            10 => {
                world.say(format!("suspend server {name}"));
                let mut moving = world.fleet.moving();
                moving.servers[who].is_frozen = moving.servers[who].is_alive();
            }
            11 => self.trouble(world, who),
            _ => {
                world.say("everybody goes on");
                thaw(world);
                for who in 0..world.len() {
                    world.ensure_agent(who);
                }
            }
        }
    }

    /// What does not happen at once.
    fn trouble(&mut self, world: &mut World, who: usize) {
        let name = world.name(who);
        match self.chance.below(3) {
            0 => {
                let seconds = 1 + self.chance.below(40);
                world.say(format!("starts of {name} take {seconds} s"));
                world.fleet.moving().slow_start[who] = Duration::from_secs(seconds);
            }
            1 => {
                let times = 1 + u32::try_from(self.chance.below(3)).unwrap();
                world.say(format!("the next {times} starts of {name} fail"));
                world.fleet.moving().failing_starts[who] = times;
            }
            _ => {
                let off = self.chance.below(7_200_000).cast_signed() - 3_600_000;
                world.say(format!("the clock of {name} is set, {off} ms"));
                world.members[who].set_clock(off);
            }
        }
    }

    fn network(&mut self, world: &mut World, who: usize) {
        let name = world.name(who);
        let dcs = world.len();
        match self.chance.below(11) {
            0 | 1 => {
                world.say(format!("isolate {name}"));
                world.isolate(who, true);
            }
            2 | 3 => {
                world.say(format!("no DCS for {name}"));
                world.dcs_reachable(who, false);
            }
            4 => {
                world.say(format!("nothing gets from {name} to the DCS"));
                world.cut(who, dcs, true);
            }
            5 => {
                world.say(format!("nothing gets from the DCS to {name}"));
                world.cut(dcs, who, true);
            }
            6 => {
                let other = self.chance.index(world.len());
                world.say(format!("nothing gets from {name} to {}", world.name(other)));
                world.cut(who, other, true);
            }
            7 => {
                world.say("no DCS for anybody");
                for who in 0..world.len() {
                    world.dcs_reachable(who, false);
                }
            }
            8 => {
                let mut moving = world.fleet.moving();
                moving.delay_ms = [5, 50, 500, 3_000][self.chance.index(4)];
                moving.loss_percent = [0, 0, 5, 30][self.chance.index(4)];
                moving.lag_percent = [0, 20, 90, 99][self.chance.index(4)];
                let (delay, loss, lag) = (moving.delay_ms, moving.loss_percent, moving.lag_percent);
                drop(moving);
                world.say(format!("messages take up to {delay} ms, {loss}% get lost, standbys lag {lag}%"));
            }
            _ => {
                world.say("the network heals");
                heal(world);
            }
        }
    }

    async fn operator(&mut self, world: &mut World, who: usize) -> Outcome {
        match self.chance.below(10) {
            0..=3 => self.hand_over(world, who).await?,
            4 | 5 => {
                let pause = !self.is_paused && self.chance.percent(50);
                self.set_pause(world, pause).await?;
            }
            6 | 7 => {
                let mut config = self.config.clone();
                synchronous(&mut self.chance, &mut config);
                self.config = config;
                self.write_config(world);
            }
            8 => {
                world.say(format!("restart {}", world.name(who)));
                world.touch();
                ask(world, who, RequestKind::Restart(RestartRequest::default()));
            }
            _ => {
                world.say(format!("reinitialize {}", world.name(who)));
                world.touch();
                world.fleet.moving().reinit_asked[who] = true;
                ask(world, who, RequestKind::Reinitialize(ReinitRequest { force: true, from_leader: false }));
            }
        }
        Ok(())
    }

    async fn hand_over(&mut self, world: &mut World, who: usize) -> Outcome {
        if self.is_paused {
            // In maintenance mode nothing keeps a primary that is out of sight from going on beside the new one.
            self.everybody_hears(world).await?;
        }
        let Some(leader) = world.leader() else { return Ok(()) };
        let (leader, member) = (world.name(leader), world.name(who));
        let at = self.chance.below(20_000).cast_signed() - 2_000;
        let at = world.fleet.began.elapsed().as_millis().cast_signed() as i64 + at;
        let at = jiff::Timestamp::from_millisecond(1_800_000_000_000 + at).unwrap().to_string();
        let request = match self.chance.below(5) {
            0 => json!({"leader": leader}),
            1 => json!({"leader": leader, "member": member, "scheduled_at": at}),
            2 => json!({"member": member}),
            _ => json!({"leader": leader, "member": member}),
        };
        world.say(format!("hand over {request}"));
        world.hand_over(&request);
        Ok(())
    }

    fn write_config(&self, world: &mut World) {
        let mut config = self.config.clone();
        if self.is_paused {
            config["pause"] = json!(true);
        }
        world.say(format!("configure {config}"));
        world.configure(config);
    }

    /// Maintenance mode leaves servers to the operator: whoever begins or ends it must have every agent and the DCS in
    /// reach, or a primary that does not hear of it runs on beside an elected one.
    async fn set_pause(&mut self, world: &mut World, pause: bool) -> Outcome {
        if pause == self.is_paused {
            return Ok(());
        }
        self.everybody_hears(world).await?;
        self.is_paused = pause;
        self.write_config(world);
        if pause {
            self.everybody_hears(world).await?;
            world.say("maintenance mode");
            world.hold_to_pause();
        }
        Ok(())
    }

    async fn everybody_hears(&mut self, world: &mut World) -> Outcome {
        heal(world);
        thaw(world);
        for who in 0..world.len() {
            world.ensure_agent(who);
        }
        world.pass(Duration::from_secs(15)).await
    }

    /// The DCS is away for longer than a lease lives: stopped, hanging, or only out of the leader's sight.
    async fn outage(&mut self, world: &mut World) -> Outcome {
        let is_calm = self.outages.percent(50);
        if is_calm {
            self.everybody_hears(world).await?;
            // An agent that is started without the DCS knows nobody to ask.
            world.fleet.moving().interrupts.fill(None);
        }
        let ttl = self.config["ttl"].as_u64().unwrap();
        let time = Duration::from_millis(1_000 * ttl + self.outages.below(1_000 * ttl));
        // Judged is only what begins in good order: then nobody has a reason to refuse.
        let leader = world.leader();
        let judged = leader.filter(|_| is_calm && !self.is_paused && world.is_ready_for_failsafe());
        match (self.outages.below(3), leader) {
            (0, Some(leader)) => {
                world.say(format!("no DCS for {}, by lot of failsafe mode", world.name(leader)));
                world.dcs_reachable(leader, false);
            }
            (1, _) => {
                world.say("the DCS is stopped");
                world.fleet.moving().is_dcs_stopped = true;
            }
            _ => {
                world.say("the DCS hangs");
                (0..world.len()).for_each(|who| world.dcs_reachable(who, false));
            }
        }
        let Some(leader) = judged else { return world.pass(time).await };
        world.say(format!("{} must lead on for {time:?}", world.name(leader)));
        let (began, mut restart) = (Instant::now(), self.outages.percent(50));
        while began.elapsed() < time {
            world.pass(Duration::from_millis(100)).await?;
            let is_accepted = world.board(leader).is_some_and(|board| board.state().failsafe_since.is_some());
            if is_accepted && began.elapsed() > time / 2 && std::mem::take(&mut restart) {
                world.say(format!("the agent of {} is killed and started", world.name(leader)));
                world.kill_agent(leader);
                world.start_agent(leader);
            }
            if world.writable() != Some(leader) {
                return Err(world.failure("a primary that every member accepts does not lead on without the DCS"));
            }
        }
        self.forget(world, leader).await
    }

    /// Members that have just promised are restarted, and then cut off from whom they have promised to.
    async fn forget(&mut self, world: &mut World, leader: usize) -> Outcome {
        if self.outages.percent(50) {
            world.say(format!("all agents but the one of {} are killed and started", world.name(leader)));
            for who in (0..world.len()).filter(|who| *who != leader) {
                world.kill_agent(who);
                world.start_agent(who);
            }
            world.isolate(leader, true);
            world.fleet.moving().is_dcs_stopped = false;
            (0..world.len()).filter(|who| *who != leader).for_each(|who| world.dcs_reachable(who, true));
        } else if self.outages.percent(70) {
            world.say("the DCS is back");
            heal(world);
        }
        Ok(())
    }

    /// A synchronous standby has missed commits, and is alone with the DCS when the leader dies. In quorum mode it is
    /// one of those who may be elected; only the votes that it does not get keep it from leading. Comes after all else:
    /// it needs a world in good order, and by chance it hardly ever comes about.
    async fn lone_voter(&mut self, world: &mut World) -> Outcome {
        let voters = world.voters();
        let Some(leader) = world.leader().filter(|_| self.config["synchronous_mode"] == json!("quorum")) else {
            return Ok(());
        };
        if voters.len() < 2 {
            return Ok(());
        }
        let lone = voters[self.votes.index(voters.len())];
        world.say(format!("{} misses commits, then {} dies", world.name(lone), world.name(leader)));
        world.cut(leader, lone, true);
        world.pass(Duration::from_millis(300 + self.votes.below(4_000))).await?;
        for other in (0..world.len()).filter(|other| *other != lone) {
            world.cut(lone, other, true);
            world.cut(other, lone, true);
        }
        world.members[leader].power_off();
        let ttl = self.config["ttl"].as_u64().unwrap();
        world.pass(Duration::from_secs(ttl + 5)).await?;
        self.peace(world).await
    }

    async fn peace(&mut self, world: &mut World) -> Outcome {
        {
            let mut moving = world.fleet.moving();
            moving.slow_start.fill(Duration::ZERO);
            moving.failing_starts.fill(0);
            moving.slow_stop.fill(Duration::ZERO);
            moving.failing_pre_promotes.fill(0);
            moving.interrupts.fill(None);
            (moving.delay_ms, moving.loss_percent, moving.lag_percent) = (5, 0, 0);
        }
        for who in 0..world.len() {
            world.members[who].set_clock(0);
        }
        self.everybody_hears(world).await?;
        self.set_pause(world, false).await?;
        world.say("peace");
        let seconds = |name: &str| self.config[name].as_u64().unwrap();
        let bound = Duration::from_secs(2 * seconds("ttl") + 10 * seconds("loop_wait") + 30);
        let took = world.until("peace", bound, World::is_settled).await?;
        world.say(format!("settled after {took:?}"));
        if world.is_standby_cluster() {
            return world.receives().await;
        }
        let before = world.fleet.moving().acknowledged_ever;
        let acknowledges = |world: &World| world.fleet.moving().acknowledged_ever > before;
        world.until("a commit", Duration::from_secs(30), acknowledges).await?;
        world.nothing_lost()
    }
}

fn heal(world: &World) {
    for who in 0..world.len() {
        world.isolate(who, false);
    }
    let mut moving = world.fleet.moving();
    moving.is_dcs_stopped = false;
    (moving.delay_ms, moving.loss_percent) = (5, 0);
}

fn thaw(world: &mut World) {
    for member in &mut world.members {
        member.freeze_machine(false);
    }
    let mut moving = world.fleet.moving();
    moving.servers.iter_mut().for_each(|server| server.is_frozen = false);
    moving.hanging.fill(false);
}

/// A request to one agent's REST API. Nobody waits for the answer.
fn ask(world: &World, who: usize, request: RequestKind) {
    if let Some(board) = world.board(who) {
        tokio::spawn(async move { board.ask(request).await });
    }
}
