//! The server's protocol, as far as a client needs it that speaks it itself: connect, encrypt, authenticate, send and
//! receive messages.
//!
//! The ordinary client library cannot open a replication connection, and it keeps back what a person at a terminal
//! wants to see (the types of columns, the words of a finished command). A server is believed nothing: a message that
//! makes no sense is an error, never a panic. Limits are the callers' business.

use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use postgres_protocol::authentication;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{
    DataRowBody, ErrorResponseBody, Header, Message, ParameterStatusBody, SaslMechanisms,
};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::fallible_iterator::FallibleIterator;

use crate::config::Secret;

use super::PgError;
use super::pgpass::ConnParams;
use super::tls::{Tls, TlsMode};

/// A longer announcement than this is nonsense, unless the caller expects more.
const MESSAGE_LIMIT: i32 = 16 << 20;

/// A server to ask, and as whom.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// Host names or addresses (comma separated, tried in order); a directory means the socket in it.
    pub host: String,
    /// Port.
    pub port: u16,
    /// User.
    pub user: String,
    /// Password, if one is configured.
    pub password: Option<Secret>,
    /// Encryption; never used on a socket.
    pub tls: Tls,
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

    /// Whether to try with encryption (`true`) and without, in this order.
    pub fn ways(&self, host: &str) -> &'static [bool] {
        match self.tls.mode() {
            _ if host.starts_with('/') => &[false],
            TlsMode::Disable => &[false],
            // A server may offer encryption and yet have no rule that lets us in with it.
            TlsMode::Prefer => &[true, false],
            TlsMode::Require => &[true],
        }
    }
}

/// What a server says is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Complaint {
    /// `ERROR`, `FATAL`, in the server's language.
    pub severity: String,
    /// SQLSTATE.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// What may help.
    pub hint: Option<String>,
}

impl Complaint {
    /// Reads the fields. The library's own accessor for text panics on what is not UTF-8.
    pub fn read(body: &ErrorResponseBody) -> Self {
        let mut complaint = Self::default();
        let mut fields = body.fields();
        while let Ok(Some(field)) = fields.next() {
            let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
            match field.type_() {
                b'S' => complaint.severity = value,
                b'C' => complaint.code = value,
                b'M' => complaint.message = value,
                b'D' => complaint.detail = Some(value),
                b'H' => complaint.hint = Some(value),
                _ => {}
            }
        }
        complaint
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WireError {
    /// The server says so.
    Server(Complaint),
    /// It asks for a password and there is none.
    NoPassword(String),
    /// There is no way to it.
    Unreachable(String),
    /// It broke off, or makes no sense.
    Broken(String),
}

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Server(c) => write!(f, "{}: {} (SQLSTATE {})", c.severity, c.message, c.code),
            Self::NoPassword(user) => {
                write!(f, "the server asks for the password of \"{user}\" and none is configured")
            }
            Self::Unreachable(text) | Self::Broken(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for WireError {}

impl From<WireError> for PgError {
    fn from(error: WireError) -> Self {
        Self::Query(error.to_string())
    }
}

pub(super) fn broken(what: impl std::fmt::Display) -> WireError {
    WireError::Broken(what.to_string())
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// `Terminate`: the type, and the length of nothing but itself.
const FAREWELL: &[u8] = b"X\0\0\0\x04";

/// An open connection. Dropping it says goodbye and closes it: a server that loses a connection without a word writes
/// that to its log as an error.
pub struct Wire {
    stream: Box<dyn Stream>,
    buffer: BytesMut,
    message_limit: i32,
    zone: Option<String>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        // One attempt and no waiting: five bytes fit unless the connection is in trouble, and then nobody listens.
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(Ok(_)) = Pin::new(&mut self.stream).poll_write(&mut context, FAREWELL) {
            let _ = Pin::new(&mut self.stream).poll_flush(&mut context);
        }
    }
}

impl Wire {
    pub(super) fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        Self { stream: Box::new(stream), buffer: BytesMut::new(), message_limit: MESSAGE_LIMIT, zone: None }
    }

    /// Connects, encrypts if asked to, and authenticates. `parameters` are sent besides the user.
    pub async fn connect(
        host: &str,
        target: &Target,
        encrypted: bool,
        parameters: &[(&str, &str)],
    ) -> Result<Self, WireError> {
        let failed = |error: std::io::Error| WireError::Unreachable(error.to_string());
        let mut wire = if host.starts_with('/') {
            let path = Path::new(host).join(format!(".s.PGSQL.{}", target.port));
            Self::over(UnixStream::connect(path).await.map_err(failed)?)
        } else {
            let mut stream = TcpStream::connect((host, target.port)).await.map_err(failed)?;
            stream.set_nodelay(true).map_err(failed)?;
            match encrypted && agrees_to_tls(&mut stream).await.map_err(failed)? {
                true => Self::over(target.tls.handshake(host, stream).await.map_err(failed)?),
                false if encrypted && target.tls.mode() == TlsMode::Require => {
                    return Err(broken("server does not support SSL, but SSL was required"));
                }
                false => Self::over(stream),
            }
        };
        wire.start(target, parameters).await?;
        Ok(wire)
    }

    /// Lets messages be as long as they like.
    pub fn without_message_limit(mut self) -> Self {
        self.message_limit = i32::MAX;
        self
    }

    /// The time zone of the session, as the server calls it.
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// Startup and authentication, up to the first `ReadyForQuery`.
    pub(super) async fn start(&mut self, target: &Target, parameters: &[(&str, &str)]) -> Result<(), WireError> {
        let mut out = BytesMut::new();
        let own = [("user", target.user.as_str()), ("client_encoding", "UTF8")];
        frontend::startup_message(own.into_iter().chain(parameters.iter().copied()), &mut out).map_err(broken)?;
        self.send(&out).await?;
        self.authenticate(target).await?;
        loop {
            match self.next().await? {
                Message::ReadyForQuery(_) => return Ok(()),
                Message::BackendKeyData(_) => {}
                Message::ErrorResponse(body) => return Err(WireError::Server(Complaint::read(&body))),
                _ => return Err(broken("the server sent an unexpected message after authentication")),
            }
        }
    }

    async fn authenticate(&mut self, target: &Target) -> Result<(), WireError> {
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
            Message::ErrorResponse(body) => return Err(WireError::Server(Complaint::read(&body))),
            _ => return Err(broken("the server asks for an authentication method that is not supported here")),
        }
        if !out.is_empty() {
            self.send(&out).await?;
        }
        match self.next().await? {
            Message::AuthenticationOk => Ok(()),
            Message::ErrorResponse(body) => Err(WireError::Server(Complaint::read(&body))),
            _ => Err(broken("the server sent an unexpected message during authentication")),
        }
    }

    /// SCRAM: both sides prove that they know the password.
    async fn scram(&mut self, password: &[u8]) -> Result<(), WireError> {
        let mut scram = ScramSha256::new(password, ChannelBinding::unsupported());
        let mut out = BytesMut::new();
        frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut out).map_err(broken)?;
        self.send(&out).await?;
        match self.next().await? {
            Message::AuthenticationSaslContinue(body) => scram.update(body.data()).map_err(broken)?,
            Message::ErrorResponse(body) => return Err(WireError::Server(Complaint::read(&body))),
            _ => return Err(broken("the server broke off the SCRAM exchange")),
        }
        out.clear();
        frontend::sasl_response(scram.message(), &mut out).map_err(broken)?;
        self.send(&out).await?;
        match self.next().await? {
            Message::AuthenticationSaslFinal(body) => scram.finish(body.data()).map_err(broken),
            Message::ErrorResponse(body) => Err(WireError::Server(Complaint::read(&body))),
            _ => Err(broken("the server did not finish the SCRAM exchange")),
        }
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        self.stream.write_all(bytes).await.map_err(broken)?;
        self.stream.flush().await.map_err(broken)
    }

