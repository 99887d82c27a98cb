//! The endpoints: one is current, the others stand by; every request has one deadline for all it takes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::proto::{PbMemberListRequest, PbResponseHeader, PbTxnRequest, PbWatchResponse};
use futures::channel::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::Streaming;

use super::access::Access;
use super::budget::{self, SHORTEST};
use super::login::{self, Former, Login};
use super::request::Request;
use super::wire::{Failure, Token, Wire};
use crate::dcs::{DcsError, Renewed};

/// How one operation goes about it.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    /// The operation, for people.
    pub(super) what: &'static str,
    /// When it ends, however many requests it takes.
    pub(super) deadline: Instant,
    /// Whether a request that may have been carried out may be sent again.
    pub(super) is_repeatable: bool,
    /// The least time for one try.
    pub(super) least: Duration,
}

impl Plan {
    /// An operation that begins now and may take so long.
    pub(super) fn new(what: &'static str, whole: Duration, is_repeatable: bool) -> Self {
        Self { what, deadline: Instant::now() + whole, is_repeatable, least: budget::least(whole) }
    }

    /// Fails when too little time is left to begin something whose outcome matters.
    pub(super) fn require_time(&self) -> Result<(), DcsError> {
        if self.deadline.saturating_duration_since(Instant::now()) >= self.least {
            return Ok(());
        }
        Err(DcsError::unavailable(format!("{}: too little time left", self.what)))
    }
}

/// An answer.
pub(super) struct Answered<A> {
    pub(super) answer: A,
    /// An earlier try may have been carried out too, so a compare that failed may have met our own write.
    pub(super) is_ambiguous: bool,
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum Failed {
    /// The lease in the request is gone.
    LeaseNotFound,
    /// Anything else.
    Dcs(DcsError),
}

/// All endpoints.
pub(super) struct Pool {
    state: Mutex<State>,
    /// What a member must be allowed to do.
    rights: PbTxnRequest,
    /// Counts changes of the current endpoint and of its connection: whatever hangs on them must begin anew.
    moved: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    access: Arc<Access>,
    /// The credentials before those of `access`, until the servers take what is new.
    former: Option<Former>,
    /// Since other servers were named: those that are known to be of the same cluster as ever.
    proven: Option<BTreeSet<String>>,
    current: String,
    discovered: Vec<String>,
    /// What DNS says, and whether that is still good.
    found: Vec<String>,
    is_found: bool,
    wires: BTreeMap<String, (u64, Wire)>,
    wires_made: u64,
    login: Login,
    was_authenticated: bool,
    /// The cluster, and the highest raft term it has shown us.
    term: (u64, u64),
}

/// How a round over the endpoints ended.
enum Turn<A> {
    Answer(A),
    Again(String, Failure),
    Stop(String, Failure),
}

impl State {
    /// Other servers are to be asked. Whoever is new has to prove that it is of our cluster.
    fn name_others(&mut self, old: &Access, new: &Access) {
        // The first list was right by definition; what a later one adds is proven or not by now.
        let known = self.discovered.iter().chain(&self.found).chain(&old.urls).chain([&self.current]);
        let known: BTreeSet<String> = known.cloned().collect();
        self.proven.get_or_insert(known);
        self.found.clear();
        self.is_found = false;
        if !new.is_discovering {
            self.discovered.clear();
        }
        if !new.urls.contains(&self.current) && !self.discovered.contains(&self.current) {
            self.current = new.urls.first().cloned().unwrap_or_default();
        }
    }

