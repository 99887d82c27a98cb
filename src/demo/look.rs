//! The cluster as seen from outside: the store's documents and the servers' own answers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};
use tokio_util::task::AbortOnDropHandle;

use crate::cluster::{ClusterView, Role};
use crate::config::{DcsConfig, Etcd3Config};
use crate::ctl::commands::list;
use crate::ctl::context::Groups;
use crate::ctl::render::{Format, Look, members};
use crate::dcs::{self, Dcs, Identity, Timing};

use super::error::{DemoError, chain};
use super::files::SCOPE;
use super::plan::Plan;

/// One question to the store or to a server.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks at the cluster.
#[derive(Clone)]
pub(super) struct Eyes {
    dcs: Arc<dyn Dcs>,
    plan: Arc<Plan>,
}

/// Rows of text.
pub(super) type Rows = Vec<Vec<String>>;

impl Eyes {
    /// Nothing is connected to yet.
    pub(super) async fn open(plan: &Arc<Plan>) -> Result<Self, DemoError> {
        let hosts = vec![format!("127.0.0.1:{}", plan.store_port)];
        let config = DcsConfig::Etcd3(Etcd3Config { hosts, ..Etcd3Config::default() });
        let timing = Timing { retry_timeout: PATIENCE, ..Timing::default() };
        let dcs = dcs::connect(&config, "service", SCOPE, None, Identity::Operator, timing).await;
        let dcs = dcs.map_err(|error| DemoError::new("cannot connect to the store").because(error))?;
        Ok(Self { dcs, plan: Arc::clone(plan) })
    }

    /// What the store says.
    pub(super) async fn view(&self) -> Result<ClusterView, String> {
        match timeout(PATIENCE, self.dcs.load()).await {
            Ok(view) => view.map_err(|error| chain(&error)),
            Err(_) => Err(format!("the store does not answer within {} s", PATIENCE.as_secs())),
        }
    }

    /// The leader by index, if these members are well: the leader writes, and the others stream from it. Else what is
    /// still missing.
    pub(super) async fn leader_of(&self, members: &[usize]) -> Result<usize, String> {
        let names: Vec<&str> = members.iter().map(|i| self.name(*i)).collect();
        let view = self.view().await?;
        let leader = condition(&view, &names)?;
        let leader = self.index(leader).ok_or_else(|| format!("{leader} leads, which is none of ours"))?;
        // Members publish when their loop turns; the leader's server knows now.
        let query = "SELECT pg_is_in_recovery(), count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        let rows = self.sql(leader, query).await?;
        match rows.first().map(Vec::as_slice) {
            Some([standby, count]) if standby == "f" && *count == (members.len() - 1).to_string() => Ok(leader),
            Some([standby, _]) if standby == "t" => Err(format!("{} is not writable yet", self.name(leader))),
            Some([_, count]) => Err(format!("{} sends WAL to {count} members only", self.name(leader))),
            _ => Err(format!("{} gave no answer", self.name(leader))),
        }
    }

    /// A member's name.
    pub(super) fn name(&self, i: usize) -> &str {
        &self.plan.members[i].name
    }

    fn index(&self, name: &str) -> Option<usize> {
        self.plan.members.iter().position(|member| member.name == name)
    }

    /// Runs a statement on one member.
    pub(super) async fn sql(&self, i: usize, query: &str) -> Result<Rows, String> {
        let name = self.name(i);
        let answer = async {
            let session = Session::open(&self.target(&[i])).await?;
            session.run(query).await
        };
        match timeout(PATIENCE, answer).await {
            Ok(answer) => answer.map_err(|error| format!("{name}: {}", chain(&error))),
            Err(_) => Err(format!("{name} does not answer within {} s", PATIENCE.as_secs())),
        }
    }

    /// One number out of a statement.
    pub(super) async fn number(&self, i: usize, query: &str) -> Result<u64, String> {
        let rows = self.sql(i, query).await?;
        let cell = rows.first().and_then(|row| row.first());
        cell.and_then(|cell| cell.parse().ok()).ok_or_else(|| format!("{}: no number came back", self.name(i)))
    }

