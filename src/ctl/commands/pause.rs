//! `pause`: maintenance mode, in which the members do nothing to PostgreSQL by themselves; and its end.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::HttpAnswer;
use crate::cluster::{ClusterView, Member, MemberName, Version};
use crate::ctl::advice::next_step;
use crate::ctl::commands::list::Mode;
use crate::ctl::delivery::{Delivery, Request, Verb};
use crate::ctl::desk::Desk;
use crate::ctl::plan::Pace;
use crate::ctl::{Context, CtlError, Exit};

use super::restart::quick_limit;

/// Arguments of `pause` and `resume`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct PauseArgs {
    /// Cluster; the configured scope by default
    #[arg(value_name = "CLUSTER_NAME")]
    pub cluster: Option<String>,
    /// Citus group
    #[arg(long, allow_negative_numbers = true)]
    pub group: Option<i64>,
    /// Wait until every member knows it
    #[arg(long)]
    pub wait: bool,
}

/// Runs it.
pub async fn run(context: &Context<'_>, args: &PauseArgs) -> Result<Exit, CtlError> {
    set_paused(context, args, true).await
}

/// The words of one direction.
fn words(is_wanted: bool) -> (&'static str, &'static str) {
    if is_wanted { ("pause", "paused") } else { ("resume", "resumed") }
}

/// What to request of whom, in order. Pure.
fn plan(view: &ClusterView, is_wanted: bool) -> Result<Vec<MemberName>, CtlError> {
    if Mode::of(view.config_document()).is_paused == is_wanted {
        let state = if is_wanted { "already paused" } else { "not paused" };
        return Err(CtlError::new(format!("Cluster is {state}")));
    }
    let has_api = |member: &&Member| member.api_url().is_some();
    let (mut first, others): (Vec<_>, Vec<_>) =
        view.members.iter().filter(has_api).map(|member| member.name.clone()).partition(|name| view.has_lock(name));
    first.extend(others);
    Ok(first)
}

pub(super) async fn set_paused(context: &Context<'_>, args: &PauseArgs, is_wanted: bool) -> Result<Exit, CtlError> {
    let cluster = context.cluster_name(args.cluster.as_deref())?;
    let desk = Desk::new(context, cluster, context.default_group(args.group))?;
    let view = desk.first_load().await?;
    let members = plan(&view, is_wanted)?;
    if desk.rehearses(&members[..members.len().min(1)], &request_of(&view, is_wanted))? {
        return Ok(Exit::Done);
    }
    let answer = ask_somebody(&desk, &view, &members, is_wanted).await?;
    let (word, done) = words(is_wanted);
    if answer.status != 200 {
        let HttpAnswer { status, text, .. } = &answer;
        let line = format!("Failed: {word} cluster management status code={status}, ({text})");
        desk.trouble(&line, next_step(*status, text))?;
        return Ok(Exit::of_status(*status));
    }
    if args.wait {
        desk.begin(&format!("{word} of cluster {}", desk.cluster));
        desk.say(&format!("'{word}' request sent, waiting until it is recognized by all nodes"))?;
        if let Some(late) = wait(&desk, &view, is_wanted).await? {
            let seconds = Pace::of(&view).loop_wait.as_secs();
            let line = format!("{late} members didn't recognized {word} state after {seconds} seconds");
            desk.trouble(&line, Some("they will when they next reach the DCS; see `list` and their logs"))?;
            return Ok(Exit::Partly);
        }
    }
    desk.result(&format!("Success: cluster management is {done}"))?;
    Ok(Exit::Done)
}

fn request_of(view: &ClusterView, is_wanted: bool) -> Request {
    let flag = if is_wanted { Value::Bool(true) } else { Value::Null };
    let body = Some(json!({ "pause": flag }));
    Request { verb: Verb::Patch, path: "/config", body, limit: quick_limit(view) }
}

/// Any member can change the configuration; the first one that answers does.
async fn ask_somebody(
    desk: &Desk<'_>,
    view: &ClusterView,
    members: &[MemberName],
    is_wanted: bool,
) -> Result<HttpAnswer, CtlError> {
    let client = desk.client()?;
    let request = request_of(view, is_wanted);
    for name in members {
        // A request whose answer was lost may be made of the next member: the change is the same.
        match desk.send(&client, view, name, &request).await {
            Delivery::Answered(answer) => return Ok(answer),
            Delivery::NotMade(why) | Delivery::Unknown(why) => {
                desk.warn(&why)?;
                desk.warn(&format!("Member {name} is not accessible"))?;
            }
        }
    }
    let error = CtlError::new("Can not find accessible cluster member").ending(Exit::Unreachable);
    let error =
        error.in_better_words(format!("no member of cluster {} could be asked; nothing was changed", desk.cluster));
    Err(error.next("see whether the agents run and their REST addresses can be reached from here"))
}

/// Waits a little longer than a period of the members' loop; who is late, if anybody.
async fn wait(desk: &Desk<'_>, before: &ClusterView, is_wanted: bool) -> Result<Option<String>, CtlError> {
    let has_api = |member: &&Member| member.api_url().is_some();
    let known: BTreeMap<&MemberName, Version> =
        before.members.iter().filter(has_api).map(|member| (&member.name, member.version)).collect();
    let deadline = tokio::time::Instant::now() + Pace::of(before).loop_wait + Duration::from_secs(1);
    let _progress = desk.progress("waiting for the members");
    loop {
        let view = desk.load().await?;
        let is_late = |member: &&Member| known.contains_key(&member.name) && member.is_paused() != is_wanted;
        let late: Vec<&Member> = view.members.iter().filter(is_late).collect();
        if late.is_empty() {
            return Ok(None);
        }
        if tokio::time::Instant::now() >= deadline {
            // A member that has written nothing since cannot know it yet; Patroni's tool does not count those.
            let counts = |member: &&Member| !desk.is_patronictl() || known[&member.name] != member.version;
            let names: Vec<&str> = late.into_iter().filter(counts).map(|member| member.name.as_str()).collect();
            return Ok((!names.is_empty()).then(|| names.join(", ")));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
