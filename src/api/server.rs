//! The HTTP server: sockets, TLS, limits, and what every answer is dressed in.
//!
//! A connection serves one read-only request after another, and closes after any other. A client that idles or hangs
//! holds one place for a bounded time. Whatever is slow (a client, PostgreSQL, the DCS) ends at a limit with an answer
//! or a closed connection.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body as AxumBody;
use hyper::body::{Bytes, Incoming};
use hyper::ext::ReasonPhrase;
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, SERVER, TRANSFER_ENCODING,
    USER_AGENT,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::config::RestApiConfig;
use crate::io::clock::{Clock, SystemClock};

use super::access::{Caller, Settings};
use super::health::parse_query;
use super::node::Node;
use super::routes::{Asked, Body, Endpoint, answer, route};
use super::wire::{Answer, Shape};

/// What bounds each connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections served at once; further ones wait to be accepted.
    pub connections: usize,
    /// For the TLS handshake, and again for the request line with headers.
    pub head: Duration,
    /// For the body.
    pub body: Duration,
    /// Longest body.
    pub body_bytes: usize,
    /// For the client to take the answer.
    pub drain: Duration,
    /// For the client to hang up after its last answer.
    pub linger: Duration,
    /// For requests under way when the server is told to end.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            head: Duration::from_secs(10),
            body: Duration::from_secs(10),
            body_bytes: 4 << 20,
            drain: Duration::from_secs(30),
            linger: Duration::from_secs(1),
            grace: Duration::from_secs(2),
        }
    }
}

/// A server, ready to run.
#[derive(Clone)]
pub struct Server {
    node: Arc<dyn Node>,
    settings: watch::Receiver<Arc<Settings>>,
    clock: Arc<dyn Clock>,
    limits: Limits,
}

/// Serves until told to end. New settings (certificates included) hold for connections accepted after they came.
pub async fn serve(
    listener: TcpListener,
    node: Arc<dyn Node>,
    settings: watch::Receiver<Arc<Settings>>,
    shutdown: CancellationToken,
) {
    Server::new(node, settings).run(listener, shutdown).await;
}

/// Opens the listening socket of `restapi.listen`. All addresses means IPv6 and IPv4 on one socket where there is IPv6.
pub async fn bind(config: &RestApiConfig) -> io::Result<TcpListener> {
    let invalid =
        |what: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("restapi.listen `{}` {what}", config.listen));
    let failed =
        |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {}: {error}", config.listen));
    let (host, port) = config.listen.rsplit_once(':').ok_or_else(|| invalid("is not HOST:PORT"))?;
    let port: u16 = port.parse().map_err(|_| invalid("has no valid port"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let backlog = config.request_queue_size.max(128);
    if host.is_empty() || host == "*" {
        let any_v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        return listen_on(any_v6, backlog)
            .or_else(|_| listen_on(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), backlog))
            .map_err(failed);
    }
    let mut last = invalid("does not resolve to an address");
    for address in tokio::net::lookup_host((host, port)).await.map_err(failed)? {
        match listen_on(address, backlog) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = failed(error),
        }
    }
    Err(last)
}

fn listen_on(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}

impl Server {
    /// A server with the machine's clock and the usual limits.
    pub fn new(node: Arc<dyn Node>, settings: watch::Receiver<Arc<Settings>>) -> Self {
        Self { node, settings, clock: Arc::new(SystemClock), limits: Limits::default() }
    }

