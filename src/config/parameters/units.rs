//! Numbers with units, booleans, and when two values of a PostgreSQL parameter are the same.

use crate::cluster::tags::as_boolish;

/// How many of the smallest unit of its family a unit is.
const SPACE: [(&str, f64); 5] =
    [("B", 1.0), ("kB", 1024.0), ("MB", 1_048_576.0), ("GB", 1_073_741_824.0), ("TB", 1_099_511_627_776.0)];
const TIME: [(&str, f64); 6] = [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("min", 6e7), ("h", 3.6e9), ("d", 8.64e10)];

/// Reads an integer: decimal, `0x…`, leading zero for octal, decimals rounded; with a unit of the family of
/// `base_unit` (`kB`, `8kB`, `ms`, …) converted to it. `None` when it is none or the unit does not fit.
pub fn integer(value: &str, base_unit: Option<&str>) -> Option<i64> {
    let value = value.trim();
    let (number, unit) = match leading_integer(value) {
        Some((number, rest)) if !rest.starts_with(['.', 'e', 'E']) => (number, rest),
        _ => leading_float(value)?,
    };
    to_integer(in_base(number, unit, base_unit)?)
}

/// Reads a number that may have decimals, units as for [`integer`].
pub fn real(value: &str, base_unit: Option<&str>) -> Option<f64> {
    let (number, unit) = leading_float(value.trim())?;
    in_base(number, unit, base_unit)
}

/// `on/true/yes/1` and `off/false/no/0` in any case; no abbreviations.
pub fn boolean(value: &str) -> Option<bool> {
    as_boolish(&serde_json::Value::from(value))
}

/// Whether a wanted value is what `pg_settings` shows (`setting`, in `unit`). `vartype` is that view's column.
pub fn is_same(vartype: &str, unit: Option<&str>, setting: &str, wanted: &str) -> bool {
    let both = |one: Option<f64>, other: Option<f64>| one.is_some() && one == other;
    match vartype {
        "bool" => boolean(setting).is_some() && boolean(setting) == boolean(wanted),
        "integer" => integer(setting, None).is_some() && integer(setting, None) == integer(wanted, unit),
        "real" => both(real(setting, None), real(wanted, unit)),
        "enum" => {
            let as_flags = (boolean(setting), boolean(wanted));
            setting.eq_ignore_ascii_case(wanted) || (as_flags.0.is_some() && as_flags.0 == as_flags.1)
        }
        _ => setting == wanted,
    }
}

/// A setting of `pg_settings` with the largest unit that keeps it whole, as `SHOW` prints it (`16384` of `8kB` is
/// `128MB`). Zero and negative values have a meaning of their own and stay bare.
pub fn human(setting: &str, unit: Option<&str>) -> String {
    let (Some(number), Some(unit)) = (real(setting, None), unit) else { return setting.to_owned() };
    let (factor, name) = base(unit);
    let Some((family, size)) = family(name) else { return setting.to_owned() };
    if number <= 0.0 {
        return setting.to_owned();
    }
    let amount = number * factor * size;
    let fits = family.iter().rev().find(|(_, size)| (amount / size).fract() == 0.0 || *size <= 1.0);
    fits.map_or_else(|| setting.to_owned(), |(name, size)| format!("{}{name}", amount / size))
}

/// Whole numbers are cut off like C's `strtol` does; the rest of the text is the unit.
fn leading_integer(value: &str) -> Option<(f64, &str)> {
    let (sign, digits) = match value.as_bytes().first()? {
        b'-' => (-1.0, &value[1..]),
        b'+' => (1.0, &value[1..]),
        _ => (1.0, value),
    };
    let (radix, digits) = if let Some(rest) = digits.strip_prefix("0x").filter(|rest| starts_with_digit(rest, 16)) {
        (16, rest)
    } else if let Some(rest) = digits.strip_prefix('0').filter(|rest| starts_with_digit(rest, 8)) {
        (8, rest)
    } else {
        (10, digits)
    };
    let length = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    if length == 0 {
        return None;
    }
    let number =
        digits[..length].chars().fold(0.0, |sum, c| sum * f64::from(radix) + f64::from(c.to_digit(radix).unwrap_or(0)));
    Some((sign * number, &digits[length..]))
}

fn starts_with_digit(text: &str, radix: u32) -> bool {
    text.starts_with(|c: char| c.is_digit(radix))
}

fn leading_float(value: &str) -> Option<(f64, &str)> {
    let bytes = value.as_bytes();
    let mut end = usize::from(matches!(bytes.first(), Some(b'-' | b'+')));
    let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let whole = digits(end);
    end += whole;
    let mut fraction = 0;
    if bytes.get(end) == Some(&b'.') {
        fraction = digits(end + 1);
        if whole + fraction > 0 {
            end += 1 + fraction;
        }
    }
    if whole + fraction == 0 {
        return None;
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'-' | b'+')));
        let exponent = digits((end + 1 + sign).min(bytes.len()));
        if exponent > 0 {
            end += 1 + sign + exponent;
        }
    }
    let number = value[..end].parse::<f64>().ok()?;
    Some((number, &value[end..]))
}

