//! YAML as PyYAML reads and writes it.
//!
//! Configuration files and what operators type were written for Patroni, which reads YAML 1.1 through PyYAML: `on` and
//! `yes` are booleans, `y` is text, `010` is eight, `10:30` is 630, the last of two equal keys wins. What the CLI
//! prints is compared byte for byte with what PyYAML prints. So both directions are ours; only the syntax is left to a
//! parser crate.

mod read;
mod scalar;
mod write;

use std::collections::BTreeMap;

use serde_json::Value;

/// Where the settings of a document stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Line of each key and list item, by its path: keys and indices joined by dots.
    pub lines: BTreeMap<String, usize>,
    /// Keys that stand more than once in one mapping: path, first line, last line. The last one counts.
    pub repeated: Vec<(String, usize, usize)>,
}

/// Why a text is not YAML that we can use, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct YamlError {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

/// Reads one document; an empty text is null. Also right for a single value typed on the command line (`-s key=TEXT`).
///
/// JSON has no dates, no infinite numbers and only text as keys: dates and non-finite numbers stay the text they were
/// written as, keys of other types become their JSON spelling. Errs on broken syntax, on tags other than the plain
/// ones (`!!str`, `!!int`, …), on a second document, and on nesting or alias use beyond any sane configuration.
pub fn read(text: &str) -> Result<Value, YamlError> {
    read::document(text).map(|(value, _)| value)
}

/// [`read()`], with the places of what was read.
pub fn read_with_places(text: &str) -> Result<(Value, Places), YamlError> {
    read::document(text)
}

/// Writes a value in block style, lines folded at 200 columns, ending in a newline.
pub fn write(value: &Value, sort_keys: bool) -> String {
    write::document(value, sort_keys, false)
}

/// Writes a value in flow style (`{a: 1, b: [x]}`), ending in a newline.
pub fn write_flow(value: &Value, sort_keys: bool) -> String {
    write::document(value, sort_keys, true)
}

/// A float as Python's `repr` spells it: shortest digits, a point always, exponents below 1e-4 and from 1e16.
pub(super) fn float_text(number: f64) -> String {
    scalar::float_repr(number)
}

#[cfg(test)]
pub(crate) mod tests;
