//! Flavor: what is offered. And the shape of a K8Slice, with its conversion into an exact offer.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::extended::{self, ExtendedError, ExtendedTexts, extended_texts};
use super::shared::raw_object;
use super::{Configuration, EmbeddedMeta, FlavorType, NodeIdentity, QuantityText};
use crate::market::{
    Amounts, Features, Location, Offer, Partitionability, Price, PriceError, Quantity, QuantityError, Resource, Unit,
    UnitPrice,
};

/// The additional property of a flavor that is a plan: its name, `OFFER/PLAN`.
pub const PLAN_PROPERTY: &str = "plan";

/// What is offered, by whom, where, for what price.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[kube(
    group = "nodecore.fluidos.eu",
    version = "v1alpha1",
    kind = "Flavor",
    plural = "flavors",
    shortname = "fl",
    namespaced,
    status = "FlavorStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Provider ID","type":"string","jsonPath":".spec.providerID"}"#,
    printcolumn = r#"{"name":"Type","type":"string","jsonPath":".spec.flavorType.typeIdentifier"}"#,
    printcolumn = r#"{"name":"Owner Name","type":"string","priority":1,"jsonPath":".spec.owner.domain"}"#,
    printcolumn = r#"{"name":"Available","type":"boolean","jsonPath":".spec.availability"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Kubernetes Node Owner","type":"string","jsonPath":".metadata.ownerReferences[0].name"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct FlavorSpec {
    /// The node that offers it.
    #[serde(rename = "providerID")]
    pub provider_id: String,
    /// What it is.
    pub flavor_type: FlavorTypeData,
    /// Whose it is.
    pub owner: NodeIdentity,
    /// For what price.
    pub price: FlavorPrice,
    /// Whether it can be bought now.
    pub availability: bool,
    /// Free text of official nodes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub network_property_type: String,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<FlavorLocation>,
}

/// When it was offered. Times are RFC 3339.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct FlavorStatus {
    /// Until when.
    pub expiration_time: String,
    /// Since when.
    pub creation_time: String,
    /// Last change.
    pub last_update_time: String,
}

/// A type with its data.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct FlavorTypeData {
    /// Which type.
    pub type_identifier: FlavorType,
    /// The type's own fields; a [`K8Slice`] for the type K8Slice.
    #[schemars(schema_with = "raw_object")]
    pub type_data: Value,
}

/// A price. Three texts, empty with official nodes: then it is not stated, which is not 0.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(default)]
pub struct FlavorPrice {
    /// How much: a decimal.
    pub amount: String,
    /// Of what: a code of ISO 4217.
    pub currency: String,
    /// For how long: `second`, `minute`, `hour`, `day`, `month`.
    pub period: String,
    /// For one of what (ours): `cpu`, `gib` of memory, `pod`, `gpu`, an extended resource; absent is for what is bought, whatever its size.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub unit: String,
}

impl FlavorPrice {
    /// Returns the price as it was stated, such as `0.02 EUR/hour per cpu`; `None` if it is not, or cannot be read.
    pub fn shown(&self) -> Option<String> {
        let stated = self.parse().ok()??;
        match stated.unit.as_str() {
            "" => Some(stated.price.to_string()),
            unit => Some(format!("{} per {unit}", stated.price)),
        }
    }

    /// Returns the price, or `None` if it is not stated.
    ///
    /// # Errors
    /// [`PriceError`] if the texts are no price: nobody buys at it.
    pub fn parse(&self) -> Result<Option<UnitPrice>, PriceError> {
        let price = Price::parse(&self.amount, &self.currency, &self.period)?;
        price.map(|price| Ok(UnitPrice { price, unit: Unit::parse(&self.unit)? })).transpose()
    }
}

impl From<&Price> for FlavorPrice {
    fn from(price: &Price) -> Self {
        let [amount, currency, period] = price.texts();
        Self { amount, currency, period, unit: String::new() }
    }
}

impl From<&UnitPrice> for FlavorPrice {
    fn from(price: &UnitPrice) -> Self {
        Self { unit: price.unit.as_str().into(), ..Self::from(&price.price) }
    }
}

/// A place, as texts.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct FlavorLocation {
    /// Degrees north.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub latitude: String,
    /// Degrees east.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub longitude: String,
    /// Country.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub country: String,
    /// City.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub city: String,
    /// Anything else.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub additional_notes: String,
}

