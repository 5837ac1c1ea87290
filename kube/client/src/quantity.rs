//! Resource quantities: amounts such as `250m`, `1.5Gi` or `1e3`, exact.
//!
//! ```text
//! quantity = [+-] digits [. digits] suffix        suffix = n u m  k M G T P E | Ki Mi Gi Ti Pi Ei | e or E number
//! ```
//!
//! An amount is kept in billionths, the finest that Kubernetes knows; what is finer is rounded away from zero, what is
//! beyond ±(2⁶³ − 1) is held there. Source: `resource.Quantity` of k8s.io/apimachinery.
use std::cmp::Ordering;
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::str::FromStr;

const NANO: i128 = 1_000_000_000;
const MAX: i128 = i64::MAX as i128 * NANO;

/// How an amount is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub enum Format {
    /// Powers of 1000: `500m`, `2k`.
    #[default]
    Decimal,
    /// Powers of 1024: `512Mi`.
    Binary,
    /// Powers of 10: `1e3`.
    Exponent,
}

/// An amount of a resource. Two are equal if the amounts are, however they are written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// A text that is no quantity. The words are Kubernetes' own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct ParseError;

impl Quantity {
    /// Nothing.
    pub const ZERO: Quantity = Quantity { nanos: 0, format: Format::Decimal };

    /// A whole amount.
    pub fn whole(amount: i64) -> Quantity {
        Quantity::from_nanos(i128::from(amount) * NANO, Format::Decimal)
    }

    /// An amount of bytes, written in powers of 1024.
    pub fn bytes(amount: i64) -> Quantity {
        Quantity::from_nanos(i128::from(amount) * NANO, Format::Binary)
    }

    /// An amount in thousandths.
    pub fn millis(amount: i64) -> Quantity {
        Quantity::from_nanos(i128::from(amount) * (NANO / 1000), Format::Decimal)
    }

    fn from_nanos(nanos: i128, format: Format) -> Quantity {
        Quantity { nanos: nanos.clamp(-MAX, MAX), format }
    }

    /// The amount in whole units, rounded away from zero.
    pub fn value(self) -> i64 {
        self.scaled(NANO)
    }

    /// The amount in thousandths, rounded away from zero.
    pub fn milli_value(self) -> i64 {
        self.scaled(NANO / 1000)
    }

    /// The amount in billionths: exact.
    pub fn nano_value(self) -> i128 {
        self.nanos
    }

    /// The amount as a fraction, for scores and pictures; not for decisions about what fits.
    pub fn as_f64(self) -> f64 {
        self.nanos as f64 / NANO as f64
    }

    /// How it is written.
    pub fn format(self) -> Format {
        self.format
    }

    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whether it is less than nothing.
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    fn scaled(self, unit: i128) -> i64 {
        let away = if self.nanos < 0 { -(unit - 1) } else { unit - 1 };
        let scaled = (self.nanos + away) / unit;
        i64::try_from(scaled).unwrap_or(if scaled < 0 { i64::MIN } else { i64::MAX })
    }
}

impl FromStr for Quantity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Quantity, ParseError> {
        let (negative, unsigned) = match text.as_bytes().first().ok_or(ParseError)? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (scale, format) = scale(suffix).ok_or(ParseError)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(ParseError);
        }
        let nanos = nanos(whole, fraction, scale);
        Ok(Quantity::from_nanos(if negative { -nanos } else { nanos }, format))
    }
}

/// What a suffix multiplies by: a power of ten or of two.
#[derive(Clone, Copy)]
enum Scale {
    Ten(i32),
    Two(u32),
}

