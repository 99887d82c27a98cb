//! `list`: the members of one or more clusters; and the view of a cluster that other commands show as well.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::cluster::tags::{as_boolish, as_integer, is_truthy};
use crate::cluster::{ClusterView, Lag, Lsn, Member, MemberName};
use crate::ctl::context::Groups;
use crate::ctl::documents::{KnownFrom, MissingMember, Sync};
use crate::ctl::known::Known;
use crate::ctl::render::{Format, members};
use crate::ctl::report::report;
use crate::ctl::ui::Tone;
use crate::ctl::without_dcs::{self, Source};
use crate::ctl::{Context, CtlError, ErrorKind, Exit, pager};

/// Arguments of `list`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ListArgs {
    /// Clusters; the configured scope by default
    #[arg(value_name = "CLUSTER_NAMES")]
    pub clusters: Vec<String>,
    /// Citus group
    #[arg(long, allow_negative_numbers = true)]
    pub group: Option<i64>,
    /// Show some extra information
    #[arg(short = 'e', long)]
    pub extended: bool,
    /// Print a timestamp first
    #[arg(short = 't', long)]
    pub timestamp: bool,
    /// Output format
    #[arg(short = 'f', long, value_enum, hide_default_value = true, default_value_t)]
    pub format: Format,
    /// Show again every 2 seconds
    #[arg(short = 'W')]
    pub every_two_seconds: bool,
    /// Show again every so many seconds
    #[arg(short = 'w', long, value_name = "SECONDS", allow_negative_numbers = true)]
    pub watch: Option<f64>,
}

/// Runs it.
pub async fn run(context: &Context<'_>, args: &ListArgs) -> Result<Exit, CtlError> {
    let wanted = Wanted {
        clusters: &args.clusters,
        group: args.group,
        is_extended: args.extended,
        has_timestamp: args.timestamp,
        shape: members::Shape { format: args.format, is_tree: false },
        period: period(args.every_two_seconds, args.watch),
    };
    show(context, &wanted).await
}

/// `-W` and `-w`: how long from one round to the next, if there is one.
pub fn period(every_two_seconds: bool, watch: Option<f64>) -> Option<Duration> {
    let seconds = watch.filter(|seconds| *seconds != 0.0).or(every_two_seconds.then_some(2.0))?;
    // A negative or absurd number means as fast, or as slow, as can be.
    Some(Duration::try_from_secs_f64(seconds).unwrap_or(if seconds < 0.0 { Duration::ZERO } else { Duration::MAX }))
}

/// What `list` and `topology` have in common.
pub struct Wanted<'a> {
    /// Cluster names as given.
    pub clusters: &'a [String],
    /// `--group`.
    pub group: Option<i64>,
    /// All columns.
    pub is_extended: bool,
    /// A line with the time before each round.
    pub has_timestamp: bool,
    /// Format and order.
    pub shape: members::Shape,
    /// Show again after so long.
    pub period: Option<Duration>,
}

/// Shows the clusters once or over and over.
pub async fn show(context: &Context<'_>, wanted: &Wanted<'_>) -> Result<Exit, CtlError> {
    let scope = context.settings.scope.clone();
    let clusters: Vec<String> =
        if wanted.clusters.is_empty() { scope.into_iter().collect() } else { wanted.clusters.to_vec() };
    // Ours shows all clusters of the namespace then.
    if clusters.is_empty() && context.personality().is_patronictl() {
        context.ui.warn("Listing members: No cluster names were provided")?;
        return Ok(Exit::Done);
    }
    let Some(period) = wanted.period else { return round(context, wanted, &clusters).await };
    context.ui.clear_screen()?;
    let _ = round(context, wanted, &clusters).await?;
    let mut next = tokio::time::Instant::now() + period;
    loop {
        tokio::time::sleep_until(next).await;
        context.ui.clear_screen()?;
        match round(context, wanted, &clusters).await {
            Ok(_) => {}
            // What has worked once may work again: ours goes on watching.
            Err(error) if matches!(error.kind, ErrorKind::End(_)) && !context.personality().is_patronictl() => {
                report(context.ui, &error);
            }
            Err(error) => return Err(error),
        }
        next += period;
    }
}

