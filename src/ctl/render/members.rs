//! A cluster's members, in patronictl's bytes and in our own shape.

use serde_json::{Value, json};

use crate::cluster::Lag;
use crate::ctl::commands::list::{MembersView, Part, Position, Row};
use crate::ctl::context::Groups;

use super::grid::{Column, grid};
use super::tree::{Node, indented, tree};
use super::{Cell, Format, cell_text, python, yaml};

mod ours;

pub use ours::as_pgherdctl;

/// Format and order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Format.
    pub format: Format,
    /// As a tree, leader first.
    pub is_tree: bool,
}

/// Longer reasons are not shown in patronictl's table.
const LONGEST_REASON: usize = 50;

/// What patronictl prints, without the last newline.
pub fn as_patronictl(view: &MembersView, shape: Shape) -> String {
    let columns = columns(view);
    let rows = ordered(view, shape.is_tree);
    let is_grid = shape.format == Format::Pretty;
    let port = shows_port(view);
    let cells = |placed: &Placed<'_>| -> Vec<Cell> {
        columns.iter().map(|column| column.cell(view, placed, Manner { port, is_grid })).collect()
    };
    let sheet: Vec<Vec<Cell>> = rows.iter().map(cells).collect();
    match shape.format {
        Format::Pretty => {
            let hidden = 1 + usize::from(matches!(view.groups, Groups::One(_)));
            let heads: Vec<Column<'_>> = columns.iter().skip(hidden).map(|column| column.head()).collect();
            let text = |(column, cell): (&Field, &Cell)| column.text(cell, !shape.is_tree);
            let rows: Vec<Vec<String>> =
                sheet.iter().map(|row| columns.iter().zip(row).skip(hidden).map(text).collect()).collect();
            let mut lines = vec![grid(&title(view), &heads, &rows)];
            lines.extend(footer(view));
            lines.join("\n")
        }
        Format::Tsv => {
            let header: Vec<&str> = columns.iter().map(|column| column.name()).collect();
            let line = |row: &Vec<Cell>| {
                columns.iter().zip(row).map(|(column, cell)| column.text(cell, false)).collect::<Vec<_>>().join("\t")
            };
            let mut lines = vec![header.join("\t")];
            lines.extend(sheet.iter().map(line));
            lines.join("\n")
        }
        Format::Json => python::json(&objects(&columns, &sheet)),
        Format::Yaml | Format::Yml | Format::Name => yaml::block(&objects(&columns, &sheet)),
    }
}

/// Cells whose text is empty are left out.
fn objects(columns: &[Field], sheet: &[Vec<Cell>]) -> Value {
    let object = |row: &Vec<Cell>| {
        let pairs = columns.iter().zip(row).filter(|(_, cell)| !cell_text(cell).is_empty());
        Value::Object(pairs.filter_map(|(column, cell)| Some((column.name().to_owned(), cell.clone()?))).collect())
    };
    Value::Array(sheet.iter().map(object).collect())
}

fn title(view: &MembersView) -> String {
    let system = match view.parts.first().and_then(|part| part.initialize.as_deref()) {
        None => "uninitialized",
        Some("") => "initializing",
        Some(id) => id,
    };
    match view.groups {
        Groups::Plain => format!(" Cluster: {} ({system}) ", view.cluster),
        Groups::One(group) => format!(" Citus cluster: {} (group: {group}, {system}) ", view.cluster),
        Groups::All => format!(" Citus cluster: {} ", view.cluster),
    }
}

fn footer(view: &MembersView) -> Vec<String> {
    let mut lines = Vec::new();
    for part in &view.parts {
        let mut own = Vec::new();
        if part.mode.is_paused {
            own.push(" Maintenance mode: on".to_owned());
        }
        if let Some(switchover) = &part.switchover {
            own.push(format!(" Switchover scheduled at: {}", switchover.at));
            own.extend(switchover.from.as_ref().map(|from| format!("{:>24}: {from}", "from")));
            own.extend(switchover.to.as_ref().map(|to| format!("{:>24}: {to}", "to")));
        }
        if view.groups == Groups::All && !own.is_empty() {
            lines.push(format!("Citus group: {}", part.group));
        }
        lines.append(&mut own);
    }
    lines
}

/// Ports are shown as soon as one is not the usual one, or two members share a host.
fn shows_port(view: &MembersView) -> bool {
    let addresses: Vec<&(String, u16)> = rows(view).filter_map(|row| row.address.as_ref()).collect();
    let mut hosts: Vec<&str> = addresses.iter().map(|(host, _)| host.as_str()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    hosts.len() < addresses.len() || addresses.iter().any(|(_, port)| *port != 5432)
}

fn rows(view: &MembersView) -> impl Iterator<Item = &Row> {
    view.parts.iter().flat_map(|part| &part.rows)
}

/// A row in its place.
struct Placed<'a> {
    part: &'a Part,
    row: &'a Row,
    depth: usize,
}

fn ordered(view: &MembersView, is_tree: bool) -> Vec<Placed<'_>> {
    view.parts.iter().flat_map(|part| in_order(part, is_tree)).collect()
}

fn in_order(part: &Part, is_tree: bool) -> Vec<Placed<'_>> {
    if !is_tree {
        return part.rows.iter().filter(|row| row.is_shown).map(|row| Placed { part, row, depth: 0 }).collect();
    }
    let (places, _) = tree(&nodes(part));
    let places = places.iter().map(|place| Placed { part, row: &part.rows[place.index], depth: place.depth });
    places.filter(|placed| placed.row.is_shown).collect()
}

