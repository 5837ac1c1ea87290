//! Taking back contracts that this node has signed and lost: from the other party's copy, as far as both signatures go.
//!
//! ```text
//!   copy of the other party ─ both signatures hold? this node's among them? ─▶ promise in the Ledger ─▶ Contract ─▶ Allocation
//!   its last renewal ─ signed by both, too? ─▶ it ends later
//! ```
//! Size, price, parties and end are those of the signed terms; of what the other party says beside them only what it is called, where it
//! is, and the flavor that it was cut from are kept, cut to size. What was sold is promised again even beyond the offer: it *is* sold.
//! Every step may be done again: a process that is killed between two of them goes on.

use std::sync::Arc;

use fluidos_identity::{Envelope, NodeId, Signed};
use fluidos_ledger::{Books, BooksError};
use fluidos_model::kinds::{
    Configuration, Contract, ContractSpec, EmbeddedFlavor, EmbeddedMeta, FlavorType, FlavorTypeData, names,
};
use fluidos_model::market::{
    Agreed, AgreedService, COMMITMENTS_MAX, Commitment, CommitmentState, Conditions, Ended, Pool, Price,
};
use fluidos_rear as rear;
use jiff::Timestamp;
use kube::{Api, Client};
use serde_json::Value;

use crate::contracts::{self, WriteError};
use crate::{Options, convert, renewals, terms};

