//! What a server version accepts, out of `table.txt`.
//!
//! A line of the table is `name: rule; rule`; a rule is a type and a range of versions, the end excluded:
//! `i[1..600]s@9.3-`, `e{escape|hex}@9.3-`, `eb{try}@15-` (a boolean or a word), `b@17-`, `s@9.3-10`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::units;

const TABLE: &str = include_str!("table.txt");
/// What follows this line are the recovery parameters.
const RECOVERY_HEADING: &str = "[recovery]";

/// What becomes of a parameter for a given server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// It goes into the file as it is.
    Accepted,
    /// It goes into the file with another value.
    Adjusted {
        /// The bound it was brought to.
        value: String,
        /// The sentence for the log.
        warning: String,
    },
    /// The server would refuse it, so it stays out.
    Removed {
        /// The sentence for the log.
        warning: String,
    },
    /// This table does not know it for this version. The server's own list (`postgres --describe-config`) decides.
    Unknown,
}

/// Checks one parameter of the main block; `version` is `server_version_num`. Names with a dot belong to extensions
/// and pass.
pub fn check(name: &str, value: &str, version: u32) -> Checked {
    check_with(&TABLES.parameters, name, value, version)
}

/// Checks a recovery parameter, by the major version only.
pub fn check_recovery(name: &str, value: &str, version: u32) -> Checked {
    let major = if version >= 100_000 { version / 10_000 * 10_000 } else { version / 100 * 100 };
    check_with(&TABLES.recovery, name, value, major)
}

/// Whether a name is a recovery parameter, in any version.
pub fn is_recovery_parameter(name: &str) -> bool {
    TABLES.recovery.contains_key(&name.to_ascii_lowercase())
}

/// A name as PostgreSQL spells it (`timezone` is `TimeZone`); one that the table does not know stays as it is.
pub fn canonical_name(name: &str) -> &str {
    TABLES.parameters.get(&name.to_ascii_lowercase()).map_or(name, |entry| entry.name)
}

/// The parameters, recovery ones included, that the table knows for a server version (`server_version_num`).
pub fn known(version: u32) -> impl Iterator<Item = &'static str> {
    let all = TABLES.parameters.values().chain(TABLES.recovery.values());
    all.filter(move |entry| entry.rules.iter().any(|rule| rule.is_for(version))).map(|entry| entry.name)
}

fn check_with(table: &Table, name: &str, value: &str, version: u32) -> Checked {
    let Some(entry) = table.get(&name.to_ascii_lowercase()) else {
        return if name.contains('.') { Checked::Accepted } else { Checked::Unknown };
    };
    entry.rules.iter().find(|rule| rule.is_for(version)).map_or(Checked::Unknown, |rule| rule.kind.check(name, value))
}

type Table = BTreeMap<String, Entry>;

struct Tables {
    parameters: Table,
    recovery: Table,
}

static TABLES: LazyLock<Tables> = LazyLock::new(|| {
    let (parameters, recovery) = TABLE.split_once(RECOVERY_HEADING).unwrap_or((TABLE, ""));
    Tables { parameters: parse(parameters), recovery: parse(recovery) }
});

struct Entry {
    name: &'static str,
    rules: Box<[Rule]>,
}

struct Rule {
    from: u32,
    till: Option<u32>,
    kind: Kind,
}

impl Rule {
    fn is_for(&self, version: u32) -> bool {
        self.from <= version && self.till.is_none_or(|till| version < till)
    }
}

