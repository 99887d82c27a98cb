//! `reinit`: throw a replica's data away and clone it anew.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::api::{Client, NodeStatus};
use crate::cluster::{ClusterView, MemberName};
use crate::ctl::delivery::{Delivery, Request};
use crate::ctl::desk::Desk;
use crate::ctl::plan::{Answer, Pace, Question};
use crate::ctl::targets::{self, RoleFilter, Wanted, listed};
use crate::ctl::{Context, CtlError, Exit};

use super::restart::{failed, quick_limit, unanswered};

/// From one look at the members that are being cloned to the next.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How many looks in a row may get no answer.
const MISSED_LOOKS: u32 = 5;

/// Arguments of `reinit`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ReinitArgs {
    /// Cluster
    #[arg(value_name = "CLUSTER_NAME", required = true)]
    pub cluster: String,
    /// These members
    #[arg(value_name = "MEMBER_NAMES")]
    pub members: Vec<String>,
    /// Citus group
    #[arg(long, allow_negative_numbers = true)]
    pub group: Option<i64>,
    /// Do not ask for confirmation at any point
    #[arg(long)]
    pub force: bool,
    /// Get basebackup from leader
    #[arg(long)]
    pub from_leader: bool,
    /// Wait until reinitialization completes
    #[arg(long)]
    pub wait: bool,
}

/// Runs it.
pub async fn run(context: &Context<'_>, args: &ReinitArgs) -> Result<Exit, CtlError> {
    let desk = Desk::new(context, &args.cluster, context.groups(args.group))?;
    let view = desk.first_load().await?;
    let wanted = Wanted {
        action: "reinitialize",
        must_name: true,
        is_strict: !desk.is_patronictl(),
        ..Wanted::of(desk.cluster, &args.members, RoleFilter::Replica)
    };
    targets::check_anybody(&view, &wanted).map_err(|no| no.refusal(&view))?;
    desk.table(&view)?;
    let is_agreed = desk.agreed(args.force);
    let members = desk.settle(|answers| targets::settle(&view, &wanted, is_agreed, answers)).await?;
    if desk.rehearses(&members, &request_of(args, args.force, &view))? {
        return Ok(Exit::Done);
    }
    let client = desk.client()?;
    let mut ends = Vec::new();
    let mut started = BTreeMap::new();
    for (index, name) in members.iter().enumerate() {
        desk.leave(&members[index + 1..]);
        let before = if args.wait && !desk.is_patronictl() { look(&client, &view, name).await.ok() } else { None };
        match start(&desk, &client, &view, name, args).await? {
            Started::Yes => drop(started.insert(name.clone(), Waiting::new(before.as_ref()))),
            Started::No(end) => ends.push(end),
            Started::Silent(silent) => {
                ends.extend(started.keys().map(|_| Exit::Done));
                let error = unanswered("reinitialize", name, silent, &members[index + 1..]);
                return Err(error.after(ends.into_iter().reduce(Exit::and)));
            }
        }
    }
    if args.wait {
        ends.extend(wait(&desk, &client, &view, started).await?);
    } else {
        ends.extend(started.keys().map(|_| Exit::Done));
    }
    Ok(Exit::of_all(ends))
}

fn request_of(args: &ReinitArgs, is_forced: bool, view: &ClusterView) -> Request {
    let mut body = Map::new();
    body.insert("force".to_owned(), is_forced.into());
    body.insert("from_leader".to_owned(), args.from_leader.into());
    Request::post("/reinitialize", body, quick_limit(view))
}

/// How the request to begin went.
enum Started {
    Yes,
    No(Exit),
    Silent(Delivery),
}

