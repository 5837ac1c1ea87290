//! From a ServiceBlueprint to what can be sold of it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::substitute::{collect, fill, is_name};
use crate::kinds::{
    BlueprintCredential, FlavorSpec, ServiceBlueprintSpec, ServiceConfiguration, ServiceFlavor, ServicePolicies,
    is_label,
};
use crate::market::{Amounts, Plan, Quantity, Resource, TextFilter, Unit};

/// Services of one node: as many as a buyer looks at of one seller, beside its slice and plans.
pub const RECIPES_MAX: usize = 32;
/// Manifests of one service.
const TEMPLATES_MAX: usize = 32;
/// All manifests of one service: an object holds 1.5 MiB, and each becomes one.
const TEMPLATES_BYTES_MAX: usize = 256 * 1024;
/// A schema is part of a flavor, of which a message has room for 16 KiB.
const SCHEMA_BYTES_MAX: usize = 8 * 1024;
/// What one buyer configures; it is kept in its contract.
pub const CONFIGURATION_BYTES_MAX: usize = 4 * 1024;
/// A password and a few more.
const CREDENTIALS_MAX: usize = 8;
/// Letters and digits of a credential, of which each has log2(62) = 5.95 bits: 24 are 142 bits, 22 are the least for 128.
const CREDENTIAL_LENGTH: usize = 24;
const CREDENTIAL_LENGTHS: std::ops::RangeInclusive<usize> = 22..=128;
/// Kinds that an instance may consist of: what runs and what it needs, all of them inside its namespace.
const KINDS: [(&str, &str); 6] = [
    ("v1", "Secret"),
    ("v1", "ConfigMap"),
    ("v1", "Service"),
    ("v1", "Pod"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "ReplicaSet"),
];
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

/// A secret text that is made for one buyer: letters and digits by chance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Its name: of a placeholder, and in the Secret of the buyer.
    pub name: String,
    /// How many letters and digits, of 5.95 bits each.
    pub length: usize,
}

/// Why a credential is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CredentialError {
    /// Too few.
    #[error("credentials: {observed}, needed at most {CREDENTIALS_MAX}")]
    Count {
        /// How many.
        observed: usize,
    },
    /// No name.
    #[error("credentials: name {observed:?}, needed a letter, then letters, digits and underscores, once")]
    Name {
        /// What it says.
        observed: String,
    },
    /// Too short to be secret.
    #[error("credential {name}: length {observed}, needed {} to {} (22 are 128 bits)", CREDENTIAL_LENGTHS.start(), CREDENTIAL_LENGTHS.end())]
    Length {
        /// Which.
        name: String,
        /// What it says.
        observed: usize,
    },
}

/// Why a blueprint is not accepted. Its owner must correct it; nothing of it is sold until then.
#[derive(Debug, thiserror::Error)]
pub enum BlueprintError {
    /// A name that cannot be part of a flavor's.
    #[error("metadata.name is {observed:?}, needed 1 to 63 lower-case letters, digits and dashes")]
    Name {
        /// What it is.
        observed: String,
    },
    /// It runs elsewhere.
    #[error("hostingPolicies are {observed:?}, needed Provider among them: nothing else is built")]
    Hosting {
        /// What it says.
        observed: Vec<String>,
    },
    /// No or too many manifests.
    #[error("templates: {observed}, needed 1 to {TEMPLATES_MAX}")]
    Templates {
        /// How many.
        observed: usize,
    },
    /// Manifests that are too large.
    #[error("{what}: {observed} bytes, needed at most {most}")]
    Bytes {
        /// Which part.
        what: &'static str,
        /// How many.
        observed: usize,
        /// How many there may be.
        most: usize,
    },
    /// A manifest of another kind, or none.
    #[error(
        "template {template}: {observed}, needed one of Secret, ConfigMap, Service, Pod (v1), Deployment, ReplicaSet (apps/v1), with a metadata.name and no namespace"
    )]
    Kind {
        /// Which.
        template: String,
        /// What it is.
        observed: String,
    },
    /// A placeholder within a text.
    #[error("template {template}: a placeholder within {observed:?}, needed as a whole value: {{{{ .name }}}}")]
    Placeholder {
        /// Which.
        template: String,
        /// The text.
        observed: String,
    },
    /// Nobody could reach it.
    #[error("templates: {observed} Services labelled nodecore.fluidos.eu/flavor-service-endpoint, needed 1")]
    Endpoint {
        /// How many.
        observed: usize,
    },
    /// Its size cannot be counted.
    #[error("template {template}: {reason}")]
    Size {
        /// Which.
        template: String,
        /// What is wrong and what was needed.
        reason: String,
    },
    /// A credential where it can be read by whoever reads the object.
    #[error("template {template}: credential {credential}, needed in a Secret only: let its pods take it from there")]
    Exposed {
        /// Which.
        template: String,
        /// Which credential.
        credential: String,
    },
    /// Its credentials.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// Its schema is none.
    #[error("configurationTemplate: {0}")]
    Schema(String),
    /// A placeholder that nothing fills.
    #[error("placeholder {0}: neither a property of configurationTemplate nor a credential")]
    Unfilled(String),
    /// A property that is a credential.
    #[error("{0}: a property of configurationTemplate and a credential, needed one of both")]
    Both(String),
    /// Its price.
    #[error("price: {0}")]
    Price(String),
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
        let bytes = configuration.to_string().len();
        if bytes > CONFIGURATION_BYTES_MAX {
            return Err(format!("configurationData: {bytes} bytes, needed at most {CONFIGURATION_BYTES_MAX}"));
        }
        let given = configuration.as_object().ok_or("configurationData: needed an object")?;
        // What nobody asks for goes nowhere; a buyer that sends a password should know that it is not used, and not send it.
        let properties = self.flavor.configuration_template.get("properties").and_then(Value::as_object);
        if let Some(unknown) = given.keys().find(|name| !properties.is_some_and(|known| known.contains_key(*name))) {
            let unknown: String = unknown.chars().take(64).collect();
            let made = self.credentials.iter().any(|credential| credential.name == unknown);
            let why = if made { "it is made at purchase" } else { "the service has no such property" };
            return Err(format!("configurationData.{unknown}: needed none, {why}"));
        }
        let validator = validator(&self.flavor.configuration_template)?;
        let first = validator.iter_errors(configuration).next();
        first.map_or(Ok(()), |error| {
            let place = error.instance_path().to_string().replace('/', ".");
            Err(format!("configurationData{place}: {error}").chars().take(256).collect())
        })
    }

    /// Returns the manifests of one instance, in the order of the blueprint. `credentials` are texts by name; what the configuration leaves out
    /// is what the schema gives as `default`.
    ///
    /// # Errors
    /// The name of the placeholder for which there is no value.
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
            None => Ok(manifests),
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

