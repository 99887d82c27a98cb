//! What a change of the wanted parameters means for a running server.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::PendingValue;
use crate::config::parameters::{is_controlled, is_recovery_parameter, units};

/// One parameter as the running server has it (`pg_settings`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// Its name, in lower case.
    pub name: String,
    /// Its value in base units.
    pub setting: String,
    /// Its value as `SHOW` prints it.
    pub shown: String,
    /// The base unit, empty for none.
    pub unit: String,
    /// Its type: `bool`, `integer`, `real`, `enum`, `string`.
    pub kind: String,
    /// `postmaster`: takes a restart. `internal`: cannot be set.
    pub context: String,
    /// Where the value comes from: `configuration file`, `command line`, ….
    pub source: String,
    /// The file, when it comes from one.
    pub source_file: String,
    /// The files ask for another value than the server has.
    pub is_pending: bool,
}

/// What must be done about a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The file must be written anew.
    pub is_any: bool,
    /// One log line each.
    pub lines: Vec<String>,
    /// What waits for a restart.
    pub pending: BTreeMap<String, PendingValue>,
}

/// Compares the wanted parameters with the running server and with what was wanted before.
pub fn changes(wanted: &BTreeMap<String, String>, before: &BTreeMap<String, String>, live: &[Live]) -> Changes {
    let mut found = Changes::default();
    let by_name: BTreeMap<&str, &Live> = live.iter().map(|live| (live.name.as_str(), live)).collect();
    let names: BTreeSet<&String> = wanted.keys().chain(before.keys()).collect();
    for name in names {
        let lower = name.to_lowercase();
        if is_recovery_parameter(&lower) || lower == "hot_standby" {
            continue;
        }
        let (new, old) = (wanted.get(name), before.get(name));
        match by_name.get(lower.as_str()) {
            Some(live) => compare_live(&mut found, live, new, old),
            // Settings of extensions: only our own words can be compared.
            None if lower.contains('.') && new != old => {
                let show = |value: Option<&String>| value.map_or("None".to_owned(), |value| format!("'{value}'"));
                found.lines.push(format!("Changed {name} from {} to {}", show(old), show(new)));
                found.is_any = true;
            }
            None => {}
        }
    }
    found
}

fn compare_live(found: &mut Changes, live: &Live, new: Option<&String>, old: Option<&String>) {
    if live.context == "internal" {
        return;
    }
    let same = |value: &str| {
        let value = if live.name == "wal_buffers" && value.trim() == "-1" { &live.setting } else { value };
        let unit = Some(live.unit.as_str()).filter(|unit| !unit.is_empty());
        value == live.setting || units::is_same(&live.kind, unit, &live.setting, value)
    };
    let needs_restart = live.context == "postmaster";
    match new {
        // Set back before a restart took it over: the file has the old value still.
        Some(new) if same(new) => found.is_any |= old.is_some_and(|old| !same(old)),
        None if old.is_none() => {}
        new => {
            let shown = new.map_or("None".to_owned(), |new| format!("'{new}'"));
            let restart = if needs_restart { " (restart might be required)" } else { "" };
            found.lines.push(format!("Changed {} from '{}' to {shown}{restart}", live.name, live.shown));
            found.is_any = true;
            if needs_restart {
                let new_value = new.cloned().unwrap_or_else(|| "?".to_owned());
                found.pending.insert(live.name.clone(), PendingValue { old_value: live.shown.clone(), new_value });
            }
        }
    }
}

/// What a server that was running before us had been given: the wanted parameters so far, as far as they can be told
/// from its settings.
pub fn taken_over(live: &[Live], config_file: &str) -> BTreeMap<String, String> {
    let ours = |live: &&Live| {
        let is_given = matches!(live.source.as_str(), "command line" | "environment variable");
        let is_own = matches!(live.name.as_str(), "listen_addresses" | "port" | "cluster_name");
        let is_internal = live.context == "internal" || matches!(live.name.as_str(), "config_file" | "data_directory");
        !is_own && !is_internal && (is_given || live.source_file == config_file || is_controlled(&live.name))
    };
    live.iter().filter(ours).map(|live| (live.name.clone(), live.shown.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn live(name: &str, setting: &str, unit: &str, kind: &str, context: &str) -> Live {
        Live {
            name: name.to_owned(),
            setting: setting.to_owned(),
            shown: setting.to_owned(),
            unit: unit.to_owned(),
            kind: kind.to_owned(),
            context: context.to_owned(),
            source: "configuration file".to_owned(),
            source_file: "/data/postgresql.conf".to_owned(),
            is_pending: false,
        }
    }

    fn server() -> Vec<Live> {
        vec![
            live("shared_buffers", "16384", "8kB", "integer", "postmaster"),
            live("work_mem", "4096", "kB", "integer", "user"),
            live("wal_buffers", "512", "8kB", "integer", "postmaster"),
            live("wal_level", "replica", "", "enum", "postmaster"),
            live("block_size", "8192", "", "integer", "internal"),
        ]
    }

    #[test]
    fn other_words_for_the_same_are_no_change() {
        let wanted = map(&[
            ("shared_buffers", "128MB"),
            ("work_mem", "4MB"),
            ("wal_buffers", "-1"),
            ("wal_level", "Replica"),
            ("block_size", "1"),
            ("unknown_thing", "1"),
            ("hot_standby", "off"),
        ]);
        assert_eq!(changes(&wanted, &wanted, &server()), Changes::default());
    }

    #[test]
    fn changes_are_named_and_those_of_the_postmaster_wait() {
        let (before, wanted) =
            (map(&[("work_mem", "4MB"), ("shared_buffers", "128MB")]), map(&[("shared_buffers", "256MB")]));
        let found = changes(&wanted, &before, &server());
        assert!(found.is_any);
        let expected = [
            "Changed shared_buffers from '16384' to '256MB' (restart might be required)",
            "Changed work_mem from '4096' to None",
        ];
        assert_eq!(found.lines, expected);
        let value = PendingValue { old_value: "16384".to_owned(), new_value: "256MB".to_owned() };
        assert_eq!(found.pending, [("shared_buffers".to_owned(), value)].into());
    }

    #[test]
    fn a_value_set_back_before_the_restart_is_written_but_waits_for_nothing() {
        let (before, wanted) = (map(&[("shared_buffers", "256MB")]), map(&[("shared_buffers", "128MB")]));
        let found = changes(&wanted, &before, &server());
        assert!(found.is_any && found.pending.is_empty());
    }

    #[test]
    fn settings_of_extensions_are_compared_with_our_own_words() {
        let (before, wanted) = (map(&[("x.y", "1")]), map(&[("x.y", "2")]));
        assert_eq!(changes(&wanted, &before, &server()).lines, ["Changed x.y from '1' to '2'"]);
        assert!(!changes(&wanted, &wanted, &server()).is_any);
    }

    #[test]
    fn a_running_server_says_what_it_was_given() {
        let mut rows = server();
        rows.push(Live { source_file: "/data/other.conf".to_owned(), ..live("a", "1", "", "integer", "user") });
        rows.push(Live {
            source: "command line".to_owned(),
            source_file: String::new(),
            ..live("max_connections", "100", "", "integer", "postmaster")
        });
        rows.push(Live { source: "command line".to_owned(), ..live("port", "1", "", "integer", "postmaster") });
        let taken = taken_over(&rows, "/data/postgresql.conf");
        let names: Vec<&str> = taken.keys().map(String::as_str).collect();
        assert_eq!(names, ["max_connections", "shared_buffers", "wal_buffers", "wal_level", "work_mem"]);
    }
}
