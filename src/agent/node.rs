//! The agent as the REST server sees it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::api;
use crate::api::{Command, FailsafePing, Live, NodeFacts, RunningAsLeader};
use crate::cluster::{ClusterView, FailoverKey, Lsn, MemberName, PeerAnswer, Version};
use crate::dcs::DcsError;
use crate::ha::{Reply, RequestKind};

use super::board::Board;
use super::gauge::Gauge;
use super::logging::Log;
use super::ports::Ports;

/// A health check waits no longer for PostgreSQL: load balancers ask often and give up soon.
const HEALTH_PATIENCE: Duration = Duration::from_millis(30);

/// A status waits longer: who asks for it wants to know.
const STATUS_PATIENCE: Duration = Duration::from_secs(2);

/// A server that did not answer a status query is asked again for so long.
const RETRY_FOR: Duration = Duration::from_secs(1);

/// Between two tries of a status query.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// The loop's board and ports, as the API's port.
pub(super) struct AgentNode {
    pub(super) board: Arc<Board>,
    pub(super) ports: Ports,
    pub(super) gauge: Arc<Gauge>,
    pub(super) scope: String,
    pub(super) log: Log,
}

#[async_trait]
impl api::Node for AgentNode {
    fn facts(&self) -> NodeFacts {
        let (holds_lock, log_queue) = (self.board.leads(), self.log.waiting());
        self.board.read(|state| NodeFacts {
            name: state.node.name.clone(),
            scope: self.scope.clone(),
            role: state.role,
            state: state.instance.state,
            holds_lock,
            failsafe: state.failsafe.clone(),
            is_failsafe_active: (state.failsafe_ping.as_ref().map(|(_, at)| at).into_iter())
                .chain(&state.failsafe_since)
                .any(|at| at.elapsed() < state.settings.ttl),
            dynamic: Arc::clone(&state.settings),
            tags: state.node.tags.published(),
            next_cycle: state.next_cycle,
            scheduled_restart: state.scheduled_restart.clone(),
            pending_restart: state.instance.pending_restart.clone(),
            watchdog_failed: state.is_watchdog_unusable,
            log_queue,
            advice: state.advice.clone(),
            dcs_last_seen: i64::try_from(state.dcs_last_seen).unwrap_or(i64::MAX),
            system_id: state.instance.system_id.clone(),
        })
    }

    async fn live(&self, retry: bool) -> Option<Arc<Live>> {
        if !retry {
            return self.gauge.read(HEALTH_PATIENCE).await;
        }
        let give_up = Instant::now() + RETRY_FOR;
        loop {
            let answer = self.gauge.read(STATUS_PATIENCE).await;
            if answer.is_some() || Instant::now() >= give_up {
                return answer;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
            // A server that is being stopped does not come back, and members that would take over wait for this answer.
            if !api::can_be_asked(&self.facts()) {
                return None;
            }
        }
    }

    fn snapshot(&self) -> Option<Arc<ClusterView>> {
        self.board.snapshot()
    }

    async fn load(&self) -> Result<Arc<ClusterView>, DcsError> {
        let limit = self.board.read(|state| state.settings.retry_timeout);
        let loaded = tokio::time::timeout(limit, self.ports.dcs.load()).await;
        match loaded.unwrap_or_else(|_| Err(DcsError::unavailable(format!("no answer within {limit:?}")))) {
            Ok(view) => {
                let view = Arc::new(view);
                self.board.loaded(&view, self.ports.clock.since_epoch());
                Ok(view)
            }
            Err(error) => {
                self.board.load_failed();
                Err(error)
            }
        }
    }

    async fn write_config(&self, document: &Map<String, Value>, expected: Option<Version>) -> Result<bool, DcsError> {
        self.ports.dcs.write_config(document, expected).await
    }

    async fn write_failover(&self, request: &FailoverKey, expected: Option<Version>) -> Result<bool, DcsError> {
        self.ports.dcs.write_failover(request, expected).await
    }

    fn journal(&self) -> Vec<String> {
        self.board.journal()
    }

    fn wake(&self) {
        self.board.wake_loop();
    }

    fn reload(&self) {
        self.board.order_reload();
    }

    async fn command(&self, command: Command) -> api::Reply {
        let request = match command {
            Command::Restart(request) => RequestKind::Restart(request),
            Command::ScheduleRestart(restart) => RequestKind::ScheduleRestart(restart),
            Command::CancelRestart => RequestKind::CancelRestart,
            Command::Reinitialize(request) => RequestKind::Reinitialize(request),
        };
        match self.board.ask(request).await {
            Reply::Ok(words) => api::Reply::Ok(words),
            Reply::Refused(words) => api::Reply::Refused(words),
        }
    }

    async fn ask_peers(&self, peers: &BTreeMap<MemberName, String>) -> BTreeMap<MemberName, PeerAnswer> {
        self.ports.peers.ask(peers).await
    }

    fn failsafe_ping(&self, ping: FailsafePing) -> Result<Option<Lsn>, RunningAsLeader> {
        self.board.promise(ping)
    }
}
