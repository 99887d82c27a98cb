//! `edit-config`: changes the dynamic configuration, by options, files or an editor.

use serde_json::{Map, Value};

use crate::cluster::{ConfigKey, Member};
use crate::config::{Limits, merge, yaml as yaml_text};
use crate::ctl::context::Groups;
use crate::ctl::render::{diff, yaml};
use crate::ctl::{Context, CtlError, Exit, pager};

mod change;
mod editor;

pub(in crate::ctl) use change::known_settings;
use change::{absent, unknown_settings, unusable_settings, with_setting};
use editor::Edited;

/// Arguments of `edit-config`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct EditConfigArgs {
    /// Cluster; the configured scope by default
    #[arg(value_name = "CLUSTER_NAME")]
    pub cluster: Option<String>,
    /// Citus group
    #[arg(long, allow_negative_numbers = true)]
    pub group: Option<i64>,
    /// Do not show the changes
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// Set a value: KEY.PATH=VALUE, VALUE in YAML, empty or null removes it. May be given several times
    #[arg(short = 's', long, value_name = "KEY=VALUE", allow_hyphen_values = true)]
    pub set: Vec<String>,
    /// Set a PostgreSQL parameter, short for -s postgresql.parameters.NAME=VALUE. May be given several times
    #[arg(short = 'p', long, value_name = "NAME=VALUE", allow_hyphen_values = true)]
    pub pg: Vec<String>,
    /// Merge a YAML file into the configuration; - is the standard input
    #[arg(long, value_name = "FILE")]
    pub apply: Option<String>,
    /// Replace the configuration by a YAML file; - is the standard input
    #[arg(long, value_name = "FILE")]
    pub replace: Option<String>,
    /// Do not ask for confirmation
    #[arg(long)]
    pub force: bool,
    /// Only show what would change
    #[arg(long)]
    pub dry_run: bool,
}

impl EditConfigArgs {
    fn uses_editor(&self) -> bool {
        self.set.is_empty() && self.pg.is_empty() && self.apply.is_none() && self.replace.is_none()
    }

    /// Answers cannot come from the standard input when the document does.
    fn reads_stdin(&self) -> bool {
        [&self.apply, &self.replace].into_iter().any(|file| file.as_deref() == Some("-"))
    }

    /// All settings, `-p` as what it is short for.
    fn settings(&self) -> Vec<String> {
        let parameters = self.pg.iter().map(|pair| format!("postgresql.parameters.{pair}"));
        self.set.iter().cloned().chain(parameters).collect()
    }
}

/// Runs it.
pub async fn run(context: &Context<'_>, args: &EditConfigArgs) -> Result<Exit, CtlError> {
    let name = context.cluster_name(args.cluster.as_deref())?;
    let groups = context.default_group(args.group);
    let cluster = context.load(name, groups).await?;
    let Some(key) = cluster.config.clone() else {
        context.check_known(name, &cluster).map_err(|error| no_config(name).next(error.hint.unwrap_or_default()))?;
        return Err(no_config(name));
    };
    let ours = !context.personality().is_patronictl();
    if ours && args.uses_editor() && !context.ui.terminals().input && !context.agreed(args.force) && !args.dry_run {
        // Later would be too late: what was typed could not be confirmed.
        let error = CtlError::usage("nobody can edit or confirm here: the standard input is not a terminal");
        return Err(error.next("give the changes with -s, -p, --apply or --replace, and --yes"));
    }
    // A Patroni among the members does not go below its own limits.
    let limits = if cluster.members.iter().all(Member::is_ours) { Limits::Ours } else { Limits::Patroni };
    let plan = plan(context, name, &key, args).await?;
    let is_agreed = context.agreed(args.force);
    if merge::equal(&plan.before, &plan.after) {
        if !args.quiet {
            context.tell("Not changed")?;
        }
        return Ok(Exit::Done);
    }
    if !args.quiet || args.dry_run {
        show(context, &plan)?;
    }
    if ours {
        document(&plan)?;
        let is_doubtful = warn_of_doubts(context, &plan, limits)?;
        if is_doubtful && is_agreed && !args.force && !args.dry_run {
            let error = CtlError::new("the new configuration has settings that would not take effect as they stand");
            let error = error.next("nothing was changed; correct them, or store them with --force");
            return Err(match plan.edited {
                Some(edited) => edited.keep(context, error),
                None => error,
            });
        }
    }
    if args.dry_run {
        return Ok(Exit::Done);
    }
    if args.reads_stdin() && !is_agreed {
        context.ui.say("Use --force option to apply changes")?;
        return Ok(Exit::Failed);
    }
    if !is_agreed && !context.ui.confirm("Apply these changes?").await? {
        if ours {
            context.tell("Nothing was changed.")?;
        }
        return Ok(Exit::Failed);
    }
    store(context, name, groups, &key, plan).await
}

fn no_config(name: &str) -> CtlError {
    CtlError::new(format!("The config key does not exist in the cluster {name}"))
        .in_better_words(format!("cluster {name} has no configuration"))
}

/// What is to change.
struct Plan {
    before: Value,
    before_text: String,
    after: Value,
    after_text: String,
    /// The editor's text, kept until it is stored.
    edited: Option<Edited>,
}

