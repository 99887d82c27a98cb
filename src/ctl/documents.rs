//! The documents of `-f json` and `-f yaml`, as types: what stands here is what scripts may rely on.
//!
//! Every key is always there, `null` where nothing is known; numbers have their unit in the name. The schemas in
//! `tests/fixtures/schemas` are made from these types, and a test holds them to it: a change of a document is seen in
//! a review as a change of its schema.

use serde::Serialize;
use serde_json::{Map, Value};

use super::exit::Exit;

/// A document that stands for itself.
pub trait Document: Serialize {
    /// Its `kind`.
    const KIND: &'static str;
}

/// The version of our documents. Within it keys are added, never taken away or given another meaning.
pub const API_VERSION: &str = "pgherd/v1";

/// The whole document: what it is, then what is in it.
pub fn whole<D: Document>(document: &D) -> Value {
    let mut whole = Map::new();
    whole.insert("apiVersion".to_owned(), API_VERSION.into());
    whole.insert("kind".to_owned(), D::KIND.into());
    match serde_json::to_value(document) {
        Ok(Value::Object(body)) => whole.extend(body),
        Ok(other) => drop(whole.insert("value".to_owned(), other)),
        Err(error) => drop(whole.insert("error".to_owned(), error.to_string().into())),
    }
    Value::Object(whole)
}

/// Clusters with their members: `list` and `topology`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ClusterList {
    /// In the order in which they were asked for; each group of a Citus cluster is one of its own.
    pub clusters: Vec<Cluster>,
}

impl Document for ClusterList {
    const KIND: &'static str = "ClusterList";
}

/// One cluster, or one group of a Citus cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// The Citus group; null for an ordinary cluster.
    pub group: Option<i64>,
    /// Who says all this.
    pub source: SourceWord,
    /// False when nothing at all was found under this name.
    pub known: bool,
    /// PostgreSQL's system identifier; null as long as there is none.
    pub system_id: Option<String>,
    /// The first member is making the data right now.
    pub initializing: bool,
    /// Who leads; null when nobody does.
    pub leader: Option<String>,
    /// Maintenance mode is on.
    pub paused: bool,
    /// Whether commits wait for standbys.
    pub synchronous_mode: Synchronous,
    /// Who holds every confirmed commit; null while there is no synchronous replication, or when it is not known.
    pub sync: Option<Sync>,
    /// The whole cluster follows another one.
    pub standby_cluster: bool,
    /// A switchover to come; null without one.
    pub scheduled_switchover: Option<ScheduledSwitchover>,
    /// By name; in `topology` each below the member that it follows.
    pub members: Vec<Member>,
    /// Members that should be there and have no entry of their own.
    pub missing_members: Vec<MissingMember>,
}

/// Where the answer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SourceWord {
    /// The DCS.
    Dcs,
    /// Members, because the DCS does not answer.
    Members,
}

/// Whether commits wait for standbys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Synchronous {
    /// For nobody.
    Off,
    /// For all of the standbys named.
    On,
    /// For a quorum of them.
    Quorum,
}

/// The synchronization state, as the leader has written it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Sync {
    /// The leader that wrote it.
    pub leader: Option<String>,
    /// The standbys that may be elected.
    pub standbys: Vec<String>,
    /// How many votes a candidate needs in quorum mode; 0 otherwise.
    pub quorum: u32,
}

/// A switchover to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ScheduledSwitchover {
    /// When, as stored.
    pub at: String,
    /// From this leader; null means whoever leads.
    pub from: Option<String>,
    /// To this member; null means any.
    pub to: Option<String>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Member {
    /// Its name.
    pub name: String,
    /// How far it is from the leader; null in `list`.
    pub depth: Option<usize>,
    /// Where its PostgreSQL listens.
    pub host: Option<String>,
    /// At which port.
    pub port: Option<u16>,
    /// Its REST API.
    pub api_url: Option<String>,
    /// Its role.
    pub role: super::commands::list::ShownRole,
    /// The state of its PostgreSQL, or of its replication; null when it is not known.
    pub state: Option<String>,
    /// Its timeline.
    pub timeline: Option<u64>,
    /// The position received; null for a leader, or when it is not known.
    pub receive_lsn: Option<String>,
    /// How many bytes that is behind the leader.
    pub receive_lag_bytes: Option<u64>,
    /// The position replayed; null for a leader, or when it is not known.
    pub replay_lsn: Option<String>,
    /// How many bytes that is behind the leader.
    pub replay_lag_bytes: Option<u64>,
    /// Some of its settings wait for a restart.
    pub pending_restart: bool,
    /// Which; may be empty although a restart is pending.
    pub pending_restart_reasons: Vec<PendingReason>,
    /// A restart to come; null without one.
    pub scheduled_restart: Option<ScheduledRestart>,
    /// Its tags, as published.
    pub tags: Map<String, Value>,
}

