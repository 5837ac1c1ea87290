//! Every choice about what is sold on: pure functions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fluidos_model::kinds::{
    Configuration, Contract, Flavor, FlavorError, FlavorPrice, FlavorSpec, FlavorType, FlavorTypeData, Gpu, K8Slice,
    K8SliceCharacteristics, K8SlicePolicies, NodeIdentity, QuantityText, ServiceFlavor, ServicePolicies, Solver,
    extended_texts, names,
};
use fluidos_model::market::{
    Agreed, AgreedService, Amounts, Commitment, Conditions, Expense, HOLDS_PER_BUYER_MAX, HoldRequest,
    Partitionability, Pool, Price, Reselling, Resource, Sale, sold_on,
};
use fluidos_rear as rear;
use fluidos_rear::{Refusal, RefusalCode};
use jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::exporter::plan as own;
use crate::importer::resale::Held;
use crate::importer::view::Offered;
use crate::restore::LOST;
use crate::terms;

/// Of a digest: 16 hexadecimal digits.
const DIGEST_BYTES: usize = 8;
/// Who would sell the same: the next is tried when the first does not hold it.
const OFFERS_MAX: usize = 4;
/// Open holds of what is sold on, of one buyer and of all: of the [`HOLDS_PER_BUYER_MAX`] that one seller behind lets this node have, the
/// rest is its own.
const HOLDS_OF_ONE: usize = 4;
const HOLDS_OF_ALL: usize = HOLDS_PER_BUYER_MAX - 4;
/// A hold here ends so long before the one behind it: its buyer must not be late there.
const HOLD_MARGIN: Duration = Duration::from_secs(1);

/// What names the purchase behind a transaction of a buyer.
pub(super) fn anchor(transaction: &str, buyer: &str) -> String {
    digest(&format!("{transaction}\n{buyer}"))
}

/// The name of the flavor that a buyer is offered for what it needs: the same need, the same name.
pub(super) fn flavor_name(identity: &NodeIdentity, tag: &str, buyer: &str, request: &rear::ResourceRequest) -> String {
    let rear::ResourceRequest { flavor_type, filters, intents, term_seconds, .. } = request;
    let need = digest(&format!("{buyer}\n{flavor_type:?}\n{filters:?}\n{intents:?}\n{term_seconds:?}"));
    match flavor_type {
        rear::FlavorType::Service => names::resale_service(&identity.domain, tag, &need),
        _ => names::resale_flavor(&identity.domain, tag, &need),
    }
}

/// Says whether a flavor has such a name. No other of this node has: those of plans have a dot.
pub(super) fn is_resale(flavor: &str, identity: &NodeIdentity, tag: &str) -> bool {
    let prefixes = [names::resale_flavor(&identity.domain, tag, ""), names::resale_service(&identity.domain, tag, "")];
    let hex = prefixes.iter().find_map(|prefix| flavor.strip_prefix(prefix));
    hex.is_some_and(|hex| hex.len() == 2 * DIGEST_BYTES && !hex.contains('.'))
}

fn digest(text: &str) -> String {
    Sha256::digest(text).iter().take(DIGEST_BYTES).map(|byte| format!("{byte:02x}")).collect()
}

/// What a buyer is told of what is sold on: of this node, whole or not at all, at this price. Nothing of it names who is behind: place,
/// architecture and what is promised are told as they were heard.
///
/// # Errors
/// A sentence: what was heard is neither slice nor service.
pub(super) fn flavor(
    name: &str,
    behind: &FlavorSpec,
    (amounts, price): (&Amounts, &Price),
    conditions: &Conditions,
    own: &NodeIdentity,
) -> Result<Flavor, String> {
    let type_data = match behind.flavor_type.type_identifier {
        FlavorType::Service => service(behind, conditions)?,
        _ => slice(behind, amounts, conditions).map_err(|error| error.to_string())?,
    };
    let spec = FlavorSpec {
        provider_id: own.node_id.clone(),
        flavor_type: FlavorTypeData { type_identifier: behind.flavor_type.type_identifier, type_data },
        owner: own.clone(),
        price: FlavorPrice::from(price),
        availability: true,
        network_property_type: behind.network_property_type.clone(),
        location: behind.location.clone(),
    };
    let mut flavor = Flavor::new(name, spec);
    flavor.metadata.namespace = Some(names::NAMESPACE.into());
    Ok(flavor)
}

