//! What a value of a query's answer looks like to a Python program, and so to whoever reads patronictl's output: the
//! server's text, read by type, written as Python's `str`, `repr`, `json` and `yaml` would.

use crate::config::schema::python::repr_text;
use serde_json::Value as Json;
use tokio_postgres::types::{Kind, Type};

use super::python;

mod moments;
mod nested;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// NULL.
    Null,
    /// `boolean`.
    Bool(bool),
    /// Whole numbers, as their digits.
    Int(String),
    /// Floating point.
    Float(f64),
    /// `numeric`, as the server writes it.
    Decimal(String),
    /// Text, and everything Python has no type for.
    Text(String),
    /// `bytea`.
    Bytes(Vec<u8>),
    /// `json`, `jsonb`.
    Json(Json),
    /// Dates, times, UUIDs, addresses.
    Object(Object),
    /// Arrays.
    List(Vec<Value>),
    /// Rows.
    Tuple(Vec<Value>),
    /// Ranges: the two brackets and the bounds; nothing for the empty range.
    Range(Option<Box<([char; 2], Value, Value)>>),
    /// Several ranges.
    Multirange(Vec<Value>),
    /// Something Python cannot hold: the server's text, and what Python's library says of it.
    Odd(String, String),
}

/// An object of Python's library: how it prints, its constructor, its class, and whether YAML can show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// As `str` has it.
    pub shown: String,
    /// As `repr` has it.
    pub made: String,
    /// Name of the class.
    pub class: &'static str,
    /// YAML has such a type: written bare.
    pub is_in_yaml: bool,
}

impl Value {
    /// Reads the server's text. `zone` is the session's time zone.
    pub fn read(oid: u32, text: Option<&str>, zone: &str) -> Self {
        let Some(text) = text else { return Self::Null };
        let Some(kind) = Type::from_oid(oid) else { return Self::Text(text.to_owned()) };
        match kind.kind() {
            Kind::Array(element) => {
                let delimiter = if *element == Type::BOX { ';' } else { ',' };
                return nested::array(text, delimiter, element.oid(), zone)
                    .unwrap_or_else(|| Self::Text(text.to_owned()));
            }
            Kind::Range(bound) => {
                return nested::range(text, bound.oid(), zone).unwrap_or_else(|| Self::Text(text.to_owned()));
            }
            Kind::Multirange(bound) => {
                return nested::multirange(text, bound.oid(), zone).unwrap_or_else(|| Self::Text(text.to_owned()));
            }
            _ => {}
        }
        Self::simple(&kind, text, zone).unwrap_or_else(|| Self::Text(text.to_owned()))
    }

    /// `None`: what is not written as the type wants it stays text.
    fn simple(kind: &Type, text: &str, zone: &str) -> Option<Self> {
        Some(match *kind {
            Type::BOOL => Self::Bool(text == "t"),
            Type::INT2 | Type::INT4 | Type::INT8 | Type::OID => Self::Int(text.to_owned()),
            Type::FLOAT4 | Type::FLOAT8 => Self::Float(text.parse().ok()?),
            Type::NUMERIC => Self::Decimal(text.to_owned()),
            Type::BYTEA => Self::Bytes(bytes(text)?),
            Type::JSON | Type::JSONB => Self::Json(serde_json::from_str(text).ok()?),
            Type::RECORD => Self::Tuple(nested::record(text)?),
            Type::UUID => Self::Object(object("UUID", text)),
            Type::INET | Type::CIDR => Self::Object(object(address_class(*kind == Type::CIDR, text), text)),
            Type::DATE => moments::date(text)?,
            Type::TIME => moments::time(text)?,
            Type::TIMETZ => moments::timetz(text)?,
            Type::TIMESTAMP => moments::timestamp(text)?,
            Type::TIMESTAMPTZ => moments::timestamptz(text, zone)?,
            Type::INTERVAL => moments::interval(text)?,
            _ => return None,
        })
    }

