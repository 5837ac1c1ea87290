//! Every choice of the exporter: pure functions from what is there to what is answered or mended.

use std::collections::BTreeSet;
use std::time::Duration;

use fluidos_identity::Signed;
use fluidos_model::intent::{Intents, Place, Requirement, judge, parse};
use fluidos_model::kinds::{
    Configuration, Contract, ContractSpec, EmbeddedFlavor, EmbeddedMeta, Flavor, FlavorPrice, FlavorType,
    K8SlicePartitionability, NodeIdentity, TelemetryServer, names,
};
use fluidos_model::market::{
    Agreed, AgreedService, Amounts, Asker, Commitment, CommitmentState, FilterText, Fit, HoldRequest, K8SliceSelector,
    LedgerRefusal, Plan, Pool, Resource, Sale, Sharing, SharingRefusal, credit, sale,
};
use fluidos_rear as rear;
use fluidos_rear::{Refusal, RefusalCode};
use jiff::Timestamp;

use super::act;
use crate::{bounded, convert, terms};

/// A sale that is not finished so long after its hold was over is given up: its buyer has stopped asking.
const UNFINISHED: Duration = Duration::from_secs(60);
/// An endpoint of telemetry is a URL.
const ENDPOINT_LENGTH_MAX: usize = 2048;
const INTENTS_MAX: usize = 32;
/// A description is some sentences.
const DESCRIPTION_LENGTH_MAX: usize = 1024;
/// As many as a buyer compares.
const OFFERS_MAX: usize = 64;

/// Returns the filters of a list request, or `None` if it is about what is not sold here.
pub(super) fn selector(asked: &rear::Selector) -> Result<Option<K8SliceSelector>, Refusal> {
    if asked.flavor_type.is_some_and(|wanted| wanted != rear::FlavorType::K8Slice) {
        return Ok(None);
    }
    let named = |filter: &rear::SelectorFilter| match filter {
        rear::SelectorFilter::Match { name, .. } | rear::SelectorFilter::Range { name, .. } => name.clone(),
    };
    // Those ask for services.
    if asked.filters.iter().map(named).any(|name| matches!(name.as_str(), "category" | "tags")) {
        return Ok(None);
    }
    let texts: Vec<FilterText> = asked
        .filters
        .iter()
        .map(|filter| match filter.clone() {
            rear::SelectorFilter::Match { name, value } => FilterText::Match { name, value },
            rear::SelectorFilter::Range { name, min, max } => FilterText::Range { name, min, max },
        })
        .collect();
    let read = K8SliceSelector::from_texts(&texts);
    read.map(Some).map_err(|error| Refusal::new(RefusalCode::Malformed, error.to_string()))
}

/// Returns the flavors of which something can be bought that passes the filters. One that is sold out is told to who asks
/// for anything: so a buyer learns why.
pub(super) fn listed(flavors: &[Flavor], sale: &Sale, wanted: &K8SliceSelector) -> Vec<rear::Flavor> {
    let matching = flavors.iter().filter_map(|flavor| {
        let flavor = for_sale(flavor, sale);
        let name = flavor.metadata.name.as_deref()?;
        flavor.spec.offer(name).ok()?.amounts_for(wanted).ok()?;
        Some(convert::wire_flavor(name, &flavor.spec))
    });
    matching.collect()
}

/// Returns the page of offers that is asked for: those with a plan that the peer may have, with these.
pub(super) fn page(shelves: &[act::Shelf], priced: &[(Flavor, Sale)], query: &rear::OffersQuery) -> rear::OffersPage {
    let plan = |(name, plan): &(String, Plan)| {
        let of_plan = |(flavor, _): &&(Flavor, Sale)| flavor.metadata.name.as_ref() == Some(name);
        let (flavor, sale) = priced.iter().find(of_plan)?;
        let flavor = convert::wire_flavor(name, &for_sale(flavor, sale).spec);
        Some(rear::OfferedPlan { name: plan.name.clone(), description: plan.description.clone(), flavor })
    };
    let offers = shelves.iter().filter(|shelf| query.after.as_ref().is_none_or(|after| shelf.name > *after));
    let offers = offers.map(|shelf| {
        let plans: Vec<rear::OfferedPlan> = shelf.plans.iter().filter_map(plan).collect();
        rear::Offer { id: shelf.name.clone(), description: bounded(&shelf.description, DESCRIPTION_LENGTH_MAX), plans }
    });
    let mut offers: Vec<rear::Offer> = offers.filter(|offer| !offer.plans.is_empty()).take(query.limit + 1).collect();
    let more = offers.len() > query.limit;
    offers.truncate(query.limit);
    let next = offers.last().filter(|_| more).map(|offer| offer.id.clone());
    rear::OffersPage { offers, next }
}

