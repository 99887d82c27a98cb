//! What the watch knows, kept so that the loop need not read everything from the server in each cycle.
//!
//! A watch that has nothing to tell looks like one that has died, and a loop must not work from what a dead one once
//! knew. So nothing is answered from here on trust: every reader first asks the server *on the watch's own stream* how
//! far it is, and gets the view only after the answer, which comes behind everything that happened before the
//! question. That makes it as fresh as a read from that server. (An etcd before 3.4.25 or 3.5.8 may send the answer
//! before what it has queued already: one that names a later revision than we have seen is asked for twice.) Whoever
//! gets no view reads the keys themselves; so does whoever finds the cluster without a leader, for what follows from
//! that is a race.
//!
//! Own writes count too: their events come over the same stream, and until they have come there is no view.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::channel::mpsc::UnboundedSender;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::cluster::ClusterView;

/// So often in a row may a server answer requests but no question on the watch; then it is one that cannot.
const SILENT_STREAMS: u32 = 2;

/// What the cache has to say.
#[derive(Debug)]
pub(super) enum Answer {
    /// This is how it stands at the server now.
    Current(Arc<ClusterView>),
    /// There is no watch at the moment.
    Nothing,
    /// There is one, but the server does not answer on it. It is begun anew.
    Silence,
}

/// Shared by the watch, which fills it, and the readers.
pub(super) struct Cache {
    state: Mutex<State>,
    /// Counts everything that a reader may wait for.
    news: watch::Sender<u64>,
    /// Counts the wishes for a new watch.
    restarts: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    /// Where to ask, while a watch is there.
    line: Option<UnboundedSender<()>>,
    /// Counts the watches.
    stream: u64,
    view: Arc<ClusterView>,
    /// The latest revision that the view contains.
    seen: i64,
    /// The latest revision that we wrote ourselves.
    written: i64,
    /// The revision of the store at the last answer.
    told: i64,
    /// Questions on this watch, which are answered in their order.
    asked: u64,
    answered: u64,
    silent_streams: u32,
    unused_until: Option<Instant>,
}

impl State {
    /// Asks how far this watch is: the number of the question.
    fn question(&mut self, stream: u64) -> Option<u64> {
        let line = self.line.as_ref().filter(|_| self.stream == stream)?;
        line.unbounded_send(()).ok()?;
        self.asked += 1;
        Some(self.asked)
    }
}

