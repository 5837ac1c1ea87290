//! Reserves and buys from one candidate.
//!
//! ```text
//! Reservation with a transaction id ─▶ reserve ─▶ terms: what was asked for? ─▶ Transaction
//!        ─▶ sign ─▶ purchase ─▶ the same bytes, signed by both? ─▶ Contract ─▶ Reservation Solved
//! ```
//! The transaction id is written before anything is sent: whoever goes on after a crash sends the same requests again, which
//! are the same hold and the same sale. When it stays open whether the seller has sold, the contract is written and deleted,
//! so that the contract manager tells the seller until it has heard it.

use std::time::Duration;

use fluidos_identity::{NodeId, Signed};
use fluidos_model::kinds::{
    Configuration, Contract, ContractSpec, GenericRef, PeeringCandidate, Phase, Reservation, ReservationSpec,
    ReservationStatus, Solver, Transaction, TransactionSpec, names,
};
use fluidos_model::market::Price;
use fluidos_rear as rear;
use jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde_json::json;

use super::act::{Done, Error, buyer, ensure, owner};
use super::view::{Offered, Refused};
use super::{status, weigh};
use crate::contracts::WriteError;
use crate::{Options, bounded, contracts, convert, terms};

/// An answer may be lost once; a seller that answers nothing three times is gone.
const PURCHASES_MAX: u32 = 3;
const PURCHASE_PAUSE: Duration = Duration::from_millis(200);
/// Reasons are put together into one message.
const REASON_LENGTH_MAX: usize = 256;

/// Why it was not bought.
enum Stop {
    /// The seller does not sell, or not what was asked for.
    Refused { step: &'static str, reason: String },
    /// It did not answer, or asked to come later. Nothing is left of the try: a hold ends by itself, a sale is taken back.
    Away { step: &'static str, reason: String },
    /// Our own records could not be written: later.
    Own(Error),
}

impl<E: Into<Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Own(error.into())
    }
}

/// Reserves and buys under a new transaction.
pub(super) async fn buy(client: &Client, options: &Options, solver: &Solver, offered: &Offered) -> Result<Done, Error> {
    let transaction = uuid::Uuid::new_v4().simple().to_string();
    let configuration = match Configuration::k8slice(&offered.buys) {
        Ok(configuration) => configuration,
        Err(error) => return Ok(refused(offered, None, "reserve", &error.to_string())),
    };
    let spec = ReservationSpec {
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
    };
    let mut spec = spec;
    // Where it was asked, not where it says it is: there it is bought.
    spec.seller.ip = offered.address.to_string();
    let name = names::reservation(&solver.name_any());
    let mut reservation = ensure(client, solver, Reservation::new(&name, spec.clone())).await?;
    if reservation.spec != spec {
        reservation.spec = spec;
        let api = Api::<Reservation>::namespaced(client.clone(), names::NAMESPACE);
        reservation = api.replace(&name, &PostParams::default(), &reservation).await?;
    }
    let begun = ReservationStatus {
        phase: status::phase_status(&Default::default(), Phase::Running, "reserving", Timestamp::now()),
        reserve_phase: Phase::Running,
        transaction_id: transaction.clone(),
        ..ReservationStatus::default()
    };
    write(client, &reservation, &begun).await?;
    proceed(client, options, solver, offered, &configuration, &transaction, begun).await
}

/// Goes on with a reservation that was begun by an earlier process, or whose last step could not be written.
pub(super) async fn resume(client: &Client, options: &Options, solver: &Solver) -> Result<Done, Error> {
    let api = Api::<Reservation>::namespaced(client.clone(), names::NAMESPACE);
    let Some(reservation) = api.get_opt(&names::reservation(&solver.name_any())).await? else {
        return Ok(Done::Nothing);
    };
    let begun = reservation.status.clone().unwrap_or_default();
    let candidate = reservation.spec.peering_candidate.clone().unwrap_or_default().name;
    let known = Api::<PeeringCandidate>::namespaced(client.clone(), names::NAMESPACE).get_opt(&candidate).await?;
    let spec = &reservation.spec;
    let seller: Option<NodeId> = convert::did(&spec.seller);
    let configuration = spec.configuration.clone();
    let (address, transaction) = (spec.seller.ip.parse().ok(), begun.transaction_id.clone());
    let amounts = configuration.as_ref().and_then(|configuration| configuration.amounts().ok());
    let (Some(known), Some(seller), Some(configuration), Some(address), Some(buys), false) =
        (known, seller, configuration, address, amounts, transaction.is_empty())
    else {
        let reason = "the reservation that was begun names no seller, address, amounts or transaction";
        let ended = failed(&begun, "reserve", reason);
        write(client, &reservation, &ended).await?;
        let peer = spec.seller.domain.clone();
        let refused = Refused { peer, step: "reserve", reason: reason.into() };
        return Ok(Done::Refused { candidate, transaction: Some(transaction), refused });
    };
    let name = spec.seller.additional_information.as_ref().and_then(|more| more.name.clone());
    let peer = name.unwrap_or_else(|| spec.seller.domain.clone());
    // One that cannot be read is none: then the terms must state a price of 0.
    let price = weigh::quote(&known.spec.flavor.spec.price, &buys).ok().flatten();
    let flavor = known.spec.flavor;
    let offered =
        Offered { candidate, peer, address, seller, flavor, buys, price, latency_micros: None, term_seconds: None };
    proceed(client, options, solver, &offered, &configuration, &transaction, begun).await
}

