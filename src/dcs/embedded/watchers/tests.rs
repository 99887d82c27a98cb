//! Streams without a network: what is queued for whom.

use etcd_client::WatchOptions;
use etcd_client::proto::{PbCompactionRequest, PbDeleteRequest, PbPutRequest, PbWatchRequest, PbWatchRequestUnion};
use tokio::time::Instant;

use super::super::state::Contents;
use super::*;

fn state() -> State {
    State::restore(Contents { revision: 1, ..Contents::default() }, Instant::now()).unwrap()
}

fn put(state: &mut State, key: &str, value: &str) {
    state.put(PbPutRequest { key: key.into(), value: value.into(), ..PbPutRequest::default() }).unwrap();
}

fn create(options: WatchOptions) -> PbWatchRequestUnion {
    PbWatchRequest::from(options).request_union.unwrap()
}

fn prefix(prefix: &str) -> WatchOptions {
    WatchOptions::new().with_key(prefix).with_prefix()
}

fn next(queue: &mut mpsc::Receiver<Outgoing>) -> Option<PbWatchResponse> {
    match queue.try_recv() {
        Ok(Outgoing::Message(message)) => Some(message.into_response()),
        Ok(Outgoing::End(status)) => panic!("{status}"),
        Err(_) => None,
    }
}

