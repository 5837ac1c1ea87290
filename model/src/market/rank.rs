//! The order in which candidates are asked: by the criteria of the policy, then the smallest surplus, then the name.
//!
//! | criterion | first |
//! |---|---|
//! | preferences | whoever leaves the fewest unmet, before all else |
//! | price | the least for an hour; currencies in the order in which the policy names them; what is not stated last |
//! | latency | the least that was measured; what was not last |
//! | rating | the best; who is not known stands in the middle |
//! | surplus | exact, then the smallest |
//!
//! The *surplus* of a resource is what would be bought beyond what was asked for, in thousandths of what was asked for; that
//! of a candidate is the sum over the resources that were asked for. It is money spent for nothing once prices exist.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{Amounts, Currency, Price};

/// A seller's flavor that matches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate<'a> {
    /// Name that is the same on every look: what breaks a tie.
    pub name: Cow<'a, str>,
    /// Preferences that it does not meet.
    pub unmet: usize,
    /// What would be bought from it.
    pub buys: Amounts,
    /// For what; `None` is not stated.
    pub price: Option<Price>,
    /// Measured round trip.
    pub latency_micros: Option<u64>,
    /// What was seen of the seller, from 0 to 100.
    pub rating: Option<u8>,
}

/// Nothing was seen: neither good nor bad.
const RATING_UNKNOWN: u8 = 50;

/// By what candidates are ranked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // the variants are their own words
pub enum Criterion {
    Price,
    Latency,
    Rating,
    Surplus,
}

impl Criterion {
    /// Returns the criterion of a word, if it is one.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "price" => Some(Self::Price),
            "latency" => Some(Self::Latency),
            "rating" => Some(Self::Rating),
            "surplus" => Some(Self::Surplus),
            _ => None,
        }
    }
}

/// A candidate with its place and the reason for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ranked {
    /// Index into the candidates given.
    pub index: usize,
    /// Thousandths, 0 is exact.
    pub surplus_milli: u64,
    /// Why it has this place, in words.
    pub reason: String,
}

/// Returns the candidates in the order in which to ask them, one after the other: of thousands the first few are wanted, and the rest
/// costs neither a comparison nor a word. `wanted` is what filters ask for at least, 0 where they do not; `currencies` are those in
/// which may be paid, the dearest to the owner first.
pub fn rank<'a>(
    wanted: &'a Amounts,
    candidates: &'a [Candidate<'a>],
    criteria: &[Criterion],
    currencies: &[Currency],
) -> impl Iterator<Item = Ranked> + use<'a> {
    let place = |(index, candidate): (usize, &'a Candidate<'a>)| {
        let surplus_milli = surplus_milli(wanted, &candidate.buys);
        let key = |criterion: &Criterion| key(*criterion, candidate, surplus_milli, currencies);
        let keys: Vec<(usize, u128)> = criteria.iter().map(key).collect();
        Reverse((candidate.unmet, keys, surplus_milli, &*candidate.name, index))
    };
    let mut places: BinaryHeap<_> = candidates.iter().enumerate().map(place).collect::<Vec<_>>().into();
    std::iter::from_fn(move || {
        let Reverse((.., surplus_milli, _, index)) = places.pop()?;
        let reason = reason(wanted, candidates.get(index)?, surplus_milli);
        Some(Ranked { index, surplus_milli, reason })
    })
}

/// What is known of a candidate, in words; what is not is `?`.
fn reason(wanted: &Amounts, candidate: &Candidate<'_>, surplus_milli: u64) -> String {
    let unknown = || "?".to_owned();
    let price = candidate.price.map_or_else(unknown, |price| price.to_string());
    let rating = candidate.rating.map_or_else(unknown, |rating| rating.to_string());
    let latency =
        candidate.latency_micros.map_or_else(unknown, |micros| format!("{}.{} ms", micros / 1000, micros % 1000 / 100));
    let surplus = match surplus_milli {
        0 => "exactly what was asked for".to_owned(),
        surplus => {
            format!("{} for {wanted}, {}.{} % more than asked for", candidate.buys, surplus / 10, surplus % 10)
        }
    };
    format!("price {price}, rating {rating}, latency {latency}; {surplus}")
}

