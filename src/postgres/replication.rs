//! A small client for the replication protocol: connect, authenticate, ask one-line commands.
//!
//! The ordinary client library cannot open a replication connection. Ours is enough for the questions a physical
//! standby asks about history; it never streams. A server is believed nothing: a message that makes no sense is an
//! error, never a panic, and every call has a limit.

use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use tokio::time::timeout;

use crate::cluster::{HistoryLine, Lsn, SystemId, Timeline};

use super::PgError;
use super::wire::{Complaint, Wire, WireError, broken, columns};

pub use super::wire::Target;

/// The answer to `IDENTIFY_SYSTEM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemIdentity {
    /// System identifier.
    pub system_id: Option<SystemId>,
    /// The current timeline; on a standby the one it replays.
    pub timeline: Timeline,
    /// Flushed position; on a standby the replayed one.
    pub position: Lsn,
}

/// The answer to `READ_REPLICATION_SLOT` (PostgreSQL 15 and later).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotPosition {
    /// Where the slot keeps WAL from.
    pub restart_lsn: Option<Lsn>,
    /// The timeline of that position.
    pub restart_timeline: Option<Timeline>,
}

/// What makes it a replication connection.
const PARAMETERS: [(&str, &str); 2] = [("replication", "1"), ("application_name", "Patroni")];

/// An open replication connection.
pub struct Replication {
    wire: Wire,
    limit: Duration,
}

impl Replication {
    /// Connects and authenticates; `limit` holds for this and for each question after it.
    pub async fn connect(target: &Target, limit: Duration) -> Result<Self, PgError> {
        let mut last = PgError::Query(format!("no host to connect to is given: `{}`", target.host));
        for host in target.host.split(',').filter(|host| !host.is_empty()) {
            let place = format!("replication connection to {host}:{}", target.port);
            for encrypted in target.ways(host) {
                last = match timeout(limit, Wire::connect(host, target, *encrypted, &PARAMETERS)).await {
                    Ok(Ok(wire)) => return Ok(Self { wire, limit }),
                    Ok(Err(WireError::Unreachable(text))) => PgError::Query(format!("{place} failed: {text}")),
                    Ok(Err(error)) => PgError::Query(format!("{place}: {error}")),
                    Err(_) => {
                        last = PgError::Timeout(limit, place);
                        break;
                    }
                };
            }
        }
        Err(last)
    }

    /// Sends one command and collects its rows as text.
    async fn ask(&mut self, command: &str) -> Result<Vec<Vec<Option<String>>>, PgError> {
        let limit = self.limit;
        match timeout(limit, self.ask_unbounded(command)).await {
            Ok(answer) => answer,
            Err(_) => Err(PgError::Timeout(limit, format!("answer to {command}"))),
        }
    }

    async fn ask_unbounded(&mut self, command: &str) -> Result<Vec<Vec<Option<String>>>, PgError> {
        let mut out = BytesMut::new();
        frontend::query(command, &mut out).map_err(broken)?;
        self.wire.send(&out).await?;
        let (mut rows, mut failure) = (Vec::new(), None);
        loop {
            match self.wire.next().await? {
                Message::DataRow(body) => rows.push(columns(&body)?),
                Message::RowDescription(_) | Message::CommandComplete(_) | Message::EmptyQueryResponse => {}
                Message::ErrorResponse(body) => failure = Some(WireError::Server(Complaint::read(&body)).into()),
                Message::ReadyForQuery(_) => return failure.map_or(Ok(rows), Err),
                _ => return Err(broken(format!("the server sent an unexpected message in answer to {command}")).into()),
            }
            if rows.len() > 1000 {
                return Err(broken(format!("the server does not stop answering {command}")).into());
            }
        }
    }

    /// Who the server is and where it stands.
    pub async fn identify_system(&mut self) -> Result<SystemIdentity, PgError> {
        let rows = self.ask("IDENTIFY_SYSTEM").await?;
        let row = rows.first().map(Vec::as_slice).unwrap_or_default();
        let text = |column: usize| row.get(column).and_then(Option::as_deref);
        let timeline = text(1).and_then(|text| text.parse().ok()).filter(|timeline| *timeline > 0);
        let position = text(2).and_then(|text| text.parse().ok());
        match (timeline, position) {
            (Some(timeline), Some(position)) => Ok(SystemIdentity {
                system_id: text(0).and_then(SystemId::parse),
                timeline: Timeline(timeline),
                position,
            }),
            _ => Err(broken(format!("the answer to IDENTIFY_SYSTEM makes no sense: {row:?}")).into()),
        }
    }

    /// The history of a timeline, from the server's own file.
    pub async fn timeline_history(&mut self, timeline: Timeline) -> Result<Vec<HistoryLine>, PgError> {
        let command = format!("TIMELINE_HISTORY {timeline}");
        let rows = self.ask(&command).await?;
        let content = rows.first().and_then(|row| row.get(1)).and_then(Option::as_deref);
        let content = content.ok_or_else(|| broken(format!("the answer to {command} has no content")))?;
        Ok(parse_history(content))
    }

    /// Where a physical slot stands; `None` when it does not exist.
    pub async fn read_slot(&mut self, slot: &str) -> Result<Option<SlotPosition>, PgError> {
        if slot.is_empty() || !slot.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
            return Err(PgError::Refused(format!("`{slot}` is not the name of a replication slot")));
        }
        let rows = self.ask(&format!("READ_REPLICATION_SLOT {slot}")).await?;
        let row = rows.first().map(Vec::as_slice).unwrap_or_default();
        let text = |column: usize| row.get(column).and_then(Option::as_deref);
        Ok(text(0).map(|_| SlotPosition {
            restart_lsn: text(1).and_then(|text| text.parse().ok()),
            restart_timeline: text(2).and_then(|text| text.parse().ok()).map(Timeline),
        }))
    }
}

/// Reads a history file: lines of timeline, LSN where it ended, reason; separated by tabs. What is not such a line
/// (comments, blanks) is passed over, as PostgreSQL does.
pub fn parse_history(content: &str) -> Vec<HistoryLine> {
    let line = |line: &str| {
        let mut fields = line.split('\t');
        Some(HistoryLine {
            timeline: Timeline(fields.next()?.trim().parse().ok().filter(|timeline| *timeline > 0)?),
            switch: fields.next()?.trim().parse().ok()?,
            reason: fields.next().unwrap_or_default().trim_end().to_owned(),
            timestamp: None,
            new_leader: None,
        })
    };
    content.lines().filter_map(line).collect()
}

#[cfg(test)]
#[path = "replication/tests.rs"]
mod tests;
