//! The roles and bindings that every cluster has before anybody asks: `bootstrap.yaml`.

use futures::future::try_join_all;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{GROUP, Rule};
use crate::auth::User;
use crate::server::ApiServer;
use crate::status::Status;
use crate::verbs::read::decoded;

/// Objects with this annotation get what a newer version of this program adds to them; set it to `false` to keep one as it is.
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Role {
    name: String,
    /// Whom it is bound to.
    #[serde(default)]
    subjects: Vec<Value>,
    /// The role that it is part of.
    #[serde(default)]
    added_to: String,
    /// Parts of these roles it consists of.
    #[serde(default)]
    sum_of: Vec<String>,
    #[serde(default)]
    rules: Vec<Value>,
}

fn roles() -> Result<Vec<Role>, Status> {
    serde_saphyr::from_str(include_str!("bootstrap.yaml")).map_err(Status::internal)
}

/// Writes what is missing; adds rules that a role of an earlier version lacks.
///
/// # Errors
/// What the store refuses.
pub async fn write(server: &ApiServer, user: &User) -> Result<(), Status> {
    let roles = roles()?;
    let mut writes = Vec::new();
    for Role { name, subjects, added_to, sum_of, rules } in &roles {
        let mut role = object("ClusterRole", name);
        role["rules"] = json!(rules);
        if !added_to.is_empty() {
            role["metadata"]["labels"][label(added_to)] = "true".into();
        }
        if !sum_of.is_empty() {
            let selectors = sum_of.iter().map(|of| json!({ "matchLabels": { label(of): "true" } })).collect::<Vec<_>>();
            role["aggregationRule"] = json!({ "clusterRoleSelectors": selectors });
            let parts = roles.iter().filter(|part| sum_of.contains(&part.added_to));
            role["rules"] = parts.flat_map(|part| part.rules.iter().cloned()).collect();
        }
        writes.push(ensure(server, user, "clusterroles", role));
        if !subjects.is_empty() {
            let mut binding = object("ClusterRoleBinding", name);
            binding["roleRef"] = json!({ "apiGroup": GROUP, "kind": "ClusterRole", "name": name });
            binding["subjects"] = json!(subjects);
            writes.push(ensure(server, user, "clusterrolebindings", binding));
        }
    }
    try_join_all(writes).await.map(drop)
}

/// The label of what is added to a role.
fn label(role: &str) -> String {
    format!("rbac.authorization.k8s.io/aggregate-to-{role}")
}

fn object(kind: &str, name: &str) -> Value {
    let labels = json!({ "kubernetes.io/bootstrapping": "rbac-defaults" });
    let metadata = json!({ "name": name, "labels": labels, "annotations": { AUTOUPDATE: "true" } });
    json!({ "apiVersion": format!("{GROUP}/v1"), "kind": kind, "metadata": metadata })
}

async fn ensure(server: &ApiServer, user: &User, plural: &str, object: Value) -> Result<(), Status> {
    let kind = server.kind(GROUP, "v1", plural)?;
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let Some(entry) = server.inner.store.get(&kind.key("", &name)) else {
        return crate::verbs::create_object(server, user, &kind, "", object).await.map(|_| ());
    };
    let mut present = decoded(&kind, &entry)?;
    let keeps = present["metadata"]["annotations"][AUTOUPDATE] != json!("true");
    let missing = Rule::beyond(&Rule::all(&present), &Rule::all(&object));
    if keeps || plural != "clusterroles" || missing.is_empty() || object["aggregationRule"].is_object() {
        return Ok(()); // sums are kept by who adds up
    }
    let held = Rule::all(&present);
    let added = object["rules"].as_array().cloned().unwrap_or_default();
    if let Some(rules) = present["rules"].as_array_mut() {
        rules.extend(added.into_iter().filter(|rule| !Rule::beyond(&held, &[Rule::read(rule)]).is_empty()));
    }
    crate::verbs::update_object(server, user, &kind, "", &name, present).await.map(|_| ())
}
