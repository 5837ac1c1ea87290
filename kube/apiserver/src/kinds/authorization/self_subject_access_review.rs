//! Whether who asks may do something.

use crate::kinds::Description;

pub static KIND: Description = Description {
    namespaced: false,
    verbs: &["create"],
    ..Description::of(["authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews"])
};
