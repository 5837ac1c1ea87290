//! What both kinds of webhook configurations share.

use serde_json::{Value, json};

use crate::admission::conditions;
use crate::kinds::{Errors, pod_spec};
use crate::status::FieldError;
use crate::table::{age, list};
use crate::webhook;

/// Fills in what was left out of each webhook.
pub fn complete(configuration: &mut Value, mutates: bool) {
    for hook in configuration.get_mut("webhooks").and_then(Value::as_array_mut).into_iter().flatten() {
        pod_spec::set(hook, "failurePolicy", "Fail");
        pod_spec::set(hook, "matchPolicy", "Equivalent");
        pod_spec::set(hook, "namespaceSelector", json!({}));
        pod_spec::set(hook, "objectSelector", json!({}));
        pod_spec::set(hook, "timeoutSeconds", 10);
        if mutates {
            pod_spec::set(hook, "reinvocationPolicy", "Never");
        }
        if let Some(service) = hook.get_mut("clientConfig").and_then(|c| c.get_mut("service")).filter(|s| s.is_object())
        {
            pod_spec::set(service, "port", 443);
        }
        for rule in hook.get_mut("rules").and_then(Value::as_array_mut).into_iter().flatten() {
            pod_spec::set(rule, "scope", "*");
        }
    }
}

/// Judges each webhook.
pub fn judge(configuration: &Value, errors: &mut Errors) {
    let hooks = list(&configuration["webhooks"]);
    for (i, hook) in hooks.iter().enumerate() {
        let at = |field: &str| format!("webhooks[{i}].{field}");
        let name = hook["name"].as_str().unwrap_or_default();
        errors.named(&hook["name"], &at("name"), crate::kinds::NameRule::Subdomain);
        if !name.is_empty() && name.split('.').count() < 3 {
            let why = "should be a domain with at least three segments separated by dots";
            errors.push(FieldError::invalid(at("name"), &hook["name"], why));
        }
        if hooks[..i].iter().any(|other| other["name"] == hook["name"]) {
            errors.push(FieldError::duplicate(at("name"), &hook["name"]));
        }
        if list(&hook["admissionReviewVersions"]).is_empty() {
            errors.push(FieldError::required(at("admissionReviewVersions"), "must specify one of v1, v1beta1"));
        }
        for (k, rule) in list(&hook["rules"]).iter().enumerate() {
            for field in ["operations", "apiGroups", "apiVersions", "resources"] {
                if list(&rule[field]).is_empty() {
                    errors.push(FieldError::required(at(&format!("rules[{k}].{field}")), ""));
                }
            }
            for operation in list(&rule["operations"]) {
                let field = at(&format!("rules[{k}].operations"));
                errors.one_of(operation, field, &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"]);
            }
        }
        errors.one_of(&hook["failurePolicy"], at("failurePolicy"), &["Fail", "Ignore"]);
        errors.one_of(&hook["matchPolicy"], at("matchPolicy"), &["Equivalent", "Exact"]);
        if hook["sideEffects"].is_null() {
            errors.push(FieldError::required(at("sideEffects"), "must specify one of None, NoneOnDryRun"));
        }
        errors.one_of(&hook["sideEffects"], at("sideEffects"), &["None", "NoneOnDryRun"]);
        errors.one_of(&hook["reinvocationPolicy"], at("reinvocationPolicy"), &["IfNeeded", "Never"]);
        if hook["timeoutSeconds"].as_i64().is_some_and(|seconds| !(1..=30).contains(&seconds)) {
            let why = "the timeout value must be between 1 and 30 seconds";
            errors.push(FieldError::invalid(at("timeoutSeconds"), &hook["timeoutSeconds"], why));
        }
        client(&hook["clientConfig"], &at("clientConfig"), errors);
        errors.label_selector(&hook["namespaceSelector"], &at("namespaceSelector"));
        errors.label_selector(&hook["objectSelector"], &at("objectSelector"));
        conditions::check(&hook["matchConditions"], &at("matchConditions"), &conditions::WEBHOOK, errors);
    }
}

/// Judges where a webhook is, of admission or of conversion.
pub fn client(config: &Value, path: &str, errors: &mut Errors) {
    if config["url"].is_string() == config["service"].is_object() {
        return errors.push(FieldError::required(path, "exactly one of url or service is required"));
    }
    if let Some(url) = config["url"].as_str() {
        check_url(url, &format!("{path}.url"), errors);
    } else {
        for field in ["name", "namespace"] {
            errors.require(&config["service"][field], format!("{path}.service.{field}"));
        }
    }
    if let Err(why) = webhook::check(config) {
        errors.push(FieldError::invalid(path, &Value::Null, &why));
    }
}

fn check_url(url: &str, field: &str, errors: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let part = |text: &str| Value::from(text.to_owned());
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    for (wrong, value, why) in [
        (scheme != "https", scheme, "'https' is the only allowed URL scheme"),
        (authority.is_empty(), "", "host must be specified"),
        (authority.contains('@'), "…", "user information is not permitted in the URL"),
        (rest.contains('#'), rest, "fragments are not permitted in the URL"),
        (rest.contains('?'), rest, "query parameters are not permitted in the URL"),
    ] {
        if wrong {
            errors.push(FieldError::invalid(field, &part(value), &format!("{why}{FORM}")));
        }
    }
}

pub(super) const COLUMNS: &str = "Name, Webhooks:integer, Age";

pub(super) fn cells(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    vec![object["metadata"]["name"].clone(), list(&object["webhooks"]).len().into(), age(object, now)]
}
