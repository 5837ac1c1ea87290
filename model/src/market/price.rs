//! Prices, and what a contract costs over a time. Pure and exact; rounding happens once, when a line becomes money.
//!
//! A price that is *not stated* (an empty amount) is unknown, `?`, and never 0. A stated 0 is 0.
//!
//! ```text
//!   UnitPrice 0.02 EUR/hour per cpu ──× what is bought──► Price 0.03 EUR/hour ──× time──► Charge ──► Money 0.72 EUR
//! ```
//! Months are those of UTC: a month costs the same whether it has 28 or 31 days, and a part of it its share.

use std::fmt;

use jiff::Timestamp;
use jiff::tz::Offset;

use super::money::half_even;
use super::{Amounts, Currency, Decimal, ExtendedResource, Money, MoneyError};

/// 28, 29, 30 and 31 days divide it: a share of any month is a whole number of these days' microseconds.
const MONTH_DAYS: i128 = 377_580;
const DAY_MICROS: i128 = 24 * HOUR_MICROS;
const HOUR_MICROS: i128 = 3_600_000_000;
/// Hours of the shortest month: an hour of a price per month is never counted as cheaper than it is.
const MONTH_HOURS_LEAST: u128 = 28 * 24;
const GIBIBYTE: u128 = 1 << 30;

/// For how long a price is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // the variants are their own words
pub enum Period {
    Second,
    Minute,
    Hour,
    Day,
    /// A month of UTC.
    Month,
}

/// Of what a price is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Unit {
    /// The contract, whatever its size. What a price without a unit is of.
    #[default]
    Slice,
    /// One CPU.
    Cpu,
    /// One gibibyte of memory.
    Gibibyte,
    /// One pod.
    Pod,
    /// One device of an extended resource; `gpu` is `nvidia.com/gpu`.
    Device(ExtendedResource),
}

/// The price of a contract for a period.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Price {
    /// How much.
    pub amount: Decimal,
    /// Of what; only a price of 0 may have none.
    pub currency: Option<Currency>,
    /// For how long; only a price of 0 may have none.
    pub period: Option<Period>,
}

/// The price of one unit of what is offered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnitPrice {
    /// For one unit.
    pub price: Price,
    /// Of what.
    pub unit: Unit,
}

/// What a contract costs over a time, exact. Charges of one price add up without a rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Charge {
    /// Thousand-millionths of the currency × parts of the period.
    parts: u128,
    price: Price,
}

/// Why texts are no price. Whoever wrote them must correct them; nothing is bought or sold at them.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum PriceError {
    /// Amount, currency or sum.
    #[error(transparent)]
    Money(#[from] MoneyError),
    /// A period that nobody knows.
    #[error("period is `{observed}`, needed second, minute, hour, day or month")]
    Period {
        /// The beginning of what was given.
        observed: String,
    },
    /// A unit that nobody knows.
    #[error("unit is `{observed}`, needed slice, cpu, gib, pod, gpu or an extended resource such as example.com/fpga")]
    Unit {
        /// The beginning of what was given.
        observed: String,
    },
    /// Two prices that cannot be put together.
    #[error("charges are of different prices")]
    Different,
}

impl Period {
    /// Returns the period of a word: `hour`, and `hourly`, `h` or `per hour` that others write.
    ///
    /// # Errors
    /// [`PriceError::Period`].
    pub fn parse(text: &str) -> Result<Self, PriceError> {
        let lower = text.trim().to_ascii_lowercase();
        match lower.strip_prefix("per ").unwrap_or(&lower) {
            "second" | "seconds" | "s" => Ok(Self::Second),
            "minute" | "minutes" | "min" => Ok(Self::Minute),
            "hour" | "hours" | "hourly" | "h" => Ok(Self::Hour),
            "day" | "days" | "daily" | "d" => Ok(Self::Day),
            "month" | "months" | "monthly" => Ok(Self::Month),
            _ => Err(PriceError::Period { observed: text.chars().take(16).collect() }),
        }
    }

