//! Which members a command means: roles, names, and the answer to "which one". Pure.

use serde::Deserialize;

use crate::cluster::{ClusterView, Member, MemberName, Role};

use super::commands::list::{Mode, ShownRole, shown_role};
use super::error::CtlError;
use super::exit::Exit;
use super::plan::{Answers, Refusal, Stop};
use super::render::difflib;

/// `--role`: members by what the DCS says of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum RoleFilter {
    /// The holder of the leader key.
    Leader,
    /// The holder of the leader key, unless it leads a standby cluster.
    Primary,
    /// The holder of the leader key, unless it is a primary.
    StandbyLeader,
    /// Everybody but the holder of the leader key.
    Replica,
    /// The same as `replica`.
    Standby,
    /// Everybody.
    #[default]
    Any,
}

impl RoleFilter {
    /// The word on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Primary => "primary",
            Self::StandbyLeader => "standby-leader",
            Self::Replica => "replica",
            Self::Standby => "standby",
            Self::Any => "any",
        }
    }

    /// The members with this role, in the order of the DCS, those of the other groups of a Citus cluster after its
    /// own. A leader without a member key is one all the same when leaders are asked for.
    pub fn members(self, view: &ClusterView) -> Vec<MemberName> {
        parts(view).flat_map(|part| self.members_of(part)).collect()
    }

    fn members_of(self, view: &ClusterView) -> Vec<MemberName> {
        let leader = view.leader_name();
        let leader_role = view.leader_member().and_then(|member| member.role());
        let is_wanted_leader = match self {
            Self::Leader => true,
            Self::Primary => leader_role != Some(Role::StandbyLeader),
            Self::StandbyLeader => leader_role != Some(Role::Primary),
            Self::Replica | Self::Standby | Self::Any => {
                let keep = |name: &&MemberName| self == Self::Any || leader != Some(*name);
                return view.members.iter().map(|member| &member.name).filter(keep).cloned().collect();
            }
        };
        leader.filter(|_| is_wanted_leader).cloned().into_iter().collect()
    }
}

/// The cluster, and the other groups if it is a Citus cluster that was read as a whole.
pub fn parts(view: &ClusterView) -> impl Iterator<Item = &ClusterView> {
    std::iter::once(view).chain(view.workers.values())
}

/// A member by name, of whichever group.
pub fn find<'a>(view: &'a ClusterView, name: &str) -> Option<&'a Member> {
    parts(view).find_map(|part| part.member(name))
}

/// A member that `--role` or `--member` picks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: MemberName,
    /// Host and port of its PostgreSQL, if published.
    pub address: Option<(String, u16)>,
    /// Its role.
    pub role: ShownRole,
}

/// The first member with a role, or the one of that name; the leader when neither is said.
pub fn any_member(
    view: &ClusterView,
    role: Option<RoleFilter>,
    member: Option<&str>,
) -> Result<Option<Found>, CtlError> {
    let role = match (member, role) {
        (Some(_), Some(_)) => {
            return Err(CtlError::usage("--role and --member are mutually exclusive options"));
        }
        (Some(_), None) => RoleFilter::Any,
        (None, role) => role.unwrap_or(RoleFilter::Leader),
    };
    // A name may stand in several groups: the address is that of the same group.
    let in_part = |part: &ClusterView| {
        let names: Vec<MemberName> = role.members_of(part);
        let name = names.into_iter().find(|name| member.is_none_or(|wanted| *name == wanted))?;
        let role = shown_role(&name, part, Mode::of(part.config_document()));
        Some(Found { address: part.member(&name).and_then(Member::address), role, name })
    };
    Ok(parts(view).find_map(in_part))
}

/// What came out of choosing members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// These, in the order of the DCS.
    Members(Vec<MemberName>),
    /// Nobody was named where somebody must be: these are the candidates, sorted.
    AskWhich(Vec<MemberName>),
}

