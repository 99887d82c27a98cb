//! The grammar of free-form moments: a text is cut into words, each word says one thing, and what was said is put
//! together at the end. The rules follow the date parser that Patroni uses, as far as its forms are met in practice;
//! spans such as `10h36m` are refused.

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::Offset;
use jiff::{Span, Zoned};

use super::{Guess, Schedule};

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

const WEEKDAYS: [(&str, Weekday); 7] = [
    ("monday", Weekday::Monday),
    ("tuesday", Weekday::Tuesday),
    ("wednesday", Weekday::Wednesday),
    ("thursday", Weekday::Thursday),
    ("friday", Weekday::Friday),
    ("saturday", Weekday::Saturday),
    ("sunday", Weekday::Sunday),
];

/// Words that may stand anywhere and say nothing.
const FILLERS: [&str; 18] =
    [" ", ".", ",", ";", "-", "/", "'", "at", "on", "and", "ad", "m", "t", "of", "st", "nd", "rd", "th"];

/// Reads a whole text, or says that it is not a moment.
pub(super) fn read(text: &str, now: &Zoned) -> Option<Schedule> {
    let words = split(text);
    let mut said = Said::default();
    let mut at = 0;
    while at < words.len() {
        at += said.take(&words[at..], now)?;
    }
    said.complete(now)
}

/// Cuts a text into runs of digits (with one fraction), runs of letters, single blanks and other characters.
fn split(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut words = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let start = at;
        let run = |from: usize, of: fn(&char) -> bool| chars[from..].iter().take_while(|c| of(c)).count();
        if chars[at].is_ascii_digit() {
            at += run(at, char::is_ascii_digit);
            let fraction = |at: usize| {
                let mark = chars.get(at).is_some_and(|c| *c == '.' || *c == ',');
                // A second mark makes it a date (`01.02.2030`), not a fraction.
                let digits = if mark { run(at + 1, char::is_ascii_digit) } else { 0 };
                (digits > 0 && chars.get(at + 1 + digits) != Some(&'.')).then_some(digits)
            };
            let is_after_mark = start > 0 && chars[start - 1] == '.';
            if let Some(digits) = fraction(at).filter(|_| !is_after_mark) {
                at += 1 + digits;
            }
        } else if chars[at].is_alphabetic() {
            at += run(at, |c| c.is_alphabetic());
        } else {
            at += 1;
        }
        let word: String = chars[start..at].iter().collect();
        words.push(match chars[start] {
            c if c.is_ascii_digit() => word.replace(',', "."),
            c if c.is_whitespace() => " ".to_owned(),
            _ => word,
        });
    }
    words
}

fn is_filler(word: &str) -> bool {
    FILLERS.contains(&word.to_lowercase().as_str())
}

fn month(word: &str) -> Option<i32> {
    let word = word.to_lowercase();
    let found =
        MONTHS.iter().position(|name| *name == word || name[..3] == word || (word == "sept" && *name == "september"));
    found.and_then(|index| i32::try_from(index + 1).ok())
}

fn weekday(word: &str) -> Option<Weekday> {
    let word = word.to_lowercase();
    WEEKDAYS.iter().find(|(name, _)| *name == word || name[..3] == word).map(|(_, day)| *day)
}

fn is_afternoon(word: &str) -> Option<bool> {
    match word.to_lowercase().as_str() {
        "am" | "a" => Some(false),
        "pm" | "p" => Some(true),
        _ => None,
    }
}

/// One number of a date, with what its spelling tells about it.
#[derive(Clone, Copy, Debug)]
struct Part {
    value: i32,
    is_month: bool,
    is_year: bool,
}

/// What the words have said so far.
#[derive(Debug, Default)]
struct Said {
    date: Vec<Part>,
    weekday: Option<Weekday>,
    hour: Option<i8>,
    minute: Option<i8>,
    second: Option<i8>,
    nanosecond: i32,
    is_twelve_hour: bool,
    offset_seconds: Option<i32>,
    unknown_zone: Option<String>,
}

