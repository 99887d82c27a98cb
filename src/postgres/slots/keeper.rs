//! What is known of a standby's copies of logical slots, and the rounds in which they are moved forward and checked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_util::task::AbortOnDropHandle;

use crate::cluster::slots::is_safe;
use crate::cluster::{Monitor, SlotAdvance, SlotTending};
use crate::postgres::PgError;
use crate::postgres::process::Postmaster;
use crate::postgres::site::{Session, Site, describe};

use super::bounded;

/// Moving a slot forward reads all the WAL between.
const ADVANCE_LIMIT: Duration = Duration::from_secs(600);

/// See the module.
#[derive(Default)]
pub struct Keeper {
    known: Mutex<Known>,
    round: Mutex<Option<AbortOnDropHandle<()>>>,
}

#[derive(Default)]
struct Known {
    /// The server process that all this is about: a slot is in doubt again after each start.
    of: Option<Postmaster>,
    /// Safe to be used after a failover.
    ready: BTreeSet<String>,
    /// The horizon that the original had when the primary began to hold rows back for us.
    remembered: BTreeMap<String, u32>,
    /// To be copied again.
    broken: BTreeSet<String>,
}

impl Keeper {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The slots in doubt and those to be copied again, of what a look at this server process has seen.
    pub fn judge(&self, of: Option<Postmaster>, monitor: &Monitor) -> (BTreeSet<String>, BTreeSet<String>) {
        let mut known = self.known();
        if known.of != of {
            *known = Known { of, ..Known::default() };
        }
        if !monitor.in_recovery {
            return Default::default();
        }
        let ours: BTreeSet<String> =
            monitor.slots.iter().filter(|slot| slot.is_our_logical()).map(|slot| slot.name.clone()).collect();
        let unready = ours.difference(&known.ready).cloned().collect();
        (unready, ours.intersection(&known.broken).cloned().collect())
    }

    /// Begins a round unless one goes on.
    pub fn begin(&self, round: impl FnOnce() -> AbortOnDropHandle<()>) {
        let mut running = self.round.lock().unwrap_or_else(PoisonError::into_inner);
        if running.as_ref().is_none_or(AbortOnDropHandle::is_finished) {
            *running = Some(round());
        }
    }