/// A setting that waits for a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PendingReason {
    /// Its name.
    pub parameter: String,
    /// The value in force.
    pub old_value: String,
    /// The value after the restart.
    pub new_value: String,
}

/// A restart to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ScheduledRestart {
    /// When, as stored.
    pub at: String,
    /// Only if PostgreSQL is older than this.
    pub if_version_below: Option<String>,
}

/// A member that should be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MissingMember {
    /// Its name; of one that is only known by its replication slot, the name of the slot.
    pub name: String,
    /// From where it is known.
    pub known_from: KnownFrom,
    /// Since when it is missed on this computer; null when that is not known.
    pub since: Option<String>,
}

/// From where a missing member is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum KnownFrom {
    /// It holds the leader key.
    Leader,
    /// It is named in the synchronization state.
    Sync,
    /// The leader keeps a replication slot for it.
    Slot,
    /// It was there when the cluster was listed earlier on this computer.
    EarlierList,
}

/// What became of a command that changes something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Outcome {
    /// The command's word.
    pub command: String,
    /// The cluster.
    pub cluster: Option<String>,
    /// A word for the exit code.
    pub result: Exit,
    /// The exit code.
    pub exit: u8,
    /// Who led before; null when nobody did, or when it was not looked at.
    pub leader_before: Option<String>,
    /// Who leads, as last seen.
    pub leader: Option<String>,
    /// What was achieved, or not, in words.
    pub messages: Vec<String>,
    /// What became of each member, for commands that work on members.
    pub members: Vec<MemberOutcome>,
}

impl Document for Outcome {
    const KIND: &'static str = "Outcome";
}

/// What became of one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MemberOutcome {
    /// Its name.
    pub name: String,
    /// A word for the exit code that this alone would have.
    pub result: Exit,
    /// What was said of it.
    pub reason: String,
    /// What to do next, if there is something.
    pub next: Option<String>,
}

/// Why a command stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Failure {
    /// The command's word; null when the command line could not be read so far.
    pub command: Option<String>,
    /// The cluster.
    pub cluster: Option<String>,
    /// A word for the exit code.
    pub result: Exit,
    /// The exit code.
    pub exit: u8,
    /// What failed.
    pub message: String,
    /// Why, the outermost cause first.
    pub causes: Vec<String>,
    /// What to do next.
    pub next: Option<String>,
    /// What was achieved before, in words.
    pub messages: Vec<String>,
    /// What became of the members that were asked before.
    pub members: Vec<MemberOutcome>,
}

impl Document for Failure {
    const KIND: &'static str = "Error";
}

/// When a cluster changed its timeline: `history`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct History {
    /// The cluster.
    pub cluster: String,
    /// The oldest first.
    pub history: Vec<HistoryEntry>,
}

impl Document for History {
    const KIND: &'static str = "History";
}

/// The end of one timeline.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HistoryEntry {
    /// The timeline that ended.
    pub timeline: Option<u64>,
    /// Where.
    pub switch_lsn: Option<String>,
    /// The same as a number of bytes since the beginning of WAL.
    pub switch_lsn_bytes: Option<u64>,
    /// Why, in PostgreSQL's words.
    pub reason: Option<String>,
    /// When.
    pub timestamp: Option<String>,
    /// Who led from then on.
    pub new_leader: Option<String>,
    /// How long it was the cluster's timeline: since the one before it ended.
    pub lasted_seconds: Option<f64>,
}

/// The dynamic configuration: `show-config`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Config {
    /// The cluster.
    pub cluster: String,
    /// As it is stored.
    pub config: Map<String, Value>,
}

impl Document for Config {
    const KIND: &'static str = "Config";
}

/// Where to connect to: `dsn`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Dsn {
    /// The cluster.
    pub cluster: String,
    /// The member.
    pub member: String,
    /// Its role.
    pub role: super::commands::list::ShownRole,
    /// Where its PostgreSQL listens.
    pub host: String,
    /// At which port.
    pub port: u16,
    /// The same as a connection string.
    pub dsn: String,
}