    /// Returns its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// Parts of one period.
    fn parts(self) -> i128 {
        match self {
            Self::Second => 1_000_000,
            Self::Minute => 60_000_000,
            Self::Hour => HOUR_MICROS,
            Self::Day => DAY_MICROS,
            Self::Month => MONTH_DAYS * DAY_MICROS,
        }
    }

    /// Parts from the beginning of 1970 to a moment: those between two moments are a difference, so that splitting a time
    /// changes nothing. Moments count by the microsecond.
    fn position(self, at: Timestamp) -> i128 {
        let micros = i128::from(at.as_microsecond());
        if self != Self::Month {
            return micros;
        }
        let date = Offset::UTC.to_datetime(at).date();
        let day_start = micros.div_euclid(DAY_MICROS) * DAY_MICROS;
        let into_month = i128::from(date.day() - 1) * DAY_MICROS + (micros - day_start);
        let months = i128::from(date.year()) * 12 + i128::from(date.month() - 1);
        months * self.parts() + into_month * (MONTH_DAYS / i128::from(date.days_in_month()))
    }
}

impl Unit {
    /// Returns the unit of a word; an empty one is the slice.
    ///
    /// # Errors
    /// [`PriceError::Unit`].
    pub fn parse(text: &str) -> Result<Self, PriceError> {
        match text.trim().to_ascii_lowercase().as_str() {
            "" | "slice" => Ok(Self::Slice),
            "cpu" => Ok(Self::Cpu),
            "gib" => Ok(Self::Gibibyte),
            "pod" => Ok(Self::Pod),
            "gpu" => Ok(Self::Device(ExtendedResource::GPU)),
            _ => {
                let device = ExtendedResource::parse(text.trim());
                device.map(Self::Device).map_err(|_| PriceError::Unit { observed: text.chars().take(16).collect() })
            }
        }
    }

    /// Returns its word; that of the slice is empty, as official nodes write no unit.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Slice => "",
            Self::Cpu => "cpu",
            Self::Gibibyte => "gib",
            Self::Pod => "pod",
            // As official nodes and older ones of ours call it.
            Self::Device(resource) if *resource == ExtendedResource::GPU => "gpu",
            Self::Device(resource) => resource.as_str(),
        }
    }

    /// How many there are in these amounts, as a ratio.
    fn count(&self, amounts: &Amounts) -> (u128, u128) {
        match self {
            Self::Slice => (1, 1),
            Self::Cpu => (u128::from(amounts.cpu_milli), 1000),
            Self::Gibibyte => (u128::from(amounts.memory_bytes), GIBIBYTE),
            Self::Pod => (u128::from(amounts.pods), 1),
            Self::Device(resource) => (u128::from(amounts.extended.get(resource)), 1),
        }
    }
}

impl Price {
    /// The price of what is given away: 0, stated.
    pub const ZERO: Self = Self { amount: Decimal::ZERO, currency: None, period: None };

    /// Returns the price that three texts say, or `None` if the amount is empty: it is not stated.
    ///
    /// # Errors
    /// [`PriceError`] if the amount is no decimal, or one that is not 0 has no currency or period that is known.
    pub fn parse(amount: &str, currency: &str, period: &str) -> Result<Option<Self>, PriceError> {
        if amount.trim().is_empty() {
            return Ok(None);
        }
        let amount = Decimal::parse(amount.trim())?;
        // 0 is 0, whatever of.
        let optional = |text: &str| amount.is_zero() && text.trim().is_empty();
        let currency = if optional(currency) { None } else { Some(Currency::parse(currency.trim())?) };
        let period = if optional(period) { None } else { Some(Period::parse(period)?) };
        Ok(Some(Self { amount, currency, period }))
    }

    /// Returns amount, currency and period as texts, in one spelling.
    pub fn texts(&self) -> [String; 3] {
        let currency = self.currency.map_or("", Currency::code);
        let period = self.period.map_or("", Period::as_str);
        [self.amount.to_string(), currency.into(), period.into()]
    }

    /// Says whether it is 0.
    pub fn is_zero(&self) -> bool {
        self.amount.is_zero()
    }

