//! `authentication.k8s.io/v1`: questions that are answered and not kept. How: [`crate::authorization::reviews`].

mod self_subject_review;
mod token_review;

use super::Description;

/// Kinds of this group.
pub static KINDS: &[&Description] = &[&self_subject_review::KIND, &token_review::KIND];
