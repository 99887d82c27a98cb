//! The cluster-wide settings out of `/config`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::cluster::tags::is_truthy;

use super::finding::Finding;
use super::merge::text;
use super::reader::{Findings, Section};

/// The dynamic configuration, read: every value has its default and bounds applied. `document` is what stands in the
/// DCS; adjusted timing is not written back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dynamic {
    /// What the timing was held to.
    #[serde(default)]
    pub limits: Limits,
    /// Life of the leases.
    pub ttl: Duration,
    /// Period of the loop.
    pub loop_wait: Duration,
    /// Budget of one DCS operation.
    pub retry_timeout: Duration,
    /// A standby further behind than this does not race, in bytes.
    pub maximum_lag_on_failover_bytes: u64,
    /// A standby further behind than this is not picked as synchronous, in bytes; `None` is off.
    pub maximum_lag_on_syncnode_bytes: Option<u64>,
    /// How many lines `/history` keeps; 0 is all.
    pub max_timelines_history: usize,
    /// Compare timelines in the race.
    pub check_timeline: bool,
    /// How long a crashed primary may take to come back; zero: fail over at once.
    pub primary_start_timeout: Duration,
    /// How long a stop may take in synchronous mode; zero is no limit.
    pub primary_stop_timeout: Duration,
    /// Standbys that still receive WAL stand back this long.
    pub primary_race_backoff: Duration,
    /// Synchronous replication; off in a standby cluster, whatever is configured.
    pub synchronous_mode: SynchronousMode,
    /// Block commits rather than run without a synchronous standby.
    pub synchronous_mode_strict: bool,
    /// How many synchronous standbys.
    pub synchronous_node_count: usize,
    /// Stay primary while the DCS is away and every member agrees.
    pub failsafe_mode: bool,
    /// Maintenance mode.
    pub pause: bool,
    /// How long the slot of an absent member is kept; zero: not at all.
    pub member_slots_ttl: Duration,
    /// Permanent slots, as configured.
    pub slots: Map<String, Value>,
    /// Matchers of slots that are not ours.
    pub ignore_slots: Vec<Value>,
    /// The standby cluster section, when it names a host, a port or a restore command.
    pub standby_cluster: Option<StandbyCluster>,
    /// Member slots are used (`postgresql.use_slots`).
    pub use_slots: bool,
    /// The document.
    pub document: Map<String, Value>,
}

/// Old names of settings, which count while the new one is not there.
const OLD_NAMES: [(&str, &str); 2] =
    [("primary_start_timeout", "master_start_timeout"), ("primary_stop_timeout", "master_stop_timeout")];

/// Settings whose values bring their own integers: name, default, Patroni's minimum, our minimum, all in seconds.
const TIMING: [(&str, i64, i64, i64); 3] = [("loop_wait", 10, 1, 1), ("retry_timeout", 10, 3, 1), ("ttl", 30, 20, 5)];

/// How far down the timing may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limits {
    /// As far as we can keep up with, while every member is ours: `ttl` 5, `loop_wait` 1, `retry_timeout` 1.
    #[default]
    Ours,
    /// As far as Patroni goes, while one of the members is Patroni's: all members must count by the same timing, and
    /// it would not follow. `ttl` 20, `loop_wait` 1, `retry_timeout` 3.
    Patroni,
}

impl Default for Dynamic {
    fn default() -> Self {
        Self {
            limits: Limits::Ours,
            ttl: Duration::from_secs(30),
            loop_wait: Duration::from_secs(10),
            retry_timeout: Duration::from_secs(10),
            maximum_lag_on_failover_bytes: 1_048_576,
            maximum_lag_on_syncnode_bytes: None,
            max_timelines_history: 0,
            check_timeline: false,
            primary_start_timeout: Duration::from_secs(300),
            primary_stop_timeout: Duration::ZERO,
            primary_race_backoff: Duration::ZERO,
            synchronous_mode: SynchronousMode::Off,
            synchronous_mode_strict: false,
            synchronous_node_count: 1,
            failsafe_mode: false,
            pause: false,
            member_slots_ttl: Duration::from_secs(1800),
            slots: Map::new(),
            ignore_slots: Vec::new(),
            standby_cluster: None,
            use_slots: true,
            document: Map::new(),
        }
    }
}

impl Dynamic {
    /// Reads a dynamic configuration when there was none before.
    pub fn from_document(document: &Map<String, Value>) -> (Self, Vec<Finding>) {
        Self::default().after(document)
    }

