//! One deal with one seller: what is sent to it, and the checks of what it answers.
//!
//! ```text
//! reserve ─▶ terms: what was asked for? ─▶ Transaction ─▶ sign         (hold)
//! purchase ─▶ the same bytes, signed by both?                          (pay)
//! ```

use std::time::Duration;

use fluidos_identity::{NodeId, Signed};
use fluidos_model::kinds::{
    Configuration, Contract, ContractSpec, EmbeddedFlavor, NodeIdentity, Solver, Transaction, TransactionSpec, names,
};
use fluidos_model::market::{Conditions, Price};
use fluidos_rear as rear;
use jiff::Timestamp;
use kube::{Api, Client, ResourceExt as _};

use super::act::{Error, buyer, ensure, owner};
use super::view::Offered;
use crate::contracts::WriteError;
use crate::{Options, bounded, contracts, convert, terms};

/// An answer may be lost once; a seller that answers nothing three times is gone.
const PURCHASES_MAX: u32 = 3;
const PURCHASE_PAUSE: Duration = Duration::from_millis(200);

/// What both sign, as far as it is signed.
pub(super) type Terms = Signed<rear::ContractTerms>;

/// Why it was not bought.
#[derive(Debug)]
pub(crate) enum Stop {
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

/// A deal with one seller.
pub(super) struct Deal<'a> {
    pub client: &'a Client,
    pub options: &'a Options,
    pub solver: &'a Solver,
    pub offered: &'a Offered,
    /// The key that the seller has proven.
    pub seller: NodeId,
    pub configuration: &'a Configuration,
    pub transaction: &'a str,
    /// In whose name: nobody is this owner's own.
    pub behind: &'a rear::Path,
}

