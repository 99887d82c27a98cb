//! Clusters for tests, stating only what a case is about.

use serde_json::{Map, Value, json};

use super::{ClusterView, ConfigKey, FailoverKey, LeaderKey, Lsn, Member, MemberName, Session, Version};

/// Builds a healthy cluster on timeline 1 at LSN 1000; the first member leads unless told otherwise.
#[derive(Clone, Debug)]
pub struct ClusterBuilder {
    view: ClusterView,
}

impl ClusterBuilder {
    /// These members, all running.
    pub fn new(names: &[&str]) -> Self {
        let mut view = ClusterView {
            initialize: Some("7710267184385916675".into()),
            config: Some(ConfigKey { version: Version(1), document: Some(config()) }),
            ..ClusterView::default()
        };
        view.status.optime = Some(Lsn(1000));
        view.members = names.iter().enumerate().map(|(i, name)| member(name, i == 0)).collect();
        let mut builder = Self { view };
        if let Some(first) = names.first() {
            builder = builder.leader(first);
        }
        builder
    }

    /// Another leader.
    #[must_use]
    pub fn leader(mut self, name: &str) -> Self {
        self.view.leader = Some(LeaderKey {
            name: MemberName::from(name),
            version: Version(2),
            session: Some(Session(format!("lease-{name}"))),
        });
        self
    }

    /// Nobody leads.
    #[must_use]
    pub fn unlocked(mut self) -> Self {
        self.view.leader = None;
        self
    }

    /// A switchover or failover was asked for.
    #[must_use]
    pub fn failover(mut self, leader: Option<&str>, candidate: Option<&str>) -> Self {
        self.view.failover = Some(FailoverKey {
            version: Version(7),
            leader: leader.map(MemberName::from),
            candidate: candidate.map(MemberName::from),
            scheduled_at: None,
        });
        self
    }

    /// A field of one member's value.
    #[must_use]
    pub fn member_field(mut self, name: &str, key: &str, value: Value) -> Self {
        if let Some(member) = self.view.members.iter_mut().find(|member| member.name == name) {
            member.data.insert(key.into(), value);
        }
        self
    }

    /// Anything else.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut ClusterView)) -> Self {
        change(&mut self.view);
        self
    }

    /// The cluster.
    pub fn build(self) -> ClusterView {
        self.view
    }
}

fn config() -> Map<String, Value> {
    let mut document = Map::new();
    document.insert("ttl".into(), json!(30));
    document
}

fn member(name: &str, leads: bool) -> Member {
    let value = json!({
        "conn_url": format!("postgres://{name}:5432/postgres"),
        "api_url": format!("http://{name}:8008/patroni"),
        "state": "running",
        "role": if leads { "primary" } else { "replica" },
        "version": "4.1.5",
        "xlog_location": 1000,
        "timeline": 1
    });
    let data = value.as_object().cloned().unwrap_or_default();
    Member { name: name.into(), version: Version(3), session: Some(Session(format!("lease-{name}"))), data }
}
