//! PyYAML's emitter: which quotes a text gets, where a line is folded, how lists and mappings are laid out.
//!
//! The state (`column`, `whitespace`, `indention`) is PyYAML's, because corner cases such as a list below a key that is
//! too long for one line follow from it.

use serde_json::{Map, Value};

use super::scalar::{self, Kind};

/// Lines are folded at the first blank beyond this column.
const WIDTH: usize = 200;
/// A key longer than this, counted with its (never printed) tag `!!str`, is written in the `? key` form.
const SIMPLE_KEY_LIMIT: usize = 128 - "!!str".len();

/// Writes `value` as a whole document.
pub(super) fn document(value: &Value, sort_keys: bool, is_flow: bool) -> String {
    let mut emitter = Emitter {
        out: String::new(),
        column: 0,
        whitespace: true,
        indention: true,
        indent: None,
        flow_level: 0,
        open_ended: false,
        sort_keys,
        is_flow,
    };
    emitter.node(value, Place::Root);
    let open_ended = emitter.open_ended;
    emitter.indent = None;
    emitter.write_indent();
    if open_ended {
        // A plain scalar alone could go on in the next line, so PyYAML marks its end.
        emitter.out.push_str("...\n");
    }
    emitter.out
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Item,
    Key,
    Value,
}

struct Emitter {
    out: String,
    column: usize,
    /// The last thing written was white space (or an indicator that counts as such).
    whitespace: bool,
    /// Only indentation and indicators stand in this line so far.
    indention: bool,
    indent: Option<usize>,
    flow_level: usize,
    open_ended: bool,
    sort_keys: bool,
    is_flow: bool,
}

impl Emitter {
    fn node(&mut self, value: &Value, place: Place) {
        match value {
            Value::Array(items) if self.is_flow || self.flow_level > 0 || items.is_empty() => self.flow_list(items),
            Value::Array(items) => self.block_list(items, place),
            Value::Object(map) if self.is_flow || self.flow_level > 0 || map.is_empty() => self.flow_map(map),
            Value::Object(map) => self.block_map(map),
            Value::String(text) => self.scalar(text, scalar::resolve(text) == Kind::Text, place),
            Value::Null => self.scalar("null", true, place),
            Value::Bool(flag) => self.scalar(if *flag { "true" } else { "false" }, true, place),
            Value::Number(number) => self.scalar(&number_text(number), true, place),
        }
    }

