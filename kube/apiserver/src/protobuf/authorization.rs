//! authorization.k8s.io/v1: field numbers, names in JSON and types, after the `generated.proto` of
//! `k8s.io/api/authorization/v1`. How to read a line: [`super::table`].

use super::meta::{FieldSelectorRequirement, LabelSelectorRequirement, ObjectMeta};

super::table::messages! {
    FieldSelectorAttributes: 1 "rawSelector" one string, 2 "requirements" list FieldSelectorRequirement;
    LabelSelectorAttributes: 1 "rawSelector" one string, 2 "requirements" list LabelSelectorRequirement;
    NonResourceAttributes: 1 "path" one string, 2 "verb" one string;
    NonResourceRule: 1 "verbs" list string, 2 "nonResourceURLs" list string;
    ResourceAttributes:
        1 "namespace" one string, 2 "verb" one string, 3 "group" one string, 4 "version" one string,
        5 "resource" one string, 6 "subresource" one string, 7 "name" one string,
        8 "fieldSelector" one FieldSelectorAttributes, 9 "labelSelector" one LabelSelectorAttributes;
    ResourceRule:
        1 "verbs" list string, 2 "apiGroups" list string, 3 "resources" list string, 4 "resourceNames" list string;
    SelfSubjectAccessReview: 1 "metadata" one ObjectMeta, 2 "spec" one SelfSubjectAccessReviewSpec,
        3 "status" one SubjectAccessReviewStatus;
    SelfSubjectAccessReviewSpec:
        1 "resourceAttributes" one ResourceAttributes, 2 "nonResourceAttributes" one NonResourceAttributes;
    SelfSubjectRulesReview: 1 "metadata" one ObjectMeta, 2 "spec" one SelfSubjectRulesReviewSpec,
        3 "status" one SubjectRulesReviewStatus;
    SelfSubjectRulesReviewSpec: 1 "namespace" one string;
    SubjectAccessReview: 1 "metadata" one ObjectMeta, 2 "spec" one SubjectAccessReviewSpec,
        3 "status" one SubjectAccessReviewStatus;
    SubjectAccessReviewSpec:
        1 "resourceAttributes" one ResourceAttributes, 2 "nonResourceAttributes" one NonResourceAttributes,
        3 "user" one string, 4 "groups" list string, 5 "extra" map strings, 6 "uid" one string;
    SubjectAccessReviewStatus:
        1 "allowed" one bool, 2 "reason" one string, 3 "evaluationError" one string, 4 "denied" one bool;
    SubjectRulesReviewStatus:
        1 "resourceRules" list ResourceRule, 2 "nonResourceRules" list NonResourceRule, 3 "incomplete" one bool,
        4 "evaluationError" one string;
}
