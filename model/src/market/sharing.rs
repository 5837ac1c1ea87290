//! What an owner sells, to whom, in which blocks and at what price: the rules of `SharingPolicy` objects, and the one that counts.
//!
//! ```text
//!  no policy ─────────────────────────▶ all of the offer, to anybody who proves a key, at a price of 0
//!  policies, by name: the first that admits the buyer ─▶ its blocks, limit, price, hold, term, credit
//!  none admits it, or one of them cannot be read ─▶ nothing is sold
//! ```
//! A change counts at once for offers and new holds. What is held or sold has its terms in the ledger and ends by them only.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Agreed, Amounts, Conditions, Currency, Decimal, Money, MoneyError, Partitionability, Period, Pool, Price, Rate,
    RateError, Reselling, Situation, Unit, UnitPrice,
};

/// The rules of one policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sharing {
    /// Name of the policy.
    pub name: String,
    /// How much is sold under it altogether; what is not limited is that of [`Amounts::UNLIMITED`].
    pub limit: Amounts,
    /// DIDs that may buy; `None` is anybody who proves a key.
    pub allow: Option<Vec<String>>,
    /// DIDs that may not.
    pub deny: Vec<String>,
    /// Into which parts it is cut; `None` is as finely as pods ask.
    pub blocks: Option<Partitionability>,
    /// How much is wanted.
    pub rate: Rate,
    /// Of what.
    pub currency: Option<Currency>,
    /// For how long.
    pub period: Option<Period>,
    /// For one of what.
    pub unit: Unit,
    /// How long a hold stands; `None` is the usual time.
    pub hold: Option<Duration>,
    /// How long a contract lasts; `None` is the usual time.
    pub term: Option<Duration>,
    /// What the running contracts of one buyer may have cost so far.
    pub credit: Option<Decimal>,
    /// How it is used, how well, how it ends.
    pub conditions: Conditions,
    /// How what others sell is sold on; `None` is not.
    pub reselling: Option<Reselling>,
}

/// Who asks what is sold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Asker<'a> {
    /// DID; `None` is somebody who has proven no key.
    pub did: Option<&'a str>,
    /// What was seen of it, 0 to 100; `None` is nothing yet.
    pub rating: Option<u8>,
}

/// Somebody of whom nothing was seen.
impl<'a> From<Option<&'a str>> for Asker<'a> {
    fn from(did: Option<&'a str>) -> Self {
        Self { did, rating: None }
    }
}

/// What is sold to one buyer now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sale {
    /// The policy that says so; empty without one.
    pub policy: String,
    /// For what.
    pub price: UnitPrice,
    /// What can be sold to it now, without what is promised.
    pub free: Amounts,
    /// Into which parts; `None` is as the flavor says.
    pub blocks: Option<Partitionability>,
    /// How long a hold stands; `None` is the usual time.
    pub hold: Option<Duration>,
    /// How long a contract lasts; `None` is the usual time.
    pub term: Option<Duration>,
    /// How it is used, how well, how it ends.
    pub conditions: Conditions,
    /// The plan that it is about, `OFFER/PLAN`; `None` is whatever amounts are wanted.
    pub plan: Option<String>,
    /// How what others sell is sold on to it; `None` is not.
    pub reselling: Option<Reselling>,
}

/// Why nothing is sold to a buyer. It is told this.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum SharingRefusal {
    /// No policy admits it.
    #[error("no sharing policy sells to {buyer}")]
    NotAdmitted {
        /// Who asked.
        buyer: String,
    },
    /// A policy cannot be read. Its owner knows why; the buyer may come back.
    #[error("the seller's sharing policy cannot be read")]
    Unreadable,
    /// The policy's rule gives no price now.
    #[error("the seller's sharing policy gives no price now")]
    NoPrice(RateError),
    /// The buyer owes enough.
    #[error("credit: running contracts have cost {observed}, needed less than {limit}")]
    Credit {
        /// What it owes.
        observed: Money,
        /// The most it may owe.
        limit: Money,
    },
    /// What it owes cannot be counted.
    #[error("credit: {0}")]
    Uncountable(#[from] MoneyError),
}

