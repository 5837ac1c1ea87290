//! Reviews: questions about who somebody is and what it may do. They are answered, not kept.
//!
//! | kind | asks |
//! |---|---|
//! | `SubjectAccessReview`, `LocalSubjectAccessReview` | may this user do that? |
//! | `SelfSubjectAccessReview` | may I? |
//! | `SelfSubjectRulesReview` | what may I do here? |
//! | `SelfSubjectReview` | who am I? |
//! | `TokenReview` | whose token is this? |

use serde_json::{Value, json};

use super::{Attributes, MASTERS, Rule, decide};
use crate::audit::shown;
use crate::auth::{User, token_user};
use crate::server::ApiServer;
use crate::status::{FieldError, Status};
use crate::verbs::Call;

/// Whether objects of a kind are questions.
pub fn is_review(group: &str) -> bool {
    matches!(group, "authorization.k8s.io" | "authentication.k8s.io")
}

/// Answers one, in its status.
///
/// # Errors
/// 422 for a question that cannot be understood.
pub fn answer(server: &ApiServer, call: &Call, mut review: Value) -> Result<Value, Status> {
    let (kind, spec) = (call.kind.names.kind.as_ref(), review["spec"].clone());
    let status = match kind {
        "SelfSubjectReview" => json!({ "userInfo": shown(&call.user) }),
        "TokenReview" if text(&spec["token"]).is_empty() => {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        "TokenReview" => {
            let audiences: Vec<&str> = spec["audiences"].as_array().into_iter().flatten().map(text).collect();
            match token_user(server, text(&spec["token"]), &audiences) {
                Ok((user, audiences)) if audiences.is_empty() => json!({ "authenticated": true, "user": shown(&user) }),
                Ok((user, of)) => json!({ "authenticated": true, "user": shown(&user), "audiences": of }),
                Err(why) => json!({ "user": {}, "error": why }),
            }
        }
        "SelfSubjectRulesReview" => {
            let namespace = text(&spec["namespace"]);
            if namespace.is_empty() {
                return Err(Status::bad_request("no namespace on request"));
            }
            let rules = rules(server, &call.user, namespace)?;
            review["spec"] = json!({});
            rules
        }
        _ => {
            let (user, asked) = question(call, kind, &spec)
                .map_err(|errors| Status::invalid(&call.kind.names.group, "", "", &errors))?;
            match decide(server, &user, &asked)? {
                Some(reason) if reason.is_empty() => json!({ "allowed": true }),
                Some(reason) => json!({ "allowed": true, "reason": reason }),
                None => json!({ "allowed": false }),
            }
        }
    };
    review["status"] = status;
    crate::object::child(&mut review, "metadata");
    Ok(review)
}

/// About whom and about what somebody asks.
fn question(call: &Call, kind: &str, spec: &Value) -> Result<(User, Attributes), Vec<FieldError>> {
    let mut errors = Vec::new();
    let user = if kind == "SelfSubjectAccessReview" { Some(call.user.clone()) } else { asked_about(spec) };
    if user.is_none() {
        let why = "at least one of user or group must be specified";
        errors.push(FieldError::invalid("spec.user", &json!(""), why));
    }
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let asked = asked_for(spec);
    match &asked {
        None if resource.is_object() => {
            let why = "cannot be specified in combination with resourceAttributes";
            errors.push(FieldError::invalid("spec.nonResourceAttributes", path, why));
        }
        None => {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            errors.push(FieldError::invalid("spec.resourceAttributes", &Value::Null, why));
        }
        Some(_) if kind != "LocalSubjectAccessReview" => {}
        Some(_) if path.is_object() => {
            let why = "disallowed on this kind of request";
            errors.push(FieldError::invalid("spec.nonResourceAttributes", path, why));
        }
        Some(asked) if asked.namespace != call.route.namespace => {
            let why = "must match metadata.namespace";
            errors.push(FieldError::invalid("spec.resourceAttributes.namespace", &json!(asked.namespace), why));
        }
        Some(_) => {}
    }
    match (user, asked) {
        (Some(user), Some(asked)) if errors.is_empty() => Ok((user, asked)),
        _ => Err(errors),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn asked_about(spec: &Value) -> Option<User> {
    let groups: Vec<String> =
        spec["groups"].as_array().into_iter().flatten().filter_map(|group| group.as_str().map(str::to_owned)).collect();
    let name = text(&spec["user"]).to_owned();
    (!name.is_empty() || !groups.is_empty()).then_some(User { name, groups })
}

fn asked_for(spec: &Value) -> Option<Attributes> {
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    match (resource.is_object(), path.is_object()) {
        (true, false) => {
            let of = |field: &str| text(&resource[field]).to_owned();
            let sub = of("subresource");
            let resource = if sub.is_empty() { of("resource") } else { format!("{}/{sub}", of("resource")) };
            // Without a resource nothing but everything is meant.
            let resource = if resource.is_empty() { "*".to_owned() } else { resource };
            Some(Attributes {
                verb: of("verb"),
                group: of("group"),
                resource,
                namespace: of("namespace"),
                name: of("name"),
                path: String::new(),
            })
        }
        (false, true) => Some(Attributes::of_path(text(&path["verb"]), text(&path["path"]))),
        _ => None,
    }
}

fn rules(server: &ApiServer, user: &User, namespace: &str) -> Result<Value, Status> {
    let mut rules = server.inner.rights.now(server)?.rules(user, namespace);
    if user.groups.iter().any(|group| group == MASTERS) {
        let every = || vec!["*".to_owned()];
        rules.push(Rule { verbs: every(), groups: every(), resources: every(), ..Rule::default() });
        rules.push(Rule { verbs: every(), urls: every(), ..Rule::default() });
    }
    let (paths, resources): (Vec<&Rule>, Vec<&Rule>) = rules.iter().partition(|rule| !rule.urls.is_empty());
    let resources = resources.into_iter().map(|rule| {
        let mut told = json!({ "verbs": rule.verbs, "apiGroups": rule.groups, "resources": rule.resources });
        if !rule.names.is_empty() {
            told["resourceNames"] = json!(rule.names);
        }
        told
    });
    let paths = paths.into_iter().map(|rule| json!({ "verbs": rule.verbs, "nonResourceURLs": rule.urls }));
    Ok(json!({
        "resourceRules": resources.collect::<Vec<_>>(),
        "nonResourceRules": paths.collect::<Vec<_>>(),
        "incomplete": false,
    }))
}
