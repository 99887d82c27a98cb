//! `reload`: let members read their configuration file again.

use crate::ctl::delivery::{Delivery, Request, Verb};
use crate::ctl::desk::Desk;
use crate::ctl::plan::Pace;
use crate::ctl::targets::{self, RoleFilter, Wanted};
use crate::ctl::{Context, CtlError, Exit};

use super::restart::{failed, quick_limit, unanswered};

/// Arguments of `reload`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ReloadArgs {
    /// Cluster
    #[arg(value_name = "CLUSTER_NAME", required = true)]
    pub cluster: String,
    /// Only these members
    #[arg(value_name = "MEMBER_NAMES")]
    pub members: Vec<String>,
    /// Citus group
    #[arg(long, allow_negative_numbers = true)]
    pub group: Option<i64>,
    /// Reload only members with this role
    #[arg(short = 'r', long, value_enum)]
    pub role: Option<RoleFilter>,
    /// Do not ask for confirmation at any point
    #[arg(long)]
    pub force: bool,
}

/// Runs it.
pub async fn run(context: &Context<'_>, args: &ReloadArgs) -> Result<Exit, CtlError> {
    let desk = Desk::new(context, &args.cluster, context.groups(args.group))?;
    let view = desk.first_load().await?;
    let is_strict = !desk.is_patronictl();
    let role = args.role.unwrap_or_default();
    let wanted = Wanted { action: "reload", is_strict, ..Wanted::of(desk.cluster, &args.members, role) };
    targets::check_anybody(&view, &wanted).map_err(|no| no.refusal(&view))?;
    desk.table(&view)?;
    let is_agreed = desk.agreed(args.force);
    let members = desk.settle(|answers| targets::settle(&view, &wanted, is_agreed, answers)).await?;
    let client = desk.client()?;
    let request = Request { verb: Verb::Post, path: "/reload", body: None, limit: quick_limit(&view) };
    if desk.rehearses(&members, &request)? {
        return Ok(Exit::Done);
    }
    let mut ends = Vec::new();
    for (index, name) in members.iter().enumerate() {
        desk.leave(&members[index + 1..]);
        let answer = match desk.send(&client, &view, name, &request).await {
            Delivery::Answered(answer) => answer,
            silent if desk.is_patronictl() => {
                return Err(unanswered("reload", name, silent, &members[index + 1..]));
            }
            // The members after it lose nothing by being asked.
            silent => {
                let error = unanswered("reload", name, silent, &[]);
                let line = format!("Failed: {error}: {}", error.causes().join(": "));
                desk.trouble_of(name, error.end(), &line, error.hint.as_deref())?;
                ends.push(error.end());
                continue;
            }
        };
        match answer.status {
            200 => desk.result_of(name, &format!("No changes to apply on member {name}"))?,
            202 => {
                let seconds = Pace::of(&view).loop_wait.as_secs();
                let when = format!("will be processed within {seconds} seconds");
                desk.result_of(name, &format!("Reload request received for member {name} and {when}"))?;
            }
            _ => {
                ends.push(failed(&desk, "reload", name, &answer)?);
                continue;
            }
        }
        ends.push(Exit::Done);
    }
    Ok(Exit::of_all(ends))
}
