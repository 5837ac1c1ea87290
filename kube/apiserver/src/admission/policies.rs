//! Validating admission policies: rules in CEL about what is written (`ValidatingAdmissionPolicy`), and where they hold
//! (`ValidatingAdmissionPolicyBinding`).
//!
//! ```text
//! request ─▶ policy: constraints ─▶ each binding: resources ─▶ each of its parameters: conditions ─▶ variables ─▶ validations
//!                                                                                           Deny · Warn · Audit ◀─┘
//! ```

mod params;

use std::sync::Arc;

use serde_json::{Value, json};

use super::Request;
use super::conditions::{Conditions, POLICY, authorizer};
use super::matching::{Scope, namespace_object};
use super::webhooks::review;
use crate::audit;
use crate::authorization::reviews::is_review;
use crate::cel::{self, Budget, Fail, Program, Str};
use crate::kinds::Kind;
use crate::object::meta;
use crate::server::ApiServer;
use crate::status::Status;
use crate::warnings;

/// Letters of what a policy notes in the audit log (upstream: 10 KiB).
const ANNOTATION_MAX: usize = 10 * 1024;

/// A policy, read.
pub(super) struct Policy {
    name: String,
    scope: Scope,
    fails: bool,
    /// Group and kind of its parameters.
    param_kind: Option<(String, String)>,
    conditions: Conditions,
    variables: Vec<(String, Program)>,
    validations: Vec<Validation>,
    /// Keys, and what is noted under them in the audit log.
    annotations: Vec<(String, Program)>,
}

struct Validation {
    program: Program,
    text: String,
    message: Option<String>,
    message_expression: Option<Program>,
    reason: String,
}

/// A binding, read.
pub(super) struct Binding {
    name: String,
    policy: String,
    /// Nothing is everything that the policy matches.
    scope: Option<Scope>,
    params: Value,
    denies: bool,
    warns: bool,
    audits: bool,
}

/// What a policy has against a request.
struct Finding {
    message: String,
    reason: String,
    /// Of the validation.
    index: usize,
}

/// The names that expressions of a policy may use.
pub(crate) fn names() -> Vec<&'static str> {
    POLICY.into_iter().chain(["variables"]).collect()
}

/// The policy in an object, if it can be read; validation sees to it that it can.
pub(super) fn read(policy: &Value) -> Vec<Policy> {
    let name = meta(policy, "name").to_owned();
    let read = read_policy(policy).inspect_err(|why| tracing::error!(policy = name, why, "a policy cannot be read"));
    read.into_iter().collect()
}

