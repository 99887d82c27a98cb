//! A new cluster from restored data: a recovery brings it to the point where it begins, and until its users are ours
//! the superuser is let in from this machine without a password, for nobody knows which one the data has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::cluster::{Recovery, Role};
use crate::config::PostgresConfig;
use crate::config::parameters::units;
use crate::postgres::bootstrap::Recovering;
use crate::postgres::conf::hba::FOR_NOW;
use crate::postgres::conf::{recovery, write};
use crate::postgres::{PgError, StartPlan, data_dir, version};

use super::files::Signal;
use super::{Inner, blocking, ready, settings, start};

/// What is different until the recovery is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Restored {
    /// The recovery settings are the command's own, wherever it has put them.
    pub(super) keeps_auto_conf: bool,
    /// The server takes connections only when it has been promoted. While it takes them before, recovery stops at a
    /// change of parameters that we have lower.
    is_closed: bool,
}

impl Restored {
    /// The settings of a start while this is going on.
    pub(super) fn adjusted(
        self,
        config: &Arc<PostgresConfig>,
        wanted: &mut BTreeMap<String, String>,
    ) -> Arc<PostgresConfig> {
        if self.is_closed {
            wanted.insert("hot_standby".to_owned(), "off".to_owned());
        }
        wanted.remove("hba_file");
        let mut config = PostgresConfig::clone(config);
        config.parameters.remove("hba_file");
        config.pg_hba = Some(trusting(config.superuser.username.as_deref()));
        Arc::new(config)
    }
}

/// Lines that let the superuser in from this machine alone.
fn trusting(superuser: Option<&str>) -> Vec<String> {
    let user = match superuser.filter(|name| !name.is_empty()) {
        Some(name) => format!("\"{}\"", name.replace('"', "\"\"")),
        None => "all".to_owned(),
    };
    let mut lines = vec![FOR_NOW.to_owned(), format!("local all {user} trust")];
    lines.extend(["127.0.0.1/32", "::1/128", "samehost"].map(|from| format!("host all {user} {from} trust")));
    lines
}

/// Prepares the first start of restored data.
pub(super) async fn begin(inner: &Inner, recovering: &Recovering) -> Result<(), PgError> {
    let (config, directory) = (inner.site.config(), inner.site.data_dir());
    let hba = hba_file(&config);
    if config.pg_hba.is_none() && !config.parameters.contains_key("hba_file") && !hba.is_file() {
        return Err(PgError::Refused(format!(
            "the bootstrap method has left no {}; let it restore that file, or configure postgresql.pg_hba",
            hba.display()
        )));
    }
    let major = version::of_data_dir(&directory).ok_or_else(|| {
        PgError::Refused(format!("{}: the bootstrap method has left no PG_VERSION there", directory.display()))
    })?;
    let mut restored = Restored { keeps_auto_conf: false, is_closed: false };
    let mut settings = None;
    match recovering {
        Recovering::No => {}
        Recovering::ByCommand => restored = Restored { keeps_auto_conf: true, is_closed: true },
        Recovering::By(configured) => {
            let until = recovery::until_target(configured, major);
            restored.is_closed = until.get("recovery_target_action").is_some_and(|action| action == "promote");
            let is_standby = configured.get("standby_mode").and_then(|mode| units::boolean(mode)).unwrap_or(false);
            let signal = directory.join(if is_standby { "standby.signal" } else { "recovery.signal" });
            inner.site.remove_recovery_conf()?;
            let mode = data_dir::modes(&directory).file;
            blocking(move || write::replace(&signal, "# until the new cluster begins\n", mode)).await?;
            settings = Some(until);
        }
    }
    // The copy is put back when our users exist.
    write::back_up(&[hba], &directory);
    let mut known = inner.known();
    known.restored = Some(restored);
    known.recovery = settings;
    Ok(())
}

fn hba_file(config: &PostgresConfig) -> PathBuf {
    Path::new(&config.config_dir).join("pg_hba.conf")
}

/// Our users exist: from here on it is a server like any other.
pub(super) async fn end(inner: &Arc<Inner>, cancel: &CancellationToken) -> Result<(), PgError> {
    if inner.known().restored.is_none() {
        return Ok(());
    }
    let rewriting = inner.rewriting.lock().await;
    let config = inner.site.config();
    let has_own_hba = config.parameters.contains_key("hba_file");
    if config.pg_hba.is_none() || has_own_hba {
        write::put_back(&hba_file(&config), &inner.site.data_dir())?;
    }
    // Parameters that were raised so that the recovery could go through.
    let was_raised = !inner.known().pending.is_empty();
    settings::write(inner, BTreeMap::new(), Signal::Remove).await?;
    settings::reload(inner).await?;
    let must_restart = has_own_hba || was_raised || !inner.known().pending.is_empty();
    inner.known().restored = None;
    drop(rewriting);
    if must_restart {
        let plan = StartPlan { recovery: Recovery::None, role: Role::Primary, timeout: None };
        return start::restart(inner, &plan, cancel).await.map(drop);
    }
    // Those that were let in by the lines that are gone.
    inner.sessions.clear();
    ready::back_up(inner).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::conf::parameters::tests::config;

    #[test]
    fn only_the_superuser_is_trusted_and_only_here() {
        assert_eq!(trusting(Some("a\"b"))[1], "local all \"a\"\"b\" trust");
        assert_eq!(trusting(None)[1], "local all all trust");
        assert!(trusting(Some("x"))[2..].iter().all(|line| line.starts_with("host all \"x\" ")));
    }

    #[test]
    fn a_start_of_restored_data_has_settings_of_its_own() {
        let config = Arc::new(config(&[("hba_file", "/etc/hba"), ("work_mem", "4MB")]));
        let mut wanted = config.parameters.clone();
        wanted.insert("hot_standby".to_owned(), "on".to_owned());
        let open = Restored { keeps_auto_conf: false, is_closed: false };
        let adjusted = open.adjusted(&config, &mut wanted);
        assert_eq!(wanted.get("hot_standby").map(String::as_str), Some("on"));
        assert!(!wanted.contains_key("hba_file") && !adjusted.parameters.contains_key("hba_file"));
        assert!(adjusted.pg_hba.is_some());
        Restored { is_closed: true, ..open }.adjusted(&config, &mut wanted);
        assert_eq!(wanted.get("hot_standby").map(String::as_str), Some("off"));
    }
}
