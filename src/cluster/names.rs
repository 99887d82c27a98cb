//! Names: members, scopes and the system identifier, with the one rule that maps a member to its slot.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Serialize};

/// The name of a cluster member, compared case-sensitively except where `/sync` is concerned
/// ([`MemberName::matches`]).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemberName(String);

impl MemberName {
    /// Wraps a name as it stands in the DCS or in a configuration file.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Compares without regard to case, as `/sync` and `synchronous_standby_names` do.
    pub fn matches(&self, other: &str) -> bool {
        self.0.to_lowercase() == other.to_lowercase()
    }

    /// The replication slot that belongs to this member on its upstream: lower case, `-` and `.` become `_`, any
    /// other character outside `[a-z0-9_]` becomes `u` and its decimal code point (at least four digits), cut to
    /// 63 characters. Every member of a cluster must agree on this, whatever software it runs.
    pub fn slot_name(&self) -> String {
        let mut slot = String::with_capacity(self.0.len());
        for c in self.0.to_lowercase().chars() {
            match c {
                'a'..='z' | '0'..='9' | '_' => slot.push(c),
                '-' | '.' => slot.push('_'),
                other => slot.push_str(&format!("u{:04}", other as u32)),
            }
        }
        slot.chars().take(63).collect()
    }
}

impl Deref for MemberName {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for MemberName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl From<&str> for MemberName {
    fn from(name: &str) -> Self {
        Self(name.to_owned())
    }
}

impl From<String> for MemberName {
    fn from(name: String) -> Self {
        Self(name)
    }
}

impl PartialEq<str> for MemberName {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for MemberName {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

/// PostgreSQL's system identifier: decimal digits, fixed at `initdb`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SystemId(String);

impl SystemId {
    /// A system identifier is at least ten characters, all digits; anything else (most often the empty string of
    /// a bootstrap in progress) is not one.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() >= 10 && text.bytes().all(|b| b.is_ascii_digit())).then(|| Self(text.to_owned()))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_names_follow_the_shared_rule() {
        assert_eq!(MemberName::from("Node-1.a").slot_name(), "node_1_a");
        assert_eq!(MemberName::from("a b").slot_name(), "au0032b");
        assert_eq!(MemberName::from("é").slot_name(), "u0233");
        assert_eq!(MemberName::from("x".repeat(80)).slot_name().len(), 63);
    }

    #[test]
    fn system_ids_are_ten_digits_or_more() {
        assert!(SystemId::parse("7710267184385916675").is_some());
        assert!(SystemId::parse("").is_none());
        assert!(SystemId::parse("771026718").is_none());
        assert!(SystemId::parse("77102671843859166x5").is_none());
    }
}
