//! From a ServiceBlueprint to what can be sold of it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::credential::{Credential, credentials};
use super::error::BlueprintError;
use super::manifests::{baseline_of_instance, size, templates};
use super::schema::{check, check_schema, derived};
use super::substitute::{collect, fill};
use crate::kinds::{FlavorSpec, ServiceBlueprintSpec, ServiceConfiguration, ServiceFlavor, ServicePolicies, is_label};
use crate::market::{Plan, Unit};

/// Services of one node: as many as a buyer looks at of one seller, beside its slice and plans.
pub const RECIPES_MAX: usize = 32;
/// Who runs a service. Only at its seller is built.
const PROVIDER: &str = "Provider";

/// A blueprint that is understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// What is said of it in a flavor.
    pub flavor: ServiceFlavor,
    /// What is made for each buyer.
    pub credentials: Vec<Credential>,
    /// The manifests, with placeholders.
    templates: Vec<Value>,
    /// How it is sold: the size of one instance, price, policy.
    pub plan: Plan,
}

impl Recipe {
    /// Returns the recipe of the blueprint of this name.
    ///
    /// What official blueprints do not say follows from their placeholders: `password` is made at purchase, every other one is a property
    /// of the configuration, a text of letters, digits and underscores.
    ///
    /// # Errors
    /// [`BlueprintError`] names what is wrong and what it needs.
    pub fn of(name: &str, spec: &ServiceBlueprintSpec) -> Result<Self, BlueprintError> {
        if !is_label(name) {
            return Err(BlueprintError::Name { observed: name.chars().take(64).collect() });
        }
        if !spec.hosting_policies.iter().any(|policy| policy == PROVIDER) {
            return Err(BlueprintError::Hosting { observed: spec.hosting_policies.iter().take(8).cloned().collect() });
        }
        let (templates, placeholders) = templates(spec)?;
        let credentials = credentials(spec.credentials.as_deref(), &placeholders)?;
        for template in spec.templates.iter().filter(|template| template.service_data["kind"] != "Secret") {
            let mut shown = BTreeSet::new();
            // It has been read before: it has no placeholder within a text.
            let _ = collect(&template.service_data, &mut shown);
            if let Some(credential) = credentials.iter().find(|credential| shown.contains(&credential.name)) {
                let (template, credential) = (template.name.clone(), credential.name.clone());
                return Err(BlueprintError::Exposed { template, credential });
            }
        }
        let is_credential = |name: &str| credentials.iter().any(|credential| credential.name == name);
        let schema = match &spec.configuration_template {
            Some(schema) => schema.clone(),
            None => derived(placeholders.iter().filter(|name| !is_credential(name))),
        };
        check_schema(&schema)?;
        let properties = schema.get("properties").and_then(Value::as_object);
        let is_property = |name: &str| properties.is_some_and(|properties| properties.contains_key(name));
        if let Some(both) = credentials.iter().find(|credential| is_property(&credential.name)) {
            return Err(BlueprintError::Both(both.name.clone()));
        }
        if let Some(unfilled) = placeholders.iter().find(|name| !is_credential(name) && !is_property(name)) {
            return Err(BlueprintError::Unfilled(unfilled.clone()));
        }
        let cut = |text: &str| text.chars().take(1024).collect::<String>();
        let flavor = ServiceFlavor {
            name: cut(&spec.name),
            description: cut(&spec.description),
            category: cut(&spec.category),
            tags: spec.tags.iter().take(32).map(|tag| cut(tag)).collect(),
            hosting_policies: vec![PROVIDER.into()],
            configuration_template: schema,
            policies: ServicePolicies::default(),
            blueprint: name.into(),
        };
        let plan = Plan {
            offer: String::new(),
            name: name.into(),
            description: flavor.description.clone(),
            amounts: size(spec)?,
            price: price(spec)?,
            policy: spec.sharing_policy.clone(),
        };
        Ok(Self { flavor, credentials, templates, plan })
    }

