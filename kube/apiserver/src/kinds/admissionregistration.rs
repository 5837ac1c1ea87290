//! `admissionregistration.k8s.io/v1`: who else judges what is written.

mod mutating_webhook_configuration;
mod validating_admission_policy;
mod validating_admission_policy_binding;
mod validating_webhook_configuration;
pub mod webhooks;

use super::Description;

/// Kinds of this group.
pub static KINDS: &[&Description] = &[
    &mutating_webhook_configuration::KIND,
    &validating_admission_policy::KIND,
    &validating_admission_policy_binding::KIND,
    &validating_webhook_configuration::KIND,
];
