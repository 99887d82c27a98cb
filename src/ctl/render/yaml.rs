//! YAML as PyYAML's `safe_dump` writes it: sorted keys, two blanks per level, lists not indented below their key,
//! lines folded beyond 200 columns, Unicode as it is.

use std::fmt::Write;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use super::python;

/// Lines are folded at the first blank beyond this column.
const WIDTH: usize = 200;

/// A key of this length or more (with PyYAML's five characters of tag) is written as `? key`.
const LONGEST_SIMPLE_KEY: usize = 128 - "!!str".len();

/// Plain text that YAML 1.1 would read as something other than a string.
static NOT_TEXT: LazyLock<Regex> = LazyLock::new(|| {
    let forms = [
        r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF",
        r"~|null|Null|NULL|",
        r"<<|=|!|&|\*",
        r"[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?",
        r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        r"[-+]?0b[01_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+",
        r"[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+",
        r"[0-9]{4}-[0-9][0-9]-[0-9][0-9]",
        concat!(
            r"[0-9]{4}-[0-9][0-9]?-[0-9][0-9]?(?:[Tt]|[ \t]+)[0-9][0-9]?:[0-9][0-9]:[0-9][0-9](?:\.[0-9]*)?",
            r"(?:[ \t]*(?:Z|[-+][0-9][0-9]?(?::[0-9][0-9])?))?"
        ),
    ];
    Regex::new(&format!("^(?:{})$", forms.join("|"))).expect("the expression is constant")
});

/// Block style. Ends in a newline.
pub fn block(value: &Value) -> String {
    dump(value, false)
}

/// Flow style (`{a: 1, b: [2, 3]}`). Ends in a newline.
pub fn flow(value: &Value) -> String {
    dump(value, true)
}

/// Our documents: as they are, without the last newline.
pub fn ours(value: &Value) -> String {
    block(value).trim_end_matches('\n').to_owned()
}

fn dump(value: &Value, is_flow: bool) -> String {
    let mut emitter = Emitter::default();
    emitter.is_flow = is_flow;
    emitter.node(value, Place::Root);
    let mut text = emitter.text;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Where a node stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Item,
    Value,
    SimpleKey,
    LongKey,
}

#[derive(Default)]
struct Emitter {
    text: String,
    is_flow: bool,
    flow_level: usize,
    indent: Option<usize>,
    column: usize,
    /// The last thing written was white space.
    whitespace: bool,
    /// Only indentation and indicators have been written on this line.
    indention: bool,
    started: bool,
}

impl Emitter {
    fn put(&mut self, text: &str) {
        self.text.push_str(text);
        self.column += text.chars().count();
    }

    fn indicator(&mut self, text: &str, needs_blank: bool, whitespace: bool, indention: bool) {
        if needs_blank && !self.whitespace && self.started {
            self.put(" ");
        }
        self.put(text);
        self.whitespace = whitespace;
        self.indention = self.indention && indention;
        self.started = true;
    }

    fn line_break(&mut self) {
        self.text.push('\n');
        self.whitespace = true;
        self.indention = true;
        self.column = 0;
    }

    fn write_indent(&mut self) {
        let indent = self.indent.unwrap_or(0);
        let is_at_start = !self.started;
        let full = !self.indention || self.column > indent || (self.column == indent && !self.whitespace);
        if full && !is_at_start {
            self.line_break();
        }
        if is_at_start {
            (self.whitespace, self.indention, self.started) = (true, true, true);
        }
        if self.column < indent {
            let fill = " ".repeat(indent - self.column);
            self.put(&fill);
            self.whitespace = true;
        }
    }

    fn increase(&mut self, is_flow: bool, is_indentless: bool) -> Option<usize> {
        let before = self.indent;
        self.indent = match before {
            None => Some(if is_flow { 2 } else { 0 }),
            Some(indent) if is_indentless => Some(indent),
            Some(indent) => Some(indent + 2),
        };
        before
    }

