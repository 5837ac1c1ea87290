//! What is decided about services: pure functions beside those of [`super::plan`].

use fluidos_model::kinds::{Configuration, Flavor, FlavorType};
use fluidos_model::market::{Commitment, Sale, TextFilter};
use fluidos_model::service::{Recipe, ServiceSelector};
use fluidos_rear as rear;
use fluidos_rear::{Refusal, RefusalCode};
use serde_json::{Value, json};

use super::plan::for_sale;
use crate::convert;

/// Returns the filters of a list request that is about services, or `None` if it is about something else.
pub(super) fn selector(asked: &rear::Selector) -> Option<ServiceSelector> {
    if asked.flavor_type.is_some_and(|wanted| wanted != rear::FlavorType::Service) {
        return None;
    }
    let mut wanted = ServiceSelector::default();
    for filter in &asked.filters {
        match filter {
            rear::SelectorFilter::Match { name, value } if name == "category" => {
                wanted.category = Some(TextFilter::Match(value.clone()));
            }
            rear::SelectorFilter::Match { name, value } if name == "tags" => {
                wanted.tags = Some(TextFilter::Match(value.clone()));
            }
            _ => return None,
        }
    }
    Some(wanted)
}

/// Says whether a flavor is of a service.
pub(super) fn is_service(flavor: &Flavor) -> bool {
    flavor.spec.flavor_type.type_identifier == FlavorType::Service
}

/// Says whether a flavor is sold as it is or not at all.
pub(super) fn is_fixed(flavor: &Flavor) -> bool {
    is_service(flavor) || flavor.spec.k8slice().is_ok_and(|slice| !slice.properties.plan().is_empty())
}

/// Returns a service if it passes the filters.
pub(super) fn listed(flavor: &Flavor, sale: &Sale, wanted: &ServiceSelector) -> Option<rear::Flavor> {
    let service = flavor.spec.service().ok()?;
    wanted.admits(&service).ok()?;
    Some(convert::wire_flavor(flavor.metadata.name.as_deref()?, &for_sale(flavor, sale).spec))
}

/// Returns the digest of what a buyer configures, if the service takes it. Whoever wrote it is told why not, and has not sent garbage.
pub(super) fn ordered(recipe: &Recipe, configuration: Option<&rear::Configuration>) -> Result<String, Refusal> {
    let nothing = rear::Configuration { flavor_type: rear::FlavorType::Service, data: json!({}) };
    let configuration = configuration.unwrap_or(&nothing);
    let read = Configuration {
        flavor_type: convert::flavor_type(configuration.flavor_type),
        data: configuration.data.clone(),
    };
    let mut configured = read.service().map_err(conflict)?.configuration_data;
    if configured.is_null() {
        configured = json!({});
    }
    recipe.check(&configured).map_err(conflict)?;
    rear::configuration_digest(&configuration.data).map_err(|error| conflict(error.to_string()))
}

/// Returns what exactly is bought: what the terms say, and of a service what has the digest that they say.
pub(super) fn configured(
    commitment: &Commitment,
    terms: &rear::ContractTerms,
    request: &rear::PurchaseRequest,
) -> Result<Configuration, Refusal> {
    let Some(needed) = commitment.agreed.as_ref().and_then(|agreed| agreed.service.as_ref()) else {
        return Ok(Configuration { flavor_type: FlavorType::K8Slice, data: terms.configuration.clone() });
    };
    let data = request.configuration.as_ref().map_or(Value::Null, |configuration| configuration.data.clone());
    let observed = rear::configuration_digest(&data).map_err(|error| conflict(error.to_string()))?;
    if observed != *needed {
        return Err(conflict(format!("the configuration has the digest {observed}, needed {needed} as in the terms")));
    }
    // Nothing but what was checked and signed is kept.
    let configured = data.get("configurationData").filter(|data| !data.is_null()).cloned().unwrap_or_else(|| json!({}));
    let data = json!({"hostingPolicy": "Provider", "configurationData": configured});
    Ok(Configuration { flavor_type: FlavorType::Service, data })
}

fn conflict(reason: String) -> Refusal {
    Refusal::new(RefusalCode::Conflict, reason)
}
