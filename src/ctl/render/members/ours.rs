//! Our own shape of a cluster's members.

use serde_json::json;

use super::{Field, Manner, Placed, Shape, columns, in_order, nodes, ordered, reasons, scheduled, shows_port};
use crate::cluster::Lag;
use crate::ctl::commands::list::{MembersView, Part, Position, Row, ShownRole};
use crate::ctl::context::Groups;
use crate::ctl::documents::{
    Cluster, ClusterList, KnownFrom, Member, MissingMember, PendingReason, ScheduledRestart, ScheduledSwitchover,
    SourceWord, Synchronous,
};
use crate::ctl::render::grid::Column;
use crate::ctl::render::ours::{self, Mark, Shade};
use crate::ctl::render::tree::{indented, tree};
use crate::ctl::render::{Format, Look, cell_text};
use crate::ctl::without_dcs;

/// What we print: a table per cluster, or one document for all of them. Without the last newline.
pub fn as_pgherdctl(views: &[MembersView], shape: Shape, look: Look) -> String {
    match shape.format {
        Format::Pretty => views.iter().map(|view| pretty(view, shape.is_tree, look)).collect::<Vec<_>>().join("\n\n"),
        Format::Tsv => tsv(views, shape.is_tree),
        Format::Name => names(views, shape.is_tree),
        format => ours::document(&document(views, shape.is_tree), format),
    }
}

/// A name alone says little when there are several clusters.
fn names(views: &[MembersView], is_tree: bool) -> String {
    let of_view = |view: &MembersView| -> Vec<String> {
        let prefix = if views.len() > 1 { format!("{}/", view.cluster) } else { String::new() };
        ordered(view, is_tree).iter().map(|placed| format!("{prefix}{}", placed.row.name)).collect()
    };
    views.iter().flat_map(of_view).collect::<Vec<_>>().join("\n")
}

fn document(views: &[MembersView], is_tree: bool) -> ClusterList {
    let mut clusters = Vec::new();
    for view in views {
        clusters.extend(view.parts.iter().map(|part| cluster_document(view, part, is_tree)));
    }
    ClusterList { clusters }
}

fn cluster_document(view: &MembersView, part: &Part, is_tree: bool) -> Cluster {
    let member = |placed: &Placed<'_>| Member { depth: is_tree.then_some(placed.depth), ..member_document(placed.row) };
    Cluster {
        name: view.cluster.clone(),
        group: (view.groups != Groups::Plain).then_some(part.group),
        source: if view.source.is_dcs() { SourceWord::Dcs } else { SourceWord::Members },
        known: !view.is_unknown,
        system_id: part.initialize.clone().filter(|id| !id.is_empty()),
        initializing: part.initialize.as_deref() == Some(""),
        leader: part.leader.clone(),
        paused: part.mode.is_paused,
        synchronous_mode: match (part.mode.is_synchronous, part.mode.is_quorum) {
            (false, _) => Synchronous::Off,
            (true, false) => Synchronous::On,
            (true, true) => Synchronous::Quorum,
        },
        sync: part.sync.clone(),
        standby_cluster: part.mode.is_standby_cluster,
        scheduled_switchover: part.switchover.clone().map(|s| ScheduledSwitchover { at: s.at, from: s.from, to: s.to }),
        members: in_order(part, is_tree).iter().map(member).collect(),
        missing_members: part.missing.clone(),
    }
}

fn member_document(row: &Row) -> Member {
    let lsn = |position: Option<Position>| position.and_then(|position| position.lsn).map(|lsn| lsn.to_string());
    let lag = |position: Option<Position>| match position.map(|position| position.lag) {
        Some(Lag::Bytes(bytes)) => Some(bytes),
        _ => None,
    };
    let (receive, replay) = (row.positions.map(|p| p.0), row.positions.map(|p| p.1));
    let reason = |(name, old, new): &(String, String, String)| PendingReason {
        parameter: name.clone(),
        old_value: old.clone(),
        new_value: new.clone(),
    };
    let scheduled = row.scheduled_restart.clone();
    Member {
        name: row.name.clone(),
        depth: None,
        host: row.address.as_ref().map(|(host, _)| host.clone()),
        port: row.address.as_ref().map(|(_, port)| *port),
        api_url: row.api_url.clone(),
        role: row.role,
        state: Some(row.state.clone()).filter(|state| !state.is_empty()),
        timeline: row.timeline.as_ref().and_then(serde_json::Value::as_u64),
        receive_lsn: lsn(receive),
        receive_lag_bytes: lag(receive),
        replay_lsn: lsn(replay),
        replay_lag_bytes: lag(replay),
        pending_restart: row.is_pending_restart,
        pending_restart_reasons: row.pending_reasons.iter().map(reason).collect(),
        scheduled_restart: scheduled.map(|(at, below)| ScheduledRestart { at, if_version_below: below }),
        tags: row.tags.clone().unwrap_or_default(),
    }
}

