//! Values of parameters as PostgreSQL reads them: two texts may mean the same.

/// The type of a parameter, as `pg_settings.vartype` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `bool`.
    Bool,
    /// `integer`.
    Integer,
    /// `real`.
    Real,
    /// `enum`.
    Enum,
    /// `string`, and whatever else there may be.
    Text,
}

impl Kind {
    /// Reads `vartype`.
    pub fn parse(text: &str) -> Self {
        match text {
            "bool" => Self::Bool,
            "integer" => Self::Integer,
            "real" => Self::Real,
            "enum" => Self::Enum,
            _ => Self::Text,
        }
    }
}

/// Whether two values mean the same. What cannot be read as its type is compared as text.
pub fn same(kind: Kind, unit: &str, one: &str, other: &str) -> bool {
    if one == other {
        return true;
    }
    let both = || Some((number(one, unit)?, number(other, unit)?));
    let both_boolean = || boolean(one).is_some() && boolean(one) == boolean(other);
    match kind {
        Kind::Bool => both_boolean(),
        Kind::Integer => both().is_some_and(|(one, other)| one.round() == other.round()),
        Kind::Real => both().is_some_and(|(one, other)| (one - other).abs() <= 1e-9 * one.abs().max(other.abs())),
        Kind::Enum => one.eq_ignore_ascii_case(other) || both_boolean(),
        Kind::Text => false,
    }
}

/// `on`, `true`, `yes`, `1` and their opposites, any case, no abbreviations.
pub fn boolean(text: &str) -> Option<bool> {
    match text.trim().to_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Some(true),
        "off" | "false" | "no" | "0" => Some(false),
        _ => None,
    }
}

/// A number with or without a unit, in the base unit (`8kB`, `ms`, or none).
pub fn number(text: &str, base: &str) -> Option<f64> {
    let (value, unit) = split_number(text.trim())?;
    if unit.is_empty() {
        return Some(value);
    }
    let (base_size, base_kind) = measure(base)?;
    let (size, kind) = measure(unit)?;
    (kind == base_kind).then(|| value * size / base_size)
}

/// The number at the beginning (decimal with exponent, hexadecimal, octal) and the rest.
fn split_number(text: &str) -> Option<(f64, &str)> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        let end = hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len());
        let value = u32::from_str_radix(&hex[..end], 16).ok()?;
        return Some((sign * f64::from(value), hex[end..].trim_start()));
    }
    let end = number_end(digits.as_bytes());
    let (value, rest) = digits.split_at(end);
    let is_octal = value.len() > 1 && value.starts_with('0') && value.bytes().all(|b| matches!(b, b'0'..=b'7'));
    let value = match is_octal {
        true => f64::from(u32::from_str_radix(value, 8).ok()?),
        false => value.parse::<f64>().ok()?,
    };
    Some((sign * value, rest.trim_start()))
}

fn number_end(bytes: &[u8]) -> usize {
    let mut end = 0;
    while end < bytes.len() {
        let is_exponent = matches!(bytes[end], b'e' | b'E')
            && bytes.get(end + 1).is_some_and(|next| next.is_ascii_digit() || matches!(next, b'+' | b'-'));
        match bytes[end] {
            b'0'..=b'9' | b'.' => end += 1,
            _ if is_exponent => end += 2,
            _ => break,
        }
    }
    end
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    Space,
    Time,
}

/// A unit in bytes or microseconds; a base unit may carry a factor.
fn measure(unit: &str) -> Option<(f64, Measure)> {
    let (factor, name) = match unit.find(|c: char| !c.is_ascii_digit())? {
        0 => (1.0, unit),
        at => (unit[..at].parse::<f64>().ok()?, &unit[at..]),
    };
    let (size, kind) = match name {
        "B" => (1.0, Measure::Space),
        "kB" => (1024.0, Measure::Space),
        "MB" => (1024.0 * 1024.0, Measure::Space),
        "GB" => (1024.0 * 1024.0 * 1024.0, Measure::Space),
        "TB" => (1024.0 * 1024.0 * 1024.0 * 1024.0, Measure::Space),
        "us" => (1.0, Measure::Time),
        "ms" => (1e3, Measure::Time),
        "s" => (1e6, Measure::Time),
        "min" => (6e7, Measure::Time),
        "h" => (3.6e9, Measure::Time),
        "d" => (8.64e10, Measure::Time),
        _ => return None,
    };
    Some((factor * size, kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_values_in_other_words() {
        let cases = [
            (Kind::Integer, "8kB", "16384", "128MB", true),
            (Kind::Integer, "8kB", "16384", "128 MB", true),
            (Kind::Integer, "8kB", "16384", "129MB", false),
            (Kind::Integer, "ms", "60000", "1min", true),
            (Kind::Integer, "s", "300", "5min", true),
            (Kind::Integer, "", "100", "0x64", true),
            (Kind::Integer, "", "8", "010", true),
            (Kind::Integer, "", "100", "1e2", true),
            (Kind::Integer, "", "100", "100.4", true),
            (Kind::Integer, "ms", "60000", "1kB", false),
            (Kind::Integer, "", "100", "abc", false),
            (Kind::Integer, "MB", "1024", "1GB", true),
            (Kind::Integer, "16MB", "4", "64MB", true),
            (Kind::Integer, "", "-1", "-1", true),
            (Kind::Real, "", "0.2", "2e-1", true),
            (Kind::Real, "ms", "2", "2000us", true),
            (Kind::Bool, "", "on", "TRUE", true),
            (Kind::Bool, "", "on", "off", false),
            (Kind::Bool, "", "on", "t", false),
            (Kind::Enum, "", "replica", "Replica", true),
            (Kind::Enum, "", "on", "true", true),
            (Kind::Text, "", "a", "A", false),
        ];
        for (kind, unit, one, other, expected) in cases {
            assert_eq!(same(kind, unit, one, other), expected, "{kind:?} {one} {other}");
            assert_eq!(same(kind, unit, other, one), expected, "{kind:?} {other} {one}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_panics(text in "\\PC{0,12}", unit in "\\PC{0,4}") {
            let _ = number(&text, &unit);
        }
    }
}
