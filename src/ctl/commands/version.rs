//! `version`: of this program, and of the members of a cluster.

use std::time::Duration;

use crate::api::client::{ClientError, NodeStatus};
use crate::cluster::ClusterView;
use crate::ctl::documents::{MemberVersion, Version};
use crate::ctl::render::{Format, ours};
use crate::ctl::targets::members_are;
use crate::ctl::{Context, CtlError, Exit};

/// How long a member may take to answer; all are asked at once.
const PATIENCE: Duration = Duration::from_secs(3);

/// Arguments of `version`.
#[derive(Clone, Debug, Default, clap::Args)]
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
    /// Output format
    #[arg(short = 'f', long, value_enum, hide_default_value = true, default_value_t)]
    pub format: Format,
}

/// Runs it.
pub async fn run(context: &Context<'_>, args: &VersionArgs) -> Result<Exit, CtlError> {
    let mut answers = Vec::new();
    let mut unknown = Vec::new();
    let mut known = Vec::new();
    if let Some(name) = &args.cluster {
        let cluster = context.load(name, context.groups(args.group)).await?;
        if !context.personality().is_patronictl() {
            context.check_known(name, &cluster)?;
        }
        let targets = targets(&cluster, &args.members);
        known =
            crate::ctl::targets::parts(&cluster).flat_map(|part| &part.members).map(|m| m.name.to_string()).collect();
        unknown.extend(args.members.iter().filter(|name| targets.iter().all(|(known, _)| known != *name)).cloned());
        answers = ask(context, targets).await?;
    }
    if context.personality().is_patronictl() {
        context.ui.data(&as_patronictl(args.cluster.is_some(), &answers))?;
        return Ok(Exit::Done);
    }
    context.ui.data(&as_pgherdctl(args, &answers))?;
    for name in &unknown {
        context.ui.warn(&format!("member {name} is not in the cluster, or publishes no REST address"))?;
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        context.ui.hint(&members_are(&[name.as_str()], &known))?;
    }
    let said = answers.iter().map(|answer| if answer.said.is_ok() { Exit::Done } else { Exit::Unreachable });
    Ok(Exit::of_all(said.chain(unknown.iter().map(|_| Exit::NotFound))))
}

/// Members that can be asked, in the order of the DCS: those named, or all of them.
fn targets(cluster: &ClusterView, names: &[String]) -> Vec<(String, String)> {
    let all = std::iter::once(cluster).chain(cluster.workers.values()).flat_map(|group| &group.members);
    all.filter(|member| names.is_empty() || names.iter().any(|name| member.name == name.as_str()))
        .filter_map(|member| Some((member.name.to_string(), member.api_url()?.to_owned())))
        .collect()
}

/// One member's answer.
struct Answer {
    member: String,
    said: Result<NodeStatus, ClientError>,
}

async fn ask(context: &Context<'_>, targets: Vec<(String, String)>) -> Result<Vec<Answer>, CtlError> {
    if targets.is_empty() {
        return Ok(Vec::new());
    }
    let client = context.api(PATIENCE)?;
    let _progress = context.ui.progress(&format!("asking {} member(s)", targets.len()));
    let asked = targets.into_iter().map(|(member, api_url)| {
        let client = client.clone();
        async move { Answer { said: client.node_status(&api_url).await, member } }
    });
    Ok(futures::future::join_all(asked).await)
}

/// `150018` is 15.18, `90624` is 9.6.24.
fn server_version(number: u32) -> String {
    if number >= 100_000 {
        format!("{}.{}", number / 10_000, number % 10_000)
    } else {
        format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100)
    }
}

fn as_patronictl(has_cluster: bool, answers: &[Answer]) -> String {
    let mut lines = vec![format!("patronictl version {}", crate::COMPATIBLE_VERSION)];
    if has_cluster {
        lines.push(String::new());
    }
    lines.extend(answers.iter().map(|answer| match &answer.said {
        Ok(status) => {
            let postgres = status.server_version.map(|n| format!(" PostgreSQL {}", server_version(n)));
            let agent = status.agent_version.as_deref().unwrap_or("None");
            format!("{}: Patroni {agent}{}", answer.member, postgres.unwrap_or_default())
        }
        Err(error) => format!("{}: failed to get version: {error}", answer.member),
    }));
    lines.join("\n")
}

fn document(args: &VersionArgs, answers: &[Answer]) -> Version {
    let member = |answer: &Answer| {
        let said = answer.said.as_ref().ok();
        MemberVersion {
            name: answer.member.clone(),
            agent: said.and_then(|status| status.agent_version.clone()),
            postgresql: said.and_then(|status| status.server_version).map(server_version),
            error: answer.said.as_ref().err().map(ToString::to_string),
        }
    };
    Version {
        pgherdctl: crate::VERSION.to_owned(),
        compatible_with_patroni: crate::COMPATIBLE_VERSION.to_owned(),
        cluster: args.cluster.clone(),
        members: answers.iter().map(member).collect(),
    }
}

fn as_pgherdctl(args: &VersionArgs, answers: &[Answer]) -> String {
    let document = document(args, answers);
    let lines = |first: String, line: &dyn Fn(&MemberVersion) -> String| {
        std::iter::once(first).chain(document.members.iter().map(line)).collect::<Vec<_>>().join("\n")
    };
    let text = |text: &Option<String>| ours::field(text.as_deref().unwrap_or_default());
    match args.format {
        Format::Pretty => {
            let own = format!("pgherdctl {} (compatible with Patroni {})", crate::VERSION, crate::COMPATIBLE_VERSION);
            lines(own, &|member| match &member.error {
                None => {
                    let agent = member.agent.as_deref().unwrap_or("of unknown version");
                    let postgres = member.postgresql.as_ref().map(|version| format!(", PostgreSQL {version}"));
                    format!("{}: agent {agent}{}", member.name, postgres.unwrap_or_default())
                }
                Some(error) => format!("{}: no answer ({error})", member.name),
            })
        }
        Format::Tsv if args.cluster.is_none() => {
            format!("pgherdctl\tcompatible_with_patroni\n{}\t{}", crate::VERSION, crate::COMPATIBLE_VERSION)
        }
        Format::Tsv => lines("member\tagent\tpostgresql\terror".to_owned(), &|member| {
            let (agent, postgres, error) = (text(&member.agent), text(&member.postgresql), text(&member.error));
            format!("{}\t{agent}\t{postgres}\t{error}", member.name)
        }),
        Format::Name if args.cluster.is_none() => "pgherdctl".to_owned(),
        Format::Name => {
            let names = document.members.iter().filter(|member| member.error.is_none());
            names.map(|member| member.name.clone()).collect::<Vec<_>>().join("\n")
        }
        format => ours::document(&document, format),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn server_versions() {
        assert_eq!(super::server_version(150_018), "15.18");
        assert_eq!(super::server_version(90_624), "9.6.24");
    }
}
