//! When a cron job runs: five fields, or a descriptor (`https://en.wikipedia.org/wiki/Cron`).
//!
//! ```text
//! 15 */3 * jan-jun mon     @hourly     @every 1h30m
//! │  │   │ │       └ day of week, 0 is Sunday
//! │  │   │ └ month          A *range* is N, N-M, * or ?, with /STEP; a field is ranges with commas.
//! │  │   └ day of month
//! │  └ hour
//! └ minute
//! ```
//!
//! Read as `robfig/cron` v3 reads it, which kube-apiserver and kube-controller-manager use, and refused in its words.
//! Pure: what time it is now, and where, is for the caller.

use std::time::Duration;

/// When something is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// At times that match.
    Fields(Fields),
    /// Again and again, so long after the last time; whole seconds, at least one.
    Every(Duration),
}

/// Which minutes, hours, … match: bit N is set for N.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// 0 to 59.
    pub minutes: u64,
    /// 0 to 23.
    pub hours: u64,
    /// 1 to 31.
    pub days: u64,
    /// 1 to 12.
    pub months: u64,
    /// 0 to 6, from Sunday.
    pub weekdays: u64,
    /// Whether days of the month were given as `*` or `?`.
    pub any_day: bool,
    /// Whether days of the week were.
    pub any_weekday: bool,
}

impl Fields {
    /// Whether a day matches. When both days are restricted, one of them suffices.
    pub fn day_matches(&self, month: i8, day: i8, weekday: i8) -> bool {
        let has = |bits: u64, n: i8| (0..64).contains(&n) && bits >> n & 1 == 1;
        let (by_day, by_weekday) = (has(self.days, day), has(self.weekdays, weekday));
        has(self.months, month)
            && if self.any_day || self.any_weekday { by_day && by_weekday } else { by_day || by_weekday }
    }

    /// Whether a time of day matches.
    pub fn time_matches(&self, hour: i8, minute: i8) -> bool {
        let has = |bits: u64, n: i8| (0..64).contains(&n) && bits >> n & 1 == 1;
        has(self.hours, hour) && has(self.minutes, minute)
    }
}

/// What is wrong with a schedule, in the words of `robfig/cron`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScheduleError(String);

/// The numbers of one field, and their names from the lowest on.
struct Bounds {
    low: u64,
    high: u64,
    names: &'static [&'static str],
}

const MINUTES: Bounds = Bounds { low: 0, high: 59, names: &[] };
const HOURS: Bounds = Bounds { low: 0, high: 23, names: &[] };
const DAYS: Bounds = Bounds { low: 1, high: 31, names: &[] };
const MONTHS: Bounds = Bounds {
    low: 1,
    high: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAYS: Bounds = Bounds { low: 0, high: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

impl std::str::FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        if text.is_empty() {
            return wrong("empty spec string");
        }
        if let Some(duration) = text.strip_prefix("@every ") {
            return match go_duration(duration) {
                Some(duration) => Ok(Self::Every(Duration::from_secs(duration.as_secs().max(1)))),
                None => wrong(format!("failed to parse duration {text}: time: invalid duration {duration:?}")),
            };
        }
        let spelled = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            _ if text.starts_with('@') => return wrong(format!("unrecognized descriptor: {text}")),
            _ => text,
        };
        let fields: Vec<&str> = spelled.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return wrong(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
        };
        let (days, any_day) = field(day, &DAYS)?;
        let (weekdays, any_weekday) = field(weekday, &WEEKDAYS)?;
        Ok(Self::Fields(Fields {
            minutes: field(minute, &MINUTES)?.0,
            hours: field(hour, &HOURS)?.0,
            days,
            months: field(month, &MONTHS)?.0,
            weekdays,
            any_day,
            any_weekday,
        }))
    }
}

fn wrong<T>(why: impl Into<String>) -> Result<T, ScheduleError> {
    Err(ScheduleError(why.into()))
}

/// The numbers of a field, and whether it is open.
fn field(text: &str, bounds: &Bounds) -> Result<(u64, bool), ScheduleError> {
    let (mut bits, mut open) = (0, false);
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (more, star) = range(part, bounds)?;
        bits |= more;
        open |= star;
    }
    Ok((bits, open))
}

