//! Asking members: other agents do, and so does the CLI.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::time::Duration;

use reqwest::{Method, Url};
use serde_json::{Map, Value};

use crate::cluster::tags::as_integer;
use crate::cluster::{Lsn, MemberName, PeerAnswer, Tags, Timeline};
use crate::config::{CtlConfig, Secret};
use crate::io::tls::{self, Identity, TlsError, Trust};

use super::node::FailsafePing;

/// How long other members are given for an answer that an election or a failsafe check waits for.
pub const PEER_TIMEOUT: Duration = Duration::from_secs(2);

/// An answer is not read beyond this; the longest real one is a configuration document.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// A request that got no answer, or could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The TLS settings of the `ctl` section (or those it inherits from `restapi`) cannot be used.
    #[error("TLS settings for requests to members: {0}")]
    Tls(#[from] TlsError),
    /// The HTTP client could not be built.
    #[error("cannot set up the HTTP client: {0}")]
    Setup(String),
    /// The member publishes something that is not a URL.
    #[error("`{0}` is not the address of a member's REST API")]
    Address(String),
    /// No answer within the timeout, or no connection.
    #[error("{url}: {problem}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// Why there is no answer, causes included.
        problem: String,
        /// It took too long (rather than being refused).
        is_timeout: bool,
    },
}

/// A member's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    /// Status code.
    pub status: u16,
    /// Body.
    pub text: String,
    /// The `lsn` header, which the answer to a failsafe ping has.
    pub lsn: Option<Lsn>,
}

impl HttpAnswer {
    /// The body, if it is JSON.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_str(&self.text).ok()
    }

    /// A code below 400.
    pub fn is_success(&self) -> bool {
        self.status < 400
    }
}

/// The parts of `GET /patroni` that tools read, with the whole beside them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeStatus {
    /// `state`; `unknown` when absent.
    pub state: String,
    /// `role`.
    pub role: Option<String>,
    /// `server_version`.
    pub server_version: Option<u32>,
    /// `patroni.version`.
    pub agent_version: Option<String>,
    /// The object as it came.
    pub data: Map<String, Value>,
}

impl NodeStatus {
    /// Reads a status object; `None` when the text is not a JSON object.
    pub fn parse(text: &str) -> Option<Self> {
        let data: Map<String, Value> = serde_json::from_str(text).ok()?;
        let words = |key: &str| data.get(key).and_then(Value::as_str).map(str::to_owned);
        let version = data.get("patroni").and_then(|patroni| patroni.get("version"));
        Some(Self {
            state: words("state").unwrap_or_else(|| "unknown".to_owned()),
            role: words("role"),
            server_version: data.get("server_version").and_then(as_integer).and_then(|n| u32::try_from(n).ok()),
            agent_version: version.and_then(Value::as_str).map(str::to_owned),
            data,
        })
    }
}

/// Reads what an election needs out of a status body; the HTTP status plays no part, because a member says the same
/// with any code.
pub fn read_peer_status(text: &str) -> PeerAnswer {
    let Ok(Value::Object(status)) = serde_json::from_str::<Value>(text) else {
        return PeerAnswer::Unreachable("the answer is not a JSON object".to_owned());
    };
    // Old members write `wal`.
    let Some(wal) = ["wal", "xlog"].iter().find_map(|key| status.get(*key)?.as_object()) else {
        return PeerAnswer::Unreachable("the answer has no WAL position".to_owned());
    };
    let position = |key: &str| match wal.get(key) {
        None => Some(0),
        Some(value) => value.as_u64(),
    };
    let is_primary = wal.get("location").is_some_and(crate::cluster::tags::is_truthy)
        || matches!(status.get("role").and_then(Value::as_str), Some("primary" | "master"));
    let (Some(received), Some(replayed)) = (position("received_location"), position("replayed_location")) else {
        return PeerAnswer::Unreachable("the answer's WAL positions are not numbers".to_owned());
    };
    let timeline = status.get("timeline").and_then(as_integer).and_then(|n| u32::try_from(n).ok());
    PeerAnswer::Answered {
        in_recovery: !is_primary,
        position: if is_primary { Lsn::ZERO } else { Lsn(received.max(replayed)) },
        timeline: timeline.filter(|n| *n > 0).map(Timeline),
        tags: status.get("tags").and_then(Value::as_object).cloned().map(Tags).unwrap_or_default(),
        watchdog_failed: status.get("watchdog_failed").is_some_and(crate::cluster::tags::is_truthy),
    }
}

/// Talks to members. Cheap to clone; requests are made once and never repeated.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    authentication: Option<(String, Secret)>,
    timeout: Duration,
}

