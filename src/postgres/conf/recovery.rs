//! Recovery settings: those a standby should have to follow a server, and whether the ones it has must change.

use std::collections::BTreeMap;

use crate::cluster::{FollowChange, MemberName, Upstream, UpstreamSlot, WalReceiver};
use crate::config::PostgresConfig;
use crate::config::parameters::{Checked, check_recovery, units};
use crate::postgres::pgpass::escape_value;

/// Settings to compare with a running server. Targets of a recovery that ends are asked as well: a standby has none.
const COMPARED: [&str; 13] = [
    "archive_cleanup_command",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "recovery_end_command",
    "recovery_min_apply_delay",
    "recovery_target",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "restore_command",
];

/// What may come from the operator's own file and stays when we do not want it otherwise.
const OPERATORS: [&str; 5] = [
    "archive_cleanup_command",
    "promote_trigger_file",
    "recovery_end_command",
    "recovery_min_apply_delay",
    "restore_command",
];

/// Keywords whose absence means the same as this value.
const CONNINFO_DEFAULTS: [(&str, &str); 4] =
    [("sslmode", "prefer"), ("gssencmode", "prefer"), ("channel_binding", "prefer"), ("sslnegotiation", "postgres")];

/// The order in which keywords are written, with the first version that knows each.
const CONNINFO_ORDER: [(&str, u32); 20] = [
    ("dbname", 0),
    ("user", 0),
    ("passfile", 0),
    ("host", 0),
    ("port", 0),
    ("sslmode", 0),
    ("sslcompression", 0),
    ("sslcert", 0),
    ("sslkey", 0),
    ("sslpassword", 130_000),
    ("sslrootcert", 0),
    ("sslcrl", 0),
    ("sslcrldir", 140_000),
    ("application_name", 0),
    ("krbsrvname", 0),
    ("gssencmode", 120_000),
    ("channel_binding", 130_000),
    ("target_session_attrs", 0),
    ("sslnegotiation", 170_000),
    ("connect_timeout", 0),
];

/// The names of the settings to ask a server of this version for.
pub fn names(version: u32) -> Vec<&'static str> {
    COMPARED.into_iter().filter(|name| *name != "promote_trigger_file" || version < 160_000).collect()
}

/// The settings a standby should have to follow `upstream`, or nobody.
pub fn wanted(
    config: &PostgresConfig,
    upstream: Option<&Upstream>,
    version: u32,
    passfile: &str,
) -> BTreeMap<String, String> {
    let ours = |name: &str| name.starts_with("recovery_target") || name.starts_with("primary_");
    let mut settings: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in config.recovery_conf.iter().filter(|(name, _)| !ours(name)) {
        settings.extend(checked(name, value, version));
    }
    let mut set = |name: &str, value: &str| settings.insert(name.to_owned(), value.to_owned());
    set("recovery_target_timeline", "latest");
    for target in ["", "_name", "_time", "_xid", "_lsn"] {
        set(&format!("recovery_target{target}"), "");
    }
    let Some(upstream) = upstream else { return settings };
    if upstream.host.as_ref().is_some_and(|host| !host.is_empty()) && upstream.member.as_ref() != Some(&config.name) {
        set("primary_conninfo", &conninfo(config, upstream, version, passfile));
        let slot = match &upstream.slot {
            UpstreamSlot::Own => Some(config.name.slot_name()),
            UpstreamSlot::Named(name) => Some(MemberName::from(name.as_str()).slot_name()),
            UpstreamSlot::None => None,
        };
        if let Some(slot) = slot.filter(|_| config.use_slots) {
            set("primary_slot_name", &slot);
        }
    }
    let overriding = [
        ("restore_command", &upstream.restore_command),
        ("archive_cleanup_command", &upstream.archive_cleanup_command),
        ("recovery_min_apply_delay", &upstream.recovery_min_apply_delay),
    ];
    for (name, value) in overriding {
        if let Some(value) = value {
            set(name, value);
        }
    }
    settings
}

/// A setting of the operator's as this version takes it, under the name that it has there.
fn checked(name: &str, value: &str, version: u32) -> Option<(String, String)> {
    let name = match name {
        "standby_mode" => return None,
        "trigger_file" => "promote_trigger_file",
        name => name,
    };
    let value = match check_recovery(name, value, version) {
        Checked::Accepted => value.to_owned(),
        Checked::Adjusted { value, warning } => {
            tracing::warn!("{warning}");
            value
        }
        Checked::Removed { warning } => {
            tracing::warn!("{warning}");
            return None;
        }
        Checked::Unknown => {
            tracing::warn!("Removing unexpected parameter={name} value={value} from the config");
            return None;
        }
    };
    Some((name.to_owned(), value))
}

/// The settings of a recovery that ends where the operator of a new cluster wants it. Old names are understood.
pub fn until_target(configured: &BTreeMap<String, String>, version: u32) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    for (name, value) in configured {
        match (name.as_str(), units::boolean(value)) {
            ("pause_at_recovery_target", Some(pauses)) => {
                let action = if pauses { "pause" } else { "promote" };
                settings.entry("recovery_target_action".to_owned()).or_insert_with(|| action.to_owned());
            }
            _ => settings.extend(checked(name, value, version)),
        }
    }
    settings
}