    /// Returns what an hour costs at most, rounded up; `None` beyond what can be counted.
    pub fn hourly(&self) -> Option<Decimal> {
        let nano = self.amount.nano();
        let hourly = match self.period {
            None => 0,
            Some(Period::Second) => nano * 3600,
            Some(Period::Minute) => nano * 60,
            Some(Period::Hour) => nano,
            Some(Period::Day) => nano.div_ceil(24),
            Some(Period::Month) => nano.div_ceil(MONTH_HOURS_LEAST),
        };
        Decimal::from_nano(hourly)
    }

    /// Returns what the time from one moment to another costs, exactly; 0 if it ends before it begins.
    ///
    /// # Errors
    /// [`MoneyError::TooLarge`] for some centuries at the highest prices.
    pub fn charge(&self, from: Timestamp, until: Timestamp) -> Result<Charge, MoneyError> {
        let too_large = MoneyError::TooLarge { what: "a charge" };
        let period = self.period.unwrap_or(Period::Hour);
        let parts = (period.position(until) - period.position(from)).max(0);
        let parts = u128::try_from(parts).ok().and_then(|parts| parts.checked_mul(self.amount.nano()));
        Ok(Charge { parts: parts.ok_or(too_large)?, price: *self })
    }
}

/// Prints `0.02 EUR/hour`, and `0` for nothing.
impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.currency, self.period) {
            (Some(currency), Some(period)) => write!(f, "{} {currency}/{}", self.amount, period.as_str()),
            (Some(currency), None) => write!(f, "{} {currency}", self.amount),
            (None, _) => write!(f, "{}", self.amount),
        }
    }
}

impl UnitPrice {
    /// What is given away.
    pub const ZERO: Self = Self { price: Price::ZERO, unit: Unit::Slice };

    /// Returns what these amounts cost for a period: exact to nine digits after the point, half to even beyond.
    ///
    /// # Errors
    /// [`MoneyError::TooLarge`] beyond 10^9 of the currency.
    pub fn of(&self, amounts: &Amounts) -> Result<Price, MoneyError> {
        let too_large = || MoneyError::TooLarge { what: "the price of a contract" };
        let (count, of) = self.unit.count(amounts);
        let nano = self.price.amount.nano().checked_mul(count).ok_or_else(too_large)?;
        let amount = Decimal::from_nano(half_even(nano, of)).ok_or_else(too_large)?;
        Ok(Price { amount, ..self.price })
    }
}

impl Charge {
    /// Returns the sum of two charges of one price.
    ///
    /// # Errors
    /// [`PriceError`] if the prices differ or the sum cannot be counted.
    pub fn add(&self, other: &Self) -> Result<Self, PriceError> {
        if self.price != other.price {
            return Err(PriceError::Different);
        }
        let parts = self.parts.checked_add(other.parts).ok_or(MoneyError::TooLarge { what: "a charge" })?;
        Ok(Self { parts, ..*self })
    }

    /// Returns it as money, rounded half to even: the one rounding of a line. `None` for a price of 0 without a currency.
    ///
    /// # Errors
    /// [`MoneyError::TooLarge`] beyond 64 bits of minor units.
    pub fn money(&self) -> Result<Option<Money>, MoneyError> {
        let Some(currency) = self.price.currency else { return Ok(None) };
        let period = self.price.period.unwrap_or(Period::Hour);
        let one = u128::try_from(period.parts()).unwrap_or(1) * 1_000_000_000; // parts are above 0
        Money::rounded(self.parts, one, currency).map(Some)
    }
}