enum Kind {
    Bool,
    Text,
    /// Words; the flag tells whether booleans are accepted beside them.
    Enum(Vec<&'static str>, bool),
    Number {
        is_integer: bool,
        minimum: &'static str,
        maximum: &'static str,
        unit: Option<&'static str>,
    },
}

impl Kind {
    fn check(&self, name: &str, value: &str) -> Checked {
        let removed = |kind: &str| Checked::Removed {
            warning: format!("Removing {kind} parameter={name} from the config due to the invalid value={value}"),
        };
        match self {
            Self::Text => Checked::Accepted,
            Self::Bool if units::boolean(value).is_some() => Checked::Accepted,
            Self::Bool => removed("bool"),
            Self::Enum(_, true) if units::boolean(value).is_some() => Checked::Accepted,
            Self::Enum(words, _) if words.iter().any(|word| word.eq_ignore_ascii_case(value)) => Checked::Accepted,
            Self::Enum(..) => removed("enum"),
            Self::Number { is_integer, minimum, maximum, unit } => {
                let number = match is_integer {
                    true => units::integer(value, *unit).map(|number| number as f64),
                    false => units::real(value, *unit),
                };
                let Some(number) = number else { return removed(if *is_integer { "integer" } else { "real" }) };
                let bound = |text: &'static str| text.parse::<f64>().ok();
                let adjusted = |to: &str, what: &str| Checked::Adjusted {
                    value: to.to_owned(),
                    warning: format!("Value={value} of parameter={name} is too {what} {to}{}", unit.unwrap_or("")),
                };
                if bound(minimum).is_some_and(|minimum| number < minimum) {
                    adjusted(minimum, "low, increasing to")
                } else if bound(maximum).is_some_and(|maximum| number > maximum) {
                    adjusted(maximum, "big, decreasing to")
                } else {
                    Checked::Accepted
                }
            }
        }
    }
}

fn parse(text: &'static str) -> Table {
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    lines
        .map(|(name, rules)| {
            let rules = rules.split("; ").filter_map(parse_rule).collect();
            (name.to_ascii_lowercase(), Entry { name, rules })
        })
        .collect()
}

/// `None` for a rule that is not understood; a test holds that there is none.
fn parse_rule(rule: &'static str) -> Option<Rule> {
    let (kind, versions) = rule.rsplit_once('@')?;
    let (from, till) = versions.split_once('-')?;
    let till = if till.is_empty() { None } else { Some(parse_version(till)?) };
    Some(Rule { from: parse_version(from)?, till, kind: parse_kind(kind)? })
}

fn parse_kind(kind: &'static str) -> Option<Kind> {
    let words = |text: &'static str| -> Option<Vec<&'static str>> {
        let inner = text.strip_prefix('{')?.strip_suffix('}')?;
        // Two quotes are the empty word.
        Some(inner.split('|').map(|word| if word == "''" { "" } else { word }).collect())
    };
    match kind {
        "b" => return Some(Kind::Bool),
        "s" => return Some(Kind::Text),
        _ => {}
    }
    if let Some(rest) = kind.strip_prefix("eb") {
        return Some(Kind::Enum(words(rest)?, true));
    }
    if let Some(rest) = kind.strip_prefix('e') {
        return Some(Kind::Enum(words(rest)?, false));
    }
    let (is_integer, rest) = match kind.strip_prefix('i') {
        Some(rest) => (true, rest),
        None => (false, kind.strip_prefix('r')?),
    };
    let (range, unit) = rest.strip_prefix('[')?.split_once(']')?;
    let (minimum, maximum) = range.split_once("..")?;
    Some(Kind::Number { is_integer, minimum, maximum, unit: Some(unit).filter(|unit| !unit.is_empty()) })
}

/// `9.6` is 90600, `14.5` is 140005, `17` is 170000.
fn parse_version(text: &str) -> Option<u32> {
    let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
    let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
    Some(if major < 10 { major * 10_000 + minor * 100 } else { major * 10_000 + minor })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removed(warning: &str) -> Checked {
        Checked::Removed { warning: warning.to_owned() }
    }

    fn adjusted(value: &str, warning: &str) -> Checked {
        Checked::Adjusted { value: value.to_owned(), warning: warning.to_owned() }
    }

    #[test]
    fn every_line_of_the_table_is_understood() {
        let lines: Vec<_> = TABLE.lines().filter(|line| *line != RECOVERY_HEADING).collect();
        assert_eq!(lines.len(), TABLES.parameters.len() + TABLES.recovery.len());
        for line in lines {
            let (_, rules) = line.split_once(": ").unwrap();
            for rule in rules.split("; ") {
                let parsed = parse_rule(rule).unwrap_or_else(|| panic!("{line}: {rule}"));
                assert!(parsed.till.is_none_or(|till| till > parsed.from), "{line}");
                if let Kind::Number { minimum, maximum, .. } = parsed.kind {
                    assert!(minimum.parse::<f64>().unwrap() <= maximum.parse::<f64>().unwrap(), "{line}");
                }
            }
        }
    }

    #[test]
    fn values_are_checked_by_type() {
        assert_eq!(check("autovacuum", "on", 150_004), Checked::Accepted);
        assert_eq!(
            check("autovacuum", "maybe", 150_004),
            removed("Removing bool parameter=autovacuum from the config due to the invalid value=maybe")
        );
        assert_eq!(
            check("work_mem", "1kB", 150_004),
            adjusted("64", "Value=1kB of parameter=work_mem is too low, increasing to 64kB")
        );
        assert_eq!(check("archive_timeout", "100d", 150_004), Checked::Accepted);
        assert_eq!(
            check("authentication_timeout", "1h", 150_004),
            adjusted("600", "Value=1h of parameter=authentication_timeout is too big, decreasing to 600s")
        );
        assert_eq!(
            check("work_mem", "lots", 150_004),
            removed("Removing integer parameter=work_mem from the config due to the invalid value=lots")
        );
        assert_eq!(check("synchronous_commit", "Remote_Apply", 150_004), Checked::Accepted);
        assert_eq!(check("synchronous_commit", "off", 150_004), Checked::Accepted);
        assert_eq!(
            check("synchronous_commit", "remote_apply", 90_500),
            removed("Removing enum parameter=synchronous_commit from the config due to the invalid value=remote_apply")
        );
        assert_eq!(check("log_line_prefix", "%m [%p] ", 150_004), Checked::Accepted);
        assert_eq!(check("checkpoint_completion_target", "0.9", 150_004), Checked::Accepted);
        assert_eq!(check("ssl_max_protocol_version", "", 150_004), Checked::Accepted);
    }

    #[test]
    fn versions_matter() {
        assert_eq!(check("wal_keep_segments", "8", 150_004), Checked::Unknown);
        assert_eq!(check("allow_in_place_tablespaces", "on", 140_004), Checked::Unknown);
        assert_eq!(check("allow_in_place_tablespaces", "on", 140_005), Checked::Accepted);
        assert_eq!(check("no_such_parameter", "1", 150_004), Checked::Unknown);
        assert_eq!(check("my.guc", "1", 150_004), Checked::Accepted);
        assert_eq!(check("timezone", "UTC", 150_004), Checked::Accepted);
        assert_eq!(canonical_name("timezone"), "TimeZone");
    }

    #[test]
    fn recovery_parameters_are_apart() {
        assert!(is_recovery_parameter("Restore_Command"));
        assert!(!is_recovery_parameter("archive_command"));
        assert_eq!(check("restore_command", "x", 150_004), Checked::Unknown);
        assert_eq!(check_recovery("restore_command", "x", 150_004), Checked::Accepted);
        assert_eq!(check_recovery("promote_trigger_file", "x", 160_001), Checked::Unknown);
        assert_eq!(check_recovery("recovery_target", "", 150_004), Checked::Accepted);
    }
}
