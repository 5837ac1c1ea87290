//! Webhooks: servers of others that change or judge what is written (`MutatingWebhookConfiguration`,
//! `ValidatingWebhookConfiguration`).
//!
//! ```text
//!             ┌──────────── again, if a later one changed it: plug-ins, and those with IfNeeded ───────────┐
//! object ─▶ plug-ins ─▶ mutating, one after the other, by name ─▶ decode, default ─▶ policies ─▶ validating, all at once ─▶
//! ```
//!
//! What a webhook's server may try, and what it meets, is in `docs/design/threats.md`.

pub(super) mod review;

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};

use super::conditions::{Conditions, WEBHOOK, authorizer};
use super::matching::Scope;
use super::{Operation, Request};
use crate::audit;
use crate::cel::{self, Budget};
use crate::custom::conversion::between;
use crate::kinds::Kind;
use crate::object::{meta, metadata};
use crate::patch::PatchKind;
use crate::server::ApiServer;
use crate::status::Status;
use crate::warnings;
use crate::webhook::Client;

/// One webhook, read.
pub(super) struct Hook {
    /// Of the configuration and the webhook: which one it is.
    id: String,
    name: String,
    scope: Scope,
    conditions: Conditions,
    client: Client,
    fails: bool,
    again: bool,
}

/// The webhooks of a configuration. What validation lets pass can be read; what it did not see (another version of this
/// program) is told, and refuses nothing.
pub(super) fn read(configuration: &Value) -> Vec<Hook> {
    let hooks = configuration["webhooks"].as_array().into_iter().flatten();
    hooks
        .filter_map(|hook| {
            let name = hook["name"].as_str().unwrap_or_default().to_owned();
            let seconds = hook["timeoutSeconds"].as_u64().unwrap_or(10).clamp(1, 30);
            let read = Scope::read(hook).and_then(|scope| {
                let conditions = Conditions::read(&hook["matchConditions"], &WEBHOOK)?;
                Ok((scope, conditions, Client::read(&hook["clientConfig"], Duration::from_secs(seconds))?))
            });
            let (scope, conditions, client) =
                read.inspect_err(|why| tracing::error!(webhook = name, why, "a webhook cannot be read")).ok()?;
            Some(Hook {
                id: format!("{}/{name}", meta(configuration, "name")),
                scope,
                conditions,
                client,
                fails: hook["failurePolicy"] != "Ignore",
                again: hook["reinvocationPolicy"] == "IfNeeded",
                name,
            })
        })
        .collect()
}

/// What the first pass over mutating webhooks leaves for the second.
#[derive(Default)]
pub(super) struct Pass {
    second: bool,
    /// Webhooks that have been asked, and would be again.
    asked: Vec<String>,
    /// Those of them that saw the object before somebody changed it.
    due: Vec<String>,
    /// The object as the first pass left it.
    left: Option<Value>,
}

/// Asks the mutating webhooks; whether one of them has changed something.
///
/// # Errors
/// What one of them, or a call that failed, says.
pub(super) async fn mutate(
    server: &ApiServer,
    request: &Request<'_>,
    object: &mut Value,
    pass: &mut Pass,
) -> Result<bool, Status> {
    let hooks = server.inner.admitted.mutating.now(server)?;
    if hooks.is_empty() || request.is_exempt() {
        return Ok(false);
    }
    if pass.left.take().is_some_and(|left| left != *object) {
        pass.due.append(&mut pass.asked);
    }
    let mut changed = false;
    for (index, hook) in hooks.iter().enumerate() {
        if pass.second && !pass.due.contains(&hook.id) {
            continue;
        }
        let Some(shown) = hook.wants(server, request, object).await? else { continue };
        let turn = (true, u8::from(pass.second), index);
        let Some(answer) = hook.ask(server, request, &shown, object, turn).await? else { continue };
        let mut mutated = false;
        if let Some(patch) = answer.patch {
            let patched = patched(server, request, &shown, object, &patch)
                .await
                .map_err(|status| Status::internal(format!("{:?}: {}", hook.name, status.message)))?;
            if patched != *object {
                *object = patched;
                (changed, mutated) = (true, true);
                pass.due.append(&mut pass.asked);
            }
        }
        let (round, (configuration, _)) = (u8::from(pass.second), hook.id.split_once('/').unwrap_or_default());
        let asked = json!({ "configuration": configuration, "webhook": hook.name, "mutated": mutated });
        audit::note(format!("mutation.webhook.admission.k8s.io/round_{round}_index_{index}"), asked.to_string());
        if hook.again && !pass.second {
            pass.asked.push(hook.id.clone());
        }
    }
    pass.second = true;
    pass.left = Some(object.clone());
    Ok(changed)
}

