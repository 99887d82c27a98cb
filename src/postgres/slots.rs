//! Replication slots: what exists, what should, and the steps between. [`plan`] is pure; [`sync`] carries it out.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::Client;

use crate::cluster::{Lsn, SlotState, WantedSlot};

use super::PgError;
use super::site::describe;

/// How long one statement about slots may take; dropping a slot waits for nothing, advancing one reads WAL.
const LIMIT: Duration = Duration::from_secs(10);

/// A slot on the server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExistingSlot {
    /// What is known of it.
    pub state: SlotState,
    /// A logical slot that PostgreSQL 17 keeps in step on standbys by itself.
    pub is_failover: bool,
}

/// What decides besides the two lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    /// Version as PostgreSQL numbers it.
    pub version: u32,
    /// The server is out of recovery.
    pub is_primary: bool,
    /// Slots that nobody wants may go (not while paused).
    pub may_drop: bool,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotStep {
    /// Drops a slot; the text is what the log says before.
    Drop {
        /// Which.
        name: String,
        /// Why, as a whole log line.
        why: String,
        /// Worth a warning.
        is_warning: bool,
    },
    /// Creates a physical slot that reserves WAL at once.
    CreatePhysical(String),
    /// Creates a logical slot.
    CreateLogical {
        /// Its name.
        name: String,
        /// In this database.
        database: String,
        /// With this output plugin.
        plugin: String,
    },
    /// Moves an unused physical slot forward, so that it does not keep WAL for nothing.
    Advance {
        /// Which.
        name: String,
        /// Where to.
        to: Lsn,
    },
}

/// The steps from what exists to what is wanted: drops first, so that a slot of the wrong kind can be replaced.
pub fn plan(existing: &[ExistingSlot], wanted: &[WantedSlot], situation: Situation) -> Vec<SlotStep> {
    let mut left: BTreeMap<&str, &ExistingSlot> =
        existing.iter().map(|slot| (slot.state.name.as_str(), slot)).collect();
    let by_name: BTreeMap<&str, &WantedSlot> = wanted.iter().map(|slot| (slot.name.as_str(), slot)).collect();
    let mut steps = Vec::new();
    for slot in existing {
        if let Some((why, is_warning)) = reason_to_drop(slot, by_name.get(slot.state.name.as_str()), situation) {
            left.remove(slot.state.name.as_str());
            steps.push(SlotStep::Drop { name: slot.state.name.clone(), why, is_warning });
        }
    }
    for slot in wanted {
        match (left.get(slot.name.as_str()), &slot.logical) {
            (None, None) => steps.push(SlotStep::CreatePhysical(slot.name.clone())),
            (None, Some((database, plugin))) if situation.is_primary => steps.push(SlotStep::CreateLogical {
                name: slot.name.clone(),
                database: database.clone(),
                plugin: plugin.clone(),
            }),
            (Some(have), None) => steps.extend(advance(&have.state, slot, situation)),
            _ => {}
        }
    }
    steps
}

/// Why a slot has to go, as a log line, and whether that is worth a warning.
fn reason_to_drop(slot: &ExistingSlot, wanted: Option<&&WantedSlot>, situation: Situation) -> Option<(String, bool)> {
    let state = &slot.state;
    let name = &state.name;
    let Some(wanted) = wanted else {
        let goes = situation.may_drop && !slot.is_failover;
        return goes.then(|| (format!("Trying to drop unknown replication slot '{name}'"), false));
    };
    let has = state.database.as_deref().zip(state.plugin.as_deref());
    let wants = wanted.logical.as_ref().map(|(database, plugin)| (database.as_str(), plugin.as_str()));
    if has != wants {
        let (has, wants) = (kind(has), kind(wants));
        let why = format!("Trying to drop replication slot '{name}' because value is changing from {has} to {wants}");
        return Some((why, false));
    }
    if situation.may_drop && state.wal_status.as_deref() == Some("lost") {
        return Some((format!("Trying to drop replication slot '{name}' with wal_status=lost"), false));
    }
    if wants.is_some() || situation.version < 110_000 || wanted.expected_active != Some(false) || state.is_active {
        return None;
    }
    if let Some(xmin) = &state.xmin {
        // It holds back vacuum here on behalf of a standby that does not stream from here.
        return (situation.may_drop || situation.is_primary)
            .then(|| (format!("Dropping physical replication slot {name} because of its xmin value {xmin}"), true));
    }
    state.restart_lsn.is_none().then(|| {
        let why = format!(
            "Dropping physical replication slot {name} because it has no restart_lsn. This slot was probably not \
             created by Patroni, but by an external agent."
        );
        (why, true)
    })
}

fn kind(logical: Option<(&str, &str)>) -> String {
    match logical {
        Some((database, plugin)) => format!("logical ({database}, {plugin})"),
        None => "physical".to_owned(),
    }
}

