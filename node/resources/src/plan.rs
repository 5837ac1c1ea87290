//! Every choice of the Local Resource Manager: a pure function from what is there to what is to be written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use fluidos_identity::NodeId;
use fluidos_ledger::StandingError;
use fluidos_model::kinds::{
    Flavor, FlavorPrice, FlavorSpec, FlavorType, FlavorTypeData, Gpu, K8Slice, K8SliceCharacteristics, K8SlicePolicies,
    Offer, OfferStatus, PLAN_PROPERTY, QuantityText, ServiceBlueprint, ServiceBlueprintStatus, extended_texts, names,
};
use fluidos_model::market::{Amounts, Extended, Partitionability, Plan, Pool, Resource, Sharing, sale};
use fluidos_model::service::{RECIPES_MAX, Recipe};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::ResourceExt as _;

use crate::Options;

/// A flavor may be cut as finely as pods ask: a thousandth of a CPU, a mebibyte, one pod, one device.
const PARTITION: Partitionability = Partitionability {
    least: Amounts { cpu_milli: 0, memory_bytes: 0, pods: 0, storage_bytes: 0, extended: Extended::NONE },
    step: Amounts { cpu_milli: 1, memory_bytes: 1 << 20, pods: 1, storage_bytes: 0, extended: Extended::NONE },
};
/// Where a flavor says which handlers a RuntimeClass may name.
const HANDLERS_PROPERTY: &str = "runtime-handlers";
/// Plans of one node that are sold: a buyer looks at 64 flavors of a seller, and one of them is cut as it is wanted.
const PLANS_MAX: usize = 63;
/// So much of the key is in the flavor's name: 128 bits, which nobody else has.
const NAME_BYTES: usize = 16;

/// What is looked at.
pub struct View<'a> {
    /// What the owner said.
    pub options: &'a Options,
    /// What is promised, once acquisition has opened its books.
    pub pool: Option<Result<&'a Pool, &'a StandingError>>,
    /// The rules of the sharing policies by name; `None` is one that is not accepted.
    pub policies: &'a [Option<Sharing>],
    /// The packages, by name.
    pub offers: Vec<&'a Offer>,
    /// Services, by name.
    pub blueprints: Vec<&'a ServiceBlueprint>,
    /// The handlers of RuntimeClasses that the machine of guests has, sorted.
    pub handlers: Vec<String>,
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
    /// Say whether an offer is understood.
    Judge {
        /// Its name.
        name: String,
        /// The version it was looked at.
        version: Option<String>,
        /// What is said.
        status: OfferStatus,
    },
    /// Say whether a blueprint is sold.
    JudgeService {
        /// Its name.
        name: String,
        /// The version it was looked at.
        version: Option<String>,
        /// What is said.
        status: ServiceBlueprintStatus,
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
            Self::JudgeService { name, .. } => write!(f, "judge service {name}"),
            Self::Judge { name, .. } => write!(f, "judge {name}"),
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
    let (plans, judged) = understood(view);
    actions.extend(judged);
    let (recipes, judged) = services(view);
    actions.extend(judged);
    // Without an offer there is none; without books nobody knows what is promised, and what was said stays until they are open.
    let sold = view.options.offer.is_some();
    let mut names: Vec<String> = sold.then(|| flavor_name(view.options)).into_iter().collect();
    names.extend(plans.iter().filter(|_| sold).map(|plan| plan_name(view.options, plan)));
    names.extend(recipes.iter().filter(|_| sold).map(|recipe| service_name(view.options, recipe)));
    let own = view.flavors.iter().filter(|flavor| is_own(flavor, view.options));
    let old = own.filter_map(|flavor| flavor.metadata.name.clone()).filter(|name| !names.contains(name));
    actions.extend(old.map(|name| Action::Withdraw { name }));
    for (name, mut spec) in wanted(view, &plans, &recipes, now) {
        let Some(known) = view.flavors.iter().find(|flavor| flavor.metadata.name.as_ref() == Some(&name)) else {
            actions.push(Action::Offer { name, spec: Box::new(spec) });
            continue;
        };
        keep_what_others_say(&mut spec, &known.spec);
        if spec != known.spec {
            let version = known.metadata.resource_version.clone();
            actions.push(Action::Change { name, version, spec: Box::new(spec) });
        }
    }
    actions
}