fn scale(suffix: &str) -> Option<(Scale, Format)> {
    let ten = |power| Some((Scale::Ten(power), Format::Decimal));
    let two = |power| Some((Scale::Two(power), Format::Binary));
    match suffix {
        "n" => ten(-9),
        "u" => ten(-6),
        "m" => ten(-3),
        "" => ten(0),
        "k" => ten(3),
        "M" => ten(6),
        "G" => ten(9),
        "T" => ten(12),
        "P" => ten(15),
        "E" => ten(18),
        "Ki" => two(10),
        "Mi" => two(20),
        "Gi" => two(30),
        "Ti" => two(40),
        "Pi" => two(50),
        "Ei" => two(60),
        _ => {
            let power = suffix.strip_prefix(['e', 'E'])?;
            let digits = power.strip_prefix(['+', '-']).unwrap_or(power);
            // Beyond ±99 every amount is nothing or the greatest; upstream reads 32 bits.
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) || digits.len() > 9 {
                return None;
            }
            let power: i32 = power.parse().ok()?;
            Some((Scale::Ten(power.clamp(-99, 99)), Format::Exponent))
        }
    }
}

/// The amount in billionths, rounded up and held at `MAX`.
fn nanos(whole: &str, fraction: &str, scale: Scale) -> i128 {
    let fraction = fraction.trim_end_matches('0');
    let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).skip_while(|b| *b == b'0').collect();
    if digits.is_empty() {
        return 0;
    }
    let places = i64::try_from(fraction.len()).unwrap_or(i64::MAX);
    let (power, factor) = match scale {
        Scale::Ten(power) => (9 + i64::from(power) - places, 1),
        Scale::Two(power) => (9 - places, 1i128 << power),
    };
    // More digits in front of the point than MAX has: no need to read them.
    let length = i64::try_from(digits.len()).unwrap_or(i64::MAX);
    if length.saturating_add(power) > 30 {
        return MAX;
    }
    // 18 digits times 2⁶⁰ fit 128 bits; those behind lie below a billionth or only say that something is there.
    let (kept, cut) = digits.split_at(digits.len().min(18));
    let mantissa = kept.iter().fold(0i128, |sum, digit| sum * 10 + i128::from(digit - b'0'));
    let power = power.saturating_add(i64::try_from(cut.len()).unwrap_or(i64::MAX));
    let something = i128::from(cut.iter().any(|digit| *digit != b'0'));
    let scaled = (mantissa + something) * factor;
    if power >= 0 {
        let power = u32::try_from(power).unwrap_or(u32::MAX);
        10i128.checked_pow(power).and_then(|ten| scaled.checked_mul(ten)).map_or(MAX, |nanos| nanos.min(MAX))
    } else {
        let divisor = u32::try_from(-power).ok().and_then(|power| 10i128.checked_pow(power));
        divisor.map_or(1, |divisor| scaled / divisor + i128::from(scaled % divisor != 0)).min(MAX)
    }
}

/// The canonical form: the greatest suffix that leaves a whole number.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.nanos % NANO == 0;
        if self.nanos == 0 {
            return write!(f, "0");
        }
        if self.format == Format::Binary && whole && self.nanos.abs() >= 1024 * NANO {
            let (mut amount, mut index) = (self.nanos / NANO, 0);
            while amount % 1024 == 0 && index < 6 {
                (amount, index) = (amount / 1024, index + 1);
            }
            return write!(f, "{amount}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][index]);
        }
        let (mut amount, mut power) = (self.nanos, -9i32);
        while amount % 1000 == 0 && power < 18 {
            (amount, power) = (amount / 1000, power + 3);
        }
        if self.format == Format::Exponent {
            return if power == 0 { write!(f, "{amount}") } else { write!(f, "{amount}e{power}") };
        }
        let suffix = match power {
            -9 => "n",
            -6 => "u",
            -3 => "m",
            3 => "k",
            6 => "M",
            9 => "G",
            12 => "T",
            15 => "P",
            18 => "E",
            _ => "",
        };
        write!(f, "{amount}{suffix}")
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Quantity;

    /// The sum, written as the first is, unless that is nothing.
    fn add(self, other: Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity::from_nanos(self.nanos + other.nanos, format)
    }
}

impl Sub for Quantity {
    type Output = Quantity;

    fn sub(self, other: Quantity) -> Quantity {
        self + -other
    }
}

impl Neg for Quantity {
    type Output = Quantity;

    fn neg(self) -> Quantity {
        Quantity { nanos: -self.nanos, format: self.format }
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Quantity) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Quantity) {
        *self = *self - other;
    }
}

