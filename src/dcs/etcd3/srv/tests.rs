//! Against a small name server, and servers that are found by it.

use proptest::prelude::*;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::dcs::embedded;
use crate::dcs::etcd3::{Access, Etcd3};
use crate::dcs::layout::Layout;
use crate::dcs::{Dcs, DcsError, Timing};

fn encoded(name: &str) -> Vec<u8> {
    let labels = name.split('.').flat_map(|label| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat());
    labels.chain([0]).collect()
}

fn srv_record(priority: u16, port: u16, target: &str) -> Vec<u8> {
    let target = encoded(target);
    // The owner is the name in the question.
    let mut record = vec![0xc0, 12];
    let length = u16::try_from(6 + target.len()).unwrap();
    for word in [TYPE_SRV, 1, 0, 60, length, priority, 1, port] {
        record.extend(word.to_be_bytes());
    }
    [record, target].concat()
}

fn answer_to(question: &[u8], records: Option<&[Vec<u8>]>) -> Vec<u8> {
    let mut answer = question.to_vec();
    answer[2] |= 0x80;
    match records {
        Some(records) => answer[7] = u8::try_from(records.len()).unwrap(),
        None => answer[3] = NO_SUCH_NAME,
    }
    records.unwrap_or_default().iter().for_each(|record| answer.extend(record));
    answer
}

/// A name server that knows one name.
struct Answerer {
    address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

async fn answerer(name: &str, records: Vec<Vec<u8>>, is_long: bool) -> Answerer {
    let (socket, address, tcp) = loop {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        // What is free for the one may be taken for the other.
        if let Ok(tcp) = TcpListener::bind(address).await {
            break (socket, address, tcp);
        }
    };
    let name = encoded(name);
    let find = move |question: &[u8]| {
        let is_known = question[12..].starts_with(&name);
        answer_to(question, is_known.then_some(&records))
    };
    let task = tokio::spawn(async move {
        let mut buffer = [0; 512];
        loop {
            tokio::select! {
                Ok((length, client)) = socket.recv_from(&mut buffer) => {
                    let mut answer = find(&buffer[..length]);
                    if is_long && answer[3] & 0x0f == 0 {
                        answer[2] |= 0x02;
                    }
                    // One that belongs to another question comes first.
                    let mut foreign = answer.clone();
                    foreign[0] ^= 0xff;
                    socket.send_to(&foreign, client).await.unwrap();
                    socket.send_to(&answer, client).await.unwrap();
                }
                Ok((mut stream, _)) = tcp.accept() => {
                    let length = stream.read_u16().await.unwrap();
                    stream.read_exact(&mut buffer[..usize::from(length)]).await.unwrap();
                    let answer = find(&buffer[..usize::from(length)]);
                    stream.write_u16(u16::try_from(answer.len()).unwrap()).await.unwrap();
                    stream.write_all(&answer).await.unwrap();
                }
            }
        }
    });
    Answerer { address, _task: AbortOnDropHandle::new(task) }
}

fn srv(server: &Answerer, suffix: Option<&str>) -> Srv {
    let suffix = suffix.map(str::to_owned);
    Srv { domain: "example.org.".to_owned(), suffix, name_servers: vec![server.address] }
}

async fn find(srv: &Srv) -> Result<Vec<String>, String> {
    srv.find(None, Instant::now() + Duration::from_secs(30)).await
}

#[tokio::test]
async fn the_first_kind_that_is_known_counts() {
    let records = vec![srv_record(20, 2381, "b.example.org"), srv_record(10, 2379, "a.example.org")];
    let server = answerer("_etcd-ssl._tcp.example.org", records.clone(), false).await;
    let both = ["https://a.example.org:2379", "https://b.example.org:2381"];
    assert_eq!(find(&srv(&server, None)).await.unwrap(), both);
    let long = answerer("_etcd-client-blue._tcp.example.org", records, true).await;
    let both = ["http://a.example.org:2379", "http://b.example.org:2381"];
    assert_eq!(find(&srv(&long, Some("blue"))).await.unwrap(), both);
    let error = find(&srv(&long, None)).await.unwrap_err();
    assert!(error.contains("_etcd-client._tcp.example.org") && error.contains("hosts"), "{error}");
}

#[tokio::test]
async fn peers_are_asked_for_the_addresses_of_clients() {
    let peer = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = peer.local_addr().unwrap().port();
    let server = answerer("_etcd-server._tcp.example.org", vec![srv_record(0, port, "localhost")], false).await;
    let answering = async {
        let (mut stream, _) = peer.accept().await.unwrap();
        let mut buffer = [0; 512];
        let length = stream.read(&mut buffer).await.unwrap();
        assert!(buffer[..length].starts_with(b"GET /members "));
        let body = r#"[{"name": "x", "clientURLs": ["http://10.0.0.1:2379"]}, {"name": "new"}]"#;
        stream.write_all(format!("HTTP/1.0 200 OK\r\n\r\n{body}").as_bytes()).await.unwrap();
    };
    let srv = srv(&server, None);
    let (found, ()) = tokio::join!(find(&srv), answering);
    assert_eq!(found.unwrap(), ["http://10.0.0.1:2379"]);
}

#[tokio::test]
async fn a_store_is_found_and_found_again_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let path = dir.path().to_owned();
    let store = async move { drop(embedded::serve(listener, &path, std::future::pending::<()>()).await) };
    let _store = AbortOnDropHandle::new(tokio::spawn(store));
    let name = "_etcd-client._tcp.example.org";
    let at = |port| vec![srv_record(0, port, "localhost")];
    let access = |server: &Answerer| Access { srv: Some(srv(server, None)), ..Access::default() };
    let timing = Timing { retry_timeout: Duration::from_secs(5), ..Timing::default() };
    let layout = || Layout::new("service", "demo", None);

