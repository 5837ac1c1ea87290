//! A buffer: capacity that is bought before somebody needs it (D2.1 §6.4.3, proactive acquisition). Pure.
//!
//! It is bought in *lots*, each a purchase of its own. A lot is *free* by what nobody asks for on its virtual nodes.
//!
//! ```text
//!  Σ free of lots, without those that end soon, with those that are being bought
//!     < amounts ───────────────────────────────────────────────▶ buy one lot of `step`
//!     ≥ amounts + all of a lot that has been unused so long ───▶ release that one
//! ```
//! Nothing flaps: what was bought is released only when the rest is enough without it, and only after it was unused for a time.

use std::time::Duration;

use jiff::Timestamp;

use super::{Amounts, Resource};

/// Lots of one buffer: a workload of more is bought for by itself.
pub const LOTS_MAX: usize = 16;

/// What is kept free.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Buffer {
    /// Its name.
    pub name: String,
    /// How much is kept free.
    pub amounts: Amounts,
    /// How much is bought at a time.
    pub step: Amounts,
    /// On which architecture.
    pub architecture: Option<String>,
    /// What its places must be like, as a workload would say it.
    pub intents: Vec<(String, String)>,
    /// Whose ceilings it counts for.
    pub namespace: Option<String>,
    /// For so long a lot must have been unused before it is released.
    pub unused: Duration,
    /// A lot that ends within this time is replaced.
    pub lead: Duration,
}

/// One purchase.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lot {
    /// The Solver that buys it.
    pub name: String,
    /// How it stands.
    pub state: LotState,
}

/// How a lot stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LotState {
    /// It is being bought.
    Buying,
    /// It could not be bought.
    Failed {
        /// When that was known.
        at: Timestamp,
        /// Why, in words.
        why: String,
    },
    /// It can be used.
    Bought {
        /// How much it is.
        size: Amounts,
        /// How much of it is asked for.
        used: Amounts,
        /// When its first contract ends; `None` is never.
        ends: Option<Timestamp>,
        /// Since when nobody uses it; `None` is that somebody does.
        unused_since: Option<Timestamp>,
    },
}

/// What is to be done for a buffer, one thing at a time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BufferStep {
    /// Buy one lot.
    Buy,
    /// Take this lot away: it is not needed, or came to nothing.
    Release(String),
}

/// What a buffer comes to now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BufferPlan {
    /// What is to be done.
    pub step: Option<BufferStep>,
    /// When to look again, if nothing changes.
    pub look_again: Option<Timestamp>,
    /// How much is free.
    pub free: Amounts,
    /// How it stands, in words.
    pub told: String,
}

/// A purchase that came to nothing is tried again after this: prices and policies change by the hour, not by the second.
const RETRY: Duration = Duration::from_secs(60);

/// Decides about a buffer. One that is not wanted any more has amounts of 0: its lots go as they become unused.
pub fn buffer_plan(buffer: &Buffer, lots: &[Lot], now: Timestamp) -> BufferPlan {
    let (mut free, mut coming, mut counted) = (Amounts::default(), Amounts::default(), 0usize);
    let (mut look_again, mut failed) = (None::<Timestamp>, None);
    let mut look =
        |at: Option<Timestamp>| look_again = [look_again, at.filter(|at| *at > now)].into_iter().flatten().min();
    let mut retry = None;
    for lot in lots {
        match &lot.state {
            LotState::Buying => {
                counted += 1;
                coming = coming.checked_add(&buffer.step).unwrap_or_else(|| buffer.amounts.clone());
            }
            LotState::Failed { at, why } => {
                failed = Some(why.clone());
                let again = after(*at, RETRY);
                if again.is_none_or(|again| again <= now) { retry = Some(lot.name.clone()) } else { look(again) }
            }
            LotState::Bought { size, used, ends, .. } => {
                counted += 1;
                let replaced = ends.and_then(|ends| after(ends, Duration::ZERO)).map(|ends| before(ends, buffer.lead));
                if replaced.is_none_or(|replaced| replaced > now) {
                    free = free.checked_add(&size.saturating_sub(used)).unwrap_or(free);
                    look(replaced);
                }
            }
        }
    }
    let enough = |free: &Amounts| free.shortfalls(&buffer.amounts).is_empty();
    let with_coming = free.checked_add(&coming).unwrap_or_else(|| free.clone());
    let step = if let Some(retry) = retry {
        Some(BufferStep::Release(retry))
    } else if !enough(&with_coming) {
        (failed.is_none() && counted < LOTS_MAX).then_some(BufferStep::Buy)
    } else {
        let (unneeded, later) = unneeded(buffer, lots, &free, now);
        look(later);
        unneeded.map(BufferStep::Release)
    };
    let told = told(buffer, &free, counted, failed.as_deref(), coming.is_zero());
    BufferPlan { step, look_again, free, told }
}

