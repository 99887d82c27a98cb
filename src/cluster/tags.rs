//! Member tags: what an operator says about a member, and how the field reads it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The tags of one member, in the order and with the types in which they were configured or published.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tags(pub Map<String, Value>);

/// Tags that are left out of the published object when they say nothing.
const DROPPED_WHEN_FALSE: [&str; 5] = ["clonefrom", "nofailover", "noloadbalance", "nosync", "nostream"];

impl Tags {
    /// No tags.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is published of a configured `tags` section: false values of the well-known switches are dropped, but
    /// `nofailover` and `nosync` stay when the matching priority is there to be contradicted.
    pub fn published(&self) -> Self {
        let keep = |(name, value): &(&String, &Value)| {
            let partner = match name.as_str() {
                "nofailover" => "failover_priority",
                "nosync" => "sync_priority",
                other if DROPPED_WHEN_FALSE.contains(&other) => "",
                _ => return true,
            };
            is_truthy(value) || self.0.contains_key(partner)
        };
        Self(self.0.iter().filter(keep).map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    /// Whether there is nothing to publish.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A tag's value, nulls as absent.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// Never to become leader: the tag `nofailover`, else a `failover_priority` of zero or less.
    pub fn nofailover(&self) -> bool {
        self.switch_or_priority("nofailover", "failover_priority")
    }

    /// Preference among equally good candidates; higher wins, 0 means never, 1 when not configured.
    pub fn failover_priority(&self) -> i64 {
        self.priority("nofailover", "failover_priority")
    }

    /// Never to be a synchronous standby.
    pub fn nosync(&self) -> bool {
        self.switch_or_priority("nosync", "sync_priority")
    }

    /// Preference as a synchronous standby; higher wins.
    pub fn sync_priority(&self) -> i64 {
        self.priority("nosync", "sync_priority")
    }

    /// Replica health checks fail on this member.
    pub fn noloadbalance(&self) -> bool {
        self.get("noloadbalance").is_some_and(is_truthy)
    }

    /// A preferred source of base backups.
    pub fn clonefrom(&self) -> bool {
        self.get("clonefrom").is_some_and(is_truthy)
    }

    /// Follows nobody: no streaming, no slot.
    pub fn nostream(&self) -> bool {
        self.get("nostream").and_then(as_boolish).unwrap_or(false)
    }

    /// The member to stream from instead of the leader.
    pub fn replicatefrom(&self) -> Option<&str> {
        self.get("replicatefrom").and_then(Value::as_str).filter(|name| !name.is_empty())
    }

    fn switch_or_priority(&self, switch: &str, priority: &str) -> bool {
        match self.get(switch) {
            Some(value) => is_truthy(value),
            None => self.get(priority).and_then(as_integer).is_some_and(|n| n <= 0),
        }
    }

    fn priority(&self, switch: &str, priority: &str) -> i64 {
        if self.get(switch).is_some_and(is_truthy) {
            return 0;
        }
        self.get(priority).and_then(as_integer).unwrap_or(1)
    }
}

impl FromIterator<(String, Value)> for Tags {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(iter: I) -> Self {
        Self(iter.into_iter().collect())
    }
}

/// Truth by type, as Patroni members take it: everything but `false`, zero, null and what is empty. The string
/// `"false"` is true.
pub fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(a) => !a.is_empty(),
        Value::Object(o) => !o.is_empty(),
    }
}

/// Truth by text: `on/true/yes/1` and `off/false/no/0`, any case; `None` for anything else.
pub fn as_boolish(value: &Value) -> Option<bool> {
    let text = match value {
        Value::Bool(b) => return Some(*b),
        Value::Number(n) => n.to_string(),
        Value::String(s) => s.to_lowercase(),
        _ => return None,
    };
    match text.as_str() {
        "on" | "true" | "yes" | "1" => Some(true),
        "off" | "false" | "no" | "0" => Some(false),
        _ => None,
    }
}

/// An integer, also from decimal text.
pub fn as_integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(n) => n.as_i64(),
        Value::String(s) => s.trim().parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tags(value: Value) -> Tags {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn nofailover_beats_the_priority() {
        assert!(tags(json!({"nofailover": true, "failover_priority": 5})).nofailover());
        assert_eq!(tags(json!({"nofailover": true, "failover_priority": 5})).failover_priority(), 0);
        assert!(!tags(json!({"nofailover": false, "failover_priority": 0})).nofailover());
        assert!(tags(json!({"failover_priority": "0"})).nofailover());
        assert_eq!(tags(json!({"failover_priority": "x"})).failover_priority(), 1);
        assert_eq!(tags(json!({})).failover_priority(), 1);
    }

    #[test]
    fn truth_is_by_type_except_for_nostream() {
        assert!(tags(json!({"noloadbalance": "false"})).noloadbalance());
        assert!(!tags(json!({"nostream": "false"})).nostream());
        assert!(tags(json!({"nostream": "on"})).nostream());
        assert!(!tags(json!({"clonefrom": 0})).clonefrom());
    }

    #[test]
    fn published_tags_keep_order_types_and_what_is_contradicted() {
        let configured = tags(json!({
            "zone": 7, "nosync": false, "nofailover": false, "failover_priority": "1", "clonefrom": false
        }));
        let published = serde_json::to_string(&configured.published()).unwrap();
        assert_eq!(published, r#"{"zone":7,"nofailover":false,"failover_priority":"1"}"#);
    }
}
