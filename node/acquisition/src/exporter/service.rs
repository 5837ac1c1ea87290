//! What is decided about services: pure functions beside those of [`super::plan`].

use fluidos_model::kinds::{Configuration, Flavor, FlavorType};
use fluidos_model::market::{Commitment, Sale, TextFilter};
use fluidos_model::service::{Recipe, ServiceSelector, check_configuration};
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

/// Returns the services that pass the filters of a request and can be had now.
pub(super) fn answered(priced: &[(Flavor, Sale)], request: &rear::ResourceRequest) -> rear::ResourceAnswer {
    let asked = rear::Selector { flavor_type: Some(request.flavor_type), filters: request.filters.clone() };
    let Some(wanted) = selector(&asked) else {
        let denial = "services are asked for by category and tags only";
        return rear::ResourceAnswer { denial: Some(denial.into()), ..Default::default() };
    };
    let fitting = priced.iter().filter_map(|(flavor, sale)| {
        let term = super::plan::term(sale, request.term_seconds.map(std::time::Duration::from_secs));
        Some(offer(listed(flavor, sale, &wanted).filter(|flavor| flavor.availability)?, term.as_secs()))
    });
    rear::ResourceAnswer { offers: fitting.collect(), ..Default::default() }
}

/// What is offered of a service: all of it, as its buyer will configure it.
pub(super) fn offer(flavor: rear::Flavor, term_seconds: u64) -> rear::ResourceOffer {
    let configuration = rear::Configuration { flavor_type: rear::FlavorType::Service, data: json!({}) };
    let (fit, price, term_seconds) = (rear::Fit::Exact, flavor.price.clone(), Some(term_seconds));
    rear::ResourceOffer { fit, flavor, configuration, price, term_seconds }
}

/// Returns what a buyer configures, and its digest, if a service takes it that somebody else sells.
pub(super) fn ordered_behind(
    flavor: &Flavor,
    configuration: Option<&rear::Configuration>,
) -> Result<(Configuration, String), Refusal> {
    let (configuration, configured) = read(configuration)?;
    let service = flavor.spec.service().map_err(conflict)?;
    check_configuration(&service.configuration_template, &configured).map_err(conflict)?;
    let digest = digest(&configuration)?;
    Ok((crate::terms::configured(&digest, &configuration.data).map_err(conflict)?, digest))
}

/// Returns the digest of what a buyer configures, if the service takes it. Whoever wrote it is told why not, and has not sent garbage.
pub(super) fn ordered(recipe: &Recipe, configuration: Option<&rear::Configuration>) -> Result<String, Refusal> {
    let (configuration, configured) = read(configuration)?;
    recipe.check(&configured).map_err(conflict)?;
    digest(&configuration)
}

/// The digest of what a buyer says that it configures.
pub(super) fn digest(configuration: &rear::Configuration) -> Result<String, Refusal> {
    rear::configuration_digest(&configuration.data).map_err(|error| conflict(error.to_string()))
}

/// The digest of nothing that is configured.
pub(super) fn nothing() -> Result<String, Refusal> {
    digest(&read(None)?.0)
}

/// What a buyer says, and of it what it configures; who says nothing configures nothing.
fn read(configuration: Option<&rear::Configuration>) -> Result<(rear::Configuration, Value), Refusal> {
    let nothing = || rear::Configuration { flavor_type: rear::FlavorType::Service, data: json!({}) };
    let configuration = configuration.cloned().unwrap_or_else(nothing);
    let read = Configuration {
        flavor_type: convert::flavor_type(configuration.flavor_type),
        data: configuration.data.clone(),
    };
    let configured = read.service().map_err(conflict)?.configuration_data;
    Ok((configuration, if configured.is_null() { json!({}) } else { configured }))
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
    let data = request.configuration.as_ref().map_or(&Value::Null, |configuration| &configuration.data);
    crate::terms::configured(&needed.digest, data).map_err(conflict)
}

fn conflict(reason: String) -> Refusal {
    Refusal::new(RefusalCode::Conflict, reason)
}
