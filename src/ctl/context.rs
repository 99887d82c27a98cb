//! What a command works with: configuration, DCS, terminal.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;

use crate::api::client::Client;
use crate::cluster::ClusterView;
use crate::config::{DcsConfig, OperatorConfig, Severity};
use crate::dcs::connect::{Identity, connect};
use crate::dcs::{Dcs, DcsError, Timing};

use super::error::{About, CtlError};
use super::exit::Exit;
use super::outcome::Record;
use super::own::Own;
use super::render::{Format, difflib};
use super::settings;
use super::ui::Ui;
use super::{GlobalArgs, Personality};

/// How long one operation may try to reach the DCS.
const DCS_BUDGET: Duration = Duration::from_secs(4);

/// How long a command waits for the DCS whatever it does: the limit when the one per operation did not help.
pub const DCS_PATIENCE: Duration = Duration::from_millis(4500);

/// How long is looked for a better name before an error is told without one.
const SUGGESTION_LIMIT: Duration = Duration::from_secs(1);

/// Which part of a cluster is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Groups {
    /// An ordinary cluster.
    Plain,
    /// One group of a Citus cluster.
    One(i64),
    /// Every group of a Citus cluster.
    All,
}

impl Groups {
    /// What is meant of what was read: the coordinator's own group comes with the others.
    pub fn part(self, mut view: ClusterView) -> ClusterView {
        if self != Self::All {
            view.workers.clear();
        }
        view
    }
}

/// Opens the DCS of one cluster, in a test.
pub type Opener = Arc<dyn Fn(&OperatorConfig, &str, Groups) -> Result<Arc<dyn Dcs>, DcsError> + Send + Sync>;

/// The outside world, so that a test can stand in for it.
#[derive(Clone)]
pub struct Outside {
    opener: Option<Opener>,
}

impl Outside {
    /// The real one.
    pub fn real() -> Self {
        Self { opener: None }
    }

    /// The real one but for the DCS.
    pub fn with_dcs(opener: Opener) -> Self {
        Self { opener: Some(opener) }
    }

    /// Nothing is sent yet, and nothing is waited for: connections are made by the first call.
    fn open(
        &self,
        settings: &OperatorConfig,
        cluster: &str,
        groups: Groups,
        budget: Duration,
    ) -> Result<Arc<dyn Dcs>, DcsError> {
        if let Some(opener) = &self.opener {
            return opener(settings, cluster, groups);
        }
        // A group that no cluster can have is a place without keys.
        let nowhere = format!("{cluster}/{}", if let Groups::One(group) = groups { group } else { 0 });
        let (scope, group) = match groups {
            Groups::Plain => (cluster, None),
            Groups::All => (cluster, Some(0)),
            Groups::One(group) => match u32::try_from(group) {
                Ok(group) => (cluster, Some(group)),
                Err(_) => (nowhere.as_str(), None),
            },
        };
        let timing = Timing { retry_timeout: budget, ..Timing::default() };
        let opening = connect(&settings.dcs, &settings.namespace, scope, group, Identity::Operator, timing);
        opening.now_or_never().unwrap_or_else(|| Err(DcsError::unavailable("opening the DCS would have to wait")))
    }
}

/// Everything a command may use.
pub struct Context<'a> {
    /// The terminal.
    pub ui: &'a Ui,
    /// The configuration.
    pub settings: OperatorConfig,
    /// The environment.
    pub environment: &'a BTreeMap<String, String>,
    /// What was said with the options that only we have.
    pub own: Own,
    /// What is to be told at the end, where a document is wanted.
    pub record: Record,
    outside: Outside,
}

impl<'a> Context<'a> {
    /// Reads the configuration. Nothing is connected to.
    pub fn new(
        ui: &'a Ui,
        global: &GlobalArgs,
        environment: &'a BTreeMap<String, String>,
        outside: Outside,
    ) -> Result<Self, CtlError> {
        let (settings, findings) = settings::read(global, environment, ui.personality())?;
        check_log_level(ui, environment)?;
        for finding in findings.iter().filter(|finding| finding.severity > Severity::Info) {
            ui.warn(&finding.to_string())?;
        }
        Ok(Self { ui, settings, environment, own: global.own.clone(), record: Record::default(), outside })
    }