/// What is said of a service: as it was heard, but for what its seller calls its blueprint.
fn service(behind: &FlavorSpec, conditions: &Conditions) -> Result<Value, String> {
    let policies = ServicePolicies { conditions: conditions.text() };
    let service = ServiceFlavor { blueprint: String::new(), policies, ..behind.service()? };
    serde_json::to_value(service).map_err(|error| error.to_string())
}

/// What is said of a slice.
fn slice(behind: &FlavorSpec, amounts: &Amounts, conditions: &Conditions) -> Result<Value, FlavorError> {
    let heard = behind.k8slice()?;
    let text = |resource: Resource| QuantityText(resource.text(amounts.get(&resource)));
    let some = |resource: Resource| (amounts.get(&resource) != 0).then(|| text(resource));
    let gpu = heard.characteristics.gpu.unwrap_or_default();
    let whole = Partitionability { least: amounts.clone(), step: Amounts::default() };
    let mut properties = heard.properties;
    // What its seller calls it is the seller's; what the machines have they have for whoever buys.
    let features = properties.features();
    properties.additional_properties.clear();
    properties.security_standards.clone_from(&features.standards);
    if !features.tee.is_empty() {
        properties.additional_properties.insert("TEE".into(), features.tee.into());
    }
    if !features.hardware.is_empty() {
        properties.additional_properties.insert("additional-hardware".into(), features.hardware.into());
    }
    let slice = K8Slice {
        characteristics: K8SliceCharacteristics {
            architecture: heard.characteristics.architecture,
            cpu: text(Resource::Cpu),
            memory: text(Resource::Memory),
            pods: text(Resource::Pods),
            gpu: some(Resource::GPU).map(|cores| Gpu { cores, ..gpu }),
            extended: extended_texts(amounts),
            storage: some(Resource::Storage),
        },
        properties,
        policies: K8SlicePolicies { partitionability: (&whole).into(), conditions: conditions.text() },
    };
    serde_json::to_value(slice).map_err(FlavorError::Shape)
}

/// What is sold on of what was found: what the best costs with the margin, and who else would sell the same at a price that leaves it.
pub(super) fn quoted(reselling: &Reselling, found: Vec<Offered>) -> Option<(Price, Vec<Offered>)> {
    let priced = found.into_iter().filter_map(|offered| Some((reselling.margin.on(&offered.price?).ok()?, offered)));
    let mut priced = priced.into_iter();
    let (price, best) = priced.next()?;
    let conditions = crate::importer::resale::conditions(&best).ok()?;
    let same = |(other, offered): &(Price, Offered)| {
        let currency = (other.currency, other.period) == (price.currency, price.period) || other.is_zero();
        let alike = crate::importer::resale::conditions(offered).is_ok_and(|other| other == conditions);
        offered.buys == best.buys && currency && alike && is_same(&best, offered) && other.amount <= price.amount
    };
    let others: Vec<Offered> = priced.filter(same).map(|(_, offered)| offered).take(OFFERS_MAX - 1).collect();
    Some((price, std::iter::once(best).chain(others).collect()))
}

/// Says whether two sellers sell the same: any two slices of one size; of services only those that are configured alike.
fn is_same(one: &Offered, other: &Offered) -> bool {
    let plain = |offered: &Offered| {
        let service = offered.flavor.spec.service().ok()?;
        Some(ServiceFlavor { blueprint: String::new(), policies: ServicePolicies::default(), ..service })
    };
    plain(one) == plain(other)
}

/// What a buyer wants to have held.
pub(super) enum Order {
    /// So much of a slice.
    Slice(Amounts),
    /// A service that is configured so, and the digest of that.
    Service(Box<Configuration>, String),
}

/// Says whether what is asked for is what is promised already.
pub(super) fn is_again(known: &Commitment, request: &rear::ReserveRequest, buyer: &str) -> Result<bool, Refusal> {
    let alike = match (&request.configuration, known.agreed.as_ref().and_then(|agreed| agreed.service.as_ref())) {
        (None, None) => true,
        (Some(asked), None) => own::asked(asked)? == known.amounts,
        (Some(asked), Some(service)) => super::service::digest(asked)? == service.digest,
        (None, Some(service)) => super::service::nothing()? == service.digest,
    };
    Ok(alike && known.buyer == buyer && known.flavor == request.flavor_id)
}

