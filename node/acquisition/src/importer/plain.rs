//! Buying from official FLUIDOS nodes, up to the contract. Their REAR is plain HTTP: nobody proves a key, nothing is signed, and whoever is on
//! the way reads and changes all of it. So a *plain seller* is a place that the owner has named as one (`KnownCluster.spec.plain`), each
//! purchase there is asked of the decision point (`Acquire`), and what it sells is its claim.
//!
//! ```text
//! list all ─▶ may it be acquired? ─▶ reserve ─▶ what was asked for? ─▶ Transaction ─▶ purchase ─▶ the same? ─▶ Contract, signed by nobody
//!                                       their transaction, into the Reservation ─┘                └─ Peering=False: nothing runs under it
//! ```
//! An official node peers by handing out a kubeconfig of itself. None is ever taken: it is dropped while the answer is read. So what is bought
//! is capacity that its seller says it keeps, for Solvers that ask for no peering.
//!
//! Limits: K8Slices, whole; an official seller answers a purchase once and takes nothing back, so one whose answer was lost is not bought again.

pub(super) mod act;

use std::net::SocketAddr;
use std::sync::Arc;

use fluidos_model::kinds::{Condition, Configuration, Contract, Flavor, FlavorType};
use fluidos_model::market::Amounts;
use fluidos_rear as rear;
use jiff::Timestamp;

use super::weigh::Silence;
use crate::{bounded, convert, terms};

/// Says whether so much of a flavor may be bought from whoever answers at an address without a key, or why not.
pub type Acquire = Arc<dyn Fn(SocketAddr, &Flavor, &Amounts) -> Result<(), String> + Send + Sync>;

/// Why nothing runs under such a contract.
pub(super) const NO_PEERING: &str = "peering ends at the contract: its seller is an official node, which proves no key and peers by a kubeconfig, \
                                     and none is ever taken";
/// The type of the condition that says so, and its reason.
const CONDITION: &str = "Peering";
const REASON: &str = "SignedByNobody";

/// A way to a plain seller.
pub(super) fn client(address: SocketAddr) -> rear::Client {
    rear::Client::over(Arc::new(rear::PlainHttp { address }))
}

/// Why a plain seller is not asked by who wants to run something.
pub(super) fn unusable() -> Silence {
    "it sells K8Slices up to the contract only, as an official node: a Solver without establishPeering buys there"
        .to_owned()
        .into()
}

/// Says whether a contract was bought from who has proven no key.
pub(super) fn is_plain(contract: &Contract) -> bool {
    contract.spec.signed_terms.is_none() && convert::did(&contract.spec.seller).is_none()
}

/// Checks what a seller says it holds.
fn check_held(flavor: &str, buys: &Amounts, held: &rear::Transaction, now: Timestamp) -> Result<(), String> {
    if held.flavor_id != flavor {
        return Err(format!("flavor {} is held, needed {flavor}", bounded(&held.flavor_id, 64)));
    }
    check_amounts(held.configuration.as_ref(), buys)?;
    is_ahead("what is held", held.expiration, now)
}

/// Checks what a seller says it has sold.
fn check_sold(held: &rear::Transaction, buys: &Amounts, sold: &rear::Contract, now: Timestamp) -> Result<(), String> {
    if sold.transaction_id != held.id {
        return Err(format!(
            "transaction {} is sold, needed {}",
            bounded(&sold.transaction_id, 64),
            bounded(&held.id, 64)
        ));
    }
    if sold.flavor.id != held.flavor_id {
        return Err(format!(
            "flavor {} is sold, needed {}",
            bounded(&sold.flavor.id, 64),
            bounded(&held.flavor_id, 64)
        ));
    }
    if !terms::is_label(&sold.id) {
        let name = bounded(&sold.id, 64);
        return Err(format!("contract name `{name}`, needed 1 to 63 lower-case letters, digits and dashes"));
    }
    check_amounts(sold.configuration.as_ref(), buys)?;
    is_ahead("the contract", sold.expiration, now)
}

fn check_amounts(said: Option<&rear::Configuration>, buys: &Amounts) -> Result<(), String> {
    let said = said.ok_or("it does not say how much")?;
    let configuration = Configuration { flavor_type: FlavorType::K8Slice, data: said.data.clone() };
    match configuration.amounts() {
        Ok(amounts) if amounts == *buys => Ok(()),
        Ok(amounts) => Err(format!("{amounts}, needed {buys}")),
        Err(error) => Err(error.to_string()),
    }
}

fn is_ahead(what: &str, until: Option<Timestamp>, now: Timestamp) -> Result<(), String> {
    match until {
        Some(until) if until <= now => Err(format!("{what} would be over since {until}")),
        _ => Ok(()),
    }
}

/// What holds of such a contract, in words for its owner.
fn condition(credentials_came: bool, now: Timestamp) -> Condition {
    let dropped = if credentials_came { "; it sent one, which was dropped unread" } else { "" };
    let message = format!("signed by nobody: what it says is the claim of its seller; {NO_PEERING}{dropped}");
    Condition {
        kind: CONDITION.into(),
        status: "False".into(),
        reason: REASON.into(),
        message,
        last_transition_time: now.to_string(),
        observed_generation: 1,
    }
}

#[cfg(test)]
mod tests;
