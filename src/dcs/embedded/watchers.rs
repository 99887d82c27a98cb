//! Who is told what changed.
//!
//! Each stream has a bounded queue. What waits in it shares its bytes with the history, so a slow reader costs little;
//! one whose queue is full is told so in the last place, which is kept free for that, and dropped. It can resume from
//! the last revision it saw.

use std::collections::BTreeMap;

use etcd_client::proto::{PbResponseHeader, PbWatchRequestUnion, PbWatchResponse};
use tokio::sync::mpsc;
use tonic::Status;

use super::refusal::Refusal;
use super::state::key_range::KeyRange;
use super::state::{Event, State};

/// Messages that may wait for one stream.
const QUEUE: usize = 1024;
/// Streams at once.
const MAX_STREAMS: usize = 1024;
/// Watches on one stream.
const MAX_WATCHES: usize = 1024;
/// Bytes of events after which a message ends with the revision it is at: clients limit what they receive.
const MESSAGE_BYTES: usize = 1 << 20;
/// The id of a watch that never came to be, and of what concerns a whole stream.
const NO_WATCH: i64 = -1;

/// What goes to one stream.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// A response.
    Message(Message),
    /// The stream ends with this.
    End(Status),
}

/// A response whose events are still shared with the history.
#[derive(Debug, Default)]
pub(super) struct Message {
    header: PbResponseHeader,
    watch_id: i64,
    created: bool,
    canceled: bool,
    cancel_reason: String,
    compact_revision: i64,
    events: Vec<Event>,
    with_previous: bool,
}

impl Message {
    /// The message as it goes out.
    pub(super) fn into_response(self) -> PbWatchResponse {
        PbWatchResponse {
            header: Some(self.header),
            watch_id: self.watch_id,
            created: self.created,
            canceled: self.canceled,
            compact_revision: self.compact_revision,
            cancel_reason: self.cancel_reason,
            fragment: false,
            events: self.events.iter().map(|event| event.to_message(self.with_previous)).collect(),
        }
    }
}

#[derive(Debug)]
struct Watch {
    range: KeyRange,
    /// First revision it has not been told about.
    next: i64,
    without_puts: bool,
    without_deletes: bool,
    with_previous: bool,
    wants_progress: bool,
}

#[derive(Debug)]
struct Stream {
    queue: mpsc::Sender<Outgoing>,
    last_word: Option<mpsc::OwnedPermit<Outgoing>>,
    watches: BTreeMap<i64, Watch>,
    next_id: i64,
}

/// The queue of a stream is full, or its reader is gone: the stream must go.
struct Lost;

impl Stream {
    fn send(&self, message: Message) -> Result<(), Lost> {
        self.queue.try_send(Outgoing::Message(message)).map_err(|_| Lost)
    }

    fn end(mut self, last: Outgoing) {
        if let Some(permit) = self.last_word.take() {
            permit.send(last);
        }
    }

    /// Sends a watch what happened since it was last told, in messages that end with whole revisions.
    fn catch_up(&mut self, id: i64, state: &State) -> Result<(), Lost> {
        let Some(watch) = self.watches.get_mut(&id) else { return Ok(()) };
        let message = |events| Message {
            header: state.header(),
            watch_id: id,
            events,
            with_previous: watch.with_previous,
            ..Message::default()
        };
        let (mut events, mut bytes) = (Vec::new(), 0);
        for revision in state.history().since(watch.next) {
            for event in revision.events.iter().filter(|event| watch.wants(event)) {
                bytes += event.size();
                events.push(event.clone());
            }
            if bytes >= MESSAGE_BYTES {
                bytes = 0;
                let full = Outgoing::Message(message(std::mem::take(&mut events)));
                self.queue.try_send(full).map_err(|_| Lost)?;
            }
        }
        if !events.is_empty() {
            self.queue.try_send(Outgoing::Message(message(events))).map_err(|_| Lost)?;
        }
        watch.next = watch.next.max(state.revision() + 1);
        Ok(())
    }
}

impl Watch {
    fn wants(&self, event: &Event) -> bool {
        let filtered = if event.is_delete { self.without_deletes } else { self.without_puts };
        !filtered && self.range.contains(&event.kv.key)
    }
}

/// All streams.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    streams: BTreeMap<u64, Stream>,
    last_id: u64,
    closed: bool,
}

impl Watchers {
    /// A new stream: its number and its queue's end.
    pub(super) fn open(&mut self) -> Result<(u64, mpsc::Receiver<Outgoing>), Refusal> {
        self.sweep();
        if self.streams.len() >= MAX_STREAMS {
            return Err(Refusal::TooManyStreams);
        }
        let (queue, outgoing) = mpsc::channel(QUEUE);
        let last_word = queue.clone().try_reserve_owned().ok();
        let stream = Stream { queue, last_word, watches: BTreeMap::new(), next_id: 0 };
        if self.closed {
            stream.end(Outgoing::End(stopped()));
            return Ok((0, outgoing));
        }
        self.last_id += 1;
        self.streams.insert(self.last_id, stream);
        Ok((self.last_id, outgoing))
    }

