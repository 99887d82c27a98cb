//! Synchronous replication as the primary keeps it: `/sync` says who may be elected, `synchronous_standby_names` whom
//! commits wait for. A name may stand in `/sync` only while the server really waits for it: adding goes to the server
//! first and to `/sync` when the server confirms it; removing goes to `/sync` first.
//!
//! Every pass makes at most one change of one store and looks again; a crash between any two changes is safe.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::{ClusterView, Lsn, Member, MemberName, SyncState, WalSender};
use crate::config::SynchronousMode;

use super::context::{Context, Flow};
use super::decision::Step;
use super::memory::Wait;
use super::quorum::{self, Names, Transition};
use super::waits;

/// What stands in `synchronous_standby_names` when commits must block because nobody can acknowledge them.
pub const PLACEHOLDER: &str = "__patroni_strict_sync_replica_placeholder__";

/// How long a changed `synchronous_standby_names` is given to reach every process of the server before `/sync` relies
/// on it. The processes take a reload over one by one, and the view that shows a standby as synchronous does so by the
/// asking session's own settings: until the checkpointer and the WAL senders have them, a commit may still be
/// acknowledged by the old rule.
const SETTLE_MS: u64 = 2_000;

/// How long a standby that commits wait for is missed before they do without it.
const MISSING_MS: u64 = 1_000;

/// `synchronous_standby_names`, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StandbyNames {
    /// `ANY` rather than `FIRST` or a plain list.
    pub is_quorum: bool,
    /// How many must acknowledge; 0 when off.
    pub number: usize,
    /// Who, in lower case, without the placeholder.
    pub names: Names,
    /// The placeholder (or `*`) stands in it: commits wait for somebody who is not there.
    pub blocks: bool,
}

impl StandbyNames {
    /// Reads the setting. What PostgreSQL would refuse counts as off.
    pub fn parse(text: &str) -> Self {
        let text = text.trim();
        let (is_quorum, number, list) = match text.find('(') {
            None => (false, 1, text),
            Some(at) => {
                let head = text[..at].trim();
                let list = text[at + 1..].trim_end().trim_end_matches(')');
                let (method, number) = match head.split_once(char::is_whitespace) {
                    Some((method, number)) => (method.to_uppercase(), number.trim()),
                    None => ("FIRST".to_owned(), head),
                };
                let Ok(number) = number.parse() else { return Self::default() };
                (method == "ANY", number, list)
            }
        };
        let mut names = Names::new();
        let mut blocks = false;
        for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let name = item.trim_matches('"').replace("\"\"", "\"").to_lowercase();
            if name == PLACEHOLDER || name == "*" {
                blocks = true;
            } else {
                names.insert(name);
            }
        }
        if names.is_empty() && !blocks {
            return Self::default();
        }
        Self { is_quorum, number, names, blocks }
    }

    /// Writes the setting; `None`: remove it.
    pub fn write(&self) -> Option<String> {
        let quoted: Vec<String> = self.names.iter().map(|name| quote(name)).collect();
        let any = if self.is_quorum { "ANY " } else { "" };
        match (quoted.as_slice(), self.number) {
            ([], 0) => None,
            ([], number) if self.is_quorum => Some(format!("ANY {number} ({PLACEHOLDER})")),
            ([], _) => Some(PLACEHOLDER.to_owned()),
            ([one], 1) if !self.is_quorum => Some(one.clone()),
            (list, number) => Some(format!("{any}{number} ({})", list.join(","))),
        }
    }
}

