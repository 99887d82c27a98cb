//! `restart`: restart PostgreSQL of some members, one after the other, now or later.

use std::time::Duration;

use crate::api::{Client, HttpAnswer};
use crate::cluster::{ClusterView, MemberName};
use crate::ctl::advice::next_step;
use crate::ctl::delivery::{Delivery, Request, Verb};
use crate::ctl::desk::Desk;
use crate::ctl::error::About;
use crate::ctl::plan::Pace;
use crate::ctl::restarting::{self, Asked, Restart};
use crate::ctl::targets::{self, RoleFilter, Wanted};
use crate::ctl::{Context, CtlError, Exit};

/// Arguments of `restart`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct RestartArgs {
    /// Cluster
    #[arg(value_name = "CLUSTER_NAME", required = true)]
    pub cluster: String,
    /// Only these members
    #[arg(value_name = "MEMBER_NAMES")]
    pub members: Vec<String>,
    /// Citus group
    #[arg(long, allow_negative_numbers = true)]
    pub group: Option<i64>,
    /// Restart only members with this role
    #[arg(short = 'r', long, value_enum)]
    pub role: Option<RoleFilter>,
    /// Restart a single member only
    #[arg(long)]
    pub any: bool,
    /// Timestamp of a scheduled restart in unambiguous format (e.g. ISO 8601)
    #[arg(long, value_name = "TIME")]
    pub scheduled: Option<String>,
    /// Restart if the PostgreSQL version is less than provided (e.g. 9.5.2)
    #[arg(long, value_name = "VERSION")]
    pub pg_version: Option<String>,
    /// Restart if pending
    #[arg(long)]
    pub pending: bool,
    /// Return error and fail over if necessary when restarting takes longer than this.
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<String>,
    /// Do not ask for confirmation at any point
    #[arg(long)]
    pub force: bool,
}

/// Runs it.
pub async fn run(context: &Context<'_>, args: &RestartArgs) -> Result<Exit, CtlError> {
    let desk = Desk::new(context, &args.cluster, context.groups(args.group))?;
    let view = desk.first_load().await?;
    let asked = Asked {
        names: args.members.clone(),
        role: args.role.unwrap_or_default(),
        any: args.any.then(|| desk.dice()),
        scheduled: args.scheduled.clone(),
        pg_version: args.pg_version.clone(),
        is_pending: args.pending,
        timeout: args.timeout.clone(),
    };
    let wanted = Wanted { action: "restart", ..Wanted::of(desk.cluster, &asked.names, asked.role) };
    targets::check_anybody(&view, &wanted).map_err(|no| no.refusal(&view))?;
    desk.table(&view)?;
    let now = desk.now();
    let scene = desk.scene(&view, &now, args.force);
    let plan = desk.settle(|answers| restarting::plan(&scene, &asked, answers)).await?;
    carry_out(&desk, &view, &plan, args.timeout.as_deref()).await
}

async fn carry_out(
    desk: &Desk<'_>,
    view: &ClusterView,
    plan: &Restart,
    timeout: Option<&str>,
) -> Result<Exit, CtlError> {
    let client = desk.client()?;
    let limit = match plan.scheduled {
        Some(_) => quick_limit(view),
        None => restarting::answer_limit(Pace::of(view), timeout),
    };
    let request = Request::post("/restart", plan.body.clone(), limit);
    if desk.rehearses(&plan.members, &request)? {
        return Ok(Exit::Done);
    }
    let mut ends = Vec::new();
    for (index, name) in plan.members.iter().enumerate() {
        desk.leave(&plan.members[index + 1..]);
        if plan.replaced.contains(name) {
            let end = take_back(desk, &client, view, name).await?;
            ends.extend((end != Exit::Done).then_some(end));
        }
        let answer = match desk.send(&client, view, name, &request).await {
            Delivery::Answered(answer) => answer,
            silent => {
                let error = unanswered("restart", name, silent, &plan.members[index + 1..]);
                return Err(error.after(ends.into_iter().reduce(Exit::and)));
            }
        };
        ends.push(tell(desk, name, &answer)?);
    }
    let end = Exit::of_all(ends);
    let is_over = end == Exit::Done && plan.scheduled.is_none();
    if is_over && desk.waits() { desk.until_whole(view).await } else { Ok(end) }
}

/// Only one restart can be scheduled on a member: the earlier one goes first.
async fn take_back(desk: &Desk<'_>, client: &Client, view: &ClusterView, name: &MemberName) -> Result<Exit, CtlError> {
    let request = Request { verb: Verb::Delete, path: "/restart", body: None, limit: quick_limit(view) };
    let action = "flush scheduled restart";
    match desk.send(client, view, name, &request).await {
        Delivery::Answered(answer) if answer.is_success() => Ok(Exit::Done),
        Delivery::Answered(answer) => failed(desk, action, name, &answer),
        silent => Err(unanswered(action, name, silent, &[])),
    }
}

fn tell(desk: &Desk<'_>, name: &MemberName, answer: &HttpAnswer) -> Result<Exit, CtlError> {
    match answer.status {
        200 => desk.result_of(name, &format!("Success: restart on member {name}"))?,
        202 => desk.result_of(name, &format!("Success: restart scheduled on member {name}"))?,
        409 => {
            let line = format!("Failed: another restart is already scheduled on member {name}");
            desk.trouble_of(name, Exit::Failed, &line, next_step(409, &answer.text))?;
            return Ok(Exit::Failed);
        }
        _ => return failed(desk, "restart", name, answer),
    }
    Ok(Exit::Done)
}

/// How long a request may take that a member answers without waiting for PostgreSQL: it may have to ask the DCS.
pub(super) fn quick_limit(view: &ClusterView) -> Duration {
    Pace::of(view).retry_timeout + Duration::from_secs(5)
}

/// The line for a refusal by a member.
pub(super) fn failed(desk: &Desk<'_>, action: &str, name: &MemberName, answer: &HttpAnswer) -> Result<Exit, CtlError> {
    let HttpAnswer { status, text, .. } = answer;
    let line = format!("Failed: {action} for member {name}, status code={status}, ({text})");
    let end = Exit::of_status(*status);
    desk.trouble_of(name, end, &line, next_step(*status, text))?;
    Ok(end)
}

/// The end of a command because a member gave no answer. The members after it have not been asked.
pub(super) fn unanswered(action: &str, name: &MemberName, delivery: Delivery, rest: &[MemberName]) -> CtlError {
    let (what, why, end) = match delivery {
        Delivery::Unknown(why) => {
            (format!("{action} of member {name} was requested, how it went is unknown"), why, Exit::Unknown)
        }
        Delivery::NotMade(why) => (format!("{action} of member {name} was not requested"), why, Exit::Unreachable),
        Delivery::Answered(answer) => (format!("{action} of member {name}"), answer.text, Exit::Failed),
    };
    let rest = match rest {
        [] => String::new(),
        rest => format!("; not asked: {}", targets::listed(rest)),
    };
    let error = CtlError::new(what).ending(end).because(why);
    let error = error.next(format!("see whether the agent of {name} runs and is reachable{rest}"));
    error.about(About::Member(name.to_string()))
}
