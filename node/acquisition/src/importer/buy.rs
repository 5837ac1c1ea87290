//! Reserves and buys: from one candidate, or parts from several, of which all are bought or none.
//!
//! ```text
//! Reservations with transaction ids ─▶ hold all ─▶ what is signed, into the Reservations ─▶ pay all ─▶ Contracts ─▶ Solved
//!                                        │ one does not hold                            │ one does not sell
//!                                        └─▶ the holds are given back                   └─▶ what is sold is taken back
//! ```
//! Each arrow begins when what is before it is written for all parts, that of the first part last: so the first tells how all of
//! them stand. Transaction ids are written before anything is sent: whoever goes on after a crash sends the same requests again,
//! which are the same holds and the same sales. What is signed is written before anything is paid: when it stays open whether a
//! seller has sold, its contract is written and deleted, so that the contract manager tells it until it has heard it.

use fluidos_identity::{NodeId, Signed};
use fluidos_model::kinds::{
    Configuration, Contract, FlavorPrice, FlavorType, GenericRef, PeeringCandidate, Phase, Reservation,
    ReservationPart, ReservationSpec, ReservationStatus, Solver, names,
};
use fluidos_model::market::{Amounts, PARTS_MAX};
use fluidos_rear as rear;
use futures::future::join_all;
use jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde_json::json;

use super::act::{Done, Error, Unsold, ensure};
use super::trade::{Deal, Stop, Terms};
use super::view::{Offered, Refused, SellerId};
use super::{plain, status, trade, weigh};
use crate::{Options, bounded, contracts, convert};

/// Reasons are put together into one message.
const REASON_LENGTH_MAX: usize = 256;

/// What is bought from one seller.
pub(super) struct Lot {
    /// Of its Reservation.
    name: String,
    pub offered: Offered,
    /// The key that the seller has proven.
    seller: NodeId,
    configuration: Configuration,
    transaction: String,
    /// What stands in its Reservation.
    pub begun: ReservationStatus,
    /// What was signed by an earlier process, and may have been sold.
    pub agreed: Option<Terms>,
    /// In whose name it is bought; nobody is this owner's own.
    behind: rear::Path,
}

/// Reserves and buys under new transactions.
pub(super) async fn buy(
    client: &Client,
    options: &Options,
    solver: &Solver,
    offers: &[Offered],
) -> Result<Done, Error> {
    let group = uuid::Uuid::new_v4().simple().to_string();
    let of = u32::try_from(offers.len()).unwrap_or(u32::MAX);
    let mut lots = Vec::new();
    for (number, offered) in (1..).zip(offers) {
        let part = (of > 1).then(|| ReservationPart { group: group.clone(), number, of });
        match begin(client, options, solver, offered, number, part).await? {
            Ok(lot) => lots.push(lot),
            Err(reason) => return Ok(Done::Unsold(vec![refusal(offered, None, "reserve", &reason)])),
        }
    }
    for lot in lots.iter().rev() {
        write(client, lot, &lot.begun).await?;
    }
    proceed(client, options, solver, lots).await
}

/// Writes what is to be reserved. A reason is why it cannot be said.
pub(super) async fn begin(
    client: &Client,
    options: &Options,
    solver: &Solver,
    offered: &Offered,
    number: u32,
    part: Option<ReservationPart>,
) -> Result<Result<Lot, String>, Error> {
    let Some(seller) = offered.seller.key() else {
        return Ok(Err("it has proven no key, and without one nothing is signed".into()));
    };
    let Begun { name, configuration, last, status } =
        match reservation(client, options, solver, offered, number, part).await? {
            Ok(begun) => begun,
            Err(reason) => return Ok(Err(reason)),
        };
    give_back_last(options, &last, offered, seller).await;
    Ok(Ok(Lot {
        name,
        offered: offered.clone(),
        seller,
        configuration,
        transaction: status.transaction_id.clone(),
        begun: status,
        agreed: None,
        behind: rear::Path::default(),
    }))
}

/// What is to be reserved, as its Reservation says it.
pub(super) struct Begun {
    /// Of the Reservation.
    pub name: String,
    pub configuration: Configuration,
    /// The Reservation as the last try has left it.
    pub last: Reservation,
    /// What is to be written into it before anything is sent.
    pub status: ReservationStatus,
}

