//! One connection to one endpoint, and what its failures mean.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::proto::{PbWatchRequest, PbWatchRequestUnion, PbWatchResponse};
use futures::channel::mpsc::UnboundedReceiver;
use futures::{StreamExt, stream};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tonic::client::Grpc;
use tonic::codegen::http::Uri;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, ConnectError, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::service_fn;

use super::request::Request;
use crate::dcs::layout::range_end;

/// A whole cluster is one message: a large configuration and history go beyond the usual 4 MiB.
const LARGEST_MESSAGE: usize = 64 << 20;

/// etcd takes pings more often than every five seconds as an attack.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// What authentication gave us, sent with every request.
pub(super) type Token = MetadataValue<Ascii>;

/// Why there is no answer, by what follows from it.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Nothing was sent.
    #[error("cannot connect: {0}")]
    NotConnected(String),
    /// Something was sent, and what became of it is unknown.
    #[error("{0}")]
    Lost(String),
    /// The server asks to come back later; whether it did what it was asked is unknown.
    #[error("{0}")]
    Later(String),
    /// A put named a lease that does not exist any more.
    #[error("the lease is gone")]
    LeaseNotFound,
    /// The server wants a (new) token.
    #[error("{0}")]
    Unauthenticated(String),
    /// The server does not know this user or password.
    #[error("{0}")]
    BadCredentials(String),
    /// The server will not do it.
    #[error("{0}")]
    Refused(String),
}

impl Failure {
    fn of(status: &Status) -> Self {
        let text = status.message();
        let said = || format!("the server says: {text}");
        let says = |words: &str| text.contains(words);
        if has_source::<ConnectError>(status) {
            return Self::NotConnected(innermost(status));
        }
        // A status with a source was made up on this side.
        if status.source().is_some() {
            return Self::Lost(format!("connection lost: {}", innermost(status)));
        }
        match status.code() {
            _ if says("requested lease not found") => Self::LeaseNotFound,
            _ if says("authentication failed, invalid user") => Self::BadCredentials(said()),
            _ if TOKEN_TROUBLE.iter().any(|words| says(words)) => Self::Unauthenticated(said()),
            Code::Unavailable => Self::Lost(said()),
            Code::Unknown if says("not a primary lessor") => Self::Lost(said()),
            // A proxy, or a server going down in the middle of an answer.
            Code::Cancelled | Code::Internal if !says("etcdserver:") => Self::Lost(said()),
            Code::DeadlineExceeded | Code::FailedPrecondition => Self::Later(said()),
            code if text.is_empty() => Self::Refused(format!("the server says: {code}")),
            _ => Self::Refused(said()),
        }
    }
}

const TOKEN_TROUBLE: [&str; 4] =
    ["user name is empty", "permission denied", "invalid auth token", "revision of auth store is old"];

fn has_source<E: Error + 'static>(status: &Status) -> bool {
    let mut next: Option<&(dyn Error + 'static)> = Some(status);
    while let Some(error) = next {
        if error.is::<E>() {
            return true;
        }
        next = error.source();
    }
    false
}

/// The last cause says what happened; those around it only say that something did.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// One connection. Clones share it.
#[derive(Clone)]
pub(super) struct Wire {
    channel: Channel,
}