fn read_policy(policy: &Value) -> Result<Policy, String> {
    let spec = &policy["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |field: &str| spec[field].as_array().cloned().unwrap_or_default();
    let compile = |value: &Value| Program::compile(value.as_str().unwrap_or_default(), &names());
    let validations = list("validations");
    let validations = validations.iter().map(|rule| {
        Ok::<_, String>(Validation {
            program: compile(&rule["expression"])?,
            text: text(&rule["expression"]),
            message: rule["message"].as_str().filter(|text| !text.is_empty()).map(str::to_owned),
            message_expression: rule["messageExpression"]
                .as_str()
                .map(|_| compile(&rule["messageExpression"]))
                .transpose()?,
            reason: rule["reason"].as_str().unwrap_or("Invalid").to_owned(),
        })
    });
    let variables = list("variables");
    let variables = variables.iter().map(|variable| Ok((text(&variable["name"]), compile(&variable["expression"])?)));
    let annotations = list("auditAnnotations");
    let annotations = annotations.iter().map(|one| Ok((text(&one["key"]), compile(&one["valueExpression"])?)));
    let kind = &spec["paramKind"];
    Ok(Policy {
        name: meta(policy, "name").to_owned(),
        scope: Scope::read(&spec["matchConstraints"])?,
        fails: spec["failurePolicy"] != "Ignore",
        param_kind: kind.is_object().then(|| {
            let version = text(&kind["apiVersion"]);
            (version.split_once('/').map_or(String::new(), |(group, _)| group.to_owned()), text(&kind["kind"]))
        }),
        conditions: Conditions::read(&spec["matchConditions"], &POLICY)?,
        variables: variables.collect::<Result<_, String>>()?,
        validations: validations.collect::<Result<_, String>>()?,
        annotations: annotations.collect::<Result<_, String>>()?,
    })
}

/// The binding in an object.
pub(super) fn read_binding(binding: &Value) -> Vec<Binding> {
    let spec = &binding["spec"];
    let name = meta(binding, "name").to_owned();
    let scope = Some(&spec["matchResources"]).filter(|match_| match_.is_object()).map(Scope::read).transpose();
    let Ok(scope) = scope.inspect_err(|why| tracing::error!(binding = name, why, "a binding cannot be read")) else {
        return Vec::new();
    };
    let does =
        |action: &str| spec["validationActions"].as_array().is_some_and(|all| all.iter().any(|one| one == action));
    vec![Binding {
        name,
        policy: spec["policyName"].as_str().unwrap_or_default().to_owned(),
        scope,
        params: spec["paramRef"].clone(),
        denies: does("Deny"),
        warns: does("Warn"),
        audits: does("Audit"),
    }]
}

/// Asks every policy that is bound.
///
/// # Errors
/// What the first that denies says.
pub(super) async fn validate(server: &ApiServer, request: &Request<'_>, object: &Value) -> Result<(), Status> {
    let bindings = server.inner.admitted.bindings.now(server)?;
    if bindings.is_empty() || request.is_exempt() || is_review(request.group) {
        return Ok(());
    }
    let policies = server.inner.admitted.policies.now(server)?;
    let (mut denied, mut noted) = (None, Vec::new());
    for policy in policies.iter() {
        let bound: Vec<&Binding> = bindings.iter().filter(|binding| binding.policy == policy.name).collect();
        if bound.is_empty() {
            continue;
        }
        let Some(shown) = policy.scope.wants(server, request, object)? else { continue };
        let seen = review::seen(server, request, &shown, object).await?;
        for binding in bound {
            if let Some(scope) = &binding.scope
                && scope.wants(server, request, object)?.is_none()
            {
                continue;
            }
            for finding in findings(server, request, &seen, policy, binding, &shown)? {
                let who = format!("ValidatingAdmissionPolicy '{}' with binding '{}'", policy.name, binding.name);
                if binding.warns {
                    warnings::tell(format!("Validation failed for {who}: {}", finding.message));
                }
                if binding.audits {
                    let actions = [("Deny", binding.denies), ("Warn", binding.warns), ("Audit", true)];
                    let actions = actions.into_iter().filter(|(_, does)| *does).map(|(action, _)| action);
                    noted.push(json!({ "message": finding.message, "policy": policy.name, "binding": binding.name,
                        "expressionIndex": finding.index, "validationActions": actions.collect::<Vec<_>>() }));
                }
                if binding.denies && denied.is_none() {
                    denied =
                        Some(refusal(request, &format!("{who} denied request: {}", finding.message), &finding.reason));
                }
            }
        }
    }
    if !noted.is_empty() {
        audit::note("validation.policy.admission.k8s.io/validation_failure", Value::from(noted).to_string());
    }
    denied.map_or(Ok(()), Err)
}

fn refusal(request: &Request<'_>, why: &str, reason: &str) -> Status {
    let mut status = Status::forbidden(request.group, request.plural, request.name, why);
    (status.code, status.reason) = match reason {
        "Forbidden" => (403, "Forbidden"),
        "Unauthorized" => (401, "Unauthorized"),
        "RequestEntityTooLarge" => (413, "RequestEntityTooLarge"),
        _ => (422, "Invalid"),
    };
    if let Some(details) = &mut status.details {
        details["causes"] = json!([{ "message": why }]);
    }
    status
}

/// What one binding of a policy finds.
fn findings(
    server: &ApiServer,
    request: &Request<'_>,
    [now, old]: &[Value; 2],
    policy: &Policy,
    binding: &Binding,
    shown: &Kind,
) -> Result<Vec<Finding>, Status> {
    let failed = |message: String| match policy.fails {
        true => vec![Finding { message, reason: "Invalid".into(), index: 0 }],
        false => Vec::new(),
    };
    let params = match params::found(server, request, policy.param_kind.as_ref(), &binding.params)? {
        Ok(params) => params,
        Err(why) => return Ok(failed(why)),
    };
    let about = review::about(request, shown);
    let namespace = namespace_object(server, request)?.unwrap_or(Value::Null);
    let mut found = Vec::new();
    for params in &params {
        let mut budget = Budget::default();
        let values = [now, old, &about, params, &namespace].map(|json| cel::Value::of(json, None));
        let values = values.into_iter().chain([authorizer(server, request)]);
        let mut names: Vec<(&str, cel::Value<'_>)> = POLICY.into_iter().zip(values).collect();
        match policy.conditions.hold(&names, &mut budget) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(why) => {
                found.extend(failed(why));
                continue;
            }
        }
        names.push(("variables", policy.variables(&names, &mut budget)));
        for (key, program) in &policy.annotations {
            match program.run(&names, &mut budget) {
                Ok(cel::Value::Text(text)) if !text.trim().is_empty() => {
                    audit::note(
                        format!("{}/{key}", policy.name),
                        text.chars().take(ANNOTATION_MAX).collect::<String>(),
                    );
                }
                Ok(cel::Value::Text(_) | cel::Value::Null) => {}
                Ok(_) => found.extend(failed(format!("auditAnnotations: {key}: needed a string or null"))),
                Err(error) => found.extend(failed(format!("auditAnnotations: {key}: {error}"))),
            }
        }
        for (index, validation) in policy.validations.iter().enumerate() {
            if let Some((message, is_failure)) = validation.judge(&names, &mut budget) {
                let finding = Finding { message, reason: validation.reason.clone(), index };
                found.extend(Some(finding).filter(|_| policy.fails || !is_failure));
            }
        }
    }
    Ok(found)
}

impl Policy {
    /// The values of the variables, each of which may speak of those before it. One that fails does so where it is used.
    fn variables<'a>(&'a self, names: &[(&'a str, cel::Value<'a>)], budget: &mut Budget) -> cel::Value<'a> {
        let mut names = names.to_vec();
        names.push(("variables", cel::Value::Map(Arc::default())));
        let mut known = Vec::new();
        for (name, program) in &self.variables {
            let value = program.run(&names, budget);
            let value = value.unwrap_or_else(|error| cel::Value::Failed(error.to_string().into()));
            known.push((cel::Value::Text(Str::Lent(name)), value));
            if let Some(last) = names.last_mut() {
                last.1 = cel::Value::Map(Arc::new(known.clone()));
            }
        }
        names.pop().map_or(cel::Value::Null, |(_, variables)| variables)
    }
}

impl Validation {
    /// What is wrong, and whether that is that it could not be judged.
    fn judge<'a>(&'a self, names: &[(&'a str, cel::Value<'a>)], budget: &mut Budget) -> Option<(String, bool)> {
        match self.program.holds(names, budget) {
            Ok(true) => None,
            Ok(false) => {
                let computed = self.message_expression.as_ref().and_then(|program| program.run(names, budget).ok());
                let message = match computed {
                    Some(cel::Value::Text(text)) if !text.trim().is_empty() => text.chars().take(5 * 1024).collect(),
                    _ => self.message.clone().unwrap_or_else(|| format!("failed expression: {}", self.text.trim())),
                };
                Some((message, false))
            }
            Err(Fail::Over) => Some((
                "validation failed due to running out of cost budget, no further validation rules will be run".into(),
                true,
            )),
            Err(error) => Some((format!("expression '{}' resulted in error: {error}", self.text.trim()), true)),
        }
    }
}