    let right = answerer(name, at(port), false).await;
    let dcs = Etcd3::new(access(&right), layout(), None, timing);
    assert!(dcs.load().await.is_ok());

    // A port where nobody is: the next try asks for the servers anew.
    let wrong = answerer(name, at(1), false).await;
    let dcs = Etcd3::new(access(&wrong), layout(), None, Timing { retry_timeout: Duration::from_secs(1), ..timing });
    let error = dcs.load().await.unwrap_err();
    assert!(matches!(&error, DcsError::Unavailable { what, .. } if what.contains("localhost:1")), "{error:?}");
    let nobody = answerer("other.example.org", Vec::new(), false).await;
    let error = Etcd3::new(access(&nobody), layout(), None, timing).load().await.unwrap_err();
    assert!(matches!(&error, DcsError::Unavailable { what, .. } if what.contains("example.org")), "{error:?}");
}

#[test]
fn the_systems_name_servers() {
    let text = "# nameserver 9.9.9.9\nsearch a b\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\nnameserver x\n";
    let found: Vec<String> = name_servers(text).iter().map(ToString::to_string).collect();
    assert_eq!(found, ["10.0.0.1:53", "[fe80::1]:53"]);
}

#[test]
fn names_that_cannot_be_asked_for() {
    assert!(question(1, "a..b").is_err());
    assert!(question(1, &"x".repeat(64)).is_err());
}

#[test]
fn what_name_servers_say() {
    let asked = question(7, "a.b").unwrap();
    assert_eq!(read_answer(7, &answer_to(&asked, None)), Answer::Records(Vec::new()));
    assert_eq!(read_answer(8, &answer_to(&asked, None)), Answer::Nonsense);
    assert_eq!(read_answer(7, &asked), Answer::Nonsense, "a question is no answer");
    let mut refused = answer_to(&asked, Some(&[]));
    refused[3] = 5;
    assert!(matches!(read_answer(7, &refused), Answer::Refused(text) if text.contains('5')));
    // A name that points to itself.
    let circle = answer_to(&asked, Some(&[vec![0xc0, u8::try_from(asked.len()).unwrap()]]));
    assert_eq!(read_answer(7, &circle), Answer::Nonsense);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_answer_is_too_strange(noise in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..60, byte: u8) {
        let asked = question(7, "a.b").unwrap();
        let mut answer = answer_to(&asked, Some(&[srv_record(1, 2, "c.d")]));
        let place = at % answer.len();
        answer[place] = byte;
        let _ = read_answer(7, &answer);
        let _ = read_answer(7, &[&asked[..2], &[0x81, 0], &noise].concat());
    }
}
