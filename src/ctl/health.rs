//! Whether a cluster is as it should be, what is not, and which of its members are of interest. Pure.

use crate::cluster::Lag;

use super::commands::list::{MembersView, Part, Row, ShownRole};
use super::render::ours::bytes;
use super::targets::RoleFilter;

impl MembersView {
    /// All members, of whichever group.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.parts.iter().flat_map(|part| &part.rows)
    }

    /// Hides the members that do not have this role, or are not among those named.
    pub fn show_only(&mut self, role: Option<RoleFilter>, names: &[String]) {
        for row in self.parts.iter_mut().flat_map(|part| &mut part.rows) {
            let is_named = names.is_empty() || names.contains(&row.name);
            row.is_shown = is_named && role.is_none_or(|role| has_role(row, role));
        }
    }

    /// What is not as it should be, a sentence each.
    pub fn problems(&self) -> Vec<String> {
        if self.is_unknown {
            return vec!["nothing is known of it".to_owned()];
        }
        let is_alone = self.parts.len() == 1;
        let of_part = |part: &Part| -> Vec<String> {
            let which = if is_alone { String::new() } else { format!("group {}: ", part.group) };
            problems(part).into_iter().map(|problem| format!("{which}{problem}")).collect()
        };
        self.parts.iter().flat_map(of_part).collect()
    }
}

fn has_role(row: &Row, role: RoleFilter) -> bool {
    match role {
        RoleFilter::Any => true,
        RoleFilter::Leader => row.role.is_leader(),
        RoleFilter::Primary => row.role == ShownRole::Leader,
        RoleFilter::StandbyLeader => row.role == ShownRole::StandbyLeader,
        RoleFilter::Replica | RoleFilter::Standby => !row.role.is_leader(),
    }
}

/// What is wrong with one cluster, or with one group of it.
pub fn problems(part: &Part) -> Vec<String> {
    let mut problems = Vec::new();
    if part.leader.is_none() {
        problems.push("there is no leader".to_owned());
    }
    let leader = part.rows.iter().find(|row| Some(&row.name) == part.leader.as_ref());
    if let (Some(name), None) = (&part.leader, leader) {
        problems.push(format!("its leader {name} has published nothing"));
    }
    for row in &part.rows {
        problems.extend(of_member(row, leader, part.lag_limit));
    }
    let has_sync = part.rows.iter().any(|row| matches!(row.role, ShownRole::SyncStandby | ShownRole::QuorumStandby));
    if part.mode.is_synchronous && !has_sync && part.rows.len() > 1 {
        problems.push("replication is to be synchronous, and no standby is".to_owned());
    }
    problems
}

fn of_member(row: &Row, leader: Option<&Row>, lag_limit: u64) -> Option<String> {
    let name = &row.name;
    let state = if row.state.is_empty() { "in an unknown state" } else { &row.state };
    let serves = match row.role {
        ShownRole::Leader => state == "running",
        _ => matches!(state, "streaming" | "in archive recovery"),
    };
    if !serves {
        let how = if state == "running" { "running, but not replicating from anywhere" } else { state };
        return Some(format!("{name} is {how}"));
    }
    let leader = leader.filter(|leader| leader.name != *name)?;
    if let (Some(own), Some(theirs)) = (&row.timeline, &leader.timeline)
        && own != theirs
    {
        return Some(format!("{name} is on timeline {own}, and the leader on {theirs}"));
    }
    match row.positions?.1.lag {
        Lag::Bytes(lag) if lag > lag_limit => Some(format!("{name} is {} behind the leader", bytes(lag))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{ClusterView, Lsn};
    use crate::ctl::commands::list::{Position, view};
    use crate::ctl::context::Groups;
    use crate::dcs::layout::{KeyValue, Layout};

    fn cluster(keys: &[(&str, &str)]) -> ClusterView {
        let keys: Vec<KeyValue> =
            keys.iter().map(|(key, value)| KeyValue::new(format!("/service/demo/{key}"), *value)).collect();
        Layout::new("service", "demo", None).view(&keys)
    }

    const LEADER: (&str, &str) = ("members/pg1", r#"{"state": "running", "role": "primary", "timeline": 7}"#);
    const STANDBY: (&str, &str) = (
        "members/pg2",
        r#"{"state": "running", "role": "replica", "replication_state": "streaming", "timeline": 7, "replay_lsn": 100}"#,
    );
    const STATUS: (&str, &str) = ("status", r#"{"optime": 100, "retain_slots": ["pg1", "pg2"]}"#);

    fn seen(keys: &[(&str, &str)]) -> MembersView {
        view("demo", Groups::Plain, &cluster(keys), false)
    }

    #[test]
    fn nothing_is_wrong_with_a_whole_cluster() {
        assert_eq!(seen(&[("leader", "pg1"), LEADER, STANDBY, STATUS]).problems(), Vec::<String>::new());
    }

    #[test]
    fn what_is_wrong_is_said_once_each() {
        let problems = |keys: &[(&str, &str)]| seen(keys).problems().join("; ");
        assert_eq!(
            problems(&[LEADER, STANDBY, STATUS]),
            "there is no leader; pg1 is running, but not replicating from anywhere"
        );
        let stopped = ("members/pg2", r#"{"state": "stopped"}"#);
        assert_eq!(problems(&[("leader", "pg1"), LEADER, stopped, STATUS]), "pg2 is stopped");
        let old = ("members/pg2", r#"{"replication_state": "streaming", "timeline": 6}"#);
        assert_eq!(problems(&[("leader", "pg1"), LEADER, old]), "pg2 is on timeline 6, and the leader on 7");
        let far = ("status", r#"{"optime": 3000000}"#);
        assert_eq!(problems(&[("leader", "pg1"), LEADER, STANDBY, far]), "pg2 is 2.9 MB behind the leader");
        let sync = ("config", r#"{"synchronous_mode": true}"#);
        let said = problems(&[("leader", "pg1"), LEADER, STANDBY, STATUS, sync]);
        assert_eq!(said, "replication is to be synchronous, and no standby is");
        assert_eq!(problems(&[]), "nothing is known of it");
    }

    #[test]
    fn members_are_found_by_role_and_name() {
        let mut view = seen(&[("leader", "pg1"), LEADER, STANDBY]);
        let mut shown = |role, names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            view.show_only(role, &names);
            view.rows().filter(|row| row.is_shown).map(|row| row.name.clone()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(shown(None, &[]), "pg1 pg2");
        assert_eq!(shown(Some(RoleFilter::Leader), &[]), "pg1");
        assert_eq!(shown(Some(RoleFilter::StandbyLeader), &[]), "");
        assert_eq!(shown(Some(RoleFilter::Replica), &["pg1", "pg2"]), "pg2");
        assert_eq!(shown(None, &["pg9"]), "");
    }

    #[test]
    fn an_unknown_lag_is_not_a_large_one() {
        let mut view = seen(&[("leader", "pg1"), LEADER, STANDBY]);
        let unknown = Position { lsn: Some(Lsn(1)), lag: Lag::Unknown };
        view.parts[0].rows[1].positions = Some((unknown, unknown));
        assert!(view.problems().is_empty());
    }
}
