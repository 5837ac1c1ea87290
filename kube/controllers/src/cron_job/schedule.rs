//! Schedules in the grammar of cron. No effects.
use k8s_openapi::jiff::civil::Time;
use k8s_openapi::jiff::tz::TimeZone;
use k8s_openapi::jiff::{SignedDuration, Timestamp, ToSpan, Zoned};

/// When something is to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Schedule {
    /// At the minutes whose parts on the wall are among these.
    Wall(Fields),
    /// Again and again after this time.
    Every(SignedDuration),
}

/// The minutes, hours, days, months and weekdays that match, as bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fields {
    minute: u64,
    hour: u64,
    day: u64,
    month: u64,
    weekday: u64,
    /// Whether the day and the weekday both have to match: one of them says "any".
    both: bool,
}

const MONTHS: &str = "jan feb mar apr may jun jul aug sep oct nov dec";
const WEEKDAYS: &str = "sun mon tue wed thu fri sat";
/// Upstream gives up after five years, too.
const YEARS_MAX: i32 = 5;

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// What cannot be read, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(every) = text.strip_prefix("@every ") {
            let duration: SignedDuration =
                every.trim().parse().map_err(|_| format!("failed to parse duration {text}"))?;
            // Seconds are as fine as it gets.
            let duration = SignedDuration::from_secs(duration.as_secs().max(1));
            return Ok(Schedule::Every(duration));
        }
        let text = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            text if text.starts_with('@') => return Err(format!("unrecognized descriptor: {text}")),
            text => text,
        };
        let parts: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = parts.as_slice() else {
            return Err(format!("expected exactly 5 fields, found {}: {text:?}", parts.len()));
        };
        let (day, any_day) = field(day, 1, 31, "")?;
        let (weekday, any_weekday) = field(weekday, 0, 6, WEEKDAYS)?;
        Ok(Schedule::Wall(Fields {
            minute: field(minute, 0, 59, "")?.0,
            hour: field(hour, 0, 23, "")?.0,
            day,
            month: field(month, 1, 12, MONTHS)?.0,
            weekday,
            both: any_day || any_weekday,
        }))
    }

    /// The first time after this one. `None` if there is none within five years, as on the 31st of February.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Schedule::Every(pause) => Timestamp::from_second(after.as_second()).ok()?.checked_add(*pause).ok(),
            Schedule::Wall(fields) => fields.next(after, zone),
        }
    }
}

impl Fields {
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let has = |bits: u64, value: i8| bits & (1_u64 << u32::from(value.unsigned_abs())) != 0;
        let mut at = after.checked_add(SignedDuration::from_secs(60)).ok()?.to_zoned(zone.clone());
        at = at.with().second(0).subsec_nanosecond(0).build().ok()?;
        let last = at.year().saturating_add(i16::try_from(YEARS_MAX).ok()?);
        while at.year() <= last {
            let (day, weekday) = (has(self.day, at.day()), has(self.weekday, at.weekday().to_sunday_zero_offset()));
            let fits = if self.both { day && weekday } else { day || weekday };
            if !has(self.month, at.month()) || !fits {
                at = tomorrow(&at)?;
            } else if !has(self.hour, at.hour()) {
                // By the clock that runs: an hour that is skipped in spring does not match, one that comes twice does twice.
                at = at.checked_add((60 - i64::from(at.minute())).minutes()).ok()?;
            } else if !has(self.minute, at.minute()) {
                at = at.checked_add(1.minute()).ok()?;
            } else {
                return Some(at.timestamp());
            }
        }
        None
    }
}

fn tomorrow(at: &Zoned) -> Option<Zoned> {
    at.date().tomorrow().ok()?.to_datetime(Time::midnight()).to_zoned(at.time_zone().clone()).ok()
}

/// The values of a field, and whether it says "any".
fn field(text: &str, least: u32, most: u32, names: &str) -> Result<(u64, bool), String> {
    let (mut bits, mut any) = (0, false);
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (part, None),
        };
        let step_by = step.map_or(Ok(1), |step| number(step, ""))?;
        let (first, last) = match range.split_once('-') {
            _ if range == "*" || range == "?" => {
                // "Every second" is not "any".
                any |= step_by == 1;
                (least, most)
            }
            Some((first, last)) => (number(first, names)?, number(last, names)?),
            None => {
                let first = number(range, names)?;
                (first, if step.is_some() { most } else { first })
            }
        };
        let wrong = if first < least {
            Some(format!("beginning of range ({first}) below minimum ({least}): {part}"))
        } else if last > most {
            Some(format!("end of range ({last}) above maximum ({most}): {part}"))
        } else if first > last {
            Some(format!("beginning of range ({first}) beyond end of range ({last}): {part}"))
        } else {
            (step_by == 0).then(|| format!("step of range should be a positive number: {part}"))
        };
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
        let values = (first..=last).step_by(usize::try_from(step_by).unwrap_or(usize::MAX));
        values.for_each(|value| bits |= 1_u64 << value);
    }
    if bits == 0 { Err(format!("empty field: {text:?}")) } else { Ok((bits, any)) }
}