    fn pairs<'v>(&self, map: &'v Map<String, Value>) -> Vec<(&'v String, &'v Value)> {
        let mut pairs: Vec<_> = map.iter().collect();
        if self.sort_keys {
            pairs.sort_by_key(|(key, _)| *key);
        }
        pairs
    }

    fn increase_indent(&mut self, is_flow: bool, indentless: bool) -> Option<usize> {
        let before = self.indent;
        self.indent = match before {
            None => Some(if is_flow { 2 } else { 0 }),
            Some(indent) if indentless => Some(indent),
            Some(indent) => Some(indent + 2),
        };
        before
    }

    fn block_list(&mut self, items: &[Value], place: Place) {
        let indentless = place == Place::Value && !self.indention;
        let before = self.increase_indent(false, indentless);
        for item in items {
            self.write_indent();
            self.indicator("-", true, false, true);
            self.node(item, Place::Item);
        }
        self.indent = before;
    }

    fn block_map(&mut self, map: &Map<String, Value>) {
        let before = self.increase_indent(false, false);
        for (key, value) in self.pairs(map) {
            self.write_indent();
            if is_simple_key(key) {
                self.key(key);
                self.indicator(":", false, false, false);
            } else {
                self.indicator("?", true, false, true);
                self.scalar(key, scalar::resolve(key) == Kind::Text, Place::Value);
                self.write_indent();
                self.indicator(":", true, false, true);
            }
            self.node(value, Place::Value);
        }
        self.indent = before;
    }

    fn flow_list(&mut self, items: &[Value]) {
        let before = self.open_flow("[");
        for (index, item) in items.iter().enumerate() {
            self.separate(index);
            self.node(item, Place::Item);
        }
        self.close_flow("]", before);
    }

    fn flow_map(&mut self, map: &Map<String, Value>) {
        let before = self.open_flow("{");
        for (index, (key, value)) in self.pairs(map).into_iter().enumerate() {
            self.separate(index);
            if is_simple_key(key) {
                self.key(key);
                self.indicator(":", false, false, false);
            } else {
                self.indicator("?", true, false, false);
                self.scalar(key, scalar::resolve(key) == Kind::Text, Place::Value);
                if self.column > WIDTH {
                    self.write_indent();
                }
                self.indicator(":", true, false, false);
            }
            self.node(value, Place::Value);
        }
        self.close_flow("}", before);
    }

    fn open_flow(&mut self, bracket: &str) -> Option<usize> {
        self.indicator(bracket, true, true, false);
        self.flow_level += 1;
        self.increase_indent(true, false)
    }

    fn separate(&mut self, index: usize) {
        if index > 0 {
            self.indicator(",", false, false, false);
        }
        if self.column > WIDTH {
            self.write_indent();
        }
    }

    fn close_flow(&mut self, bracket: &str, indent: Option<usize>) {
        self.indent = indent;
        self.flow_level -= 1;
        self.indicator(bracket, false, false, false);
    }

    fn key(&mut self, key: &str) {
        self.scalar(key, scalar::resolve(key) == Kind::Text, Place::Key);
    }

    fn scalar(&mut self, text: &str, is_plain_possible: bool, place: Place) {
        let chars: Vec<char> = text.chars().collect();
        let allowed = Allowed::of(&chars);
        let is_splittable = place != Place::Key;
        let before = self.increase_indent(true, false);
        let plain = if self.flow_level > 0 { allowed.flow_plain } else { allowed.block_plain };
        if is_plain_possible && plain {
            self.open_ended |= place == Place::Root;
            self.plain(&chars, is_splittable);
        } else if allowed.single_quoted {
            self.single_quoted(&chars, is_splittable);
        } else {
            self.double_quoted(&chars, is_splittable);
        }
        self.indent = before;
    }

    fn put(&mut self, chars: &[char]) {
        self.column += chars.len();
        self.out.extend(chars);
    }

    fn indicator(&mut self, text: &str, needs_whitespace: bool, whitespace: bool, indention: bool) {
        if needs_whitespace && !self.whitespace {
            self.put(&[' ']);
        }
        self.out.push_str(text);
        self.column += text.chars().count();
        self.whitespace = whitespace;
        self.indention = self.indention && indention;
        self.open_ended = false;
    }

    fn write_indent(&mut self) {
        let indent = self.indent.unwrap_or(0);
        if !self.indention || self.column > indent || (self.column == indent && !self.whitespace) {
            self.line_break('\n');
        }
        if self.column < indent {
            self.whitespace = true;
            self.put(&vec![' '; indent - self.column]);
        }
    }

    fn line_break(&mut self, c: char) {
        self.out.push(c);
        self.whitespace = true;
        self.indention = true;
        self.column = 0;
    }

    fn plain(&mut self, chars: &[char], is_splittable: bool) {
        if chars.is_empty() {
            return;
        }
        if !self.whitespace {
            self.put(&[' ']);
        }
        self.whitespace = false;
        self.indention = false;
        self.words(chars, is_splittable, |_| false);
    }

    fn single_quoted(&mut self, chars: &[char], is_splittable: bool) {
        self.indicator("'", true, false, false);
        self.words(chars, is_splittable, |c| c == '\'');
        self.indicator("'", false, false, false);
    }

    /// Writes words, blanks and line breaks. A single blank beyond the width becomes a line break; a line break is
    /// doubled, for the reader folds the first one away. Characters for which `doubled` holds are written twice.
    fn words(&mut self, chars: &[char], is_splittable: bool, doubled: fn(char) -> bool) {
        let mut start = 0;
        while start < chars.len() {
            let is_same = |c: char| match chars[start] {
                ' ' => c == ' ',
                first if is_break(first) => is_break(c),
                _ => c != ' ' && !is_break(c),
            };
            let end = chars[start..].iter().position(|c| !is_same(*c)).map_or(chars.len(), |length| start + length);
            let run = &chars[start..end];
            let is_inside = start != 0 && end != chars.len();
            if run == [' '] && self.column > WIDTH && is_splittable && is_inside {
                self.write_indent();
                self.whitespace = false;
                self.indention = false;
            } else if is_break(run[0]) {
                self.breaks(run);
            } else {
                for c in run {
                    self.put(&[*c, *c][usize::from(!doubled(*c))..]);
                }
            }
            start = end;
        }
    }

    fn breaks(&mut self, run: &[char]) {
        if run[0] == '\n' {
            self.line_break('\n');
        }
        for c in run {
            self.line_break(*c);
        }
        self.write_indent();
    }

    fn double_quoted(&mut self, chars: &[char], is_splittable: bool) {
        self.indicator("\"", true, false, false);
        let mut start = 0;
        for end in 0..chars.len() {
            let c = chars[end];
            if let Some(escape) = escape(c) {
                self.put(&chars[start..end]);
                self.column += escape.len();
                self.out.push_str(&escape);
                start = end + 1;
            }
            let is_inside = end > 0 && end + 1 < chars.len();
            let pending = end.saturating_sub(start);
            if is_inside && (c == ' ' || start >= end) && self.column + pending > WIDTH && is_splittable {
                if start < end {
                    self.put(&chars[start..end]);
                    start = end;
                }
                self.put(&['\\']);
                self.write_indent();
                self.whitespace = false;
                self.indention = false;
                if chars[start] == ' ' {
                    self.put(&['\\']);
                }
            }
        }
        self.put(&chars[start..]);
        self.indicator("\"", false, false, false);
    }
}

