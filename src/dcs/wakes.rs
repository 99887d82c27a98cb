//! Which changes of a cluster are worth waking a loop for. Pure.
//!
//! WAL positions move all the time and wake nobody, except through `status`: the holder writes it once per cycle,
//! and the others follow in step.

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
    let came_or_changed = |member: &Member| before.member(&member.name).is_none_or(|old| is_changed(old, member));
    went || after.members.iter().filter(|member| !is_me(member)).any(came_or_changed)
}

fn is_changed(before: &Member, after: &Member) -> bool {
    let is_news = |key: &str| !POSITIONS.contains(&key);
    // Written in the same order, as they nearly always are, they need not be looked up one by one.
    if before.data.iter().filter(|(key, _)| is_news(key)).eq(after.data.iter().filter(|(key, _)| is_news(key))) {
        return false;
    }
    let differs = |key: &String| before.data.get(key) != after.data.get(key);
    before.data.keys().chain(after.data.keys()).filter(|key| is_news(key)).any(differs)
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
