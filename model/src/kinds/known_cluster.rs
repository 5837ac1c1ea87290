//! KnownCluster: a node that somebody told us about. Together they are the peering candidates database.
//!
//! A neighbour *expires* if and only if its `status.expirationTime` is a time and that time is over; one with an empty
//! status stays, as with official nodes.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{EXTENDED_MAX, FlavorPrice};

/// Where a node answers and what is known about it. Only `address` is official.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[kube(
    group = "network.fluidos.eu",
    version = "v1alpha1",
    kind = "KnownCluster",
    plural = "knownclusters",
    shortname = "kclust",
    shortname = "kclusts",
    namespaced,
    status = "KnownClusterStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Name","type":"string","jsonPath":".spec.name"}"#,
    printcolumn = r#"{"name":"Domain","type":"string","jsonPath":".spec.domain"}"#,
    printcolumn = r#"{"name":"Address","type":"string","jsonPath":".spec.address"}"#,
    printcolumn = r#"{"name":"Link","type":"string","jsonPath":".status.link.state"}"#,
    printcolumn = r#"{"name":"Trust","type":"string","jsonPath":".spec.trust"}"#,
    printcolumn = r#"{"name":"Owner","type":"string","priority":1,"jsonPath":".status.identity.owner.value"}"#,
    printcolumn = r#"{"name":"Price","type":"string","priority":1,"jsonPath":".spec.offers[0].price"}"#,
    printcolumn = r#"{"name":"Billing","type":"string","priority":1,"jsonPath":".spec.offers[0].billing"}"#,
    printcolumn = r#"{"name":"Source","type":"string","priority":1,"jsonPath":".spec.source"}"#,
    printcolumn = r#"{"name":"DID","type":"string","priority":1,"jsonPath":".spec.did"}"#,
    printcolumn = r#"{"name":"Expiration Time","type":"string","priority":1,"jsonPath":".status.expirationTime"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct KnownClusterSpec {
    /// Where REAR answers, `ip:port`.
    pub address: String,
    /// `did:key` that it must prove.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub did: Option<String>,
    /// What it calls itself. A claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What its owner calls itself. A claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Where else it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<KnownClusterEndpoints>,
    /// What it says it can.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// What it sells and at what price, in short: as it announces in a catalog, or as its REAR has told a Solver of this node. Claims;
    /// what counts is what REAR lists when it is bought. At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub offers: Vec<KnownClusterOffer>,
    /// Who told us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<KnownClusterSource>,
    /// Whether it may receive our workloads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<KnownClusterTrust>,
    /// It is an official FLUIDOS node: its REAR is plain HTTP, it proves no key and signs nothing. Only the owner writes this; then a Solver
    /// asks it, and buys up to the contract where an AccessPolicy permits `Acquire`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plain: bool,
}

/// One kind of goods that a node says it sells (D1: pricing and billing models).
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(default)]
pub struct KnownClusterOffer {
    /// The package and its plan, `OFFER/PLAN`; empty for what is cut as it is wanted.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Type of flavor, such as `K8Slice`.
    #[serde(rename = "type")]
    pub type_: String,
    /// Quantities by resource: `cpu`, `memory`, `pods` and whatever else it names; of a package its size, else the most there is.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub amounts: BTreeMap<String, String>,
    /// Such as `0.02 EUR/hour per cpu`; empty: not told.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub price: String,
    /// The business model by which it is charged: `reserved`, `pay-per-use` or `spot`; empty: not told.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub billing: String,
    /// Where; empty: not told.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub location: String,
    /// Who told us: `rear`, or the catalog, `HOST:PORT/TENANT`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub from: String,
}

