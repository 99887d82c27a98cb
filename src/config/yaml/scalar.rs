//! What a plain scalar means in YAML 1.1, by PyYAML's resolver.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

/// The type a plain scalar resolves to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Bool,
    Int,
    Float,
    Timestamp,
    Merge,
    Value,
    Text,
}

const INT: &str = "^(?:[-+]?0b[01_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+\
                   |[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+)$";
const FLOAT: &str = r"^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$";
const TIMESTAMP: &str = r"^(?:[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?(?:[ \t]*(?:Z|[-+][0-9]{1,2}(?::[0-9]{2})?))?)$";

static NUMBERS: LazyLock<[(Kind, Regex); 3]> = LazyLock::new(|| {
    let compile = |pattern| Regex::new(pattern).expect("the pattern is a constant and compiles");
    [(Kind::Float, compile(FLOAT)), (Kind::Int, compile(INT)), (Kind::Timestamp, compile(TIMESTAMP))]
});

/// What a plain scalar of this text is.
pub(super) fn resolve(text: &str) -> Kind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Kind::Null,
        "<<" => return Kind::Merge,
        "=" => return Kind::Value,
        _ if boolean(text).is_some() => return Kind::Bool,
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.')) {
        return Kind::Text;
    }
    NUMBERS.iter().find(|(_, pattern)| pattern.is_match(text)).map_or(Kind::Text, |(kind, _)| *kind)
}

/// `yes`, `True`, `OFF`, …; mixed case and the single letters are text.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Some(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

/// Reads an integer in any of the notations of YAML 1.1; one that does not fit 64 bits becomes the nearest float.
pub(super) fn integer(text: &str) -> Option<Value> {
    let (negative, digits) = unsigned(text);
    if digits == "0" {
        return Some(Value::from(0));
    }
    let magnitude = if let Some(rest) = digits.strip_prefix("0b") {
        in_radix(rest, 2)?
    } else if let Some(rest) = digits.strip_prefix("0x") {
        in_radix(rest, 16)?
    } else if let Some(rest) = digits.strip_prefix('0') {
        in_radix(rest, 8)?
    } else if digits.contains(':') {
        digits.split(':').try_fold(0.0, |sum, part| Some(sum * 60.0 + in_radix(part, 10)?))?
    } else {
        if let Ok(number) = digits.parse::<u64>() {
            return Some(signed(number, negative));
        }
        digits.parse::<f64>().ok()?
    };
    if magnitude < 9e15 {
        return Some(signed(magnitude as u64, negative));
    }
    exact(&digits).map(|number| signed(number, negative)).or_else(|| float_value(magnitude, negative))
}

/// Reads a float; `None` for the non-finite ones, which JSON cannot hold.
pub(super) fn float(text: &str) -> Option<Value> {
    let (negative, digits) = unsigned(text);
    let magnitude = if digits.contains(':') {
        digits.split(':').try_fold(0.0, |sum, part| Some(sum * 60.0 + part.parse::<f64>().ok()?))?
    } else {
        digits.parse::<f64>().ok()?
    };
    float_value(magnitude, negative)
}

/// A float as Python's `repr` spells it.
pub(super) fn float_repr(number: f64) -> String {
    if !number.is_finite() {
        return if number.is_nan() {
            "nan"
        } else if number > 0.0 {
            "inf"
        } else {
            "-inf"
        }
        .to_owned();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = number.to_string();
        return if plain.contains('.') { plain } else { format!("{plain}.0") };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}

fn unsigned(text: &str) -> (bool, String) {
    let text = text.replace('_', "").to_lowercase();
    match text.strip_prefix('-') {
        Some(rest) => (true, rest.to_owned()),
        None => (false, text.strip_prefix('+').unwrap_or(&text).to_owned()),
    }
}

fn in_radix(digits: &str, radix: u32) -> Option<f64> {
    if digits.is_empty() {
        // `00` has a prefix and one digit more; `0b_` has nothing at all and is no number.
        return None;
    }
    digits.chars().try_fold(0.0, |sum, c| Some(sum * f64::from(radix) + f64::from(c.to_digit(radix)?)))
}

/// The same digits without going through a float, for what is too large for one to be exact.
fn exact(digits: &str) -> Option<u64> {
    if let Some(rest) = digits.strip_prefix("0b") {
        u64::from_str_radix(rest, 2).ok()
    } else if let Some(rest) = digits.strip_prefix("0x") {
        u64::from_str_radix(rest, 16).ok()
    } else if let Some(rest) = digits.strip_prefix('0') {
        u64::from_str_radix(rest, 8).ok()
    } else {
        digits.parse().ok()
    }
}

fn signed(number: u64, negative: bool) -> Value {
    if !negative {
        return Value::from(number);
    }
    match 0i64.checked_sub_unsigned(number) {
        Some(number) => Value::from(number),
        None => Value::from(-(number as f64)),
    }
}

fn float_value(magnitude: f64, negative: bool) -> Option<Value> {
    let number = if negative { -magnitude } else { magnitude };
    serde_json::Number::from_f64(number).map(Value::Number)
}
