//! `promote-cluster`: let a cluster that follows another one stand on its own.

use serde_json::Value;

use crate::ctl::{Context, CtlError, Exit};

use super::demote_cluster::{PROMOTE, change};

/// Arguments of `promote-cluster`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct PromoteClusterArgs {
    /// Cluster; the configured scope by default
    #[arg(value_name = "CLUSTER_NAME")]
    pub cluster: Option<String>,
    /// Do not ask for confirmation at any point
    #[arg(long)]
    pub force: bool,
}

/// Runs it.
pub async fn run(context: &Context<'_>, args: &PromoteClusterArgs) -> Result<Exit, CtlError> {
    change(context, args.cluster.as_deref(), args.force, &PROMOTE, Value::Null).await
}