async fn round(context: &Context<'_>, wanted: &Wanted<'_>, clusters: &[String]) -> Result<Exit, CtlError> {
    let ui = context.ui;
    let mut views = Vec::new();
    let mut is_first = true;
    let groups = context.groups(wanted.group);
    let mut at_once = if clusters.is_empty() || clusters.len() > FEW {
        look_at_many(context, clusters, groups, wanted.is_extended).await?.into_iter()
    } else {
        Vec::new().into_iter()
    };
    let mut names = clusters.iter();
    loop {
        let mut view = match (at_once.next(), names.next()) {
            (Some(view), _) => view,
            (None, Some(name)) => look(context, name, groups, wanted.is_extended).await?,
            (None, None) => break,
        };
        view.show_only(context.own.role, &context.own.members);
        if is_first && wanted.has_timestamp {
            if context.personality().is_patronictl() { ui.data(&ui.now_text())? } else { ui.say(&ui.now_text())? }
        }
        is_first = false;
        if context.personality().is_patronictl() {
            ui.data(&members::as_patronictl(&view, wanted.shape))?;
        } else {
            views.push(view);
        }
    }
    if context.personality().is_patronictl() {
        return Ok(Exit::Done);
    }
    let text = members::as_pgherdctl(&views, wanted.shape, ui.look());
    if wanted.period.is_some() {
        ui.data(&text)?
    } else {
        pager::data(context, &text)?
    }
    for remark in views.iter().filter_map(|view| view.source.remark(&view.cluster)) {
        ui.warn(&remark)?;
    }
    let end = judge(context, &views)?;
    let unknown: Vec<&str> = views.iter().filter(|view| view.is_unknown).map(|view| view.cluster.as_str()).collect();
    if unknown.is_empty() {
        return Ok(end);
    }
    let prefix = format!("/{}/", context.settings.namespace.trim_matches('/'));
    ui.warn(&format!("nothing is known of {} below {prefix}: check the name and the namespace", unknown.join(", ")))?;
    for name in unknown {
        if let Some(suggestion) = context.suggest_cluster(name).await {
            ui.complain(&format!("{} {name}: {suggestion}", ui.paint(Tone::Hint, "next:")))?;
        }
    }
    Ok(Exit::NotFound)
}

/// Up to so many clusters are read one by one, more of them with all others of the namespace.
const FEW: usize = 16;

/// Reads clusters, all of the namespace unless some are named, at one moment.
async fn look_at_many(
    context: &Context<'_>,
    names: &[String],
    groups: Groups,
    is_extended: bool,
) -> Result<Vec<MembersView>, CtlError> {
    let all = context.load_all(groups).await?;
    if !names.is_empty() {
        let unknown = ClusterView::default();
        let one = |name: &String| view(name, groups, all.get(name).unwrap_or(&unknown), is_extended);
        return Ok(names.iter().map(one).collect());
    }
    if all.is_empty() {
        return Err(context.no_cluster());
    }
    let (known, strange): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, one)| *one != ClusterView::default());
    if !strange.is_empty() {
        let names: Vec<&str> = strange.iter().map(|(name, _)| name.as_str()).collect();
        context.ui.warn(&format!("not shown, because they have other keys (Citus?): {}", names.join(", ")))?;
    }
    Ok(known.iter().map(|(name, one)| view(name, groups, one, is_extended)).collect())
}

/// What `--member` and `--check` find wrong.
fn judge(context: &Context<'_>, views: &[MembersView]) -> Result<Exit, CtlError> {
    let mut end = Exit::Done;
    let is_there = |name: &&String| views.iter().flat_map(MembersView::rows).any(|row| row.name == **name);
    for name in context.own.members.iter().filter(|name| !is_there(name)) {
        context.ui.complain(&format!(
            "{} no cluster shown here has a member {name}",
            context.ui.paint(Tone::Bad, "error:")
        ))?;
        end = Exit::NotFound;
    }
    if !context.own.check {
        return Ok(end);
    }
    for view in views {
        for problem in view.problems() {
            let problem = format!("cluster {}: {problem}", view.cluster);
            context.ui.complain(&format!("{} {problem}", context.ui.paint(Tone::Bad, "error:")))?;
            end = if end == Exit::NotFound { end } else { Exit::Failed };
        }
    }
    Ok(end)
}

