//! A small client for the replication protocol: connect, authenticate, ask one-line commands.
//!
//! The ordinary client library cannot open a replication connection. Ours is enough for the questions a physical
//! standby asks about history; it never streams. A server is believed nothing: a message that makes no sense is an
//! error, never a panic, and every call has a limit.

use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::authentication;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{DataRowBody, ErrorResponseBody, Header, Message, SaslMechanisms};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_postgres::fallible_iterator::FallibleIterator;

use crate::cluster::{HistoryLine, Lsn, SystemId, Timeline};
use crate::config::Secret;

use super::PgError;
use super::pgpass::ConnParams;
use super::tls::{Tls, TlsMode};

/// No answer we ask for comes near this; a longer announcement is nonsense.
const MESSAGE_LIMIT: i32 = 16 << 20;

/// A server to ask, and as whom.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// Host names or addresses (comma separated, tried in order); a directory means the socket in it.
    pub host: String,
    /// Port.
    pub port: u16,
    /// User with the right to replicate.
    pub user: String,
    /// Password, if one is configured.
    pub password: Option<Secret>,
    /// Encryption; never used on a socket.
    pub tls: Tls,
}

/// The answer to `IDENTIFY_SYSTEM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemIdentity {
    /// System identifier.
    pub system_id: Option<SystemId>,
    /// The current timeline; on a standby the one it replays.
    pub timeline: Timeline,
    /// Flushed position; on a standby the replayed one.
    pub position: Lsn,
}

/// The answer to `READ_REPLICATION_SLOT` (PostgreSQL 15 and later).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotPosition {
    /// Where the slot keeps WAL from.
    pub restart_lsn: Option<Lsn>,
    /// The timeline of that position.
    pub restart_timeline: Option<Timeline>,
}

