//! Selling to who proves no key and signs nothing: official nodes, at the plain listener.
//!
//! A **holder** is then a place, not a node: whatever comes from one address (one /64 in IPv6) is one buyer, with the holds, the credit
//! and the policies of one. Anybody at that place can buy what another there has held. Its contract is signed by nobody, proves nothing,
//! and gives no right on the link: what is sold so is capacity kept, until the contract's time is over or its owner deletes it.

use std::net::IpAddr;

use fluidos_model::kinds::{AdditionalInformation, Configuration, ContractSpec, FlavorPrice, NodeIdentity};
use fluidos_model::market::{Commitment, CommitmentState};
use fluidos_rear as rear;
use fluidos_rear::{Refusal, RefusalCode};
use jiff::Timestamp;

use super::{Act, Ask, Exporter, act, plan};
use crate::{bounded, contracts, terms};

/// What a place says of itself is a name or an address.
const TEXT_LENGTH_MAX: usize = 253;

/// Under which name the Ledger has whatever comes from here. No DID looks like it.
pub(super) fn holder(origin: IpAddr) -> String {
    format!("unproven:{origin}")
}

impl Exporter {
    /// Sells what is held for a place. Again is the same contract.
    pub(super) async fn sell_unproven(&self, transaction: &str, origin: IpAddr) -> Result<rear::Contract, Refusal> {
        let holder = holder(origin);
        let pool = self.books.read().await.map_err(act::Error::from)?.unwrap_or_default();
        let commitment = pool.commitment(transaction).filter(|known| known.buyer == holder).ok_or_else(|| {
            let detail =
                format!("transaction {transaction} is not held for {origin}: it never was, or its time is over");
            Refusal::new(RefusalCode::Expired, detail)
        })?;
        let flavor = self.copies.flavor(&commitment.flavor, self.options.key.id()).await;
        let flavor = flavor.ok_or_else(|| act::Error::NoFlavor { name: commitment.flavor.clone() })?;
        if commitment.is_held() {
            self.decide(&Ask {
                act: Act::Buy,
                peer: None,
                holder: Some(&holder),
                flavor: &flavor,
                amounts: Some(commitment.amounts.clone()),
                pool: Some(&pool),
                transaction: Some(transaction),
            })?;
        }
        let name = terms::contract_name(commitment);
        let ends = ends(commitment);
        let sold = |pool: &_| {
            fluidos_model::market::Pool::commit(pool, transaction, &name, ends, Timestamp::now()).map_err(plan::refusal)
        };
        self.books.change(sold).await.map_err(|error: act::Error| Refusal::from(error))?;

        let told = self.buyers().get(transaction).cloned().unwrap_or_default();
        let configuration = Configuration::k8slice(&commitment.amounts);
        let configuration = configuration.map_err(|error| Refusal::new(RefusalCode::Internal, error.to_string()))?;
        let mut embedded = plan::embedded(&flavor);
        if let Some(agreed) = &commitment.agreed {
            embedded.spec.price = FlavorPrice::from(&agreed.price);
        }
        let spec = ContractSpec {
            flavor: embedded,
            transaction_id: transaction.into(),
            configuration: Some(configuration),
            buyer_cluster_id: told.liqo_id.as_deref().map(cut).unwrap_or_default(),
            buyer: buyer(&told, origin),
            seller: self.options.identity.clone(),
            expiration_time: ends.map(|ends| ends.to_string()),
            ..ContractSpec::default()
        };
        let written =
            contracts::write(&self.client, &contracts::unproven(&name, spec)).await.map_err(act::Error::from)?;
        contracts::allocate(&self.client, &written).await.map_err(act::Error::from)?;
        Ok(plan::sold(&written, &flavor))
    }
}

fn ends(commitment: &Commitment) -> Option<Timestamp> {
    match &commitment.state {
        CommitmentState::Committed { until, .. } => *until,
        CommitmentState::Held { .. } => commitment.agreed.as_ref().and_then(|agreed| agreed.ends),
    }
}

/// What it says of itself, cut to size, at the place where it was seen. A DID is not taken: it was not proven.
fn buyer(told: &rear::Party, origin: IpAddr) -> NodeIdentity {
    let more = AdditionalInformation {
        liqo_id: told.liqo_id.as_deref().map(cut),
        did: None,
        name: told.name.as_deref().map(cut),
    };
    let ip = if told.address.is_empty() { origin.to_string() } else { cut(&told.address) };
    NodeIdentity { domain: cut(&told.domain), node_id: cut(&told.node_id), ip, additional_information: Some(more) }
}

fn cut(text: &str) -> String {
    bounded(text, TEXT_LENGTH_MAX)
}
