//! `show-config`: the dynamic configuration as YAML.

use serde_json::{Map, Value};

use crate::cluster::ClusterView;
use crate::ctl::render::yaml;
use crate::ctl::{Context, CtlError, Outcome};

/// Arguments of `show-config`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ShowConfigArgs {
    /// Cluster; the configured scope by default
    #[arg(value_name = "CLUSTER_NAME")]
    pub cluster: Option<String>,
    /// Citus group
    #[arg(long, allow_negative_numbers = true)]
    pub group: Option<i64>,
}

/// Runs it.
pub async fn run(context: &Context<'_>, args: &ShowConfigArgs) -> Result<Outcome, CtlError> {
    let name = context.cluster_name(args.cluster.as_deref())?;
    let cluster = context.load(name, context.default_group(args.group)).await?;
    match view(&cluster) {
        Some(document) if context.personality().is_patronictl() => context.ui.data(&yaml::block(&document))?,
        Some(document) => context.ui.data_raw(&yaml::block(&document))?,
        None if context.personality().is_patronictl() => {}
        None => {
            context.check_known(name, &cluster)?;
            return Err(CtlError::new(format!("cluster {name} has no configuration yet"))
                .next("it is written when the first member has finished its bootstrap"));
        }
    }
    Ok(Outcome::Done)
}

/// The document in the `config` key; an empty one when the key holds something else. Pure.
pub fn view(cluster: &ClusterView) -> Option<Value> {
    let key = cluster.config.as_ref()?;
    Some(Value::Object(key.document.clone().unwrap_or_else(Map::new)))
}
