//! The terms of a promise: a pure function of what stands in the ledger.
//!
//! Nothing else is kept between a hold and its sale, so a seller that was killed offers the same bytes again, and a buyer's
//! signature over them still holds.

use std::sync::Arc;
use std::time::Duration;

use fluidos_identity::{IdError, NodeId, Signed, SignedError};
use fluidos_model::kinds::{Configuration, Contract, FlavorError, FlavorType, names};
use fluidos_model::market::{Amounts, Commitment, CommitmentState, Conditions};
use fluidos_model::service::{size_of, size_text};
use fluidos_rear as rear;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// How long a contract lasts, as with official nodes.
pub const CONTRACT_TERM: Duration = Duration::from_secs(365 * 24 * 3600);
/// A contract's name is a label value, at most 63 characters: 9 for `contract-`, up to 40 of the flavor, a dash, and these.
const SUFFIX_BYTES: usize = 6;

/// Why a promise has no terms, or a contract none that hold.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TermsProblem {
    #[error("buyer: {0}")]
    Buyer(#[from] IdError),
    #[error("commitment {transaction} has no time, or one that cannot be counted from")]
    Time { transaction: String },
    #[error(transparent)]
    Amounts(#[from] FlavorError),
    #[error(transparent)]
    Signed(#[from] SignedError),
    #[error("contract {contract} has no signed terms")]
    Unsigned { contract: String },
}

/// Returns the terms of a promise, which are the same bytes however often they are made.
pub(crate) fn of_commitment(
    commitment: &Commitment,
    seller: NodeId,
    hold: Duration,
) -> Result<Signed<rear::ContractTerms>, TermsProblem> {
    let issued = issued(commitment, hold)?;
    let until = match &commitment.agreed {
        Some(agreed) => agreed.ends,
        None => Some(shifted(issued, CONTRACT_TERM, 1).ok_or_else(|| no_time(commitment))?),
    };
    let service = commitment.agreed.as_ref().and_then(|agreed| agreed.service.as_ref());
    let (flavor_type, configuration) = match service {
        Some(service) => {
            let size = service.sized.then(|| size_text(&commitment.amounts)).transpose()?;
            (rear::FlavorType::Service, rear::ServiceTerms::new(&service.digest, size).into())
        }
        None => (rear::FlavorType::K8Slice, Configuration::k8slice(&commitment.amounts)?.data),
    };
    let terms = rear::ContractTerms {
        version: 1,
        contract_id: contract_name(commitment),
        transaction_id: commitment.transaction.clone(),
        flavor_id: commitment.flavor.clone(),
        flavor_type: flavor_type.as_str().into(),
        configuration,
        buyer: commitment.buyer.parse()?,
        seller,
        price: commitment.agreed.as_ref().map(|agreed| agreed.price.texts()).unwrap_or_default(),
        conditions: commitment.agreed.as_ref().and_then(|agreed| agreed.conditions.text()),
        issued: issued.to_string(),
        until: until.map(|until| until.to_string()),
    };
    Ok(terms.into_signed()?)
}

/// Returns when a promise was made. Older versions did not write it: then it follows from the usual hold and term.
pub(crate) fn issued(commitment: &Commitment, hold: Duration) -> Result<Timestamp, TermsProblem> {
    if let Some(agreed) = &commitment.agreed {
        return Ok(agreed.issued);
    }
    let (until, before) = match &commitment.state {
        CommitmentState::Held { until } => (Some(*until), hold),
        CommitmentState::Committed { until, .. } => (*until, CONTRACT_TERM),
    };
    until.and_then(|until| shifted(until, before, -1)).ok_or_else(|| no_time(commitment))
}

/// Returns the name of the contract that a promise becomes, at both parties.
pub(crate) fn contract_name(commitment: &Commitment) -> String {
    let digest = Sha256::digest(format!("{}\n{}", commitment.transaction, commitment.buyer));
    let suffix: String = digest.iter().take(SUFFIX_BYTES).map(|byte| format!("{byte:02x}")).collect();
    names::contract(&commitment.flavor, &suffix)
}

/// Returns the terms of a contract with the signatures that hold.
pub(crate) fn of_contract(contract: &Contract) -> Result<Arc<Signed<rear::ContractTerms>>, TermsProblem> {
    let unsigned = || TermsProblem::Unsigned { contract: contract.metadata.name.clone().unwrap_or_default() };
    let envelope = crate::convert::envelope(contract.spec.signed_terms.as_ref().ok_or_else(unsigned)?);
    Ok(Signed::open_kept(&envelope, rear::CONTRACT_PURPOSE)?)
}

/// How long before an early end it must be told. Conditions that cannot be read are never signed.
pub(crate) fn notice(terms: &rear::ContractTerms) -> Duration {
    Conditions::read(terms.conditions.as_ref()).map_or(Duration::ZERO, |it| Duration::from_secs(it.notice_seconds))
}

/// Says whether terms are of a service.
pub(crate) fn is_service(terms: &rear::ContractTerms) -> bool {
    terms.flavor_type == rear::FlavorType::Service.as_str()
}

/// How much of its seller's capacity a contract takes, as both have signed it.
///
/// # Errors
/// A sentence: it cannot be read, or it is of a service and older than that its size is signed.
pub(crate) fn amounts(terms: &rear::ContractTerms) -> Result<Amounts, String> {
    if is_service(terms) {
        let size = rear::ServiceTerms::of(terms).map_err(|error| error.to_string())?.size;
        return size_of(&size.ok_or("its terms do not say how large the service is, as those of older versions")?);
    }
    let configuration = Configuration { flavor_type: FlavorType::K8Slice, data: terms.configuration.clone() };
    configuration.amounts().map_err(|error| error.to_string())
}

/// What exactly is bought of a service: what somebody says that was configured, if it has the digest that is needed.
///
/// # Errors
/// A sentence with both digests.
pub(crate) fn configured(needed: &str, data: &Value) -> Result<Configuration, String> {
    let observed = rear::configuration_digest(data).map_err(|error| error.to_string())?;
    if observed != needed {
        return Err(format!("the configuration has the digest {observed}, needed {needed} as in the terms"));
    }
    // Nothing but what was checked and signed is kept.
    let configured = data.get("configurationData").filter(|data| !data.is_null()).cloned().unwrap_or_else(|| json!({}));
    let data = json!({"hostingPolicy": "Provider", "configurationData": configured});
    Ok(Configuration { flavor_type: FlavorType::Service, data })
}

/// Says whether a name may be that of an object and the value of a label.
pub(crate) fn is_label(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let bytes = name.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|byte| inner(*byte))
        && bytes.first() != Some(&b'-')
        && bytes.last() != Some(&b'-')
}

pub(crate) fn shifted(time: Timestamp, by: Duration, sign: i32) -> Option<Timestamp> {
    let by = SignedDuration::try_from(by).ok()?;
    time.checked_add(if sign < 0 { -by } else { by }).ok()
}

fn no_time(commitment: &Commitment) -> TermsProblem {
    TermsProblem::Time { transaction: commitment.transaction.clone() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use fluidos_identity::NodeKey;
    use fluidos_model::market::{Agreed, Amounts, BusinessModel, HoldRequest, Pool, Price};

    use super::*;

    #[test]
    fn a_promise_has_the_same_terms_before_and_after_it_is_sold() {
        let (buyer, seller) = (NodeKey::from_seed([1; 32]).unwrap().id(), NodeKey::from_seed([2; 32]).unwrap().id());
        let now = Timestamp::from_second(1_000_000).unwrap();
        let amounts = Amounts { cpu_milli: 500, memory_bytes: 1 << 30, pods: 3, ..Amounts::default() };
        let request = HoldRequest {
            transaction: "t".into(),
            buyer: buyer.to_string(),
            flavor: format!("{}.example-k8slice-{}", "long".repeat(30), "ab".repeat(16)),
            amounts: amounts.clone(),
            until: shifted(now, crate::HOLD, 1).unwrap(),
            agreed: None,
        };
        let pool = Pool { capacity: amounts.clone(), commitments: vec![] }.hold(&request, now).unwrap();
        let held = of_commitment(pool.commitment("t").unwrap(), seller, crate::HOLD).unwrap();
        let until = held.value().until.as_ref().map(|until| until.parse().unwrap());
        let pool = pool.commit("t", &held.value().contract_id, until, now).unwrap();
        let sold = of_commitment(pool.commitment("t").unwrap(), seller, crate::HOLD).unwrap();
        assert_eq!(held.bytes(), sold.bytes());
        assert_eq!(held.value().issued, now.to_string());
        assert_eq!(held.value().price, ["", "", ""], "what an older version held keeps its bytes");

        let price = Price::parse("0.02", "EUR", "hour").unwrap().unwrap();
        let (hold_until, ends) = (shifted(now, Duration::from_secs(5), 1).unwrap(), shifted(now, crate::HOLD, 1));
        let (business_model, policy) = (BusinessModel::Spot, "p".into());
        let conditions = Conditions { business_model, notice_seconds: 120, ..Conditions::default() };
        let agreed = Agreed { policy, issued: now, hold_until, ends, price, conditions, service: None };
        let request = HoldRequest { agreed: Some(agreed), ..request };
        let pool = Pool { capacity: amounts, commitments: vec![] }.hold(&request, now).unwrap();
        let priced = of_commitment(pool.commitment("t").unwrap(), seller, crate::HOLD).unwrap();
        let pool = pool.commit("t", &priced.value().contract_id, ends, now).unwrap();
        // Another hold in the options changes nothing of what was agreed.
        let sold = of_commitment(pool.commitment("t").unwrap(), seller, Duration::from_secs(1)).unwrap();
        assert_eq!(priced.bytes(), sold.bytes());
        assert_eq!(priced.value().price, ["0.02", "EUR", "hour"]);
        let signed = serde_json::json!({"businessModel": "spot", "noticeSeconds": 120, "tolerancePerMille": 10});
        assert_eq!((priced.value().conditions.as_ref(), held.value().conditions.as_ref()), (Some(&signed), None));
        assert_eq!(priced.value().until, ends.map(|ends| ends.to_string()));
        assert!(is_label(&held.value().contract_id), "{}", held.value().contract_id);
        assert!(!is_label("Contract") && !is_label("a/b") && !is_label("") && !is_label(&"a".repeat(64)));
    }
}