/// What a buyer of a service asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceSelector {
    /// `categoryFilter`.
    pub category: Option<TextFilter>,
    /// `tagsFilter`: any of its tags.
    pub tags: Option<TextFilter>,
}

impl ServiceSelector {
    /// Says whether a service is what is asked for, or what it lacks.
    ///
    /// # Errors
    /// What was offered and what was needed.
    pub fn admits(&self, service: &ServiceFlavor) -> Result<(), String> {
        if let Some(filter) = self.category.as_ref().filter(|filter| !filter.accepts(&service.category)) {
            return Err(format!("category: {} offered, needed {filter}", service.category));
        }
        match &self.tags {
            Some(filter) if !service.tags.iter().any(|tag| filter.accepts(tag)) => {
                Err(format!("tags: {} offered, needed {filter}", service.tags.join(", ")))
            }
            _ => Ok(()),
        }
    }
}

/// The manifests, and the names of all their placeholders.
fn templates(spec: &ServiceBlueprintSpec) -> Result<(Vec<Value>, BTreeSet<String>), BlueprintError> {
    if spec.templates.is_empty() || spec.templates.len() > TEMPLATES_MAX {
        return Err(BlueprintError::Templates { observed: spec.templates.len() });
    }
    let bytes = spec.templates.iter().map(|template| template.service_data.to_string().len()).sum();
    if bytes > TEMPLATES_BYTES_MAX {
        return Err(BlueprintError::Bytes { what: "templates", observed: bytes, most: TEMPLATES_BYTES_MAX });
    }
    let (mut manifests, mut placeholders, mut endpoints) = (Vec::new(), BTreeSet::new(), 0);
    for template in &spec.templates {
        let (name, data) = (template.name.clone(), &template.service_data);
        let text = |pointer: &str| data.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (version, kind, called) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
        if !KINDS.contains(&(version, kind)) || !is_label(called) || data.pointer("/metadata/namespace").is_some() {
            let observed: String = format!("{version} {kind} {called:?}").chars().take(128).collect();
            return Err(BlueprintError::Kind { template: name, observed });
        }
        collect(data, &mut placeholders)
            .map_err(|observed| BlueprintError::Placeholder { template: name, observed })?;
        let label = data.pointer("/metadata/labels/nodecore.fluidos.eu~1flavor-service-endpoint");
        endpoints += usize::from(kind == "Service" && label.is_some_and(|label| label == "true"));
        manifests.push(data.clone());
    }
    if endpoints != 1 {
        return Err(BlueprintError::Endpoint { observed: endpoints });
    }
    Ok((manifests, placeholders))
}