/// The request that is held here for what is held behind it.
///
/// # Errors
/// Why what is held behind it cannot be sold on, in words for the owner.
pub(super) fn held(
    request: &rear::ReserveRequest,
    (transaction, buyer): (&str, &str),
    (order, price): (&Order, Price),
    (sale, reselling): (&Sale, &Reselling),
    behind: &Held,
    (hold, now): (Duration, Timestamp),
) -> Result<HoldRequest, String> {
    let (amounts, service) = match order {
        Order::Slice(amounts) => (amounts.clone(), None),
        Order::Service(_, digest) => {
            (behind.amounts.clone(), Some(AgreedService { digest: digest.clone(), sized: true }))
        }
    };
    let least = reselling.margin.on(&behind.price).map_err(|error| error.to_string())?;
    let same = (least.currency, least.period) == (price.currency, price.period) || least.is_zero();
    if !same || least.amount > price.amount {
        return Err(format!("margin: {} is paid and {price} asked, needed at least {least}", behind.price));
    }
    let clock = || "the clock is beyond what can be counted".to_owned();
    let own = terms::shifted(now, sale.hold.unwrap_or(hold), 1).ok_or_else(clock)?;
    let theirs = behind.until.and_then(|until| terms::shifted(until, HOLD_MARGIN, -1));
    let until = theirs.map_or(own, |theirs| theirs.min(own));
    let wanted = request.term_seconds.map(Duration::from_secs);
    let term = sale.term.unwrap_or(terms::CONTRACT_TERM);
    let term = wanted.map_or(term, |wanted| wanted.min(term));
    let ends = terms::shifted(now, term, 1).ok_or_else(clock)?;
    let ends = behind.ends.map_or(ends, |theirs| theirs.min(ends));
    if until <= now || ends <= until {
        return Err(format!("time: held until {until} and sold until {ends}, it is {now}"));
    }
    let agreed = Agreed {
        policy: sale.policy.clone(),
        issued: now,
        hold_until: until,
        ends: Some(ends),
        price,
        conditions: sold_on(&behind.conditions),
        service,
    };
    Ok(HoldRequest {
        transaction: transaction.into(),
        buyer: buyer.into(),
        flavor: request.flavor_id.clone(),
        amounts,
        until,
        agreed: Some(agreed),
    })
}

/// Says whether a buyer may hold one more of what is sold on. A seller behind lets this node hold so much and no more: one buyer does
/// not take all of it, nor all of them what this owner needs for itself.
///
/// # Errors
/// It, or all of them, hold as much as they may, or the Ledger is full.
pub(super) fn room(
    pool: &Pool,
    (transaction, buyer): (&str, &str),
    flavor: &str,
    order: &Order,
    now: Timestamp,
) -> Result<(), Refusal> {
    let amounts = match order {
        Order::Slice(amounts) => amounts.clone(),
        // How large it is its seller says when it holds it.
        Order::Service(..) => Amounts { pods: 1, ..Amounts::default() },
    };
    let held =
        || pool.commitments.iter().filter(|known| known.served_by.is_some() && known.is_held() && !known.is_over(now));
    let of_one = held().filter(|known| known.buyer == buyer).count();
    if of_one >= HOLDS_OF_ONE {
        let detail = format!("resale: {buyer} has {of_one} open holds of what is sold on, which is the most");
        return Err(Refusal::new(RefusalCode::TooMany, detail));
    }
    if held().count() >= HOLDS_OF_ALL {
        let detail = format!("resale: {HOLDS_OF_ALL} are held of what is sold on, which is the most: ask again");
        return Err(Refusal::new(RefusalCode::Unavailable, detail));
    }
    let until = terms::shifted(now, HOLD_MARGIN, 1).unwrap_or(Timestamp::MAX);
    let hold = HoldRequest {
        transaction: transaction.into(),
        buyer: buyer.into(),
        flavor: flavor.into(),
        amounts,
        until,
        agreed: None,
    };
    pool.hold_served(&hold, "", now).map(drop).map_err(|refusal| own::refusal(refusal).into_refusal())
}

/// What is promised to be bought and stands in no contract yet, at the price it is sold on for: not less than what it costs.
pub(super) fn promised(pool: &Pool, now: Timestamp) -> Vec<Expense> {
    let held = pool.commitments.iter().filter(|known| known.is_held() && known.served_by.is_some());
    let held = held.filter(|known| !known.is_over(now)).filter_map(|known| known.agreed.as_ref());
    held.map(|agreed| Expense { price: agreed.price, from: now, until: agreed.ends, namespace: None }).collect()
}

/// What is to be done so that what is sold on and what is bought for it agree.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Settling {
    /// Solvers whose purchase nobody needs.
    pub abandon: Vec<String>,
    /// Contracts that were sold and are served with nothing any more, with the reason.
    pub end: Vec<(String, String)>,
    /// Contracts of which the other side of the chain has given notice, with the reason for this side.
    pub notice: Vec<(String, String)>,
    /// What serves what, found again after a loss.
    pub reunite: Vec<Reunion>,
    /// Contracts that were bought to be sold on, came back after a loss, and serve nobody any more.
    pub unneeded: Vec<String>,
}

