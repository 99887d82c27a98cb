//! Log lines as the field knows them: Patroni's text format (`2026-01-31 12:00:00,123 INFO: …`) or JSON, to stderr or
//! to a file that rotates by size.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::Zoned;
use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogConfig;

/// Starts logging for the life of the process.
pub(super) fn init(config: &LogConfig) -> io::Result<()> {
    let sink = Sink::open(config)?;
    let layer = Lines { format: Format::new(config), sink: Mutex::new(sink) };
    let level = level(&config.level);
    let mut targets = Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("pgherd", level);
    for (name, text) in &config.loggers {
        targets = targets.with_target(name.replace('.', "::"), self::level(text));
    }
    tracing_subscriber::registry().with(layer.with_filter(targets)).try_init().map_err(io::Error::other)
}

fn level(text: &str) -> LevelFilter {
    match text.to_uppercase().as_str() {
        "DEBUG" => LevelFilter::DEBUG,
        "WARN" | "WARNING" => LevelFilter::WARN,
        "ERROR" | "FATAL" | "CRITICAL" => LevelFilter::ERROR,
        _ => LevelFilter::INFO,
    }
}

struct Lines {
    format: Format,
    sink: Mutex<Sink>,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut said = Said::default();
        event.record(&mut said);
        let line = self.format.line(&Zoned::now(), event.metadata(), &said);
        // A log that cannot be written must not stop the agent.
        let _ = self.sink.lock().unwrap_or_else(PoisonError::into_inner).write_line(&line);
    }
}

/// An event's message and its other fields.
#[derive(Default)]
struct Said {
    message: String,
    fields: Map<String, Value>,
}

impl Said {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("message", other) => self.message = other.to_string(),
            (name, value) => {
                self.fields.insert(name.to_owned(), value);
            }
        }
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, json!(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, json!(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, json!(value));
    }
}

/// `log.format`, `log.dateformat`, `log.type`, `log.static_fields`.
struct Format {
    is_json: bool,
    pattern: String,
    /// For JSON: field and the name it is given.
    fields: Vec<(String, String)>,
    dateformat: Option<String>,
    static_fields: Map<String, Value>,
}

const DEFAULT_PATTERN: &str = "%(asctime)s %(levelname)s: %(message)s";

impl Format {
    fn new(config: &LogConfig) -> Self {
        let pattern = config.format.as_str().unwrap_or(DEFAULT_PATTERN).to_owned();
        let listed = config.format.as_array().map(|items| items.iter().flat_map(json_fields).collect::<Vec<_>>());
        let usual = ["asctime", "levelname", "message"].map(|name| (name.to_owned(), name.to_owned()));
        Self {
            is_json: config.is_json,
            pattern,
            fields: listed.filter(|fields| !fields.is_empty()).unwrap_or_else(|| usual.to_vec()),
            dateformat: config.dateformat.clone(),
            static_fields: config.static_fields.clone(),
        }
    }

    fn line(&self, now: &Zoned, metadata: &tracing::Metadata<'_>, said: &Said) -> String {
        let value = |name: &str| self.value(name, now, metadata, said);
        if !self.is_json {
            return fill(&self.pattern, &value);
        }
        let mut line = Map::new();
        for (field, name) in &self.fields {
            line.insert(name.clone(), value(field).unwrap_or(Value::Null));
        }
        line.extend(said.fields.clone());
        line.extend(self.static_fields.clone());
        Value::Object(line).to_string()
    }

    fn value(&self, name: &str, now: &Zoned, metadata: &tracing::Metadata<'_>, said: &Said) -> Option<Value> {
        let millis = now.timestamp().as_millisecond();
        Some(match name {
            "asctime" => json!(match &self.dateformat {
                Some(format) => now.strftime(format).to_string(),
                None => format!("{},{:03}", now.strftime("%Y-%m-%d %H:%M:%S"), millis.rem_euclid(1000)),
            }),
            "levelname" => json!(level_name(*metadata.level())),
            "levelno" => json!(level_number(*metadata.level())),
            "message" => json!(said.message),
            "name" => json!(metadata.target().replace("::", ".")),
            "pathname" => json!(metadata.file().unwrap_or_default()),
            "filename" => json!(metadata.file().and_then(|file| file.rsplit('/').next()).unwrap_or_default()),
            "module" => json!(metadata.target().rsplit("::").next().unwrap_or_default()),
            "funcName" => json!(metadata.target().rsplit("::").next().unwrap_or_default()),
            "lineno" => json!(metadata.line().unwrap_or_default()),
            "process" => json!(std::process::id()),
            "processName" => json!("MainProcess"),
            "thread" => json!(0),
            "threadName" => json!(std::thread::current().name().unwrap_or("MainThread")),
            "created" => json!(format!("{}.{:03}", millis.div_euclid(1000), millis.rem_euclid(1000))),
            "msecs" => json!(millis.rem_euclid(1000)),
            _ => return None,
        })
    }
}