/// Asks the validating webhooks, all at once.
///
/// # Errors
/// What the first that refuses, or a call that failed, says.
pub(super) async fn validate(server: &ApiServer, request: &Request<'_>, object: &Value) -> Result<(), Status> {
    let hooks = server.inner.admitted.validating.now(server)?;
    if hooks.is_empty() || request.is_exempt() {
        return Ok(());
    }
    let mut calls = Vec::new();
    for hook in hooks.iter() {
        if let Some(shown) = hook.wants(server, request, object).await? {
            let turn = (false, 0, calls.len());
            calls.push(async move { hook.ask(server, request, &shown, object, turn).await });
        }
    }
    join_all(calls).await.into_iter().try_for_each(|answer| answer.map(|_| ()))
}

impl Hook {
    /// The kind as which it wants to see a request, if it does.
    async fn wants(
        &self,
        server: &ApiServer,
        request: &Request<'_>,
        object: &Value,
    ) -> Result<Option<Arc<Kind>>, Status> {
        let Some(shown) = self.scope.wants(server, request, object)? else { return Ok(None) };
        if self.conditions.is_empty() {
            return Ok(Some(shown));
        }
        let asked = review::question(server, "", request, &shown, object).await?;
        let values = [&asked["object"], &asked["oldObject"], &asked].map(|json| cel::Value::of(json, None));
        let values = values.into_iter().chain([authorizer(server, request)]);
        let names: Vec<(&str, cel::Value<'_>)> = WEBHOOK.into_iter().zip(values).collect();
        match self.conditions.hold(&names, &mut Budget::default()) {
            Ok(true) => Ok(Some(shown)),
            Ok(false) => Ok(None),
            Err(why) if self.fails => Err(Status::forbidden(request.group, request.plural, request.name, &why)),
            Err(why) => {
                tracing::warn!(webhook = self.name, why, "failing open");
                Ok(None)
            }
        }
    }

    /// What it answers, if it does not refuse; nothing if it cannot be asked and that does not matter. Its turn is whether it may change
    /// something, in which round, and which of those asked then it is.
    async fn ask(
        &self,
        server: &ApiServer,
        request: &Request<'_>,
        shown: &Kind,
        object: &Value,
        (mutates, round, index): (bool, u8, usize),
    ) -> Result<Option<review::Answer>, Status> {
        let uid = uuid::Uuid::new_v4().to_string();
        let asked = review::question(server, &uid, request, shown, object).await?;
        let asked = json!({ "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": asked });
        let answer = self.client.call(server, &asked).await;
        match answer.and_then(|review| review::answer(&self.name, &uid, mutates, &review)) {
            Ok(answer) => {
                answer.warnings.iter().for_each(warnings::tell);
                answer.annotations.iter().for_each(|(key, value)| audit::note(key, value));
                answer.refusal.clone().map_or(Ok(Some(answer)), Err)
            }
            Err(why) => {
                let why = format!("failed calling webhook {:?}: {why}", self.name);
                if self.fails {
                    return Err(Status::internal(why));
                }
                tracing::warn!(why, "failing open");
                let kind = if mutates { "mutation" } else { "validating" };
                let key = format!("failed-open.{kind}.webhook.admission.k8s.io/round_{round}_index_{index}");
                audit::note(key, &self.name);
                Ok(None)
            }
        }
    }
}

/// The object with a webhook's patch, as the kind of the request has it. What only the server writes stays as it is.
async fn patched(
    server: &ApiServer,
    request: &Request<'_>,
    shown: &Kind,
    object: &Value,
    patch: &Value,
) -> Result<Value, Status> {
    if request.operation == Operation::Delete {
        let why = "admission webhook attempted to modify the object, which is not supported for this operation";
        return Err(Status::bad_request(why));
    }
    if let Some(sent) = request.sent {
        return super::decoded(sent, PatchKind::Json.apply(object, patch)?);
    }
    let kind = request.kind;
    let seen = PatchKind::Json.apply(&between(server, kind, shown, object).await?, patch)?;
    let mut decoded = kind.decode(between(server, shown, kind, &seen).await?).map_err(Status::bad_request)?.object;
    for field in ["name", "namespace"] {
        if meta(&decoded, field) != meta(object, field) {
            return Err(Status::bad_request(format!("metadata.{field}: field is immutable")));
        }
    }
    const OWN: [&str; 6] = [
        "uid",
        "creationTimestamp",
        "generation",
        "resourceVersion",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ];
    for field in OWN {
        let kept = object["metadata"].get(field).cloned();
        let map = metadata(&mut decoded);
        map.remove(field);
        map.extend(kept.map(|kept| (field.to_owned(), kept)));
    }
    if kind.has_status && request.subresource.is_empty() && kind.names.kind != "Node" {
        let status = object.get("status").cloned();
        if let Some(map) = decoded.as_object_mut() {
            map.remove("status");
            map.extend(status.map(|status| ("status".to_owned(), status)));
        }
    }
    kind.default(&mut decoded);
    kind.prepare(&mut decoded, request.old, request.user);
    Ok(decoded)
}
