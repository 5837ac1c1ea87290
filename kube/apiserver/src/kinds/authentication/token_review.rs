//! Whose token something is.

use crate::kinds::Description;

pub static KIND: Description = Description {
    namespaced: false,
    verbs: &["create"],
    ..Description::of(["authentication.k8s.io", "v1", "TokenReview", "tokenreviews"])
};