impl Sharing {
    /// Says whether this policy sells to a buyer; `None` is somebody who has proven no key.
    pub fn admits(&self, buyer: Option<&str>) -> bool {
        let named = |dids: &[String]| buyer.is_some_and(|buyer| dids.iter().any(|did| did == buyer));
        !named(&self.deny) && self.allow.as_deref().is_none_or(named)
    }

    /// Returns the same policy, in which who is named by one DID is named by another, too; `current` gives that of who has another now.
    #[must_use]
    pub fn following(mut self, current: impl Fn(&str) -> Option<String>) -> Self {
        let follow = |dids: &mut Vec<String>| {
            let others: Vec<String> = dids.iter().filter_map(|did| current(did)).collect();
            dids.extend(others);
        };
        if let Some(allow) = &mut self.allow {
            follow(allow);
        }
        follow(&mut self.deny);
        self
    }

    fn price(&self, situation: &Situation) -> Result<UnitPrice, RateError> {
        let price = Price { amount: self.rate.at(situation)?, currency: self.currency, period: self.period };
        Ok(UnitPrice { price, unit: self.unit.clone() })
    }

    /// Checks what a buyer's running contracts have cost so far. What has ended is not counted: it is between the owners.
    fn check_credit(&self, pool: &Pool, buyer: &str, now: Timestamp) -> Result<(), SharingRefusal> {
        let (Some(credit), Some(currency)) = (self.credit, self.currency) else { return Ok(()) };
        let limit = Money::floor(credit, currency);
        let mut owed = Money { minor: 0, currency };
        for agreed in running(pool, buyer, now).filter(|agreed| agreed.price.currency == Some(currency)) {
            let charge = agreed.price.charge(agreed.issued, now)?;
            let money = charge.money()?.unwrap_or(Money { minor: 0, currency });
            owed = owed.checked_add(money).ok_or(MoneyError::TooLarge { what: "what is owed" })?;
        }
        if owed.minor < limit.minor { Ok(()) } else { Err(SharingRefusal::Credit { observed: owed, limit }) }
    }
}

/// Decides what is sold to a buyer now. `policies` are in the order of their names; `None` among them is one that cannot be
/// read.
///
/// # Errors
/// [`SharingRefusal`]: nothing is.
pub fn sale<'a>(
    policies: &[Option<Sharing>],
    pool: &Pool,
    asker: impl Into<Asker<'a>>,
    now: Timestamp,
) -> Result<Sale, SharingRefusal> {
    let Asker { did: buyer, rating } = asker.into();
    let free = pool.free(now);
    if policies.is_empty() {
        let policy = String::new();
        let conditions = Conditions::default();
        let (price, blocks) = (UnitPrice::ZERO, None);
        return Ok(Sale {
            policy,
            price,
            free,
            blocks,
            hold: None,
            term: None,
            conditions,
            plan: None,
            reselling: None,
        });
    }
    // Which of them would have admitted the buyer cannot be known while one of them is not: none stands in for it.
    let readable: Option<Vec<&Sharing>> = policies.iter().map(Option::as_ref).collect();
    let readable = readable.ok_or(SharingRefusal::Unreadable)?;
    let policy = readable.into_iter().find(|policy| policy.admits(buyer)).ok_or_else(|| {
        SharingRefusal::NotAdmitted { buyer: buyer.unwrap_or("somebody who has proven no key").into() }
    })?;
    let buyer = buyer.unwrap_or_default();
    let contracts = running(pool, buyer, now).count();
    let situation = Situation { utilisation: utilisation(pool, now), now, buyer, contracts, rating };
    let price = policy.price(&situation).map_err(SharingRefusal::NoPrice)?;
    let under = |agreed: &Agreed| agreed.policy == policy.name;
    // What is sold on is not of the offer.
    let own = pool.commitments.iter().filter(|known| !known.is_over(now) && known.served_by.is_none());
    let sold = own.filter(|known| known.agreed.as_ref().is_some_and(under));
    // What cannot be counted is more than any limit.
    let sold = sold.map(|known| &known.amounts).try_fold(Amounts::default(), |sum, amounts| sum.checked_add(amounts));
    let left = sold.map(|sold| policy.limit.saturating_sub(&sold)).unwrap_or_default();
    let free = policy.conditions.promises(&free).least(&left);
    Ok(Sale {
        policy: policy.name.clone(),
        price,
        free,
        blocks: policy.blocks.clone(),
        hold: policy.hold,
        term: policy.term,
        conditions: policy.conditions.clone(),
        plan: None,
        reselling: policy.reselling.clone(),
    })
}

