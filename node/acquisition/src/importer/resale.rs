//! Buys what is sold on: the same steps as for a Solver of one's own, one at a time, as the exporter asks for them.
//!
//! ```text
//!  offers ─▶ who would sell it, best first, within the ceilings         nothing is written
//!  hold ───▶ Solver `resale-…` (the anchor) ─▶ Reservation ─▶ held ─▶ what is signed, into the Reservation
//!  pay ────▶ its turn ─▶ ceilings ─▶ paid ─▶ Contract, Allocation ─▶ Solved
//!  abandon ▶ whatever of it there is, given back or taken back; the Solver goes, and with it all that it owns
//! ```
//! The **anchor** is a Solver that the importer leaves alone: it owns Reservation, candidate, Transaction and Contract of one purchase,
//! so one deletion ends all, and `kubectl get solvers` shows what is sold on. Nothing is sent before the anchor and the transaction are
//! written; nothing is paid before what is signed is.

use std::time::Duration;

use fluidos_identity::NodeId;
use fluidos_model::intent::Intents;
use fluidos_model::kinds::{
    Configuration, Contract, EmbeddedFlavor, FlavorType, KnownCluster, PeeringCandidate, Phase, Rating, Reservation,
    Solver, SolverContract, SolverStatus, names,
};
use fluidos_model::market::{Amounts, Conditions, Expense, K8SliceSelector, Price, Reselling};
use fluidos_model::service::ServiceSelector;
use fluidos_rear as rear;
use jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use super::act::{self, Error};
use super::trade::Stop;
use super::view::{self, Offered, Peer};
use super::{ask, buy, status, weigh};
use crate::{Options, contracts, paying, terms};

/// Who buys waits five seconds for a hold or a sale; each hop in between leaves its buyer a second of them.
const STEP_MOST: Duration = Duration::from_secs(4);
const STEP_LEAST: Duration = Duration::from_secs(1);
/// Somebody else pays for some tens of milliseconds; two nodes that buy from each other must not wait for each other.
const TURN_MOST: Duration = Duration::from_secs(1);

/// A slice, or a service: how that is configured is said when it is held.
#[derive(Clone, Debug)]
pub(crate) enum Sought {
    Slice(K8SliceSelector),
    Service(ServiceSelector),
}

/// What is looked for, and in whose name.
pub(crate) struct Asked<'a> {
    pub request: &'a rear::ResourceRequest,
    pub sought: &'a Sought,
    pub intents: &'a Intents,
    /// Who stands behind this node, the one who buys from it last.
    pub behind: &'a rear::Path,
    /// Who buys from it: it is not asked for what it needs.
    pub buyer: NodeId,
    pub reselling: &'a Reselling,
    /// Until when an answer is of use.
    pub deadline: Duration,
    /// What is promised and stands in no contract yet.
    pub promised: &'a [Expense],
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Best first.
    pub offers: Vec<Offered>,
    /// How many were asked.
    pub asked: usize,
    /// Why nothing of it is bought, if it is because of money: in words for the owner.
    pub too_dear: Option<String>,
    /// One of those who were asked stands on the path.
    pub circle: bool,
}

/// Asks for what a buyer needs.
pub(crate) async fn offers(client: &Client, options: &Options, asked: &Asked<'_>) -> kube::Result<Found> {
    let now = Timestamp::now();
    let known = Api::<KnownCluster>::namespaced(client.clone(), names::NAMESPACE).list(&Default::default()).await?;
    let ratings = Api::<Rating>::namespaced(client.clone(), names::NAMESPACE).list(&Default::default()).await?;
    let purse = paying::now(client).await?;
    let buying = purse.policy.as_ref().and_then(|policy| policy.as_ref().ok());
    let peers = view::peers(known.items.iter(), &view::ratings(ratings.items.iter()), options.key.id(), now);
    let to_buyer = peers.iter().find(|peer| peer.did == Some(asked.buyer)).and_then(|peer| peer.latency_micros);
    let mut peers: Vec<Peer> = peers.into_iter().filter(|peer| may_ask(peer, asked)).collect();
    for peer in &mut peers {
        // The buyer's packets go over this node.
        peer.latency_micros = peer.latency_micros.map(|micros| micros.saturating_add(to_buyer.unwrap_or(0)));
    }
    peers.truncate(buying.map_or(view::SHORTLIST, |buying| buying.shortlist));
    let term = [asked.request.term_seconds, buying.and_then(|buying| buying.term).map(|term| term.as_secs())];
    let request = rear::ResourceRequest { term_seconds: term.into_iter().flatten().min(), ..asked.request.clone() };
    let deadline = buying.map_or(ask::DEADLINE, |buying| buying.deadline).min(asked.deadline);
    let answers = ask::ask(options, &peers, (&request, asked.behind), buying, deadline).await;
    let mut findings = match asked.sought {
        Sought::Slice(selector) => weigh::weigh(selector, None, asked.intents, buying, &answers),
        Sought::Service(selector) => {
            let unsaid = Configuration { flavor_type: FlavorType::Service, data: json!({}) };
            weigh::weigh_services((selector, &unsaid), asked.intents, buying, &answers)
        }
    };
    let out = findings.refused.iter().chain(&findings.pending);
    let circle = out.clone().any(|refused| refused.reason.starts_with("loop: "));
    for refused in out {
        tracing::info!(buyer = %asked.buyer, "not bought to be sold on: {refused}");
    }
    let mut too_dear = None;
    findings.offered.retain(|offered| match paying::afford(&purse, &[offered.price], None, asked.promised, now) {
        Ok(()) => true,
        Err(refusal) => {
            tracing::info!(buyer = %asked.buyer, peer = offered.peer, "not bought to be sold on: {refusal}");
            too_dear = Some(refusal.to_string());
            false
        }
    });
    for offered in &mut findings.offered {
        offered.term_seconds = request.term_seconds;
    }
    Ok(Found { offers: findings.offered, asked: peers.len(), too_dear, circle })
}

