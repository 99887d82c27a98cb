//! `version`: of this program, and of the members of a cluster.

use crate::ctl::{Context, CtlError, Outcome};

/// Arguments of `version`.
#[derive(Clone, Debug, clap::Args)]
pub struct VersionArgs {
    /// Cluster whose members are asked
    #[arg(value_name = "CLUSTER_NAME")]
    pub cluster: Option<String>,
    /// Only these members
    #[arg(value_name = "MEMBER_NAMES")]
    pub members: Vec<String>,
    /// Citus group
    #[arg(long, allow_negative_numbers = true)]
    pub group: Option<i64>,
}

/// Runs it.
pub async fn run(context: &Context<'_>, _args: &VersionArgs) -> Result<Outcome, CtlError> {
    context.ui.data(&format!("patronictl version {}", crate::COMPATIBLE_VERSION))?;
    Ok(Outcome::Done)
}