/// The last lot that nobody needs and nobody has used for long enough; or when one will be.
fn unneeded(buffer: &Buffer, lots: &[Lot], free: &Amounts, now: Timestamp) -> (Option<String>, Option<Timestamp>) {
    let mut later = None::<Timestamp>;
    for lot in lots.iter().rev() {
        let LotState::Bought { size, used, unused_since: Some(since), .. } = &lot.state else { continue };
        let without = free.saturating_sub(&size.saturating_sub(used));
        if !without.shortfalls(&buffer.amounts).is_empty() {
            continue;
        }
        match after(*since, buffer.unused) {
            Some(at) if at > now => later = [later, Some(at)].into_iter().flatten().min(),
            _ => return (Some(lot.name.clone()), None),
        }
    }
    (None, later)
}

fn told(buffer: &Buffer, free: &Amounts, lots: usize, failed: Option<&str>, settled: bool) -> String {
    let standing = match (free.lack(&buffer.amounts, "free"), settled) {
        (None, _) => "kept".to_owned(),
        (Some(short), true) => short,
        (Some(short), false) => format!("being bought: {short}"),
    };
    let full = if lots >= LOTS_MAX { format!("; {LOTS_MAX} lots, which is the most") } else { String::new() };
    let failed = failed.map(|why| format!("; the last lot was not bought: {why}")).unwrap_or_default();
    format!("{standing}{full}{failed}")
}

fn after(at: Timestamp, by: Duration) -> Option<Timestamp> {
    at.checked_add(jiff::SignedDuration::try_from(by).ok()?).ok()
}

fn before(at: Timestamp, by: Duration) -> Timestamp {
    let by = jiff::SignedDuration::try_from(by).unwrap_or(jiff::SignedDuration::MAX);
    at.checked_sub(by).unwrap_or(Timestamp::MIN)
}

