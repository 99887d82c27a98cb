//! Which changes of a cluster are worth waking a loop for. Pure.
//!
//! WAL positions move all the time and wake nobody, except through `status`: the holder writes it once per cycle,
//! and the others follow in step.

use serde_json::{Map, Value};

use super::layout::read;
use crate::cluster::{ClusterView, Member};

/// Fields of a member's value that move while nothing happens.
const POSITIONS: [&str; 4] = ["xlog_location", "replay_lsn", "receive_lsn", "timeline"];

/// Whether the change from `before` to `after` should wake the loop of member `me` (or whoever watches without being
/// a member). The other groups of a Citus cluster wake only the latter.
pub fn significant(before: &ClusterView, after: &ClusterView, me: Option<&str>) -> bool {
    is_cluster_changed(before, after)
        || are_members_changed(before, after, me)
        || is_status_news(before, after, me)
        || (me.is_none() && are_workers_changed(before, after))
}

/// Whether one key, named by its place below the prefix, may be rewritten without a [`significant`] change of the
/// cluster. What cannot be told from the key alone may not. `leads`: the member is the leader.
pub fn is_quiet(relative: &str, before: &[u8], after: &[u8], me: Option<&str>, leads: bool) -> bool {
    match relative.strip_prefix("members/") {
        Some(name) => me == Some(name) || !is_changed(&read::member(before), &read::member(after)),
        None => relative == "status" && leads,
    }
}

fn is_cluster_changed(before: &ClusterView, after: &ClusterView) -> bool {
    let request = |view: &ClusterView| {
        view.failover_request().map(|key| (key.leader.clone(), key.candidate.clone(), key.scheduled_at.clone()))
    };
    let sync = |view: &ClusterView| (view.sync.leader.clone(), view.sync.quorum, view.sync.voters.clone());
    before.leader_name() != after.leader_name()
        || before.config_document() != after.config_document()
        || before.initialize != after.initialize
        || request(before) != request(after)
        || sync(before) != sync(after)
}

/// The own value is the loop's own doing; that the own key is gone is news.
fn are_members_changed(before: &ClusterView, after: &ClusterView, me: Option<&str>) -> bool {
    let is_me = |member: &&Member| me.is_some_and(|me| member.name == me);
    let went = before.members.iter().any(|member| after.member(&member.name).is_none());
    let came_or_changed =
        |member: &Member| before.member(&member.name).is_none_or(|old| is_changed(&old.data, &member.data));
    went || after.members.iter().filter(|member| !is_me(member)).any(came_or_changed)
}

fn is_changed(before: &Map<String, Value>, after: &Map<String, Value>) -> bool {
    let is_news = |key: &str| !POSITIONS.contains(&key);
    // Written in the same order, as they nearly always are, they need not be looked up one by one.
    if before.iter().filter(|(key, _)| is_news(key)).eq(after.iter().filter(|(key, _)| is_news(key))) {
        return false;
    }
    let differs = |key: &String| before.get(key) != after.get(key);
    before.keys().chain(after.keys()).filter(|key| is_news(key)).any(differs)
}

fn is_status_news(before: &ClusterView, after: &ClusterView, me: Option<&str>) -> bool {
    before.status != after.status && !me.is_some_and(|me| after.has_lock(me))
}

