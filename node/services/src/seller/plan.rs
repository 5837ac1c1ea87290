//! Every choice about instances: a pure function from what is there to what is done.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fluidos_identity::{NodeId, Speakers};
use fluidos_model::kinds::{Allocation, AllocationPhase, Contract, ServiceBlueprint, names};
use fluidos_model::market::Amounts;
use fluidos_model::service::{Recipe, size_of};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use serde_json::{Map, Value};

use crate::Deal;

/// What is looked at.
pub struct View<'a> {
    /// Contracts of services that this node sells, with what the contract says was configured.
    sold: Vec<(Deal, &'a Contract)>,
    blueprints: BTreeMap<String, &'a ServiceBlueprint>,
    /// By contract.
    allocations: BTreeMap<String, &'a Allocation>,
    /// Namespaces of instances, by contract.
    namespaces: BTreeMap<String, &'a Namespace>,
    /// Namespaces in which an endpoint is ready.
    ready: BTreeSet<String>,
}

/// What is to be done.
pub enum Action {
    /// Make what is missing of an instance.
    Make {
        /// For which contract.
        contract: String,
        /// How it is made.
        recipe: Box<Recipe>,
        /// What its buyer has configured.
        configuration: Value,
    },
    /// Take an instance away.
    Remove {
        /// Its namespace.
        namespace: String,
        /// The uid of the namespace that was looked at.
        uid: Option<String>,
    },
    /// Say how an Allocation stands.
    Allocation {
        /// Its name.
        name: String,
        /// How.
        phase: AllocationPhase,
        /// Why, in words.
        message: String,
    },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Make { contract, .. } => write!(f, "make {contract}"),
            Self::Remove { namespace, .. } => write!(f, "remove {namespace}"),
            Self::Allocation { name, phase, message } => write!(f, "{name} is {phase:?}: {message}"),
        }
    }
}

impl<'a> View<'a> {
    /// Returns the view of what the caches show.
    pub fn new(
        (own, speakers): (NodeId, &Speakers),
        contracts: impl Iterator<Item = &'a Contract>,
        blueprints: BTreeMap<String, &'a ServiceBlueprint>,
        allocations: impl Iterator<Item = &'a Allocation>,
        namespaces: impl Iterator<Item = &'a Namespace>,
        slices: impl Iterator<Item = &'a EndpointSlice>,
        now: Timestamp,
    ) -> Self {
        let deals = contracts.filter_map(|contract| Some((Deal::of(contract, speakers, now)?, contract)));
        let of_contract =
            |allocation: &'a Allocation| Some((allocation.labels().get(names::LABEL_CONTRACT)?.clone(), allocation));
        let of_instance =
            |namespace: &'a Namespace| Some((namespace.labels().get(names::LABEL_SERVICE)?.clone(), namespace));
        let is_ready = |slice: &&EndpointSlice| {
            let ready =
                |conditions: &k8s_openapi::api::discovery::v1::EndpointConditions| conditions.ready == Some(true);
            slice.endpoints.iter().any(|endpoint| endpoint.conditions.as_ref().is_some_and(ready))
        };
        Self {
            // What is sold on is made by whom it was bought from.
            sold: deals.filter(|(deal, _)| deal.seller == own && deal.served_by.is_none()).collect(),
            blueprints,
            allocations: allocations.filter_map(of_contract).collect(),
            namespaces: namespaces.filter_map(of_instance).collect(),
            ready: slices.filter(is_ready).filter_map(EndpointSlice::namespace).collect(),
        }
    }
}

/// Decides.
pub fn plan(view: &View) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut live = BTreeSet::new();
    for (deal, contract) in view.sold.iter().filter(|(deal, _)| deal.live) {
        live.insert(deal.contract.clone());
        let namespace = names::service_namespace(&deal.contract);
        let going =
            view.namespaces.get(&deal.contract).is_some_and(|known| known.metadata.deletion_timestamp.is_some());
        let (phase, message) = match recipe(view, contract) {
            // What runs is not changed with its blueprint; what of it is taken away by somebody cannot be made again.
            Err(reason) if !going && view.ready.contains(&namespace) => {
                (AllocationPhase::Active, format!("the service runs in namespace {namespace} as it was made: {reason}"))
            }
            Err(reason) => (AllocationPhase::Error, reason),
            Ok(_) if going => (AllocationPhase::Provisioning, "its namespace is being deleted by somebody".to_owned()),
            Ok((recipe, configuration)) => {
                let (recipe, contract) = (Box::new(recipe), deal.contract.clone());
                actions.push(Action::Make { contract, recipe, configuration });
                if view.ready.contains(&namespace) {
                    (AllocationPhase::Active, format!("the service runs in namespace {namespace}"))
                } else {
                    (AllocationPhase::Provisioning, format!("no endpoint is ready yet in namespace {namespace}"))
                }
            }
        };
        actions.extend(said(view, &deal.contract, phase, message));
    }
    for (contract, namespace) in &view.namespaces {
        if !live.contains(contract) && namespace.metadata.deletion_timestamp.is_none() {
            actions.push(Action::Remove { namespace: namespace.name_any(), uid: namespace.uid() });
        }
    }
    actions
}

/// What is said of an Allocation, if that is news. One that was in use stays so: its endpoints are asked for anyway.
fn said(view: &View, contract: &str, phase: AllocationPhase, message: String) -> Option<Action> {
    let allocation = view.allocations.get(contract)?;
    let status = allocation.status.clone().unwrap_or_default();
    let worse = status.status == AllocationPhase::Active && phase == AllocationPhase::Provisioning;
    if worse || (status.status, status.message.as_str()) == (phase, message.as_str()) {
        return None;
    }
    Some(Action::Allocation { name: allocation.name_any(), phase, message })
}

/// How the instance of a contract is made, or why it cannot be.
fn recipe(view: &View, contract: &Contract) -> Result<(Recipe, Value), String> {
    let service = contract.spec.flavor.spec.service()?;
    let name = &service.blueprint;
    let blueprint =
        view.blueprints.get(name).ok_or_else(|| format!("ServiceBlueprint {name} is not there any more"))?;
    let recipe = Recipe::of(name, &blueprint.spec).map_err(|error| format!("ServiceBlueprint {name}: {error}"))?;
    let configuration = match &contract.spec.configuration {
        Some(configuration) => configuration.service()?.configuration_data,
        None => Value::Object(Map::new()),
    };
    let (needed, observed) = (signed_size(contract)?, recipe.plan.amounts.clone());
    if let Some(needed) = needed.filter(|needed| *needed != observed) {
        return Err(format!(
            "ServiceBlueprint {name} has changed: it takes {observed}, needed {needed} as both have signed"
        ));
    }
    recipe.check(&configuration).map_err(|reason| format!("ServiceBlueprint {name} has changed: {reason}"))?;
    Ok((recipe, configuration))
}

/// How large the instance is, as both have signed; contracts of older versions do not say it.
fn signed_size(contract: &Contract) -> Result<Option<Amounts>, String> {
    let Some(signed) = &contract.spec.signed_terms else { return Ok(None) };
    let bytes = URL_SAFE_NO_PAD.decode(&signed.payload).map_err(|error| format!("its signed terms: {error}"))?;
    let terms: Value = serde_json::from_slice(&bytes).map_err(|error| format!("its signed terms: {error}"))?;
    terms.pointer("/configuration/size").map(size_of).transpose()
}