    fn node(&mut self, value: &Value, place: Place) {
        match value {
            Value::Array(items) if self.is_flow || self.flow_level > 0 || items.is_empty() => self.flow_list(items),
            Value::Array(items) => {
                let is_indentless = matches!(place, Place::Value | Place::LongKey) && !self.indention;
                let before = self.increase(false, is_indentless);
                for item in items {
                    self.write_indent();
                    self.indicator("-", true, false, true);
                    self.node(item, Place::Item);
                }
                self.indent = before;
            }
            Value::Object(map) => {
                let mut pairs: Vec<(&String, &Value)> = map.iter().collect();
                pairs.sort_by_key(|(key, _)| key.as_str());
                if self.is_flow || self.flow_level > 0 || pairs.is_empty() {
                    self.flow_map(&pairs);
                } else {
                    self.block_map(&pairs);
                }
            }
            scalar => self.scalar(&scalar_text(scalar), scalar.is_string(), place),
        }
    }

    fn block_map(&mut self, pairs: &[(&String, &Value)]) {
        let before = self.increase(false, false);
        for (key, value) in pairs {
            self.write_indent();
            if is_simple_key(key) {
                self.scalar(key, true, Place::SimpleKey);
                self.indicator(":", false, false, false);
            } else {
                self.indicator("?", true, false, true);
                self.scalar(key, true, Place::LongKey);
                self.write_indent();
                self.indicator(":", true, false, true);
            }
            self.node(value, Place::Value);
        }
        self.indent = before;
    }

    fn flow_list(&mut self, items: &[Value]) {
        self.indicator("[", true, true, false);
        let before = self.begin_flow();
        for (i, item) in items.iter().enumerate() {
            self.next_in_flow(i);
            self.node(item, Place::Item);
        }
        self.end_flow("]", before);
    }

    fn flow_map(&mut self, pairs: &[(&String, &Value)]) {
        self.indicator("{", true, true, false);
        let before = self.begin_flow();
        for (i, (key, value)) in pairs.iter().enumerate() {
            self.next_in_flow(i);
            if is_simple_key(key) {
                self.scalar(key, true, Place::SimpleKey);
                self.indicator(":", false, false, false);
            } else {
                self.indicator("?", true, false, false);
                self.scalar(key, true, Place::LongKey);
                if self.column > WIDTH {
                    self.write_indent();
                }
                self.indicator(":", true, false, false);
            }
            self.node(value, Place::Value);
        }
        self.end_flow("}", before);
    }

    fn begin_flow(&mut self) -> Option<usize> {
        self.flow_level += 1;
        self.increase(true, false)
    }

    fn next_in_flow(&mut self, index: usize) {
        if index > 0 {
            self.indicator(",", false, false, false);
        }
        if self.column > WIDTH {
            self.write_indent();
        }
    }

    fn end_flow(&mut self, bracket: &str, before: Option<usize>) {
        self.indent = before;
        self.flow_level -= 1;
        self.indicator(bracket, false, false, false);
    }

    fn scalar(&mut self, text: &str, is_text: bool, place: Place) {
        let before = self.increase(true, false);
        let may_fold = place != Place::SimpleKey;
        match style(text, is_text, place, self.flow_level > 0) {
            Style::Plain => self.plain(text, may_fold),
            Style::Single => self.single_quoted(text, may_fold),
            Style::Double => self.double_quoted(text, may_fold),
        }
        self.indent = before;
    }

    fn plain(&mut self, text: &str, may_fold: bool) {
        if !self.whitespace && self.started {
            self.put(" ");
        }
        (self.whitespace, self.indention, self.started) = (false, false, true);
        for run in runs(text) {
            let is_single_blank = run == " ";
            if is_single_blank && self.column > WIDTH && may_fold {
                self.write_indent();
                (self.whitespace, self.indention) = (false, false);
            } else {
                self.put(run);
            }
        }
    }

    fn single_quoted(&mut self, text: &str, may_fold: bool) {
        self.indicator("'", true, false, false);
        let mut at = 0;
        for run in runs(text) {
            let is_inside = at > 0 && at + run.len() < text.len();
            at += run.len();
            if run == " " && self.column > WIDTH && may_fold && is_inside {
                self.write_indent();
            } else if run.starts_with(is_break) {
                if run.starts_with('\n') {
                    self.line_break();
                }
                for c in run.chars() {
                    self.line_break();
                    if c != '\n' {
                        self.text.pop();
                        self.text.push(c);
                    }
                }
                self.write_indent();
            } else {
                self.put(&run.replace('\'', "''"));
            }
        }
        self.indicator("'", false, false, false);
    }