    /// A program on the user's path, or by its own path.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        let path = self.environment.get("PATH").map(String::as_str).unwrap_or_default();
        // Joining an absolute path gives that path.
        path.split(':').map(|directory| Path::new(directory).join(name)).find(|file| file.is_file())
    }

    /// How the program presents itself.
    pub fn personality(&self) -> Personality {
        self.ui.personality()
    }

    /// Whether nothing is to be asked: by a command's own `--force`, by `--yes`, or because nothing will be done.
    pub fn agreed(&self, is_forced: bool) -> bool {
        is_forced || self.own.yes || self.own.dry_run
    }

    /// Whether results are kept for a document at the end.
    pub fn is_recording(&self) -> bool {
        self.own.format.is_some_and(|format| format != Format::Pretty) && !self.personality().is_patronictl()
    }

    /// What became of a command that tells no more than that.
    pub fn tell(&self, line: &str) -> Result<(), CtlError> {
        if self.is_recording() {
            self.record.message(line);
            return Ok(());
        }
        self.ui.say(line)
    }

    /// The cluster named on the command line, else the configured scope.
    pub fn cluster_name<'b>(&'b self, given: Option<&'b str>) -> Result<&'b str, CtlError> {
        given.or(self.settings.scope.as_deref()).ok_or_else(|| {
            CtlError::usage("no cluster was named")
                .next("name it after the command, or set `scope` in the configuration file")
        })
    }

    /// What is read for a command that shows every group unless one is named.
    pub fn groups(&self, given: Option<i64>) -> Groups {
        match (given, &self.settings.citus) {
            (Some(group), _) => Groups::One(group),
            (None, Some(_)) => Groups::All,
            (None, None) => Groups::Plain,
        }
    }

    /// What is read for a command that works on the configured group unless another is named.
    pub fn default_group(&self, given: Option<i64>) -> Groups {
        match given.or(self.settings.citus.as_ref().map(|(group, _)| i64::from(*group))) {
            Some(group) => Groups::One(group),
            None => Groups::Plain,
        }
    }

    /// The DCS of a cluster.
    pub fn dcs(&self, cluster: &str, groups: Groups) -> Result<Arc<dyn Dcs>, CtlError> {
        if self.settings.dcs == DcsConfig::Missing {
            return Err(no_dcs());
        }
        // Whoever waits longer than that gives up a little later.
        let budget = self.own.timeout.map_or(DCS_BUDGET, |timeout| timeout.mul_f64(0.9));
        let opened = self.outside.open(&self.settings, cluster, groups, budget);
        opened.map_err(|error| CtlError::dcs(format!("cannot reach cluster {cluster}"), error))
    }

    /// Reads a cluster: one DCS read, bounded in time.
    pub async fn load(&self, cluster: &str, groups: Groups) -> Result<ClusterView, CtlError> {
        let dcs = self.dcs(cluster, groups)?;
        let view = self.within(format!("could not read cluster {cluster}"), dcs.load()).await?;
        Ok(groups.part(view))
    }

    /// Reads all clusters of the namespace: one DCS read, bounded in time.
    pub async fn load_all(&self, groups: Groups) -> Result<BTreeMap<String, ClusterView>, CtlError> {
        let group = match groups {
            Groups::Plain => None,
            Groups::All => Some(0),
            // A group that no cluster can have has no keys either.
            Groups::One(group) => Some(u32::try_from(group).unwrap_or(u32::MAX)),
        };
        let dcs = self.dcs("", Groups::Plain)?;
        let what = format!("could not read the clusters of namespace {}", self.settings.namespace.trim_matches('/'));
        let views = self.within(what, dcs.load_all(group)).await?;
        Ok(views.into_iter().map(|(name, view)| (name, groups.part(view))).collect())
    }

    /// The client for the members' REST interfaces; no request takes longer than `timeout`.
    pub fn api(&self, timeout: Duration) -> Result<Client, CtlError> {
        let timeout = self.own.timeout.map_or(timeout, |own| own.min(timeout));
        Client::new(&self.settings.ctl, timeout).map_err(|error| {
            CtlError::usage("cannot call the members' REST interface")
                .because(error)
                .next("correct the section `ctl` of the configuration file, or try -k")
        })
    }

    /// An error when nothing at all is known of a cluster, which is how a misspelt name looks.
    pub fn check_known(&self, name: &str, cluster: &ClusterView) -> Result<(), CtlError> {
        if *cluster != ClusterView::default() {
            return Ok(());
        }
        let prefix = format!("/{}/{name}/", self.settings.namespace.trim_matches('/'));
        let error = CtlError::new(format!("nothing is known of cluster {name} below {prefix}"))
            .ending(Exit::NotFound)
            .next("check the cluster's name and the namespace");
        Err(error.about(About::UnknownCluster(name.to_owned())))
    }

    /// The clusters of the namespace.
    pub(super) async fn clusters(&self) -> Result<Vec<String>, CtlError> {
        let what = || format!("could not look for clusters in namespace {}", self.settings.namespace.trim_matches('/'));
        let dcs = self.dcs("", Groups::Plain)?;
        self.within(what(), dcs.names()).await
    }

    /// Takes the only cluster of the namespace where neither the command line nor the configuration names one.
    pub async fn choose_scope(&mut self) -> Result<(), CtlError> {
        let clusters = self.clusters().await?;
        let namespace = self.settings.namespace.trim_matches('/').to_owned();
        match clusters.as_slice() {
            [only] => {
                self.settings.scope = Some(only.clone());
                Ok(())
            }
            [] => Err(self.no_cluster()),
            several => Err(CtlError::usage(format!("no cluster was named, and namespace {namespace} has several"))
                .next(format!("name one of: {}; or set `scope` in the configuration file", some_of(several)))),
        }
    }

    /// The error for a namespace without keys.
    pub fn no_cluster(&self) -> CtlError {
        let namespace = self.settings.namespace.trim_matches('/');
        CtlError::new(format!("there is no cluster in namespace {namespace}"))
            .ending(Exit::NotFound)
            .next("check the DCS and the namespace, or start the first member")
    }

    /// The error for a misspelt cluster, with what may have been meant.
    pub async fn with_suggestion(&self, error: CtlError) -> CtlError {
        let Some(name) = error.unknown_cluster() else { return error };
        match self.suggest_cluster(name).await {
            Some(suggestion) => {
                let hint = error.hint.clone().map(|hint| format!("; {hint}")).unwrap_or_default();
                error.next(format!("{suggestion}{hint}"))
            }
            None => error,
        }
    }

    /// What to do about a cluster that nothing is known of, from the names of those that there are. Best effort.
    pub async fn suggest_cluster(&self, name: &str) -> Option<String> {
        let clusters = tokio::time::timeout(SUGGESTION_LIMIT, self.clusters()).await.ok()?.ok()?;
        let meant = difflib::did_you_mean(name, &clusters);
        match clusters.as_slice() {
            [] => None,
            _ => Some(meant.unwrap_or_else(|| format!("clusters here are: {}", some_of(&clusters)))),
        }
    }

    /// Bounds a DCS call in time and words its failure.
    pub async fn within<T>(
        &self,
        what: String,
        call: impl Future<Output = Result<T, DcsError>>,
    ) -> Result<T, CtlError> {
        let patience = self.own.timeout.unwrap_or(DCS_PATIENCE);
        let result = match tokio::time::timeout(patience, call).await {
            Ok(result) => result,
            Err(_) => Err(DcsError::unavailable(format!("no answer within {:.1} s", patience.as_secs_f32()))),
        };
        result.map_err(|error| CtlError::dcs(what, error))
    }
}