/// Checks whether a buyer may hold more now, beyond what [`sale`] says.
///
/// # Errors
/// [`SharingRefusal::Credit`] if it owes as much as it may.
pub fn credit(
    policies: &[Option<Sharing>],
    sale: &Sale,
    pool: &Pool,
    buyer: &str,
    now: Timestamp,
) -> Result<(), SharingRefusal> {
    let policy = policies.iter().flatten().find(|policy| policy.name == sale.policy);
    policy.map_or(Ok(()), |policy| policy.check_credit(pool, buyer, now))
}

/// Returns how much of what is sold is promised, in per cent: of the resource of which most is, rounded down.
pub fn utilisation(pool: &Pool, now: Timestamp) -> u8 {
    let Some(promised) = pool.promised(now) else { return 100 };
    let parts = pool.capacity.resources().filter(|resource| pool.capacity.get(resource) != 0).map(|resource| {
        let (promised, capacity) = (u128::from(promised.get(&resource)), u128::from(pool.capacity.get(&resource)));
        u8::try_from((promised * 100 / capacity).min(100)).unwrap_or(100)
    });
    parts.max().unwrap_or(0)
}

/// What was agreed in the contracts that run with a buyer.
fn running<'a>(pool: &'a Pool, buyer: &'a str, now: Timestamp) -> impl Iterator<Item = &'a Agreed> {
    let of_buyer = pool.commitments.iter().filter(move |known| known.buyer == buyer && !known.is_over(now));
    of_buyer.filter(|known| !known.is_held()).filter_map(|known| known.agreed.as_ref())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;
    use crate::market::HoldRequest;

    const ANY: Amounts = Amounts::UNLIMITED;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn cpus(cpu_milli: u64) -> Amounts {
        Amounts { cpu_milli, ..Amounts::default() }
    }

    fn policy(name: &str, rate: &str) -> Sharing {
        Sharing {
            name: name.into(),
            limit: ANY,
            allow: None,
            deny: vec![],
            blocks: None,
            rate: Rate::parse(rate).unwrap(),
            currency: Some(Currency::parse("EUR").unwrap()),
            period: Some(Period::Hour),
            unit: Unit::Cpu,
            hold: None,
            term: None,
            credit: None,
            conditions: Conditions::default(),
            reselling: None,
        }
    }

    /// 4 CPUs, of which `sold` are committed to `did:a` under the policy `p` since second 0 at 1 EUR/hour for each contract.
    fn pool(sold: &[u64]) -> Pool {
        let mut pool = Pool { capacity: cpus(4000), commitments: vec![] };
        for (index, cpu_milli) in sold.iter().enumerate() {
            let price = Price::parse("1", "EUR", "hour").unwrap().unwrap();
            let (policy, conditions) = ("p".into(), Conditions::default());
            let agreed =
                Agreed { policy, issued: at(0), hold_until: at(60), ends: None, price, conditions, service: None };
            let transaction = index.to_string();
            let request = HoldRequest {
                transaction: transaction.clone(),
                buyer: "did:a".into(),
                flavor: "f".into(),
                amounts: cpus(*cpu_milli),
                until: at(60),
                agreed: Some(agreed),
            };
            pool = pool.hold(&request, at(0)).unwrap().commit(&transaction, &format!("c{index}"), None, at(0)).unwrap();
        }
        pool
    }

    fn told(policies: &[Option<Sharing>], pool: &Pool, buyer: Option<&str>) -> String {
        match sale(policies, pool, buyer, at(1)) {
            Ok(sale) => {
                format!("{:?}: {} of {} at {}", sale.policy, sale.free, sale.price.unit.as_str(), sale.price.price)
            }
            Err(refusal) => refusal.to_string(),
        }
    }

    #[test]
    fn the_first_policy_that_admits_the_buyer_counts() {
        let friends = Sharing { allow: Some(vec!["did:a".into()]), ..policy("friends", "0.01") };
        let others = Sharing { deny: vec!["did:b".into()], ..policy("others", "0.05") };
        let both = [Some(friends.clone()), Some(others)];
        assert_eq!(told(&[], &pool(&[]), Some("did:a")), r#""": cpu 4 of  at 0"#);
        assert_eq!(told(&both, &pool(&[]), Some("did:a")), r#""friends": cpu 4 of cpu at 0.01 EUR/hour"#);
        assert_eq!(told(&both, &pool(&[]), Some("did:c")), r#""others": cpu 4 of cpu at 0.05 EUR/hour"#);
        assert_eq!(told(&both, &pool(&[]), None), r#""others": cpu 4 of cpu at 0.05 EUR/hour"#);
        assert_eq!(told(&both, &pool(&[]), Some("did:b")), "no sharing policy sells to did:b");
        assert_eq!(
            told(&[Some(friends)], &pool(&[]), None),
            "no sharing policy sells to somebody who has proven no key"
        );
        let broken = [None, Some(policy("z", "0.01"))];
        assert_eq!(told(&broken, &pool(&[]), Some("did:a")), "the seller's sharing policy cannot be read");
    }

    #[test]
    fn a_limit_counts_what_was_sold_under_its_policy() {
        let limited = |name: &str| Some(Sharing { limit: Amounts { cpu_milli: 2000, ..ANY }, ..policy(name, "1") });
        assert_eq!(told(&[limited("p")], &pool(&[500, 1000]), Some("did:x")), r#""p": cpu 500m of cpu at 1 EUR/hour"#);
        assert_eq!(told(&[limited("q")], &pool(&[500, 1000]), Some("did:x")), r#""q": cpu 2 of cpu at 1 EUR/hour"#);
        assert_eq!(told(&[limited("q")], &pool(&[500, 3000]), Some("did:x")), r#""q": cpu 500m of cpu at 1 EUR/hour"#);
        assert_eq!(told(&[limited("p")], &pool(&[3000]), Some("did:x")), r#""p": nothing of cpu at 1 EUR/hour"#);
    }

    #[test]
    fn a_rule_sees_the_utilisation_and_the_buyers_contracts() {
        let rule = r#"contracts > 0 ? "0.5" : (utilisation >= 50 ? "2" : "1")"#;
        let rule = [Some(policy("p", rule))];
        assert_eq!(told(&rule, &pool(&[]), Some("did:b")), r#""p": cpu 4 of cpu at 1 EUR/hour"#);
        assert_eq!(told(&rule, &pool(&[2000]), Some("did:b")), r#""p": cpu 2 of cpu at 2 EUR/hour"#);
        assert_eq!(told(&rule, &pool(&[2000]), Some("did:a")), r#""p": cpu 2 of cpu at 0.5 EUR/hour"#);
        let failing = [Some(policy("p", "1 / contracts"))];
        assert_eq!(told(&failing, &pool(&[]), Some("did:b")), "the seller's sharing policy gives no price now");
    }

    #[test]
    fn a_buyer_that_owes_enough_gets_no_more() {
        let policies = [Some(Sharing { credit: Some(Decimal::parse("10").unwrap()), ..policy("p", "1") })];
        let check = |pool: &Pool, buyer: &str, second| {
            let sale = sale(&policies, pool, Some(buyer), at(second)).unwrap();
            credit(&policies, &sale, pool, buyer, at(second)).map_err(|refusal| refusal.to_string())
        };
        // Two contracts at 1 EUR an hour: 10 EUR after five hours.
        let pool = pool(&[500, 500]);
        assert_eq!(check(&pool, "did:a", 5 * 3600 - 60), Ok(()));
        let refused = "credit: running contracts have cost 10.00 EUR, needed less than 10.00 EUR";
        assert_eq!(check(&pool, "did:a", 5 * 3600), Err(refused.into()));
        assert_eq!(check(&pool, "did:b", 5 * 3600), Ok(()));
    }
}
