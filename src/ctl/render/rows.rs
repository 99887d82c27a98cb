//! The answer to a query.

use serde_json::{Map, Value as Json};

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
            let mut sorted: Vec<&String> = columns.iter().collect();
            sorted.sort();
            if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err("Field names must be unique".to_owned());
            }
            Some(pretty(columns, rows))
        }
        "json" => {
            let failed = |class| format!("Object of type {class} is not JSON serializable");
            Some(python::json(&objects(columns, rows, |value| value.json(true)).map_err(failed)?))
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
    let cells: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(Value::str).collect()).collect();
    grid("", &heads, &cells)
}

fn objects<E>(columns: &[String], rows: &[Vec<Value>], read: impl Fn(&Value) -> Result<Json, E>) -> Result<Json, E> {
    let object = |row: &Vec<Value>| {
        let pairs = columns.iter().zip(row).map(|(name, value)| Ok((name.clone(), read(value)?)));
        Ok(Json::Object(pairs.collect::<Result<Map<_, _>, E>>()?))
    };
    rows.iter().map(object).collect::<Result<Vec<_>, E>>().map(Json::Array)
}

/// YAML knows dates and binary data, which JSON does not: they stand in the document as words that are replaced
/// afterwards.
fn as_yaml(columns: &[String], rows: &[Vec<Value>]) -> Result<String, String> {
    let words = std::cell::RefCell::new(Vec::new());
    let failed = |value: &Value| format!("('cannot represent an object', {})", value.repr());
    fn read(
        value: &Value,
        words: &std::cell::RefCell<Vec<(String, String)>>,
        failed: &dyn Fn(&Value) -> String,
    ) -> Result<Json, String> {
        match value {
            Value::Object(object) if object.is_in_yaml => {
                let word = format!("herdbareword{}x", words.borrow().len());
                words.borrow_mut().push((word.clone(), object.shown.clone()));
                Ok(Json::String(word))
            }
            Value::List(items) | Value::Tuple(items) => {
                items.iter().map(|item| read(item, words, failed)).collect::<Result<Vec<_>, _>>().map(Json::Array)
            }
            other => other.json(true).map_err(|_| failed(other)),
        }
    }
    let document = objects(columns, rows, |value| read(value, &words, &failed))?;
    let mut text = yaml::block(&document);
    for (word, shown) in words.into_inner() {
        text = text.replacen(&word, &shown, 1);
    }
    Ok(text)
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
        assert_eq!(said(&["n", "n"], &rows, "pretty").unwrap_err(), "Field names must be unique");
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
}
