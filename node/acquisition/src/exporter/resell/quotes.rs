//! What was offered to whom to be sold on, for a minute: in memory, because nothing is promised by it. Pure: time is an argument.
//!
//! A **quote** is what a buyer was told, and what is behind it. It is no Flavor object: it is for one buyer, at one price, and gone before
//! anybody could look at it. After a restart its buyer asks again. What it needs is asked of others not more often than these bounds say,
//! whatever a buyer sends.

use std::collections::BTreeMap;
use std::time::Duration;

use fluidos_identity::NodeId;
use fluidos_model::kinds::Flavor;
use fluidos_model::market::{Amounts, Price};
use jiff::Timestamp;

use crate::importer::view::Offered;
use crate::terms;

/// A buyer that compares offers takes one within seconds; prices behind it may change.
const QUOTE_LIFE: Duration = Duration::from_secs(60);
/// A Solver asks again each second or two: others are not asked each time.
const FRESH: Duration = Duration::from_secs(5);
/// Each is some KiB; the oldest goes.
const QUOTES_MAX: usize = 256;
/// Needs of one buyer at a time: those of the Solvers that it works on.
const OF_ONE_MAX: usize = 16;
/// How often others are asked in a minute for one buyer, and for all together: each time a whole shortlist is.
const ASKS_OF_ONE: u32 = 12;
const ASKS_OF_ALL: u32 = 60;
const MINUTE: Duration = Duration::from_secs(60);

/// What a buyer was told, and what is behind it.
#[derive(Clone, Debug)]
pub(super) struct Quote {
    /// As the buyer is told of it: whole, at this price.
    pub flavor: Flavor,
    pub amounts: Amounts,
    pub price: Price,
    /// Who would sell it, best first; each at a price that leaves the margin.
    pub offers: Vec<Offered>,
}

/// What others said to a need.
#[derive(Clone, Debug)]
pub(super) enum Said {
    Offered(Box<Quote>),
    Denied(String),
}

#[derive(Debug)]
struct Entry {
    said: Said,
    buyer: NodeId,
    at: Timestamp,
}

/// All quotes, by the name of the flavor that the need would have.
#[derive(Debug, Default)]
pub(super) struct Quotes {
    entries: BTreeMap<String, Entry>,
    asks: BTreeMap<NodeId, u32>,
    asked: u32,
    minute: Option<Timestamp>,
}

fn over(at: Timestamp, life: Duration, now: Timestamp) -> bool {
    // A clock that went back makes nothing live longer.
    now < at || terms::shifted(at, life, 1).is_none_or(|end| end <= now)
}

impl Quotes {
    /// What others have said to this need of this buyer a moment ago.
    pub fn fresh(&self, flavor: &str, buyer: NodeId, now: Timestamp) -> Option<Said> {
        let entry = self.entries.get(flavor).filter(|entry| entry.buyer == buyer && !over(entry.at, FRESH, now))?;
        Some(entry.said.clone())
    }

    /// What a buyer may hold.
    pub fn find(&self, flavor: &str, buyer: NodeId, now: Timestamp) -> Option<Quote> {
        let entry =
            self.entries.get(flavor).filter(|entry| entry.buyer == buyer && !over(entry.at, QUOTE_LIFE, now))?;
        match &entry.said {
            Said::Offered(quote) => Some(quote.as_ref().clone()),
            Said::Denied(_) => None,
        }
    }

    /// What was offered to a buyer and still is.
    pub fn of(&self, buyer: NodeId, now: Timestamp) -> Vec<Flavor> {
        let own = self.entries.values().filter(|entry| entry.buyer == buyer && !over(entry.at, QUOTE_LIFE, now));
        let flavors = own.filter_map(|entry| match &entry.said {
            Said::Offered(quote) => Some(quote.flavor.clone()),
            Said::Denied(_) => None,
        });
        flavors.collect()
    }