    fn double_quoted(&mut self, text: &str, may_fold: bool) {
        self.indicator("\"", true, false, false);
        let chars: Vec<char> = text.chars().collect();
        let mut start = 0;
        for end in 0..=chars.len() {
            let c = chars.get(end).copied();
            if c.is_none_or(needs_escape) {
                let run: String = chars[start..end].iter().collect();
                self.put(&run);
                start = end;
                if let Some(c) = c {
                    self.put(&escaped(c));
                    start = end + 1;
                }
            }
            let pending = end.saturating_sub(start);
            let may_break = 0 < end && end + 1 < chars.len() && (c == Some(' ') || start >= end);
            if may_break && self.column + pending > WIDTH && may_fold {
                let run: String = chars[start.min(end)..end].iter().collect();
                self.put(&format!("{run}\\"));
                start = start.max(end);
                self.write_indent();
                (self.whitespace, self.indention) = (false, false);
                if chars[start] == ' ' {
                    self.put("\\");
                }
            }
        }
        self.indicator("\"", false, false, false);
    }
}

fn scalar_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => python::yaml_float(number.as_f64().unwrap_or_default()),
        other => other.to_string(),
    }
}

fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Splits into runs of blanks, of line breaks, and of anything else.
fn runs(text: &str) -> Vec<&str> {
    let kind = |c: char| {
        if c == ' ' {
            1
        } else if is_break(c) {
            2
        } else {
            0
        }
    };
    let mut runs = Vec::new();
    let mut start = 0;
    let mut last = None;
    for (at, c) in text.char_indices() {
        if last.is_some_and(|last| last != kind(c)) {
            runs.push(&text[start..at]);
            start = at;
        }
        last = Some(kind(c));
    }
    if start < text.len() {
        runs.push(&text[start..]);
    }
    runs
}

fn is_simple_key(key: &str) -> bool {
    key.chars().count() < LONGEST_SIMPLE_KEY && !key.is_empty() && !key.contains(is_break)
}

enum Style {
    Plain,
    Single,
    Double,
}

fn style(text: &str, is_text: bool, place: Place, in_flow: bool) -> Style {
    let found = analyse(text);
    let is_key = place == Place::SimpleKey;
    let reads_as_itself = !is_text || !NOT_TEXT.is_match(text);
    let may_be_plain = if in_flow { found.flow_plain } else { found.block_plain };
    if reads_as_itself && may_be_plain && !(is_key && (text.is_empty() || found.has_breaks)) {
        Style::Plain
    } else if found.single_quoted && !(is_key && found.has_breaks) {
        Style::Single
    } else {
        Style::Double
    }
}

/// In which styles a text can be written.
struct Analysis {
    has_breaks: bool,
    flow_plain: bool,
    block_plain: bool,
    single_quoted: bool,
}

fn analyse(text: &str) -> Analysis {
    let chars: Vec<char> = text.chars().collect();
    let is_space = |c: Option<&char>| c.is_none_or(|c| matches!(c, '\0' | ' ' | '\t' | '\r') || is_break(*c));
    let marker = text.starts_with("---") || text.starts_with("...");
    let (mut block_indicator, mut flow_indicator) = (marker, marker);
    for (i, c) in chars.iter().enumerate() {
        let is_followed = is_space(chars.get(i + 1));
        let (block, flow) = match c {
            '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`'
                if i == 0 =>
            {
                (true, true)
            }
            '?' if i == 0 => (is_followed, true),
            '-' if i == 0 => (is_followed, is_followed),
            ':' => (is_followed, true),
            ',' | '?' | '[' | ']' | '{' | '}' => (false, true),
            '#' if is_space(chars.get(i.wrapping_sub(1))) => (true, true),
            _ => (false, false),
        };
        block_indicator |= block;
        flow_indicator |= flow;
    }
    let at_edge = |test: fn(char) -> bool| text.starts_with(test) || text.ends_with(test);
    let edge = at_edge(|c| c == ' ') || at_edge(is_break);
    let pair = |first: fn(char) -> bool, second: fn(char) -> bool| {
        chars.windows(2).any(|pair| first(pair[0]) && second(pair[1]))
    };
    let break_space = pair(is_break, |c| c == ' ');
    let space_break = pair(|c| c == ' ', is_break);
    let special = text.chars().any(is_special);
    let has_breaks = text.contains(is_break);
    let plain = !edge && !break_space && !space_break && !special && !has_breaks;
    Analysis {
        has_breaks,
        flow_plain: plain && !flow_indicator && !text.is_empty(),
        block_plain: plain && !block_indicator,
        single_quoted: !break_space && !space_break && !special,
    }
}