/// What is said about a flavor to the buyer of a sale: its price, its blocks, and no more than may be sold to it.
pub(super) fn for_sale(flavor: &Flavor, sale: &Sale) -> Flavor {
    let mut flavor = flavor.clone();
    flavor.spec.price = FlavorPrice::from(&sale.price);
    if sale.plan.is_some() {
        // Its size is what it is; it can be had whole, or not now.
        flavor.spec.availability &= !sale.free.is_zero();
        match (sale.conditions.text(), flavor.spec.flavor_type.type_data.get_mut("policies")) {
            (Some(conditions), Some(policies)) if policies.is_object() => policies["conditions"] = conditions,
            (None, Some(policies)) if policies.is_object() => policies["conditions"] = serde_json::Value::Null,
            _ => {}
        }
        return flavor;
    }
    if sale.policy.is_empty() {
        return flavor;
    }
    let shown = flavor.spec.offer("").map(|offer| offer.whole).unwrap_or_default();
    let data = &mut flavor.spec.flavor_type.type_data;
    for resource in shown.resources() {
        let (left, shown) = (sale.free.get(&resource), shown.get(&resource));
        // What is promised more than once is more than is free.
        if (left < shown || (sale.conditions.overcommit() > 100 && left != shown))
            && let Some(place) = data.get_mut("characteristics").and_then(|all| place_of(&resource, all))
        {
            *place = resource.text(left).into();
        }
    }
    if let Some(conditions) = sale.conditions.text()
        && data.is_object()
    {
        data["policies"]["conditions"] = conditions;
    }
    if let Some(blocks) = &sale.blocks
        && data.is_object()
    {
        // Texts always have a JSON form.
        data["policies"]["partitionability"] =
            serde_json::to_value(K8SlicePartitionability::from(blocks)).unwrap_or_default();
    }
    flavor
}

/// Where the characteristics of a slice say how much there is of a resource.
fn place_of<'a>(resource: &Resource, characteristics: &'a mut serde_json::Value) -> Option<&'a mut serde_json::Value> {
    match resource {
        gpu if *gpu == Resource::GPU => characteristics.get_mut("gpu")?.get_mut("cores"),
        Resource::Extended(name) => characteristics.get_mut("extendedResources")?.get_mut(name.as_str()),
        native => characteristics.get_mut(native.name()),
    }
}

/// Returns the amounts of a configuration.
pub(super) fn asked(configuration: &rear::Configuration) -> Result<Amounts, Refusal> {
    if configuration.flavor_type != rear::FlavorType::K8Slice {
        let detail = format!("{} is not sold here, only k8slice", configuration.flavor_type.as_str());
        return Err(Refusal::new(RefusalCode::NotFound, detail));
    }
    let configuration = Configuration { flavor_type: FlavorType::K8Slice, data: configuration.data.clone() };
    configuration.amounts().map_err(|error| Refusal::new(RefusalCode::Malformed, error.to_string()))
}

/// What a buyer wants held.
pub(super) struct Wish<'a> {
    pub transaction: &'a str,
    /// Under which name the Ledger has it.
    pub buyer: &'a str,
    /// What was seen of it.
    pub rating: Option<u8>,
    /// `None` is all there is.
    pub amounts: Option<Amounts>,
    /// For how long it is wanted; `None` is as long as it is sold.
    pub term: Option<Duration>,
    pub hold: Duration,
    /// The plan that the flavor is, if it is one.
    pub plan: Option<&'a Plan>,
    /// Of a service, the digest of what is configured.
    pub service: Option<&'a str>,
}