impl Said {
    /// Takes one thing from the front; how many words that was.
    fn take(&mut self, words: &[String], now: &Zoned) -> Option<usize> {
        let word = words[0].as_str();
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            return self.take_number(words);
        }
        if let Some(day) = weekday(word) {
            self.weekday = Some(day);
            return Some(1);
        }
        if let Some(month) = month(word) {
            return self.take_month(month, words);
        }
        if let Some(afternoon) = is_afternoon(word) {
            self.twelve_hours(afternoon)?;
            return Some(1);
        }
        if self.hour.is_some() && self.offset_seconds.is_none() && self.unknown_zone.is_none() && is_zone(word) {
            return self.take_zone(words, now);
        }
        if self.hour.is_some() && (word == "+" || word == "-") {
            return self.take_offset(words);
        }
        is_filler(word).then_some(1)
    }

    fn take_number(&mut self, words: &[String]) -> Option<usize> {
        let word = words[0].as_str();
        let next = words.get(1).map(String::as_str);
        let length = word.len();
        let is_whole = !word.contains('.');
        let stands_alone = next.is_none_or(|next| next == " ");
        if self.date.len() == 3 && (length == 2 || length == 4) && self.hour.is_none() && stands_alone && is_whole {
            self.hour = word[..2].parse().ok();
            self.minute = if length == 4 { word[2..].parse().ok() } else { self.minute };
            return Some(1);
        }
        if length == 6 && is_whole && self.date.is_empty() {
            for part in [&word[..2], &word[2..4], &word[4..]] {
                self.date_part(part)?;
            }
            return Some(1);
        }
        if length == 6 && is_whole || word.find('.') == Some(6) {
            self.clock(&word[..2], Some(&word[2..4]), Some(&word[4..]))?;
            return Some(1);
        }
        if is_whole && [8, 12, 14].contains(&length) {
            for part in [&word[..4], &word[4..6], &word[6..8]] {
                self.date_part(part)?;
            }
            if length > 8 {
                self.clock(&word[8..10], Some(&word[10..12]), word.get(12..).filter(|s| !s.is_empty()))?;
            }
            return Some(1);
        }
        match next {
            Some(":") if words.len() > 2 => self.take_clock(words),
            Some(mark @ ("-" | "/" | ".")) => self.take_date(words, mark),
            Some(next) if is_afternoon(next).is_some() && is_whole => self.take_twelve_hours(words, 1),
            Some(" ") if words.get(2).is_some_and(|w| is_afternoon(w).is_some()) => self.take_twelve_hours(words, 2),
            _ if next.is_none_or(is_filler) => {
                self.date_part(word)?;
                Some(words.len().min(2))
            }
            _ => None,
        }
    }

    /// `10:30`, `10:30:15.5`.
    fn take_clock(&mut self, words: &[String]) -> Option<usize> {
        let has_seconds = words.get(3).is_some_and(|word| word == ":") && words.len() > 4;
        self.clock(&words[0], Some(&words[2]), has_seconds.then(|| words[4].as_str()))?;
        Some(if has_seconds { 5 } else { 3 })
    }

    /// `2030-01-02`, `01/02/2030`, `2-Jan-2030`, and any two of the three.
    fn take_date(&mut self, words: &[String], mark: &str) -> Option<usize> {
        self.date_part(&words[0])?;
        let Some(second) = words.get(2).filter(|word| !is_filler(word)) else { return Some(2) };
        self.date_word(second)?;
        if words.get(3).is_some_and(|word| word == mark) {
            self.date_word(words.get(4)?)?;
            return Some(5);
        }
        Some(3)
    }

    /// `Jan`, `Jan-02`, `Jan-02-2030`.
    fn take_month(&mut self, month: i32, words: &[String]) -> Option<usize> {
        self.date.push(Part { value: month, is_month: true, is_year: false });
        let Some(mark) = words.get(1).filter(|mark| *mark == "-" || *mark == "/") else { return Some(1) };
        self.date_part(words.get(2)?)?;
        if words.get(3) == Some(mark) {
            self.date_part(words.get(4)?)?;
            return Some(5);
        }
        Some(3)
    }

    fn take_twelve_hours(&mut self, words: &[String], distance: usize) -> Option<usize> {
        self.hour = Some(words[0].parse().ok().filter(|hour| *hour < 24)?);
        self.twelve_hours(is_afternoon(&words[distance])?)?;
        Some(distance + 1)
    }

    fn twelve_hours(&mut self, is_afternoon: bool) -> Option<()> {
        let hour = self.hour.filter(|hour| (0..=12).contains(hour) && !self.is_twelve_hour)?;
        self.is_twelve_hour = true;
        self.hour = Some(match (is_afternoon, hour) {
            (true, hour) if hour < 12 => hour + 12,
            (false, 12) => 0,
            (_, hour) => hour,
        });
        Some(())
    }

    /// `UTC`, `Z`, the local zone's own abbreviation, or a name that nobody knows. `UTC+3` is refused: half of the
    /// world reads it one way and half the other.
    fn take_zone(&mut self, words: &[String], now: &Zoned) -> Option<usize> {
        let word = words[0].as_str();
        if words.get(1).is_some_and(|next| next == "+" || next == "-") {
            return None;
        }
        if ["UTC", "GMT", "Z", "z"].contains(&word) {
            self.offset_seconds = Some(0);
        } else if now.time_zone().to_offset_info(now.timestamp()).abbreviation() != word {
            self.unknown_zone = Some(word.to_owned());
        }
        Some(1)
    }

    /// `+02`, `+0200`, `+02:00`, `-3`.
    fn take_offset(&mut self, words: &[String]) -> Option<usize> {
        let sign = if words[0] == "-" { -1 } else { 1 };
        let digits = words.get(1).filter(|word| word.bytes().all(|b| b.is_ascii_digit()))?;
        let (hours, minutes, taken) = match (digits.len(), words.get(2).map(String::as_str)) {
            (4, _) => (digits[..2].parse::<i32>().ok()?, digits[2..].parse::<i32>().ok()?, 2),
            (1 | 2, Some(":")) => (digits.parse().ok()?, words.get(3)?.parse().ok()?, 4),
            (1 | 2, _) => (digits.parse().ok()?, 0, 2),
            _ => return None,
        };
        let seconds = sign * (hours * 3600 + minutes * 60);
        (minutes < 60 && seconds.abs() < 86_400).then_some(())?;
        self.offset_seconds = Some(seconds);
        Some(taken)
    }

    fn date_word(&mut self, word: &str) -> Option<()> {
        match month(word) {
            Some(value) => {
                self.date.push(Part { value, is_month: true, is_year: false });
                Some(())
            }
            None => self.date_part(word),
        }
    }

    fn date_part(&mut self, word: &str) -> Option<()> {
        let value: i32 = word.parse().ok().filter(|value| *value <= 9999)?;
        self.date.push(Part { value, is_month: false, is_year: word.len() > 2 || value > 100 });
        (self.date.len() <= 3).then_some(())
    }

    fn clock(&mut self, hour: &str, minute: Option<&str>, second: Option<&str>) -> Option<()> {
        self.hour = Some(hour.parse().ok()?);
        self.minute = minute.map(str::parse).transpose().ok()?;
        let Some(second) = second else { return Some(()) };
        let (whole, fraction) = second.split_once('.').unwrap_or((second, ""));
        self.second = Some(whole.parse().ok()?);
        let micros: String = fraction.chars().chain("000000".chars()).take(6).collect();
        self.nanosecond = micros.parse::<i32>().ok()? * 1000;
        Some(())
    }

    /// Year, month and day as far as they were said. Month first unless something speaks against it.
    fn year_month_day(&self) -> Option<(Option<Part>, Option<i32>, Option<i32>)> {
        let named_month = self.date.iter().position(|part| part.is_month);
        if self.date.iter().filter(|part| part.is_year).count() > 1
            || self.date.iter().filter(|part| part.is_month).count() > 1
        {
            return None;
        }
        let looks_like_year = |part: Part| part.is_year || part.value > 31;
        let number = |part: Part| Some(part.value);
        Some(match (self.date.as_slice(), named_month) {
            ([], _) => (None, None, None),
            ([one], Some(_)) => (None, number(*one), None),
            ([one], None) if looks_like_year(*one) => (Some(*one), None, None),
            ([one], None) => (None, None, number(*one)),
            ([one, two], Some(index)) => {
                let (month, other) = if index == 0 { (*one, *two) } else { (*two, *one) };
                if looks_like_year(other) {
                    (Some(other), number(month), None)
                } else {
                    (None, number(month), number(other))
                }
            }
            ([one, two], None) if looks_like_year(*one) => (Some(*one), number(*two), None),
            ([one, two], None) if looks_like_year(*two) => (Some(*two), number(*one), None),
            ([one, two], None) if one.value > 12 => (None, number(*two), number(*one)),
            ([one, two], None) => (None, number(*one), number(*two)),
            ([one, two, three], Some(0)) if looks_like_year(*two) => (Some(*two), number(*one), number(*three)),
            ([one, two, three], Some(0)) => (Some(*three), number(*one), number(*two)),
            ([one, two, three], Some(1)) if looks_like_year(*one) => (Some(*one), number(*two), number(*three)),
            ([one, two, three], Some(1)) => (Some(*three), number(*two), number(*one)),
            ([one, two, three], Some(_)) if looks_like_year(*two) => (Some(*two), number(*three), number(*one)),
            ([one, two, three], Some(_)) => (Some(*one), number(*three), number(*two)),
            ([one, two, three], None) if looks_like_year(*one) => (Some(*one), number(*two), number(*three)),
            ([one, two, three], None) if one.value > 12 => (Some(*three), number(*two), number(*one)),
            ([one, two, three], None) => (Some(*three), number(*one), number(*two)),
            _ => return None,
        })
    }

    fn complete(self, now: &Zoned) -> Option<Schedule> {
        if self.date.is_empty() && self.weekday.is_none() && self.hour.is_none() {
            return None;
        }
        let (year, month, day) = self.year_month_day()?;
        let today = now.date();
        let year = match year {
            Some(part) if !part.is_year && part.value < 100 => full_year(part.value, i32::from(today.year())),
            Some(part) => part.value,
            None => i32::from(today.year()),
        };
        let year = i16::try_from(year).ok()?;
        let only_day = self.date.len() == 1 && day.is_some() && self.hour.is_none() && self.weekday.is_none();
        let month = month.map_or(Some(today.month()), |month| i8::try_from(month).ok())?;
        let date = match day {
            Some(day) => Date::new(year, month, i8::try_from(day).ok()?).ok()?,
            // Today's day of another month, or the last one where that month is shorter.
            None => {
                let first = Date::new(year, month, 1).ok()?;
                first.with().day(today.day().min(first.days_in_month())).build().ok()?
            }
        };
        let date = match self.weekday.filter(|_| day.is_none()) {
            Some(weekday) => date.checked_add(Span::new().days(i64::from(date.weekday().until(weekday)))).ok()?,
            None => date,
        };
        let time =
            Time::new(self.hour.unwrap_or(0), self.minute.unwrap_or(0), self.second.unwrap_or(0), self.nanosecond);
        let civil = DateTime::from_parts(date, time.ok()?);
        let mut guesses: Vec<Guess> = self.unknown_zone.map(Guess::Zone).into_iter().collect();
        if only_day {
            guesses.push(Guess::Day(i16::from(date.day())));
        }
        Some(match self.offset_seconds {
            Some(seconds) => Schedule { civil, offset: Offset::from_seconds(seconds).ok()?, guesses },
            None => {
                let zoned = now.time_zone().to_ambiguous_zoned(civil).compatible().ok()?;
                Schedule { civil: zoned.datetime(), offset: zoned.offset(), guesses }
            }
        })
    }
}

/// Capitals, five at most, as zone abbreviations are written.
fn is_zone(word: &str) -> bool {
    word == "z" || (word.len() <= 5 && word.bytes().all(|b| b.is_ascii_uppercase()))
}

/// Two digits mean the year of that ending nearest to this one.
fn full_year(two_digits: i32, this_year: i32) -> i32 {
    let year = this_year / 100 * 100 + two_digits;
    match year - this_year {
        50.. => year - 100,
        ..-50 => year + 100,
        _ => year,
    }
}
