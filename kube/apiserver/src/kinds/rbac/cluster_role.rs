//! Cluster roles: what may be done everywhere.

use super::role::{COLUMNS, cells};
use serde_json::Value;

use super::role::policy_rules;
use crate::kinds::{Builtin, Description, Errors, NameRule};
use crate::status::FieldError;
use crate::table::list;

pub static KIND: Description = Description {
    namespaced: false,
    name_rule: NameRule::PathSegment,
    rules: Builtin { validate, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(["rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles"])
};

fn validate(role: &Value, errors: &mut Errors) {
    policy_rules(role, true, errors);
    let aggregation = &role["aggregationRule"];
    if !aggregation.is_object() {
        return;
    }
    let selectors = list(&aggregation["clusterRoleSelectors"]);
    if selectors.is_empty() {
        let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        errors.push(FieldError::required("aggregationRule.clusterRoleSelectors", why));
    }
    for (i, selector) in selectors.iter().enumerate() {
        errors.label_selector(selector, &format!("aggregationRule.clusterRoleSelectors[{i}]"));
    }
}
