//! Money: whole minor units of an ISO 4217 currency. And the exact decimals in which prices are written. No floats anywhere.
//!
//! ```text
//!   "0.02" ── Decimal (10^-9) ── Price ── charge over a time (exact) ── rounded half even, once for each line ── Money
//! ```

use std::fmt;

/// 10^-9: a price for a second of a thousandth of a CPU is still exact.
const NANO: u64 = 1_000_000_000;
/// Digits after the point that [`NANO`] holds.
const FRACTION_DIGITS_MAX: usize = 9;
/// A thousand million of a currency: more is a mistake, and less leaves room for exact products in 128 bits.
const WHOLE_MAX: u64 = 1_000_000_000;

/// A decimal number, not negative, with at most nine digits after the point and at most 10^9.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Decimal {
    nano: u64,
}

/// A currency of ISO 4217.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Currency(iso_currency::Currency);

/// An amount of money in whole minor units (cents, for most).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Money {
    /// How many of the currency's smallest units.
    pub minor: i64,
    /// Of which currency.
    pub currency: Currency,
}

/// Why a text is no decimal, no currency, or a sum of money cannot be counted. The writer must correct it.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum MoneyError {
    /// Not written as one.
    #[error(
        "amount is `{observed}`, needed a decimal from 0 to {WHOLE_MAX} with at most nine digits after the point, such as 0.02"
    )]
    Amount {
        /// The beginning of what was given.
        observed: String,
    },
    /// No currency has this code.
    #[error("currency is `{observed}`, needed a code of ISO 4217 such as EUR")]
    Currency {
        /// The beginning of what was given.
        observed: String,
    },
    /// Beyond what can be counted.
    #[error("{what} is beyond what can be counted")]
    TooLarge {
        /// What.
        what: &'static str,
    },
}

impl Decimal {
    /// Nothing.
    pub const ZERO: Self = Self { nano: 0 };

    /// Returns the decimal that a text says: digits, at most one point, no sign, no exponent.
    ///
    /// # Errors
    /// [`MoneyError::Amount`].
    pub fn parse(text: &str) -> Result<Self, MoneyError> {
        let wrong = || MoneyError::Amount { observed: text.chars().take(32).collect() };
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || whole.len() > 10 || fraction.len() > FRACTION_DIGITS_MAX {
            return Err(wrong());
        }
        let whole: u64 = whole.parse().map_err(|_| wrong())?;
        let fraction: u64 = format!("{fraction:0<FRACTION_DIGITS_MAX$}").parse().map_err(|_| wrong())?;
        let nano = whole.checked_mul(NANO).and_then(|nano| nano.checked_add(fraction)).ok_or_else(wrong)?;
        Self::from_nano(u128::from(nano)).ok_or_else(wrong)
    }

    /// Returns so many thousand-millionths, or `None` beyond the most.
    pub fn from_nano(nano: u128) -> Option<Self> {
        let nano = u64::try_from(nano).ok().filter(|nano| *nano <= WHOLE_MAX * NANO)?;
        Some(Self { nano })
    }

    /// Returns it in thousand-millionths.
    pub fn nano(self) -> u128 {
        u128::from(self.nano)
    }

    /// Says whether it is 0.
    pub fn is_zero(self) -> bool {
        self.nano == 0
    }

    /// Returns the sum, or `None` beyond the most.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        Self::from_nano(self.nano() + other.nano())
    }
}

/// Prints no zeros at the end: `0.02`, `1`, `0`.
impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.nano / NANO, self.nano % NANO);
        if fraction == 0 {
            return write!(f, "{whole}");
        }
        let digits = format!("{fraction:0FRACTION_DIGITS_MAX$}");
        write!(f, "{whole}.{}", digits.trim_end_matches('0'))
    }
}

impl Currency {
    /// Returns the currency of a code, in any case.
    ///
    /// # Errors
    /// [`MoneyError::Currency`] if there is none, or one without minor units (gold, drawing rights), in which nothing is paid.
    pub fn parse(code: &str) -> Result<Self, MoneyError> {
        let wrong = || MoneyError::Currency { observed: code.chars().take(16).collect() };
        let known = iso_currency::Currency::from_code(&code.to_ascii_uppercase()).ok_or_else(wrong)?;
        known.exponent().map(|_| Self(known)).ok_or_else(wrong)
    }

