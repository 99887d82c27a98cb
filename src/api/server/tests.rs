use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::api::client::{Client, ClientError};
use crate::api::fake::{Done, FakeNode, dynamic, object};
use crate::api::node::{Command, FailsafePing, Reply};
use crate::cluster::{Lsn, PeerAnswer, RestartRequest, Version};
use crate::config::{CtlConfig, Secret, VerifyClient};

pub(super) fn config() -> RestApiConfig {
    RestApiConfig {
        listen: "127.0.0.1:0".to_owned(),
        connect_address: String::new(),
        authentication: None,
        certfile: None,
        keyfile: None,
        keyfile_password: None,
        cafile: None,
        ciphers: None,
        verify_client: VerifyClient::None,
        allowlist: Vec::new(),
        allowlist_include_members: false,
        http_extra_headers: BTreeMap::new(),
        https_extra_headers: BTreeMap::new(),
        request_queue_size: 5,
        server_tokens: "original".to_owned(),
    }
}

/// A server on a free port, stopped when dropped.
pub(super) struct Running {
    pub(super) node: Arc<FakeNode>,
    pub(super) address: SocketAddr,
    pub(super) settings: watch::Sender<Arc<Settings>>,
    shutdown: CancellationToken,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Running {
    pub(super) async fn start(node: FakeNode, config: &RestApiConfig) -> Self {
        Self::start_with(node, config, Limits::default()).await
    }

    async fn start_with(node: FakeNode, config: &RestApiConfig, limits: Limits) -> Self {
        let listener = bind(config).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (settings, receiver) = watch::channel(Arc::new(Settings::load(config).await.unwrap()));
        let (node, shutdown) = (Arc::new(node), CancellationToken::new());
        let server = Server::new(node.clone(), receiver).with_limits(limits);
        let task = Some(tokio::spawn(server.run(listener, shutdown.clone())));
        Self { node, address, settings, shutdown, task }
    }

    /// Sends text, returns everything that comes back.
    async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        tokio::time::timeout(Duration::from_secs(20), read).await.expect("an answer in time").unwrap();
        answer
    }

    /// Code, head in lower case, body.
    async fn ask(&self, method: &str, target: &str, body: Option<&str>) -> (u16, String, String) {
        let length = body.map(|body| format!("Content-Length: {}\r\n", body.len())).unwrap_or_default();
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{length}\r\n{}",
            body.unwrap_or_default()
        );
        take_apart(&self.raw(&request).await)
    }

    async fn code(&self, method: &str, target: &str) -> u16 {
        self.ask(method, target, None).await.0
    }

    async fn said(&self, method: &str, target: &str, body: &str) -> (u16, String) {
        let (code, _, body) = self.ask(method, target, Some(body)).await;
        (code, body)
    }
}

fn take_apart(answer: &str) -> (u16, String, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {answer:?}"));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
    (code, head.to_lowercase(), body.to_owned())
}

async fn leader() -> Running {
    Running::start(FakeNode::leader(), &config()).await
}