    /// With other limits.
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// With another clock.
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Accepts and serves until told to end, then gives requests under way a moment.
    pub async fn run(self, listener: TcpListener, shutdown: CancellationToken) {
        let places = Arc::new(Semaphore::new(self.limits.connections));
        let mut connections = JoinSet::new();
        loop {
            let place = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(ended) = connections.join_next() => {
                    note_panic(ended);
                    continue;
                }
                place = Arc::clone(&places).acquire_owned() => place,
            };
            // The semaphore is never closed.
            let Ok(place) = place else { break };
            let accepted = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    let server = self.clone();
                    connections.spawn(async move {
                        server.connection(stream, address).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    // Most often the process has too many open files; accepting again at once would spin.
                    tracing::warn!(%error, "cannot accept a connection to the REST API");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(listener);
        let all_ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(self.limits.grace, all_ended).await.is_err() {
            connections.abort_all();
        }
    }

    async fn connection(&self, stream: TcpStream, address: SocketAddr) {
        if let Err(error) = set_socket_options(&stream) {
            tracing::debug!(%address, %error, "cannot set socket options");
        }
        let tls = self.settings.borrow().tls.clone();
        let Some(tls) = tls else {
            return self.exchange(stream, address, false).await;
        };
        let handshake = TlsAcceptor::from(tls).accept(stream);
        match tokio::time::timeout(self.limits.head, handshake).await {
            Ok(Ok(stream)) => {
                let has_certificate = stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
                self.exchange(stream, address, has_certificate).await;
            }
            Ok(Err(error)) => tracing::debug!(%address, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(%address, "TLS handshake took too long"),
        }
    }

    /// Requests and answers, one after another.
    async fn exchange<S>(&self, stream: S, address: SocketAddr, has_certificate: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (answered, answers) = watch::channel(false);
        let is_answering = AtomicBool::new(false);
        let service = service_fn(|request: Request<Incoming>| {
            let (answered, is_answering) = (&answered, &is_answering);
            Box::pin(async move {
                is_answering.store(true, Ordering::Relaxed);
                // An open connection must not outlive a change of who may do what.
                let settings = Arc::clone(&self.settings.borrow());
                let stays = may_ask_again(&request);
                let (answer, line) = self.handle(request, (address, has_certificate), &settings).await;
                tracing::debug!(client = %address, request = line, status = answer.status.as_u16(), "REST request");
                let mut response = respond(answer, &settings);
                if !stays {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                is_answering.store(false, Ordering::Relaxed);
                answered.send_replace(true);
                Ok::<_, Infallible>(response)
            })
        });
        let mut connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head)
            // A client may close its sending side once the request is out.
            .half_close(true)
            .serve_connection(TokioIo::new(stream), service);
        let ended = tokio::select! {
            biased;
            ended = poll_fn(|context| connection.poll_without_shutdown(context)) => ended,
            () = self.too_slow(answers, &is_answering) => {
                return tracing::debug!(%address, "the client did not take its answer");
            }
        };
        let parts = connection.into_parts();
        let mut stream = parts.io.into_inner();
        if let Err(error) = ended {
            tracing::debug!(%address, %error, "REST connection ended early");
            let code = match &parts.read_buf[..] {
                // Whoever has begun a request is waiting for its answer; an idle connection ends without one.
                [_, ..] if error.is_timeout() => Some(StatusCode::REQUEST_TIMEOUT),
                [b'P', b'R', b'I', b' ', ..] => Some(StatusCode::HTTP_VERSION_NOT_SUPPORTED),
                _ => None,
            };
            if let Some(answer) = code.map(bare_answer) {
                let _ = tokio::time::timeout(self.limits.grace, stream.write_all(answer.as_bytes())).await;
            }
        }
        let _ = tokio::time::timeout(self.limits.linger, part_with(stream)).await;
    }

    /// Ends when an answer was given long ago and no request came after it.
    async fn too_slow(&self, mut answered: watch::Receiver<bool>, is_answering: &AtomicBool) {
        loop {
            match tokio::time::timeout(self.limits.drain, answered.changed()).await {
                Ok(Ok(())) => {}
                Err(_) if !*answered.borrow() || is_answering.load(Ordering::Relaxed) => {}
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }

    /// The answer, and the request line for the log.
    async fn handle(
        &self,
        request: Request<Incoming>,
        (address, has_certificate): (SocketAddr, bool),
        settings: &Settings,
    ) -> (Answer, String) {
        let (head, body) = request.into_parts();
        let line = format!("{} {}", head.method, head.uri);
        let Some(endpoint) = route(&head.method, head.uri.path()) else {
            return (Answer::unsupported(&head.method), line);
        };
        // The body is read even when access will be denied: closing the connection over unread bytes would make the
        // client's system throw the answer away.
        let body = match endpoint {
            // Without its conditions a restart would be another one.
            _ if endpoint.has_optional_body() && head.headers.contains_key(TRANSFER_ENCODING) => {
                Err(Answer::error_page(StatusCode::LENGTH_REQUIRED))
            }
            _ if endpoint.is_guarded() => self.read_body(&head.headers, body).await,
            _ => Ok(Body::default()),
        };
        let body = match body {
            Ok(body) => body,
            Err(answer) => return (answer, line),
        };
        if endpoint.is_guarded() {
            let caller = Caller {
                address: address.ip(),
                has_certificate,
                authorization: head.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes),
                is_failsafe: endpoint == Endpoint::FailsafePing,
            };
            let view = self.node.snapshot();
            if let Err(answer) = settings.check(&caller, view.as_deref()).await {
                return (answer, line);
            }
        }
        let asked = Asked {
            endpoint,
            is_get: head.method == Method::GET,
            path: head.uri.path().to_owned(),
            query: head.uri.query().map(parse_query).unwrap_or_default(),
            body,
            now_ms: i64::try_from(self.clock.since_epoch().as_millis()).unwrap_or(i64::MAX),
        };
        let deadline = endpoint.deadline(&self.node.facts().dynamic);
        let answer = match tokio::time::timeout(deadline, answer(&*self.node, &asked)).await {
            Ok(answer) => answer,
            Err(_) => {
                let message = format!("no result within {} s; what was begun may go on", deadline.as_secs());
                Answer::text(StatusCode::SERVICE_UNAVAILABLE, message)
            }
        };
        (answer, line)
    }

    async fn read_body(&self, headers: &hyper::HeaderMap, body: Incoming) -> Result<Body, Answer> {
        let Some(announced) = headers.get(CONTENT_LENGTH) else { return Ok(Body(None)) };
        let announced = announced.to_str().ok().and_then(|text| text.trim().parse::<usize>().ok());
        match announced {
            None => return Err(Answer::error_page(StatusCode::BAD_REQUEST)),
            Some(0) => return Ok(Body(Some(Bytes::new()))),
            Some(length) if length > self.limits.body_bytes => {
                return Err(Answer::error_page(StatusCode::PAYLOAD_TOO_LARGE));
            }
            Some(_) => {}
        }
        let read = axum::body::to_bytes(AxumBody::new(body), self.limits.body_bytes);
        match tokio::time::timeout(self.limits.body, read).await {
            Ok(Ok(bytes)) => Ok(Body(Some(bytes))),
            Ok(Err(_)) => Err(Answer::error_page(StatusCode::BAD_REQUEST)),
            Err(_) => Err(Answer::error_page(StatusCode::REQUEST_TIMEOUT)),
        }
    }
}

/// Whether the connection stays open for another request. Not for Patroni's members: they ask so rarely that an idle
/// connection would be closed at the moment they use it again.
fn may_ask_again(request: &Request<Incoming>) -> bool {
    let is_patroni = request.headers().get(USER_AGENT).is_some_and(|name| name.as_bytes().starts_with(b"Patroni/"));
    matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) && !is_patroni
}

/// Closes a connection so that the last answer arrives: whoever is still sending (a body that is refused for its
/// length) is heard out, since closing over unread bytes makes the client's system throw the answer away.
async fn part_with(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    stream.shutdown().await?;
    let mut unread = [0; 4096];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}

/// An error page for which there is no request to answer, because its head did not come in time or makes no sense.
fn bare_answer(code: StatusCode) -> String {
    let (content_type, page) = Answer::error_page(code).content().unwrap_or_default();
    let length = page.len();
    format!(
        "HTTP/1.1 {code}\r\nConnection: close\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n{page}"
    )
}

fn note_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a REST request ended in a panic; this is a bug");
    }
}

/// A peer that vanished is noticed within seconds, also while an answer is on its way.
fn set_socket_options(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(3)).with_interval(Duration::from_secs(2)).with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(Duration::from_secs(10)))?;
    stream.set_nodelay(true)
}

fn respond(answer: Answer, settings: &Settings) -> Response<AxumBody> {
    let content = answer.content();
    let mut response = Response::new(AxumBody::empty());
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    if content.is_some()
        && let Ok(name) = HeaderValue::from_str(&settings.server_name)
    {
        headers.insert(SERVER, name);
    }
    for (name, value) in &answer.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
    match &answer.shape {
        Shape::Full { .. } => headers.extend(settings.extra_headers.iter().cloned()),
        Shape::StatusOnly => {}
        Shape::ErrorPage { reason } => {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
            if let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes()) {
                response.extensions_mut().insert(reason);
            }
        }
    }
    if let Some((content_type, body)) = content {
        response.headers_mut().entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(content_type));
        *response.body_mut() = AxumBody::from(body);
    }
    response
}

#[cfg(test)]
#[path = "server/tests.rs"]
mod tests;
#[cfg(test)]
#[path = "server/tls_tests.rs"]
mod tls_tests;
