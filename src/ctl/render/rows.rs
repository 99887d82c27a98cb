//! The answer to a query.

use std::cell::RefCell;

use serde_json::{Map, Value as Json};

use crate::api::access::base64;

use super::grid::{Column, grid};
use super::{python, yaml};

pub use super::psycopg::Value;

/// What patronictl prints, without the last newline; nothing at all for a format that it does not know. Rows without
/// columns are messages.
pub fn as_patronictl(
    columns: &[String],
    rows: &[Vec<Value>],
    format: &str,
    delimiter: &str,
) -> Result<Option<String>, String> {
    Ok(match format {
        "tsv" => Some(tsv(columns, rows, delimiter)).filter(|_| !(columns.is_empty() && rows.is_empty())),
        "pretty" => {
            if rows.first().is_some_and(Vec::is_empty) {
                return Err("max() arg is an empty sequence".to_owned());
            }
            Some(pretty(columns, rows))
        }
        "json" => {
            let failed = |class| format!("Object of type {class} is not JSON serializable");
            let words = Words::default();
            let document = objects(columns, rows, |value| words.json(value)).map_err(failed)?;
            Some(words.in_json(python::json(&document)))
        }
        "yaml" | "yml" => Some(as_yaml(columns, rows)?),
        _ => None,
    })
}

/// A header and one line per row.
pub fn tsv(columns: &[String], rows: &[Vec<Value>], delimiter: &str) -> String {
    let head = (!columns.is_empty()).then(|| columns.join(delimiter));
    let line = |row: &Vec<Value>| row.iter().map(Value::str).collect::<Vec<_>>().join(delimiter);
    head.into_iter().chain(rows.iter().map(line)).collect::<Vec<_>>().join("\n")
}

/// A table.
pub fn pretty(columns: &[String], rows: &[Vec<Value>]) -> String {
    let width = rows.first().map_or(0, Vec::len);
    let numbered: Vec<String> = (1..=width).map(|number| format!("Field {number}")).collect();
    let names = if columns.is_empty() { &numbered } else { columns };
    let heads: Vec<Column<'_>> = names.iter().map(|name| Column::left(name)).collect();
    let cells: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|value| expanded(&value.str())).collect()).collect();
    grid("", &heads, &cells)
}

fn objects<E>(columns: &[String], rows: &[Vec<Value>], read: impl Fn(&Value) -> Result<Json, E>) -> Result<Json, E> {
    let object = |row: &Vec<Value>| {
        let pairs = columns.iter().zip(row).map(|(name, value)| Ok((name.clone(), read(value)?)));
        Ok(Json::Object(pairs.collect::<Result<Map<_, _>, E>>()?))
    };
    rows.iter().map(object).collect::<Result<Vec<_>, E>>().map(Json::Array)
}

fn as_yaml(columns: &[String], rows: &[Vec<Value>]) -> Result<String, String> {
    let failed = |value: &Value| format!("('cannot represent an object', {})", value.repr());
    let words = Words::default();
    let document = objects(columns, rows, |value| words.yaml(value).map_err(failed))?;
    Ok(words.in_yaml(yaml::block(&document)))
}

/// Tabs as blanks up to the next multiple of eight, in each line.
fn expanded(text: &str) -> String {
    let (mut out, mut column) = (String::new(), 0);
    for c in text.chars() {
        match c {
            '\t' => {
                let blanks = 8 - column % 8;
                out.push_str(&" ".repeat(blanks));
                column += blanks;
            }
            '\n' | '\r' => {
                out.push(c);
                column = 0;
            }
            _ => {
                out.push(c);
                column += 1;
            }
        }
    }
    out
}

/// Python writes more than our documents can hold: numbers that are none, dates, binary data. They stand there as
/// words that are replaced afterwards.
#[derive(Default)]
struct Words(RefCell<Vec<(String, Stood)>>);

/// What a word stands for.
enum Stood {
    /// This, without quotes.
    Bare(String),
    /// Binary data.
    Bytes(Vec<u8>),
}

impl Words {
    fn stand_in(&self, stood: Stood) -> Json {
        let word = format!("herdbareword{}x", self.0.borrow().len());
        self.0.borrow_mut().push((word.clone(), stood));
        Json::String(word)
    }