/// The plans that are sold, and what is said of their offers where that is not what stands there.
fn understood(view: &View) -> (Vec<Plan>, Vec<Action>) {
    let (mut sold, mut actions) = (Vec::new(), Vec::new());
    for offer in &view.offers {
        let name = offer.metadata.name.clone().unwrap_or_default();
        let mut status = OfferStatus::default();
        match offer.spec.plans(&name) {
            Err(error) => status.message = error.to_string(),
            Ok(plans) => match problem(view, &plans, sold.len()) {
                Some(problem) => status.message = problem,
                None => {
                    status.accepted = true;
                    status.flavors = plans.iter().map(|plan| plan_name(view.options, plan)).collect();
                    sold.extend(plans);
                }
            },
        }
        if offer.status.as_ref() != Some(&status) {
            actions.push(Action::Judge { name, version: offer.metadata.resource_version.clone(), status });
        }
    }
    (sold, actions)
}

/// The services that are sold, and what is said of their blueprints where that is not what stands there.
fn services(view: &View) -> (Vec<Recipe>, Vec<Action>) {
    let (mut sold, mut actions) = (Vec::new(), Vec::new());
    for blueprint in &view.blueprints {
        let name = blueprint.metadata.name.clone().unwrap_or_default();
        let mut status = ServiceBlueprintStatus::default();
        match Recipe::of(&name, &blueprint.spec) {
            Err(error) => status.message = error.to_string(),
            Ok(_) if sold.len() >= RECIPES_MAX => {
                status.message = format!("{RECIPES_MAX} services are sold by other blueprints, which is the most");
            }
            Ok(recipe) => match unknown_policy(view, &recipe.plan) {
                Some(problem) => status.message = problem,
                None => {
                    status.accepted = true;
                    status.service_flavors = vec![service_name(view.options, &recipe)];
                    sold.push(recipe);
                }
            },
        }
        if blueprint.status.as_ref() != Some(&status) {
            actions.push(Action::JudgeService { name, version: blueprint.metadata.resource_version.clone(), status });
        }
    }
    (sold, actions)
}

/// Returns the name of the flavor of a service.
fn service_name(options: &Options, recipe: &Recipe) -> String {
    names::service_flavor(&options.identity.domain, &options.node.tag(), &recipe.plan.name)
}

/// The flavor of a service, which is available while there is room for one instance more.
fn of_service(view: &View, recipe: &Recipe, pool: Option<&Pool>, now: Timestamp) -> FlavorSpec {
    let sale = pool.and_then(|pool| recipe.plan.sale(view.policies, pool, None, now).ok());
    let price = sale.as_ref().map(|sale| sale.price.of(&recipe.plan.amounts)).and_then(Result::ok);
    let mut service = recipe.flavor.clone();
    service.policies.conditions = sale.as_ref().and_then(|sale| sale.conditions.text());
    FlavorSpec {
        provider_id: view.options.identity.node_id.clone(),
        flavor_type: FlavorTypeData {
            type_identifier: FlavorType::Service,
            type_data: serde_json::to_value(service).unwrap_or_default(), // texts and a schema always have a form
        },
        owner: view.options.identity.clone(),
        price: price.as_ref().map(FlavorPrice::from).unwrap_or_default(),
        availability: sale.is_some_and(|sale| !sale.free.is_zero()),
        network_property_type: String::new(),
        location: Some(view.options.location.clone().into()),
    }
}

/// Why plans that can be read are not sold.
fn problem(view: &View, plans: &[Plan], before: usize) -> Option<String> {
    if before + plans.len() > PLANS_MAX {
        return Some(format!("{before} plans are sold by other offers, needed at most {PLANS_MAX} with these"));
    }
    unknown_policy(view, plans.first()?)
}