impl Target {
    /// The same server and user as a program would be given.
    pub fn new(params: &ConnParams) -> Result<Self, PgError> {
        Ok(Self {
            host: params.host.clone().unwrap_or_default(),
            port: params.port.unwrap_or(5432),
            user: params.user(),
            password: params.credentials.password.clone(),
            tls: Tls::from_options(&params.credentials.options)?,
        })
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// `Terminate`: the type, and the length of nothing but itself.
const FAREWELL: &[u8] = b"X\0\0\0\x04";

/// An open replication connection. Dropping it says goodbye and closes it: a server that loses a connection without a
/// word writes that to its log as an error.
pub struct Replication {
    stream: Box<dyn Stream>,
    buffer: BytesMut,
    limit: Duration,
}

impl Drop for Replication {
    fn drop(&mut self) {
        // One attempt and no waiting: five bytes fit unless the connection is in trouble, and then nobody listens.
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(Ok(_)) = Pin::new(&mut self.stream).poll_write(&mut context, FAREWELL) {
            let _ = Pin::new(&mut self.stream).poll_flush(&mut context);
        }
    }
}

fn broken(what: impl std::fmt::Display) -> PgError {
    PgError::Query(what.to_string())
}

impl Replication {
    /// Connects and authenticates; `limit` holds for this and for each question after it.
    pub async fn connect(target: &Target, limit: Duration) -> Result<Self, PgError> {
        let mut last = broken(format!("no host to connect to is given: `{}`", target.host));
        for host in target.host.split(',').filter(|host| !host.is_empty()) {
            // With `prefer`, a server may offer encryption and yet have no rule that lets us in with it.
            let ways: &[bool] = match target.tls.mode() {
                _ if host.starts_with('/') => &[false],
                TlsMode::Disable => &[false],
                TlsMode::Prefer => &[true, false],
                TlsMode::Require => &[true],
            };
            for encrypted in ways {
                match timeout(limit, Self::connect_to(host, target, *encrypted, limit)).await {
                    Ok(Ok(connection)) => return Ok(connection),
                    Ok(Err(error)) => last = error,
                    Err(_) => {
                        let what = format!("replication connection to {host}:{}", target.port);
                        last = PgError::Timeout(limit, what);
                        break;
                    }
                }
            }
        }
        Err(last)
    }

    async fn connect_to(host: &str, target: &Target, encrypted: bool, limit: Duration) -> Result<Self, PgError> {
        let failed =
            |error: std::io::Error| broken(format!("replication connection to {host}:{} failed: {error}", target.port));
        let stream: Box<dyn Stream> = if host.starts_with('/') {
            let path = Path::new(host).join(format!(".s.PGSQL.{}", target.port));
            Box::new(UnixStream::connect(path).await.map_err(failed)?)
        } else {
            let mut stream = TcpStream::connect((host, target.port)).await.map_err(failed)?;
            stream.set_nodelay(true).map_err(failed)?;
            match encrypted && agrees_to_tls(&mut stream).await.map_err(failed)? {
                true => Box::new(target.tls.handshake(host, stream).await.map_err(failed)?),
                false if encrypted && target.tls.mode() == TlsMode::Require => {
                    return Err(failed(std::io::Error::other("sslmode asks for TLS and the server has none")));
                }
                false => Box::new(stream),
            }
        };
        let mut connection = Self { stream, buffer: BytesMut::new(), limit };
        connection.start(target).await.map_err(|error| match error {
            PgError::Query(text) => broken(format!("replication connection to {host}:{}: {text}", target.port)),
            other => other,
        })?;
        Ok(connection)
    }

    /// Startup and authentication, up to the first `ReadyForQuery`.
    async fn start(&mut self, target: &Target) -> Result<(), PgError> {
        let mut out = BytesMut::new();
        let parameters = [
            ("user", target.user.as_str()),
            ("replication", "1"),
            ("application_name", "Patroni"),
            ("client_encoding", "UTF8"),
        ];
        frontend::startup_message(parameters, &mut out).map_err(broken)?;
        self.send(&out).await?;
        self.authenticate(target).await?;
        loop {
            match self.next().await? {
                Message::ReadyForQuery(_) => return Ok(()),
                Message::BackendKeyData(_) => {}
                Message::ErrorResponse(body) => return Err(server_error(&body)),
                _ => return Err(broken("the server sent an unexpected message after authentication")),
            }
        }
    }

    async fn authenticate(&mut self, target: &Target) -> Result<(), PgError> {
        let mut out = BytesMut::new();
        match self.next().await? {
            Message::AuthenticationOk => return Ok(()),
            Message::AuthenticationCleartextPassword => {
                frontend::password_message(password(target)?, &mut out).map_err(broken)?;
            }
            Message::AuthenticationMd5Password(body) => {
                let hash = authentication::md5_hash(target.user.as_bytes(), password(target)?, body.salt());
                frontend::password_message(hash.as_bytes(), &mut out).map_err(broken)?;
            }
            Message::AuthenticationSasl(body) => {
                offers_scram(body.mechanisms())?;
                self.scram(password(target)?).await?;
            }
            Message::ErrorResponse(body) => return Err(server_error(&body)),
            _ => return Err(broken("the server asks for an authentication method that is not supported here")),
        }
        if !out.is_empty() {
            self.send(&out).await?;
        }
        match self.next().await? {
            Message::AuthenticationOk => Ok(()),
            Message::ErrorResponse(body) => Err(server_error(&body)),
            _ => Err(broken("the server sent an unexpected message during authentication")),
        }
    }

    /// SCRAM: both sides prove that they know the password.
    async fn scram(&mut self, password: &[u8]) -> Result<(), PgError> {
        let mut scram = ScramSha256::new(password, ChannelBinding::unsupported());
        let mut out = BytesMut::new();
        frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut out).map_err(broken)?;
        self.send(&out).await?;
        match self.next().await? {
            Message::AuthenticationSaslContinue(body) => scram.update(body.data()).map_err(broken)?,
            Message::ErrorResponse(body) => return Err(server_error(&body)),
            _ => return Err(broken("the server broke off the SCRAM exchange")),
        }
        out.clear();
        frontend::sasl_response(scram.message(), &mut out).map_err(broken)?;
        self.send(&out).await?;
        match self.next().await? {
            Message::AuthenticationSaslFinal(body) => scram.finish(body.data()).map_err(broken),
            Message::ErrorResponse(body) => Err(server_error(&body)),
            _ => Err(broken("the server did not finish the SCRAM exchange")),
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), PgError> {
        self.stream.write_all(bytes).await.map_err(broken)?;
        self.stream.flush().await.map_err(broken)
    }

    /// The next message that is an answer; notices and settings are passed over.
    async fn next(&mut self) -> Result<Message, PgError> {
        loop {
            if let Some(header) = Header::parse(&self.buffer).map_err(broken)? {
                if header.len() > MESSAGE_LIMIT {
                    return Err(broken(format!("the server announced a message of {} bytes", header.len())));
                }
                match Message::parse(&mut self.buffer).map_err(broken)? {
                    Some(Message::NoticeResponse(_) | Message::ParameterStatus(_)) => continue,
                    Some(message) => return Ok(message),
                    None => {}
                }
            }
            if self.stream.read_buf(&mut self.buffer).await.map_err(broken)? == 0 {
                return Err(broken("the server closed the connection"));
            }
        }
    }

    /// Sends one command and collects its rows as text.
    async fn ask(&mut self, command: &str) -> Result<Vec<Vec<Option<String>>>, PgError> {
        let limit = self.limit;
        match timeout(limit, self.ask_unbounded(command)).await {
            Ok(answer) => answer,
            Err(_) => Err(PgError::Timeout(limit, format!("answer to {command}"))),
        }
    }

    async fn ask_unbounded(&mut self, command: &str) -> Result<Vec<Vec<Option<String>>>, PgError> {
        let mut out = BytesMut::new();
        frontend::query(command, &mut out).map_err(broken)?;
        self.send(&out).await?;
        let (mut rows, mut failure) = (Vec::new(), None);
        loop {
            match self.next().await? {
                Message::DataRow(body) => rows.push(columns(&body)?),
                Message::RowDescription(_) | Message::CommandComplete(_) | Message::EmptyQueryResponse => {}
                Message::ErrorResponse(body) => failure = Some(server_error(&body)),
                Message::ReadyForQuery(_) => return failure.map_or(Ok(rows), Err),
                _ => return Err(broken(format!("the server sent an unexpected message in answer to {command}"))),
            }
            if rows.len() > 1000 {
                return Err(broken(format!("the server does not stop answering {command}")));
            }
        }
    }

    /// Who the server is and where it stands.
    pub async fn identify_system(&mut self) -> Result<SystemIdentity, PgError> {
        let rows = self.ask("IDENTIFY_SYSTEM").await?;
        let row = rows.first().map(Vec::as_slice).unwrap_or_default();
        let text = |column: usize| row.get(column).and_then(Option::as_deref);
        let timeline = text(1).and_then(|text| text.parse().ok()).filter(|timeline| *timeline > 0);
        let position = text(2).and_then(|text| text.parse().ok());
        match (timeline, position) {
            (Some(timeline), Some(position)) => Ok(SystemIdentity {
                system_id: text(0).and_then(SystemId::parse),
                timeline: Timeline(timeline),
                position,
            }),
            _ => Err(broken(format!("the answer to IDENTIFY_SYSTEM makes no sense: {row:?}"))),
        }
    }

    /// The history of a timeline, from the server's own file.
    pub async fn timeline_history(&mut self, timeline: Timeline) -> Result<Vec<HistoryLine>, PgError> {
        let command = format!("TIMELINE_HISTORY {timeline}");
        let rows = self.ask(&command).await?;
        let content = rows.first().and_then(|row| row.get(1)).and_then(Option::as_deref);
        let content = content.ok_or_else(|| broken(format!("the answer to {command} has no content")))?;
        Ok(parse_history(content))
    }

    /// Where a physical slot stands; `None` when it does not exist.
    pub async fn read_slot(&mut self, slot: &str) -> Result<Option<SlotPosition>, PgError> {
        if slot.is_empty() || !slot.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
            return Err(PgError::Refused(format!("`{slot}` is not the name of a replication slot")));
        }
        let rows = self.ask(&format!("READ_REPLICATION_SLOT {slot}")).await?;
        let row = rows.first().map(Vec::as_slice).unwrap_or_default();
        let text = |column: usize| row.get(column).and_then(Option::as_deref);
        Ok(text(0).map(|_| SlotPosition {
            restart_lsn: text(1).and_then(|text| text.parse().ok()),
            restart_timeline: text(2).and_then(|text| text.parse().ok()).map(Timeline),
        }))
    }
}

/// Asks for encryption. The one byte of the answer is read alone: whatever came behind it in clear would be taken for
/// something said under encryption.
async fn agrees_to_tls(stream: &mut TcpStream) -> std::io::Result<bool> {
    let mut out = BytesMut::new();
    frontend::ssl_request(&mut out);
    stream.write_all(&out).await?;
    match stream.read_u8().await? {
        b'S' => Ok(true),
        b'N' => Ok(false),
        other => Err(std::io::Error::other(format!("unexpected answer {other} to the request for TLS"))),
    }
}

fn password(target: &Target) -> Result<&[u8], PgError> {
    let missing = || broken(format!("the server asks for the password of \"{}\" and none is configured", target.user));
    target.password.as_ref().map(|password| password.reveal().as_bytes()).ok_or_else(missing)
}

fn offers_scram(mut mechanisms: SaslMechanisms<'_>) -> Result<(), PgError> {
    let mut offered = Vec::new();
    while let Some(mechanism) = mechanisms.next().map_err(broken)? {
        if mechanism == SCRAM_SHA_256 {
            return Ok(());
        }
        offered.push(mechanism.to_owned());
    }
    Err(broken(format!("the server offers only {offered:?} for authentication, none of which is supported here")))
}

fn columns(body: &DataRowBody) -> Result<Vec<Option<String>>, PgError> {
    let mut columns = Vec::new();
    let mut ranges = body.ranges();
    while let Some(range) = ranges.next().map_err(broken)? {
        let bytes = range.map(|range| body.buffer().get(range).unwrap_or_default());
        columns.push(bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()));
    }
    Ok(columns)
}

