//! How messages are written (official implementation dialect), and the conversions, explicit in both directions.

use std::collections::BTreeMap;

use fluidos_identity::{Envelope, NodeId};
use jiff::Timestamp;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::dialect::{data_to_wire, normalise};
use super::{
    Configuration, Contract, Flavor, FlavorType, Location, Party, Price, PurchaseRequest, ReserveRequest, Telemetry,
    Transaction,
};

/// A Kubernetes name is at most 253 characters, and so is everything that becomes one.
const ID_LENGTH_MAX: usize = 253;
/// Up to here every whole number has a form of its own among floating-point ones.
const SECONDS_MAX: f64 = 9_007_199_254_740_992.0;
/// Flavors of one answer: 1 MiB of answer has room for about as many.
const FLAVORS_MAX: usize = 4096;

/// A message that can be read from and written to a body.
pub(crate) trait Message: Sized {
    /// Returns the message of a body.
    ///
    /// # Errors
    /// A sentence that says what was observed and needed.
    fn read(body: &[u8]) -> Result<Self, String>;

    /// Returns the body of a message.
    ///
    /// # Errors
    /// A sentence, if the data inside cannot be written as JSON.
    fn write(&self) -> Result<Vec<u8>, String>;
}

pub(super) fn read_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    let value: Value = serde_json::from_slice(body).map_err(|error| format!("not JSON: {error}"))?;
    serde_json::from_value(normalise(value)?).map_err(|error| error.to_string())
}

pub(super) fn write_json(wire: &impl Serialize) -> Result<Vec<u8>, String> {
    serde_json::to_vec(wire).map_err(|error| error.to_string())
}

/// Reads and writes a value by the shape in which it travels.
macro_rules! message {
    ($domain:ty, $wire:ty) => {
        impl $crate::messages::wire::Message for $domain {
            fn read(body: &[u8]) -> Result<Self, String> {
                $crate::messages::wire::read_json::<$wire>(body)?.try_into()
            }

            fn write(&self) -> Result<Vec<u8>, String> {
                $crate::messages::wire::write_json(&<$wire>::from(self))
            }
        }
    };
}

pub(super) use message;

message!(ReserveRequest, ReserveRequestWire);
message!(Transaction, TransactionWire);
message!(PurchaseRequest, PurchaseRequestWire);
message!(Contract, ContractWire);

impl Message for Vec<Flavor> {
    fn read(body: &[u8]) -> Result<Self, String> {
        // official nodes answer 204 with `[]`, others with nothing
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Vec::new());
        }
        let flavors: Option<Vec<FlavorWire>> = read_json(body)?;
        let flavors = flavors.unwrap_or_default();
        if flavors.len() > FLAVORS_MAX {
            return Err(format!("{} flavors, at most {FLAVORS_MAX}", flavors.len()));
        }
        flavors.into_iter().map(Flavor::try_from).collect()
    }

    fn write(&self) -> Result<Vec<u8>, String> {
        write_json(&self.iter().map(FlavorWire::from).collect::<Vec<_>>())
    }
}

/// An envelope on its own: the body of a release.
impl Message for Envelope {
    fn read(body: &[u8]) -> Result<Self, String> {
        read_json(body)
    }

    fn write(&self) -> Result<Vec<u8>, String> {
        write_json(self)
    }
}

#[derive(Serialize, Deserialize, Default)]
struct PartyWire {
    #[serde(rename = "ID", default, deserialize_with = "text")]
    id: String,
    #[serde(rename = "IP", default, deserialize_with = "text")]
    ip: String,
    #[serde(default, deserialize_with = "text")]
    domain: String,
    #[serde(rename = "additionalInformation", default, skip_serializing_if = "Option::is_none")]
    additional: Option<AdditionalWire>,
}

