//! Dates, times and intervals.

use super::{Object, Value};
use crate::config::schema::python::repr_text;

/// `2026-11-20` to year, month, day. `None`: written in another style.
fn day(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.split('-');
    let mut number = |digits| {
        let part = parts.next()?;
        (part.len() == digits && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.parse().ok()).flatten()
    };
    let found = (number(4)?, number(2)?, number(2)?);
    parts.next().is_none().then_some(found)
}

/// `12:00:01.5` to hours, minutes, seconds, microseconds.
fn clock(text: &str) -> Option<(u32, u32, u32, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut parts = whole.split(':').map(|part| part.parse().ok());
    let found = (parts.next()??, parts.next()??, parts.next()??, micros(fraction)?);
    parts.next().is_none().then_some(found)
}

fn micros(fraction: &str) -> Option<u32> {
    if fraction.len() > 6 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    format!("{fraction:0<6}").parse().ok()
}

/// `isoformat` of a time of day.
fn shown_clock((hour, minute, second, micro): (u32, u32, u32, u32)) -> String {
    let fraction = if micro == 0 { String::new() } else { format!(".{micro:06}") };
    format!("{hour:02}:{minute:02}:{second:02}{fraction}")
}

/// The arguments that make a time of day; trailing zeros are left out.
fn made_clock((hour, minute, second, micro): (u32, u32, u32, u32)) -> String {
    match (second, micro) {
        (0, 0) => format!("{hour}, {minute}"),
        (_, 0) => format!("{hour}, {minute}, {second}"),
        _ => format!("{hour}, {minute}, {second}, {micro}"),
    }
}

/// Splits `…+02:30` before the sign of the offset.
fn offset(text: &str) -> Option<(&str, &str)> {
    let at = text.rfind(['+', '-'])?;
    Some(text.split_at(at))
}

/// `+02` is shown as `+02:00`.
fn shown_offset(offset: &str) -> String {
    if offset.contains(':') { offset.to_owned() } else { format!("{offset}:00") }
}

fn offset_seconds(offset: &str) -> Option<i64> {
    let mut parts = offset[1..].split(':').map(|part| part.parse::<i64>().ok());
    let (hours, minutes, seconds) =
        (parts.next()??, parts.next().unwrap_or(Some(0))?, parts.next().unwrap_or(Some(0))?);
    let all = hours * 3600 + minutes * 60 + seconds;
    Some(if offset.starts_with('-') { -all } else { all })
}

fn object(shown: String, made: String, class: &'static str) -> Value {
    let is_in_yaml = matches!(class, "date" | "datetime");
    Value::Object(Object { shown, made, class, is_in_yaml })
}

/// Moments before the year 1 and after 9999.
fn odd(what: &str, text: &str) -> Option<Value> {
    let quoted = repr_text(text);
    let is_long = text.split([' ', '-']).next().is_some_and(|year| year.len() > 4 && year.parse::<u64>().is_ok());
    if text == "infinity" || (is_long && !text.ends_with("BC")) {
        return Some(Value::Odd(text.to_owned(), format!("{what} too large (after year 10K): {quoted}")));
    }
    let is_small = text == "-infinity" || text.ends_with("BC");
    is_small.then(|| Value::Odd(text.to_owned(), format!("{what} too small (before year 1): {quoted}")))
}

pub(super) fn date(text: &str) -> Option<Value> {
    let Some((year, month, day)) = day(text) else { return odd("date", text) };
    Some(object(text.to_owned(), format!("datetime.date({year}, {month}, {day})"), "date"))
}

pub(super) fn time(text: &str) -> Option<Value> {
    let at = clock(text)?;
    if at.0 > 23 {
        let why = format!("can't parse time {}: hour must be in 0..23", repr_text(text));
        return Some(Value::Odd(text.to_owned(), why));
    }
    Some(object(shown_clock(at), format!("datetime.time({})", made_clock(at)), "time"))
}

pub(super) fn timetz(text: &str) -> Option<Value> {
    let (time, zone) = offset(text)?;
    let at = clock(time)?;
    if at.0 > 23 {
        let why = format!("can't parse timetz {}: hour must be in 0..23", repr_text(text));
        return Some(Value::Odd(text.to_owned(), why));
    }
    let seconds = offset_seconds(zone)?;
    let zone_made = match seconds {
        0 => "datetime.timezone.utc".to_owned(),
        _ => format!("datetime.timezone({})", made_delta(i128::from(seconds) * 1_000_000)),
    };
    let made = format!("datetime.time({}, tzinfo={zone_made})", made_clock(at));
    Some(object(format!("{}{}", shown_clock(at), shown_offset(zone)), made, "time"))
}

pub(super) fn timestamp(text: &str) -> Option<Value> {
    moment(text, text, "", "").or_else(|| odd("timestamp", text))
}