    /// Ends the round that goes on: the server is to be stopped or promoted.
    pub fn end(&self) {
        drop(self.round.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// One round. `true`: something is known now that was not before.
    pub async fn tend(&self, site: &Site, tending: &SlotTending) -> bool {
        let mut is_news = false;
        let mut by_database: BTreeMap<&str, Vec<&SlotAdvance>> = BTreeMap::new();
        for slot in &tending.advance {
            by_database.entry(slot.database.as_str()).or_default().push(slot);
        }
        for (database, slots) in by_database {
            match self.advance(site, database, &slots).await {
                Ok(broken) => is_news |= broken,
                Err(error) => {
                    tracing::error!(%error, "Failed to advance replication slots in database {database}");
                }
            }
        }
        if !tending.unready.is_empty() {
            match self.check(site, tending).await {
                Ok(found) => is_news |= found,
                Err(error) => {
                    let carrier = &tending.carrier;
                    tracing::error!(%error, "Failed to check {carrier} physical slot on the primary");
                }
            }
        }
        is_news
    }

    /// Moves slots of one database. `true`: one of them must be copied again.
    async fn advance(&self, site: &Site, database: &str, slots: &[&SlotAdvance]) -> Result<bool, PgError> {
        let mut params = site.superuser_params();
        params.dbname = Some(database.to_owned());
        let session = site.connect(&params).await?;
        bounded("SET statement_timeout", session.batch_execute("SET statement_timeout = 0")).await?;
        let query = "SELECT pg_catalog.pg_replication_slot_advance($1, $2::text::pg_catalog.pg_lsn)";
        let mut is_broken = false;
        for SlotAdvance { name, to, .. } in slots {
            let moved = timeout(ADVANCE_LIMIT, session.execute(query, &[name, &to.to_string()])).await;
            let why = match &moved {
                Ok(Ok(_)) => continue,
                Ok(Err(error)) => describe(error),
                Err(_) => format!("no end within {ADVANCE_LIMIT:?}"),
            };
            tracing::error!("Failed to advance logical replication slot '{name}': {why}");
            let code = moved.ok().and_then(Result::err).and_then(|error| error.code().cloned());
            // The WAL it needs is not here, or the slot was made unusable.
            if [Some(SqlState::UNDEFINED_FILE), Some(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE)].contains(&code) {
                self.known().broken.insert(name.clone());
                is_broken = true;
            }
        }
        Ok(is_broken)
    }

    /// Compares horizons with the primary. `true`: a slot is safe now.
    async fn check(&self, site: &Site, tending: &SlotTending) -> Result<bool, PgError> {
        let primary = site.connect(&site.rewind_params(&tending.primary)).await?;
        let mut names = tending.unready.clone();
        names.push(tending.carrier.clone());
        let theirs = horizons(&primary, "NOT pg_catalog.pg_is_in_recovery()", &names).await?;
        let Some(carrier) = theirs.get(&tending.carrier) else {
            tracing::warn!("Physical slot {} does not exist on the primary", tending.carrier);
            return Ok(false);
        };
        let local = site.connect(&site.superuser_params()).await?;
        let Some(carrier) = *carrier else {
            return warn_without_feedback(&local).await.map(|()| false);
        };
        let ours = horizons(&local, "true", &tending.unready).await?;
        let mut known = self.known();
        let mut is_news = false;
        for name in &tending.unready {
            let (Some(Some(original)), Some(Some(copy))) = (theirs.get(name), ours.get(name)) else { continue };
            let remembered = *known.remembered.entry(name.clone()).or_insert(*original);
            if is_safe(remembered, carrier, *copy) {
                tracing::info!("Logical slot {name} is safe to be used after a failover");
                known.ready.insert(name.clone());
                is_news = true;
            }
        }
        Ok(is_news)
    }
}

/// The catalog horizon of slots by name.
async fn horizons(client: &Session, only: &str, names: &[String]) -> Result<BTreeMap<String, Option<u32>>, PgError> {
    let query = format!(
        "SELECT slot_name::text, catalog_xmin::text FROM pg_catalog.pg_replication_slots \
         WHERE {only} AND slot_name::text = ANY ($1)"
    );
    let rows = bounded("catalog horizons of slots", client.query(query.as_str(), &[&names])).await?;
    let number = |text: Option<String>| text.and_then(|text| text.parse().ok());
    Ok(rows.iter().map(|row| (row.get(0), number(row.get(1)))).collect())
}

/// The primary holds nothing back for us. It will soon, unless our word is not given.
async fn warn_without_feedback(local: &Session) -> Result<(), PgError> {
    let query = "SELECT pg_catalog.current_setting('hot_standby_feedback') = 'on'";
    let row = bounded(query, local.query_one(query, &[])).await?;
    if !row.get::<_, bool>(0) {
        tracing::error!("Logical slot failover requires \"hot_standby_feedback\". Please check postgresql.auto.conf");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::SlotState;

    #[test]
    fn every_copy_is_in_doubt_until_it_was_checked() {
        let keeper = Keeper::default();
        let logical = |name: &str| SlotState {
            name: name.to_owned(),
            plugin: Some("pgoutput".to_owned()),
            database: Some("app".to_owned()),
            ..SlotState::default()
        };
        let failover = SlotState { is_failover: true, is_synced: true, ..logical("f") };
        let physical = SlotState { name: "p".to_owned(), ..SlotState::default() };
        let slots = vec![logical("a"), logical("b"), failover, physical];
        let monitor = Monitor { in_recovery: true, slots, ..Monitor::default() };
        let names = |of: &BTreeSet<String>| of.iter().cloned().collect::<Vec<_>>();
        assert_eq!(names(&keeper.judge(None, &monitor).0), ["a", "b"]);
        keeper.known().ready.insert("a".to_owned());
        keeper.known().broken.insert("b".to_owned());
        let (unready, broken) = keeper.judge(None, &monitor);
        assert_eq!((names(&unready), names(&broken)), (vec!["b".to_owned()], vec!["b".to_owned()]));
        let primary = Monitor { in_recovery: false, ..monitor.clone() };
        assert_eq!(keeper.judge(None, &primary), Default::default());
        let restarted = Postmaster { pid: 7, start_ticks: 1 };
        let (unready, broken) = keeper.judge(Some(restarted), &monitor);
        assert_eq!((names(&unready), broken.is_empty()), (vec!["a".to_owned(), "b".to_owned()], true));
    }
}
