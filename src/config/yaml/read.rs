//! From parser events to a JSON value.

use std::collections::BTreeMap;

use granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};
use serde_json::{Map, Value};

use super::scalar::{self, Kind};
use super::{Places, YamlError};

/// Deeper nesting is refused: no configuration has it, and the recursion below must end.
const MAX_DEPTH: usize = 100;
/// How many values may come out of aliases: a small text can otherwise ask for any amount of memory.
const MAX_ALIASED_VALUES: usize = 100_000;

const CORE_PREFIX: &str = "tag:yaml.org,2002:";

/// Reads the only document of `text`.
pub(super) fn document(text: &str) -> Result<(Value, Places), YamlError> {
    refuse_control_characters(text)?;
    // Another crate may turn the parser's comments on for the whole build.
    let mut options = Options::default();
    options.set_emit_comments(false);
    let events = Parser::new_from_str_with_options(text, options);
    let mut composer = Composer {
        text,
        events,
        anchors: BTreeMap::new(),
        aliased: 0,
        position: (1, 1),
        end: 0,
        path: Vec::new(),
        places: Places::default(),
    };
    let mut value = None;
    loop {
        match composer.next()? {
            Event::StreamEnd => return Ok((value.unwrap_or(Value::Null), composer.places)),
            Event::DocumentStart(..) if value.is_some() => {
                return Err(composer.error("a second document starts here, but only one is allowed"));
            }
            Event::DocumentStart(..) => {
                let first = composer.next()?;
                let node = composer.node(first, 0)?;
                value = Some(composer.finish(node)?);
            }
            _ => {}
        }
    }
}

struct Composer<'a> {
    text: &'a str,
    events: Parser<'a, StrInput<'a>>,
    /// Finished anchored nodes with the number of values in each.
    anchors: BTreeMap<usize, (Node, usize)>,
    aliased: usize,
    position: (usize, usize),
    /// Byte where the last event ended.
    end: usize,
    /// Keys and indices that lead to the node being read.
    path: Vec<String>,
    places: Places,
}

/// A value, or one of the two plain scalars that mean something only as a key of a mapping.
#[derive(Clone)]
enum Node {
    Value(Value),
    Merge,
    Equals,
}