/// Always the same columns, always one line per member.
fn tsv(views: &[MembersView], is_tree: bool) -> String {
    const HEAD: [&str; 15] = [
        "cluster",
        "group",
        "member",
        "host",
        "port",
        "role",
        "state",
        "timeline",
        "receive_lsn",
        "receive_lag_bytes",
        "replay_lsn",
        "replay_lag_bytes",
        "pending_restart_reasons",
        "scheduled_restart",
        "tags",
    ];
    let mut lines = vec![HEAD.join("\t")];
    for view in views {
        for placed in ordered(view, is_tree) {
            let row = placed.row;
            let bytes = |position: Option<Position>| match position.map(|position| position.lag) {
                Some(Lag::Bytes(bytes)) => bytes.to_string(),
                _ => String::new(),
            };
            let place = |position: Option<Position>| {
                position.and_then(|position| position.lsn).map(|lsn| lsn.to_string()).unwrap_or_default()
            };
            let (receive, replay) = (row.positions.map(|p| p.0), row.positions.map(|p| p.1));
            let pending = reasons(row, false).replace('\n', "; ");
            let fields = [
                view.cluster.clone(),
                if view.groups == Groups::Plain { String::new() } else { placed.part.group.to_string() },
                row.name.clone(),
                row.address.as_ref().map(|(host, _)| host.clone()).unwrap_or_default(),
                row.address.as_ref().map(|(_, port)| port.to_string()).unwrap_or_default(),
                row.role.word().to_owned(),
                row.state.clone(),
                cell_text(&row.timeline),
                place(receive),
                bytes(receive),
                place(replay),
                bytes(replay),
                if pending.is_empty() && row.is_pending_restart { "unknown".to_owned() } else { pending },
                scheduled(row),
                row.tags.as_ref().map(|tags| json!(tags).to_string()).unwrap_or_default(),
            ];
            lines.push(fields.map(|field| ours::field(&field)).join("\t"));
        }
    }
    lines.join("\n")
}

fn pretty(view: &MembersView, is_tree: bool, look: Look) -> String {
    let port = shows_port(view);
    let columns: Vec<Field> = columns(view).into_iter().filter(|field| *field != Field::Cluster).collect();
    let heads: Vec<Column> = columns.iter().map(|column| column.head()).collect();
    let row = |placed: &Placed<'_>| -> Vec<Mark> {
        let cell = |field: &Field| mark(*field, placed, port, view);
        columns.iter().map(cell).collect()
    };
    let rows: Vec<Vec<Mark>> = ordered(view, is_tree).iter().map(row).collect();
    let mut lines = vec![heading(view)];
    if !rows.is_empty() {
        lines.push(ours::table(&heads, &rows, look));
    }
    for part in &view.parts {
        let which = if view.groups == Groups::All { format!("group {}: ", part.group) } else { String::new() };
        lines.extend(remarks(view, part, is_tree).into_iter().map(|remark| format!("{which}{remark}")));
    }
    lines.join("\n")
}

fn heading(view: &MembersView) -> String {
    let heading = heading_of(view);
    if view.source.is_dcs() { heading } else { format!("{heading}, as its members say") }
}

fn heading_of(view: &MembersView) -> String {
    let what = match view.groups {
        Groups::Plain => format!("Cluster {}", view.cluster),
        Groups::One(group) => format!("Citus cluster {}, group {group}", view.cluster),
        Groups::All => return format!("Citus cluster {}", view.cluster),
    };
    match view.parts.first().and_then(|part| part.initialize.as_deref()) {
        None if view.is_unknown => format!("{what}: nothing known"),
        None if !view.source.is_dcs() => what,
        None => format!("{what} (not initialized)"),
        Some("") => format!("{what} (being initialized)"),
        Some(id) => format!("{what} (system {id})"),
    }
}

