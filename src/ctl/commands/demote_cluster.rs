//! `demote-cluster`: let a whole cluster follow another one; and its way back, [`super::promote_cluster`].

use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::cluster::{ClusterView, MemberName, Role};
use crate::ctl::advice::next_step;
use crate::ctl::delivery::{Delivery, Request, Verb};
use crate::ctl::desk::Desk;
use crate::ctl::plan::{Answers, Pace, Refusal, Stop};
use crate::ctl::{Context, CtlError, Exit};

use super::restart::quick_limit;

/// From one look at the cluster to the next.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Arguments of `demote-cluster`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct DemoteClusterArgs {
    /// Cluster; the configured scope by default
    #[arg(value_name = "CLUSTER_NAME")]
    pub cluster: Option<String>,
    /// Do not ask for confirmation at any point
    #[arg(long)]
    pub force: bool,
    /// Address of the remote node
    #[arg(long, value_name = "TEXT")]
    pub host: Option<String>,
    /// Port of the remote node
    #[arg(long, value_name = "INTEGER", allow_negative_numbers = true)]
    pub port: Option<i64>,
    /// Command to restore WAL records from the remote primary
    #[arg(long, value_name = "TEXT")]
    pub restore_command: Option<String>,
    /// Name of the slot on the remote node to use for replication
    #[arg(long, value_name = "TEXT")]
    pub primary_slot_name: Option<String>,
}

/// Runs it.
pub async fn run(context: &Context<'_>, args: &DemoteClusterArgs) -> Result<Exit, CtlError> {
    let section = section(args)?;
    change(context, args.cluster.as_deref(), args.force, &DEMOTE, section).await
}

/// The `standby_cluster` section that the options describe.
fn section(args: &DemoteClusterArgs) -> Result<Value, CtlError> {
    let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty()).map(Value::from);
    let port = args.port.filter(|port| *port != 0).map(Value::from);
    let given = [
        ("host", text(&args.host)),
        ("port", port),
        ("primary_slot_name", text(&args.primary_slot_name)),
        ("restore_command", text(&args.restore_command)),
    ];
    let section: Map<String, Value> =
        given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    if !["host", "port", "restore_command"].iter().any(|name| section.contains_key(*name)) {
        return Err(CtlError::usage("At least --host, --port or --restore-command should be specified"));
    }
    Ok(Value::Object(section))
}

/// One direction.
pub(super) struct Direction {
    verb: &'static str,
    done: &'static str,
    noun: &'static str,
    /// The leader's role in the end.
    role: Role,
    /// The former leader has to be back as well.
    waits_for_former: bool,
}

const DEMOTE: Direction =
    Direction { verb: "demote", done: "demoted", noun: "demotion", role: Role::StandbyLeader, waits_for_former: true };

pub(super) const PROMOTE: Direction =
    Direction { verb: "promote", done: "promoted", noun: "promotion", role: Role::Primary, waits_for_former: false };

/// The leader to ask, if there is anything to do. Pure.
fn leader_of(view: &ClusterView, direction: &Direction) -> Result<MemberName, Refusal> {
    let Some(leader) = view.leader_name() else {
        let refusal = Refusal::new(format!("Cluster has no leader, {} is not possible", direction.noun));
        return Err(refusal.advise("look at `list`, and at the logs of its members"));
    };
    let role = view.leader_member().and_then(|member| member.role());
    if role == Some(direction.role) {
        let better = match direction.role {
            Role::StandbyLeader => "the cluster follows another one already",
            _ => "the cluster follows no other one: there is nothing to promote",
        };
        return Err(Refusal::new("Cluster is already in the required state").in_better_words(better));
    }
    Ok(leader.clone())
}

fn confirm(answers: &mut Answers<'_>, cluster: &str, is_forced: bool, direction: &Direction) -> Result<(), Stop> {
    if is_forced {
        return Ok(());
    }
    let text = format!("Are you sure you want to {} {cluster} cluster?", direction.verb);
    answers.confirm(text, &format!("Aborted cluster {}", direction.noun))
}

