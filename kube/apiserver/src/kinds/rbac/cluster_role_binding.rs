//! Cluster role bindings: who may do what a cluster role says, everywhere.

use serde_json::Value;

use super::role_binding::{COLUMNS, cells, default, judge, validate_update};
use crate::kinds::{Builtin, Description, Errors, NameRule};

pub static KIND: Description = Description {
    namespaced: false,
    name_rule: NameRule::PathSegment,
    rules: Builtin { default, validate, validate_update, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(["rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings"])
};

fn validate(binding: &Value, errors: &mut Errors) {
    judge(binding, &["ClusterRole"], errors);
}
