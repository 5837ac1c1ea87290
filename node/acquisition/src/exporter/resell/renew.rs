//! A contract that was sold on goes on if what serves it does: that is asked for first, and only when its buyer asks.
//!
//! ```text
//!  A                     R                                                              P
//!  renew C ────────────▶ sold on today? margin? X lasts as long? ─no─▶ X: `renew-until` ─▶ contract manager: renew X ─▶
//!  ◀─ later: ask again ──┘                      └─yes─▶ Ledger, C
//! ```

use fluidos_model::kinds::{Contract, names};
use fluidos_model::market::{Asker, Commitment, Pool, Price, Reselling, Sharing, credit, sale};
use fluidos_rear::{Refusal, RefusalCode};
use jiff::Timestamp;
use kube::Api;

use crate::exporter::{Exporter, act, plan as own};
use crate::{contracts, convert, renewals};

/// How the contract manager says that a contract does not go on.
const NOT_RENEWED: &str = "not renewed";

impl Exporter {
    /// Makes sure that what serves a contract lasts until then; while that is asked for, the buyer is to ask again.
    pub(in crate::exporter) async fn renewed_behind(
        &self,
        behind: &str,
        commitment: &Commitment,
        (policies, pool, rating): (&[Option<Sharing>], &Pool, Option<u8>),
        until: Timestamp,
    ) -> Result<(), Refusal> {
        let asker = Asker { did: Some(&commitment.buyer), rating };
        let sale = sale(policies, pool, asker, Timestamp::now()).map_err(own::not_sold)?;
        credit(policies, &sale, pool, &commitment.buyer, Timestamp::now()).map_err(own::not_sold)?;
        let api = Api::<Contract>::namespaced(self.client.clone(), names::NAMESPACE);
        let bought = api.get_opt(behind).await.map_err(act::Error::from)?;
        match decide(sale.reselling.as_ref(), commitment, bought.as_ref(), until)? {
            Next::Lasts => Ok(()),
            Next::Ask(bought) => {
                let until = until.to_string();
                let asked = contracts::annotate(&self.client, bought, names::ANNOTATION_RENEW_UNTIL, &until);
                asked.await.map_err(act::Error::from)?;
                let detail = "renewal: what it is served with is being renewed: ask again";
                Err(Refusal::new(RefusalCode::Unavailable, detail))
            }
        }
    }
}

/// What comes of a renewal behind.
#[derive(Debug)]
enum Next<'a> {
    /// What serves it lasts long enough.
    Lasts,
    /// It is to be renewed first.
    Ask(&'a Contract),
}

