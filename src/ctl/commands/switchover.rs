//! `switchover`: hand the leadership over, now or later; and what `failover` shares with it.

use std::time::Duration;

use crate::api::{Client, HttpAnswer};
use crate::cluster::ClusterView;
use crate::ctl::advice::next_step;
use crate::ctl::context::Groups;
use crate::ctl::delivery::{Delivery, Request};
use crate::ctl::desk::Desk;
use crate::ctl::handover::{self, Asked, Handover, Kind};
use crate::ctl::plan::{Answer, Pace, Question};
use crate::ctl::{Context, CtlError, Exit};

/// Arguments of `switchover`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SwitchoverArgs {
    /// Cluster; the configured scope by default
    #[arg(value_name = "CLUSTER_NAME")]
    pub cluster: Option<String>,
    /// Citus group
    #[arg(long, allow_negative_numbers = true)]
    pub group: Option<i64>,
    /// The name of the current leader
    #[arg(long, visible_alias = "primary", value_name = "NAME")]
    pub leader: Option<String>,
    /// The name of the candidate
    #[arg(long, value_name = "NAME")]
    pub candidate: Option<String>,
    /// Timestamp of a scheduled switchover in unambiguous format (e.g. ISO 8601)
    #[arg(long, value_name = "TIME")]
    pub scheduled: Option<String>,
    /// Do not ask for confirmation at any point
    #[arg(long)]
    pub force: bool,
}

/// Runs it.
pub async fn run(context: &Context<'_>, args: &SwitchoverArgs) -> Result<Exit, CtlError> {
    let asked =
        Asked { leader: args.leader.clone(), candidate: args.candidate.clone(), scheduled: args.scheduled.clone() };
    let cluster = context.cluster_name(args.cluster.as_deref())?;
    hand_over(context, Desk::new(context, cluster, context.groups(args.group))?, Kind::Switchover, asked, args.force)
        .await
}

/// Asks, requests, and tells how it went.
pub(super) async fn hand_over(
    context: &Context<'_>,
    mut desk: Desk<'_>,
    kind: Kind,
    asked: Asked,
    is_forced: bool,
) -> Result<Exit, CtlError> {
    let mut view = desk.first_load().await?;
    desk.say("Current cluster topology")?;
    desk.table(&view)?;
    if desk.groups() == Groups::All {
        if context.agreed(is_forced) {
            return Err(CtlError::usage("For Citus clusters the --group must me specified"));
        }
        let group = context.ui.prompt_integer("Citus group").await?;
        desk = Desk::new(context, desk.cluster, Groups::One(group))?;
        view = desk.load().await?;
    }
    let now = desk.now();
    let scene = desk.scene(&view, &now, is_forced);
    let plan = desk.settle(|answers| handover::plan(&scene, kind, &asked, answers)).await?;
    if let Some(warning) = &plan.warning {
        desk.warn(warning)?;
    }
    if desk.rehearses(std::slice::from_ref(&plan.addressee), &made_of(&view, &plan))? {
        return Ok(Exit::Done);
    }
    match request(&desk, &desk.client()?, &view, &plan).await {
        Delivery::Answered(answer) if matches!(answer.status, 200 | 202) => {
            let end = accepted(&desk, &plan, &answer).await?;
            let is_over = end == Exit::Done && plan.scheduled.is_none();
            if is_over && desk.waits() { desk.until_whole(&view).await } else { Ok(end) }
        }
        Delivery::Answered(answer) => refused(&desk, kind, &answer),
        Delivery::NotMade(why) => fall_back(&desk, &view, &plan, &why, is_forced).await,
        Delivery::Unknown(why) => {
            let seen = desk.load().await?;
            if plan.is_known_to(&seen) {
                return lost_answer(&desk, &plan, &seen, &why);
            }
            fall_back(&desk, &view, &plan, &why, is_forced).await
        }
    }
}

fn made_of(view: &ClusterView, plan: &Handover) -> Request {
    let path = match plan.kind {
        Kind::Switchover => "/switchover",
        Kind::Failover => "/failover",
    };
    Request::post(path, plan.body(), handover::answer_limit(Pace::of(view)))
}

async fn request(desk: &Desk<'_>, client: &Client, view: &ClusterView, plan: &Handover) -> Delivery {
    let made = made_of(view, plan);
    let delivery = desk.send(client, view, &plan.addressee, &made).await;
    match &delivery {
        // Very old agents know only the other path.
        Delivery::Answered(answer)
            if answer.status == 501 && answer.text.contains("Server does not support this operation") =>
        {
            desk.send(client, view, &plan.addressee, &Request { path: "/failover", ..made }).await
        }
        _ => delivery,
    }
}

/// The request was accepted, and must not be repeated whatever happens from here on.
async fn accepted(desk: &Desk<'_>, plan: &Handover, answer: &HttpAnswer) -> Result<Exit, CtlError> {
    let after = desk.load().await;
    desk.result(&format!("{} {}", desk.moment(), answer.text))?;
    match after {
        Ok(view) => desk.table(&view)?,
        Err(error) => desk.warn(&format!("{error}, so how it looks now cannot be shown"))?,
    }
    let is_as_asked = plan.candidate.as_deref().is_none_or(str::is_empty) || !answer.text.contains("\" instead of \"");
    Ok(if is_as_asked { Exit::Done } else { Exit::Failed })
}

