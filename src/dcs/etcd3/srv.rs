//! The servers of a cluster by their SRV records in DNS.
//!
//! The system's resolver knows addresses only, so the few messages that this takes are made here. A name server is
//! believed nothing: an answer that makes no sense is an error, never a panic.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout, timeout_at};
use tonic::codegen::http::Uri;

use super::wire;
use crate::config::address::join_host_port;

const RESOLVER_FILE: &str = "/etc/resolv.conf";
/// The kinds of records, in the order in which Patroni asks for them.
const KINDS: [&str; 6] = ["-client-ssl", "-client", "-ssl", "", "-server-ssl", "-server"];
/// One name server is given so long for one question.
const PATIENCE: Duration = Duration::from_secs(1);
const TYPE_SRV: u16 = 33;
const NO_SUCH_NAME: u8 = 3;
/// A longer list of members is nonsense.
const LONGEST_LIST: u64 = 1 << 20;

/// Where to ask for the servers.
#[derive(Clone, Debug)]
pub(in crate::dcs) struct Srv {
    /// The domain.
    pub(in crate::dcs) domain: String,
    /// What is appended to the name of the service.
    pub(in crate::dcs) suffix: Option<String>,
    /// Name servers; those of the system when there are none.
    pub(in crate::dcs) name_servers: Vec<SocketAddr>,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Record {
    priority: u16,
    host: String,
    port: u16,
}

impl Srv {
    /// The endpoints, found until then. `Err` says what was asked and what came of it.
    pub(super) async fn find(&self, tls: Option<Arc<ClientConfig>>, until: Instant) -> Result<Vec<String>, String> {
        let looking = timeout_at(until, self.find_unbounded(tls)).await;
        let late = || Err(format!("the name servers did not answer in time about the etcd servers of {}", self.domain));
        looking.unwrap_or_else(|_| late())
    }

    async fn find_unbounded(&self, tls: Option<Arc<ClientConfig>>) -> Result<Vec<String>, String> {
        let servers = if self.name_servers.is_empty() { system_servers() } else { self.name_servers.clone() };
        for kind in KINDS {
            let mut records = ask_any(&servers, &self.service(kind)).await?;
            records.sort();
            let scheme = if kind.contains("-ssl") { "https" } else { "http" };
            let urls = records.iter().map(|record| format!("{scheme}://{}", join_host_port(&record.host, record.port)));
            let mut urls: Vec<String> = urls.collect();
            if kind.starts_with("-server") {
                urls = clients_of(&urls, tls.as_ref()).await;
            }
            if !urls.is_empty() {
                return Ok(urls);
            }
        }
        Err(format!(
            "DNS has no SRV record for the etcd servers of {} (for example {}); add one, or name the servers under \
             `hosts`",
            self.domain,
            self.service("-client")
        ))
    }

    fn service(&self, kind: &str) -> String {
        let suffix = self.suffix.as_deref().map(|suffix| format!("-{suffix}")).unwrap_or_default();
        format!("_etcd{kind}{suffix}._tcp.{}", self.domain.trim_end_matches('.'))
    }
}

fn system_servers() -> Vec<SocketAddr> {
    let text = std::fs::read_to_string(RESOLVER_FILE).unwrap_or_default();
    let servers = name_servers(&text);
    if servers.is_empty() { vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 53))] } else { servers }
}

fn name_servers(text: &str) -> Vec<SocketAddr> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        let is_server = words.next() == Some("nameserver");
        let address: IpAddr = words.next().filter(|_| is_server)?.split('%').next()?.parse().ok()?;
        Some(SocketAddr::from((address, 53)))
    };
    text.lines().filter_map(address).collect()
}

/// The first answer of any name server; each is asked twice.
async fn ask_any(servers: &[SocketAddr], name: &str) -> Result<Vec<Record>, String> {
    let mut last = String::new();
    for server in servers.iter().chain(servers) {
        match timeout(PATIENCE, ask(*server, name)).await {
            Ok(Ok(records)) => return Ok(records),
            Ok(Err(error)) => last = format!("name server {server} about {name}: {error}"),
            Err(_) => last = format!("name server {server} does not answer about {name}"),
        }
    }
    Err(last)
}

async fn ask(server: SocketAddr, name: &str) -> io::Result<Vec<Record>> {
    // The standard library's hash keys are random; together with the port that is as good as anybody's.
    let [low, high, ..] = RandomState::new().build_hasher().finish().to_le_bytes();
    let id = u16::from_le_bytes([low, high]);
    let question = question(id, name)?;
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(&question).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match read_answer(id, &buffer[..length]) {
            Answer::Records(records) => return Ok(records),
            Answer::Refused(text) => return Err(io::Error::other(text)),
            Answer::TooLong => return ask_by_tcp(server, id, &question).await,
            // Somebody else's, or damaged; ours may still come.
            Answer::Nonsense => {}
        }
    }
}

