//! Replication slots of our own server: reading them, and carrying out the steps to what should be there. Copies of
//! logical slots on a standby are made in [`copy`] and looked after in [`keeper`].

pub mod copy;
pub mod keeper;

use std::ops::Deref;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::Client;

use crate::cluster::slots::{Situation, SlotStep, plan};
use crate::cluster::{SlotState, WantedSlot};

use super::PgError;
use super::site::describe;

/// How long one statement about slots may take; dropping a slot waits for nothing, advancing one reads WAL.
const LIMIT: Duration = Duration::from_secs(10);

/// Reads the server's slots, those of sessions excepted.
pub async fn existing(client: &Client, version: u32) -> Result<Vec<SlotState>, PgError> {
    let wal_status = if version >= 130_000 { "wal_status" } else { "NULL" };
    let (failover, synced) = if version >= 170_000 { ("failover", "synced") } else { ("false", "false") };
    let persistent = if version >= 100_000 { "WHERE NOT temporary" } else { "" };
    let query = format!(
        "SELECT slot_name::text, plugin::text, database::text, xmin::text, catalog_xmin::text, restart_lsn::text, \
         confirmed_flush_lsn::text, active, {wal_status}::text, {failover}, {synced} \
         FROM pg_catalog.pg_replication_slots {persistent}"
    );
    let rows = bounded("list of replication slots", client.query(query.as_str(), &[])).await?;
    let lsn = |text: Option<String>| text.and_then(|text| text.parse().ok());
    rows.iter()
        .map(|row| {
            Ok(SlotState {
                name: row.try_get(0)?,
                plugin: row.try_get(1)?,
                database: row.try_get(2)?,
                xmin: row.try_get(3)?,
                catalog_xmin: row.try_get(4)?,
                restart_lsn: lsn(row.try_get(5)?),
                confirmed_flush_lsn: lsn(row.try_get(6)?),
                is_active: row.try_get(7)?,
                wal_status: row.try_get(8)?,
                is_failover: row.try_get(9)?,
                is_synced: row.try_get(10)?,
            })
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
                    tracing::error!(%error, "Failed to create physical replication slot '{name}'");
                }
            }
            SlotStep::CreateLogical { name, database, plugin } => {
                let created = match connect(database.clone()).await {
                    Ok(client) => create_logical(&client, name, plugin).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = created {
                    tracing::error!(%error, "Failed to create logical replication slot '{name}' plugin='{plugin}'");
                }
            }
            SlotStep::Advance { name, to } => {
                let query = "SELECT pg_catalog.pg_replication_slot_advance($1, $2::text::pg_catalog.pg_lsn)";
                let done = bounded(query, client.execute(query, &[name, &to.to_string()])).await;
                if let Err(error) = done {
                    tracing::error!(%error, "Error while advancing replication slot {name} to position '{to}'");
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
        Err(error) => tracing::error!(%error, "Failed to drop replication slot '{name}'"),
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