fn nodes(part: &Part) -> Vec<Node<'_>> {
    part.rows
        .iter()
        .map(|row| Node { name: &row.name, is_leader: row.role.is_leader(), upstream: row.upstream() })
        .collect()
}

/// How cells are filled.
#[derive(Clone, Copy)]
struct Manner {
    port: bool,
    is_grid: bool,
}

/// A column of patronictl's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Cluster,
    Group,
    Member,
    Host,
    Role,
    State,
    Timeline,
    ReceiveLsn,
    ReceiveLag,
    ReplayLsn,
    ReplayLag,
    Pending,
    PendingReason,
    Scheduled,
    Tags,
}

fn columns(view: &MembersView) -> Vec<Field> {
    use Field::*;
    let mut columns = vec![Cluster];
    if view.groups != Groups::Plain {
        columns.push(Group);
    }
    columns.extend([Member, Host, Role, State, Timeline, ReceiveLsn, ReceiveLag, ReplayLsn, ReplayLag]);
    type Has = fn(&Row) -> bool;
    let any = |has: Has| view.is_extended || rows(view).any(|row| row.address.is_some() && has(row));
    let optional: [(Field, Has); 4] = [
        (Pending, |row| row.is_pending_restart),
        (PendingReason, |row| !row.pending_reasons.is_empty()),
        (Scheduled, |row| row.scheduled_restart.is_some()),
        (Tags, |row| row.tags.as_ref().is_some_and(|tags| !tags.is_empty())),
    ];
    columns.extend(optional.into_iter().filter(|(_, has)| any(*has)).map(|(field, _)| field));
    columns
}

impl Field {
    fn name(self) -> &'static str {
        match self {
            Self::Cluster => "Cluster",
            Self::Group => "Group",
            Self::Member => "Member",
            Self::Host => "Host",
            Self::Role => "Role",
            Self::State => "State",
            Self::Timeline => "TL",
            Self::ReceiveLsn => "Receive LSN",
            Self::ReceiveLag => "Receive Lag",
            Self::ReplayLsn => "Replay LSN",
            Self::ReplayLag => "Replay Lag",
            Self::Pending => "Pending restart",
            Self::PendingReason => "Pending restart reason",
            Self::Scheduled => "Scheduled restart",
            Self::Tags => "Tags",
        }
    }

    fn head(self) -> Column<'static> {
        match self {
            Self::ReceiveLag | Self::ReplayLag => Column::right("Lag"),
            Self::Group | Self::Timeline | Self::ReceiveLsn | Self::ReplayLsn => Column::right(self.name()),
            _ => Column::left(self.name()),
        }
    }

    fn cell(self, view: &MembersView, placed: &Placed<'_>, manner: Manner) -> Cell {
        let row = placed.row;
        let text = |text: String| (!text.is_empty()).then_some(Value::String(text));
        match self {
            Self::Cluster => text(view.cluster.clone()),
            Self::Group => Some(json!(placed.part.group)),
            Self::Member => text(indented(&row.name, placed.depth)),
            Self::Host => row.address.as_ref().and_then(|address| text(host(address, manner.port))),
            Self::Role => text(row.role.title().to_owned()),
            Self::State => text(row.state.clone()),
            Self::Timeline => row.timeline.clone(),
            Self::ReceiveLsn => row.positions.and_then(|(receive, _)| text(lsn(receive))),
            Self::ReceiveLag => row.positions.and_then(|(receive, _)| lag_mb(receive)),
            Self::ReplayLsn => row.positions.and_then(|(_, replay)| text(lsn(replay))),
            Self::ReplayLag => row.positions.and_then(|(_, replay)| lag_mb(replay)),
            Self::Pending => row.is_pending_restart.then(|| json!("*")),
            Self::PendingReason => text(reasons(row, manner.is_grid)),
            Self::Scheduled => text(scheduled(row)),
            Self::Tags => row.tags.clone().map(Value::Object),
        }
    }

    /// A cell in a table or a line; only tags have two styles.
    fn text(self, cell: &Cell, is_block: bool) -> String {
        match cell {
            Some(tags @ Value::Object(_)) if is_block => yaml::block(tags).trim().to_owned(),
            Some(tags @ Value::Object(_)) => yaml::flow(tags).trim().to_owned(),
            other => cell_text(other),
        }
    }
}

fn host((host, port): &(String, u16), with_port: bool) -> String {
    if with_port { format!("{host}:{port}") } else { host.clone() }
}

fn lsn(position: Position) -> String {
    position.lsn.map_or_else(|| "unknown".to_owned(), |lsn| lsn.to_string())
}

fn lag_mb(position: Position) -> Cell {
    match position.lag {
        Lag::Bytes(bytes) => Some(json!(python::megabytes(bytes))),
        Lag::Unknown => None,
    }
}

fn reasons(row: &Row, may_hide: bool) -> String {
    let line = |(name, old, new): &(String, String, String)| {
        let line = format!("{name}: {old}->{new}");
        if may_hide && line.chars().count() > LONGEST_REASON { format!("{name}: [hidden - too long]") } else { line }
    };
    row.pending_reasons.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn scheduled(row: &Row) -> String {
    match &row.scheduled_restart {
        None => String::new(),
        Some((at, None)) => at.clone(),
        Some((at, Some(version))) => format!("{at} if version < {version}"),
    }
}