/// A contract that was sold, and what serves it.
#[derive(Debug, PartialEq)]
pub(super) struct Reunion {
    pub sold: String,
    /// That of the contract that was sold.
    pub transaction: String,
    pub bought: String,
    /// What names the purchase behind.
    pub hex: String,
}

/// Why a contract ends of which what serves it is gone.
const NOT_GIVEN_BACK: &str = "what it was served with was lost, and nobody has given it back";

/// Compares the ledger, the Solvers that buy what is sold on, and the contracts of one moment. What is `busy` is in somebody's hands.
pub(super) fn settle(
    pool: &Pool,
    anchors: &[Solver],
    contracts: &[Contract],
    (busy, restoring): (&BTreeSet<String>, bool),
    now: Timestamp,
) -> Settling {
    let served = pool.commitments.iter().filter(|known| known.served_by.is_some() && !known.is_over(now));
    let needed: BTreeSet<String> = served.map(|known| anchor(&known.transaction, &known.buyer)).collect();
    let unneeded = anchors.iter().filter(|solver| solver.metadata.deletion_timestamp.is_none()).filter(|solver| {
        let hex = solver.labels().get(names::LABEL_RESALE);
        hex.is_none_or(|hex| !needed.contains(hex) && !busy.contains(hex))
    });
    let mut settling = Settling { abandon: unneeded.map(|solver| solver.name_any()).collect(), ..Settling::default() };
    let by_name: BTreeMap<&str, &Contract> =
        contracts.iter().filter_map(|known| Some((known.metadata.name.as_deref()?, known))).collect();
    let live = || contracts.iter().filter(|known| known.metadata.deletion_timestamp.is_none());
    for sold in live() {
        let Some(behind) = &sold.spec.served_by else {
            settling.unneeded.extend(is_left(sold, &needed, busy).then(|| sold.name_any()).filter(|_| !restoring));
            continue;
        };
        if behind == LOST {
            let hex = anchor(&sold.spec.transaction_id, &sold.spec.buyer_cluster_id);
            let serves =
                |known: &&Contract| known.spec.served_by.is_none() && known.spec.transaction_id.starts_with(&hex);
            match live().find(serves) {
                Some(bought) => settling.reunite.push(Reunion {
                    sold: sold.name_any(),
                    transaction: sold.spec.transaction_id.clone(),
                    bought: bought.name_any(),
                    hex,
                }),
                // It may come in a moment.
                None if restoring => {}
                None => settling.end.push((sold.name_any(), NOT_GIVEN_BACK.into())),
            }
            continue;
        }
        if ends(sold, false).is_some_and(|ends| ends <= now) {
            continue; // its time is over: that is the reason
        }
        let known = by_name.get(behind.as_str()).filter(|known| known.metadata.deletion_timestamp.is_none());
        let Some(bought) = known else {
            let reason = "what it was served with has ended: its seller has ended it, or its time was over";
            settling.end.push((sold.name_any(), reason.into()));
            continue;
        };
        match (ends(bought, true), ends(sold, true)) {
            (Some(at), None) if !is_ending(sold) => {
                settling.notice.push((sold.name_any(), format!("what it is served with ends at {at}")));
            }
            (None, Some(at)) if !is_ending(bought) => {
                settling.notice.push((bought.name_any(), format!("it is not needed after {at}")));
            }
            _ => {}
        }
    }
    settling
}

/// Says whether something was bought for nobody: by hand of no Solver any more, as after a loss, and no promise needs it.
fn is_left(bought: &Contract, needed: &BTreeSet<String>, busy: &BTreeSet<String>) -> bool {
    let hex = bought.labels().get(names::LABEL_RESALE);
    bought.owner_references().is_empty() && hex.is_some_and(|hex| !needed.contains(hex) && !busy.contains(hex))
}

/// When a contract ends: by a notice, or by itself.
fn ends(contract: &Contract, by_notice: bool) -> Option<Timestamp> {
    let text = match by_notice {
        true => contract.status.as_ref().and_then(|status| status.ends.as_ref()),
        false => contract.spec.expiration_time.as_ref(),
    };
    text.and_then(|text| text.parse().ok())
}

fn is_ending(contract: &Contract) -> bool {
    contract.annotations().contains_key(names::ANNOTATION_END_REASON)
}
