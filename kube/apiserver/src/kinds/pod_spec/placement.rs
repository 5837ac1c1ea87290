//! What is refused of where a pod is to run: selectors, affinities, tolerations, spread.

use serde_json::{Value, json};

use crate::kinds::rules::{self, Check, Rule, check};
use crate::kinds::validate::{Errors, NameRule};
use crate::status::FieldError;

const TERMS: Check = Check::Required("must have at least one node selector term");
const TOPOLOGY: Check = Check::Required("can not be empty");
const ALL_LABELS: &str = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";

const RULES: &[Rule] = &[
    Rule("nodeSelector", Check::Labels),
    Rule("affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[].weight", Check::Says(rules::weight)),
    Rule(
        "affinity.podAffinity|podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[].weight",
        Check::Says(rules::weight),
    ),
    Rule("topologySpreadConstraints[].maxSkew|minDomains", Check::Says(rules::positive)),
    Rule("topologySpreadConstraints[].topologyKey", TOPOLOGY),
    Rule("topologySpreadConstraints[].whenUnsatisfiable", Check::OneOf(&["DoNotSchedule", "ScheduleAnyway"])),
    Rule("topologySpreadConstraints[].labelSelector", Check::Selector),
    Rule("topologySpreadConstraints[].nodeAffinityPolicy|nodeTaintsPolicy", Check::OneOf(&["Honor", "Ignore"])),
    Rule("tolerations[].effect", Check::OneOf(&["NoSchedule", "PreferNoSchedule", "NoExecute"])),
];

/// A term of affinity between pods, below itself.
const POD_TERM: &[Rule] = &[
    Rule("topologyKey", TOPOLOGY),
    Rule("topologyKey", Check::Says(rules::qualified_name)),
    Rule("namespaces[]", Check::Name(NameRule::Label)),
    Rule("labelSelector|namespaceSelector", Check::Selector),
];

/// Judges everything that speaks of nodes.
pub fn validate(spec: &Value, path: &str, errors: &mut Errors) {
    check(RULES, spec, path, errors);
    let affinity = &spec["affinity"];
    let node = format!("{path}.affinity.nodeAffinity");
    let required = &affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    if required.is_object() {
        let path = format!("{node}.requiredDuringSchedulingIgnoredDuringExecution");
        check(&[Rule("nodeSelectorTerms", TERMS)], required, &path, errors);
        for (i, term) in items(&required["nodeSelectorTerms"]) {
            node_term(term, &format!("{path}.nodeSelectorTerms[{i}]"), errors);
        }
    }
    for (i, term) in items(&affinity["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]) {
        let path = format!("{node}.preferredDuringSchedulingIgnoredDuringExecution[{i}].preference");
        node_term(&term["preference"], &path, errors);
    }
    for side in ["podAffinity", "podAntiAffinity"] {
        for (i, term) in items(&affinity[side]["requiredDuringSchedulingIgnoredDuringExecution"]) {
            let path = format!("{path}.affinity.{side}.requiredDuringSchedulingIgnoredDuringExecution[{i}]");
            pod_term(term, &path, errors);
        }
        for (i, term) in items(&affinity[side]["preferredDuringSchedulingIgnoredDuringExecution"]) {
            let path = format!("{path}.affinity.{side}.preferredDuringSchedulingIgnoredDuringExecution[{i}]");
            pod_term(&term["podAffinityTerm"], &format!("{path}.podAffinityTerm"), errors);
        }
    }
    spread(&spec["topologySpreadConstraints"], path, errors);
    for (i, toleration) in items(&spec["tolerations"]) {
        tolerate(toleration, &format!("{path}.tolerations[{i}]"), errors);
    }
}

fn items(list: &Value) -> impl Iterator<Item = (usize, &Value)> {
    list.as_array().into_iter().flatten().enumerate()
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}

fn pod_term(term: &Value, path: &str, errors: &mut Errors) {
    check(POD_TERM, term, path, errors);
}

fn node_term(term: &Value, path: &str, errors: &mut Errors) {
    for (list, is_field) in [("matchExpressions", false), ("matchFields", true)] {
        for (i, demand) in items(&term[list]) {
            let at = |field: &str| format!("{path}.{list}[{i}].{field}");
            let values = demand["values"].as_array().map_or(0, Vec::len);
            match text(demand, "operator") {
                "In" | "NotIn" if is_field && values != 1 => {
                    let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                    errors.push(FieldError::required(at("values"), why));
                }
                "In" | "NotIn" if values == 0 => {
                    let why = "must be specified when `operator` is 'In' or 'NotIn'";
                    errors.push(FieldError::required(at("values"), why));
                }
                "Exists" | "DoesNotExist" if !is_field && values > 0 => {
                    let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                    errors.push(FieldError::forbidden(at("values"), why));
                }
                "Gt" | "Lt" if !is_field && values != 1 => {
                    let why = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                    errors.push(FieldError::required(at("values"), why));
                }
                "In" | "NotIn" => {}
                "Exists" | "DoesNotExist" | "Gt" | "Lt" if !is_field => {}
                _ => errors.push(FieldError::invalid(
                    at("operator"),
                    &demand["operator"],
                    "not a valid selector operator",
                )),
            }
            if is_field && demand["key"] != "metadata.name" {
                errors.push(FieldError::invalid(at("key"), &demand["key"], "not a valid field selector key"));
            } else if !is_field {
                rules::qualified_name(&demand["key"])
                    .iter()
                    .for_each(|why| errors.push(FieldError::invalid(at("key"), &demand["key"], why)));
            }
        }
    }
}

fn spread(constraints: &Value, path: &str, errors: &mut Errors) {
    let pair = |of: &Value| (of["topologyKey"].clone(), of["whenUnsatisfiable"].clone());
    for (i, constraint) in items(constraints) {
        if items(constraints).skip(i + 1).any(|(_, later)| pair(later) == pair(constraint)) {
            let shown = format!("{{{}, {}}}", text(constraint, "topologyKey"), text(constraint, "whenUnsatisfiable"));
            let field = format!("{path}.topologySpreadConstraints[{i}].{{topologyKey, whenUnsatisfiable}}");
            errors.push(FieldError::duplicate(field, &json!(shown)));
        }
    }
}

fn tolerate(toleration: &Value, path: &str, errors: &mut Errors) {
    let operator = &toleration["operator"];
    if text(toleration, "key").is_empty() {
        if operator != "Exists" {
            errors.push(FieldError::invalid(format!("{path}.operator"), operator, ALL_LABELS));
        }
    } else {
        check(&[Rule("key", Check::Says(rules::qualified_name))], toleration, path, errors);
    }
    if !toleration["tolerationSeconds"].is_null() && toleration["effect"] != "NoExecute" {
        let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.push(FieldError::invalid(format!("{path}.effect"), &toleration["effect"], why));
    }
    match text(toleration, "operator") {
        "Exists" if !text(toleration, "value").is_empty() => {
            let why = "value must be empty when `operator` is 'Exists'";
            errors.push(FieldError::invalid(format!("{path}.operator"), &toleration["value"], why));
        }
        "" | "Equal" | "Exists" => {}
        _ => errors.one_of(operator, format!("{path}.operator"), &["Equal", "Exists"]),
    }
}
