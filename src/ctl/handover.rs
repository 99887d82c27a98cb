//! Switchover and failover: who hands over to whom and when. Pure; `ctl/commands/switchover.rs` and `failover.rs` carry
//! it out.
//!
//! A switchover names the present leader and may leave the choice of the successor to the cluster. A failover names
//! only the successor, and works without a leader.

use std::time::Duration;

use serde_json::{Map, Value};

pub use crate::api::requests::Handover as Kind;
use crate::cluster::{ClusterView, FailoverKey, Member, MemberName, Version};

use super::exit::Exit;
use super::plan::{Answers, Pace, Refusal, Scene, Stop};
use super::render::difflib;
use super::schedule::Schedule;

/// What was asked for on the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// `--leader` or `--primary`.
    pub leader: Option<String>,
    /// `--candidate`.
    pub candidate: Option<String>,
    /// `--scheduled`.
    pub scheduled: Option<String>,
}

/// What will be sent, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handover {
    /// Which of the two.
    pub kind: Kind,
    /// The leader to demote; a switchover always has one.
    pub leader: Option<String>,
    /// The successor: not asked for (`None`), left to the cluster (empty), or named.
    pub candidate: Option<String>,
    /// When; at once without.
    pub scheduled: Option<Schedule>,
    /// The member that gets the request: the leader, or the candidate where there is none.
    pub addressee: MemberName,
    /// Something the operator should know before, on stderr.
    pub warning: Option<String>,
}

impl Handover {
    /// The body of the request. The candidate is always there, if only as null.
    pub fn body(&self) -> Map<String, Value> {
        let mut body = Map::new();
        body.insert("candidate".to_owned(), self.candidate.clone().map_or(Value::Null, Value::from));
        if self.kind == Kind::Switchover {
            body.insert("leader".to_owned(), self.leader.clone().map_or(Value::Null, Value::from));
        }
        if let Some(at) = &self.scheduled {
            body.insert("scheduled_at".to_owned(), at.iso().into());
        }
        body
    }

    /// The same as a `failover` key, for when no member can be asked.
    pub fn key(&self) -> FailoverKey {
        let named = |name: &Option<String>| name.as_deref().filter(|name| !name.is_empty()).map(MemberName::from);
        FailoverKey {
            version: Version::default(),
            leader: named(&self.leader).filter(|_| self.kind == Kind::Switchover),
            candidate: named(&self.candidate),
            scheduled_at: self.scheduled.as_ref().map(Schedule::iso),
        }
    }

    /// Whether the cluster already has this very request, or has already acted on it: then it must not be made again.
    pub fn is_known_to(&self, view: &ClusterView) -> bool {
        let same = |key: &FailoverKey| FailoverKey { version: Version::default(), ..key.clone() } == self.key();
        let leader = view.leader_name().map(|name| name.as_str());
        let has_moved = self.scheduled.is_none() && leader.is_some() && leader != self.leader.as_deref();
        view.failover.as_ref().is_some_and(same) || has_moved
    }
}

/// How long a member may take over the answer to an immediate request: it polls every second for twice `loop_wait`
/// or 20 s, each poll may take `retry_timeout` once the DCS is in trouble, and then there is the way there and back.
pub fn answer_limit(pace: Pace) -> Duration {
    let polls = pace.loop_wait.max(Duration::from_secs(10)) * 2;
    polls + pace.retry_timeout + Duration::from_secs(5)
}

/// How long the members may take to act on a request in the DCS. A leader that cannot be asked is perhaps gone: then
/// nothing happens until its lease has run out and the others have noticed.
pub fn pickup_limit(pace: Pace) -> Duration {
    let polls = pace.loop_wait.max(Duration::from_secs(10)) * 2;
    polls.max(pace.ttl + pace.loop_wait * 2)
}