/// Decides whether a wish may be held, and returns the hold. The ledger has the last word on what is free.
///
/// What is held already stays held, whatever the policies say now.
pub(super) fn admit(
    flavor: &Flavor,
    policies: &[Option<Sharing>],
    pool: &Pool,
    wish: &Wish,
    now: Timestamp,
) -> Result<HoldRequest, Refusal> {
    let (name, buyer) = (flavor.metadata.name.clone().unwrap_or_default(), wish.buyer.to_owned());
    let hold = |amounts, until, agreed| HoldRequest {
        transaction: wish.transaction.into(),
        buyer: buyer.clone(),
        flavor: name.clone(),
        amounts,
        until,
        agreed,
    };
    if let Some(known) = pool.commitment(wish.transaction).filter(|known| !known.is_over(now)) {
        let other = known.agreed.as_ref().and_then(|it| Some(it.service.as_ref()?.digest.as_str())) != wish.service;
        if other && known.buyer == buyer {
            return Err(refusal(LedgerRefusal::Conflict { transaction: wish.transaction.into() }).into_refusal());
        }
        // Asked again, "all there is" is what it was the first time.
        return Ok(hold(wish.amounts.clone().unwrap_or_else(|| known.amounts.clone()), now, None));
    }
    let asker = Asker { did: Some(&buyer), rating: wish.rating };
    let sale = sold_now(wish.plan, policies, pool, asker, now).map_err(not_sold)?;
    credit(policies, &sale, pool, &buyer, now).map_err(not_sold)?;
    let clock = || Refusal::new(RefusalCode::Internal, "the clock is beyond what can be counted");
    let until = terms::shifted(now, sale.hold.unwrap_or(wish.hold), 1).ok_or_else(clock)?;
    let ends = terms::shifted(now, term(&sale, wish.term), 1).ok_or_else(clock)?;
    let all = || wish.plan.map_or_else(|| sale.free.clone(), |plan| plan.amounts.clone());
    let amounts = wish.amounts.clone().unwrap_or_else(all);
    if let Some(plan) = wish.plan.filter(|plan| plan.amounts != amounts) {
        let detail = format!("plan {}: {amounts} asked for, needed all of it: {}", plan.reference(), plan.amounts);
        return Err(Refusal::new(RefusalCode::Conflict, detail));
    }
    if let Some((resource, observed, needed)) = sale.free.shortfalls(&amounts).first() {
        let too_little = LedgerRefusal::TooLittle { resource: resource.clone(), observed: *observed, needed: *needed };
        return Err(refusal(too_little).into_refusal());
    }
    if wish.plan.is_none() {
        let offer = for_sale(flavor, &sale).spec.offer(&name).map_err(|error| {
            tracing::warn!(flavor = name, %error, "own flavor cannot be read");
            Refusal::new(RefusalCode::Internal, "the flavor cannot be read")
        })?;
        // What is written in the flavor is what was free a moment ago; the pool knows what is free now.
        let offer = fluidos_model::market::Offer { whole: sale.free, ..offer };
        offer.allows(&amounts).map_err(|mismatch| Refusal::new(RefusalCode::Conflict, mismatch.to_string()))?;
    }
    let price = sale.price.of(&amounts);
    let price = price.map_err(|error| Refusal::new(RefusalCode::Conflict, error.to_string()))?;
    let Sale { policy, conditions, .. } = sale;
    let service = wish.service.map(|digest| AgreedService { digest: digest.to_owned(), sized: true });
    let agreed = Agreed { policy, issued: now, hold_until: until, ends: Some(ends), price, conditions, service };
    Ok(hold(amounts, until, Some(agreed)))
}

/// Decides what of a flavor is sold to a buyer now; `plan` is the plan that it is, if it is one.
///
/// # Errors
/// [`SharingRefusal`]: nothing is.
pub(super) fn sold_now(
    plan: Option<&Plan>,
    policies: &[Option<Sharing>],
    pool: &Pool,
    asker: Asker<'_>,
    now: Timestamp,
) -> Result<Sale, SharingRefusal> {
    match plan {
        Some(plan) => plan.sale(policies, pool, asker, now),
        None => sale(policies, pool, asker, now),
    }
}

