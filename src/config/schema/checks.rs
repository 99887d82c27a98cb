//! The checks of single values. Each gives the messages of what is wrong, none when all is well.

use core::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use crate::cluster::tags::as_boolish;
use crate::config::address::split_host_port;
use crate::config::merge::text;
use crate::config::parameters::units;

use super::Found;
use super::table::{Integer, Rule};
use super::walk::Walk;

/// Addresses that lead every member to itself.
const OWN_ADDRESSES: [&str; 5] = ["127.0.0.1", "0.0.0.0", "*", "::1", "localhost"];
/// The port of an address that names none.
const NO_PORT: u16 = 1;

/// An integer as Python sees it: booleans are some.
pub(super) fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.is_boolean()
}

pub(super) fn scalar(walk: &Walk<'_>, value: &Value, rule: &Rule) -> Vec<String> {
    let type_error = match rule {
        Rule::Text | Rule::DataDirectory | Rule::Program | Rule::ReachableHosts => wants(value.is_string(), "a string"),
        Rule::ConnectAddress | Rule::Listen | Rule::ListenOnSeveral => wants(value.is_string(), "a string"),
        Rule::Flag => wants(value.is_boolean(), "a boolean"),
        Rule::Number => wants(is_integer(value), "an integer"),
        Rule::Mapping => wants(value.is_object(), "a dictionary"),
        Rule::ReachableList => wants(value.is_array(), "an array"),
        Rule::Integer(bounds) if bounds.is_strict => wants(is_integer(value), "an integer"),
        _ => None,
    };
    if let Some(message) = type_error {
        return vec![message];
    }
    if matches!(rule, Rule::IpAddress) {
        return ip_address(value);
    }
    let result = match rule {
        Rule::Integer(bounds) => integer(value, bounds),
        Rule::OneOf { words, any_case } => one_of(value, words, *any_case),
        Rule::LogFormat => log_format(value),
        Rule::WatchdogMode => watchdog_mode(value),
        Rule::SynchronousMode => synchronous_mode(value),
        Rule::ConnectAddress => connect_address(value),
        Rule::Listen => listen(walk, value, false),
        Rule::ListenOnSeveral => listen(walk, value, true),
        Rule::Reachable => reachable(walk, value),
        Rule::ReachableList => value.as_array().into_iter().flatten().try_for_each(|address| reachable(walk, address)),
        Rule::ReachableHosts => text(value).split(',').try_for_each(|host| reachable(walk, &Value::from(host.trim()))),
        Rule::DataDirectory => data_directory(walk, value),
        Rule::Program => program(walk, value),
        _ => Ok(()),
    };
    result.err().map(|detail| format!("didn't pass validation: {detail}")).into_iter().collect()
}

fn wants(is_fine: bool, name: &str) -> Option<String> {
    (!is_fine).then(|| format!("is not {name}"))
}

type Checked = Result<(), String>;

fn require(is_fine: bool) -> Checked {
    if is_fine { Ok(()) } else { Err("Wrong value".to_owned()) }
}

fn integer(value: &Value, bounds: &Integer) -> Checked {
    let number = units::integer(&text(value), bounds.unit);
    require(number.is_some_and(|number| {
        bounds.min.is_none_or(|min| number >= min)
            && bounds.max.is_none_or(|max| number <= max)
            && number % bounds.multiple_of == 0
    }))
}

fn one_of(value: &Value, words: &[&str], any_case: bool) -> Checked {
    let is_word =
        |text: &str| words.iter().any(|word| if any_case { word.eq_ignore_ascii_case(text) } else { *word == text });
    require(value.as_str().is_some_and(is_word))
}

fn log_format(value: &Value) -> Checked {
    match value {
        Value::String(_) => Ok(()),
        Value::Array(items) if items.is_empty() => Err("should contain at least one item".to_owned()),
        Value::Array(items) => {
            let is_renamed =
                |item: &Value| item.as_object().is_some_and(|map| map.len() == 1 && map.values().all(Value::is_string));
            if items.iter().all(|item| item.is_string() || is_renamed(item)) {
                Ok(())
            } else {
                Err("each item should be a string or a dictionary with string values".to_owned())
            }
        }
        _ => Err("Should be a string or a list".to_owned()),
    }
}

fn watchdog_mode(value: &Value) -> Checked {
    match value {
        Value::Bool(flag) => require(!flag),
        Value::String(text) => require(["off", "automatic", "required"].contains(&text.as_str())),
        _ => Err("expected type is not a string".to_owned()),
    }
}

fn synchronous_mode(value: &Value) -> Checked {
    let is_quorum = value.as_str().is_some_and(|text| text.eq_ignore_ascii_case("quorum"));
    if is_quorum || as_boolish(&Value::from(text(value))).is_some() {
        Ok(())
    } else {
        Err("invalid value for synchronous_mode".to_owned())
    }
}

fn address(value: &Value) -> Result<(String, u16), String> {
    let split = value.as_str().and_then(|text| split_host_port(text, NO_PORT));
    split.ok_or_else(|| "contains a wrong value".to_owned())
}