/// A number, or the place of a name among names, which for months begin with 1.
fn number(text: &str, names: &str) -> Result<u32, String> {
    let named = names.split(' ').position(|name| !name.is_empty() && name.eq_ignore_ascii_case(text));
    if let Some(place) = named.and_then(|place| u32::try_from(place).ok()) {
        return Ok(place + u32::from(names == MONTHS));
    }
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten().ok_or_else(|| format!("failed to parse int from {text}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    /// The next times after `after`, in this zone, as a clock there shows them.
    fn next(text: &str, zone: &str, after: &str, count: usize) -> String {
        let zone = TimeZone::get(zone).unwrap();
        let schedule = Schedule::parse(text).unwrap();
        let mut at: Timestamp = after.parse().unwrap();
        let mut times = Vec::new();
        for _ in 0..count {
            let Some(next) = schedule.next(at, &zone) else {
                times.push("never".to_owned());
                break;
            };
            at = next;
            times.push(at.to_zoned(zone.clone()).strftime("%a %m-%d %H:%M:%S").to_string());
        }
        times.join(", ")
    }

    /// Cases of robfig/cron's own tests, and what each field means.
    #[test]
    fn schedules_are_read_as_upstream_reads_them() {
        let from = "2026-07-09T14:45:30Z";
        for (text, times) in [
            ("0/15 * * * *", "Thu 07-09 15:00:00, Thu 07-09 15:15:00"),
            ("20-35/15 * * * *", "Thu 07-09 15:20:00, Thu 07-09 15:35:00"),
            ("* * * * *", "Thu 07-09 14:46:00, Thu 07-09 14:47:00"),
            ("0 0 * Feb Mon", "Mon 02-01 00:00:00, Mon 02-08 00:00:00"),
            ("30 08 ? Jan-FEB *", "Fri 01-01 08:30:00, Sat 01-02 08:30:00"),
            // Either of them, as none says "any".
            ("0 0 1,15 * Sun", "Sun 07-12 00:00:00, Wed 07-15 00:00:00"),
            // Both of them.
            ("0 0 1,15 * *", "Wed 07-15 00:00:00, Sat 08-01 00:00:00"),
            // A step makes it a choice.
            ("0 0 */20 * 1", "Mon 07-13 00:00:00, Mon 07-20 00:00:00"),
            ("0 0 29 2 *", "Tue 02-29 00:00:00, Sun 02-29 00:00:00"),
            ("0 0 31 2 *", "never"),
            ("@hourly", "Thu 07-09 15:00:00, Thu 07-09 16:00:00"),
            ("@weekly", "Sun 07-12 00:00:00, Sun 07-19 00:00:00"),
            ("@annually", "Fri 01-01 00:00:00, Sat 01-01 00:00:00"),
            ("@every 1h30m", "Thu 07-09 16:15:30, Thu 07-09 17:45:30"),
        ] {
            assert_eq!(next(text, "UTC", from, 2), times, "{text}");
        }
    }

    #[test]
    fn clocks_are_set_forward_and_back() {
        let berlin = |text: &str, after: &str| next(text, "Europe/Berlin", after, 2);
        assert_eq!(berlin("30 2 * * *", "2026-03-28T12:00:00Z"), "Mon 03-30 02:30:00, Tue 03-31 02:30:00");
        assert_eq!(berlin("30 2 * * *", "2026-10-24T12:00:00Z"), "Sun 10-25 02:30:00, Sun 10-25 02:30:00");
        assert_eq!(berlin("0 9 * * *", "2026-03-28T12:00:00Z"), "Sun 03-29 09:00:00, Mon 03-30 09:00:00");
        // A day that does not begin at midnight.
        assert_eq!(next("0 1 * * *", "America/Asuncion", "2023-09-30T20:00:00Z", 1), "Sun 10-01 01:00:00");
    }

    #[test]
    fn what_is_no_schedule_is_refused_in_words() {
        for (text, words) in [
            ("* * * *", "expected exactly 5 fields, found 4"),
            ("* * * * * *", "found 6"),
            ("60 * * * *", "end of range (60) above maximum (59)"),
            ("* * 0 * *", "beginning of range (0) below minimum (1)"),
            ("* * * * 7", "above maximum (6)"),
            ("5-2 * * * *", "beginning of range (5) beyond end of range (2)"),
            ("*/0 * * * *", "step of range should be a positive number"),
            ("-1 * * * *", "failed to parse int from"),
            ("a * * * *", "failed to parse int from a"),
            (", * * * *", "empty field"),
            ("@often", "unrecognized descriptor: @often"),
            ("@every soon", "failed to parse duration"),
            ("*/99999999999 * * * *", "failed to parse int"),
            ("TZ=UTC * * * * *", "found 6"),
        ] {
            let error = Schedule::parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
