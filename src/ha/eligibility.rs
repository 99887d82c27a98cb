//! Who may lead, and for everyone else why not.
//!
//! Nobody is chosen here: every member answers only for itself, several may find themselves fit at once, and the
//! create-only leader key decides between them.

use std::collections::BTreeMap;

use crate::cluster::{FailoverKey, Lsn, Member, MemberName, PeerAnswer, Role, SystemId};

use super::context::Context;
use super::decision::Step;
use super::failsafe;
use super::observation::Watchdog;

/// Whether this node goes for the leader key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Race {
    /// It does.
    Run,
    /// It stands back.
    StandBack,
    /// The peers have to be asked first; the step is ordered.
    Asking,
}

impl From<bool> for Race {
    fn from(run: bool) -> Self {
        if run { Self::Run } else { Self::StandBack }
    }
}

/// The cluster has no leader: do we go for the key?
pub(super) fn race(cx: &mut Context<'_>) -> Race {
    let Some(view) = cx.view() else { return Race::StandBack };
    let ttl_ms = u64::try_from(cx.settings().ttl.as_millis()).unwrap_or(u64::MAX);
    let since_refusal = cx.memory.pre_promote_failed_ms.map(|at| cx.now().saturating_sub(at));
    if let Some(since) = since_refusal.filter(|since| *since < ttl_ms) {
        cx.wake_within(ttl_ms - since);
        cx.info("backoff: skip leader race after pre_promote script failure and releasing the lock voluntarily");
        return Race::StandBack;
    }
    let request = view.failover_request().cloned();
    let nofailover = cx.seen.node.tags.nofailover();
    if cx.is_paused()
        && !nofailover
        && let Some(request) = request.as_ref().filter(|request| request.scheduled_at.is_none())
    {
        match without_leader(cx, request) {
            // A request that was taken back settles nothing, and one without a candidate is none in maintenance mode.
            None => {}
            Some(Race::StandBack) if request.candidate.is_none() => {}
            Some(decided) => return decided,
        }
    }
    if cx.is_starting() || is_barred_by_failsafe(cx) {
        return Race::StandBack;
    }
    if cx.is_primary() {
        return running_primary(cx, view.system_id()).into();
    }
    if cx.is_paused() || nofailover {
        return Race::StandBack;
    }
    if let Some(decided) = forgotten_promise(cx) {
        return decided;
    }
    if let Some(request) = &request {
        if request.is_switchover() && is_outside_sync(cx) {
            return Race::StandBack;
        }
        return without_leader(cx, request).unwrap_or(Race::StandBack);
    }
    if cx.seen.watchdog == Watchdog::Unusable {
        cx.warn("Watchdog device is not usable");
        return Race::StandBack;
    }
    let mut members = cx.memory.known_members.clone();
    if !cx.is_quorum_active() && is_outside_sync(cx) {
        cx.info("not racing: this node is not a synchronous standby and may lack acknowledged commits");
        return Race::StandBack;
    }
    if cx.is_sync_active() {
        members.retain(|name, _| view.sync.matches(name));
    }
    compare(cx, &members, true, false)
}

/// In failsafe mode a primary without DCS that can reach us goes on leading, whatever the DCS says; and a member the
/// last leader did not count must not race.
fn is_barred_by_failsafe(cx: &mut Context<'_>) -> bool {
    if has_promised(cx) {
        return true;
    }
    if !cx.settings().failsafe_mode {
        return false;
    }
    let uncounted = is_uncounted(cx, cx.me());
    if uncounted {
        cx.info("not racing: the last leader did not count this node among the members (failsafe mode)");
    }
    uncounted
}

/// It may have asked while we took the key.
pub(super) fn has_promised(cx: &mut Context<'_>) -> bool {
    let Some(leader) = failsafe::promised(cx) else { return false };
    cx.info(format!("not racing: {} leads in failsafe mode", leader.name));
    failsafe::wake_at_the_end(cx);
    true
}