async fn ask_by_tcp(server: SocketAddr, id: u16, question: &[u8]) -> io::Result<Vec<Record>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), question].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    match read_answer(id, &answer) {
        Answer::Records(records) => Ok(records),
        Answer::Refused(text) => Err(io::Error::other(text)),
        Answer::TooLong | Answer::Nonsense => Err(io::Error::other("the answer makes no sense")),
    }
}

fn question(id: u16, name: &str) -> io::Result<Vec<u8>> {
    let mut message = Vec::new();
    // One question, recursion desired.
    for word in [id, 0x0100, 1, 0, 0, 0] {
        message.extend(word.to_be_bytes());
    }
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length));
        let length = length.ok_or_else(|| io::Error::other(format!("`{name}` is not a name that DNS could know")))?;
        message.push(length);
        message.extend(label.bytes());
    }
    message.push(0);
    message.extend(TYPE_SRV.to_be_bytes());
    message.extend(1u16.to_be_bytes());
    Ok(message)
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Records(Vec<Record>),
    Refused(String),
    TooLong,
    Nonsense,
}

fn read_answer(id: u16, message: &[u8]) -> Answer {
    let [_, _, flags, code, ..] = *message else { return Answer::Nonsense };
    if u16_at(message, 0) != Some(id) || flags & 0x80 == 0 {
        return Answer::Nonsense;
    }
    match code & 0x0f {
        NO_SUCH_NAME => Answer::Records(Vec::new()),
        0 if flags & 0x02 != 0 => Answer::TooLong,
        0 => read_records(message).map_or(Answer::Nonsense, Answer::Records),
        code => Answer::Refused(format!("it refuses to answer (code {code})")),
    }
}

fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]))
}

fn read_records(message: &[u8]) -> Option<Vec<Record>> {
    let (questions, answers) = (u16_at(message, 4)?, u16_at(message, 6)?);
    let mut at = 12;
    for _ in 0..questions {
        at = name_at(message, at)?.1 + 4;
    }
    let mut records = Vec::new();
    for _ in 0..answers {
        at = name_at(message, at)?.1;
        let kind = u16_at(message, at)?;
        let data = at + 10;
        at = data + usize::from(u16_at(message, at + 8)?);
        if kind == TYPE_SRV && at <= message.len() {
            let (host, _) = name_at(message, data + 6)?;
            records.push(Record { priority: u16_at(message, data)?, host, port: u16_at(message, data + 4)? });
        }
    }
    // A lone dot means that there is no such service.
    records.retain(|record| !record.host.is_empty());
    Some(records)
}

/// A name, and where what follows it begins.
fn name_at(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let (mut labels, mut end, mut jumps) = (Vec::new(), None, 0);
    loop {
        let length = *message.get(at)?;
        match length {
            0 => return Some((labels.join("."), end.unwrap_or(at + 1))),
            1..64 => {
                let label = message.get(at + 1..at + 1 + usize::from(length))?;
                labels.push(std::str::from_utf8(label).ok()?.to_owned());
                at += 1 + usize::from(length);
            }
            0xc0.. => {
                end = end.or(Some(at + 2));
                at = usize::from(u16_at(message, at)? & 0x3fff);
                jumps += 1;
            }
            _ => return None,
        }
        // A name that goes in circles.
        if jumps > 16 || labels.len() > 128 {
            return None;
        }
    }
}

/// The addresses for clients, as the first of these servers that answers knows them.
async fn clients_of(peers: &[String], tls: Option<&Arc<ClientConfig>>) -> Vec<String> {
    for peer in peers {
        match timeout(PATIENCE, members(peer, tls)).await {
            Ok(Ok(urls)) if !urls.is_empty() => return urls,
            Ok(Ok(_)) => tracing::debug!(peer, "the server knows no addresses for clients"),
            Ok(Err(error)) => tracing::debug!(peer, %error, "the server's members could not be read"),
            Err(_) => tracing::debug!(peer, "the server does not answer"),
        }
    }
    Vec::new()
}

async fn members(peer: &str, tls: Option<&Arc<ClientConfig>>) -> io::Result<Vec<String>> {
    let uri: Uri = peer.parse().map_err(io::Error::other)?;
    let tls = tls.filter(|_| uri.scheme_str() == Some("https")).map(|tls| {
        let mut tls = ClientConfig::clone(tls);
        tls.alpn_protocols.clear();
        Arc::new(tls)
    });
    let host = uri.authority().map(ToString::to_string).unwrap_or_default();
    let mut stream = wire::open_unbounded(uri, tls).await?;
    stream.write_all(format!("GET /members HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LONGEST_LIST).read_to_end(&mut answer).await?;
    let text = String::from_utf8_lossy(&answer);
    let (_, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    let members: Vec<Value> = serde_json::from_str(body)?;
    let urls = members.iter().filter_map(|member| member["clientURLs"].as_array()).flatten();
    Ok(urls.filter_map(|url| url.as_str().map(str::to_owned)).collect())
}

#[cfg(test)]
#[path = "srv/tests.rs"]
mod tests;