async fn plan(context: &Context<'_>, name: &str, key: &ConfigKey, args: &EditConfigArgs) -> Result<Plan, CtlError> {
    let before = Value::Object(key.document.clone().unwrap_or_default());
    let before_text = yaml::block(&before);
    if args.uses_editor() {
        let edited = editor::edit(context, name, &before_text).await?;
        let after = yaml_text::read(edited.text()).map_err(|error| {
            let error = CtlError::new("what the editor left is not valid YAML").because(error);
            edited.keep(context, error)
        })?;
        let after_text = edited.text().to_owned();
        return Ok(Plan { before, before_text, after, after_text, edited: Some(edited) });
    }
    let mut after = key.document.clone().unwrap_or_default();
    if let Some(file) = &args.replace {
        after = Map::new();
        merge::patch(&mut after, &document_in(context, file).await?);
    }
    if let Some(file) = &args.apply {
        merge::patch(&mut after, &document_in(context, file).await?);
    }
    for pair in args.settings() {
        after = setting(context, after, &pair)?;
    }
    let after = Value::Object(after);
    let after_text = yaml::block(&after);
    Ok(Plan { before, before_text, after, after_text, edited: None })
}

fn setting(context: &Context<'_>, document: Map<String, Value>, pair: &str) -> Result<Map<String, Value>, CtlError> {
    let Some((path, text)) = pair.split_once('=') else {
        return Err(CtlError::new(format!("Invalid parameter setting {pair}"))
            .in_better_words(format!("`{pair}` sets nothing"))
            .next("write KEY=VALUE; an empty VALUE removes the key"));
    };
    let ours = !context.personality().is_patronictl();
    if ours && path.split('.').any(|part| part.trim().is_empty()) {
        return Err(CtlError::usage(format!("`{pair}` has an empty name in its key")).next("write KEY.PATH=VALUE"));
    }
    let value = yaml_text::read(text)
        .map_err(|error| CtlError::new(format!("the value in `{pair}` is not valid YAML")).because(error))?;
    if let Some(said) = absent(&document, path.trim()).filter(|_| ours && value.is_null()) {
        context.ui.warn(&said)?;
    }
    Ok(with_setting(document, path.trim(), value))
}

async fn document_in(context: &Context<'_>, file: &str) -> Result<Map<String, Value>, CtlError> {
    let text = if file == "-" {
        context.ui.read_all().await?
    } else {
        std::fs::read_to_string(file).map_err(|error| CtlError::new(format!("cannot read {file}")).because(error))?
    };
    let named = if file == "-" { "the standard input" } else { file };
    match yaml_text::read(&text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(CtlError::new(format!("{named} does not hold a YAML mapping")).next("nothing was changed")),
        Err(error) => Err(CtlError::new(format!("{named} is not valid YAML")).because(error)),
    }
}

fn show(context: &Context<'_>, plan: &Plan) -> Result<(), CtlError> {
    let lines = diff::unified(&plan.before_text, &plan.after_text);
    if context.is_recording() {
        return context.ui.say(&lines.join("\n"));
    }
    let is_terminal = context.ui.terminals().output;
    if context.personality().is_patronictl() && is_terminal {
        return pager::as_patronictl(context, &(diff::coloured(&lines).join("\n") + "\n"));
    }
    let lines = if context.ui.look().styled { diff::coloured(&lines) } else { lines };
    pager::data(context, &lines.join("\n"))
}

fn warn_of_doubts(context: &Context<'_>, plan: &Plan, limits: Limits) -> Result<bool, CtlError> {
    let unknown = unknown_settings(&plan.before, &plan.after).into_iter().map(|(name, like)| {
        let meant = like.map(|like| format!("; did you mean `{like}`?")).unwrap_or_default();
        format!("`{name}` is no setting that is known: it will have no effect{meant}")
    });
    let doubts: Vec<String> = unknown.chain(unusable_settings(&plan.before, &plan.after, limits)).collect();
    doubts.iter().try_for_each(|doubt| context.ui.warn(doubt))?;
    Ok(!doubts.is_empty())
}

/// What would be stored: a mapping, or it is refused. An empty file or a list would leave the cluster without any
/// configuration.
fn document(plan: &Plan) -> Result<&Map<String, Value>, CtlError> {
    plan.after.as_object().ok_or_else(|| {
        CtlError::new("the new configuration is not a YAML mapping").next("nothing was changed; edit it again")
    })
}

async fn store(
    context: &Context<'_>,
    name: &str,
    groups: Groups,
    key: &ConfigKey,
    plan: Plan,
) -> Result<Exit, CtlError> {
    let dcs = context.dcs(name, groups)?;
    let what = format!("could not write the configuration of cluster {name}");
    context.ui.underway(|underway| underway.begin(&format!("change of the configuration of cluster {name}")));
    let written = context.within(what, dcs.write_config(document(&plan)?, Some(key.version))).await?;
    if written {
        context.tell("Configuration changed")?;
        return Ok(Exit::Done);
    }
    let error = CtlError::new("Config modification aborted due to concurrent changes")
        .in_better_words(format!("somebody else changed the configuration of cluster {name} in the meantime"))
        .next("nothing was changed; look at it (show-config) and try again");
    Err(match plan.edited {
        Some(edited) => edited.keep(context, error),
        None => error,
    })
}