    /// Reads the dynamic configuration that comes after this one.
    ///
    /// A setting that cannot be read falls back to its default. Not so `ttl`, `loop_wait`, `retry_timeout` and the
    /// section `postgresql`: if one of them is unusable, all of them keep the values from before (with a finding of
    /// severity error), while the other settings take effect. Timing that does not fit together is adjusted here and
    /// not in the document. The limits are those from before.
    pub fn after(&self, document: &Map<String, Value>) -> (Self, Vec<Finding>) {
        let findings = Findings::default();
        let top = Section::top(document, &findings);
        let mut settings = Self::read(&top);
        settings.document = document.clone();
        settings.limits = self.limits;
        match check_postgresql(document).and_then(|()| timing(document, self.limits, &findings)) {
            Ok([loop_wait, retry_timeout, ttl]) => {
                (settings.loop_wait, settings.retry_timeout, settings.ttl) = (loop_wait, retry_timeout, ttl);
            }
            Err((path, reason)) => {
                findings.add(Finding::error(path, format!("Exception when setting dynamic_configuration: {reason}")));
                settings.loop_wait = self.loop_wait;
                settings.retry_timeout = self.retry_timeout;
                settings.ttl = self.ttl;
                settings.use_slots = self.use_slots;
            }
        }
        (settings, findings.into_vec())
    }

    fn read(top: &Section<'_>) -> Self {
        let defaults = Self::default();
        let standby_cluster = StandbyCluster::read(&top.section("standby_cluster"));
        let use_slots = top.map().and_then(|map| map.get("postgresql")?.as_object()?.get("use_slots"));
        let lag = top.integer("maximum_lag_on_failover", None);
        let sync_lag = top.integer("maximum_lag_on_syncnode", None).unwrap_or(-1);
        let history = top.integer("max_timelines_history", None).unwrap_or(0);
        Self {
            maximum_lag_on_failover_bytes: lag.map_or(1_048_576, |lag| u64::try_from(lag).unwrap_or(0)),
            maximum_lag_on_syncnode_bytes: u64::try_from(sync_lag).ok().filter(|lag| *lag > 0),
            max_timelines_history: usize::try_from(history).unwrap_or(0),
            check_timeline: top.flag("check_timeline", false),
            primary_start_timeout: seconds(top, "primary_start_timeout", 300),
            primary_stop_timeout: seconds(top, "primary_stop_timeout", 0),
            primary_race_backoff: seconds(top, "primary_race_backoff", 0),
            // A standby cluster has no say in what its upstream waits for.
            synchronous_mode: match standby_cluster {
                Some(_) => SynchronousMode::Off,
                None => SynchronousMode::read(top),
            },
            synchronous_mode_strict: top.flag("synchronous_mode_strict", false),
            synchronous_node_count: top
                .integer("synchronous_node_count", None)
                .and_then(|count| usize::try_from(count).ok())
                .unwrap_or(1)
                .max(1),
            failsafe_mode: top.flag("failsafe_mode", false),
            pause: top.flag("pause", false),
            member_slots_ttl: seconds(top, "member_slots_ttl", 1800),
            slots: slots(top),
            ignore_slots: match top.value("ignore_slots") {
                Some(Value::Array(matchers)) => matchers.clone(),
                Some(other) if is_truthy(other) => {
                    top.warn("ignore_slots", "ignore_slots is not a list and is ignored");
                    Vec::new()
                }
                _ => Vec::new(),
            },
            standby_cluster,
            use_slots: use_slots.is_none_or(is_truthy),
            ..defaults
        }
    }

    /// Whether the document's timing means something else under the other limits.
    pub fn is_timing_limited(&self) -> bool {
        let under = |limits| timing(&self.document, limits, &Findings::default()).ok();
        under(Limits::Ours) != under(Limits::Patroni)
    }

    /// Whether this whole cluster replicates from another one.
    pub fn is_standby_cluster(&self) -> bool {
        self.standby_cluster.is_some()
    }

    /// Whether the primary waits for standbys, in either way.
    pub fn is_synchronous(&self) -> bool {
        self.synchronous_mode != SynchronousMode::Off
    }

    /// Whether any of several standbys may confirm a commit.
    pub fn is_quorum(&self) -> bool {
        self.synchronous_mode == SynchronousMode::Quorum
    }

    /// How many standbys must at least be synchronous: one in strict mode.
    pub fn minimum_sync_standbys(&self) -> usize {
        usize::from(self.is_synchronous() && self.synchronous_mode_strict)
    }
}

fn seconds(top: &Section<'_>, name: &str, default: u64) -> Duration {
    let old_name = OLD_NAMES.iter().find(|(new, _)| *new == name).map(|(_, old)| *old);
    let is_absent = !top.map().is_some_and(|map| map.contains_key(name));
    let name = old_name.filter(|_| is_absent).unwrap_or(name);
    let number = top.integer(name, Some("s"));
    Duration::from_secs(number.map_or(default, |number| u64::try_from(number).unwrap_or(0)))
}

/// Permanent slots: the first of three names that is not empty.
fn slots(top: &Section<'_>) -> Map<String, Value> {
    let names = ["permanent_replication_slots", "permanent_slots", "slots"];
    let Some(name) = names.into_iter().find(|name| top.value(name).is_some_and(is_truthy)) else {
        return Map::new();
    };
    top.section(name).map().cloned().unwrap_or_default()
}

