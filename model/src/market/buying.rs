//! What may be bought at which price: the rules of an `AcquisitionPolicy`. Pure.
//!
//! ```text
//!  price not stated ─▶ never          stated 0 ─▶ always
//!  else: no policy ─▶ never;  policy ─▶ if every ceiling of its currency holds with what is bought already
//! ```
//! A *ceiling* is of one currency, for an hour and for a month of UTC, for everything or for one namespace. The hour is what all
//! running contracts cost together; the month is what they will have cost at its end, with those that ended in it. So the last
//! euro of a month is not promised twice.

use std::time::Duration;

use jiff::Timestamp;

use super::{Accepted, Buffer, Criterion, Currency, Decimal, Money, MoneyError, Price, month_of};

/// Contracts that ended within one month and are remembered for its ceiling: one object holds them, about 150 bytes each. When it
/// is full nothing more is bought at a price until the month is over: what is not counted could be spent twice.
pub const ENDED_MAX: usize = 1024;

/// The rules of one policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Buying {
    /// Name of the policy.
    pub name: String,
    /// What may be spent.
    pub ceilings: Vec<Ceiling>,
    /// By what candidates are ranked, the first counts most.
    pub ranking: Vec<Criterion>,
    /// How many peers are asked at the same time; the next so many when none of these sells.
    pub shortlist: usize,
    /// How long a peer has to say what it offers.
    pub deadline: Duration,
    /// For how long is bought; `None` is as long as the seller sells.
    pub term: Option<Duration>,
    /// Who is asked at all.
    pub rating: LeastRating,
    /// What is signed beyond size, price and term.
    pub accepts: Accepted,
    /// What is bought before somebody needs it.
    pub buffers: Vec<Buffer>,
}

/// What must have been seen of a peer that is bought from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeastRating {
    /// The least, from 0 to 100.
    pub least: u8,
    /// Whether who is not known is asked.
    pub unknown: bool,
}

impl LeastRating {
    /// Anybody.
    pub const ANY: Self = Self { least: 0, unknown: true };

    /// Says whether a peer may be asked.
    ///
    /// # Errors
    /// The observed and the needed, in words.
    pub fn admits(&self, rating: Option<u8>) -> Result<(), String> {
        match rating {
            Some(value) if value >= self.least => Ok(()),
            None if self.unknown => Ok(()),
            Some(value) => Err(format!("its rating is {value}, needed at least {}", self.least)),
            None => Err(format!("its rating is ?, needed at least {}", self.least)),
        }
    }
}

/// What may be spent in one currency.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ceiling {
    /// In which.
    pub currency: Currency,
    /// For which namespace; `None` is for everything together.
    pub namespace: Option<String>,
    /// For an hour.
    pub hour: Option<Decimal>,
    /// For a month of UTC.
    pub month: Option<Decimal>,
}

/// A contract that is, or was, paid for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expense {
    /// At which price.
    pub price: Price,
    /// From when.
    pub from: Timestamp,
    /// Until when; `None` is until somebody ends it.
    pub until: Option<Timestamp>,
    /// For which namespace.
    pub namespace: Option<String>,
}