fn number_text(number: &serde_json::Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() => {
            let text = scalar::float_repr(float);
            // Without a point YAML 1.1 would not take it for a number.
            if text.contains('.') { text } else { text.replacen('e', ".0e", 1) }
        }
        _ => number.to_string(),
    }
}

fn is_simple_key(key: &str) -> bool {
    !key.is_empty() && !key.contains(is_break) && key.chars().count() < SIMPLE_KEY_LIMIT
}

fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_blank_or_break(c: char) -> bool {
    is_break(c) || matches!(c, '\0' | ' ' | '\t' | '\r')
}

/// The escape of a character that cannot stand between double quotes as it is.
fn escape(c: char) -> Option<String> {
    let is_fine = matches!(c, ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}')
        && !matches!(c, '"' | '\\' | '\u{2028}' | '\u{2029}' | '\u{feff}');
    if is_fine {
        return None;
    }
    let short = match c {
        '\0' => '0',
        '\u{7}' => 'a',
        '\u{8}' => 'b',
        '\t' => 't',
        '\n' => 'n',
        '\u{b}' => 'v',
        '\u{c}' => 'f',
        '\r' => 'r',
        '\u{1b}' => 'e',
        '"' => '"',
        '\\' => '\\',
        '\u{85}' => 'N',
        '\u{2028}' => 'L',
        '\u{2029}' => 'P',
        _ => {
            let code = u32::from(c);
            return Some(match code {
                0..=0xff => format!("\\x{code:02X}"),
                0x100..=0xffff => format!("\\u{code:04X}"),
                _ => format!("\\U{code:08X}"),
            });
        }
    };
    Some(format!("\\{short}"))
}

/// Which styles a text may be written in.
struct Allowed {
    flow_plain: bool,
    block_plain: bool,
    single_quoted: bool,
}

impl Allowed {
    fn of(chars: &[char]) -> Self {
        let (Some(first), Some(last)) = (chars.first(), chars.last()) else {
            return Self { flow_plain: false, block_plain: true, single_quoted: true };
        };
        let mut flow_indicators = chars.starts_with(&['-'; 3]) || chars.starts_with(&['.'; 3]);
        let mut block_indicators = flow_indicators;
        let (mut has_breaks, mut is_special) = (false, false);
        let (mut break_space, mut space_break) = (false, false);
        for (index, c) in chars.iter().copied().enumerate() {
            let previous = index.checked_sub(1).map(|i| chars[i]);
            let ends_word = chars.get(index + 1).copied().is_none_or(is_blank_or_break);
            let starts_word = previous.is_none_or(is_blank_or_break);
            match (c, index) {
                ('#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`', 0) => {
                    flow_indicators = true;
                    block_indicators = true;
                }
                ('?' | ':', 0) | (':', _) => {
                    flow_indicators = true;
                    block_indicators |= ends_word;
                }
                ('-', 0) if ends_word => {
                    flow_indicators = true;
                    block_indicators = true;
                }
                (',' | '?' | '[' | ']' | '{' | '}', _) => flow_indicators = true,
                ('#', _) if starts_word => {
                    flow_indicators = true;
                    block_indicators = true;
                }
                _ => {}
            }
            has_breaks |= is_break(c);
            is_special |= !is_printable(c);
            break_space |= c == ' ' && previous.is_some_and(is_break);
            space_break |= is_break(c) && previous == Some(' ');
        }
        let is_padded = [first, last].iter().any(|c| **c == ' ' || is_break(**c));
        let plain = !is_padded && !break_space && !space_break && !is_special && !has_breaks;
        Self {
            flow_plain: plain && !flow_indicators,
            block_plain: plain && !block_indicators,
            single_quoted: !break_space && !space_break && !is_special,
        }
    }
}

fn is_printable(c: char) -> bool {
    matches!(c, '\n' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..='\u{10fffe}') && c != '\u{feff}'
}
