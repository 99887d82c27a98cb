//! What the loop is wired to. The simulator wires the same loop to a simulated world.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};
use tokio::runtime::Handle;

use crate::api::FailsafePing;
use crate::cluster::{Lsn, MemberName, PeerAnswer};
use crate::config::{Dynamic, PostgresConfig};
use crate::dcs::Dcs;
use crate::ha::Node;
use crate::io::clock::Clock;
use crate::postgres::Postgres;

use super::lead::FailsafeLead;

/// Questions to other members.
#[async_trait]
pub trait Peers: Send + Sync {
    /// Asks every member at once; each answer or failure is in after two seconds at most.
    async fn ask(&self, members: &BTreeMap<MemberName, String>) -> BTreeMap<MemberName, PeerAnswer>;

    /// Tells every member at once that we lead on without the DCS. It accepts that and says where it is, if it knows;
    /// or why it does not. Each answer or failure is in after `limit`.
    async fn tell_failsafe(
        &self,
        members: &BTreeMap<MemberName, String>,
        ping: &FailsafePing,
        limit: Duration,
    ) -> BTreeMap<MemberName, Result<Option<Lsn>, String>>;
}

/// What a change of the dynamic configuration makes of the local one.
#[derive(Clone, Debug)]
pub struct Configured {
    /// The cluster-wide settings.
    pub settings: Dynamic,
    /// The server's settings; `None` when they cannot be made of this document (the old ones stay).
    pub postgres: Option<Arc<PostgresConfig>>,
    /// Who we are.
    pub node: Node,
    /// What an operator should know about the documents.
    pub warnings: Vec<String>,
}

/// The local configuration, waiting to be combined with the dynamic one.
pub trait Configure: Send + Sync {
    /// Combines both. What the document spoils keeps its value from `before`.
    fn configure(&self, dynamic: &Map<String, Value>, before: &Dynamic) -> Configured;

    /// Reads the local files again. `Ok(false)`: nothing changed.
    fn reload(&self) -> Result<bool, String>;

    /// Keeps a copy of the dynamic configuration beside the data, for a start without the DCS.
    fn keep(&self, dynamic: &Map<String, Value>);

    /// Keeps on what we lead without the DCS, for an agent that is started meanwhile. `None`: the DCS is back, and what
    /// was kept counts no more.
    fn keep_lead(&self, lead: Option<&FailsafeLead>);
}

/// Everything the loop is wired to.
#[derive(Clone)]
pub struct Ports {
    /// The DCS.
    pub dcs: Arc<dyn Dcs>,
    /// The local server.
    pub postgres: Arc<dyn Postgres>,
    /// The other members.
    pub peers: Arc<dyn Peers>,
    /// The local configuration.
    pub configure: Arc<dyn Configure>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Where whatever takes longer than a step of a cycle is done: nothing there can hold the loop up.
    pub helpers: Handle,
}