    /// How to reach whichever of these members takes writes.
    pub(super) fn target(&self, members: &[usize]) -> Config {
        let mut config = Config::new();
        for i in members {
            config.host("127.0.0.1").port(self.plan.members[*i].port);
        }
        if members.len() > 1 {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        config.user("postgres").password(&self.plan.superuser_password).dbname("postgres");
        config.application_name("pgherd demo").connect_timeout(Duration::from_secs(2));
        config
    }
}

/// One connection, closed when dropped.
pub(super) struct Session {
    client: Client,
    _driver: AbortOnDropHandle<()>,
}

impl Session {
    /// Connects. The caller sets the limit.
    pub(super) async fn open(target: &Config) -> Result<Self, tokio_postgres::Error> {
        let (client, connection) = target.connect(NoTls).await?;
        let driver = tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Self { client, _driver: AbortOnDropHandle::new(driver) })
    }

    /// Runs statements; the rows of all of them.
    pub(super) async fn run(&self, query: &str) -> Result<Rows, tokio_postgres::Error> {
        let messages = self.client.simple_query(query).await?;
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|i| row.get(i).unwrap_or_default().to_owned()).collect())
            }
            _ => None,
        };
        Ok(messages.into_iter().filter_map(row).collect())
    }
}

/// The leader's name, if by the store one of these members leads and the others stream on its timeline; else what is
/// missing. Pure.
fn condition<'a>(view: &'a ClusterView, names: &[&str]) -> Result<&'a str, String> {
    let leader = view.leader_name().ok_or("no member leads")?.as_str();
    for name in names {
        let Some(member) = view.member(name) else { return Err(format!("{name} has not joined")) };
        let state = member.state_text();
        let is_well = if *name == leader {
            member.is_running() && member.role() == Some(Role::Primary)
        } else {
            member.is_running() && member.replication_state() == Some("streaming")
        };
        if !is_well {
            return Err(format!("{name} is {}", member.replication_state().unwrap_or(state)));
        }
        let theirs = view.leader_member().and_then(|leader| leader.timeline());
        if member.timeline() != theirs {
            return Err(format!("{name} is on another timeline than {leader}"));
        }
    }
    if names.contains(&leader) { Ok(leader) } else { Err(format!("{leader} holds the leader key still")) }
}

/// The tree that `pgherdctl topology` prints.
pub(super) fn topology(view: &ClusterView, width: Option<u16>, styled: bool) -> String {
    let shown = list::view(SCOPE, Groups::Plain, view, false);
    let shape = members::Shape { format: Format::Pretty, is_tree: true };
    members::as_pgherdctl(&[shown], shape, Look { width, styled })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{LeaderKey, Member};
    use serde_json::{Value, json};

    fn view(leader: &str, members: &[(&str, Value)]) -> ClusterView {
        let member = |(name, data): &(&str, Value)| Member {
            data: data.as_object().unwrap().clone(),
            ..Member::unknown((*name).into())
        };
        let leader = LeaderKey { name: leader.into(), version: Default::default(), session: None };
        ClusterView { leader: Some(leader), members: members.iter().map(member).collect(), ..Default::default() }
    }

    #[test]
    fn a_cluster_is_well_when_all_stream_on_the_leaders_timeline() {
        let primary = json!({"role": "primary", "state": "running", "timeline": 2});
        let standby = |timeline: u32, replication: &str| json!({"role": "replica", "state": "running", "timeline": timeline, "replication_state": replication});
        let with = |replica: Value| view("a", &[("a", primary.clone()), ("b", replica)]);
        assert_eq!(condition(&with(standby(2, "streaming")), &["a", "b"]), Ok("a"));
        let why = |view: &ClusterView, names: &[&str]| condition(view, names).unwrap_err();
        assert_eq!(why(&with(standby(1, "streaming")), &["a", "b"]), "b is on another timeline than a");
        assert_eq!(why(&with(standby(2, "in archive recovery")), &["a", "b"]), "b is in archive recovery");
        assert_eq!(why(&with(standby(2, "streaming")), &["a", "c"]), "c has not joined");
        assert_eq!(why(&with(standby(2, "streaming")), &["b"]), "a holds the leader key still");
        assert_eq!(why(&ClusterView::default(), &["a"]), "no member leads");
    }
}
