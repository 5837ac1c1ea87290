//! The three dialects of REAR brought to one spelling.
//!
//! Official nodes decode keys in any case and spell some in their own way; the published data models use others again. A
//! body is brought to the spelling of the API before it is read, and the official misspellings are written back on the way
//! out.

use serde_json::{Map, Value};

/// Every key we read, in our spelling. Lower case leads here.
const KEYS: &[&str] = &[
    "flavorID",
    "providerID",
    "type",
    "name",
    "data",
    "networkPropertyType",
    "location",
    "latitude",
    "longitude",
    "altitude",
    "country",
    "city",
    "additionalNotes",
    "price",
    "amount",
    "currency",
    "period",
    "unit",
    "termSeconds",
    "filters",
    "offers",
    "fit",
    "denial",
    "open",
    "owner",
    "ID",
    "IP",
    "domain",
    "additionalInformation",
    "liqoID",
    "did",
    "availability",
    "characteristics",
    "architecture",
    "cpu",
    "memory",
    "pods",
    "gpu",
    "storage",
    "model",
    "cores",
    "properties",
    "latency",
    "securityStandards",
    "networkAuthorizations",
    "additionalProperties",
    "policies",
    "partitionability",
    "cpuMin",
    "memoryMin",
    "podsMin",
    "gpuMin",
    "cpuStep",
    "memoryStep",
    "podsStep",
    "gpuStep",
    "extendedResources",
    "extendedResourcesMin",
    "extendedResourcesStep",
    "buyerID",
    "configuration",
    "transactionID",
    "buyer",
    "clusterID",
    "expirationTime",
    "contractID",
    "flavor",
    "buyerClusterID",
    "seller",
    "extraInformation",
    "ingressTelemetryEndpoint",
    "endpoint",
    "intents",
    "liqoCredentials",
    "signedTerms",
    "purpose",
    "payload",
    "signatures",
    "terms",
    "message",
    "offerID",
    "plans",
    "continue",
    "description",
    "category",
    "tags",
    "hostingPolicies",
    "hostingPolicy",
    "configurationTemplate",
    "configurationData",
];
/// Lower-case keys of other spellings.
const ALIASES: &[(&str, &str)] = &[
    ("charateristics", "characteristics"),
    ("carbonfootprint", "carbon-footprint"),
    ("nodeid", "ID"),
    ("ishostcluster", "isHotCluster"),
    ("gpumodel", "model"),
    ("gpucores", "cores"),
];
/// What is inside belongs to somebody else and keeps its spelling.
const OPAQUE: &[&str] = &[
    "additionalProperties",
    "configurationTemplate",
    "configurationData",
    "extraInformation",
    "extendedResources",
    "extendedResourcesMin",
    "extendedResourcesStep",
];
/// Credentials that official nodes send; dropped before anything could log or keep them.
const SECRET: &[&str] = &["kubeconfig", "token"];
/// Credentials of a seller's cluster: emptied, so that its buyer can be told that they came.
const EMPTIED: &str = "peeringTargetCredentials";

/// Brings the keys of a body to our spelling and drops credentials. The depth is bounded by the parser (128).
///
/// # Errors
/// A sentence, if one key stands there twice with different values: two readers could see two messages.
pub(super) fn normalise(value: Value) -> Result<Value, String> {
    match value {
        Value::Array(items) => items.into_iter().map(normalise).collect::<Result<_, _>>().map(Value::Array),
        Value::Object(fields) => {
            let mut normal = Map::new();
            for (key, value) in fields {
                let lower = key.to_ascii_lowercase();
                if SECRET.contains(&lower.as_str()) {
                    continue;
                }
                if lower == EMPTIED.to_ascii_lowercase() {
                    if !value.is_null() {
                        normal.insert(EMPTIED.to_owned(), Value::Object(Map::new()));
                    }
                    continue;
                }
                let key = spelling(&lower).map_or(key, str::to_owned);
                let value = if OPAQUE.contains(&key.as_str()) { value } else { normalise(value)? };
                let value = if key == "networkAuthorizations" { intents_from_wire(value) } else { value };
                match normal.get(&key) {
                    Some(other) if *other != value => {
                        return Err(format!("`{key}` stands there twice with different values"));
                    }
                    _ => normal.insert(key, value),
                };
            }
            Ok(Value::Object(normal))
        }
        scalar => Ok(scalar),
    }
}

fn spelling(lower: &str) -> Option<&'static str> {
    let alias = ALIASES.iter().find(|(alias, _)| *alias == lower).map(|(_, key)| *key);
    alias.or_else(|| KEYS.iter().copied().find(|key| key.eq_ignore_ascii_case(lower)))
}

