//! Who may call the write endpoints, and what else of the `restapi` section the server works from.

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};

use crate::cluster::ClusterView;
use crate::config::{RestApiConfig, Secret, VerifyClient, ciphers};
use crate::io::tls::{self, AskClients, Identity, TlsError};
use crate::{COMPATIBLE_VERSION, VERSION};

use super::wire::Answer;

/// How long names in the allowlist, or of members, may take to resolve.
const RESOLVE_LIMIT: Duration = Duration::from_secs(2);

/// A network in CIDR notation, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Reads `ADDRESS` or `ADDRESS/BITS`. Bits beyond the prefix are ignored.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address.parse().ok()?, Some(prefix.parse::<u8>().ok()?)),
            None => (text.parse::<IpAddr>().ok()?, None),
        };
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(longest);
        (prefix <= longest).then_some(Self { address, prefix })
    }

    /// A network of one address.
    pub fn host(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// Whether an address (IPv4 clients of a dual-stack socket are to be unmapped before) is inside.
    pub fn contains(&self, other: IpAddr) -> bool {
        match (self.address, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let shift = 32 - u32::from(self.prefix);
                shift == 32 || a.to_bits() >> shift == b.to_bits() >> shift
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let shift = 128 - u32::from(self.prefix);
                shift == 128 || a.to_bits() >> shift == b.to_bits() >> shift
            }
            _ => false,
        }
    }
}

/// Everything of the `restapi` section that the server reads while it serves, made ready. A reload makes a new one.
#[derive(Clone)]
pub struct Settings {
    pub(super) tls: Option<Arc<rustls::ServerConfig>>,
    verify_client: VerifyClient,
    /// `user:password` in base64.
    credentials: Option<String>,
    allowlist: Vec<Network>,
    has_allowlist: bool,
    allows_members: bool,
    pub(super) extra_headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) server_name: String,
}

impl Settings {
    /// Reads certificates and resolves names. What cannot be used for TLS is an error; other faulty entries are
    /// logged and left out.
    pub async fn load(config: &RestApiConfig) -> Result<Self, TlsError> {
        let tls = match &config.certfile {
            None => None,
            Some(cert) => Some(Arc::new(server_tls(config, cert)?)),
        };
        let mut headers = config.http_extra_headers.clone();
        if tls.is_some() {
            headers.extend(config.https_extra_headers.clone());
        }
        let credentials = config.authentication.as_ref();
        Ok(Self {
            tls,
            verify_client: config.verify_client,
            credentials: credentials.map(|(user, password)| base64(format!("{user}:{}", password.reveal()).as_bytes())),
            allowlist: allowlist(&config.allowlist).await,
            has_allowlist: !config.allowlist.is_empty(),
            allows_members: config.allowlist_include_members,
            extra_headers: headers.iter().filter_map(|(name, value)| extra_header(name, value)).collect(),
            server_name: server_name(&config.server_tokens),
        })
    }

    /// The three checks in their order: address, client certificate, credentials.
    pub(super) async fn check(&self, caller: &Caller<'_>, view: Option<&ClusterView>) -> Result<(), Answer> {
        self.check_address(caller, view).await?;
        let must_verify = self.tls.is_some() && self.verify_client != VerifyClient::None;
        if must_verify && !caller.has_certificate {
            return Err(Answer::text(StatusCode::FORBIDDEN, "client certificate required"));
        }
        let Some(wanted) = &self.credentials else { return Ok(()) };
        let message = match caller.authorization {
            None => "no auth header received",
            Some(header) => match header.strip_prefix(b"Basic ") {
                Some(given) if is_equal(given, wanted.as_bytes()) => return Ok(()),
                _ => "not authenticated",
            },
        };
        let answer = Answer::text(StatusCode::UNAUTHORIZED, message);
        Err(answer.with_header("WWW-Authenticate", "Basic realm=\"Patroni\""))
    }

    async fn check_address(&self, caller: &Caller<'_>, view: Option<&ClusterView>) -> Result<(), Answer> {
        let asks_members = self.allows_members && !caller.is_failsafe;
        if !self.has_allowlist && !asks_members {
            return Ok(());
        }
        let address = caller.address.to_canonical();
        if self.allowlist.iter().any(|network| network.contains(address)) {
            return Ok(());
        }
        if asks_members
            && let Some(view) = view
            && is_member(view, address).await
        {
            return Ok(());
        }
        Err(Answer::text(StatusCode::FORBIDDEN, "Access is denied"))
    }
}

/// What is known of a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller<'a> {
    /// Where it comes from.
    pub(super) address: IpAddr,
    /// It presented a certificate, which was verified.
    pub(super) has_certificate: bool,
    /// The `Authorization` header.
    pub(super) authorization: Option<&'a [u8]>,
    /// It calls `POST /failsafe`, which has to work without a view of the members.
    pub(super) is_failsafe: bool,
}