fn json_fields(item: &Value) -> Vec<(String, String)> {
    match item {
        Value::String(name) => vec![(name.clone(), name.clone())],
        Value::Object(map) => {
            map.iter().filter_map(|(field, name)| Some((field.clone(), name.as_str()?.to_owned()))).collect()
        }
        _ => Vec::new(),
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        _ => "DEBUG",
    }
}

fn level_number(level: Level) -> u32 {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        _ => 10,
    }
}

/// Fills `%(name)s`, `%(name)-8s`, `%(name)d`; an unknown field is left empty, never the whole line.
fn fill(pattern: &str, value: &dyn Fn(&str) -> Option<Value>) -> String {
    let mut line = String::with_capacity(pattern.len() + 80);
    let mut rest = pattern;
    while let Some(at) = rest.find('%') {
        line.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            line.push('%');
            rest = after;
            continue;
        }
        let Some((name, flags, after)) = placeholder(rest) else {
            line.push('%');
            continue;
        };
        let text = match value(name) {
            Some(Value::String(text)) => text,
            Some(other) => other.to_string(),
            None => String::new(),
        };
        let width: usize = flags.trim_start_matches(['-', '0', '+', ' ']).parse().unwrap_or(0);
        if flags.starts_with('-') {
            line.push_str(&format!("{text:<width$}"));
        } else {
            line.push_str(&format!("{text:>width$}"));
        }
        rest = after;
    }
    line.push_str(rest);
    line
}

/// `(name)flags` and one conversion letter: the name, the flags, what follows.
fn placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let (name, after) = text.strip_prefix('(')?.split_once(')')?;
    let letter = after.find(|c: char| c.is_ascii_alphabetic())?;
    Some((name, &after[..letter], &after[letter + 1..]))
}

/// Where lines go.
enum Sink {
    Stderr,
    File(Rotating),
}

impl Sink {
    fn open(config: &LogConfig) -> io::Result<Self> {
        let Some(dir) = &config.dir else { return Ok(Self::Stderr) };
        let path = Path::new(dir).join("patroni.log");
        Rotating::open(path, config.file_size, config.file_num, config.mode).map(Self::File)
    }

    fn write_line(&mut self, line: &str) -> io::Result<()> {
        match self {
            Self::Stderr => writeln!(io::stderr().lock(), "{line}"),
            Self::File(file) => file.write_line(line),
        }
    }
}

/// A file that is renamed to `.1`, `.2`, … when it has grown to its size.
struct Rotating {
    path: PathBuf,
    file: File,
    written: u64,
    limit: u64,
    keep: u32,
    mode: u32,
}

impl Rotating {
    fn open(path: PathBuf, limit: u64, keep: u32, mode: Option<u32>) -> io::Result<Self> {
        let mode = mode.unwrap_or(0o666);
        let file = append(&path, mode)?;
        let written = file.metadata()?.len();
        Ok(Self { path, file, written, limit, keep, mode })
    }

    fn write_line(&mut self, line: &str) -> io::Result<()> {
        let length = line.len() as u64 + 1;
        if self.limit > 0 && self.written > 0 && self.written + length > self.limit {
            self.rotate()?;
        }
        writeln!(self.file, "{line}")?;
        self.written += length;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |n: u32| PathBuf::from(format!("{}.{n}", self.path.display()));
        for n in (1..self.keep).rev() {
            if numbered(n).exists() {
                std::fs::rename(numbered(n), numbered(n + 1))?;
            }
        }
        if self.keep > 0 {
            std::fs::rename(&self.path, numbered(1))?;
        } else {
            std::fs::remove_file(&self.path)?;
        }
        self.file = append(&self.path, self.mode)?;
        self.written = 0;
        Ok(())
    }
}

fn append(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(mode).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_filled_and_unknown_fields_do_not_suppress_the_line() {
        let value = |name: &str| match name {
            "levelname" => Some(json!("INFO")),
            "message" => Some(json!("hello %s")),
            "lineno" => Some(json!(7)),
            _ => None,
        };
        assert_eq!(fill("%(levelname)s: %(message)s", &value), "INFO: hello %s");
        assert_eq!(fill("%(levelname)-8s|%(lineno)4d|%(nonsense)s|%%|%", &value), "INFO    |   7||%|%");
    }

    #[test]
    fn files_rotate_by_size_and_keep_their_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("patroni.log");
        let mut file = Rotating::open(path.clone(), 20, 2, None).unwrap();
        for line in ["first line here", "second line", "third line here", "fourth line"] {
            file.write_line(line).unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read("patroni.log"), "fourth line\n");
        assert_eq!(read("patroni.log.1"), "third line here\n");
        assert_eq!(read("patroni.log.2"), "second line\n");
        assert!(!dir.path().join("patroni.log.3").exists());
    }
}
