//! Exact quantities in the notation of Kubernetes (`resource.Quantity`): `1`, `250m`, `1.5Gi`, `1947481697n`, `1e3`.
//!
//! Kept as a whole number of nano-units, as the API server does: what is finer is rounded up, what is beyond 2^63-1 units
//! is refused rather than capped, because a promise must be what was written.

use std::fmt;

const NANO: i128 = 1_000_000_000;
/// Kubernetes' own limit of a quantity, in units.
const UNITS_MAX: i128 = i64::MAX as i128;
/// The longest sensible text is about 30 characters; work on a number grows with its length.
const TEXT_LENGTH_MAX: usize = 64;

/// An exact amount of something, not negative.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Quantity {
    nano: i128,
}

/// Why a text is not a quantity.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum QuantityError {
    /// It is not written as one.
    #[error("`{observed}` is not a quantity: needed a number with a unit such as 250m, 1.5, 2Gi or 1e3")]
    Malformed {
        /// The beginning of what was given.
        observed: String,
    },
    /// Less than nothing cannot be bought or sold.
    #[error("`{observed}` is negative: needed 0 or more")]
    Negative {
        /// What was given.
        observed: String,
    },
    /// More than can be counted.
    #[error("`{observed}` is too large: at most 9223372036854775807")]
    TooLarge {
        /// What was given.
        observed: String,
    },
}

impl Quantity {
    /// Returns a quantity of whole units.
    pub fn from_units(units: u64) -> Self {
        Self { nano: i128::from(units) * NANO }
    }

    /// Returns a quantity of thousandths.
    pub fn from_milli(milli: u64) -> Self {
        Self { nano: i128::from(milli) * (NANO / 1000) }
    }

    /// Returns the quantity that a text says.
    ///
    /// # Errors
    /// [`QuantityError`] if it is not one, is negative, or is beyond what can be counted.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let observed = || text.chars().take(TEXT_LENGTH_MAX).collect::<String>();
        let malformed = || QuantityError::Malformed { observed: observed() };
        if text.len() > TEXT_LENGTH_MAX {
            return Err(malformed());
        }
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let number_length = unsigned.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        let (number, suffix) = unsigned.split_at(number_length);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return Err(malformed());
        }
        let (ten, two) = suffix_exponents(suffix).ok_or_else(malformed)?;
        let too_large = || QuantityError::TooLarge { observed: observed() };
        let digits = format!("{whole}{fraction}");
        let mantissa: i128 = digits.trim_start_matches('0').parse().or_else(|_| match digits.trim_matches('0') {
            "" => Ok(0),
            _ => Err(too_large()),
        })?;
        // 9 for nano; the fraction's digits stand in the mantissa
        let exponent = 9 + ten - fraction.len() as i32;
        let nano = scale(mantissa, two, exponent).ok_or_else(too_large)?;
        if nano > UNITS_MAX * NANO {
            return Err(too_large());
        }
        if negative && nano != 0 {
            return Err(QuantityError::Negative { observed: observed() });
        }
        Ok(Self { nano })
    }

    /// Returns whole units, a rest rounded up: what is asked for.
    pub fn units_ceil(self) -> u64 {
        clamp((self.nano + NANO - 1).div_euclid(NANO))
    }

    /// Returns whole units, a rest dropped: what is offered.
    pub fn units_floor(self) -> u64 {
        clamp(self.nano.div_euclid(NANO))
    }

    /// Returns thousandths, a rest rounded up.
    pub fn milli_ceil(self) -> u64 {
        let step = NANO / 1000;
        clamp((self.nano + step - 1).div_euclid(step))
    }

    /// Returns thousandths, a rest dropped.
    pub fn milli_floor(self) -> u64 {
        clamp(self.nano.div_euclid(NANO / 1000))
    }
}