    /// What a client asked on a stream. A stream that is gone needs no answer.
    pub(super) fn request(&mut self, stream_id: u64, request: PbWatchRequestUnion, state: &State) {
        let Some(stream) = self.streams.get_mut(&stream_id) else { return };
        let header = state.header();
        let done = match request {
            PbWatchRequestUnion::CreateRequest(create) => {
                let id = create.watch_id;
                let watch = Watch {
                    // A watch from the empty key on means from the first key on.
                    range: KeyRange::new(if create.key.is_empty() { &[0] } else { &create.key }, &create.range_end),
                    next: if create.start_revision > 0 { create.start_revision } else { state.revision() + 1 },
                    without_puts: create.filters.contains(&0),
                    without_deletes: create.filters.contains(&1),
                    with_previous: create.prev_kv,
                    wants_progress: create.progress_notify,
                };
                stream.create(id, watch, state)
            }
            PbWatchRequestUnion::CancelRequest(cancel) => match stream.watches.remove(&cancel.watch_id) {
                Some(_) => {
                    let message = Message { header, watch_id: cancel.watch_id, canceled: true, ..Message::default() };
                    stream.send(message)
                }
                None => Ok(()),
            },
            PbWatchRequestUnion::ProgressRequest(_) => {
                stream.send(Message { header, watch_id: NO_WATCH, ..Message::default() })
            }
        };
        if done.is_err() {
            self.drop_slow(stream_id, NO_WATCH, state);
        }
    }

    /// Tells every watch what it has not heard yet.
    pub(super) fn publish(&mut self, state: &State) {
        let mut lost = Vec::new();
        for (stream_id, stream) in &mut self.streams {
            let ids: Vec<i64> = stream.watches.keys().copied().collect();
            if let Some(id) = ids.into_iter().find(|id| stream.catch_up(*id, state).is_err()) {
                lost.push((*stream_id, id));
            }
        }
        for (stream_id, watch_id) in lost {
            self.drop_slow(stream_id, watch_id, state);
        }
    }

    /// Tells those who asked for it that they have heard everything up to now, and forgets readers that left.
    pub(super) fn announce_progress(&mut self, state: &State) {
        self.sweep();
        for stream in self.streams.values() {
            for (id, _) in stream.watches.iter().filter(|(_, watch)| watch.wants_progress) {
                // A full queue shows that there is something to read; the next event will deal with it.
                let _ = stream.send(Message { header: state.header(), watch_id: *id, ..Message::default() });
            }
        }
    }

    /// Ends all streams, those to come included.
    pub(super) fn close(&mut self) {
        self.closed = true;
        for (_, stream) in std::mem::take(&mut self.streams) {
            stream.end(Outgoing::End(stopped()));
        }
    }

    fn drop_slow(&mut self, stream_id: u64, watch_id: i64, state: &State) {
        let Some(stream) = self.streams.remove(&stream_id) else { return };
        if stream.queue.is_closed() {
            return;
        }
        tracing::warn!(stream_id, watches = stream.watches.len(), "a watcher does not read; dropping its stream");
        let cancel_reason = format!("the watcher is too slow: {QUEUE} messages are waiting; resume where it stopped");
        let message = Message { header: state.header(), watch_id, canceled: true, cancel_reason, ..Message::default() };
        stream.end(Outgoing::Message(message));
    }

    fn sweep(&mut self) {
        self.streams.retain(|_, stream| !stream.queue.is_closed());
    }
}

impl Stream {
    fn create(&mut self, wanted_id: i64, watch: Watch, state: &State) -> Result<(), Lost> {
        let header = state.header();
        let refused = if watch.range.is_empty() {
            Some("mvcc: watcher range is empty")
        } else if wanted_id != 0 && self.watches.contains_key(&wanted_id) {
            Some("mvcc: duplicate watch ID provided on the WatchStream")
        } else if self.watches.len() >= MAX_WATCHES {
            Some("too many watches on one stream")
        } else {
            None
        };
        if let Some(reason) = refused {
            return self.send(Message {
                header,
                watch_id: NO_WATCH,
                created: true,
                canceled: true,
                cancel_reason: reason.to_owned(),
                ..Message::default()
            });
        }
        let id = if wanted_id != 0 { wanted_id } else { self.free_id() };
        self.send(Message { header, watch_id: id, created: true, ..Message::default() })?;
        let floor = state.history().floor();
        if watch.next < floor {
            return self.send(Message {
                header,
                watch_id: id,
                canceled: true,
                compact_revision: floor,
                cancel_reason: Refusal::Compacted.to_string(),
                ..Message::default()
            });
        }
        self.watches.insert(id, watch);
        self.catch_up(id, state)
    }

    fn free_id(&mut self) -> i64 {
        while self.watches.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }
}

/// What open calls hear when the store goes.
pub(super) fn stopped() -> Status {
    Status::unavailable("etcdserver: server stopped")
}

#[cfg(test)]
mod tests;