fn are_workers_changed(before: &ClusterView, after: &ClusterView) -> bool {
    before.workers.len() != after.workers.len()
        || after
            .workers
            .iter()
            .any(|(group, view)| before.workers.get(group).is_none_or(|old| significant(old, view, None)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{FailoverKey, History, Lsn};
    use crate::dcs::layout::{KeyValue, view_from_keys};
    use serde_json::{Value, json};

    fn view(pairs: &[(&str, Value)]) -> ClusterView {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let key = |(key, value): &(&str, Value)| KeyValue::new(format!("/s/d/{key}"), text(value));
        view_from_keys("/s/d/", &pairs.iter().map(key).collect::<Vec<_>>())
    }

    fn base() -> Vec<(&'static str, Value)> {
        vec![
            ("leader", json!("a")),
            ("config", json!({"ttl": 30})),
            ("initialize", json!("7710267184385916675")),
            ("failover", json!({})),
            ("members/a", json!({"state": "running", "role": "primary", "xlog_location": 1})),
            ("members/b", json!({"state": "running", "role": "replica", "xlog_location": 1, "tags": {"x": 1}})),
            ("status", json!({"optime": 1})),
        ]
    }

    fn with(key: &'static str, value: Value) -> ClusterView {
        let mut pairs = base();
        pairs.retain(|(name, _)| *name != key);
        pairs.push((key, value));
        view(&pairs)
    }

    fn without(key: &str) -> ClusterView {
        view(&base().into_iter().filter(|(name, _)| *name != key).collect::<Vec<_>>())
    }

    fn wakes(after: &ClusterView, me: &str) -> bool {
        significant(&view(&base()), after, Some(me))
    }

    /// What is said of one key alone is never less than what is said of the whole cluster.
    #[test]
    fn a_quiet_key_is_none_that_wakes() {
        let others = [
            ("members/a", json!({"state": "stopped"}), false),
            ("members/b", json!({"state": "running", "role": "replica", "xlog_location": 7, "tags": {"x": 1}}), true),
            ("members/b", json!({"state": "stopped", "role": "replica", "xlog_location": 1, "tags": {"x": 1}}), false),
            ("members/b", json!("postgres://x"), false),
            ("status", json!({"optime": 2}), false),
            ("leader", json!("b"), false),
            ("config", json!({"ttl": 31}), false),
            ("failover", json!({"member": "b"}), false),
            ("sync", json!({"leader": "a"}), false),
            ("history", json!([]), false),
        ];
        let bytes = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned).into_bytes();
        for (key, after, is_position) in others {
            let before = base().into_iter().find(|(name, _)| *name == key).map(|(_, value)| value);
            let before = before.unwrap_or(json!({}));
            for me in [Some("a"), Some("b"), Some("c"), None] {
                let is_quiet = is_quiet(key, &bytes(&before), &bytes(&after), me, me == Some("a"));
                let wakes = significant(&view(&base()), &with(key, after.clone()), me);
                assert!(!is_quiet || !wakes, "{key} {after} {me:?}");
                let is_own = key.strip_prefix("members/").is_some_and(|name| me == Some(name));
                assert_eq!(is_quiet, is_position || is_own || (key == "status" && me == Some("a")), "{key} {me:?}");
            }
        }
    }

    #[test]
    fn positions_of_others_wake_nobody() {
        let after = with(
            "members/b",
            json!({"timeline": 2, "role": "replica", "state": "running", "xlog_location": 9, "replay_lsn": 9,
                "receive_lsn": 9, "tags": {"x": 1}}),
        );
        assert!(!wakes(&after, "a") && !wakes(&after, "b") && !wakes(&after, "c"));
    }

    #[test]
    fn nothing_changed_or_only_versions_and_other_documents_wakes_nobody() {
        assert!(!wakes(&view(&base()), "b"));
        let mut after = view(&base());
        after.members[0].version.0 += 5;
        after.failover = Some(FailoverKey { version: crate::cluster::Version(99), ..FailoverKey::default() });
        after.history = Some(History { raw: json!([]) });
        after.failsafe = Some(Default::default());
        assert!(!wakes(&after, "b"));
        assert!(!wakes(&without("failover"), "b"));
    }

    #[test]
    fn news_wakes_everybody() {
        let news = [
            with("leader", json!("b")),
            without("leader"),
            with("leader", json!("")),
            with("config", json!({"ttl": 31})),
            without("config"),
            without("initialize"),
            with("initialize", json!("")),
            with("failover", json!({"leader": "a"})),
            with("sync", json!({"leader": "a", "quorum": 0, "sync_standby": null})),
            with("members/c", json!({})),
            without("members/b"),
        ];
        for after in news {
            assert!(wakes(&after, "a") && wakes(&after, "b") && wakes(&after, "z"), "{after:?}");
        }
    }

    #[test]
    fn other_fields_of_another_member_wake() {
        for (field, value) in [
            ("state", json!("stopped")),
            ("role", json!("promoted")),
            ("tags", json!({"x": 2})),
            ("api_url", json!("http://other")),
            ("conn_url", json!("postgres://other")),
            ("pause", json!(true)),
            ("pending_restart", json!(true)),
            ("checkpoint_after_promote", json!(false)),
            ("replication_state", json!("streaming")),
        ] {
            let mut after = view(&base());
            after.members[1].data.insert(field.to_owned(), value);
            assert!(wakes(&after, "a"), "{field}");
            assert!(!wakes(&after, "b"), "own {field}");
        }
        let mut after = view(&base());
        after.members[1].data.remove("tags");
        assert!(wakes(&after, "a"));
    }

    #[test]
    fn the_own_key_gone_is_news_and_its_coming_is_not() {
        assert!(wakes(&without("members/b"), "b"));
        assert!(!significant(&without("members/b"), &view(&base()), Some("b")));
    }

    #[test]
    fn status_wakes_all_but_the_leader() {
        let mut after = view(&base());
        after.status.optime = Some(Lsn(2));
        assert!(!wakes(&after, "a"));
        assert!(wakes(&after, "b"));
        assert!(significant(&view(&base()), &after, None));
    }

    #[test]
    fn other_groups_wake_only_an_onlooker() {
        let mut after = view(&base());
        after.workers.insert(1, view(&base()));
        assert!(!wakes(&after, "b"));
        assert!(significant(&view(&base()), &after, None));
        assert!(!significant(&after, &after.clone(), None));
    }
}