    /// Counts that others are asked for a buyer.
    ///
    /// # Errors
    /// A sentence: it is too often.
    pub fn admit(&mut self, buyer: NodeId, now: Timestamp) -> Result<(), String> {
        if self.minute.is_none_or(|minute| over(minute, MINUTE, now)) {
            (self.asks, self.asked, self.minute) = (BTreeMap::new(), 0, Some(now));
        }
        let of_one = self.asks.get(&buyer).copied().unwrap_or(0);
        if of_one >= ASKS_OF_ONE {
            return Err(format!("resale: others were asked {of_one} times for you within a minute, which is the most"));
        }
        if self.asked >= ASKS_OF_ALL {
            return Err("resale: others were asked as often as they may be within a minute".into());
        }
        self.asked += 1;
        self.asks.insert(buyer, of_one + 1);
        Ok(())
    }

    /// Remembers what others have said to a need.
    pub fn keep(&mut self, flavor: String, buyer: NodeId, said: Said, now: Timestamp) {
        self.entries.retain(|_, entry| !over(entry.at, QUOTE_LIFE, now));
        self.entries.remove(&flavor);
        let of_one = self.entries.values().filter(|entry| entry.buyer == buyer).count();
        if of_one >= OF_ONE_MAX {
            self.drop_oldest(|entry| entry.buyer == buyer);
        } else if self.entries.len() >= QUOTES_MAX {
            self.drop_oldest(|_| true);
        }
        self.entries.insert(flavor, Entry { said, buyer, at: now });
    }

    fn drop_oldest(&mut self, of: impl Fn(&Entry) -> bool) {
        let oldest = self.entries.iter().filter(|(_, entry)| of(entry)).min_by_key(|(_, entry)| entry.at);
        if let Some(name) = oldest.map(|(name, _)| name.clone()) {
            self.entries.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use fluidos_identity::NodeKey;

    use super::*;

    fn buyer(seed: u8) -> NodeId {
        NodeKey::from_seed([seed; 32]).unwrap().id()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn quote() -> Said {
        let flavor = Flavor::new("f", Default::default());
        let (amounts, price) = (Amounts::default(), Price::ZERO);
        Said::Offered(Box::new(Quote { flavor, amounts, price, offers: vec![] }))
    }

    #[test]
    fn a_quote_is_of_one_buyer_and_for_a_minute() {
        let mut quotes = Quotes::default();
        quotes.keep("f".into(), buyer(1), quote(), at(0));
        quotes.keep("g".into(), buyer(1), Said::Denied("no".into()), at(0));
        assert!(quotes.find("f", buyer(1), at(59)).is_some());
        assert!(quotes.find("f", buyer(2), at(1)).is_none(), "it is nobody else's");
        assert!(quotes.find("f", buyer(1), at(60)).is_none());
        assert!(quotes.find("f", buyer(1), at(-1)).is_none(), "a clock that goes back");
        assert!(quotes.find("g", buyer(1), at(1)).is_none());
        assert!(matches!(quotes.fresh("g", buyer(1), at(4)), Some(Said::Denied(reason)) if reason == "no"));
        assert!(quotes.fresh("g", buyer(1), at(5)).is_none() && quotes.fresh("f", buyer(2), at(1)).is_none());
        assert_eq!((quotes.of(buyer(1), at(1)).len(), quotes.of(buyer(2), at(1)).len()), (1, 0));
    }

    #[test]
    fn nobody_has_others_asked_all_the_time_nor_fills_the_memory() {
        let mut quotes = Quotes::default();
        let asked = |quotes: &mut Quotes, seed, second| {
            (0..20).filter(|_| quotes.admit(buyer(seed), at(second)).is_ok()).count()
        };
        assert_eq!(asked(&mut quotes, 1, 0), 12);
        let others: usize = (2..10).map(|seed| asked(&mut quotes, seed, 1)).sum();
        assert_eq!(others, 48, "60 of all");
        assert_eq!(asked(&mut quotes, 1, 60), 12);
        for number in 0..40 {
            quotes.keep(format!("f{number}"), buyer(1), quote(), at(number));
        }
        assert_eq!(quotes.entries.len(), 16);
        assert!(quotes.find("f39", buyer(1), at(39)).is_some() && quotes.find("f0", buyer(1), at(39)).is_none());
        for seed in 2..60 {
            (0..16).for_each(|number| quotes.keep(format!("{seed}-{number}"), buyer(seed), quote(), at(40)));
        }
        assert_eq!(quotes.entries.len(), QUOTES_MAX);
    }
}