fn quote(name: &str) -> String {
    let mut chars = name.chars();
    let plain = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$')
        && !matches!(name, "first" | "any");
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// A standby that could be synchronous.
struct Candidate {
    name: MemberName,
    sync_state: String,
    lsn: Lsn,
    priority: i64,
    nofailover: bool,
}

/// One pass on the primary that holds the lock. `Some`: outcomes are needed, or a change was just made.
pub(super) fn pass(cx: &mut Context<'_>) -> Option<Flow> {
    if cx.done().sync_conflict {
        cx.info("Synchronous replication key updated by someone else.");
        return None;
    }
    if cx.is_sync_mode() {
        return if cx.view()?.sync.is_empty() { enable(cx) } else { keep(cx) };
    }
    disable(cx)
}

fn enable(cx: &mut Context<'_>) -> Option<Flow> {
    cx.info("Enabled synchronous replication");
    write(cx, SyncState { leader: Some(cx.me().clone()), ..SyncState::default() })
}

fn disable(cx: &mut Context<'_>) -> Option<Flow> {
    let view = cx.view()?;
    if !view.sync.is_empty() && !cx.in_standby_cluster() {
        cx.step(Step::DeleteSync(view.sync.version));
        cx.memory.is_sync_released = false;
        return Flow::ask("the DCS to forget the synchronous standbys");
    }
    if !cx.memory.is_sync_released {
        cx.memory.is_sync_released = true;
        cx.step(Step::SetSyncNames(None));
    }
    None
}

/// Writes `/sync` against the version that was read.
fn write(cx: &mut Context<'_>, state: SyncState) -> Option<Flow> {
    let expected = cx.view()?.sync.version;
    cx.step(Step::WriteSync { state, expected });
    Flow::ask("the DCS to note the synchronous standbys")
}

fn set_names(cx: &mut Context<'_>, wanted: &StandbyNames) -> Option<Flow> {
    cx.memory.is_sync_released = false;
    let text = wanted.write();
    cx.info(format!("Assigning synchronous_standby_names to {}", text.as_deref().unwrap_or("''")));
    // The server shows it as soon as it has read its files again; it never does where another setting comes before ours.
    waits::look_again(cx, Wait::Names, text.as_deref().unwrap_or_default());
    cx.step(Step::SetSyncNames(text));
    None
}

fn keep(cx: &mut Context<'_>) -> Option<Flow> {
    let monitor = cx.monitor()?;
    let text = monitor.synchronous_standby_names.clone();
    let present = StandbyNames::parse(&text);
    let is_quorum = cx.settings().synchronous_mode == SynchronousMode::Quorum;
    if cx.memory.sync_names_seen.as_deref() != Some(text.as_str()) {
        let before = StandbyNames::parse(cx.memory.sync_names_seen.as_deref().unwrap_or_default());
        cx.memory.sync_names_seen = Some(text);
        waits::is_over(cx, Wait::Names);
        cx.memory.sync_names_since_ms = cx.now();
        cx.memory.is_sync_settled = false;
        // Where all are waited for, one that stays has everything. Where any of several will do, one that stays may
        // lack what another one acknowledged that is not asked any more.
        let all_count = !before.is_quorum && !present.is_quorum;
        cx.memory.sync_ready.retain(|name| all_count && present.names.contains(name));
    }
    if !cx.memory.is_sync_settled && settles_in(cx) == 0 {
        // Up to this moment a commit may have been acknowledged by the rule before: only those who have it all count.
        cx.memory.is_sync_settled = true;
        cx.memory.sync_confirmed_from = monitor.flush_lsn;
    }
    if let Some(wait_ms) = may_come_back(cx, &present) {
        cx.wake_within(wait_ms);
        return None;
    }
    let candidates = candidates(cx);
    mark_ready(cx, &candidates, &present, is_quorum);
    await_senders(cx, candidates.len(), is_quorum);
    await_lag(cx, &candidates);
    let active = choose(cx, &candidates, is_quorum);
    if is_quorum { by_quorum(cx, &active, &present) } else { by_priority(cx, &active, &present) }
}

/// A standby that commits wait for has just vanished: milliseconds until it is given up. Our own server may be dying,
/// and its WAL senders before it; then whoever could take over must not have been struck off a moment before. Or only
/// its member key is gone, and with it perhaps all the others: its agent has yet to notice.
fn may_come_back(cx: &mut Context<'_>, present: &StandbyNames) -> Option<u64> {
    let (view, monitor) = (cx.view()?, cx.monitor()?);
    let has_gone = |member: &Member| {
        let streams = monitor.senders.iter().any(|sender| member.name.matches(&sender.application_name));
        !streams && !member.tags().nosync() && present.names.contains(&member.name.to_lowercase())
    };
    let has_lost_key = |sender: &WalSender| {
        let is_member = view.members.iter().any(|member| member.name.matches(&sender.application_name));
        !is_member && present.names.contains(&sender.application_name.to_lowercase())
    };
    let misses = view.members.iter().any(has_gone) || monitor.senders.iter().any(has_lost_key);
    if !view.sync.is_leader(cx.me()) || !misses {
        cx.memory.sync_missing_since_ms = None;
        return None;
    }
    let since = *cx.memory.sync_missing_since_ms.get_or_insert(cx.seen.now_ms);
    Some((since + MISSING_MS).saturating_sub(cx.now())).filter(|left| *left > 0)
}

/// A standby begins to stream before it has caught up, and only then counts here: no event tells of that. Without votes
/// nobody is waited for beyond those who are enough.
fn await_senders(cx: &mut Context<'_>, present: usize, is_quorum: bool) {
    let (Some(view), Some(monitor)) = (cx.view(), cx.monitor()) else { return };
    let is_enough = !is_quorum && present >= cx.settings().synchronous_node_count.max(1);
    let is_missing = |member: &&Member| {
        let tags = member.tags();
        let says_so = member.is_running() && member.replication_state() == Some("streaming");
        let is_seen = || monitor.senders.iter().any(|sender| member.name.matches(&sender.application_name));
        says_so && member.name != *cx.me() && !tags.nosync() && !cascades(cx, tags.replicatefrom()) && !is_seen()
    };
    let missing: Vec<&str> = view.members.iter().filter(is_missing).map(|member| member.name.as_str()).collect();
    if is_enough || missing.is_empty() {
        waits::is_over(cx, Wait::Sender);
    } else {
        waits::look_again(cx, Wait::Sender, &missing.join(","));
    }
}

/// Nobody tells when a standby falls too far behind to be waited for, or has caught up again: one that is near the limit
/// is looked at again.
fn await_lag(cx: &mut Context<'_>, candidates: &[Candidate]) {
    let reference = lag_reference(cx, candidates);
    let limit = cx.settings().maximum_lag_on_syncnode_bytes;
    let is_near = |candidate: &Candidate| limit.is_some_and(|limit| reference.bytes_since(candidate.lsn) > limit / 2);
    if candidates.iter().any(is_near) {
        waits::look_again(cx, Wait::Lag, "");
    } else {
        waits::is_over(cx, Wait::Lag);
    }
}

/// All that is missing is that these standbys confirm.
fn await_confirmed(cx: &mut Context<'_>, of: &str) {
    match settles_in(cx) {
        0 => waits::look_again(cx, Wait::Confirmation, of),
        left => cx.wake_within(left),
    }
}

/// Milliseconds until the present `synchronous_standby_names` counts as taken over by the whole server.
fn settles_in(cx: &Context<'_>) -> u64 {
    (cx.memory.sync_names_since_ms + SETTLE_MS).saturating_sub(cx.now())
}

/// Streaming standbys that are members in good standing, best first.
fn candidates(cx: &Context<'_>) -> Vec<Candidate> {
    let (Some(view), Some(monitor)) = (cx.view(), cx.monitor()) else { return Vec::new() };
    let position = |sender: &WalSender| match monitor.synchronous_commit.as_str() {
        "remote_apply" => sender.replay_lsn,
        "remote_write" => sender.write_lsn,
        _ => sender.flush_lsn,
    };
    let mut found: Vec<Candidate> = Vec::new();
    for sender in &monitor.senders {
        let member = view.members.iter().find(|member| member.name.matches(&sender.application_name));
        let Some(member) = member.filter(|member| member.is_running() && member.name != *cx.me()) else { continue };
        let tags = member.tags();
        let Some(lsn) = position(sender) else { continue };
        if tags.nosync() || cascades(cx, tags.replicatefrom()) {
            continue;
        }
        found.push(Candidate {
            name: member.name.clone(),
            sync_state: sender.sync_state.clone(),
            lsn,
            priority: tags.sync_priority(),
            nofailover: tags.nofailover(),
        });
    }
    found.sort_by(|a, b| {
        let rank = |c: &Candidate| (std::cmp::Reverse(c.priority), std::cmp::Reverse(c.sync_state.clone()));
        rank(a).cmp(&rank(b)).then(b.lsn.cmp(&a.lsn)).then(a.name.cmp(&b.name))
    });
    found.sort_by_key(|candidate| candidate.nofailover);
    found
}

/// A member that should stream from another standby which itself streams from here is on its way there.
fn cascades(cx: &Context<'_>, from: Option<&str>) -> bool {
    let (Some(view), Some(monitor)) = (cx.view(), cx.monitor()) else { return false };
    let mut upstream = from.map(str::to_owned);
    let mut seen = BTreeSet::new();
    while let Some(name) = upstream {
        if *cx.me() == *name || !seen.insert(name.clone()) {
            return false;
        }
        let Some(member) = view.member(&name) else { return false };
        match member.tags().replicatefrom() {
            Some(next) => upstream = Some(next.to_owned()),
            None => return monitor.senders.iter().any(|sender| member.name.matches(&sender.application_name)),
        }
    }
    false
}

/// A standby is ready once the whole server waits for it and it has confirmed what was written before that began. One
/// that stands in `/sync` was ready when it was put there; not so with votes, where a voter may lack what others have.
fn mark_ready(cx: &mut Context<'_>, candidates: &[Candidate], present: &StandbyNames, is_quorum: bool) {
    let Some(view) = cx.view() else { return };
    let state = if present.is_quorum { "quorum" } else { "sync" };
    for candidate in candidates {
        let name = candidate.name.to_lowercase();
        let has_everything = candidate.sync_state == state && candidate.lsn >= cx.memory.sync_confirmed_from;
        let confirms = cx.memory.is_sync_settled && has_everything;
        let is_known = !is_quorum && !present.is_quorum && view.sync.matches(&candidate.name);
        if present.names.contains(&name) && (confirms || is_known) {
            cx.memory.sync_ready.insert(name);
        }
    }
}

/// What a standby's lag is counted from.
fn lag_reference(cx: &Context<'_>, candidates: &[Candidate]) -> Lsn {
    let best = candidates.iter().map(|candidate| candidate.lsn).max().filter(|_| candidates.len() > 1);
    best.or_else(|| Some(cx.monitor()?.flush_lsn)).unwrap_or_default()
}

/// The standbys to be used, in order, within the lag limit.
fn choose<'c>(cx: &Context<'_>, candidates: &'c [Candidate], is_quorum: bool) -> Vec<&'c Candidate> {
    let reference = lag_reference(cx, candidates);
    let limit = cx.settings().maximum_lag_on_syncnode_bytes.unwrap_or(u64::MAX);
    let wanted = cx.settings().synchronous_node_count.max(1);
    let mut chosen: Vec<&Candidate> = Vec::new();
    for candidate in candidates.iter().filter(|candidate| reference.bytes_since(candidate.lsn) <= limit) {
        let enough = chosen.len() >= wanted;
        if if is_quorum { enough && candidate.nofailover } else { enough } {
            break;
        }
        chosen.push(candidate);
    }
    chosen
}

/// Named standbys, by priority.
fn by_priority(cx: &mut Context<'_>, active: &[&Candidate], present: &StandbyNames) -> Option<Flow> {
    let view = cx.view()?;
    let me = cx.me().clone();
    let picked: Names = active.iter().map(|candidate| candidate.name.to_lowercase()).collect();
    let ready = cx.memory.sync_ready.clone();
    let confirmed: Vec<MemberName> = active
        .iter()
        .filter(|candidate| candidate.sync_state == "sync" && ready.contains(&candidate.name.to_lowercase()))
        .map(|candidate| candidate.name.clone())
        .collect();
    let allowed: Names = confirmed.iter().map(|name| name.to_lowercase()).collect();
    let mut voters: Names = view.sync.voters.iter().map(|name| name.to_lowercase()).collect();
    if !view.sync.is_leader(&me) {
        let owner = view.sync.leader.as_ref().map(ToString::to_string).unwrap_or_default();
        cx.warn(format!(
            "Inconsistent state of /sync key detected, leader = {owner} doesn't match {me}, updating synchronous \
             replication key"
        ));
        return write(cx, SyncState { leader: Some(me), ..SyncState::default() });
    }
    let strict = cx.settings().synchronous_mode_strict;
    if strict && picked.is_empty() {
        return strictly(cx, voters, present, false);
    }
    cx.memory.is_strict_warned = false;
    // Whoever is not confirmed any more must not be elected any more, before anything else changes.
    let common: Names = match view.sync.quorum {
        0 => voters.intersection(&allowed).cloned().collect(),
        _ => Names::new(),
    };
    if common != voters {
        let names = view.sync.voters.iter().filter(|name| common.contains(&name.to_lowercase())).cloned().collect();
        cx.info(format!("Updating /sync key temporarily from {voters:?} to {common:?}"));
        return write(cx, SyncState { leader: Some(me), voters: names, ..SyncState::default() });
    }
    voters = common;
    let wanted = StandbyNames { is_quorum: false, number: picked.len(), names: picked, blocks: false };
    if *present != wanted {
        return set_names(cx, &wanted);
    }
    if allowed != voters {
        cx.info(format!("Synchronous standby status assigned to {allowed:?}"));
        let mut names = confirmed;
        names.sort();
        return write(cx, SyncState { leader: Some(me), voters: names, ..SyncState::default() });
    }
    if wanted.names == allowed {
        waits::is_over(cx, Wait::Confirmation);
    } else {
        await_confirmed(cx, &list(&wanted.names));
    }
    None
}

/// Nobody can acknowledge and commits must block rather than go unprotected.
fn strictly(cx: &mut Context<'_>, voters: Names, present: &StandbyNames, is_quorum: bool) -> Option<Flow> {
    let quorum = if is_quorum { cx.view()?.sync.quorum as usize } else { 0 };
    let number = 1.max(voters.len().saturating_sub(quorum));
    let wanted = StandbyNames { is_quorum, number, blocks: voters.is_empty(), names: voters };
    let is_set = *present == wanted;
    if !std::mem::replace(&mut cx.memory.is_strict_warned, true) {
        let kept = match wanted.write().filter(|_| is_set && !wanted.names.is_empty()) {
            Some(text) => format!("Continue using old value of synchronous_standby_names=\"{text}\". "),
            None => String::new(),
        };
        cx.warn(format!(
            "No active replication connections from Patroni members and synchronous_mode_strict is requested. {kept}\
             Commits will be delayed."
        ));
    }
    if is_set { None } else { set_names(cx, &wanted) }
}

/// Any of several standbys, with votes.
fn by_quorum(cx: &mut Context<'_>, active: &[&Candidate], present: &StandbyNames) -> Option<Flow> {
    let view = cx.view()?;
    let me = cx.me().to_lowercase();
    let voters: Names = view.sync.voters.iter().map(|name| name.to_lowercase()).collect();
    let leader = view.sync.leader.as_ref().map(|name| name.to_lowercase()).unwrap_or_default();
    let names: Names = active.iter().map(|candidate| candidate.name.to_lowercase()).collect();
    if cx.settings().synchronous_mode_strict && names.is_empty() && leader == me {
        return strictly(cx, voters, present, true);
    }
    cx.memory.is_strict_warned = false;
    let state = quorum::State {
        leader,
        primary: me,
        quorum: view.sync.quorum as usize,
        voters,
        numsync: present.number,
        sync: present.names.clone(),
        confirmed: names.intersection(&cx.memory.sync_ready).count(),
        active: names,
        wanted: cx.settings().synchronous_node_count.max(1),
    };
    let steps = match quorum::transitions(state.clone()) {
        Ok(steps) => steps,
        Err(error) => {
            cx.warn(error.to_string());
            return None;
        }
    };
    let next = match steps.into_iter().next() {
        Some(Transition::Quorum { quorum, voters, .. })
            if quorum::eases_election(&state, quorum, &voters) && !is_acknowledged(cx, &state) =>
        {
            if state.sync.intersection(&state.active).count() >= needed(&state) {
                await_confirmed(cx, &described(&state));
                return None;
            }
            // Somebody who would have to confirm has gone: commits would wait for it as long as we do.
            quorum::around(&state)
        }
        next => next,
    };
    match next {
        None if !present.is_quorum && !present.names.is_empty() => {
            set_names(cx, &StandbyNames { is_quorum: true, ..present.clone() })
        }
        // Commits blocked for want of a standby, and need not any more.
        None | Some(Transition::Restart) if state.active.is_empty() && state.voters.is_empty() && present.blocks => {
            set_names(cx, &StandbyNames::default())
        }
        None => {
            await_confirmation(cx, &state);
            None
        }
        // None of those that commits wait for has confirmed.
        Some(Transition::Restart) => {
            await_confirmed(cx, &described(&state));
            None
        }
        Some(Transition::Sync { numsync, names }) => {
            set_names(cx, &StandbyNames { is_quorum: true, number: numsync, names, blocks: false })
        }
        Some(Transition::Quorum { quorum, voters, .. }) => {
            let names = true_names(cx, &voters);
            let me = cx.me().clone();
            cx.info(format!("Setting leader to {me}, quorum to {quorum} of ({})", join(&names)));
            let quorum = u32::try_from(quorum).unwrap_or(u32::MAX);
            write(cx, SyncState { leader: Some(me), quorum, voters: names, version: None })
        }
    }
}

/// While the votes count on fewer confirmations than commits wait for, more of them will be asked for: as soon as all
/// have confirmed, fewer votes will do.
fn await_confirmation(cx: &mut Context<'_>, state: &quorum::State) {
    let needed = needed(state);
    if state.quorum + needed <= state.sync.len() || state.confirmed >= needed {
        waits::is_over(cx, Wait::Confirmation);
    } else {
        await_confirmed(cx, &described(state));
    }
}

/// How many of whom are waited for.
fn described(state: &quorum::State) -> String {
    format!("{} of {}", needed(state), list(&state.sync))
}

fn list(names: &Names) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(",")
}