fn mark(field: Field, placed: &Placed<'_>, port: bool, view: &MembersView) -> Mark {
    let row = placed.row;
    let manner = Manner { port, is_grid: false };
    let lag = |position: Option<Position>| match position.map(|position| position.lag) {
        Some(Lag::Bytes(0)) => Mark::plain("0"),
        Some(Lag::Bytes(bytes)) if bytes > placed.part.lag_limit => Mark::shaded(ours::bytes(bytes), Shade::Warn),
        Some(Lag::Bytes(bytes)) => Mark::plain(ours::bytes(bytes)),
        Some(Lag::Unknown) => Mark::shaded("unknown", Shade::Warn),
        None => Mark::plain(""),
    };
    match field {
        Field::ReceiveLag => lag(row.positions.map(|p| p.0)),
        Field::ReplayLag => lag(row.positions.map(|p| p.1)),
        Field::Member if row.role.is_leader() => Mark::shaded(indented(&row.name, placed.depth), Shade::Strong),
        Field::State => Mark::shaded(&row.state, shade_of(row)),
        Field::Pending => Mark::shaded(if row.is_pending_restart { "yes" } else { "" }, Shade::Warn),
        Field::Tags => Mark::plain(field.text(&field.cell(view, placed, manner), false).trim_matches(['{', '}'])),
        other => Mark::plain(other.text(&other.cell(view, placed, manner), false)),
    }
}

fn shade_of(row: &Row) -> Shade {
    match row.state.as_str() {
        "stopped" | "crashed" => Shade::Bad,
        failed if failed.ends_with("failed") => Shade::Bad,
        without_dcs::NO_ANSWER => Shade::Bad,
        "running" if row.role == ShownRole::Leader => Shade::Good,
        "streaming" => Shade::Good,
        "in archive recovery" if row.role == ShownRole::StandbyLeader => Shade::Good,
        _ => Shade::Warn,
    }
}

/// The DCS has lost its keys while members run: they wait for a primary, or for a word.
fn way_out(view: &MembersView, part: &Part) -> Option<String> {
    let is_known = part.initialize.as_deref().is_some_and(|id| !id.is_empty());
    let serves = |row: &Row| matches!(row.state.as_str(), "running" | "streaming" | "in archive recovery");
    (!is_known && part.rows.iter().any(serves)).then(|| {
        format!(
            "The DCS does not know this cluster: its keys were removed, or this is another DCS than before. A running \
             primary restores them. If none is left, choose the member that is furthest and run: pgherdctl failover {} \
             --candidate MEMBER",
            view.cluster
        )
    })
}

fn missing_words(missing: &MissingMember) -> String {
    let name = &missing.name;
    match (missing.known_from, &missing.since) {
        (KnownFrom::Leader, _) => format!("{name} (the leader)"),
        (KnownFrom::Sync, _) => format!("{name} (named as synchronous)"),
        (KnownFrom::Slot, _) => format!("{name} (the leader keeps WAL for it)"),
        (KnownFrom::EarlierList, Some(since)) => format!("{name} (not there since {since} or earlier)"),
        (KnownFrom::EarlierList, None) => format!("{name} (it was there earlier)"),
    }
}

/// What the table cannot show.
fn remarks(view: &MembersView, part: &Part, is_tree: bool) -> Vec<String> {
    let mut remarks = Vec::new();
    match &part.leader {
        None if !view.source.is_dcs() => remarks.push("No member that answered says that it leads.".to_owned()),
        None if !view.is_unknown => {
            remarks.push("There is no leader.".to_owned());
            remarks.extend(way_out(view, part));
        }
        Some(leader) if part.rows.iter().all(|row| row.name != *leader) => {
            remarks.push(format!("The leader is {leader}, which has published nothing."));
        }
        _ => {}
    }
    // The leader has been spoken of.
    let missing: Vec<String> =
        part.missing.iter().filter(|missing| missing.known_from != KnownFrom::Leader).map(missing_words).collect();
    if !missing.is_empty() {
        // No count of those that are there: not all of them need be shown.
        remarks.push(format!("Missing: {}.", missing.join(", ")));
    }
    let idle = |row: &&Row| row.state == "running" && row.role != ShownRole::Leader;
    let idle: Vec<&str> = part.rows.iter().filter(idle).map(|row| row.name.as_str()).collect();
    if !idle.is_empty() && part.leader.is_some() {
        remarks.push(format!("Running, but not replicating from anywhere: {}.", idle.join(", ")));
    }
    if part.mode.is_paused {
        remarks.push("Maintenance mode is on: no automatic failover (`resume` ends it).".to_owned());
    }
    if let Some(switchover) = &part.switchover {
        let from = switchover.from.as_ref().map(|from| format!(" from {from}")).unwrap_or_default();
        let to = switchover.to.as_ref().map(|to| format!(" to {to}")).unwrap_or_default();
        remarks.push(format!("A switchover{from}{to} is scheduled at {}.", switchover.at));
    }
    let (_, lost) = tree(&nodes(part));
    if is_tree && !lost.is_empty() {
        let names: Vec<&str> = lost.iter().map(|index| part.rows[*index].name.as_str()).collect();
        remarks.push(format!("Not reached from the leader (replicatefrom goes in a circle): {}.", names.join(", ")));
    }
    remarks
}
