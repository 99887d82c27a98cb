//! The program under `kill -9`.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use etcd_client::{Client, GetOptions, PutOptions};
use tempfile::tempdir;
use tokio::time::{Instant, sleep};

use crate::dice::Dice;
use crate::ground::free_port;
use crate::support::{LIMIT, Program, connect, within};

/// Rounds of writing and killing.
const ROUNDS: usize = 25;
const WRITERS: usize = 4;

/// What one writer knows of its key: the last value that was acknowledged, and the one on its way.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    acknowledged: u64,
    sent: u64,
}

type Book = Arc<Mutex<BTreeMap<usize, Known>>>;

/// Puts rising numbers until the store dies, and deletes the traces of all but the last five. What was not acknowledged
/// is done again in the next round.
async fn write_until_it_dies(mut client: Client, writer: usize, book: Book) {
    let key = format!("writer/{writer}");
    loop {
        let number = {
            let mut book = book.lock().unwrap();
            let known = book.entry(writer).or_default();
            known.sent = known.acknowledged + 1;
            known.sent
        };
        let history = format!("{key}/{number}");
        if client.put(history, "", None).await.is_err()
            || client.put(key.clone(), number.to_string(), None).await.is_err()
        {
            return;
        }
        if number > 5 && client.delete(format!("{key}/{}", number - 5), None).await.is_err() {
            return;
        }
        book.lock().unwrap().entry(writer).or_default().acknowledged = number;
    }
}

async fn check(client: &mut Client, book: &Book) {
    let found = client.get("writer/", Some(GetOptions::new().with_prefix())).await.unwrap();
    let kept: BTreeMap<String, String> =
        found.kvs().iter().map(|kv| (kv.key_str().unwrap().to_owned(), kv.value_str().unwrap().to_owned())).collect();
    for (writer, Known { acknowledged, sent }) in book.lock().unwrap().iter() {
        let key = format!("writer/{writer}");
        let value: u64 = kept.get(&key).map_or(0, |value| value.parse().unwrap());
        assert!(
            (*acknowledged..=*sent).contains(&value),
            "{key} is {value}, but {acknowledged} was acknowledged and {sent} sent"
        );
        for number in 1..=*acknowledged {
            let (there, expected) = (kept.contains_key(&format!("{key}/{number}")), number + 5 > *acknowledged);
            // The deletion that belongs to the number on its way may or may not have happened.
            let open = number + 5 > *acknowledged && number + 5 <= *sent;
            assert!(there == expected || open, "{key}/{number} after {acknowledged}: {there}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost() {
    let mut dice = Dice::new(25);
    let dir = tempdir().unwrap();
    let port = free_port();
    let book = Book::default();

    let mut store = Program::store(dir.path(), port);
    let mut client = connect(store.address).await;
    let lease = client.lease_grant(600, None).await.unwrap().id();
    client.put("leased", "held", Some(PutOptions::new().with_lease(lease))).await.unwrap();
    let mut revision = 0;
    for round in 0..ROUNDS {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| tokio::spawn(write_until_it_dies(client.clone(), writer, book.clone())))
            .collect();
        // A point in time is what this test is about, not a condition.
        sleep(Duration::from_micros(20_000 + dice.roll(150_000))).await;
        store.kill();
        for writer in writers {
            within(writer).await.unwrap();
        }
        store = Program::store(dir.path(), port);
        client = connect(store.address).await;
        check(&mut client, &book).await;
        let header = client.get("leased", None).await.unwrap().take_header().unwrap();
        assert!(header.revision() > revision, "round {round}");
        revision = header.revision();
        assert_eq!(header.raft_term(), round as u64 + 2);
    }
    let held = client.lease_time_to_live(lease, None).await.unwrap();
    assert!(held.ttl() > 500);
    assert_eq!(client.get("leased", None).await.unwrap().kvs()[0].lease(), lease);
    let acknowledged: u64 = book.lock().unwrap().values().map(|known| known.acknowledged).sum();
    eprintln!("{acknowledged} rounds of writes acknowledged over {ROUNDS} kills");
    assert!(acknowledged > 50, "the writers hardly wrote: {acknowledged}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_start_may_be_killed_at_any_point() {
    let mut dice = Dice::new(20);
    let home = tempdir().unwrap();
    let port = free_port();
    for round in 0..20 {
        let dir = home.path().join(round.to_string());
        let mut first = Program::store(&dir, port);
        sleep(Duration::from_micros(dice.roll(25_000))).await;
        first.kill();
        let second = Program::store(&dir, port);
        connect(second.address).await.put("k", "v", None).await.unwrap();
    }
}

#[test]
fn a_second_process_and_a_foreign_directory_are_refused_in_words() {
    let dir = tempdir().unwrap();
    std::fs::write(dir.path().join("PG_VERSION"), "15").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_pgherd"))
        .args(["dcs", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("PG_VERSION") && text.contains("--data-dir"), "{text}");
}

#[tokio::test]
async fn sigterm_ends_it_cleanly() {
    let dir = tempdir().unwrap();
    let mut store = Program::store(dir.path(), free_port());
    let mut client = connect(store.address).await;
    client.put("k", "v", None).await.unwrap();
    let mut stream = client.watch("k", None).await.unwrap();
    within(stream.message()).await.unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(store.child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let ended = tokio::task::spawn_blocking(move || store.child.wait());
    let status = tokio::time::timeout(LIMIT, ended).await.expect("ends").unwrap().unwrap();
    assert!(status.success(), "{status}");
}

/// Not a check but a figure: `cargo test --release --test embedded_store -- --ignored --nocapture how_fast`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn how_fast() {
    let dir = tempfile::tempdir_in(std::env::var_os("DIR").unwrap_or_else(|| "/tmp".into())).unwrap();
    let store = Program::store(dir.path(), free_port());
    let client = connect(store.address).await;
    for writers in [1usize, 8, 64] {
        let start = Instant::now();
        let runs = (0..writers).map(|writer| {
            let mut client = client.clone();
            tokio::spawn(async move {
                let mut times = Vec::new();
                for round in 0..2000 / writers {
                    let sent = Instant::now();
                    client.put(format!("{writer}/{}", round % 20), vec![b'x'; 500], None).await.unwrap();
                    times.push(sent.elapsed());
                }
                times
            })
        });
        let mut times: Vec<_> =
            futures::future::join_all(runs).await.into_iter().flat_map(|times| times.unwrap()).collect();
        times.sort();
        let rate = times.len() as f64 / start.elapsed().as_secs_f64();
        let (median, late) = (times[times.len() / 2], times[times.len() * 99 / 100]);
        eprintln!("{writers:>2} writers: {rate:.0} puts/s, median {median:.1?}, 99% below {late:.1?}");
    }
}
