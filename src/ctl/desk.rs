//! Where a changing command does its work: one cluster, its DCS, its members' REST interfaces, and the operator.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use jiff::Zoned;

use crate::api::Client;
use crate::cluster::{ClusterView, FailoverKey, MemberName, Version};
use crate::dcs::Dcs;

use super::commands::list::{self, Mode};
use super::context::Groups;
use super::delivery::{self, Delivery, Patience, Request, Verb};
use super::plan::{Answer, Answers, Pace, Question, Refusal, Scene, Stop};
use super::ui::{Progress, Tone};
use super::{Context, CtlError, Exit};

/// From one look at the members to the next.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

impl From<Refusal> for CtlError {
    fn from(refusal: Refusal) -> Self {
        let mut error = Self::new(refusal.reason).ending(refusal.end);
        error.better = refusal.better;
        match refusal.advice {
            Some(advice) => error.next(advice),
            None => error,
        }
    }
}

/// One cluster on the operator's desk.
pub struct Desk<'a> {
    context: &'a Context<'a>,
    /// The cluster's name as given.
    pub cluster: &'a str,
    groups: Groups,
    dcs: Arc<dyn Dcs>,
}

impl<'a> Desk<'a> {
    /// Opens the DCS; nothing is read yet.
    pub fn new(context: &'a Context<'a>, cluster: &'a str, groups: Groups) -> Result<Self, CtlError> {
        let dcs = context.dcs(cluster, groups)?;
        Ok(Self { context, cluster, groups, dcs })
    }

    /// Which part of the cluster it is.
    pub fn groups(&self) -> Groups {
        self.groups
    }

    /// Whether to do exactly as Patroni's tool does.
    pub fn is_patronictl(&self) -> bool {
        self.context.personality().is_patronictl()
    }

    /// Reads the cluster.
    pub async fn load(&self) -> Result<ClusterView, CtlError> {
        let call = self.dcs.load();
        let view = self.context.within(format!("could not read cluster {}", self.cluster), call).await?;
        self.context.record.leader(view.leader_name().map(|name| name.as_str()));
        Ok(self.groups.part(view))
    }

    /// Reads the cluster at the beginning of a command. One that nothing is known of is most likely misspelt.
    pub async fn first_load(&self) -> Result<ClusterView, CtlError> {
        let view = self.load().await?;
        if !self.is_patronictl() {
            self.context.check_known(self.cluster, &view)?;
        }
        Ok(view)
    }

    /// Writes the `failover` key, whatever stands there. `false` when that did not work for a reason that is known.
    pub async fn write_failover(&self, key: &FailoverKey) -> Result<bool, CtlError> {
        let what = format!("could not write the request into the DCS of cluster {}", self.cluster);
        self.begin(&format!("change of the leader of cluster {}", self.cluster));
        self.context.within(what, self.dcs.write_failover(key, None)).await
    }

    /// Empties the `failover` key if it is still the one that was read.
    pub async fn clear_failover(&self, expected: Version) -> Result<bool, CtlError> {
        let what = format!("could not remove the request from the DCS of cluster {}", self.cluster);
        self.context.within(what, self.dcs.write_failover(&FailoverKey::default(), Some(expected))).await
    }

    /// Shows the member table.
    pub fn table(&self, view: &ClusterView) -> Result<(), CtlError> {
        list::show_members(self.context, self.cluster, self.groups, view)
    }