pub(super) fn timestamptz(text: &str, zone: &str) -> Option<Value> {
    let known = || {
        let (_, time) = text.split_once(' ')?;
        let (_, distance) = offset(time)?;
        let bare = text.strip_suffix(distance)?;
        moment(text, bare, &shown_offset(distance), &format!(", tzinfo=zoneinfo.ZoneInfo(key='{zone}')"))
    };
    known().or_else(|| odd("timestamp", text))
}

fn moment(_: &str, bare: &str, distance: &str, zone: &str) -> Option<Value> {
    let (date, time) = bare.split_once(' ')?;
    let ((year, month, day), at) = (day(date)?, clock(time)?);
    let shown = format!("{date} {}{distance}", shown_clock(at));
    let made = format!("datetime.datetime({year}, {month}, {day}, {}{zone})", made_clock(at));
    Some(object(shown, made, "datetime"))
}

/// In the server's usual style: `1 year 2 mons -3 days 04:05:06.7`. A month counts 30 days and a year 365.
pub(super) fn interval(text: &str) -> Option<Value> {
    const DAY: i128 = 86_400_000_000;
    let mut total: i128 = 0;
    let mut words = text.split(' ').peekable();
    while let Some(word) = words.next() {
        if word.contains(':') {
            let (is_back, bare) = word.strip_prefix('-').map_or((false, word), |bare| (true, bare));
            let (hours, rest) = bare.trim_start_matches('+').split_once(':')?;
            let (_, minute, second, micro) = clock(&format!("0:{rest}"))?;
            let seconds = hours.parse::<i128>().ok()? * 3600 + i128::from(minute) * 60 + i128::from(second);
            let time = seconds * 1_000_000 + i128::from(micro);
            total += if is_back { -time } else { time };
            continue;
        }
        let number: i128 = word.parse().ok()?;
        let days = match words.next()?.trim_end_matches('s') {
            "year" => 365,
            "mon" => 30,
            "day" => 1,
            _ => return None,
        };
        total += number * days * DAY;
    }
    Some(object(shown_delta(total), made_delta(total), "timedelta"))
}

/// Days, seconds, microseconds; only the days may be negative.
fn parts(total: i128) -> (i128, i128, i128) {
    let micro = total.rem_euclid(1_000_000);
    let seconds = total.div_euclid(1_000_000);
    (seconds.div_euclid(86_400), seconds.rem_euclid(86_400), micro)
}

fn shown_delta(total: i128) -> String {
    let (days, seconds, micro) = parts(total);
    let days = match days {
        0 => String::new(),
        1 | -1 => format!("{days} day, "),
        _ => format!("{days} days, "),
    };
    let fraction = if micro == 0 { String::new() } else { format!(".{micro:06}") };
    format!("{days}{}:{:02}:{:02}{fraction}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn made_delta(total: i128) -> String {
    let (days, seconds, micro) = parts(total);
    let named = [("days", days), ("seconds", seconds), ("microseconds", micro)];
    let given: Vec<String> = named.iter().filter(|(_, n)| *n != 0).map(|(name, n)| format!("{name}={n}")).collect();
    let given = if given.is_empty() { "0".to_owned() } else { given.join(", ") };
    format!("datetime.timedelta({given})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(value: Option<Value>) -> (String, String) {
        let value = value.unwrap();
        (value.str(), value.repr())
    }

    #[test]
    fn moments() {
        let (shown, made) = both(timestamptz("2026-11-20 15:01:00.5+05:30", "Asia/Kolkata"));
        assert_eq!(shown, "2026-11-20 15:01:00.500000+05:30");
        let expected =
            "datetime.datetime(2026, 11, 20, 15, 1, 0, 500000, tzinfo=zoneinfo.ZoneInfo(key='Asia/Kolkata'))";
        assert_eq!(made, expected);
        assert_eq!(both(timestamptz("2026-11-20 15:01:00-03", "x")).0, "2026-11-20 15:01:00-03:00");
        assert_eq!(both(date("2026-01-02")).1, "datetime.date(2026, 1, 2)");
        assert_eq!(both(timetz("12:00:00+02")).0, "12:00:00+02:00");
        let refused = date("infinity").unwrap();
        assert_eq!(refused.refusal(), Some("date too large (after year 10K): 'infinity'"));
        let refused = timestamp("0044-03-15 12:00:00 BC").unwrap();
        assert_eq!(refused.refusal(), Some("timestamp too small (before year 1): '0044-03-15 12:00:00 BC'"));
        // Another DateStyle.
        assert_eq!(date("20.11.2026"), None);
    }

    #[test]
    fn intervals() {
        let shown = |text| both(interval(text)).0;
        assert_eq!(shown("1 year 2 mons -3 days 04:05:06.7"), "422 days, 4:05:06.700000");
        assert_eq!(shown("-01:00:00"), "-1 day, 23:00:00");
        assert_eq!(shown("00:00:00"), "0:00:00");
        assert_eq!(shown("100:00:00"), "4 days, 4:00:00");
        assert_eq!(both(interval("1 day 02:00:00")).1, "datetime.timedelta(days=1, seconds=7200)");
    }
}