impl Cache {
    /// Knows nothing yet.
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), news: watch::Sender::new(0), restarts: watch::Sender::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.news.send_modify(|count| *count += 1);
    }

    /// A watch is there, which goes on where the last view ends. Questions go to `line`.
    pub(super) fn opened(&self, line: UnboundedSender<()>) {
        self.change(|state| {
            state.stream += 1;
            (state.asked, state.answered) = (0, 0);
            state.line = Some(line);
        });
    }

    /// Whether somebody waits for what comes next.
    pub(super) fn is_awaited(&self) -> bool {
        self.news.receiver_count() > 0
    }

    /// The watch is no more.
    pub(super) fn closed(&self) {
        self.change(|state| state.line = None);
    }

    /// How it stands after `revision`.
    pub(super) fn learned(&self, view: Arc<ClusterView>, revision: i64) {
        self.change(|state| {
            state.view = view;
            state.seen = state.seen.max(revision);
        });
    }

    /// Everything before is from another watch, or from another cluster: it begins with this.
    pub(super) fn begun(&self, view: Arc<ClusterView>, revision: i64) {
        self.change(|state| {
            state.view = view;
            state.seen = revision;
            state.told = revision;
            // A store that was restored from a backup counts from an earlier revision again.
            state.written = state.written.min(revision);
        });
    }

    /// The server has answered a question, at this revision.
    pub(super) fn answered(&self, revision: i64) {
        self.change(|state| {
            state.answered += 1;
            state.told = revision;
            state.silent_streams = 0;
        });
    }

    /// We have written this revision.
    pub(super) fn wrote(&self, revision: i64) {
        let mut state = self.state();
        state.written = state.written.max(revision);
    }

    /// The server has contradicted what we believed: the watch begins anew, and until then there is no view.
    pub(super) fn doubt(&self) {
        self.closed();
        self.restarts.send_modify(|count| *count += 1);
    }

    /// Changes when the watch must begin anew.
    pub(super) fn restarts(&self) -> watch::Receiver<u64> {
        self.restarts.subscribe()
    }

    /// The server was silent here but answered elsewhere. One that does so again and again does not know the
    /// question, and is not asked for a while.
    pub(super) fn is_only_silent_here(&self, rest: Duration) {
        let mut state = self.state();
        state.silent_streams += 1;
        if state.silent_streams >= SILENT_STREAMS {
            tracing::debug!("the server does not say how far its watch is; every cycle reads for itself for a while");
            state.silent_streams = 0;
            state.unused_until = Some(Instant::now() + rest);
        }
    }

    /// How it stands, if the server says within `limit` that the watch is up to date.
    pub(super) async fn current(&self, limit: Duration) -> Answer {
        let stream = {
            let state = self.state();
            if state.line.is_none() || state.unused_until.is_some_and(|until| Instant::now() < until) {
                return Answer::Nothing;
            }
            state.stream
        };
        match timeout(limit, self.ask(stream)).await {
            Ok(Some(view)) => Answer::Current(view),
            Ok(None) => Answer::Nothing,
            Err(_) => {
                let is_still_there = {
                    let state = self.state();
                    state.line.is_some() && state.stream == stream
                };
                if is_still_there {
                    self.doubt();
                }
                Answer::Silence
            }
        }
    }

    /// `None`: this watch has ended meanwhile.
    async fn ask(&self, stream: u64) -> Option<Arc<ClusterView>> {
        let mut news = self.news.subscribe();
        let mut number = self.state().question(stream)?;
        let mut is_second = false;
        loop {
            {
                let mut state = self.state();
                if state.line.is_none() || state.stream != stream {
                    return None;
                }
                if state.answered >= number && state.seen >= state.written {
                    if is_second || state.seen >= state.told {
                        return Some(Arc::clone(&state.view));
                    }
                    number = state.question(stream)?;
                    is_second = true;
                }
            }
            news.changed().await.ok()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::channel::mpsc::{UnboundedReceiver, unbounded};
    use futures::{FutureExt, StreamExt};

    const LIMIT: Duration = Duration::from_secs(1);

    fn view(initialize: &str) -> Arc<ClusterView> {
        Arc::new(ClusterView { initialize: Some(initialize.to_owned()), ..ClusterView::default() })
    }

    fn watched() -> (Arc<Cache>, UnboundedReceiver<()>) {
        let (cache, (line, questions)) = (Arc::new(Cache::new()), unbounded());
        cache.begun(view("1"), 1);
        cache.opened(line);
        (cache, questions)
    }

    fn reader(cache: &Arc<Cache>) -> tokio::task::JoinHandle<Answer> {
        let cache = Arc::clone(cache);
        tokio::spawn(async move { cache.current(LIMIT).await })
    }

    fn text(answer: Answer) -> String {
        match answer {
            Answer::Current(view) => view.initialize.clone().unwrap_or_default(),
            Answer::Nothing => "nothing".to_owned(),
            Answer::Silence => "silence".to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_view_is_given_only_after_an_answer_to_this_very_question() {
        let (cache, mut questions) = watched();
        // Who asked this question has left.
        let given_up = tokio::time::timeout(LIMIT / 10, cache.current(LIMIT));
        assert!(given_up.await.is_err());
        let reading = reader(&cache);
        questions.next().await.unwrap();
        questions.next().await.unwrap();
        cache.answered(1);
        cache.learned(view("2"), 2);
        tokio::task::yield_now().await;
        assert!(!reading.is_finished(), "neither an event nor the answer to another question");
        cache.answered(2);
        assert_eq!(text(reading.await.unwrap()), "2");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_watch_there_is_nothing_and_nobody_waits() {
        let cache = Cache::new();
        assert_eq!(text(cache.current(LIMIT).now_or_never().unwrap()), "nothing");
        let (cache, mut questions) = watched();
        let reading = reader(&cache);
        questions.next().await.unwrap();
        cache.closed();
        assert_eq!(text(reading.await.unwrap()), "nothing");
        let (line, _other) = unbounded();
        cache.opened(line);
        cache.doubt();
        assert_eq!(text(cache.current(LIMIT).now_or_never().unwrap()), "nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn an_own_write_is_waited_for() {
        let (cache, mut questions) = watched();
        cache.wrote(7);
        let reading = reader(&cache);
        questions.next().await.unwrap();
        cache.answered(6);
        cache.learned(view("6"), 6);
        tokio::task::yield_now().await;
        assert!(!reading.is_finished());
        cache.learned(view("7"), 7);
        assert_eq!(text(reading.await.unwrap()), "7");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_may_have_overtaken_an_event_is_asked_for_once_more() {
        let (cache, mut questions) = watched();
        let reading = reader(&cache);
        questions.next().await.unwrap();
        cache.answered(2);
        questions.next().await.unwrap();
        cache.learned(view("2"), 2);
        cache.answered(2);
        assert_eq!(text(reading.await.unwrap()), "2");
        // What has happened elsewhere in the store comes as no event.
        let reading = reader(&cache);
        questions.next().await.unwrap();
        cache.answered(3);
        questions.next().await.unwrap();
        tokio::task::yield_now().await;
        assert!(!reading.is_finished());
        cache.answered(4);
        assert_eq!(text(reading.await.unwrap()), "2");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_the_watch_and_is_remembered_of_a_server_that_answers_elsewhere() {
        let (cache, _questions) = watched();
        let restarts = cache.restarts();
        assert_eq!(text(reader(&cache).await.unwrap()), "silence");
        assert!(restarts.has_changed().unwrap());
        assert_eq!(text(cache.current(LIMIT).await), "nothing");
        cache.is_only_silent_here(10 * LIMIT);
        let (line, _questions) = unbounded();
        cache.opened(line.clone());
        assert_eq!(text(cache.current(LIMIT).await), "silence");
        cache.is_only_silent_here(10 * LIMIT);
        cache.opened(line);
        assert_eq!(text(cache.current(LIMIT).now_or_never().unwrap()), "nothing", "it is not asked");
        tokio::time::advance(11 * LIMIT).await;
        assert_eq!(text(cache.current(LIMIT).await), "silence", "asked again");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_on_another_watch_is_none() {
        let (cache, mut questions) = watched();
        let reading = reader(&cache);
        questions.next().await.unwrap();
        let (line, _questions) = unbounded();
        cache.closed();
        cache.begun(view("other"), 3);
        cache.opened(line);
        cache.answered(3);
        assert_eq!(text(reading.await.unwrap()), "nothing");
    }
}