/// Asks one member to begin; asks the operator whether to cancel what it is doing, if that is in the way.
async fn start(
    desk: &Desk<'_>,
    client: &Client,
    view: &ClusterView,
    name: &MemberName,
    args: &ReinitArgs,
) -> Result<Started, CtlError> {
    let mut is_forced = args.force;
    loop {
        let answer = match desk.send(client, view, name, &request_of(args, is_forced, view)).await {
            Delivery::Answered(answer) => answer,
            silent => return Ok(Started::Silent(silent)),
        };
        if answer.is_success() {
            desk.result_of(name, &format!("Success: reinitialize for member {name}"))?;
            return Ok(Started::Yes);
        }
        let end = failed(desk, "reinitialize", name, &answer)?;
        if desk.agreed(is_forced) || !answer.text.ends_with(" already in progress") {
            return Ok(Started::No(end));
        }
        let question = Question::Confirm { text: "Do you want to cancel it and reinitialize anyway?".to_owned() };
        if desk.ask(&question).await? != Answer::Confirm(true) {
            return Ok(Started::No(end));
        }
        is_forced = true;
    }
}

/// A member whose clone is awaited.
struct Waiting {
    /// When its postmaster was started before; it is another one afterwards.
    old_start: Option<Value>,
    /// Since when it has been doing something else than copying.
    idle_since: Instant,
    /// Looks in a row that got no answer.
    missed: u32,
}

impl Waiting {
    fn new(before: Option<&NodeStatus>) -> Self {
        let old_start = before.and_then(|status| status.data.get("postmaster_start_time")).cloned();
        Self { old_start, idle_since: Instant::now(), missed: 0 }
    }

    /// Patroni's tool takes every state but copying for the end, a clone that failed or has not begun included. We
    /// wait for a running server that is not the old one.
    fn is_over(&mut self, status: &NodeStatus, is_patronictl: bool) -> bool {
        let is_copying = status.state == "creating replica";
        if is_copying {
            self.idle_since = Instant::now();
        }
        if is_patronictl {
            return !is_copying;
        }
        let start = status.data.get("postmaster_start_time").filter(|start| !start.is_null());
        status.state == "running" && start.is_some() && start != self.old_start.as_ref()
    }
}

async fn look(client: &Client, view: &ClusterView, name: &MemberName) -> Result<NodeStatus, String> {
    let api_url = view.member(name).and_then(|member| member.api_url()).ok_or("no address is known")?;
    client.node_status(api_url).await.map_err(|error| error.to_string())
}

/// Waits for the clones. Copying may take as long as it takes; everything else has a limit.
async fn wait(
    desk: &Desk<'_>,
    client: &Client,
    view: &ClusterView,
    mut waiting: BTreeMap<MemberName, Waiting>,
) -> Result<Vec<Exit>, CtlError> {
    let mut ends = Vec::new();
    let mut told = Vec::new();
    let patience = Pace::of(view).start_timeout + Duration::from_secs(60);
    let progress = desk.progress("waiting");
    while !waiting.is_empty() {
        let names: Vec<MemberName> = waiting.keys().cloned().collect();
        if names != told {
            desk.say(&format!("Waiting for reinitialize to complete on: {}", listed(&names)))?;
            desk.begin(&format!("reinitialization of {}", listed(&names)));
            told.clone_from(&names);
        }
        progress.set(&format!("waiting for {}", listed(&names)));
        tokio::time::sleep(LOOK_INTERVAL).await;
        for name in names {
            let Some(member) = waiting.get_mut(&name) else { continue };
            let state = match look(client, view, &name).await {
                Ok(status) if member.is_over(&status, desk.is_patronictl()) => {
                    desk.result_of(&name, &format!("Reinitialize is completed on: {name}"))?;
                    waiting.remove(&name);
                    desk.ended(&format!("reinitialization of {name}"));
                    ends.push(Exit::Done);
                    continue;
                }
                Ok(status) => {
                    member.missed = 0;
                    progress.set(&format!("{name}: {}", status.state));
                    format!("its state has been {} for too long", status.state)
                }
                Err(why) => {
                    member.missed += 1;
                    why
                }
            };
            if member.missed >= MISSED_LOOKS || member.idle_since.elapsed() > patience {
                waiting.remove(&name);
                ends.push(Exit::Unknown);
                let line = format!("Failed: reinitialize for member {name} cannot be waited for: {state}");
                desk.trouble_of(&name, Exit::Unknown, &line, Some("see `list`, and the log of its agent"))?;
            }
        }
    }
    Ok(ends)
}