/// Why no member could be chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoChoice {
    /// Nobody has the role, or nobody is there.
    #[error("{cluster} cluster doesn't have any members")]
    Nobody {
        /// The cluster's name.
        cluster: String,
    },
    /// None of the names is a candidate.
    #[error("No {role} among provided members")]
    NoneOfThem {
        /// The role as it is shown.
        role: String,
        /// The names.
        names: Vec<String>,
    },
    /// The answer to "which one" is not a candidate.
    #[error("{name} is not a member of cluster")]
    NotAMember {
        /// The answer.
        name: String,
    },
    /// Names among others that are no candidates; only told when asked to be strict.
    #[error("No such member to {action} in cluster {cluster}: {}", names.join(", "))]
    Unknown {
        /// What was going to be done.
        action: &'static str,
        /// The cluster's name.
        cluster: String,
        /// The names.
        names: Vec<String>,
    },
}

impl NoChoice {
    /// What can be done about it.
    fn advice(&self, view: &ClusterView) -> Option<String> {
        let names: Vec<&str> = parts(view).flat_map(|part| &part.members).map(|member| member.name.as_str()).collect();
        let is_known = !names.is_empty();
        match self {
            Self::Nobody { .. } if is_known => Some("no member has that role".to_owned()),
            Self::Nobody { .. } => {
                Some("check the cluster's name and the namespace, or whether its agents run".to_owned())
            }
            _ if is_known => Some(members_are(&self.names(), &names)),
            _ => Some("the cluster has no members".to_owned()),
        }
    }

    /// In our own words: a name that nobody has is another mistake than a member with another role.
    fn better(&self, view: &ClusterView) -> Option<String> {
        let Self::NoneOfThem { role, names } = self else {
            let Self::NotAMember { name } = self else { return None };
            let is_empty = name.is_empty();
            return Some(if is_empty {
                "no member was named".to_owned()
            } else {
                format!("{name} is not one of them")
            });
        };
        let unknown: Vec<&str> = names.iter().map(String::as_str).filter(|name| find(view, name).is_none()).collect();
        Some(match unknown.as_slice() {
            [] => format!("{} does not have the role {}", names.join(", "), role.trim_matches('\'')),
            unknown => format!("there is no member {}", unknown.join(", ")),
        })
    }

    /// The names that are none.
    fn names(&self) -> Vec<&str> {
        match self {
            Self::Nobody { .. } => Vec::new(),
            Self::NoneOfThem { names, .. } | Self::Unknown { names, .. } => names.iter().map(String::as_str).collect(),
            Self::NotAMember { name } => vec![name],
        }
    }

    /// As a refusal.
    pub fn refusal(&self, view: &ClusterView) -> Refusal {
        let refusal = Refusal::new(self.to_string()).ending(Exit::NotFound);
        let refusal = match self.better(view) {
            Some(better) => refusal.in_better_words(better),
            None => refusal,
        };
        match self.advice(view) {
            Some(advice) => refusal.advise(advice),
            None => refusal,
        }
    }
}

/// What may have been meant by names, and what there is.
pub fn members_are(typed: &[&str], known: &[&str]) -> String {
    let owned: Vec<String> = known.iter().map(|name| (*name).to_owned()).collect();
    let unknown = typed.iter().filter(|name| !known.contains(name));
    let meant: Vec<String> = unknown.filter_map(|name| difflib::did_you_mean(name, &owned)).collect();
    let all = format!("members are: {}", known.join(", "));
    if meant.is_empty() { all } else { format!("{}; {all}", meant.join(" ")) }
}

/// What to do for whoever looked for a member in vain, by its name if one was typed.
pub fn advice(view: &ClusterView, typed: Option<&str>) -> String {
    let known: Vec<&str> = parts(view).flat_map(|part| &part.members).map(|member| member.name.as_str()).collect();
    match typed {
        Some(name) if !known.is_empty() => members_are(&[name], &known),
        _ => "`list` shows the members and their roles".to_owned(),
    }
}

/// The end of a command that looked for a member in vain.
pub fn no_suitable(view: &ClusterView, typed: Option<&str>) -> CtlError {
    CtlError::new("Can not find a suitable member").ending(Exit::NotFound).next(advice(view, typed))
}

/// How a command chooses its members.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Name of the cluster, for messages.
    pub cluster: &'a str,
    /// What is going to be done, for messages.
    pub action: &'static str,
    /// Names on the command line.
    pub names: &'a [String],
    /// The role they must have.
    pub role: RoleFilter,
    /// Without names nobody is meant (rather than everybody with the role).
    pub must_name: bool,
    /// A name that is no candidate is an error even if others are.
    pub is_strict: bool,
}