/// Checks and asks in the order in which operators are used to it.
pub fn plan(scene: &Scene<'_>, kind: Kind, asked: &Asked, answers: &mut Answers<'_>) -> Result<Handover, Stop> {
    let leader = match kind {
        Kind::Switchover => Some(pick_leader(scene, asked, answers)?),
        Kind::Failover => scene.leader().map(str::to_owned),
    };
    let candidate = pick_candidate(scene, kind, asked, answers)?;
    let scheduled = match kind {
        Kind::Switchover => pick_moment(scene, asked, answers)?,
        Kind::Failover => None,
    };
    let warning = replaced(scene).filter(|_| scene.is_strict);
    if scene.is_forced {
        check_lossless(scene, kind, candidate.as_deref())?;
    } else {
        if let Some(warning) = &warning {
            answers.confirm(format!("{warning}. Shall it be replaced?"), &format!("Aborting {}", kind.word()))?;
        }
        confirm(scene, kind, (leader.as_deref(), candidate.as_deref(), scheduled.as_ref()), answers)?;
    }
    let addressee = leader.as_deref().or(candidate.as_deref()).unwrap_or_default().into();
    let warning = warning.filter(|_| scene.is_forced);
    Ok(Handover { kind, leader, candidate, scheduled, addressee, warning })
}

fn pick_leader(scene: &Scene<'_>, asked: &Asked, answers: &mut Answers<'_>) -> Result<String, Stop> {
    let Some(current) = scene.leader() else {
        let refusal = Refusal::new("This cluster has no leader");
        return Err(refusal.advise("to promote a member nevertheless, use failover with --candidate").into());
    };
    let named = match &asked.leader {
        Some(name) => name.as_str(),
        None if scene.is_forced => current,
        None => answers.text(if scene.mode.is_standby_cluster { "Standby Leader" } else { "Primary" }, current)?,
    };
    if named != current {
        let reason = format!("Member {named} is not the leader of cluster {}", scene.cluster);
        return Err(Refusal::new(reason).advise(format!("the leader is {current}")).into());
    }
    Ok(named.to_owned())
}

/// The members that may be handed to, sorted by name.
pub fn candidates(view: &ClusterView) -> Vec<&str> {
    let is_leader = |member: &&Member| view.has_lock(&member.name);
    let members = view.members.iter().filter(|member| !is_leader(member) && !member.tags().nofailover());
    let mut names: Vec<&str> = members.map(|member| member.name.as_str()).collect();
    names.sort_unstable();
    names
}

fn pick_candidate(
    scene: &Scene<'_>,
    kind: Kind,
    asked: &Asked,
    answers: &mut Answers<'_>,
) -> Result<Option<String>, Stop> {
    let candidates = candidates(scene.view);
    if candidates.is_empty() {
        let refusal = Refusal::new(format!("No candidates found to {} to", kind.word()));
        return Err(Stop::Refuse(match why_nobody(scene.view) {
            Some(why) => refusal.advise(why),
            None => refusal,
        }));
    }
    let candidate = match &asked.candidate {
        Some(name) => Some(name.clone()),
        None if scene.is_forced => None,
        None => {
            let listed: Vec<String> = candidates.iter().map(|name| format!("'{name}'")).collect();
            Some(answers.text(format!("Candidate [{}]", listed.join(", ")), "")?.to_owned())
        }
    };
    let named = candidate.as_deref().unwrap_or_default();
    if named.is_empty() && kind == Kind::Failover {
        let refusal = Refusal::new("Failover could be performed only to a specific candidate").ending(Exit::Usage);
        return Err(refusal.advise(format!("name one with --candidate: {}", candidates.join(", "))).into());
    }
    if named.is_empty() || candidates.contains(&named) {
        return Ok(candidate);
    }
    if scene.leader() == Some(named) {
        let reason = format!("Member {named} is already the leader of cluster {}", scene.cluster);
        return Err(Refusal::new(reason).into());
    }
    let reason = format!("Member {named} does not exist in cluster {} or is tagged as nofailover", scene.cluster);
    let known: Vec<String> = scene.view.members.iter().map(|member| member.name.to_string()).collect();
    let is_member = known.iter().any(|name| name == named);
    let meant = difflib::did_you_mean(named, &known).filter(|_| !is_member).map(|meant| format!("{meant} "));
    let advice = format!("{}candidates are: {}", meant.unwrap_or_default(), candidates.join(", "));
    let better = if is_member {
        format!("member {named} must not become the leader, by its tag nofailover or failover_priority")
    } else {
        format!("there is no member {named} in cluster {}", scene.cluster)
    };
    let refusal = Refusal::new(reason).in_better_words(better).advise(advice);
    // A name that nobody has is another mistake than a member that must not lead.
    Err(refusal.ending(if is_member { Exit::Failed } else { Exit::NotFound }).into())
}

