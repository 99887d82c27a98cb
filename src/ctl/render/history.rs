//! The history of timelines.

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

/// What we print, without the last newline: the LSN readable.
pub fn as_pgherdctl(view: &HistoryView, format: Format, look: Look) -> String {
    let cells = |line: &[Value; 5]| -> Vec<String> {
        let text = |(i, value): (usize, &Value)| match (i, value.as_u64()) {
            (1, Some(lsn)) => Lsn(lsn).to_string(),
            _ => cell_text(&Some(value.clone())),
        };
        line.iter().enumerate().map(text).collect()
    };
    match format {
        Format::Pretty if view.lines.is_empty() => format!("Cluster {} has never changed its timeline.", view.cluster),
        Format::Pretty => {
            let rows: Vec<Vec<Mark>> =
                view.lines.iter().map(|line| cells(line).into_iter().map(Mark::plain).collect()).collect();
            ours::table(&COLUMNS, &rows, look)
        }
        Format::Tsv => {
            let head = ["timeline", "switch_lsn", "reason", "timestamp", "new_leader"].join("\t");
            let line = |line| cells(line).iter().map(|cell| ours::field(cell)).collect::<Vec<_>>().join("\t");
            std::iter::once(head).chain(view.lines.iter().map(line)).collect::<Vec<_>>().join("\n")
        }
        Format::Name => view.cluster.clone(),
        format => ours::document(&document(view), format),
    }
}

fn document(view: &HistoryView) -> History {
    let text = |value: &Value| Some(cell_text(&Some(value.clone()))).filter(|text| !text.is_empty());
    let entry = |[timeline, switch, reason, timestamp, leader]: &[Value; 5]| HistoryEntry {
        timeline: timeline.as_u64(),
        switch_lsn: switch.as_u64().map(|lsn| Lsn(lsn).to_string()),
        switch_lsn_bytes: switch.as_u64(),
        reason: text(reason),
        timestamp: text(timestamp),
        new_leader: text(leader),
    };
    History { cluster: view.cluster.clone(), history: view.lines.iter().map(entry).collect() }
}