    /// What Python's library refuses to read, in its words.
    pub fn refusal(&self) -> Option<&str> {
        match self {
            Self::Odd(_, why) => Some(why),
            Self::List(items) | Self::Tuple(items) | Self::Multirange(items) => items.iter().find_map(Self::refusal),
            Self::Range(Some(range)) => range.1.refusal().or_else(|| range.2.refusal()),
            _ => None,
        }
    }

    /// `str(value)`.
    pub fn str(&self) -> String {
        match self {
            Self::Text(text) | Self::Json(Json::String(text)) | Self::Odd(text, _) => text.clone(),
            Self::Decimal(text) => decimal(text),
            Self::Object(object) => object.shown.clone(),
            Self::Range(None) => "empty".to_owned(),
            Self::Range(Some(range)) => {
                let ([open, close], low, high) = &**range;
                format!("{open}{}, {}{close}", low.str(), high.str())
            }
            Self::Multirange(ranges) => {
                format!("{{{}}}", ranges.iter().map(Self::str).collect::<Vec<_>>().join(", "))
            }
            other => other.repr(),
        }
    }

    /// `repr(value)`.
    pub fn repr(&self) -> String {
        let all = |items: &[Self]| items.iter().map(Self::repr).collect::<Vec<_>>().join(", ");
        match self {
            Self::Null => "None".to_owned(),
            Self::Bool(true) => "True".to_owned(),
            Self::Bool(false) => "False".to_owned(),
            Self::Int(digits) => digits.clone(),
            Self::Float(number) => python::any_float(*number),
            Self::Decimal(text) => format!("Decimal('{}')", decimal(text)),
            Self::Text(text) | Self::Odd(text, _) => repr_text(text),
            Self::Bytes(bytes) => python::repr_bytes(bytes),
            Self::Json(json) => python::repr(json),
            Self::Object(object) => object.made.clone(),
            Self::List(items) => format!("[{}]", all(items)),
            Self::Tuple(items) if items.len() == 1 => format!("({},)", all(items)),
            Self::Tuple(items) => format!("({})", all(items)),
            Self::Range(None) => "Range(empty=True)".to_owned(),
            Self::Range(Some(range)) => {
                let ([open, close], low, high) = &**range;
                format!("Range({}, {}, '{open}{close}')", low.repr(), high.repr())
            }
            Self::Multirange(ranges) => format!("Multirange([{}])", all(ranges)),
        }
    }

    /// As JSON. `Err` names the class for which Python has no such counterpart; then the text stands there if the
    /// reader is not to be `strict`.
    pub fn json(&self, strict: bool) -> Result<Json, &'static str> {
        let unknown = |class: &'static str| if strict { Err(class) } else { Ok(Json::String(self.str())) };
        let all = |items: &[Self]| items.iter().map(|item| item.json(strict)).collect::<Result<Vec<_>, _>>();
        match self {
            Self::Null => Ok(Json::Null),
            Self::Bool(is) => Ok(Json::Bool(*is)),
            Self::Int(digits) => Ok(whole(digits)),
            // JSON has no infinity; what Python writes for it is not JSON, but that is what scripts get there.
            Self::Float(number) => Ok(Json::from(*number)),
            Self::Text(text) => Ok(Json::String(text.clone())),
            Self::Json(json) => Ok(json.clone()),
            Self::List(items) | Self::Tuple(items) => Ok(Json::Array(all(items)?)),
            Self::Odd(text, _) => Ok(Json::String(text.clone())),
            Self::Decimal(_) => unknown("Decimal"),
            Self::Bytes(_) => unknown("bytes"),
            Self::Object(object) => unknown(object.class),
            Self::Range(_) => unknown("Range"),
            Self::Multirange(_) => unknown("Multirange"),
        }
    }
}

fn whole(digits: &str) -> Json {
    digits.parse::<i64>().map(Json::from).unwrap_or_else(|_| Json::String(digits.to_owned()))
}

/// An object that prints as its text and is made from it.
fn object(class: &'static str, text: &str) -> Object {
    let made = format!("{class}('{text}')");
    Object { shown: text.to_owned(), made, class, is_in_yaml: false }
}