/// The names, or the first of them where there are many.
fn some_of(names: &[String]) -> String {
    const MOST: usize = 20;
    let shown = names.iter().take(MOST).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > MOST { format!("{shown} and {} more", names.len() - MOST) } else { shown }
}

fn no_dcs() -> CtlError {
    let theirs = "Can not find suitable configuration of distributed configuration store\n\
        Available implementations: consul, etcd, etcd3, exhibitor, kubernetes, raft, zookeeper";
    CtlError::usage(theirs)
        .in_better_words("the configuration does not say where the DCS is")
        .next("add a section `etcd3` with `hosts`, or use -d etcd3://HOST:PORT")
}

/// patronictl ends when the level of its log is not one; ours writes no log.
fn check_log_level(ui: &Ui, environment: &BTreeMap<String, String>) -> Result<(), CtlError> {
    const LEVELS: [&str; 8] = ["CRITICAL", "FATAL", "ERROR", "WARNING", "WARN", "INFO", "DEBUG", "NOTSET"];
    const VARIABLES: [&str; 3] = ["PATRONI_LOG_LEVEL", "PATRONI_LOGLEVEL", "LOGLEVEL"];
    match VARIABLES.iter().find_map(|name| environment.get(*name)) {
        Some(level) if ui.personality().is_patronictl() && !LEVELS.contains(&level.to_uppercase().as_str()) => {
            Err(CtlError::new(format!("Unknown level: '{level}'")))
        }
        _ => Ok(()),
    }
}