fn in_base(number: f64, unit: &str, base_unit: Option<&str>) -> Option<f64> {
    let unit = unit.trim();
    if unit.is_empty() {
        return Some(number);
    }
    let (factor, base_name) = base(base_unit?);
    let (units, base_size) = family(base_name)?;
    let index = units.iter().position(|(name, _)| *name == unit)?;
    let value = number * units[index].1 / base_size / factor;
    Some(match index.checked_sub(1) {
        // Half a megabyte is 512 kB, but a third is not more exact than whole kilobytes.
        Some(smaller) => {
            let step = units[smaller].1 / base_size;
            (value / step).round_ties_even() * step
        }
        None => value,
    })
}

/// `8kB` is eight of `kB`.
fn base(unit: &str) -> (f64, &str) {
    leading_integer(unit).unwrap_or((1.0, unit))
}

fn family(unit: &str) -> Option<(&'static [(&'static str, f64)], f64)> {
    [&SPACE[..], &TIME[..]]
        .into_iter()
        .find_map(|units| units.iter().find(|(name, _)| *name == unit).map(|(_, size)| (units, *size)))
}

fn to_integer(number: f64) -> Option<i64> {
    let rounded = number.round_ties_even();
    // The bounds are powers of two, exact as floats.
    (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&rounded).then_some(rounded as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn integers_are_read_as_patroni_reads_them() {
        let cases = [
            ("10", None, Some(10)),
            (" -5 ", None, Some(-5)),
            ("0x1F", None, Some(31)),
            ("010", None, Some(8)),
            ("08", None, Some(8)),
            ("1.5", None, Some(2)),
            ("2.5", None, Some(2)),
            ("1e3", None, Some(1000)),
            ("abc", None, None),
            ("", None, None),
            ("10 apples", None, None),
            ("1MB", None, None),
            ("1MB", Some("kB"), Some(1024)),
            ("128MB", Some("8kB"), Some(16384)),
            ("1GB", Some("16MB"), Some(64)),
            ("30min", Some("s"), Some(1800)),
            ("1500us", Some("ms"), Some(2)),
            ("1 d", Some("min"), Some(1440)),
            ("1mb", Some("kB"), None),
            ("1s", Some("kB"), None),
            ("16 MB", Some("MB"), Some(16)),
            ("1.5kB", Some("B"), Some(1536)),
            (".5kB", Some("B"), Some(512)),
            ("2TB", Some("B"), Some(2 << 40)),
            ("1kb", Some("B"), None),
            ("1MB1", Some("B"), None),
            ("1e999", Some("B"), None),
            ("1500ms", Some("s"), Some(2)),
            ("1.5h", Some("s"), Some(5400)),
            ("5m", Some("s"), None),
            ("99999999999999999999", None, None),
        ];
        for (text, unit, expected) in cases {
            assert_eq!(integer(text, unit), expected, "{text:?} in {unit:?}");
        }
    }

    #[test]
    fn values_are_compared_by_type() {
        assert!(is_same("bool", None, "on", "true"));
        assert!(!is_same("bool", None, "on", "maybe"));
        assert!(is_same("integer", Some("8kB"), "16384", "128MB"));
        assert!(is_same("integer", None, "100", "0x64"));
        assert!(!is_same("integer", Some("kB"), "4096", "4MiB"));
        assert!(is_same("real", Some("ms"), "2", "2000us"));
        assert!(is_same("enum", None, "replica", "Replica"));
        assert!(is_same("enum", None, "on", "True"));
        assert!(!is_same("string", None, "a", "A"));
    }

    #[test]
    fn settings_are_shown_with_units() {
        assert_eq!(human("16384", Some("8kB")), "128MB");
        assert_eq!(human("16385", Some("8kB")), "131080kB");
        assert_eq!(human("0", Some("8kB")), "0");
        assert_eq!(human("-1", Some("ms")), "-1");
        assert_eq!(human("300", Some("s")), "5min");
        assert_eq!(human("90", Some("s")), "90s");
        assert_eq!(human("100", None), "100");
        assert_eq!(human("on", None), "on");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_shown_is_the_same_setting(number in 1i64..1_000_000_000, unit in prop::sample::select(
            vec!["B", "kB", "8kB", "16MB", "MB", "us", "ms", "s", "min"]))
        {
            let setting = number.to_string();
            prop_assert!(is_same("integer", Some(unit), &setting, &human(&setting, Some(unit))));
        }

        #[test]
        fn no_text_panics(text in ".{0,20}", number in "[-+0-9xeE. kMGBmsh]{0,12}") {
            for text in [text, number] {
                for unit in [None, Some("8kB"), Some("s"), Some("?")] {
                    let _ = (integer(&text, unit), real(&text, unit), human(&text, unit));
                }
            }
        }
    }
}