/// An agent that was started less than a ttl ago does not know what the one before it has promised. It races only if
/// every member that the last leader counted is seen to be no primary. `None`: nothing can have been forgotten.
fn forgotten_promise(cx: &mut Context<'_>) -> Option<Race> {
    let ttl_ms = u64::try_from(cx.settings().ttl.as_millis()).unwrap_or(u64::MAX);
    let left_ms = ttl_ms.saturating_sub(cx.now());
    // Also when failsafe mode has just been switched off: who leads without the DCS has not heard of it.
    let counted = listed(cx)?;
    let me = cx.me();
    if left_ms == 0 || counted.keys().all(|name| name == me) {
        return None;
    }
    let view = cx.view()?;
    let Some(answers) = ask_everybody(cx) else { return Some(Race::Asking) };
    let may_lead = |name: &&MemberName| {
        // Whoever has been demoted said so itself, in the DCS that a leader by promises cannot reach.
        let has_stepped_down = view.member(name).is_some_and(|member| member.role() == Some(Role::Demoted));
        let is_standby = matches!(answers.get(*name), Some(PeerAnswer::Answered { in_recovery: true, .. }));
        *name != me && !is_standby && !has_stepped_down
    };
    let other = counted.keys().find(may_lead)?;
    cx.info(format!(
        "not racing yet: before its start this node may have promised {other}, which is not seen to be a standby, that \
         it may lead on (failsafe mode)"
    ));
    cx.wake_within(left_ms);
    Some(Race::StandBack)
}

/// Barred from the race itself, so it cannot hold up anybody else.
fn is_uncounted(cx: &Context<'_>, name: &MemberName) -> bool {
    counted(cx).is_some_and(|counted| !counted.is_empty() && !counted.contains_key(name))
}

/// The members that the last leader counted; nobody when failsafe mode is off.
fn counted<'a>(cx: &Context<'a>) -> Option<&'a BTreeMap<MemberName, String>> {
    listed(cx).filter(|_| cx.settings().failsafe_mode)
}

/// The same, whatever the mode is. A leader empties the list when failsafe mode is off.
fn listed<'a>(cx: &Context<'a>) -> Option<&'a BTreeMap<MemberName, String>> {
    cx.view()?.failsafe.as_ref()
}

/// A primary that runs in an unlocked cluster just takes the key, unless the cluster has moved on without it.
fn running_primary(cx: &mut Context<'_>, cluster_id: Option<SystemId>) -> bool {
    if cx.is_paused() {
        return cluster_id.is_none() || cluster_id == cx.instance().system_id;
    }
    let cluster = cx.view().and_then(|view| view.timeline());
    let own = cx.monitor().and_then(|monitor| monitor.timeline);
    if let (Some(own), Some(cluster)) = (own, cluster)
        && own < cluster
    {
        cx.warn(format!("My timeline {own} is behind last known cluster timeline {cluster}"));
        return false;
    }
    // Somebody was promoted meanwhile, and may be gone again before it could write its timeline down.
    if is_outside_sync(cx) {
        cx.warn("not leading on: /sync names others, so this primary may lack acknowledged commits");
        return false;
    }
    true
}

/// Commits may have been acknowledged without this node.
pub(super) fn is_outside_sync(cx: &Context<'_>) -> bool {
    cx.is_sync_active() && cx.view().is_some_and(|view| !view.sync.matches(cx.me()))
}

/// A switchover or manual failover was asked for and the leader is gone. `None`: the request does not settle it.
fn without_leader(cx: &mut Context<'_>, request: &FailoverKey) -> Option<Race> {
    let view = cx.view()?;
    let me = cx.me();
    let action = action_name(Some(request));
    let candidate = request.candidate.clone().filter(|name| !name.is_empty());
    if candidate.as_ref() == Some(me) {
        // Any synchronous standby has every acknowledged commit, but in quorum mode only one that others vote for.
        return Some(if is_bound_by_quorum(cx, request) { compare(cx, &voters(cx), false, true) } else { Race::Run });
    }
    if let Some(candidate) = &candidate {
        if cx.is_paused() {
            if view.member(candidate).is_none() && cx.is_primary() {
                cx.warn(format!("{action}: removing failover key because failover candidate is not running"));
                cx.step(Step::BlankFailover(Some(request.version)));
                return None;
            }
            return Some(Race::StandBack);
        }
        if !cx.is_quorum_active() && is_outside_sync(cx) {
            return Some(Race::StandBack);
        }
        if view.member(candidate).is_some() {
            let Some(answers) = ask_everybody(cx) else { return Some(Race::Asking) };
            // A switchover goes to synchronous standbys only; a candidate that is none would wait for us, as we for it.
            let outside = request.is_switchover() && cx.is_sync_active() && !view.sync.matches(candidate);
            let answer = answers.get(candidate);
            let why = match outside {
                true => Some("not a synchronous standby"),
                // It bars itself.
                false if is_uncounted(cx, candidate) => Some("not counted by the last leader (failsafe mode)"),
                // Votes are lost to whoever is ahead: waiting for this one would be waiting for ever.
                false if is_bound_by_quorum(cx, request) && is_behind(cx, answer) => Some("behind this node"),
                false => limitation(answer),
            };
            match why {
                None => {
                    cx.info(format!("{action}: to {candidate}, i am {me}"));
                    return Some(Race::StandBack);
                }
                Some(why) => cx.warn(format!("{action}: member {candidate} is {why}")),
            }
        }
    }
    if cx.is_paused() {
        return Some(Race::StandBack);
    }
    if request.leader.as_ref() == Some(me) {
        return Some(match failover_possible(cx, None, true) {
            None => Race::Asking,
            Some(possible) => (!possible).into(),
        });
    }
    let mut members = cx.memory.known_members.clone();
    members.retain(|name, _| Some(name) != request.leader.as_ref());
    if cx.is_sync_active() {
        members.retain(|name, _| view.sync.is_voter(name));
    }
    Some(compare(cx, &members, false, false))
}

