//! Logical slots of a standby: copying them, which takes a restart, and looking after the copies beside the loop.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::cluster::{Lsn, Role, SlotTending, Upstream, WantedSlot};
use crate::postgres::slots::copy::{self, Original};
use crate::postgres::{PgError, Recovery, StartPlan, Started, query};

use super::{ASK_LIMIT, Inner, blocking, settings, start};

pub(super) fn tend(inner: &Arc<Inner>, tending: &SlotTending) {
    let (here, tending) = (Arc::clone(inner), tending.clone());
    let round = || {
        AbortOnDropHandle::new(tokio::spawn(async move {
            if here.keeper.tend(&here.site, &tending).await {
                here.events.notify_one();
            }
        }))
    };
    inner.keeper.begin(round);
}

pub(super) async fn copy(
    inner: &Arc<Inner>,
    leader: &Upstream,
    wanted: &[WantedSlot],
    cancel: &CancellationToken,
) -> Result<Option<Started>, PgError> {
    let originals = originals(inner, leader, wanted).await?;
    if originals.is_empty() {
        return Ok(None);
    }
    let (directory, copied) = (inner.site.data_dir().join("pg_replslot"), originals.clone());
    let place = blocking(move || {
        // Nothing is stopped for slots that cannot be written.
        std::fs::metadata(&directory)
            .map_err(|source| PgError::Io { path: directory.display().to_string(), source })
            .map(|_| directory)
    })
    .await?;
    let plan = StartPlan { recovery: Recovery::Keep, role: Role::Replica, timeout: None };
    let between = async move {
        match blocking(move || copy::write(&place, &copied)).await {
            Ok(()) => {
                for Original { name, .. } in &originals {
                    tracing::info!("Copied logical slot '{name}' from the primary");
                }
            }
            // The server must come back all the same.
            Err(error) => tracing::error!(%error, "Failed to copy logical slots from the primary"),
        }
    };
    start::restart_after(inner, &plan, cancel, between).await.map(Some)
}

/// What can be copied now.
async fn originals(inner: &Inner, leader: &Upstream, wanted: &[WantedSlot]) -> Result<Vec<Original>, PgError> {
    let here = inner.ask(ASK_LIMIT, |client| Box::pin(query::slots(client))).await?;
    let names: Vec<String> = wanted.iter().map(|slot| slot.name.clone()).collect();
    let fetched = async {
        let primary = inner.site.connect(&inner.site.rewind_params(leader)).await?;
        copy::fetch(&primary, here.version, &names).await
    };
    let fetched = fetched.await.map_err(|error| {
        let leader = leader.member.as_ref().map_or("primary", |name| name.as_str());
        PgError::Query(format!("Failed to copy logical slots from the {leader} via postgresql connection: {error}"))
    })?;
    let oldest = oldest_wal(inner).await;
    Ok(copy::usable(fetched, wanted, oldest))
}

/// The oldest WAL here; unknown when the control file does not tell how long segments are.
async fn oldest_wal(inner: &Inner) -> Option<Lsn> {
    let report = inner.site.report().await.ok()?;
    let segment_size = report.get("Bytes per WAL segment")?.parse().ok()?;
    let wal_dir = inner.site.wal_dir();
    blocking(move || Ok(copy::oldest_wal(&wal_dir, segment_size))).await.ok()?
}

/// Takes the setting from now on as told.
pub(super) async fn force_feedback(inner: &Arc<Inner>, on: bool) -> Result<(), PgError> {
    let before = inner.known().feedback.replace(on);
    if before.unwrap_or(false) == on {
        return Ok(());
    }
    settings::apply(inner, false).await
}
