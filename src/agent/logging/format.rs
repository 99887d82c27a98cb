//! One event as a line: `log.format`, `log.dateformat`, `log.type`, `log.static_fields`.

use std::fmt;

use jiff::{Timestamp, Zoned};
use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level};
use tracing_subscriber::filter::Targets;

use crate::agent::task::{causes, chain};
use crate::config::LogConfig;
use crate::io::clock::local_now;

use super::names::{logger, targets};

const DEFAULT_PATTERN: &str = "%(asctime)s %(levelname)s: %(message)s";

/// Fields that a plain line does not repeat: for machines, or part of the trace.
const UNSAID: [&str; 3] = ["error", "rule", BACKTRACE];
/// The calls that led to a panic.
const BACKTRACE: &str = "backtrace";

/// What is said, and where.
pub(super) struct Record {
    pub(super) message: String,
    fields: Map<String, Value>,
    /// The error that it is about, and what caused it.
    causes: Vec<String>,
    level: Level,
    target: String,
    file: Option<&'static str>,
    line: u32,
}

impl Record {
    pub(super) fn of(event: &Event<'_>) -> Self {
        let metadata = event.metadata();
        let mut record = Self {
            message: String::new(),
            fields: Map::new(),
            causes: Vec::new(),
            level: *metadata.level(),
            target: metadata.target().to_owned(),
            file: metadata.file(),
            line: metadata.line().unwrap_or_default(),
        };
        event.record(&mut record);
        record
    }

    /// A line of the log's own.
    pub(super) fn warning(target: &str, message: String) -> Self {
        let (level, target) = (Level::WARN, target.to_owned());
        Self { message, fields: Map::new(), causes: Vec::new(), level, target, file: Some(file!()), line: line!() }
    }

    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("message", other) => self.message = other.to_string(),
            (name, value) => {
                self.fields.insert(name.to_owned(), value);
            }
        }
    }

    fn module(&self) -> &str {
        self.target.rsplit("::").next().unwrap_or_default()
    }

    /// The message with everything that belongs to it, for lines without fields.
    fn text(&self) -> String {
        let mut text = self.message.clone();
        let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if let Some(error) = self.fields.get("error") {
            text.push_str(": ");
            text.push_str(&shown(error));
        }
        let others = self.fields.iter().filter(|(name, _)| !UNSAID.contains(&name.as_str()));
        let others: Vec<String> = others.map(|(name, value)| format!("{name}: {}", shown(value))).collect();
        if !others.is_empty() {
            text.push_str(&format!(" ({})", others.join(", ")));
        }
        text
    }

    /// What Patroni's traceback tells: where in the program it went wrong, and what led to what.
    fn trace(&self) -> String {
        let place = (self.file.unwrap_or("?"), self.line, logger(&self.target));
        let mut lines = vec![format!("  at {}:{} ({})", place.0, place.1, place.2)];
        if let Some(rule) = self.fields.get("rule") {
            lines.push(format!("  in rule {rule}"));
        }
        for (i, cause) in self.causes.iter().enumerate() {
            lines.push(format!("  {}: {cause}", if i == 0 { "error" } else { "caused by" }));
        }
        lines.extend(self.fields.get(BACKTRACE).and_then(Value::as_str).map(str::to_owned));
        lines.join("\n")
    }
}