/// Why a plan is not sold by the policy that it names.
fn unknown_policy(view: &View, plan: &Plan) -> Option<String> {
    let policy = plan.policy.as_ref()?;
    // One that is not accepted has no name here; then nothing is sold at all, and it says so itself.
    let known = view.policies.iter().any(|known| known.as_ref().is_none_or(|known| known.name == *policy));
    (!known).then(|| format!("sharingPolicy {policy}: there is none of this name"))
}

/// Returns the name of the flavor of a plan.
fn plan_name(options: &Options, plan: &Plan) -> String {
    names::plan_flavor(&options.identity.domain, &options.node.tag(), &plan.offer, &plan.name)
}

/// Returns the name of this node's flavor: the same for the same key and domain.
pub fn flavor_name(options: &Options) -> String {
    let hex: String = options.node.public_key().iter().take(NAME_BYTES).map(|byte| format!("{byte:02x}")).collect();
    names::flavor(&options.identity.domain, "k8slice", &hex)
}

fn is_own(flavor: &Flavor, options: &Options) -> bool {
    let did = flavor.spec.owner.additional_information.as_ref().and_then(|more| more.did.as_ref());
    // Those of a key that this node had before are its own, too.
    let id = did.and_then(|did| did.parse::<NodeId>().ok());
    id.is_some_and(|id| options.speakers.current(&id) == options.node)
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

/// The flavors as they should be, by name; none if nothing is offered or the books are not open.
fn wanted(view: &View, plans: &[Plan], recipes: &[Recipe], now: Timestamp) -> Vec<(String, FlavorSpec)> {
    let (Some(offer), Some(pool)) = (view.options.offer.clone(), view.pool) else { return Vec::new() };
    let pool = pool.inspect_err(|error| {
        // It sells nothing until it is mended.
        tracing::warn!(%error, "ledger cannot be read: nothing is offered");
    });
    let pool = pool.ok();
    let slice = match pool {
        Some(pool) => cut_as_wanted(view, &offer, pool, now),
        None => spec(view.options, &Amounts::default(), &PARTITION, FlavorPrice::default(), false),
    };
    let plans = plans.iter().map(|plan| (plan_name(view.options, plan), of_plan(view, plan, pool, now)));
    let services = recipes.iter();
    let services = services.map(|of| (service_name(view.options, of), of_service(view, of, pool, now)));
    std::iter::once((flavor_name(view.options), slice)).chain(plans).chain(services).collect()
}

/// The flavor of a plan: its size, whatever else is free.
fn of_plan(view: &View, plan: &Plan, pool: Option<&Pool>, now: Timestamp) -> FlavorSpec {
    // What it says to somebody who has proven no key, as below.
    let sale = pool.and_then(|pool| plan.sale(view.policies, pool, None, now).ok());
    let price = sale.as_ref().map(|sale| &sale.price).or(plan.price.as_ref());
    let price = price.map(FlavorPrice::from).unwrap_or_default();
    let available = sale.as_ref().is_some_and(|sale| !sale.free.is_zero());
    let mut spec = spec(view.options, &plan.amounts, &plan.whole(), price, available);
    with_handlers(&mut spec, view);
    let data = &mut spec.flavor_type.type_data;
    data["properties"]["additionalProperties"][PLAN_PROPERTY] = plan.reference().into();
    if let Some(conditions) = sale.and_then(|sale| sale.conditions.text()) {
        data["policies"]["conditions"] = conditions;
    }
    spec
}

/// The flavor of all that is free, of which a buyer has cut what it wants.
fn cut_as_wanted(view: &View, offer: &Amounts, pool: &Pool, now: Timestamp) -> FlavorSpec {
    // What it says to somebody who has proven no key. Whom the policies name is told its own terms when it asks.
    let (free, blocks, price, conditions) = match sale(view.policies, pool, None, now) {
        Ok(sale) => {
            (sale.free, sale.blocks.unwrap_or(PARTITION), FlavorPrice::from(&sale.price), sale.conditions.text())
        }
        Err(_) => (pool.free(now), PARTITION, FlavorPrice::default(), None),
    };
    let mut offered = offer.resources().filter(|resource| offer.get(resource) != 0);
    let available = !offer.is_zero() && offered.all(|resource| is_had(&resource, &free));
    let mut spec = spec(view.options, &free, &blocks, price, available);
    with_handlers(&mut spec, view);
    if let Some(conditions) = conditions {
        spec.flavor_type.type_data["policies"]["conditions"] = conditions;
    }
    spec
}

/// Whether one can buy what there is: without devices the rest can be had.
fn is_had(resource: &Resource, free: &Amounts) -> bool {
    matches!(resource, Resource::Extended(_)) || free.get(resource) != 0
}

fn spec(
    options: &Options,
    free: &Amounts,
    blocks: &Partitionability,
    price: FlavorPrice,
    availability: bool,
) -> FlavorSpec {
    let text = |resource: Resource| QuantityText(resource.text(free.get(&resource)));
    let optional = |resource: Resource| (free.get(&resource) != 0).then(|| text(resource));
    let slice = K8Slice {
        characteristics: K8SliceCharacteristics {
            architecture: options.architecture.clone(),
            cpu: text(Resource::Cpu),
            memory: text(Resource::Memory),
            pods: text(Resource::Pods),
            gpu: optional(Resource::GPU).map(|cores| Gpu { cores, ..Gpu::default() }),
            storage: optional(Resource::Storage),
            extended: extended_texts(free),
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

/// Says by which handlers pods can be run.
fn with_handlers(spec: &mut FlavorSpec, view: &View) {
    if !view.handlers.is_empty() {
        spec.flavor_type.type_data["properties"]["additionalProperties"][HANDLERS_PROPERTY] =
            view.handlers.clone().into();
    }
}

/// The handlers of the machines that run guests: own ones that are no agents.
pub fn handlers(nodes: &[Arc<Node>]) -> Vec<String> {
    let runs_guests =
        |node: &&Arc<Node>| [names::VIRTUAL_NODE, names::AGENT].iter().all(|label| !node.labels().contains_key(*label));
    let of = |node: &Arc<Node>| node.status.as_ref().and_then(|status| status.runtime_handlers.clone());
    let all = nodes.iter().filter(runs_guests).filter_map(of).flatten().filter_map(|handler| handler.name);
    let all: BTreeSet<String> = all.filter(|name| !name.is_empty()).collect();
    all.into_iter().collect()
}

/// An owner adds properties (carbon, standards) to a flavor with `kubectl patch`: they are not ours to remove. A price stands in a
/// SharingPolicy, and nowhere else: what is sold has one price.
fn keep_what_others_say(spec: &mut FlavorSpec, known: &FlavorSpec) {
    spec.network_property_type = known.network_property_type.clone();
    if spec.flavor_type.type_identifier == FlavorType::Service {
        return; // all of it is the blueprint's
    }
    let more = spec.flavor_type.type_data.pointer("/properties/additionalProperties");
    let ours = [PLAN_PROPERTY, HANDLERS_PROPERTY].map(|name| (name, more.and_then(|more| more.get(name).cloned())));
    if let Some(properties) = known.flavor_type.type_data.get("properties").filter(|properties| properties.is_object())
    {
        spec.flavor_type.type_data["properties"] = properties.clone();
    }
    // Which plan it is and what runs its pods is not theirs to say.
    let Some(properties) = spec.flavor_type.type_data["properties"].as_object_mut() else { return };
    for (name, value) in ours {
        let Some(value) = value else {
            if let Some(more) = properties.get_mut("additionalProperties").and_then(|more| more.as_object_mut()) {
                more.remove(name);
            }
            continue;
        };
        let more = properties.entry("additionalProperties").or_insert_with(|| serde_json::json!({}));
        if !more.is_object() {
            *more = serde_json::json!({});
        }
        more[name] = value;
    }
}