/// Why something is not bought.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum BuyingRefusal {
    /// The seller does not say what it wants.
    #[error("price: ?, needed a stated one")]
    NotStated,
    /// It costs something, and nobody has allowed to pay.
    #[error("price: {price}, needed 0: there is no AcquisitionPolicy")]
    NoPolicy {
        /// What it costs.
        price: Price,
    },
    /// The policy cannot be read.
    #[error("price: {price}, needed 0: the AcquisitionPolicy is not accepted: {reason}")]
    Unreadable {
        /// What it costs.
        price: Price,
        /// Why.
        reason: String,
    },
    /// Nothing may be paid in this currency.
    #[error("price: {price}, needed a currency of AcquisitionPolicy {policy}: {currencies}")]
    OtherCurrency {
        /// What it costs.
        price: Price,
        /// Which policy.
        policy: String,
        /// What may be paid in.
        currencies: String,
    },
    /// It would be too much for an hour.
    #[error(
        "ceiling: {observed} {currency} an hour with it, needed at most {needed} (AcquisitionPolicy {policy}{namespace})"
    )]
    Hour {
        /// What an hour would cost.
        observed: Decimal,
        /// In which currency.
        currency: Currency,
        /// What it may cost.
        needed: Decimal,
        /// Which policy.
        policy: String,
        /// `, namespace NAME`, or nothing.
        namespace: String,
    },
    /// It would be too much for this month.
    #[error("ceiling: {observed} this month with it, needed at most {needed} (AcquisitionPolicy {policy}{namespace})")]
    Month {
        /// What the month would have cost at its end.
        observed: Money,
        /// What it may cost.
        needed: Money,
        /// Which policy.
        policy: String,
        /// `, namespace NAME`, or nothing.
        namespace: String,
    },
    /// More contracts have ended this month than are remembered.
    #[error("ceiling: {ENDED_MAX} contracts have ended this month, more are not counted: needed a new month")]
    Full,
    /// It cannot be counted.
    #[error("ceiling: {0}")]
    Uncountable(#[from] MoneyError),
}

/// A contract that may be bought.
#[derive(Clone, Copy, Debug)]
pub struct Purchase<'a> {
    /// What the seller wants; `None` is not stated.
    pub price: Option<Price>,
    /// For which namespace.
    pub namespace: Option<&'a str>,
}

/// Decides whether something may be bought now. `policy` is `None` without one, and an error if it cannot be read.
///
/// # Errors
/// [`BuyingRefusal`]: it may not.
pub fn may_buy(
    policy: Option<&Result<Buying, String>>,
    purchase: &Purchase,
    expenses: &[Expense],
    now: Timestamp,
) -> Result<(), BuyingRefusal> {
    let price = purchase.price.ok_or(BuyingRefusal::NotStated)?;
    if price.is_zero() {
        return Ok(());
    }
    let policy = match policy {
        None => return Err(BuyingRefusal::NoPolicy { price }),
        Some(Err(reason)) => return Err(BuyingRefusal::Unreadable { price, reason: reason.clone() }),
        Some(Ok(policy)) => policy,
    };
    let of_currency = |ceiling: &&Ceiling| Some(ceiling.currency) == price.currency;
    if !policy.ceilings.iter().filter(of_currency).any(|ceiling| ceiling.namespace.is_none()) {
        let codes = policy.ceilings.iter().filter(|ceiling| ceiling.namespace.is_none());
        let codes: Vec<&str> = codes.map(|ceiling| ceiling.currency.code()).collect();
        let (policy, currencies) = (policy.name.clone(), codes.join(", "));
        return Err(BuyingRefusal::OtherCurrency { price, policy, currencies });
    }
    let (month, next_month) = month_of(now);
    let ended = expenses.iter().filter(|expense| expense.until.is_some_and(|until| until <= now && until > month));
    if ended.count() >= ENDED_MAX {
        return Err(BuyingRefusal::Full);
    }
    let new = Expense { price, from: now, until: None, namespace: purchase.namespace.map(str::to_owned) };
    for ceiling in policy.ceilings.iter().filter(of_currency) {
        let counts = |expense: &&Expense| {
            expense.price.currency == Some(ceiling.currency)
                && ceiling.namespace.as_ref().is_none_or(|namespace| expense.namespace.as_ref() == Some(namespace))
        };
        if !counts(&&new) {
            continue;
        }
        let counted: Vec<&Expense> = expenses.iter().chain([&new]).filter(counts).collect();
        check(policy, ceiling, &counted, (now, month, next_month))?;
    }
    Ok(())
}