fn address_class(is_network: bool, text: &str) -> &'static str {
    match (is_network, text.contains(':'), text.contains('/')) {
        (true, false, _) => "IPv4Network",
        (true, true, _) => "IPv6Network",
        (false, false, false) => "IPv4Address",
        (false, true, false) => "IPv6Address",
        (false, false, true) => "IPv4Interface",
        (false, true, true) => "IPv6Interface",
    }
}

/// `\x0102`, or the older spelling with octal numbers.
fn bytes(text: &str) -> Option<Vec<u8>> {
    if let Some(digits) = text.strip_prefix("\\x") {
        let pairs = digits.as_bytes().chunks(2);
        return pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
    }
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, others)) = rest.split_first() {
        match (first, others) {
            (b'\\', [b'\\', after @ ..]) => {
                bytes.push(b'\\');
                rest = after;
            }
            (b'\\', [a, b, c, after @ ..]) => {
                let octal = [*a, *b, *c];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&octal).ok()?, 8).ok()?);
                rest = after;
            }
            (byte, others) => {
                bytes.push(*byte);
                rest = others;
            }
        }
    }
    Some(bytes)
}

/// `str(Decimal(text))`: very small numbers get an exponent.
fn decimal(text: &str) -> String {
    let (sign, number) = text.strip_prefix('-').map_or(("", text), |number| ("-", number));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if !is_digits(whole) || !is_digits(fraction) {
        return text.to_owned();
    }
    let all = format!("{whole}{fraction}");
    let digits = all.trim_start_matches('0');
    let digits = if digits.is_empty() { "0" } else { digits };
    let count = |text: &str| i64::try_from(text.len()).unwrap_or(i64::MAX);
    let left = count(digits) - count(fraction);
    if left > -6 {
        return format!("{sign}{}", number);
    }
    let (first, rest) = digits.split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    format!("{sign}{first}{point}{rest}E{:+}", left - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(kind: &Type, text: &str) -> String {
        Value::read(kind.oid(), Some(text), "UTC").str()
    }

    #[test]
    fn plain_types() {
        assert_eq!(Value::read(Type::INT4.oid(), None, "UTC").str(), "None");
        assert_eq!(shown(&Type::BOOL, "t"), "True");
        assert_eq!(shown(&Type::FLOAT8, "1e+20"), "1e+20");
        assert_eq!(shown(&Type::FLOAT8, "-Infinity"), "-inf");
        assert_eq!(shown(&Type::FLOAT8, "NaN"), "nan");
        assert_eq!(shown(&Type::NUMERIC, "1.50"), "1.50");
        assert_eq!(shown(&Type::NUMERIC, "-0.00000010"), "-1.0E-7");
        assert_eq!(shown(&Type::NUMERIC, "0.000001"), "0.000001");
        assert_eq!(shown(&Type::NUMERIC, "0.00"), "0.00");
        assert_eq!(shown(&Type::NUMERIC, "NaN"), "NaN");
        assert_eq!(shown(&Type::BYTEA, "\\x00417f27"), "b\"\\x00A\\x7f'\"");
        assert_eq!(shown(&Type::BYTEA, "a\\\\b\\001"), "b'a\\\\b\\x01'");
        assert_eq!(
            shown(&Type::JSONB, r#"{"a": [1, null, "x'y", true, 1.0]}"#),
            r#"{'a': [1, None, "x'y", True, 1.0]}"#
        );
        assert_eq!(shown(&Type::JSON, r#""text""#), "text");
        assert_eq!(shown(&Type::INET, "10.0.0.1/8"), "10.0.0.1/8");
        // A type of the user's own.
        assert_eq!(Value::read(99_999, Some("{a,b}"), "UTC").str(), "{a,b}");
    }

    #[test]
    fn json_has_no_counterpart_for_some() {
        let number = Value::read(Type::NUMERIC.oid(), Some("1.50"), "UTC");
        assert_eq!(number.json(true), Err("Decimal"));
        assert_eq!(number.json(false), Ok(Json::from("1.50")));
        let list = Value::read(Type::INT4_ARRAY.oid(), Some("{1,NULL}"), "UTC");
        assert_eq!(list.json(true), Ok(serde_json::json!([1, null])));
    }
}