impl KnownClusterOffer {
    /// Returns what is said of a flavor in short. `data` are the fields of its type, of which whatever is no text is left out.
    pub fn of_flavor(name: &str, type_: &str, data: &serde_json::Value, price: &FlavorPrice, location: &str) -> Self {
        let short = |text: &str| text.chars().filter(|c| !c.is_control()).take(OFFER_TEXT_MAX).collect::<String>();
        let characteristics = data["characteristics"].as_object().into_iter().flatten();
        let amounts = characteristics
            .filter(|(key, _)| OFFER_AMOUNTS.contains(&key.as_str()))
            .filter_map(|(key, value)| Some((key.clone(), short(value.as_str()?))));
        let devices = data["characteristics"]["extendedResources"].as_object().into_iter().flatten().take(EXTENDED_MAX);
        let devices = devices.filter_map(|(name, value)| Some((short(name), short(value.as_str()?))));
        let gpus = data["characteristics"]["gpu"]["cores"].as_str().map(|cores| ("gpu".to_owned(), short(cores)));
        let amounts = amounts.chain(devices).chain(gpus).collect();
        let model = data["policies"]["conditions"]["businessModel"].as_str();
        Self {
            name: short(name),
            type_: short(type_),
            amounts,
            price: price.shown().unwrap_or_default(),
            billing: short(model.unwrap_or("reserved")),
            location: short(location),
            from: String::new(),
        }
    }
}

/// As long as the name of a label.
const OFFER_TEXT_MAX: usize = 63;
/// What is told of a flavor in short, and what a table has room for.
const OFFER_AMOUNTS: [&str; 4] = ["cpu", "memory", "pods", "storage"];
/// Offers of one node: a shop window, not the shop.
pub const OFFERS_OF_NODE_MAX: usize = 16;

/// Addresses of a node, `ip:port`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(default)]
pub struct KnownClusterEndpoints {
    /// REAR over HTTPS.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rear: Vec<String>,
    /// The link.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub link: Vec<String>,
}

/// Who told us about a node.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownClusterSource {
    /// The owner, by hand.
    Static,
    /// Multicast DNS.
    Multicast,
    /// It came to us.
    Inbound,
    /// A broker.
    Broker,
    /// A catalog.
    Catalog,
}

/// Whether a node may receive our workloads.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownClusterTrust {
    /// It may.
    Trusted,
    /// It may not; it can be bought from and sold to.
    Untrusted,
}

/// What is seen of it. Times are RFC 3339.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct KnownClusterStatus {
    /// When it is forgotten unless it is seen again; empty is never.
    pub expiration_time: String,
    /// When it was last seen.
    pub last_update_time: String,
    /// How the link to it stands (ours).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<KnownClusterLink>,
    /// What others say of it in catalogs, of those whom this node has dealt with (ours); at most 16.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub opinions: Vec<KnownClusterOpinion>,
    /// What this node has seen by running something there (ours); at most 8.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub measured: Vec<KnownClusterMeasurement>,
    /// What is known of who it is, since it has shown its credentials to this process (ours).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<KnownClusterIdentity>,
}

/// What was seen of an attribute of a node.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
pub struct KnownClusterMeasurement {
    /// Of the attribute, as in `features`: `arch`.
    pub name: String,
    /// The value that it was seen to have.
    pub value: String,
    /// When, RFC 3339.
    pub at: String,
    /// When it says nothing any more, RFC 3339.
    pub until: String,
}

/// How one node has fared with another, as it has signed in a catalog.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
pub struct KnownClusterOpinion {
    /// DID of who says so.
    pub author: String,
    /// 0: nothing was kept; 1000: everything.
    pub value: u16,
    /// How many observations stand behind it, as it says.
    pub observations: u32,
    /// The catalog in which it stands, `HOST:PORT/TENANT`.
    pub from: String,
}

/// What is known of who a node is, beyond its key. Only what somebody whom this owner trusts says is proven.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct KnownClusterIdentity {
    /// Why its key counts for nothing; empty if it counts.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub refused: String,
    /// The Acquaintance that it is: the DID under which it was met first. Absent: a stranger.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// DID of the owner who vouches for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<ProvenFact>,
    /// The domain of that owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<ProvenFact>,
    /// How well each of its attributes is known; at most 64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<AttributeEvidence>,
    /// What it has shown that counts for nothing, and why; at most 8.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Attributes of one node that are looked at: as many as discovery tells.