impl Visit for Record {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "error" {
            self.causes = vec![text.clone()];
        }
        self.put(field, json!(text));
    }

    fn record_error(&mut self, field: &Field, error: &(dyn std::error::Error + 'static)) {
        self.causes = causes(error);
        self.put(field, json!(chain(error)));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "error" {
            self.causes = vec![value.to_owned()];
        }
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

/// How lines look.
pub(super) struct Format {
    is_json: bool,
    pattern: String,
    /// For JSON: field and the name it is given.
    fields: Vec<(String, String)>,
    dateformat: Option<String>,
    static_fields: Map<String, Value>,
    /// Set when traces are shown only by loggers that show debug lines: which those are.
    debugs: Option<Targets>,
    began: Timestamp,
}

impl Format {
    /// The format, and what of the settings could not be used.
    pub(super) fn new(config: &LogConfig) -> (Self, Vec<String>) {
        let mut warnings = Vec::new();
        let pattern = match &config.format {
            Value::String(text) => text.clone(),
            other => {
                if !config.is_json {
                    let kind = if other.is_array() { "list" } else { "value of another type" };
                    warnings
                        .push(format!("Expected log format to be a string when log type is plain, but got \"{kind}\""));
                }
                DEFAULT_PATTERN.to_owned()
            }
        };
        let fields: Vec<_> = match &config.format {
            Value::Array(items) => items.iter().flat_map(json_fields).collect(),
            _ => pattern_fields(&pattern),
        };
        let fields = if fields.is_empty() { pattern_fields(DEFAULT_PATTERN) } else { fields };
        let now = local_now();
        let dateformat = config.dateformat.clone().filter(|text| match jiff::fmt::strtime::format(text, &now) {
            Ok(_) => true,
            Err(error) => {
                warnings.push(format!("log.dateformat '{text}' is no strftime format, the default is used: {error}"));
                false
            }
        });
        let (is_json, static_fields) = (config.is_json, config.static_fields.clone());
        let debugs = config.is_traced_in_debug.then(|| targets(config));
        (Self { is_json, pattern, fields, dateformat, static_fields, debugs, began: now.timestamp() }, warnings)
    }

    pub(super) fn line(&self, now: &Zoned, record: &Record) -> String {
        let value = |name: &str| self.value(name, now, record);
        let trace = self.shows_trace(record).then(|| record.trace());
        if !self.is_json {
            let line = fill(&self.pattern, &value);
            return match trace {
                Some(trace) => format!("{line}\n{trace}"),
                None => line,
            };
        }
        let mut line = Map::new();
        for (field, name) in &self.fields {
            line.insert(name.clone(), value(field).unwrap_or(Value::Null));
        }
        line.extend(self.static_fields.clone());
        if let Some(trace) = trace {
            line.entry("exc_info").or_insert_with(|| trace.into());
        }
        for (name, value) in record.fields.iter().filter(|(name, _)| *name != BACKTRACE) {
            line.entry(name).or_insert_with(|| value.clone());
        }
        Value::Object(line).to_string()
    }

    /// `log.traceback_level`: errors that something caused come with a trace, at `DEBUG` only where debug lines do.
    fn shows_trace(&self, record: &Record) -> bool {
        let is_shown = |debugs: &Targets| debugs.would_enable(&record.target, &Level::DEBUG);
        record.level == Level::ERROR && !record.causes.is_empty() && self.debugs.as_ref().is_none_or(is_shown)
    }

    fn asctime(&self, now: &Zoned) -> String {
        let own = self.dateformat.as_ref().and_then(|format| jiff::fmt::strtime::format(format, now).ok());
        let millis = now.timestamp().as_millisecond().rem_euclid(1000);
        own.unwrap_or_else(|| format!("{},{millis:03}", now.strftime("%Y-%m-%d %H:%M:%S")))
    }

    fn value(&self, name: &str, now: &Zoned, record: &Record) -> Option<Value> {
        let millis = now.timestamp().as_millisecond();
        Some(match name {
            "asctime" => json!(self.asctime(now)),
            "levelname" => json!(level_name(record.level)),
            "levelno" => json!(level_number(record.level)),
            "message" if self.is_json => json!(record.message),
            "message" => json!(record.text()),
            "name" => json!(logger(&record.target)),
            "pathname" => json!(record.file.unwrap_or_default()),
            "filename" => json!(record.file.and_then(|file| file.rsplit('/').next()).unwrap_or_default()),
            "module" | "funcName" => json!(record.module()),
            "lineno" => json!(record.line),
            "process" => json!(std::process::id()),
            "processName" => json!("MainProcess"),
            "thread" => json!(0),
            "threadName" => json!(std::thread::current().name().unwrap_or("MainThread")),
            // Exact to the millisecond, as the other fields are.
            "created" => json!(millis as f64 / 1000.0),
            "msecs" => json!(millis.rem_euclid(1000)),
            "relativeCreated" => json!(millis - self.began.as_millisecond()),
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

/// The fields that a plain pattern names.
fn pattern_fields(pattern: &str) -> Vec<(String, String)> {
    let names = pattern.match_indices("%(").filter_map(|(at, _)| Some(placeholder(&pattern[at + 1..])?.0));
    names.map(|name| (name.to_owned(), name.to_owned())).collect()
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

/// Fills `%(name)s`, `%(name)-8s`, `%(name).3f`; an unknown field is left empty, never the whole line.
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
        let Some((name, shape, after)) = placeholder(rest) else {
            line.push('%');
            continue;
        };
        line.push_str(&shape.of(&value(name).unwrap_or(Value::String(String::new()))));
        rest = after;
    }
    line.push_str(rest);
    line
}

/// What stands between the name and the end of a placeholder.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    is_left: bool,
    is_zero_filled: bool,
    sign: Option<char>,
    width: usize,
    precision: Option<usize>,
    conversion: char,
}

/// Nobody wants a wider field, and a typing error must not cost memory.
const MAX_WIDTH: usize = 500;

/// `(name)`, flags, width, precision and one conversion letter: the name, the shape, what follows.
fn placeholder(text: &str) -> Option<(&str, Shape, &str)> {
    let (name, after) = text.strip_prefix('(')?.split_once(')')?;
    let number_end = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let flags_end = after.find(|c| !"-+ 0#".contains(c))?;
    let (flags, rest) = after.split_at(flags_end);
    let (width, rest) = rest.split_at(number_end(rest));
    let (precision, rest) = match rest.strip_prefix('.') {
        None => (None, rest),
        Some(rest) => {
            let (digits, rest) = rest.split_at(number_end(rest));
            (Some(digits.parse().unwrap_or(0).min(MAX_WIDTH)), rest)
        }
    };
    let conversion = rest.chars().next().filter(char::is_ascii_alphabetic)?;
    let shape = Shape {
        is_left: flags.contains('-'),
        is_zero_filled: flags.contains('0') && !flags.contains('-'),
        sign: ['+', ' '].into_iter().find(|sign| flags.contains(*sign)),
        width: width.parse().unwrap_or(0).min(MAX_WIDTH),
        precision,
        conversion,
    };
    Some((name, shape, &rest[1..]))
}

impl Shape {
    fn of(&self, value: &Value) -> String {
        let number = value.as_f64().map(|number| self.number(number)).filter(|_| self.conversion != 's');
        let (width, is_number) = (self.width, number.is_some());
        let text = number.unwrap_or_else(|| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            match self.precision {
                Some(precision) => text.chars().take(precision).collect(),
                None => text,
            }
        });
        if self.is_left {
            format!("{text:<width$}")
        } else if self.is_zero_filled && is_number {
            let (sign, digits) = text.split_at(text.len() - text.trim_start_matches(['+', '-', ' ']).len());
            format!("{sign}{digits:0>rest$}", rest = width.saturating_sub(sign.len()))
        } else {
            format!("{text:>width$}")
        }
    }

    fn number(&self, number: f64) -> String {
        let whole = number as i64;
        let text = match self.conversion {
            'f' | 'F' => format!("{number:.precision$}", precision = self.precision.unwrap_or(6)),
            'e' | 'E' | 'g' | 'G' => number.to_string(),
            'x' => format!("{whole:x}"),
            'X' => format!("{whole:X}"),
            'o' => format!("{whole:o}"),
            _ => whole.to_string(),
        };
        match self.sign.filter(|_| number >= 0.0) {
            Some(sign) => format!("{sign}{text}"),
            None => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(name: &str) -> Option<Value> {
        match name {
            "levelname" => Some(json!("INFO")),
            "message" => Some(json!("hello %s")),
            "lineno" => Some(json!(7)),
            "created" => Some(json!(1.5)),
            _ => None,
        }
    }

    #[test]
    fn patterns_are_filled_and_unknown_fields_do_not_suppress_the_line() {
        let cases = [
            ("%(levelname)s: %(message)s", "INFO: hello %s"),
            ("%(levelname)-8s|%(lineno)4d|%(nonsense)s|%%|%", "INFO    |   7||%|%"),
            ("%(levelname)8.2s|%(lineno)04d|%(lineno)+d|%(lineno)s", "      IN|0007|+7|7"),
            ("%(created).3f|%(created)f|%(created)d|%(lineno)x", "1.500|1.500000|1|7"),
            ("%(lineno)é|%(lineno|%(levelname)", "%(lineno)é|%(lineno|%(levelname)"),
        ];
        for (pattern, expected) in cases {
            assert_eq!(fill(pattern, &value), expected, "{pattern}");
        }
    }

    fn format(log: &str) -> (Format, Vec<String>) {
        let text = format!(
            "scope: a\nname: b\nrestapi: {{listen: 'a:1'}}\npostgresql: {{listen: 'a:1', data_dir: d}}\nlog: {log}\n"
        );
        let files = [("node.yml".to_owned(), text)];
        let (local, _) = crate::config::LocalConfig::build(&files, &std::collections::BTreeMap::new()).unwrap();
        Format::new(&local.log)
    }

    fn line(log: &str) -> String {
        let now: Zoned = "2026-01-31T12:00:00.123+01:00[+01:00]".parse().unwrap();
        let mut record = Record::warning("pgherd::api::server", "it's \"so\"".to_owned());
        record.fields.insert("rule".to_owned(), json!(7));
        format(log).0.line(&now, &record)
    }

    #[test]
    fn plain_lines() {
        assert_eq!(line("{}"), "2026-01-31 12:00:00,123 WARNING: it's \"so\"");
        let log = "{format: '%(asctime)s [%(name)s] %(levelname)-8s %(message)s', dateformat: '%d.%m.%y %H%z'}";
        assert_eq!(line(log), "31.01.26 12+0100 [patroni.api] WARNING  it's \"so\"");
    }

    #[test]
    fn json_lines_with_renamed_and_static_fields() {
        let log = "{type: json, format: [asctime, {levelname: level}, {message: msg}, name, nonsense], \
                   static_fields: {app: db, n: 1}}";
        assert_eq!(
            line(log),
            r#"{"asctime":"2026-01-31 12:00:00,123","level":"WARNING","msg":"it's \"so\"","name":"patroni.api","nonsense":null,"app":"db","n":1,"rule":7}"#
        );
        assert_eq!(
            line("{type: json, format: '%(levelname)s %(msecs)03d'}"),
            r#"{"levelname":"WARNING","msecs":123,"rule":7}"#
        );
    }

    #[derive(Debug, thiserror::Error)]
    #[error("cannot apply it")]
    struct Outer(#[source] std::io::Error);

    fn failure(target: &str, log: &str) -> String {
        let outer = Outer(std::io::Error::other("disk full"));
        let mut record = Record::warning(target, "it stays as it was".to_owned());
        (record.level, record.file, record.line) = (Level::ERROR, Some("src/x.rs"), 7);
        record.causes = causes(&outer);
        record.fields.insert("error".to_owned(), json!(chain(&outer)));
        record.fields.insert("file".to_owned(), json!("a b"));
        record.fields.insert("rule".to_owned(), json!(3));
        let now: Zoned = "2026-01-31T12:00:00.123+01:00[+01:00]".parse().unwrap();
        format(log).0.line(&now, &record)
    }

    #[test]
    fn an_error_comes_with_its_trace_as_configured() {
        let line = "2026-01-31 12:00:00,123 ERROR: it stays as it was: cannot apply it: disk full (file: a b)";
        let trace = "  at src/x.rs:7 (patroni.api)\n  in rule 3\n  error: cannot apply it\n  caused by: disk full";
        let with_trace = format!("{line}\n{trace}");
        let ours = "pgherd::api::server";
        assert_eq!(failure(ours, "{}"), with_trace);
        assert_eq!(failure(ours, "{traceback_level: error, level: DEBUG}"), with_trace);
        assert_eq!(failure(ours, "{traceback_level: DEBUG}"), line);
        assert_eq!(failure(ours, "{traceback_level: debug, level: DEBUG}"), with_trace);
        assert_eq!(failure(ours, "{traceback_level: DEBUG, loggers: {patroni.api: DEBUG}}"), with_trace);
        assert_eq!(failure("pgherd::dcs", "{traceback_level: DEBUG, loggers: {patroni.api: DEBUG}}"), line);
        let json: Value = serde_json::from_str(&failure(ours, "{type: json, format: [message]}")).unwrap();
        let wanted = json!({"message": "it stays as it was", "exc_info": trace, "file": "a b", "rule": 3,
            "error": "cannot apply it: disk full"});
        assert_eq!(json, wanted);
        let hidden: Value = serde_json::from_str(&failure(ours, "{type: json, traceback_level: DEBUG}")).unwrap();
        assert!(hidden.get("exc_info").is_none() && hidden["error"] == "cannot apply it: disk full");
    }

    #[test]
    fn what_a_plain_line_has_beside_its_message_is_not_lost() {
        let mut record = Record::warning("pgherd::api", "an entry is left out".to_owned());
        record.fields.insert("entry".to_owned(), json!("300.1.1.1"));
        record.fields.insert("count".to_owned(), json!(2));
        record.fields.insert("rule".to_owned(), json!(3));
        assert_eq!(record.text(), "an entry is left out (entry: 300.1.1.1, count: 2)");
    }

    #[test]
    fn settings_that_cannot_be_used_are_told() {
        let (format, warnings) = format("{format: [message], dateformat: '%!'}");
        assert_eq!(format.pattern, DEFAULT_PATTERN);
        assert!(format.dateformat.is_none());
        assert!(warnings[0].contains("to be a string when log type is plain"), "{warnings:?}");
        assert!(warnings[1].contains("log.dateformat '%!'"), "{warnings:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_pattern_panics(pattern in "(%|\\(|\\)|lineno|created|[-+ 0#]|[0-9.]|[sdfxé]){0,16}") {
            fill(&pattern, &value);
            pattern_fields(&pattern);
        }
    }
}
