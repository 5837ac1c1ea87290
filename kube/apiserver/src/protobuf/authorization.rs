//! authorization.k8s.io/v1: field numbers, names in JSON and types, after the `generated.proto` of
//! `k8s.io/api/authorization/v1`. How to read a line: [`super::table`]. What a server answers is not read, nor `extra`, by which no
//! rule decides.

use super::meta::ObjectMeta;

super::table::messages! {
    NonResourceAttributes: 1 "path" one string, 2 "verb" one string;
    ResourceAttributes:
        1 "namespace" one string, 2 "verb" one string, 3 "group" one string, 4 "version" one string,
        5 "resource" one string, 6 "subresource" one string, 7 "name" one string;
    SelfSubjectAccessReview: 1 "metadata" one ObjectMeta, 2 "spec" one SelfSubjectAccessReviewSpec;
    SelfSubjectAccessReviewSpec:
        1 "resourceAttributes" opt ResourceAttributes, 2 "nonResourceAttributes" opt NonResourceAttributes;
    SelfSubjectRulesReview: 1 "metadata" one ObjectMeta, 2 "spec" one SelfSubjectRulesReviewSpec;
    SelfSubjectRulesReviewSpec: 1 "namespace" one string;
    SubjectAccessReview: 1 "metadata" one ObjectMeta, 2 "spec" one SubjectAccessReviewSpec;
    SubjectAccessReviewSpec:
        1 "resourceAttributes" opt ResourceAttributes, 2 "nonResourceAttributes" opt NonResourceAttributes,
        3 "user" one string, 4 "groups" list string, 6 "uid" one string;
}