    /// Returns its code.
    pub fn code(self) -> &'static str {
        self.0.code()
    }

    /// Returns how many digits its minor unit has: 2 for cents.
    pub fn exponent(self) -> u32 {
        // Those without one are refused where currencies are read.
        u32::from(self.0.exponent().unwrap_or_default())
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Money {
    /// Returns a ratio of major units as money, rounded half to even.
    ///
    /// # Errors
    /// [`MoneyError::TooLarge`] beyond 64 bits of minor units.
    pub fn rounded(numerator: u128, denominator: u128, currency: Currency) -> Result<Self, MoneyError> {
        let too_large = || MoneyError::TooLarge { what: "a sum of money" };
        let minor_of_one = 10u128.pow(currency.exponent().min(4));
        // The whole part first, so that only the rest is multiplied.
        let (whole, rest) = (numerator / denominator, numerator % denominator);
        let part = rest.checked_mul(minor_of_one).ok_or_else(too_large)?;
        let floor = whole.checked_mul(minor_of_one).and_then(|minor| minor.checked_add(part / denominator));
        let minor = floor.map(|floor| nearest(floor, part % denominator, denominator));
        let minor = minor.and_then(|minor| i64::try_from(minor).ok()).ok_or_else(too_large)?;
        Ok(Self { minor, currency })
    }

    /// Returns an exact limit in minor units, a rest dropped: what a ceiling of `12.345 EUR` allows is 12.34.
    pub fn floor(amount: Decimal, currency: Currency) -> Self {
        let minor_of_one = 10u128.pow(currency.exponent().min(4));
        // At most 10^9 units of at most 10^4 parts each: 64 bits hold it.
        let minor = i64::try_from(amount.nano() * minor_of_one / u128::from(NANO)).unwrap_or(i64::MAX);
        Self { minor, currency }
    }

    /// Returns the sum, or `None` for two currencies or beyond 64 bits.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        let minor = self.minor.checked_add(other.minor).filter(|_| self.currency == other.currency)?;
        Some(Self { minor, ..self })
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.currency.exponent() as usize;
        let sign = if self.minor < 0 { "-" } else { "" };
        let minor = self.minor.unsigned_abs();
        let one = 10u64.pow(self.currency.exponent().min(4));
        match digits {
            0 => write!(f, "{sign}{minor} {}", self.currency),
            _ => write!(f, "{sign}{}.{:0digits$} {}", minor / one, minor % one, self.currency),
        }
    }
}

/// Returns a quotient rounded half to even.
pub(crate) fn half_even(numerator: u128, denominator: u128) -> u128 {
    nearest(numerator / denominator, numerator % denominator, denominator)
}

/// Returns the whole number next to `floor` and a rest of it: the even one of two that are equally near.
fn nearest(floor: u128, rest: u128, denominator: u128) -> u128 {
    let up = match rest.cmp(&(denominator - rest)) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Equal => floor % 2 == 1,
    };
    floor + u128::from(up)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use proptest::prelude::*;

    use super::*;

    fn money(numerator: u128, denominator: u128, code: &str) -> String {
        Money::rounded(numerator, denominator, Currency::parse(code).unwrap()).unwrap().to_string()
    }

    #[test]
    fn decimals_are_exact_and_nothing_else_is_read() {
        for (text, printed) in [
            ("0", "0"),
            ("0.0", "0"),
            ("1", "1"),
            ("007.50", "7.5"),
            ("0.000000001", "0.000000001"),
            ("1000000000", "1000000000"),
        ] {
            assert_eq!(Decimal::parse(text).unwrap().to_string(), printed, "{text}");
        }
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "+1",
            "1e3",
            "1,5",
            " 1",
            "0.0000000001",
            "1000000000.1",
            "NaN",
            "٣",
            "99999999999",
        ] {
            assert!(Decimal::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn money_is_rounded_half_to_even_in_the_minor_unit_of_its_currency() {
        for (numerator, denominator, code, expected) in [
            (1, 200, "EUR", "0.00 EUR"), // 0.5 cents: even is 0
            (3, 200, "EUR", "0.02 EUR"), // 1.5 cents: even is 2
            (1, 3, "EUR", "0.33 EUR"),
            (2, 3, "eur", "0.67 EUR"),
            (5, 2, "JPY", "2 JPY"), // no minor unit
            (7, 2, "JPY", "4 JPY"),
            (1, 2000, "KWD", "0.000 KWD"), // thousandths
            (3, 2000, "KWD", "0.002 KWD"),
        ] {
            assert_eq!(money(numerator, denominator, code), expected);
        }
        assert!(Currency::parse("XAU").is_err(), "gold has no minor unit");
        assert!(Currency::parse("EURO").is_err() && Currency::parse("").is_err() && Currency::parse("éé").is_err());
        let negative = Money { minor: -5, currency: Currency::parse("EUR").unwrap() };
        assert_eq!(negative.to_string(), "-0.05 EUR");
    }

    proptest! {
        #[test]
        fn rounding_is_never_more_than_half_a_unit_away(numerator in 0u128..1 << 90, denominator in 1u128..1 << 90) {
            let rounded = half_even(numerator, denominator);
            let twice = (rounded * denominator).abs_diff(numerator) * 2;
            prop_assert!(twice <= denominator);
            if twice == denominator {
                prop_assert_eq!(rounded % 2, 0);
            }
        }

        #[test]
        fn what_is_printed_is_read_again(nano in 0u128..=u128::from(WHOLE_MAX * NANO)) {
            let decimal = Decimal::from_nano(nano).unwrap();
            prop_assert_eq!(Decimal::parse(&decimal.to_string()), Ok(decimal));
        }
    }
}
