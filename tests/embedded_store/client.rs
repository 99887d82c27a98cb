//! Through the client library.

use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, Error, EventType, GetOptions, LeaseGrantOptions, PutOptions, Txn, TxnOp,
    WatchOptions, WatchStream,
};
use pgherd::dcs::embedded::StoreError;
use tempfile::{TempDir, tempdir};
use tokio::time::Instant;

use crate::support::{InProcess, within};

async fn start() -> (TempDir, InProcess, Client) {
    let dir = tempdir().unwrap();
    let store = InProcess::start(dir.path()).await;
    let client = store.client().await;
    (dir, store, client)
}

/// Code and text of a refusal.
fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> (i32, String) {
    match result {
        Err(Error::GRpcStatus(status)) => (status.code().into(), status.message().to_owned()),
        other => panic!("not a refusal: {other:?}"),
    }
}

/// What a watch hears next, without what only says that it exists.
async fn events(stream: &mut WatchStream, count: usize) -> Vec<(EventType, String, i64)> {
    let mut heard = Vec::new();
    while heard.len() < count {
        let message = within(stream.message()).await.unwrap().expect("the stream goes on");
        assert!(!message.canceled(), "{message:?}");
        for event in message.events() {
            let kv = event.kv().unwrap();
            heard.push((event.event_type(), kv.key_str().unwrap().to_owned(), kv.mod_revision()));
        }
    }
    heard
}

async fn watch(client: &mut Client, key: &str, options: WatchOptions) -> WatchStream {
    let mut stream = client.watch(key, Some(options)).await.unwrap();
    assert!(within(stream.message()).await.unwrap().unwrap().created());
    stream
}