fn connect_address(value: &Value) -> Checked {
    let (host, _) = address(value)?;
    if OWN_ADDRESSES.contains(&host.as_str()) {
        let names = OWN_ADDRESSES.map(|name| format!("\"{name}\"")).join(", ");
        return Err(format!("must not contain {names}"));
    }
    Ok(())
}

fn listen(walk: &Walk<'_>, value: &Value, several: bool) -> Checked {
    let (host, port) = address(value)?;
    let hosts: Vec<&str> = if several { host.split(',').collect() } else { vec![&host] };
    if hosts.contains(&"*") && hosts.len() > 1 {
        return Err("expecting '*' alone".to_owned());
    }
    if walk.surroundings.is_taken(&hosts, port)? && !walk.strictness.ignore_listen_ports {
        return Err(format!("Port {port} is already in use."));
    }
    Ok(())
}

fn reachable(walk: &Walk<'_>, value: &Value) -> Checked {
    let (host, port) = address(value)?;
    if walk.surroundings.is_reachable(&host, port)? { Ok(()) } else { Err(format!("{} is not reachable", text(value))) }
}

fn ip_address(value: &Value) -> Vec<String> {
    let text = value.as_str().unwrap_or_default();
    if text.parse::<Ipv4Addr>().is_ok() || text.parse::<Ipv6Addr>().is_ok() {
        return Vec::new();
    }
    let wrong = |family: &str| format!("didn't pass validation: Is not a valid {family} address");
    vec![wrong("ipv4"), wrong("ipv6")]
}

/// `postgresql.<key>`, if it is a text.
fn postgresql<'a>(walk: &'a Walk<'_>, key: &str) -> Option<&'a str> {
    walk.document.get("postgresql")?.get(key)?.as_str()
}

fn program_name<'a>(walk: &'a Walk<'_>, program: &'a str) -> &'a str {
    let names = walk.document.get("postgresql").and_then(|section| section.get("bin_name"));
    names.and_then(|names| names.get(program)?.as_str()).unwrap_or(program)
}

fn bin_dir<'a>(walk: &'a Walk<'_>) -> Option<&'a str> {
    postgresql(walk, "bin_dir").filter(|dir| !dir.is_empty())
}

fn data_directory(walk: &Walk<'_>, value: &Value) -> Checked {
    let dir = text(value);
    if dir.is_empty() {
        return Err("is an empty string".to_owned());
    }
    let inside = |name: &str| format!("{}/{name}", dir.trim_end_matches('/'));
    match walk.surroundings.look(&dir) {
        Found::Nothing => return Ok(()),
        Found::File => return Err("is not a directory".to_owned()),
        Found::EmptyDirectory if walk.surroundings.look(&inside("global/pg_control")) != Found::File => return Ok(()),
        Found::EmptyDirectory | Found::Directory => {}
    }
    let foreign = || "doesn't look like a valid data directory".to_owned();
    let version = walk.surroundings.read(&inside("PG_VERSION")).ok_or_else(foreign)?;
    let version = version.trim();
    let number: f64 = version.parse().map_err(|_| foreign())?;
    let wal = if number >= 10.0 { "pg_wal" } else { "pg_xlog" };
    if !matches!(walk.surroundings.look(&inside(wal)), Found::Directory | Found::EmptyDirectory) {
        return Err(format!("data dir for the cluster is not empty, but doesn't contain \"{wal}\" directory"));
    }
    let server = walk.surroundings.server_version(program_name(walk, "postgres"), bin_dir(walk));
    let server =
        server.ok_or_else(|| "the server's version is unknown: 'postgres --version' cannot be run".to_owned())?;
    if server != version {
        return Err(format!(
            "data_dir directory postgresql version ({version}) doesn't match with 'postgres --version' output ({server})"
        ));
    }
    Ok(())
}

fn program(walk: &Walk<'_>, value: &Value) -> Checked {
    let name = text(value);
    if name.is_empty() {
        return Err("is an empty string".to_owned());
    }
    let dir = bin_dir(walk);
    if walk.surroundings.has_program(&name, dir) {
        return Ok(());
    }
    Err(format!("does not contain '{name}' in '{}'", dir.unwrap_or("$PATH")))
}

pub(super) fn directory_of_programs(walk: &Walk<'_>, dir: &str, programs: &[&str]) -> Vec<String> {
    let place = match walk.surroundings.look(dir) {
        _ if dir.is_empty() => None,
        Found::Nothing => return vec![format!("Directory '{dir}' does not exist.")],
        Found::File => return vec![format!("'{dir}' is not a directory.")],
        Found::EmptyDirectory | Found::Directory => Some(dir),
    };
    let names = programs.iter().map(|program| program_name(walk, program));
    let missing = names.filter(|name| !walk.surroundings.has_program(name, place));
    missing.map(|name| format!("does not contain '{name}' in '{}'", place.unwrap_or("$PATH"))).collect()
}
