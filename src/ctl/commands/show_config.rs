//! `show-config`: the dynamic configuration as YAML.

use serde_json::{Map, Value};

use crate::cluster::ClusterView;
use crate::ctl::documents::Config;
use crate::ctl::render::{Format, cell_text, ours, yaml};
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
}

/// Runs it.
pub async fn run(context: &Context<'_>, args: &ShowConfigArgs) -> Result<Exit, CtlError> {
    let name = context.cluster_name(args.cluster.as_deref())?;
    let cluster = context.load(name, context.default_group(args.group)).await?;
    let view = view(&cluster);
    if context.personality().is_patronictl() {
        view.map_or(Ok(()), |document| context.ui.data(&yaml::block(&Value::Object(document))))?;
        return Ok(Exit::Done);
    }
    context.check_known(name, &cluster)?;
    let config = view.ok_or_else(|| {
        CtlError::new(format!("cluster {name} has no configuration yet"))
            .next("it is written when the first member has finished its bootstrap")
    })?;
    match context.own.format {
        // As `edit-config` takes it.
        None | Some(Format::Pretty) => {
            pager::data(context, yaml::block(&Value::Object(config)).trim_end_matches('\n'))?;
        }
        Some(Format::Name) => context.ui.data(name)?,
        Some(Format::Tsv) => {
            let mut lines = vec!["key\tvalue".to_owned()];
            settings("", &config, &mut lines);
            context.ui.data(&lines.join("\n"))?;
        }
        Some(format) => context.ui.data(&ours::document(&Config { cluster: name.to_owned(), config }, format))?,
    }
    Ok(Exit::Done)
}

/// One line per setting, by its path as `edit-config -s` takes it; values as in JSON, texts bare.
fn settings(prefix: &str, section: &Map<String, Value>, lines: &mut Vec<String>) {
    for (key, value) in section {
        match value {
            Value::Object(inner) if !inner.is_empty() => settings(&format!("{prefix}{key}."), inner, lines),
            value => lines.push(format!("{prefix}{key}\t{}", ours::field(&cell_text(&Some(value.clone()))))),
        }
    }
}

/// The document in the `config` key; an empty one when the key holds something else. Pure.
pub fn view(cluster: &ClusterView) -> Option<Map<String, Value>> {
    let key = cluster.config.as_ref()?;
    Some(key.document.clone().unwrap_or_default())
}