async fn proceed(
    client: &Client,
    options: &Options,
    solver: &Solver,
    offered: &Offered,
    configuration: &Configuration,
    transaction: &str,
    begun: ReservationStatus,
) -> Result<Done, Error> {
    let api = Api::<Reservation>::namespaced(client.clone(), names::NAMESPACE);
    let traded = trade(client, options, solver, offered, configuration, transaction).await;
    let Some(reservation) = api.get_opt(&names::reservation(&solver.name_any())).await? else {
        // The Solver is going, and with it whatever was bought.
        return Ok(Done::Nothing);
    };
    match traded {
        Ok(contract) => {
            let reference = GenericRef {
                name: contract.clone(),
                namespace: names::NAMESPACE.into(),
                api_version: Contract::api_version(&()).into_owned(),
                kind: Contract::kind(&()).into_owned(),
            };
            let solved = ReservationStatus {
                phase: status::phase_status(&begun.phase, Phase::Solved, "reserved and bought", Timestamp::now()),
                reserve_phase: Phase::Solved,
                purchase_phase: Phase::Solved,
                contract: Some(reference),
                ..begun
            };
            write(client, &reservation, &solved).await?;
            Ok(Done::Bought { contract })
        }
        Err(Stop::Refused { step, reason }) => {
            let done = refused(offered, Some(transaction.into()), step, &reason);
            write(client, &reservation, &failed(&begun, step, &reason)).await?;
            Ok(done)
        }
        Err(Stop::Away { step, reason }) => {
            write(client, &reservation, &failed(&begun, step, &reason)).await?;
            let why = Refused { peer: offered.peer.clone(), step, reason: bounded(&reason, REASON_LENGTH_MAX) };
            Ok(Done::Away { candidate: offered.candidate.clone(), transaction: transaction.into(), why })
        }
        Err(Stop::Own(error)) => Err(error),
    }
}