/// The tags that keep every member but the leader from being a candidate.
fn why_nobody(view: &ClusterView) -> Option<String> {
    let others = view.members.iter().filter(|member| !view.has_lock(&member.name));
    let why = |member: &Member| {
        let tags = member.tags();
        let tag = if tags.get("nofailover").is_some() { "nofailover" } else { "failover_priority" };
        format!("{} has the tag {tag}: {}", member.name, tags.get(tag).unwrap_or(&Value::Null))
    };
    let lines: Vec<String> = others.map(why).collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

fn pick_moment(scene: &Scene<'_>, asked: &Asked, answers: &mut Answers<'_>) -> Result<Option<Schedule>, Stop> {
    let text = match &asked.scheduled {
        Some(text) => text.as_str(),
        None if scene.is_forced => "",
        None => {
            let example = scene.example_moment();
            answers.text(format!("When should the switchover take place (e.g. {example} ) "), "now")?
        }
    };
    let at = scene.moment(text)?;
    if at.is_some() && scene.mode.is_paused {
        let refusal = Refusal::new("Can't schedule switchover in the paused state");
        return Err(refusal.advise("resume the cluster first, or switch over at once").into());
    }
    Ok(at)
}

fn confirm(
    scene: &Scene<'_>,
    kind: Kind,
    (leader, candidate, scheduled): (Option<&str>, Option<&str>, Option<&Schedule>),
    answers: &mut Answers<'_>,
) -> Result<(), Stop> {
    let word = kind.word();
    let aborted = match scheduled {
        Some(_) => format!("Aborting scheduled {word}"),
        None => format!("Aborting {word}"),
    };
    if let Some(name) = candidate.filter(|name| is_lossy(scene, kind, name)) {
        answers.confirm(format!("Are you sure you want to failover to the asynchronous node {name}?"), &aborted)?;
    }
    let demoting = leader.map(|name| format!(", demoting current leader {name}")).unwrap_or_default();
    let cluster = scene.cluster;
    let question = match scheduled {
        Some(at) => format!("Are you sure you want to schedule {word} of cluster {cluster} at {}{demoting}?", at.iso()),
        None => format!("Are you sure you want to {word} cluster {cluster}{demoting}?"),
    };
    answers.confirm(question, &aborted)
}

/// Whether commits that were acknowledged may be lost: the synchronous members are known, and this is none of them.
fn is_lossy(scene: &Scene<'_>, kind: Kind, candidate: &str) -> bool {
    let sync = &scene.view.sync;
    kind == Kind::Failover && scene.mode.is_synchronous && !sync.is_empty() && !sync.matches(candidate)
}

/// To agree with everything is not to give up commits.
fn check_lossless(scene: &Scene<'_>, kind: Kind, candidate: Option<&str>) -> Result<(), Refusal> {
    let Some(name) = candidate.filter(|name| !scene.overrides && is_lossy(scene, kind, name)) else { return Ok(()) };
    let reason = format!("Member {name} is not synchronous: commits that were acknowledged may be lost");
    Err(Refusal::new(reason).advise("name a synchronous standby, or give them up with --force"))
}

/// A request in the DCS that the new one takes the place of.
fn replaced(scene: &Scene<'_>) -> Option<String> {
    let key = scene.view.failover_request()?;
    let at = key.scheduled_at.as_ref()?;
    let to = key.candidate.as_ref().map(|name| format!(" to {name}")).unwrap_or_default();
    Some(format!("This replaces the switchover{to} that was scheduled for {at}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{LeaderKey, SyncState};
    use crate::ctl::commands::list::Mode;
    use crate::ctl::plan::{Answer, Question};
    use jiff::Zoned;
    use serde_json::json;

    fn cluster(leader: Option<&str>, names: &[&str]) -> ClusterView {
        let leader = leader.map(|name| LeaderKey { name: name.into(), version: Version(1), session: None });
        let members = names.iter().map(|name| Member::unknown((*name).into())).collect();
        ClusterView { leader, members, ..ClusterView::default() }
    }

    fn now() -> Zoned {
        "2026-11-20T15:08:00+00:00[UTC]".parse().unwrap()
    }

    struct Case {
        view: ClusterView,
        mode: Mode,
        is_forced: bool,
        is_strict: bool,
    }

    impl Case {
        fn of(view: ClusterView) -> Self {
            Self { view, mode: Mode::default(), is_forced: false, is_strict: false }
        }

        fn plan(&self, kind: Kind, asked: &Asked, answers: &[Answer]) -> Result<Handover, Stop> {
            let (now, is_forced, is_strict) = (now(), self.is_forced, self.is_strict);
            let (view, mode, overrides) = (&self.view, self.mode, is_forced);
            let scene = Scene { cluster: "demo", view, mode, now: &now, is_forced, overrides, is_strict };
            plan(&scene, kind, asked, &mut Answers::new(answers))
        }

        fn question(&self, kind: Kind, asked: &Asked, answers: &[Answer]) -> String {
            match self.plan(kind, asked, answers) {
                Err(Stop::Ask(Question::Text { text, default })) => format!("{text} [{default}]"),
                Err(Stop::Ask(Question::Confirm { text })) => text,
                other => panic!("no question: {other:?}"),
            }
        }

        fn refusal(&self, kind: Kind, asked: &Asked, answers: &[Answer]) -> Refusal {
            match self.plan(kind, asked, answers) {
                Err(Stop::Refuse(refusal)) => refusal,
                other => panic!("not refused: {other:?}"),
            }
        }
    }

    fn typed(text: &str) -> Answer {
        Answer::Text(text.to_owned())
    }

    #[test]
    fn each_answer_is_judged_before_the_next_question() {
        let case = Case::of(cluster(Some("pg1"), &["pg1", "pg3", "pg2"]));
        let asked = Asked::default();
        let question = |answers: &[Answer]| case.question(Kind::Switchover, &asked, answers);
        assert_eq!(question(&[]), "Primary [pg1]");
        assert_eq!(question(&[typed("pg1")]), "Candidate ['pg2', 'pg3'] []");
        let when = "When should the switchover take place (e.g. 2026-11-20T16:08 )  [now]";
        assert_eq!(question(&[typed("pg1"), typed("")]), when);
        let sure = "Are you sure you want to switchover cluster demo, demoting current leader pg1?";
        assert_eq!(question(&[typed("pg1"), typed(""), typed("now")]), sure);
        let no = [typed("pg1"), typed(""), typed("2030-01-01T03:00Z"), Answer::Confirm(false)];
        assert_eq!(case.refusal(Kind::Switchover, &asked, &no).reason, "Aborting scheduled switchover");
        let refusal = case.refusal(Kind::Switchover, &asked, &[typed("pg1"), typed("pg9")]);
        assert_eq!(refusal.reason, "Member pg9 does not exist in cluster demo or is tagged as nofailover");
        assert_eq!(refusal.advice.unwrap(), "candidates are: pg2, pg3");
    }

    #[test]
    fn an_empty_answer_leaves_the_choice_to_the_cluster_and_force_does_not_ask() {
        let mut case = Case::of(cluster(Some("pg1"), &["pg1", "pg2"]));
        let answers = [typed("pg1"), typed(""), typed("now"), Answer::Confirm(true)];
        let plan = case.plan(Kind::Switchover, &Asked::default(), &answers).unwrap();
        assert_eq!(Value::Object(plan.body()), json!({"candidate": "", "leader": "pg1"}));
        case.is_forced = true;
        let plan = case.plan(Kind::Switchover, &Asked::default(), &[]).unwrap();
        assert_eq!(Value::Object(plan.body()), json!({"candidate": null, "leader": "pg1"}));
        assert_eq!(plan.key(), FailoverKey { leader: Some("pg1".into()), ..FailoverKey::default() });
    }

    #[test]
    fn a_standby_cluster_has_a_standby_leader() {
        let mut case = Case::of(cluster(Some("pg1"), &["pg1", "pg2"]));
        case.mode.is_standby_cluster = true;
        assert_eq!(case.question(Kind::Switchover, &Asked::default(), &[]), "Standby Leader [pg1]");
    }

    #[test]
    fn giving_up_commits_is_asked_first() {
        let mut case = Case::of(cluster(Some("pg1"), &["pg1", "pg2", "pg3"]));
        case.mode.is_synchronous = true;
        let voters = vec!["PG2".into()];
        case.view.sync = SyncState { version: None, leader: Some("pg1".into()), quorum: 0, voters };
        let to = |name: &str| Asked { candidate: Some(name.to_owned()), ..Asked::default() };
        let lossy = "Are you sure you want to failover to the asynchronous node pg3?";
        assert_eq!(case.question(Kind::Failover, &to("pg3"), &[]), lossy);
        let sure = "Are you sure you want to failover cluster demo, demoting current leader pg1?";
        assert_eq!(case.question(Kind::Failover, &to("pg3"), &[Answer::Confirm(true)]), sure);
        assert_eq!(case.question(Kind::Failover, &to("pg2"), &[]), sure);
        let no = case.refusal(Kind::Failover, &to("pg3"), &[Answer::Confirm(false)]);
        assert_eq!(no.reason, "Aborting failover");
    }

    #[test]
    fn a_failover_without_leader_goes_to_the_candidate() {
        let mut case = Case::of(cluster(None, &["pg2", "pg3"]));
        let to_pg3 = Asked { candidate: Some("pg3".to_owned()), ..Asked::default() };
        assert_eq!(case.question(Kind::Failover, &to_pg3, &[]), "Are you sure you want to failover cluster demo?");
        case.is_forced = true;
        let plan = case.plan(Kind::Failover, &to_pg3, &[]).unwrap();
        assert_eq!((plan.addressee.as_str(), Value::Object(plan.body())), ("pg3", json!({"candidate": "pg3"})));
        assert_eq!(plan.key(), FailoverKey { candidate: Some("pg3".into()), ..FailoverKey::default() });
    }

    #[test]
    fn a_request_is_known_when_it_stands_there_or_has_been_done() {
        let mut case = Case::of(cluster(Some("pg1"), &["pg1", "pg2"]));
        case.is_forced = true;
        let plan = case.plan(Kind::Switchover, &Asked::default(), &[]).unwrap();
        assert!(!plan.is_known_to(&case.view));
        let other = FailoverKey { version: Version(7), leader: Some("pg2".into()), ..FailoverKey::default() };
        assert!(!plan.is_known_to(&ClusterView { failover: Some(other), ..case.view.clone() }));
        let same = FailoverKey { version: Version(7), ..plan.key() };
        assert!(plan.is_known_to(&ClusterView { failover: Some(same), ..case.view.clone() }));
        assert!(plan.is_known_to(&cluster(Some("pg2"), &["pg1", "pg2"])));
        assert!(!plan.is_known_to(&cluster(None, &["pg1", "pg2"])), "nobody leads yet");
        let at = Asked { scheduled: Some("2030-01-01T03:00Z".to_owned()), ..Asked::default() };
        let later = case.plan(Kind::Switchover, &at, &[]).unwrap();
        assert!(!later.is_known_to(&cluster(Some("pg2"), &["pg1", "pg2"])), "that was not this one");
    }

    #[test]
    fn the_answer_may_take_as_long_as_the_member_polls() {
        let pace = |loop_wait, retry_timeout| Pace {
            ttl: Duration::from_secs(30),
            loop_wait: Duration::from_secs(loop_wait),
            retry_timeout: Duration::from_secs(retry_timeout),
            start_timeout: Duration::ZERO,
        };
        assert_eq!(answer_limit(pace(2, 3)), Duration::from_secs(28));
        assert_eq!(answer_limit(pace(30, 10)), Duration::from_secs(75));
        assert_eq!(pickup_limit(pace(2, 3)), Duration::from_secs(34));
        assert_eq!(pickup_limit(pace(10, 10)), Duration::from_secs(50));
    }
}