/// Why a contract was not taken back.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// It proves nothing, or is about others.
    #[error("contract {contract}: {reason}")]
    Refused {
        /// Its name, as the other party says it.
        contract: String,
        /// Why.
        reason: String,
    },
    /// The API did not do it. Later.
    #[error("contract: {0}")]
    Api(#[from] kube::Error),
    /// The Ledger was not changed. Later.
    #[error(transparent)]
    Books(#[from] BooksError),
}

/// What the other party of a contract is told of it: as in the answer to a purchase.
pub fn told(contract: &Contract) -> rear::Contract {
    let spec = &contract.spec;
    rear::Contract {
        id: contract.metadata.name.clone().unwrap_or_default(),
        transaction_id: spec.transaction_id.clone(),
        flavor: convert::wire_flavor(&spec.flavor.metadata.name, &spec.flavor.spec),
        configuration: spec.configuration.as_ref().map(convert::wire_configuration),
        buyer: convert::party(&spec.buyer),
        buyer_cluster_id: spec.buyer_cluster_id.clone(),
        seller: convert::party(&spec.seller),
        expiration: spec.expiration_time.as_ref().and_then(|until| until.parse().ok()),
        extra: spec.extra_information.clone(),
        network_requests: None,
        telemetry: None,
        signed_terms: spec.signed_terms.as_ref().map(convert::envelope),
        credentials_dropped: false,
    }
}

/// Takes a contract back, with its last renewal; returns it as it stands here now, and whether anything had to be written. One that is over is
/// only returned, for its books. A renewal that the seller has not signed yet is as if it were not there: it is asked for again.
///
/// # Errors
/// [`RestoreError`]: it was not taken back.
pub async fn take_back(
    client: &Client,
    options: &Options,
    (contract, renewal): (&rear::Contract, Option<&Envelope>),
    ended: Ended,
    now: Timestamp,
) -> Result<(Contract, bool), RestoreError> {
    let refused = |reason: String| RestoreError::Refused { contract: crate::bounded(&contract.id, 64), reason };
    let signed = checked(options, contract).map_err(refused)?;
    let renewal = renewed(options, renewal, &signed).map_err(refused)?;
    let object = object(options, contract, &signed, renewal.as_ref()).map_err(refused)?;
    let (name, books) = (&signed.value().contract_id, Books::new(client));
    let api = Api::<Contract>::namespaced(client.clone(), names::NAMESPACE);
    let known = api.get_opt(name).await?;
    if let Some(known) = &known
        && terms::of_contract(known).map(|known| known.bytes() != signed.bytes()).unwrap_or(true)
    {
        return Err(refused("its name is in use here for other terms".into()));
    }
    let sells = options.speakers.current(&signed.value().seller) == options.key.id();
    match (ended, known) {
        (Ended::ByLog, Some(known)) => {
            if sells {
                books.free(&signed.value().transaction_id).await?;
            }
            contracts::forget(client, &known).await?;
            Ok((object, true))
        }
        (Ended::ByLog | Ended::There, known) => Ok((known.unwrap_or(object), false)),
        (Ended::No, known) => {
            let promised = sells
                && promise(&books, &signed, renewals::until(&object), now).await.map_err(|error| match error {
                    PromiseError::Books(error) => error.into(),
                    PromiseError::Refused(reason) => refused(reason),
                })?;
            if let Some(known) = &known {
                // It may have been written by a process that was killed before it came to the allocation.
                contracts::allocate(client, known).await?;
            }
            let written = match known {
                Some(known) => match renewal.filter(|_| renewals::until(&known) < renewals::until(&object)) {
                    None => known,
                    Some(renewal) => {
                        let until = renewal.value().times().map_err(|error| refused(error.to_string()))?.1;
                        contracts::renewed(client, &known, &renewal, until).await?;
                        return Ok((api.get(name).await?, true));
                    }
                },
                None => match contracts::write(client, &object).await {
                    Ok(written) => {
                        contracts::allocate(client, &written).await?;
                        return Ok((written, true));
                    }
                    Err(WriteError::Api { source, .. }) => return Err(source.into()),
                    Err(error) => return Err(refused(error.to_string())),
                },
            };
            Ok((written, promised))
        }
    }
}

/// The terms, if both have signed them and one of both is this node.
fn checked(options: &Options, contract: &rear::Contract) -> Result<Signed<rear::ContractTerms>, String> {
    let envelope = contract.signed_terms.as_ref().ok_or("it has no signed terms")?;
    let signed: Signed<rear::ContractTerms> =
        Signed::open(envelope, rear::CONTRACT_PURPOSE).map_err(|error| error.to_string())?;
    let terms = signed.value();
    signed.require(&[terms.buyer, terms.seller]).map_err(|error| error.to_string())?;
    let own = options.key.id();
    if ![terms.buyer, terms.seller].iter().any(|party| options.speakers.current(party) == own) {
        return Err("it is between others".into());
    }
    if terms.contract_id != contract.id {
        return Err(format!("its terms are of contract {}", crate::bounded(&terms.contract_id, 64)));
    }
    if !terms::is_label(&terms.contract_id) {
        return Err("its name is none that a contract can have".into());
    }
    if terms.flavor_type != rear::FlavorType::K8Slice.as_str() && !terms::is_service(terms) {
        return Err(format!("flavor type {}, needed k8slice or service", crate::bounded(&terms.flavor_type, 64)));
    }
    Ok(signed)
}

/// The renewal, if both parties have signed it.
fn renewed(
    options: &Options,
    renewal: Option<&Envelope>,
    signed: &Signed<rear::ContractTerms>,
) -> Result<Option<Signed<rear::RenewalTerms>>, String> {
    let Some(renewal) = renewal else { return Ok(None) };
    let renewal = rear::open_renewal(renewal).map_err(|error| error.to_string())?;
    rear::check_renewal(&renewal, signed, &[]).map_err(|error| error.to_string())?;
    let terms = signed.value();
    let has_signed = |party: &NodeId| renewal.signed_by(party) || renewal.signed_by(&options.speakers.current(party));
    Ok((has_signed(&terms.buyer) && has_signed(&terms.seller)).then_some(renewal))
}

fn object(
    options: &Options,
    contract: &rear::Contract,
    signed: &Signed<rear::ContractTerms>,
    renewal: Option<&Signed<rear::RenewalTerms>>,
) -> Result<Contract, String> {
    let terms = signed.value();
    let buys = options.speakers.current(&terms.buyer) == options.key.id();
    let peer = if buys { terms.seller } else { terms.buyer };
    // What cannot be kept of the flavor is its name: size and price are in the terms.
    let named = || EmbeddedFlavor {
        metadata: EmbeddedMeta { name: terms.flavor_id.clone(), namespace: names::NAMESPACE.into() },
        ..EmbeddedFlavor::default()
    };
    let mut flavor = convert::embedded_flavor(&contract.flavor, Some(terms.seller)).unwrap_or_else(|_| named());
    flavor.metadata.name = crate::bounded(&terms.flavor_id, 253);
    let configuration = match terms::is_service(terms) {
        true => {
            flavor.spec.flavor_type = service(&flavor, &terms.flavor_id, buys)?;
            let needed = rear::ServiceTerms::of(terms).map_err(|error| error.to_string())?.configuration_digest;
            let told = contract.configuration.as_ref().map_or(&Value::Null, |configuration| &configuration.data);
            terms::configured(&needed, told)?
        }
        false => Configuration { flavor_type: FlavorType::K8Slice, data: terms.configuration.clone() },
    };
    let (own, other) = (options.identity.clone(), if buys { &contract.seller } else { &contract.buyer });
    let other = convert::identity(other, Some(peer));
    let (buyer, seller) = if buys { (own, other) } else { (other, own) };
    let conditions = Conditions::read(terms.conditions.as_ref()).map_err(|error| error.to_string())?;
    let spec = ContractSpec {
        flavor: convert::at_price(flavor, terms),
        transaction_id: terms.transaction_id.clone(),
        configuration: Some(configuration),
        buyer,
        buyer_cluster_id: terms.buyer.to_string(),
        seller,
        expiration_time: renewal.map(|renewal| renewal.value().until.clone()).or_else(|| terms.until.clone()),
        renewal: renewal.map(|renewal| convert::signed_terms(renewal.envelope())),
        signed_terms: Some(convert::signed_terms(signed.envelope())),
        served_by: served_by(&conditions).filter(|_| !buys),
        ..ContractSpec::default()
    };
    Ok(contracts::contract(&terms.contract_id, spec, peer, None))
}

/// What is said of a service: as the other party has it, but for the blueprint. By that its seller makes the instance, so it is the one in the
/// name that was signed, whatever the buyer says.
fn service(flavor: &EmbeddedFlavor, signed: &str, buys: bool) -> Result<FlavorTypeData, String> {
    let mut service = flavor.spec.service().unwrap_or_default();
    if !buys {
        service.blueprint = names::service_blueprint(signed).unwrap_or_default().to_owned();
    }
    let type_data = serde_json::to_value(service).map_err(|error| error.to_string())?;
    Ok(FlavorTypeData { type_identifier: FlavorType::Service, type_data })
}

/// With which contract something is served that was sold on is known to nobody else. It takes nothing of the own capacity; with what it is served is
/// found again by the exporter (`resell`), or it ends: no contract has this name.
pub(crate) const LOST: &str = "lost";

fn served_by(conditions: &Conditions) -> Option<String> {
    conditions.resold.then(|| LOST.to_owned())
}

enum PromiseError {
    Books(BooksError),
    Refused(String),
}

impl From<BooksError> for PromiseError {
    fn from(error: BooksError) -> Self {
        Self::Books(error)
    }
}

/// Promises what was sold again; whether it was not.
async fn promise(
    books: &Books,
    signed: &Signed<rear::ContractTerms>,
    until: Option<Timestamp>,
    now: Timestamp,
) -> Result<bool, PromiseError> {
    let commitment = commitment(signed, until, now).map_err(PromiseError::Refused)?;
    let transaction = commitment.transaction.clone();
    if books.read().await?.is_none() {
        // Sold by an offer that the owner makes no more.
        books.open(Some(fluidos_model::market::Amounts::default())).await?;
    }
    let known = books.read().await?.is_some_and(|pool| is_sold(&pool, &commitment));
    let promised = |pool: &Pool| {
        if is_sold(pool, &commitment) {
            return Ok(pool.clone());
        }
        let mut pool = pool.release(&transaction);
        if pool.commitments.len() >= COMMITMENTS_MAX {
            return Err(PromiseError::Refused(format!("the pool has {COMMITMENTS_MAX} promises")));
        }
        pool.commitments.push(Arc::new(commitment.clone()));
        Ok(pool)
    };
    books.change(promised).await?;
    Ok(!known)
}

fn is_sold(pool: &Pool, commitment: &Commitment) -> bool {
    pool.commitment(&commitment.transaction).is_some_and(|known| known.state == commitment.state)
}

/// The promise that such terms were made from.
fn commitment(
    signed: &Signed<rear::ContractTerms>,
    until: Option<Timestamp>,
    now: Timestamp,
) -> Result<Commitment, String> {
    let terms = signed.value();
    let service = terms::is_service(terms).then(|| rear::ServiceTerms::of(terms)).transpose();
    let service = service.map_err(|error| error.to_string())?;
    let time = |text: &str| text.parse::<Timestamp>().map_err(|error| format!("{}: {error}", crate::bounded(text, 64)));
    let [amount, currency, period] = &terms.price;
    let price = Price::parse(amount, currency, period).map_err(|error| error.to_string())?.unwrap_or(Price::ZERO);
    let ends = terms.until.as_deref().map(time).transpose()?;
    let conditions = Conditions::read(terms.conditions.as_ref()).map_err(|error| error.to_string())?;
    Ok(Commitment {
        served_by: served_by(&conditions),
        transaction: terms.transaction_id.clone(),
        buyer: terms.buyer.to_string(),
        flavor: terms.flavor_id.clone(),
        amounts: terms::amounts(terms)?,
        state: CommitmentState::Committed { contract: terms.contract_id.clone(), until },
        agreed: Some(Agreed {
            policy: String::new(),
            issued: time(&terms.issued)?,
            // From now on its Contract is expected; so the books do not give it up while that is being written.
            hold_until: now,
            ends,
            price,
            conditions,
            service: service.map(|service| AgreedService { digest: service.configuration_digest, sized: true }),
        }),
    })
}
