//! `GET /metrics`: the node status in Prometheus's text format.

use std::fmt::{Display, Write as _};

use crate::COMPATIBLE_VERSION;
use crate::cluster::{Role, State};
use crate::config::SynchronousMode;

use super::moment::Moment;
use super::status::Picture;

/// Content type of the answer.
pub const CONTENT_TYPE: &str = "text/plain";

struct Page {
    labels: String,
    text: String,
}

impl Page {
    fn metric(&mut self, kind: &str, name: &str, help: &str, value: impl Display) {
        // Writing to a String cannot fail.
        let _ = write!(
            self.text,
            "# HELP patroni_{name} {help}\n# TYPE patroni_{name} {kind}\npatroni_{name}{} {value}\n",
            self.labels
        );
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.metric("gauge", name, help, value);
    }

    fn flag(&mut self, name: &str, help: &str, is_set: bool) {
        self.gauge(name, help, u8::from(is_set));
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.metric("counter", name, help, value);
    }
}

/// The whole page.
pub fn render(picture: &Picture<'_>) -> String {
    let facts = picture.facts;
    let labels = format!("{{scope=\"{}\",name=\"{}\"}}", label(&facts.scope), label(&facts.name));
    let mut page = Page { labels, text: String::with_capacity(8192) };
    server(&mut page, picture);
    cluster(&mut page, picture);
    page.text
}

fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn seconds(text: Option<&str>) -> String {
    match text.and_then(|text| Moment::parse(text).ok()) {
        Some(moment) => format!("{:?}", moment.epoch_seconds()),
        None => "0".to_owned(),
    }
}

fn server(page: &mut Page, picture: &Picture<'_>) {
    let (live, role) = (picture.live, picture.role());
    let standby = live.filter(|live| live.in_recovery);
    let version: String = COMPATIBLE_VERSION.split('.').map(|part| format!("{part:0>2}")).collect();
    page.gauge("version", "Version of Patroni that this agent is compatible with.", version);
    page.flag("postgres_running", "PostgreSQL runs.", picture.state() == State::Running.as_str());
    let started = seconds(live.and_then(|live| live.postmaster_start_time.as_deref()));
    page.gauge("postmaster_start_time", "When PostgreSQL was started, seconds since the epoch.", started);
    page.flag("primary", "PostgreSQL is a primary.", role == Role::Primary);
    let location = live.filter(|live| !live.in_recovery).map_or(0, |live| live.location.0);
    page.counter("xlog_location", "Flushed WAL position of a primary.", location);
    page.flag("standby_leader", "PostgreSQL leads a standby cluster.", role == Role::StandbyLeader);
    page.flag("replica", "PostgreSQL is a replica.", role == Role::Replica);
    page.flag("sync_standby", "A synchronous standby.", picture.is_synchronous(SynchronousMode::Priority));
    page.flag("quorum_standby", "A quorum standby.", picture.is_synchronous(SynchronousMode::Quorum));
    page.counter("xlog_received_location", "Received WAL position.", standby.map_or(0, |live| live.received.0));
    page.counter("xlog_replayed_location", "Replayed WAL position.", standby.map_or(0, |live| live.replayed.0));
    let replayed = seconds(standby.and_then(|live| live.replayed_timestamp.as_deref()));
    page.gauge("xlog_replayed_timestamp", "Commit time of the last replayed transaction.", replayed);
    page.flag("xlog_paused", "Replay is paused.", standby.is_some_and(|live| live.is_replay_paused));
    if live.is_some_and(|live| live.server_version >= 90_600) {
        let state = picture.replication_state();
        page.flag("postgres_streaming", "Streams WAL.", state == Some("streaming"));
        page.flag("postgres_in_archive_recovery", "Reads WAL from the archive.", state == Some("in archive recovery"));
    }
    let version = live.map_or(0, |live| live.server_version);
    page.gauge("postgres_server_version", "Version of PostgreSQL, 0 when it does not run.", version);
}

fn cluster(page: &mut Page, picture: &Picture<'_>) {
    let facts = picture.facts;
    page.flag("cluster_unlocked", "The cluster has no leader.", picture.is_unlocked());
    page.flag("failsafe_mode_is_active", "Failsafe mode is in effect.", facts.is_failsafe_active);
    page.flag("failsafe_mode_enabled", "Failsafe mode is configured.", picture.dynamic.failsafe_mode);
    let is_listed = facts.failsafe.as_ref().is_some_and(|members| members.contains_key(&facts.name));
    page.flag("failsafe_member", "This member is in the failsafe list.", is_listed);
    let timeline = picture.live.and_then(|live| live.timeline).map_or(0, |timeline| timeline.0);
    page.gauge("postgres_timeline", "Timeline of PostgreSQL, 0 when unknown.", timeline);
    page.gauge("dcs_last_seen", "Last successful contact with the DCS, seconds since the epoch.", facts.dcs_last_seen);
    page.flag("pending_restart", "A parameter waits for a restart.", !facts.pending_restart.is_empty());
    page.flag("is_paused", "Maintenance mode.", picture.dynamic.pause);
    let values: Vec<String> = State::ALL.iter().map(|state| format!("{}={}", state.number(), word(*state))).collect();
    let number = State::ALL.iter().find(|state| state.as_str() == picture.state()).map(|state| state.number());
    let number = number.map_or("-1".to_owned(), |number| number.to_string());
    let help = format!("What PostgreSQL does, -1 when unknown.\n# Values: {}", values.join(", "));
    page.gauge("postgres_state", &help, number);
    page.gauge("failover_priority", "Preference in a failover, 0 is never.", facts.tags.failover_priority());
}

/// A state's identifier, which is not its text in answers.
fn word(state: State) -> &'static str {
    match state {
        State::Initdb => "initdb",
        State::InitdbFailed => "initdb_failed",
        State::CustomBootstrap => "custom_bootstrap",
        State::CustomBootstrapFailed => "custom_bootstrap_failed",
        State::CreatingReplica => "creating_replica",
        State::Running => "running",
        State::Starting => "starting",
        State::BootstrapStarting => "bootstrap_starting",
        State::StartFailed => "start_failed",
        State::Restarting => "restarting",
        State::RestartFailed => "restart_failed",
        State::Stopping => "stopping",
        State::Stopped => "stopped",
        State::StopFailed => "stop_failed",
        State::Crashed => "crashed",
    }
}
