//! `authorization.k8s.io/v1`: questions that are answered and not kept. How: [`crate::authorization::reviews`].

mod local_subject_access_review;
mod self_subject_access_review;
mod self_subject_rules_review;
mod subject_access_review;

use super::Description;

/// Kinds of this group.
pub static KINDS: &[&Description] = &[
    &local_subject_access_review::KIND,
    &self_subject_access_review::KIND,
    &self_subject_rules_review::KIND,
    &subject_access_review::KIND,
];
