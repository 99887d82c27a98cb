//! `failover`: make a named member the leader, with or without one before.

use crate::ctl::desk::Desk;
use crate::ctl::handover::{Asked, Kind};
use crate::ctl::{Context, CtlError, Exit};

use super::switchover::hand_over;

/// Arguments of `failover`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct FailoverArgs {
    /// Cluster; the configured scope by default
    #[arg(value_name = "CLUSTER_NAME")]
    pub cluster: Option<String>,
    /// Citus group
    #[arg(long, allow_negative_numbers = true)]
    pub group: Option<i64>,
    /// The name of the candidate
    #[arg(long, value_name = "NAME")]
    pub candidate: Option<String>,
    /// Do not ask for confirmation at any point
    #[arg(long)]
    pub force: bool,
}

/// Runs it.
pub async fn run(context: &Context<'_>, args: &FailoverArgs) -> Result<Exit, CtlError> {
    let asked = Asked { candidate: args.candidate.clone(), ..Asked::default() };
    let cluster = context.cluster_name(args.cluster.as_deref())?;
    hand_over(context, Desk::new(context, cluster, context.groups(args.group))?, Kind::Failover, asked, args.force)
        .await
}
