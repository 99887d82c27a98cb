//! PostgreSQL parameters: those that must be the same on every member, and what each server version accepts.
//!
//! The table of names, types, bounds and versions is data, `table.txt`; it follows the settings' reference of each
//! PostgreSQL release.

mod controlled;
mod table;
pub mod units;

pub(in crate::config) use controlled::parameter_text;
pub use controlled::{CONTROLLED, Controlled, controlled, for_version, is_controlled, with_defaults};
pub use table::{Checked, canonical_name, check, check_recovery, is_recovery_parameter, known};