/// What counts for a criterion, the least first: a class (the currency), and a number in it.
fn key(criterion: Criterion, candidate: &Candidate<'_>, surplus_milli: u64, currencies: &[Currency]) -> (usize, u128) {
    const UNKNOWN: (usize, u128) = (usize::MAX, 0);
    match criterion {
        Criterion::Surplus => (0, u128::from(surplus_milli)),
        Criterion::Latency => candidate.latency_micros.map_or(UNKNOWN, |micros| (0, u128::from(micros))),
        Criterion::Rating => (0, u128::from(u8::MAX - candidate.rating.unwrap_or(RATING_UNKNOWN))),
        Criterion::Price => match candidate.price {
            Some(price) if price.is_zero() => (0, 0),
            Some(price) => {
                let class = currencies.iter().position(|currency| Some(*currency) == price.currency);
                let hour = price.hourly();
                class.zip(hour).map_or(UNKNOWN, |(class, hour)| (class + 1, hour.nano()))
            }
            None => UNKNOWN,
        },
    }
}

fn surplus_milli(wanted: &Amounts, buys: &Amounts) -> u64 {
    let asked_for = wanted.resources().filter(|resource| wanted.get(resource) != 0);
    let parts = asked_for.map(|resource| {
        let (wanted, buys) = (u128::from(wanted.get(&resource)), u128::from(buys.get(&resource)));
        u64::try_from(buys.saturating_sub(wanted) * 1000 / wanted).unwrap_or(u64::MAX)
    });
    parts.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    #[test]
    fn exact_first_then_the_smallest_surplus_then_the_name() {
        let candidate = |name: &str, cpu_milli, pods| Candidate {
            name: name.to_owned().into(),
            unmet: 0,
            buys: Amounts { cpu_milli, pods, ..Amounts::default() },
            price: None,
            latency_micros: None,
            rating: None,
        };
        let candidates =
            [candidate("d", 2000, 5), candidate("c", 1500, 9), candidate("b", 1000, 110), candidate("a", 1500, 1)];
        let wanted = Amounts { cpu_milli: 1000, ..Amounts::default() };
        let ranked: Vec<Ranked> = rank(&wanted, &candidates, &[], &[]).collect();
        let names: Vec<_> = ranked.iter().map(|ranked| &*candidates[ranked.index].name).collect();
        assert_eq!(names, ["b", "a", "c", "d"]);
        assert_eq!(ranked[0].reason, "price ?, rating ?, latency ?; exactly what was asked for");
        let more = "cpu 1500m, pods 1 for cpu 1, 50.0 % more than asked for";
        assert_eq!(ranked[1].reason, format!("price ?, rating ?, latency ?; {more}"));
    }

    #[test]
    fn the_criteria_of_the_policy_come_first() {
        let candidate = |name: &str, price: (&str, &str, &str), latency_micros| Candidate {
            name: name.to_owned().into(),
            unmet: 0,
            buys: Amounts { cpu_milli: 1000, ..Amounts::default() },
            price: Price::parse(price.0, price.1, price.2).unwrap(),
            latency_micros,
            rating: None,
        };
        let mut candidates = vec![
            candidate("unsaid", ("", "", ""), Some(1)),
            candidate("dollars", ("0.01", "USD", "hour"), Some(5)),
            candidate("daily", ("1", "EUR", "day"), None),
            candidate("hourly", ("0.05", "EUR", "hour"), Some(2)),
            candidate("gift", ("0", "", ""), Some(9)),
            candidate("pounds", ("0.01", "GBP", "hour"), Some(3)),
        ];
        let order_of = |candidates: &[Candidate<'_>], criteria: &[Criterion]| {
            let currencies = ["EUR", "USD"].map(|code| Currency::parse(code).unwrap());
            let wanted = Amounts::default();
            let names: Vec<_> = rank(&wanted, candidates, criteria, &currencies)
                .map(|ranked| &*candidates[ranked.index].name)
                .collect();
            names.join(" ")
        };
        let order = |criteria: &[Criterion]| order_of(&candidates, criteria);
        assert_eq!(order(&[Criterion::Price]), "gift daily hourly dollars pounds unsaid");
        assert_eq!(order(&[Criterion::Latency]), "unsaid hourly pounds dollars gift daily");
        assert_eq!(order(&[Criterion::Surplus, Criterion::Price]), order(&[Criterion::Price]));
        assert_eq!(order(&[]), "daily dollars gift hourly pounds unsaid");
        for (index, rating) in [(1, 17), (3, 95), (5, 67)] {
            candidates[index].rating = Some(rating);
        }
        // Of the three that are not known nobody knows whether they are better than the one that broke its word: they are tried first.
        let rated = order_of(&candidates, &[Criterion::Rating, Criterion::Price]);
        assert_eq!(rated, "hourly pounds gift daily unsaid dollars");
        candidates[3].unmet = 1;
        let preferred = order_of(&candidates, &[Criterion::Rating, Criterion::Price]);
        assert_eq!(preferred, "pounds gift daily unsaid dollars hourly");
    }
}