/// A switchover in quorum mode keeps to the votes. A manual failover does not: whoever asks for it gets it.
fn is_bound_by_quorum(cx: &Context<'_>, request: &FailoverKey) -> bool {
    request.is_switchover() && cx.is_quorum_active()
}

/// The known members that `/sync` names.
fn voters(cx: &Context<'_>) -> BTreeMap<MemberName, Member> {
    let mut members = cx.memory.known_members.clone();
    members.retain(|name, _| cx.view().is_some_and(|view| view.sync.matches(name)));
    members
}

/// On an earlier timeline, or less far on the same: further in numbers is nobody whose timeline has been left.
fn is_behind(cx: &Context<'_>, answer: Option<&PeerAnswer>) -> bool {
    let (Some(PeerAnswer::Answered { position, timeline, .. }), Some(own)) = (answer, cx.position()) else {
        return false;
    };
    match (*timeline, cx.monitor().and_then(|monitor| monitor.timeline)) {
        (Some(theirs), Some(ours)) if theirs != ours => theirs < ours,
        _ => *position < own,
    }
}

/// Compares our own position with the peers'. Unreachable peers stop nobody, and priorities stop nobody who was named
/// by an operator.
fn compare(cx: &mut Context<'_>, members: &BTreeMap<MemberName, Member>, check_lag: bool, is_named: bool) -> Race {
    let Some(view) = cx.view() else { return Race::StandBack };
    let Some(own) = cx.position() else {
        cx.info("not racing: the local server did not tell its WAL position");
        return Race::StandBack;
    };
    let limit = cx.settings().maximum_lag_on_failover_bytes;
    if check_lag && view.last_lsn().bytes_since(own) > limit {
        cx.info("My wal position exceeds maximum replication lag");
        return Race::StandBack;
    }
    if !is_timeline_current(cx) {
        return Race::StandBack;
    }
    let me = cx.me().clone();
    if members.keys().any(|name| *name != me) && cx.done().peers.is_none() {
        let _ = ask_everybody(cx);
        return Race::Asking;
    }
    let none = BTreeMap::new();
    let answers = cx.done().peers.as_ref().unwrap_or(&none);
    let quorum = cx.is_quorum_active();
    let votes_at_start = if quorum && view.sync.matches(&me) { 0 } else { -1 };
    let mut tally = Tally { own, votes: votes_at_start, ahead: 0, lost: false, is_named };
    for name in members.keys().filter(|name| **name != me) {
        let in_voting_set = quorum && view.sync.matches(name);
        let by_key = cx.memory.known_members.get(name).is_some_and(|member| member.tags().nofailover());
        if by_key && !in_voting_set {
            cx.pass_over(name, "nofailover");
            continue;
        }
        weigh(cx, name, answers.get(name), in_voting_set, &mut tally);
    }
    if tally.lost {
        return Race::StandBack;
    }
    cx.consider(&me);
    if !quorum {
        return Race::Run;
    }
    let enough = tally.votes >= i64::from(view.sync.quorum);
    (enough || (tally.ahead == 0 && view.sync.is_leader(&me))).into()
}

struct Tally {
    own: Lsn,
    votes: i64,
    ahead: u32,
    lost: bool,
    /// An operator has named us.
    is_named: bool,
}

