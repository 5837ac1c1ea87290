//! authentication.k8s.io/v1: field numbers, names in JSON and types, after the `generated.proto` of
//! `k8s.io/api/authentication/v1`. How to read a line: [`super::table`]. What a server answers is not read.

use super::meta::ObjectMeta;

super::table::messages! {
    SelfSubjectReview: 1 "metadata" one ObjectMeta;
    TokenReview: 1 "metadata" one ObjectMeta, 2 "spec" one TokenReviewSpec;
    TokenReviewSpec: 1 "token" one string, 2 "audiences" list string;
}