/// The part that the server's configuration is made of must have the right shape.
fn check_postgresql(document: &Map<String, Value>) -> Result<(), (&'static str, String)> {
    let Some(section) = document.get("postgresql").filter(|section| is_truthy(section)) else { return Ok(()) };
    let Value::Object(section) = section else {
        return Err(("postgresql", "postgresql is not a mapping".to_owned()));
    };
    match section.get("parameters").filter(|parameters| is_truthy(parameters)) {
        Some(parameters) if !parameters.is_object() => {
            Err(("postgresql.parameters", "postgresql.parameters is not a mapping".to_owned()))
        }
        _ => Ok(()),
    }
}

/// `loop_wait`, `retry_timeout` and `ttl`, brought above their minimum and into proportion: a leader must be able to
/// try twice within the life of its lease.
fn timing(
    document: &Map<String, Value>,
    limits: Limits,
    findings: &Findings,
) -> Result<[Duration; 3], (&'static str, String)> {
    let mut values = [0; 3];
    for ((name, default, theirs, ours), slot) in TIMING.into_iter().zip(&mut values) {
        let minimum = if limits == Limits::Ours { ours } else { theirs };
        let value = match document.get(name) {
            None => default,
            Some(value) => {
                python_int(value).ok_or_else(|| (name, format!("{name}='{}' is not an integer", text(value))))?
            }
        };
        if value < minimum {
            findings
                .add(Finding::warning(name, format!("{name}={value} can't be smaller than {minimum}, adjusting...")));
        }
        // More than a week is no timing; it only has to stay clear of overflow.
        *slot = value.clamp(minimum, 604_800);
    }
    let [mut loop_wait, mut retry_timeout, ttl] = values;
    let rule = "Violated the rule \"loop_wait + 2*retry_timeout <= ttl\", where";
    if 1 + 2 * retry_timeout > ttl {
        let smaller = (ttl - 1) / 2;
        findings.add(Finding::warning(
            "ttl",
            format!(
                "{rule} ttl={ttl}. Adjusting loop_wait from {loop_wait} to 1 and retry_timeout from {retry_timeout} \
                 to {smaller}"
            ),
        ));
        (loop_wait, retry_timeout) = (1, smaller);
    } else if loop_wait + 2 * retry_timeout > ttl {
        let smaller = ttl - 2 * retry_timeout;
        findings.add(Finding::warning(
            "ttl",
            format!(
                "{rule} ttl={ttl} and retry_timeout={retry_timeout}. Adjusting loop_wait from {loop_wait} to {smaller}"
            ),
        ));
        loop_wait = smaller;
    }
    Ok([loop_wait, retry_timeout, ttl].map(|seconds| Duration::from_secs(seconds.unsigned_abs())))
}

/// What Python's `int` makes of a value: floats are cut, booleans are 0 and 1, text must be decimal.
fn python_int(value: &Value) -> Option<i64> {
    match value {
        Value::Bool(flag) => Some(i64::from(*flag)),
        Value::Number(number) => number.as_i64().or_else(|| number.as_f64().map(|float| float as i64)),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// `synchronous_mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SynchronousMode {
    /// Asynchronous.
    #[default]
    Off,
    /// Named standbys, by priority.
    Priority,
    /// Any of several standbys.
    Quorum,
}

/// `standby_cluster`: where this whole cluster replicates from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyCluster {
    /// Remote host or hosts.
    pub host: Option<String>,
    /// Remote port.
    pub port: Option<u16>,
    /// Slot on the remote primary.
    pub primary_slot_name: Option<String>,
    /// How replicas are made.
    pub create_replica_methods: Vec<String>,
    /// Restore command.
    pub restore_command: Option<String>,
    /// Archive cleanup command.
    pub archive_cleanup_command: Option<String>,
    /// Apply delay, as configured.
    pub recovery_min_apply_delay: Option<String>,
}

impl SynchronousMode {
    fn read(top: &Section<'_>) -> Self {
        match top.value("synchronous_mode") {
            Some(Value::String(text)) if text.eq_ignore_ascii_case("quorum") => Self::Quorum,
            _ if top.flag("synchronous_mode", false) => Self::Priority,
            _ => Self::Off,
        }
    }
}

impl StandbyCluster {
    /// `None` unless the section says where to replicate from.
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let is_given = |key: &str| section.value(key).is_some_and(is_truthy);
        if !["host", "port", "restore_command"].into_iter().any(is_given) {
            return None;
        }
        let port = section.integer("port", None);
        if port.is_some_and(|port| u16::try_from(port).is_err()) {
            section.warn("port", "standby_cluster.port is no port number; the default is used");
        }
        Some(Self {
            host: section.text("host"),
            port: port.and_then(|port| u16::try_from(port).ok()),
            primary_slot_name: section.text("primary_slot_name"),
            create_replica_methods: section.texts("create_replica_methods").unwrap_or_default(),
            restore_command: section.text("restore_command"),
            archive_cleanup_command: section.text("archive_cleanup_command"),
            recovery_min_apply_delay: section.text("recovery_min_apply_delay"),
        })
    }
}

#[cfg(test)]
mod tests;
