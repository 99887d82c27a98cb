//! Arrays, rows and ranges: values in values, each with quotes of its own.

use std::iter::Peekable;
use std::str::Chars;

use super::Value;

type Text<'a> = Peekable<Chars<'a>>;

/// Reads up to one of `ends` (which stays); a quoted text is whole. Whether there were quotes, and the text.
fn word(text: &mut Text<'_>, ends: &[char], doubled: bool) -> Option<(bool, String)> {
    let (mut word, mut is_quoted, mut inside) = (String::new(), false, false);
    loop {
        match text.peek() {
            None if inside => return None,
            None => return Some((is_quoted, word)),
            Some(c) if !inside && ends.contains(c) => return Some((is_quoted, word)),
            Some(_) => {}
        }
        match text.next()? {
            '\\' => word.push(text.next()?),
            '"' if inside && doubled && text.peek() == Some(&'"') => word.push(text.next()?),
            '"' => {
                inside = !inside;
                is_quoted = true;
            }
            c => word.push(c),
        }
    }
}

/// `{1,2,{…}}`, perhaps with its bounds before it.
pub(super) fn array(text: &str, delimiter: char, oid: u32, zone: &str) -> Option<Value> {
    let text = if text.starts_with('[') { text.split_once('=')?.1 } else { text };
    let mut text = text.chars().peekable();
    let value = list(&mut text, delimiter, oid, zone)?;
    text.next().is_none().then_some(value)
}

fn list(text: &mut Text<'_>, delimiter: char, oid: u32, zone: &str) -> Option<Value> {
    if text.next()? != '{' {
        return None;
    }
    let mut items = Vec::new();
    if text.next_if_eq(&'}').is_some() {
        return Some(Value::List(items));
    }
    loop {
        if text.peek() == Some(&'{') {
            items.push(list(text, delimiter, oid, zone)?);
        } else {
            let (is_quoted, word) = word(text, &[delimiter, '}'], false)?;
            let is_null = !is_quoted && word == "NULL";
            items.push(Value::read(oid, (!is_null).then_some(&word), zone));
        }
        match text.next()? {
            '}' => return Some(Value::List(items)),
            c if c == delimiter => {}
            _ => return None,
        }
    }
}

/// `(a,"b c",)`: nothing between the commas is NULL, and the rest is text, since a row does not tell its types.
pub(super) fn record(text: &str) -> Option<Vec<Value>> {
    let mut text = text.strip_prefix('(')?.chars().peekable();
    let mut items = Vec::new();
    if text.peek() == Some(&')') {
        return Some(items);
    }
    loop {
        let (is_quoted, word) = word(&mut text, &[',', ')'], true)?;
        items.push(if word.is_empty() && !is_quoted { Value::Null } else { Value::Text(word) });
        match text.next()? {
            ')' => return Some(items),
            _ => continue,
        }
    }
}

/// `[1,5)`, `(,5]`, `empty`.
pub(super) fn range(text: &str, oid: u32, zone: &str) -> Option<Value> {
    let mut text = text.chars().peekable();
    let value = bounds(&mut text, oid, zone)?;
    text.next().is_none().then_some(value)
}

fn bounds(text: &mut Text<'_>, oid: u32, zone: &str) -> Option<Value> {
    let open = text.next()?;
    if open == 'e' {
        return "mpty".chars().all(|c| text.next() == Some(c)).then_some(Value::Range(None));
    }
    let mut bound = || {
        let (is_quoted, word) = word(text, &[',', ')', ']'], true)?;
        let is_open = word.is_empty() && !is_quoted;
        let end = text.next()?;
        Some((Value::read(oid, (!is_open).then_some(&word), zone), end))
    };
    let (low, comma) = bound()?;
    let (high, close) = bound()?;
    let is_right = matches!(open, '[' | '(') && comma == ',' && matches!(close, ']' | ')');
    is_right.then(|| Value::Range(Some(Box::new(([open, close], low, high)))))
}

/// `{[1,3),[5,7)}`.
pub(super) fn multirange(text: &str, oid: u32, zone: &str) -> Option<Value> {
    let mut text = text.strip_prefix('{')?.chars().peekable();
    let mut ranges = Vec::new();
    loop {
        match text.peek()? {
            '}' => return Some(Value::Multirange(ranges)),
            ',' => {
                text.next();
            }
            _ => ranges.push(bounds(&mut text, oid, zone)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_postgres::types::Type;

    fn shown(kind: &Type, text: &str) -> String {
        Value::read(kind.oid(), Some(text), "UTC").str()
    }

    #[test]
    fn arrays() {
        assert_eq!(shown(&Type::INT4_ARRAY, "{1,2,NULL}"), "[1, 2, None]");
        assert_eq!(shown(&Type::TEXT_ARRAY, r#"{a,"b c","NULL","q\"\\",""}"#), r#"['a', 'b c', 'NULL', 'q"\\', '']"#);
        assert_eq!(shown(&Type::INT4_ARRAY, "[0:1]={{1},{2}}"), "[[1], [2]]");
        assert_eq!(shown(&Type::INT4_ARRAY, "{}"), "[]");
        assert_eq!(shown(&Type::NUMERIC_ARRAY, "{1.50}"), "[Decimal('1.50')]");
        // What makes no sense stays what it is.
        assert_eq!(shown(&Type::INT4_ARRAY, "{1,"), "{1,");
    }

    #[test]
    fn rows_and_ranges() {
        assert_eq!(shown(&Type::RECORD, r#"(1,"a ""b""",,"")"#), r#"('1', 'a "b"', None, '')"#);
        assert_eq!(shown(&Type::RECORD, "(x)"), "('x',)");
        assert_eq!(shown(&Type::INT4_RANGE, "[1,5)"), "[1, 5)");
        assert_eq!(shown(&Type::INT4_RANGE, "(,5)"), "(None, 5)");
        assert_eq!(shown(&Type::INT4_RANGE, "empty"), "empty");
        assert_eq!(shown(&Type::TS_RANGE, r#"["2026-01-01 00:00:00",)"#), "[2026-01-01 00:00:00, None)");
        assert_eq!(shown(&Type::INT4MULTI_RANGE, "{[1,3),[5,7)}"), "{[1, 3), [5, 7)}");
        assert_eq!(shown(&Type::INT4_RANGE_ARRAY, r#"{"[1,5)"}"#), "[Range(1, 5, '[)')]");
    }
}