/// Reads a cluster; where the DCS does not answer, from its members.
async fn look(context: &Context<'_>, name: &str, groups: Groups, is_extended: bool) -> Result<MembersView, CtlError> {
    let read = async || Ok(view(name, groups, &context.load(name, groups).await?, is_extended));
    if context.personality().is_patronictl() {
        return read().await;
    }
    let known = Known::new(context.environment, &context.settings, name);
    let mut view = without_dcs::or_from_members(context, &known, (name, groups, is_extended), read()).await?;
    if view.source == Source::Dcs {
        known.compare(&mut view, context.ui.now().timestamp());
    }
    Ok(view)
}

/// Shows the members of a cluster that has been read, as the commands do that are about to change it.
pub fn show_members(context: &Context<'_>, name: &str, groups: Groups, cluster: &ClusterView) -> Result<(), CtlError> {
    let view = view(name, groups, cluster, false);
    let shape = members::Shape { format: Format::Pretty, is_tree: false };
    if context.personality().is_patronictl() {
        context.ui.data(&members::as_patronictl(&view, shape))
    } else {
        // Beside the data, so in the colours of the messages.
        context.ui.say(&members::as_pgherdctl(&[view], shape, context.ui.look_beside()))
    }
}

/// A cluster as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct MembersView {
    /// Its name, as given.
    pub cluster: String,
    /// What was read.
    pub groups: Groups,
    /// Show every column.
    pub is_extended: bool,
    /// Nothing was found in the DCS.
    pub is_unknown: bool,
    /// Who says so.
    pub source: Source,
    /// One part, or one per Citus group in order.
    pub parts: Vec<Part>,
}

/// One cluster, or one group of a Citus cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Citus group; 0 for an ordinary cluster.
    pub group: i64,
    /// The `initialize` key.
    pub initialize: Option<String>,
    /// Flags of the dynamic configuration.
    pub mode: Mode,
    /// Who leads, members without a member key included.
    pub leader: Option<String>,
    /// A switchover to come.
    pub switchover: Option<Switchover>,
    /// A member further behind than this is no candidate (`maximum_lag_on_failover`).
    pub lag_limit: u64,
    /// Who holds every confirmed commit.
    pub sync: Option<Sync>,
    /// Members by name.
    pub rows: Vec<Row>,
    /// Members that should be there.
    pub missing: Vec<MissingMember>,
}

/// A switchover to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switchover {
    /// When, as stored.
    pub at: String,
    /// From which leader.
    pub from: Option<String>,
    /// To which member.
    pub to: Option<String>,
}

/// What the dynamic configuration says about the whole cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mode {
    /// Maintenance mode.
    pub is_paused: bool,
    /// Synchronous replication.
    pub is_synchronous: bool,
    /// Synchronous replication by quorum.
    pub is_quorum: bool,
    /// The whole cluster follows another one.
    pub is_standby_cluster: bool,
}

impl Mode {
    /// Reads the flags of a dynamic configuration.
    pub fn of(document: Option<&Map<String, Value>>) -> Self {
        let get = |key: &str| document.and_then(|document| document.get(key));
        let on = |key: &str| get(key).and_then(as_boolish).unwrap_or(false);
        let is_quorum = get("synchronous_mode").and_then(Value::as_str).is_some_and(|t| t.to_lowercase() == "quorum");
        let is_standby_cluster = get("standby_cluster").and_then(Value::as_object).is_some_and(|section| {
            ["host", "port", "restore_command"].iter().any(|key| section.get(*key).is_some_and(is_truthy))
        });
        let is_synchronous = (on("synchronous_mode") || is_quorum) && !is_standby_cluster;
        Self { is_paused: on("pause"), is_synchronous, is_quorum: is_quorum && is_synchronous, is_standby_cluster }
    }
}

/// A member's role as operators see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ShownRole {
    /// Holds the leader key.
    Leader,
    /// Holds it in a standby cluster.
    StandbyLeader,
    /// Named in `/sync`.
    SyncStandby,
    /// Named in `/sync`, with quorum commit.
    QuorumStandby,
    /// Everybody else.
    Replica,
}

impl ShownRole {
    /// patronictl's words.
    pub fn title(self) -> &'static str {
        match self {
            Self::Leader => "Leader",
            Self::StandbyLeader => "Standby Leader",
            Self::SyncStandby => "Sync Standby",
            Self::QuorumStandby => "Quorum Standby",
            Self::Replica => "Replica",
        }
    }

    /// The word in our documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::StandbyLeader => "standby_leader",
            Self::SyncStandby => "sync_standby",
            Self::QuorumStandby => "quorum_standby",
            Self::Replica => "replica",
        }
    }

    /// Holds the leader key.
    pub fn is_leader(self) -> bool {
        matches!(self, Self::Leader | Self::StandbyLeader)
    }
}

