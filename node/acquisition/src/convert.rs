//! Between the kinds of the API and the messages of the wire, which do not know each other.

use fluidos_identity::{Envelope, NodeId};
use fluidos_model::kinds::{
    AdditionalInformation, Configuration, EmbeddedFlavor, EmbeddedMeta, FlavorLocation, FlavorPrice, FlavorSpec,
    FlavorType, FlavorTypeData, NodeIdentity, SignedTerms, names,
};
use fluidos_rear as rear;

use crate::bounded;

/// Names, domains and addresses are host names at most (RFC 1035 §2.3.4).
const TEXT_LENGTH_MAX: usize = 253;
/// A K8Slice with all its properties is about 2 KiB; one object holds up to 64 of them.
const FLAVOR_BYTES_MAX: usize = 16 * 1024;

pub(crate) fn party(identity: &NodeIdentity) -> rear::Party {
    let more = identity.additional_information.as_ref();
    let did = did(identity);
    rear::Party {
        node_id: identity.node_id.clone(),
        address: identity.ip.clone(),
        domain: identity.domain.clone(),
        // Official sellers demand one of a buyer; a DID is one.
        liqo_id: more.and_then(|more| more.liqo_id.clone()).or_else(|| did.map(|did| did.to_string())),
        did,
        name: more.and_then(|more| more.name.clone()),
    }
}

/// What a peer says about itself, cut to size. Its DID is the one it has proven, whatever it says; who has proven none keeps the id of its
/// Liqo cluster, which is what official nodes are called by.
pub(crate) fn identity(party: &rear::Party, proven: Option<NodeId>) -> NodeIdentity {
    let cut = |text: &str| bounded(text, TEXT_LENGTH_MAX);
    NodeIdentity {
        domain: cut(&party.domain),
        node_id: cut(&party.node_id),
        ip: cut(&party.address),
        additional_information: Some(AdditionalInformation {
            liqo_id: party.liqo_id.as_deref().filter(|_| proven.is_none()).map(cut),
            did: proven.map(|key| key.to_string()),
            name: party.name.as_deref().map(cut),
        }),
    }
}

/// The DID that an identity claims, if it is one.
pub(crate) fn did(identity: &NodeIdentity) -> Option<NodeId> {
    identity.additional_information.as_ref()?.did.as_ref()?.parse().ok()
}

pub(crate) fn flavor_type(of: rear::FlavorType) -> FlavorType {
    match of {
        rear::FlavorType::K8Slice => FlavorType::K8Slice,
        rear::FlavorType::Vm => FlavorType::VM,
        rear::FlavorType::Service => FlavorType::Service,
        rear::FlavorType::Sensor => FlavorType::Sensor,
    }
}

pub(crate) fn wire_type(of: FlavorType) -> rear::FlavorType {
    match of {
        FlavorType::K8Slice => rear::FlavorType::K8Slice,
        FlavorType::VM => rear::FlavorType::Vm,
        FlavorType::Service => rear::FlavorType::Service,
        FlavorType::Sensor => rear::FlavorType::Sensor,
    }
}

pub(crate) fn wire_flavor(name: &str, spec: &FlavorSpec) -> rear::Flavor {
    let location = spec.location.clone().unwrap_or_default();
    let FlavorLocation { latitude, longitude, country, city, additional_notes } = location;
    let FlavorPrice { amount, currency, period, unit } = spec.price.clone();
    rear::Flavor {
        id: name.into(),
        provider_id: spec.provider_id.clone(),
        flavor_type: wire_type(spec.flavor_type.type_identifier),
        data: spec.flavor_type.type_data.clone(),
        location: rear::Location { latitude, longitude, country, city, additional_notes },
        price: rear::Price { amount, currency, period, unit },
        owner: party(&spec.owner),
        availability: spec.availability,
        network_property_type: spec.network_property_type.clone(),
    }
}

/// A seller's flavor as it stands in our objects, or why it cannot.
pub(crate) fn embedded_flavor(flavor: &rear::Flavor, seller: Option<NodeId>) -> Result<EmbeddedFlavor, String> {
    let size = flavor.data.to_string().len();
    if !flavor.data.is_object() || size > FLAVOR_BYTES_MAX {
        return Err(format!("flavor data is no object, or {size} bytes, needed at most {FLAVOR_BYTES_MAX}"));
    }
    let cut = |text: &str| bounded(text, TEXT_LENGTH_MAX);
    let rear::Location { latitude, longitude, country, city, additional_notes } = &flavor.location;
    let rear::Price { amount, currency, period, unit } = &flavor.price;
    let spec = FlavorSpec {
        provider_id: cut(&flavor.provider_id),
        flavor_type: FlavorTypeData {
            type_identifier: flavor_type(flavor.flavor_type),
            type_data: flavor.data.clone(),
        },
        owner: identity(&flavor.owner, seller),
        price: FlavorPrice { amount: cut(amount), currency: cut(currency), period: cut(period), unit: cut(unit) },
        availability: flavor.availability,
        network_property_type: cut(&flavor.network_property_type),
        location: Some(FlavorLocation {
            latitude: cut(latitude),
            longitude: cut(longitude),
            country: cut(country),
            city: cut(city),
            additional_notes: cut(additional_notes),
        }),
    };
    let metadata = EmbeddedMeta { name: flavor.id.clone(), namespace: names::NAMESPACE.into() };
    Ok(EmbeddedFlavor { metadata, spec, status: None })
}

/// A flavor as it stands in a contract: at the price of the contract.
pub(crate) fn at_price(mut flavor: EmbeddedFlavor, terms: &rear::ContractTerms) -> EmbeddedFlavor {
    let [amount, currency, period] = terms.price.clone().map(|text| bounded(&text, TEXT_LENGTH_MAX));
    flavor.spec.price = FlavorPrice { amount, currency, period, unit: String::new() };
    flavor
}

pub(crate) fn wire_configuration(configuration: &Configuration) -> rear::Configuration {
    rear::Configuration { flavor_type: wire_type(configuration.flavor_type), data: configuration.data.clone() }
}

pub(crate) fn signed_terms(envelope: Envelope) -> SignedTerms {
    let Envelope { purpose, payload, signatures } = envelope;
    SignedTerms { purpose, payload, signatures }
}

pub(crate) fn envelope(terms: &SignedTerms) -> Envelope {
    let SignedTerms { purpose, payload, signatures } = terms.clone();
    Envelope { purpose, payload, signatures }
}