    /// The next message that is an answer; notices and settings are passed over.
    pub async fn next(&mut self) -> Result<Message, WireError> {
        loop {
            if let Some(header) = Header::parse(&self.buffer).map_err(broken)? {
                if header.len() > self.message_limit {
                    return Err(broken(format!("the server announced a message of {} bytes", header.len())));
                }
                match Message::parse(&mut self.buffer).map_err(broken)? {
                    Some(Message::NoticeResponse(_) | Message::NotificationResponse(_)) => continue,
                    Some(Message::ParameterStatus(body)) => {
                        self.note(&body);
                        continue;
                    }
                    Some(message) => return Ok(message),
                    None => {}
                }
            }
            if self.stream.read_buf(&mut self.buffer).await.map_err(broken)? == 0 {
                return Err(broken("the server closed the connection"));
            }
        }
    }

    fn note(&mut self, body: &ParameterStatusBody) {
        if let (Ok("TimeZone"), Ok(zone)) = (body.name(), body.value()) {
            self.zone = Some(zone.to_owned());
        }
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
        other => {
            let text = format!("received invalid response to SSL negotiation: {}", char::from(other));
            Err(std::io::Error::other(text))
        }
    }
}

fn password(target: &Target) -> Result<&[u8], WireError> {
    let missing = || WireError::NoPassword(target.user.clone());
    target.password.as_ref().map(|password| password.reveal().as_bytes()).ok_or_else(missing)
}

fn offers_scram(mut mechanisms: SaslMechanisms<'_>) -> Result<(), WireError> {
    let mut offered = Vec::new();
    while let Some(mechanism) = mechanisms.next().map_err(broken)? {
        if mechanism == SCRAM_SHA_256 {
            return Ok(());
        }
        offered.push(mechanism.to_owned());
    }
    Err(broken(format!("the server offers only {offered:?} for authentication, none of which is supported here")))
}

/// The columns of a row; `None` is NULL.
pub fn columns(body: &DataRowBody) -> Result<Vec<Option<String>>, WireError> {
    let mut columns = Vec::new();
    let mut ranges = body.ranges();
    while let Some(range) = ranges.next().map_err(broken)? {
        let bytes = range.map(|range| body.buffer().get(range).unwrap_or_default());
        columns.push(bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()));
    }
    Ok(columns)
}
