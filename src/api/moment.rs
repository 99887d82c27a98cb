//! Moments in request bodies: ISO 8601 and its near relatives, kept with the offset they were given in.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::Offset;

/// A moment with its offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Date and time of day at the offset.
    pub civil: DateTime,
    /// Distance from UTC.
    pub offset: Offset,
}

/// Why a text is not a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAMoment {
    /// Date and time are fine, but where on earth?
    NoOffset,
    /// It cannot be read, or the day does not exist.
    Unreadable,
}

impl Moment {
    /// Reads `DATE`, `DATE TIME` or `DATETTIME` and an offset (`Z`, `UTC`, `±HH`, `±HHMM`, `±HH:MM`). Dates are
    /// `2030-01-31`, `2030/01/31` or `20300131`; times `10`, `10:00`, `10:00:00`, `10:00:00.5`, `1000` or `100000`.
    pub fn parse(text: &str) -> Result<Self, NotAMoment> {
        let text = text.trim();
        let (date, rest) = date(text).ok_or(NotAMoment::Unreadable)?;
        let (time, rest) = match rest.strip_prefix(['T', 't', ' ']).map(str::trim_start) {
            Some(rest) => time(rest).ok_or(NotAMoment::Unreadable)?,
            None => (Time::midnight(), rest),
        };
        let offset = offset(rest.trim_start())?;
        Ok(Self { civil: date.to_datetime(time), offset })
    }

    /// Milliseconds since the epoch.
    pub fn epoch_ms(&self) -> i64 {
        self.offset.to_timestamp(self.civil).map_or(i64::MAX, |moment| moment.as_millisecond())
    }

    /// Seconds since the epoch, with their fraction.
    pub fn epoch_seconds(&self) -> f64 {
        let moment = self.offset.to_timestamp(self.civil);
        moment.map_or(0.0, |moment| moment.as_microsecond() as f64 / 1e6)
    }

    /// `2030-01-01T03:00:15.500000+01:00`; the fraction only when there is one.
    pub fn iso(&self) -> String {
        let micros = self.civil.subsec_nanosecond() / 1000;
        let fraction = if micros == 0 { String::new() } else { format!(".{micros:06}") };
        let seconds = self.offset.seconds();
        let (sign, seconds) = if seconds < 0 { ('-', -seconds) } else { ('+', seconds) };
        let stamp = self.civil.strftime("%Y-%m-%dT%H:%M:%S");
        format!("{stamp}{fraction}{sign}{:02}:{:02}", seconds / 3600, seconds / 60 % 60)
    }
}

/// Up to `most` digits at the start, at least `least`, as a number with what follows.
fn digits(text: &str, least: usize, most: usize) -> Option<(i32, &str)> {
    let length = text.bytes().take(most).take_while(u8::is_ascii_digit).count();
    if length < least {
        return None;
    }
    Some((text[..length].parse().ok()?, &text[length..]))
}

fn date(text: &str) -> Option<(Date, &str)> {
    let (year, rest) = digits(text, 4, 4)?;
    let (month, day, rest) = match rest.chars().next()? {
        separator @ ('-' | '/') => {
            let (month, rest) = digits(&rest[1..], 1, 2)?;
            let (day, rest) = digits(rest.strip_prefix(separator)?, 1, 2)?;
            (month, day, rest)
        }
        _ => {
            let (month, rest) = digits(rest, 2, 2)?;
            let (day, rest) = digits(rest, 2, 2)?;
            (month, day, rest)
        }
    };
    if rest.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let date = Date::new(i16::try_from(year).ok()?, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()?;
    Some((date, rest))
}

fn time(text: &str) -> Option<(Time, &str)> {
    let (hour, mut rest) = digits(text, 1, 2)?;
    let (mut minute, mut second, mut nanos) = (0, 0, 0);
    let is_compact = rest.starts_with(|c: char| c.is_ascii_digit());
    let next = |rest: &'_ str| -> Option<usize> {
        if is_compact {
            rest.starts_with(|c: char| c.is_ascii_digit()).then_some(0)
        } else {
            rest.starts_with(':').then_some(1)
        }
    };
    if let Some(skip) = next(rest) {
        (minute, rest) = digits(&rest[skip..], 2, 2)?;
        if let Some(skip) = next(rest) {
            (second, rest) = digits(&rest[skip..], 2, 2)?;
            if let Some(fraction) = rest.strip_prefix(['.', ',']) {
                let length = fraction.bytes().take_while(u8::is_ascii_digit).count();
                let micros: String = fraction.chars().take(length).chain("000000".chars()).take(6).collect();
                nanos = micros.parse::<i32>().ok()? * 1000;
                rest = &fraction[length..];
            }
        }
    }
    let small = |n: i32| i8::try_from(n).ok();
    Some((Time::new(small(hour)?, small(minute)?, small(second)?, nanos).ok()?, rest))
}