    /// Checks what a buyer configures against the schema, and returns it with what it leaves out.
    ///
    /// # Errors
    /// A sentence for the buyer: which property, what it is and what is needed.
    pub fn check(&self, configuration: &Value) -> Result<(), String> {
        let made: Vec<&str> = self.credentials.iter().map(|credential| credential.name.as_str()).collect();
        check(&self.flavor.configuration_template, &made, configuration)
    }

    /// Returns the manifests of one instance, in the order of the blueprint. `credentials` are texts by name; what the configuration leaves out
    /// is what the schema gives as `default`.
    ///
    /// # Errors
    /// The name of the placeholder for which there is no value, or what its pods would have too much.
    pub fn instance(
        &self,
        configuration: &Value,
        credentials: &BTreeMap<String, String>,
    ) -> Result<Vec<Value>, BlueprintError> {
        let mut values = self.values(configuration);
        values.extend(credentials.iter().map(|(name, text)| (name.clone(), Value::String(text.clone()))));
        let mut manifests = self.templates.clone();
        manifests.iter_mut().for_each(|manifest| fill(manifest, &values));
        let mut needed = BTreeSet::new();
        for template in &self.templates {
            // It was read before: it has no placeholder within a text.
            let _ = collect(template, &mut needed);
        }
        match needed.into_iter().find(|name| !values.contains_key(name)) {
            Some(missing) => Err(BlueprintError::Unfilled(missing)),
            None => {
                for manifest in &manifests {
                    let template = manifest["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                    baseline_of_instance(manifest).map_err(|reason| BlueprintError::Privileged { template, reason })?;
                }
                Ok(manifests)
            }
        }
    }

    /// What a buyer has configured, by name, with the defaults of the schema.
    pub fn values(&self, configuration: &Value) -> BTreeMap<String, Value> {
        let properties = self.flavor.configuration_template.get("properties").and_then(Value::as_object);
        let defaults = properties.into_iter().flatten().filter_map(|(name, schema)| {
            let default = schema.get("default")?;
            Some((name.clone(), default.clone()))
        });
        let given = configuration.as_object().cloned().unwrap_or_default();
        defaults.chain(given).collect()
    }
}

fn price(spec: &ServiceBlueprintSpec) -> Result<Option<crate::market::UnitPrice>, BlueprintError> {
    let Some(price) = &spec.price else { return Ok(None) };
    let price = price.parse().map_err(|error| BlueprintError::Price(error.to_string()))?;
    let price =
        price.ok_or_else(|| BlueprintError::Price("amount is empty, needed a decimal, or no price at all".into()))?;
    if price.unit != Unit::Slice {
        return Err(BlueprintError::Price(format!(
            "unit is {}, needed none: it is of the service",
            price.unit.as_str()
        )));
    }
    Ok(Some(price))
}

impl FlavorSpec {
    /// Returns the service that is offered.
    ///
    /// # Errors
    /// A sentence, if it is of another type or shape.
    pub fn service(&self) -> Result<ServiceFlavor, String> {
        use serde::Deserialize as _;
        if self.flavor_type.type_identifier != crate::kinds::FlavorType::Service {
            return Err(format!("type is {}, needed Service", self.flavor_type.type_identifier.as_str()));
        }
        ServiceFlavor::deserialize(&self.flavor_type.type_data).map_err(|error| format!("Service data: {error}"))
    }
}

impl crate::kinds::Configuration {
    /// Returns what is configured of a service.
    ///
    /// # Errors
    /// A sentence for whoever sent it, if it is of another type or shape, or is to run elsewhere than at the seller.
    pub fn service(&self) -> Result<ServiceConfiguration, String> {
        use serde::Deserialize as _;
        if self.flavor_type != crate::kinds::FlavorType::Service {
            return Err(format!("configuration is of type {}, needed Service", self.flavor_type.as_str()));
        }
        let service =
            ServiceConfiguration::deserialize(&self.data).map_err(|error| format!("configuration: {error}"))?;
        match service.hosting_policy.as_deref() {
            None | Some(PROVIDER) => Ok(service),
            Some(other) => {
                let other: String = other.chars().take(32).collect();
                Err(format!("hostingPolicy is {other}, needed Provider: nothing else is built"))
            }
        }
    }
}
