//! Plans: packages of fixed size (§7.6). An offer is a collection of them.
//!
//! A *plan* is sold as it is: all of its size or nothing, at its own price or at that of the policy. It is cut from the same pool as
//! everything else, so a plan is *available* if and only if all of it can be sold now.
//!
//! ```text
//!  policies ─▶ the one that the offer names, or the first that admits the buyer ─▶ Sale ─▶ the plan's size and price
//! ```

use jiff::Timestamp;

use super::{Amounts, Asker, Partitionability, Pool, Sale, Sharing, SharingRefusal, Unit, UnitPrice, sale};

/// A package of fixed size.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Name of the offer it is in.
    pub offer: String,
    /// Its name in it.
    pub name: String,
    /// What it is good for, in words.
    pub description: String,
    /// Its size.
    pub amounts: Amounts,
    /// For what; `None` is what the policy says for this size.
    pub price: Option<UnitPrice>,
    /// The policy whose buyers, hold, term, credit and conditions count; `None` is the first that admits the buyer.
    pub policy: Option<String>,
}

impl Plan {
    /// Returns `OFFER/PLAN`: how it is called.
    pub fn reference(&self) -> String {
        format!("{}/{}", self.offer, self.name)
    }

    /// Returns the rules by which it may be cut: it may not.
    pub fn whole(&self) -> Partitionability {
        Partitionability { least: self.amounts.clone(), step: Amounts::default() }
    }

    /// Decides what of this plan is sold to a buyer now: all, or nothing.
    ///
    /// # Errors
    /// [`SharingRefusal`] as of [`sale`]; a policy that the offer names and that is not there cannot be read.
    pub fn sale<'a>(
        &self,
        policies: &[Option<Sharing>],
        pool: &Pool,
        buyer: impl Into<Asker<'a>>,
        now: Timestamp,
    ) -> Result<Sale, SharingRefusal> {
        // While one of them cannot be read nothing is sold to anybody.
        if policies.iter().any(Option::is_none) {
            return Err(SharingRefusal::Unreadable);
        }
        let named: Vec<Option<Sharing>> = match &self.policy {
            None => policies.to_vec(),
            Some(name) => policies.iter().flatten().filter(|policy| policy.name == *name).cloned().map(Some).collect(),
        };
        if self.policy.is_some() && named.is_empty() {
            return Err(SharingRefusal::Unreadable);
        }
        let sale = sale(&named, pool, buyer, now)?;
        let all = sale.free.holds(&self.amounts);
        // Of all of it: a buyer of a service does not know its size.
        let whole = sale.price.of(&self.amounts)?;
        Ok(Sale {
            price: self.price.clone().unwrap_or(UnitPrice { price: whole, unit: Unit::Slice }),
            free: if all { self.amounts.clone() } else { Amounts::default() },
            blocks: Some(self.whole()),
            plan: Some(self.reference()),
            ..sale
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use super::*;
    use crate::market::{Conditions, Currency, HoldRequest, Period, Price, Rate};

    fn policy(name: &str, amount: &str) -> Sharing {
        Sharing {
            name: name.into(),
            limit: Amounts::UNLIMITED,
            allow: None,
            deny: vec![],
            blocks: None,
            rate: Rate::parse(amount).unwrap(),
            currency: Currency::parse("EUR").ok(),
            period: Some(Period::Hour),
            unit: Unit::Cpu,
            hold: None,
            term: None,
            credit: None,
            conditions: Conditions::default(),
            reselling: None,
        }
    }

    fn small() -> Plan {
        let amounts = Amounts { cpu_milli: 2000, memory_bytes: 1 << 30, pods: 10, ..Amounts::default() };
        Plan { offer: "web".into(), name: "small".into(), amounts, ..Plan::default() }
    }

    fn told(plan: &Plan, policies: &[Option<Sharing>], held_milli: u64) -> String {
        let now = Timestamp::from_second(0).unwrap();
        let capacity = Amounts { cpu_milli: 4000, memory_bytes: 8 << 30, pods: 100, ..Amounts::default() };
        let mut pool = Pool { capacity, commitments: vec![] };
        if held_milli > 0 {
            let request = HoldRequest {
                transaction: "t".into(),
                buyer: "b".into(),
                flavor: "f".into(),
                amounts: Amounts { cpu_milli: held_milli, ..Amounts::default() },
                until: Timestamp::from_second(60).unwrap(),
                agreed: None,
            };
            pool = pool.hold(&request, now).unwrap();
        }
        match plan.sale(policies, &pool, Some("did:a"), now) {
            Ok(sale) => {
                let price = sale.price.of(&plan.amounts).unwrap();
                format!("{} by {:?}: {} at {price}", sale.plan.unwrap(), sale.policy, sale.free)
            }
            Err(refusal) => refusal.to_string(),
        }
    }

    #[test]
    fn a_plan_is_sold_whole_or_not_at_all() {
        let size = "cpu 2, memory 1Gi, pods 10";
        assert_eq!(told(&small(), &[], 0), format!("web/small by \"\": {size} at 0"));
        assert_eq!(told(&small(), &[], 2000), format!("web/small by \"\": {size} at 0"));
        assert_eq!(told(&small(), &[], 2001), "web/small by \"\": nothing at 0");
    }

    #[test]
    fn its_price_is_its_own_or_that_of_its_policy() {
        let policies = [Some(policy("cheap", "0.01")), Some(policy("dear", "0.05"))];
        let size = "cpu 2, memory 1Gi, pods 10";
        let named = |name: &str| Plan { policy: Some(name.into()), ..small() };
        assert_eq!(told(&small(), &policies, 0), format!("web/small by \"cheap\": {size} at 0.02 EUR/hour"));
        assert_eq!(told(&named("dear"), &policies, 0), format!("web/small by \"dear\": {size} at 0.1 EUR/hour"));
        let price = UnitPrice { price: Price::parse("9", "EUR", "month").unwrap().unwrap(), unit: Unit::Slice };
        let priced = Plan { price: Some(price), ..named("dear") };
        assert_eq!(told(&priced, &policies, 0), format!("web/small by \"dear\": {size} at 9 EUR/month"));
        assert_eq!(told(&named("none"), &policies, 0), "the seller's sharing policy cannot be read");
        assert_eq!(told(&named("none"), &[], 0), "the seller's sharing policy cannot be read");
        let broken = [Some(policy("dear", "0.05")), None];
        assert_eq!(told(&named("dear"), &broken, 0), "the seller's sharing policy cannot be read");
        let deny = Sharing { deny: vec!["did:a".into()], ..policy("dear", "0.05") };
        let refused = [Some(policy("cheap", "0.01")), Some(deny)];
        assert_eq!(told(&named("dear"), &refused, 0), "no sharing policy sells to did:a");
    }
}
