//! The same requests to us and to a real etcd must have the same answers: values, revisions, errors, events.

use std::fmt::Debug;

use etcd_client::proto::PbResponseHeader;
use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, Error, GetOptions, LeaseGrantOptions, LeaseTimeToLiveOptions,
    PutOptions, SortOrder, SortTarget, Txn, TxnOp, WatchOptions, WatchStream,
};
use tempfile::tempdir;

use crate::dice::Dice;
use crate::etcd::{Server, is_etcd_installed};
use crate::support::{InProcess, connect, within};

const REQUESTS: usize = 1500;
const KEYS: [&str; 5] = ["a", "ab", "b", "c", "d"];
const VALUES: [&str; 3] = ["0", "1", "2"];

/// What is told apart between the two: who answers.
fn anonymous(header: &mut Option<PbResponseHeader>) {
    let header = header.as_mut().unwrap();
    *header = PbResponseHeader { revision: header.revision, ..PbResponseHeader::default() };
}

fn told<T: Debug>(result: Result<T, Error>) -> String {
    match result {
        Ok(answer) => format!("{answer:?}"),
        Err(Error::GRpcStatus(status)) => format!("{:?}: {}", status.code(), status.message()),
        Err(other) => panic!("{other:?}"),
    }
}

#[derive(Clone, Debug)]
enum Request {
    Put(&'static str, &'static str, PutOptions),
    Get(&'static str, GetOptions),
    Delete(&'static str, DeleteOptions),
    Txn(Txn),
    Grant(i64, i64),
    Revoke(i64),
    TimeToLive(i64),
    Compact(i64),
}

async fn ask(client: &mut Client, request: Request) -> String {
    match request {
        Request::Put(key, value, options) => told(client.put(key, value, Some(options)).await.map(|mut answer| {
            anonymous(&mut answer.0.header);
            answer
        })),
        Request::Get(key, options) => told(client.get(key, Some(options)).await.map(|mut answer| {
            anonymous(&mut answer.0.header);
            answer
        })),
        Request::Delete(key, options) => told(client.delete(key, Some(options)).await.map(|mut answer| {
            anonymous(&mut answer.0.header);
            answer
        })),
        Request::Txn(txn) => told(client.txn(txn).await.map(|mut answer| {
            anonymous(&mut answer.0.header);
            answer
        })),
        Request::Grant(id, ttl) => {
            let options = LeaseGrantOptions::new().with_id(id);
            told(client.lease_grant(ttl, Some(options)).await.map(|answer| (answer.id(), answer.ttl())))
        }
        Request::Revoke(id) => told(client.lease_revoke(id).await.map(|mut answer| {
            anonymous(&mut answer.0.header);
            answer
        })),
        Request::TimeToLive(id) => {
            let options = LeaseTimeToLiveOptions::new().with_keys();
            told(client.lease_time_to_live(id, Some(options)).await.map(|mut answer| {
                // The seconds pass on their own.
                answer.0.ttl = answer.0.ttl.signum();
                answer.0.keys.sort();
                anonymous(&mut answer.0.header);
                answer
            }))
        }
        Request::Compact(revision) => told(client.compact(revision, None).await.map(|mut answer| {
            anonymous(&mut answer.0.header);
            answer
        })),
    }
}

fn put_options(dice: &mut Dice) -> PutOptions {
    let mut options = PutOptions::new();
    if dice.one_in(3) {
        options = options.with_lease(i64::try_from(dice.roll(3)).unwrap());
    }
    if dice.one_in(3) {
        options = options.with_prev_key();
    }
    if dice.one_in(8) {
        options = options.with_ignore_value();
    }
    if dice.one_in(8) {
        options = options.with_ignore_lease();
    }
    options
}

fn get_options(dice: &mut Dice, revision: i64) -> GetOptions {
    let mut options = GetOptions::new();
    options = match dice.roll(4) {
        0 => options.with_prefix(),
        1 => options.with_from_key(),
        2 => options.with_range(*dice.pick(&KEYS)),
        _ => options,
    };
    if dice.one_in(3) {
        options = options.with_limit(i64::try_from(dice.roll(3)).unwrap());
    }
    let back = i64::try_from(dice.roll(12)).unwrap();
    if dice.one_in(3) {
        options = options.with_revision((revision + 1 - back).max(1));
    }
    if dice.one_in(3) {
        let target = [SortTarget::Key, SortTarget::Version, SortTarget::Create, SortTarget::Mod, SortTarget::Value];
        options = options.with_sort(*dice.pick(&target), *dice.pick(&[SortOrder::Ascend, SortOrder::Descend]));
    }
    if dice.one_in(6) {
        options = options.with_keys_only();
    }
    if dice.one_in(6) {
        options = options.with_count_only();
    }
    if dice.one_in(6) {
        options = options.with_min_mod_revision(revision - back).with_max_create_revision(revision);
    }
    options
}

fn delete_options(dice: &mut Dice) -> DeleteOptions {
    let mut options = DeleteOptions::new();
    if dice.one_in(3) {
        options = options.with_range(*dice.pick(&KEYS));
    }
    if dice.one_in(2) {
        options = options.with_prev_key();
    }
    options
}

fn compare(dice: &mut Dice, revision: i64) -> Compare {
    let key = *dice.pick(&KEYS);
    let result = *dice.pick(&[CompareOp::Equal, CompareOp::NotEqual, CompareOp::Greater, CompareOp::Less]);
    let near = revision - i64::try_from(dice.roll(6)).unwrap();
    let compare = match dice.roll(5) {
        0 => Compare::version(key, result, i64::try_from(dice.roll(3)).unwrap()),
        1 => Compare::create_revision(key, result, if dice.one_in(2) { 0 } else { near }),
        2 => Compare::mod_revision(key, result, near),
        3 => Compare::value(key, result, *dice.pick(&VALUES)),
        _ => Compare::lease(key, result, i64::try_from(dice.roll(3)).unwrap()),
    };
    if dice.one_in(4) { compare.with_range(*dice.pick(&KEYS)) } else { compare }
}

fn txn(dice: &mut Dice, revision: i64, depth: u32) -> Txn {
    let mut txn = Txn::new();
    let compares: Vec<_> = (0..dice.roll(3)).map(|_| compare(dice, revision)).collect();
    if !compares.is_empty() {
        txn = txn.when(compares);
    }
    let branch = |dice: &mut Dice| -> Vec<TxnOp> {
        let mut operations = Vec::new();
        // At most one nested transaction: what one has put the next may delete in etcd, and may not here.
        let mut depth = depth;
        for _ in 0..dice.roll(3) {
            operations.push(match dice.roll(8) {
                0..4 => TxnOp::put(*dice.pick(&KEYS), *dice.pick(&VALUES), Some(put_options(dice))),
                4 | 5 => TxnOp::get(*dice.pick(&KEYS), Some(get_options(dice, revision))),
                6 if depth > 0 => {
                    let inner = self::txn(dice, revision, depth - 1);
                    depth = 0;
                    TxnOp::txn(inner)
                }
                _ => TxnOp::delete(*dice.pick(&KEYS), Some(delete_options(dice))),
            });
        }
        operations
    };
    let (success, failure) = (branch(dice), branch(dice));
    txn = txn.and_then(success);
    txn.or_else(failure)
}

fn request(dice: &mut Dice, revision: i64) -> Request {
    match dice.roll(20) {
        0..6 => Request::Put(dice.pick::<&str>(&KEYS), dice.pick::<&str>(&VALUES), put_options(dice)),
        6..10 => Request::Get(dice.pick::<&str>(&KEYS), get_options(dice, revision)),
        10 | 11 => Request::Delete(dice.pick::<&str>(&KEYS), delete_options(dice)),
        12..16 => Request::Txn(txn(dice, revision, 1)),
        16 => Request::Grant(i64::try_from(dice.roll(3)).unwrap() + 1, *dice.pick(&[600, 3600, 9_000_000_001])),
        17 => Request::Revoke(i64::try_from(dice.roll(3)).unwrap() + 1),
        18 => Request::TimeToLive(i64::try_from(dice.roll(3)).unwrap() + 1),
        _ if dice.one_in(3) => Request::Compact(revision - i64::try_from(dice.roll(12)).unwrap() + 1),
        _ => Request::Put("", "x", PutOptions::new()),
    }
}

/// All that a watch hears until a revision, one line per event.
async fn heard(stream: &mut WatchStream, until: i64) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let message = within(stream.message()).await.unwrap().unwrap();
        assert!(!message.canceled(), "{message:?}");
        for event in &message.0.events {
            lines.push(format!("{event:?}"));
            if event.kv.as_ref().unwrap().mod_revision == until {
                return lines;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_and_events_are_etcds() {
    let dir = tempdir().unwrap();
    if !is_etcd_installed() {
        return;
    }
    let etcd = Server::etcd(&[]);
    let ours = InProcess::start(dir.path()).await;
    let (mut theirs, mut ours) = (connect(etcd.address().parse().unwrap()).await, ours.client().await);
    let everything = || Some(WatchOptions::new().with_all_keys().with_prev_key());
    let mut their_events = theirs.watch("", everything()).await.unwrap();
    let mut our_events = ours.watch("", everything()).await.unwrap();
    within(their_events.message()).await.unwrap();
    within(our_events.message()).await.unwrap();

    // Other requests with `SEED=n`.
    let seed = std::env::var("SEED").map_or(15_636_161_073_087_173_633, |seed| seed.parse().expect("SEED is a number"));
    let mut dice = Dice::new(seed);
    let mut revision = 1;
    for number in 0..REQUESTS {
        let request = request(&mut dice, revision);
        let (ours, theirs) =
            within(async { tokio::join!(ask(&mut ours, request.clone()), ask(&mut theirs, request.clone())) }).await;
        assert_eq!(ours, theirs, "request {number}: {request:?}");
        revision = ours
            .split_once("revision: ")
            .and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
            .filter(|_| !matches!(request, Request::Grant(..)))
            .unwrap_or(revision);
    }
    for client in [&mut ours, &mut theirs] {
        client.put("end", "", None).await.unwrap();
    }
    let end = ours.get("end", None).await.unwrap().kvs()[0].mod_revision();
    let (ours, theirs) = (heard(&mut our_events, end).await, heard(&mut their_events, end).await);
    assert_eq!(ours, theirs);
}
