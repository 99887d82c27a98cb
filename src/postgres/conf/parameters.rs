//! Which parameters the server gets: the wanted ones, fitted to its version and to what a standby must not undercut.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::cluster::PendingValue;
use crate::config::PostgresConfig;
use crate::config::parameters::{CONTROLLED, Checked, check, for_version, is_recovery_parameter, units};
use crate::postgres::control_data::{Report, SETTINGS};

/// The parameter that names the synchronous standbys.
pub const SYNCHRONOUS: &str = "synchronous_standby_names";

/// The wanted parameters, as far as a server of some version takes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fitted {
    /// For the main part of the file.
    pub parameters: BTreeMap<String, String>,
    /// What was changed or left out, as log lines.
    pub warnings: Vec<String>,
    /// Those among the parameters that our table does not know; the server's program has the last word.
    pub unknown: BTreeSet<String>,
}

/// Fits the configured parameters to a version. `managed` is the synchronous standbys in force, when they are ours to
/// set.
pub fn effective(config: &PostgresConfig, version: u32, managed: Option<&str>) -> Fitted {
    let mut wanted = for_version(&config.parameters, version);
    wanted.retain(|name, _| !is_recovery_parameter(name));
    wanted.insert("listen_addresses".to_owned(), config.listen_addresses.clone());
    wanted.insert("port".to_owned(), config.port.to_string());
    wanted.insert("cluster_name".to_owned(), config.scope.clone());
    if let Some(value) = managed {
        wanted.insert(SYNCHRONOUS.to_owned(), value.to_owned());
    }
    let mut fitted = Fitted::default();
    for (name, value) in wanted {
        let value = match check(&name, &value, version) {
            Checked::Accepted => value,
            Checked::Adjusted { value, warning } => {
                fitted.warnings.push(warning);
                value
            }
            Checked::Removed { warning } => {
                fitted.warnings.push(warning);
                continue;
            }
            Checked::Unknown => {
                fitted.unknown.insert(name.clone());
                value
            }
        };
        fitted.parameters.insert(name, value);
    }
    fitted
}

impl Fitted {
    /// Leaves out what the server's program does not know either; `known` is its list, in lower case.
    pub fn keep_known(&mut self, known: &BTreeSet<String>) {
        for name in std::mem::take(&mut self.unknown) {
            if !known.contains(&name.to_lowercase())
                && let Some(value) = self.parameters.remove(&name)
            {
                let line = format!("Removing unexpected parameter={name} value={value} from the config");
                self.warnings.push(line);
            }
        }
    }
}

/// Raises what a standby must have at least: the values of the server that wrote its data, as the control file keeps
/// them. Returns what is raised and therefore waits for a restart.
pub fn raise_for_standby(wanted: &mut BTreeMap<String, String>, report: &Report) -> BTreeMap<String, PendingValue> {
    let settings = report.settings();
    let mut pending = BTreeMap::new();
    for (name, line) in SETTINGS {
        let Some(at_least) = settings.get(name).copied() else {
            tracing::warn!("{line} is missing from pg_controldata output");
            continue;
        };
        let Some(present) = wanted.get(name).and_then(|text| units::integer(text, None)) else { continue };
        if present < i64::from(at_least) {
            tracing::info!(
                "{name} value in pg_controldata: {at_least}, in the global configuration: {present}. pg_controldata \
                 value will be used. Setting 'Pending restart' flag"
            );
            let new_value = wanted.insert(name.to_owned(), at_least.to_string()).unwrap_or_default();
            pending.insert(name.to_owned(), PendingValue { old_value: at_least.to_string(), new_value });
        }
    }
    pending
}

/// The arguments of the server's program. Parameters on its command line are changed by nothing but a restart with
/// other ones.
pub fn command_line(config: &PostgresConfig, config_file: &Path, wanted: &BTreeMap<String, String>) -> Vec<String> {
    let mut args = vec!["-D".to_owned(), config.data_dir.clone(), format!("--config-file={}", config_file.display())];
    for entry in CONTROLLED.iter().filter(|entry| entry.on_command_line) {
        if let Some(value) = wanted.get(entry.name) {
            args.push(format!("--{}={value}", entry.name));
        }
    }
    args
}

#[cfg(test)]
#[path = "parameters/tests.rs"]
pub(crate) mod tests;