/// A flavor that stands inside another object.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct EmbeddedFlavor {
    /// Its name and namespace at its owner.
    #[serde(default)]
    pub metadata: EmbeddedMeta,
    /// What is offered.
    pub spec: FlavorSpec,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<FlavorStatus>,
}

/// `typeData` of a K8Slice.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
pub struct K8Slice {
    /// How much there is. REAR spells it without one r; both are read.
    #[serde(alias = "charateristics")]
    pub characteristics: K8SliceCharacteristics,
    /// What is special about it.
    #[serde(default)]
    pub properties: K8SliceProperties,
    /// How it may be cut.
    #[serde(default)]
    pub policies: K8SlicePolicies,
}

/// How much there is.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(default)]
pub struct K8SliceCharacteristics {
    /// `amd64`, `arm64`.
    pub architecture: String,
    /// CPU.
    pub cpu: QuantityText,
    /// Memory.
    pub memory: QuantityText,
    /// Pods.
    pub pods: QuantityText,
    /// GPU, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpu>,
    /// Ephemeral storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<QuantityText>,
    /// Extended resources by their names (ours), GPUs of `gpu` not among them.
    #[serde(rename = "extendedResources", skip_serializing_if = "ExtendedTexts::is_empty")]
    pub extended: ExtendedTexts,
}

/// GPUs: as many of `nvidia.com/gpu` as it has cores.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(default)]
pub struct Gpu {
    /// Its model.
    pub model: String,
    /// How many.
    pub cores: QuantityText,
    /// Its memory.
    pub memory: QuantityText,
}

/// What is special about a slice.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct K8SliceProperties {
    /// Milliseconds, as its owner says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Value>,
    /// Standards it says it meets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub security_standards: Vec<String>,
    /// Grams of CO2; `carbonFootprint` in REAR.
    #[serde(rename = "carbon-footprint", alias = "carbonFootprint", skip_serializing_if = "Option::is_none")]
    pub carbon_footprint: Option<Value>,
    /// What may talk to what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_authorizations: Option<Value>,
    /// Anything else.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub additional_properties: BTreeMap<String, Value>,
}

/// How a slice may be used.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(default)]
pub struct K8SlicePolicies {
    /// How it may be cut.
    pub partitionability: K8SlicePartitionability,
    /// How it is sold beyond its price (ours): what both sign, in the words of [`crate::market::Conditions`]; absent are the usual ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Value>,
}

/// How a slice may be cut.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the least and the step of each resource
pub struct K8SlicePartitionability {
    pub cpu_min: QuantityText,
    pub memory_min: QuantityText,
    pub pods_min: QuantityText,
    pub gpu_min: QuantityText,
    pub cpu_step: QuantityText,
    pub memory_step: QuantityText,
    pub pods_step: QuantityText,
    pub gpu_step: QuantityText,
    // Of extended resources (ours).
    #[serde(skip_serializing_if = "ExtendedTexts::is_empty")]
    pub extended_resources_min: ExtendedTexts,
    #[serde(skip_serializing_if = "ExtendedTexts::is_empty")]
    pub extended_resources_step: ExtendedTexts,
}

/// `configuration.data` of a K8Slice: what exactly is bought.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(default)]
pub struct K8SliceConfiguration {
    /// CPU.
    pub cpu: QuantityText,
    /// Memory.
    pub memory: QuantityText,
    /// Pods.
    pub pods: QuantityText,
    /// GPU, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpu>,
    /// Ephemeral storage, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<QuantityText>,
    /// Extended resources by their names (ours), GPUs of `gpu` not among them.
    #[serde(rename = "extendedResources", skip_serializing_if = "ExtendedTexts::is_empty")]
    pub extended: ExtendedTexts,
}