pub(super) async fn change(
    context: &Context<'_>,
    cluster: Option<&str>,
    is_forced: bool,
    direction: &Direction,
    section: Value,
) -> Result<Exit, CtlError> {
    let cluster = context.cluster_name(cluster)?;
    let desk = Desk::new(context, cluster, context.default_group(None))?;
    let view = desk.first_load().await?;
    let leader = leader_of(&view, direction)?;
    desk.say("Current cluster topology")?;
    desk.table(&view)?;
    let is_agreed = desk.agreed(is_forced);
    desk.settle(|answers| confirm(answers, cluster, is_agreed, direction)).await?;
    let made = request_of(&view, section);
    if desk.rehearses(std::slice::from_ref(&leader), &made)? {
        return Ok(Exit::Done);
    }
    request(&desk, &view, &leader, direction, &made).await?;
    desk.begin(&format!("{} of cluster {cluster}", direction.noun));
    let after = wait(&desk, &view, &leader, direction).await?;
    desk.result(&stamped(&desk, &format!("cluster is successfully {}", direction.done)))?;
    desk.table(&after)?;
    Ok(Exit::Done)
}

fn request_of(view: &ClusterView, section: Value) -> Request {
    let body = Some(json!({ "standby_cluster": section }));
    Request { verb: Verb::Patch, path: "/config", body, limit: quick_limit(view) }
}

/// The leader changes the configuration; nobody else is asked, because a leader that cannot be reached could not be
/// waited for either.
async fn request(
    desk: &Desk<'_>,
    view: &ClusterView,
    leader: &MemberName,
    direction: &Direction,
    request: &Request,
) -> Result<(), CtlError> {
    let what = format!("Failed to {} {} cluster", direction.verb, desk.cluster);
    let answer = match desk.send(&desk.client()?, view, leader, request).await {
        Delivery::Answered(answer) if answer.status == 200 => return Ok(()),
        Delivery::Answered(answer) => answer,
        Delivery::NotMade(why) => {
            let error = CtlError::new(format!("{what}: {why}")).ending(Exit::Unreachable);
            return Err(error.next("see whether the leader's agent runs and its REST address can be reached from here"));
        }
        Delivery::Unknown(why) => {
            let error = CtlError::new(format!("{what}: {why}")).ending(Exit::Unknown);
            return Err(error.next("look at `show-config`: the change may have been made"));
        }
    };
    let why = format!("/config PATCH status code={}, ({})", answer.status, answer.text);
    let error = CtlError::new(format!("{what}: {what}: {why}"))
        .in_better_words(format!("{what}: {why}"))
        .ending(Exit::of_status(answer.status));
    Err(match next_step(answer.status, &answer.text) {
        Some(next) => error.next(next),
        None => error,
    })
}

/// Looks until the cluster is what it should be. Patroni's tool waits for ever.
async fn wait(
    desk: &Desk<'_>,
    before: &ClusterView,
    former: &MemberName,
    direction: &Direction,
) -> Result<ClusterView, CtlError> {
    let pace = Pace::of(before);
    let deadline = Instant::now() + pace.start_timeout + 2 * pace.ttl;
    let mut told = String::new();
    let spinner = desk.progress(&format!("waiting for the {}", direction.noun));
    loop {
        let view = desk.load().await?;
        if is_done(&view, former, direction) {
            return Ok(view);
        }
        let line = progress(&view, former, direction);
        spinner.set(&line);
        if desk.is_patronictl() || line != told {
            desk.say(&stamped(desk, &line))?;
        }
        if !desk.is_patronictl() && Instant::now() >= deadline {
            let error =
                CtlError::new(format!("The configuration is changed, but the {} takes too long", direction.noun))
                    .ending(Exit::Unknown);
            return Err(error.next("look at `list` and at the leader's log; it goes on by itself"));
        }
        told = line;
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn is_done(view: &ClusterView, former: &MemberName, direction: &Direction) -> bool {
    let is_running = |name: &MemberName| view.member(name).is_some_and(|member| member.is_running());
    let leads = view.leader_member().is_some_and(|leader| leader.role() == Some(direction.role) && leader.is_running());
    leads && (!direction.waits_for_former || is_running(former))
}

fn progress(view: &ClusterView, former: &MemberName, direction: &Direction) -> String {
    let leader = view.leader_member();
    let text = |key: &str| leader.as_ref().and_then(|member| member.data.get(key)?.as_str()).unwrap_or("None");
    let unlocked = if view.is_unlocked() { "True" } else { "False" };
    let mut line =
        format!("cluster is unlocked: {unlocked}, leader role: {}, leader state: {}", text("role"), text("state"));
    if direction.waits_for_former && view.leader_name().is_some_and(|leader| leader != former) {
        let state = view.member(former).and_then(|member| member.data.get("state")?.as_str());
        let state = state.map_or_else(|| "None".to_owned(), |state| format!("'{state}'"));
        line += &format!(", previous leader state: {state}");
    }
    line
}

fn stamped(desk: &Desk<'_>, text: &str) -> String {
    format!("{} {text}", desk.now().strftime("%Y-%m-%d %H:%M:%S"))
}
