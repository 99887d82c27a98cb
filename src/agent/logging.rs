//! Log lines as the field knows them: Patroni's text format (`2026-01-31 12:00:00,123 INFO: …`) or JSON, to stderr or
//! to a file that rotates by size.
//!
//! Whoever logs only formats a line and puts it into a bounded queue; a thread of its own writes. A reader of stderr
//! that stops reading, or a full disk, must not stop the loop that renews the lease.

mod file;
mod format;
mod names;
mod queue;

use std::backtrace::Backtrace;
use std::io;
use std::panic;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tracing::{Event, Subscriber, error, warn};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::config::LogConfig;
use crate::io::clock::local_now;

use file::Sink;
use format::{Format, Record};
use queue::Queue;

/// How long a panic waits for its own lines: the thread that panics may be the last one.
const PANIC_LIMIT: Duration = Duration::from_millis(200);

/// The running log. Clones are the same log.
#[derive(Clone)]
pub(super) struct Log {
    shared: Arc<Shared>,
    filter: reload::Handle<Targets, Registry>,
}

/// What the layer and the writer share.
struct Shared {
    format: RwLock<Format>,
    heartbeat: Mutex<Heartbeat>,
    sink: Mutex<Sink>,
    queue: Queue,
}

/// Lines that say that all is well; one that equals the one before can be left out.
#[derive(Default)]
struct Heartbeat {
    is_deduplicated: bool,
    last: Option<String>,
}

/// Starts logging for the life of the process.
pub(super) fn init(config: &LogConfig) -> io::Result<Log> {
    let (format, warnings) = Format::new(config);
    let shared = Arc::new(Shared {
        format: RwLock::new(format),
        heartbeat: Mutex::new(Heartbeat { is_deduplicated: config.deduplicate_heartbeat_logs, last: None }),
        sink: Mutex::new(Sink::open(config)?),
        queue: Queue::new(config.max_queue_size),
    });
    let (filter, handle) = reload::Layer::new(names::targets(config));
    let layer = Lines { shared: Arc::clone(&shared) }.with_filter(filter);
    tracing_subscriber::registry().with(layer).try_init().map_err(io::Error::other)?;
    let writer = Arc::clone(&shared);
    std::thread::Builder::new().name("log-writer".into()).spawn(move || {
        while let Some(lines) = writer.queue.take() {
            let mut sink = writer.sink.lock().unwrap_or_else(PoisonError::into_inner);
            // A log that cannot be written must not stop the agent.
            lines.iter().for_each(|line| drop(sink.write_line(line)));
            drop(sink);
            writer.queue.written();
        }
    })?;
    warnings.iter().for_each(|warning| warn!("{warning}"));
    log_panics(Arc::clone(&shared));
    Ok(Log { shared, filter: handle })
}

/// A panic is a line like any other, in the same place and format.
fn log_panics(shared: Arc<Shared>) {
    panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let words = panic.payload().downcast_ref::<&str>().map(|words| (*words).to_owned());
        let words = words.or_else(|| panic.payload().downcast_ref::<String>().cloned()).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        let backtrace = Backtrace::force_capture().to_string();
        error!(error = words, thread, backtrace, "a panic at {place}; please report it as a BUG");
        shared.queue.flush(PANIC_LIMIT);
    }));
}

impl Log {
    /// Takes changed settings over. Errs when the new file cannot be opened; then everything stays as it was.
    pub(super) fn apply(&self, config: &LogConfig) -> io::Result<()> {
        self.shared.sink.lock().unwrap_or_else(PoisonError::into_inner).change(config)?;
        let (format, warnings) = Format::new(config);
        *self.shared.format.write().unwrap_or_else(PoisonError::into_inner) = format;
        self.shared.heartbeat.lock().unwrap_or_else(PoisonError::into_inner).is_deduplicated =
            config.deduplicate_heartbeat_logs;
        self.shared.queue.set_limit(config.max_queue_size);
        self.filter.reload(names::targets(config)).map_err(io::Error::other)?;
        warnings.iter().for_each(|warning| warn!("{warning}"));
        Ok(())
    }

    /// Waits until everything said so far is written, or until the limit.
    pub(super) fn flush(&self, limit: Duration) {
        self.shared.queue.flush(limit);
    }

    /// How many lines wait to be written, and how many more found no place since that was last said.
    pub(super) fn waiting(&self) -> (usize, usize) {
        self.shared.queue.waiting()
    }

    /// Whether the lines go to a file, where whoever sees our stderr does not see them.
    pub(super) fn is_in_file(&self) -> bool {
        matches!(*self.shared.sink.lock().unwrap_or_else(PoisonError::into_inner), Sink::File(_))
    }
}

struct Lines {
    shared: Arc<Shared>,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let record = Record::of(event);
        if self.shared.heartbeat.lock().unwrap_or_else(PoisonError::into_inner).is_repeated(&record.message) {
            return;
        }
        let format = self.shared.format.read().unwrap_or_else(PoisonError::into_inner);
        let line = format.line(&local_now(), &record);
        self.shared.queue.put(line, |lost| {
            let words = format!("QueueHandler has lost {lost} log records");
            format.line(&local_now(), &Record::warning(module_path!(), words))
        });
    }
}

impl Heartbeat {
    /// Takes note of a line. Whether it says again what the last heartbeat said.
    fn is_repeated(&mut self, message: &str) -> bool {
        if message.starts_with("no action. ") || message.starts_with("PAUSE: no action") {
            let is_same = self.last.as_deref() == Some(message);
            if !is_same {
                self.last = Some(message.to_owned());
            }
            return is_same && self.is_deduplicated;
        }
        // This line comes before one that is no heartbeat; the next heartbeat is news.
        if message.starts_with("Lock owner: ") {
            self.last = None;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_heartbeats_are_left_out_when_wanted() {
        let mut heartbeat = Heartbeat::default();
        let line = "no action. I am (n1), the leader with the lock";
        assert!(!heartbeat.is_repeated(line) && !heartbeat.is_repeated(line));
        heartbeat.is_deduplicated = true;
        assert!(heartbeat.is_repeated(line));
        assert!(!heartbeat.is_repeated("other") && !heartbeat.is_repeated("other"));
        assert!(heartbeat.is_repeated(line), "lines in between are no news of the loop");
        assert!(!heartbeat.is_repeated("PAUSE: no action. I am (n1)"));
        assert!(!heartbeat.is_repeated(line));
        assert!(!heartbeat.is_repeated("Lock owner: n2; I am n1"));
        assert!(!heartbeat.is_repeated(line));
    }
}
