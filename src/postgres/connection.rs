//! Connections to servers: opening one within a limit, and keeping a few to our own server open between looks.

use std::ops::Deref;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::{Handle, Id};
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::error::SqlState;
use tokio_util::task::AbortOnDropHandle;

use super::PgError;
use super::pgpass::ConnParams;
use super::tls::Tls;

/// How long a connection may take to be made.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// A connection with the task that serves it; both end together.
pub struct Session {
    client: Client,
    _task: AbortOnDropHandle<()>,
    /// The runtime whose task it is.
    home: Id,
}

impl Deref for Session {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

/// Why there is no connection or no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server is there and takes nobody now: it starts up, shuts down or recovers from a crash.
    NotReady(String),
    /// The server answered with another error: it is up, and something else is wrong (a password, too many
    /// connections, a cancelled statement).
    Refused(String),
    /// No answer.
    Silent(String),
}

impl From<Failure> for PgError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotReady(text) | Failure::Refused(text) | Failure::Silent(text) => Self::Query(text),
        }
    }
}

impl Failure {
    /// Sorts an error of the client library.
    pub fn of(error: &tokio_postgres::Error) -> Self {
        let text = describe(error);
        match error.code() {
            Some(code) if *code == SqlState::CANNOT_CONNECT_NOW => Self::NotReady(text),
            // The server ends our connection because it shuts down; what comes next is seen at the next attempt.
            Some(code) if *code == SqlState::ADMIN_SHUTDOWN || *code == SqlState::CRASH_SHUTDOWN => Self::Silent(text),
            Some(_) => Self::Refused(text),
            None => Self::Silent(text),
        }
    }
}

/// The words of an error of the client library, without its prefixes.
pub fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{}: {}", db.severity(), db.message()),
        None => {
            let source = std::error::Error::source(error);
            source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
        }
    }
}

/// Opens a connection, with short limits on both sides.
pub async fn open(params: &ConnParams, application: &str, limit: Duration) -> Result<Session, Failure> {
    let place = format!("{}:{}", params.host.as_deref().unwrap_or_default(), params.port.unwrap_or(5432));
    let failed = |text: String| format!("connection to {place}: {text}");
    let tls = Tls::from_options(&params.credentials.options).map_err(|error| Failure::Refused(error.to_string()))?;
    let config = client_config(params, &tls, application, limit);
    let (client, connection) = match timeout(limit, config.connect(tls)).await {
        Ok(Ok(connected)) => connected,
        Ok(Err(error)) => {
            return Err(match Failure::of(&error) {
                Failure::NotReady(text) => Failure::NotReady(failed(text)),
                Failure::Refused(text) => Failure::Refused(failed(text)),
                Failure::Silent(text) => Failure::Silent(failed(text)),
            });
        }
        Err(_) => return Err(Failure::Silent(failed(format!("no answer within {limit:?}")))),
    };
    let task = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!("connection lost: {error}");
        }
    });
    Ok(Session { client, _task: AbortOnDropHandle::new(task), home: Handle::current().id() })
}

fn client_config(params: &ConnParams, tls: &Tls, application: &str, limit: Duration) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    let mut is_socket = false;
    for host in params.host.as_deref().unwrap_or_default().split(',').filter(|host| !host.is_empty()) {
        config.host(host).port(params.port.unwrap_or(5432));
        is_socket |= host.starts_with('/');
    }
    config.dbname(params.dbname.as_deref().unwrap_or("postgres"));
    config.user(params.user());
    if let Some(password) = &params.credentials.password {
        config.password(password.reveal());
    }
    if params.extra.iter().any(|(name, value)| name == "target_session_attrs" && value == "read-write") {
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    let ssl_mode = if is_socket { SslMode::Disable } else { tls.ssl_mode() };
    config.application_name(application).connect_timeout(limit).ssl_mode(ssl_mode);
    config.options("-c statement_timeout=2000 -c search_path=pg_catalog");
    config
}

/// Open connections to our own server that nobody uses at the moment, one for each runtime: the loop's, and one for the
/// REST API and whatever else is done beside the loop. Who used the other's would have to wake it.
#[derive(Default)]
pub struct Sessions {
    idle: Mutex<Vec<Session>>,
}

impl Sessions {
    /// An open connection, if there is one.
    pub fn take(&self) -> Option<Session> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|session| !session.is_closed());
        let here = Handle::current().id();
        let own = idle.iter().position(|session| session.home == here)?;
        Some(idle.swap_remove(own))
    }

    /// Gives a connection back that works.
    pub fn give(&self, session: Session) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !session.is_closed() && idle.iter().all(|other| other.home != session.home) {
            idle.push(session);
        }
    }

    /// Closes them all. Whether there were any.
    pub fn clear(&self) -> bool {
        let closed = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        !closed.is_empty()
    }
}