/// How it stands to what is asked for, as it is written.
pub(super) fn fit(fit: Fit) -> rear::Fit {
    match fit {
        Fit::Exact => rear::Fit::Exact,
        Fit::Less => rear::Fit::Less,
        Fit::More => rear::Fit::More,
    }
}

/// As long as it is wanted and sold.
pub(super) fn term(sale: &Sale, wanted: Option<Duration>) -> Duration {
    let sold = sale.term.unwrap_or(terms::CONTRACT_TERM);
    wanted.map_or(sold, |wanted| wanted.min(sold))
}

/// Puts together what is answered about each flavor.
pub(super) fn together(answers: impl IntoIterator<Item = rear::ResourceAnswer>) -> rear::ResourceAnswer {
    let (mut offers, mut denials, mut open) = (Vec::new(), Vec::new(), false);
    for answer in answers {
        open |= answer.open;
        offers.extend(answer.offers);
        denials.extend(answer.denial.filter(|denial| !denials.contains(denial)));
    }
    // Plans come after the flavor that is cut as it is wanted: a buyer that looks at few of them has seen that one.
    offers.truncate(OFFERS_MAX);
    let denial = (offers.is_empty() && !denials.is_empty()).then(|| bounded(&denials.join("; "), 512));
    rear::ResourceAnswer { open: open && denial.is_some(), offers, denial }
}

/// Returns what could be sold for what is needed, or why nothing could. Latency is the buyer's to measure.
pub(super) fn answered(
    flavors: &[Flavor],
    sale: &Sale,
    request: &rear::ResourceRequest,
) -> Result<rear::ResourceAnswer, Refusal> {
    let denied = |denial: String| rear::ResourceAnswer { denial: Some(denial), ..Default::default() };
    let asked = rear::Selector { flavor_type: Some(request.flavor_type), filters: request.filters.clone() };
    let Some(wanted) = selector(&asked)? else {
        return Ok(denied(format!("{} is not sold here, only k8slice", request.flavor_type.as_str())));
    };
    let mut intents = parse(request.intents.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    if !intents.is_clear() {
        return Ok(denied(intents.warnings().join("; ")));
    }
    intents.constraints.retain(|constraint| !matches!(constraint.requirement, Requirement::LatencyMicros(_)));
    let (mut answer, mut reasons) = (rear::ResourceAnswer::default(), Vec::new());
    for flavor in flavors {
        match offered(flavor, sale, &wanted, &intents, request.term_seconds) {
            Ok(offer) => answer.offers.push(offer),
            Err(reason) => {
                // A machine that has just started offers nothing until it is ready.
                answer.open |= for_sale(flavor, sale).spec.offer("").is_ok_and(|offer| offer.whole.is_zero());
                reasons.push(reason);
            }
        }
    }
    answer.open &= answer.offers.is_empty();
    answer.denial = (answer.offers.is_empty() && !reasons.is_empty()).then(|| bounded(&reasons.join("; "), 512));
    Ok(answer)
}

fn offered(
    flavor: &Flavor,
    sale: &Sale,
    wanted: &K8SliceSelector,
    intents: &Intents,
    wanted_seconds: Option<u64>,
) -> Result<rear::ResourceOffer, String> {
    let flavor = for_sale(flavor, sale);
    let name = flavor.metadata.name.clone().unwrap_or_default();
    let offer = flavor.spec.offer(&name).map_err(|_| format!("flavor {name} cannot be read"))?;
    let (fit, amounts) = offer.nearest(wanted).map_err(|mismatch| mismatch.to_string())?;
    if !flavor.spec.availability || amounts.is_zero() {
        return Err(format!("{name}: {} is free, and nothing can be bought", offer.whole));
    }
    let judgement = judge(intents, &Place::from(&offer));
    if !judgement.holds() {
        return Err(judgement.explain());
    }
    let price = sale.price.of(&amounts).map_err(|error| format!("price: {error}"))?;
    let FlavorPrice { amount, currency, period, unit } = FlavorPrice::from(&price);
    let configuration = Configuration::k8slice(&amounts).map_err(|error| error.to_string())?;
    Ok(rear::ResourceOffer {
        fit: self::fit(fit),
        flavor: convert::wire_flavor(&name, &flavor.spec),
        configuration: convert::wire_configuration(&configuration),
        price: rear::Price { amount, currency, period, unit },
        term_seconds: Some(term(sale, wanted_seconds.map(Duration::from_secs)).as_secs()),
    })
}

/// Returns what a buyer is told when the policies do not sell to it. What is wrong with them is the owner's business.
pub(super) fn not_sold(refusal: SharingRefusal) -> Refusal {
    let code = match &refusal {
        SharingRefusal::NotAdmitted { .. } => RefusalCode::Forbidden,
        SharingRefusal::Credit { .. } => RefusalCode::Conflict,
        SharingRefusal::Unreadable => RefusalCode::Unavailable,
        SharingRefusal::NoPrice(error) => {
            tracing::warn!(%error, "nothing is sold");
            RefusalCode::Unavailable
        }
        SharingRefusal::Uncountable(error) => {
            tracing::warn!(%error, "nothing is sold");
            RefusalCode::Internal
        }
    };
    Refusal::new(code, refusal.to_string())
}

/// Returns what a buyer is told when the ledger does not promise.
pub(super) fn refusal(refusal: LedgerRefusal) -> act::Error {
    let code = match &refusal {
        LedgerRefusal::TooLittle { .. } | LedgerRefusal::Nothing | LedgerRefusal::Conflict { .. } => {
            RefusalCode::Conflict
        }
        LedgerRefusal::NotHeld { .. } | LedgerRefusal::HoldExpired { .. } => RefusalCode::Expired,
        LedgerRefusal::TooManyHolds { .. } => RefusalCode::TooMany,
        LedgerRefusal::Full => RefusalCode::Unavailable,
    };
    act::Error::Refused(Refusal::new(code, refusal.to_string()))
}

/// Returns the promise that was sold under this contract.
pub(super) fn sold_as<'a>(pool: &'a Pool, name: &str) -> Option<&'a Commitment> {
    pool.commitments
        .iter()
        .find(|known| matches!(&known.state, CommitmentState::Committed { contract, .. } if contract == name))
        .map(AsRef::as_ref)
}

