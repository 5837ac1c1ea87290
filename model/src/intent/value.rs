//! How the values of intents are written.

/// A day: nobody waits longer for a packet.
const LATENCY_MICROS_MAX: f64 = 86_400e6;

/// Returns a duration in microseconds from `100` (milliseconds), `100ms`, `0.1s`, `250us`.
///
/// # Errors
/// A sentence that says what was observed and needed.
pub(super) fn latency_micros(text: &str) -> Result<u64, String> {
    let refused = || format!("`{text}` is not a latency: needed milliseconds, such as 10, 10ms, 0.01s or 500us");
    let (number, unit_micros) = match text.trim() {
        text if text.ends_with("ms") => (text.strip_suffix("ms"), 1e3),
        text if text.ends_with("us") => (text.strip_suffix("us"), 1.0),
        text if text.ends_with('s') => (text.strip_suffix('s'), 1e6),
        text => (Some(text), 1e3),
    };
    let number = number.unwrap_or_default().trim_end();
    // A plain decimal number: no sign, exponent, `inf` or `nan`.
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(refused());
    }
    let micros = number.parse::<f64>().map_err(|_| refused())? * unit_micros;
    // Checked against the bound first, so that the cast is exact enough and never wraps.
    if micros <= LATENCY_MICROS_MAX { Ok(micros.round() as u64) } else { Err(refused()) }
}

/// Returns microseconds as people write them: `12.3ms`.
pub(super) fn micros_text(micros: u64) -> String {
    let rest = format!("{:03}", micros % 1000);
    match rest.trim_end_matches('0') {
        "" => format!("{}ms", micros / 1000),
        rest => format!("{}.{rest}ms", micros / 1000),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    #[test]
    fn latencies_are_read_with_and_without_unit() {
        for (text, micros) in
            [("10", 10_000), ("100ms", 100_000), ("0.1s", 100_000), ("250us", 250), (" 7 ms ", 7_000), ("0", 0)]
        {
            assert_eq!(latency_micros(text), Ok(micros), "{text}");
        }
        for text in ["", "ms", "-1", "fast", "1e3", "inf", "nan", "1.2.3", "99999999999", "10 parsecs", "10min"] {
            assert!(latency_micros(text).is_err(), "{text}");
        }
    }

    #[test]
    fn latencies_are_printed() {
        for (micros, text) in [(10_000, "10ms"), (12_300, "12.3ms"), (250, "0.25ms"), (1, "0.001ms"), (0, "0ms")] {
            assert_eq!(micros_text(micros), text);
        }
    }
}