impl<'a> Wanted<'a> {
    /// Names or a role, or everybody; the lenient way.
    pub fn of(cluster: &'a str, names: &'a [String], role: RoleFilter) -> Self {
        Self { cluster, action: "restart", names, role, must_name: false, is_strict: false }
    }
}

/// Before the member table is shown: is there anybody to choose from at all? Names on the command line are judged
/// after it.
pub fn check_anybody(view: &ClusterView, wanted: &Wanted<'_>) -> Result<(), NoChoice> {
    if wanted.names.is_empty() && wanted.role.members(view).is_empty() {
        return Err(NoChoice::Nobody { cluster: wanted.cluster.to_owned() });
    }
    Ok(())
}

/// Chooses the members. `answer` is what was said to the question of [`Choice::AskWhich`].
pub fn choose(view: &ClusterView, wanted: &Wanted<'_>, answer: Option<&str>) -> Result<Choice, NoChoice> {
    check_anybody(view, wanted)?;
    let mut candidates = wanted.role.members(view);
    if let Some(answer) = answer {
        candidates.retain(|name| name == answer);
        let not_a_member = NoChoice::NotAMember { name: answer.to_owned() };
        return if candidates.is_empty() { Err(not_a_member) } else { Ok(Choice::Members(candidates)) };
    }
    if wanted.names.is_empty() {
        if wanted.must_name {
            candidates.sort();
            return Ok(Choice::AskWhich(candidates));
        }
        return Ok(Choice::Members(candidates));
    }
    let is_candidate = |name: &String| candidates.iter().any(|candidate| candidate == name.as_str());
    let unknown: Vec<String> = wanted.names.iter().filter(|name| !is_candidate(name)).cloned().collect();
    candidates.retain(|candidate| wanted.names.iter().any(|name| candidate == name.as_str()));
    if candidates.is_empty() {
        // Patroni's tool quotes the role here, except where the role is not the user's choice.
        let role = if wanted.must_name { "replica".to_owned() } else { format!("'{}'", wanted.role.as_str()) };
        return Err(NoChoice::NoneOfThem { role, names: wanted.names.to_vec() });
    }
    if wanted.is_strict && !unknown.is_empty() {
        let cluster = wanted.cluster.to_owned();
        return Err(NoChoice::Unknown { action: wanted.action, cluster, names: unknown });
    }
    Ok(Choice::Members(candidates))
}

/// Chooses, asking where nobody was named who had to be, and asks for confirmation, unless it is forced.
pub fn settle(
    view: &ClusterView,
    wanted: &Wanted<'_>,
    is_forced: bool,
    answers: &mut Answers<'_>,
) -> Result<Vec<MemberName>, Stop> {
    let refuse = |no: NoChoice| Stop::from(no.refusal(view));
    let action = wanted.action;
    let members = match choose(view, wanted, None).map_err(refuse)? {
        Choice::Members(members) => members,
        Choice::AskWhich(_) if is_forced && wanted.is_strict => {
            let reason = format!("No member to {action} was named");
            return Err(Refusal::new(reason).ending(Exit::Usage).advise("name members after the cluster").into());
        }
        Choice::AskWhich(_) if is_forced => Vec::new(),
        Choice::AskWhich(candidates) => {
            let question = format!("Which member do you want to {action} [{}]?", listed(&candidates));
            let answer = answers.text(question, "")?;
            match choose(view, wanted, Some(answer)).map_err(refuse)? {
                Choice::Members(members) | Choice::AskWhich(members) => members,
            }
        }
    };
    if !is_forced {
        let question = format!("Are you sure you want to {action} members {}?", listed(&members));
        answers.confirm(question, &format!("Aborted {action}"))?;
    }
    Ok(members)
}

