//! Everything that is written before a start or a reload, as one piece of work off the runtime's threads.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::PostgresConfig;
use crate::postgres::PgError;
use crate::postgres::conf::postgresql::{self, Document};
use crate::postgres::conf::{hba, write};

/// What happens to the files that tell PostgreSQL to start in recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// Nothing.
    Keep,
    /// A standby.
    Standby,
    /// No recovery.
    Remove,
}

/// What is to be written.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) config: Arc<PostgresConfig>,
    pub(super) config_file: PathBuf,
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) recovery: BTreeMap<String, String>,
    pub(super) signal: Signal,
    /// Recovery settings in the server's own file are meant.
    pub(super) keeps_auto_conf: bool,
}

/// What was another text before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// `postgresql.conf`.
    pub(super) main: bool,
    /// `pg_hba.conf` or `pg_ident.conf`.
    pub(super) access: bool,
}

impl Files {
    /// Writes them all.
    pub(super) fn write(&self) -> Result<Written, PgError> {
        let main = self.write_main()?;
        let access = self.write_access()?;
        self.write_signal()?;
        Ok(Written { main, access })
    }

    /// Writes only who may connect.
    pub(super) fn write_access_only(&self) -> Result<bool, PgError> {
        self.write_access()
    }

    fn data_dir(&self) -> &Path {
        Path::new(&self.config.data_dir)
    }

    fn replace(&self, path: &Path, text: &str) -> Result<bool, PgError> {
        write::replace(path, text, write::mode_for(path, self.data_dir()))
    }

    fn write_main(&self) -> Result<bool, PgError> {
        let base = format!("{}.base.conf", self.config.config_base_name);
        if self.config.custom_conf.is_none() {
            self.keep_base(&base)?;
        }
        let document = Document {
            include: self.config.custom_conf.as_deref().unwrap_or(&base),
            config_dir: Path::new(&self.config.config_dir),
            parameters: &self.parameters,
            recovery: &self.recovery,
        };
        let changed = self.replace(&self.config_file, &postgresql::render(&document))?;
        if !self.keeps_auto_conf {
            self.clean_auto_conf()?;
        }
        Ok(changed)
    }

    /// The file that is there before we write ours becomes the one included.
    fn keep_base(&self, base: &str) -> Result<(), PgError> {
        let path = Path::new(&self.config.config_dir).join(base);
        if path.exists() {
            return Ok(());
        }
        let failed = |source| PgError::Io { path: path.display().to_string(), source };
        match fs::rename(&self.config_file, &path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => self.replace(&path, "").map(drop),
            Err(error) => Err(failed(error)),
        }
    }

    fn clean_auto_conf(&self) -> Result<(), PgError> {
        let path = self.data_dir().join("postgresql.auto.conf");
        match fs::read_to_string(&path) {
            Ok(text) => match postgresql::without_recovery(&text) {
                Some(clean) => self.replace(&path, &clean).map(drop),
                None => Ok(()),
            },
            Err(_) => Ok(()),
        }
    }

    /// `pg_hba.conf` and `pg_ident.conf`, where their lines are configured and the files are ours.
    fn write_access(&self) -> Result<bool, PgError> {
        let mut changed = false;
        let both =
            [("pg_hba.conf", "hba_file", &self.config.pg_hba), ("pg_ident.conf", "ident_file", &self.config.pg_ident)];
        for (file, parameter, lines) in both {
            let path = Path::new(&self.config.config_dir).join(file);
            if lines.is_none() || self.config.parameters.contains_key(parameter) {
                if write::put_back(&path, self.data_dir())? {
                    tracing::warn!("{}: what it said only for the time of a bootstrap is gone", path.display());
                    changed = true;
                }
            } else if let Some(lines) = lines {
                changed |= self.replace(&path, &hba::render(lines))?;
            }
        }
        Ok(changed)
    }

    fn write_signal(&self) -> Result<(), PgError> {
        let remove: &[&str] = match self.signal {
            Signal::Keep => return Ok(()),
            Signal::Standby => &["recovery.signal", "recovery.conf"],
            Signal::Remove => &["recovery.signal", "standby.signal", "recovery.conf"],
        };
        if self.signal == Signal::Standby {
            self.replace(&self.data_dir().join("standby.signal"), "")?;
        }
        for name in remove {
            let path = self.data_dir().join(name);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != ErrorKind::NotFound => {
                    return Err(PgError::Io { path: path.display().to_string(), source });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The recovery settings in the file as it is.
pub(super) fn recovery_on_disk(config_file: &Path) -> BTreeMap<String, String> {
    postgresql::recovery_section(&fs::read_to_string(config_file).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::conf::parameters::tests::config;

    fn files(root: &Path, signal: Signal) -> Files {
        let directory = root.display().to_string();
        let config = PostgresConfig {
            data_dir: directory.clone(),
            config_dir: directory,
            pg_hba: Some(vec!["local all all peer".to_owned()]),
            ..config(&[("work_mem", "4MB")])
        };
        Files {
            config_file: root.join("postgresql.conf"),
            parameters: config.parameters.clone(),
            recovery: BTreeMap::new(),
            config: Arc::new(config),
            signal,
            keeps_auto_conf: false,
        }
    }

    #[test]
    fn the_first_write_keeps_the_operators_file() {
        let root = tempfile::tempdir().unwrap();
        let read = |name: &str| fs::read_to_string(root.path().join(name)).unwrap();
        fs::write(root.path().join("postgresql.conf"), "# original\n").unwrap();
        fs::write(root.path().join("postgresql.auto.conf"), "primary_conninfo = 'x'\nwork_mem = '1MB'\n").unwrap();
        let written = files(root.path(), Signal::Standby).write().unwrap();
        assert_eq!(written, Written { main: true, access: true });
        assert_eq!(read("postgresql.base.conf"), "# original\n");
        assert_eq!(read("postgresql.auto.conf"), "work_mem = '1MB'\n");
        assert!(read("postgresql.conf").contains("work_mem = '4MB'"));
        assert!(root.path().join("standby.signal").exists());
        assert_eq!(files(root.path(), Signal::Keep).write().unwrap(), Written::default());
        assert_eq!(read("postgresql.base.conf"), "# original\n");
        assert!(root.path().join("standby.signal").exists());
        files(root.path(), Signal::Remove).write().unwrap();
        assert!(!root.path().join("standby.signal").exists());
    }

    #[test]
    fn what_a_bootstrap_that_was_cut_short_has_left_is_taken_away() {
        let root = tempfile::tempdir().unwrap();
        let hba = root.path().join("pg_hba.conf");
        fs::write(&hba, format!("{}\nlocal all all trust\n", hba::FOR_NOW)).unwrap();
        fs::write(root.path().join("pg_hba.conf.backup"), "local all all peer\n").unwrap();
        let mut files = files(root.path(), Signal::Keep);
        files.config = Arc::new(PostgresConfig { pg_hba: None, ..PostgresConfig::clone(&files.config) });
        assert!(files.write_access_only().unwrap());
        assert_eq!(fs::read_to_string(&hba).unwrap(), "local all all peer\n");
        assert!(!files.write_access_only().unwrap());
    }

    #[test]
    fn a_missing_file_of_the_operator_is_an_empty_one() {
        let root = tempfile::tempdir().unwrap();
        files(root.path(), Signal::Keep).write().unwrap();
        assert_eq!(fs::read_to_string(root.path().join("postgresql.base.conf")).unwrap(), "");
    }
}
