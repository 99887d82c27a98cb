//! Bytes of a key to what they mean. No bytes make these fail: what cannot be read counts as Patroni members count
//! it, which for most documents is "nothing there". The one exception is a `failover` with a time that nobody can
//! parse: it takes Patroni's whole view down, and is a blank request here.

use std::collections::BTreeMap;

use jiff::fmt::rfc2822;
use jiff::fmt::temporal::Pieces;
use serde_json::{Map, Value};

use crate::cluster::tags::is_truthy;
use crate::cluster::{ConfigKey, FailoverKey, History, Lsn, MemberName, Status, SyncState, Version};

fn json(value: &[u8]) -> Option<Value> {
    serde_json::from_slice(value).ok()
}

fn object(value: &[u8]) -> Option<Map<String, Value>> {
    match json(value)? {
        Value::Object(map) => Some(map),
        _ => None,
    }
}

/// `members/{name}`: the object; empty when it is none. Very old members wrote a bare connection URL whose
/// parameter `application_name` is the address of the REST API.
pub fn member(value: &[u8]) -> Map<String, Value> {
    match std::str::from_utf8(value) {
        Ok(text) if text.starts_with("postgres") => legacy_member(text),
        _ => object(value).unwrap_or_default(),
    }
}

fn legacy_member(text: &str) -> Map<String, Value> {
    let (url, query) = text.split_once('?').unwrap_or((text, ""));
    let mut data = Map::new();
    data.insert("conn_url".to_owned(), url.into());
    let api = query.split('&').find_map(|pair| pair.strip_prefix("application_name="));
    if let Some(api) = api.filter(|api| !api.is_empty()) {
        data.insert("api_url".to_owned(), percent_decoded(api).into());
    }
    data
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while let Some(byte) = bytes.get(i) {
        let escaped = bytes.get(i + 1..i + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (byte, escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(decoded)) => {
                out.push(decoded);
                i += 3;
            }
            (b'+', _) => {
                out.push(b' ');
                i += 1;
            }
            _ => {
                out.push(*byte);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// `config`: the document, or none when it is not an object.
pub fn config(value: &[u8], version: Version) -> ConfigKey {
    ConfigKey { version, document: object(value) }
}

/// `status`, also as the bare number of old members and with the lists as JSON text.
pub fn status(value: &[u8]) -> Status {
    let map = match json(value) {
        Some(Value::Object(map)) => map,
        Some(number @ Value::Number(_)) => return Status { optime: lsn(&number), ..Status::default() },
        _ => return Status::default(),
    };
    Status {
        optime: map.get("optime").and_then(lsn),
        slots: map.get("slots").and_then(slots),
        retain_slots: map.get("retain_slots").and_then(retain_slots),
    }
}

/// `optime/leader`: a decimal number.
pub fn legacy_optime(value: &[u8]) -> Status {
    let text = String::from_utf8_lossy(value).into_owned();
    Status { optime: lsn(&Value::String(text)), ..Status::default() }
}

fn lsn(value: &Value) -> Option<Lsn> {
    match value {
        Value::Number(n) => n.as_u64().or_else(|| n.as_f64().filter(|f| *f >= 0.0).map(|f| f as u64)).map(Lsn),
        Value::String(text) => text.trim().parse().ok().map(Lsn),
        _ => None,
    }
}

fn unpacked(value: &Value) -> Option<Value> {
    match value {
        Value::String(text) => json(text.as_bytes()),
        other => Some(other.clone()),
    }
}

fn slots(value: &Value) -> Option<BTreeMap<String, Lsn>> {
    let Value::Object(map) = unpacked(value)? else { return None };
    let slots: BTreeMap<_, _> = map.iter().filter_map(|(name, v)| Some((name.clone(), lsn(v)?))).collect();
    (!slots.is_empty()).then_some(slots)
}

fn retain_slots(value: &Value) -> Option<Vec<String>> {
    let Value::Array(list) = unpacked(value)? else { return None };
    let names: Vec<String> = list.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    (!names.is_empty()).then_some(names)
}

/// `failover`, also as the text `leader:candidate` of old CLIs.
pub fn failover(value: &[u8], version: Version) -> FailoverKey {
    let blank = FailoverKey { version, ..FailoverKey::default() };
    let map = match json(value) {
        Some(Value::Object(map)) => map,
        Some(_) => return blank,
        None => return legacy_failover(&String::from_utf8_lossy(value), version),
    };
    let name = |key: &str| map.get(key).and_then(Value::as_str).and_then(named);
    let scheduled_at = match map.get("scheduled_at").filter(|value| is_truthy(value)) {
        None => None,
        Some(Value::String(text)) if is_time(text) => Some(text.clone()),
        Some(_) => return blank,
    };
    FailoverKey { version, leader: name("leader"), candidate: name("member"), scheduled_at }
}

fn legacy_failover(text: &str, version: Version) -> FailoverKey {
    let (leader, candidate) = text.split_once(':').unwrap_or((text, ""));
    let candidate = candidate.split(':').next().unwrap_or_default();
    FailoverKey { version, leader: named(leader.trim()), candidate: named(candidate.trim()), scheduled_at: None }
}

fn named(text: &str) -> Option<MemberName> {
    (!text.is_empty()).then(|| MemberName::from(text))
}

/// Whether this is a time by any of the spellings that are in use: ISO 8601 with or without offset, with `T` or a
/// space, or the form of mail headers. A time without offset is one; whether it can be acted on is another matter.
fn is_time(text: &str) -> bool {
    let text = text.trim();
    Pieces::parse(text).is_ok() || rfc2822::DateTimeParser::new().parse_zoned(text).is_ok()
}

/// `sync`. Without a leader, or with a quorum that is no number, the document counts as empty; its version stays.
pub fn sync(value: &[u8], version: Version) -> SyncState {
    let empty = SyncState { version: Some(version), ..SyncState::default() };
    let Some(map) = object(value) else { return empty };
    let Some(leader) = map.get("leader").and_then(Value::as_str).and_then(named) else { return empty };
    let quorum = match map.get("quorum").filter(|value| is_truthy(value)) {
        None => 0,
        Some(value) => match quorum(value) {
            Some(number) => number,
            None => return empty,
        },
    };
    let standbys = map.get("sync_standby").and_then(Value::as_str).unwrap_or_default();
    let mut voters: Vec<MemberName> = standbys.split(',').filter_map(|name| named(name.trim())).collect();
    voters.sort();
    voters.dedup();
    SyncState { version: Some(version), leader: Some(leader), quorum, voters }
}

fn quorum(value: &Value) -> Option<u32> {
    let number = match value {
        Value::Bool(yes) => i64::from(*yes),
        Value::Number(n) => n.as_i64().or_else(|| n.as_f64().map(|f| f as i64))?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    Some(u32::try_from(number.max(0)).unwrap_or(u32::MAX))
}

/// `history`: the document as it stands; what is not JSON is kept as text.
pub fn history(value: &[u8]) -> History {
    let as_text = || Value::String(String::from_utf8_lossy(value).into_owned());
    History { raw: json(value).unwrap_or_else(as_text) }
}

/// `failsafe`: member to address; none when it is not an object.
pub fn failsafe(value: &[u8]) -> Option<BTreeMap<MemberName, String>> {
    let url = |(name, url): (String, Value)| Some((MemberName::from(name), url.as_str()?.to_owned()));
    Some(object(value)?.into_iter().filter_map(url).collect())
}
