//! The times of a schedule. No effects.
use k8s_openapi::jiff::civil::Time;
use k8s_openapi::jiff::tz::TimeZone;
use k8s_openapi::jiff::{SignedDuration, Timestamp, ToSpan, Zoned};
use substrate_client::schedule::{Fields, Schedule};

/// Upstream gives up after five years, too.
const YEARS_MAX: i16 = 5;

/// The first time after this one. `None` if there is none within five years, as on the 31st of February.
pub(crate) fn next(schedule: &Schedule, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    match schedule {
        Schedule::Every(pause) => {
            let pause = SignedDuration::try_from(*pause).ok()?;
            Timestamp::from_second(after.as_second()).ok()?.checked_add(pause).ok()
        }
        Schedule::Fields(fields) => on_the_wall(fields, after, zone),
    }
}

fn on_the_wall(fields: &Fields, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let mut at = after.checked_add(SignedDuration::from_secs(60)).ok()?.to_zoned(zone.clone());
    at = at.with().second(0).subsec_nanosecond(0).build().ok()?;
    let last = at.year().saturating_add(YEARS_MAX);
    while at.year() <= last {
        let (hour, minute) = (at.hour(), at.minute());
        if !fields.day_matches(at.month(), at.day(), at.weekday().to_sunday_zero_offset()) {
            at = tomorrow(&at)?;
        } else if fields.time_matches(hour, minute) {
            return Some(at.timestamp());
        } else if (0..60).any(|other| fields.time_matches(hour, other)) {
            at = at.checked_add(1.minute()).ok()?;
        } else {
            // By the clock that runs: an hour that is skipped in spring does not match, one that comes twice does twice.
            at = at.checked_add((60 - i64::from(minute)).minutes()).ok()?;
        }
    }
    None
}

fn tomorrow(at: &Zoned) -> Option<Zoned> {
    at.date().tomorrow().ok()?.to_datetime(Time::midnight()).to_zoned(at.time_zone().clone()).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    /// The next times after `after`, in this zone, as a clock there shows them.
    fn next(text: &str, zone: &str, after: &str, count: usize) -> String {
        let zone = TimeZone::get(zone).unwrap();
        let schedule = text.parse::<Schedule>().unwrap();
        let mut at: Timestamp = after.parse().unwrap();
        let mut times = Vec::new();
        for _ in 0..count {
            let Some(next) = super::next(&schedule, at, &zone) else {
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
}