/// A position and how far it is behind the leader's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The position; `None` is unknown.
    pub lsn: Option<Lsn>,
    /// The distance.
    pub lag: Lag,
}

/// One member.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Name.
    pub name: String,
    /// Whether it is among those that were asked for.
    pub is_shown: bool,
    /// Host and port of its PostgreSQL.
    pub address: Option<(String, u16)>,
    /// REST address.
    pub api_url: Option<String>,
    /// Role.
    pub role: ShownRole,
    /// State, or replication state of a standby; empty when neither is known.
    pub state: String,
    /// Timeline as published.
    pub timeline: Option<Value>,
    /// Received and replayed positions; none for the leader.
    pub positions: Option<(Position, Position)>,
    /// Waits for a restart.
    pub is_pending_restart: bool,
    /// Why: parameter, old and new value.
    pub pending_reasons: Vec<(String, String, String)>,
    /// A restart to come: when, and below which version only.
    pub scheduled_restart: Option<(String, Option<String>)>,
    /// Tags, if published.
    pub tags: Option<Map<String, Value>>,
}

impl Row {
    /// The tag `replicatefrom`.
    pub fn upstream(&self) -> Option<&str> {
        self.tags.as_ref()?.get("replicatefrom")?.as_str().filter(|name| !name.is_empty())
    }
}

/// What is shown of a cluster. Pure.
pub fn view(name: &str, groups: Groups, cluster: &ClusterView, is_extended: bool) -> MembersView {
    let own = if let Groups::One(group) = groups { group } else { 0 };
    let mut parts = vec![part(own, cluster)];
    if groups == Groups::All {
        parts.extend(cluster.workers.iter().map(|(group, worker)| part(i64::from(*group), worker)));
        parts.sort_by_key(|part| part.group);
    }
    let is_unknown = *cluster == ClusterView::default();
    MembersView { cluster: name.to_owned(), groups, is_extended, is_unknown, source: Source::Dcs, parts }
}

fn part(group: i64, cluster: &ClusterView) -> Part {
    let mode = Mode::of(cluster.config_document());
    let request = cluster.failover_request();
    let text = |name: &Option<crate::cluster::MemberName>| {
        name.as_ref().filter(|name| !name.is_empty()).map(ToString::to_string)
    };
    let switchover = request.and_then(|request| {
        let at = request.scheduled_at.clone().filter(|at| !at.is_empty())?;
        Some(Switchover { at, from: text(&request.leader), to: text(&request.candidate) })
    });
    let mut rows: Vec<Row> = cluster.members.iter().map(|member| row(member, cluster, mode)).collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    let leader = cluster.leader_name().map(ToString::to_string);
    let sync = (!cluster.sync.is_empty()).then(|| Sync {
        leader: cluster.sync.leader.as_ref().map(ToString::to_string),
        standbys: cluster.sync.voters.iter().map(ToString::to_string).collect(),
        quorum: cluster.sync.quorum,
    });
    let missing = missing(cluster);
    let (lag_limit, initialize) = (lag_limit(cluster.config_document()), cluster.initialize.clone());
    Part { group, initialize, mode, leader, switchover, lag_limit, sync, rows, missing }
}

/// Members that the DCS speaks of and that have no entry of their own: it expires when nobody renews it.
fn missing(cluster: &ClusterView) -> Vec<MissingMember> {
    let mut missing: Vec<(MemberName, KnownFrom)> = Vec::new();
    let sync = cluster.sync.leader.iter().chain(&cluster.sync.voters).map(|name| (name, KnownFrom::Sync));
    for (name, from) in cluster.leader_name().map(|name| (name, KnownFrom::Leader)).into_iter().chain(sync) {
        let is_there = cluster.members.iter().any(|member| member.name.matches(name));
        if !name.is_empty() && !is_there && missing.iter().all(|(other, _)| !other.matches(name)) {
            missing.push((name.clone(), from));
        }
    }
    let named: Vec<String> = missing.iter().map(|(name, _)| name.slot_name()).collect();
    let has_key = |slot: &&String| cluster.members.iter().any(|member| member.name.slot_name() == **slot);
    let is_permanent = |slot: &&String| {
        let sections = ["slots", "permanent_slots", "permanent_replication_slots"];
        let document = cluster.config_document();
        sections.iter().any(|section| {
            document
                .is_some_and(|document| document.get(*section).is_some_and(|slots| slots.get(slot.as_str()).is_some()))
        })
    };
    let slots = cluster.status.retain_slots.iter().flatten();
    let slots = slots.filter(|slot| !has_key(slot) && !named.contains(slot) && !is_permanent(slot));
    let slots = slots.map(|slot| (slot.to_string(), KnownFrom::Slot));
    let names = missing.into_iter().map(|(name, from)| (name.to_string(), from)).chain(slots);
    names.map(|(name, known_from)| MissingMember { name, known_from, since: None }).collect()
}