/// Everything from the hold to the contract; returns its name.
async fn trade(
    client: &Client,
    options: &Options,
    solver: &Solver,
    offered: &Offered,
    configuration: &Configuration,
    transaction: &str,
) -> Result<String, Stop> {
    let stop = |step: &'static str| move |reason: String| Stop::Refused { step, reason };
    let target = rear::Target { address: offered.address, expected: Some(offered.seller) };
    let peer = (options.dial)(target).map_err(stop("reserve"))?;
    let request = rear::ReserveRequest {
        flavor_id: offered.flavor.metadata.name.clone(),
        buyer: buyer(options),
        configuration: Some(convert::wire_configuration(configuration)),
        transaction_id: Some(transaction.into()),
        term_seconds: offered.term_seconds,
    };
    let held = peer.reserve(&request).await.map_err(|error| stopped("reserve", error))?;
    let mut signed = match checked(options, offered, &request, transaction, &held) {
        Ok(signed) => signed,
        Err(reason) => {
            give_back(&peer, transaction).await;
            return Err(stop("reserve")(reason));
        }
    };
    let name = signed.value().contract_id.clone();
    untaken(client, &name, &signed).await?;
    record(client, options, solver, configuration, transaction, &held).await?;

    signed.sign(&options.key).map_err(Error::from)?;
    let request = rear::PurchaseRequest { signed_terms: Some(signed.envelope()), ..Default::default() };
    let spec = |signed: &Signed<rear::ContractTerms>| ContractSpec {
        flavor: convert::at_price(offered.flavor.clone(), signed.value()),
        transaction_id: transaction.into(),
        configuration: Some(configuration.clone()),
        buyer: options.identity.clone(),
        buyer_cluster_id: options.key.id().to_string(),
        seller: fluidos_model::kinds::NodeIdentity {
            ip: offered.address.to_string(),
            ..offered.flavor.spec.owner.clone()
        },
        expiration_time: signed.value().until.clone(),
        signed_terms: Some(convert::signed_terms(signed.envelope())),
        ..ContractSpec::default()
    };
    let sold = match purchase(&peer, transaction, &request).await {
        Ok(sold) => sold,
        Err((error, false)) => return Err(stopped("purchase", error)),
        Err((error, true)) => {
            take_back(client, contract(solver, &name, spec(&signed), offered.seller)).await?;
            return Err(stopped("purchase", error));
        }
    };
    let missing = || "the answer has no signed terms, needed them signed by both".to_owned();
    let both = sold
        .signed_terms
        .as_ref()
        .ok_or_else(missing)
        .and_then(|envelope| rear::check_contract(envelope, &signed).map_err(|error| error.to_string()));
    let both = match both {
        Ok(both) => both,
        Err(reason) => {
            take_back(client, contract(solver, &name, spec(&signed), offered.seller)).await?;
            return Err(stop("purchase")(reason));
        }
    };
    contracts::write(client, &contract(solver, &name, spec(&both), offered.seller)).await?;
    Ok(name)
}

/// The terms of what is held, if they are what was asked for and what this buyer can agree to.
fn checked(
    options: &Options,
    offered: &Offered,
    request: &rear::ReserveRequest,
    transaction: &str,
    held: &rear::Transaction,
) -> Result<Signed<rear::ContractTerms>, String> {
    if held.id != transaction {
        return Err(format!("transaction {} is held, needed {transaction}", bounded(&held.id, 64)));
    }
    let terms = held.terms.as_ref().ok_or("it offers no terms to sign, and without them nothing is bought")?;
    let signed = rear::check_offer(terms, request, transaction, options.key.id(), offered.seller)
        .map_err(|error| error.to_string())?;
    let terms = signed.value();
    if !terms::is_label(&terms.contract_id) {
        let name = bounded(&terms.contract_id, 64);
        return Err(format!("contract name `{name}`, needed 1 to 63 lower-case letters, digits and dashes"));
    }
    check_price(&terms.price, offered.price)?;
    let until = terms.until.as_ref().map(|until| until.parse::<Timestamp>()).transpose();
    if until.map_err(|error| error.to_string())?.is_some_and(|until| until <= Timestamp::now()) {
        return Err("the contract would be over already".into());
    }
    Ok(signed)
}

/// Terms may ask for less than was offered, never for more or something else. What was not offered at a price is bought at 0 only.
fn check_price(asked: &[String; 3], offered: Option<Price>) -> Result<(), String> {
    let [amount, currency, period] = asked;
    let asked = Price::parse(amount, currency, period).map_err(|error| format!("price: {error}"))?;
    let asked = asked.ok_or("price: the terms state none, needed the one that was offered")?;
    let offered = offered.unwrap_or(Price::ZERO);
    let same = (asked.currency, asked.period) == (offered.currency, offered.period);
    if asked.is_zero() || (same && asked.amount <= offered.amount) {
        return Ok(());
    }
    Err(format!("price: the terms state {asked}, needed at most {offered} as was offered"))
}

/// The buyer's contract: it goes with its Solver, and counts for the namespace that the Solver is for.
fn contract(solver: &Solver, name: &str, spec: ContractSpec, seller: NodeId) -> Contract {
    let mut contract = contracts::contract(name, spec, seller, owner(solver));
    if let Some(namespace) = solver.annotations().get(names::ANNOTATION_NAMESPACE) {
        contract.annotations_mut().insert(names::ANNOTATION_NAMESPACE.into(), bounded(namespace, 63));
    }
    contract
}

/// Why a seller's answer ends the try: for good, or until later.
fn stopped(step: &'static str, error: rear::ClientError) -> Stop {
    let later = error.is_retryable();
    let reason = told(error);
    if later { Stop::Away { step, reason } } else { Stop::Refused { step, reason } }
}