fn advance(have: &SlotState, wanted: &WantedSlot, situation: Situation) -> Option<SlotStep> {
    let to = wanted.advance_to?;
    let is_idle = wanted.expected_active != Some(true) && !have.is_active && have.xmin.is_none();
    let is_behind = have.restart_lsn.is_some_and(|at| to > at);
    (situation.version >= 110_000 && is_idle && is_behind).then(|| SlotStep::Advance { name: wanted.name.clone(), to })
}

/// Reads the server's slots, those of sessions excepted.
pub async fn existing(client: &Client, version: u32) -> Result<Vec<ExistingSlot>, PgError> {
    let wal_status = if version >= 130_000 { "wal_status" } else { "NULL" };
    let failover = if version >= 170_000 { "failover" } else { "false" };
    let persistent = match version {
        170_000.. => "WHERE NOT temporary AND (NOT failover OR NOT synced)",
        100_000.. => "WHERE NOT temporary",
        _ => "",
    };
    let query = format!(
        "SELECT slot_name::text, plugin::text, database::text, xmin::text, catalog_xmin::text, restart_lsn::text, \
         confirmed_flush_lsn::text, active, {wal_status}::text, {failover} \
         FROM pg_catalog.pg_replication_slots {persistent}"
    );
    let rows = bounded("list of replication slots", client.query(query.as_str(), &[])).await?;
    let lsn = |text: Option<String>| text.and_then(|text| text.parse().ok());
    rows.iter()
        .map(|row| {
            let state = SlotState {
                name: row.try_get(0)?,
                plugin: row.try_get(1)?,
                database: row.try_get(2)?,
                xmin: row.try_get(3)?,
                catalog_xmin: row.try_get(4)?,
                restart_lsn: lsn(row.try_get(5)?),
                confirmed_flush_lsn: lsn(row.try_get(6)?),
                is_active: row.try_get(7)?,
                wal_status: row.try_get(8)?,
            };
            Ok(ExistingSlot { state, is_failover: row.try_get(9)? })
        })
        .collect::<Result<_, tokio_postgres::Error>>()
        .map_err(|error| PgError::Query(error.to_string()))
}