/// Thousandths of 2^63-1 do not fit into 64 bits; nothing that large is ever sold.
fn clamp(value: i128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// Returns mantissa × 2^two × 10^ten, rounded up, or `None` beyond 128 bits.
fn scale(mantissa: i128, two: u32, ten: i32) -> Option<i128> {
    if mantissa == 0 {
        return Some(0);
    }
    let raised = mantissa.checked_mul(1i128.checked_shl(two)?)?;
    if raised >> two != mantissa {
        return None;
    }
    match 10i128.checked_pow(ten.unsigned_abs()) {
        Some(power) if ten >= 0 => raised.checked_mul(power),
        Some(power) => raised.checked_add(power - 1).map(|sum| sum.div_euclid(power)),
        // dividing by more than 128 bits leaves less than a nano-unit, which counts as one
        None => (ten < 0).then_some(1),
    }
}

/// Returns the powers of ten and of two that a suffix means.
fn suffix_exponents(suffix: &str) -> Option<(i32, u32)> {
    Some(match suffix {
        "" => (0, 0),
        "n" => (-9, 0),
        "u" => (-6, 0),
        "m" => (-3, 0),
        "k" => (3, 0),
        "M" => (6, 0),
        "G" => (9, 0),
        "T" => (12, 0),
        "P" => (15, 0),
        "E" => (18, 0),
        "Ki" => (0, 10),
        "Mi" => (0, 20),
        "Gi" => (0, 30),
        "Ti" => (0, 40),
        "Pi" => (0, 50),
        "Ei" => (0, 60),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            // beyond it the result is 0 or too large whatever the mantissa
            (exponent.clamp(-200, 200), 0)
        }
    })
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (step, suffix) = match self.nano {
            nano if nano % NANO == 0 => (NANO, ""),
            nano if nano % (NANO / 1000) == 0 => (NANO / 1000, "m"),
            nano if nano % 1000 == 0 => (1000, "u"),
            _ => (1, "n"),
        };
        write!(f, "{}{suffix}", self.nano / step)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: &str) {
        let observed = Quantity::parse(text).map_or_else(|error| format!("{error}"), |quantity| quantity.to_string());
        assert!(observed.contains(expected), "{text}: {observed}, needed {expected}");
    }

    #[test]
    fn every_notation_of_kubernetes_is_read() {
        for (text, expected) in [
            ("0", "0"),
            ("1", "1"),
            ("1000m", "1"),
            ("250m", "250m"),
            ("1.5", "1500m"),
            (".5", "500m"),
            ("1.", "1"),
            ("+1", "1"),
            ("-0", "0"),
            ("1947481697n", "1947481697n"),
            ("3735836Ki", "3825496064"),
            ("1.5Gi", "1610612736"),
            ("64M", "64000000"),
            ("1e3", "1000"),
            ("1E3", "1000"),
            ("1E", "1000000000000000000"),
            ("12e-1", "1200m"),
            ("0.0000000001", "1n"),
            ("1e-100", "1n"),
            ("00000000000000000000000000000000000000000000000001", "1"),
        ] {
            check(text, expected);
        }
    }

    #[test]
    fn what_is_not_a_quantity_is_refused_in_words() {
        for text in ["", "m", ".", "1.2.3", "1 Gi", "1gi", "1ee3", "1e", "١", "0x10", "1Gi ", "NaN", &"1".repeat(65)] {
            check(text, "is not a quantity");
        }
        check("-1", "is negative");
        for text in ["9223372036854775808", "8Ei", "1e19", "99999999999999999999999999999999999999999", "9e200"] {
            check(text, "is too large");
        }
        check("9223372036854775807", "9223372036854775807");
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(milli in 0..u64::MAX / 2000) {
            let quantity = Quantity::from_milli(milli);
            prop_assert_eq!(Quantity::parse(&quantity.to_string()), Ok(quantity));
            prop_assert!(quantity.units_floor() <= quantity.units_ceil());
            prop_assert_eq!(quantity.milli_floor(), milli);
        }

        #[test]
        fn no_text_is_a_panic(text in "[-+0-9.eEniumkKMGTP]{0,70}") {
            let _ = Quantity::parse(&text);
        }
    }
}
