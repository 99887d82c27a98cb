//! Our own tables and documents.

use super::grid::Column;
use super::{Format, Look, yaml};
use crate::ctl::documents::{self, Document};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Attribute, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table, Width};

/// How a cell stands out. The words say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shade {
    /// Not at all.
    Plain,
    /// Important.
    Strong,
    /// As it should be.
    Good,
    /// Worth a look.
    Warn,
    /// Wrong.
    Bad,
}

/// A cell of our tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    text: String,
    shade: Shade,
}

impl Mark {
    /// Text.
    pub fn plain(text: impl Into<String>) -> Self {
        Self::shaded(text, Shade::Plain)
    }

    /// Text that stands out.
    pub fn shaded(text: impl Into<String>, shade: Shade) -> Self {
        Self { text: text.into(), shade }
    }
}

/// Columns of words, which may be wrapped. A host, an LSN or a name that is cut in two cannot be copied any more.
const WRAPPED: [&str; 4] = ["Tags", "Pending restart reason", "Scheduled restart", "Reason"];

/// Draws a table; as wide as it needs to be, words wrapped where the terminal is narrower.
pub fn table(columns: &[Column<'_>], rows: &[Vec<Mark>], look: Look) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(columns.iter().map(|column| column.title));
    for row in rows {
        table.add_row(row.iter().map(|mark| cell(mark, look.styled)));
    }
    match look.width {
        Some(width) => table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    if look.styled {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    for (column, drawn) in columns.iter().zip(table.column_iter_mut()) {
        if column.is_right {
            drawn.set_cell_alignment(CellAlignment::Right);
        }
        drawn.set_constraint(match WRAPPED.contains(&column.title) {
            true => ColumnConstraint::LowerBoundary(Width::Fixed(22)),
            false => ColumnConstraint::ContentWidth,
        });
    }
    table.to_string()
}

fn cell(mark: &Mark, styled: bool) -> comfy_table::Cell {
    let cell = comfy_table::Cell::new(&mark.text);
    match mark.shade {
        _ if !styled => cell,
        Shade::Plain => cell,
        Shade::Strong => cell.add_attribute(Attribute::Bold),
        Shade::Good => cell.fg(Color::Green),
        Shade::Warn => cell.fg(Color::Yellow),
        Shade::Bad => cell.fg(Color::Red),
    }
}

/// A document, indented, without the last newline: as JSON, or as YAML.
pub fn document<D: Document>(document: &D, format: Format) -> String {
    let whole = documents::whole(document);
    if format == Format::Json { format!("{whole:#}") } else { yaml::ours(&whole) }
}

/// A field of our tab-separated lines: a tab or the end of a line in it is a blank.
pub fn field(text: &str) -> String {
    text.replace(['\t', '\n'], " ")
}

/// A number of bytes in the unit that leaves up to four digits, as PostgreSQL writes them.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let text = if unit == 0 || value >= 10.0 { format!("{value:.0}") } else { format!("{value:.1}") };
    format!("{text} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(524_288), "512 kB");
        assert_eq!(bytes(1_572_864), "1.5 MB");
        assert_eq!(bytes(63_000_000), "60 MB");
    }
}