/// `a, b, c`.
pub fn listed(members: &[MemberName]) -> String {
    members.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{LeaderKey, Member, Version};
    use serde_json::json;

    fn view(leader: Option<&str>, members: &[(&str, &str)]) -> ClusterView {
        let member = |(name, role): &(&str, &str)| {
            let data = json!({"role": role}).as_object().unwrap().clone();
            Member { data, ..Member::unknown((*name).into()) }
        };
        let leader = leader.map(|name| LeaderKey { name: name.into(), version: Version(1), session: None });
        ClusterView { leader, members: members.iter().map(member).collect(), ..ClusterView::default() }
    }

    fn three() -> ClusterView {
        view(Some("pg1"), &[("pg1", "primary"), ("pg2", "replica"), ("pg3", "replica")])
    }

    fn names(of: &[MemberName]) -> Vec<&str> {
        of.iter().map(|name| name.as_str()).collect()
    }

    #[test]
    fn roles_go_by_the_leader_key() {
        let cluster = three();
        let members = |role: RoleFilter| names(&role.members(&cluster)).join(" ");
        assert_eq!(members(RoleFilter::Leader), "pg1");
        assert_eq!(members(RoleFilter::Primary), "pg1");
        assert_eq!(members(RoleFilter::StandbyLeader), "");
        assert_eq!(members(RoleFilter::Replica), "pg2 pg3");
        assert_eq!(members(RoleFilter::Standby), "pg2 pg3");
        assert_eq!(members(RoleFilter::Any), "pg1 pg2 pg3");

        let standby = view(Some("a"), &[("a", "standby_leader"), ("b", "replica")]);
        assert_eq!(names(&RoleFilter::StandbyLeader.members(&standby)), ["a"]);
        assert!(RoleFilter::Primary.members(&standby).is_empty());

        // Without a member key nothing is known of the leader's role, so it may be either.
        let bare = view(Some("x"), &[("b", "replica")]);
        assert_eq!(names(&RoleFilter::Primary.members(&bare)), ["x"]);
        assert_eq!(names(&RoleFilter::StandbyLeader.members(&bare)), ["x"]);
        assert_eq!(names(&RoleFilter::Any.members(&bare)), ["b"]);
        assert!(RoleFilter::Leader.members(&view(None, &[("b", "replica")])).is_empty());
    }

    fn wanted<'a>(names: &'a [String], role: RoleFilter) -> Wanted<'a> {
        Wanted { cluster: "demo", action: "restart", names, role, must_name: false, is_strict: false }
    }

    #[test]
    fn names_keep_the_order_of_the_dcs() {
        let typed = ["pg3".to_owned(), "pg2".to_owned()];
        let choice = choose(&three(), &wanted(&typed, RoleFilter::Any), None).unwrap();
        assert_eq!(choice, Choice::Members(vec!["pg2".into(), "pg3".into()]));
    }

    #[test]
    fn a_misspelt_name_is_dropped_or_told() {
        let typed = ["pg2".to_owned(), "nosuch".to_owned()];
        let lenient = wanted(&typed, RoleFilter::Any);
        assert_eq!(choose(&three(), &lenient, None).unwrap(), Choice::Members(vec!["pg2".into()]));
        let told = choose(&three(), &Wanted { is_strict: true, ..lenient }, None).unwrap_err();
        assert_eq!(told.to_string(), "No such member to restart in cluster demo: nosuch");
    }

    #[test]
    fn the_refusals() {
        let refused = |names: &[String], role, must_name| {
            let wanted = Wanted { must_name, ..wanted(names, role) };
            choose(&three(), &wanted, None).unwrap_err().to_string()
        };
        assert_eq!(refused(&["nosuch".into()], RoleFilter::Any, false), "No 'any' among provided members");
        assert_eq!(refused(&["pg2".into()], RoleFilter::Primary, false), "No 'primary' among provided members");
        assert_eq!(refused(&["pg1".into()], RoleFilter::Replica, true), "No replica among provided members");
        assert_eq!(refused(&[], RoleFilter::StandbyLeader, false), "demo cluster doesn't have any members");
        let which = wanted(&[], RoleFilter::Replica);
        let which = Wanted { must_name: true, ..which };
        assert_eq!(choose(&three(), &which, Some("")).unwrap_err().to_string(), " is not a member of cluster");
        assert_eq!(choose(&three(), &which, Some("pg1")).unwrap_err().to_string(), "pg1 is not a member of cluster");
        assert_eq!(choose(&three(), &which, Some("pg2")).unwrap(), Choice::Members(vec!["pg2".into()]));
        let asked = choose(&three(), &which, None).unwrap();
        assert_eq!(asked, Choice::AskWhich(vec!["pg2".into(), "pg3".into()]));
    }
}
