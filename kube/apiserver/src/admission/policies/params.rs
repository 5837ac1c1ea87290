//! Parameters of policies: objects that a binding names, which its policy's expressions see as `params`.

use serde_json::Value;

use super::super::Request;
use crate::selector::Labels;
use crate::server::ApiServer;
use crate::status::Status;
use crate::verbs::read::{self, decoded};

/// The parameters with which a policy is asked, one after the other: `null` alone if it has none.
///
/// # Errors
/// When the store cannot be read; within: what is wrong with the policy or its binding, in upstream's words.
pub fn found(
    server: &ApiServer,
    request: &Request<'_>,
    kind: Option<&(String, String)>,
    reference: &Value,
) -> Result<Result<Vec<Value>, String>, Status> {
    let (Some((group, kind_name)), true) = (kind, reference.is_object()) else { return Ok(Ok(vec![Value::Null])) };
    let Some(kind) = server.inner.registry.by_kind(group, kind_name) else {
        let why = format!(
            "failed to configure policy: failed to find resource referenced by paramKind: '{group}, Kind={kind_name}'"
        );
        return Ok(Err(why));
    };
    let named = |field: &str| reference[field].as_str().filter(|text| !text.is_empty());
    let namespace = match (kind.namespaced, named("namespace")) {
        (false, Some(_)) => {
            let why =
                "failed to configure binding: paramRef.namespace must not be provided for a cluster-scoped `paramKind`";
            return Ok(Err(why.into()));
        }
        (false, None) => "",
        (true, Some(namespace)) => namespace,
        (true, None) if request.namespace.is_empty() => {
            let why = "failed to configure binding: cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
            return Ok(Err(why.into()));
        }
        (true, None) => request.namespace,
    };
    let params: Vec<Value> = match named("name") {
        Some(name) => {
            let entry = server.inner.store.get(&kind.key(namespace, name));
            entry.iter().map(|entry| decoded(&kind, entry)).collect::<Result<_, _>>()?
        }
        None => {
            let labels = match Labels::from_object(&reference["selector"]) {
                Ok(labels) => labels,
                Err(why) => return Ok(Err(format!("failed to configure binding: {why}"))),
            };
            let all = read::all(server, &kind, namespace)?.into_iter();
            all.filter(|object| labels.matches(&object["metadata"]["labels"])).collect()
        }
    };
    if params.is_empty() && reference["parameterNotFoundAction"] != "Allow" {
        let why = "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
        return Ok(Err(why.into()));
    }
    Ok(Ok(params))
}