impl Client {
    /// A client with the credentials and the trust of the `ctl` section. `timeout` bounds each request as a whole.
    pub fn new(config: &CtlConfig, timeout: Duration) -> Result<Self, ClientError> {
        tls::install_provider();
        let trust = match (config.insecure, config.cacert.as_deref()) {
            // Patroni lets whoever has a certificate of its own to show drop only the check of names.
            (true, ca) if config.certfile.is_some() => Trust::AnyName(ca),
            (true, _) => Trust::Anybody,
            (false, Some(path)) => Trust::File(path),
            (false, None) => Trust::System,
        };
        let password = config.keyfile_password.as_ref().map(Secret::reveal);
        let key = config.keyfile.as_deref();
        let identity = config.certfile.as_deref().map(|cert| Identity { cert, key, password });
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::client_config(trust, identity)?)
            .user_agent(concat!("pgherd/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            // Members close after each answer; a connection is never used again.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|error| ClientError::Setup(error.to_string()))?;
        Ok(Self { http, authentication: config.authentication.clone(), timeout })
    }

    /// The same client with another bound per request.
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    /// How a member is, as elections need it. Asks `api_url` as it is published.
    pub async fn status(&self, api_url: &str) -> PeerAnswer {
        let answer = match url(api_url, None) {
            Ok(url) => self.send(Method::GET, url, None).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(answer) => read_peer_status(&answer.text),
            Err(error) => PeerAnswer::Unreachable(error.to_string()),
        }
    }

    /// Asks several members at once.
    pub async fn ask_all(&self, peers: &BTreeMap<MemberName, String>) -> BTreeMap<MemberName, PeerAnswer> {
        let asked = peers.iter().map(|(name, api_url)| async { (name.clone(), self.status(api_url).await) });
        futures::future::join_all(asked).await.into_iter().collect()
    }

    /// `GET /patroni` as tools read it.
    pub async fn node_status(&self, api_url: &str) -> Result<NodeStatus, ClientError> {
        let answer = self.get(api_url, None).await?;
        NodeStatus::parse(&answer.text).ok_or_else(|| ClientError::Unreachable {
            url: api_url.to_owned(),
            problem: format!("answered {} with something that is not a node status", answer.status),
            is_timeout: false,
        })
    }

    /// `GET` of a path on the member's server; `None` is `api_url` as it is.
    pub async fn get(&self, api_url: &str, path: Option<&str>) -> Result<HttpAnswer, ClientError> {
        self.send(Method::GET, url(api_url, path)?, None).await
    }

    /// `POST` of a JSON body (or none) to a path on the member's server.
    pub async fn post(&self, api_url: &str, path: &str, body: Option<&Value>) -> Result<HttpAnswer, ClientError> {
        self.send(Method::POST, url(api_url, Some(path))?, body).await
    }

    /// `DELETE` of a path on the member's server.
    pub async fn delete(&self, api_url: &str, path: &str) -> Result<HttpAnswer, ClientError> {
        self.send(Method::DELETE, url(api_url, Some(path))?, None).await
    }

    /// `POST /switchover`.
    pub async fn switchover(&self, api_url: &str, body: &Value) -> Result<HttpAnswer, ClientError> {
        self.post(api_url, "/switchover", Some(body)).await
    }

    /// `POST /failover`.
    pub async fn failover(&self, api_url: &str, body: &Value) -> Result<HttpAnswer, ClientError> {
        self.post(api_url, "/failover", Some(body)).await
    }

    /// `DELETE /switchover`.
    pub async fn cancel_switchover(&self, api_url: &str) -> Result<HttpAnswer, ClientError> {
        self.delete(api_url, "/switchover").await
    }

    /// `POST /restart`.
    pub async fn restart(&self, api_url: &str, body: &Value) -> Result<HttpAnswer, ClientError> {
        self.post(api_url, "/restart", Some(body)).await
    }

    /// `DELETE /restart`.
    pub async fn cancel_restart(&self, api_url: &str) -> Result<HttpAnswer, ClientError> {
        self.delete(api_url, "/restart").await
    }

    /// `POST /reinitialize`.
    pub async fn reinitialize(&self, api_url: &str, body: &Value) -> Result<HttpAnswer, ClientError> {
        self.post(api_url, "/reinitialize", Some(body)).await
    }

    /// `POST /reload`.
    pub async fn reload(&self, api_url: &str) -> Result<HttpAnswer, ClientError> {
        self.post(api_url, "/reload", None).await
    }

    /// `PATCH /config`.
    pub async fn patch_config(&self, api_url: &str, patch: &Value) -> Result<HttpAnswer, ClientError> {
        self.send(Method::PATCH, url(api_url, Some("/config"))?, Some(patch)).await
    }

    /// `POST /failsafe`. `Some` when the member accepts us as the leader: its WAL position, if it knows one.
    pub async fn failsafe(&self, api_url: &str, ping: &FailsafePing) -> Result<Option<Option<Lsn>>, ClientError> {
        let body = serde_json::to_value(ping).map_err(|error| ClientError::Setup(error.to_string()))?;
        let answer = self.post(api_url, "/failsafe", Some(&body)).await?;
        Ok((answer.status == 200 && answer.text == "Accepted").then_some(answer.lsn))
    }

    async fn send(&self, method: Method, url: Url, body: Option<&Value>) -> Result<HttpAnswer, ClientError> {
        let failed = |error: &reqwest::Error| ClientError::Unreachable {
            url: url.to_string(),
            problem: describe(error),
            is_timeout: error.is_timeout(),
        };
        let mut request = self.http.request(method, url.clone()).timeout(self.timeout);
        if let Some((user, password)) = &self.authentication {
            request = request.basic_auth(user, Some(password.reveal()));
        }
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let mut response = request.send().await.map_err(|error| failed(&error))?;
        let status = response.status().as_u16();
        let lsn = response.headers().get("lsn").and_then(|value| value.to_str().ok()?.parse().ok()).map(Lsn);
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| failed(&error))? {
            if bytes.len() + chunk.len() > MAX_ANSWER_BYTES {
                let problem = format!("the answer is longer than {MAX_ANSWER_BYTES} bytes");
                return Err(ClientError::Unreachable { url: url.to_string(), problem, is_timeout: false });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(HttpAnswer { status, text: String::from_utf8_lossy(&bytes).into_owned(), lsn })
    }
}

/// A member's address with another path; scheme, host and port stay.
fn url(api_url: &str, path: Option<&str>) -> Result<Url, ClientError> {
    let mut url = Url::parse(api_url).map_err(|_| ClientError::Address(api_url.to_owned()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(ClientError::Address(api_url.to_owned()));
    }
    if let Some(path) = path {
        url.set_path(path);
        url.set_query(None);
    }
    Ok(url)
}

/// The error with its causes on one line; reqwest's own text names only the URL.
fn describe(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if causes.last() != Some(&text) {
            causes.push(text);
        }
        cause = error.source();
    }
    // Which layer of the client it was says nothing to whoever reads this.
    let says_why = |text: &String| !text.starts_with("client error (") && text != "tcp connect error";
    if causes.iter().any(says_why) {
        causes.retain(says_why);
    }
    if causes.is_empty() { error.to_string() } else { causes.join(": ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn peer(status: Value) -> PeerAnswer {
        read_peer_status(&status.to_string())
    }

    #[test]
    fn a_standby_answers_with_the_higher_position() {
        let answer = peer(json!({
            "role": "replica", "timeline": 3, "tags": {"nofailover": true},
            "xlog": {"received_location": 10, "replayed_location": 12}
        }));
        let PeerAnswer::Answered { in_recovery, position, timeline, tags, watchdog_failed } = answer else {
            panic!("no answer")
        };
        assert!(in_recovery && tags.nofailover() && !watchdog_failed);
        assert_eq!((position, timeline), (Lsn(12), Some(Timeline(3))));
    }

    #[test]
    fn a_primary_has_no_position_and_old_words_are_read() {
        for status in [
            json!({"role": "master", "wal": {}}),
            json!({"role": "primary", "xlog": {"location": 5}}),
            json!({"role": "replica", "xlog": {"location": 5}}),
        ] {
            let PeerAnswer::Answered { in_recovery, position, .. } = peer(status) else { panic!("no answer") };
            assert!(!in_recovery);
            assert_eq!(position, Lsn::ZERO);
        }
    }

    #[test]
    fn what_says_nothing_of_wal_is_unreachable() {
        for status in [json!({}), json!([]), json!({"xlog": 5}), json!({"xlog": {"received_location": "5"}})] {
            assert!(matches!(peer(status), PeerAnswer::Unreachable(_)));
        }
        assert!(matches!(read_peer_status("<html>"), PeerAnswer::Unreachable(_)));
    }

    #[test]
    fn paths_replace_the_published_one() {
        let text = |base: &str, path| url(base, path).unwrap().to_string();
        assert_eq!(text("https://[::1]:8008/patroni", Some("/restart")), "https://[::1]:8008/restart");
        assert_eq!(text("http://h:1/patroni?x=1", None), "http://h:1/patroni?x=1");
        assert!(url("postgres://h:1/x", None).is_err());
        assert!(url("h:1", None).is_err());
    }
}
