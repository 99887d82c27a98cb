//! Sizes and times with units, as PostgreSQL reads them.

/// A size in bytes: a number with an optional `B`, `kB`, `MB`, `GB` or `TB`.
pub fn parse_bytes(text: &str) -> Option<i128> {
    parse(text, |unit| {
        Some(match unit {
            "" | "B" => 1.0,
            "kB" => 1024.0,
            "MB" => 1024.0 * 1024.0,
            "GB" => 1024.0 * 1024.0 * 1024.0,
            "TB" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
            _ => return None,
        })
    })
}

/// A time in whole seconds: a number with an optional `us`, `ms`, `s`, `min`, `h` or `d`.
pub fn parse_seconds(text: &str) -> Option<i128> {
    parse(text, |unit| {
        Some(match unit {
            "" | "s" => 1.0,
            "us" => 0.000_001,
            "ms" => 0.001,
            "min" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return None,
        })
    })
}

enum Number {
    Whole(i128),
    Real(f64),
}

fn parse(text: &str, factor: impl Fn(&str) -> Option<f64>) -> Option<i128> {
    let (number, unit) = number(text.trim_start())?;
    let factor = factor(unit.trim())?;
    let value = match number {
        Number::Whole(n) if factor >= 1.0 => return n.checked_mul(factor as i128),
        Number::Whole(n) => n as f64,
        Number::Real(x) => x,
    };
    let value = (value * factor).round_ties_even();
    (value.is_finite() && value.abs() < 1e30).then_some(value as i128)
}

/// The number at the start and what follows it. `0x` begins a hexadecimal, another leading zero an octal number.
fn number(text: &str) -> Option<(Number, &str)> {
    let (sign, unsigned) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let hex = unsigned.strip_prefix("0x").or_else(|| unsigned.strip_prefix("0X"));
    if let Some(hex) = hex.filter(|rest| rest.starts_with(|c: char| c.is_ascii_hexdigit())) {
        return whole(hex, 16, sign);
    }
    let digits = unsigned.bytes().take_while(u8::is_ascii_digit).count();
    if is_real(unsigned, digits) {
        let end = real_end(unsigned, digits);
        let value: f64 = unsigned[..end].parse().ok()?;
        return Some((Number::Real(value * f64::from(sign)), &unsigned[end..]));
    }
    let radix = if unsigned.starts_with('0') && digits > 1 { 8 } else { 10 };
    whole(unsigned, radix, sign)
}

fn whole(text: &str, radix: u32, sign: i32) -> Option<(Number, &str)> {
    let end = text.find(|c: char| !c.is_digit(radix)).unwrap_or(text.len());
    let value = i128::from_str_radix(&text[..end], radix).ok()?;
    Some((Number::Whole(value.checked_mul(i128::from(sign))?), &text[end..]))
}

fn is_real(text: &str, digits: usize) -> bool {
    let rest = &text[digits..];
    match rest.strip_prefix('.') {
        Some(fraction) => digits > 0 || fraction.starts_with(|c: char| c.is_ascii_digit()),
        None => digits > 0 && exponent_length(rest) > 0,
    }
}

fn real_end(text: &str, digits: usize) -> usize {
    let mut end = digits;
    if text[end..].starts_with('.') {
        end += 1;
        end += text[end..].bytes().take_while(u8::is_ascii_digit).count();
    }
    end + exponent_length(&text[end..])
}

/// Length of `e±N` at the start, zero when there is none.
fn exponent_length(text: &str) -> usize {
    let Some(rest) = text.strip_prefix(['e', 'E']) else { return 0 };
    let sign = usize::from(rest.starts_with(['+', '-']));
    match rest[sign..].bytes().take_while(u8::is_ascii_digit).count() {
        0 => 0,
        digits => 1 + sign + digits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("100", 100),
            (" 16kB", 16384),
            ("16 MB", 16 << 20),
            ("1.5kB", 1536),
            (".5kB", 512),
            ("1e3", 1000),
            ("1e3kB", 1_024_000),
            ("0x10", 16),
            ("010", 8),
            ("-1", -1),
            ("2TB", 2 << 40),
            ("0.5", 0),
            ("1.5", 2),
        ] {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
        }
        for text in ["", "x", "1kb", "1 K", "08", "--1", "1MB1", ".", "kB", "1e999"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(parse_seconds("20"), Some(20));
        assert_eq!(parse_seconds("20s"), Some(20));
        assert_eq!(parse_seconds("5min"), Some(300));
        assert_eq!(parse_seconds("1500ms"), Some(2));
        assert_eq!(parse_seconds("1.5h"), Some(5400));
        assert_eq!(parse_seconds("5m"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn no_text_panics(text in "\\PC{0,12}|[-+0-9.eExkMB ]{0,12}") {
            let _ = parse_bytes(&text);
            let _ = parse_seconds(&text);
        }
    }
}
