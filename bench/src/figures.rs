//! From samples to figures.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Times of one thing.
#[derive(Clone, Default)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// Runs it so often and keeps how long each took.
    pub fn of(runs: usize, mut run: impl FnMut()) -> Self {
        let timed = |_| {
            let begun = Instant::now();
            run();
            begun.elapsed()
        };
        Self((0..runs).map(timed).collect())
    }

    /// One more.
    pub fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// Those of another, too.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The time that so many per mille do not exceed, in microseconds.
    pub fn micros(&self, per_mille: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let place = (sorted.len().saturating_sub(1) * per_mille).div_ceil(1000);
        sorted.get(place).map_or(f64::NAN, |time| rounded(time.as_secs_f64() * 1e6))
    }

    /// p50, p99, minimum and maximum in microseconds, and how many.
    pub fn figures(&self) -> Value {
        json!({
            "p50_us": self.micros(500), "p99_us": self.micros(990), "min_us": self.micros(0), "max_us": self.micros(1000),
            "runs": self.0.len(),
        })
    }
}

/// Median, minimum and maximum of numbers.
pub fn spread(mut numbers: Vec<f64>) -> Value {
    numbers.sort_by(f64::total_cmp);
    let at = |place: usize| numbers.get(place).copied().map_or(f64::NAN, rounded);
    json!({ "p50": at(numbers.len() / 2), "min": at(0), "max": at(numbers.len().saturating_sub(1)), "runs": numbers.len() })
}

/// Three digits after the point.
pub fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

/// Bytes of this process that are in memory now.
pub fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default() * 4096
}