#[derive(Serialize, Deserialize, Default)]
struct AdditionalWire {
    #[serde(rename = "liqoID", default, skip_serializing_if = "Option::is_none")]
    liqo_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    did: Option<NodeId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

impl From<&Party> for PartyWire {
    fn from(party: &Party) -> Self {
        let Party { node_id, address, domain, liqo_id, did, name } = party.clone();
        let any = liqo_id.is_some() || did.is_some() || name.is_some();
        let additional = any.then_some(AdditionalWire { liqo_id, did, name });
        Self { id: node_id, ip: address, domain, additional }
    }
}

impl From<PartyWire> for Party {
    fn from(wire: PartyWire) -> Self {
        let AdditionalWire { liqo_id, did, name } = wire.additional.unwrap_or_default();
        Self { node_id: wire.id, address: wire.ip, domain: wire.domain, liqo_id, did, name }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct FlavorWire {
    #[serde(rename = "flavorID")]
    id: String,
    #[serde(rename = "providerID", default, deserialize_with = "text")]
    provider_id: String,
    #[serde(rename = "type")]
    flavor_type: TypeWire,
    #[serde(rename = "networkPropertyType", default, deserialize_with = "text")]
    network_property_type: String,
    #[serde(default)]
    location: Option<LocationWire>,
    #[serde(default)]
    price: Option<PriceWire>,
    #[serde(default)]
    owner: Option<PartyWire>,
    #[serde(default)]
    availability: bool,
}

#[derive(Serialize, Deserialize)]
struct TypeWire {
    name: String,
    #[serde(default)]
    data: Value,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct LocationWire {
    #[serde(deserialize_with = "text")]
    latitude: String,
    #[serde(deserialize_with = "text")]
    longitude: String,
    /// Carries the country.
    #[serde(deserialize_with = "text")]
    altitude: String,
    #[serde(deserialize_with = "text", skip_serializing)]
    country: String,
    #[serde(deserialize_with = "text")]
    city: String,
    #[serde(rename = "additionalNotes", deserialize_with = "text")]
    additional_notes: String,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
pub(super) struct PriceWire {
    #[serde(deserialize_with = "text")]
    amount: String,
    #[serde(deserialize_with = "text")]
    currency: String,
    #[serde(deserialize_with = "text")]
    period: String,
    #[serde(deserialize_with = "text", skip_serializing_if = "String::is_empty")]
    unit: String,
}

impl From<&Price> for PriceWire {
    fn from(price: &Price) -> Self {
        let Price { amount, currency, period, unit } = price.clone();
        Self { amount, currency, period, unit }
    }
}

impl From<PriceWire> for Price {
    fn from(wire: PriceWire) -> Self {
        let PriceWire { amount, currency, period, unit } = wire;
        Self { amount, currency, period, unit }
    }
}

impl From<&Flavor> for FlavorWire {
    fn from(flavor: &Flavor) -> Self {
        let Location { latitude, longitude, country, city, additional_notes } = flavor.location.clone();
        let location =
            LocationWire { latitude, longitude, altitude: country, country: String::new(), city, additional_notes };
        Self {
            id: flavor.id.clone(),
            provider_id: flavor.provider_id.clone(),
            flavor_type: TypeWire { name: flavor.flavor_type.as_str().into(), data: data_to_wire(&flavor.data) },
            network_property_type: flavor.network_property_type.clone(),
            location: Some(location),
            price: Some((&flavor.price).into()),
            owner: Some((&flavor.owner).into()),
            availability: flavor.availability,
        }
    }
}

impl TryFrom<FlavorWire> for Flavor {
    type Error = String;

    fn try_from(wire: FlavorWire) -> Result<Self, String> {
        let location = wire.location.unwrap_or_default();
        let price = wire.price.unwrap_or_default();
        let country = if location.country.is_empty() { location.altitude } else { location.country };
        Ok(Self {
            id: id("flavorID", wire.id)?,
            provider_id: wire.provider_id,
            flavor_type: flavor_type(&wire.flavor_type.name)?,
            data: wire.flavor_type.data,
            location: Location {
                latitude: location.latitude,
                longitude: location.longitude,
                country,
                city: location.city,
                additional_notes: location.additional_notes,
            },
            price: price.into(),
            owner: wire.owner.unwrap_or_default().into(),
            availability: wire.availability,
            network_property_type: wire.network_property_type,
        })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct ConfigurationWire {
    #[serde(rename = "type")]
    flavor_type: String,
    #[serde(default)]
    data: Value,
}

impl From<&Configuration> for ConfigurationWire {
    fn from(configuration: &Configuration) -> Self {
        Self { flavor_type: configuration.flavor_type.as_str().into(), data: configuration.data.clone() }
    }
}

impl TryFrom<ConfigurationWire> for Configuration {
    type Error = String;

    fn try_from(wire: ConfigurationWire) -> Result<Self, String> {
        Ok(Self { flavor_type: flavor_type(&wire.flavor_type)?, data: wire.data })
    }
}

#[derive(Serialize, Deserialize)]
struct TelemetryWire {
    endpoint: String,
    #[serde(default)]
    intents: Vec<String>,
}

impl From<&Telemetry> for TelemetryWire {
    fn from(telemetry: &Telemetry) -> Self {
        Self { endpoint: telemetry.endpoint.clone(), intents: telemetry.intents.clone() }
    }
}

impl From<TelemetryWire> for Telemetry {
    fn from(wire: TelemetryWire) -> Self {
        Self { endpoint: wire.endpoint, intents: wire.intents }
    }
}

#[derive(Serialize, Deserialize)]
struct ReserveRequestWire {
    #[serde(rename = "flavorID")]
    flavor_id: String,
    #[serde(rename = "buyerID", alias = "buyer")]
    buyer: PartyWire,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    configuration: Option<ConfigurationWire>,
    #[serde(rename = "transactionID", default, skip_serializing_if = "Option::is_none")]
    transaction_id: Option<String>,
    #[serde(rename = "termSeconds", default, skip_serializing_if = "Option::is_none", deserialize_with = "seconds")]
    term_seconds: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<Envelope>,
}

impl From<&ReserveRequest> for ReserveRequestWire {
    fn from(request: &ReserveRequest) -> Self {
        Self {
            flavor_id: request.flavor_id.clone(),
            buyer: (&request.buyer).into(),
            configuration: request.configuration.as_ref().map(Into::into),
            transaction_id: request.transaction_id.clone(),
            term_seconds: request.term_seconds,
            path: request.path.clone(),
        }
    }
}

impl TryFrom<ReserveRequestWire> for ReserveRequest {
    type Error = String;

    fn try_from(wire: ReserveRequestWire) -> Result<Self, String> {
        Ok(Self {
            flavor_id: id("flavorID", wire.flavor_id)?,
            buyer: wire.buyer.into(),
            configuration: wire.configuration.map(Configuration::try_from).transpose()?,
            transaction_id: wire.transaction_id.map(|text| id("transactionID", text)).transpose()?,
            term_seconds: wire.term_seconds,
            path: wire.path,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct TransactionWire {
    #[serde(rename = "transactionID")]
    id: String,
    #[serde(rename = "flavorID")]
    flavor_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    configuration: Option<ConfigurationWire>,
    #[serde(alias = "buyerID", default)]
    buyer: PartyWire,
    #[serde(rename = "clusterID", default, deserialize_with = "text")]
    cluster_id: String,
    #[serde(rename = "expirationTime", default, deserialize_with = "text")]
    expiration: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    terms: Option<Envelope>,
}

impl From<&Transaction> for TransactionWire {
    fn from(transaction: &Transaction) -> Self {
        Self {
            id: transaction.id.clone(),
            flavor_id: transaction.flavor_id.clone(),
            configuration: transaction.configuration.as_ref().map(Into::into),
            buyer: (&transaction.buyer).into(),
            cluster_id: transaction.cluster_id.clone(),
            expiration: transaction.expiration.map(|time| time.to_string()).unwrap_or_default(),
            terms: transaction.terms.clone(),
        }
    }
}

impl TryFrom<TransactionWire> for Transaction {
    type Error = String;

    fn try_from(wire: TransactionWire) -> Result<Self, String> {
        Ok(Self {
            id: id("transactionID", wire.id)?,
            flavor_id: id("flavorID", wire.flavor_id)?,
            configuration: wire.configuration.map(Configuration::try_from).transpose()?,
            buyer: wire.buyer.into(),
            cluster_id: wire.cluster_id,
            expiration: time("expirationTime", &wire.expiration)?,
            terms: wire.terms,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct PurchaseRequestWire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    configuration: Option<ConfigurationWire>,
    #[serde(rename = "liqoCredentials", default, skip_serializing_if = "Option::is_none")]
    credentials: Option<CredentialsWire>,
    #[serde(rename = "ingressTelemetryEndpoint", default, skip_serializing_if = "Option::is_none")]
    telemetry: Option<TelemetryWire>,
    #[serde(rename = "signedTerms", default, skip_serializing_if = "Option::is_none")]
    signed_terms: Option<Envelope>,
}

/// What official sellers of services demand to be there; they do not look at it. Ours is empty.
#[derive(Serialize, Deserialize)]
struct CredentialsWire {
    #[serde(rename = "clusterID", default, deserialize_with = "text")]
    cluster_id: String,
    #[serde(default)]
    kubeconfig: String,
}

impl From<&PurchaseRequest> for PurchaseRequestWire {
    fn from(request: &PurchaseRequest) -> Self {
        let credentials = |cluster_id: String| CredentialsWire { cluster_id, kubeconfig: String::new() };
        Self {
            configuration: request.configuration.as_ref().map(Into::into),
            credentials: request.cluster_id.clone().map(credentials),
            telemetry: request.telemetry.as_ref().map(Into::into),
            signed_terms: request.signed_terms.clone(),
        }
    }
}

impl TryFrom<PurchaseRequestWire> for PurchaseRequest {
    type Error = String;

    fn try_from(wire: PurchaseRequestWire) -> Result<Self, String> {
        Ok(Self {
            configuration: wire.configuration.map(Configuration::try_from).transpose()?,
            signed_terms: wire.signed_terms,
            telemetry: wire.telemetry.map(Into::into),
            cluster_id: wire.credentials.map(|credentials| credentials.cluster_id),
        })
    }
}

#[derive(Serialize, Deserialize)]
struct ContractWire {
    #[serde(rename = "contractID")]
    id: String,
    #[serde(rename = "transactionID", default, deserialize_with = "text")]
    transaction_id: String,
    flavor: FlavorWire,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    configuration: Option<ConfigurationWire>,
    #[serde(rename = "buyerID", alias = "buyer", default)]
    buyer: PartyWire,
    #[serde(rename = "buyerClusterID", default, deserialize_with = "text")]
    buyer_cluster_id: String,
    #[serde(default)]
    seller: PartyWire,
    #[serde(rename = "expirationTime", default, deserialize_with = "text")]
    expiration: String,
    #[serde(rename = "extraInformation", default)]
    extra: Option<BTreeMap<String, String>>,
    #[serde(rename = "networkAuthorizations", default, skip_serializing_if = "Option::is_none")]
    network_requests: Option<String>,
    #[serde(rename = "ingressTelemetryEndpoint", default, skip_serializing_if = "Option::is_none")]
    telemetry: Option<TelemetryWire>,
    #[serde(rename = "signedTerms", default, skip_serializing_if = "Option::is_none")]
    signed_terms: Option<Envelope>,
    /// That they came is all that is kept of them.
    #[serde(rename = "peeringTargetCredentials", default, skip_serializing)]
    credentials: Option<IgnoredAny>,
}

impl From<&Contract> for ContractWire {
    fn from(contract: &Contract) -> Self {
        Self {
            id: contract.id.clone(),
            transaction_id: contract.transaction_id.clone(),
            flavor: (&contract.flavor).into(),
            configuration: contract.configuration.as_ref().map(Into::into),
            buyer: (&contract.buyer).into(),
            buyer_cluster_id: contract.buyer_cluster_id.clone(),
            seller: (&contract.seller).into(),
            expiration: contract.expiration.map(|time| time.to_string()).unwrap_or_default(),
            extra: Some(contract.extra.clone()),
            network_requests: contract.network_requests.clone(),
            telemetry: contract.telemetry.as_ref().map(Into::into),
            signed_terms: contract.signed_terms.clone(),
            credentials: None,
        }
    }
}

impl TryFrom<ContractWire> for Contract {
    type Error = String;

    fn try_from(wire: ContractWire) -> Result<Self, String> {
        Ok(Self {
            id: id("contractID", wire.id)?,
            transaction_id: wire.transaction_id,
            flavor: wire.flavor.try_into()?,
            configuration: wire.configuration.map(Configuration::try_from).transpose()?,
            buyer: wire.buyer.into(),
            buyer_cluster_id: wire.buyer_cluster_id,
            seller: wire.seller.into(),
            expiration: time("expirationTime", &wire.expiration)?,
            extra: wire.extra.unwrap_or_default(),
            network_requests: wire.network_requests,
            telemetry: wire.telemetry.map(Into::into),
            signed_terms: wire.signed_terms,
            credentials_dropped: wire.credentials.is_some(),
        })
    }
}

/// Returns a name that may become the name of an object or part of a path.
pub(crate) fn id(field: &str, text: String) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':');
    if text.is_empty() || text.len() > ID_LENGTH_MAX || !text.bytes().all(allowed) {
        let observed: String = text.chars().take(64).collect();
        return Err(format!(
            "{field} is `{observed}`, needed 1 to {ID_LENGTH_MAX} letters, digits, `-`, `.`, `_`, `:`"
        ));
    }
    Ok(text)
}

pub(super) fn flavor_type(name: &str) -> Result<FlavorType, String> {
    let observed = || name.chars().take(64).collect::<String>();
    FlavorType::from_name(name)
        .ok_or_else(|| format!("type is `{}`, needed k8slice, vm, service or sensor", observed()))
}

/// The zero time of Go and an empty text are no time.
fn time(field: &str, text: &str) -> Result<Option<Timestamp>, String> {
    if text.is_empty() || text.starts_with("0001-01-01") {
        return Ok(None);
    }
    let observed = || text.chars().take(64).collect::<String>();
    text.parse().map(Some).map_err(|_| format!("{field} is `{}`, needed an RFC 3339 time", observed()))
}

/// Reads a whole number of seconds, also where it was written as `60.0`: in JSON that is the same number (JSON Schema §4.2.3).
pub(super) fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(deserializer)? else { return Ok(None) };
    let whole = number.as_f64().filter(|value| value.fract() == 0.0 && (0.0..=SECONDS_MAX).contains(value));
    let needed = || serde::de::Error::custom(format!("observed {number}, needed a whole number of seconds"));
    number.as_u64().or(whole.map(|value| value as u64)).map(Some).ok_or_else(needed)
}

/// Reads a text where others also write a number or `null`.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::Null => Ok(String::new()),
        other => Err(serde::de::Error::custom(format!("observed {other}, needed a text"))),
    }
}
