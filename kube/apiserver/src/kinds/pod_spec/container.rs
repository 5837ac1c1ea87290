//! What is refused of one container.

use serde_json::{Value, json};
use substrate_client::quantity::Quantity;

use super::volume;
use crate::kinds::rules::{self, Check, Rule, check, not_found, unique};
use crate::kinds::validate::{Errors, NameRule, is_qualified_name};
use crate::status::FieldError;

const ID: Check = Check::Range(0, i32::MAX as i64);
const NONNEGATIVE: Check = Check::Range(0, i64::MAX);
const HANDLERS: &[&str] = &["exec", "httpGet", "tcpSocket", "grpc"];
const HOOKS: &[&str] = &["exec", "httpGet", "tcpSocket", "sleep"];
const HANDLER: Option<&str> = Some("must specify a handler type");
const ONE_HANDLER: &str = "may not specify more than 1 handler type";
const SUBDOMAIN: Check = Check::Name(NameRule::Subdomain);

/// One container, below itself.
const RULES: &[Rule] = &[
    Rule("image", Check::Required("")),
    Rule("image", Check::Says(rules::trimmed)),
    Rule("imagePullPolicy", Check::OneOf(&["Always", "IfNotPresent", "Never"])),
    Rule("terminationMessagePolicy", Check::Says(message_policy)),
    Rule("ports[].containerPort", Check::NeedsPort),
    Rule("ports[].hostPort", Check::Port),
    Rule("ports[].name", Check::PortOrName),
    Rule("ports[].protocol", Check::OneOf(&["SCTP", "TCP", "UDP"])),
    Rule("env[].name", Check::Required("")),
    Rule("env[].name", Check::Says(rules::variable)),
    Rule("env[].valueFrom.configMapKeyRef|secretKeyRef.name", SUBDOMAIN),
    Rule("env[].valueFrom.configMapKeyRef|secretKeyRef.key", Check::Required("")),
    Rule("env[].valueFrom.resourceFieldRef.resource", Check::Required("")),
    Rule("envFrom[].prefix", Check::Says(rules::variable)),
    Rule("envFrom[].configMapRef|secretRef.name", SUBDOMAIN),
    Rule("volumeMounts[].mountPath", Check::Required("")),
    Rule("volumeMounts[-].subPath|subPathExpr", Check::Says(rules::descending)),
    Rule("volumeMounts[].mountPropagation", Check::OneOf(&["None", "HostToContainer", "Bidirectional"])),
    Rule("livenessProbe|readinessProbe|startupProbe", Check::OneMember(HANDLERS, HANDLER, ONE_HANDLER)),
    Rule("livenessProbe|readinessProbe|startupProbe.exec.command", Check::Required("")),
    Rule("livenessProbe|readinessProbe|startupProbe.httpGet.path", Check::Required("")),
    Rule("livenessProbe|readinessProbe|startupProbe.httpGet.scheme", Check::OneOf(&["HTTP", "HTTPS"])),
    Rule("livenessProbe|readinessProbe|startupProbe.httpGet|tcpSocket.port", Check::PortOrName),
    Rule("livenessProbe|readinessProbe|startupProbe.grpc.port", Check::NeedsPort),
    Rule("livenessProbe|readinessProbe|startupProbe.initialDelaySeconds|timeoutSeconds|periodSeconds", NONNEGATIVE),
    Rule("livenessProbe|readinessProbe|startupProbe.successThreshold|failureThreshold", NONNEGATIVE),
    Rule("livenessProbe|startupProbe.successThreshold", Check::Says(rules::one)),
    Rule("lifecycle.postStart|preStop", Check::OneMember(HOOKS, HANDLER, ONE_HANDLER)),
    Rule("lifecycle.postStart|preStop.exec.command", Check::Required("")),
    Rule("lifecycle.postStart|preStop.httpGet|tcpSocket.port", Check::PortOrName),
    Rule("securityContext.runAsUser|runAsGroup", ID),
    Rule("securityContext.procMount", Check::OneOf(&["Default", "Unmasked"])),
];

const SOURCES: &[&str] = &["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
/// Fields of a pod that a variable may show.
const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

fn message_policy(policy: &Value) -> Vec<&'static str> {
    match policy.as_str() {
        Some("File" | "FallbackToLogsOnError") => Vec::new(),
        _ => vec!["must be 'File' or 'FallbackToLogsOnError'"],
    }
}

/// Judges a container under `path`; `names` are those of containers before it, `volumes` of the pod's volumes.
pub fn validate(container: &Value, path: &str, names: &[&str], volumes: &[&str], errors: &mut Errors) {
    errors.named(&container["name"], &format!("{path}.name"), NameRule::Label);
    if container["name"].as_str().is_some_and(|name| names.contains(&name)) {
        errors.push(FieldError::duplicate(format!("{path}.name"), &container["name"]));
    }
    check(RULES, container, path, errors);
    unique(
        &container["ports"],
        |port| port["name"].as_str().filter(|name| !name.is_empty()),
        |i, port| errors.push(FieldError::duplicate(format!("{path}.ports[{i}].name"), &port["name"])),
    );
    environment(container, path, errors);
    mounts(&container["volumeMounts"], path, volumes, errors);
    resources(&container["resources"], &format!("{path}.resources"), errors);
    let context = &container["securityContext"];
    if context["allowPrivilegeEscalation"] == json!(false) && context["privileged"] == json!(true) {
        let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        errors.push(FieldError::invalid(format!("{path}.securityContext"), context, why));
    }
}

