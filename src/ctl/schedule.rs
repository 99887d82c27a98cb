//! The moment an operator gives with `--scheduled`: read leniently, sent and shown in one exact form.
//!
//! Patroni's tool takes whatever a very lenient date parser takes, so scripts in the field contain all sorts of
//! spellings. They are read here as there (the grammar is in `schedule/words.rs`); what had to be guessed is kept in
//! [`Schedule::guesses`], so that a caller who wants to may refuse instead of guessing. Nothing here reads a clock or
//! the environment: the present moment and its time zone are passed in.

use std::fmt;

use jiff::Zoned;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::Offset;

mod words;

/// A moment to come, as it is sent to a member: local time with the offset that was given, or else the local one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Date and time of day at that offset.
    pub civil: DateTime,
    /// Distance from UTC.
    pub offset: Offset,
    /// What the text did not say and was made up for.
    pub guesses: Vec<Guess>,
}

/// Something in a timestamp that is more likely a typing error than meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guess {
    /// A time zone name that is not known, and therefore was ignored.
    Zone(String),
    /// Only a number: it became a day of this month.
    Day(i16),
}

impl fmt::Display for Guess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zone(name) => write!(f, "the time zone \"{name}\" is not known; give the offset, as in +02:00"),
            Self::Day(day) => write!(f, "it names only the day {day} of this month; give date and time"),
        }
    }
}

/// The text is not a moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Unable to parse scheduled timestamp ({text}). It should be in an unambiguous format (e.g. ISO 8601)")]
pub struct NotAMoment {
    /// What was given.
    pub text: String,
}

impl Schedule {
    /// Reads `text`; `now` and the empty text mean at once. What is missing is taken from midnight of `now`'s day, a
    /// missing offset from `now`'s time zone at the resulting date.
    ///
    /// Whether the moment is in the past is not looked at: the member that gets the request says so.
    pub fn parse(text: &str, now: &Zoned) -> Result<Option<Self>, NotAMoment> {
        if text.is_empty() || text == "now" {
            return Ok(None);
        }
        words::read(text, now).map(Some).ok_or_else(|| NotAMoment { text: text.to_owned() })
    }

    /// `2030-01-01T03:00:15.500000+01:00`, the fraction only when there is one.
    pub fn iso(&self) -> String {
        self.written('T')
    }

    /// As [`Schedule::iso`] with a blank instead of the `T`; one question shows it so.
    pub fn spaced(&self) -> String {
        self.written(' ')
    }

    fn written(&self, separator: char) -> String {
        let (date, time): (Date, Time) = (self.civil.date(), self.civil.time());
        let micros = time.subsec_nanosecond() / 1000;
        let fraction = if micros == 0 { String::new() } else { format!(".{micros:06}") };
        let seconds = self.offset.seconds();
        let (sign, seconds) = if seconds < 0 { ('-', -seconds) } else { ('+', seconds) };
        format!(
            "{:04}-{:02}-{:02}{separator}{:02}:{:02}:{:02}{fraction}{sign}{:02}:{:02}",
            date.year(),
            date.month(),
            date.day(),
            time.hour(),
            time.minute(),
            time.second(),
            seconds / 3600,
            seconds / 60 % 60,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::tz::TimeZone;
    use serde_json::Value;

    fn day_of_the_recording(zone: &str) -> Zoned {
        let zone = TimeZone::posix(zone).unwrap();
        "2026-11-20T15:04:05".parse::<DateTime>().unwrap().to_zoned(zone).unwrap()
    }

    fn compare_with_the_recording(table: &str, zone: &str) {
        let table: Value = serde_json::from_str(table).unwrap();
        let now = day_of_the_recording(zone);
        let cases = table["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 39);
        for case in cases {
            let input = case["input"].as_str().unwrap();
            match (Schedule::parse(input, &now), case.get("error")) {
                (Err(error), Some(expected)) => assert_eq!(&error.to_string(), expected),
                (Ok(at), None) => assert_eq!(
                    at.map(|at| Value::from(at.iso())).unwrap_or(Value::Null),
                    case["result"],
                    "{input:?} in {zone}"
                ),
                (got, expected) => panic!("{input:?} in {zone}: {got:?} instead of {expected:?}"),
            }
        }
    }

    #[test]
    fn reads_what_patroni_reads() {
        compare_with_the_recording(include_str!("../../tests/fixtures/changes/scheduled_parse_UTC.json"), "UTC0");
        compare_with_the_recording(
            include_str!("../../tests/fixtures/changes/scheduled_parse_Europe_Berlin.json"),
            "CET-1CEST,M3.5.0,M10.5.0/3",
        );
    }

    #[test]
    fn the_local_offset_is_that_of_the_date_meant() {
        let now = day_of_the_recording("CET-1CEST,M3.5.0,M10.5.0/3");
        let at = |text| Schedule::parse(text, &now).unwrap().unwrap().iso();
        assert_eq!(at("2030-07-01T03:00"), "2030-07-01T03:00:00+02:00");
        assert_eq!(at("2030-12-01T03:00"), "2030-12-01T03:00:00+01:00");
        // An hour that the clocks skip is taken at the offset before the change, so it comes out an hour later.
        assert_eq!(at("2030-03-31T02:30"), "2030-03-31T03:30:00+02:00");
    }

    #[test]
    fn guesses_are_told() {
        let now = day_of_the_recording("UTC0");
        let guesses = |text| Schedule::parse(text, &now).unwrap().unwrap().guesses;
        assert_eq!(guesses("2030-01-01T03:00 EST"), [Guess::Zone("EST".into())]);
        assert_eq!(guesses("30"), [Guess::Day(30)]);
        assert_eq!(guesses("T10"), [Guess::Day(10)]);
        assert!(guesses("2030-01-01T03:00").is_empty());
        assert!(guesses("23:30").is_empty());
        assert!(guesses("Monday").is_empty());
    }

    #[test]
    fn the_form_with_a_blank() {
        let now = day_of_the_recording("UTC0");
        let at = Schedule::parse("2030-05-05T05:05", &now).unwrap().unwrap();
        assert_eq!(at.spaced(), "2030-05-05 05:05:00+00:00");
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn what_is_written_is_read_back(
            year in 1990i16..2100, month in 1i8..13, day in 1i8..29, hour in 0i8..24, minute in 0i8..60,
            second in 0i8..60, micros in 0i32..1_000_000, quarter in -48i32..57,
        ) {
            let at = Schedule {
                civil: jiff::civil::date(year, month, day).at(hour, minute, second, micros * 1000),
                offset: Offset::from_seconds(quarter * 900).unwrap(),
                guesses: Vec::new(),
            };
            let now = day_of_the_recording("UTC0");
            proptest::prop_assert_eq!(Schedule::parse(&at.iso(), &now).unwrap(), Some(at.clone()));
            proptest::prop_assert_eq!(Schedule::parse(&at.spaced(), &now).unwrap(), Some(at));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,24}", digits in "[0-9T:+. /-]{0,24}") {
            let now = day_of_the_recording("UTC0");
            let _ = Schedule::parse(&text, &now);
            let _ = Schedule::parse(&digits, &now);
        }
    }
}
