//! What a Solver asks for: a slice, or a service with what is configured of it.

use fluidos_model::kinds::{Configuration, FlavorType, Solver};
use fluidos_model::market::K8SliceSelector;
use fluidos_model::service::ServiceSelector;
use serde_json::json;

/// See the module.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    Slice(K8SliceSelector),
    Service(ServiceSelector, Configuration),
}

impl Wanted {
    /// Returns what a Solver asks for, or why it cannot be worked on.
    pub fn of(solver: &Solver) -> Result<Self, String> {
        let selector = solver.spec.selector.as_ref().ok_or("selector is absent, needed one with a flavorType")?;
        match (selector.flavor_type, &solver.spec.configuration) {
            (FlavorType::K8Slice, None) => {
                K8SliceSelector::from_json(&selector.filters).map(Self::Slice).map_err(|error| error.to_string())
            }
            (FlavorType::K8Slice, Some(_)) => {
                Err("configuration: needed none, what is bought of a K8Slice follows from its filters".into())
            }
            (FlavorType::Service, configuration) => {
                let nothing =
                    || Configuration { flavor_type: FlavorType::Service, data: json!({"configurationData": {}}) };
                let configuration = configuration.clone().unwrap_or_else(nothing);
                configuration.service()?;
                Ok(Self::Service(ServiceSelector::from_json(&selector.filters)?, configuration))
            }
            (other, _) => Err(format!("{} is not bought: only K8Slice and Service are built", other.as_str())),
        }
    }
}