fn keys(response: &PbWatchResponse) -> Vec<(&str, i32)> {
    let text = |key| std::str::from_utf8(key).unwrap();
    response.events.iter().map(|event| (text(&event.kv.as_ref().unwrap().key), event.r#type)).collect()
}

#[test]
fn a_watch_hears_its_keys_from_now_on() {
    let (mut state, mut watchers) = (state(), Watchers::default());
    put(&mut state, "a/1", "");
    let (id, mut queue) = watchers.open().unwrap();
    watchers.request(id, create(prefix("a/").with_prev_key()), &state);
    let created = next(&mut queue).unwrap();
    assert!(created.created && created.watch_id == 0 && created.header.unwrap().revision == 2);
    assert_eq!(next(&mut queue), None);

    put(&mut state, "b", "");
    watchers.publish(&state);
    assert_eq!(next(&mut queue), None);
    put(&mut state, "a/1", "new");
    put(&mut state, "a/2", "");
    watchers.publish(&state);
    let heard = next(&mut queue).unwrap();
    assert_eq!(keys(&heard), [("a/1", 0), ("a/2", 0)]);
    assert_eq!(heard.events[0].prev_kv.as_ref().unwrap().mod_revision, 2);
    watchers.publish(&state);
    assert_eq!(next(&mut queue), None, "nothing twice");
}

#[test]
fn a_watch_resumes_in_the_past_and_filters() {
    let (mut state, mut watchers) = (state(), Watchers::default());
    put(&mut state, "k", "1");
    put(&mut state, "k", "2");
    state.delete(&PbDeleteRequest { key: b"k".to_vec(), ..PbDeleteRequest::default() }).unwrap();
    let (id, mut queue) = watchers.open().unwrap();
    let from = |revision| prefix("k").with_start_revision(revision);
    watchers.request(id, create(from(3)), &state);
    watchers.request(id, create(from(2).with_filters([etcd_client::WatchFilterType::NoPut])), &state);
    watchers.request(id, create(from(6).with_watch_id(7)), &state);
    assert!(next(&mut queue).unwrap().created);
    assert_eq!(keys(&next(&mut queue).unwrap()), [("k", 0), ("k", 1)]);
    assert_eq!(next(&mut queue).unwrap().watch_id, 1);
    assert_eq!(keys(&next(&mut queue).unwrap()), [("k", 1)]);
    assert_eq!(next(&mut queue).unwrap().watch_id, 7);

    put(&mut state, "k", "at five");
    watchers.publish(&state);
    assert_eq!(next(&mut queue).unwrap().watch_id, 0);
    assert_eq!(next(&mut queue), None, "the others want no puts, or nothing before six");
    put(&mut state, "k", "at six");
    watchers.publish(&state);
    assert_eq!([0, 7].map(|_| next(&mut queue).unwrap().watch_id), [0, 7]);
}

#[test]
fn a_start_that_was_compacted_is_created_then_canceled() {
    let (mut state, mut watchers) = (state(), Watchers::default());
    for _ in 0..5 {
        put(&mut state, "k", "");
    }
    state.compact(&PbCompactionRequest { revision: 4, physical: false }).unwrap();
    let (id, mut queue) = watchers.open().unwrap();
    watchers.request(id, create(prefix("k").with_start_revision(3)), &state);
    assert!(next(&mut queue).unwrap().created);
    let canceled = next(&mut queue).unwrap();
    assert!(canceled.canceled && !canceled.created);
    assert_eq!((canceled.compact_revision, canceled.watch_id), (4, 0));
    watchers.request(id, create(prefix("k").with_start_revision(4)), &state);
    assert!(next(&mut queue).unwrap().created);
    assert_eq!(keys(&next(&mut queue).unwrap()).len(), 3);
}

#[test]
fn a_cancelled_watch_is_silent_and_its_stream_goes_on() {
    let (mut state, mut watchers) = (state(), Watchers::default());
    let (id, mut queue) = watchers.open().unwrap();
    watchers.request(id, create(prefix("k")), &state);
    watchers.request(id, create(prefix("k")), &state);
    let bad = prefix("k").with_watch_id(1);
    watchers.request(id, create(bad), &state);
    let answers: Vec<_> = std::iter::from_fn(|| next(&mut queue)).collect();
    assert!(answers[2].created && answers[2].canceled && answers[2].watch_id == -1, "{:?}", answers[2]);
    watchers.request(id, create(WatchOptions::new().with_key("b").with_range("a")), &state);
    assert_eq!(next(&mut queue).unwrap().cancel_reason, "mvcc: watcher range is empty");
    // The message's type has no public name; its default means the watch with id 0.
    watchers.request(id, PbWatchRequestUnion::CancelRequest(Default::default()), &state);
    assert!(next(&mut queue).is_some_and(|response| response.canceled && response.watch_id == 0));
    watchers.request(id, PbWatchRequestUnion::CancelRequest(Default::default()), &state);
    put(&mut state, "k", "");
    watchers.publish(&state);
    let heard: Vec<_> = std::iter::from_fn(|| next(&mut queue)).map(|response| response.watch_id).collect();
    assert_eq!(heard, [1], "only the other one, and no second answer to the cancellation");
}

#[test]
fn who_does_not_read_is_told_and_dropped() {
    let (mut state, mut watchers) = (state(), Watchers::default());
    let (slow, mut queue) = watchers.open().unwrap();
    let (quick, mut other) = watchers.open().unwrap();
    watchers.request(slow, create(prefix("k")), &state);
    watchers.request(quick, create(prefix("k")), &state);
    for _ in 0..QUEUE + 5 {
        put(&mut state, "k", "");
        watchers.publish(&state);
        while next(&mut other).is_some() {}
    }
    assert_eq!(watchers.streams.len(), 1);
    let all: Vec<_> = std::iter::from_fn(|| next(&mut queue)).collect();
    let (last, before) = all.split_last().unwrap();
    assert!(last.canceled && last.cancel_reason.contains("too slow"), "{last:?}");
    assert!(before.iter().skip(1).enumerate().all(|(i, response)| {
        response.events[0].kv.as_ref().unwrap().mod_revision == 2 + i64::try_from(i).unwrap()
    }));
    assert!(queue.try_recv().is_err() && queue.is_closed());
}

#[test]
fn a_long_past_comes_in_messages_of_bounded_size() {
    let (mut state, mut watchers) = (state(), Watchers::default());
    let large = "x".repeat(300 << 10);
    for _ in 0..10 {
        put(&mut state, "k", &large);
    }
    let (id, mut queue) = watchers.open().unwrap();
    watchers.request(id, create(prefix("k").with_start_revision(2)), &state);
    let sizes: Vec<_> = std::iter::from_fn(|| next(&mut queue)).map(|response| response.events.len()).collect();
    assert_eq!(sizes, [0, 4, 4, 2]);
}

#[test]
fn the_end_is_announced_to_all_streams_and_to_late_ones() {
    let mut watchers = Watchers::default();
    let (_, mut queue) = watchers.open().unwrap();
    watchers.close();
    let (_, mut late) = watchers.open().unwrap();
    for queue in [&mut queue, &mut late] {
        assert!(matches!(queue.try_recv(), Ok(Outgoing::End(_))));
        assert!(queue.is_closed());
    }
}

#[test]
fn streams_are_limited_and_those_that_were_left_make_room() {
    let mut watchers = Watchers::default();
    let held: Vec<_> = (0..MAX_STREAMS).map(|_| watchers.open().unwrap()).collect();
    assert_eq!(watchers.open().unwrap_err(), Refusal::TooManyStreams);
    drop(held);
    watchers.open().unwrap();
}
