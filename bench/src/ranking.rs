//! What the answers of providers are worth: filtered by the request and the buyer's policy, and ranked.

use std::hint::black_box;

use fluidos_acquisition::bench::Answers;
use serde_json::{Value, json};

use crate::figures::{Samples, resident_bytes, rounded};

const RUNS: usize = 15;

/// The figures.
pub fn measure() -> Value {
    let mut grown = Vec::new();
    for providers in [1, 10, 100, 1_000, 10_000] {
        let before = resident_bytes();
        let answers = Answers::of(providers);
        let bytes = resident_bytes().saturating_sub(before);
        let times = Samples::of(RUNS, || {
            black_box(answers.weigh());
        });
        let mut row = json!({ "providers": providers, "offered": answers.weigh(), "time": times.figures() });
        // Below some thousand, pages say nothing about one.
        if providers >= 10_000 {
            row["bytes_each"] = json!(rounded(bytes as f64 / providers as f64));
        }
        grown.push(row);
    }
    json!({ "by_providers": grown })
}