/// Severity, text and SQLSTATE. The library's own accessor for text panics on what is not UTF-8.
fn server_error(body: &ErrorResponseBody) -> PgError {
    let (mut severity, mut message, mut code) = (String::new(), String::new(), String::new());
    let mut fields = body.fields();
    while let Ok(Some(field)) = fields.next() {
        let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'S' => severity = value,
            b'M' => message = value,
            b'C' => code = value,
            _ => {}
        }
    }
    broken(format!("{severity}: {message} (SQLSTATE {code})"))
}

/// Reads a history file: lines of timeline, LSN where it ended, reason; separated by tabs. What is not such a line
/// (comments, blanks) is passed over, as PostgreSQL does.
pub fn parse_history(content: &str) -> Vec<HistoryLine> {
    let line = |line: &str| {
        let mut fields = line.split('\t');
        Some(HistoryLine {
            timeline: Timeline(fields.next()?.trim().parse().ok().filter(|timeline| *timeline > 0)?),
            switch: fields.next()?.trim().parse().ok()?,
            reason: fields.next().unwrap_or_default().trim_end().to_owned(),
            timestamp: None,
            new_leader: None,
        })
    };
    content.lines().filter_map(line).collect()
}

#[cfg(test)]
#[path = "replication/tests.rs"]
mod tests;