fn server_tls(config: &RestApiConfig, cert: &str) -> Result<rustls::ServerConfig, TlsError> {
    let ca = config.cafile.as_deref();
    let clients = match config.verify_client {
        VerifyClient::None => AskClients::Nothing,
        VerifyClient::Optional => AskClients::Optional(ca),
        VerifyClient::Required => AskClients::Required(ca),
    };
    let password = config.keyfile_password.as_ref().map(Secret::reveal);
    // A list that leaves nothing was named when it was read.
    let suites = config.ciphers.as_deref().and_then(ciphers::allowed);
    let identity = Identity { cert, key: config.keyfile.as_deref(), password };
    tls::server_config(identity, clients, suites.as_deref())
}

fn extra_header(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    match (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
        (Ok(name), Ok(value)) => Some((name, value)),
        _ => {
            tracing::warn!(header = name, "an extra header of restapi is not a valid one and is left out");
            None
        }
    }
}

fn server_name(tokens: &str) -> String {
    match tokens.to_lowercase().as_str() {
        "productonly" => "Patroni".to_owned(),
        "minimal" => format!("Patroni/{COMPATIBLE_VERSION}"),
        other => {
            if other != "original" {
                tracing::warn!(server_tokens = tokens, "restapi.server_tokens is not known, `original` is used");
            }
            format!("pgherd/{VERSION}")
        }
    }
}

async fn allowlist(entries: &[String]) -> Vec<Network> {
    let mut networks = Vec::new();
    for entry in entries {
        match Network::parse(entry) {
            Some(network) => networks.push(network),
            None => match resolve(entry).await {
                Ok(addresses) => networks.extend(addresses.into_iter().map(Network::host)),
                Err(why) => tracing::warn!(entry, why, "an entry of restapi.allowlist is left out"),
            },
        }
    }
    networks
}

async fn resolve(host: &str) -> Result<Vec<IpAddr>, String> {
    match tokio::time::timeout(RESOLVE_LIMIT, tokio::net::lookup_host((host, 0))).await {
        Ok(Ok(found)) => Ok(found.map(|address| address.ip().to_canonical()).collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the name did not resolve in time".to_owned()),
    }
}

async fn is_member(view: &ClusterView, address: IpAddr) -> bool {
    let members = view.members.iter().chain(view.workers.values().flat_map(|worker| &worker.members));
    let hosts = members.filter_map(|member| api_host(member.api_url()?));
    let asked = hosts.map(|host| async move { resolve(&host).await.is_ok_and(|found| found.contains(&address)) });
    futures::future::join_all(asked).await.into_iter().any(|is_it| is_it)
}

/// The host of an `api_url`, brackets removed.
fn api_host(api_url: &str) -> Option<String> {
    crate::cluster::member::parse_conn_url(api_url).map(|(host, ..)| host)
}

/// Compares in a time that depends on the lengths only.
fn is_equal(given: &[u8], wanted: &[u8]) -> bool {
    let mut difference = given.len() ^ wanted.len();
    for (at, byte) in wanted.iter().enumerate() {
        let other = given.get(at).copied().unwrap_or(0);
        difference |= usize::from(black_box(byte ^ other));
    }
    black_box(difference) == 0
}

/// Standard base64 with padding.
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let index = (group >> (18 - 6 * place) & 63) as usize;
            text.push(if place > chunk.len() { '=' } else { char::from(ALPHABET[index]) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        let inside = |network: &str, address: &str| {
            Network::parse(network).unwrap().contains(address.parse::<IpAddr>().unwrap().to_canonical())
        };
        assert!(inside("10.0.0.0/8", "10.255.0.1"));
        assert!(!inside("10.0.0.0/8", "11.0.0.1"));
        assert!(inside("0.0.0.0/0", "1.2.3.4"));
        assert!(inside("127.0.0.1", "::ffff:127.0.0.1"));
        assert!(inside("fe80::/10", "fe80::1"));
        assert!(!inside("::/0", "1.2.3.4"));
        assert!(inside("::/0", "::1"));
        for text in ["10.0.0.0/33", "host", "10.0.0.0/x", "/8", ""] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }

    #[test]
    fn base64_with_padding() {
        for (text, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("us:pässword", "dXM6cMOkc3N3b3Jk")]
        {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
    }

    #[test]
    fn comparison() {
        assert!(is_equal(b"abc", b"abc"));
        for given in [&b""[..], b"ab", b"abd", b"abca", b"abc\0"] {
            assert!(!is_equal(given, b"abc"));
        }
    }
}