/// Returns the first moment of the month of UTC in which a moment is, and that of the next.
pub fn month_of(at: Timestamp) -> (Timestamp, Timestamp) {
    let date = Offset::UTC.to_datetime(at).date();
    let start = |date: jiff::civil::Date| Offset::UTC.to_timestamp(date.to_datetime(jiff::civil::Time::midnight()));
    let next = date.last_of_month().tomorrow();
    // Within the year 9999 there is no next month to be counted: the end of time is near enough.
    let start_of = start(date.first_of_month()).unwrap_or(at);
    (start_of, next.and_then(start).unwrap_or(Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn price(text: &str) -> Price {
        let parts: Vec<&str> = text.split(' ').collect();
        Price::parse(parts[0], parts[1], parts[2]).unwrap().unwrap()
    }

    fn unit(text: &str, unit: Unit) -> UnitPrice {
        UnitPrice { price: price(text), unit }
    }

    #[test]
    fn an_empty_price_is_not_stated_and_a_stated_0_is_0() {
        assert_eq!(Price::parse("", "", ""), Ok(None));
        assert_eq!(Price::parse("", "EUR", "hour"), Ok(None));
        assert_eq!(Price::parse("0", "", ""), Ok(Some(Price::ZERO)));
        assert_eq!(Price::parse("0.00", "", ""), Ok(Some(Price::ZERO)));
        for (amount, currency, period, expected) in [
            ("1", "", "hour", "currency is ``, needed a code of ISO 4217 such as EUR"),
            ("1", "EUR", "", "period is ``, needed second, minute, hour, day or month"),
            ("1", "EUR", "fortnight", "period is `fortnight`, needed second, minute, hour, day or month"),
            ("0", "FUN", "", "currency is `FUN`, needed a code of ISO 4217 such as EUR"),
            (
                "cheap",
                "EUR",
                "hour",
                "amount is `cheap`, needed a decimal from 0 to 1000000000 with at most nine digits after the point, such as 0.02",
            ),
        ] {
            assert_eq!(Price::parse(amount, currency, period).unwrap_err().to_string(), expected);
        }
        assert_eq!(price("0.020 eur Hourly").texts(), ["0.02", "EUR", "hour"]);
    }

    #[test]
    fn a_part_costs_its_share() {
        let mut amounts = Amounts { cpu_milli: 1500, memory_bytes: 100 << 20, pods: 3, ..Amounts::default() };
        amounts.extended.set(ExtendedResource::parse("example.com/fpga").unwrap(), 2);
        for (of, expected) in [
            (Unit::Slice, "0.02 EUR/hour"),
            (Unit::Cpu, "0.03 EUR/hour"),
            (Unit::Gibibyte, "0.001953125 EUR/hour"),
            (Unit::Pod, "0.06 EUR/hour"),
            (Unit::parse("gpu").unwrap(), "0 EUR/hour"),
            (Unit::parse("example.com/fpga").unwrap(), "0.04 EUR/hour"),
        ] {
            assert_eq!(unit("0.02 EUR hour", of).of(&amounts).unwrap().to_string(), expected);
        }
        let odd = Amounts { memory_bytes: 1, ..Amounts::default() };
        assert_eq!(unit("0.9 EUR hour", Unit::Gibibyte).of(&odd).unwrap().to_string(), "0.000000001 EUR/hour");
        let all = Amounts { cpu_milli: u64::MAX, ..Amounts::default() };
        assert!(unit("1 EUR hour", Unit::Cpu).of(&all).is_err());
    }

    #[test]
    fn a_charge_follows_its_period_and_the_months_of_utc() {
        for (text, from, until, expected) in [
            ("0.02 EUR hour", "2026-11-01T00:00:00Z", "2026-11-02T12:00:00Z", "0.72 EUR"),
            ("0.01 EUR second", "2026-11-01T00:00:00Z", "2026-11-01T00:00:01.5Z", "0.02 EUR"),
            ("28 EUR month", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z", "28.00 EUR"),
            ("28 EUR month", "2026-02-01T00:00:00Z", "2026-02-02T00:00:00Z", "1.00 EUR"),
            ("31 EUR month", "2026-01-31T00:00:00Z", "2026-02-01T00:00:00Z", "1.00 EUR"),
            ("29 EUR month", "2028-02-28T00:00:00Z", "2028-03-01T00:00:00Z", "2.00 EUR"),
            ("30 EUR month", "2026-11-30T23:59:59Z", "2027-01-01T00:00:00Z", "30.00 EUR"),
            ("12 EUR month", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z", "144.00 EUR"),
            ("5 JPY day", "2026-01-01T00:00:00Z", "2026-01-01T12:00:00Z", "2 JPY"),
            ("1 EUR hour", "2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z", "0.00 EUR"),
            ("1000000000 EUR month", "1970-01-01T00:00:00Z", "2070-01-01T00:00:00Z", "1200000000000.00 EUR"),
        ] {
            let charge = price(text).charge(at(from), at(until)).unwrap();
            assert_eq!(charge.money().unwrap().unwrap().to_string(), expected, "{text} {from} {until}");
        }
        assert_eq!(Price::ZERO.charge(at("2026-01-01T00:00:00Z"), Timestamp::MAX).unwrap().money(), Ok(None));
        assert!(price("1000000000 EUR second").charge(Timestamp::MIN, Timestamp::MAX).is_ok());
    }

    #[test]
    fn an_hour_is_never_counted_as_cheaper_than_it_is() {
        for (text, expected) in [
            ("0.01 EUR second", "36"),
            ("0.01 EUR minute", "0.6"),
            ("0.02 EUR hour", "0.02"),
            ("1 EUR day", "0.041666667"),
            ("1 EUR month", "0.001488096"),
            ("0 EUR month", "0"),
        ] {
            assert_eq!(price(text).hourly().unwrap().to_string(), expected);
        }
        assert_eq!(price("1000000000 EUR second").hourly(), None);
    }

    #[test]
    fn a_month_begins_and_ends_in_utc() {
        let (start, end) = month_of(at("2026-12-31T23:59:59.999Z"));
        assert_eq!((start, end), (at("2026-12-01T00:00:00Z"), at("2027-01-01T00:00:00Z")));
    }

    fn any_price() -> impl Strategy<Value = Price> {
        let period = prop_oneof![
            Just(Period::Second),
            Just(Period::Minute),
            Just(Period::Hour),
            Just(Period::Day),
            Just(Period::Month)
        ];
        (0u128..1_000_000_000_000_000, period).prop_map(|(nano, period)| Price {
            amount: Decimal::from_nano(nano).unwrap(),
            currency: Some(Currency::parse("EUR").unwrap()),
            period: Some(period),
        })
    }

    /// Nanoseconds of some thirty years around 1970, so that months before it are counted too.
    fn any_moment() -> impl Strategy<Value = Timestamp> {
        (-500_000_000_000_000_000i128..500_000_000_000_000_000)
            .prop_map(|nanos| Timestamp::from_nanosecond(nanos).unwrap())
    }

    proptest! {
        #[test]
        fn splitting_a_time_changes_no_sum(price in any_price(), mut moments in prop::collection::vec(any_moment(), 2..8)) {
            moments.sort();
            let whole = price.charge(moments[0], moments[moments.len() - 1]).unwrap();
            let parts = moments.windows(2).map(|pair| price.charge(pair[0], pair[1]).unwrap());
            let sum = parts.reduce(|sum, part| sum.add(&part).unwrap()).unwrap();
            prop_assert_eq!(sum, whole);
        }

        #[test]
        fn more_time_never_costs_less(price in any_price(), mut moments in prop::collection::vec(any_moment(), 3..=3)) {
            moments.sort();
            let money = |until| price.charge(moments[0], until).unwrap().money().unwrap().unwrap().minor;
            prop_assert!(money(moments[1]) <= money(moments[2]));
        }

        #[test]
        fn an_hour_of_any_month_costs_at_most_the_hourly_price(price in any_price(), from in any_moment()) {
            let until = from.checked_add(jiff::SignedDuration::from_hours(1)).unwrap();
            let exact = price.charge(from, until).unwrap();
            prop_assume!(price.hourly().is_some());
            let most = Price { amount: price.hourly().unwrap(), period: Some(Period::Hour), ..price };
            let most = most.charge(from, until).unwrap();
            prop_assert!(exact.money().unwrap().unwrap().minor <= most.money().unwrap().unwrap().minor);
        }
    }
}