/// `primary_conninfo` for a server. The password is in the password file.
fn conninfo(config: &PostgresConfig, upstream: &Upstream, version: u32, passfile: &str) -> String {
    let credentials = &config.replication;
    let mut words: BTreeMap<&str, String> =
        credentials.options.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    let mut set = |name: &'static str, value: Option<String>| value.map(|value| words.insert(name, value));
    set("dbname", Some(upstream.database.clone().unwrap_or_else(|| config.database.clone())));
    set("user", credentials.username.clone());
    set("passfile", credentials.password.as_ref().map(|_| passfile.to_owned()));
    set("host", upstream.host.clone());
    set("port", Some(upstream.port.unwrap_or(5432).to_string()));
    set("application_name", Some(config.name.to_string()));
    set("krbsrvname", config.krbsrvname.clone());
    // Of several remote hosts the one that has the slot is the primary.
    let several = upstream.host.as_ref().is_some_and(|host| host.contains(','));
    if several && version >= 100_000 && upstream.slot != UpstreamSlot::None && config.use_slots {
        set("target_session_attrs", Some("read-write".to_owned()));
    }
    for (name, value) in CONNINFO_DEFAULTS {
        words.entry(name).or_insert_with(|| value.to_owned());
    }
    let known = CONNINFO_ORDER.iter().filter(|(_, since)| version >= *since);
    let written = known.filter_map(|(name, _)| Some(format!("{name}={}", escape_value(words.get(name)?))));
    written.collect::<Vec<_>>().join(" ")
}

/// Reads a connection string of keywords. `None`: it is no such string.
pub fn parse_conninfo(text: &str) -> Option<BTreeMap<String, String>> {
    let mut words = BTreeMap::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Some(words);
        }
        let mut name = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=' && !c.is_whitespace()) {
            name.push(c);
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if name.is_empty() || chars.next() != Some('=') {
            return None;
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let is_quoted = chars.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        loop {
            match chars.next() {
                Some('\\') => value.extend(chars.next()),
                Some('\'') if is_quoted => break,
                Some(c) if c.is_whitespace() && !is_quoted => break,
                Some(c) => value.push(c),
                None if is_quoted => return None,
                None => break,
            }
        }
        words.insert(name, value);
    }
}

/// One recovery setting of the running server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// Its value.
    pub value: String,
    /// A change takes a restart.
    pub needs_restart: bool,
    /// It comes from another file than ours.
    pub is_operators: bool,
}

/// What a running standby has.
#[derive(Clone, Debug, Default)]
pub struct Current {
    /// Its settings by name.
    pub settings: BTreeMap<String, Setting>,
    /// What its receiver really uses; the settings may have been changed without effect yet.
    pub receiver: Option<WalReceiver>,
    /// The password file has the lines that we would write.
    pub is_passfile_current: bool,
}

/// Compares what a standby has with what it should have.
pub fn compare(wanted: &BTreeMap<String, String>, current: &Current, version: u32) -> FollowChange {
    let mut change = FollowChange::None;
    let empty = Setting::default();
    let mut names: Vec<&str> = wanted.keys().map(String::as_str).collect();
    names.extend(current.settings.keys().map(String::as_str).filter(|name| !wanted.contains_key(*name)));
    for name in names {
        let setting = current.settings.get(name).unwrap_or(&empty);
        if is_same(name, wanted, setting, current, version) {
            continue;
        }
        if setting.needs_restart {
            return FollowChange::Restart;
        }
        change = FollowChange::Reload;
    }
    change
}

fn is_same(name: &str, wanted: &BTreeMap<String, String>, setting: &Setting, current: &Current, version: u32) -> bool {
    let value = wanted.get(name).map(String::as_str);
    let receiver = current.receiver.as_ref().filter(|receiver| receiver.conninfo.is_some());
    match name {
        "primary_conninfo" => same_conninfo(value.unwrap_or_default(), &setting.value, current, version),
        "primary_slot_name" if !wanted.contains_key("primary_conninfo") => true,
        "primary_slot_name" => {
            let slot = receiver.map(|receiver| receiver.slot_name.clone().unwrap_or_default());
            slot.as_deref().unwrap_or(&setting.value) == value.unwrap_or_default()
        }
        "recovery_min_apply_delay" if value.is_none() && setting.is_operators => true,
        "recovery_min_apply_delay" => {
            let delay = |text: &str| units::integer(if text.is_empty() { "0" } else { text }, Some("ms"));
            delay(value.unwrap_or_default()) == delay(&setting.value)
        }
        _ if value.is_none() && setting.is_operators && OPERATORS.contains(&name) => true,
        _ => value.unwrap_or_default() == setting.value,
    }
}

fn same_conninfo(wanted: &str, configured: &str, current: &Current, version: u32) -> bool {
    if wanted.is_empty() || configured.is_empty() {
        return wanted == configured;
    }
    let (Some(wanted), Some(configured)) = (parse_conninfo(wanted), parse_conninfo(configured)) else { return false };
    let in_use = current.receiver.as_ref().and_then(|receiver| parse_conninfo(receiver.conninfo.as_deref()?));
    let has = match in_use {
        // The view shows another database than the one configured, and no passwords.
        Some(mut words) => {
            for name in ["dbname", "password", "sslpassword"] {
                words.remove(name);
                words.extend(configured.get_key_value(name).map(|(name, value)| (name.clone(), value.clone())));
            }
            words
        }
        None => configured,
    };
    let value = |name: &str| {
        let default = CONNINFO_DEFAULTS.iter().find(|(keyword, _)| *keyword == name).map(|(_, value)| *value);
        has.get(name).map(String::as_str).or(default)
    };
    wanted.iter().all(|(name, wanted)| match name.as_str() {
        "dbname" if version < 170_000 => true,
        "passfile" => value(name) == Some(wanted) && current.is_passfile_current,
        _ => value(name) == Some(wanted),
    })
}

#[cfg(test)]
#[path = "recovery/tests.rs"]
mod tests;