fn environment(container: &Value, path: &str, errors: &mut Errors) {
    for (i, variable) in container["env"].as_array().into_iter().flatten().enumerate() {
        let from = &variable["valueFrom"];
        if !from.is_object() {
            continue;
        }
        let at = format!("{path}.env[{i}].valueFrom");
        let why = match SOURCES.iter().filter(|source| !from[**source].is_null()).count() {
            0 => Some("must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"),
            _ if !variable["value"].as_str().unwrap_or_default().is_empty() => {
                Some("may not be specified when `value` is not empty")
            }
            1 => None,
            _ => Some("may not have more than one field specified at a time"),
        };
        if let Some(why) = why {
            errors.push(FieldError::invalid(at.clone(), &json!(""), why));
        }
        volume::field(&from["fieldRef"], FIELDS, &format!("{at}.fieldRef"), errors);
    }
    for source in container["envFrom"].as_array().into_iter().flatten() {
        let why = match (source["configMapRef"].is_object(), source["secretRef"].is_object()) {
            (false, false) => "must specify one of: `configMapRef` or `secretRef`",
            (true, true) => "may not have more than one field specified at a time",
            _ => continue,
        };
        errors.push(FieldError::invalid(format!("{path}.envFrom"), &json!(""), why));
    }
}

fn mounts(mounts: &Value, path: &str, volumes: &[&str], errors: &mut Errors) {
    for (i, mount) in mounts.as_array().into_iter().flatten().enumerate() {
        let name = mount["name"].as_str().unwrap_or_default();
        if !volumes.contains(&name) {
            errors.push(not_found(format!("{path}.volumeMounts[{i}].name"), name));
        }
    }
    unique(
        mounts,
        |mount| mount["mountPath"].as_str(),
        |i, mount| {
            let field = format!("{path}.volumeMounts[{i}].mountPath");
            errors.push(FieldError::invalid(field, &mount["mountPath"], "must be unique"));
        },
    );
}

/// Ports of the machine: no two containers have the same, and a pod on the machine's network listens where it says.
pub fn host_ports(spec: &Value, path: &str, errors: &mut Errors) {
    let mut taken = Vec::new();
    for list in ["initContainers", "containers"] {
        for (i, container) in spec[list].as_array().into_iter().flatten().enumerate() {
            for (j, port) in container["ports"].as_array().into_iter().flatten().enumerate() {
                let at = |field: &str| format!("{path}.{list}[{i}].ports[{j}].{field}");
                let Some(number) = port["hostPort"].as_i64().filter(|port| *port != 0) else { continue };
                if spec["hostNetwork"] == json!(true) && port["containerPort"] != port["hostPort"] {
                    let why = "must match `hostPort` when `hostNetwork` is true";
                    errors.push(FieldError::invalid(at("containerPort"), &port["containerPort"], why));
                }
                let text = |field: &str| port[field].as_str().unwrap_or_default();
                let key = format!("{}/{}/{number}", text("protocol"), text("hostIP"));
                if list == "containers" && taken.contains(&key) {
                    errors.push(FieldError::duplicate(at("hostPort"), &json!(key)));
                }
                if list == "containers" {
                    taken.push(key);
                }
            }
        }
    }
}

/// Whether a resource is one that Kubernetes knows and a container may have.
fn is_standard(resource: &str) -> bool {
    matches!(resource, "cpu" | "memory" | "ephemeral-storage") || resource.starts_with("hugepages-")
}

fn resources(resources: &Value, path: &str, errors: &mut Errors) {
    let amount = |v: &Value| v.as_str().and_then(|text| text.parse::<Quantity>().ok());
    for list in ["limits", "requests"] {
        errors.quantities(&resources[list], &format!("{path}.{list}"));
        for (resource, value) in resources[list].as_object().into_iter().flatten() {
            let at = format!("{path}.{list}[{resource}]");
            if !resource.contains('/') && !is_standard(resource) {
                let shown = json!(resource);
                errors.push(FieldError::invalid(
                    at.clone(),
                    &shown,
                    "must be a standard resource type or fully qualified",
                ));
                errors.push(FieldError::invalid(at, &shown, "must be a standard resource for containers"));
            } else if !is_qualified_name(resource) {
                errors.push(FieldError::invalid(at, &json!(resource), crate::kinds::QUALIFIED_NAME));
            } else if resource.contains('/')
                && amount(value).is_some_and(|amount| amount.nano_value() % 1_000_000_000 != 0)
            {
                errors.push(FieldError::invalid(at, value, "must be an integer"));
            }
        }
    }
    for (resource, request) in resources["requests"].as_object().into_iter().flatten() {
        let limit = &resources["limits"][resource];
        let shared = !resource.contains('/') && !resource.starts_with("hugepages-");
        match (amount(request), amount(limit)) {
            (Some(_), None) if !shared => {
                let why = "Limit must be set for non overcommitable resources";
                errors.push(FieldError::required(format!("{path}.limits"), why));
            }
            (Some(wanted), Some(most)) if !shared && wanted != most => {
                let why = format!("must be equal to {resource} limit of {}", limit.as_str().unwrap_or_default());
                errors.push(FieldError::invalid(format!("{path}.requests"), request, &why));
            }
            (Some(wanted), Some(most)) if wanted > most => {
                let why =
                    format!("must be less than or equal to {resource} limit of {}", limit.as_str().unwrap_or_default());
                errors.push(FieldError::invalid(format!("{path}.requests"), request, &why));
            }
            _ => {}
        }
    }
}