fn refused(desk: &Desk<'_>, kind: Kind, answer: &HttpAnswer) -> Result<Exit, CtlError> {
    let HttpAnswer { status, text, .. } = answer;
    if desk.is_patronictl() {
        desk.result(&format!("{} failed, details: {status}, {text}", kind.title()))?;
        return Ok(Exit::Failed);
    }
    let (how, end) = match text.to_lowercase().contains("status unknown") {
        true => ("result unknown", Exit::Unknown),
        false => ("failed", Exit::of_status(*status)),
    };
    let error = CtlError::new(format!("{} {how}, details: {status}, {text}", kind.title())).ending(end);
    Err(match next_step(*status, text) {
        Some(next) => error.next(next),
        None => error,
    })
}

/// The answer got lost, but the cluster has the request, or has already done it.
fn lost_answer(desk: &Desk<'_>, plan: &Handover, seen: &ClusterView, why: &str) -> Result<Exit, CtlError> {
    desk.warn(&format!("{} took the request, but its answer did not arrive: {why}", plan.addressee))?;
    let has_moved = seen.leader_name().map(|name| name.as_str()) != plan.leader.as_deref();
    if let (true, Some(leader)) = (has_moved, seen.leader_name()) {
        desk.result(&format!("{} The leader is now \"{leader}\"", desk.moment()))?;
    } else {
        desk.result(&format!("{} The request is in the DCS", desk.moment()))?;
    }
    desk.table(seen)?;
    Ok(if has_moved || plan.scheduled.is_some() { Exit::Done } else { Exit::Unknown })
}

/// No member can be asked: put the request where the members will find it.
async fn fall_back(
    desk: &Desk<'_>,
    view: &ClusterView,
    plan: &Handover,
    why: &str,
    is_forced: bool,
) -> Result<Exit, CtlError> {
    let word = plan.kind.word();
    let could_not = format!("Could not {word} using Patroni api, falling back to DCS");
    if desk.is_patronictl() {
        desk.warn(&format!("Member {} is not accessible: {why}", plan.addressee))?;
        desk.warn("Failing over to DCS")?;
        desk.result(&format!("{} {could_not}", desk.moment()))?;
        // Whether it is written is not looked at there either: there is no word for it in the output.
        let _ = desk.write_failover(&plan.key()).await?;
        desk.table(view)?;
        return Ok(Exit::Done);
    }
    desk.warn(&format!("{} cannot be asked: {why}", plan.addressee))?;
    let question = format!("Write the request for the {word} into the DCS instead?");
    if !desk.agreed(is_forced) && desk.ask(&Question::Confirm { text: question }).await? != Answer::Confirm(true) {
        return Err(CtlError::new(format!("Aborting {word}")));
    }
    desk.say(&format!("{} {could_not}", desk.moment()))?;
    if !desk.write_failover(&plan.key()).await? {
        let error = CtlError::new(format!("the request for the {word} could not be written into the DCS"));
        return Err(error.next("look at `list` and try again"));
    }
    if plan.scheduled.is_some() {
        desk.result(&format!("{} The request is in the DCS", desk.moment()))?;
        desk.table(&desk.load().await?)?;
        return Ok(Exit::Done);
    }
    watch_request(desk, view, plan).await
}

/// Waits for the members to act on a request in the DCS.
async fn watch_request(desk: &Desk<'_>, before: &ClusterView, plan: &Handover) -> Result<Exit, CtlError> {
    let word = plan.kind.word();
    let limit = handover::pickup_limit(Pace::of(before));
    desk.say(&format!("waiting up to {} s for the members to act on it", limit.as_secs()))?;
    let deadline = tokio::time::Instant::now() + limit;
    let _progress = desk.progress(&format!("waiting for the {word}"));
    loop {
        let seen = desk.load().await?;
        if let Some(leader) = seen.leader_name().filter(|leader| Some(leader.as_str()) != plan.leader.as_deref()) {
            desk.result(&format!("{} The leader is now \"{leader}\"", desk.moment()))?;
            desk.table(&seen)?;
            let is_as_asked = plan.candidate.as_deref().is_none_or(|name| name.is_empty() || *leader == name);
            return Ok(if is_as_asked { Exit::Done } else { Exit::Failed });
        }
        if seen.failover_request().is_none() {
            let error = CtlError::new(format!("the members took the request for the {word} away without doing it"));
            return Err(error.next("the leader's log says why"));
        }
        if tokio::time::Instant::now() >= deadline {
            let error = CtlError::new(format!("nobody has acted on the request for the {word} yet"));
            let error = error.ending(Exit::Unknown);
            return Err(error.next("it stays in the DCS: look at `list`, or write another one over it"));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
