//! Every choice of the Local Resource Manager: a pure function from what is there to what is to be written.

use std::collections::BTreeMap;
use std::fmt;

use fluidos_model::kinds::{
    Flavor, FlavorPrice, FlavorSpec, FlavorType, FlavorTypeData, Gpu, K8Slice, K8SliceCharacteristics, K8SlicePolicies,
    Ledger, QuantityText, names,
};
use fluidos_model::market::{Amounts, Partitionability, Resource, Sharing, sale};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;

use crate::Options;

/// A flavor may be cut as finely as pods ask: a thousandth of a CPU, a mebibyte, one pod.
const PARTITION: Partitionability = Partitionability {
    least: Amounts { cpu_milli: 0, memory_bytes: 0, pods: 0, storage_bytes: 0, gpus: 0 },
    step: Amounts { cpu_milli: 1, memory_bytes: 1 << 20, pods: 1, storage_bytes: 0, gpus: 1 },
};
/// So much of the key is in the flavor's name: 128 bits, which nobody else has.
const NAME_BYTES: usize = 16;

/// What is looked at.
pub struct View<'a> {
    /// What the owner said.
    pub options: &'a Options,
    /// What is promised, once acquisition has opened its books.
    pub ledger: Option<&'a Ledger>,
    /// The rules of the sharing policies by name; `None` is one that is not accepted.
    pub policies: &'a [Option<Sharing>],
    /// All flavors there are.
    pub flavors: Vec<&'a Flavor>,
    /// Who the node says it is.
    pub identity: Option<&'a ConfigMap>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Write the identity.
    Identify {
        /// Its data.
        data: BTreeMap<String, String>,
    },
    /// Write a flavor that is not there.
    Offer {
        /// Its name.
        name: String,
        /// What it says.
        spec: Box<FlavorSpec>,
    },
    /// Change the flavor.
    Change {
        /// Its name.
        name: String,
        /// The version it was looked at: somebody's change in between is looked at first.
        version: Option<String>,
        /// What it says.
        spec: Box<FlavorSpec>,
    },
    /// Take a flavor back.
    Withdraw {
        /// Its name.
        name: String,
    },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identify { .. } => f.write_str("identify"),
            Self::Offer { name, .. } => write!(f, "offer {name}"),
            Self::Change { name, .. } => write!(f, "change {name}"),
            Self::Withdraw { name } => write!(f, "withdraw {name}"),
        }
    }
}

/// Decides what to write.
pub fn plan(view: &View, now: Timestamp) -> Vec<Action> {
    let mut actions = Vec::new();
    let data = identity(view.options);
    if view.identity.and_then(|map| map.data.as_ref()) != Some(&data) {
        actions.push(Action::Identify { data });
    }
    let name = flavor_name(view.options);
    let wanted = wanted(view, now);
    let own = view.flavors.iter().filter(|flavor| is_own(flavor, view.options));
    let old = own.filter(|flavor| view.options.offer.is_none() || flavor.metadata.name.as_ref() != Some(&name));
    actions.extend(old.filter_map(|flavor| Some(Action::Withdraw { name: flavor.metadata.name.clone()? })));
    let known = view.flavors.iter().find(|flavor| flavor.metadata.name.as_ref() == Some(&name));
    match (wanted, known) {
        (Some(spec), None) => actions.push(Action::Offer { name, spec: Box::new(spec) }),
        (Some(mut spec), Some(known)) => {
            keep_what_others_say(&mut spec, &known.spec);
            if spec != known.spec {
                let version = known.metadata.resource_version.clone();
                actions.push(Action::Change { name, version, spec: Box::new(spec) });
            }
        }
        // Without books nobody knows what is promised: what was said stays until they are open.
        (None, _) => {}
    }
    actions
}

/// Returns the name of this node's flavor: the same for the same key and domain.
pub fn flavor_name(options: &Options) -> String {
    let hex: String = options.node.public_key().iter().take(NAME_BYTES).map(|byte| format!("{byte:02x}")).collect();
    names::flavor(&options.identity.domain, "k8slice", &hex)
}