/// As many standbys as commits wait for have everything: any of the present ones stand for all that was acknowledged.
fn is_acknowledged(cx: &Context<'_>, state: &quorum::State) -> bool {
    cx.memory.is_sync_settled && state.confirmed >= needed(state)
}

fn needed(state: &quorum::State) -> usize {
    state.numsync.min(state.sync.len())
}

/// Folded names as the members spell them, sorted.
fn true_names(cx: &Context<'_>, folded: &Names) -> Vec<MemberName> {
    let view = cx.view();
    let known: BTreeMap<String, MemberName> = view
        .into_iter()
        .flat_map(|view| view.members.iter().map(|member| &member.name).chain(&view.sync.voters))
        .map(|name| (name.to_lowercase(), name.clone()))
        .collect();
    let mut names: Vec<MemberName> =
        folded.iter().map(|name| known.get(name).cloned().unwrap_or_else(|| name.as_str().into())).collect();
    names.sort();
    names
}

fn join(names: &[MemberName]) -> String {
    names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ")
}

/// What must be settled before a promotion. `Some`: not yet.
pub(super) fn before_promotion(cx: &mut Context<'_>) -> Option<Flow> {
    let view = cx.view()?;
    if !cx.is_sync_mode() && (cx.in_standby_cluster() || view.sync.is_empty()) {
        return None;
    }
    let me = cx.me().clone();
    if cx.settings().synchronous_mode == SynchronousMode::Quorum {
        let wanted = names_as_primary(cx, view);
        cx.step(Step::SetSyncNames(wanted.write()));
        return None;
    }
    if cx.done().sync_conflict {
        cx.warn("Postponing promotion because synchronous replication state was updated by somebody else");
        return Flow::end(super::reason::Line::PromotionPostponed);
    }
    let kept = kept_strictly(cx, view);
    let mut listed = view.sync.voters.clone();
    listed.sort();
    if !view.sync.is_leader(&me) || listed != kept {
        return write(cx, SyncState { leader: Some(me), voters: kept, ..SyncState::default() });
    }
    if !cx.is_sync_mode() {
        // The mode has just been switched off. Whoever the document names would be electable again as soon as it is
        // switched on; the primary takes it back altogether.
        return None;
    }
    let wanted = names_as_primary(cx, view);
    cx.step(Step::SetSyncNames(wanted.write()));
    None
}

