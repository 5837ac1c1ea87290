//! The schema of what a buyer configures: of one's own blueprints, and of what others sell.

use serde_json::{Map, Value, json};

use super::error::BlueprintError;
use super::substitute::is_name;

/// A schema is part of a flavor, of which a message has room for 16 KiB.
const SCHEMA_BYTES_MAX: usize = 8 * 1024;
/// What one buyer configures; it is kept in its contract.
pub const CONFIGURATION_BYTES_MAX: usize = 4 * 1024;

/// The schema of a blueprint that has none: each placeholder is a word.
pub(super) fn derived<'a>(names: impl Iterator<Item = &'a String>) -> Value {
    let names: Vec<&String> = names.collect();
    let word = json!({"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_]{0,62}$"});
    let properties: Map<String, Value> = names.iter().map(|name| ((*name).clone(), word.clone())).collect();
    json!({"type": "object", "properties": properties, "required": names, "additionalProperties": false})
}

pub(super) fn check_schema(schema: &Value) -> Result<(), BlueprintError> {
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

/// Checks what a buyer configures against the schema of a service; `made` are the names of its credentials.
///
/// # Errors
/// A sentence for the buyer: which property, what it is and what is needed.
pub(super) fn check(schema: &Value, made: &[&str], configuration: &Value) -> Result<(), String> {
    let bytes = configuration.to_string().len();
    if bytes > CONFIGURATION_BYTES_MAX {
        return Err(format!("configurationData: {bytes} bytes, needed at most {CONFIGURATION_BYTES_MAX}"));
    }
    let given = configuration.as_object().ok_or("configurationData: needed an object")?;
    // What nobody asks for goes nowhere; a buyer that sends a password should know that it is not used, and not send it.
    let properties = schema.get("properties").and_then(Value::as_object);
    if let Some(unknown) = given.keys().find(|name| !properties.is_some_and(|known| known.contains_key(*name))) {
        let unknown: String = unknown.chars().take(64).collect();
        let why = match made.contains(&unknown.as_str()) {
            true => "it is made at purchase",
            false => "the service has no such property",
        };
        return Err(format!("configurationData.{unknown}: needed none, {why}"));
    }
    let validator = validator(schema)?;
    let first = validator.iter_errors(configuration).next();
    first.map_or(Ok(()), |error| {
        let place = error.instance_path().to_string().replace('/', ".");
        Err(format!("configurationData{place}: {error}").chars().take(256).collect())
    })
}

/// Checks what a buyer configures of a service that somebody else sells, whose schema is as hostile as the buyer's configuration: one that leads
/// from one place of it to another is not followed, because it may lead in a circle.
///
/// # Errors
/// A sentence: what is wrong with the schema, or with what is configured.
pub fn check_configuration(schema: &Value, configuration: &Value) -> Result<(), String> {
    if let Some(reference) = reference(schema) {
        return Err(format!("configurationTemplate: {reference} in the schema of another seller, needed none"));
    }
    check_schema(schema).map_err(|error| error.to_string())?;
    check(schema, &[], configuration)
}

/// The first keyword by which a schema leads elsewhere. A property may have such a name: then it is not sold on, which harms nobody.
fn reference(schema: &Value) -> Option<&str> {
    const LEADS: [&str; 3] = ["$ref", "$dynamicRef", "$recursiveRef"];
    match schema {
        Value::Object(fields) => fields.iter().find_map(|(name, value)| match LEADS.contains(&name.as_str()) {
            true => Some(name.as_str()),
            false => reference(value),
        }),
        Value::Array(items) => items.iter().find_map(reference),
        _ => None,
    }
}
