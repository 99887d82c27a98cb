//! Whom a standby follows.

use serde::{Deserialize, Serialize};

use super::member::Member;
use super::names::MemberName;
use super::role::State;
use super::tags::Tags;
use super::view::ClusterView;

/// A server to stream from, clone from or rewind from. Credentials are never part of it: they come from the
/// follower's own configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// The member it is; `None` for the remote primary of a standby cluster.
    pub member: Option<MemberName>,
    /// Host or hosts (comma separated for a remote primary); `None` when only archive settings are given.
    pub host: Option<String>,
    /// Port; 5432 when absent.
    pub port: Option<u16>,
    /// Database of the connection URL.
    pub database: Option<String>,
    /// Whether and which slot to stream from.
    pub slot: UpstreamSlot,
    /// `restore_command` of a standby cluster.
    pub restore_command: Option<String>,
    /// `archive_cleanup_command` of a standby cluster.
    pub archive_cleanup_command: Option<String>,
    /// `recovery_min_apply_delay` of a standby cluster, as configured.
    pub recovery_min_apply_delay: Option<String>,
    /// `create_replica_methods` of a standby cluster; empty means the ordinary list.
    pub create_replica_methods: Vec<String>,
}

/// The slot a follower uses on its upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamSlot {
    /// The one named after the follower, if `use_slots` is on.
    #[default]
    Own,
    /// This one (remote primary of a standby cluster).
    Named(String),
    /// None (remote primary without `primary_slot_name`).
    None,
}

impl ClusterView {
    /// The member that `name`, with these tags, streams from instead of the leader; `None`: the leader.
    ///
    /// `replicatefrom` counts only as long as WAL can come that way. A member whose server is down passes nothing on,
    /// and neither do members that name each other in a circle: then the leader is the source, until the way is open
    /// again.
    pub fn cascade_source(&self, name: &MemberName, tags: &Tags) -> Option<&Member> {
        let is_other = |source: &&str| **name != **source;
        let source = self.member(tags.replicatefrom().filter(is_other)?)?;
        let mut above = source;
        for _ in 0..self.members.len() {
            if self.has_lock(&above.name) {
                break;
            }
            let tags = above.tags();
            let Some(next) = tags.replicatefrom().filter(|next| *above.name != **next) else { break };
            if **name == *next {
                return None;
            }
            let Some(next) = self.member(next) else { break };
            above = next;
        }
        passes_wal_on(source).then_some(source)
    }
}

/// Not so while its server is down or its data is being replaced. One that starts will be back in a moment, and an
/// unknown word is given the benefit of the doubt.
fn passes_wal_on(member: &Member) -> bool {
    !matches!(
        member.state(),
        Some(
            State::Initdb
                | State::InitdbFailed
                | State::CustomBootstrap
                | State::CustomBootstrapFailed
                | State::CreatingReplica
                | State::StartFailed
                | State::RestartFailed
                | State::Stopped
                | State::Crashed
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn view(members: &[(&str, &str, Option<&str>)]) -> ClusterView {
        let member = |(name, state, from): &(&str, &str, Option<&str>)| {
            let mut data = json!({"state": state});
            if let Some(from) = from {
                data["tags"] = json!({"replicatefrom": from});
            }
            Member { data: data.as_object().cloned().unwrap_or_default(), ..Member::unknown((*name).into()) }
        };
        let leader =
            super::super::view::LeaderKey { name: "leader".into(), version: Default::default(), session: None };
        ClusterView { leader: Some(leader), members: members.iter().map(member).collect(), ..ClusterView::default() }
    }

    fn source_of(view: &ClusterView, name: &str) -> Option<String> {
        let tags = view.member(name).map(Member::tags).unwrap_or_default();
        view.cascade_source(&name.into(), &tags).map(|member| member.name.to_string())
    }

    #[test]
    fn a_cascade_follows_its_tag_while_wal_comes_that_way() {
        let members = |state| {
            view(&[
                ("leader", "running", Some("deep")),
                ("middle", state, None),
                ("deep", "running", Some("middle")),
                ("deeper", "running", Some("deep")),
                ("lost", "running", Some("nobody")),
                ("self", "running", Some("self")),
            ])
        };
        let running = members("running");
        let expected =
            [("middle", None), ("deep", Some("middle")), ("deeper", Some("deep")), ("lost", None), ("self", None)];
        for (name, source) in expected {
            assert_eq!(source_of(&running, name).as_deref(), source, "{name}");
        }
        for (state, passes) in [
            ("starting", true),
            ("restarting", true),
            ("stopping", true),
            ("weird", true),
            ("stopped", false),
            ("crashed", false),
            ("creating replica", false),
            ("start failed", false),
        ] {
            assert_eq!(source_of(&members(state), "deep").is_some(), passes, "{state}");
            assert_eq!(source_of(&members(state), "deeper").as_deref(), Some("deep"), "only the neighbour counts");
        }
    }

    #[test]
    fn members_that_name_each_other_follow_the_leader() {
        let circle = view(&[
            ("leader", "running", None),
            ("a", "running", Some("b")),
            ("b", "running", Some("c")),
            ("c", "running", Some("a")),
            ("outside", "running", Some("a")),
        ]);
        for name in ["a", "b", "c"] {
            assert_eq!(source_of(&circle, name), None, "{name}");
        }
        assert_eq!(source_of(&circle, "outside").as_deref(), Some("a"));
    }
}