/// Decides; of who is behind nothing is told.
fn decide<'a>(
    reselling: Option<&Reselling>,
    commitment: &Commitment,
    bought: Option<&'a Contract>,
    until: Timestamp,
) -> Result<Next<'a>, Refusal> {
    let no = |reason: &str| Refusal::new(RefusalCode::Conflict, format!("renewal: {reason}"));
    let reselling = reselling.ok_or_else(|| no("the seller's sharing policy sells nothing on any more"))?;
    let bought = bought.filter(|known| known.metadata.deletion_timestamp.is_none());
    let bought = bought.ok_or_else(|| no("what it is served with has ended"))?;
    if bought.status.as_ref().is_some_and(|status| status.ends.is_some()) {
        return Err(no("what it is served with ends: notice was given"));
    }
    let seller = convert::did(&bought.spec.seller).map(|did| did.to_string()).unwrap_or_default();
    if !reselling.buys_from(&seller) {
        return Err(no("the seller's sharing policy does not buy elsewhere what it is served with any more"));
    }
    let unread = |_| no("what it costs elsewhere cannot be read");
    let paid = bought.spec.flavor.spec.price.parse().map_err(unread)?.map_or(Price::ZERO, |stated| stated.price);
    let least = reselling.margin.on(&paid).map_err(|error| no(&error.to_string()))?;
    let agreed = commitment.agreed.as_ref().map_or(Price::ZERO, |agreed| agreed.price);
    let same = least.is_zero() || (least.currency, least.period) == (agreed.currency, agreed.period);
    if !same || least.amount > agreed.amount {
        return Err(no("price: the seller asks for a larger margin now: buy anew"));
    }
    if renewals::until(bought).is_none_or(|ends| ends >= until) {
        return Ok(Next::Lasts);
    }
    if bought.status.as_ref().is_some_and(|status| status.renewal.starts_with(NOT_RENEWED)) {
        return Err(no("what it is served with is not renewed"));
    }
    Ok(Next::Ask(bought))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use fluidos_identity::NodeKey;
    use fluidos_model::kinds::{AdditionalInformation, ContractStatus, FlavorPrice};
    use fluidos_model::market::{Agreed, Amounts, CommitmentState, Conditions, Margin};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn price(amount: &str) -> Price {
        Price::parse(amount, "EUR", "hour").unwrap().unwrap()
    }

    /// One that ends at 1,000 and costs 0.04.
    fn bought(change: impl FnOnce(&mut Contract)) -> Contract {
        let mut contract = Contract::new("x", Default::default());
        contract.spec.expiration_time = Some(at(1000).to_string());
        contract.spec.flavor.spec.price = FlavorPrice::from(&price("0.04"));
        let did = Some(NodeKey::from_seed([3; 32]).unwrap().id().to_string());
        contract.spec.seller.additional_information = Some(AdditionalInformation { did, ..Default::default() });
        contract.status = Some(ContractStatus::default());
        change(&mut contract);
        contract
    }

    fn told(reselling: Option<&Reselling>, bought: Option<&Contract>, until: i64) -> String {
        let agreed = Agreed {
            policy: "p".into(),
            issued: at(0),
            hold_until: at(1),
            ends: Some(at(990)),
            price: price("0.044"),
            conditions: Conditions::default(),
            service: None,
        };
        let commitment = Commitment {
            transaction: "t".into(),
            buyer: "b".into(),
            flavor: "f".into(),
            amounts: Amounts::default(),
            state: CommitmentState::Committed { contract: "c".into(), until: Some(at(990)) },
            agreed: Some(agreed),
            served_by: Some("x".into()),
        };
        match decide(reselling, &commitment, bought, at(until)) {
            Ok(Next::Lasts) => "lasts".into(),
            Ok(Next::Ask(contract)) => format!("ask for {}", contract.metadata.name.as_deref().unwrap_or_default()),
            Err(refusal) => refusal.detail,
        }
    }

    #[test]
    fn what_is_sold_on_goes_on_as_long_as_what_serves_it() {
        let margin =
            |text: &str| Reselling { margin: Margin::parse(text).unwrap(), hops_max: 2, allow: None, deny: Vec::new() };
        let (ten, usual) = (margin("10%"), bought(|_| {}));
        assert_eq!(told(Some(&ten), Some(&usual), 1000), "lasts");
        assert_eq!(told(Some(&ten), Some(&usual), 1001), "ask for x");
        let endless = bought(|it| it.spec.expiration_time = None);
        assert_eq!(told(Some(&ten), Some(&endless), 1_000_000), "lasts");
        let refused = bought(|it| it.status.as_mut().unwrap().renewal = "not renewed: no".into());
        assert_eq!(told(Some(&ten), Some(&refused), 1001), "renewal: what it is served with is not renewed");
        let ending = bought(|it| it.status.as_mut().unwrap().ends = Some(at(900).to_string()));
        assert!(told(Some(&ten), Some(&ending), 1001).contains("notice was given"));
        assert!(told(Some(&ten), None, 1001).contains("has ended"));
        assert!(told(None, Some(&usual), 1001).contains("sells nothing on any more"));
        assert!(told(Some(&margin("20%")), Some(&usual), 1001).contains("a larger margin now"));
        let denied = Reselling { deny: vec![NodeKey::from_seed([3; 32]).unwrap().id().to_string()], ..margin("10%") };
        assert!(told(Some(&denied), Some(&usual), 1001).contains("does not buy elsewhere"));
    }
}
