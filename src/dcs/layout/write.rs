//! Documents to the bytes of a key, in the form Patroni members write: no spaces, keys in the customary order,
//! everything outside ASCII escaped.

use std::collections::BTreeMap;
use std::io;

use serde::Serialize;
use serde_json::ser::Formatter;
use serde_json::{Map, Value};

use crate::cluster::{FailoverKey, MemberName, Status, SyncState};

/// `members/{name}`, `config`: the object as it is.
pub fn object(map: &Map<String, Value>) -> Vec<u8> {
    ascii_json(map)
}

/// `status`. Empty lists are left out; an unknown position is written as zero, because the field must be there.
pub fn status(status: &Status) -> Vec<u8> {
    let mut map = Map::new();
    map.insert("optime".to_owned(), status.optime.unwrap_or_default().0.into());
    if let Some(slots) = status.slots.as_ref().filter(|slots| !slots.is_empty()) {
        let slots: Map<String, Value> = slots.iter().map(|(name, lsn)| (name.clone(), lsn.0.into())).collect();
        map.insert("slots".to_owned(), slots.into());
    }
    if let Some(names) = status.retain_slots.as_ref().filter(|names| !names.is_empty()) {
        map.insert("retain_slots".to_owned(), names.clone().into());
    }
    ascii_json(&map)
}

/// `failover`; a request that asks for nothing is `{}`.
pub fn failover(request: &FailoverKey) -> Vec<u8> {
    let mut map = Map::new();
    if !request.is_blank() {
        let mut put = |key: &str, value: Option<&str>| {
            if let Some(text) = value.filter(|text| !text.is_empty()) {
                map.insert(key.to_owned(), text.into());
            }
        };
        put("leader", request.leader.as_ref().map(MemberName::as_str));
        put("member", request.candidate.as_ref().map(MemberName::as_str));
        put("scheduled_at", request.scheduled_at.as_deref());
    }
    ascii_json(&map)
}

/// `sync`, standbys sorted.
pub fn sync(state: &SyncState) -> Vec<u8> {
    let mut voters: Vec<&str> = state.voters.iter().map(MemberName::as_str).collect();
    voters.sort_unstable();
    let standbys = if voters.is_empty() { Value::Null } else { voters.join(",").into() };
    let leader = state.leader.as_ref().map_or(Value::Null, |name| name.as_str().into());
    let mut map = Map::new();
    map.insert("leader".to_owned(), leader);
    map.insert("quorum".to_owned(), state.quorum.into());
    map.insert("sync_standby".to_owned(), standbys);
    ascii_json(&map)
}

/// `history`.
pub fn history(document: &Value) -> Vec<u8> {
    ascii_json(document)
}

/// `failsafe`.
pub fn failsafe(topology: &BTreeMap<MemberName, String>) -> Vec<u8> {
    ascii_json(topology)
}

/// Whether a document says what another one says, so that it need not be written: the same keys, nested objects
/// compared the same way, everything else by its text, so that `1` and `"1"` are equal.
pub fn is_same(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| is_same_value(value, other)))
}

fn is_same_value(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => is_same(a, b),
        _ => plain(a) == plain(b),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Null => "None".to_owned(),
        other => other.to_string(),
    }
}

fn ascii_json<T: Serialize + ?Sized>(document: &T) -> Vec<u8> {
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, Ascii);
    document.serialize(&mut serializer).expect("maps with text keys always serialize into memory");
    out
}

/// Compact, and with every character outside printable ASCII as `\uXXXX` (in UTF-16 units).
struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(|c: char| !(' '..='~').contains(&c)) {
            let (plain, tail) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let mut chars = tail.chars();
            if let Some(c) = chars.next() {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}
