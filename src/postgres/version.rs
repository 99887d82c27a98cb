//! Versions as PostgreSQL numbers them: 150018 for 15.18, 90624 for 9.6.24; a major version alone is 150000 or 90600.

use std::path::Path;

use super::PgError;

/// The oldest major version we drive: recovery settings as ordinary parameters.
pub const OLDEST: u32 = 120_000;

/// The newest major version known here. A newer one is driven all the same, with a warning.
pub const NEWEST: u32 = 180_000;

/// The major version of a version number.
pub fn major(version: u32) -> u32 {
    if version >= 100_000 { version / 10_000 * 10_000 } else { version / 100 * 100 }
}

/// Reads the first version in a text: `postgres (PostgreSQL) 15.18 (Debian …)`, `9.6.24`, `19devel`.
pub fn parse(text: &str) -> Option<u32> {
    let number = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let mut parts = number.split('.').map(|part| {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..end].parse::<u32>().unwrap_or(0)
    });
    let mut next = || parts.next().unwrap_or(0).min(9_999);
    let (first, second, third) = (next(), next(), next());
    match first {
        0 => None,
        1..10 => Some(first * 10_000 + second.min(99) * 100 + third.min(99)),
        _ => Some(first.checked_mul(10_000)? + second),
    }
}

/// A version as people write it: `15`, `9.6` for a major, `15.18` otherwise.
pub fn show(version: u32) -> String {
    match version {
        0..100_000 if version.is_multiple_of(100) => format!("{}.{}", version / 10_000, version / 100 % 100),
        0..100_000 => format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100),
        _ if version.is_multiple_of(10_000) => (version / 10_000).to_string(),
        _ => format!("{}.{}", version / 10_000, version % 10_000),
    }
}

/// The major version of a data directory; `None` when it has no readable `PG_VERSION`.
pub fn of_data_dir(data_dir: &Path) -> Option<u32> {
    parse(&std::fs::read_to_string(data_dir.join("PG_VERSION")).ok()?)
}

/// Refuses what we cannot drive, in words that name the supported range.
pub fn check(version: u32) -> Result<(), PgError> {
    if major(version) >= OLDEST {
        return Ok(());
    }
    let (found, oldest, newest) = (show(version), show(OLDEST), show(NEWEST));
    Err(PgError::Refused(format!(
        "PostgreSQL {found} is not supported: versions {oldest} to {newest} are; upgrade the cluster first"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_shown() {
        let cases = [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", 150_018, "15.18"),
            ("postgres (PostgreSQL) 9.6.24", 90_624, "9.6.24"),
            ("9.6\n", 90_600, "9.6"),
            ("15\n", 150_000, "15"),
            ("postgres (PostgreSQL) 19devel", 190_000, "19"),
        ];
        for (text, number, shown) in cases {
            assert_eq!(parse(text), Some(number), "{text}");
            assert_eq!(show(number), shown);
        }
        for text in ["", "nonsense", "999999999999999999", "postgres"] {
            assert!(parse(text).is_none_or(|version| version < 100_000_000), "{text}");
        }
    }

    #[test]
    fn majors() {
        assert_eq!(major(150_018), 150_000);
        assert_eq!(major(90_624), 90_600);
    }

    #[test]
    fn old_versions_are_refused_with_the_range() {
        assert!(check(120_000).is_ok() && check(190_000).is_ok());
        let error = check(110_000).unwrap_err().to_string();
        assert!(error.contains("11") && error.contains("12") && error.contains("18"), "{error}");
    }
}