#[tokio::test]
async fn statuses_and_health_checks() {
    let server = leader().await;
    let (code, head, body) = server.ask("GET", "/patroni/whatever", None).await;
    assert_eq!(code, 200);
    assert!(head.contains("content-type: application/json") && head.contains("connection: close"), "{head}");
    assert!(body.starts_with(r#"{"state": "running", "postmaster_start_time": "2026"#), "{body}");
    let (code, _, body) = server.ask("GET", "/no/such/path", None).await;
    assert_eq!(code, 503);
    assert!(body.starts_with(r#"{"state": "running""#), "{body}");
    assert_eq!(server.code("GET", "/").await, 200);
    assert_eq!(server.code("GET", "/switchover").await, 503);
    let (code, head, body) = server.ask("HEAD", "/primary", None).await;
    assert_eq!((code, body.as_str()), (200, ""));
    assert!(!head.contains("content-type") && !head.contains("server:"), "{head}");
    assert_eq!(server.ask("OPTIONS", "/replica", None).await.0, 503);
    assert_eq!(server.code("HEAD", "/patroni").await, 503);
    let (code, head, body) = server.ask("GET", "/journal", None).await;
    assert_eq!((code, body.as_str()), (200, "{\"seen\":1}\n{\"seen\":2}\n"));
    assert!(head.contains("content-type: application/x-ndjson"), "{head}");
    let (code, head, body) = server.ask("GET", "/liveness", None).await;
    assert_eq!((code, body.as_str()), (200, ""));
    assert!(!head.contains("content-type"), "{head}");
    assert_eq!(server.code("GET", "/readiness").await, 200);
    let replica = Running::start(FakeNode::replica(), &config()).await;
    assert_eq!(replica.code("GET", "/replica?lag=1MB&tag_a=").await, 200);
    assert_eq!(replica.code("GET", "/replica?tag_a=1").await, 503);
}

#[tokio::test]
async fn documents() {
    let server = leader().await;
    let (code, _, body) = server.ask("GET", "/cluster", None).await;
    assert_eq!(code, 200);
    assert!(body.starts_with(r#"{"members": [{"name": "pg1", "role": "leader", "state": "running""#), "{body}");
    assert_eq!(server.ask("GET", "/history", None).await.2, "[]");
    assert_eq!(server.ask("GET", "/config", None).await.2, r#"{"ttl": 30}"#);
    assert_eq!(server.ask("GET", "/failsafe", None).await.2, "{}");
    let (code, head, body) = server.ask("GET", "/metrics", None).await;
    assert_eq!(code, 200);
    assert!(head.contains("content-type: text/plain"));
    assert!(body.contains("patroni_primary{scope=\"demo\",name=\"pg1\"} 1\n"));
    server.node.facts.lock().unwrap().failsafe = None;
    assert_eq!(server.code("GET", "/failsafe").await, 502);
    server.node.view.lock().unwrap().as_mut().unwrap().config = None;
    assert_eq!(server.code("GET", "/config").await, 502);
    assert_eq!(server.said("PATCH", "/config", "{\"a\": 1}").await.0, 503);
}

#[tokio::test]
async fn settings_of_the_snapshot_count_before_the_loop_has_taken_them_over() {
    let server = leader().await;
    server.node.set(json!({"pause": true}));
    server.node.facts.lock().unwrap().dynamic = Arc::new(dynamic(json!({})));
    assert!(server.ask("GET", "/patroni", None).await.2.contains(r#""pause": true"#));
    assert!(server.ask("GET", "/cluster", None).await.2.contains(r#""pause": true"#));
    let (code, message) = server.said("POST", "/switchover", r#"{"leader": "pg1"}"#).await;
    assert_eq!(code, 400, "{message}");
}

#[tokio::test]
async fn a_lost_dcs_is_said_and_never_hangs() {
    let server = leader().await;
    *server.node.view.lock().unwrap() = None;
    for (method, target, body) in [
        ("GET", "/cluster", ""),
        ("GET", "/history", ""),
        ("GET", "/config", ""),
        ("PATCH", "/config", "{\"a\": 1}"),
        ("PUT", "/config", "{\"a\": 1}"),
        ("POST", "/switchover", "{\"leader\": \"pg1\"}"),
        ("POST", "/failover", "{\"candidate\": \"pg2\"}"),
        ("DELETE", "/switchover", ""),
        ("POST", "/restart", "{\"schedule\": \"2099-01-01T00:00Z\"}"),
    ] {
        let (code, text) = server.said(method, target, body).await;
        assert_eq!((code, text.as_str()), (503, "DCS is not accessible: 127.0.0.1:2379"), "{method} {target}");
    }
    assert_eq!(server.code("GET", "/primary").await, 200);
    assert_eq!(server.code("GET", "/async").await, 503);
}

#[tokio::test]
async fn configuration_is_patched_and_replaced() {
    let server = leader().await;
    let node = &server.node;
    assert_eq!(
        server.said("PATCH", "/config", r#"{"pause": true}"#).await,
        (200, r#"{"ttl": 30, "pause": true}"#.into())
    );
    let written = object(json!({"ttl": 30, "pause": true}));
    assert_eq!(node.done(), [Done::Config(written, Some(Version(7))), Done::Wake]);
    assert_eq!(server.said("PATCH", "/config", r#"{"ttl": "30", "no": null}"#).await.0, 200);
    assert_eq!(node.done(), [Done::Wake], "nothing changed, nothing written");
    assert_eq!(server.said("PUT", "/config", r#"{"x": null}"#).await, (200, r#"{"x": null}"#.into()));
    assert_eq!(node.done()[0], Done::Config(object(json!({"x": null})), None));
    assert_eq!(server.said("PUT", "/config", r#"{"ttl": 30}"#).await.0, 200);
    assert_eq!(node.done(), [Done::Wake]);
    *node.accepts_writes.lock().unwrap() = false;
    assert_eq!(server.said("PATCH", "/config", r#"{"a": 1}"#).await.0, 409);
    assert_eq!(server.said("PUT", "/config", r#"{"a": 1}"#).await.0, 502);
}

#[tokio::test]
async fn commands_and_their_codes() {
    let server = leader().await;
    let node = &server.node;
    let reply = |reply: Reply| *node.reply.lock().unwrap() = reply;
    assert_eq!(server.said("POST", "/reload", "ignored").await, (202, "reload scheduled".into()));
    assert_eq!(node.done(), [Done::Reload]);
    reply(Reply::Ok("restarted successfully".into()));
    let (code, head, body) = server.ask("POST", "/restart", None).await;
    assert_eq!((code, body.as_str()), (200, "restarted successfully"));
    assert!(head.contains("content-type: text/html"));
    assert_eq!(node.done(), [Done::Command(Command::Restart(RestartRequest::default()))]);
    reply(Reply::Refused("restart already in progress".into()));
    assert_eq!(server.said("POST", "/restart", "{}").await, (503, "restart already in progress".into()));
    let later = r#"{"schedule": "2099-01-01T00:00Z"}"#;
    assert_eq!(server.said("POST", "/restart", later).await.0, 409);
    reply(Reply::Ok("Restart scheduled".into()));
    assert_eq!(server.said("POST", "/restart", later).await, (202, "Restart scheduled".into()));
    assert_eq!(server.said("POST", "/restart", r#"{"x": 1}"#).await.0, 400);
    assert_eq!(server.code("DELETE", "/restart").await, 200);
    reply(Reply::Refused("no restarts are scheduled".into()));
    assert_eq!(server.code("DELETE", "/restart").await, 404);
    assert_eq!(server.said("POST", "/reinitialize", r#"{"force": true}"#).await.0, 503);
    assert!(matches!(node.done()[..], [.., Done::Command(Command::Reinitialize(request))] if request.force));
    assert_eq!(server.said("DELETE", "/switchover", "").await, (404, "no switchover is scheduled".into()));
    assert_eq!(server.code("POST", "/sigterm").await, 202);
    node.set(json!({"pause": true}));
    let paused = (500, "Can't schedule restart in the paused state".to_owned());
    assert_eq!(server.said("POST", "/restart", later).await, paused);
}

#[tokio::test]
async fn bodies_and_methods_that_are_refused() {
    let server = leader().await;
    for (method, target, body, code) in [
        ("POST", "/switchover", None, 411),
        ("PATCH", "/config", None, 411),
        ("POST", "/switchover", Some(""), 400),
        ("POST", "/switchover", Some("{}"), 400),
        ("POST", "/switchover", Some("[1]"), 400),
        ("POST", "/failover", Some("{"), 400),
        ("POST", "/restart", Some("null"), 400),
        ("POST", "/reinitialize", Some("x"), 400),
        ("POST", "/nothing", Some("{}"), 501),
        ("DELETE", "/failover", None, 501),
        ("TRACE", "/", None, 501),
    ] {
        let (got, head, page) = server.ask(method, target, body).await;
        assert_eq!(got, code, "{method} {target} {body:?}");
        assert!(head.contains("content-type: text/html;charset=utf-8"), "{head}");
        assert!(page.contains(&format!("Error code: {code}")), "{page}");
    }
    let answer = server.raw("POST /x HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 501 Unsupported method ('POST')\r\n"), "{answer}");
    let long = "POST /restart HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n";
    assert!(server.raw(long).await.contains(" 413 "));
    let chunked = "POST /switchover HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    assert!(server.raw(chunked).await.contains(" 411 "));
    assert!(server.raw("GET /patroni HTTP/1.0\r\n\r\n").await.contains(" 200 OK"));
    assert!(server.node.done().is_empty());
}

#[tokio::test]
async fn credentials_guard_what_changes_something() {
    let mut config = config();
    config.authentication = Some(("u".to_owned(), Secret::new("pä:ss")));
    config.server_tokens = "Minimal".to_owned();
    config.http_extra_headers.insert("X-Extra".to_owned(), "yes".to_owned());
    let server = Running::start(FakeNode::leader(), &config).await;
    let (code, head, body) = server.ask("POST", "/reload", None).await;
    assert_eq!((code, body.as_str()), (401, "no auth header received"));
    assert!(head.contains("www-authenticate: basic realm=\"patroni\"") && head.contains("x-extra: yes"), "{head}");
    assert!(head.contains("server: patroni/4.1.5"), "{head}");
    for wrong in ["Basic x", "basic dTpww6Q6c3M=", "Basic  dTpww6Q6c3M=", "Bearer x", "Basic dTpww6Q6c3M"] {
        let request = format!("POST /reload HTTP/1.1\r\nHost: x\r\nAuthorization: {wrong}\r\n\r\n");
        let (code, _, body) = take_apart(&server.raw(&request).await);
        assert_eq!((code, body.as_str()), (401, "not authenticated"), "{wrong}");
    }
    assert_eq!(server.code("GET", "/config").await, 200);
    assert!(server.node.done().is_empty());
    let ctl = CtlConfig { authentication: config.authentication.clone(), ..CtlConfig::default() };
    let client = Client::new(&ctl, Duration::from_secs(10)).unwrap();
    let answer = client.reload(&format!("http://{}/patroni", server.address)).await.unwrap();
    assert_eq!((answer.status, answer.text.as_str()), (202, "reload scheduled"));
}

#[tokio::test]
async fn addresses_that_may_call() {
    let mut config = config();
    config.allowlist = vec!["10.0.0.0/8".to_owned(), "nonsense/x".to_owned()];
    let server = Running::start(FakeNode::leader(), &config).await;
    assert_eq!(server.said("POST", "/reload", "").await, (403, "Access is denied".into()));
    assert_eq!(server.code("GET", "/patroni").await, 200);
    // New settings hold for the next connection.
    config.allowlist_include_members = true;
    let mut view = server.node.view.lock().unwrap().clone().unwrap();
    view.members[1].data = object(json!({"api_url": "http://127.0.0.1:1/patroni"}));
    *server.node.view.lock().unwrap() = Some(view);
    server.settings.send(Arc::new(Settings::load(&config).await.unwrap())).unwrap();
    assert_eq!(server.said("POST", "/reload", "").await.0, 202);
    assert_eq!(server.said("POST", "/failsafe", "{}").await.0, 403, "only the list counts there");
    *server.node.cached.lock().unwrap() = false;
    assert_eq!(server.said("POST", "/reload", "").await.0, 403);
    config.allowlist = vec!["localhost".to_owned()];
    server.settings.send(Arc::new(Settings::load(&config).await.unwrap())).unwrap();
    assert_eq!(server.said("POST", "/reload", "").await.0, 202);
}

#[tokio::test]
async fn failsafe_pings() {
    let node = FakeNode::replica().settings(json!({"failsafe_mode": true}));
    let server = Running::start(node, &config()).await;
    let api_url = format!("http://{}/patroni", server.address);
    let client = Client::new(&CtlConfig::default(), Duration::from_secs(10)).unwrap();
    let ping = FailsafePing { name: "pg1".into(), conn_url: "c".into(), api_url: "a".into(), slots: None, ttl: None };
    assert_eq!(client.failsafe(&api_url, &ping).await.unwrap(), Some(Some(Lsn(77))));
    assert_eq!(server.node.done(), [Done::Ping("pg1".into())]);
    assert_eq!(server.said("POST", "/failsafe", r#"{"name": "pg1"}"#).await.0, 400);
    *server.node.facts.lock().unwrap() = FakeNode::leader().settings(json!({"failsafe_mode": true})).facts();
    assert_eq!(client.failsafe(&api_url, &ping).await.unwrap(), None);
    server.node.facts.lock().unwrap().dynamic = Arc::new(dynamic(json!({})));
    assert_eq!(server.said("POST", "/failsafe", "").await.0, 502);
}

#[tokio::test]
async fn peers_ask_each_other() {
    let leader = leader().await;
    let replica = Running::start(FakeNode::replica(), &config()).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = |address: SocketAddr| format!("http://{address}/patroni");
    let peers = BTreeMap::from([
        ("pg1".into(), url(leader.address)),
        ("pg2".into(), url(replica.address)),
        ("pg3".into(), url(silent.local_addr().unwrap())),
        ("pg4".into(), "nonsense".to_owned()),
    ]);
    let client = Client::new(&CtlConfig::default(), Duration::from_millis(500)).unwrap();
    let answers = client.ask_all(&peers).await;
    assert!(matches!(answers["pg1"], PeerAnswer::Answered { in_recovery: false, position: Lsn(0), .. }));
    assert!(matches!(answers["pg2"], PeerAnswer::Answered { in_recovery: true, position: Lsn(1000), .. }));
    assert!(matches!(&answers["pg3"], PeerAnswer::Unreachable(why) if why.contains("no answer in time")));
    assert!(matches!(answers["pg4"], PeerAnswer::Unreachable(_)));
    let status = client.node_status(&url(leader.address)).await.unwrap();
    assert_eq!((status.state.as_str(), status.server_version), ("running", Some(150_018)));
    assert_eq!(status.agent_version.as_deref(), Some("4.1.5"));
    let refused = client.node_status("http://127.0.0.1:1/patroni").await.unwrap_err();
    assert!(
        matches!(&refused, ClientError::Unreachable { problem, is_timeout: false, .. }
        if problem.contains("refused")),
        "{refused}"
    );
}

#[tokio::test]
async fn all_addresses_serve_both_families() {
    let mut config = config();
    config.listen = "*:0".to_owned();
    config.allowlist = vec!["127.0.0.1".to_owned()];
    let mut server = Running::start(FakeNode::leader(), &config).await;
    let port = server.address.port();
    server.address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    assert_eq!(server.said("POST", "/reload", "").await.0, 202, "a mapped address is unmapped");
    if TcpListener::bind("[::1]:0").await.is_ok() {
        server.address = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
        assert_eq!(server.said("POST", "/reload", "").await.0, 403);
    }
    config.listen = server.address.to_string();
    let taken = bind(&config).await.unwrap_err().to_string();
    assert!(taken.contains(&format!("cannot listen on {}", config.listen)), "{taken}");
    config.listen = "no-port".to_owned();
    assert!(bind(&config).await.unwrap_err().to_string().contains("HOST:PORT"));
}

#[tokio::test]
async fn shutdown_lets_a_request_finish_and_then_closes() {
    let mut server = leader().await;
    *server.node.takes.lock().unwrap() = Duration::from_millis(200);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"POST /restart HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    // The next request on another connection is answered, so the first one has been accepted before it.
    assert_eq!(server.code("GET", "/patroni").await, 200);
    server.shutdown.cancel();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("200 OK"), "{answer:?}");
    server.task.take().unwrap().await.unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn a_connection_serves_one_reading_request_after_another() {
    let server = leader().await;
    let ask = |method: &str, more: &str| format!("{method} /patroni HTTP/1.1\r\nHost: x\r\n{more}\r\n");
    let three = ask("GET", "") + &ask("HEAD", "") + &ask("GET", "User-Agent: Patroni/4.1.5 Python/3.11\r\n");
    let answer = server.raw(&(three + &ask("GET", ""))).await;
    // The first two leave the connection open, the third closes it.
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 3, "{answer}");
    assert_eq!(answer.to_lowercase().matches("connection: close").count(), 1, "{answer}");
    let writing = "POST /reload HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(server.raw(&format!("{writing}{writing}")).await.matches("HTTP/1.1 ").count(), 1);
}

#[tokio::test]
async fn places_are_limited_and_given_back() {
    let limits = Limits { connections: 1, head: Duration::from_millis(300), ..Limits::default() };
    let server = Running::start_with(FakeNode::leader(), &config(), limits).await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    // Waits until the idle client is thrown out.
    assert_eq!(server.code("GET", "/patroni").await, 200);
    let mut rest = Vec::new();
    let _ = idle.read_to_end(&mut rest).await;
}

/// One exchange over a pipe in memory, so that the clock can be tokio's paused one.
async fn over_a_pipe(node: FakeNode, request: &str) -> (String, Duration) {
    let (_settings, receiver) = watch::channel(Arc::new(Settings::load(&config()).await.unwrap()));
    let server = Server::new(Arc::new(node), receiver);
    let (mut ours, theirs) = tokio::io::duplex(1 << 16);
    let begun = tokio::time::Instant::now();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let serving = server.exchange(theirs, address, false);
    let asking = async move {
        ours.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = ours.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    };
    let ((), answer) = tokio::join!(serving, asking);
    (answer, begun.elapsed())
}

#[tokio::test(start_paused = true)]
async fn nothing_waits_for_ever() {
    let (_, took) = over_a_pipe(FakeNode::leader(), "GET / HTTP/1.1\r\nHost: x\r\n").await;
    assert!(took <= Duration::from_secs(11), "a head that never ends: {took:?}");
    let half = "POST /restart HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{";
    let (answer, took) = over_a_pipe(FakeNode::leader(), half).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(took <= Duration::from_secs(11), "a body that never ends: {took:?}");
    let node = FakeNode::leader();
    *node.takes.lock().unwrap() = Duration::from_secs(100_000);
    let (answer, took) = over_a_pipe(node, "POST /restart HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("no result within 3600 s"), "{answer}");
    assert_eq!(took.as_secs(), 3600);
}

#[test]
fn every_endpoint_has_a_deadline_that_outlasts_the_dcs() {
    let dynamic = dynamic(json!({"retry_timeout": 10, "loop_wait": 60}));
    let endpoint = |method: &str, path: &str| route(&method.parse().unwrap(), path).unwrap();
    assert!(endpoint("GET", "/cluster").deadline(&dynamic) > dynamic.retry_timeout);
    let switchover = endpoint("POST", "/switchover").deadline(&dynamic);
    assert!(switchover > 2 * dynamic.loop_wait + dynamic.retry_timeout && switchover < Duration::from_secs(600));
}