/// A seller chooses the name: it must not be that of another contract.
async fn untaken(client: &Client, name: &str, signed: &Signed<rear::ContractTerms>) -> Result<(), Stop> {
    let api = Api::<Contract>::namespaced(client.clone(), names::NAMESPACE);
    match api.get_opt(name).await? {
        Some(known) if terms::of_contract(&known).map(|known| known.bytes() != signed.bytes()).unwrap_or(true) => {
            let reason = format!("contract name {name} is in use for other terms");
            Err(Stop::Refused { step: "reserve", reason })
        }
        _ => Ok(()),
    }
}

/// Buys, asking again when it makes sense. With an error comes whether the seller may have sold all the same: only one that
/// has refused for good from the first has surely not.
async fn purchase(
    peer: &rear::Client,
    transaction: &str,
    request: &rear::PurchaseRequest,
) -> Result<rear::Contract, (rear::ClientError, bool)> {
    let (mut tries, mut open) = (1, false);
    loop {
        let error = match peer.purchase(transaction, request).await {
            Ok(sold) => return Ok(sold),
            Err(error) => error,
        };
        open |= error.is_retryable() || !matches!(error, rear::ClientError::Refused { .. });
        if !error.is_retryable() || tries >= PURCHASES_MAX {
            return Err((error, open));
        }
        tries += 1;
        tokio::time::sleep(PURCHASE_PAUSE).await;
    }
}

/// Another buyer may want it before the hold is over. It is a courtesy: a hold ends by itself.
async fn give_back(peer: &rear::Client, transaction: &str) {
    if let Err(error) = peer.cancel(transaction).await {
        tracing::debug!(transaction, %error, "a hold is left to end by itself");
    }
}

/// Nobody knows whether the seller has sold: it is told that nothing is wanted, however long that takes.
async fn take_back(client: &Client, mut contract: Contract) -> Result<(), Stop> {
    // Over from the beginning: nobody takes it for one that can be used.
    contract.spec.expiration_time = Some(Timestamp::now().to_string());
    match contracts::write(client, &contract).await {
        Ok(written) => Ok(contracts::delete(client, &written).await?),
        Err(WriteError::Ending { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn record(
    client: &Client,
    options: &Options,
    solver: &Solver,
    configuration: &Configuration,
    transaction: &str,
    held: &rear::Transaction,
) -> Result<(), Error> {
    let spec = TransactionSpec {
        flavor_id: held.flavor_id.clone(),
        buyer: options.identity.clone(),
        cluster_id: options.key.id().to_string(),
        configuration: Some(configuration.clone()),
        expiration_time: held.expiration.map(|time| time.to_string()),
    };
    ensure(client, solver, Transaction::new(transaction, spec)).await.map(|_| ())
}

async fn write(client: &Client, reservation: &Reservation, status: &ReservationStatus) -> Result<(), Error> {
    let api = Api::<Reservation>::namespaced(client.clone(), names::NAMESPACE);
    // A merge keeps what is not said: of the last try nothing may stay.
    let mut value = json!({"status": status});
    let status = &mut value["status"];
    for absent in ["contract", "transactionID"] {
        if status.get(absent).is_none() {
            status[absent] = serde_json::Value::Null;
        }
    }
    if status["phase"].get("endTime").is_none() {
        status["phase"]["endTime"] = serde_json::Value::Null;
    }
    match api.patch_status(&reservation.name_any(), &PatchParams::default(), &Patch::Merge(value)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => Ok(other.map(|_| ())?),
    }
}

fn failed(begun: &ReservationStatus, step: &str, reason: &str) -> ReservationStatus {
    let (reserve_phase, purchase_phase) = match step {
        "purchase" => (Phase::Solved, Phase::Failed),
        _ => (Phase::Failed, Phase::Idle),
    };
    let message = format!("{step}: {reason}");
    ReservationStatus {
        phase: status::phase_status(&begun.phase, Phase::Failed, &message, Timestamp::now()),
        reserve_phase,
        purchase_phase,
        ..begun.clone()
    }
}

fn refused(offered: &Offered, transaction: Option<String>, step: &'static str, reason: &str) -> Done {
    let refused = Refused { peer: offered.peer.clone(), step, reason: bounded(reason, REASON_LENGTH_MAX) };
    Done::Refused { candidate: offered.candidate.clone(), transaction, refused }
}

/// The seller's own words when it refused; otherwise what happened on the way.
fn told(error: rear::ClientError) -> String {
    match error {
        rear::ClientError::Refused { refusal, .. } => refusal.detail,
        other => other.to_string(),
    }
}