fn may_ask(peer: &Peer, asked: &Asked<'_>) -> bool {
    match peer.did {
        Some(did) => did != asked.buyer && asked.reselling.buys_from(&did.to_string()),
        // Whose key is not known yet may be anybody, the buyer too.
        None => false,
    }
}

/// What is held.
#[derive(Debug)]
pub(crate) struct Held {
    /// The contract that it becomes.
    pub contract: String,
    /// Until when it is held; `None` is not said.
    pub until: Option<Timestamp>,
    /// When the contract ends by itself; `None` is never.
    pub ends: Option<Timestamp>,
    pub price: Price,
    pub conditions: Conditions,
    /// What it takes at its seller, as is signed.
    pub amounts: Amounts,
}

/// How long a step may take with so many buyers one behind the other.
pub(crate) fn step(behind: &rear::Path) -> Duration {
    let hops = u32::try_from(behind.len()).unwrap_or(u32::MAX).saturating_sub(1);
    STEP_MOST.saturating_sub(Duration::from_secs(1).saturating_mul(hops)).max(STEP_LEAST)
}

/// Has it held for an anchor, within a time.
pub(crate) async fn hold(
    client: &Client,
    options: &Options,
    anchor: &Solver,
    offered: &Offered,
    (behind, most): (&rear::Path, Duration),
) -> Result<Held, Stop> {
    act::candidate(client, anchor, offered, Timestamp::now()).await?;
    let lot = match buy::begin(client, options, anchor, offered, 1, None).await? {
        Ok(lot) => lot.behind(behind),
        Err(reason) => return Err(Stop::Refused { step: "reserve", reason }),
    };
    buy::write(client, &lot, &lot.begun).await?;
    let held = tokio::time::timeout(most, lot.deal(client, options, anchor).held()).await;
    let late = || Stop::Away { step: "reserve", reason: format!("no answer within {} s", most.as_secs_f32()) };
    let (signed, until) = held.map_err(|_| late())??;
    let wrong = |reason: String| Stop::Refused { step: "reserve", reason };
    let [amount, currency, period] = &signed.value().price;
    let price = Price::parse(amount, currency, period).map_err(|error| wrong(error.to_string()))?;
    let conditions = Conditions::read(signed.value().conditions.as_ref()).map_err(|error| wrong(error.to_string()))?;
    let amounts = terms::amounts(signed.value()).map_err(wrong)?;
    let ends = signed.value().until.as_ref().and_then(|until| until.parse().ok());
    buy::write(client, &lot, &lot.signed(&signed, Phase::Idle)).await?;
    told(client, anchor, Phase::Running, &format!("held at {}", offered.peer), None).await?;
    Ok(Held {
        contract: signed.value().contract_id.clone(),
        until,
        ends,
        price: price.unwrap_or(Price::ZERO),
        conditions,
        amounts,
    })
}