fn range(text: &str, bounds: &Bounds) -> Result<(u64, bool), ScheduleError> {
    let parts: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = parts[0].split('-').collect();
    let mut star = matches!(ends[0], "*" | "?");
    let (start, mut end) = match ends[..] {
        _ if star => (bounds.low, bounds.high),
        [only] => (number(only, bounds)?, number(only, bounds)?),
        [start, end] => (number(start, bounds)?, number(end, bounds)?),
        _ => return wrong(format!("too many hyphens: {text}")),
    };
    let step = match parts[..] {
        [_] => 1,
        [_, step] => {
            let step = number(step, &Bounds { names: &[], ..*bounds })?;
            if ends.len() == 1 {
                end = bounds.high; // N/STEP means from N on
            }
            star &= step <= 1;
            step
        }
        _ => return wrong(format!("too many slashes: {text}")),
    };
    if start < bounds.low {
        return wrong(format!("beginning of range ({start}) below minimum ({}): {text}", bounds.low));
    }
    if end > bounds.high {
        return wrong(format!("end of range ({end}) above maximum ({}): {text}", bounds.high));
    }
    if start > end {
        return wrong(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    if step == 0 {
        return wrong(format!("step of range should be a positive number: {text}"));
    }
    let mut bits = 0;
    let mut at = start;
    while at <= end {
        bits |= 1 << at; // at most 59
        at = at.saturating_add(step);
    }
    Ok((bits, star))
}

fn number(text: &str, bounds: &Bounds) -> Result<u64, ScheduleError> {
    if let Some(at) = bounds.names.iter().position(|name| text.eq_ignore_ascii_case(name)) {
        return Ok(bounds.low + at as u64); // 12 names at most
    }
    match text.parse::<i64>() {
        Ok(number) if number < 0 => wrong(format!("negative number ({number}) not allowed: {text}")),
        Ok(number) => Ok(number.unsigned_abs()),
        Err(error) => {
            let why = match error.kind() {
                std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => "value out of range",
                _ => "invalid syntax",
            };
            wrong(format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: {why}"))
        }
    }
}

/// A duration as Go writes it: `1h30m`, `1.5s`; at most some 290 years, as there.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|at| *at > 0)?;
        let (amount, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += amount.parse::<f64>().ok()? * seconds;
        rest = tail;
    }
    if text.is_empty() { None } else { Duration::try_from_secs_f64(total).ok().filter(|d| d.as_secs() < 1 << 33) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn fields(text: &str) -> Fields {
        match text.parse() {
            Ok(Schedule::Fields(fields)) => fields,
            other => unreachable!("{text}: {other:?}"),
        }
    }

    #[test]
    fn fields_are_bits() {
        let read = fields("15,45 */6 1-3 jan,FEB 1-5/2");
        assert_eq!(read.minutes, 1 << 15 | 1 << 45);
        assert_eq!(read.hours, 1 | 1 << 6 | 1 << 12 | 1 << 18);
        assert_eq!((read.days, read.months, read.weekdays), (0b1110, 0b110, 0b10_1010));
        assert!(!read.any_day && !read.any_weekday);
        assert_eq!(fields("50/5 * * * ?").minutes, 1 << 50 | 1 << 55);
        assert_eq!(fields("@weekly"), fields("0 0 * * sun"));
        assert_eq!("@every 1h30m".parse(), Ok(Schedule::Every(Duration::from_secs(5400))));
    }

    #[test]
    fn either_day_suffices_when_both_are_restricted() {
        let both = fields("0 0 13 * fri");
        assert!(both.day_matches(6, 13, 1) && both.day_matches(6, 14, 5) && !both.day_matches(6, 14, 1));
        let one = fields("0 0 * * fri");
        assert!(!one.day_matches(6, 13, 1) && one.day_matches(6, 14, 5));
        assert!(one.time_matches(0, 0) && !one.time_matches(0, 1));
    }

    #[test]
    fn what_is_wrong_is_said_as_cron_says_it() {
        for (text, why) in [
            ("", "empty spec string"),
            ("* * *", "expected exactly 5 fields, found 3: [* * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-2 * * * *", "beginning of range (5) beyond end of range (2): 5-2"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("@often", "unrecognized descriptor: @often"),
            ("@every x", "failed to parse duration @every x: time: invalid duration \"x\""),
        ] {
            assert_eq!(text.parse::<Schedule>().unwrap_err().to_string(), why);
        }
    }

    #[test]
    fn no_text_panics() {
        for text in [
            "*/18446744073709551615 * * * *",
            "99999999999999999999 * * * *",
            "-5 * * * *",
            ", , , , ,",
            "@every 99999999999999h",
            "é é é é é",
        ] {
            drop(text.parse::<Schedule>());
        }
    }
}