/// Network intents have `resourceSelectors` with lists of `{key, value}` on the wire, and `resourceSelector` with maps in the
/// API.
fn intents_from_wire(value: Value) -> Value {
    rename_deep(value, "resourceSelectors", "resourceSelector", &|selector| match selector {
        Value::Array(pairs) => {
            let pair = |pair: &Value| Some((pair["key"].as_str()?.to_owned(), pair["value"].clone()));
            pairs.iter().map(pair).collect::<Option<Map<_, _>>>().map_or(Value::Array(pairs), Value::Object)
        }
        other => other,
    })
}

fn intents_to_wire(value: Value) -> Value {
    rename_deep(value, "resourceSelector", "resourceSelectors", &|selector| match selector {
        Value::Object(labels) => {
            labels.into_iter().map(|(key, value)| serde_json::json!({"key": key, "value": value})).collect()
        }
        other => other,
    })
}

/// Renames a key wherever it stands and changes `selector.pod` and `selector.namespace` below it.
fn rename_deep(value: Value, from: &str, to: &str, labels: &dyn Fn(Value) -> Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(|item| rename_deep(item, from, to, labels)).collect(),
        Value::Object(fields) => {
            let renamed = fields.into_iter().map(|(key, mut value)| {
                if key != from {
                    return (key, rename_deep(value, from, to, labels));
                }
                for name in ["pod", "namespace"] {
                    if let Some(selector) = value.pointer_mut(&format!("/selector/{name}")) {
                        *selector = labels(selector.take());
                    }
                }
                (to.to_owned(), value)
            });
            Value::Object(renamed.collect())
        }
        scalar => scalar,
    }
}

/// Returns the data of a flavor as official nodes read them: their misspelling beside the right word, and
/// `carbonFootprint`.
pub(super) fn data_to_wire(data: &Value) -> Value {
    let mut wire = data.clone();
    if let Some(fields) = wire.as_object_mut() {
        if let Some(characteristics) = fields.get("characteristics").cloned() {
            fields.insert("charateristics".into(), characteristics);
        }
        if let Some(properties) = fields.get_mut("properties").and_then(Value::as_object_mut) {
            if let Some(carbon) = properties.remove("carbon-footprint") {
                properties.insert("carbonFootprint".into(), carbon);
            }
            if let Some(intents) = properties.get_mut("networkAuthorizations") {
                *intents = intents_to_wire(intents.take());
            }
        }
    }
    wire
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use serde_json::json;

    use super::*;

    #[test]
    fn every_dialect_becomes_one() {
        let observed = normalise(json!({
            "FlavorId": "f", "NodeID": "n", "CHARATERISTICS": {"CPU": "1"}, "additionalProperties": {"TEE": true, "CPU": 1},
            "properties": {"carbonFootprint": 1}, "unknownKey": {"podsmin": 1}
        }))
        .unwrap();
        let needed = json!({
            "flavorID": "f", "ID": "n", "characteristics": {"cpu": "1"}, "additionalProperties": {"TEE": true, "CPU": 1},
            "properties": {"carbon-footprint": 1}, "unknownKey": {"podsMin": 1}
        });
        assert_eq!(observed, needed);
    }

    #[test]
    fn a_key_twice_is_refused_unless_both_say_the_same() {
        assert!(normalise(json!({"cpu": 1, "CPU": 2})).is_err());
        let both = json!({"charateristics": {"cpu": 1}, "characteristics": {"cpu": 1}});
        assert_eq!(normalise(both).unwrap(), json!({"characteristics": {"cpu": 1}}));
    }

    #[test]
    fn credentials_are_dropped() {
        let observed = normalise(json!({"liqoCredentials": {"clusterID": "c", "Kubeconfig": "secret"},
            "peeringTargetCredentials": {"kubeconfig": "secret"}, "additionalInformation": {"liqoID": "l", "kubeconfig": "secret"}}));
        assert!(!observed.unwrap().to_string().contains("secret"));
    }

    #[test]
    fn data_are_written_as_official_nodes_read_them() {
        let selector =
            json!({"typeIdentifier": "PodNamespaceSelector", "selector": {"pod": {"app": "x"}, "namespace": {}}});
        let intents = json!({"deniedCommunications": [{"name": "n", "source": {"isHotCluster": true, "resourceSelector": selector}}]});
        let properties = json!({"carbon-footprint": 1, "networkAuthorizations": intents});
        let data = json!({"characteristics": {"cpu": "1"}, "properties": properties});
        let wire = data_to_wire(&data);
        assert_eq!(wire["charateristics"], wire["characteristics"]);
        assert_eq!(wire["properties"]["carbonFootprint"], 1);
        let source = &wire["properties"]["networkAuthorizations"]["deniedCommunications"][0]["source"];
        assert_eq!(source["resourceSelectors"]["selector"]["pod"], json!([{"key": "app", "value": "x"}]));
        assert_eq!(normalise(wire).unwrap(), data);
    }
}