/// What is made for each buyer: what the blueprint says, or a password if it has a placeholder for one.
fn credentials(
    said: Option<&[BlueprintCredential]>,
    placeholders: &BTreeSet<String>,
) -> Result<Vec<Credential>, CredentialError> {
    let Some(said) = said else {
        let password = placeholders.get("password").cloned();
        return Ok(password.map(|name| Credential { name, length: CREDENTIAL_LENGTH }).into_iter().collect());
    };
    if said.len() > CREDENTIALS_MAX {
        return Err(CredentialError::Count { observed: said.len() });
    }
    let mut credentials: Vec<Credential> = Vec::new();
    for credential in said {
        let name = credential.name.clone();
        if !is_name(&name) || credentials.iter().any(|earlier| earlier.name == name) {
            return Err(CredentialError::Name { observed: name.chars().take(64).collect() });
        }
        let length =
            credential.length.map_or(CREDENTIAL_LENGTH, |length| usize::try_from(length).unwrap_or(usize::MAX));
        if !CREDENTIAL_LENGTHS.contains(&length) {
            return Err(CredentialError::Length { name, observed: length });
        }
        credentials.push(Credential { name, length });
    }
    Ok(credentials)
}

/// The schema of a blueprint that has none: each placeholder is a word.
fn derived<'a>(names: impl Iterator<Item = &'a String>) -> Value {
    let names: Vec<&String> = names.collect();
    let word = json!({"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_]{0,62}$"});
    let properties: Map<String, Value> = names.iter().map(|name| ((*name).clone(), word.clone())).collect();
    json!({"type": "object", "properties": properties, "required": names, "additionalProperties": false})
}

fn check_schema(schema: &Value) -> Result<(), BlueprintError> {
    let bytes = schema.to_string().len();
    if bytes > SCHEMA_BYTES_MAX {
        return Err(BlueprintError::Bytes { what: "configurationTemplate", observed: bytes, most: SCHEMA_BYTES_MAX });
    }
    if schema.get("type").and_then(Value::as_str) != Some("object") {
        return Err(BlueprintError::Schema("type is not object, needed an object".into()));
    }
    if let Some(name) =
        schema.get("properties").and_then(Value::as_object).and_then(|all| all.keys().find(|name| !is_name(name)))
    {
        return Err(BlueprintError::Schema(format!(
            "property {name:?}, needed a letter, then letters, digits and underscores"
        )));
    }
    validator(schema).map(|_| ()).map_err(BlueprintError::Schema)
}

/// Nothing is fetched: a reference leads inside the schema only. Patterns run in linear time, whatever text a buyer sends.
fn validator(schema: &Value) -> Result<jsonschema::Validator, String> {
    let options = jsonschema::options().with_pattern_options(jsonschema::PatternOptions::regex());
    options.build(schema).map_err(|error| format!("it is no JSON Schema: {error}").chars().take(256).collect())
}

/// The size of one instance: what all its pods ask for.
fn size(spec: &ServiceBlueprintSpec) -> Result<Amounts, BlueprintError> {
    let mut sum = Amounts::default();
    for template in &spec.templates {
        let data = &template.service_data;
        let failed = |reason: String| BlueprintError::Size { template: template.name.clone(), reason };
        let (pod, replicas) = match data["kind"].as_str() {
            Some("Pod") => (&data["spec"], 1),
            Some("Deployment" | "ReplicaSet") => {
                let replicas = data.pointer("/spec/replicas").map_or(Some(1), Value::as_u64);
                let replicas = replicas.filter(|replicas| (1..=64).contains(replicas));
                (
                    &data["spec"]["template"]["spec"],
                    replicas.ok_or_else(|| failed("spec.replicas: needed 1 to 64".into()))?,
                )
            }
            _ => continue,
        };
        let containers = pod["containers"].as_array().filter(|containers| !containers.is_empty());
        let containers = containers.ok_or_else(|| failed("needed containers".into()))?;
        let mut one = Amounts { pods: 1, ..Amounts::default() };
        for container in containers {
            for (name, resource) in [("cpu", Resource::Cpu), ("memory", Resource::Memory)] {
                let stated = ["requests", "limits"].iter().find_map(|of| container["resources"][*of].get(name));
                let name_of = container["name"].as_str().unwrap_or("?");
                let needed =
                    || failed(format!("container {name_of}: needed resources.requests.{name}, which is what is sold"));
                let text = match stated.ok_or_else(needed)? {
                    Value::String(text) => text.clone(),
                    Value::Number(number) => number.to_string(),
                    _ => return Err(needed()),
                };
                let amount =
                    Quantity::parse(&text).map_err(|error| failed(format!("container {name_of}: {name}: {error}")))?;
                one.set(resource, one.get(resource).saturating_add(resource.asked(amount)));
            }
        }
        for resource in Resource::ALL {
            sum.set(resource, sum.get(resource).saturating_add(one.get(resource).saturating_mul(replicas)));
        }
    }
    if sum.pods == 0 {
        let template = spec.templates.first().map(|template| template.name.clone()).unwrap_or_default();
        return Err(BlueprintError::Size {
            template,
            reason: "nothing of the service runs, needed a Pod, Deployment or ReplicaSet".into(),
        });
    }
    Ok(sum)
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