    fn json(&self, value: &Value) -> Result<Json, &'static str> {
        match value {
            Value::Float(number) if !number.is_finite() => Ok(self.stand_in(Stood::Bare(
                match () {
                    () if number.is_nan() => "NaN",
                    () if *number > 0.0 => "Infinity",
                    () => "-Infinity",
                }
                .to_owned(),
            ))),
            Value::List(items) | Value::Tuple(items) => {
                items.iter().map(|item| self.json(item)).collect::<Result<Vec<_>, _>>().map(Json::Array)
            }
            other => other.json(true),
        }
    }

    /// `Err`: the value that cannot be shown.
    fn yaml<'v>(&self, value: &'v Value) -> Result<Json, &'v Value> {
        match value {
            Value::Object(object) if object.is_in_yaml => Ok(self.stand_in(Stood::Bare(object.shown.clone()))),
            Value::Bytes(bytes) => Ok(self.stand_in(Stood::Bytes(bytes.clone()))),
            Value::Float(number) if !number.is_finite() => {
                let shown = python::any_float(*number);
                let shown = shown.strip_prefix('-').map_or(format!(".{shown}"), |shown| format!("-.{shown}"));
                Ok(self.stand_in(Stood::Bare(shown)))
            }
            Value::List(items) | Value::Tuple(items) => {
                items.iter().map(|item| self.yaml(item)).collect::<Result<Vec<_>, _>>().map(Json::Array)
            }
            other => other.json(true).map_err(|_| other),
        }
    }

    fn in_json(self, mut text: String) -> String {
        for (word, stood) in self.0.into_inner() {
            if let Stood::Bare(shown) = stood {
                text = text.replacen(&format!("\"{word}\""), &shown, 1);
            }
        }
        text
    }

    fn in_yaml(self, mut text: String) -> String {
        for (word, stood) in self.0.into_inner() {
            let Some(at) = text.find(&word) else { continue };
            let line = &text[text[..at].rfind('\n').map_or(0, |end| end + 1)..at];
            let shown = match stood {
                Stood::Bare(shown) => shown,
                Stood::Bytes(bytes) => binary(&bytes, indent(line)),
            };
            text.replace_range(at..at + word.len(), &shown);
        }
        text
    }
}

/// How far a block is indented whose line begins like this: two columns further than the key, or as far as the item.
fn indent(before: &str) -> usize {
    let start = before.find(|c| c != ' ' && c != '-').unwrap_or(before.len());
    if start == before.len() { start } else { start + 2 }
}

/// Binary data in YAML.
fn binary(bytes: &[u8], indent: usize) -> String {
    const LINE: usize = 57;
    if bytes.is_empty() {
        return "!!binary \"\"".to_owned();
    }
    let lines = bytes.chunks(LINE).map(|line| format!("\n{}{}", " ".repeat(indent), base64(line)));
    format!("!!binary |{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_postgres::types::Type;

    fn value(kind: &Type, text: &str) -> Value {
        Value::read(kind.oid(), Some(text), "UTC")
    }

    fn said(columns: &[&str], rows: &[Vec<Value>], format: &str) -> Result<Option<String>, String> {
        let columns: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
        as_patronictl(&columns, rows, format, "\t")
    }

    #[test]
    fn every_format() {
        let rows = vec![vec![value(&Type::INT4, "1"), value(&Type::DATE, "2026-11-20")]];
        assert_eq!(said(&["n", "d"], &rows, "tsv").unwrap().unwrap(), "n\td\n1\t2026-11-20");
        let failed = said(&["n", "d"], &rows, "json").unwrap_err();
        assert_eq!(failed, "Object of type date is not JSON serializable");
        assert_eq!(said(&["n", "d"], &rows, "yaml").unwrap().unwrap(), "- d: 2026-11-20\n  n: 1\n");
        let table =
            "+---+------------+\n| n | d          |\n+---+------------+\n| 1 | 2026-11-20 |\n+---+------------+";
        assert_eq!(said(&["n", "d"], &rows, "pretty").unwrap().unwrap(), table);
        assert_eq!(said(&["n", "n"], &rows, "bogus"), Ok(None));
    }

    #[test]
    fn messages_have_no_header() {
        let rows = vec![vec![Value::Text("2026".to_owned()), Value::Text("No".to_owned())]];
        assert_eq!(said(&[], &rows, "tsv").unwrap().unwrap(), "2026\tNo");
        assert_eq!(said(&[], &rows, "json").unwrap().unwrap(), "[{}]");
        assert_eq!(said(&[], &rows, "yaml").unwrap().unwrap(), "- {}\n");
        assert!(said(&[], &rows, "pretty").unwrap().unwrap().contains("| Field 1 | Field 2 |"));
    }

    #[test]
    fn what_json_and_yaml_alone_can_say() {
        let rows = vec![vec![
            value(&Type::FLOAT8, "NaN"),
            value(&Type::FLOAT8_ARRAY, "{1,-Infinity}"),
            value(&Type::BYTEA, "\\x00ff41"),
            value(&Type::BYTEA_ARRAY, "{\"\\\\x41\",\"\\\\x\"}"),
        ]];
        assert_eq!(said(&["f", "g"], &rows, "json").unwrap().unwrap(), r#"[{"f": NaN, "g": [1.0, -Infinity]}]"#);
        let text = "- a: .nan\n  b:\n  - 1.0\n  - -.inf\n  c: !!binary |\n    AP9B\n  d:\n  - !!binary |\n    QQ==\n  \
                    - !!binary \"\"\n";
        assert_eq!(said(&["a", "b", "c", "d"], &rows, "yaml").unwrap().unwrap(), text);
        let failed = said(&["f", "g", "h"], &rows, "json").unwrap_err();
        assert_eq!(failed, "Object of type bytes is not JSON serializable");
    }

    #[test]
    fn tabs_are_as_wide_as_they_look() {
        let table = pretty(&["t".to_owned()], &[vec![Value::Text("a\tb".to_owned())]]);
        assert!(table.contains("| a       b |"), "{table}");
    }
}
