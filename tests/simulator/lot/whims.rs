//! What happens in some of the worlds only: settings and tags that change while everything runs, agents that die between
//! two steps of a decision, disks that are lost, scripts that say no, servers that will not stop.

use std::time::Duration;

use pgherd::cluster::{ReinitRequest, RestartRequest, ScheduledRestart};
use pgherd::ha::RequestKind;
use serde_json::{Map, Value, json};

use super::{Lot, ask};
use crate::fleet::Interrupt;
use crate::world::{Outcome, World};

impl Lot {
    pub(super) async fn whim(&mut self, world: &mut World) -> Outcome {
        let leader = world.leader().filter(|_| self.whims.percent(40));
        let who = leader.unwrap_or_else(|| self.whims.index(world.len()));
        match self.whims.below(20) {
            0..3 => self.settings(world),
            3..6 => self.tags(world, who),
            6 => self.disk(world, who),
            7..13 => self.interrupt(world, who),
            13 => {
                let seconds = 1 + self.whims.below(30);
                world.say(format!("stops of {} take {seconds} s", world.name(who)));
                world.fleet.moving().slow_stop[who] = Duration::from_secs(seconds);
            }
            14 => {
                let times = 1 + u32::try_from(self.whims.below(2)).unwrap();
                world.say(format!("the next {times} pre_promote of {} fail", world.name(who)));
                world.fleet.moving().failing_pre_promotes[who] = times;
            }
            15 => self.restart_later(world, who),
            _ => return self.reinitialize_voter(world).await,
        }
        Ok(())
    }

    /// An operator changes what all members count by, or how failsafe mode, timelines and crashes are handled.
    fn settings(&mut self, world: &mut World) {
        let whims = &mut self.whims;
        let config = &mut self.config;
        match whims.below(5) {
            0..3 => {
                let ttl = [6, 10, 20, 25, 30, 45][whims.index(6)];
                let retry_timeout = (1 + whims.below(6)).min(ttl / 3);
                let loop_wait = (1 + whims.below(10)).min(ttl - 2 * retry_timeout);
                config["ttl"] = json!(ttl);
                config["retry_timeout"] = json!(retry_timeout);
                config["loop_wait"] = json!(loop_wait);
            }
            3 => config["failsafe_mode"] = json!(whims.percent(60)),
            _ => {
                config["check_timeline"] = json!(whims.percent(50));
                config["primary_start_timeout"] = json!([0, 5, 300][whims.index(3)]);
                config["primary_race_backoff"] = json!(whims.below(2) * 5);
            }
        }
        self.write_config(world);
    }

    /// An operator edits a member's own tags and reloads it. Nobody who leads, or might have to, is barred: only the
    /// operator could help that cluster out.
    fn tags(&mut self, world: &mut World, who: usize) {
        let names = ["a", "b", "c", "d", "e"];
        let whims = &mut self.whims;
        let mut tags = world.fleet.moving().tags[who].clone();
        let mut set = |name: &str, value: Option<Value>| match value {
            Some(value) => drop(tags.0.insert(name.to_owned(), value)),
            None => drop(tags.0.shift_remove(name)),
        };
        let leads = world.leader() == Some(who) || world.is_sync_leader(who);
        match whims.below(5) {
            0 => {
                let others = (0..world.len()).filter(|other| *other != who);
                let is_free = others.clone().all(|other| !world.fleet.moving().tags[other].nofailover());
                let bars = whims.percent(60) && is_free && !leads && world.leader().is_some();
                set("nofailover", bars.then(|| json!(true)));
            }
            1 => set("nosync", whims.percent(50).then(|| json!(true))),
            2 => set("sync_priority", Some(json!(1 + whims.below(3)))),
            3 => set("failover_priority", Some(json!(1 + whims.below(3)))),
            _ => {
                let from = whims.index(world.len());
                set("replicatefrom", (from != who && whims.percent(60)).then(|| json!(names[from])));
            }
        }
        world.say(format!("tags of {}: {}", world.name(who), json!(tags)));
        world.fleet.tag(who, tags);
        if let Some(board) = world.board(who) {
            board.order_reload();
        }
    }

    /// Once in a world, and nobody's who leads: what was written there only is lost by right.
    fn disk(&mut self, world: &mut World, who: usize) {
        let is_led = world.leader().is_some_and(|leader| leader != who && world.writable() == Some(leader));
        if self.is_disk_lost || !is_led || world.is_sync_leader(who) {
            return;
        }
        self.is_disk_lost = true;
        world.say(format!("the disk of {} is lost", world.name(who)));
        if self.whims.percent(50) {
            world.kill_agent(who);
        }
        world.fleet.lose_disk(who);
    }

    /// An agent dies before one of its next deeds; often something gives it a reason for some.
    fn interrupt(&mut self, world: &mut World, who: usize) {
        let whims = &mut self.whims;
        let interrupt = Interrupt {
            deeds: whims.index(8),
            takes_server: whims.percent(25),
            back_after: Duration::from_millis(200 + whims.below(8_000)),
        };
        world.fleet.moving().interrupts[who] = Some(interrupt);
        world.say(format!("{} will die after {} deeds", world.name(who), interrupt.deeds));
        let leader = world.leader();
        match (whims.below(4), leader) {
            (0, Some(leader)) => {
                world.say(format!("kill server {}", world.name(leader)));
                world.fleet.kill(leader);
            }
            (1, Some(leader)) => {
                world.say(format!("terminate agent {}", world.name(leader)));
                world.members[leader].terminate();
            }
            (2, _) => {
                super::synchronous(whims, &mut self.config);
                self.write_config(world);
            }
            _ => {}
        }
    }

    fn restart_later(&mut self, world: &World, who: usize) {
        let at = world.fleet.began.elapsed().as_millis().cast_signed() as i64 + self.whims.below(20_000).cast_signed();
        let at_ms = 1_800_000_000_000 + at;
        let schedule = jiff::Timestamp::from_millisecond(at_ms).unwrap().to_string();
        world.say(format!("restart {} at {schedule}", world.name(who)));
        world.touch();
        let restart = ScheduledRestart {
            at_ms,
            schedule,
            request: RestartRequest::default(),
            postmaster_start_time: None,
            published: Map::new(),
        };
        ask(world, who, RequestKind::ScheduleRestart(restart));
    }

    /// A standby that may be elected is to be cloned anew, and about then something happens to the leader.
    async fn reinitialize_voter(&mut self, world: &mut World) -> Outcome {
        let (voters, Some(leader)) = (world.voters(), world.leader()) else { return Ok(()) };
        if voters.is_empty() {
            return Ok(());
        }
        let voter = voters[self.whims.index(voters.len())];
        let blow = self.whims.below(3);
        if blow == 0 {
            world.say(format!("power off {}", world.name(leader)));
            world.members[leader].power_off();
        }
        world.pass(Duration::from_millis(20 + self.whims.below(3_000))).await?;
        world.say(format!("reinitialize {}, which may be elected", world.name(voter)));
        world.touch();
        world.fleet.moving().reinit_asked[voter] = true;
        ask(world, voter, RequestKind::Reinitialize(ReinitRequest { force: true, from_leader: false }));
        if blow == 1 {
            world.pass(Duration::from_millis(20 + self.whims.below(3_000))).await?;
            world.say(format!("power off {}", world.name(leader)));
            world.members[leader].power_off();
        }
        Ok(())
    }
}