/// Strictly, whoever may be elected now stays so and is waited for from the first commit on. Else nobody is, until
/// standbys stream from here. A list for votes, from before the mode changed, has members that lack something.
fn kept_strictly(cx: &Context<'_>, view: &ClusterView) -> Vec<MemberName> {
    let strict = cx.is_sync_mode() && cx.settings().synchronous_mode_strict && view.sync.quorum == 0;
    if strict { others(view, cx.me()) } else { Vec::new() }
}

/// What the server has to wait for from the moment on in which it becomes a primary.
fn names_as_primary(cx: &Context<'_>, view: &ClusterView) -> StandbyNames {
    let floor = usize::from(cx.settings().synchronous_mode_strict);
    if cx.settings().synchronous_mode != SynchronousMode::Quorum {
        let names: Names = kept_strictly(cx, view).iter().map(|name| name.to_lowercase()).collect();
        return StandbyNames { is_quorum: false, number: names.len().max(floor), blocks: names.is_empty(), names };
    }
    let mut names: Names = view.sync.voters.iter().chain(&view.sync.leader).map(|name| name.to_lowercase()).collect();
    let mut number = names.len().saturating_sub(view.sync.quorum as usize + 1);
    if !names.remove(&cx.me().to_lowercase()) && !view.sync.is_empty() {
        number += 1;
    }
    StandbyNames { is_quorum: true, number: number.min(names.len()).max(floor), blocks: names.is_empty(), names }
}

