//! What an argument can be, most of it from the DCS.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use clap::{ArgMatches, FromArgMatches};
use serde_json::{Map, Value};

use crate::cluster::{ClusterView, Member};
use crate::config::parameters;
use crate::ctl::commands::edit_config;
use crate::ctl::context::Groups;
use crate::ctl::own::Own;
use crate::ctl::render::Format;
use crate::ctl::targets::{RoleFilter, parts};
use crate::ctl::ui::Ui;
use crate::ctl::{Cli, Context, GlobalArgs, Outside, Personality, handover, settings};

/// A value and a few words about it.
type Found = (String, String);

/// Where the values of an argument come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Files,
    Contexts,
    Clusters,
    Groups,
    /// Any one member.
    Member,
    /// Members with the role that is asked for, those left out that are named already.
    Members,
    /// The same, and what `flush` takes back.
    MembersAndEvents,
    Leader,
    Candidates,
    Settings,
    Parameters,
    /// patronictl's `query --format` is free text.
    Formats,
}

/// By command and argument; the command is empty for what stands before it.
pub(super) fn source(command: &str, argument: &str) -> Option<Source> {
    Some(match argument {
        "config_file" | "apply" | "replace" | "file" => Source::Files,
        "own_context" => Source::Contexts,
        "cluster" | "clusters" | "confirm" => Source::Clusters,
        "group" => Source::Groups,
        "member" | "own_member" => Source::Member,
        "members" => Source::Members,
        "members_and_event" => Source::MembersAndEvents,
        "leader" => Source::Leader,
        "candidate" => Source::Candidates,
        "set" => Source::Settings,
        "pg" => Source::Parameters,
        "format" if command == "query" => Source::Formats,
        _ => return None,
    })
}

/// Answers from what the line says so far.
pub(super) struct Live {
    before: Vec<OsString>,
    personality: Personality,
    environment: BTreeMap<String, String>,
    patience: Duration,
}

impl Live {
    /// `before` are the words before the one that is being typed.
    pub(super) fn new(
        before: Vec<OsString>,
        personality: Personality,
        environment: BTreeMap<String, String>,
        patience: Duration,
    ) -> Self {
        Self { before, personality, environment, patience }
    }

    /// The values; what cannot be found out in time is left out.
    pub(super) fn values(&self, source: Source, current: &str) -> Vec<Found> {
        let mut values = self.ask_elsewhere(source).unwrap_or_default();
        let fixed: Vec<String> = match source {
            Source::MembersAndEvents => ["restart", "switchover"].map(str::to_owned).into(),
            Source::Formats => {
                let words = Format::words().into_iter().map(|word| word.get_name().to_owned());
                words.filter(|word| !self.personality.is_patronictl() || word != "name").collect()
            }
            Source::Settings => edit_config::known_settings().iter().map(|name| format!("{name}=")).collect(),
            Source::Parameters => known_parameters().map(|name| format!("{name}=")).collect(),
            _ => Vec::new(),
        };
        let is_new = |name: &String| values.iter().all(|(known, _)| known != name);
        let more: Vec<Found> = fixed.into_iter().filter(is_new).map(|name| (name, String::new())).collect();
        values.extend(more);
        // A setting that has its value is complete.
        values.retain(|(value, _)| !current.contains('=') || !value.ends_with('='));
        values
    }

