//! Whether somebody may do something in this namespace.

use crate::kinds::Description;

pub static KIND: Description = Description {
    verbs: &["create"],
    ..Description::of(["authorization.k8s.io", "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews"])
};
