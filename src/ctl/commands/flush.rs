//! `flush`: take back what was scheduled.

use crate::api::HttpAnswer;
use crate::cluster::{ClusterView, Member, MemberName};
use crate::ctl::advice::next_step;
use crate::ctl::delivery::{Delivery, Request, Verb};
use crate::ctl::desk::Desk;
use crate::ctl::targets::{self, RoleFilter, Wanted};
use crate::ctl::{Context, CtlError, Exit};

use super::restart::{failed, quick_limit, unanswered};

/// Arguments of `flush`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(override_usage = "flush [OPTIONS] <CLUSTER_NAME> [MEMBER_NAMES]... <restart|switchover>")]
pub struct FlushArgs {
    /// Cluster
    #[arg(value_name = "CLUSTER_NAME", required = true)]
    pub cluster: String,
    /// Only these members, and last what to take back: restart or switchover
    #[arg(value_name = "MEMBER_NAMES")]
    pub members_and_event: Vec<String>,
    /// Citus group
    #[arg(long, allow_negative_numbers = true)]
    pub group: Option<i64>,
    /// Flush only members with this role
    #[arg(short = 'r', long, value_enum)]
    pub role: Option<RoleFilter>,
    /// Do not ask for confirmation at any point
    #[arg(long)]
    pub force: bool,
}

/// The last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Restart,
    Switchover,
}

impl FlushArgs {
    /// Names of members, and what is to be taken back. `Err`: what is wrong with the last word, as patronictl says it.
    fn split(&self) -> Result<(&[String], Event), String> {
        let Some((event, members)) = self.members_and_event.split_last() else {
            let text = "Missing argument '{restart|switchover}'. Choose from:\n\trestart,\n\tswitchover";
            return Err(text.to_owned());
        };
        match event.as_str() {
            "restart" => Ok((members, Event::Restart)),
            "switchover" => Ok((members, Event::Switchover)),
            other => {
                let what = "is not one of 'restart', 'switchover'.";
                Err(format!("Invalid value for '{{restart|switchover}}': '{other}' {what}"))
            }
        }
    }

    /// What is wrong with the arguments.
    pub fn check(&self) -> Result<(), String> {
        self.split().map(|_| ())
    }
}

/// Runs it.
pub async fn run(context: &Context<'_>, args: &FlushArgs) -> Result<Exit, CtlError> {
    let (members, event) = args.split().map_err(CtlError::usage)?;
    let desk = Desk::new(context, &args.cluster, context.groups(args.group))?;
    let view = desk.first_load().await?;
    match event {
        Event::Restart => restarts(&desk, &view, members, args).await,
        Event::Switchover => switchover(&desk, &view).await,
    }
}

async fn restarts(desk: &Desk<'_>, view: &ClusterView, members: &[String], args: &FlushArgs) -> Result<Exit, CtlError> {
    let is_strict = !desk.is_patronictl();
    let role = args.role.unwrap_or_default();
    let wanted = Wanted { action: "flush", is_strict, ..Wanted::of(desk.cluster, members, role) };
    targets::check_anybody(view, &wanted).map_err(|no| no.refusal(view))?;
    desk.table(view)?;
    let is_agreed = desk.agreed(args.force);
    let members = desk.settle(|answers| targets::settle(view, &wanted, is_agreed, answers)).await?;
    let client = desk.client()?;
    let request = Request { verb: Verb::Delete, path: "/restart", body: None, limit: quick_limit(view) };
    let is_set = |name: &&MemberName| {
        let member = targets::find(view, name);
        member.and_then(|member| member.data.get("scheduled_restart")).is_some_and(is_scheduled)
    };
    let with_one: Vec<MemberName> = members.iter().filter(is_set).cloned().collect();
    if desk.rehearses(&with_one, &request)? {
        return Ok(Exit::Done);
    }
    let action = "flush scheduled restart";
    let mut ends = Vec::new();
    for (index, name) in members.iter().enumerate() {
        if !with_one.contains(name) {
            desk.result_of(name, &format!("No scheduled restart for member {name}"))?;
            ends.push(Exit::Done);
            continue;
        }
        match desk.send(&client, view, name, &request).await {
            Delivery::Answered(answer) if answer.status == 200 => {
                desk.result_of(name, &format!("Success: {action} for member {name}"))?;
                ends.push(Exit::Done);
            }
            Delivery::Answered(answer) => ends.push(failed(desk, action, name, &answer)?),
            silent if desk.is_patronictl() => return Err(unanswered(action, name, silent, &members[index + 1..])),
            // The members after it lose nothing by being asked.
            silent => {
                let error = unanswered(action, name, silent, &[]);
                let line = format!("Failed: {error}: {}", error.causes().join(": "));
                desk.trouble_of(name, error.end(), &line, error.hint.as_deref())?;
                ends.push(error.end());
            }
        }
    }
    Ok(Exit::of_all(ends))
}