/// Buys what is held for an anchor. Again is the same contract.
pub(crate) async fn pay(client: &Client, options: &Options, anchor: &str) -> Result<Contract, Stop> {
    let gone = || Stop::Refused { step: "purchase", reason: "what it was held with is gone".into() };
    let solvers = Api::<Solver>::namespaced(client.clone(), names::NAMESPACE);
    let solver = solvers.get_opt(anchor).await?.filter(|solver| solver.metadata.deletion_timestamp.is_none());
    let solver = solver.ok_or_else(gone)?;
    let (reservation, _) = reserved(client, &solver).await?.ok_or_else(gone)?;
    let lot = buy::read(client, &reservation).await?.ok_or_else(gone)?;
    let signed = lot.agreed.clone().ok_or_else(gone)?;
    let api = Api::<Contract>::namespaced(client.clone(), names::NAMESPACE);
    if lot.begun.purchase_phase == Phase::Solved {
        let known = api.get_opt(&signed.value().contract_id).await?;
        let known = known.filter(|known| known.metadata.deletion_timestamp.is_none()).ok_or_else(gone)?;
        // The last step may not have been done.
        contracts::allocate(client, &known).await?;
        return Ok(known);
    }
    let turn = tokio::time::timeout(TURN_MOST, options.paying.turn()).await;
    let busy = || Stop::Away { step: "purchase", reason: "something else is being paid".into() };
    let mut turn = turn.map_err(|_| busy())?;
    turn.resells();
    if lot.begun.purchase_phase != Phase::Running {
        let price = lot.offered.price;
        let affordable = paying::afford(&paying::now(client).await?, &[price], None, &[], Timestamp::now());
        affordable.map_err(|refusal| Stop::Refused { step: "purchase", reason: refusal.to_string() })?;
    }
    // From here on it may have been sold: whoever gives it up takes it back.
    buy::write(client, &lot, &lot.signed(&signed, Phase::Running)).await?;
    let deal = lot.deal(client, options, &solver);
    let late = || Stop::Away { step: "purchase", reason: format!("no answer within {} s", STEP_MOST.as_secs()) };
    let paid = tokio::time::timeout(STEP_MOST, deal.pay(&signed)).await;
    let both = paid.map_err(|_| late())?.map_err(|(stop, _)| stop)?;
    let mut contract = deal.contract(&both);
    if let Some(resale) = solver.labels().get(names::LABEL_RESALE) {
        contract.labels_mut().insert(names::LABEL_RESALE.into(), resale.clone());
    }
    let written = contracts::write(client, &contract).await?;
    contracts::allocate(client, &written).await?;
    buy::write(client, &lot, &buy::solved(&lot.begun, &written.name_any())).await?;
    let bought =
        SolverContract { name: written.name_any(), peer: lot.offered.peer.clone(), why: reservation.spec.why.clone() };
    told(client, &solver, Phase::Solved, "bought, and sold on", Some(bought)).await?;
    Ok(written)
}

/// What is sold on, and by what it is known: the flavor that was bought of.
pub(crate) async fn bought_of(client: &Client, anchor: &str) -> kube::Result<Option<EmbeddedFlavor>> {
    let reservations = Api::<Reservation>::namespaced(client.clone(), names::NAMESPACE);
    let Some(reservation) = reservations.get_opt(&names::reservation(anchor)).await? else { return Ok(None) };
    let Some(candidate) = reservation.spec.peering_candidate else { return Ok(None) };
    let candidates = Api::<PeeringCandidate>::namespaced(client.clone(), names::NAMESPACE);
    Ok(candidates.get_opt(&candidate.name).await?.map(|candidate| candidate.spec.flavor))
}

/// Gives up what is bought for an anchor: it is not needed, or not any more.
pub(crate) async fn abandon(client: &Client, options: &Options, anchor: &Solver) -> Result<(), String> {
    let told = |error: Error| error.to_string();
    if let Some((reservation, status)) = reserved(client, anchor).await.map_err(|error| error.to_string())?
        && let Some(lot) = buy::read(client, &reservation).await.map_err(told)?
    {
        let deal = lot.deal(client, options, anchor);
        match (&lot.agreed, status.purchase_phase) {
            // Its contract goes with the anchor.
            (_, Phase::Solved) => {}
            (Some(signed), Phase::Running) => deal.take_back(signed).await.map_err(told)?,
            _ => {
                // A courtesy: a hold ends by itself, and who holds it may be gone.
                let _ = tokio::time::timeout(STEP_LEAST, deal.give_back()).await;
            }
        }
    }
    let solvers = Api::<Solver>::namespaced(client.clone(), names::NAMESPACE);
    match solvers.delete(&anchor.name_any(), &DeleteParams::background()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop).map_err(|error| error.to_string()),
    }
}

/// The Reservation of this very anchor.
async fn reserved(
    client: &Client,
    anchor: &Solver,
) -> kube::Result<Option<(Reservation, fluidos_model::kinds::ReservationStatus)>> {
    let api = Api::<Reservation>::namespaced(client.clone(), names::NAMESPACE);
    let known = api.get_opt(&names::reservation(&anchor.name_any())).await?;
    let own = |known: &Reservation| {
        known.owner_references().iter().any(|owner| Some(&owner.uid) == anchor.metadata.uid.as_ref())
    };
    Ok(known.filter(own).map(|known| {
        let status = known.status.clone().unwrap_or_default();
        (known, status)
    }))
}

async fn told(
    client: &Client,
    anchor: &Solver,
    phase: Phase,
    message: &str,
    bought: Option<SolverContract>,
) -> Result<(), Error> {
    let old = anchor.status.clone().unwrap_or_default();
    let reserved = if bought.is_some() { Phase::Solved } else { Phase::Running };
    let status = SolverStatus {
        find_candidate: Phase::Solved,
        discovery_phase: Phase::Solved,
        reserve_and_buy: reserved,
        reservation_phase: reserved,
        solver_phase: status::phase_status(&old.solver_phase, phase, message, Timestamp::now()),
        contracts: bought.into_iter().collect(),
        ..old
    };
    let api = Api::<Solver>::namespaced(client.clone(), names::NAMESPACE);
    let patch = Patch::Merge(json!({"status": status}));
    match api.patch_status(&anchor.name_any(), &PatchParams::default(), &patch).await {
        // It is going.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

/// On which conditions it is offered.
pub(crate) fn conditions(offered: &Offered) -> Result<Conditions, String> {
    super::trade::offered_conditions(&offered.flavor)
}
