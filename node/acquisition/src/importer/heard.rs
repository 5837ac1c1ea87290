//! A flavor as it was heard: read once, when it arrives, into what it is judged by; the rest stays as it came until it is bought.
//!
//! ```text
//!  answer of a peer ─▶ Heard: amounts, price, conditions, place (numbers)   weigh: filter and rank thousands of these
//!                       └── whole (JSON, packed) ─────────────────────────▶ EmbeddedFlavor of the few that are gone on with
//! ```

use fluidos_identity::NodeId;
use fluidos_model::kinds::EmbeddedFlavor;
use fluidos_model::market::{Amounts, Conditions, Offer, Price, UnitPrice};
use fluidos_rear as rear;

use crate::convert;

/// One flavor of one peer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Heard {
    /// How much of what, and where.
    pub offer: Offer,
    /// Whether its owner says that it can be bought.
    pub available: bool,
    /// For what, as stated; `None` is not. What is wrong with it is told only to who would buy it.
    price: Result<Option<UnitPrice>, Box<str>>,
    /// How it is sold; `None` is as usual.
    conditions: Result<Option<Box<Conditions>>, Box<str>>,
    /// The flavor as our objects have it, as JSON: some 700 bytes, where the tree of it takes four times as many.
    whole: Box<[u8]>,
}

impl Heard {
    /// Reads what a seller, whose key is proven, says of one flavor.
    ///
    /// # Errors
    /// Why nobody can say what it is.
    pub fn read(flavor: &rear::Flavor, seller: NodeId) -> Result<Self, String> {
        let embedded = convert::embedded_flavor(flavor, seller)?;
        let spec = &embedded.spec;
        let slice = spec.k8slice().map_err(|error| error.to_string())?;
        let offer = slice.offer(&flavor.id, spec.location.clone()).map_err(|error| error.to_string())?;
        let boxed = |error: &dyn std::fmt::Display| error.to_string().into_boxed_str();
        let usual = Conditions::default();
        let conditions = Conditions::read(slice.policies.conditions.as_ref())
            .map(|conditions| (conditions != usual).then(|| Box::new(conditions)))
            .map_err(|error| boxed(&error));
        let price = spec.price.parse().map_err(|error| boxed(&format_args!("price: {error}")));
        let whole = serde_json::to_vec(&embedded).map_err(|error| error.to_string())?.into();
        Ok(Self { offer, available: spec.availability, price, conditions, whole })
    }

    /// How it is sold.
    ///
    /// # Errors
    /// Why it cannot be signed.
    pub fn conditions(&self) -> Result<Conditions, String> {
        let conditions = self.conditions.as_ref().map_err(ToString::to_string)?;
        Ok(conditions.as_deref().cloned().unwrap_or_default())
    }

    /// What these amounts of it cost; `None` is not stated.
    ///
    /// # Errors
    /// What is wrong with the price.
    pub fn quote(&self, buys: &Amounts) -> Result<Option<Price>, String> {
        let price = self.price.as_ref().map_err(ToString::to_string)?;
        price.as_ref().map(|price| price.of(buys)).transpose().map_err(|error| format!("price: {error}"))
    }

    /// All of it, as our objects have it.
    ///
    /// # Errors
    /// None that anybody has seen: we have written it.
    pub fn whole(&self) -> Result<EmbeddedFlavor, String> {
        serde_json::from_slice(&self.whole).map_err(|error| error.to_string())
    }
}
