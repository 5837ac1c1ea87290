//! Just enough of `resource.Quantity` to judge one and compare two: exact thousandths.

/// The amount in thousandths, rounded up as upstream does, or `None` when `text` is no quantity.
pub fn milli(text: &str) -> Option<i128> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (numerator, denominator): (i128, i128) = match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1_000),
        "k" => (1_000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        _ => {
            let exponent: u32 = suffix.strip_prefix(['e', 'E'])?.trim_start_matches('+').parse().ok()?;
            (10i128.checked_pow(exponent.min(19))?, 1)
        }
    };
    let (negative, digits) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let valid = |part: &str| part.bytes().all(|b| b.is_ascii_digit()) && part.len() <= 18;
    if (whole.is_empty() && fraction.is_empty()) || !valid(whole) || !valid(fraction) {
        return None;
    }
    let scale = 10i128.checked_pow(fraction.len() as u32)?;
    let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
    let amount = mantissa.checked_mul(numerator)?.checked_mul(1_000)?;
    let divisor = scale * denominator;
    let milli = amount.div_euclid(divisor) + i128::from(amount.rem_euclid(divisor) != 0);
    Some(if negative { -milli } else { milli })
}

#[cfg(test)]
mod tests {
    use super::milli;

    #[test]
    fn quantities() {
        for (text, expected) in [
            ("1", Some(1_000)),
            ("100m", Some(100)),
            ("0.5", Some(500)),
            (".5", Some(500)),
            ("1.5Gi", Some(1_610_612_736_000)),
            ("1e3", Some(1_000_000)),
            ("1947481697n", Some(1_948)),
            ("-1", Some(-1_000)),
            ("1Kb", None),
            ("", None),
            ("m", None),
            ("1.2.3", None),
            ("one", None),
        ] {
            assert_eq!(milli(text), expected, "{text}");
        }
    }
}
