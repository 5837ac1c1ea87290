//! Has a contract that was sold go on: the Ledger first, which is the truth, then the contract. Killed between the two, the seller does
//! the rest when its buyer asks again; if it does not, the contract ends when both had it end before.

use fluidos_identity::{NodeId, Signed};
use fluidos_model::kinds::{Contract, Flavor, names};
use fluidos_rear as rear;
use fluidos_rear::{Refusal, RefusalCode};
use jiff::Timestamp;
use kube::Api;

use super::renewal::{Answer, Asked, decide};
use super::{Act, Ask, Exporter, act, plan};
use crate::{contracts, events, renewals, terms};

impl Exporter {
    pub(super) async fn renewed(
        &self,
        contract_id: &str,
        mut renewal: Signed<rear::RenewalTerms>,
        party: NodeId,
    ) -> Result<Signed<rear::RenewalTerms>, Refusal> {
        let none =
            || Refusal::new(RefusalCode::NotFound, format!("no contract {contract_id} is sold here to who asks"));
        let api = Api::<Contract>::namespaced(self.client.clone(), names::NAMESPACE);
        let known = api.get_opt(contract_id).await.map_err(act::Error::from)?;
        let known = known.filter(|known| known.metadata.deletion_timestamp.is_none()).ok_or_else(none)?;
        let signed = terms::of_contract(&known).map_err(|_| none())?;
        let current = |key: &NodeId| self.options.speakers.current(key);
        let [buyer, seller] = [current(&signed.value().buyer), current(&signed.value().seller)];
        if buyer != party || seller != self.options.key.id() {
            return Err(none());
        }
        let standing = renewals::of(&known, &signed, [buyer, seller]);
        let policies = self.copies.policies(&self.options.speakers).await;
        let pool = self.books.read().await.map_err(act::Error::from)?.unwrap_or_default();
        let commitment = plan::sold_as(&pool, contract_id).ok_or_else(none)?;
        let rating = self.copies.rating(&commitment.buyer).await;
        let asked = Asked { contract: &known, terms: &signed, renewals: &standing, renewal: &renewal, buyer, rating };
        let (from, until) = match decide(&asked, commitment, (&policies, &pool), Timestamp::now())? {
            Answer::Again => return standing.last.ok_or_else(none),
            Answer::Renew { from, until } => (from, until),
        };
        let flavor = match &commitment.served_by {
            Some(behind) => {
                self.renewed_behind(behind, commitment, (&policies, &pool, rating), until).await?;
                // What its buyer was told of it is all that there is.
                Flavor::new(&commitment.flavor, known.spec.flavor.spec.clone())
            }
            None => {
                let flavor = self.copies.flavor(&commitment.flavor, self.options.key.id()).await;
                flavor.ok_or_else(|| act::Error::NoFlavor { name: commitment.flavor.clone() })?
            }
        };
        self.decide(&Ask {
            act: Act::Buy,
            peer: Some(buyer),
            holder: Some(&commitment.buyer),
            flavor: &flavor,
            amounts: Some(commitment.amounts.clone()),
            pool: Some(&pool),
            transaction: Some(&commitment.transaction),
        })?;
        renewal.sign(&self.options.key).map_err(|error| {
            tracing::warn!(%error, "a renewal could not be signed");
            Refusal::new(RefusalCode::Internal, "the renewal cannot be signed")
        })?;
        let transaction = &commitment.transaction;
        let longer = |pool: &fluidos_model::market::Pool| {
            pool.extend(transaction, from, until, Timestamp::now()).map_err(plan::refusal)
        };
        self.books.change(longer).await.map_err(|error: act::Error| Refusal::from(error))?;
        contracts::renewed(&self.client, &known, &renewal, until).await.map_err(act::Error::from)?;
        let message = format!("{party} has renewed this contract until {until}");
        events::tell(&self.client, &known, "Renewed", &message).await;
        Ok(renewal)
    }
}