fn is_scheduled(value: &serde_json::Value) -> bool {
    crate::cluster::tags::is_truthy(value)
}

/// Any member can take the request back; the leader is asked first.
async fn switchover(desk: &Desk<'_>, view: &ClusterView) -> Result<Exit, CtlError> {
    let scheduled = view.failover_request().filter(|key| key.scheduled_at.as_ref().is_some_and(|at| !at.is_empty()));
    let Some(key) = scheduled else {
        desk.result("No pending scheduled switchover")?;
        return Ok(Exit::Done);
    };
    let request = Request { verb: Verb::Delete, path: "/switchover", body: None, limit: quick_limit(view) };
    let client = desk.client()?;
    let has_api = |member: &&Member| member.api_url().is_some();
    let (first, others): (Vec<_>, Vec<_>) =
        view.members.iter().filter(has_api).map(|member| &member.name).partition(|name| view.has_lock(name));
    let asked: Vec<MemberName> = first.into_iter().chain(others).cloned().collect();
    if desk.rehearses(&asked[..asked.len().min(1)], &request)? {
        return Ok(Exit::Done);
    }
    let mut end = Exit::Unreachable;
    for name in &asked {
        match desk.send(&client, view, name, &request).await {
            Delivery::Answered(HttpAnswer { status: 200, text, .. }) => {
                desk.result(&format!("Success: {text}"))?;
                return Ok(Exit::Done);
            }
            Delivery::Answered(HttpAnswer { status: 404, text, .. }) => {
                desk.trouble(&format!("Failed: {text}"), next_step(404, &text))?;
                return Ok(Exit::Failed);
            }
            Delivery::Answered(HttpAnswer { status, text, .. }) => {
                end = Exit::of_status(status);
                let line = format!("Failed: member={name}, status_code={status}, ({text})");
                desk.trouble(&line, next_step(status, &text))?;
            }
            Delivery::NotMade(why) | Delivery::Unknown(why) => {
                desk.warn(&why)?;
                desk.warn(&format!("Member {name} is not accessible"))?;
            }
        }
    }
    if end == Exit::Denied && !desk.is_patronictl() {
        // Whoever may not ask the members is not to go around them.
        return Ok(end);
    }
    desk.warn("Failing over to DCS")?;
    let line = format!("{} Could not find any accessible member of cluster {}", desk.moment(), desk.cluster);
    desk.trouble(&line, None)?;
    let is_written = desk.clear_failover(key.version).await?;
    if desk.is_patronictl() {
        // Whether it is written is not looked at there: there is no word for it in the output.
        return Ok(Exit::Done);
    }
    if !is_written {
        let error = CtlError::new("the request was changed in the DCS meanwhile");
        return Err(error.next("look at `list` and try again"));
    }
    desk.result("The scheduled switchover was removed from the DCS")?;
    Ok(Exit::Done)
}