impl Document for Dsn {
    const KIND: &'static str = "Dsn";
}

/// Versions: `version`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Version {
    /// Of this program.
    pub pgherdctl: String,
    /// The Patroni that it can stand in for.
    pub compatible_with_patroni: String,
    /// The cluster whose members were asked; null when none was named.
    pub cluster: Option<String>,
    /// Those that were asked.
    pub members: Vec<MemberVersion>,
}

impl Document for Version {
    const KIND: &'static str = "Version";
}

/// What a member says of its versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MemberVersion {
    /// Its name.
    pub name: String,
    /// Its agent, Patroni or ours.
    pub agent: Option<String>,
    /// Its PostgreSQL.
    pub postgresql: Option<String>,
    /// Why it said nothing; null when it did.
    pub error: Option<String>,
}

/// What PostgreSQL answered: `query`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct QueryResults {
    /// The cluster.
    pub cluster: String,
    /// The member that was asked.
    pub member: String,
    /// One for each statement.
    pub results: Vec<StatementResult>,
}

impl Document for QueryResults {
    const KIND: &'static str = "QueryResults";
}

/// The answer to one statement. Rows are lists, as the names of columns need not differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StatementResult {
    /// The command tag of a statement without rows; null of one with rows.
    pub command: Option<String>,
    /// Names of the columns.
    pub columns: Vec<String>,
    /// The values of each row.
    pub rows: Vec<Vec<Value>>,
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use schemars::JsonSchema;
    use schemars::generate::SchemaSettings;
    use serde_json::json;

    use super::*;

    /// The schema of a whole document.
    fn schema<D: Document + JsonSchema>() -> (&'static str, String) {
        let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
        let mut schema = generator.into_root_schema_for::<D>().to_value();
        schema["title"] = D::KIND.into();
        let mut properties = Map::new();
        properties.insert("apiVersion".to_owned(), json!({"const": API_VERSION}));
        properties.insert("kind".to_owned(), json!({"const": D::KIND}));
        properties.extend(schema["properties"].as_object().cloned().unwrap());
        schema["properties"] = Value::Object(properties);
        let mut required = vec![json!("apiVersion"), json!("kind")];
        required.extend(schema["required"].as_array().cloned().unwrap());
        schema["required"] = Value::Array(required);
        (D::KIND, format!("{schema:#}\n"))
    }

    /// `UPDATE=1` rewrites them.
    #[test]
    fn the_schemas_are_those_of_the_types() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/schemas");
        let schemas = [
            schema::<ClusterList>(),
            schema::<Outcome>(),
            schema::<Failure>(),
            schema::<History>(),
            schema::<Config>(),
            schema::<Dsn>(),
            schema::<Version>(),
            schema::<QueryResults>(),
        ];
        let path = |kind: &str| directory.join(format!("{kind}.json"));
        if std::env::var_os("UPDATE").is_some() {
            let _ = std::fs::remove_dir_all(&directory);
            std::fs::create_dir_all(&directory).unwrap();
            schemas.iter().for_each(|(kind, text)| std::fs::write(path(kind), text).unwrap());
        }
        let kept = |kind: &str| std::fs::read_to_string(path(kind)).unwrap_or_default();
        let stale: Vec<&str> =
            schemas.iter().filter(|(kind, text)| kept(kind) != *text).map(|(kind, _)| *kind).collect();
        assert!(stale.is_empty(), "a document has changed: if that is meant, run this test with UPDATE=1: {stale:?}");
        assert_eq!(
            std::fs::read_dir(&directory).unwrap().count(),
            schemas.len(),
            "a schema is made by nothing any more"
        );
    }

    /// Keys are never dropped: whatever a schema knows is required.
    #[test]
    fn every_key_is_always_there() {
        fn check(place: &str, schema: &Value) {
            match schema {
                Value::Object(map) => {
                    if let Some(Value::Object(properties)) = map.get("properties") {
                        let required = map.get("required").and_then(Value::as_array).map_or(0, Vec::len);
                        assert_eq!(required, properties.len(), "{place}");
                    }
                    map.iter().for_each(|(key, value)| check(&format!("{place}/{key}"), value));
                }
                Value::Array(items) => items.iter().for_each(|item| check(place, item)),
                _ => {}
            }
        }
        for (kind, text) in
            [schema::<ClusterList>(), schema::<Outcome>(), schema::<Failure>(), schema::<QueryResults>()]
        {
            check(kind, &serde_json::from_str(&text).unwrap());
        }
    }
}
