//! Mutating webhooks: who else changes what is written.

use super::webhooks::{COLUMNS, cells, complete, judge};
use crate::kinds::{Builtin, Description};

pub static KIND: Description = Description {
    namespaced: false,
    counts: true,
    categories: &["api-extensions"],
    idle: "not asked about subresources other than `status`, nor CONNECT; audit annotations go nowhere",
    rules: Builtin {
        default: |configuration| complete(configuration, true),
        validate: judge,
        columns: COLUMNS,
        cells,
        ..Builtin::USUAL
    },
    ..Description::of([
        "admissionregistration.k8s.io",
        "v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
    ])
};
