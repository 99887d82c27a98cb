//! Failsafe mode: a primary that cannot reach the DCS leads on as long as every member that could take over promises
//! that it will not; and what such a promise means for the member that gave it.
//!
//! A promise holds for one `ttl`. For so long the primary that it was given to stands in for the leader that the DCS
//! does not know: this member follows it, so that a synchronous primary keeps its standby, moves its slots as that
//! primary says, and does not race. It stands in for nothing else: no lock is ever thought to be held because of it.

use crate::cluster::{ClusterView, FollowChange, LeaderKey, Member, MemberName};

use super::context::{Context, Flow};
use super::decision::Step;
use super::observation::{FailsafeLeader, Observation, Snapshot};
use super::reason::Line;
use super::rules::holding_lock::{Asked, may_lead_by_watchdog};
use super::slots;

/// A primary without the DCS leads on as long as every member that could take over says that it will not. `None`: it
/// must stop.
pub(super) fn lead_on(cx: &mut Context<'_>) -> Option<Flow> {
    if !cx.settings().failsafe_mode || !cx.seen.failsafe.contains_key(cx.me()) {
        return None;
    }
    let Some(answers) = cx.done().failsafe.clone() else {
        let others = cx.seen.failsafe.iter().filter(|(name, _)| *name != cx.me());
        let others = others.map(|(name, api_url)| (name.clone(), api_url.clone())).collect();
        cx.step(Step::AskFailsafe(others));
        return Flow::ask("the members whether we may lead on");
    };
    let mut refusals = answers.iter().filter_map(|(name, why)| Some((name, why.as_ref()?))).peekable();
    if refusals.peek().is_some() {
        for (name, why) in refusals {
            cx.warn(format!("failsafe mode: {name} does not accept us as the leader: {why}"));
        }
        return None;
    }
    // One that was armed by an agent before us counts on.
    match may_lead_by_watchdog(cx) {
        Some(Asked::Pending) => return Flow::ask("the watchdog to be armed"),
        Some(Asked::Refused) => {
            cx.warn("failsafe mode: the watchdog is required and could not be armed");
            return None;
        }
        None => {}
    }
    cx.step(Step::LeadByFailsafe);
    move_cascading(cx);
    Flow::end(Line::ContinueInFailsafe)
}

/// Members that stream from another one say where they are when they accept us; what is kept here for them follows.
fn move_cascading(cx: &mut Context<'_>) {
    let positions = &cx.done().failsafe_positions;
    let cascades = |name: &MemberName| {
        let known = cx.memory.known_members.get(name);
        known.is_some_and(|member| member.tags().replicatefrom().is_some_and(|from| *cx.me() != from))
    };
    let told = positions.iter().filter(|(name, _)| cascades(name)).map(|(name, at)| (name.slot_name(), *at)).collect();
    slots::move_physical(cx, &told);
}

/// The primary without DCS that we have told that it may lead on, while that counts. A primary promises nothing.
pub(super) fn promised<'a>(cx: &Context<'a>) -> Option<&'a FailsafeLeader> {
    let leader = cx.seen.failsafe_ping.as_ref()?;
    (leader.is_promised(cx.seen) && !cx.is_primary() && leader.name != *cx.me()).then_some(leader)
}

/// Nobody tells us when what we have promised is over, and that somebody else may have to lead then.
pub(super) fn wake_at_the_end(cx: &mut Context<'_>) {
    if let Some(leader) = promised(cx) {
        cx.wake_within(leader.promised_ms(cx.seen));
    }
}

/// This moment with the primary that we have promised to in the place of the leader, if the DCS knows of none. Once we
/// have gone for the key ourselves, what then is to be done is the race's business.
pub(super) fn stand_in(cx: &Context<'_>) -> Option<Observation> {
    let leader = promised(cx).filter(|_| !cx.in_standby_cluster() && cx.done().acquire.is_none())?;
    let mut view: ClusterView = cx.view().filter(|view| view.is_unlocked())?.clone();
    view.leader = Some(LeaderKey { name: leader.name.clone(), version: Default::default(), session: None });
    if let Some(slots) = &leader.slots {
        for member in view.members.iter_mut().filter(|member| member.tags().replicatefrom().is_some()) {
            if let Some(position) = slots.get(member.name.as_str()) {
                member.data.insert("xlog_location".into(), position.0.into());
            }
        }
        view.status.slots = Some(slots.clone());
    }
    let mut member = as_member(leader);
    if let Some(tags) = view.member(&leader.name).and_then(|known| known.data.get("tags").cloned()) {
        member.data.insert("tags".into(), tags);
    }
    view.members.retain(|known| known.name != leader.name);
    view.members.push(member);
    view.members.sort_by(|a, b| a.name.cmp(&b.name));
    Some(Observation { view: Snapshot::Read(Box::new(view)), ..cx.seen.clone() })
}

/// Without role and timeline: what it published before it was cut off says nothing of now.
fn as_member(leader: &FailsafeLeader) -> Member {
    let mut member = Member::unknown(leader.name.clone());
    member.data.insert("conn_url".into(), leader.conn_url.clone().into());
    member.data.insert("api_url".into(), leader.api_url.clone().into());
    member
}

/// A standby that cannot reach the DCS either: it follows whom it has promised to, if it follows nobody, and moves its
/// slots. Nothing is created, dropped or restarted. `None`: there is nothing to ask for that.
pub(super) fn stand_by(cx: &mut Context<'_>) -> Option<Flow> {
    let leader = promised(cx).filter(|_| !cx.is_paused() && !cx.in_standby_cluster())?;
    let is_settled = cx.seen.task.is_none() && cx.memory.bootstrap.is_none() && cx.memory.demotion.is_none();
    if !is_settled || !cx.is_alive() || !cx.instance().accepts_connections {
        return None;
    }
    // A history that is still to be compared with the leader's keeps nobody from saying how much WAL is needed here, but
    // from everything else.
    let is_open = cx.memory.rewind.is_open();
    if !is_open && let Some(flow) = follow(cx, leader) {
        return Some(flow);
    }
    if let Some(told) = &leader.slots {
        let source = cx.member_upstream(&as_member(leader)).filter(|_| !is_open);
        slots::advance(cx, told, source);
    }
    None
}

/// Who streams is left alone, and so is who was told by the DCS to follow somebody else.
fn follow(cx: &mut Context<'_>, leader: &FailsafeLeader) -> Option<Flow> {
    let tags = &cx.seen.node.tags;
    let streams = cx.monitor().is_none_or(|monitor| monitor.replication_state() == Some("streaming"));
    let has_another = cx.memory.former_leader.as_ref().is_some_and(|former| *former != leader.name);
    if streams || has_another || tags.nostream() || tags.replicatefrom().is_some() {
        return None;
    }
    let upstream = cx.member_upstream(&as_member(leader))?;
    let Some(change) = cx.done().follow else {
        cx.step(Step::CompareFollow(Some(upstream)));
        return Flow::ask("the server what it follows");
    };
    if change == FollowChange::Reload {
        cx.info(format!("following {}, which leads in failsafe mode", leader.name));
        cx.mark_check();
        cx.step(Step::Follow(Some(upstream)));
    }
    None
}
