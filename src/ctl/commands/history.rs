//! `history`: when the cluster changed its timeline, and who led from then on.

use serde_json::{Value, json};

use crate::cluster::ClusterView;
use crate::ctl::render::{Format, history};
use crate::ctl::{Context, CtlError, Exit, pager};

/// Arguments of `history`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct HistoryArgs {
    /// Cluster; the configured scope by default
    #[arg(value_name = "CLUSTER_NAME")]
    pub cluster: Option<String>,
    /// Citus group
    #[arg(long, allow_negative_numbers = true)]
    pub group: Option<i64>,
    /// Output format
    #[arg(short = 'f', long, value_enum, hide_default_value = true, default_value_t)]
    pub format: Format,
}

/// Runs it.
pub async fn run(context: &Context<'_>, args: &HistoryArgs) -> Result<Exit, CtlError> {
    let name = context.cluster_name(args.cluster.as_deref())?;
    let cluster = context.load(name, context.default_group(args.group)).await?;
    let view = view(name, &cluster);
    if context.personality().is_patronictl() {
        context.ui.data(&history::as_patronictl(&view, args.format))?;
        return Ok(Exit::Done);
    }
    context.check_known(name, &cluster)?;
    pager::data(context, &history::as_pgherdctl(&view, args.format, context.ui.look()))?;
    Ok(Exit::Done)
}

/// The history as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryView {
    /// Name of the cluster.
    pub cluster: String,
    /// Timeline that ended, position, reason, time, new leader; what is absent is an empty text.
    pub lines: Vec<[Value; 5]>,
}

/// What is shown of a history. Pure.
pub fn view(name: &str, cluster: &ClusterView) -> HistoryView {
    let raw = cluster.history.as_ref().and_then(|history| history.raw.as_array()).map(Vec::as_slice);
    let line = |line: &Value| {
        let fields = line.as_array().map(Vec::as_slice).unwrap_or_default();
        std::array::from_fn(|i| fields.get(i).cloned().unwrap_or_else(|| json!("")))
    };
    HistoryView { cluster: name.to_owned(), lines: raw.unwrap_or_default().iter().map(line).collect() }
}
