//! rbac.authorization.k8s.io/v1: field numbers, names in JSON and types, after the `generated.proto` of
//! `k8s.io/api/rbac/v1`. How to read a line: [`super::table`].

use super::meta::{LabelSelector, ObjectMeta};

super::table::messages! {
    AggregationRule: 1 "clusterRoleSelectors" list LabelSelector;
    ClusterRole: 1 "metadata" one ObjectMeta, 2 "rules" list PolicyRule, 3 "aggregationRule" one AggregationRule;
    ClusterRoleBinding: 1 "metadata" one ObjectMeta, 2 "subjects" list Subject, 3 "roleRef" one RoleRef;
    PolicyRule:
        1 "verbs" list string, 2 "apiGroups" list string, 3 "resources" list string, 4 "resourceNames" list string,
        5 "nonResourceURLs" list string;
    Role: 1 "metadata" one ObjectMeta, 2 "rules" list PolicyRule;
    RoleBinding: 1 "metadata" one ObjectMeta, 2 "subjects" list Subject, 3 "roleRef" one RoleRef;
    RoleRef: 1 "apiGroup" one string, 2 "kind" one string, 3 "name" one string;
    Subject: 1 "kind" one string, 2 "apiGroup" one string, 3 "name" one string, 4 "namespace" one string;
}