fn offset(text: &str) -> Result<Offset, NotAMoment> {
    if matches!(text, "Z" | "z" | "UTC" | "GMT") {
        return Ok(Offset::UTC);
    }
    let sign = match text.chars().next() {
        None => return Err(NotAMoment::NoOffset),
        Some('+') => 1,
        Some('-') => -1,
        // A zone name that is no offset leaves open which moment is meant.
        Some(c) if c.is_ascii_alphabetic() && text.len() <= 5 => return Err(NotAMoment::NoOffset),
        Some(_) => return Err(NotAMoment::Unreadable),
    };
    let distance = || {
        let (hours, rest) = digits(&text[1..], 1, 2)?;
        let rest = rest.strip_prefix(':').unwrap_or(rest);
        let (minutes, rest) = if rest.is_empty() { (0, rest) } else { digits(rest, 2, 2)? };
        (rest.is_empty() && minutes < 60 && hours < 24).then_some(hours * 3600 + minutes * 60)
    };
    let seconds = distance().ok_or(NotAMoment::Unreadable)?;
    Offset::from_seconds(sign * seconds).map_err(|_| NotAMoment::Unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_read() {
        for (text, iso) in [
            ("2030-01-01T03:00+02:00", "2030-01-01T03:00:00+02:00"),
            ("2030-01-01T03:00:15.5Z", "2030-01-01T03:00:15.500000+00:00"),
            ("2030-01-01 03:00:00 UTC", "2030-01-01T03:00:00+00:00"),
            ("2030-01-01T03:00+0200", "2030-01-01T03:00:00+02:00"),
            ("2030-01-01T03:00+02", "2030-01-01T03:00:00+02:00"),
            ("2030-01-01T03:00-3", "2030-01-01T03:00:00-03:00"),
            ("20300101T0300Z", "2030-01-01T03:00:00+00:00"),
            ("2030/01/02 10:00+05:30", "2030-01-02T10:00:00+05:30"),
            ("2026-11-20 14:54:31.999691+00:00", "2026-11-20T14:54:31.999691+00:00"),
        ] {
            assert_eq!(Moment::parse(text).map(|moment| moment.iso()), Ok(iso.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_not() {
        for text in ["2030-01-01T03:00", "2030-01-01", "2030-01-01T03:00 EST"] {
            assert_eq!(Moment::parse(text), Err(NotAMoment::NoOffset), "{text}");
        }
        for text in
            ["", "bogus", "2030-13-01T00:00Z", "2030-02-30T00:00Z", "2030-01-01T25:00Z", "1893456000", "2030-01"]
        {
            assert_eq!(Moment::parse(text), Err(NotAMoment::Unreadable), "{text}");
        }
    }

    #[test]
    fn moments_on_the_line() {
        let moment = Moment::parse("1970-01-01T01:00:00.25+01:00").unwrap();
        assert_eq!(moment.epoch_ms(), 250);
        assert!((moment.epoch_seconds() - 0.25).abs() < 1e-9);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn no_text_panics(text in "\\PC{0,30}|[-0-9T:+Z ./]{0,30}") {
            if let Ok(moment) = Moment::parse(&text) {
                prop_assert_eq!(Moment::parse(&moment.iso()).map(|again| again.iso()), Ok(moment.iso()));
            }
        }
    }
}