/// A member's role, by the leader key and the synchronization state.
pub fn shown_role(name: &str, cluster: &ClusterView, mode: Mode) -> ShownRole {
    match (cluster.has_lock(name), mode) {
        (true, Mode { is_standby_cluster: true, .. }) => ShownRole::StandbyLeader,
        (true, _) => ShownRole::Leader,
        (false, Mode { is_synchronous: true, is_quorum, .. }) if cluster.sync.is_voter(name) => {
            if is_quorum {
                ShownRole::QuorumStandby
            } else {
                ShownRole::SyncStandby
            }
        }
        (false, _) => ShownRole::Replica,
    }
}

/// The setting with its default.
pub(crate) fn lag_limit(document: Option<&Map<String, Value>>) -> u64 {
    let set = document.and_then(|document| as_integer(document.get("maximum_lag_on_failover")?));
    set.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(1_048_576)
}

fn row(member: &Member, cluster: &ClusterView, mode: Mode) -> Row {
    let role = shown_role(&member.name, cluster, mode);
    let own_state = member.data.get("state").and_then(Value::as_str).unwrap_or_default();
    let state = if role == ShownRole::Leader { own_state } else { member.replication_state().unwrap_or(own_state) };
    Row {
        name: member.name.to_string(),
        is_shown: true,
        address: member.address(),
        api_url: member.api_url().map(str::to_owned),
        role,
        state: state.to_owned(),
        timeline: member.data.get("timeline").filter(|value| !value.is_null()).cloned(),
        positions: (!role.is_leader()).then(|| positions(member, cluster.last_lsn(), state)),
        is_pending_restart: member.data.get("pending_restart").is_some_and(is_truthy),
        pending_reasons: pending_reasons(&member.data),
        scheduled_restart: scheduled_restart(&member.data),
        tags: member.data.get("tags").and_then(Value::as_object).cloned(),
    }
}

/// Received and replayed. Members of old versions publish one position only: it counts as received while they
/// stream, as replayed otherwise.
fn positions(member: &Member, leader: Lsn, state: &str) -> (Position, Position) {
    let position = |lsn: Option<Lsn>| {
        let lsn = lsn.filter(|lsn| *lsn != Lsn::ZERO);
        Position { lsn, lag: Lag::between(leader, lsn) }
    };
    let (receive, replay) = (position(member.receive_lsn()), position(member.replay_lsn()));
    if receive.lsn.is_some() || replay.lsn.is_some() {
        return (receive, replay);
    }
    let only = position(member.xlog_location());
    if state == "streaming" { (only, replay) } else { (receive, only) }
}

/// Why a restart is pending, in what a member publishes or says.
pub(crate) fn pending_reasons(data: &Map<String, Value>) -> Vec<(String, String, String)> {
    let Some(reasons) = data.get("pending_restart_reason").and_then(Value::as_object) else { return Vec::new() };
    let text = |reason: &Value, key: &str| crate::ctl::render::cell_text(&reason.get(key).cloned());
    reasons.iter().map(|(name, reason)| (name.clone(), text(reason, "old_value"), text(reason, "new_value"))).collect()
}

/// The restart to come, in what a member publishes or says.
pub(crate) fn scheduled_restart(data: &Map<String, Value>) -> Option<(String, Option<String>)> {
    let restart = data.get("scheduled_restart")?.as_object()?;
    let text = |key: &str| restart.get(key).and_then(Value::as_str).map(str::to_owned);
    Some((text("schedule")?, text("postgres_version")))
}