const ATTRIBUTES_MAX: usize = 64;

impl KnownClusterIdentity {
    /// Returns how well each attribute is known at `now`: of a key that counts, and as long as the word of who vouches for it lasts. What is
    /// refuted is among them, without a level.
    pub fn attributes(&self, now: jiff::Timestamp) -> impl Iterator<Item = &AttributeEvidence> {
        let lasts = move |attribute: &&AttributeEvidence| {
            let ends = || attribute.until.parse::<jiff::Timestamp>();
            // A claim stands as long as it is made, and a measurement is told as long as it counts.
            attribute.level < Some(AttributeLevel::Audited) || ends().is_ok_and(|until| until > now)
        };
        let counts = if self.refused.is_empty() { ATTRIBUTES_MAX } else { 0 };
        self.evidence.iter().take(counts).filter(lasts)
    }
}

/// One proven thing.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
pub struct ProvenFact {
    /// What is proven.
    pub value: String,
    /// DID of whose word it is.
    pub by: String,
    /// When it must be proven anew (RFC 3339).
    pub until: String,
}

/// How well an attribute of a node is known.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
pub struct AttributeEvidence {
    /// Such as `country`.
    pub name: String,
    /// Such as `Italy`.
    pub value: String,
    /// How well. Absent: a measurement has refuted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<AttributeLevel>,
    /// DID of whose word it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// When that word ends (RFC 3339); a claim stands as long as the node makes it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub until: String,
    /// What a measurement took off it, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// How well an attribute is known. A later one is better.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AttributeLevel {
    /// The node says so.
    Claimed,
    /// A probe of this node says so.
    Measured,
    /// A certifier whom this owner trusts says so.
    Audited,
    /// Hardware says so, as an attester whom this owner trusts has verified.
    Attested,
}

impl AttributeLevel {
    /// All of them, the least first, each with its word in policies and tables.
    pub const WORDS: [(Self, &'static str); 4] = [
        (Self::Claimed, "claimed"),
        (Self::Measured, "measured"),
        (Self::Audited, "audited"),
        (Self::Attested, "attested"),
    ];

    /// Returns the word.
    pub fn word(self) -> &'static str {
        Self::WORDS.into_iter().find(|(level, _)| *level == self).map_or("", |(_, word)| word)
    }
}

/// How the link to a node stands.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct KnownClusterLink {
    /// Up or not.
    pub state: LinkState,
    /// Since when (RFC 3339).
    pub since: String,
    /// Round-trip time in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_micros: Option<u64>,
    /// Why it is not up, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Whether a link is up.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// It is.
    Up,
    /// It was.
    Down,
    /// It is being tried.
    Dialing,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_flavor_is_said_to_be_in_short_is_text_and_bounded() {
        let price =
            FlavorPrice { amount: "0.020".into(), currency: "eur".into(), period: "hourly".into(), unit: "cpu".into() };
        let data = json!({
            "characteristics": {"cpu": "4", "memory": "8Gi\u{7}", "pods": 110, "architecture": "amd64"},
            "policies": {"conditions": {"businessModel": "spot"}},
        });
        let offer = KnownClusterOffer::of_flavor("small/s", "K8Slice", &data, &price, &"x".repeat(100));
        let amounts: Vec<_> = offer.amounts.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(amounts, ["cpu=4", "memory=8Gi"]);
        assert_eq!((offer.price.as_str(), offer.billing.as_str()), ("0.02 EUR/hour per cpu", "spot"));
        assert_eq!(offer.location.len(), 63);
        let plain = KnownClusterOffer::of_flavor("", "K8Slice", &json!({}), &FlavorPrice::default(), "");
        assert_eq!((plain.price.as_str(), plain.billing.as_str()), ("", "reserved"), "no price is not 0");
    }
}