fn is_special(c: char) -> bool {
    let is_ordinary = matches!(c, '\n' | ' '..='~' | '\u{85}' | '\u{A0}'..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}')
        || ('\u{10000}'..'\u{10FFFF}').contains(&c);
    !is_ordinary || c == '\u{FEFF}'
}

fn needs_escape(c: char) -> bool {
    matches!(c, '"' | '\\' | '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{FEFF}')
        || !matches!(c, ' '..='~' | '\u{A0}'..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}')
}

fn escaped(c: char) -> String {
    let letter = match c {
        '\0' => '0',
        '\u{7}' => 'a',
        '\u{8}' => 'b',
        '\t' => 't',
        '\n' => 'n',
        '\u{B}' => 'v',
        '\u{C}' => 'f',
        '\r' => 'r',
        '\u{1B}' => 'e',
        '"' => '"',
        '\\' => '\\',
        '\u{85}' => 'N',
        '\u{2028}' => 'L',
        '\u{2029}' => 'P',
        other => {
            let code = u32::from(other);
            let mut text = String::new();
            let written = match code {
                0..=0xFF => write!(text, "\\x{code:02X}"),
                0x100..=0xFFFF => write!(text, "\\u{code:04X}"),
                _ => write!(text, "\\U{code:08X}"),
            };
            written.expect("writing to a string cannot fail");
            return text;
        }
    };
    format!("\\{letter}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lists_and_maps() {
        let value = json!({ "b": [{ "x": 1, "y": [2, 3] }, [4, 5]], "a": { "k": "v" }, "e": {}, "l": [], "n": null });
        let expected = "a:\n  k: v\nb:\n- x: 1\n  y:\n  - 2\n  - 3\n- - 4\n  - 5\ne: {}\nl: []\nn: null\n";
        assert_eq!(block(&value), expected);
        assert_eq!(flow(&value), "{a: {k: v}, b: [{x: 1, y: [2, 3]}, [4, 5]], e: {}, l: [], n: null}\n");
        assert_eq!(block(&json!({})), "{}\n");
        assert_eq!(block(&json!([])), "[]\n");
        assert_eq!(block(&json!({ "": 5 })), "? ''\n: 5\n");
    }

    #[test]
    fn quotes_only_where_they_are_needed() {
        let value = json!({
            "a": "20", "b": "yes", "c": "a: b", "d": "it's", "e": " x", "f": "x\ty", "g": "a\nb", "h": "10:30",
            "i": "*", "j": "a #b", "k": "2030-01-01T00:00:00+00:00", "l": "2030-01-01 x", "m": "", "true": true,
            "o": 1e20, "p": 1.5, "q": "- a", "r": "-a"
        });
        let expected = "a: '20'\nb: 'yes'\nc: 'a: b'\nd: it's\ne: ' x'\nf: \"x\\ty\"\ng: 'a\n\n  b'\nh: '10:30'\n\
            i: '*'\nj: 'a #b'\nk: '2030-01-01T00:00:00+00:00'\nl: 2030-01-01 x\nm: ''\no: 1.0e+20\np: 1.5\n\
            q: '- a'\nr: -a\n'true': true\n";
        assert_eq!(block(&value), expected);
    }
}
