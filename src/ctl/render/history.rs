//! The history of timelines.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::grid::{Column, grid};
use super::ours::{self, Mark};
use super::{Format, Look, cell_text, python, yaml};
use crate::cluster::Lsn;
use crate::ctl::commands::history::HistoryView;
use crate::ctl::documents::{History, HistoryEntry};

const COLUMNS: [Column<'static>; 5] = [
    Column::right("TL"),
    Column::right("LSN"),
    Column::left("Reason"),
    Column::left("Timestamp"),
    Column::left("New Leader"),
];

/// What patronictl prints, without the last newline. Fields that old members did not write are empty texts.
pub fn as_patronictl(view: &HistoryView, format: Format) -> String {
    let text = |value: &Value| cell_text(&Some(value.clone()));
    let rows: Vec<Vec<String>> = view.lines.iter().map(|line| line.iter().map(text).collect()).collect();
    let objects = || -> Value {
        let object = |line: &[Value; 5]| -> Value {
            COLUMNS.iter().zip(line).map(|(column, value)| (column.title.to_owned(), value.clone())).collect()
        };
        view.lines.iter().map(object).collect()
    };
    match format {
        Format::Pretty => grid("", &COLUMNS, &rows),
        Format::Tsv => {
            let head = COLUMNS.map(|column| column.title).join("\t");
            let lines = rows.into_iter().map(|row| row.join("\t"));
            std::iter::once(head).chain(lines).collect::<Vec<_>>().join("\n")
        }
        Format::Json => python::json(&objects()),
        Format::Yaml | Format::Yml | Format::Name => yaml::block(&objects()),
    }
}

/// How long each timeline was the cluster's: from the end of the one before to its own.
fn lasted(view: &HistoryView) -> Vec<Option<SignedDuration>> {
    let ends: Vec<Option<Timestamp>> = view.lines.iter().map(|line| line[3].as_str()?.parse().ok()).collect();
    let before = std::iter::once(None).chain(ends.iter().copied());
    let between = |(end, before): (&Option<Timestamp>, Option<Timestamp>)| Some((*end)?.duration_since(before?));
    ends.iter().zip(before).map(between).map(|time| time.filter(|time| !time.is_negative())).collect()
}

/// What we print, without the last newline: the LSN readable, and how long each timeline lasted.
pub fn as_pgherdctl(view: &HistoryView, format: Format, look: Look) -> String {
    let cells = |line: &[Value; 5], lasted: String| -> Vec<String> {
        let text = |(i, value): (usize, &Value)| match (i, value.as_u64()) {
            (1, Some(lsn)) => Lsn(lsn).to_string(),
            _ => cell_text(&Some(value.clone())),
        };
        line.iter().enumerate().map(text).chain([lasted]).collect()
    };
    let lasted = lasted(view);
    let lines = || view.lines.iter().zip(&lasted);
    match format {
        Format::Pretty if view.lines.is_empty() => format!("Cluster {} has never changed its timeline.", view.cluster),
        Format::Pretty => {
            let readable = |time: &SignedDuration| format!("{:#}", SignedDuration::from_secs(time.as_secs()));
            let row = |(line, lasted): (_, &Option<SignedDuration>)| {
                let cells = cells(line, lasted.as_ref().map(readable).unwrap_or_default());
                cells.into_iter().map(Mark::plain).collect()
            };
            let columns: Vec<Column<'_>> = COLUMNS.into_iter().chain([Column::right("Lasted")]).collect();
            ours::table(&columns, &lines().map(row).collect::<Vec<Vec<Mark>>>(), look)
        }
        Format::Tsv => {
            let head = ["timeline", "switch_lsn", "reason", "timestamp", "new_leader", "lasted_seconds"].join("\t");
            let line = |(line, lasted): (_, &Option<SignedDuration>)| {
                let seconds = lasted.map(|time| time.as_secs_f64().to_string()).unwrap_or_default();
                cells(line, seconds).iter().map(|cell| ours::field(cell)).collect::<Vec<_>>().join("\t")
            };
            std::iter::once(head).chain(lines().map(line)).collect::<Vec<_>>().join("\n")
        }
        Format::Name => view.cluster.clone(),
        format => ours::document(&document(view, &lasted), format),
    }
}

fn document(view: &HistoryView, lasted: &[Option<SignedDuration>]) -> History {
    let text = |value: &Value| Some(cell_text(&Some(value.clone()))).filter(|text| !text.is_empty());
    let entry = |([timeline, switch, reason, timestamp, leader], lasted): (&[Value; 5], &Option<_>)| HistoryEntry {
        timeline: timeline.as_u64(),
        switch_lsn: switch.as_u64().map(|lsn| Lsn(lsn).to_string()),
        switch_lsn_bytes: switch.as_u64(),
        reason: text(reason),
        timestamp: text(timestamp),
        new_leader: text(leader),
        lasted_seconds: lasted.as_ref().map(SignedDuration::as_secs_f64),
    };
    History { cluster: view.cluster.clone(), history: view.lines.iter().zip(lasted).map(entry).collect() }
}