/// Writes the Reservation of one seller. A reason is why it cannot be said.
pub(super) async fn reservation(
    client: &Client,
    options: &Options,
    solver: &Solver,
    offered: &Offered,
    number: u32,
    part: Option<ReservationPart>,
) -> Result<Result<Begun, String>, Error> {
    let configuration = offered.configuration.clone().map_or_else(|| Configuration::k8slice(&offered.buys), Ok);
    let configuration = match configuration {
        Ok(configuration) => configuration,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let mut spec = ReservationSpec {
        solver_id: solver.name_any(),
        buyer: options.identity.clone(),
        seller: offered.flavor.spec.owner.clone(),
        configuration: Some(configuration.clone()),
        reserve: true,
        purchase: true,
        peering_candidate: Some(GenericRef {
            name: offered.candidate.clone(),
            namespace: names::NAMESPACE.into(),
            api_version: PeeringCandidate::api_version(&()).into_owned(),
            kind: PeeringCandidate::kind(&()).into_owned(),
        }),
        ingress_telemetry_endpoint: None,
        part,
        why: offered.why.clone(),
        price: offered.price.as_ref().map(FlavorPrice::from),
        conditions: trade::offered_conditions(&offered.flavor).ok(),
    };
    // Where it was asked, not where it says it is: there it is bought.
    spec.seller.ip = offered.address.to_string();
    let name = names::reservation_part(&solver.name_any(), number);
    let mut reservation = ensure(client, solver, Reservation::new(&name, spec.clone())).await?;
    let last = reservation.clone();
    if reservation.spec != spec {
        reservation.spec = spec;
        let api = Api::<Reservation>::namespaced(client.clone(), names::NAMESPACE);
        api.replace(&name, &PostParams::default(), &reservation).await?;
    }
    let status = ReservationStatus {
        phase: status::phase_status(&Default::default(), Phase::Running, "reserving", Timestamp::now()),
        reserve_phase: Phase::Running,
        transaction_id: transaction(solver),
        ..ReservationStatus::default()
    };
    Ok(Ok(Begun { name, configuration, last, status }))
}

/// What the last try has held at this seller without hearing of it is not to stand in the way of the next: the seller may be killed, or
/// its answer lost, after it has written the hold.
async fn give_back_last(options: &Options, last: &Reservation, offered: &Offered, seller: NodeId) {
    let Some(status) = last.status.as_ref().filter(|status| status.reserve_phase == Phase::Failed) else { return };
    if convert::did(&last.spec.seller) != Some(seller) || status.transaction_id.is_empty() {
        return;
    }
    let target = rear::Target { address: offered.address, expected: Some(seller) };
    if let Ok(peer) = (options.dial)(target) {
        trade::give_back(&peer, &status.transaction_id).await;
    }
}

/// A new transaction. One of what is sold on begins with the digest of what it is bought for: by that it is known again what serves what, when
/// this node has lost all but what others have of its contracts.
fn transaction(solver: &Solver) -> String {
    let mut new = uuid::Uuid::new_v4().simple().to_string();
    if let Some(hex) = solver.labels().get(names::LABEL_RESALE).filter(|hex| hex.len() < new.len()) {
        new.replace_range(..hex.len(), hex);
    }
    new
}

/// Goes on with what was begun by an earlier process, or whose last step could not be written.
pub(super) async fn resume(client: &Client, options: &Options, solver: &Solver) -> Result<Done, Error> {
    let api = Api::<Reservation>::namespaced(client.clone(), names::NAMESPACE);
    let Some(first) = api.get_opt(&names::reservation(&solver.name_any())).await? else {
        return Ok(Done::Nothing);
    };
    if convert::did(&first.spec.seller).is_none() {
        return plain::act::resume(client, options, solver, &first).await;
    }
    let part = first.spec.part.clone().unwrap_or_default();
    let group = part.group.clone();
    let mut reservations = vec![first];
    for number in (2..=part.of).take(PARTS_MAX - 1) {
        let of_group = |known: &Reservation| known.spec.part.as_ref().is_some_and(|part| part.group == group);
        let next = api.get_opt(&names::reservation_part(&solver.name_any(), number)).await?;
        reservations.extend(next.filter(of_group));
    }
    if let Some(over) = reservations.iter().find_map(failure) {
        // All was given back before the first of them was said to have failed.
        let reason = format!("given back: {over}");
        return give_up(client, &reservations, &reason).await;
    }
    let mut lots = Vec::new();
    for reservation in &reservations {
        lots.extend(read(client, reservation).await?);
    }
    if lots.len() != reservations.len() || lots.len() < usize::try_from(part.of.max(1)).unwrap_or(usize::MAX) {
        // Nothing is sent before everything of this is there: nobody holds anything.
        let reason = "the reservation that was begun names no seller, address, amounts or transaction";
        return give_up(client, &reservations, reason).await;
    }
    if lots.first().is_some_and(|first| first.agreed.is_none()) {
        // Nothing was paid. What the others have signed may be of a hold that is over.
        lots.iter_mut().for_each(|lot| lot.agreed = None);
    }
    proceed(client, options, solver, lots).await
}

/// Why a part has failed, if it has.
fn failure(reservation: &Reservation) -> Option<String> {
    let phase = &reservation.status.as_ref()?.phase;
    (phase.phase == Phase::Failed).then(|| phase.message.clone())
}

/// Says of all parts that they have failed. Nobody has refused: they may be tried again.
async fn give_up(client: &Client, reservations: &[Reservation], reason: &str) -> Result<Done, Error> {
    let mut unsold = Vec::new();
    for reservation in reservations.iter().rev() {
        let begun = reservation.status.clone().unwrap_or_default();
        if failure(reservation).is_none() {
            patch(client, &reservation.name_any(), &failed(&begun, "reserve", reason)).await?;
        }
        let candidate = reservation.spec.peering_candidate.clone().unwrap_or_default().name;
        unsold.push(Unsold { candidate, transaction: Some(begun.transaction_id), why: None });
    }
    Ok(Done::Unsold(unsold))
}

/// What stands in a Reservation that was begun; `None` if it is not enough to go on.
pub(super) async fn read(client: &Client, reservation: &Reservation) -> Result<Option<Lot>, Error> {
    let Some((offered, configuration)) = recall(client, reservation).await? else { return Ok(None) };
    let (begun, Some(seller)) = (reservation.status.clone().unwrap_or_default(), offered.seller.key()) else {
        return Ok(None);
    };
    let signed = begun.signed_terms.as_ref().map(convert::envelope);
    let agreed = signed.and_then(|envelope| Signed::open(&envelope, rear::CONTRACT_PURPOSE).ok());
    let (name, behind) = (reservation.name_any(), rear::Path::default());
    let transaction = begun.transaction_id.clone();
    Ok(Some(Lot { name, offered, seller, configuration, transaction, begun, agreed, behind }))
}

/// What was decided on, and where, as a Reservation says it; `None` if it does not say enough.
pub(super) async fn recall(
    client: &Client,
    reservation: &Reservation,
) -> Result<Option<(Offered, Configuration)>, Error> {
    let (spec, begun) = (&reservation.spec, reservation.status.clone().unwrap_or_default());
    let candidate = spec.peering_candidate.clone().unwrap_or_default().name;
    let known = Api::<PeeringCandidate>::namespaced(client.clone(), names::NAMESPACE).get_opt(&candidate).await?;
    let configuration = spec.configuration.clone();
    let service = configuration.clone().filter(|configuration| configuration.flavor_type == FlavorType::Service);
    let amounts = match &service {
        Some(_) => Some(Amounts::default()),
        None => configuration.as_ref().and_then(|configuration| configuration.amounts().ok()),
    };
    // A part is solved a moment before the first, which tells how all stand.
    let going_on = matches!(begun.phase.phase, Phase::Running | Phase::Solved) && !begun.transaction_id.is_empty();
    let (Some(known), Some(configuration), Ok(address), Some(buys), true) =
        (known, configuration, spec.seller.ip.parse(), amounts, going_on)
    else {
        return Ok(None);
    };
    let seller = convert::did(&spec.seller).map_or(SellerId::Plain(address), SellerId::Proven);
    let name = spec.seller.additional_information.as_ref().and_then(|more| more.name.clone());
    let peer = name.unwrap_or_else(|| spec.seller.domain.clone());
    // What was decided on, whatever the candidate says by now. One that cannot be read is none: then the terms must state a price of 0.
    let price = match &spec.price {
        Some(decided) => decided.parse().ok().flatten().map(|decided| decided.price),
        None => weigh::quote(&known.spec.flavor.spec.price, &buys).ok().flatten(),
    };
    let (mut flavor, why) = (known.spec.flavor, spec.why.clone());
    let policies = flavor.spec.flavor_type.type_data.get_mut("policies").and_then(|policies| policies.as_object_mut());
    if let (Some(decided), Some(policies)) = (&spec.conditions, policies) {
        policies.insert("conditions".into(), decided.text().unwrap_or_default());
    }
    let offered = Offered {
        candidate,
        peer,
        address,
        seller,
        flavor,
        buys,
        price,
        latency_micros: None,
        rating: None,
        term_seconds: None,
        why,
        configuration: service,
    };
    Ok(Some((offered, configuration)))
}

/// Everything from the holds to the contracts.
async fn proceed(client: &Client, options: &Options, solver: &Solver, mut lots: Vec<Lot>) -> Result<Done, Error> {
    let held = join_all(lots.iter().map(|lot| async {
        match &lot.agreed {
            Some(signed) => Ok(signed.clone()),
            None => lot.deal(client, options, solver).hold().await,
        }
    }));
    let held: Vec<Result<Terms, Stop>> = held.await;
    if held.iter().any(Result::is_err) {
        return stop(client, options, solver, &lots, held.into_iter().map(Outcome::of_hold).collect()).await;
    }
    let signed: Vec<Terms> = held.into_iter().filter_map(Result::ok).collect();
    for (lot, signed) in lots.iter_mut().zip(&signed).rev().filter(|(lot, _)| lot.agreed.is_none()) {
        lot.begun = lot.signed(signed, Phase::Running);
        write(client, lot, &lot.begun).await?;
    }
    let deals = lots.iter().zip(&signed);
    let paid = join_all(deals.map(|(lot, signed)| async { lot.deal(client, options, solver).pay(signed).await })).await;
    if paid.iter().any(Result::is_err) {
        let outcomes = paid.into_iter().zip(signed).map(|(paid, signed)| Outcome::of_payment(paid, signed)).collect();
        return stop(client, options, solver, &lots, outcomes).await;
    }
    let paid: Vec<Terms> = paid.into_iter().filter_map(Result::ok).collect();
    // If the Solver is gone, they go with it: it owns them.
    let mut bought = Vec::new();
    for (lot, both) in lots.iter().zip(&paid) {
        let contract = lot.deal(client, options, solver).contract(both);
        contracts::write(client, &contract).await?;
        bought.push(contract.name_any());
    }
    for (lot, contract) in lots.iter().zip(&bought).rev() {
        write(client, lot, &solved(&lot.begun, contract)).await?;
    }
    Ok(Done::Bought { contracts: bought })
}

/// How it stands with one lot when they are not all bought.
enum Outcome {
    /// It is held, and not paid.
    Held,
    /// It is sold, or may be: these are its terms.
    Sold(Terms),
    /// The seller's no, and if it may have sold all the same, the terms.
    Failed(Stop, Option<Terms>),
}

impl Outcome {
    fn of_hold(held: Result<Terms, Stop>) -> Self {
        held.map_or_else(|stop| Self::Failed(stop, None), |_| Self::Held)
    }

    fn of_payment(paid: Result<Terms, (Stop, bool)>, signed: Terms) -> Self {
        match paid {
            Ok(both) => Self::Sold(both),
            Err((stop, open)) => Self::Failed(stop, open.then_some(signed)),
        }
    }
}

/// Not all of it is to be had: everything is given back, and then said.
async fn stop(
    client: &Client,
    options: &Options,
    solver: &Solver,
    lots: &[Lot],
    outcomes: Vec<Outcome>,
) -> Result<Done, Error> {
    let no =
        |outcome: &Outcome| !matches!(outcome, Outcome::Failed(Stop::Own(_), _) | Outcome::Held | Outcome::Sold(_));
    if !outcomes.iter().any(no) {
        // No seller has said no: it goes on when our own records can be written.
        let own = outcomes.into_iter().find_map(|outcome| match outcome {
            Outcome::Failed(Stop::Own(error), _) => Some(error),
            _ => None,
        });
        return own.map_or(Ok(Done::Nothing), Err);
    }
    for (lot, outcome) in lots.iter().zip(&outcomes) {
        let deal = lot.deal(client, options, solver);
        match outcome {
            Outcome::Sold(signed) | Outcome::Failed(_, Some(signed)) => deal.take_back(signed).await?,
            Outcome::Held | Outcome::Failed(Stop::Own(_), None) => match &lot.agreed {
                // An earlier process may have paid for it.
                Some(signed) => deal.take_back(signed).await?,
                None => deal.give_back().await,
            },
            Outcome::Failed(..) => {}
        }
    }
    let culprits: Vec<String> = lots.iter().zip(&outcomes).filter_map(|(lot, outcome)| lot.told(outcome)).collect();
    let mut unsold = Vec::new();
    for (lot, outcome) in lots.iter().zip(&outcomes).rev() {
        let transaction = Some(lot.transaction.clone());
        let (step, reason, away) = match outcome {
            Outcome::Failed(Stop::Refused { step, reason }, _) => (*step, reason.clone(), Some(false)),
            Outcome::Failed(Stop::Away { step, reason }, _) => (*step, reason.clone(), Some(true)),
            _ => ("reserve", format!("given back: {}", culprits.join("; ")), None),
        };
        write(client, lot, &failed(&lot.begun, step, &reason)).await?;
        let refused = Refused { peer: lot.offered.peer.clone(), step, reason: bounded(&reason, REASON_LENGTH_MAX) };
        let candidate = lot.offered.candidate.clone();
        unsold.push(Unsold { candidate, transaction, why: away.map(|away| (refused, away)) });
    }
    unsold.reverse();
    Ok(Done::Unsold(unsold))
}

impl Lot {
    pub fn deal<'a>(&'a self, client: &'a Client, options: &'a Options, solver: &'a Solver) -> Deal<'a> {
        let Self { offered, configuration, transaction, behind, .. } = self;
        Deal { client, options, solver, offered, seller: self.seller, configuration, transaction, behind }
    }

    /// The same, in the name of who stands behind.
    pub fn behind(self, behind: &rear::Path) -> Self {
        Self { behind: behind.clone(), ..self }
    }

    /// What stands in its Reservation once it is held and signed.
    pub fn signed(&self, signed: &Terms, purchase_phase: Phase) -> ReservationStatus {
        ReservationStatus {
            signed_terms: Some(convert::signed_terms(signed.envelope())),
            reserve_phase: Phase::Solved,
            purchase_phase,
            ..self.begun.clone()
        }
    }

    fn told(&self, outcome: &Outcome) -> Option<String> {
        match outcome {
            Outcome::Failed(Stop::Refused { step, reason } | Stop::Away { step, reason }, _) => {
                Some(format!("{}: {step}: {reason}", self.offered.peer))
            }
            _ => None,
        }
    }
}

pub(super) async fn write(client: &Client, lot: &Lot, status: &ReservationStatus) -> Result<(), Error> {
    patch(client, &lot.name, status).await
}

pub(super) async fn patch(client: &Client, name: &str, status: &ReservationStatus) -> Result<(), Error> {
    let api = Api::<Reservation>::namespaced(client.clone(), names::NAMESPACE);
    // A merge keeps what is not said: of the last try nothing may stay.
    let mut value = json!({"status": status});
    let status = &mut value["status"];
    for absent in ["contract", "transactionID", "signedTerms"] {
        if status.get(absent).is_none() {
            status[absent] = serde_json::Value::Null;
        }
    }
    if status["phase"].get("endTime").is_none() {
        status["phase"]["endTime"] = serde_json::Value::Null;
    }
    match api.patch_status(name, &PatchParams::default(), &Patch::Merge(value)).await {
        // The Solver is going, and its reservations with it.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => Ok(other.map(|_| ())?),
    }
}

pub(super) fn solved(begun: &ReservationStatus, contract: &str) -> ReservationStatus {
    let reference = GenericRef {
        name: contract.to_owned(),
        namespace: names::NAMESPACE.into(),
        api_version: Contract::api_version(&()).into_owned(),
        kind: Contract::kind(&()).into_owned(),
    };
    ReservationStatus {
        phase: status::phase_status(&begun.phase, Phase::Solved, "reserved and bought", Timestamp::now()),
        reserve_phase: Phase::Solved,
        purchase_phase: Phase::Solved,
        contract: Some(reference),
        ..begun.clone()
    }
}

pub(super) fn failed(begun: &ReservationStatus, step: &str, reason: &str) -> ReservationStatus {
    let (reserve_phase, purchase_phase) = match step {
        "purchase" => (Phase::Solved, Phase::Failed),
        _ => (Phase::Failed, Phase::Idle),
    };
    let message = format!("{step}: {reason}");
    ReservationStatus {
        phase: status::phase_status(&begun.phase, Phase::Failed, &message, Timestamp::now()),
        reserve_phase,
        purchase_phase,
        signed_terms: None,
        ..begun.clone()
    }
}

fn refusal(offered: &Offered, transaction: Option<String>, step: &'static str, reason: &str) -> Unsold {
    let refused = Refused { peer: offered.peer.clone(), step, reason: bounded(reason, REASON_LENGTH_MAX) };
    Unsold { candidate: offered.candidate.clone(), transaction, why: Some((refused, false)) }
}

/// None of these is bought: another has paid meanwhile, and it would be too much.
pub(super) fn too_dear(offers: &[Offered], reason: &str) -> Vec<Unsold> {
    offers.iter().map(|offered| refusal(offered, None, "buy", reason)).collect()
}
