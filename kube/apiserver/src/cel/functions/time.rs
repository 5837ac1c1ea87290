//! Moments and lengths of time.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

use super::super::evaluate::no_overload;
use super::super::value::Value;
use super::super::{Fail, fail};
use super::{Answer, Row};

pub(super) const TABLE: &[Row] = &[
    ("timestamp", 1, 1, |_, a| match &a[0] {
        Value::Time(_) => Ok(a[0].clone()),
        Value::Text(text) => {
            text.parse().map(Value::Time).map_err(|_| Fail::Error(format!("parsing time {:?}", &**text)))
        }
        Value::Int(seconds) => {
            Timestamp::from_second(*seconds).map(Value::Time).map_err(|_| Fail::Error("timestamp overflow".into()))
        }
        _ => no_overload(),
    }),
    ("duration", 1, 1, |_, a| match &a[0] {
        Value::Duration(_) => Ok(a[0].clone()),
        Value::Text(text) => duration(text).map_or_else(
            || fail(format!("time: invalid duration {:?}", &**text)),
            |length| Ok(Value::Duration(length)),
        ),
        _ => no_overload(),
    }),
    (".getFullYear", 0, 1, |_, a| part(a, |at| i64::from(at.year()), None)),
    (".getMonth", 0, 1, |_, a| part(a, |at| i64::from(at.month()) - 1, None)),
    (".getDate", 0, 1, |_, a| part(a, |at| i64::from(at.day()), None)),
    (".getDayOfMonth", 0, 1, |_, a| part(a, |at| i64::from(at.day()) - 1, None)),
    (".getDayOfWeek", 0, 1, |_, a| part(a, |at| i64::from(at.weekday().to_sunday_zero_offset()), None)),
    (".getDayOfYear", 0, 1, |_, a| part(a, |at| i64::from(at.day_of_year()) - 1, None)),
    (".getHours", 0, 1, |_, a| part(a, |at| i64::from(at.hour()), Some(|length| length.as_secs() / 3600))),
    (".getMinutes", 0, 1, |_, a| part(a, |at| i64::from(at.minute()), Some(|length| length.as_secs() / 60))),
    (".getSeconds", 0, 1, |_, a| part(a, |at| i64::from(at.second()), Some(|length| length.as_secs()))),
    (".getMilliseconds", 0, 1, |_, a| {
        part(a, |at| i64::from(at.millisecond()), Some(|length| i64::from(length.subsec_millis())))
    }),
];

/// A part of a moment (of UTC, or of the zone that is named), or of a length of time.
fn part<'a>(a: &[Value<'a>], of: impl Fn(&Zoned) -> i64, of_length: Option<fn(SignedDuration) -> i64>) -> Answer<'a> {
    let zone = match a {
        [Value::Time(_)] => TimeZone::UTC,
        [Value::Time(_), Value::Text(name)] => match TimeZone::get(name).or_else(|_| offset(name)) {
            Ok(zone) => zone,
            Err(_) => return fail(format!("unknown time zone {}", &**name)),
        },
        [Value::Duration(length)] => return of_length.map_or_else(no_overload, |of| Ok(Value::Int(of(*length)))),
        _ => return no_overload(),
    };
    let Some(Value::Time(at)) = a.first() else { return no_overload() };
    Ok(Value::Int(of(&at.to_zoned(zone))))
}

/// A zone as `+02:00` or `-03:30`.
fn offset(text: &str) -> Result<TimeZone, jiff::Error> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.trim_start_matches('+')),
    };
    let (hours, minutes) = rest.split_once(':').unwrap_or((rest, "0"));
    // What is no number is beyond any offset.
    let number = |text: &str| text.parse::<i16>().map_or(i32::MAX / 8000, i32::from);
    jiff::tz::Offset::from_seconds(sign * (number(hours) * 3600 + number(minutes) * 60)).map(TimeZone::fixed)
}

/// A length of time as Go writes it: `1h30m`, `1.5s`.
pub fn duration(text: &str) -> Option<SignedDuration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(SignedDuration::ZERO);
    }
    let mut nanos: i128 = 0;
    if rest.is_empty() || rest.len() > 64 {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let units = [
            ("ns", 1),
            ("us", 1_000),
            ("µs", 1_000),
            ("ms", 1_000_000),
            ("s", NANOS),
            ("m", 60 * NANOS),
            ("h", 3600 * NANOS),
        ];
        let (unit, each) =
            units.into_iter().filter(|(unit, _)| tail.starts_with(unit)).max_by_key(|(unit, _)| unit.len())?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let fraction = fraction.get(..fraction.len().min(9))?;
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        let part: i128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
        nanos = nanos
            .checked_add(whole.checked_mul(each)?)?
            .checked_add(part * each / 10_i128.pow(fraction.len() as u32))?;
        rest = &tail[unit.len()..];
    }
    let nanos = i64::try_from(if negative { -nanos } else { nanos }).ok()?;
    Some(SignedDuration::from_nanos(nanos))
}

const NANOS: i128 = 1_000_000_000;

/// A length of time in seconds, as CEL writes it.
pub fn seconds(length: SignedDuration) -> String {
    let nanos = length.as_nanos();
    let (sign, nanos) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    let fraction = format!("{:09}", nanos % 1_000_000_000);
    let fraction = fraction.trim_end_matches('0');
    format!("{sign}{}{}{fraction}s", nanos / 1_000_000_000, if fraction.is_empty() { "" } else { "." })
}

/// From one moment to another.
pub fn between(from: Timestamp, to: Timestamp) -> SignedDuration {
    to.duration_since(from)
}