/// A standby that could be elected is configured for it beforehand. The processes of a server take a reload over when
/// they get to it, the checkpointer only after the files it is just syncing: what is set with the promotion may come
/// after the first commits, which nobody would wait for.
pub(super) fn prepare(cx: &mut Context<'_>) {
    let (Some(view), Some(monitor)) = (cx.view(), cx.monitor()) else { return };
    if cx.is_paused() || !monitor.in_recovery {
        return;
    }
    let is_electable = cx.is_sync_mode() && view.sync.is_voter(cx.me());
    let wanted = if is_electable { names_as_primary(cx, view).write() } else { None };
    let present = StandbyNames::parse(&monitor.synchronous_standby_names);
    if StandbyNames::parse(wanted.as_deref().unwrap_or_default()) == present {
        return;
    }
    // What we have not set is not ours to remove.
    if wanted.is_some() || std::mem::take(&mut cx.memory.is_sync_prepared) {
        cx.memory.is_sync_prepared = wanted.is_some();
        cx.step(Step::SetSyncNames(wanted));
    }
}

/// The members of `/sync` but us, sorted.
fn others(view: &ClusterView, me: &MemberName) -> Vec<MemberName> {
    let mut names: Vec<MemberName> = view.sync.voters.iter().chain(&view.sync.leader).cloned().collect();
    names.retain(|name| !name.matches(me));
    names.sort();
    names.dedup();
    names
}

/// Whether this standby, about to stop, has to wait until the primary does without it. It says that it must not be
/// waited for, and gives the primary two turns of the loop.
pub(super) fn holds_for_release(cx: &mut Context<'_>) -> bool {
    let Some(view) = cx.view() else { return false };
    if cx.has_lock() || !cx.is_sync_mode() || cx.seen.node.tags.nosync() {
        return false;
    }
    let now = cx.now();
    let since = *cx.memory.yields_sync_since_ms.get_or_insert(now);
    let is_waited_for =
        view.sync.is_voter(cx.me()) && view.leader_name().is_some_and(|leader| view.sync.is_leader(leader));
    let loop_ms = u64::try_from(cx.settings().loop_wait.as_millis()).unwrap_or(u64::MAX);
    let until = since.saturating_add(loop_ms.saturating_mul(2));
    if !is_waited_for || now >= until {
        return false;
    }
    cx.info("Waiting for primary to release us from synchronous standby");
    cx.wake_within(until.saturating_sub(now));
    true
}

#[cfg(test)]
#[path = "sync/tests.rs"]
mod tests;
