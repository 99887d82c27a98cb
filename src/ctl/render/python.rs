//! What Python and its libraries do to text, as far as patronictl's output shows it.

use crate::config::schema::python::repr_text;
use serde_json::Value;

/// `json.dumps`: one line, blanks after `,` and `:`, only ASCII.
pub fn json(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(json).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let pair = |(key, value): (&String, &Value)| format!("{}: {}", json_text(key), json(value));
            format!("{{{}}}", map.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
        Value::String(text) => json_text(text),
        Value::Number(number) if number.is_f64() => float(number.as_f64().unwrap_or_default()),
        other => other.to_string(),
    }
}

fn json_text(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            ' '..='~' => quoted.push(c),
            other => {
                let mut units = [0; 2];
                quoted.extend(other.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
            }
        }
    }
    quoted.push('"');
    quoted
}

/// `repr` of a float: the shortest digits that read back the same, with an exponent below 1e-4 and from 1e16 on.
pub fn float(number: f64) -> String {
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..16).contains(&exponent) {
        let plain = number.to_string();
        return if plain.contains('.') { plain } else { format!("{plain}.0") };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// The same for numbers that are none, too.
pub fn any_float(number: f64) -> String {
    match number {
        n if n.is_nan() => "nan".to_owned(),
        n if n.is_infinite() => if n > 0.0 { "inf" } else { "-inf" }.to_owned(),
        n => float(n),
    }
}

/// `repr` of bytes.
pub fn repr_bytes(bytes: &[u8]) -> String {
    let quote = if bytes.contains(&b'\'') && !bytes.contains(&b'"') { '"' } else { '\'' };
    let mut quoted = format!("b{quote}");
    for byte in bytes {
        match byte {
            b'\\' => quoted.push_str("\\\\"),
            b'\n' => quoted.push_str("\\n"),
            b'\r' => quoted.push_str("\\r"),
            b'\t' => quoted.push_str("\\t"),
            byte if char::from(*byte) == quote => quoted.extend(['\\', quote]),
            b' '..=b'~' => quoted.push(char::from(*byte)),
            byte => quoted.push_str(&format!("\\x{byte:02x}")),
        }
    }
    quoted.push(quote);
    quoted
}

/// `repr` of what was read from JSON.
pub fn repr(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) if number.is_f64() => any_float(number.as_f64().unwrap_or_default()),
        Value::Number(number) => number.to_string(),
        Value::String(text) => repr_text(text),
        Value::Array(items) => format!("[{}]", items.iter().map(repr).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let pair = |(key, value): (&String, &Value)| format!("{}: {}", repr_text(key), repr(value));
            format!("{{{}}}", map.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
    }
}

/// Bytes as MB, rounded half to even.
pub fn megabytes(bytes: u64) -> u64 {
    const MB: u64 = 1_048_576;
    let (whole, rest) = (bytes / MB, bytes % MB);
    let up = rest > MB / 2 || (rest == MB / 2 && whole % 2 == 1);
    whole + u64::from(up)
}

/// Wraps at blanks to `width` columns: the first line begins with `first`, the others with `rest`.
pub fn wrap(text: &str, width: usize, first: &str, rest: &str) -> String {
    let mut lines = vec![first.to_owned()];
    let mut is_empty = true;
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always a line");
        if is_empty {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(format!("{rest}{word}"));
        }
        is_empty = false;
    }
    lines.join("\n")
}

/// Two columns as in a help page: terms and their texts.
pub fn definition_list(rows: &[(String, String)]) -> String {
    let widest = rows.iter().map(|(term, _)| term.chars().count()).max().unwrap_or(0).min(30);
    let column = widest + 2;
    let lines = rows.iter().map(|(term, text)| {
        let indent = " ".repeat(column + 2);
        let head =
            if term.chars().count() <= widest { format!("  {term:<column$}") } else { format!("  {term}\n{indent}") };
        // Only the last line of the head counts for the width.
        let (before, last) = head.rsplit_once('\n').map_or(("", head.as_str()), |(b, l)| (b, l));
        let body = wrap(text, 78, last, &indent);
        if before.is_empty() { body } else { format!("{before}\n{body}") }
    });
    lines.map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let texts = [1e20, 1e16, 1e15, 1.5, 0.1, 1e-5, 0.0001, -2.5e-7, 20.0].map(float);
        assert_eq!(
            texts,
            ["1e+20", "1e+16", "1000000000000000.0", "1.5", "0.1", "1e-05", "0.0001", "-2.5e-07", "20.0"]
        );
        assert_eq!([524_288, 524_289, 1_572_864, 2_621_440].map(megabytes), [0, 1, 2, 2]);
    }

    #[test]
    fn json_is_ascii() {
        let value = serde_json::json!({ "a": [1, 2.0, "é\"\n😀"], "b": {} });
        assert_eq!(json(&value), r#"{"a": [1, 2.0, "\u00e9\"\n\ud83d\ude00"], "b": {}}"#);
    }
}
