//! `topology`: the members as a tree of who streams from whom.

use crate::ctl::render::Format;
use crate::ctl::render::members::Shape;
use crate::ctl::{Context, CtlError, Exit};

use super::list::{Wanted, period, show};

/// Arguments of `topology`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct TopologyArgs {
    /// Clusters; the configured scope by default
    #[arg(value_name = "CLUSTER_NAMES")]
    pub clusters: Vec<String>,
    /// Citus group
    #[arg(long, allow_negative_numbers = true)]
    pub group: Option<i64>,
    /// Show some extra information
    #[arg(short = 'e', long)]
    pub extended: bool,
    /// Output format
    #[arg(short = 'f', long, value_enum, hide_default_value = true, default_value_t)]
    pub format: Format,
    /// Show again every 2 seconds
    #[arg(short = 'W')]
    pub every_two_seconds: bool,
    /// Show again every so many seconds
    #[arg(short = 'w', long, value_name = "SECONDS", allow_negative_numbers = true)]
    pub watch: Option<f64>,
}

/// Runs it.
pub async fn run(context: &Context<'_>, args: &TopologyArgs) -> Result<Exit, CtlError> {
    let wanted = Wanted {
        clusters: &args.clusters,
        group: args.group,
        is_extended: args.extended,
        has_timestamp: false,
        shape: Shape { format: args.format, is_tree: true },
        period: period(args.every_two_seconds, args.watch),
    };
    show(context, &wanted).await
}