impl<'a> Composer<'a> {
    fn next(&mut self) -> Result<Event<'a>, YamlError> {
        match self.events.next_event() {
            Some(Ok((event, span))) => {
                self.locate(&span);
                Ok(event)
            }
            Some(Err(error)) => Err(syntax_error(&error)),
            None => Ok(Event::StreamEnd),
        }
    }

    fn locate(&mut self, span: &Span) {
        self.position = (span.start.line(), span.start.col() + 1);
        self.end = span.end.byte_offset().unwrap_or(0);
    }

    fn error(&self, message: impl Into<String>) -> YamlError {
        error_at(self.position, message)
    }

    fn node(&mut self, event: Event<'a>, depth: usize) -> Result<Node, YamlError> {
        if depth > MAX_DEPTH {
            return Err(self.error(format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let anchor = event.anchor_id();
        let node = match event {
            Event::Alias(id) => return self.alias(id),
            Event::Scalar(text, style, _, tag) => {
                let text = self.without_invented_break(&text, style);
                self.scalar(text, style, tag.as_deref())?
            }
            Event::SequenceStart(_, _, tag) => {
                self.expect_tag(tag.as_deref(), "seq")?;
                Node::Value(self.sequence(depth)?)
            }
            Event::MappingStart(_, _, tag) => {
                self.expect_tag(tag.as_deref(), "map")?;
                Node::Value(self.mapping(depth)?)
            }
            _ => return Err(self.error("a value is missing here")),
        };
        if let Some(id) = anchor.filter(|id| *id != 0) {
            let size = if let Node::Value(value) = &node { count(value) } else { 1 };
            self.anchors.insert(id, (node.clone(), size));
        }
        Ok(node)
    }

    /// A block scalar in the last line of a text that has no final line break gets none from PyYAML, but one from the
    /// parser.
    fn without_invented_break<'t>(&self, text: &'t str, style: ScalarStyle) -> &'t str {
        let is_block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
        let is_last = self.end >= self.text.len()
            && !self.text.rsplit(['\n', '\r']).next().is_none_or(|line| line.trim().is_empty());
        if is_block && is_last { text.strip_suffix('\n').unwrap_or(text) } else { text }
    }

    fn alias(&mut self, id: usize) -> Result<Node, YamlError> {
        let Some((node, size)) = self.anchors.get(&id) else {
            return Err(self.error("this alias stands inside the node that it names"));
        };
        self.aliased += size;
        if self.aliased > MAX_ALIASED_VALUES {
            return Err(self.error("aliases repeat too many values"));
        }
        Ok(node.clone())
    }

    fn sequence(&mut self, depth: usize) -> Result<Value, YamlError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                Event::SequenceEnd => return Ok(Value::Array(items)),
                Event::StreamEnd => return Err(self.error("the list does not end")),
                event => {
                    self.enter(items.len().to_string(), self.position.0);
                    let node = self.node(event, depth + 1)?;
                    self.path.pop();
                    items.push(self.finish(node)?);
                }
            }
        }
    }

    /// Goes one step down and remembers where. Inside a key that is itself a collection nothing is remembered wrongly
    /// for long: such a key is refused.
    fn enter(&mut self, step: String, line: usize) {
        self.path.push(step);
        let path = self.path.join(".");
        if let Some(first) = self.places.lines.insert(path.clone(), line) {
            self.places.repeated.push((path, first, line));
        }
    }

    /// Merged pairs come first, whatever their place, so that the mapping's own keys win; of several merged mappings
    /// in one list the first wins.
    fn mapping(&mut self, depth: usize) -> Result<Value, YamlError> {
        let mut merged = Map::new();
        let mut own = Vec::new();
        loop {
            let event = self.next()?;
            let line = self.position.0;
            let key = match event {
                Event::MappingEnd => break,
                Event::StreamEnd => return Err(self.error("the mapping does not end")),
                event => self.node(event, depth + 1)?,
            };
            let key = match key {
                Node::Merge => None,
                Node::Equals => Some("=".to_owned()),
                Node::Value(value) => Some(self.key(value)?),
            };
            let event = self.next()?;
            match &key {
                Some(key) => self.enter(key.clone(), line),
                None => self.path.push("<<".to_owned()),
            }
            let node = self.node(event, depth + 1)?;
            let value = self.finish(node)?;
            self.path.pop();
            match key {
                None => self.merge(&mut merged, value)?,
                Some(key) => own.push((key, value)),
            }
        }
        merged.extend(own);
        Ok(Value::Object(merged))
    }

    fn merge(&self, into: &mut Map<String, Value>, value: Value) -> Result<(), YamlError> {
        let maps = match value {
            Value::Array(items) => items.into_iter().rev().collect(),
            single => vec![single],
        };
        for map in maps {
            let Value::Object(map) = map else {
                return Err(self.error("<< takes a mapping or a list of mappings"));
            };
            into.extend(map);
        }
        Ok(())
    }

    /// JSON's keys are text; other scalars become what Python's JSON writer makes of them.
    fn key(&self, value: Value) -> Result<String, YamlError> {
        match value {
            Value::String(text) => Ok(text),
            Value::Null => Ok("null".to_owned()),
            Value::Bool(flag) => Ok(flag.to_string()),
            Value::Number(number) => Ok(match number.as_f64() {
                Some(float) if number.is_f64() => scalar::float_repr(float),
                _ => number.to_string(),
            }),
            Value::Array(_) | Value::Object(_) => Err(self.error("a list or a mapping cannot be a key")),
        }
    }

    fn finish(&self, node: Node) -> Result<Value, YamlError> {
        match node {
            Node::Value(value) => Ok(value),
            Node::Merge => Err(self.error("<< is only possible as a key; quote it if the text is meant")),
            Node::Equals => Err(self.error("= is not possible as a value; quote it if the text is meant")),
        }
    }

    fn expect_tag(&self, tag: Option<&Tag>, wanted: &str) -> Result<(), YamlError> {
        match tag.map(core_suffix) {
            None => Ok(()),
            Some(Some(suffix)) if suffix == wanted || suffix.is_empty() => Ok(()),
            Some(_) => Err(self.error("this tag cannot be used in a configuration")),
        }
    }

    fn scalar(&self, text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Node, YamlError> {
        let is_plain = style == ScalarStyle::Plain;
        let kind = match tag.map(core_suffix) {
            None if is_plain => scalar::resolve(text),
            None => Kind::Text,
            Some(Some(suffix)) => match suffix.as_str() {
                "" => scalar::resolve(text),
                "str" => Kind::Text,
                "null" => Kind::Null,
                "bool" => Kind::Bool,
                "int" => Kind::Int,
                "float" => Kind::Float,
                "timestamp" => Kind::Timestamp,
                _ => return Err(self.error(format!("the tag !!{suffix} cannot be used in a configuration"))),
            },
            Some(None) => return Err(self.error("this tag is unknown; only !!str, !!int, !!bool and the like are")),
        };
        let wrong = |wanted: &str| self.error(format!("'{text}' is not {wanted}"));
        Ok(Node::Value(match kind {
            Kind::Merge => return Ok(Node::Merge),
            Kind::Value => return Ok(Node::Equals),
            Kind::Null => Value::Null,
            Kind::Bool => {
                // A tag lets the text through unchecked, and PyYAML then takes any case.
                Value::Bool(scalar::boolean(&text.to_lowercase()).ok_or_else(|| wrong("a boolean"))?)
            }
            Kind::Int => scalar::integer(text).ok_or_else(|| wrong("an integer"))?,
            Kind::Float => match scalar::float(text) {
                Some(number) => number,
                None if scalar::resolve(text) == Kind::Float => Value::String(text.to_owned()),
                None => return Err(wrong("a number")),
            },
            Kind::Timestamp | Kind::Text => Value::String(text.to_owned()),
        }))
    }
}

/// The name of a tag out of YAML's own set; `None` for any other, empty for the bare `!`.
fn core_suffix(tag: &Tag) -> Option<String> {
    let whole = format!("{}{}", tag.handle(), tag.suffix());
    if whole == "!" {
        return Some(String::new());
    }
    whole.strip_prefix(CORE_PREFIX).map(str::to_owned)
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum(),
        _ => 0,
    }
}

fn syntax_error(error: &ScanError) -> YamlError {
    error_at((error.marker().line(), error.marker().col() + 1), error.kind().to_string())
}

fn error_at((line, column): (usize, usize), message: impl Into<String>) -> YamlError {
    YamlError { line: line.max(1), column, message: message.into() }
}

fn refuse_control_characters(text: &str) -> Result<(), YamlError> {
    let allowed = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}');
    for (index, line) in text.split('\n').enumerate() {
        if let Some(column) = line.chars().position(|c| !allowed(c)) {
            return Err(error_at((index + 1, column + 1), "a control character; quote it and write it as an escape"));
        }
    }
    Ok(())
}