fn weigh(cx: &mut Context<'_>, name: &MemberName, answer: Option<&PeerAnswer>, votes: bool, tally: &mut Tally) {
    if let Some(why) = limitation(answer) {
        return cx.pass_over(name, why);
    }
    let Some(PeerAnswer::Answered { in_recovery, position, timeline, tags, .. }) = answer else { return };
    if !in_recovery {
        cx.warn(format!("Primary ({name}) is still alive"));
        tally.lost = true;
        return cx.pass_over(name, "is a running primary");
    }
    if !votes && is_uncounted(cx, name) {
        return cx.pass_over(name, "not counted by the last leader (failsafe mode)");
    }
    // Whoever has led on after its standbys were promoted may be further in numbers than they are, and lacks what they
    // have acknowledged since: no voter on a later timeline is behind.
    let own_timeline = cx.monitor().and_then(|monitor| monitor.timeline);
    let is_later = votes && matches!((timeline, own_timeline), (Some(theirs), Some(own)) if *theirs > own);
    // The other way round it has nothing that we lack, or both would wait for each other for ever.
    let is_among_voters = votes && cx.view().is_some_and(|view| view.sync.matches(cx.me()));
    let is_earlier = is_among_voters && matches!((timeline, own_timeline), (Some(theirs), Some(own)) if *theirs < own);
    if is_later || (*position > tally.own && !is_earlier) {
        tally.ahead += 1;
        cx.info(match is_later {
            true => format!("{name} is on a later timeline"),
            false => format!("Wal position of {name} is ahead of my wal position"),
        });
        if cx.is_sync_active() && cx.view().is_some_and(|view| view.sync.is_leader(name)) {
            cx.info("Ignoring the former leader being ahead of us");
        } else {
            tally.lost = true;
            cx.consider(name);
        }
        return;
    }
    if *position == Lsn::ZERO {
        return cx.pass_over(name, "has no WAL position");
    }
    let (mine, theirs) = (cx.seen.node.tags.failover_priority(), tags.failover_priority());
    let mut lower = *position == tally.own && !is_earlier && mine < theirs && !tally.is_named;
    if lower && is_former_leader(cx, name) {
        cx.info(format!(
            "Ignoring former leader {name} having priority {theirs} higher than this nodes {mine} priority"
        ));
        lower = false;
    }
    if lower && (!cx.is_quorum_active() || votes) {
        cx.info(format!(
            "{name} has equally tolerable WAL position and priority {theirs}, while this node has priority {mine}"
        ));
        tally.lost = true;
        return cx.consider(name);
    }
    if votes {
        cx.info(format!("Got quorum vote from {name}"));
        tally.votes += 1;
    }
    cx.pass_over(name, "not ahead of this node");
}

fn is_former_leader(cx: &Context<'_>, name: &MemberName) -> bool {
    if cx.is_sync_active() {
        return cx.view().is_some_and(|view| view.sync.is_leader(name));
    }
    cx.memory.former_leader.as_ref() == Some(name)
}

fn is_timeline_current(cx: &mut Context<'_>) -> bool {
    if !cx.settings().check_timeline || cx.in_standby_cluster() {
        return true;
    }
    let Some(cluster) = cx.view().and_then(|view| view.timeline()) else { return true };
    match cx.monitor().and_then(|monitor| monitor.timeline) {
        None => {
            cx.info("Can not figure out my timeline");
            false
        }
        Some(own) if own < cluster => {
            cx.info(format!("My timeline {own} is behind last known cluster timeline {cluster}"));
            false
        }
        Some(_) => true,
    }
}

/// Could anybody take over from us? `None`: the peers have to be asked first. With `position` candidates must have
/// received it; without, the ordinary lag limit counts.
pub(super) fn failover_possible(cx: &mut Context<'_>, position: Option<Lsn>, exclude_candidate: bool) -> Option<bool> {
    let view = cx.view()?;
    let request = view.failover_request().cloned();
    let named = request.as_ref().and_then(|request| request.candidate.clone()).filter(|name| !name.is_empty());
    let action = action_name(request.as_ref());
    let candidates = candidates(cx, request.as_ref(), named.as_ref(), exclude_candidate);
    if candidates.is_empty() {
        cx.warn(format!("{action}: candidates list is empty"));
        return Some(false);
    }
    let answers = ask_everybody(cx)?;
    let mut good = -1_i64;
    for name in candidates {
        if let Some(why) = unfit(cx, &name, answers.get(&name), position) {
            cx.info(why.clone());
            cx.pass_over(&name, why);
        } else {
            cx.consider(&name);
            good += 1;
        }
    }
    let counts = cx.is_quorum_active() && (named.is_none() || exclude_candidate);
    if counts && good < i64::from(view.sync.quorum) {
        cx.info(format!("Quorum requirement {} can not be reached", view.sync.quorum));
        return Some(false);
    }
    Some(good >= 0)
}

