//! A flavor as it was heard: read once, when it arrives, into what it is judged by; the rest stays as it came until it is bought.
//!
//! ```text
//!  answer of a peer ─▶ Heard: amounts, price, conditions, place (numbers)   weigh: filter and rank thousands of these
//!                       └── rest (JSON, packed)  ─────────────────────────▶ EmbeddedFlavor of the few that are gone on with
//! ```

use fluidos_identity::NodeId;
use fluidos_model::kinds::{
    EmbeddedFlavor, EmbeddedMeta, FlavorPrice, FlavorSpec, FlavorType, FlavorTypeData, NodeIdentity, ServiceFlavor,
    names,
};
use fluidos_model::market::{Amounts, Conditions, Offer, Price, UnitPrice};
use fluidos_rear as rear;
use serde_json::Value;

use crate::convert;

/// One flavor of one peer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Heard {
    /// How much of what, and where; of a service its name and place.
    pub offer: Offer,
    /// What is served, if it is a service.
    service: Option<Box<ServiceFlavor>>,
    /// Whether its owner says that it can be bought.
    pub available: bool,
    /// For what, as stated; `None` is not. What is wrong with it is told only to who would buy it.
    price: Result<Option<UnitPrice>, Box<str>>,
    /// How it is sold; `None` is as usual.
    conditions: Result<Option<Box<Conditions>>, Box<str>>,
    /// The rest of it, as JSON: some 400 bytes, where the tree of it takes eight times as many.
    rest: Box<[u8]>,
}

/// What nobody is judged by: provider, owner, data, price as stated, kind of network.
type Rest = (String, NodeIdentity, Value, FlavorPrice, String);

impl Heard {
    /// Reads what a seller says of one flavor, with the key that it has proven, if it has.
    ///
    /// # Errors
    /// Why nobody can say what it is.
    pub fn read(flavor: &rear::Flavor, seller: Option<NodeId>) -> Result<Self, String> {
        let embedded = convert::embedded_flavor(flavor, seller)?;
        let spec = &embedded.spec;
        let (offer, service) = match spec.flavor_type.type_identifier {
            FlavorType::Service => {
                let location = spec.location.clone().unwrap_or_default().into();
                let offer = Offer { flavor: flavor.id.clone(), location, ..Offer::default() };
                (offer, Some(Box::new(spec.service()?)))
            }
            _ => (spec.offer(&flavor.id).map_err(|error| error.to_string())?, None),
        };
        let boxed = |error: &dyn std::fmt::Display| error.to_string().into_boxed_str();
        let usual = Conditions::default();
        let said = spec.flavor_type.type_data.pointer("/policies/conditions").filter(|said| !said.is_null());
        let conditions = Conditions::read(said)
            .map(|conditions| (conditions != usual).then(|| Box::new(conditions)))
            .map_err(|error| boxed(&error));
        let price = spec.price.parse().map_err(|error| boxed(&format_args!("price: {error}")));
        let available = spec.availability;
        let FlavorSpec { provider_id, mut owner, flavor_type, price: stated, network_property_type, .. } =
            embedded.spec;
        // It is the key of the seller, which whoever goes on with it has.
        owner.additional_information.get_or_insert_default().did = None;
        let rest: Rest = (provider_id, owner, flavor_type.type_data, stated, network_property_type);
        let rest = serde_json::to_vec(&rest).map_err(|error| error.to_string())?.into();
        Ok(Self { offer, service, available, price, conditions, rest })
    }

    /// What is offered of a K8Slice.
    ///
    /// # Errors
    /// It is another thing.
    pub fn slice(&self) -> Result<&Offer, String> {
        match self.service {
            None => Ok(&self.offer),
            Some(_) => Err(format!("{} is a Service, needed a K8Slice", self.offer.flavor)),
        }
    }

    /// What is served.
    ///
    /// # Errors
    /// It is another thing.
    pub fn service(&self) -> Result<&ServiceFlavor, String> {
        self.service.as_deref().ok_or_else(|| format!("{} is a K8Slice, needed a Service", self.offer.flavor))
    }

    /// For what one unit of it is sold, if that is stated and can be read.
    pub fn price(&self) -> Option<&UnitPrice> {
        self.price.as_ref().ok()?.as_ref()
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

    /// All of it, as our objects have it, with the seller that it was heard from.
    ///
    /// # Errors
    /// None that anybody has seen: we have written it.
    pub fn whole(&self, seller: Option<NodeId>) -> Result<EmbeddedFlavor, String> {
        let rest: Rest = serde_json::from_slice(&self.rest).map_err(|error| error.to_string())?;
        let (provider_id, mut owner, type_data, price, network_property_type) = rest;
        owner.additional_information.get_or_insert_default().did = seller.map(|key| key.to_string());
        let type_identifier = if self.service.is_some() { FlavorType::Service } else { FlavorType::K8Slice };
        let spec = FlavorSpec {
            provider_id,
            owner,
            flavor_type: FlavorTypeData { type_identifier, type_data },
            price,
            availability: self.available,
            network_property_type,
            location: Some(self.offer.location.clone().into()),
        };
        let metadata = EmbeddedMeta { name: self.offer.flavor.clone(), namespace: names::NAMESPACE.into() };
        Ok(EmbeddedFlavor { metadata, spec, status: None })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use fluidos_identity::NodeKey;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_heard_is_whole_again() {
        let seller = NodeKey::from_seed([5; 32]).unwrap().id();
        let flavor = rear::Flavor {
            id: "f".into(),
            provider_id: "p".into(),
            flavor_type: rear::FlavorType::K8Slice,
            data: json!({
                "characteristics": {"architecture": "arm64", "cpu": "1500m", "memory": "1Gi", "pods": "10", "gpu": {"model": "x", "cores": "1"}},
                "policies": {"partitionability": {"cpuStep": "500m"}, "conditions": {"businessModel": "spot", "noticeSeconds": 60}},
                "properties": {"carbon-footprint": {"embodied": 5}, "additionalProperties": {"odd": [1, "two"]}},
            }),
            location: rear::Location { city: "Milan".into(), country: "Italy".into(), ..Default::default() },
            price: rear::Price {
                amount: "0.5".into(),
                currency: "EUR".into(),
                period: "hour".into(),
                unit: "cpu".into(),
            },
            owner: rear::Party {
                domain: "grid.example".into(),
                name: Some("grid".into()),
                address: "192.0.2.1:7300".into(),
                ..Default::default()
            },
            availability: true,
            network_property_type: "n".into(),
        };
        let heard = Heard::read(&flavor, Some(seller)).unwrap();
        assert_eq!(heard.whole(Some(seller)).unwrap(), convert::embedded_flavor(&flavor, Some(seller)).unwrap());
        assert_eq!(heard.conditions().unwrap().notice_seconds, 60);
    }
}