impl Buffer {
    /// Returns a buffer of which nothing is wanted any more: its lots go as they become unused for ten minutes.
    pub fn released(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            amounts: Amounts::default(),
            step: Amounts::default(),
            architecture: None,
            intents: Vec::new(),
            namespace: None,
            unused: Duration::from_secs(600),
            lead: Duration::ZERO,
        }
    }

    /// Returns how many lots hold what is kept, one after the other.
    pub fn lots_needed(&self) -> u64 {
        let of = |resource: Resource| {
            let (all, step) = (self.amounts.get(&resource), self.step.get(&resource));
            if step == 0 { 0 } else { all.div_ceil(step) }
        };
        self.amounts.resources().map(of).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn cpus(cpu_milli: u64) -> Amounts {
        Amounts { cpu_milli, ..Amounts::default() }
    }

    fn buffer() -> Buffer {
        Buffer {
            name: "b".into(),
            amounts: cpus(2000),
            step: cpus(1000),
            architecture: None,
            intents: vec![],
            namespace: None,
            unused: Duration::from_secs(600),
            lead: Duration::from_secs(300),
        }
    }

    fn bought(name: &str, used: u64, ends: Option<i64>, unused_since: Option<i64>) -> Lot {
        let state = LotState::Bought {
            size: cpus(1000),
            used: cpus(used),
            ends: ends.map(at),
            unused_since: unused_since.map(at),
        };
        Lot { name: name.into(), state }
    }

    fn check(lots: &[Lot], now: i64) -> String {
        let plan = buffer_plan(&buffer(), lots, at(now));
        let step = match &plan.step {
            None => "nothing".to_owned(),
            Some(BufferStep::Buy) => "buy".into(),
            Some(BufferStep::Release(name)) => format!("release {name}"),
        };
        let look = plan.look_again.map(|at| format!(" until {}", at.as_second())).unwrap_or_default();
        format!("{step}{look}: {}", plan.told)
    }

    #[test]
    fn what_is_missing_is_bought_one_lot_after_the_other_and_no_more() {
        assert_eq!(check(&[], 0), "buy: cpu: 0 free, needed 2");
        let buying = Lot { name: "a".into(), state: LotState::Buying };
        assert_eq!(check(std::slice::from_ref(&buying), 0), "buy: being bought: cpu: 0 free, needed 2");
        assert_eq!(check(&[buying.clone(), buying.clone()], 0), "nothing: being bought: cpu: 0 free, needed 2");
        let full = [bought("a", 0, None, Some(0)), bought("b", 0, None, Some(0))];
        assert_eq!(check(&full, 10_000), "nothing: kept", "unused for long, and needed all the same");
        let used = [bought("a", 100, None, None), bought("b", 0, None, Some(0))];
        assert_eq!(check(&used, 0), "buy: cpu: 1900m free, needed 2");
    }

    #[test]
    fn what_is_not_needed_is_released_after_a_time_and_never_too_much() {
        let spare = |since| [bought("a", 0, None, Some(0)), bought("b", 0, None, Some(0)), bought("c", 0, None, since)];
        assert_eq!(check(&spare(Some(100)), 599), "nothing until 600: kept");
        assert_eq!(check(&spare(Some(100)), 699), "release b: kept");
        assert_eq!(check(&spare(Some(100)), 700), "release c: kept", "the last first");
        // Somebody uses a bit of one: the two others are all there is to be kept.
        let used = [bought("a", 1, None, None), bought("b", 0, None, Some(0)), bought("c", 0, None, Some(0))];
        assert_eq!(check(&used, 10_000), "nothing: kept");
    }

    #[test]
    fn what_ends_soon_is_replaced_before_it_does() {
        let ends = [bought("a", 0, Some(1000), Some(0)), bought("b", 0, None, Some(0))];
        assert_eq!(check(&ends, 699), "nothing until 700: kept");
        assert_eq!(check(&ends, 700), "buy: cpu: 1 free, needed 2");
    }

    #[test]
    fn what_could_not_be_bought_says_why_and_is_tried_again_later() {
        let failed = Lot { name: "f".into(), state: LotState::Failed { at: at(0), why: "ceiling".into() } };
        let told = "cpu: 0 free, needed 2; the last lot was not bought: ceiling";
        assert_eq!(check(std::slice::from_ref(&failed), 59), format!("nothing until 60: {told}"));
        assert_eq!(check(&[failed], 60), format!("release f: {told}"));
        let many: Vec<Lot> = (0..LOTS_MAX).map(|n| bought(&n.to_string(), 1000, None, None)).collect();
        assert_eq!(check(&many, 0), "nothing: cpu: 0 free, needed 2; 16 lots, which is the most");
    }

    #[test]
    fn what_is_not_wanted_any_more_goes_as_it_becomes_unused() {
        let none = Buffer { amounts: Amounts::default(), ..buffer() };
        let lots = [bought("used", 1, None, None), bought("idle", 0, None, Some(0))];
        assert_eq!(buffer_plan(&none, &lots, at(600)).step, Some(BufferStep::Release("idle".into())));
        assert_eq!(buffer_plan(&none, &lots[..1], at(600)).step, None);
    }
}