#[tokio::test]
async fn a_leader_key_is_taken_held_and_lost() {
    let (_dir, _store, mut client) = start().await;
    let lease = client.lease_grant(2, None).await.unwrap().id();
    let take = |value: &str| {
        let put = TxnOp::put("/service/c/leader", value, Some(PutOptions::new().with_lease(lease)));
        Txn::new().when([Compare::create_revision("/service/c/leader", CompareOp::Equal, 0)]).and_then([put])
    };
    let mut stream = watch(&mut client, "/service/c/", WatchOptions::new().with_prefix().with_prev_key()).await;
    let taken = client.txn(take("n1")).await.unwrap();
    assert!(taken.succeeded());
    assert!(!client.txn(take("n2")).await.unwrap().succeeded());
    let revision = taken.header().unwrap().revision();
    assert_eq!(events(&mut stream, 1).await, [(EventType::Put, "/service/c/leader".to_owned(), revision)]);

    let granted = Instant::now();
    let (mut keeper, mut answers) = client.lease_keep_alive(lease).await.unwrap();
    while granted.elapsed() < Duration::from_millis(2500) {
        keeper.keep_alive().await.unwrap();
        assert_eq!(within(answers.message()).await.unwrap().unwrap().ttl(), 2);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(client.get("/service/c/leader", None).await.unwrap().count(), 1, "kept beyond its first life");

    let silent = Instant::now();
    let lost = events(&mut stream, 1).await;
    assert_eq!(lost, [(EventType::Delete, "/service/c/leader".to_owned(), revision + 1)]);
    let waited = silent.elapsed();
    assert!(waited > Duration::from_millis(1500) && waited < Duration::from_millis(2600), "{waited:?}");
    keeper.keep_alive().await.unwrap();
    assert_eq!(within(answers.message()).await.unwrap().unwrap().ttl(), 0);
    assert_eq!(client.lease_time_to_live(lease, None).await.unwrap().ttl(), -1);
}

#[tokio::test]
async fn ranges_and_deletions_by_prefix() {
    let (_dir, _store, mut client) = start().await;
    for key in ["/a/1", "/a/2", "/b"] {
        client.put(key, "v", None).await.unwrap();
    }
    let found = client.get("/a/", Some(GetOptions::new().with_prefix().with_limit(1))).await.unwrap();
    assert_eq!((found.count(), found.kvs().len(), found.more()), (2, 1, true));
    let first = client.get("", Some(GetOptions::new().with_all_keys().with_revision(2))).await.unwrap();
    assert_eq!(first.count(), 1);
    let gone = client.delete("/a/", Some(DeleteOptions::new().with_prefix().with_prev_key())).await.unwrap();
    assert_eq!((gone.deleted(), gone.prev_kvs().len(), gone.header().unwrap().revision()), (2, 2, 5));
}

#[tokio::test]
async fn refusals_speak_etcds_language() {
    let (_dir, _store, mut client) = start().await;
    let leased = |id| Some(PutOptions::new().with_lease(id));
    let not_found = (5, "etcdserver: requested lease not found".to_owned());
    assert_eq!(refusal(client.put("k", "v", leased(99)).await), not_found);
    assert_eq!(refusal(client.lease_revoke(99).await), not_found);
    assert_eq!(refusal(client.put("", "v", None).await), (3, "etcdserver: key is not provided".to_owned()));
    let twice = Txn::new().and_then([TxnOp::put("k", "1", None), TxnOp::put("k", "2", None)]);
    assert_eq!(refusal(client.txn(twice).await), (3, "etcdserver: duplicate key given in txn request".to_owned()));
    let again = Some(LeaseGrantOptions::new().with_id(7));
    client.lease_grant(60, again.clone()).await.unwrap();
    assert_eq!(refusal(client.lease_grant(60, again).await), (9, "etcdserver: lease already exists".to_owned()));
    for _ in 0..4 {
        client.put("k", "v", None).await.unwrap();
    }
    client.compact(4, None).await.unwrap();
    let at = |revision| Some(GetOptions::new().with_revision(revision));
    let compacted = (11, "etcdserver: mvcc: required revision has been compacted".to_owned());
    assert_eq!(refusal(client.get("k", at(3)).await), compacted);
    assert_eq!(refusal(client.compact(4, None).await), compacted);
    let future = (11, "etcdserver: mvcc: required revision is a future revision".to_owned());
    assert_eq!(refusal(client.get("k", at(6)).await), future);
}

#[tokio::test]
async fn what_is_not_covered_says_its_name() {
    let (_dir, store, mut client) = start().await;
    let (code, text) = refusal(client.alarm(etcd_client::AlarmAction::Get, etcd_client::AlarmType::None, None).await);
    assert!(code == 12 && text.contains("Maintenance/Alarm"), "{code} {text}");
    let (code, text) = refusal(client.role_list().await);
    assert!(code == 12 && text.contains("Auth/RoleList"), "{code} {text}");
    let (code, text) = refusal(client.lock("l", None).await);
    assert!(code == 12 && text.contains("v3lockpb.Lock/Lock"), "{code} {text}");
    let with_user = etcd_client::ConnectOptions::new().with_user("root", "secret");
    let login = Client::connect([store.address.to_string()], Some(with_user)).await;
    assert_eq!(refusal(login.map(|_| ())), (9, "etcdserver: authentication is not enabled".to_owned()));
}

#[tokio::test]
async fn a_cluster_of_one_describes_itself() {
    let (_dir, store, mut client) = start().await;
    client.put("k", "v", None).await.unwrap();
    let status = client.status().await.unwrap();
    let header = status.header().unwrap();
    assert_eq!((status.leader(), header.revision()), (header.member_id(), 2));
    assert!(status.db_size() > 0 && status.version().starts_with("3.4"));
    let members = client.member_list().await.unwrap();
    assert_eq!(members.members().len(), 1);
    assert_eq!(members.members()[0].client_urls(), [format!("http://{}", store.address)]);
}

#[tokio::test]
async fn a_watch_resumes_where_it_was_interrupted() {
    let (_dir, _store, mut client) = start().await;
    for value in ["1", "2", "3"] {
        client.put("k", value, None).await.unwrap();
    }
    client.delete("k", None).await.unwrap();
    let mut stream = watch(&mut client, "k", WatchOptions::new().with_start_revision(3)).await;
    let put = |revision| (EventType::Put, "k".to_owned(), revision);
    assert_eq!(events(&mut stream, 3).await, [put(3), put(4), (EventType::Delete, "k".to_owned(), 5)]);
    stream.request_progress().await.unwrap();
    let progress = within(stream.message()).await.unwrap().unwrap();
    assert_eq!((progress.watch_id(), progress.events().len()), (-1, 0));
    stream.cancel(0).await.unwrap();
    assert!(within(stream.message()).await.unwrap().unwrap().canceled());
    client.put("k", "unheard", None).await.unwrap();
    stream.watch("k", None).await.unwrap();
    assert!(within(stream.message()).await.unwrap().unwrap().created());
    client.put("k", "heard", None).await.unwrap();
    assert_eq!(events(&mut stream, 1).await, [put(7)]);

    client.compact(6, None).await.unwrap();
    let mut late = watch(&mut client, "k", WatchOptions::new().with_start_revision(5)).await;
    let canceled = within(late.message()).await.unwrap().unwrap();
    assert!(canceled.canceled());
    assert_eq!(canceled.compact_revision(), 6);
}

#[tokio::test]
async fn a_restart_keeps_keys_revisions_and_leases_but_no_history() {
    let (dir, store, mut client) = start().await;
    let lease = client.lease_grant(60, None).await.unwrap().id();
    client.put("k", "1", Some(PutOptions::new().with_lease(lease))).await.unwrap();
    let before = client.put("k", "2", Some(PutOptions::new().with_lease(lease))).await.unwrap();
    let before = before.header().unwrap().clone();
    store.stop().await.unwrap();

    let store = InProcess::start(dir.path()).await;
    let mut client = store.client().await;
    let found = client.get("k", None).await.unwrap();
    let (kv, header) = (&found.kvs()[0], found.header().unwrap());
    assert_eq!((kv.value(), kv.version(), kv.lease()), (&b"2"[..], 2, lease));
    assert_eq!((header.revision(), header.cluster_id()), (before.revision(), before.cluster_id()));
    assert_eq!(header.raft_term(), before.raft_term() + 1);
    let left = client.lease_time_to_live(lease, None).await.unwrap();
    assert!(left.ttl() >= 58, "{}", left.ttl());
    assert_eq!(refusal(client.get("k", Some(GetOptions::new().with_revision(2))).await).0, 11);
    let mut stream = watch(&mut client, "k", WatchOptions::new().with_start_revision(2)).await;
    assert!(within(stream.message()).await.unwrap().unwrap().compact_revision() >= 3);
    let mut stream = watch(&mut client, "k", WatchOptions::new().with_start_revision(4)).await;
    client.lease_revoke(lease).await.unwrap();
    assert_eq!(events(&mut stream, 1).await, [(EventType::Delete, "k".to_owned(), 4)]);
}

#[tokio::test]
async fn stopping_ends_streams_at_once() {
    let (_dir, store, mut client) = start().await;
    let mut stream = watch(&mut client, "k", WatchOptions::new()).await;
    let lease = client.lease_grant(60, None).await.unwrap().id();
    let (_keeper, mut answers) = client.lease_keep_alive(lease).await.unwrap();
    let asked = Instant::now();
    store.stop().await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    let (code, text) = refusal(within(stream.message()).await);
    assert_eq!((code, text.as_str()), (14, "etcdserver: server stopped"));
    assert!(!matches!(within(answers.message()).await, Ok(Some(_))));
}

#[tokio::test]
async fn a_directory_in_use_is_refused() {
    let (dir, _store, _client) = start().await;
    let second = InProcess::start(dir.path()).await;
    let error = second.stop().await.unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
}

#[tokio::test]
async fn large_values_pass_and_larger_ones_are_refused() {
    let (_dir, _store, mut client) = start().await;
    client.put("k", vec![7; 3 << 20], None).await.unwrap();
    assert_eq!(client.get("k", None).await.unwrap().kvs()[0].value().len(), 3 << 20);
    let (code, _) = refusal(client.put("k", vec![7; 17 << 20], None).await);
    assert_eq!(code, 11);
    assert_eq!(client.get("k", None).await.unwrap().kvs()[0].value().len(), 3 << 20);
}

/// Not a test of speed: with one fsync for each, this many would take long where fsync is slow.
#[tokio::test]
async fn writers_at_once_share_fsyncs() {
    let (_dir, _store, client) = start().await;
    let writers = (0..64).map(|writer| {
        let mut client = client.clone();
        async move {
            for round in 0..20 {
                client.put(format!("{writer}/{round}"), "v", None).await.unwrap();
            }
        }
    });
    within(futures::future::join_all(writers)).await;
    let mut client = client;
    let found = client.get("", Some(GetOptions::new().with_all_keys().with_count_only())).await.unwrap();
    assert_eq!((found.count(), found.header().unwrap().revision()), (64 * 20, 1 + 64 * 20));
}
