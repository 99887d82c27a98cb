//! Who we are for the servers: user and password, and what is done when new ones turn out to be of no use.
//!
//! Credentials that are configured while the agent runs count only when the servers let them do everything a member
//! does. Until then the former ones are used, so that a slip in a file, or a role that was not granted yet, costs
//! nobody the lock.

use std::time::Duration;

use etcd_client::proto::{PbAuthenticateRequest, PbTxnRequest};
use tokio::time::Instant;

use super::wire::{Failure, Token, Wire};
use crate::config::Secret;

/// User and password; `None` is nobody, or whom a client's certificate names.
pub(super) type Credentials = Option<(String, Secret)>;

/// How long the former credentials are used before the configured ones are tried again.
const RETRY: Duration = Duration::from_secs(10);

/// What is known about the token.
#[derive(Clone, Default)]
pub(super) enum Login {
    /// Nothing yet, or that it is not good any more.
    #[default]
    Needed,
    /// Requests go without one.
    Off,
    /// This one is sent with each request.
    Token(Token),
}

/// The credentials before those that are configured, which have not proved themselves yet.
#[derive(Clone)]
pub(super) struct Former {
    credentials: Credentials,
    /// When the configured ones are tried again; unset until they were tried for the first time.
    again: Option<Instant>,
}

impl Former {
    /// What stays in use while `new` is on trial. `on_trial` is what the replaced ones were themselves tried against.
    pub(super) fn of(replaced: &Credentials, on_trial: Option<Self>, new: &Credentials) -> Option<Self> {
        let credentials = on_trial.map_or_else(|| replaced.clone(), |former| former.credentials);
        (credentials != *new).then_some(Self { credentials, again: None })
    }

    /// Whether it is time to try the configured ones once more.
    pub(super) fn is_over(&self) -> bool {
        self.again.is_some_and(|again| again <= Instant::now())
    }

    /// The configured ones are tried with the next request.
    pub(super) fn end(&mut self) {
        self.again = self.again.map(|_| Instant::now());
    }

    /// The configured ones were tried.
    pub(super) fn tried(mut self) -> Self {
        self.again = Some(Instant::now() + RETRY);
        self
    }

    /// Says that the configured ones are used now, to whom was told that they are not.
    pub(super) fn tell_end(&self, configured: &Credentials) {
        if self.again.is_some() {
            tracing::info!("etcd takes {} as section etcd3 says; it is used from now on", who(configured));
        }
    }

    /// Logs in with these, if the configured ones were refused. Either side may be told of a new password first, and
    /// a new user may still be without rights.
    pub(super) async fn use_instead(
        &mut self,
        wire: &Wire,
        configured: &Credentials,
        failure: Failure,
        until: Instant,
    ) -> Result<Login, Failure> {
        if !matches!(failure, Failure::BadCredentials(_) | Failure::Unauthenticated(_) | Failure::Refused(_)) {
            return Err(failure);
        }
        let Ok(login) = log_in(wire, &self.credentials, until).await else { return Err(failure) };
        if self.again.is_none() {
            tracing::warn!(
                "etcd does not accept {} as section etcd3 says now ({failure}); {} stays in use as configured before. \
                 Correct `username` and `password`, or grant a role that may read and write the cluster's keys: it is \
                 tried again every {} seconds",
                who(configured),
                who(&self.credentials),
                RETRY.as_secs()
            );
        }
        self.again = Some(Instant::now() + RETRY);
        Ok(login)
    }
}

fn who(credentials: &Credentials) -> String {
    credentials.as_ref().map_or("nobody".to_owned(), |(name, _)| format!("user `{name}`"))
}

/// Gets a token, where the servers want one.
pub(super) async fn log_in(wire: &Wire, credentials: &Credentials, until: Instant) -> Result<Login, Failure> {
    let Some((name, password)) = credentials else { return Ok(Login::Off) };
    let request = PbAuthenticateRequest { name: name.clone(), password: password.reveal().to_owned() };
    match wire.ask(&request, None, until).await {
        Ok(answer) => {
            let token = answer.token.parse();
            Ok(Login::Token(token.map_err(|_| Failure::Refused("the server's token is not text".to_owned()))?))
        }
        Err(Failure::Later(text) | Failure::Refused(text)) if text.contains("authentication is not enabled") => {
            Ok(Login::Off)
        }
        Err(failure) => Err(failure),
    }
}

/// The same, and errs unless who logs in may do all that `rights` asks for.
pub(super) async fn prove(
    wire: &Wire,
    credentials: &Credentials,
    rights: &PbTxnRequest,
    until: Instant,
) -> Result<Login, Failure> {
    let login = log_in(wire, credentials, until).await?;
    let token = match &login {
        Login::Token(token) => Some(token),
        _ => None,
    };
    match wire.ask(rights, token, until).await {
        // Full, too busy: that is not about who asks.
        Ok(_) | Err(Failure::Refused(_)) => Ok(login),
        Err(failure) => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> Credentials {
        Some((name.to_owned(), Secret::new("word")))
    }

    #[test]
    fn what_was_never_proven_is_not_what_one_goes_back_to() {
        let first = Former::of(&user("a"), None, &user("b")).expect("they differ");
        assert!(!first.is_over(), "they were not tried at all yet");
        let second = Former::of(&user("b"), Some(first.clone()), &user("c")).expect("they differ");
        assert_eq!(second.credentials, user("a"));
        assert!(Former::of(&user("b"), Some(first), &user("a")).is_none(), "back at what is proven");
        let nobody = Former::of(&user("a"), None, &None).expect("they differ");
        assert_eq!(nobody.credentials, user("a"), "who takes the password away may have done so by mistake");
    }

    #[tokio::test(start_paused = true)]
    async fn the_configured_ones_are_tried_again_after_a_while_or_at_a_reload() {
        let mut former = Former::of(&user("a"), None, &user("b")).expect("they differ");
        former.end();
        assert!(!former.is_over(), "the first try is due anyhow");
        former.again = Some(Instant::now() + RETRY);
        assert!(!former.is_over());
        tokio::time::advance(RETRY).await;
        assert!(former.is_over());
        former.again = Some(Instant::now() + RETRY);
        former.end();
        assert!(former.is_over());
    }
}