/// Why a flavor or a configuration is not a K8Slice that can be counted.
#[derive(Debug, thiserror::Error)]
pub enum FlavorError {
    /// It is of another type.
    #[error("type is {}, needed K8Slice; {} is not built", observed.as_str(), observed.as_str())]
    OtherType {
        /// Its type.
        observed: FlavorType,
    },
    /// Its data have another shape.
    #[error("K8Slice data: {0}")]
    Shape(#[from] serde_json::Error),
    /// One of its amounts is not a quantity.
    #[error("K8Slice {field}: {source}")]
    Quantity {
        /// Which.
        field: &'static str,
        /// What is wrong.
        source: QuantityError,
    },
    /// Its extended resources cannot be read.
    #[error("K8Slice {field}: {source}")]
    Extended {
        /// Where.
        field: &'static str,
        /// What is wrong.
        source: ExtendedError,
    },
}

impl FlavorSpec {
    /// Returns the slice that is offered.
    ///
    /// # Errors
    /// [`FlavorError`] if it is of another type or shape.
    pub fn k8slice(&self) -> Result<K8Slice, FlavorError> {
        match self.flavor_type.type_identifier {
            FlavorType::K8Slice => Ok(K8Slice::deserialize(&self.flavor_type.type_data)?),
            observed => Err(FlavorError::OtherType { observed }),
        }
    }

    /// Returns the offer in exact amounts, under the flavor's name.
    ///
    /// # Errors
    /// [`FlavorError`] if it is of another type or shape, or an amount is not a quantity.
    pub fn offer(&self, flavor: &str) -> Result<Offer, FlavorError> {
        self.k8slice()?.offer(flavor, self.location.clone())
    }
}

impl K8Slice {
    /// Returns the offer in exact amounts, under the flavor's name.
    ///
    /// # Errors
    /// [`FlavorError::Quantity`] names the amount that is none.
    pub fn offer(&self, flavor: &str, location: Option<FlavorLocation>) -> Result<Offer, FlavorError> {
        Ok(Offer {
            flavor: flavor.into(),
            architecture: self.characteristics.architecture.clone(),
            whole: self.characteristics.amounts()?,
            partition: self.policies.partitionability.rules()?,
            location: location.unwrap_or_default().into(),
            plan: self.properties.plan().to_owned(),
            features: self.properties.features(),
        })
    }
}

impl K8SliceProperties {
    /// What is special about it: its TEE, hardware and standards.
    pub fn features(&self) -> Features {
        let more = |key: &str| self.additional_properties.get(key);
        Features::of(more("TEE"), more("additional-hardware"), &self.security_standards)
    }

    /// The plan that a flavor is, `OFFER/PLAN`; empty if it is none.
    pub fn plan(&self) -> &str {
        self.additional_properties.get(PLAN_PROPERTY).and_then(Value::as_str).unwrap_or_default()
    }
}

impl K8SliceCharacteristics {
    /// Returns what is offered, rests dropped.
    ///
    /// # Errors
    /// [`FlavorError::Quantity`] names the amount that is none.
    pub fn amounts(&self) -> Result<Amounts, FlavorError> {
        let gpus = self.gpu.as_ref().map(|gpu| &gpu.cores);
        let mut amounts = Amounts::default();
        for (resource, field, text) in fields(&self.cpu, &self.memory, &self.pods, self.storage.as_ref(), gpus) {
            amounts.set(&resource, resource.offered(parse(field, text)?));
        }
        read_extended("extendedResources", &self.extended, &mut amounts, Resource::offered)?;
        Ok(amounts)
    }
}

impl K8SlicePartitionability {
    /// Returns the rules in exact amounts.
    ///
    /// # Errors
    /// [`FlavorError::Quantity`] names the amount that is none.
    pub fn rules(&self) -> Result<Partitionability, FlavorError> {
        let amounts = |cpu, memory, pods, gpu, extended| -> Result<Amounts, FlavorError> {
            let mut amounts = Amounts::default();
            for (resource, _, text) in fields(cpu, memory, pods, None, Some(gpu)) {
                amounts.set(&resource, resource.asked(parse("partitionability", text)?));
            }
            read_extended("partitionability", extended, &mut amounts, Resource::asked)?;
            Ok(amounts)
        };
        Ok(Partitionability {
            least: amounts(
                &self.cpu_min,
                &self.memory_min,
                &self.pods_min,
                &self.gpu_min,
                &self.extended_resources_min,
            )?,
            step: amounts(
                &self.cpu_step,
                &self.memory_step,
                &self.pods_step,
                &self.gpu_step,
                &self.extended_resources_step,
            )?,
        })
    }
}

impl From<&Partitionability> for K8SlicePartitionability {
    fn from(rules: &Partitionability) -> Self {
        let text = |amounts: &Amounts, resource: Resource| QuantityText(resource.text(amounts.get(&resource)));
        Self {
            cpu_min: text(&rules.least, Resource::Cpu),
            memory_min: text(&rules.least, Resource::Memory),
            pods_min: text(&rules.least, Resource::Pods),
            gpu_min: text(&rules.least, Resource::GPU),
            cpu_step: text(&rules.step, Resource::Cpu),
            memory_step: text(&rules.step, Resource::Memory),
            pods_step: text(&rules.step, Resource::Pods),
            gpu_step: text(&rules.step, Resource::GPU),
            extended_resources_min: extended_texts(&rules.least),
            extended_resources_step: extended_texts(&rules.step),
        }
    }
}

impl From<&Amounts> for K8SliceConfiguration {
    fn from(amounts: &Amounts) -> Self {
        let text = |resource: Resource| QuantityText(resource.text(amounts.get(&resource)));
        let gpu = || Gpu { cores: text(Resource::GPU), ..Gpu::default() };
        Self {
            cpu: text(Resource::Cpu),
            memory: text(Resource::Memory),
            pods: text(Resource::Pods),
            gpu: (amounts.get(&Resource::GPU) != 0).then(gpu),
            storage: (amounts.storage_bytes != 0).then(|| text(Resource::Storage)),
            extended: extended_texts(amounts),
        }
    }
}

impl K8SliceConfiguration {
    /// Returns what is asked for, rests rounded up.
    ///
    /// # Errors
    /// [`FlavorError::Quantity`] names the amount that is none.
    pub fn amounts(&self) -> Result<Amounts, FlavorError> {
        let gpus = self.gpu.as_ref().map(|gpu| &gpu.cores);
        let mut amounts = Amounts::default();
        for (resource, field, text) in fields(&self.cpu, &self.memory, &self.pods, self.storage.as_ref(), gpus) {
            amounts.set(&resource, resource.asked(parse(field, text)?));
        }
        read_extended("extendedResources", &self.extended, &mut amounts, Resource::asked)?;
        Ok(amounts)
    }
}

impl Configuration {
    /// Returns the configuration that buys these amounts of a K8Slice.
    ///
    /// # Errors
    /// [`FlavorError::Shape`] in theory only.
    pub fn k8slice(amounts: &Amounts) -> Result<Self, FlavorError> {
        let data = serde_json::to_value(K8SliceConfiguration::from(amounts))?;
        Ok(Self { flavor_type: FlavorType::K8Slice, data })
    }

