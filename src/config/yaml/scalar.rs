//! What a plain scalar means in YAML 1.1, by PyYAML's resolver.

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

/// The notations of numbers and moments, read by hand: a compiled pattern would hold more memory than everything else
/// in a configuration, and most of an agent's life is spent not reading one.
struct Scan<'a>(&'a [u8]);

impl Scan<'_> {
    fn signed(text: &str) -> Scan<'_> {
        let bytes = text.as_bytes();
        Scan(bytes.strip_prefix(b"-").or_else(|| bytes.strip_prefix(b"+")).unwrap_or(bytes))
    }

    fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes a byte if it is one of these.
    fn one(&mut self, wanted: impl Fn(u8) -> bool) -> bool {
        let Some((_, rest)) = self.0.split_first().filter(|(first, _)| wanted(**first)) else { return false };
        self.0 = rest;
        true
    }

    /// Takes as many of these as there are, at most so many.
    fn run(&mut self, most: usize, wanted: impl Fn(u8) -> bool) -> usize {
        (0..most).take_while(|_| self.one(&wanted)).count()
    }

    /// Takes `:59` again and again.
    fn sexagesimal(&mut self) -> usize {
        let mut groups = 0;
        while let [b':', first, rest @ ..] = self.0
            && first.is_ascii_digit()
        {
            let two = *first <= b'5' && rest.first().is_some_and(u8::is_ascii_digit);
            self.0 = if two { &rest[1..] } else { rest };
            groups += 1;
        }
        groups
    }

    /// Nothing or an exponent with its sign, and nothing more.
    fn ends_in_exponent(mut self) -> bool {
        if self.one(|byte| matches!(byte, b'e' | b'E')) && !(self.one(is_sign) && self.run(usize::MAX, is_digit) > 0) {
            return false;
        }
        self.is_over()
    }
}

fn is_sign(byte: u8) -> bool {
    matches!(byte, b'-' | b'+')
}

fn is_digit(byte: u8) -> bool {
    byte.is_ascii_digit()
}

fn is_digit_or_gap(byte: u8) -> bool {
    byte.is_ascii_digit() || byte == b'_'
}

fn is_int(text: &str) -> bool {
    let mut scan = Scan::signed(text);
    let all = |digits: &[u8], wanted: fn(u8) -> bool| !digits.is_empty() && digits.iter().all(|byte| wanted(*byte));
    match scan.0 {
        [b'0'] => true,
        [b'0', b'b', digits @ ..] => all(digits, |byte| matches!(byte, b'0' | b'1' | b'_')),
        [b'0', b'x', digits @ ..] => all(digits, |byte| byte.is_ascii_hexdigit() || byte == b'_'),
        [b'0', digits @ ..] => all(digits, |byte| matches!(byte, b'0'..=b'7' | b'_')),
        [b'1'..=b'9', ..] => {
            scan.run(usize::MAX, is_digit_or_gap);
            scan.sexagesimal();
            scan.is_over()
        }
        _ => false,
    }
}

fn is_float(text: &str) -> bool {
    let mut scan = Scan::signed(text);
    match scan.0 {
        b".inf" | b".Inf" | b".INF" => return true,
        b".nan" | b".NaN" | b".NAN" => return text.starts_with('.'),
        // A fraction without anything before it has no sign.
        [b'.', digit, ..] if text.starts_with('.') && digit.is_ascii_digit() => {}
        [digit, ..] if digit.is_ascii_digit() => {}
        _ => return false,
    }
    scan.run(usize::MAX, is_digit_or_gap);
    let groups = scan.sexagesimal();
    if !scan.one(|byte| byte == b'.') {
        return false;
    }
    scan.run(usize::MAX, is_digit_or_gap);
    if groups > 0 { scan.is_over() } else { scan.ends_in_exponent() }
}

fn is_timestamp(text: &str) -> bool {
    let mut scan = Scan(text.as_bytes());
    let year = scan.run(4, is_digit) == 4 && scan.one(|byte| byte == b'-');
    let month = scan.run(2, is_digit);
    let dash = scan.one(|byte| byte == b'-');
    let day = scan.run(2, is_digit);
    if !(year && dash && month > 0 && day > 0) {
        return false;
    }
    if scan.is_over() {
        return month == 2 && day == 2;
    }
    let is_blank = |byte| matches!(byte, b' ' | b'\t');
    if !scan.one(|byte| matches!(byte, b'T' | b't')) && scan.run(usize::MAX, is_blank) == 0 {
        return false;
    }
    let colon = |scan: &mut Scan<'_>| scan.one(|byte| byte == b':');
    let hour = scan.run(2, is_digit) > 0 && colon(&mut scan);
    if !(hour && scan.run(2, is_digit) == 2 && colon(&mut scan) && scan.run(2, is_digit) == 2) {
        return false;
    }
    if scan.one(|byte| byte == b'.') {
        scan.run(usize::MAX, is_digit);
    }
    if scan.is_over() {
        return true;
    }
    scan.run(usize::MAX, is_blank);
    let offset = |scan: &mut Scan<'_>| {
        scan.one(is_sign) && scan.run(2, is_digit) > 0 && (!colon(scan) || scan.run(2, is_digit) == 2)
    };
    (scan.one(|byte| byte == b'Z') || offset(&mut scan)) && scan.is_over()
}

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
    if is_float(text) {
        Kind::Float
    } else if is_int(text) {
        Kind::Int
    } else if is_timestamp(text) {
        Kind::Timestamp
    } else {
        Kind::Text
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use regex_lite::Regex;

    const INT: &str = "^(?:[-+]?0b[01_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+\
                       |[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+)$";
    const FLOAT: &str = r"^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$";
    const TIMESTAMP: &str = r"^(?:[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?(?:[ \t]*(?:Z|[-+][0-9]{1,2}(?::[0-9]{2})?))?)$";

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

        /// PyYAML's own patterns are the measure.
        #[test]
        fn numbers_and_moments_are_told_as_the_patterns_tell_them(
            texts in (
                "[-+]?[0-9]?[b0-7x_.:eE+-]{0,7}",
                "[-+]?0[bx]?[0-9a-fA-F_]{0,4}",
                "[-+]?[0-9_]{1,3}(:[0-7]?[0-9]){0,3}(\\.[0-9_]{0,2})?([eE][-+]?[0-9]{0,2})?",
                "[-+]?\\.[0-9]{0,2}_?([eE][-+]?[0-9]{0,2})?(inf|Inf|INF|nan|NaN|NAN)?",
                "[0-9]{4}-[0-9]{1,3}-[0-9]{1,2}(([Tt]|[ \t]{0,2})[0-9]{1,2}:[0-9]{1,2}:[0-9]{2}(\\.[0-9]{0,2})?[ ]{0,2}(Z|[-+][0-9]{1,3}(:[0-9]{1,2})?)?)?",
            ),
        ) {
            let patterns = [FLOAT, INT, TIMESTAMP].map(|pattern| Regex::new(pattern).unwrap());
            for text in [texts.0, texts.1, texts.2, texts.3, texts.4] {
                let told = [is_float(&text), is_int(&text), is_timestamp(&text)];
                prop_assert_eq!(told, patterns.each_ref().map(|pattern| pattern.is_match(&text)), "{:?}", text);
            }
        }
    }
}
