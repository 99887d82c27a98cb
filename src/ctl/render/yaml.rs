//! YAML for output: keys sorted, as PyYAML writes it.

use serde_json::Value;

use crate::config::yaml;

/// Block style. Ends in a newline.
pub fn block(value: &Value) -> String {
    yaml::write(value, true)
}

/// Flow style (`{a: 1, b: [2, 3]}`). Ends in a newline.
pub fn flow(value: &Value) -> String {
    yaml::write_flow(value, true)
}

/// Our documents: in their own order, without the last newline.
pub fn ours(value: &Value) -> String {
    yaml::write(value, false).trim_end_matches('\n').to_owned()
}
