//! All questions to the local server, with the types of their answers. Columns of views are taken by name out of JSON,
//! so that one text serves every version. Questions of every cycle name the types of their parameters, so that they are
//! asked in one round trip; a statement prepared by name takes three.

use std::collections::BTreeMap;

use serde_json::Value;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Row};

use crate::cluster::{Lsn, Monitor, SlotState, Timeline, WalReceiver, WalSender};

use super::conf::recovery::Setting;
use super::conf::reload::Live;

/// What the monitoring query should include.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Include {
    /// Slots.
    pub slots: bool,
    /// Standbys and the synchronous settings.
    pub senders: bool,
}

/// The answer of the monitoring query.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// What decisions need.
    pub monitor: Monitor,
    /// When the server was started, `YYYY-MM-DD HH:MM:SS.ffffff+HH:MM`.
    pub start_time: String,
    /// Version, 150018.
    pub version: u32,
    /// The processes that receive WAL here, or send it to standbys.
    pub streams: Vec<i32>,
}

/// All slots but those of sessions, `NULL` if there are none.
const SLOTS: &str = "(SELECT pg_catalog.json_agg(s) FROM pg_catalog.pg_replication_slots s WHERE NOT s.temporary)";

/// One row of everything. Functions that fail on one side of a promotion are guarded by the same test.
fn monitor_text(include: Include) -> String {
    let slots = if include.slots { SLOTS } else { "NULL::json" };
    let senders = if include.senders {
        "(SELECT pg_catalog.json_agg(w) FROM pg_catalog.pg_stat_replication w WHERE w.state = 'streaming')"
    } else {
        "NULL::json"
    };
    format!(
        "SELECT r.in_recovery, \
         CASE WHEN r.in_recovery THEN NULL \
           ELSE pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) END, \
         CASE WHEN r.in_recovery THEN NULL ELSE pg_catalog.pg_current_wal_flush_lsn() END::text, \
         pg_catalog.pg_last_wal_replay_lsn()::text, \
         pg_catalog.pg_last_wal_receive_lsn()::text, \
         CASE WHEN r.in_recovery THEN pg_catalog.pg_is_wal_replay_paused() ELSE false END, \
         (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()), \
         (SELECT pg_catalog.row_to_json(v) FROM pg_catalog.pg_stat_wal_receiver v LIMIT 1), \
         pg_catalog.current_setting('restore_command') <> '', \
         {slots}, {senders}, \
         pg_catalog.current_setting('synchronous_commit'), \
         pg_catalog.current_setting('synchronous_standby_names'), \
         pg_catalog.to_char(pg_catalog.pg_postmaster_start_time(), 'YYYY-MM-DD HH24:MI:SS.USTZH:TZM'), \
         pg_catalog.current_setting('server_version_num')::int4, \
         pg_catalog.to_char(pg_catalog.pg_last_xact_replay_timestamp(), 'YYYY-MM-DD HH24:MI:SS.USTZH:TZM'), \
         pg_catalog.current_setting('archive_mode') <> 'off' \
           AND pg_catalog.current_setting('archive_command') NOT IN ('', '(disabled)') \
         FROM (SELECT pg_catalog.pg_is_in_recovery() AS in_recovery) r"
    )
}

