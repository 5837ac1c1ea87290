//! Renewal: a contract goes on beyond its end, by its own terms. Pure.
//!
//! ```text
//!      issued ───────────────────────────── until ─────────────── until + by
//!                         ├── before ──────────┤ here the buyer may renew it, once for each end, at most so often
//! ```
//! What goes on is the same contract, so what runs under it stays, its receipts form one chain without a gap, and no second of it is
//! charged twice. Both sign each renewal: it names the contract, its own number and both ends.

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A peering is worth being made for a minute; ten years are more than anybody promises.
const BY_SECONDS: std::ops::RangeInclusive<u64> = 60..=10 * 366 * 24 * 3600;
/// Less than two messages and the clocks of two nodes take is no time to renew in.
const BEFORE_SECONDS_LEAST: u64 = 10;
/// Once an hour for more than a year.
const AT_MOST_MOST: u32 = 10_000;
/// As between any two clocks here.
const CLOCK_LEEWAY: SignedDuration = SignedDuration::from_secs(10);

/// The right of the buyer to have its contract go on. The seller may refuse what its policies do not sell at that time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Renewal {
    /// For how long it goes on, in seconds.
    pub by_seconds: u64,
    /// How long before its end it may be renewed, in seconds: not earlier.
    pub before_seconds: u64,
    /// How often at most; absent is without a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<u32>,
}

/// Why a contract does not go on.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum RenewalRefusal {
    /// It does not say that it may.
    #[error("renewal: the contract has none, needed conditions.renewal")]
    None,
    /// It has gone on as often as it may, or the number is another one.
    #[error("renewal: number {observed}, needed {needed}")]
    Number {
        /// Which was asked for.
        observed: u32,
        /// Which comes next, or the last that may.
        needed: String,
    },
    /// It is too early.
    #[error("renewal: it is {now}, needed {opens} or later")]
    Early {
        /// From when.
        opens: Timestamp,
        /// When it is.
        now: Timestamp,
    },
    /// It is over.
    #[error("renewal: it is {now}, the contract has ended at {until}")]
    Over {
        /// When it has ended.
        until: Timestamp,
        /// When it is.
        now: Timestamp,
    },
    /// It never ends, or its next end cannot be counted.
    #[error("renewal: the contract has no end that could be put off")]
    Endless,
}

impl Renewal {
    /// Says which member is out of its bounds, with what it says, the least and the most.
    pub(crate) fn out_of_bounds(&self) -> Option<(&'static str, u64, u64, u64)> {
        let (least, most) = (*BY_SECONDS.start(), *BY_SECONDS.end());
        if !BY_SECONDS.contains(&self.by_seconds) {
            return Some(("renewal.bySeconds", self.by_seconds, least, most));
        }
        // Otherwise the next renewal would be open at once, and it would never be near its end.
        if !(BEFORE_SECONDS_LEAST..=self.by_seconds).contains(&self.before_seconds) {
            return Some(("renewal.beforeSeconds", self.before_seconds, BEFORE_SECONDS_LEAST, self.by_seconds));
        }
        let often = self.at_most.filter(|often| !(1..=AT_MOST_MOST).contains(often));
        often.map(|often| ("renewal.atMost", often.into(), 1, AT_MOST_MOST.into()))
    }

    /// Returns from when a contract that ends then may be renewed.
    pub fn opens(&self, until: Timestamp) -> Timestamp {
        let before = SignedDuration::from_secs(i64::try_from(self.before_seconds).unwrap_or(i64::MAX));
        until.checked_sub(before).unwrap_or(Timestamp::MIN)
    }

    /// Returns when a contract that ends then will end after one more renewal; `None` is beyond what can be counted.
    pub fn end_after(&self, until: Timestamp) -> Option<Timestamp> {
        until.checked_add(SignedDuration::from_secs(i64::try_from(self.by_seconds).ok()?)).ok()
    }

    /// Says whether there may be a renewal of this number.
    pub fn allows(&self, number: u32) -> bool {
        self.at_most.is_none_or(|most| number <= most)
    }
}

/// Returns when a contract ends after the renewal of this number. `done` is how often it was renewed, `until` when it ends now.
///
/// # Errors
/// [`RenewalRefusal`]: it does not go on.
pub fn renewed(
    renewal: Option<&Renewal>,
    (number, done): (u32, u32),
    until: Option<Timestamp>,
    now: Timestamp,
) -> Result<Timestamp, RenewalRefusal> {
    let renewal = renewal.ok_or(RenewalRefusal::None)?;
    let until = until.ok_or(RenewalRefusal::Endless)?;
    let next = done.saturating_add(1);
    if number != next || !renewal.allows(number) {
        let needed = if renewal.allows(next) { next.to_string() } else { format!("at most {done}") };
        return Err(RenewalRefusal::Number { observed: number, needed });
    }
    if until <= now {
        return Err(RenewalRefusal::Over { until, now });
    }
    let opens = renewal.opens(until);
    if now < opens.checked_sub(CLOCK_LEEWAY).unwrap_or(opens) {
        return Err(RenewalRefusal::Early { opens, now });
    }
    renewal.end_after(until).ok_or(RenewalRefusal::Endless)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use super::*;

    #[test]
    fn a_contract_goes_on_near_its_end_and_as_often_as_it_says() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let rule = Renewal { by_seconds: 3600, before_seconds: 300, at_most: Some(2) };
        let told = |rule: Option<&Renewal>, number, done, until: Option<i64>, now| {
            renewed(rule, (number, done), until.map(at), at(now)).map_err(|error| error.to_string())
        };
        assert_eq!(told(Some(&rule), 1, 0, Some(10_000), 9_700), Ok(at(13_600)));
        assert_eq!(told(Some(&rule), 2, 1, Some(10_000), 9_690), Ok(at(13_600)), "as far as two clocks can say");
        for (refused, rule, number, done, until, now) in [
            ("the contract has none", None, 1, 0, Some(10_000), 9_700),
            ("needed 1970-01-01T02:41:40Z or later", Some(&rule), 1, 0, Some(10_000), 9_689),
            ("has ended at", Some(&rule), 1, 0, Some(10_000), 10_000),
            ("number 3, needed at most 2", Some(&rule), 3, 2, Some(10_000), 9_700),
            ("number 1, needed 2", Some(&rule), 1, 1, Some(10_000), 9_700),
            ("number 3, needed 2", Some(&rule), 3, 1, Some(10_000), 9_700),
            ("no end that could be put off", Some(&rule), 1, 0, None, 9_700),
        ] {
            let told = told(rule, number, done, until, now).unwrap_err();
            assert!(told.contains(refused), "{told}, needed {refused}");
        }
        let endless = Renewal { at_most: None, ..rule };
        assert!(told(Some(&endless), 5001, 5000, Some(10_000), 9_700).is_ok());
    }
}
