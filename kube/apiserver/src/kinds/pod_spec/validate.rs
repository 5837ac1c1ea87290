//! What is refused of a pod's spec as a whole (`ValidatePodSpec` upstream).

use serde_json::{Value, json};

use super::{container, placement, volume};
use crate::kinds::rules::{self, Check, Rule, check, unique};
use crate::kinds::validate::{Errors, NameRule};
use crate::status::FieldError;

const ID: Check = Check::Range(0, i32::MAX as i64);

const RULES: &[Rule] = &[
    Rule("containers", Check::Required("")),
    Rule("restartPolicy", Check::OneOf(&["Always", "OnFailure", "Never"])),
    Rule("dnsPolicy", Check::OneOf(&["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"])),
    Rule("activeDeadlineSeconds", Check::Range(1, i32::MAX as i64)),
    Rule("hostname|subdomain", Check::Name(NameRule::Label)),
    Rule("hostAliases[-].ip", Check::Says(rules::ip)),
    Rule("hostAliases[].hostnames[]", Check::Name(NameRule::Subdomain)),
    Rule("nodeName|serviceAccountName|priorityClassName|runtimeClassName", Check::Name(NameRule::Subdomain)),
    Rule("readinessGates[].conditionType", Check::Says(rules::qualified_name)),
    Rule("schedulingGates[].name", Check::Required("")),
    Rule("dnsConfig.nameservers[]", Check::Says(rules::ip)),
    Rule("dnsConfig.searches[]", Check::Says(rules::search_domain)),
    Rule("securityContext.runAsUser|runAsGroup|fsGroup", ID),
    Rule("securityContext.supplementalGroups[]", ID),
    Rule("securityContext.fsGroupChangePolicy", Check::OneOf(&["Always", "OnRootMismatch"])),
    Rule("securityContext.sysctls[].name", Check::Required("")),
    Rule("securityContext.sysctls[].name", Check::Says(rules::sysctl)),
];

const NAMESERVERS_MAX: usize = 3;

/// Judges a pod's spec under `path`.
pub fn validate(spec: &Value, path: &str, errors: &mut Errors) {
    check(RULES, spec, path, errors);
    placement::validate(spec, path, errors);
    let volumes = volume::validate(spec, path, errors);
    let mut names = Vec::new();
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for (i, container) in spec[list].as_array().into_iter().flatten().enumerate() {
            container::validate(container, &format!("{path}.{list}[{i}]"), &names, &volumes, errors);
            names.extend(container["name"].as_str());
            resize_policy(spec, container, &format!("{path}.{list}[{i}].resizePolicy"), errors);
        }
    }
    container::host_ports(spec, path, errors);
    let yes = |field: &str| spec[field] == json!(true);
    if yes("shareProcessNamespace") && yes("hostPID") {
        let field = format!("{path}.securityContext.shareProcessNamespace");
        errors.push(FieldError::invalid(
            field,
            &json!(true),
            "ShareProcessNamespace and HostPID cannot both be enabled",
        ));
    }
    unique(
        &spec["securityContext"]["sysctls"],
        |sysctl| sysctl["name"].as_str().map(|name| name.replace('/', ".")),
        |i, sysctl| {
            let field = format!("{path}.securityContext.sysctls[{i}].name");
            errors.push(FieldError::duplicate(field, &sysctl["name"]));
        },
    );
    dns(spec, path, errors);
}

/// Whether a container says of CPU and memory, once each, what a change of them takes.
fn resize_policy(spec: &Value, container: &Value, path: &str, errors: &mut Errors) {
    let policies = &container["resizePolicy"];
    unique(
        policies,
        |policy| policy["resourceName"].as_str(),
        |i, policy| {
            errors.push(FieldError::duplicate(format!("{path}[{i}]"), &policy["resourceName"]));
        },
    );
    for policy in policies.as_array().into_iter().flatten() {
        for (field, known) in
            [("resourceName", ["cpu", "memory"]), ("restartPolicy", ["NotRequired", "RestartContainer"])]
        {
            match policy[field].as_str() {
                None | Some("") => errors.push(FieldError::required(path, "")),
                Some(_) => errors.one_of(&policy[field], path, &known),
            }
        }
        if spec["restartPolicy"] == "Never" && policy["restartPolicy"] == "RestartContainer" {
            let why = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            errors.push(FieldError::invalid(path, &policy["restartPolicy"], why));
        }
    }
}

fn dns(spec: &Value, path: &str, errors: &mut Errors) {
    let config = &spec["dnsConfig"];
    let servers = config["nameservers"].as_array().map_or(0, Vec::len);
    if spec["dnsPolicy"] == "None" && config.is_null() {
        let why = "must provide `dnsConfig` when `dnsPolicy` is None";
        errors.push(FieldError::required(format!("{path}.dnsConfig"), why));
    } else if spec["dnsPolicy"] == "None" && servers == 0 {
        let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.push(FieldError::required(format!("{path}.dnsConfig.nameservers"), why));
    }
    if servers > NAMESERVERS_MAX {
        let why = "must not have more than 3 nameservers";
        errors.push(FieldError::invalid(format!("{path}.dnsConfig.nameservers"), &config["nameservers"], why));
    }
    for (i, option) in config["options"].as_array().into_iter().flatten().enumerate() {
        if option["name"].as_str().unwrap_or_default().is_empty() {
            errors.push(FieldError::required(format!("{path}.dnsConfig.options[{i}]"), "must not be empty"));
        }
    }
}