    fn ask_elsewhere(&self, source: Source) -> Option<Vec<Found>> {
        if matches!(source, Source::Files | Source::Formats) {
            return None;
        }
        let matches = Cli::clap(self.personality).ignore_errors(true).try_get_matches_from(&self.before).ok()?;
        let mut global = GlobalArgs::from_arg_matches(&matches).ok()?;
        global.own = Own { timeout: Some(self.patience), ..Own::of(&matches) };
        if source == Source::Contexts {
            return settings::contexts(&global, &self.environment).ok().map(plain);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let sub = matches.subcommand().map(|(word, sub)| (word, Sub(sub)));
        let found = runtime.block_on(async {
            let found = self.ask_dcs(source, global, sub);
            tokio::time::timeout(self.patience, found).await.ok().flatten()
        });
        // Looking up a name may still be going on in a thread.
        runtime.shutdown_background();
        found
    }

    async fn ask_dcs(&self, source: Source, global: GlobalArgs, sub: Option<(&str, Sub<'_>)>) -> Option<Vec<Found>> {
        let (ui, _) = Ui::captured(self.personality, "");
        let mut context = Context::new(&ui, &global, &self.environment, Outside::real()).ok()?;
        if source == Source::Clusters {
            let given = sub.map(|(_, sub)| sub.texts("clusters")).unwrap_or_default();
            let clusters = context.clusters().await.ok()?;
            return Some(plain(clusters.into_iter().filter(|name| !given.contains(name)).collect()));
        }
        let (word, sub) = sub?;
        let named = sub.text("cluster").or_else(|| sub.texts("clusters").pop());
        if named.is_none() && context.settings.scope.is_none() {
            context.choose_scope().await.ok()?;
        }
        let cluster = context.cluster_name(named.as_deref()).ok()?.to_owned();
        let groups = if source == Source::Groups { Groups::All } else { context.groups(sub.number("group")) };
        let view = context.load(&cluster, groups).await.ok()?;
        Some(match source {
            Source::Groups if view == ClusterView::default() => Vec::new(),
            Source::Groups => {
                let workers = view.workers.keys().map(ToString::to_string);
                plain(std::iter::once("0".to_owned()).chain(workers).collect())
            }
            Source::Member => members(&view, &RoleFilter::Any, &[]),
            Source::Members | Source::MembersAndEvents => {
                let given = sub.texts(if source == Source::Members { "members" } else { "members_and_event" });
                let role = if word == "reinit" { RoleFilter::Replica } else { sub.role().unwrap_or_default() };
                members(&view, &role, &given)
            }
            Source::Leader => members(&view, &RoleFilter::Leader, &[]),
            Source::Candidates => {
                let candidates = parts(&view).flat_map(handover::candidates);
                candidates.map(|name| (name.to_owned(), about(&view, name))).collect()
            }
            Source::Settings => plain(paths(view.config_document())),
            Source::Parameters => {
                const PREFIX: &str = "postgresql.parameters.";
                let all = paths(view.config_document());
                plain(all.iter().filter_map(|path| path.strip_prefix(PREFIX).map(str::to_owned)).collect())
            }
            Source::Files | Source::Contexts | Source::Clusters | Source::Formats => Vec::new(),
        })
    }
}

fn plain(names: Vec<String>) -> Vec<Found> {
    names.into_iter().map(|name| (name, String::new())).collect()
}

fn members(view: &ClusterView, role: &RoleFilter, given: &[String]) -> Vec<Found> {
    let names = role.members(view).into_iter().map(|name| name.to_string());
    let left = names.filter(|name| !given.contains(name));
    left.map(|name| (name.clone(), about(view, &name))).collect()
}

/// `leader, running`.
fn about(view: &ClusterView, name: &str) -> String {
    let Some(part) = parts(view).find(|part| part.member(name).is_some()) else { return "leader".to_owned() };
    let is_leader = part.leader_name().is_some_and(|leader| *leader == name);
    let state = part.member(name).map(Member::state_text).unwrap_or_default();
    format!("{}, {state}", if is_leader { "leader" } else { "replica" })
}

/// The parameters of every server version that is still about.
fn known_parameters() -> impl Iterator<Item = &'static str> {
    const VERSION: u32 = 170_000;
    parameters::known(VERSION).filter(|name| !parameters::is_recovery_parameter(name))
}

/// Where values stand in a document, as `-s` takes it: `postgresql.parameters.work_mem=`.
fn paths(document: Option<&Map<String, Value>>) -> Vec<String> {
    fn walk(document: &Map<String, Value>, prefix: &str, found: &mut Vec<String>) {
        for (key, value) in document {
            match value {
                Value::Object(inner) if !inner.is_empty() => walk(inner, &format!("{prefix}{key}."), found),
                _ => found.push(format!("{prefix}{key}=")),
            }
        }
    }
    let mut found = Vec::new();
    walk(document.unwrap_or(&Map::new()), "", &mut found);
    found
}

/// What a command was given so far. Not every command has every argument.
struct Sub<'a>(&'a ArgMatches);

impl Sub<'_> {
    fn text(&self, id: &str) -> Option<String> {
        self.0.try_get_one::<String>(id).ok().flatten().cloned()
    }

    fn texts(&self, id: &str) -> Vec<String> {
        self.0.try_get_many::<String>(id).ok().flatten().map(|texts| texts.cloned().collect()).unwrap_or_default()
    }

    fn number(&self, id: &str) -> Option<i64> {
        self.0.try_get_one::<i64>(id).ok().flatten().copied()
    }

    fn role(&self) -> Option<RoleFilter> {
        self.0.try_get_one::<RoleFilter>("role").ok().flatten().copied()
    }
}