/// What was bought.
pub(super) struct Bought<'a> {
    pub flavor: &'a Flavor,
    pub signed: &'a Signed<rear::ContractTerms>,
    pub configuration: Configuration,
}

/// The contract that a seller keeps.
pub(super) fn contract_spec(
    Bought { flavor, signed, configuration }: Bought,
    request: &rear::PurchaseRequest,
    buyer: &rear::Party,
    seller: &NodeIdentity,
) -> Result<ContractSpec, act::Error> {
    let terms = signed.value();
    let telemetry = request.telemetry.as_ref().map(|telemetry| TelemetryServer {
        endpoint: bounded(&telemetry.endpoint, ENDPOINT_LENGTH_MAX),
        intents: telemetry.intents.iter().take(INTENTS_MAX).map(|intent| bounded(intent, 64)).collect(),
    });
    Ok(ContractSpec {
        flavor: convert::at_price(embedded(flavor), terms),
        transaction_id: terms.transaction_id.clone(),
        configuration: Some(configuration),
        buyer: convert::identity(buyer, Some(terms.buyer)),
        buyer_cluster_id: terms.buyer.to_string(),
        seller: seller.clone(),
        expiration_time: terms.until.clone(),
        ingress_telemetry_endpoint: telemetry,
        signed_terms: Some(convert::signed_terms(signed.envelope())),
        ..ContractSpec::default()
    })
}

/// What is held, as its buyer is told; without terms.
pub(super) fn transaction(
    commitment: &Commitment,
    request: rear::ReserveRequest,
) -> Result<rear::Transaction, Refusal> {
    let configuration = match commitment.agreed.as_ref().and_then(|agreed| agreed.service.as_ref()) {
        Some(_) => request.configuration.clone(),
        None => {
            let configuration = Configuration::k8slice(&commitment.amounts);
            let configuration =
                configuration.map_err(|error| Refusal::new(RefusalCode::Internal, error.to_string()))?;
            Some(convert::wire_configuration(&configuration))
        }
    };
    Ok(rear::Transaction {
        id: commitment.transaction.clone(),
        flavor_id: request.flavor_id,
        configuration,
        cluster_id: request.buyer.liqo_id.clone().unwrap_or_default(),
        buyer: request.buyer,
        expiration: commitment.until(),
        terms: None,
    })
}