/// Asks everything that a cycle needs, in one statement.
pub async fn monitor(client: &Client, include: Include) -> Result<Answer, Error> {
    let row = client.query_typed_one(&monitor_text(include), &[]).await?;
    let lsn = |column: usize| {
        let text: Option<String> = row.try_get(column)?;
        Ok::<_, Error>(text.and_then(|text| text.parse().ok()).unwrap_or(Lsn::ZERO))
    };
    let receiver: Option<Value> = row.try_get(7)?;
    let receiver = receiver.filter(|receiver| receiver.get("pid").is_some_and(|pid| !pid.is_null()));
    let written = receiver.as_ref().and_then(|receiver| lsn_of(receiver, "written_lsn"));
    let timeline: Option<String> = row.try_get(1)?;
    let mut streams: Vec<i32> = receiver.iter().filter_map(pid_of).collect();
    let receiver = receiver.as_ref().map(receiver_of);
    let own = timeline.and_then(|digits| u32::from_str_radix(&digits, 16).ok()).filter(|n| *n > 0).map(Timeline);
    let control: Option<i32> = row.try_get(6)?;
    let slots: Option<Value> = row.try_get(9)?;
    let senders: Option<Value> = row.try_get(10)?;
    streams.extend(senders.as_ref().and_then(Value::as_array).into_iter().flatten().filter_map(pid_of));
    let version: i32 = row.try_get(14)?;
    Ok(Answer {
        monitor: Monitor {
            in_recovery: row.try_get(0)?,
            timeline: own.or_else(|| receiver.as_ref()?.timeline),
            flush_lsn: lsn(2)?,
            replay_lsn: lsn(3)?,
            receive_lsn: lsn(4)?.max(written.unwrap_or(Lsn::ZERO)),
            replayed_timestamp: row.try_get(15)?,
            replay_paused: row.try_get(5)?,
            control_timeline: control.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0).map(Timeline),
            receiver,
            has_restore_command: row.try_get(8)?,
            is_archiving: row.try_get(16)?,
            has_next_history: false,
            slots: each(slots, slot_of),
            senders: each(senders, sender_of),
            synchronous_commit: row.try_get(11)?,
            synchronous_standby_names: row.try_get(12)?,
        },
        start_time: row.try_get(13)?,
        version: u32::try_from(version).unwrap_or_default(),
        streams,
    })
}

fn pid_of(row: &Value) -> Option<i32> {
    i32::try_from(row.get("pid")?.as_i64()?).ok()
}

fn each<T>(rows: Option<Value>, read: impl Fn(&Value) -> T) -> Vec<T> {
    rows.as_ref().and_then(Value::as_array).into_iter().flatten().map(read).collect()
}

fn text_of(row: &Value, name: &str) -> Option<String> {
    match row.get(name)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn lsn_of(row: &Value, name: &str) -> Option<Lsn> {
    row.get(name)?.as_str()?.parse().ok()
}

fn flag_of(row: &Value, name: &str) -> bool {
    row.get(name).and_then(Value::as_bool).unwrap_or(false)
}

fn receiver_of(row: &Value) -> WalReceiver {
    let latest_end_lsn = lsn_of(row, "latest_end_lsn");
    let timeline = row.get("received_tli").and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok());
    WalReceiver {
        status: text_of(row, "status"),
        // Before anything has come from the upstream this is only what was asked for.
        timeline: timeline.filter(|number| *number > 0 && latest_end_lsn.is_some()).map(Timeline),
        slot_name: text_of(row, "slot_name").filter(|name| !name.is_empty()),
        conninfo: text_of(row, "conninfo").filter(|text| !text.is_empty()),
        latest_end_lsn,
    }
}

fn slot_of(row: &Value) -> SlotState {
    SlotState {
        name: text_of(row, "slot_name").unwrap_or_default(),
        plugin: text_of(row, "plugin"),
        database: text_of(row, "database"),
        restart_lsn: lsn_of(row, "restart_lsn"),
        confirmed_flush_lsn: lsn_of(row, "confirmed_flush_lsn"),
        xmin: text_of(row, "xmin"),
        catalog_xmin: text_of(row, "catalog_xmin"),
        wal_status: text_of(row, "wal_status"),
        is_active: flag_of(row, "active"),
        is_failover: flag_of(row, "failover"),
        is_synced: flag_of(row, "synced"),
    }
}

fn sender_of(row: &Value) -> WalSender {
    WalSender {
        application_name: text_of(row, "application_name").unwrap_or_default(),
        sync_state: text_of(row, "sync_state").unwrap_or_default(),
        write_lsn: lsn_of(row, "write_lsn"),
        flush_lsn: lsn_of(row, "flush_lsn"),
        replay_lsn: lsn_of(row, "replay_lsn"),
    }
}

/// Every parameter.
pub async fn settings(client: &Client) -> Result<Vec<Live>, Error> {
    let query = "SELECT pg_catalog.lower(s.name), COALESCE(s.setting, ''), \
                 COALESCE(pg_catalog.current_setting(s.name, true), ''), COALESCE(s.unit, ''), s.vartype, s.context, \
                 s.source, COALESCE(s.sourcefile, ''), s.pending_restart FROM pg_catalog.pg_settings s";
    client.query_typed(query, &[]).await?.iter().map(live_of).collect()
}