/// Brings the server's slots to what is wanted. One step that fails is logged and does not stop the others; the whole
/// is asked for again at the next cycle anyway. `connect` opens a connection to another database.
pub async fn sync<C, F, S>(
    client: &Client,
    wanted: &[WantedSlot],
    situation: Situation,
    connect: C,
) -> Result<(), PgError>
where
    C: Fn(String) -> F,
    F: Future<Output = Result<S, PgError>>,
    S: Deref<Target = Client>,
{
    let existing = existing(client, situation.version).await?;
    for step in plan(&existing, wanted, situation) {
        match &step {
            SlotStep::Drop { name, why, is_warning } => {
                match is_warning {
                    true => tracing::warn!("{why}"),
                    false => tracing::info!("{why}"),
                }
                report_drop(name, drop_slot(client, name).await);
            }
            SlotStep::CreatePhysical(name) => {
                let query = if situation.version >= 90_600 {
                    "SELECT pg_catalog.pg_create_physical_replication_slot($1, true)"
                } else {
                    "SELECT pg_catalog.pg_create_physical_replication_slot($1)"
                };
                if let Err(error) = bounded(query, client.execute(query, &[name])).await {
                    tracing::error!("Failed to create physical replication slot '{name}': {error}");
                }
            }
            SlotStep::CreateLogical { name, database, plugin } => {
                let created = match connect(database.clone()).await {
                    Ok(client) => create_logical(&client, name, plugin).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = created {
                    tracing::error!("Failed to create logical replication slot '{name}' plugin='{plugin}': {error}");
                }
            }
            SlotStep::Advance { name, to } => {
                let query = "SELECT pg_catalog.pg_replication_slot_advance($1, $2::text::pg_catalog.pg_lsn)";
                let done = bounded(query, client.execute(query, &[name, &to.to_string()])).await;
                if let Err(error) = done {
                    tracing::error!("Error while advancing replication slot {name} to position '{to}': {error}");
                }
            }
        }
    }
    Ok(())
}

/// Says how a drop ended: dropped, in use, or failed.
fn report_drop(name: &str, outcome: Result<bool, PgError>) {
    match outcome {
        Ok(true) => tracing::info!("Dropped replication slot '{name}'"),
        Ok(false) => tracing::warn!("Unable to drop replication slot '{name}', slot is active"),
        Err(error) => tracing::error!("Failed to drop replication slot '{name}': {error}"),
    }
}

/// Drops a slot unless it is in use, in one statement; `false`: it is in use.
async fn drop_slot(client: &Client, name: &str) -> Result<bool, PgError> {
    let query = "WITH slot AS (SELECT slot_name, active FROM pg_catalog.pg_replication_slots WHERE slot_name = $1), \
                 gone AS (SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM slot WHERE NOT active) \
                 SELECT (SELECT pg_catalog.count(*) FROM gone) AS gone, (SELECT pg_catalog.count(*) FROM slot) AS here";
    let row = bounded(query, client.query_one(query, &[&name])).await?;
    let (gone, here): (i64, i64) = (row.get(0), row.get(1));
    Ok(gone > 0 || here == 0)
}

async fn create_logical(client: &Client, name: &str, plugin: &str) -> Result<(), PgError> {
    let query = "SELECT pg_catalog.pg_create_logical_replication_slot($1, $2)";
    bounded(query, client.execute(query, &[&name, &plugin])).await.map(drop)
}

/// A statement with a limit on our side too: the server's own does not help when the connection hangs.
async fn bounded<T>(
    what: &str,
    statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, PgError> {
    match timeout(LIMIT, statement).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(PgError::Query(describe(&error))),
        Err(_) => Err(PgError::Timeout(LIMIT, what.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Situation = Situation { version: 150_002, is_primary: true, may_drop: true };

    fn have(name: &str) -> ExistingSlot {
        let state = SlotState { name: name.to_owned(), restart_lsn: Some(Lsn(100)), ..SlotState::default() };
        ExistingSlot { state, is_failover: false }
    }

    fn want(name: &str) -> WantedSlot {
        WantedSlot { name: name.to_owned(), logical: None, advance_to: None, expected_active: None }
    }

    fn drops(steps: &[SlotStep]) -> Vec<&str> {
        let drops = steps.iter().filter(|step| matches!(step, SlotStep::Drop { .. }));
        drops.map(drop_name).collect()
    }

    fn drop_name(step: &SlotStep) -> &str {
        match step {
            SlotStep::Drop { name, .. } => name,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn missing_ones_are_created_and_unknown_ones_dropped() {
        let steps = plan(&[have("old"), have("kept")], &[want("kept"), want("new")], NOW);
        assert_eq!(drops(&steps), ["old"]);
        assert_eq!(steps[1..], [SlotStep::CreatePhysical("new".to_owned())]);
        let paused = Situation { may_drop: false, ..NOW };
        assert_eq!(plan(&[have("old")], &[], paused), []);
    }

    #[test]
    fn a_slot_of_the_wrong_kind_is_replaced_even_while_paused() {
        let logical = Some(("app".to_owned(), "pgoutput".to_owned()));
        let wanted = WantedSlot { logical, ..want("a") };
        let paused = Situation { may_drop: false, ..NOW };
        let steps = plan(&[have("a")], std::slice::from_ref(&wanted), paused);
        assert_eq!(drops(&steps), ["a"]);
        assert!(matches!(&steps[1], SlotStep::CreateLogical { database, .. } if database == "app"));
        // On a standby a logical slot cannot be created.
        let standby = Situation { is_primary: false, ..NOW };
        assert_eq!(plan(&[], &[wanted], standby), []);
    }

    #[test]
    fn idle_slots_are_advanced_and_never_moved_back() {
        let to = |lsn| WantedSlot { advance_to: Some(Lsn(lsn)), expected_active: Some(false), ..want("a") };
        let advanced = SlotStep::Advance { name: "a".to_owned(), to: Lsn(200) };
        assert_eq!(plan(&[have("a")], &[to(200)], NOW), [advanced]);
        assert_eq!(plan(&[have("a")], &[to(100)], NOW), []);
        assert_eq!(plan(&[have("a")], &[WantedSlot { expected_active: Some(true), ..to(200) }], NOW), []);
        let mut active = have("a");
        active.state.is_active = true;
        assert_eq!(plan(&[active], &[to(200)], NOW), []);
        assert_eq!(plan(&[have("a")], &[to(200)], Situation { version: 100_000, ..NOW }), []);
    }

    #[test]
    fn a_slot_that_holds_back_vacuum_for_nobody_is_made_anew() {
        let mut slot = have("a");
        slot.state.xmin = Some("777".to_owned());
        let idle = WantedSlot { expected_active: Some(false), ..want("a") };
        let steps = plan(std::slice::from_ref(&slot), &[idle], NOW);
        assert_eq!(drops(&steps), ["a"]);
        assert_eq!(steps[1], SlotStep::CreatePhysical("a".to_owned()));
        assert_eq!(plan(&[slot], &[want("a")], NOW), [], "unknown is not `no`");
    }

    #[test]
    fn lost_slots_are_made_anew_and_failover_slots_left_alone() {
        let mut lost = have("a");
        lost.state.wal_status = Some("lost".to_owned());
        assert_eq!(drops(&plan(&[lost], &[want("a")], NOW)), ["a"]);
        let failover = ExistingSlot { is_failover: true, ..have("b") };
        assert_eq!(plan(&[failover], &[], NOW), []);
    }
}
