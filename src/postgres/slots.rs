//! Replication slots of our own server: reading them, and carrying out the steps to what should be there. Copies of
//! logical slots on a standby are made in [`copy`] and looked after in [`keeper`].

pub mod copy;
pub mod keeper;

use std::ops::Deref;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use crate::cluster::slots::{Situation, SlotStep, plan};
use crate::cluster::{Lsn, SlotSync};

use super::site::describe;
use super::{PgError, query};

/// How long one statement about slots may take; dropping a slot waits for nothing, advancing one reads WAL.
const LIMIT: Duration = Duration::from_secs(10);

/// Brings the server's slots to what is wanted. One step that fails is logged and does not stop the others; the whole
/// is asked for again at the next cycle anyway. `connect` opens a connection to another database.
pub async fn sync<C, F, S>(client: &Client, sync: &SlotSync, connect: C) -> Result<(), PgError>
where
    C: Fn(String) -> F,
    F: Future<Output = Result<S, PgError>>,
    S: Deref<Target = Client>,
{
    let found = bounded("list of replication slots", query::slots(client)).await?;
    let situation = Situation {
        version: found.version,
        is_primary: !found.in_recovery,
        is_led: sync.is_led,
        may_drop: sync.may_drop,
    };
    let steps = plan(&found.slots, &sync.wanted, situation);
    for step in &steps {
        match step {
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
                if let Err(error) = bounded(query, client.execute_typed(query, &[(name, Type::NAME)])).await {
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
            SlotStep::Advance { .. } => {}
        }
    }
    // In every cycle of a standby: all at once, without waiting for the answer to one before the next is sent.
    let advances = steps.iter().filter_map(|step| match step {
        SlotStep::Advance { name, to } => Some(advance(client, name, *to)),
        _ => None,
    });
    join_all(advances).await;
    Ok(())
}

async fn advance(client: &Client, name: &str, to: Lsn) {
    let query = "SELECT pg_catalog.pg_replication_slot_advance($1, $2::pg_catalog.pg_lsn)";
    let position = to.to_string();
    let values: [(&(dyn ToSql + Sync), Type); 2] = [(&name, Type::NAME), (&position, Type::TEXT)];
    if let Err(error) = bounded(query, client.execute_typed(query, &values)).await {
        tracing::error!(%error, "Error while advancing replication slot {name} to position '{to}'");
    }
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