/// The answer to a purchase.
pub(super) fn sold(contract: &Contract, flavor: &Flavor) -> rear::Contract {
    let spec = &contract.spec;
    rear::Contract {
        id: contract.metadata.name.clone().unwrap_or_default(),
        transaction_id: spec.transaction_id.clone(),
        flavor: convert::wire_flavor(flavor.metadata.name.as_deref().unwrap_or_default(), &flavor.spec),
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

/// How a contract ends that the other side releases.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct End {
    /// Not before; `None` is now.
    pub later: Option<Timestamp>,
    /// What the other side did not keep.
    pub warning: Option<String>,
}

/// A message is on its way for so long, and clocks differ.
const NOTICE_LEEWAY: Duration = Duration::from_secs(10);

/// Decides when a contract ends that the other side releases. A seller keeps what it has sold until the notice is over, whatever its
/// buyer says: so long it is paid. A buyer cannot keep a seller to it, and remembers. `said` is when it ends by a notice of before, `until` when it
/// ends by itself.
pub(super) fn end(
    contract: &Signed<rear::ContractTerms>,
    release: &Signed<rear::ReleaseTerms>,
    sells: bool,
    (said, until): (Option<Timestamp>, Option<Timestamp>),
    now: Timestamp,
) -> End {
    let notice = terms::notice(contract.value());
    let owed = terms::shifted(now, notice, 1).unwrap_or(now);
    // A notice that was given once stands.
    let owed = said.map_or(owed, |said| said.min(owed));
    let asked = release.value().ends.as_ref().and_then(|ends| ends.parse().ok()).unwrap_or(now);
    let ends: Timestamp = if sells { owed.max(asked) } else { asked };
    let ends = [until, said].into_iter().flatten().fold(ends, Timestamp::min);
    let short = !sells && terms::shifted(asked, NOTICE_LEEWAY, 1).is_some_and(|asked| asked < owed);
    let told = notice.as_secs();
    let warning = short.then(|| format!("ends this contract at {asked}, needed a notice of {told} s"));
    let soon = terms::shifted(now, Duration::from_secs(1), 1).is_none_or(|soon| ends <= soon);
    End { later: (!soon).then_some(ends), warning }
}

/// What does not fit together any more.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Mending {
    /// Promises that nobody needs, with the reason.
    pub free: Vec<(String, String)>,
    /// Contracts for which nothing is promised.
    pub end: Vec<String>,
}

/// Compares the ledger, which is the truth, with the contracts that were sold.
pub(super) fn mend(pool: &Pool, sold: &BTreeSet<&str>, hold: Duration, now: Timestamp) -> Mending {
    let mut mending = Mending::default();
    for commitment in &pool.commitments {
        let CommitmentState::Committed { contract, .. } = &commitment.state else { continue };
        let written = sold.contains(contract.as_str());
        let held_until = match &commitment.agreed {
            Some(agreed) => Some(agreed.hold_until),
            // Somebody else wrote one without a time: it cannot be too late.
            None => terms::issued(commitment, hold).ok().and_then(|issued| terms::shifted(issued, hold, 1)),
        };
        let given_up =
            held_until.is_some_and(|until| terms::shifted(until, UNFINISHED, 1).is_none_or(|last| last <= now));
        if !written && given_up {
            let why = format!("contract {contract} was sold and never written");
            mending.free.push((commitment.transaction.clone(), why));
        }
    }
    let live = pool.commitments.iter().filter(|known| !known.is_over(now));
    let promised: BTreeSet<&str> = live.filter_map(|known| known.contract()).collect();
    mending.end = sold.difference(&promised).map(|name| (*name).to_owned()).collect();
    mending
}

pub(super) fn embedded(flavor: &Flavor) -> EmbeddedFlavor {
    let name = flavor.metadata.name.clone().unwrap_or_default();
    let metadata = EmbeddedMeta { name, namespace: names::NAMESPACE.into() };
    EmbeddedFlavor { metadata, spec: flavor.spec.clone(), status: None }
}
