//! `show-config`: the dynamic configuration as YAML.

use serde_json::{Map, Value, json};

use crate::cluster::ClusterView;
use crate::ctl::render::{ours, yaml};
use crate::ctl::{Context, CtlError, Exit, pager};

/// Arguments of `show-config`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ShowConfigArgs {
    /// Cluster; the configured scope by default
    #[arg(value_name = "CLUSTER_NAME")]
    pub cluster: Option<String>,
    /// Citus group
    #[arg(long, allow_negative_numbers = true)]
    pub group: Option<i64>,
    /// Output format
    #[arg(short = 'f', long, value_enum, hide_default_value = true, default_value_t)]
    pub format: DocumentFormat,
}

/// `--format` of a document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DocumentFormat {
    /// YAML, as `edit-config` takes it.
    #[default]
    Yaml,
    /// JSON, with the cluster's name around it.
    Json,
}

/// Runs it.
pub async fn run(context: &Context<'_>, args: &ShowConfigArgs) -> Result<Exit, CtlError> {
    let name = context.cluster_name(args.cluster.as_deref())?;
    let cluster = context.load(name, context.default_group(args.group)).await?;
    let view = view(&cluster);
    if context.personality().is_patronictl() {
        view.map_or(Ok(()), |document| context.ui.data(&yaml::block(&document)))?;
        return Ok(Exit::Done);
    }
    context.check_known(name, &cluster)?;
    let document = view.ok_or_else(|| {
        CtlError::new(format!("cluster {name} has no configuration yet"))
            .next("it is written when the first member has finished its bootstrap")
    })?;
    match args.format {
        DocumentFormat::Yaml => pager::data(context, yaml::block(&document).trim_end_matches('\n'))?,
        DocumentFormat::Json => {
            context.ui.data(&ours::json(&ours::document("Config", json!({ "cluster": name, "config": document }))))?;
        }
    }
    Ok(Exit::Done)
}

/// The document in the `config` key; an empty one when the key holds something else. Pure.
pub fn view(cluster: &ClusterView) -> Option<Value> {
    let key = cluster.config.as_ref()?;
    Some(Value::Object(key.document.clone().unwrap_or_else(Map::new)))
}
