//! The endpoints: one is current, the others stand by; every request has one deadline for all it takes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::proto::{PbAuthenticateRequest, PbMemberListRequest, PbResponseHeader, PbWatchResponse};
use futures::channel::mpsc::UnboundedReceiver;
use rustls::ClientConfig;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::Streaming;

use super::budget::{self, SHORTEST};
use super::request::Request;
use super::srv::Srv;
use super::wire::{Failure, Token, Wire};
use crate::config::Secret;
use crate::dcs::DcsError;

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

/// How to get at the servers.
pub(in crate::dcs) struct Access {
    /// Endpoints as configured, with scheme.
    pub(in crate::dcs) urls: Vec<String>,
    /// Where more endpoints are to be found, or all of them.
    pub(in crate::dcs) srv: Option<Srv>,
    /// Ask the servers for more endpoints.
    pub(in crate::dcs) is_discovering: bool,
    /// For endpoints with `https`.
    pub(in crate::dcs) tls: Option<Arc<ClientConfig>>,
    /// User and password.
    pub(in crate::dcs) credentials: Option<(String, Secret)>,
}

/// All endpoints.
pub(super) struct Pool {
    access: Access,
    state: Mutex<State>,
    /// Counts changes of the current endpoint and of its connection: whatever hangs on them must begin anew.
    moved: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
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

#[derive(Clone, Default)]
enum Login {
    #[default]
    Needed,
    Off,
    Token(Token),
}

/// How a round over the endpoints ended.
enum Turn<A> {
    Answer(A),
    Again(String, Failure),
    Stop(String, Failure),
}

impl Pool {
    /// A pool that has not connected to anything yet.
    pub(super) fn new(access: Access) -> Self {
        let current = access.urls.first().cloned().unwrap_or_default();
        let state = State { current, ..State::default() };
        Self { access, state: Mutex::new(state), moved: watch::Sender::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
        let Some(srv) = self.access.srv.as_ref().filter(|_| !self.state().is_found) else { return Ok(()) };
        let is_first = self.state().found.is_empty();
        let left = plan.deadline.saturating_duration_since(Instant::now());
        let until = Instant::now() + if is_first { left } else { left / 3 };
        match srv.find(self.access.tls.clone(), until).await {
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
            Err(Failure::Unauthenticated(_)) if self.access.credentials.is_some() => {
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

    async fn ask_with_token<R: Request>(&self, wire: &Wire, request: &R, until: Instant) -> Result<R::Answer, Failure> {
        let token = self.token(wire, until).await?;
        wire.ask(request, token.as_ref(), until).await
    }

    async fn token(&self, wire: &Wire, until: Instant) -> Result<Option<Token>, Failure> {
        let Some((name, password)) = &self.access.credentials else { return Ok(None) };
        match self.state().login.clone() {
            Login::Needed => {}
            Login::Off => return Ok(None),
            Login::Token(token) => return Ok(Some(token)),
        }
        let request = PbAuthenticateRequest { name: name.clone(), password: password.reveal().to_owned() };
        let login = match wire.ask(&request, None, until).await {
            Ok(answer) => {
                let token = answer.token.parse();
                Login::Token(token.map_err(|_| Failure::Refused("the server's token is not text".to_owned()))?)
            }
            Err(Failure::Later(text) | Failure::Refused(text)) if text.contains("authentication is not enabled") => {
                Login::Off
            }
            Err(failure) => return Err(failure),
        };
        let mut state = self.state();
        state.was_authenticated = true;
        state.login = login;
        match &state.login {
            Login::Token(token) => Ok(Some(token.clone())),
            _ => Ok(None),
        }
    }

    /// The connection to an endpoint, made now if there is none. Half a try goes into connecting, at least a second.
    async fn wire(&self, url: &str, until: Instant) -> Result<(u64, Wire), Failure> {
        if let Some((id, wire)) = self.state().wires.get(url) {
            return Ok((*id, wire.clone()));
        }
        let limit = (until.saturating_duration_since(Instant::now()) / 2).max(SHORTEST);
        let connecting = timeout_at(until, Wire::connect(url, self.access.tls.clone(), limit)).await;
        let wire = connecting.unwrap_or_else(|_| Err(Failure::NotConnected("no time left".to_owned())))?;
        let mut state = self.state();
        state.wires_made += 1;
        let id = state.wires_made;
        state.wires.insert(url.to_owned(), (id, wire.clone()));
        Ok((id, wire))
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
        for url in std::iter::once(&state.current).chain(&state.discovered).chain(&state.found).chain(&self.access.urls)
        {
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
                let name = self.access.credentials.as_ref().map_or("", |(name, _)| name);
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
        if !self.access.is_discovering {
            return;
        }
        let plan = Plan::new("reading the member list", deadline.saturating_duration_since(Instant::now()), false);
        let answer = match self.ask(&PbMemberListRequest { linearizable: false }, &plan).await {
            Ok(answered) => answered.answer,
            Err(failed) => return tracing::debug!(?failed, "the servers' addresses stay as they were"),
        };
        let urls: Vec<String> = answer.members.into_iter().flat_map(|member| member.client_ur_ls).collect();
        if !urls.is_empty() {
            self.state().discovered = urls;
        }
    }

    /// Opens a watch on the current endpoint. Each of the `questions` is answered by an empty message on it.
    pub(super) async fn watch(
        &self,
        prefix: &str,
        revision: i64,
        questions: UnboundedReceiver<()>,
        until: Instant,
    ) -> Result<Streaming<PbWatchResponse>, Failure> {
        let url = self.state().current.clone();
        let (id, wire) = self.wire(&url, until).await?;
        let opening = async {
            let token = self.token(&wire, until).await?;
            wire.watch(prefix, revision, questions, token.as_ref()).await
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