fn is_own(flavor: &Flavor, options: &Options) -> bool {
    let did = flavor.spec.owner.additional_information.as_ref().and_then(|more| more.did.as_ref());
    did.is_some_and(|did| *did == options.node.to_string())
}

fn identity(options: &Options) -> BTreeMap<String, String> {
    let identity = &options.identity;
    let port = identity.ip.rsplit_once(':').map_or("", |(_, port)| port);
    [
        ("domain", identity.domain.clone()),
        ("nodeID", identity.node_id.clone()),
        ("ip", identity.ip.clone()),
        ("port", port.to_owned()),
        ("did", options.node.to_string()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// The flavor as it should be, or `None` if nothing is offered or the books are not open or cannot be read.
fn wanted(view: &View, now: Timestamp) -> Option<FlavorSpec> {
    let offer = view.options.offer?;
    let pool = match view.ledger?.spec.pool() {
        Ok(pool) => pool,
        // It sells nothing until it is mended.
        Err(error) => {
            tracing::warn!(%error, "ledger cannot be read: nothing is offered");
            return Some(spec(view.options, &Amounts::default(), &PARTITION, FlavorPrice::default(), false));
        }
    };
    // What it says to somebody who has proven no key. Whom the policies name is told its own terms when it asks.
    let (free, blocks, price, conditions) = match sale(view.policies, &pool, None, now) {
        Ok(sale) => {
            (sale.free, sale.blocks.unwrap_or(PARTITION), FlavorPrice::from(&sale.price), sale.conditions.text())
        }
        Err(_) => (pool.free(now), PARTITION, FlavorPrice::default(), None),
    };
    let offered = Resource::ALL.iter().filter(|resource| offer.get(**resource) != 0);
    let available = !offer.is_zero() && offered.into_iter().all(|resource| free.get(*resource) != 0);
    let mut spec = spec(view.options, &free, &blocks, price, available);
    if let Some(conditions) = conditions {
        spec.flavor_type.type_data["policies"]["conditions"] = conditions;
    }
    Some(spec)
}

fn spec(
    options: &Options,
    free: &Amounts,
    blocks: &Partitionability,
    price: FlavorPrice,
    availability: bool,
) -> FlavorSpec {
    let text = |resource: Resource| QuantityText(resource.text(free.get(resource)));
    let optional = |resource: Resource| (free.get(resource) != 0).then(|| text(resource));
    let slice = K8Slice {
        characteristics: K8SliceCharacteristics {
            architecture: options.architecture.clone(),
            cpu: text(Resource::Cpu),
            memory: text(Resource::Memory),
            pods: text(Resource::Pods),
            gpu: optional(Resource::Gpu).map(|cores| Gpu { cores, ..Gpu::default() }),
            storage: optional(Resource::Storage),
        },
        policies: K8SlicePolicies { partitionability: blocks.into(), conditions: None },
        ..K8Slice::default()
    };
    let type_data = serde_json::to_value(slice).unwrap_or_default(); // texts always have a form
    FlavorSpec {
        provider_id: options.identity.node_id.clone(),
        flavor_type: FlavorTypeData { type_identifier: FlavorType::K8Slice, type_data },
        owner: options.identity.clone(),
        price,
        availability,
        network_property_type: String::new(),
        location: Some(options.location.clone().into()),
    }
}

/// An owner adds properties (carbon, standards) to a flavor with `kubectl patch`: they are not ours to remove. A price stands in a
/// SharingPolicy, and nowhere else: what is sold has one price.
fn keep_what_others_say(spec: &mut FlavorSpec, known: &FlavorSpec) {
    spec.network_property_type = known.network_property_type.clone();
    if let Some(properties) = known.flavor_type.type_data.get("properties") {
        spec.flavor_type.type_data["properties"] = properties.clone();
    }
}
