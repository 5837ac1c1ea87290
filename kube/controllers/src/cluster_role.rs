//! ClusterRoles that are the sum of others: `aggregationRule` says by which labels those are found.
//!
//! ```text
//! ClusterRoles ──▶ sum: the rules of those that a selector matches, by name ──▶ `rules` of the sum
//! ```
use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use substrate_client::Cache;
use substrate_client::lookup::label_selector_matches;

use crate::objects::name;
use crate::work::{Next, Rounds};

/// Adds up until dropped.
pub(crate) async fn run(client: Client, roles: Cache<ClusterRole>) {
    let api: Api<ClusterRole> = Api::all(client);
    let mut rounds = Rounds::begin(vec![roles.changes()]).await;
    loop {
        let mut next = Next::default();
        let all = roles.list();
        for role in &all {
            let Some(rules) = sum(role, &all).filter(|rules| role.rules.as_ref() != Some(rules)) else { continue };
            // Of exactly the role that was read: what was written meanwhile is added up the next time.
            let patch = Patch::Merge(
                json!({ "metadata": { "resourceVersion": role.metadata.resource_version }, "rules": rules }),
            );
            let written = api.patch(name(&role.metadata), &PatchParams::default(), &patch).await;
            next.judge("ClusterRole", &role.metadata, written.map(|_| ()));
        }
        rounds.wait(next).await;
    }
}

/// What a role that is a sum should allow: each rule once, by the names of the roles that they come from. `None` for others.
fn sum(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Option<Vec<PolicyRule>> {
    let selectors = role.aggregation_rule.as_ref()?.cluster_role_selectors.as_deref().unwrap_or_default();
    let mut parts: Vec<&Arc<ClusterRole>> = all
        .iter()
        .filter(|part| part.metadata.name != role.metadata.name)
        .filter(|part| {
            selectors.iter().any(|selector| label_selector_matches(Some(selector), part.metadata.labels.as_ref()))
        })
        .collect();
    parts.sort_by_key(|part| name(&part.metadata).to_owned());
    let mut rules = Vec::new();
    for rule in parts.into_iter().flat_map(|part| part.rules.iter().flatten()) {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    Some(rules)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use serde_json::{Value, json};

    use super::*;

    fn role(name: &str, label: &str, verb: &str, more: Value) -> Arc<ClusterRole> {
        let mut role =
            json!({ "metadata": { "name": name, "labels": { "to": label } }, "rules": [{ "verbs": [verb] }] });
        role.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Arc::new(serde_json::from_value(role).unwrap())
    }

    #[test]
    fn each_rule_of_those_that_are_selected_once() {
        let selects = |label: &str| json!({ "aggregationRule": { "clusterRoleSelectors": [{ "matchLabels": { "to": label } }] } });
        let all = [
            role("z", "sum", "get", json!({})),
            role("b", "sum", "list", json!({})),
            role("c", "other", "delete", json!({})),
            role("a", "sum", "get", json!({})),
            role("total", "sum", "watch", selects("sum")),
            role("none", "x", "watch", selects("nobody")),
        ];
        let verbs = |of: usize| -> Option<Vec<String>> {
            Some(sum(&all[of], &all)?.into_iter().flat_map(|rule| rule.verbs).collect())
        };
        assert_eq!(verbs(4).unwrap(), ["get", "list"]);
        assert_eq!(verbs(5).unwrap(), [""; 0]);
        assert_eq!(verbs(0), None);
    }
}