impl Sum for Quantity {
    fn sum<I: Iterator<Item = Quantity>>(amounts: I) -> Quantity {
        amounts.fold(Quantity::ZERO, Add::add)
    }
}

impl TryFrom<&k8s_openapi::apimachinery::pkg::api::resource::Quantity> for Quantity {
    type Error = ParseError;

    fn try_from(text: &k8s_openapi::apimachinery::pkg::api::resource::Quantity) -> Result<Quantity, ParseError> {
        text.0.parse()
    }
}

impl From<Quantity> for k8s_openapi::apimachinery::pkg::api::resource::Quantity {
    fn from(amount: Quantity) -> Self {
        Self(amount.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    fn q(text: &str) -> Quantity {
        text.parse().unwrap_or_else(|_| panic!("{text} is a quantity"))
    }

    #[test]
    fn amounts_are_exact_and_written_canonically() {
        for (text, nanos, canonical) in [
            ("0", 0, "0"),
            ("1", NANO, "1"),
            ("100m", NANO / 10, "100m"),
            ("0.1", NANO / 10, "100m"),
            ("1000m", NANO, "1"),
            ("1500m", 1500 * NANO / 1000, "1500m"),
            ("2.50", 2500 * NANO / 1000, "2500m"),
            ("1000", 1000 * NANO, "1k"),
            (".5", NANO / 2, "500m"),
            ("5.", 5 * NANO, "5"),
            ("+3", 3 * NANO, "3"),
            ("-2u", -2000, "-2u"),
            ("1n", 1, "1n"),
            ("0.1n", 1, "1n"),
            ("-0.1n", -1, "-1n"),
            ("1.5Gi", 1536 * (1 << 20) * NANO, "1536Mi"),
            ("1024Mi", (1 << 30) * NANO, "1Gi"),
            ("1Ki", 1024 * NANO, "1Ki"),
            ("0.5Ki", 512 * NANO, "512"),
            ("0.0001Ki", 102_400_000, "102400u"),
            ("1e3", 1000 * NANO, "1e3"),
            ("1E-3", NANO / 1000, "1e-3"),
            ("12e2", 1200 * NANO, "1200"),
            ("1E", 1_000_000_000_000_000_000 * NANO, "1E"),
            ("7Ei", 7 * (1i128 << 60) * NANO, "7Ei"),
            ("100Ei", MAX, "9223372036854775807"),
            ("1e99", MAX, "9223372036854775807"),
            ("1e-99", 1, "1e-9"),
            ("0.000000000000000000000000000001", 1, "1n"),
            ("123456789012345678901234567890", MAX, "9223372036854775807"),
            ("0000000000000000000000000000001", NANO, "1"),
        ] {
            assert_eq!((q(text).nanos, q(text).to_string()), (nanos, canonical.to_owned()), "{text}");
            assert_eq!(q(canonical), q(text), "{canonical} reads as {text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in [
            "", ".", "-", "1.2.3", "1 ", " 1", "1mi", "1K", "1kk", "e3", "1e", "1e+", "1e1.5", "--1", "1Kim", "٣", "1é",
        ] {
            assert_eq!(text.parse::<Quantity>(), Err(ParseError), "{text}");
        }
    }

    #[test]
    fn values_round_away_from_zero() {
        assert_eq!((q("1m").value(), q("-1m").value(), q("1001m").value()), (1, -1, 2));
        assert_eq!((q("1u").milli_value(), q("2").milli_value()), (1, 2000));
        assert_eq!(q("9E").milli_value(), i64::MAX);
    }

    #[test]
    fn sums_keep_the_way_of_writing() {
        assert_eq!((q("1Gi") + q("512Mi")).to_string(), "1536Mi");
        assert_eq!((Quantity::ZERO + q("1Gi")).to_string(), "1Gi");
        assert_eq!((q("2") - q("500m")).to_string(), "1500m");
        assert_eq!(["1", "250m"].map(q).into_iter().sum::<Quantity>(), q("1250m"));
        assert!(q("1Gi") > q("1G") && q("1000m") == q("1"));
    }
}