impl Deal<'_> {
    fn dial(&self, step: &'static str) -> Result<rear::Client, Stop> {
        let target = rear::Target { address: self.offered.address, expected: Some(self.seller) };
        (self.options.dial)(target).map_err(|reason| Stop::Refused { step, reason })
    }

    /// Has it held and returns the terms with our signature, which nobody has seen yet.
    pub async fn hold(&self) -> Result<Terms, Stop> {
        self.held().await.map(|(signed, _)| signed)
    }

    /// The same, with until when it is held, if the seller says so.
    pub async fn held(&self) -> Result<(Terms, Option<Timestamp>), Stop> {
        let peer = self.dial("reserve")?;
        let path = self.behind.signed(&self.options.key, self.seller, Timestamp::now());
        let path = path.map_err(|error| Stop::Refused { step: "reserve", reason: error.to_string() })?;
        let request = rear::ReserveRequest {
            flavor_id: self.offered.flavor.metadata.name.clone(),
            buyer: buyer(self.options),
            configuration: Some(convert::wire_configuration(self.configuration)),
            transaction_id: Some(self.transaction.into()),
            term_seconds: self.offered.term_seconds,
            path: Some(path),
        };
        let held = peer.reserve(&request).await.map_err(|error| stopped("reserve", error))?;
        let mut signed = match self.checked(&request, &held) {
            Ok(signed) => signed,
            Err(reason) => {
                give_back(&peer, self.transaction).await;
                return Err(Stop::Refused { step: "reserve", reason });
            }
        };
        self.untaken(&signed).await?;
        self.record(&held).await?;
        signed.sign(&self.options.key).map_err(Error::from)?;
        Ok((signed, held.expiration))
    }

    /// Another buyer may want it before the hold is over. It is a courtesy: a hold ends by itself.
    pub async fn give_back(&self) {
        if let Ok(peer) = self.dial("cancel") {
            give_back(&peer, self.transaction).await;
        }
    }

    /// Buys what is held. With an error comes whether the seller may have sold all the same.
    pub async fn pay(&self, signed: &Terms) -> Result<Terms, (Stop, bool)> {
        let peer = self.dial("purchase").map_err(|stop| (stop, true))?;
        // The terms of a service have the digest of its configuration only.
        let configuration = self.offered.configuration.as_ref().map(convert::wire_configuration);
        let signed_terms = Some(signed.envelope());
        let request = rear::PurchaseRequest { signed_terms, configuration, ..Default::default() };
        let sold = purchase(&peer, self.transaction, &request)
            .await
            .map_err(|(error, open)| (stopped("purchase", error), open))?;
        let missing = || "the answer has no signed terms, needed them signed by both".to_owned();
        let both = sold
            .signed_terms
            .as_ref()
            .ok_or_else(missing)
            .and_then(|envelope| rear::check_contract(envelope, signed).map_err(|error| error.to_string()));
        both.map_err(|reason| (Stop::Refused { step: "purchase", reason }, true))
    }

    /// The buyer's contract: it goes with its Solver, and counts for the namespace that the Solver is for.
    pub fn contract(&self, signed: &Terms) -> Contract {
        let (terms, owned) = (signed.value(), &self.offered.flavor.spec.owner);
        let spec = ContractSpec {
            flavor: convert::at_price(self.offered.flavor.clone(), terms),
            transaction_id: self.transaction.into(),
            configuration: Some(self.configuration.clone()),
            buyer: self.options.identity.clone(),
            buyer_cluster_id: self.options.key.id().to_string(),
            seller: NodeIdentity { ip: self.offered.address.to_string(), ..owned.clone() },
            expiration_time: terms.until.clone(),
            signed_terms: Some(convert::signed_terms(signed.envelope())),
            ..ContractSpec::default()
        };
        let mut contract = contracts::contract(&terms.contract_id, spec, self.seller, owner(self.solver));
        if let Some(namespace) = self.solver.annotations().get(names::ANNOTATION_NAMESPACE) {
            contract.annotations_mut().insert(names::ANNOTATION_NAMESPACE.into(), bounded(namespace, 63));
        }
        if let Some(name) = self.solver.annotations().get(names::ANNOTATION_SERVICE_NAME) {
            contract.annotations_mut().insert(names::ANNOTATION_SERVICE_NAME.into(), bounded(name, 63));
        }
        contract
    }

    /// It is not wanted, and the seller has sold, or may have: it is told so, however long that takes.
    pub async fn take_back(&self, signed: &Terms) -> Result<(), Error> {
        let mut contract = self.contract(signed);
        // Over from the beginning: nobody takes it for one that can be used.
        contract.spec.expiration_time = Some(Timestamp::now().to_string());
        match contracts::write(self.client, &contract).await {
            Ok(written) => Ok(contracts::delete(self.client, &written).await?),
            Err(WriteError::Ending { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The terms of what is held, if they are what was asked for and what this buyer can agree to.
    fn checked(&self, request: &rear::ReserveRequest, held: &rear::Transaction) -> Result<Terms, String> {
        if held.id != self.transaction {
            return Err(format!("transaction {} is held, needed {}", bounded(&held.id, 64), self.transaction));
        }
        let terms = held.terms.as_ref().ok_or("it offers no terms to sign, and without them nothing is bought")?;
        let (own, seller) = (self.options.key.id(), self.seller);
        let signed =
            rear::check_offer(terms, request, self.transaction, own, seller).map_err(|error| error.to_string())?;
        let terms = signed.value();
        if !terms::is_label(&terms.contract_id) {
            let name = bounded(&terms.contract_id, 64);
            return Err(format!("contract name `{name}`, needed 1 to 63 lower-case letters, digits and dashes"));
        }
        if terms::is_service(terms) && rear::ServiceTerms::of(terms).is_ok_and(|service| service.size.is_some()) {
            terms::amounts(terms)?;
        }
        check_price(&terms.price, self.offered.price)?;
        // The flavor was judged by the policy; what is signed may not say anything else.
        let conditions = Conditions::read(terms.conditions.as_ref()).map_err(|error| error.to_string())?;
        if conditions != offered_conditions(&self.offered.flavor)? {
            let (signed, said) = (terms.conditions.clone().unwrap_or_default(), "those of the flavor");
            return Err(format!("conditions: the terms state {}, needed {said}", bounded(&signed.to_string(), 200)));
        }
        let until = terms.until.as_ref().map(|until| until.parse::<Timestamp>()).transpose();
        if until.map_err(|error| error.to_string())?.is_some_and(|until| until <= Timestamp::now()) {
            return Err("the contract would be over already".into());
        }
        Ok(signed)
    }

    /// A seller chooses the name: it must not be that of another contract.
    async fn untaken(&self, signed: &Terms) -> Result<(), Stop> {
        let (api, name) =
            (Api::<Contract>::namespaced(self.client.clone(), names::NAMESPACE), &signed.value().contract_id);
        match api.get_opt(name).await? {
            Some(known) if terms::of_contract(&known).map(|known| known.bytes() != signed.bytes()).unwrap_or(true) => {
                let reason = format!("contract name {name} is in use for other terms");
                Err(Stop::Refused { step: "reserve", reason })
            }
            _ => Ok(()),
        }
    }

    async fn record(&self, held: &rear::Transaction) -> Result<(), Error> {
        let spec = TransactionSpec {
            flavor_id: held.flavor_id.clone(),
            buyer: self.options.identity.clone(),
            cluster_id: self.options.key.id().to_string(),
            configuration: Some(self.configuration.clone()),
            expiration_time: held.expiration.map(|time| time.to_string()),
        };
        ensure(self.client, self.solver, Transaction::new(self.transaction, spec)).await.map(|_| ())
    }
}

/// What a flavor says beyond size, price and term.
pub(super) fn offered_conditions(flavor: &EmbeddedFlavor) -> Result<Conditions, String> {
    let said = flavor.spec.flavor_type.type_data.pointer("/policies/conditions").filter(|said| !said.is_null());
    Conditions::read(said).map_err(|error| error.to_string())
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

/// Why a seller's answer ends the try: for good, or until later. A hold that was over before it was paid, as on a busy machine, is no refusal: it
/// is reserved again.
pub(super) fn stopped(step: &'static str, error: rear::ClientError) -> Stop {
    let over = |refusal: &rear::Refusal| refusal.code == rear::RefusalCode::Expired;
    let later = error.is_retryable() || matches!(&error, rear::ClientError::Refused { refusal, .. } if over(refusal));
    let reason = told(error);
    if later { Stop::Away { step, reason } } else { Stop::Refused { step, reason } }
}

/// The seller's own words when it refused; otherwise what happened on the way.
pub(super) fn told(error: rear::ClientError) -> String {
    match error {
        rear::ClientError::Refused { refusal, .. } => refusal.detail,
        other => other.to_string(),
    }
}

/// Buys, asking again when it makes sense. With an error comes whether the seller may have sold all the same: only one that
/// has refused for good from the first has surely not.
pub(super) async fn purchase(
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

/// Gives a hold back, if the seller can be told.
pub(super) async fn give_back(peer: &rear::Client, transaction: &str) {
    if let Err(error) = peer.cancel(transaction).await {
        tracing::debug!(transaction, %error, "a hold is left to end by itself");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use super::*;

    #[test]
    fn a_hold_that_is_over_is_reserved_again_and_a_refusal_is_one() {
        let refused = |code: rear::RefusalCode| {
            let refusal = rear::Refusal::new(code, "it says so");
            stopped("purchase", rear::ClientError::Refused { seller: "grid".into(), step: "purchase", refusal })
        };
        for code in [rear::RefusalCode::Expired, rear::RefusalCode::Unavailable, rear::RefusalCode::TooMany] {
            assert!(matches!(refused(code), Stop::Away { .. }), "{code:?}");
        }
        for code in [rear::RefusalCode::Conflict, rear::RefusalCode::Forbidden, rear::RefusalCode::NotFound] {
            assert!(matches!(refused(code), Stop::Refused { .. }), "{code:?}");
        }
    }
}