    /// What a plan may look at.
    pub fn scene<'b>(&'b self, view: &'b ClusterView, now: &'b Zoned, is_forced: bool) -> Scene<'b> {
        let mode = Mode::of(view.config_document());
        let (is_strict, overrides) = (!self.is_patronictl(), is_forced);
        let is_forced = self.context.agreed(is_forced);
        Scene { cluster: self.cluster, view, mode, now, is_forced, overrides, is_strict }
    }

    /// Plans, asking what the plan wants to know until it is ready.
    pub async fn settle<T>(&self, mut plan: impl FnMut(&mut Answers<'_>) -> Result<T, Stop>) -> Result<T, CtlError> {
        let mut given = Vec::new();
        loop {
            match plan(&mut Answers::new(&given)) {
                Ok(ready) => return Ok(ready),
                Err(Stop::Refuse(refusal)) => return Err(refusal.into()),
                Err(Stop::Ask(question)) => given.push(self.ask(&question).await?),
            }
        }
    }

    /// Asks one question.
    pub async fn ask(&self, question: &Question) -> Result<Answer, CtlError> {
        Ok(match question {
            Question::Text { text, default } => Answer::Text(self.context.ui.prompt(text, Some(default)).await?),
            Question::Confirm { text } => Answer::Confirm(self.context.ui.confirm(text).await?),
        })
    }

    /// Whether nothing is to be asked: by the command's own `--force`, or by `--yes`.
    pub fn agreed(&self, is_forced: bool) -> bool {
        self.context.agreed(is_forced)
    }

    /// The way to the members, with the configured credentials.
    pub fn client(&self) -> Result<Client, CtlError> {
        self.context.api(Patience::default().probe)
    }

    /// Makes a request to a member and says what became of it.
    pub async fn send(&self, client: &Client, view: &ClusterView, member: &str, request: &Request) -> Delivery {
        let api_url = super::targets::find(view, member).and_then(|member| member.api_url());
        let _progress = self.context.ui.progress(&format!("waiting for {member}"));
        self.begin(&self.described(member, request));
        let delivery = delivery::deliver(client, Patience::default(), api_url, request).await;
        match &delivery {
            Delivery::Answered(answer) => self.context.ui.underway(|underway| underway.end(answer.is_success())),
            Delivery::NotMade(_) => self.context.ui.underway(|underway| underway.end(false)),
            // It may go on, so whoever interrupts what follows should know.
            Delivery::Unknown(_) => {}
        }
        delivery
    }

    fn described(&self, member: &str, request: &Request) -> String {
        match (request.verb, request.path) {
            (_, "/switchover") => format!("switchover of cluster {}", self.cluster),
            (_, "/failover") => format!("failover of cluster {}", self.cluster),
            (Verb::Delete, "/restart") => format!("removal of the scheduled restart of {member}"),
            (_, "/restart") => format!("restart of {member}"),
            // The answer comes at its beginning.
            (_, "/reinitialize") => format!("start of the reinitialization of {member}"),
            (_, "/reload") => format!("reload of {member}"),
            (_, "/config") => format!("change of the configuration of cluster {}", self.cluster),
            (_, path) => format!("{path} of {member}"),
        }
    }

    /// Something goes on that does not need this command any more.
    pub fn begin(&self, what: &str) {
        self.context.ui.underway(|underway| underway.begin(what));
    }

    /// Something that goes on by itself is over.
    pub fn ended(&self, what: &str) {
        self.context.ui.underway(|underway| underway.ended(what));
    }

    /// The members that will be asked after this one.
    pub fn leave(&self, members: &[MemberName]) {
        let names = members.iter().map(ToString::to_string).collect();
        self.context.ui.underway(|underway| underway.before(names));
    }

    /// Where nothing is to be done (`--dry-run`): says what would be requested of whom. `false` otherwise.
    pub fn rehearses(&self, members: &[MemberName], request: &Request) -> Result<bool, CtlError> {
        if !self.context.own.dry_run {
            return Ok(false);
        }
        for name in members {
            self.result_of(name, &format!("Would ask {name}: {request}"))?;
        }
        if members.is_empty() {
            self.result("Nobody would be asked for anything")?;
        }
        Ok(true)
    }

    /// Waits until every member runs and replicates again, and shows them (`--wait`).
    pub async fn until_whole(&self, before: &ClusterView) -> Result<Exit, CtlError> {
        let limit = super::handover::pickup_limit(Pace::of(before)) + Pace::of(before).start_timeout;
        let deadline = tokio::time::Instant::now() + limit;
        let _progress = self.context.ui.progress("waiting for the members to be whole again");
        loop {
            let view = self.load().await?;
            let troubles = list::view(self.cluster, self.groups, &view, false).problems();
            let is_late = tokio::time::Instant::now() >= deadline;
            if troubles.is_empty() || is_late {
                self.table(&view)?;
            }
            if troubles.is_empty() {
                return Ok(Exit::Done);
            }
            if is_late {
                let error = CtlError::new(format!("it is done, but not well after {} s", limit.as_secs()));
                return Err(error.because(troubles.join("; ")).ending(Exit::Partly).next("look at `list`"));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Whether the end of it all is to be waited for.
    pub fn waits(&self) -> bool {
        self.context.own.wait
    }

    /// A spinner while something is waited for; nothing where nobody watches.
    pub fn progress(&self, message: &str) -> Progress {
        self.context.ui.progress(message)
    }

    /// The present moment in the local time zone.
    pub fn now(&self) -> Zoned {
        self.context.ui.now()
    }

    /// `2026-01-31 12:00:00.12345`, as it stands before the outcome of a switchover.
    pub fn moment(&self) -> String {
        let now = self.now();
        format!("{}.{:05}", now.strftime("%Y-%m-%d %H:%M:%S"), now.subsec_nanosecond() / 10_000)
    }

    /// The outcome, to stdout.
    pub fn result(&self, line: &str) -> Result<(), CtlError> {
        if self.context.is_recording() {
            self.context.record.message(line);
            return Ok(());
        }
        self.context.ui.data(line)
    }

    /// The outcome for one member.
    pub fn result_of(&self, member: &str, line: &str) -> Result<(), CtlError> {
        self.context.record.member(member, Exit::Done, line, None);
        if self.context.is_recording() { Ok(()) } else { self.context.ui.data(line) }
    }

    /// What went wrong with one member.
    pub fn trouble_of(&self, member: &str, end: Exit, line: &str, next: Option<&str>) -> Result<(), CtlError> {
        self.context.record.member(member, end, line, next);
        self.complain(line, next)
    }

    /// What went wrong with a part of the work: part of patronictl's output, a complaint for us, with what to do.
    pub fn trouble(&self, line: &str, next: Option<&str>) -> Result<(), CtlError> {
        self.context.record.message(line);
        self.complain(line, next)
    }

    fn complain(&self, line: &str, next: Option<&str>) -> Result<(), CtlError> {
        if self.is_patronictl() {
            return self.context.ui.data(line);
        }
        self.context.ui.complain(line)?;
        match next {
            Some(next) => self.context.ui.complain(&format!("{} {next}", self.context.ui.paint(Tone::Hint, "next:"))),
            None => Ok(()),
        }
    }

    /// What is going on, for whoever watches.
    pub fn say(&self, line: &str) -> Result<(), CtlError> {
        self.context.ui.say(line)
    }

    /// Something to know that does not stop the command.
    pub fn warn(&self, line: &str) -> Result<(), CtlError> {
        self.context.ui.warn(line)
    }

    /// A number that nobody can foresee.
    pub fn dice(&self) -> u64 {
        RandomState::new().hash_one(self.cluster)
    }
}
