//! What is said: plain values for the rest of the house. How it is written is in [`wire`].

mod change;
mod dialect;
mod offer;
mod request;
pub(crate) mod wire;

use std::collections::BTreeMap;

use fluidos_identity::{Envelope, NodeId};
use jiff::Timestamp;
use serde_json::Value;

pub use change::Change;
pub use offer::{OFFERS_MAX, Offer, OfferedPlan, OffersPage, OffersQuery};
pub use request::{Fit, ResourceAnswer, ResourceOffer, ResourceRequest};

/// What kind of thing is traded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlavorType {
    /// CPU, memory and pods of a cluster: `k8slice`.
    K8Slice,
    /// A virtual machine: `vm`.
    Vm,
    /// A service that somebody runs: `service`.
    Service,
    /// A sensor: `sensor`.
    Sensor,
}

impl FlavorType {
    /// Returns the spelling on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::K8Slice => "k8slice",
            Self::Vm => "vm",
            Self::Service => "service",
            Self::Sensor => "sensor",
        }
    }

    /// Returns the type of this name, in any case, singular or plural.
    pub fn from_name(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "k8slice" | "k8slices" => Some(Self::K8Slice),
            "vm" | "vms" => Some(Self::Vm),
            "service" | "services" => Some(Self::Service),
            "sensor" | "sensors" => Some(Self::Sensor),
            _ => None,
        }
    }
}

/// Who a node says it is. Only [`Party::did`] can be proven.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Party {
    /// The node's own name for itself.
    pub node_id: String,
    /// Where REAR answers, `ip:port`.
    pub address: String,
    /// What its owner calls itself.
    pub domain: String,
    /// Liqo id, which official nodes demand of a buyer; ours say their DID.
    pub liqo_id: Option<String>,
    /// Its DID (ours). A claim until a handshake or a signature proves it.
    pub did: Option<NodeId>,
    /// The name its owner gave it (ours).
    pub name: Option<String>,
}

/// Something on offer.
#[derive(Clone, PartialEq, Debug)]
pub struct Flavor {
    /// Its name at the seller.
    pub id: String,
    /// The node that offers it.
    pub provider_id: String,
    /// What kind of thing.
    pub flavor_type: FlavorType,
    /// The type's own fields, spelled as in the API (`characteristics`, `carbon-footprint`).
    pub data: Value,
    /// Where it is.
    pub location: Location,
    /// For what.
    pub price: Price,
    /// Whose it is.
    pub owner: Party,
    /// Whether it can be bought now.
    pub availability: bool,
    /// Free text.
    pub network_property_type: String,
}

/// A place, as texts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)] // the fields are their own words
pub struct Location {
    pub latitude: String,
    pub longitude: String,
    pub country: String,
    pub city: String,
    pub additional_notes: String,
}

/// A price; one with an empty amount is not stated, which is not 0.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)] // the fields are their own words
pub struct Price {
    pub amount: String,
    pub currency: String,
    pub period: String,
    /// For one of what (ours): `cpu`, `gib`, `pod`, `gpu`; empty is for what is bought, whatever its size.
    pub unit: String,
}

/// What exactly is bought.
#[derive(Clone, PartialEq, Debug)]
pub struct Configuration {
    /// Of which type.
    pub flavor_type: FlavorType,
    /// The type's own fields, such as `cpu`, `memory`, `pods`.
    pub data: Value,
}

/// Where measurements are to be sent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Telemetry {
    /// The server.
    pub endpoint: String,
    /// Which intents.
    pub intents: Vec<String>,
}

/// Asks to hold something.
#[derive(Clone, PartialEq, Debug)]
pub struct ReserveRequest {
    /// What.
    pub flavor_id: String,
    /// For whom.
    pub buyer: Party,
    /// How much of it; `None` is the whole.
    pub configuration: Option<Configuration>,
    /// The buyer's name for this transaction (ours): the same request again is the same hold.
    pub transaction_id: Option<String>,
    /// For how long it is wanted (ours); `None` is as long as the seller sells, which may be shorter in any case.
    pub term_seconds: Option<u64>,
    /// Through whose hands it has come (ours): a [`Path`](crate::Path), signed by the buyer for this seller.
    pub path: Option<Envelope>,
}

/// What is held.
#[derive(Clone, PartialEq, Debug)]
pub struct Transaction {
    /// The name under which it is bought.
    pub id: String,
    /// What.
    pub flavor_id: String,
    /// How much of it.
    pub configuration: Option<Configuration>,
    /// For whom.
    pub buyer: Party,
    /// Liqo id of the buyer.
    pub cluster_id: String,
    /// Until when.
    pub expiration: Option<Timestamp>,
    /// The terms the buyer is asked to sign (ours), not signed by anybody yet.
    pub terms: Option<Envelope>,
}

/// Buys what is held.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct PurchaseRequest {
    /// The terms of the transaction, signed by the buyer (ours).
    pub signed_terms: Option<Envelope>,
    /// Where the seller is to send measurements.
    pub telemetry: Option<Telemetry>,
    /// What is configured of a service (ours): the terms have its digest only.
    pub configuration: Option<Configuration>,
    /// Liqo id of the buyer, which official sellers of services demand.
    pub cluster_id: Option<String>,
}

/// What was sold.
#[derive(Clone, PartialEq, Debug)]
pub struct Contract {
    /// Its name at both parties.
    pub id: String,
    /// The transaction that held it.
    pub transaction_id: String,
    /// What it was cut from.
    pub flavor: Flavor,
    /// How much of it.
    pub configuration: Option<Configuration>,
    /// Who buys.
    pub buyer: Party,
    /// Liqo id of the buyer.
    pub buyer_cluster_id: String,
    /// Who sells.
    pub seller: Party,
    /// Until when.
    pub expiration: Option<Timestamp>,
    /// Anything else.
    pub extra: BTreeMap<String, String>,
    /// Name of network requests.
    pub network_requests: Option<String>,
    /// Where measurements are to be sent.
    pub telemetry: Option<Telemetry>,
    /// The terms with both signatures (ours); official sellers have none.
    pub signed_terms: Option<Envelope>,
    /// Credentials of the seller's cluster came with it, as official sellers send them, and were dropped unread. Never written.
    pub credentials_dropped: bool,
}
