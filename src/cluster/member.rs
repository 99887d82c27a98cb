//! One member's published value.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::lsn::Lsn;
use super::names::MemberName;
use super::role::{Role, State};
use super::tags::{Tags, as_boolish, as_integer};
use super::timeline::Timeline;
use super::view::{Session, Version};

/// The field of a member's value by which we know our own; its value is the release.
pub const OURS: &str = "pgherd";

/// A member as it stands under `members/`. The value is kept as it was read, unknown fields and key order
/// included; the accessors give the field's meaning.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// The last component of the key.
    pub name: MemberName,
    /// Version of the key.
    pub version: Version,
    /// The lease or session the key hangs on, if any.
    pub session: Option<Session>,
    /// The JSON object; empty when the value could not be read as one.
    pub data: Map<String, Value>,
}

impl Member {
    /// A member with nothing published, as a leader key may name one.
    pub fn unknown(name: MemberName) -> Self {
        Self { name, ..Self::default() }
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.data.get(key).and_then(Value::as_str)
    }

    fn lsn(&self, key: &str) -> Option<Lsn> {
        let value = as_integer(self.data.get(key)?)?;
        u64::try_from(value).ok().map(Lsn)
    }

    /// `postgres://HOST:PORT/DBNAME`.
    pub fn conn_url(&self) -> Option<&str> {
        self.text("conn_url").filter(|url| !url.is_empty())
    }

    /// The address of the REST API, ending in `/patroni`.
    pub fn api_url(&self) -> Option<&str> {
        self.text("api_url").filter(|url| !url.is_empty())
    }

    /// The published state, when it is one of the known words.
    pub fn state(&self) -> Option<State> {
        State::parse(self.text("state")?)
    }

    /// The published state as text; `unknown` when absent.
    pub fn state_text(&self) -> &str {
        self.text("state").unwrap_or("unknown")
    }

    /// Whether the state is `running`.
    pub fn is_running(&self) -> bool {
        self.state() == Some(State::Running)
    }

    /// The published role.
    pub fn role(&self) -> Option<Role> {
        Role::parse(self.text("role")?)
    }

    /// The version of the agent as numbers, `4.1.5` as `[4, 1, 5]`; `None` when absent or not dotted integers.
    pub fn agent_version(&self) -> Option<Vec<u32>> {
        self.text("version")?.split('.').map(|part| part.parse().ok()).collect()
    }

    /// It is run by this software and not by Patroni, which publishes the same `version`.
    pub fn is_ours(&self) -> bool {
        self.data.contains_key(OURS)
    }

    /// The published tags.
    pub fn tags(&self) -> Tags {
        self.data.get("tags").and_then(Value::as_object).cloned().map(Tags).unwrap_or_default()
    }

    /// The WAL position: flush LSN of a primary, the higher of received and replayed of a standby.
    pub fn xlog_location(&self) -> Option<Lsn> {
        self.lsn("xlog_location")
    }

    /// The last replayed position of a standby.
    pub fn replay_lsn(&self) -> Option<Lsn> {
        self.lsn("replay_lsn")
    }

    /// The last received position of a standby.
    pub fn receive_lsn(&self) -> Option<Lsn> {
        self.lsn("receive_lsn")
    }

    /// The timeline the member is on.
    pub fn timeline(&self) -> Option<Timeline> {
        let number = as_integer(self.data.get("timeline")?)?;
        u32::try_from(number).ok().filter(|n| *n > 0).map(Timeline)
    }

    /// `streaming` or `in archive recovery`.
    pub fn replication_state(&self) -> Option<&str> {
        self.text("replication_state").filter(|text| !text.is_empty())
    }

    /// Waits for a restart.
    pub fn pending_restart(&self) -> bool {
        self.data.get("pending_restart").and_then(as_boolish).unwrap_or(false)
    }

    /// Has recognised maintenance mode.
    pub fn is_paused(&self) -> bool {
        self.data.get("pause").and_then(as_boolish).unwrap_or(false)
    }

    /// A primary whose checkpoint after its promotion is done, so that others may rewind from it: the role is
    /// primary and `checkpoint_after_promote` is absent.
    pub fn is_ready_for_rewind(&self) -> bool {
        self.role() == Some(Role::Primary) && !self.data.contains_key("checkpoint_after_promote")
    }

    /// Host and port of PostgreSQL out of `conn_url` (or of `conn_kwargs`, which old members wrote), port 5432 when
    /// it is not given. IPv6 brackets are removed.
    pub fn address(&self) -> Option<(String, u16)> {
        if let Some(parts) = self.data.get("conn_kwargs").and_then(Value::as_object) {
            let host = parts.get("host").and_then(Value::as_str);
            let port = parts.get("port").and_then(as_integer).and_then(|n| u16::try_from(n).ok());
            if let Some(host) = host {
                return Some((host.to_owned(), port.unwrap_or(5432)));
            }
        }
        parse_conn_url(self.conn_url()?).map(|(host, port, _)| (host, port))
    }

    /// The database named by `conn_url`.
    pub fn database(&self) -> Option<String> {
        parse_conn_url(self.conn_url()?)?.2
    }
}

/// Splits `postgres://HOST:PORT/DBNAME?…` into host, port (5432 when absent) and database.
pub fn parse_conn_url(url: &str) -> Option<(String, u16, Option<String>)> {
    let rest = url.split_once("://")?.1;
    let rest = rest.split(['?', '#']).next()?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => {
            let (host, rest) = v6.split_once(']')?;
            (host, rest.strip_prefix(':'))
        }
        None => match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = match port.filter(|text| !text.is_empty()) {
        Some(text) => text.parse().ok()?,
        None => 5432,
    };
    let database = (!path.is_empty()).then(|| path.to_owned());
    (!host.is_empty()).then(|| (host.to_owned(), port, database))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conn_urls() {
        let parsed = parse_conn_url("postgres://10.0.0.1:6432/app").unwrap();
        assert_eq!(parsed, ("10.0.0.1".to_owned(), 6432, Some("app".to_owned())));
        assert_eq!(parse_conn_url("postgres://db/app").unwrap().1, 5432);
        assert_eq!(parse_conn_url("postgres://[fe80::1]:5433/x").unwrap().0, "fe80::1");
        assert_eq!(parse_conn_url("postgres://u:p@h:1/x?a=b").unwrap().0, "h");
        assert!(parse_conn_url("nonsense").is_none());
        assert!(parse_conn_url("postgres://h:99999/x").is_none());
    }

    #[test]
    fn lenient_fields() {
        let data = serde_json::from_str(
            r#"{"xlog_location":"123","timeline":0,"version":"4.1.5","role":"master","state":"weird"}"#,
        )
        .unwrap();
        let member = Member { data, ..Member::unknown("a".into()) };
        assert_eq!(member.xlog_location(), Some(Lsn(123)));
        assert_eq!(member.timeline(), None);
        assert_eq!(member.agent_version(), Some(vec![4, 1, 5]));
        assert_eq!(member.role(), Some(Role::Primary));
        assert_eq!(member.state(), None);
        assert_eq!(member.state_text(), "weird");
    }
}
