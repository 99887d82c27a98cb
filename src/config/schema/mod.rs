//! What a node's configuration may say, as a table, and the check of a document against it.
//!
//! The rules, the order of what is found and its words are those of Patroni's `--validate-config`, so that a script
//! that reads them goes on working. Ours say besides what would be right. Keys that the table does not know are not
//! checked: extensions and other tools keep their settings in the same file.

mod checks;
pub mod python;
mod table;
mod walk;

use std::fmt;

use serde_json::{Map, Value};

pub use table::known_dcs;

/// Something wrong in a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Keys and indices, joined by dots.
    pub path: String,
    /// The value as Python prints it; empty where there is none. Passwords are stars.
    pub value: String,
    /// What is wrong, in Patroni's words.
    pub message: String,
    /// What would be right, with bounds; empty where the message says it.
    pub wanted: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.path, self.value, self.message)
    }
}

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A file or something else that is no directory.
    File,
    /// A directory; empty but for hidden files and `lost+found`.
    EmptyDirectory,
    /// A directory with something in it.
    Directory,
}

/// The machine, as far as a check of a configuration needs to know it.
pub trait Surroundings {
    /// Whether something listens at the port of any of the hosts; `*` is every address. Errs when a name is unknown.
    fn is_taken(&self, hosts: &[&str], port: u16) -> Result<bool, String>;

    /// Whether a connection can be made. Errs when the name is unknown.
    fn is_reachable(&self, host: &str, port: u16) -> Result<bool, String>;

    /// What a path leads to.
    fn look(&self, path: &str) -> Found;

    /// A small file's text, if it can be read.
    fn read(&self, path: &str) -> Option<String>;

    /// Whether a program is in the directory, or without one where programs are looked for.
    fn has_program(&self, name: &str, dir: Option<&str>) -> bool;

    /// The major version that the server program says it is (`15`, `9.6`).
    fn server_version(&self, program: &str, dir: Option<&str>) -> Option<String>;
}

/// How strict a check is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Strictness {
    /// A port to listen on may be in use: the agent is running.
    pub ignore_listen_ports: bool,
}

/// Checks a document. All problems at once, in the order of the table.
pub fn check(document: &Map<String, Value>, surroundings: &dyn Surroundings, strictness: Strictness) -> Vec<Problem> {
    let mut walk = walk::Walk::new(document, surroundings, strictness);
    walk.top();
    walk.into_problems()
}

#[cfg(test)]
mod tests;