fn live_of(row: &Row) -> Result<Live, Error> {
    Ok(Live {
        name: row.try_get(0)?,
        setting: row.try_get(1)?,
        shown: row.try_get(2)?,
        unit: row.try_get(3)?,
        kind: row.try_get(4)?,
        context: row.try_get(5)?,
        source: row.try_get(6)?,
        source_file: row.try_get(7)?,
        is_pending: row.try_get(8)?,
    })
}

/// How a standby follows: its recovery settings by name, and its receiver if one runs. `config_file` is ours, whatever
/// comes from elsewhere is the operator's.
pub async fn following(
    client: &Client,
    names: &[&str],
    config_file: &str,
) -> Result<(BTreeMap<String, Setting>, Option<WalReceiver>), Error> {
    let query = "SELECT s.name, COALESCE(pg_catalog.current_setting(s.name, true), ''), s.context = 'postmaster', \
                 COALESCE(s.sourcefile, '') NOT IN ('', $2), NULL::json \
                 FROM pg_catalog.pg_settings s WHERE s.name = ANY ($1) \
                 UNION ALL SELECT NULL, '', false, false, pg_catalog.row_to_json(v) \
                 FROM pg_catalog.pg_stat_wal_receiver v";
    let rows = client.query_typed(query, &[(&names, Type::TEXT_ARRAY), (&config_file, Type::TEXT)]).await?;
    let (mut settings, mut receiver) = (BTreeMap::new(), None);
    for row in &rows {
        match row.try_get(0)? {
            Some(name) => {
                let setting =
                    Setting { value: row.try_get(1)?, needs_restart: row.try_get(2)?, is_operators: row.try_get(3)? };
                settings.insert(name, setting);
            }
            None => receiver = row.try_get::<_, Option<Value>>(4)?.as_ref().map(receiver_of),
        }
    }
    Ok((settings, receiver))
}

/// When the server last read its files, as text: another text after a reload.
pub async fn load_time(client: &Client) -> Result<String, Error> {
    client.query_typed_one("SELECT pg_catalog.pg_conf_load_time()::text", &[]).await?.try_get(0)
}

/// The slots of a server, and what decides what may be done with them.
#[derive(Clone, Debug, PartialEq)]
pub struct Slots {
    /// It is a standby.
    pub in_recovery: bool,
    /// Version, 150018.
    pub version: u32,
    /// All but those of sessions.
    pub slots: Vec<SlotState>,
}

/// Asks for the slots.
pub async fn slots(client: &Client) -> Result<Slots, Error> {
    let query = format!(
        "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('server_version_num')::int4, {SLOTS}"
    );
    let row = client.query_typed_one(&query, &[]).await?;
    let version: i32 = row.try_get(1)?;
    Ok(Slots {
        in_recovery: row.try_get(0)?,
        version: u32::try_from(version).unwrap_or_default(),
        slots: each(row.try_get(2)?, slot_of),
    })
}

/// Resumes paused WAL replay.
pub async fn resume_replay(client: &Client) -> Result<(), Error> {
    client.batch_execute("SELECT pg_catalog.pg_wal_replay_resume()").await
}

/// The process that replays WAL, while the server is in recovery.
pub async fn startup_process(client: &Client) -> Result<Option<i32>, Error> {
    let query = "SELECT a.pid FROM pg_catalog.pg_stat_activity a WHERE a.backend_type = 'startup'";
    client.query_typed(query, &[]).await?.first().map(|row| row.try_get(0)).transpose()
}

/// Asks nothing: an answer is all that is wanted.
pub async fn ping(client: &Client) -> Result<(), Error> {
    client.batch_execute("SELECT 1").await
}

/// The standbys that stream from here, as `GET /patroni` shows them.
pub async fn replication(client: &Client) -> Result<Vec<Value>, Error> {
    let query = "SELECT pg_catalog.json_agg(pg_catalog.json_build_object('usename', w.usename, 'application_name', \
                 w.application_name, 'client_addr', w.client_addr, 'state', w.state, 'sync_state', w.sync_state, \
                 'sync_priority', w.sync_priority)) FROM pg_catalog.pg_stat_replication w";
    let rows: Option<Value> = client.query_typed_one(query, &[]).await?.try_get(0)?;
    Ok(match rows {
        Some(Value::Array(rows)) => rows,
        _ => Vec::new(),
    })
}