fn check(
    policy: &Buying,
    ceiling: &Ceiling,
    expenses: &[&Expense],
    (now, month, next_month): (Timestamp, Timestamp, Timestamp),
) -> Result<(), BuyingRefusal> {
    let currency = ceiling.currency;
    let namespace = ceiling.namespace.as_ref().map(|name| format!(", namespace {name}")).unwrap_or_default();
    if let Some(needed) = ceiling.hour {
        let running = expenses.iter().filter(|expense| expense.until.is_none_or(|until| until > now));
        let sum =
            running.map(|expense| expense.price.hourly()).try_fold(Decimal::ZERO, |sum, hour| sum.checked_add(hour?));
        let observed = sum.ok_or(MoneyError::TooLarge { what: "what an hour costs" })?;
        if observed > needed {
            let policy = policy.name.clone();
            return Err(BuyingRefusal::Hour { observed, currency, needed, policy, namespace });
        }
    }
    if let Some(most) = ceiling.month {
        let (needed, mut observed) = (Money::floor(most, currency), Money { minor: 0, currency });
        for expense in expenses {
            let until = expense.until.unwrap_or(next_month).min(next_month);
            if let Some(money) = expense.price.charge(expense.from.max(month), until)?.money()? {
                observed = observed.checked_add(money).ok_or(MoneyError::TooLarge { what: "what a month costs" })?;
            }
        }
        if observed.minor > needed.minor {
            let policy = policy.name.clone();
            return Err(BuyingRefusal::Month { observed, needed, policy, namespace });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use proptest::prelude::*;

    use super::*;

    /// A month of 30 days, 360 hours before its end.
    const NOW: &str = "2026-11-16T00:00:00Z";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn price(text: &str) -> Price {
        let parts: Vec<&str> = text.split(' ').collect();
        Price::parse(parts[0], parts[1], parts[2]).unwrap().unwrap()
    }

    fn ceiling(currency: &str, namespace: &str, hour: &str, month: &str) -> Ceiling {
        let decimal = |text: &str| (!text.is_empty()).then(|| Decimal::parse(text).unwrap());
        Ceiling {
            currency: Currency::parse(currency).unwrap(),
            namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
            hour: decimal(hour),
            month: decimal(month),
        }
    }

    fn buying(ceilings: &[Ceiling]) -> Option<Result<Buying, String>> {
        let (name, deadline) = ("p".to_owned(), Duration::from_secs(2));
        Some(Ok(Buying {
            name,
            ceilings: ceilings.to_vec(),
            ranking: vec![],
            shortlist: 64,
            deadline,
            term: None,
            rating: LeastRating::ANY,
            accepts: Accepted::default(),
            buffers: vec![],
        }))
    }

    fn expense(text: &str, from: &str, until: Option<&str>, namespace: Option<&str>) -> Expense {
        Expense { price: price(text), from: at(from), until: until.map(at), namespace: namespace.map(str::to_owned) }
    }

    fn told(
        policy: &Option<Result<Buying, String>>,
        price: Option<Price>,
        namespace: Option<&str>,
        expenses: &[Expense],
    ) -> String {
        let bought = may_buy(policy.as_ref(), &Purchase { price, namespace }, expenses, at(NOW));
        bought.map_or_else(|refusal| refusal.to_string(), |()| "bought".into())
    }

    #[test]
    fn only_a_stated_0_is_bought_without_a_policy() {
        let dear = Some(price("0.02 EUR hour"));
        assert_eq!(told(&None, Some(Price::ZERO), None, &[]), "bought");
        assert_eq!(told(&None, None, None, &[]), "price: ?, needed a stated one");
        assert_eq!(told(&None, dear, None, &[]), "price: 0.02 EUR/hour, needed 0: there is no AcquisitionPolicy");
        let euro = buying(&[ceiling("EUR", "", "1", "")]);
        assert_eq!(told(&euro, None, None, &[]), "price: ?, needed a stated one");
        assert_eq!(told(&euro, Some(price("0 USD hour")), None, &[]), "bought");
        assert_eq!(told(&euro, dear, None, &[]), "bought");
        let broken = Some(Err("ranking: …".into()));
        assert_eq!(told(&broken, Some(Price::ZERO), None, &[]), "bought");
        assert!(told(&broken, dear, None, &[]).ends_with("the AcquisitionPolicy is not accepted: ranking: …"));
    }

    #[test]
    fn a_ceiling_counts_what_runs_and_what_the_month_has_cost() {
        let euro = |hour, month| buying(&[ceiling("EUR", "", hour, month)]);
        let new = Some(price("0.5 EUR hour"));
        let running = expense("0.5 EUR hour", "2026-11-01T00:00:00Z", None, None);
        let ended = expense("1 EUR hour", "2026-10-31T00:00:00Z", Some("2026-11-02T00:00:00Z"), None);
        let other = expense("9 USD hour", "2026-11-01T00:00:00Z", None, None);
        let all = [running.clone(), ended.clone(), other];
        assert_eq!(told(&euro("1", ""), new, None, &all), "bought");
        let refused = "ceiling: 1 EUR an hour with it, needed at most 0.99 (AcquisitionPolicy p)";
        assert_eq!(told(&euro("0.99", ""), new, None, &all), refused);
        // 720 h × 0.5 of what runs, 24 h × 1 of what ended, 360 h × 0.5 of the new one.
        assert_eq!(told(&euro("", "564"), new, None, &all), "bought");
        let refused = "ceiling: 564.00 EUR this month with it, needed at most 563.99 EUR (AcquisitionPolicy p)";
        assert_eq!(told(&euro("", "563.999"), new, None, &all), refused);
        let refused = "price: 1 GBP/hour, needed a currency of AcquisitionPolicy p: EUR";
        assert_eq!(told(&euro("1", ""), Some(price("1 GBP hour")), None, &[]), refused);
        let many = vec![ended; ENDED_MAX];
        assert!(told(&euro("", "1000000"), new, None, &many).contains("1024 contracts have ended this month"));
    }

    #[test]
    fn a_namespace_has_its_own_ceiling_below_that_of_all() {
        let policy = buying(&[ceiling("EUR", "", "10", ""), ceiling("EUR", "shop", "1", "")]);
        let new = Some(price("0.6 EUR hour"));
        let of = |namespace| expense("0.6 EUR hour", "2026-11-01T00:00:00Z", None, namespace);
        assert_eq!(told(&policy, new, Some("lab"), &[of(Some("shop")), of(Some("lab"))]), "bought");
        assert_eq!(told(&policy, new, Some("shop"), &[of(Some("lab")), of(None)]), "bought");
        let refused = "ceiling: 1.2 EUR an hour with it, needed at most 1 (AcquisitionPolicy p, namespace shop)";
        assert_eq!(told(&policy, new, Some("shop"), &[of(Some("shop"))]), refused);
        let only = buying(&[ceiling("EUR", "shop", "1", "")]);
        assert!(
            told(&only, new, Some("shop"), &[]).contains("needed a currency of"),
            "what is not allowed at all is not"
        );
    }

    proptest! {
        /// Whatever is asked for, what has been let through never costs more than its ceiling in any hour.
        #[test]
        fn what_was_allowed_never_costs_more_than_the_ceiling(nanos in prop::collection::vec(1u128..900_000_000, 0..40)) {
            let policy = buying(&[ceiling("EUR", "", "2", "300")]);
            let mut bought: Vec<Expense> = Vec::new();
            for nano in nanos {
                let price = Price { amount: Decimal::from_nano(nano).unwrap(), ..price("1 EUR hour") };
                if may_buy(policy.as_ref(), &Purchase { price: Some(price), namespace: None }, &bought, at(NOW)).is_ok() {
                    bought.push(Expense { price, from: at(NOW), until: None, namespace: None });
                }
            }
            // Counted without the help of what is tested.
            let hour: u128 = bought.iter().map(|expense| expense.price.amount.nano()).sum();
            prop_assert!(hour <= 2_000_000_000);
            // 360 hours; every line may be rounded by half a cent.
            prop_assert!(hour * 360 <= 300_000_000_000 + 5_000_000 * bought.len() as u128);
        }
    }
}