impl Wire {
    /// Connects within the time given. `url` is `http://HOST:PORT` or `https://HOST:PORT`.
    pub(super) async fn connect(url: &str, tls: Option<Arc<ClientConfig>>, timeout: Duration) -> Result<Self, Failure> {
        let failed = |error: &(dyn Error + 'static)| Failure::NotConnected(innermost(error));
        let origin: Uri = url.parse().map_err(|error| Failure::NotConnected(format!("{url}: {error}")))?;
        // TLS is made by our own connector, which knows about certificates that are their own CA; to the library the
        // connection is a plain one, with an origin of its own.
        let plain = url.replacen("https://", "http://", 1);
        let tls = origin.scheme_str().filter(|scheme| *scheme == "https").and(tls);
        let endpoint = Endpoint::from_shared(plain)
            .map_err(|error| failed(&error))?
            .origin(origin)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .user_agent(concat!("pgherd/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| failed(&error))?;
        let connector = service_fn(move |uri: Uri| open(uri, tls.clone(), timeout));
        let channel = endpoint.connect_with_connector(connector).await.map_err(|error| failed(&error))?;
        Ok(Self { channel })
    }

    fn grpc(&self) -> Grpc<Channel> {
        Grpc::new(self.channel.clone()).max_decoding_message_size(LARGEST_MESSAGE)
    }

    /// Sends one request and waits for its answer until then.
    pub(super) async fn ask<R: Request>(
        &self,
        request: &R,
        token: Option<&Token>,
        until: Instant,
    ) -> Result<R::Answer, Failure> {
        let begin = Instant::now();
        let answer = timeout_at(until, self.ask_unbounded(request.clone(), token)).await;
        answer.unwrap_or_else(|_| Err(Failure::Lost(format!("no answer within {:.1?}", begin.elapsed()))))
    }

    async fn ask_unbounded<R: Request>(&self, request: R, token: Option<&Token>) -> Result<R::Answer, Failure> {
        let mut grpc = self.grpc();
        grpc.ready().await.map_err(|error| Failure::NotConnected(innermost(&error)))?;
        let path = PathAndQuery::from_static(R::PATH);
        let codec = ProstCodec::<R, R::Answer>::default();
        if R::IS_STREAM {
            // Our side of the stream stays open: a proxy may take its end for ours.
            let requests = stream::once(async { request }).chain(stream::pending());
            let answer = grpc.streaming(with_token(requests, token), path, codec).await;
            let message = answer.map_err(|status| Failure::of(&status))?.into_inner().message().await;
            let message = message.map_err(|status| Failure::of(&status))?;
            return message.ok_or_else(|| Failure::Lost("the stream ended without an answer".to_owned()));
        }
        let answer = grpc.unary(with_token(request, token), path, codec).await;
        answer.map(tonic::Response::into_inner).map_err(|status| Failure::of(&status))
    }

    /// Opens a watch on everything below `prefix` from now on. The server ends it when it loses its quorum, on which a
    /// silent watch would tell nothing. Each of the `questions` asks how far the watch is: the answer is a
    /// message without events, behind all events until then.
    pub(super) async fn watch(
        &self,
        prefix: &str,
        questions: UnboundedReceiver<()>,
        token: Option<&Token>,
    ) -> Result<Streaming<PbWatchResponse>, Failure> {
        let mut union = PbWatchRequestUnion::CreateRequest(Default::default());
        if let PbWatchRequestUnion::CreateRequest(create) = &mut union {
            create.key = prefix.into();
            create.range_end = range_end(prefix);
        }
        let create = PbWatchRequest { request_union: Some(union) };
        let questions = questions
            .map(|()| PbWatchRequest { request_union: Some(PbWatchRequestUnion::ProgressRequest(Default::default())) });
        let requests = stream::once(async { create }).chain(questions).chain(stream::pending());
        let mut request = with_token(requests, token);
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        let mut grpc = self.grpc();
        grpc.ready().await.map_err(|error| Failure::NotConnected(innermost(&error)))?;
        let codec = ProstCodec::<PbWatchRequest, PbWatchResponse>::default();
        let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
        let answer = grpc.streaming(request, path, codec).await;
        answer.map(tonic::Response::into_inner).map_err(|status| Failure::of(&status))
    }
}

fn with_token<T>(message: T, token: Option<&Token>) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    if let Some(token) = token {
        request.metadata_mut().insert("token", token.clone());
    }
    request
}

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn open(uri: Uri, tls: Option<Arc<ClientConfig>>, timeout: Duration) -> io::Result<TokioIo<Box<dyn Stream>>> {
    let in_time = tokio::time::timeout(timeout, open_unbounded(uri, tls)).await;
    let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {timeout:.1?}"));
    in_time.unwrap_or_else(|_| Err(late())).map(TokioIo::new)
}

pub(super) async fn open_unbounded(uri: Uri, tls: Option<Arc<ClientConfig>>) -> io::Result<Box<dyn Stream>> {
    let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{uri}: {text}"));
    let host = uri.host().ok_or_else(|| invalid("no host"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let tcp = TcpStream::connect((host, uri.port_u16().unwrap_or(2379))).await?;
    tcp.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok(Box::new(tcp)) };
    let name = ServerName::try_from(host.to_owned()).map_err(|_| invalid("not a host name"))?;
    Ok(Box::new(TlsConnector::from(tls).connect(name, tcp).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(code: Code, message: &str) -> &'static str {
        match Failure::of(&Status::new(code, message)) {
            Failure::NotConnected(_) => "not connected",
            Failure::Lost(_) => "lost",
            Failure::Later(_) => "later",
            Failure::LeaseNotFound => "lease",
            Failure::Unauthenticated(_) => "token",
            Failure::BadCredentials(_) => "credentials",
            Failure::Refused(_) => "refused",
        }
    }

    #[test]
    fn what_the_server_says_is_taken_by_its_words_first() {
        assert_eq!(class(Code::NotFound, "etcdserver: requested lease not found"), "lease");
        assert_eq!(class(Code::InvalidArgument, "etcdserver: user name is empty"), "token");
        assert_eq!(class(Code::Unauthenticated, "etcdserver: invalid auth token"), "token");
        assert_eq!(class(Code::PermissionDenied, "etcdserver: permission denied"), "token");
        let bad = "etcdserver: authentication failed, invalid user ID or password";
        assert_eq!(class(Code::InvalidArgument, bad), "credentials");
        assert_eq!(class(Code::Unavailable, "etcdserver: request timed out"), "lost");
        assert_eq!(class(Code::Unknown, "etcdserver: not a primary lessor"), "lost");
        assert_eq!(class(Code::DeadlineExceeded, "context deadline exceeded"), "later");
        assert_eq!(class(Code::FailedPrecondition, "etcdserver: not leader"), "later");
        assert_eq!(class(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"), "refused");
        assert_eq!(class(Code::Unimplemented, ""), "refused");
        assert_eq!(class(Code::Cancelled, "grpc: the client connection is closing"), "lost");
    }

    #[tokio::test]
    async fn a_closed_port_is_known_not_to_have_been_sent_anything() {
        let failure = Wire::connect("http://127.0.0.1:1", None, Duration::from_secs(5)).await.err().unwrap();
        assert!(matches!(&failure, Failure::NotConnected(text) if text.contains("refused")), "{failure}");
    }
}
