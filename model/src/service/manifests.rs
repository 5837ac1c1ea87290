//! The manifests of a blueprint: which kinds there may be, where their placeholders are, how large one instance is.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::PodSpec;
use serde::Deserialize as _;
use serde_json::Value;
use substrate_pod_security::{Level, check};

use super::error::BlueprintError;
use super::substitute::{collect, is_placeholder};
use crate::kinds::{ServiceBlueprintSpec, is_label};
use crate::market::{Amounts, ExtendedResource, Quantity, Resource};

/// Manifests of one service.
pub(super) const TEMPLATES_MAX: usize = 32;
/// All manifests of one service: an object holds 1.5 MiB, and each becomes one.
const TEMPLATES_BYTES_MAX: usize = 256 * 1024;
/// Kinds that an instance may consist of: what runs and what it needs, all of them inside its namespace.
const KINDS: [(&str, &str); 6] = [
    ("v1", "Secret"),
    ("v1", "ConfigMap"),
    ("v1", "Service"),
    ("v1", "Pod"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "ReplicaSet"),
];

/// The manifests, and the names of all their placeholders.
pub(super) fn templates(spec: &ServiceBlueprintSpec) -> Result<(Vec<Value>, BTreeSet<String>), BlueprintError> {
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
        baseline(data).map_err(|reason| BlueprintError::Privileged { template: template.name.clone(), reason })?;
        manifests.push(data.clone());
    }
    if endpoints != 1 {
        return Err(BlueprintError::Endpoint { observed: endpoints });
    }
    Ok((manifests, placeholders))
}

/// The size of one instance: what all its pods ask for.
pub(super) fn size(spec: &ServiceBlueprintSpec) -> Result<Amounts, BlueprintError> {
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
            for resource in sold(container) {
                let name = resource.kubernetes_name();
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
                one.set(&resource, one.get(&resource).saturating_add(resource.asked(amount)));
            }
        }
        let all = one.map(|amount| amount.saturating_mul(replicas));
        sum = sum.checked_add(&all).ok_or_else(|| failed("it asks for more than can be counted".into()))?;
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

/// What a container is sold by: CPU and memory always, and the extended resources that it asks for.
fn sold(container: &Value) -> BTreeSet<Resource> {
    let stated = ["requests", "limits"].iter().filter_map(|of| container["resources"][*of].as_object()).flatten();
    let extended = stated.filter_map(|(name, _)| ExtendedResource::parse(name).ok().map(Resource::Extended));
    extended.chain([Resource::Cpu, Resource::Memory]).collect()
}

/// The spec of the pods that a manifest makes; `None` makes none.
fn pods(manifest: &Value) -> Option<&Value> {
    match manifest["kind"].as_str() {
        Some("Pod") => manifest.get("spec"),
        Some("Deployment" | "ReplicaSet") => manifest.pointer("/spec/template/spec"),
        _ => None,
    }
}

/// Says whether the pods of a manifest may be an instance's: those of a service are confined as guests are, and a buyer that has taken one over
/// shall not have the machine. Of a blueprint what its buyer fills in is looked at as if it were not there, and again when an instance is made.
///
/// # Errors
/// What they have too much, in the words of PodSecurity.
pub(super) fn baseline(manifest: &Value) -> Result<(), String> {
    let Some(spec) = pods(manifest) else { return Ok(()) };
    let mut plain = spec.clone();
    blank(&mut plain);
    // One with a placeholder where a name must be is read as it is; one that cannot be read at all is refused when it is made.
    let read = PodSpec::deserialize(&plain).or_else(|_| PodSpec::deserialize(spec));
    read.map_or(Ok(()), |spec| check(Level::Baseline, "latest", &spec))
}

/// The same of a manifest in which everything is filled in.
///
/// # Errors
/// What they have too much, or why that cannot be said.
pub(super) fn baseline_of_instance(manifest: &Value) -> Result<(), String> {
    let Some(spec) = pods(manifest) else { return Ok(()) };
    let spec = PodSpec::deserialize(spec).map_err(|error| format!("its pod cannot be read: {error}"))?;
    check(Level::Baseline, "latest", &spec)
}

/// Takes placeholders out.
fn blank(value: &mut Value) {
    match value {
        Value::String(text) if is_placeholder(text) => *value = Value::Null,
        Value::Array(items) => items.iter_mut().for_each(blank),
        Value::Object(fields) => fields.values_mut().for_each(blank),
        _ => {}
    }
}
