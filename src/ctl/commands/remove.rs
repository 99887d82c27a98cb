//! `remove`: forget a cluster that exists no more.

use crate::cluster::ClusterView;
use crate::ctl::commands::list;
use crate::ctl::context::Groups;
use crate::ctl::known::Known;
use crate::ctl::render::{Format, members};
use crate::ctl::{Context, CtlError, Exit};

/// Arguments of `remove`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct RemoveArgs {
    /// Cluster
    #[arg(value_name = "CLUSTER_NAME", required = true)]
    pub cluster: String,
    /// Citus group
    #[arg(long, allow_negative_numbers = true)]
    pub group: Option<i64>,
    /// Output format
    #[arg(short = 'f', long, value_enum, hide_default_value = true, default_value_t)]
    pub format: Format,
    /// The cluster's name once more: answers the questions
    #[arg(long, value_name = "NAME")]
    pub confirm: Option<String>,
    /// With --confirm: even if the cluster has a leader
    #[arg(long, requires = "confirm")]
    pub force: bool,
}

const AWARE: &str = "Yes I am aware";

/// Runs it.
pub async fn run(context: &Context<'_>, args: &RemoveArgs) -> Result<Exit, CtlError> {
    let name = args.cluster.as_str();
    let groups = context.groups(args.group);
    let dcs = context.dcs(name, groups)?;
    let view = context.load(name, groups).await?;
    if groups == Groups::All {
        let error = CtlError::new("For Citus clusters the --group must me specified").ending(Exit::Usage);
        return Err(error.in_better_words(format!("{name} is a Citus cluster")).next("name the group with --group"));
    }
    show(context, args, groups, &view)?;
    match (&args.confirm, context.personality().is_patronictl()) {
        (_, true) => ask(context, name, &view).await?,
        (confirm, false) => {
            context.check_known(name, &view)?;
            match confirm {
                Some(confirm) => check(confirm, args, &view)?,
                None if context.ui.terminals().input => ask(context, name, &view).await?,
                None => {
                    let error = CtlError::new(format!("removing cluster {name} has not been confirmed"));
                    return Err(error.ending(Exit::Usage).next(format!("add --confirm={name}")));
                }
            }
        }
    }
    context.ui.underway(|underway| underway.begin(&format!("removal of cluster {name}")));
    context.within(format!("could not remove cluster {name}"), dcs.delete_cluster()).await?;
    if !context.personality().is_patronictl() {
        Known::new(context.environment, &context.settings, name).forget();
        context.tell(&format!("Removed everything about cluster {name} from the DCS"))?;
    }
    Ok(Exit::Done)
}

/// What is about to be forgotten. Patroni's tool shows a single group as if it were the first of several.
fn show(context: &Context<'_>, args: &RemoveArgs, groups: Groups, view: &ClusterView) -> Result<(), CtlError> {
    let shape = members::Shape { format: args.format, is_tree: false };
    if context.personality().is_patronictl() {
        let groups = if groups == Groups::Plain { groups } else { Groups::All };
        let view = list::view(&args.cluster, groups, view, false);
        return context.ui.data(&members::as_patronictl(&view, shape));
    }
    list::show_members(context, &args.cluster, groups, view)
}

async fn ask(context: &Context<'_>, name: &str, view: &ClusterView) -> Result<(), CtlError> {
    if context.ui.prompt("Please confirm the cluster name to remove", None).await? != name {
        return Err(CtlError::new("Cluster names specified do not match"));
    }
    let question = format!("You are about to remove all information in DCS for {name}, please type: \"{AWARE}\"");
    if context.ui.prompt(&question, None).await? != AWARE {
        return Err(CtlError::new(format!("You did not exactly type \"{AWARE}\"")));
    }
    let Some(leader) = view.leader_name().filter(|leader| !leader.is_empty()) else { return Ok(()) };
    let question = "This cluster currently is healthy. Please specify the leader name to continue";
    if context.ui.prompt(question, None).await? != leader.as_str() {
        return Err(CtlError::new("You did not specify the current leader of the cluster"));
    }
    Ok(())
}

/// The answers of a script.
fn check(confirm: &str, args: &RemoveArgs, view: &ClusterView) -> Result<(), CtlError> {
    let name = args.cluster.as_str();
    if confirm != name {
        let error = CtlError::new(format!("--confirm says {confirm} and the cluster is {name}"));
        return Err(error.ending(Exit::Usage).next("nothing was removed; give the same name twice"));
    }
    match view.leader_name().filter(|_| !args.force) {
        Some(leader) => {
            let error = CtlError::new(format!("cluster {name} is alive: {leader} leads it"));
            Err(error.next("stop its agents first; they would write it anew. --force removes it all the same"))
        }
        None => Ok(()),
    }
}