    fn must_prove_itself(&self, url: &str) -> bool {
        self.term.0 != 0 && self.proven.as_ref().is_some_and(|proven| !proven.contains(url))
    }
}

impl Pool {
    /// A pool that has not connected to anything yet. `rights` is what new credentials must be allowed to ask for.
    pub(super) fn new(access: Access, rights: PbTxnRequest) -> Self {
        let current = access.urls.first().cloned().unwrap_or_default();
        let state = State { access: Arc::new(access), current, ..State::default() };
        Self { state: Mutex::new(state), rights, moved: watch::Sender::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn access(&self) -> Arc<Access> {
        Arc::clone(&self.state().access)
    }

    /// Takes other servers, users or certificates from the next request on. What is known of the cluster, above all
    /// the lease, stays good.
    pub(super) fn replace(&self, access: Access) -> Vec<Renewed> {
        let mut state = self.state();
        let old = Arc::clone(&state.access);
        let renewed = old.source.renewed(&access.source);
        if let Some(former) = &mut state.former {
            former.end();
        }
        if renewed.is_empty() {
            return renewed;
        }
        if old.credentials != access.credentials {
            state.former = Former::of(&old.credentials, state.former.take(), &access.credentials);
            state.login = Login::Needed;
        }
        if old.source.connects_differently(&access.source) {
            state.wires.clear();
        }
        if old.source.names_others(&access.source) {
            state.name_others(&old, &access);
        }
        state.access = Arc::new(access);
        drop(state);
        self.moved.send_modify(|count| *count += 1);
        renewed
    }

    /// Changes when the current endpoint or its connection does.
    pub(super) fn moved(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    /// Sends a request to the current endpoint, then to the others, until the plan's deadline.
    pub(super) async fn ask<R: Request>(&self, request: &R, plan: &Plan) -> Result<Answered<R::Answer>, Failed> {
        let mut is_ambiguous = false;
        self.look_up(plan).await.map_err(Failed::Dcs)?;
        for round in 1.. {
            let (url, failure) = match self.round(request, plan, &mut is_ambiguous).await {
                Turn::Answer(answer) => return Ok(Answered { answer, is_ambiguous }),
                Turn::Stop(url, failure) => return Err(self.failed(plan, &url, failure)),
                Turn::Again(url, failure) => (url, failure),
            };
            let pause = budget::pause(round);
            if !plan.is_repeatable || Instant::now() + pause >= plan.deadline {
                return Err(self.failed(plan, &url, failure));
            }
            tracing::debug!(url, %failure, "{}: trying again", plan.what);
            sleep(pause).await;
        }
        unreachable!("the rounds end by the deadline")
    }

    /// Asks DNS for the endpoints, at first and after a failure. As long as it does not answer, what it said before
    /// counts.
    async fn look_up(&self, plan: &Plan) -> Result<(), DcsError> {
        let access = self.access();
        let Some(srv) = access.srv.as_ref().filter(|_| !self.state().is_found) else { return Ok(()) };
        let is_first = self.state().found.is_empty();
        let left = plan.deadline.saturating_duration_since(Instant::now());
        let until = Instant::now() + if is_first { left } else { left / 3 };
        match srv.find(access.tls.clone(), until).await {
            Ok(urls) => {
                let mut state = self.state();
                if state.current.is_empty() {
                    state.current = urls.first().cloned().unwrap_or_default();
                }
                (state.found, state.is_found) = (urls, true);
            }
            Err(problem) if is_first => {
                return Err(DcsError::Unavailable { what: format!("{}: {problem}", plan.what), source: None });
            }
            Err(problem) => tracing::debug!(problem, "the known servers are asked"),
        }
        Ok(())
    }

    async fn round<R: Request>(&self, request: &R, plan: &Plan, is_ambiguous: &mut bool) -> Turn<R::Answer> {
        let urls = self.order();
        let left = plan.deadline.saturating_duration_since(Instant::now());
        let shares = budget::round(left, urls.len(), plan.least);
        let mut last = (self.state().current.clone(), Failure::NotConnected("no time left".to_owned()));
        for url in urls.into_iter().take(shares.endpoints) {
            for _ in 0..shares.tries {
                let until = plan.deadline.min(Instant::now() + shares.per_try);
                let failure = match self.attempt(&url, request, until).await {
                    Ok(answer) => {
                        self.succeeded(&url);
                        return Turn::Answer(answer);
                    }
                    Err(failure) => failure,
                };
                let is_sent = match &failure {
                    Failure::NotConnected(_) => false,
                    Failure::Lost(_) | Failure::Later(_) => true,
                    _ => return Turn::Stop(url, failure),
                };
                *is_ambiguous |= is_sent && R::IS_WRITE;
                if matches!(failure, Failure::Later(_)) {
                    return Turn::Again(url, failure);
                }
                if is_sent && R::IS_WRITE && !plan.is_repeatable {
                    return Turn::Stop(url, failure);
                }
                last = (url.clone(), failure);
                if is_sent {
                    break;
                }
            }
        }
        Turn::Again(last.0, last.1)
    }

    async fn attempt<R: Request>(&self, url: &str, request: &R, until: Instant) -> Result<R::Answer, Failure> {
        let (id, wire) = self.wire(url, until).await?;
        let answer = match self.ask_with_token(&wire, request, until).await {
            Err(Failure::Unauthenticated(_)) if self.can_log_in() => {
                self.state().login = Login::Needed;
                self.ask_with_token(&wire, request, until).await
            }
            answer => answer,
        };
        let answer = answer.and_then(|answer| match R::header(&answer) {
            Some(header) if !self.is_fresh(header) => {
                Err(Failure::Lost("it has fallen behind the other servers".to_owned()))
            }
            _ => Ok(answer),
        });
        if let Err(Failure::NotConnected(_) | Failure::Lost(_)) = &answer {
            self.drop_wire(url, id);
        }
        answer
    }

    fn can_log_in(&self) -> bool {
        let state = self.state();
        state.access.credentials.is_some() || state.former.is_some()
    }

    async fn ask_with_token<R: Request>(&self, wire: &Wire, request: &R, until: Instant) -> Result<R::Answer, Failure> {
        let token = self.token(wire, until).await?;
        wire.ask(request, token.as_ref(), until).await
    }

    async fn token(&self, wire: &Wire, until: Instant) -> Result<Option<Token>, Failure> {
        let (access, known, former) = {
            let state = self.state();
            (Arc::clone(&state.access), state.login.clone(), state.former.clone())
        };
        let is_known = !matches!(known, Login::Needed);
        let (login, former) = match former {
            _ if access.credentials.is_none() && former.is_none() => return Ok(None),
            Some(mut former) if !is_known || former.is_over() => {
                let half = Instant::now() + until.saturating_duration_since(Instant::now()) / 2;
                match login::prove(wire, &access.credentials, &self.rights, half).await {
                    Ok(login) => {
                        former.tell_end(&access.credentials);
                        (login, None)
                    }
                    // A try that comes to nothing does not take away what works.
                    Err(_) if is_known => (known, Some(former.tried())),
                    Err(failure) => {
                        (former.use_instead(wire, &access.credentials, failure, until).await?, Some(former))
                    }
                }
            }
            former if is_known => (known, former),
            former => (login::log_in(wire, &access.credentials, until).await?, former),
        };
        let token = match &login {
            Login::Token(token) => Some(token.clone()),
            _ => None,
        };
        let mut state = self.state();
        state.was_authenticated = true;
        // Others may have been configured meanwhile.
        if Arc::ptr_eq(&state.access, &access) {
            (state.former, state.login) = (former, login);
        }
        Ok(token)
    }

    /// The connection to an endpoint, made now if there is none. Half a try goes into connecting, at least a second.
    async fn wire(&self, url: &str, until: Instant) -> Result<(u64, Wire), Failure> {
        if let Some((id, wire)) = self.state().wires.get(url) {
            return Ok((*id, wire.clone()));
        }
        let limit = (until.saturating_duration_since(Instant::now()) / 2).max(SHORTEST);
        let access = self.access();
        let connecting = timeout_at(until, Wire::connect(url, access.tls.clone(), limit)).await;
        let wire = connecting.unwrap_or_else(|_| Err(Failure::NotConnected("no time left".to_owned())))?;
        if self.state().must_prove_itself(url) {
            self.prove(url, &wire, until).await?;
        }
        let mut state = self.state();
        state.wires_made += 1;
        let id = state.wires_made;
        // Made with means that were replaced meanwhile, it serves once.
        if Arc::ptr_eq(&state.access, &access) {
            state.wires.insert(url.to_owned(), (id, wire.clone()));
        }
        Ok((id, wire))
    }

    /// Makes sure that a server that was configured while we run belongs to the cluster that we know, before it is
    /// asked anything that counts: in another one there is no lease of ours, and we would take the lock once more.
    async fn prove(&self, url: &str, wire: &Wire, until: Instant) -> Result<(), Failure> {
        let token = self.token(wire, until).await?;
        let answer = wire.ask(&PbMemberListRequest { linearizable: false }, token.as_ref(), until).await?;
        let cluster = answer.header.map(|header| header.cluster_id).unwrap_or_default();
        let mut state = self.state();
        if state.term.0 == cluster {
            state.proven.get_or_insert_default().insert(url.to_owned());
            return Ok(());
        }
        drop(state);
        let problem = "it belongs to another etcd cluster; an agent moves there only by a new start";
        tracing::warn!(url, "{problem}");
        Err(Failure::NotConnected(problem.to_owned()))
    }

    fn drop_wire(&self, url: &str, id: u64) {
        let mut state = self.state();
        if state.wires.get(url).is_some_and(|(known, _)| *known == id) {
            state.wires.remove(url);
            self.moved.send_modify(|count| *count += 1);
        }
    }

    fn succeeded(&self, url: &str) {
        let mut state = self.state();
        if state.current != url {
            tracing::info!(from = state.current, to = url, "etcd endpoint changed");
            state.current = url.to_owned();
            self.moved.send_modify(|count| *count += 1);
        }
    }

    /// The current endpoint first, then what the servers told us, then what was configured.
    fn order(&self) -> Vec<String> {
        let state = self.state();
        let mut urls: Vec<String> = Vec::new();
        let configured = &state.access.urls;
        for url in std::iter::once(&state.current).chain(&state.discovered).chain(&state.found).chain(configured) {
            if !url.is_empty() && !urls.contains(url) {
                urls.push(url.clone());
            }
        }
        urls
    }

    /// `false` for a header with a lower term than one seen before of the same cluster: its server was cut off.
    fn is_fresh(&self, header: &PbResponseHeader) -> bool {
        let mut state = self.state();
        let (cluster, term) = state.term;
        if cluster == header.cluster_id && header.raft_term < term {
            return false;
        }
        state.term = (header.cluster_id, header.raft_term);
        true
    }

    fn failed(&self, plan: &Plan, url: &str, failure: Failure) -> Failed {
        // Whatever comes next should not begin with the endpoint that has just failed.
        if matches!(failure, Failure::Lost(_) | Failure::NotConnected(_)) {
            self.state().is_found = false;
            self.move_on(url);
        }
        let what = format!("{} at {url}", plan.what);
        let error = match failure {
            Failure::LeaseNotFound => return Failed::LeaseNotFound,
            Failure::BadCredentials(_) if !self.state().was_authenticated => {
                let access = self.access();
                let name = access.credentials.as_ref().map_or("", |(name, _)| name);
                DcsError::Config(format!(
                    "etcd at {url} does not accept user `{name}` with this password; correct `username` and `password` \
                     of section etcd3"
                ))
            }
            failure @ (Failure::NotConnected(_) | Failure::Lost(_) | Failure::Later(_)) => {
                DcsError::Unavailable { what, source: Some(failure.into()) }
            }
            failure => DcsError::Refused { what, source: Some(failure.into()) },
        };
        Failed::Dcs(error)
    }

    fn move_on(&self, url: &str) {
        let next = self.order().into_iter().find(|other| other != url);
        let mut state = self.state();
        if let Some(next) = next.filter(|_| state.current == url) {
            state.current = next;
            self.moved.send_modify(|count| *count += 1);
        }
    }

    /// Asks the servers for their addresses, which stand by from then on. The current endpoint stays current.
    pub(super) async fn discover(&self, deadline: Instant) {
        if !self.access().is_discovering {
            return;
        }
        let plan = Plan::new("reading the member list", deadline.saturating_duration_since(Instant::now()), false);
        let answer = match self.ask(&PbMemberListRequest { linearizable: false }, &plan).await {
            Ok(answered) => answered.answer,
            Err(failed) => return tracing::debug!(?failed, "the servers' addresses stay as they were"),
        };
        let urls: Vec<String> = answer.members.into_iter().flat_map(|member| member.client_ur_ls).collect();
        let mut state = self.state();
        // Only those that say the same cluster as ever are asked, so whom they name belongs to it.
        if let Some(proven) = &mut state.proven {
            proven.extend(urls.iter().cloned());
        }
        if !urls.is_empty() && state.access.is_discovering {
            state.discovered = urls;
        }
    }

    /// Opens a watch on the current endpoint. Each of the `questions` is answered by an empty message on it.
    pub(super) async fn watch(
        &self,
        prefix: &str,
        questions: UnboundedReceiver<()>,
        until: Instant,
    ) -> Result<Streaming<PbWatchResponse>, Failure> {
        let url = self.state().current.clone();
        let (id, wire) = self.wire(&url, until).await?;
        let opening = async {
            let token = self.token(&wire, until).await?;
            wire.watch(prefix, questions, token.as_ref()).await
        };
        let late = || Failure::Lost("no answer in time".to_owned());
        let stream = timeout_at(until, opening).await.unwrap_or_else(|_| Err(late()));
        if let Err(Failure::NotConnected(_) | Failure::Lost(_)) = &stream {
            self.drop_wire(&url, id);
        }
        stream
    }

    /// The header check, for what comes over a watch.
    pub(super) fn accepts(&self, header: Option<&PbResponseHeader>) -> bool {
        header.is_none_or(|header| self.is_fresh(header))
    }
}

/// The pause after a watch that ended without having told anything.
pub(super) const WATCH_PAUSE: Duration = Duration::from_secs(1);