fn candidates(
    cx: &mut Context<'_>,
    request: Option<&FailoverKey>,
    named: Option<&MemberName>,
    exclude_named: bool,
) -> Vec<MemberName> {
    let Some(view) = cx.view() else { return Vec::new() };
    let only_sync = cx.is_sync_active() && request.is_none_or(|request| request.is_switchover());
    let mut fit = Vec::new();
    let me = cx.me();
    for member in view.members.iter().filter(|member| member.name != *me) {
        let named_here = named == Some(&member.name);
        let why = if member.api_url().is_none() {
            Some("has no REST address")
        } else if member.tags().nofailover() {
            Some("nofailover")
        } else if only_sync && !view.sync.is_voter(&member.name) {
            Some("not a synchronous standby")
        } else if named.is_some() && named_here == exclude_named {
            Some("not the candidate asked for")
        } else if view.is_unlocked() && is_uncounted(cx, &member.name) {
            // It bars itself, and we would wait for it for ever. A leader counts everybody anew.
            Some("not counted by the last leader (failsafe mode)")
        } else {
            None
        };
        match why {
            Some(why) => cx.pass_over(&member.name, why),
            None => fit.push(member.name.clone()),
        }
    }
    fit
}

/// Why this member cannot take over now; a sentence for the log.
fn unfit(cx: &Context<'_>, name: &MemberName, answer: Option<&PeerAnswer>, wanted: Option<Lsn>) -> Option<String> {
    if let Some(why) = limitation(answer) {
        return Some(format!("Member {name} is {why}"));
    }
    let Some(PeerAnswer::Answered { position, timeline, .. }) = answer else { return None };
    let lags = match wanted {
        Some(lsn) => *position < lsn,
        None => {
            let last = cx.view().map(|view| view.last_lsn()).unwrap_or_default();
            last.bytes_since(*position) > cx.settings().maximum_lag_on_failover_bytes
        }
    };
    if lags {
        return Some(format!("Member {name} exceeds maximum replication lag"));
    }
    if cx.settings().check_timeline && !cx.in_standby_cluster() {
        let cluster = cx.view().and_then(|view| view.timeline())?;
        if timeline.is_none_or(|theirs| theirs < cluster) {
            let theirs = timeline.map_or_else(|| "unknown".to_owned(), |t| t.to_string());
            return Some(format!("Timeline {theirs} of member {name} is behind the cluster timeline {cluster}"));
        }
    }
    None
}

/// Why a member cannot lead whatever its position is.
fn limitation(answer: Option<&PeerAnswer>) -> Option<&'static str> {
    match answer {
        None | Some(PeerAnswer::Unreachable(_)) => Some("not reachable"),
        Some(PeerAnswer::Answered { tags, .. }) if tags.nofailover() => Some("not allowed to promote"),
        Some(PeerAnswer::Answered { watchdog_failed: true, .. }) => Some("not watchdog capable"),
        Some(PeerAnswer::Answered { .. }) => None,
    }
}

/// One round of questions serves every comparison of a cycle, so everybody is asked.
fn ask_everybody<'a>(cx: &mut Context<'a>) -> Option<&'a BTreeMap<MemberName, PeerAnswer>> {
    let me = cx.me().clone();
    let peers = cx.memory.known_members.values().filter(|member| member.name != me);
    // Whoever was counted may lead without the DCS, where its own key has expired.
    let mut addresses = listed(cx).cloned().unwrap_or_default();
    addresses.extend(peers.filter_map(|member| Some((member.name.clone(), member.api_url()?.to_owned()))));
    addresses.remove(&me);
    cx.ask(addresses)
}

/// What a request is called in the log.
pub(super) fn action_name(request: Option<&FailoverKey>) -> &'static str {
    match request {
        None => "failover",
        Some(request) if request.is_switchover() => "switchover",
        Some(_) => "manual failover",
    }
}