    /// Returns the amounts of a K8Slice that are asked for.
    ///
    /// # Errors
    /// [`FlavorError`] if it is of another type or shape, or an amount is not a quantity.
    pub fn amounts(&self) -> Result<Amounts, FlavorError> {
        match self.flavor_type {
            FlavorType::K8Slice => K8SliceConfiguration::deserialize(&self.data)?.amounts(),
            observed => Err(FlavorError::OtherType { observed }),
        }
    }
}

impl From<FlavorLocation> for Location {
    fn from(location: FlavorLocation) -> Self {
        let FlavorLocation { latitude, longitude, country, city, additional_notes } = location;
        Self { latitude, longitude, country, city, additional_notes }
    }
}

impl From<Location> for FlavorLocation {
    fn from(location: Location) -> Self {
        let Location { latitude, longitude, country, city, additional_notes } = location;
        Self { latitude, longitude, country, city, additional_notes }
    }
}

fn fields<'a>(
    cpu: &'a QuantityText,
    memory: &'a QuantityText,
    pods: &'a QuantityText,
    storage: Option<&'a QuantityText>,
    gpus: Option<&'a QuantityText>,
) -> impl Iterator<Item = (Resource, &'static str, &'a QuantityText)> {
    let always = [(Resource::Cpu, "cpu", cpu), (Resource::Memory, "memory", memory), (Resource::Pods, "pods", pods)];
    let storage = storage.map(|text| (Resource::Storage, "storage", text));
    always.into_iter().chain(storage).chain(gpus.map(|text| (Resource::GPU, "gpu", text)))
}

fn read_extended(
    field: &'static str,
    texts: &ExtendedTexts,
    amounts: &mut Amounts,
    amount: fn(&Resource, Quantity) -> u64,
) -> Result<(), FlavorError> {
    extended::read(texts, amounts, amount).map_err(|source| FlavorError::Extended { field, source })
}

fn parse(field: &'static str, text: &QuantityText) -> Result<Quantity, FlavorError> {
    text.parse().map_err(|source| FlavorError::Quantity { field, source })
}
